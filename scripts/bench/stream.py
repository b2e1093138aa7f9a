"""What the stream hook costs per chunk, beyond a hook that does nothing."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any, cast

from helpers.filter import Filter
from helpers.limits.policy import Subject
from helpers.metering.estimates import estimate_prompt
from helpers.openwebui.admission import build_reply
from helpers.openwebui.endings import bounded_stream
from helpers.openwebui.replies import FARTHEST_MARK, METADATA_KEY
from helpers.openwebui.valves import AdminValves
from scripts.bench.tables import Section
from scripts.bench.timing import percentile

GOAL_MICROSECONDS = 2.0
CHUNKS_PER_REPLY = 500
BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}], "stream": True}


def chat_chunk(delta: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A chunk as OpenAI's chat completions send it."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_760_000_000,
        "model": "gpt-4o",
        "choices": [{"index": 0, "delta": delta, "finish_reason": None}],
        **more,
    }


USAGE = {
    "prompt_tokens": 1200,
    "completion_tokens": 345,
    "total_tokens": 1545,
    "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 128},
}
EVENTS = {
    "text delta": chat_chunk({"content": " word"}),
    "text delta, usage null": chat_chunk({"content": " word"}, usage=None),
    "reasoning delta": chat_chunk({"reasoning_content": " thought"}),
    "tool delta": chat_chunk(
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"city": "Ber'}}]}
    ),
    "Responses text delta": {
        "type": "response.output_text.delta",
        "item_id": "msg_1",
        "output_index": 0,
        "content_index": 0,
        "delta": " word",
    },
    "Anthropic text delta": {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": " word"},
    },
    "text delta with running usage": chat_chunk({"content": " word"}, usage=USAGE),
    "usage chunk, once per call": {**chat_chunk({}), "choices": [], "usage": USAGE},
}


class EmptyFilter:
    """A filter whose hook does nothing."""

    def stream(
        self, event: dict[str, Any], __metadata__: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        return event


def new_metadata() -> dict[str, Any]:
    """The metadata of a reply that has just been admitted."""
    reply = build_reply(
        None,  # it is never asked
        AdminValves(),
        Subject("ann", "ann@example.org", "user"),
        {},
        BODY,
        {},
        ("gpt-4o",),
        "page",
        datetime.now(UTC),
        prompt_tokens=estimate_prompt(BODY),
        ollama=False,
        own_provider=False,
    )
    return {"chat_id": "c", "message_id": "m", "session_id": "s", METADATA_KEY: reply}


def pass_reply(
    hook: Callable[[dict[str, Any], dict[str, Any] | None], Any], event: dict[str, Any]
) -> Callable[[], float]:
    """Pass one reply of many chunks through a hook; returns seconds of the chunks alone."""

    def pass_chunks() -> float:
        metadata = new_metadata()
        began = time.process_time()
        for _ in range(CHUNKS_PER_REPLY):
            hook(event, metadata)
        return time.process_time() - began

    return pass_chunks


class LimitlessReply:
    """A reply that holds enough for a long time."""

    choices = 1

    @property
    def keeper(self) -> LimitlessReply:
        """Whoever is asked for more."""
        return self

    async def keep_up(self, _: object, size: int, step: int) -> int | None:
        return size + FARTHEST_MARK


async def parts_of_reply() -> AsyncIterator[bytes]:
    """A reply's lines as they come from a provider."""
    line = f"data: {json.dumps(EVENTS['text delta'])}\n".encode()
    for _ in range(CHUNKS_PER_REPLY):
        yield line
        yield b"\n"


async def take_parts(parts: AsyncIterator[bytes]) -> float:
    """Seconds that it takes to take them all."""
    began = time.process_time()
    async for _ in parts:
        pass
    return time.process_time() - began


async def time_watch(rounds: int) -> tuple[list[float], list[float]]:
    """Microseconds per chunk of a stream that is watched for its limit, and of a bare one."""
    watched, bare = [], []
    for _ in range(rounds):
        parts = bounded_stream(cast(Any, LimitlessReply()), parts_of_reply())
        watched.append(await take_parts(parts) / CHUNKS_PER_REPLY * 1e6)
        bare.append(await take_parts(parts_of_reply()) / CHUNKS_PER_REPLY * 1e6)
    return watched, bare


def measure_stream(quick: bool) -> Section:
    """Microseconds per chunk and kind of chunk."""
    section = Section("stream", "Stream hook: µs per chunk beyond an empty hook")
    rounds = 60 if quick else 300
    hooks = {"ours": Filter().stream, "empty": EmptyFilter().stream}
    turns = {
        (chunk, name): pass_reply(hook, event)
        for chunk, event in EVENTS.items()
        for name, hook in hooks.items()
    }
    per_chunk: dict[tuple[str, str], list[float]] = {key: [] for key in turns}
    for _ in range(rounds):
        for key, pass_chunks in turns.items():
            per_chunk[key].append(pass_chunks() / CHUNKS_PER_REPLY * 1e6)
    for chunk in EVENTS:
        ours, empty = per_chunk[chunk, "ours"], per_chunk[chunk, "empty"]
        section.rows.append(
            {
                "chunk": chunk,
                "empty hook": statistics.median(empty),
                "added": statistics.median(ours) - statistics.median(empty),
                "added, quietest tenth": percentile(ours, 10) - percentile(empty, 10),
            }
        )
    watched, bare = asyncio.run(time_watch(rounds))
    section.rows.append(
        {
            "chunk": "beside the hook: watched for its limit",
            "empty hook": statistics.median(bare),
            "added": statistics.median(watched) - statistics.median(bare),
            "added, quietest tenth": percentile(watched, 10) - percentile(bare, 10),
        }
    )
    ordinary = float(section.rows[0]["added"])
    section.judge("an ordinary text delta", ordinary, GOAL_MICROSECONDS, "µs")
    section.notes.append(
        f"Processor time; medians of {rounds} replies of {CHUNKS_PER_REPLY} chunks, "
        "all kinds and both hooks in turn."
    )
    return section
