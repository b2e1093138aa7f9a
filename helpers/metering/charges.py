"""What one reply costs, in tokens, in money and toward limits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_UP, Decimal
from typing import Any

from helpers.limits.decisions import NOTHING, Amounts, Decision, LimitState
from helpers.limits.policies import ModelRule
from helpers.metering.usage import Usage

# No reply is charged more than this, in tokens, weighted tokens or millionths of a dollar: four
# million such replies still fit in a 64-bit sum.
LARGEST_CHARGE = 10**12
NO_TOKENS = Usage()


@dataclass(frozen=True, slots=True)
class Charge:
    """What a reply costs: estimated while reserved, final when settled.

    Args:
        usage: What it has used.
        cost_micros: Its price in millionths of a dollar.
        counted: What counts toward limits of both: weighted, and nothing at all for a free model.
    """

    usage: Usage = NO_TOKENS
    cost_micros: int = 0
    counted: Amounts = NOTHING

    def values(self) -> dict[str, Any]:
        """The columns of a record that hold it."""
        return {
            "input_tokens": self.usage.input_tokens,
            "output_tokens": self.usage.output_tokens,
            "cached_input_tokens": self.usage.cached_input_tokens,
            "cost_micros": self.cost_micros,
            "estimated": self.usage.estimated,
            "counted": self.counted.requests,
            "weighted_input_tokens": self.counted.input_tokens,
            "weighted_output_tokens": self.counted.output_tokens,
        }


def weigh_tokens(tokens: int, weight: Decimal) -> int:
    """Tokens times a model's weight, rounded up so that no use of it is free."""
    return min(int((tokens * weight).to_integral_value(ROUND_CEILING)), LARGEST_CHARGE)


def price_of(usage: Usage, rule: ModelRule) -> int:
    """The cost in millionths of a dollar by the administrator's prices; 0 without any.

    Prices are dollars per million tokens, so tokens times price is millionths of a dollar. What
    costs anything costs at least one: the sum of many little calls must reach its limit too.
    """
    input_price = rule.input_price or Decimal(0)
    output_price = rule.output_price or Decimal(0)
    cached_price = input_price if rule.cached_input_price is None else rule.cached_input_price
    write_price = input_price if rule.cache_write_price is None else rule.cache_write_price
    reasoning_price = output_price if rule.reasoning_price is None else rule.reasoning_price
    cached = min(usage.cached_input_tokens, usage.input_tokens)
    written = min(usage.cache_write_tokens, usage.input_tokens - cached)
    reasoning = min(usage.reasoning_tokens, usage.output_tokens)
    cost = (
        (usage.input_tokens - cached - written) * input_price
        + cached * cached_price
        + written * write_price
        + (usage.output_tokens - reasoning) * output_price
        + reasoning * reasoning_price
    )
    return max(1, int(cost.to_integral_value(ROUND_HALF_UP))) if cost else 0


def make_charge(usage: Usage, rule: ModelRule) -> Charge:
    """Price and weigh what a reply used.

    The administrator's prices count; without any, the cost that the provider reported.
    """
    input_tokens = min(usage.input_tokens, LARGEST_CHARGE)
    usage = replace(
        usage,
        input_tokens=input_tokens,
        output_tokens=min(usage.output_tokens, LARGEST_CHARGE),
        cached_input_tokens=min(usage.cached_input_tokens, input_tokens),
    )
    price = price_of(usage, rule) if rule.is_priced else usage.cost_micros or 0
    cost = min(price, LARGEST_CHARGE)
    if not rule.weight:
        return Charge(usage, cost)
    weighted_input = weigh_tokens(usage.input_tokens, rule.weight)
    weighted_output = weigh_tokens(usage.output_tokens, rule.weight)
    return Charge(usage, cost, Amounts(1, weighted_input, weighted_output, cost))


def tightest_limit(
    decision: Decision, prompt_tokens: int, rule: ModelRule
) -> tuple[int, LimitState] | None:
    """The output tokens with which a reply ends at its tightest limit, below 0 too; and that limit.

    Returns:
        None where no limit bounds the output.
    """
    prices = {
        "tokens": (weigh_tokens(prompt_tokens, rule.weight), rule.weight),
        "output_tokens": (0, rule.weight),
        "cost": (price_of(Usage(prompt_tokens), rule), rule.output_price or Decimal(0)),
    }
    most = [
        (int(((state.remaining - before) / price).to_integral_value(ROUND_FLOOR)), state)
        for state in decision.states
        for before, price in (prices.get(state.applied.limit.measure, (0, Decimal(0))),)
        if price
    ]
    return min(most, key=lambda found: found[0]) if most else None


def most_output_tokens(decision: Decision, prompt_tokens: int, rule: ModelRule) -> int | None:
    """The same as a number that a provider takes, at least 1; None where no limit bounds it."""
    found = tightest_limit(decision, prompt_tokens, rule)
    return None if found is None else max(1, found[0])
