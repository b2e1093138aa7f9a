"""Every way to a model: none goes past a limit, and all are on record to the token."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from typing import Any

import anthropic
import httpx
import openai
import pytest
import websockets

from helpers.openwebui.http_requests import LARGEST_REQUEST
from helpers.openwebui.passthrough import find_passthrough
from scripts.compat.hosts import AUTOMATION_SOURCE
from scripts.openwebui.client import PUBLIC, OpenWebUIClient
from scripts.provider.ollama import OLLAMA_MODEL
from scripts.provider.server import PICTURE, RESPONSES_MODEL, FakeProvider
from tests.conftest import (
    FUNCTION_FILE,
    FUNCTION_ID,
    OpenPage,
    OwnServer,
    host_can,
    wait_until,
)
from tests.server.test_function_calls import TOOL
from tests.support.passthrough_paths import PATHS, knock

COUNTER = itertools.count()


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("POST", "/api/chat/completions", "chat"),
        ("POST", "/api/v1/messages", "chat"),
        ("POST", "/openai/chat/completions", "rewritten"),
        ("POST", "/openai/chat/completions/", "rewritten"),
        ("POST", "/openai//chat//completions", "rewritten"),
        ("POST", "/openai/v1/chat/completions", "rewritten"),
        ("POST", "/openai/%63hat/completions", "rewritten"),
        ("POST", "/openai/chat%2Fcompletions", "rewritten"),
        ("POST", "/openai/%2563hat/completions", "rewritten"),
        ("POST", "/openai/models/../chat/completions", "rewritten"),
        ("POST", "/openai/Chat/Completions", "rewritten"),
        ("POST", "/openai/chat/completions/0", "rewritten"),
        ("POST", "/openai/chat\\completions", "rewritten"),
        ("POST", "/openai/responses", "metered"),
        ("POST", "/openai/completions", "metered"),
        ("POST", "/openai/embeddings", "embeddings"),
        ("POST", "/openai/audio/speech", "request"),
        ("POST", "/openai/files", "unknown"),
        ("GET", "/openai/chat/completions", "unknown"),
        ("PUT", "/openai/models/0", "unknown"),
        ("GET", "/openai/models/../chat/completions", "unknown"),
        ("POST", "/openai/deployments/x/chat/completions", "unknown"),
        ("POST", "/ollama/api/chat", "metered"),
        ("POST", "/ollama/api/chat/0", "metered"),
        ("POST", "/ollama/api/generate/12", "metered"),
        ("POST", "/ollama/v1/chat/completions/0", "rewritten"),
        ("POST", "/ollama/v1/messages", "metered"),
        ("POST", "/ollama/api/embed", "embeddings"),
        ("POST", "/ollama/api/whatever", "unknown"),
        ("POST", "/api/v1/tasks/moa/completions", "task"),
        ("POST", "/api/embeddings", "embeddings"),
        ("POST", "/api/v1/audio/speech", "request"),
        ("POST", "/api/v1/files/", "indexing"),
        ("POST", "/api/v1/files/x/data/content/update", "indexing"),
        ("POST", "/api/v1/retrieval/process/text", "indexing"),
        ("POST", "/api/v1/retrieval/query/collection", "indexing"),
        ("POST", "/api/v1/memories/query", "indexing"),
        ("POST", "/api/v1/memories/reset", "indexing"),
        ("POST", "/api/v1/knowledge/metadata/reindex", "indexing"),
        ("PATCH", "/api/v1/knowledge/external/source/x", "indexing"),
        ("GET", "/api/v1/retrieval/ef/x", "indexing"),
        ("POST", "/api/v1/knowledge/x/files/batch/add", "indexing"),
        ("GET", "/api/v1/files/", None),
        ("PATCH", "/api/v1/chats/x/params", None),
        ("POST", "/api/v1/retrieval/config/update", None),
        ("GET", "/openai/models", None),
        ("GET", "/openai/models/0", None),
        ("GET", "/openai/config", None),
        ("POST", "/openai/config/update", None),
        ("POST", "/openai/verify", None),
        ("GET", "/ollama/api/tags", None),
        ("GET", "/ollama", None),
        ("GET", "/ollama/", None),
        ("POST", "/ollama/api/show", None),
        ("POST", "/ollama/api/pull/0", None),
        ("DELETE", "/ollama/api/delete/0", None),
        ("HEAD", "/openai/chat/completions", None),
        ("OPTIONS", "/openai/chat/completions", None),
        ("GET", "/api/chat/completions", None),
        ("POST", "/openaix/chat/completions", None),
        ("POST", "/api/v1/chats/new", None),
        ("GET", "/", None),
        ("GET", "", None),
    ],
)
def test_which_paths_reach_a_model(method: str, path: str, kind: str | None) -> None:
    """However a path to a model is spelled it is known; an administrator's pages stay open."""
    passthrough = find_passthrough(method, path)
    assert (passthrough.kind if passthrough else None) == kind


