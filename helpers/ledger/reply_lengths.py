"""Reply lengths: how long the replies of each model are of late, by what is on record."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from threading import Lock
from typing import Any

from sqlalchemy import Connection, select

from helpers.errors import UsageLimitsError
from helpers.ledger.tables import records_table
from helpers.logs import log

# So many records are read, whoever made them, and no more often than that.
RECORDS_READ = 1_000
READ_AGAIN_SECONDS = 0.5
# Each user counts the same, however many replies they had: of these that many are looked at.
REPLIES_PER_USER = 20
# Nine in ten are shorter. Within these bounds nobody's replies make the reservations of others
# larger or smaller.
QUANTILE = 0.9
LENGTH_BOUNDS = (500, 8_000)
MOST_MODELS_KNOWN = 1_000
ANY_MODEL = None  # where those of a model aren't known, it is expected to be like the others
# What Open WebUI writes by itself is short, and what was filled in is from before.
OTHER_SOURCES = ("task", "backfill")

NEWEST_RECORDS = (
    select(*records_table.c["model_id", "user_id", "output_tokens", "source", "state"])
    .order_by(records_table.c.created_at.desc())
    .limit(RECORDS_READ)
)


def usual_lengths(rows: Iterable[Any]) -> dict[str | None, int]:
    """The high quantile of the lengths of each model and of any, in output tokens.

    Args:
        rows: model, user, output tokens, source and state; the newest first.
    """
    by_user: dict[str | None, dict[str, list[int]]] = {}
    for model, user, tokens, source, state in rows:
        if state == "settled" and tokens > 0 and source not in OTHER_SOURCES:
            for known in (model, ANY_MODEL):
                lengths = by_user.setdefault(known, {}).setdefault(user, [])
                if len(lengths) < REPLIES_PER_USER:
                    lengths.append(tokens)
    return {model: weighted_quantile(users.values()) for model, users in by_user.items()}


def weighted_quantile(users: Iterable[list[int]]) -> int:
    """The length that is reached by as many users' replies, each user's together weighing 1."""
    weighed = [(tokens, 1 / len(each)) for each in users for tokens in each]
    left = QUANTILE * sum(weight for _, weight in weighed)
    shortest, longest = LENGTH_BOUNDS
    for tokens, weight in sorted(weighed):
        left -= weight
        if left <= 1e-9:
            return max(shortest, min(tokens, longest))
    return shortest


class ReplyLengths:
    """What is known of them in this process; may be used from any thread.

    Args:
        read: Runs a question in the ledger's database.
        clock: Seconds.
    """

    def __init__(
        self,
        read: Callable[[Callable[[Connection], list[Any]]], list[Any]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._clock = clock
        self._known: dict[str | None, int] = {}
        self._read_at = float("-inf")
        self._reading = Lock()

    def expected(self, model: str) -> int:
        """How many output tokens to expect of a model's reply; blocks where it has to read."""
        with self._reading:
            now = self._clock()
            if now - self._read_at >= READ_AGAIN_SECONDS:
                self._read_at = now
                self._refresh()
        return self._known.get(model) or self._known.get(ANY_MODEL, LENGTH_BOUNDS[0])

    def _refresh(self) -> None:
        try:
            rows = self._read(lambda connection: list(connection.execute(NEWEST_RECORDS)))
        except UsageLimitsError as error:  # whoever is to be reserved for finds out, too
            log.debug("Usage limits: %s; reply lengths are as they were", error)
            return
        if len(self._known) > MOST_MODELS_KNOWN:
            self._known.clear()
        self._known.update(usual_lengths(rows))
