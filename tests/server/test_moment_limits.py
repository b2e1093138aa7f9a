"""Limits about one moment and on one source in a real Open WebUI, by page and by API."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from scripts.openwebui.client import OpenWebUIClient
from scripts.openwebui.page import Page
from scripts.provider.server import FakeProvider
from tests.conftest import InstalledFilter, MakeUser, OpenPage, wait_until

SLOW = "[[in=5 tokens=8 chunks=8 delay=0.5]]"
RUNNING = "You already have 3 responses running. Please try again when one is done."


def configure(usage_limits: InstalledFilter, *limits: str, pool: str = "", **valves: Any) -> None:
    """Save these limits for all users."""
    pools = f"[pool.all]\nlimits = [{pool!r}]\n" if pool else ""
    usage_limits.configure(
        policies=f"{pools}[role.user]\nlimits = {list(limits) or 'unlimited'!r}", **valves
    )


def open_calls(provider: FakeProvider, text: str) -> int:
    """How many calls with this text the provider is answering."""
    return sum(call.open for call in provider.call_log.calls(contains=text))


def test_three_at_once_over_page_and_api(
    usage_limits: InstalledFilter, user: OpenWebUIClient, page: Page, provider: FakeProvider
) -> None:
    """Replies of page and API count together; the next request is refused until one has ended."""
    configure(usage_limits, "3 requests at once")
    text = f"at once of {user.id}"
    turns = [page.send(f"{text} {SLOW}", wait=False) for _ in range(2)]
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(user.chat, f"{text} {SLOW}", stream=True)
        wait_until(lambda: open_calls(provider, text) == 3)
        refused = user.chat(f"refused of {user.id}")
        assert refused.status == 429
        assert RUNNING in str(refused.body)
        assert 1 <= int(refused.headers.get("retry-after", 1)) <= 10
        assert page.send(f"refused of {user.id}").reply.error == f"{RUNNING} /usage-limits"
        page.stop(turns[0])
        wait_until(lambda: len(usage_limits.rows(user_id=user.id, state="reserved")) == 2)
        assert user.chat(f"after of {user.id}").status == 200
        assert call.result(30).status == 200
    page.wait(turns[1])
    assert provider.call_log.calls(contains=f"refused of {user.id}") == []
    usage_limits.settled(4, user_id=user.id)
    assert user.chat(f"after of {user.id}").status == 200


def test_burst_never_runs_more_than_three(
    usage_limits: InstalledFilter, user: OpenWebUIClient, provider: FakeProvider
) -> None:
    """Of twelve API calls that come together three are answered and nine refused."""
    configure(usage_limits, "3 requests at once")
    text = f"burst of {user.id}"
    with ThreadPoolExecutor(12) as threads:
        calls = [threads.submit(user.chat, f"{text} {SLOW}", stream=True) for _ in range(12)]
        answers = [call.result(60) for call in calls]
    assert sorted(answer.status for answer in answers) == [200] * 3 + [429] * 9
    assert len(provider.call_log.calls(contains=text)) == 3


def test_pool_counts_what_all_have_running(
    usage_limits: InstalledFilter, make_user: MakeUser, provider: FakeProvider
) -> None:
    """A pool's limit on how many run at once holds for its members together."""
    configure(usage_limits, pool="1 request at once")
    ann, bob = make_user(), make_user()
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(ann.chat, f"of {ann.id} {SLOW}", stream=True)
        wait_until(lambda: open_calls(provider, f"of {ann.id}") == 1)
        refused = bob.chat(f"of {bob.id}")
        assert "hold the rest of the shared limit of 1 request at once (all)" in str(refused.body)
        call.result(30)
    usage_limits.settled(1, user_id=ann.id)
    assert bob.chat(f"of {bob.id}").status == 200


def test_request_that_is_too_long(
    usage_limits: InstalledFilter, user: OpenWebUIClient, page: Page, provider: FakeProvider
) -> None:
    """A prompt that is longer than a request may be reaches no model, by page or API."""
    configure(usage_limits, "200 tokens/request")
    text = f"long of {user.id} " + "word " * 400
    sentence = "This request is too long: at most 200 tokens per request."
    for path in ("/api/chat/completions", "/api/v1/messages"):
        refused = user.chat(text, path=path, max_tokens=10)
        assert refused.status == 429
        assert sentence in str(refused.body)
    assert page.send(text).reply.error == f"{sentence} /usage-limits"
    assert provider.call_log.calls(contains=f"long of {user.id}") == []
    assert usage_limits.rows(user_id=user.id) == []


