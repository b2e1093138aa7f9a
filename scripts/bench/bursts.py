"""Bursts: how far replies that are written at once go over a limit, by the provider's own count."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count
from typing import Any

from scripts.bench.hooks import PASTED
from scripts.bench.server import FUNCTION
from scripts.bench.tables import Section
from scripts.openwebui.admin import OpenWebUIAdmin
from scripts.openwebui.client import ApiReply, OpenWebUIClient
from scripts.openwebui.server import OpenWebUIServer
from scripts.provider.server import FakeProvider

# Words of one token each.
WORDS = (
    "they could see the garden from the window of the kitchen where the morning light came in "
    "first "
)
TOKENS_PER_CHUNK = 18
# How many chunks replies have, which nobody but the provider knows.
LENGTHS = (5, 10, 15, 25, 40, 60, 80, 120)
LONGEST = LENGTHS[-1]
SECONDS_PER_CHUNK = 0.25
GOAL_STOP, GOAL_USED, GOAL_FINISH = 102.0, 90.0, 125.0
MARKERS = count()


def new_marker() -> str:
    """A text that no other burst's calls have."""
    return f"burst {next(MARKERS)};"


def script_lengths(provider: FakeProvider, seconds: float = SECONDS_PER_CHUNK) -> None:
    """Let the provider answer "length N;" in N chunks, and report no usage."""
    provider.rules.clear()
    for length in LENGTHS:
        text = (WORDS * length).strip() + " "
        provider.script(
            contains=f"length {length};",
            reply=text,
            chunks=length,
            delay=seconds,
            usage="none",
        )


def stream_at_once(
    url: str, user: OpenWebUIClient, marker: str, lengths: list[int], model: str = "fake-llm"
) -> list[ApiReply]:
    """As many streams at the same moment, each over a connection of its own."""

    def stream(length: int) -> ApiReply:
        with closing(OpenWebUIClient(url, user.account, timeout=300)) as client:
            return client.chat(f"{marker} length {length};", stream=True, model=model)

    with ThreadPoolExecutor(len(lengths)) as threads:
        return list(threads.map(stream, lengths))


def sent_tokens(provider: FakeProvider, marker: str) -> int:
    """What the provider has read and sent for the calls with a text."""
    calls = provider.call_log.wait_until_ended(contains=marker, timeout=120)
    return sum(call.prompt_tokens + call.chunks_sent * TOKENS_PER_CHUNK for call in calls)


def random_lengths(streams: int) -> list[int]:
    """Lengths of many streams, the same ones each time."""
    return random.Random(15).choices(LENGTHS, k=streams)


def measure_bursts(quick: bool) -> Section:
    """Per cent of a limit that are used in the end, by the provider's count."""
    section = Section("bursts", "Bursts: what replies that are written at once use of a limit")
    many = 40 if quick else 100
    # Valves, model, lengths of the replies before, the limit, lengths of those at once.
    long, most = [LONGEST] * 20, [LONGEST, LONGEST, LONGEST, 80]
    bursts: dict[str, tuple[dict[str, Any], str, list[int], int, list[int]]] = {
        "finish, nothing known of any reply": ({}, "fake-llm-large", [], 10_000, long),
        "finish, its replies are known": ({}, "fake-llm", [LONGEST], 10_000, long),
        "finish, a model never seen": ({}, "fake-llm-free", [], 10_000, long),
        "finish, 8,000 of 10,000 used": ({}, "fake-llm", most, 10_000, long),
        "cap_max_tokens": ({"cap_max_tokens": True}, "fake-llm", [], 10_000, long),
        "stop": ({"running_replies": "stop"}, "fake-llm", [], many * 300, random_lengths(many)),
    }
    with FakeProvider() as provider, OpenWebUIServer(provider.url) as server:
        script_lengths(provider)
        with closing(OpenWebUIAdmin.sign_up(server.url)) as admin:
            admin.publish_models()
            admin.install_function(FUNCTION, PASTED.read_text(encoding="utf-8"))
            admin.switch_function(FUNCTION, active=True, everywhere=True)
            for number, (name, burst) in enumerate(bursts.items()):
                valves, model, before, limit, lengths = burst
                policies = f'[role.user]\nlimits = ["{limit} tokens/day"]'
                admin.set_valves(FUNCTION, {"policies": policies, **valves})
                user, marker = admin.add_user(name, f"u{number}@example.org"), new_marker()
                for length in before:
                    stream_at_once(server.url, user, marker, [length])
                replies = stream_at_once(server.url, user, marker, lengths, model)
                used = 100 * sent_tokens(provider, marker) / limit
                section.rows.append(
                    {
                        "replies that run over a limit": name,
                        "at once": len(lengths),
                        "limit, tokens": limit,
                        "used, %": used,
                        "refused": sum(reply.status >= 400 for reply in replies),
                    }
                )
                time.sleep(1)
    shares = {name: float(row["used, %"]) for name, row in zip(bursts, section.rows, strict=True)}
    section.judge("stop", shares["stop"], GOAL_STOP, "%")
    section.judge("stop", shares["stop"], GOAL_USED, "%", least=True)
    known = max(share for name, share in shares.items() if "are known" in name or "used" in name)
    section.judge("finish, a model seen before", known, GOAL_FINISH, "%")
    section.notes.append(
        "A real Open WebUI on SQLite; by the provider's own count, prompts included. Long replies "
        f"have {LONGEST * TOKENS_PER_CHUNK:,} tokens, those of `stop` 90 to "
        f"{LONGEST * TOKENS_PER_CHUNK:,}. One gateway documents that requests at once end at up "
        "to 120 % of a limit."
    )
    return section
