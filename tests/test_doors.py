"""Every way to a model: none goes past a limit, and all are on record to the token."""

from __future__ import annotations

import itertools
from typing import Any

import httpx
import pytest

from helpers.doors import find_door
from scripts.open_webui_client import OpenWebUIClient
from scripts.stand_in_ollama import OLLAMA_MODEL
from scripts.stand_in_provider import StandInProvider
from tests.conftest import OwnServer, StartServer

COUNTER = itertools.count()


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("POST", "/api/chat/completions", "chat"),
        ("POST", "/api/v1/messages", "chat"),
        ("POST", "/openai/chat/completions", "rewritten"),
        ("POST", "/openai/chat/completions/", "rewritten"),
        ("POST", "/openai//chat//completions", "rewritten"),
        ("POST", "/openai/v1/chat/completions", "rewritten"),
        ("POST", "/openai/%63hat/completions", "rewritten"),
        ("POST", "/openai/chat%2Fcompletions", "rewritten"),
        ("POST", "/openai/%2563hat/completions", "rewritten"),
        ("POST", "/openai/models/../chat/completions", "rewritten"),
        ("POST", "/openai/Chat/Completions", "rewritten"),
        ("POST", "/openai/chat/completions/0", "rewritten"),
        ("POST", "/openai/chat\\completions", "rewritten"),
        ("POST", "/openai/responses", "metered"),
        ("POST", "/openai/completions", "metered"),
        ("POST", "/openai/embeddings", "embeddings"),
        ("POST", "/openai/audio/speech", "request"),
        ("POST", "/openai/files", "unknown"),
        ("GET", "/openai/chat/completions", "unknown"),
        ("PUT", "/openai/models/0", "unknown"),
        ("GET", "/openai/models/../chat/completions", "unknown"),
        ("POST", "/openai/deployments/x/chat/completions", "unknown"),
        ("POST", "/ollama/api/chat", "metered"),
        ("POST", "/ollama/api/chat/0", "metered"),
        ("POST", "/ollama/api/generate/12", "metered"),
        ("POST", "/ollama/v1/chat/completions/0", "rewritten"),
        ("POST", "/ollama/v1/messages", "metered"),
        ("POST", "/ollama/api/embed", "embeddings"),
        ("POST", "/ollama/api/whatever", "unknown"),
        ("POST", "/api/v1/tasks/moa/completions", "task"),
        ("POST", "/api/embeddings", "embeddings"),
        ("POST", "/api/v1/audio/speech", "request"),
        ("GET", "/openai/models", None),
        ("GET", "/openai/models/0", None),
        ("GET", "/openai/config", None),
        ("POST", "/openai/config/update", None),
        ("POST", "/openai/verify", None),
        ("GET", "/ollama/api/tags", None),
        ("GET", "/ollama", None),
        ("GET", "/ollama/", None),
        ("POST", "/ollama/api/show", None),
        ("POST", "/ollama/api/pull/0", None),
        ("DELETE", "/ollama/api/delete/0", None),
        ("HEAD", "/openai/chat/completions", None),
        ("OPTIONS", "/openai/chat/completions", None),
        ("GET", "/api/chat/completions", None),
        ("POST", "/openaix/chat/completions", None),
        ("POST", "/api/v1/chats/new", None),
        ("GET", "/", None),
        ("GET", "", None),
    ],
)
def test_which_paths_are_doors(method: str, path: str, kind: str | None) -> None:
    """However a path to a model is spelled it is known; an administrator's pages stay open."""
    door = find_door(method, path)
    assert (door.kind if door else None) == kind


@pytest.fixture(scope="module")
def house(start_server: StartServer, provider: StandInProvider) -> OwnServer:
    """An Open WebUI with all its doors open: Ollama is on, and so is the deprecated passthrough."""
    own = start_server(
        ENABLE_OLLAMA_API="true",
        OLLAMA_BASE_URL=f"http://127.0.0.1:{provider.port}/ollama",
        ENABLE_OPENAI_API_PASSTHROUGH="true",
    )
    own.admin.publish_models()
    return own


@pytest.fixture
def resident(house: OwnServer) -> OpenWebUIClient:
    """A user of that server."""
    return house.admin.add_user("Rea", f"rea{next(COUNTER)}@example.org")


def say(text: str, stream: bool = False, **more: Any) -> dict[str, Any]:
    """A chat's body."""
    return {"messages": [{"role": "user", "content": text}], "stream": stream, **more}


