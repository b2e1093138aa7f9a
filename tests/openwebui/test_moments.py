"""Limits about one moment and on one source, through the hooks, on both databases."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select
from starlette.requests import Request

from helpers.filter import METADATA_KEY, Filter
from helpers.ledger.database import open_database
from helpers.ledger.tables import records_table
from helpers.openwebui.host import HostLimitError
from helpers.openwebui.http_requests import current_state
from tests.openwebui.test_pasted import USER, Host, host, page_metadata

pytest_plugins = ["tests.support.databases"]
assert host  # a fixture

MakeFilter = Callable[..., Filter]


@pytest.fixture
async def make_filter(host: Host, database_url: str) -> AsyncIterator[MakeFilter]:
    """Filters of one installation, each as in a worker of its own."""
    made: list[Filter] = []
    loop, threads = asyncio.get_running_loop(), ThreadPoolExecutor()
    loop.set_default_executor(threads)

    def make(*limits: str, pool: str = "", url: str = database_url, **valves: Any) -> Filter:
        pools = f"[pool.all]\nlimits = [{pool!r}]\n" if pool else ""
        policies = f"{pools}[role.user]\nlimits = {list(limits) or 'unlimited'!r}"
        made.append(Filter())
        made[-1].valves = Filter.Valves(policies=policies, database_url=url, **valves)
        return made[-1]

    yield make
    accountings = [opened.accounting for one in made for opened in one._ledgers._opened.values()]
    for accounting in accountings:
        for reply in list(accounting._running.values()):
            await accounting.end(reply, None)
        accounting.close()
    threads.shutdown()  # a form may still be reading
    loop.set_default_executor(ThreadPoolExecutor())
    for accounting in accountings:
        accounting.close()
        accounting._engine.dispose()


def rows(url: str) -> list[Any]:
    """What is on record."""
    engine = open_database(url)
    with engine.connect() as connection:
        found = connection.execute(select(records_table)).all()
    engine.dispose()
    return list(found)


def body(words: int = 1, **more: Any) -> dict[str, Any]:
    """A request whose prompt has about that many tokens."""
    text = "word " * words
    return {"model": "gpt", "messages": [{"role": "user", "content": text}], **more}


async def admit(plugin: Filter, metadata: dict[str, Any], asked: dict[str, Any]) -> str:
    """What the inlet says: "" or the sentence of its refusal."""
    refusal = None
    try:
        await plugin.inlet(asked, dict(USER), metadata, {})
    except HostLimitError as error:
        refusal = error
    if refusal is None:
        return ""
    assert refusal.status_code == 429
    assert 1 <= int((refusal.headers or {})["Retry-After"]) <= 3_600
    return refusal.message


@pytest.mark.parametrize("pooled", [False, True])
async def test_parallel_requests_never_run_too_many(make_filter: MakeFilter, pooled: bool) -> None:
    """Of requests that come together to several workers as many run as may; an end makes room."""
    text = "3 requests at once"
    limits = {"pool": text} if pooled else {}
    workers = [make_filter(*([] if pooled else [text]), **limits) for _ in range(3)]
    end, answers = asyncio.Event(), asyncio.Queue[str]()

    async def reply(number: int) -> None:
        sentence = await admit(workers[number % 3], page_metadata(), body())
        answers.put_nowait(sentence)
        if not sentence:
            await end.wait()

    replies = [asyncio.create_task(reply(number)) for number in range(12)]
    sentences = [await answers.get() for _ in replies]
    refused = [sentence for sentence in sentences if sentence]
    assert len(refused) == 9
    shared = "the shared limit of 3 requests at once" if pooled else "3 responses running"
    assert all(shared in sentence for sentence in refused)
    end.set()
    await asyncio.gather(*replies)
    for _ in range(500):
        if not await asyncio.create_task(admit(workers[0], page_metadata(), body())):
            break
        await asyncio.sleep(0.01)
    else:
        pytest.fail("no room after all have ended")


async def test_prompt_that_is_too_long_alone(make_filter: MakeFilter, database_url: str) -> None:
    """A request whose prompt alone is longer than a request may be is refused, uncharged."""
    plugin = make_filter("100 tokens/request", "9M tokens/day")
    sentence = await admit(plugin, page_metadata(), body(500))
    assert sentence == "This request is too long: at most 100 tokens per request."
    assert not await admit(plugin, page_metadata(), body(20))
    assert len(rows(database_url)) == 1


async def test_output_is_lowered_to_fit_in_every_round(make_filter: MakeFilter) -> None:
    """What is asked for is lowered to what prompt and rounds leave, and never raised."""
    plugin, metadata = make_filter("1k tokens/request"), page_metadata()
    asked = body(100)
    assert not await admit(plugin, metadata, asked)
    prompt = metadata[METADATA_KEY].prompt_tokens
    assert asked["max_tokens"] == 1_000 - prompt
    # Retrieval has made the prompt longer.
    grown = await plugin.request(body(300, max_tokens=5_000), metadata)
    grown_prompt = metadata[METADATA_KEY].prompt_tokens
    assert grown["max_tokens"] == 1_000 - grown_prompt < 750
    usage = {"prompt_tokens": 400, "completion_tokens": 250}
    plugin.stream({"id": "c", "choices": [{"delta": {"content": "x"}}], "usage": usage}, metadata)
    again = await plugin.request(body(100, max_tokens=20, n=2), metadata)
    assert (again["max_tokens"], again["n"]) == (20, 2)
    again = await plugin.request(body(100, n=2), metadata)
    assert again["max_tokens"] == (350 - prompt) // 2
    with pytest.raises(HostLimitError, match="too long: at most 1,000 tokens per request"):
        await plugin.request(body(400), metadata)


async def test_prompt_that_retrieval_makes_too_long(make_filter: MakeFilter) -> None:
    """A prompt that has grown over the limit since the inlet calls no model."""
    plugin, metadata = make_filter("100 input tokens/request"), page_metadata()
    assert not await admit(plugin, metadata, body(20))
    with pytest.raises(HostLimitError, match="at most 100 input tokens per request"):
        await plugin.request(body(500), metadata)
    decision = await metadata[METADATA_KEY].keeper.end(metadata[METADATA_KEY], None)
    assert decision is not None


@pytest.mark.parametrize(
    ("limit", "asked", "lowered"),
    [
        ("50 output tokens/request", body(), {"max_tokens": 50}),
        ("50 output tokens/request", body(max_tokens=30), {"max_tokens": 30}),
        ("50 output tokens/request", body(max_tokens="5000"), {"max_tokens": 50}),
        ("50 output tokens/request", body(max_tokens=-1), {"max_tokens": 50}),
        (
            "50 output tokens/request",
            body(max_completion_tokens=10**400, n=5),
            {"max_completion_tokens": 10},
        ),
        ("50 input tokens/request", body(), {}),
        ("50 output tokens/request on other", body(), {}),
    ],
)
async def test_what_is_asked_for_is_lowered(
    make_filter: MakeFilter, limit: str, asked: dict[str, Any], lowered: dict[str, Any]
) -> None:
    """However a request spells it, it asks for no more than fits."""
    asked = dict(asked)
    assert not await admit(make_filter(limit), page_metadata(), asked)
    found = {name: asked[name] for name in ("max_tokens", "max_completion_tokens") if name in asked}
    assert found == lowered


async def test_ledger_out_of_reach_lets_no_long_request_pass(make_filter: MakeFilter) -> None:
    """A limit on one request needs no ledger, so an outage doesn't lift it."""
    url = "postgresql://nobody@127.0.0.1:9/nothing"
    plugin = make_filter("100 tokens/request", url=url, on_ledger_error="allow")
    assert "too long" in await admit(plugin, page_metadata(), body(500))
    asked = body(20)
    assert not await admit(plugin, page_metadata(), asked)
    assert 0 < asked["max_tokens"] < 100


