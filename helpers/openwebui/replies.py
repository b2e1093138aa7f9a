"""One reply from its admission to its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from helpers.errors import LedgerError
from helpers.ledger.records import Reservation
from helpers.limits.decisions import Amounts, Decision, LimitState
from helpers.limits.limit import Measure
from helpers.limits.policies import ModelRule
from helpers.limits.policy import AppliedLimit
from helpers.metering.charges import (
    Charge,
    make_charge,
    most_output_tokens,
    tightest_limit,
    weigh_tokens,
)
from helpers.metering.usage import ReplyMeter, Usage
from helpers.openwebui.messages import Reader
from helpers.texts import LONGEST_NAME, clean_text

# Where a reply travels in Open WebUI's metadata.
METADATA_KEY = "usage_limits"
# And in the request with which a model is called for it.
OUTER_ATTRIBUTE = "usage_limits_reply"
# The output that is reserved for a model whose replies aren't known to be longer.
EXPECTED_OUTPUT_TOKENS = 500
# A longer one is rare, and providers refuse a max_tokens beyond what their models can write.
LONGEST_REPLY = 16_000
# When more is reserved, and how much: what a reply writes in some seconds. Near a limit it is a
# part of what nobody holds, so that all who write get to its end together.
GROW_AT_PERCENT = 80
BLOCK_SECONDS = 5.0
SMALLEST_BLOCK, LARGEST_BLOCK = 100, 2_000
SMALLEST_SHARE = 16
SHARES = 8
# From then on it is known how many bytes of a stream bring a token, and how far that may carry.
MEASURED_TOKENS = 32
FARTHEST_MARK = 2**16
LENT_MARK = 2**12
# Larger than what any limit leaves.
UNBOUNDED = 2**62


# As many choices as OpenAI's API gives at most.
MOST_CHOICES = 128
OUTPUT_KEYS = ("max_completion_tokens", "max_tokens")
OPTION_KEYS = ("num_predict", "max_tokens")
LENGTH_KEYS = (*OUTPUT_KEYS, "n", "best_of")

# What Open WebUI gives the hooks to show something on the chat page.
Emitter = Callable[[dict[str, Any]], Awaitable[None]]


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

    A field that doesn't reach the provider, or that it doesn't know, says nothing. One with a value
    that is no number may take the place of all others there, so then nothing is said.

    Args:
        body: The request.
        ollama: Whether Open WebUI sends it to Ollama. It hands on `max_tokens` then, or what the
            options say; nobody else reads those.
    """
    options = body.get("options")
    names = OUTPUT_KEYS[1:] if ollama else OUTPUT_KEYS
    wanted: list[Any] = [body[name] for name in names if name in body]
    if ollama and isinstance(options, Mapping):
        wanted += [options[name] for name in OPTION_KEYS if name in options]
    if not wanted or not all(type(value) is int and value > 0 for value in wanted):
        return None
    # Of several nobody knows which one is obeyed.
    return int(max(wanted)) * count_choices(body)


