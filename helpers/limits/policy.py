"""Which limits apply to this user, these groups, this role and this model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from helpers.limits.globs import glob_fits
from helpers.limits.limit import Limit, Measure
from helpers.limits.periods import CalendarRules, Window
from helpers.limits.policies import ModelRule, Policy, PolicySet, Pool, fold_name

EVERYONE = "everyone"
NO_RULE = ModelRule("*")
DAYS_PER_CALENDAR_PERIOD = {
    "minute": Decimal(1) / 1440,
    "hour": Decimal(1) / 24,
    "day": Decimal(1),
    "week": Decimal(7),
    "month": Decimal("30.44"),
    "quarter": Decimal("91.31"),
    "year": Decimal("365.25"),
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
    """One of Open WebUI's groups.

    Args:
        id: Its id.
        name: Its name now.
        keys: The names in the policies that mean it; None: those of its id and its name.
        doubtful: Names in the policies of which it is open whether they mean it.
    """

    id: str
    name: str
    keys: tuple[str, ...] | None = None
    doubtful: tuple[str, ...] = ()

    @property
    def sure_keys(self) -> tuple[str, ...]:
        """The names in the policies that mean it."""
        return (fold_name(self.id), fold_name(self.name)) if self.keys is None else self.keys

    @property
    def all_keys(self) -> tuple[str, ...]:
        """The same, and those of which it is open."""
        return self.sure_keys + self.doubtful


@dataclass(frozen=True, slots=True)
class Subject:
    """The user whom a request is made for; `keys` and `doubtful` are as a group's."""

    user_id: str
    email: str
    role: str
    groups: tuple[GroupRef, ...] = ()
    keys: tuple[str, ...] | None = None
    doubtful: tuple[str, ...] = ()

    @property
    def sure_keys(self) -> tuple[str, ...]:
        """The names in the policies that mean this user."""
        return (self.user_id, fold_name(self.email)) if self.keys is None else self.keys

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

    Limits on single models or sources and about one moment are left out: they narrow a policy,
    they don't grant more.
    """
    if policy.limits is None:
        return tuple(Decimal("Infinity") for _ in GENEROSITY_ORDER)
    return tuple(
        min(
            (
                limit.amount / period_days(limit)
                for limit in policy.limits
                if limit.measure == measure and limit.is_general
            ),
            default=Decimal("Infinity"),
        )
        for measure in GENEROSITY_ORDER
    )


def period_days(limit: Limit) -> Decimal:
    """The length of a limit's period in days; an average for months and longer ones."""
    if limit.period.rolling is not None:
        return Decimal(limit.period.rolling // timedelta(minutes=1)) / 1440
    return DAYS_PER_CALENDAR_PERIOD[limit.period.name]


def choose_policy(
    subject: Subject, policies: PolicySet, default: Policy, multiple_groups: str
) -> Policy:
    """The one policy that counts for `subject`: its own, a group's, its role's, the default.

    Where it is open whether a name in the policies means the user or a group, both readings apply
    at once: nobody may use more than either of them allows.
    """
    without = read_policy(subject, policies, default, multiple_groups, doubtful=False)
    if not subject.doubtful and not any(group.doubtful for group in subject.groups):
        return without
    return stricter_of(
        [read_policy(subject, policies, default, multiple_groups, doubtful=True), without]
    )


def read_policy(
    subject: Subject, policies: PolicySet, default: Policy, multiple_groups: str, doubtful: bool
) -> Policy:
    """The policy that counts in one reading: with the names that are open, or without them."""
    own_keys = subject.sure_keys + (subject.doubtful if doubtful else ())
    own = policies_of(own_keys, policies.users)
    if own:
        return stricter_of(own)
    candidates = [
        stricter_of(found)
        for group in subject.groups
        if (found := policies_of(group.all_keys if doubtful else group.sure_keys, policies.groups))
    ]
    if candidates:
        candidates.sort(key=lambda policy: (policy.priority, policy.name))
        if multiple_groups == "most_generous":
            return max(candidates, key=policy_generosity)
        return candidates[0]
    return policies.roles.get(subject.role, default)


def policies_of(keys: Iterable[str], policies: Mapping[str, Policy]) -> list[Policy]:
    """The policies that these names have, each once."""
    return [policies[key] for key in dict.fromkeys(keys) if key in policies]


def stricter_of(found: Sequence[Policy]) -> Policy:
    """All of these policies at once, under the first one's name: each limit of each.

    Of several that count the same the least amount is left, of priorities the lowest.
    """
    if len(found) == 1:
        return found[0]
    limits: dict[Limit, Limit] = {}
    for limit in (limit for policy in found for limit in policy.limits or ()):
        counts = replace(limit, amount=0, warn_percents=())
        if counts not in limits or limit.amount < limits[counts].amount:
            limits[counts] = limit
    unlimited = all(policy.limits is None for policy in found)
    return replace(
        found[0],
        limits=None if unlimited else tuple(limits.values()),
        priority=min(policy.priority for policy in found),
    )


def pool_scopes(pool: Pool, groups: Iterable[GroupRef]) -> tuple[str, ...]:
    """The scopes under which a pool counts: everyone, or those of these groups that share it."""
    if pool.group is None:
        return (EVERYONE,)
    key = fold_name(pool.group)
    return tuple(f"group:{group.id}" for group in groups if key in group.all_keys)


def scoped_limits(
    subject: Subject,
    policy: Policy,
    policies: PolicySet,
    at: datetime,
    rules: CalendarRules,
) -> tuple[AppliedLimit, ...]:
    """Every limit that `subject` is under at the instant `at`, whatever the model.

    Those of `policy`, which `choose_policy` chose, and those of the pools in `policies`.
    """
    own_name = "" if policy.kind == "default" else policy.name
    scoped = [(subject.scope, own_name, limit) for limit in policy.limits or ()]
    named: dict[str, list[GroupRef]] = {}  # a user may be in thousands of pools
    for group in subject.groups:
        for key in dict.fromkeys(group.all_keys):
            named.setdefault(key, []).append(group)
    for pool in policies.pools:
        for scope in pool_scopes(pool, named.get(fold_name(pool.group or ""), ())):
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


def limits_via(limits: Iterable[AppliedLimit], source: str) -> tuple[AppliedLimit, ...]:
    """Those of the limits that count what comes from this source."""
    return tuple(applied for applied in limits if applied.limit.source in ("", source))


class ModelNames(tuple[str, ...]):
    """Every name that a request's model goes by, the one that answers first.

    `called` is the one that the provider gets: the base of a custom model. `users_own` is whether
    an ordinary user has chosen the name before it.
    """

    called: str = ""
    users_own: bool = False


def called_model(model_names: tuple[str, ...]) -> str:
    """The model that the provider gets; in a plain tuple it stands right after the chosen one."""
    called = getattr(model_names, "called", "")
    return called or "".join(model_names[1:2] or model_names[:1])


def find_model_rule(policies: PolicySet, model_names: Iterable[str]) -> ModelRule:
    """The ``[model.…]`` table that counts; weight 1 and no prices without one.

    Prices and weights follow the model that is really called: users give custom models any name.
    An exact id wins, first that of an administrator's custom model; else the first glob in the
    text's order that fits the model called. Of what merely led to it, an arena or a model that
    fell back, none counts.
    """
    names = model_names if isinstance(model_names, tuple) else tuple(model_names)
    called = called_model(names)
    exact = {rule.glob: rule for rule in policies.models}
    chosen = () if getattr(names, "users_own", False) else names[:1]
    for name in (*chosen, called):
        if name in exact:
            return exact[name]
    return next((rule for rule in policies.models if glob_fits(rule.glob, called)), NO_RULE)