async def test_shadow_mode_changes_nothing(make_filter: MakeFilter) -> None:
    """In shadow mode nothing is refused and nothing lowered."""
    limits = ("100 tokens/request", "1 request at once")
    plugin = make_filter(*limits, shadow_mode=True)
    for asked in (body(500), body(500)):
        metadata = page_metadata()
        assert not await admit(plugin, metadata, asked)
        assert "max_tokens" not in await plugin.request(asked, metadata)


def client_call(path: str = "/api/chat/completions", **state: Any) -> Request:
    """A client's own call, with what Open WebUI knows of who asks."""
    scope = {"type": "http", "method": "POST", "path": path, "headers": [], "state": state}
    return Request(scope)


@pytest.fixture
def open_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user of these tests has a chat page open, by the session "s"."""
    sessions = {"s": {"id": USER["id"]}, "other": {"id": "somebody else"}}
    module = SimpleNamespace(SESSION_POOL=sessions)
    monkeypatch.setitem(sys.modules, "open_webui.socket.main", module)  # type: ignore[arg-type]


PAGE_CLAIMS = [
    {"chat_id": "c", "session_id": "s"},
    {"chat_id": "c", "session_id": "nobody"},
    {"chat_id": "c", "session_id": "other"},
    {"chat_id": "c", "session_id": {"a": []}},
    {"chat_id": "channel:7", "session_id": "channel:7"},
    {"chat_id": "local:x", "session_id": "\ud800"},
    {"chat_id": "c", "session_id": "automation:1", "automation_id": "1"},
]


@pytest.mark.parametrize("claims", PAGE_CLAIMS)
@pytest.mark.usefixtures("open_page")
async def test_no_claim_leaves_the_api(make_filter: MakeFilter, claims: dict[str, Any]) -> None:
    """Whoever signs in with an API key is a program, whatever page it claims to be."""
    plugin = make_filter("0 requests/day via api")
    key = client_call(auth_type="api_key")
    with pytest.raises(HostLimitError, match=r"any models here \(via the API\)"):
        await plugin.inlet(body(), dict(USER), dict(claims), {}, None, key)


@pytest.mark.parametrize("claims", PAGE_CLAIMS[1:])
@pytest.mark.usefixtures("open_page")
async def test_no_page_without_a_socket(make_filter: MakeFilter, claims: dict[str, Any]) -> None:
    """A session that isn't open, or is another user's, makes a call no page's."""
    plugin = make_filter("0 requests/day via api")
    with pytest.raises(HostLimitError, match=r"any models here \(via the API\)"):
        await plugin.inlet(body(), dict(USER), dict(claims), {}, None, client_call(auth_type="jwt"))


