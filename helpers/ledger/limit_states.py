"""Where limits stand: what is used, what replies still running hold, and what was granted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Connection, select

from helpers.ledger.counters import (
    counted_window,
    counter_id,
    glob_matches,
    in_scope,
    is_outdated,
    make_counters,
    move_rolling_counters,
    read_scope,
    scope_condition,
)
from helpers.ledger.snapshots import Snapshot, snapshot_of_limits
from helpers.ledger.tables import records_table
from helpers.limits.decisions import LimitState
from helpers.limits.limit import Measure
from helpers.limits.policy import AppliedLimit

# How many records a refusal reads to say when the limit admits requests again: a few mostly do,
# and as everyone waits there is an end to it.
RECORDS_LOOKED_AT = (16, 250)
MOST_RESETS = 10_000
# By counter and measure: how much was over a rolling limit, and the second at which that was found
# to have left it.
KnownResets = dict[tuple[str, str], tuple[int, int | None]]
COUNTED: dict[Measure, ColumnElement[int]] = {
    "tokens": records_table.c.weighted_input_tokens + records_table.c.weighted_output_tokens,
    "input_tokens": records_table.c.weighted_input_tokens,
    "output_tokens": records_table.c.weighted_output_tokens,
    "requests": records_table.c.counted,
    "cost": records_table.c.cost_micros * records_table.c.counted,
}


def read_limit_states(
    connection: Connection,
    limits: Sequence[AppliedLimit],
    at: int,
    except_id: str,
    snapshot: Snapshot | None = None,
    known_resets: KnownResets | None = None,
) -> tuple[LimitState, ...]:
    """Where each limit stands.

    Args:
        connection: Under the locks of all scopes concerned, so that no record is settled in
            between.
        limits: The limits to look at.
        at: Now, in seconds since 1970.
        except_id: A reservation to leave out: the caller's own.
        snapshot: What the same transaction has read already.
        known_resets: When rolling limits open again, as it was found; for `find_rolling_reset`.
    """
    if not limits:
        return ()
    keys = [counter_id(applied) for applied in limits]
    counted = {
        key: applied
        for key, applied in zip(keys, limits, strict=True)
        if not applied.limit.is_moment
    }
    if snapshot is None or not snapshot.counters.keys() >= counted.keys():
        # A reply's own counters aren't those of today if it has begun before.
        snapshot = snapshot_of_limits(connection, keys, limits, at, except_id)
    counters = snapshot.counters
    wanted = {
        key: applied
        for key, applied in counted.items()
        if key not in counters or is_outdated(counters[key], applied, at)
    }
    if wanted:
        make_counters(connection, wanted, at)
        counters |= snapshot_of_limits(connection, keys, limits, at, except_id).counters
    move_rolling_counters(connection, counters, counted, at)
    states = []
    for key, applied in zip(keys, limits, strict=True):
        rolling, measure = applied.limit.period.rolling, applied.limit.measure
        if applied.limit.is_moment:
            states.append(moment_state(applied, snapshot, at))
            continue
        state = LimitState(
            applied,
            used=counters[key].used.of(measure),
            reserved=snapshot.reserved_of(applied, at).of(measure),
            reset_at=applied.window.end,
            granted=counters[key].granted_to(applied),
        )
        if rolling is not None:
            reset_at = find_rolling_reset(connection, state, at, known_resets)
            state = replace(state, reset_at=datetime.fromtimestamp(reset_at, UTC))
        states.append(state)
    return tuple(states)


def moment_state(applied: AppliedLimit, snapshot: Snapshot, at: int) -> LimitState:
    """Where a limit about one moment stands: what is running; of single requests, nothing yet."""
    running = snapshot.reserved_of(applied, at).requests if applied.limit.is_at_once else 0
    return LimitState(applied, used=0, reserved=running, reset_at=applied.window.end)


def find_rolling_reset(
    connection: Connection, state: LimitState, at: int, known: KnownResets | None = None
) -> int:
    """The second at which a rolling limit admits requests again; `at` plus the period below it.

    That is when the records that went over have left the window, the oldest first. Where those
    are more than are looked at, the window's whole length is an upper bound.

    Whoever is refused asks again and again: it is read anew only once something has changed since
    it was written into `known`.
    """
    applied = state.applied
    start, _ = counted_window(applied, at)
    period_seconds = at - start + 1
    excess = state.taken - state.amount + 1
    if excess <= 0 or state.amount == 0:
        return at + period_seconds
    known = {} if known is None else known
    key = (counter_id(applied), applied.limit.measure)
    last_excess, reset_at = known.get(key, (0, None))
    if last_excess != excess or (reset_at is not None and reset_at <= at):
        reset_at = read_rolling_reset(connection, applied, excess, start, period_seconds)
        if len(known) >= MOST_RESETS:
            known.clear()
        known[key] = (excess, reset_at)
    return at + period_seconds if reset_at is None else reset_at


def read_rolling_reset(
    connection: Connection, applied: AppliedLimit, excess: int, start: int, period_seconds: int
) -> int | None:
    """When as much as that has left a rolling window; None where too many records decide.

    Everyone's are read for a pool: looking for its own could take long where others have more.
    """
    limit, scope = applied.limit, applied.scope
    columns = records_table.c
    oldest = (
        select(
            columns.created_at,
            columns.user_id,
            columns.group_ids,
            columns.model_names,
            columns.source,
            COUNTED[limit.measure],
        )
        .where(scope_condition(read_scope(applied)), columns.created_at >= start)
        .order_by(columns.created_at)
    )
    fitting: dict[str, bool] = {}  # by the names of a model: mostly the same few
    for most in RECORDS_LOOKED_AT:
        left = excess
        for created_at, user_id, group_ids, names, source, amount in connection.execute(
            oldest.limit(most)
        ):
            if names not in fitting:
                fitting[names] = glob_matches(limit.model_glob, names)
            if (
                fitting[names]
                and limit.source in ("", source)
                and in_scope(scope, user_id, group_ids)
            ):
                left -= amount
                if left <= 0:
                    return int(created_at) + period_seconds
    return None
