"""Counters: sums of settled records per scope, model glob and window."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Generic, TypeVar

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Connection,
    Text,
    Update,
    bindparam,
    case,
    func,
    literal,
    literal_column,
    select,
    true,
)

from helpers.ledger.tables import counters_table, records_table
from helpers.ledger.transactions import NEW_POOL_COUNTER_LOCK, take_advisory_locks
from helpers.limits.decisions import NOTHING, Amounts
from helpers.limits.globs import glob_fits
from helpers.limits.policy import EVERYONE, AppliedLimit

Key = TypeVar("Key")
Counted = tuple[str, str, str]  # the scope, model glob and source of records

NO_END = 2**53
# A control character that no model or group is called by.
NAME_ESCAPE = "\x1a"
ROLLING_MARK = " rolling "  # before the seconds, at the end of a rolling counter's id
# So many counters that were last looked at in different seconds have their records summed apart.
MOST_SEGMENTS = 20
# A clock that steps back by less is only being set right.
STEP_SECONDS = 3_600
# Records that are further ahead than that were made by a clock that was.
CLOCK_TOLERANCE_SECONDS = 86_400
AMOUNT_COLUMNS = tuple(counters_table.c[one.name] for one in fields(Amounts))
ADDED = {column: column + bindparam(f"more_{column.name}") for column in AMOUNT_COLUMNS}
ADD_TO_COUNTER = (
    counters_table.update().where(counters_table.c.id == bindparam("key")).values(ADDED)
)
# What a record counts, in the order of `Amounts`.
COUNTED_COLUMNS = (
    records_table.c.counted,
    records_table.c.weighted_input_tokens,
    records_table.c.weighted_output_tokens,
    records_table.c.cost_micros * records_table.c.counted,
)
COUNTED_SUMS = tuple(map(func.sum, COUNTED_COLUMNS))


@dataclass(slots=True)
class Counter:
    """A counter's row, with what administrators have added to limits that it is read for."""

    id: str
    scope: str
    model_glob: str
    window_start: int  # seconds since 1970
    window_end: int
    used: Amounts
    source: str = ""
    granted: dict[tuple[str, str], int] = field(default_factory=dict)  # by measure and period

    def granted_to(self, applied: AppliedLimit) -> int:
        """What was added to one limit."""
        return self.granted.get((applied.limit.measure, applied.limit.period.name), 0)


def join_names(names: Iterable[str]) -> str:
    """Names as one text that ``LIKE '%|name|%'`` can search: ``|a|b|``."""
    return "|" + "".join(f"{escaped_name(name)}|" for name in names)


def escaped_name(name: str) -> str:
    """A name without "|". Rows of older releases hold no `NAME_ESCAPE`, so they read as before."""
    if "|" not in name and NAME_ESCAPE not in name:
        return name
    return name.replace(NAME_ESCAPE, f"{NAME_ESCAPE}0").replace("|", f"{NAME_ESCAPE}1")


@lru_cache(maxsize=1024)
def split_names(text: str) -> tuple[str, ...]:
    """The names that `join_names` joined."""
    names = (name for name in text.split("|") if name)
    return tuple(
        name.replace(f"{NAME_ESCAPE}1", "|").replace(f"{NAME_ESCAPE}0", NAME_ESCAPE)
        for name in names
    )


def glob_matches(glob: str, model_names: str) -> bool:
    """Whether a limit's model glob matches one of a record's joined names."""
    return glob == "*" or any(glob_fits(glob, name) for name in split_names(model_names))


def counted_window(applied: AppliedLimit, at: int) -> tuple[int, int]:
    """The seconds ``[start, end)`` whose records a limit counts at the second `at`.

    What is running counts toward a limit on that whenever it began.
    """
    if applied.limit.is_moment:
        return 0, NO_END
    if seconds := applied.limit.period.seconds:
        return at - seconds + 1, NO_END
    return int(applied.window.start.timestamp()), int(applied.window.end.timestamp())


def counter_id(applied: AppliedLimit) -> str:
    """The counter that a limit reads; limits that count the same share one.

    No scope begins with "via ", and a model's id may hold anything.
    """
    seconds = applied.limit.period.seconds
    window = (
        f"{ROLLING_MARK.strip()} {seconds}"
        if seconds
        else f"{applied.window.start.timestamp():.0f}-{applied.window.end.timestamp():.0f}"
    )
    via = f"via {applied.limit.source} " if applied.limit.source else ""
    return f"{via}{applied.scope} {applied.limit.model_glob} {window}"


def rolling_seconds(key: str) -> int:
    """The period of a rolling counter, by its id; 0 for another one."""
    _, mark, seconds = key.rpartition(ROLLING_MARK)
    return int(seconds) if mark and seconds.isdecimal() else 0


def scope_condition(scope: str, source: str = "") -> ColumnElement[bool]:
    """The records that belong to a scope, or those of them that came from one source."""
    if source:
        return scope_condition(scope) & (records_table.c.source == source)
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


