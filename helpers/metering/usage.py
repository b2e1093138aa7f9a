"""What one reply is charged for, added up from its stream events."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from helpers.metering.estimates import estimate_reply
from helpers.metering.provider_usage import NO_USAGE, ReportedUsage, parse_usage, split_total
from helpers.metering.stream_events import is_error, is_provider_event, read_answer, read_event


@dataclass(frozen=True, slots=True)
class Usage:
    """What a call or a whole reply has used: what its provider reported, and else estimates.

    Args:
        cached_input_tokens: The part of the input that was read from the provider's cache.
        cost_micros: What the provider says it costs, in millionths of a dollar, if it does.
        estimated: Whether any of the numbers is an estimate.
        cache_write_tokens: The part of the input that was written to the cache.
        reasoning_tokens: The part of the output that was thought, not said.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cost_micros: int | None = None
    estimated: bool = False
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        costs = [cost for cost in (self.cost_micros, other.cost_micros) if cost is not None]
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_input_tokens + other.cached_input_tokens,
            sum(costs) if costs else None,
            self.estimated or other.estimated,
            self.cache_write_tokens + other.cache_write_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )

    def without(self, other: Usage) -> Usage:
        """What is left of it beside another, in tokens at least nothing."""
        cost = self.cost_micros
        return Usage(
            max(0, self.input_tokens - other.input_tokens),
            max(0, self.output_tokens - other.output_tokens),
            max(0, self.cached_input_tokens - other.cached_input_tokens),
            None if cost is None else max(0, cost - (other.cost_micros or 0)),
            self.estimated,
            max(0, self.cache_write_tokens - other.cache_write_tokens),
            max(0, self.reasoning_tokens - other.reasoning_tokens),
        )


# Most providers send a chunk for each token: so many chunks are then a better count than a text.
FEWEST_CHUNKS = 20
# An estimate that is further from that, in tokens per chunk, shows that these aren't tokens.
TOKENS_PER_CHUNK = (0.75, 1.34)


def estimate_streamed(texts: Sequence[str]) -> int:
    """About how many tokens the texts of a stream's chunks have."""
    tokens, chunks = estimate_reply("".join(texts)), len(texts)
    least, most = TOKENS_PER_CHUNK
    alike = chunks >= FEWEST_CHUNKS and least * chunks <= tokens <= most * chunks
    return chunks if alike else tokens


def metered_call(
    usage: ReportedUsage,
    prompt_tokens: int,
    texts: Sequence[str],
    uncounted_texts: Sequence[str] = (),
) -> Usage:
    """What one call is charged for: what the provider said, and estimates for what it didn't."""
    input_tokens, output_tokens = usage.input_tokens, usage.output_tokens
    total_tokens, estimated = usage.total_tokens, False
    if total_tokens is not None:  # the parts may have come in another event
        input_tokens, output_tokens, total_tokens = split_total(
            input_tokens, output_tokens, total_tokens
        )
    if total_tokens is not None:
        text_tokens = estimate_streamed(texts)
        share = text_tokens / (prompt_tokens + text_tokens) if text_tokens else 0
        output_tokens = round(total_tokens * share)
        input_tokens = total_tokens - output_tokens
        estimated = True
    if input_tokens is None:
        input_tokens, estimated = prompt_tokens, True
    if output_tokens is None or (any(texts) and not output_tokens and total_tokens is None):
        output_tokens, estimated = estimate_streamed(texts), True
    elif uncounted_texts and (text_tokens := estimate_streamed(texts)) > output_tokens:
        # A reply stopped after an early running total: Anthropic's message_start says 1.
        output_tokens = min(text_tokens, output_tokens + estimate_streamed(uncounted_texts))
        estimated = True
    cached = min(usage.cached_input_tokens, input_tokens)
    return Usage(
        input_tokens,
        output_tokens,
        cached,
        usage.cost_micros,
        estimated,
        min(usage.cache_write_tokens, input_tokens - cached),
        min(usage.reasoning_tokens, output_tokens),
    )


