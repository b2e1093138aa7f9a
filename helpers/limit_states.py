"""Where limits stand: what is used, what replies still running hold, and what was granted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, select, tuple_

from helpers.counters import (
    counted_window,
    counter_id,
    glob_matches,
    make_counter,
    move_rolling_counter,
    scope_condition,
)
from helpers.decisions import Amounts, LimitState
from helpers.policy import AppliedLimit
from helpers.snapshots import Snapshot, snapshot_of_limits
from helpers.tables import records_table

BATCH = 500


def read_limit_states(
    connection: Connection,
    limits: Sequence[AppliedLimit],
    at: int,
    except_id: str,
    snapshot: Snapshot | None = None,
) -> tuple[LimitState, ...]:
    """Where each limit stands.

    Args:
        connection: Under the locks of all scopes concerned, so that no record is settled in
            between.
        limits: The limits to look at.
        at: Now, in seconds since 1970.
        except_id: A reservation to leave out: the caller's own.
        snapshot: What the same transaction has read already.
    """
    if not limits:
        return ()
    keys = [counter_id(applied) for applied in limits]
    if snapshot is None:
        snapshot = snapshot_of_limits(connection, keys, limits, at, except_id)
    counters = snapshot.counters
    missing = {
        key: applied for key, applied in zip(keys, limits, strict=True) if key not in counters
    }
    if missing:
        for key, applied in missing.items():
            make_counter(connection, key, applied, at)
        counters |= snapshot_of_limits(connection, keys, limits, at, except_id).counters
    states = []
    for key, applied in zip(keys, limits, strict=True):
        rolling, measure = applied.limit.period.rolling, applied.limit.measure
        if rolling is not None:
            start, _ = counted_window(applied, at)
            move_rolling_counter(connection, counters[key], start, int(rolling.total_seconds()))
        state = LimitState(
            applied,
            used=counters[key].used.of(measure),
            reserved=snapshot.reserved_of(applied, at).of(measure),
            reset_at=applied.window.end,
            granted=counters[key].granted_to(applied),
        )
        if rolling is not None:
            reset_at = find_rolling_reset(connection, state, at)
            state = replace(state, reset_at=datetime.fromtimestamp(reset_at, UTC))
        states.append(state)
    return tuple(states)


def find_rolling_reset(connection: Connection, state: LimitState, at: int) -> int:
    """The second at which a rolling limit admits requests again; `at` plus the period below it.

    That is when the records that went over have left the window, the oldest first.
    """
    applied = state.applied
    start, _ = counted_window(applied, at)
    period_seconds = at - start + 1
    excess = state.taken - state.amount + 1
    if excess <= 0 or state.amount == 0:
        return at + period_seconds
    for row in read_oldest_first(connection, applied.scope, start):
        if glob_matches(applied.limit.model_glob, row.model_names):
            counted = Amounts(
                row.counted, row.weighted_input_tokens, row.weighted_output_tokens, row.cost_micros
            )
            excess -= counted.of(applied.limit.measure)
            if excess <= 0:
                return int(row.created_at) + period_seconds
    return at + period_seconds


def read_oldest_first(connection: Connection, scope: str, start: int) -> Iterator[Row[Any]]:
    """A scope's records since `start` that count, in batches: the first few are mostly enough."""
    order = tuple_(records_table.c.created_at, records_table.c.id)
    after: tuple[int, str] = (start, "")
    while True:
        rows = connection.execute(
            select(
                records_table.c.id,
                records_table.c.model_names,
                records_table.c.created_at,
                records_table.c.counted,
                records_table.c.weighted_input_tokens,
                records_table.c.weighted_output_tokens,
                records_table.c.cost_micros,
            )
            .where(records_table.c.counted > 0, scope_condition(scope), order > after)
            .order_by(records_table.c.created_at, records_table.c.id)
            .limit(BATCH)
        ).all()
        yield from rows
        if len(rows) < BATCH:
            return
        after = (rows[-1].created_at, rows[-1].id)
