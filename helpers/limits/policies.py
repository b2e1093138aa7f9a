"""Policies: what the policies text says about groups, roles, users, pools and models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from helpers.errors import ConfigurationError
from helpers.limits.limit import Limit, parse_limit
from helpers.limits.periods import quoted_text
from helpers.limits.policy_tables import (
    LIMITS_ALLOWED,
    POOL_LIMITS_ALLOWED,
    CheckedTable,
    GroupTable,
    ModelTable,
    PoliciesError,
    PoolTable,
    SubjectTable,
    checked_table,
    load_toml,
    named_tables,
    policies_error,
    shown_value,
    table_header,
)

# Open WebUI's own; "pending" users can't chat yet, but an API key of theirs may have been kept.
ROLES = ("user", "admin", "pending")


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
        return any(
            price is not None
            for price in (
                self.input_price,
                self.output_price,
                self.cached_input_price,
                self.cache_write_price,
                self.reasoning_price,
            )
        )


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


def fold_name(name: str) -> str:
    """A group's name or an e-mail address without regard to case and outer blanks.

    Open WebUI stores addresses in lower case. `casefold` would take "ſ" for "s" and so one
    user for another; so would a normal form, since two accounts may differ by nothing else.
    """
    return name.strip().lower()


def parse_policies(text: str) -> PolicySet:
    """Read the policies text; an empty one is an empty set.

    Raises:
        PoliciesError: All that is wrong with it.
    """
    reader = PoliciesReader()
    reader.read(load_toml(text))
    if reader.mistakes:
        raise PoliciesError(*reader.mistakes)
    return PolicySet(
        reader.groups,
        reader.roles,
        reader.users,
        tuple(reader.pools),
        tuple(reader.models),
        reader.tasks_counted,
    )


class PoliciesReader:
    """Turns tables into values, going on after a mistake to find the others."""

    def __init__(self) -> None:
        self.mistakes: list[ConfigurationError] = []
        self.groups: dict[str, Policy] = {}
        self.roles: dict[str, Policy] = {}
        self.users: dict[str, Policy] = {}
        self.pools: list[Pool] = []
        self.models: list[ModelRule] = []
        self.tasks_counted = False

    def read(self, document: Mapping[str, object]) -> None:
        readers: dict[str, Callable[[str, object], None]] = {
            "group": self.read_group,
            "role": self.read_role,
            "user": self.read_user,
            "pool": self.read_pool,
            "model": self.read_model,
        }
        for kind, tables in document.items():
            with self.noting_mistakes():
                if kind == "tasks":
                    self.read_tasks(tables)
                    continue
                for name, values in named_tables(kind, tables).items():
                    with self.noting_mistakes():
                        readers[kind](name, values)

    @contextmanager
    def noting_mistakes(self) -> Iterator[None]:
        try:
            yield
        except PoliciesError as error:
            self.mistakes.extend(error.mistakes)

    def read_group(self, name: str, values: object) -> None:
        table = limits_table(GroupTable, "group", name, values)
        limits = table_limits("group", name, table.limits)
        key = fold_name(name)
        if key in self.groups:
            raise self.same_as("group", name, self.groups[key])
        self.groups[key] = Policy(name, "group", limits, table.priority)

    def read_role(self, name: str, values: object) -> None:
        table = limits_table(SubjectTable, "role", name, values)
        if name not in ROLES:
            raise policies_error(
                table_header("role", name),
                f"Open WebUI has no role {quoted_text(name)}",
                " or ".join(table_header("role", role) for role in ROLES),
            )
        self.roles[name] = Policy(name, "role", table_limits("role", name, table.limits))

    def read_user(self, name: str, values: object) -> None:
        table = limits_table(SubjectTable, "user", name, values)
        # Ids are kept as they are.
        key = fold_name(name) if "@" in name else name.strip()
        if key in self.users:
            raise self.same_as("user", name, self.users[key])
        self.users[key] = Policy(name, "user", table_limits("user", name, table.limits))

    @staticmethod
    def same_as(kind: str, name: str, other: Policy) -> PoliciesError:
        """The error for a second table of the same group or user."""
        return policies_error(
            table_header(kind, name),
            f"the same {kind} as {table_header(kind, other.name)}",
            f"one table for each {kind}",
        )

    def read_pool(self, name: str, values: object) -> None:
        table = limits_table(PoolTable, "pool", name, values)
        limits = table_limits("pool", name, table.limits)
        if limits is None:
            raise policies_error(
                f"{table_header('pool', name)} limits",
                "a pool can't be unlimited",
                f"{POOL_LIMITS_ALLOWED}, or no such pool",
            )
        self.pools.append(Pool(name, table.group, limits))

    def read_model(self, name: str, values: object) -> None:
        table = checked_table(ModelTable, "model", name, values)
        self.models.append(ModelRule(glob=name, **table.model_dump()))

    def read_tasks(self, values: object) -> None:
        if (
            not isinstance(values, dict)
            or values.keys() - {"counted"}
            or not isinstance(values.get("counted", False), bool)
        ):
            raise policies_error(
                "[tasks]", shown_value(values), "nothing but counted = true or counted = false"
            )
        self.tasks_counted = values.get("counted", False)


def limits_table(model: type[CheckedTable], kind: str, name: str, values: object) -> CheckedTable:
    """A table of a kind that has limits.

    Raises:
        PoliciesError: All that is wrong with it: its keys, and the limits that can be told.
    """
    try:
        return checked_table(model, kind, name, values)
    except PoliciesError as error:
        mistakes = list(error.mistakes)
    limits = values.get("limits") if isinstance(values, dict) else None
    if isinstance(limits, (str, list)) and all(isinstance(text, str) for text in limits):
        try:
            table_limits(kind, name, limits)
        except PoliciesError as error:
            mistakes += error.mistakes
    raise PoliciesError(*mistakes)


def table_limits(kind: str, name: str, value: str | list[str]) -> tuple[Limit, ...] | None:
    """The limits of a table; None for "unlimited".

    Raises:
        PoliciesError: Each limit that can't be read, or that counts what another one counts.
    """
    if isinstance(value, str) and value.strip().lower() == "unlimited":
        return None
    where = f"{table_header(kind, name)} limits"
    texts = [value] if isinstance(value, str) else value
    if not texts:
        # No limit at all is a decision that should be readable.
        raise policies_error(where, "an empty list", LIMITS_ALLOWED)
    limits: dict[tuple[object, ...], Limit] = {}
    mistakes = []
    for text in texts:
        try:
            limit = parse_limit(text, where)
        except ConfigurationError as error:
            mistakes.append(error)
            continue
        # Of two that count the same, the larger would never matter. "24h" and "1d" are the same.
        counts = limit.counts
        if counts in limits:
            given = f"{quoted_text(text)} counts the same as {quoted_text(str(limits[counts]))}"
            mistakes.append(ConfigurationError(where, given, "one of the two"))
        limits[counts] = limit
    if mistakes:
        raise PoliciesError(*mistakes)
    return tuple(limits.values())
