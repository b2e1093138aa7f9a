"""Open WebUI's own tables: users and groups."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from sqlalchemy import Column, Connection, MetaData, Table, Text, func, inspect, or_, select

from helpers.errors import ConfigurationError
from helpers.limits.policy import GroupRef, Subject
from scripts.limits.database import Database, has_tables
from scripts.limits.words import did_you_mean

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


@dataclass(frozen=True, slots=True)
class Membership:
    """A group that a user is in."""

    group: GroupRef
    # The name of the group inside which this user is a member; "" for one of this group itself.
    through: str = ""


def find_user(connection: Connection, database: Database, key: str) -> Subject:
    """The user with this id or e-mail address, with all groups, inherited ones included.

    Raises:
        ConfigurationError: There is none, or the database isn't Open WebUI's.
    """
    require_tables(connection, database, users_table, groups_table, members_table)
    address = func.lower(users_table.c.email) == key.strip().lower()
    condition = or_(users_table.c.id == key, address)
    user_id = connection.scalar(select(users_table.c.id).where(condition))
    if user_id is None:
        known = connection.scalars(select(users_table.c.email))
        allowed = "the e-mail address or the id of a user whom Open WebUI has now"
        raise ConfigurationError("USER", repr(key), allowed + did_you_mean(key, known))
    return read_subjects(connection, [user_id])[0]


def require_tables(connection: Connection, database: Database, *tables: Table) -> None:
    """See that these tables are there, as in any database of Open WebUI's.

    Raises:
        ConfigurationError: One isn't.
    """
    if not has_tables(connection, *(table.name for table in tables)):
        raise database.error(f"no {tables[0].name}s in this database", "Open WebUI's own database")


def read_subjects(connection: Connection, user_ids: Iterable[str] | None = None) -> list[Subject]:
    """Those of these users whom Open WebUI has now, or all, with all their groups."""
    wanted = None if user_ids is None else set(user_ids)
    memberships = read_memberships(connection, wanted)
    return [
        Subject(
            row.id,
            row.email or "",
            row.role or "user",
            tuple(member.group for member in memberships.get(row.id, ())),
        )
        for row in connection.execute(select(users_table).order_by(users_table.c.id))
        if wanted is None or row.id in wanted
    ]


def read_memberships(
    connection: Connection, user_ids: Collection[str] | None
) -> dict[str, tuple[Membership, ...]]:
    """These users' groups, or everyone's: those they are members of, then those around them."""
    groups = read_groups(connection)
    direct: dict[str, list[str]] = {}
    for row in connection.execute(select(members_table).order_by(members_table.c.group_id)):
        if (user_ids is None or row.user_id in user_ids) and row.group_id in groups:
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
