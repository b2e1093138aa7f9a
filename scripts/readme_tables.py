"""Writes the tables in docs/ that the code knows better: the valves, and the map of helpers/.

python -m scripts.readme_tables            write them
python -m scripts.readme_tables --check    fail if one isn't current
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from helpers.openwebui.valves import AdminValves, PersonalValves
from scripts.bundle import PARTS, place_of

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
DOCS = ROOT / "docs"
VALVES_PAGE = DOCS / "valves.md"
ARCHITECTURE_PAGE = DOCS / "architecture.md"


def table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(headings)} |", f"|{'---|' * len(tuple(headings))}"]
    lines += [f"| {' | '.join(cells)} |" for cells in rows]
    return "\n".join(lines)


def default_cell(field: FieldInfo) -> str:
    """A valve's default, and what else can be chosen."""
    default: Any = field.default
    text = str(default).lower() if isinstance(default, bool) else str(default)
    cell = f"`{text}`" if text else "empty"
    if get_origin(field.annotation) is Literal:
        others = [f"`{choice}`" for choice in get_args(field.annotation) if choice != default]
        cell += f" ({', '.join(others)})"
    return cell


def valves_table(valves: type[BaseModel]) -> str:
    """Every valve with its default and what it is for, in the words of the form."""

    def meaning(field: FieldInfo) -> str:
        # The form's example of policies has a page of its own.
        text = (field.description or "").split("\n")[0].removesuffix(", for example:")
        return re.sub(r"(\{\w+\})", r"`\1`", text)

    fields = valves.model_fields.items()
    rows = ((f"`{name}`", default_cell(field), meaning(field)) for name, field in fields)
    return table(("Valve", "Default", "What it does"), rows)


def helpers_table() -> str:
    """Every module with the first line of its docstring, in the order of the pasted file."""

    def purpose(module: str) -> str:
        source = (ROOT / place_of(module)).read_text("utf-8")
        first = (ast.get_docstring(ast.parse(source)) or "").split("\n")[0]
        return first.replace("|", r"\|")

    rows = ((f"`{place_of(module)}`", purpose(module)) for module in PARTS)
    return table(("Module", "What it is for"), rows)


# The page that each table stands on.
TABLES: Mapping[Path, Mapping[str, Callable[[], str]]] = {
    VALVES_PAGE: {
        "valves": lambda: valves_table(AdminValves),
        "user valves": lambda: valves_table(PersonalValves),
    },
    ARCHITECTURE_PAGE: {"helpers": helpers_table},
}


def with_tables(page: Path, text: str) -> str:
    """A page's text with current tables between their markers."""
    for name, make in TABLES[page].items():
        begin, end = f"<!-- {name}: written by scripts/readme_tables.py -->", f"<!-- end {name} -->"
        before, found, rest = text.partition(begin)
        _, ended, after = rest.partition(end)
        if not (found and ended):
            raise ValueError(f"{page.name} has no place for {name}: {begin} … {end}")
        text = f"{before}{begin}\n\n{make()}\n\n{end}{after}"
    return text


def main() -> int:
    """Run the command; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="change nothing")
    check = parser.parse_args().check
    outdated = 0
    for page in TABLES:
        text = page.read_text("utf-8")
        current = with_tables(page, text)
        if current == text:
            continue
        outdated += 1
        if check:
            print(f"{page.name}'s tables are not current: run python -m scripts.readme_tables")
        else:
            page.write_text(current, "utf-8")
    return 1 if check and outdated else 0


if __name__ == "__main__":
    sys.exit(main())
