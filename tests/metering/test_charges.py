"""What a reply costs, in tokens, in money and toward limits."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from helpers.limits.decisions import NOTHING, Amounts, Decision, LimitState
from helpers.limits.limit import parse_limit
from helpers.limits.periods import CalendarRules
from helpers.limits.policies import ModelRule
from helpers.limits.policy import AppliedLimit
from helpers.metering.charges import LARGEST_CHARGE, make_charge, most_output_tokens, price_of
from helpers.metering.usage import Usage

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
PLAIN = ModelRule("*")


def decision(*limits: tuple[str, int]) -> Decision:
    """Limits with what is used of them."""
    states = []
    for text, used in limits:
        limit = parse_limit(text)
        window = limit.period.window(NOW, CalendarRules())
        states.append(LimitState(AppliedLimit(limit, "user:u", window, ""), used, 0, window.end))
    return Decision(tuple(states))


def cost(rule: ModelRule, prompt: int, output: int, cached: int, *parts: int) -> int:
    """The price of so many tokens, some of which were cached, written to a cache, or thought."""
    return price_of(Usage(prompt, output, cached, None, False, *parts), rule)


def test_cost_by_price() -> None:
    """Cached input has its own price; tokens times $ per million are millionths of a dollar."""
    rule = ModelRule("gpt-4o", Decimal("2.5"), Decimal(10), Decimal("1.25"))
    assert cost(rule, 1000, 100, 0) == 3500
    assert cost(rule, 1000, 100, 400) == 600 * 2.5 + 400 * 1.25 + 100 * 10
    assert cost(rule, 11, 0, 9_999) == 14  # no more is cached than there is: 13.75
    assert make_charge(Usage(1000, 100), PLAIN).cost_micros == 0
    # A price of nothing counts before what the provider says.
    assert make_charge(Usage(1000, cost_micros=7), ModelRule("m", Decimal(0))).cost_micros == 0


def test_cache_writes_and_reasoning_have_prices_of_their_own() -> None:
    """What a provider prices apart costs its own price, and without one the whole's."""
    plain = ModelRule("m", input_price=Decimal(2), output_price=Decimal(10))
    assert cost(plain, 1000, 100, 400, 300, 60) == 1000 * 2 + 100 * 10
    apart = replace(plain, cache_write_price=Decimal(3), reasoning_price=Decimal(20))
    assert cost(apart, 1000, 100, 400, 300, 60) == 700 * 2 + 300 * 3 + 40 * 10 + 60 * 20
    only_thoughts = ModelRule("m", reasoning_price=Decimal(5))
    assert cost(only_thoughts, 1000, 100, 0, 0, 60) == 300
    assert cost(only_thoughts, 1000, 100, 0, 10**9, 10**9) == 500


def test_the_least_cost_is_a_millionth() -> None:
    """Calls too small for a millionth of a dollar still add up; a price of nothing is nothing."""
    assert cost(ModelRule("m", input_price=Decimal("0.01")), 1, 0, 0) == 1
    assert cost(ModelRule("m", input_price=Decimal(0)), 1000, 1000, 0) == 0


@pytest.mark.parametrize(
    ("limits", "rule", "most"),
    [
        ([], PLAIN, None),
        ([("9 requests/day", 1)], PLAIN, None),
        ([("1k input tokens/day", 1)], PLAIN, None),
        ([("1k tokens/day", 300)], PLAIN, 690),
        ([("1k output tokens/day", 300)], PLAIN, 700),
        ([("1k tokens/day", 300), ("200 output tokens/day", 0)], PLAIN, 200),
        ([("1k tokens/day", 995)], PLAIN, 1),
        ([("1k tokens/day", 300)], ModelRule("*", weight=Decimal(5)), 130),
        ([("$0.01/day", 1_000)], PLAIN, None),
        (
            [("$0.01/day", 1_000)],
            ModelRule("*", input_price=Decimal(100), output_price=Decimal(10)),
            800,
        ),
    ],
)
def test_most_output(limits: list[tuple[str, int]], rule: ModelRule, most: int | None) -> None:
    """With ten prompt tokens, the tightest limit bounds the output by its weight and price."""
    assert most_output_tokens(decision(*limits), 10, rule) == most


def test_charge_is_weighed_and_priced() -> None:
    """Tokens count weighted and rounded up, money by price, and a free model not at all."""
    usage = Usage(10, 3, 4, 77, estimated=False)
    priced = ModelRule("*", Decimal("2.5"), Decimal(10), Decimal(1), Decimal("0.25"))
    charge = make_charge(usage, priced)
    assert (charge.usage.input_tokens, charge.usage.output_tokens) == (10, 3)
    assert charge.cost_micros == 6 * 2.5 + 4 * 1 + 3 * 10
    assert charge.counted == Amounts(1, 3, 1, charge.cost_micros)
    assert make_charge(usage, PLAIN).cost_micros == 77
    free = make_charge(usage, ModelRule("*", weight=Decimal(0)))
    assert (free.counted, free.usage.input_tokens, free.cost_micros) == (NOTHING, 10, 77)


def test_no_charge_overflows_a_sum() -> None:
    """However large counts, weights and costs are, millions of charges fit in 64 bits."""
    usage = Usage(8 * 10**12, 10**13, 10**13, 10**30, False, 10**13, 10**13)
    for rule in (
        ModelRule("m", weight=Decimal(1_000_000)),
        ModelRule("m", input_price=Decimal(1_000_000), output_price=Decimal(1_000_000)),
    ):
        charge = make_charge(usage, rule)
        columns = [value for value in charge.values().values() if not isinstance(value, bool)]
        assert max(columns) == LARGEST_CHARGE
        assert 4_000_000 * LARGEST_CHARGE < 2**62
        assert charge.usage.cached_input_tokens <= charge.usage.input_tokens
