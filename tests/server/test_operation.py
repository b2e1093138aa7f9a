"""Operation in a real Open WebUI: caps, alerts, models' weights and prices, a broken ledger."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect

from helpers.ledger.database import open_database
from helpers.ledger.tables import records_table
from scripts.openwebui.client import OpenWebUIClient
from scripts.openwebui.page import Page
from scripts.openwebui.server import OpenWebUIServer
from scripts.provider.server import FakeProvider
from tests.conftest import InstalledFilter, MakeUser, wait_until

FIFTY = "[[in=20 tokens=30]]"


def test_reply_is_capped_to_what_remains(
    usage_limits: InstalledFilter, user: OpenWebUIClient, page: Page, provider: FakeProvider
) -> None:
    """With `cap_max_tokens` a request's max_tokens is lowered to what remains, never raised."""
    usage_limits.configure(daily_token_limit=200, cap_max_tokens=True)
    reply = page.send(f"first of {user.id} {FIFTY}").reply
    (call,) = provider.call_log.calls(contains=f"first of {user.id}")
    assert call.max_tokens is not None
    assert 100 < call.max_tokens < 200
    assert reply.statuses[0] == f"This response can have at most {call.max_tokens} tokens."
    user.chat(f"second of {user.id} {FIFTY}", max_tokens=40)
    (call,) = provider.call_log.calls(contains=f"second of {user.id}")
    assert call.max_tokens == 40
    user.chat(f"third of {user.id} {FIFTY}", max_tokens=4_000, max_completion_tokens=4_000)
    (call,) = provider.call_log.calls(contains=f"third of {user.id}")
    assert call.max_tokens is not None
    assert call.max_tokens < 100


def test_what_a_running_reply_holds_is_said_so(
    usage_limits: InstalledFilter, user: OpenWebUIClient, page: Page
) -> None:
    """Who is refused only for what a running reply holds is told that, and to try again soon."""
    usage_limits.configure(daily_token_limit=300, cap_max_tokens=True)
    turn = page.send("[[chunks=20 delay=0.1]]", wait=False)
    page.wait_for(lambda: bool(turn.reply.streamed))
    refused = user.chat("Hello")
    assert refused.status == 429
    assert "Running responses hold the rest" in refused.error
    assert int(refused.headers["retry-after"]) <= 10
    page.wait(turn)


def test_free_model_stays_usable(
    usage_limits: InstalledFilter, user: OpenWebUIClient, page: Page
) -> None:
    """A model of weight 0 can be used when everything else is used up, and is on record."""
    usage_limits.configure(
        policies='[role.user]\nlimits = ["50 tokens/day", "2 requests/day"]\n'
        '[model."*-free"]\nweight = 0\n[model."*-large"]\nweight = 3'
    )
    assert user.chat(FIFTY, model="fake-llm-large").status == 200
    assert user.chat(FIFTY).status == 429
    assert [user.chat(FIFTY, model="fake-llm-free").status for _ in range(3)] == [200] * 3
    rows = usage_limits.settled(4, user_id=user.id)
    assert [row["weighted_input_tokens"] for row in rows] == [60, 0, 0, 0]
    assert [row["input_tokens"] for row in rows] == [20] * 4


def test_money_is_counted_by_price(usage_limits: InstalledFilter, user: OpenWebUIClient) -> None:
    """A limit in dollars counts the administrator's prices, and else what the provider reports."""
    usage_limits.configure(
        policies='[role.user]\nlimits = ["$0.001/day"]\n'
        '[model."*-large"]\ninput_price = 2.5\noutput_price = 10'
    )
    assert user.chat(FIFTY, model="fake-llm-large").status == 200
    usage = {"prompt_tokens": 20, "completion_tokens": 30, "total_tokens": 50, "cost": 0.0007}
    directive = f"[[raw_usage='{json.dumps(usage)}']]"
    assert user.chat(directive).status == 200
    assert [row["cost_micros"] for row in usage_limits.settled(2, user_id=user.id)] == [350, 700]
    refused = user.chat(FIFTY)
    assert refused.error.startswith("You've reached your limit of $0.001 per day.")


