"""Tests of helpers.limits.periods."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.errors import ConfigurationError
from helpers.limits.periods import (
    CALENDAR_PERIODS,
    MONTHS_PER_PERIOD,
    CalendarRules,
    Period,
    Window,
    available_timezones_list,
    clock_change,
    load_timezone,
    parse_period,
)

MICROSECOND = timedelta(microseconds=1)
ZONES = available_timezones_list()
BERLIN = CalendarRules(ZoneInfo("Europe/Berlin"))
MONDAY, SUNDAY = "monday", "sunday"


def utc(text: str) -> datetime:
    """An instant from ISO text, with the offset in it or in UTC."""
    at = datetime.fromisoformat(text)
    return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)


def window(period: str, at: str, rules: CalendarRules = BERLIN) -> tuple[str, str]:
    """A window's bounds as the clock on the wall shows them, with their offsets."""
    found = parse_period(period).window(utc(at), rules)
    start, end = (bound.astimezone(rules.timezone) for bound in (found.start, found.end))
    return f"{start:%Y-%m-%d %H:%M%z}", f"{end:%Y-%m-%d %H:%M%z}"


@st.composite
def rules_and_instants(draw: st.DrawFn) -> tuple[CalendarRules, datetime]:
    """Any rules with any instant from 1990 to 2100, every other time near a clock change."""
    zone = ZoneInfo(draw(st.sampled_from(ZONES)))
    rules = CalendarRules(
        zone,
        draw(st.integers(0, 23)),
        draw(st.sampled_from([MONDAY, SUNDAY])),  # type: ignore[arg-type]
        draw(st.integers(1, 28)),
    )
    at = draw(st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)))
    days = [at + timedelta(days=day) for day in range(366)]
    offsets = [day.astimezone(zone).utcoffset() for day in days]
    changes = [
        day
        for day, offset, following in zip(days, offsets, offsets[1:], strict=False)
        if offset != following
    ]
    if changes and draw(st.booleans()):
        minutes = draw(st.integers(-24 * 60, 48 * 60))
        at = draw(st.sampled_from(changes)).replace(minute=0, second=0, microsecond=0)
        at += timedelta(minutes=minutes, microseconds=draw(st.sampled_from([-1, 0, 1])))
    return rules, at


@settings(max_examples=500, deadline=None)
@given(rules_and_instants(), st.sampled_from(CALENDAR_PERIODS))
def test_calendar_windows_partition_time(
    case: tuple[CalendarRules, datetime], period_name: str
) -> None:
    """A window contains its instant and meets both neighbours exactly, in any zone."""
    rules, at = case
    period = Period(period_name)
    found = period.window(at, rules)
    assert found.contains(at)
    assert period.window(found.start, rules) == found
    assert period.window(found.end - MICROSECOND, rules) == found
    assert period.window(found.end, rules).start == found.end
    assert period.window(found.start - MICROSECOND, rules).end == found.start


@settings(max_examples=500, deadline=None)
@given(rules_and_instants(), st.sampled_from(["day", "week", "month", "quarter", "year"]))
def test_days_and_longer_periods_begin_at_the_reset_hour(
    case: tuple[CalendarRules, datetime], period_name: str
) -> None:
    """A window begins when the clock first shows the reset hour, or else at the change over it."""
    rules, at = case
    zone = rules.timezone
    start = Period(period_name).window(at, rules).start
    local = start.astimezone(zone)
    if (local.hour, local.minute, local.fold) == (rules.reset_hour, 0, 0):
        if period_name in MONTHS_PER_PERIOD and not skips_a_date(start, zone):
            assert local.day == rules.month_starts_on
            assert (local.month - 1) % MONTHS_PER_PERIOD[period_name] == 0
        if period_name == "week":
            first = {MONDAY: 0, SUNDAY: 6}[rules.week_starts_on]
            assert local.weekday() == first or skips_a_date(start, zone)
        return
    before = (start - MICROSECOND).astimezone(zone)
    skipped = local.replace(tzinfo=None) - before.replace(tzinfo=None)
    reset = before.replace(hour=rules.reset_hour, minute=0, second=0, microsecond=0, tzinfo=None)
    if reset <= before.replace(tzinfo=None):
        reset += timedelta(days=1)
    assert reset < before.replace(tzinfo=None) + skipped


