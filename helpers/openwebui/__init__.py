"""The only importer of `open_webui`: its hooks' other side, the middleware, the sentences."""
