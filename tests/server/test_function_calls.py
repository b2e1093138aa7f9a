"""Pipes and tools that call models through Open WebUI: each such call is on record, once."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from scripts.openwebui.admin import OpenWebUIAdmin
from scripts.openwebui.client import OpenWebUIClient
from scripts.provider.server import FakeProvider
from tests.conftest import InstalledFilter, MakeUser, OpenPage

COUNTER = itertools.count()
CALLED = "fake-llm-large"
PIPE = """
import asyncio
from open_webui.utils.chat import generate_chat_completion
from open_webui.models.users import Users

HANDING_ON = ("hands_on", "with_metadata", "prompted", "gathers", "drops")
CALLING = (*HANDING_ON, "asks", "twice", "as_admin", "by_main", "writes")

class Pipe:
    def pipes(self):
        return [{"id": kind, "name": kind} for kind in ("chunks", "reports", "fails", *CALLING)]

    async def pipe(self, body, __user__, __request__, __metadata__):
        kind = body["model"].partition(".")[2]
        if kind == "chunks":
            return (f"{word} " for word in "some plain words".split())
        if kind == "fails":
            raise ValueError("no such luck")
        if kind == "reports":
            said = {"role": "assistant", "content": "words"}
            usage = {"prompt_tokens": 33, "completion_tokens": 22, "total_tokens": 55}
            return {"choices": [{"index": 0, "message": said, "delta": said}], "usage": usage}
        user = await Users.get_user_by_id(__user__["id"])
        if kind == "as_admin":
            user = await Users.get_super_admin_user()
        asked = {**body, "model": "prompted" if kind == "prompted" else "fake-llm-large"}
        if kind in ("with_metadata", "prompted"):
            asked["metadata"] = __metadata__
        if kind in ("hands_on", "with_metadata", "prompted"):
            return await generate_chat_completion(__request__, asked, user)
        if kind == "drops":
            await generate_chat_completion(__request__, {**asked, "stream": True}, user)
            return "Never mind."
        if kind == "gathers":  # in a task of its own, which ends before the answer is read
            [answer] = await asyncio.gather(generate_chat_completion(__request__, asked, user))
            return answer
        asked["stream"] = False
        if kind == "by_main":
            from open_webui.main import generate_chat_completion as generate
            answer = await generate(__request__, asked, await Users.get_super_admin_user())
            return "It says: " + answer["choices"][0]["message"]["content"]
        for _ in range(2 if kind == "twice" else 1):
            answer = await generate_chat_completion(__request__, dict(asked), user)
        if kind == "writes":
            return "Words of a model that is asked past Open WebUI. " * 40
        return "It says: " + answer["choices"][0]["message"]["content"]
"""
TOOL = '''
from open_webui.utils.chat import generate_chat_completion
from open_webui.models.users import Users

class Tools:
    async def ask_model(self, __request__=None, __user__=None) -> str:
        """Ask another model."""
        user = await Users.get_user_by_id(__user__["id"])
        asked = [{"role": "user", "content": f"asked for {user.id} [[in=17 tokens=13]]"}]
        body = {"model": "fake-llm-large", "messages": asked, "stream": False}
        answer = await generate_chat_completion(__request__, body, user)
        return answer["choices"][0]["message"]["content"]
'''


@pytest.fixture(scope="module")
def manifold(admin: OpenWebUIAdmin) -> Iterator[str]:
    """A manifold of pipes, each a model of its own."""
    admin.install_function("manifold", PIPE)
    admin.switch_function("manifold", active=True)
    admin.publish_models(*(model for model in admin.models() if model.startswith("manifold.")))
    yield "manifold"
    admin.delete_function("manifold")
    admin.models()


def by_api(user: OpenWebUIClient, text: str, model: str, _: OpenPage) -> bool:
    return user.chat(text, model=model).error == ""


def by_stream(user: OpenWebUIClient, text: str, model: str, _: OpenPage) -> bool:
    return user.chat(text, model=model, stream=True).error == ""


def by_page(user: OpenWebUIClient, text: str, model: str, open_page: OpenPage) -> bool:
    return open_page(user).send(text, models=[model]).reply.error is None


def by_merge(user: OpenWebUIClient, text: str, model: str, _: OpenPage) -> bool:
    body = {"model": model, "prompt": text, "responses": ["a"], "stream": True}
    return user.http.post("/api/v1/tasks/moa/completions", json=body).is_success


Ask = Callable[[OpenWebUIClient, str, str, OpenPage], bool]
ASKED = (by_api, by_stream, by_page, by_merge)


@pytest.mark.parametrize("ask", ASKED)
@pytest.mark.parametrize(
    "kind", ["hands_on", "with_metadata", "gathers", "asks", "twice", "as_admin", "by_main"]
)
def test_what_a_pipe_calls_is_on_record_once(
    usage_limits: InstalledFilter,
    user: OpenWebUIClient,
    provider: FakeProvider,
    open_page: OpenPage,
    manifold: str,
    kind: str,
    ask: Ask,
) -> None:
    """Each call counts as its provider says, for the pipe's user, and its text no second time."""
    usage_limits.configure(daily_token_limit=1_000)
    assert ask(user, f"{user.id} [[in=70 tokens=50]]", f"{manifold}.{kind}", open_page)
    calls = provider.call_log.calls(contains=user.id, tasks=True)
    assert len(calls) == (2 if kind == "twice" else 1)
    pipe, *rows = usage_limits.settled(1 + len(calls), user_id=user.id)
    assert (pipe["model_names"], pipe["counted"], pipe["input_tokens"], pipe["output_tokens"]) == (
        f"|{manifold}.{kind}|",
        0,
        0,
        0,
    )
    assert [
        (row["model_names"], row["source"], row["counted"], row["estimated"]) for row in rows
    ] == [(f"|{CALLED}|", pipe["source"], 1, 0)] * len(calls)
    assert [(row["input_tokens"], row["output_tokens"]) for row in rows] == [(70, 50)] * len(calls)


