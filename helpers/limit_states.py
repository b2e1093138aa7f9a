"""Where limits stand: what is used, what replies still running hold, and what was granted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, select

from helpers.counters import (
    counted_window,
    counter_id,
    glob_matches,
    in_scope,
    make_counters,
    move_rolling_counter,
    scope_condition,
)
from helpers.decisions import Amounts, LimitState
from helpers.policy import EVERYONE, AppliedLimit
from helpers.snapshots import Snapshot, snapshot_of_limits
from helpers.tables import records_table

# How many records a refusal reads to say when the limit admits requests again: everyone waits.
RECORDS_LOOKED_AT = 500


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
        make_counters(connection, missing, at)
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

    That is when the records that went over have left the window, the oldest first. Where those
    are more than are looked at, the window's whole length is an upper bound.
    """
    applied = state.applied
    start, _ = counted_window(applied, at)
    period_seconds = at - start + 1
    excess = state.taken - state.amount + 1
    if excess <= 0 or state.amount == 0:
        return at + period_seconds
    rows = read_oldest(connection, applied.scope, start)
    for row in rows:
        if in_scope(applied.scope, row.user_id, row.group_ids) and glob_matches(
            applied.limit.model_glob, row.model_names
        ):
            counted = Amounts(
                row.counted,
                row.weighted_input_tokens,
                row.weighted_output_tokens,
                row.cost_micros * row.counted,
            )
            excess -= counted.of(applied.limit.measure)
            if excess <= 0:
                return int(row.created_at) + period_seconds
    return at + period_seconds


def read_oldest(connection: Connection, scope: str, start: int) -> Sequence[Row[Any]]:
    """The first records since `start` that may belong to a scope, and only so many.

    Everyone's are read for a pool: looking for its own could take long where others have more.
    """
    own = scope_condition(scope if scope.startswith("user:") else EVERYONE)
    return connection.execute(
        select(
            records_table.c.user_id,
            records_table.c.group_ids,
            records_table.c.model_names,
            records_table.c.created_at,
            records_table.c.counted,
            records_table.c.weighted_input_tokens,
            records_table.c.weighted_output_tokens,
            records_table.c.cost_micros,
        )
        .where(own, records_table.c.created_at >= start)
        .order_by(records_table.c.created_at)
        .limit(RECORDS_LOOKED_AT)
    ).all()
