"""Models that are reached by way of another: merged replies, arenas, custom models."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx
import pytest

from scripts.openwebui.admin import OpenWebUIAdmin
from scripts.openwebui.client import OpenWebUIClient
from scripts.provider.server import FakeProvider
from tests.conftest import InstalledFilter, MakeUser, wait_until

COUNTER = itertools.count()
MERGE = "/api/v1/tasks/moa/completions"
ARENA = "arena-model"
# One model costs nothing, and the other is closed.
CHEAP, CLOSED = "fake-llm", "fake-llm-large"
POLICIES = (
    f'[role.user]\nlimits = ["100 tokens/day", "0 tokens/day on {CLOSED}"]\n'
    f'[model."{CHEAP}"]\nweight = 0'
)
# Waits behind the filter of usage limits.
SLOW_FILTER = """
import asyncio
from pydantic import BaseModel

class Filter:
    class Valves(BaseModel):
        priority: int = 9

    def __init__(self):
        self.valves = self.Valves()

    async def inlet(self, body):
        if "slowly" in str(body["messages"]):
            await asyncio.sleep(2)
        return body
"""


def merge(user: OpenWebUIClient, text: str, **body: Any) -> int:
    """The status of what the page asks for to merge several models' replies."""
    asked = {"model": CHEAP, "prompt": text, "responses": ["a", "b"], **body}
    for _ in range(3):
        try:
            return user.http.post(MERGE, json=asked).status_code
        except (
            httpx.ReadError,
            httpx.RemoteProtocolError,
        ):  # an error came before the request was read
            continue
    return 500


def calls(provider: FakeProvider, text: str) -> list[str]:
    """The models that were called with a text."""
    return [call.model for call in provider.call_log.calls(contains=text, tasks=True)]


@pytest.mark.parametrize("stream", [True, "yes", False])
def test_a_merge_is_counted_as_the_provider_reports_it(
    usage_limits: InstalledFilter, user: OpenWebUIClient, stream: object
) -> None:
    """Replies merged in a stream, as the page does it, are on record to the token."""
    assert merge(user, "[[in=70 tokens=50 chunks=3]]", stream=stream) == 200
    [row] = usage_limits.settled(1, user_id=user.id)
    assert (row["input_tokens"], row["output_tokens"], row["estimated"]) == (70, 50, 0)


def test_a_merge_by_a_provider_that_refuses_to_be_asked(
    usage_limits: InstalledFilter,
    user: OpenWebUIClient,
    provider: FakeProvider,
) -> None:
    """It isn't asked for usage then, and the merge comes all the same."""
    text = f"asked not {next(COUNTER)}"
    rule = provider.script(contains=text, refuse="stream_options")
    try:
        assert merge(user, text, model="fake-llm-free", stream=True) == 200
    finally:
        provider.rules.remove(rule)
    [row] = usage_limits.settled(1, user_id=user.id)
    assert (row["state"], row["estimated"]) == ("settled", 1)


@pytest.mark.parametrize("wait", [0.0, 1.5])
def test_a_merge_whose_client_leaves(
    usage_limits: InstalledFilter, user: OpenWebUIClient, provider: FakeProvider, wait: float
) -> None:
    """Whoever leaves a stream before it begins, or in its midst, has used its prompt at least."""
    text = f"left {next(COUNTER)} {'word ' * 500} [[wait={wait} chunks=40 delay=0.1]]"
    asked = {"model": CHEAP, "prompt": text, "responses": ["a", "b"], "stream": True}
    with (
        suppress(httpx.ReadTimeout),
        user.http.stream("POST", MERGE, json=asked, timeout=1) as response,
    ):
        next(response.iter_bytes())
    assert calls(provider, text) == [CHEAP]
    [row] = usage_limits.settled(1, user_id=user.id)
    assert (row["state"], row["estimated"]) == ("settled", 1)
    assert row["input_tokens"] > 500 >= row["output_tokens"] > 0