@pytest.mark.parametrize("ask", ASKED)
def test_a_pipe_calls_no_model_over_a_limit(
    usage_limits: InstalledFilter,
    user: OpenWebUIClient,
    provider: FakeProvider,
    open_page: OpenPage,
    manifold: str,
    ask: Ask,
) -> None:
    """What a user may not use directly can't be used by way of a pipe; then the pipe itself."""
    closed = f'"0 tokens/day on {CALLED}"'
    usage_limits.configure(policies=f'[role.user]\nlimits = ["100 tokens/day", {closed}]')
    ask(user, f"{user.id} closed", f"{manifold}.asks", open_page)
    ask(user, f"{user.id} closed", f"{manifold}.hands_on", open_page)
    assert provider.call_log.calls(contains=user.id, tasks=True) == []
    usage_limits.configure(daily_token_limit=100)
    text = f"{user.id} [[in=70 tokens=50]]"
    assert ask(user, text, f"{manifold}.asks", open_page)
    usage_limits.wait_for_rows(
        lambda rows: sum(row["input_tokens"] for row in rows if row["state"] == "settled") == 70,
        user_id=user.id,
    )
    assert not ask(user, text, f"{manifold}.asks", open_page)
    assert len(provider.call_log.calls(contains=user.id, tasks=True)) == 1


@pytest.mark.parametrize("stream", [True, False])
def test_a_pipe_of_its_own(
    usage_limits: InstalledFilter,
    admin: OpenWebUIAdmin,
    user: OpenWebUIClient,
    manifold: str,
    stream: bool,
) -> None:
    """One that calls no model here counts by what it reports, else by its text; if it fails, no."""
    usage_limits.configure(daily_token_limit=1_000)
    admin.set_model("on-a-pipe", base_model_id=f"{manifold}.reports")
    for model in (f"{manifold}.chunks", "on-a-pipe", f"{manifold}.fails"):
        user.chat("Hello", model=model, stream=stream)
    admin.delete_model("on-a-pipe")
    chunks, reports, fails = usage_limits.settled(3, user_id=user.id)
    assert (chunks["estimated"], chunks["output_tokens"] in range(2, 9)) == (1, True)
    assert (reports["input_tokens"], reports["output_tokens"], reports["estimated"]) == (33, 22, 0)
    assert reports["model_names"] == f"|on-a-pipe|{manifold}.reports|"
    assert (fails["state"], fails["input_tokens"]) == ("released", 0)


@pytest.mark.parametrize("stream", [True, False])
def test_a_pipe_that_asks_a_little_and_writes_more(
    usage_limits: InstalledFilter, user: OpenWebUIClient, manifold: str, stream: bool
) -> None:
    """A small call doesn't pay for a long text of the pipe's own: that is estimated."""
    usage_limits.configure(daily_token_limit=1_000)
    user.chat("[[in=17 tokens=13]]", model=f"{manifold}.writes", stream=stream)
    pipe, row = usage_limits.settled(2, user_id=user.id)
    assert (row["input_tokens"], row["output_tokens"], row["estimated"]) == (17, 13, 0)
    assert (pipe["counted"], pipe["estimated"]) == (1, 1)
    assert 300 < pipe["output_tokens"] < 600


