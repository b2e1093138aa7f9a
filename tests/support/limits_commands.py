"""Words that the tests of the administrators' commands share."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

from scripts.limits.function import functions_table
from tests.commands.test_report import LedgerDatabase

POLICIES = """\
[group.Students]
priority = 10
limits = ["50k tokens/day warn 70% 90%", "30 requests/5h"]

[group."Research Lab"]
priority = 5
limits = ["2k tokens/month on gpt-4*", "$20/month"]

[role.user]
limits = ["20k tokens/day"]

[user."Bob@Example.org"]
limits = "unlimited"

[pool.everyone]
limits = ["100M tokens/month"]

[model."gpt-4*"]
input_price = 2.50
output_price = 10
weight = 5

[model."llama*"]
weight = 0
"""


def set_valves(database: LedgerDatabase, **valves: Any) -> None:
    """Save other valves."""
    with database.engine.begin() as connection:
        connection.execute(functions_table.update().values(valves=json.dumps(valves)))


def line_of(output: str, text: str) -> list[str]:
    """The cells of the one table row in which a text stands."""
    (line,) = [line for line in output.splitlines() if text in line]
    return [cell.strip() for cell in re.split("[│┃]", line)[1:-1]]


def now() -> int:
    """This second."""
    return int(time.time())


def shown(say: Callable[..., str], *arguments: str) -> dict[str, dict[str, Any]]:
    """The rows of `show` by their limits."""
    rows = json.loads(say("show", *arguments, "--format", "json"))
    return {row["limit"]: row for row in rows}
