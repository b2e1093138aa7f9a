"""Alerts: one for a pool however many cross it, and a webhook that makes nobody wait."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from helpers.ledger.database import open_database
from helpers.ledger.ledger import Ledger
from helpers.openwebui.alerts import MOST_QUEUED_ALERTS, AlertSender, alert_payload
from tests.conftest import InstalledFilter, MakeUser, wait_until
from tests.server.test_operation import webhook
from tests.support.ledger_fixture import Clock, LedgerFixture, tokens

__all__ = ["webhook"]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def silent_url() -> Iterator[str]:
    """A web address that takes a connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/hook"


def test_pool_is_told_once_and_names_nobody(tmp_path: Path) -> None:
    """Of a pool that many members cross the administrator is told once, of none of them."""
    engine: Engine = open_database(f"sqlite:///{tmp_path / 'ledger.db'}")
    clock = Clock()
    fixture = LedgerFixture(Ledger(engine, clock=clock), engine, clock)
    payloads = []
    for user in ("ann", "bob", "cleo"):
        reservation = fixture.reservation(user)
        limits = fixture.limits(reservation, pool="100 tokens/day")
        used = tokens(90, 0)
        fixture.ledger.reserve(reservation, lambda _, used=used: used, limits, enforce=False)
        settled = fixture.ledger.settle(reservation, used, limits, alert_percent=80)
        payloads += [alert_payload(reservation, state) for state in settled.crossed]
    engine.dispose()
    assert [payload["event"] for payload in payloads] == ["soft_limit", "hard_limit"]
    assert all("everyone" in str(payload["text"]) for payload in payloads)
    assert not [payload for payload in payloads if "ann" in str(payload) or "bob" in str(payload)]


def test_pool_alert_in_a_real_server(
    usage_limits: InstalledFilter,
    make_user: MakeUser,
    webhook: tuple[str, list[dict[str, object]]],
) -> None:
    """Three members who cross a pool one after the other are one alert."""
    url, told = webhook
    policies = '[pool.alerted]\ngroup = "Alerted"\nlimits = ["40 tokens/day"]'
    usage_limits.configure(policies=policies, alert_webhook_url=url)
    first, *others = [make_user(groups=["Alerted"]) for _ in range(3)]
    assert first.chat("[[in=20 tokens=30]]").status == 200
    assert [other.chat("[[in=20 tokens=30]]").status for other in others] == [429] * 2
    wait_until(lambda: bool(told))
    assert len(told) == 1
    assert first.account.email not in str(told)


def test_queue_is_bounded(silent_url: str) -> None:
    """More alerts than a dead webhook takes are dropped, at once."""
    sender = AlertSender()
    for _ in range(3 * MOST_QUEUED_ALERTS):
        sender.send(silent_url, {"text": "x"})
    waiting = [each for each in threading.enumerate() if each.name == "usage-limits-alerts"]
    assert len(waiting) <= 1
    assert all(thread.daemon for thread in waiting)


def test_dead_webhook_does_not_hold_the_exit(silent_url: str) -> None:
    """A process ends at once, whatever alerts are still under way."""
    code = (
        "import sys; from helpers.openwebui.alerts import AlertSender\n"
        "sender = AlertSender()\n"
        "[sender.send(sys.argv[1], {'text': 'x'}) for _ in range(2)]\n"
    )
    done = subprocess.run([sys.executable, "-c", code, silent_url], cwd=ROOT, timeout=9, check=True)
    assert done.returncode == 0
