"""Where limits stand: what is used, what replies still running hold, and what was granted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, Row, select

from helpers.ledger.counters import (
    counted_window,
    counter_id,
    glob_matches,
    in_scope,
    make_counters,
    move_rolling_counter,
    scope_condition,
)
from helpers.ledger.snapshots import Snapshot, snapshot_of_limits
from helpers.ledger.tables import records_table
from helpers.limits.decisions import Amounts, LimitState
from helpers.limits.policy import EVERYONE, AppliedLimit

# How many records a refusal reads to say when the limit admits requests again: a few mostly do,
# and as everyone waits there is an end to it.
RECORDS_LOOKED_AT = (16, 250)
# The second at which a rolling limit was found to admit requests again, with how much was over it.
MOST_RESETS = 10_000
RESETS: WeakKeyDictionary[Engine, dict[tuple[str, str], tuple[int, int | None]]] = (
    WeakKeyDictionary()
)


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
    adding = {key for key, applied in zip(keys, limits, strict=True) if not applied.limit.is_moment}
    if snapshot is None or not snapshot.counters.keys() >= adding:
        # A reply's own counters aren't those of today if it has begun before.
        snapshot = snapshot_of_limits(connection, keys, limits, at, except_id)
    counters = snapshot.counters
    missing = {
        key: applied
        for key, applied in zip(keys, limits, strict=True)
        if key in adding - counters.keys()
    }
    if missing:
        make_counters(connection, missing, at)
        counters |= snapshot_of_limits(connection, keys, limits, at, except_id).counters
    states = []
    for key, applied in zip(keys, limits, strict=True):
        rolling, measure = applied.limit.period.rolling, applied.limit.measure
        if applied.limit.is_moment:
            states.append(moment_state(applied, snapshot, at))
            continue
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


def moment_state(applied: AppliedLimit, snapshot: Snapshot, at: int) -> LimitState:
    """Where a limit about one moment stands: what is running; of single requests, nothing yet."""
    running = snapshot.reserved_of(applied, at).requests if applied.limit.is_at_once else 0
    return LimitState(applied, used=0, reserved=running, reset_at=applied.window.end)


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
    # Whoever is refused asks again and again: it is read anew only once something has changed.
    found = RESETS.setdefault(connection.engine, {})
    key = (counter_id(applied), applied.limit.measure)
    last_excess, reset_at = found.get(key, (0, None))
    if last_excess != excess or (reset_at is not None and reset_at <= at):
        reset_at = read_rolling_reset(connection, applied, excess, start, period_seconds)
        if len(found) >= MOST_RESETS:
            found.clear()
        found[key] = (excess, reset_at)
    return at + period_seconds if reset_at is None else reset_at


def read_rolling_reset(
    connection: Connection, applied: AppliedLimit, excess: int, start: int, period_seconds: int
) -> int | None:
    """When as much as that has left a rolling window; None where too many records decide."""
    for most in RECORDS_LOOKED_AT:
        left = excess
        for row in read_oldest(connection, applied.scope, start, most):
            left -= counted_by(applied, row)
            if left <= 0:
                return int(row.created_at) + period_seconds
    return None


def counted_by(applied: AppliedLimit, row: Row[Any]) -> int:
    """How much of a limit a record takes."""
    if not in_scope(applied.scope, row.user_id, row.group_ids):
        return 0
    if not glob_matches(applied.limit.model_glob, row.model_names):
        return 0
    if applied.limit.source not in ("", row.source):
        return 0
    input_tokens, output_tokens = row.weighted_input_tokens, row.weighted_output_tokens
    cost = row.cost_micros * row.counted
    return Amounts(row.counted, input_tokens, output_tokens, cost).of(applied.limit.measure)


def read_oldest(connection: Connection, scope: str, start: int, most: int) -> Sequence[Row[Any]]:
    """The first records since `start` that may belong to a scope, and only so many.

    Everyone's are read for a pool: looking for its own could take long where others have more.
    """
    own = scope_condition(scope if scope.startswith("user:") else EVERYONE)
    return connection.execute(
        select(
            records_table.c.user_id,
            records_table.c.group_ids,
            records_table.c.model_names,
            records_table.c.source,
            records_table.c.created_at,
            records_table.c.counted,
            records_table.c.weighted_input_tokens,
            records_table.c.weighted_output_tokens,
            records_table.c.cost_micros,
        )
        .where(own, records_table.c.created_at >= start)
        .order_by(records_table.c.created_at)
        .limit(most)
    ).all()
