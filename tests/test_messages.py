"""Sentences: numbers, units, periods and times as people read them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from helpers.decisions import Decision, LimitState
from helpers.errors import ConfigurationError
from helpers.languages import ENGLISH, LANGUAGES, choose_language
from helpers.messages import (
    Reader,
    alert_sentence,
    cap_sentence,
    check_template,
    format_duration,
    format_instant,
    format_period,
    format_quantity,
    limit_sentence,
    status_line,
    warning_sentence,
)
from helpers.periods import CalendarRules
from helpers.policy import AppliedLimit
from helpers.quotas import parse_limit

NOW = datetime(2026, 1, 15, 17, 48, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")
READER = Reader(BERLIN)


def state(
    text: str, used: int, reserved: int = 0, scope: str = "user:u", granted: int = 0
) -> LimitState:
    limit = parse_limit(text)
    window = limit.period.window(NOW, CalendarRules(BERLIN))
    applied = AppliedLimit(limit, scope, window, "Students")
    reset_at = window.end if limit.period.rolling is None else NOW + timedelta(hours=2)
    return LimitState(applied, used, reserved, reset_at, granted)


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        (
            state("50k tokens/day", 50_000),
            "You have used all of today's 50,000 tokens (Students). "
            "They reset at 00:00 CET, in 5 h 12 min.",
        ),
        (
            state("1 request/month on gpt-4*", 1),
            "You have used all of this month's 1 request on gpt-4* (Students). "
            "It resets at 00:00 CET on Sunday, 1 February, in 16 d 5 h.",
        ),
        (
            state("$20/week", 20_000_000),
            "You have used all of this week's $20.00 (Students). "
            "It resets at 00:00 CET on Monday, 19 January, in 3 d 5 h.",
        ),
        (
            state("30 requests/5h", 30),
            "You have used all of the last 5 hours' 30 requests (Students). "
            "You can go on at 20:48 CET, in 2 h.",
        ),
        (
            state("9 output tokens/day", 9, scope="everyone"),
            "All of today's 9 output tokens shared by Students are used. "
            "They reset at 00:00 CET, in 5 h 12 min.",
        ),
        (state("0 tokens/day on gpt-4*", 0), "No tokens on gpt-4* may be used here (Students)."),
        (state("$0/day", 0), "No models that cost money may be used here (Students)."),
        (
            state("100 tokens/day", 60, reserved=50),
            "The rest of today's 100 tokens (Students) is held by replies that are still running. "
            "Please try again when they are done.",
        ),
        (
            state("100 tokens/day", 150, granted=50),
            "You have used all of today's 150 tokens (Students). "
            "They reset at 00:00 CET, in 5 h 12 min.",
        ),
    ],
)
def test_refusal(where: LimitState, sentence: str) -> None:
    """A refusal says how much of what is used up, by which policy, and when it opens."""
    assert limit_sentence("", where, NOW, READER, "gpt-4o") == sentence


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        (
            state("50k tokens/day", 42_000),
            "84 % of today's 50,000 tokens used; 8,000 left until 00:00 CET.",
        ),
        (
            state("$1.5/day", 1_250_000, scope="everyone"),
            "83 % of today's $1.50 shared by Students used; $0.25 left until 00:00 CET.",
        ),
        (state("30 requests/90m", 27), "90 % of the last 90 minutes' 30 requests used; 3 left."),
    ],
)
def test_warning(where: LimitState, sentence: str) -> None:
    """A warning says the share that is used and what is left until when."""
    assert warning_sentence("", where, NOW, READER, "gpt-4o") == sentence


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("1 token/60m", "the last hour's"),
        ("1 token/24h", "the last 24 hours'"),
        ("1 token/1d", "the last 24 hours'"),
        ("1 token/48h", "the last 2 days'"),
        ("1 token/1m", "the last minute's"),
        ("1 token/25h", "the last 25 hours'"),
    ],
)
def test_rolling_period(text: str, phrase: str) -> None:
    """A rolling period is said in its largest whole unit, a day in hours."""
    assert format_period(parse_limit(text), ENGLISH) == phrase


def test_default_policy_has_no_name() -> None:
    """The two simple valves are no policy that a user would know by name."""
    where = state("5 tokens/day", 5)
    where = replace(where, applied=replace(where.applied, policy=""))
    assert limit_sentence("", where, NOW, READER, "x").startswith(
        "You have used all of today's 5 tokens. They reset"
    )
    assert alert_sentence(where, "ann").endswith("the limit of 5 tokens/day.")


def test_status_and_alert() -> None:
    """The status line and the alert say where a limit stands."""
    where = state("50k tokens/day", 1_000)
    assert status_line(where, NOW, READER) == (
        "Usage: 1,000 of today's 50,000 tokens (2 %), reset at 00:00 CET"
    )
    assert status_line(state("50k tokens/day", 50_020), NOW, READER) == (
        "Limit reached: 50,020 of today's 50,000 tokens, reset at 00:00 CET"
    )
    assert alert_sentence(where, "ann@example.org") == (
        "ann@example.org has used 2 % of the limit of 50k tokens/day (Students)."
    )
    assert alert_sentence(state("50k tokens/day", 50_001), "ann@example.org") == (
        "ann@example.org has reached the limit of 50k tokens/day (Students)."
    )


def test_own_templates() -> None:
    """Every placeholder can be used, and money brings its own sign."""
    template = "{used} {limit} {remaining} {percent} {unit} {period} {reset_at} {policy} {model}"
    where = state("$1.25/day", 1_000_001)
    assert limit_sentence(template, where, NOW, READER, "gpt") == (
        "$1.00 $1.25 $0.24 80  today's 00:00 CET Students gpt"
    )


@pytest.mark.parametrize("template", ["{tokens}", "{used.__class__}", "{0}", "{", "{used!x", "{}"])
def test_bad_templates_are_refused(template: str) -> None:
    """An unknown placeholder or a lone brace is refused with what is allowed."""
    with pytest.raises(ConfigurationError, match=r"limit_message: .*\{used\} \{limit\}"):
        check_template("limit_message", template)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1 s"),
        (0.2, "1 s"),
        (59, "59 s"),
        (60, "1 min"),
        (61, "2 min"),
        (3_600, "1 h"),
        (5 * 3_600 + 11 * 60 + 1, "5 h 12 min"),
        (86_400, "1 d"),
        (86_400 + 59, "1 d"),
        (3 * 86_400 + 4 * 3_600, "3 d 4 h"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    """Durations are rounded up and written in two units at most."""
    assert format_duration(timedelta(seconds=seconds), ENGLISH) == text


def test_instant_has_a_date_beyond_a_day() -> None:
    """Within a day the time is enough, in the reader's zone."""
    assert format_instant(NOW + timedelta(hours=24), NOW, READER) == "18:48 CET"
    # Clocks go forward on 29 March 2026 at 02:00: 23.5 hours later it is 24.5 hours later.
    before = datetime(2026, 3, 28, 1, 30, tzinfo=UTC)
    after = before + timedelta(hours=23, minutes=30)
    assert format_instant(after, before, READER) == "03:00 CEST on Sunday, 29 March"
    far = NOW + timedelta(days=190)
    assert format_instant(far, NOW, READER) == "19:48 CEST on Friday, 24 July"


