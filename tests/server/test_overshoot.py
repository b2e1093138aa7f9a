"""How far replies that are written at once go over a limit, by the provider's own count."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from scripts.bench.bursts import (
    new_marker,
    random_lengths,
    script_lengths,
    sent_tokens,
    stream_at_once,
)
from scripts.openwebui.admin import OpenWebUIAdmin
from scripts.openwebui.client import OpenWebUIClient
from scripts.openwebui.page import Page
from scripts.postgresql import new_postgresql_database
from scripts.provider.server import FakeProvider
from tests.conftest import FUNCTION_FILE, FUNCTION_ID, InstalledFilter, new_server
from tests.support.redis_server import redis_server

pytest_plugins = ["tests.support.databases"]

# As fast as models write, and slow enough for servers, provider and clients on two cores: what is
# under way when a stream is closed counts, a chunk of 18 tokens each.
PACE_OF_MANY_SECONDS = 0.4
# Two workers may have no more connections than PostgreSQL has: 100.
POOL = {"DATABASE_POOL_SIZE": "20", "DATABASE_POOL_MAX_OVERFLOW": "20"}


@dataclass(frozen=True, slots=True)
class Host:
    """A server with the filter, and the provider behind it."""

    url: str
    admin: OpenWebUIAdmin
    usage_limits: InstalledFilter
    provider: FakeProvider

    def new_user(self) -> OpenWebUIClient:
        """A user of the test's own."""
        return self.admin.add_user("Burst", f"{uuid4().hex[:12]}@example.org")

    def recorded_tokens(self, user: OpenWebUIClient) -> int:
        """What the ledger has for a user, once nothing is running any more."""
        rows = self.usage_limits.wait_for_rows(
            lambda rows: all(row["state"] != "reserved" for row in rows), user_id=user.id
        )
        return sum(row["input_tokens"] + row["output_tokens"] for row in rows)


HOSTS = ["sqlite", "sqlite, two workers", "postgresql", "postgresql, two workers"]


@pytest.fixture(scope="module", params=HOSTS)
def host(
    request: pytest.FixtureRequest,
    provider: FakeProvider,
    empty_database: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Host]:
    """A server on each database, with one worker and with two."""
    with ExitStack() as stack:
        env = dict(POOL)
        if "postgresql" in request.param:
            server_url = request.getfixturevalue("postgresql_url")
            env["DATABASE_URL"] = stack.enter_context(new_postgresql_database(server_url))
        if "two workers" in request.param:
            # Both would make Open WebUI's tables at once.
            new_server(provider, tmp_path_factory.mktemp("empty"), empty_database, env).stop()
            redis = stack.enter_context(redis_server(tmp_path_factory.mktemp("redis")))
            env |= {"UVICORN_WORKERS": "2", "WEBSOCKET_MANAGER": "redis", "REDIS_URL": redis}
        folder = tmp_path_factory.mktemp("overshoot")
        server = stack.enter_context(new_server(provider, folder, empty_database, env))
        admin = stack.enter_context(closing(OpenWebUIAdmin.sign_up(server.url)))
        admin.publish_models()
        admin.install_function(FUNCTION_ID, FUNCTION_FILE.read_text(encoding="utf-8"))
        installed = InstalledFilter(admin, server.database_url)
        installed.switch(active=True, everywhere=True)
        script_lengths(provider)
        yield Host(server.url, admin, installed, provider)
        provider.rules.clear()


def assert_near(host: Host, user: OpenWebUIClient, used: int) -> None:
    """The ledger has what the provider sent, but for the estimate's error."""
    assert host.recorded_tokens(user) == pytest.approx(used, rel=0.08)


def test_hundred_streams_stop_at_the_limit(host: Host) -> None:
    """With `stop`, a hundred streams of unknown length end within 2 % of the limit, and use it."""
    limit = 30_000
    host.usage_limits.configure(
        running_replies="stop", policies=f'[role.user]\nlimits = ["{limit} tokens/day"]'
    )
    user, marker = host.new_user(), new_marker()
    lengths = random_lengths(100)
    script_lengths(host.provider, PACE_OF_MANY_SECONDS)
    replies = stream_at_once(host.url, user, marker, lengths)
    script_lengths(host.provider)
    used = sent_tokens(host.provider, marker)
    print(f"stop: {used / limit:.1%} of the limit")
    assert 0.9 * limit <= used <= 1.02 * limit
    assert_near(host, user, used)
    ended = [reply for reply in replies if reply.status == 200]
    assert len(ended) > 50
    assert all(reply.done for reply in ended)
    assert "length" in {reply.chunks[-1]["choices"][0]["finish_reason"] for reply in ended}


def test_burst_on_the_page_stops_at_the_limit(host: Host) -> None:
    """The same from the chat page: each reply says why it ends, and is saved as it is."""
    limit = 8_000
    host.usage_limits.configure(
        running_replies="stop", policies=f'[role.user]\nlimits = ["{limit} tokens/day"]'
    )
    user, marker = host.new_user(), new_marker()
    with Page(user) as page:
        turns = [page.send(f"{marker} length 120;", wait=False) for _ in range(12)]
        for turn in turns:
            page.wait(turn, timeout=120)
        used = sent_tokens(host.provider, marker)
        print(f"stop, page: {used / limit:.1%} of the limit")
        assert 0.9 * limit <= used <= 1.02 * limit
        assert_near(host, user, used)
        written = [turn for turn in turns if turn.reply.error is None]
        for turn in written:
            assert any("topped at your limit" in status for status in turn.reply.statuses)
            message = user.saved_message(turn.chat_id, turn.reply.message_id)
            assert message["done"] is True
            assert message.get("error") is None
        host.usage_limits.configure(running_replies="stop")
        assert page.send("short [[chunks=3]]", after=written[0]).reply.error is None


def test_burst_that_finishes(host: Host) -> None:
    """With `finish`, twenty long replies of a model seen before end at 125 % of a limit at most."""
    host.usage_limits.configure()
    seen, limit = host.new_user(), 10_000
    script_lengths(host.provider, seconds=0.01)
    stream_at_once(host.url, seen, new_marker(), [120, 120])
    script_lengths(host.provider, seconds=0.1)
    host.usage_limits.configure(policies=f'[role.user]\nlimits = ["{limit} tokens/day"]')
    user, marker = host.new_user(), new_marker()
    replies = stream_at_once(host.url, user, marker, [120] * 20)
    used = sent_tokens(host.provider, marker)
    print(f"finish: {used / limit:.1%} of the limit")
    assert 0.9 * limit <= used <= 1.25 * limit
    assert_near(host, user, used)
    assert {reply.status for reply in replies} == {200, 429}
    # What nobody holds any more is free at once.
    assert user.chat("Over", stream=True).status == 429
