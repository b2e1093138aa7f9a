"""`limits show`: where the limits of a user stand, or those of all."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, tzinfo
from typing import Any

from rich.table import Table
from sqlalchemy import Connection, Row, select

from helpers.errors import ConfigurationError
from helpers.ledger.many_limits import grant_key, read_states
from helpers.ledger.tables import grants_table
from helpers.limits.decisions import LimitState
from helpers.limits.policy import AppliedLimit, Subject
from helpers.openwebui.messages import (
    MICROS,
    Reader,
    format_amount,
    format_instant,
)
from helpers.openwebui.valves import AdminValves, is_exempt, read_timezone
from scripts.limits.check import read_text
from scripts.limits.console import cell, make_table, output_console, spinner
from scripts.limits.database import find_database, require_ledger
from scripts.limits.function import find_ledger, read_filter, require_filter
from scripts.limits.host import (
    find_user,
    groups_table,
    members_table,
    require_tables,
    users_table,
)
from scripts.limits.names import recall_subjects
from scripts.limits.standings import Standing, read_standings
from scripts.limits.state import subject_limits
from scripts.limits.words import describe_limit, describe_reset


def show(arguments: argparse.Namespace) -> int:
    """Print every limit that a user is under, or those of all, with what is used and left."""
    if (arguments.user is not None) + arguments.all + arguments.near != 1:
        raise ConfigurationError(
            "show", "not one of USER, --all and --near", "show USER, show --all or show --near"
        )
    return show_one(arguments) if arguments.user is not None else show_many(arguments)


def show_one(arguments: argparse.Namespace) -> int:
    """The limits of one user, with what was granted."""
    database = find_database(arguments)
    policies = arguments.policies and read_text(arguments.policies, "--policies")
    with database.snapshot() as connection:
        subject = find_user(connection, database, arguments.user)
        valves = require_filter(
            read_filter(connection, database, arguments.function, policies), database
        ).valves
        ledger = find_ledger(connection, database, arguments.function)
        (subject,) = recall_subjects([subject], valves.policy_set, connection, database, ledger)
    now = datetime.now(UTC)
    with ledger.snapshot() as connection:
        require_ledger(connection, ledger)
        states = read_states(connection, subject_limits(subject, valves, now), now)
        granted = list_grants(connection, [state.applied for state in states], now)
    standings = [Standing(subject, state) for state in states]
    if arguments.format == "json":
        print_json(standings)
        return 0
    console = output_console()
    zone = read_timezone(valves.timezone)
    name = subject.email or subject.user_id
    if states:
        console.print(states_table(name, standings, valves, now))
    else:
        console.print(cell(f"No limit counts for {name}."))
    if granted:
        console.print(granted_table(granted, now, zone))
    if is_exempt(valves, subject):
        console.print("Exempt: an administrator is never refused (valve exempt_admins).")
    return 0


def show_many(arguments: argparse.Namespace) -> int:
    """The limits of all users and pools, the most utilised first."""
    database = find_database(arguments)
    policies = arguments.policies and read_text(arguments.policies, "--policies")
    now = datetime.now(UTC)
    with ExitStack() as stack:
        host = stack.enter_context(database.snapshot())
        require_tables(host, database, users_table, groups_table, members_table)
        valves = require_filter(
            read_filter(host, database, arguments.function, policies), database
        ).valves
        ledger = find_ledger(host, database, arguments.function)
        connection = host if ledger is database else stack.enter_context(ledger.snapshot())
        require_ledger(connection, ledger)
        with spinner("Reading the ledger"):
            standings = read_standings(host, connection, valves, now, near=arguments.near)
    if arguments.format == "json":
        print_json(standings)
    elif standings:
        title = "Near or over a limit" if arguments.near else "All limits"
        output_console().print(states_table(title, standings, valves, now, whose=True))
    else:
        print("No limit has reached its warning." if arguments.near else "Nobody has a limit.")
    return 0


def print_json(standings: Sequence[Standing]) -> None:
    """Limits as a list of objects."""
    rows = [state_row(item.subject, item.state) for item in standings]
    print(json.dumps(rows, indent=2, ensure_ascii=False))


def states_table(
    title: str,
    standings: Sequence[Standing],
    valves: AdminValves,
    now: datetime,
    *,
    whose: bool = False,
) -> Table:
    """Limits, those that are reached in red, those near it in yellow.

    Args:
        title: What the table is called.
        standings: The limits.
        valves: What the filter is set to.
        now: The instant that they are of.
        whose: Whether there is a column for the user or the pool.
    """
    amounts = ["Used", "Reserved", "Remaining", "%"]
    first = ["Who"] if whose else []
    table = make_table(title, *first, "Limit", "Policy", *amounts, "Resets", numbers=amounts)
    zone = read_timezone(valves.timezone)
    for item in standings:
        state, applied = item.state, item.state.applied
        granted = f" + {format_amount(applied.limit, state.granted)} granted"
        table.add_row(
            *([cell(item.who)] if whose else []),
            cell(describe_limit(applied.limit) + (granted if state.granted else "")),
            cell(f"pool {applied.policy}" if applied.is_pool else applied.policy),
            *(
                format_amount(applied.limit, amount)
                for amount in (state.used, state.reserved, state.remaining)
            ),
            str(state.percent),
            describe_reset(applied.limit, state.reset_at, now, zone),
            style=state_style(state, valves.soft_limit_percent),
        )
    return table


def list_grants(
    connection: Connection, limits: Sequence[AppliedLimit], now: datetime
) -> list[tuple[AppliedLimit, Row[Any]]]:
    """What administrators have added to limits in the windows that are open, oldest first."""
    by_key = {grant_key(applied): applied for applied in limits}
    rows = connection.execute(
        select(grants_table)
        .where(
            grants_table.c.scope.in_(sorted({applied.scope for applied in limits})),
            grants_table.c.expires_at > int(now.timestamp()),
        )
        .order_by(grants_table.c.created_at, grants_table.c.expires_at)
    )
    keyed = [
        ((row.scope, row.measure, row.model_glob, row.period, row.source), row) for row in rows
    ]
    return [(by_key[key], row) for key, row in keyed if key in by_key]


def granted_table(
    granted: list[tuple[AppliedLimit, Row[Any]]], now: datetime, zone: tzinfo
) -> Table:
    """Who has added what, why and until when."""
    table = make_table(
        "Granted", "Limit", "Kind", "Amount", "By", "Why", "Made", "Until", "Id", numbers=["Amount"]
    )
    for applied, row in granted:
        end = datetime.fromtimestamp(row.expires_at, UTC)
        made = datetime.fromtimestamp(row.created_at, zone)
        table.add_row(
            cell(describe_limit(applied.limit)),
            row.kind,
            format_amount(applied.limit, row.amount),
            cell(row.granted_by),
            cell(row.reason),
            f"{made:%Y-%m-%d %H:%M}",
            format_instant(end, now, Reader(zone)),
            cell(row.id),
        )
    return table


def state_style(state: LimitState, soft_limit_percent: int) -> str:
    """The colour of a limit's row."""
    if state.exceeded:
        return "red"
    return "yellow" if state.crossed_threshold(soft_limit_percent) is not None else ""


def state_row(subject: Subject | None, state: LimitState) -> dict[str, Any]:
    """One limit as JSON has it; money in dollars, and nobody's where it is a pool's."""
    applied = state.applied
    money = applied.limit.measure == "cost"

    def amount(value: int) -> float:
        return value / MICROS if money else value

    return {
        "user_id": subject and subject.user_id,
        "user_email": subject and subject.email,
        "policy": applied.policy,
        "limit": str(applied.limit),
        "pool": applied.is_pool,
        "period": applied.limit.period.name,
        "model": applied.limit.model_glob,
        "source": applied.limit.source,
        "unit": "USD" if money else applied.limit.measure,
        "amount": amount(state.amount),
        "granted": amount(state.granted),
        "used": amount(state.used),
        "reserved": amount(state.reserved),
        "remaining": amount(state.remaining),
        "percent": state.percent,
        "reset_at": None if applied.limit.is_moment else state.reset_at.isoformat(),
    }
