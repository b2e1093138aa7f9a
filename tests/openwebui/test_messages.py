"""Sentences: numbers, units, periods and times as people read them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from pydantic_core import PydanticSerializationError

from helpers.errors import ConfigurationError
from helpers.limits.decisions import Decision, LimitState
from helpers.limits.limit import SOURCES, Limit, parse_limit
from helpers.limits.periods import CalendarRules, Period, Window
from helpers.limits.policies import Policy
from helpers.limits.policies_text import parse_policies
from helpers.limits.policy import AppliedLimit, GroupRef, Subject, choose_policy, scoped_limits
from helpers.openwebui.http_requests import accepted_languages
from helpers.openwebui.languages.catalog import LANGUAGES, choose_language
from helpers.openwebui.languages.en import ENGLISH
from helpers.openwebui.messages import (
    LONGEST_SENTENCE,
    LONGEST_SHOWN_NAME,
    Reader,
    alert_sentence,
    at_once_sentence,
    cap_sentence,
    check_template,
    finish_sentence,
    format_duration,
    format_instant,
    format_period,
    limit_sentence,
    limit_text,
    on_model,
    per_request_sentence,
    plain_quantity,
    status_line,
    stopped_sentence,
    warning_sentence,
)
from helpers.openwebui.valves import AdminValves, PersonalValves
from helpers.openwebui.wording import (
    COUNTED_THINGS,
    MOMENT_NAMES,
    PERIOD_NAMES,
    ROLLING_UNITS_SAID,
    Language,
)
from scripts.languages_table import TARGET, document

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
            "You've reached your limit of 50,000 tokens per day (Students). "
            "It resets tomorrow at 00:00 UTC+1, in 5 h 12 min.",
        ),
        (
            state("1 request/month on gpt-4*", 1),
            "You've reached your limit of 1 request per month on gpt-4* (Students). "
            "It resets on 1 February at 00:00 UTC+1.",
        ),
        (
            state("$20/week", 20_000_000),
            "You've reached your limit of $20.00 per week (Students). "
            "It resets on 19 January at 00:00 UTC+1.",
        ),
        (
            state("30 requests/5h", 30),
            "You've reached your limit of 30 requests per 5 hours (Students). "
            "You can continue at 20:48 UTC+1, in 2 h.",
        ),
        (
            state("9 output tokens/day", 9, scope="everyone"),
            "You've reached the shared limit of 9 output tokens per day (Students). "
            "It resets tomorrow at 00:00 UTC+1, in 5 h 12 min.",
        ),
        (state("0 tokens/day on gpt-4*", 0), "You can't use gpt-4* here (Students)."),
        (state("$0/day on gpt-4*", 0), "You can't use gpt-4* here (Students)."),
        (state("0 tokens/day", 0), "You can't use any models here (Students)."),
        (state("$0/day", 0), "You can't use models that cost money here (Students)."),
        (
            state("100 tokens/day", 60, reserved=50),
            "Running responses hold the rest of your limit of 100 tokens per day "
            "(Students). Please try again when they are done.",
        ),
        (
            state("10k tokens/day via api", 10_000),
            "You've reached your limit of 10,000 tokens per day via the API (Students). "
            "It resets tomorrow at 00:00 UTC+1, in 5 h 12 min.",
        ),
        (
            state("0 requests/day via api", 0),
            "You can't use any models here (via the API) (Students).",
        ),
        (
            state("9 tokens/quarter on gpt-4* via page", 9),
            "You've reached your limit of 9 tokens per quarter on gpt-4* in saved chats "
            "(Students). It resets on 1 April at 00:00 UTC+2.",
        ),
        (
            state("9 tokens/year", 9),
            "You've reached your limit of 9 tokens per year (Students). "
            "It resets on 1 January at 00:00 UTC+1.",
        ),
        (
            state("4k tokens/request on gpt-4*", 5_000),
            "This request is too long: at most 4,000 tokens per request on gpt-4* (Students).",
        ),
        (
            state("3 requests at once", 0, 3),
            "You already have 3 responses running. Please try again when one is done.",
        ),
        (
            state("3 requests at once on gpt-4*", 0, 3),
            "Running responses hold the rest of your limit of 3 requests at once on gpt-4* "
            "(Students). Please try again when they are done.",
        ),
        (
            state("3 requests at once", 0, 3, scope="everyone"),
            "Running responses hold the rest of the shared limit of 3 requests at once "
            "(Students). Please try again when they are done.",
        ),
        (
            state("100 tokens/day", 150, granted=50),
            "You've reached your limit of 150 tokens per day (Students). "
            "It resets tomorrow at 00:00 UTC+1, in 5 h 12 min.",
        ),
    ],
)
def test_refusal(where: LimitState, sentence: str) -> None:
    """A refusal says whose limit of how much is reached, and when it opens."""
    assert limit_sentence("", where, NOW, READER, "gpt-4o") == sentence


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        (
            state("50k tokens/day", 42_000),
            "84% of your limit of 50,000 tokens per day (Students) used; 8,000 left, "
            "resets tomorrow at 00:00 UTC+1.",
        ),
        (
            state("$1.5/day", 1_250_000, scope="everyone"),
            "83% of the shared limit of $1.50 per day (Students) used; $0.25 left, "
            "resets tomorrow at 00:00 UTC+1.",
        ),
        (
            state("30 requests/90m", 27),
            "90% of your limit of 30 requests per 90 minutes (Students) used; 3 left.",
        ),
    ],
)
def test_warning(where: LimitState, sentence: str) -> None:
    """A warning says the share that is used and what is left until when."""
    assert warning_sentence("", where, NOW, READER, "gpt-4o") == sentence


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("1 token/hour", "per hour"),
        ("1 token/60m", "per 60 minutes"),
        ("1 token/1m", "per 60 seconds"),
        ("1 token/24h", "per 24 hours"),
        ("1 token/1d", "per 24 hours"),
        ("1 token/48h", "per 2 days"),
        ("1 token/25h", "per 25 hours"),
        ("1 token/90m", "per 90 minutes"),
    ],
)
def test_rolling_period(text: str, phrase: str) -> None:
    """A rolling period is said in its largest unit that makes two, so it isn't the calendar's."""
    assert format_period(parse_limit(text), ENGLISH) == phrase


@pytest.mark.parametrize("kind", ["role", "user", "default"])
def test_only_groups_and_pools_have_names(kind: str) -> None:
    """What a role's or a user's own policy is called means nothing to its user."""
    where = state("5 tokens/day", 5)
    own = replace(where, applied=replace(where.applied, policy="user", policy_kind=kind))
    assert "user" not in limit_sentence("", own, NOW, READER, "x")
    assert limit_sentence("{limit} {policy}!", own, NOW, READER, "x") == "5!"
    pool = replace(own, applied=replace(own.applied, scope="everyone"))
    assert "(user)" in limit_sentence("", pool, NOW, READER, "x")


def test_policies_say_which_kind_they_are() -> None:
    """The kind of the table goes with each limit that it gives."""
    policies = parse_policies(
        '[role.user]\nlimits = ["1 token/day"]\n[group.Students]\nlimits = ["2 tokens/day"]\n'
    )
    for groups, kind in (((), "role"), ((GroupRef("g", "Students"),), "group")):
        subject = Subject("u", "u@example.org", "user", groups)
        default = Policy("default", "default", None)
        policy = choose_policy(subject, policies, default, "priority")
        (limit,) = scoped_limits(subject, policy, policies, NOW, CalendarRules(BERLIN))
        assert limit.policy_kind == kind


def test_status_and_alert() -> None:
    """The status line and the alert say where a limit stands, and whose it is."""
    where, full = state("50k tokens/day", 1_000), state("50k tokens/day", 50_020)
    shared, all_used = (replace_scope(one, "everyone") for one in (where, full))
    tail = "50,000 tokens per day"
    reset = ", resets tomorrow at 00:00 UTC+1"
    assert status_line(where, NOW, READER) == f"Usage: 1,000 of {tail} (2%){reset}"
    assert status_line(full, NOW, READER) == f"Limit reached: 50,020 of {tail}{reset}"
    assert status_line(shared, NOW, READER) == (
        f"Shared usage (Students): 1,000 of {tail} (2%){reset}"
    )
    assert status_line(all_used, NOW, READER) == (
        f"Shared limit reached (Students): 50,020 of {tail}{reset}"
    )
    assert alert_sentence(where, "ann@example.org") == (
        "ann@example.org has used 2% of the limit of 50k tokens/day (Students)."
    )
    assert alert_sentence(full, "ann@example.org") == (
        "ann@example.org has reached the limit of 50k tokens/day (Students)."
    )
    assert alert_sentence(all_used, "ann@example.org") == (
        "The shared limit of 50k tokens/day (Students) has been reached."
    )


def replace_scope(where: LimitState, scope: str) -> LimitState:
    return replace(where, applied=replace(where.applied, scope=scope))


def test_other_ends() -> None:
    """A response that was stopped, a request that is too long, and one beside too many."""
    assert stopped_sentence(state("9 tokens/day", 9), NOW, READER) == (
        "Stopped at your limit of 9 tokens per day (Students). It resets tomorrow at 00:00 UTC+1."
    )
    limit = parse_limit("4k tokens/day on gpt-4*")
    assert per_request_sentence(limit, READER, "Students") == (
        "This request is too long: at most 4,000 tokens per request on gpt-4* (Students)."
    )
    assert at_once_sentence(1, ENGLISH) == (
        "You already have 1 response running. Please try again when one is done."
    )


def test_own_templates() -> None:
    """Every placeholder can be used, and what is empty leaves no blank behind."""
    template = "{used} {limit} {remaining} {percent} {unit} {period} {reset_at} {policy} {model}"
    assert limit_sentence(template, state("$1.25/day", 1_000_001), NOW, READER, "gpt") == (
        "$1.00 $1.25 $0.24 80 per day 16 January, 00:00 UTC+1 Students gpt"
    )
    template = "You used {used} of {limit} {unit} {period}."
    assert warning_sentence(template, state("50k tokens/day", 9), NOW, READER, "gpt") == (
        "You used 9 of 50,000 tokens per day."
    )


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("You have used {used} of the {limit} {unit} {period}", "9 tokens per day"),
        ("Sie haben {used} von {limit} {unit} {period} verbraucht.", "9 Token pro Tag"),
        ("Vous avez atteint votre limite de {limit} {unit} {period}", "9 tokens par jour"),
        ("限额已用完：{period} {limit} {unit}", "每天 9 个 Token"),
        ("{used}/{limit} {unit} {period}", "9 Token pro Tag"),
    ],
)
def test_template_keeps_its_language(template: str, said: str) -> None:
    """A German reader of an English template gets English words; of one without words, German."""
    reader = Reader(BERLIN, LANGUAGES["de"])
    assert said in limit_sentence(template, state("9 tokens/day", 9), NOW, reader, "x")


@pytest.mark.parametrize(
    "template",
    [
        *("{tokens}", "{used.__class__}", "{used[0]}", "{0}", "{", "{used!x", "{}", "{ used }"),
        *("{used:,} of {limit:,}", "{percent:d}", "{used!r}", "{used:{limit}}", "{used:>9999999}"),
        "\ud800 {used}",
    ],
)
def test_bad_templates_are_refused(template: str) -> None:
    """An unknown placeholder or a lone brace is refused with what is allowed."""
    with pytest.raises(ConfigurationError, match=r"limit_message: .*\{used\} \{limit\}"):
        check_template("limit_message", template)
    shown = limit_sentence(template, state("9 tokens/day", 9), NOW, READER, "x")
    assert shown.startswith("You've reached your limit of 9 tokens per day")
    assert warning_sentence(template, state("9 tokens/day", 8), NOW, READER, "x").startswith("88%")


def test_template_of_an_older_release_still_loads() -> None:
    """What the first release accepted and couldn't show is loaded, but not stored again."""
    valves = AdminValves(limit_message="{used:,} of {limit:,}")
    with pytest.raises(PydanticSerializationError, match="plain names only"):
        valves.model_dump(exclude_unset=True)
    field = AdminValves.model_json_schema()["properties"]["limit_message"]
    assert field["description"].startswith("**NOT SAVED at ")
    assert AdminValves(limit_message="{used}").model_dump(exclude_unset=True) == {
        "limit_message": "{used}"
    }
    field = AdminValves.model_json_schema()["properties"]["limit_message"]
    assert "NOT SAVED" not in field["description"]


