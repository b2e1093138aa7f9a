"""`limits forget`: takes a person out of the ledger and leaves the sums."""

from __future__ import annotations

import argparse
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from sqlalchemy import ColumnElement, Connection, Engine, func, or_, select

from helpers.errors import ConfigurationError
from helpers.ledger.rollups import drop_rollups
from helpers.ledger.tables import (
    counters_table,
    grants_table,
    names_table,
    notices_table,
    policies_table,
    records_table,
)
from helpers.ledger.transactions import TransactionRunner
from scripts.limits.console import cell, output_console, spinner
from scripts.limits.database import Database, find_database, has_tables, require_ledger
from scripts.limits.function import find_ledger
from scripts.limits.host import users_table
from scripts.limits.words import counted, did_you_mean

# One transaction: so short that no chat waits long for it.
BATCH = 500
PSEUDONYM_PREFIX = "forgotten-"


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who is to be forgotten.

    Args:
        user_id: The id in Open WebUI.
        names: What else the ledger may call them, in lower case: addresses of now and before.
        has_account: Whether Open WebUI still has them.
    """

    user_id: str
    names: frozenset[str]
    has_account: bool

    @property
    def scope(self) -> str:
        """Under which their own limits are counted."""
        return f"user:{self.user_id}"


def forget(arguments: argparse.Namespace) -> int:
    """Replace a person by a pseudonym in every table of the ledger."""
    database = find_database(arguments)
    with database.snapshot() as connection:
        ledger = find_ledger(connection, database, arguments.function)
        accounts = read_accounts(connection)
    with ledger.snapshot() as connection:
        require_ledger(connection, ledger)
        person = find_person(connection, accounts, arguments.user)
    pseudonym = PSEUDONYM_PREFIX + uuid.uuid4().hex[:12]
    with ledger.writable() as engine, spinner("Forgetting"):
        replaced = forget_person(engine, ledger, person, pseudonym)
    for line in report_lines(person, pseudonym, replaced):
        output_console().print(cell(line))
    return 0


def report_lines(person: Person, pseudonym: str, replaced: int) -> Iterable[str]:
    """What was done, and what the ledger can't do."""
    records = counted(replaced, "record", "records")
    yield f"{records} now of {pseudonym}; all sums are as they were."
    if person.has_account:
        yield (
            "Open WebUI still has the account: its limits start anew, and what it uses from now on "
            "is recorded under its own id."
        )
    yield "Not changed: the valves, Open WebUI's own tables, backups and logs."


def read_accounts(connection: Connection) -> dict[str, str]:
    """The addresses of all accounts by id; {} in a ledger's own database."""
    if not has_tables(connection, users_table.name):
        return {}
    rows = connection.execute(select(users_table.c.id, users_table.c.email))
    return {str(row.id): str(row.email or "") for row in rows}


def find_person(connection: Connection, accounts: dict[str, str], key: str) -> Person:
    """The one whom an id or an address means, deleted accounts included.

    Raises:
        ConfigurationError: The ledger knows nobody of that name, or several.
    """
    columns, wanted = records_table.c, key.strip().lower()
    ids = {user_id for user_id, email in accounts.items() if email.lower() == wanted}
    if key in accounts or is_recorded(connection, columns.user_id == key):
        ids = {key}
    elif wanted:
        ids |= set(
            connection.scalars(
                select(columns.user_id).where(func.lower(columns.user_email) == wanted).distinct()
            )
        )
    if len(ids) != 1:
        known = {*accounts.values(), *connection.scalars(select(columns.user_email).distinct())}
        raise ConfigurationError(
            "USER",
            repr(key) + (" was the address of several users" if ids else ""),
            f"one of their ids: {', '.join(sorted(ids))}"
            if ids
            else "the e-mail address or the id of a user who is on record"
            + did_you_mean(key, known),
        )
    (user_id,) = ids
    return Person(user_id, read_own_names(connection, accounts, user_id), user_id in accounts)


def is_recorded(connection: Connection, condition: ColumnElement[bool]) -> bool:
    """Whether there is such a record."""
    return (
        connection.execute(select(records_table.c.id).where(condition).limit(1)).first() is not None
    )


