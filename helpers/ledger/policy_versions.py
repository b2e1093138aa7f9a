"""Policy versions: the last policies texts that were saved on the page, to go back to."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, select

from helpers.ledger.tables import policies_table

MOST_VERSIONS = 20


def read_versions(connection: Connection) -> Sequence[Row[Any]]:
    """The saved texts, the newest first."""
    columns = policies_table.c
    return connection.execute(
        select(policies_table).order_by(columns.saved_at.desc(), columns.number.desc())
    ).all()


def keep_version(connection: Connection, before: str, text: str, by: str, now: int) -> None:
    """Write down a text that was saved, and what stood there before if that isn't known.

    Args:
        connection: In a transaction.
        before: The text that was in force.
        text: The new one.
        by: Who saved it.
        now: Seconds since 1970.
    """
    known = list(read_versions(connection))
    number = max((row.number for row in known), default=0)
    last = known[0].policies if known else ""
    for policies, saved_by in ((before, ""), (text, by)):
        if policies.strip() and policies != last:
            number += 1
            last = policies
            connection.execute(
                policies_table.insert().values(
                    id=uuid.uuid4().hex,
                    number=number,
                    policies=policies,
                    saved_by=saved_by,
                    saved_at=now,
                )
            )
    connection.execute(
        policies_table.delete().where(policies_table.c.number <= number - MOST_VERSIONS)
    )
