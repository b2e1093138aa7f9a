"""Every end of a reply in a real Open WebUI: what was streamed is charged, a failure is not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from helpers.metering.estimates import estimate_tokens
from scripts.compat.hosts import REQUEST_HOOK
from scripts.openwebui.admin import OpenWebUIAdmin
from scripts.openwebui.client import OpenWebUIClient
from scripts.openwebui.page import Page
from scripts.openwebui.server import OpenWebUIServer
from scripts.provider.server import FakeProvider
from tests.commands.test_bench import CLOCK
from tests.conftest import (
    FUNCTION_FILE,
    FUNCTION_ID,
    InstalledFilter,
    OpenPage,
    Row,
    host_can,
    provider_status,
)

SLOW = "[[chunks=60 delay=0.1]]"


def only_row(usage_limits: InstalledFilter, user: OpenWebUIClient) -> Row:
    """The user's one record, once it is closed."""
    rows = usage_limits.settled(1, user_id=user.id)
    assert len(rows) == 1
    return rows[0]


def assert_charged_for(row: Row, text: str) -> None:
    """The record holds an estimate of the streamed text, and of a prompt."""
    assert (row["state"], row["estimated"]) == ("settled", 1)
    assert row["input_tokens"] > 0
    # What is seen by the page may trail what has passed the filter by a piece or two.
    assert estimate_tokens(text) <= row["output_tokens"] <= estimate_tokens(text) + 15


def test_stop_button(usage_limits: InstalledFilter, user: OpenWebUIClient, page: Page) -> None:
    """A reply that the user stops is charged for what had come."""
    turn = page.send(f"Stop {SLOW}", wait=False)
    page.wait_for(lambda: len(turn.reply.streamed) > 40)
    page.stop(turn)
    assert_charged_for(only_row(usage_limits, user), turn.reply.text)


def test_closed_tab(
    usage_limits: InstalledFilter, user: OpenWebUIClient, open_page: OpenPage
) -> None:
    """A reply whose tab is closed goes on in the server and is charged in full."""
    tab = open_page(user)
    turn = tab.send("Close [[in=20 tokens=30 chunks=15 delay=0.1]]", wait=False)
    tab.wait_for(lambda: bool(turn.reply.streamed))
    tab.close()
    row = only_row(usage_limits, user)
    assert (row["input_tokens"], row["output_tokens"], row["estimated"]) == (20, 30, 0)


@pytest.mark.parametrize("path", ["/api/chat/completions", "/api/v1/messages"])
def test_client_that_disconnects(
    usage_limits: InstalledFilter, user: OpenWebUIClient, path: str
) -> None:
    """An API client that leaves in mid-stream is charged for what had come."""
    more = {"max_tokens": 500} if path.endswith("messages") else {}
    user.chat(f"Leave {SLOW}", stream=True, leave_after=8, path=path, **more)
    row = only_row(usage_limits, user)
    assert (row["state"], row["estimated"]) == ("settled", 1)
    assert row["output_tokens"] >= 5


def test_client_that_closes_at_done(usage_limits: InstalledFilter, user: OpenWebUIClient) -> None:
    """An API client that closes as soon as it reads [DONE] is charged what was reported."""
    reply = user.chat("Done [[in=20 tokens=30 chunks=3]]", stream=True, leave_after=6)
    assert reply.chunks
    row = only_row(usage_limits, user)
    assert (row["input_tokens"], row["output_tokens"], row["estimated"]) == (20, 30, 0)


@pytest.mark.parametrize("by", ["page", "api"])
def test_provider_that_breaks_off(
    usage_limits: InstalledFilter, user: OpenWebUIClient, page: Page, by: str
) -> None:
    """A stream that the provider breaks off is charged for what had come."""
    text = "Break [[break_after=10 chunks=20]]"
    streamed = page.send(text).reply.streamed if by == "page" else user.chat(text, stream=True).text
    assert streamed
    assert_charged_for(only_row(usage_limits, user), streamed)


@pytest.mark.parametrize("status", [400, 429, 500])
@pytest.mark.parametrize("by", ["page", "api", "stream"])
def test_provider_that_fails_at_once(
    usage_limits: InstalledFilter, user: OpenWebUIClient, page: Page, by: str, status: int
) -> None:
    """A call that the provider refuses costs nothing, its request included."""
    usage_limits.configure(policies='[role.user]\nlimits = ["1 request/day"]')
    text = f"Fail [[error={status}]]"
    for _ in range(2):
        if by == "page":
            assert page.send(text).reply.error
        else:
            assert user.chat(text, stream=by == "stream").status == provider_status(status)
    rows = usage_limits.settled(2, user_id=user.id)
    assert [(row["state"], row["input_tokens"]) for row in rows] == [("released", 0)] * 2


def test_reply_without_usage_is_estimated(
    usage_limits: InstalledFilter, user: OpenWebUIClient, page: Page
) -> None:
    """Where the provider reports nothing, prompt and text are estimated."""
    reply = page.send("Nothing reported [[usage=none chunks=10]]").reply
    row = only_row(usage_limits, user)
    assert row["estimated"] == 1
    assert row["output_tokens"] == estimate_tokens(f"{reply.text} ")  # the page cuts the blank


