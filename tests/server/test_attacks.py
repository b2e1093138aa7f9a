"""Users who lie to the filter, in a real Open WebUI: no request slips past, none is free."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest

from helpers.metering.estimates import estimate_prompt
from scripts.openwebui.admin import OpenWebUIAdmin
from scripts.openwebui.client import ApiReply, OpenWebUIClient
from scripts.openwebui.page import Page
from scripts.postgresql import new_postgresql_database
from scripts.provider.server import FakeProvider
from tests.conftest import InstalledFilter, OpenPage, StartServer

pytest_plugins = ["tests.support.databases"]

# Each call costs as much as the whole limit: a second one that passes has slipped through.
HUNGRY = "[[in=40 tokens=60]]"
LIMIT = 100


@dataclass(frozen=True, slots=True)
class Target:
    """A server with the filter on, on one of the databases."""

    admin: OpenWebUIAdmin
    usage_limits: InstalledFilter

    def new_user(self, name: str) -> OpenWebUIClient:
        return self.admin.add_user(name, f"{uuid4().hex[:12]}@example.org")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def target(request: pytest.FixtureRequest, start_server: StartServer) -> Iterator[Target]:
    """A server of its own on each database."""
    with ExitStack() as stack:
        env = {}
        if request.param == "postgresql":
            url = request.getfixturevalue("postgresql_url")
            env["DATABASE_URL"] = stack.enter_context(new_postgresql_database(url))
        own = start_server(**env)
        stack.callback(own.server.stop)
        own.usage_limits.configure(daily_token_limit=LIMIT)
        yield Target(own.admin, own.usage_limits)


def assert_held(
    provider: FakeProvider, usage_limits: InstalledFilter, user: OpenWebUIClient
) -> None:
    """The provider has answered at most one of the user's calls, and it is on record."""
    # Who claims a session is answered before the model is asked.
    rows = usage_limits.settled(1, user_id=user.id)
    calls = provider.call_log.calls(contains=user.id)
    assert len(calls) == 1
    charged = [row["input_tokens"] + row["output_tokens"] for row in rows]
    assert charged == [LIMIT] * len(calls)


HUGE = "x" * 5_000_000
ODD_BODIES: dict[str, dict[str, Any]] = {
    "surrogate in chat_id": {"chat_id": "local:\ud800"},
    "surrogate in id": {"chat_id": "local:a", "id": "\udfff", "session_id": "s"},
    "NUL in chat_id": {"chat_id": "local:\0"},
    "NUL in id": {"chat_id": "local:a", "id": "a\0b"},
    "huge chat_id": {"chat_id": f"local:{HUGE}"},
    "stream_options text": {"stream_options": "x", "stream": True},
    "stream_options number": {"stream_options": 5, "stream": True},
    "stream_options list": {"stream_options": [{"include_usage": False}], "stream": True},
    "automation": {"automation_id": "x"},
    "automation with tools": {"automation_id": "x", "tools": [{"type": "function"}]},
    "variables": {"variables": {"{{USER_LANGUAGE}}": "\ud800" * 1000}},
    "n": {"n": [10**30]},
    "max_tokens": {"max_tokens": 1, "max_completion_tokens": 5_000},
    "options": {"options": {"num_predict": 1}},
    "metadata": {"metadata": {"usage_limits": None, "direct": True}, "direct": True},
}


@pytest.mark.parametrize("name", ODD_BODIES)
def test_odd_bodies_pass_no_limit(target: Target, provider: FakeProvider, name: str) -> None:
    """Whatever stands in a request beside its messages, its user gets one reply and no more."""
    user = target.new_user("Odd")
    body = {"stream": False, **ODD_BODIES[name]}
    for _ in range(3):
        post_raw(user, f"{user.id} {HUNGRY}", body)
    assert_held(provider, target.usage_limits, user)
    # The next honest call is judged by what is on record.
    statuses = [user.chat(HUNGRY).status for _ in range(2)]
    assert statuses[-1] == 429
    user.close()


