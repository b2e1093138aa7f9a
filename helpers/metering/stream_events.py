"""What a stream event or a whole answer holds: produced text, usage, a completion's id, its end."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

from helpers.metering.estimates import json_text
from helpers.metering.provider_usage import NO_USAGE, ReportedUsage, parse_usage

# Where produced text stands, in the objects of OpenAI, Anthropic, Gemini, Mistral and Ollama.
TEXT_KEYS = frozenset(
    (
        *("content", "text", "reasoning_content", "reasoning", "thinking", "refusal"),
        *("transcript", "name", "arguments", "args", "input", "partial_json", "summary", "code"),
        *("generated_text", "completion"),
    )
)
ARGUMENT_KEYS = frozenset(("arguments", "args", "input"))
NESTING_KEYS = frozenset(
    (
        *("content", "reasoning", "thinking", "audio", "parts", "tool_calls", "function_call"),
        *("functionCall", "function", "reasoning_details", "summary", "output", "message"),
        *("results", "delta"),
    )
)
# Where thoughts stand; the first that a provider fills is the one that counts.
THOUGHT_KEYS = ("reasoning_content", "reasoning", "reasoning_details")
# Where a whole answer has its text, beside `choices`.
ANSWER_KEYS = (
    *("content", "message", "output", "response", "thinking", "text", "generated_text"),
    *("completion", "results", "candidates"),
)
MOST_ANSWERS = 64
# What can hold usage. Not its details, which repeat parts of it; and of `metadata`, which with
# OpenAI is the client's own, only what it holds.
USAGE_HOLDERS = frozenset(
    (
        *("usage", "usageMetadata", "usage_metadata", "token_usage", "tokens", "billed_units"),
        *("x_groq", "response", "message", "metadata", "meta", "delta", "choices", "details"),
        *("results", "inference_status", "response_metadata", "amazon-bedrock-invocationMetrics"),
    )
)
DEEPEST_USAGE = 4
MOST_HOLDERS = 64
# With no other keys a chunk has no usage but under "usage" or in its choices.
PLAIN_CHUNK_KEYS = frozenset(
    ("id", "object", "created", "model", "choices", "system_fingerprint", "service_tier", "usage")
)
# Anthropic's deltas, which hold nothing else; their usage comes in other events.
DELTA_EVENT_KEYS = frozenset(("type", "index", "delta"))
PLAIN_DELTA_KEYS = frozenset(("type", "text", "thinking", "partial_json", "signature"))
# Their deltas are base64 sound, not text.
SOUND_EVENTS = frozenset(("response.audio.delta", "response.output_audio.delta"))
CLOSING_EVENTS = frozenset(("response.completed", "response.incomplete", "message_stop"))
HOST_KEYS = ("event", "sources", "selected_model_id")
DEEPEST_TEXT = 8


# What an event holds: texts, usage, completion id, whether it ends the completion, and the texts
# of what is whole now, streamed before or not. A bare tuple, because one is made for every chunk.
EventContent = tuple[list[str], ReportedUsage | None, object, bool, list[str]]
NO_TEXTS: list[str] = []


def collect_text(part: object, texts: list[str], depth: int = 0) -> None:
    """Append every produced text in `part`, a delta or message of any provider."""
    if isinstance(part, dict):
        for key, value in part.items():
            if not value:
                continue
            # vLLM and OpenRouter send the same thought under several names.
            if key in THOUGHT_KEYS and key != next(filter(part.get, THOUGHT_KEYS)):
                continue
            if isinstance(value, str):
                if key in TEXT_KEYS:
                    texts.append(value)
            elif key in ARGUMENT_KEYS:
                texts.append(json_text(value))
            elif key in NESTING_KEYS and depth < DEEPEST_TEXT:
                collect_text(value, texts, depth + 1)
    elif isinstance(part, list):
        if depth < DEEPEST_TEXT:
            for item in part:
                collect_text(item, texts, depth + 1)
    elif isinstance(part, str) and part:
        texts.append(part)


def read_event(event: Mapping[str, object]) -> EventContent:
    """Read an event of any provider's stream."""
    choices = event.get("choices")
    if not isinstance(choices, list):
        return read_native_event(event)
    texts: list[str] = []
    whole = NO_TEXTS
    finished = False
    has_usage = bool(event.get("usage")) or not event.keys() <= PLAIN_CHUNK_KEYS
    for choice in choices:
        if isinstance(choice, dict):
            delta = choice.get("delta")
            message = choice.get("message")
            # Perplexity repeats the whole message beside each delta.
            if delta is None:
                collect_text(choice if message is None else message, texts)
            else:
                collect_text(delta, texts)
            if choice.get("finish_reason"):
                finished = True
                if delta is not None and message is not None:
                    whole = []
                    collect_text(message, whole)
            if "usage" in choice or (isinstance(delta, dict) and "usage" in delta) or message:
                has_usage = True
    usage = None
    if has_usage or finished:
        usage = usage_in_event(event)
    return texts, usage, event.get("id"), finished, whole


