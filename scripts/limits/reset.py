"""`limits reset`: as if nothing had been used yet, by grants of what has been."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from datetime import UTC, datetime

from sqlalchemy import Connection, func, select

from helpers.errors import ConfigurationError
from helpers.ledger.counters import counted_window, glob_matches, scope_condition
from helpers.ledger.tables import grants_table, records_table
from helpers.limits.decisions import Amounts, LimitState
from helpers.limits.limit import parse_limit
from helpers.limits.policy import AppliedLimit
from scripts.limits.grant import NewGrant, print_change, window_end, write_grants
from scripts.limits.state import grant_key, read_states
from scripts.limits.target import Target, find_target
from scripts.limits.words import counted

# A reset of a rolling limit is a few rows that run out one after another, as the use does.
ROLLING_PARTS = 60


def reset(arguments: argparse.Namespace) -> int:
    """Grant what was used, of every limit or of those that are named; print before and after."""
    now = datetime.now(UTC)
    target = find_target(arguments, now)
    limits = chosen_limits(target, arguments.limit)

    def make(connection: Connection) -> list[NewGrant]:
        return [
            new
            for state in read_states(connection, limits, now)
            for new in missing_resets(connection, state, int(now.timestamp()), now)
        ]

    change = write_grants(target, limits, arguments, now, make)
    changed = sum(
        old.amount != new.amount for old, new in zip(change.before, change.after, strict=True)
    )
    done = f"Reset {changed} of {counted(len(limits), 'limit', 'limits')} of {target.name}"
    print_change(
        target,
        change,
        now,
        f"{done}." if changed else f"{done}: nothing was used.",
        rolling_until="that use grows old",
    )
    return 0


def chosen_limits(target: Target, texts: list[str]) -> tuple[AppliedLimit, ...]:
    """The limits that the texts name; all without any.

    Raises:
        ConfigurationError: There is none of that kind.
    """
    if not target.adding:
        raise ConfigurationError(
            "USER", f"{target.name} has no limit", "a user or pool with limits"
        )
    named = [
        applied
        for text in texts
        for applied in target.matching(parse_limit(text, "LIMIT"), "LIMIT", text)
    ]
    return tuple(dict.fromkeys(named)) or target.adding


def missing_resets(
    connection: Connection, state: LimitState, second: int, now: datetime
) -> Iterator[NewGrant]:
    """The grants that make up for what was used and that no earlier reset has made up for."""
    applied = state.applied
    scope, measure, model_glob, period, source = grant_key(applied)
    earlier = connection.scalar(
        select(func.coalesce(func.sum(grants_table.c.amount), 0)).where(
            grants_table.c.scope == scope,
            grants_table.c.measure == measure,
            grants_table.c.model_glob == model_glob,
            grants_table.c.period == period,
            grants_table.c.source == source,
            grants_table.c.kind == "reset",
            grants_table.c.expires_at > second,
        )
    )
    amount = state.used - int(earlier or 0)
    if amount <= 0:
        return
    if applied.limit.period.rolling is None:
        yield NewGrant(applied, amount, window_end(applied, now), "reset")
        return
    for expires_at, part in rolling_parts(connection, applied, amount, second).items():
        yield NewGrant(applied, part, expires_at, "reset")


def rolling_parts(
    connection: Connection, applied: AppliedLimit, amount: int, second: int
) -> dict[int, int]:
    """The newest use of a rolling limit up to `amount`, by when it leaves the window.

    A single grant of all of it would last a period from now, and so would add to the limit
    after the use that it makes up for is forgotten. Times are rounded up to a few instants.
    """
    start, _ = counted_window(applied, second)
    length = second - start + 1
    step = max(1, length // ROLLING_PARTS)
    columns = records_table.c
    rows = connection.execute(
        select(
            columns.created_at,
            columns.model_names,
            columns.counted,
            columns.weighted_input_tokens,
            columns.weighted_output_tokens,
            columns.cost_micros,
        )
        .where(
            columns.state == "settled",
            columns.counted > 0,
            columns.created_at >= start,
            scope_condition(applied.scope, applied.limit.source),
        )
        .order_by(columns.created_at.desc())
    )
    parts: dict[int, int] = {}
    for created_at, model_names, *amounts in rows:
        if glob_matches(applied.limit.model_glob, model_names):
            part = min(amount, Amounts(*amounts).of(applied.limit.measure))
            expires_at = -(-(created_at + length) // step) * step
            parts[expires_at] = parts.get(expires_at, 0) + part
            amount -= part
        if amount <= 0:
            break
    return {expires_at: part for expires_at, part in parts.items() if part}