OPENAI_SPELLINGS = (
    "/openai/chat/completions",
    "/openai/%63hat/completions",
    "/openai/chat%2Fcompletions",
    "/openai/%2563hat/completions",
    "/openai//chat/completions",
    "/openai/chat/completions/",
    "/openai/chat/completions/0",
    "/openai/v1/chat/completions",
    "/openai/Chat/Completions",
    "/openai/models/..%2fchat/completions",
)
MODELS = {"/openai": "stand-in", "/ollama": OLLAMA_MODEL, "/api": "stand-in"}
PATHS = (
    *((path, "messages") for path in OPENAI_SPELLINGS),
    ("/api/chat/completions", "messages"),
    ("/api/v1/chat/completions", "messages"),
    ("/api/v1/messages", "messages"),
    ("/api/message", "messages"),
    ("/openai/responses", "input"),
    ("/openai/v1/responses", "input"),
    ("/openai/completions", "prompt"),
    ("/ollama/api/chat", "messages"),
    ("/ollama/api/chat/0", "messages"),
    ("/ollama/api/generate", "prompt"),
    ("/ollama/api/generate/0", "prompt"),
    ("/ollama/v1/chat/completions", "messages"),
    ("/ollama/v1/chat/completions/0", "messages"),
    ("/ollama/v1/completions", "prompt"),
    ("/ollama/v1/messages", "messages"),
    ("/ollama/v1/responses", "input"),
    ("/api/embeddings", "input"),
    ("/openai/embeddings", "input"),
    ("/ollama/api/embed", "input"),
    ("/ollama/api/embeddings", "prompt"),
    ("/ollama/v1/embeddings", "input"),
)


def knock(user: OpenWebUIClient, path: str, key: str, text: str, stream: bool) -> httpx.Response:
    """Ask for something at a path, in its form, spelled as it is written."""
    model = MODELS["/" + path.split("/")[1]]
    body = {"model": model, "stream": stream, "max_tokens": 99}
    body[key] = [{"role": "user", "content": text}] if key == "messages" else text
    request = user.http.build_request("POST", "/", json=body)
    request.url = request.url.copy_with(raw_path=path.encode())
    return user.http.send(request)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "key"), PATHS)
def test_below_a_limit_everything_is_on_record(
    house: OwnServer,
    resident: OpenWebUIClient,
    provider: StandInProvider,
    path: str,
    key: str,
    stream: bool,
) -> None:
    """Each path works below a limit, and the ledger has what the provider has."""
    house.usage_limits.configure(daily_token_limit=100_000)
    text = f"knock {next(COUNTER)} [[in=21 tokens=13]]"
    answer = knock(resident, path, key, text, stream)
    assert answer.status_code == 200, answer.text
    (call,) = provider.books.calls(contains=text)
    (row,) = house.usage_limits.settled(1, user_id=resident.id)
    assert (row["input_tokens"], row["output_tokens"], row["estimated"]) == (
        call.prompt_tokens,
        call.completion_tokens,
        0,
    )
    assert row["counted"] == 1


@pytest.mark.parametrize("stream", [False, True])
def test_over_a_limit_no_path_reaches_a_model(
    house: OwnServer, resident: OpenWebUIClient, provider: StandInProvider, stream: bool
) -> None:
    """Whoever is over the limit gets 429 and a sentence everywhere; the provider sees no call."""
    house.usage_limits.configure(daily_token_limit=1)
    assert resident.chat("one [[in=9 tokens=9]]").status == 200
    house.usage_limits.settled(1, user_id=resident.id)
    for path, key in PATHS:
        text = f"refused {next(COUNTER)}"
        answer = knock(resident, path, key, text, stream)
        assert answer.status_code == 429, (path, answer.text)
        assert "today's 1 token." in answer.json()["detail"], path
        assert int(answer.headers["retry-after"]) > 0
        assert "error" in answer.json()
        assert provider.books.calls(contains=text, tasks=True) == []
    assert len(house.usage_limits.rows(user_id=resident.id)) == 1


@pytest.mark.parametrize("path", ["/openai/files", "/openai/batches", "/ollama/api/whatever"])
def test_what_nobody_can_count_is_closed(
    house: OwnServer, resident: OpenWebUIClient, path: str
) -> None:
    """An unknown pass-through path is refused with a sentence."""
    house.usage_limits.configure()
    answer = resident.http.post(path, json={"model": "stand-in", "input": "x"})
    assert answer.status_code == 403
    assert "past the usage limits" in answer.json()["detail"]
