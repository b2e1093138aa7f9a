"""Two real Open WebUI servers on one PostgreSQL, and one server with two workers."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from helpers.ledger.tables import MIGRATIONS
from scripts.openwebui.admin import OpenWebUIAdmin
from scripts.openwebui.client import OpenWebUIClient
from scripts.openwebui.server import OpenWebUIServer
from scripts.postgresql import new_postgresql_database
from scripts.provider.server import FakeProvider
from tests.conftest import FUNCTION_FILE, FUNCTION_ID, InstalledFilter, new_server

pytest_plugins = ["tests.support.databases"]

SECRET = "the same on both, so that a login holds on both"
# A connection pool of its own per server; two of them fit under PostgreSQL's 100 connections.
POOL = {"DATABASE_POOL_SIZE": "8", "DATABASE_POOL_MAX_OVERFLOW": "8"}

# Says in the log which worker answers.
WORKER_PROBE = """
import os
from pathlib import Path


class Filter:
    async def inlet(self, body):
        Path(os.environ["DATA_DIR"], f"worker-{os.getpid()}").touch()
        return body
"""


@dataclass(frozen=True, slots=True)
class Replicas:
    """Two servers that share their database, and the filter that is installed once."""

    servers: tuple[OpenWebUIServer, OpenWebUIServer]
    admin: OpenWebUIAdmin
    usage_limits: InstalledFilter

    @contextmanager
    def new_user(self, name: str) -> Iterator[tuple[OpenWebUIClient, OpenWebUIClient]]:
        """One user, as a client of each server."""
        first = self.admin.add_user(name, f"{uuid.uuid4().hex[:12]}@example.org")
        with closing(OpenWebUIClient(self.servers[1].url, first.account)) as second:
            yield first, second

    def ask_both(self, user: tuple[OpenWebUIClient, ...], times: int, **body: object) -> list[int]:
        """Ask both servers `times` at once; the statuses."""
        with ThreadPoolExecutor(2 * times) as threads:
            clients = [client for _ in range(times) for client in user]
            return sorted(threads.map(lambda client: client.chat("Hello", **body).status, clients))


def install(admin: OpenWebUIAdmin, database_url: str) -> InstalledFilter:
    """Paste the filter and switch it on for all models."""
    admin.publish_models()
    admin.install_function(FUNCTION_ID, FUNCTION_FILE.read_text(encoding="utf-8"))
    installed = InstalledFilter(admin, database_url)
    installed.switch(active=True, everywhere=True)
    return installed


@pytest.fixture(scope="module")
def database_url(postgresql_url: str) -> Iterator[str]:
    """A new, empty PostgreSQL database for the module's servers."""
    with new_postgresql_database(postgresql_url) as url:
        yield url


@pytest.fixture(scope="module")
def replicas(
    provider: FakeProvider, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Replicas]:
    """The first server makes Open WebUI's own tables, then the second starts."""
    with ExitStack() as stack:
        servers = []
        for name in ("first", "second"):
            env = {**POOL, "DATABASE_URL": database_url, "WEBUI_SECRET_KEY": SECRET}
            server = OpenWebUIServer(provider.url, data_dir=tmp_path_factory.mktemp(name), env=env)
            servers.append(stack.enter_context(server))
        admin = OpenWebUIAdmin.sign_up(servers[0].url)
        stack.callback(admin.close)
        installed = install(admin, database_url)
        with closing(OpenWebUIClient(servers[1].url, admin.account)) as second:
            second.models()  # a server learns of models when somebody asks
        yield Replicas((servers[0], servers[1]), admin, installed)


def test_first_calls_on_both_make_the_tables_once(replicas: Replicas) -> None:
    """Both servers' first calls at once make the tables once, and nobody sees an error."""
    with replicas.new_user("First") as user:
        assert replicas.ask_both(user, 8) == [200] * 16
    assert len(replicas.usage_limits.rows("usage_limits_migrations")) == len(MIGRATIONS)
    assert len(replicas.usage_limits.settled(16, user_id=user[0].id)) == 16


