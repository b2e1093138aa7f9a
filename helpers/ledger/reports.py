"""Reports: what the ledger says of many limits and records at once, read only."""

from __future__ import annotations

import csv
import json
import math
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from io import StringIO
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Row,
    Text,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB

from helpers.errors import ConfigurationError
from helpers.ledger.counters import (
    CLOCK_TOLERANCE_SECONDS,
    COUNTED_SUMS,
    NO_END,
    STEP_SECONDS,
    counted_window,
    counter_id,
    glob_matches,
    split_names,
    sum_settled,
)
from helpers.ledger.limit_states import RUNNING, RunningReply, latest_reset, with_resets
from helpers.ledger.tables import counters_table, grants_table, records_table
from helpers.limits.decisions import NOTHING, Amounts, LimitState
from helpers.limits.limit import Measure
from helpers.limits.periods import (
    CalendarRules,
    clock_change,
    quoted_text,
    reset_instant,
    utc_zone,
    zone_offset,
)
from helpers.limits.policy import EVERYONE, AppliedLimit

ROWS_PER_QUERY = 500

SnapshotResult = TypeVar("SnapshotResult")
GrantKey = tuple[str, ...]


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


# Where limits stand


def grant_key(applied: AppliedLimit) -> GrantKey:
    """The columns by which a grant names the limit that it adds to."""
    limit = applied.limit
    return applied.scope, limit.measure, limit.model_glob, limit.period.name, limit.source


def in_parts(items: Collection[str]) -> Iterator[list[str]]:
    """Values for INs of a bounded length, in order."""
    ordered = sorted(items)
    for start in range(0, len(ordered), ROWS_PER_QUERY):
        yield ordered[start : start + ROWS_PER_QUERY]


def read_counters(
    connection: Connection, scopes: Collection[str], at: int
) -> dict[str, tuple[int, ...]]:
    """The counters of these scopes whose windows are open, by id: start, end and sums."""
    columns = counters_table.c
    query = select(
        columns.id,
        columns.window_start,
        columns.window_end,
        columns.requests,
        columns.input_tokens,
        columns.output_tokens,
        columns.cost_micros,
    )
    return {
        key: (start, end, *sums)
        for some in in_parts(scopes)
        for key, start, end, *sums in connection.execute(
            query.where(columns.scope.in_(some), columns.window_end > at)
        )
    }


def read_granted(connection: Connection, scopes: Collection[str], at: int) -> dict[GrantKey, int]:
    """What administrators have added to limits of these scopes, by `grant_key`."""
    columns = grants_table.c
    key = (columns.scope, columns.measure, columns.model_glob, columns.period, columns.source)
    return {
        tuple(names): int(amount)
        for some in in_parts(scopes)
        for *names, amount in connection.execute(
            select(*key, func.sum(columns.amount))
            .where(columns.scope.in_(some), columns.expires_at > at)
            .group_by(*key)
        )
    }


def read_running(connection: Connection, scopes: Collection[str]) -> dict[str, list[RunningReply]]:
    """Replies that are still running, by each scope that they count for."""
    query = RUNNING
    if len(scopes) == 1 and (only := next(iter(scopes))).startswith("user:"):
        query = query.where(records_table.c.user_id == only.removeprefix("user:"))
    running: defaultdict[str, list[RunningReply]] = defaultdict(list)
    for _, user_id, group_ids, names, created_at, _, *rest in connection.execute(
        query, {"except_id": ""}
    ):
        amounts, source = Amounts(*rest[:4]), rest[4]
        reply = RunningReply(user_id, group_ids, names, source, created_at, amounts)
        groups = (f"group:{group}" for group in split_names(group_ids))
        for scope in (f"user:{user_id}", *groups, EVERYONE):
            running[scope].append(reply)
    return running


@dataclass(frozen=True, slots=True)
class CountedSpan:
    """What is alike in a limit of many users: how its counters' ids end, and what they count."""

    id_end: str
    start: int
    end: int

    @classmethod
    def of(cls, applied: AppliedLimit, at: int) -> CountedSpan:
        """The span of a limit at the second `at`."""
        head = f"via {applied.limit.source} " if applied.limit.source else ""
        id_end = counter_id(applied).removeprefix(head + applied.scope)
        return cls(id_end, *counted_window(applied, at))


