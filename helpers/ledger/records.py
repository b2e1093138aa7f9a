"""Records: one row per reply, reserved when it is admitted and closed once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select

from helpers.ledger.counters import join_names, scopes_of
from helpers.ledger.tables import IS_OPEN, records_table
from helpers.limits.decisions import Amounts
from helpers.limits.policy import Subject
from helpers.metering.charges import Charge
from helpers.metering.usage import Usage

# A reservation whose server has not renewed it for this long is an orphan of a crash.
LEASE_SECONDS = 300

# Built once: SQLAlchemy finds what it has compiled by them.
FIND_RECORD = select(records_table.c.id).where(records_table.c.id == bindparam("key"))
INSERT_RECORD = records_table.insert()
UPDATE_OPEN_RECORD = records_table.update().where(records_table.c.id == bindparam("key"), IS_OPEN)

# Why a record was released, or settled by what was noted of its reply last.
NO_ANSWER = "no answer"
NOT_CALLED = "model not called"
WORKER_GONE = "worker gone"
WORKER_STOPPED = "worker stopped"
# Whoever has seen the reply to its end knows better than these.
PROVISIONAL_REASONS = (WORKER_GONE, WORKER_STOPPED)
IS_PROVISIONAL = (
    (records_table.c.id == bindparam("key"))
    & (records_table.c.state == "settled")
    & records_table.c.end_reason.in_(PROVISIONAL_REASONS)
)


@dataclass(frozen=True, slots=True)
class Reservation:
    """What is known of a reply when it is admitted."""

    id: str
    subject: Subject
    model_names: tuple[str, ...]  # the model that answers first
    source: str
    chat_id: str
    message_id: str
    policy: str
    created_at: int  # seconds since 1970, UTC


@dataclass(frozen=True, slots=True)
class RecordKey:
    """What the counters need to know of a record."""

    id: str
    scopes: tuple[str, ...]
    model_names: str
    source: str
    created_at: int


def key_of_reservation(reservation: Reservation) -> RecordKey:
    """The key of a reply's own record."""
    return RecordKey(
        reservation.id,
        reservation.subject.scopes,
        join_names(reservation.model_names),
        reservation.source,
        reservation.created_at,
    )


def key_of_row(row: Row[Any]) -> RecordKey:
    """The key of a record that was read."""
    scopes = scopes_of(row.user_id, row.group_ids)
    return RecordKey(row.id, scopes, row.model_names, row.source, row.created_at)


def charge_of_row(row: Row[Any]) -> Charge:
    """What a record that was read holds; an estimate, since its reply was never settled."""
    tokens = (row.input_tokens, row.output_tokens, row.cached_input_tokens)
    weighted = (row.counted, row.weighted_input_tokens, row.weighted_output_tokens)
    counted = Amounts(*weighted, cost_micros=row.cost_micros * row.counted)
    return Charge(Usage(*tokens, estimated=True), row.cost_micros, counted)


def insert_record(
    connection: Connection,
    reservation: Reservation,
    charge: Charge,
    may_exist: bool,
    worker: str = "",
) -> None:
    """Write a reservation; `may_exist` after a connection that broke during its commit."""
    if may_exist and connection.execute(FIND_RECORD, {"key": reservation.id}).first():
        return
    connection.execute(
        INSERT_RECORD,
        {
            "id": reservation.id,
            "user_id": reservation.subject.user_id,
            "user_email": reservation.subject.email,
            "group_ids": join_names(group.id for group in reservation.subject.groups),
            "model_id": reservation.model_names[0],
            "model_names": join_names(reservation.model_names),
            "source": reservation.source,
            "chat_id": reservation.chat_id,
            "message_id": reservation.message_id,
            "policy": reservation.policy,
            "state": "reserved",
            "created_at": reservation.created_at,
            "settled_at": None,
            "lease_until": reservation.created_at + LEASE_SECONDS,
            "worker": worker,
            "end_reason": "",
            **charge.values(),
        },
    )


def renew_record(connection: Connection, key: str, charge: Charge, now: int) -> None:
    """Push an open record's lease ahead and note what its reply has used so far."""
    values = {"key": key, "lease_until": now + LEASE_SECONDS, **charge.values()}
    connection.execute(UPDATE_OPEN_RECORD, values)


def ended_values(charge: Charge | None, now: int, reason: str) -> dict[str, Any]:
    """The columns of a record that was settled, or released without a charge."""
    return {
        "state": "released" if charge is None else "settled",
        "settled_at": now,
        "end_reason": reason or (NO_ANSWER if charge is None else ""),
        **(charge or Charge()).values(),
    }


def close_record(
    connection: Connection, key: str, charge: Charge | None, now: int, reason: str = ""
) -> bool:
    """Settle or release a record; False if it was closed before. Counters are left alone."""
    values = {"key": key, **ended_values(charge, now, reason)}
    return connection.execute(UPDATE_OPEN_RECORD, values).rowcount > 0


def correct_record(
    connection: Connection, key: str, charge: Charge | None, now: int, reason: str = ""
) -> Amounts | None:
    """Replace what the sweep took a reply for by what it has really cost, once.

    Returns:
        How much more counts now; None if the record wasn't closed by an estimate of that kind.
    """
    found = connection.execute(select(records_table).where(IS_PROVISIONAL), {"key": key}).first()
    if found is None:
        return None
    changed = connection.execute(
        records_table.update().where(IS_PROVISIONAL).values(**ended_values(charge, now, reason)),
        {"key": key},
    )
    if not changed.rowcount:
        return None
    return (charge or Charge()).counted - charge_of_row(found).counted