def test_template_is_bounded() -> None:
    """A template has a longest length, and so has what becomes of it."""
    with pytest.raises(ConfigurationError, match="1,000 characters"):
        check_template("limit_message", "x" * 1_001)
    shown = limit_sentence("{model}" * 140, state("9 tokens/day", 9), NOW, READER, "x" * 10**6)
    assert len(shown) == LONGEST_SENTENCE
    check_template("limit_message", "{{ {used} }}")
    assert limit_sentence("{{ {used} }}", state("9 tokens/day", 9), NOW, READER, "x") == "{ 9 }"


@pytest.mark.parametrize("tag", LANGUAGES)
@pytest.mark.parametrize(
    "name",
    ["\ud800", "a\x00b\r\nc", "x" * 10**6, "\u202egpt\u2066", "{used}", "סטודנטים", "  ", "%s{0}"],
)
def test_hostile_names(tag: str, name: str) -> None:
    """A name that lies or is huge is on one line, cut, and turns nothing around it."""
    where = state("9 tokens/day", 9, scope="everyone")
    where = replace(where, applied=replace(where.applied, policy=name))
    for template in ("", "{policy} {model} {used}"):
        shown = limit_sentence(template, where, NOW, Reader(BERLIN, LANGUAGES[tag]), name)
        shown.encode()
        assert len(shown) < 3 * LONGEST_SHOWN_NAME + 200
        assert not re.search("[\x00-\x1f\u202e\u2066]", shown)
        assert len(re.findall("[\u2067\u2068]", shown)) == shown.count("\u2069")
    assert len(alert_sentence(where, name)) < 3 * LONGEST_SHOWN_NAME


