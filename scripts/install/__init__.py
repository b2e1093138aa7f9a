"""`install`: puts the filter into an Open WebUI, and audits one."""
