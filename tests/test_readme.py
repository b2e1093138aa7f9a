"""README.md says what the code does: its tables, examples, commands and links are checked here."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from helpers.periods import CALENDAR_PERIODS
from helpers.policies import parse_policies
from helpers.quotas import MEASURE_OF_UNIT, Limit, parse_limit
from scripts.readme_tables import README, ROOT, with_tables

DOCUMENTS = (README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")))
LARGEST_PICTURE = 150_000
TEXT = README.read_text("utf-8")
POLICIES_EXAMPLES = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
LIMITS_TABLE = TEXT.partition("### Limits\n")[2].partition("\n\n`minute`")[0]
LIMIT_EXAMPLES = re.findall(r"^\| [^|]+ \| `([^`]+)` \|", LIMITS_TABLE, re.MULTILINE)


def test_tables_are_current() -> None:
    """The tables of valves and modules are what the code says."""
    assert with_tables(TEXT) == TEXT, "run python -m scripts.readme_tables"


def test_chapters_come_in_their_order() -> None:
    """A reader finds first what is needed first."""
    chapters = re.findall(r"^## (.+)$", TEXT, re.MULTILINE)
    assert [chapter for chapter in chapters if chapter != "Benchmarks"] == [
        "Two commands",
        "Paste and go",
        "Policies",
        "Valves",
        "Reports",
        "Accuracy",
        "What it can't see",
        "Security",
        "Compatibility",
        "Developing",
    ]


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


def test_every_kind_of_limit_has_an_example() -> None:
    """The table of limits has every measure, every period, globs and thresholds, and all parse."""
    limits: list[Limit] = [parse_limit(example) for example in LIMIT_EXAMPLES]
    assert {limit.measure for limit in limits} == {*MEASURE_OF_UNIT.values(), "cost"}
    calendar = {limit.period.name for limit in limits if limit.period.rolling is None}
    assert calendar == set(CALENDAR_PERIODS)
    rolling = {limit.period.name[-1] for limit in limits if limit.period.rolling is not None}
    assert rolling == {"m", "h", "d"}
    assert any(limit.model_glob != "*" for limit in limits)
    assert any(len(limit.warn_percents) > 1 for limit in limits)
    assert any(limit.amount == 0 for limit in limits)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    """Every relative link and picture is there; pictures are small."""
    for target in re.findall(r"\]\((?!https?:)([^)#\s]*)", document.read_text("utf-8")):
        path = document.parent / target
        assert path.exists(), target
        assert path.suffix != ".png" or path.stat().st_size < LARGEST_PICTURE, target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_exist(document: Path) -> None:
    """Every command that a document names is there."""
    text = document.read_text("utf-8")
    for module in re.findall(r"python -m (scripts\.\w+)", text):
        assert find_spec(module), module
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for block in re.findall(r"```sh\n(.*?)```|`(make [^`]+)`", text, re.DOTALL):
        for target in re.findall(r"^make ([a-z]+)", "".join(block), re.MULTILINE):
            assert target in targets, target