@pytest.mark.parametrize("digits", [18, 40, 400, 5000])
def test_huge_numbers(digits: int) -> None:
    """No number is too large to be refused with a sentence."""
    for text in ("9 tokens/day", "$9/day"):
        where = state(text, 10**digits)
        assert len(limit_sentence("", where, NOW, READER, "x")) < 200
        assert len(status_line(where, NOW, READER)) < 200
        assert len(alert_sentence(where, "ann")) < 200


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


def test_instant_has_a_date_on_another_day() -> None:
    """Today the time is enough, in the reader's zone, rounded up to a minute."""
    assert format_instant(NOW + timedelta(hours=5), NOW, READER) == "23:48 UTC+1"
    assert format_instant(NOW + timedelta(hours=24), NOW, READER) == "16 January, 18:48 UTC+1"
    far = NOW + timedelta(days=190, seconds=1)
    assert format_instant(far, NOW, READER) == "24 July, 19:49 UTC+2"
    own = Reader(BERLIN, ENGLISH, zone_is_own=True)
    assert format_instant(NOW + timedelta(minutes=9, microseconds=1), NOW, own) == "18:58"


@pytest.mark.parametrize(
    ("zone", "said"),
    [
        ("America/Sao_Paulo", "UTC−3"),
        ("America/Chicago", "UTC−6"),
        ("Asia/Kolkata", "UTC+5:30"),
        ("Asia/Kathmandu", "UTC+5:45"),
        ("America/St_Johns", "UTC−3:30"),
        ("UTC", "UTC"),
        ("Europe/London", "UTC"),
    ],
)
def test_zone(zone: str, said: str) -> None:
    """A zone is told by its distance from UTC, never by a sign alone or three letters."""
    assert format_instant(NOW, NOW, Reader(ZoneInfo(zone))).split()[1] == said


