"""Replies that end at a limit, with `running_replies` at `stop`: at every path in its own form."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from scripts.openwebui.client import OpenWebUIClient
from scripts.openwebui.page import Page
from scripts.provider.ollama import OLLAMA_MODEL
from scripts.provider.server import FakeProvider
from tests.conftest import OwnServer, StartServer

COUNTER = itertools.count()
LIMIT = 300
# What a provider sends meanwhile, when the machine is busy.
ON_THEIR_WAY = 120
LONG = "[[chunks=900 delay=0.03 usage=none]]"


@pytest.fixture(scope="module")
def house(start_server: StartServer, provider: FakeProvider) -> OwnServer:
    """An Open WebUI with every pass-through path on."""
    own = start_server(
        ENABLE_OLLAMA_API="true",
        OLLAMA_BASE_URL=f"http://127.0.0.1:{provider.port}/ollama",
        ENABLE_OPENAI_API_PASSTHROUGH="true",
    )
    own.admin.publish_models()
    return own


@pytest.fixture
def resident(house: OwnServer) -> OpenWebUIClient:
    """A user of that server, with a small limit."""
    stop_at(house, f'[role.user]\nlimits = ["{LIMIT} tokens/day"]')
    return house.admin.add_user("Rea", f"stopped{next(COUNTER)}@example.org")


def stop_at(house: OwnServer, policies: str, **valves: Any) -> None:
    """Replies stop where these policies say."""
    house.usage_limits.configure(**{"running_replies": "stop", "policies": policies, **valves})


def new_marker() -> str:
    """A text that no other test's calls have."""
    return f"stopped {next(COUNTER)};"


def stream_lines(user: OpenWebUIClient, path: str, **body: Any) -> list[str]:
    """The lines of an answer that streams, to its end."""
    with user.http.stream("POST", path, json={"stream": True, **body}) as response:
        assert response.status_code == 200, response.read()
        return [line for line in response.iter_lines() if line]


def assert_stopped(house: OwnServer, provider: FakeProvider, user: Any, marker: str) -> None:
    """The provider's call was ended at the limit, and what it had sent is on record."""
    (call,) = provider.call_log.wait_until_ended(contains=marker)
    assert call.client_gone
    used = call.prompt_tokens + call.chunks_sent
    assert 0.9 * LIMIT <= used <= LIMIT + ON_THEIR_WAY
    (row,) = house.usage_limits.settled(1, user_id=user.id)
    assert row["state"] == "settled"
    assert row["estimated"]
    recorded = row["input_tokens"] + row["output_tokens"]
    assert 0.9 * LIMIT <= recorded <= used + 25


def events_of(lines: list[str]) -> list[Any]:
    """The JSON of an event stream's lines."""
    values = [line.removeprefix("data:").strip() for line in lines if line.startswith("data:")]
    return [json.loads(value) for value in values if value != "[DONE]"]


@pytest.mark.parametrize(
    ("path", "key", "model"),
    [
        ("/api/chat/completions", "messages", "fake-llm"),
        ("/openai/chat/completions", "messages", "fake-llm"),
        ("/ollama/v1/chat/completions", "messages", OLLAMA_MODEL),
        ("/openai/completions", "prompt", "fake-llm"),
    ],
)
def test_in_openais_form(
    house: OwnServer,
    resident: OpenWebUIClient,
    provider: FakeProvider,
    path: str,
    key: str,
    model: str,
) -> None:
    """A stream ends as one whose answer has reached its length."""
    marker = new_marker()
    text: Any = f"{marker} {LONG}"
    text = [{"role": "user", "content": text}] if key == "messages" else text
    lines = stream_lines(resident, path, **{"model": model, key: text})
    assert lines[-1] == "data: [DONE]"
    assert events_of(lines)[-1]["choices"][0]["finish_reason"] == "length"
    assert_stopped(house, provider, resident, marker)
    again = resident.chat("Again", stream=True)
    assert again.status == 429


