"""Where limits stand: what is used, what replies still running hold, and what was granted."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    CompoundSelect,
    Connection,
    and_,
    bindparam,
    literal_column,
    null,
    select,
    union_all,
)

from helpers.ledger.counters import (
    AMOUNT_COLUMNS,
    COUNTED_COLUMNS,
    Counter,
    CountingLimits,
    counted_window,
    counter_id,
    glob_matches,
    in_scope,
    is_outdated,
    make_counters,
    move_rolling_counters,
    number_values,
    numbered,
    read_scope,
    scope_condition,
    what_counts,
)
from helpers.ledger.tables import IS_OPEN, counters_table, grants_table, records_table
from helpers.limits.decisions import NOTHING, Amounts, LimitState
from helpers.limits.policy import AppliedLimit

# How many records are read to say when a limit admits requests again: a few mostly do.
RECORDS_LOOKED_AT = (16, 100)
# What is remembered, and in how many scopes and windows it is looked up at once.
MOST_RESETS, MOST_LOOK_UPS = 10_000, 200
ResetKey = tuple[str, str, int]  # a counter, a measure and the amount
# How much was over a rolling limit, and the second at which that was found to have left it.
KnownResets = dict[ResetKey, tuple[int, int | None]]
COUNTERS = select(
    literal_column("'counter'"),
    *counters_table.c["id", "scope", "model_glob", "window_start", "window_end"],
    *AMOUNT_COLUMNS,
    counters_table.c.source,
    *grants_table.c["measure", "period", "amount"],
).outerjoin_from(
    counters_table,
    grants_table,
    and_(
        grants_table.c.scope == counters_table.c.scope,
        grants_table.c.model_glob == counters_table.c.model_glob,
        grants_table.c.source == counters_table.c.source,
        grants_table.c.expires_at > bindparam("at"),
    ),
)
RUNNING = select(
    literal_column("'running'"),
    *records_table.c["user_id", "group_ids", "model_names", "created_at"],
    null(),
    *COUNTED_COLUMNS,
    records_table.c.source,
    *(null(), null(), null()),
).where(IS_OPEN, records_table.c.id != bindparam("except_id"))


@dataclass(frozen=True, slots=True)
class RunningReply:
    """What a reply that is still running holds."""

    user_id: str
    group_ids: str
    model_names: str
    source: str
    created_at: int
    reserved: Amounts

    @classmethod
    def of(cls, row: Sequence[Any]) -> RunningReply:
        """One of the rows of `RUNNING`."""
        _, user_id, group_ids, names, created_at, _, *sums, source = row[:11]
        return cls(user_id, group_ids, names, source, created_at, Amounts(*sums))

    def counts_for(self, applied: AppliedLimit, at: int) -> bool:
        """Whether a limit counts it at the second `at`."""
        start, end = counted_window(applied, at)
        return (
            start <= self.created_at < end
            and applied.limit.source in ("", self.source)
            and in_scope(applied.scope, self.user_id, self.group_ids)
            and glob_matches(applied.limit.model_glob, self.model_names)
        )


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Counters by id, and all running replies that share a limit with them."""

    counters: dict[str, Counter]
    running: list[RunningReply]

    def reserved_of(self, applied: AppliedLimit, at: int) -> Amounts:
        """What running replies hold of a limit."""
        held = [one.reserved for one in self.running if one.counts_for(applied, at)]
        return sum(held, NOTHING)


@lru_cache(maxsize=256)
def snapshot_statement(name: str, count: int, of_one_user: bool) -> CompoundSelect[Any]:
    """Built once for each form.

    Args:
        name: "id" to find counters by their ids, "scope" for those that cover a record.
        count: How many ids or scopes.
        of_one_user: Whether only one user's running replies matter.
    """
    counters = COUNTERS.where(counters_table.c[name].in_(numbered(name, count)))
    if name == "scope":
        counters = counters.where(
            counters_table.c.window_start <= bindparam("created_at"),
            counters_table.c.window_end > bindparam("created_at"),
        )
    running = RUNNING
    if of_one_user:  # what all users together have running is little, too
        running = running.where(records_table.c.user_id == bindparam("user_id"))
    return union_all(counters, running)