@pytest.mark.parametrize(
    ("tag", "at", "said"),
    [
        ("de", datetime(2026, 3, 8, 23, tzinfo=UTC), "am 9. März um 00:00 Uhr"),
        ("fr", datetime(2026, 1, 31, 23, tzinfo=UTC), "le 1er février à 00:00"),
        ("es", datetime(2026, 1, 16, 0, 10, tzinfo=UTC), "mañana a la 01:10"),
        ("es", datetime(2026, 1, 16, 1, 10, tzinfo=UTC), "mañana a las 02:10"),
        ("it", datetime(2026, 1, 16, 0, 10, tzinfo=UTC), "domani all’01:10"),
        ("pt-br", datetime(2026, 1, 16, 0, 10, tzinfo=UTC), "amanhã à 01:10"),
        ("ru", datetime(2026, 5, 2, 0, 10, tzinfo=UTC), "2 мая в 02:10"),
        ("zh-cn", datetime(2026, 5, 2, 0, 10, tzinfo=UTC), "5月2日 02:10"),
    ],
)
def test_when(tag: str, at: datetime, said: str) -> None:
    """A time has the preposition that its sentence needs, and the date that its language writes."""
    where = replace(state("9 tokens/day", 9), reset_at=at)
    reader = Reader(BERLIN, LANGUAGES[tag], zone_is_own=True)
    assert said in limit_sentence("", where, NOW, reader, "x")


