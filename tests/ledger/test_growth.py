"""Reservations that grow: whatever happens in whatever order, used and reserved are right."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from helpers.ledger.database import open_database
from helpers.ledger.ledger import Ledger
from helpers.ledger.records import LEASE_SECONDS
from helpers.ledger.reply_lengths import LENGTH_BOUNDS, ReplyLengths, usual_lengths
from helpers.ledger.tables import ledger_metadata
from helpers.limits.decisions import Decision
from helpers.limits.policies import ModelRule
from helpers.metering.charges import Charge, make_charge
from helpers.metering.usage import Usage
from helpers.openwebui.messages import Reader
from helpers.openwebui.replies import Reply
from tests.support.ledger_fixture import NOON, Clock, LedgerFixture, standing, tokens

pytest_plugins = ["tests.support.databases"]

numbers = st.integers(0, 99)
OWN_LIMIT, POOL_LIMIT = 2_000, 3_000
LIMITS = f"{OWN_LIMIT} output tokens/day"
POOL = f"{POOL_LIMIT} output tokens/day"


@dataclass(eq=False)
class Written:
    """A reply, and what its provider has produced of it."""

    reply: Reply
    limits: tuple[Any, ...]
    held: int
    produced: int = 0
    swept: bool = False

    @property
    def seen(self) -> Usage:
        return Usage(10, self.produced, estimated=True)


class GrowingReplies(RuleBasedStateMachine):
    """Replies that are admitted, grow, stop, end, and are left by a crash."""

    database_url = ""

    def __init__(self) -> None:
        super().__init__()
        self.engine = open_database(self.database_url)
        clock = Clock(NOON)
        self.fixture = LedgerFixture(Ledger(self.engine, clock=clock), self.engine, clock)
        self.fixture.ledger.prepare()
        with self.engine.begin() as connection:
            for table in ledger_metadata.sorted_tables:
                if table.name != "usage_limits_migrations":
                    connection.execute(table.delete())
        self.running: list[Written] = []
        self.crashed: list[Written] = []
        self.settled = {"ann": 0, "bob": 0}

    def teardown(self) -> None:
        self.engine.dispose()

    @rule(
        user=st.sampled_from(["ann", "bob"]),
        wanted=st.none() | st.integers(1, 3_000),
        stops=st.booleans(),
        capped=st.booleans(),
    )
    def admit(self, user: str, wanted: int | None, stops: bool, capped: bool) -> None:
        reservation = self.fixture.reservation(user)
        limits = self.fixture.limits(reservation, LIMITS, pool=POOL)
        reply = Reply(
            keeper=None,
            reservation=reservation,
            limits=limits,
            rule=ModelRule("*"),
            reader=Reader(ZoneInfo("UTC")),
            enforced=True,
            prompt_tokens=10,
            wanted_output=wanted,
            capped=capped,
            soft_limit_percent=80,
            alert_url="",
            stops_at_limit=stops,
        )
        before = self.taken(user)
        admission = self.fixture.ledger.reserve(reservation, reply.fit_output, limits)
        assert admission.decision.allowed == (
            before < OWN_LIMIT and sum(self.taken(each) for each in ("ann", "bob")) < POOL_LIMIT
        )
        if not admission.decision.allowed:
            return
        # Nobody holds more of a limit than it leaves.
        assert before + reply.output_tokens <= OWN_LIMIT
        made = Written(reply, limits, reply.output_tokens)
        self.running.append(made)

    @precondition(lambda self: self.running)
    @rule(number=numbers, tokens_=st.integers(1, 900), block=st.integers(16, 400))
    def write(self, number: int, tokens_: int, block: int) -> None:
        """The provider writes on; a reply that stops does so where it gets no more."""
        written = self.running[number % len(self.running)]
        reply = written.reply
        wanted = written.produced + tokens_
        while reply.stops and reply.output_tokens < wanted:
            before = reply.output_tokens
            written.produced = max(written.produced, before)
            self.grow(written, block)
            if reply.output_tokens == before:
                assert reply.refused_by is not None
                wanted = before
        written.produced = max(written.produced, wanted)
        if not reply.stops:
            self.grow(written, block)

    def grow(self, written: Written, block: int) -> Decision:
        reply = written.reply
        hold = partial(reply.hold_more, written.seen, reply.output_tokens, block)
        limits = written.limits if reply.stops else ()
        decision = self.fixture.ledger.grow(reply.reservation, hold, limits)
        held = reply.reserved_charge(written.seen).counted.output_tokens
        written.held = held
        return decision

    @precondition(lambda self: self.running)
    @rule(number=numbers, answered=st.booleans())
    def end(self, number: int, answered: bool) -> None:
        """A reply ends, or fails before its provider answers."""
        written = self.running.pop(number % len(self.running))
        self.close(written, make_charge(written.seen, written.reply.rule) if answered else None)

    def close(self, written: Written, charge: Charge | None) -> None:
        reservation = written.reply.reservation
        assert self.fixture.ledger.settle(reservation, charge, written.limits).closed
        self.settled[reservation.subject.user_id] += charge.counted.output_tokens if charge else 0
        # Growth that comes too late changes nothing.
        self.fixture.ledger.grow(reservation, lambda _: tokens(1, 9_999), ())

    @precondition(lambda self: self.running)
    @rule(number=numbers)
    def crash(self, number: int) -> None:
        """The worker of a reply is gone."""
        self.crashed.append(self.running.pop(number % len(self.running)))

    @rule()
    def sweep(self) -> None:
        """The leases of what crashed run out; those of the living were renewed."""
        self.fixture.clock.now += LEASE_SECONDS + 1
        for each in self.running:
            charge = each.reply.reserved_charge(each.seen)
            self.fixture.ledger.renew({each.reply.reservation.id: charge})
            each.held = charge.counted.output_tokens
        gone = [each for each in self.crashed if not each.swept]
        assert self.fixture.ledger.sweep() == len(gone)
        for each in gone:
            each.swept = True
            self.settled[each.reply.reservation.subject.user_id] += each.held

    @precondition(lambda self: self.crashed)
    @rule(number=numbers)
    def end_after_all(self, number: int) -> None:
        """A worker was only slow: what it says in the end is right."""
        written = self.crashed.pop(number % len(self.crashed))
        if written.swept:
            self.settled[written.reply.reservation.subject.user_id] -= written.held
        self.close(written, make_charge(written.seen, written.reply.rule))

    @property
    def reserved(self) -> list[Written]:
        """What still holds something."""
        return [*self.running, *(each for each in self.crashed if not each.swept)]

    def taken(self, user: str) -> int:
        held = sum(
            each.held for each in self.reserved if each.reply.reservation.subject.user_id == user
        )
        return self.settled[user] + held

    @invariant()
    def used_and_reserved_are_right(self) -> None:
        for user in ("ann", "bob"):
            asking = self.fixture.reservation(user)
            limits = self.fixture.limits(asking, LIMITS, pool=POOL)
            own, pool = standing(self.fixture.ledger, asking, limits).states
            assert own.used == self.settled[user]
            assert own.taken == self.taken(user)
            assert pool.taken == self.taken("ann") + self.taken("bob")

    @invariant()
    def nothing_produced_is_unreserved(self) -> None:
        for each in self.reserved:
            assert each.held >= each.produced


@pytest.mark.slow
def test_any_order_keeps_used_and_reserved_right(database_url: str) -> None:
    """Admit, grow, settle, release, stop, crash and sweep in any order: both sums are right."""

    class OnThisDatabase(GrowingReplies):
        pass

    OnThisDatabase.database_url = database_url
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        OnThisDatabase,
        settings=settings(
            max_examples=25,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def row(
    user: str, tokens_: int, model: str = "m", source: str = "page", state: str = "settled"
) -> Any:
    return (model, user, tokens_, source, state)


def test_usual_length_is_a_high_quantile() -> None:
    """Nine in ten of a model's replies are shorter, within bounds."""
    lengths = [row(f"u{number}", 100 * number) for number in range(1, 21)]
    assert usual_lengths(lengths) == {"m": 1_800, None: 1_800}
    assert usual_lengths([row("u", 3)]) == dict.fromkeys(("m", None), LENGTH_BOUNDS[0])
    assert usual_lengths([row("u", 10**9)]) == dict.fromkeys(("m", None), LENGTH_BOUNDS[1])


