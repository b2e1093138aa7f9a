"""What the command-line tools share: arguments, errors without passwords, tables."""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from io import StringIO
from typing import NoReturn

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from helpers.errors import ConfigurationError
from helpers.logs import log

FAILED = 1
UNUSABLE = 2  # what argparse ends with, too
# Where the output goes to a file or a pipe, tables are as wide as they need to be.
FILE_WIDTH = 240
# Up to the last "@" of a word, since a password may hold one that should have been "%40".
URL_PASSWORD = re.compile(r"(://[^:/@\s]*:)\S*@")
QUERY_PASSWORD = re.compile(r"((?:password|passfile|sslkey)=)[^&\s]+", re.IGNORECASE)


def mask_passwords(text: str) -> str:
    """The text with the passwords of all database URLs in it made unreadable."""
    return QUERY_PASSWORD.sub(r"\1***", URL_PASSWORD.sub(r"\1***@", text))


def print_error(text: str) -> None:
    """Tell on standard error what went wrong."""
    print(mask_passwords(text), file=sys.stderr)


class ArgumentParser(argparse.ArgumentParser):
    """An argument parser whose errors don't repeat passwords, and that takes text alone."""

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        given = sys.argv[1:] if args is None else args
        for text in given:
            try:
                text.encode()
            except UnicodeEncodeError:  # no database takes it
                self.error(f"{text!a} is not UTF-8")
        return super().parse_args(given, namespace)

    def error(self, message: str) -> NoReturn:
        super().error(mask_passwords(message))


def run(command: Callable[[], int]) -> int:
    """Run a command; whatever it can't do becomes a sentence and an exit status."""
    if not log.handlers:
        # What the filter logs for a server is said here in the command's own words.
        log.addHandler(logging.NullHandler())
    try:
        status = command()
        sys.stdout.flush()
    except ConfigurationError as error:
        print_error(str(error))
        return UNUSABLE
    except BrokenPipeError:
        # The reader, `head` say, has seen enough; nothing more can be said there at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        print_error("stopped")
        return 130
    return status


def output_console() -> Console:
    """Standard output, for tables and sentences."""
    console = Console(highlight=False, soft_wrap=False)
    return console if console.is_terminal else Console(highlight=False, width=FILE_WIDTH)


def table_text(table: Table, *, terminal: bool) -> str:
    """A table as text, with colours and as wide as the window on a terminal."""
    console = Console() if terminal else Console(file=StringIO(), width=FILE_WIDTH)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def progress_bar() -> Progress:
    """A bar on standard error that goes away when it is done, and isn't drawn in a file."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True, quiet=not sys.stderr.isatty()),
        transient=True,
    )


def spinner(text: str) -> AbstractContextManager[object]:
    """The same where nobody knows how long it takes."""
    progress = progress_bar()
    progress.add_task(text, total=None)
    return progress


def cell(value: object) -> Text:
    """A table's cell: the text as it is, without markup, and nothing a terminal would obey."""
    return Text("".join(char if char.isprintable() else "\ufffd" for char in str(value)))


def make_table(title: str, *columns: str, numbers: Sequence[str] = ()) -> Table:
    """A table with these columns, those of `numbers` flush right."""
    table = Table(title=Text(title), title_justify="left")
    for column in columns:
        right = column in numbers
        table.add_column(
            column,
            justify="right" if right else "left",
            no_wrap=right,
            overflow="fold",
        )
    return table