@pytest.mark.parametrize(
    ("text", "amount", "quantity"),
    [
        ("5 tokens/day", 1, "1 token"),
        ("5 input tokens/day", 0, "0 input tokens"),
        ("$5/day", 0, "$0.00"),
        ("$5/day", 1_000_000_000, "$1,000.00"),
        ("$5/day on gpt", 1, "less than $0.01 on gpt"),
        ("$0.0005/day", 120, "$0.0001"),
        ("$0.0005/day", 99, "less than $0.0001"),
    ],
)
def test_quantity(text: str, amount: int, quantity: str) -> None:
    """One of a thing is in the singular, and money has at least cents."""
    limit = parse_limit(text)
    assert plain_quantity(limit, amount, ENGLISH) + on_model(limit, ENGLISH) == quantity


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
            "Ihr Limit von 50.000 Token pro Tag (Students) ist erreicht. "
            "Wieder verfügbar morgen um 00:00 UTC+1, in 5 Std. 12 Min.",
        ),
        (
            "fr",
            "Votre limite de 50\u202f000 tokens par jour (Students) est atteinte. "
            "Remise à zéro demain à 00:00 UTC+1, dans 5 h 12 min.",
        ),
        (
            "fr-CA",
            "Votre limite de 50\u202f000 jetons par jour (Students) est atteinte. "
            "Remise à zéro demain à 00:00 UTC+1, dans 5 h 12 min.",
        ),
        (
            "es-MX",
            "Has alcanzado tu límite de 50\u202f000 tokens por día (Students). "
            "Se restablece mañana a las 00:00 UTC+1, en 5 h 12 min.",
        ),
        (
            "zh-CN",
            "您的限额（Students）已用完：每天 50,000 个 Token。"
            "将于明天 00:00 UTC+1 重置（5 小时 12 分钟后）。",
        ),
        (
            "ar",
            "\u2067تم بلوغ حدّك (\u2068Students\u2069): \u206850,000\u2069 رمز في اليوم. "
            "يُجدَّد غدًا الساعة \u206800:00 UTC+1\u2069، بعد \u20685 س 12 د\u2069.\u2069",
        ),
        (
            "xx",
            "You've reached your limit of 50,000 tokens per day (Students). "
            "It resets tomorrow at 00:00 UTC+1, in 5 h 12 min.",
        ),
    ],
)
def test_languages(tag: str, sentence: str) -> None:
    """Users read their own language with its number marks; English where there is none."""
    reader = Reader(BERLIN, choose_language(tag))
    assert limit_sentence("", state("50k tokens/day", 50_000), NOW, reader, "x") == sentence