ODD_MERGES: dict[str, dict[str, Any]] = {
    "stream list": {"stream": [1]},
    "prompt huge": {"prompt": "word " * 400_000},
    "prompt list": {"prompt": ["x"]},
    "responses huge": {"responses": ["word " * 100_000] * 4},
    "responses numbers": {"responses": [1, None]},
    "responses text": {"responses": "x" * 1000},
    "responses missing": {"responses": None},
    "model list": {"model": [CHEAP]},
    "chat_id": {"chat_id": ["x" * 100_000]},
    "metadata": {"metadata": {"task": "", "usage_limits": 1}, "task": "x"},
    "direct": {"model_item": {"direct": True, "id": CHEAP}, "direct": True},
    "options": {"stream": True, "stream_options": {"include_usage": False}, "n": 10**400},
}


@pytest.mark.parametrize("name", ODD_MERGES)
def test_odd_merges(
    usage_limits: InstalledFilter, user: OpenWebUIClient, provider: FakeProvider, name: str
) -> None:
    """Whatever a merge is asked with, the first is on record if it is answered, and is the last."""
    usage_limits.configure(daily_token_limit=100)
    before = len(provider.call_log.calls(tasks=True))
    for _ in range(3):
        merge(user, f"{user.id} [[in=40 tokens=60]]", **ODD_MERGES[name])
    answered = [call for call in provider.call_log.calls(tasks=True)[before:] if call.status == 200]
    rows = usage_limits.settled(len(answered), user_id=user.id)
    rows = [row for row in rows if row["state"] == "settled"]
    assert len(answered) == len(rows) <= 1
    assert [(row["input_tokens"], row["output_tokens"], row["estimated"]) for row in rows] == [
        (call.prompt_tokens, call.completion_tokens, 0) for call in answered
    ]


class Builder:
    """A user who may make models, as the workspace permission lets them."""

    def __init__(self, user: OpenWebUIClient) -> None:
        self.user = user
        self.made: list[str] = []

    def build(self, base: str, name: str = "", *, listed: bool = True, **more: Any) -> str:
        """Make a custom model, or change it; it says so to nobody where it isn't to be listed."""
        path = "model/update" if name else "create"
        if not name:
            name = f"built-{next(COUNTER)}"
            self.made.append(name)
        form = {"id": name, "name": name, "base_model_id": base, "params": {}, "meta": {}, **more}
        self.user.post(f"/api/v1/models/{path}", {**form, "access_grants": []})
        if listed:
            self.user.models()
        return name


@pytest.fixture
def builder(admin: OpenWebUIAdmin, make_user: MakeUser) -> Iterator[Builder]:
    """A user who may make models; they are taken away after the test."""
    name = f"Builders {next(COUNTER)}"
    made = Builder(make_user(groups=[name]))
    rights = {"permissions": {"workspace": {"models": True}}, "name": name, "description": ""}
    admin.post(f"/api/v1/groups/id/{admin.groups()[name]}/update", rights)
    yield made
    for model in made.made:
        admin.delete_model(model)


@pytest.fixture
def arena(admin: OpenWebUIAdmin) -> Iterator[None]:
    """Open WebUI's own arena model, open to all."""
    admin.post("/api/v1/evaluations/config", {"ENABLE_EVALUATION_ARENA_MODELS": True})
    admin.models()
    admin.set_model(ARENA)
    yield
    admin.delete_model(ARENA)
    admin.post("/api/v1/evaluations/config", {"ENABLE_EVALUATION_ARENA_MODELS": False})


def test_a_users_own_model_gets_no_table(
    usage_limits: InstalledFilter, builder: Builder, provider: FakeProvider
) -> None:
    """An id that the policies name makes nothing cheaper where a user has taken it."""
    taken = f"gone-{next(COUNTER)}"
    builder.made.append(taken)
    form = {"id": taken, "name": taken, "base_model_id": CLOSED, "params": {}, "meta": {}}
    builder.user.post("/api/v1/models/create", {**form, "access_grants": []})
    builder.user.models()
    usage_limits.configure(
        policies=f'[role.user]\nlimits = ["100 tokens/day"]\n[model."{taken}"]\nweight = 0'
    )
    asked = [builder.user.chat("[[in=40 tokens=60]]", model=taken).status for _ in range(2)]
    assert asked == [200, 429]


