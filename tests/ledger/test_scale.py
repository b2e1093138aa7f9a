"""The ledger under many processes, with many records, and after any order of steps."""

from __future__ import annotations

import multiprocessing
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, event, func, select, text

from helpers.ledger.database import open_database
from helpers.ledger.ledger import Ledger
from helpers.ledger.records import Reservation
from helpers.ledger.tables import MIGRATIONS, counters_table, ledger_metadata, records_table
from helpers.limits.decisions import Decision
from helpers.limits.periods import CalendarRules
from helpers.limits.policies_text import parse_policies
from helpers.limits.policy import AppliedLimit, GroupRef, Subject, applied_limits
from scripts.bench.databases import INDEXES, OWN_USER, drop_indexes, fill_ledger
from scripts.bench.ledger import limits_now, new_reservation
from scripts.bench.rivals import monthly_limit
from tests.support.driver import before_statements
from tests.support.ledger_fixture import NOON, Clock, standing, tokens
from tests.support.scale_worker import LAB, run_worker

pytestmark = pytest.mark.slow

pytest_plugins = ["tests.support.databases"]

PROCESSES = 8
CONCURRENT = 50


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessPoolExecutor]:
    """Processes of their own, as workers and replicas are."""
    # Not multiprocessing.Pool: it waits for ever where a process dies at its start.
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
        yield pool


ONE_USER = '[role.user]\nlimits = ["{}"]'
EVERYONE = '[pool.everyone]\nlimits = ["{}"]'
GROUP = '[pool.lab]\ngroup = "Lab"\nlimits = ["{}"]'


@pytest.mark.parametrize(
    ("policies", "limit", "admitted"),
    [
        (ONE_USER, "37 requests/month", 37),
        (ONE_USER, "37 requests/30d", 37),
        (ONE_USER, "500 tokens/month", 25),
        (ONE_USER, "501 tokens/month", 26),
        (EVERYONE, "37 requests/month", 37),
        (GROUP, "501 tokens/month", 26),
    ],
)
def test_processes_never_admit_too_many(
    database_url: str,
    processes: ProcessPoolExecutor,
    policies: str,
    limit: str,
    admitted: int,
) -> None:
    """Eight processes with fifty requests each at once, first on an empty database, let in
    exactly N requests, or at most one beyond a token limit, and lose no update.
    """
    valves = {"policies": policies.format(limit)}
    users = [f"user{number}" if policies != ONE_USER else "ann" for number in range(CONCURRENT)]
    now = datetime.now(UTC).timestamp()
    asked = [
        processes.submit(run_worker, database_url, valves, users, now) for _ in range(PROCESSES)
    ]
    assert sum(future.result(timeout=300) for future in asked) == admitted
    engine = open_database(database_url)
    with engine.connect() as connection:
        states = connection.execute(select(records_table.c.state)).scalars().all()
        (counter,) = connection.execute(select(counters_table)).all()
        migrations = connection.execute(text("SELECT number FROM usage_limits_migrations")).all()
    engine.dispose()
    assert Counter(states) == {"settled": admitted}
    assert (counter.requests, counter.input_tokens) == (admitted, 10 * admitted)
    assert migrations == [(number,) for number in range(1, len(MIGRATIONS) + 1)]


@dataclass
class Watch:
    """Every statement that ran, with its plan."""

    plans: list[str] = field(default_factory=list)
    steps: int = 0


def explain_sqlite(cursor: Any, statement: str, parameters: Any) -> str:
    rows = cursor.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
    return "\n".join(row[3] for row in rows)


def explain_postgresql(cursor: Any, statement: str, parameters: Any) -> str:
    cursor.execute(f"EXPLAIN {statement}", parameters)
    return "\n".join(row[0] for row in cursor.fetchall())


@contextmanager
def watch_statements(engine: Engine) -> Iterator[Watch]:
    """Explain each statement on the connection that is about to run it."""
    watch = Watch()
    explain = explain_sqlite if engine.dialect.name == "sqlite" else explain_postgresql

    def note(connection: Connection, statement: str, values: Any) -> None:
        if "usage_limits_" in statement:
            with closing(connection.connection.cursor()) as cursor:
                # Several rows at once are planned alike.
                several = isinstance(values, list) and values and isinstance(values[0], tuple)
                one = values[0] if several else values
                watch.plans.append(explain(cursor, statement, one))

    with before_statements(note):
        yield watch


