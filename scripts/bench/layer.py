"""What the layer around Open WebUI costs a request that is none of its business."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any

from helpers.filter import Filter
from helpers.openwebui.middleware import UsageLimitsLayer
from helpers.openwebui.passthrough_guard import PassthroughGuard
from helpers.openwebui.stream_usage import UnaskedModels
from scripts.bench.tables import Section

GOAL_MICROSECONDS = 20.0
REQUESTS_PER_ROUND = 2_000
PATHS = {
    "a page's file": ("GET", "/static/favicon.png"),
    "the API": ("POST", "/api/v1/chats/5f0c1a52-1d1c-4f0e-9a52-3f1f3b7d2c11"),
    "an administrator's page": ("GET", "/openai/config"),
    "a socket": ("POST", "/ws/socket.io/"),
}


async def answer_nothing(scope: Any, receive: Any, send: Any) -> None:
    """An app that does nothing."""


def measure_layer(quick: bool) -> Section:
    """Microseconds per request and kind of request."""
    section = Section("layer", "Layer around Open WebUI: µs per request that it lets pass")
    limits = Filter()
    guard = PassthroughGuard("usage_limits", limits.admit_call, limits.ledger_of, UnaskedModels())
    apps = {"with": UsageLimitsLayer(answer_nothing, {"usage_limits": guard})}

    async def seconds(app: Any, method: str, path: str) -> float:
        began = time.process_time()
        for _ in range(REQUESTS_PER_ROUND):
            await app({"type": "http", "method": method, "path": path}, None, None)
        return (time.process_time() - began) / REQUESTS_PER_ROUND * 1e6

    for name, (method, path) in PATHS.items():
        found: dict[str, list[float]] = {"with": [], "without": []}
        for _ in range(20 if quick else 100):
            found["with"].append(asyncio.run(seconds(apps["with"], method, path)))
            found["without"].append(asyncio.run(seconds(answer_nothing, method, path)))
        added = statistics.median(found["with"]) - statistics.median(found["without"])
        section.rows.append({"request": name, "added": added})
        section.judge(name, added, GOAL_MICROSECONDS, "µs")
    section.notes.append(f"Processor time; medians of rounds of {REQUESTS_PER_ROUND:,} requests.")
    return section
