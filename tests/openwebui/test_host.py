"""What is read off Open WebUI's own objects."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from helpers.openwebui.host import (
    ModelSettings,
    finished_message,
    has_request_hook,
    list_model_names,
    request_source,
    with_base,
)
from scripts.bench.hooks import HOST_SETTINGS

pytest_plugins = ["tests.support.databases"]
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("metadata", "source"),
    [
        ({"session_id": "s", "chat_id": "4f"}, "page"),
        ({"session_id": "s", "chat_id": "temporary:s"}, "temporary"),
        ({"session_id": "s", "chat_id": "local:s"}, "temporary"),
        ({"chat_id": "4f"}, "api"),
        ({"session_id": None, "chat_id": ""}, "api"),
        ({}, "api"),
        ({"session_id": "s", "chat_id": "channel:7"}, "channel"),
        ({"automation_id": "a", "session_id": "s", "chat_id": "4f"}, "automation"),
    ],
)
def test_source(metadata: dict[str, Any], source: str) -> None:
    """A request comes from the page, a temporary chat, a channel, an automation or the API."""
    assert request_source(metadata) == source


def test_model_names() -> None:
    """A model is known by its own id, its base model's, and the arena's that chose it."""
    body = {"model": "custom"}
    custom = {"id": "custom", "info": {"base_model_id": "gpt-4o"}}
    assert list_model_names(body, custom, {}) == ("custom", "gpt-4o")
    arena = {"selected_model_id": "custom", "model": {"id": "arena"}}
    assert list_model_names(body, custom, arena) == ("custom", "gpt-4o", "arena")
    # In a chat with several models the metadata name the first for all of them.
    assert list_model_names(body, None, {"model": {"id": "other"}}) == ("custom",)
    assert list_model_names({}, None, {}) == ("unknown",)


def test_model_that_is_called() -> None:
    """Behind a custom model its base is called; behind an arena or a fallback the one chosen."""
    custom = {"id": "custom", "info": {"base_model_id": "gpt-4o"}}
    assert list_model_names({"model": "custom"}, custom, {}).called == "gpt-4o"
    arena = {"selected_model_id": "gpt-4o", "model": {"id": "arena"}}
    chosen = list_model_names({"model": "gpt-4o"}, {"id": "gpt-4o"}, arena)
    assert (chosen, chosen.called) == (("gpt-4o", "arena"), "gpt-4o")
    asked = SimpleNamespace(state=SimpleNamespace(model_id="custom"))
    fallen_back = {"model": {"id": "gpt-5"}}
    found = list_model_names({"model": "gpt-5"}, {"id": "gpt-5"}, fallen_back, asked)
    assert (found, found.called) == (("gpt-5", "custom"), "gpt-5")
    # Another filter has sent the request elsewhere: the base isn't that model's.
    assert list_model_names({"model": "gpt-5"}, custom, {}).called == "gpt-5"


def test_base_of_this_moment() -> None:
    """A custom model goes by the base that it has now; without settings it is as it was listed."""
    custom = {"id": "custom", "info": {"base_model_id": "gpt-4o"}}
    now = with_base(custom, ModelSettings("gpt-5"))
    assert list_model_names({"model": "custom"}, now, {}) == ("custom", "gpt-5")
    assert list_model_names({"model": "custom"}, with_base(custom, ModelSettings()), {}) == (
        "custom",
    )
    assert with_base(custom, None) is custom
    assert with_base(None, ModelSettings("gpt-5")) is None


@pytest.mark.parametrize("messages", [None, "x", [None], [{"id": "old", "usage": {"a": 1}}]])
def test_only_the_finished_message_counts(messages: Any) -> None:
    """Usage of any other message than the one the outlet is called for isn't read."""
    assert finished_message({"id": "m", "messages": messages}) == (None, None)
    own = {"id": "m", "content": "text", "usage": {"b": 2}}
    listed = messages if isinstance(messages, list) else []
    assert finished_message({"id": "m", "messages": [*listed, own]}) == ({"b": 2}, "text")


@pytest.mark.parametrize(
    ("version", "has_it"),
    [("0.12.4", True), ("0.11.2", True), ("0.11.1", False), ("0.10.0", False), ("0.0.0", True)],
)
def test_request_hook_by_version(
    monkeypatch: pytest.MonkeyPatch, version: str, has_it: bool
) -> None:
    """Open WebUI calls `request` hooks since 0.11.2; an unknown version is taken for a new one."""
    monkeypatch.setitem(sys.modules, "open_webui.env", SimpleNamespace(VERSION=version))
    assert has_request_hook() == has_it


# What the ledger's engine is like in Open WebUI's own module, after enough statements for psycopg
# to prepare them.
DESCRIBE_ENGINE = """
import json, os
from sqlalchemy import text
from helpers.openwebui.host import host_engine

engine, schema = host_engine("")
with engine.connect() as connection:
    for number in range(10):  # of three sizes
        connection.execute(text("SELECT CAST(:number AS bigint)"), {"number": 10 ** number})
    prepared = connection.execute(text("SELECT count(*) FROM pg_prepared_statements")).scalar()
own, _ = host_engine(os.environ["DATABASE_URL"])
assert type(own.pool) is type(engine.pool)
print(json.dumps([engine.driver, type(engine.pool).__name__, prepared > 0, schema]))
"""


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ["psycopg", "QueuePool", True, None]),
        ({"DATABASE_POOL_SIZE": "5"}, ["psycopg", "QueuePool", True, None]),
        ({"DATABASE_POOL_SIZE": "0"}, ["psycopg", "NullPool", False, None]),
        ({"DATABASE_SCHEMA": "ours"}, ["psycopg", "QueuePool", True, "ours"]),
    ],
)
def test_engine_follows_open_webui(
    database_url: str, tmp_path: Path, settings: dict[str, str], expected: list[object]
) -> None:
    """The ledger uses Open WebUI's database with its driver, and pools only where that does."""
    host = {**HOST_SETTINGS, "DATA_DIR": str(tmp_path), "DATABASE_URL": database_url}
    host.pop("DATABASE_POOL_SIZE")
    done = subprocess.run(
        [sys.executable, "-c", DESCRIBE_ENGINE],
        cwd=ROOT,
        env={**os.environ, **host, **settings},
        stdout=subprocess.PIPE,
        timeout=120,
        check=True,
    )
    assert json.loads(done.stdout.splitlines()[-1]) == expected