@pytest.fixture
def house(open_server: OwnServer) -> OwnServer:
    """An Open WebUI with every way to a model open."""
    return open_server


@pytest.fixture
def resident(house: OwnServer) -> OpenWebUIClient:
    """A user of that server."""
    return house.admin.add_user("Rea", f"rea{next(COUNTER)}@example.org")


def say(text: str, stream: bool = False, **more: Any) -> dict[str, Any]:
    """A chat's body."""
    return {"messages": [{"role": "user", "content": text}], "stream": stream, **more}


@pytest.mark.parametrize("stream", [False, True])
def test_below_a_limit_everything_is_on_record(
    house: OwnServer, resident: OpenWebUIClient, provider: FakeProvider, stream: bool
) -> None:
    """Each path works below a limit, and the ledger has what the provider has."""
    house.usage_limits.configure(daily_token_limit=100_000)
    used = []
    for number, (path, key) in enumerate(PATHS):
        text = f"knock {next(COUNTER)} [[in={21 + number} tokens={13 + number}]]"
        answer = knock(resident, path, key, text, stream)
        assert answer.status_code == 200, (path, answer.text)
        (call,) = provider.call_log.calls(contains=text)
        used.append((call.prompt_tokens, call.completion_tokens, 0, 1))
    rows = house.usage_limits.settled(len(PATHS), user_id=resident.id)
    columns = ("input_tokens", "output_tokens", "estimated", "counted")
    assert sorted(tuple(row[name] for name in columns) for row in rows) == sorted(used)


@pytest.mark.parametrize("stream", [False, True])
def test_over_a_limit_no_path_reaches_a_model(
    house: OwnServer, resident: OpenWebUIClient, provider: FakeProvider, stream: bool
) -> None:
    """Whoever is over the limit gets 429 and a sentence everywhere; the provider sees no call."""
    house.usage_limits.configure(daily_token_limit=1)
    assert resident.chat("one [[in=9 tokens=9]]").status == 200
    house.usage_limits.settled(1, user_id=resident.id)
    for path, key in PATHS:
        text = f"refused {next(COUNTER)}"
        answer = knock(resident, path, key, text, stream)
        assert answer.status_code == 429, (path, answer.text)
        assert "limit of 1 token per day" in answer.json()["detail"], path
        assert int(answer.headers["retry-after"]) > 0
        assert "error" in answer.json()
        assert provider.call_log.calls(contains=text, tasks=True) == []
    assert len(house.usage_limits.rows(user_id=resident.id)) == 1


@pytest.mark.parametrize("path", ["/openai/files", "/openai/batches", "/ollama/api/whatever"])
def test_what_nobody_can_count_is_closed(
    house: OwnServer, resident: OpenWebUIClient, path: str
) -> None:
    """An unknown pass-through path is refused with a sentence."""
    house.usage_limits.configure()
    answer = resident.http.post(path, json={"model": "fake-llm", "input": "x"})
    assert answer.status_code == 403
    assert "past the usage limits" in answer.json()["detail"]


TASKS = ("title", "tags", "follow_up", "queries", "image_prompt", "emoji", "moa")
TASK_BODY = {"model": "fake-llm", "prompt": "x", "responses": ["a"], "type": "web_search"}


