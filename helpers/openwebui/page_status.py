"""How the filter stands in its host: versions, what is leaned upon, ways to a model."""

from __future__ import annotations

import re
import sys

from helpers.openwebui.host import host_version
from helpers.openwebui.host_versions import HOST_INTERNALS, OLDEST_HOST_VERSION
from helpers.openwebui.page_data import PageRequest
from helpers.openwebui.page_limits import Json

SERVER_MODULE = "open_webui.main"
# The pasted file's own first lines, where Open WebUI has read them.
FRONTMATTER_VERSION = re.compile(r"^version: (\S+)$", re.MULTILINE)
WAYS = {
    "count": ("counted", "like chats; what can't be counted is blocked"),
    "block": ("blocked", "the valve passthrough allows no such calls"),
    "allow": ("recorded", "never refused"),
}


def own_version() -> str:
    """The pasted file's version; "" where these modules run by themselves."""
    found = FRONTMATTER_VERSION.search(__doc__ or "")
    return found[1] if found else ""


def missing_internals() -> list[str]:
    """What this Open WebUI should have and has elsewhere, each with what doesn't work for it."""
    version, missing = host_version(), []
    if SERVER_MODULE not in sys.modules:
        return []
    for internal in HOST_INTERNALS:
        if version > (0, 0, 0) and version < internal.since:
            continue
        found: object = sys.modules.get(internal.module)
        for part in internal.name.split("."):
            found = getattr(found, part, None)
        if found is None:
            missing.append(f"{internal.module}.{internal.name} ({internal.used_for})")
    return missing


def host_status(asked: PageRequest) -> Json:
    """Versions, checks and the ways to a model, for administrators."""
    valves, version, missing = asked.data.valves, host_version(), missing_internals()
    # Whether it is so, what is said then, and what if not.
    checks = [
        (
            asked.everywhere,
            "The filter is on for all models.",
            "The filter is on for some models only: others have no limits.",
        ),
        (
            not missing,
            "Open WebUI has everything that the filter needs.",
            f"Open WebUI has moved: {'; '.join(missing)}.",
        ),
        (not valves.shadow_mode, "Limits are enforced.", "Shadow mode is on: nobody is refused."),
    ]
    if (0, 0, 0) < version < OLDEST_HOST_VERSION:
        checks.append((False, "", "This version of Open WebUI is too old."))
    ways = [
        ("chats", "counted", "the page, the API, Anthropic's protocol, voice calls"),
        *(
            (path, *WAYS[valves.passthrough])
            for path in ("/openai/*", "/ollama/*", "/api/v1/tasks/*/completions", "/api/embeddings")
        ),
        (
            "titles, tags and other tasks",
            "counted" if valves.policy_set.tasks_counted else "recorded",
            "over a hard limit they call no model",
        ),
    ]
    return {
        "version": own_version(),
        "open_webui": ".".join(map(str, version)),
        "ledger": asked.data.accounting.database_kind
        + (", a database of its own" if valves.database_url else ", Open WebUI's own database"),
        "checks": [{"ok": ok, "text": good if ok else bad} for ok, good, bad in checks],
        "doors": [{"name": name, "state": state, "detail": detail} for name, state, detail in ways],
        "missing": missing,
    }
