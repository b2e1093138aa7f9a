"""One transaction with its locks and its retries, alike on SQLite and PostgreSQL."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from sqlalchemy import Connection, Dialect, Engine
from sqlalchemy.dialects.postgresql import insert as insert_on_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_on_sqlite
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    NotSupportedError,
    ProgrammingError,
    SQLAlchemyError,
    StatementError,
)
from sqlalchemy.pool import QueuePool

from helpers.errors import LedgerBusyError, LedgerDataError, LedgerError, UsageLimitsError

# How long a request may wait for its turn. Then it is refused where others have written meanwhile,
# and else `on_ledger_error` decides.
TRANSACTION_PATIENCE_SECONDS = 10.0
RETRY_PAUSE_SECONDS = 0.05
# With that much time left a connection to SQLite waits as long as it was told when it was opened.
UNHURRIED_MS = 6_000
# Serialization failure, deadlock, lock timeout; and a prepared statement that isn't there or is
# already, behind a pooler that doesn't look after them. Another try is all it takes.
RETRIED_SQLSTATES = frozenset({"40001", "40P01", "55P03", "26000", "42P05"})
# PostgreSQL's classes of errors in a statement or its values, whatever class of Python's the
# driver gives them: unsupported, cardinality, data, integrity, syntax or access, too large.
REFUSED_SQLSTATE_CLASSES = frozenset({"0A", "21", "22", "23", "42", "54"})
# SQLite's. SQLITE_ERROR is what it says of a table or a column that isn't there.
REFUSED_SQLITE_ERRORS = ("SQLITE_ERROR", "SQLITE_TOOBIG", "SQLITE_MISMATCH", "SQLITE_RANGE")
REFUSED_ERRORS = (DataError, IntegrityError, NotSupportedError, ProgrammingError)
# A connection that is refused has no such code.
NO_CONNECTION_LEFT = ("too many clients", "too many connections", "connection slots are reserved")
NEW_POOL_COUNTER_LOCK = "new pool counter"
POOL_LOCKS = 64

WorkResult = TypeVar("WorkResult")


def insert_on(dialect: Dialect) -> Any:
    """The insert of a database's own dialect, which can say what becomes of a row that is there."""
    return insert_on_sqlite if dialect.name == "sqlite" else insert_on_postgresql


def new_deadline() -> float:
    """When whoever comes now has waited long enough, by `time.monotonic`."""
    return time.monotonic() + TRANSACTION_PATIENCE_SECONDS


def advisory_key(name: str) -> int:
    """A PostgreSQL advisory lock's 64-bit key for one of our names."""
    digest = hashlib.blake2b(f"usage_limits {name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def lock_key(name: str) -> int:
    """The key of a scope's lock.

    PostgreSQL's table of locks has room for some thousands in all, and a user may be in as many
    pools: those share a few keys.
    """
    if name.startswith(("group:", "everyone")):
        return advisory_key(f"pool {advisory_key(name) % POOL_LOCKS}")
    return advisory_key(name)


def select_locks(exclusive: Iterable[str], shared: Iterable[str] = (), **settings: str) -> str:
    """A PostgreSQL statement that waits for locks until the transaction's end.

    Exclusive ones are taken in the order of their keys, so that two transactions never wait for
    each other.

    Args:
        exclusive: Locks that nobody else may hold.
        shared: Locks that others may share.
        settings: What is set for the transaction before that.
    """
    calls = [f"set_config('{name}', '{value}', true)" for name, value in settings.items()]
    calls += [
        f"pg_advisory_xact_lock({key})" for key in sorted({lock_key(name) for name in exclusive})
    ]
    calls += [f"pg_advisory_xact_lock_shared({lock_key(name)})" for name in shared]
    return f"SELECT {', '.join(calls)}"


def take_advisory_locks(connection: Connection, exclusive: Iterable[str]) -> None:
    """Wait for more locks in a transaction; SQLite needs none."""
    if connection.dialect.name != "sqlite":
        connection.exec_driver_sql(select_locks(exclusive))


def begin_on_sqlite(connection: Connection, milliseconds: int) -> None:
    """Take the one writer's place, and wait no longer for it than that."""
    if milliseconds >= UNHURRIED_MS:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        return
    # The connection has a patience of its own, and keeps it.
    own = connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one()
    connection.exec_driver_sql(f"PRAGMA busy_timeout = {min(own, milliseconds)}")
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    connection.exec_driver_sql(f"PRAGMA busy_timeout = {own}")


def begin_transaction(
    connection: Connection,
    exclusive: Iterable[str],
    shared: Iterable[str],
    lasting: bool,
    deadline: float,
) -> None:
    """Begin a transaction under these locks, in one round trip."""
    milliseconds = max(1, int((deadline - time.monotonic()) * 1_000))
    if connection.dialect.name == "sqlite":
        # Takes the one writer's place at once: what is read in it can't be stale later.
        begin_on_sqlite(connection, milliseconds)
        return
    locks = select_locks(
        exclusive,
        shared,
        lock_timeout=f"{milliseconds}ms",
        # A bitmap scan would go through every reply that has ended since the last vacuum: it
        # leaves no note, as an index scan does, that they are gone.
        enable_bitmapscan="off",
        **({} if lasting else {"synchronous_commit": "off"}),
    )
    connection.exec_driver_sql(f"BEGIN; {locks}")


def sqlstate_of(error: DBAPIError) -> str:
    """PostgreSQL's code of an error; "" where it has none."""
    return getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None) or ""


