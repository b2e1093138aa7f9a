"""The test bench itself: a real Open WebUI, its chat page and its API, the provider's call log."""

from collections.abc import Iterator

import pytest

from scripts.openwebui.admin import OpenWebUIAdmin
from scripts.openwebui.client import HostError, OpenWebUIClient
from scripts.openwebui.page import Page
from scripts.provider.calls import Call
from scripts.provider.directives import Directive, background_task, parse_directive
from scripts.provider.server import FakeProvider
from tests.conftest import MakeUser

CLOCK = '''
class Tools:
    def get_time(self) -> str:
        """
        Tell the time.
        """
        return "twelve o'clock"
'''

# A filter that says what it saw and refuses on demand.
PROBE = '''"""
title: Probe
version: 1.0
"""
from pydantic import BaseModel


class Filter:
    class Valves(BaseModel):
        refuse: str = "nothing"

    def __init__(self):
        self.valves = self.Valves()

    async def inlet(self, body, __event_emitter__=None):
        if self.valves.refuse in body["messages"][-1]["content"]:
            raise Exception("The probe refuses this.")
        await __event_emitter__(
            {"type": "notification", "data": {"type": "warning", "content": "The probe warns."}}
        )
        await __event_emitter__(
            {"type": "status", "data": {"description": "The probe was here.", "done": True}}
        )
        return body
'''


@pytest.fixture
def probe(admin: OpenWebUIAdmin) -> Iterator[str]:
    """A filter on for all models, which refuses what says "forbidden"."""
    admin.install_function("probe", PROBE)
    admin.set_valves("probe", {"refuse": "forbidden"})
    admin.switch_function("probe", active=True, everywhere=True)
    yield "probe"
    admin.delete_function("probe")


def only_call(provider: FakeProvider, text: str) -> Call:
    """The one call whose last user message has this text, once it has ended."""
    (call,) = provider.call_log.wait_until_ended(contains=text)
    return call


def test_directives_are_read_from_the_text() -> None:
    """A marker in a message changes what it names and leaves the rest; a typo is an error."""
    told = parse_directive('Hi [[tokens=7 in=12 reply="two words"]] and [[delay=0.5]]', Directive())
    assert told == Directive(tokens=7, prompt=12, reply="two words", delay=0.5)
    assert parse_directive("no directive [[here]]", Directive(chunks=9)) == Directive(chunks=9)
    with pytest.raises(ValueError, match="unknown directive 'token'; allowed are: args,"):
        parse_directive("[[token=7]]", Directive())
    with pytest.raises(ValueError, match="directive usage='some'; allowed are: asked, final,"):
        parse_directive("[[usage=some]]", Directive())
    with pytest.raises(ValueError, match="directive tokens='x'"):
        parse_directive("[[tokens=x]]", Directive())


def test_background_tasks_are_told_from_chats() -> None:
    """The host's own prompts are recognised; retrieval's, which begins alike, is a user's chat."""
    assert background_task("### Task:\nGenerate a concise title summarizing the chat.") == "title"
    assert background_task("### Task:\nRespond to the user query using the context.") is None
    assert background_task("Generate a poem") is None


def test_page_chat_streams_and_the_books_agree(page: Page, provider: FakeProvider) -> None:
    """A message from the page streams its reply; its usage is what the provider wrote down."""
    turn = page.send("Page chat [[chunks=6 tokens=9 in=30 usage=final]]")
    assert turn.reply.text == turn.reply.streamed.strip() == "The fake-llm answers with plain words"
    assert turn.reply.usage is not None
    assert turn.reply.usage["total_tokens"] == 39
    call = only_call(provider, "Page chat")
    assert (call.prompt_tokens, call.completion_tokens, call.chunks_sent) == (30, 9, 6)
    assert call.finished
    assert not call.client_gone
    saved = page.client.saved_message(turn.chat_id, turn.reply.message_id)
    assert saved["usage"]["output_tokens"] == 9


def test_page_conversation(page: Page, provider: FakeProvider) -> None:
    """Follow-up, regenerate, continue, several models at once: each is a call with its history."""
    first = page.send("Conversation, first")
    second = page.send("Conversation, second", after=first)
    again = page.regenerate(second)
    assert again.reply.message_id != second.reply.message_id
    longer = page.continue_reply(again)
    assert longer.reply.text.startswith(f"{again.reply.text}The fake-llm")
    both = page.send("Conversation, both", models=["fake-llm", "fake-llm-large"], after=longer)
    assert [reply.text for reply in both.replies] == ["The fake-llm answers with"] * 2
    calls = provider.call_log.calls(contains="Conversation")
    prompts = [call.prompt_tokens for call in calls if call.model == "fake-llm"]
    assert len(calls) == 6
    assert prompts[0] < prompts[1] == prompts[2] < prompts[3]


def test_temporary_chat_keeps_its_history_in_the_page(page: Page, provider: FakeProvider) -> None:
    """A temporary chat isn't saved, and its follow-up brings the history along."""
    first = page.send("Temporary, first", temporary=True)
    page.send("Temporary, second", after=first)
    assert page.client.chats() == []
    calls = provider.call_log.calls(contains="Temporary")
    assert calls[0].prompt_tokens < calls[1].prompt_tokens


