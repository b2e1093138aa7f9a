"""Where limits stand: their counters, what replies still running hold, and grants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from sqlalchemy import Connection, bindparam, select

from helpers.counters import (
    Counter,
    counted_window,
    counter_id,
    glob_matches,
    in_scope,
    read_counters,
    scope_condition,
)
from helpers.decisions import Amounts, LimitState
from helpers.policy import AppliedLimit
from helpers.tables import IS_OPEN, records_table

NOTHING_KNOWN: Mapping[str, Counter] = {}
# Built once: putting a statement together costs more than running it.
FIND_OPEN = select(
    records_table.c.user_id,
    records_table.c.group_ids,
    records_table.c.model_names,
    records_table.c.created_at,
    records_table.c.counted,
    records_table.c.weighted_input_tokens,
    records_table.c.weighted_output_tokens,
    records_table.c.cost_micros,
).where(IS_OPEN, records_table.c.id != bindparam("except_id"))
FIND_OPEN_OF_USER = FIND_OPEN.where(records_table.c.user_id == bindparam("user_id"))


def read_limit_states(
    connection: Connection,
    limits: Sequence[AppliedLimit],
    at: int,
    except_id: str,
    known: Mapping[str, Counter] = NOTHING_KNOWN,
) -> tuple[LimitState, ...]:
    """Where each limit stands.

    Args:
        connection: Under the locks of all scopes concerned.
        limits: The limits to look at.
        at: Now, in seconds since 1970.
        except_id: A reservation to leave out: the caller's own.
        known: Counters that the same transaction has read already.
    """
    if not limits:
        return ()
    reserved = sum_open(connection, limits, at, except_id)
    counters = read_counters(connection, limits, at, known)
    states = []
    for applied in limits:
        key, measure = counter_id(applied), applied.limit.measure
        state = LimitState(
            applied,
            used=counters[key].used.of(measure),
            reserved=reserved[key].of(measure),
            reset_at=applied.window.end,
            granted=counters[key].granted_to(applied),
        )
        if applied.limit.period.rolling is not None:
            reset_at = find_rolling_reset(connection, state, at)
            state = replace(state, reset_at=datetime.fromtimestamp(reset_at, UTC))
        states.append(state)
    return tuple(states)


def sum_open(
    connection: Connection, limits: Sequence[AppliedLimit], at: int, except_id: str
) -> dict[str, Amounts]:
    """Sum what replies still running have reserved, per counter; see `read_limit_states`."""
    scopes = {applied.scope for applied in limits}
    owner = next(iter(scopes)).removeprefix("user:")
    if scopes == {f"user:{owner}"}:
        found = connection.execute(FIND_OPEN_OF_USER, {"except_id": except_id, "user_id": owner})
    else:  # what all users together have running is little, too
        found = connection.execute(FIND_OPEN, {"except_id": except_id})
    rows = found.all()
    sums: dict[str, Amounts] = {}
    for applied in limits:
        start, end = counted_window(applied, at)
        total = Amounts()
        for row in rows:
            if (
                start <= row.created_at < end
                and in_scope(applied.scope, row.user_id, row.group_ids)
                and glob_matches(applied.limit.model_glob, row.model_names)
            ):
                total += Amounts(
                    row.counted,
                    row.weighted_input_tokens,
                    row.weighted_output_tokens,
                    row.cost_micros * row.counted,
                )
        sums[counter_id(applied)] = total
    return sums


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
    rows = connection.execute(
        select(
            records_table.c.created_at,
            records_table.c.model_names,
            records_table.c.counted,
            records_table.c.weighted_input_tokens,
            records_table.c.weighted_output_tokens,
            records_table.c.cost_micros,
        )
        .where(
            records_table.c.counted > 0,
            records_table.c.created_at >= start,
            scope_condition(applied.scope),
        )
        .order_by(records_table.c.created_at)
        .execution_options(yield_per=200)
    )
    for created_at, model_names, *amounts in rows:
        if glob_matches(applied.limit.model_glob, model_names):
            excess -= Amounts(*amounts).of(applied.limit.measure)
            if excess <= 0:
                rows.close()
                return int(created_at) + period_seconds
    return at + period_seconds
