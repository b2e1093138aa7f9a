"""Streams that end at a limit, without a server: what is said, and who is asked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from helpers.openwebui.endings import bounded_stream, end_of_stream

CHUNK = {
    "id": "c1",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "delta": {"content": "word"}}],
}


class Counting:
    """A reply that may go on until its stream is so long."""

    def __init__(self, longest: int, choices: int = 1) -> None:
        self.longest, self.choices = longest, choices
        self.asked: list[tuple[int, int]] = []
        self.keeper = self

    async def keep_up(self, _: Counting, size: int, step: int) -> int | None:
        self.asked.append((size, step))
        return None if size >= self.longest else size + 1


class Provider:
    """Says the same again and again, and notes that it was left."""

    def __init__(self, *parts: Any) -> None:
        self.parts, self.left = parts, False

    async def stream(self) -> AsyncIterator[Any]:
        try:
            while True:
                for part in self.parts:
                    yield part
        finally:
            self.left = True


async def taken(reply: Counting, provider: Provider) -> list[Any]:
    return [part async for part in bounded_stream(reply, provider.stream())]


async def test_stream_ends_and_the_provider_is_left() -> None:
    """The last part is one of the provider's, then comes the end, and its call is closed."""
    line = b"data: " + json.dumps(CHUNK).encode() + b"\n"
    provider, reply = Provider(line, b"\n"), Counting(3 * len(line))
    parts = await taken(reply, provider)
    assert provider.left
    *given, gap, last, done = parts
    assert given == [line, b"\n", line, b"\n", line]
    assert (gap, done) == (b"\n", b"data: [DONE]\n\n")
    event = json.loads(last.removeprefix(b"data: "))
    assert event["choices"] == [{"index": 0, "delta": {}, "finish_reason": "length"}]
    assert (event["id"], event["model"]) == ("c1", "m")


async def test_nothing_is_cut_in_the_middle() -> None:
    """A stream never ends in the middle of a line, or between an event's name and its data."""
    parts = (
        "event: content_block_delta\n",
        'data: {"type": "content_block_delta", ',
        '"index": 3}\n\n',
    )
    for longest in range(1, 200, 7):
        given = await taken(Counting(longest), Provider(*parts))
        text = "".join(each.decode() if isinstance(each, bytes) else each for each in given)
        events = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
        assert [json.loads(event)["type"] for event in events][-3:] == [
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]


async def test_a_stream_below_its_mark_is_not_looked_at() -> None:
    """Between two marks nobody is asked."""
    reply = Counting(10**9)

    async def short() -> AsyncIterator[bytes]:
        for _ in range(9):
            yield b"{}\n"

    assert len([part async for part in bounded_stream(reply, short())]) == 9
    assert len(reply.asked) == 9
    assert reply.asked[-1] == (27, 3)


@pytest.mark.parametrize(
    "part", [b"", b"\n", b"data: [1]\n", b"data: {\n", b"\xff{\n", b"{" * 9_000 + b"\n", b"x{}\n"]
)
def test_odd_parts_still_end(part: bytes) -> None:
    """Whatever the provider says last, the stream ends as a chat's does."""
    assert end_of_stream(part, part, choices=3)[-1] == b"data: [DONE]\n\n"


def test_all_choices_end() -> None:
    """Each of the answers that were asked for has its own end."""
    part = f"data: {json.dumps(CHUNK)}\n\n".encode()
    event, _ = end_of_stream(part, part, choices=3)
    listed = json.loads(event.removeprefix(b"data: "))["choices"]
    assert [choice["index"] for choice in listed] == [0, 1, 2]
    assert {choice["finish_reason"] for choice in listed} == {"length"}
