"""Rollups: what the records of a stretch of time add up to, once nothing changes there any more.

A report over a year would go through every record. Of a block of two weeks that is over it reads
one row for each user and model, or for each quarter of an hour, of which the days of all time zones
are made. Only reports use rollups; they may be dropped at any time, and are made anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    FromClause,
    and_,
    case,
    func,
    literal_column,
    select,
)

from helpers.ledger.tables import IS_OPEN, ledger_schema, records_table, rollups_table
from helpers.ledger.transactions import take_advisory_locks

BLOCK_LENGTH = 14 * 86_400
SLOT_LENGTH = 900
# What is that old is rolled up; what is a day younger never should be, whatever the clocks say.
SETTLED_AFTER_SECONDS = 7 * 86_400
UNSETTLED_SECONDS = 6 * 86_400
ROLLUPS_LOCK = "rollups"
# Of fewer a report reads the records as fast: it asks once, and not three times.
FEWEST_STRETCHES = 4

# What a block's rows tell apart, and what a slot's.
BLOCK_DIMENSIONS = frozenset({"user", "model", "source", "group"})
SLOT_DIMENSIONS = frozenset({"model", "source", "day"})


def whole(number: int) -> ColumnElement[int]:
    """A whole number as it stands: PostgreSQL takes two parameters of one value for different ones,
    and what is grouped by stands in two places of a query.
    """
    return literal_column(str(number), BigInteger)


@dataclass(frozen=True, slots=True)
class Summed:
    """Where sums come from: the records themselves, or rollups of them.

    Args:
        table: With a row for each of what is summed.
        instant: Its column that says when.
        sums: Requests, input and output tokens, millionths of a dollar, estimated requests.
        condition: Which of its rows count.
    """

    table: FromClause
    instant: ColumnElement[int]
    sums: tuple[ColumnElement[Any], ...]
    condition: ColumnElement[bool]

    @property
    def columns(self) -> dict[str, ColumnElement[Any]]:
        """Whose sums they are, by dimension, but for the day."""
        columns = self.table.c
        return {
            # Not the column itself: SQLite would go through all rows in the order of its index.
            "user": func.coalesce(columns.user_id, literal_column("''")),
            "model": columns.model_id,
            "source": columns.source,
            "group": columns.group_ids,
        }


def summed_records(condition: ColumnElement[bool]) -> Summed:
    """The records.

    Args:
        condition: Which of them count. Released ones never do, open ones at their estimate.
    """
    columns = records_table.c
    sums = (
        func.count(),
        func.sum(columns.input_tokens),
        func.sum(columns.output_tokens),
        func.sum(columns.cost_micros),
        func.sum(case((columns.estimated, 1), else_=0)),
    )
    counting = and_(columns.state != "released", condition)
    return Summed(records_table, columns.created_at, sums, counting)


def between(
    column: ColumnElement[int], since: int | None, until: int | None
) -> ColumnElement[bool]:
    """Whether an instant is from `since` on and before `until`, each as far as it is given."""
    bounds = [] if since is None else [column >= since]
    return and_(True, *bounds, *([] if until is None else [column < until]))


def summed_rollups(length: int, since: int, until: int) -> Summed:
    """The rollups of all stretches of a length, in seconds, between two of their limits."""
    columns = rollups_table.c
    names = ("requests", "input_tokens", "output_tokens", "cost_micros", "estimated_requests")
    sums = tuple(func.sum(columns[name]) for name in names)
    condition = and_(columns.seconds == length, between(columns.start, since, until))
    return Summed(rollups_table, columns.start, sums, condition)


def find_summed(
    connection: Connection, wanted: Iterable[str], since: int | None, until: int | None
) -> list[Summed]:
    """Where the sums of a span by some dimensions come from: each record is in one of these.

    Args:
        wanted: The dimensions.
        since: The first second; None: from the first record on.
        until: The second after the last one; None: to the last record.
    """
    asked, created_at = frozenset(wanted), records_table.c.created_at
    length = BLOCK_LENGTH if asked <= BLOCK_DIMENSIONS else SLOT_LENGTH
    served = asked <= BLOCK_DIMENSIONS or asked <= SLOT_DIMENSIONS
    rolled_up = find_rolled_up(connection) if served else None
    if rolled_up is not None:
        first, end = rolled_up
        first = first if since is None else max(first, -(-since // length) * length)
        end = end if until is None else min(end, until // length * length)
        if first + FEWEST_STRETCHES * length <= end:
            return [
                summed_records(between(created_at, since, first)),
                summed_rollups(length, first, end),
                summed_records(between(created_at, end, until)),
            ]
    return [summed_records(between(created_at, since, until))]


def find_rolled_up(connection: Connection) -> tuple[int, int] | None:
    """From when on and until when all is rolled up; None for nothing."""
    schema = ledger_schema(connection)
    if not connection.dialect.has_table(connection, rollups_table.name, schema=schema):
        return None  # a ledger of an earlier version
    columns = rollups_table.c
    blocks = select(columns.start).where(columns.seconds == BLOCK_LENGTH).limit(1)
    first = connection.scalar(blocks.order_by(columns.start))
    last = connection.scalar(blocks.order_by(columns.start.desc()))
    return None if first is None or last is None else (first, last + BLOCK_LENGTH)


def roll_up_next(connection: Connection, now: int) -> bool:
    """Roll up the earliest block that isn't, if it has settled; returns whether there was one.

    Blocks are taken in the order of time, but for those without records: whatever lies between two
    that are rolled up is rolled up, too. `now` is in seconds since 1970.
    """
    drop_rollups(connection, since=now - UNSETTLED_SECONDS)  # made by a clock that was ahead
    columns, rolled_up = records_table.c, find_rolled_up(connection)
    first = connection.scalar(
        select(columns.created_at)
        .where(columns.state != "released", columns.created_at >= (rolled_up or (0, 0))[1])
        .order_by(columns.created_at)
        .limit(1)
    )
    if first is None:
        return False
    start = first // BLOCK_LENGTH * BLOCK_LENGTH
    running = connection.scalars(select(columns.created_at).where(IS_OPEN))
    settled = min(running, default=now)
    if start + BLOCK_LENGTH > min(now - SETTLED_AFTER_SECONDS, settled):
        return False
    block = summed_records(between(columns.created_at, start, start + BLOCK_LENGTH))
    slot = columns.created_at // whole(SLOT_LENGTH) * whole(SLOT_LENGTH)
    nobody: list[ColumnElement[Any]] = [literal_column("''")] * 2
    of_model = [columns.model_id, columns.source]
    whose = [block.columns["user"], columns.group_ids]
    names = [column.name for column in rollups_table.c]
    for values, alike in (
        ([whole(BLOCK_LENGTH), whole(start), *whose], whose),
        ([whole(SLOT_LENGTH), slot, *nobody], [slot]),
    ):
        rows = select(*values, *of_model, *block.sums).where(block.condition)
        grouped = rows.group_by(*alike, *of_model)
        connection.execute(rollups_table.insert().from_select(names, grouped))
    return True


def drop_rollups(
    connection: Connection, since: int | None = None, until: int | None = None
) -> None:
    """Drop the rollups of what is from `since` on or before `until`, one of them at most.

    Whoever changes records that may be rolled up calls this afterwards in the same transaction,
    whose end those who roll up wait for.
    """
    take_advisory_locks(connection, (ROLLUPS_LOCK,))
    if find_rolled_up(connection) is None:
        return
    start, seconds = rollups_table.c.start, rollups_table.c.seconds
    first = None if since is None else since // BLOCK_LENGTH * BLOCK_LENGTH
    end = None if until is None else -(-until // BLOCK_LENGTH) * BLOCK_LENGTH
    by_index = seconds.in_((BLOCK_LENGTH, SLOT_LENGTH))
    connection.execute(rollups_table.delete().where(by_index, between(start, first, end)))
