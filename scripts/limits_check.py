"""`limits check`: whether a policies text is right, what it says, and whom it names."""

from __future__ import annotations

import sys
from decimal import Decimal
from pathlib import Path

from rich.table import Table

from helpers.errors import ConfigurationError
from helpers.messages import format_quantity
from helpers.policies import ModelRule, Policy, PolicySet, parse_policies
from helpers.policy_tables import PoliciesError, table_header
from helpers.quotas import Limit
from scripts.limits_console import (
    FAILED,
    cell,
    make_table,
    output_console,
    print_error,
)


def print_policies(policies: PolicySet) -> None:
    """Policies as tables, with a line of how many there are."""
    console = output_console()
    for table in (policy_table(policies), pool_table(policies), model_table(policies)):
        if table.row_count:
            console.print(table)
    console.print(summary(policies), markup=False)


def read_text(name: str, where: str) -> str:
    """A text file, or standard input for "-".

    Raises:
        ConfigurationError: It can't be read.
    """
    if name == "-":
        return sys.stdin.read()
    try:
        return Path(name).read_text(encoding="utf-8")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigurationError(
            f"{where} {name}", reason, 'a file, or "-" for standard input'
        ) from None
    except UnicodeDecodeError:
        raise ConfigurationError(
            f"{where} {name}", "not UTF-8", "a text file saved as UTF-8"
        ) from None


def policy_table(policies: PolicySet) -> Table:
    """Who has which limits."""
    table = make_table("Policies", "Table", "Priority", "Limits", numbers=["Priority"])
    for kind in (policies.users, policies.groups, policies.roles):
        for policy in kind.values():
            priority = str(policy.priority) if policy.kind == "group" else ""
            table.add_row(cell(header(policy)), priority, limits_text(policy.limits))
    return table


def pool_table(policies: PolicySet) -> Table:
    """Who shares which limits."""
    table = make_table("Pools", "Table", "Shared by", "Limits")
    for pool in policies.pools:
        shared = "everyone" if pool.group is None else f"members of {pool.group}"
        table.add_row(cell(table_header("pool", pool.name)), cell(shared), limits_text(pool.limits))
    return table


def model_table(policies: PolicySet) -> Table:
    """What models cost and how they count."""
    prices = ["$ per 1M input", "cached input", "output"]
    table = make_table("Models", "Table", "Weight", *prices, numbers=["Weight", *prices])
    for rule in policies.models:
        weight = "0 (free)" if rule.weight == 0 else number(rule.weight)
        costs = (rule.input_price, rule.cached_input_price, rule.output_price)
        table.add_row(cell(table_header("model", rule.glob)), weight, *map(number, costs))
    return table


def header(policy: Policy) -> str:
    """The table that a policy comes from."""
    return "" if policy.kind == "default" else table_header(policy.kind, policy.name)


def number(value: Decimal | None) -> str:
    """A price or weight without a tail of zeros."""
    return "" if value is None else f"{value.normalize():,f}"


def limits_text(limits: tuple[Limit, ...] | None) -> str:
    """Limits, one on each line."""
    return "unlimited" if limits is None else "\n".join(map(describe_limit, limits))


def describe_limit(limit: Limit) -> str:
    """A limit in words: ``5,000 tokens on gpt-4* per day, warning at 70 % and 90 %``."""
    every = "per" if limit.period.rolling is None else "in any"
    text = f"{format_quantity(limit, limit.amount)} {every} {limit.period.name}"
    if limit.warn_percents:
        text += ", warning at " + " and ".join(f"{percent} %" for percent in limit.warn_percents)
    return text


def describe_model(rule: ModelRule) -> str:
    """How a model counts and what it costs, in words."""
    weight = "free (weight 0)" if rule.weight == 0 else f"weight {number(rule.weight)}"
    prices = [
        f"{name} ${number(price)}"
        for name, price in (("input", rule.input_price), ("output", rule.output_price))
        if price is not None
    ]
    return f"{weight}; {', '.join(prices)} per million tokens" if prices else weight


def summary(policies: PolicySet) -> str:
    """How many tables of each kind there are."""
    counts = {
        "group": len(policies.groups),
        "role": len(policies.roles),
        "user": len(policies.users),
        "pool": len(policies.pools),
        "model": len(policies.models),
    }
    found = [f"{count} {kind}{'s' * (count != 1)}" for kind, count in counts.items() if count]
    return f"The policies are right: {', '.join(found) or 'no tables at all'}."
