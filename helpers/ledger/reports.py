"""Reports: what records add up to by user, model, day, group and source, read only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from operator import add
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    case,
    select,
    type_coerce,
)

from helpers.errors import ConfigurationError
from helpers.ledger.counters import split_names
from helpers.ledger.rollups import Summed, between, find_summed, summed_records, whole
from helpers.ledger.tables import records_table
from helpers.limits.periods import (
    CalendarRules,
    clock_change,
    quoted_text,
    reset_instant,
    utc_zone,
    zone_offset,
)

# Which day a record belongs to

DAY_LENGTH = 86_400
FIRST_DAY = date(1970, 1, 1)


def instant_of(second: int) -> datetime:
    """A second of the ledger as an instant."""
    return datetime.fromtimestamp(second, UTC)


def day_number(
    instant: ColumnElement[int], zone: ZoneInfo, first: int, last: int, reset_hour: int = 0
) -> ColumnElement[int]:
    """In SQL: how many days after 1 January 1970 an instant is by the calendar in a zone."""
    back = reset_hour * 3_600
    *earlier, (_, offset) = offsets(zone, first, last)
    local: ColumnElement[Any] = instant + whole(offset - back)
    if earlier:
        cases = [(instant < whole(end), instant + whole(past - back)) for end, past in earlier]
        local = case(*cases, else_=local)
    return local // whole(DAY_LENGTH)


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


# What records add up to

# What can be summed by, in the order of the columns, and the columns that each gives.
DIMENSIONS = {
    "user": ("user_id", "user_email"),
    "model": ("model_id",),
    "source": ("source",),
    "day": ("day",),
    "group": ("group_id", "group_name"),
}
INSTANT_ALLOWED = (
    'a date such as "2026-03-01" (its beginning) or an instant such as "2026-03-01T08:00+01:00"'
)

# Few enough that Python's collector, which holds every thread, has little to look at.
RECORDS_AT_ONCE = 500

RowKey = tuple[Any, ...]
# What `Sums` takes. Plain tuples of numbers, thousands of which Python's collector soon leaves
# alone: it holds every thread while it goes through objects of any other kind.
Numbers = tuple[int, ...]


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
    def records(self) -> Summed:
        """The records that count."""
        columns = records_table.c
        condition = between(columns.created_at, self.since, self.until)
        if self.user_id is not None:
            condition = and_(condition, columns.user_id == self.user_id)
        return summed_records(condition)

    def summed(self, connection: Connection, wanted: Sequence[str]) -> list[Summed]:
        """The same, or rollups of them, which a user has too few records for."""
        if self.user_id is not None:
            return [self.records]
        return find_summed(connection, wanted, self.since, self.until)


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
    query = select(created_at).where(selection.records.condition).limit(1)
    first = connection.scalar(query.order_by(created_at))
    last = connection.scalar(query.order_by(created_at.desc()))
    return None if first is None or last is None else (first, last)


def sum_records(
    connection: Connection, selection: Selection, wanted: Sequence[str], most: int | None = None
) -> dict[RowKey, Numbers]:
    """What records add up to, by the values of some dimensions, as `Sums` takes it.

    Sums come from the database; only groups, of which a record names several, are told apart
    here. A record of a user in several groups counts in each of them, one in none under None.

    Args:
        selection: Which records count.
        wanted: The dimensions, in the order of `DIMENSIONS`.
        most: Where there are more sums than that, the rest isn't read.
    """
    day_at = wanted.index("day") if "day" in wanted else None
    group_at = wanted.index("group") if "group" in wanted else None
    sums: dict[RowKey, Numbers] = {}
    span = first_and_last(connection, selection) if day_at is not None else (0, 0)
    if span is None:
        return sums
    first, last = span
    for summed in selection.summed(connection, wanted):
        columns = summed.columns
        if day_at is not None:
            columns["day"] = day_number(
                summed.instant, selection.zone, first, last, selection.reset_hour
            )
        grouped = [columns[name] for name in wanted]
        query = select(*grouped, *summed.sums).where(summed.condition).group_by(*grouped)
        # PostgreSQL doesn't know how few days there are, and would sort all records for a limit.
        if most is not None and group_at is None and day_at is None:
            rows = read_few_rows(connection, query.limit(most + 1))
        else:
            rows = read_rows(connection, query)
        for row in rows:
            key = list(row[: len(wanted)])
            part = tuple(int(value or 0) for value in row[len(wanted) :])
            if day_at is not None:
                key[day_at] = (FIRST_DAY + timedelta(days=key[day_at])).isoformat()
            groups = [None] if group_at is None else split_names(key[group_at] or "") or [None]
            for group in groups:
                if group_at is not None:
                    key[group_at] = group
                known = sums.get(whole_key := tuple(key))
                sums[whole_key] = part if known is None else tuple(map(add, known, part))
            if most is not None and len(sums) > most:
                return sums
    return sums


def read_rows(connection: Connection, query: Select[Any]) -> Iterator[Row[Any]]:
    """Rows as they come, a few at a time; whoever has enough of them closes the cursor."""
    options = {"yield_per": RECORDS_AT_ONCE}
    with connection.execute(query, execution_options=options) as found:
        for some in found.partitions():
            yield from some


def read_few_rows(connection: Connection, query: Select[Any]) -> Iterator[Row[Any]]:
    """The same where all of them are few: PostgreSQL's workers share the work of such a query."""
    for some in connection.execute(query).partitions(RECORDS_AT_ONCE):
        yield from some


def sum_models(connection: Connection, selection: Selection) -> dict[tuple[str, str], Sums]:
    """What records add up to by model: its id and its joined names."""
    keys = (records_table.c.model_id, records_table.c.model_names)
    records = selection.records
    rows = connection.execute(select(*keys, *records.sums).where(records.condition).group_by(*keys))
    return {
        (model, names): Sums(*(int(value or 0) for value in sums)) for model, names, *sums in rows
    }


def read_latest(connection: Connection, selection: Selection, most: int) -> Sequence[Row[Any]]:
    """The latest records, the newest first."""
    columns = records_table.c[
        *("created_at", "model_id", "model_names", "source", "state", "input_tokens"),
        *("output_tokens", "cost_micros", "estimated"),
    ]
    return connection.execute(
        select(*columns)
        .where(selection.records.condition)
        .order_by(columns.created_at.desc())
        .limit(most)
    ).all()


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


def read_replayed(connection: Connection, start: int, until: int) -> Iterable[Any]:
    """Records from `start` on and before `until`, in the order of time."""
    columns = records_table.c
    query = (
        select(
            *columns["created_at", "user_id", "group_ids", "model_names", "source", "state"],
            *columns["settled_at", "counted", "weighted_input_tokens", "weighted_output_tokens"],
            *columns["cost_micros", "input_tokens", "output_tokens", "cached_input_tokens"],
            type_coerce(columns.estimated, BigInteger),  # as it is: a bool takes a call for each
            columns.id,
        )
        .where(columns.created_at >= start, columns.created_at < until)
        .order_by(columns.created_at, columns.id)
    )
    return read_rows(connection, query)
