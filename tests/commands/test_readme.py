"""The documents say what the code does: tables, examples, commands and links are checked here."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from helpers.ledger.tables import ledger_metadata
from helpers.limits.limit import MEASURE_OF_UNIT, Limit, parse_limit
from helpers.limits.periods import CALENDAR_PERIODS
from helpers.limits.policies_text import parse_policies
from helpers.openwebui.languages.catalog import LANGUAGES
from scripts.command import COMMANDS
from scripts.limits.command import make_parser
from scripts.readme_tables import DOCS, README, ROOT, TABLES, with_tables

LIMITS_COMMANDS = make_parser().format_help()
PAGES = sorted(DOCS.glob("*.md"))
DOCUMENTS = (README, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *PAGES)
LARGEST_PICTURE = 150_000
README_LINES = 110  # a screen or two
README_TEXT = README.read_text("utf-8")
POLICIES_TEXT = (DOCS / "policies.md").read_text("utf-8")
EXAMPLES_PART, _, RECIPES_PART = POLICIES_TEXT.partition("## Recipes\n")
POLICIES_EXAMPLES = re.findall(r"```toml\n(.*?)```", EXAMPLES_PART, re.DOTALL)
README_EXAMPLES = re.findall(r"```toml\n(.*?)```", README_TEXT, re.DOTALL)
RECIPES = re.findall(r"```toml\n(.*?)```", RECIPES_PART, re.DOTALL)
LIMITS_TABLE = POLICIES_TEXT.partition("## Limits\n")[2].partition("\n\n`minute`")[0]
LIMIT_EXAMPLES = [
    example
    for cell in re.findall(r"^\| [^|]+ \| ([^|]+) \|", LIMITS_TABLE, re.MULTILINE)
    for example in re.findall(r"`([^`]+)`", cell)
]


@pytest.mark.parametrize("page", TABLES, ids=lambda path: path.name)
def test_tables_are_current(page: Path) -> None:
    """The tables of valves and modules are what the code says."""
    text = page.read_text("utf-8")
    assert with_tables(page, text) == text, "run python -m scripts.readme_tables"


def test_chapters_come_in_their_order() -> None:
    """A reader finds first what is needed first, and developers their two commands."""
    assert re.findall(r"^## (.+)$", README_TEXT, re.MULTILINE) == [
        "Install",
        "The first limit",
        "What users see",
        "What it can't see",
        "Security",
        "Commands",
        "More for administrators",
        "For developers",
    ]
    developers = README_TEXT.partition("## For developers\n")[2].lstrip()
    assert developers.startswith("```sh\nmake demo ")
    assert developers.splitlines()[2].startswith("make test ")


def test_readme_is_short() -> None:
    """README fits on a screen or two."""
    assert len(README_TEXT.splitlines()) <= README_LINES


def test_index_has_every_page() -> None:
    """Every page in docs/ is found from the index, and the index from README."""
    index = (DOCS / "README.md").read_text("utf-8")
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", index))
    assert linked == {page.name for page in PAGES} - {"README.md"}
    assert "](docs/README.md)" in README_TEXT


def test_policies_example_grows() -> None:
    """Each piece of the policies example is right by itself, and so is the whole."""
    assert len(POLICIES_EXAMPLES) > 1
    for piece in POLICIES_EXAMPLES:
        parse_policies(piece)
    whole = parse_policies("\n".join(POLICIES_EXAMPLES))
    assert whole.groups
    assert whole.roles
    assert whole.users
    assert whole.pools
    assert whole.models
    assert whole.tasks_counted


@pytest.mark.parametrize("recipe", [*README_EXAMPLES, *RECIPES])
def test_recipes_are_right(recipe: str) -> None:
    """README's example and each recipe can be pasted as they are."""
    parse_policies(recipe)


def test_tables_of_the_ledger_are_named() -> None:
    """The pages on privacy and on uninstalling name every table that the filter makes."""
    for page in ("privacy.md", "uninstall.md"):
        named = set(re.findall(r"usage_limits_[a-z]+", (DOCS / page).read_text("utf-8")))
        assert named >= set(ledger_metadata.tables), page


def test_languages_are_named() -> None:
    """README names as many languages as there are, each with its variants once."""
    named = README_TEXT.partition("Users read their own language: ")[2].partition(".")[0]
    names = {name.strip() for name in re.split(r",| or ", named)}
    assert len(names) == len({tag.partition("-")[0] for tag in LANGUAGES})


def test_every_kind_of_limit_has_an_example() -> None:
    """The table of limits has every measure, every period, globs and thresholds, and all parse."""
    limits: list[Limit] = [parse_limit(example) for example in LIMIT_EXAMPLES]
    assert {limit.measure for limit in limits} == {*MEASURE_OF_UNIT.values(), "cost"}
    adding = [limit for limit in limits if not limit.is_moment]
    assert {limit.is_per_request for limit in limits if limit.is_moment} == {True, False}
    assert any(limit.source for limit in limits)
    calendar = {limit.period.name for limit in adding if limit.period.rolling is None}
    assert calendar == set(CALENDAR_PERIODS)
    rolling = {limit.period.name[-1] for limit in adding if limit.period.rolling is not None}
    assert rolling == {"m", "h", "d"}
    assert any(limit.model_glob != "*" for limit in limits)
    assert any(len(limit.warn_percents) > 1 for limit in limits)
    assert any(limit.amount == 0 for limit in limits)


def anchors(document: Path) -> set[str]:
    """What a page's headings are called in links."""
    headings = re.findall(r"^#+ (.+)$", document.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    """Every relative link and picture is there; pictures are small."""
    for target, anchor in re.findall(
        r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?", document.read_text("utf-8")
    ):
        path = document.parent / target if target else document
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), f"{target}#{anchor}"
    text = document.read_text("utf-8")
    for picture in re.findall(r"\]\(([^)]+\.png)\)|<img src=\"([^\"]+)\"", text):
        assert (document.parent / "".join(picture)).stat().st_size < LARGEST_PICTURE, picture


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_exist(document: Path) -> None:
    """Every command that a document names is there."""
    text = document.read_text("utf-8")
    for module in re.findall(r"python -m (scripts\.\w+)", text):
        assert find_spec(module), module
    for words in re.findall(r"(?<![-\w/`])`?usage-limits ([a-z]+(?: [a-z]+)?)", text):
        first, _, second = words.partition(" ")
        assert first in COMMANDS, words
        if first == "limits" and second:
            assert re.search(rf"^    {second} ", LIMITS_COMMANDS, re.MULTILINE), words
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for block in re.findall(r"```sh\n(.*?)```|`(make [^`]+)`", text, re.DOTALL):
        for target in re.findall(r"^make ([a-z]+)", "".join(block), re.MULTILINE):
            assert target in targets, target