def scopes_of(user_id: str, group_ids: str) -> tuple[str, ...]:
    """Every scope that a record belongs to."""
    groups = (f"group:{group}" for group in split_names(group_ids))
    return (f"user:{user_id}", *groups, EVERYONE)


def numbered(name: str, count: int) -> list[BindParameter[str]]:
    """Parameters for an IN: SQLAlchemy's own take as long as running the statement."""
    return [bindparam(f"{name}{number}", type_=Text) for number in range(count)]


def number_values(name: str, values: Collection[str]) -> dict[str, str]:
    """Values for the parameters of `numbered`."""
    return {f"{name}{number}": value for number, value in enumerate(values)}


@lru_cache(maxsize=64)
def addition_by_id(count: int) -> Update:
    """A statement that adds to that many counters.

    Not to one that has moved on since it was read: whoever moved it waits for our commit or has
    left the record behind. (A pool's counter may move without a lock that we hold.)
    """
    return (
        counters_table.update()
        .where(
            counters_table.c.id.in_(numbered("id", count)),
            counters_table.c.window_start <= bindparam("created_at"),
            counters_table.c.window_end > bindparam("created_at"),
        )
        .values(ADDED)
    )


def read_scope(applied: AppliedLimit) -> str:
    """The scope whose records are read for a limit: everyone's for all pools at once."""
    return EVERYONE if applied.is_pool else applied.scope


def make_counters(connection: Connection, wanted: Mapping[str, AppliedLimit], at: int) -> None:
    """Sum the records that new or outdated counters cover, and write them.

    What pools of one window have used is read at once, however many there are.
    """
    if any(applied.is_pool for applied in wanted.values()):
        # Members settle under their own locks; none may do so between sum and insert.
        take_advisory_locks(connection, (NEW_POOL_COUNTER_LOCK,))
    connection.execute(counters_table.delete().where(counters_table.c.id.in_(list(wanted))))
    by_records: dict[tuple[int, int, str], dict[str, AppliedLimit]] = {}
    ends: dict[str, int] = {}
    for key, applied in wanted.items():
        read_from = read_scope(applied)
        start, end = counted_window(applied, at)
        if end == NO_END:
            if read_from not in ends:
                ends[read_from] = rolling_end(connection, read_from, at)
            end = ends[read_from]
        by_records.setdefault((start, end, read_from), {})[key] = applied
    rows = []
    for (start, end, read_from), limits in by_records.items():
        counted = {key: what_counts(applied) for key, applied in limits.items()}
        begins = dict.fromkeys(limits, start)
        used = sum_for_limits(connection, read_from, counted, begins, end)
        rows += [
            {
                "id": key,
                "scope": applied.scope,
                "model_glob": applied.limit.model_glob,
                "window_start": start,
                "window_end": end,
                "source": applied.limit.source,
                **amount_values(used[key]),
            }
            for key, applied in limits.items()
        ]
    connection.execute(counters_table.insert(), rows)


def what_counts(applied: AppliedLimit) -> Counted:
    """Which records a limit counts."""
    return applied.scope, applied.limit.model_glob, applied.limit.source


class CountingLimits(Generic[Key]):
    """Which of many limits count a record, however many there are.

    Args:
        read_from: A scope to which all the records belong.
        limits: What each counts.
    """

    def __init__(self, read_from: str, limits: Mapping[Key, Counted]) -> None:
        self._read_from = read_from
        self._by_scope: dict[str, list[tuple[Key, str, str]]] = {}
        for key, (scope, glob, source) in limits.items():
            self._by_scope.setdefault(scope, []).append((key, glob, source))
        self._found: dict[tuple[str, str, str], list[Key]] = {}
        self.differ_by_group = not set(self._by_scope) <= {read_from}

    def find(self, group_ids: str, model_names: str, source: str) -> list[Key]:
        """The limits that count what has these names; mostly the same few come again and again."""
        record = (group_ids, model_names, source)
        if record not in self._found:
            scopes = {self._read_from, *(f"group:{group}" for group in split_names(group_ids))}
            self._found[record] = [
                key
                for scope in scopes
                for key, glob, only in self._by_scope.get(scope, ())
                if only in ("", source) and glob_matches(glob, model_names)
            ]
        return self._found[record]


def sum_for_limits(
    connection: Connection,
    read_from: str,
    limits: Mapping[str, Counted],
    begins: Mapping[str, int],
    end: int,
) -> dict[str, Amounts]:
    """What each of these limits counts of one scope's settled records, in one statement.

    Args:
        read_from: A scope to which the records of all these limits belong.
        limits: What each counts, by their counters.
        begins: From which second on each one counts.
        end: Before which second all do.
    """
    counting, used = CountingLimits(read_from, limits), dict.fromkeys(limits, NOTHING)
    columns, first = records_table.c, min(begins.values())
    rows = connection.execute(
        select(
            segment_start(begins.values()),
            columns.group_ids if counting.differ_by_group else literal(""),
            columns.model_names,
            columns.source,
            *COUNTED_SUMS,
        )
        .where(
            columns.state == "settled",
            columns.created_at >= first,
            columns.created_at < end,
            scope_condition(read_from),
        )
        .group_by(*(literal_column(str(place)) for place in range(1, 5)))
    )
    for segment, group_ids, names, source, *sums in rows:
        amounts = Amounts(*(int(value) for value in sums))
        for key in counting.find(group_ids, names, source):
            if begins[key] <= segment:
                used[key] += amounts
    return used


