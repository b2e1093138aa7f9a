"""A real Open WebUI: started, administered, used as a client and as the page does."""