def skips_a_date(start: datetime, zone: ZoneInfo) -> bool:
    """Whether the clock jumped a whole day in the two days before."""
    later, earlier = start.astimezone(zone), (start - timedelta(days=2)).astimezone(zone)
    return (later.utcoffset() or timedelta()) - (earlier.utcoffset() or timedelta()) >= timedelta(
        days=1
    )


@settings(deadline=None)
@given(rules_and_instants(), st.sampled_from(["minute", "hour"]))
def test_minutes_and_hours_are_elapsed_time(
    case: tuple[CalendarRules, datetime], period_name: str
) -> None:
    """No minute and no hour is longer than one, and the wall clock starts it at zero."""
    rules, at = case
    length = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1)}[period_name]
    found = Period(period_name).window(at, rules)
    assert timedelta(0) < found.end - found.start <= length
    local = found.start.astimezone(rules.timezone)
    cut = found.start.astimezone(rules.timezone).utcoffset() != (
        (found.start - MICROSECOND).astimezone(rules.timezone).utcoffset()
    )
    assert local.second == 0
    assert period_name == "minute" or local.minute == 0 or cut


@pytest.mark.parametrize(
    ("period", "at", "expected"),
    [
        # Spring: 02:00 CET becomes 03:00 CEST on 2025-03-30.
        ("day", "2025-03-30 12:00+02:00", ("2025-03-30 00:00+0100", "2025-03-31 00:00+0200")),
        ("day", "2025-03-30 22:00+00:00", ("2025-03-31 00:00+0200", "2025-04-01 00:00+0200")),
        ("week", "2025-03-30 12:00+02:00", ("2025-03-24 00:00+0100", "2025-03-31 00:00+0200")),
        ("month", "2025-03-30 12:00+02:00", ("2025-03-01 00:00+0100", "2025-04-01 00:00+0200")),
        ("hour", "2025-03-30 01:59+01:00", ("2025-03-30 01:00+0100", "2025-03-30 03:00+0200")),
        ("hour", "2025-03-30 03:00+02:00", ("2025-03-30 03:00+0200", "2025-03-30 04:00+0200")),
        # Autumn: 03:00 CEST becomes 02:00 CET on 2025-10-26; that hour comes twice.
        ("day", "2025-10-26 12:00+01:00", ("2025-10-26 00:00+0200", "2025-10-27 00:00+0100")),
        ("week", "2025-10-26 12:00+01:00", ("2025-10-20 00:00+0200", "2025-10-27 00:00+0100")),
        ("month", "2025-10-26 12:00+01:00", ("2025-10-01 00:00+0200", "2025-11-01 00:00+0100")),
        ("hour", "2025-10-26 02:30+02:00", ("2025-10-26 02:00+0200", "2025-10-26 02:00+0100")),
        ("hour", "2025-10-26 02:30+01:00", ("2025-10-26 02:00+0100", "2025-10-26 03:00+0100")),
        ("minute", "2025-10-26 02:59+02:00", ("2025-10-26 02:59+0200", "2025-10-26 02:00+0100")),
    ],
)
def test_windows_over_both_clock_changes_in_berlin(
    period: str, at: str, expected: tuple[str, str]
) -> None:
    """Windows follow the wall clock in Berlin over both changes: 23 and 25 hour days."""
    assert window(period, at) == expected


@pytest.mark.parametrize(
    "day", [datetime(2026, 3, 29, tzinfo=UTC), datetime(2026, 10, 25, tzinfo=UTC)]
)
@pytest.mark.parametrize("hours", [1, 2, 24, 720])
def test_clock_change_is_found_to_the_second(day: datetime, hours: int) -> None:
    """Both changes of a year, whichever way the clock goes, however far around it is looked."""
    change = day + timedelta(hours=1)
    around = timedelta(hours=hours)
    assert clock_change(ZoneInfo("Europe/Berlin"), change - around, change + around) == change


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("2025-03-30 01:59+01:00", ("2025-03-29 02:00+0100", "2025-03-30 03:00+0200")),
        ("2025-03-30 03:00+02:00", ("2025-03-30 03:00+0200", "2025-03-31 02:00+0200")),
        ("2025-10-26 01:59+02:00", ("2025-10-25 02:00+0200", "2025-10-26 02:00+0200")),
        ("2025-10-26 02:30+02:00", ("2025-10-26 02:00+0200", "2025-10-27 02:00+0100")),
        ("2025-10-26 02:30+01:00", ("2025-10-26 02:00+0200", "2025-10-27 02:00+0100")),
    ],
)
def test_a_reset_hour_within_a_clock_change(at: str, expected: tuple[str, str]) -> None:
    """A missing reset hour begins the day right after the gap, a double one at its first time."""
    assert window("day", at, CalendarRules(ZoneInfo("Europe/Berlin"), reset_hour=2)) == expected