@pytest.mark.parametrize(
    ("text", "amount", "quantity"),
    [
        ("5 tokens/day", 1, "1 token"),
        ("5 input tokens/day", 0, "0 input tokens"),
        ("$5/day", 0, "$0.00"),
        ("$5/day", 1_000_000_000, "$1,000.00"),
        ("$5/day on gpt", 1, "$0.00 on gpt"),
        ("$0.0005/day", 120, "$0.0001"),
    ],
)
def test_quantity(text: str, amount: int, quantity: str) -> None:
    """One of a thing is in the singular, and money has at least cents."""
    assert format_quantity(parse_limit(text), amount, ENGLISH) == quantity


def test_decision() -> None:
    """All limits must allow; the one that opens last refuses; the fullest is shown."""
    open_, full = state("100 tokens/day", 10), state("10 requests/month", 10)
    later = state("5 tokens/day", 90)
    decision = Decision((open_, later, full))
    assert not decision.allowed
    assert decision.refusing is full
    assert decision.fullest is later
    assert Decision((open_,)).allowed
    assert Decision().allowed
    assert Decision().fullest is None
    assert open_.crossed_threshold(10) == 10
    assert open_.crossed_threshold(11) is None
    assert state("9 tokens/day warn 20% 60%", 7).crossed_threshold(99) == 60