LimitsOf = Callable[[Reservation], tuple[AppliedLimit, ...]]


def one_reply(ledger: Ledger, limits_of: LimitsOf) -> None:
    """Admit and settle a reply of the user who has many records."""
    # At the ledger's own time, or a rolling window would have moved where a second has passed.
    reservation = replace(new_reservation(OWN_USER), created_at=ledger._now())
    limits = limits_of(reservation)
    assert ledger.reserve(reservation, lambda _: tokens(10, 10), limits).decision.allowed
    ledger.settle(reservation, tokens(10, 10), limits)


def count_sqlite_steps(engine: Engine, ledger: Ledger, limits_of: LimitsOf) -> int:
    """The steps of SQLite's own machine that a reply takes: each touches one row at most."""
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    def count(connection: sqlite3.Connection, *_: object) -> None:
        connection.set_progress_handler(step, 1)

    def stop(connection: sqlite3.Connection, *_: object) -> None:
        connection.set_progress_handler(None, 1)

    event.listen(engine, "checkout", count)
    event.listen(engine, "checkin", stop)
    one_reply(ledger, limits_of)
    event.remove(engine, "checkout", count)
    event.remove(engine, "checkin", stop)
    return steps


def count_postgresql_rows(engine: Engine) -> int:
    """How many of the ledger's records were read so far, as PostgreSQL counts them."""
    return read_statistics(
        engine,
        "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables "
        "WHERE relname = 'usage_limits_records'",
    )


def count_index_entries(engine: Engine) -> int:
    """How many entries of the index of running replies PostgreSQL has looked at so far."""
    return read_statistics(
        engine,
        "SELECT idx_tup_read FROM pg_stat_user_indexes "
        "WHERE indexrelname = 'usage_limits_records_open'",
    )


def read_statistics(engine: Engine, query: str) -> int:
    """A number that PostgreSQL writes down when the connection's next transaction has ended."""
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_stat_force_next_flush()"))
    with engine.begin() as connection:
        return int(connection.execute(text(query)).scalar_one())


def assert_bounded(plan: str) -> None:
    """Every line of a plan of SQLite's looks at few rows, however many there are."""
    for line in plan.splitlines():
        # The index of running replies is short, and a pool looks at all of them.
        assert "SCAN usage" not in line or "USING INDEX usage_limits_records_open" in line
        assert not line.endswith("USING INDEX usage_limits_records_user (user_id=?)")


several_limits = pytest.mark.parametrize(
    "limits_of", [monthly_limit, limits_now], ids=["own limit", "own limits and a pool"]
)


@several_limits
def test_reply_takes_as_many_steps_with_many_records(tmp_path: Path, limits_of: LimitsOf) -> None:
    """On SQLite a reply takes the same steps with 1,000 and with 100,000 records, all by index."""
    taken, plans = {}, {}
    for size in (1_000, 100_000):
        engine = open_database(f"sqlite:///{tmp_path / f'{size}.db'}")
        fill_ledger(engine, size)
        # The clock stands, or a rolling window would let go of a record now and then.
        ledger = Ledger(engine, clock=Clock(datetime.now(UTC).timestamp()))
        one_reply(ledger, limits_of)  # makes the counters
        taken[size] = count_sqlite_steps(engine, ledger, limits_of)
        with watch_statements(engine) as watch:
            one_reply(ledger, limits_of)
        plans[size] = watch.plans
        engine.dispose()
    assert taken[100_000] == pytest.approx(taken[1_000], rel=0.1)
    assert plans[100_000] == plans[1_000]
    assert len(plans[1_000]) == 5
    for plan in plans[100_000]:
        assert_bounded(plan)


@pytest.mark.parametrize("order", list(permutations(INDEXES)))
def test_plans_do_not_depend_on_the_order_of_indexes(
    tmp_path: Path, order: tuple[str, ...]
) -> None:
    """SQLite finds running replies by their own index, in whatever order indexes were made."""
    engine = open_database(f"sqlite:///{tmp_path / 'ledger.db'}")
    ledger = Ledger(engine)
    ledger.prepare()
    with engine.begin() as connection:
        dropped = drop_indexes(connection, "sqlite_master")
        for name in order:
            (definition,) = (each for each in dropped if f" {name} " in each)
            connection.exec_driver_sql(definition)
    with watch_statements(engine) as watch:
        one_reply(ledger, monthly_limit)
        one_reply(ledger, limits_now)
    engine.dispose()
    for plan in watch.plans:
        assert_bounded(plan)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@several_limits
