"""`bench`: how fast a check is, how good an estimate."""
