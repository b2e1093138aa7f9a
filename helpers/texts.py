"""Texts from outside: what a client, a browser or a provider wrote, made safe to store."""

from __future__ import annotations

import re

# The ledger's ids: Open WebUI's own have 36 characters, some with a short prefix.
LONGEST_ID = 200
# Ids of models, e-mail addresses, names of policies.
LONGEST_NAME = 1_000
# What somebody wrote, as an error quotes it.
LONGEST_QUOTED = 60
# NUL, which PostgreSQL doesn't store, and lone surrogates, which no database does.
UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def clean_text(value: object, longest: int) -> str:
    """A text that every database can store, of at most `longest` characters.

    Anything but a text becomes an empty one: nobody but a liar sends it.
    """
    if not isinstance(value, str):
        return ""
    cut = value[:longest]  # first: the rest may be megabytes
    return cut if cut.isprintable() else UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", cut)


def shortened(text: str, longest: int) -> str:
    """A text to be shown, with an ellipsis where it is cut."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