def test_reply_reads_as_many_rows_with_many_records(database_url: str, limits_of: LimitsOf) -> None:
    """On PostgreSQL a reply reads a bounded number of records by index, however many there are."""
    engine = open_database(database_url)
    fill_ledger(engine, 100_000)
    ledger = Ledger(engine)
    one_reply(ledger, limits_of)
    before = count_postgresql_rows(engine)
    one_reply(ledger, limits_of)
    assert count_postgresql_rows(engine) - before < 20
    with watch_statements(engine) as watch:
        one_reply(ledger, limits_of)
    engine.dispose()
    assert len(watch.plans) == 5
    assert not [plan for plan in watch.plans if "Seq Scan on usage_limits_records" in plan]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@several_limits
def test_plans_made_on_an_empty_ledger_stay_good(database_url: str, limits_of: LimitsOf) -> None:
    """What a connection has prepared while there was next to nothing reads few rows later on."""
    engine, other = open_database(database_url), open_database(database_url)
    ledger = Ledger(engine, keep_connections=True)
    ledger.prepare()
    with other.begin() as connection:  # analyzing would make plans anew, and so does this
        connection.execute(text("ALTER TABLE usage_limits_records SET (autovacuum_enabled = off)"))
    for _ in range(10):  # the driver prepares a statement at the sixth time
        one_reply(ledger, limits_of)
    with other.begin() as connection:
        copied = connection.execute(select(records_table).limit(1)).one()._asdict()
        connection.execute(
            records_table.insert(), [copied | {"id": f"copy {number}"} for number in range(20_000)]
        )
    before = count_postgresql_rows(other)
    for _ in range(10):
        one_reply(ledger, limits_of)
    for _ in range(2):  # the connection tells what it has read
        ledger.read(lambda kept: kept.execute(text("SELECT pg_stat_force_next_flush()")).all())
    assert 0 < count_postgresql_rows(other) - before < 20 * 20
    ledger.rest()
    engine.dispose()
    other.dispose()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_ended_replies_are_passed_by_before_they_are_vacuumed(database_url: str) -> None:
    """Between two vacuums PostgreSQL's index still names every reply that has ended since."""
    engine = open_database(database_url)
    fill_ledger(engine, 5_000)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE usage_limits_records SET (autovacuum_enabled = off)"))
        for state in ("reserved", "settled"):
            connection.execute(records_table.update().values(state=state))
        # As on a new server: PostgreSQL guesses, and would choose a bitmap.
        forget = "DELETE FROM pg_statistic WHERE starelid = 'usage_limits_records'::regclass"
        connection.execute(text(forget))
    ledger = Ledger(engine)
    for _ in range(3):  # those that are found gone are marked
        one_reply(ledger, limits_now)
    before = count_index_entries(engine)
    one_reply(ledger, limits_now)
    assert count_index_entries(engine) - before < 50
    engine.dispose()


STEP_POLICIES = parse_policies(
    "[role.user]\n"
    'limits = ["300 tokens/day", "20 requests/hour", "9k tokens/month on gpt*",'
    ' "400 output tokens/5h", "$0.01/7d", "50 tokens/90m on llama"]\n'
    '[pool.everyone]\nlimits = ["900 tokens/day", "50 requests/24h on gpt-4o"]\n'
    '[pool.lab]\ngroup = "Lab"\nlimits = ["700 tokens/week", "600 input tokens/30d"]\n'
)
SUBJECTS = [
    Subject("ann", "ann@example.org", "user", (LAB,)),
    Subject("bob", "bob@example.org", "user", (LAB, GroupRef("g2", "Other"))),
    Subject("eve", "eve@example.org", "user"),
]
MODELS = [("gpt-4o",), ("my-gpt", "gpt-4o"), ("llama",)]
numbers = st.integers(0, 99)
charges = st.builds(
    tokens,
    st.integers(0, 200),
    st.integers(0, 200),
    st.integers(0, 3_000),
    st.sampled_from(["1", "0", "2.5"]),
)
clock_steps = st.sampled_from([0, 1, 59, 600, 3_599, 3_600, 5 * 3_600, 43_200, 86_400, 9 * 86_400])
step_lists = st.lists(
    st.tuples(st.just("reserve"), numbers, numbers, charges)
    | st.tuples(st.just("settle"), numbers, charges)
    | st.tuples(st.just("release"), numbers)
    | st.tuples(st.just("renew"), numbers, charges)
    | st.tuples(st.just("check"), numbers, numbers)
    | st.tuples(st.just("wait"), clock_steps)
    | st.tuples(st.just("sweep")),
    min_size=1,
    max_size=25,
)


