"""The ledger's own tables and their numbered migrations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Index,
    Integer,
    MetaData,
    Select,
    Table,
    Text,
    func,
    literal_column,
    select,
)

# Own MetaData: Open WebUI's migrations never see these tables, and ours never see its own.
ledger_metadata = MetaData()

# Instants are UTC, in whole seconds since 1970, as in Open WebUI's own tables.
records_table = Table(
    "usage_limits_records",
    ledger_metadata,
    Column("id", Text, primary_key=True),
    Column("user_id", Text, nullable=False),
    Column("user_email", Text, nullable=False),
    # "|id|id|": the groups at that time, since leaving one must not change what was recorded.
    Column("group_ids", Text, nullable=False),
    Column("model_id", Text, nullable=False),
    # "|chosen|base|": every name that a limit's model glob may match.
    Column("model_names", Text, nullable=False),
    # page, temporary, channel, automation, api, task, direct, backfill
    Column("source", Text, nullable=False),
    Column("chat_id", Text, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("policy", Text, nullable=False),
    Column("state", Text, nullable=False),  # reserved, then settled or released
    Column("created_at", BigInteger, nullable=False),
    Column("settled_at", BigInteger),
    # While its server lives it pushes this ahead; past it the reservation is an orphan.
    Column("lease_until", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cached_input_tokens", BigInteger, nullable=False),
    Column("cost_micros", BigInteger, nullable=False),
    Column("estimated", Boolean, nullable=False),
    # What counts toward limits: 0 for a model of weight 0, else 1 and the weighted tokens.
    Column("counted", Integer, nullable=False),
    Column("weighted_input_tokens", BigInteger, nullable=False),
    Column("weighted_output_tokens", BigInteger, nullable=False),
    # Who holds it: a worker's id, "" for one of the first release.
    Column("worker", Text, nullable=False, server_default=""),
    # Why it was released, or settled by an estimate; "" for a reply that was settled as it ended.
    Column("end_reason", Text, nullable=False, server_default=""),
)
# Written out, since SQLite uses a partial index only where the text of its condition stands.
IS_OPEN = records_table.c.state == literal_column("'reserved'")
Index("usage_limits_records_user", records_table.c.user_id, records_table.c.created_at)
Index("usage_limits_records_created", records_table.c.created_at)
Index(
    "usage_limits_records_open",
    records_table.c.user_id,
    # Always the same here, but SQLite takes the index of which it can use more columns. Else it
    # might take the one above and go through all that the user has ever used.
    records_table.c.state,
    sqlite_where=IS_OPEN,
    postgresql_where=IS_OPEN,
    # PostgreSQL can mark each entry of a reply that has ended, and not only hundreds at once.
    postgresql_with={"deduplicate_items": "off"},
)

# Sums of settled records, so that a check reads a few rows however large the ledger is.
# They can be rebuilt from the records at any time.
counters_table = Table(
    "usage_limits_counters",
    ledger_metadata,
    Column("id", Text, primary_key=True),
    Column("scope", Text, nullable=False),  # user:ID, group:ID, everyone
    Column("model_glob", Text, nullable=False),
    # Records with window_start <= created_at < window_end are summed. Rolling windows
    # move their start along and have no end.
    Column("window_start", BigInteger, nullable=False),
    Column("window_end", BigInteger, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cost_micros", BigInteger, nullable=False),
    Column("source", Text, nullable=False, server_default=""),  # "" for all
)
Index("usage_limits_counters_scope", counters_table.c.scope, counters_table.c.window_end)

# Which warnings and alerts were given, so that each is given once per window.
notices_table = Table(
    "usage_limits_notices",
    ledger_metadata,
    Column("id", Text, primary_key=True),
    Column("expires_at", BigInteger, nullable=False),
)

# What an administrator adds to a user's or a pool's limit until its window ends: rows with who,
# when and why, never edits of what was used. A reset is a grant of what had been used.
grants_table = Table(
    "usage_limits_grants",
    ledger_metadata,
    Column("id", Text, primary_key=True),
    Column("scope", Text, nullable=False),
    Column("measure", Text, nullable=False),
    Column("model_glob", Text, nullable=False),
    Column("period", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),  # grant or reset
    Column("granted_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("source", Text, nullable=False, server_default=""),  # as the counter's
)
Index("usage_limits_grants_scope", grants_table.c.scope, grants_table.c.expires_at)

# Whom the names in the policies have meant: a policy still holds after a rename.
names_table = Table(
    "usage_limits_names",
    ledger_metadata,
    Column("kind", Text, primary_key=True),  # group or user
    Column("name", Text, primary_key=True),  # as the policies have it, in lower case
    Column("id", Text, primary_key=True),
    Column("last_seen", Text, nullable=False),  # the name or address that it had last
    Column("created_at", BigInteger, nullable=False),
)

# Workers that hold reservations. They count up as long as they live, so that others see it
# without comparing clocks.
workers_table = Table(
    "usage_limits_workers",
    ledger_metadata,
    Column("id", Text, primary_key=True),
    Column("beats", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
)

# The last policies texts that were saved on the page, to go back to.
policies_table = Table(
    "usage_limits_policies",
    ledger_metadata,
    Column("id", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),  # in the order in which they were saved
    Column("policies", Text, nullable=False),
    Column("saved_by", Text, nullable=False),
    Column("saved_at", BigInteger, nullable=False),
)

# What records add up to in stretches of time that are over, for reports alone. They can be made
# anew from the records at any time.
rollups_table = Table(
    "usage_limits_rollups",
    ledger_metadata,
    # How long a stretch is, and when it begins.
    Column("seconds", BigInteger, nullable=False),
    Column("start", BigInteger, nullable=False),
    Column("user_id", Text, nullable=False),  # as group_ids "" where all are summed
    Column("group_ids", Text, nullable=False),
    Column("model_id", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cost_micros", BigInteger, nullable=False),
    Column("estimated_requests", BigInteger, nullable=False),
)
Index("usage_limits_rollups_start", rollups_table.c.seconds, rollups_table.c.start)

migrations_table = Table(
    "usage_limits_migrations",
    ledger_metadata,
    Column("number", Integer, primary_key=True),
    Column("applied_at", BigInteger, nullable=False),
)


def m001_first_tables(connection: Connection) -> None:
    """The first released schema; on a new database also what came later, found there by then."""
    ledger_metadata.create_all(connection)


def m002_names(connection: Connection) -> None:
    """Whom the policies have meant, since 0.2.0; a ledger made anew has the table already."""
    names_table.create(connection, checkfirst=True)


def ledger_schema(connection: Connection) -> str | None:
    """The PostgreSQL schema of the tables; None for the connection's own."""
    schemas = connection.get_execution_options().get("schema_translate_map") or {}
    found: str | None = schemas.get(None)
    return found


