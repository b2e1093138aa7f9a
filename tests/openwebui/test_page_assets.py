"""The usage page's files: what is in them, and how they come into the pasted file."""

from __future__ import annotations

import ast
import inspect
import json
import re
from pathlib import Path

import pytest

from helpers.openwebui import usage_command
from helpers.openwebui.languages.catalog import LANGUAGES
from helpers.openwebui.page import asset
from helpers.openwebui.page_assets import PAGE_CSS, PAGE_HTML, PAGE_JS, render_page
from helpers.openwebui.wording import PAGE_WORDS
from scripts import bundle

PASTED = Path(__file__).parents[2] / "filter_usage_limits.py"
LARGEST_PAGE = 50_000


@pytest.mark.parametrize("tag", LANGUAGES)
def test_every_language_has_every_word(tag: str) -> None:
    """No word of the page is missing or empty."""
    words = LANGUAGES[tag].page_words()
    assert all(word.strip() for word in words.values())


def test_every_word_is_asked_for() -> None:
    """The script and `/usage` in a chat ask for the words that there are, and for no others."""
    asked = set(re.findall(r'\bt\("(\w+)"', PAGE_JS)) | {"requests", "input", "output"}
    asked |= set(re.findall(r'words\["(\w+)"\]', inspect.getsource(usage_command)))
    assert asked == set(PAGE_WORDS)


def test_page_is_whole() -> None:
    """All parts are in it, each script and style with the nonce, and nothing is loaded."""
    page = render_page("abc123")
    assert "{{" not in page
    assert page.count('nonce="abc123"') == 2
    assert not re.search(
        r"\b(src|href)=", PAGE_HTML.replace('href="data:,"', "").replace('="/"', "")
    )
    assert "://" not in PAGE_HTML + PAGE_CSS + PAGE_JS
    assert not re.search(r"@import|url\(", PAGE_CSS)


def test_languages_cannot_end_their_element() -> None:
    """Whatever a word is, it stays data."""
    page = render_page("n")
    text = page.partition('id="languages">')[2].partition("</script>")[0]
    assert "<" not in text
    assert set(json.loads(text)["words"]) == set(LANGUAGES)


@pytest.mark.parametrize(
    "way", ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("]
)
def test_names_become_text_only(way: str) -> None:
    """The script has no way to make HTML or code of what somebody has called a group."""
    assert way not in PAGE_JS


def test_page_is_small() -> None:
    """The files are what an administrator can still read in the pasted file."""
    assert len((PAGE_HTML + PAGE_CSS + PAGE_JS).encode()) < LARGEST_PAGE


def test_pasted_file_holds_the_files() -> None:
    """The pasted file has the same texts as constants, and no way to read files for them."""
    tree = ast.parse(PASTED.read_text(encoding="utf-8"))
    constants = {
        node.targets[0].id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
    }
    for name, file in (("PAGE_HTML", "html"), ("PAGE_CSS", "css"), ("PAGE_JS", "js")):
        assert constants[name] == asset(f"page.{file}")


def test_three_quotes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that would end the string is an error with its name, and no broken pasted file."""
    monkeypatch.setattr(bundle, "ASSETS", tmp_path)
    (tmp_path / "page.js").write_text('say("""");\n', encoding="utf-8")
    with pytest.raises(bundle.BundleError, match=r"page\.js: holds three quotes"):
        bundle.asset_literal("page.js")
