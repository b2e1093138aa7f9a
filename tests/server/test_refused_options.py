"""Providers that refuse `stream_options`: noticed, called again without, and not asked again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from starlette.responses import JSONResponse, Response, StreamingResponse

from helpers.openwebui.model_calls import watched_call
from helpers.openwebui.stream_usage import (
    ASK_FOR_USAGE,
    LONGEST_REFUSAL,
    MEMORY_SECONDS,
    MOST_MODELS,
    UnaskedModels,
)
from scripts.openwebui.client import OpenWebUIClient
from scripts.openwebui.page import Page
from scripts.provider.server import FakeProvider
from tests.conftest import OwnServer, StartServer

# As Mistral answered.
MISTRAL = {
    "object": "error",
    "message": {
        "detail": [
            {
                "type": "extra_forbidden",
                "loc": ["body", "stream_options"],
                "msg": "Extra inputs are not permitted",
                "input": {"include_usage": True},
            }
        ]
    },
    "type": "invalid_request_error",
}


class CalledModel:
    """A reply as far as calls are concerned, and what it was told."""

    def __init__(self, own_provider: bool = False) -> None:
        self.own_provider = own_provider
        self.reservation = SimpleNamespace(model_names=("old",))
        self.told: list[str] = []

    def trusted_model(self, asked: object) -> str:
        return "" if self.own_provider else str(asked)

    def call_begins(self) -> None:
        self.told.append("begins")

    def call_failed(self) -> None:
        self.told.append("failed")

    def call_answered(self, answer: object) -> None:
        self.told.append("answered")


def stream() -> Response:
    """A streamed answer."""

    async def nothing() -> Any:
        yield b""

    return StreamingResponse(nothing(), media_type="text/event-stream")


class Host:
    """Open WebUI's function that calls a model, with the calls that reached the provider."""

    def __init__(
        self,
        refuse: Callable[[dict[str, Any]], Response | None] | None = None,
        clock: Callable[[], float] = lambda: 0.0,
        reply: CalledModel | None = None,
    ) -> None:
        self.calls: list[dict[str, Any]] = []
        self.refuse = refuse or refuse_options
        self.reply = reply or CalledModel()
        self.call = watched_call(self._call, lambda _: self.reply, UnaskedModels(clock))

    async def _call(self, _request: Any, form_data: dict[str, Any]) -> Any:
        self.calls.append({**form_data, "messages": [dict(one) for one in form_data["messages"]]})
        form_data["metadata"].pop("selected_model_id", None)
        form_data["messages"].insert(0, {"role": "system", "content": "Be kind."})
        return self.refuse(form_data) or stream()

    def chat(self, **changes: Any) -> Any:
        body = {
            "model": "old",
            "messages": [{"role": "user", "content": "Hello"}],
            "stream": True,
            "stream_options": dict(ASK_FOR_USAGE),
            "metadata": {"selected_model_id": "old"},
        }
        return asyncio.run(self.call(SimpleNamespace(), body | changes))

    @property
    def asked(self) -> list[bool]:
        return ["stream_options" in call for call in self.calls]


def refuse_options(body: dict[str, Any]) -> Response | None:
    return JSONResponse(MISTRAL, 422) if "stream_options" in body else None


@pytest.mark.parametrize(
    "refusal",
    [
        JSONResponse(MISTRAL, 422),
        JSONResponse({"error": {"message": "Unknown parameter: 'stream_options'."}}, 400),
        JSONResponse({"error": "unrecognized field include_usage"}, 400),
        JSONResponse({"detail": "Extra fields not permitted"}, 422),
        Response("STREAM_OPTIONS: no such field", 400),
    ],
)
def test_refused_options_are_left_out(refusal: Response) -> None:
    """The first call is made again as it was but for the options; later ones don't ask."""
    host = Host(lambda body: refusal if "stream_options" in body else None)
    assert host.chat().status_code == 200
    assert host.asked == [True, False]
    first, again = host.calls
    assert first.pop("stream_options") == ASK_FOR_USAGE
    assert first["messages"] == again["messages"]
    assert host.reply.told == ["begins"]
    host.chat()
    host.chat(model="new")
    assert host.asked[2:] == [False, True, False]


def test_metadata_of_the_call_made_again() -> None:
    """What Open WebUI takes out of the first call's metadata is there in the second."""
    seen: list[object] = []

    def refuse(body: dict[str, Any]) -> Response | None:
        return refuse_options(body)

    host = Host(refuse)
    original = host._call

    async def look(request: Any, form_data: dict[str, Any]) -> Any:
        seen.append(form_data["metadata"].get("selected_model_id"))
        return await original(request, form_data)

    host.call = watched_call(look, lambda _: host.reply, UnaskedModels())
    host.chat()
    assert seen == ["old", "old"]


def test_memory_heals() -> None:
    """After some hours a model is asked again, and remembered again if it still refuses."""
    now = [0.0]
    host = Host(clock=lambda: now[0])
    host.chat()
    now[0] = MEMORY_SECONDS - 1.0
    host.chat()
    now[0] = MEMORY_SECONDS + 1.0
    host.chat()
    host.chat()
    assert host.asked == [True, False, False, True, False, False]


def test_memory_is_bounded() -> None:
    """Of more models than it holds the oldest is asked again."""
    host = Host()
    for number in range(MOST_MODELS + 1):
        host.chat(model=f"m{number}")
    host.calls.clear()
    host.chat(model="m1")
    host.chat(model="m0")
    assert host.asked == [False, True, False]