def counter_needs(
    applied: AppliedLimit, span: CountedSpan, counter: tuple[int, ...] | None, at: int
) -> tuple[Amounts, int, int, int]:
    """What is known of a limit's use, and which records to add (1) or take away (-1)."""
    rolling, start = applied.limit.period.rolling, span.start
    if applied.limit.is_moment:
        return NOTHING, 0, 0, 0
    if counter is None:
        return NOTHING, 1, start, span.end
    counted_from, counted_to, *sums = counter
    if rolling is None:
        return Amounts(*sums), 0, 0, 0
    moved = start - counted_from
    outlived = counted_to < at + CLOCK_TOLERANCE_SECONDS // 2
    if abs(moved) >= rolling.total_seconds() or moved < -STEP_SECONDS or outlived:
        return NOTHING, 1, start, NO_END
    if moved <= 0:
        return Amounts(*sums), 0, 0, 0
    return Amounts(*sums), -1, counted_from, start


def sums_of_users(
    connection: Connection, wanted: Collection[tuple[str, int, int]]
) -> dict[tuple[str, int, int], list[tuple[str, str, Amounts]]]:
    """What users have used in windows of theirs, by the models' names and the source.

    Args:
        connection: The ledger's.
        wanted: User ids, each with the first second and the one after the last.
    """
    found: defaultdict[tuple[str, int, int], list[tuple[str, str, Amounts]]] = defaultdict(list)
    if not wanted:
        return found
    # As one parameter: a list of values would take much longer to compile than to look up.
    windows: Any
    text = bindparam("windows", json.dumps(sorted(wanted)), Text)
    if connection.dialect.name == "sqlite":
        windows = func.json_each(text).table_valued("value")
        parts = [func.json_extract(windows.c.value, f"$[{at}]") for at in range(3)]
    else:
        elements = func.jsonb_array_elements(cast(text, JSONB))
        windows = elements.table_valued(Column("value", JSONB)).render_derived()
        parts = [windows.c.value[at].astext for at in range(3)]
    user_id, since, until = parts[0], cast(parts[1], BigInteger), cast(parts[2], BigInteger)
    names, source = records_table.c.model_names, records_table.c.source
    rows = connection.execute(
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
    for user, first, end, model_names, asked_from, *sums in rows:
        found[user, first, end].append((model_names, asked_from, Amounts(*map(int, sums))))
    return found


def read_states(
    connection: Connection, limits: Sequence[AppliedLimit], at: datetime
) -> tuple[LimitState, ...]:
    """Where limits stand at the instant `at`: by their counters, else by the records.

    Nothing is written and no lock is needed, if the connection sees one moment of the database.
    However many limits, it takes few statements.
    """
    if not limits:
        return ()
    second, scopes = int(at.timestamp()), {applied.scope for applied in limits}
    counters = read_counters(connection, scopes, second)
    granted = read_granted(connection, scopes, second)
    running = read_running(connection, scopes)
    spans: dict[int, CountedSpan] = {}
    needs = []
    for applied in limits:
        # By identity: at one instant a limit has one window, whoever it is applied to.
        span = spans.get(id(applied.limit))
        if span is None:
            span = spans[id(applied.limit)] = CountedSpan.of(applied, second)
        head = f"via {applied.limit.source} " if applied.limit.source else ""
        counter = counters.get(f"{head}{applied.scope}{span.id_end}")
        needs.append(counter_needs(applied, span, counter, second))
    sums = sums_of_users(
        connection,
        {
            (applied.scope.removeprefix("user:"), start, end)
            for applied, (_, sign, start, end) in zip(limits, needs, strict=True)
            if sign and not applied.is_pool
        },
    )
    states = []
    for applied, (used, sign, start, end) in zip(limits, needs, strict=True):
        limit = applied.limit
        if sign:
            if applied.is_pool:
                more = sum_settled(
                    connection, applied.scope, limit.model_glob, start, end, limit.source
                )
            else:
                parts = sums.get((applied.scope.removeprefix("user:"), start, end), ())
                more = sum(
                    (
                        part
                        for names, source, part in parts
                        if limit.source in ("", source) and glob_matches(limit.model_glob, names)
                    ),
                    NOTHING,
                )
            used = used + more if sign > 0 else used - more
        held = () if limit.is_per_request else running.get(applied.scope, ())
        reserved = [one.reserved for one in held if one.counts_for(applied, second)]
        states.append(
            LimitState(
                applied,
                used.of(limit.measure),
                sum(reserved, NOTHING).of(limit.measure) if reserved else 0,
                latest_reset(applied, second),
                granted.get(grant_key(applied), 0) if granted else 0,
            )
        )
    return with_resets(connection, states, second)


# Which day a record belongs to

DAY_LENGTH = 86_400
FIRST_DAY = date(1970, 1, 1)


def instant_of(second: int) -> datetime:
    """A second of the ledger as an instant."""
    return datetime.fromtimestamp(second, UTC)


def day_number(zone: ZoneInfo, first: int, last: int, reset_hour: int = 0) -> ColumnElement[int]:
    """In SQL: how many days after 1 January 1970 a record was made by the calendar in a zone.

    The numbers are written out: PostgreSQL takes two parameters of one value for different ones,
    and the expression stands in two places of a query.
    """
    created_at = records_table.c.created_at
    back = reset_hour * 3_600
    *earlier, (_, offset) = offsets(zone, first, last)
    local: ColumnElement[Any] = created_at + whole(offset - back)
    if earlier:
        cases = [
            (created_at < whole(end), created_at + whole(past - back)) for end, past in earlier
        ]
        local = case(*cases, else_=local)
    return local // whole(DAY_LENGTH)


def whole(number: int) -> ColumnElement[int]:
    """A whole number as it stands."""
    return literal_column(str(number), BigInteger)


def offsets(zone: ZoneInfo, first: int, last: int) -> list[tuple[int, int]]:
    """How far the clock in a zone is ahead of UTC, each with the second until which that holds."""
    found = []
    instant, end = instant_of(first), instant_of(last)
    while instant < end:
        following = min(instant + timedelta(days=1), end)
        if zone_offset(instant, zone) != zone_offset(following, zone):
            change = clock_change(zone, instant, following)
            found.append((int(change.timestamp()), offset_seconds(instant, zone)))
        instant = following
    return [*found, (last + 1, offset_seconds(end, zone))]


def offset_seconds(instant: datetime, zone: ZoneInfo) -> int:
    """How far the clock in a zone is ahead of UTC."""
    return int(zone_offset(instant, zone).total_seconds())


def day_of_number(number: int) -> date:
    """The date of a number that `day_number` gave."""
    return FIRST_DAY + timedelta(days=number)


# What records add up to

# What can be summed by, in the order of the columns, and the columns that each gives.
DIMENSIONS = {
    "user": ("user_id", "user_email"),
    "model": ("model_id",),
    "source": ("source",),
    "day": ("day",),
    "group": ("group_id", "group_name"),
}
RECORD_SUMS = (
    func.count(),
    func.sum(records_table.c.input_tokens),
    func.sum(records_table.c.output_tokens),
    func.sum(records_table.c.cost_micros),
    func.sum(case((records_table.c.estimated, 1), else_=0)),
)
INSTANT_ALLOWED = (
    'a date such as "2026-03-01" (its beginning) or an instant such as "2026-03-01T08:00+01:00"'
)

RowKey = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Sums:
    """What a number of records add up to; money in millionths of a dollar."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_micros: int = 0
    estimated_requests: int = 0

    @property
    def total_tokens(self) -> int:
        """Input and output."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.requests + other.requests,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cost_micros + other.cost_micros,
            self.estimated_requests + other.estimated_requests,
        )


