"""Whose limits a command changes: a user's own, or those of a pool."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from helpers.errors import ConfigurationError
from helpers.limits.limit import Limit, parse_limit
from helpers.limits.periods import quoted_text
from helpers.limits.policies import Pool
from helpers.limits.policy import AppliedLimit, GroupRef, Subject, pool_scopes
from helpers.openwebui.valves import AdminValves
from scripts.limits.check import read_text
from scripts.limits.database import Database, find_database, require_ledger
from scripts.limits.function import find_ledger, read_filter, require_filter
from scripts.limits.host import find_user, groups_table, read_groups, require_tables
from scripts.limits.names import recall_subjects
from scripts.limits.state import subject_limits
from scripts.limits.words import did_you_mean

POOL_PREFIX = "pool:"


@dataclass(frozen=True, slots=True)
class Target:
    """A user or a pool.

    Args:
        name: As the administrator knows it: an address, or ``pool:NAME``.
        limits: Its own.
        pools: The limits that a user shares with others.
        valves: What the filter is set to.
        ledger: Where its use is recorded.
    """

    name: str
    limits: tuple[AppliedLimit, ...]
    pools: tuple[AppliedLimit, ...]
    valves: AdminValves
    ledger: Database

    def matching(self, wanted: Limit, where: str, text: str) -> tuple[AppliedLimit, ...]:
        """Its limits that count what `wanted` counts; one, or one for each group of that name.

        Raises:
            ConfigurationError: There is none, or none that adds up; it lists those that there are.
        """
        if wanted.is_moment:
            raise ConfigurationError(
                where, f"{quoted_text(text)} is about one moment: nothing adds up", self.known
            )
        found = tuple(item for item in self.limits if item.limit.counts == wanted.counts)
        if not found:
            raise ConfigurationError(
                where, f"{quoted_text(text)} counts what no limit of {self.name} counts", self.known
            )
        return found

    @property
    def adding(self) -> tuple[AppliedLimit, ...]:
        """Its limits in which use adds up."""
        return tuple(item for item in self.limits if not item.limit.is_moment)

    @property
    def known(self) -> str:
        """The limits that there are, as an error lists them."""
        own = listed(self.adding)
        pools = [item for item in self.pools if not item.limit.is_moment]
        shared = "; ".join(
            f"{POOL_PREFIX}{name} for the pool with {listed(pools, name)}"
            for name in dict.fromkeys(item.policy for item in pools)
        )
        text = f"what one of these counts: {own}" if own else f"nothing, {self.name} has no limit"
        return f"{text}; or {shared}" if shared else text


def listed(limits: Iterable[AppliedLimit], policy: str | None = None) -> str:
    """Limits in their notation, each once."""
    texts = (str(item.limit) for item in limits if policy in (None, item.policy))
    return ", ".join(dict.fromkeys(texts))


def read_limit(text: str, where: str) -> Limit:
    """A limit's text from the command line, without a warning in it.

    Raises:
        ConfigurationError: It isn't one.
    """
    limit = parse_limit(text, where)
    if limit.warn_percents:
        raise ConfigurationError(
            where, f'{quoted_text(text)} has a "warn"', 'what is before it: "50k tokens/day"'
        )
    return limit


def find_target(arguments: argparse.Namespace, now: datetime) -> Target:
    """The user or the pool that `USER` names, with its limits now.

    Raises:
        ConfigurationError: There is none, or no ledger yet.
    """
    database = find_database(arguments)
    policies = arguments.policies and read_text(arguments.policies, "--policies")
    key: str = arguments.user
    with database.snapshot() as connection:
        subject = None if is_pool(key) else find_user(connection, database, key)
        valves = require_filter(
            read_filter(connection, database, arguments.function, policies), database
        ).valves
        ledger = find_ledger(connection, database, arguments.function)
        if subject is None:
            require_tables(connection, database, groups_table)
            groups = tuple(group for group, _ in read_groups(connection).values())
            # Nobody's: it only carries the groups.
            (bearer,) = recall_subjects(
                [Subject("", "", "", groups)], valves.policy_set, connection, database, ledger
            )
            name = key
            limits = pool_limits(bearer.groups, key.removeprefix(POOL_PREFIX), valves, now)
            pools: tuple[AppliedLimit, ...] = ()
        else:
            (subject,) = recall_subjects([subject], valves.policy_set, connection, database, ledger)
            found = subject_limits(subject, valves, now)
            name = subject.email or subject.user_id
            limits = tuple(item for item in found if not item.is_pool)
            pools = tuple(item for item in found if item.is_pool)
    with ledger.snapshot() as connection:
        require_ledger(connection, ledger)
    return Target(name, limits, pools, valves, ledger)


def is_pool(key: str) -> bool:
    """Whether `USER` names a pool."""
    return key.startswith(POOL_PREFIX)


def pool_limits(
    groups: Sequence[GroupRef], name: str, valves: AdminValves, now: datetime
) -> tuple[AppliedLimit, ...]:
    """The limits of a pool with the windows they have now.

    Raises:
        ConfigurationError: There is no such pool, or no group for it.
    """
    pools = {pool.name: pool for pool in valves.policy_set.pools}
    pool = pools.get(name)
    if pool is None:
        known = ", ".join(POOL_PREFIX + known for known in pools)
        allowed = known + did_you_mean(name, pools) if known else "a user: there are no pools"
        raise ConfigurationError("USER", f"no pool {name!r}", allowed)
    return tuple(
        AppliedLimit(limit, scope, limit.period.window(now, valves.calendar_rules), pool.name)
        for scope in scopes_of_pool(groups, pool)
        for limit in pool.limits
    )


def scopes_of_pool(groups: Sequence[GroupRef], pool: Pool) -> tuple[str, ...]:
    """The names under which the ledger counts a pool."""
    scopes = pool_scopes(pool, groups)
    if not scopes:
        raise ConfigurationError(
            "USER",
            f"the pool {pool.name!r} is of the group {pool.group!r}, which Open WebUI doesn't have",
            "a pool of everyone or of a group that is there",
        )
    return scopes
