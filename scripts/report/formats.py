"""Rows of a report as a table for people."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from rich.table import Table

from helpers.ledger.report_rows import UsageRow, printable, sum_values
from helpers.ledger.reports import DIMENSIONS, Sums
from scripts.limits.console import cell, make_table

SUM_HEADINGS = ("Requests", "Input tokens", "Output tokens", "Total tokens", "Cost", "Estimated")


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
