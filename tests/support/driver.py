"""What the ledger says to the database's driver, for tests that listen or interrupt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event

from helpers.ledger.statements import run_on_driver


@contextmanager
def before_statements(note: Callable[[Connection, str, Any], None]) -> Iterator[None]:
    """Call `note` with each statement that is about to go to the driver, by either way."""

    def run_noted(connection: Connection, text: str, values: Any = None, **how: Any) -> Any:
        note(connection, text, values)
        return run_on_driver(connection, text, values, **how)

    def note_other(connection: Connection, _: object, text: str, values: Any, *__: object) -> None:
        note(connection, text, values)

    with pytest.MonkeyPatch.context() as patch:
        for module in ("ledger.statements", "ledger.transactions"):
            patch.setattr(f"helpers.{module}.run_on_driver", run_noted)
        event.listen(Engine, "before_cursor_execute", note_other)
        try:
            yield
        finally:
            event.remove(Engine, "before_cursor_execute", note_other)
