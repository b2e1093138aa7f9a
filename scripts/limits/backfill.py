"""`limits backfill`: let the open windows start from what Open WebUI had recorded before."""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime

from rich.progress import Progress
from rich.table import Table
from sqlalchemy import Connection, select

from helpers.errors import ConfigurationError
from helpers.ledger.reports import Sums, read_instant
from helpers.ledger.tables import records_table
from helpers.limits.policies import Policy, Pool
from helpers.openwebui.messages import MICROS
from helpers.openwebui.valves import AdminValves, read_timezone
from scripts.limits.check import read_text
from scripts.limits.console import cell, make_table, output_console, progress_bar
from scripts.limits.database import Database, find_database, has_tables, require_ledger
from scripts.limits.function import (
    InstalledFilter,
    find_ledger,
    has_filtered_models,
    read_filter,
    read_model,
    require_filter,
)
from scripts.limits.history import (
    CLOCK_SKEW_SECONDS,
    PastReply,
    chats_table,
    messages_table,
    read_past_replies,
)
from scripts.limits.host import read_subjects, require_tables, users_table
from scripts.limits.past_records import PastRecord, make_past_record, write_past_records
from scripts.limits.words import counted

RECORDED = "in the ledger already"
UNFILTERED = "of models that the filter isn't on for"
UNKNOWN_USER = "of users whom Open WebUI doesn't have any more"
SINCE_EXAMPLE = '--since with a date such as "2026-03-01"'


def backfill(arguments: argparse.Namespace) -> int:
    """Write a settled record for every reply that Open WebUI saved before the filter saw any."""
    now = datetime.now(UTC)
    database = find_database(arguments)
    policies = arguments.policies and read_text(arguments.policies, "--policies")
    left_out: Counter[str] = Counter()
    with progress_bar() as progress:
        with database.snapshot() as connection:
            installed = require_filter(
                read_filter(connection, database, arguments.function, policies), database
            )
            since = first_second(arguments.since, installed.valves, now)
            ledger = find_ledger(connection, database, arguments.function)
            require_tables(connection, database, chats_table, messages_table, users_table)
            require_switched_on(connection, installed)
            past = list(
                read_past_replies(connection, since, int(now.timestamp()), left_out, progress)
            )
            records = as_records(connection, installed, past, left_out)
        # After the chats: a reply that the filter saw is in the ledger before it is saved.
        known = recorded_messages(ledger, since)
        missing = [record for record in records if record.reply.message_id not in known]
        left_out[RECORDED] += len(records) - len(missing)
        if not arguments.dry_run:
            missing = write(ledger, missing, now, left_out, progress)
    report(missing, since, installed.valves, left_out, arguments.dry_run)
    return 0


def first_second(text: str | None, valves: AdminValves, now: datetime) -> int:
    """From when on replies count: as the option says, else where the longest open window begins.

    Raises:
        ConfigurationError: The option is no date, or there is no limit and so no window.
    """
    given = read_instant(text, "--since", read_timezone(valves.timezone))
    if given is not None:
        return given
    policies = valves.policy_set
    tables: list[Policy | Pool] = [valves.default_policy, *policies.pools]
    for named in (policies.users, policies.groups, policies.roles):
        tables += named.values()
    rules = valves.calendar_rules
    starts = [
        limit.period.window(now, rules).start
        for table in tables
        for limit in table.limits or ()
        if not limit.is_moment
    ]
    if not starts:
        raise ConfigurationError("policies", "no limit, so no window is open", SINCE_EXAMPLE)
    return math.ceil(min(starts).timestamp())


def require_switched_on(connection: Connection, installed: InstalledFilter) -> None:
    """See that the filter is on for some model, since only those models' replies count.

    Raises:
        ConfigurationError: It isn't.
    """
    if not installed.everywhere and not has_filtered_models(connection, installed.id):
        raise ConfigurationError(
            f"function {installed.id}",
            "it isn't on for any model",
            "a filter that is on for all models, or for those whose replies are to count",
        )


def as_records(
    connection: Connection,
    installed: InstalledFilter,
    past: Iterable[PastReply],
    left_out: Counter[str],
) -> list[PastRecord]:
    """Replies with what they are charged for, by the policies, prices and groups of now."""
    past = list(past)
    subjects = {
        subject.user_id: subject
        for subject in read_subjects(connection, {reply.user_id for reply in past})
    }
    models = {key: read_model(connection, key) for key in {reply.model_id for reply in past}}
    records = []
    for reply in past:
        subject, model = subjects.get(reply.user_id), models[reply.model_id]
        if subject is None:
            left_out[UNKNOWN_USER] += 1
        elif not installed.everywhere and installed.id not in model.filter_ids:
            left_out[UNFILTERED] += 1
        else:
            records.append(make_past_record(reply, subject, model.names, installed.valves))
    return records


def recorded_messages(ledger: Database, since: int) -> set[str]:
    """The messages whose replies are in the ledger, whatever became of them.

    Raises:
        ConfigurationError: The ledger is of another version.
    """
    with ledger.snapshot() as connection:
        if not has_tables(connection, records_table.name):
            return set()
        require_ledger(connection, ledger)
        found = connection.scalars(
            select(records_table.c.message_id).where(
                records_table.c.created_at >= since - CLOCK_SKEW_SECONDS,
                records_table.c.message_id != "",
            )
        )
        return set(found)


def write(
    ledger: Database,
    records: list[PastRecord],
    now: datetime,
    left_out: Counter[str],
    progress: Progress,
) -> list[PastRecord]:
    """Write records and return those that weren't there yet."""
    with ledger.writable() as engine:
        written = write_past_records(engine, ledger.schema, records, int(now.timestamp()), progress)
    left_out[RECORDED] += len(records) - len(written)
    return written


def report(
    records: list[PastRecord],
    since: int,
    valves: AdminValves,
    left_out: Counter[str],
    dry_run: bool,
) -> None:
    """Who had used how much, and what was left out."""
    console = output_console()
    sums: dict[str, Sums] = {}
    for record in records:
        name = record.subject.email or record.subject.user_id
        sums[name] = sums.get(name, Sums()) + record.sums
    if sums:
        console.print(users_table_of(sums))
    total = sum(sums.values(), Sums())
    start = datetime.fromtimestamp(since, read_timezone(valves.timezone))
    console.print(
        cell(
            f"{'Would record' if dry_run else 'Recorded'} "
            f"{counted(total.requests, 'reply', 'replies')} of "
            f"{counted(len(sums), 'user', 'users')} since {start:%Y-%m-%d %H:%M %Z}: "
            f"{counted(total.total_tokens, 'token', 'tokens')}."
        )
    )
    reasons = [f"{count:,} {reason}" for reason, count in sorted(left_out.items()) if count]
    if reasons:
        console.print(cell(f"Left out: {'; '.join(reasons)}."))
    if dry_run:
        console.print("Nothing was written (--dry-run).")


def users_table_of(sums: dict[str, Sums]) -> Table:
    """Each user's sums, the largest first."""
    numbers = ["Replies", "Input tokens", "Output tokens", "Cost"]
    table = make_table("Recorded by Open WebUI before", "User", *numbers, numbers=numbers)
    for name, part in sorted(sums.items(), key=lambda item: (-item[1].total_tokens, item[0])):
        table.add_row(
            cell(name),
            f"{part.requests:,}",
            f"{part.input_tokens:,}",
            f"{part.output_tokens:,}",
            f"${part.cost_micros / MICROS:,.2f}",
        )
    return table
