"""The paths by which Open WebUI lets its users reach a model past the hooks."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

# What a path's clients read errors in.
ErrorForm = Literal["openai", "anthropic", "ollama"]
# chat: the hooks run. rewritten: sent to a path where they do. metered: admitted and metered by
# the middleware. request: counted as one request. task: admitted where tasks call their model.
# unknown: whatever the provider offers there.
DoorKind = Literal["chat", "rewritten", "metered", "embeddings", "request", "task", "unknown"]

CHAT_PATH = "/api/chat/completions"
# A path whose spelling changes this often under percent-decoding isn't meant well.
MOST_DECODINGS = 5


@dataclass(frozen=True, slots=True)
class Door:
    """One of these paths.

    Args:
        path: How Open WebUI spells it.
        counts_tokens: Whether its answers are made of tokens, so that limits on them apply.
        asks_usage: Whether a stream of it can be asked for its usage as OpenAI spells that.
        in_json: Whether a request is JSON that names its model.
    """

    kind: DoorKind
    path: str
    form: ErrorForm = "openai"
    counts_tokens: bool = True
    asks_usage: bool = False
    in_json: bool = True


CHAT_DOORS = {
    CHAT_PATH: Door("chat", CHAT_PATH),
    "/api/v1/chat/completions": Door("chat", "/api/v1/chat/completions"),
    "/api/message": Door("chat", "/api/message", "anthropic"),
    "/api/v1/messages": Door("chat", "/api/v1/messages", "anthropic"),
    "/api/embeddings": Door("embeddings", "/api/embeddings"),
    "/api/v1/embeddings": Door("embeddings", "/api/v1/embeddings"),
    **{
        path: Door("request", path, counts_tokens=False, in_json=False)
        for path in (
            "/api/v1/audio/speech",
            "/api/v1/audio/transcriptions",
            "/api/v1/images/generations",
            "/api/v1/images/edit",
        )
    },
}
TASK_PATH = re.compile(r"/api/v1/tasks/[a-z_]+/completions")

# Below /openai and /ollama everything is a door but these, which no model answers.
OPENAI_PAGES = {
    "GET": re.compile(
        r"config|models(?:/[^/]+)?|models/[^/]+/(?:catalog|sse|download/status/[^/]+)", re.ASCII
    ),
    "POST": re.compile(r"config/update|verify|models/[^/]+/(?:download|load|unload)", re.ASCII),
    "DELETE": re.compile(r"models/[^/]+", re.ASCII),
}
OLLAMA_PAGES = {
    "GET": re.compile(r"|config|api/(?:tags|ps|version)(?:/\d+)?|v1/models(?:/\d+)?", re.ASCII),
    "POST": re.compile(
        r"verify|config/update|api/(?:show|unload|copy)(?:/\d+)?|api/(?:pull|create|push)(?:/\d+)?"
        r"|urls/update|models/(?:download|upload)(?:/\d+)?",
        re.ASCII,
    ),
    "DELETE": re.compile(r"api/(?:delete|push)(?:/\d+)?", re.ASCII),
}
OPENAI_DOOR = re.compile(
    r"/openai/(?:v1/)*(chat/completions|responses|completions|embeddings|audio/speech)(?:/\d+)?"
)
OLLAMA_DOOR = re.compile(
    r"/ollama/(api/chat|api/generate|api/embed|api/embeddings"
    r"|v1/chat/completions|v1/completions|v1/messages|v1/responses|v1/embeddings)(?:/\d+)?"
)
OPENAI_KINDS = {
    "chat/completions": Door("rewritten", "/openai/chat/completions", asks_usage=True),
    "responses": Door("metered", "/openai/responses"),
    "completions": Door("metered", "/openai/completions", asks_usage=True),
    "embeddings": Door("embeddings", "/openai/embeddings"),
    "audio/speech": Door("request", "/openai/audio/speech", counts_tokens=False, in_json=False),
}
OLLAMA_KINDS = {
    "api/chat": Door("metered", "/ollama/api/chat", "ollama"),
    "api/generate": Door("metered", "/ollama/api/generate", "ollama"),
    "api/embed": Door("embeddings", "/ollama/api/embed", "ollama"),
    "api/embeddings": Door("embeddings", "/ollama/api/embeddings", "ollama"),
    "v1/chat/completions": Door("rewritten", "/ollama/v1/chat/completions", asks_usage=True),
    "v1/completions": Door("metered", "/ollama/v1/completions", asks_usage=True),
    "v1/messages": Door("metered", "/ollama/v1/messages", "anthropic"),
    "v1/responses": Door("metered", "/ollama/v1/responses"),
    "v1/embeddings": Door("embeddings", "/ollama/v1/embeddings"),
}


def plain_path(path: str) -> str:
    """A path as the server behind Open WebUI may come to read it, however it is spelled."""
    for _ in range(MOST_DECODINGS):
        decoded = unquote(path)
        if decoded == path:
            break
        path = decoded
    path = path.replace("\\", "/").partition("?")[0].partition("#")[0]
    return posixpath.normpath("/" + path.lstrip("/")).casefold()


def find_door(method: str, path: str) -> Door | None:
    """The door that a request knocks at; None where it can't reach a model past the hooks.

    Open WebUI answers HEAD and OPTIONS on these paths itself.
    """
    first = path[1:7]
    if first not in ("openai", "ollama"):
        if method != "POST":
            return None
        return CHAT_DOORS.get(path) or (Door("task", path) if TASK_PATH.fullmatch(path) else None)
    if method in ("HEAD", "OPTIONS") or path[7:8] not in ("", "/"):
        return None
    pages = (OPENAI_PAGES if first == "openai" else OLLAMA_PAGES).get(method)
    below = path[8:]
    if pages is not None and pages.fullmatch(below) and not {".", ".."} & set(below.split("/")):
        return None
    plain = plain_path(path)
    if method == "POST":
        if found := OPENAI_DOOR.fullmatch(plain):
            return OPENAI_KINDS[found[1]]
        if found := OLLAMA_DOOR.fullmatch(plain):
            return OLLAMA_KINDS[found[1]]
    return Door("unknown", path, "ollama" if first == "ollama" else "openai")
