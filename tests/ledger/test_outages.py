"""Long outages, ends that can't be written, clocks that lie, workers that are gone or replaced."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, select, update
from sqlalchemy.exc import OperationalError

from helpers.errors import LedgerDataError, LedgerError
from helpers.ledger.database import open_database
from helpers.ledger.identities import HostNames
from helpers.ledger.ledger import Admission, Ledger
from helpers.ledger.limit_states import RECORDS_LOOKED_AT
from helpers.ledger.records import NO_ANSWER, WORKER_GONE, WORKER_STOPPED
from helpers.ledger.tables import counters_table, records_table, workers_table
from helpers.ledger.transactions import TransactionRunner
from helpers.limits.decisions import Decision
from helpers.limits.periods import CalendarRules
from helpers.limits.policies_text import parse_policies
from helpers.limits.policy import GroupRef, Subject, applied_limits
from helpers.openwebui.accounting import Accounting, WaitingEnd
from helpers.openwebui.replies import Reply
from helpers.openwebui.valves import AdminValves
from tests.support.driver import before_statements
from tests.support.ledger_fixture import NOON, Clock, LedgerFixture, standing, tokens
from tests.support.scale_worker import TWENTY, make_reply

pytestmark = pytest.mark.slow

pytest_plugins = ["tests.support.databases"]

VALVES = AdminValves(
    policies='[role.user]\nlimits = ["9M tokens/month", "9M tokens/5h"]\n'
    '[pool.everyone]\nlimits = ["99M tokens/5h"]'
)
LONG = tokens(1_000, 90_000)
DAY = 86_400


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An empty database of each kind."""
    engine = open_database(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def fixture(engine: Engine) -> LedgerFixture:
    """A ledger whose clock can be set."""
    clock = Clock()
    return LedgerFixture(Ledger(engine, clock=clock), engine, clock)


@pytest.fixture
async def keeper(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Accounting]:
    """A accounting whose rounds are fractions of a second apart."""
    monkeypatch.setattr("helpers.openwebui.ledger_worker.ROUND_SECONDS", 0.1)
    for name in ("ROUND_SECONDS", "RETRY_SECONDS", "RENEW_SECONDS"):
        monkeypatch.setattr(f"helpers.openwebui.accounting.{name}", 0.1)
    monkeypatch.setattr("helpers.openwebui.ledger_worker.WORKER_SECONDS", 0.5)
    keeper = Accounting(engine, None, clock=Clock(time.time()))
    yield keeper
    keeper.close()


async def admit(keeper: Accounting, user: str = "ann") -> Reply:
    """A reply that runs now, as the hooks begin it."""
    reply = make_reply(keeper, VALVES, user, datetime.now(UTC))
    _, admission = await keeper.admit(lambda: reply, announce=False)
    assert isinstance(admission, Admission), admission
    assert admission.decision.allowed
    return reply


def records_of(engine: Engine) -> dict[str, Any]:
    with engine.connect() as connection:
        return {row.id: row for row in connection.execute(select(records_table))}


async def wait_for_states(engine: Engine, wanted: dict[str, str]) -> dict[str, Any]:
    """The records once they are as expected."""
    found: dict[str, Any] = {}
    for _ in range(150):
        await asyncio.sleep(0.05)
        found = records_of(engine)
        if {key: row.state for key, row in found.items()} == wanted:
            return found
    raise AssertionError({key: row.state for key, row in found.items()})


def assert_counters_agree(engine: Engine) -> None:
    """Every counter holds what its records say."""
    rows = [row for row in records_of(engine).values() if row.state == "settled"]
    with engine.connect() as connection:
        for counter in connection.execute(select(counters_table)):
            own = [
                row
                for row in rows
                if counter.scope in ("everyone", f"user:{row.user_id}")
                and counter.window_start <= row.created_at < counter.window_end
            ]
            assert (counter.requests, counter.input_tokens, counter.output_tokens) == (
                sum(row.counted for row in own),
                sum(row.weighted_input_tokens for row in own),
                sum(row.weighted_output_tokens for row in own),
            ), counter


async def test_outage_of_seven_minutes_loses_nothing(
    engine: Engine, keeper: Accounting, caplog: pytest.LogCaptureFixture
) -> None:
    """What ended in an outage is charged as it was, also where a sweep came first; once."""
    replies = [await admit(keeper, user) for user in ("ann", "bob")]
    still_running = await admit(keeper, "eve")
    away = True

    def fail(*_: object) -> None:
        if away:
            raise OperationalError("away", None, Exception())

    with before_statements(fail):
        for reply in replies:
            assert await keeper.end(reply, LONG) is None
    assert {row.state for row in records_of(engine).values()} == {"reserved"}
    later = Clock(time.time() + 420)
    keeper.ledger._clock = later
    assert Ledger(engine, clock=later).sweep() in (0, 2, 3)  # as another one's, before ours
    away = False
    for reply in replies:
        for _ in range(100):
            if records_of(engine)[reply.reservation.id].output_tokens == 90_000:
                break
            await asyncio.sleep(0.05)
    await keeper.end(still_running, LONG)
    found = await wait_for_states(engine, dict.fromkeys(records_of(engine), "settled"))
    assert {(row.output_tokens, row.estimated, row.end_reason) for row in found.values()} == {
        (90_000, False, "")
    }
    assert_counters_agree(engine)


async def test_what_waits_keeps_no_texts(engine: Engine, keeper: Accounting) -> None:
    """In an outage as many replies as there are wait in memory, each without what it said."""
    away = False

    def fail(_connection: Connection, text: str, _values: object) -> None:
        if away:
            raise OperationalError(text, None, sqlite3.OperationalError("disk I/O error"))

    reply = await admit(keeper)
    for _ in range(1_000):
        reply.meter.add_event({"choices": [{"delta": {"content": "word "}}]})
    charge, key, away = reply.used_charge(), reply.reservation.id, True
    with before_statements(fail):
        await keeper.end(reply, charge)
        (waiting,) = keeper._unwritten.values()
        assert not waiting.reply.meter.produced
        assert waiting.reply.emitter is waiting.reply.ending is None
        away = False
    rows = await wait_for_states(engine, {key: "settled"})
    assert rows[key].output_tokens == charge.usage.output_tokens > 100


def test_true_charge_replaces_a_swept_estimate_once(fixture: LedgerFixture) -> None:
    """A record that a sweep has closed is put right by a difference in the counters, once."""
    texts = ("9M tokens/day", "9M tokens/7d")
    assert fixture.ask(*texts, pool="9M tokens/5h").allowed
    (made,) = fixture.made
    limits = fixture.limits(made, *texts, pool="9M tokens/5h")
    fixture.clock.now += 420
    assert fixture.ledger.sweep() == 1
    assert [(row.input_tokens, row.end_reason) for row in fixture.rows()] == [(10, WORKER_GONE)]
    assert fixture.ledger.settle(made, LONG, limits).closed
    assert not fixture.ledger.settle(made, tokens(1, 1), limits).closed
    assert [state.used for state in standing(fixture.ledger, made, limits).states] == [91_000] * 3
    assert [(row.output_tokens, row.end_reason) for row in fixture.rows()] == [(90_000, "")]
    assert_counters_agree(fixture.engine)


def test_released_after_a_sweep_counts_nothing(fixture: LedgerFixture) -> None:
    """A reply that failed after a sweep had taken it for a charge gives it back, and says why."""
    assert fixture.ask("9M tokens/day").allowed
    fixture.clock.now += 420
    assert fixture.ledger.sweep() == 1
    fixture.ledger.settle(fixture.made[0], None, ())
    assert [(row.state, row.end_reason) for row in fixture.rows()] == [("released", NO_ANSWER)]
    assert fixture.ask("9M tokens/day").states[0].used == 0


async def test_poisoned_end_blocks_nobody(
    engine: Engine, keeper: Accounting, caplog: pytest.LogCaptureFixture
) -> None:
    """An end that the database refuses is set aside and logged; the others are written."""
    replies = [await admit(keeper, user) for user in ("ann", "bob", "eve")]
    poison = replace(LONG, usage=replace(LONG.usage, input_tokens=10**400))
    with caplog.at_level(logging.ERROR):
        assert await keeper.end(replies[0], poison) is None
        for reply in replies[1:]:
            keeper._unwritten[reply.reservation.id] = WaitingEnd(reply, TWENTY, "")
            keeper.forget(reply)
        wanted = {reply.reservation.id: "settled" for reply in replies[1:]}
        await wait_for_states(engine, {**wanted, replies[0].reservation.id: "reserved"})
        for _ in range(100):
            if not keeper._unwritten:
                break
            await asyncio.sleep(0.05)
    assert not keeper._unwritten
    assert "set aside" in caplog.text
    # As it isn't renewed any more, it is settled by what was noted last.
    keeper.ledger._clock = Clock(time.time() + 420)
    assert keeper.ledger.sweep([]) == 1


@pytest.mark.parametrize("value", ["\ud800", "\0", 10**400, float("nan")])
def test_refused_values_are_no_outage(fixture: LedgerFixture, value: object) -> None:
    """What the database refuses, or the driver can't send, is a LedgerDataError."""
    fixture.ledger.prepare()

    def work(connection: Connection) -> None:
        column = records_table.c.user_id if isinstance(value, str) else records_table.c.created_at
        connection.execute(update(records_table).values({column: value}).where(column == value))

    if fixture.engine.dialect.name == "sqlite" and value not in ("\ud800", 10**400):
        TransactionRunner(fixture.engine).run(work)  # SQLite takes these
        return
    with pytest.raises(LedgerDataError):
        TransactionRunner(fixture.engine).run(work)


def test_missing_table_is_no_outage(fixture: LedgerFixture) -> None:
    """A ledger without its tables was reached: nobody passes because of that."""
    with pytest.raises(LedgerDataError):
        TransactionRunner(fixture.engine).run(lambda one: one.execute(select(records_table)).all())


def test_settling_while_a_rolling_pool_moves(fixture: LedgerFixture) -> None:
    """An exempt user settles without the pool's lock while others move it: the sums agree."""
    pool = "9M tokens/5h"
    fixture.use(used=tokens(100, 0), pool=pool)
    fixture.clock.now += 4 * 3_600
    assert fixture.ask(user="admin").allowed
    admin = fixture.made[-1]
    fixture.clock.now += 2 * 3_600
    reached, go_on = threading.Event(), threading.Event()
    settling = threading.current_thread()

    def hold(_connection: object, statement: str, _values: object) -> None:
        if threading.current_thread() is settling and "UPDATE usage_limits_counters" in statement:
            reached.set()
            go_on.wait(1)

    def settle() -> None:
        nonlocal settling
        settling = threading.current_thread()
        fixture.ledger.settle(admin, tokens(5_000, 0), ())

    with before_statements(hold):
        thread = threading.Thread(target=settle)
        thread.start()
        assert reached.wait(5)
        member = LedgerFixture(
            Ledger(fixture.engine, clock=fixture.clock), fixture.engine, fixture.clock
        )
        member.use(used=tokens(7, 0), pool=pool, user="bob", id="bob")
        go_on.set()
        thread.join()
    assert_counters_agree(fixture.engine)
    reservation = fixture.reservation()
    limits = fixture.limits(reservation, pool=pool)
    assert [state.used for state in standing(fixture.ledger, reservation, limits).states] == [5_007]


def test_clock_far_ahead_and_back(fixture: LedgerFixture) -> None:
    """A clock that is 500 days ahead for a while drops nothing, and locks nobody out later."""
    texts = ("1k tokens/day", "1k tokens/5h", "1k tokens/30d")
    fixture.use(*texts, used=tokens(100, 0))
    fixture.clock.now += 500 * DAY
    fixture.use(*texts, used=tokens(900, 0))
    assert fixture.drop_older(400 * DAY) == 0
    assert len(fixture.rows()) == 2
    fixture.clock.now = NOON + 600
    decision = fixture.use(*texts, used=tokens(50, 0))
    assert [state.used for state in decision.states] == [150, 150, 150]
    fixture.clock.now += 5 * 3_600
    assert [state.used for state in fixture.ask(*texts).states[1:]] == [0, 150]
    assert_counters_agree(fixture.engine)


def test_clock_ahead_tells_nobody_to_wait_longer_than_a_period(fixture: LedgerFixture) -> None:
    """When a limit opens again, as a clock that was ahead has seen it, is forgotten with it."""
    fixture.clock.now = NOON + 12 * 3_600
    fixture.use("100 tokens/5h", used=tokens(100, 0))
    assert not fixture.ask("100 tokens/5h").allowed
    fixture.clock.now = NOON
    refused = fixture.ask("100 tokens/5h").refusing
    assert refused is not None
    assert refused.reset_at.timestamp() <= NOON + 5 * 3_600


def test_clock_days_ahead_within_a_rolling_window(fixture: LedgerFixture) -> None:
    """What left a rolling window too early, as a clock was ahead, is in it again."""
    texts = ("1k tokens/7d",)
    fixture.use(*texts, used=tokens(300, 0))
    fixture.clock.now += 3 * DAY
    fixture.use(*texts, used=tokens(200, 0))
    fixture.clock.now += 5 * DAY  # the first has left it
    assert fixture.use(*texts, used=tokens(40, 0)).states[0].used == 240
    fixture.clock.now -= 5 * DAY
    assert fixture.use(*texts, used=tokens(1, 0)).states[0].used == 501


def test_old_records_go_once_the_clock_is_believed(fixture: LedgerFixture) -> None:
    """Where the last weeks have records, what is older than it has to be is dropped."""
    fixture.use(used=tokens(1, 0))
    for day in (380, 395, 405):
        fixture.clock.now = NOON + day * DAY
        fixture.use(used=tokens(1, 0))
    assert fixture.drop_older(400 * DAY) == 1
    assert len(fixture.rows()) == 3


def test_records_of_a_rolling_window_are_kept(fixture: LedgerFixture) -> None:
    """A rolling sum is made of what leaves it: its records stay that long."""
    texts = ("1k tokens/30d",)
    for day in range(0, 36, 5):
        fixture.clock.now = NOON + day * DAY
        fixture.use(*texts, used=tokens(10, 0))
        fixture.drop_older(3 * DAY)
    assert fixture.ask(*texts).states[0].used == 60
    assert_counters_agree(fixture.engine)


def test_retention_while_replies_end(engine: Engine) -> None:
    """Old records are dropped beside replies that begin and end, and one that is older than they
    may be is still closed; sums and records agree.
    """
    now = time.time()
    fixture = LedgerFixture(Ledger(engine, clock=(clock := Clock(now))), engine, clock)
    texts, pool = ("9M tokens/24h",), "9M tokens/24h"
    clock.now = now - 10 * DAY
    fixture.use(*texts, pool=pool, used=tokens(10, 0))
    assert fixture.ask(*texts, pool=pool).allowed
    still_running = fixture.made[-1]
    with engine.begin() as connection:
        row = connection.execute(select(records_table).limit(1)).one()._asdict()
        old = [{**row, "id": f"old {n}", "state": "settled"} for n in range(2_500)]
        connection.execute(records_table.insert(), old)
    clock.now = now
    with ThreadPoolExecutor(3) as threads:
        end = time.monotonic() + 1.5
        chats = [
            threads.submit(fixture.chat_until, end, name, *texts, pool=pool)
            for name in ("ann", "bob", "eve")
        ]
        dropped = fixture.drop_older(3 * DAY)
        fixture.ledger.settle(still_running, tokens(5, 0), ())
        done = sum(chat.result() for chat in chats)
    assert dropped == 2_501
    rows = records_of(engine)
    assert len(rows) == done + 1
    assert rows[still_running.id].input_tokens == 5
    assert_counters_agree(engine)


def test_rolling_refusal_reads_a_bounded_number_of_records(
    fixture: LedgerFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reset is exact where few records decide, else an upper bound."""
    monkeypatch.setattr("helpers.ledger.limit_states.RECORDS_LOOKED_AT", (2, 5))
    for _ in range(8):
        fixture.clock.now += 60
        fixture.use(used=tokens(10, 0), model_names=("other",))
    fixture.clock.now += 60
    fixture.use(used=tokens(100, 0))
    for texts, pool in ((("100 tokens/5h on gpt*",), ""), ((), "100 tokens/5h on gpt*")):
        state = fixture.ask(*texts, pool=pool).refusing
        assert state is not None
        assert state.reset_at.timestamp() == fixture.clock.now + 5 * 3_600
    state = fixture.ask("171 tokens/5h").refusing
    assert state is not None
    assert state.reset_at.timestamp() == NOON + 60 + 5 * 3_600


def test_when_a_limit_opens_is_looked_up_under_no_lock(fixture: LedgerFixture) -> None:
    """Who is refused for the first time makes nobody wait, and where it can't be read when the
    limit opens it is a refusal all the same.
    """
    texts = ("100 tokens/5h", "100 tokens/day")
    fixture.use(*texts, used=tokens(100, 0))
    fixture.clock.now += 60
    fixture.ledger.known_resets.clear()  # the reply that reached it has looked it up
    said: list[str] = []
    away = False

    def note(_connection: Connection, text: str, _values: object) -> None:
        said.append(text)
        if away and "ORDER BY usage_limits_records.created_at" in text:
            raise OperationalError(text, None, sqlite3.OperationalError("disk I/O error"))

    with before_statements(note):
        refused = fixture.ask(*texts).refusing
    looked_up = [text for text in said if "ORDER BY usage_limits_records.created_at" in text]
    assert said[said.index("COMMIT") + 1 :] == looked_up
    assert len(looked_up) == 1
    assert refused is not None
    fixture.ledger.known_resets.clear()
    away = True
    with before_statements(note):
        rolling, daily = fixture.ask(*texts).states
    assert rolling.exceeded
    assert daily.exceeded
    assert rolling.reset_at.timestamp() == fixture.clock.now + 5 * 3_600
    away = False
    rolling, _ = fixture.ask(*texts).states
    assert rolling.reset_at.timestamp() == NOON + 5 * 3_600


@pytest.mark.parametrize("period", ["day", "24h"])
def test_many_pools_take_few_statements(fixture: LedgerFixture, period: str) -> None:
    """Counters of three thousand pools are made and moved on by a bounded number of statements,
    and those of several users at once find room in PostgreSQL's table of locks.
    """
    count = 3_000
    groups = tuple(GroupRef(f"g{number}", f"Group {number}") for number in range(count))
    subjects = [
        Subject(name, f"{name}@example.org", "user", groups) for name in ("ann", "bob", "eve")
    ]
    text = "\n".join(
        f'[pool.p{number}]\ngroup = "Group {number}"\nlimits = ["1k tokens/{period}"]'
        for number in range(count)
    )
    policies = parse_policies(f'{text}\n[role.user]\nlimits = "unlimited"')

    limits = applied_limits(
        subjects[0],
        policies.roles["user"],
        policies,
        ("gpt-4o",),
        datetime.fromtimestamp(NOON, UTC),
        CalendarRules(),
    )

    def check(subject: Subject) -> set[int]:
        decision = standing(fixture.ledger, fixture.reservation(subject=subject), limits)
        assert len(decision.states) == count
        return {state.used for state in decision.states}

    for used in (70, 5):
        reservation = fixture.reservation(subject=subjects[0])
        fixture.ledger.reserve(reservation, lambda _: tokens(1, 1), ())
        fixture.ledger.settle(reservation, tokens(used, 0), ())
        fixture.clock.now += 3_600
    statements: list[str] = []
    with before_statements(lambda _connection, text, _values: statements.append(text)):
        began = time.monotonic()
        assert check(subjects[0]) == {75}
        fixture.clock.now += 9 * 3_600  # the same day still
        assert check(subjects[0]) == {75}
        if period == "24h":
            fixture.clock.now += 13 * 3_600 + 1
            assert check(subjects[0]) == {5}
    assert time.monotonic() - began < 15
    assert len(statements) < 40
    with ThreadPoolExecutor(3) as threads:
        assert len(list(threads.map(check, subjects))) == 3


@pytest.mark.parametrize("count", [7, 40])
def test_pools_that_were_looked_at_one_by_one_move_together(
    fixture: LedgerFixture, count: int
) -> None:
    """Rolling pools of which each was last used at another time cost who is in all of them few
    statements, and agree with the records; so do those that are all reached.
    """
    groups = tuple(GroupRef(f"g{number}", f"Group {number}") for number in range(count))
    text = "\n".join(
        f'[pool.p{number}]\ngroup = "Group {number}"\nlimits = ["40 tokens/24h"]'
        for number in range(count)
    )
    policies = parse_policies(f'{text}\n[role.user]\nlimits = "unlimited"')

    def ask(user: str, own: tuple[GroupRef, ...], used: int) -> Decision:
        subject = Subject(user, "", "user", own)
        reservation = fixture.reservation(subject=subject)
        at = datetime.fromtimestamp(fixture.clock.now, UTC)
        role = policies.roles["user"]
        limits = applied_limits(subject, role, policies, ("gpt-4o",), at, CalendarRules())
        decision = fixture.ledger.reserve(reservation, lambda _: tokens(used, 0), limits).decision
        if decision.allowed:
            fixture.ledger.settle(reservation, tokens(used, 0), limits)
        return decision

    for _ in range(2):
        for group in groups:
            ask(group.id, (group,), 10)
            fixture.clock.now += 7
    # What the first of the pools used first is a day ago.
    fixture.clock.now = NOON + DAY + 3 * 7
    statements: list[str] = []
    with before_statements(lambda _connection, text, _values: statements.append(text)):
        decision = ask("ann", groups, 20)
    assert sorted(state.used for state in decision.states) == [10] * 4 + [20] * (count - 4)
    assert len(statements) < 15
    statements.clear()
    with before_statements(lambda _connection, text, _values: statements.append(text)):
        refused = ask("ann", groups, 20)
    assert sum(state.exceeded for state in refused.states) == count - 4
    assert len(statements) < 15
    opens = sorted(int(state.reset_at.timestamp()) for state in refused.states if state.exceeded)
    looked_at = min(count, sum(RECORDS_LOOKED_AT)) - 4
    assert opens[: looked_at // 2] == [NOON + DAY + 7 * (4 + n) for n in range(looked_at // 2)]
    assert opens[-1] <= fixture.clock.now + DAY


async def test_worker_that_is_gone_is_swept_and_a_living_one_never(
    engine: Engine, keeper: Accounting
) -> None:
    """What a killed worker holds is settled once it has been silent; a living one's is kept."""
    gone, alive = (Ledger(engine, worker=name) for name in ("gone", "alive"))
    fixture = LedgerFixture(gone, engine, Clock(time.time()))
    for ledger in (gone, alive):
        ledger.beat()
        fixture.ledger = ledger
        assert fixture.ask(id=f"held-{ledger._worker}").allowed
    reply = await admit(keeper)
    began = time.monotonic()
    while records_of(engine)["held-gone"].state == "reserved":
        await asyncio.to_thread(alive.beat)
        await asyncio.sleep(0.1)
        assert time.monotonic() - began < 5
    rows = records_of(engine)
    assert (rows["held-gone"].state, rows["held-gone"].end_reason) == ("settled", WORKER_GONE)
    assert rows["held-alive"].state == rows[reply.reservation.id].state == "reserved"
    await keeper.end(reply, TWENTY)


async def test_worker_that_stops_settles_what_it_has(engine: Engine, keeper: Accounting) -> None:
    """A stopping worker leaves no reservation, and a reply that ends all the same puts it right."""
    called, waiting = await admit(keeper), await admit(keeper, "bob")
    called.called_model = True
    await asyncio.to_thread(keeper.stop)
    rows = records_of(engine)
    assert {row.state for row in rows.values()} == {"settled"}
    assert {row.end_reason for row in rows.values()} == {WORKER_STOPPED}
    assert (rows[called.reservation.id].counted, rows[called.reservation.id].input_tokens) == (
        1,
        10,
    )
    assert rows[waiting.reservation.id].counted == 0
    await keeper.end(called, LONG)
    await keeper.end(waiting, LONG)
    assert {row.output_tokens for row in records_of(engine).values()} == {90_000}
    assert_counters_agree(engine)


async def test_replaced_worker_lets_go(database_url: str, keeper: Accounting) -> None:
    """An older one gives back its threads and connections as soon as its last reply has ended."""
    engine = open_database(database_url)
    opened: list[object] = []
    event.listen(engine, "connect", lambda connection, _: opened.append(connection))
    event.listen(engine, "close", lambda connection, _: opened.remove(connection))
    older = Accounting(engine, None, own_engine=True)
    reply = await admit(older)
    newer = Accounting(engine, None)
    await asyncio.sleep(0.3)
    assert older._threads is not None
    await older.end(reply, TWENTY)
    for _ in range(100):
        if older._threads is None and not opened:
            break
        await asyncio.sleep(0.05)
    assert older._threads is None
    assert not opened
    with engine.connect() as connection:
        assert connection.execute(select(workers_table)).all() == []
    again = await admit(older)  # what is asked of it all the same it does
    await older.end(again, TWENTY)
    newer.close()
    older.close()
    engine.dispose()


async def test_replaced_worker_gives_back_what_pages_have_read_by(database_url: str) -> None:
    """One that no request ever came to holds no connection either once another has taken over."""
    engine = open_database(database_url)
    opened: list[object] = []
    event.listen(engine, "connect", lambda connection, _: opened.append(connection))
    event.listen(engine, "close", lambda connection, _: opened.remove(connection))
    older = Accounting(engine, None, own_engine=True)
    await asyncio.to_thread(older.prepare)
    await asyncio.to_thread(older.read, lambda one: one.execute(select(records_table)).all())
    assert opened
    Accounting(engine, None).close()
    assert not opened


async def test_closed_worker_opens_nothing_more(
    keeper: Accounting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it was looking at when it was closed, no thread or connection comes after that."""
    look, looking = keeper.ledger.other_workers, threading.Event()

    def look_slowly() -> dict[str, int | None]:
        looking.set()
        time.sleep(0.1)
        return look()

    await keeper.end(await admit(keeper), TWENTY)
    monkeypatch.setattr(keeper.ledger, "other_workers", look_slowly)
    keeper._swept_at = float("-inf")  # it will go on to sweep
    reply = await admit(keeper)
    assert await asyncio.to_thread(looking.wait, 5)
    keeper.forget(reply)
    keeper.close()
    await asyncio.sleep(0.3)
    assert keeper._threads is None
    assert not keeper.ledger._transactions._idle


async def test_full_queue_refuses_early_and_records_later(
    engine: Engine, keeper: Accounting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that would hardly get its turn is a ledger error at once, and on record later."""
    monkeypatch.setattr("helpers.openwebui.ledger_worker.QUEUE_LIMIT", 0)
    reply = make_reply(keeper, VALVES, "ann", datetime.now(UTC))
    _, admission = await keeper.admit(lambda: reply, announce=False)
    assert type(admission) is LedgerError  # nothing has answered so far
    await keeper.end(reply, TWENTY)
    await wait_for_states(engine, {reply.reservation.id: "settled"})


async def test_names_are_read_in_the_time_of_the_request(keeper: Accounting) -> None:
    """Who has waited long enough isn't made to wait for whom the policies mean as well."""
    policies = parse_policies('[group.Students]\nlimits = ["1 request/day"]')
    memory = keeper.remember_identities(lambda *_: HostNames({}, {}), tuple, lambda _: None)
    with keeper.until(time.monotonic() - 1), pytest.raises(LedgerError):
        memory.identities(policies)
    assert memory.identities(policies).problems


async def test_patience_counts_from_arrival(
    engine: Engine, keeper: Accounting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests behind a stuck lock all have their answer when the first has, not one by one."""
    monkeypatch.setattr("helpers.ledger.transactions.TRANSACTION_PATIENCE_SECONDS", 1.0)
    await keeper.end(await admit(keeper), TWENTY)
    runner, stuck, free = TransactionRunner(engine), threading.Event(), threading.Event()

    def hold(_: Connection) -> None:
        stuck.set()
        free.wait(20)

    thread = threading.Thread(target=runner.run, args=(hold, ("user:ann",)))
    thread.start()
    assert await asyncio.to_thread(stuck.wait, 5)
    replies = [make_reply(keeper, VALVES, "ann", datetime.now(UTC)) for _ in range(12)]
    began = time.monotonic()
    answers = await asyncio.gather(
        *(keeper.admit(lambda one=reply: one, announce=False) for reply in replies)
    )
    took = time.monotonic() - began
    free.set()
    thread.join()
    # It looks like a crowd to those before whom the worker has said that it lives.
    assert all(isinstance(admission, LedgerError) for _, admission in answers)
    assert took < 3
    for reply in replies:
        keeper.forget(reply)
