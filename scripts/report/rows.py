"""Sums of the ledger's records with today's names of users and groups."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date

from sqlalchemy import Connection

from helpers.ledger.report_rows import UsageRow, named_rows
from helpers.ledger.reports import (
    DIMENSIONS,
    Selection,
    Sums,
    first_and_last,
    instant_of,
    recorded_emails,
    sum_records,
)
from scripts.limits.host import read_emails, read_group_names


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
        """The sums by these dimensions: by day in order, then the largest first."""
        wanted = [name for name in DIMENSIONS if name in dimensions]
        sums = sum_records(self.ledger, self.selection, wanted)
        emails: dict[str, str] = {}
        if "user" in wanted:
            users = {str(key[wanted.index("user")]) for key in sums}
            emails = read_emails(self.host, users)
            emails |= recorded_emails(self.ledger, users - emails.keys())
        groups = read_group_names(self.host) if "group" in wanted else {}
        return list(named_rows(wanted, sums, emails, groups))

    def totals(self) -> Sums:
        """The sums of all records, each once."""
        return Sums(*sum_records(self.ledger, self.selection, ()).get((), ()))

    def span(self) -> tuple[date, date] | None:
        """The days of the first and the last record; None if there is none."""
        seconds = first_and_last(self.ledger, self.selection)
        if seconds is None:
            return None
        zone = self.selection.zone
        first, last = (instant_of(second).astimezone(zone).date() for second in seconds)
        return first, last
