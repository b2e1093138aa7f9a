"""The exceptions, each carrying its data."""

from __future__ import annotations

import math
from datetime import datetime


class UsageLimitsError(Exception):
    """Base of every exception that this plugin raises itself."""


class ConfigurationError(UsageLimitsError, ValueError):
    """A setting that can't be used.

    It is a `ValueError` so that pydantic reports it for the field it came from.

    Args:
        where: The valve, table or line, for example ``[group.Students] limits``.
        given: What stands there.
        allowed: What could stand there, with an example.
    """

    def __init__(self, where: str, given: str, allowed: str) -> None:
        self.where = where
        self.given = given
        self.allowed = allowed
        super().__init__(f"{where}: {given}; allowed: {allowed}")


class LedgerError(UsageLimitsError):
    """The ledger's database can't be reached, or is too busy to answer in time."""


class LedgerBusyError(LedgerError):
    """The database is there, and this process has more to write than it can in time.

    Whoever may send requests can bring that about: it is no outage, in which they may pass.
    """


class LedgerDataError(UsageLimitsError):
    """The ledger's database is there and refuses the statement or a value in it.

    Not a `LedgerError`: what nobody can write down must never pass as an outage does.
    """


class HostDatabaseError(UsageLimitsError):
    """Open WebUI's own database can't be read.

    Not a `LedgerError` either: without valves nobody knows what may pass.
    """


class UsageLimitExceeded(UsageLimitsError):
    """A request that a hard limit refuses.

    Args:
        message: The sentence that the user reads.
        reset_at: The instant (UTC) at which the limit admits requests again.
        retry_after: Seconds until then, at least 1.
    """

    status_code = 429

    def __init__(self, message: str, reset_at: datetime, retry_after: float) -> None:
        super().__init__(message)
        self.message = message
        self.reset_at = reset_at
        self.retry_after = max(1, math.ceil(retry_after))
