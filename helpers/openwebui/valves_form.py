"""The valves form: who is near a limit at its top, and why a save was refused."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from helpers.errors import LedgerError
from helpers.ledger.identities import form_note
from helpers.logs import log
from helpers.openwebui.http_requests import Message, Send, json_headers, without_headers
from helpers.openwebui.messages import UNREACHED
from helpers.openwebui.page_data import PageData
from helpers.openwebui.usage_command import near_table
from helpers.openwebui.valves import FORM_TEXTS

# The form's first field, above whose description the notes stand.
FIRST_FIELD = "priority"
NOTES_SECONDS = 5.0
LONGEST_WAIT_SECONDS = 2.0
MOST_NOTED = 10


def valves_form_action(path: str, method: str, function_id: str) -> str:
    """What a request is to a filter's form: ``spec`` when it opens, ``update`` to save, or ""."""
    prefix = f"/api/v1/functions/id/{function_id}/valves/"
    action = path.removeprefix(prefix) if path.startswith(prefix) else ""
    return action if (action, method) in (("spec", "GET"), ("update", "POST")) else ""


class FormNotes:
    """Keeps the notes at the form's top, which are read when it is about to open.

    Args:
        ledger_of: What is read with which valves.
    """

    def __init__(self, ledger_of: Any) -> None:
        self._ledger_of = ledger_of
        self._read_at, self._database = float("-inf"), ""

    async def refresh(self, valves: Any) -> None:
        """Read them anew, if they are old; a form that opens doesn't wait long for that."""
        now = time.monotonic()
        if valves is None or (
            now - self._read_at < NOTES_SECONDS and valves.database_url == self._database
        ):
            return
        self._read_at, self._database = now, valves.database_url
        try:
            accounting, memory, read_host = self._ledger_of(valves)
            data = PageData(valves, accounting, memory, read_host, datetime.now(UTC))
            reading = asyncio.to_thread(near_note, data)
            FORM_TEXTS.note(FIRST_FIELD, await asyncio.wait_for(reading, LONGEST_WAIT_SECONDS))
            FORM_TEXTS.note("database_url", "")
        except Exception as error:
            log.warning("Usage limits: the form's notes could not be read", exc_info=True)
            if isinstance(error, (LedgerError, TimeoutError)):
                FORM_TEXTS.note("database_url", UNREACHED)

    @staticmethod
    def refusal_reasons() -> str:
        """Why the valves were refused last, as plain text; "" if they weren't."""
        refused = FORM_TEXTS.refused | FORM_TEXTS.unsaved
        return "\n".join(f"{name}: {one.reason}" for name, one in refused.items())


def near_note(data: PageData) -> str:
    """Who is near or over a limit now, and which tables name nobody; "" for neither. Blocks."""
    near, parts = data.near_users(), []
    if near:
        shown = near[:MOST_NOTED]
        more = f", and {len(near) - len(shown)} more" if len(near) > len(shown) else ""
        title = f"**Near or over a limit now**{more} (all at `/usage-limits`):"
        parts.append(f"{title}\n\n{near_table(shown, ('User', 'Limit', 'Used'))}")
    if data.memory.notices:
        parts.append(f"**In the policies:**\n\n{form_note(data.memory.notices)}")
    return "\n\n".join(parts)


class SaveAnswer:
    """The answer to a save: where it is refused, with the reason, which Open WebUI leaves out.

    Args:
        send: Where it goes.
        read_reasons: Why valves were refused, by the filter whose form it is: another paste of the
            file has its own.
    """

    def __init__(self, send: Send, read_reasons: Callable[[], str]) -> None:
        self._send = send
        self._read_reasons = read_reasons
        self._refused: Message | None = None

    async def send(self, message: Message) -> None:
        """Pass a part of it on."""
        if message["type"] == "http.response.start":
            if message["status"] == 400 and self._read_reasons():
                self._refused = message
                return
        elif self._refused is not None:
            if message["type"] == "http.response.body" and not message.get("more_body"):
                await self._send_reasons(self._refused)
            return
        await self._send(message)

    async def _send_reasons(self, start: Message) -> None:
        body = json.dumps({"detail": self._read_reasons()}).encode()
        own = (b"content-type", b"content-length", b"content-encoding")
        headers = [*without_headers(start, *own), *json_headers(body)]
        await self._send({**start, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})