@pytest.mark.parametrize("task", TASKS)
def test_tasks_that_a_user_asks_for(
    house: OwnServer, resident: OpenWebUIClient, provider: FakeProvider, task: str
) -> None:
    """A task's own path counts like any request, and calls no model over a limit."""
    house.usage_limits.configure(policies='[role.user]\nlimits = ["1 request/day"]')
    path = f"/api/v1/tasks/{task}/completions"
    text = f"asked {next(COUNTER)}"
    body = {**TASK_BODY, "prompt": text, "messages": [{"role": "user", "content": text}]}
    assert resident.http.post(path, json=body).status_code == 200
    (row,) = house.usage_limits.settled(1, user_id=resident.id)
    (call,) = provider.call_log.calls(contains=text, tasks=True)
    assert (row["source"], row["counted"], row["estimated"]) == ("task", 1, 0)
    assert (row["input_tokens"], row["output_tokens"]) == (
        call.prompt_tokens,
        call.completion_tokens,
    )
    refused = resident.http.post(path, json=body)
    assert refused.status_code == 429
    assert refused.json()["error"]["type"] == "rate_limit_exceeded"
    assert len(provider.call_log.calls(contains=text, tasks=True)) == 1


def test_titles_are_recorded_and_not_counted(
    house: OwnServer, resident: OpenWebUIClient, provider: FakeProvider, open_page: OpenPage
) -> None:
    """Title, tags and follow-ups of a chat are on record as tasks, and count toward nothing."""
    house.usage_limits.configure(daily_token_limit=100_000)
    page = open_page(resident)
    text = f"titled {next(COUNTER)} [[in=50 tokens=5]]"
    page.send(text, background_tasks=True)
    rows = house.usage_limits.settled(4, user_id=resident.id)
    tasks = [row for row in rows if row["source"] == "task"]
    calls = [call for call in provider.call_log.calls(contains=text, tasks=True) if call.task]
    assert len(tasks) == len(calls) == 3
    assert sum(row["input_tokens"] for row in tasks) == sum(call.prompt_tokens for call in calls)
    assert {row["counted"] for row in tasks} == {0}
    house.usage_limits.configure(daily_token_limit=55)
    assert resident.chat("Hi").status == 429


def test_titles_count_where_the_policies_say_so(
    house: OwnServer, resident: OpenWebUIClient, open_page: OpenPage
) -> None:
    """With `[tasks] counted = true` they count."""
    house.usage_limits.configure(
        policies='[tasks]\ncounted = true\n[role.user]\nlimits = ["100k tokens/day"]'
    )
    open_page(resident).send(f"counted {next(COUNTER)}", background_tasks=True)
    rows = house.usage_limits.settled(4, user_id=resident.id)
    assert [row["counted"] for row in rows] == [1] * 4


def test_over_a_limit_no_title_is_asked_for(
    house: OwnServer, resident: OpenWebUIClient, provider: FakeProvider, open_page: OpenPage
) -> None:
    """A refused message gets no title; the chat says why it was refused, and nothing else."""
    house.usage_limits.configure(policies='[role.user]\nlimits = ["1 request/day"]')
    page = open_page(resident)
    first, second = f"last {next(COUNTER)}", f"refused {next(COUNTER)}"
    assert page.send(first).reply.error is None
    house.usage_limits.settled(1, user_id=resident.id)
    assert "1 request" in (page.send(second, background_tasks=True).reply.error or "")
    time.sleep(1)  # a title would be asked for beside the reply
    assert provider.call_log.calls(contains=second, tasks=True) == []


def test_passthrough_block_and_allow(
    house: OwnServer, resident: OpenWebUIClient, provider: FakeProvider
) -> None:
    """`block` closes what goes past the hooks for all but administrators; `allow` only records."""
    house.usage_limits.configure(passthrough="block")
    for path in ("/openai/chat/completions", "/ollama/api/chat", "/api/embeddings"):
        answer = knock(resident, path, "messages", f"blocked {next(COUNTER)}", False)
        assert answer.status_code == 403
    assert resident.chat("Hi [[in=9 tokens=9]]").status == 200
    house.usage_limits.configure(passthrough="allow", daily_token_limit=1)
    answer = knock(resident, "/openai/chat/completions", "messages", "[[in=7 tokens=7]]", True)
    assert answer.status_code == 200
    rows = house.usage_limits.settled(2, user_id=resident.id)
    assert (rows[1]["input_tokens"], rows[1]["output_tokens"]) == (7, 7)


