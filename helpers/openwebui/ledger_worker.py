"""The ledger's worker: runs the ledger off the event loop, and does what workers owe each other."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection, Engine

from helpers.ledger.ledger import Ledger
from helpers.ledger.reply_lengths import ReplyLengths
from helpers.logs import log

# How often a worker shows that it lives, and looks for those that don't.
ROUND_SECONDS = 5
# Who hasn't shown itself for that long, while we could look, doesn't live any more.
WORKER_SECONDS = 15
SWEEP_SECONDS = 60
TIDY_SECONDS = 86_400
# A process looks at its clock for a while before it does anything by it.
FIRST_TIDY_SECONDS = 600
RETENTION_SECONDS = 400 * 86_400
# SQLite has one writer at a time: more threads would only wait for each other.
SQLITE_THREADS = 1
POSTGRESQL_THREADS = 4
# With so many before it a request would hardly get its turn in time.
QUEUE_LIMIT = 2_000

ThreadResult = TypeVar("ThreadResult")


class LedgerWorker:
    """One per ledger and process.

    Args:
        engine: The ledger's synchronous engine.
        schema: The PostgreSQL schema of its tables, if not the connection's own.
        own_engine: Whether nobody else uses the engine.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        engine: Engine,
        schema: str | None,
        own_engine: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine, self._own_engine = engine, own_engine
        self.ledger = Ledger(engine, schema, clock, True, worker=uuid.uuid4().hex)
        self.lengths = ReplyLengths(self._read_prepared)
        self.retention_seconds = RETENTION_SECONDS
        self._threads: ThreadPoolExecutor | None = None
        self.queued = 0
        self.turn = threading.local()  # the deadline of the request that a thread works for
        # Other workers that hold something: how often each was seen to live, and since when
        # that hasn't changed.
        self.others: dict[str, tuple[int | None, float]] = {}
        self._shown_at = self._swept_at = self._watched_at = float("-inf")
        self._tidied_at = time.monotonic() + FIRST_TIDY_SECONDS - TIDY_SECONDS

    def read(self, work: Callable[[Connection], ThreadResult]) -> ThreadResult:
        """Read something else from the ledger's database; blocks.

        Raises:
            LedgerError: The database can't be read.
            LedgerDataError: It refuses the question.
        """
        return self.ledger.read(work, self._deadline)

    @contextmanager
    def until(self, deadline: float) -> Iterator[None]:
        """Let what this thread asks of the ledger meanwhile fail where it isn't done by then."""
        self.turn.deadline = deadline
        try:
            yield
        finally:
            self.turn.deadline = None

    @property
    def _deadline(self) -> float | None:
        deadline: float | None = getattr(self.turn, "deadline", None)
        return deadline

    @property
    def database_kind(self) -> str:
        """What sort of database the ledger is in."""
        return {"sqlite": "SQLite"}.get(self._engine.dialect.name, "PostgreSQL")

    def prepare(self) -> None:
        """Make or update the tables; blocks, and raises as `read` does."""
        self.ledger.prepare(self._deadline)

    def change(
        self, work: Callable[[Connection], ThreadResult], scopes: Collection[str]
    ) -> ThreadResult:
        """Run `work` in a transaction under the locks of these scopes; blocks, raises as `read`."""
        return self.ledger.change(work, scopes, self._deadline)

    def _read_prepared(self, work: Callable[[Connection], ThreadResult]) -> ThreadResult:
        self.prepare()
        return self.read(work)

    def close(self) -> None:
        """Wait for what is being written, and give the connections back."""
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown()
        self.ledger.rest()

    def release_idle(self) -> None:
        """Give back the connections that aren't in use, after what is running."""
        if self._threads is not None:
            self._threads.submit(self.ledger.rest)

    def leave(self) -> None:
        """Give back threads and connections, and tell the others, after what is running."""
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.submit(self._leave)
            threads.shutdown(wait=False)
        else:  # the pages may have read something
            self._give_back()

    def _leave(self) -> None:
        try:
            self.ledger.leave()
        except Exception as error:
            log.warning("Usage limits: %s; a worker's row stays until it is old", error)
        self._give_back()

    def _give_back(self) -> None:
        self.ledger.rest()
        if self._own_engine:
            self._engine.dispose()

    @property
    def is_crowded(self) -> bool:
        """Whether a request would hardly get its turn in time."""
        return self.queued >= QUEUE_LIMIT

    def in_thread(self, work: Callable[[], ThreadResult]) -> asyncio.Future[ThreadResult]:
        """Run `work` when it is its turn, whether or not anyone waits for it."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(
                SQLITE_THREADS if self._engine.dialect.name == "sqlite" else POSTGRESQL_THREADS,
                thread_name_prefix="usage-limits",
            )
        self.queued += 1
        done = asyncio.get_running_loop().run_in_executor(self._threads, work)
        done.add_done_callback(self._left_queue)
        return done

    def _left_queue(self, _: object) -> None:
        self.queued -= 1

    async def beat(self) -> None:
        """Show the others that we live."""
        if time.monotonic() - self._shown_at >= ROUND_SECONDS:
            await self.in_thread(self.ledger.beat)
            self._shown_at = time.monotonic()

    def forgive_others(self) -> None:
        """Start anew to wait for the others: they could not show themselves either."""
        now = time.monotonic()
        self.others = {name: (beats, now) for name, (beats, _) in self.others.items()}

    async def settle_for_others(self) -> None:
        """Settle what workers left that don't live any more."""
        now = time.monotonic()
        if now - self._watched_at < ROUND_SECONDS:
            return
        # Who was away, or asleep, doesn't know how long the others have said nothing.
        awake = now - self._watched_at < WORKER_SECONDS
        seen = await self.in_thread(self.ledger.other_workers)
        self._watched_at = now
        known = self.others if awake else {}
        self.others = {
            name: known[name] if name in known and known[name][0] == beats else (beats, now)
            for name, beats in seen.items()
        }
        gone = [name for name, (_, since) in self.others.items() if now - since >= WORKER_SECONDS]
        if not gone and now - self._swept_at < SWEEP_SECONDS:
            return
        self._swept_at = now
        while await self.in_thread(partial(self.ledger.sweep, gone)):
            pass
        for name in gone:
            self.others.pop(name, None)

    async def tidy_up(self) -> None:
        """Drop old records, and roll up those in which nothing changes any more, once a day."""
        if time.monotonic() - self._tidied_at < TIDY_SECONDS:
            return
        self._tidied_at = time.monotonic()
        find = partial(self.ledger.find_oldest_kept, self.retention_seconds)
        oldest = await self.in_thread(find)
        if oldest is None:
            return
        # Each bite has a turn of its own, with other work between.
        while await self.in_thread(partial(self.ledger.drop_some, oldest)):
            pass
        while await self.in_thread(self.ledger.roll_up):
            pass
