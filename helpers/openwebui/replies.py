"""One reply from its admission to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Protocol

from helpers.ledger.records import Reservation
from helpers.limits.decisions import Amounts, Decision, LimitState
from helpers.limits.limit import Measure
from helpers.limits.policies import ModelRule
from helpers.limits.policy import AppliedLimit
from helpers.metering.charges import Charge, make_charge, most_output_tokens, weigh_tokens
from helpers.metering.usage import MeteredUsage, ReplyMeter, added_usage
from helpers.openwebui.messages import Reader
from helpers.texts import LONGEST_NAME, clean_text

# Where a reply travels in Open WebUI's metadata.
METADATA_KEY = "usage_limits"
# The output that is reserved where a request sets no max_tokens: an ordinary chat reply.
EXPECTED_OUTPUT_TOKENS = 500
# Larger than what any limit leaves.
UNBOUNDED = 2**62


# As many choices as OpenAI's API gives at most.
MOST_CHOICES = 128
OUTPUT_KEYS = ("max_completion_tokens", "max_tokens")
OPTION_KEYS = ("num_predict", "max_tokens")


def positive_number(value: object) -> int | None:
    """A whole number above 0, however its JSON says it; None where it isn't one."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = int(float(value[:20]) if isinstance(value, str) else value)
    except (ValueError, OverflowError):
        return None
    return number if number > 0 else None


def count_choices(body: Mapping[str, Any]) -> int:
    """How many answers a request asks for at once."""
    asked = (positive_number(body.get(name)) or 1 for name in ("n", "best_of"))
    return min(max(asked), MOST_CHOICES)


def wanted_output(body: Mapping[str, Any], *, ollama: bool) -> int | None:
    """The most output tokens that a request can ask its provider for, where it says.

    A field that doesn't reach the provider, or that it doesn't know, says nothing.

    Args:
        body: The request.
        ollama: Whether Open WebUI sends it to Ollama. It hands on `max_tokens` then, or what the
            options say; nobody else reads those.
    """
    options = body.get("options")
    if not ollama:
        places = [body.get(name) for name in OUTPUT_KEYS]
    elif isinstance(options, Mapping):
        places = [body.get("max_tokens"), *(options.get(name) for name in OPTION_KEYS)]
    else:
        places = [body.get("max_tokens")]
    # Of several nobody knows which one is obeyed.
    wanted = [value for value in places if type(value) is int and value > 0]
    return max(wanted) * count_choices(body) if wanted else None


