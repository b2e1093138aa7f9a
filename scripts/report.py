"""Usage from the ledger: who used how much of which model, when and from where."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from helpers.periods import CalendarRules, load_timezone, reset_instant
from scripts.limits_check import read_text
from scripts.limits_console import (
    ArgumentParser,
    CommandError,
    cell,
    output_console,
    run,
    spinner,
)
from scripts.limits_database import (
    Database,
    add_database_options,
    find_database,
    require_ledger,
)
from scripts.limits_host import FUNCTION_ID, find_ledger, read_filter
from scripts.report_charts import load_pygal
from scripts.report_formats import as_csv, as_json, as_table
from scripts.report_limits import find_near_limits
from scripts.report_page import GROUPS_NOTE, PageData, make_page
from scripts.report_rows import (
    DIMENSIONS,
    Selection,
    first_and_last,
    read_rows,
    read_totals,
)

INSTANT_ALLOWED = (
    'a date such as "2026-03-01" (its beginning) or an instant such as "2026-03-01T08:00+01:00"'
)


def make_parser() -> ArgumentParser:
    """The options."""
    parser = ArgumentParser(
        prog="python -m scripts.report", description=__doc__, allow_abbrev=False
    )
    add_database_options(parser)
    parser.add_argument(
        "--by",
        type=read_dimensions,
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


def read_dimensions(text: str) -> list[str]:
    """The names after --by, in the order of the columns."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in DIMENSIONS:
            allowed = ", ".join(DIMENSIONS)
            raise argparse.ArgumentTypeError(f"{name!r}; allowed: {allowed}, separated by commas")
    return [name for name in DIMENSIONS if name in names]


def read_instant(text: str | None, option: str, zone: ZoneInfo) -> int | None:
    """The first whole second that isn't before a date's beginning or an instant.

    Raises:
        CommandError: It is neither.
    """
    if text is None:
        return None
    try:
        instant = reset_instant(date.fromisoformat(text.strip()), CalendarRules(zone))
    except ValueError:
        try:
            instant = datetime.fromisoformat(text.strip())
        except ValueError:
            raise CommandError(option, repr(text), INSTANT_ALLOWED) from None
        if instant.tzinfo is None:
            instant = instant.replace(tzinfo=zone)
    return math.ceil(instant.timestamp())


def read_selection(arguments: argparse.Namespace) -> Selection:
    """Which records the options ask for."""
    zone = load_timezone(arguments.timezone, "--timezone")
    since = read_instant(arguments.since, "--since", zone)
    until = read_instant(arguments.until, "--until", zone)
    if since is not None and until is not None and since >= until:
        raise CommandError(
            "--until", f"{arguments.until!r}", f"a time after --since {arguments.since!r}"
        )
    return Selection(since, until, zone)


@dataclass(frozen=True, slots=True)
class Sources:
    """The databases of a report, each as it is at one moment; often the same one twice."""

    database: Database
    host: Connection
    ledger: Connection


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
        stack.enter_context(spinner("Reading the ledger"))
        sources = Sources(database, host, connection)
        if kind == "html":
            text = html_page(arguments, selection, sources)
        else:
            text = rows_text(arguments.by, kind, selection, sources)
    write(text, arguments.output)
    return 0


def goes_to_terminal(arguments: argparse.Namespace) -> bool:
    """Whether a person reads the output as it comes."""
    return arguments.output is None and sys.stdout.isatty()


def rows_text(by: list[str], kind: str, selection: Selection, sources: Sources) -> str:
    """The rows in one of the plain formats."""
    names = read_group_names(sources.host) if "group" in by else {}
    rows = read_rows(sources.ledger, by, selection)
    if kind == "json":
        return as_json(rows)
    if kind == "csv":
        return as_csv(rows, by)
    table = as_table(rows, by, read_totals(sources.ledger, selection))
    text = table_text(table)
    return f"{text}{GROUPS_NOTE}\n" if "group" in by else text


def write(text: str, file: str | None) -> None:
    """To a file or to standard output.

    Raises:
        CommandError: The file can't be written.
    """
    if file is None:
        sys.stdout.write(text)
        return
    try:
        Path(file).write_text(text, encoding="utf-8")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise CommandError(f"--output {file}", reason, "a file that can be written") from None


def html_page(arguments: argparse.Namespace, selection: Selection, sources: Sources) -> str:
    """The page, with the users near a limit where that can be known."""
    now = datetime.now(UTC)
    near, left_out, zone = None, "", "UTC"
    try:
        policies = arguments.policies and read_text(arguments.policies, "--policies")
        installed = read_filter(sources.host, sources.database, arguments.function, policies)
        if installed is None:
            left_out = "these are not Open WebUI's own tables, which say who is in which group."
        else:
            near = find_near_limits(sources.host, sources.ledger, installed.valves, now)
            zone = installed.valves.timezone
    except CommandError as error:
        if arguments.policies:
            raise
        left_out = mask_passwords(str(error))
    ...
