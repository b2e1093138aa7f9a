"""Open WebUI's own tables: the filter with its valves, and the models that it is on for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Boolean, Column, Connection, Table, Text, select

from helpers.errors import ConfigurationError
from helpers.limits.policy import ModelNames
from helpers.openwebui.valves import AdminValves
from scripts.limits.database import Database, has_tables
from scripts.limits.host import host_metadata, users_table

FUNCTION_ID = "usage_limits"

functions_table = Table(
    "function",
    host_metadata,
    Column("id", Text, primary_key=True),
    Column("type", Text),
    Column("valves", Text),
    Column("is_active", Boolean),
    Column("is_global", Boolean),
)
models_table = Table(
    "model",
    host_metadata,
    Column("id", Text, primary_key=True),
    Column("user_id", Text),
    Column("base_model_id", Text),
    Column("meta", Text),
)


@dataclass(frozen=True, slots=True)
class InstalledFilter:
    """The filter as Open WebUI has it."""

    id: str
    valves: AdminValves
    active: bool
    everywhere: bool


def read_filter(
    connection: Connection, database: Database, function_id: str, policies: str | None = None
) -> InstalledFilter | None:
    """The filter and its valves; None in a database that isn't Open WebUI's.

    Args:
        connection: To the database.
        database: The same one, for errors.
        function_id: The filter's id in Open WebUI.
        policies: A policies text to use in place of the valve; with it, a filter that isn't
            installed or whose valves are encrypted counts as one with default valves.

    Raises:
        ConfigurationError: There is no such filter, or it has valves that can't be read.
    """
    if not has_tables(connection, functions_table.name):
        return None
    row = connection.execute(
        select(functions_table).where(functions_table.c.id == function_id)
    ).first()
    try:
        if row is None:
            raise unknown_filter(connection, database, function_id)
        stored = stored_valves(row.valves, database, function_id)
    except ConfigurationError:
        if policies is None:
            raise
        stored = {}
    values = {name: value for name, value in stored.items() if value is not None}
    if policies is not None:
        values["policies"] = policies
    return InstalledFilter(
        function_id,
        make_valves(values, f"function {function_id}, valve"),
        row is not None and bool(row.is_active),
        row is not None and bool(row.is_global),
    )


def require_filter(installed: InstalledFilter | None, database: Database) -> InstalledFilter:
    """The filter, or `ConfigurationError` in a database that has no functions."""
    if installed is None:
        raise database.error("no functions in this database", "Open WebUI's own database")
    return installed


def unknown_filter(
    connection: Connection, database: Database, function_id: str
) -> ConfigurationError:
    """The error for a filter that Open WebUI doesn't have."""
    known = connection.scalars(
        select(functions_table.c.id)
        .where(functions_table.c.type == "filter")
        .order_by(functions_table.c.id)
    ).all()
    return database.error(
        f"no function {function_id!r}",
        f"--function with one of the filters there: {', '.join(known) or 'there are none'}",
    )


def stored_valves(text: str | None, database: Database, function_id: str) -> dict[str, Any]:
    """The valves as Open WebUI stores them; {} where none were ever saved."""
    try:
        values = json.loads(text or "null")
    except ValueError:
        values = text
    if isinstance(values, str):
        raise database.error(
            f"the valves of {function_id!r} are encrypted (ENABLE_VALVE_ENCRYPTION)",
            "--policies FILE with the policies text; the other valves count as default then",
        )
    return values if isinstance(values, dict) else {}


def make_valves(values: dict[str, Any], where: str) -> AdminValves:
    """Valves with these values.

    Raises:
        ConfigurationError: One isn't accepted.
    """
    try:
        return AdminValves.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = ".".join(str(part) for part in problem["loc"])
        reason = problem["msg"].removeprefix("Value error, ")
        raise ConfigurationError(
            f"{where} {name}".strip(), reason, "what the valves form takes"
        ) from None


def find_ledger(connection: Connection, database: Database, function_id: str) -> Database:
    """The database that the filter's `database_url` valve names, else this one."""
    if not has_tables(connection, functions_table.name):
        return database
    text = connection.scalar(
        select(functions_table.c.valves).where(functions_table.c.id == function_id)
    )
    try:
        url = str(stored_valves(text, database, function_id).get("database_url") or "").strip()
    except ConfigurationError:
        return database  # encrypted: if the ledger isn't here, the next error says so
    return Database("valve database_url", url) if url else database


@dataclass(frozen=True, slots=True)
class HostModel:
    """A model as a workspace's list of models has it."""

    names: tuple[str, ...]  # the model itself, then its base model
    filter_ids: tuple[str, ...]


def has_filtered_models(connection: Connection, function_id: str) -> bool:
    """Whether the filter is on for a model of the workspace's list."""
    if not has_tables(connection, models_table.name):
        return False
    return any(
        function_id in filters_of(meta) for meta in connection.scalars(select(models_table.c.meta))
    )


def filters_of(meta: str | None) -> tuple[str, ...]:
    """The filters that are on for a model, by its `meta` column."""
    values = json.loads(meta or "null")
    return tuple(values.get("filterIds") or ()) if isinstance(values, dict) else ()


def read_model(connection: Connection, model_id: str) -> HostModel:
    """A model's names and filters; one that isn't in the list has its id for a name."""
    row = None
    if has_tables(connection, models_table.name):
        row = connection.execute(select(models_table).where(models_table.c.id == model_id)).first()
    if row is None:
        return HostModel((model_id,), ())
    names = ModelNames((model_id, row.base_model_id) if row.base_model_id else (model_id,))
    role = connection.scalar(select(users_table.c.role).where(users_table.c.id == row.user_id))
    names.users_own = bool(row.base_model_id) and role not in (None, "admin")
    return HostModel(names, filters_of(row.meta))


def read_model_ids(connection: Connection) -> frozenset[str]:
    """The models that are known here: those of the workspace's list, and those behind them.

    Open WebUI asks the providers for theirs; users see none that isn't in the list, unless the
    access control of models is off. With an empty list nothing is known.
    """
    if not has_tables(connection, models_table.name):
        return frozenset()
    rows = connection.execute(select(models_table.c.id, models_table.c.base_model_id)).all()
    return frozenset(str(name) for row in rows for name in row if name)
