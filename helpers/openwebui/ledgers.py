"""Ledgers: what one filter has opened, by the database that its valves name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import Connection

from helpers.ledger.identities import IdentityMemory, form_note
from helpers.openwebui.accounting import Accounting
from helpers.openwebui.host import (
    host_engine,
    host_reader,
    is_host_engine,
    list_model_ids,
    read_host_names,
)
from helpers.openwebui.valves import FORM_TEXTS, AdminValves


class OpenLedger(NamedTuple):
    """A ledger, whom the policies mean by it, and what reads Open WebUI's own database."""

    accounting: Accounting
    memory: IdentityMemory
    read_host: Callable[[Callable[[Connection], Any]], Any]


class Ledgers:
    """The open ledgers of one filter."""

    def __init__(self) -> None:
        self._opened: dict[str, OpenLedger] = {}

    def of(self, valves: AdminValves) -> OpenLedger:
        """The ledger that these valves name."""
        opened = self._opened.get(valves.database_url)
        if opened is None:
            opened = self._opened[valves.database_url] = open_ledger(valves)
        opened.accounting.retention_seconds = valves.retention_seconds
        return opened


def open_ledger(valves: AdminValves) -> OpenLedger:
    """Open a ledger; no I/O yet. What is amiss with the policies' names shows in the form."""
    engine, schema = host_engine(valves.database_url)
    accounting = Accounting(engine, schema, own_engine=not is_host_engine(engine))
    read_host = host_reader().read if valves.database_url else accounting.read
    memory = accounting.remember_identities(
        lambda ids, addresses: read_host(
            partial(read_host_names, user_ids=ids, addresses=addresses)
        ),
        list_model_ids,
        lambda notices: FORM_TEXTS.note("policies", form_note(notices)),
    )
    return OpenLedger(accounting, memory, read_host)
