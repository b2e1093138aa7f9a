"""The demo's story: who asks what until the limit, and what has to come of it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from http import HTTPStatus

from scripts.demo.scene import (
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
)
from scripts.demo.screen import Screen, Step
from scripts.demo.totals import LedgerReader, Totals, sum_calls
from scripts.openwebui.client import OpenWebUIClient
from scripts.openwebui.page import Page, Turn

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
            share = f"{FIRST.tokens + SECOND.tokens:,} of {STUDENT_TOKENS:,} tokens per day"
            shown = any(share in line for line in second.reply.statuses)
            self._expect(shown, f"no status line says “{share}”")

            third = self._chat(
                page,
                THIRD,
                "Past 80% a warning comes, once a day",
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
        provider = sum_calls(self.scene.provider.call_log.calls())
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
        calls = self.scene.provider.call_log.calls(contains=exchange.question)
        self._expect(not calls, f"the model was called for “{exchange.question}”")
