"""Numbers that a client makes up: none of them reaches the ledger of a real Open WebUI."""

from __future__ import annotations

from typing import Any

import pytest

from scripts.openwebui.client import OpenWebUIClient
from scripts.openwebui.page import Page, Turn
from tests.conftest import InstalledFilter, MakeUser

EXACT = "[[in=20 tokens=30]]"
INVENTED = {"input_tokens": -5000, "output_tokens": 0, "prompt_tokens": -5000, "total_tokens": 1}


def completed_body(turn: Turn, page: Page) -> dict[str, Any]:
    """What the page used to post when a reply was complete, with usage of its own making."""
    message = {
        "id": turn.reply.message_id,
        "role": "assistant",
        "content": "",
        "usage": INVENTED,
    }
    return {
        "model": "fake-llm",
        "messages": [{"id": "u", "role": "user", "content": "x"}, message],
        "chat_id": turn.chat_id,
        "session_id": page.session_id,
        "id": turn.reply.message_id,
        "metadata": {"usage_limits": {"reservation": "x"}},
        "usage_limits": {"reservation": "x"},
    }


def test_posted_outlet_changes_nothing(
    usage_limits: InstalledFilter, user: OpenWebUIClient, page: Page
) -> None:
    """`POST /api/chat/completed` runs the outlet with a client's numbers and charges nothing."""
    turn = page.send(EXACT)
    before = usage_limits.settled(1, user_id=user.id)
    for _ in range(2):
        response = user.http.post("/api/chat/completed", json=completed_body(turn, page))
        assert response.status_code == 200
    assert usage_limits.rows(user_id=user.id) == before


def test_posted_outlet_cannot_settle_a_running_reply(
    usage_limits: InstalledFilter, user: OpenWebUIClient, page: Page
) -> None:
    """A client can't end the reservation of its own running reply with invented usage."""
    turn = page.send("[[chunks=20 delay=0.1 in=20 tokens=30]]", wait=False)
    page.wait_for(lambda: bool(turn.reply.streamed))
    user.http.post("/api/chat/completed", json=completed_body(turn, page))
    assert [row["state"] for row in usage_limits.rows(user_id=user.id)] == ["reserved"]
    page.wait(turn)
    row = usage_limits.settled(1, user_id=user.id)[0]
    assert (row["input_tokens"], row["output_tokens"]) == (20, 30)


def test_outlet_for_another_users_message_changes_nothing(
    usage_limits: InstalledFilter, user: OpenWebUIClient, page: Page, make_user: MakeUser
) -> None:
    """What one user posts for the message of another touches neither's records."""
    other = make_user()
    turn = page.send(EXACT)
    before = usage_limits.settled(1, user_id=user.id)
    other.http.post("/api/chat/completed", json=completed_body(turn, page))
    assert usage_limits.rows(user_id=user.id) == before
    assert usage_limits.rows(user_id=other.id) == []


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "metadata",
    [
        {"usage_limits": {"reservation": "x"}},
        {"user_id": "someone-else", "usage_limits": "x"},
        {"task": "title_generation", "chat_id": "local:x", "session_id": "x"},
        "rubbish",
    ],
)
def test_metadata_of_a_client_is_not_believed(
    usage_limits: InstalledFilter, user: OpenWebUIClient, stream: bool, metadata: Any
) -> None:
    """A client that sends its own metadata is counted and refused like any other."""
    usage_limits.configure(daily_token_limit=40)
    assert user.chat(EXACT, stream=stream, metadata=metadata).status == 200
    row = usage_limits.settled(1, user_id=user.id)[0]
    assert (row["user_id"], row["input_tokens"], row["output_tokens"]) == (user.id, 20, 30)
    assert user.chat(EXACT, stream=stream, metadata=metadata).status == 429