@dataclass
class Walk:
    """A ledger that takes any steps."""

    ledger: Ledger
    clock: Clock
    made: list[Reservation] = field(default_factory=list)

    def limits(self, subject: Subject, models: tuple[str, ...]) -> tuple[AppliedLimit, ...]:
        return applied_limits(
            subject,
            STEP_POLICIES.roles["user"],
            STEP_POLICIES,
            models,
            datetime.fromtimestamp(self.clock.now, UTC),
            CalendarRules(),
        )

    def reservation(self, subject: Subject, models: tuple[str, ...]) -> Reservation:
        reservation = new_reservation()
        created_at = int(self.clock.now)
        return replace(reservation, subject=subject, model_names=models, created_at=created_at)

    def step(self, name: str, *arguments: Any) -> None:
        getattr(self, name)(*arguments)

    def reserve(self, subject: int, models: int, estimate: Any) -> None:
        subject_, models_ = SUBJECTS[subject % 3], MODELS[models % 3]
        self.made.append(self.reservation(subject_, models_))
        limits = self.limits(subject_, models_)
        self.ledger.reserve(self.made[-1], lambda _: estimate, limits, enforce=subject < 50)

    def settle(self, number: int, charge: Any) -> None:
        if self.made:
            reservation = self.made[number % len(self.made)]
            limits = self.limits(reservation.subject, reservation.model_names)
            self.ledger.settle(reservation, charge, limits, decide=number < 50)

    def release(self, number: int) -> None:
        if self.made:
            self.ledger.settle(self.made[number % len(self.made)], None, ())

    def renew(self, number: int, charge: Any) -> None:
        if self.made:
            self.ledger.renew({self.made[number % len(self.made)].id: charge})

    def check(self, subject: int, models: int) -> Decision:
        subject_, models_ = SUBJECTS[subject % 3], MODELS[models % 3]
        limits = self.limits(subject_, models_)
        return standing(self.ledger, self.reservation(subject_, models_), limits)

    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    def sweep(self) -> None:
        self.ledger.sweep()

    def decisions(self) -> list[Decision]:
        return [self.check(subject, models) for subject in range(3) for models in range(3)]


# A reply that is settled once others have begun the windows after its own.
OVER_THE_HOUR = [
    ("reserve", 1, 0, tokens(1, 1)),
    ("wait", 5 * 3_600),
    ("check", 1, 0),
    ("settle", 0, tokens(1, 1)),
]


@settings(
    max_examples=40,
    deadline=None,
    # Shrinking takes minutes on a real database; what failed is kept and replayed by itself.
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=step_lists)
@example(steps=OVER_THE_HOUR)
def test_counters_agree_after_any_steps(database_url: str, steps: list[tuple[Any, ...]]) -> None:
    """Whatever happens in whatever order, counters made anew hold what the running ones held."""
    engine = open_database(database_url)
    walk = Walk(Ledger(engine, clock=(clock := Clock(NOON))), clock)
    walk.ledger.prepare()
    with engine.begin() as connection:
        for table in ledger_metadata.sorted_tables:
            if table.name != "usage_limits_migrations":
                connection.execute(table.delete())
    for name, *arguments in steps:
        walk.step(name, *arguments)
    running = walk.decisions()
    with engine.begin() as connection:
        connection.execute(counters_table.delete())
        closed = select(func.count()).where(records_table.c.counted < 0)
        assert connection.execute(closed).scalar() == 0
    assert walk.decisions() == running
    engine.dispose()
