"""The administrator's hand on the ledger: check policies, explain, show, put right."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from scripts.limits_check import check
from scripts.limits_console import ArgumentParser, run
from scripts.limits_database import add_database_options
from scripts.limits_explain import explain
from scripts.limits_function import FUNCTION_ID
from scripts.limits_repair import rebuild, sweep
from scripts.limits_show import show


def make_parser() -> ArgumentParser:
    """The commands and their options."""
    parser = ArgumentParser(prog="python -m scripts.limits", description=__doc__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, help_text: str, *, needs_database: bool = True) -> ArgumentParser:
        command: ArgumentParser = commands.add_parser(
            name, help=help_text, description=help_text, allow_abbrev=False
        )
        if needs_database:
            add_database_options(command)
            command.add_argument(
                "--function",
                metavar="ID",
                default=FUNCTION_ID,
                help="the filter's id in Open WebUI (default: %(default)s)",
            )
        return command

    def add_user(command: ArgumentParser) -> None:
        command.add_argument("user", metavar="USER", help="e-mail address or id")
        command.add_argument(
            "--policies",
            metavar="FILE",
            help='a policies text to use in place of the valve; "-": standard input',
        )

    command = add("check", "check a policies text, offline", needs_database=False)
    command.add_argument("file", metavar="FILE", help='the text; "-": standard input')
    command.set_defaults(command=check)

    command = add("explain", "which policy counts for a user and a model, and why")
    add_user(command)
    command.add_argument("--model", metavar="M", required=True, help="the model's id")
    command.set_defaults(command=explain)

    command = add("show", "each limit of a user: used, reserved, remaining, reset")
    add_user(command)
    command.add_argument("--format", choices=("table", "json"), default="table")
    command.set_defaults(command=show)

    command = add("sweep", "settle now what stopped servers left open")
    command.set_defaults(command=sweep)

    command = add("rebuild", "make the counters anew from the records, and say what changed")
    command.set_defaults(command=rebuild)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    parsed = make_parser().parse_args(arguments)
    return run(partial(parsed.command, parsed))


if __name__ == "__main__":
    raise SystemExit(main())
