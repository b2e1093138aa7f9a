"""Alerts: tells the administrator's webhook that a user has crossed a limit."""

from __future__ import annotations

import time
from datetime import UTC

import requests

from helpers.decisions import LimitState
from helpers.logs import log
from helpers.messages import alert_sentence
from helpers.records import Reservation

ALERT_ATTEMPTS = 4
ALERT_TIMEOUT_SECONDS = 10
ALERT_PAUSE_SECONDS = 2.0


def alert_payload(reservation: Reservation, state: LimitState) -> dict[str, object]:
    """One crossing as JSON; chat systems read ``text``, programs the rest."""
    applied = state.applied
    return {
        "text": alert_sentence(state, reservation.subject.email or reservation.subject.user_id),
        "event": "hard_limit" if state.exceeded else "soft_limit",
        "user_id": reservation.subject.user_id,
        "user_email": reservation.subject.email,
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
