"""Installs or updates the filter in a running Open WebUI, through its REST API.

OPENWEBUI_API_KEY=sk-… usage-limits install --url https://chat.example.org --global
OPENWEBUI_API_KEY=sk-… usage-limits audit --url https://chat.example.org

The key is an administrator's for the first, an ordinary user's for the second. What is right
already stays as it is: a second run changes nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from scripts.install.audit import audit
from scripts.install.host import KEY_VARIABLE, InstallError, OpenWebUI, read_key
from scripts.install.plan import FUNCTION_FILE, MANIFEST, Wishes, check_policies, make_plan

FAILED = 1


def make_parser() -> argparse.ArgumentParser:
    """The options of the installer."""
    parser = argparse.ArgumentParser(
        prog="usage-limits install",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_url(parser)
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--models", nargs="+", metavar="ID", default=[], help="limit these models alone"
    )
    where.add_argument("--global", dest="everywhere", action="store_true", help="limit all models")
    parser.add_argument(
        "--policies", metavar="FILE", type=Path, help="put this text into the policies valve"
    )
    parser.add_argument(
        "--function",
        metavar="ID",
        default=MANIFEST["id"],
        help="the filter's id in Open WebUI (default: %(default)s)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be changed, and change nothing"
    )
    return parser


def add_url(parser: argparse.ArgumentParser) -> None:
    """The option that every command has."""
    parser.add_argument(
        "--url",
        required=True,
        help=f"where Open WebUI is; the key is read from {KEY_VARIABLE}",
    )


def install(options: argparse.Namespace) -> None:
    """Make the changes that are needed, and print each as one line.

    Raises:
        InstallError: It can't be done.
    """
    wishes = Wishes(
        options.function,
        read_text(FUNCTION_FILE),
        options.everywhere,
        options.models,
        None if options.policies is None else read_text(options.policies),
    )
    if wishes.policies is not None:
        check_policies(wishes.policies)
    with closing(OpenWebUI(options.url, read_key())) as host:
        plan = make_plan(host, wishes)
        for change in plan.changes:
            if not options.dry_run:
                change.make()
            print(change.announcement if options.dry_run else change, flush=True)
    if not plan.changes:
        print("Nothing needs changing.")
    for hint in plan.hints:
        print(hint)


def read_text(path: Path) -> str:
    """A text file.

    Raises:
        InstallError: It can't be read.
    """
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise InstallError(f"{path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InstallError(f"{path} is not UTF-8") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given[:1] == ["audit"]:
            return audit(given[1:])
        install(make_parser().parse_args(given))
    except InstallError as error:
        print(error, file=sys.stderr)
        return FAILED
    except BrokenPipeError:
        # The reader, `head` say, has seen enough; nothing more can be said there at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