def is_refused(error: DBAPIError) -> bool:
    """Whether the database was reached and refuses the statement or its values."""
    if error.connection_invalidated or is_worth_retrying(error):
        return False
    name = getattr(error.orig, "sqlite_errorname", "")
    return (
        isinstance(error, REFUSED_ERRORS)
        or sqlstate_of(error)[:2] in REFUSED_SQLSTATE_CLASSES
        or name in REFUSED_SQLITE_ERRORS
    )


def is_worth_retrying(error: DBAPIError) -> bool:
    """Whether the same transaction may succeed a moment later."""
    if error.connection_invalidated:
        return True
    state = sqlstate_of(error)
    # SQLITE_BUSY and SQLITE_LOCKED, by their names since Python 3.11.
    name = getattr(error.orig, "sqlite_errorname", "")
    return state in RETRIED_SQLSTATES or name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


class TransactionRunner:
    """Runs functions in transactions of one engine.

    A function may be run again after a conflict or a broken connection, so it must change
    nothing but the database, and find its own earlier commit harmless.

    Args:
        engine: On SQLite or PostgreSQL.
        schema: The PostgreSQL schema of the tables; None for the connection's own.
        keep_connections: Whether to hold on to connections until `rest` is called. Pools often
            ask the server first whether a connection lives, or open a new one each time.
    """

    def __init__(
        self, engine: Engine, schema: str | None = None, keep_connections: bool = False
    ) -> None:
        # Transactions say BEGIN themselves: the driver would spend a round trip on it.
        options: dict[str, Any] = {"isolation_level": "AUTOCOMMIT", "no_parameters": True}
        if schema:  # translating takes a sixth of a reply's time
            options["schema_translate_map"] = {None: schema}
        self._engine = engine.execution_options(**options)
        self._engine.hide_parameters = True  # in errors: they may be anyone's
        self._keeps = keep_connections
        self._idle: list[Connection] = []
        self._path = engine.url.database if engine.dialect.name == "sqlite" else None
        # When it could last be written to, by `time.monotonic`.
        self.wrote_at = float("-inf")
        self._generation = 0  # of connections, new wherever the database isn't where they lead
        # How many statements were refused: the tables may not be those that were prepared.
        self.refused = 0

    def find_file(self) -> tuple[int, int] | None:
        """Which file SQLite's is now; None if there is none.

        A connection goes on writing to one that was deleted or replaced, where nobody finds it.
        """
        if self._path is None:
            return None
        try:
            found = os.stat(self._path)
        except (OSError, ValueError):
            return None
        return found.st_dev, found.st_ino

    def reconnect(self) -> None:
        """Give up all connections that aren't in use: the database isn't where they lead."""
        self._generation += 1
        self.rest()
        self._engine.dispose()

    def run(
        self,
        work: Callable[[Connection], WorkResult],
        exclusive: Iterable[str] = (),
        shared: Iterable[str] = (),
        lasting: bool = True,
        deadline: float | None = None,
    ) -> WorkResult:
        """Run `work` in a transaction under the named locks, and commit.

        Args:
            work: What to do.
            exclusive: Locks that nobody else may hold.
            shared: Locks that others may share.
            lasting: Whether to wait until PostgreSQL has it on disk. If not, it may be gone when
                the database server itself crashes within a second.
            deadline: Until when it may take, by `time.monotonic`; None for
                `TRANSACTION_PATIENCE_SECONDS` from now.

        Raises:
            LedgerBusyError: It got no turn, while others wrote.
            LedgerError: The database can't be reached, or is still busy at the deadline.
            LedgerDataError: It refuses a statement or a value.
        """
        exclusive, shared = tuple(exclusive), tuple(shared)
        until = new_deadline() if deadline is None else deadline

        def transaction(connection: Connection) -> WorkResult:
            begin_transaction(connection, exclusive, shared, lasting, until)
            result = work(connection)
            connection.exec_driver_sql("COMMIT")
            self.wrote_at = time.monotonic()
            return result

        return self.read(transaction, until)

    def read(
        self, work: Callable[[Connection], WorkResult], deadline: float | None = None
    ) -> WorkResult:
        """Run `work`, every statement for itself; raises as `run` does."""
        if deadline is None:
            deadline = new_deadline()
        elif time.monotonic() > deadline:
            raise self.no_turn("no turn in time", deadline)
        pause = RETRY_PAUSE_SECONDS
        while True:
            try:
                return self._run_once(work)
            except DBAPIError as error:
                if error.connection_invalidated:
                    self.rest()  # the others won't be any better
                if is_refused(error):
                    self.refused += 1
                    name = type(error.orig).__name__
                    raise LedgerDataError(f"{name} in the ledger") from error
                again = is_worth_retrying(error) or self._is_crowded_out(error)
                if not again or error.connection_invalidated:
                    self.wrote_at = float("-inf")  # what waits behind it is no crowd
                if not again or time.monotonic() + pause > deadline:
                    # The driver's text may quote parameters; its class says enough.
                    raise self.no_turn(type(error.orig).__name__, deadline) from error
            except UsageLimitsError:
                raise
            except (ArithmeticError, StatementError, ValueError) as error:
                # What a driver couldn't even send: a lone surrogate, a NUL, 10**400.
                raise LedgerDataError(f"{type(error).__name__} in the ledger") from error
            except SQLAlchemyError as error:
                raise LedgerError(f"{type(error).__name__} in the ledger") from error
            time.sleep(pause)
            pause *= 2

    def no_turn(self, why: str, deadline: float) -> LedgerError:
        """The error of who gets no turn: it is no outage if others have written meanwhile."""
        if self.wrote_at > deadline - TRANSACTION_PATIENCE_SECONDS:
            return LedgerBusyError(f"{why} in the ledger, which others wrote to meanwhile")
        return LedgerError(f"{why} in the ledger")

    def rest(self) -> None:
        """Give all connections back that aren't in use."""
        while (connection := self._take_idle()) is not None:
            connection.close()

    def _take_idle(self) -> Connection | None:
        try:
            return self._idle.pop()
        except IndexError:  # asking first would leave room for another thread in between
            return None

    def _run_once(self, work: Callable[[Connection], WorkResult]) -> WorkResult:
        generation = self._generation
        connection = self._take_idle() or self._engine.connect()
        try:
            result = work(connection)
        except BaseException:
            connection.invalidate()  # and with it the transaction
            connection.close()
            raise
        if generation != self._generation:
            connection.invalidate()
        if self._keeps and generation == self._generation and self._may_keep_one():
            self._idle.append(connection)
        else:
            connection.close()
        return result

    def _is_crowded_out(self, error: DBAPIError) -> bool:
        """Whether the server is there and only has no connection left: another thread has one.

        A crowd that takes up all of its connections must not look like an outage.
        """
        if error.statement is not None:
            return False
        pool, told = self._engine.pool, str(error.orig)
        connected = isinstance(pool, QueuePool) and pool.checkedout() > 0
        return connected or any(words in told for words in NO_CONNECTION_LEFT)

    def _may_keep_one(self) -> bool:
        """Whether others who use the pool find a connection all the same."""
        pool = self._engine.pool
        return not isinstance(pool, QueuePool) or pool.checkedout() < pool.size()