def read_native_event(event: Mapping[str, object]) -> EventContent:
    """Read an event that isn't a chat-completion chunk."""
    kind = event.get("type")
    kind = kind if isinstance(kind, str) else ""
    delta = event.get("delta")
    texts: list[str] = []
    if kind not in SOUND_EVENTS:
        collect_text(delta, texts)  # Responses, Anthropic
    if isinstance(delta, str) and "usage" not in event:
        return texts, None, None, False, NO_TEXTS  # Responses, in nearly all of its events
    if (
        isinstance(delta, dict)
        and event.keys() == DELTA_EVENT_KEYS
        and delta.keys() <= PLAIN_DELTA_KEYS
    ):
        return texts, None, None, False, NO_TEXTS
    for key in ("response", "thinking"):  # Ollama's generate
        if isinstance(text := event.get(key), str) and text:
            texts.append(text)
    for key in ("candidates", "token", "results", "contentBlockDelta"):  # Gemini, TGI, watsonx
        if isinstance(held := event.get(key), (dict, list)):
            collect_text(held, texts)
    whole: list[str] = []
    completion_id = event.get("id") or event.get("responseId")
    for key in ("message", "content_block", "response", "item"):
        holder = event.get(key)
        if not isinstance(holder, dict):
            continue
        if key in ("message", "content_block"):  # Ollama's chat, Anthropic's tool names
            collect_text(holder, texts)
        elif key == "item" and kind == "response.output_item.added":
            collect_text(holder.get("name"), texts)
        elif key == "item" and kind == "response.output_item.done":
            collect_text(holder, whole)
        elif key == "response" and kind in CLOSING_EVENTS:
            collect_text(holder.get("output"), whole)
        if key in ("message", "response"):
            completion_id = completion_id or holder.get("id")
    usage = usage_in_event(event)
    finished = kind in CLOSING_EVENTS or event.get("done") is True
    return texts, usage, completion_id, finished, whole


def read_answer(answer: object) -> tuple[list[str], ReportedUsage | None, bool]:
    """Read an answer that came in one piece: its texts, its usage, whether a model answered."""
    if isinstance(answer, list):
        parts = [read_answer(each) for each in answer[:MOST_ANSWERS] if isinstance(each, dict)]
        usages = [usage for _, usage, _ in parts if usage is not None]
        return (
            [text for texts, _, _ in parts for text in texts],
            reduce(ReportedUsage.merged, usages) if usages else None,
            any(answered for _, _, answered in parts),
        )
    if not isinstance(answer, dict):
        return [], None, False
    texts: list[str] = []
    usage = usage_in_event(answer)
    choices = answer.get("choices")
    if (
        answer.get("error")
        or answer.get("type") == "error"
        or isinstance(answer.get("message"), str)
    ):
        return texts, usage, usage is not None
    if isinstance(choices, list):
        for choice in choices:
            if isinstance(choice, dict):
                collect_text(choice.get("message") or choice, texts)
    else:
        for key in ANSWER_KEYS:
            if value := answer.get(key):
                collect_text(value, texts)
    known = ("choices", "usage", *ANSWER_KEYS)
    return texts, usage, bool(texts) or any(key in answer for key in known)


def is_provider_event(event: Mapping[str, object]) -> bool:
    """Whether an event without text or usage is at least a sign of a model at work."""
    return bool(event) and not is_error(event) and not any(key in event for key in HOST_KEYS)


def is_error(event: Mapping[str, object]) -> bool:
    """Whether an event says that a call failed."""
    return bool(event.get("error")) or event.get("type") in ("error", "response.failed")


def usage_in_event(event: Mapping[str, object]) -> ReportedUsage | None:
    """The usage in an event, wherever a provider puts it; None if there is none.

    A bounded search through what can hold usage: never through what the model wrote or the client
    said, which could claim any number.
    """
    found: list[ReportedUsage] = []
    holders: list[tuple[Mapping[str, object], bool, int]] = [(event, True, 0)]
    for holder, counts, depth in holders:  # grows while it is read
        timings = holder.get("timings")
        if counts or timings:
            usage = parse_usage(holder if counts else None, timings)
            if usage is not NO_USAGE:
                found.append(usage)
        if depth == DEEPEST_USAGE:
            continue
        for key in USAGE_HOLDERS.intersection(holder):
            value = holder[key]
            if isinstance(value, list):
                dicts = [each for each in value[:MOST_HOLDERS] if isinstance(each, dict)]
                if key == "usage":  # a list of calls
                    calls = [usage for each in dicts if (usage := parse_usage(each)).is_charged]
                    found += [reduce(ReportedUsage.added, calls)] if calls else []
                    continue
            else:
                dicts = [value] if isinstance(value, dict) else []
            room = MOST_HOLDERS - len(holders)
            holders += [(each, key != "metadata", depth + 1) for each in dicts[:room]]
    return reduce(ReportedUsage.merged, found) if found else None
