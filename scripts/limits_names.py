"""Policies that name nobody: groups and users whom Open WebUI doesn't have."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, select

from helpers.policies import PolicySet
from helpers.policy_tables import table_header
from scripts.limits_database import Database
from scripts.limits_host import groups_table, read_group_names, require_tables, users_table


@dataclass(frozen=True, slots=True)
class KnownNames:
    """What policies can name."""

    groups: frozenset[str]
    users: frozenset[str]  # ids, and addresses with their case folded


def read_known_names(connection: Connection, database: Database) -> KnownNames:
    """The groups and users that Open WebUI has now.

    Raises:
        ConfigurationError: The database isn't Open WebUI's.
    """
    require_tables(connection, database, users_table, groups_table)
    users = connection.execute(select(users_table.c.id, users_table.c.email)).all()
    return KnownNames(
        frozenset(read_group_names(connection).values()),
        frozenset(name for row in users for name in (row.id, (row.email or "").casefold())),
    )


def unknown_names(policies: PolicySet, known: KnownNames) -> Iterator[str]:
    """A sentence for each table that names nobody, in the order of the text within its kind."""
    for name in policies.groups:
        if name not in known.groups:
            yield f"{table_header('group', name)} {no_group(name, known.groups)}"
    for key, policy in policies.users.items():
        if key not in known.users:
            kind = "address" if "@" in key else "id"
            header = table_header("user", policy.name)
            yield f"{header} names nobody: Open WebUI has no user with this {kind}."
    for pool in policies.pools:
        if pool.group is not None and pool.group not in known.groups:
            yield f"{table_header('pool', pool.name)} group {no_group(pool.group, known.groups)}"


def no_group(name: str, known: Collection[str]) -> str:
    """The end of a sentence about a group that isn't there, with the one that was meant."""
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.7)
    hint = f'; did you mean "{close[0]}"?' if close else "."
    return f'names nobody: Open WebUI has no group "{name}"{hint}'
