"""The fake provider's call log: one entry for every call it was sent."""

import threading
import time
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(slots=True)
class Call:
    """One call, from the provider's side: what it cost, what was sent, and how it ended."""

    id: str
    model: str
    endpoint: str
    stream: bool
    text: str  # the last user message
    prompt_tokens: int
    completion_tokens: int  # what a complete answer costs, reported or not
    chunks_planned: int
    task: str | None = None  # the host's background task, None for a user's chat
    asked_usage: bool = False
    max_tokens: int | None = None
    tool_round: int = 0  # 1, 2… while it answers with tool calls, 0 when with text
    chunks_sent: int = 0
    characters_sent: int = 0
    reported: dict[str, Any] | None = None  # the last usage that was sent, as it was sent
    status: int = 200
    finished: bool = False
    client_gone: bool = False
    broken: bool = False
    started_at: float = field(default_factory=time.time)
    ended_at: float | None = None

    @property
    def total_tokens(self) -> int:
        """What a complete answer costs, prompt and completion."""
        return self.prompt_tokens + self.completion_tokens

    @property
    def open(self) -> bool:
        """Whether the call is still being answered."""
        return self.ended_at is None


class CallLog:
    """All calls in the order of their arrival; safe to read while calls come in."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: list[Call] = []

    def enter(self, call: Call) -> Call:
        """Write a new call down."""
        with self._lock:
            self._calls.append(call)
        return call

    def close(self, call: Call) -> None:
        """Note that a call has ended; whoever left before the end was the client."""
        if call.ended_at is None:
            call.client_gone = not (call.finished or call.broken)
            call.ended_at = time.time()

    def clear(self) -> None:
        """Forget all calls."""
        with self._lock:
            self._calls.clear()

    def calls(
        self, *, contains: str = "", model: str | None = None, tasks: bool = False
    ) -> list[Call]:
        """The calls with a text or for a model, the host's background tasks only if asked for."""
        with self._lock:
            calls = list(self._calls)
        return [
            call
            for call in calls
            if contains in call.text
            and model in (None, call.model)
            and (tasks or call.task is None)
        ]

    def as_json(self) -> list[dict[str, Any]]:
        """All calls, as `GET /calls` returns them."""
        return [asdict(call) for call in self.calls(tasks=True)]

    def wait_until_ended(self, *, contains: str = "", timeout: float = 10.0) -> list[Call]:
        """The matching calls once there is at least one and all have ended."""
        deadline = time.monotonic() + timeout
        while True:
            calls = self.calls(contains=contains)
            if calls and not any(call.open for call in calls):
                return calls
            if time.monotonic() > deadline:
                raise TimeoutError(f"calls with {contains!r} after {timeout} s: {calls}")
            time.sleep(0.02)
