"""Refusals and rate headers as the programs of each protocol read them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from helpers.limits.decisions import LimitState

# The clients of OpenAI and Anthropic wait this long between their own attempts at most.
LONGEST_CLIENT_WAIT = 60
# When to come again after a fault of ours.
FAULT_RETRY_SECONDS = 60

OPENAI_ERROR_TYPES = {
    400: "invalid_request_error",
    403: "permission_denied",
    413: "request_too_large",
    429: "rate_limit_exceeded",
    503: "service_unavailable",
}
ANTHROPIC_ERROR_TYPES = {
    400: "invalid_request_error",
    403: "permission_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
# The measures that OpenAI's headers speak of, as it calls them.
HEADER_MEASURES = ("requests", "tokens")

# What the clients of a path read errors in.
ErrorForm = Literal["openai", "anthropic", "ollama"]
RawHeaders = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a program is told instead of an answer."""

    status: int
    sentence: str
    retry_after: int | None = None

    def body(self, form: ErrorForm) -> bytes:
        """The error as clients of this protocol read it, and Open WebUI's own `detail`."""
        if form == "ollama":
            error: dict[str, object] = {"error": self.sentence}
        elif form == "anthropic":
            kind = ANTHROPIC_ERROR_TYPES.get(self.status, "api_error")
            error = {"type": "error", "error": {"type": kind, "message": self.sentence}}
        else:
            kind = OPENAI_ERROR_TYPES.get(self.status, "server_error")
            error = {"error": {"message": self.sentence, "type": kind, "param": None, "code": kind}}
        return json.dumps({**error, "detail": self.sentence}).encode()

    def headers(self) -> RawHeaders:
        """When to come again, and whether to try before."""
        if self.retry_after is None:
            return [(b"x-should-retry", b"false")]
        headers = [(b"retry-after", str(self.retry_after).encode())]
        if self.retry_after > LONGEST_CLIENT_WAIT:
            headers.append((b"x-should-retry", b"false"))
        return headers


class PassthroughError(Exception):
    """A request that is refused at its pass-through path."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.sentence)
        self.refusal = refusal


def spell_wait(seconds: float) -> str:
    """A time to wait as OpenAI spells it: 1s, 6m0s, 5h12m0s."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minute}m{second}s"
    return f"{minute}m{second}s" if minute else f"{second}s"


def rate_headers(states: Iterable[LimitState], now: datetime) -> RawHeaders:
    """Where the tightest limit on requests and the one on tokens stand."""
    headers: RawHeaders = []
    listed = list(states)
    for measure in HEADER_MEASURES:
        found = [
            state
            for state in listed
            if state.applied.limit.measure == measure and not state.applied.limit.is_moment
        ]
        if found:
            tightest = min(found, key=lambda state: state.remaining)
            wait = spell_wait((tightest.reset_at - now).total_seconds())
            headers += [
                (f"x-ratelimit-limit-{measure}".encode(), str(tightest.amount).encode()),
                (f"x-ratelimit-remaining-{measure}".encode(), str(tightest.remaining).encode()),
                (f"x-ratelimit-reset-{measure}".encode(), wait.encode()),
            ]
    return headers
