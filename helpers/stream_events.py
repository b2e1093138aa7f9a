"""What a stream event or a whole answer holds: produced text, usage, a completion's id, its end."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

from helpers.estimates import json_text
from helpers.usage_shapes import NO_USAGE, TokenUsage, parse_usage

# Where produced text stands, in the objects of OpenAI, Anthropic, Gemini, Mistral and Ollama.
TEXT_KEYS = frozenset(
    {
        "content",
        "text",
        "reasoning_content",
        "reasoning",
        "thinking",
        "refusal",
        "transcript",
        "name",
        "arguments",
        "args",
        "input",
        "partial_json",
        "summary",
        "code",
        "generated_text",
        "completion",
    }
)
ARGUMENT_KEYS = frozenset(("arguments", "args", "input"))
NESTING_KEYS = frozenset(
    {
        "content",
        "reasoning",
        "thinking",
        "audio",
        "parts",
        "tool_calls",
        "function_call",
        "functionCall",
        "function",
        "reasoning_details",
        "summary",
        "output",
        "message",
        "results",
    }
)
# Where thoughts stand; the first that a provider fills is the one that counts.
THOUGHT_KEYS = ("reasoning_content", "reasoning", "reasoning_details")
# Where a whole answer has its text, beside `choices`.
ANSWER_KEYS = (
    "content",
    "message",
    "output",
    "response",
    "thinking",
    "text",
    "generated_text",
    "completion",
    "results",
    "candidates",
)
MOST_ANSWERS = 64
# Their deltas are base64 sound, not text.
SOUND_EVENTS = frozenset(("response.audio.delta", "response.output_audio.delta"))
CLOSING_EVENTS = frozenset(("response.completed", "response.incomplete", "message_stop"))
HOST_KEYS = ("event", "sources", "selected_model_id")
DEEPEST_TEXT = 8


# What an event holds: texts, usage, completion id, whether it ends the completion. A bare tuple,
# because one is made for every chunk of every reply.
EventContent = tuple[list[str], TokenUsage | None, object, bool]


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
    finished = False
    for choice in choices:
        if isinstance(choice, dict):
            delta = choice.get("delta")
            # Perplexity repeats the whole message beside each delta.
            collect_text(choice.get("message", choice) if delta is None else delta, texts)
            if choice.get("finish_reason"):
                finished = True
    usage = None
    if event.get("usage") or "timings" in event or "x_groq" in event or finished:
        usage = usage_in_event(event)
        finished = finished or (usage is not None and not choices)
    return texts, usage, event.get("id"), finished


def read_native_event(event: Mapping[str, object]) -> EventContent:
    """Read an event that isn't a chat-completion chunk."""
    kind = event.get("type")
    kind = kind if isinstance(kind, str) else ""
    delta = event.get("delta")
    texts: list[str] = []
    if kind not in SOUND_EVENTS:
        collect_text(delta, texts)  # Responses, Anthropic
    if isinstance(delta, str) and "usage" not in event:
        return texts, None, None, False  # Responses, in nearly all of its events
    for key in ("response", "thinking"):  # Ollama's generate
        if isinstance(text := event.get(key), str) and text:
            texts.append(text)
    candidates = event.get("candidates")
    if isinstance(candidates, list):  # Gemini
        collect_text(candidates, texts)
    completion_id = event.get("id") or event.get("responseId")
    for key in ("message", "content_block", "response", "item"):
        holder = event.get(key)
        if not isinstance(holder, dict):
            continue
        if key in ("message", "content_block"):  # Ollama's chat, Anthropic's tool names
            collect_text(holder, texts)
        elif key == "item" and kind == "response.output_item.added":
            collect_text(holder.get("name"), texts)
        if key in ("message", "response"):
            completion_id = completion_id or holder.get("id")
    usage = usage_in_event(event)
    finished = kind in CLOSING_EVENTS or event.get("done") is True
    return texts, usage, completion_id, finished


def read_answer(answer: object) -> tuple[list[str], TokenUsage | None, bool]:
    """Read an answer that came in one piece: its texts, its usage, whether a model answered."""
    if isinstance(answer, list):
        parts = [read_answer(each) for each in answer[:MOST_ANSWERS] if isinstance(each, dict)]
        usages = [usage for _, usage, _ in parts if usage is not None]
        return (
            [text for texts, _, _ in parts for text in texts],
            reduce(TokenUsage.merged, usages) if usages else None,
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
    if event.get("error") or event.get("type") in ("error", "response.failed"):
        return False
    return bool(event) and not any(key in event for key in HOST_KEYS)


def usage_in_event(event: Mapping[str, object]) -> TokenUsage | None:
    """The usage in an event, wherever a provider puts it; None if there is none."""
    holders = [event]
    for key in ("response", "message", "metadata", "x_groq"):
        if isinstance(holder := event.get(key), dict):
            holders.append(holder)
    choices = event.get("choices")
    if isinstance(choices, list):  # Moonshot
        holders += [choice for choice in choices if isinstance(choice, dict)]
    found = [
        parse_usage(holder[key])
        for holder in holders
        for key in ("usage", "usageMetadata", "usage_metadata")
        if key in holder
    ]
    found += [parse_usage(None, holder["timings"]) for holder in holders if "timings" in holder]
    if "eval_count" in event or "prompt_eval_count" in event:  # Ollama
        found.append(parse_usage(event))
    found = [usage for usage in found if usage is not NO_USAGE]
    return reduce(TokenUsage.merged, found) if found else None