@dataclass(frozen=True, slots=True)
class Selection:
    """Which records count: ``since <= created_at < until``, and whose days they fall on.

    Args:
        since: In seconds since 1970; None: from the first one.
        until: The second after the last one; None: to the last one.
        zone: Whose calendar days are.
        reset_hour: The local hour at which they begin.
        user_id: Whose records; None: everybody's.
    """

    since: int | None = None
    until: int | None = None
    zone: ZoneInfo = field(default_factory=utc_zone)
    reset_hour: int = 0
    user_id: str | None = None

    @property
    def condition(self) -> ColumnElement[bool]:
        """Reservations still open count at their estimate, released ones not at all."""
        columns = records_table.c
        bounds = [] if self.since is None else [columns.created_at >= self.since]
        bounds += [] if self.until is None else [columns.created_at < self.until]
        bounds += [] if self.user_id is None else [columns.user_id == self.user_id]
        return and_(columns.state != "released", *bounds)


def read_dimensions(text: str) -> list[str]:
    """The names in a list with commas, in the order of the columns.

    Raises:
        ConfigurationError: One isn't a dimension.
    """
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in DIMENSIONS:
            allowed = ", ".join(DIMENSIONS)
            raise ConfigurationError("by", quoted_text(name), f"{allowed}, separated by commas")
    return [name for name in DIMENSIONS if name in names]


