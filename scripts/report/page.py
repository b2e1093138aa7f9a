"""A report as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from helpers.ledger.report_rows import UsageRow
from helpers.ledger.reports import Sums
from helpers.openwebui.messages import Reader, format_amount, format_instant, limit_text
from helpers.openwebui.page_assets import PAGE_CSS
from helpers.openwebui.valves import read_timezone
from scripts.limits.standings import Standing
from scripts.report.charts import bar_chart, day_chart
from scripts.report.formats import (
    SUM_HEADINGS,
    key_cells,
    key_headings,
    sum_cells,
)
from scripts.report.rows import UsageReader
from scripts.report.template import TEMPLATE

CHARTED = 10
SECTION_ROWS = 20
DETAIL_ROWS = 1_000
# The heading, the key in `near_row`, and the class of each column.
LIMIT_COLUMNS = (
    ("Who", "who", ""),
    ("Policy", "policy", ""),
    ("Limit", "limit", "w"),
    ("Used", "used", "n"),
    ("Left", "left", "n"),
    ("Resets", "resets", ""),
)
GROUPS_NOTE = "Who is in several groups counts in each of them, so groups can add up to more."


@dataclass(frozen=True, slots=True)
class ShownRows:
    """The part of a report's rows that a table on the page shows."""

    headings: list[str]
    lines: list[tuple[list[str], list[str]]]
    left_out: int


@dataclass(frozen=True, slots=True)
class LimitsSection:
    """The users near or over a limit, or why that isn't known."""

    near: list[Standing] | None
    left_out: str = ""
    timezone: str = "UTC"


def make_page(
    reader: UsageReader,
    dimensions: list[str],
    limits: LimitsSection,
    address: str,
    made_at: datetime,
) -> str:
    """The whole page.

    Args:
        reader: Where the numbers come from.
        dimensions: What the last table is by.
        limits: What is known of limits.
        address: The database, for the reader.
        made_at: Now.
    """
    users = reader.rows(["user"])
    details = users if dimensions == ["user"] else reader.rows(dimensions)
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(TEMPLATE).render(
        range=describe_span(reader.span()),
        zone=reader.selection.zone.key,
        address=address,
        made_at=f"{made_at:%Y-%m-%d %H:%M} UTC",
        sum_headings=SUM_HEADINGS,
        css=Markup(PAGE_CSS),
        limit_columns=LIMIT_COLUMNS,
        totals=total_boxes(reader.totals(), len(users)),
        days=day_section(reader.rows(["day"])),
        limits=limits.near and [near_row(item, limits.timezone, made_at) for item in limits.near],
        limits_left_out=limits.left_out,
        sections=[
            section("users", "Top users", ["user"], users),
            section("models", "By model", ["model"], reader.rows(["model"])),
            section("sources", "Page against API", ["source"], reader.rows(["source"])),
        ],
        rows={
            "title": f"All by {', '.join(dimensions)}",
            "table": shown_rows(details, dimensions, DETAIL_ROWS),
            "note": GROUPS_NOTE if "group" in dimensions else "",
        },
    )


def describe_span(span: tuple[date, date] | None) -> str:
    """The days that the records are of."""
    return f"{span[0]} to {span[1]}" if span else "no records"


def total_boxes(totals: Sums, users: int) -> list[tuple[str, str]]:
    """The numbers at the top."""
    boxes = dict(zip(SUM_HEADINGS, sum_cells(totals), strict=True))
    share = round(100 * totals.estimated_requests / max(1, totals.requests))
    boxes["Estimated"] += f" ({share} %)"
    return [("Users", f"{users:,}"), *boxes.items()]


def day_section(rows: list[UsageRow]) -> dict[str, Any]:
    """Use by day, days without any included."""
    by_day = {row.keys["day"] or "": row.sums for row in rows}
    days = every_day(min(by_day), max(by_day)) if by_day else []
    sums = [by_day.get(day, Sums()) for day in days]
    return {
        "chart": Markup(day_chart(days, token_series(sums))),
        "table": shown_rows(rows, ["day"], len(rows)),
    }


def every_day(first: str, last: str) -> list[str]:
    """All dates from one to another."""
    start, end = date.fromisoformat(first), date.fromisoformat(last)
    return [(start + timedelta(days=at)).isoformat() for at in range((end - start).days + 1)]


def section(key: str, title: str, dimensions: list[str], rows: list[UsageRow]) -> dict[str, Any]:
    """A chart of the largest rows, and a table of some more."""
    charted = rows[:CHARTED]
    names = [key_cells(row)[0] for row in charted]
    return {
        "id": key,
        "title": title,
        "chart": Markup(bar_chart(names, token_series([row.sums for row in charted]))),
        "table": shown_rows(rows, dimensions, SECTION_ROWS),
    }


def token_series(sums: list[Sums]) -> dict[str, list[int]]:
    """What every chart stacks."""
    return {
        "Input tokens": [part.input_tokens for part in sums],
        "Output tokens": [part.output_tokens for part in sums],
    }


def shown_rows(rows: list[UsageRow], dimensions: Sequence[str], most: int) -> ShownRows:
    """The first rows as a table shows them."""
    lines = [(key_cells(row), sum_cells(row.sums)) for row in rows[:most]]
    return ShownRows(key_headings(dimensions), lines, max(0, len(rows) - most))


def near_row(item: Standing, timezone: str, now: datetime) -> dict[str, str]:
    """A limit near or over its end."""
    state, limit = item.state, item.state.applied.limit
    return {
        "kind": "over" if state.exceeded else "near",
        "who": item.who,
        "policy": state.applied.policy,
        "limit": limit_text(limit),
        "used": f"{format_amount(limit, state.taken)} ({state.percent:,}%)",
        "left": format_amount(limit, state.remaining),
        "resets": format_instant(state.reset_at, now, Reader(read_timezone(timezone))),
    }
