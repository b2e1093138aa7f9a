"""Grants: what administrators add to limits, reset and take back; rows, never edits."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, literal_column, select

from helpers.ledger.counters import COUNTED_SUMS, counted_window, glob_matches, scope_condition
from helpers.ledger.limit_states import latest_reset
from helpers.ledger.many_limits import GRANT_KEY, grant_key, read_states
from helpers.ledger.tables import grants_table, records_table
from helpers.limits.decisions import Amounts, LimitState
from helpers.limits.policy import AppliedLimit

# A reset of a rolling limit is a few rows that run out one after another, as the use does.
ROLLING_PARTS = 60
# A row that takes another one back has its id, so that it can't be taken back twice.
REVOKED = "revoked:"


@dataclass(frozen=True, slots=True)
class NewGrant:
    """A row to write: what is added to a limit, and until when (seconds since 1970)."""

    applied: AppliedLimit
    amount: int
    expires_at: int
    kind: str = "grant"
    # Made once: a transaction that is tried again must not write it twice.
    id: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True, slots=True)
class Change:
    """Limits before and after rows were added for them, and those rows."""

    before: tuple[LimitState, ...]
    after: tuple[LimitState, ...]
    grants: tuple[NewGrant, ...] = ()


def grant_end(applied: AppliedLimit, now: datetime) -> int:
    """The second until which a grant counts: a limit's window ends, or a period has passed."""
    return int(latest_reset(applied, int(now.timestamp())).timestamp())


def add_grants(
    connection: Connection,
    limits: Sequence[AppliedLimit],
    make: Callable[[Connection], Sequence[NewGrant]],
    by: str,
    reason: str,
    now: datetime,
) -> Change:
    """Write grants, in a transaction under the locks of all scopes concerned.

    Args:
        limits: The limits that change.
        make: What to add, given the ledger as it is then.
        by: Who grants.
    """
    before, grants = read_states(connection, limits, now), tuple(make(connection))
    for new in grants:
        if connection.scalar(select(grants_table.c.id).where(grants_table.c.id == new.id)):
            continue
        values = dict[Any, Any](zip(GRANT_KEY, grant_key(new.applied), strict=True)) | {
            "id": new.id,
            "amount": new.amount,
            "kind": new.kind,
            "granted_by": by,
            "reason": reason,
            "created_at": int(now.timestamp()),
            "expires_at": new.expires_at,
        }
        connection.execute(grants_table.insert().values(values))
    return Change(before, read_states(connection, limits, now), grants)


def find_grant(connection: Connection, key: str, now: datetime) -> Row[tuple[object, ...]] | None:
    """A grant or reset that still holds and wasn't taken back."""
    taken_back = select(grants_table.c.id).where(grants_table.c.id == REVOKED + key)
    return connection.execute(
        select(grants_table).where(
            grants_table.c.id == key,
            grants_table.c.amount > 0,
            grants_table.c.expires_at > int(now.timestamp()),
            ~taken_back.exists(),
        )
    ).first()


def revoke_grant(connection: Connection, key: str, by: str, reason: str, now: datetime) -> bool:
    """Take a grant back by a row of its own; False where there is none that still holds.

    The caller holds the lock of its scope.
    """
    row = find_grant(connection, key, now)
    if row is None:
        return False
    values = dict(row._mapping)
    values |= {
        "id": REVOKED + key,
        "amount": -int(values["amount"]),
        "granted_by": by,
        "reason": reason,
        "created_at": int(now.timestamp()),
    }
    connection.execute(grants_table.insert().values(values))
    return True


def missing_resets(connection: Connection, state: LimitState, now: datetime) -> Iterator[NewGrant]:
    """The grants that make up for what was used and that no earlier reset has made up for."""
    applied, second = state.applied, int(now.timestamp())
    same = (column == name for column, name in zip(GRANT_KEY, grant_key(applied), strict=True))
    earlier = connection.scalar(
        select(func.coalesce(func.sum(grants_table.c.amount), 0)).where(
            *same, grants_table.c.kind == "reset", grants_table.c.expires_at > second
        )
    )
    amount = state.used - int(earlier or 0)
    if amount <= 0:
        return
    if applied.limit.period.rolling is None:
        yield NewGrant(applied, amount, grant_end(applied, now), "reset")
        return
    for expires_at, part in rolling_parts(connection, applied, amount, second).items():
        yield NewGrant(applied, part, expires_at, "reset")


def make_resets(
    connection: Connection, limits: Sequence[AppliedLimit], now: datetime
) -> list[NewGrant]:
    """What has been used of limits, as grants."""
    states = read_states(connection, limits, now)
    return [new for state in states for new in missing_resets(connection, state, now)]


def rolling_parts(
    connection: Connection, applied: AppliedLimit, amount: int, second: int
) -> dict[int, int]:
    """The newest use of a rolling limit up to `amount`, by when it leaves the window.

    A single grant of all of it would last a period from now, and so would add to the limit
    after the use that it makes up for is forgotten. Times are rounded up to a few instants.
    """
    start, _ = counted_window(applied, second)
    length = second - start + 1
    step = max(1, length // ROLLING_PARTS)
    columns = records_table.c
    rows = connection.execute(
        select(
            (columns.created_at + (length + step - 1)) // step * step,
            columns.model_names,
            *COUNTED_SUMS,
        )
        .where(
            columns.state == "settled",
            columns.created_at >= start,
            scope_condition(applied.scope, applied.limit.source),
        )
        .group_by(literal_column("1"), literal_column("2"))
        .order_by(literal_column("1").desc())
    )
    parts: dict[int, int] = {}
    for expires_at, model_names, *sums in rows:
        if glob_matches(applied.limit.model_glob, model_names):
            part = min(amount, int(Amounts(*sums).of(applied.limit.measure)))
            parts[expires_at] = parts.get(expires_at, 0) + part
            amount -= part
    return {expires_at: part for expires_at, part in parts.items() if part}


def read_grants(
    connection: Connection, scopes: Collection[str], since: int, most: int
) -> Sequence[Row[Any]]:
    """What was granted, reset and taken back since then, the newest first."""
    columns = grants_table.c
    return connection.execute(
        select(grants_table)
        .where(columns.scope.in_(sorted(scopes)), columns.expires_at > since)
        .order_by(columns.created_at.desc(), columns.id.desc())  # "revoked:…" before the grant
        .limit(most)
    ).all()