@pytest.mark.parametrize(
    ("period", "at", "rules", "expected"),
    [
        ("month", "2024-02-29 23:59", {}, ("2024-02-01", "2024-03-01")),
        ("month", "2023-02-28 23:59", {}, ("2023-02-01", "2023-03-01")),
        ("day", "2024-02-29 00:00", {}, ("2024-02-29", "2024-03-01")),
        ("month", "2025-12-31 23:59", {}, ("2025-12-01", "2026-01-01")),
        ("month", "2025-01-31 12:00", {}, ("2025-01-01", "2025-02-01")),
        ("month", "2023-02-27 23:59", {"month_starts_on": 28}, ("2023-01-28", "2023-02-28")),
        ("month", "2023-02-28 00:00", {"month_starts_on": 28}, ("2023-02-28", "2023-03-28")),
        ("month", "2024-02-29 00:00", {"month_starts_on": 28}, ("2024-02-28", "2024-03-28")),
        ("month", "2025-01-14 00:00", {"month_starts_on": 15}, ("2024-12-15", "2025-01-15")),
        ("week", "2025-06-08 23:59", {}, ("2025-06-02", "2025-06-09")),
        ("week", "2025-06-08 00:00", {"week_starts_on": SUNDAY}, ("2025-06-08", "2025-06-15")),
        ("week", "2025-06-07 23:59", {"week_starts_on": SUNDAY}, ("2025-06-01", "2025-06-08")),
        ("week", "2024-12-31 12:00", {}, ("2024-12-30", "2025-01-06")),
        ("quarter", "2025-03-31 23:59", {}, ("2025-01-01", "2025-04-01")),
        ("quarter", "2025-12-31 23:59", {}, ("2025-10-01", "2026-01-01")),
        ("quarter", "2025-01-14 00:00", {"month_starts_on": 15}, ("2024-10-15", "2025-01-15")),
        ("quarter", "2024-02-29 12:00", {"month_starts_on": 28}, ("2024-01-28", "2024-04-28")),
        ("year", "2024-12-31 23:59", {}, ("2024-01-01", "2025-01-01")),
        ("year", "2025-01-01 00:00", {}, ("2025-01-01", "2026-01-01")),
        ("year", "2025-01-14 00:00", {"month_starts_on": 15}, ("2024-01-15", "2025-01-15")),
    ],
)
def test_month_ends_leap_days_and_week_starts(
    period: str, at: str, rules: dict[str, object], expected: tuple[str, str]
) -> None:
    """Weeks, months, quarters and years begin on their day, over leap days and short months."""
    found = parse_period(period).window(utc(at), CalendarRules(**rules))  # type: ignore[arg-type]
    assert found == Window(utc(expected[0]), utc(expected[1]))


@pytest.mark.parametrize(
    ("period", "at", "expected"),
    [
        ("day", "2025-06-02 05:59", ("2025-06-01 06:00", "2025-06-02 06:00")),
        ("week", "2025-06-02 05:59", ("2025-05-26 06:00", "2025-06-02 06:00")),
        ("month", "2025-06-01 05:59", ("2025-05-01 06:00", "2025-06-01 06:00")),
        ("month", "2025-06-01 06:00", ("2025-06-01 06:00", "2025-07-01 06:00")),
        ("quarter", "2025-07-01 05:59", ("2025-04-01 06:00", "2025-07-01 06:00")),
        ("year", "2026-01-01 05:59", ("2025-01-01 06:00", "2026-01-01 06:00")),
        ("hour", "2025-06-01 05:59", ("2025-06-01 05:00", "2025-06-01 06:00")),
    ],
)
def test_the_reset_hour_moves_days_weeks_and_months(
    period: str, at: str, expected: tuple[str, str]
) -> None:
    """Before the reset hour it is still the day, week and month before."""
    found = parse_period(period).window(utc(at), CalendarRules(reset_hour=6))
    assert found == Window(utc(expected[0]), utc(expected[1]))


