"""Two workers of Open WebUI: each has the layer from its start on."""

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
