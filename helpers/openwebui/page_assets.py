"""The usage page: one HTML page with its style and its script inside."""

from __future__ import annotations

PAGE_HTML = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Usage limits</title>
<p id="state">Usage limits</p>
<script nonce="{{NONCE}}"></script>
</html>
"""


def render_page(nonce: str) -> str:
    """The page, which holds nobody's data: its script asks for that.

    Args:
        nonce: The one that this answer's Content-Security-Policy names, letters and digits.
    """
    return PAGE_HTML.replace("{{NONCE}}", nonce)