def test_switched_off_and_deleted(house: OwnServer, resident: OpenWebUIClient) -> None:
    """A filter that is off guards no pass-through path; one that is pasted anew does."""
    house.usage_limits.configure(daily_token_limit=1)
    assert resident.chat("one [[in=9 tokens=9]]").status == 200
    house.usage_limits.settled(1, user_id=resident.id)
    path = "/ollama/api/chat"
    assert knock(resident, path, "messages", "x", False).status_code == 429
    house.usage_limits.switch(active=False)
    assert knock(resident, path, "messages", "x", False).status_code == 200
    house.usage_limits.switch(active=True)
    assert knock(resident, path, "messages", "x", False).status_code == 429
    source = FUNCTION_FILE.read_text(encoding="utf-8")
    house.admin.install_function(FUNCTION_ID, f"{source}\n# Pasted anew.\n")
    assert knock(resident, path, "messages", "x", False).status_code == 429
    house.admin.delete_function(FUNCTION_ID)
    assert knock(resident, path, "messages", "x", False).status_code == 200
    house.admin.install_function(FUNCTION_ID, source)
    house.usage_limits.switch(active=True, everywhere=True)
    assert len(house.usage_limits.rows(user_id=resident.id)) == 1


def test_requests_without_tokens(
    house: OwnServer, resident: OpenWebUIClient, provider: FakeProvider
) -> None:
    """Speech is one request, refused over a limit on requests and over no other."""
    house.usage_limits.configure(daily_token_limit=1)
    assert resident.chat("one [[in=9 tokens=9]]").status == 200
    body = {"model": "tts-1", "input": f"aloud {next(COUNTER)}", "voice": "alloy"}
    assert resident.http.post("/openai/audio/speech", json=body).status_code != 429
    house.usage_limits.configure(policies='[role.user]\nlimits = ["1 request/day"]')
    refused = resident.http.post("/openai/audio/speech", json=body)
    assert refused.status_code == 429
    assert refused.headers["x-should-retry"] == "false"


def test_a_body_too_long_to_be_counted(house: OwnServer, resident: OpenWebUIClient) -> None:
    """Past the stated maximum a request is refused there, and so is what is no JSON object."""
    house.usage_limits.configure()
    path = "/ollama/api/chat"
    long = b'{"model": "x", "messages": "' + b"x" * LARGEST_REQUEST + b'"}'
    assert resident.http.post(path, content=long).status_code == 413
    for odd in (b"", b"[]", b"{", b"[" * 100_000, b"\xff", b'{"model": 1e999}'):
        answer = resident.http.post(path, content=odd)
        assert 400 <= answer.status_code < 500, odd[:20]
    assert {row["state"] for row in house.usage_limits.settled(0, user_id=resident.id)} <= {
        "released"
    }


def test_without_a_login_nothing_is_read(house: OwnServer) -> None:
    """Nobody's request is refused as Open WebUI refuses it, and leaves no record."""
    for path in ("/ollama/api/chat", "/openai/responses", "/openai/chat/completions"):
        assert httpx.post(house.server.url + path, json={}, trust_env=False).status_code == 401


def test_an_api_key_in_its_own_header(house: OwnServer, resident: OpenWebUIClient) -> None:
    """A key opens a pass-through path as it does everywhere, in `x-api-key` too."""
    house.usage_limits.configure()
    key = resident.api_key()
    for headers in ({"x-api-key": key}, {"Authorization": f"Bearer {key}"}):
        answer = httpx.post(
            f"{house.server.url}/ollama/api/chat",
            json=say("key", model=OLLAMA_MODEL),
            headers=headers,
            trust_env=False,
        )
        assert answer.status_code == 200
    assert len(house.usage_limits.settled(2, user_id=resident.id)) == 2