FALLBACKS: tuple[dict[str, Any], ...] = (
    {"models": [CLOSED]},
    {"fallbacks": [CLOSED]},
    {"context_window_fallbacks": [{CHEAP: [CLOSED]}], "models": None},
    {"mock_testing_fallbacks": True},
)


@pytest.mark.parametrize("fallback", FALLBACKS)
def test_no_client_names_models_to_fall_back_to(
    usage_limits: InstalledFilter,
    admin: OpenWebUIAdmin,
    builder: Builder,
    provider: FakeProvider,
    fallback: dict[str, Any],
) -> None:
    """A provider might answer with a dear one for a free one; administrators may let it."""
    usage_limits.configure(policies=POLICIES)
    text, user = f"fall back {next(COUNTER)}", builder.user
    mine = builder.build(CHEAP, params={"custom_params": fallback})
    for reply in (
        user.chat(text, **fallback),
        user.chat(text, path="/openai/chat/completions", stream=True, **fallback),
        user.chat(text, path="/openai/responses", input=text, **fallback),
        user.chat(text, model=mine),
    ):
        assert reply.status == 400
        assert "can't be counted" in reply.error
    assert calls(provider, text) == []
    theirs = f"theirs-{next(COUNTER)}"
    written = {name: json.dumps(value) for name, value in fallback.items()}
    admin.set_model(theirs, base_model_id=CHEAP, params={"custom_params": written})
    try:
        assert user.chat(text, model=theirs).status == 200
        # Under the settings' own names they would replace it before the filters until 0.11.4.
        assert user.chat(text, model=theirs, **fallback, more_fallbacks=["x"]).status == 400
    finally:
        admin.delete_model(theirs)


def test_a_base_that_its_user_has_changed(
    usage_limits: InstalledFilter, builder: Builder, provider: FakeProvider
) -> None:
    """A custom model counts as the base that it has now, whatever Open WebUI's list still says."""
    usage_limits.configure(policies=POLICIES)
    model = builder.build(CHEAP)
    assert builder.user.chat(model, model=model).status == 200
    builder.build(CLOSED, model, listed=False)
    assert builder.user.chat(model, model=model).status == 429
    assert merge(builder.user, model, model=model) == 429
    assert calls(provider, model) == [CHEAP]


def test_a_base_that_changes_behind_the_filter(
    usage_limits: InstalledFilter, admin: OpenWebUIAdmin, builder: Builder, provider: FakeProvider
) -> None:
    """What is called is the base that was admitted, also if its user changes it before the call."""
    usage_limits.configure(policies=POLICIES)
    model = builder.build(CHEAP)
    admin.install_function("slow", SLOW_FILTER)
    admin.switch_function("slow", active=True, everywhere=True)
    try:
        with ThreadPoolExecutor(1) as threads:
            running = threads.submit(builder.user.chat, f"slowly {model}", model=model)
            wait_until(lambda: len(usage_limits.rows(user_id=builder.user.id)) == 1)
            builder.build(CLOSED, model, listed=False)
            assert running.result().status == 200
    finally:
        admin.delete_function("slow")
    assert calls(provider, model) == [CHEAP]
    [row] = usage_limits.settled(1, user_id=builder.user.id)
    assert row["model_names"] == f"|{model}|{CHEAP}|"


@pytest.mark.parametrize("stream", [True, False])
def test_an_arena_inside_of_another(
    usage_limits: InstalledFilter,
    builder: Builder,
    provider: FakeProvider,
    arena: None,
    stream: bool,
) -> None:
    """Of a model that Open WebUI would choose behind the filter nobody knows what it costs."""
    usage_limits.configure(policies=POLICIES)
    inner = builder.build(ARENA, meta={"model_ids": [CLOSED]})
    outer = builder.build(ARENA, meta={"model_ids": [inner]})
    text = f"inside {outer}"
    assert builder.user.chat(text, model=inner, stream=stream).status == 429
    refused = builder.user.chat(text, model=outer, stream=stream)
    assert (refused.status, "Choose a model" in refused.error) == (400, True)
    assert merge(builder.user, text, model=outer, stream=stream) == 429
    assert calls(provider, text) == []
    usage_limits.configure(policies=POLICIES, shadow_mode=True)
    assert builder.user.chat(text, model=outer, stream=stream).status == 200


