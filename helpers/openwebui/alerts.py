"""Alerts: tells the administrator's webhook that a user has crossed a limit."""

from __future__ import annotations

import time
from datetime import UTC
from queue import Empty, Full, Queue
from threading import Lock, Thread

import requests

from helpers.ledger.records import Reservation
from helpers.limits.decisions import LimitState
from helpers.logs import log
from helpers.openwebui.messages import alert_sentence

ALERT_ATTEMPTS = 4
ALERT_TIMEOUT_SECONDS = 10
ALERT_PAUSE_SECONDS = 2.0
ALERT_IDLE_SECONDS = 30
MOST_QUEUED_ALERTS = 100


def alert_payload(reservation: Reservation, state: LimitState) -> dict[str, object]:
    """One crossing as JSON; chat systems read ``text``, programs the rest."""
    applied, subject = state.applied, reservation.subject
    # A pool is nobody's in particular: whoever happened to cross it isn't named.
    user = {} if applied.is_pool else {"user_id": subject.user_id, "user_email": subject.email}
    who = f"The pool {applied.policy}" if applied.is_pool else subject.email or subject.user_id
    return {
        "text": alert_sentence(state, who),
        "event": "hard_limit" if state.exceeded else "soft_limit",
        **user,
        "policy": applied.policy,
        "limit": str(applied.limit),
        "used": state.used,
        "amount": state.amount,
        "percent": state.percent,
        "reset_at": state.reset_at.astimezone(UTC).isoformat(),
    }


def post_alert(url: str, payload: dict[str, object]) -> bool:
    """Post an alert, several times if need be; blocks, so it runs in a thread of its own.

    Slack, Mattermost and Teams take a JSON object with ``text``. Failures are logged without
    the URL: it is a secret of the chat system.
    """
    for attempt in range(1, ALERT_ATTEMPTS + 1):
        try:
            response = requests.post(url, json=payload, timeout=ALERT_TIMEOUT_SECONDS)
            if response.ok:
                return True
            reason = f"status {response.status_code}"
        except requests.RequestException as error:
            reason = type(error).__name__
        if attempt < ALERT_ATTEMPTS:
            time.sleep(ALERT_PAUSE_SECONDS * 2 ** (attempt - 1))
    log.error("Usage limits: an alert was not delivered: %s", reason)
    return False


class AlertSender:
    """Posts alerts one after the other, in a thread that nobody waits for.

    The thread starts with the first alert and ends with the process, whatever is still queued.
    """

    def __init__(self) -> None:
        self._queue: Queue[tuple[str, dict[str, object]]] = Queue(MOST_QUEUED_ALERTS)
        self._thread: Thread | None = None
        self._starting = Lock()

    def send(self, url: str, payload: dict[str, object]) -> None:
        """Queue an alert; log that it was dropped where too many wait already."""
        try:
            self._queue.put_nowait((url, payload))
        except Full:
            log.error("Usage limits: an alert was dropped: %d wait already", MOST_QUEUED_ALERTS)
            return
        with self._starting:
            if self._thread is None or not self._thread.is_alive():
                # A daemon: a webhook that doesn't answer must not hold up the server's exit.
                self._thread = Thread(target=self._post, name="usage-limits-alerts", daemon=True)
                self._thread.start()

    def _post(self) -> None:
        while True:
            try:
                url, payload = self._queue.get(timeout=ALERT_IDLE_SECONDS)
            except Empty:
                return
            try:
                post_alert(url, payload)
            except Exception:
                log.exception("Usage limits: an alert was not delivered")
