"""One limit in its notation, such as "50k tokens/day on gpt-4* warn 70% 90%".

The notation, with blanks around "/" as one likes and keywords in any case:

    AMOUNT UNIT / PERIOD [on MODEL-GLOB] [via SOURCE] [warn N% ...]
    AMOUNT UNIT / request [on MODEL-GLOB] [via SOURCE]       what one request may take
    AMOUNT requests at once [on MODEL-GLOB] [via SOURCE]     how many may be running

    AMOUNT      2000   2_000   2,000   50k   1.5M   $0.25
    UNIT        tokens, input tokens, output tokens, requests; none after a $ amount
    PERIOD      minute hour day week month quarter year, or rolling: 90m 5h 7d
    MODEL-GLOB  an id, or * and ? as in file names; "in quotes" if it holds a blank
    SOURCE      page temporary channel automation api task

Three digits after a point without k or M ("50.000") are refused where they may mean thousands.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from helpers.errors import ConfigurationError
from helpers.limits.amounts import (
    DECIMALS_OF_SUFFIX,
    NotationError,
    count_text,
    dollars_text,
    read_count,
    read_dollars,
)
from helpers.limits.globs import glob_fits
from helpers.limits.periods import MOMENTS, PERIODS_ALLOWED, Period, parse_period, quoted_text

Measure = Literal["tokens", "input_tokens", "output_tokens", "requests", "cost"]

MEASURE_OF_UNIT: dict[str, Measure] = {
    "tokens": "tokens",
    "token": "tokens",
    "input tokens": "input_tokens",
    "input token": "input_tokens",
    "output tokens": "output_tokens",
    "output token": "output_tokens",
    "requests": "requests",
    "request": "requests",
}
# What people write for money other than "$20".
MONEY_TEXT = re.compile(
    r"[$€£¥]|(?<![a-z])(?:eur|euros?|usd|dollars?|cents?)(?![a-z])", re.IGNORECASE
)
# What people write for the "/".
PER_WORDS = ("per", "a", "an", "each", "every")
OPTION_EXAMPLES = {"on": "on gpt-4*", "via": "via api", "warn": "warn 70% 90%"}
# Where requests come from, as far as that counts toward limits: the chat page, its temporary
# chats, channels, automations, programs, and what Open WebUI asks a model for by itself.
SOURCES = ("page", "temporary", "channel", "automation", "api", "task")
PER_REQUEST, AT_ONCE = MOMENTS
AT_ONCE_WORDS = re.compile(r"\bat\s+once(?=[\s/]|$)", re.IGNORECASE)
# What people write for it.
PARALLEL_WORDS = re.compile(r"\b(?:concurrent|parallel|simultaneous)", re.IGNORECASE)
# One word after the "/": a quoted model glob, or anything up to the next blank.
OPTION_WORD = re.compile(r'"[^"]*"|\S+')
UNITS_ALLOWED = "tokens, input tokens, output tokens or requests"
LIMIT_EXAMPLES = '"50k tokens/day", "30 requests/hour" or "$20/month"'


@dataclass(frozen=True, slots=True)
class Limit:
    """An amount per period.

    Args:
        amount: Tokens, requests, or micro-dollars for ``cost``; 0 allows nothing.
        measure: What is counted.
        period: The rule by which the count starts anew.
        model_glob: The models that count, as a pattern over their ids.
        warn_percents: Where to warn, sorted; empty: where the ``soft_limit_percent`` valve says.
        source: The one of `SOURCES` that counts; "" for all.
    """

    amount: int
    measure: Measure
    period: Period
    model_glob: str = "*"
    warn_percents: tuple[int, ...] = ()
    source: str = ""

    @property
    def is_per_request(self) -> bool:
        """Whether it is about what one request takes."""
        return self.period.name == PER_REQUEST

    @property
    def is_at_once(self) -> bool:
        """Whether it is about how many requests are running."""
        return self.period.name == AT_ONCE

    @property
    def is_moment(self) -> bool:
        """Whether it is about one moment, so that nothing adds up."""
        return self.period.name in MOMENTS

    @property
    def is_general(self) -> bool:
        """Whether it counts all that is used, of whatever model and source."""
        return self.model_glob == "*" and not self.source and not self.is_moment

    @property
    def counts(self) -> tuple[object, ...]:
        """What it counts, whatever its amount; "24h" and "1d" are the same."""
        period = self.period.rolling or self.period.name
        return self.measure, period, self.model_glob, self.source

    def __str__(self) -> str:
        """The notation that `parse_limit` reads back as an equal limit."""
        if self.measure == "cost":
            text = dollars_text(self.amount)
        else:
            unit = self.measure.replace("_", " ")
            text = f"{count_text(self.amount)} {unit[:-1] if self.amount == 1 else unit}"
        text += " at once" if self.is_at_once else f"/{self.period.name}"
        if self.model_glob != "*":
            plain = is_plain_glob(self.model_glob)
            text += f" on {self.model_glob}" if plain else f' on "{self.model_glob}"'
        if self.source:
            text += f" via {self.source}"
        if self.warn_percents:
            text += " warn " + " ".join(f"{percent}%" for percent in self.warn_percents)
        return text

    def matches_model(self, names: Iterable[str]) -> bool:
        """Whether the glob fits one of the names that a model goes by, its base model's too."""
        return any(glob_fits(self.model_glob, name) for name in names)


