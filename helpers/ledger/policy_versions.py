"""Policy versions: the last policies texts that were saved on the page, to go back to."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, Row, select

from helpers.ledger.tables import policies_table

MOST_VERSIONS = 20


def read_versions(connection: Connection) -> Sequence[Row[Any]]:
    """The saved texts, the newest first."""
    newest_first = policies_table.c.number.desc()
    return connection.execute(select(policies_table).order_by(newest_first)).all()


def version_tag(text: str, rows: Sequence[Row[Any]]) -> str:
    """What an editor has loaded: another after every change, from wherever.

    Args:
        text: The one in force.
        rows: The saved texts, the newest first.
    """
    newest = rows[0].id if rows else ""
    return hashlib.sha256(f"{newest}\n{text}".encode("utf-8", "replace")).hexdigest()[:32]


def keep_version(
    connection: Connection, before: str, text: str, by: str, now: int
) -> tuple[str, ...]:
    """Write down a text that is being saved, and what stood there before if that isn't known.

    Args:
        before: The text that is in force.
        text: The new one.
        by: Who saves it.
        now: Seconds since 1970.

    Returns:
        The ids of what was written.
    """
    known = list(read_versions(connection))
    number = max((row.number for row in known), default=0)
    last, made = known[0].policies if known else "", []
    for policies, saved_by in ((before, ""), (text, by)):
        if policies != last:
            number += 1
            last = policies
            made.append(uuid.uuid4().hex)
            connection.execute(
                policies_table.insert().values(
                    id=made[-1],
                    number=number,
                    policies=policies,
                    saved_by=saved_by,
                    saved_at=now,
                )
            )
    connection.execute(
        policies_table.delete().where(policies_table.c.number <= number - MOST_VERSIONS)
    )
    return tuple(made)


def drop_versions(connection: Connection, ids: Collection[str]) -> None:
    """Take back what was written of a text that could not be saved."""
    connection.execute(policies_table.delete().where(policies_table.c.id.in_(ids)))