@pytest.mark.parametrize(
    ("tag", "line"),
    [
        ("de", "Nutzung: 1.000,00\u00a0$ von 1.234,50\u00a0$ pro Monat (81\u00a0%)"),
        ("es", "Uso: 1000,00\u00a0USD de 1234,50\u00a0USD por mes (81\u00a0%)"),
        (
            "fr",
            "Utilisation\u00a0: 1\u202f000,00\u00a0$ sur 1\u202f234,50\u00a0$ par mois (81\u202f%)",
        ),
        ("tr", "Kullanım: 1.000,00\u00a0$ / aylık 1.234,50\u00a0$ (%81)"),
    ],
)
def test_money(tag: str, line: str) -> None:
    """Money has the language's decimal mark and stands where the language puts it."""
    where = state("$1234.5/month", 1_000_000_000)
    assert status_line(where, NOW, Reader(BERLIN, LANGUAGES[tag])).startswith(line)


@pytest.mark.parametrize(
    ("tag", "chosen"),
    [
        *(
            ("", "en"),
            ("en", "en"),
            ("EN-us", "en"),
            ("xx", "en"),
            ("-", "en"),
            ("z" * 10**6, "en"),
        ),
        *(("zh", "zh-CN"), ("zh_TW", "zh-TW"), ("zh-HK", "zh-TW"), ("zh-Hant-MO", "zh-TW")),
        *(("xx,de-AT;q=0.9,fr", "de"), (",;,pl", "pl"), ("*", "en"), ("en-GB, de", "en")),
        *(("zh-Hans-SG", "zh-CN"), ("pt", "pt-BR"), ("pt-PT", "pt-BR"), ("fr-CA", "fr-CA")),
        *(
            ("fr-BE", "fr"),
            ("iw-IL", "he"),
            ("de-AT", "de"),
            ("de-CH-1996", "de"),
            ("\ud800", "en"),
        ),
    ],
)
def test_choice_of_a_language(tag: str, chosen: str) -> None:
    """An exact tag comes before its beginnings, and nobody gets a script that he can't read."""
    assert choose_language(tag).tag == chosen


# Unicode's rules for whole numbers, as CLDR 47 states them, by the amounts that tell them apart.
PLURAL_CATEGORIES = {
    "en de it es nl tr": {0: "other", 1: "one", 2: "other", 5: "other", 21: "other"},
    "fr fr-ca pt-br": {0: "one", 1: "one", 2: "other", 5: "other", 21: "other"},
    "ja ko zh-cn zh-tw": {0: "other", 1: "other", 2: "other", 5: "other", 21: "other"},
    "pl": {
        0: "many",
        1: "one",
        2: "few",
        5: "many",
        12: "many",
        21: "many",
        22: "few",
        112: "many",
    },
    "ru uk": {0: "many", 1: "one", 2: "few", 5: "many", 11: "many", 21: "one", 112: "many"},
    "ar": {0: "zero", 1: "one", 2: "two", 5: "few", 21: "many", 100: "other", 103: "few"},
    "he": {0: "other", 1: "one", 2: "two", 5: "other", 21: "other"},
}
CATEGORIES_OF = {tag: rule for tags, rule in PLURAL_CATEGORIES.items() for tag in tags.split()}
MANY = 50_000


def category(tag: str, count: int) -> str:
    """The category that the table above gives a number; what is large is as 100 is."""
    return CATEGORIES_OF[tag].get(count) or CATEGORIES_OF[tag].get(100, CATEGORIES_OF[tag][5])