def test_chat_can_be_deleted(page: Page) -> None:
    """A deleted chat is gone from the server."""
    turn = page.send("Soon deleted")
    page.client.delete_chat(turn.chat_id)
    with pytest.raises(HostError, match=f"GET /api/v1/chats/{turn.chat_id}: 40"):
        page.client.saved_chat(turn.chat_id)


def test_stop_button_ends_the_call(page: Page, provider: FakeProvider) -> None:
    """Stop ends the reply where it is, and the provider sees its client leave."""
    turn = page.send("Stopped [[chunks=100 delay=0.05]]", wait=False)
    page.wait_for(lambda: "answers" in turn.reply.streamed)
    page.stop(turn)
    assert turn.reply.stopped
    assert turn.reply.text.startswith("The fake-llm answers")
    call = only_call(provider, "Stopped")
    assert call.client_gone
    assert 3 <= call.chunks_sent < 100


def test_closed_tab_lets_the_reply_go_on(
    user: OpenWebUIClient, page: Page, provider: FakeProvider
) -> None:
    """Closing the tab in mid-reply stops nothing: the server saves the whole reply."""
    turn = page.send("Closed tab [[chunks=20 delay=0.02]]", wait=False)
    page.wait_for(lambda: "fake-llm" in turn.reply.streamed)
    page.close()
    user.wait_until_idle(turn.chat_id)
    assert only_call(provider, "Closed tab").finished
    assert user.saved_message(turn.chat_id, turn.reply.message_id)["done"]


def test_background_tasks_are_in_the_books_as_such(page: Page, provider: FakeProvider) -> None:
    """Titles, tags and follow-ups are calls of the host's own, and off unless asked for."""
    page.send("With tasks, please [[in=5]]", background_tasks=True)
    page.send("No tasks, please")
    tasks = provider.call_log.calls(contains="tasks, please", tasks=True)
    assert {call.task for call in tasks} == {"title", "tags", "follow_ups", None}
    assert len(provider.call_log.calls(contains="tasks, please")) == 2


def test_tool_loop_runs_two_rounds(
    admin: OpenWebUIAdmin, page: Page, provider: FakeProvider
) -> None:
    """Two rounds of tool calls are three calls to the provider, whose usage the host adds up."""
    admin.install_tool("clock", CLOCK)
    turn = page.send("Tools [[tool=get_time rounds=2 tokens=5 usage=final]]", tools=["clock"])
    assert turn.reply.text == "The fake-llm answers with"
    calls = provider.call_log.calls(contains="Tools")
    assert [call.tool_round for call in calls] == [1, 2, 0]
    assert turn.reply.usage is not None
    assert turn.reply.usage["total_tokens"] == sum(call.total_tokens for call in calls)


