"""Periods: the calendar and rolling periods, the window each gives at an instant, time zones.

Nothing here reads a clock: every instant is handed in, as an aware datetime, and every window
comes back in UTC.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from io import BytesIO
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from helpers.errors import ConfigurationError
from helpers.texts import LONGEST_QUOTED, shortened

CLOCK_PERIODS = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1)}
# The longest that each can be, in days: that far on from where one begins, the next has begun
# and the one after it has not, for months as well (31 < 28 + 28).
DATE_PERIODS = {"day": 1, "week": 7, "month": 31, "quarter": 92, "year": 366}
MONTHS_PER_PERIOD = {"month": 1, "quarter": 3, "year": 12}
CALENDAR_PERIODS = (*CLOCK_PERIODS, *DATE_PERIODS)

ROLLING_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
ROLLING_TEXT = re.compile(r"0*(?P<count>[1-9][0-9]{0,6})(?P<unit>[mhd])")
LONGEST_ROLLING = timedelta(days=366)
PERIODS_ALLOWED = (
    "minute, hour, day, week, month, quarter, year, or a rolling period in minutes, hours or days"
    ' such as "90m", "5h", "7d"'
)

ONE_MICROSECOND = timedelta(microseconds=1)
ONE_DAY = timedelta(days=1)
# Limits about one moment have no window. One that is too long will be so an hour later, too;
# running replies are over any second.
MOMENTS = {"request": timedelta(hours=1), "at once": timedelta(seconds=10)}
MIDNIGHT_UTC = datetime(1970, 1, 1, tzinfo=UTC)

# What a zone file for UTC says: version 1, one offset (0 s, no summer time), one name.
UTC_ZONE_FILE = (
    b"TZif" + bytes(16) + b"".join(n.to_bytes(4, "big") for n in (0, 0, 0, 0, 1, 4))
) + (bytes(6) + b"UTC\0")


def utc_zone() -> ZoneInfo:
    """UTC, also on a machine that has no time zone database."""
    try:
        return ZoneInfo("UTC")
    except ZoneInfoNotFoundError:
        return ZoneInfo.from_file(BytesIO(UTC_ZONE_FILE), key="UTC")


@dataclass(frozen=True, slots=True)
class CalendarRules:
    """Where calendar periods begin.

    Args:
        timezone: The zone whose clock and calendar count.
        reset_hour: The local hour, 0 to 23, at which days and longer periods begin.
        week_starts_on: The day on which weeks begin.
        month_starts_on: The day of the month, 1 to 28, on which months, quarters and years begin.
    """

    timezone: ZoneInfo = field(default_factory=utc_zone)
    reset_hour: int = 0
    week_starts_on: Literal["monday", "sunday"] = "monday"
    month_starts_on: int = 1


@dataclass(frozen=True, slots=True)
class Window:
    """One interval in which usage is counted: from `start` until just before `end`, in UTC."""

    start: datetime
    end: datetime

    def contains(self, at: datetime) -> bool:
        return self.start <= at < self.end


@dataclass(frozen=True, slots=True)
class Period:
    """The recurring rule that a limit counts by.

    Args:
        name: ``minute``, ``hour``, ``day``, ``week``, ``month``, ``quarter`` or ``year``
            (calendar), the text of a rolling period as its author wrote it (``90m``, ``24h``,
            ``7d``), or one of `MOMENTS`.
        rolling: The length of a rolling period; None for a calendar period.
    """

    name: str
    rolling: timedelta | None = None

    @property
    def seconds(self) -> int:
        """The length of a rolling period; 0 for a calendar period."""
        return 0 if self.rolling is None else int(self.rolling.total_seconds())

    def window(self, at: datetime, rules: CalendarRules) -> Window:
        """The window that contains `at`.

        Calendar windows partition time: each ends at the instant at which the next begins.

        A rolling window is the `rolling` long stretch that ends with `at`, `at` included. It is
        written with the same half-open bounds as every other window, so it starts and ends a
        microsecond later than a reader may expect: what was used at `at` itself counts, what
        was used exactly one `rolling` earlier has just dropped out.

        What is about one moment has none: its end only says when to ask again.
        """
        if at.tzinfo is None:
            raise ValueError("an instant needs a time zone")
        instant = at.astimezone(UTC)
        if self.rolling is not None:
            end = instant + ONE_MICROSECOND
            return Window(end - self.rolling, end)
        if self.name in MOMENTS:
            return Window(instant, instant + MOMENTS[self.name])
        latest = LATEST_WINDOWS.get((self.name, rules))
        if latest is None or not latest.contains(instant):
            if self.name in CLOCK_PERIODS:
                latest = clock_window(instant, CLOCK_PERIODS[self.name], rules.timezone)
            else:
                latest = date_window(instant, self.name, rules)
            LATEST_WINDOWS[self.name, rules] = latest
        return latest


# The windows that requests fall into now: finding one anew takes many times longer.
LATEST_WINDOWS: dict[tuple[str, CalendarRules], Window] = {}


def clock_window(instant: datetime, length: timedelta, zone: ZoneInfo) -> Window:
    """The minute or hour around `instant`, as the clock on the wall in `zone` shows it.

    Each is one minute or hour of elapsed time: the hour that autumn repeats is counted twice,
    the one that spring skips not at all. Only where the clock is set by a part of an hour
    (Lord Howe's 30 minutes of summer time) does the change cut an hour short.
    """
    offset = zone_offset(instant, zone)
    start = instant - (instant - MIDNIGHT_UTC + offset) % length
    end = start + length
    if (zone_offset(start, zone) - offset) % length:
        start = clock_change(zone, start, instant)
    if (zone_offset(end, zone) - offset) % length:
        end = clock_change(zone, instant, end)
    return Window(start, end)


def date_window(instant: datetime, name: str, rules: CalendarRules) -> Window:
    """The day, week, month, quarter or year around `instant`."""
    since_reset = instant.astimezone(rules.timezone) - timedelta(hours=rules.reset_hour)
    first = first_date(name, since_reset.date(), rules)
    longest = timedelta(days=DATE_PERIODS[name])
    # The local clock alone can name a neighbour: after a change back across the reset hour it
    # shows the old date once more, and a date that the zone skipped has no window at all.
    while (start := reset_instant(first, rules)) > instant:
        first = first_date(name, first - ONE_DAY, rules)
    while True:
        first = first_date(name, first + longest, rules)
        end = reset_instant(first, rules)
        if end > instant:
            return Window(start, end)
        start = end


def first_date(name: str, day: date, rules: CalendarRules) -> date:
    """The local date on which the day, week, month, quarter or year that contains `day` begins."""
    if name in MONTHS_PER_PERIOD:
        first = day.replace(day=rules.month_starts_on)
        if first > day:
            first = (day.replace(day=1) - ONE_DAY).replace(day=rules.month_starts_on)
        return first.replace(month=first.month - (first.month - 1) % MONTHS_PER_PERIOD[name])
    if name == "week":
        days_in = day.weekday() if rules.week_starts_on == "monday" else day.isoweekday() % 7
        return day - timedelta(days=days_in)
    return day


def reset_instant(day: date, rules: CalendarRules) -> datetime:
    """The instant (UTC) at which the clock in the zone first shows the reset hour of `day`."""
    zone = rules.timezone
    clock = (day.year, day.month, day.day, rules.reset_hour)
    # fold=0 is the first of two occurrences; in a gap it has the offset from before the change.
    before = local_offset(datetime(*clock, tzinfo=zone))
    after = local_offset(datetime(*clock, tzinfo=zone, fold=1))
    wall = datetime(*clock, tzinfo=UTC)
    if after <= before:
        return wall - before
    if after - before >= ONE_DAY:
        # The zone crossed the date line and the whole date is missing (Apia, 30 December 2011).
        return reset_instant(day + ONE_DAY, rules)
    return clock_change(zone, wall - after, wall - before)


def zone_offset(instant: datetime, zone: ZoneInfo) -> timedelta:
    return local_offset(instant.astimezone(zone))


def local_offset(local: datetime) -> timedelta:
    offset = local.utcoffset()
    assert offset is not None  # None is for naive datetimes, which `Period.window` refuses.
    return offset


def clock_change(zone: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """The first instant past `before`, and at latest `after`, that has another offset.

    `zoneinfo` doesn't show its transitions; they fall on whole seconds, so halving finds them.
    """
    old = zone_offset(before, zone)
    before, after = before.replace(microsecond=0), after.replace(microsecond=0)
    while after - before > timedelta(seconds=1):
        middle = before + timedelta(seconds=(after - before) // timedelta(seconds=2))
        if zone_offset(middle, zone) == old:
            before = middle
        else:
            after = middle
    return after


def parse_period(text: str, where: str = "period") -> Period:
    """Read ``day`` or ``90m``; upper case and surrounding blanks don't matter.

    Raises:
        ConfigurationError: Anything else, with what was probably meant.
    """
    word = text.strip().lower()
    if word in CALENDAR_PERIODS:
        return Period(word)
    match = ROLLING_TEXT.fullmatch(word)
    if match is None:
        hint = suggested_period(word)
        raise ConfigurationError(
            where,
            f"{quoted_text(text)} is not a period",
            PERIODS_ALLOWED + (f'; did you mean "{hint}"?' if hint else ""),
        )
    rolling = int(match["count"]) * ROLLING_UNITS[match["unit"]]
    if rolling > LONGEST_ROLLING:
        raise ConfigurationError(
            where,
            f"{quoted_text(text)} is too long for a rolling period",
            'from 1 minute to 366 days, such as "90m" or "30d"',
        )
    return Period(match["count"] + match["unit"], rolling)


def suggested_period(word: str) -> str | None:
    """What someone who wrote `word` for a period probably meant, in our notation."""
    if word.startswith("annual"):
        return "year"
    match = re.fullmatch(r"([1-9][0-9]{0,3})\s*([a-z]+)", word)
    if match is None:
        close = difflib.get_close_matches(word, CALENDAR_PERIODS, n=1)
        return close[0] if close else None
    count, unit = int(match[1]), match[2]
    for start, in_days in (("mo", 30), ("w", 7), ("y", 365)):
        if unit.startswith(start):
            return f"{count * in_days}d" if count * in_days <= LONGEST_ROLLING.days else None
    return f"{count}{unit[0]}" if unit[0] in ROLLING_UNITS else None


def quoted_text(text: str) -> str:
    """What an administrator wrote, as an error quotes it back."""
    shown = shortened(" ".join(text.split()), LONGEST_QUOTED)
    return f"'{shown}'" if '"' in shown else f'"{shown}"'


def available_timezones_list() -> list[str]:
    """The IANA names to choose from, "UTC" first; only that one without a zone database."""
    try:
        names = available_timezones()
    except OSError:
        # A database that can't be read is as good as none: the form must open all the same.
        names = set()
    return ["UTC", *sorted(name for name in names if name != "UTC" and is_timezone_choice(name))]


def is_timezone_choice(name: str) -> bool:
    """Whether a name means the same everywhere: not the machine's own zone, no leap seconds."""
    return name not in {"Factory", "localtime", "posixrules"} and not name.startswith(
        ("posix/", "right/")
    )


def find_timezone(name: str) -> ZoneInfo | None:
    """The zone of this IANA name; None where there is none. Takes no time to speak of."""
    if name == "UTC":
        return utc_zone()
    try:
        return ZoneInfo(name) if name and is_timezone_choice(name) else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        # ValueError: a path outside the database; OSError: "Europe", which is a folder.
        return None


def load_timezone(name: str, where: str = "timezone") -> ZoneInfo:
    """The zone of this IANA name.

    Raises:
        ConfigurationError: There is none, with the names that look alike.
    """
    key = name.strip()
    if (zone := find_timezone(key)) is not None:
        return zone
    known = available_timezones_list()
    by_spelling = {known_name.rpartition("/")[2].lower(): known_name for known_name in known}
    by_spelling |= {known_name.lower(): known_name for known_name in known}
    close = difflib.get_close_matches(key.lower().replace(" ", "_"), by_spelling, n=3)
    hints = list(dict.fromkeys(f'"{by_spelling[spelling]}"' for spelling in close))
    raise ConfigurationError(
        where,
        f"{quoted_text(name)} is not a known time zone",
        'an IANA name such as "Europe/Berlin" or "UTC"'
        + (f"; did you mean {' or '.join(hints)}?" if hints else ""),
    )
