"""Policies text: TOML to policies, and what an error says about it."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from helpers.errors import ConfigurationError
from helpers.limits.limit import Limit, parse_limit
from helpers.limits.periods import quoted_text
from helpers.limits.policies import ModelRule, Policy, PolicySet, Pool, fold_name
from helpers.texts import LONGEST_QUOTED, shortened

# After the small numbers of the groups that were ranked on purpose, before any meant to be last.
DEFAULT_GROUP_PRIORITY = 100
LARGEST_NUMBER = 1_000_000
TABLE_EXAMPLES = {
    "group": '[group."Research Lab"]',
    "role": "[role.user]",
    "user": '[user."ann@example.org"]',
    "pool": "[pool.everyone]",
    "model": '[model."gpt-4*"]',
}
LIMITS_EXAMPLE = 'limits = ["50k tokens/day"]'
LIMITS_ALLOWED = 'a list such as ["50k tokens/day", "1M tokens/month"], or "unlimited"'
POOL_LIMITS_ALLOWED = 'a list such as ["100M tokens/month"]'
# What word processors make of ".
CURLY_QUOTES = re.compile("[\u2018-\u201f\u00ab\u00bb]")
PRICE_ALLOWED = "$ per million tokens, from 0 to 1,000,000, such as 2.5"

# Open WebUI's own; "pending" users can't chat yet, but an API key of theirs may have been kept.
ROLES = ("user", "admin", "pending")


class PoliciesError(ConfigurationError):
    """All that is wrong with a policies text, a line for each.

    Args:
        first: Its `where`, `given` and `allowed` are this error's.
        others: The others, in the order of the text.
    """

    def __init__(self, first: ConfigurationError, *others: ConfigurationError) -> None:
        super().__init__(first.where, first.given, first.allowed)
        self.errors = (first, *others)

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self.errors)


def policies_error(where: str, given: str, allowed: str) -> PoliciesError:
    """The error where one thing is wrong."""
    return PoliciesError(ConfigurationError(where, given, allowed))


def decimal_of_whole_number(value: object) -> object:
    """A whole number as Decimal; anything else is left for pydantic to judge."""
    return Decimal(value) if isinstance(value, int) and not isinstance(value, bool) else value


BoundedNumber = Annotated[
    Decimal, BeforeValidator(decimal_of_whole_number), Field(ge=0, le=LARGEST_NUMBER)
]


class PolicyTable(BaseModel):
    """The keys of a table; a field's description is what an error calls allowed."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class SubjectTable(PolicyTable):
    """A role's or a user's table."""

    limits: str | list[str] = Field(description=LIMITS_ALLOWED)


class GroupTable(SubjectTable):
    """A group's table."""

    priority: int = Field(
        default=DEFAULT_GROUP_PRIORITY,
        description="a whole number such as 10; the lowest among a user's groups wins",
    )


class PoolTable(PolicyTable):
    """A pool's table."""

    group: str | None = Field(
        default=None,
        min_length=1,
        description='one group\'s name such as "Research Lab"; left out, everyone is in the pool',
    )
    limits: str | list[str] = Field(description=POOL_LIMITS_ALLOWED)


class ModelTable(PolicyTable):
    """A model's table."""

    input_price: BoundedNumber | None = Field(default=None, description=PRICE_ALLOWED)
    output_price: BoundedNumber | None = Field(default=None, description=PRICE_ALLOWED)
    cached_input_price: BoundedNumber | None = Field(default=None, description=PRICE_ALLOWED)
    cache_write_price: BoundedNumber | None = Field(default=None, description=PRICE_ALLOWED)
    reasoning_price: BoundedNumber | None = Field(default=None, description=PRICE_ALLOWED)
    weight: BoundedNumber = Field(
        default=Decimal(1), description="a number from 0 (free) to 1,000,000, such as 0.5 or 5"
    )


CheckedTable = TypeVar("CheckedTable", bound=PolicyTable)


