"""A real Open WebUI that starts fresh, is killed in mid-stream, and starts again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from helpers.ledger.tables import MIGRATIONS
from scripts.openwebui.admin import OpenWebUIAdmin
from scripts.openwebui.page import Page
from scripts.openwebui.server import OpenWebUIServer
from scripts.provider.server import FakeProvider
from tests.conftest import FUNCTION_FILE, FUNCTION_ID, InstalledFilter


def with_short_leases(source: str) -> str:
    """The pasted file with its leases and rounds of minutes cut to seconds."""
    shorter = {"LEASE_SECONDS": 4, "ROUND_SECONDS": 1, "RENEW_SECONDS": 1, "WORKER_SECONDS": 4}
    for name, seconds in shorter.items():
        source, count = re.subn(rf"^{name} = \d+$", f"{name} = {seconds}", source, flags=re.M)
        assert count == 1
    return source


@dataclass
class Host:
    """A server of the test's own, with the filter on."""

    server: OpenWebUIServer
    admin: OpenWebUIAdmin
    usage_limits: InstalledFilter


@pytest.fixture(scope="module")
def host(provider: FakeProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A fresh Open WebUI on which the filter has never run."""
    with OpenWebUIServer(provider.url, data_dir=tmp_path_factory.mktemp("crash")) as server:
        admin = OpenWebUIAdmin.sign_up(server.url)
        admin.publish_models()
        admin.install_function(
            FUNCTION_ID, with_short_leases(FUNCTION_FILE.read_text(encoding="utf-8"))
        )
        installed = InstalledFilter(admin, server.database_path)
        installed.switch(active=True, everywhere=True)
        yield Host(server, admin, installed)
        admin.close()


def test_first_calls_ever(host: Host) -> None:
    """Thirty calls at once are the first on a fresh database: none fails, ten are let through."""
    host.usage_limits.configure(policies='[role.user]\nlimits = ["10 requests/day"]')
    user = host.admin.add_user("First", "first@example.org")
    with ThreadPoolExecutor(30) as threads:
        statuses = list(threads.map(lambda _: user.chat("Hello").status, range(30)))
    assert sorted(statuses) == [200] * 10 + [429] * 20
    assert len(host.usage_limits.rows("usage_limits_migrations")) == len(MIGRATIONS)
    assert len(host.usage_limits.settled(10, user_id=user.id)) == 10


def test_living_reply_outlasts_its_first_lease(host: Host) -> None:
    """A reply that takes longer than a lease is renewed, never swept, and charged exactly."""
    host.usage_limits.configure()
    user = host.admin.add_user("Slow", "slow@example.org")
    assert user.chat("Slow [[chunks=8 delay=1 in=20 tokens=30]]", stream=True).status == 200
    row = host.usage_limits.settled(1, user_id=user.id)[0]
    assert (row["input_tokens"], row["output_tokens"], row["estimated"]) == (20, 30, 0)


def test_killed_in_mid_stream(host: Host) -> None:
    """After `kill -9` the reservation counts; a sweep settles it once, and nothing is lost."""
    host.usage_limits.configure(policies='[role.user]\nlimits = ["50 tokens/day"]')
    user = host.admin.add_user("Ann", "ann@example.org")
    with Page(user) as page:
        turn = page.send("Crash [[chunks=200 delay=0.1 usage=none]]", wait=False)
        # Long enough for a round of the accounting to note what has come.
        page.wait_for(lambda: len(turn.reply.streamed.split()) > 25)
        host.server.kill()
    before = host.usage_limits.rows(user_id=user.id)
    assert [row["state"] for row in before] == ["reserved"]
    host.server.start()
    refused = user.chat("Reserved tokens count")
    assert refused.status == 429
    other = host.admin.add_user("Bob", "bob@example.org")

    def swept() -> bool:
        other.chat("Any request sets the sweep going [[in=1 tokens=1]]")
        return host.usage_limits.rows(user_id=user.id)[0]["state"] == "settled"

    host.usage_limits.wait_for_rows(lambda _: swept(), timeout=20, user_id=user.id)
    after = host.usage_limits.rows(user_id=user.id)
    assert len(after) == 1
    assert after[0]["estimated"] == 1
    for column in ("input_tokens", "output_tokens"):
        assert after[0][column] == before[0][column]
    assert user.chat("Still over").status == 429
    counters = host.usage_limits.rows("usage_limits_counters", scope=f"user:{user.id}")
    # Of an estimate a request holds no more than its limits leave.
    assert [row["output_tokens"] for row in counters] == [after[0]["weighted_output_tokens"]]
    assert "settled 1 replies" in host.server.log()


def test_stopped_in_mid_stream(host: Host) -> None:
    """A server that is asked to end settles what it has: nobody is held up after the restart."""
    host.usage_limits.configure(policies='[role.user]\nlimits = ["500 tokens/day"]')
    user = host.admin.add_user("Stopped", "stopped@example.org")
    with Page(user) as page:
        turn = page.send("Stop [[chunks=200 delay=0.1 usage=none]]", wait=False)
        page.wait_for(lambda: len(turn.reply.streamed.split()) > 10)
        host.server.restart(grace=20)
    (row,) = host.usage_limits.rows(user_id=user.id)
    assert (row["state"], row["estimated"], row["counted"]) == ("settled", 1, 1)
    assert 10 < row["output_tokens"] < 400
    assert user.chat("Not held up [[in=1 tokens=1]]").status == 200
