"""Counters: sums of settled records per scope, model glob and window."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    CursorResult,
    and_,
    bindparam,
    func,
    select,
    true,
)

from helpers.decisions import Amounts
from helpers.policy import EVERYONE, AppliedLimit
from helpers.tables import counters_table, grants_table, records_table
from helpers.transactions import NEW_POOL_COUNTER_LOCK, take_advisory_locks

NO_END = 2**53
# Built once: putting a statement together costs more than running it.
COUNTERS_AND_GRANTS = select(
    counters_table.c.id,
    counters_table.c.scope,
    counters_table.c.model_glob,
    counters_table.c.window_start,
    counters_table.c.requests,
    counters_table.c.input_tokens,
    counters_table.c.output_tokens,
    counters_table.c.cost_micros,
    grants_table.c.measure,
    grants_table.c.period,
    grants_table.c.amount,
).outerjoin_from(
    counters_table,
    grants_table,
    and_(
        grants_table.c.scope == counters_table.c.scope,
        grants_table.c.model_glob == counters_table.c.model_glob,
        grants_table.c.expires_at > bindparam("at"),
    ),
)
FIND_COUNTERS = COUNTERS_AND_GRANTS.where(counters_table.c.id.in_(bindparam("ids", expanding=True)))
FIND_COVERING_COUNTERS = COUNTERS_AND_GRANTS.where(
    counters_table.c.scope.in_(bindparam("scopes", expanding=True)),
    counters_table.c.window_start <= bindparam("created_at"),
    counters_table.c.window_end > bindparam("created_at"),
).order_by(counters_table.c.id)
AMOUNT_COLUMNS = ("requests", "input_tokens", "output_tokens", "cost_micros")
ADD_TO_COUNTERS = (
    counters_table.update()
    .where(counters_table.c.id.in_(bindparam("ids", expanding=True)))
    .values(
        {
            counters_table.c[name]: counters_table.c[name] + bindparam(f"more_{name}")
            for name in AMOUNT_COLUMNS
        }
    )
)
COUNTED_COLUMNS = (
    func.sum(records_table.c.counted),
    func.sum(records_table.c.weighted_input_tokens),
    func.sum(records_table.c.weighted_output_tokens),
    func.sum(records_table.c.cost_micros * records_table.c.counted),
)


@dataclass(frozen=True, slots=True)
class Counter:
    """A counter's row, with what administrators have added to limits that it is read for."""

    id: str
    scope: str
    model_glob: str
    window_start: int  # seconds since 1970
    used: Amounts
    granted: dict[tuple[str, str], int] = field(default_factory=dict)  # by measure and period

    def granted_to(self, applied: AppliedLimit) -> int:
        """What was added to one limit."""
        return self.granted.get((applied.limit.measure, applied.limit.period.name), 0)


def join_names(names: Iterable[str]) -> str:
    """Names as one text that ``LIKE '%|name|%'`` can search: ``|a|b|``."""
    return "|" + "".join(f"{name.replace('|', ' ')}|" for name in names)


def split_names(text: str) -> tuple[str, ...]:
    """The names that `join_names` joined."""
    return tuple(name for name in text.split("|") if name)


def glob_matches(glob: str, model_names: str) -> bool:
    """Whether a limit's model glob matches one of a record's joined names."""
    return glob == "*" or any(fnmatchcase(name, glob) for name in split_names(model_names))


def counted_window(applied: AppliedLimit, at: int) -> tuple[int, int]:
    """The seconds ``[start, end)`` whose records a limit counts at the second `at`."""
    rolling = applied.limit.period.rolling
    if rolling is not None:
        return at - int(rolling.total_seconds()) + 1, NO_END
    return int(applied.window.start.timestamp()), int(applied.window.end.timestamp())


def counter_id(applied: AppliedLimit) -> str:
    """The counter that a limit reads; limits that count the same share one."""
    rolling = applied.limit.period.rolling
    window = (
        f"rolling {int(rolling.total_seconds())}"
        if rolling is not None
        else f"{applied.window.start.timestamp():.0f}-{applied.window.end.timestamp():.0f}"
    )
    return f"{applied.scope} {applied.limit.model_glob} {window}"


def scope_condition(scope: str) -> ColumnElement[bool]:
    """The records that belong to a scope."""
    if scope == EVERYONE:
        return true()
    kind, _, key = scope.partition(":")
    if kind == "user":
        return records_table.c.user_id == key
    return records_table.c.group_ids.contains(f"|{key}|", autoescape=True)


def in_scope(scope: str, user_id: str, group_ids: str) -> bool:
    """The same for one record already read."""
    kind, _, key = scope.partition(":")
    return scope == EVERYONE or (user_id == key if kind == "user" else f"|{key}|" in group_ids)