def test_clients_raise_and_do_not_hammer(house: OwnServer, resident: OpenWebUIClient) -> None:
    """The `openai` and `anthropic` clients raise their RateLimitError after a single attempt."""
    house.usage_limits.configure(policies='[role.user]\nlimits = ["1 request/day"]')
    assert resident.chat("one").status == 200
    key, seen = resident.api_key(), []
    with httpx.Client(event_hooks={"response": [seen.append]}, trust_env=False) as http:
        ask_by_every_client(house.server.url, key, http)
    assert len(seen) == 4


def ask_by_every_client(url: str, key: str, http: httpx.Client) -> None:
    """One request by each client and base address, all refused."""
    for base in ("/api", "/openai", "/ollama/v1"):
        client = openai.OpenAI(api_key=key, base_url=url + base, http_client=http)
        with pytest.raises(openai.RateLimitError, match="1 request"):
            client.chat.completions.create(
                model="fake-llm", messages=[{"role": "user", "content": "x"}]
            )
    claude = anthropic.Anthropic(api_key=key, base_url=f"{url}/api", http_client=http)
    with pytest.raises(anthropic.RateLimitError, match="1 request"):
        claude.messages.create(
            model="fake-llm", max_tokens=9, messages=[{"role": "user", "content": "x"}]
        )


def test_headers_say_what_is_left(house: OwnServer, resident: OpenWebUIClient) -> None:
    """API answers carry OpenAI's headers, of the tightest limit."""
    house.usage_limits.configure(
        policies='[role.user]\nlimits = ["9 requests/day", "5k tokens/day", "50k tokens/month"]'
    )
    for path, key in (("/api/chat/completions", "messages"), ("/ollama/api/chat", "messages")):
        headers = knock(resident, path, key, "[[in=10 tokens=10]]", True).headers
        assert headers["x-ratelimit-limit-requests"] == "9"
        assert headers["x-ratelimit-limit-tokens"] == "5000"
        assert int(headers["x-ratelimit-remaining-tokens"]) <= 5000
        assert headers["x-ratelimit-reset-tokens"].endswith("s")


def test_pasted_anew_and_switched_off_in_mid_stream(
    house: OwnServer, resident: OpenWebUIClient
) -> None:
    """A stream that runs meanwhile comes whole, and is on record to the token."""
    house.usage_limits.configure(daily_token_limit=100_000)
    source = FUNCTION_FILE.read_text(encoding="utf-8")
    changes = (
        lambda: house.admin.install_function(FUNCTION_ID, f"{source}\n# Pasted in mid-stream.\n"),
        lambda: house.usage_limits.switch(active=False),
    )
    text = "[[chunks=12 delay=0.15 in=31 tokens=17]]"
    body = say(text, stream=True, model=OLLAMA_MODEL)
    for change in changes:
        with resident.http.stream("POST", "/ollama/api/chat", json=body) as answer:
            lines = answer.iter_lines()
            next(lines)
            change()
            assert '"done": true' in list(lines)[-1]
    house.usage_limits.switch(active=True)
    rows = house.usage_limits.settled(2, user_id=resident.id)
    assert [(row["input_tokens"], row["output_tokens"], row["estimated"]) for row in rows] == [
        (31, 17, 0)
    ] * 2


def test_a_stream_that_is_left_is_charged(house: OwnServer, resident: OpenWebUIClient) -> None:
    """Who leaves a pass-through path's stream pays for what had come."""
    house.usage_limits.configure(daily_token_limit=100_000)
    body = say("[[chunks=60 delay=0.1]]", stream=True, model=OLLAMA_MODEL)
    with resident.http.stream("POST", "/ollama/api/chat", json=body) as answer:
        lines = answer.iter_lines()
        for _ in range(10):
            next(lines)
    (row,) = house.usage_limits.settled(1, user_id=resident.id)
    assert (row["state"], row["estimated"]) == ("settled", 1)
    assert row["output_tokens"] >= 5


