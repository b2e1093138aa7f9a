"""The ledger: reserve, settle, check, renew and sweep, each one transaction."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Row, select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from helpers.charges import Charge
from helpers.counters import add_to_counters
from helpers.decisions import Decision, LimitState
from helpers.identities import RememberedName, read_remembered, remember
from helpers.limit_states import read_limit_states
from helpers.logs import log
from helpers.policy import AppliedLimit, Subject
from helpers.records import (
    RecordKey,
    Reservation,
    charge_of_row,
    close_record,
    insert_record,
    key_of_reservation,
    key_of_row,
    renew_record,
)
from helpers.snapshots import Snapshot, snapshot_of_record
from helpers.tables import (
    IS_OPEN,
    counters_table,
    grants_table,
    migrate_ledger,
    notices_table,
    records_table,
)
from helpers.transactions import NEW_POOL_COUNTER_LOCK, TransactionRunner

SWEEP_BATCH = 100
DROP_BATCH = 1_000

ReadResult = TypeVar("ReadResult")


@dataclass(frozen=True, slots=True)
class Settlement:
    """Where the limits stand after a reply has ended."""

    decision: Decision
    closed: bool  # False if it was closed before, or isn't there
    # The soft and hard limits that it has crossed, for the administrator's alerts.
    crossed: tuple[LimitState, ...] = ()


@dataclass(frozen=True, slots=True)
class Admission:
    """What `Ledger.reserve` decided, and what the user is to be told of it."""

    decision: Decision
    # The soft limits that are crossed for the first time in their window.
    warnings: tuple[LimitState, ...] = ()


def limit_scopes(subject: Subject, limits: Sequence[AppliedLimit]) -> set[str]:
    """The scopes whose locks a transaction about these limits needs."""
    return {subject.scope, *(applied.scope for applied in limits)}


def settle_record(
    connection: Connection,
    key: RecordKey,
    charge: Charge | None,
    limits: Sequence[AppliedLimit],
    now: int,
) -> tuple[bool, Snapshot | None]:
    """Settle or release a record, once, and bring the counters up to date.

    Returns:
        Whether this call closed it, and what it has read for that, if anything, as it is then.
    """
    closed = close_record(connection, key.id, charge, now)
    if not closed or charge is None or not charge.counted.requests:
        return closed, None
    snapshot = snapshot_of_record(connection, key.scopes, key.created_at, limits, now, key.id)
    add_to_counters(connection, snapshot.counters, key.model_names, charge.counted)
    return True, snapshot


class Ledger:
    """Every method is one transaction, blocks, and may be called from any thread.

    All of them raise `LedgerError` where the database can't be reached, read or written.

    Args:
        engine: A synchronous engine on SQLite or PostgreSQL.
        schema: The PostgreSQL schema of the tables; None for the connection's own.
        clock: Seconds since 1970.
        keep_connections: Whether to hold on to connections until `rest` is called.
    """

    def __init__(
        self,
        engine: Engine,
        schema: str | None = None,
        clock: Callable[[], float] = time.time,
        keep_connections: bool = False,
    ) -> None:
        self._clock = clock
        self._transactions = TransactionRunner(engine, schema, keep_connections)
        self._insert: Any = sqlite_insert if engine.dialect.name == "sqlite" else postgresql_insert
        self._prepared = False
        self._preparing = Lock()

    def _now(self) -> int:
        return int(self._clock())

    def read(self, work: Callable[[Connection], ReadResult]) -> ReadResult:
        """Read something else from the same database."""
        return self._transactions.read(work)

    def read_names(self) -> frozenset[RememberedName]:
        """Whom the names in the policies have meant so far."""
        self.prepare()
        return self._transactions.read(read_remembered)

    def write_names(self, names: Collection[RememberedName]) -> None:
        """Remember whom names in the policies mean."""
        self._transactions.run(lambda connection: remember(connection, names, self._now()))

    def rest(self) -> None:
        """Give the connections back that aren't in use."""
        self._transactions.rest()

    def prepare(self) -> None:
        """Make or update the tables; costs nothing after the first time."""
        with self._preparing:
            if not self._prepared:
                made = self._transactions.run(
                    lambda connection: migrate_ledger(connection, self._now()),
                    exclusive=("migrations",),
                )
                if made:
                    log.info("Usage limits: made or updated the ledger's tables")
                self._prepared = True

    def reserve(
        self,
        reservation: Reservation,
        estimate: Callable[[Decision], Charge],
        limits: Sequence[AppliedLimit],
        *,
        enforce: bool = True,
        soft_limit_percent: int = 100,
        announce: bool = False,
        may_exist: bool = False,
    ) -> Admission:
        """Decide about a request and, if it is admitted, reserve for it.

        Args:
            reservation: The reply to admit.
            estimate: What to hold for it, given where its limits stand.
            limits: The limits that count for it; none for a free model.
            enforce: Whether a hard limit refuses; if not, the reservation is always made.
            soft_limit_percent: From where a limit without thresholds of its own warns.
            announce: Whether the user can be told; else no warning is marked as given.
            may_exist: Whether an earlier try may have been written after all.
        """
        self.prepare()

        tries = 0

        def work(connection: Connection) -> Admission:
            nonlocal tries
            tries += 1
            decision = Decision(
                read_limit_states(connection, limits, reservation.created_at, reservation.id)
            )
            if enforce and not decision.allowed:
                return Admission(decision)
            warnings = tuple(
                state
                for state in decision.states
                if announce
                and not state.exceeded
                and self._is_first_crossing(
                    connection, reservation, state, soft_limit_percent, "user"
                )
            )
            insert_record(connection, reservation, estimate(decision), may_exist or tries > 1)
            return Admission(decision, warnings)

        scopes = limit_scopes(reservation.subject, limits)
        # Its settlement makes up for a reservation that a crash of PostgreSQL has lost.
        return self._transactions.run(work, scopes, lasting=False)

    def settle(
        self,
        reservation: Reservation,
        charge: Charge | None,
        limits: Sequence[AppliedLimit],
        *,
        decide: bool = True,
        alert_percent: int | None = None,
    ) -> Settlement:
        """Close a reservation with what it cost, or release it where `charge` is None.

        Idempotent: only the first call changes anything.

        Args:
            reservation: The reply that has ended.
            charge: Its cost.
            limits: The limits that count for it.
            decide: Whether anyone wants to know where they stand now.
            alert_percent: From where a limit without thresholds of its own is crossed, if the
                administrator is to be told; None if not.
        """
        self.prepare()

        def work(connection: Connection) -> Settlement:
            now = self._now()
            asked, key = limits if decide else (), key_of_reservation(reservation)
            closed, snapshot = settle_record(connection, key, charge, asked, now)
            states = read_limit_states(connection, asked, now, reservation.id, snapshot)
            crossed = tuple(
                state
                for state in states
                if alert_percent is not None
                and self._is_first_crossing(connection, reservation, state, alert_percent, "alert")
            )
            return Settlement(Decision(states), closed, crossed)

        return self._transactions.run(
            work, limit_scopes(reservation.subject, limits), (NEW_POOL_COUNTER_LOCK,)
        )

    def check(self, reservation: Reservation, limits: Sequence[AppliedLimit]) -> Decision:
        """Where the limits stand without this reservation; nothing is reserved."""
        self.prepare()
        return self._transactions.run(
            lambda connection: Decision(
                read_limit_states(connection, limits, self._now(), reservation.id)
            ),
            limit_scopes(reservation.subject, limits),
        )

    def renew(self, charges: Mapping[str, Charge]) -> None:
        """Push the leases of running replies ahead and note what they have used so far."""

        def work(connection: Connection) -> None:
            for key, charge in sorted(charges.items()):
                renew_record(connection, key, charge, self._now())

        self._transactions.run(work)

    def sweep(self) -> int:
        """Settle what crashed servers left, as it was noted last; returns how many."""
        self.prepare()

        def find_orphans(connection: Connection) -> Sequence[Row[Any]]:
            return connection.execute(
                select(records_table)
                .where(IS_OPEN, records_table.c.lease_until < self._now())
                .limit(SWEEP_BATCH)
            ).all()

        settled = 0
        for row in self._transactions.run(find_orphans):
            key, charge = key_of_row(row), charge_of_row(row)
            settle_orphan = partial(
                settle_record, key=key, charge=charge, limits=(), now=self._now()
            )
            closed, _ = self._transactions.run(settle_orphan, key.scopes, (NEW_POOL_COUNTER_LOCK,))
            settled += closed
        if settled:
            log.warning("Usage limits: settled %d replies that a stopped server left", settled)
        return settled

    def drop_older(self, seconds: int) -> int:
        """Drop what is older than that and no open window needs; returns how many records.

        The counters of open windows keep their sums.
        """
        self.prepare()
        oldest = self._now() - seconds
        some = (
            select(records_table.c.id)
            .where(records_table.c.created_at < oldest, ~IS_OPEN)
            .limit(DROP_BATCH)
        )

        def drop_some(connection: Connection) -> int:
            old = records_table.c.id.in_(some.scalar_subquery())
            return connection.execute(records_table.delete().where(old)).rowcount

        def drop_expired(connection: Connection) -> None:
            for column in (
                counters_table.c.window_end,
                notices_table.c.expires_at,
                grants_table.c.expires_at,
            ):
                connection.execute(column.table.delete().where(column < oldest))

        self._transactions.run(drop_expired)
        dropped = batch = self._transactions.run(drop_some)
        while batch == DROP_BATCH:  # in small bites, so that nobody waits
            batch = self._transactions.run(drop_some)
            dropped += batch
        return dropped

    def _is_first_crossing(
        self,
        connection: Connection,
        reservation: Reservation,
        state: LimitState,
        soft_limit_percent: int,
        audience: str,
    ) -> bool:
        """Whether a limit is crossed of which `audience` was not yet told in this window."""
        percent = 100 if state.exceeded else state.crossed_threshold(soft_limit_percent)
        if percent is None:
            return False
        applied, user_id = state.applied, reservation.subject.user_id
        # Each user is warned, the administrator is told once of a pool.
        told = audience if audience == "alert" and applied.is_pool else f"{audience} {user_id}"
        notice = self._insert(notices_table).values(
            id=f"{told} {applied.scope} {applied.limit} at {percent}%",
            expires_at=int(state.reset_at.timestamp()),
        )
        marked = connection.execute(
            notice.on_conflict_do_update(
                index_elements=[notices_table.c.id],
                set_={"expires_at": notice.excluded.expires_at},
                where=notices_table.c.expires_at <= reservation.created_at,
            ).returning(notices_table.c.id)
        )
        return marked.first() is not None
