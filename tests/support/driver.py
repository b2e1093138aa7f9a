"""What the ledger says to the database's driver, for tests that listen or interrupt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, event


@contextmanager
def before_statements(note: Callable[[Connection, str, Any], None]) -> Iterator[None]:
    """Call `note` with each statement that is about to go to the driver."""

    def pass_on(connection: Connection, _: object, text: str, values: Any, *__: object) -> None:
        note(connection, text, values)

    event.listen(Engine, "before_cursor_execute", pass_on)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", pass_on)