@pytest.mark.parametrize(
    ("zone", "period", "at", "expected"),
    [
        ("Asia/Kolkata", "hour", "2025-06-01 00:00", ("2025-05-31 23:30", "2025-06-01 00:30")),
        ("Asia/Kathmandu", "hour", "2025-06-01 00:20", ("2025-06-01 00:15", "2025-06-01 01:15")),
        ("Asia/Kathmandu", "day", "2025-06-01 00:20", ("2025-05-31 18:15", "2025-06-01 18:15")),
        # Lord Howe's clock moves by half an hour: 02:00 becomes 01:30 on 2025-04-06 (15:00 UTC).
        ("Australia/Lord_Howe", "hour", "2025-04-05 14:59", ("2025-04-05 14:00", "2025-04-05 15")),
        ("Australia/Lord_Howe", "hour", "2025-04-05 15:00", ("2025-04-05 15", "2025-04-05 15:30")),
        (
            "Australia/Lord_Howe",
            "hour",
            "2025-04-05 15:30",
            ("2025-04-05 15:30", "2025-04-05 16:30"),
        ),
        # Samoa had no 30 December 2011, Kwajalein no 21 August 1993.
        ("Pacific/Apia", "day", "2011-12-30 09:59", ("2011-12-29 10:00", "2011-12-30 10:00")),
        ("Pacific/Apia", "day", "2011-12-30 10:00", ("2011-12-30 10:00", "2011-12-31 10:00")),
        ("Pacific/Apia", "month", "2011-12-30 10:00", ("2011-12-01 10:00", "2011-12-31 10:00")),
        ("Pacific/Kwajalein", "day", "1993-08-21 11:59", ("1993-08-20 12:00", "1993-08-21 12:00")),
        ("Pacific/Kwajalein", "day", "1993-08-21 12:00", ("1993-08-21 12:00", "1993-08-22 12:00")),
        # Nuuk's clock skips the last hour of a date, Havana's the first one.
        ("America/Nuuk", "day", "2025-03-30 00:59", ("2025-03-29 02:00", "2025-03-30 01:00")),
        ("America/Havana", "day", "2025-03-09 05:00", ("2025-03-09 05:00", "2025-03-10 04:00")),
        # St John's set its clock back at 00:01: 00:00 came twice, the second time without effect.
        ("America/St_Johns", "day", "2010-11-07 03:00", ("2010-11-07 02:30", "2010-11-08 03:30")),
    ],
)
def test_unusual_zones(zone: str, period: str, at: str, expected: tuple[str, str]) -> None:
    """Odd offsets, half-hour changes, changes at midnight and missing dates are all met."""
    found = parse_period(period).window(utc(at), CalendarRules(ZoneInfo(zone)))
    assert found == Window(utc(expected[0]), utc(expected[1]))


def test_a_missing_date_takes_no_part_of_a_day_with_it() -> None:
    """With a reset hour at six, Samoa's 29 December lasts until six on the 31st: 24 hours."""
    rules = CalendarRules(ZoneInfo("Pacific/Apia"), reset_hour=6)
    assert window("day", "2011-12-30 12:00", rules) == (
        "2011-12-29 06:00-1000",
        "2011-12-31 06:00+1400",
    )


def test_a_reset_hour_that_the_next_date_replaces() -> None:
    """Where the clock jumps from 23:00 to midnight, the day of reset hour 23 begins at midnight."""
    rules = CalendarRules(ZoneInfo("America/Nuuk"), reset_hour=23)
    assert window("day", "2025-03-30 01:00", rules) == (
        "2025-03-30 00:00-0100",
        "2025-03-30 23:00-0100",
    )


@pytest.mark.parametrize("text", ["1m", "90m", "5h", "24h", "7d", "366d"])
def test_a_rolling_window_ends_with_its_instant(text: str) -> None:
    """A rolling window counts the instant itself, and no longer what is one period old."""
    period = parse_period(text)
    assert period.rolling is not None
    at = utc("2025-03-30 12:34:56.789+02:00")
    found = period.window(at, BERLIN)
    assert found.contains(at)
    assert not found.contains(at + MICROSECOND)
    assert not found.contains(at - period.rolling)
    assert found.contains(at - period.rolling + MICROSECOND)
    assert found.end - found.start == period.rolling


def test_an_instant_may_come_in_any_zone_but_needs_one() -> None:
    """Windows come back in UTC whatever zone the instant has; a naive one is refused."""
    day = parse_period("day")
    berlin_noon = datetime(2025, 6, 1, 12, tzinfo=ZoneInfo("Europe/Berlin"))
    assert day.window(berlin_noon, BERLIN) == day.window(berlin_noon.astimezone(UTC), BERLIN)
    assert day.window(berlin_noon, BERLIN).start.tzinfo is UTC
    with pytest.raises(ValueError, match="time zone"):
        day.window(datetime(2025, 6, 1), BERLIN)


