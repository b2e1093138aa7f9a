"""Sums of the ledger's records, by user, model, source, day and group."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    case,
    func,
    select,
)

from helpers.ledger.counters import split_names
from helpers.ledger.tables import records_table
from helpers.limits.periods import utc_zone
from scripts.limits.host import read_emails, read_group_names
from scripts.report.days import day_number, day_of_number, instant_of

# What can be summed by, in the order of the columns, and the columns that each gives.
DIMENSIONS = {
    "user": ("user_id", "user_email"),
    "model": ("model_id",),
    "source": ("source",),
    "day": ("day",),
    "group": ("group_id", "group_name"),
}
COUNTED = (
    func.count(),
    func.sum(records_table.c.input_tokens),
    func.sum(records_table.c.output_tokens),
    func.sum(records_table.c.cost_micros),
    func.sum(case((records_table.c.estimated, 1), else_=0)),
)

Key = tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Sums:
    """What a number of records add up to."""

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
    """Which records count: ``since <= created_at < until``, and whose days they fall on."""

    since: int | None = None
    until: int | None = None
    zone: ZoneInfo = field(default_factory=utc_zone)

    @property
    def condition(self) -> ColumnElement[bool]:
        """Reservations still open count at their estimate, released ones not at all."""
        created_at = records_table.c.created_at
        bounds = [] if self.since is None else [created_at >= self.since]
        bounds += [] if self.until is None else [created_at < self.until]
        return and_(records_table.c.state != "released", *bounds)


@dataclass(frozen=True, slots=True)
class UsageRow:
    """The sums of all records that are alike in some columns."""

    keys: dict[str, str | None]
    sums: Sums


@dataclass(frozen=True, slots=True)
class UsageReader:
    """Reads the sums of a selection of records.

    Args:
        ledger: Where the records are.
        host: Where Open WebUI's own tables are, for today's names; often the same.
        selection: Which records count.
    """

    ledger: Connection
    host: Connection
    selection: Selection

    def rows(self, dimensions: Collection[str]) -> list[UsageRow]:
        """Sum the records; days in order, then the largest use first.

        Sums come from the database; only groups, of which a record names several, are told
        apart here. A record of a user in several groups counts in each of them.
        """
        wanted = [name for name in DIMENSIONS if name in dimensions]
        sums: defaultdict[Key, Sums] = defaultdict(Sums)
        for key, part in self._aggregate(wanted):
            for one in split_groups(key, wanted):
                sums[one] += part
        rows = self._named(wanted, sums)
        rows.sort(
            key=lambda row: (
                row.keys.get("day") or "",
                -row.sums.total_tokens,
                *(value or "" for value in row.keys.values()),
            )
        )
        return rows

    def totals(self) -> Sums:
        """The sums of all records, each once."""
        (row,) = self.rows(())
        return row.sums

    def span(self) -> tuple[date, date] | None:
        """The days of the first and the last record; None if there is none."""
        seconds = self._first_and_last()
        if seconds is None:
            return None
        zone = self.selection.zone
        first, last = (instant_of(second).astimezone(zone).date() for second in seconds)
        return first, last

    def _first_and_last(self) -> tuple[int, int] | None:
        """When the first and the last record were made, by the index."""
        created_at = records_table.c.created_at
        query = select(created_at).where(self.selection.condition).limit(1)
        first = self.ledger.scalar(query.order_by(created_at))
        last = self.ledger.scalar(query.order_by(created_at.desc()))
        return None if first is None or last is None else (first, last)

    def _aggregate(self, wanted: list[str]) -> Iterator[tuple[Key, Sums]]:
        """The database's own sums, by the groups as recorded."""
        columns: dict[str, ColumnElement[Any]] = {
            "user": records_table.c.user_id,
            "model": records_table.c.model_id,
            "source": records_table.c.source,
            "group": records_table.c.group_ids,
        }
        day_at = wanted.index("day") if "day" in wanted else None
        if day_at is not None:
            span = self._first_and_last()
            if span is None:
                return
            columns["day"] = day_number(self.selection.zone, *span)
        grouped = [columns[name] for name in wanted]
        rows = self.ledger.execute(
            select(*grouped, *COUNTED).where(self.selection.condition).group_by(*grouped),
            execution_options={"yield_per": 1_000},
        )
        for row in rows:
            key = list(row[: len(wanted)])
            if day_at is not None:
                key[day_at] = day_of_number(key[day_at]).isoformat()
            yield tuple(key), Sums(*(int(value or 0) for value in row[len(wanted) :]))

    def _named(self, wanted: list[str], sums: Mapping[Key, Sums]) -> list[UsageRow]:
        """Rows with the names that belong to the ids in the keys."""
        emails: dict[str, str] = {}
        if "user" in wanted:
            at = wanted.index("user")
            emails = self._newest_emails({key[at] or "" for key in sums})
        group_names = read_group_names(self.host) if "group" in wanted else {}
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
        return rows

    def _newest_emails(self, user_ids: set[str]) -> dict[str, str]:
        """Each user's address: the one that Open WebUI has now, else the last one on record."""
        emails = read_emails(self.host, user_ids)
        for user_id in user_ids - emails.keys():
            email = self.ledger.scalar(
                select(records_table.c.user_email)
                .where(records_table.c.user_id == user_id)
                .order_by(records_table.c.created_at.desc())
                .limit(1)
            )
            emails[user_id] = email or ""
        return emails


def split_groups(key: Key, wanted: list[str]) -> Iterable[Key]:
    """The key once for each group in it; with None for a user in no group."""
    if "group" not in wanted:
        return [key]
    at = wanted.index("group")
    return [(*key[:at], group, *key[at + 1 :]) for group in split_names(key[at] or "") or (None,)]
