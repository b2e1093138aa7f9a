"""The ledger: reserve, settle, grow, renew and sweep, each one transaction."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Engine, Row, and_, or_, select

from helpers.errors import LedgerDataError, LedgerError
from helpers.ledger.counters import ROLLING_MARK, add_to_counters, rolling_seconds
from helpers.ledger.identities import RememberedName, remember
from helpers.ledger.limit_states import (
    KnownResets,
    Snapshot,
    read_limit_states,
    read_snapshot,
    with_resets,
)
from helpers.ledger.records import (
    PROVISIONAL_REASONS,
    WORKER_GONE,
    RecordKey,
    Reservation,
    charge_of_row,
    close_record,
    correct_record,
    insert_record,
    key_of_reservation,
    key_of_row,
    renew_record,
)
from helpers.ledger.rollups import drop_rollups, find_rolled_up, roll_up_next
from helpers.ledger.tables import (
    IS_OPEN,
    counters_table,
    grants_table,
    migrate_ledger,
    notices_table,
    records_table,
    workers_table,
)
from helpers.ledger.transactions import (
    NEW_POOL_COUNTER_LOCK,
    TransactionRunner,
    insert_on,
    new_deadline,
)
from helpers.limits.decisions import NOTHING, Amounts, Decision, LimitState
from helpers.limits.policy import AppliedLimit, Subject
from helpers.logs import log
from helpers.metering.charges import Charge

# How long a request or a page may wait until whom the policies mean is written down.
REMEMBER_SECONDS = 1.0
# How long it may take to find out when a limit opens again: who is refused is told something.
LOOK_UP_SECONDS = 1.0
SWEEP_BATCH = 100
MOST_SET_ASIDE = 1_000
DROP_BATCH = 1_000
# A clock is believed once it has been right for a week, or for as long as records are kept, where
# the month before that has records, too: a gap looks the same as a clock that has jumped ahead.
DAY_SECONDS = 86_400
TRUSTED_AFTER_SECONDS = 7 * DAY_SECONDS
LONGEST_GAP_SECONDS = 30 * DAY_SECONDS

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
    reason: str = "",
) -> tuple[bool, Snapshot | None]:
    """Settle or release a record, once, and bring the counters up to date.

    What a sweep has closed by an estimate is closed once more, by what it has really cost.

    Returns:
        Whether this call closed it, and what it has read for that, if anything, as it is then.
    """
    more: Amounts | None = (charge or Charge()).counted
    if not close_record(connection, key.id, charge, now, reason):
        if reason in PROVISIONAL_REASONS:
            return False, None
        more = correct_record(connection, key.id, charge, now, reason)
        if more is None:
            return False, None
        drop_rollups(connection, since=key.created_at)
    if more is None or more == NOTHING:
        return True, None
    values = {"at": now, "except_id": key.id, "created_at": key.created_at}
    snapshot = read_snapshot(connection, "scope", key.scopes, limits, **values)
    add_to_counters(
        connection, snapshot.counters, key.model_names, key.source, key.created_at, more
    )
    return True, snapshot


class Ledger:
    """Every method is one transaction, blocks, and may be called from any thread.

    All of them raise `LedgerError` where the database can't be reached or is too busy at the
    deadline (by `time.monotonic`), and `LedgerDataError` where it refuses what is to be written.

    Args:
        engine: A synchronous engine on SQLite or PostgreSQL.
        schema: The PostgreSQL schema of the tables; None for the connection's own.
        clock: Seconds since 1970.
        keep_connections: Whether to hold on to connections until `rest` is called.
        worker: Who holds what is reserved here.
    """

    def __init__(
        self,
        engine: Engine,
        schema: str | None = None,
        clock: Callable[[], float] = time.time,
        keep_connections: bool = False,
        worker: str = "",
    ) -> None:
        self._worker = worker
        self._clock = clock
        self._transactions = TransactionRunner(engine, schema, keep_connections)
        self._insert = insert_on(engine.dialect)
        self._prepared = False
        self._file: tuple[int, int] | None = None  # in which it was prepared
        self._refused = 0  # statements, before the tables were looked at last
        self.known_resets: KnownResets = {}
        self._set_aside: deque[str] = deque(maxlen=MOST_SET_ASIDE)  # can't be settled
        self._preparing = Lock()
        self._rolled_up_until = 0

    def _now(self) -> int:
        return int(self._clock())

    def _with_resets(self, decision: Decision) -> Decision:
        """The same with when rolling limits open again: looked up once nobody waits for it."""
        if all(
            state.applied.limit.period.rolling is None or not state.exceeded
            for state in decision.states
        ):
            return decision
        try:
            return Decision(
                self.read(
                    lambda connection: with_resets(
                        connection, decision.states, self._now(), self.known_resets
                    ),
                    time.monotonic() + LOOK_UP_SECONDS,
                )
            )
        except (LedgerDataError, LedgerError) as error:
            # What was decided is decided: they open a period from now at the latest.
            log.debug("Usage limits: %s; when a limit opens again isn't known", error)
            return decision

    def read(
        self, work: Callable[[Connection], ReadResult], deadline: float | None = None
    ) -> ReadResult:
        """Read something else from the same database."""
        return self._transactions.read(work, deadline)

    def change(
        self,
        work: Callable[[Connection], ReadResult],
        scopes: Collection[str],
        deadline: float | None = None,
    ) -> ReadResult:
        """Run `work` in a transaction, during which no reply of these scopes is settled."""
        self.prepare(deadline)
        return self._transactions.run(work, scopes, deadline=deadline)

    def write_names(self, names: Collection[RememberedName]) -> None:
        """Remember whom names in the policies mean."""
        self._transactions.run(
            lambda connection: remember(connection, names, self._now()),
            deadline=time.monotonic() + REMEMBER_SECONDS,
        )

    def crowd_error(self) -> LedgerError:
        """The error of a request for which too many wait before it."""
        return self._transactions.no_turn("no place in the queue", time.monotonic())

    def rest(self) -> None:
        """Give the connections back that aren't in use."""
        self._transactions.rest()

    def prepare(self, deadline: float | None = None) -> None:
        """Make or update the tables; costs next to nothing after the first time.

        Also where SQLite's file was replaced, or a statement was refused: by a ledger that lacks
        a table, perhaps.
        """
        transactions = self._transactions
        found = transactions.find_file(), transactions.refused
        if self._prepared and found == (self._file, self._refused):
            return
        if deadline is None:
            deadline = new_deadline()  # with the time that others take before it
        with self._preparing:
            file, refused = transactions.find_file(), transactions.refused
            if self._prepared and self._file != file:
                log.error("Usage limits: the ledger's file was replaced: what it had is gone")
                transactions.reconnect()
            if not self._prepared or (self._file, self._refused) != (file, refused):
                made = transactions.run(self._migrate, exclusive=("migrations",), deadline=deadline)
                if made:
                    log.info("Usage limits: made or updated the ledger's tables")
                self._file, self._refused = transactions.find_file(), refused
                self._prepared = True

    def _migrate(self, connection: Connection) -> int:
        made = migrate_ledger(connection, self._now())
        _, self._rolled_up_until = find_rolled_up(connection) or (0, 0)
        return made

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
        deadline: float | None = None,
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
            deadline: Until when it may take.
        """
        self.prepare(deadline)

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
            charge = estimate(decision)
            insert_record(connection, reservation, charge, may_exist or tries > 1, self._worker)
            if reservation.created_at < self._rolled_up_until:  # by a clock that is behind
                drop_rollups(connection, since=reservation.created_at)
            return Admission(decision, warnings)

        scopes = limit_scopes(reservation.subject, limits)
        # Its settlement makes up for a reservation that a crash of PostgreSQL has lost.
        admission = self._transactions.run(work, scopes, lasting=False, deadline=deadline)
        return replace(admission, decision=self._with_resets(admission.decision))

    def settle(
        self,
        reservation: Reservation,
        charge: Charge | None,
        limits: Sequence[AppliedLimit],
        *,
        decide: bool = True,
        alert_percent: int | None = None,
        reason: str = "",
        deadline: float | None = None,
    ) -> Settlement:
        """Close a reservation with what it cost, or release it where `charge` is None.

        Idempotent: only the first call changes anything, except that what a sweep has closed by
        an estimate is put right.

        Args:
            reservation: The reply that has ended.
            charge: Its cost.
            limits: The limits that count for it.
            decide: Whether anyone wants to know where they stand now.
            alert_percent: From where a limit without thresholds of its own is crossed, if the
                administrator is to be told; None if not.
            reason: Why it is released, or settled before its end.
            deadline: Until when it may take.
        """
        self.prepare(deadline)

        def work(connection: Connection) -> Settlement:
            now = self._now()
            asked, key = limits if decide else (), key_of_reservation(reservation)
            closed, snapshot = settle_record(connection, key, charge, asked, now, reason)
            states = read_limit_states(connection, asked, now, reservation.id, snapshot)
            crossed = tuple(
                state
                for state in states
                if alert_percent is not None
                and self._is_first_crossing(connection, reservation, state, alert_percent, "alert")
            )
            return Settlement(Decision(states), closed, crossed)

        scopes = limit_scopes(reservation.subject, limits)
        settlement = self._transactions.run(
            work, scopes, (NEW_POOL_COUNTER_LOCK,), deadline=deadline
        )
        decision = self._with_resets(settlement.decision)
        crossed = Decision(settlement.crossed).with_states(decision.states).states
        return replace(settlement, decision=decision, crossed=crossed)

    def grow(
        self,
        reservation: Reservation,
        hold: Callable[[Decision], Charge],
        limits: Sequence[AppliedLimit],
        deadline: float | None = None,
    ) -> Decision:
        """Hold something else for a running reply from now on; nothing if it has ended.

        Args:
            reservation: The reply.
            hold: What to hold for it, given where its limits stand without it. It may be asked
                twice.
            limits: The limits that count for it.
            deadline: Until when it may take.

        Returns:
            Where its limits stand without it.
        """
        self.prepare(deadline)

        def work(connection: Connection) -> Decision:
            now = self._now()
            decision = Decision(read_limit_states(connection, limits, now, reservation.id))
            renew_record(connection, reservation.id, hold(decision), now)
            return decision

        scopes = limit_scopes(reservation.subject, limits)
        decision = self._transactions.run(work, scopes, lasting=False, deadline=deadline)
        return self._with_resets(decision)

    def beat(self) -> None:
        """Let the others see that this worker lives."""
        self.prepare()
        alive = self._insert(workers_table).values(id=self._worker, beats=1, seen_at=self._now())
        upsert = alive.on_conflict_do_update(
            index_elements=[workers_table.c.id],
            set_={"beats": workers_table.c.beats + 1, "seen_at": alive.excluded.seen_at},
        )

        def work(connection: Connection) -> None:
            connection.execute(upsert)
            # Another may have rolled up meanwhile what by this clock is still to come.
            _, self._rolled_up_until = find_rolled_up(connection) or (0, 0)
            if self._now() < self._rolled_up_until:
                drop_rollups(connection, since=self._now() - DAY_SECONDS)

        self._transactions.run(work, lasting=False)

    def leave(self) -> None:
        """Take back that this worker lives; it holds nothing any more."""
        if not self._prepared:
            return
        gone = workers_table.delete().where(workers_table.c.id == self._worker)
        self._transactions.run(lambda connection: connection.execute(gone), lasting=False)

    def other_workers(self) -> dict[str, int | None]:
        """Who else holds reservations, and how often each was seen to live; None for never."""
        self.prepare()
        held = (
            select(records_table.c.worker, workers_table.c.beats)
            .outerjoin(workers_table, workers_table.c.id == records_table.c.worker)
            .where(IS_OPEN, records_table.c.worker.not_in(("", self._worker)))
            .distinct()
        )
        return self.read(lambda connection: {row[0]: row[1] for row in connection.execute(held)})

    def renew(self, charges: Mapping[str, Charge], deadline: float | None = None) -> None:
        """Push the leases of running replies ahead and note what they have used so far."""

        def work(connection: Connection) -> None:
            for key, charge in sorted(charges.items()):
                renew_record(connection, key, charge, self._now())

        self._transactions.run(work, deadline=deadline)

    def sweep(self, gone: Collection[str] | None = None) -> int:
        """Settle what stopped workers left, as it was noted last.

        Args:
            gone: The workers that don't live any more. Others than these, ourselves and those of
                the first release are left alone. None for everyone whose leases have run out.

        Returns:
            How many were settled. One that can't be is set aside, and blocks nobody.
        """
        self.prepare()
        lapsed: ColumnElement[bool] = records_table.c.lease_until < self._now()
        if gone is not None:
            nobody_else = records_table.c.worker.in_(("", self._worker))
            lapsed = or_(and_(lapsed, nobody_else), records_table.c.worker.in_(list(gone)))
        orphans = select(records_table).where(
            IS_OPEN, lapsed, records_table.c.id.not_in(self._set_aside)
        )
        settled = 0
        for row in self.read(lambda one: one.execute(orphans.limit(SWEEP_BATCH)).all()):
            try:
                settled += self._settle_orphan(row)
            except LedgerError:
                raise
            except Exception:
                log.exception("Usage limits: record %s of a stopped worker is set aside", row.id)
                self._set_aside.append(str(row.id))
        if settled:
            log.warning("Usage limits: settled %d replies that a stopped server left", settled)
        return settled

    def _settle_orphan(self, row: Row[Any]) -> bool:
        key, charge = key_of_row(row), charge_of_row(row)
        settle_orphan = partial(
            settle_record, key=key, charge=charge, limits=(), now=self._now(), reason=WORKER_GONE
        )
        closed, _ = self._transactions.run(settle_orphan, key.scopes, (NEW_POOL_COUNTER_LOCK,))
        return closed

    def find_oldest_kept(self, seconds: int) -> int | None:
        """From when on records are kept; None where the clock can't be believed."""
        self.prepare()
        now = self._now()
        before = now - min(TRUSTED_AFTER_SECONDS, seconds)
        recent = select(records_table.c.id).where(
            records_table.c.created_at >= before - LONGEST_GAP_SECONDS,
            records_table.c.created_at < before,
        )
        rolling = select(counters_table.c.id).where(counters_table.c.id.contains(ROLLING_MARK))

        def find(connection: Connection) -> int | None:
            if connection.execute(recent.limit(1)).first() is None:
                return None
            # A rolling sum is made of what leaves it: a window's records stay a window longer.
            periods = [rolling_seconds(key) for key in connection.scalars(rolling)]
            return now - max(seconds, 2 * max(periods, default=0))

        return self.read(find)

    def drop_some(self, oldest: int) -> int:
        """Drop a few of what is older, so that nobody waits; returns how many records.

        The counters of open windows keep their sums.
        """
        some = (
            select(records_table.c.id)
            .where(records_table.c.created_at < oldest, ~IS_OPEN)
            .limit(DROP_BATCH)
        )

        def drop(connection: Connection) -> int:
            old = records_table.c.id.in_(some.scalar_subquery())
            dropped = connection.execute(records_table.delete().where(old)).rowcount
            drop_rollups(connection, until=oldest)
            if dropped < DROP_BATCH:
                for column in (
                    counters_table.c.window_end,
                    notices_table.c.expires_at,
                    grants_table.c.expires_at,
                    workers_table.c.seen_at,
                ):
                    connection.execute(column.table.delete().where(column < oldest))
            return dropped

        return self._transactions.run(drop)

    def roll_up(self) -> bool:
        """Roll up a block of records that is over, for reports; whether there was one."""
        self.prepare()

        def work(connection: Connection) -> bool:
            rolled_up = roll_up_next(connection, self._now())
            _, self._rolled_up_until = find_rolled_up(connection) or (0, 0)
            return rolled_up

        return self._transactions.run(work)

    def _is_first_crossing(
        self,
        connection: Connection,
        reservation: Reservation,
        state: LimitState,
        soft_limit_percent: int,
        audience: str,
    ) -> bool:
        """Whether a limit is crossed of which `audience` was not yet told in this window."""
        if state.applied.limit.is_moment:
            return False  # nobody is short of anything
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
