"""The administrator's hand on the ledger: check, explain, show, grant, reset, put right."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from scripts.limits.backfill import backfill
from scripts.limits.check import check
from scripts.limits.console import ArgumentParser, run
from scripts.limits.database import add_database_options
from scripts.limits.explain import explain
from scripts.limits.forget import forget
from scripts.limits.function import FUNCTION_ID
from scripts.limits.grant import grant, revoke
from scripts.limits.repair import rebuild, sweep
from scripts.limits.reset import reset
from scripts.limits.show import show


def make_parser() -> ArgumentParser:
    """The commands and their options."""
    parser = ArgumentParser(prog="usage-limits limits", description=__doc__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, help_text: str) -> ArgumentParser:
        command: ArgumentParser = commands.add_parser(
            name, help=help_text, description=help_text, allow_abbrev=False
        )
        add_database_options(command)
        command.add_argument(
            "--function",
            metavar="ID",
            default=FUNCTION_ID,
            help="the filter's id in Open WebUI (default: %(default)s)",
        )
        return command

    def add_policies(command: ArgumentParser) -> None:
        command.add_argument(
            "--policies",
            metavar="FILE",
            help='a policies text to use in place of the valve; "-": standard input',
        )

    def add_user(command: ArgumentParser, *, or_pool: bool = False) -> None:
        help_text = "e-mail address or id" + (", or pool:NAME" if or_pool else "")
        command.add_argument("user", metavar="USER", help=help_text)
        add_policies(command)

    def add_who_and_why(command: ArgumentParser) -> None:
        command.add_argument("--reason", metavar="TEXT", default="", help="why, for the record")
        command.add_argument("--by", metavar="NAME", help="who (default: the login name)")

    command = add(
        "check", "check a policies text, offline; with a database also whether all it names exist"
    )
    command.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        help='the text; "-": standard input (default: what is saved in the valve)',
    )
    command.set_defaults(command=check)

    command = add("explain", "which policy counts for a user and a model, and why")
    add_user(command)
    command.add_argument("--model", metavar="M", required=True, help="the model's id")
    command.set_defaults(command=explain)

    command = add("show", "each limit of a user, or of all: used, reserved, remaining, reset")
    command.add_argument("user", metavar="USER", nargs="?", help="e-mail address or id")
    command.add_argument("--all", action="store_true", help="all users and pools")
    command.add_argument("--near", action="store_true", help="those near or over a limit")
    add_policies(command)
    command.add_argument("--format", choices=("table", "json"), default="table")
    command.set_defaults(command=show)

    command = add("grant", "add to one limit until its window ends")
    add_user(command, or_pool=True)
    command.add_argument(
        "amount", metavar="AMOUNT", help='how much of which limit, such as "50k tokens/day"'
    )
    add_who_and_why(command)
    command.set_defaults(command=grant)

    command = add("revoke", "take a grant or a reset back")
    command.add_argument("id", metavar="ID", help="as `show USER` lists it")
    add_who_and_why(command)
    command.set_defaults(command=revoke)

    command = add("reset", "let limits start anew, as if nothing had been used yet")
    add_user(command, or_pool=True)
    command.add_argument(
        "limit", metavar="LIMIT", nargs="*", help="which, as the policies say it (default: all)"
    )
    add_who_and_why(command)
    command.set_defaults(command=reset)

    command = add("backfill", "count what Open WebUI had recorded before the filter was there")
    add_policies(command)
    command.add_argument(
        "--since",
        metavar="WHEN",
        help="from when on (default: where the longest window that is open now begins)",
    )
    command.add_argument("--dry-run", action="store_true", help="only show what would be counted")
    command.set_defaults(command=backfill)

    command = add("forget", "take a person out of the ledger; all sums stay")
    command.add_argument(
        "user", metavar="USER", help="e-mail address or id; of a deleted account, too"
    )
    command.set_defaults(command=forget)

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
