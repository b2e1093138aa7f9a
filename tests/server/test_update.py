"""From the tables and valves of the first release to today's: nothing is lost, limits count on."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from helpers.ledger.database import open_database
from helpers.ledger.ledger import Ledger
from helpers.ledger.tables import MIGRATIONS
from helpers.openwebui.valves import AdminValves
from tests.conftest import FUNCTION_FILE, StartServer
from tests.support.ledger_fixture import Clock, LedgerFixture, standing, tokens

pytest_plugins = ["tests.support.databases"]

DATA = Path(__file__).parents[1] / "data"
FIRST_TABLES = (DATA / "first_release.sql").read_text("utf-8")
FIRST_VALVES: dict[str, Any] = json.loads((DATA / "first_release_valves.json").read_text("utf-8"))
LIMITS = ("1000 tokens/day warn 10%", "500 tokens/month on gpt-4*", "3 requests/5h", "$2/month")


def read_first_columns(engine: Engine) -> dict[str, list[Any]]:
    """What the columns of the first release hold now, by table."""
    found = {}
    for line in FIRST_TABLES.splitlines():
        if line.startswith("INSERT INTO"):
            table, columns = line.removeprefix("INSERT INTO ").rstrip(")").split(" (")
            with engine.connect() as connection:
                rows = connection.execute(text(f"SELECT {columns} FROM {table} ORDER BY 1")).all()
            found[table] = [tuple(row) for row in rows]
    return found


@pytest.fixture
def fixture(database_url: str) -> Iterator[LedgerFixture]:
    """A ledger of today on the tables of the first release."""
    engine = open_database(database_url)
    with engine.begin() as connection, closing(connection.connection.cursor()) as cursor:
        for statement in FIRST_TABLES.split(";\n"):
            if statement.strip():
                cursor.execute(statement)
    clock = Clock()
    clock.now += 60
    yield LedgerFixture(Ledger(engine, clock=clock), engine, clock)
    engine.dispose()


def test_tables_are_brought_up_to_date_once(fixture: LedgerFixture) -> None:
    """Every column keeps what it held, and only what came later is added."""
    before = read_first_columns(fixture.engine)
    assert {table: len(rows) for table, rows in before.items()} == {
        "usage_limits_counters": 6,
        "usage_limits_grants": 1,
        "usage_limits_migrations": 1,
        "usage_limits_notices": 1,
        "usage_limits_records": 4,
    }
    for _ in range(2):
        fixture.ledger.prepare()
        after = read_first_columns(fixture.engine)
        migrations = after.pop("usage_limits_migrations")
        assert [number for number, _ in migrations] == list(range(1, len(MIGRATIONS) + 1))
        assert after == {table: before[table] for table in after}
        fixture.ledger = Ledger(fixture.engine, clock=fixture.clock)


def test_limits_count_on(fixture: LedgerFixture) -> None:
    """What was used, reserved and granted counts as it did; so do warnings already given."""
    reservation = fixture.reservation(id="today")
    limits = fixture.limits(reservation, *LIMITS, pool="9000 tokens/week")
    states = standing(fixture.ledger, reservation, limits).states
    assert [(state.used, state.reserved, state.amount) for state in states] == [
        (150, 50, 1250),
        (150, 50, 500),
        (1, 1, 3),
        (1_500_000, 0, 2_000_000),
        (162, 50, 9000),
    ]
    admission = fixture.ledger.reserve(reservation, lambda _: tokens(10, 10), limits, announce=True)
    assert [str(state.applied.limit) for state in admission.warnings] == []
    after = fixture.ledger.settle(reservation, tokens(40, 10), limits).decision.states
    assert [state.used for state in after] == [200, 200, 2, 1_500_000, 212]
    fixture.clock.now += 86_400
    assert fixture.ledger.sweep() == 1  # what ran when the first release was stopped
    assert {row.id: row.state for row in fixture.rows()} == {
        "first-1": "settled",
        "first-2": "released",
        "first-3": "settled",
        "first-4": "settled",
        "today": "settled",
    }


def test_every_valve_still_has_its_value() -> None:
    """Valves saved by the first release mean the same today."""
    saved = AdminValves(**FIRST_VALVES).model_dump()
    assert {name: saved[name] for name in FIRST_VALVES} == FIRST_VALVES


def test_pasted_over_the_first_release(start_server: StartServer) -> None:
    """In a real server: valves and rows stay, a new chat is recorded beside them."""
    own = start_server()
    with closing(sqlite3.connect(own.server.database_path)) as database:
        database.executescript(FIRST_TABLES)
        database.execute(
            "UPDATE function SET valves = ? WHERE id = ?",
            (json.dumps(FIRST_VALVES), own.usage_limits.id),
        )
        database.commit()
    own.admin.install_function(own.usage_limits.id, FUNCTION_FILE.read_text("utf-8"))
    assert own.admin.valves(own.usage_limits.id) == FIRST_VALVES
    user = own.admin.add_user("Ida", "ida@example.org")
    assert user.chat("[[in=20 tokens=30]]").status == 200
    (row,) = own.usage_limits.settled(1, user_id=user.id)
    assert (row["input_tokens"], row["output_tokens"]) == (20, 30)
    old = own.usage_limits.wait_for_rows(
        lambda rows: [row["state"] for row in rows] == ["settled", "released", "settled"],
        user_id="ann",
    )
    assert [row["input_tokens"] + row["output_tokens"] for row in old] == [150, 0, 50]
    assert len(own.usage_limits.rows("usage_limits_migrations")) == len(MIGRATIONS)
