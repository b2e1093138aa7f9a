"""`limits check`: whether a policies text is right, what it says, and whom it names."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from rich.table import Table

from helpers.errors import ConfigurationError
from helpers.limits.policies import PolicySet
from helpers.limits.policies_text import PoliciesError, parse_policies, table_header
from scripts.limits.console import FAILED, cell, make_table, output_console, print_error
from scripts.limits.database import find_database
from scripts.limits.function import find_ledger, read_filter, require_filter
from scripts.limits.names import read_identities
from scripts.limits.words import count_tables, header, limits_text, number


def check(arguments: argparse.Namespace) -> int:
    """Print policies as tables, or all that is wrong with them; and whom they name in vain.

    Where a table names nobody, or more than one, the status isn't 0. A file is checked without
    a database, unless one is given; without a file the policies are those of the valve.
    """
    from_file = arguments.file is not None
    text = read_text(arguments.file, "FILE") if from_file else None
    try:
        policies = parse_policies(text or "")
    except PoliciesError as error:
        print_error(str(error))
        return FAILED
    identities = None
    if not from_file or arguments.database_url is not None:
        database = find_database(arguments)
        with database.snapshot() as connection:
            if not from_file:
                installed = read_filter(connection, database, arguments.function)
                policies = require_filter(installed, database).valves.policy_set
            ledger = find_ledger(connection, database, arguments.function)
            identities = read_identities(policies, connection, database, ledger)
    print_policies(policies)
    if identities is not None and identities.problems:
        print_problems(identities.notices)
        return FAILED
    output_console().print(summary(policies), markup=False)
    print_problems(identities.notices if identities else ())
    return 0


def print_problems(sentences: Iterable[str]) -> None:
    """What the policies don't mean, or no longer by the name that they have it under."""
    for sentence in sentences:
        output_console().print(cell(sentence))


def print_policies(policies: PolicySet) -> None:
    """Policies as tables."""
    console = output_console()
    for table in (policy_table(policies), pool_table(policies), model_table(policies)):
        if table.row_count:
            console.print(table)


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


def summary(policies: PolicySet) -> str:
    """The line after the tables."""
    return f"The policies are right: {count_tables(policies)}."
