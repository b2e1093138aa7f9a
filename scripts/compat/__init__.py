"""`compat`: what works on which version of Open WebUI."""
