"""Chat events: what the chat page shows of a reply's limits, as toasts and status lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from helpers.ledger.ledger import Admission
from helpers.limits.decisions import Decision, LimitState
from helpers.logs import log
from helpers.metering.charges import Charge
from helpers.openwebui.messages import (
    cap_sentence,
    finish_sentence,
    own_use_line,
    status_line,
    stopped_sentence,
    warning_sentence,
)
from helpers.openwebui.replies import EXPECTED_OUTPUT_TOKENS, Emitter, Reply

# Ordinary replies stay below it, so a higher cap is not worth a line.
CAP_WORTH_SAYING = 4_000


async def emit(emitter: Emitter, event: dict[str, Any]) -> None:
    """Send an event; a browser that has gone away must not cost the reply."""
    try:
        await emitter(event)
    except Exception:
        log.warning("Usage limits: a message could not be shown", exc_info=True)


async def emit_status(emitter: Emitter, sentence: str) -> None:
    """A grey line over the reply."""
    await emit(emitter, {"type": "status", "data": {"description": sentence, "done": True}})


def usage_preference(user: Mapping[str, Any]) -> str:
    """What the user has set for `show_usage`."""
    return str(getattr(user.get("valves"), "show_usage", "near_limit"))


async def tell_admitted(
    reply: Reply,
    admission: Admission,
    template: str,
    link: str,
    user: Mapping[str, Any],
    emitter: Emitter,
) -> None:
    """Warn of soft limits, each with a toast and a line, and say how long the reply may be.

    Args:
        template: The administrator's `warning_message`.
        link: What follows the built-in sentence.
    """
    for state in admission.warnings:
        now, model = datetime.now(UTC), reply.reservation.model_names[0]
        sentence = warning_sentence(template, state, now, reply.reader, model)
        sentence += "" if template else link
        toast = {"type": "warning", "content": sentence}
        await emit(emitter, {"type": "notification", "data": toast})
        if usage_preference(user) != "never":
            await emit_status(emitter, sentence)
    most = reply.most_output()
    worth = EXPECTED_OUTPUT_TOKENS if reply.output_cap is None else CAP_WORTH_SAYING
    if most is not None and most < worth:
        await emit_status(emitter, cap_sentence(most, reply.reader.language))


async def tell_stopped(reply: Reply, emitter: Emitter, state: LimitState | None) -> None:
    """Say why a reply ends before its end: a limit, or no ledger."""
    if state is None:
        language = reply.reader.language
        await emit_status(emitter, finish_sentence(language.ledger_error, language))
        return
    used = state.used + reply.used_charge().counted.of(state.applied.limit.measure)
    sentence = stopped_sentence(replace(state, used=used), datetime.now(UTC), reply.reader)
    await emit_status(emitter, sentence)


async def tell_settled(
    reply: Reply,
    charge: Charge | None,
    decision: Decision,
    user: Mapping[str, Any],
    emitter: Emitter,
) -> None:
    """The line of a finished reply, as its user prefers it."""
    state, shown, now = decision.fullest, usage_preference(user), datetime.now(UTC)
    if reply.reservation.source == "api" or not reply.enforced or getattr(reply, "stopped", False):
        return
    if shown == "always" and charge is not None:
        # A reply that began before 0.2.0 was pasted has the charges of then.
        usage: Any = getattr(charge, "usage", charge)
        tokens = usage.input_tokens + usage.output_tokens
        line = own_use_line(tokens, charge.cost_micros, state, now, reply.reader)
        await emit_status(emitter, line)
    elif (
        state is not None
        and shown == "near_limit"
        and state.crossed_threshold(reply.soft_limit_percent) is not None
    ):
        await emit_status(emitter, status_line(state, now, reply.reader))
