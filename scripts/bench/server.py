"""End to end: a real Open WebUI with and without the filter, under several clients at once."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import httpx

from scripts.bench.hooks import PASTED, ROOT, VALVES
from scripts.bench.tables import Cell, Section
from scripts.bench.timing import percentile
from scripts.openwebui.admin import OpenWebUIAdmin
from scripts.openwebui.client import OpenWebUIClient
from scripts.openwebui.server import OpenWebUIServer, free_port
from scripts.postgresql import new_postgresql_database

CLIENTS = (1, 8, 32)
FUNCTION = "usage_limits"
EMPTY = "empty"
LONG = "long"  # Open WebUI reads a filter's text from its database several times per request
# It takes what this filter takes: handing that over is most of what a filter costs Open WebUI.
EMPTY_SOURCE = '''"""
title: Empty
version: 1.0
"""
from pydantic import BaseModel


class Filter:
    class Valves(BaseModel):
        priority: int = 0

    class UserValves(BaseModel):
        show_usage: str = "never"

    def __init__(self):
        self.valves = self.Valves()

    async def inlet(
        self, body, __user__=None, __metadata__=None, __model__=None, __event_emitter__=None,
        __request__=None
    ):
        body["stream_options"] = {"include_usage": True}
        return body

    async def request(self, body, __metadata__=None):
        return body

    def stream(self, event, __metadata__=None):
        return event

    async def outlet(self, body, __user__=None, __metadata__=None, __event_emitter__=None):
        return body
'''
VARIANTS = {
    "no filter": (),
    "filter that does nothing": (EMPTY,),
    "the same, as long as this one": (LONG,),
    "this filter": (FUNCTION,),
}
REQUEST = {
    "model": "fake-llm",
    "stream": True,
    "messages": [{"role": "user", "content": "Hello [[chunks=20]]"}],
}


class Provider:
    """The fake provider in a process of its own, so that it doesn't slow the clients down."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Provider:
        command = [sys.executable, "-m", "scripts.provider", "--port", str(self.port)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"{self.url}/models", trust_env=False).is_success:
                    return self
            except httpx.HTTPError:
                time.sleep(0.1)
        self.__exit__()
        raise RuntimeError("the fake provider did not start")

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=10)


async def send_for(
    url: str, tokens: Sequence[str], clients: int, seconds: float
) -> tuple[list[float], int]:
    """Let `clients` send one streaming request after the other; seconds of each, and failures."""
    taken: list[float] = []
    failed = 0
    deadline = time.perf_counter() + seconds
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(url, timeout=timeout) as session:

        async def send(token: str) -> None:
            nonlocal failed
            headers = {"Authorization": f"Bearer {token}"}
            while time.perf_counter() < deadline:
                began = time.perf_counter()
                async with session.post(
                    "/api/chat/completions", json=REQUEST, headers=headers
                ) as response:
                    body = await response.read()
                if response.status == 200 and b"[DONE]" in body:
                    taken.append(time.perf_counter() - began)
                else:
                    failed += 1

        await asyncio.gather(*(send(tokens[number % len(tokens)]) for number in range(clients)))
    return taken, failed


def measure_one(
    url: str, admin: OpenWebUIAdmin, users: Sequence[OpenWebUIClient], rounds: int, seconds: float
) -> dict[tuple[str, int], dict[str, Cell]]:
    """Requests per second and latencies of every variant, which take turns."""
    taken: dict[tuple[str, int], list[float]] = {}
    failures: dict[tuple[str, int], int] = {}
    spent: dict[tuple[str, int], float] = {}
    tokens = [user.account.token for user in users]
    for turn in range(rounds + 1):
        for name, active in VARIANTS.items():
            for function in (FUNCTION, EMPTY, LONG):
                admin.switch_function(function, active=function in active)
            for clients in CLIENTS:
                began = time.perf_counter()
                sending = send_for(url, tokens, clients, seconds if turn else 1.0)
                found, failed = asyncio.run(sending)
                if turn:  # the first only warms up
                    key = (name, clients)
                    taken.setdefault(key, []).extend(found)
                    failures[key] = failures.get(key, 0) + failed
                    spent[key] = spent.get(key, 0.0) + time.perf_counter() - began
    return {
        key: {
            "requests/s": len(values) / spent[key],
            "p50 ms": percentile(values, 50) * 1e3,
            "p95 ms": percentile(values, 95) * 1e3,
            "p99 ms": percentile(values, 99) * 1e3,
            "failed": failures[key],
        }
        for key, values in taken.items()
    }


def start_server(stack: ExitStack, provider: Provider, env: dict[str, str]) -> OpenWebUIServer:
    """A new Open WebUI."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="usage-limits-bench-"))
    server = OpenWebUIServer(provider.url, data_dir=Path(folder), env=env)
    return stack.enter_context(server)


def measure_server(quick: bool, server_url: str) -> Section:
    """Requests per second with and without the filter."""
    section = Section("server", "End to end: a real Open WebUI, streamed API replies of 20 chunks")
    rounds, seconds = (1, 3.0) if quick else (5, 3.0)
    kinds = ("SQLite",) if quick else ("SQLite", "PostgreSQL")
    for kind in kinds:
        with ExitStack() as stack:
            provider = stack.enter_context(Provider())
            env: dict[str, Any] = {}
            if kind == "PostgreSQL":
                # Open WebUI's default of 15 connections is too few for 32 calls at once.
                env = {"DATABASE_POOL_SIZE": "20", "DATABASE_POOL_MAX_OVERFLOW": "20"}
                env["DATABASE_URL"] = stack.enter_context(new_postgresql_database(server_url))
            server = start_server(stack, provider, env)
            admin = OpenWebUIAdmin.sign_up(server.url)
            stack.callback(admin.close)
            admin.publish_models()
            source = PASTED.read_text("utf-8")
            admin.install_function(FUNCTION, source)
            admin.install_function(EMPTY, EMPTY_SOURCE)
            # The filter's own text as comments: what can't be compressed costs more.
            comments = "\n".join(f"# {line}" for line in source.splitlines())
            admin.install_function(LONG, f"{EMPTY_SOURCE}\n{comments}"[: len(source)] + "\n")
            admin.set_valves(FUNCTION, VALVES[5])
            for function in (FUNCTION, EMPTY, LONG):
                admin.switch_function(function, everywhere=True)
            users = [admin.add_user(f"User {n}", f"user{n}@example.org") for n in range(8)]
            found = measure_one(server.url, admin, users, rounds, seconds)
        for clients in CLIENTS:
            for name in VARIANTS:
                section.rows.append(
                    {"database": kind, "clients": clients, "": name, **found[(name, clients)]}
                )
    section.notes.append(
        f"{rounds} turns of {seconds:.0f} s each; five limits; server, clients, provider and "
        "database share the machine's cores. The filters that do nothing have the same parameters "
        "and valves: what they cost, Open WebUI spends on having a filter."
    )
    return section
