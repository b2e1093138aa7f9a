"""Records of replies from before the filter: made, and written so that all counters agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from typing import Any

from rich.progress import Progress
from sqlalchemy import Connection, Engine, select

from helpers.ledger.counters import join_names
from helpers.ledger.ledger import Ledger
from helpers.ledger.reports import Sums
from helpers.ledger.rollups import drop_rollups
from helpers.ledger.tables import counters_table, records_table
from helpers.ledger.transactions import (
    NEW_POOL_COUNTER_LOCK,
    TransactionRunner,
    take_advisory_locks,
)
from helpers.limits.policy import Subject, choose_policy, find_model_rule
from helpers.metering.charges import Charge, make_charge
from helpers.openwebui.valves import AdminValves, is_exempt
from scripts.limits.history import PastReply

SOURCE = "backfill"
# One transaction: so short that no chat waits long for it.
BATCH = 500


@dataclass(frozen=True, slots=True)
class PastRecord:
    """A reply of the past with what it is charged for."""

    reply: PastReply
    subject: Subject
    model_names: tuple[str, ...]
    policy: str
    charge: Charge

    @property
    def id(self) -> str:
        """The same at every run, so that it is written once."""
        return f"backfill-{self.reply.message_id}"

    @property
    def sums(self) -> Sums:
        """It alone, as reports add it up."""
        usage, cost = self.charge.usage, self.charge.cost_micros
        return Sums(1, usage.input_tokens, usage.output_tokens, cost, int(usage.estimated))

    def values(self, now: int) -> dict[str, Any]:
        """Its row."""
        return {
            "id": self.id,
            "user_id": self.subject.user_id,
            "user_email": self.subject.email,
            "group_ids": join_names(group.id for group in self.subject.groups),
            "model_id": self.model_names[0],
            "model_names": join_names(self.model_names),
            "source": SOURCE,
            "chat_id": self.reply.chat_id,
            "message_id": self.reply.message_id,
            "policy": self.policy,
            "state": "settled",
            "created_at": self.reply.created_at,
            "settled_at": now,
            "lease_until": self.reply.created_at,
            **self.charge.values(),
        }


def make_past_record(
    reply: PastReply, subject: Subject, model_names: tuple[str, ...], valves: AdminValves
) -> PastRecord:
    """Charge a reply as if it came now: by today's policies, prices and groups."""
    policies = valves.policy_set
    policy = choose_policy(subject, policies, valves.default_policy, valves.multiple_groups)
    return PastRecord(
        reply,
        subject,
        model_names,
        "exempt" if is_exempt(valves, subject) else policy.name,
        make_charge(reply.usage, find_model_rule(policies, model_names)),
    )


def write_past_records(
    engine: Engine,
    schema: str | None,
    records: Sequence[PastRecord],
    now: int,
    progress: Progress,
) -> list[PastRecord]:
    """Write the records that aren't there yet, one user at a time, and return them.

    Raises:
        LedgerError: The ledger can't be written; what is written until then stays, and the next
            run goes on from there.
    """
    Ledger(engine, schema).prepare()
    transactions = TransactionRunner(engine, schema)
    task = progress.add_task("Writing records", total=len(records))
    written = []
    for batch in user_batches(records):
        # Whoever admits or settles for the user holds this lock, and whoever sums the records.
        scope = batch[0].subject.scope
        written += transactions.run(partial(write_batch, batch=batch, now=now), (scope,))
        progress.advance(task, len(batch))
    return written


def user_batches(records: Sequence[PastRecord]) -> Iterator[list[PastRecord]]:
    """The records of one user after the other, in small bites."""
    ordered = sorted(records, key=lambda record: (record.subject.user_id, record.reply.created_at))
    for _, group in groupby(ordered, key=lambda record: record.subject.user_id):
        while batch := list(islice(group, BATCH)):
            yield batch


def write_batch(connection: Connection, batch: Sequence[PastRecord], now: int) -> list[PastRecord]:
    """Write the records of one user, and drop the sums that would have to know of them.

    Each is made anew from the records.
    """
    # As in `read_counters`: after the user's own lock, or two transactions wait for each other.
    take_advisory_locks(connection, (NEW_POOL_COUNTER_LOCK,))
    ids = [record.id for record in batch]
    there = set(connection.scalars(select(records_table.c.id).where(records_table.c.id.in_(ids))))
    new = [record for record in batch if record.id not in there]
    if new:
        connection.execute(records_table.insert(), [record.values(now) for record in new])
        scopes = {scope for record in new for scope in record.subject.scopes}
        connection.execute(
            counters_table.delete().where(counters_table.c.scope.in_(sorted(scopes)))
        )
        drop_rollups(connection, since=min(record.reply.created_at for record in new))
    return new
