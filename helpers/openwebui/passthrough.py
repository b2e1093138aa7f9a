"""The paths by which Open WebUI lets its users reach a model past the hooks."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote

from pydantic import TypeAdapter, ValidationError

from helpers.metering.charges import Charge, make_charge
from helpers.metering.usage import Usage
from helpers.openwebui.messages import TOO_MANY_IMAGES_SENTENCE
from helpers.openwebui.refusals import ErrorForm, PassthroughError, Refusal
from helpers.openwebui.replies import Reply, count_choices

# chat: the hooks run. rewritten: sent to a path where they do. metered: admitted and metered by
# the middleware. request: counted as one request. indexing: the same, where the administrator has
# Open WebUI make embeddings by a provider. task: admitted where tasks call their model.
# unknown: whatever the provider offers there.
PassthroughKind = Literal[
    "chat", "rewritten", "metered", "embeddings", "request", "indexing", "task", "unknown"
]

CHAT_PATH = "/api/chat/completions"
# A path whose spelling changes this often under percent-decoding isn't meant well.
MOST_DECODINGS = 5


@dataclass(frozen=True, slots=True)
class Passthrough:
    """One of these paths.

    Args:
        path: How Open WebUI spells it.
        counts_tokens: Whether its answers are made of tokens, so that limits on them apply.
        asks_usage: Whether a stream of it can be asked for its usage as OpenAI spells that.
        in_json: Whether a request is JSON that names its model.
        of_page: Whether the page itself needs it, so that it is never blocked.
        in_images: Whether it is JSON that says how many images it asks for, each a request.
        model: What its records call the model, where a request doesn't name it.
    """

    kind: PassthroughKind
    path: str
    form: ErrorForm = "openai"
    counts_tokens: bool = True
    asks_usage: bool = False
    in_json: bool = True
    of_page: bool = False
    in_images: bool = False
    model: str = ""


CHAT_PASSTHROUGHS = {
    CHAT_PATH: Passthrough("chat", CHAT_PATH),
    "/api/v1/chat/completions": Passthrough("chat", "/api/v1/chat/completions"),
    "/api/message": Passthrough("chat", "/api/message", "anthropic"),
    "/api/v1/messages": Passthrough("chat", "/api/v1/messages", "anthropic"),
    "/api/embeddings": Passthrough("embeddings", "/api/embeddings"),
    "/api/v1/embeddings": Passthrough("embeddings", "/api/v1/embeddings"),
    **{
        path: Passthrough(
            "request",
            path,
            counts_tokens=False,
            in_json=False,
            of_page=True,
            in_images=path.startswith("/api/v1/images/"),
            model=path.rpartition("/")[2],
        )
        for path in (
            "/api/v1/audio/speech",
            "/api/v1/audio/transcriptions",
            "/api/v1/images/generations",
            "/api/v1/images/edit",
        )
    },
}
# Where files, memories, pages and queries are embedded, and recordings written down.
INDEXING_PATH = re.compile(
    r"/api/v1/(?:files/|files/[^/]+/data/content/update"
    r"|retrieval/(?:process/(?:file|text|url|youtube|web|web/search|files/batch)"
    r"|query/(?:doc|collection))"
    r"|memories/(?:add|update|query|search|reindex|reset|[^/]+/update)"
    r"|knowledge/(?:create|reindex|[^/]+/(?:update|file/add|file/update|files/batch/add)"
    r"|metadata/reindex|external/(?:knowledge/create|source/[^/]+"
    r"|connections/[^/]+/retrieve-test)))"
)
# Before 0.12.4, unless ENV is set to prod: embeds what stands behind, for anybody.
EMBEDDING_TEST_PATH = "/api/v1/retrieval/ef/"
LENGTH_FIELDS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
EMBEDDING_MODEL = "embedding"
# As Open WebUI reads it, a text or a float included.
WHOLE_NUMBER = TypeAdapter(int)
# OpenAI makes ten at most.
MOST_IMAGES = 50
TASK_PATH = re.compile(r"/api/v1/tasks/[a-z_]+/completions")

INDEXING = Passthrough(
    "indexing", "", counts_tokens=False, in_json=False, of_page=True, model=EMBEDDING_MODEL
)

# Below /openai and /ollama everything is a pass-through path but these, which no model answers.
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
OPENAI_PASSTHROUGH = re.compile(
    r"/openai/(?:v1/)*(chat/completions|responses|completions|embeddings|audio/speech)(?:/\d+)?"
)
OLLAMA_PASSTHROUGH = re.compile(
    r"/ollama/(api/chat|api/generate|api/embed|api/embeddings"
    r"|v1/chat/completions|v1/completions|v1/messages|v1/responses|v1/embeddings)(?:/\d+)?"
)
OPENAI_KINDS = {
    "chat/completions": Passthrough("rewritten", "/openai/chat/completions", asks_usage=True),
    "responses": Passthrough("metered", "/openai/responses"),
    "completions": Passthrough("metered", "/openai/completions", asks_usage=True),
    "embeddings": Passthrough("embeddings", "/openai/embeddings"),
    "audio/speech": Passthrough(
        "request", "/openai/audio/speech", counts_tokens=False, in_json=False, model="speech"
    ),
}
OLLAMA_KINDS = {
    "api/chat": Passthrough("metered", "/ollama/api/chat", "ollama"),
    "api/generate": Passthrough("metered", "/ollama/api/generate", "ollama"),
    "api/embed": Passthrough("embeddings", "/ollama/api/embed", "ollama"),
    "api/embeddings": Passthrough("embeddings", "/ollama/api/embeddings", "ollama"),
    "v1/chat/completions": Passthrough("rewritten", "/ollama/v1/chat/completions", asks_usage=True),
    "v1/completions": Passthrough("metered", "/ollama/v1/completions", asks_usage=True),
    "v1/messages": Passthrough("metered", "/ollama/v1/messages", "anthropic"),
    "v1/responses": Passthrough("metered", "/ollama/v1/responses"),
    "v1/embeddings": Passthrough("embeddings", "/ollama/v1/embeddings"),
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


def find_passthrough(method: str, path: str) -> Passthrough | None:
    """The pass-through path that is asked; None where it reaches no model past the hooks.

    Open WebUI answers HEAD and OPTIONS on these paths itself.
    """
    first = path[1:7]
    if first not in ("openai", "ollama"):
        if method == "POST":
            if path in CHAT_PASSTHROUGHS:
                return CHAT_PASSTHROUGHS[path]
            if TASK_PATH.fullmatch(path):
                return Passthrough("task", path)
        elif method == "GET" and path.startswith(EMBEDDING_TEST_PATH):
            return INDEXING
        elif method != "PATCH":
            return None
        return INDEXING if INDEXING_PATH.fullmatch(path) else None
    if method in ("HEAD", "OPTIONS") or path[7:8] not in ("", "/"):
        return None
    pages = (OPENAI_PAGES if first == "openai" else OLLAMA_PAGES).get(method)
    below = path[8:]
    if pages is not None and pages.fullmatch(below) and not {".", ".."} & set(below.split("/")):
        return None
    plain = plain_path(path)
    if method == "POST":
        if found := OPENAI_PASSTHROUGH.fullmatch(plain):
            return OPENAI_KINDS[found[1]]
        if found := OLLAMA_PASSTHROUGH.fullmatch(plain):
            return OLLAMA_KINDS[found[1]]
    return Passthrough("unknown", "", "ollama" if first == "ollama" else "openai")


def passthrough_output(body: dict[str, Any], passthrough: Passthrough) -> int | None:
    """The most output tokens that a request asks for in the words of its protocol, if it does."""
    if passthrough.form == "ollama":
        options = body.get("options")
        wanted = options.get("num_predict") if isinstance(options, dict) else None
    else:
        wanted = body.get(output_field(passthrough))
        # Of several nobody knows which one is obeyed.
        others = [body[name] for name in LENGTH_FIELDS if type(body.get(name)) is int]
        wanted = max([wanted, *others]) if type(wanted) is int else None
    return wanted * count_answers(body) if type(wanted) is int and wanted > 0 else None


def count_answers(body: dict[str, Any]) -> int:
    """How many answers a request asks for: each of a list of prompts gets its own."""
    prompts = body.get("prompt")
    # A list of numbers is one prompt, in tokens.
    if not isinstance(prompts, list) or all(type(part) is int for part in prompts):
        return count_choices(body)
    return count_choices(body) * len(prompts)


def settle_images(body: dict[str, Any]) -> int:
    """How many images a request asks for, written into it as it was understood here.

    Raises:
        PassthroughError: More than are made at once.
    """
    try:
        wanted = WHOLE_NUMBER.validate_python(body.get("n", 1))
    except ValidationError:  # which Open WebUI refuses, but for null
        return 1
    if wanted > MOST_IMAGES:
        raise PassthroughError(Refusal(400, TOO_MANY_IMAGES_SENTENCE.format(most=MOST_IMAGES)))
    body["n"] = wanted
    return max(1, wanted)


def cap_passthrough(body: dict[str, Any], passthrough: Passthrough, most: int) -> None:
    """Lower what a request asks for in all, as its protocol says it."""
    each = max(1, most // count_answers(body))
    if passthrough.form == "ollama":
        options = body.get("options")
        body["options"] = {**(options if isinstance(options, dict) else {}), "num_predict": each}
    else:
        for name in {output_field(passthrough), *(name for name in LENGTH_FIELDS if name in body)}:
            body[name] = each


def output_field(passthrough: Passthrough) -> str:
    """Where a protocol other than Ollama's own says how long an answer may be."""
    return "max_output_tokens" if passthrough.path.endswith("/responses") else "max_tokens"


def passthrough_charge(reply: Reply, passthrough: Passthrough, status: int | None) -> Charge | None:
    """What a reply cost whose answer went through the layer; None where there was none."""
    if reply.meter.produced:
        return make_charge(reply.meter.total(), reply.rule)
    if status is not None and status >= 400:
        return None
    if not passthrough.counts_tokens:
        return make_charge(Usage(), reply.rule)
    if passthrough.kind == "embeddings":
        return make_charge(Usage(reply.prompt_tokens, 0, estimated=True), reply.rule)
    # Answered, but nobody can say with what; or given up while the model was at work.
    return reply.unseen_charge()
