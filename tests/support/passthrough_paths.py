"""The pass-through paths of a real Open WebUI, and a call at each."""

from __future__ import annotations

import httpx

from scripts.compat.hosts import OLLAMA_EMBEDDINGS
from scripts.openwebui.client import OpenWebUIClient
from scripts.provider.ollama import OLLAMA_MODEL
from tests.conftest import host_can

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
MODELS = {"/openai": "fake-llm", "/ollama": OLLAMA_MODEL, "/api": "fake-llm"}
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
    *([("/ollama/v1/embeddings", "input")] if host_can(OLLAMA_EMBEDDINGS) else []),
)


def knock(user: OpenWebUIClient, path: str, key: str, text: str, stream: bool) -> httpx.Response:
    """Ask for something at a path, in its form, spelled as it is written."""
    model = MODELS["/" + path.split("/")[1]]
    body = {"model": model, "stream": stream, "max_tokens": 99}
    body[key] = [{"role": "user", "content": text}] if key == "messages" else text
    request = user.http.build_request("POST", "/", json=body)
    request.url = request.url.copy_with(raw_path=path.encode())
    return user.http.send(request)
