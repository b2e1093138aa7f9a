"""How the demo looks in a terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.box import ROUNDED
from rich.console import Console, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from scripts.demo.scene import POLICIES, SMALL, STUDENT_TOKENS, Scene
from scripts.demo.totals import Totals
from scripts.openwebui.client import PASSWORD

WIDTH = 96
LABEL_WIDTH = 13
LOG_LINES_WORTH_SHOWING = 30


@dataclass(slots=True)
class Step:
    """One exchange, as its user sees it."""

    title: str
    speaker: str
    question: str
    answer: str = ""
    toasts: Sequence[str] = ()
    status_lines: Sequence[str] = ()
    refusal: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    used: int | None = None  # of the student's day, after this exchange
    note: str = ""


class Screen:
    """Prints the demo, step by step."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._steps = 0

    def say(self, text: str) -> None:
        """A line between the steps."""
        self.console.print(text, highlight=False)

    def show_policies(self) -> None:
        """What the administrator has set."""
        text = Syntax(POLICIES.rstrip(), "toml", theme="ansi_dark", background_color="default")
        self.console.print(
            Panel(
                text, title="The administrator's policies", title_align="left", border_style="dim"
            )
        )
        self.say(
            "Sam is a member of Students. Rita is a member of both groups; the lower priority "
            "number counts.\nThe model is a fake: what it answers, and how many tokens it "
            "reports, is written in scripts/demo/scene.py.\n"
        )

    def show(self, step: Step) -> None:
        """One exchange."""
        self._steps += 1
        rows = Table.grid(padding=(0, 1, 0, 0))
        rows.add_column(width=LABEL_WIDTH, justify="right", style="dim", no_wrap=True)
        rows.add_column()
        rows.add_row(step.speaker, Text(step.question, style="bold"))
        for toast in step.toasts:
            rows.add_row("warning toast", Text(toast, style="black on yellow"))
        for line in step.status_lines:
            rows.add_row("status line", Text(line, style="italic"))
        if step.refusal:
            rows.add_row("refused", Text(step.refusal, style="bold red"))
        for name, value in step.headers.items():
            rows.add_row(name, Text(value, style="red"))
        if step.answer:
            rows.add_row(SMALL, Text(step.answer))
        if step.note:
            rows.add_row("", Text(step.note, style="dim"))
        if step.used is not None:
            rows.add_row("Sam's day", self._gauge(step.used))
        self.console.print(
            Panel(
                rows,
                title=f"{self._steps} · {step.title}",
                title_align="left",
                box=ROUNDED,
                border_style="red" if step.refusal else "yellow" if step.toasts else "green",
            )
        )

    def show_totals(self, scene: Scene, ledger: Mapping[str, Totals], provider: Totals) -> None:
        """The ledger, user by user, and the provider's call log beneath it."""
        table = Table(
            box=ROUNDED, title="The ledger, and the provider's call log", title_justify="left"
        )
        table.add_column("")
        for heading in ("Requests", "Input tokens", "Output tokens", "Total"):
            table.add_column(heading, justify="right")
        for person in scene.people:
            totals = ledger.get(person.account.email, Totals())
            table.add_row(person.account.name, *_cells(totals))
        table.add_section()
        table.add_row("Ledger", *_cells(sum(ledger.values(), Totals())), style="bold")
        table.add_row("Provider's call log", *_cells(provider), style="bold")
        self.console.print(table)

    def show_problems(self, problems: Sequence[str], server_log: str) -> None:
        """What is not as it should be, with the end of the server's log; or that all is."""
        if not problems:
            self.console.print(
                "[green]Warned, refused, and every token on record: as it should be.[/]"
            )
        for problem in problems:
            self.console.print(Text(f"WRONG: {problem}", style="bold red"))
        if problems:
            tail = server_log.splitlines()[-LOG_LINES_WORTH_SHOWING:]
            self.console.print(Text("\n".join(["The server's log ends with:", *tail]), style="dim"))

    def show_way_in(self, scene: Scene, api_key: str) -> None:
        """Where to go on by hand."""
        logins = Table(box=ROUNDED, title="Open WebUI is yours to try", title_justify="left")
        for heading in ("E-mail", "Password", "Who"):
            logins.add_column(heading, no_wrap=True)
        who = ("administrator, exempt", "Students; used up", "Research Lab; plenty left")
        for person, role in zip(scene.people, who, strict=True):
            logins.add_row(person.account.email, PASSWORD, role)
        url = scene.server.url
        body = json.dumps({"model": SMALL, "messages": [{"role": "user", "content": "Hello"}]})
        self.console.print()
        self.console.print(logins)
        self.say(f"\n  [bold]{url}[/]")
        self.say(f"  {url}/admin/functions")
        self.say(
            "\nAs the administrator, open the second address; the gear opens the valves. "
            f"Raise the {STUDENT_TOKENS:,} in it, and Sam may go on."
        )
        self.say("\nThe same refusal for a program, with Sam's API key:")
        self.console.print(
            f"  curl -i {url}/api/chat/completions -H 'Authorization: Bearer {api_key}' \\\n"
            f"    -H 'Content-Type: application/json' -d '{body}'",
            highlight=False,
            soft_wrap=True,
            markup=False,
        )
        self.say("\nThe ledger as a report:")
        report = ".venv/bin/python -m scripts.report --by user,model"
        self.console.print(
            f"  {report} --database-url {scene.server.database_url}",
            highlight=False,
            soft_wrap=True,
            markup=False,
        )

    def _gauge(self, used: int) -> RenderableType:
        full = used >= STUDENT_TOKENS
        near = used * 100 >= STUDENT_TOKENS * 80
        colour = "red" if full else "yellow" if near else "green"
        gauge = Table.grid(padding=(0, 1, 0, 0))
        gauge.add_column(width=30)
        gauge.add_column()
        bar = ProgressBar(
            STUDENT_TOKENS,
            min(used, STUDENT_TOKENS),
            width=30,
            complete_style=colour,
            finished_style=colour,
        )
        share = f"{used:,} of {STUDENT_TOKENS:,} tokens"
        gauge.add_row(bar, Text(share, style=colour))
        return gauge


def _cells(totals: Totals) -> tuple[str, ...]:
    numbers = (totals.requests, totals.input_tokens, totals.output_tokens, totals.tokens)
    return tuple(f"{number:,}" for number in numbers)