def test_a_provider_that_fails_costs_nothing(house: OwnServer, resident: OpenWebUIClient) -> None:
    """What the provider refuses at a pass-through path is released."""
    house.usage_limits.configure(daily_token_limit=100_000)
    for path in ("/ollama/api/chat", "/openai/responses", "/openai/chat/completions"):
        key = "input" if path.endswith("responses") else "messages"
        assert knock(resident, path, key, "[[error=500]]", False).status_code >= 400
    rows = house.usage_limits.settled(3, user_id=resident.id)
    assert [(row["state"], row["input_tokens"]) for row in rows] == [("released", 0)] * 3


async def talk(
    house: OwnServer, token: str, commands: list[dict[str, Any]], events: int
) -> list[dict[str, Any]]:
    """Say something in a voice call; what it answers, so many events at most."""
    url = house.server.url.replace("http", "ws") + "/api/v1/audio/realtime"
    answers: list[dict[str, Any]] = []
    async with websockets.connect(url) as socket:
        login = {"type": "auth", "token": token, "model_id": "fake-llm"}
        await socket.send(json.dumps(login))
        with contextlib.suppress(websockets.ConnectionClosed):
            answers.append(json.loads(await socket.recv()))
            with contextlib.suppress(websockets.ConnectionClosed):  # what was said is still there
                for command in commands:
                    await socket.send(json.dumps(command))
            while len(answers) <= events:
                answers.append(json.loads(await asyncio.wait_for(socket.recv(), 20)))
    return answers


HEAR, SAY = {"type": "input_audio_buffer.commit"}, {"type": "bridge.status", "status": "working"}


def test_a_voice_call_is_counted_answer_by_answer(
    house: OwnServer, resident: OpenWebUIClient, provider: FakeProvider
) -> None:
    """Each answer of a voice call is a request with the tokens that the provider reports."""
    prices = "input_price = 10\ncached_input_price = 1\noutput_price = 20"
    house.usage_limits.configure(
        policies=f'[role.user]\nlimits = ["100k tokens/day"]\n[model.realtime]\n{prices}'
    )
    before = len(provider.call_log.calls(contains="said"))
    asyncio.run(talk(house, resident.account.token, [HEAR, SAY, SAY], 5))
    rows = house.usage_limits.settled(3, user_id=resident.id)
    used = [(row["input_tokens"], row["output_tokens"], row["state"]) for row in rows]
    assert sorted(used) == [(0, 0, "released"), (132, 121, "settled"), (145, 130, "settled")]
    assert {row["model_id"] for row in rows} == {"realtime"}
    # Half of what the model reads is cached, at a tenth of the price.
    assert sorted(row["cost_micros"] for row in rows) == [0, 3_146, 3_402]
    assert len(provider.call_log.calls(contains="said")) == before + 2


def test_a_voice_call_ends_over_a_limit(
    house: OwnServer, resident: OpenWebUIClient, provider: FakeProvider
) -> None:
    """Over a limit no call begins; one that reaches it is ended with the sentence."""
    house.usage_limits.configure(policies='[role.user]\nlimits = ["2 requests/day"]')
    before = len(provider.call_log.calls(contains="said"))
    answers = asyncio.run(talk(house, resident.account.token, [SAY] * 40, 100))
    assert answers[-1]["type"] == "bridge.error"
    assert "2 requests" in answers[-1]["message"]
    assert len(provider.call_log.calls(contains="said")) <= before + 2
    house.usage_limits.configure(daily_token_limit=1)
    (only,) = asyncio.run(talk(house, resident.account.token, [SAY], 1))
    assert only["type"] == "bridge.error"
    (only,) = asyncio.run(talk(house, "nobody", [SAY], 1))
    assert only["type"] == "bridge.error"


