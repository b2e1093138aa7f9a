"""Open WebUI's own tables: users, groups, models, and the valves of the filter."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    MetaData,
    Table,
    Text,
    func,
    inspect,
    or_,
    select,
)

from helpers.policy import GroupRef, Subject
from helpers.valves import AdminValves
from scripts.limits_console import CommandError
from scripts.limits_database import Database, has_tables

FUNCTION_ID = "usage_limits"

host_metadata = MetaData()
users_table = Table(
    "user",
    host_metadata,
    Column("id", Text, primary_key=True),
    Column("email", Text),
    Column("role", Text),
)
groups_table = Table(
    "group",
    host_metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text),
    Column("parent_group_id", Text),  # since 0.12
)
members_table = Table(
    "group_member",
    host_metadata,
    Column("group_id", Text),
    Column("user_id", Text),
)
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


@dataclass(frozen=True, slots=True)
class Membership:
    """A group that a user is in."""

    group: GroupRef
    # The name of the group inside which this user is a member; "" for one of this group itself.
    through: str = ""


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
        CommandError: There is no such filter, or it has valves that can't be read.
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
    except CommandError:
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


def unknown_filter(connection: Connection, database: Database, function_id: str) -> CommandError:
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
        CommandError: One isn't accepted.
    """
    try:
        return AdminValves.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = ".".join(str(part) for part in problem["loc"])
        reason = problem["msg"].removeprefix("Value error, ")
        raise CommandError(
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
    except CommandError:
        return database  # encrypted: if the ledger isn't here, the next error says so
    return Database("valve database_url", url) if url else database


def find_user(connection: Connection, database: Database, key: str) -> Subject:
    """The user with this id or e-mail address, with all groups, inherited ones included.

    Raises:
        CommandError: There is none, or the database isn't Open WebUI's.
    """
    if not has_tables(connection, users_table.name, groups_table.name, members_table.name):
        raise database.error("no users in this database", "Open WebUI's own database")
    address = func.lower(users_table.c.email) == key.strip().lower()
    condition = or_(users_table.c.id == key, address)
    user_id = connection.scalar(select(users_table.c.id).where(condition))
    if user_id is None:
        raise CommandError(
            "USER", repr(key), "the e-mail address or the id of a user whom Open WebUI has now"
        )
    return read_subjects(connection, [user_id])[0]


def read_subjects(connection: Connection, user_ids: Iterable[str]) -> list[Subject]:
    """Those of these users whom Open WebUI has now, with all their groups."""
    wanted = set(user_ids)
    memberships = read_memberships(connection, wanted)
    return [
        Subject(
            row.id,
            row.email or "",
            row.role or "user",
            tuple(member.group for member in memberships.get(row.id, ())),
        )
        for row in connection.execute(select(users_table).order_by(users_table.c.id))
        if row.id in wanted
    ]


def read_memberships(
    connection: Connection, user_ids: Collection[str]
) -> dict[str, tuple[Membership, ...]]:
    """Users' groups: first those of which they are members, then those around them."""
    groups = read_groups(connection)
    direct: dict[str, list[str]] = {}
    for row in connection.execute(select(members_table).order_by(members_table.c.group_id)):
        if row.user_id in user_ids and row.group_id in groups:
            direct.setdefault(row.user_id, []).append(row.group_id)
    return {user_id: with_inherited(keys, groups) for user_id, keys in direct.items()}


def with_inherited(
    keys: list[str], groups: dict[str, tuple[GroupRef, str | None]]
) -> tuple[Membership, ...]:
    """The groups with these ids and all that they are inside of, each once."""
    found = {key: Membership(groups[key][0]) for key in keys}
    for key in keys:
        through, parent = groups[key][0].name, groups[key][1]
        # Also ends where an older version left a circle of groups.
        while parent in groups and parent not in found:
            found[parent] = Membership(groups[parent][0], through)
            parent = groups[parent][1]
    return tuple(found.values())


def read_groups(connection: Connection) -> dict[str, tuple[GroupRef, str | None]]:
    """All groups by id, with the id of the group that each is inside of."""
    columns = [groups_table.c.id, groups_table.c.name]
    if has_column(connection, groups_table, "parent_group_id"):
        columns.append(groups_table.c.parent_group_id)
    return {
        row[0]: (GroupRef(row[0], row[1] or ""), row[2] if len(row) > 2 else None)
        for row in connection.execute(select(*columns))
    }


def has_column(connection: Connection, table: Table, name: str) -> bool:
    """Whether a table of Open WebUI's has a column that came with a later version."""
    schema = connection.get_execution_options()["schema_translate_map"][None]
    columns = inspect(connection).get_columns(table.name, schema)
    return any(column["name"] == name for column in columns)


def read_group_names(connection: Connection) -> dict[str, str]:
    """The names of all groups by id; {} in a database that isn't Open WebUI's."""
    if not has_tables(connection, groups_table.name):
        return {}
    return {
        row.id: row.name
        for row in connection.execute(select(groups_table.c.id, groups_table.c.name))
    }


def read_emails(connection: Connection, user_ids: Iterable[str]) -> dict[str, str]:
    """The addresses of those users whom Open WebUI has now, by id."""
    wanted = set(user_ids)
    if not has_tables(connection, users_table.name):
        return {}
    rows = connection.execute(select(users_table.c.id, users_table.c.email))
    return {row.id: row.email for row in rows if row.id in wanted and row.email}


@dataclass(frozen=True, slots=True)
class HostModel:
    """A model as a workspace's list of models has it."""

    names: tuple[str, ...]  # the model itself, then its base model
    filter_ids: tuple[str, ...]


def read_model(connection: Connection, model_id: str) -> HostModel:
    """A model's names and filters; one that isn't in the list has its id for a name."""
    row = None
    if has_tables(connection, models_table.name):
        row = connection.execute(select(models_table).where(models_table.c.id == model_id)).first()
    if row is None:
        return HostModel((model_id,), ())
    meta = json.loads(row.meta or "null")
    filter_ids = meta.get("filterIds") if isinstance(meta, dict) else None
    names = (model_id, row.base_model_id) if row.base_model_id else (model_id,)
    return HostModel(names, tuple(filter_ids or ()))