@pytest.mark.parametrize("tag", LANGUAGES)
def test_language_is_complete(tag: str) -> None:
    """Every list has its words, every field is known, and the plural rule is Unicode's."""
    language = LANGUAGES[tag]
    for text, names in (
        (language.units, COUNTED_THINGS),
        (language.periods, PERIOD_NAMES),
        (language.moments, MOMENT_NAMES),
        (language.sources, SOURCES),
        (language.rolling_units, ROLLING_UNITS_SAID),
    ):
        assert len(text.split(", ")) == len(names)
        for word in text.split(", "):
            assert 1 <= len(word.split("|")) <= len(language.plural.categories)
            assert all(part == part.strip() and part for part in word.split("|"))
    assert len(language.durations.split()) == 4
    assert len(language.months.split()) in (0, 12)
    for pair in (language.owner, language.label, language.reached_label):
        assert len(pair.split("|")) == 2
    known = {
        *("amount", "n", "unit", "clock", "day", "month", "date", "time", "model", "policy"),
        *("quantity", "period", "on", "owner", "what", "named", "at", "within", "percent"),
        *("left", "until", "label", "used", "source"),
    }
    for field in fields(Language):
        value = getattr(language, field.name)
        if isinstance(value, str):
            assert set(re.findall(r"{(.*?)}", value)) <= known, field.name
    for count in CATEGORIES_OF[tag]:
        picked = language.plural.categories[language.plural.pick(count)]
        assert picked == category(tag, count), count


CALENDAR_LENGTHS = {
    name: timedelta(minutes=minutes)
    for name, minutes in zip(
        PERIOD_NAMES, (1, 60, 1_440, 10_080, 43_200, 129_600, 525_600), strict=True
    )
}


