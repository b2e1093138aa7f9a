"""`demo`: the filter in a real Open WebUI."""
