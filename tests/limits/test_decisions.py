"""Amounts against limits: each number that a decision is made from, at its edges."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from helpers.limits.decisions import NOTHING, Amounts, Decision, LimitState
from helpers.limits.limit import parse_limit
from helpers.limits.periods import CalendarRules
from helpers.limits.policy import AppliedLimit

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
USED = Amounts(requests=2, input_tokens=30, output_tokens=12, cost_micros=7)


def state(text: str, used: int = 0, reserved: int = 0, granted: int = 0) -> LimitState:
    """Where a user's limit stands."""
    limit = parse_limit(text)
    window = limit.period.window(NOW, CalendarRules())
    applied = AppliedLimit(limit, "user:ann", window, "Students")
    return LimitState(applied, used, reserved, window.end, granted)


def test_amounts_add_up_and_take_away() -> None:
    """Every number is added to its own, and taken from it."""
    other = Amounts(1, 2, 3, 4)
    assert USED + other == Amounts(3, 32, 15, 11)
    assert USED + other - other == USED
    assert USED - USED == NOTHING


@pytest.mark.parametrize(
    ("measure", "number"),
    [("tokens", 42), ("input_tokens", 30), ("output_tokens", 12), ("requests", 2), ("cost", 7)],
)
def test_each_measure_has_its_number(measure: str, number: int) -> None:
    """A limit compares the number that its measure names."""
    assert USED.of(measure) == number  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("used", "reserved", "granted", "exceeded", "remaining", "percent"),
    [
        (0, 0, 0, False, 100, 0),
        (99, 0, 0, False, 1, 99),
        (100, 0, 0, True, 0, 100),
        (60, 39, 0, False, 1, 99),
        (60, 40, 0, True, 0, 100),
        (170, 0, 0, True, 0, 170),
        (100, 0, 1, False, 1, 99),
        (100, 50, 50, True, 0, 100),
    ],
)
def test_where_a_limit_stands(
    used: int, reserved: int, granted: int, exceeded: bool, remaining: int, percent: int
) -> None:
    """A limit is reached by use and reservations together, and raised by grants."""
    found = state("100 tokens/day", used, reserved, granted)
    assert found.exceeded is exceeded
    assert (found.remaining, found.percent) == (remaining, percent)
    assert found.is_only_held is (exceeded and used < 100 + granted)
    assert Decision((found,)).allowed is not exceeded


def test_limit_of_zero_is_reached_by_nothing() -> None:
    """0 allows nothing at all, and is full from the start."""
    found = state("0 tokens/day")
    assert (found.exceeded, found.percent, found.remaining) == (True, 100, 0)


@pytest.mark.parametrize(
    ("used", "crossed"), [(0, None), (69, None), (70, 70), (89, 70), (90, 90), (500, 90)]
)
def test_highest_warning_that_is_crossed(used: int, crossed: int | None) -> None:
    """A limit's own warnings count in place of the valve's; the highest one is told."""
    assert state("100 tokens/day warn 70% 90%", used).crossed_threshold(10) == crossed


def test_warning_of_the_valve() -> None:
    """Without warnings of its own a limit warns where the valve says."""
    assert state("100 tokens/day", 79).crossed_threshold(80) is None
    assert state("100 tokens/day", 80).crossed_threshold(80) == 80
    assert state("3 requests at once", 3).crossed_threshold(80) is None


def test_refusing_limit_is_the_one_that_opens_last() -> None:
    """Of several that are reached the user waits for the last; of none, for nothing."""
    day, month = state("10 tokens/day", 10), state("10 tokens/month", 10)
    free = replace(state("10 tokens/year", 9), reset_at=NOW + timedelta(days=900))
    assert Decision((month, day, free)).refusing == month
    assert Decision((day, month, free)).refusing == month
    assert Decision((free,)).refusing is None
    assert Decision().refusing is None
    assert Decision().allowed


def test_fullest_limit_adds_up() -> None:
    """The limit of which the largest part is taken; those about one moment aside."""
    half, most = state("10 tokens/day", 5), state("1000 tokens/month", 900)
    once = state("1 request at once", 1)
    assert Decision((half, once, most)).fullest == most
    assert Decision((once,)).fullest is None


def test_running_reply_counts_but_for_its_request() -> None:
    """What a running reply has used counts; its one request was admitted already."""
    tokens, requests = state("100 tokens/day", 50), state("2 requests/day", 2)
    running = Decision((tokens, requests)).with_running(USED)
    assert [one.used for one in running.states] == [92]
    assert running.allowed