def sum_settled(connection: Connection, scope: str, glob: str, start: int, end: int) -> Amounts:
    """Sum the settled records of a scope with ``start <= created_at < end``."""
    rows = connection.execute(
        select(records_table.c.model_names, *COUNTED_COLUMNS)
        .where(
            records_table.c.state == "settled",
            records_table.c.created_at >= start,
            records_table.c.created_at < end,
            scope_condition(scope),
        )
        .group_by(records_table.c.model_names)
    )
    total = Amounts()
    for names, *sums in rows:
        if glob_matches(glob, names):
            total += Amounts(*(int(value) for value in sums))
    return total


def collect_counters(rows: CursorResult[Any]) -> dict[str, Counter]:
    """Counters by id, of rows that repeat one for each of its grants."""
    counters: dict[str, Counter] = {}
    for key, scope, glob, window_start, *amounts, measure, period, granted in rows:
        counter = counters.get(key)
        if counter is None:
            counter = counters[key] = Counter(key, scope, glob, window_start, Amounts(*amounts))
        if measure is not None:
            named = (measure, period)
            counter.granted[named] = counter.granted.get(named, 0) + granted
    return counters


def find_counters(connection: Connection, ids: Collection[str], at: int) -> dict[str, Counter]:
    """Those of these counters that there are, with the grants that count at the second `at`."""
    if not ids:
        return {}
    return collect_counters(connection.execute(FIND_COUNTERS, {"ids": list(ids), "at": at}))


def read_counters(
    connection: Connection,
    limits: Sequence[AppliedLimit],
    at: int,
    known: Mapping[str, Counter],
) -> dict[str, Counter]:
    """The counter of every limit; those that are missing are made, rolling ones moved along.

    Args:
        connection: Under the locks of all scopes concerned, so that no record is settled in
            between.
        limits: The limits to read for.
        at: Now.
        known: What the same transaction has read already.
    """
    wanted = {counter_id(applied): applied for applied in limits}
    counters = {key: known[key] for key in wanted if key in known}
    counters |= find_counters(connection, wanted.keys() - counters.keys(), at)
    missing = sorted(wanted.keys() - counters.keys())
    for key in missing:
        make_counter(connection, key, wanted[key], at)
    counters |= find_counters(connection, missing, at)
    for key, applied in wanted.items():
        rolling = applied.limit.period.rolling
        if rolling is not None:
            start, seconds = counted_window(applied, at)[0], int(rolling.total_seconds())
            counters[key] = move_rolling_counter(connection, counters[key], start, seconds)
    return counters


def make_counter(connection: Connection, key: str, applied: AppliedLimit, at: int) -> None:
    """Sum the records that a new counter covers, and write it."""
    if applied.is_pool:
        # Members settle under their own locks; none may do so between sum and insert.
        take_advisory_locks(connection, (NEW_POOL_COUNTER_LOCK,))
    start, end = counted_window(applied, at)
    used = sum_settled(connection, applied.scope, applied.limit.model_glob, start, end)
    connection.execute(
        counters_table.insert().values(
            id=key,
            scope=applied.scope,
            model_glob=applied.limit.model_glob,
            window_start=start,
            window_end=end,
            **amount_values(used),
        )
    )


def move_rolling_counter(
    connection: Connection, counter: Counter, start: int, period_seconds: int
) -> Counter:
    """Take out what has left a rolling window since it was last looked at.

    Each record is taken out once, so the cost per request stays flat. After a rest of a whole
    period nothing of the old sum is left, and retention may have dropped what it was made of.
    After a clock has stepped back by one, nothing that is recorded now would be in it.
    """
    moved = start - counter.window_start
    if -period_seconds < moved <= 0:
        return counter
    scope, glob = counter.scope, counter.model_glob
    if abs(moved) >= period_seconds:
        used = sum_settled(connection, scope, glob, start, NO_END)
    else:
        used = counter.used - sum_settled(connection, scope, glob, counter.window_start, start)
    connection.execute(
        counters_table.update()
        .where(counters_table.c.id == counter.id)
        .values(window_start=start, **amount_values(used))
    )
    return replace(counter, window_start=start, used=used)


def amount_values(amounts: Amounts) -> dict[str, int]:
    """The counter columns that hold `amounts`."""
    return {
        "requests": amounts.requests,
        "input_tokens": amounts.input_tokens,
        "output_tokens": amounts.output_tokens,
        "cost_micros": amounts.cost_micros,
    }


def add_to_counters(
    connection: Connection,
    scopes: Iterable[str],
    model_names: str,
    created_at: int,
    amounts: Amounts,
    at: int,
) -> dict[str, Counter]:
    """Add one settled record to every counter that covers it.

    Returns:
        The counters of these scopes at `created_at`, as they are then.
    """
    rows = connection.execute(
        FIND_COVERING_COUNTERS, {"scopes": list(scopes), "created_at": created_at, "at": at}
    )
    counters = collect_counters(rows)
    ids = [key for key, one in counters.items() if glob_matches(one.model_glob, model_names)]
    if ids:
        more = {f"more_{name}": value for name, value in amount_values(amounts).items()}
        connection.execute(ADD_TO_COUNTERS, {"ids": ids, **more})
    for key in ids:
        counters[key] = replace(counters[key], used=counters[key].used + amounts)
    return counters
