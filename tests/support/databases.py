"""Real databases for the ledger's tests: SQLite files and a PostgreSQL from PyPI."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.postgresql import new_postgresql_database, postgresql_server


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """A PostgreSQL server: `TEST_DATABASE_URL`, or one started for these tests."""
    with postgresql_server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A new, empty database of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'ledger.db'}"
        return
    with new_postgresql_database(request.getfixturevalue("postgresql_url")) as url:
        yield url
