"""An answer on its way to the client, read for its usage as it passes."""

from __future__ import annotations

import json
from typing import Any

from helpers.metering.usage import ReplyMeter

# Of an answer that isn't streamed, or of one line of a stream; a longer one is estimated.
LARGEST_ANSWER = 16 * 2**20
LINE_TYPES = (b"event-stream", b"ndjson", b"jsonl", b"json-seq")


def read_json(data: bytes | bytearray) -> Any:
    """The JSON value in some bytes; None where there is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


class AnswerReader:
    """Hands what passes to a meter: line by line, or whole."""

    __slots__ = ("_buffer", "_meter", "_overflown", "_readable", "answer", "by_lines", "status")

    def __init__(self, meter: ReplyMeter | None) -> None:
        self._meter = meter
        self._buffer = bytearray()
        self.by_lines = False
        self._overflown = False
        self._readable = False
        self.status: int | None = None
        self.answer: Any = None

    def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """The answer begins."""
        self.status = status
        kind = next((value for name, value in headers if name.lower() == b"content-type"), b"")
        encoded = any(name.lower() == b"content-encoding" for name, _ in headers)
        self.by_lines = any(each in kind.lower() for each in LINE_TYPES)
        self._readable = not encoded

    def feed(self, chunk: bytes) -> None:
        """A part of it has come."""
        if not self._readable or not chunk:
            return
        self._buffer += chunk
        if self.by_lines and b"\n" in chunk:
            *lines, rest = self._buffer.split(b"\n")
            self._buffer = bytearray(rest)
            if self._overflown:  # the rest of a line whose beginning is gone
                self._overflown = False
                lines = lines[1:]
            for line in lines:
                self._read_line(line)
        if len(self._buffer) > LARGEST_ANSWER:
            self._buffer.clear()
            self._overflown = True

    def end(self) -> None:
        """All of it has come, or nothing more will."""
        rest, self._buffer = self._buffer, bytearray()
        if not rest or self._overflown:
            return
        if self.by_lines:
            self._read_line(rest)
            return
        self.answer = read_json(rest)
        if self.answer is None:  # a stream under another name
            for line in rest.split(b"\n"):
                self._read_line(line)
        elif self._meter is not None:
            self._meter.add_answer(self.answer)

    def _read_line(self, line: bytes | bytearray) -> None:
        line = line.strip()
        if line.startswith(b"data:"):
            line = line[5:]
        if self._meter is not None and line.lstrip().startswith(b"{"):
            self._meter.add_event(read_json(line))