def is_plain_glob(glob: str) -> bool:
    """Whether a model glob can stand without quotes."""
    return glob.lower() not in OPTION_EXAMPLES and not re.search(r"\s|,|^\"|^$", glob)


def parse_limit(text: str, where: str = "limit") -> Limit:
    """Read one limit.

    Raises:
        ConfigurationError: What is wrong, quoting it, and what would be right.
    """
    try:
        quantity, options = split_at_period(text)
        amount, measure = read_quantity(quantity)
        period = read_limit_period(options[0], measure)
        values = read_options(options[1:])
        if period.name in MOMENTS and "warn" in values:
            raise NotationError(
                'has "warn", though nothing adds up in it', f'no "warn" after "{period.name}"'
            )
        model_glob = read_model_glob(values["on"]) if "on" in values else "*"
        source = read_source(values["via"]) if "via" in values else ""
        warn_percents = tuple(sorted({read_percent(word) for word in values.get("warn", ())}))
    except NotationError as error:
        given = f"{quoted_text(text)} {error.reason}" if text.strip() else error.reason
        raise ConfigurationError(where, given, error.allowed) from None
    return Limit(amount, measure, period, model_glob, warn_percents, source)


def split_at_period(text: str) -> tuple[list[str], list[str]]:
    """The words before the "/" and those after it, of which the first is the period.

    "at once" is a period without a "/".
    """
    if not text.strip():
        raise NotationError("an empty text is no limit", LIMIT_EXAMPLES)
    if text.strip().lower() == "unlimited":
        raise NotationError(
            "is not one limit among others", f'limits = "unlimited" alone, or {LIMIT_EXAMPLES}'
        )
    # The first "/" is the period's: one in a model's id ("openai/gpt-4o") comes after it.
    before, _, after = text.partition("/")
    moment = AT_ONCE_WORDS.search(text)
    if moment is not None and moment.start() < len(before):
        before, after = text[: moment.start()], text[moment.end() :]
    else:
        moment = None
    quantity, options = before.split(), OPTION_WORD.findall(after)
    if moment is not None:
        if after.strip().startswith("/"):
            raise NotationError(
                'has a period after "at once"', 'either "3 requests at once" or "30 requests/hour"'
            )
        if len(quantity) == 1:
            raise NotationError("has no unit", 'requests, as in "3 requests at once"')
        options.insert(0, AT_ONCE)
    for at, word in enumerate(quantity):
        if word.lower() in PER_WORDS:
            example = quantity_example(quantity[:at])
            period = period_example(quantity[at + 1 : at + 2])
            raise NotationError(f'has "{word}"', f'"/" instead, as in "{example}/{period}"')
        if word.lower() in OPTION_EXAMPLES:
            example = quantity_example(quantity[:at])
            option = OPTION_EXAMPLES[word.lower()]
            raise NotationError(
                f'has no period before "{word}"',
                f'the period first, as in "{example}/day {option}"',
            )
    if not options:
        if PARALLEL_WORDS.search(before):
            raise NotationError("has no period", 'running requests as in "3 requests at once"')
        example = quantity_example(quantity)
        raise NotationError("has no period", f'"/" and a period, as in "{example}/day"')
    if not quantity:
        place = AT_ONCE if moment else "/"
        raise NotationError(f'has nothing before the "{place}"', LIMIT_EXAMPLES)
    return quantity, options


def quantity_example(words: list[str]) -> str:
    """The words themselves if they are right, to show how the rest should follow them."""
    try:
        read_quantity(words)
    except NotationError:
        return "50k tokens"
    return " ".join(words)


def period_example(words: list[str]) -> str:
    """The word itself if it is a period."""
    if words == [PER_REQUEST]:
        return PER_REQUEST
    try:
        return parse_period("".join(words)).name
    except ConfigurationError:
        return "day"


def read_quantity(words: list[str]) -> tuple[int, Measure]:
    """The amount and what it counts."""
    if not words:
        raise NotationError("has no amount", LIMIT_EXAMPLES)
    first, unit = words[0], " ".join(words[1:])
    if first.startswith("$") and first != "$":
        if unit:
            raise NotationError(
                f"has {quoted_text(unit)} after an amount of money",
                'either "$20/month" or "50k tokens/day"',
            )
        return read_dollars(first[1:]), "cost"
    if money := MONEY_TEXT.search(" ".join(words)):
        raise NotationError(
            f'has "{money[0]}" for money', 'US dollars, the sign right before: "$20/month"'
        )
    measure = MEASURE_OF_UNIT.get(unit.lower())
    amount = read_count(first, "request" if measure == "requests" else "token")
    if measure is None:
        raise unit_error(first, unit)
    return amount, measure


