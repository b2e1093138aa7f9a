"""What one statement sees of the ledger: counters with their grants, and running replies."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
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
    Counter,
    counted_window,
    glob_matches,
    in_scope,
    number_values,
    numbered,
)
from helpers.ledger.tables import IS_OPEN, counters_table, grants_table, records_table
from helpers.limits.decisions import NOTHING, Amounts
from helpers.limits.policy import AppliedLimit

COUNTERS = select(
    literal_column("'counter'"),
    counters_table.c.id,
    counters_table.c.scope,
    counters_table.c.model_glob,
    counters_table.c.window_start,
    counters_table.c.window_end,
    counters_table.c.requests,
    counters_table.c.input_tokens,
    counters_table.c.output_tokens,
    counters_table.c.cost_micros,
    counters_table.c.source,
    grants_table.c.measure,
    grants_table.c.period,
    grants_table.c.amount,
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
    records_table.c.user_id,
    records_table.c.group_ids,
    records_table.c.model_names,
    records_table.c.created_at,
    null(),
    records_table.c.counted,
    records_table.c.weighted_input_tokens,
    records_table.c.weighted_output_tokens,
    records_table.c.cost_micros * records_table.c.counted,
    records_table.c.source,
    null(),
    null(),
    null(),
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


def snapshot_of_limits(
    connection: Connection,
    ids: Collection[str],
    limits: Sequence[AppliedLimit],
    at: int,
    except_id: str,
) -> Snapshot:
    """Those counters of the limits that there are, and what runs under them.

    Args:
        connection: Under the locks of all scopes concerned, if it is to be acted upon.
        ids: Their counters.
        limits: The limits to look at.
        at: Now, in seconds since 1970.
        except_id: A reservation to leave out: the caller's own.
    """
    keys = sorted(set(ids))
    return read_snapshot(connection, "id", keys, limits, at=at, except_id=except_id)


def snapshot_of_record(
    connection: Connection,
    scopes: Collection[str],
    created_at: int,
    limits: Sequence[AppliedLimit],
    at: int,
    except_id: str,
) -> Snapshot:
    """Every counter that a record made at `created_at` belongs to, and what runs under `limits`."""
    return read_snapshot(
        connection, "scope", scopes, limits, at=at, except_id=except_id, created_at=created_at
    )


def read_snapshot(
    connection: Connection,
    name: str,
    keys: Collection[str],
    limits: Sequence[AppliedLimit],
    **values: object,
) -> Snapshot:
    users = {applied.scope.removeprefix("user:") for applied in limits}
    of_one_user = len(users) < 2 and not any(applied.is_pool for applied in limits)
    if of_one_user:
        values["user_id"] = next(iter(users), "")
    statement = snapshot_statement(name, len(keys), of_one_user)
    snapshot = Snapshot({}, [])
    rows = connection.execute(statement, {**values, **number_values(name, keys)})
    for kind, key, group_ids_or_scope, names_or_glob, instant, end, *numbers in rows:
        amounts, source = Amounts(*numbers[:4]), numbers[4]
        if kind == "running":
            snapshot.running.append(
                RunningReply(key, group_ids_or_scope, names_or_glob, source, instant, amounts)
            )
            continue
        counter = snapshot.counters.setdefault(
            key, Counter(key, group_ids_or_scope, names_or_glob, instant, end, amounts, source)
        )
        measure, period, granted = numbers[5:]
        if granted:
            counter.granted[measure, period] = counter.granted.get((measure, period), 0) + granted
    return snapshot
