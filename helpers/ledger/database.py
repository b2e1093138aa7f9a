"""An engine for a database URL as Open WebUI spells it."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool

from helpers.errors import ConfigurationError

SQLITE_BUSY_TIMEOUT_MS = 5_000


def parse_database_url(text: str, where: str) -> URL:
    """Read a URL of SQLite or PostgreSQL, whatever driver it names.

    Raises:
        ConfigurationError: It isn't one. The error doesn't repeat it: it may hold a password.
    """
    allowed = "sqlite:////path/to/webui.db or postgresql://user:password@host:5432/database"
    try:
        url = make_url(text.strip())
    except (ArgumentError, ValueError):
        raise ConfigurationError(where, "not a database URL", allowed) from None
    if "@" in (url.host or ""):
        # The driver would take the end of the password for the host, and print it in its errors.
        raise ConfigurationError(where, 'an "@" in the password', 'it written as "%40"')
    backend = url.get_backend_name()
    if backend == "sqlite":
        return url.set(drivername="sqlite")
    if backend in ("postgres", "postgresql"):
        driver = "psycopg" if find_spec("psycopg") else "psycopg2"
        return url.set(drivername=f"postgresql+{driver}")
    raise ConfigurationError(where, f"a database of type {backend!r}", allowed)


def set_sqlite_pragmas(connection: Any, _record: object) -> None:
    """What Open WebUI sets on its own connections, so that both can write to one file."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute(f"PRAGMA busy_timeout={SQLITE_BUSY_TIMEOUT_MS}")
    cursor.close()


def open_database(text: str, where: str = "database URL", pooled: bool = True) -> Engine:
    """An engine of its own for a database URL; nothing is connected yet.

    Args:
        text: As Open WebUI spells it.
        where: What an error calls it.
        pooled: As for `open_postgresql`.

    Raises:
        ConfigurationError: It isn't a URL of SQLite or PostgreSQL.
    """
    url = parse_database_url(text, where)
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"check_same_thread": False})
        event.listen(engine, "connect", set_sqlite_pragmas)
        return engine
    return open_postgresql(url, pooled)


def open_postgresql(url: URL, pooled: bool = True) -> Engine:
    """An engine of its own for PostgreSQL; nothing is connected yet.

    Args:
        url: With its driver.
        pooled: Whether connections may be kept. Those who turn that off have a pooler which gives
            every transaction another connection to the server: what one has prepared, as psycopg 3
            does with a statement's sixth execution, the next one doesn't know.
    """
    pool: dict[str, Any] = {"pool_pre_ping": True} if pooled else {"poolclass": NullPool}
    if url.get_driver_name() != "psycopg":
        return create_engine(url, **pool)
    unprepared = {} if pooled else {"prepare_threshold": None}
    engine = create_engine(url, connect_args=unprepared, **pool)
    event.listen(engine, "connect", send_wide_integers)
    event.listen(engine, "do_execute_no_params", execute_unprepared)
    return engine


def send_wide_integers(connection: Any, _record: object) -> None:
    """Let psycopg 3 send all integers alike: it would prepare a statement anew for each size."""
    dumper = import_module("psycopg.types.numeric").Int8Dumper
    connection.adapters.register_dumper(int, dumper)


def execute_unprepared(cursor: Any, statement: str, _context: object) -> bool:
    """Let psycopg 3 prepare nothing that begins or ends a transaction.

    A COMMIT by a name that stands for something else in a pooler's session would be lost.
    """
    cursor.execute(statement, prepare=False)
    return True
