"""Where the limits of all users and pools stand."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from helpers.ledger.many_limits import read_states
from helpers.limits.decisions import LimitState
from helpers.limits.limit import Limit
from helpers.limits.policy import AppliedLimit, Subject
from helpers.openwebui.valves import AdminValves, is_exempt
from scripts.limits.host import read_subjects
from scripts.limits.names import identities_in
from scripts.limits.state import subject_limits


@dataclass(frozen=True, slots=True)
class Standing:
    """One limit, and who is under it; `subject` is None for a pool."""

    subject: Subject | None
    state: LimitState

    @property
    def who(self) -> str:
        """The user or the pool, as an administrator knows it."""
        if self.subject is None:
            return f"pool {self.state.applied.policy}"
        return self.subject.email or self.subject.user_id

    def is_near(self, soft_limit_percent: int) -> bool:
        """Whether use has brought it to its warning; a limit of 0 alone hasn't."""
        crossed = self.state.crossed_threshold(soft_limit_percent) is not None
        moment = self.state.applied.limit.is_moment
        return not moment and self.state.taken > 0 and (self.state.exceeded or crossed)


def read_standings(
    host: Connection, ledger: Connection, valves: AdminValves, at: datetime, *, near: bool
) -> list[Standing]:
    """Every limit of every user and pool, the most utilised first; exempt users aside.

    Args:
        host: Open WebUI's database.
        ledger: The ledger's.
        valves: What the filter is set to.
        at: Now.
        near: Only those that have reached their warning.
    """
    identities = identities_in(valves.policy_set, host, ledger)
    # A pool's limits are the same for all its members.
    owners: dict[tuple[str, str, Limit], tuple[AppliedLimit, Subject | None]] = {}
    for named in read_subjects(host):
        subject = identities.recall(named)
        for applied in subject_limits(subject, valves, at):
            if applied.is_pool or not is_exempt(valves, subject):
                key = (applied.scope, applied.policy, applied.limit)
                owners[key] = (applied, None if applied.is_pool else subject)
    states = read_states(ledger, [applied for applied, _ in owners.values()], at)
    found = [
        Standing(subject, state)
        for (_, subject), state in zip(owners.values(), states, strict=True)
    ]
    found.sort(key=lambda item: (-item.state.percent, item.who))
    return [item for item in found if not near or item.is_near(valves.soft_limit_percent)]
