"""Every route of Open WebUI's, in every spelling: over a limit none of them calls a model."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import websockets

from helpers.openwebui.passthrough import find_passthrough
from scripts.compat.host_parts import HostSource, read_host
from scripts.compat.hosts import AUTOMATION_SOURCE
from scripts.openwebui.client import OpenWebUIClient
from scripts.provider.server import FakeProvider
from tests.conftest import OwnServer, host_can, wait_until
from tests.support.passthrough_paths import MODELS, PATHS

COUNTER = itertools.count()

# What calls a model and isn't found by its path.
ELSEWHERE = {
    "POST /api/v1/automations/{id}/run": "through the hooks",
    "POST /api/v1/channels/{id}/messages/post": "through the hooks",
    "POST /api/v1/chats/{id}/messages/{message_id}/resolve": "through the hooks",
    "POST /api/v1/chats/{id}/compact": "where tasks call their model",
    "POST /api/chat/actions/{action_id}": "keeps sound that an action made, unread",
    "POST /api/v1/models/import": "keeps a picture, unread",
    "POST /api/v1/retrieval/embedding/update": "an administrator's choice of a model",
    "GET /api/v1/evaluations/leaderboard": "an administrator's search",
}
PARAMETER = re.compile(r"\{[^}]*\}")


def test_every_route_that_calls_a_model_is_known() -> None:
    """Each route whose source comes to a model is a pass-through path, or is guarded elsewhere."""
    host = read_host()
    source = HostSource(host.root)
    calling = [
        route
        for route in host.routes
        # There all that isn't known is closed.
        if not route.path.startswith(("/openai/", "/ollama/"))
        and source.calls_a_model(route.endpoint)
    ]
    assert len(calling) > 25
    unknown = [
        name
        for route in calling
        if (name := f"{route.method} {route.path}") not in ELSEWHERE
        and find_passthrough(route.method, PARAMETER.sub("x", route.path)) is None
    ]
    assert unknown == []


@pytest.fixture
def house(open_server: OwnServer) -> OwnServer:
    """An Open WebUI with every way to a model open."""
    return open_server


@pytest.fixture
def spender(house: OwnServer) -> OpenWebUIClient:
    """A user who has used up what there is."""
    house.usage_limits.configure(policies='[role.user]\nlimits = ["1 request/day"]')
    user = house.admin.add_user("Ruth", f"ruth{next(COUNTER)}@example.org")
    assert user.chat("one").status == 200
    house.usage_limits.settled(1, user_id=user.id)
    return user


@contextmanager
def no_calls(provider: FakeProvider) -> Iterator[None]:
    """See that no model is called meanwhile."""
    before = len(provider.call_log.calls(tasks=True))
    yield
    time.sleep(0.5)  # for what is called in the background
    made = [(call.endpoint, call.text) for call in provider.call_log.calls(tasks=True)[before:]]
    assert made == []


# All that any route could ask for.
BODY: dict[str, Any] = {
    "model": "fake-llm",
    "model_id": "fake-llm",
    "messages": [{"role": "user", "content": "x"}],
    "message": "x",
    "prompt": "x",
    "input": "x",
    "content": "x",
    "text": "x",
    "name": "x",
    "title": "x",
    "description": "x",
    "query": "x",
    "queries": ["x"],
    "urls": ["http://127.0.0.1:1/"],
    "url": "http://127.0.0.1:1/",
    "responses": ["x"],
    "type": "web_search",
    "collection_name": "x",
    "collection_names": ["x"],
    "file_id": "x",
    "files": [],
    "image": "data:image/png;base64,AA==",
    "operations": [],
    "n": 1,
    "k": 1,
    "chat_id": "x",
    "id": "x",
    "data": {"prompt": "x", "model_id": "fake-llm", "rrule": "RRULE:FREQ=DAILY"},
}
# What would end the session, or go to other machines.
LEFT_ALONE = ("/api/v1/auths", "/ws", "/oauth", "/api/v1/terminals", "/static")


def test_no_route_calls_a_model_over_a_limit(
    house: OwnServer, spender: OpenWebUIClient, provider: FakeProvider
) -> None:
    """Whatever a user over the limit asks for, at every route: no model is called."""
    routes = {
        (route.method, PARAMETER.sub("0", route.path))
        for route in read_host().routes
        if not route.path.startswith(LEFT_ALONE)
    }
    assert len(routes) > 400
    with no_calls(provider):
        for method, path in sorted(routes):
            for tries_left in (2, 1, 0):
                try:
                    with spender.http.stream(method, path, json=BODY) as answer:
                        fault = answer.read().decode() if answer.status_code == 500 else ""
                    assert "usage limits" not in fault
                    break
                except (httpx.ReadError, httpx.RemoteProtocolError):
                    # A server that answers before it has read a request resets the connection,
                    # and now and then that comes before the answer.
                    if not tries_left:
                        raise
    assert len(house.usage_limits.rows(user_id=spender.id)) == 1


SMALL = {"/api/v1/memories/add", "/api/v1/retrieval/process/text", "/api/v1/memories/reset"}
POSTED = {
    *(path for path, _ in PATHS),
    *SMALL,
    *("/api/v1/audio/speech", "/api/v1/images/generations", "/api/v1/knowledge/create"),
    *(f"/api/v1/tasks/{task}/completions" for task in ("title", "moa", "queries")),
    *("/ollama/v1/chat/completions", "/openai/audio/speech"),
}


def spellings(path: str) -> Iterator[str]:
    """A path as it could be written to be taken for another."""
    yield path + "%0A"
    yield path + "%0a%0A"
    yield path + "%0D%0A"
    yield path + "%00"
    yield path + ";x=1"
    yield path + "."
    yield path + "/."
    yield path + "/.."
    yield path + "%20"
    yield path + "%23"
    yield path + "%3Fx"
    yield path + "?model=x&process=false"
    yield "/" + path
    yield "/x/.." + path
    yield "/static/.." + path
    yield path.replace("/", "//")
    yield path.replace("/", "/./")
    yield path.replace("/", "%2F")
    yield path.replace("/", "%5C")
    yield "/" + path[1:].upper()
    yield path.replace("e", "%65")
    yield path.replace("e", "%2565")
    yield path.replace("e", "%C4%97")
    yield path.replace("s", "%C5%BF")  # casefolds to s
    yield path.replace("a", "%EF%BD%81")  # a wide a


def raw_call(port: int, line: str, token: str, body: bytes, *more: str) -> bytes:
    """One request, written as no client would write it; the beginning of its answer."""
    head = [
        line,
        f"Host: 127.0.0.1:{port}",
        f"Authorization: Bearer {token}",
        "Content-Type: application/json",
        "Connection: close",
        *(more or [f"Content-Length: {len(body)}"]),
    ]
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + body)
        return connection.recv(1_000)


def test_no_spelling_calls_a_model_over_a_limit(
    house: OwnServer, spender: OpenWebUIClient, provider: FakeProvider
) -> None:
    """However a path to a model is written, no model is called."""
    port, token = house.server.port, spender.account.token
    with no_calls(provider):
        for path in sorted(POSTED):
            body = json.dumps({**BODY, "model": MODELS.get("/" + path.split("/")[1])}).encode()
            chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
            asked: list[tuple[str, bytes, list[str]]] = [
                *((f"POST {spelled} HTTP/1.1", body, []) for spelled in spellings(path)),
                (f"POST http://127.0.0.1:{port}{path} HTTP/1.1", body, []),
                (f"POST http://elsewhere.example.org{path} HTTP/1.1", body, []),
                (f"POST {path} HTTP/1.0", body, []),
                (f"post {path} HTTP/1.1", body, []),
                (f"PUT {path} HTTP/1.1", body, []),
                (f"POST {path} HTTP/1.1", chunked, ["Transfer-Encoding: chunked"]),
            ]
            for line, sent, more in asked:
                answer = raw_call(port, line, token, sent, *more)
                assert not answer.startswith(b"HTTP/1.1 200") or b"text/html" in answer, line


async def call_by_voice(house: OwnServer, path: str, token: str) -> None:
    """A voice call at a path, which may refuse it."""
    try:
        async with websockets.connect(house.server.url.replace("http", "ws") + path) as socket:
            login = {"type": "auth", "token": token, "model_id": "fake-llm"}
            await socket.send(json.dumps(login))
            for _ in range(3):
                await socket.send(json.dumps({"type": "bridge.status", "status": "working"}))
                await asyncio.wait_for(socket.recv(), 5)
    except (OSError, TimeoutError, websockets.WebSocketException):
        return


def go_round(house: OwnServer, user: OpenWebUIClient, channel: str, text: str) -> None:
    """Reach for a model where it is called on a user's behalf, in the background mostly."""
    for more in ({}, {"reply_to_id": None, "meta": {"model_id": "fake-llm"}}):
        user.http.post(
            f"/api/v1/channels/{channel}/messages/post",
            json={"content": f"<@M:fake-llm|Fake> {text}", **more},
        )
    made = user.http.post(
        "/api/v1/automations/create",
        json={"name": text, "data": {**BODY["data"], "prompt": text}},
    )
    if made.is_success:
        user.http.post(f"/api/v1/automations/{made.json()['id']}/run")
    for path in ("", "%0A", "/", "%2F"):
        asyncio.run(call_by_voice(house, f"/api/v1/audio/realtime{path}", user.account.token))


def test_no_detour_calls_a_model_over_a_limit(house: OwnServer, provider: FakeProvider) -> None:
    """A channel, an automation, a voice call: each calls a model, but none over a limit."""
    house.usage_limits.configure(daily_token_limit=100_000)
    user = house.admin.add_user("Dora", f"dora{next(COUNTER)}@example.org")
    grants = [
        {"principal_type": "user", "principal_id": "*", "permission": permission}
        for permission in ("read", "write")
    ]
    made = house.admin.post("/api/v1/channels/create", {"name": "all", "access_grants": grants})
    text = f"around {next(COUNTER)}"
    go_round(house, user, made["id"], text)
    wait_until(lambda: len(provider.call_log.calls(contains=text)) >= 3)
    rows = house.usage_limits.settled(3, user_id=user.id)
    automated = "automation" if host_can(AUTOMATION_SOURCE) else "page"
    assert {row["source"] for row in rows} >= {"channel", automated}
    house.usage_limits.configure(policies='[role.user]\nlimits = ["1 request/day"]')
    with no_calls(provider):
        go_round(house, user, made["id"], f"refused {text}")
