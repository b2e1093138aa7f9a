"""Where limits stand: what is used, what replies still running hold, and what was granted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from sqlalchemy import Connection, select

from helpers.ledger.counters import (
    CountingLimits,
    counted_window,
    counter_id,
    is_outdated,
    make_counters,
    move_rolling_counters,
    read_scope,
    scope_condition,
)
from helpers.ledger.snapshots import Snapshot, snapshot_of_limits
from helpers.ledger.tables import records_table
from helpers.limits.decisions import Amounts, LimitState
from helpers.limits.policy import AppliedLimit

# How many records are read to say when a limit admits requests again: a few mostly do.
RECORDS_LOOKED_AT = (16, 100)
# What is remembered, and in how many scopes and windows it is looked up at once.
MOST_RESETS, MOST_LOOK_UPS = 10_000, 200
ResetKey = tuple[str, str]  # a counter and a measure
# How much was over a rolling limit, and the second at which that was found to have left it.
KnownResets = dict[ResetKey, tuple[int, int | None]]


def read_limit_states(
    connection: Connection,
    limits: Sequence[AppliedLimit],
    at: int,
    except_id: str,
    snapshot: Snapshot | None = None,
) -> tuple[LimitState, ...]:
    """Where each limit stands.

    A rolling one admits requests again after a period at the latest: `with_resets` knows better.

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
        measure = applied.limit.measure
        if applied.limit.is_moment:
            states.append(moment_state(applied, snapshot, at))
            continue
        states.append(
            LimitState(
                applied,
                used=counters[key].used.of(measure),
                reserved=snapshot.reserved_of(applied, at).of(measure),
                reset_at=latest_reset(applied, at),
                granted=counters[key].granted_to(applied),
            )
        )
    return tuple(states)


def moment_state(applied: AppliedLimit, snapshot: Snapshot, at: int) -> LimitState:
    """Where a limit about one moment stands: what is running; of single requests, nothing yet."""
    running = snapshot.reserved_of(applied, at).requests if applied.limit.is_at_once else 0
    return LimitState(applied, used=0, reserved=running, reset_at=applied.window.end)


def latest_reset(applied: AppliedLimit, at: int) -> datetime:
    """When the window of a limit ends; of a rolling one, when all that is in it has left it."""
    rolling = applied.limit.period.rolling
    return applied.window.end if rolling is None else datetime.fromtimestamp(at, UTC) + rolling


def with_resets(
    connection: Connection,
    states: Sequence[LimitState],
    at: int,
    known: KnownResets | None = None,
) -> tuple[LimitState, ...]:
    """The same states; a rolling limit that is reached says when it admits requests again.

    That is when the records that went over have left the window, the oldest first. Where those
    are more than are looked at, what the state says already is an upper bound. No lock is needed:
    what is settled meanwhile changes by little when that is.

    Whoever is refused asks again and again: it is read anew only once something has changed since
    it was written into `known`.
    """
    known = {} if known is None else known
    reached: dict[ResetKey, LimitState] = {}
    asked: dict[tuple[str, int], dict[ResetKey, LimitState]] = {}
    for state in states:
        applied = state.applied
        if applied.limit.period.rolling is None or not state.exceeded or not state.amount:
            continue
        key: ResetKey = (counter_id(applied), applied.limit.measure)
        reached[key] = state
        excess, opens = known.get(key, (0, None))
        if excess != excess_of(state) or (opens is not None and opens <= at):
            window = (read_scope(applied), counted_window(applied, at)[0])
            asked.setdefault(window, {})[key] = state
    for (read_from, start), some in list(asked.items())[:MOST_LOOK_UPS]:
        if len(known) >= MOST_RESETS:
            known.clear()
        left = read_leaving(connection, read_from, start, some)
        period = at - start + 1
        for key, state in some.items():
            known[key] = excess_of(state), left[key] + period if key in left else None
    opening = {
        state.applied: opens
        for key, state in reached.items()
        if (opens := known.get(key, (0, None))[1]) is not None
    }
    return tuple(
        replace(state, reset_at=datetime.fromtimestamp(opening[state.applied], UTC))
        if state.applied in opening
        else state
        for state in states
    )


def excess_of(state: LimitState) -> int:
    """How much has to leave a limit's window before it admits requests."""
    return state.taken - state.amount + 1


def read_leaving(
    connection: Connection, read_from: str, start: int, states: Mapping[ResetKey, LimitState]
) -> dict[ResetKey, int]:
    """The second of the record with which enough leaves each limit, of those where few decide.

    Everyone's are read for pools, once for all of one window: looking for their own could take
    long where others have more.
    """
    columns = records_table.c
    oldest = (
        select(
            columns.group_ids,
            columns.model_names,
            columns.source,
            columns.created_at,
            columns.counted,
            columns.weighted_input_tokens,
            columns.weighted_output_tokens,
            columns.cost_micros * columns.counted,
        )
        .where(scope_condition(read_from), columns.created_at >= start)
        .order_by(columns.created_at)
    )
    counting = CountingLimits(read_from, {key: state.applied for key, state in states.items()})
    found: dict[ResetKey, int] = {}
    for most in RECORDS_LOOKED_AT:
        left = {key: excess_of(state) for key, state in states.items() if key not in found}
        for groups, names, source, created_at, *sums in connection.execute(oldest.limit(most)):
            amounts = Amounts(*sums)
            for key in counting.find(groups, names, source):
                if key in left:
                    left[key] -= amounts.of(states[key].applied.limit.measure)
                    if left[key] <= 0:
                        found[key] = int(created_at)
                        del left[key]
        if not left:
            break
    return found