def cap_output(body: dict[str, Any], most: int, *, ollama: bool = False) -> None:
    """Lower what a request asks for to `most` output tokens in all, wherever it says so."""
    options, each = body.get("options"), max(1, most // count_choices(body))
    if isinstance(options, dict):
        options.update({name: each for name in OPTION_KEYS if name in options})
    # Open WebUI puts one in the place of the other, null as well.
    named = [name for name in OUTPUT_KEYS if name in body]
    if ollama or not named:  # to Ollama no other is handed on
        named.append("max_tokens")
    for name in named:
        asked = body.get(name)
        body[name] = min(asked, each) if type(asked) is int and asked > 0 else each


@dataclass(slots=True, eq=False)
class Reply:
    """What is known of one reply while it runs.

    Open WebUI hands the same metadata to all hooks of a reply; this object travels in it. As
    clients can only send JSON, none of them can make one up.
    """

    # Its Accounting; of another paste's class where the filter was replaced while it is running.
    keeper: Any
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
    stops_at_limit: bool = False  # whether it ends where no more can be reserved for it
    needs_ledger: bool = False  # whether that goes for an outage of the ledger, too
    expected_output: int = EXPECTED_OUTPUT_TOKENS  # how long this model's replies are
    output_tokens: int = 0  # what is reserved
    output_cap: int | None = None  # what the request is lowered to, if it is
    next_prompt_tokens: int = 0  # of the call that comes next
    system_tokens: int = 0  # of its model's own system prompt, which no hook sees
    meter: ReplyMeter = field(default_factory=ReplyMeter)
    base: str = ""  # the model that Open WebUI is to call for it; "" for a function's
    ollama: bool = False  # whether Open WebUI sends it to Ollama
    choices: int = 1  # how many answers it asks for at once
    # Whether a model was called whose answer may be on its way, unseen: its estimate counts.
    called_model: bool = False
    outlives_task: bool = False  # whether its end is its stream's, whichever task reads that
    call_refused: bool = False  # whether the last call was refused by its provider, or broke
    answer_watched: bool = False  # whether whatever comes back from it is seen
    # What its user's own limits leave, so the most that it holds of what it hasn't produced yet.
    own_remaining: Mapping[Measure, int] = field(default_factory=dict)
    written: bool = False  # whether its reservation is
    growing: asyncio.Task[None] | None = None
    stream_size: int = 0  # of the stream that is running, when it was last looked at
    tokens_before: int = 0  # what the streams before it have produced
    writes_since: float | None = None  # by `time.monotonic`
    refused_by: LimitState | None = None  # the limit at which nothing more could be reserved
    stopped: bool = False
    emitter: Emitter | None = None  # of the chat page's, to say why it was stopped
    unread: LedgerError | None = None  # why the ledger could not be asked about its user
    ending: asyncio.Task[Decision | None] | None = None
    calls: list[Reply] = field(default_factory=list)  # of its function's; on record themselves
    ended_usage: Usage | None = None  # what it has used, once it has ended and was asked for
    beside_holds: bool = False  # whether it may have what running replies hold as well
    lent: int = 0  # the output that it would hold, had it not left that to calls within it

    def begin_round(self, prompt_tokens: int) -> None:
        """Note that the model is about to be called with this many prompt tokens."""
        self.prompt_tokens = max(self.prompt_tokens, prompt_tokens)
        self.meter.begin_round(prompt_tokens)

    @property
    def stops(self) -> bool:
        """Whether it ends where no more can be reserved for it."""
        return self.stops_at_limit and self.enforced

    def fit_output(self, decision: Decision) -> Charge:
        """Choose how much output to reserve, now that it is known what the limits leave."""
        self.output_cap = None
        wanted, expected = self.wanted_output, self.expected_output * self.choices
        fitting = self.most_output()
        if fitting is not None:
            wanted = min(wanted or fitting, fitting)
        self.output_tokens = min(wanted or expected, expected)
        self.fit_to(decision, 0, self.prompt_tokens)
        return self.reserved_charge()

    def fit_to(self, decision: Decision, produced: int, prompt_tokens: int) -> None:
        """Hold no more than the limits leave, and see that a capped request asks for no more.

        Args:
            decision: Where its limits stand without it.
            produced: The output tokens of the rounds before.
            prompt_tokens: Those of all rounds, with the one that follows.
        """
        self.own_remaining = own_remaining(decision)
        if self.beside_holds:
            decision = Decision(tuple(replace(one, reserved=0) for one in decision.states))
        most = most_output_tokens(decision, prompt_tokens, self.rule)
        if most is None:
            return
        self.output_tokens = min(self.output_tokens, most)
        if self.stops:  # what follows is reserved as it is written
            share = max(SMALLEST_BLOCK, most // SHARES)
            self.output_tokens = max(produced + 1, min(self.output_tokens, produced + share))
        if self.capped:
            # All that it may write is held: what a parallel request got as well would run over.
            wanted = produced + (self.wanted_output or LONGEST_REPLY * self.choices)
            self.output_tokens = min(wanted, most)
            self.output_cap = most if most < wanted else None

    def prompt_with(self, seen: Usage) -> int:
        """The prompt tokens of all rounds so far, with the one that was announced last."""
        if self.lent:
            return seen.input_tokens
        return max(self.prompt_tokens, seen.input_tokens + self.meter.awaited_prompt_tokens)

    def block(self, produced: int) -> int:
        """How much is reserved ahead of what was produced."""
        seconds = time.monotonic() - (self.writes_since or 0.0)
        speed = produced / max(seconds, 1.0)
        return max(SMALLEST_BLOCK, min(int(speed * BLOCK_SECONDS), LARGEST_BLOCK))

    def hold_more(self, seen: Usage, held: int, block: int, decision: Decision) -> Charge:
        """Hold a block more, or what the limits leave of it; a transaction may do so twice.

        Args:
            seen: What it has used.
            held: The output tokens that it has held so far.
            block: How much to reserve ahead of what it has produced.
            decision: Where its limits stand without it.
        """
        if self.stops:
            self.own_remaining = own_remaining(decision)
        self.refused_by = None
        wanted, least = seen.output_tokens + block, max(held, seen.output_tokens)
        found = tightest_limit(decision, self.prompt_with(seen), self.rule) if self.stops else None
        if found is not None:
            most, state = found
            share = max(SMALLEST_SHARE, (most - least) // SHARES)
            wanted = min(wanted, most, least + share)
            if wanted <= least:
                self.refused_by = state
        self.output_tokens = max(least, wanted)
        return self.reserved_charge(seen)

    def next_part(self, size: int, step: int, produced: int) -> int:
        """About how many tokens another part of its stream would bring, if like the last one.

        Args:
            size: Of the stream so far, in bytes or characters.
            step: Of its last part.
            produced: The output tokens of all rounds so far.
        """
        if size < self.stream_size:  # another round's
            self.tokens_before = produced
        self.stream_size = size
        return (produced - self.tokens_before) * step // size

    def is_nearly_full(self, produced: int) -> bool:
        """Whether it is time to reserve more."""
        return produced * 100 >= max(1, self.output_tokens) * GROW_AT_PERCENT

    def next_mark(self, size: int, produced: int) -> int:
        """The size of its stream at which to look again whether it holds enough.

        Args:
            size: Of the stream so far, in bytes or characters.
            produced: The output tokens so far.
        """
        left = self.output_tokens - produced
        if self.growing is None and self.refused_by is None:
            left = self.output_tokens * GROW_AT_PERCENT // 100 - produced
        if self.lent:  # its stream is mostly its calls'
            return size + LENT_MARK
        written = produced - self.tokens_before
        per_token = size / written if written >= MEASURED_TOKENS else 1.0
        return size + max(1, min(int(left * max(per_token, 1.0) * 0.9), FARTHEST_MARK))

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

    def reserved_charge(self, seen: Usage | None = None) -> Charge:
        """What is to be held for it: the estimate, or what it has used already if more.

        Of an estimate it holds no more than its user's own limits leave, so that a single
        request can't empty a pool that others need.
        """
        seen = seen or self.own_usage()
        estimate = self.estimated_charge(seen)
        if not estimate.counted.requests:  # a free model's
            return estimate
        return hold_at_most(estimate, make_charge(seen, self.rule).counted, self.own_remaining)

    def estimated_charge(self, seen: Usage | None = None) -> Charge:
        """What it may cost: the estimate, or what it has used already if more."""
        seen = seen or self.own_usage()
        return make_charge(
            Usage(
                input_tokens=self.prompt_with(seen),
                output_tokens=max(self.output_tokens, seen.output_tokens),
                cached_input_tokens=0,
                cost_micros=seen.cost_micros,
                estimated=True,
            ),
            self.rule,
        )

    def unseen_charge(self) -> Charge:
        """What a call is charged for of which nothing was seen: an ordinary reply at most."""
        expected = self.output_tokens or self.lent
        output_tokens = min(expected, EXPECTED_OUTPUT_TOKENS * self.choices)
        return make_charge(Usage(self.prompt_tokens, output_tokens, estimated=True), self.rule)

    def used_charge(self) -> Charge:
        """What it has used so far."""
        return self.own_charge(self.meter.total())

    def seen_usage(self) -> Usage:
        """What it has used so far; of one that has ended that is added up once."""
        if self.ended_usage is not None:
            return self.ended_usage
        usage = self.meter.total()
        if self.ending is not None:
            self.ended_usage = usage
        return usage

    def own_usage(self, usage: Usage | None = None) -> Usage:
        """What it has used beside its function's calls, so far or of this `usage`."""
        beside = self.seen_usage() if usage is None else usage
        for call in (called := list(self.calls)):  # grows by theirs
            beside = beside.without(call.seen_usage())
            called += call.calls
        return beside

    def own_charge(self, usage: Usage) -> Charge:
        """What it costs beside its function's calls, of which its text and its usage mostly are."""
        beside = self.own_usage(usage)
        # Estimates are no better than that: what is less is the text of its calls, handed on.
        handed_on = usage.estimated and 2 * beside.output_tokens <= usage.output_tokens
        if self.calls and (handed_on or not (beside.input_tokens or beside.output_tokens)):
            return Charge()
        return make_charge(beside, self.rule)

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
                metered += Usage(awaited, estimated=True)
            return self.own_charge(metered)
        if self.calls:
            return Charge()
        # Stopped before its first byte, or an answer in words that nobody knows.
        return self.unseen_charge() if self.called_model and not self.meter.failed else None


# The reply that the task at work is for: of a chat, of which all tools run in it.
current_reply: ContextVar[Reply | None] = ContextVar("usage_limits_reply", default=None)


def find_reply(metadata: Mapping[str, Any] | None) -> Reply | None:
    """The reply that was admitted with this metadata."""
    reply = metadata.get(METADATA_KEY) if metadata else None
    # Not isinstance: the file may have been pasted anew while the reply was running. What came
    # from a client would be made of JSON's types.
    return None if isinstance(reply, (dict, list, str, int, float)) else reply


def outer_reply(request: object) -> Reply | None:
    """The reply for which a model is being called, where its function calls another."""
    return getattr(request, OUTER_ATTRIBUTE, None)


def is_older(reply: object) -> bool:
    """Whether a reply was admitted before 0.2.0, which knew no limits on single requests."""
    return not (hasattr(reply, "request_decision") and hasattr(reply, "stops"))


def drop_round(reply: Reply) -> None:
    """Note that a round that was announced isn't called; a meter of 0.1.0 can't."""
    if hasattr(reply.meter, "drop_round"):
        reply.meter.drop_round()


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