def test_pool_is_shared(usage_limits: InstalledFilter, make_user: MakeUser) -> None:
    """What one member of a group uses counts against the group's pool for all."""
    ann, bob, eve = make_user(groups=["Lab"]), make_user(groups=["Lab"]), make_user()
    usage_limits.configure(policies='[pool.lab]\ngroup = "Lab"\nlimits = ["60 tokens/day"]')
    assert [user.chat(FIFTY).status for user in (ann, bob)] == [200, 200]
    refused = bob.chat(FIFTY)
    assert refused.error.startswith("You've reached the shared limit of 60 tokens per day (lab).")
    assert eve.chat(FIFTY).status == 200


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A chat system's webhook, which fails the first time, and what it was told."""
    told: list[dict[str, Any]] = []
    asked = 0

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            nonlocal asked
            asked += 1
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if asked > 1:
                told.append(body)
            self.send_response(200 if asked > 1 else 503)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook-secret", told
    server.shutdown()
    server.server_close()
    thread.join()


def test_administrator_is_alerted(
    usage_limits: InstalledFilter,
    user: OpenWebUIClient,
    webhook: tuple[str, list[dict[str, Any]]],
    server: OpenWebUIServer,
) -> None:
    """Crossing a soft and a hard limit is told once each, by API too, retried if need be."""
    url, told = webhook
    usage_limits.configure(daily_token_limit=110, soft_limit_percent=40, alert_webhook_url=url)
    for _ in range(3):
        assert user.chat(FIFTY).status == 200
    assert user.chat(FIFTY).status == 429
    wait_until(lambda: len(told) == 2)
    email = user.account.email
    assert [(alert["event"], alert["user_email"], alert["percent"]) for alert in told] == [
        ("soft_limit", email, 45),
        ("hard_limit", email, 136),
    ]
    assert told[0]["text"] == f"{email} has used 45% of the limit of 110 tokens/day."
    assert "hook-secret" not in server.log()


@pytest.mark.parametrize(("choice", "status"), [("allow", 200), ("block", 503)])
def test_ledger_that_cannot_be_written(
    usage_limits: InstalledFilter,
    user: OpenWebUIClient,
    server: OpenWebUIServer,
    choice: str,
    status: int,
) -> None:
    """While the ledger can't be reached, requests go on or are refused, as the valve says."""
    usage_limits.configure(
        daily_token_limit=10,
        on_ledger_error=choice,
        database_url="postgresql://joe:pg-secret@127.0.0.1:1/nowhere",
    )
    answered = user.chat(FIFTY)
    assert answered.status == status
    if choice == "block":
        assert "can't be recorded at the moment" in answered.error
        assert int(answered.headers["retry-after"]) > 0
    assert "was not reserved for" in server.log()
    assert "pg-secret" not in server.log()


def test_use_during_an_outage_is_written_later(
    usage_limits: InstalledFilter, user: OpenWebUIClient, tmp_path: Path
) -> None:
    """What was let through while the ledger was away is on record once it is back."""
    folder = tmp_path / "not-there-yet"
    usage_limits.configure(daily_token_limit=60, database_url=f"sqlite:///{folder / 'ledger.db'}")
    assert [user.chat(FIFTY).status for _ in range(3)] == [200] * 3
    folder.mkdir()
    later = InstalledFilter(usage_limits.admin, folder / "ledger.db")
    engine = open_database(later.database)
    wait_until(lambda: inspect(engine).has_table(records_table.name), timeout=60)
    engine.dispose()
    rows = later.settled(3, user_id=user.id)
    assert [(row["input_tokens"], row["output_tokens"]) for row in rows] == [(20, 30)] * 3
    assert user.chat(FIFTY).status == 429


def test_user_setting_is_in_the_user_language(
    usage_limits: InstalledFilter, user: OpenWebUIClient
) -> None:
    """The form of a user's own setting is in the browser's language, and saves what it offers."""
    path = f"/api/v1/functions/id/{usage_limits.id}/valves/user/spec"
    usage_limits.configure()
    user.models()  # the function is loaded, and its layer in place
    for header, title in (("de-AT,de;q=0.9,en;q=0.8", "Nutzung anzeigen"), ("xx", "Show usage")):
        spec = user.http.get(path, headers={"Accept-Language": header}).json()
        field = spec["properties"]["show_usage"]
        assert field["title"] == title
    options = [option["value"] for option in field["input"]["options"]]
    assert options == ["near_limit", "always", "never"]
    user.set_user_valves(usage_limits.id, {"show_usage": options[1]})
