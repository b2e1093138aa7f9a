"""A simulation decides about each request of a recorded day as the ledger itself would."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool

from helpers.ledger.ledger import Ledger
from helpers.ledger.records import Reservation
from helpers.ledger.reports import read_replayed
from helpers.limits.decisions import Amounts
from helpers.limits.periods import CalendarRules
from helpers.limits.policies import Policy, PolicySet
from helpers.limits.policies_text import parse_policies
from helpers.limits.policy import (
    AppliedLimit,
    GroupRef,
    Subject,
    applied_limits,
    choose_policy,
    find_model_rule,
    limits_via,
    scoped_limits,
)
from helpers.metering.charges import make_charge
from helpers.metering.usage import Usage
from helpers.openwebui.simulation import Replay, SimulationResult, replay_start
from tests.support.ledger_fixture import NOON, Clock

# Seconds since the last one, user, model, source, tokens of the prompt and of the answer.
Asked = tuple[int, str, str, str, int, int]
RULES = CalendarRules()
# The replay finds the windows by itself.
ANY_TIME = datetime(2020, 1, 1, tzinfo=UTC)
DEFAULT = Policy("default", "default", None)
USERS = {
    "ann": Subject("ann", "ann@example.org", "user", (GroupRef("g1", "Students"),)),
    "bob": Subject("bob", "bob@example.org", "user"),
    "cem": Subject("cem", "cem@example.org", "admin", (GroupRef("g1", "Students"),)),
}
LIMITS = (
    "40 tokens/day",
    "25 output tokens/hour",
    "3 requests/minute",
    "60 tokens/90m",
    "100 tokens/month on gpt-4*",
    "$0.001/day",
    "30 tokens/day via api",
    "5 requests/quarter",
    "20 input tokens/request",
    "0 requests/day on o1",
)
OLD = '[model."gpt-4*"]\ninput_price = 1\noutput_price = 2\n'
PRICES = ("", '[model."gpt-4*"]\ninput_price = 20\noutput_price = 20\nweight = 2\n')


@st.composite
def policies_texts(draw: st.DrawFn) -> str:
    """A policies text with a few limits for a group, a role, a user and two pools."""
    some = st.lists(st.sampled_from(LIMITS), min_size=1, max_size=3, unique=True)
    adding = st.lists(st.sampled_from(LIMITS[:8]), min_size=1, max_size=2, unique=True)
    return (
        f"[group.Students]\nlimits = {draw(some)!r}\n[role.user]\nlimits = {draw(some)!r}\n"
        f"[pool.everyone]\nlimits = {draw(adding)!r}\n"
        f'[pool.lab]\ngroup = "Students"\nlimits = {draw(adding)!r}\n'
        + draw(st.sampled_from(PRICES))
    )


@st.composite
def days(draw: st.DrawFn) -> list[Asked]:
    """Requests one after the other."""
    request = st.tuples(
        st.sampled_from((5, 40, 600, 4_000)),
        st.sampled_from(sorted(USERS)),
        st.sampled_from(("gpt-4o", "llama", "o1")),
        st.sampled_from(("page", "api")),
        st.integers(0, 25),
        st.integers(0, 25),
    )
    return draw(st.lists(request, min_size=1, max_size=25))


def limits_of(
    policies: PolicySet, subject: Subject, names: tuple[str, ...], at: int, source: str
) -> tuple[AppliedLimit, ...]:
    policy = choose_policy(subject, policies, DEFAULT, "priority")
    instant = datetime.fromtimestamp(at, UTC)
    applied = applied_limits(subject, policy, policies, names, instant, RULES)
    return limits_via(applied, source)


def live_through(day: list[Asked], text: str, began: int) -> tuple[Ledger, list[str], int]:
    """A day with the real ledger, where a text comes into force with one of the requests.

    The clock goes on after a refusal as after a reply.

    Returns:
        The ledger, the ids of the requests that were refused, and the time when it is over.
    """
    engine = create_engine(
        "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
    )
    clock, policies, refused = Clock(NOON), parse_policies(text), []
    ledger = Ledger(engine, clock=clock)
    for number, (pause, user, model, source, prompt, output) in enumerate(day):
        clock.now += pause
        at, names = int(clock.now), (model,)
        reservation = Reservation(f"r{number:04}", USERS[user], names, source, "", "", "x", at)
        limits = limits_of(policies, USERS[user], names, at, source)
        rule = find_model_rule(policies, names)
        charge = make_charge(Usage(prompt, output), rule)
        asked = Amounts(0, charge.counted.input_tokens)
        decision = ledger.check(reservation, limits).with_request(asked)
        clock.now += 1
        if number >= began and not decision.allowed:
            refused.append(reservation.id)
            continue
        ledger.reserve(reservation, lambda _, held=charge: held, (), enforce=False)
        ledger.settle(reservation, charge, limits, decide=False)
    return ledger, refused, int(clock.now)


def simulate(ledger: Ledger, text: str, since: int, until: int) -> SimulationResult:
    """Replay what a ledger has on record against a text."""
    policies, old = parse_policies(text), parse_policies(OLD)

    def find_limits(user_id: str, group_ids: str) -> tuple[AppliedLimit, ...]:
        subject = USERS[user_id]
        policy = choose_policy(subject, policies, DEFAULT, "priority")
        return scoped_limits(subject, policy, policies, ANY_TIME, RULES)

    replay = Replay(
        find_limits,
        lambda names: (find_model_rule(policies, names), find_model_rule(old, names)),
        RULES,
        policies.tasks_counted,
    )
    tables = (*policies.groups.values(), *policies.roles.values(), *policies.pools)
    limits = [limit for table in tables for limit in table.limits or ()]
    start = replay_start(limits, RULES, since)
    return ledger.read(lambda one: replay.run(read_replayed(one, start, until), since))


@settings(max_examples=60, deadline=None)
@given(policies_texts(), days(), st.integers(0, 24))
def test_simulation_agrees_with_the_engine_on_every_decision(
    text: str, day: list[Asked], first: int
) -> None:
    """What the ledger refuses under a policies text, its replay from the records refuses too."""
    began = min(first, len(day) - 1)
    _, refused, _ = live_through(day, text, began)
    recorded, _, now = live_through(day, OLD, len(day))
    since = NOON + sum(pause for pause, *_ in day[: began + 1]) + began
    result = simulate(recorded, text, since, now + 1)
    assert [one.id for one in result.refusals] == refused
    assert result.requests == len(day) - began


def test_a_million_records_in_ten_seconds() -> None:
    """Replaying takes a few microseconds per record, also where every request is refused."""
    count, users = 100_000, 500
    policies = parse_policies(
        "[role.user]\nlimits = ['300 tokens/day', '20k tokens/month', '2k tokens/5h']\n"
        "[pool.everyone]\nlimits = ['1M tokens/day']\n"
    )

    def find_limits(user_id: str, group_ids: str) -> tuple[AppliedLimit, ...]:
        subject = Subject(user_id, "", "user")
        return scoped_limits(subject, policies.roles["user"], policies, ANY_TIME, RULES)

    rule = find_model_rule(policies, ("gpt-4o",))
    replay = Replay(find_limits, lambda names: (rule, rule), RULES, False)
    rows = (
        (
            *(NOON + n * 20, f"user{n % users}", "|", "|gpt-4o|", "page", "settled"),
            *(NOON + n * 20 + 9, 1, 100, 50, 0, 100, 50, 0, 0, f"{n}"),
        )
        for n in range(count)
    )
    began = time.process_time()
    result = replay.run(rows, NOON)
    assert result.requests == count
    assert 0 < result.refused < count
    # The benchmarks measure it; a machine may be busy with other tests.
    assert time.process_time() - began < count * 30e-6
