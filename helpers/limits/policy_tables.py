"""Policy tables: the policies text as checked tables, and what an error says about them."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from helpers.errors import ConfigurationError
from helpers.limits.periods import quoted_text

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


class PoliciesError(ConfigurationError):
    """All that is wrong with a policies text, in one line for each mistake.

    Args:
        first: The first mistake: its `where`, `given` and `allowed` are the error's.
        others: The others, in the order of the text.
    """

    def __init__(self, first: ConfigurationError, *others: ConfigurationError) -> None:
        super().__init__(first.where, first.given, first.allowed)
        self.mistakes = (first, *others)

    def __str__(self) -> str:
        return "\n".join(str(mistake) for mistake in self.mistakes)


def policies_error(where: str, given: str, allowed: str) -> PoliciesError:
    """The error for one single mistake."""
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
        default=Decimal(1),
        description="a number from 0 (free) to 1,000,000, such as 0.5 or 5",
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
            "policies",
            given,
            "tables such as " + ", ".join(TABLE_EXAMPLES.values()) + hint,
        )
    if not isinstance(tables, dict):
        raise policies_error(
            "policies",
            f"{kind} = {shown_value(tables)}",
            f"tables such as {TABLE_EXAMPLES[kind]}",
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
            key_mistake(model, header, key, reason, values)
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


def key_mistake(
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


def shown_value(value: object, longest: int = 60) -> str:
    """A value about as the text has it."""
    as_json = json.dumps(value, ensure_ascii=False, default=str)
    text = str(value) if isinstance(value, Decimal) else as_json
    return text if len(text) <= longest else text[: longest - 1] + "…"
