"""A ledger with a clock that stands, and what tests do on it most."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Engine, select

from helpers.ledger.ledger import Ledger
from helpers.ledger.records import Reservation
from helpers.ledger.tables import records_table
from helpers.limits.decisions import Decision
from helpers.limits.periods import CalendarRules
from helpers.limits.policies import ModelRule
from helpers.limits.policies_text import parse_policies
from helpers.limits.policy import AppliedLimit, Subject, applied_limits, limits_via
from helpers.metering.charges import Charge, make_charge
from helpers.metering.usage import Usage

NOON = int(datetime(2026, 3, 10, 12, tzinfo=UTC).timestamp())


@dataclass
class Clock:
    """A clock that stands until it is set."""

    now: float = NOON

    def __call__(self) -> float:
        return self.now


def standing(ledger: Ledger, reservation: Reservation, limits: Sequence[AppliedLimit]) -> Decision:
    """Where limits stand without a reply, which isn't running."""
    return ledger.grow(reservation, lambda _: Charge(), limits)


@dataclass
class LedgerFixture:
    """A ledger with what tests do on it most."""

    ledger: Ledger
    engine: Engine
    clock: Clock
    made: list[Reservation] = field(default_factory=list)

    def drop_older(self, seconds: int) -> int:
        """Drop what is older than that, as a worker does bit by bit; how many records that was."""
        oldest = self.ledger.find_oldest_kept(seconds)
        dropped = 0
        while oldest is not None and (batch := self.ledger.drop_some(oldest)):
            dropped += batch
        return dropped

    def reservation(self, user: str = "ann", **changes: Any) -> Reservation:
        values: dict[str, Any] = {
            "id": f"r{len(self.made)}-{id(self)}",
            "subject": Subject(user, f"{user}@example.org", "user"),
            "model_names": ("gpt-4o",),
            "source": "page",
            "chat_id": "",
            "message_id": "",
            "policy": "default",
            "created_at": int(self.clock.now),
        }
        self.made.append(Reservation(**(values | changes)))
        return self.made[-1]

    def limits(self, reservation: Reservation, *texts: str, pool: str = "") -> tuple[Any, ...]:
        pools = f"[pool.everyone]\nlimits = [{pool!r}]\n" if pool else ""
        at = datetime.fromtimestamp(self.clock.now, UTC)
        policies = parse_policies(f"{pools}[role.user]\nlimits = {list(texts) or 'unlimited'!r}\n")
        limits = applied_limits(
            reservation.subject,
            policies.roles["user"],
            policies,
            reservation.model_names,
            at,
            CalendarRules(),
        )
        return limits_via(limits, reservation.source)

    def ask(self, *texts: str, pool: str = "", user: str = "ann", **changes: Any) -> Decision:
        reservation = self.reservation(user, **changes)
        limits = self.limits(reservation, *texts, pool=pool)
        return self.ledger.reserve(reservation, lambda _: tokens(10, 10), limits).decision

    def use(self, *texts: str, used: Charge, pool: str = "", **changes: Any) -> Decision:
        assert self.ask(*texts, pool=pool, **changes).allowed
        limits = self.limits(self.made[-1], *texts, pool=pool)
        return self.ledger.settle(self.made[-1], used, limits).decision

    def chat_until(self, end: float, user: str, *texts: str, pool: str) -> int:
        """Replies of 7 tokens one after the other until `end`, by `time.monotonic`; how many."""
        done = 0
        while time.monotonic() < end:
            made = self.reservation(user, id=f"{user}-{done}", created_at=int(time.time()))
            limits = self.limits(made, *texts, pool=pool)
            self.ledger.reserve(made, lambda _: tokens(1, 1), limits)
            self.ledger.settle(made, tokens(3, 4), limits)
            done += 1
        return done

    def rows(self) -> list[Any]:
        with self.engine.connect() as connection:
            return list(connection.execute(select(records_table).order_by(records_table.c.id)))


def tokens(input_tokens: int, output_tokens: int, cost: int = 0, weight: str = "1") -> Charge:
    usage = Usage(input_tokens, output_tokens, 0, cost, estimated=False)
    return make_charge(usage, ModelRule("*", weight=Decimal(weight)))
