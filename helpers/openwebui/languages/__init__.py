"""The words of each language, one file per language, and the catalog of them all."""
