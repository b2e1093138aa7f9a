"""Usage as each provider reports it: input, output, cached, cache writes, reasoning, cost."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# Above any real call, below what a 64-bit column could be made to overflow with by a few sums.
LARGEST_COUNT = 10**12
COUNT_TEXT = re.compile(r"\s*(\d{1,13}|\d{1,3}(?:,\d{3}){1,4})(\.\d{1,20})?\s*", re.ASCII)
# More seconds of sound than tokens they are: Voxtral counts 12.5 a second, Gemini 32, OpenAI 10.
MOST_TOKENS_PER_SECOND = 100

# The fields that each kind of count may have, with "|" between them; "+" where Gemini, llama.cpp
# and others report parts without a whole.
COUNT_ALIASES = {
    # With what came from the cache; the last are watsonx's, TGI's, DeepInfra's and llama.cpp's.
    "input": "prompt_tokens | promptTokens | prompt_eval_count"
    " | promptTokenCount + toolUsePromptTokenCount"
    " | prompt_token_count + tool_use_prompt_token_count"
    " | cache_n + prompt_n | prompt_cache_hit_tokens + prompt_cache_miss_tokens"
    " | input_token_count | input_length | tokens_input | tokens_evaluated",
    # Anthropic and Bedrock: without the cache; OpenAI's Responses: with it.
    "uncached input": "input_tokens | inputTokens | inputTokenCount",
    # What Anthropic and Bedrock count beside the input.
    "cache": "cache_read_input_tokens + cache_creation_input_tokens"
    " | cacheReadInputTokens + cacheWriteInputTokens"
    " | cacheReadInputTokenCount + cacheWriteInputTokenCount",
    "cache write": "cache_creation_input_tokens | cacheWriteInputTokens"
    " | cacheWriteInputTokenCount",
    "thoughts": "thoughtsTokenCount | thoughts_token_count | reasoning_tokens",
    "tool prompt": "toolUsePromptTokenCount | tool_use_prompt_token_count | tool_use_prompt_tokens"
    " | tool_prompt_tokens",
    "sound": "prompt_audio_seconds | audio_seconds",
    "cached": "cache_read_input_tokens | cacheReadInputTokens | cacheReadInputTokenCount"
    " | cachedContentTokenCount | cached_content_token_count | prompt_cache_hit_tokens"
    " | cached_tokens | cache_n",
    "output": "completion_tokens | completionTokens | output_tokens | outputTokens"
    " | outputTokenCount | eval_count | candidatesTokenCount + thoughtsTokenCount"
    " | candidates_token_count + thoughts_token_count | predicted_n | generated_token_count"
    " | generated_tokens | tokens_generated | tokens_predicted",
    "total": "total_tokens | totalTokens | totalTokenCount | total_token_count",
}


def slots_by_alias() -> dict[str, list[tuple[str, int]]]:
    """COUNT_ALIASES turned round: reading costs what a provider sends, not what all could."""
    slots: dict[str, list[tuple[str, int]]] = {}
    for kind, alternatives in COUNT_ALIASES.items():
        for number, names in enumerate(alternatives.split(" | ")):
            for name in names.split(" + "):
                slots.setdefault(name, []).append((kind, number))
    return slots


ALIAS_SLOTS = slots_by_alias()


@dataclass(frozen=True, slots=True)
class ReportedUsage:
    """What a provider said about one call; None where it didn't say.

    `total_tokens` is kept only while the provider's total can't be split into input and output.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int = 0
    cost_micros: int | None = None
    total_tokens: int | None = None
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def is_charged(self) -> bool:
        return bool(self.input_tokens or self.output_tokens or self.total_tokens)

    def merged(self, other: ReportedUsage) -> ReportedUsage:
        """The larger of each count: within one completion later usage is a running total."""
        return self._combined(other, max)

    def added(self, other: ReportedUsage) -> ReportedUsage:
        """The sum of each count, of two calls that are reported side by side."""
        return self._combined(other, operator.add)

    def _combined(self, other: ReportedUsage, combine: Callable[[int, int], int]) -> ReportedUsage:
        pairs = [(getattr(self, name), getattr(other, name)) for name in self.__slots__]
        return ReportedUsage(*(combine_known(one, two, combine) for one, two in pairs))


