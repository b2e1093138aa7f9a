"""The demo's sums: what is in the ledger, and what the fake provider has in its call log."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select

from helpers.ledger.database import open_database
from helpers.ledger.tables import IS_OPEN, records_table
from scripts.provider.calls import Call


@dataclass(frozen=True, slots=True)
class Totals:
    """Requests and tokens of one user, or of all."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Input and output."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Totals) -> Totals:
        return Totals(
            self.requests + other.requests,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
        )


class LedgerReader:
    """Reads the ledger in Open WebUI's database from outside, as a report does."""

    def __init__(self, database_url: str) -> None:
        self._engine = open_database(database_url)

    def totals(self, *, timeout: float = 10.0) -> dict[str, Totals]:
        """The totals by e-mail address, once no reply is open any more."""
        records = records_table.c
        sums = (func.sum(records.input_tokens), func.sum(records.output_tokens))
        query = (
            select(records.user_email, func.count(), *sums)
            .where(records.state == "settled")
            .group_by(records.user_email)
        )
        self._wait_until_settled(timeout)
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        return {email: Totals(*map(int, amounts)) for email, *amounts in rows}

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def _wait_until_settled(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while True:
            with self._engine.connect() as connection:
                count = connection.execute(select(func.count()).where(IS_OPEN)).scalar_one()
            if not count:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{count} replies are not settled after {timeout} s")
            time.sleep(0.05)


def sum_calls(calls: Sequence[Call]) -> Totals:
    """What the provider reported for its calls."""
    total = Totals()
    for call in calls:
        usage = call.reported or {}
        total += Totals(1, usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0))
    return total
