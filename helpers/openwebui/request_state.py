"""What is known of the request that is being served, for the layer around Open WebUI."""

from __future__ import annotations

from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import Any

# The state of the request that this task serves, or that started it: out of its client's reach.
current_state: ContextVar[MutableMapping[str, Any] | None] = ContextVar(
    "usage_limits_state", default=None
)
# What the browser that asks for a valves form accepts: the header, as it came.
accepted_languages: ContextVar[str] = ContextVar("usage_limits_languages", default="")
REFUSAL_STATE = "usage_limits_refusal"
LIMITS_STATE = "usage_limits_limits"


def note_in_state(name: str, value: object) -> None:
    """Keep something for the layer; nothing is kept where there is none."""
    state = current_state.get()
    if state is not None:
        state[name] = value
