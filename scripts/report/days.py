"""The calendar day of a record, worked out by the database."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import BigInteger, ColumnElement, case, literal_column

from helpers.ledger.tables import records_table
from helpers.limits.periods import clock_change, zone_offset

DAY_SECONDS = 86_400
FIRST_DAY = date(1970, 1, 1)


def instant_of(second: int) -> datetime:
    """A second of the ledger as an instant."""
    return datetime.fromtimestamp(second, UTC)


def day_number(zone: ZoneInfo, first: int, last: int) -> ColumnElement[int]:
    """In SQL: how many days after 1 January 1970 a record was made by the calendar in a zone.

    The numbers are written out: PostgreSQL takes two parameters of one value for different ones,
    and the expression stands in two places of a query.
    """
    created_at = records_table.c.created_at
    *earlier, (_, offset) = offsets(zone, first, last)
    local: ColumnElement[Any] = created_at + whole(offset)
    if earlier:
        cases = [(created_at < whole(end), created_at + whole(past)) for end, past in earlier]
        local = case(*cases, else_=local)
    return local // whole(DAY_SECONDS)


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