NO_USAGE = ReportedUsage()


def token_count(value: object) -> int | None:
    """The count that a JSON value stands for, or None if it isn't one."""
    if type(value) is int:  # nearly always, and the cheapest to ask
        return value if 0 <= value <= LARGEST_COUNT else None
    if isinstance(value, str):
        match = COUNT_TEXT.fullmatch(value)
        if match is None:
            return None
        value = int(match[1].replace(",", "")) + (float(match[2] or 0) > 0)
    elif isinstance(value, float) and 0 <= value <= LARGEST_COUNT:  # which no NaN is
        value = math.ceil(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST_COUNT:
        return value
    return None


def combine_known(one: Any, other: Any, combine: Callable[[int, int], int]) -> Any:
    """Two counts combined, or the one that is known."""
    if one is None or other is None:
        return other if one is None else one
    return combine(one, other)


def known_counts(fields: Mapping[str, object]) -> dict[str, int]:
    """Each kind's largest alias, since the host and gateways write zeros beside the count."""
    sums: dict[tuple[str, int], int] = {}
    for name, value in fields.items():
        if name in ALIAS_SLOTS and (count := token_count(value)) is not None:
            for slot in ALIAS_SLOTS[name]:
                sums[slot] = sums.get(slot, 0) + count
    counts: dict[str, int] = {}
    for (kind, _), count in sums.items():
        counts[kind] = max(count, counts.get(kind, 0))
    return counts


# Responses, and Realtime's sessions (and LangChain): with what came from the cache inside.
RESPONSES_INPUT = ("input_tokens_details", "input_token_details")
INPUT_DETAILS = ("prompt_tokens_details", *RESPONSES_INPUT)
OUTPUT_DETAILS = ("completion_tokens_details", "output_tokens_details", "output_token_details")
CACHED_NAMES = ("cached_tokens", "cache_read")
WRITTEN_NAMES = ("cache_write_tokens", "cache_creation_tokens", "cache_creation")


def detail_count(
    fields: Mapping[str, object], groups: tuple[str, ...], names: tuple[str, ...]
) -> int | None:
    """The largest count of these names in these groups of details; None where there is none."""
    found = [fields[group] for group in groups if group in fields]
    counts = [
        token_count(details.get(name))
        for details in found
        if isinstance(details, dict)
        for name in names
    ]
    return max((count for count in counts if count is not None), default=None)


COST_NAMES = ("cost", "total_cost", "estimated_cost", "cost_usd", "total_cost_usd", "response_cost")
COST_PARTS = (("input_cost", "output_cost"), ("prompt_cost", "completion_cost"))
TICKS_PER_DOLLAR = 10**10  # xAI's
MOST_DOLLARS = 1_000_000


def cost_in_micros(fields: Mapping[str, object]) -> int | None:
    """What a provider says that a call cost; the smallest cost is a millionth, not nothing."""
    costs = [cost for name in COST_NAMES if (cost := dollars(fields.get(name))) is not None]
    for names in COST_PARTS:
        parts = [part for name in names if (part := dollars(fields.get(name))) is not None]
        if parts:
            costs.append(sum(parts))
    ticks = dollars(fields.get("cost_in_usd_ticks"), TICKS_PER_DOLLAR)
    if ticks is not None:
        costs.append(ticks)
    cost = max(costs, default=None)
    details = fields.get("cost_details")
    upstream = (
        dollars(details.get("upstream_inference_cost")) if isinstance(details, dict) else None
    )
    if upstream is not None:
        # OpenRouter fills this for its own keys too, then as a part of `cost`
        # (OpenRouterTeam/ai-sdk-provider issue 532); only with a BYOK key it comes on top.
        byok = fields.get("is_byok")
        if byok is True or (byok is not False and upstream > (cost or 0)):
            cost = (cost or 0) + upstream
    if not cost:
        return None if cost is None else 0
    return max(1, round(cost * 1_000_000))


def dollars(value: object, units: int = 1) -> float | None:
    """An amount of money, given in `units` to the dollar; None if it isn't one."""
    if isinstance(value, dict):  # Perplexity and others
        parts = [value.get(name) for name in ("total_cost", "total", "cost")]
        value = next((part for part in parts if part is not None), None)
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        amount = float(value) / units
    except (ValueError, OverflowError):
        return None
    return amount if 0 <= amount <= MOST_DOLLARS else None


def parse_usage(raw: object, timings: object = None) -> ReportedUsage:
    """Read one usage object in any provider's shape, with llama.cpp's `timings` beside it."""
    fields: dict[str, object] = dict(timings) if isinstance(timings, dict) else {}
    if isinstance(raw, dict):
        fields.update(raw)
    counts, cost = known_counts(fields), cost_in_micros(fields)
    if not counts and cost is None:
        return NO_USAGE
    input_tokens = max(counts.get("input", 0), counts.get("uncached input", 0))
    output_tokens = counts.get("output")
    total_tokens = counts.get("total") or None
    responses_cached = detail_count(fields, RESPONSES_INPUT, CACHED_NAMES) or 0
    cached = max(counts.get("cached", 0), detail_count(fields, INPUT_DETAILS, CACHED_NAMES) or 0)
    written = max(
        counts.get("cache write", 0), detail_count(fields, INPUT_DETAILS, WRITTEN_NAMES) or 0
    )
    if cache := counts.get("cache"):
        # Gateways that write `prompt_tokens` (LiteLLM) and OpenAI's Responses count it inside.
        inside = bool(counts.get("input") or responses_cached) and cache <= input_tokens
        if not inside or total_tokens == input_tokens + (output_tokens or 0) + cache:
            input_tokens += cache
    elif cached > input_tokens > 0:  # so the prompt came without what was cached
        input_tokens += cached
    known_input = input_tokens or None  # no prompt is empty: LocalAI and Ollama send 0 for unknown
    reasoning = reported_reasoning(fields, counts)
    if total_tokens is not None:
        beside = counts.get("tool prompt", 0)
        if counts.get("input") and "promptTokenCount" in fields:
            beside = 0  # it is in the sum already
        beside += MOST_TOKENS_PER_SECOND * min(counts.get("sound", 0), LARGEST_COUNT // 1000)
        known_input, output_tokens, total_tokens = split_total(
            known_input, output_tokens, total_tokens, reasoning, beside
        )
    if known_input is not None:
        cached = min(cached, known_input)
        written = min(written, known_input - cached)
    return ReportedUsage(
        known_input, output_tokens, cached, cost, total_tokens, written, reasoning or 0
    )


def reported_reasoning(fields: Mapping[str, object], counts: Mapping[str, int]) -> int | None:
    details = detail_count(fields, OUTPUT_DETAILS, ("reasoning_tokens", "reasoning"))
    said = (counts.get("thoughts"), details)
    return max((count for count in said if count is not None), default=None)


def split_total(
    input_tokens: int | None,
    output_tokens: int | None,
    total: int,
    reasoning: int | None = None,
    input_beside: int = 0,
) -> tuple[int | None, int | None, int | None]:
    """Take from the total what the parts leave out: input, output, and what stays unsplit.

    Args:
        reasoning: What may be missing in the output.
        input_beside: What may at most be missing in the input: sound, prompts of tools.
    """
    if input_tokens is None:
        if output_tokens:
            return ((total - output_tokens if total > output_tokens else None), output_tokens, None)
        return None, output_tokens, total
    excess = total - input_tokens - (output_tokens or 0)
    if output_tokens is None:
        return input_tokens, (excess if excess >= 0 else None), None
    if excess > 0 and input_beside and excess != reasoning:
        taken = min(excess, input_beside)
        input_tokens, excess = input_tokens + taken, excess - taken
    # xAI and Gemini's OpenAI-compatible API leave reasoning out of completion_tokens.
    if excess > 0 and (reasoning is None or excess <= reasoning):
        return input_tokens, output_tokens + excess, None
    return input_tokens, output_tokens, None
