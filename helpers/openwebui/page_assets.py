"""The usage page: one HTML page with its style, its script and the words of all languages."""

from __future__ import annotations

import json

from helpers.openwebui.languages.catalog import LANGUAGE_ALIASES, LANGUAGES
from helpers.openwebui.page import asset
from helpers.openwebui.wording import PAGE_WORDS

PAGE_HTML = asset("page.html")
PAGE_CSS = asset("page.css")
PAGE_JS = asset("page.js")


def page_languages() -> str:
    """The words of all languages as JSON that may stand in a script element."""
    data = {
        "keys": PAGE_WORDS,
        "aliases": LANGUAGE_ALIASES,
        "words": {tag: language.page.split("|") for tag, language in LANGUAGES.items()},
        "rtl": [tag for tag, language in LANGUAGES.items() if language.right_to_left],
    }
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")  # so that no word could end the element


def render_page(nonce: str) -> str:
    """The page, which holds nobody's data: its script asks for that.

    Args:
        nonce: The one that this answer's Content-Security-Policy names, letters and digits.
    """
    page = PAGE_HTML.replace("{{NONCE}}", nonce).replace("{{CSS}}", PAGE_CSS)
    return page.replace("{{JS}}", PAGE_JS).replace("{{LANGUAGES}}", page_languages())