def post_raw(user: OpenWebUIClient, text: str, body: dict[str, Any]) -> ApiReply:
    """A chat whose JSON may hold lone surrogates, which httpx refuses to write."""
    whole = {"model": "fake-llm", "messages": [{"role": "user", "content": text}], **body}
    response = user.http.post(
        "/api/chat/completions",
        content=json.dumps(whole).encode(),
        headers={"Content-Type": "application/json"},
    )
    return ApiReply(response.status_code, response.headers)


def test_texts_are_stored_cut(target: Target) -> None:
    """Ids of megabytes are cut before they are stored."""
    user = target.new_user("Long")
    post_raw(user, HUNGRY, {"chat_id": f"local:{HUGE}"})
    rows = target.usage_limits.rows(user_id=user.id)
    assert all(len(row["chat_id"]) <= 200 for row in rows)
    user.close()


@pytest.mark.parametrize("template", ["{used:,} of {limit:,}", "{used.x}", "{limit!r:>99}", "{"])
def test_bad_templates_are_refused(usage_limits: InstalledFilter, template: str) -> None:
    """A template that can't be shown isn't saved."""
    for name in ("limit_message", "warning_message"):
        with pytest.raises(Exception, match="400"):
            usage_limits.configure(**{name: template})


ANSWERS: dict[str, tuple[str, dict[str, Any]]] = {
    "tool calls": ("[[tool=get_time in=40 tokens=60]]", {"automation_id": "x"}),
    "functions": (
        """[[in=40 tokens=60 raw_message='{"content":null,"function_call":"""
        """{"name":"f","arguments":"{}"}}']]""",
        {"functions": [{"name": "f", "parameters": {}}]},
    ),
    "reasoning": (
        """[[in=40 tokens=60 raw_message='{"content":"","reasoning_content":"Hm."}']]""",
        {},
    ),
    "nothing": ("""[[in=40 tokens=60 raw_message='{"content":""}']]""", {}),
}


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("usage", ["asked", "none"])
def test_answers_without_text_are_charged(
    usage_limits: InstalledFilter,
    user: OpenWebUIClient,
    provider: FakeProvider,
    kind: str,
    usage: str,
) -> None:
    """An answer that no outlet sees is charged what was reported, else its estimate."""
    usage_limits.configure(daily_token_limit=LIMIT)
    text, body = ANSWERS[kind]
    text = f"{user.id} " + text.replace("[[", f"[[usage={usage} ")
    replies = [user.chat(text, **body) for _ in range(12 if usage == "none" else 3)]
    assert replies[0].status == 200
    if usage == "asked":
        assert_held(provider, usage_limits, user)
        return
    assert replies[-1].status == 429
    first = usage_limits.settled(1, user_id=user.id)[0]
    assert (first["state"], first["estimated"]) == ("settled", 1)
    assert first["input_tokens"] >= estimate_prompt({"messages": [{"role": "u", "content": text}]})
    # Of an empty answer nobody knows more than the prompt.
    assert first["output_tokens"] > 0 or kind == "nothing"


def test_chat_deleted_while_the_model_works(
    usage_limits: InstalledFilter,
    user: OpenWebUIClient,
    page: Page,
    provider: FakeProvider,
) -> None:
    """A reply whose chat is gone when it comes is charged all the same."""
    turn = page.send("Away [[in=40 tokens=60 wait=1]]", wait=False, stream=False)
    page.wait_for(lambda: bool(provider.call_log.calls(contains="Away")))
    user.delete_chat(turn.chat_id)
    row = usage_limits.settled(1, user_id=user.id)[0]
    assert (row["input_tokens"], row["output_tokens"], row["state"]) == (40, 60, "settled")


def test_include_usage_cannot_be_turned_off(
    usage_limits: InstalledFilter, user: OpenWebUIClient, provider: FakeProvider
) -> None:
    """A client that doesn't want usage to be reported gets it reported."""
    for options in ({"include_usage": False}, {"include_usage": None}, None):
        text = "Hide it [[reasoning=3 in=20 tokens=5000]]"
        assert user.chat(text, stream=True, stream_options=options).status == 200
    rows = usage_limits.settled(3, user_id=user.id)
    assert [row["output_tokens"] for row in rows] == [5000] * 3
    assert all(call.asked_usage for call in provider.call_log.calls(contains="Hide it"))


