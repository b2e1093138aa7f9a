"""One transaction with its locks and its retries, alike on SQLite and PostgreSQL."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from helpers.errors import LedgerError

# How long a request may wait for its turn before `on_ledger_error` decides.
TRANSACTION_PATIENCE_SECONDS = 10.0
RETRY_PAUSE_SECONDS = 0.05
# Serialization failure, deadlock, lock timeout: another try is all it takes.
RETRIED_SQLSTATES = frozenset({"40001", "40P01", "55P03"})
NEW_POOL_COUNTER_LOCK = "new pool counter"

WorkResult = TypeVar("WorkResult")


def advisory_key(name: str) -> int:
    """A PostgreSQL advisory lock's 64-bit key for one of our names."""
    digest = hashlib.blake2b(f"usage_limits {name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def take_advisory_locks(
    connection: Connection, exclusive: Iterable[str], shared: Iterable[str] = ()
) -> None:
    """Wait for locks until the transaction's end, in one round trip; SQLite needs none.

    PostgreSQL gives up after `TRANSACTION_PATIENCE_SECONDS`. Exclusive names are taken in sorted
    order, so that two transactions never wait for each other.
    """
    if connection.dialect.name == "sqlite":
        return
    patience = f"{int(TRANSACTION_PATIENCE_SECONDS * 1000)}ms"
    calls = [f"set_config('lock_timeout', '{patience}', true)"]
    calls += [f"pg_advisory_xact_lock({advisory_key(name)})" for name in sorted(set(exclusive))]
    calls += [f"pg_advisory_xact_lock_shared({advisory_key(name)})" for name in shared]
    connection.exec_driver_sql(f"SELECT {', '.join(calls)}")


def is_worth_retrying(error: DBAPIError) -> bool:
    """Whether the same transaction may succeed a moment later."""
    if error.connection_invalidated:
        return True
    state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
    # SQLITE_BUSY and SQLITE_LOCKED, by their names since Python 3.11.
    name = getattr(error.orig, "sqlite_errorname", "")
    return state in RETRIED_SQLSTATES or name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


class TransactionRunner:
    """Runs functions in transactions of one engine.

    A function may be run again after a conflict or a broken connection, so it must change
    nothing but the database, and find its own earlier commit harmless.
    """

    def __init__(self, engine: Engine, schema: str | None = None) -> None:
        # Translating takes a sixth of a reply's time, so only where there is a schema.
        self._engine = (
            engine.execution_options(schema_translate_map={None: schema}) if schema else engine
        )

    def run(
        self,
        work: Callable[[Connection], WorkResult],
        exclusive: Iterable[str] = (),
        shared: Iterable[str] = (),
    ) -> WorkResult:
        """Run `work` under the named locks and commit.

        Raises:
            LedgerError: The database can't be reached, read or written, or is still busy
                after `TRANSACTION_PATIENCE_SECONDS`.
        """
        exclusive, shared = tuple(exclusive), tuple(shared)
        deadline = time.monotonic() + TRANSACTION_PATIENCE_SECONDS
        pause = RETRY_PAUSE_SECONDS
        while True:
            try:
                return self._run_once(work, exclusive, shared)
            except DBAPIError as error:
                if not is_worth_retrying(error) or time.monotonic() + pause > deadline:
                    # The driver's text may quote parameters; its class says enough.
                    raise LedgerError(f"{type(error.orig).__name__} in the ledger") from error
            except SQLAlchemyError as error:
                raise LedgerError(f"{type(error).__name__} in the ledger") from error
            time.sleep(pause)
            pause *= 2

    def _run_once(
        self,
        work: Callable[[Connection], WorkResult],
        exclusive: tuple[str, ...],
        shared: tuple[str, ...],
    ) -> WorkResult:
        with self._engine.connect() as connection:
            if connection.dialect.name == "sqlite":
                # The driver would begin at the first write only, and a read before it
                # could be stale by then.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                take_advisory_locks(connection, exclusive, shared)
            result = work(connection)
            connection.commit()
            return result
