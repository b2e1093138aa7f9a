"""Writes docs/languages.md: every sentence in every language, for native readers to correct.

python -m scripts.languages_table            write it
python -m scripts.languages_table --check    fail if it isn't current
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from helpers.limits.decisions import LimitState
from helpers.limits.limit import SOURCES, Limit, parse_limit
from helpers.limits.periods import Period, Window
from helpers.limits.policy import AppliedLimit
from helpers.openwebui.languages.catalog import LANGUAGES
from helpers.openwebui.messages import (
    Reader,
    at_once_sentence,
    cap_sentence,
    format_period,
    limit_sentence,
    per_request_sentence,
    status_line,
    stopped_sentence,
    warning_sentence,
)
from helpers.openwebui.wording import MOMENT_NAMES, PERIOD_NAMES, Language

TARGET = Path(__file__).resolve().parent.parent / "docs" / "languages.md"
NOW = datetime(2026, 1, 15, 17, 48, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")
COUNTS = (0, 1, 2, 5, 21, 50_000)


def example(
    text: str,
    used: int,
    reserved: int = 0,
    days: int = 0,
    minutes: int = 312,
    scope: str = "user:u",
) -> LimitState:
    """A limit of the group Students, or of the pool Everyone, and where it stands."""
    pooled = not scope.startswith("user:")
    name = "Everyone" if pooled else "Students"
    applied = AppliedLimit(parse_limit(text), scope, Window(NOW, NOW), name)
    return LimitState(applied, used, reserved, NOW + timedelta(days=days, minutes=minutes))


def sentences(language: Language) -> Mapping[str, str]:
    """Every sentence of a language, by the occasion on which it is read."""
    reader = Reader(BERLIN, language)
    own = replace(reader, zone_is_own=True)
    day, rolling = example("50k tokens/day", 50_000), example("30 requests/5h", 30, minutes=72)
    month = example("$20/month on gpt-4*", 20_000_000, days=16)
    shared = example("85M tokens/month", 85_000_000, days=16, scope="everyone")
    some, few = example("50k tokens/day", 42_000), example("30 requests/5h", 29)
    cent = example("$20/month", 19_995_000)
    shared_some = replace(shared, used=70_000_000)
    held = example("50k output tokens/day", 30_000, 20_000)
    nothing = example("0 tokens/day on gpt-4*", 0)
    api = example("10k tokens/day via api", 10_000)
    no_api = example("0 tokens/day via api", 0)
    pool = example("30 requests at once", 0, 30, scope="everyone")
    return {
        "The limit is reached": limit_sentence("", day, NOW, own, ""),
        "… with a reset on a date": limit_sentence("", month, NOW, reader, ""),
        "… of a rolling period": limit_sentence("", rolling, NOW, reader, ""),
        "… of a pool": limit_sentence("", shared, NOW, reader, ""),
        "Running responses hold the rest": limit_sentence("", held, NOW, reader, ""),
        "… of the API": limit_sentence("", api, NOW, own, ""),
        "No model is allowed there": limit_sentence("", no_api, NOW, own, ""),
        "A model isn't allowed": limit_sentence("", nothing, NOW, reader, ""),
        "No model is allowed": limit_sentence("", example("0 tokens/day", 0), NOW, reader, ""),
        "No paid model is": limit_sentence("", example("$0/day", 0), NOW, reader, ""),
        "A response was stopped": stopped_sentence(day, NOW, reader),
        "A warning": warning_sentence("", some, NOW, own, ""),
        "… with little left": warning_sentence("", few, NOW, reader, ""),
        "… with less than a cent left": warning_sentence("", cent, NOW, reader, ""),
        "… about a pool": warning_sentence("", shared_some, NOW, reader, ""),
        "Over a response": status_line(some, NOW, own),
        "… over a response, of a pool": status_line(shared_some, NOW, reader),
        "… at the limit": status_line(day, NOW, reader),
        "… at the limit of a pool": status_line(shared, NOW, reader),
        "A response may be this long": cap_sentence(2_000, language),
        "A request is too long": per_request_sentence(
            Limit(4_000, "tokens", Period("day"), "gpt-4*"), reader, "Students"
        ),
        "One response is running": at_once_sentence(1, language),
        "Three are running": at_once_sentence(3, language),
        "All that may run in a pool are": limit_sentence("", pool, NOW, own, ""),
        "The ledger is out of reach": language.ledger_error,
        "The user's own setting": " · ".join(language.show_usage.split("|")),
    }


def words(language: Language) -> Mapping[str, str]:
    """The words that sentences are made of, in every plural form and period."""
    things = ("tokens", "input_tokens", "output_tokens", "requests", "responses")
    forms = {
        f"{thing.replace('_', ' ')} ({', '.join(map(str, COUNTS))})": " · ".join(
            language.unit(thing, count) for count in COUNTS
        )
        for thing in things
    }
    calendar = [Period(name) for name in PERIOD_NAMES]
    rolling = [parse_limit(f"1 token/{text}").period for text in ("1m", "90m", "5h", "2d", "30d")]
    moments = [Period(name) for name in MOMENT_NAMES]
    periods = {
        title: " · ".join(format_period(Limit(1, "tokens", one), language) for one in group)
        for title, group in (
            ("periods", calendar),
            ("rolling periods", rolling),
            ("moments", moments),
        )
    }
    more = {"sources": " · ".join(map(language.source, SOURCES))}
    more["the usage page"] = " · ".join(language.page_words().values())
    return forms | periods | more


def table(rows: Mapping[str, str]) -> list[str]:
    """A table in Markdown; what reads from the right says so itself."""
    return ["| | |", "|---|---|", *(f"| {name.strip()} | {text} |" for name, text in rows.items())]


def document() -> str:
    """The whole page."""
    lines = [
        "# Languages",
        "",
        "What users read, in every language, with examples. Made by `python -m "
        "scripts.languages_table`; the words",
        "are in `helpers/openwebui/languages/`, a file for each language. Corrections by native "
        "readers are welcome:",
        "name the language, the sentence as it stands and as it should be.",
        "",
        "The group is called Students, the pool Everyone; it is 15 January 2026, 18:48 in Berlin.",
        "A reader whose own time zone Open WebUI doesn't know sees the zone beside each time.",
    ]
    for language in LANGUAGES.values():
        lines += ["", f"## {language.name} (`{language.tag}`)", ""]
        lines += [*table(sentences(language)), "", *table(words(language))]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write or check the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="fail if the page isn't current")
    arguments = parser.parse_args()
    text = document()
    if not arguments.check:
        TARGET.write_text(text, encoding="utf-8")
        print(f"{TARGET.name}: {len(LANGUAGES)} languages")
        return 0
    if TARGET.exists() and TARGET.read_text(encoding="utf-8") == text:
        return 0
    print(f"{TARGET.name} is not current. Run: python -m scripts.languages_table", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
