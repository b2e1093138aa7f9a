"""Runs the ledger off the event loop and sees every reply to its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy import Connection, Engine

from helpers.alerts import AlertSender, alert_payload
from helpers.charges import Charge
from helpers.decisions import Decision
from helpers.errors import LedgerError
from helpers.identities import HostNames, IdentityMemory
from helpers.ledger import Admission, Ledger, Settlement
from helpers.logs import log
from helpers.policy import AppliedLimit
from helpers.replies import Reply

# How often running replies are renewed, and charges that could not be written tried again.
ROUND_SECONDS = 30
RETRY_SECONDS = 5
SWEEP_SECONDS = 60
DROP_SECONDS = 86_400
RETENTION_SECONDS = 400 * 86_400
# SQLite has one writer at a time: more threads would only wait for each other.
SQLITE_THREADS = 1
POSTGRESQL_THREADS = 4

ThreadResult = TypeVar("ThreadResult")


class Bookkeeper:
    """One per ledger and process.

    Args:
        engine: The ledger's synchronous engine.
        schema: The PostgreSQL schema of its tables, if not the connection's own.
    """

    def __init__(self, engine: Engine, schema: str | None) -> None:
        sqlite = engine.dialect.name == "sqlite"
        self._ledger = Ledger(engine, schema, keep_connections=True)
        self._threads = ThreadPoolExecutor(
            SQLITE_THREADS if sqlite else POSTGRESQL_THREADS,
            thread_name_prefix="usage-limits",
        )
        self._alerts = AlertSender()
        self.retention_seconds = RETENTION_SECONDS
        self._running: dict[str, Reply] = {}
        self._unwritten: dict[str, tuple[Reply, Charge | None]] = {}
        self._rounds: asyncio.Task[None] | None = None
        self._swept_at = float("-inf")
        self._dropped_at = float("-inf")

    def read(self, work: Callable[[Connection], ThreadResult]) -> ThreadResult:
        """Read something else from the ledger's database; blocks.

        Raises:
            LedgerError: The database can't be read.
        """
        return self._ledger.read(work)

    def remember_identities(
        self,
        read_host: Callable[[Collection[str], Collection[str]], HostNames],
        list_models: Callable[[], Collection[str]],
        publish: Callable[[tuple[str, ...]], None],
    ) -> IdentityMemory:
        """A memory, kept in this ledger, of whom the policies mean."""
        ledger = self._ledger
        return IdentityMemory(
            ledger.read_names, ledger.write_names, read_host, list_models, publish
        )

    def close(self) -> None:
        """Wait for what is being written, and give the connections back.

        Open WebUI doesn't tell a filter when it is replaced; connections go back anyway once no
        reply is running.
        """
        self._threads.shutdown()
        self._ledger.rest()

    async def admit(
        self, build: Callable[[], Reply | tuple[Reply, LedgerError]], announce: bool
    ) -> tuple[Reply, Admission | LedgerError]:
        """Build a reply and reserve for it, and watch the current task for its end.

        Args:
            build: Finds out what is to be known of the reply, or why that can't be read. It is
                called in a thread, and may block.
            announce: Whether the user can be told of soft limits.

        Returns:
            The reply, and what was decided about it, or why it could not be reserved for.
        """

        def reserve() -> tuple[Reply, Admission | LedgerError]:
            built = build()
            if isinstance(built, tuple):
                return built
            reply = built
            try:
                admission = self._ledger.reserve(
                    reply.reservation,
                    reply.fit_output,
                    reply.limits,
                    enforce=reply.enforced,
                    soft_limit_percent=reply.soft_limit_percent,
                    announce=announce,
                )
            except LedgerError as error:
                return reply, error
            reply.written = admission.decision.allowed or not reply.enforced
            return reply, admission

        # Where the caller is cancelled the reservation may still be written, and its end must
        # wait for that.
        admission = self._in_thread(reserve)
        admission.add_done_callback(self._admitted)
        task = asyncio.current_task()
        if task is not None:
            task.add_done_callback(lambda _: admission.add_done_callback(self._task_ended))
        return await asyncio.shield(admission)

    def forget(self, reply: Reply) -> None:
        """Leave a reply alone that is not going to run."""
        self._running.pop(reply.reservation.id, None)

    async def check(self, reply: Reply, limits: Sequence[AppliedLimit]) -> Decision:
        """Where limits stand without this reply.

        Raises:
            LedgerError: The database can't be read or written.
        """
        return await self._in_thread(lambda: self._ledger.check(reply.reservation, limits))

    async def renew(self, reply: Reply) -> None:
        """Write down at once what a running reply holds now.

        Raises:
            LedgerError: The database can't be written.
        """
        charges = {reply.reservation.id: reply.reserved_charge()}
        await self._in_thread(lambda: self._ledger.renew(charges))

    async def end(self, reply: Reply, charge: Charge | None) -> Decision | None:
        """Settle a reply, or release it where `charge` is None; only the first end counts.

        Returns:
            Where its limits stand then; None where the ledger can't say.
        """
        if reply.ending is None:
            reply.ending = asyncio.create_task(self._settle(reply, charge))
        return await asyncio.shield(reply.ending)

    def _keep_making_rounds(self) -> None:
        # Also after a reply that could not be written: the rounds may have ended before it failed.
        if self._rounds is None or self._rounds.done():
            self._rounds = asyncio.create_task(self._make_rounds())

    def _admitted(self, done: asyncio.Future[tuple[Reply, Admission | LedgerError]]) -> None:
        if done.cancelled() or done.exception() is not None:
            return
        reply, admission = done.result()
        if reply.written or isinstance(admission, LedgerError):
            self._running[reply.reservation.id] = reply
            self._keep_making_rounds()

    def _task_ended(self, admission: asyncio.Future[tuple[Reply, Admission | LedgerError]]) -> None:
        # Stopped, disconnected, broken off, failed: no outlet came. One that did has settled.
        if admission.cancelled() or admission.exception() is not None:
            return
        reply, _ = admission.result()
        if reply.reservation.id in self._running and reply.ending is None:
            reply.ending = asyncio.create_task(self._settle(reply, reply.final_charge()))

    async def _settle(self, reply: Reply, charge: Charge | None) -> Decision | None:
        try:
            if charge is None and not reply.written:
                return None
            settlement = await self._in_thread(
                lambda: self._write_end(reply, charge, reply.written)
            )
        except LedgerError as error:
            log.error(
                "Usage limits: %s; reply %s of user %s will be settled later (%s tokens)",
                error,
                reply.reservation.id,
                reply.reservation.subject.user_id,
                charge.input_tokens + charge.output_tokens if charge else 0,
            )
            self._unwritten[reply.reservation.id] = (reply, charge)
            self._keep_making_rounds()
            return None
        finally:
            self._running.pop(reply.reservation.id, None)
        self._alert(reply, settlement)
        return settlement.decision

    def _alert(self, reply: Reply, settlement: Settlement) -> None:
        for state in settlement.crossed:
            payload = alert_payload(reply.reservation, state)
            self._alerts.send(reply.alert_url, payload)

    def _write_end(self, reply: Reply, charge: Charge | None, written: bool) -> Settlement:
        if not written and charge is not None:
            # Let through while the ledger was away: it is on record all the same.
            self._ledger.reserve(
                reply.reservation, lambda _: charge, (), enforce=False, may_exist=True
            )
        settlement = self._ledger.settle(
            reply.reservation,
            charge,
            reply.limits,
            # Nobody looks at a status line of an API call.
            decide=bool(reply.alert_url) or reply.reservation.source != "api",
            alert_percent=reply.soft_limit_percent if reply.alert_url else None,
        )
        if written and charge is not None and not settlement.closed:
            # Its reservation may have been lost in a crash of the database server.
            return self._write_end(reply, charge, written=False)
        return settlement

    async def _make_rounds(self) -> None:
        """Renew leases, sweep orphans and write what could not be written, until all is done."""
        while self._running or self._unwritten:
            try:
                await self._sweep()
                await asyncio.sleep(RETRY_SECONDS if self._unwritten else ROUND_SECONDS)
                await self._make_round()
            except LedgerError as error:
                log.error("Usage limits: %s; trying again", error)
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:
                # A fault of ours must not end the rounds: leases would run out.
                log.exception("Usage limits: a round failed; trying again")
                await asyncio.sleep(ROUND_SECONDS)
        # Not awaited: who comes now needs rounds of its own.
        self._threads.submit(self._ledger.rest)

    async def _sweep(self) -> None:
        if time.monotonic() - self._swept_at >= SWEEP_SECONDS:
            self._swept_at = time.monotonic()
            await self._in_thread(self._ledger.sweep)
        if time.monotonic() - self._dropped_at >= DROP_SECONDS:
            self._dropped_at = time.monotonic()
            await self._in_thread(lambda: self._ledger.drop_older(self.retention_seconds))

    async def _make_round(self) -> None:
        charges = {
            key: reply.reserved_charge()
            for key, reply in self._running.items()
            if reply.ending is None
        }
        if charges:
            await self._in_thread(lambda: self._ledger.renew(charges))
        for key, (reply, charge) in list(self._unwritten.items()):
            await self._in_thread(
                lambda reply=reply, charge=charge: self._write_end(reply, charge, False)  # type: ignore[misc]
            )
            del self._unwritten[key]

    def _in_thread(self, work: Callable[[], ThreadResult]) -> asyncio.Future[ThreadResult]:
        return asyncio.get_running_loop().run_in_executor(self._threads, work)
