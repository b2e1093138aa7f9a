"""The HTTP requests that the layer serves: their state, path and body."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from typing import Any

from helpers.openwebui.messages import TOO_LARGE_SENTENCE, UNREADABLE_SENTENCE
from helpers.openwebui.refusals import PassthroughError, RawHeaders, Refusal

# Requests that are read here are JSON, with pictures in it at most; a longer one is refused.
LARGEST_REQUEST = 16 * 2**20
# As deep as Open WebUI's middlewares are looked through.
MOST_LAYERS = 50

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

# The state of the request that this task serves, or that started it: out of its client's reach.
current_state: ContextVar[MutableMapping[str, Any] | None] = ContextVar(
    "usage_limits_state", default=None
)
# What the browser that asks for a valves form accepts: the header, as it came.
accepted_languages: ContextVar[str] = ContextVar("usage_limits_languages", default="")
REFUSAL_STATE = "usage_limits_refusal"
LIMITS_STATE = "usage_limits_limits"
SOURCE_STATE = "usage_limits_source"


def note_in_state(name: str, value: object) -> None:
    """Keep something for the layer; nothing is kept where there is none."""
    state = current_state.get()
    if state is not None:
        state[name] = value


def route_path(scope: Scope) -> str:
    """A request's path below the prefix that a proxy may have put before Open WebUI."""
    path, prefix = str(scope.get("path", "")), str(scope.get("root_path", ""))
    if prefix and path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in ("", "/"):
        return path[len(prefix) :]
    return path


def set_route_path(scope: Scope, path: str) -> None:
    """Send a request to another path of Open WebUI."""
    prefix = str(scope.get("root_path", ""))
    whole = prefix + path if str(scope.get("path", "")).startswith(prefix) else path
    scope["path"] = whole
    scope["raw_path"] = whole.encode()


def without_headers(message: Message, *names: bytes) -> RawHeaders:
    """The headers of a request or an answer, but for these."""
    return [pair for pair in message.get("headers", ()) if pair[0].lower() not in names]


def json_headers(body: bytes) -> RawHeaders:
    """The headers that say of a body that it is JSON."""
    length = str(len(body)).encode()
    return [(b"content-type", b"application/json"), (b"content-length", length)]


class ReadRequest:
    """A JSON request, read here and handed on as it was understood."""

    def __init__(self, value: dict[str, Any], receive: Receive) -> None:
        self.value = value
        self._receive: Receive = receive
        self._handed = False

    @classmethod
    async def read(cls, receive: Receive) -> ReadRequest:
        """Read it.

        Raises:
            PassthroughError: It is too long, or no JSON object.
        """
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise PassthroughError(Refusal(400, UNREADABLE_SENTENCE))
            part = message.get("body", b"")
            size += len(part)
            if size > LARGEST_REQUEST:
                sentence = TOO_LARGE_SENTENCE.format(size=LARGEST_REQUEST // 2**20)
                raise PassthroughError(Refusal(413, sentence))
            parts.append(part)
            if not message.get("more_body"):
                break
        try:
            value = json.loads(b"".join(parts))
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise PassthroughError(Refusal(400, UNREADABLE_SENTENCE))
        return cls(value, receive)

    def hand_on(self, scope: Scope) -> Receive:
        """What Open WebUI receives; two readings of the same text can't differ this way."""
        try:
            body = json.dumps(self.value).encode()
        except (ValueError, RecursionError) as error:
            raise PassthroughError(Refusal(400, UNREADABLE_SENTENCE)) from error
        replaced = (b"content-length", b"content-type", b"transfer-encoding")
        scope["headers"] = [*without_headers(scope, *replaced), *json_headers(body)]

        async def receive() -> Message:
            if self._handed:
                return await self._receive()
            self._handed = True
            return {"type": "http.request", "body": body, "more_body": False}

        return receive