def add_text_columns(connection: Connection, table: Table, *names: str) -> None:
    """Add columns of text, "" in all rows, as far as they aren't there."""
    schema, quote = ledger_schema(connection), connection.dialect.identifier_preparer.quote
    nothing: Select[Any] = select(literal_column("*")).select_from(table).limit(0)
    present = set(connection.execute(nothing).keys())
    place = f"{quote(schema)}.{quote(table.name)}" if schema else quote(table.name)
    for name in names:
        if name not in present:
            connection.exec_driver_sql(
                f"ALTER TABLE {place} ADD COLUMN {quote(name)} TEXT NOT NULL DEFAULT ''"
            )


def m003_workers(connection: Connection) -> None:
    """Which worker holds a reservation, and why one was released."""
    workers_table.create(connection, checkfirst=True)
    add_text_columns(connection, records_table, "worker", "end_reason")


def m004_sources(connection: Connection) -> None:
    """Counters and grants of limits on one source of requests."""
    add_text_columns(connection, counters_table, "source")
    add_text_columns(connection, grants_table, "source")


def m005_policy_versions(connection: Connection) -> None:
    """The policies texts that were saved on the page."""
    policies_table.create(connection, checkfirst=True)


def m006_rollups(connection: Connection) -> None:
    """Sums for reports; where the records were dropped and made anew, what is left is of others."""
    rollups_table.create(connection, checkfirst=True)
    connection.execute(rollups_table.delete())


# Append only: a released migration is never changed.
MIGRATIONS: tuple[Callable[[Connection], None], ...] = (
    m001_first_tables,
    m002_names,
    m003_workers,
    m004_sources,
    m005_policy_versions,
    m006_rollups,
)


def migrate_ledger(connection: Connection, now: int) -> int:
    """Bring the tables up to date and return how many migrations that took.

    The caller holds the lock that keeps other workers out until the commit.
    """
    schema = ledger_schema(connection)
    applied = 0
    if connection.dialect.has_table(connection, migrations_table.name, schema=schema):
        newest = connection.execute(select(func.max(migrations_table.c.number))).scalar()
        applied = newest or 0
    for number, migration in enumerate(MIGRATIONS[applied:], start=applied + 1):
        migration(connection)
        connection.execute(migrations_table.insert().values(number=number, applied_at=now))
    return len(MIGRATIONS) - applied
