"""Rollups: reports say the same with and without them, whatever is written meanwhile."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import pytest
from sqlalchemy import select, update

from helpers.ledger.database import open_database
from helpers.ledger.ledger import Ledger
from helpers.ledger.records import WORKER_GONE
from helpers.ledger.reports import DIMENSIONS, Selection, offsets, sum_records
from helpers.ledger.rollups import (
    BLOCK_DIMENSIONS,
    BLOCK_LENGTH,
    SLOT_DIMENSIONS,
    SLOT_LENGTH,
    find_rolled_up,
)
from helpers.ledger.tables import MIGRATIONS, migrations_table, records_table, rollups_table
from helpers.openwebui.ledger_worker import LedgerWorker
from tests.support.ledger_fixture import NOON, Clock, LedgerFixture, tokens

pytest_plugins = ["tests.support.databases"]

DAY = 86_400
SPAN = 120 * DAY
SUBSETS = [
    [name for name in DIMENSIONS if name in chosen]
    for size in range(len(DIMENSIONS) + 1)
    for chosen in combinations(DIMENSIONS, size)
]
# Of blocks, of slots, and of neither.
FEW_SUBSETS = [[], ["user", "group"], ["model", "source", "day"], ["user", "day"]]
SELECTIONS = (
    Selection(),
    Selection(since=NOON - SPAN + 12_345, until=NOON - 3 * DAY - 1, zone=ZoneInfo("Europe/Berlin")),
    Selection(since=NOON - 60 * DAY, zone=ZoneInfo("Asia/Kathmandu"), reset_hour=4),
    Selection(until=NOON - 41 * DAY - 7, zone=ZoneInfo("America/St_Johns"), reset_hour=23),
    Selection(since=NOON - 50 * DAY, until=NOON - 49 * DAY),
    Selection(since=NOON - 100 * DAY, user_id="user1"),
)


@pytest.fixture
def fixture(database_url: str) -> Iterator[LedgerFixture]:
    """A ledger with some hundred records of four months, none of them rolled up."""
    engine = open_database(database_url)
    clock = Clock()
    made = LedgerFixture(Ledger(engine, clock=clock), engine, clock)
    made.ledger.prepare()
    pick = random.Random(20)
    with engine.begin() as connection:
        connection.execute(records_table.insert(), [some_record(pick, n) for n in range(600)])
    yield made
    engine.dispose()


def some_record(pick: random.Random, number: int) -> dict[str, Any]:
    """One of the last months, of anyone, often at a limit of what is rolled up."""
    created_at = NOON - pick.randrange(SPAN)
    if pick.random() < 0.3:
        step = pick.choice([SLOT_LENGTH, BLOCK_LENGTH])
        created_at = max(NOON - SPAN, created_at // step * step + pick.choice([-1, 0, 1]))
    user, used = f"user{pick.randrange(5)}", pick.choice([0, 7, 10**12])
    running = created_at > NOON - DAY and pick.random() < 0.5
    return {
        "id": f"r{number}",
        "user_id": user,
        "user_email": f"{user}@example.org",
        "group_ids": pick.choice(["", "|g1|", "|g1|g2|", "|g2|g3|"]),
        "model_id": pick.choice(["gpt-4o", "llama", "o3"]),
        "model_names": "|gpt-4o|",
        "source": pick.choice(["page", "api", "task"]),
        "chat_id": "",
        "message_id": "",
        "policy": "default",
        "state": "reserved" if running else pick.choice(["settled", "settled", "released"]),
        "created_at": created_at,
        "lease_until": created_at + 300,
        "input_tokens": used,
        "output_tokens": pick.randrange(100),
        "cached_input_tokens": 0,
        "cost_micros": pick.randrange(1_000),
        "estimated": pick.random() < 0.2,
        "counted": 1,
        "weighted_input_tokens": used,
        "weighted_output_tokens": 1,
    }


def reported(fixture: LedgerFixture, selection: Selection, wanted: list[str]) -> dict[Any, Any]:
    """What a report says."""
    with fixture.engine.connect() as connection:
        return sum_records(connection, selection, wanted)


def counted(rows: list[Any], selection: Selection, wanted: list[str]) -> dict[Any, Any]:
    """The same, added up here."""
    sums: dict[Any, list[int]] = defaultdict(lambda: [0] * 5)
    for row in rows:
        if row.state == "released" or not (
            (selection.since is None or selection.since <= row.created_at)
            and (selection.until is None or row.created_at < selection.until)
            and selection.user_id in (None, row.user_id)
        ):
            continue
        local = datetime.fromtimestamp(row.created_at, selection.zone).replace(tzinfo=None)
        day = (local - timedelta(hours=selection.reset_hour)).date().isoformat()
        groups = [name for name in row.group_ids.split("|") if name] or [None]
        values = {"user": row.user_id, "model": row.model_id, "source": row.source, "day": day}
        for group in groups if "group" in wanted else [None]:
            known = sums[tuple((values | {"group": group})[name] for name in wanted)]
            numbers = (1, row.input_tokens, row.output_tokens, row.cost_micros, row.estimated)
            known[:] = [a + int(b) for a, b in zip(known, numbers, strict=True)]
    return {key: tuple(numbers) for key, numbers in sums.items()}


def assert_reports_agree(
    fixture: LedgerFixture, subsets: Sequence[list[str]] = FEW_SUBSETS
) -> None:
    """Reports say what the records say."""
    rows = fixture.rows()
    for selection in SELECTIONS:
        for wanted in subsets:
            found = reported(fixture, selection, wanted)
            expected = counted(rows, selection, wanted)
            # Without a dimension there is one sum, of nothing, too.
            assert {k: v for k, v in found.items() if any(v)} == expected, (selection, wanted)


def roll_up_all(fixture: LedgerFixture) -> int:
    """Roll up as a worker does bit by bit; how many blocks that was."""
    blocks = 0
    while fixture.ledger.roll_up():
        blocks += 1
    return blocks


def rolled_up(fixture: LedgerFixture) -> tuple[int, int] | None:
    """From when on and until when all is rolled up."""
    with fixture.engine.connect() as connection:
        return find_rolled_up(connection)


def block_of(second: int) -> int:
    """When the block of a second begins."""
    return second // BLOCK_LENGTH * BLOCK_LENGTH


def test_reports_agree_with_the_records(fixture: LedgerFixture) -> None:
    """By all dimensions, in any span and zone, before and after; the last week is never rolled up.

    Each block is rolled up once, however often that is tried.
    """
    assert_reports_agree(fixture, SUBSETS)
    assert roll_up_all(fixture) == 8
    assert roll_up_all(fixture) == 0
    found = rolled_up(fixture)
    assert found is not None
    assert found[1] <= NOON - 7 * DAY < found[1] + BLOCK_LENGTH
    assert_reports_agree(fixture, SUBSETS)


def test_reports_read_rollups(fixture: LedgerFixture) -> None:
    """Where blocks or slots tell everything apart, a wrong one shows; else the records are read."""
    assert roll_up_all(fixture) == 8
    with fixture.engine.begin() as connection:
        connection.execute(update(rollups_table).values(requests=rollups_table.c.requests + 1_000))
    rows, one_user = fixture.rows(), Selection(user_id="user1")
    for wanted in SUBSETS:
        served = set(wanted) <= BLOCK_DIMENSIONS or set(wanted) <= SLOT_DIMENSIONS
        wrong = reported(fixture, Selection(), wanted) != counted(rows, Selection(), wanted)
        assert wrong is served
        assert reported(fixture, one_user, wanted) == counted(rows, one_user, wanted)


def test_running_reply_holds_its_block_open(fixture: LedgerFixture) -> None:
    """Nothing is rolled up from where a reply still runs on; then it counts as it was settled."""
    fixture.clock.now = NOON - 60 * DAY
    assert fixture.ask().allowed
    running = fixture.made[-1]
    fixture.clock.now = NOON
    assert roll_up_all(fixture) == 4
    assert rolled_up(fixture) == (block_of(NOON - SPAN), block_of(running.created_at))
    assert_reports_agree(fixture)
    fixture.ledger.settle(running, tokens(1_000, 500), ())
    assert roll_up_all(fixture) == 4
    assert_reports_agree(fixture)


def test_late_correction(fixture: LedgerFixture) -> None:
    """What a sweep has closed by an estimate may be put right weeks later."""
    fixture.clock.now = NOON - 60 * DAY
    assert fixture.ask().allowed
    late = fixture.made[-1]
    fixture.ledger.settle(late, tokens(1, 1), (), reason=WORKER_GONE)
    fixture.clock.now = NOON
    assert roll_up_all(fixture) == 8
    fixture.ledger.settle(late, tokens(1_000, 500), ())
    assert rolled_up(fixture) == (block_of(NOON - SPAN), block_of(late.created_at))
    assert_reports_agree(fixture)
    assert roll_up_all(fixture) == 4
    assert_reports_agree(fixture)


def test_clock_that_is_behind(fixture: LedgerFixture) -> None:
    """A server whose clock is weeks behind writes into what is rolled up, or before all of it."""
    assert roll_up_all(fixture) == 8
    for behind in (40 * DAY, 10_000 * DAY):
        clock = Clock(NOON - behind)
        other = LedgerFixture(Ledger(fixture.engine, clock=clock), fixture.engine, clock)
        other.use(used=tokens(5, 5))
        assert_reports_agree(fixture)
        assert roll_up_all(fixture) > 0
        assert_reports_agree(fixture)


def test_clock_that_is_behind_where_others_roll_up(fixture: LedgerFixture) -> None:
    """A server that has run since before that learns of it as it shows that it lives."""
    clock = Clock(NOON - 40 * DAY)
    ledger = Ledger(fixture.engine, clock=clock, worker="behind")
    other = LedgerFixture(ledger, fixture.engine, clock)
    ledger.prepare()
    for _ in range(2):
        assert roll_up_all(fixture) > 0
        other.use(used=tokens(5, 5))
        ledger.beat()
        assert_reports_agree(fixture)
        other.use(used=tokens(5, 5))
        assert_reports_agree(fixture)


def test_clock_that_was_ahead(fixture: LedgerFixture) -> None:
    """What a server rolled up whose clock was ahead is dropped by the next one that looks."""
    fixture.clock.now = NOON + 30 * DAY
    assert fixture.ledger.sweep() > 0  # by that clock, nothing of the last weeks runs
    assert roll_up_all(fixture) == 9
    fixture.clock.now = NOON
    other = LedgerFixture(Ledger(fixture.engine, clock=fixture.clock), fixture.engine, Clock(NOON))
    assert fixture.ledger.roll_up() is False
    found = rolled_up(fixture)
    assert found is not None
    assert found[1] <= NOON - 6 * DAY
    other.use(used=tokens(5, 5))
    assert_reports_agree(fixture)


def test_dropped_records_leave_the_rollups(fixture: LedgerFixture) -> None:
    """With old records what they added up to goes, in every bite."""
    assert roll_up_all(fixture) == 8
    oldest = NOON - 70 * DAY
    assert fixture.ledger.drop_some(oldest) > 0
    found = rolled_up(fixture)
    assert found is not None
    assert found[0] == block_of(oldest) + BLOCK_LENGTH
    assert_reports_agree(fixture)
    assert roll_up_all(fixture) == 0
    assert fixture.ledger.drop_some(NOON - DAY) > 0
    assert rolled_up(fixture) is None
    assert_reports_agree(fixture)


def test_tables_made_anew(fixture: LedgerFixture) -> None:
    """Rollups that were left where all else was dropped are of records that are gone."""
    assert roll_up_all(fixture) == 8
    with fixture.engine.begin() as connection:
        for table in (records_table, migrations_table):
            table.drop(connection)
    again = Ledger(fixture.engine, clock=fixture.clock)
    again.prepare()
    assert rolled_up(fixture) is None
    assert reported(fixture, Selection(), ["user"]) == {}


def test_ledger_without_the_table(fixture: LedgerFixture) -> None:
    """A report reads a ledger that no filter has brought up to date since; then it is."""
    with fixture.engine.begin() as connection:
        rollups_table.drop(connection)
        number = migrations_table.c.number
        connection.execute(migrations_table.delete().where(number == len(MIGRATIONS)))
    assert_reports_agree(fixture)
    fixture.ledger = Ledger(fixture.engine, clock=fixture.clock)
    assert roll_up_all(fixture) == 8


def test_workers_at_once(fixture: LedgerFixture) -> None:
    """Several roll up while some write late: nothing is summed twice or left out."""

    def work(turn: int) -> None:
        ledger = Ledger(fixture.engine, clock=fixture.clock)
        writer = LedgerFixture(ledger, fixture.engine, Clock(NOON - 50 * DAY))
        for number in range(6):
            ledger.roll_up()
            if turn < 2:
                writer.use(used=tokens(3, 3), id=f"late {turn} {number}")

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert_reports_agree(fixture)
    roll_up_all(fixture)
    assert_reports_agree(fixture)


async def test_worker_rolls_up(database_url: str, fixture: LedgerFixture) -> None:
    """Once a day the ledger's worker drops what is old, and rolls up what has settled."""
    worker = LedgerWorker(open_database(database_url), None, True, fixture.clock)
    worker.retention_seconds = 90 * DAY
    await worker.tidy_up()  # not at once: a process looks at its clock for a while
    assert rolled_up(fixture) is None
    worker._tidied_at = float("-inf")
    await worker.tidy_up()
    worker.leave()
    found = rolled_up(fixture)
    assert found is not None
    assert found[0] == block_of(NOON - 90 * DAY)
    assert found[1] <= NOON - 7 * DAY < found[1] + BLOCK_LENGTH
    assert_reports_agree(fixture)


def test_days_are_made_of_slots() -> None:
    """Since 2024 all clocks are ahead by quarters of an hour, and change at one."""
    first, last = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (2024, 2030))
    for name in sorted(available_timezones() - {"localtime"}):
        for until, ahead in offsets(ZoneInfo(name), first, last)[:-1]:
            assert until % SLOT_LENGTH == ahead % SLOT_LENGTH == 0, name


def test_rollups_have_no_more_columns_than_reports(fixture: LedgerFixture) -> None:
    """A slot tells nobody apart."""
    assert roll_up_all(fixture) == 8
    columns = rollups_table.c
    with fixture.engine.connect() as connection:
        slots = connection.execute(
            select(columns.user_id, columns.group_ids)
            .where(columns.seconds == SLOT_LENGTH)
            .distinct()
        ).all()
    assert [tuple(row) for row in slots] == [("", "")]