def test_running_totals_are_not_summed(
    usage_limits: InstalledFilter, user: OpenWebUIClient, page: Page
) -> None:
    """A provider that reports running totals on every chunk is charged the last of them."""
    page.send("Running [[usage=running in=12 tokens=9 chunks=9]]")
    row = only_row(usage_limits, user)
    assert (row["input_tokens"], row["output_tokens"], row["estimated"]) == (12, 9, 0)


@pytest.fixture
def clock_tool(admin: OpenWebUIAdmin) -> str:
    """A tool that tells the time."""
    admin.install_tool("clock", CLOCK)
    return "clock"


def test_all_rounds_of_a_tool_loop_count(
    usage_limits: InstalledFilter,
    user: OpenWebUIClient,
    page: Page,
    provider: FakeProvider,
    clock_tool: str,
) -> None:
    """Three model calls in one reply are one request and the sum of their tokens."""
    text = f"Tools of {user.id} [[tool=get_time rounds=2 tokens=5 in=11]]"
    assert page.send(text, tools=[clock_tool]).reply.text
    assert len(provider.call_log.calls(contains=f"Tools of {user.id}")) == 3
    row = only_row(usage_limits, user)
    assert (row["input_tokens"], row["output_tokens"], row["estimated"]) == (33, 15, 0)


def test_next_round_is_refused_past_the_hard_limit(
    usage_limits: InstalledFilter,
    user: OpenWebUIClient,
    page: Page,
    provider: FakeProvider,
    clock_tool: str,
) -> None:
    """Once a reply has crossed a limit no further model call is made; its text stays."""
    usage_limits.configure(daily_token_limit=30)
    text = f"Rounds of {user.id} [[tool=get_time rounds=5 tokens=5 in=11]]"
    turn = page.send(text, tools=[clock_tool])
    if not host_can(REQUEST_HOOK):  # all rounds run, and all are charged
        row = only_row(usage_limits, user)
        assert (row["input_tokens"], row["output_tokens"]) == (66, 30)
        assert page.send("Once more").reply.error
        return
    assert len(provider.call_log.calls(contains=f"Rounds of {user.id}")) == 2
    assert "You've reached your limit of 30 tokens per day" in (turn.reply.error or "")
    row = only_row(usage_limits, user)
    assert (row["input_tokens"], row["output_tokens"]) == (22, 10)
    saved = user.saved_message(turn.chat_id, turn.reply.message_id)
    assert [item["type"] for item in saved["output"]].count("function_call_output") == 2


TOOLS = [{"type": "function", "function": {"name": "get_time", "parameters": {}}}]


def test_answer_of_tool_calls_alone_is_charged(
    usage_limits: InstalledFilter, user: OpenWebUIClient
) -> None:
    """A call by API that is answered by tool calls only, of which no hook hears, is exact."""
    reply = user.chat("Call it [[tool=get_time in=20 tokens=30]]", tools=TOOLS)
    assert reply.body["choices"][0]["message"]["tool_calls"]
    row = only_row(usage_limits, user)
    assert (row["input_tokens"], row["output_tokens"], row["estimated"]) == (20, 30, 0)


def test_refused_call_with_tools_costs_nothing(
    usage_limits: InstalledFilter, user: OpenWebUIClient
) -> None:
    """A call with tools that the provider refuses is told from one that was answered."""
    assert user.chat("Call it [[error=500]]", tools=TOOLS).status == provider_status(500)
    assert only_row(usage_limits, user)["state"] == "released"


@pytest.fixture(scope="module")
def server_without_outlets(
    provider: FakeProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[OpenWebUIServer, OpenWebUIAdmin, InstalledFilter]]:
    """An Open WebUI that calls no outlet for API requests, with the filter on."""
    folder = tmp_path_factory.mktemp("no-outlets")
    env = {"ENABLE_API_OUTLET_FILTERS": "false"}
    with OpenWebUIServer(provider.url, data_dir=folder, env=env) as running:
        admin = OpenWebUIAdmin.sign_up(running.url)
        admin.publish_models()
        admin.install_function(FUNCTION_ID, FUNCTION_FILE.read_text(encoding="utf-8"))
        installed = InstalledFilter(admin, running.database_path)
        installed.switch(active=True, everywhere=True)
        yield running, admin, installed
        admin.close()


def test_without_api_outlets(
    server_without_outlets: tuple[OpenWebUIServer, OpenWebUIAdmin, InstalledFilter],
) -> None:
    """With ENABLE_API_OUTLET_FILTERS=false a stream every call is charged exactly."""
    _, admin, installed = server_without_outlets
    user = admin.add_user("Ann", "ann@example.org")
    assert user.chat("Stream [[in=20 tokens=30]]", stream=True).status == 200
    row = installed.settled(1, user_id=user.id)[0]
    assert (row["input_tokens"], row["output_tokens"], row["estimated"]) == (20, 30, 0)
    assert user.chat("Whole [[in=20 tokens=30]]").status == 200
    row = installed.settled(2, user_id=user.id)[1]
    assert (row["input_tokens"], row["output_tokens"], row["estimated"]) == (20, 30, 0)
    assert user.chat("Refused [[error=429]]").status == provider_status(429)
    assert installed.settled(3, user_id=user.id)[2]["state"] == "released"
