"""`limits forget`: nothing in the ledger names the person any more, and every sum is as before."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Text, func, select

from helpers.ledger.ledger import Ledger
from helpers.ledger.reports import Selection, sum_records
from helpers.ledger.tables import (
    counters_table,
    grants_table,
    ledger_metadata,
    names_table,
    notices_table,
    policies_table,
    records_table,
)
from scripts.limits import forget as forget_module
from scripts.limits.forget import replace_records, without_names
from tests.commands.test_report import LedgerDatabase
from tests.support.ledger_fixture import Clock, LedgerFixture, standing, tokens
from tests.support.limits_commands import now, set_valves, shown

pytest_plugins = ["tests.support.databases", "tests.support.limits_fixtures"]

pytestmark = pytest.mark.usefixtures("no_environment")

EVE = ("eve-0001", "eve@example.org", "eve.old@example.org")
POLICIES = """\
[user."eve@example.org"]
limits = ["20k tokens/day"]

[pool.everyone]
limits = ["100k tokens/month"]
"""


@pytest.fixture
def eve(database: LedgerDatabase) -> LedgerFixture:
    """Eve has left something in every table; so has Ann, of whom nothing may change."""
    set_valves(database, policies=POLICIES)
    fixture = LedgerFixture(
        Ledger(database.engine, clock=Clock(now())), database.engine, Clock(now())
    )
    for user_id, *emails in (EVE, ("ann-0001", "ann@example.org")):
        database.record(
            user_id=user_id,
            user_email=emails[-1],
            created_at=now() - 60,
            policy=emails[0],
            group_ids="|g1|",
            chat_id=f"chat of {user_id}",
            message_id=f"message of {user_id}",
        )
        database.record(
            user_id=user_id, user_email=emails[0], created_at=now() - 50, model_id="llama"
        )
        database.insert(
            counters_table,
            id=f"user:{user_id} * of a day",
            scope=f"user:{user_id}",
            model_glob="*",
            window_start=now() - 100,
            window_end=now() + 100,
            requests=2,
            input_tokens=20,
            output_tokens=10,
            cost_micros=0,
        )
        for number, notice in enumerate(
            (
                f"user {user_id} user:{user_id} 20k tokens/day at 80%",
                f"user {user_id} everyone 100k tokens/month at 80%",
                f"alert {user_id} user:{user_id} 20k tokens/day at 100%",
            )
        ):
            database.insert(notices_table, id=notice, expires_at=now() + number)
        database.insert(
            grants_table,
            id=f"grant to {len(user_id)} {emails[0][:3]}"[:12] + user_id[:1],
            scope=f"user:{user_id}",
            measure="tokens",
            model_glob="*",
            period="day",
            amount=500,
            kind="grant",
            granted_by=emails[0],
            reason=f"asked by {emails[0].upper()}",
            created_at=now(),
            expires_at=now() + 100,
        )
        database.insert(
            names_table,
            kind="user",
            name=emails[0],
            id=user_id,
            last_seen=emails[-1],
            created_at=now(),
        )
        database.insert(
            policies_table,
            id=f"version by {user_id[:3]}",
            number=len(user_id),
            policies=f'[user."{emails[0].upper()}"]\nlimits = "unlimited"\n',
            saved_by=emails[0],
            saved_at=now(),
        )
    database.insert(
        grants_table,
        id="to a pool",
        scope="everyone",
        measure="tokens",
        model_glob="*",
        period="month",
        amount=700,
        kind="grant",
        granted_by=EVE[1],
        reason="term begins",
        created_at=now(),
        expires_at=now() + 100,
    )
    return fixture


def everything(database: LedgerDatabase) -> dict[str, list[dict[str, Any]]]:
    """All rows of the ledger by table."""
    with database.engine.connect() as connection:
        return {
            table.name: [
                dict(row._mapping) for row in connection.execute(select(table).order_by(*table.c))
            ]
            for table in ledger_metadata.sorted_tables
        }


def about(database: LedgerDatabase, *names: str) -> list[tuple[str, str, str]]:
    """Where in the ledger a text holds one of these, whatever the case."""
    return [
        (table.name, column, value)
        for table in ledger_metadata.sorted_tables
        for row in everything(database)[table.name]
        for column, value in row.items()
        if isinstance(table.c[column].type, Text)
        if any(name.lower() in value.lower() for name in names)
    ]


def sums(database: LedgerDatabase) -> Any:
    """What all records together say."""
    columns = records_table.c
    query = select(
        func.count(),
        func.sum(columns.input_tokens),
        func.sum(columns.output_tokens),
        func.sum(columns.weighted_input_tokens),
        func.sum(columns.cost_micros),
    )
    with database.engine.connect() as connection:
        return tuple(connection.execute(query).one())


@pytest.mark.parametrize("key", EVE)
def test_forget_takes_a_person_out(
    database: LedgerDatabase, eve: LedgerFixture, say: Callable[..., str], key: str
) -> None:
    """By id or any address, of a deleted account: no table names them, all sums stay."""
    assert {table for table, _, _ in about(database, *EVE)} == {
        "usage_limits_records",
        "usage_limits_counters",
        "usage_limits_notices",
        "usage_limits_grants",
        "usage_limits_names",
        "usage_limits_policies",
    }
    before, others = sums(database), about(database, "ann-0001", "ann@example.org")
    output = say("forget", key)
    assert about(database, *EVE) == []
    assert about(database, "ann-0001", "ann@example.org") == others
    assert sums(database) == before
    (pseudonym,) = re.findall(r"^2 records now of (forgotten-\w{12});", output)
    assert "still has the account" not in output
    rows = [
        row for row in everything(database)["usage_limits_records"] if row["user_id"] == pseudonym
    ]
    assert [(row["user_email"], row["group_ids"], row["policy"]) for row in rows] == [
        (pseudonym, "|g1|", pseudonym),
        (pseudonym, "", "default"),
    ]
    grants = {row["scope"]: row for row in everything(database)["usage_limits_grants"]}
    assert grants[f"user:{pseudonym}"]["amount"] == 500
    assert (grants["everyone"]["granted_by"], grants["everyone"]["reason"]) == (
        pseudonym,
        "term begins",
    )


def test_names_in_a_text_are_whole_words() -> None:
    """Only the person's own name is replaced in a policies text, not one that holds it."""
    text = '[user."eve@example.org"]\n[user.EVE]\n[user."eve@example.org.uk"]\n[group.sleeve]\n'
    assert without_names(text, ["eve", "eve@example.org"], "x") == (
        '[user."x"]\n[user.x]\n[user."eve@example.org.uk"]\n[group.sleeve]\n'
    )


