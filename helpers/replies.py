"""One reply from its admission to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from helpers.charges import Charge, make_charge, most_output_tokens
from helpers.decisions import Decision
from helpers.messages import Reader
from helpers.policies import ModelRule
from helpers.policy import AppliedLimit
from helpers.records import Reservation
from helpers.usage import MeteredUsage, ReplyMeter

# The output that is reserved where a request sets no max_tokens: an ordinary chat reply.
EXPECTED_OUTPUT_TOKENS = 500


def wanted_output(body: Mapping[str, Any]) -> int | None:
    """The most output tokens that a request asks for, where it says."""
    options = body.get("options")
    places = [body.get("max_completion_tokens"), body.get("max_tokens")]
    if isinstance(options, Mapping):
        places.append(options.get("num_predict"))  # Ollama's name for it
    wanted = [
        value
        for value in places
        if isinstance(value, int) and not isinstance(value, bool) and value > 0
    ]
    return min(wanted, default=None)


def cap_output(body: dict[str, Any], most: int) -> None:
    """Lower what a request asks for to `most` output tokens, wherever it says so."""
    options = body.get("options")
    if isinstance(options, dict) and "num_predict" in options:
        options["num_predict"] = most
    named = [name for name in ("max_completion_tokens", "max_tokens") if body.get(name)]
    for name in named or ["max_tokens"]:
        body[name] = most


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
    # Whether it may come whole without any hook that sees it, so that its estimate counts.
    may_end_unseen: Callable[[], bool]
    prompt_tokens: int
    wanted_output: int | None
    capped: bool  # whether the request is lowered to what its limits leave
    soft_limit_percent: int
    alert_url: str  # "" for no alerts
    output_tokens: int = 0  # what is reserved
    output_cap: int | None = None  # what the request is lowered to, if it is
    meter: ReplyMeter = field(default_factory=ReplyMeter)
    called_model: bool = False
    written: bool = False  # whether its reservation is
    ending: asyncio.Task[Decision | None] | None = None

    def begin_round(self, prompt_tokens: int) -> None:
        """Note that the model is about to be called with this many prompt tokens."""
        self.called_model = True
        self.prompt_tokens = max(self.prompt_tokens, prompt_tokens)
        self.meter.begin_round(prompt_tokens)

    def fit_output(self, decision: Decision) -> Charge:
        """Choose how much output to reserve, now that it is known what the limits leave."""
        wanted = self.wanted_output
        self.output_tokens = min(wanted or EXPECTED_OUTPUT_TOKENS, EXPECTED_OUTPUT_TOKENS)
        most = most_output_tokens(decision, self.prompt_tokens, self.rule) if self.capped else None
        if most is not None and (wanted is None or wanted > most):
            # All of it is held: what a parallel request got as well would run over the limit.
            self.output_tokens = self.output_cap = most
        return self.reserved_charge()

    def reserved_charge(self) -> Charge:
        """What is to be held for it: the estimate, or what it has used already if more."""
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
        """What it cost in the end; None if the model produced nothing.

        Args:
            usage: The usage that Open WebUI gathered for the finished message, if any.
            text: The finished message, if the outlet saw one.
        """
        if self.meter.produced or usage or text:
            return make_charge(self.meter.total(usage, text), self.rule)
        if self.called_model and self.may_end_unseen():
            return self.reserved_charge()
        return None