def load_toml(text: str) -> dict[str, Any]:
    """The text as plain values, its numbers exact.

    Raises:
        PoliciesError: It is no TOML.
    """
    # A text that comes from some Windows editors begins with a byte order mark.
    text = text.removeprefix("\ufeff")
    try:
        return tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise toml_error(text, str(error)) from None
    except RecursionError:
        raise policies_error("policies", "brackets nested too deeply", LIMITS_EXAMPLE) from None
    except (ValueError, InvalidOperation):
        raise policies_error(
            "policies", "a number with too many digits", f"numbers up to {LARGEST_NUMBER:,}"
        ) from None


def toml_error(text: str, message: str) -> PoliciesError:
    """tomllib's message with the line that it is about, and how such a line is written."""
    place = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    if place is None:
        return policies_error(
            "policies", message, f"every bracket and quote closed, as in {LIMITS_EXAMPLE}"
        )
    line = text.split("\n")[int(place[1]) - 1].strip()
    header = re.match(r"\[(\w+)\.([^\"'\[\]]+)\]", line)
    if "twice" in message or "overwrite" in message:
        allowed = "every table and key once"
    elif CURLY_QUOTES.search(line):
        allowed = f'straight quotes ("), as in {LIMITS_EXAMPLE}'
    elif header is not None:
        allowed = f"quotes around the name: {table_header(header[1], header[2].strip())}"
    elif line.startswith("["):
        allowed = f"a table such as {TABLE_EXAMPLES['group']} or {TABLE_EXAMPLES['role']}"
    else:
        allowed = f"a key, =, and a value, texts in quotes: {LIMITS_EXAMPLE}"
    return policies_error(
        f"policies, line {place[1]}, column {place[2]}",
        f"{message[: place.start()]}: {quoted_text(line)}",
        allowed,
    )


def table_header(kind: str, name: str) -> str:
    """A table's first line as TOML spells it."""
    bare = re.fullmatch(r"[A-Za-z0-9_-]+", name)
    return f"[{kind}.{name if bare else json.dumps(name, ensure_ascii=False)}]"


def named_tables(kind: str, tables: object) -> Mapping[str, object]:
    """What stands below a top-level key, which has to be one of our kinds of tables."""
    if kind not in TABLE_EXAMPLES:
        close = difflib.get_close_matches(kind.lower(), TABLE_EXAMPLES, n=1)
        hint = f"; did you mean {TABLE_EXAMPLES[close[0]]}?" if close else ""
        given = quoted_text(kind)
        given = f"unknown table {given}" if isinstance(tables, dict) else f"{given} in no table"
        raise policies_error(
            "policies", given, "tables such as " + ", ".join(TABLE_EXAMPLES.values()) + hint
        )
    if not isinstance(tables, dict):
        raise policies_error(
            "policies", f"{kind} = {shown_value(tables)}", f"tables such as {TABLE_EXAMPLES[kind]}"
        )
    return tables


def checked_table(model: type[CheckedTable], kind: str, name: str, values: object) -> CheckedTable:
    """The table if its name, its keys and their types are right.

    Raises:
        PoliciesError: All that is wrong with them.
    """
    header = table_header(kind, name)
    if not name.strip():
        raise policies_error(header, "an empty name", TABLE_EXAMPLES[kind])
    if not isinstance(values, dict):
        raise not_a_table(kind, name, values, name in model.model_fields)
    if (dotted := dotted_name(name, values)) != name:
        raise policies_error(
            f"[{kind}.{dotted}]",
            "a dot in a name without quotes",
            f"quotes around the name: {table_header(kind, dotted)}",
        )
    try:
        return model.model_validate(values)
    except ValidationError as error:
        # A union reports each of its members, a list each of its entries: once is enough.
        kinds = {str(detail["loc"][0]): detail["type"] for detail in error.errors()}
    # A misspelt key explains the missing one.
    unknown = [key for key, reason in kinds.items() if reason == "extra_forbidden"]
    meant = {guessed_key(model, key) for key in unknown}
    raise PoliciesError(
        *(
            key_error(model, header, key, reason, values)
            for key, reason in kinds.items()
            if not (reason == "missing" and key in meant)
        )
    )