NESTED: Any = []
for _ in range(100_000):
    NESTED = [NESTED]


@pytest.mark.parametrize(
    "changes",
    [
        {"stream_options": {"include_usage": True, "more": 1}},
        {"stream_options": "include_usage"},
        {"stream": "false"},
        {"stream": 1},
        {"n": 2},
        {"logprobs": True},
        {"messages": [{"role": "user", "content": "what are stream_options?"}]},
        {"messages": [{"role": "user", "content": [{"text": "include_usage"}]}]},
        {"messages": [{"role": "user", "content": NESTED}]},
        {"stop": ["Extra inputs are not permitted"]},
        {"tools": [{"name": "stream_options"}]},
    ],
    ids=range(11),
)
def test_client_teaches_nothing(changes: dict[str, Any]) -> None:
    """What a client may have brought about isn't tried again, and the model is asked as before."""
    host = Host()
    answer = host.chat(**changes)
    assert answer.status_code == 422
    assert host.reply.told == ["begins", "failed"]
    host.chat()
    assert host.asked == [True, True, False]


@pytest.mark.parametrize(
    "refusal",
    [
        JSONResponse(MISTRAL, 429),
        JSONResponse(MISTRAL, 500),
        JSONResponse({"error": "context length exceeded"}, 400),
        JSONResponse({"error": " " * LONGEST_REFUSAL + "stream_options"}, 400),
        StreamingResponse(iter(()), 422),
    ],
)
def test_other_refusals_are_refusals(refusal: Response) -> None:
    """An error that doesn't say it, or says it far back in an echo, goes to the client."""
    host = Host(lambda _: refusal)
    assert host.chat().status_code == refusal.status_code
    assert host.asked == [True]
    assert host.reply.told == ["begins", "failed"]


@pytest.mark.parametrize("second", [JSONResponse({"error": "no"}, 400), {"choices": []}])
def test_only_a_stream_teaches(second: Any) -> None:
    """Where the call without options fails too, or isn't streamed, the model is asked again."""
    host = Host(lambda body: refuse_options(body) or second)
    assert host.chat() == second
    host.chat()
    assert host.asked == [True, False, True, False]
    assert host.reply.told[:2] == ["begins", "answered" if isinstance(second, dict) else "failed"]


def test_own_provider_teaches_nothing() -> None:
    """A user's own provider, by whichever name, says nothing about the server's models."""
    host = Host(reply=CalledModel(own_provider=True))
    assert host.chat().status_code == 422
    assert host.asked == [True]


def test_tools_are_told_apart() -> None:
    """A provider that refuses the options along with tools is asked where there are none."""
    tools: dict[str, Any] = {"tools": [{"name": "t"}]}
    host = Host(lambda body: refuse_options(body) if "tools" in body else None)
    host.chat(**tools)
    host.chat(**tools)
    host.chat()
    assert host.asked == [True, False, False, True]


@pytest.fixture(scope="module")
def own(start_server: StartServer) -> OwnServer:
    """A server whose models nobody else needs."""
    return start_server()


@pytest.fixture
def uma(own: OwnServer) -> Iterator[OpenWebUIClient]:
    """A user of the test's own."""
    with_name = own.admin.add_user("Uma", f"{uuid4().hex[:12]}@example.org", role="user")
    yield with_name
    with_name.close()


@pytest.mark.parametrize(
    ("passthrough", "model"), [("page", "fake-llm"), ("api", "fake-llm-large")]
)
def test_first_chat_works(
    own: OwnServer, uma: OpenWebUIClient, provider: FakeProvider, passthrough: str, model: str
) -> None:
    """With a provider that refuses even the first chat works; what a client made up doesn't."""
    rule = provider.script(model=model, refuse="stream_options")

    def chat(text: str) -> list[bool]:
        if passthrough == "api":
            reply = uma.chat(text, model=model, stream=True)
            assert (reply.status, reply.error) == (200, "")
        else:
            with Page(uma) as page:
                sent = page.send(text, models=[model]).reply
                assert (sent.error, sent.finished) == (None, True)
                assert sent.text.startswith("The fake-llm answers")
        return [call.asked_usage for call in provider.call_log.calls(contains=text)]

    try:
        odd = uma.chat(
            f"odd {uma.id}", model=model, stream=True, stream_options={"x": 1}, logprobs=True
        )
        assert odd.status == 422
        assert chat(f"first of {uma.id}") == [True, False]
        assert chat(f"second of {uma.id}") == [False]
        passed = uma.chat(
            f"pass-through path of {uma.id}",
            model=model,
            stream=True,
            path="/openai/chat/completions",
        )
        assert (passed.status, passed.error) == (200, "")
    finally:
        provider.rules.remove(rule)
    other = uma.chat(f"other of {uma.id}", model="fake-llm-free", stream=True)
    assert other.status == 200
    (call,) = provider.call_log.calls(contains=f"other of {uma.id}")
    assert call.asked_usage
    rows = own.usage_limits.settled(4, user_id=uma.id)
    states = [(row["state"], row["estimated"]) for row in rows]
    assert sorted(states, key=json.dumps)[-4:] == [
        ("settled", 0),
        ("settled", 1),
        ("settled", 1),
        ("settled", 1),
    ]