@pytest.mark.parametrize("ask", ASKED)
@pytest.mark.parametrize("kind", ["hands_on", "asks"])
def test_a_pipe_calls_with_what_remains(
    usage_limits: InstalledFilter,
    user: OpenWebUIClient,
    provider: FakeProvider,
    open_page: OpenPage,
    manifold: str,
    kind: str,
    ask: Ask,
) -> None:
    """What a capped request holds is there for the call that is made for it, all but its prompt."""
    usage_limits.configure(daily_token_limit=1_000, cap_max_tokens=True)
    assert ask(user, f"{user.id} [[in=70 tokens=50]]", f"{manifold}.{kind}", open_page)
    [call] = provider.call_log.calls(contains=user.id, tasks=True)
    assert call.max_tokens is not None
    assert 800 < call.max_tokens < 1_000


@pytest.mark.parametrize("ask", [by_stream, by_page])
def test_a_pipe_stops_where_its_call_does(
    usage_limits: InstalledFilter,
    user: OpenWebUIClient,
    open_page: OpenPage,
    manifold: str,
    ask: Ask,
) -> None:
    """Of a limit that ends replies a pipe and what it hands on together have the whole."""
    usage_limits.configure(
        running_replies="stop", policies='[role.user]\nlimits = ["800 output tokens/day"]'
    )
    ask(user, "[[usage=none chunks=1200 delay=0.002]]", f"{manifold}.hands_on", open_page)
    pipe, row = usage_limits.settled(2, user_id=user.id)
    assert pipe["output_tokens"] == 0
    assert 700 < row["output_tokens"] <= 1.02 * 800


def test_an_answer_that_nobody_reads(
    usage_limits: InstalledFilter, user: OpenWebUIClient, manifold: str
) -> None:
    """A stream that a pipe asks for and doesn't read has cost its prompt, and counts as unseen."""
    usage_limits.configure(daily_token_limit=1_000)
    user.chat("Hello", model=f"{manifold}.drops")
    pipe, row = usage_limits.settled(2, user_id=user.id)
    assert (pipe["state"], row["state"], row["estimated"]) == ("settled", "settled", 1)
    assert row["input_tokens"] > 0 < row["output_tokens"]


def test_variables_of_a_chat_count_in_a_call(
    usage_limits: InstalledFilter,
    admin: OpenWebUIAdmin,
    user: OpenWebUIClient,
    provider: FakeProvider,
    manifold: str,
) -> None:
    """A call with a chat's metadata has the called model's system prompt filled from there."""
    system = {"system": "word {{w}} " * 999}
    admin.set_model("prompted", base_model_id=CALLED, params=system)
    try:
        text, model = f"{user.id} [[usage=none]]", f"{manifold}.prompted"
        user.chat(text, model=model, stream=True, variables={"{{w}}": "and many more words"})
        _, row = usage_limits.settled(2, user_id=user.id)
    finally:
        admin.delete_model("prompted")
    [call] = provider.call_log.calls(contains=user.id)
    assert row["input_tokens"] > 4_000 < call.prompt_tokens


def test_a_pipe_that_is_left(
    usage_limits: InstalledFilter, user: OpenWebUIClient, provider: FakeProvider, manifold: str
) -> None:
    """Whoever leaves a stream that a pipe hands on has used what had come of it, once."""
    usage_limits.configure(daily_token_limit=1_000)
    text = f"{user.id} [[in=70 tokens=50 chunks=50 delay=0.05]]"
    user.chat(text, model=f"{manifold}.hands_on", stream=True, leave_after=5)
    pipe, row = usage_limits.settled(2, user_id=user.id)
    assert (pipe["input_tokens"], pipe["output_tokens"], pipe["counted"]) == (0, 0, 0)
    assert (row["model_names"], row["output_tokens"] in range(3, 20)) == (f"|{CALLED}|", True)


def test_where_the_filter_is_on_for_the_called_model_only(
    usage_limits: InstalledFilter, admin: OpenWebUIAdmin, user: OpenWebUIClient, manifold: str
) -> None:
    """What a pipe calls is on record where the filter is on for it, though not for the pipe."""
    usage_limits.switch(everywhere=False)
    admin.set_model(CALLED, filter_ids=[usage_limits.id])
    try:
        user.chat("[[in=70 tokens=50]]", model=f"{manifold}.asks")
        [row] = usage_limits.settled(1, user_id=user.id)
    finally:
        admin.set_model(CALLED)
    assert (row["model_names"], row["input_tokens"], row["output_tokens"]) == (
        f"|{CALLED}|",
        70,
        50,
    )


