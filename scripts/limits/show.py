"""`limits show`: where each limit of a user stands."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from typing import Any

from rich.table import Table
from sqlalchemy import Connection, Row, select

from helpers.ledger.tables import grants_table
from helpers.limits.decisions import LimitState
from helpers.limits.policy import AppliedLimit, Subject
from helpers.openwebui.admission import is_exempt
from helpers.openwebui.messages import (
    MICROS,
    Reader,
    format_amount,
    format_instant,
)
from helpers.openwebui.valves import AdminValves, read_timezone
from scripts.limits.check import read_text
from scripts.limits.console import cell, make_table, output_console
from scripts.limits.database import find_database, require_ledger
from scripts.limits.function import find_ledger, read_filter, require_filter
from scripts.limits.host import find_user
from scripts.limits.names import recall_subjects
from scripts.limits.state import grant_key, read_states, subject_limits
from scripts.limits.words import describe_limit, describe_reset


def show(arguments: argparse.Namespace) -> int:
    """Print every limit that a user is under with what is used, reserved and left."""
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
    if arguments.format == "json":
        rows = [state_row(subject, state) for state in states]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return 0
    console = output_console()
    zone = read_timezone(valves.timezone)
    if states:
        console.print(states_table(subject, states, valves, now, zone))
    else:
        console.print(cell(f"No limit counts for {subject.email}."))
    if granted:
        console.print(granted_table(granted, now, zone))
    if is_exempt(valves, subject):
        console.print("Exempt: an administrator is never refused (valve exempt_admins).")
    return 0


def states_table(
    subject: Subject,
    states: tuple[LimitState, ...],
    valves: AdminValves,
    now: datetime,
    zone: tzinfo,
) -> Table:
    """The limits of a user, those that are reached in red, those near it in yellow."""
    amounts = ["Used", "Reserved", "Remaining", "%"]
    table = make_table(
        f"{subject.email or subject.user_id}",
        "Limit",
        "Policy",
        *amounts,
        "Resets",
        numbers=amounts,
    )
    for state in states:
        applied = state.applied
        granted = f" + {format_amount(applied.limit, state.granted)} granted"
        table.add_row(
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
        "Granted", "Limit", "Kind", "Amount", "By", "Why", "Made", "Until", numbers=["Amount"]
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
        )
    return table


def state_style(state: LimitState, soft_limit_percent: int) -> str:
    """The colour of a limit's row."""
    if state.exceeded:
        return "red"
    return "yellow" if state.crossed_threshold(soft_limit_percent) is not None else ""


def state_row(subject: Subject, state: LimitState) -> dict[str, Any]:
    """One limit as JSON has it; money in dollars."""
    applied = state.applied
    money = applied.limit.measure == "cost"

    def amount(value: int) -> float:
        return value / MICROS if money else value

    return {
        "user_id": subject.user_id,
        "user_email": subject.email,
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
