"""`install audit`: tries each way around the filter with an ordinary user's key."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

from scripts.install.host import Answer, InstallError, OpenWebUI, read_key
from scripts.install.plan import MANIFEST, is_ours, model_filters
from scripts.limits.console import cell, make_table, output_console

State = Literal["open", "closed", "unknown"]

OPEN_ENDS = 1
REFUSED = (401, 403, 404, 405)
NO_MODEL = "usage-limits-audit"  # asked for where the user has no model of that kind
MESSAGES = [{"role": "user", "content": "Hi"}]
PROXY = "docs/reverse-proxy.md"
PERMISSION = "the permission of the user's group or of all users"
COUNTED = "the filter counts it"
FILTER_REFUSALS = (403, 413, 429, 503)
PASSTHROUGH = "ENABLE_OPENAI_API_PASSTHROUGH=false"


@dataclass(frozen=True, slots=True)
class Finding:
    """One way around the filter, and how it stands."""

    path: str
    lets_through: str
    state: State
    why: str
    closed_by: str
    by_filter: bool = False  # whether it was the filter that answered


@dataclass(frozen=True, slots=True)
class Way:
    """A path that reaches a model past the filter, and the smallest request for it."""

    path: str
    lets_through: str
    body: Mapping[str, Any]
    owner: str = ""  # whose models it takes: openai or ollama; "": any
    closed_by: str = PROXY
    # Open WebUI's answer to a model that it doesn't know, by which a path is open without any cost.
    open_status: int = 0


CHAT = {"messages": MESSAGES, "max_tokens": 1, "stream": False}
OLLAMA = {"options": {"num_predict": 1}, "stream": False}
WAYS = (
    Way("/openai/chat/completions", "chats", CHAT, "openai"),
    Way(
        "/openai/responses",
        "chats",
        {"input": "Hi", "max_output_tokens": 16, "stream": False},
        "openai",
    ),
    Way(
        "/openai/completions",
        "whatever the provider offers",
        {"prompt": "Hi", "max_tokens": 1},
        "openai",
        PASSTHROUGH,
    ),
    Way("/openai/embeddings", "the same", {"input": "Hi"}, "openai", PASSTHROUGH),
    Way("/ollama/api/chat", "chats", {"messages": MESSAGES, **OLLAMA}, "ollama"),
    Way("/ollama/api/generate", "chats", {"prompt": "Hi", **OLLAMA}, "ollama"),
    Way("/ollama/api/embed", "embeddings", {"input": "Hi"}, "ollama"),
    Way("/ollama/api/embeddings", "embeddings", {"prompt": "Hi"}, "ollama"),
    Way("/ollama/v1/chat/completions", "chats", CHAT, "ollama"),
    Way("/ollama/v1/completions", "chats", {"prompt": "Hi", "max_tokens": 1}, "ollama"),
    Way("/ollama/v1/messages", "chats", {"messages": MESSAGES, "max_tokens": 1}, "ollama"),
    Way("/ollama/v1/responses", "chats", {"input": "Hi", "max_output_tokens": 16}, "ollama"),
    Way("/ollama/v1/embeddings", "embeddings", {"input": "Hi"}, "ollama"),
    Way("/api/embeddings", "embeddings", {"input": "Hi"}),
    Way("/api/v1/embeddings", "embeddings", {"input": "Hi"}),
)
# What Open WebUI asks models beside the chats; asked for directly, it takes any prompt.
TASKS = ("title", "tags", "follow_up", "queries", "auto", "image_prompt", "emoji", "moa")
TASK_BODY = {"prompt": "Hi", "messages": MESSAGES, "responses": ["Hi"], "type": "web_search"}
AUTOMATIC_TASKS = {
    "ENABLE_TITLE_GENERATION": "titles",
    "ENABLE_TAGS_GENERATION": "tags",
    "ENABLE_FOLLOW_UP_GENERATION": "follow-up questions",
    "ENABLE_AUTOCOMPLETE_GENERATION": "autocompletion",
    "ENABLE_SEARCH_QUERY_GENERATION": "search queries",
    "ENABLE_RETRIEVAL_QUERY_GENERATION": "retrieval queries",
}


def audit(arguments: Sequence[str]) -> int:
    """Print what is open and what closes it; the exit status says whether anything is open."""
    parser = argparse.ArgumentParser(
        prog="usage-limits audit",
        description=__doc__,
        epilog="It asks real models for as little as they can give: a few tokens for each way that "
        "is open, past all limits. The exit status is 1 if a way is open.",
        allow_abbrev=False,
    )
    parser.add_argument("--url", required=True, help="where users reach Open WebUI")
    parser.add_argument(
        "--function",
        metavar="ID",
        default=MANIFEST["id"],
        help="the filter's id in Open WebUI (default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    with closing(OpenWebUI(options.url, read_key())) as host:
        findings = list(find_ways(host, options.function))
    print_findings(findings)
    return OPEN_ENDS if any(finding.state == "open" for finding in findings) else 0


def print_findings(findings: Sequence[Finding]) -> None:
    """The table and its sum."""
    console = output_console()
    table = make_table("Ways around the filter", "Path", "Lets through", "State", "Closed by")
    for finding in findings:
        state = finding.state.upper() if finding.state == "open" else finding.state
        table.add_row(
            cell(finding.path),
            cell(finding.lets_through),
            cell(f"{state}: {finding.why}" if finding.why else state),
            cell("" if finding.state == "closed" else finding.closed_by),
        )
    console.print(table)
    counts = {
        state: sum(finding.state == state for finding in findings)
        for state in ("open", "closed", "unknown")
    }
    console.print(", ".join(f"{count} {state}" for state, count in counts.items()))


def find_ways(host: OpenWebUI, function_id: str) -> Iterator[Finding]:
    """Try everything, one after the other.

    Raises:
        InstallError: It isn't an ordinary user of an Open WebUI who asks.
    """
    host.read_version()
    functions = host.read_functions()
    if host.is_admin():
        raise InstallError("the key is an administrator's: an audit needs an ordinary user's")
    models = host.call("GET", "/api/models")["data"]
    permissions = host.ask("GET", "/api/v1/users/permissions").body
    yield find_unlimited_models(functions.get(function_id), function_id, models)
    for way in WAYS:
        yield try_way(host, way, models)
    findings = []
    for task in TASKS:
        path = f"/api/v1/tasks/{task}/completions"
        way = Way(path, f"any prompt, as the task {task!r}", TASK_BODY, open_status=404)
        findings.append(try_way(host, way, []))
    yield from findings
    guarded = any(finding.by_filter for finding in findings)
    guarded = guarded and not any(finding.state == "open" for finding in findings)
    yield find_automatic_tasks(host, guarded)
    yield try_messages(host, models)
    yield from find_media(host, permissions if isinstance(permissions, dict) else {})
    yield Finding(
        "all of these, in a worker that has just started",
        "what comes before its first chat or list of models",
        "unknown",
        "closed where the base model cache is on",
        "Admin Panel > Settings > Models, or ENABLE_BASE_MODELS_CACHE=true",
    )


def find_unlimited_models(
    function: Mapping[str, Any] | None, function_id: str, models: Sequence[Mapping[str, Any]]
) -> Finding:
    """Whether the filter is on for every model that the user may use."""
    on = function is not None and is_ours(function) and bool(function.get("is_active"))
    free = [
        str(model["id"])
        for model in models
        if not on or not ((function or {}).get("is_global") or function_id in model_filters(model))
    ]
    why = "" if on else "the filter is not installed or not switched on"
    if on and free:
        why = f"it is not on for {', '.join(sorted(free))}"
    return Finding(
        "/api/chat/completions",
        "chats with models without the filter",
        "open" if free else "closed" if on else "unknown",
        why,
        "Global, or usage-limits install --global",
    )


def try_way(host: OpenWebUI, way: Way, models: Sequence[Mapping[str, Any]]) -> Finding:
    """Send the request, and judge by the answer."""
    fitting = [str(m["id"]) for m in models if way.owner in ("", m.get("owned_by"))]
    try:
        answer = host.ask("POST", way.path, {"model": (fitting or [NO_MODEL])[0], **way.body})
    except InstallError as error:
        return Finding(way.path, way.lets_through, "unknown", str(error), way.closed_by)
    state, why = judge(answer, way.open_status)
    refused = state == "closed" and answer.detail and "disabled" not in answer.detail.lower()
    if refused and not fitting and not way.open_status:
        kind = {"openai": "OpenAI-compatible ", "ollama": "Ollama "}.get(way.owner, "")
        state, why = "unknown", f"this user has no {kind}model to try it with"
    return Finding(way.path, way.lets_through, state, why, way.closed_by, answer.by_filter)


def judge(answer: Answer, open_status: int = 0) -> tuple[State, str]:
    """What an answer says about a path, and why.

    Args:
        answer: What came back.
        open_status: The status by which Open WebUI's own refusal shows that the path is open.
    """
    said = answer.detail[:100]
    if answer.by_filter:
        # Only what the filter says itself: else Open WebUI or a provider speaks, counted.
        return "closed", said if said and answer.status in FILTER_REFUSALS else COUNTED
    if answer.ok:
        # Some switched-off tasks answer 200 with nothing but the reason.
        only_detail = bool(said) and len(answer.body) == 1
        return ("closed", said) if only_detail else ("open", "it answered")
    if answer.from_open_webui and not said:
        return "open", f"the provider answered, with status {answer.status}"
    if answer.status == open_status and said:
        return "open", "it answered"
    if "Server Connection Error" in said:
        return "open", "Open WebUI tried to reach the provider"
    if not answer.from_open_webui and answer.status in REFUSED:
        return "closed", f"status {answer.status} before Open WebUI"
    if answer.status in REFUSED or "disabled" in said.lower():
        return "closed", said
    return "unknown", f"status {answer.status}{': ' if said else ''}{said}"


def find_automatic_tasks(host: OpenWebUI, guarded: bool) -> Finding:
    """Which tasks Open WebUI does for every chat, unasked, unless the filter guards them."""
    config = host.ask("GET", "/api/v1/tasks/config").body
    values = config if isinstance(config, dict) else {}
    running = [name for switch, name in AUTOMATIC_TASKS.items() if values.get(switch)]
    state: State = "open" if running else "closed" if values else "unknown"
    why = "switched on" if running else "switched off" if values else "can't be seen"
    if running and guarded:
        state, why = "closed", "the filter records them, and asks for none over a limit"
    return Finding(
        "none: with every chat",
        ", ".join(running) or "titles, tags and the like",
        state,
        why,
        "a cheap task model, or Admin Panel > Settings > Interface",
    )


def try_messages(host: OpenWebUI, models: Sequence[Mapping[str, Any]]) -> Finding:
    """Whether Anthropic's protocol gets in uncounted; past no filter that can't be seen."""
    path = "/api/v1/messages"
    model = str(models[0]["id"]) if models else NO_MODEL
    answer = host.ask("POST", path, {"model": model, "messages": MESSAGES, "max_tokens": 1})
    if answer.by_filter:
        return Finding(path, "chats", *judge(answer), PROXY)
    blocked = answer.status in REFUSED and not answer.from_open_webui
    return Finding(
        path,
        "chats over connections that speak Anthropic's or LiteLLM's own protocol",
        "closed" if blocked else "unknown",
        f"status {answer.status} before Open WebUI" if blocked else "depends on the connections",
        PROXY,
    )


def find_media(host: OpenWebUI, permissions: Mapping[str, Any]) -> Iterator[Finding]:
    """Speech, calls and images: by trying where that costs nothing, else by the permissions."""
    chat, features = permissions.get("chat") or {}, permissions.get("features") or {}
    path = "/api/v1/audio/speech"
    state, why = judge(host.ask("POST", path, {"input": "", "voice": "", "model": ""}), 400)
    yield Finding(path, "speech from text", state, why, PERMISSION)
    path = "/api/v1/audio/transcriptions"
    # No sound at all: whoever may transcribe is told that this is no sound.
    nothing = {"file": ("audit.txt", b"", "text/plain")}
    state, why = judge(host.ask("POST", path, files=nothing), 400)
    yield Finding(path, "text from speech", state, why, PERMISSION)
    for path, lets_through, allowed in (
        (
            "/api/v1/audio/realtime",
            "spoken calls, counted where the filter is Global",
            chat.get("call"),
        ),
        ("/api/v1/images/generations", "images", features.get("image_generation")),
    ):
        closed = allowed is False
        yield Finding(
            path,
            lets_through,
            "closed" if closed else "unknown",
            "no permission" if closed else "permitted, if it is set up",
            PERMISSION,
        )
