"""Fixtures for the tests against a real Open WebUI, and the rule that CI skips nothing.

One server, with one fake provider behind it, serves the whole session; every test makes its own
users, so that tests don't see each other. A test that changes what all share (valves, a model's
filters) does it through a fixture that puts it back.
"""

import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, inspect, text

from scripts.compat.hosts import PROVIDER_STATUS, Ability, left_out
from scripts.openwebui.admin import OpenWebUIAdmin
from scripts.openwebui.client import OpenWebUIClient
from scripts.openwebui.page import Page
from scripts.openwebui.server import OpenWebUIServer, open_webui_version
from scripts.provider.server import FakeProvider

ROOT = Path(__file__).parent.parent
FUNCTION_ID = "usage_limits"
FUNCTION_FILE = ROOT / "filter_usage_limits.py"
SECONDS_PER_DAY = 86_400
LONGEST_TEST_SECONDS = 180

MakeUser = Callable[..., OpenWebUIClient]
StartServer = Callable[..., "OwnServer"]
OpenPage = Callable[[OpenWebUIClient], Page]
Row = dict[str, Any]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """In CI a skipped test is a failed one: nothing may go untested in silence."""
    report: pytest.TestReport = yield
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI doesn't allow: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Any:
    """The same for a whole module that skips itself while it is collected."""
    report: pytest.CollectReport = yield
    if os.environ.get("CI") and report.outcome == "skipped":
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI doesn't allow: {report.longrepr}"
    return report


host_version = cache(open_webui_version)


def host_can(ability: Ability) -> bool:
    """Whether the Open WebUI under test, which may be an older one, can do something."""
    return ability.is_in(host_version())


def provider_status(status: int) -> int:
    """The status as which API clients get a provider's error: before 0.12 always 400."""
    return status if host_can(PROVIDER_STATUS) else 400


@pytest.hookimpl(tryfirst=True)  # before pytest selects by marker
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark every test that uses the real server, and run those last.

    Those that make no sense on an older Open WebUI (scripts/compat/hosts.py) aren't run on it.
    """
    if "OPEN_WEBUI_COMMAND" in os.environ:
        senseless = left_out(host_version())
        deselected = [item for item in items if item.name.partition("[")[0] in senseless]
        config.hook.pytest_deselected(items=deselected)
        items[:] = [item for item in items if item not in deselected]
    for item in items:
        if "provider" in getattr(item, "fixturenames", ()):  # only a server asks a provider
            item.add_marker("server")
        if "postgresql" in item.name or "postgresql_url" in getattr(item, "fixturenames", ()):
            item.add_marker("slow")
    items.sort(key=lambda item: item.get_closest_marker("server") is not None)


@pytest.fixture(scope="session")
def provider() -> Iterator[FakeProvider]:
    """The provider behind the server; its `call_log` has the calls by their text."""
    with FakeProvider() as fake:
        yield fake


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first server leaves a copy of its new database: the others start faster with it."""
    return tmp_path_factory.mktemp("empty-database") / "webui.db"


def new_server(
    provider: FakeProvider, data_dir: Path, empty_database: Path, env: Mapping[str, str]
) -> OpenWebUIServer:
    """Start an Open WebUI with empty tables."""
    server = OpenWebUIServer(provider.url, data_dir=data_dir, env={**provider.settings, **env})
    # Open WebUI keeps such settings in its database: a copy would bring the first server's.
    if "DATABASE_URL" in env or "ENABLE_OLLAMA_API" in env:
        return server.start()
    if empty_database.exists():
        shutil.copy(empty_database, server.database_path)
        return server.start()
    server.start()
    with (
        closing(sqlite3.connect(server.database_path)) as source,
        closing(sqlite3.connect(empty_database)) as copy,
    ):
        source.backup(copy)
    return server


@pytest.fixture(scope="session")
def server(
    provider: FakeProvider, empty_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OpenWebUIServer]:
    """A real Open WebUI on SQLite."""
    with new_server(provider, tmp_path_factory.mktemp("open-webui"), empty_database, {}) as running:
        yield running


