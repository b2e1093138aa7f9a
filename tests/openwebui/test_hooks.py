"""What the hooks do on the edges of the host: on nothing, on a fault, near a limit."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from helpers.filter import Filter
from helpers.openwebui.host import HostError
from helpers.openwebui.valves import PersonalValves
from tests.openwebui.test_moments import MakeFilter, body, make_filter, rows
from tests.openwebui.test_pasted import USER, host, page_metadata

pytest_plugins = ["tests.support.databases"]
assert host  # fixtures
assert make_filter

Event = dict[str, Any]


def chunk(completion: str, text: str = "", **usage: int) -> Event:
    """A streamed event of one call, with usage where there is any."""
    event: Event = {"id": completion, "choices": [{"delta": {"content": text}}]}
    return {**event, "usage": usage} if usage else event


async def reply(plugin: Filter, *events: Event, emitter: Any = None, words: int = 1) -> list[Event]:
    """One reply through all hooks, in a task of its own."""
    metadata, asked = page_metadata(), body(words, stream=True)

    async def work() -> None:
        await plugin.inlet(asked, dict(USER), metadata, {}, emitter)
        await plugin.request(asked, metadata)
        for event in events:
            plugin.stream(event, metadata)
        await plugin.outlet({"id": "m", "messages": []}, dict(USER), metadata, emitter)

    await asyncio.create_task(work())
    return list(events)


@pytest.mark.parametrize("metadata", [None, {}, {"usage_limits": "x"}])
async def test_hooks_give_back_what_they_get(make_filter: MakeFilter, metadata: Any) -> None:
    """Without a reservation every hook returns its own argument: the host goes on with that."""
    plugin = make_filter("9k tokens/day")
    event, asked, finished = chunk("a", "x"), body(), {"id": "m", "messages": []}
    assert plugin.stream(event, metadata) is event
    assert await plugin.request(asked, metadata) is asked
    assert await plugin.outlet(finished, dict(USER), metadata) is finished


async def test_two_calls_in_one_round_count_both(
    make_filter: MakeFilter, database_url: str
) -> None:
    """Two completions between one request and the outlet are charged as two."""
    plugin = make_filter("9k tokens/day")
    await reply(
        plugin,
        chunk("one", "Hello", prompt_tokens=10, completion_tokens=5),
        chunk("two", "there", prompt_tokens=20, completion_tokens=7),
    )
    (row,) = rows(database_url)
    assert (row.state, row.input_tokens, row.output_tokens) == ("settled", 30, 12)


@pytest.mark.parametrize("crowd", ["queue", "turn"])
async def test_crowd_is_no_outage(
    make_filter: MakeFilter, database_url: str, monkeypatch: pytest.MonkeyPatch, crowd: str
) -> None:
    """Who finds too many before it is refused, though `on_ledger_error` allows: any user may crowd.

    Where the database doesn't answer either it is an outage (tests/ledger/test_outages.py).
    """
    plugin = make_filter("9k tokens/day", on_ledger_error="allow")
    await reply(plugin, chunk("a", "x", prompt_tokens=1, completion_tokens=1))
    accounting = plugin.ledger_of(plugin.valves).accounting
    if crowd == "queue":
        monkeypatch.setattr("helpers.openwebui.ledger_worker.QUEUE_LIMIT", 0)
    else:
        monkeypatch.setattr("helpers.ledger.transactions.TRANSACTION_PATIENCE_SECONDS", 0.1)
        for work in (accounting.ledger.beat, lambda: None):
            for _ in range(4):  # as many threads as there may be
                accounting.in_thread(lambda: time.sleep(0.2))
            accounting.in_thread(work)
    with pytest.raises(HostError) as refused:
        await reply(plugin)
    assert refused.value.status_code == 503
    assert len(rows(database_url)) == 1


async def test_fault_in_the_admission_refuses(
    make_filter: MakeFilter, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of ours lets nothing pass, whatever `on_ledger_error` says, and isn't shown."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a secret of ours")

    plugin = make_filter("9k tokens/day", on_ledger_error="allow")
    await reply(plugin, chunk("a", "x", prompt_tokens=1, completion_tokens=1))
    monkeypatch.setattr("helpers.openwebui.admission.build_reply", fail)
    with pytest.raises(HostError) as refused:
        await reply(plugin)
    assert refused.value.status_code == 503
    assert "secret" not in str(refused.value.detail)
    assert len(rows(database_url)) == 1


async def test_line_near_a_limit(make_filter: MakeFilter) -> None:
    """From the soft limit on a grey line says where the limit stands; before it there is none."""
    plugin, said = make_filter("1k tokens/day"), []

    async def emit(event: Event) -> None:
        if event["type"] == "status":
            said.append(event["data"])

    await reply(plugin, chunk("a", "x", prompt_tokens=500, completion_tokens=200), emitter=emit)
    assert said == []
    await reply(plugin, chunk("b", "x", prompt_tokens=100, completion_tokens=50), emitter=emit)
    assert [line["done"] for line in said] == [True]
    assert "850" in said[0]["description"]
    assert "1,000" in said[0]["description"]


async def shown(plugin: Filter, preference: str, tokens: int) -> list[tuple[str, str]]:
    """What a user with this preference sees of a reply: kinds of events, and their texts."""
    seen: list[tuple[str, str]] = []

    async def emit(event: Event) -> None:
        data = event["data"]
        seen.append((event["type"], data.get("content") or data.get("description")))

    user = {**USER, "valves": PersonalValves(show_usage=preference)}
    metadata = page_metadata()

    async def work() -> None:
        await plugin.inlet(body(stream=True), dict(user), metadata, {}, emit)
        plugin.stream(chunk("a", "x", prompt_tokens=tokens, completion_tokens=50), metadata)
        await plugin.outlet({"id": "m", "messages": []}, dict(user), metadata, emit)

    await asyncio.create_task(work())
    return seen


@pytest.mark.parametrize(
    ("preference", "far", "near"),
    [
        ("never", [], ["notification"]),
        ("near_limit", [], ["notification", "status", "status"]),
        ("always", ["status"], ["notification", "status", "status"]),
    ],
)
async def test_what_is_shown_is_as_the_user_prefers(
    make_filter: MakeFilter, preference: str, far: list[str], near: list[str]
) -> None:
    """A soft limit always gives a toast; lines come near a limit, with every reply, or never."""
    plugin = make_filter("9k tokens/day")
    assert [kind for kind, _ in await shown(plugin, preference, 100)] == far
    assert [kind for kind, _ in await shown(plugin, preference, 7_500)] == near[2:]
    events = await shown(plugin, preference, 10)
    assert [kind for kind, _ in events] == near
    if preference == "always":  # its own use stands first
        assert events[-1][1].startswith("60 tokens · ")


async def test_nothing_is_said_in_shadow_mode(make_filter: MakeFilter) -> None:
    """What would be refused or warned of isn't shown to anyone."""
    plugin = make_filter("1k tokens/day", shadow_mode=True)
    for _ in range(3):
        assert await shown(plugin, "always", 900) == []