@pytest.mark.parametrize("stream", [True, False])
def test_usage_in_a_saved_message_is_not_this_calls(
    usage_limits: InstalledFilter, user: OpenWebUIClient, page: Page, stream: bool
) -> None:
    """Usage that a user has saved into a chat beforehand charges nothing and hides nothing."""
    turn = page.send("First [[in=20 tokens=30]]")
    usage_limits.settled(1, user_id=user.id)
    chat = user.saved_chat(turn.chat_id)["chat"]
    chat["history"]["messages"][turn.reply.message_id]["usage"] = {
        "prompt_tokens": 1,
        "completion_tokens": 1,
        "input_tokens": 1,
        "output_tokens": 1,
    }
    user.post(f"/api/v1/chats/{turn.chat_id}", {"chat": chat})
    page.continue_reply(turn, stream=stream)
    rows = usage_limits.settled(2, user_id=user.id)
    assert [(row["input_tokens"], row["output_tokens"]) for row in rows] == [(20, 30)] * 2


def test_honest_continue_that_is_not_streamed(
    usage_limits: InstalledFilter, user: OpenWebUIClient, page: Page
) -> None:
    """Continue Response is charged for its own call each time, not for those before it."""
    turn = page.send("Go on [[in=44 tokens=20]]", stream=False)
    for _ in range(2):
        page.continue_reply(turn, stream=False)
    rows = usage_limits.settled(3, user_id=user.id)
    assert [(row["input_tokens"], row["output_tokens"]) for row in rows] == [(44, 20)] * 3


def test_num_predict_means_nothing_to_openai(
    usage_limits: InstalledFilter, user: OpenWebUIClient
) -> None:
    """A parameter of Ollama's doesn't make a reservation smaller elsewhere."""
    usage_limits.configure(daily_token_limit=2_000)
    for body in ({"options": {"num_predict": 1}}, {"n": 4, "max_tokens": 200}):
        user.chat("Small [[tokens=5]]", **body)
    reserved = [row["output_tokens"] for row in usage_limits.settled(2, user_id=user.id)]
    assert reserved == [5, 5]


def test_direct_connections_count_toward_nothing(
    usage_limits: InstalledFilter, user: OpenWebUIClient, open_page: OpenPage
) -> None:
    """Usage that a browser makes up for its own provider fills nobody's pool."""
    usage_limits.configure(policies='[pool.everyone]\nlimits = ["1k tokens/day"]')
    user.http.post(
        "/api/chat/completions",
        json={
            "model": "mine",
            "model_item": {"id": "mine", "direct": True, "name": "mine"},
            "messages": [{"role": "user", "content": "x" * 100_000}],
            "session_id": "nobody",
        },
        timeout=5,
    )
    rows = usage_limits.rows(user_id=user.id)
    assert {row["source"] for row in rows} <= {"direct"}
    assert sum(row["counted"] for row in rows) == 0
    # The claim alone changes nothing where Open WebUI calls its own model.
    claim = {"model_item": {"direct": True, "id": "other"}}
    user.chat(HUNGRY, **claim)
    honest = [row for row in usage_limits.settled(user_id=user.id) if row["source"] != "direct"]
    assert all(row["counted"] for row in honest)


def test_one_request_cannot_empty_a_pool(
    usage_limits: InstalledFilter, user: OpenWebUIClient, provider: FakeProvider
) -> None:
    """A huge prompt holds of a pool what its user's own limits leave, and no more."""
    usage_limits.configure(
        policies='[role.user]\nlimits = ["500 tokens/day"]\n'
        '[pool.everyone]\nlimits = ["100k tokens/day"]'
    )
    text = f"Much {'word ' * 200_000} [[in=40 tokens=60 wait=1]]"
    user.http.timeout = 30
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(user.chat, text)
        [row] = usage_limits.wait_for_rows(lambda rows: len(rows) == 1, user_id=user.id)
        assert row["weighted_input_tokens"] + row["weighted_output_tokens"] <= 500
        assert running.result().status == 200


