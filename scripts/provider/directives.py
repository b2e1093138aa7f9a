"""What the fake provider is told to do with a call: directives in the user's text, and rules.

A test writes what it wants into the message itself, so that the wish travels with the call through
the whole of Open WebUI and two tests never disturb each other:

    Tell me a story [[tokens=7 in=12 chunks=20 delay=0.2 usage=final]]

Values with spaces are quoted as in a shell: ``[[reply="two words"]]``. An unknown key or a value
that isn't allowed is answered with status 400 and the reason, never ignored.
"""

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

UsageMode = Literal["asked", "final", "running", "zero", "none"]

_MARKER = re.compile(r"\[\[(?P<words>\s*\w+=.*?)\]\](?!\])", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Directive:
    """How one call is answered; the defaults are a quick, well-behaved provider."""

    tokens: int | None = None  # completion tokens to report; as many as chunks if not given
    prompt: int | None = None  # prompt tokens to report (`in` in a directive); counted if not given
    chunks: int = 4  # pieces of text in which the reply comes
    reply: str | None = None  # the reply's text; made-up words if not given
    reasoning: int = 0  # pieces of reasoning before the text
    wait: float = 0.0  # seconds before the first byte
    delay: float = 0.0  # seconds before each piece
    usage: UsageMode = "asked"  # as OpenAI: a stream reports only if `include_usage` was asked
    cached: int = 0  # prompt tokens reported as read from a cache
    raw_usage: Mapping[str, Any] | None = None  # reported word for word in place of the above
    raw_message: Mapping[str, Any] | None = None  # the message of an answer in one piece
    error: int | None = None  # HTTP status of a refusal in place of an answer
    refuse: str | None = None  # a field of the request that is refused with 422, as Mistral does
    break_after: int | None = None  # the connection breaks after so many pieces
    tool: str | None = None  # the tool to call before answering
    args: str = "{}"  # the tool's arguments, as JSON text
    rounds: int = 1  # how many rounds of tool calls come before the text

    def with_values(self, values: Mapping[str, Any]) -> "Directive":
        """This directive with some values changed; ValueError names what isn't allowed."""
        changes = {}
        for name, value in values.items():
            key = "prompt" if name == "in" else name
            if key not in _KINDS:
                allowed = ", ".join(sorted(_KINDS))
                raise ValueError(f"unknown directive {name!r}; allowed are: {allowed}")
            changes[key] = _value(name, key, value)
        return replace(self, **changes)


_INTEGERS = {"tokens", "prompt", "chunks", "reasoning", "cached", "error", "break_after", "rounds"}
_KINDS = {field.name for field in fields(Directive)}


def _value(name: str, key: str, value: Any) -> Any:
    try:
        if key in _INTEGERS:
            return int(value)
        if key in {"wait", "delay"}:
            return float(value)
        if key in {"raw_usage", "raw_message"}:
            return json.loads(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError(f"directive {name}={value!r}: {error}") from None
    if key == "usage" and value not in get_args(UsageMode):
        raise ValueError(
            f"directive usage={value!r}; allowed are: {', '.join(get_args(UsageMode))}"
        )
    return str(value)


def parse_directive(text: str, base: Directive) -> Directive:
    """`base` with what the markers in a text change."""
    for marker in _MARKER.finditer(text):
        words = shlex.split(marker["words"])
        pairs = [word.partition("=") for word in words]
        base = base.with_values({name: value for name, _, value in pairs})
    return base


@dataclass(slots=True)
class Rule:
    """A standing instruction for calls that match a model glob and a text, for so many times."""

    directive: Directive
    model: str = "*"
    contains: str = ""
    times: int | None = None

    def takes(self, model: str, text: str) -> bool:
        """Whether the rule applies to this call; counts it if so."""
        if self.times == 0 or not fnmatchcase(model, self.model) or self.contains not in text:
            return False
        if self.times is not None:
            self.times -= 1
        return True


# The first words of the prompts that Open WebUI writes for its own background tasks. (Retrieval
# writes a prompt that begins with "### Task:" too, but that one is a user's chat.)
_TASKS = {
    "title": ("Generate a concise title", "Generate a concise, 3-5 word title"),
    "tags": ("Generate 1-3 broad tags",),
    "follow_ups": ("Predict 3-5 useful messages", "Suggest 3-5 relevant follow-up questions"),
    "image_prompt": ("Generate a detailed prompt for am image",),
    "queries": ("Analyze the chat history to determine the necessity",),
    "autocomplete": ("You are an autocompletion system",),
}

_TASK_REPLIES = {
    "title": '{"title": "A fake-llm title"}',
    "tags": '{"tags": ["Fake-llm"]}',
    "follow_ups": '{"follow_ups": ["And then?"]}',
    "queries": '{"queries": []}',
    "autocomplete": '{"text": "and so on"}',
}


def background_task(text: str) -> str | None:
    """The name of the background task that a prompt belongs to; None for a user's message."""
    head = text.lstrip().removeprefix("### Task:").lstrip()
    return next((name for name, words in _TASKS.items() if head.startswith(words)), None)


def task_directive(task: str) -> Directive:
    """How a background task is answered: at once, in the form that the host expects."""
    return Directive(reply=_TASK_REPLIES.get(task, "{}"))
