"""The statements that every reply runs, on a short way to the driver.

SQLAlchemy puts them together. Its own way to the driver does more than they need, every time, so
they are compiled once and then handed over as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ClauseElement, Connection
from sqlalchemy.exc import DBAPIError

# Where a connection's cursor is kept, so that none is made for each statement.
KEPT_CURSOR = "usage_limits_cursor"


def run_on_driver(
    connection: Connection, text: str, values: Any = None, *, fetch: bool = False
) -> Any:
    """Hand a statement to the driver.

    Args:
        connection: Its transaction, if there is one, was begun in the same way.
        text: As the driver takes it.
        values: Its parameters, as the driver takes them.
        fetch: Whether it gives rows.

    Returns:
        Its rows, or how many it has changed.

    Raises:
        DBAPIError: The driver's error, wrapped as SQLAlchemy would.
    """
    pooled, dialect = connection.connection, connection.dialect
    cursor: Any = pooled.info.get(KEPT_CURSOR)
    try:
        if cursor is None:
            cursor = pooled.info[KEPT_CURSOR] = pooled.cursor()
        if values is not None:
            cursor.execute(text, values)
        elif dialect.driver == "psycopg":
            # A COMMIT by a name that stands for something else in a pooler's session would be lost.
            cursor.execute(text, prepare=False)
        else:
            cursor.execute(text)
        return cursor.fetchall() if fetch else cursor.rowcount
    except BaseException as error:
        if cursor is not None:
            pooled.info.pop(KEPT_CURSOR, None)
            # As long as SQLite has it open, a broken transaction keeps its locks.
            with suppress(dialect.loaded_dbapi.Error):
                cursor.close()
        if not isinstance(error, dialect.loaded_dbapi.Error):
            raise
        lost = dialect.is_disconnect(error, pooled.dbapi_connection, cursor)
        raise DBAPIError.instance(
            text,
            None,  # no values in an error: they may be anyone's
            error,
            dialect.loaded_dbapi.Error,
            connection_invalidated=lost,
            dialect=dialect,
        ) from error


@dataclass(frozen=True, slots=True)
class CompiledStatement:
    """What a driver takes."""

    text: str
    order: Sequence[str] | None  # of the parameters, where they are taken by position
    own_values: dict[str, Any]  # those that were written into the statement


class Statement:
    """A statement that is compiled once for each driver and schema.

    Args:
        clause: Its types are those that the drivers take and give as they are.
        columns: The columns that an INSERT or UPDATE without values of its own sets.

    Raises:
        TypeError: It has parameters that are only put into its text when it is run.
    """

    def __init__(self, clause: ClauseElement, columns: Sequence[str] | None = None) -> None:
        self._clause = clause
        self._columns = columns
        self._compiled: dict[tuple[str, str | None], CompiledStatement] = {}
        compiled: Any = clause.compile(column_keys=columns)
        if compiled.post_compile_params or compiled.literal_execute_params:
            raise TypeError("a statement with parameters that expand")

    def change(self, connection: Connection, values: Mapping[str, Any]) -> int:
        """Run it, and return how many rows it has changed; arguments and errors as for `rows`."""
        statement = self._compiled_for(connection)
        return int(run_on_driver(connection, statement.text, arrange(statement, values)))

    def rows(self, connection: Connection, values: Mapping[str, Any]) -> list[Any]:
        """Run it, and return its rows.

        Args:
            connection: As for `run_on_driver`.
            values: By the names of its parameters; what has no place in it is left out.

        Raises:
            DBAPIError: The driver's error, wrapped as SQLAlchemy would.
        """
        statement = self._compiled_for(connection)
        given = arrange(statement, values)
        return list(run_on_driver(connection, statement.text, given, fetch=True))

    def _compiled_for(self, connection: Connection) -> CompiledStatement:
        schemas = connection.get_execution_options().get("schema_translate_map") or {}
        key = (connection.dialect.driver, schemas.get(None))
        if key not in self._compiled:
            compiled: Any = self._clause.compile(
                dialect=connection.dialect,
                column_keys=self._columns,
                schema_translate_map=schemas or None,
                render_schema_translate=bool(schemas),
            )
            self._compiled[key] = CompiledStatement(
                compiled.string,
                compiled.positiontup if compiled.positional else None,
                {name: value for name, value in compiled.params.items() if value is not None},
            )
        return self._compiled[key]


def arrange(statement: CompiledStatement, values: Mapping[str, Any]) -> Any:
    """The values as the driver takes them."""
    if statement.own_values:
        values = {**statement.own_values, **values}
    return values if statement.order is None else [values[name] for name in statement.order]
