"""Which limits apply to this user, these groups, this role and this model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from fnmatch import fnmatchcase

from helpers.periods import CalendarRules, Window
from helpers.policies import ModelRule, Policy, PolicySet
from helpers.quotas import Limit, Measure

EVERYONE = "everyone"
DAYS_PER_CALENDAR_PERIOD = {
    "minute": Decimal(1) / 1440,
    "hour": Decimal(1) / 24,
    "day": Decimal(1),
    "week": Decimal(7),
    "month": Decimal("30.44"),
}
# What "the policy that allows most" looks at first.
GENEROSITY_ORDER: tuple[Measure, ...] = (
    "tokens",
    "cost",
    "requests",
    "input_tokens",
    "output_tokens",
)


@dataclass(frozen=True, slots=True)
class GroupRef:
    """One of Open WebUI's groups."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Subject:
    """The user whom a request is made for."""

    user_id: str
    email: str
    role: str
    groups: tuple[GroupRef, ...] = ()

    @property
    def scope(self) -> str:
        """The name under which the ledger counts this user."""
        return f"user:{self.user_id}"

    @property
    def scopes(self) -> tuple[str, ...]:
        """Every name under which the ledger may count this user: own, groups', instance's."""
        return (self.scope, *(f"group:{group.id}" for group in self.groups), EVERYONE)


@dataclass(frozen=True, slots=True)
class AppliedLimit:
    """A limit that counts for one request, with the window it has now."""

    limit: Limit
    scope: str
    window: Window
    policy: str  # as its administrator knows it; "" for the two simple valves
    policy_kind: str = "group"  # of a user's own limits: whether its name means anything to users

    @property
    def is_pool(self) -> bool:
        """Whether many users share the counter."""
        return not self.scope.startswith("user:")


def policy_generosity(policy: Policy) -> tuple[Decimal, ...]:
    """How much `policy` allows per day, by measure; larger allows more.

    Limits on single models are left out: they narrow a policy, they don't grant more.
    """
    if policy.limits is None:
        return tuple(Decimal("Infinity") for _ in GENEROSITY_ORDER)
    return tuple(
        min(
            (
                limit.amount / period_days(limit)
                for limit in policy.limits
                if limit.measure == measure and limit.model_glob == "*"
            ),
            default=Decimal("Infinity"),
        )
        for measure in GENEROSITY_ORDER
    )


def period_days(limit: Limit) -> Decimal:
    """The length of a limit's period in days; an average for months."""
    if limit.period.rolling is not None:
        return Decimal(limit.period.rolling // timedelta(minutes=1)) / 1440
    return DAYS_PER_CALENDAR_PERIOD[limit.period.name]


def choose_policy(
    subject: Subject, policies: PolicySet, default: Policy, multiple_groups: str
) -> Policy:
    """The one policy that counts for `subject`: its own, a group's, its role's, the default."""
    own = policies.users.get(subject.user_id) or policies.users.get(subject.email.casefold())
    if own is not None:
        return own
    candidates = [
        policies.groups[group.name] for group in subject.groups if group.name in policies.groups
    ]
    if candidates:
        candidates.sort(key=lambda policy: (policy.priority, policy.name))
        if multiple_groups == "most_generous":
            return max(candidates, key=policy_generosity)
        return candidates[0]
    return policies.roles.get(subject.role, default)


def scoped_limits(
    subject: Subject,
    policy: Policy,
    policies: PolicySet,
    at: datetime,
    rules: CalendarRules,
) -> tuple[AppliedLimit, ...]:
    """Every limit that `subject` is under at the instant `at`, whatever the model.

    Args:
        subject: The user.
        policy: What `choose_policy` chose.
        policies: The whole policies text: its pools apply on top.
        at: The instant of the request, UTC.
        rules: Where calendar periods begin.
    """
    own_name = "" if policy.kind == "default" else policy.name
    scoped = [(subject.scope, own_name, limit) for limit in policy.limits or ()]
    for pool in policies.pools:
        scopes = [f"group:{group.id}" for group in subject.groups if group.name == pool.group]
        for scope in [EVERYONE] if pool.group is None else scopes:
            scoped += [(scope, pool.name, limit) for limit in pool.limits]
    return tuple(
        AppliedLimit(limit, scope, limit.period.window(at, rules), name, policy.kind)
        for scope, name, limit in scoped
    )


def applied_limits(
    subject: Subject,
    policy: Policy,
    policies: PolicySet,
    model_names: Iterable[str],
    at: datetime,
    rules: CalendarRules,
) -> tuple[AppliedLimit, ...]:
    """The same, for a request to a model: by its chosen name and every name behind it."""
    names = tuple(model_names)
    return tuple(
        applied
        for applied in scoped_limits(subject, policy, policies, at, rules)
        if applied.limit.matches_model(names)
    )


def find_model_rule(policies: PolicySet, model_names: Iterable[str]) -> ModelRule:
    """The first ``[model.…]`` table, in the order of the text, that matches; else weight 1."""
    names = tuple(model_names)
    for rule in policies.models:
        if any(fnmatchcase(name, rule.glob) for name in names):
            return rule
    return ModelRule("*")


def token_cost(
    rule: ModelRule, input_tokens: int, output_tokens: int, cached_input_tokens: int
) -> int | None:
    """The cost in millionths of a dollar by the administrator's prices, or None without prices.

    Prices are dollars per million tokens, so tokens times price is millionths of a dollar.
    """
    if rule.input_price is None and rule.output_price is None:
        return None
    input_price = rule.input_price or Decimal(0)
    cached_price = input_price if rule.cached_input_price is None else rule.cached_input_price
    cached = min(cached_input_tokens, input_tokens)
    cost = (
        (input_tokens - cached) * input_price
        + cached * cached_price
        + output_tokens * (rule.output_price or Decimal(0))
    )
    return int(cost.to_integral_value(ROUND_HALF_UP))


def unknown_group_names(policies: PolicySet, group_names: Iterable[str]) -> tuple[str, ...]:
    """Group names in the policies that Open WebUI doesn't know, sorted."""
    wanted = set(policies.groups) | {pool.group for pool in policies.pools if pool.group}
    return tuple(sorted(wanted - set(group_names)))
