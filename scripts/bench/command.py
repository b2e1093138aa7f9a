"""Benchmarks: prints tables, and writes them as JSON if asked.

    python -m scripts.bench [--quick] [--only stream,layer,ledger,pages,…] [--json FILE]

The variants of a section take turns in one run, and medians are compared: a busy machine slows all
of them down alike. Whether the results are right is tested elsewhere (`make test`).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from scripts.bench.bursts import measure_bursts
from scripts.bench.hooks import measure_hooks, measure_memory
from scripts.bench.layer import measure_layer
from scripts.bench.ledger import measure_ledger, measure_refusals
from scripts.bench.pages import measure_pages
from scripts.bench.rivals import measure_rivals
from scripts.bench.server import measure_server
from scripts.bench.stream import measure_stream
from scripts.bench.tables import Section, as_json, as_markdown, print_section
from scripts.postgresql import postgresql_server

NAMES = (
    *("stream", "layer", "hooks", "memory", "ledger", "refusals", "pages", "rivals", "server"),
    "bursts",
)
ON_POSTGRESQL = {"hooks", "ledger", "refusals", "pages", "server"}


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer records and repetitions")
    parser.add_argument("--only", metavar="A,B", help=f"some of: {', '.join(NAMES)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there, too")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there, too")
    arguments = parser.parse_args()
    chosen = arguments.only.split(",") if arguments.only else list(NAMES)
    unknown = [name for name in chosen if name not in NAMES]
    if unknown:
        parser.error(f"--only {','.join(unknown)}; allowed are: {', '.join(NAMES)}")
    arguments.only = chosen
    return arguments


def machine() -> dict[str, object]:
    """What this ran on, in general words."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count() or 0,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def main() -> int:
    """Measure what was asked for; the exit status is 1 if a goal isn't met."""
    arguments = read_arguments()
    quick: bool = arguments.quick
    console = Console(width=None if sys.stdout.isatty() else 140)
    sections: list[Section] = []
    with ExitStack() as stack:
        needed = ON_POSTGRESQL & set(arguments.only)
        server_url = stack.enter_context(postgresql_server()) if needed else ""
        measures: dict[str, Callable[[], Section]] = {
            "stream": lambda: measure_stream(quick),
            "layer": lambda: measure_layer(quick),
            "hooks": lambda: measure_hooks(quick, server_url),
            "memory": lambda: measure_memory(quick),
            "ledger": lambda: measure_ledger(quick, server_url),
            "refusals": lambda: measure_refusals(quick, server_url),
            "pages": lambda: measure_pages(quick, server_url),
            "rivals": lambda: measure_rivals(quick),
            "server": lambda: measure_server(quick, server_url),
            "bursts": lambda: measure_bursts(quick),
        }
        for name in arguments.only:
            with console.status(f"Measuring: {name}"):
                sections.append(measures[name]())
            print_section(console, sections[-1])
    if arguments.json:
        report = {"machine": machine(), "quick": quick, "sections": as_json(sections)}
        arguments.json.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", "utf-8")
    if arguments.markdown:
        arguments.markdown.write_text(as_markdown(sections), "utf-8")
    return 0 if all(goal.met for section in sections for goal in section.goals) else 1


if __name__ == "__main__":
    raise SystemExit(main())