def test_each_image_is_a_request(
    house: OwnServer, resident: OpenWebUIClient, provider: FakeProvider
) -> None:
    """So many images are so many requests: all are made or none, and those that fail are free."""
    house.usage_limits.configure(policies='[role.user]\nlimits = ["5 requests/day"]')
    picture = f"data:image/png;base64,{PICTURE}"

    def draw(text: str, n: object, path: str = "generations") -> int:
        body = {"prompt": text, "image": picture, "n": n}
        answer = resident.http.post(f"/api/v1/images/{path}", json=body)
        assert ("retry-after" in answer.headers) == (answer.status_code == 429)
        return answer.status_code

    text = f"picture {next(COUNTER)}"
    assert draw("[[error]]", 2) == 400
    house.usage_limits.settled(2, user_id=resident.id)
    assert draw(text, "3") == 200
    assert draw(text, 3.0) == 429
    assert draw(text, 51) == 400
    assert draw(text, 2, "edit") == 200
    assert draw(text, 1) == 429
    assert len(provider.call_log.calls(contains=text)) == 5
    rows = house.usage_limits.rows(user_id=resident.id)
    models = [(row["model_id"], row["state"], row["counted"]) for row in rows]
    assert models.count(("generations", "settled", 1)) == 3
    assert models.count(("edit", "settled", 1)) == 2
    assert {row["state"] for row in rows} == {"settled", "released"}


def test_each_image_of_a_chat_is_a_request(
    house: OwnServer, resident: OpenWebUIClient, open_page: OpenPage, provider: FakeProvider
) -> None:
    """What a model has drawn as a tool counts as at its own path; the reply goes on without it."""
    house.admin.set_model("fake-llm", builtin_tools=True)
    house.usage_limits.configure(
        policies='[role.user]\nlimits = ["3 requests/day", "1 request at once"]'
    )
    text = f"drawing {next(COUNTER)}"
    tool = json.dumps({"prompt": text})
    try:
        turn = open_page(resident).send(
            f"[[tool=generate_image rounds=4 args='{tool}']]", features={"image_generation": True}
        )
    finally:
        house.admin.set_model("fake-llm")
    assert turn.reply.error is None
    assert turn.reply.text.startswith("The fake-llm answers")
    assert len(provider.call_log.calls(contains=text, model="images")) == 2
    rows = house.usage_limits.settled(3, user_id=resident.id)
    assert sorted((row["model_id"], row["source"], row["counted"]) for row in rows) == [
        ("fake-llm", "page", 1),
        ("generations", "page", 1),
        ("generations", "page", 1),
    ]


def test_an_automations_tools_are_its_own(
    house: OwnServer, resident: OpenWebUIClient, provider: FakeProvider
) -> None:
    """What a tool asks or draws within an automation comes from there, not from the page or API."""
    house.usage_limits.configure(daily_token_limit=100_000)
    house.admin.install_tool("asker", TOOL)
    model = f"helper-{next(COUNTER)}"
    form = {
        "id": model,
        "name": model,
        "base_model_id": "fake-llm",
        "params": {},
        "meta": {
            "toolIds": ["asker"],
            "defaultFeatureIds": ["image_generation"],
            "capabilities": {"image_generation": True, "builtin_tools": True},
        },
        "access_grants": PUBLIC,
    }
    house.admin.post("/api/v1/models/create", form)
    house.admin.models()
    try:
        for tool in ("ask_model", "generate_image"):
            drawn = json.dumps({"prompt": "x"} if "image" in tool else {})
            asked = f"{resident.id} [[tool={tool} args='{drawn}']]"
            data = {"prompt": asked, "model_id": model, "rrule": "RRULE:FREQ=DAILY"}
            made = resident.post("/api/v1/automations/create", {"name": "a", "data": data})
            resident.post(f"/api/v1/automations/{made['id']}/run")
        rows = house.usage_limits.settled(4, user_id=resident.id)
    finally:
        house.admin.delete_model(model)
    automated = "automation" if host_can(AUTOMATION_SOURCE) else "page"
    assert sorted((row["model_id"], row["source"]) for row in rows) == [
        ("fake-llm-large", automated),
        ("generations", automated),
        (model, automated),
        (model, automated),
    ]


@pytest.mark.parametrize("path", ["/api/chat/completions", "/openai/chat/completions"])
def test_no_chat_is_answered_in_the_background(
    house: OwnServer, resident: OpenWebUIClient, provider: FakeProvider, path: str
) -> None:
    """A provider of the Responses API would go on with it, and nobody see what it uses."""
    house.usage_limits.configure(daily_token_limit=100)
    text = f"unseen {next(COUNTER)}"
    for stream in (False, True):
        reply = resident.chat(
            text, model=RESPONSES_MODEL, path=path, stream=stream, background=True
        )
        assert reply.status == 400
        assert "`background`" in reply.error
    assert provider.call_log.calls(contains=text) == []
    assert resident.chat(text, background=False).status == 200


