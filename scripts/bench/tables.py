"""What a benchmark found: tables for people, JSON for machines, and whether goals are met."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

Cell = str | int | float


@dataclass(frozen=True, slots=True)
class Goal:
    """One of the project's goals, and what this run measured for it."""

    text: str
    met: bool


@dataclass(slots=True)
class Section:
    """One table, what was to be reached, and how it was measured."""

    name: str
    title: str
    rows: list[dict[str, Cell]] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def judge(
        self, what: str, measured: float, goal: float, unit: str, least: bool = False
    ) -> None:
        """Note whether `measured` is at most (or at least) `goal`."""
        met = measured >= goal if least else measured <= goal
        bound = "at least" if least else "at most"
        self.goals.append(
            Goal(f"{what}: {number(measured)} {unit} ({bound} {number(goal)} {unit})", met)
        )


def number(value: Cell) -> str:
    """A number with three digits that matter."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def columns_of(rows: Iterable[dict[str, Cell]]) -> list[str]:
    """Every column that a row has, in the order of their first use."""
    return list(dict.fromkeys(name for row in rows for name in row))


def print_section(console: Console, section: Section) -> None:
    """Print a section for people."""
    columns = columns_of(section.rows)
    table = Table(title=section.title, title_justify="left")
    for name in columns:
        words = any(isinstance(row.get(name), str) for row in section.rows)
        table.add_column(name, justify="left" if words else "right")
    for row in section.rows:
        table.add_row(*(number(row.get(name, "–")) for name in columns))
    console.print(table)
    for goal in section.goals:
        console.print(f"  {'✓' if goal.met else '✗'} {goal.text}", highlight=False)
    for note in section.notes:
        console.print(f"  {note}", style="dim", highlight=False)
    console.print()


def as_markdown(sections: Sequence[Section]) -> str:
    """The same as Markdown, for docs/benchmarks.md."""
    lines: list[str] = []
    for section in sections:
        columns = columns_of(section.rows)
        numeric = [
            not any(isinstance(row.get(name), str) for row in section.rows) for name in columns
        ]
        lines += [f"### {section.title}", ""]
        lines.append(f"| {' | '.join(columns)} |")
        lines.append(f"|{'|'.join('--:' if is_number else '---' for is_number in numeric)}|")
        lines += [
            f"| {' | '.join(number(row.get(name, '–')) for name in columns)} |"
            for row in section.rows
        ]
        lines.append("")
        lines += [f"- {'✓' if goal.met else '✗'} {goal.text}" for goal in section.goals]
        lines += [f"- {note}" for note in section.notes]
        lines.append("")
    return "\n".join(lines)


def as_json(sections: Sequence[Section]) -> dict[str, Any]:
    """The same for machines."""
    return {section.name: asdict(section) for section in sections}