@pytest.mark.parametrize(
    ("path", "model"), [("/api/v1/messages", "fake-llm"), ("/ollama/v1/messages", OLLAMA_MODEL)]
)
def test_in_anthropics_form(
    house: OwnServer,
    resident: OpenWebUIClient,
    provider: FakeProvider,
    path: str,
    model: str,
) -> None:
    """Anthropic's messages end with their own stop reason."""
    marker = new_marker()
    asked = [{"role": "user", "content": f"{marker} {LONG}"}]
    events = events_of(stream_lines(resident, path, model=model, max_tokens=5_000, messages=asked))
    assert [event["type"] for event in events[-3:]] == [
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert events[-2]["delta"]["stop_reason"] == "max_tokens"
    assert_stopped(house, provider, resident, marker)


def test_in_the_form_of_responses(
    house: OwnServer, resident: OpenWebUIClient, provider: FakeProvider
) -> None:
    """A response of OpenAI's Responses API is incomplete, for its length."""
    marker = new_marker()
    lines = stream_lines(resident, "/openai/responses", model="fake-llm", input=f"{marker} {LONG}")
    last = events_of(lines)[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert last["response"]["id"]
    assert_stopped(house, provider, resident, marker)


@pytest.mark.parametrize(("path", "key"), [("chat", "messages"), ("generate", "prompt")])
def test_in_ollamas_form(
    house: OwnServer,
    resident: OpenWebUIClient,
    provider: FakeProvider,
    path: str,
    key: str,
) -> None:
    """Ollama's last line says that it is done, and why; every line is an object."""
    marker = new_marker()
    text: Any = f"{marker} {LONG}"
    text = [{"role": "user", "content": text}] if key == "messages" else text
    lines = stream_lines(resident, f"/ollama/api/{path}", **{"model": OLLAMA_MODEL, key: text})
    last = [json.loads(line) for line in lines][-1]
    assert (last["done"], last["done_reason"]) == (True, "length")
    assert_stopped(house, provider, resident, marker)


def test_an_answer_that_comes_whole_is_made_to_fit(
    house: OwnServer, resident: OpenWebUIClient, provider: FakeProvider
) -> None:
    """As it can't be ended on its way, it is asked for no longer than what remains."""
    marker = new_marker()
    reply = resident.chat(f"{marker} [[chunks=900]]")
    assert reply.body["choices"][0]["finish_reason"] == "length"
    (call,) = provider.call_log.calls(contains=marker)
    assert 0.75 * LIMIT <= call.prompt_tokens + call.completion_tokens <= LIMIT + 10


def test_on_the_page(house: OwnServer, resident: OpenWebUIClient, provider: FakeProvider) -> None:
    """A reply keeps what has come, with a sentence that says why, and can be continued."""
    marker = new_marker()
    with Page(resident) as page:
        turn = page.send(f"{marker} {LONG}")
        assert turn.reply.error is None
        assert f"topped at your limit of {LIMIT} tokens per day" in turn.reply.statuses[-1]
        assert_stopped(house, provider, resident, marker)
        message = resident.saved_message(turn.chat_id, turn.reply.message_id)
        assert message["done"] is True
        assert message["output"][-1]["content"][0]["text"].startswith("The fake-llm answers")
        stop_at(house, "")
        page.continue_reply(turn)
        assert turn.reply.error is None


def test_tool_rounds_end_too(
    house: OwnServer, resident: OpenWebUIClient, provider: FakeProvider
) -> None:
    """A reply that stops in a round of tools has no further one."""
    house.admin.install_tool("clock", TOOL)
    marker = new_marker()
    with Page(resident) as page:
        page.send(
            f"{marker} [[tool=tell_time rounds=9 reasoning=40 chunks=900 usage=none]]",
            tools=["clock"],
        )
    calls = provider.call_log.wait_until_ended(contains=marker)
    assert 1 <= len(calls) < 9


GROWER = """
class Filter:
    class Valves:
        priority = 9

        def __init__(self, **_):
            pass

    def inlet(self, body):
        body["messages"][-1]["content"] += " and so on" * 130
        return body
"""
TOOL = """
class Tools:
    def tell_time(self) -> str:
        \"\"\"Tell the time.\"\"\"
        return "noon"
"""


def test_pools_stop_replies(
    house: OwnServer, resident: OpenWebUIClient, provider: FakeProvider
) -> None:
    """A pool's limit ends replies as a user's own does."""
    stop_at(house, f'[pool.everyone]\nlimits = ["{LIMIT} tokens/day on fake-llm-large"]')
    marker = new_marker()
    reply = resident.chat(f"{marker} {LONG}", stream=True, model="fake-llm-large")
    assert reply.done
    assert_stopped(house, provider, resident, marker)


@pytest.mark.parametrize("who", ["shadow", "exempt", "finish"])
def test_who_is_not_stopped(
    house: OwnServer, resident: OpenWebUIClient, provider: FakeProvider, who: str
) -> None:
    """In shadow mode nothing stops, nor for exempt administrators, nor by default."""
    valves: dict[str, Any] = {}
    valves |= {"shadow_mode": True} if who == "shadow" else {}
    valves |= {"running_replies": "finish"} if who == "finish" else {}
    policies = f'[role.user]\nlimits = ["{LIMIT} tokens/day"]\n'
    stop_at(house, policies + '[role.admin]\nlimits = ["9 tokens/day"]', **valves)
    user, marker = house.admin if who == "exempt" else resident, new_marker()
    reply = user.chat(f"{marker} [[chunks=400 usage=none]]", stream=True)
    assert reply.chunks[-1]["choices"][0]["finish_reason"] == "stop"
    (call,) = provider.call_log.wait_until_ended(contains=marker)
    assert call.chunks_sent == 400


ROOM = 1_000


def capped_calls(house: OwnServer, provider: FakeProvider, marker: str) -> int:
    """What the provider's calls with a text have cost."""
    calls = provider.call_log.wait_until_ended(contains=marker)
    assert all(call.max_tokens is not None for call in calls)
    return sum(call.prompt_tokens + call.completion_tokens for call in calls)


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/api/chat/completions", "messages"),
        ("/api/v1/messages", "messages"),
        ("/openai/completions", "prompt"),
        ("/openai/responses", "input"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_capped_at_every_path(
    house: OwnServer,
    resident: OpenWebUIClient,
    provider: FakeProvider,
    path: str,
    key: str,
    stream: bool,
) -> None:
    """With `cap_max_tokens` a reply fits into what remains, wherever it is asked for."""
    policies = f'[role.user]\nlimits = ["{ROOM} tokens/day"]'
    stop_at(house, policies, running_replies="finish", cap_max_tokens=True)
    marker = new_marker()
    text: Any = f"{marker} [[chunks=3000]]"
    text = [{"role": "user", "content": text}] if key == "messages" else text
    body = {"model": "fake-llm", "stream": stream, key: text}
    body |= {"max_tokens": 9_000} if path == "/api/v1/messages" else {}
    assert resident.http.post(path, json=body).status_code == 200
    assert 0.9 * ROOM <= capped_calls(house, provider, marker) <= 1.05 * ROOM


def test_capped_with_what_is_added_later(
    house: OwnServer, resident: OpenWebUIClient, provider: FakeProvider
) -> None:
    """What retrieval or another filter adds to the prompt is no longer there for the reply."""
    policies = f'[role.user]\nlimits = ["{ROOM} tokens/day"]'
    stop_at(house, policies, running_replies="finish", cap_max_tokens=True)
    house.admin.install_function("grower", GROWER)
    house.admin.switch_function("grower", active=True, everywhere=True)
    try:
        marker = new_marker()
        reply = resident.chat(f"{marker} [[chunks=3000]]", n=4)
        assert reply.status == 200
    finally:
        house.admin.delete_function("grower")
    (call,) = provider.call_log.calls(contains=marker)
    # The fake-llm answers once; four such answers would fit.
    assert call.max_tokens is not None
    assert call.prompt_tokens > 300
    assert 0.8 * ROOM <= call.prompt_tokens + 4 * call.max_tokens <= 1.05 * ROOM


def test_capped_in_every_round(
    house: OwnServer, resident: OpenWebUIClient, provider: FakeProvider
) -> None:
    """The rounds of a reply share what remains."""
    policies = f'[role.user]\nlimits = ["{ROOM} tokens/day"]'
    stop_at(house, policies, running_replies="finish", cap_max_tokens=True)
    house.admin.install_tool("clock", TOOL)
    marker = new_marker()
    with Page(resident) as page:
        directive = "[[tool=tell_time rounds=2 tokens=200 chunks=4]]"
        page.send(f"{marker} {directive}", tools=["clock"])
    calls = provider.call_log.wait_until_ended(contains=marker)
    assert len(calls) == 3
    limits = [call.max_tokens or 0 for call in calls]
    assert limits[0] > limits[1] > limits[2] > 0
    before = sum(call.prompt_tokens for call in calls) + 2 * 200
    assert 0.8 * ROOM <= before + limits[2] <= 1.1 * ROOM
