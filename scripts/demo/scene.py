"""The demo's scene: a real Open WebUI with the filter, a scripted model, people and groups."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scripts.openwebui.admin import OpenWebUIAdmin
from scripts.openwebui.client import OpenWebUIClient
from scripts.openwebui.server import OpenWebUIServer
from scripts.provider.server import FakeProvider

ROOT = Path(__file__).resolve().parents[2]
MANIFEST: Mapping[str, str] = json.loads((ROOT / "manifest.json").read_text("utf-8"))
FUNCTION_ID = MANIFEST["id"]
FUNCTION_FILE = ROOT / "filter_usage_limits.py"

SMALL, LARGE = "demo-small", "demo-large"
# The fake provider has no sensible titles to give, so the chats get none.
SETTINGS = {
    "DEFAULT_MODELS": SMALL,
    "ENABLE_FOLLOW_UP_GENERATION": "false",
    "ENABLE_TAGS_GENERATION": "false",
    "ENABLE_TITLE_GENERATION": "false",
}
STUDENT_TOKENS = 2_000
POLICIES = f"""\
[group.Students]
priority = 20
limits = ["{STUDENT_TOKENS:,} tokens/day", "2 requests/hour on {LARGE}"]

[group."Research Lab"]
priority = 10
limits = ["1M tokens/month", "60 requests/hour"]
"""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question, what the fake model answers, and the tokens that it reports for both."""

    question: str
    answer: str
    input_tokens: int
    output_tokens: int

    @property
    def tokens(self) -> int:
        """What a limit on tokens counts."""
        return self.input_tokens + self.output_tokens


FIRST = Exchange(
    "What is photosynthesis?",
    "Plants make sugar from water, carbon dioxide and light. It happens in the chloroplasts of "
    "their leaves, and the oxygen that we breathe is what is left over.",
    60,
    840,
)
SECOND = Exchange(
    "And why are leaves green?",
    "Chlorophyll takes in red and blue light and has little use for green, so green is what the "
    "leaf sends back to your eye.",
    90,
    710,
)
THIRD = Exchange(
    "Why do they turn red in autumn?",
    "The tree takes the chlorophyll apart to save what is in it. Other pigments, which were there "
    "all along or are made just then, come to show.",
    110,
    210,
)
FOURTH = Exchange("What do trees do in winter?", "They rest.", 130, 20)
BY_PROGRAM = Exchange("Translate “leaf” into French.", "Feuille.", 30, 10)
BY_RESEARCHER = Exchange(
    "Compare C3 and C4 plants.",
    "C4 plants gather carbon dioxide before they fix it, which pays off in heat and drought. "
    "C3 plants do without, and do well where it is cool and wet.",
    70,
    930,
)
BY_ADMIN = Exchange("Is the model up?", "It is.", 20, 10)
EXCHANGES = (FIRST, SECOND, THIRD, FOURTH, BY_PROGRAM, BY_RESEARCHER, BY_ADMIN)
# For whatever the reader asks in the browser.
ANYTHING = Exchange(
    "",
    "I stand in for a language model and answer everything with this sentence; I report 400 "
    "tokens for it.",
    100,
    300,
)


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that the demo talks to."""

    provider: FakeProvider
    server: OpenWebUIServer
    admin: OpenWebUIAdmin
    student: OpenWebUIClient
    researcher: OpenWebUIClient  # a member of both groups

    @property
    def people(self) -> tuple[OpenWebUIClient, ...]:
        """All accounts."""
        return self.admin, self.student, self.researcher


def calm_timezone(now: datetime) -> str:
    """A time zone whose day doesn't end in the middle of the demo."""
    return "UTC" if now.astimezone(UTC).hour < 23 else "Asia/Tokyo"


def script_model(provider: FakeProvider) -> None:
    """Tell the fake provider what to answer, word by word as a real one does."""
    for exchange in (*EXCHANGES, ANYTHING):
        provider.script(
            contains=exchange.question,
            reply=exchange.answer,
            prompt=exchange.input_tokens,
            tokens=exchange.output_tokens,
            chunks=len(exchange.answer.split()),
            delay=0.05,
        )


def install_filter(admin: OpenWebUIAdmin, **valves: Any) -> None:
    """Paste the file, switch it on for all models, and fill in the valves."""
    source = FUNCTION_FILE.read_text(encoding="utf-8")
    admin.install_function(FUNCTION_ID, source, name=MANIFEST["title"])
    admin.switch_function(FUNCTION_ID, active=True, everywhere=True)
    admin.set_valves(FUNCTION_ID, valves)


@contextmanager
def set_scene(
    say: Callable[[str], None], *, data_dir: Path | None = None, port: int | None = None
) -> Iterator[Scene]:
    """Start everything and tell `say` what comes next; stop everything at the end."""
    with FakeProvider((SMALL, LARGE)) as provider:
        script_model(provider)
        server = OpenWebUIServer(provider.url, data_dir=data_dir, port=port, env=SETTINGS)
        say("Starting a real Open WebUI with an empty database: about 20 seconds …")
        with server:
            say(f"It answers at {server.url} after {server.seconds_to_start:.0f} s.")
            admin = OpenWebUIAdmin.sign_up(server.url)
            admin.publish_models()
            student = admin.add_user("Sam Student", "sam@example.org")
            researcher = admin.add_user("Rita Researcher", "rita@example.org")
            admin.add_to_group(admin.create_group("Students"), [student.id, researcher.id])
            admin.add_to_group(admin.create_group("Research Lab"), [researcher.id])
            install_filter(admin, policies=POLICIES, timezone=calm_timezone(datetime.now(UTC)))
            scene = Scene(provider, server, admin, student, researcher)
            try:
                yield scene
            finally:
                for person in scene.people:
                    person.close()
