"""What admitting and settling a reply costs, however large the ledger has grown."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime

from sqlalchemy import Engine

from helpers.ledger.database import open_database
from helpers.ledger.ledger import Ledger
from helpers.ledger.limit_states import RECORDS_LOOKED_AT
from helpers.ledger.records import Reservation
from helpers.limits.periods import CalendarRules
from helpers.limits.policies import ModelRule
from helpers.limits.policies_text import parse_policies
from helpers.limits.policy import AppliedLimit, Subject, applied_limits
from helpers.metering.charges import Charge, make_charge
from helpers.metering.usage import Usage
from scripts.bench.databases import (
    OWN_USER,
    fill_ledger,
    new_database,
    own_share,
)
from scripts.bench.tables import Section
from scripts.bench.timing import median_ms, take_turns

GOAL_RATIO = 1.3
POLICIES = parse_policies(
    "[role.user]\n"
    'limits = ["1000M tokens/day", "1000M tokens/month", "1000M tokens/month on gpt-4*",'
    ' "1000M tokens/5h"]\n'
    "[pool.everyone]\n"
    'limits = ["100000M tokens/month"]\n'
)
ESTIMATE = make_charge(Usage(400, 500, estimated=True), ModelRule("*"))
COST = make_charge(Usage(400, 300), ModelRule("*"))


def new_reservation(user_id: str = OWN_USER) -> Reservation:
    """A reply that a user wants now."""
    return Reservation(
        id=uuid.uuid4().hex,
        subject=Subject(user_id, f"{user_id}@example.org", "user"),
        model_names=("gpt-4o",),
        source="page",
        chat_id=uuid.uuid4().hex,
        message_id=uuid.uuid4().hex,
        policy="user",
        created_at=int(time.time()),
    )


def limits_now(reservation: Reservation) -> tuple[AppliedLimit, ...]:
    """The five limits of a reply: a day, two months, a rolling window, a pool."""
    return applied_limits(
        reservation.subject,
        POLICIES.roles["user"],
        POLICIES,
        reservation.model_names,
        datetime.now(UTC),
        CalendarRules(),
    )


def estimate(_: object) -> Charge:
    """What is held for each reply."""
    return ESTIMATE


def admit_and_settle(
    ledger: Ledger,
    limits: Callable[[Reservation], Sequence[AppliedLimit]] = limits_now,
    users: Sequence[str] = (OWN_USER,),
) -> Callable[[], None]:
    """One reply from its admission to its end: what inlet and outlet do in the database."""
    turn = itertools.cycle(users)

    def reply() -> None:
        reservation = new_reservation(next(turn))
        applied = limits(reservation)
        admission = ledger.reserve(reservation, estimate, applied)
        if not admission.decision.allowed:
            raise RuntimeError("the limits of the benchmark are too low")
        ledger.settle(reservation, COST, applied)

    return reply


# Of those in "first" nothing is remembered of when they open again: it is looked up, among records
# of which the newest alone counts.
FIRST = ", first"
REFUSING = {
    "calendar": "[role.user]\nlimits = ['1 token/month']\n",
    "rolling": "[role.user]\nlimits = ['1 token/30d on used-up']\n",
    "pool": "[pool.everyone]\nlimits = ['1 token/30d on used-up']\n[role.user]\n"
    "limits = 'unlimited'\n",
}
REFUSING |= {name + FIRST: REFUSING[name] for name in ("rolling", "pool")}


def refuse(ledger: Ledger, text: str, is_first: bool) -> Callable[[], None]:
    """A request that a limit refuses: what inlet does in the database."""
    policies = parse_policies(text)

    def ask() -> None:
        if is_first:
            ledger.known_resets.clear()
        reservation = replace(new_reservation(), model_names=("used-up",))
        applied = applied_limits(
            reservation.subject,
            policies.roles["user"],
            policies,
            reservation.model_names,
            datetime.now(UTC),
            CalendarRules(),
        )
        if ledger.reserve(reservation, estimate, applied).decision.allowed:
            raise RuntimeError("the limits of the benchmark are too high")

    return ask


def measure_refusals(quick: bool, server_url: str) -> Section:
    """Milliseconds per refusal at several sizes of the ledger, and their ratio to the smallest."""
    section = Section("refusals", "Refusals: ms per refused request by the ledger's size")
    sizes = (1_000, 100_000) if quick else (1_000, 100_000, 1_000_000, 5_000_000)
    rounds = 10 if quick else 30
    for kind in ("SQLite", "PostgreSQL"):
        with ExitStack() as stack:
            asked: dict[tuple[str, int], Callable[[], None]] = {}
            for size in sizes:
                engine = open_database(stack.enter_context(new_database(kind, server_url)))
                stack.callback(engine.dispose)
                fill_ledger(engine, size)
                ledger = Ledger(engine, keep_connections=True)
                stack.callback(ledger.rest)
                used = replace(new_reservation(), model_names=("used-up",))
                ledger.reserve(used, estimate, (), enforce=False)
                ledger.settle(used, COST, ())
                for name, text in REFUSING.items():
                    asked[name, size] = refuse(ledger, text, name.endswith(FIRST))
            take_turns(asked, 3, 10)  # caches, and counters that are summed once
            wall = take_turns(asked, rounds, 10)
            for name in REFUSING:
                smallest = median_ms(wall[name, sizes[0]])
                for size in sizes:
                    median = median_ms(wall[name, size])
                    section.rows.append(
                        {
                            "database": kind,
                            "limit": name,
                            "records": size,
                            "ms": median,
                            "ratio": median / smallest,
                        }
                    )
                largest = median_ms(wall[name, sizes[-1]])
                what = f"{kind}, {name}, at {sizes[-1]:,} records"
                section.judge(what, largest / smallest, GOAL_RATIO, "times")
    section.notes.append(
        f"Wall time; medians of {rounds * 10} refusals, the sizes in turn. The first refusal of a "
        f"limit looks up when it opens again, in {sum(RECORDS_LOOKED_AT)} records at most; here "
        "none but the newest counts. The smallest ledger has 100 of the user."
    )
    return section


def measure_ledger(quick: bool, server_url: str) -> Section:
    """Milliseconds per reply at several sizes of the ledger, and their ratio to the smallest."""
    section = Section("ledger", "Ledger: ms per reply (admit + settle, five limits) by its size")
    sizes = (1_000, 100_000) if quick else (1_000, 100_000, 1_000_000, 5_000_000)
    rounds = 20 if quick else 60
    for kind in ("SQLite", "PostgreSQL"):
        with ExitStack() as stack:
            replies: dict[int, Callable[[], None]] = {}
            engines: list[Engine] = []
            first: dict[int, float] = {}
            for size in sizes:
                engine = open_database(stack.enter_context(new_database(kind, server_url)))
                engines.append(engine)
                stack.callback(engine.dispose)
                fill_ledger(engine, size)
                ledger = Ledger(engine, keep_connections=True)
                stack.callback(ledger.rest)
                replies[size] = admit_and_settle(ledger)
                began = time.perf_counter()
                replies[size]()
                first[size] = (time.perf_counter() - began) * 1_000
            take_turns(replies, 3, 10)  # caches
            wall = take_turns(replies, rounds, 10)
            smallest = median_ms(wall[sizes[0]])
            for size in sizes:
                median = median_ms(wall[size])
                section.rows.append(
                    {
                        "database": kind,
                        "records": size,
                        "of this user, this month": own_share(size),
                        "ms": median,
                        "ratio": median / smallest,
                        "first reply after a new limit, ms": first[size],
                    }
                )
            section.judge(
                f"{kind} at {sizes[-1]:,} records", median / smallest, GOAL_RATIO, "times"
            )
    section.notes.append(
        f"Wall time; medians of {rounds * 10} replies of one user, the sizes in turn. A limit that "
        "is new, or in its window for the first time, is summed once from the records."
    )
    return section
