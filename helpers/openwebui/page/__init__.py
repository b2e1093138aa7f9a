"""The usage page's own files; scripts/bundle.py puts them into the pasted file as strings."""

from __future__ import annotations

from importlib.resources import files


def asset(name: str) -> str:
    """The text of a file in this folder."""
    return files(__name__).joinpath(name).read_text(encoding="utf-8")