def sum_settled(
    connection: Connection, scope: str, glob: str, start: int, end: int, source: str = ""
) -> Amounts:
    """Sum the settled records of a scope and source with ``start <= created_at < end``."""
    return sum_for_limits(connection, scope, {"": (scope, glob, source)}, {"": start}, end)[""]


def segment_start(begins: Iterable[int]) -> ColumnElement[int]:
    """The last of these seconds before a record was made; of very many, when it was made."""
    first, *others = sorted(set(begins))
    if len(others) > MOST_SEGMENTS:
        return records_table.c.created_at
    starts = literal(first, BigInteger)
    if not others:
        return starts
    later = [(records_table.c.created_at >= start, start) for start in reversed(others)]
    return case(*later, else_=starts)


def rolling_end(connection: Connection, scope: str, at: int) -> int:
    """Where a rolling counter ends: nowhere, unless a clock has been days ahead.

    What was recorded then would count until that false time. It is left out until it is near.
    """
    end = at + CLOCK_TOLERANCE_SECONDS
    ahead = select(records_table.c.id).where(
        records_table.c.created_at >= end, scope_condition(scope)
    )
    return end if connection.execute(ahead.limit(1)).first() else NO_END


def is_outdated(counter: Counter, applied: AppliedLimit, at: int) -> bool:
    """Whether a rolling counter has to be summed anew.

    After a rest of a whole period nothing of its sum is left, and retention may have dropped what
    it was made of. After a clock has stepped back nothing that is recorded now would be in it, or
    what left it too early is missing.
    """
    seconds = applied.limit.period.seconds
    if not seconds:
        return False
    moved = counted_window(applied, at)[0] - counter.window_start
    return is_outlived(seconds, moved, counter.window_end, at)


def is_outlived(seconds: int, moved: int, end: int, at: int) -> bool:
    """The same for a rolling window so long whose start has moved so far."""
    outlived = end < at + CLOCK_TOLERANCE_SECONDS // 2
    return abs(moved) >= seconds or moved < -STEP_SECONDS or outlived


def move_rolling_counters(
    connection: Connection,
    counters: Mapping[str, Counter],
    limits: Mapping[str, AppliedLimit],
    at: int,
) -> None:
    """Take out what has left the rolling windows of these limits since they were last looked at.

    Each record is taken out once, so the cost per request stays flat; all counters of one period
    are moved together, however many pools there are and whenever each was looked at.

    Members of a pool settle without its lock: its row is locked first, by writing where it starts,
    and what they have added by then stays.
    """
    moving: dict[tuple[int, str], dict[str, AppliedLimit]] = {}
    for key, applied in limits.items():
        start, end = counted_window(applied, at)
        if end == NO_END and start > counters[key].window_start:
            moving.setdefault((start, read_scope(applied)), {})[key] = applied
    for (start, read_from), moved in moving.items():
        begins = {key: counters[key].window_start for key in moved}
        for key, *amounts in connection.execute(
            counters_table.update()
            .where(counters_table.c.id.in_(list(moved)))
            .values(window_start=start)
            .returning(counters_table.c.id, *AMOUNT_COLUMNS)
        ):
            counters[key].window_start, counters[key].used = start, Amounts(*amounts)
        counted = {key: what_counts(applied) for key, applied in moved.items()}
        left = []
        for key, gone in sum_for_limits(connection, read_from, counted, begins, start).items():
            counters[key].used -= gone
            if gone != NOTHING:
                left.append({"key": key, **amount_values(NOTHING - gone, "more_")})
        if left:
            connection.execute(ADD_TO_COUNTER, left)


def amount_values(amounts: Amounts, prefix: str = "") -> dict[str, int]:
    """Amounts by the names of their columns."""
    return {prefix + column.name: getattr(amounts, column.name) for column in AMOUNT_COLUMNS}


def add_to_counters(
    connection: Connection,
    counters: dict[str, Counter],
    model_names: str,
    source: str,
    created_at: int,
    amounts: Amounts,
) -> None:
    """Add a settled record to those of these counters whose source and glob match."""
    ids = [
        key
        for key, one in counters.items()
        if one.source in ("", source) and glob_matches(one.model_glob, model_names)
    ]
    if not ids:
        return
    values = {**amount_values(amounts, "more_"), **number_values("id", ids)}
    connection.execute(addition_by_id(len(ids)), {**values, "created_at": created_at})
    for key in ids:
        counters[key].used += amounts