@dataclass(slots=True, eq=False)
class ModelCall:
    """One completion: its usage so far, and its text in case that usage never comes."""

    completion_id: str | None = None
    usage: ReportedUsage = NO_USAGE
    texts: list[str] = field(default_factory=list)
    whole_texts: list[str] = field(default_factory=list)  # what came whole, streamed before or not
    counted_texts: int = 0
    finished: bool = False
    repeated_id: bool = False  # whether two events had the same, so that ids mean something
    answered: bool = False  # in one piece, so that even an empty answer had its prompt read

    @property
    def is_charged(self) -> bool:
        return self.answered or bool(self.texts or self.whole_texts) or self.usage.is_charged

    @property
    def produced_texts(self) -> list[str]:
        streamed, whole = sum(map(len, self.texts)), sum(map(len, self.whole_texts))
        return ["".join(self.whole_texts)] if whole > streamed else self.texts

    def metered(self, prompt_tokens: int) -> Usage:
        uncounted = self.texts[self.counted_texts :]
        return metered_call(self.usage, prompt_tokens, self.produced_texts, uncounted)

    def is_continued_by(self, usage: ReportedUsage, other: ModelCall) -> bool:
        """Whether `usage`, the first of a call with another id, is this call's running total.

        Some gateways give every chunk a fresh id and repeat the prompt's count on each; another
        call would have another prompt, or ids that stay the same from chunk to chunk.
        """
        mine = self.usage
        return (
            (not other.texts or not (self.finished or self.repeated_id or other.repeated_id))
            and (usage.input_tokens is None or mine.input_tokens in (None, usage.input_tokens))
            and (usage.output_tokens or 0) >= (mine.output_tokens or 0)
            and (usage.total_tokens or 0) >= (mine.total_tokens or 0)
        )


class MeteredRound:
    """The completions between two `request` hooks."""

    __slots__ = ("calls", "current", "prompt_tokens", "reported", "started")

    def __init__(self, prompt_tokens: int) -> None:
        self.prompt_tokens = prompt_tokens
        self.started = False
        self.current = ModelCall()
        self.calls = [self.current]
        self.reported: dict[str, ModelCall] = {}

    def turn_to(self, completion_id: object, has_text: bool) -> ModelCall:
        """Make the completion current that an event with another id belongs to.

        Ids change within one completion as well: Azure's first is empty, and the host gives each
        chunk of a pipe function a fresh one. So it is another call only where this one was over.
        """
        call = self.current
        if not isinstance(completion_id, str):
            return call
        if completion_id in self.reported:
            call = self.reported[completion_id]
        else:
            counted = call.completion_id is not None and call.usage.is_charged
            if counted or (has_text and call.finished):
                call = ModelCall()
                self.calls.append(call)
            call.completion_id = completion_id
            call.repeated_id = False
        self.current = call
        return call

    def add_usage(self, usage: ReportedUsage) -> None:
        call = self.current
        if len(self.calls) > 1 and not call.usage.is_charged and usage.is_charged:
            before = self.calls[-2]
            if call is self.calls[-1] and before.is_continued_by(usage, call):
                # Each text moves once at most: the call that takes it has usage, so it stays.
                before.texts += call.texts
                before.whole_texts = before.whole_texts or call.whole_texts
                before.completion_id = call.completion_id
                before.finished = call.finished
                self.calls.pop()
                self.current = call = before
        call.usage = call.usage.merged(usage)
        if usage.output_tokens or usage.total_tokens:
            call.counted_texts = len(call.texts)
        if call.completion_id is not None:
            self.reported[call.completion_id] = call


def parse_stream_line(line: bytes | str) -> object:
    """The JSON in one line of an event stream; None where there is none."""
    text = line.decode("utf-8", "replace") if isinstance(line, bytes) else line
    name, _, value = text.partition(":")
    if name != "data":
        return None
    try:
        return json.loads(value)
    except (ValueError, RecursionError):  # "[DONE]", or what nobody can read
        return None


