"""Usage limits for Open WebUI: install the filter, see what is used, change limits.

usage-limits install --url https://chat.example.org --global   install or update the filter
usage-limits audit --url https://chat.example.org              what gets past it
usage-limits report --by user,model                            who used how much
usage-limits check policies.toml                               is a policies text right
usage-limits limits show ann@example.org                       where a user's limits stand

`usage-limits COMMAND --help` says more, `usage-limits limits --help` lists what else there is for
users and pools. In a checkout `python -m scripts.command` is the same.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from scripts.install import command as install
from scripts.install.plan import MANIFEST
from scripts.limits import command as limits
from scripts.report import command as report

Command = Callable[[Sequence[str]], int]
COMMANDS: dict[str, tuple[Command, tuple[str, ...]]] = {
    "install": (install.main, ()),
    "audit": (install.main, ("audit",)),
    "report": (report.main, ()),
    "check": (limits.main, ("check",)),
    "limits": (limits.main, ()),
}


def make_parser() -> argparse.ArgumentParser:
    """The parser of the first word; each command reads the others itself."""
    parser = argparse.ArgumentParser(
        prog="usage-limits",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s COMMAND …",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=MANIFEST["version"])
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=", ".join(COMMANDS))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = make_parser().parse_args(given[:1]).command
    run, first = COMMANDS[name]
    return run([*first, *given[1:]])


if __name__ == "__main__":
    sys.exit(main())