def dotted_name(name: str, values: Mapping[str, object]) -> str:
    """The name that was meant: to TOML, [model.gpt-4.1] is a table "1" in a table "gpt-4"."""
    for key, value in values.items():
        if isinstance(value, dict):
            return dotted_name(f"{name}.{key}", value)
    return name


def not_a_table(kind: str, name: str, values: object, is_key: bool) -> PoliciesError:
    """What is wrong where a table should be and another value is."""
    if is_key:
        return policies_error(
            f"[{kind}]", f"{quoted_text(name)} for a {kind} without a name", TABLE_EXAMPLES[kind]
        )
    header = table_header(kind, name)
    if isinstance(values, list) and values and isinstance(values[0], dict):
        return policies_error(f"[{header}]", "double brackets", header)
    return policies_error(
        f"[{kind}]",
        f"{name} = {shown_value(values)}",
        f"a table of its own: {header} and below it its keys",
    )


def guessed_key(model: type[PolicyTable], key: str) -> str | None:
    close = difflib.get_close_matches(key.lower(), model.model_fields, n=1)
    return close[0] if close else None


def key_error(
    model: type[PolicyTable], header: str, key: str, reason: str, values: Mapping[str, object]
) -> ConfigurationError:
    """What is wrong with one key of a table, `reason` being pydantic's name for it."""
    if reason == "extra_forbidden":
        guess = guessed_key(model, key)
        hint = f"; did you mean {guess}?" if guess else ""
        return ConfigurationError(
            header, f"unknown key {quoted_text(key)}", ", ".join(model.model_fields) + hint
        )
    allowed = model.model_fields[key].description or ""
    if reason == "missing":
        return ConfigurationError(header, f"{key} is missing", allowed)
    return ConfigurationError(f"{header} {key}", f"got {shown_value(values[key])}", allowed)


def shown_value(value: object) -> str:
    """A value about as the text has it."""
    try:
        as_json = json.dumps(value, ensure_ascii=False, default=str)
        text = str(value) if isinstance(value, Decimal) else as_json
    except ValueError:  # Python writes out no number of thousands of digits, as 0xfff… has them
        return "a number with too many digits"
    return shortened(text, LONGEST_QUOTED)


def parse_policies(text: str) -> PolicySet:
    """Read the policies text; an empty one is an empty set.

    Raises:
        PoliciesError: All that is wrong with it.
    """
    reader = PoliciesReader()
    reader.read(load_toml(text))
    if reader.errors:
        raise PoliciesError(*reader.errors)
    return PolicySet(
        reader.groups,
        reader.roles,
        reader.users,
        tuple(reader.pools),
        tuple(reader.models),
        reader.tasks_counted,
    )


class PoliciesReader:
    """Turns tables into values, going on after an error to find the others."""

    def __init__(self) -> None:
        self.errors: list[ConfigurationError] = []
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
            with self.collecting_errors():
                if kind == "tasks":
                    self.read_tasks(tables)
                    continue
                for name, values in named_tables(kind, tables).items():
                    with self.collecting_errors():
                        readers[kind](name, values)

    @contextmanager
    def collecting_errors(self) -> Iterator[None]:
        try:
            yield
        except PoliciesError as error:
            self.errors.extend(error.errors)

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
        errors = list(error.errors)
    limits = values.get("limits") if isinstance(values, dict) else None
    if isinstance(limits, (str, list)) and all(isinstance(text, str) for text in limits):
        try:
            table_limits(kind, name, limits)
        except PoliciesError as error:
            errors += error.errors
    raise PoliciesError(*errors)


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
    errors = []
    for text in texts:
        try:
            limit = parse_limit(text, where)
        except ConfigurationError as error:
            errors.append(error)
            continue
        # Of two that count the same, the larger would never matter. "24h" and "1d" are the same.
        counts = limit.counts
        if counts in limits:
            given = f"{quoted_text(text)} counts the same as {quoted_text(str(limits[counts]))}"
            errors.append(ConfigurationError(where, given, "one of the two"))
        limits[counts] = limit
    if errors:
        raise PoliciesError(*errors)
    return tuple(limits.values())
