"""Tests of helpers.limits.limit and helpers.limits.amounts."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.errors import ConfigurationError
from helpers.limits.amounts import LARGEST_AMOUNT
from helpers.limits.limit import SOURCES, Limit, parse_limit
from helpers.limits.periods import CALENDAR_PERIODS, Period, parse_period

DAY = Period("day")
MONTH = Period("month")

# A glob can hold anything but a double quote, which has no notation within quotes.
GLOBS = st.one_of(
    st.sampled_from(
        ["*", "gpt-4*", "openai/gpt-4o:beta@2", "on", "WARN", "via", "a/b", "my model*"]
    ),
    st.sampled_from(["a,b", "x via api", "3 requests at once", "at once/day"]),
    st.text(st.characters(exclude_characters='"'), min_size=1).filter(lambda glob: glob.strip()),
)
PERIODS = st.one_of(
    st.sampled_from([Period(name) for name in CALENDAR_PERIODS]),
    st.integers(1, 366).map(lambda days: parse_period(f"{days}d")),
    st.integers(1, 366 * 24).map(lambda hours: parse_period(f"{hours}h")),
    st.integers(1, 366 * 24 * 60).map(lambda minutes: parse_period(f"{minutes}m")),
)
AMOUNTS = st.one_of(
    st.integers(0, LARGEST_AMOUNT),
    st.tuples(st.integers(0, 9999), st.integers(0, 11)).map(lambda pair: pair[0] * 10 ** pair[1]),
)
VIA = st.sampled_from(["", *SOURCES])
WINDOWED = st.builds(
    Limit,
    AMOUNTS,
    st.sampled_from(["tokens", "input_tokens", "output_tokens", "requests", "cost"]),
    PERIODS,
    GLOBS,
    st.sets(st.integers(1, 100), max_size=4).map(lambda percents: tuple(sorted(percents))),
    VIA,
)
TOKENS = st.sampled_from(["tokens", "input_tokens", "output_tokens"])
PER_REQUEST = st.builds(Limit, AMOUNTS, TOKENS, st.just(Period("request")), GLOBS, st.just(()), VIA)
AT_ONCE = st.builds(
    Limit, AMOUNTS, st.just("requests"), st.just(Period("at once")), GLOBS, st.just(()), VIA
)
LIMITS = WINDOWED | PER_REQUEST | AT_ONCE


@given(LIMITS)
def test_a_limit_reads_back_from_its_own_text(limit: Limit) -> None:
    """`str` gives the notation, and `parse_limit` gives the same limit back."""
    assert parse_limit(str(limit)) == limit


@given(st.text())
def test_any_text_is_a_limit_or_a_configuration_error(text: str) -> None:
    """No text makes the parser fail in any other way."""
    with suppress(ConfigurationError):
        parse_limit(text)


@given(
    st.lists(
        st.sampled_from(
            [
                *'$-.,_"%/€ ',
                *("5k", "tokens", "day", "on", "warn", "gpt-4", "7"),
                *("requests", "request", "at once", "at", "once", "via", "api", "year"),
            ]
        )
    )
)
def test_any_jumble_of_its_own_words_is_a_limit_or_a_configuration_error(words: list[str]) -> None:
    """What is almost the notation is either read to the end and reads back, or refused."""
    for text in ("".join(words), " ".join(words)):
        try:
            limit = parse_limit(text)
        except ConfigurationError:
            continue
        assert parse_limit(str(limit)) == limit


@pytest.mark.parametrize(
    ("text", "limit", "canonical"),
    [
        ("50k tokens/day", Limit(50_000, "tokens", DAY), "50k tokens/day"),
        ("1.5M tokens/month", Limit(1_500_000, "tokens", MONTH), "1.5M tokens/month"),
        ("2,000 tokens/day", Limit(2000, "tokens", DAY), "2k tokens/day"),
        ("1_234_567 tokens/day", Limit(1_234_567, "tokens", DAY), "1,234,567 tokens/day"),
        ("1.25K tokens/day", Limit(1250, "tokens", DAY), "1,250 tokens/day"),
        ("1,500k tokens/day", Limit(1_500_000, "tokens", DAY), "1.5M tokens/day"),
        ("2.50k tokens/day", Limit(2500, "tokens", DAY), "2.5k tokens/day"),
        ("0 tokens/day", Limit(0, "tokens", DAY), "0 tokens/day"),
        ("1 request/minute", Limit(1, "requests", Period("minute")), "1 request/minute"),
        ("30 Requests / HOUR", Limit(30, "requests", Period("hour")), "30 requests/hour"),
        ("  5k  input  tokens/day ", Limit(5000, "input_tokens", DAY), "5k input tokens/day"),
        ("1 output token/day", Limit(1, "output_tokens", DAY), "1 output token/day"),
        ("$20/month", Limit(20_000_000, "cost", MONTH), "$20/month"),
        ("$0.25/day", Limit(250_000, "cost", DAY), "$0.25/day"),
        ("$0.5/day", Limit(500_000, "cost", DAY), "$0.50/day"),
        ("50.000k tokens/day", Limit(50_000, "tokens", DAY), "50k tokens/day"),
        ("$0.125/day", Limit(125_000, "cost", DAY), "$0.125/day"),
        ("$2.1250/day", Limit(2_125_000, "cost", DAY), "$2.1250/day"),
        ("$1,234.500/day", Limit(1_234_500_000, "cost", DAY), "$1,234.50/day"),
        ("$0.000001/day", Limit(1, "cost", DAY), "$0.000001/day"),
        ("$1.5k/month", Limit(1_500_000_000, "cost", MONTH), "$1,500/month"),
        ("$0.29/day", Limit(290_000, "cost", DAY), "$0.29/day"),
        (
            "5k tokens/5h on gpt-4*",
            Limit(5000, "tokens", Period("5h", timedelta(hours=5)), "gpt-4*"),
            "5k tokens/5h on gpt-4*",
        ),
        (
            "5k tokens/day on openai/gpt-4o:beta@2",
            Limit(5000, "tokens", DAY, "openai/gpt-4o:beta@2"),
            "5k tokens/day on openai/gpt-4o:beta@2",
        ),
        (
            '5k tokens/day on "my model*" warn 90% 70% 90%',
            Limit(5000, "tokens", DAY, "my model*", (70, 90)),
            'on "my model*" warn 70% 90%',
        ),
        (
            "2M tokens/month WARN 100% ON llama*",
            Limit(2_000_000, "tokens", MONTH, "llama*", (100,)),
            "2M tokens/month on llama* warn 100%",
        ),
        ("5k tokens/day on *", Limit(5000, "tokens", DAY), "5k tokens/day"),
        ('5k tokens/day on "warn"', Limit(5000, "tokens", DAY, "warn"), 'on "warn"'),
        ('5k tokens/day on "via"', Limit(5000, "tokens", DAY, "via"), 'on "via"'),
        ("1M tokens/quarter", Limit(10**6, "tokens", Period("quarter")), "1M tokens/quarter"),
        ("$500/YEAR", Limit(500_000_000, "cost", Period("year")), "$500/year"),
        ("4k tokens / Request", Limit(4000, "tokens", Period("request")), "4k tokens/request"),
        (
            "4k input tokens/request on gpt-4* via api",
            Limit(4000, "input_tokens", Period("request"), "gpt-4*", (), "api"),
            "4k input tokens/request on gpt-4* via api",
        ),
        ("3 requests at once", Limit(3, "requests", Period("at once")), "3 requests at once"),
        ("1 Request  At  Once", Limit(1, "requests", Period("at once")), "1 request at once"),
        (
            "3 requests at once on openai/gpt-4o",
            Limit(3, "requests", Period("at once"), "openai/gpt-4o"),
            "3 requests at once on openai/gpt-4o",
        ),
        (
            "10k tokens/day warn 90% via API on gpt-4*",
            Limit(10_000, "tokens", DAY, "gpt-4*", (90,), "api"),
            "10k tokens/day on gpt-4* via api warn 90%",
        ),
    ],
)
def test_limits_are_read(text: str, limit: Limit, canonical: str) -> None:
    """Each way to write a limit gives the exact amount, and one canonical text."""
    assert parse_limit(text) == limit
    assert str(limit).endswith(canonical)


# Each text, what its error says after quoting it, and a part of what it calls allowed.
BAD_LIMITS = [
    ("", "an empty text is no limit", '"50k tokens/day"'),
    ("unlimited", "is not one limit among others", 'limits = "unlimited" alone'),
    ("50k tokens", "has no period", '"50k tokens/day"'),
    ("50k tokens daily", "has no period", '"50k tokens/day"'),
    ("$20/", "has no period", '"$20/day"'),
    ("/day", 'has nothing before the "/"', '"50k tokens/day"'),
    ("50k tokens per day", 'has "per"', '"50k tokens/day"'),
    ("$20 per month", 'has "per"', '"$20/month"'),
    ("20 requests an hour", 'has "an"', '"20 requests/hour"'),
    ("20 requests a minute", 'has "a"', '"20 requests/minute"'),
    ("50k tokens per request", 'has "per"', '"50k tokens/request"'),
    ("50k tokens/yaer", 'has a wrong period: "yaer" is not a period', 'did you mean "year"?'),
    ("50k tokens/requests", '"requests" is not a period', 'did you mean "request"?'),
    ("50k tokens/decade", '"decade" is not a period', "quarter, year, or a rolling period"),
    ("50k tokens/decade", '"decade" is not a period', '"7d", or "request"'),
    ("3 requests/request", "has requests per request", '"4k tokens/request"'),
    ("$1/request", "has money per request", '"4k tokens/request"'),
    ("4k tokens/request warn 80%", 'has "warn"', 'no "warn" after "request"'),
    ("3 requests at once warn 80%", 'has "warn"', 'no "warn" after "at once"'),
    ("3k tokens at once", 'has no requests before "at once"', '"3 requests at once"'),
    ("$3 dollars at once", "after an amount of money", '"$20/month"'),
    ("3 at once", "has no unit", '"3 requests at once"'),
    ("at once", 'has nothing before the "at once"', '"30 requests/hour"'),
    ("3 requests at once/day", 'has a period after "at once"', '"30 requests/hour"'),
    ("3 requests/at once", 'has "at" after the "/"', 'no "/" there: "3 requests at once"'),
    ("3 requests/day at once", 'has "at" after the period', '"via" and a source'),
    ("3 concurrent requests", "has no period", '"3 requests at once"'),
    ("3 requests on gpt-4 at once", 'has no period before "on"', '"3 requests/day on gpt-4*"'),
    ("5k tokens/day via", 'has nothing after "via"', '"via api"'),
    ("5k tokens/day via apis", 'has the unknown source "apis"', 'did you mean "via api"?'),
    ("5k tokens/day via curl", 'has the unknown source "curl"', ", ".join(SOURCES)),
    ("5k tokens/day via direct", 'has the unknown source "direct"', ", ".join(SOURCES)),
    ("5k tokens/day via api page", 'has more than one word after "via"', "a second limit"),
    ("5k tokens/day via api via page", 'has "via" twice', '"via api"'),
    ("5k tokens via api/day", 'has no period before "via"', '"5k tokens/day via api"'),
    ("50k tokens/days", 'has a wrong period: "days" is not a period', 'did you mean "day"?'),
    ("50k tokens/day/user", '"day/user" is not a period', "minute, hour, day, week, month"),
    ("50k tokens/400d", '"400d" is too long', "from 1 minute to 366 days"),
    ("50k/day", "has no unit", '"50k tokens/day"'),
    ("50k words/day", 'has the unknown unit "words"', "input tokens, output tokens or requests"),
    ("50k tokns/day", 'has the unknown unit "tokns"', 'did you mean "50k tokens"?'),
    ("50k prompt tokens/day", '"prompt tokens"', 'did you mean "50k input tokens"?'),
    ("50k completion tokens/day", "unknown unit", 'did you mean "50k output tokens"?'),
    ("50 k tokens/day", 'has a blank in "50 k"', '"50k tokens"'),
    ("5m tokens/day", 'has "5m" for an amount', '"M" for millions and "k" for thousands: "5M"'),
    ("1,5M tokens/day", 'has "1,5M" for an amount', 'a point before decimals: "1.5M"'),
    ("20,00 tokens/day", 'has "20,00" for an amount', 'commas as in "2,000"'),
    ("1e6 tokens/day", 'has "1e6" for an amount', '"1.5M tokens/month"'),
    ("nan tokens/day", 'has "nan" for an amount', '"1.5M tokens/month"'),
    ("5 tokens 50k/day", "unknown unit", "tokens"),
    ("tokens 50k/day", 'has "tokens" for an amount', '"2,000 tokens/day"'),
    ("٥ tokens/day", 'has "٥" for an amount', "digits"),
    ("-5 tokens/day", 'has the negative amount "-5"', "0, which allows nothing, or more"),
    ("$-5/day", 'has the negative amount "$-5"', "0, which allows nothing, or more"),
    ("0.3 tokens/day", "has a part of a token", '"1.5k tokens/day"'),
    ("50.000 tokens/day", "may mean thousands or decimals", '"50,000" for thousands'),
    ("1.500 requests/hour", "may mean thousands or decimals", '"1,500" for thousands'),
    ("$1.000/day", "may mean thousands or decimals", '"$1,000" for thousands, or "$1"'),
    ("1.2345k tokens/day", "has a part of a token", "whole tokens"),
    ("1.5 requests/day", "has a part of a request", "whole requests"),
    ("$0.1234567/day", "has parts of a micro-dollar", "up to 6 decimals"),
    ("1000000001M tokens/day", "too large to count", "at most 1,000,000,000M"),
    ("9" * 5000 + " tokens/day", "too large to count", "at most 1,000,000,000M"),
    ("$1,000,000,001/day", "too large to count", "at most $1,000,000,000"),
    ("$x/day", 'has "$x" for an amount', '"$0.25/day"'),
    ("$20 tokens/day", 'has "tokens" after an amount of money', '"$20/month" or "50k tokens/day"'),
    ("$ 20/day", 'has "$" for money', '"$20/month"'),
    ("20$/day", 'has "$" for money', '"$20/month"'),
    ("€20/day", 'has "€" for money', "US dollars"),
    ("20 USD/day", 'has "USD" for money', "US dollars"),
    ("20eur/day", 'has "eur" for money', "US dollars"),
    ("50k tokens/day gpt-4", 'has "gpt-4" after the period', '"on" and a model'),
    ("50k tokens/day 80%", 'has "80%" after the period', '"warn" and percentages'),
    ("50k tokens/day for gpt-4", 'has "for" after the period', "on gpt-4* warn 80%"),
    ("50k tokens/day on", 'has nothing after "on"', '"on gpt-4*"'),
    ("50k tokens/day on warn 80%", 'has nothing after "on"', '"on gpt-4*"'),
    ('50k tokens/day on ""', "has an empty model id", '"on gpt-4*"'),
    ('50k tokens/day on "gpt', 'has an open quote: "gpt', 'on "my model*"'),
    ("50k tokens/day on a b", 'has more than one model after "on"', "a second limit"),
    ("50k tokens/day on a, b", 'has more than one model after "on"', "a second limit"),
    ("50k tokens/day on a,b", 'has more than one model after "on"', "in quotes"),
    ("50k tokens/day on a on b", 'has "on" twice', "once"),
    ("50k tokens on openai/gpt-4", 'has no period before "on"', '"50k tokens/day on gpt-4*"'),
    ("50k tokens warn 80%/day", 'has no period before "warn"', '"50k tokens/day warn 70% 90%"'),
    ("50k tokens/day warn", 'has nothing after "warn"', '"warn 70% 90%"'),
    ("50k tokens/day warn 80", 'warns at "80" without "%"', '"warn 80%"'),
    ("50k tokens/day warn 120%", "warns at 120%", "1% to 100%"),
    ("50k tokens/day warn 0%", "warns at 0%", "1% to 100%"),
    ("50k tokens/day warn 70.5%", 'has "70.5%" after "warn"', '"warn 70% 90%"'),
    ("50k tokens/day warn 70%, 90%", 'has "70%," after "warn"', '"warn 70% 90%"'),
    ("50k tokens/day warn 70% warn 90%", 'has "warn" twice', '"warn 70% 90%"'),
]


@pytest.mark.parametrize(("text", "mistake", "allowed"), BAD_LIMITS)
def test_wrong_limits_are_refused(text: str, mistake: str, allowed: str) -> None:
    """Each mistake has its error: where, the text quoted, what is wrong, what would be right."""
    with pytest.raises(ConfigurationError) as caught:
        parse_limit(text, "[group.X] limits")
    assert caught.value.where == "[group.X] limits"
    assert mistake in caught.value.given
    assert text[:50] in caught.value.given
    assert allowed in caught.value.allowed
    assert str(caught.value).startswith("[group.X] limits: ")


@pytest.mark.parametrize(
    ("glob", "names", "matches"),
    [
        ("*", ["gpt-4o"], True),
        ("gpt-4*", ["gpt-4o"], True),
        ("gpt-4*", ["my-assistant", "gpt-4o"], True),
        ("gpt-4*", ["GPT-4o"], False),
        ("gpt-4", ["gpt-4o"], False),
        ("openai/*", ["openai/gpt-4o"], True),
        ("gpt-[45]*", ["gpt-5"], False),
        ("gpt-4*", [], False),
    ],
)
def test_models_are_matched_by_any_of_their_names(
    glob: str, names: list[str], matches: bool
) -> None:
    """The glob has to fit one name of the model as a whole, in its very case."""
    assert Limit(1, "tokens", DAY, glob).matches_model(names) is matches
