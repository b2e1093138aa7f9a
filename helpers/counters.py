"""Counters: sums of settled records per scope, model glob and window."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, func, or_, select, true

from helpers.decisions import Amounts, LimitState
from helpers.policy import EVERYONE, AppliedLimit
from helpers.tables import IS_OPEN, counters_table, grants_table, records_table
from helpers.transactions import NEW_POOL_COUNTER_LOCK, take_advisory_locks

NO_END = 2**53
# Built once: putting a statement together costs more than running it.
FIND_COUNTERS = select(counters_table).where(
    counters_table.c.id.in_(bindparam("ids", expanding=True))
)
COVERING_COUNTERS = (
    select(counters_table.c.id, counters_table.c.model_glob)
    .where(
        counters_table.c.scope.in_(bindparam("scopes", expanding=True)),
        counters_table.c.window_start <= bindparam("created_at"),
        counters_table.c.window_end > bindparam("created_at"),
    )
    .order_by(counters_table.c.id)
)
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
OPEN_COLUMNS = (
    records_table.c.user_id,
    records_table.c.group_ids,
    records_table.c.model_names,
    records_table.c.created_at,
    records_table.c.counted,
    records_table.c.weighted_input_tokens,
    records_table.c.weighted_output_tokens,
    records_table.c.cost_micros,
)
FIND_OPEN_OF_USER = select(*OPEN_COLUMNS).where(
    IS_OPEN,
    records_table.c.user_id == bindparam("user_id"),
    records_table.c.id != bindparam("except_id"),
)
FIND_GRANTS = select(grants_table).where(
    grants_table.c.scope.in_(bindparam("scopes", expanding=True)),
    grants_table.c.expires_at > bindparam("at"),
)
COUNTED_COLUMNS = (
    func.sum(records_table.c.counted),
    func.sum(records_table.c.weighted_input_tokens),
    func.sum(records_table.c.weighted_output_tokens),
    func.sum(records_table.c.cost_micros * records_table.c.counted),
)


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


def read_counters(
    connection: Connection, limits: Sequence[AppliedLimit], at: int
) -> dict[str, Amounts]:
    """Read the counter of every limit, making those that are missing and moving rolling ones.

    Runs under the locks of all scopes concerned, so that no record is settled in between.
    """
    wanted = {counter_id(applied): applied for applied in limits}
    found: dict[str, Any] = {
        row.id: row for row in connection.execute(FIND_COUNTERS, {"ids": list(wanted)})
    }
    sums: dict[str, Amounts] = {}
    for key, applied in wanted.items():
        start, end = counted_window(applied, at)
        row = found.get(key)
        if row is None:
            if applied.is_pool:
                # Members settle under their own locks; none may do so between sum and insert.
                take_advisory_locks(connection, (NEW_POOL_COUNTER_LOCK,))
            sums[key] = sum_settled(connection, applied.scope, applied.limit.model_glob, start, end)
            connection.execute(
                counters_table.insert().values(
                    id=key,
                    scope=applied.scope,
                    model_glob=applied.limit.model_glob,
                    window_start=start,
                    window_end=end,
                    **amount_values(sums[key]),
                )
            )
        else:
            sums[key] = Amounts(row.requests, row.input_tokens, row.output_tokens, row.cost_micros)
            rolling = applied.limit.period.rolling
            if rolling is not None:
                sums[key] = move_rolling_counter(
                    connection, row, sums[key], start, int(rolling.total_seconds())
                )
    return sums


def move_rolling_counter(
    connection: Connection, row: Any, old: Amounts, start: int, period_seconds: int
) -> Amounts:
    """Take out what has left a rolling window since it was last looked at.

    Each record is taken out once, so the cost per request stays flat. After a rest of a whole
    period nothing of the old sum is left, and retention may have dropped what it was made of.
    After a clock has stepped back by one, nothing that is recorded now would be in it.
    """
    moved = start - row.window_start
    if -period_seconds < moved <= 0:
        return old
    if abs(moved) >= period_seconds:
        new = sum_settled(connection, row.scope, row.model_glob, start, NO_END)
    else:
        left = sum_settled(connection, row.scope, row.model_glob, row.window_start, start)
        new = old - left
    connection.execute(
        counters_table.update()
        .where(counters_table.c.id == row.id)
        .values(window_start=start, **amount_values(new))
    )
    return new


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
) -> None:
    """Add one settled record to every counter that covers it."""
    rows = connection.execute(COVERING_COUNTERS, {"scopes": list(scopes), "created_at": created_at})
    ids = [row.id for row in rows if glob_matches(row.model_glob, model_names)]
    if ids:
        more = {f"more_{name}": value for name, value in amount_values(amounts).items()}
        connection.execute(ADD_TO_COUNTERS, {"ids": ids, **more})


def sum_open(
    connection: Connection, limits: Sequence[AppliedLimit], at: int, except_id: str
) -> dict[str, Amounts]:
    """Sum what replies still running have reserved, per counter.

    Args:
        connection: Under the locks of all scopes concerned.
        limits: The limits to sum for.
        at: Now.
        except_id: A reservation to leave out: the caller's own.
    """
    scopes = sorted({applied.scope for applied in limits})
    if len(scopes) == 1 and scopes[0].startswith("user:"):
        user_id = scopes[0].removeprefix("user:")
        found = connection.execute(FIND_OPEN_OF_USER, {"user_id": user_id, "except_id": except_id})
    else:
        found = connection.execute(
            select(*OPEN_COLUMNS).where(
                IS_OPEN,
                records_table.c.id != except_id,
                or_(*(scope_condition(scope) for scope in scopes)),
            )
        )
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


def read_grants(
    connection: Connection, limits: Sequence[AppliedLimit], at: int
) -> dict[tuple[str, str, str, str], int]:
    """What administrators have added to these limits, by `grant_key`."""
    scopes = sorted({applied.scope for applied in limits})
    rows = connection.execute(FIND_GRANTS, {"scopes": scopes, "at": at})
    granted: dict[tuple[str, str, str, str], int] = {}
    for row in rows:
        key = (row.scope, row.measure, row.model_glob, row.period)
        granted[key] = granted.get(key, 0) + row.amount
    return granted


def grant_key(applied: AppliedLimit) -> tuple[str, str, str, str]:
    """The columns by which a grant names the limit that it adds to."""
    limit = applied.limit
    return applied.scope, limit.measure, limit.model_glob, limit.period.name


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
