"""The hooks, as `helpers/` and as the pasted file that Open WebUI's own loader has read.

Open WebUI's modules are the real ones, on a database of their own, only without its server: so
thousands of odd events can pass the hooks in seconds. What a running server does stands in the
tests beside this one.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import pkgutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, literal_column, select

import helpers.filter
from helpers.ledger.tables import records_table
from helpers.metering.estimates import estimate_prompt
from tests.support.strategies import arbitrary_json, stream_events

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CASES = json.loads((ROOT / "tests/data/usage_shapes.json").read_text(encoding="utf-8"))
# The long run: HYPOTHESIS_EXAMPLES=10000 make pytest ARGS=tests/openwebui/test_pasted.py
EXAMPLES = int(os.environ.get("HYPOTHESIS_EXAMPLES", "300"))
USER = {"id": "u1", "email": "ann@example.org", "role": "user", "name": "Ann"}


@dataclass
class Host:
    """Open WebUI's modules in this process."""

    loader: ModuleType
    engine: Engine

    async def paste(self) -> Any:
        """The filter as Open WebUI makes it of the pasted text."""
        source = (ROOT / "filter_usage_limits.py").read_text(encoding="utf-8")
        loaded = await self.loader.load_function_module_by_id("usage_limits", source)
        assert loaded[1] == "filter"
        return loaded[0]

    def record(self, key: str) -> Any:
        """One record of the ledger."""
        with self.engine.connect() as connection:
            found = select(records_table).where(records_table.c.id == key)
            return connection.execute(found).one()

    def newest(self) -> Any:
        """The record that was written last."""
        with self.engine.connect() as connection:
            rowid = literal_column("rowid").desc()
            return connection.execute(select(records_table).order_by(rowid).limit(1)).one()

    def count(self) -> int:
        """How many records there are."""
        with self.engine.connect() as connection:
            return len(connection.execute(select(records_table.c.id)).all())


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Open WebUI on an empty database."""
    environment = {
        "FROM_INIT_PY": "true",  # it is installed, not a checkout
        "DATA_DIR": str(tmp_path_factory.mktemp("host")),
        "WEBUI_SECRET_KEY": "not-a-secret" * 3,
        "OFFLINE_MODE": "true",
        "HF_HUB_OFFLINE": "1",
        "ENABLE_DB_MIGRATIONS": "false",
        "ENABLE_PIP_INSTALL_FRONTMATTER_REQUIREMENTS": "false",
    }
    before = dict(os.environ)
    os.environ.update(environment)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the host's own
        from open_webui import models
        from open_webui.internal import db
        from open_webui.utils import plugin as loader

        # All of them, since tables point to each other.
        for module in pkgutil.iter_modules(models.__path__):
            importlib.import_module(f"open_webui.models.{module.name}")
        db.Base.metadata.create_all(db.engine)
    yield Host(loader, db.engine)
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(params=["helpers", "pasted"])
async def plugin(request: pytest.FixtureRequest, host: Host) -> Any:
    """The filter from `helpers/`, and the one that Open WebUI makes of the pasted file."""
    return helpers.filter.Filter() if request.param == "helpers" else await host.paste()


def body_of(case: dict[str, Any], stream: bool = True) -> dict[str, Any]:
    return {"model": "gpt", "messages": case["messages"], "stream": stream}


def outlet_body(case: dict[str, Any]) -> dict[str, Any]:
    messages: list[dict[str, Any]] = [{"id": "u", **case["messages"][-1]}]
    if case.get("history_usage"):
        old = {"id": "old", "role": "assistant", "content": "old", "usage": case["history_usage"]}
        messages.insert(0, old)
    answer: dict[str, Any] = {
        "id": "m",
        "role": "assistant",
        "content": case.get("assistant_content", ""),
    }
    if case["outlet_usage"] is not None:
        answer["usage"] = case["outlet_usage"]
    return {"model": "gpt", "id": "m", "chat_id": "c", "messages": [*messages, answer]}


def page_metadata() -> dict[str, Any]:
    return {"chat_id": "c", "message_id": "m", "session_id": "s"}


async def pass_hooks(
    plugin: Any, case: dict[str, Any], metadata: dict[str, Any], end: bool = True
) -> str:
    """Run a whole reply through the hooks in a task of its own, as the host does."""
    body = body_of(case, bool(case["stream"]))
    await plugin.inlet(body, dict(USER), metadata, {})
    await plugin.request(body, metadata)
    for event in case["stream"]:
        assert plugin.stream(event, metadata) is event
    if end:
        await plugin.outlet(outlet_body(case), dict(USER), metadata)
    return str(metadata["usage_limits"].reservation.id)


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
async def test_public_case(plugin: Any, host: Host, case: dict[str, Any]) -> None:
    """Each publicly reported shape of usage is on record with the right tokens."""
    row = host.record(await asyncio.create_task(pass_hooks(plugin, case, page_metadata())))
    expected = case["expected"]
    assert row.state == "settled"
    assert row.estimated == expected["estimated"]
    for name in ("input_tokens", "output_tokens"):
        wanted, got = expected[name], getattr(row, name)
        assert got > 0 if wanted is None else got == wanted
    if "expected_cost" in case:
        assert row.cost_micros == round(case["expected_cost"] * 1_000_000)


async def test_reply_outlives_a_new_paste(host: Host) -> None:
    """A reply that was admitted before the file was pasted anew is settled after it, once."""
    case = CASES[0]
    old, new = await host.paste(), await host.paste()
    assert type(old) is not type(new)
    metadata = page_metadata()
    body = body_of(case)
    await old.inlet(body, dict(USER), metadata, {})
    for event in case["stream"]:
        new.stream(event, metadata)
    await new.outlet(outlet_body(case), dict(USER), metadata)
    await old.outlet(outlet_body(case), dict(USER), metadata)
    row = host.record(metadata["usage_limits"].reservation.id)
    assert (row.state, row.input_tokens, row.output_tokens) == ("settled", 12, 7)
    later = host.record(await asyncio.create_task(pass_hooks(new, case, page_metadata())))
    assert (later.state, later.input_tokens, later.output_tokens) == ("settled", 12, 7)


async def test_older_reply_shows_its_use(host: Host) -> None:
    """A charge of 0.1.0, whose reply ends under a new paste, has its tokens at the top."""
    plugin, case, said = await host.paste(), CASES[0], []
    metadata, user = page_metadata(), {**USER, "valves": SimpleNamespace(show_usage="always")}

    async def emit(event: dict[str, Any]) -> None:
        said.append(event["data"].get("description"))

    await plugin.inlet(body_of(case), user, metadata, {}, emit)
    for event in case["stream"]:
        plugin.stream(event, metadata)
    reply = metadata["usage_limits"]
    charge, end = reply.used_charge(), reply.keeper.end

    async def end_as_before(ended: Any, _: Any) -> Any:
        return await end(ended, charge)

    reply.keeper.end = end_as_before
    older = SimpleNamespace(input_tokens=12, output_tokens=7, cost_micros=0)
    type(reply).final_charge, newer = (lambda *_: older), type(reply).final_charge
    try:
        await plugin.outlet(outlet_body(case), user, metadata, emit)
    finally:
        type(reply).final_charge = newer
        del reply.keeper.end
    assert any("19" in line for line in said if line)


async def test_outlet_called_twice_charges_once(plugin: Any, host: Host) -> None:
    """A second outlet with other numbers changes nothing."""
    metadata = page_metadata()
    key = await asyncio.create_task(pass_hooks(plugin, CASES[0], metadata))
    forged = outlet_body(CASES[0])
    forged["messages"][-1]["usage"] = {"prompt_tokens": 9_999, "completion_tokens": 9_999}
    await plugin.outlet(forged, dict(USER), metadata)
    row = host.record(key)
    assert (row.input_tokens, row.output_tokens) == (12, 7)


@pytest.mark.parametrize("metadata", [None, {}, {"usage_limits": {"reservation": {"id": "x"}}}])
async def test_hooks_without_a_reservation_do_nothing(
    plugin: Any, host: Host, metadata: dict[str, Any] | None
) -> None:
    """What was not admitted by the inlet is never charged, whatever the metadata say."""
    before = host.count()
    await plugin.request(body_of(CASES[0]), metadata)
    plugin.stream(CASES[0]["stream"][-1], metadata)
    await plugin.outlet(outlet_body(CASES[0]), dict(USER), metadata)
    assert host.count() == before


async def wait_until_closed(host: Host, key: str) -> Any:
    """The record once it is closed: the end of a task is written just after it."""
    for _ in range(200):
        await asyncio.sleep(0.02)
        row = host.record(key)
        if row.state != "reserved":
            return row
    raise AssertionError("the reply was not closed")


async def test_end_without_an_outlet(plugin: Any, host: Host) -> None:
    """Where no outlet comes, the end of the task settles with what has passed."""
    key = await asyncio.create_task(pass_hooks(plugin, CASES[0], page_metadata(), end=False))
    row = await wait_until_closed(host, key)
    assert (row.state, row.input_tokens, row.output_tokens) == ("settled", 12, 7)


async def test_cancelled_while_it_is_admitted(plugin: Any, host: Host) -> None:
    """A request that is cancelled while its reservation is being written leaves none open."""
    await asyncio.create_task(pass_hooks(plugin, CASES[0], page_metadata()))
    before = host.count()
    metadata, case = page_metadata(), {**CASES[0], "stream": []}
    with host.engine.connect() as other:
        other.exec_driver_sql("BEGIN IMMEDIATE")  # nobody else can write now
        task = asyncio.create_task(pass_hooks(plugin, case, metadata, end=False))
        await asyncio.sleep(0.2)
        assert not task.done()
        task.cancel()
        await asyncio.wait({task})
        other.rollback()
    for _ in range(200):
        await asyncio.sleep(0.02)
        if host.count() > before and host.newest().state != "reserved":
            break
    assert host.count() == before + 1
    row = host.newest()
    assert (row.state, row.input_tokens, row.output_tokens) == ("released", 0, 0)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    events=st.lists(stream_events, max_size=8),
    outlet=st.none() | st.dictionaries(st.sampled_from(["id", "messages", "x"]), arbitrary_json),
    usage=arbitrary_json,
)
def test_arbitrary_json_does_no_harm(host: Host, events: Any, outlet: Any, usage: Any) -> None:
    """Whatever comes as event, usage or outlet body: no exception, no negative row, one end."""
    plugin = helpers.filter.Filter()
    metadata = page_metadata()

    async def reply() -> str:
        body = {"model": "gpt", "messages": [{"role": "user", "content": "x"}], "stream": True}
        await plugin.inlet(body, dict(USER), metadata, {})
        await plugin.request(body, metadata)
        for event in events:
            plugin.stream(event, metadata)
        finished = {"id": "m", "messages": [{"id": "m", "content": usage, "usage": usage}]}
        await plugin.outlet(finished if outlet is None else outlet, dict(USER), metadata)
        await plugin.outlet(finished, dict(USER), metadata)
        return str(metadata["usage_limits"].reservation.id)

    row = host.record(asyncio.run(reply()))
    assert row.state in ("settled", "released")
    numbers = (row.input_tokens, row.output_tokens, row.cached_input_tokens, row.cost_micros)
    assert min(numbers) >= 0
    if row.state == "released":
        assert numbers == (0, 0, 0, 0)


odd_texts = st.text(st.characters(exclude_categories=()), max_size=30) | arbitrary_json
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system"]) | odd_texts},
        optional={
            "content": odd_texts
            | st.lists(
                st.fixed_dictionaries(
                    {"type": st.sampled_from(["text", "image_url", "video", "file"]) | odd_texts},
                    optional={"text": odd_texts, "image_url": odd_texts},
                )
            ),
            "type": st.sampled_from(["image", "video", "text"]) | odd_texts,
            "tool_calls": odd_texts,
        },
    ),
    max_size=4,
)
ODD_KEYS = (
    *("stream_options", "n", "max_tokens", "max_completion_tokens", "options", "tools"),
    *("functions", "input", "prompt", "system", "response_format", "metadata"),
)
bodies = st.fixed_dictionaries(
    {"model": st.just("gpt"), "messages": messages | odd_texts, "stream": st.booleans()},
    optional=dict.fromkeys(ODD_KEYS, arbitrary_json),
)
claims = st.dictionaries(
    st.sampled_from(
        ["chat_id", "message_id", "session_id", "automation_id", "variables", "selected_model_id"]
    ),
    odd_texts,
)
LIMITS = st.sampled_from(
    ["0 tokens/day", "1k tokens/day", "5 requests/hour", "$1/30d", "100 output tokens/5h"]
)
accepted_valves = st.fixed_dictionaries(
    {},
    optional={
        "daily_token_limit": st.integers(0, 2_000),
        "policies": LIMITS.map(
            lambda limit: (
                f"[role.user]\nlimits = ['{limit}']\n[pool.everyone]\nlimits = ['{limit}']"
            )
        ),
        "cap_max_tokens": st.booleans(),
        "request_stream_usage": st.booleans(),
        "on_ledger_error": st.sampled_from(["allow", "block"]),
        "limit_message": st.sampled_from(["", "{used} {limit} {reset_in}", "No more."]),
        "warning_message": st.sampled_from(["", "{percent}"]),
    },
)
ends = st.lists(st.sampled_from(["request", "stream", "outlet"]), max_size=5)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(body=bodies, metadata=claims, valves=accepted_valves, hooks=ends, timezone=odd_texts)
def test_refused_or_on_record(
    host: Host, body: Any, metadata: Any, valves: Any, hooks: Any, timezone: Any
) -> None:
    """Whatever a client sends under whatever valves: refused, or one record of its estimate."""
    plugin = helpers.filter.Filter()
    plugin.valves = helpers.filter.Filter.Valves(**valves)
    user = {**USER, "id": uuid4().hex, "timezone": timezone}
    least = estimate_prompt(body)

    async def emit(event: Any) -> None:
        json.dumps(event)

    async def reply() -> None:
        await plugin.inlet(body, user, metadata, {}, emit)
        for hook in hooks:
            if hook == "request":
                await plugin.request(body, metadata)
            elif hook == "stream":
                plugin.stream({"choices": [{"delta": {"content": "word " * 9}}]}, metadata)
            else:
                await plugin.outlet({}, user, metadata, emit)

    async def conversation() -> BaseException | None:
        task = asyncio.create_task(reply())
        await asyncio.wait({task})
        for _ in range(200):
            if all(row.state != "reserved" for row in rows()):
                break
            await asyncio.sleep(0.01)
        return task.exception()

    def rows() -> list[Any]:
        with host.engine.connect() as connection:
            found = select(records_table).where(records_table.c.user_id == user["id"])
            return list(connection.execute(found).all())

    refusal = asyncio.run(conversation())
    records = rows()
    if refusal is not None:
        assert getattr(refusal, "status_code", None) in (429, 503)
    if not records:
        assert refusal is not None
        return
    assert len(records) == 1
    assert records[0].state != "reserved"
    before_outlet = hooks[: hooks.index("outlet")] if "outlet" in hooks else hooks
    if "request" in before_outlet and (refusal is None or "stream" in before_outlet):
        assert records[0].state == "settled"
        assert records[0].input_tokens >= least
