"""`report`: who used how much."""
