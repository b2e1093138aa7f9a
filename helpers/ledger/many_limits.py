"""Many limits at once: where they stand at one moment of the ledger, read only."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, TypeVar

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Row,
    Select,
    Text,
    and_,
    any_,
    bindparam,
    cast,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from helpers.ledger.counters import (
    COUNTED_SUMS,
    NO_END,
    counted_window,
    counter_id,
    glob_matches,
    is_outlived,
    scopes_of,
    sum_settled,
)
from helpers.ledger.limit_states import (
    MOST_LOOK_UPS,
    RUNNING,
    KnownResets,
    RunningReply,
    latest_reset,
    with_resets,
)
from helpers.ledger.tables import counters_table, grants_table, records_table
from helpers.limits.decisions import Amounts, LimitState
from helpers.limits.limit import Measure
from helpers.limits.policy import AppliedLimit

SnapshotResult = TypeVar("SnapshotResult")
GrantKey = tuple[str, ...]
# By user and window, what was used of each model (by its joined names) and from each source.
WindowSums = defaultdict[tuple[str, int, int], list[tuple[str, str, Amounts]]]


def read_snapshot_of(
    connection: Connection, work: Callable[[Connection], SnapshotResult]
) -> SnapshotResult:
    """Let `work` see one moment of the database; SQLite's writers don't wait for it."""
    sqlite = connection.dialect.name == "sqlite"
    begin = "BEGIN" if sqlite else "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
    connection.exec_driver_sql(begin)
    result = work(connection)
    connection.exec_driver_sql("COMMIT")
    return result


# The columns by which a grant names the limit that it adds to.
GRANT_KEY = tuple(grants_table.c["scope", "measure", "model_glob", "period", "source"])


def grant_key(applied: AppliedLimit) -> GrantKey:
    """What a grant for this limit has in `GRANT_KEY`."""
    limit = applied.limit
    return applied.scope, limit.measure, limit.model_glob, limit.period.name, limit.source


# Where a counter's row has what a limit of each measure compares, as `Amounts.of` has it.
MEASURED: Mapping[Measure, int] = {
    "tokens": 3,
    "input_tokens": 4,
    "output_tokens": 5,
    "requests": 6,
    "cost": 7,
}
# What many rows are looked up by is one parameter, a list: with one for each, statements would
# take longer to write than to run. The statements are built once, as that takes a while, too.


@lru_cache
def open_counters(sqlite: bool) -> Select[Any]:
    """The counters of a list of scopes whose windows are open."""
    columns = counters_table.c
    among: ColumnElement[bool] = columns.scope == any_(bindparam("scopes", type_=ARRAY(Text())))
    if sqlite:
        listed = func.json_each(bindparam("scopes", type_=Text())).table_valued("value")
        among = columns.scope.in_(select(listed.c.value))
    return select(
        *columns["id", "window_start", "window_end"],
        columns.input_tokens + columns.output_tokens,
        *columns["input_tokens", "output_tokens", "requests", "cost_micros"],
    ).where(among, columns.window_end > bindparam("at"))


def read_counters(connection: Connection, scopes: Collection[str], at: int) -> dict[str, Row[Any]]:
    """The counters of these scopes whose windows are open, by id: id, start, end and sums."""
    sqlite, listed = connection.dialect.name == "sqlite", sorted(scopes)
    values = {"scopes": json.dumps(listed) if sqlite else listed, "at": at}
    return {row[0]: row for row in connection.execute(open_counters(sqlite), values).all()}


def read_granted(
    connection: Connection, at: int, scope: str | None = None
) -> Mapping[GrantKey, int]:
    """What administrators have added to limits, or to those of one scope, by `grant_key`."""
    columns = grants_table.c
    sums = select(*GRANT_KEY, func.sum(columns.amount)).group_by(*GRANT_KEY)
    query = sums.where(columns.expires_at > at)
    if scope is not None:
        query = query.where(columns.scope == scope)
    return {tuple(names): int(amount) for *names, amount in connection.execute(query).all()}


def read_running(
    connection: Connection, scope: str | None = None
) -> Mapping[str, Sequence[RunningReply]]:
    """Replies that are still running, or those of one scope, by each that they count for."""
    query = RUNNING
    if scope is not None and scope.startswith("user:"):
        query = query.where(records_table.c.user_id == scope.removeprefix("user:"))
    running: defaultdict[str, list[RunningReply]] = defaultdict(list)
    for row in connection.execute(query, {"except_id": ""}):
        reply = RunningReply.of(row)
        for each in scopes_of(reply.user_id, reply.group_ids):
            running[each].append(reply)
    return running


@dataclass(frozen=True, slots=True)
class CountedSpan:
    """What is alike in a limit of many users: its counters' ids around the scope, and the window.

    Args:
        id_start: How the ids begin.
        id_end: How they end.
        start: The first second that counts.
        end: The one after the last.
        rolling: The length of a rolling window in seconds; 0 for another.
        reset_at: When all that counts has left the window.
        adds_up: Whether something does; not in a limit about one moment.
    """

    id_start: str
    id_end: str
    start: int
    end: int
    rolling: int
    reset_at: datetime
    adds_up: bool

    @classmethod
    def of(cls, applied: AppliedLimit, at: int) -> CountedSpan:
        """The span of a limit at the second `at`."""
        source, seconds = applied.limit.source, applied.limit.period.seconds
        id_start = f"via {source} " if source else ""
        id_end = counter_id(applied).removeprefix(id_start + applied.scope)
        adds_up, reset_at = not applied.limit.is_moment, latest_reset(applied, at)
        return cls(id_start, id_end, *counted_window(applied, at), seconds, reset_at, adds_up)

    def missing(self, counter: Row[Any] | None, at: int) -> tuple[int, int, int]:
        """Which records to add to a counter (1) or to take from it (-1): from when, until when.

        With 1 nothing that the counter has is of use; 0: it is up to date.
        """
        if counter is None and self.adds_up:
            return 1, self.start, self.end
        if counter is None or not self.rolling:
            return 0, 0, 0
        moved = self.start - counter[1]
        if is_outlived(self.rolling, moved, counter[2], at):
            return 1, self.start, NO_END
        return (-1, counter[1], self.start) if moved > 0 else (0, 0, 0)


@lru_cache
def window_sums(sqlite: bool) -> Select[Any]:
    """What users have used in the windows of a list as JSON."""
    windows: Any
    text = bindparam("windows", type_=Text)
    if sqlite:
        windows = func.json_each(text).table_valued("value")
        parts = [func.json_extract(windows.c.value, f"$[{at}]") for at in range(3)]
    else:
        elements = func.jsonb_array_elements(cast(text, JSONB))
        windows = elements.table_valued(Column("value", JSONB)).render_derived()
        parts = [windows.c.value[at].astext for at in range(3)]
    user_id, since, until = parts[0], cast(parts[1], BigInteger), cast(parts[2], BigInteger)
    names, source = records_table.c.model_names, records_table.c.source
    return (
        select(user_id, since, until, names, source, *COUNTED_SUMS)
        .select_from(windows)
        .join(
            records_table,
            and_(
                records_table.c.user_id == user_id,
                records_table.c.created_at >= since,
                records_table.c.created_at < until,
                records_table.c.state == "settled",
            ),
        )
        .group_by(literal_column("1"), literal_column("2"), literal_column("3"), names, source)
    )


def sums_of_users(connection: Connection, wanted: Collection[tuple[str, int, int]]) -> WindowSums:
    """What users have used in windows of theirs, by the models' names and the source.

    Args:
        wanted: User ids, each with the first second and the one after the last.
    """
    found: WindowSums = defaultdict(list)
    if wanted:
        query = window_sums(connection.dialect.name == "sqlite")
        rows = connection.execute(query, {"windows": json.dumps(sorted(wanted))}).all()
        for user, first, end, model_names, asked_from, *sums in rows:
            found[user, first, end].append((model_names, asked_from, Amounts(*map(int, sums))))
    return found


class LimitReader:
    """Reads where limits stand at one instant: by their counters, else by the records.

    Nothing is written and no lock is needed, if the connection sees one moment of the database.
    However many limits are asked for at once, it takes few statements.
    """

    def __init__(self, connection: Connection, at: datetime) -> None:
        self._connection, self._second = connection, int(at.timestamp())
        self._spans: dict[int, tuple[AppliedLimit, CountedSpan]] = {}
        self._resets: KnownResets = {}
        # By scope; None: by all of them, which is read once, as both are few.
        self._running: dict[str | None, Mapping[str, Sequence[RunningReply]]] = {}
        self._granted: dict[str | None, Mapping[GrantKey, int]] = {}

    def read(self, limits: Sequence[AppliedLimit]) -> list[LimitState]:
        """Where these stand."""
        if not limits:
            return []
        scopes = {applied.scope for applied in limits}
        counters = read_counters(self._connection, scopes, self._second)
        only = next(iter(scopes)) if len(scopes) == 1 else None
        if only not in self._running:
            self._running[only] = read_running(self._connection, only)
            self._granted[only] = read_granted(self._connection, self._second, only)
        running, granted = self._running[only], self._granted[only]
        needs, windows = [], set()
        for applied in limits:
            span = self._span(applied)
            counter = counters.get(f"{span.id_start}{applied.scope}{span.id_end}")
            missing = span.missing(counter, self._second)
            if missing[0] and not applied.is_pool:
                windows.add((applied.scope.removeprefix("user:"), *missing[1:]))
            needs.append((span, counter, missing))
        sums, states = sums_of_users(self._connection, windows), []
        for applied, (span, counter, (sign, start, end)) in zip(limits, needs, strict=True):
            measure, scope = applied.limit.measure, applied.scope
            used = 0 if counter is None or sign > 0 else counter[MEASURED[measure]]
            if sign:
                used += sign * self._sum(applied, start, end, sums)
            reserved = self._reserved(applied, running[scope]) if scope in running else 0
            added = granted.get(grant_key(applied), 0) if granted else 0
            states.append(LimitState(applied, used, reserved, span.reset_at, added))
        if len(self._resets) >= MOST_LOOK_UPS:
            return states
        return list(with_resets(self._connection, states, self._second, self._resets))

    def _span(self, applied: AppliedLimit) -> CountedSpan:
        # By identity: at one instant a limit has one window, whoever it is applied to.
        found = self._spans.get(id(applied.limit))
        if found is None:
            span = CountedSpan.of(applied, self._second)
            found = self._spans[id(applied.limit)] = (applied, span)
        return found[1]

    def _sum(self, applied: AppliedLimit, start: int, end: int, sums: WindowSums) -> int:
        limit, scope = applied.limit, applied.scope
        if applied.is_pool:
            glob, source = limit.model_glob, limit.source
            found = sum_settled(self._connection, scope, glob, start, end, source)
            return found.of(limit.measure)
        return sum(
            part.of(limit.measure)
            for names, source, part in sums.get((scope.removeprefix("user:"), start, end), ())
            if limit.source in ("", source) and glob_matches(limit.model_glob, names)
        )

    def _reserved(self, applied: AppliedLimit, running: Sequence[RunningReply]) -> int:
        limit = applied.limit
        return sum(
            reply.reserved.of(limit.measure)
            for reply in running
            if not limit.is_per_request and reply.counts_for(applied, self._second)
        )


def read_states(
    connection: Connection, limits: Sequence[AppliedLimit], at: datetime
) -> tuple[LimitState, ...]:
    """Where limits stand at the instant `at`, as a `LimitReader` finds it."""
    return tuple(LimitReader(connection, at).read(limits))
