"""What one reply costs, in tokens, in money and toward limits."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

from helpers.limits.decisions import NOTHING, Amounts, Decision, LimitState
from helpers.limits.policies import ModelRule
from helpers.limits.policy import token_cost
from helpers.metering.usage import MeteredUsage

# No reply is charged more than this, in tokens, weighted tokens or millionths of a dollar: four
# million such replies still fit in a 64-bit sum.
LARGEST_CHARGE = 10**12


@dataclass(frozen=True, slots=True)
class Charge:
    """What a reply costs: estimated while reserved, final when settled."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cost_micros: int = 0
    estimated: bool = False
    # The same as it counts toward limits: weighted, and nothing at all for a free model.
    counted: Amounts = NOTHING

    def values(self) -> dict[str, Any]:
        """The columns of a record that hold it."""
        return {
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cached_input_tokens": self.cached_input_tokens,
            "cost_micros": self.cost_micros,
            "estimated": self.estimated,
            "counted": self.counted.requests,
            "weighted_input_tokens": self.counted.input_tokens,
            "weighted_output_tokens": self.counted.output_tokens,
        }


def weigh_tokens(tokens: int, weight: Decimal) -> int:
    """Tokens times a model's weight, rounded up so that no use of it is free."""
    return min(int((tokens * weight).to_integral_value(ROUND_CEILING)), LARGEST_CHARGE)


def make_charge(usage: MeteredUsage, rule: ModelRule) -> Charge:
    """Price and weigh what a reply used.

    The administrator's prices count; without any, the cost that the provider reported.
    """
    input_tokens = min(usage.input_tokens, LARGEST_CHARGE)
    output_tokens = min(usage.output_tokens, LARGEST_CHARGE)
    cached = min(usage.cached_input_tokens, input_tokens)
    cost = token_cost(
        rule,
        input_tokens,
        output_tokens,
        cached,
        usage.cache_write_tokens,
        usage.reasoning_tokens,
    )
    if cost is None:
        cost = usage.cost_micros or 0
    cost = min(cost, LARGEST_CHARGE)
    counted = Amounts(
        1,
        weigh_tokens(input_tokens, rule.weight),
        weigh_tokens(output_tokens, rule.weight),
        cost,
    )
    return Charge(
        input_tokens,
        output_tokens,
        cached,
        cost,
        usage.estimated,
        counted if rule.weight else NOTHING,
    )


def tightest_limit(
    decision: Decision, prompt_tokens: int, rule: ModelRule
) -> tuple[int, LimitState] | None:
    """The output tokens with which a reply ends at its tightest limit, below 0 too; and that limit.

    Returns:
        None where no limit bounds the output.
    """
    prompt_cost = token_cost(rule, prompt_tokens, 0, 0) or 0
    prices = {
        "tokens": (weigh_tokens(prompt_tokens, rule.weight), rule.weight),
        "output_tokens": (0, rule.weight),
        "cost": (prompt_cost, rule.output_price or Decimal(0)),
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