def cap_output(body: dict[str, Any], most: int, *, ollama: bool = False) -> None:
    """Lower what a request asks for to `most` output tokens in all, wherever it says so."""
    options, each = body.get("options"), max(1, most // count_choices(body))
    if isinstance(options, dict):
        options.update({name: each for name in OPTION_KEYS if name in options})
    named = [name for name in OUTPUT_KEYS if body.get(name)]
    if ollama or not named:  # to Ollama no other is handed on
        named.append("max_tokens")
    for name in named:
        body[name] = each


class ReplyKeeper(Protocol):
    """Who keeps the books of a reply; it stays with it even if the filter is replaced."""

    def forget(self, reply: Reply) -> None: ...

    async def check(self, reply: Reply, limits: Sequence[AppliedLimit]) -> Decision: ...

    async def renew(self, reply: Reply) -> None: ...

    async def end(self, reply: Reply, charge: Charge | None) -> Decision | None: ...


@dataclass(slots=True, eq=False)
class Reply:
    """What is known of one reply while it runs.

    Open WebUI hands the same metadata to all hooks of a reply; this object travels in it. As
    clients can only send JSON, none of them can make one up.
    """

    keeper: ReplyKeeper
    reservation: Reservation
    limits: tuple[AppliedLimit, ...]
    rule: ModelRule
    reader: Reader
    enforced: bool  # whether a hard limit refuses its later rounds
    prompt_tokens: int  # the longest of its calls
    wanted_output: int | None
    capped: bool  # whether the request is lowered to what its limits leave
    soft_limit_percent: int
    alert_url: str  # "" for no alerts
    output_tokens: int = 0  # what is reserved
    output_cap: int | None = None  # what the request is lowered to, if it is
    next_prompt_tokens: int = 0  # of the call that comes next
    meter: ReplyMeter = field(default_factory=ReplyMeter)
    ollama: bool = False  # whether Open WebUI sends it to Ollama
    choices: int = 1  # how many answers it asks for at once
    # Whether a model was called whose answer may be on its way, unseen: its estimate counts.
    called_model: bool = False
    call_refused: bool = False  # whether the last call was refused by its provider, or broke
    answer_watched: bool = False  # whether whatever comes back from it is seen
    # What its user's own limits leave, so the most that it holds of what it hasn't produced yet.
    own_remaining: Mapping[Measure, int] = field(default_factory=dict)
    written: bool = False  # whether its reservation is
    ending: asyncio.Task[Decision | None] | None = None

    def begin_round(self, prompt_tokens: int) -> None:
        """Note that the model is about to be called with this many prompt tokens."""
        self.prompt_tokens = max(self.prompt_tokens, prompt_tokens)
        self.meter.begin_round(prompt_tokens)

    def fit_output(self, decision: Decision) -> Charge:
        """Choose how much output to reserve, now that it is known what the limits leave."""
        wanted, expected = self.wanted_output, EXPECTED_OUTPUT_TOKENS * self.choices
        fitting = self.most_output()
        if fitting is not None:
            wanted = min(wanted or fitting, fitting)
        self.output_tokens = min(wanted or expected, expected)
        most = most_output_tokens(decision, self.prompt_tokens, self.rule) if self.capped else None
        if most is not None and (wanted is None or wanted > most):
            # All of it is held: what a parallel request got as well would run over the limit.
            self.output_tokens = self.output_cap = most
        self.own_remaining = own_remaining(decision)
        return self.reserved_charge()

    def request_decision(self) -> Decision:
        """Where the limits on single requests stand: with all rounds, and the prompt of the next.

        No ledger is needed for them.
        """
        own = [one for one in self.limits if one.limit.is_per_request]
        if not own:
            return Decision()
        states = tuple(LimitState(one, 0, 0, one.window.end) for one in own)
        # Of a task that isn't counted a hard limit holds all the same.
        prompt = weigh_tokens(self.next_prompt_tokens, self.rule.weight or Decimal(1))
        return Decision(states).with_request(self.used_charge().counted + Amounts(0, prompt))

    def most_output(self) -> int | None:
        """The most output tokens that the next call may give, at least 1; None for any number."""
        most = []
        if self.output_cap is not None:
            most.append(self.output_cap - self.meter.total().output_tokens)
        if self.enforced:
            weight = self.rule.weight or Decimal(1)
            most += [
                int(state.remaining / weight)
                for state in self.request_decision().states
                if state.applied.limit.measure != "input_tokens"
            ]
        return max(1, min(most)) if most else None

    def lower_output(self, body: dict[str, Any]) -> None:
        """Lower what a call asks for to what may be used."""
        most, wanted = self.most_output(), wanted_output(body, ollama=self.ollama)
        if most is not None and (wanted is None or wanted > most):
            cap_output(body, most, ollama=self.ollama)

    def trusted_model(self, asked: object) -> str:
        """The model that a call is for; "" at its user's own provider.

        There both the model's name and the answer are what the user likes. A custom model isn't
        taken for its base: it may bring parameters that the base's provider would not refuse.
        """
        own = self.reservation.source == "direct"
        return "" if own else clean_text(asked, LONGEST_NAME)

    def lacks_price(self, charge: Charge) -> bool:
        """Whether limits in money should count this charge, and nobody knows its cost."""
        return (
            not charge.cost_micros
            and not self.rule.is_priced
            and any(one.limit.measure == "cost" for one in self.limits)
            and self.meter.total().cost_micros is None  # a reported 0 is a cost
        )

    def call_begins(self) -> None:
        """Note that a model is being called, and that its answer will be seen."""
        self.called_model = self.answer_watched = True
        self.call_refused = False

    def call_failed(self) -> None:
        """Note that the provider refused the call, or that it broke before it answered."""
        self.called_model, self.call_refused = False, True

    def call_answered(self, answer: object) -> None:
        """Note an answer that came whole, any JSON value."""
        self.meter.add_answer(answer)

    def reserved_charge(self) -> Charge:
        """What is to be held for it: the estimate, or what it has used already if more.

        Of an estimate it holds no more than its user's own limits leave, so that a single
        request can't empty a pool that others need.
        """
        estimate = self.estimated_charge()
        if not estimate.counted.requests:  # a free model's
            return estimate
        return hold_at_most(estimate, self.used_charge().counted, self.own_remaining)

    def estimated_charge(self) -> Charge:
        """What it may cost: the estimate, or what it has used already if more."""
        seen = self.meter.total()
        return make_charge(
            MeteredUsage(
                input_tokens=max(self.prompt_tokens, seen.input_tokens),
                output_tokens=max(self.output_tokens, seen.output_tokens),
                cached_input_tokens=0,
                cost_micros=seen.cost_micros,
                estimated=True,
            ),
            self.rule,
        )

    def used_charge(self) -> Charge:
        """What it has used so far."""
        return make_charge(self.meter.total(), self.rule)

    def final_charge(self, usage: object = None, text: str | None = None) -> Charge | None:
        """What it cost in the end; None if no model was called, or none that answered.

        Args:
            usage: The usage of the finished message, if any. It is read only where the model's
                answer wasn't seen: the message may have been saved by its user beforehand.
            text: The finished message, if the outlet saw one; for it the same holds.
        """
        if self.answer_watched:
            usage = text = None
        if self.meter.produced or usage or text:
            metered = self.meter.total(usage, text)
            awaited = self.meter.awaited_prompt_tokens if self.called_model else 0
            if awaited:  # stopped while a round of tools had gone to the model
                metered = added_usage(metered, MeteredUsage(awaited, 0, 0, None, estimated=True))
            return make_charge(metered, self.rule)
        # Stopped before its first byte, or an answer in words that nobody knows.
        return self.estimated_charge() if self.called_model else None


def own_remaining(decision: Decision) -> dict[Measure, int]:
    """What a user's own limits leave, by measure; nothing for a measure without one."""
    remaining: dict[Measure, int] = {}
    for state in decision.states:
        if not state.applied.is_pool:
            measure = state.applied.limit.measure
            remaining[measure] = min(state.remaining, remaining.get(measure, state.remaining))
    return remaining


def hold_at_most(estimate: Charge, used: Amounts, remaining: Mapping[Measure, int]) -> Charge:
    """An estimate that counts no more than what was used already, or than what remains."""
    counted = estimate.counted
    tokens = remaining.get("tokens", UNBOUNDED)
    input_tokens = min(counted.input_tokens, remaining.get("input_tokens", UNBOUNDED), tokens)
    output_tokens = min(
        counted.output_tokens, remaining.get("output_tokens", UNBOUNDED), tokens - input_tokens
    )
    cost = min(estimate.cost_micros, remaining.get("cost", UNBOUNDED))
    held = Amounts(
        counted.requests,
        max(used.input_tokens, input_tokens),
        max(used.output_tokens, output_tokens),
        max(used.cost_micros, cost),
    )
    return replace(estimate, cost_micros=held.cost_micros, counted=held)