def read_instant(text: str | None, where: str, zone: ZoneInfo) -> int | None:
    """The first whole second that isn't before a date's beginning or an instant.

    Raises:
        ConfigurationError: It is neither.
    """
    if text is None:
        return None
    try:
        instant = reset_instant(date.fromisoformat(text.strip()), CalendarRules(zone))
    except (ValueError, OverflowError):
        try:
            instant = datetime.fromisoformat(text.strip())
            instant = instant if instant.tzinfo else instant.replace(tzinfo=zone)
            return math.ceil(instant.timestamp())
        except (ValueError, OverflowError):
            raise ConfigurationError(where, quoted_text(text), INSTANT_ALLOWED) from None
    return math.ceil(instant.timestamp())


def first_and_last(connection: Connection, selection: Selection) -> tuple[int, int] | None:
    """When the first and the last record were made, by the index."""
    created_at = records_table.c.created_at
    query = select(created_at).where(selection.condition).limit(1)
    first = connection.scalar(query.order_by(created_at))
    last = connection.scalar(query.order_by(created_at.desc()))
    return None if first is None or last is None else (first, last)


def sum_records(
    connection: Connection, selection: Selection, wanted: Sequence[str]
) -> dict[RowKey, Sums]:
    """What records add up to, by the values of some dimensions.

    Sums come from the database; only groups, of which a record names several, are told apart
    here. A record of a user in several groups counts in each of them, one in none under None.
    """
    columns: dict[str, ColumnElement[Any]] = {
        "user": records_table.c.user_id,
        "model": records_table.c.model_id,
        "source": records_table.c.source,
        "group": records_table.c.group_ids,
    }
    day_at = wanted.index("day") if "day" in wanted else None
    group_at = wanted.index("group") if "group" in wanted else None
    if day_at is not None:
        span = first_and_last(connection, selection)
        if span is None:
            return {}
        columns["day"] = day_number(selection.zone, *span, selection.reset_hour)
    grouped = [columns[name] for name in wanted]
    rows = connection.execute(
        select(*grouped, *RECORD_SUMS).where(selection.condition).group_by(*grouped),
        execution_options={"yield_per": 1_000},
    )
    sums: defaultdict[RowKey, Sums] = defaultdict(Sums)
    for row in rows:
        key = list(row[: len(wanted)])
        part = Sums(*(int(value or 0) for value in row[len(wanted) :]))
        if day_at is not None:
            key[day_at] = day_of_number(key[day_at]).isoformat()
        groups = [None] if group_at is None else split_names(key[group_at] or "") or [None]
        for group in groups:
            if group_at is not None:
                key[group_at] = group
            sums[tuple(key)] += part
    return sums


def sum_models(connection: Connection, selection: Selection) -> dict[tuple[str, str], Sums]:
    """What records add up to by model: its id and its joined names."""
    keys = (records_table.c.model_id, records_table.c.model_names)
    rows = connection.execute(
        select(*keys, *RECORD_SUMS).where(selection.condition).group_by(*keys)
    )
    return {
        (model, names): Sums(*(int(value or 0) for value in sums)) for model, names, *sums in rows
    }


def read_latest(connection: Connection, selection: Selection, most: int) -> Sequence[Row[Any]]:
    """The latest records, the newest first."""
    columns = records_table.c
    return connection.execute(
        select(
            columns.created_at,
            columns.model_id,
            columns.model_names,
            columns.source,
            columns.state,
            columns.input_tokens,
            columns.output_tokens,
            columns.cost_micros,
            columns.estimated,
        )
        .where(selection.condition)
        .order_by(columns.created_at.desc())
        .limit(most)
    ).all()


def read_grants(
    connection: Connection, scopes: Collection[str], since: int, most: int
) -> Sequence[Row[Any]]:
    """What was granted, reset and taken back since then, the newest first."""
    columns = grants_table.c
    return connection.execute(
        select(grants_table)
        .where(columns.scope.in_(sorted(scopes)), columns.expires_at > since)
        .order_by(columns.created_at.desc(), columns.id)
        .limit(most)
    ).all()


# As text

# Public, as are the columns of DIMENSIONS: other programs read them.
SUM_COLUMNS = (
    "requests",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cost_usd",
    "estimated_requests",
)
# What a spreadsheet takes for the beginning of a formula.
FORMULA_SIGNS = ("=", "+", "-", "@")


