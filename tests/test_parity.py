"""A day of mixed chats on a real Open WebUI: the ledger equals the provider's own books."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from rich.console import Console
from rich.table import Table

from scripts.open_webui_admin import OpenWebUIAdmin
from scripts.open_webui_client import OpenWebUIClient
from scripts.page_client import Page
from scripts.stand_in_provider import StandInProvider
from tests.conftest import InstalledFilter, MakeUser, OpenPage
from tests.test_bench import CLOCK

USERS = 4
CHATS_PER_USER = 50


def day_of_chats(user: OpenWebUIClient, page: Page, seed: int) -> Counter[str]:
    """Fifty chats of every kind, with a provider that reports usage; returns how many of each."""
    dice = random.Random(seed)
    kinds: Counter[str] = Counter()

    def text() -> str:
        usage = dice.choice(["asked", "final", "running"])
        return (
            f"of {user.id} [[in={dice.randint(1, 999)} tokens={dice.randint(1, 99)} usage={usage}]]"
        )

    last = page.send(text())
    kinds["page"] += 1
    actions: dict[str, Callable[[], object]] = {
        "page": lambda: page.send(text()),
        "follow-up": lambda: page.send(text(), after=last),
        "temporary": lambda: page.send(text(), temporary=True),
        "several models": lambda: page.send(text(), models=["stand-in", "stand-in-large"]),
        "tools": lambda: page.send(
            text().replace("]]", " tool=get_time rounds=2]]"), tools=["clock"]
        ),
        "regenerate": lambda: page.regenerate(last),
        "continue": lambda: page.continue_reply(last),
        "API": lambda: user.chat(text()),
        "API stream": lambda: user.chat(text(), stream=True),
        "API messages": lambda: user.chat(text(), path="/api/v1/messages", max_tokens=99),
        "API messages stream": lambda: user.chat(
            text(), path="/api/v1/messages", max_tokens=99, stream=True
        ),
    }
    while kinds.total() < CHATS_PER_USER:
        kind = dice.choice(list(actions))
        actions[kind]()
        kinds[kind] += 1
    return kinds


def test_ledger_equals_the_providers_books(
    usage_limits: InstalledFilter,
    admin: OpenWebUIAdmin,
    make_user: MakeUser,
    open_page: OpenPage,
    provider: StandInProvider,
) -> None:
    """After 200 chats of every kind each user's tokens and calls agree to the token."""
    admin.install_tool("clock", CLOCK)
    users = [make_user(f"User {number}") for number in range(USERS)]
    pages = [open_page(user) for user in users]
    with ThreadPoolExecutor(USERS) as threads:
        kinds = sum(threads.map(day_of_chats, users, pages, range(USERS)), Counter())
    assert kinds.total() == USERS * CHATS_PER_USER
    table = Table("user", "calls", "provider in", "ledger in", "provider out", "ledger out")
    differences = []
    for user in users:
        rows = usage_limits.settled(CHATS_PER_USER, user_id=user.id)
        calls = provider.books.calls(contains=f"of {user.id}")
        theirs = (
            sum(call.prompt_tokens for call in calls),
            sum(call.completion_tokens for call in calls),
        )
        ours = (
            sum(row["input_tokens"] for row in rows),
            sum(row["output_tokens"] for row in rows),
        )
        table.add_row(
            user.account.name,
            str(len(calls)),
            *(f"{number:,}" for pair in zip(theirs, ours, strict=True) for number in pair),
        )
        differences += [user.account.name] * (ours != theirs or any(r["estimated"] for r in rows))
    Console(width=100).print(table, dict(kinds))
    assert differences == []