def test_nobody_makes_the_reservations_of_others_larger() -> None:
    """However many replies one user has, they weigh no more than another's one."""
    others = [row(f"u{number}", 700) for number in range(10)]
    flood = [row("mallory", 8_000) for _ in range(500)]
    assert usual_lengths(flood + others) == {"m": 700, None: 700}
    tiny = [row("mallory", 1) for _ in range(500)]
    assert usual_lengths(tiny + others) == {"m": 700, None: 700}


def test_lengths_are_of_replies() -> None:
    """Titles, what was filled in, what failed and what still runs say nothing."""
    left_out = [
        row("u", 900, source="task"),
        row("u", 900, source="backfill"),
        row("u", 900, state="released"),
        row("u", 900, state="reserved"),
        row("u", 0),
    ]
    assert usual_lengths(left_out) == {}


def test_lengths_are_shared_by_workers(database_url: str) -> None:
    """What one worker has settled the other knows within a moment, also for models never seen."""
    engine = open_database(database_url)
    fixture = LedgerFixture(Ledger(engine, clock=Clock(NOON)), engine, Clock(NOON))
    moment = Clock(0)
    other = ReplyLengths(Ledger(engine).read, moment)
    fixture.ledger.prepare()
    assert other.expected("gpt-4o") == LENGTH_BOUNDS[0]
    fixture.use(used=tokens(10, 2_345))
    assert other.expected("gpt-4o") == LENGTH_BOUNDS[0]
    moment.now += 1
    assert other.expected("gpt-4o") == 2_345
    assert other.expected("never seen") == 2_345
    engine.dispose()