@pytest.mark.parametrize("stream", [False, True])
def test_limit_holds_across_servers(replicas: Replicas, stream: bool) -> None:
    """Two servers that are asked at once let in exactly what the limit allows."""
    replicas.usage_limits.configure(policies='[role.user]\nlimits = ["11 requests/day"]')
    with replicas.new_user("Parallel") as user:
        assert replicas.ask_both(user, 12, stream=stream) == [200] * 11 + [429] * 13
    assert len(replicas.usage_limits.settled(11, user_id=user[0].id)) == 11


def test_pages_say_the_same_on_both_servers(replicas: Replicas) -> None:
    """On PostgreSQL every JSON answers, and what one server changes the other knows at once."""
    text = '[role.user]\nlimits = ["2 requests/day", "5k tokens/5h"]\n'
    replicas.usage_limits.configure(policies=text)
    with (
        replicas.new_user("Paged") as user,
        closing(OpenWebUIClient(replicas.servers[1].url, replicas.admin.account)) as second,
    ):
        first: OpenWebUIClient = replicas.admin
        assert replicas.ask_both(user, 1) == [200, 200]
        replicas.usage_limits.settled(2, user_id=user[0].id)
        for admin, own in zip((first, second), user, strict=True):
            limit = own.http.get("/usage-limits/api/me").json()["limits"][0]
            assert (limit["used"], limit["remaining"]) == (2, 0)
            near = admin.http.get("/usage-limits/api/users?near=true").json()
            assert [row["nearest"] for row in near if row["user_id"] == user[0].id] == [
                "2 requests/day"
            ]
            for path in ("users", "pools", "overview", "shadow", "policies", f"users/{own.id}"):
                answer = admin.http.get(f"/usage-limits/api/{path}")
                assert answer.status_code == 200, (path, answer.text)
            report = "/usage-limits/api/report?by=user,model,day,group,source"
            (row,) = [one for one in admin.http.get(report).json() if one["user_id"] == own.id]
            assert row["requests"] == 2
            body = {"policies": "[role.user]\nlimits = ['1 request/day']", "days": 1}
            simulated = admin.http.post("/usage-limits/api/policies/simulate", json=body).json()
            assert user[0].id in [one["user_id"] for one in simulated["users"]]
        body = {"user": user[0].id, "limit": "2 requests/day", "amount": 5, "reason": "x"}
        made = first.http.post("/usage-limits/api/grants", json=body).json()
        limit = user[1].http.get("/usage-limits/api/me").json()["limits"][0]
        assert (limit["granted"], limit["remaining"]) == (5, 5)
        path = f"/usage-limits/api/grants/{made['id']}"
        gone = second.http.request("DELETE", path, json={"reason": "y"})
        assert gone.status_code == 200, gone.text
        assert replicas.ask_both(user, 1) == [429, 429]
        saved = second.http.put("/usage-limits/api/policies", json={"policies": text + "# new\n"})
        assert saved.status_code == 200, saved.text
        assert first.http.get("/usage-limits/api/policies").json()["policies"].endswith("# new\n")


def test_killed_server_leaves_its_reservation_to_the_other(replicas: Replicas) -> None:
    """What a server held when it was killed in mid-stream counts on the other, and stays."""
    replicas.usage_limits.configure(policies='[role.user]\nlimits = ["2 requests/day"]')
    seen = threading.Event()

    def stream(client: OpenWebUIClient) -> None:
        messages = [{"role": "user", "content": "Long [[chunks=300 delay=0.1]]"}]
        body = {"model": "fake-llm", "stream": True, "messages": messages}
        with (
            suppress(httpx.HTTPError),  # its server is going to be killed
            client.http.stream("POST", "/api/chat/completions", json=body) as response,
        ):
            for _ in response.iter_lines():
                seen.set()

    with replicas.new_user("Killed") as (first, second):
        thread = threading.Thread(target=stream, args=(first,), daemon=True)
        thread.start()
        assert seen.wait(30)
        replicas.servers[0].kill()
        thread.join(30)
        held = replicas.usage_limits.rows(user_id=first.id)
        assert [row["state"] for row in held] == ["reserved"]
        assert second.chat("One more").status == 200
        assert second.chat("Over").status == 429
        after = replicas.usage_limits.wait_for_rows(
            lambda rows: [row["state"] for row in rows].count("settled") == 1, user_id=first.id
        )
        assert held[0] in after


