"""Rows of a report as a table, CSV or JSON."""

from __future__ import annotations

import csv
import json
import unicodedata
from collections.abc import Iterable, Sequence
from decimal import Decimal
from io import StringIO
from typing import Any

from rich.table import Table

from helpers.openwebui.messages import MICROS
from scripts.limits.console import cell, make_table
from scripts.report.rows import DIMENSIONS, Sums, UsageRow

# Public, as are the columns of DIMENSIONS: other programs read them.
SUM_COLUMNS = (
    "requests",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cost_usd",
    "estimated_requests",
)
SUM_HEADINGS = ("Requests", "Input tokens", "Output tokens", "Total tokens", "Cost", "Estimated")


# What a spreadsheet takes for the beginning of a formula.
FORMULA_SIGNS = ("=", "+", "-", "@")


def printable(text: str) -> str:
    """A text without control characters: models' ids come from outside.

    A terminal or a spreadsheet might obey them, and XML has no place for them.
    """
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(letter) in ("Cc", "Cs") else letter
        for letter in text
    )


def csv_cell(text: str | None) -> str:
    """A text that a spreadsheet shows and doesn't compute."""
    shown = printable(text or "")
    return f"'{shown}" if shown.lstrip().startswith(FORMULA_SIGNS) else shown


def key_columns(dimensions: Sequence[str]) -> list[str]:
    """The columns that identify a row."""
    wanted = [name for name in DIMENSIONS if name in dimensions]
    return [column for name in wanted for column in DIMENSIONS[name]]


def sum_values(sums: Sums) -> tuple[int | Decimal, ...]:
    """The values of `SUM_COLUMNS`."""
    return (
        sums.requests,
        sums.input_tokens,
        sums.output_tokens,
        sums.total_tokens,
        Decimal(sums.cost_micros) / MICROS,
        sums.estimated_requests,
    )


def as_json(rows: Iterable[UsageRow]) -> str:
    """A list of objects, one on each line; money as a number."""
    objects: list[dict[str, Any]] = [
        {**row.keys, **dict(zip(SUM_COLUMNS, sum_values(row.sums), strict=True))} for row in rows
    ]
    lines = [json.dumps(item, ensure_ascii=False, default=float) for item in objects]
    return "[\n" + ",\n".join(lines) + "\n]\n" if lines else "[]\n"


def as_csv(rows: Iterable[UsageRow], dimensions: Sequence[str]) -> str:
    """Comma-separated values with a line of column names; what isn't known is empty."""
    output = StringIO()
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow([*key_columns(dimensions), *SUM_COLUMNS])
    for row in rows:
        values = [
            f"{value:f}" if isinstance(value, Decimal) else value for value in sum_values(row.sums)
        ]
        writer.writerow([*map(csv_cell, row.keys.values()), *values])
    return output.getvalue()


def as_table(rows: Sequence[UsageRow], dimensions: Sequence[str], totals: Sums) -> Table:
    """A table for people: names in place of ids, and a line of totals."""
    headings = key_headings(dimensions)
    table = make_table("", *headings, *SUM_HEADINGS, numbers=SUM_HEADINGS)
    for row in rows:
        table.add_row(*map(cell, key_cells(row)), *sum_cells(row.sums))
    table.show_footer = True
    for column, text in zip(
        table.columns, ["Total", *[""] * (len(headings) - 1), *sum_cells(totals)], strict=True
    ):
        column.footer = text
    return table


def key_headings(dimensions: Sequence[str]) -> list[str]:
    """One heading for each dimension."""
    return [name.capitalize() for name in DIMENSIONS if name in dimensions]


def key_cells(row: UsageRow) -> list[str]:
    """What people read of a row's keys: the name, else the id."""
    cells = []
    for name, (key, *names) in DIMENSIONS.items():
        if key in row.keys:
            given = [row.keys[column] for column in (*names, key)]
            cells.append(printable(next((text for text in given if text), f"(no {name})")))
    return cells


def sum_cells(sums: Sums) -> list[str]:
    """The sums as people read them."""
    return [
        f"{value:,}" if isinstance(value, int) else format_dollars(value)
        for value in sum_values(sums)
    ]


def format_dollars(value: Decimal) -> str:
    """An amount of money in cents, or as exact as it takes where it is less than one.

    Nothing is a dash: what has no price would otherwise look as if it were free.
    """
    if not value:
        return "–"
    if value < Decimal("0.01"):
        return f"${value.normalize():f}"
    return f"${value:,.2f}"