@pytest.mark.parametrize("zone", ["x" * 5_000_000, "Nowhere/Nothing", "\0", "../../etc/passwd"])
def test_own_time_zone_of_any_text(
    usage_limits: InstalledFilter, user: OpenWebUIClient, zone: str
) -> None:
    """A user's own time zone may be any text; refusals come all the same."""
    usage_limits.configure(daily_token_limit=1)
    user.http.post("/api/v1/auths/update/timezone", json={"timezone": zone})
    assert user.chat(HUNGRY).status == 200
    usage_limits.settled(1, user_id=user.id)
    assert user.chat(HUNGRY).status == 429


def test_a_type_hides_no_text_and_makes_no_media(
    usage_limits: InstalledFilter, user: OpenWebUIClient
) -> None:
    """A message that calls itself a picture costs its text; media beside messages cost nothing."""
    text = f"{'word ' * 20_000} [[usage=none]]"
    assert user.chat([{"role": "user", "type": "image", "content": text}]).status == 200
    assert user.chat("Hello [[usage=none]]", input=[{"type": "video"}] * 60_000).status == 200
    hidden, invented = usage_limits.settled(2, user_id=user.id)
    assert hidden["input_tokens"] >= 15_000
    assert invented["input_tokens"] < 100


def test_system_prompt_of_a_model_counts(
    usage_limits: InstalledFilter,
    admin: OpenWebUIAdmin,
    user: OpenWebUIClient,
    provider: FakeProvider,
) -> None:
    """What a custom model puts before the messages is estimated as well, as its user filled it.

    Whoever may make models could hide a document there, and leave before the usage is reported.
    """
    admin.set_model("with-prompt", base_model_id="fake-llm", params={"system": "word {{w}} " * 999})
    filled = {"variables": {"{{w}}": "and many more words"}}
    try:
        text = f"{user.id} [[chunks=60 delay=0.05]]"
        user.chat(text, model="with-prompt", stream=True, leave_after=5, **filled)
        [row] = usage_limits.settled(1, user_id=user.id)
        [call] = provider.call_log.calls(contains=user.id)
        assert row["input_tokens"] > 4_000 < call.prompt_tokens
        usage_limits.configure(policies='[role.user]\nlimits = ["4k tokens/request"]')
        assert user.chat(HUNGRY, model="with-prompt", **filled).status == 429
        assert user.chat(HUNGRY).status == 200
    finally:
        admin.delete_model("with-prompt")


def test_variables_of_a_user_count(
    usage_limits: InstalledFilter,
    admin: OpenWebUIAdmin,
    user: OpenWebUIClient,
    provider: FakeProvider,
) -> None:
    """What a user keeps in the account and a model's system prompt asks for is estimated as well.

    Filters aren't told of it, and Open WebUI puts it in behind them.
    """
    system = "Notes: {{ user.variables.notes }}"
    admin.set_model("with-notes", base_model_id="fake-llm", params={"system": system})
    notes = {"notes": "word " * 3_999}
    user.post("/api/v1/users/user/variables/update", {"variables": notes})
    usage_limits.configure(policies='[role.user]\nlimits = ["3k tokens/request"]')
    try:
        assert user.chat(f"{user.id} {HUNGRY}", model="with-notes").status == 429
        assert provider.call_log.calls(contains=user.id) == []
        assert user.chat(HUNGRY).status == 200
    finally:
        admin.delete_model("with-notes")


@pytest.mark.parametrize("choice", ["allow", "block"])
def test_fault_in_the_data_is_no_outage(
    usage_limits: InstalledFilter, user: OpenWebUIClient, choice: str
) -> None:
    """Whatever on_ledger_error says, a request too odd to be stored is cleaned, and counts."""
    usage_limits.configure(daily_token_limit=LIMIT, on_ledger_error=choice)
    for _ in range(2):
        post_raw(user, HUNGRY, {"chat_id": "local:\ud800\0"})
    [row] = usage_limits.settled(1, user_id=user.id)
    assert row["input_tokens"] + row["output_tokens"] == LIMIT
