"""The administrators' commands on limits about one moment and on one source."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.ledger.tables import counters_table
from scripts.limits.command import main
from tests.commands.test_report import LedgerDatabase
from tests.support.limits_commands import line_of, set_valves, shown

pytest_plugins = ["tests.support.databases", "tests.support.limits_fixtures"]
pytestmark = pytest.mark.usefixtures("no_environment")

TEXTS = (
    "2 requests at once",
    "4k tokens/request on gpt-4*",
    "9k tokens/day via api",
    "9k tokens/year",
)
POLICIES = f"[role.user]\nlimits = {list(TEXTS)!r}"


@pytest.fixture
def used(database: LedgerDatabase) -> LedgerDatabase:
    """Ann has used 15 tokens by page and by API, and a reply of hers is running."""
    set_valves(database, policies=POLICIES)
    database.add_user("ann")
    database.add_model("gpt-4o")
    database.record(source="api")
    database.record(source="page")
    database.record(source="page", state="reserved", settled_at=None)
    return database


def test_check_says_them_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`check` shows what it understood."""
    (tmp_path / "policies.toml").write_text(POLICIES)
    assert main(["check", str(tmp_path / "policies.toml")]) == 0
    output = capsys.readouterr().out
    for words in (
        "2 requests at once",
        "4,000 tokens on gpt-4* per request",
        "9,000 tokens via the API per day",
        "9,000 tokens per year",
    ):
        assert words in output


def test_show(used: LedgerDatabase, say: Callable[..., str]) -> None:
    """`show` counts what is running, and by source; what is about a moment has no reset."""
    rows = shown(say, "ann")
    assert list(rows) == list(TEXTS)
    numbers = {text: (row["used"], row["reserved"]) for text, row in rows.items()}
    assert numbers[TEXTS[0]] == (0, 1)
    assert numbers[TEXTS[1]] == (0, 0)
    assert numbers[TEXTS[2]] == (15, 0)
    assert numbers[TEXTS[3]] == (30, 15)
    assert [row["source"] for row in rows.values()] == ["", "", "api", ""]
    assert [row["reset_at"] is None for row in rows.values()] == [True, True, False, False]
    output = say("show", "ann")
    assert line_of(output, "2 requests at once")[-1] == "as each reply ends"
    assert line_of(output, "per request")[-1] == "with each request"


def test_explain(used: LedgerDatabase, say: Callable[..., str]) -> None:
    """`explain` lists them with what they count."""
    output = say("explain", "ann", "--model", "gpt-4o")
    assert "as each reply ends" in output
    assert "9,000 tokens via the API per day" in output


def test_grant_and_reset(
    used: LedgerDatabase, say: Callable[..., str], refuse: Callable[..., str]
) -> None:
    """A source's limit is granted to and reset for itself; nothing adds up in a moment's."""
    say("grant", "ann", "1k tokens/day via api", "--by", "root")
    say("reset", "ann", "9k tokens/day via api", "--by", "root")
    rows = shown(say, "ann")
    assert [row["granted"] for row in rows.values()] == [0, 0, 1_015, 0]
    assert "counts what no limit of" in refuse("grant", "ann", "1k tokens/day")
    assert "is about one moment" in refuse("grant", "ann", "1 request at once")
    assert "is about one moment" in refuse("reset", "ann", "4k tokens/request on gpt-4*")
    say("reset", "ann", "--by", "root")
    rows = shown(say, "ann")
    assert [row["granted"] for row in rows.values()] == [0, 0, 1_015, 30]


def test_rebuild_compares_by_source(used: LedgerDatabase, say: Callable[..., str]) -> None:
    """`rebuild` finds the counter of a source right that holds what came from there."""
    values = {"scope": "user:ann", "model_glob": "*", "window_start": 0, "window_end": 2**53}
    values |= {"requests": 1, "input_tokens": 10, "output_tokens": 5, "cost_micros": 0}
    with used.engine.begin() as connection:
        connection.execute(counters_table.insert().values(id="x", source="api", **values))
    assert "1 counter of windows still open compared with the records, 0 changed" in say("rebuild")
    with used.engine.begin() as connection:
        connection.execute(counters_table.insert().values(id="x", source="", **values))
    assert "1 changed" in say("rebuild")


def test_json_of_a_pool(used: LedgerDatabase, say: Callable[..., str]) -> None:
    """A pool's limit on how many run at once counts everybody's running replies."""
    set_valves(
        used, policies='[pool.all]\nlimits = ["5 requests at once", "9k tokens/7d via page"]'
    )
    rows = json.loads(say("show", "ann", "--format", "json"))
    assert [(row["pool"], row["reserved"]) for row in rows] == [(True, 1), (True, 15)]
    assert rows[1]["used"] == 15