@pytest.mark.parametrize(
    ("tag", "sentence"),
    [
        (
            "de-DE",
            "Ihr Limit von 50.000 Tokens pro Tag (Students) ist erreicht. "
            "Wieder verfügbar um 00:00 CET, in 5 Std. 12 Min.",
        ),
        (
            "fr",
            "Votre limite de 50\u202f000 jetons par jour (Students) est atteinte. "
            "De nouveau disponible à 00:00 CET, dans 5 h 12 min.",
        ),
        (
            "es-MX",
            "Ha alcanzado su límite de 50.000 tokens por día (Students). "
            "Disponible de nuevo a las 00:00 CET, dentro de 5 h 12 min.",
        ),
        (
            "zh-CN",
            "您的限额（每天 50,000 个 token）（Students）已用完。"
            "将于 00:00 CET 重置（5 小时 12 分钟后）。",
        ),
        (
            "ja-JP",
            "You have used all of today's 50,000 tokens (Students). "
            "They reset at 00:00 CET, in 5 h 12 min.",
        ),
    ],
)
def test_languages(tag: str, sentence: str) -> None:
    """Users read their own language with its number marks; English where there is none."""
    reader = Reader(BERLIN, choose_language(tag))
    assert limit_sentence("", state("50k tokens/day", 50_000), NOW, reader, "x") == sentence


@pytest.mark.parametrize("tag", LANGUAGES)
@pytest.mark.parametrize("scope", ["user:u", "everyone"])
@pytest.mark.parametrize(
    "text",
    [
        "1 token/day",
        "0 requests/hour",
        "$0/day",
        "$2.5/month on a*",
        "9 tokens/7d",
        "5k input tokens/90m",
    ],
)
def test_every_sentence_of_every_language(tag: str, scope: str, text: str) -> None:
    """No sentence of a language lacks a field or leaves one open."""
    reader = Reader(BERLIN, LANGUAGES[tag])
    amount = parse_limit(text).amount
    for used, reserved in ((amount, 0), (0, amount), (amount // 2, 0)):
        where = state(text, used, reserved, scope)
        for sentence in (
            limit_sentence("", where, NOW, reader, "x"),
            warning_sentence("", where, NOW, reader, "x"),
            status_line(where, NOW, reader),
            cap_sentence(1, reader.language),
            cap_sentence(2_000, reader.language),
        ):
            assert "{" not in sentence
            assert "  " not in sentence
            assert sentence == sentence.strip()


def test_money_in_german() -> None:
    """Money has the language's decimal mark and stands where the language puts it."""
    where = state("$1234.5/month", 1_000_000_000)
    assert status_line(where, NOW, Reader(BERLIN, LANGUAGES["de"])) == (
        "Verbrauch: 1.000,00 $ von 1.234,50 $ pro Monat (81 %), neu ab 00:00 CET am 1.2."
    )


@pytest.mark.parametrize("tag", ["", "en", "EN-us", "zh-TW", "zh_HK", "xx", "-"])
def test_english_is_for_everyone_else(tag: str) -> None:
    """Unknown tags, and Traditional Chinese, get English."""
    assert choose_language(tag) is ENGLISH
