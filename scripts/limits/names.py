"""What the policies mean in a database of Open WebUI's, and which of their tables name nobody."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, select

from helpers.ledger.counters import split_names
from helpers.ledger.identities import (
    HostNames,
    Identities,
    RememberedName,
    identify,
    read_remembered,
)
from helpers.ledger.tables import names_table, records_table
from helpers.limits.policies import PolicySet
from helpers.limits.policy import Subject
from scripts.limits.database import Database, has_tables
from scripts.limits.function import read_model_ids
from scripts.limits.host import groups_table, read_group_names, require_tables, users_table


def read_identities(
    policies: PolicySet, connection: Connection, database: Database, ledger: Database
) -> Identities:
    """Whom the policies mean, with what the ledger remembers, as the filter would find out.

    Raises:
        ConfigurationError: The database isn't Open WebUI's.
    """
    require_tables(connection, database, users_table, groups_table)
    if ledger == database:
        return identities_in(policies, connection, connection)
    with ledger.snapshot() as other:
        return identities_in(policies, connection, other)


def identities_in(policies: PolicySet, host: Connection, ledger: Connection) -> Identities:
    """The same, from connections to both databases."""
    users = host.execute(select(users_table.c.id, users_table.c.email))
    names = HostNames(
        read_group_names(host),
        {row.id: row.email or "" for row in users},
        known_model_ids(host, ledger),
    )
    return identify(policies, names, remembered_names(ledger))


def recall_subjects(
    subjects: Iterable[Subject],
    policies: PolicySet,
    connection: Connection,
    database: Database,
    ledger: Database,
) -> list[Subject]:
    """Users with the names in the policies that mean them, as the filter would find out."""
    identities = read_identities(policies, connection, database, ledger)
    return [identities.recall(subject) for subject in subjects]


def remembered_names(connection: Connection) -> frozenset[RememberedName]:
    """Whom names have meant; nothing before the filter has made its tables."""
    if not has_tables(connection, names_table.name):
        return frozenset()
    return read_remembered(connection)


def known_model_ids(host: Connection, ledger: Connection) -> frozenset[str]:
    """The models of the workspace's list, and those on record; empty where no list is kept."""
    listed = read_model_ids(host)
    return listed | recorded_models(ledger) if listed else listed


def recorded_models(connection: Connection) -> frozenset[str]:
    """The models that the ledger has records of."""
    if not has_tables(connection, records_table.name):
        return frozenset()
    joined = connection.scalars(select(records_table.c.model_names).distinct())
    return frozenset(name for names in joined for name in split_names(names))