@pytest.mark.parametrize("stream", [True, False])
def test_a_merge_by_an_arena(
    usage_limits: InstalledFilter,
    builder: Builder,
    provider: FakeProvider,
    arena: None,
    stream: bool,
) -> None:
    """A task for an arena model counts as the model that was chosen, and as the arena."""
    usage_limits.configure(policies=POLICIES)
    closed = builder.build(ARENA, meta={"model_ids": [CLOSED]})
    text = f"chosen {closed} [[in=11 tokens=7]]"
    assert merge(builder.user, text, model=closed, stream=stream) == 429
    assert calls(provider, text) == []
    cheap = builder.build(ARENA, meta={"model_ids": [CHEAP]})
    assert merge(builder.user, text, model=cheap, stream=stream) == 200
    [row] = usage_limits.settled(1, user_id=builder.user.id)
    assert (row["model_names"], row["input_tokens"], row["output_tokens"]) == (
        f"|{CHEAP}|{cheap}|",
        11,
        7,
    )
    usage_limits.configure(policies=f'[role.user]\nlimits = ["0 tokens/day on {cheap}"]')
    assert merge(builder.user, text, model=cheap, stream=stream) == 429


def by_chat(user: OpenWebUIClient, text: str, model: str) -> int:
    return user.chat(text, model=model).status


def by_merge(user: OpenWebUIClient, text: str, model: str) -> int:
    return merge(user, text, model=model)


@pytest.mark.parametrize("ask", [by_chat, by_merge])
@pytest.mark.parametrize(
    ("params", "most"),
    [
        ({"max_tokens": 5000}, 300),
        ({"max_completion_tokens": 5000}, 300),
        ({"max_completion_tokens": 20}, 20),
        ({"custom_params": {"max_completion_tokens": "5000", "n": "50"}}, 6),
        ({"n": 50}, 6),
    ],
)
def test_lengths_that_a_model_asks_for(
    usage_limits: InstalledFilter,
    builder: Builder,
    provider: FakeProvider,
    ask: Callable[[OpenWebUIClient, str, str], int],
    params: dict[str, Any],
    most: int,
) -> None:
    """What stands in a custom model's settings asks for no longer answer than its user may have."""
    usage_limits.configure(policies='[role.user]\nlimits = ["300 output tokens/request"]')
    model = builder.build(CHEAP, params=params)
    ask(builder.user, model, model)
    asked = [call.max_tokens for call in provider.call_log.calls(contains=model, tasks=True)]
    assert asked == [most]


@pytest.mark.parametrize("ask", [by_chat, by_merge])
@pytest.mark.parametrize(
    "params",
    [
        {"custom_params": {"model": CLOSED}},
        {"custom_params": {"stream_options": '{"include_usage": false}', "stream": "false"}},
        {"custom_params": {"messages": '[{"role": "user", "content": "another"}]'}},
    ],
)
def test_settings_of_a_model_replace_nothing(
    usage_limits: InstalledFilter,
    builder: Builder,
    provider: FakeProvider,
    ask: Callable[[OpenWebUIClient, str, str], int],
    params: dict[str, Any],
) -> None:
    """What a request was admitted with is what is called, whatever a custom model's owner says."""
    usage_limits.configure(policies=f'[role.user]\nlimits = ["0 tokens/day on {CLOSED}"]')
    model = builder.build(CHEAP, params=params)
    before = len(provider.call_log.calls(tasks=True))
    answer = ask(builder.user, f"{model} [[in=11 tokens=7]]", model)
    called = provider.call_log.calls(tasks=True)[before:]
    # Before 0.11.4 a chat has them before it is admitted: then another model is refused.
    assert [call.model for call in called] == ([] if answer == 429 else [CHEAP])
    rows = usage_limits.settled(len(called), user_id=builder.user.id)
    assert [
        (row["input_tokens"], row["output_tokens"], row["estimated"])
        for row in rows
        if row["state"] == "settled"
    ] == [(call.prompt_tokens, call.completion_tokens, 0) for call in called]
