"""`limits sweep` and `limits rebuild`: put the ledger right after a crash or a doubt."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.progress import Progress
from rich.table import Table
from sqlalchemy import Connection, func, select

from helpers.ledger.ledger import Ledger
from helpers.ledger.rollups import drop_rollups
from helpers.ledger.tables import IS_OPEN, counters_table, records_table
from helpers.ledger.transactions import NEW_POOL_COUNTER_LOCK, TransactionRunner
from helpers.limits.decisions import Amounts
from scripts.limits.console import cell, make_table, output_console, progress_bar, spinner
from scripts.limits.database import Database, find_database, require_ledger
from scripts.limits.function import find_ledger
from scripts.limits.host import read_emails, read_group_names
from scripts.limits.state import recount, stored_amounts
from scripts.limits.words import counted


@dataclass(frozen=True, slots=True)
class Recount:
    """A counter, and what the records say instead."""

    counter: Any
    stored: Amounts
    counted: Amounts


def ledger_of(arguments: argparse.Namespace) -> tuple[Database, Database]:
    """Open WebUI's database and the ledger's, which exists."""
    database = find_database(arguments)
    with database.snapshot() as connection:
        ledger = find_ledger(connection, database, arguments.function)
    with ledger.snapshot() as connection:
        require_ledger(connection, ledger)
    return database, ledger


def sweep(arguments: argparse.Namespace) -> int:
    """Settle what stopped servers left, now."""
    _, ledger = ledger_of(arguments)
    settled = 0
    with ledger.writable() as engine, spinner("Settling"):
        writer = Ledger(engine, ledger.schema)
        # One call settles a hundred at most, each in a transaction of its own.
        while found := writer.sweep():
            settled += found
    with ledger.snapshot() as connection:
        running = connection.scalar(select(func.count()).select_from(records_table).where(IS_OPEN))
    print(f"Settled {counted(settled, 'reply', 'replies')} that a stopped server left.")
    if running:
        print(f"{counted(running, 'reply is', 'replies are')} still running.")
    return 0


def rebuild(arguments: argparse.Namespace) -> int:
    """Drop all counters, to be made anew from the records when they are needed next."""
    database, ledger = ledger_of(arguments)
    with ledger.snapshot() as connection, progress_bar() as progress:
        recounts = list(recount_open(connection, progress))
    wrong = [item for item in recounts if item.stored != item.counted]
    with database.snapshot() as connection:
        names = scope_names(connection, (item.counter.scope for item in wrong))
    dropped = drop_counters(ledger)
    if wrong:
        output_console().print(recounts_table(wrong, names))
    print(
        f"{counted(len(recounts), 'counter', 'counters')} of windows still open compared with "
        f"the records, {len(wrong)} changed."
    )
    print(
        f"{counted(dropped, 'counter', 'counters')} dropped; "
        "each is made anew from the records by the next request that needs it."
    )
    return 0


def recount_open(connection: Connection, progress: Progress) -> Iterable[Recount]:
    """Every counter of a window that hasn't ended, with what the records say.

    Both are of the same moment, since a reply and its counters are committed together.
    """
    now = int(datetime.now(UTC).timestamp())
    counters = connection.execute(
        select(counters_table)
        .where(counters_table.c.window_end > now)
        .order_by(counters_table.c.id)
    ).all()
    for counter in progress.track(counters, description="Comparing counters with records"):
        yield Recount(counter, stored_amounts(counter), recount(connection, counter))


def drop_counters(ledger: Database) -> int:
    """Delete all counters in one transaction, and the rollups; returns how many counters."""

    def work(connection: Connection) -> int:
        dropped = connection.execute(counters_table.delete()).rowcount
        drop_rollups(connection)
        return dropped

    with ledger.writable() as engine:
        # Whoever settles holds this lock too: none adds to a counter that is being dropped.
        # Whoever makes a counter anew sums under the locks that its records are settled under.
        return TransactionRunner(engine, ledger.schema).run(work, (NEW_POOL_COUNTER_LOCK,))


def scope_names(connection: Connection, scopes: Iterable[str]) -> dict[str, str]:
    """Scopes as people call them: by a user's address, by a group's name."""
    wanted = set(scopes)
    emails = read_emails(connection, (scope.removeprefix("user:") for scope in wanted))
    groups = read_group_names(connection)
    return {f"user:{key}": email for key, email in emails.items()} | {
        f"group:{key}": f"group {name}" for key, name in groups.items()
    }


def recounts_table(wrong: list[Recount], names: dict[str, str]) -> Table:
    """The counters that were wrong, each measure as it was and as it is."""
    numbers = ["Requests", "Input tokens", "Output tokens", "$ in millionths"]
    table = make_table("Counters that changed", "Of", "Models", "Window", *numbers, numbers=numbers)
    for item in wrong:
        counter, old, new = item.counter, item.stored, item.counted
        pairs = (
            (old.requests, new.requests),
            (old.input_tokens, new.input_tokens),
            (old.output_tokens, new.output_tokens),
            (old.cost_micros, new.cost_micros),
        )
        table.add_row(
            cell(names.get(counter.scope, counter.scope)),
            cell(counter.model_glob),
            f"from {datetime.fromtimestamp(counter.window_start, UTC):%Y-%m-%d %H:%M} UTC",
            *(f"{a:,}" if a == b else f"{a:,} → {b:,}" for a, b in pairs),
        )
    return table