def read_snapshot(
    connection: Connection,
    name: str,
    keys: Collection[str],
    limits: Sequence[AppliedLimit],
    **values: object,
) -> Snapshot:
    """Those counters that there are, and what runs under the limits, in one statement.

    Args:
        connection: Under the locks of all scopes concerned, if it is to be acted upon.
        name: "id" for the counters with these keys; "scope" for all those of these scopes to
            which a record made at `created_at` belongs.
        keys: Their ids or scopes.
        limits: The limits to look at.
        values: `at`: now, in seconds since 1970; `except_id`: a reservation to leave out, the
            caller's own; `created_at`.
    """
    users = {applied.scope.removeprefix("user:") for applied in limits}
    of_one_user = len(users) < 2 and not any(applied.is_pool for applied in limits)
    if of_one_user:
        values["user_id"] = next(iter(users), "")
    statement = snapshot_statement(name, len(keys), of_one_user)
    snapshot = Snapshot({}, [])
    rows = connection.execute(statement, {**values, **number_values(name, keys)})
    for row in rows:
        if row[0] == "running":
            snapshot.running.append(RunningReply.of(row))
            continue
        _, key, scope, glob, start, end, *sums, source, measure, period, granted = row
        counter = Counter(key, scope, glob, start, end, Amounts(*sums), source)
        counter = snapshot.counters.setdefault(key, counter)
        if granted:
            counter.granted[measure, period] = counter.granted.get((measure, period), 0) + granted
    return snapshot


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
        ids = sorted(set(keys))
        snapshot = read_snapshot(connection, "id", ids, limits, at=at, except_id=except_id)
    counters = snapshot.counters
    wanted = {
        key: applied
        for key, applied in counted.items()
        if key not in counters or is_outdated(counters[key], applied, at)
    }
    if wanted:
        make_counters(connection, wanted, at)
        made = read_snapshot(connection, "id", sorted(wanted), limits, at=at, except_id=except_id)
        counters |= made.counters
    move_rolling_counters(connection, counters, counted, at)
    states = []
    for key, applied in zip(keys, limits, strict=True):
        measure, counter = applied.limit.measure, counters.get(key)
        held = NOTHING if applied.limit.is_per_request else snapshot.reserved_of(applied, at)
        states.append(
            LimitState(
                applied,
                # Of one moment nothing adds up: what is running counts, or what this one takes.
                used=counter.used.of(measure) if counter else 0,
                reserved=held.of(measure),
                reset_at=latest_reset(applied, at),
                granted=counter.granted_to(applied) if counter else 0,
            )
        )
    return tuple(states)


def latest_reset(applied: AppliedLimit, at: int) -> datetime:
    """When the window of a limit ends; of a rolling one, when all that is in it has left it."""
    rolling = applied.limit.period.rolling
    return applied.window.end if rolling is None else datetime.fromtimestamp(at, UTC) + rolling


def with_resets(
    connection: Connection, states: Sequence[LimitState], at: int, known: KnownResets | None = None
) -> tuple[LimitState, ...]:
    """The same states; a rolling limit that is reached says when it admits requests again.

    That is when the records that went over have left the window, the oldest first. Where those
    are more than are looked at, what the state says already is an upper bound. No lock is needed:
    what is settled meanwhile changes by little when that is.

    Whoever is refused asks again and again: it is read anew only once something has changed since
    it was written into `known`.
    """
    known = {} if known is None else known
    reached: list[tuple[int, ResetKey]] = []
    asked: dict[tuple[str, int], dict[ResetKey, LimitState]] = {}
    for place, state in enumerate(states):
        applied = state.applied
        if applied.limit.period.rolling is None or not state.exceeded or not state.amount:
            continue
        key: ResetKey = (counter_id(applied), applied.limit.measure, state.amount)
        reached.append((place, key))
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
    result = list(states)
    for place, key in reached:
        opens = known.get(key, (0, None))[1]
        if opens is not None:
            # A clock that was ahead may have seen it open later than it can.
            reset_at = min(result[place].reset_at, datetime.fromtimestamp(opens, UTC))
            result[place] = replace(result[place], reset_at=reset_at)
    return tuple(result)


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
        select(*columns["group_ids", "model_names", "source", "created_at"], *COUNTED_COLUMNS)
        .where(scope_condition(read_from), columns.created_at >= start)
        .order_by(columns.created_at)
    )
    counting = CountingLimits(
        read_from, {key: what_counts(state.applied) for key, state in states.items()}
    )
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
