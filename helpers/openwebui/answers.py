"""Answers on their way to the client: read for their usage, or replaced by a refusal."""

from __future__ import annotations

import json
from collections.abc import MutableMapping
from copy import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from fastapi import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response

from helpers.logs import log
from helpers.metering.usage import ReplyMeter
from helpers.openwebui.http_requests import (
    LIMITS_STATE,
    MOST_LAYERS,
    REFUSAL_STATE,
    AsgiApp,
    Message,
    Receive,
    Scope,
    Send,
    current_state,
    json_headers,
    without_headers,
)
from helpers.openwebui.passthrough import CHAT_PASSTHROUGHS, Passthrough
from helpers.openwebui.refusals import RawHeaders, Refusal, rate_headers

# Of an answer that isn't streamed, or of one line of a stream; a longer one is estimated.
LARGEST_ANSWER = 16 * 2**20
# On every answer that was counted or refused, for whoever checks that.
MARK: RawHeaders = [(b"x-usage-limits", b"checked")]
LINE_TYPES = (b"event-stream", b"ndjson", b"jsonl", b"json-seq")


def read_json(data: bytes | bytearray) -> Any:
    """The JSON value in some bytes; None where there is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


@dataclass(slots=True, eq=False)
class AnswerReader:
    """Hands what passes to a meter: line by line, or whole."""

    meter: ReplyMeter | None
    by_lines: bool = False
    status: int | None = None
    _buffer: bytearray = field(default_factory=bytearray)
    _overflown: bool = False
    _readable: bool = False

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
        answer = read_json(rest)
        if answer is None:  # a stream under another name
            for line in rest.split(b"\n"):
                self._read_line(line)
        elif self.meter is not None:
            self.meter.add_answer(answer)

    def _read_line(self, line: bytes | bytearray) -> None:
        line = line.strip()
        if line.startswith(b"data:"):
            line = line[5:]
        if self.meter is not None and line.lstrip().startswith(b"{"):
            self.meter.add_event(read_json(line))


def refusal_messages(passthrough: Passthrough, refusal: Refusal, more: RawHeaders) -> list[Message]:
    """A refusal in its protocol's own form."""
    body = refusal.body(passthrough.form)
    headers = [*json_headers(body), *refusal.headers(), *MARK, *more]
    return [
        {"type": "http.response.start", "status": refusal.status, "headers": headers},
        {"type": "http.response.body", "body": body},
    ]


async def send_own(
    app: AsgiApp, scope: Scope, receive: Receive, send: Send, messages: list[Message]
) -> None:
    """Send an answer that isn't Open WebUI's, with the headers that its CORS middleware adds.

    Args:
        app: Open WebUI's app; the middleware is somewhere in its stack.
    """

    async def answer(_: Scope, __: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    below: Any = app
    for _ in range(MOST_LAYERS):
        if isinstance(below, CORSMiddleware):
            cors = copy(below)
            cors.app = answer
            await cors(scope, receive, send)
            return
        below = getattr(below, "app", None)
    await answer(scope, receive, send)


def keep_status(request: Any) -> None:
    """See that a refusal keeps status and form in a chat that a worker got before it had the layer.

    Open WebUI before 0.12 makes its status 400; in none it has the form of the path's protocol.
    """
    scope = getattr(request, "scope", {})
    path = CHAT_PASSTHROUGHS.get(scope.get("path", ""))
    handlers = scope.get("starlette.exception_handlers")
    if path is None or handlers is None or current_state.get() is not None:
        return
    current_state.set(scope.setdefault("state", {}))
    of_errors, of_statuses = handlers

    async def answer(request: Request, error: Exception) -> Response:
        meant = request.scope.get("state", {}).get(REFUSAL_STATE)
        if meant is None:
            theirs: Response = await of_errors[HTTPException.__base__](request, error)
            return theirs
        refusal, form = Refusal(*meant), CHAT_PASSTHROUGHS[request.scope["path"]].form
        headers = {name.decode(): value.decode() for name, value in [*refusal.headers(), *MARK]}
        return Response(refusal.body(form), refusal.status, headers, "application/json")

    for status in (400, 429, 503):
        of_statuses[status] = answer


class ChatAnswer:
    """The answer of a path where the hooks run."""

    def __init__(
        self, passthrough: Passthrough, state: MutableMapping[str, Any], send: Send
    ) -> None:
        self._passthrough = passthrough
        self._state = state
        self._send = send
        self._headers: RawHeaders = []
        self._refusal: Refusal | None = None

    async def send(self, message: Message) -> None:
        """Pass a part of it on; a refusal takes the place of the whole answer."""
        kind = message["type"]
        if kind == "http.response.start":
            self._start(message)
            if self._refusal is None:
                message = {**message, "headers": with_headers(message, self._own_headers())}
        if self._refusal is None:
            await self._send(message)
        elif kind == "http.response.body" and not message.get("more_body"):
            more = [*self._headers, *limit_headers(self._state)]
            for own in refusal_messages(self._passthrough, self._refusal, more):
                await self._send(own)

    def _own_headers(self) -> RawHeaders:
        limits = limit_headers(self._state)
        # Where the hooks run they may not be on for the model that was asked for.
        checked = self._passthrough.kind == "task" or LIMITS_STATE in self._state
        return [*MARK, *limits] if checked else limits

    def _start(self, message: Message) -> None:
        refusal = self._state.get(REFUSAL_STATE)
        if message["status"] >= 400 and refusal is not None:
            self._refusal = Refusal(*refusal)
            own = (b"content-type", b"content-length", b"content-encoding", b"retry-after")
            self._headers = without_headers(message, *own)


def with_headers(message: Message, own: RawHeaders) -> RawHeaders:
    """An answer's headers and ours; a provider's own of the same name speak of its key."""
    return [*without_headers(message, *(name for name, _ in own)), *own]


def limit_headers(state: MutableMapping[str, Any]) -> RawHeaders:
    """Where a request's limits stand; a fault here costs no answer."""
    try:
        return rate_headers(state.get(LIMITS_STATE) or (), datetime.now(UTC))
    except Exception:
        log.exception("Usage limits: the headers of an answer could not be made")
        return []
