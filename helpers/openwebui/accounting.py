"""Accounting: sees every reply to its end, whatever becomes of its client, model or ledger."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial

from sqlalchemy import Engine

from helpers.errors import LedgerBusyError, LedgerDataError, LedgerError
from helpers.ledger.identities import HostNames, IdentityMemory, read_remembered
from helpers.ledger.ledger import Admission, Settlement
from helpers.ledger.records import NO_ANSWER, NOT_CALLED, WORKER_STOPPED
from helpers.ledger.transactions import new_deadline
from helpers.limits.decisions import Decision
from helpers.limits.policy import AppliedLimit
from helpers.logs import log
from helpers.metering.charges import Charge, make_charge
from helpers.metering.usage import ReplyMeter, Usage
from helpers.openwebui.alerts import AlertSender, alert_payload
from helpers.openwebui.chat_events import tell_stopped
from helpers.openwebui.ledger_worker import ROUND_SECONDS, LedgerWorker
from helpers.openwebui.replies import FARTHEST_MARK, Reply
from helpers.openwebui.stopping import replace_keepers

RETRY_SECONDS = 5
# How often what running replies have used is noted, and their leases are renewed.
RENEW_SECONDS = 30
# An end that the database refuses that often is set aside.
MOST_TRIES = 5
# So many ends that can't be written one after the other: the rest won't be either.
MOST_FAILURES = 3
STOP_SECONDS = 3.0


@dataclass(slots=True)
class WaitingEnd:
    """The end of a reply that could not be written yet."""

    reply: Reply
    charge: Charge | None
    reason: str
    tries: int = 0


class Accounting(LedgerWorker):
    """Sees the replies of one process and one ledger to their ends."""

    def __init__(
        self,
        engine: Engine,
        schema: str | None,
        own_engine: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(engine, schema, own_engine, clock)
        self._alerts = AlertSender()
        self._running: dict[str, Reply] = {}
        self._unwritten: dict[str, WaitingEnd] = {}
        self._memory: IdentityMemory | None = None
        self._maintenance: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._retired = False
        self._renewed_at = time.monotonic()
        replace_keepers(self)

    def remember_identities(
        self,
        read_host: Callable[[Collection[str], Collection[str]], HostNames],
        list_models: Callable[[], Collection[str]],
        publish: Callable[[tuple[str, ...]], None],
    ) -> IdentityMemory:
        """A memory, kept in this ledger, of whom the policies mean."""
        read_names = partial(self._read_prepared, read_remembered)
        self._memory = IdentityMemory(
            read_names, self.ledger.write_names, read_host, list_models, publish
        )
        return self._memory

    def close(self) -> None:
        """Wait for what is being written, and give the connections back."""
        if self._maintenance is not None and not self._maintenance.get_loop().is_closed():
            self._maintenance.cancel()  # or it would open others
        super().close()

    def retire(self) -> None:
        """Let go of threads and connections whenever no reply is running: another has taken over.

        What is asked of it all the same it does as before.
        """
        self._retired = True
        loop = self._loop
        if loop is None or loop.is_closed():
            self._let_go()
        else:
            loop.call_soon_threadsafe(self._let_go)

    def stop(self) -> None:
        """Settle what is running by what it has used so far; blocks, for seconds at most.

        The process is about to end. A reply that ends properly all the same puts it right.
        """
        deadline = time.monotonic() + STOP_SECONDS
        ends = [
            WaitingEnd(reply, self._charge_so_far(reply), WORKER_STOPPED)
            for reply in list(self._running.values())
        ]
        for end in [*self._unwritten.values(), *ends]:
            try:
                self._write_end(end, end.reply.written, deadline)
            except Exception:
                log.exception(
                    "Usage limits: reply %s is left to the next start", end.reply.reservation.id
                )
                if time.monotonic() > deadline:
                    return

    async def admit(
        self, build: Callable[[], Reply], announce: bool
    ) -> tuple[Reply, Admission | LedgerError]:
        """Build a reply and reserve for it, and watch the current task for its end.

        Args:
            build: Finds out what is to be known of the reply. It is called in a thread, and may
                block.
            announce: Whether the user can be told of soft limits.

        Returns:
            The reply, and what was decided about it, or why it could not be reserved for.
        """
        deadline, crowded = new_deadline(), self.is_crowded

        def reserve() -> tuple[Reply, Admission | LedgerError]:
            with self.until(deadline):
                reply = build()
                if not crowded and reply.limits and reply.unread is None:
                    model = reply.reservation.model_names[0]
                    reply.expected_output = self.lengths.expected(model)
            request = reply.request_decision()
            if reply.enforced and not request.allowed:  # whatever the ledger would say
                return reply, Admission(request)
            if reply.unread is not None:
                return reply, reply.unread
            if crowded:
                return reply, self.ledger.crowd_error()
            try:
                admission = self.ledger.reserve(
                    reply.reservation,
                    reply.fit_output,
                    reply.limits,
                    enforce=reply.enforced,
                    soft_limit_percent=reply.soft_limit_percent,
                    # An API call's warning would be seen by nobody, and not be given again.
                    announce=announce and reply.reservation.source != "api",
                    deadline=deadline,
                )
            except LedgerError as error:
                return reply, error
            reply.written = admission.decision.allowed or not reply.enforced
            decision = admission.decision.with_states(request.states)
            return reply, replace(admission, decision=decision)

        # Where the caller is cancelled the reservation may still be written, and its end must
        # wait for that.
        self._loop = asyncio.get_running_loop()
        if crowded:
            admission = self._loop.run_in_executor(None, reserve)
        else:
            admission = self.in_thread(reserve)
        admission.add_done_callback(self._admitted)
        task = asyncio.current_task()
        if task is not None:
            task.add_done_callback(lambda _: admission.add_done_callback(self._task_ended))
        return await asyncio.shield(admission)

    def forget(self, reply: Reply) -> None:
        """Leave a reply alone that is not going to run."""
        self._running.pop(reply.reservation.id, None)

    async def grow(self, reply: Reply, limits: Sequence[AppliedLimit]) -> Decision:
        """Write down what another round of a reply needs, and where its limits stand without it.

        Raises:
            LedgerError: The database can't be reached, or is too busy.
            LedgerDataError: It refuses what is to be written.
        """
        if reply.growing is not None:
            await asyncio.shield(reply.growing)
        reply.output_tokens, reply.lent = max(reply.output_tokens, reply.lent), 0
        seen, deadline = reply.own_usage(), new_deadline()

        def hold(decision: Decision) -> Charge:
            reply.fit_to(decision, seen.output_tokens, reply.prompt_with(seen))
            return reply.reserved_charge(seen)

        return await self.in_thread(
            lambda: self.ledger.grow(reply.reservation, hold, limits, deadline)
        )

    async def lend(self, reply: Reply) -> None:
        """Leave what a reply holds to a call that is made within it, but for what it has used.

        What it writes itself from then on is reserved as it is written.
        """
        if reply.growing is not None:
            await asyncio.shield(reply.growing)
        if reply.ending is not None or not reply.written:
            return
        reply.lent, reply.output_tokens = max(1, reply.lent, reply.output_tokens), 0
        held = {reply.reservation.id: make_charge(reply.own_usage(), reply.rule)}
        try:
            await self.in_thread(lambda: self.ledger.renew(held, new_deadline()))
        except (LedgerError, LedgerDataError) as error:  # then it is held twice for a while
            log.error("Usage limits: %s; reply %s holds what it did", error, reply.reservation.id)

    async def keep_up(self, reply: Reply, size: int, step: int) -> int | None:
        """See that a reply holds more than it has produced: more is reserved in the background.

        Args:
            size: How long its stream is so far.
            step: How long the last part of it was.

        Returns:
            How long it may become until this is asked again; None where it has to end now.
        """
        try:
            return await self._keep_up(reply, size, step)
        except Exception:
            # Nothing may pass for a fault of ours.
            log.exception("Usage limits: reply %s was not looked after", reply.reservation.id)
            return None if reply.stops else size + FARTHEST_MARK

    async def _keep_up(self, reply: Reply, size: int, step: int) -> int | None:
        if reply.stopped:  # in a round before
            return None
        if not reply.rule.weight:
            return size + FARTHEST_MARK
        if reply.writes_since is None:
            reply.writes_since = time.monotonic()
        produced = reply.own_usage().output_tokens
        following = produced + reply.next_part(size, step, produced)
        if reply.stops and following > reply.output_tokens:
            # It has used up all that it holds: what comes next waits until there is more.
            if reply.growing is not None:
                await asyncio.shield(reply.growing)
            held = 0
            while held < reply.output_tokens < following:
                held = reply.output_tokens
                await self._grow(reply)
            if following > reply.output_tokens:
                await self._stop_reply(reply)
                return None
        elif reply.growing is None and reply.refused_by is None and reply.is_nearly_full(produced):
            reply.growing = asyncio.create_task(self._grow(reply))
        return reply.next_mark(size, produced)

    async def _stop_reply(self, reply: Reply) -> None:
        reply.stopped = True
        log.info(
            "Usage limits: reply %s of user %s was stopped at its limit",
            reply.reservation.id,
            reply.reservation.subject.user_id,
        )
        if reply.emitter is not None:
            await tell_stopped(reply, reply.emitter, reply.refused_by)

    async def _grow(self, reply: Reply) -> None:
        """Reserve a block more for a reply, at once visible to all; never raises."""
        seen, held, deadline = reply.own_usage(), reply.output_tokens, new_deadline()
        block = reply.block(seen.output_tokens)
        limits = reply.limits if reply.stops else ()
        try:
            if reply.written:
                await self.in_thread(
                    lambda: self.ledger.grow(
                        reply.reservation,
                        partial(reply.hold_more, seen, held, block),
                        limits,
                        deadline,
                    )
                )
            else:  # let through while the ledger was away, and written down at its end
                reply.output_tokens = seen.output_tokens + block
        except LedgerError as error:
            log.error("Usage limits: %s; nothing was reserved for %s", error, reply.reservation.id)
            ends = reply.stops and (reply.needs_ledger or isinstance(error, LedgerBusyError))
            reply.output_tokens = held if ends else seen.output_tokens + block
        except Exception:
            # Nothing may pass for a fault of ours: it ends where its reservation does.
            log.exception("Usage limits: nothing was reserved for %s", reply.reservation.id)
            reply.output_tokens = held
        finally:
            reply.growing = None

    async def end(self, reply: Reply, charge: Charge | None) -> Decision | None:
        """Settle a reply, or release it where `charge` is None; only the first end counts.

        Returns:
            Where its limits stand then; None where the ledger can't say.
        """
        if reply.ending is None:
            reply.ending = asyncio.create_task(self._settle(reply, charge))
        return await asyncio.shield(reply.ending)

    def _keep_maintaining(self) -> None:
        # Also after a reply that could not be written: it may have ended before that failed.
        if self._maintenance is None or self._maintenance.done():
            self._maintenance = asyncio.create_task(self._maintain())

    def _admitted(self, done: asyncio.Future[tuple[Reply, Admission | LedgerError]]) -> None:
        if done.cancelled() or done.exception() is not None:
            return
        reply, admission = done.result()
        if reply.written or isinstance(admission, LedgerError):
            self._running[reply.reservation.id] = reply
        # Also for one that is refused: a worker that is gone may hold what it wanted.
        self._keep_maintaining()

    def _task_ended(self, admission: asyncio.Future[tuple[Reply, Admission | LedgerError]]) -> None:
        # Stopped, disconnected, broken off, failed: no outlet came. One that did has settled.
        if admission.cancelled() or admission.exception() is not None:
            return
        reply, _ = admission.result()
        if reply.reservation.id not in self._running or reply.ending is not None:
            return
        if reply.outlives_task:
            return
        reply.ending = asyncio.create_task(self._settle(reply, reply.final_charge()))

    @staticmethod
    def _charge_so_far(reply: Reply) -> Charge:
        """What a reply has used until now: nothing before its model was called."""
        if reply.meter.produced or reply.calls:
            return reply.used_charge()
        if not reply.called_model:
            return Charge(Usage(estimated=True))
        return make_charge(Usage(reply.prompt_tokens, 0, estimated=True), reply.rule)

    async def _settle(self, reply: Reply, charge: Charge | None) -> Decision | None:
        reason = ""
        if charge is None:
            reason = NO_ANSWER if reply.call_refused else NOT_CALLED
        end, key, deadline = WaitingEnd(reply, charge, reason), reply.reservation.id, new_deadline()
        try:
            if charge is None and not reply.written:
                return None
            settlement = await self.in_thread(lambda: self._write_end(end, reply.written, deadline))
        except BaseException as error:
            # Outages are long, and texts are large: only what is still to be written is kept.
            rest = replace(
                reply,
                meter=ReplyMeter(),
                calls=[],
                unread=None,
                emitter=None,
                growing=None,
                ending=None,
            )
            self._unwritten[key] = replace(end, reply=rest)
            if not isinstance(error, Exception):
                raise
            log.error(
                "Usage limits: %s; reply %s of user %s will be settled later (%s tokens)",
                error,
                key,
                reply.reservation.subject.user_id,
                charge.usage.input_tokens + charge.usage.output_tokens if charge else 0,
            )
            self._keep_maintaining()
            return None
        finally:
            self._running.pop(key, None)
        self._alert(reply, settlement)
        self._note_price(reply, charge)
        return settlement.decision

    def _note_price(self, reply: Reply, charge: Charge | None) -> None:
        names, memory = reply.reservation.model_names, self._memory
        if charge is None or memory is None or memory.knows_unpriced(names):
            return
        if reply.lacks_price(charge):
            memory.note_unpriced(names)

    def _alert(self, reply: Reply, settlement: Settlement) -> None:
        for state in settlement.crossed:
            payload = alert_payload(reply.reservation, state)
            self._alerts.send(reply.alert_url, payload)

    def _write_end(
        self, end: WaitingEnd, written: bool, deadline: float | None = None
    ) -> Settlement:
        reply, charge = end.reply, end.charge
        if not written and charge is not None:
            # Let through while the ledger was away: it is on record all the same.
            self.ledger.reserve(
                reply.reservation,
                lambda _: charge,
                (),
                enforce=False,
                may_exist=True,
                deadline=deadline,
            )
        settlement = self.ledger.settle(
            reply.reservation,
            charge,
            reply.limits,
            # Nobody looks at a status line of an API call.
            decide=bool(reply.alert_url) or reply.reservation.source != "api",
            alert_percent=reply.soft_limit_percent if reply.alert_url else None,
            reason=end.reason,
            deadline=deadline,
        )
        if written and charge is not None and not settlement.closed:
            # Its reservation may have been lost in a crash of the database server.
            return self._write_end(end, False, deadline)
        return settlement

    async def _maintain(self) -> None:
        """Show that we live, write what could not be written, and settle what others left."""
        while True:
            try:
                await self._maintain_once()
            except LedgerError as error:
                self.forgive_others()
                log.error("Usage limits: %s; trying again", error)
            except Exception:
                # A fault of ours must not end this: leases would run out.
                log.exception("Usage limits: the maintenance failed; trying again")
            if not (self._running or self._unwritten or self.others):
                break
            await asyncio.sleep(RETRY_SECONDS if self._unwritten else ROUND_SECONDS)
        # Not awaited: who comes now needs a loop of its own.
        if self._retired:
            self._let_go()
        else:
            self.release_idle()

    def _let_go(self) -> None:
        """Give back threads and connections, if nothing is running."""
        if self._running or self._unwritten or self.queued:
            self._keep_maintaining()
            return
        self.leave()

    async def _maintain_once(self) -> None:
        if self._running or self._unwritten:
            await self.beat()
            await self._renew()
        await self._write_waiting()
        await self.settle_for_others()
        await self.tidy_up()

    async def _renew(self) -> None:
        """Note what running replies have used, and renew their leases."""
        now = time.monotonic()
        if now - self._renewed_at < RENEW_SECONDS:
            return
        self._renewed_at = now
        charges = {
            key: end.charge for key, end in self._unwritten.items() if end.charge is not None
        }
        for key, reply in list(self._running.items()):
            if reply.ending is None:
                try:
                    charges[key] = reply.reserved_charge()
                except Exception:
                    log.exception("Usage limits: what reply %s holds is not known", key)
        try:
            await self.in_thread(lambda: self.ledger.renew(charges))
        except LedgerError:
            raise
        except Exception:
            # One of them is refused: the others must not suffer from it.
            for key, charge in charges.items():
                try:
                    await self.in_thread(partial(self.ledger.renew, {key: charge}))
                except LedgerError:
                    raise
                except Exception as error:
                    log.error("Usage limits: %s; reply %s was not renewed", error, key)

    async def _write_waiting(self) -> None:
        """Write the ends that could not be written, each for itself."""
        failures: list[LedgerError] = []
        for key, end in list(self._unwritten.items()):
            try:
                await self.in_thread(partial(self._write_end, end, False))
            except LedgerError as error:
                # Busy for one user, perhaps; but where nobody answers nobody needs to be asked.
                failures.append(error)
                if len(failures) >= MOST_FAILURES:
                    break
                continue
            except Exception as error:
                end.tries += 1
                if end.tries < MOST_TRIES:
                    log.error("Usage limits: %s; reply %s is tried again", error, key)
                    continue
                log.exception(
                    "Usage limits: the end of reply %s of user %s can't be written, and is set "
                    "aside: %r",
                    key,
                    end.reply.reservation.subject.user_id,
                    end.charge,
                )
            self._unwritten.pop(key, None)
        if failures:
            raise failures[-1]