@pytest.fixture(scope="module")
def start_server(
    provider: FakeProvider, empty_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StartServer]:
    """Starts an Open WebUI of the test's own: `start_server(ENABLE_API_OUTLET_FILTERS="false")`.

    It comes with its administrator and the filter, on for all models; it lasts for the module.
    """
    with ExitStack() as stack:

        def start(**env: str) -> OwnServer:
            folder = tmp_path_factory.mktemp("own-server")
            running = stack.enter_context(new_server(provider, folder, empty_database, env))
            return furnish(running, stack)

        yield start


def furnish(running: OpenWebUIServer, stack: ExitStack) -> "OwnServer":
    """A server's administrator, and the filter, on for all models."""
    own = OpenWebUIAdmin.sign_up(running.url)
    stack.callback(own.close)
    own.publish_models()
    own.install_function(FUNCTION_ID, FUNCTION_FILE.read_text(encoding="utf-8"))
    installed = InstalledFilter(own, running.database_url)
    installed.switch(active=True, everywhere=True)
    return OwnServer(running, own, installed)


@pytest.fixture(scope="session")
def open_server(
    provider: FakeProvider, empty_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator["OwnServer"]:
    """An Open WebUI with every way to a model open, those that are deprecated too."""
    folder, fake = tmp_path_factory.mktemp("open-server"), "fake-llm"
    env = {
        "ENABLE_OLLAMA_API": "true",
        "OLLAMA_BASE_URL": f"http://127.0.0.1:{provider.port}/ollama",
        "ENABLE_OPENAI_API_PASSTHROUGH": "true",
        "RAG_EMBEDDING_ENGINE": "openai",
        "AUDIO_REALTIME_ENABLED": "true",
        "ENABLE_IMAGE_GENERATION": "true",
        "ENABLE_IMAGE_EDIT": "true",
        "IMAGE_GENERATION_ENGINE": "openai",
        "IMAGE_EDIT_ENGINE": "openai",
        "AUDIO_STT_ENGINE": "openai",
        "AUDIO_TTS_ENGINE": "openai",
        "ENABLE_CHANNELS": "true",
        "USER_PERMISSIONS_FEATURES_AUTOMATIONS": "true",
    }
    for name in ("RAG", "AUDIO_REALTIME", "IMAGES", "IMAGES_EDIT", "AUDIO_STT", "AUDIO_TTS"):
        env |= {f"{name}_OPENAI_API_BASE_URL": provider.url, f"{name}_OPENAI_API_KEY": fake}
    with ExitStack() as stack:
        running = stack.enter_context(new_server(provider, folder, empty_database, env))
        own = furnish(running, stack)
        own.admin.publish_models()
        yield own


@pytest.fixture(scope="session")
def admin(server: OpenWebUIServer) -> Iterator[OpenWebUIAdmin]:
    """The server's first account; every model is open to all users."""
    client = OpenWebUIAdmin.sign_up(server.url)
    client.publish_models()
    yield client
    client.close()


@pytest.fixture
def make_user(admin: OpenWebUIAdmin) -> Iterator[MakeUser]:
    """Makes a user: `make_user(groups=["Students"], role="user")`; groups are made as needed."""
    made: list[OpenWebUIClient] = []

    def make(
        name: str = "Uma User", *, groups: Sequence[str] = (), role: str = "user"
    ) -> OpenWebUIClient:
        user = admin.add_user(name, f"{uuid4().hex[:12]}@example.org", role=role)
        made.append(user)
        known = admin.groups() if groups else {}
        for group in groups:
            admin.add_to_group(known.get(group) or admin.create_group(group), [user.id])
        return user

    yield make
    for user in made:
        user.close()


@pytest.fixture
def user(make_user: MakeUser) -> OpenWebUIClient:
    """A user of the test's own, in no group."""
    return make_user()


@pytest.fixture
def open_page() -> Iterator[OpenPage]:
    """Opens the chat page as a user: `open_page(user).send("Hello")`; tabs close after the test."""
    tabs: list[Page] = []

    def open_tab(client: OpenWebUIClient) -> Page:
        tabs.append(Page(client).open())
        return tabs[-1]

    yield open_tab
    for tab in tabs:
        tab.close()


@pytest.fixture
def page(user: OpenWebUIClient, open_page: OpenPage) -> Page:
    """The chat page, open for `user`."""
    return open_page(user)


def wait_until(happened: Callable[[], bool], *, timeout: float = 30.0) -> None:
    """Look again and again until something has happened."""
    deadline = time.monotonic() + timeout
    while not happened():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing of the kind within {timeout} s")
        time.sleep(0.05)


class InstalledFilter:
    """The pasted file in the server: its valves, and the rows that it writes."""

    def __init__(self, admin: OpenWebUIAdmin, database: Path | str) -> None:
        self.admin = admin
        self.database = database if isinstance(database, str) else f"sqlite:///{database}"
        self.id = FUNCTION_ID

    def configure(self, **valves: Any) -> None:
        """Save the valves form with these values; everything else is at its default.

        Shortly before midnight it waits for the new day, so that none ends during a test.
        """
        left = SECONDS_PER_DAY - time.time() % SECONDS_PER_DAY
        if left < LONGEST_TEST_SECONDS:
            time.sleep(left + 1)
        self.admin.set_valves(self.id, valves)

    def switch(self, *, active: bool | None = None, everywhere: bool | None = None) -> None:
        """Turn the function on or off, for all models or not."""
        self.admin.switch_function(self.id, active=active, everywhere=everywhere)

    def rows(self, table: str = "usage_limits_records", **where: Any) -> list[Row]:
        """The ledger's rows with these values, oldest first, as they are at this moment."""
        condition = " AND ".join(f'"{name}" = :{name}' for name in where) or "1 = 1"
        order = "rowid" if self.database.startswith("sqlite") else "ctid"
        query = text(f'SELECT * FROM "{table}" WHERE {condition} ORDER BY {order}')
        engine = create_engine(self.database)
        try:
            if not inspect(engine).has_table(table):  # before the first request ever
                return []
            with engine.connect() as connection:
                found = [dict(row) for row in connection.execute(query, where).mappings()]
        finally:
            engine.dispose()
        return sorted(found, key=lambda row: row.get("created_at", 0))

    def wait_for_rows(
        self, happened: Callable[[list[Row]], bool], *, timeout: float = 10.0, **where: Any
    ) -> list[Row]:
        """The rows once they are as expected: what ends with a task is written just after it."""
        deadline = time.monotonic() + timeout
        while not happened(rows := self.rows(**where)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the ledger after {timeout} s: {rows}")
            time.sleep(0.03)
        return rows

    def settled(self, count: int = 1, **where: Any) -> list[Row]:
        """The rows once there are at least `count` of them and no reservation is open."""
        return self.wait_for_rows(
            lambda rows: len(rows) >= count and all(row["state"] != "reserved" for row in rows),
            **where,
        )


@dataclass(frozen=True, slots=True)
class OwnServer:
    """A server of a test's own, with its administrator and the filter in it."""

    server: OpenWebUIServer
    admin: OpenWebUIAdmin
    usage_limits: InstalledFilter


@pytest.fixture(scope="session")
def pasted(server: OpenWebUIServer, admin: OpenWebUIAdmin) -> InstalledFilter:
    """The pasted file, installed once for the session and switched off."""
    admin.install_function(FUNCTION_ID, FUNCTION_FILE.read_text(encoding="utf-8"))
    return InstalledFilter(admin, server.database_url)


@pytest.fixture
def usage_limits(pasted: InstalledFilter) -> Iterator[InstalledFilter]:
    """The filter, on for all models with default valves; off and at its defaults after the test."""
    pasted.configure()
    pasted.switch(active=True, everywhere=True)
    yield pasted
    pasted.switch(active=False, everywhere=False)
    pasted.configure()


@pytest.fixture
def ledger_rows(usage_limits: InstalledFilter) -> Callable[..., list[Row]]:
    """Reads the ledger: `ledger_rows(user_id=user.id)`."""
    return usage_limits.rows