@pytest.mark.usefixtures("open_page")
async def test_sources_that_are_what_they_say(make_filter: MakeFilter, database_url: str) -> None:
    """The page, its temporary chats, and what Open WebUI asks for itself are known as such."""
    plugin = make_filter("0 requests/day via api")
    page, own = client_call(auth_type="jwt"), client_call("/api/v1/automations/internal")
    channel = client_call("/api/v1/channels/7/messages/post", auth_type="jwt")
    asked = [
        ("page", {"chat_id": "c", "session_id": "s"}, page),
        ("temporary", {"chat_id": "local:s", "session_id": "s"}, page),
        ("automation", {"chat_id": "c", "session_id": "a", "automation_id": "a"}, own),
        ("channel", {"chat_id": "channel:7", "session_id": "channel:7"}, channel),
    ]
    for _, metadata, request in asked:
        await plugin.inlet(body(), dict(USER), metadata, {}, None, request)
    assert sorted(row.source for row in rows(database_url)) == sorted(one[0] for one in asked)


@pytest.mark.usefixtures("open_page")
async def test_what_is_called_for_a_program_is_its_own(
    make_filter: MakeFilter, database_url: str
) -> None:
    """A subagent has its caller's source, and a tool approved with an API key is no page's."""
    plugin = make_filter("9 requests/day")
    child = {"chat_id": "c2", "session_id": "subagent:c2"}
    for kind in ("api_key", "jwt"):
        token = current_state.set({})
        await plugin.inlet(
            body(),
            dict(USER),
            {"chat_id": "c", "session_id": "s"},
            {},
            None,
            client_call(auth_type=kind),
        )
        subagent = client_call("/api/v1/subagents/internal")
        await plugin.inlet(body(), dict(USER), dict(child), {}, None, subagent)
        current_state.reset(token)
    resolve = client_call("/api/v1/chats/c/messages/m/resolve", auth_type="api_key")
    await plugin.inlet(body(), dict(USER), dict(child), {}, None, resolve)
    assert sorted(row.source for row in rows(database_url)) == ["api", "api", "api", "page", "page"]


@pytest.mark.parametrize(
    ("headers", "cookies", "is_key"),
    [
        ({"authorization": "Bearer sk-1"}, {}, True),
        ({"authorization": "bearer sk-1"}, {}, True),
        ({"authorization": "Bearer eyJ"}, {"token": "sk-1"}, False),
        ({"authorization": "Basic sk-1"}, {"token": "sk-1"}, True),
        ({}, {"token": "eyJ"}, False),
        ({}, {}, False),
    ],
)
@pytest.mark.usefixtures("open_page")
async def test_keys_before_the_host_says(
    make_filter: MakeFilter, headers: dict[str, str], cookies: dict[str, str], is_key: bool
) -> None:
    """An Open WebUI that doesn't say how somebody signed in is asked where it looks itself."""
    plugin, request = make_filter("0 requests/day via api"), client_call()
    if cookies:
        headers = {**headers, "cookie": "; ".join(f"{a}={b}" for a, b in cookies.items())}
    request.scope["headers"] = [(a.encode(), b.encode()) for a, b in headers.items()]
    claims = {"chat_id": "c", "session_id": "s"}
    if is_key:
        with pytest.raises(HostLimitError):
            await plugin.inlet(body(), dict(USER), claims, {}, None, request)
    else:
        await plugin.inlet(body(), dict(USER), claims, {}, None, request)
