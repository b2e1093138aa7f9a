"""Where limits stand, read without writing a counter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, func, select

from helpers.ledger.counters import (
    Counter,
    counted_window,
    counter_id,
    sum_settled,
)
from helpers.ledger.limit_states import find_rolling_reset, moment_state
from helpers.ledger.snapshots import snapshot_of_limits
from helpers.ledger.tables import grants_table
from helpers.limits.decisions import Amounts, LimitState
from helpers.limits.policy import AppliedLimit, Subject, choose_policy, scoped_limits
from helpers.openwebui.valves import AdminValves


def subject_limits(subject: Subject, valves: AdminValves, at: datetime) -> tuple[AppliedLimit, ...]:
    """Every limit and pool that a user is under, those on single models included."""
    policies = valves.policy_set
    policy = choose_policy(subject, policies, valves.default_policy, valves.multiple_groups)
    return scoped_limits(subject, policy, policies, at, valves.calendar_rules)


def read_states(
    connection: Connection, limits: Sequence[AppliedLimit], at: datetime
) -> tuple[LimitState, ...]:
    """Where limits stand at the instant `at`: by their counters, else by the records.

    The connection sees one moment of the database, so no locks are needed.
    """
    if not limits:
        return ()
    second = int(at.timestamp())
    keys = [counter_id(applied) for applied in limits]
    snapshot = snapshot_of_limits(connection, keys, limits, second, except_id="")
    granted = read_granted(connection, limits, second)
    states = []
    for key, applied in zip(keys, limits, strict=True):
        measure = applied.limit.measure
        if applied.limit.is_moment:
            states.append(moment_state(applied, snapshot, second))
            continue
        state = LimitState(
            applied,
            used=read_used(connection, applied, snapshot.counters.get(key), second).of(measure),
            reserved=snapshot.reserved_of(applied, second).of(measure),
            reset_at=applied.window.end,
            granted=granted.get(grant_key(applied), 0),
        )
        if applied.limit.period.rolling is not None:
            reset_at = find_rolling_reset(connection, state, second)
            state = replace(state, reset_at=datetime.fromtimestamp(reset_at, UTC))
        states.append(state)
    return tuple(states)


def grant_key(applied: AppliedLimit) -> tuple[str, str, str, str, str]:
    """The columns by which a grant names the limit that it adds to."""
    limit = applied.limit
    return applied.scope, limit.measure, limit.model_glob, limit.period.name, limit.source


def read_granted(
    connection: Connection, limits: Sequence[AppliedLimit], at: int
) -> dict[tuple[str, str, str, str, str], int]:
    """What administrators have added to these limits, by `grant_key`; no counter is needed."""
    grants = grants_table.c
    key = (grants.scope, grants.measure, grants.model_glob, grants.period, grants.source)
    rows = connection.execute(
        select(*key, func.sum(grants.amount))
        .where(
            grants.scope.in_(sorted({applied.scope for applied in limits})),
            grants.expires_at > at,
        )
        .group_by(*key)
    )
    return {tuple(key): int(amount) for *key, amount in rows}


def read_used(
    connection: Connection, applied: AppliedLimit, counter: Counter | None, at: int
) -> Amounts:
    """What the limit's counter would say if a request came now."""
    start, end = counted_window(applied, at)
    scope, glob, source = applied.scope, applied.limit.model_glob, applied.limit.source
    rolling = applied.limit.period.rolling
    if counter is None or (
        rolling is not None and start - counter.window_start >= rolling.total_seconds()
    ):
        return sum_settled(connection, scope, glob, start, end, source)
    if rolling is None or start <= counter.window_start:
        return counter.used
    return counter.used - sum_settled(connection, scope, glob, counter.window_start, start, source)


def stored_amounts(counter: Any) -> Amounts:
    """The sums in a counter's row."""
    return Amounts(
        counter.requests, counter.input_tokens, counter.output_tokens, counter.cost_micros
    )


def recount(connection: Connection, counter: Any) -> Amounts:
    """What the records say a counter's row should hold."""
    start, end = counter.window_start, counter.window_end
    return sum_settled(connection, counter.scope, counter.model_glob, start, end, counter.source)