@pytest.mark.parametrize(
    ("text", "name", "rolling"),
    [
        ("day", "day", None),
        (" Month ", "month", None),
        ("Quarter", "quarter", None),
        ("year", "year", None),
        ("MINUTE", "minute", None),
        ("90m", "90m", timedelta(minutes=90)),
        ("090M", "90m", timedelta(minutes=90)),
        ("5H", "5h", timedelta(hours=5)),
        ("24h", "24h", timedelta(days=1)),
        ("7d", "7d", timedelta(days=7)),
        ("366d", "366d", timedelta(days=366)),
    ],
)
def test_periods_are_read(text: str, name: str, rolling: timedelta | None) -> None:
    """Names and rolling texts are read in any case, and named in one way."""
    assert parse_period(text) == Period(name, rolling)
    assert parse_period(name) == Period(name, rolling)


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("days", 'did you mean "day"?'),
        ("daily", 'did you mean "day"?'),
        ("monthly", 'did you mean "month"?'),
        ("yearly", 'did you mean "year"?'),
        ("annually", 'did you mean "year"?'),
        ("2 years", '"5h", "7d"'),
        ("2w", 'did you mean "14d"?'),
        ("3 months", 'did you mean "90d"?'),
        ("24 hours", 'did you mean "24h"?'),
        ("30s", '"5h", "7d"'),
        ("0h", '"5h", "7d"'),
        ("-5h", '"5h", "7d"'),
        ("1.5h", '"5h", "7d"'),
        ("٥h", '"5h", "7d"'),
        ("", '"5h", "7d"'),
        ("fortnight", '"5h", "7d"'),
        ("367d", "from 1 minute to 366 days"),
        ("999999999d", '"5h", "7d"'),
    ],
)
def test_wrong_periods_are_refused(text: str, allowed: str) -> None:
    """A wrong period is quoted, and the error says what was probably meant."""
    with pytest.raises(ConfigurationError) as caught:
        parse_period(text, "somewhere")
    assert caught.value.where == "somewhere"
    assert f'"{text}"' in caught.value.given
    assert caught.value.allowed.endswith(allowed) or allowed in caught.value.allowed


def test_time_zones_to_choose_from() -> None:
    """The list starts with UTC, holds no machine-dependent names, and every name loads."""
    assert ZONES[0] == "UTC"
    assert ZONES[1:] == sorted(set(ZONES) - {"UTC"})
    assert {"Europe/Berlin", "America/New_York", "Asia/Kathmandu"} <= set(ZONES)
    assert not [name for name in ZONES if name.startswith(("posix/", "right/"))]
    assert not {"Factory", "localtime"} & set(ZONES)
    assert all(load_timezone(name).key == name for name in ZONES)


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("Berlin", 'did you mean "Europe/Berlin"'),
        ("Europe/Berln", 'did you mean "Europe/Berlin"'),
        ("new york", 'did you mean "America/New_York"'),
        ("Europe", "did you mean"),
        ("UTC+1", "did you mean"),
        ("right/UTC", "IANA name"),
        ("../../etc/passwd", "IANA name"),
        ("/etc/localtime", "IANA name"),
        ("", "IANA name"),
        ("\0", "IANA name"),
        ("ö", "IANA name"),
    ],
)
def test_unknown_time_zones_are_refused(name: str, allowed: str) -> None:
    """A name that is no zone's is refused, with names that look alike."""
    with pytest.raises(ConfigurationError) as caught:
        load_timezone(name)
    assert caught.value.where == "timezone"
    assert "is not a known time zone" in caught.value.given
    assert allowed in caught.value.allowed


def test_without_a_time_zone_database() -> None:
    """A machine without any time zone database still has UTC, and its windows."""
    program = """
import sys
sys.modules["tzdata"] = None
from datetime import UTC, datetime
from helpers.limits.periods import CalendarRules, available_timezones_list
from helpers.limits.periods import load_timezone, parse_period
assert available_timezones_list() == ["UTC"]
assert load_timezone("UTC").key == "UTC"
window = parse_period("day").window(datetime(2025, 6, 1, 12, tzinfo=UTC), CalendarRules())
print(window.start.isoformat(), window.end.isoformat())
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONTZPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.split() == ["2025-06-01T00:00:00+00:00", "2025-06-02T00:00:00+00:00"]
