"""One of Open WebUI's workers for the tests of scale; a process of its own imports it alone."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from helpers.ledger.database import open_database
from helpers.ledger.ledger import Admission
from helpers.limits.policies import ModelRule
from helpers.limits.policy import GroupRef, Subject
from helpers.metering.charges import make_charge
from helpers.metering.estimates import estimate_prompt
from helpers.metering.usage import Usage
from helpers.openwebui.accounting import Accounting
from helpers.openwebui.admission import build_reply
from helpers.openwebui.replies import Reply
from helpers.openwebui.valves import AdminValves

LAB = GroupRef("g1", "Lab")
TWENTY = make_charge(Usage(10, 10, 0, 0, estimated=False), ModelRule("*"))


def make_reply(keeper: Accounting, valves: AdminValves, user: str, now: datetime) -> Reply:
    """A request that holds twenty tokens."""
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 10}
    reply = build_reply(
        keeper,
        valves,
        Subject(user, f"{user}@example.org", "user", (LAB,)),
        {},
        body,
        {},
        ("gpt-4o",),
        "api",
        now,
        prompt_tokens=estimate_prompt(body),
        ollama=False,
        own_provider=False,
    )
    reply.prompt_tokens = 10
    return reply


async def ask_at_once(
    database_url: str, valves: dict[str, Any], users: list[str], now: float
) -> int:
    """Ask for a reply of each user at once, as the hooks do, and end it; how many were let in."""
    keeper = Accounting(engine := open_database(database_url), None)
    at = datetime.fromtimestamp(now, UTC)

    async def ask(user: str) -> bool:
        reply = make_reply(keeper, AdminValves(**valves), user, at)
        _, admission = await keeper.admit(lambda: reply, announce=False)
        assert isinstance(admission, Admission), admission
        if admission.decision.allowed:
            await keeper.end(reply, TWENTY)
        return admission.decision.allowed

    # Each in a task of its own, whose end the keeper watches.
    admitted = sum(await asyncio.gather(*(asyncio.create_task(ask(user)) for user in users)))
    keeper.close()
    engine.dispose()
    return admitted


def run_worker(database_url: str, valves: dict[str, Any], users: list[str], now: float) -> int:
    """What one worker does."""
    return asyncio.run(ask_at_once(database_url, valves, users, now))
