"""Limits as the pages have them: those of many users at one instant, and how JSON says them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from helpers.ledger.identities import Identities
from helpers.limits.decisions import LimitState
from helpers.limits.limit import Limit, Measure
from helpers.limits.periods import Window
from helpers.limits.policies import Policy, Pool
from helpers.limits.policy import AppliedLimit, GroupRef, Subject, choose_policy, pool_scopes
from helpers.openwebui.messages import limit_text
from helpers.openwebui.valves import AdminValves, is_exempt
from helpers.openwebui.wording import Language

Json = dict[str, Any]
PAGE_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str)


@dataclass(frozen=True, slots=True)
class Match:
    """What applies to a user, and to all others of whom the policies know no more.

    Args:
        policy: The policy.
        exempt: Whether such a user is recorded but never refused.
        own: The policy's limits with their windows; none for an exempt user.
        pools: The limits of the pools that such a user is in; none for an exempt one.
        groups: The groups with the names in the policies that mean them.
    """

    policy: Policy
    exempt: bool
    own: tuple[tuple[Limit, Window], ...]
    pools: tuple[AppliedLimit, ...]
    groups: tuple[GroupRef, ...]

    def own_limits(self, subject: Subject) -> list[AppliedLimit]:
        """A user's own limits."""
        policy, scope = self.policy, subject.scope
        name = "" if policy.kind == "default" else policy.name
        return [AppliedLimit(one, scope, window, name, policy.kind) for one, window in self.own]

    def limits_of(self, subject: Subject) -> list[AppliedLimit]:
        """The same, and those of the pools that the user is in."""
        return [*self.own_limits(subject), *self.pools]


class LimitFinder:
    """Finds the limits of many users at one instant; what is alike for several, once.

    Args:
        valves: With the policies.
        identities: Whom those mean.
        now: The instant.
    """

    def __init__(self, valves: AdminValves, identities: Identities, now: datetime) -> None:
        self._valves, self._identities, self._now = valves, identities, now
        self._policies, self._default = valves.policy_set, valves.default_policy
        self._rules = valves.calendar_rules
        self._matches: dict[tuple[str, tuple[GroupRef, ...]], Match] = {}
        self._windows: dict[str, Window] = {}
        self._pools: dict[tuple[str, str], tuple[AppliedLimit, ...]] = {}

    def match(self, named: Subject) -> Match:
        """What applies to a user."""
        if self._identities.names_user(named):
            return self._match(named)
        key = (named.role, named.groups)
        found = self._matches.get(key)
        if found is None:
            found = self._matches[key] = self._match(named)
        return found

    def limits_of_pool(self, pool: Pool, groups: Iterable[GroupRef]) -> list[AppliedLimit]:
        """A pool's limits, for each group of its that is among these, which were recalled."""
        limits: list[AppliedLimit] = []
        for scope in pool_scopes(pool, groups):
            key = (pool.name, scope)
            if key not in self._pools:
                self._pools[key] = tuple(
                    AppliedLimit(limit, scope, self._window(limit), pool.name)
                    for limit in pool.limits
                )
            limits += self._pools[key]
        return limits

    def _match(self, named: Subject) -> Match:
        subject, valves = self._identities.recall(named), self._valves
        policy = choose_policy(subject, self._policies, self._default, valves.multiple_groups)
        if is_exempt(valves, subject):
            return Match(policy, True, (), (), subject.groups)
        own = tuple((limit, self._window(limit)) for limit in policy.limits or ())
        pools = tuple(
            applied
            for pool in self._policies.pools
            for applied in self.limits_of_pool(pool, subject.groups)
        )
        return Match(policy, False, own, pools, subject.groups)

    def _window(self, limit: Limit) -> Window:
        name = limit.period.name
        if name not in self._windows:
            self._windows[name] = limit.period.window(self._now, self._rules)
        return self._windows[name]


class LimitWriter:
    """Writes limits as JSON text, of which thousands are asked for; what is alike is made once."""

    def __init__(self, language: Language) -> None:
        self._language = language
        self._heads: dict[tuple[int, str, bool], tuple[Limit, str]] = {}
        self._instants: dict[datetime, str] = {}

    def write(self, state: LimitState, percent: int | None = None) -> str:
        """One limit; money in dollars. `percent` is the state's, where it is known already."""
        applied, limit = state.applied, state.applied.limit
        # By identity: the limits of a policies text live as long as it does.
        key = (id(limit), applied.policy, applied.is_pool)
        found = self._heads.get(key)
        if found is None:
            found = self._heads[key] = (limit, self._head(applied))
        numbers: list[float] = [
            state.amount,
            state.granted,
            state.used,
            state.reserved,
            state.remaining,
        ]
        if limit.measure == "cost":
            numbers = [number / 1_000_000 for number in numbers]
        amount, granted, used, reserved, remaining = numbers
        percent = state.percent if percent is None else percent
        reset_at = "null" if limit.is_moment else self._instant(state.reset_at)
        return (
            f'{found[1]},"amount":{amount},"granted":{granted},"used":{used},'
            f'"reserved":{reserved},"remaining":{remaining},"percent":{percent},'
            f'"reset_at":{reset_at}}}'
        )

    def _head(self, applied: AppliedLimit) -> str:
        limit = applied.limit
        head = {
            "limit": str(limit),
            "text": limit_text(limit, self._language),
            "measure": limit.measure,
            "period": limit.period.name,
            "model": limit.model_glob,
            "source": limit.source,
            "scope": applied.policy if applied.is_pool else "user",
            "policy": applied.policy or "default",
        }
        return PAGE_JSON.encode(head).removesuffix("}")

    def _instant(self, instant: datetime) -> str:
        text = self._instants.get(instant)
        if text is None:
            text = self._instants[instant] = f'"{iso_instant(instant)}"'
        return text


def amount_number(measure: Measure, amount: int) -> float:
    """An amount of a limit as JSON has it: money in dollars, all else as it is counted."""
    return amount / 1_000_000 if measure == "cost" else amount


def iso_instant(instant: datetime) -> str:
    """An instant as ISO 8601 in UTC."""
    return instant.astimezone(UTC).isoformat(timespec="seconds")


def iso_second(second: int) -> str:
    """A second of the ledger as ISO 8601 in UTC."""
    return iso_instant(datetime.fromtimestamp(second, UTC))
