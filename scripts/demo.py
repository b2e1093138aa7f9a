"""Shows the filter at work in a real Open WebUI, with a stand-in for the model provider.

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
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path

from rich.console import Console

from scripts.demo_books import LedgerReader, Totals, sum_calls
from scripts.demo_scene import (
    BY_ADMIN,
    BY_PROGRAM,
    BY_RESEARCHER,
    FIRST,
    FOURTH,
    SECOND,
    SMALL,
    STUDENT_TOKENS,
    THIRD,
    Exchange,
    Scene,
    set_scene,
)
from scripts.demo_screen import WIDTH, Screen, Step
from scripts.open_webui_client import HostError, OpenWebUIClient
from scripts.open_webui_server import ServerDied
from scripts.page_client import Page, Turn

SECONDS_PER_DAY = 86_400


class Demo:
    """Plays the story, shows it, and notes what isn't as it should be."""

    def __init__(self, scene: Scene, screen: Screen, ledger: LedgerReader) -> None:
        self.scene = scene
        self.screen = screen
        self.ledger = ledger
        self.api_key = scene.student.api_key()
        self.problems: list[str] = []

    def play(self) -> None:
        """The whole story."""
        self.screen.show_policies()
        self.chat_until_refused()
        self.call_as_program()
        self.ask_as_others()
        self.compare_books()

    def chat_until_refused(self) -> None:
        """Sam chats in the page: well, near the limit, warned, refused."""
        with Page(self.scene.student) as page:
            first = self._chat(page, FIRST, "Sam chats; far from the limit nothing is shown")
            self._expect(not first.reply.notifications, "a warning came far from the limit")
            self._expect(not first.reply.statuses, "a status line came far from the limit")

            second = self._chat(page, SECOND, "Near the limit a status line comes", first)
            share = f"{FIRST.tokens + SECOND.tokens:,} of today's {STUDENT_TOKENS:,} tokens"
            shown = any(share in line for line in second.reply.statuses)
            self._expect(shown, f"no status line says “{share}”")

            third = self._chat(
                page,
                THIRD,
                "Past 80 % a warning comes, once a day",
                second,
                "It began below the limit: it is let finish, and booked in full.",
            )
            toasts = third.reply.notifications
            self._expect(len(toasts) == 1, f"{len(toasts)} toasts at the soft limit, not one")
            for kind, sentence in toasts:
                warned = kind == "warning" and f"{STUDENT_TOKENS:,} tokens" in sentence
                self._expect(warned, f"the toast is no warning of the limit: {kind}: {sentence}")
                told = sentence in third.reply.statuses
                self._expect(told, "the warning is in no status line")

            fourth = self._chat(
                page, FOURTH, "Over the limit Sam is refused", third, "No model was called."
            )
            self._expect_refusal(fourth.reply.error or "", "the chat page")
            self._expect(not fourth.reply.text, "a refused chat has a reply")
            self._expect_no_call(FOURTH)
            title = {"chat": {"title": "Plants"}}
            self.scene.student.post(f"/api/v1/chats/{first.chat_id}", title)

    def call_as_program(self) -> None:
        """A program with Sam's account gets the same refusal, as status 429."""
        account = replace(self.scene.student.account, token=self.api_key)
        with closing(OpenWebUIClient(self.scene.server.url, account)) as program:
            reply = program.chat(BY_PROGRAM.question, model=SMALL)
        wait = reply.headers.get("retry-after", "")
        self.screen.show(
            Step(
                "A program with Sam's API key is refused as well",
                "POST",
                f"/api/chat/completions: {BY_PROGRAM.question}",
                refusal=reply.error,
                headers={
                    "status": f"{reply.status} {HTTPStatus(reply.status).phrase}",
                    "Retry-After": wait or "none",
                },
                note="No model was called.",
            )
        )
        self._expect(reply.status == 429, f"the API answered {reply.status}, not 429")
        in_time = wait.isdigit() and 0 < int(wait) <= SECONDS_PER_DAY
        self._expect(
            in_time, f"Retry-After is {wait or 'missing'}, not the seconds of a day's rest"
        )
        self._expect_refusal(reply.error, "the API")
        self._expect_no_call(BY_PROGRAM)

    def ask_as_others(self) -> None:
        """Whoever has a larger limit, or none, goes on."""
        others = (
            (self.scene.researcher, BY_RESEARCHER, "Rita is in both groups: Research Lab counts"),
            (self.scene.admin, BY_ADMIN, "The administrator is on record, and never refused"),
        )
        for person, exchange, title in others:
            first_name = person.account.name.split()[0]
            with Page(person) as page:
                reply = page.send(exchange.question, models=(SMALL,)).reply
            self.screen.show(Step(title, first_name, exchange.question, reply.text))
            answered = reply.text.strip() == exchange.answer
            self._expect(answered, f"{first_name} got no answer: {reply.error or reply.text!r}")

    def compare_books(self) -> None:
        """The ledger must have what the provider has, user by user."""
        ledger = self.ledger.totals()
        provider = sum_calls(self.scene.provider.books.calls())
        self.screen.show_totals(self.scene, ledger, provider)
        everyone = sum(ledger.values(), Totals())
        self._expect(everyone == provider, f"ledger {everyone}, but provider {provider}")
        told = ((FIRST, SECOND, THIRD), (BY_RESEARCHER,), (BY_ADMIN,))
        people = (self.scene.student, self.scene.researcher, self.scene.admin)
        for person, exchanges in zip(people, told, strict=True):
            right = Totals(
                len(exchanges),
                sum(each.input_tokens for each in exchanges),
                sum(each.output_tokens for each in exchanges),
            )
            found = ledger.get(person.account.email)
            self._expect(
                found == right, f"{person.account.name}: {found} in the ledger, not {right}"
            )

    def _chat(
        self,
        page: Page,
        exchange: Exchange,
        title: str,
        after: Turn | None = None,
        note: str = "",
    ) -> Turn:
        turn = page.send(exchange.question, models=(SMALL,), after=after)
        reply = turn.reply
        used = self.ledger.totals().get(self.scene.student.account.email, Totals())
        self.screen.show(
            Step(
                title,
                "Sam",
                exchange.question,
                reply.text,
                [sentence for _, sentence in reply.notifications],
                reply.statuses,
                reply.error or "",
                used=used.tokens,
                note=note,
            )
        )
        return turn

    def _expect(self, true: bool, otherwise: str) -> None:
        if not true:
            self.problems.append(otherwise)

    def _expect_refusal(self, sentence: str, where: str) -> None:
        clear = f"{STUDENT_TOKENS:,} tokens" in sentence and "Students" in sentence
        self._expect(clear, f"{where} doesn't name the limit when it refuses: {sentence!r}")

    def _expect_no_call(self, exchange: Exchange) -> None:
        calls = self.scene.provider.books.calls(contains=exchange.question)
        self._expect(not calls, f"the model was called for “{exchange.question}”")


def run(screen: Screen, *, check: bool, port: int | None, keep: Path | None) -> int:
    """Play the demo; the exit code."""
    with set_scene(screen.say, data_dir=keep, port=port) as scene:
        with closing(LedgerReader(scene.server.database_url)) as ledger:
            demo = Demo(scene, screen, ledger)
            demo.play()
        screen.show_problems(demo.problems)
        if demo.problems:
            screen.say(
                "\n".join(["The server's log ends with:", *scene.server.log().splitlines()[-30:]])
            )
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
    """The command line, with mistakes in it refused."""
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