def every_state() -> Iterator[LimitState]:
    """A limit of each measure, period, policy, pool, amount and model, at each of its stages."""
    periods = [Period(name) for name in PERIOD_NAMES]
    periods += [parse_limit(f"1 token/{text}").period for text in ("1m", "90m", "21h", "2d", "30d")]
    for measure in ("tokens", "input_tokens", "output_tokens", "requests", "cost"):
        for period in periods:
            for amount in (0, 1, 2, 5, 21, MANY):
                for model in ("*", "gpt-4*"):
                    for scope, policy, kind in (
                        ("user:u", "Students", "group"),
                        ("user:u", "user", "role"),
                        ("everyone", "everyone", "group"),
                    ):
                        counted = amount * 1_000_000 if measure == "cost" else amount
                        limit = Limit(counted, measure, period, model)
                        applied = AppliedLimit(limit, scope, Window(NOW, NOW), policy, kind)
                        length = period.rolling or CALENDAR_LENGTHS[period.name]
                        reset_at = NOW + length * 0.55
                        half = LimitState(applied, counted // 2, 0, reset_at)
                        yield half
                        yield replace(half, used=counted)
                        if amount == 5:
                            yield replace(half, used=0, reserved=counted)
                        if amount in (0, MANY):
                            for source in SOURCES:
                                via = replace(applied, limit=replace(limit, source=source))
                                yield replace(half, applied=via, used=counted)


WIDE = re.compile("[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\uff00-\uff60]")
WITHOUT_WIDTH = re.compile("[\u0300-\u036f\u064b-\u0652\u2067-\u2069]")


def width(text: str) -> int:
    """How many Latin letters wide a text is; an East Asian one is as wide as two."""
    return len(text) + len(WIDE.findall(text)) - len(WITHOUT_WIDTH.findall(text))


# Two marks that don't belong together, or a blank beside a mark that it doesn't belong to.
BAD_MARKS = re.compile(
    r"[  \u202f]{2}|[.,;:!。，；：、،]{2}|[(（] |[ ][)）.,]|\(\)|（）|[{}|]|None|--|[(（][)）]"
)
BAD_ZONE = re.compile(r"\d\d:\d\d(?: Uhr)?\)? [-+−]\d|\b(?:CET|CEST|CST)\b")
# Two lines on a phone.
WIDEST = 160


@pytest.mark.slow
@pytest.mark.parametrize("tag", LANGUAGES)
def test_every_sentence_of_every_language(tag: str) -> None:
    """No sentence has a doubled mark, an empty field, a wrong plural form or a third line."""
    language = LANGUAGES[tag]
    abroad = Reader(ZoneInfo("America/Sao_Paulo"), language)
    at_home = replace(abroad, zone_is_own=True)
    seen: set[str] = set()
    alerts: set[str] = set()
    sources = [language.source(source) for source in SOURCES]
    for number, where in enumerate(every_state()):
        limit, reader = where.applied.limit, (abroad, at_home)[number % 2]
        sentences = {status_line(where, NOW, reader)}
        if limit.source:
            said = limit_sentence("", where, NOW, reader, "gpt-4o")
            assert language.source(limit.source) in said
        if where.exceeded:
            sentences.add(limit_sentence("", where, NOW, reader, "gpt-4o"))
        else:
            sentences.add(warning_sentence("", where, NOW, reader, "gpt-4o"))
        if where.exceeded and not where.is_only_held and where.amount:
            sentences.add(stopped_sentence(where, NOW, reader))
        if limit.measure != "cost" and where.amount:
            forms = language.units.split(", ")[COUNTED_THINGS.index(limit.measure)].split("|")
            place = language.plural.categories.index(category(tag, where.amount))
            right = forms[min(place, len(forms) - 1)]
            for sentence in sentences:  # with no letter behind it that would make another form
                assert re.search(rf"{right}(?!\w)", sentence), (where.amount, sentence)
        alerts.add(alert_sentence(where, "Ann"))
        seen |= sentences
    for count in (0, 1, 2, 5, 21, MANY):
        seen |= {cap_sentence(count, language), at_once_sentence(count, language)}
        limit = Limit(count, "tokens", Period("day"), "gpt-4*")
        seen |= {per_request_sentence(limit, abroad, name) for name in ("", "Students")}
    for text in ("3 requests at once", "3 requests at once on gpt-4* via api"):
        seen |= {
            limit_sentence("", state(text, 0, 3, scope), NOW, abroad, "gpt-4o")
            for scope in ("user:u", "everyone")
        }
    seen.add(finish_sentence(language.ledger_error, language))
    for sentence in seen | (alerts if language is ENGLISH else set()):
        assert sentence == sentence.strip()
        assert not BAD_MARKS.search(sentence), sentence
        assert not BAD_ZONE.search(sentence), sentence
        # What is said of the few limits on one source is as much longer.
        longer = max((width(said) + 3 for said in sources if said in sentence), default=0)
        assert width(sentence) <= WIDEST + longer, (width(sentence), sentence)
        assert sentence[0].upper() == sentence[0]
        assert len(re.findall("[\u2067\u2068]", sentence)) == sentence.count("\u2069")
        assert sentence.startswith("\u2067") is language.right_to_left
        assert ("\u2068" in sentence) <= language.right_to_left
    assert not any("(user)" in sentence for sentence in seen)


def test_table_of_languages_is_current() -> None:
    """docs/languages.md shows every sentence as it is today."""
    assert TARGET.read_text(encoding="utf-8") == document()


@pytest.mark.parametrize("tag", LANGUAGES)
def test_user_setting_in_every_language(tag: str) -> None:
    """Each user's own setting has a title, a description and three options in the language."""
    told = accepted_languages.set(f"xx, {tag};q=0.9, en;q=0.8")
    field = PersonalValves.model_json_schema()["properties"]["show_usage"]
    accepted_languages.reset(told)
    shown = [field["title"], field["description"], *(x["label"] for x in field["input"]["options"])]
    assert "|".join(shown) == LANGUAGES[tag].show_usage
    assert [x["value"] for x in field["input"]["options"]] == ["near_limit", "always", "never"]
    assert field["default"] == "near_limit"


@pytest.mark.parametrize(
    ("tag", "notation", "text"),
    [
        ("en", "50k tokens/day on gpt-4*", "50,000 tokens per day on gpt-4*"),
        ("en", "1 request/5h", "1 request per 5 hours"),
        ("en", "3 requests at once", "3 requests at once"),
        ("de", "$2.50/month", "2,50\u00a0$ pro Monat"),
        ("zh-cn", "4k tokens/request", "每次请求 4,000 个 Token"),
    ],
)
def test_limit_as_a_heading(tag: str, notation: str, text: str) -> None:
    """A limit is said in a few words of each language, without a sentence around it."""
    said = limit_text(parse_limit(notation), LANGUAGES[tag])
    assert re.sub("[\u2067-\u2069]", "", said) == text
