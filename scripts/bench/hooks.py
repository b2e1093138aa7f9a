"""What the filter adds to a reply, in the host's own modules, and whether its memory stays flat.

Open WebUI reads its database's address when its modules are imported, so each database is measured
in a process of its own: this module, run as a program, prints what it found as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

from helpers.openwebui.host import host_engine
from scripts.bench.tables import Section
from scripts.bench.timing import percentile
from scripts.postgresql import new_postgresql_database

ROOT = Path(__file__).parents[2]
PASTED = ROOT / "filter_usage_limits.py"
GOAL_MS = {"SQLite": 3.0, "PostgreSQL": 5.0}
GOAL_BYTES_PER_REPLY = 20.0
USER = {"id": "u1", "email": "ann@example.org", "role": "user", "name": "Ann"}
HOST_SETTINGS = {
    "WEBUI_SECRET_KEY": "not-a-secret",
    "OFFLINE_MODE": "true",
    "HF_HUB_OFFLINE": "1",
    "ENABLE_DB_MIGRATIONS": "false",
    "ENABLE_PIP_INSTALL_FRONTMATTER_REQUIREMENTS": "false",
    "GLOBAL_LOG_LEVEL": "WARNING",
    # Several copies of the filter share SQLite's pool here, and each is to keep its connection.
    "DATABASE_POOL_SIZE": "20",
}
# SQLite keeps what it has read of its file, up to 64 MB; that isn't what is to be seen here.
SMALL_CACHE = {
    "DATABASE_SQLITE_PRAGMA_CACHE_SIZE": "-1000",
    "DATABASE_SQLITE_PRAGMA_MMAP_SIZE": "0",
}
VALVES: dict[int, dict[str, Any]] = {
    0: {},
    2: {"daily_token_limit": 10**9, "monthly_token_limit": 10**10},
    5: {
        "policies": "[role.user]\n"
        'limits = ["1000M tokens/day", "10000M tokens/month", "1000M tokens/month on gpt-4*",'
        ' "1000M tokens/5h"]\n'
        '[pool.everyone]\nlimits = ["100000M tokens/month"]\n'
    },
}
STEPS = ("valves", "inlet", "request", "outlet")
BODY = {
    "model": "gpt-4o",
    "stream": True,
    "messages": [
        {"role": "system", "content": "You are a helpful assistant. " * 8},
        {"role": "user", "content": "Explain how a suspension bridge carries its load. " * 6},
    ],
}
CHUNK = {"id": "c1", "choices": [{"index": 0, "delta": {"content": "word "}}]}
LAST_CHUNK = {
    "id": "c1",
    "choices": [],
    "usage": {"prompt_tokens": 120, "completion_tokens": 20, "total_tokens": 140},
}


class EmptyFilter:
    """A filter whose hooks do nothing."""

    class Valves:
        def __init__(self, **_: Any) -> None:
            pass

    async def inlet(self, body: Any, __user__: Any, __metadata__: Any, *_: Any) -> Any:
        return body

    async def request(self, body: Any, __metadata__: Any) -> Any:
        return body

    def stream(self, event: Any, __metadata__: Any) -> Any:
        return event

    async def outlet(self, body: Any, __user__: Any, __metadata__: Any, __emitter__: Any) -> Any:
        return body


async def no_page(_: dict[str, Any]) -> None:
    """An event emitter that nobody reads."""


async def pass_reply(plugin: Any, valves: Mapping[str, Any]) -> list[float]:
    """One reply as the host runs it, in a task of its own: seconds of each step."""
    metadata: dict[str, Any] = {"chat_id": "c", "message_id": "m", "session_id": "s"}
    user, body = dict(USER), {**BODY, "messages": [dict(one) for one in BODY["messages"]]}  # type: ignore[attr-defined]
    marks = [time.perf_counter()]
    plugin.Valves(**valves)  # the host asks for the priority first
    plugin.valves = plugin.Valves(**valves)
    marks.append(time.perf_counter())
    await plugin.inlet(body, user, metadata, {}, no_page)
    marks.append(time.perf_counter())
    await plugin.request(body, metadata)
    marks.append(time.perf_counter())
    for _ in range(20):
        plugin.stream(CHUNK, metadata)
    plugin.stream(LAST_CHUNK, metadata)
    answer = {"id": "m", "role": "assistant", "content": "word " * 20, "usage": LAST_CHUNK["usage"]}
    finished = {"model": "gpt-4o", "id": "m", "chat_id": "c", "messages": [answer]}
    began = time.perf_counter()
    await plugin.outlet(finished, user, metadata, no_page)
    marks.append(time.perf_counter() - began + marks[-1])
    return [later - sooner for sooner, later in pairwise(marks)]


async def load_filter() -> Any:
    """The pasted file, as Open WebUI loads it, on tables of the host's own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the host's own
        db = import_module("open_webui.internal.db")
        for name in ("groups", "users", "functions"):
            import_module(f"open_webui.models.{name}")
        loader = import_module("open_webui.utils.plugin")
    db.Base.metadata.create_all(db.engine)
    loaded = await loader.load_function_module_by_id("usage_limits", PASTED.read_text("utf-8"))
    return loaded[0]


def round_trip_ms() -> float:
    """The median of a statement that does nothing, in this process: what no filter can go below."""
    engine, _ = host_engine("")
    with engine.connect() as connection:
        cursor = connection.connection.cursor()
        taken = []
        for _ in range(1_000):
            began = time.perf_counter()
            cursor.execute("SELECT 1")
            cursor.fetchall()
            taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1e3