def index_text(user: OpenWebUIClient, text: str) -> list[int]:
    """Have a text embedded in every way that a user has."""
    ways: list[tuple[str, dict[str, Any]]] = [
        ("/api/v1/retrieval/process/text", {"json": {"name": "x", "content": text}}),
        ("/api/v1/memories/add", {"json": {"content": text}}),
        ("/api/v1/memories/query", {"json": {"content": text}}),
        ("/api/v1/files/", {"files": {"file": ("x.txt", text.encode())}}),
        (
            "/api/v1/files/?process=false&process=true",
            {"files": {"file": ("x.txt", text.encode())}},
        ),
    ]
    return [user.http.post(path, **body).status_code for path, body in ways]


def test_embeddings_of_files_and_memories(
    house: OwnServer, resident: OpenWebUIClient, provider: FakeProvider
) -> None:
    """Each text that a provider embeds is a request on record; over a limit none is embedded."""
    house.usage_limits.configure(daily_token_limit=100_000)
    text = f"index {next(COUNTER)}"
    assert index_text(resident, text) == [200] * 5
    rows = house.usage_limits.settled(5, user_id=resident.id)
    assert {(row["model_id"], row["counted"]) for row in rows} == {("embedding", 1)}
    wait_until(lambda: len(provider.call_log.calls(contains=text)) >= 5)
    house.usage_limits.configure(policies='[role.user]\nlimits = ["1 request/day"]')
    text = f"refused {next(COUNTER)}"
    assert index_text(resident, text) == [429] * 5
    kept = {"files": {"file": ("x.txt", text.encode())}}
    assert resident.http.post("/api/v1/files/?process=false", **kept).status_code == 200
    assert provider.call_log.calls(contains=text) == []


def test_a_provider_that_refuses_to_be_asked_for_usage(
    house: OwnServer, resident: OpenWebUIClient, provider: FakeProvider
) -> None:
    """A streamed pass-through call that is refused for `stream_options` is made once more."""
    house.usage_limits.configure(daily_token_limit=100_000)
    rule = provider.script(contains="unasked", refuse="stream_options")
    try:
        for number in range(2):
            text = f"unasked {number} of {resident.id} [[in=21 tokens=13]]"
            answer = knock(resident, "/openai/completions", "prompt", text, True)
            assert answer.status_code == 200, answer.text
            assert "data: [DONE]" in answer.text
            # The second time it is known, and not asked.
            assert len(provider.call_log.calls(contains=text)) == 2 - number
    finally:
        provider.rules.remove(rule)
    rows = house.usage_limits.settled(2, user_id=resident.id)
    assert [row["estimated"] for row in rows] == [1, 1]
    assert all(row["output_tokens"] > 0 for row in rows)


@pytest.mark.parametrize("path", ["/ollama/api/chat", "/openai/files", "/api/v1/memories/query"])
def test_refusals_can_be_read_by_other_pages(
    house: OwnServer, resident: OpenWebUIClient, path: str
) -> None:
    """What the layer answers itself has Open WebUI's own CORS headers."""
    house.usage_limits.configure(policies='[role.user]\nlimits = ["0 requests/day"]')
    headers = {"Origin": "https://elsewhere.example.org"}
    body = {"model": OLLAMA_MODEL, "content": "x", "messages": []}
    answer = resident.http.post(path, json=body, headers=headers)
    assert answer.status_code in (403, 429)
    own = resident.http.get("/api/version", headers=headers).headers
    for name in ("access-control-allow-origin", "access-control-allow-credentials"):
        assert own[name]
        assert answer.headers[name] == own[name]
    nobody = httpx.post(house.server.url + path, json=body, headers=headers)
    assert nobody.status_code == 401
    assert nobody.headers["access-control-allow-origin"]
