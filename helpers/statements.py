"""The statements that every reply runs, on a short way to the driver.

SQLAlchemy puts them together. Its own way to the driver takes several times as long as SQLite takes
to run one of them, so they are compiled once and then handed over as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ClauseElement, Connection
from sqlalchemy.exc import DBAPIError


def run_on_driver(connection: Connection, text: str, values: Any = None) -> Any:
    """Hand a statement to the driver and return its cursor.

    Args:
        connection: Its transaction, if there is one, was begun in the same way.
        text: As the driver takes it.
        values: Its parameters, as the driver takes them.

    Raises:
        DBAPIError: The driver's error, wrapped as SQLAlchemy would.
    """
    pooled, dialect = connection.connection, connection.dialect
    cursor = pooled.cursor()
    try:
        if values is None:
            cursor.execute(text)
        else:
            cursor.execute(text, values)
    except dialect.loaded_dbapi.Error as error:
        raise DBAPIError.instance(
            text,
            None,  # no values in an error: they may be anyone's
            error,
            dialect.loaded_dbapi.Error,
            connection_invalidated=dialect.is_disconnect(error, pooled.dbapi_connection, cursor),
            dialect=dialect,
        ) from error
    return cursor


class Statement:
    """A statement that is compiled once for each driver and schema.

    Args:
        clause: Without parameters that expand when it is run, and with types that the drivers
            take and give as they are.
        columns: The columns that an INSERT or UPDATE without values of its own sets.
    """

    def __init__(self, clause: ClauseElement, columns: Sequence[str] | None = None) -> None:
        self._clause = clause
        self._columns = columns
        self._compiled: dict[tuple[str, str | None], tuple[str, Sequence[str] | None]] = {}

    def run(self, connection: Connection, values: Mapping[str, Any]) -> Any:
        """Run it and return the driver's cursor.

        Args:
            connection: As for `run_on_driver`.
            values: By the names of its parameters; what has no place in it is left out.

        Raises:
            DBAPIError: The driver's error, wrapped as SQLAlchemy would.
        """
        schemas = connection.get_execution_options().get("schema_translate_map") or {}
        key = (connection.dialect.driver, schemas.get(None))
        if key not in self._compiled:
            self._compiled[key] = self._compile(connection, schemas)
        text, order = self._compiled[key]
        if order is None:
            return run_on_driver(connection, text, values)
        return run_on_driver(connection, text, [values[name] for name in order])

    def _compile(
        self, connection: Connection, schemas: Mapping[str | None, str]
    ) -> tuple[str, Sequence[str] | None]:
        """The text, and the order of its parameters where the driver takes them by position."""
        compiled: Any = self._clause.compile(
            dialect=connection.dialect,
            column_keys=self._columns,
            schema_translate_map=schemas or None,
            render_schema_translate=bool(schemas),
        )
        return compiled.string, compiled.positiontup if compiled.positional else None