def test_output_is_lowered_to_fit(
    usage_limits: InstalledFilter, user: OpenWebUIClient, page: Page, provider: FakeProvider
) -> None:
    """The provider is asked for no more output than a request may have, wherever it is asked."""
    configure(usage_limits, "200 tokens/request")
    text = f"fits of {user.id}"
    page.send(f"{text} [[in=20 tokens=500]]")
    user.chat(f"{text} [[in=20 tokens=500]]", stream=True)
    user.chat(f"{text} [[in=20 tokens=500]]", max_tokens=5_000)
    user.chat(f"{text} [[in=20 tokens=500]]", path="/api/v1/messages", max_tokens=5_000)
    user.chat(f"{text} [[in=20 tokens=500]]", path="/openai/chat/completions")
    lowered = [call.max_tokens for call in provider.call_log.calls(contains=text)]
    # Open WebUI puts this one in the place of the other.
    user.chat(f"{text} [[in=20 tokens=500]]", max_tokens=7, max_completion_tokens=None)
    lowered += [call.max_tokens for call in provider.call_log.calls(contains=text)[5:]]
    assert len(lowered) == 6
    assert all(most is not None and 100 < most < 190 for most in lowered)
    user.chat(f"modest of {user.id}", max_tokens=7)
    (call,) = provider.call_log.calls(contains=f"modest of {user.id}")
    assert call.max_tokens == 7
    assert all(
        row["input_tokens"] + row["output_tokens"] <= 200
        for row in usage_limits.settled(7, user_id=user.id)
    )


def test_output_is_lowered_at_a_tasks_path(
    usage_limits: InstalledFilter, user: OpenWebUIClient, provider: FakeProvider
) -> None:
    """Whoever asks for a task by its path gets no longer answer than in a chat."""
    configure(usage_limits, "300 output tokens/request", "1 request at once")
    text = f"task of {user.id}"
    body = {"model": "fake-llm", "prompt": text, "responses": ["a", "b"], "stream": False}
    response = user.http.post("/api/v1/tasks/moa/completions", json=body)
    assert response.status_code == 200
    calls = [call for call in provider.call_log.calls(tasks=True) if text in call.text]
    assert [call.max_tokens for call in calls] == [300]
    configure(usage_limits, "0 requests at once")
    response = user.http.post("/api/v1/tasks/moa/completions", json=body)
    assert response.status_code == 429
    assert len([call for call in provider.call_log.calls(tasks=True) if text in call.text]) == 1


def test_limit_on_the_api_leaves_the_page_open(
    usage_limits: InstalledFilter, user: OpenWebUIClient, page: Page
) -> None:
    """A limit via the API counts and refuses what comes from there, and nothing of the page."""
    configure(usage_limits, "60 tokens/day via api")
    fifty = "[[in=20 tokens=50]]"
    for _ in range(2):
        assert page.send(fifty).reply.error is None
    assert user.chat(fifty).status == 200
    usage_limits.settled(3, user_id=user.id)
    refused = user.chat(fifty)
    assert refused.status == 429
    assert "your limit of 60 tokens per day via the API" in str(refused.body)
    assert page.send(fifty).reply.error is None
    sources = [row["source"] for row in usage_limits.settled(4, user_id=user.id)]
    assert sorted(sources) == ["api", "page", "page", "page"]


def test_no_claim_opens_the_api(
    usage_limits: InstalledFilter,
    make_user: MakeUser,
    open_page: OpenPage,
    provider: FakeProvider,
) -> None:
    """What a program claims to be makes it neither a page, a channel nor an automation."""
    configure(usage_limits, "0 requests/day via api")
    user = make_user()
    page = open_page(user)
    text = f"claimed by {user.id}"
    claims: list[dict[str, Any]] = [
        {"chat_id": "local:x", "id": "m", "session_id": "made up"},
        {"chat_id": "local:x", "id": "m", "session_id": page.session_id + "x"},
        {"chat_id": "local:x", "id": "m", "session_id": "automation:1", "automation_id": "1"},
    ]
    body = {"model": "fake-llm", "messages": [{"role": "user", "content": text}], "stream": False}
    for claim in claims:
        user.http.post("/api/chat/completions", json={**body, **claim})
    # With an API key the user's own open page is no proof either.
    key = {"Authorization": f"Bearer {user.api_key()}"}
    claim = {"chat_id": f"temporary:{page.session_id}", "id": "m", "session_id": page.session_id}
    httpx.post(f"{user.url}/api/chat/completions", json={**body, **claim}, headers=key, timeout=30)
    user.chat(text)
    # The page itself is open: by then all that was asked before has been answered.
    assert page.send("by page").reply.error is None
    assert provider.call_log.calls(contains=text) == []
    assert [row["source"] for row in usage_limits.settled(1, user_id=user.id)] == ["page"]


def test_one_after_the_other_is_never_two_at_once(
    usage_limits: InstalledFilter, user: OpenWebUIClient, page: Page
) -> None:
    """Who waits for each answer to end has nothing running when the next request comes."""
    configure(usage_limits, "1 request at once")
    for number in range(12):
        assert user.chat("[[in=5 tokens=3]]", stream=number % 2 == 0).status == 200
    for _ in range(4):
        assert page.send("[[in=5 tokens=3]]").reply.error is None
