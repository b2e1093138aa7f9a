"""Policies: the limits of groups, roles, users and pools, and what models cost, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import ClassVar, Literal

from helpers.limits.limit import Limit


@dataclass(frozen=True, slots=True)
class Policy:
    """The limits that one table gives to a user, a group or a role.

    Args:
        name: What users read: the group's name, the role, the e-mail address.
        kind: Which sort of table it comes from; ``default``: the two simple valves.
        limits: All of them apply; None: unlimited.
        priority: Of groups only: the lowest among a user's groups wins.
    """

    name: str
    kind: Literal["user", "group", "role", "default"]
    limits: tuple[Limit, ...] | None
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Pool:
    """Limits on what many users use together: a group's members, or everyone (group None)."""

    kind: ClassVar[Literal["pool"]] = "pool"
    name: str
    group: str | None
    limits: tuple[Limit, ...]


@dataclass(frozen=True, slots=True)
class ModelRule:
    """What the models that `glob` fits cost, in $ per million tokens, and how they count."""

    glob: str
    input_price: Decimal | None = None
    output_price: Decimal | None = None
    cached_input_price: Decimal | None = None
    weight: Decimal = Decimal(1)
    cache_write_price: Decimal | None = None  # as the input, if not said
    reasoning_price: Decimal | None = None  # as the output, if not said

    @property
    def is_priced(self) -> bool:
        of_input = (self.input_price, self.cached_input_price, self.cache_write_price)
        prices = (*of_input, self.output_price, self.reasoning_price)
        return any(price is not None for price in prices)


@dataclass(frozen=True, slots=True)
class PolicySet:
    """Everything that the policies text says.

    Args:
        groups: By the group's id or name as `fold_name` has it.
        roles: By role.
        users: By user id, or by e-mail address as `fold_name` has it.
        pools: In the order of the text.
        models: In the order of the text.
        tasks_counted: Whether titles, tags and the like count toward limits.
    """

    groups: Mapping[str, Policy] = field(default_factory=dict)
    roles: Mapping[str, Policy] = field(default_factory=dict)
    users: Mapping[str, Policy] = field(default_factory=dict)
    pools: tuple[Pool, ...] = ()
    models: tuple[ModelRule, ...] = ()
    tasks_counted: bool = False

    @property
    def tables(self) -> tuple[Policy | Pool, ...]:
        """Whatever has limits."""
        return (*self.users.values(), *self.groups.values(), *self.roles.values(), *self.pools)


def fold_name(name: str) -> str:
    """A group's name or an e-mail address without regard to case and outer blanks.

    Open WebUI stores addresses in lower case. `casefold` would take "ſ" for "s" and so one
    user for another; so would a normal form, since two accounts may differ by nothing else.
    """
    return name.strip().lower()
