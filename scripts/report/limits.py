"""Which users and pools are near or over a limit now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, select

from helpers.ledger.tables import records_table
from helpers.limits.decisions import LimitState
from helpers.limits.periods import DATE_PERIODS
from helpers.limits.policies import PolicySet
from helpers.limits.policy import AppliedLimit
from helpers.openwebui.admission import is_exempt
from helpers.openwebui.valves import AdminValves
from scripts.limits.host import read_subjects
from scripts.limits.names import identities_in
from scripts.limits.state import read_states, subject_limits

# The two simple valves look back on a month.
MONTH = timedelta(days=DATE_PERIODS["month"])


@dataclass(frozen=True, slots=True)
class NearLimit:
    """A limit that has reached its warning, and who is under it."""

    who: str
    state: LimitState


def find_near_limits(
    host: Connection, ledger: Connection, valves: AdminValves, at: datetime
) -> list[NearLimit]:
    """Every limit and pool past its soft limit, the fullest first; exempt users aside."""
    since = at - longest_period(valves.policy_set)
    active = ledger.scalars(
        select(records_table.c.user_id)
        .where(records_table.c.created_at >= int(since.timestamp()))
        .distinct()
    )
    found: list[NearLimit] = []
    pools: dict[AppliedLimit, None] = {}
    identities = identities_in(valves.policy_set, host, ledger)
    for named in read_subjects(host, active):
        subject = identities.recall(named)
        limits = subject_limits(subject, valves, at)
        pools |= dict.fromkeys(limit for limit in limits if limit.is_pool)
        if not is_exempt(valves, subject):
            own = [limit for limit in limits if not limit.is_pool]
            states = read_states(ledger, own, at)
            found += [NearLimit(subject.email or subject.user_id, state) for state in states]
    found += [
        NearLimit(f"pool {state.applied.policy}", state)
        for state in read_states(ledger, list(pools), at)
    ]
    near = [
        item
        for item in found
        if not item.state.applied.limit.is_moment
        and (
            item.state.exceeded
            or item.state.crossed_threshold(valves.soft_limit_percent) is not None
        )
    ]
    return sorted(near, key=lambda item: (-item.state.percent, item.who))


def longest_period(policies: PolicySet) -> timedelta:
    """How far back any limit looks."""
    tables = (*policies.users.values(), *policies.groups.values(), *policies.roles.values())
    limits = [limit for policy in tables for limit in policy.limits or ()]
    limits += [limit for pool in policies.pools for limit in pool.limits]
    periods = [limit.period for limit in limits]
    longest = [one.rolling or timedelta(days=DATE_PERIODS.get(one.name, 1)) for one in periods]
    return max([MONTH, *longest])