def ask_at_once(url: str, user: OpenWebUIClient, calls: int) -> list[int]:
    """Call at the same time, each over a connection of its own, so that workers share them out."""
    clients = [OpenWebUIClient(url, user.account) for _ in range(calls)]
    with ThreadPoolExecutor(len(clients)) as threads:
        statuses = sorted(threads.map(lambda client: client.chat("Hello").status, clients))
    for client in clients:
        client.close()
    return statuses


def check_pages(
    url: str, admin: OpenWebUIAdmin, user: OpenWebUIClient, installed: InstalledFilter
) -> None:
    """Whichever worker answers: its own to a user, all to an administrator, nothing when off."""
    at_once = 10  # as many as one user may wait for, should they all reach the same worker

    def ask(who: OpenWebUIClient, path: str) -> list[httpx.Response]:
        clients = [OpenWebUIClient(url, who.account) for _ in range(2 * at_once)]
        with ThreadPoolExecutor(at_once) as threads:
            answers = list(threads.map(lambda one: one.http.get(f"/usage-limits{path}"), clients))
        for client in clients:
            client.close()
        return answers

    assert {answer.json()["limits"][0]["used"] for answer in ask(user, "/api/me")} == {13}
    assert {answer.status_code for answer in ask(user, "/api/users")} <= {401, 403}
    assert {len(answer.json()) for answer in ask(admin, "/api/users")} == {2}
    body = {"policies": '[role.user]\nlimits = ["14 requests/day"]'}
    assert admin.http.put("/usage-limits/api/policies", json=body).status_code == 200
    limits = {answer.json()["limits"][0]["limit"] for answer in ask(user, "/api/me")}
    assert limits == {"14 requests/day"}
    installed.switch(active=False)
    for path in ("", "/api/me", "/api/users"):
        assert {answer.status_code for answer in ask(admin, path)} == {404}


def test_limit_holds_across_workers(
    provider: FakeProvider, empty_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Two workers on a fresh SQLite file make the tables once and let in exactly the limit."""
    folder = tmp_path_factory.mktemp("workers")
    if not empty_database.exists():
        # Open WebUI's workers get into each other's way when they make its own tables, and where
        # one of them can't start, all of them end.
        new_server(provider, tmp_path_factory.mktemp("one-worker"), empty_database, {}).stop()
    env = {"UVICORN_WORKERS": "2"}  # without Redis: that is for the chat page's sockets
    with (
        new_server(provider, folder, empty_database, env) as server,
        closing(OpenWebUIAdmin.sign_up(server.url)) as admin,
    ):
        installed = install(admin, server.database_url)
        admin.install_function("probe", WORKER_PROBE)
        admin.switch_function("probe", active=True, everywhere=True)
        installed.configure(policies='[role.user]\nlimits = ["13 requests/day"]')
        user = admin.add_user("Worker", "worker@example.org")
        assert ask_at_once(server.url, user, 40) == [200] * 13 + [429] * 27
        assert len(installed.rows("usage_limits_migrations")) == len(MIGRATIONS)
        assert len(installed.settled(13, user_id=user.id)) == 13
        # On a busy machine one worker may have taken them all; the other knows the limit as well.
        for _ in range(20):
            if len(list(folder.glob("worker-*"))) == 2:
                break
            assert ask_at_once(server.url, user, 40) == [429] * 40
        assert len(list(folder.glob("worker-*"))) == 2
        check_pages(server.url, admin, user, installed)
