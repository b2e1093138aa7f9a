"""What a reply used: providers' usage, stream events, estimates, prices and weights. Pure."""
