"""Workers that have just started, one and two of them."""

from __future__ import annotations

from contextlib import closing

from scripts.openwebui.client import OpenWebUIClient
from scripts.provider.server import FakeProvider
from tests.conftest import StartServer
from tests.support.passthrough_paths import knock


def test_two_workers_started_anew(start_server: StartServer, provider: FakeProvider) -> None:
    """With the base models cached each worker has the layer from its start on."""
    own = start_server(UVICORN_WORKERS="2")
    connections = own.admin.get("/api/v1/configs/connections")
    own.admin.post("/api/v1/configs/connections", connections | {"ENABLE_BASE_MODELS_CACHE": True})
    user = own.admin.add_user("Two", "two@example.org")
    own.usage_limits.configure(policies='[role.user]\nlimits = ["1 request/day"]')
    assert user.chat("one").status == 200
    own.usage_limits.settled(1, user_id=user.id)
    own.server.restart()
    text = "two workers"
    for number in range(20):
        path = ("/openai/responses", "/openai/chat/completions")[number % 2]
        # A connection of its own, so that either worker may answer.
        with closing(OpenWebUIClient(own.server.url, user.account)) as client:
            assert knock(client, path, "messages", text, False).status_code == 429
    assert provider.call_log.calls(contains=text, tasks=True) == []


def test_a_workers_first_request_is_refused_with_429(
    start_server: StartServer, provider: FakeProvider
) -> None:
    """A chat with which a worker loads the filter is refused like any later one."""
    own = start_server()
    own.usage_limits.configure(policies='[role.user]\nlimits = ["1 request/day"]')
    user = own.admin.add_user("One", "one@example.org")
    assert user.chat("one").status == 200
    own.usage_limits.settled(1, user_id=user.id)
    own.server.restart()
    body = {"model": "fake-llm", "messages": [{"role": "user", "content": "a fresh worker's"}]}
    for text in ("first", "second"):
        answer = user.http.post("/api/chat/completions", json=body)
        assert answer.status_code == 429, text
        assert int(answer.headers["retry-after"]) > 0
        assert answer.json()["error"]["type"] == "rate_limit_exceeded"
    # What is no refusal keeps Open WebUI's own answer.
    assert user.chat("x", model="no-such-model").status in (400, 404)
    assert provider.call_log.calls(contains="a fresh worker's", tasks=True) == []