def unit_error(amount: str, unit: str) -> NotationError:
    """What is wrong with a unit that isn't one."""
    if not unit:
        return NotationError("has no unit", f'{UNITS_ALLOWED}, as in "{amount} tokens/day"')
    suffix, _, rest = unit.partition(" ")
    if suffix in DECIMALS_OF_SUFFIX:
        right = f"{amount}{suffix} {rest or 'tokens'}"
        return NotationError(f'has a blank in "{amount} {suffix}"', f'none there: "{right}"')
    # The providers' own words for the two.
    spelled = unit.lower().replace("prompt", "input").replace("completion", "output")
    plurals = [known for known in MEASURE_OF_UNIT if known.endswith("s")]
    close = difflib.get_close_matches(spelled, plurals, n=1, cutoff=0.5)
    hint = f'; did you mean "{amount} {close[0]}"?' if close else ', as in "50k tokens/day"'
    return NotationError(f"has the unknown unit {quoted_text(unit)}", UNITS_ALLOWED + hint)


def read_limit_period(word: str, measure: Measure) -> Period:
    """What stands after the "/", or "at once"."""
    name, counts_tokens = word.lower(), measure.endswith("tokens")
    if name == AT_ONCE and measure != "requests":
        raise NotationError(
            f'has no requests before "{AT_ONCE}"', 'requests, as in "3 requests at once"'
        )
    if name == PER_REQUEST and not counts_tokens:
        what = "money" if measure == "cost" else "requests"
        raise NotationError(
            f"has {what} per request",
            'tokens, input tokens or output tokens there, as in "4k tokens/request"',
        )
    if name in MOMENTS:
        return Period(name)
    if name == "at":
        raise NotationError('has "at" after the "/"', 'no "/" there: "3 requests at once"')
    try:
        return parse_period(word)
    except ConfigurationError as error:
        allowed = error.allowed
        if counts_tokens:
            allowed = allowed.replace(PERIODS_ALLOWED, f'{PERIODS_ALLOWED}, or "{PER_REQUEST}"')
            if difflib.get_close_matches(name, [PER_REQUEST], n=1):
                allowed += f'; did you mean "{PER_REQUEST}"?'
        raise NotationError(f"has a wrong period: {error.given}", allowed) from None


def read_options(words: list[str]) -> dict[str, list[str]]:
    """The words after "on", "via" and "warn", which stand in any order."""
    values: dict[str, list[str]] = {}
    current: list[str] | None = None
    for word in words:
        keyword = word.lower()
        if keyword in values:
            raise NotationError(
                f'has "{keyword}" twice', f'once, as in "{OPTION_EXAMPLES[keyword]}"'
            )
        if keyword in OPTION_EXAMPLES:
            current = values[keyword] = []
        elif current is None:
            raise NotationError(
                f"has {quoted_text(word)} after the period",
                'nothing more there, or "on" and a model, "via" and a source, or "warn" and'
                ' percentages, as in "50k tokens/day on gpt-4* warn 80%"',
            )
        else:
            current.append(word)
    for keyword, given in values.items():
        if not given:
            raise NotationError(
                f'has nothing after "{keyword}"', f'a value, as in "{OPTION_EXAMPLES[keyword]}"'
            )
    return values


def read_source(words: list[str]) -> str:
    """What stands after "via"."""
    source, allowed = words[0].lower(), "one of " + ", ".join(SOURCES)
    if len(words) > 1:
        raise NotationError(
            'has more than one word after "via"', f"{allowed}; a second one needs a second limit"
        )
    if source not in SOURCES:
        close = difflib.get_close_matches(source, SOURCES, n=1)
        hint = f'; did you mean "via {close[0]}"?' if close else ""
        raise NotationError(f"has the unknown source {quoted_text(words[0])}", allowed + hint)
    return source


def read_model_glob(words: list[str]) -> str:
    """What stands after "on"."""
    word = words[0]
    if len(words) > 1 or (not word.startswith('"') and "," in word):
        raise NotationError(
            'has more than one model after "on"',
            'one model id or glob, in quotes if it holds a blank or a comma (on "my model*");'
            " a second model needs a second limit",
        )
    if not word.startswith('"'):
        return word
    if len(word) == 1 or not word.endswith('"'):
        raise NotationError(f"has an open quote: {word}", 'quotes in pairs, as in on "my model*"')
    if not word[1:-1].strip():
        raise NotationError("has an empty model id", 'a model id or glob, as in "on gpt-4*"')
    return word[1:-1]


def read_percent(word: str) -> int:
    match = re.fullmatch(r"([0-9]{1,9})(%?)", word)
    if match is None:
        raise NotationError(
            f'has {quoted_text(word)} after "warn"', 'whole percentages, as in "warn 70% 90%"'
        )
    if not match[2]:
        raise NotationError(f'warns at "{word}" without "%"', f'a percentage: "warn {word}%"')
    percent = int(match[1])
    if not 1 <= percent <= 100:
        raise NotationError(f"warns at {percent}%", '1% to 100%, as in "warn 80%"')
    return percent
