"""Usage from the ledger: who used how much of which model, when and from where."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from helpers.errors import ConfigurationError
from helpers.ledger.report_rows import as_csv, as_json
from helpers.ledger.reports import (
    DIMENSIONS,
    INSTANT_ALLOWED,
    Selection,
    read_dimensions,
    read_instant,
)
from helpers.limits.periods import load_timezone
from scripts.limits.check import read_text
from scripts.limits.console import (
    ArgumentParser,
    mask_passwords,
    run,
    spinner,
    table_text,
)
from scripts.limits.database import (
    Database,
    add_database_options,
    find_database,
    require_ledger,
)
from scripts.limits.function import FUNCTION_ID, find_ledger, read_filter
from scripts.limits.standings import read_standings
from scripts.report.charts import load_pygal
from scripts.report.formats import as_table
from scripts.report.page import GROUPS_NOTE, LimitsSection, make_page
from scripts.report.rows import UsageReader


def make_parser() -> ArgumentParser:
    """The options."""
    parser = ArgumentParser(prog="usage-limits report", description=__doc__, allow_abbrev=False)
    add_database_options(parser)
    parser.add_argument(
        "--by",
        type=dimensions,
        default=["user"],
        metavar="KEYS",
        help=f"one or more of {','.join(DIMENSIONS)} (default: user)",
    )
    parser.add_argument("--since", metavar="WHEN", help=INSTANT_ALLOWED)
    parser.add_argument("--until", metavar="WHEN", help="the same; not included")
    parser.add_argument(
        "--timezone",
        metavar="ZONE",
        default="UTC",
        help="whose days --by day, --since and --until mean (default: %(default)s)",
    )
    parser.add_argument(
        "--format",
        choices=("table", "csv", "json", "html"),
        help="default: table on a terminal, csv into a file or pipe",
    )
    parser.add_argument("--output", metavar="FILE", help="write to a file")
    html = parser.add_argument_group("html only", "for the users near or over a limit")
    html.add_argument(
        "--policies", metavar="FILE", help="a policies text to use in place of the valve"
    )
    html.add_argument(
        "--function",
        metavar="ID",
        default=FUNCTION_ID,
        help="the filter's id in Open WebUI (default: %(default)s)",
    )
    return parser


def dimensions(text: str) -> list[str]:
    """The names after --by, in the order of the columns."""
    try:
        return read_dimensions(text)
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(f"{error.given}; allowed: {error.allowed}") from None


def read_selection(arguments: argparse.Namespace) -> Selection:
    """Which records the options ask for."""
    zone = load_timezone(arguments.timezone, "--timezone")
    since = read_instant(arguments.since, "--since", zone)
    until = read_instant(arguments.until, "--until", zone)
    if since is not None and until is not None and since >= until:
        raise ConfigurationError(
            "--until", f"{arguments.until!r}", f"a time after --since {arguments.since!r}"
        )
    return Selection(since, until, zone)


def report(arguments: argparse.Namespace) -> int:
    """Read the ledger and print the report."""
    selection = read_selection(arguments)
    database = find_database(arguments)
    kind = arguments.format or ("table" if goes_to_terminal(arguments) else "csv")
    if kind == "html":
        load_pygal()  # better missed now than after minutes of reading
    with ExitStack() as stack:
        host = stack.enter_context(database.snapshot())
        ledger = find_ledger(host, database, arguments.function)
        connection = host if ledger is database else stack.enter_context(ledger.snapshot())
        require_ledger(connection, ledger)
        reader = UsageReader(connection, host, selection)
        with spinner("Reading the ledger"):
            if kind == "html":
                limits = limits_section(arguments, database, reader)
                now = datetime.now(UTC)
                text = make_page(reader, arguments.by, limits, ledger.address, now)
            elif kind == "table":
                table = as_table(reader.rows(arguments.by), arguments.by, reader.totals())
                text = table_text(table, terminal=goes_to_terminal(arguments))
                text += f"{GROUPS_NOTE}\n" if "group" in arguments.by else ""
            else:
                rows = reader.rows(arguments.by)
                text = as_json(rows) if kind == "json" else as_csv(rows, arguments.by)
    write(text, arguments.output)
    return 0


def goes_to_terminal(arguments: argparse.Namespace) -> bool:
    """Whether a person reads the output as it comes."""
    return arguments.output is None and sys.stdout.isatty()


def limits_section(
    arguments: argparse.Namespace, database: Database, reader: UsageReader
) -> LimitsSection:
    """The users near or over a limit, where that can be known."""
    policies = arguments.policies and read_text(arguments.policies, "--policies")
    try:
        installed = read_filter(reader.host, database, arguments.function, policies)
    except ConfigurationError as error:
        if policies:
            raise
        return LimitsSection(None, mask_passwords(str(error)))
    if installed is None:
        return LimitsSection(None, "the database isn't Open WebUI's, which knows users and valves")
    valves, now = installed.valves, datetime.now(UTC)
    near = read_standings(reader.host, reader.ledger, valves, now, near=True)
    return LimitsSection(near, timezone=installed.valves.timezone)


def write(text: str, file: str | None) -> None:
    """Write to a file or to standard output.

    Raises:
        ConfigurationError: The file can't be written.
    """
    if file is None:
        sys.stdout.write(text)
        return
    try:
        Path(file).write_text(text, encoding="utf-8")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigurationError(f"--output {file}", reason, "a file that can be written") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one report and return the exit status."""
    return run(partial(report, make_parser().parse_args(arguments)))


if __name__ == "__main__":
    raise SystemExit(main())
