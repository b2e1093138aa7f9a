"""A day of mixed chats on a real Open WebUI: the ledger equals the provider's own database."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from rich.console import Console
from rich.table import Table

from scripts.openwebui.admin import OpenWebUIAdmin
from scripts.openwebui.client import OpenWebUIClient
from scripts.openwebui.page import Page
from scripts.provider.server import FakeProvider
from tests.commands.test_bench import CLOCK
from tests.conftest import InstalledFilter, MakeUser, OpenPage

USERS = 4
CHATS_PER_USER = 50
TOOLS = [{"type": "function", "function": {"name": "get_time", "parameters": {}}}]


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
        "several models": lambda: page.send(text(), models=["fake-llm", "fake-llm-large"]),
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
        "API tool calls": lambda: user.chat(text().replace("]]", " tool=get_time]]"), tools=TOOLS),
        "pass-through path": lambda: user.chat(text(), path="/openai/chat/completions"),
        "pass-through path stream": lambda: user.chat(
            text(), path="/openai/chat/completions", stream=True
        ),
        "pass-through path of responses": lambda: user.chat(
            text(), path="/openai/responses", input=text()
        ),
        "title, tags, follow-ups": lambda: page.send(text(), background_tasks=True),
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
    provider: FakeProvider,
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
        calls = provider.call_log.calls(contains=f"of {user.id}", tasks=True)
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


def test_ledger_equals_the_analytics(
    usage_limits: InstalledFilter,
    admin: OpenWebUIAdmin,
    page: Page,
    user: OpenWebUIClient,
    provider: FakeProvider,
) -> None:
    """Where Open WebUI's own analytics count rightly, the ledger shows the same tokens by model."""
    admin.install_tool("clock", CLOCK)
    model = f"counted-{user.id[:8]}"
    admin.set_model(model, base_model_id="fake-llm")
    last = page.send("[[in=11 tokens=7]]", models=[model])
    for number in range(5):
        last = page.send(f"[[in={number + 20} tokens=9]]", models=[model], after=last)
    page.send("[[in=30 tokens=5 tool=get_time rounds=2]]", models=[model], tools=["clock"])
    page.regenerate(last)
    rows = usage_limits.settled(8, user_id=user.id)
    tokens = admin.get("/api/v1/analytics/tokens")["models"]
    theirs = next(entry for entry in tokens if entry["model_id"] == model)
    admin.delete_model(model)
    assert theirs["message_count"] == len(rows)
    assert theirs["input_tokens"] == sum(row["input_tokens"] for row in rows)
    assert theirs["output_tokens"] == sum(row["output_tokens"] for row in rows)


def test_records_are_kept(
    usage_limits: InstalledFilter, admin: OpenWebUIAdmin, make_user: MakeUser, open_page: OpenPage
) -> None:
    """Deleted chats and users, left groups, other limits and zones change no record."""
    user = make_user(groups=["Keepers"])
    usage_limits.configure(policies='[group.Keepers]\nlimits = ["1k tokens/day"]')
    turn = open_page(user).send("[[in=11 tokens=7]]")
    before = usage_limits.settled(1, user_id=user.id)
    user.delete_chat(turn.chat_id)
    admin.remove_from_group(admin.groups()["Keepers"], [user.id])
    usage_limits.configure(daily_token_limit=5, timezone="Pacific/Auckland", reset_hour=5)
    refused = user.chat("Hello")
    assert "5 tokens per day" in refused.error
    admin.delete_user(user.id)
    assert usage_limits.rows(user_id=user.id) == before