def test_api_chat_streams_or_not(user: OpenWebUIClient, provider: FakeProvider) -> None:
    """By API the reply comes whole, or as the provider's chunks."""
    whole = user.chat("Api, whole [[tokens=7 in=12]]")
    assert (whole.status, whole.text.strip()) == (200, "The fake-llm answers with")
    assert whole.usage == {"prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 19}
    stream = user.chat("Api, stream [[tokens=7 in=12]]", stream=True)
    assert stream.text == whole.text
    assert (stream.done, stream.usage) == (True, None)
    asked = {"include_usage": True}
    stream = user.chat("Api, asked [[tokens=7 in=12]]", stream=True, stream_options=asked)
    assert stream.usage == whole.usage
    assert [call.reported for call in provider.call_log.calls(contains="Api, ")] == [
        whole.usage,
        None,
        whole.usage,
    ]
    assert user.chat("Capped [[tokens=7]]", max_tokens=2).usage["completion_tokens"] == 2  # type: ignore[index]


def test_api_key_signs_in(user: OpenWebUIClient) -> None:
    """A user's API key opens the API as the user's token does."""
    headers = {"Authorization": f"Bearer {user.api_key()}"}
    assert user.http.get("/api/models", headers=headers).is_success


def test_responses_api(user: OpenWebUIClient, page: Page, provider: FakeProvider) -> None:
    """A model behind the Responses API answers page and API; its usage has that API's words."""
    turn = page.send("Responses, page [[tokens=9 in=30 cached=8]]", models=["fake-llm-responses"])
    assert turn.reply.text == turn.reply.streamed.strip() == "The fake-llm answers with"
    assert turn.reply.usage is not None
    assert turn.reply.usage["total_tokens"] == 39
    stream = user.chat("Responses [[tokens=9]]", model="fake-llm-responses", stream=True)
    assert any(chunk.get("type") == "response.completed" for chunk in stream.chunks)
    whole = user.chat("Responses [[tokens=9 in=30 cached=8]]", model="fake-llm-responses")
    assert whole.usage == {
        "input_tokens": 30,
        "input_tokens_details": {"cached_tokens": 8},
        "output_tokens": 9,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 39,
    }
    calls = provider.call_log.calls(contains="Responses")
    assert {call.endpoint for call in calls} == {"/responses/v1/responses"}
    assert all(call.finished and call.reported for call in calls)


def test_responses_api_tool_loop(admin: OpenWebUIAdmin, page: Page, provider: FakeProvider) -> None:
    """The tool loop runs by the Responses API, too."""
    admin.install_tool("clock", CLOCK)
    page.send("Rounds [[tool=get_time]]", tools=["clock"], models=["fake-llm-responses"])
    assert [call.tool_round for call in provider.call_log.calls(contains="Rounds [[")] == [1, 0]


def test_usage_in_every_way_a_provider_has(user: OpenWebUIClient) -> None:
    """Running totals on every chunk, zeros, nothing, or an object of the test's own."""

    def usages(mode: str) -> list[object]:
        reply = user.chat(f"Usage [[chunks=2 tokens=4 in=1 {mode}]]", stream=True)
        return [chunk["usage"]["total_tokens"] for chunk in reply.chunks if chunk.get("usage")]

    assert usages("usage=running") == [3, 5, 5]
    assert usages("usage=final") == [5]
    assert usages("usage=zero") == [0]
    assert usages("usage=none") == []
    raw = """raw_usage='{"total_tokens": 77}' usage=final"""
    assert usages(raw) == [77]


def test_provider_fails_as_told(user: OpenWebUIClient, provider: FakeProvider) -> None:
    """An error before the answer keeps its status; a break in the middle keeps what has come."""
    assert user.chat("Fails [[error=500]]").status == 500
    refused = user.chat("Fails [[error=429]]", stream=True)
    assert (refused.status, refused.headers["retry-after"]) == (429, "7")
    broken = user.chat("Breaks [[break_after=3 chunks=9]]", stream=True)
    assert broken.text == "The fake-llm answers "
    call = only_call(provider, "Breaks")
    assert call.broken
    assert not call.client_gone
    assert call.chunks_sent == 3
    # Open WebUI's own way: status 200, but no answer in it.
    assert user.chat("Breaks whole [[break_after=3]]").body == {
        "detail": "Open WebUI: Server Connection Error"
    }


def test_api_client_leaves(user: OpenWebUIClient, provider: FakeProvider) -> None:
    """A client that closes its stream takes the call to the provider with it."""
    user.chat("Leaves [[chunks=100 delay=0.03]]", stream=True, leave_after=4)
    call = only_call(provider, "Leaves")
    assert call.client_gone
    assert call.chunks_sent < 20


def test_rules_for_coming_calls(user: OpenWebUIClient, provider: FakeProvider) -> None:
    """A rule answers as many matching calls as it says; a call's own directive goes before it."""
    provider.script(contains="Ruled", times=2, tokens=50)
    usages = [user.chat(text).usage for text in ("Ruled", "Ruled [[tokens=3]]", "Ruled")]
    assert [usage["completion_tokens"] for usage in usages if usage] == [50, 3, 4]


@pytest.mark.usefixtures("probe")
def test_filter_speaks_to_page_and_api(user: OpenWebUIClient, page: Page) -> None:
    """What a filter sends and raises arrives as toast, status line and refusal."""
    welcome = page.send("Welcome").reply
    assert welcome.statuses == ["The probe was here."]
    assert welcome.notifications == page.toasts == [("warning", "The probe warns.")]
    assert welcome.finished
    assert page.send("This is forbidden").reply.error == "The probe refuses this."
    refused = user.chat("This is forbidden")
    assert (refused.status, refused.error) == (400, "The probe refuses this.")


def test_filter_on_for_one_model_only(
    admin: OpenWebUIAdmin, probe: str, user: OpenWebUIClient
) -> None:
    """A filter that isn't global works for the models that have it switched on."""
    admin.switch_function(probe, everywhere=False)
    admin.set_model("fake-llm-large", filter_ids=[probe])
    try:
        assert user.chat("forbidden", model="fake-llm-large").status == 400
        assert user.chat("forbidden", model="fake-llm").status == 200
    finally:
        admin.set_model("fake-llm-large")


def test_valves_are_read_and_refused(admin: OpenWebUIAdmin, probe: str) -> None:
    """Valves can be read back; what their type doesn't allow is an error with its status."""
    assert admin.valves(probe) == {"refuse": "forbidden"}
    assert admin.valves_spec(probe)["properties"]["refuse"]["default"] == "nothing"
    with pytest.raises(HostError, match="400"):
        admin.set_valves(probe, {"refuse": ["not", "text"]})


def test_groups_can_be_nested(admin: OpenWebUIAdmin, make_user: MakeUser) -> None:
    """A group can lie in another one; users are made in groups by name."""
    outer = admin.create_group("Bench outer")
    inner = admin.create_group("Bench inner", parent=outer)
    make_user(groups=["Bench inner"])
    groups = {group["id"]: group for group in admin.get("/api/v1/groups/")}
    assert groups[inner]["parent_group_id"] == outer
    assert groups[inner]["member_count"] == 1