class ReplyMeter:
    """Adds up what passes the stream hook for one reply."""

    def __init__(self) -> None:
        self._rounds = [MeteredRound(0)]
        self.failed = False  # whether an error came

    def begin_round(self, prompt_tokens: int) -> None:
        """A model call follows; the host may announce the same one twice."""
        prompt_tokens = max(0, prompt_tokens)
        if self._rounds[-1].started:
            self._rounds.append(MeteredRound(prompt_tokens))
        else:
            self._rounds[-1].prompt_tokens = prompt_tokens

    def drop_round(self) -> None:
        """The round that `begin_round` announced last isn't made."""
        if len(self._rounds) > 1 and not self._rounds[-1].started:
            self._rounds.pop()

    def add_event(self, event: object) -> None:
        """One stream event, any JSON value: constant time, no I/O, never raises.

        Before 0.11.1 Open WebUI hands over the streams of API calls line by line, as they come.
        """
        if isinstance(event, (bytes, str)):
            event = parse_stream_line(event)
        if not isinstance(event, dict):
            return
        texts, usage, completion_id, finished, whole = read_event(event)
        this_round = self._rounds[-1]
        call = this_round.current
        if texts or usage is not None or whole:
            if completion_id and completion_id != call.completion_id:
                call = this_round.turn_to(completion_id, bool(texts))
            elif completion_id and texts:
                call.repeated_id = True
            call.texts += texts
            if whole:
                # One item after the other, and then perhaps all of them once more.
                if event.get("type") == "response.output_item.done":
                    call.whole_texts += whole
                else:
                    call.whole_texts = whole
            if usage is not None:
                this_round.add_usage(usage)
                call = this_round.current
        elif not is_provider_event(event):
            self.failed = self.failed or is_error(event)
            return
        this_round.started = True
        if finished:
            call.finished = True

    def add_answer(self, answer: object) -> None:
        """A whole answer that wasn't streamed, any JSON value; never raises.

        It is a call of the round that `begin_round` announced last, or the whole of one whose
        beginning was streamed, so it's no more than once the same.
        """
        texts, usage, answered = read_answer(answer)
        if not answered:
            return
        this_round = self._rounds[-1]
        call = this_round.current
        if sum(map(len, texts)) > sum(map(len, call.texts)):
            call.texts = texts
        if usage is not None:
            this_round.add_usage(usage)
        call.answered = call.finished = this_round.started = True

    @property
    def awaited_prompt_tokens(self) -> int:
        """The prompt of a later round of which nothing has come yet; 0 if there is none."""
        last = self._rounds[-1]
        return 0 if last.started or len(self._rounds) == 1 else last.prompt_tokens

    @property
    def produced(self) -> bool:
        """Whether anything passed that the provider charges for."""
        return any(call.is_charged for each in self._rounds for call in each.calls)

    def total(self, outlet_usage: object = None, outlet_text: str | None = None) -> Usage:
        """What the reply is charged for as a whole.

        Args:
            outlet_usage: The host's summed usage; used where the stream saw none (no streaming).
            outlet_text: The reply's text; used where nothing was streamed.
        """
        charged = [
            (each.prompt_tokens, call)
            for each in self._rounds
            for call in each.calls
            if call.is_charged
        ]
        if not any(call.usage.is_charged for _, call in charged):
            usage = parse_usage(outlet_usage)
            texts = [text for _, call in charged for text in call.produced_texts]
            texts = texts or ([outlet_text] if outlet_text else [])
            # Usage that can't be read is the sign of a call, not of one that cost nothing.
            seen = bool(texts) or bool(outlet_usage)
            if usage.is_charged or (seen and not charged and len(self._rounds) == 1):
                prompt_tokens = sum(tokens for tokens, _ in charged)
                return metered_call(usage, prompt_tokens or self._rounds[-1].prompt_tokens, texts)
        return sum((call.metered(tokens) for tokens, call in charged), Usage())