@dataclass(frozen=True, slots=True)
class UsageRow:
    """The sums of all records that are alike in some columns."""

    keys: dict[str, str | None]
    sums: Sums


def named_rows(
    wanted: Sequence[str],
    sums: Mapping[RowKey, Sums],
    emails: Mapping[str, str],
    group_names: Mapping[str, str],
) -> list[UsageRow]:
    """Rows with the names of the ids in the keys; days in order, then the largest use first."""
    rows = []
    for key, part in sums.items():
        keys: dict[str, str | None] = {}
        for name, value in zip(wanted, key, strict=True):
            keys[DIMENSIONS[name][0]] = value
            if name == "user":
                keys["user_email"] = emails.get(value or "", "")
            if name == "group":
                keys["group_name"] = group_names.get(value or "")
        rows.append(UsageRow(keys, part))
    rows.sort(
        key=lambda row: (
            row.keys.get("day") or "",
            -row.sums.total_tokens,
            *(value or "" for value in row.keys.values()),
        )
    )
    return rows


def recorded_emails(connection: Connection, user_ids: Iterable[str]) -> dict[str, str]:
    """The last address on record of users whom Open WebUI has no more."""
    columns = records_table.c
    emails = {}
    for user_id in user_ids:
        email = connection.scalar(
            select(columns.user_email)
            .where(columns.user_id == user_id)
            .order_by(columns.created_at.desc())
            .limit(1)
        )
        emails[user_id] = str(email or "")
    return emails


def printable(text: str) -> str:
    """A text without control characters: models' ids come from outside.

    A terminal or a spreadsheet might obey them, and XML has no place for them.
    """
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(letter) in ("Cc", "Cs") else letter
        for letter in text
    )


def csv_cell(text: str | None) -> str:
    """A text that a spreadsheet shows and doesn't compute."""
    shown = printable(text or "")
    return f"'{shown}" if shown.lstrip().startswith(FORMULA_SIGNS) else shown


def key_columns(dimensions: Sequence[str]) -> list[str]:
    """The columns that identify a row."""
    wanted = [name for name in DIMENSIONS if name in dimensions]
    return [name for dimension in wanted for name in DIMENSIONS[dimension]]


def sum_values(sums: Sums) -> tuple[int | Decimal, ...]:
    """The values of `SUM_COLUMNS`."""
    return (
        sums.requests,
        sums.input_tokens,
        sums.output_tokens,
        sums.total_tokens,
        Decimal(sums.cost_micros) / 1_000_000,
        sums.estimated_requests,
    )


def as_json(rows: Iterable[UsageRow]) -> str:
    """A list of objects, one on each line; money as a number."""
    objects: list[dict[str, Any]] = [
        {**row.keys, **dict(zip(SUM_COLUMNS, sum_values(row.sums), strict=True))} for row in rows
    ]
    lines = [json.dumps(item, ensure_ascii=False, default=float) for item in objects]
    return "[\n" + ",\n".join(lines) + "\n]\n" if lines else "[]\n"


def as_csv(rows: Iterable[UsageRow], dimensions: Sequence[str]) -> str:
    """Comma-separated values with a line of column names; what isn't known is empty."""
    output = StringIO()
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow([*key_columns(dimensions), *SUM_COLUMNS])
    for row in rows:
        cells = [
            f"{value:f}" if isinstance(value, Decimal) else value for value in sum_values(row.sums)
        ]
        writer.writerow([*map(csv_cell, row.keys.values()), *cells])
    return output.getvalue()


def amount_number(measure: Measure, amount: int) -> float:
    """An amount of a limit as JSON has it: money in dollars, all else as it is counted."""
    return amount / 1_000_000 if measure == "cost" else amount


def read_replayed(connection: Connection, start: int, until: int) -> Iterable[Any]:
    """Records from `start` on and before `until`, in the order of time."""
    columns = records_table.c
    return connection.execute(
        select(
            columns.created_at,
            columns.user_id,
            columns.group_ids,
            columns.model_names,
            columns.source,
            columns.state,
            columns.settled_at,
            columns.counted,
            columns.weighted_input_tokens,
            columns.weighted_output_tokens,
            columns.cost_micros,
            columns.input_tokens,
            columns.output_tokens,
            columns.cached_input_tokens,
            columns.estimated,
            columns.id,
        )
        .where(columns.created_at >= start, columns.created_at < until)
        .order_by(columns.created_at, columns.id),
        execution_options={"yield_per": 5_000},
    )
