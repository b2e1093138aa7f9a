"""Wording: what one language has to say, and the rules that tell its plural forms apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from helpers.limits.limit import SOURCES
from helpers.limits.periods import CALENDAR_PERIODS, MOMENTS

# The order in which a language lists its words.
COUNTED_THINGS = ("tokens", "input_tokens", "output_tokens", "requests", "responses")
PERIOD_NAMES = CALENDAR_PERIODS
MOMENT_NAMES = tuple(MOMENTS)
ROLLING_UNITS_SAID = ("second", "minute", "hour", "day")
PAGE_WORDS = (
    *("title", "limit", "used", "reserved", "left", "resets", "reached", "shared", "no_limits"),
    *("exempt", "by_day", "day", "by_model", "model", "requests", "input", "output", "tokens"),
    *("cost", "total", "replies", "time", "estimated", "running", "grants", "amount", "reason"),
    *("until", "nothing", "show_all", "refresh", "back", "sign_in", "failed"),
    "today_by_model",
)
# Around a name or an amount in a right-to-left sentence (or a right-to-left name in any other),
# so that neither turns the other around: first strong isolate, pop directional isolate.
ISOLATED = "\u2068{}\u2069"
# Around a right-to-left sentence, which Open WebUI shows among left-to-right ones.
RIGHT_TO_LEFT = "\u2067{}\u2069"


@dataclass(frozen=True, slots=True)
class PluralRule:
    """Unicode's plural categories of a language, and which one a whole number takes."""

    categories: tuple[str, ...]
    pick: Callable[[int], int]


def pick_slavic(count: int) -> int:
    """Russian and Ukrainian: 1, 21; 2 to 4, 22; the rest."""
    if count % 10 == 1 and count % 100 != 11:
        return 0
    return 1 if 2 <= count % 10 <= 4 and not 12 <= count % 100 <= 14 else 2


def pick_polish(count: int) -> int:
    """Polish: 1 alone; 2 to 4, 22; the rest, 21 too."""
    return 0 if count == 1 else pick_slavic(count) or 2


def pick_arabic(count: int) -> int:
    """Arabic: 0, 1, 2, then 3 to 10 and 11 to 99 of each hundred, and whole hundreds."""
    if count < 3:
        return count
    return 3 if 3 <= count % 100 <= 10 else 4 if count % 100 >= 11 else 5


# By the name that a language's file gives them.
PLURAL_RULES: Mapping[str, PluralRule] = {
    "alike": PluralRule(("other",), lambda count: 0),
    "one or other": PluralRule(("one", "other"), lambda count: int(count != 1)),
    "below two or other": PluralRule(("one", "other"), lambda count: int(count > 1)),
    "Hebrew": PluralRule(("one", "two", "other"), lambda count: {1: 0, 2: 1}.get(count, 2)),
    "Slavic": PluralRule(("one", "few", "many"), pick_slavic),
    "Polish": PluralRule(("one", "few", "many"), pick_polish),
    "Arabic": PluralRule(("zero", "one", "two", "few", "many", "other"), pick_arabic),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """How one language says what users read.

    A language's file states these fields as `read_language` reads them, and only those that
    differ from what stands here. Words are listed with ", " between them and "|" between the
    plural forms of one, which come in the order of the rule's categories; where the last ones are
    alike they are said once.
    A pair "a|b" without a number is for the user's own limit and for one that is shared. A
    sentence begins with a capital by itself. Fields: ``quantity`` (an amount with its unit),
    ``what`` (quantity, period and model), ``owner`` (whose limit), ``named`` (the policy or pool
    in brackets, or nothing), ``at`` (when, with its preposition), ``within``, ``left``, ``n``.
    """

    tag: str
    name: str  # as its speakers say it
    plural: PluralRule = PLURAL_RULES["one or other"]
    right_to_left: bool = False
    # Numbers
    thousands: str = ","
    decimal: str = "."
    grouped_from: int = 1_000  # some languages write 1000, but 10.000
    money: str = "${amount}"
    less_than: str
    percent: str = "{n}%"
    counted: str = "{amount} {unit}"  # by plural category where the number isn't always said
    units: str
    # Periods
    periods: str
    moments: str
    rolling: str
    rolling_units: str
    # Times
    durations: str = "d h min s"
    duration: str = "{n} {unit}"
    clock: str = "{clock}"
    date: str = "{day} {month}"
    first_day: str = "1"
    months: str = ""  # none where a month is its number
    moment: str = "{date}, {time}"
    at: str
    tomorrow: str
    on_date: str
    hour_one: str = ""  # a preposition, and what it becomes before one o'clock
    # Whose limit, and of what
    owner: str
    what: str = "{quantity} {period}{on}"
    on: str
    sources: str
    via: str = " {source}"
    named: str = " ({policy})"
    # Sentences
    reached: str
    held: str
    stopped: str
    no_model: str
    no_models: str
    no_paid: str
    per_request: str
    at_once: str
    resets: str
    opens: str
    within: str  # after `at`, where that is today or tomorrow
    warning: str
    left: str = "{n}"
    label: str
    reached_label: str
    status: str
    share: str = " ({percent})"
    status_reset: str
    cap: str
    ledger_error: str
    # Each user's own setting: its title, what it is for, and its options
    show_usage: str
    page: str  # the words of the usage page

    def form(self, forms: str, count: int) -> str:
        """The plural form of a word, or of a phrase, that goes with a number."""
        listed = forms.split("|")
        return listed[min(self.plural.pick(count), len(listed) - 1)]

    def unit(self, thing: str, count: int) -> str:
        """The word for what is counted, in the form for this many."""
        return self.form(self.units.split(", ")[COUNTED_THINGS.index(thing)], count)

    def rolling_unit(self, unit: str, count: int) -> str:
        """A unit of time in the form for this many, as a rolling period needs it."""
        return self.form(self.rolling_units.split(", ")[ROLLING_UNITS_SAID.index(unit)], count)

    def period(self, name: str) -> str:
        """A calendar period or a moment: ``per day``, ``per request``, ``at once``."""
        if name in MOMENT_NAMES:
            return self.moments.split(", ")[MOMENT_NAMES.index(name)]
        return self.periods.split(", ")[PERIOD_NAMES.index(name)]

    def page_words(self) -> dict[str, str]:
        """The words of the usage page and of the answer to ``/usage``, by name."""
        return dict(zip(PAGE_WORDS, self.page.split("|"), strict=True))

    def source(self, name: str) -> str:
        """Where requests come from: ``via the API``."""
        return self.sources.split(", ")[SOURCES.index(name)]


FIELDS_OTHER_THAN_TEXT: Mapping[str, Callable[[str], object]] = {
    "plural": PLURAL_RULES.__getitem__,
    "grouped_from": int,
    "right_to_left": bool,
}


def read_language(text: str, base: Language | None = None) -> Language:
    """A language from its file: ``field: value``, on lines of their own or with " · " between.

    A longer value goes on in the next line. "_" is a blank, where a value begins or ends with
    one. What isn't stated is as in `base`, or as `Language` has it.

    Raises:
        TypeError: A field is unknown, or one is missing that each language has to state.
        KeyError: There is no such plural rule.
    """
    stated: dict[str, Any] = {}
    for entry in re.split(r" · |\n(?=\w+:)", text.strip()):
        field, _, value = entry.partition(":")
        value = " ".join(value.split("\n  ")).replace("| ", "|")
        stated[field] = value.strip(" ").replace("_", " ")
    for field, read in FIELDS_OTHER_THAN_TEXT.items():
        if field in stated:
            stated[field] = read(stated[field])
    return replace(base, **stated) if base else Language(**stated)