def test_forget_takes_a_person_out_of_rollups(
    database: LedgerDatabase, say: Callable[..., str]
) -> None:
    """What was rolled up under the person's id is made anew, and adds up to the same."""
    for user_id in (EVE[0], "ann-0001"):
        database.record(now() - 60 * 86_400, now() - 30 * 86_400, user_id=user_id)
    ledger = Ledger(database.engine)
    while ledger.roll_up():
        pass
    assert {table for table, _, _ in about(database, *EVE)} == {
        "usage_limits_records",
        "usage_limits_rollups",
    }
    say("forget", EVE[0])
    assert about(database, *EVE) == []
    assert everything(database)["usage_limits_rollups"] == []
    while ledger.roll_up():
        pass
    assert about(database, *EVE) == []
    with database.engine.connect() as connection:
        assert sum_records(connection, Selection(), []) == {(): (4, 40, 20, 0, 0)}


def test_forgotten_twice_or_never_known(
    database: LedgerDatabase,
    eve: LedgerFixture,
    say: Callable[..., str],
    refuse: Callable[..., str],
) -> None:
    """Nobody is forgotten who isn't on record, and a name that is nearly right gets a hint."""
    before = everything(database)
    assert 'did you mean "eve@example.org"?' in refuse("forget", "evee@example.org")
    refuse("forget", "")
    assert everything(database) == before
    say("forget", EVE[0])
    refuse("forget", EVE[1])


def test_address_of_two_people(database: LedgerDatabase, refuse: Callable[..., str]) -> None:
    """An address that two people had, one after the other, forgets neither; their ids do."""
    database.record(user_id="first", user_email="desk@example.org")
    database.record(user_id="second", user_email="Desk@example.org")
    assert "one of their ids: first, second" in refuse("forget", "desk@example.org")


def test_forget_in_batches(
    database: LedgerDatabase, say: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More records than one transaction takes are all changed, each once."""
    monkeypatch.setattr(forget_module, "BATCH", 3)
    database.record(*range(now() - 6, now()), user_id="eve")
    database.record(user_id="ann")
    assert say("forget", "eve@example.org").startswith("6 records now of forgotten-")
    with database.engine.connect() as connection:
        ids = connection.scalars(select(records_table.c.user_id)).all()
    assert sorted(ids)[0] == "ann"
    assert len(set(ids)) == 2


def test_forget_while_a_reply_runs(database: LedgerDatabase, say: Callable[..., str]) -> None:
    """A reply that is running is settled all the same; pools and their counters stay right."""
    clock = Clock(now())
    fixture = LedgerFixture(Ledger(database.engine, clock=clock), database.engine, clock)
    limits = ("20k tokens/day",)
    fixture.use(*limits, used=tokens(30, 12), pool="100k tokens/month", user="eve")
    fixture.ask(*limits, pool="100k tokens/month", user="eve")
    running = fixture.made[-1]
    say("forget", "eve")
    applied = fixture.limits(running, *limits, pool="100k tokens/month")
    settled = fixture.ledger.settle(running, tokens(5, 3), applied)
    assert settled.closed
    own, pool = settled.decision.states
    assert (own.used, own.reserved) == (0, 0)
    assert (pool.used, pool.reserved) == (50, 0)
    assert {row.state for row in fixture.rows()} == {"settled"}
    assert {row.user_id for row in fixture.rows()} != {"eve"}
    say("rebuild")
    assert standing(fixture.ledger, running, applied).states[1].used == 50


def test_forget_between_batches_is_right(database: LedgerDatabase) -> None:
    """Whoever looks between two transactions finds counters that agree with the records."""
    clock = Clock(now())
    fixture = LedgerFixture(Ledger(database.engine, clock=clock), database.engine, clock)
    for _ in range(2):
        fixture.use("20k tokens/day", used=tokens(10, 0), user="eve")
    person = forget_module.Person("eve", frozenset(), True)
    with pytest.MonkeyPatch.context() as patched, database.engine.begin() as connection:
        patched.setattr(forget_module, "BATCH", 1)
        assert replace_records(connection, person, "forgotten-1") == 1
    made = fixture.reservation("eve")
    (state,) = standing(fixture.ledger, made, fixture.limits(made, "20k tokens/day")).states
    assert state.used == 10


def test_account_that_is_still_there(database: LedgerDatabase, say: Callable[..., str]) -> None:
    """Whoever still has an account starts anew, and the command says so."""
    database.add_user("eve")
    database.record(user_id="eve", created_at=now(), input_tokens=15_000)
    assert shown(say, "eve")["20k tokens/day"]["used"] == 15_005
    assert "Open WebUI still has the account" in say("forget", "EVE@example.org")
    assert shown(say, "eve")["20k tokens/day"]["used"] == 0
