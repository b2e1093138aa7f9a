"""Shows the filter at work in a real Open WebUI, with a fake model provider.

python -m scripts.demo              a chat until the limit, then the server is yours to try
python -m scripts.demo --check      the same; fails if anything is wrong, and leaves nothing running
"""

from __future__ import annotations

import argparse
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from rich.console import Console

from scripts.demo.scene import set_scene
from scripts.demo.screen import WIDTH, Screen
from scripts.demo.story import Demo
from scripts.demo.totals import LedgerReader
from scripts.openwebui.client import HostError
from scripts.openwebui.server import ServerDied


def run(screen: Screen, *, check: bool, port: int | None, keep: Path | None) -> int:
    """Play the demo; the exit code."""
    with set_scene(screen.say, data_dir=keep, port=port) as scene:
        with closing(LedgerReader(scene.server.database_url)) as ledger:
            demo = Demo(scene, screen, ledger)
            demo.play()
        screen.show_problems(demo.problems, scene.server.log())
        if not check:
            screen.show_way_in(scene, demo.api_key)
            wait_for_interrupt(screen)
    return 1 if demo.problems else 0


def wait_for_interrupt(screen: Screen) -> None:
    """Leave the server to the reader."""
    screen.say("\nIt runs until you press Ctrl-C.")
    try:
        signal.pause()
    except KeyboardInterrupt:
        screen.say("\nStopping …")


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line, with errors in it refused."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.demo", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--check", action="store_true", help="test it, and leave nothing running")
    parser.add_argument("--port", type=int, help="Open WebUI's port (default: a free one)")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="a new directory for its data, which is kept"
    )
    options = parser.parse_args(arguments)
    if options.keep and options.keep.exists() and any(options.keep.iterdir()):
        parser.error(f"--keep {options.keep}: not empty; give a new directory")
    if options.port:
        with socket.socket() as probe:
            if not probe.connect_ex(("127.0.0.1", options.port)):
                parser.error(f"--port {options.port}: something answers there already")
    return options


def end_on_terminate(*_: object) -> None:
    """Treat a kill as Ctrl-C, so that nothing is left running."""
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    options = parse_arguments(arguments)
    signal.signal(signal.SIGTERM, end_on_terminate)
    console = Console()
    screen = Screen(Console(width=min(WIDTH, console.width)))
    keep = options.keep.resolve() if options.keep else None
    try:
        return run(screen, check=options.check, port=options.port, keep=keep)
    except KeyboardInterrupt:
        screen.say("Stopped.")
        return 130
    except (ServerDied, HostError, TimeoutError) as error:
        print(f"The demo failed: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
