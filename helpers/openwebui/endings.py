"""Endings: a stream that may go no further ends as its protocol ends one at its length."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from helpers.openwebui.replies import Reply

StreamPart = bytes | str
LONGEST_LINE = 2**16
LINE_ENDS = frozenset((b"\n", "\n"))


def part_event(part: bytes, *, last: bool) -> dict[str, Any]:
    """The first or the last JSON object in a part of a stream; empty where there is none."""
    for line in part.splitlines()[:: -1 if last else 1]:
        try:
            event = json.loads(line.removeprefix(b"data:"))
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict):
            return event
    return {}


def event_lines(*events: dict[str, Any], named: bool = False) -> list[bytes]:
    """Events as lines of an event stream, with their names where the protocol has them."""
    names = [f"event: {event['type']}\n" if named else "" for event in events]
    return [
        f"{name}data: {json.dumps(event)}\n\n".encode()
        for name, event in zip(names, events, strict=True)
    ]


def end_of_stream(first: bytes, last: bytes, choices: int = 1) -> list[bytes]:
    """What ends a stream after `last`, in the protocol of both; each item ends an event.

    Args:
        first: The first part that held JSON: it names the answer.
        last: The part after which nothing of the provider's follows.
        choices: How many answers there are at once.
    """
    begun, event = part_event(first, last=False), part_event(last, last=True)
    kind = str(event.get("type") or "")
    if kind.startswith("response."):
        answer = begun.get("response")
        why = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
        answer = {**(answer if isinstance(answer, dict) else {}), **why}
        closing = event_lines({"type": "response.incomplete", "response": answer}, named=True)
    elif kind.startswith(("message_", "content_block", "ping")):
        index = event.get("index") if kind != "content_block_stop" else None
        ended = {"stop_reason": "max_tokens", "stop_sequence": None}
        events: list[dict[str, Any]] = [
            {"type": "message_delta", "delta": ended, "usage": {"output_tokens": 0}},
            {"type": "message_stop"},
        ]
        if isinstance(index, int):
            events.insert(0, {"type": "content_block_stop", "index": index})
        closing = event_lines(*events, named=True)
    elif "done" in event and "choices" not in event:  # Ollama's, a line for each object
        final = {"model": event.get("model"), "created_at": event.get("created_at")}
        final |= {"response": ""} if "response" in event else {}
        final |= {"message": {"role": "assistant", "content": ""}} if "message" in event else {}
        final |= {"done": True, "done_reason": "length"}
        return [json.dumps(final).encode() + b"\n"]
    else:
        named = ("id", "object", "created", "model", "system_fingerprint")
        chunk = {name: event[name] for name in named if name in event}
        held: dict[str, Any] = {"delta": {}}
        if event.get("object") == "text_completion":
            held = {"text": ""}
        listed = [{"index": i, **held, "finish_reason": "length"} for i in range(choices)]
        closing = [*event_lines({**chunk, "choices": listed}), b"data: [DONE]\n\n"]
    # The blank line that ends an event may be a part of its own, which doesn't come any more.
    return closing if last.endswith(b"\n\n") else [b"\n", *closing]


class StreamWatch:
    """How far a stream is, and what is needed to end it."""

    __slots__ = ("_begun", "_first", "_last", "_mark", "_size")

    def __init__(self) -> None:
        self._first = self._last = self._begun = b""
        self._size = self._mark = 0

    def passes(self, part: StreamPart) -> bool:
        """Note a part that has been passed on; whether to ask now if the reply may go on."""
        self._size += len(part)
        if self._size < self._mark and not self._begun and part[-1:] in LINE_ENDS:
            return False  # as nearly always
        data = part.encode("utf-8", "replace") if isinstance(part, str) else part
        if not data.endswith(b"\n"):  # the beginning of a line
            self._begun = (self._begun + data)[-LONGEST_LINE:]
            return False
        if self._begun:
            data, self._begun = self._begun + data, b""
        if b"}" not in data:  # not the end of an event's data
            return False
        self._last, self._first = data, self._first or data
        return self._size >= self._mark

    async def ending(self, reply: Reply) -> list[bytes]:
        """What ends the stream here; nothing where the reply may go on."""
        following = await reply.keeper.keep_up(reply, self._size, len(self._last))
        if following is None:
            return end_of_stream(self._first, self._last, reply.choices)
        self._mark = following
        return []


async def bounded_stream(reply: Reply, parts: Any) -> AsyncIterator[Any]:
    """A stream's parts as they come, and its end where the reply may go no further.

    Whoever takes a part has it metered before it asks for the next one.
    """
    watch = StreamWatch()
    try:
        async for part in parts:
            yield part
            if watch.passes(part) and (closing := await watch.ending(reply)):
                for each in closing:
                    yield each
                return
    finally:
        # Ends the call to the provider, which may have more to say.
        if (close := getattr(parts, "aclose", None)) is not None:
            await close()
