"""`limits grant` and `revoke`: more for a user or a pool, until the window of now ends."""

from __future__ import annotations

import argparse
import getpass
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial

from rich.table import Table
from sqlalchemy import Connection

from helpers.errors import ConfigurationError
from helpers.ledger.grants import (
    Change,
    NewGrant,
    add_grants,
    find_grant,
    grant_end,
    revoke_grant,
)
from helpers.ledger.transactions import TransactionRunner
from helpers.limits.policy import AppliedLimit
from helpers.openwebui.messages import (
    Reader,
    format_amount,
    format_duration,
    format_instant,
)
from helpers.openwebui.valves import read_timezone
from scripts.limits.console import cell, make_table, output_console
from scripts.limits.repair import ledger_of
from scripts.limits.target import Target, find_target, read_limit
from scripts.limits.words import describe_limit, quantity_text

GRANT_WHERE = "AMOUNT"


def grant(arguments: argparse.Namespace) -> int:
    """Add to one limit and print it before and after."""
    now = datetime.now(UTC)
    wanted = read_limit(arguments.amount, GRANT_WHERE)
    if wanted.amount == 0:
        raise ConfigurationError(GRANT_WHERE, f'"{arguments.amount}" adds nothing', "more than 0")
    target = find_target(arguments, now)
    limits = target.matching(wanted, GRANT_WHERE, arguments.amount)
    grants = [NewGrant(applied, wanted.amount, grant_end(applied, now)) for applied in limits]
    change = write_grants(target, limits, arguments, now, lambda _: grants)
    quantity = quantity_text(wanted)
    ids = ", ".join(new.id for new in change.grants)
    sentence = f"Granted {quantity} to {target.name}. To take it back: limits revoke {ids}"
    print_change(target, change, now, sentence)
    return 0


def write_grants(
    target: Target,
    limits: Sequence[AppliedLimit],
    arguments: argparse.Namespace,
    now: datetime,
    make: Callable[[Connection], Sequence[NewGrant]],
) -> Change:
    """Add rows in one transaction, which no reply of the user or pool is settled during.

    Args:
        target: Whose limits they are.
        limits: The limits that change.
        arguments: With `by` and `reason`.
        now: When they are granted.
        make: What to add, given the ledger as it is then.
    """
    by, reason = arguments.by or login_name(), arguments.reason

    work = partial(add_grants, limits=limits, make=make, by=by, reason=reason, now=now)
    scopes = {applied.scope for applied in limits}
    with target.ledger.writable() as engine:
        return TransactionRunner(engine, target.ledger.schema).run(work, scopes)


def revoke(arguments: argparse.Namespace) -> int:
    """Take a grant or a reset back, by the id that `show` and `grant` print."""
    now = datetime.now(UTC)
    _, ledger = ledger_of(arguments)
    key: str = arguments.id
    with ledger.snapshot() as connection:
        row = find_grant(connection, key, now)
    if row is None:
        raise ConfigurationError(
            "ID",
            f"no grant {key!r} that still holds",
            "the id of one that `limits show` lists and that wasn't revoked yet",
        )
    by = arguments.by or login_name()
    work = partial(revoke_grant, key=key, by=by, reason=arguments.reason, now=now)
    with ledger.writable() as engine:
        TransactionRunner(engine, ledger.schema).run(work, [row.scope])
    print(f"Revoked {row.kind} {key} of {row.scope}.")
    return 0


def login_name() -> str:
    """Who is at the keyboard, as far as the machine knows."""
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):  # a container's user may have no name
        return "unknown"


def print_change(
    target: Target, change: Change, now: datetime, sentence: str, *, rolling_until: str = ""
) -> None:
    """What became of the limits."""
    console = output_console()
    console.print(change_table(target, change, now, rolling_until))
    console.print(cell(sentence))


def change_table(target: Target, change: Change, now: datetime, rolling_until: str) -> Table:
    """Limits with what they allowed and left before, and do now.

    Args:
        target: Whose they are.
        change: Before and after.
        now: When it was made.
        rolling_until: When it ends for rolling limits, in words; "" for a period from now.
    """
    zone = read_timezone(target.valves.timezone)
    numbers = ["Used", "Allowed", "Remaining"]
    table = make_table(target.name, "Limit", "Policy", *numbers, "Until", numbers=numbers)
    for old, new in zip(change.before, change.after, strict=True):
        applied, limit = new.applied, new.applied.limit
        end = datetime.fromtimestamp(grant_end(applied, now), UTC)
        until = f"{format_instant(end, now, Reader(zone))}, in {format_duration(end - now)}"
        pairs = ((old.amount, new.amount), (old.remaining, new.remaining))
        table.add_row(
            cell(describe_limit(limit)),
            cell(f"pool {applied.policy}" if applied.is_pool else applied.policy),
            format_amount(limit, new.used),
            *(
                format_amount(limit, b)
                if a == b
                else f"{format_amount(limit, a)} → {format_amount(limit, b)}"
                for a, b in pairs
            ),
            (limit.period.rolling is not None and rolling_until) or until,
        )
    return table