def test_what_a_tool_asks_counts_beside_its_reply(
    usage_limits: InstalledFilter,
    admin: OpenWebUIAdmin,
    make_user: MakeUser,
    open_page: OpenPage,
    provider: FakeProvider,
) -> None:
    """A tool's own call of a model is a record beside the reply's; over its limit it gets none."""
    admin.install_tool("asker", TOOL)
    user = make_user()
    text = f"tools of {user.id} [[tool=ask_model tokens=5 in=11]]"
    assert open_page(user).send(text, tools=["asker"]).reply.text
    rows: list[dict[str, Any]] = usage_limits.settled(2, user_id=user.id)
    assert sorted(
        (row["model_names"], row["source"], row["input_tokens"], row["output_tokens"])
        for row in rows
    ) == [(f"|{CALLED}|", "page", 17, 13), ("|fake-llm|", "page", 22, 10)]
    usage_limits.configure(policies=f'[role.user]\nlimits = ["0 tokens/day on {CALLED}"]')
    other = make_user()
    open_page(other).send(f"tools of {other.id} [[tool=ask_model]]", tools=["asker"])
    assert provider.call_log.calls(contains=f"asked for {other.id}") == []


@pytest.mark.parametrize("policy", ["1000 tokens/day", "1 request at once"])
@pytest.mark.parametrize("calling", ["native", "legacy"])
def test_a_tools_call_gets_what_its_reply_holds(
    usage_limits: InstalledFilter,
    admin: OpenWebUIAdmin,
    make_user: MakeUser,
    open_page: OpenPage,
    provider: FakeProvider,
    policy: str,
    calling: str,
) -> None:
    """A running reply's own hold doesn't keep its model from choosing tools, nor these from theirs.

    With `legacy` Open WebUI asks for the tools to call in a task before the reply.
    """
    usage_limits.configure(policies=f'[role.user]\nlimits = ["{policy}"]', cap_max_tokens=True)
    admin.install_tool("asker", TOOL)
    user = make_user()
    text = f"tools of {user.id} [[tool=ask_model tokens=5 in=11]]"
    chosen = '{"name": "ask_model", "parameters": {}}'
    if calling == "legacy":
        text = f"tools of {user.id} [[tokens=5 in=11]]"
        rule = provider.script(contains=f"Query: {text}", reply=chosen)
    try:
        params = {"function_calling": calling}
        assert open_page(user).send(text, tools=["asker"], params=params).reply.text
    finally:
        if calling == "legacy":
            provider.rules.remove(rule)
    calls = provider.call_log.calls(contains=user.id, tasks=True)
    own = [call for call in calls if "asked for" in call.text]
    assert (len(own), len(calls)) == (1, 3)
    most = [call.max_tokens for call in calls]
    assert most == [None] * 3 or all(each is not None and each > 500 for each in most)


def test_calls_within_replies_are_no_way_past_a_limit(
    usage_limits: InstalledFilter,
    admin: OpenWebUIAdmin,
    make_user: MakeUser,
    provider: FakeProvider,
) -> None:
    """What replies with long prompts hold they hold while their tools are chosen by a short one."""
    usage_limits.configure(daily_token_limit=3_000)
    admin.install_tool("asker", TOOL)
    user = make_user()
    long, *short = (
        {"role": role, "content": text}
        for role, text in [
            ("user", "word " * 1_000),
            *[("assistant", "Yes."), ("user", "Go on.")] * 3,
            ("assistant", "Yes."),
            ("user", f"many of {user.id} [[tokens=20 wait=2]]"),
        ]
    )
    more = {"tool_ids": ["asker"], "params": {"function_calling": "legacy"}}
    with ThreadPoolExecutor(8) as threads:
        asked = []
        for _ in range(8):  # each while the one before chooses its tools
            asked.append(threads.submit(user.chat, [long, *short], **more))
            time.sleep(0.2)
        statuses = [one.result().status for one in asked]
    calls = provider.call_log.calls(contains=f"many of {user.id}", tasks=True)
    used = sum(call.total_tokens for call in calls if call.status == 200)
    assert 200 in statuses
    assert used <= 3_000 + max(call.total_tokens for call in calls)