async def time_hooks(replies: int) -> dict[str, Any]:
    """Medians per number of limits, in milliseconds; "empty" is a filter that does nothing."""
    filters: dict[str, tuple[Any, dict[str, Any]]] = {"empty": (EmptyFilter(), {})}
    plugin = await load_filter()  # one, as in a host, which sets its valves for each request
    for limits, valves in VALVES.items():
        filters[str(limits)] = (plugin, valves)
    wall: dict[str, list[list[float]]] = {name: [] for name in filters}
    cpu: dict[str, list[float]] = {name: [] for name in filters}
    for number in range(replies + 20):
        for name, (plugin, valves) in filters.items():
            began = time.process_time()
            steps = await asyncio.create_task(pass_reply(plugin, valves))
            used = time.process_time() - began
            if number >= 20:
                wall[name].append(steps)
                cpu[name].append(used)
    trip = round_trip_ms()
    return {
        name: {
            "round trip": trip,
            "ms": statistics.median(sum(steps) for steps in wall[name]) * 1e3,
            "quiet": percentile([sum(steps) for steps in wall[name]], 10) * 1e3,
            "cpu": statistics.median(cpu[name]) * 1e3,
            **{
                step: statistics.median(steps[index] for steps in wall[name]) * 1e3
                for index, step in enumerate(STEPS)
            },
        }
        for name in filters
    }


def resident_bytes() -> int:
    """How much memory this process has in use."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def living_replies() -> int:
    """How many replies haven't been freed."""
    gc.collect()
    return sum(type(one).__name__ == "Reply" for one in gc.get_objects())


async def watch_memory(replies: int) -> dict[str, Any]:
    """Memory at eleven moments while `replies` pass, and what is left of them."""
    plugin, valves = await load_filter(), VALVES[5]
    seen = []
    step = replies // 10
    for number in range(replies + 1):
        if number % step == 0:
            gc.collect()
            blocks = sys.getallocatedblocks()
            seen.append({"replies": number, "bytes": resident_bytes(), "blocks": blocks})
        await asyncio.create_task(pass_reply(plugin, valves))
    return {"seen": seen, "living": living_replies()}


def run_in_own_process(database_url: str | None, *arguments: str, timeout: int) -> Any:
    """Run this module on a database and read what it found."""
    with tempfile.TemporaryDirectory(prefix="usage-limits-bench-") as folder:
        environment = {**os.environ, **HOST_SETTINGS, "DATA_DIR": folder}
        if "--memory" in arguments:
            environment |= SMALL_CACHE
        environment.pop("DATABASE_URL", None)
        if database_url:
            environment["DATABASE_URL"] = database_url
        done = subprocess.run(
            [sys.executable, "-m", "scripts.bench.hooks", *arguments],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            timeout=timeout,
            check=True,
        )
    return json.loads(done.stdout.splitlines()[-1])


def measure_hooks(quick: bool, server_url: str) -> Section:
    """Milliseconds that the hooks add to a reply, on both databases."""
    section = Section("hooks", "Hooks: ms added to a reply (medians, wall time)")
    replies = 200 if quick else 1_000
    for kind in ("SQLite", "PostgreSQL"):
        arguments = ("--replies", str(replies))
        if kind == "SQLite":
            found = run_in_own_process(None, *arguments, timeout=1_200)
        else:
            with new_postgresql_database(server_url) as url:
                found = run_in_own_process(url, *arguments, timeout=1_200)
        empty = found["empty"]
        for limits in VALVES:
            ours = found[str(limits)]
            section.rows.append(
                {
                    "database": kind,
                    "limits": limits,
                    "added": ours["ms"] - empty["ms"],
                    "added, quietest tenth": ours["quiet"] - empty["quiet"],
                    **{step: ours[step] for step in STEPS},
                    "own processor time": ours["cpu"] - empty["cpu"],
                    "SELECT 1": ours["round trip"],
                }
            )
        section.judge(f"{kind}, 5 limits", float(section.rows[-1]["added"]), GOAL_MS[kind], "ms")
    section.notes.append(
        f"The pasted file in Open WebUI's own modules, {replies} replies per row, all rows of a "
        "database and a filter that does nothing in turn. Own processor time includes the 21 "
        "chunks of each reply, not PostgreSQL's. A reply is ten statements; SELECT 1 is how long "
        "the least of them takes, from cursor to rows, after the rest has been measured."
    )
    return section


def measure_memory(quick: bool) -> Section:
    """Memory while many replies pass."""
    section = Section("memory", "Memory while replies pass (SQLite, five limits)")
    replies = 5_000 if quick else 100_000
    found = run_in_own_process(None, "--memory", str(replies), timeout=3_600)
    for moment in found["seen"]:
        section.rows.append(
            {
                "replies": moment["replies"],
                "resident MB": moment["bytes"] / 1_000_000,
                "blocks of Python's memory": moment["blocks"],
            }
        )
    warm, last = found["seen"][2], found["seen"][-1]
    growth = (last["bytes"] - warm["bytes"]) / (last["replies"] - warm["replies"])
    if not quick:  # the first thousands fill caches
        section.judge(
            "growth after the first fifth", growth, GOAL_BYTES_PER_REPLY, "bytes per reply"
        )
    section.judge("replies not freed", float(found["living"]), 1.0, "")
    return section


def main() -> None:
    """Measure in this process and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replies", type=int, default=0)
    parser.add_argument("--memory", type=int, default=0)
    arguments = parser.parse_args()
    work = watch_memory(arguments.memory) if arguments.memory else time_hooks(arguments.replies)
    print(json.dumps(asyncio.run(work)))


if __name__ == "__main__":
    main()
