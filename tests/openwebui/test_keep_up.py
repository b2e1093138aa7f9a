"""A running reply and its reservation, on a real ledger, without a server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, func, select, text

from helpers.errors import LedgerError
from helpers.ledger.database import open_database
from helpers.ledger.tables import records_table
from helpers.limits.policy import Subject
from helpers.metering.estimates import estimate_prompt
from helpers.openwebui.accounting import Accounting
from helpers.openwebui.admission import build_reply, check_round
from helpers.openwebui.endings import bounded_stream
from helpers.openwebui.replies import Reply
from helpers.openwebui.task_calls import metered_stream
from helpers.openwebui.valves import AdminValves

LIMIT = 2_000
BODY = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """A ledger of the test's own."""
    return open_database(f"sqlite:///{tmp_path / 'ledger.db'}")


async def admitted(engine: Engine, **valves: Any) -> Reply:
    """A reply that has been admitted under a limit."""
    given = {"policies": f'[role.user]\nlimits = ["{LIMIT} tokens/day"]', **valves}
    accounting = Accounting(engine, None)
    reply = build_reply(
        accounting,
        AdminValves(**given),
        Subject("ann", "ann@example.org", "user"),
        {},
        BODY,
        {},
        ("m",),
        "page",
        datetime.now(UTC),
        prompt_tokens=estimate_prompt(BODY),
        ollama=False,
        own_provider=False,
    )
    _, admission = await accounting.admit(lambda: reply, False)
    assert not isinstance(admission, Exception)
    assert admission.decision.allowed
    return reply


async def write(reply: Reply, chunks: int) -> int:
    """A provider's stream through the reply; how many chunks were taken of it."""

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(chunks):
            delta = {"id": "c", "choices": [{"index": 0, "delta": {"content": "word "}}]}
            yield f"data: {json.dumps(delta)}\n\n".encode()

    taken = 0
    async for part in bounded_stream(reply, parts()):
        if b"word" in part:
            taken += 1
            reply.meter.add_event(json.loads(part.removeprefix(b"data:")))
    return taken


def held(engine: Engine) -> int:
    """What the ledger holds, or has of what has ended."""
    columns = records_table.c.input_tokens + records_table.c.output_tokens
    with engine.connect() as connection:
        return int(connection.execute(select(func.sum(columns))).scalar_one())


async def test_reservation_stays_ahead(engine: Engine) -> None:
    """With `finish` the reply goes on, and what is held for it is never less than what it used."""
    reply = await admitted(engine)
    for _ in range(20):
        assert await write(reply, 90) == 90
        if reply.growing is not None:
            await reply.growing
        used = reply.used_charge().counted
        assert held(engine) >= min(used.input_tokens + used.output_tokens, 1.25 * LIMIT)
    assert held(engine) >= LIMIT - 100
    await reply.keeper.end(reply, reply.final_charge())


async def test_reply_stops_at_its_limit(engine: Engine) -> None:
    """With `stop` it ends where the limit is, and says which one it was."""
    reply = await admitted(engine, running_replies="stop")
    told: list[Any] = []

    async def emit(event: Any) -> None:
        told.append(event["data"]["description"])

    reply.emitter = emit
    taken = await write(reply, 3 * LIMIT)
    used = reply.used_charge().counted
    assert 0.98 * LIMIT <= used.input_tokens + used.output_tokens <= LIMIT
    assert (taken, reply.stopped) == (used.output_tokens, True)
    assert [f"{LIMIT:,}" in line for line in told] == [True]
    # A round of tools that had begun has no part more than one.
    assert await write(reply, 50) == 1
    await reply.keeper.end(reply, reply.final_charge())


async def test_fault_ends_a_reply_that_is_to_stop(engine: Engine) -> None:
    """What can't be written down for a fault doesn't pass: the reply ends with what it holds."""
    reply = await admitted(engine, running_replies="stop")
    holds = reply.output_tokens
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE usage_limits_records"))
    assert await write(reply, 3 * LIMIT) <= holds


@pytest.mark.parametrize(("choice", "goes_on"), [("allow", True), ("block", False)])
async def test_outage_is_decided_by_the_valve(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, choice: str, goes_on: bool
) -> None:
    """Where no more can be reserved for an outage, `on_ledger_error` says whether it goes on."""
    reply = await admitted(engine, running_replies="stop", on_ledger_error=choice)
    holds, told = reply.output_tokens, []

    async def emit(event: Any) -> None:
        told.append(event["data"]["description"])

    reply.emitter = emit
    monkeypatch.setattr("helpers.ledger.transactions.TRANSACTION_PATIENCE_SECONDS", 0.1)
    with engine.connect() as other:
        other.exec_driver_sql("BEGIN IMMEDIATE")
        taken = await write(reply, holds + 100)
    assert (taken == holds + 100, taken <= holds) == (goes_on, not goes_on)
    assert ["can't be recorded" in line for line in told] == ([] if goes_on else [True])
    if not goes_on:  # nor is its model called again for a round of tools
        valves = AdminValves(running_replies="stop", on_ledger_error=choice)
        with pytest.raises(LedgerError):
            await check_round(valves, reply, later=True)
    assert await reply.keeper.end(reply, reply.final_charge())
    assert held(engine) >= taken


@pytest.mark.slow
@pytest.mark.parametrize("valves", [{"shadow_mode": True}, {}])
async def test_nothing_stops_otherwise(engine: Engine, valves: dict[str, Any]) -> None:
    """In shadow mode, and by default, all of it is written."""
    reply = await admitted(engine, **{"running_replies": "stop", **valves} if valves else {})
    assert await write(reply, 2 * LIMIT) == 2 * LIMIT
    assert not reply.stopped
    await reply.keeper.end(reply, reply.final_charge())


async def test_what_is_lent_is_held_anew(engine: Engine) -> None:
    """What a reply leaves to a call within it, it holds again once it goes on, whoever goes on.

    Until then it holds what it has used.
    """
    reply = await admitted(engine)
    at_first = held(engine)
    for _ in range(2):
        await reply.keeper.lend(reply)
        assert held(engine) == 0
    await check_round(AdminValves(), reply, later=False)
    assert held(engine) == at_first
    await write(reply, 50)
    await reply.keeper.lend(reply)
    used = reply.used_charge().counted
    assert held(engine) == used.input_tokens + used.output_tokens
    await write(reply, 1_000)
    if reply.growing is not None:
        await reply.growing
    assert held(engine) > 1_000
    await reply.keeper.end(reply, reply.final_charge())


async def test_a_process_that_stops_counts_a_functions_call_once(engine: Engine) -> None:
    """What a pipe's call has used so far isn't the pipe's prompt as well."""
    pipe, call = await admitted(engine), await admitted(engine)
    pipe.calls.append(call)
    for reply in (pipe, call):
        reply.call_begins()
    await write(call, 30)
    for reply in (pipe, call):
        reply.keeper.stop()
    used = call.used_charge().counted
    assert held(engine) == used.input_tokens + used.output_tokens
    for reply in (pipe, call):
        await reply.keeper.end(reply, reply.final_charge())


async def test_odd_letters_in_a_functions_stream(engine: Engine) -> None:
    """A pipe may hand on any text, a lone surrogate too: it is counted, and passed on as it is."""
    reply = await admitted(engine)
    odd = 'data: {"choices": [{"delta": {"content": "odd \ud800 letters"}}]}\n\n'

    async def parts() -> AsyncIterator[str]:
        yield odd

    assert [part async for part in metered_stream(reply, parts())] == [odd]
    assert reply.meter.total().output_tokens > 0
    assert held(engine) > 0