def read_own_names(
    connection: Connection, accounts: dict[str, str], user_id: str
) -> frozenset[str]:
    """What the ledger has called a user so far, in lower case."""
    emails = connection.scalars(
        select(records_table.c.user_email).where(records_table.c.user_id == user_id).distinct()
    )
    names = select(names_table.c.name, names_table.c.last_seen).where(
        names_table.c.kind == "user", names_table.c.id == user_id
    )
    found = {user_id, accounts.get(user_id, ""), *emails}
    found.update(name for row in connection.execute(names) for name in row)
    return frozenset(name.lower() for name in found if name)


def forget_person(engine: Engine, ledger: Database, person: Person, pseudonym: str) -> int:
    """Replace them everywhere, in short transactions; returns how many records were changed.

    Each transaction leaves the ledger right, so that the server may run meanwhile, and whoever
    stops the command runs it again. A reply that is still running is settled by its own id.
    """
    transactions = TransactionRunner(engine, ledger.schema)
    locks = (person.scope, f"user:{pseudonym}")
    replaced = 0
    while batch := transactions.run(partial(replace_records, person=person, new=pseudonym), locks):
        replaced += batch
        if batch < BATCH:
            break  # what comes in now is new
    transactions.run(partial(replace_rest, person=person, new=pseudonym), locks)
    return replaced


def replace_records(connection: Connection, person: Person, new: str) -> int:
    """Take the person out of some records; returns of how many."""
    columns = records_table.c
    some = select(columns.id).where(columns.user_id == person.user_id).limit(BATCH)
    ids = list(connection.scalars(some))
    those = records_table.update().where(columns.id.in_(ids))
    own_policy = func.lower(columns.policy).in_(sorted(person.names))
    connection.execute(those.where(own_policy).values(policy=new))
    connection.execute(those.values(user_id=new, user_email=new, chat_id="", message_id=""))
    # A counter is a sum of the records, which aren't this user's any more. Pools' stay.
    connection.execute(counters_table.delete().where(counters_table.c.scope == person.scope))
    drop_rollups(connection)
    return len(ids)


def replace_rest(connection: Connection, person: Person, new: str) -> None:
    """Take the person out of all other tables."""
    grants, names, notices = grants_table.c, names_table.c, notices_table.c
    connection.execute(
        grants_table.update()
        .where(grants.scope == person.scope)
        .values(scope=f"user:{new}", reason="")
    )
    # As the one who granted, or who is spoken of.
    for row in connection.execute(select(grants.id, grants.granted_by, grants.reason)).all():
        by = new if row.granted_by.lower() in person.names else row.granted_by
        named = any(name in row.reason.lower() for name in person.names)
        if named or by != row.granted_by:
            reason = "" if named else row.reason
            connection.execute(
                grants_table.update()
                .where(grants.id == row.id)
                .values(granted_by=by, reason=reason)
            )
    connection.execute(names_table.delete().where(names.kind == "user", names.id == person.user_id))
    for version in connection.execute(select(policies_table)).all():
        by = new if version.saved_by.lower() in person.names else version.saved_by
        text = without_names(version.policies, person.names, new)
        if (by, text) != (version.saved_by, version.policies):
            connection.execute(
                policies_table.update()
                .where(policies_table.c.id == version.id)
                .values(saved_by=by, policies=text)
            )
    told = (f"user {person.user_id} ", f"alert {person.user_id} ")
    connection.execute(
        notices_table.delete().where(
            or_(
                *(notices.id.startswith(start, autoescape=True) for start in told),
                notices.id.contains(f" {person.scope} ", autoescape=True),
            )
        )
    )


def without_names(text: str, names: Iterable[str], new: str) -> str:
    """A policies text in which these names, as whole words in any case, are replaced."""
    for name in sorted(names, key=len, reverse=True):
        # What goes on is another name; a dot before an id may be that of a table's.
        before = r"[\w.@+-]" if "@" in name else r"[\w@+-]"
        one = rf"(?<!{before}){re.escape(name)}(?![\w@+-]|\.\w)"
        text = re.sub(one, new, text, flags=re.IGNORECASE)
    return text
