"""Databases for the benchmarks: SQLite files and a PostgreSQL from PyPI, filled in bulk."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, Engine

from helpers.ledger.ledger import Ledger
from scripts.postgresql import new_postgresql_database

YEAR_SECONDS = 365 * 86_400
OTHER_USERS = 1_000
OWN_USER = "ann"
OWN_RECORDS = 100_000
RECORD_COLUMNS = (
    "id, user_id, user_email, group_ids, model_id, model_names, source, chat_id, message_id, "
    "policy, state, created_at, settled_at, lease_until, input_tokens, output_tokens, "
    "cached_input_tokens, cost_micros, estimated, counted, weighted_input_tokens, "
    "weighted_output_tokens"
)
# The user's own records lie in this month, everybody else's in the year that ends now.
RECORD_VALUES = """
    {id}, {user_id}, {user_id} || '@example.org', '|', 'gpt-4o', '|gpt-4o|', 'page',
    {id}, 'm', 'user', 'settled', {created_at}, {created_at} + 20, {created_at} + 300,
    400, 300, 0, 0, {false}, 1, 400, 300
"""
INDEXES = (
    "usage_limits_records_user",
    "usage_limits_records_created",
    "usage_limits_records_open",
)


@contextmanager
def new_database(kind: str, server_url: str) -> Iterator[str]:
    """The URL of an empty database of a kind: ``SQLite`` or ``PostgreSQL``."""
    if kind == "PostgreSQL":
        with new_postgresql_database(server_url) as url:
            yield url
        return
    with tempfile.TemporaryDirectory(prefix="usage-limits-bench-") as folder:
        yield f"sqlite:///{Path(folder) / 'ledger.db'}"


def month_start(now: datetime) -> int:
    """When the calendar month began, UTC."""
    return int(now.replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp())


def own_share(size: int) -> int:
    """How many of `size` records are the user's own."""
    return min(OWN_RECORDS, size // 10)


def fill_ledger(engine: Engine, size: int) -> None:
    """Make the tables and put `size` settled records in, in the order in which time brings them."""
    Ledger(engine).prepare()
    now = datetime.now(UTC)
    end, start = int(now.timestamp()) - 60, month_start(now)
    step = size // own_share(size)
    values = {
        "user_id": f"CASE WHEN i % {step} = 0 THEN '{OWN_USER}' "
        f"ELSE 'user' || (i % {OTHER_USERS}) END",
        "created_at": f"CASE WHEN i % {step} = 0 "
        f"THEN {start} + i * {max(1, end - start)} / {size} "
        f"ELSE {end - YEAR_SECONDS} + i * {YEAR_SECONDS} / {size} END",
    }
    if engine.dialect.name == "sqlite":
        fill_sqlite(engine, size, values)
    else:
        fill_postgresql(engine, size, values)


def drop_indexes(connection: Connection, table: str) -> list[str]:
    """Drop the indexes, to be made anew after a fill: returns the statements that make them."""
    columns = "sql, name" if table == "sqlite_master" else "indexdef, indexname"
    query = f"SELECT {columns} FROM {table}"
    found = [row for row in connection.exec_driver_sql(query) if row[1] in INDEXES]
    for _, name in found:
        connection.exec_driver_sql(f"DROP INDEX {name}")
    return [str(definition) for definition, _ in found]


def fill_sqlite(engine: Engine, size: int, values: dict[str, str]) -> None:
    """All records in one statement, in memory as far as it goes."""
    record = RECORD_VALUES.format(id="lower(hex(randomblob(16)))", false="0", **values)
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA cache_size = -2000000")
        definitions = drop_indexes(connection, "sqlite_master")
        connection.exec_driver_sql(
            f"WITH RECURSIVE numbers(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM numbers "
            f"WHERE i + 1 < {size}) "
            f"INSERT INTO usage_limits_records ({RECORD_COLUMNS}) SELECT {record} FROM numbers"
        )
        for definition in definitions:
            connection.exec_driver_sql(definition)
        connection.commit()
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    engine.dispose()  # what follows has connections with the usual cache


def fill_postgresql(engine: Engine, size: int, values: dict[str, str]) -> None:
    """All records in one statement, and the statistics that autovacuum would have made."""
    record = RECORD_VALUES.format(id="md5(CAST(random() AS text) || i)", false="false", **values)
    with engine.begin() as connection:
        definitions = drop_indexes(connection, "pg_indexes")
        connection.exec_driver_sql(
            f"INSERT INTO usage_limits_records ({RECORD_COLUMNS}) SELECT {record} "
            f"FROM generate_series(CAST(0 AS bigint), {size - 1}) AS numbers(i)".replace("%", "%%")
        )
        for definition in definitions:
            connection.exec_driver_sql(definition)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE usage_limits_records")
        connection.exec_driver_sql("CHECKPOINT")
