"""
title: Usage Limits
author: open-webui-usage-limits contributors
version: 0.2.0
license: MIT
description: Limits on tokens, requests and money, per user, group, role and model.
required_open_webui_version: 0.10.0

GENERATED from helpers/ by scripts/bundle.py: change it there, not here.
Paste the whole file into Open WebUI: Admin Panel, Functions, Create.
"""

# fmt: off

# What decides about a request, by line:
# 15985  filter                       Open WebUI's hooks, and nothing but hooks.
# 15645  openwebui.admission          From a request to a reply: whose limits count, how much is …
#  1525  limits.policy                Which limits apply to this user, these groups, this role and …
#  1783  limits.decisions             Used and reserved amounts against limits: what is decided, …
#  6182  ledger.ledger                Reserve, settle, grow, renew and sweep, each one transaction.
#  4658  ledger.limit_states          Where limits stand: what is used, what replies still running …
# 11545  openwebui.accounting         Sees every reply to its end, whatever becomes of its client, …
#  2824  metering.usage               What one reply is charged for, added up from its stream …
#  3130  metering.charges             What one reply costs, in tokens, in money and toward limits.
# All else:
#   175  errors                       The exceptions, each carrying its data.
#   236  logs                         The one logger; its name is how Open WebUI's log shows where …
#   241  texts                        Texts from outside: what a client, a browser or a provider …
#   267  limits.periods               The calendar and rolling periods, the window each gives at …
#   554  limits.amounts               1.5M tokens or $0.25 as a limit writes them, to whole …
#   691  limits.globs                 Which model ids a pattern of an administrator's fits.
#   713  limits.limit                 One limit in its notation, such as "50k tokens/day on gpt-4* …
#  1041  limits.policies              The limits of groups, roles, users and pools, and what …
#  1120  limits.policies_text         TOML to policies, and what an error says about it.
#  1943  metering.pieces              What a text costs at least, by the first steps of the …
#  2101  metering.estimates           Token estimates for texts and prompts whose provider reports …
#  2350  metering.provider_usage      Usage as each provider reports it: input, output, cached, …
#  2603  metering.stream_events       What a stream event or a whole answer holds: produced text, …
#  3238  ledger.database              An engine for a database URL as Open WebUI spells it.
#  3322  ledger.transactions          One transaction with its locks and its retries, alike on …
#  3623  ledger.tables                The ledger's own tables and their numbered migrations.
#  3858  ledger.identities            Whom the names in the policies mean, also after a rename.
#  4289  ledger.counters              Sums of settled records per scope, model glob and window.
#  4928  ledger.records               One row per reply, reserved when it is admitted and closed …
#  5070  ledger.many_limits           Many limits at once: where they stand at one moment of the …
#  5322  ledger.rollups               What the records of a stretch of time add up to, once …
#  5494  ledger.reports               What records add up to by user, model, day, group and …
#  5765  ledger.report_rows           Sums with the names of what they are of, as JSON and CSV.
#  5871  ledger.grants                What administrators add to limits, reset and take back; …
#  6035  ledger.reply_lengths         How long the replies of each model are of late, by what is …
#  6122  ledger.policy_versions       The last policies texts that were saved on the page, to go …
#  6679  openwebui.wording            What one language has to say, and the rules that tell its …
#  6863  openwebui.languages.en       18 languages.
#  7507  openwebui.languages.catalog  Languages: all there are, and which one a reader gets.
#  7552  openwebui.page_assets        The usage page: one HTML page with its style, its script and …
#  8460  openwebui.messages           Every sentence that a user or an administrator reads, with …
#  8941  openwebui.alerts             Tells the administrator's webhook that a user has crossed a …
#  9022  openwebui.refusals           Refusals and rate headers as the programs of each protocol …
#  9115  openwebui.http_requests      The HTTP requests that the layer serves: their state, path …
#  9222  openwebui.valves             What the administrator and each user can set, and how bad …
#  9616  openwebui.host_versions      What is special about Open WebUI's versions, and which of …
#  9685  openwebui.replies            One reply from its admission to its end.
# 10130  openwebui.passthrough        The paths by which Open WebUI lets its users reach a model …
# 10366  openwebui.host               The only place that knows Open WebUI: its database, groups, …
# 10832  openwebui.stream_usage       Usage in streams: which models' providers refuse to be asked …
# 10957  openwebui.endings            A stream that may go no further ends as its protocol ends …
# 11076  openwebui.model_calls        The answer or the failure of each call that Open WebUI makes …
# 11211  openwebui.stopping           One process, many pastes: who has a ledger in it, so that …
# 11269  openwebui.chat_events        What the chat page shows of a reply's limits, as toasts and …
# 11351  openwebui.ledger_worker      The ledger's worker: runs the ledger off the event loop, and …
# 12030  openwebui.ledgers            What one filter has opened, by the database that its valves …
# 12068  openwebui.directory          All users of Open WebUI with their groups, read at once.
# 12171  openwebui.page_limits        Limits as the pages have them: those of many users at one …
# 12353  openwebui.page_answers       The pages' requests and answers: what is read of the one, …
# 12458  openwebui.page_data          What the usage pages show, as JSON has it; everything here …
# 12831  openwebui.page_grants        Grants on the page: what administrators add to limits, begin …
# 13039  openwebui.page_status        How the filter stands in its host: versions, what is leaned …
# 13112  openwebui.usage_command      `/usage` as a message in a chat: the user's limits and use …
# 13280  openwebui.valves_form        Who is near a limit at its top, and why a save was refused.
# 13376  openwebui.simulation         What is on record, replayed against a policies text.
# 13706  openwebui.policy_editor      The policies editor: a text checked, explained, replayed and …
# 14063  openwebui.answers            Answers on their way to the client: read for their usage, or …
# 14245  openwebui.callers            Who asks at a pass-through path, by Open WebUI's own rules.
# 14312  openwebui.metered_calls      Pass-through calls on their way to the provider, and their …
# 14439  openwebui.passthrough_guard  The guard of pass-through calls: admits, meters and settles …
# 14719  openwebui.pages              The usage pages: `/usage-limits` and its JSON, behind Open …
# 14979  openwebui.realtime           Voice calls: Open WebUI's socket to a realtime model, with a …
# 15140  openwebui.middleware         One ASGI layer around Open WebUI, for the paths that its …
# 15292  openwebui.task_calls         The titles, tags, queries and the like that Open WebUI asks …
# 15572  openwebui.image_calls        The pictures that a chat has made, by its switch or as a …

from __future__ import annotations

import asyncio
import atexit
import base64
import csv
import difflib
import hashlib
import heapq
import inspect
import json
import logging
import math
import operator
import os
import posixpath
import random
import re
import secrets
import signal
import sys
import threading
import time
import tomllib
import unicodedata
import uuid
from collections import OrderedDict, defaultdict, deque
from collections.abc import (
    AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping, MutableMapping,
    Sequence
)
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from copy import copy
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_UP, Decimal, InvalidOperation
from functools import lru_cache, partial, reduce, wraps
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO, StringIO
from itertools import islice, pairwise
from json.encoder import encode_basestring
from operator import add, itemgetter
from queue import Empty, Full, Queue
from string import Formatter
from threading import Lock, Thread
from types import FrameType, ModuleType
from typing import Annotated, Any, ClassVar, Generic, Literal, NamedTuple, TypeVar
from urllib.parse import parse_qs, unquote
from weakref import finalize, ref
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import requests
from fastapi import Depends, FastAPI, HTTPException
from fastapi.exception_handlers import http_exception_handler
from pydantic import (
    BaseModel, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler, ModelWrapValidatorHandler,
    SerializerFunctionWrapHandler, TypeAdapter, ValidationError, ValidationInfo, field_validator,
    model_serializer, model_validator
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from sqlalchemy import (
    URL, BigInteger, BindParameter, Boolean, Column, ColumnElement, CompoundSelect, Connection,
    Dialect, Engine, FromClause, Index, Integer, MetaData, Row, Select, Table, Text, Update, and_,
    any_, bindparam, case, cast, create_engine, event, func, literal, literal_column, make_url,
    null, or_, select, true, type_coerce, union_all
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.dialects.postgresql import insert as insert_on_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_on_sqlite
from sqlalchemy.exc import (
    ArgumentError, DataError, DBAPIError, IntegrityError, NotSupportedError, ProgrammingError,
    SQLAlchemyError, StatementError
)
from sqlalchemy.pool import NullPool, QueuePool
from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

# ======================================= helpers/errors.py ========================================
# The exceptions, each carrying its data.

class UsageLimitsError(Exception):
    """Base of every exception that this plugin raises itself."""

class ConfigurationError(UsageLimitsError, ValueError):
    """A setting that can't be used.

    It is a `ValueError` so that pydantic reports it for the field it came from.

    Args:
        where: The valve, table or line, for example ``[group.Students] limits``.
        given: What stands there.
        allowed: What could stand there, with an example.
    """

    def __init__(self, where: str, given: str, allowed: str) -> None:
        self.where = where
        self.given = given
        self.allowed = allowed
        super().__init__(f"{where}: {given}; allowed: {allowed}")

class LedgerError(UsageLimitsError):
    """The ledger's database can't be reached, or is too busy to answer in time."""

class LedgerBusyError(LedgerError):
    """The database is there, and this process has more to write than it can in time.

    Whoever may send requests can bring that about: it is no outage, in which they may pass.
    """

class LedgerDataError(UsageLimitsError):
    """The ledger's database is there and refuses the statement or a value in it.

    Not a `LedgerError`: what nobody can write down must never pass as an outage does.
    """

class HostDatabaseError(UsageLimitsError):
    """Open WebUI's own database can't be read.

    Not a `LedgerError` either: without valves nobody knows what may pass.
    """

class UsageLimitExceeded(UsageLimitsError):
    """A request that a hard limit refuses.

    Args:
        message: The sentence that the user reads.
        reset_at: The instant (UTC) at which the limit admits requests again.
        retry_after: Seconds until then, at least 1.
    """

    status_code = 429

    def __init__(self, message: str, reset_at: datetime, retry_after: float) -> None:
        super().__init__(message)
        self.message = message
        self.reset_at = reset_at
        self.retry_after = max(1, math.ceil(retry_after))

# ======================================== helpers/logs.py =========================================
# The one logger; its name is how Open WebUI's log shows where a line comes from.

log = logging.getLogger("usage_limits")

# ======================================== helpers/texts.py ========================================
# Texts from outside: what a client, a browser or a provider wrote, made safe to store.

# The ledger's ids: Open WebUI's own have 36 characters, some with a short prefix.
LONGEST_ID = 200
# Ids of models, e-mail addresses, names of policies.
LONGEST_NAME = 1_000
# What somebody wrote, as an error quotes it.
LONGEST_QUOTED = 60
# NUL, which PostgreSQL doesn't store, and lone surrogates, which no database does.
UNSTORABLE = re.compile("[\0\ud800-\udfff]")

def clean_text(value: object, longest: int) -> str:
    """A text that every database can store, of at most `longest` characters.

    Anything but a text becomes an empty one: nobody but a liar sends it.
    """
    if not isinstance(value, str):
        return ""
    cut = value[:longest]  # first: the rest may be megabytes
    return cut if cut.isprintable() else UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", cut)

def shortened(text: str, longest: int) -> str:
    """A text to be shown, with an ellipsis where it is cut."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"

# =================================== helpers/limits/periods.py ====================================
# Periods: the calendar and rolling periods, the window each gives at an instant, time zones.

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

# =================================== helpers/limits/amounts.py ====================================
# Amounts: 1.5M tokens or $0.25 as a limit writes them, to whole numbers and back.

AMOUNT_TEXT = re.compile(
    r"""
    (?P<whole> [0-9]{1,3} (?: ,[0-9]{3} )+    # a comma only between groups of three digits:
             | [0-9]+ (?: _[0-9]+ )* )        # "1,5M" means 1.5M in half of the world
    (?: \. (?P<fraction> [0-9]+ ) )?
    (?P<suffix> [kKM]? )                      # not "m", which could be milli or million
    """,
    re.VERBOSE,
)
# "50.000" is fifty to one half of the world and fifty thousand to the other.
AMBIGUOUS_AMOUNT = re.compile(r"[1-9][0-9]{0,2}\.[0-9]{3}")
DECIMALS_OF_SUFFIX = {"": 0, "k": 3, "K": 3, "M": 6}
DECIMALS_OF_DOLLAR = 6
LARGEST_AMOUNT = 10**15
LONGEST_AMOUNT_TEXT = 40

class NotationError(Exception):
    """What is wrong with a part of a limit; whoever has the whole text turns it into an error.

    Args:
        reason: Continues a sentence that begins with the limit's text.
        allowed: What could stand there instead, with an example.
    """

    def __init__(self, reason: str, allowed: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.allowed = allowed

def count_text(amount: int) -> str:
    """A count as one writes it in a limit: 50k, 1.5M, 12,345."""
    if amount >= 10**6 and amount % 10**4 == 0:
        return f"{decimal_text(amount, 6)}M"
    if amount >= 10**3 and amount % 10**2 == 0:
        return f"{decimal_text(amount, 3)}k"
    return f"{amount:,}"

def dollars_text(micro_dollars: int) -> str:
    """Money as one writes it in a limit: $20, $0.50, $0.000125, $2.1250."""
    text = decimal_text(micro_dollars, DECIMALS_OF_DOLLAR)
    return f"${text}0" if text[-2:-1] == "." or AMBIGUOUS_AMOUNT.fullmatch(text) else f"${text}"

def decimal_text(number: int, decimals: int) -> str:
    """`number` divided by ten to the `decimals`: without loss, without trailing zeros."""
    whole, fraction = divmod(number, 10**decimals)
    return f"{whole:,}" + f".{fraction:0{decimals}}".rstrip("0").rstrip(".")

def read_count(text: str, counted: str) -> int:
    """A whole number of what is `counted` (a token, a request).

    Raises:
        NotationError: It isn't one.
    """
    amount, lost = scaled_amount(text, sign="", decimals=0)
    if lost:
        raise NotationError(
            f"has a part of a {counted}", f'whole {counted}s, as in "1.5k {counted}s/day"'
        )
    if amount > LARGEST_AMOUNT:
        raise too_large("1,000,000,000M")
    return amount

def read_dollars(text: str) -> int:
    """The micro-dollars in what follows a dollar sign.

    Raises:
        NotationError: It isn't an amount.
    """
    amount, lost = scaled_amount(text, sign="$", decimals=DECIMALS_OF_DOLLAR)
    if lost:
        raise NotationError(
            "has parts of a micro-dollar", 'dollars with up to 6 decimals, as in "$0.25/day"'
        )
    if amount > LARGEST_AMOUNT:
        raise too_large("$1,000,000,000")
    return amount

def scaled_amount(text: str, sign: str, decimals: int) -> tuple[int, int]:
    """The amount times ten to the `decimals`, and what doesn't fit into a whole number then.

    Whole numbers throughout: a float would turn $0.29 into 289,999 micro-dollars.
    """
    if text.startswith(("-", "\u2212")):
        raise NotationError(
            f"has the negative amount {quoted_text(sign + text)}",
            '0, which allows nothing, or more; for no limit at all write limits = "unlimited"',
        )
    match = AMOUNT_TEXT.fullmatch(text)
    if match is None:
        raise amount_error(text, sign)
    if AMBIGUOUS_AMOUNT.fullmatch(text):
        raise ambiguous_amount(text, sign)
    fraction = match["fraction"] or ""
    digits = match["whole"].replace("_", "").replace(",", "") + fraction
    if len(digits) > LONGEST_AMOUNT_TEXT:
        # int() would refuse thousands of digits with an error of its own.
        return LARGEST_AMOUNT + 1, 0
    decimals += DECIMALS_OF_SUFFIX[match["suffix"]] - len(fraction)
    if decimals >= 0:
        return int(digits + "0" * decimals), 0
    return divmod(int(digits), int("1" + "0" * -decimals))

def amount_error(text: str, sign: str) -> NotationError:
    """What is wrong with an amount that isn't one."""
    reason = f"has {quoted_text(sign + text)} for an amount"
    as_million, as_decimal = f"{text[:-1]}M", text.replace(",", ".", 1)
    if text.endswith("m") and AMOUNT_TEXT.fullmatch(as_million):
        allowed = f'"M" for millions and "k" for thousands: "{sign}{as_million}"'
    elif AMOUNT_TEXT.fullmatch(as_decimal):
        allowed = f'a point before decimals: "{sign}{as_decimal}"; commas as in "2,000"'
    elif sign:
        allowed = 'dollars in digits, as in "$20/month" or "$0.25/day"'
    else:
        allowed = 'digits, with k or M for more, as in "2,000 tokens/day" or "1.5M tokens/month"'
    return NotationError(reason, allowed)

def ambiguous_amount(text: str, sign: str) -> NotationError:
    """What is wrong with a point before three digits, which may be meant as a comma."""
    whole, _, fraction = text.partition(".")
    allowed = f'"{sign}{whole},{fraction}" for thousands'
    if not fraction.strip("0"):
        allowed += f', or "{sign}{whole}"'
    elif sign:
        allowed += f', or "{sign}{text}0"'
    return NotationError(
        f"has {quoted_text(sign + text)}, which may mean thousands or decimals", allowed
    )

def too_large(largest: str) -> NotationError:
    return NotationError(
        "has an amount too large to count",
        f'at most {largest}; for no limit at all write limits = "unlimited"',
    )

# ==================================== helpers/limits/globs.py =====================================
# Globs: which model ids a pattern of an administrator's fits.

@lru_cache(maxsize=1024)
def compiled_glob(glob: str) -> re.Pattern[str]:
    """A pattern in which only ``*`` and ``?`` are special.

    ``[`` and ``]`` are not: ids such as ``m[1]`` and ``[free] gpt-4o`` are common. The shortest
    text before each part is never given back, as in Python's own fnmatch: many ``*`` stay fast.
    """
    first, *others = [re.escape(part).replace(r"\?", ".") for part in glob.split("*")]
    if not others:
        return re.compile(first, re.DOTALL)
    *middle, last = others
    return re.compile(
        first + "".join(f"(?>.*?{part})" for part in middle if part) + f".*{last}", re.DOTALL
    )

def glob_fits(glob: str, name: str) -> bool:
    """Whether a glob, or the exact id, fits a model's id; case matters, as it does to the host."""
    return glob in ("*", name) or compiled_glob(glob).fullmatch(name) is not None

# ==================================== helpers/limits/limit.py =====================================
# One limit in its notation, such as "50k tokens/day on gpt-4* warn 70% 90%".

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

# =================================== helpers/limits/policies.py ===================================
# Policies: the limits of groups, roles, users and pools, and what models cost, as values.

@dataclass(frozen=True, slots=True)
class Policy:
    """The limits that one table gives to a user, a group or a role.

    Args:
        name: What users read: the group's name, the role, the e-mail address.
        kind: Which sort of table it comes from; ``default``: the two simple valves.
        limits: All of them apply; None: unlimited.
        priority: Of groups only: the lowest among a user's groups wins.
    """

    name: str
    kind: Literal["user", "group", "role", "default"]
    limits: tuple[Limit, ...] | None
    priority: int = 0

@dataclass(frozen=True, slots=True)
class Pool:
    """Limits on what many users use together: a group's members, or everyone (group None)."""

    kind: ClassVar[Literal["pool"]] = "pool"
    name: str
    group: str | None
    limits: tuple[Limit, ...]

@dataclass(frozen=True, slots=True)
class ModelRule:
    """What the models that `glob` fits cost, in $ per million tokens, and how they count."""

    glob: str
    input_price: Decimal | None = None
    output_price: Decimal | None = None
    cached_input_price: Decimal | None = None
    weight: Decimal = Decimal(1)
    cache_write_price: Decimal | None = None  # as the input, if not said
    reasoning_price: Decimal | None = None  # as the output, if not said

    @property
    def is_priced(self) -> bool:
        of_input = (self.input_price, self.cached_input_price, self.cache_write_price)
        prices = (*of_input, self.output_price, self.reasoning_price)
        return any(price is not None for price in prices)

@dataclass(frozen=True, slots=True)
class PolicySet:
    """Everything that the policies text says.

    Args:
        groups: By the group's id or name as `fold_name` has it.
        roles: By role.
        users: By user id, or by e-mail address as `fold_name` has it.
        pools: In the order of the text.
        models: In the order of the text.
        tasks_counted: Whether titles, tags and the like count toward limits.
    """

    groups: Mapping[str, Policy] = field(default_factory=dict)
    roles: Mapping[str, Policy] = field(default_factory=dict)
    users: Mapping[str, Policy] = field(default_factory=dict)
    pools: tuple[Pool, ...] = ()
    models: tuple[ModelRule, ...] = ()
    tasks_counted: bool = False

    @property
    def tables(self) -> tuple[Policy | Pool, ...]:
        """Whatever has limits."""
        return (*self.users.values(), *self.groups.values(), *self.roles.values(), *self.pools)

def fold_name(name: str) -> str:
    """A group's name or an e-mail address without regard to case and outer blanks.

    Open WebUI stores addresses in lower case. `casefold` would take "ſ" for "s" and so one
    user for another; so would a normal form, since two accounts may differ by nothing else.
    """
    return name.strip().lower()

# ================================ helpers/limits/policies_text.py =================================
# Policies text: TOML to policies, and what an error says about it.

# After the small numbers of the groups that were ranked on purpose, before any meant to be last.
DEFAULT_GROUP_PRIORITY = 100
LARGEST_NUMBER = 1_000_000
TABLE_EXAMPLES = {
    "group": '[group."Research Lab"]',
    "role": "[role.user]",
    "user": '[user."ann@example.org"]',
    "pool": "[pool.everyone]",
    "model": '[model."gpt-4*"]',
}
LIMITS_EXAMPLE = 'limits = ["50k tokens/day"]'
LIMITS_ALLOWED = 'a list such as ["50k tokens/day", "1M tokens/month"], or "unlimited"'
POOL_LIMITS_ALLOWED = 'a list such as ["100M tokens/month"]'
# What word processors make of ".
CURLY_QUOTES = re.compile("[\u2018-\u201f\u00ab\u00bb]")
PRICE_ALLOWED = "$ per million tokens, from 0 to 1,000,000, such as 2.5"

# Open WebUI's own; "pending" users can't chat yet, but an API key of theirs may have been kept.
ROLES = ("user", "admin", "pending")

class PoliciesError(ConfigurationError):
    """All that is wrong with a policies text, a line for each.

    Args:
        first: Its `where`, `given` and `allowed` are this error's.
        others: The others, in the order of the text.
    """

    def __init__(self, first: ConfigurationError, *others: ConfigurationError) -> None:
        super().__init__(first.where, first.given, first.allowed)
        self.errors = (first, *others)

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self.errors)

def policies_error(where: str, given: str, allowed: str) -> PoliciesError:
    """The error where one thing is wrong."""
    return PoliciesError(ConfigurationError(where, given, allowed))

def decimal_of_whole_number(value: object) -> object:
    """A whole number as Decimal; anything else is left for pydantic to judge."""
    return Decimal(value) if isinstance(value, int) and not isinstance(value, bool) else value

BoundedNumber = Annotated[
    Decimal, BeforeValidator(decimal_of_whole_number), Field(ge=0, le=LARGEST_NUMBER)
]

class PolicyTable(BaseModel):
    """The keys of a table; a field's description is what an error calls allowed."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

class SubjectTable(PolicyTable):
    """A role's or a user's table."""

    limits: str | list[str] = Field(description=LIMITS_ALLOWED)

class GroupTable(SubjectTable):
    """A group's table."""

    priority: int = Field(
        default=DEFAULT_GROUP_PRIORITY,
        description="a whole number such as 10; the lowest among a user's groups wins",
    )

class PoolTable(PolicyTable):
    """A pool's table."""

    group: str | None = Field(
        default=None,
        min_length=1,
        description='one group\'s name such as "Research Lab"; left out, everyone is in the pool',
    )
    limits: str | list[str] = Field(description=POOL_LIMITS_ALLOWED)

class ModelTable(PolicyTable):
    """A model's table."""

    input_price: BoundedNumber | None = Field(default=None, description=PRICE_ALLOWED)
    output_price: BoundedNumber | None = Field(default=None, description=PRICE_ALLOWED)
    cached_input_price: BoundedNumber | None = Field(default=None, description=PRICE_ALLOWED)
    cache_write_price: BoundedNumber | None = Field(default=None, description=PRICE_ALLOWED)
    reasoning_price: BoundedNumber | None = Field(default=None, description=PRICE_ALLOWED)
    weight: BoundedNumber = Field(
        default=Decimal(1), description="a number from 0 (free) to 1,000,000, such as 0.5 or 5"
    )

CheckedTable = TypeVar("CheckedTable", bound=PolicyTable)

def load_toml(text: str) -> dict[str, Any]:
    """The text as plain values, its numbers exact.

    Raises:
        PoliciesError: It is no TOML.
    """
    # A text that comes from some Windows editors begins with a byte order mark.
    text = text.removeprefix("\ufeff")
    try:
        return tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise toml_error(text, str(error)) from None
    except RecursionError:
        raise policies_error("policies", "brackets nested too deeply", LIMITS_EXAMPLE) from None
    except (ValueError, InvalidOperation):
        raise policies_error(
            "policies", "a number with too many digits", f"numbers up to {LARGEST_NUMBER:,}"
        ) from None

def toml_error(text: str, message: str) -> PoliciesError:
    """tomllib's message with the line that it is about, and how such a line is written."""
    place = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    if place is None:
        return policies_error(
            "policies", message, f"every bracket and quote closed, as in {LIMITS_EXAMPLE}"
        )
    line = text.split("\n")[int(place[1]) - 1].strip()
    header = re.match(r"\[(\w+)\.([^\"'\[\]]+)\]", line)
    if "twice" in message or "overwrite" in message:
        allowed = "every table and key once"
    elif CURLY_QUOTES.search(line):
        allowed = f'straight quotes ("), as in {LIMITS_EXAMPLE}'
    elif header is not None:
        allowed = f"quotes around the name: {table_header(header[1], header[2].strip())}"
    elif line.startswith("["):
        allowed = f"a table such as {TABLE_EXAMPLES['group']} or {TABLE_EXAMPLES['role']}"
    else:
        allowed = f"a key, =, and a value, texts in quotes: {LIMITS_EXAMPLE}"
    return policies_error(
        f"policies, line {place[1]}, column {place[2]}",
        f"{message[: place.start()]}: {quoted_text(line)}",
        allowed,
    )

def table_header(kind: str, name: str) -> str:
    """A table's first line as TOML spells it."""
    bare = re.fullmatch(r"[A-Za-z0-9_-]+", name)
    return f"[{kind}.{name if bare else json.dumps(name, ensure_ascii=False)}]"

def named_tables(kind: str, tables: object) -> Mapping[str, object]:
    """What stands below a top-level key, which has to be one of our kinds of tables."""
    if kind not in TABLE_EXAMPLES:
        close = difflib.get_close_matches(kind.lower(), TABLE_EXAMPLES, n=1)
        hint = f"; did you mean {TABLE_EXAMPLES[close[0]]}?" if close else ""
        given = quoted_text(kind)
        given = f"unknown table {given}" if isinstance(tables, dict) else f"{given} in no table"
        raise policies_error(
            "policies", given, "tables such as " + ", ".join(TABLE_EXAMPLES.values()) + hint
        )
    if not isinstance(tables, dict):
        raise policies_error(
            "policies", f"{kind} = {shown_value(tables)}", f"tables such as {TABLE_EXAMPLES[kind]}"
        )
    return tables

def checked_table(model: type[CheckedTable], kind: str, name: str, values: object) -> CheckedTable:
    """The table if its name, its keys and their types are right.

    Raises:
        PoliciesError: All that is wrong with them.
    """
    header = table_header(kind, name)
    if not name.strip():
        raise policies_error(header, "an empty name", TABLE_EXAMPLES[kind])
    if not isinstance(values, dict):
        raise not_a_table(kind, name, values, name in model.model_fields)
    if (dotted := dotted_name(name, values)) != name:
        raise policies_error(
            f"[{kind}.{dotted}]",
            "a dot in a name without quotes",
            f"quotes around the name: {table_header(kind, dotted)}",
        )
    try:
        return model.model_validate(values)
    except ValidationError as error:
        # A union reports each of its members, a list each of its entries: once is enough.
        kinds = {str(detail["loc"][0]): detail["type"] for detail in error.errors()}
    # A misspelt key explains the missing one.
    unknown = [key for key, reason in kinds.items() if reason == "extra_forbidden"]
    meant = {guessed_key(model, key) for key in unknown}
    raise PoliciesError(
        *(
            key_error(model, header, key, reason, values)
            for key, reason in kinds.items()
            if not (reason == "missing" and key in meant)
        )
    )

def dotted_name(name: str, values: Mapping[str, object]) -> str:
    """The name that was meant: to TOML, [model.gpt-4.1] is a table "1" in a table "gpt-4"."""
    for key, value in values.items():
        if isinstance(value, dict):
            return dotted_name(f"{name}.{key}", value)
    return name

def not_a_table(kind: str, name: str, values: object, is_key: bool) -> PoliciesError:
    """What is wrong where a table should be and another value is."""
    if is_key:
        return policies_error(
            f"[{kind}]", f"{quoted_text(name)} for a {kind} without a name", TABLE_EXAMPLES[kind]
        )
    header = table_header(kind, name)
    if isinstance(values, list) and values and isinstance(values[0], dict):
        return policies_error(f"[{header}]", "double brackets", header)
    return policies_error(
        f"[{kind}]",
        f"{name} = {shown_value(values)}",
        f"a table of its own: {header} and below it its keys",
    )

def guessed_key(model: type[PolicyTable], key: str) -> str | None:
    close = difflib.get_close_matches(key.lower(), model.model_fields, n=1)
    return close[0] if close else None

def key_error(
    model: type[PolicyTable], header: str, key: str, reason: str, values: Mapping[str, object]
) -> ConfigurationError:
    """What is wrong with one key of a table, `reason` being pydantic's name for it."""
    if reason == "extra_forbidden":
        guess = guessed_key(model, key)
        hint = f"; did you mean {guess}?" if guess else ""
        return ConfigurationError(
            header, f"unknown key {quoted_text(key)}", ", ".join(model.model_fields) + hint
        )
    allowed = model.model_fields[key].description or ""
    if reason == "missing":
        return ConfigurationError(header, f"{key} is missing", allowed)
    return ConfigurationError(f"{header} {key}", f"got {shown_value(values[key])}", allowed)

def shown_value(value: object) -> str:
    """A value about as the text has it."""
    try:
        as_json = json.dumps(value, ensure_ascii=False, default=str)
        text = str(value) if isinstance(value, Decimal) else as_json
    except ValueError:  # Python writes out no number of thousands of digits, as 0xfff… has them
        return "a number with too many digits"
    return shortened(text, LONGEST_QUOTED)

def parse_policies(text: str) -> PolicySet:
    """Read the policies text; an empty one is an empty set.

    Raises:
        PoliciesError: All that is wrong with it.
    """
    reader = PoliciesReader()
    reader.read(load_toml(text))
    if reader.errors:
        raise PoliciesError(*reader.errors)
    return PolicySet(
        reader.groups,
        reader.roles,
        reader.users,
        tuple(reader.pools),
        tuple(reader.models),
        reader.tasks_counted,
    )

class PoliciesReader:
    """Turns tables into values, going on after an error to find the others."""

    def __init__(self) -> None:
        self.errors: list[ConfigurationError] = []
        self.groups: dict[str, Policy] = {}
        self.roles: dict[str, Policy] = {}
        self.users: dict[str, Policy] = {}
        self.pools: list[Pool] = []
        self.models: list[ModelRule] = []
        self.tasks_counted = False

    def read(self, document: Mapping[str, object]) -> None:
        readers: dict[str, Callable[[str, object], None]] = {
            "group": self.read_group,
            "role": self.read_role,
            "user": self.read_user,
            "pool": self.read_pool,
            "model": self.read_model,
        }
        for kind, tables in document.items():
            with self.collecting_errors():
                if kind == "tasks":
                    self.read_tasks(tables)
                    continue
                for name, values in named_tables(kind, tables).items():
                    with self.collecting_errors():
                        readers[kind](name, values)

    @contextmanager
    def collecting_errors(self) -> Iterator[None]:
        try:
            yield
        except PoliciesError as error:
            self.errors.extend(error.errors)

    def read_group(self, name: str, values: object) -> None:
        table = limits_table(GroupTable, "group", name, values)
        limits = table_limits("group", name, table.limits)
        key = fold_name(name)
        if key in self.groups:
            raise self.same_as("group", name, self.groups[key])
        self.groups[key] = Policy(name, "group", limits, table.priority)

    def read_role(self, name: str, values: object) -> None:
        table = limits_table(SubjectTable, "role", name, values)
        if name not in ROLES:
            raise policies_error(
                table_header("role", name),
                f"Open WebUI has no role {quoted_text(name)}",
                " or ".join(table_header("role", role) for role in ROLES),
            )
        self.roles[name] = Policy(name, "role", table_limits("role", name, table.limits))

    def read_user(self, name: str, values: object) -> None:
        table = limits_table(SubjectTable, "user", name, values)
        # Ids are kept as they are.
        key = fold_name(name) if "@" in name else name.strip()
        if key in self.users:
            raise self.same_as("user", name, self.users[key])
        self.users[key] = Policy(name, "user", table_limits("user", name, table.limits))

    @staticmethod
    def same_as(kind: str, name: str, other: Policy) -> PoliciesError:
        """The error for a second table of the same group or user."""
        return policies_error(
            table_header(kind, name),
            f"the same {kind} as {table_header(kind, other.name)}",
            f"one table for each {kind}",
        )

    def read_pool(self, name: str, values: object) -> None:
        table = limits_table(PoolTable, "pool", name, values)
        limits = table_limits("pool", name, table.limits)
        if limits is None:
            raise policies_error(
                f"{table_header('pool', name)} limits",
                "a pool can't be unlimited",
                f"{POOL_LIMITS_ALLOWED}, or no such pool",
            )
        self.pools.append(Pool(name, table.group, limits))

    def read_model(self, name: str, values: object) -> None:
        table = checked_table(ModelTable, "model", name, values)
        self.models.append(ModelRule(glob=name, **table.model_dump()))

    def read_tasks(self, values: object) -> None:
        if (
            not isinstance(values, dict)
            or values.keys() - {"counted"}
            or not isinstance(values.get("counted", False), bool)
        ):
            raise policies_error(
                "[tasks]", shown_value(values), "nothing but counted = true or counted = false"
            )
        self.tasks_counted = values.get("counted", False)

def limits_table(model: type[CheckedTable], kind: str, name: str, values: object) -> CheckedTable:
    """A table of a kind that has limits.

    Raises:
        PoliciesError: All that is wrong with it: its keys, and the limits that can be told.
    """
    try:
        return checked_table(model, kind, name, values)
    except PoliciesError as error:
        errors = list(error.errors)
    limits = values.get("limits") if isinstance(values, dict) else None
    if isinstance(limits, (str, list)) and all(isinstance(text, str) for text in limits):
        try:
            table_limits(kind, name, limits)
        except PoliciesError as error:
            errors += error.errors
    raise PoliciesError(*errors)

def table_limits(kind: str, name: str, value: str | list[str]) -> tuple[Limit, ...] | None:
    """The limits of a table; None for "unlimited".

    Raises:
        PoliciesError: Each limit that can't be read, or that counts what another one counts.
    """
    if isinstance(value, str) and value.strip().lower() == "unlimited":
        return None
    where = f"{table_header(kind, name)} limits"
    texts = [value] if isinstance(value, str) else value
    if not texts:
        # No limit at all is a decision that should be readable.
        raise policies_error(where, "an empty list", LIMITS_ALLOWED)
    limits: dict[tuple[object, ...], Limit] = {}
    errors = []
    for text in texts:
        try:
            limit = parse_limit(text, where)
        except ConfigurationError as error:
            errors.append(error)
            continue
        # Of two that count the same, the larger would never matter. "24h" and "1d" are the same.
        counts = limit.counts
        if counts in limits:
            given = f"{quoted_text(text)} counts the same as {quoted_text(str(limits[counts]))}"
            errors.append(ConfigurationError(where, given, "one of the two"))
        limits[counts] = limit
    if errors:
        raise PoliciesError(*errors)
    return tuple(limits.values())

# ==================================== helpers/limits/policy.py ====================================
# Which limits apply to this user, these groups, this role and this model.

EVERYONE = "everyone"
NO_RULE = ModelRule("*")
DAYS_PER_CALENDAR_PERIOD = {
    "minute": Decimal(1) / 1440,
    "hour": Decimal(1) / 24,
    "day": Decimal(1),
    "week": Decimal(7),
    "month": Decimal("30.44"),
    "quarter": Decimal("91.31"),
    "year": Decimal("365.25"),
}
# What "the policy that allows most" looks at first.
GENEROSITY_ORDER: tuple[Measure, ...] = (
    "tokens",
    "cost",
    "requests",
    "input_tokens",
    "output_tokens",
)

@dataclass(frozen=True, slots=True)
class GroupRef:
    """One of Open WebUI's groups.

    Args:
        id: Its id.
        name: Its name now.
        keys: The names in the policies that mean it; None: those of its id and its name.
        doubtful: Names in the policies of which it is open whether they mean it.
    """

    id: str
    name: str
    keys: tuple[str, ...] | None = None
    doubtful: tuple[str, ...] = ()

    @property
    def sure_keys(self) -> tuple[str, ...]:
        """The names in the policies that mean it."""
        return (fold_name(self.id), fold_name(self.name)) if self.keys is None else self.keys

    @property
    def all_keys(self) -> tuple[str, ...]:
        """The same, and those of which it is open."""
        return self.sure_keys + self.doubtful

@dataclass(frozen=True, slots=True)
class Subject:
    """The user whom a request is made for; `keys` and `doubtful` are as a group's."""

    user_id: str
    email: str
    role: str
    groups: tuple[GroupRef, ...] = ()
    keys: tuple[str, ...] | None = None
    doubtful: tuple[str, ...] = ()

    @property
    def sure_keys(self) -> tuple[str, ...]:
        """The names in the policies that mean this user."""
        return (self.user_id, fold_name(self.email)) if self.keys is None else self.keys

    @property
    def scope(self) -> str:
        """The name under which the ledger counts this user."""
        return f"user:{self.user_id}"

    @property
    def scopes(self) -> tuple[str, ...]:
        """Every name under which the ledger may count this user: own, groups', instance's."""
        return (self.scope, *(f"group:{group.id}" for group in self.groups), EVERYONE)

@dataclass(frozen=True, slots=True)
class AppliedLimit:
    """A limit that counts for one request, with the window it has now."""

    limit: Limit
    scope: str
    window: Window
    policy: str  # as its administrator knows it; "" for the two simple valves
    policy_kind: str = "group"  # of a user's own limits: whether its name means anything to users

    @property
    def is_pool(self) -> bool:
        """Whether many users share the counter."""
        return not self.scope.startswith("user:")

def policy_generosity(policy: Policy) -> tuple[Decimal, ...]:
    """How much `policy` allows per day, by measure; larger allows more.

    Limits on single models or sources and about one moment are left out: they narrow a policy,
    they don't grant more.
    """
    if policy.limits is None:
        return tuple(Decimal("Infinity") for _ in GENEROSITY_ORDER)
    return tuple(
        min(
            (
                limit.amount / period_days(limit)
                for limit in policy.limits
                if limit.measure == measure and limit.is_general
            ),
            default=Decimal("Infinity"),
        )
        for measure in GENEROSITY_ORDER
    )

def period_days(limit: Limit) -> Decimal:
    """The length of a limit's period in days; an average for months and longer ones."""
    if limit.period.rolling is not None:
        return Decimal(limit.period.rolling // timedelta(minutes=1)) / 1440
    return DAYS_PER_CALENDAR_PERIOD[limit.period.name]

def choose_policy(
    subject: Subject, policies: PolicySet, default: Policy, multiple_groups: str
) -> Policy:
    """The one policy that counts for `subject`: its own, a group's, its role's, the default.

    Where it is open whether a name in the policies means the user or a group, both readings apply
    at once: nobody may use more than either of them allows.
    """
    without = read_policy(subject, policies, default, multiple_groups, doubtful=False)
    if not subject.doubtful and not any(group.doubtful for group in subject.groups):
        return without
    return stricter_of(
        [read_policy(subject, policies, default, multiple_groups, doubtful=True), without]
    )

def read_policy(
    subject: Subject, policies: PolicySet, default: Policy, multiple_groups: str, doubtful: bool
) -> Policy:
    """The policy that counts in one reading: with the names that are open, or without them."""
    own_keys = subject.sure_keys + (subject.doubtful if doubtful else ())
    own = policies_of(own_keys, policies.users)
    if own:
        return stricter_of(own)
    candidates = [
        stricter_of(found)
        for group in subject.groups
        if (found := policies_of(group.all_keys if doubtful else group.sure_keys, policies.groups))
    ]
    if candidates:
        candidates.sort(key=lambda policy: (policy.priority, policy.name))
        if multiple_groups == "most_generous":
            return max(candidates, key=policy_generosity)
        return candidates[0]
    return policies.roles.get(subject.role, default)

def policies_of(keys: Iterable[str], policies: Mapping[str, Policy]) -> list[Policy]:
    """The policies that these names have, each once."""
    return [policies[key] for key in dict.fromkeys(keys) if key in policies]

def stricter_of(found: Sequence[Policy]) -> Policy:
    """All of these policies at once, under the first one's name: each limit of each.

    Of several that count the same the least amount is left, of priorities the lowest.
    """
    if len(found) == 1:
        return found[0]
    limits: dict[Limit, Limit] = {}
    for limit in (limit for policy in found for limit in policy.limits or ()):
        counts = replace(limit, amount=0, warn_percents=())
        if counts not in limits or limit.amount < limits[counts].amount:
            limits[counts] = limit
    unlimited = all(policy.limits is None for policy in found)
    return replace(
        found[0],
        limits=None if unlimited else tuple(limits.values()),
        priority=min(policy.priority for policy in found),
    )

def pool_scopes(pool: Pool, groups: Iterable[GroupRef]) -> tuple[str, ...]:
    """The scopes under which a pool counts: everyone, or those of these groups that share it."""
    if pool.group is None:
        return (EVERYONE,)
    key = fold_name(pool.group)
    return tuple(f"group:{group.id}" for group in groups if key in group.all_keys)

def scoped_limits(
    subject: Subject,
    policy: Policy,
    policies: PolicySet,
    at: datetime,
    rules: CalendarRules,
) -> tuple[AppliedLimit, ...]:
    """Every limit that `subject` is under at the instant `at`, whatever the model.

    Those of `policy`, which `choose_policy` chose, and those of the pools in `policies`.
    """
    own_name = "" if policy.kind == "default" else policy.name
    scoped = [(subject.scope, own_name, limit) for limit in policy.limits or ()]
    named: dict[str, list[GroupRef]] = {}  # a user may be in thousands of pools
    for group in subject.groups:
        for key in dict.fromkeys(group.all_keys):
            named.setdefault(key, []).append(group)
    for pool in policies.pools:
        for scope in pool_scopes(pool, named.get(fold_name(pool.group or ""), ())):
            scoped += [(scope, pool.name, limit) for limit in pool.limits]
    return tuple(
        AppliedLimit(limit, scope, limit.period.window(at, rules), name, policy.kind)
        for scope, name, limit in scoped
    )

def applied_limits(
    subject: Subject,
    policy: Policy,
    policies: PolicySet,
    model_names: Iterable[str],
    at: datetime,
    rules: CalendarRules,
) -> tuple[AppliedLimit, ...]:
    """The same, for a request to a model: by its chosen name and every name behind it."""
    names = tuple(model_names)
    return tuple(
        applied
        for applied in scoped_limits(subject, policy, policies, at, rules)
        if applied.limit.matches_model(names)
    )

def limits_via(limits: Iterable[AppliedLimit], source: str) -> tuple[AppliedLimit, ...]:
    """Those of the limits that count what comes from this source."""
    return tuple(applied for applied in limits if applied.limit.source in ("", source))

class ModelNames(tuple[str, ...]):
    """Every name that a request's model goes by, the one that answers first.

    `called` is the one that the provider gets: the base of a custom model. `users_own` is whether
    an ordinary user has chosen the name before it.
    """

    called: str = ""
    users_own: bool = False

def called_model(model_names: tuple[str, ...]) -> str:
    """The model that the provider gets; in a plain tuple it stands right after the chosen one."""
    called = getattr(model_names, "called", "")
    return called or "".join(model_names[1:2] or model_names[:1])

def find_model_rule(policies: PolicySet, model_names: Iterable[str]) -> ModelRule:
    """The ``[model.…]`` table that counts; weight 1 and no prices without one.

    Prices and weights follow the model that is really called: users give custom models any name.
    An exact id wins, first that of an administrator's custom model; else the first glob in the
    text's order that fits the model called. Of what merely led to it, an arena or a model that
    fell back, none counts.
    """
    names = model_names if isinstance(model_names, tuple) else tuple(model_names)
    called = called_model(names)
    exact = {rule.glob: rule for rule in policies.models}
    chosen = () if getattr(names, "users_own", False) else names[:1]
    for name in (*chosen, called):
        if name in exact:
            return exact[name]
    return next((rule for rule in policies.models if glob_fits(rule.glob, called)), NO_RULE)

# ================================== helpers/limits/decisions.py ===================================
# Used and reserved amounts against limits: what is decided, and nothing else.

@dataclass(frozen=True, slots=True)
class Amounts:
    """What counts toward limits, for one request or summed over many.

    Tokens are weighted (`[model.…] weight`); cost is in millionths of a dollar.
    """

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_micros: int = 0

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(
            self.requests + other.requests,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cost_micros + other.cost_micros,
        )

    def __sub__(self, other: Amounts) -> Amounts:
        return Amounts(
            self.requests - other.requests,
            self.input_tokens - other.input_tokens,
            self.output_tokens - other.output_tokens,
            self.cost_micros - other.cost_micros,
        )

    def of(self, measure: Measure) -> int:
        """The one number that a limit of this measure compares."""
        match measure:
            case "tokens":
                return self.input_tokens + self.output_tokens
            case "input_tokens":
                return self.input_tokens
            case "output_tokens":
                return self.output_tokens
            case "requests":
                return self.requests
            case "cost":
                return self.cost_micros

NOTHING = Amounts()

@dataclass(frozen=True, slots=True)
class LimitState:
    """Where one limit stands.

    Args:
        applied: The limit and its window.
        used: What settled records have used in the window; of a limit per request, what this one
            takes.
        reserved: What replies still running hold; of a limit on how many run at once, how many do.
        reset_at: When the window ends; of a rolling one, when enough of it will have passed. Of
            one about a moment, when to ask again.
        granted: What an administrator has added to the limit in this window.
    """

    applied: AppliedLimit
    used: int
    reserved: int
    reset_at: datetime
    granted: int = 0

    @property
    def amount(self) -> int:
        """The limit with what was granted."""
        return self.applied.limit.amount + self.granted

    @property
    def taken(self) -> int:
        """Used and reserved."""
        return self.used + self.reserved

    @property
    def remaining(self) -> int:
        """What may still be used, never below 0."""
        return max(0, self.amount - self.taken)

    @property
    def exceeded(self) -> bool:
        """Whether the hard limit is reached: a request may have all the input that it says."""
        limit = self.applied.limit
        if limit.is_per_request and limit.measure == "input_tokens" and self.amount:
            return self.taken > self.amount
        return self.taken >= self.amount

    @property
    def percent(self) -> int:
        """The part that is taken, in whole percent, rounded down; 100 for a limit of 0."""
        amount = self.amount
        return 100 if amount == 0 else self.taken * 100 // amount

    @property
    def is_only_held(self) -> bool:
        """Whether it is reached only by what replies still running hold."""
        return self.exceeded and self.used < self.amount

    def crossed_threshold(self, soft_limit_percent: int) -> int | None:
        """The highest soft limit, in percent, that is crossed; None below all of them.

        Of what is about one moment nothing is used up, so there is nothing to warn of.
        """
        if self.applied.limit.is_moment:
            return None
        thresholds = self.applied.limit.warn_percents or (soft_limit_percent,)
        return max((percent for percent in thresholds if percent <= self.percent), default=None)

@dataclass(frozen=True, slots=True)
class Decision:
    """What all limits together say about one request."""

    states: tuple[LimitState, ...] = ()

    @property
    def allowed(self) -> bool:
        """Whether the request may go on."""
        return not any(state.exceeded for state in self.states)

    @property
    def refusing(self) -> LimitState | None:
        """The exceeded limit that opens last, since the user waits for that one."""
        exceeded = [state for state in self.states if state.exceeded]
        return max(exceeded, key=lambda state: state.reset_at) if exceeded else None

    def with_running(self, amounts: Amounts) -> Decision:
        """The same with what a running reply has used; its one request is admitted already."""
        return Decision(
            tuple(
                replace(state, used=state.used + amounts.of(state.applied.limit.measure))
                for state in self.states
                if state.applied.limit.measure != "requests"
            )
        )

    def with_request(self, amounts: Amounts) -> Decision:
        """The same where limits on single requests stand with what this one takes."""
        return Decision(
            tuple(
                replace(state, used=amounts.of(state.applied.limit.measure))
                if state.applied.limit.is_per_request
                else state
                for state in self.states
            )
        )

    def with_states(self, states: Iterable[LimitState]) -> Decision:
        """The same with these states in the place of those of the same limits."""
        newer = {state.applied: state for state in states}
        return Decision(tuple(newer.get(state.applied, state) for state in self.states))

    @property
    def fullest(self) -> LimitState | None:
        """The limit of which the largest part is taken, if any adds up."""
        adding = (state for state in self.states if not state.applied.limit.is_moment)
        return max(adding, key=lambda state: state.percent, default=None)

# =================================== helpers/metering/pieces.py ===================================
# Pieces: what a text costs at least, by the first steps of the tokenizer itself.

# The first merges of cl100k_base, in their order; blanks, newlines, tabs and returns are shown.
# The tokenizer makes the same ones before it makes any other, so a text never has more tokens
# than pieces here. Ordinary text has about half as many. The last are longer runs of one mark.
FIRST_MERGES = """
▁▁ ▁▁▁▁ in ▁t ▁▁▁▁▁▁▁▁ er ▁▁▁ on ▁a re at st en or ▁th ↵↵ ▁c le ▁s it an ar al ▁the ;↵ ▁p ▁f ou ▁=
is ▁▁▁▁▁▁▁ ing es ▁w ion ed ic ▁b ▁d et ▁m ▁o ⇥⇥ ro as el ct nd ▁in ▁h ent id ▁n am ▁▁▁▁▁▁▁▁▁▁▁ ▁to
▁re -- ▁{ ▁of om );↵ im ␍↵ ▁( il // ▁and ur se ▁l ex ▁S ad ▁" ch ut if ** ▁} em ol ▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁
th )↵ ▁{↵ ▁g ig iv ,↵ ce od ▁v ate ▁T ag ay ▁* ot us ▁C ▁st ▁I un ul ue ▁A ow ▁' ew ▁< ation () ▁for
ab ort um ame ▁is pe tr ck ▁y ist ---- .↵↵ he ▁e lo ▁M ▁be ers ▁on ▁con ap ub ▁P ▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁ ass
int >↵ ly urn ▁$ ;↵↵ av port ir -> nt ction end ▁de 00 ith out turn our ▁▁▁▁▁ lic res pt == ▁this
▁wh ▁if ▁D ver age ▁B ht ext =" ▁that **** ▁R ▁it ess ▁F ▁r os and ▁as ect ke rom ▁// con ▁L (" qu
lass ▁with iz de ▁N ▁al op up get ▁}↵ ile ▁an ata ore ri ▁pro ;␍↵ ⇥⇥⇥⇥ ter ain ▁W ▁E ▁com ▁return
art ▁H ack import ublic ▁or est ment ▁G able ▁- ine ill ind ere :: ity ▁+ ▁tr elf ight (' orm ult
str .. ", ▁you ype pl ▁new ▁j ▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁ ▁from ▁ex ▁O 20 ld ▁[ oc :↵ ▁se ▁le -------- .s {↵
', ant ▁at ase .c ▁ch </ ave ang ▁are ▁int _t ert ial act }↵ ive ode ost ▁class ▁not og ord alue all
ff ();↵ ont ime are ▁U ▁pr ▁: ies ize ure ▁by ire ▁}↵↵ .p ▁sh ice ast ption tring ok __ cl ## ▁he
ard ). ▁@ iew ⇥⇥⇥ ▁was ip this ▁u ▁The ide ace ib ac rou ▁we ject ▁public ak ve ath oid ▁=> ust que
▁res )) 's ▁k ans yst unction ******** ▁i ▁us pp 10 one ail ==== name ▁str ▁/ ▁& ach div ystem ell
▁have err ould ull pon ▁J _p ▁== ign St .↵ ▁pl );↵↵ form put ount }↵↵ dd ite ▁get rr ome aram cc ▁*/
ER In les _s ong ie ▁can ▁V erv pr ▁un row ber ▁do ll ▁el ▁self ated ary ▁. '] ud ▁en ▁Th
▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁ te _c uct ▁ab ork .get ▁# aw ress ob Name 201 app [' ▁all ory ition ance ear
▁cont vent ia ▁will IN ▁▁▁▁▁▁▁▁▁ return ▁</ data )↵↵ Re ple ild ther ▁your "↵ ($ ▁out ), ▁has String
so ▁up ax ▁def ▁bo ge alse ON per 12 ich ▁but ▁↵ ▁_ _m add quest odel self ery ft ens //// ake .C
▁go ▁function ▁K ivate ▁im ▁const .t ▁*/↵ );␍↵ ▁void ▁set ▁System cri ()↵ li ⇥if .m ally set ep bo
def ',↵ ▁me ▁! atch "> ",↵ ec ▁In ph ▁| _f ▁var ence Id ree ink lect ug eth ▁else ----------------
19 cont ▁so atic ▁lo pro ton ss own abel oint ous eld ST The ▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁ RE ":
olor tp eg key ude ▁St ound ▁ar ");↵ ener ser 11 bject essage fer ▁more ations ents ▁his ▁they .S ▁Y
use ne ish old _d io ield ▁per Cont ings #### ▁data ▁sa ef fo ▁one eng ▁dis AT ▁name ▁true val led
.f ▁ne ▁end 32 .T 16 cre ark log Ex error _id urre ange ▁null rray ▁my pan ict ator View List
⇥return ▁pre ▁x clude arg 15 ov .h ▁> ▁their ') irst ick gh LE OR ▁private tem ␍↵␍↵ user ▁) com .A
";↵ ▁id read ▁who _b ">↵ ▁time ▁man ry ======== roup rop public vel umber ble ▁which
**************** ▁any ▁false we ▁value ▁li ") nder gr ▁no param 25 fig .com ▁app _l ions .D ▁Ch
▁about ▁add ▁su ▁string ID ▁over string .l ource 000 _C ]↵ ▁qu ▁String ca SE ▁ro sh ual Type son new
ern ▁ag AR ];↵ ]. ▁? ical ▁des uth ix ays ▁type 't ault ▁inter var .b ▁part .d urrent IT EN 30 enc
(f ra value cho 18 utton ose 14 ▁!= ater reate oll pos yle ng AL using ames ▁{␍↵ ates ely ▁work ▁em
inal ▁sp ▁when .set ▁▁▁▁▁▁ ):↵ to quire indow lement pect ash [i ▁use .F pec ▁ad ove ception ength
include ader ▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁ atus Th itle rit void (). (↵ ▁off ▁other ▁&& ';↵ ms ▁been
▁te ml co nc 13 ervice ▁% **↵ ann ade ↵↵↵↵ lock const 100 ponse ▁sup ++ date ▁acc ▁had ▁bu 200 ▁Re
▁were ▁file ▁would ven iss ▁our class raw ▁year Data ▁val ▁some fter ys ▁/// round view ▁pe ▁there
▁said du of line /* duct ▁her ▁▁▁▁▁▁▁▁▁▁▁▁▁ Res ▁co ▁comm ise min ▁▁▁▁↵ #include ethod .P ute ▁ass
Int ask loc ▁like ody ▁let load ▁am rol ▁gr yp ▁also ▁It url ific ors _P _n igh ▁than Com AN UL
ating 17 ▁This ref _S ▁static roll ▁just ▁result ian idth ▁them ));↵ der reak Con :// ule ... arch
ement ▁<< 50 ush ense arr ▁into cess amp ied ument ▁\\ ], wo als ▁what anc Value =' olum ▁pos ages
ayer ▁sc ues ")↵ _T ▁list (s ▁case Ch ⇥⇥⇥⇥⇥ //////// ponent ▁z ▁kn let DE red ▁fe ▁},↵ ▁, (t ▁first
');↵ word ▁import ▁act ▁char CT ▁Tr ople ={ ⇥f 24 ient cent .j lection ))↵ ▁only ▁print mer .W ock
▁-- Text ▁op ank ▁its ▁back [" ▁need ▁cl ▁sub ▁la (( ." Object ▁start file (self ner ey ▁user ▁ent
▁Com its ▁Con ouble ower item very ▁We 64 lick ▁Q php ttp ': ics ▁under ▁*↵ .L ); ices ▁reg )␍↵
⇥public SS ▁then reat ious .G ek irect heck cript ning ▁Un ▁may ▁Wh Bo Item struct .st ream ible
loat ▁org und sum _in ../ _M ▁how rite '↵ To 40 ww ▁people index .n http (m ector ▁ind ▁jav ],↵ ▁He
_st ful ole ){↵ ▁should opy elp ier _name erson ION ote ▁test ▁bet rror ular bs ting ▁make Tr ▁after
arget RO olumn rc _re define 22 ▁right right day ▁long [] (p td cond ▁Pro ▁rem ptions vid .g ▁ext
▁__ ')↵ pace mp ▁min stance air action wh type util ait <? IC text ▁ph ▁fl .M ccess br fore ersion
),↵ .re ateg ▁loc ins -s trib ▁Int ▁array ," Pro (c ession >↵↵ ▁she "] aph ▁exp erty ▁Se ▁par unc ET
▁read print ▁rel ▁form ▁dr Exception input ▁trans ######## order By ▁aw ities uff play .add ▁want
▁comp ments ▁|| az be ▁number ▁require ▁Ex 60 ▁col ▁key ember ▁two ▁size ▁where UT result
▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁ ough orld ood uch ative ger arent ▁/* ▁arg ▁while 23 (this ▁rec ▁dif
State ▁spec ride _F ▁look AM ility eter ↵↵↵ ayout -------------------------------- ager ▁could ▁br
ends ures ▁know ets ▁If ▁Sh .w back ▁ser ▁+= ▁fr ());↵ ▁hand Ind ULL Im ();↵↵ ▁most ================
⇥⇥⇥⇥⇥⇥ ▁▁▁▁▁▁▁▁▁▁▁▁ ▁▁▁▁▁▁▁▁▁▁ .... //////////////// ____ ⇥⇥⇥⇥⇥⇥⇥⇥ ▁▁▁▁▁▁▁▁▁▁▁▁▁▁ ################
⇥⇥⇥⇥⇥⇥⇥ ________ ........ ↵↵↵↵↵↵ ⇥⇥⇥⇥⇥⇥⇥⇥⇥ ▁~ ~~ ↵↵↵↵↵↵↵↵ ⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥ ________________
................ ⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥ ~~~~ ⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥ ↵↵↵↵↵ ----- ---------- ⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥ ~~~~~~~~ .....
----------- ***** --------- ⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥ ↵↵↵↵↵↵↵↵↵↵↵↵↵↵↵↵ ⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥ ↵↵↵↵↵↵↵↵↵↵ ......
⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥⇥ ~~~~~~~~~~~~~~~~ ↵↵↵↵↵↵↵ ========= ↵↵↵↵↵↵↵↵↵↵↵↵ ===== ....... ↵↵↵↵↵↵↵↵↵ .........
↵↵↵↵↵↵↵↵↵↵↵↵↵↵ ##### _____ ↵↵↵↵↵↵↵↵↵↵↵ /////
"""
MERGES = {
    piece.translate(str.maketrans("▁↵⇥␍", " \n\t\r")): rank
    for rank, piece in enumerate(FIRST_MERGES.split())
}
NO_MERGE = len(MERGES)
TOKENS_PER_PIECE = 0.53
# How the tokenizer sets words apart; here in parts of 16 characters at most. Where one was cut, two
# pieces may have been merged that the tokenizer merges with what stands behind them.
LONGEST_PART = 16
WORD = re.compile(
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\nA-Za-z0-9]?[A-Za-z]{1,16}|[0-9]{1,3}"
    r"| ?[^\sA-Za-z0-9]{1,16}[\r\n]{0,16}|\s{0,16}[\r\n]{1,16}|\s{1,16}(?!\S)|\s"
)
# Characters beyond ASCII that are one token each; of the others nearly each byte is one.
COMMON_CHARACTERS = (
    "¡-¬®-·¹-ÄÇÉÍÎÐÑÓÖ×ÚÜß-öø-ýāăąćčĐđēęěğīİıłńōőœřśşšţťūůűźżžơưșțəɵ̀́ά-ία-εη-νο-χωόЂА-ЕЗИК-ФЦЧЭЯ-я"
    "ёіאבדהוחילמנערשת،أإا-غف-يَ-ْپکگیंकतनपमरलसहा-ुेो्নরািে্ிு்്กขคงจชณ-ทน-ผพมยรลวสหอะ-ีืุูเแใไ็่้์ា"
    "ạảấầẩậắặếềểệỉịọỏốồổỗộớờởợụủứửữự‐‑–—―‘’‚“”„†•…‰′″›※₀₁₂€™←-↓−─━│═║╗╝█░■►●★☆☴♀♥♪✔⟩⠀、。《-】〜あ"
    "いうえお-きくけこ-すせそただちっつて-にのはばまみめもやよ-ろわをんアィイウェエオカキクグコサシ-セ"
    "タダチッテ-ニバパビ-プペポマムメャュョラ-ロン・ー一万三上下不与专业东两个中串为主么义之也书了"
    "事二于五些交产享京人亿今介从他付代以们件价任份企优会传但位体何余作你使例供価保信修倍值停像元先"
    "入全公共关其具内円册再写出击分列则初利别到制前力功加务动動包化北区十午华单南即历原去县参及友反"
    "发取变口只可台右号司合同名后向否含听启告员周命和品哈商問器四回因国图土在地场址型城基報場填增声"
    "处备复外多大天失头女好如始子字存学安宋完定实审客家容密对导将小少尔就局展山岁州工左已市布常平年"
    "并广序库应店度建开异式引张当录形影径待後得微心必志态思性总息您情意感成我或户所手打找技投报拉持"
    "指按换据排接推提播支收改放政效数整文料断新方族无日时明易星是時景更最月有服期木未本机权束条来板"
    "构析果查标样核格案检模次款止-步歳段每比民気水求江汽没治法注活流海消清游源火点無然片版物特率环"
    "现球理生用由电男画界番登的监目直相省看県真知码确示社票私种科秒称移程稍税稿空立站章端笑符第等签"
    "简算管箱米类系素索约级线组经结给络统编网置美老考者而联能自至色节英藏行表装西要見见规视角解言計"
    "記話読计认议记论设证评试话询该详语误说请读调象责败账货购费资起超路身车转软载辑输达过运近还这进"
    "连述退送选通速造連道邮部都配释里重量金钟钮链销错键长開間関门闭问间队阳陆限院除雅集雷需非面音页"
    "项预频题额首验高黑가간값개거게결경고공과구그글기나내는능니다당대도동되된드든들디라래러력로록료"
    "류른를름리만메면명목문미버번보복부분비사산상색생서성세션소수스습시식신아야어에여열오와요용우운"
    "원위으은을음의이인일임입자작장재적전정제져조주지진째체출치크태터턴트튼하한할함해호화환회️！（"
    "），-；＞？＾～･￥�"
)
# Runs of these are ornament, four to a token at least.
ORNAMENTS = "—…─═█"
# What a common character saves within a word, by the high byte of UTF-16: Cyrillic,
# Arabic, Devanagari.
WORD_SAVINGS = {0x04: 0.48, 0x06: 0.22, 0x09: 0.15}
UNCOMMON = re.compile(f"[^{COMMON_CHARACTERS}]+")
ASCII = bytes(range(0x80))
BEYOND_ASCII = re.compile("[^\x00-\x7f]+")
LEFT_OUT = "\xff"
TOKENS_PER_UNCOMMON_BYTE = 0.68
LONGEST_CUT_WHOLE = 2_000  # a longer text is sampled

@lru_cache(maxsize=10_000)
def count_pieces(word: str) -> int:
    """Into how many pieces the first merges put a word."""
    pieces = list(word)
    while len(pieces) > 1:
        ranks = [MERGES.get(first + second, NO_MERGE) for first, second in pairwise(pieces)]
        rank = min(ranks)
        if rank == NO_MERGE:
            break
        place = ranks.index(rank)
        pieces[place : place + 2] = ["".join(pieces[place : place + 2])]
    return len(pieces)

def sample_text(text: str, samples: int, length: int) -> str:
    """Parts of a long text, at places that nobody can foresee, or its dear part would hide."""
    chance, apart = random.Random(hash(text)), len(text) // samples  # differs by process
    starts = (n * apart + chance.randrange(apart - length + 1) for n in range(samples))
    return "".join(text[start : start + length] for start in starts)

def least_tokens(text: str) -> float:
    """What the ASCII in a text costs at least."""
    read = text if len(text) <= LONGEST_CUT_WHOLE else sample_text(text, 8, LONGEST_CUT_WHOLE // 8)
    ascii_text, left_out = BEYOND_ASCII.subn(LEFT_OUT, read)
    parts = WORD.findall(ascii_text)
    cuts = sum(len(part) >= LONGEST_PART and not part.isspace() for part in parts)
    pieces = sum(map(count_pieces, parts)) + cuts - left_out
    return TOKENS_PER_PIECE * pieces * len(text) / len(read)

def tokens_beyond_ascii(text: str) -> float:
    """What the characters of a text that aren't ASCII cost; less than if each were alone."""
    for mark in ORNAMENTS:
        text = text.replace(4 * mark, mark)
    encoded = text.encode("utf-8").translate(None, ASCII)
    beyond = encoded.decode("utf-8")
    uncommon = "".join(UNCOMMON.findall(beyond))
    dear_bytes = len(uncommon.encode("utf-8"))
    tokens = len(beyond) - len(uncommon) + TOKENS_PER_UNCOMMON_BYTE * dear_bytes
    every, dear = (each.encode("utf-16-le")[1::2] for each in (beyond, uncommon))
    for block, saving in WORD_SAVINGS.items():
        tokens -= saving * (every.count(block) - dear.count(block))
    return tokens

# ================================= helpers/metering/estimates.py ==================================
# Token estimates for texts and prompts whose provider reports no usage.

# The weights were fitted by least squares to cl100k_base, on half of the samples of
# `python -m scripts.bench.estimate_accuracy` and on gettext catalogs in 27 languages. Everything is
# counted in bytes, by translate, split and count: ten times faster than regular expressions.
LETTERS = bytes((*range(0x41, 0x5B), *range(0x61, 0x7B), *range(0xC0, 0x100)))
ACCENTED_LETTERS = LETTERS[52:]
DIGITS = b"0123456789"
MARKS = bytes(byte for byte in range(0x21, 0xC0) if byte not in LETTERS + DIGITS)

# cl100k_base knows most English words whole and cuts up the others, so a text's other languages
# must be noticed: by their accented letters, and by their commonest words.
COMMON_WORDS_ABROAD = frozenset(
    b"der die das und ist nicht ein eine den dem des mit auf im sie ich zu von wird sich auch als "
    b"le la les du et est en un une que qui dans pour pas sur au il el los y con por del se lo su "
    b"di che non per della sono gli si da het een van niet voor dat zijn op te met aan bij naar "
    b"os uma e em com para och att det som av nie w z jest ve bir bu ja ei egy az nem".split()
)

# Letters with accents beyond Latin-1.
ACCENTED_BLOCKS = (0x01, 0x02, 0x1E)
ACCENT = 0.2
LONE_SURROGATE = re.compile("[\ud800-\udfff]")

# What a chat format adds: https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken
TOKENS_PER_MESSAGE = 4
TOKENS_PER_REPLY = 3
# Fixed: OpenAI's price of a 1024 x 1024 image, a minute of sound, eight seconds of video in
# Gemini, a page of a document in Anthropic.
IMAGE_TOKENS = 765
MEDIA_TOKENS = {
    **dict.fromkeys(("image", "image_url", "input_image"), IMAGE_TOKENS),
    **dict.fromkeys(("audio", "audio_url", "input_audio"), 600),
    **dict.fromkeys(("video", "video_url"), 2000),
    **dict.fromkeys(("document", "file", "input_file"), 1500),
}
# No provider reads more media in one call than this, so more of them can reserve no more.
MOST_MEDIA_TOKENS = 400_000
DATA_URL = re.compile(r"data:[\w.+-]+/[\w.+-]+(?:;[\w.+-]+=[\w.+-]+)*;base64,[\w+/=%-]*", re.ASCII)
BASE64 = re.compile(r"[\w+/=%\r\n-]*", re.ASCII)
# A file of text costs its text, and what isn't a picture or sound stays text within a text.
TEXT_URL = re.compile(r"data:(?:text/|application/(?:[\w.+-]*\+)?(?:json|xml|yaml|toml)[;,])")
PICTURE_URL = re.compile(
    DATA_URL.pattern.replace(r"[\w.+-]+", "(?:image|audio|video)", 1), re.ASCII
)
LONGEST_LINK = 2_048
# Where the parts of a message's content have their media, and what is only said about them.
MEDIA_KEYS = frozenset(
    (
        *("image_url", "input_image", "image", "input_audio", "audio_url", "audio", "video_url"),
        *("video", "file", "file_url", "file_data", "file_id", "document", "source", "url", "data"),
    )
)
MEDIA_NOTES = frozenset(("type", "media_type", "mime_type", "format", "detail", "filename"))
# A chat provider gets `messages`; of the others each request has its own protocol's.
CHAT_KEYS = ("messages",)
OTHER_PROMPT_KEYS = ("prompt", "suffix", "input", "system", "instructions")
PROMPT_JSON_KEYS = (
    *("tools", "functions", "response_format", "format"),
    *("prediction", "documents"),  # OpenAI's predicted output; vLLM's and Cohere's retrieval
)
CONTENT_KEYS = frozenset(
    (
        *("content", "text", "thinking", "reasoning", "reasoning_content", "reasoning_details"),
        *("summary", "refusal", "output", "name", "title", "context", "tool_calls"),
        *("function_call", "function", "thinking_blocks"),
    )
)
# In these the items of a list are content parts; only such a part can be a picture or a file.
PART_KEYS = frozenset(("content", "output"))

def kind_table(letters: bytes, digits: bytes = b" ", marks: bytes = b" ") -> bytes:
    """A table for bytes.translate: `letters` as long as LETTERS or one for all, the rest blank."""
    kinds = dict.fromkeys(range(0x100), 0x20) | {0x0A: 0x0A, 0x0D: 0x0A}
    kinds.update(zip(LETTERS, letters * (len(LETTERS) // len(letters)), strict=True))
    kinds.update(zip(DIGITS, digits * len(DIGITS), strict=True))
    kinds.update(zip(MARKS, marks * len(MARKS), strict=True))
    return bytes(kinds.values())

WORD_TABLE = kind_table(LETTERS.lower())
# In the kinds "a" stands for a letter, "0" for a digit, "." for a mark.
KIND_TABLE = kind_table(b"a", b"0", b".")
MARK_TABLE = KIND_TABLE.translate(bytes.maketrans(b"a0\n", b"   "))

# A longer text is sampled, since the hooks must not hold up the event loop.
LONGEST_READ_WHOLE = 100_000
SAMPLES = 60
SAMPLE_LENGTH = 1_500

def estimate_tokens(text: str) -> int:
    """About how many tokens of cl100k_base a text has."""
    if not text:
        return 0
    if len(text) > LONGEST_READ_WHOLE:
        sample = sample_text(text, SAMPLES, SAMPLE_LENGTH)
        return round(estimate_tokens(sample) * len(text) / len(sample))
    try:
        text.encode()
    except UnicodeEncodeError:
        text = LONE_SURROGATE.sub("\ufffe", text)
    latin = b" " + text.encode("latin-1", "ignore")
    kinds = latin.translate(KIND_TABLE)
    beyond, accented = 0.0, 0
    if not text.isascii():
        accented = count_accented(text, latin)
        beyond = tokens_beyond_ascii(text) + ACCENT * accented
    tokens = mark_tokens(latin, kinds) + digit_tokens(kinds)
    if words := latin.translate(WORD_TABLE).split():
        tokens += 0.94 * len(words) + 0.79 * kinds.count(b"aaaaaaaa")
        if abroad := accented + sum(map(COMMON_WORDS_ABROAD.__contains__, words)):
            share = min(0.5, abroad / len(words))
            tokens += 0.51 * share * max(0, kinds.count(b"a") - 3 * len(words))
    return max(1, round(max(tokens, least_tokens(text)) + beyond))

def mark_tokens(latin: bytes, kinds: bytes) -> float:
    """The tokens of ASCII punctuation, counted in runs, and of indentation."""
    marks = latin.translate(MARK_TABLE)
    # One mark joins the word behind it; indentation is one token, however deep.
    return (
        1.45 * marks.count(b" .")
        + 0.41 * marks.count(b" ...")
        - 0.81 * kinds.count(b".a")
        + 0.54 * kinds.count(b"\n ")
    )

def digit_tokens(kinds: bytes) -> float:
    """The tokens of numbers, which cl100k_base cuts into groups of up to three digits."""
    rest = kinds.replace(b"000", b"x")
    groups = kinds.count(b"000") + rest.count(b"0") - rest.count(b"00")
    return 0.95 * groups

def count_accented(text: str, latin: bytes) -> int:
    """How many accented Latin letters a text has."""
    blocks = text.encode("utf-16-le")[1::2]
    beyond = sum(map(blocks.count, ACCENTED_BLOCKS))
    return beyond + len(latin) - len(latin.translate(None, ACCENTED_LETTERS))

WRITER = json.JSONEncoder(ensure_ascii=False, default=str)

def json_text(value: object) -> str:
    """The JSON that a provider would see for a value; empty if it can't be written."""
    try:
        return WRITER.encode(value)
    except (TypeError, ValueError, RecursionError):
        return ""

def estimate_prompt(body: Mapping[str, object]) -> int:
    """About how many tokens a request's prompt has, with its tools, schemas and media.

    Only what the provider gets counts: a chat provider gets no `input` or `prompt` beside the
    messages, and a part without a picture or file in it is none.
    """
    texts = [json_text(body[key]) for key in PROMPT_JSON_KEYS if body.get(key)]
    tokens = media_tokens = 0
    messages = body.get("messages")
    if isinstance(messages, list) and messages:
        tokens += TOKENS_PER_MESSAGE * len(messages) + TOKENS_PER_REPLY
    keys = CHAT_KEYS if messages else OTHER_PROMPT_KEYS
    # A stack, since nested rubbish must not recurse: what stands there, and whether as a part.
    parts: list[tuple[object, bool]] = [(body.get(key), False) for key in keys]
    while parts:
        part, is_part = parts.pop()
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, list):
            if set(map(type, part)) == {int}:  # a prompt may come as numbers of tokens
                tokens += 0 if is_part else len(part)
            else:
                parts += [(item, is_part) for item in part if item]
        elif isinstance(part, dict):
            kind = part.get("type")
            if is_part and isinstance(kind, str) and kind in MEDIA_TOKENS:
                media_tokens += read_media(part, MEDIA_TOKENS[kind], parts)
            for key, value in part.items():
                if value and key in CONTENT_KEYS:
                    parts.append((value, key in PART_KEYS))
                elif value and key in ("arguments", "input"):
                    texts.append(value if isinstance(value, str) else json_text(value))
            if isinstance(images := part.get("images"), list):  # Ollama
                for image in images:
                    media_tokens += read_payload(image, IMAGE_TOKENS, parts)
        elif not is_part and isinstance(part, int):
            tokens += 1
    if isinstance(images := body.get("images"), list) and not messages:
        for image in images:
            media_tokens += read_payload(image, IMAGE_TOKENS, [])
    text, pictures = without_pictures("\n".join(texts))
    return tokens + min(media_tokens + pictures, MOST_MEDIA_TOKENS) + estimate_tokens(text)

def read_media(part: Mapping[str, object], price: int, parts: list[tuple[object, bool]]) -> int:
    """The tokens of one content part's picture, sound or file; the text in it goes to `parts`."""
    tokens = 0
    for key, holder in part.items():
        if key not in MEDIA_KEYS:
            continue
        if isinstance(holder, dict):
            is_text = holder.get("type") in ("text", "content")  # Anthropic's plain documents
            for name, value in holder.items():
                if name in ("content", "text") or (is_text and name == "data"):
                    parts.append((value, True))
                elif name not in MEDIA_NOTES:
                    tokens = max(tokens, read_payload(value, price, parts))
        else:
            tokens = max(tokens, read_payload(holder, price, parts))
    return tokens

def read_payload(payload: object, price: int, parts: list[tuple[object, bool]]) -> int:
    """The tokens of a link or of base64, which cost no more than their own text would."""
    if not isinstance(payload, str) or not payload:
        return 0
    if payload.startswith(("https://", "http://", "gs://", "s3://")):
        if len(payload) <= LONGEST_LINK:
            return price
    elif TEXT_URL.match(payload):
        payload = decode_url(payload)
    elif DATA_URL.fullmatch(payload) or BASE64.fullmatch(payload):
        return min(price, (len(payload) + 1) // 2)
    parts.append((payload, False))
    return 0

def decode_url(url: str) -> str:
    """The text in a data URL; all of it where it can't be read."""
    head, _, data = url.partition(",")
    if not head.endswith(";base64"):
        return url
    try:
        return base64.b64decode(data + "==").decode("utf-8", "replace")
    except ValueError:
        return url

def without_pictures(text: str) -> tuple[str, int]:
    """A text without its data URLs, and the tokens of the pictures in them."""
    if ";base64," not in text:
        return text, 0
    tokens = 0

    def count_picture(match: re.Match[str]) -> str:
        nonlocal tokens
        tokens += min(IMAGE_TOKENS, (len(match[0]) + 1) // 2)
        return ""

    return PICTURE_URL.sub(count_picture, text), tokens

def estimate_reply(text: str) -> int:
    """About how many tokens a reply's text has; a picture that it holds isn't text."""
    text, pictures = without_pictures(text)
    return pictures + estimate_tokens(text)

# =============================== helpers/metering/provider_usage.py ===============================
# Usage as each provider reports it: input, output, cached, cache writes, reasoning, cost.

# Above any real call, below what a 64-bit column could be made to overflow with by a few sums.
LARGEST_COUNT = 10**12
COUNT_TEXT = re.compile(r"\s*(\d{1,13}|\d{1,3}(?:,\d{3}){1,4})(\.\d{1,20})?\s*", re.ASCII)
# More seconds of sound than tokens they are: Voxtral counts 12.5 a second, Gemini 32, OpenAI 10.
MOST_TOKENS_PER_SECOND = 100

# The fields that each kind of count may have, with "|" between them; "+" where Gemini, llama.cpp
# and others report parts without a whole.
COUNT_ALIASES = {
    # With what came from the cache; the last are watsonx's, TGI's, DeepInfra's and llama.cpp's.
    "input": "prompt_tokens | promptTokens | prompt_eval_count"
    " | promptTokenCount + toolUsePromptTokenCount"
    " | prompt_token_count + tool_use_prompt_token_count"
    " | cache_n + prompt_n | prompt_cache_hit_tokens + prompt_cache_miss_tokens"
    " | input_token_count | input_length | tokens_input | tokens_evaluated",
    # Anthropic and Bedrock: without the cache; OpenAI's Responses: with it.
    "uncached input": "input_tokens | inputTokens | inputTokenCount",
    # What Anthropic and Bedrock count beside the input.
    "cache": "cache_read_input_tokens + cache_creation_input_tokens"
    " | cacheReadInputTokens + cacheWriteInputTokens"
    " | cacheReadInputTokenCount + cacheWriteInputTokenCount",
    "cache write": "cache_creation_input_tokens | cacheWriteInputTokens"
    " | cacheWriteInputTokenCount",
    "thoughts": "thoughtsTokenCount | thoughts_token_count | reasoning_tokens",
    "tool prompt": "toolUsePromptTokenCount | tool_use_prompt_token_count | tool_use_prompt_tokens"
    " | tool_prompt_tokens",
    "sound": "prompt_audio_seconds | audio_seconds",
    "cached": "cache_read_input_tokens | cacheReadInputTokens | cacheReadInputTokenCount"
    " | cachedContentTokenCount | cached_content_token_count | prompt_cache_hit_tokens"
    " | cached_tokens | cache_n",
    "output": "completion_tokens | completionTokens | output_tokens | outputTokens"
    " | outputTokenCount | eval_count | candidatesTokenCount + thoughtsTokenCount"
    " | candidates_token_count + thoughts_token_count | predicted_n | generated_token_count"
    " | generated_tokens | tokens_generated | tokens_predicted",
    "total": "total_tokens | totalTokens | totalTokenCount | total_token_count",
}

def slots_by_alias() -> dict[str, list[tuple[str, int]]]:
    """COUNT_ALIASES turned round: reading costs what a provider sends, not what all could."""
    slots: dict[str, list[tuple[str, int]]] = {}
    for kind, alternatives in COUNT_ALIASES.items():
        for number, names in enumerate(alternatives.split(" | ")):
            for name in names.split(" + "):
                slots.setdefault(name, []).append((kind, number))
    return slots

ALIAS_SLOTS = slots_by_alias()

@dataclass(frozen=True, slots=True)
class ReportedUsage:
    """What a provider said about one call; None where it didn't say.

    `total_tokens` is kept only while the provider's total can't be split into input and output.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int = 0
    cost_micros: int | None = None
    total_tokens: int | None = None
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def is_charged(self) -> bool:
        return bool(self.input_tokens or self.output_tokens or self.total_tokens)

    def merged(self, other: ReportedUsage) -> ReportedUsage:
        """The larger of each count: within one completion later usage is a running total."""
        return self._combined(other, max)

    def added(self, other: ReportedUsage) -> ReportedUsage:
        """The sum of each count, of two calls that are reported side by side."""
        return self._combined(other, operator.add)

    def _combined(self, other: ReportedUsage, combine: Callable[[int, int], int]) -> ReportedUsage:
        pairs = [(getattr(self, name), getattr(other, name)) for name in self.__slots__]
        return ReportedUsage(*(combine_known(one, two, combine) for one, two in pairs))

NO_USAGE = ReportedUsage()

def token_count(value: object) -> int | None:
    """The count that a JSON value stands for, or None if it isn't one."""
    if type(value) is int:  # nearly always, and the cheapest to ask
        return value if 0 <= value <= LARGEST_COUNT else None
    if isinstance(value, str):
        match = COUNT_TEXT.fullmatch(value)
        if match is None:
            return None
        value = int(match[1].replace(",", "")) + (float(match[2] or 0) > 0)
    elif isinstance(value, float) and 0 <= value <= LARGEST_COUNT:  # which no NaN is
        value = math.ceil(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST_COUNT:
        return value
    return None

def combine_known(one: Any, other: Any, combine: Callable[[int, int], int]) -> Any:
    """Two counts combined, or the one that is known."""
    if one is None or other is None:
        return other if one is None else one
    return combine(one, other)

def known_counts(fields: Mapping[str, object]) -> dict[str, int]:
    """Each kind's largest alias, since the host and gateways write zeros beside the count."""
    sums: dict[tuple[str, int], int] = {}
    for name, value in fields.items():
        if name in ALIAS_SLOTS and (count := token_count(value)) is not None:
            for slot in ALIAS_SLOTS[name]:
                sums[slot] = sums.get(slot, 0) + count
    counts: dict[str, int] = {}
    for (kind, _), count in sums.items():
        counts[kind] = max(count, counts.get(kind, 0))
    return counts

# Responses, and Realtime's sessions (and LangChain): with what came from the cache inside.
RESPONSES_INPUT = ("input_tokens_details", "input_token_details")
INPUT_DETAILS = ("prompt_tokens_details", *RESPONSES_INPUT)
OUTPUT_DETAILS = ("completion_tokens_details", "output_tokens_details", "output_token_details")
CACHED_NAMES = ("cached_tokens", "cache_read")
WRITTEN_NAMES = ("cache_write_tokens", "cache_creation_tokens", "cache_creation")

def detail_count(
    fields: Mapping[str, object], groups: tuple[str, ...], names: tuple[str, ...]
) -> int | None:
    """The largest count of these names in these groups of details; None where there is none."""
    found = [fields[group] for group in groups if group in fields]
    counts = [
        token_count(details.get(name))
        for details in found
        if isinstance(details, dict)
        for name in names
    ]
    return max((count for count in counts if count is not None), default=None)

COST_NAMES = ("cost", "total_cost", "estimated_cost", "cost_usd", "total_cost_usd", "response_cost")
COST_PARTS = (("input_cost", "output_cost"), ("prompt_cost", "completion_cost"))
TICKS_PER_DOLLAR = 10**10  # xAI's
MOST_DOLLARS = 1_000_000

def cost_in_micros(fields: Mapping[str, object]) -> int | None:
    """What a provider says that a call cost; the smallest cost is a millionth, not nothing."""
    costs = [cost for name in COST_NAMES if (cost := dollars(fields.get(name))) is not None]
    for names in COST_PARTS:
        parts = [part for name in names if (part := dollars(fields.get(name))) is not None]
        if parts:
            costs.append(sum(parts))
    ticks = dollars(fields.get("cost_in_usd_ticks"), TICKS_PER_DOLLAR)
    if ticks is not None:
        costs.append(ticks)
    cost = max(costs, default=None)
    details = fields.get("cost_details")
    upstream = (
        dollars(details.get("upstream_inference_cost")) if isinstance(details, dict) else None
    )
    if upstream is not None:
        # OpenRouter fills this for its own keys too, then as a part of `cost`
        # (OpenRouterTeam/ai-sdk-provider issue 532); only with a BYOK key it comes on top.
        byok = fields.get("is_byok")
        if byok is True or (byok is not False and upstream > (cost or 0)):
            cost = (cost or 0) + upstream
    if not cost:
        return None if cost is None else 0
    return max(1, round(cost * 1_000_000))

def dollars(value: object, units: int = 1) -> float | None:
    """An amount of money, given in `units` to the dollar; None if it isn't one."""
    if isinstance(value, dict):  # Perplexity and others
        parts = [value.get(name) for name in ("total_cost", "total", "cost")]
        value = next((part for part in parts if part is not None), None)
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        amount = float(value) / units
    except (ValueError, OverflowError):
        return None
    return amount if 0 <= amount <= MOST_DOLLARS else None

def parse_usage(raw: object, timings: object = None) -> ReportedUsage:
    """Read one usage object in any provider's shape, with llama.cpp's `timings` beside it."""
    fields: dict[str, object] = dict(timings) if isinstance(timings, dict) else {}
    if isinstance(raw, dict):
        fields.update(raw)
    counts, cost = known_counts(fields), cost_in_micros(fields)
    if not counts and cost is None:
        return NO_USAGE
    input_tokens = max(counts.get("input", 0), counts.get("uncached input", 0))
    output_tokens = counts.get("output")
    total_tokens = counts.get("total") or None
    responses_cached = detail_count(fields, RESPONSES_INPUT, CACHED_NAMES) or 0
    cached = max(counts.get("cached", 0), detail_count(fields, INPUT_DETAILS, CACHED_NAMES) or 0)
    written = max(
        counts.get("cache write", 0), detail_count(fields, INPUT_DETAILS, WRITTEN_NAMES) or 0
    )
    if cache := counts.get("cache"):
        # Gateways that write `prompt_tokens` (LiteLLM) and OpenAI's Responses count it inside.
        inside = bool(counts.get("input") or responses_cached) and cache <= input_tokens
        if not inside or total_tokens == input_tokens + (output_tokens or 0) + cache:
            input_tokens += cache
    elif cached > input_tokens > 0:  # so the prompt came without what was cached
        input_tokens += cached
    known_input = input_tokens or None  # no prompt is empty: LocalAI and Ollama send 0 for unknown
    reasoning = reported_reasoning(fields, counts)
    if total_tokens is not None:
        beside = counts.get("tool prompt", 0)
        if counts.get("input") and "promptTokenCount" in fields:
            beside = 0  # it is in the sum already
        beside += MOST_TOKENS_PER_SECOND * min(counts.get("sound", 0), LARGEST_COUNT // 1000)
        known_input, output_tokens, total_tokens = split_total(
            known_input, output_tokens, total_tokens, reasoning, beside
        )
    if known_input is not None:
        cached = min(cached, known_input)
        written = min(written, known_input - cached)
    return ReportedUsage(
        known_input, output_tokens, cached, cost, total_tokens, written, reasoning or 0
    )

def reported_reasoning(fields: Mapping[str, object], counts: Mapping[str, int]) -> int | None:
    details = detail_count(fields, OUTPUT_DETAILS, ("reasoning_tokens", "reasoning"))
    said = (counts.get("thoughts"), details)
    return max((count for count in said if count is not None), default=None)

def split_total(
    input_tokens: int | None,
    output_tokens: int | None,
    total: int,
    reasoning: int | None = None,
    input_beside: int = 0,
) -> tuple[int | None, int | None, int | None]:
    """Take from the total what the parts leave out: input, output, and what stays unsplit.

    Args:
        reasoning: What may be missing in the output.
        input_beside: What may at most be missing in the input: sound, prompts of tools.
    """
    if input_tokens is None:
        if output_tokens:
            return ((total - output_tokens if total > output_tokens else None), output_tokens, None)
        return None, output_tokens, total
    excess = total - input_tokens - (output_tokens or 0)
    if output_tokens is None:
        return input_tokens, (excess if excess >= 0 else None), None
    if excess > 0 and input_beside and excess != reasoning:
        taken = min(excess, input_beside)
        input_tokens, excess = input_tokens + taken, excess - taken
    # xAI and Gemini's OpenAI-compatible API leave reasoning out of completion_tokens.
    if excess > 0 and (reasoning is None or excess <= reasoning):
        return input_tokens, output_tokens + excess, None
    return input_tokens, output_tokens, None

# =============================== helpers/metering/stream_events.py ================================
# What a stream event or a whole answer holds: produced text, usage, a completion's id, its end.

# Where produced text stands, in the objects of OpenAI, Anthropic, Gemini, Mistral and Ollama.
TEXT_KEYS = frozenset(
    (
        *("content", "text", "reasoning_content", "reasoning", "thinking", "refusal"),
        *("transcript", "name", "arguments", "args", "input", "partial_json", "summary", "code"),
        *("generated_text", "completion"),
    )
)
ARGUMENT_KEYS = frozenset(("arguments", "args", "input"))
NESTING_KEYS = frozenset(
    (
        *("content", "reasoning", "thinking", "audio", "parts", "tool_calls", "function_call"),
        *("functionCall", "function", "reasoning_details", "summary", "output", "message"),
        *("results", "delta"),
    )
)
# Where thoughts stand; the first that a provider fills is the one that counts.
THOUGHT_KEYS = ("reasoning_content", "reasoning", "reasoning_details")
# Where a whole answer has its text, beside `choices`.
ANSWER_KEYS = (
    *("content", "message", "output", "response", "thinking", "text", "generated_text"),
    *("completion", "results", "candidates"),
)
MOST_ANSWERS = 64
# What can hold usage. Not its details, which repeat parts of it; and of `metadata`, which with
# OpenAI is the client's own, only what it holds.
USAGE_HOLDERS = frozenset(
    (
        *("usage", "usageMetadata", "usage_metadata", "token_usage", "tokens", "billed_units"),
        *("x_groq", "response", "message", "metadata", "meta", "delta", "choices", "details"),
        *("results", "inference_status", "response_metadata", "amazon-bedrock-invocationMetrics"),
    )
)
DEEPEST_USAGE = 4
MOST_HOLDERS = 64
# With no other keys a chunk has no usage but under "usage" or in its choices.
PLAIN_CHUNK_KEYS = frozenset(
    ("id", "object", "created", "model", "choices", "system_fingerprint", "service_tier", "usage")
)
# Anthropic's deltas, which hold nothing else; their usage comes in other events.
DELTA_EVENT_KEYS = frozenset(("type", "index", "delta"))
PLAIN_DELTA_KEYS = frozenset(("type", "text", "thinking", "partial_json", "signature"))
# Their deltas are base64 sound, not text.
SOUND_EVENTS = frozenset(("response.audio.delta", "response.output_audio.delta"))
CLOSING_EVENTS = frozenset(("response.completed", "response.incomplete", "message_stop"))
HOST_KEYS = ("event", "sources", "selected_model_id")
DEEPEST_TEXT = 8

# What an event holds: texts, usage, completion id, whether it ends the completion, and the texts
# of what is whole now, streamed before or not. A bare tuple, because one is made for every chunk.
EventContent = tuple[list[str], ReportedUsage | None, object, bool, list[str]]
NO_TEXTS: list[str] = []

def collect_text(part: object, texts: list[str], depth: int = 0) -> None:
    """Append every produced text in `part`, a delta or message of any provider."""
    if isinstance(part, dict):
        for key, value in part.items():
            if not value:
                continue
            # vLLM and OpenRouter send the same thought under several names.
            if key in THOUGHT_KEYS and key != next(filter(part.get, THOUGHT_KEYS)):
                continue
            if isinstance(value, str):
                if key in TEXT_KEYS:
                    texts.append(value)
            elif key in ARGUMENT_KEYS:
                texts.append(json_text(value))
            elif key in NESTING_KEYS and depth < DEEPEST_TEXT:
                collect_text(value, texts, depth + 1)
    elif isinstance(part, list):
        if depth < DEEPEST_TEXT:
            for item in part:
                collect_text(item, texts, depth + 1)
    elif isinstance(part, str) and part:
        texts.append(part)

def read_event(event: Mapping[str, object]) -> EventContent:
    """Read an event of any provider's stream."""
    choices = event.get("choices")
    if not isinstance(choices, list):
        return read_native_event(event)
    texts: list[str] = []
    whole = NO_TEXTS
    finished = False
    has_usage = bool(event.get("usage")) or not event.keys() <= PLAIN_CHUNK_KEYS
    for choice in choices:
        if isinstance(choice, dict):
            delta = choice.get("delta")
            message = choice.get("message")
            # Perplexity repeats the whole message beside each delta.
            if delta is None:
                collect_text(choice if message is None else message, texts)
            else:
                collect_text(delta, texts)
            if choice.get("finish_reason"):
                finished = True
                if delta is not None and message is not None:
                    whole = []
                    collect_text(message, whole)
            if "usage" in choice or (isinstance(delta, dict) and "usage" in delta) or message:
                has_usage = True
    usage = None
    if has_usage or finished:
        usage = usage_in_event(event)
    return texts, usage, event.get("id"), finished, whole

def read_native_event(event: Mapping[str, object]) -> EventContent:
    """Read an event that isn't a chat-completion chunk."""
    kind = event.get("type")
    kind = kind if isinstance(kind, str) else ""
    delta = event.get("delta")
    texts: list[str] = []
    if kind not in SOUND_EVENTS:
        collect_text(delta, texts)  # Responses, Anthropic
    if isinstance(delta, str) and "usage" not in event:
        return texts, None, None, False, NO_TEXTS  # Responses, in nearly all of its events
    if (
        isinstance(delta, dict)
        and event.keys() == DELTA_EVENT_KEYS
        and delta.keys() <= PLAIN_DELTA_KEYS
    ):
        return texts, None, None, False, NO_TEXTS
    for key in ("response", "thinking"):  # Ollama's generate
        if isinstance(text := event.get(key), str) and text:
            texts.append(text)
    for key in ("candidates", "token", "results", "contentBlockDelta"):  # Gemini, TGI, watsonx
        if isinstance(held := event.get(key), (dict, list)):
            collect_text(held, texts)
    whole: list[str] = []
    completion_id = event.get("id") or event.get("responseId")
    for key in ("message", "content_block", "response", "item"):
        holder = event.get(key)
        if not isinstance(holder, dict):
            continue
        if key in ("message", "content_block"):  # Ollama's chat, Anthropic's tool names
            collect_text(holder, texts)
        elif key == "item" and kind == "response.output_item.added":
            collect_text(holder.get("name"), texts)
        elif key == "item" and kind == "response.output_item.done":
            collect_text(holder, whole)
        elif key == "response" and kind in CLOSING_EVENTS:
            collect_text(holder.get("output"), whole)
        if key in ("message", "response"):
            completion_id = completion_id or holder.get("id")
    usage = usage_in_event(event)
    finished = kind in CLOSING_EVENTS or event.get("done") is True
    return texts, usage, completion_id, finished, whole

def read_answer(answer: object) -> tuple[list[str], ReportedUsage | None, bool]:
    """Read an answer that came in one piece: its texts, its usage, whether a model answered."""
    if isinstance(answer, list):
        parts = [read_answer(each) for each in answer[:MOST_ANSWERS] if isinstance(each, dict)]
        usages = [usage for _, usage, _ in parts if usage is not None]
        return (
            [text for texts, _, _ in parts for text in texts],
            reduce(ReportedUsage.merged, usages) if usages else None,
            any(answered for _, _, answered in parts),
        )
    if not isinstance(answer, dict):
        return [], None, False
    texts: list[str] = []
    usage = usage_in_event(answer)
    choices = answer.get("choices")
    if (
        answer.get("error")
        or answer.get("type") == "error"
        or isinstance(answer.get("message"), str)
    ):
        return texts, usage, usage is not None
    if isinstance(choices, list):
        for choice in choices:
            if isinstance(choice, dict):
                collect_text(choice.get("message") or choice, texts)
    else:
        for key in ANSWER_KEYS:
            if value := answer.get(key):
                collect_text(value, texts)
    known = ("choices", "usage", *ANSWER_KEYS)
    return texts, usage, bool(texts) or any(key in answer for key in known)

def is_provider_event(event: Mapping[str, object]) -> bool:
    """Whether an event without text or usage is at least a sign of a model at work."""
    return bool(event) and not is_error(event) and not any(key in event for key in HOST_KEYS)

def is_error(event: Mapping[str, object]) -> bool:
    """Whether an event says that a call failed."""
    return bool(event.get("error")) or event.get("type") in ("error", "response.failed")

def usage_in_event(event: Mapping[str, object]) -> ReportedUsage | None:
    """The usage in an event, wherever a provider puts it; None if there is none.

    A bounded search through what can hold usage: never through what the model wrote or the client
    said, which could claim any number.
    """
    found: list[ReportedUsage] = []
    holders: list[tuple[Mapping[str, object], bool, int]] = [(event, True, 0)]
    for holder, counts, depth in holders:  # grows while it is read
        timings = holder.get("timings")
        if counts or timings:
            usage = parse_usage(holder if counts else None, timings)
            if usage is not NO_USAGE:
                found.append(usage)
        if depth == DEEPEST_USAGE:
            continue
        for key in USAGE_HOLDERS.intersection(holder):
            value = holder[key]
            if isinstance(value, list):
                dicts = [each for each in value[:MOST_HOLDERS] if isinstance(each, dict)]
                if key == "usage":  # a list of calls
                    calls = [usage for each in dicts if (usage := parse_usage(each)).is_charged]
                    found += [reduce(ReportedUsage.added, calls)] if calls else []
                    continue
            else:
                dicts = [value] if isinstance(value, dict) else []
            room = MOST_HOLDERS - len(holders)
            holders += [(each, key != "metadata", depth + 1) for each in dicts[:room]]
    return reduce(ReportedUsage.merged, found) if found else None

# =================================== helpers/metering/usage.py ====================================
# What one reply is charged for, added up from its stream events.

@dataclass(frozen=True, slots=True)
class Usage:
    """What a call or a whole reply has used: what its provider reported, and else estimates.

    Args:
        cached_input_tokens: The part of the input that was read from the provider's cache.
        cost_micros: What the provider says it costs, in millionths of a dollar, if it does.
        estimated: Whether any of the numbers is an estimate.
        cache_write_tokens: The part of the input that was written to the cache.
        reasoning_tokens: The part of the output that was thought, not said.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cost_micros: int | None = None
    estimated: bool = False
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        costs = [cost for cost in (self.cost_micros, other.cost_micros) if cost is not None]
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_input_tokens + other.cached_input_tokens,
            sum(costs) if costs else None,
            self.estimated or other.estimated,
            self.cache_write_tokens + other.cache_write_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )

    def without(self, other: Usage) -> Usage:
        """What is left of it beside another, in tokens at least nothing."""
        cost = self.cost_micros
        return Usage(
            max(0, self.input_tokens - other.input_tokens),
            max(0, self.output_tokens - other.output_tokens),
            max(0, self.cached_input_tokens - other.cached_input_tokens),
            None if cost is None else max(0, cost - (other.cost_micros or 0)),
            self.estimated,
            max(0, self.cache_write_tokens - other.cache_write_tokens),
            max(0, self.reasoning_tokens - other.reasoning_tokens),
        )

# Most providers send a chunk for each token: so many chunks are then a better count than a text.
FEWEST_CHUNKS = 20
# An estimate that is further from that, in tokens per chunk, shows that these aren't tokens.
TOKENS_PER_CHUNK = (0.75, 1.34)

def estimate_streamed(texts: Sequence[str]) -> int:
    """About how many tokens the texts of a stream's chunks have."""
    tokens, chunks = estimate_reply("".join(texts)), len(texts)
    least, most = TOKENS_PER_CHUNK
    alike = chunks >= FEWEST_CHUNKS and least * chunks <= tokens <= most * chunks
    return chunks if alike else tokens

def metered_call(
    usage: ReportedUsage,
    prompt_tokens: int,
    texts: Sequence[str],
    uncounted_texts: Sequence[str] = (),
) -> Usage:
    """What one call is charged for: what the provider said, and estimates for what it didn't."""
    input_tokens, output_tokens = usage.input_tokens, usage.output_tokens
    total_tokens, estimated = usage.total_tokens, False
    if total_tokens is not None:  # the parts may have come in another event
        input_tokens, output_tokens, total_tokens = split_total(
            input_tokens, output_tokens, total_tokens
        )
    if total_tokens is not None:
        text_tokens = estimate_streamed(texts)
        share = text_tokens / (prompt_tokens + text_tokens) if text_tokens else 0
        output_tokens = round(total_tokens * share)
        input_tokens = total_tokens - output_tokens
        estimated = True
    if input_tokens is None:
        input_tokens, estimated = prompt_tokens, True
    if output_tokens is None or (any(texts) and not output_tokens and total_tokens is None):
        output_tokens, estimated = estimate_streamed(texts), True
    elif uncounted_texts and (text_tokens := estimate_streamed(texts)) > output_tokens:
        # A reply stopped after an early running total: Anthropic's message_start says 1.
        output_tokens = min(text_tokens, output_tokens + estimate_streamed(uncounted_texts))
        estimated = True
    cached = min(usage.cached_input_tokens, input_tokens)
    return Usage(
        input_tokens,
        output_tokens,
        cached,
        usage.cost_micros,
        estimated,
        min(usage.cache_write_tokens, input_tokens - cached),
        min(usage.reasoning_tokens, output_tokens),
    )

@dataclass(slots=True, eq=False)
class ModelCall:
    """One completion: its usage so far, and its text in case that usage never comes."""

    completion_id: str | None = None
    usage: ReportedUsage = NO_USAGE
    texts: list[str] = field(default_factory=list)
    whole_texts: list[str] = field(default_factory=list)  # what came whole, streamed before or not
    counted_texts: int = 0
    finished: bool = False
    repeated_id: bool = False  # whether two events had the same, so that ids mean something
    answered: bool = False  # in one piece, so that even an empty answer had its prompt read

    @property
    def is_charged(self) -> bool:
        return self.answered or bool(self.texts or self.whole_texts) or self.usage.is_charged

    @property
    def produced_texts(self) -> list[str]:
        streamed, whole = sum(map(len, self.texts)), sum(map(len, self.whole_texts))
        return ["".join(self.whole_texts)] if whole > streamed else self.texts

    def metered(self, prompt_tokens: int) -> Usage:
        uncounted = self.texts[self.counted_texts :]
        return metered_call(self.usage, prompt_tokens, self.produced_texts, uncounted)

    def is_continued_by(self, usage: ReportedUsage, other: ModelCall) -> bool:
        """Whether `usage`, the first of a call with another id, is this call's running total.

        Some gateways give every chunk a fresh id and repeat the prompt's count on each; another
        call would have another prompt, or ids that stay the same from chunk to chunk.
        """
        mine = self.usage
        return (
            (not other.texts or not (self.finished or self.repeated_id or other.repeated_id))
            and (usage.input_tokens is None or mine.input_tokens in (None, usage.input_tokens))
            and (usage.output_tokens or 0) >= (mine.output_tokens or 0)
            and (usage.total_tokens or 0) >= (mine.total_tokens or 0)
        )

class MeteredRound:
    """The completions between two `request` hooks."""

    __slots__ = ("calls", "current", "prompt_tokens", "reported", "started")

    def __init__(self, prompt_tokens: int) -> None:
        self.prompt_tokens = prompt_tokens
        self.started = False
        self.current = ModelCall()
        self.calls = [self.current]
        self.reported: dict[str, ModelCall] = {}

    def turn_to(self, completion_id: object, has_text: bool) -> ModelCall:
        """Make the completion current that an event with another id belongs to.

        Ids change within one completion as well: Azure's first is empty, and the host gives each
        chunk of a pipe function a fresh one. So it is another call only where this one was over.
        """
        call = self.current
        if not isinstance(completion_id, str):
            return call
        if completion_id in self.reported:
            call = self.reported[completion_id]
        else:
            counted = call.completion_id is not None and call.usage.is_charged
            if counted or (has_text and call.finished):
                call = ModelCall()
                self.calls.append(call)
            call.completion_id = completion_id
            call.repeated_id = False
        self.current = call
        return call

    def add_usage(self, usage: ReportedUsage) -> None:
        call = self.current
        if len(self.calls) > 1 and not call.usage.is_charged and usage.is_charged:
            before = self.calls[-2]
            if call is self.calls[-1] and before.is_continued_by(usage, call):
                # Each text moves once at most: the call that takes it has usage, so it stays.
                before.texts += call.texts
                before.whole_texts = before.whole_texts or call.whole_texts
                before.completion_id = call.completion_id
                before.finished = call.finished
                self.calls.pop()
                self.current = call = before
        call.usage = call.usage.merged(usage)
        if usage.output_tokens or usage.total_tokens:
            call.counted_texts = len(call.texts)
        if call.completion_id is not None:
            self.reported[call.completion_id] = call

def parse_stream_line(line: bytes | str) -> object:
    """The JSON in one line of an event stream; None where there is none."""
    text = line.decode("utf-8", "replace") if isinstance(line, bytes) else line
    name, _, value = text.partition(":")
    if name != "data":
        return None
    try:
        return json.loads(value)
    except (ValueError, RecursionError):  # "[DONE]", or what nobody can read
        return None

class ReplyMeter:
    """Adds up what passes the stream hook for one reply."""

    def __init__(self) -> None:
        self._rounds = [MeteredRound(0)]
        self.failed = False  # whether an error came

    def begin_round(self, prompt_tokens: int) -> None:
        """A model call follows; the host may announce the same one twice."""
        prompt_tokens = max(0, prompt_tokens)
        if self._rounds[-1].started:
            self._rounds.append(MeteredRound(prompt_tokens))
        else:
            self._rounds[-1].prompt_tokens = prompt_tokens

    def drop_round(self) -> None:
        """The round that `begin_round` announced last isn't made."""
        if len(self._rounds) > 1 and not self._rounds[-1].started:
            self._rounds.pop()

    def add_event(self, event: object) -> None:
        """One stream event, any JSON value: constant time, no I/O, never raises.

        Before 0.11.1 Open WebUI hands over the streams of API calls line by line, as they come.
        """
        if isinstance(event, (bytes, str)):
            event = parse_stream_line(event)
        if not isinstance(event, dict):
            return
        texts, usage, completion_id, finished, whole = read_event(event)
        this_round = self._rounds[-1]
        call = this_round.current
        if texts or usage is not None or whole:
            if completion_id and completion_id != call.completion_id:
                call = this_round.turn_to(completion_id, bool(texts))
            elif completion_id and texts:
                call.repeated_id = True
            call.texts += texts
            if whole:
                # One item after the other, and then perhaps all of them once more.
                if event.get("type") == "response.output_item.done":
                    call.whole_texts += whole
                else:
                    call.whole_texts = whole
            if usage is not None:
                this_round.add_usage(usage)
                call = this_round.current
        elif not is_provider_event(event):
            self.failed = self.failed or is_error(event)
            return
        this_round.started = True
        if finished:
            call.finished = True

    def add_answer(self, answer: object) -> None:
        """A whole answer that wasn't streamed, any JSON value; never raises.

        It is a call of the round that `begin_round` announced last, or the whole of one whose
        beginning was streamed, so it's no more than once the same.
        """
        texts, usage, answered = read_answer(answer)
        if not answered:
            return
        this_round = self._rounds[-1]
        call = this_round.current
        if sum(map(len, texts)) > sum(map(len, call.texts)):
            call.texts = texts
        if usage is not None:
            this_round.add_usage(usage)
        call.answered = call.finished = this_round.started = True

    @property
    def awaited_prompt_tokens(self) -> int:
        """The prompt of a later round of which nothing has come yet; 0 if there is none."""
        last = self._rounds[-1]
        return 0 if last.started or len(self._rounds) == 1 else last.prompt_tokens

    @property
    def produced(self) -> bool:
        """Whether anything passed that the provider charges for."""
        return any(call.is_charged for each in self._rounds for call in each.calls)

    def total(self, outlet_usage: object = None, outlet_text: str | None = None) -> Usage:
        """What the reply is charged for as a whole.

        Args:
            outlet_usage: The host's summed usage; used where the stream saw none (no streaming).
            outlet_text: The reply's text; used where nothing was streamed.
        """
        charged = [
            (each.prompt_tokens, call)
            for each in self._rounds
            for call in each.calls
            if call.is_charged
        ]
        if not any(call.usage.is_charged for _, call in charged):
            usage = parse_usage(outlet_usage)
            texts = [text for _, call in charged for text in call.produced_texts]
            texts = texts or ([outlet_text] if outlet_text else [])
            # Usage that can't be read is the sign of a call, not of one that cost nothing.
            seen = bool(texts) or bool(outlet_usage)
            if usage.is_charged or (seen and not charged and len(self._rounds) == 1):
                prompt_tokens = sum(tokens for tokens, _ in charged)
                return metered_call(usage, prompt_tokens or self._rounds[-1].prompt_tokens, texts)
        return sum((call.metered(tokens) for tokens, call in charged), Usage())

# ================================== helpers/metering/charges.py ===================================
# What one reply costs, in tokens, in money and toward limits.

# No reply is charged more than this, in tokens, weighted tokens or millionths of a dollar: four
# million such replies still fit in a 64-bit sum.
LARGEST_CHARGE = 10**12
NO_TOKENS = Usage()

@dataclass(frozen=True, slots=True)
class Charge:
    """What a reply costs: estimated while reserved, final when settled.

    Args:
        usage: What it has used.
        cost_micros: Its price in millionths of a dollar.
        counted: What counts toward limits of both: weighted, and nothing at all for a free model.
    """

    usage: Usage = NO_TOKENS
    cost_micros: int = 0
    counted: Amounts = NOTHING

    def values(self) -> dict[str, Any]:
        """The columns of a record that hold it."""
        return {
            "input_tokens": self.usage.input_tokens,
            "output_tokens": self.usage.output_tokens,
            "cached_input_tokens": self.usage.cached_input_tokens,
            "cost_micros": self.cost_micros,
            "estimated": self.usage.estimated,
            "counted": self.counted.requests,
            "weighted_input_tokens": self.counted.input_tokens,
            "weighted_output_tokens": self.counted.output_tokens,
        }

def weigh_tokens(tokens: int, weight: Decimal) -> int:
    """Tokens times a model's weight, rounded up so that no use of it is free."""
    return min(int((tokens * weight).to_integral_value(ROUND_CEILING)), LARGEST_CHARGE)

def price_of(usage: Usage, rule: ModelRule) -> int:
    """The cost in millionths of a dollar by the administrator's prices; 0 without any.

    Prices are dollars per million tokens, so tokens times price is millionths of a dollar. What
    costs anything costs at least one: the sum of many little calls must reach its limit too.
    """
    input_price = rule.input_price or Decimal(0)
    output_price = rule.output_price or Decimal(0)
    cached_price = input_price if rule.cached_input_price is None else rule.cached_input_price
    write_price = input_price if rule.cache_write_price is None else rule.cache_write_price
    reasoning_price = output_price if rule.reasoning_price is None else rule.reasoning_price
    cached = min(usage.cached_input_tokens, usage.input_tokens)
    written = min(usage.cache_write_tokens, usage.input_tokens - cached)
    reasoning = min(usage.reasoning_tokens, usage.output_tokens)
    cost = (
        (usage.input_tokens - cached - written) * input_price
        + cached * cached_price
        + written * write_price
        + (usage.output_tokens - reasoning) * output_price
        + reasoning * reasoning_price
    )
    return max(1, int(cost.to_integral_value(ROUND_HALF_UP))) if cost else 0

def make_charge(usage: Usage, rule: ModelRule) -> Charge:
    """Price and weigh what a reply used.

    The administrator's prices count; without any, the cost that the provider reported.
    """
    input_tokens = min(usage.input_tokens, LARGEST_CHARGE)
    usage = replace(
        usage,
        input_tokens=input_tokens,
        output_tokens=min(usage.output_tokens, LARGEST_CHARGE),
        cached_input_tokens=min(usage.cached_input_tokens, input_tokens),
    )
    price = price_of(usage, rule) if rule.is_priced else usage.cost_micros or 0
    cost = min(price, LARGEST_CHARGE)
    if not rule.weight:
        return Charge(usage, cost)
    weighted_input = weigh_tokens(usage.input_tokens, rule.weight)
    weighted_output = weigh_tokens(usage.output_tokens, rule.weight)
    return Charge(usage, cost, Amounts(1, weighted_input, weighted_output, cost))

def tightest_limit(
    decision: Decision, prompt_tokens: int, rule: ModelRule
) -> tuple[int, LimitState] | None:
    """The output tokens with which a reply ends at its tightest limit, below 0 too; and that limit.

    Returns:
        None where no limit bounds the output.
    """
    prices = {
        "tokens": (weigh_tokens(prompt_tokens, rule.weight), rule.weight),
        "output_tokens": (0, rule.weight),
        "cost": (price_of(Usage(prompt_tokens), rule), rule.output_price or Decimal(0)),
    }
    most = [
        (int(((state.remaining - before) / price).to_integral_value(ROUND_FLOOR)), state)
        for state in decision.states
        for before, price in (prices.get(state.applied.limit.measure, (0, Decimal(0))),)
        if price
    ]
    return min(most, key=lambda found: found[0]) if most else None

def most_output_tokens(decision: Decision, prompt_tokens: int, rule: ModelRule) -> int | None:
    """The same as a number that a provider takes, at least 1; None where no limit bounds it."""
    found = tightest_limit(decision, prompt_tokens, rule)
    return None if found is None else max(1, found[0])

# =================================== helpers/ledger/database.py ===================================
# An engine for a database URL as Open WebUI spells it.

SQLITE_BUSY_TIMEOUT_MS = 5_000

def parse_database_url(text: str, where: str) -> URL:
    """Read a URL of SQLite or PostgreSQL, whatever driver it names.

    Raises:
        ConfigurationError: It isn't one. The error doesn't repeat it: it may hold a password.
    """
    allowed = "sqlite:////path/to/webui.db or postgresql://user:password@host:5432/database"
    try:
        url = make_url(text.strip())
    except (ArgumentError, ValueError):
        raise ConfigurationError(where, "not a database URL", allowed) from None
    if "@" in (url.host or ""):
        # The driver would take the end of the password for the host, and print it in its errors.
        raise ConfigurationError(where, 'an "@" in the password', 'it written as "%40"')
    backend = url.get_backend_name()
    if backend == "sqlite":
        return url.set(drivername="sqlite")
    if backend in ("postgres", "postgresql"):
        driver = "psycopg" if find_spec("psycopg") else "psycopg2"
        return url.set(drivername=f"postgresql+{driver}")
    raise ConfigurationError(where, f"a database of type {backend!r}", allowed)

def set_sqlite_pragmas(connection: Any, _record: object) -> None:
    """What Open WebUI sets on its own connections, so that both can write to one file."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute(f"PRAGMA busy_timeout={SQLITE_BUSY_TIMEOUT_MS}")
    cursor.close()

def open_database(text: str, where: str = "database URL", pooled: bool = True) -> Engine:
    """An engine of its own for a database URL; nothing is connected yet.

    Args:
        text: As Open WebUI spells it.
        where: What an error calls it.
        pooled: As for `open_postgresql`.

    Raises:
        ConfigurationError: It isn't a URL of SQLite or PostgreSQL.
    """
    url = parse_database_url(text, where)
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"check_same_thread": False})
        event.listen(engine, "connect", set_sqlite_pragmas)
        return engine
    return open_postgresql(url, pooled)

def open_postgresql(url: URL, pooled: bool = True) -> Engine:
    """An engine of its own for PostgreSQL; nothing is connected yet.

    Args:
        url: With its driver.
        pooled: Whether connections may be kept. Those who turn that off have a pooler which gives
            every transaction another connection to the server: what one has prepared, as psycopg 3
            does with a statement's sixth execution, the next one doesn't know.
    """
    pool: dict[str, Any] = {"pool_pre_ping": True} if pooled else {"poolclass": NullPool}
    if url.get_driver_name() != "psycopg":
        return create_engine(url, **pool)
    unprepared = {} if pooled else {"prepare_threshold": None}
    engine = create_engine(url, connect_args=unprepared, **pool)
    event.listen(engine, "connect", send_wide_integers)
    event.listen(engine, "do_execute_no_params", execute_unprepared)
    return engine

def send_wide_integers(connection: Any, _record: object) -> None:
    """Let psycopg 3 send all integers alike: it would prepare a statement anew for each size."""
    dumper = import_module("psycopg.types.numeric").Int8Dumper
    connection.adapters.register_dumper(int, dumper)

def execute_unprepared(cursor: Any, statement: str, _context: object) -> bool:
    """Let psycopg 3 prepare nothing that begins or ends a transaction.

    A COMMIT by a name that stands for something else in a pooler's session would be lost.
    """
    cursor.execute(statement, prepare=False)
    return True

# ================================= helpers/ledger/transactions.py =================================
# One transaction with its locks and its retries, alike on SQLite and PostgreSQL.

# How long a request may wait for its turn. Then it is refused where others have written meanwhile,
# and else `on_ledger_error` decides.
TRANSACTION_PATIENCE_SECONDS = 10.0
RETRY_PAUSE_SECONDS = 0.05
# With that much time left a connection to SQLite waits as long as it was told when it was opened.
UNHURRIED_MS = 6_000
# Serialization failure, deadlock, lock timeout; and a prepared statement that isn't there or is
# already, behind a pooler that doesn't look after them. Another try is all it takes.
RETRIED_SQLSTATES = frozenset({"40001", "40P01", "55P03", "26000", "42P05"})
# PostgreSQL's classes of errors in a statement or its values, whatever class of Python's the
# driver gives them: unsupported, cardinality, data, integrity, syntax or access, too large.
REFUSED_SQLSTATE_CLASSES = frozenset({"0A", "21", "22", "23", "42", "54"})
# SQLite's. SQLITE_ERROR is what it says of a table or a column that isn't there.
REFUSED_SQLITE_ERRORS = ("SQLITE_ERROR", "SQLITE_TOOBIG", "SQLITE_MISMATCH", "SQLITE_RANGE")
REFUSED_ERRORS = (DataError, IntegrityError, NotSupportedError, ProgrammingError)
# A connection that is refused has no such code.
NO_CONNECTION_LEFT = ("too many clients", "too many connections", "connection slots are reserved")
NEW_POOL_COUNTER_LOCK = "new pool counter"
POOL_LOCKS = 64

WorkResult = TypeVar("WorkResult")

def insert_on(dialect: Dialect) -> Any:
    """The insert of a database's own dialect, which can say what becomes of a row that is there."""
    return insert_on_sqlite if dialect.name == "sqlite" else insert_on_postgresql

def new_deadline() -> float:
    """When whoever comes now has waited long enough, by `time.monotonic`."""
    return time.monotonic() + TRANSACTION_PATIENCE_SECONDS

def advisory_key(name: str) -> int:
    """A PostgreSQL advisory lock's 64-bit key for one of our names."""
    digest = hashlib.blake2b(f"usage_limits {name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)

def lock_key(name: str) -> int:
    """The key of a scope's lock.

    PostgreSQL's table of locks has room for some thousands in all, and a user may be in as many
    pools: those share a few keys.
    """
    if name.startswith(("group:", "everyone")):
        return advisory_key(f"pool {advisory_key(name) % POOL_LOCKS}")
    return advisory_key(name)

def select_locks(exclusive: Iterable[str], shared: Iterable[str] = (), **settings: str) -> str:
    """A PostgreSQL statement that waits for locks until the transaction's end.

    Exclusive ones are taken in the order of their keys, so that two transactions never wait for
    each other.

    Args:
        exclusive: Locks that nobody else may hold.
        shared: Locks that others may share.
        settings: What is set for the transaction before that.
    """
    calls = [f"set_config('{name}', '{value}', true)" for name, value in settings.items()]
    calls += [
        f"pg_advisory_xact_lock({key})" for key in sorted({lock_key(name) for name in exclusive})
    ]
    calls += [f"pg_advisory_xact_lock_shared({lock_key(name)})" for name in shared]
    return f"SELECT {', '.join(calls)}"

def take_advisory_locks(connection: Connection, exclusive: Iterable[str]) -> None:
    """Wait for more locks in a transaction; SQLite needs none."""
    if connection.dialect.name != "sqlite":
        connection.exec_driver_sql(select_locks(exclusive))

def begin_on_sqlite(connection: Connection, milliseconds: int) -> None:
    """Take the one writer's place, and wait no longer for it than that."""
    if milliseconds >= UNHURRIED_MS:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        return
    # The connection has a patience of its own, and keeps it.
    own = connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one()
    connection.exec_driver_sql(f"PRAGMA busy_timeout = {min(own, milliseconds)}")
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    connection.exec_driver_sql(f"PRAGMA busy_timeout = {own}")

def begin_transaction(
    connection: Connection,
    exclusive: Iterable[str],
    shared: Iterable[str],
    lasting: bool,
    deadline: float,
) -> None:
    """Begin a transaction under these locks, in one round trip."""
    milliseconds = max(1, int((deadline - time.monotonic()) * 1_000))
    if connection.dialect.name == "sqlite":
        # Takes the one writer's place at once: what is read in it can't be stale later.
        begin_on_sqlite(connection, milliseconds)
        return
    locks = select_locks(
        exclusive,
        shared,
        lock_timeout=f"{milliseconds}ms",
        # A bitmap scan would go through every reply that has ended since the last vacuum: it
        # leaves no note, as an index scan does, that they are gone.
        enable_bitmapscan="off",
        **({} if lasting else {"synchronous_commit": "off"}),
    )
    connection.exec_driver_sql(f"BEGIN; {locks}")

def sqlstate_of(error: DBAPIError) -> str:
    """PostgreSQL's code of an error; "" where it has none."""
    return getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None) or ""

def is_refused(error: DBAPIError) -> bool:
    """Whether the database was reached and refuses the statement or its values."""
    if error.connection_invalidated or is_worth_retrying(error):
        return False
    name = getattr(error.orig, "sqlite_errorname", "")
    return (
        isinstance(error, REFUSED_ERRORS)
        or sqlstate_of(error)[:2] in REFUSED_SQLSTATE_CLASSES
        or name in REFUSED_SQLITE_ERRORS
    )

def is_worth_retrying(error: DBAPIError) -> bool:
    """Whether the same transaction may succeed a moment later."""
    if error.connection_invalidated:
        return True
    state = sqlstate_of(error)
    # SQLITE_BUSY and SQLITE_LOCKED, by their names since Python 3.11.
    name = getattr(error.orig, "sqlite_errorname", "")
    return state in RETRIED_SQLSTATES or name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))

class TransactionRunner:
    """Runs functions in transactions of one engine.

    A function may be run again after a conflict or a broken connection, so it must change
    nothing but the database, and find its own earlier commit harmless.

    Args:
        engine: On SQLite or PostgreSQL.
        schema: The PostgreSQL schema of the tables; None for the connection's own.
        keep_connections: Whether to hold on to connections until `rest` is called. Pools often
            ask the server first whether a connection lives, or open a new one each time.
    """

    def __init__(
        self, engine: Engine, schema: str | None = None, keep_connections: bool = False
    ) -> None:
        # Transactions say BEGIN themselves: the driver would spend a round trip on it.
        options: dict[str, Any] = {"isolation_level": "AUTOCOMMIT", "no_parameters": True}
        if schema:  # translating takes a sixth of a reply's time
            options["schema_translate_map"] = {None: schema}
        self._engine = engine.execution_options(**options)
        self._engine.hide_parameters = True  # in errors: they may be anyone's
        self._keeps = keep_connections
        self._idle: list[Connection] = []
        self._path = engine.url.database if engine.dialect.name == "sqlite" else None
        # When it could last be written to, by `time.monotonic`.
        self.wrote_at = float("-inf")
        self._generation = 0  # of connections, new wherever the database isn't where they lead
        # How many statements were refused: the tables may not be those that were prepared.
        self.refused = 0

    def find_file(self) -> tuple[int, int] | None:
        """Which file SQLite's is now; None if there is none.

        A connection goes on writing to one that was deleted or replaced, where nobody finds it.
        """
        if self._path is None:
            return None
        try:
            found = os.stat(self._path)
        except (OSError, ValueError):
            return None
        return found.st_dev, found.st_ino

    def reconnect(self) -> None:
        """Give up all connections that aren't in use: the database isn't where they lead."""
        self._generation += 1
        self.rest()
        self._engine.dispose()

    def run(
        self,
        work: Callable[[Connection], WorkResult],
        exclusive: Iterable[str] = (),
        shared: Iterable[str] = (),
        lasting: bool = True,
        deadline: float | None = None,
    ) -> WorkResult:
        """Run `work` in a transaction under the named locks, and commit.

        Args:
            work: What to do.
            exclusive: Locks that nobody else may hold.
            shared: Locks that others may share.
            lasting: Whether to wait until PostgreSQL has it on disk. If not, it may be gone when
                the database server itself crashes within a second.
            deadline: Until when it may take, by `time.monotonic`; None for
                `TRANSACTION_PATIENCE_SECONDS` from now.

        Raises:
            LedgerBusyError: It got no turn, while others wrote.
            LedgerError: The database can't be reached, or is still busy at the deadline.
            LedgerDataError: It refuses a statement or a value.
        """
        exclusive, shared = tuple(exclusive), tuple(shared)
        until = new_deadline() if deadline is None else deadline

        def transaction(connection: Connection) -> WorkResult:
            begin_transaction(connection, exclusive, shared, lasting, until)
            result = work(connection)
            connection.exec_driver_sql("COMMIT")
            self.wrote_at = time.monotonic()
            return result

        return self.read(transaction, until)

    def read(
        self, work: Callable[[Connection], WorkResult], deadline: float | None = None
    ) -> WorkResult:
        """Run `work`, every statement for itself; raises as `run` does."""
        if deadline is None:
            deadline = new_deadline()
        elif time.monotonic() > deadline:
            raise self.no_turn("no turn in time", deadline)
        pause = RETRY_PAUSE_SECONDS
        while True:
            try:
                return self._run_once(work)
            except DBAPIError as error:
                if error.connection_invalidated:
                    self.rest()  # the others won't be any better
                if is_refused(error):
                    self.refused += 1
                    name = type(error.orig).__name__
                    raise LedgerDataError(f"{name} in the ledger") from error
                again = is_worth_retrying(error) or self._is_crowded_out(error)
                if not again or error.connection_invalidated:
                    self.wrote_at = float("-inf")  # what waits behind it is no crowd
                if not again or time.monotonic() + pause > deadline:
                    # The driver's text may quote parameters; its class says enough.
                    raise self.no_turn(type(error.orig).__name__, deadline) from error
            except UsageLimitsError:
                raise
            except (ArithmeticError, StatementError, ValueError) as error:
                # What a driver couldn't even send: a lone surrogate, a NUL, 10**400.
                raise LedgerDataError(f"{type(error).__name__} in the ledger") from error
            except SQLAlchemyError as error:
                raise LedgerError(f"{type(error).__name__} in the ledger") from error
            time.sleep(pause)
            pause *= 2

    def no_turn(self, why: str, deadline: float) -> LedgerError:
        """The error of who gets no turn: it is no outage if others have written meanwhile."""
        if self.wrote_at > deadline - TRANSACTION_PATIENCE_SECONDS:
            return LedgerBusyError(f"{why} in the ledger, which others wrote to meanwhile")
        return LedgerError(f"{why} in the ledger")

    def rest(self) -> None:
        """Give all connections back that aren't in use."""
        while (connection := self._take_idle()) is not None:
            connection.close()

    def _take_idle(self) -> Connection | None:
        try:
            return self._idle.pop()
        except IndexError:  # asking first would leave room for another thread in between
            return None

    def _run_once(self, work: Callable[[Connection], WorkResult]) -> WorkResult:
        generation = self._generation
        connection = self._take_idle() or self._engine.connect()
        try:
            result = work(connection)
        except BaseException:
            connection.invalidate()  # and with it the transaction
            connection.close()
            raise
        if generation != self._generation:
            connection.invalidate()
        if self._keeps and generation == self._generation and self._may_keep_one():
            self._idle.append(connection)
        else:
            connection.close()
        return result

    def _is_crowded_out(self, error: DBAPIError) -> bool:
        """Whether the server is there and only has no connection left: another thread has one.

        A crowd that takes up all of its connections must not look like an outage.
        """
        if error.statement is not None:
            return False
        pool, told = self._engine.pool, str(error.orig)
        connected = isinstance(pool, QueuePool) and pool.checkedout() > 0
        return connected or any(words in told for words in NO_CONNECTION_LEFT)

    def _may_keep_one(self) -> bool:
        """Whether others who use the pool find a connection all the same."""
        pool = self._engine.pool
        return not isinstance(pool, QueuePool) or pool.checkedout() < pool.size()

# ==================================== helpers/ledger/tables.py ====================================
# The ledger's own tables and their numbered migrations.

# Own MetaData: Open WebUI's migrations never see these tables, and ours never see its own.
ledger_metadata = MetaData()

# Instants are UTC, in whole seconds since 1970, as in Open WebUI's own tables.
records_table = Table(
    "usage_limits_records",
    ledger_metadata,
    Column("id", Text, primary_key=True),
    Column("user_id", Text, nullable=False),
    Column("user_email", Text, nullable=False),
    # "|id|id|": the groups at that time, since leaving one must not change what was recorded.
    Column("group_ids", Text, nullable=False),
    Column("model_id", Text, nullable=False),
    # "|chosen|base|": every name that a limit's model glob may match.
    Column("model_names", Text, nullable=False),
    # page, temporary, channel, automation, api, task, direct, backfill
    Column("source", Text, nullable=False),
    Column("chat_id", Text, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("policy", Text, nullable=False),
    Column("state", Text, nullable=False),  # reserved, then settled or released
    Column("created_at", BigInteger, nullable=False),
    Column("settled_at", BigInteger),
    # While its server lives it pushes this ahead; past it the reservation is an orphan.
    Column("lease_until", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cached_input_tokens", BigInteger, nullable=False),
    Column("cost_micros", BigInteger, nullable=False),
    Column("estimated", Boolean, nullable=False),
    # What counts toward limits: 0 for a model of weight 0, else 1 and the weighted tokens.
    Column("counted", Integer, nullable=False),
    Column("weighted_input_tokens", BigInteger, nullable=False),
    Column("weighted_output_tokens", BigInteger, nullable=False),
    # Who holds it: a worker's id, "" for one of the first release.
    Column("worker", Text, nullable=False, server_default=""),
    # Why it was released, or settled by an estimate; "" for a reply that was settled as it ended.
    Column("end_reason", Text, nullable=False, server_default=""),
)
# Written out, since SQLite uses a partial index only where the text of its condition stands.
IS_OPEN = records_table.c.state == literal_column("'reserved'")
Index("usage_limits_records_user", records_table.c.user_id, records_table.c.created_at)
Index("usage_limits_records_created", records_table.c.created_at)
Index(
    "usage_limits_records_open",
    records_table.c.user_id,
    # Always the same here, but SQLite takes the index of which it can use more columns. Else it
    # might take the one above and go through all that the user has ever used.
    records_table.c.state,
    sqlite_where=IS_OPEN,
    postgresql_where=IS_OPEN,
    # PostgreSQL can mark each entry of a reply that has ended, and not only hundreds at once.
    postgresql_with={"deduplicate_items": "off"},
)

# Sums of settled records, so that a check reads a few rows however large the ledger is.
# They can be rebuilt from the records at any time.
counters_table = Table(
    "usage_limits_counters",
    ledger_metadata,
    Column("id", Text, primary_key=True),
    Column("scope", Text, nullable=False),  # user:ID, group:ID, everyone
    Column("model_glob", Text, nullable=False),
    # Records with window_start <= created_at < window_end are summed. Rolling windows
    # move their start along and have no end.
    Column("window_start", BigInteger, nullable=False),
    Column("window_end", BigInteger, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cost_micros", BigInteger, nullable=False),
    Column("source", Text, nullable=False, server_default=""),  # "" for all
)
Index("usage_limits_counters_scope", counters_table.c.scope, counters_table.c.window_end)

# Which warnings and alerts were given, so that each is given once per window.
notices_table = Table(
    "usage_limits_notices",
    ledger_metadata,
    Column("id", Text, primary_key=True),
    Column("expires_at", BigInteger, nullable=False),
)

# What an administrator adds to a user's or a pool's limit until its window ends: rows with who,
# when and why, never edits of what was used. A reset is a grant of what had been used.
grants_table = Table(
    "usage_limits_grants",
    ledger_metadata,
    Column("id", Text, primary_key=True),
    Column("scope", Text, nullable=False),
    Column("measure", Text, nullable=False),
    Column("model_glob", Text, nullable=False),
    Column("period", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),  # grant or reset
    Column("granted_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("source", Text, nullable=False, server_default=""),  # as the counter's
)
Index("usage_limits_grants_scope", grants_table.c.scope, grants_table.c.expires_at)

# Whom the names in the policies have meant: a policy still holds after a rename.
names_table = Table(
    "usage_limits_names",
    ledger_metadata,
    Column("kind", Text, primary_key=True),  # group or user
    Column("name", Text, primary_key=True),  # as the policies have it, in lower case
    Column("id", Text, primary_key=True),
    Column("last_seen", Text, nullable=False),  # the name or address that it had last
    Column("created_at", BigInteger, nullable=False),
)

# Workers that hold reservations. They count up as long as they live, so that others see it
# without comparing clocks.
workers_table = Table(
    "usage_limits_workers",
    ledger_metadata,
    Column("id", Text, primary_key=True),
    Column("beats", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
)

# The last policies texts that were saved on the page, to go back to.
policies_table = Table(
    "usage_limits_policies",
    ledger_metadata,
    Column("id", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),  # in the order in which they were saved
    Column("policies", Text, nullable=False),
    Column("saved_by", Text, nullable=False),
    Column("saved_at", BigInteger, nullable=False),
)

# What records add up to in stretches of time that are over, for reports alone. They can be made
# anew from the records at any time.
rollups_table = Table(
    "usage_limits_rollups",
    ledger_metadata,
    # How long a stretch is, and when it begins.
    Column("seconds", BigInteger, nullable=False),
    Column("start", BigInteger, nullable=False),
    Column("user_id", Text, nullable=False),  # as group_ids "" where all are summed
    Column("group_ids", Text, nullable=False),
    Column("model_id", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cost_micros", BigInteger, nullable=False),
    Column("estimated_requests", BigInteger, nullable=False),
)
Index("usage_limits_rollups_start", rollups_table.c.seconds, rollups_table.c.start)

migrations_table = Table(
    "usage_limits_migrations",
    ledger_metadata,
    Column("number", Integer, primary_key=True),
    Column("applied_at", BigInteger, nullable=False),
)

def m001_first_tables(connection: Connection) -> None:
    """The first released schema; on a new database also what came later, found there by then."""
    ledger_metadata.create_all(connection)

def m002_names(connection: Connection) -> None:
    """Whom the policies have meant, since 0.2.0; a ledger made anew has the table already."""
    names_table.create(connection, checkfirst=True)

def ledger_schema(connection: Connection) -> str | None:
    """The PostgreSQL schema of the tables; None for the connection's own."""
    schemas = connection.get_execution_options().get("schema_translate_map") or {}
    found: str | None = schemas.get(None)
    return found

def add_text_columns(connection: Connection, table: Table, *names: str) -> None:
    """Add columns of text, "" in all rows, as far as they aren't there."""
    schema, quote = ledger_schema(connection), connection.dialect.identifier_preparer.quote
    nothing: Select[Any] = select(literal_column("*")).select_from(table).limit(0)
    present = set(connection.execute(nothing).keys())
    place = f"{quote(schema)}.{quote(table.name)}" if schema else quote(table.name)
    for name in names:
        if name not in present:
            connection.exec_driver_sql(
                f"ALTER TABLE {place} ADD COLUMN {quote(name)} TEXT NOT NULL DEFAULT ''"
            )

def m003_workers(connection: Connection) -> None:
    """Which worker holds a reservation, and why one was released."""
    workers_table.create(connection, checkfirst=True)
    add_text_columns(connection, records_table, "worker", "end_reason")

def m004_sources(connection: Connection) -> None:
    """Counters and grants of limits on one source of requests."""
    add_text_columns(connection, counters_table, "source")
    add_text_columns(connection, grants_table, "source")

def m005_policy_versions(connection: Connection) -> None:
    """The policies texts that were saved on the page."""
    policies_table.create(connection, checkfirst=True)

def m006_rollups(connection: Connection) -> None:
    """Sums for reports; where the records were dropped and made anew, what is left is of others."""
    rollups_table.create(connection, checkfirst=True)
    connection.execute(rollups_table.delete())

# Append only: a released migration is never changed.
MIGRATIONS: tuple[Callable[[Connection], None], ...] = (
    m001_first_tables,
    m002_names,
    m003_workers,
    m004_sources,
    m005_policy_versions,
    m006_rollups,
)

def migrate_ledger(connection: Connection, now: int) -> int:
    """Bring the tables up to date and return how many migrations that took.

    The caller holds the lock that keeps other workers out until the commit.
    """
    schema = ledger_schema(connection)
    applied = 0
    if connection.dialect.has_table(connection, migrations_table.name, schema=schema):
        newest = connection.execute(select(func.max(migrations_table.c.number))).scalar()
        applied = newest or 0
    for number, migration in enumerate(MIGRATIONS[applied:], start=applied + 1):
        migration(connection)
        connection.execute(migrations_table.insert().values(number=number, applied_at=now))
    return len(MIGRATIONS) - applied

# ================================== helpers/ledger/identities.py ==================================
# Identities: whom the names in the policies mean, also after a rename.

# For so long a worker may not know of a rename that it hasn't seen itself.
REFRESH_SECONDS = 5
# A longer name in the policies is matched but not remembered, nor is one that no database stores.
LONGEST_REMEMBERED = 255
MOST_NOTES_IN_FORM = 10
MOST_UNPRICED = 1_000

Kind = Literal["group", "user"]

@dataclass(frozen=True, slots=True)
class RememberedName:
    """That a name in the policies has meant a group or a user."""

    kind: str
    name: str
    id: str
    last_seen: str  # its name or address at that time

@dataclass(frozen=True, slots=True)
class HostNames:
    """What Open WebUI has now: names of groups and addresses of users by id, and models."""

    groups: Mapping[str, str]
    users: Mapping[str, str]
    models: Collection[str] = ()  # empty: not known

    def of(self, kind: str) -> Mapping[str, str]:
        """The names of one kind."""
        return self.groups if kind == "group" else self.users

@dataclass(frozen=True, slots=True)
class NamedTable:
    """A table, or a pool's key, that names a group or a user.

    Args:
        kind: What it names.
        key: The name as `PolicySet` has it.
        written: The name as the text has it.
        header: The table's first line.
        is_policy: Whether it is a group's or a user's own table.
    """

    kind: Kind
    key: str
    written: str
    header: str
    is_policy: bool = True

@dataclass(frozen=True, slots=True)
class Identities:
    """Whom the names in a policies text mean.

    Args:
        sure: The names that mean a group or a user, by its kind and id.
        doubtful: The names of which it is open.
        bound: The ids that each name is known to mean, by kind and name; it has all names.
        matched: What the ledger should remember.
        problems: What an administrator should mend, a sentence each.
        renames: Which policies mean somebody who has another name now, a sentence each.
        models: The models that are known.
    """

    sure: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    doubtful: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    bound: Mapping[tuple[str, str], frozenset[str]] = field(default_factory=dict)
    matched: frozenset[RememberedName] = frozenset()
    problems: tuple[str, ...] = ()
    renames: tuple[str, ...] = ()
    models: Collection[str] = ()

    @property
    def notices(self) -> tuple[str, ...]:
        """All that an administrator should know."""
        return self.problems + self.renames

    def recall(self, subject: Subject) -> Subject:
        """The user with the names in the policies that mean it and its groups."""
        groups = []
        for group in subject.groups:
            own = (fold_name(group.id), fold_name(group.name))
            keys, doubtful = self._keys_of("group", group.id, own)
            groups.append(replace(group, keys=keys, doubtful=doubtful))
        own = (subject.user_id, fold_name(subject.email))
        keys, doubtful = self._keys_of("user", subject.user_id, own)
        return replace(subject, groups=tuple(groups), keys=keys, doubtful=doubtful)

    def names_user(self, subject: Subject) -> bool:
        """Whether a name in the policies may mean this very user, and not only its groups."""
        own = ("user", subject.user_id), ("user", fold_name(subject.email))
        named = own[0] in self.sure or own[0] in self.doubtful
        return named or any(name in self.bound for name in own)

    def _keys_of(
        self, kind: Kind, key: str, own: Iterable[str]
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        sure = dict.fromkeys(self.sure.get((kind, key), ()))
        doubtful = dict.fromkeys(self.doubtful.get((kind, key), ()))
        for name in own:
            known = self.bound.get((kind, name))
            if known is None or name in sure or name in doubtful:
                continue
            # Not seen at the last look: new, or renamed a moment ago.
            (doubtful if known else sure)[name] = None
        return tuple(sure), tuple(doubtful)

def named_in(policies: PolicySet) -> Iterator[NamedTable]:
    """Every group and user that a policies text names, in its order within each kind."""
    for key, policy in policies.groups.items():
        yield NamedTable("group", key, policy.name, table_header("group", policy.name))
    for key, policy in policies.users.items():
        yield NamedTable("user", key, policy.name, table_header("user", policy.name))
    for pool in policies.pools:
        if pool.group is not None:
            header = f"{table_header('pool', pool.name)} group"
            yield NamedTable("group", fold_name(pool.group), pool.group, header, is_policy=False)

def identify(
    policies: PolicySet, host: HostNames, remembered: Iterable[RememberedName] = ()
) -> Identities:
    """Whom the names in the policies mean, given what there is and what was remembered."""
    reader = IdentityReader(host, remembered)
    for table in named_in(policies):
        reader.read(table)
    reader.report_conflicts()
    return Identities(
        {key: tuple(names) for key, names in reader.sure.items()},
        {key: tuple(names) for key, names in reader.doubtful.items()},
        reader.bound,
        frozenset(reader.matched),
        tuple(dict.fromkeys((*reader.problems, *unknown_models(policies, host.models)))),
        tuple(dict.fromkeys(reader.renames)),
        host.models,
    )

class IdentityReader:
    """Goes through the names in the policies one by one."""

    def __init__(self, host: HostNames, remembered: Iterable[RememberedName]) -> None:
        self.host = host
        self.remembered: dict[tuple[str, str], set[str]] = {}
        for one in remembered:
            self.remembered.setdefault((one.kind, one.name), set()).add(one.id)
        self.holders: dict[tuple[str, str], list[str]] = {}
        for kind in ("group", "user"):
            for key, name in host.of(kind).items():
                self.holders.setdefault((kind, fold_name(name)), []).append(key)
        self.group_ids = {fold_name(key): key for key in host.groups}
        self.sure: dict[tuple[str, str], dict[str, None]] = {}
        self.doubtful: dict[tuple[str, str], dict[str, None]] = {}
        self.bound: dict[tuple[str, str], frozenset[str]] = {}
        self.matched: set[RememberedName] = set()
        self.tables: dict[tuple[str, str], list[NamedTable]] = {}
        self.problems: list[str] = []
        self.renames: list[str] = []

    def read(self, table: NamedTable) -> None:
        """Find out whom one table means."""
        kind, name = table.kind, (table.kind, table.key)
        known, holders = self.host.of(kind), self.holders.get(name, [])
        bound, by_id = self.meant_ids(table, holders)
        alive = {key for key in bound if key in known}
        self.bound[name] = frozenset(bound)
        others = [key for key in holders if key not in bound]
        away = {key for key in alive if not by_id and fold_name(known[key]) != table.key}
        for key in alive:
            open_to_doubt = bool(others) and key in away
            names = self.doubtful if open_to_doubt else self.sure
            names.setdefault((kind, key), {})[table.key] = None
            self.tables.setdefault((kind, key), []).append(table)
            if clean_text(table.key, LONGEST_REMEMBERED) == table.key:
                last_seen = clean_text(known[key], LONGEST_REMEMBERED)
                self.matched.add(RememberedName(kind, table.key, key, last_seen))
        for key in others:
            self.doubtful.setdefault((kind, key), {})[table.key] = None
        self.report(table, alive, away, others)

    def meant_ids(self, table: NamedTable, holders: list[str]) -> tuple[set[str], bool]:
        """The ids that a name means, and whether the name is itself the id."""
        kind, known = table.kind, self.host.of(table.kind)
        by_id = self.group_ids.get(table.key) if kind == "group" else table.key
        if by_id in known:
            return {str(by_id)}, True
        remembered = self.remembered.get((kind, table.key), set())
        if any(table.key in (key, fold_name(key)) for key in remembered):
            return remembered, True  # an id that is gone: no name ever stands for it
        alive = remembered.intersection(known)
        if alive or not holders:
            return alive, False
        exact = {key for key in holders if known[key] == table.written}
        return exact or set(holders), False

    def report(
        self, table: NamedTable, alive: Collection[str], away: Collection[str], others: list[str]
    ) -> None:
        """Note what an administrator should know of one table."""
        known, kind = self.host.of(table.kind), table.kind
        if not alive and not others:
            self.problems.append(nobody_sentence(table, known.values()))
            return
        now_called = " and ".join(sorted(quoted_text(known[key]) for key in away))
        if others:
            ids = ", ".join(sorted([*alive, *others])[:MOST_NOTES_IN_FORM])
            first = f"means the {kind} now called {now_called}, and" if away else "fits"
            self.problems.append(
                f"{table.header} {first} more than one {kind}: until it says by id which is meant"
                f" ({ids}), those in doubt get the stricter of both readings."
            )
        elif away:
            self.renames.append(f"{table.header} means the {kind} now called {now_called}.")

    def report_conflicts(self) -> None:
        """Note the groups and users that several tables mean."""
        for (kind, key), tables in self.tables.items():
            headers = sorted({table.header for table in tables if table.is_policy})
            if len(headers) > 1:
                self.problems.append(
                    f"{' and '.join(headers)} mean the same {kind},"
                    f" {quoted_text(self.host.of(kind)[key])}: what is stricter in each counts."
                )

def nobody_sentence(table: NamedTable, known: Iterable[str]) -> str:
    """That a table names nobody, with the group or user that was meant."""
    hint = spelled_like(table.written, known)
    if table.kind == "user":
        kind = "address" if "@" in table.key else "id"
        return f"{table.header} names nobody: Open WebUI has no user with this {kind}{hint}"
    return f'{table.header} names nobody: Open WebUI has no group "{table.written}"{hint}'

def spelled_like(name: str, known: Iterable[str]) -> str:
    """How a sentence ends on a name that isn't known: with the one that was meant, if any."""
    names = [one for one in sorted(known)[:1000] if is_spelled_like(name, one)]
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.7)
    return f'; did you mean "{close[0]}"?' if close else "."

def is_spelled_like(name: str, other: str) -> bool:
    """Whether what stands before an "@" is alike; all addresses of a house end alike."""
    one, two = (text.partition("@")[0].lower() for text in (name, other))
    return difflib.SequenceMatcher(None, one, two).ratio() >= 0.7

def unknown_models(policies: PolicySet, known: Collection[str]) -> Iterator[str]:
    """A sentence for each model in the policies that no known model fits."""
    if not known:
        return
    for rule in policies.models:
        if not any(glob_fits(rule.glob, name) for name in known):
            header = table_header("model", rule.glob)
            hint = spelled_like(rule.glob, known)
            yield f"{header} fits no model that Open WebUI has{hint}"
    for table in policies.tables:
        for limit in table.limits or ():
            if not any(glob_fits(limit.model_glob, name) for name in known):
                header = table_header(table.kind, table.name)
                hint = spelled_like(limit.model_glob, known)
                yield f'{header} limit "{limit}" fits no model that Open WebUI has{hint}'

def unpriced_models(policies: PolicySet, seen: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """A sentence for each model, by all its names, that limits in money don't count."""
    limits = [limit for table in policies.tables for limit in table.limits or ()]
    globs = {limit.model_glob for limit in limits if limit.measure == "cost"}
    for names in seen:
        fits = any(glob_fits(glob, name) for glob in globs for name in names)
        rule = find_model_rule(policies, names)
        if fits and rule.weight and not rule.is_priced:
            header = table_header("model", called_model(names))
            yield (
                f"limits in $ don't count {header}: it has no price here, and an answer of it came"
                f" without a cost. Give it an input_price and an output_price."
            )

def read_remembered(connection: Connection) -> frozenset[RememberedName]:
    """Whom the names in the policies have meant so far."""
    names = names_table.c
    rows = connection.execute(select(names.kind, names.name, names.id, names.last_seen))
    return frozenset(RememberedName(*row) for row in rows)

def remember(connection: Connection, names: Iterable[RememberedName], now: int) -> None:
    """Write down whom names have meant; another worker may just have done so."""
    insert = insert_on(connection.dialect)
    for one in sorted(names, key=lambda one: (one.kind, one.name, one.id)):
        row = insert(names_table).values(
            kind=one.kind, name=one.name, id=one.id, last_seen=one.last_seen, created_at=now
        )
        connection.execute(
            row.on_conflict_do_update(
                index_elements=[names_table.c.kind, names_table.c.name, names_table.c.id],
                set_={"last_seen": row.excluded.last_seen},
            )
        )

@dataclass(frozen=True, slots=True)
class Look:
    """What was found out about a policies text, and when."""

    policies: PolicySet
    identities: Identities
    at: float

class IdentityMemory:
    """What one worker knows of whom the policies mean; looked up again every few seconds.

    All its methods may be called from any thread; they block.

    Args:
        read_names: Reads what the ledger remembers.
        write_names: Writes more of it.
        read_host: Reads what Open WebUI has, of users only those with these ids or addresses.
        list_models: The ids of all models, where they are known.
        publish: Is told what an administrator should know, whenever that changes.
        clock: Seconds.
    """

    def __init__(
        self,
        read_names: Callable[[], frozenset[RememberedName]],
        write_names: Callable[[Collection[RememberedName]], None],
        read_host: Callable[[Collection[str], Collection[str]], HostNames],
        list_models: Callable[[], Collection[str]],
        publish: Callable[[tuple[str, ...]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read_names = read_names
        self._write_names = write_names
        self._read_host = read_host
        self._list_models = list_models
        self._publish = publish
        self._clock = clock
        self._looking = Lock()
        # Replaced as a whole: other threads read it meanwhile.
        self._last_look = Look(PolicySet(), Identities(), float("-inf"))
        self._notices: tuple[str, ...] = ()
        # By the model called, all the names of one that was seen to have no cost.
        self._unpriced: dict[str, tuple[str, ...]] = {}

    @property
    def notices(self) -> tuple[str, ...]:
        """What an administrator should know of the policies, as of the last look."""
        return self._notices

    def knows_unpriced(self, model_names: tuple[str, ...]) -> bool:
        """Whether nothing is to be said of a model's having no cost, or it has been."""
        full = len(self._unpriced) >= MOST_UNPRICED
        return full or called_model(model_names) in self._unpriced

    def note_unpriced(self, model_names: tuple[str, ...]) -> None:
        """Say of a model that it has no cost, though limits in money should count it."""
        if self.knows_unpriced(model_names):
            return
        # Replaced as a whole: another thread may be looking.
        self._unpriced = {**self._unpriced, called_model(model_names): model_names}
        last = self._last_look
        self._report(self._all_notices(last.policies, last.identities))

    def _all_notices(self, policies: PolicySet, identities: Identities) -> tuple[str, ...]:
        return (*identities.notices, *unpriced_models(policies, self._unpriced.values()))

    def recall(self, policies: PolicySet, subject: Subject) -> Subject:
        """The user with the names in the policies that mean it and its groups; raises as below."""
        return self.identities(policies).recall(subject)

    def identities(self, policies: PolicySet) -> Identities:
        """Whom the names in the policies mean.

        Raises:
            LedgerError: Nothing is known of these policies yet, and the database can't be read.
        """
        last = self._last_look
        same = last.policies is policies
        if same and self._clock() - last.at < REFRESH_SECONDS:
            return last.identities
        # Where somebody else is looking already, what was known a moment ago is new enough.
        if self._looking.acquire(blocking=not same):
            try:
                last = self._looked_anew(policies)
            finally:
                self._looking.release()
        return last.identities

    def _looked_anew(self, policies: PolicySet) -> Look:
        last, now = self._last_look, self._clock()
        if last.policies is policies and now - last.at < REFRESH_SECONDS:
            return last  # somebody has looked while this thread waited
        try:
            identities = self._look(policies)
        except LedgerError as error:
            if last.policies is not policies:
                raise
            # The reservation will say whether the database is away; what is known still limits.
            log.warning("Usage limits: %s; groups and users as they were", error)
            identities = last.identities
        self._last_look = Look(policies, identities, now)
        self._report(self._all_notices(policies, identities))
        return self._last_look

    def _look(self, policies: PolicySet) -> Identities:
        tables, models = list(named_in(policies)), self._list_models()
        if not tables:
            return identify(policies, HostNames({}, {}, models))
        remembered = self._read_names()
        names = {table.key for table in tables if table.kind == "user"}
        ids = names | {one.id for one in remembered if one.kind == "user" and one.name in names}
        host = replace(self._read_host(ids, names), models=models)
        identities = identify(policies, host, remembered)
        if new := identities.matched - remembered:
            try:
                self._write_names(new)
            except LedgerError as error:  # the next look tries again
                log.warning("Usage limits: %s; whom the policies mean isn't kept yet", error)
        return identities

    def _report(self, notices: tuple[str, ...]) -> None:
        if notices == self._notices:
            return
        for notice in notices:
            if notice not in self._notices:
                log.warning("Usage limits: policies: %s", notice)
        for notice in self._notices:
            if notice not in notices:
                log.info("Usage limits: policies: no longer so: %s", notice)
        self._notices = notices
        self._publish(notices)

def form_note(notices: tuple[str, ...]) -> str:
    """The notices as the valves form shows them; they hold names that others chose."""
    shown = [" ".join(one.replace("<", "&lt;").split()) for one in notices[:MOST_NOTES_IN_FORM]]
    if len(notices) > len(shown):
        shown.append(f"and {len(notices) - len(shown)} more, in the server's log")
    return "\n".join(f"- {one}" for one in shown)

# =================================== helpers/ledger/counters.py ===================================
# Counters: sums of settled records per scope, model glob and window.

Key = TypeVar("Key")
Counted = tuple[str, str, str]  # the scope, model glob and source of records

NO_END = 2**53
# A control character that no model or group is called by.
NAME_ESCAPE = "\x1a"
ROLLING_MARK = " rolling "  # before the seconds, at the end of a rolling counter's id
# So many counters that were last looked at in different seconds have their records summed apart.
MOST_SEGMENTS = 20
# A clock that steps back by less is only being set right.
STEP_SECONDS = 3_600
# Records that are further ahead than that were made by a clock that was.
CLOCK_TOLERANCE_SECONDS = 86_400
AMOUNT_COLUMNS = tuple(counters_table.c[one.name] for one in fields(Amounts))
ADDED = {column: column + bindparam(f"more_{column.name}") for column in AMOUNT_COLUMNS}
ADD_TO_COUNTER = (
    counters_table.update().where(counters_table.c.id == bindparam("key")).values(ADDED)
)
# What a record counts, in the order of `Amounts`.
COUNTED_COLUMNS = (
    records_table.c.counted,
    records_table.c.weighted_input_tokens,
    records_table.c.weighted_output_tokens,
    records_table.c.cost_micros * records_table.c.counted,
)
COUNTED_SUMS = tuple(map(func.sum, COUNTED_COLUMNS))

@dataclass(slots=True)
class Counter:
    """A counter's row, with what administrators have added to limits that it is read for."""

    id: str
    scope: str
    model_glob: str
    window_start: int  # seconds since 1970
    window_end: int
    used: Amounts
    source: str = ""
    granted: dict[tuple[str, str], int] = field(default_factory=dict)  # by measure and period

    def granted_to(self, applied: AppliedLimit) -> int:
        """What was added to one limit."""
        return self.granted.get((applied.limit.measure, applied.limit.period.name), 0)

def join_names(names: Iterable[str]) -> str:
    """Names as one text that ``LIKE '%|name|%'`` can search: ``|a|b|``."""
    return "|" + "".join(f"{escaped_name(name)}|" for name in names)

def escaped_name(name: str) -> str:
    """A name without "|". Rows of older releases hold no `NAME_ESCAPE`, so they read as before."""
    if "|" not in name and NAME_ESCAPE not in name:
        return name
    return name.replace(NAME_ESCAPE, f"{NAME_ESCAPE}0").replace("|", f"{NAME_ESCAPE}1")

@lru_cache(maxsize=1024)
def split_names(text: str) -> tuple[str, ...]:
    """The names that `join_names` joined."""
    names = (name for name in text.split("|") if name)
    return tuple(
        name.replace(f"{NAME_ESCAPE}1", "|").replace(f"{NAME_ESCAPE}0", NAME_ESCAPE)
        for name in names
    )

def glob_matches(glob: str, model_names: str) -> bool:
    """Whether a limit's model glob matches one of a record's joined names."""
    return glob == "*" or any(glob_fits(glob, name) for name in split_names(model_names))

def counted_window(applied: AppliedLimit, at: int) -> tuple[int, int]:
    """The seconds ``[start, end)`` whose records a limit counts at the second `at`.

    What is running counts toward a limit on that whenever it began.
    """
    if applied.limit.is_moment:
        return 0, NO_END
    if seconds := applied.limit.period.seconds:
        return at - seconds + 1, NO_END
    return int(applied.window.start.timestamp()), int(applied.window.end.timestamp())

def counter_id(applied: AppliedLimit) -> str:
    """The counter that a limit reads; limits that count the same share one.

    No scope begins with "via ", and a model's id may hold anything.
    """
    seconds = applied.limit.period.seconds
    window = (
        f"{ROLLING_MARK.strip()} {seconds}"
        if seconds
        else f"{applied.window.start.timestamp():.0f}-{applied.window.end.timestamp():.0f}"
    )
    via = f"via {applied.limit.source} " if applied.limit.source else ""
    return f"{via}{applied.scope} {applied.limit.model_glob} {window}"

def rolling_seconds(key: str) -> int:
    """The period of a rolling counter, by its id; 0 for another one."""
    _, mark, seconds = key.rpartition(ROLLING_MARK)
    return int(seconds) if mark and seconds.isdecimal() else 0

def scope_condition(scope: str, source: str = "") -> ColumnElement[bool]:
    """The records that belong to a scope, or those of them that came from one source."""
    if source:
        return scope_condition(scope) & (records_table.c.source == source)
    if scope == EVERYONE:
        return true()
    kind, _, key = scope.partition(":")
    if kind == "user":
        return records_table.c.user_id == key
    return records_table.c.group_ids.contains(f"|{key}|", autoescape=True)

def in_scope(scope: str, user_id: str, group_ids: str) -> bool:
    """The same for one record already read."""
    kind, _, key = scope.partition(":")
    return scope == EVERYONE or (user_id == key if kind == "user" else f"|{key}|" in group_ids)

def scopes_of(user_id: str, group_ids: str) -> tuple[str, ...]:
    """Every scope that a record belongs to."""
    groups = (f"group:{group}" for group in split_names(group_ids))
    return (f"user:{user_id}", *groups, EVERYONE)

def numbered(name: str, count: int) -> list[BindParameter[str]]:
    """Parameters for an IN: SQLAlchemy's own take as long as running the statement."""
    return [bindparam(f"{name}{number}", type_=Text) for number in range(count)]

def number_values(name: str, values: Collection[str]) -> dict[str, str]:
    """Values for the parameters of `numbered`."""
    return {f"{name}{number}": value for number, value in enumerate(values)}

@lru_cache(maxsize=64)
def addition_by_id(count: int) -> Update:
    """A statement that adds to that many counters.

    Not to one that has moved on since it was read: whoever moved it waits for our commit or has
    left the record behind. (A pool's counter may move without a lock that we hold.)
    """
    return (
        counters_table.update()
        .where(
            counters_table.c.id.in_(numbered("id", count)),
            counters_table.c.window_start <= bindparam("created_at"),
            counters_table.c.window_end > bindparam("created_at"),
        )
        .values(ADDED)
    )

def read_scope(applied: AppliedLimit) -> str:
    """The scope whose records are read for a limit: everyone's for all pools at once."""
    return EVERYONE if applied.is_pool else applied.scope

def make_counters(connection: Connection, wanted: Mapping[str, AppliedLimit], at: int) -> None:
    """Sum the records that new or outdated counters cover, and write them.

    What pools of one window have used is read at once, however many there are.
    """
    if any(applied.is_pool for applied in wanted.values()):
        # Members settle under their own locks; none may do so between sum and insert.
        take_advisory_locks(connection, (NEW_POOL_COUNTER_LOCK,))
    connection.execute(counters_table.delete().where(counters_table.c.id.in_(list(wanted))))
    by_records: dict[tuple[int, int, str], dict[str, AppliedLimit]] = {}
    ends: dict[str, int] = {}
    for key, applied in wanted.items():
        read_from = read_scope(applied)
        start, end = counted_window(applied, at)
        if end == NO_END:
            if read_from not in ends:
                ends[read_from] = rolling_end(connection, read_from, at)
            end = ends[read_from]
        by_records.setdefault((start, end, read_from), {})[key] = applied
    rows = []
    for (start, end, read_from), limits in by_records.items():
        counted = {key: what_counts(applied) for key, applied in limits.items()}
        begins = dict.fromkeys(limits, start)
        used = sum_for_limits(connection, read_from, counted, begins, end)
        rows += [
            {
                "id": key,
                "scope": applied.scope,
                "model_glob": applied.limit.model_glob,
                "window_start": start,
                "window_end": end,
                "source": applied.limit.source,
                **amount_values(used[key]),
            }
            for key, applied in limits.items()
        ]
    connection.execute(counters_table.insert(), rows)

def what_counts(applied: AppliedLimit) -> Counted:
    """Which records a limit counts."""
    return applied.scope, applied.limit.model_glob, applied.limit.source

class CountingLimits(Generic[Key]):
    """Which of many limits count a record, however many there are.

    Args:
        read_from: A scope to which all the records belong.
        limits: What each counts.
    """

    def __init__(self, read_from: str, limits: Mapping[Key, Counted]) -> None:
        self._read_from = read_from
        self._by_scope: dict[str, list[tuple[Key, str, str]]] = {}
        for key, (scope, glob, source) in limits.items():
            self._by_scope.setdefault(scope, []).append((key, glob, source))
        self._found: dict[tuple[str, str, str], list[Key]] = {}
        self.differ_by_group = not set(self._by_scope) <= {read_from}

    def find(self, group_ids: str, model_names: str, source: str) -> list[Key]:
        """The limits that count what has these names; mostly the same few come again and again."""
        record = (group_ids, model_names, source)
        if record not in self._found:
            scopes = {self._read_from, *(f"group:{group}" for group in split_names(group_ids))}
            self._found[record] = [
                key
                for scope in scopes
                for key, glob, only in self._by_scope.get(scope, ())
                if only in ("", source) and glob_matches(glob, model_names)
            ]
        return self._found[record]

def sum_for_limits(
    connection: Connection,
    read_from: str,
    limits: Mapping[str, Counted],
    begins: Mapping[str, int],
    end: int,
) -> dict[str, Amounts]:
    """What each of these limits counts of one scope's settled records, in one statement.

    Args:
        read_from: A scope to which the records of all these limits belong.
        limits: What each counts, by their counters.
        begins: From which second on each one counts.
        end: Before which second all do.
    """
    counting, used = CountingLimits(read_from, limits), dict.fromkeys(limits, NOTHING)
    columns, first = records_table.c, min(begins.values())
    rows = connection.execute(
        select(
            segment_start(begins.values()),
            columns.group_ids if counting.differ_by_group else literal(""),
            columns.model_names,
            columns.source,
            *COUNTED_SUMS,
        )
        .where(
            columns.state == "settled",
            columns.created_at >= first,
            columns.created_at < end,
            scope_condition(read_from),
        )
        .group_by(*(literal_column(str(place)) for place in range(1, 5)))
    )
    for segment, group_ids, names, source, *sums in rows:
        amounts = Amounts(*(int(value) for value in sums))
        for key in counting.find(group_ids, names, source):
            if begins[key] <= segment:
                used[key] += amounts
    return used

def sum_settled(
    connection: Connection, scope: str, glob: str, start: int, end: int, source: str = ""
) -> Amounts:
    """Sum the settled records of a scope and source with ``start <= created_at < end``."""
    return sum_for_limits(connection, scope, {"": (scope, glob, source)}, {"": start}, end)[""]

def segment_start(begins: Iterable[int]) -> ColumnElement[int]:
    """The last of these seconds before a record was made; of very many, when it was made."""
    first, *others = sorted(set(begins))
    if len(others) > MOST_SEGMENTS:
        return records_table.c.created_at
    starts = literal(first, BigInteger)
    if not others:
        return starts
    later = [(records_table.c.created_at >= start, start) for start in reversed(others)]
    return case(*later, else_=starts)

def rolling_end(connection: Connection, scope: str, at: int) -> int:
    """Where a rolling counter ends: nowhere, unless a clock has been days ahead.

    What was recorded then would count until that false time. It is left out until it is near.
    """
    end = at + CLOCK_TOLERANCE_SECONDS
    ahead = select(records_table.c.id).where(
        records_table.c.created_at >= end, scope_condition(scope)
    )
    return end if connection.execute(ahead.limit(1)).first() else NO_END

def is_outdated(counter: Counter, applied: AppliedLimit, at: int) -> bool:
    """Whether a rolling counter has to be summed anew.

    After a rest of a whole period nothing of its sum is left, and retention may have dropped what
    it was made of. After a clock has stepped back nothing that is recorded now would be in it, or
    what left it too early is missing.
    """
    seconds = applied.limit.period.seconds
    if not seconds:
        return False
    moved = counted_window(applied, at)[0] - counter.window_start
    return is_outlived(seconds, moved, counter.window_end, at)

def is_outlived(seconds: int, moved: int, end: int, at: int) -> bool:
    """The same for a rolling window so long whose start has moved so far."""
    outlived = end < at + CLOCK_TOLERANCE_SECONDS // 2
    return abs(moved) >= seconds or moved < -STEP_SECONDS or outlived

def move_rolling_counters(
    connection: Connection,
    counters: Mapping[str, Counter],
    limits: Mapping[str, AppliedLimit],
    at: int,
) -> None:
    """Take out what has left the rolling windows of these limits since they were last looked at.

    Each record is taken out once, so the cost per request stays flat; all counters of one period
    are moved together, however many pools there are and whenever each was looked at.

    Members of a pool settle without its lock: its row is locked first, by writing where it starts,
    and what they have added by then stays.
    """
    moving: dict[tuple[int, str], dict[str, AppliedLimit]] = {}
    for key, applied in limits.items():
        start, end = counted_window(applied, at)
        if end == NO_END and start > counters[key].window_start:
            moving.setdefault((start, read_scope(applied)), {})[key] = applied
    for (start, read_from), moved in moving.items():
        begins = {key: counters[key].window_start for key in moved}
        for key, *amounts in connection.execute(
            counters_table.update()
            .where(counters_table.c.id.in_(list(moved)))
            .values(window_start=start)
            .returning(counters_table.c.id, *AMOUNT_COLUMNS)
        ):
            counters[key].window_start, counters[key].used = start, Amounts(*amounts)
        counted = {key: what_counts(applied) for key, applied in moved.items()}
        left = []
        for key, gone in sum_for_limits(connection, read_from, counted, begins, start).items():
            counters[key].used -= gone
            if gone != NOTHING:
                left.append({"key": key, **amount_values(NOTHING - gone, "more_")})
        if left:
            connection.execute(ADD_TO_COUNTER, left)

def amount_values(amounts: Amounts, prefix: str = "") -> dict[str, int]:
    """Amounts by the names of their columns."""
    return {prefix + column.name: getattr(amounts, column.name) for column in AMOUNT_COLUMNS}

def add_to_counters(
    connection: Connection,
    counters: dict[str, Counter],
    model_names: str,
    source: str,
    created_at: int,
    amounts: Amounts,
) -> None:
    """Add a settled record to those of these counters whose source and glob match."""
    ids = [
        key
        for key, one in counters.items()
        if one.source in ("", source) and glob_matches(one.model_glob, model_names)
    ]
    if not ids:
        return
    values = {**amount_values(amounts, "more_"), **number_values("id", ids)}
    connection.execute(addition_by_id(len(ids)), {**values, "created_at": created_at})
    for key in ids:
        counters[key].used += amounts

# ================================= helpers/ledger/limit_states.py =================================
# Where limits stand: what is used, what replies still running hold, and what was granted.

# How many records are read to say when a limit admits requests again: a few mostly do.
RECORDS_LOOKED_AT = (16, 100)
# What is remembered, and in how many scopes and windows it is looked up at once.
MOST_RESETS, MOST_LOOK_UPS = 10_000, 200
ResetKey = tuple[str, str, int]  # a counter, a measure and the amount
# How much was over a rolling limit, and the second at which that was found to have left it.
KnownResets = dict[ResetKey, tuple[int, int | None]]
COUNTERS = select(
    literal_column("'counter'"),
    *counters_table.c["id", "scope", "model_glob", "window_start", "window_end"],
    *AMOUNT_COLUMNS,
    counters_table.c.source,
    *grants_table.c["measure", "period", "amount"],
).outerjoin_from(
    counters_table,
    grants_table,
    and_(
        grants_table.c.scope == counters_table.c.scope,
        grants_table.c.model_glob == counters_table.c.model_glob,
        grants_table.c.source == counters_table.c.source,
        grants_table.c.expires_at > bindparam("at"),
    ),
)
RUNNING = select(
    literal_column("'running'"),
    *records_table.c["user_id", "group_ids", "model_names", "created_at"],
    null(),
    *COUNTED_COLUMNS,
    records_table.c.source,
    *(null(), null(), null()),
).where(IS_OPEN, records_table.c.id != bindparam("except_id"))

@dataclass(frozen=True, slots=True)
class RunningReply:
    """What a reply that is still running holds."""

    user_id: str
    group_ids: str
    model_names: str
    source: str
    created_at: int
    reserved: Amounts

    @classmethod
    def of(cls, row: Sequence[Any]) -> RunningReply:
        """One of the rows of `RUNNING`."""
        _, user_id, group_ids, names, created_at, _, *sums, source = row[:11]
        return cls(user_id, group_ids, names, source, created_at, Amounts(*sums))

    def counts_for(self, applied: AppliedLimit, at: int) -> bool:
        """Whether a limit counts it at the second `at`."""
        start, end = counted_window(applied, at)
        return (
            start <= self.created_at < end
            and applied.limit.source in ("", self.source)
            and in_scope(applied.scope, self.user_id, self.group_ids)
            and glob_matches(applied.limit.model_glob, self.model_names)
        )

@dataclass(frozen=True, slots=True)
class Snapshot:
    """Counters by id, and all running replies that share a limit with them."""

    counters: dict[str, Counter]
    running: list[RunningReply]

    def reserved_of(self, applied: AppliedLimit, at: int) -> Amounts:
        """What running replies hold of a limit."""
        held = [one.reserved for one in self.running if one.counts_for(applied, at)]
        return sum(held, NOTHING)

@lru_cache(maxsize=256)
def snapshot_statement(name: str, count: int, of_one_user: bool) -> CompoundSelect[Any]:
    """Built once for each form.

    Args:
        name: "id" to find counters by their ids, "scope" for those that cover a record.
        count: How many ids or scopes.
        of_one_user: Whether only one user's running replies matter.
    """
    counters = COUNTERS.where(counters_table.c[name].in_(numbered(name, count)))
    if name == "scope":
        counters = counters.where(
            counters_table.c.window_start <= bindparam("created_at"),
            counters_table.c.window_end > bindparam("created_at"),
        )
    running = RUNNING
    if of_one_user:  # what all users together have running is little, too
        running = running.where(records_table.c.user_id == bindparam("user_id"))
    return union_all(counters, running)

def read_snapshot(
    connection: Connection,
    name: str,
    keys: Collection[str],
    limits: Sequence[AppliedLimit],
    **values: object,
) -> Snapshot:
    """Those counters that there are, and what runs under the limits, in one statement.

    Args:
        connection: Under the locks of all scopes concerned, if it is to be acted upon.
        name: "id" for the counters with these keys; "scope" for all those of these scopes to
            which a record made at `created_at` belongs.
        keys: Their ids or scopes.
        limits: The limits to look at.
        values: `at`: now, in seconds since 1970; `except_id`: a reservation to leave out, the
            caller's own; `created_at`.
    """
    users = {applied.scope.removeprefix("user:") for applied in limits}
    of_one_user = len(users) < 2 and not any(applied.is_pool for applied in limits)
    if of_one_user:
        values["user_id"] = next(iter(users), "")
    statement = snapshot_statement(name, len(keys), of_one_user)
    snapshot = Snapshot({}, [])
    rows = connection.execute(statement, {**values, **number_values(name, keys)})
    for row in rows:
        if row[0] == "running":
            snapshot.running.append(RunningReply.of(row))
            continue
        _, key, scope, glob, start, end, *sums, source, measure, period, granted = row
        counter = Counter(key, scope, glob, start, end, Amounts(*sums), source)
        counter = snapshot.counters.setdefault(key, counter)
        if granted:
            counter.granted[measure, period] = counter.granted.get((measure, period), 0) + granted
    return snapshot

def read_limit_states(
    connection: Connection,
    limits: Sequence[AppliedLimit],
    at: int,
    except_id: str,
    snapshot: Snapshot | None = None,
) -> tuple[LimitState, ...]:
    """Where each limit stands.

    A rolling one admits requests again after a period at the latest: `with_resets` knows better.

    Args:
        connection: Under the locks of all scopes concerned, so that no record is settled in
            between.
        limits: The limits to look at.
        at: Now, in seconds since 1970.
        except_id: A reservation to leave out: the caller's own.
        snapshot: What the same transaction has read already.
    """
    if not limits:
        return ()
    keys = [counter_id(applied) for applied in limits]
    counted = {
        key: applied
        for key, applied in zip(keys, limits, strict=True)
        if not applied.limit.is_moment
    }
    if snapshot is None or not snapshot.counters.keys() >= counted.keys():
        # A reply's own counters aren't those of today if it has begun before.
        ids = sorted(set(keys))
        snapshot = read_snapshot(connection, "id", ids, limits, at=at, except_id=except_id)
    counters = snapshot.counters
    wanted = {
        key: applied
        for key, applied in counted.items()
        if key not in counters or is_outdated(counters[key], applied, at)
    }
    if wanted:
        make_counters(connection, wanted, at)
        made = read_snapshot(connection, "id", sorted(wanted), limits, at=at, except_id=except_id)
        counters |= made.counters
    move_rolling_counters(connection, counters, counted, at)
    states = []
    for key, applied in zip(keys, limits, strict=True):
        measure, counter = applied.limit.measure, counters.get(key)
        held = NOTHING if applied.limit.is_per_request else snapshot.reserved_of(applied, at)
        states.append(
            LimitState(
                applied,
                # Of one moment nothing adds up: what is running counts, or what this one takes.
                used=counter.used.of(measure) if counter else 0,
                reserved=held.of(measure),
                reset_at=latest_reset(applied, at),
                granted=counter.granted_to(applied) if counter else 0,
            )
        )
    return tuple(states)

def latest_reset(applied: AppliedLimit, at: int) -> datetime:
    """When the window of a limit ends; of a rolling one, when all that is in it has left it."""
    rolling = applied.limit.period.rolling
    return applied.window.end if rolling is None else datetime.fromtimestamp(at, UTC) + rolling

def with_resets(
    connection: Connection, states: Sequence[LimitState], at: int, known: KnownResets | None = None
) -> tuple[LimitState, ...]:
    """The same states; a rolling limit that is reached says when it admits requests again.

    That is when the records that went over have left the window, the oldest first. Where those
    are more than are looked at, what the state says already is an upper bound. No lock is needed:
    what is settled meanwhile changes by little when that is.

    Whoever is refused asks again and again: it is read anew only once something has changed since
    it was written into `known`.
    """
    known = {} if known is None else known
    reached: list[tuple[int, ResetKey]] = []
    asked: dict[tuple[str, int], dict[ResetKey, LimitState]] = {}
    for place, state in enumerate(states):
        applied = state.applied
        if applied.limit.period.rolling is None or not state.exceeded or not state.amount:
            continue
        key: ResetKey = (counter_id(applied), applied.limit.measure, state.amount)
        reached.append((place, key))
        excess, opens = known.get(key, (0, None))
        if excess != excess_of(state) or (opens is not None and opens <= at):
            window = (read_scope(applied), counted_window(applied, at)[0])
            asked.setdefault(window, {})[key] = state
    for (read_from, start), some in list(asked.items())[:MOST_LOOK_UPS]:
        if len(known) >= MOST_RESETS:
            known.clear()
        left = read_leaving(connection, read_from, start, some)
        period = at - start + 1
        for key, state in some.items():
            known[key] = excess_of(state), left[key] + period if key in left else None
    result = list(states)
    for place, key in reached:
        opens = known.get(key, (0, None))[1]
        if opens is not None:
            # A clock that was ahead may have seen it open later than it can.
            reset_at = min(result[place].reset_at, datetime.fromtimestamp(opens, UTC))
            result[place] = replace(result[place], reset_at=reset_at)
    return tuple(result)

def excess_of(state: LimitState) -> int:
    """How much has to leave a limit's window before it admits requests."""
    return state.taken - state.amount + 1

def read_leaving(
    connection: Connection, read_from: str, start: int, states: Mapping[ResetKey, LimitState]
) -> dict[ResetKey, int]:
    """The second of the record with which enough leaves each limit, of those where few decide.

    Everyone's are read for pools, once for all of one window: looking for their own could take
    long where others have more.
    """
    columns = records_table.c
    oldest = (
        select(*columns["group_ids", "model_names", "source", "created_at"], *COUNTED_COLUMNS)
        .where(scope_condition(read_from), columns.created_at >= start)
        .order_by(columns.created_at)
    )
    counting = CountingLimits(
        read_from, {key: what_counts(state.applied) for key, state in states.items()}
    )
    found: dict[ResetKey, int] = {}
    for most in RECORDS_LOOKED_AT:
        left = {key: excess_of(state) for key, state in states.items() if key not in found}
        for groups, names, source, created_at, *sums in connection.execute(oldest.limit(most)):
            amounts = Amounts(*sums)
            for key in counting.find(groups, names, source):
                if key in left:
                    left[key] -= amounts.of(states[key].applied.limit.measure)
                    if left[key] <= 0:
                        found[key] = int(created_at)
                        del left[key]
        if not left:
            break
    return found

# =================================== helpers/ledger/records.py ====================================
# Records: one row per reply, reserved when it is admitted and closed once.

# A reservation whose server has not renewed it for this long is an orphan of a crash.
LEASE_SECONDS = 300

# Built once: SQLAlchemy finds what it has compiled by them.
FIND_RECORD = select(records_table.c.id).where(records_table.c.id == bindparam("key"))
INSERT_RECORD = records_table.insert()
UPDATE_OPEN_RECORD = records_table.update().where(records_table.c.id == bindparam("key"), IS_OPEN)

# Why a record was released, or settled by what was noted of its reply last.
NO_ANSWER = "no answer"
NOT_CALLED = "model not called"
WORKER_GONE = "worker gone"
WORKER_STOPPED = "worker stopped"
# Whoever has seen the reply to its end knows better than these.
PROVISIONAL_REASONS = (WORKER_GONE, WORKER_STOPPED)
IS_PROVISIONAL = (
    (records_table.c.id == bindparam("key"))
    & (records_table.c.state == "settled")
    & records_table.c.end_reason.in_(PROVISIONAL_REASONS)
)

@dataclass(frozen=True, slots=True)
class Reservation:
    """What is known of a reply when it is admitted."""

    id: str
    subject: Subject
    model_names: tuple[str, ...]  # the model that answers first
    source: str
    chat_id: str
    message_id: str
    policy: str
    created_at: int  # seconds since 1970, UTC

@dataclass(frozen=True, slots=True)
class RecordKey:
    """What the counters need to know of a record."""

    id: str
    scopes: tuple[str, ...]
    model_names: str
    source: str
    created_at: int

def key_of_reservation(reservation: Reservation) -> RecordKey:
    """The key of a reply's own record."""
    return RecordKey(
        reservation.id,
        reservation.subject.scopes,
        join_names(reservation.model_names),
        reservation.source,
        reservation.created_at,
    )

def key_of_row(row: Row[Any]) -> RecordKey:
    """The key of a record that was read."""
    scopes = scopes_of(row.user_id, row.group_ids)
    return RecordKey(row.id, scopes, row.model_names, row.source, row.created_at)

def charge_of_row(row: Row[Any]) -> Charge:
    """What a record that was read holds; an estimate, since its reply was never settled."""
    tokens = (row.input_tokens, row.output_tokens, row.cached_input_tokens)
    weighted = (row.counted, row.weighted_input_tokens, row.weighted_output_tokens)
    counted = Amounts(*weighted, cost_micros=row.cost_micros * row.counted)
    return Charge(Usage(*tokens, estimated=True), row.cost_micros, counted)

def insert_record(
    connection: Connection,
    reservation: Reservation,
    charge: Charge,
    may_exist: bool,
    worker: str = "",
) -> None:
    """Write a reservation; `may_exist` after a connection that broke during its commit."""
    if may_exist and connection.execute(FIND_RECORD, {"key": reservation.id}).first():
        return
    connection.execute(
        INSERT_RECORD,
        {
            "id": reservation.id,
            "user_id": reservation.subject.user_id,
            "user_email": reservation.subject.email,
            "group_ids": join_names(group.id for group in reservation.subject.groups),
            "model_id": reservation.model_names[0],
            "model_names": join_names(reservation.model_names),
            "source": reservation.source,
            "chat_id": reservation.chat_id,
            "message_id": reservation.message_id,
            "policy": reservation.policy,
            "state": "reserved",
            "created_at": reservation.created_at,
            "settled_at": None,
            "lease_until": reservation.created_at + LEASE_SECONDS,
            "worker": worker,
            "end_reason": "",
            **charge.values(),
        },
    )

def renew_record(connection: Connection, key: str, charge: Charge, now: int) -> None:
    """Push an open record's lease ahead and note what its reply has used so far."""
    values = {"key": key, "lease_until": now + LEASE_SECONDS, **charge.values()}
    connection.execute(UPDATE_OPEN_RECORD, values)

def ended_values(charge: Charge | None, now: int, reason: str) -> dict[str, Any]:
    """The columns of a record that was settled, or released without a charge."""
    return {
        "state": "released" if charge is None else "settled",
        "settled_at": now,
        "end_reason": reason or (NO_ANSWER if charge is None else ""),
        **(charge or Charge()).values(),
    }

def close_record(
    connection: Connection, key: str, charge: Charge | None, now: int, reason: str = ""
) -> bool:
    """Settle or release a record; False if it was closed before. Counters are left alone."""
    values = {"key": key, **ended_values(charge, now, reason)}
    return connection.execute(UPDATE_OPEN_RECORD, values).rowcount > 0

def correct_record(
    connection: Connection, key: str, charge: Charge | None, now: int, reason: str = ""
) -> Amounts | None:
    """Replace what the sweep took a reply for by what it has really cost, once.

    Returns:
        How much more counts now; None if the record wasn't closed by an estimate of that kind.
    """
    found = connection.execute(select(records_table).where(IS_PROVISIONAL), {"key": key}).first()
    if found is None:
        return None
    changed = connection.execute(
        records_table.update().where(IS_PROVISIONAL).values(**ended_values(charge, now, reason)),
        {"key": key},
    )
    if not changed.rowcount:
        return None
    return (charge or Charge()).counted - charge_of_row(found).counted

# ================================= helpers/ledger/many_limits.py ==================================
# Many limits at once: where they stand at one moment of the ledger, read only.

SnapshotResult = TypeVar("SnapshotResult")
GrantKey = tuple[str, ...]
# By user and window, what was used of each model (by its joined names) and from each source.
WindowSums = defaultdict[tuple[str, int, int], list[tuple[str, str, Amounts]]]

def read_snapshot_of(
    connection: Connection, work: Callable[[Connection], SnapshotResult]
) -> SnapshotResult:
    """Let `work` see one moment of the database; SQLite's writers don't wait for it."""
    sqlite = connection.dialect.name == "sqlite"
    begin = "BEGIN" if sqlite else "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
    connection.exec_driver_sql(begin)
    result = work(connection)
    connection.exec_driver_sql("COMMIT")
    return result

# The columns by which a grant names the limit that it adds to.
GRANT_KEY = tuple(grants_table.c["scope", "measure", "model_glob", "period", "source"])

def grant_key(applied: AppliedLimit) -> GrantKey:
    """What a grant for this limit has in `GRANT_KEY`."""
    limit = applied.limit
    return applied.scope, limit.measure, limit.model_glob, limit.period.name, limit.source

# Where a counter's row has what a limit of each measure compares, as `Amounts.of` has it.
MEASURED: Mapping[Measure, int] = {
    "tokens": 3,
    "input_tokens": 4,
    "output_tokens": 5,
    "requests": 6,
    "cost": 7,
}
# What many rows are looked up by is one parameter, a list: with one for each, statements would
# take longer to write than to run. The statements are built once, as that takes a while, too.

@lru_cache
def open_counters(sqlite: bool) -> Select[Any]:
    """The counters of a list of scopes whose windows are open."""
    columns = counters_table.c
    among: ColumnElement[bool] = columns.scope == any_(bindparam("scopes", type_=ARRAY(Text())))
    if sqlite:
        listed = func.json_each(bindparam("scopes", type_=Text())).table_valued("value")
        among = columns.scope.in_(select(listed.c.value))
    return select(
        *columns["id", "window_start", "window_end"],
        columns.input_tokens + columns.output_tokens,
        *columns["input_tokens", "output_tokens", "requests", "cost_micros"],
    ).where(among, columns.window_end > bindparam("at"))

def read_counters(connection: Connection, scopes: Collection[str], at: int) -> dict[str, Row[Any]]:
    """The counters of these scopes whose windows are open, by id: id, start, end and sums."""
    sqlite, listed = connection.dialect.name == "sqlite", sorted(scopes)
    values = {"scopes": json.dumps(listed) if sqlite else listed, "at": at}
    return {row[0]: row for row in connection.execute(open_counters(sqlite), values).all()}

def read_granted(
    connection: Connection, at: int, scope: str | None = None
) -> Mapping[GrantKey, int]:
    """What administrators have added to limits, or to those of one scope, by `grant_key`."""
    columns = grants_table.c
    sums = select(*GRANT_KEY, func.sum(columns.amount)).group_by(*GRANT_KEY)
    query = sums.where(columns.expires_at > at)
    if scope is not None:
        query = query.where(columns.scope == scope)
    return {tuple(names): int(amount) for *names, amount in connection.execute(query).all()}

def read_running(
    connection: Connection, scope: str | None = None
) -> Mapping[str, Sequence[RunningReply]]:
    """Replies that are still running, or those of one scope, by each that they count for."""
    query = RUNNING
    if scope is not None and scope.startswith("user:"):
        query = query.where(records_table.c.user_id == scope.removeprefix("user:"))
    running: defaultdict[str, list[RunningReply]] = defaultdict(list)
    for row in connection.execute(query, {"except_id": ""}):
        reply = RunningReply.of(row)
        for each in scopes_of(reply.user_id, reply.group_ids):
            running[each].append(reply)
    return running

@dataclass(frozen=True, slots=True)
class CountedSpan:
    """What is alike in a limit of many users: its counters' ids around the scope, and the window.

    Args:
        id_start: How the ids begin.
        id_end: How they end.
        start: The first second that counts.
        end: The one after the last.
        rolling: The length of a rolling window in seconds; 0 for another.
        reset_at: When all that counts has left the window.
        adds_up: Whether something does; not in a limit about one moment.
    """

    id_start: str
    id_end: str
    start: int
    end: int
    rolling: int
    reset_at: datetime
    adds_up: bool

    @classmethod
    def of(cls, applied: AppliedLimit, at: int) -> CountedSpan:
        """The span of a limit at the second `at`."""
        source, seconds = applied.limit.source, applied.limit.period.seconds
        id_start = f"via {source} " if source else ""
        id_end = counter_id(applied).removeprefix(id_start + applied.scope)
        adds_up, reset_at = not applied.limit.is_moment, latest_reset(applied, at)
        return cls(id_start, id_end, *counted_window(applied, at), seconds, reset_at, adds_up)

    def missing(self, counter: Row[Any] | None, at: int) -> tuple[int, int, int]:
        """Which records to add to a counter (1) or to take from it (-1): from when, until when.

        With 1 nothing that the counter has is of use; 0: it is up to date.
        """
        if counter is None and self.adds_up:
            return 1, self.start, self.end
        if counter is None or not self.rolling:
            return 0, 0, 0
        moved = self.start - counter[1]
        if is_outlived(self.rolling, moved, counter[2], at):
            return 1, self.start, NO_END
        return (-1, counter[1], self.start) if moved > 0 else (0, 0, 0)

@lru_cache
def window_sums(sqlite: bool) -> Select[Any]:
    """What users have used in the windows of a list as JSON."""
    windows: Any
    text = bindparam("windows", type_=Text)
    if sqlite:
        windows = func.json_each(text).table_valued("value")
        parts = [func.json_extract(windows.c.value, f"$[{at}]") for at in range(3)]
    else:
        elements = func.jsonb_array_elements(cast(text, JSONB))
        windows = elements.table_valued(Column("value", JSONB)).render_derived()
        parts = [windows.c.value[at].astext for at in range(3)]
    user_id, since, until = parts[0], cast(parts[1], BigInteger), cast(parts[2], BigInteger)
    names, source = records_table.c.model_names, records_table.c.source
    return (
        select(user_id, since, until, names, source, *COUNTED_SUMS)
        .select_from(windows)
        .join(
            records_table,
            and_(
                records_table.c.user_id == user_id,
                records_table.c.created_at >= since,
                records_table.c.created_at < until,
                records_table.c.state == "settled",
            ),
        )
        .group_by(literal_column("1"), literal_column("2"), literal_column("3"), names, source)
    )

def sums_of_users(connection: Connection, wanted: Collection[tuple[str, int, int]]) -> WindowSums:
    """What users have used in windows of theirs, by the models' names and the source.

    Args:
        wanted: User ids, each with the first second and the one after the last.
    """
    found: WindowSums = defaultdict(list)
    if wanted:
        query = window_sums(connection.dialect.name == "sqlite")
        rows = connection.execute(query, {"windows": json.dumps(sorted(wanted))}).all()
        for user, first, end, model_names, asked_from, *sums in rows:
            found[user, first, end].append((model_names, asked_from, Amounts(*map(int, sums))))
    return found

class LimitReader:
    """Reads where limits stand at one instant: by their counters, else by the records.

    Nothing is written and no lock is needed, if the connection sees one moment of the database.
    However many limits are asked for at once, it takes few statements.
    """

    def __init__(self, connection: Connection, at: datetime) -> None:
        self._connection, self._second = connection, int(at.timestamp())
        self._spans: dict[int, tuple[AppliedLimit, CountedSpan]] = {}
        self._resets: KnownResets = {}
        # By scope; None: by all of them, which is read once, as both are few.
        self._running: dict[str | None, Mapping[str, Sequence[RunningReply]]] = {}
        self._granted: dict[str | None, Mapping[GrantKey, int]] = {}

    def read(self, limits: Sequence[AppliedLimit]) -> list[LimitState]:
        """Where these stand."""
        if not limits:
            return []
        scopes = {applied.scope for applied in limits}
        counters = read_counters(self._connection, scopes, self._second)
        only = next(iter(scopes)) if len(scopes) == 1 else None
        if only not in self._running:
            self._running[only] = read_running(self._connection, only)
            self._granted[only] = read_granted(self._connection, self._second, only)
        running, granted = self._running[only], self._granted[only]
        needs, windows = [], set()
        for applied in limits:
            span = self._span(applied)
            counter = counters.get(f"{span.id_start}{applied.scope}{span.id_end}")
            missing = span.missing(counter, self._second)
            if missing[0] and not applied.is_pool:
                windows.add((applied.scope.removeprefix("user:"), *missing[1:]))
            needs.append((span, counter, missing))
        sums, states = sums_of_users(self._connection, windows), []
        for applied, (span, counter, (sign, start, end)) in zip(limits, needs, strict=True):
            measure, scope = applied.limit.measure, applied.scope
            used = 0 if counter is None or sign > 0 else counter[MEASURED[measure]]
            if sign:
                used += sign * self._sum(applied, start, end, sums)
            reserved = self._reserved(applied, running[scope]) if scope in running else 0
            added = granted.get(grant_key(applied), 0) if granted else 0
            states.append(LimitState(applied, used, reserved, span.reset_at, added))
        if len(self._resets) >= MOST_LOOK_UPS:
            return states
        return list(with_resets(self._connection, states, self._second, self._resets))

    def _span(self, applied: AppliedLimit) -> CountedSpan:
        # By identity: at one instant a limit has one window, whoever it is applied to.
        found = self._spans.get(id(applied.limit))
        if found is None:
            span = CountedSpan.of(applied, self._second)
            found = self._spans[id(applied.limit)] = (applied, span)
        return found[1]

    def _sum(self, applied: AppliedLimit, start: int, end: int, sums: WindowSums) -> int:
        limit, scope = applied.limit, applied.scope
        if applied.is_pool:
            glob, source = limit.model_glob, limit.source
            found = sum_settled(self._connection, scope, glob, start, end, source)
            return found.of(limit.measure)
        return sum(
            part.of(limit.measure)
            for names, source, part in sums.get((scope.removeprefix("user:"), start, end), ())
            if limit.source in ("", source) and glob_matches(limit.model_glob, names)
        )

    def _reserved(self, applied: AppliedLimit, running: Sequence[RunningReply]) -> int:
        limit = applied.limit
        return sum(
            reply.reserved.of(limit.measure)
            for reply in running
            if not limit.is_per_request and reply.counts_for(applied, self._second)
        )

def read_states(
    connection: Connection, limits: Sequence[AppliedLimit], at: datetime
) -> tuple[LimitState, ...]:
    """Where limits stand at the instant `at`, as a `LimitReader` finds it."""
    return tuple(LimitReader(connection, at).read(limits))

# =================================== helpers/ledger/rollups.py ====================================
# Rollups: what the records of a stretch of time add up to, once nothing changes there any more.

BLOCK_LENGTH = 14 * 86_400
SLOT_LENGTH = 900
# What is that old is rolled up; what is a day younger never should be, whatever the clocks say.
SETTLED_AFTER_SECONDS = 7 * 86_400
UNSETTLED_SECONDS = 6 * 86_400
ROLLUPS_LOCK = "rollups"
# Of fewer a report reads the records as fast: it asks once, and not three times.
FEWEST_STRETCHES = 4

# What a block's rows tell apart, and what a slot's.
BLOCK_DIMENSIONS = frozenset({"user", "model", "source", "group"})
SLOT_DIMENSIONS = frozenset({"model", "source", "day"})

def whole(number: int) -> ColumnElement[int]:
    """A whole number as it stands: PostgreSQL takes two parameters of one value for different ones,
    and what is grouped by stands in two places of a query.
    """
    return literal_column(str(number), BigInteger)

@dataclass(frozen=True, slots=True)
class Summed:
    """Where sums come from: the records themselves, or rollups of them.

    Args:
        table: With a row for each of what is summed.
        instant: Its column that says when.
        sums: Requests, input and output tokens, millionths of a dollar, estimated requests.
        condition: Which of its rows count.
    """

    table: FromClause
    instant: ColumnElement[int]
    sums: tuple[ColumnElement[Any], ...]
    condition: ColumnElement[bool]

    @property
    def columns(self) -> dict[str, ColumnElement[Any]]:
        """Whose sums they are, by dimension, but for the day."""
        columns = self.table.c
        return {
            # Not the column itself: SQLite would go through all rows in the order of its index.
            "user": func.coalesce(columns.user_id, literal_column("''")),
            "model": columns.model_id,
            "source": columns.source,
            "group": columns.group_ids,
        }

def summed_records(condition: ColumnElement[bool]) -> Summed:
    """The records.

    Args:
        condition: Which of them count. Released ones never do, open ones at their estimate.
    """
    columns = records_table.c
    sums = (
        func.count(),
        func.sum(columns.input_tokens),
        func.sum(columns.output_tokens),
        func.sum(columns.cost_micros),
        func.sum(case((columns.estimated, 1), else_=0)),
    )
    counting = and_(columns.state != "released", condition)
    return Summed(records_table, columns.created_at, sums, counting)

def between(
    column: ColumnElement[int], since: int | None, until: int | None
) -> ColumnElement[bool]:
    """Whether an instant is from `since` on and before `until`, each as far as it is given."""
    bounds = [] if since is None else [column >= since]
    return and_(True, *bounds, *([] if until is None else [column < until]))

def summed_rollups(length: int, since: int, until: int) -> Summed:
    """The rollups of all stretches of a length, in seconds, between two of their limits."""
    columns = rollups_table.c
    names = ("requests", "input_tokens", "output_tokens", "cost_micros", "estimated_requests")
    sums = tuple(func.sum(columns[name]) for name in names)
    condition = and_(columns.seconds == length, between(columns.start, since, until))
    return Summed(rollups_table, columns.start, sums, condition)

def find_summed(
    connection: Connection, wanted: Iterable[str], since: int | None, until: int | None
) -> list[Summed]:
    """Where the sums of a span by some dimensions come from: each record is in one of these.

    Args:
        wanted: The dimensions.
        since: The first second; None: from the first record on.
        until: The second after the last one; None: to the last record.
    """
    asked, created_at = frozenset(wanted), records_table.c.created_at
    length = BLOCK_LENGTH if asked <= BLOCK_DIMENSIONS else SLOT_LENGTH
    served = asked <= BLOCK_DIMENSIONS or asked <= SLOT_DIMENSIONS
    rolled_up = find_rolled_up(connection) if served else None
    if rolled_up is not None:
        first, end = rolled_up
        first = first if since is None else max(first, -(-since // length) * length)
        end = end if until is None else min(end, until // length * length)
        if first + FEWEST_STRETCHES * length <= end:
            return [
                summed_records(between(created_at, since, first)),
                summed_rollups(length, first, end),
                summed_records(between(created_at, end, until)),
            ]
    return [summed_records(between(created_at, since, until))]

def find_rolled_up(connection: Connection) -> tuple[int, int] | None:
    """From when on and until when all is rolled up; None for nothing."""
    schema = ledger_schema(connection)
    if not connection.dialect.has_table(connection, rollups_table.name, schema=schema):
        return None  # a ledger of an earlier version
    columns = rollups_table.c
    blocks = select(columns.start).where(columns.seconds == BLOCK_LENGTH).limit(1)
    first = connection.scalar(blocks.order_by(columns.start))
    last = connection.scalar(blocks.order_by(columns.start.desc()))
    return None if first is None or last is None else (first, last + BLOCK_LENGTH)

def roll_up_next(connection: Connection, now: int) -> bool:
    """Roll up the earliest block that isn't, if it has settled; returns whether there was one.

    Blocks are taken in the order of time, but for those without records: whatever lies between two
    that are rolled up is rolled up, too. `now` is in seconds since 1970.
    """
    drop_rollups(connection, since=now - UNSETTLED_SECONDS)  # made by a clock that was ahead
    columns, rolled_up = records_table.c, find_rolled_up(connection)
    first = connection.scalar(
        select(columns.created_at)
        .where(columns.state != "released", columns.created_at >= (rolled_up or (0, 0))[1])
        .order_by(columns.created_at)
        .limit(1)
    )
    if first is None:
        return False
    start = first // BLOCK_LENGTH * BLOCK_LENGTH
    running = connection.scalars(select(columns.created_at).where(IS_OPEN))
    settled = min(running, default=now)
    if start + BLOCK_LENGTH > min(now - SETTLED_AFTER_SECONDS, settled):
        return False
    block = summed_records(between(columns.created_at, start, start + BLOCK_LENGTH))
    slot = columns.created_at // whole(SLOT_LENGTH) * whole(SLOT_LENGTH)
    nobody: list[ColumnElement[Any]] = [literal_column("''")] * 2
    of_model = [columns.model_id, columns.source]
    whose = [block.columns["user"], columns.group_ids]
    names = [column.name for column in rollups_table.c]
    for values, alike in (
        ([whole(BLOCK_LENGTH), whole(start), *whose], whose),
        ([whole(SLOT_LENGTH), slot, *nobody], [slot]),
    ):
        rows = select(*values, *of_model, *block.sums).where(block.condition)
        grouped = rows.group_by(*alike, *of_model)
        connection.execute(rollups_table.insert().from_select(names, grouped))
    return True

def drop_rollups(
    connection: Connection, since: int | None = None, until: int | None = None
) -> None:
    """Drop the rollups of what is from `since` on or before `until`, one of them at most.

    Whoever changes records that may be rolled up calls this afterwards in the same transaction,
    whose end those who roll up wait for.
    """
    take_advisory_locks(connection, (ROLLUPS_LOCK,))
    if find_rolled_up(connection) is None:
        return
    start, seconds = rollups_table.c.start, rollups_table.c.seconds
    first = None if since is None else since // BLOCK_LENGTH * BLOCK_LENGTH
    end = None if until is None else -(-until // BLOCK_LENGTH) * BLOCK_LENGTH
    by_index = seconds.in_((BLOCK_LENGTH, SLOT_LENGTH))
    connection.execute(rollups_table.delete().where(by_index, between(start, first, end)))

# =================================== helpers/ledger/reports.py ====================================
# Reports: what records add up to by user, model, day, group and source, read only.

# Which day a record belongs to

DAY_LENGTH = 86_400
FIRST_DAY = date(1970, 1, 1)

def instant_of(second: int) -> datetime:
    """A second of the ledger as an instant."""
    return datetime.fromtimestamp(second, UTC)

def day_number(
    instant: ColumnElement[int], zone: ZoneInfo, first: int, last: int, reset_hour: int = 0
) -> ColumnElement[int]:
    """In SQL: how many days after 1 January 1970 an instant is by the calendar in a zone."""
    back = reset_hour * 3_600
    *earlier, (_, offset) = offsets(zone, first, last)
    local: ColumnElement[Any] = instant + whole(offset - back)
    if earlier:
        cases = [(instant < whole(end), instant + whole(past - back)) for end, past in earlier]
        local = case(*cases, else_=local)
    return local // whole(DAY_LENGTH)

def offsets(zone: ZoneInfo, first: int, last: int) -> list[tuple[int, int]]:
    """How far the clock in a zone is ahead of UTC, each with the second until which that holds."""
    found = []
    instant, end = instant_of(first), instant_of(last)
    while instant < end:
        following = min(instant + timedelta(days=1), end)
        if zone_offset(instant, zone) != zone_offset(following, zone):
            change = clock_change(zone, instant, following)
            found.append((int(change.timestamp()), offset_seconds(instant, zone)))
        instant = following
    return [*found, (last + 1, offset_seconds(end, zone))]

def offset_seconds(instant: datetime, zone: ZoneInfo) -> int:
    """How far the clock in a zone is ahead of UTC."""
    return int(zone_offset(instant, zone).total_seconds())

# What records add up to

# What can be summed by, in the order of the columns, and the columns that each gives.
DIMENSIONS = {
    "user": ("user_id", "user_email"),
    "model": ("model_id",),
    "source": ("source",),
    "day": ("day",),
    "group": ("group_id", "group_name"),
}
INSTANT_ALLOWED = (
    'a date such as "2026-03-01" (its beginning) or an instant such as "2026-03-01T08:00+01:00"'
)

# Few enough that Python's collector, which holds every thread, has little to look at.
RECORDS_AT_ONCE = 500

RowKey = tuple[Any, ...]
# What `Sums` takes. Plain tuples of numbers, thousands of which Python's collector soon leaves
# alone: it holds every thread while it goes through objects of any other kind.
Numbers = tuple[int, ...]

@dataclass(frozen=True, slots=True)
class Sums:
    """What a number of records add up to; money in millionths of a dollar."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_micros: int = 0
    estimated_requests: int = 0

    @property
    def total_tokens(self) -> int:
        """Input and output."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.requests + other.requests,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cost_micros + other.cost_micros,
            self.estimated_requests + other.estimated_requests,
        )

@dataclass(frozen=True, slots=True)
class Selection:
    """Which records count: ``since <= created_at < until``, and whose days they fall on.

    Args:
        since: In seconds since 1970; None: from the first one.
        until: The second after the last one; None: to the last one.
        zone: Whose calendar days are.
        reset_hour: The local hour at which they begin.
        user_id: Whose records; None: everybody's.
    """

    since: int | None = None
    until: int | None = None
    zone: ZoneInfo = field(default_factory=utc_zone)
    reset_hour: int = 0
    user_id: str | None = None

    @property
    def records(self) -> Summed:
        """The records that count."""
        columns = records_table.c
        condition = between(columns.created_at, self.since, self.until)
        if self.user_id is not None:
            condition = and_(condition, columns.user_id == self.user_id)
        return summed_records(condition)

    def summed(self, connection: Connection, wanted: Sequence[str]) -> list[Summed]:
        """The same, or rollups of them, which a user has too few records for."""
        if self.user_id is not None:
            return [self.records]
        return find_summed(connection, wanted, self.since, self.until)

def read_dimensions(text: str) -> list[str]:
    """The names in a list with commas, in the order of the columns.

    Raises:
        ConfigurationError: One isn't a dimension.
    """
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in DIMENSIONS:
            allowed = ", ".join(DIMENSIONS)
            raise ConfigurationError("by", quoted_text(name), f"{allowed}, separated by commas")
    return [name for name in DIMENSIONS if name in names]

def read_instant(text: str | None, where: str, zone: ZoneInfo) -> int | None:
    """The first whole second that isn't before a date's beginning or an instant.

    Raises:
        ConfigurationError: It is neither.
    """
    if text is None:
        return None
    try:
        instant = reset_instant(date.fromisoformat(text.strip()), CalendarRules(zone))
    except (ValueError, OverflowError):
        try:
            instant = datetime.fromisoformat(text.strip())
            instant = instant if instant.tzinfo else instant.replace(tzinfo=zone)
            return math.ceil(instant.timestamp())
        except (ValueError, OverflowError):
            raise ConfigurationError(where, quoted_text(text), INSTANT_ALLOWED) from None
    return math.ceil(instant.timestamp())

def first_and_last(connection: Connection, selection: Selection) -> tuple[int, int] | None:
    """When the first and the last record were made, by the index."""
    created_at = records_table.c.created_at
    query = select(created_at).where(selection.records.condition).limit(1)
    first = connection.scalar(query.order_by(created_at))
    last = connection.scalar(query.order_by(created_at.desc()))
    return None if first is None or last is None else (first, last)

def sum_records(
    connection: Connection, selection: Selection, wanted: Sequence[str], most: int | None = None
) -> dict[RowKey, Numbers]:
    """What records add up to, by the values of some dimensions, as `Sums` takes it.

    Sums come from the database; only groups, of which a record names several, are told apart
    here. A record of a user in several groups counts in each of them, one in none under None.

    Args:
        selection: Which records count.
        wanted: The dimensions, in the order of `DIMENSIONS`.
        most: Where there are more sums than that, the rest isn't read.
    """
    day_at = wanted.index("day") if "day" in wanted else None
    group_at = wanted.index("group") if "group" in wanted else None
    sums: dict[RowKey, Numbers] = {}
    span = first_and_last(connection, selection) if day_at is not None else (0, 0)
    if span is None:
        return sums
    first, last = span
    for summed in selection.summed(connection, wanted):
        columns = summed.columns
        if day_at is not None:
            columns["day"] = day_number(
                summed.instant, selection.zone, first, last, selection.reset_hour
            )
        grouped = [columns[name] for name in wanted]
        query = select(*grouped, *summed.sums).where(summed.condition).group_by(*grouped)
        # PostgreSQL doesn't know how few days there are, and would sort all records for a limit.
        if most is not None and group_at is None and day_at is None:
            rows = read_few_rows(connection, query.limit(most + 1))
        else:
            rows = read_rows(connection, query)
        for row in rows:
            key = list(row[: len(wanted)])
            part = tuple(int(value or 0) for value in row[len(wanted) :])
            if day_at is not None:
                key[day_at] = (FIRST_DAY + timedelta(days=key[day_at])).isoformat()
            groups = [None] if group_at is None else split_names(key[group_at] or "") or [None]
            for group in groups:
                if group_at is not None:
                    key[group_at] = group
                known = sums.get(whole_key := tuple(key))
                sums[whole_key] = part if known is None else tuple(map(add, known, part))
            if most is not None and len(sums) > most:
                return sums
    return sums

def read_rows(connection: Connection, query: Select[Any]) -> Iterator[Row[Any]]:
    """Rows as they come, a few at a time; whoever has enough of them closes the cursor."""
    options = {"yield_per": RECORDS_AT_ONCE}
    with connection.execute(query, execution_options=options) as found:
        for some in found.partitions():
            yield from some

def read_few_rows(connection: Connection, query: Select[Any]) -> Iterator[Row[Any]]:
    """The same where all of them are few: PostgreSQL's workers share the work of such a query."""
    for some in connection.execute(query).partitions(RECORDS_AT_ONCE):
        yield from some

def sum_models(connection: Connection, selection: Selection) -> dict[tuple[str, str], Sums]:
    """What records add up to by model: its id and its joined names."""
    keys = (records_table.c.model_id, records_table.c.model_names)
    records = selection.records
    rows = connection.execute(select(*keys, *records.sums).where(records.condition).group_by(*keys))
    return {
        (model, names): Sums(*(int(value or 0) for value in sums)) for model, names, *sums in rows
    }

def read_latest(connection: Connection, selection: Selection, most: int) -> Sequence[Row[Any]]:
    """The latest records, the newest first."""
    columns = records_table.c[
        *("created_at", "model_id", "model_names", "source", "state", "input_tokens"),
        *("output_tokens", "cost_micros", "estimated"),
    ]
    return connection.execute(
        select(*columns)
        .where(selection.records.condition)
        .order_by(columns.created_at.desc())
        .limit(most)
    ).all()

def recorded_emails(connection: Connection, user_ids: Iterable[str]) -> dict[str, str]:
    """The last address on record of users whom Open WebUI has no more."""
    columns = records_table.c
    emails = {}
    for user_id in user_ids:
        email = connection.scalar(
            select(columns.user_email)
            .where(columns.user_id == user_id)
            .order_by(columns.created_at.desc())
            .limit(1)
        )
        emails[user_id] = str(email or "")
    return emails

def read_replayed(connection: Connection, start: int, until: int) -> Iterable[Any]:
    """Records from `start` on and before `until`, in the order of time."""
    columns = records_table.c
    query = (
        select(
            *columns["created_at", "user_id", "group_ids", "model_names", "source", "state"],
            *columns["settled_at", "counted", "weighted_input_tokens", "weighted_output_tokens"],
            *columns["cost_micros", "input_tokens", "output_tokens", "cached_input_tokens"],
            type_coerce(columns.estimated, BigInteger),  # as it is: a bool takes a call for each
            columns.id,
        )
        .where(columns.created_at >= start, columns.created_at < until)
        .order_by(columns.created_at, columns.id)
    )
    return read_rows(connection, query)

# ================================= helpers/ledger/report_rows.py ==================================
# Report rows: sums with the names of what they are of, as JSON and CSV.

# Public, as are the columns of DIMENSIONS: other programs read them.
SUM_COLUMNS = (
    *("requests", "input_tokens", "output_tokens", "total_tokens", "cost_usd"),
    "estimated_requests",
)
# What a spreadsheet takes for the beginning of a formula: at a cell's start, which to half of the
# world's spreadsheets is also what follows a semicolon; in Japanese ones, with full-width signs.
FORMULA = re.compile(r"(^|;)(?=[\s'\"]*[=+\-@＝＋－＠])")

@dataclass(frozen=True, slots=True)
class UsageRow:
    """The sums of all records that are alike in some columns."""

    keys: dict[str, str | None]
    sums: Sums

def named_rows(
    wanted: Sequence[str],
    sums: Mapping[RowKey, Numbers],
    emails: Mapping[str, str],
    group_names: Mapping[str, str],
) -> Iterator[UsageRow]:
    """Rows with the names of the ids in the keys; days in order, then the largest use first."""
    day_at = wanted.index("day") if "day" in wanted else None

    def order(item: tuple[RowKey, Numbers]) -> tuple[Any, ...]:
        key, (_, input_tokens, output_tokens, *_) = item
        day = "" if day_at is None else key[day_at]
        return day, -input_tokens - output_tokens, *(value or "" for value in key)

    for key, numbers in sorted(sums.items(), key=order):
        keys: dict[str, str | None] = {}
        for name, value in zip(wanted, key, strict=True):
            keys[DIMENSIONS[name][0]] = value
            if name == "user":
                keys["user_email"] = emails.get(value or "", "")
            if name == "group":
                keys["group_name"] = group_names.get(value or "")
        yield UsageRow(keys, Sums(*numbers))

def printable(text: str) -> str:
    """A text without control characters: models' ids come from outside.

    A terminal or a spreadsheet might obey them, and XML has no place for them.
    """
    if text.isprintable():
        return text
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(letter) in ("Cc", "Cs") else letter
        for letter in text
    )

def csv_cell(text: str | None) -> str:
    """A text that a spreadsheet shows and doesn't compute."""
    return FORMULA.sub(r"\1'", printable(text or ""))

def key_columns(dimensions: Sequence[str]) -> list[str]:
    """The columns that identify a row."""
    wanted = [name for name in DIMENSIONS if name in dimensions]
    return [name for dimension in wanted for name in DIMENSIONS[dimension]]

def sum_values(sums: Sums) -> tuple[int | Decimal, ...]:
    """The values of `SUM_COLUMNS`."""
    return (
        sums.requests,
        sums.input_tokens,
        sums.output_tokens,
        sums.total_tokens,
        Decimal(sums.cost_micros) / 1_000_000,
        sums.estimated_requests,
    )

def sums_row(sums: Sums) -> dict[str, Any]:
    """The same as JSON has them; money as a number."""
    values = dict[str, Any](zip(SUM_COLUMNS, sum_values(sums), strict=True))
    return {**values, "cost_usd": sums.cost_micros / 1_000_000}

def json_line(row: UsageRow) -> str:
    """A row as a JSON object; an encoder would take a while to be made for each of thousands."""
    texts = [
        f'"{name}": {"null" if value is None else encode_basestring(value)}'
        for name, value in row.keys.items()
    ]
    texts += [f'"{name}": {value}' for name, value in sums_row(row.sums).items()]
    return f"{{{', '.join(texts)}}}"

def as_json(rows: Iterable[UsageRow]) -> str:
    """A list of objects, one on each line; money as a number."""
    lines = [json_line(row) for row in rows]
    return "[\n" + ",\n".join(lines) + "\n]\n" if lines else "[]\n"

def as_csv(rows: Iterable[UsageRow], dimensions: Sequence[str]) -> str:
    """Comma-separated values with a line of column names; what isn't known is empty."""
    output = StringIO()
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow([*key_columns(dimensions), *SUM_COLUMNS])
    for row in rows:
        cells = [
            f"{value:f}" if isinstance(value, Decimal) else value for value in sum_values(row.sums)
        ]
        writer.writerow([*map(csv_cell, row.keys.values()), *cells])
    return output.getvalue()

# ==================================== helpers/ledger/grants.py ====================================
# Grants: what administrators add to limits, reset and take back; rows, never edits.

# A reset of a rolling limit is a few rows that run out one after another, as the use does.
ROLLING_PARTS = 60
# A row that takes another one back has its id, so that it can't be taken back twice.
REVOKED = "revoked:"

@dataclass(frozen=True, slots=True)
class NewGrant:
    """A row to write: what is added to a limit, and until when (seconds since 1970)."""

    applied: AppliedLimit
    amount: int
    expires_at: int
    kind: str = "grant"
    # Made once: a transaction that is tried again must not write it twice.
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

@dataclass(frozen=True, slots=True)
class Change:
    """Limits before and after rows were added for them, and those rows."""

    before: tuple[LimitState, ...]
    after: tuple[LimitState, ...]
    grants: tuple[NewGrant, ...] = ()

def grant_end(applied: AppliedLimit, now: datetime) -> int:
    """The second until which a grant counts: a limit's window ends, or a period has passed."""
    return int(latest_reset(applied, int(now.timestamp())).timestamp())

def add_grants(
    connection: Connection,
    limits: Sequence[AppliedLimit],
    make: Callable[[Connection], Sequence[NewGrant]],
    by: str,
    reason: str,
    now: datetime,
) -> Change:
    """Write grants, in a transaction under the locks of all scopes concerned.

    Args:
        limits: The limits that change.
        make: What to add, given the ledger as it is then.
        by: Who grants.
    """
    before, grants = read_states(connection, limits, now), tuple(make(connection))
    for new in grants:
        if connection.scalar(select(grants_table.c.id).where(grants_table.c.id == new.id)):
            continue
        values = dict[Any, Any](zip(GRANT_KEY, grant_key(new.applied), strict=True)) | {
            "id": new.id,
            "amount": new.amount,
            "kind": new.kind,
            "granted_by": by,
            "reason": reason,
            "created_at": int(now.timestamp()),
            "expires_at": new.expires_at,
        }
        connection.execute(grants_table.insert().values(values))
    return Change(before, read_states(connection, limits, now), grants)

def find_grant(connection: Connection, key: str, now: datetime) -> Row[tuple[object, ...]] | None:
    """A grant or reset that still holds and wasn't taken back."""
    taken_back = select(grants_table.c.id).where(grants_table.c.id == REVOKED + key)
    return connection.execute(
        select(grants_table).where(
            grants_table.c.id == key,
            grants_table.c.amount > 0,
            grants_table.c.expires_at > int(now.timestamp()),
            ~taken_back.exists(),
        )
    ).first()

def revoke_grant(connection: Connection, key: str, by: str, reason: str, now: datetime) -> bool:
    """Take a grant back by a row of its own; False where there is none that still holds.

    The caller holds the lock of its scope.
    """
    row = find_grant(connection, key, now)
    if row is None:
        return False
    values = dict(row._mapping)
    values |= {
        "id": REVOKED + key,
        "amount": -int(values["amount"]),
        "granted_by": by,
        "reason": reason,
        "created_at": int(now.timestamp()),
    }
    connection.execute(grants_table.insert().values(values))
    return True

def missing_resets(connection: Connection, state: LimitState, now: datetime) -> Iterator[NewGrant]:
    """The grants that make up for what was used and that no earlier reset has made up for."""
    applied, second = state.applied, int(now.timestamp())
    same = (column == name for column, name in zip(GRANT_KEY, grant_key(applied), strict=True))
    earlier = connection.scalar(
        select(func.coalesce(func.sum(grants_table.c.amount), 0)).where(
            *same, grants_table.c.kind == "reset", grants_table.c.expires_at > second
        )
    )
    amount = state.used - int(earlier or 0)
    if amount <= 0:
        return
    if applied.limit.period.rolling is None:
        yield NewGrant(applied, amount, grant_end(applied, now), "reset")
        return
    for expires_at, part in rolling_parts(connection, applied, amount, second).items():
        yield NewGrant(applied, part, expires_at, "reset")

def make_resets(
    connection: Connection, limits: Sequence[AppliedLimit], now: datetime
) -> list[NewGrant]:
    """What has been used of limits, as grants."""
    states = read_states(connection, limits, now)
    return [new for state in states for new in missing_resets(connection, state, now)]

def rolling_parts(
    connection: Connection, applied: AppliedLimit, amount: int, second: int
) -> dict[int, int]:
    """The newest use of a rolling limit up to `amount`, by when it leaves the window.

    A single grant of all of it would last a period from now, and so would add to the limit
    after the use that it makes up for is forgotten. Times are rounded up to a few instants.
    """
    start, _ = counted_window(applied, second)
    length = second - start + 1
    step = max(1, length // ROLLING_PARTS)
    columns = records_table.c
    rows = connection.execute(
        select(
            (columns.created_at + (length + step - 1)) // step * step,
            columns.model_names,
            *COUNTED_SUMS,
        )
        .where(
            columns.state == "settled",
            columns.created_at >= start,
            scope_condition(applied.scope, applied.limit.source),
        )
        .group_by(literal_column("1"), literal_column("2"))
        .order_by(literal_column("1").desc())
    )
    parts: dict[int, int] = {}
    for expires_at, model_names, *sums in rows:
        if glob_matches(applied.limit.model_glob, model_names):
            part = min(amount, int(Amounts(*sums).of(applied.limit.measure)))
            parts[expires_at] = parts.get(expires_at, 0) + part
            amount -= part
    return {expires_at: part for expires_at, part in parts.items() if part}

def read_grants(
    connection: Connection, scopes: Collection[str], since: int, most: int
) -> Sequence[Row[Any]]:
    """What was granted, reset and taken back since then, the newest first."""
    columns = grants_table.c
    return connection.execute(
        select(grants_table)
        .where(columns.scope.in_(sorted(scopes)), columns.expires_at > since)
        .order_by(columns.created_at.desc(), columns.id.desc())  # "revoked:…" before the grant
        .limit(most)
    ).all()

# ================================ helpers/ledger/reply_lengths.py =================================
# Reply lengths: how long the replies of each model are of late, by what is on record.

# So many records are read, whoever made them, and no more often than that.
RECORDS_READ = 1_000
READ_AGAIN_SECONDS = 0.5
# Each user counts the same, however many replies they had: of these that many are looked at.
REPLIES_PER_USER = 20
# Nine in ten are shorter. Within these bounds nobody's replies make the reservations of others
# larger or smaller.
QUANTILE = 0.9
LENGTH_BOUNDS = (500, 8_000)
MOST_MODELS_KNOWN = 1_000
ANY_MODEL = None  # where those of a model aren't known, it is expected to be like the others
# What Open WebUI writes by itself is short, and what was filled in is from before.
OTHER_SOURCES = ("task", "backfill")

NEWEST_RECORDS = (
    select(*records_table.c["model_id", "user_id", "output_tokens", "source", "state"])
    .order_by(records_table.c.created_at.desc())
    .limit(RECORDS_READ)
)

def usual_lengths(rows: Iterable[Any]) -> dict[str | None, int]:
    """The high quantile of the lengths of each model and of any, in output tokens.

    Args:
        rows: model, user, output tokens, source and state; the newest first.
    """
    by_user: dict[str | None, dict[str, list[int]]] = {}
    for model, user, tokens, source, state in rows:
        if state == "settled" and tokens > 0 and source not in OTHER_SOURCES:
            for known in (model, ANY_MODEL):
                lengths = by_user.setdefault(known, {}).setdefault(user, [])
                if len(lengths) < REPLIES_PER_USER:
                    lengths.append(tokens)
    return {model: weighted_quantile(users.values()) for model, users in by_user.items()}

def weighted_quantile(users: Iterable[list[int]]) -> int:
    """The length that is reached by as many users' replies, each user's together weighing 1."""
    weighed = [(tokens, 1 / len(each)) for each in users for tokens in each]
    left = QUANTILE * sum(weight for _, weight in weighed)
    shortest, longest = LENGTH_BOUNDS
    for tokens, weight in sorted(weighed):
        left -= weight
        if left <= 1e-9:
            return max(shortest, min(tokens, longest))
    return shortest

class ReplyLengths:
    """What is known of them in this process; may be used from any thread.

    Args:
        read: Runs a question in the ledger's database.
        clock: Seconds.
    """

    def __init__(
        self,
        read: Callable[[Callable[[Connection], list[Any]]], list[Any]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._clock = clock
        self._known: dict[str | None, int] = {}
        self._read_at = float("-inf")
        self._reading = Lock()

    def expected(self, model: str) -> int:
        """How many output tokens to expect of a model's reply; blocks where it has to read."""
        with self._reading:
            now = self._clock()
            if now - self._read_at >= READ_AGAIN_SECONDS:
                self._read_at = now
                self._refresh()
        return self._known.get(model) or self._known.get(ANY_MODEL, LENGTH_BOUNDS[0])

    def _refresh(self) -> None:
        try:
            rows = self._read(lambda connection: list(connection.execute(NEWEST_RECORDS)))
        except UsageLimitsError as error:  # whoever is to be reserved for finds out, too
            log.debug("Usage limits: %s; reply lengths are as they were", error)
            return
        if len(self._known) > MOST_MODELS_KNOWN:
            self._known.clear()
        self._known.update(usual_lengths(rows))

# =============================== helpers/ledger/policy_versions.py ================================
# Policy versions: the last policies texts that were saved on the page, to go back to.

MOST_VERSIONS = 20

def read_versions(connection: Connection) -> Sequence[Row[Any]]:
    """The saved texts, the newest first."""
    newest_first = policies_table.c.number.desc()
    return connection.execute(select(policies_table).order_by(newest_first)).all()

def version_tag(text: str, rows: Sequence[Row[Any]]) -> str:
    """What an editor has loaded: another after every change, from wherever.

    Args:
        text: The one in force.
        rows: The saved texts, the newest first.
    """
    newest = rows[0].id if rows else ""
    return hashlib.sha256(f"{newest}\n{text}".encode("utf-8", "replace")).hexdigest()[:32]

def keep_version(
    connection: Connection, before: str, text: str, by: str, now: int
) -> tuple[str, ...]:
    """Write down a text that is being saved, and what stood there before if that isn't known.

    Args:
        before: The text that is in force.
        text: The new one.
        by: Who saves it.
        now: Seconds since 1970.

    Returns:
        The ids of what was written.
    """
    known = list(read_versions(connection))
    number = max((row.number for row in known), default=0)
    last, made = known[0].policies if known else "", []
    for policies, saved_by in ((before, ""), (text, by)):
        if policies != last:
            number += 1
            last = policies
            made.append(uuid.uuid4().hex)
            connection.execute(
                policies_table.insert().values(
                    id=made[-1],
                    number=number,
                    policies=policies,
                    saved_by=saved_by,
                    saved_at=now,
                )
            )
    connection.execute(
        policies_table.delete().where(policies_table.c.number <= number - MOST_VERSIONS)
    )
    return tuple(made)

def drop_versions(connection: Connection, ids: Collection[str]) -> None:
    """Take back what was written of a text that could not be saved."""
    connection.execute(policies_table.delete().where(policies_table.c.id.in_(ids)))

# ==================================== helpers/ledger/ledger.py ====================================
# The ledger: reserve, settle, grow, renew and sweep, each one transaction.

# How long a request or a page may wait until whom the policies mean is written down.
REMEMBER_SECONDS = 1.0
# How long it may take to find out when a limit opens again: who is refused is told something.
LOOK_UP_SECONDS = 1.0
SWEEP_BATCH = 100
MOST_SET_ASIDE = 1_000
DROP_BATCH = 1_000
# A clock is believed once it has been right for a week, or for as long as records are kept, where
# the month before that has records, too: a gap looks the same as a clock that has jumped ahead.
DAY_SECONDS = 86_400
TRUSTED_AFTER_SECONDS = 7 * DAY_SECONDS
LONGEST_GAP_SECONDS = 30 * DAY_SECONDS

ReadResult = TypeVar("ReadResult")

@dataclass(frozen=True, slots=True)
class Settlement:
    """Where the limits stand after a reply has ended."""

    decision: Decision
    closed: bool  # False if it was closed before, or isn't there
    # The soft and hard limits that it has crossed, for the administrator's alerts.
    crossed: tuple[LimitState, ...] = ()

@dataclass(frozen=True, slots=True)
class Admission:
    """What `Ledger.reserve` decided, and what the user is to be told of it."""

    decision: Decision
    # The soft limits that are crossed for the first time in their window.
    warnings: tuple[LimitState, ...] = ()

def limit_scopes(subject: Subject, limits: Sequence[AppliedLimit]) -> set[str]:
    """The scopes whose locks a transaction about these limits needs."""
    return {subject.scope, *(applied.scope for applied in limits)}

def settle_record(
    connection: Connection,
    key: RecordKey,
    charge: Charge | None,
    limits: Sequence[AppliedLimit],
    now: int,
    reason: str = "",
) -> tuple[bool, Snapshot | None]:
    """Settle or release a record, once, and bring the counters up to date.

    What a sweep has closed by an estimate is closed once more, by what it has really cost.

    Returns:
        Whether this call closed it, and what it has read for that, if anything, as it is then.
    """
    more: Amounts | None = (charge or Charge()).counted
    if not close_record(connection, key.id, charge, now, reason):
        if reason in PROVISIONAL_REASONS:
            return False, None
        more = correct_record(connection, key.id, charge, now, reason)
        if more is None:
            return False, None
        drop_rollups(connection, since=key.created_at)
    if more is None or more == NOTHING:
        return True, None
    values = {"at": now, "except_id": key.id, "created_at": key.created_at}
    snapshot = read_snapshot(connection, "scope", key.scopes, limits, **values)
    add_to_counters(
        connection, snapshot.counters, key.model_names, key.source, key.created_at, more
    )
    return True, snapshot

class Ledger:
    """Every method is one transaction, blocks, and may be called from any thread.

    All of them raise `LedgerError` where the database can't be reached or is too busy at the
    deadline (by `time.monotonic`), and `LedgerDataError` where it refuses what is to be written.

    Args:
        engine: A synchronous engine on SQLite or PostgreSQL.
        schema: The PostgreSQL schema of the tables; None for the connection's own.
        clock: Seconds since 1970.
        keep_connections: Whether to hold on to connections until `rest` is called.
        worker: Who holds what is reserved here.
    """

    def __init__(
        self,
        engine: Engine,
        schema: str | None = None,
        clock: Callable[[], float] = time.time,
        keep_connections: bool = False,
        worker: str = "",
    ) -> None:
        self._worker = worker
        self._clock = clock
        self._transactions = TransactionRunner(engine, schema, keep_connections)
        self._insert = insert_on(engine.dialect)
        self._prepared = False
        self._file: tuple[int, int] | None = None  # in which it was prepared
        self._refused = 0  # statements, before the tables were looked at last
        self.known_resets: KnownResets = {}
        self._set_aside: deque[str] = deque(maxlen=MOST_SET_ASIDE)  # can't be settled
        self._preparing = Lock()
        self._rolled_up_until = 0

    def _now(self) -> int:
        return int(self._clock())

    def _with_resets(self, decision: Decision) -> Decision:
        """The same with when rolling limits open again: looked up once nobody waits for it."""
        if all(
            state.applied.limit.period.rolling is None or not state.exceeded
            for state in decision.states
        ):
            return decision
        try:
            return Decision(
                self.read(
                    lambda connection: with_resets(
                        connection, decision.states, self._now(), self.known_resets
                    ),
                    time.monotonic() + LOOK_UP_SECONDS,
                )
            )
        except (LedgerDataError, LedgerError) as error:
            # What was decided is decided: they open a period from now at the latest.
            log.debug("Usage limits: %s; when a limit opens again isn't known", error)
            return decision

    def read(
        self, work: Callable[[Connection], ReadResult], deadline: float | None = None
    ) -> ReadResult:
        """Read something else from the same database."""
        return self._transactions.read(work, deadline)

    def change(
        self,
        work: Callable[[Connection], ReadResult],
        scopes: Collection[str],
        deadline: float | None = None,
    ) -> ReadResult:
        """Run `work` in a transaction, during which no reply of these scopes is settled."""
        self.prepare(deadline)
        return self._transactions.run(work, scopes, deadline=deadline)

    def write_names(self, names: Collection[RememberedName]) -> None:
        """Remember whom names in the policies mean."""
        self._transactions.run(
            lambda connection: remember(connection, names, self._now()),
            deadline=time.monotonic() + REMEMBER_SECONDS,
        )

    def crowd_error(self) -> LedgerError:
        """The error of a request for which too many wait before it."""
        return self._transactions.no_turn("no place in the queue", time.monotonic())

    def rest(self) -> None:
        """Give the connections back that aren't in use."""
        self._transactions.rest()

    def prepare(self, deadline: float | None = None) -> None:
        """Make or update the tables; costs next to nothing after the first time.

        Also where SQLite's file was replaced, or a statement was refused: by a ledger that lacks
        a table, perhaps.
        """
        transactions = self._transactions
        found = transactions.find_file(), transactions.refused
        if self._prepared and found == (self._file, self._refused):
            return
        if deadline is None:
            deadline = new_deadline()  # with the time that others take before it
        with self._preparing:
            file, refused = transactions.find_file(), transactions.refused
            if self._prepared and self._file != file:
                log.error("Usage limits: the ledger's file was replaced: what it had is gone")
                transactions.reconnect()
            if not self._prepared or (self._file, self._refused) != (file, refused):
                made = transactions.run(self._migrate, exclusive=("migrations",), deadline=deadline)
                if made:
                    log.info("Usage limits: made or updated the ledger's tables")
                self._file, self._refused = transactions.find_file(), refused
                self._prepared = True

    def _migrate(self, connection: Connection) -> int:
        made = migrate_ledger(connection, self._now())
        _, self._rolled_up_until = find_rolled_up(connection) or (0, 0)
        return made

    def reserve(
        self,
        reservation: Reservation,
        estimate: Callable[[Decision], Charge],
        limits: Sequence[AppliedLimit],
        *,
        enforce: bool = True,
        soft_limit_percent: int = 100,
        announce: bool = False,
        may_exist: bool = False,
        deadline: float | None = None,
    ) -> Admission:
        """Decide about a request and, if it is admitted, reserve for it.

        Args:
            reservation: The reply to admit.
            estimate: What to hold for it, given where its limits stand.
            limits: The limits that count for it; none for a free model.
            enforce: Whether a hard limit refuses; if not, the reservation is always made.
            soft_limit_percent: From where a limit without thresholds of its own warns.
            announce: Whether the user can be told; else no warning is marked as given.
            may_exist: Whether an earlier try may have been written after all.
            deadline: Until when it may take.
        """
        self.prepare(deadline)

        tries = 0

        def work(connection: Connection) -> Admission:
            nonlocal tries
            tries += 1
            decision = Decision(
                read_limit_states(connection, limits, reservation.created_at, reservation.id)
            )
            if enforce and not decision.allowed:
                return Admission(decision)
            warnings = tuple(
                state
                for state in decision.states
                if announce
                and not state.exceeded
                and self._is_first_crossing(
                    connection, reservation, state, soft_limit_percent, "user"
                )
            )
            charge = estimate(decision)
            insert_record(connection, reservation, charge, may_exist or tries > 1, self._worker)
            if reservation.created_at < self._rolled_up_until:  # by a clock that is behind
                drop_rollups(connection, since=reservation.created_at)
            return Admission(decision, warnings)

        scopes = limit_scopes(reservation.subject, limits)
        # Its settlement makes up for a reservation that a crash of PostgreSQL has lost.
        admission = self._transactions.run(work, scopes, lasting=False, deadline=deadline)
        return replace(admission, decision=self._with_resets(admission.decision))

    def settle(
        self,
        reservation: Reservation,
        charge: Charge | None,
        limits: Sequence[AppliedLimit],
        *,
        decide: bool = True,
        alert_percent: int | None = None,
        reason: str = "",
        deadline: float | None = None,
    ) -> Settlement:
        """Close a reservation with what it cost, or release it where `charge` is None.

        Idempotent: only the first call changes anything, except that what a sweep has closed by
        an estimate is put right.

        Args:
            reservation: The reply that has ended.
            charge: Its cost.
            limits: The limits that count for it.
            decide: Whether anyone wants to know where they stand now.
            alert_percent: From where a limit without thresholds of its own is crossed, if the
                administrator is to be told; None if not.
            reason: Why it is released, or settled before its end.
            deadline: Until when it may take.
        """
        self.prepare(deadline)

        def work(connection: Connection) -> Settlement:
            now = self._now()
            asked, key = limits if decide else (), key_of_reservation(reservation)
            closed, snapshot = settle_record(connection, key, charge, asked, now, reason)
            states = read_limit_states(connection, asked, now, reservation.id, snapshot)
            crossed = tuple(
                state
                for state in states
                if alert_percent is not None
                and self._is_first_crossing(connection, reservation, state, alert_percent, "alert")
            )
            return Settlement(Decision(states), closed, crossed)

        scopes = limit_scopes(reservation.subject, limits)
        settlement = self._transactions.run(
            work, scopes, (NEW_POOL_COUNTER_LOCK,), deadline=deadline
        )
        decision = self._with_resets(settlement.decision)
        crossed = Decision(settlement.crossed).with_states(decision.states).states
        return replace(settlement, decision=decision, crossed=crossed)

    def grow(
        self,
        reservation: Reservation,
        hold: Callable[[Decision], Charge],
        limits: Sequence[AppliedLimit],
        deadline: float | None = None,
    ) -> Decision:
        """Hold something else for a running reply from now on; nothing if it has ended.

        Args:
            reservation: The reply.
            hold: What to hold for it, given where its limits stand without it. It may be asked
                twice.
            limits: The limits that count for it.
            deadline: Until when it may take.

        Returns:
            Where its limits stand without it.
        """
        self.prepare(deadline)

        def work(connection: Connection) -> Decision:
            now = self._now()
            decision = Decision(read_limit_states(connection, limits, now, reservation.id))
            renew_record(connection, reservation.id, hold(decision), now)
            return decision

        scopes = limit_scopes(reservation.subject, limits)
        decision = self._transactions.run(work, scopes, lasting=False, deadline=deadline)
        return self._with_resets(decision)

    def beat(self) -> None:
        """Let the others see that this worker lives."""
        self.prepare()
        alive = self._insert(workers_table).values(id=self._worker, beats=1, seen_at=self._now())
        upsert = alive.on_conflict_do_update(
            index_elements=[workers_table.c.id],
            set_={"beats": workers_table.c.beats + 1, "seen_at": alive.excluded.seen_at},
        )

        def work(connection: Connection) -> None:
            connection.execute(upsert)
            # Another may have rolled up meanwhile what by this clock is still to come.
            _, self._rolled_up_until = find_rolled_up(connection) or (0, 0)
            if self._now() < self._rolled_up_until:
                drop_rollups(connection, since=self._now() - DAY_SECONDS)

        self._transactions.run(work, lasting=False)

    def leave(self) -> None:
        """Take back that this worker lives; it holds nothing any more."""
        if not self._prepared:
            return
        gone = workers_table.delete().where(workers_table.c.id == self._worker)
        self._transactions.run(lambda connection: connection.execute(gone), lasting=False)

    def other_workers(self) -> dict[str, int | None]:
        """Who else holds reservations, and how often each was seen to live; None for never."""
        self.prepare()
        held = (
            select(records_table.c.worker, workers_table.c.beats)
            .outerjoin(workers_table, workers_table.c.id == records_table.c.worker)
            .where(IS_OPEN, records_table.c.worker.not_in(("", self._worker)))
            .distinct()
        )
        return self.read(lambda connection: {row[0]: row[1] for row in connection.execute(held)})

    def renew(self, charges: Mapping[str, Charge], deadline: float | None = None) -> None:
        """Push the leases of running replies ahead and note what they have used so far."""

        def work(connection: Connection) -> None:
            for key, charge in sorted(charges.items()):
                renew_record(connection, key, charge, self._now())

        self._transactions.run(work, deadline=deadline)

    def sweep(self, gone: Collection[str] | None = None) -> int:
        """Settle what stopped workers left, as it was noted last.

        Args:
            gone: The workers that don't live any more. Others than these, ourselves and those of
                the first release are left alone. None for everyone whose leases have run out.

        Returns:
            How many were settled. One that can't be is set aside, and blocks nobody.
        """
        self.prepare()
        lapsed: ColumnElement[bool] = records_table.c.lease_until < self._now()
        if gone is not None:
            nobody_else = records_table.c.worker.in_(("", self._worker))
            lapsed = or_(and_(lapsed, nobody_else), records_table.c.worker.in_(list(gone)))
        orphans = select(records_table).where(
            IS_OPEN, lapsed, records_table.c.id.not_in(self._set_aside)
        )
        settled = 0
        for row in self.read(lambda one: one.execute(orphans.limit(SWEEP_BATCH)).all()):
            try:
                settled += self._settle_orphan(row)
            except LedgerError:
                raise
            except Exception:
                log.exception("Usage limits: record %s of a stopped worker is set aside", row.id)
                self._set_aside.append(str(row.id))
        if settled:
            log.warning("Usage limits: settled %d replies that a stopped server left", settled)
        return settled

    def _settle_orphan(self, row: Row[Any]) -> bool:
        key, charge = key_of_row(row), charge_of_row(row)
        settle_orphan = partial(
            settle_record, key=key, charge=charge, limits=(), now=self._now(), reason=WORKER_GONE
        )
        closed, _ = self._transactions.run(settle_orphan, key.scopes, (NEW_POOL_COUNTER_LOCK,))
        return closed

    def find_oldest_kept(self, seconds: int) -> int | None:
        """From when on records are kept; None where the clock can't be believed."""
        self.prepare()
        now = self._now()
        before = now - min(TRUSTED_AFTER_SECONDS, seconds)
        recent = select(records_table.c.id).where(
            records_table.c.created_at >= before - LONGEST_GAP_SECONDS,
            records_table.c.created_at < before,
        )
        rolling = select(counters_table.c.id).where(counters_table.c.id.contains(ROLLING_MARK))

        def find(connection: Connection) -> int | None:
            if connection.execute(recent.limit(1)).first() is None:
                return None
            # A rolling sum is made of what leaves it: a window's records stay a window longer.
            periods = [rolling_seconds(key) for key in connection.scalars(rolling)]
            return now - max(seconds, 2 * max(periods, default=0))

        return self.read(find)

    def drop_some(self, oldest: int) -> int:
        """Drop a few of what is older, so that nobody waits; returns how many records.

        The counters of open windows keep their sums.
        """
        some = (
            select(records_table.c.id)
            .where(records_table.c.created_at < oldest, ~IS_OPEN)
            .limit(DROP_BATCH)
        )

        def drop(connection: Connection) -> int:
            old = records_table.c.id.in_(some.scalar_subquery())
            dropped = connection.execute(records_table.delete().where(old)).rowcount
            drop_rollups(connection, until=oldest)
            if dropped < DROP_BATCH:
                for column in (
                    counters_table.c.window_end,
                    notices_table.c.expires_at,
                    grants_table.c.expires_at,
                    workers_table.c.seen_at,
                ):
                    connection.execute(column.table.delete().where(column < oldest))
            return dropped

        return self._transactions.run(drop)

    def roll_up(self) -> bool:
        """Roll up a block of records that is over, for reports; whether there was one."""
        self.prepare()

        def work(connection: Connection) -> bool:
            rolled_up = roll_up_next(connection, self._now())
            _, self._rolled_up_until = find_rolled_up(connection) or (0, 0)
            return rolled_up

        return self._transactions.run(work)

    def _is_first_crossing(
        self,
        connection: Connection,
        reservation: Reservation,
        state: LimitState,
        soft_limit_percent: int,
        audience: str,
    ) -> bool:
        """Whether a limit is crossed of which `audience` was not yet told in this window."""
        if state.applied.limit.is_moment:
            return False  # nobody is short of anything
        percent = 100 if state.exceeded else state.crossed_threshold(soft_limit_percent)
        if percent is None:
            return False
        applied, user_id = state.applied, reservation.subject.user_id
        # Each user is warned, the administrator is told once of a pool.
        told = audience if audience == "alert" and applied.is_pool else f"{audience} {user_id}"
        notice = self._insert(notices_table).values(
            id=f"{told} {applied.scope} {applied.limit} at {percent}%",
            expires_at=int(state.reset_at.timestamp()),
        )
        marked = connection.execute(
            notice.on_conflict_do_update(
                index_elements=[notices_table.c.id],
                set_={"expires_at": notice.excluded.expires_at},
                where=notices_table.c.expires_at <= reservation.created_at,
            ).returning(notices_table.c.id)
        )
        return marked.first() is not None

# ================================== helpers/openwebui/wording.py ==================================
# Wording: what one language has to say, and the rules that tell its plural forms apart.

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

# =============================== helpers/openwebui/languages/en.py ================================
ENGLISH = read_language("""
tag: en · name: English · less_than: less than {amount}
units: token|tokens, input token|input tokens, output token|output tokens, request|requests,
  response|responses
moments: per request, at once
sources: in saved chats, in temporary chats, in channels, in automations, via the API, for tasks
periods: per minute, per hour, per day, per week, per month, per quarter, per year
rolling: per {n} {unit} · rolling_units: second|seconds, minute|minutes, hour|hours, day|days
months: January February March April May June July August September October November December
at: at {time} · tomorrow: tomorrow at {time} · on_date: on {date} at {time}
owner: your limit|the shared limit · on: _on {model}
reached: you've reached {owner} of {what}{named}.
held: running responses hold the rest of {owner} of {what}{named}. Please try again when they are
  done. · stopped: stopped at {owner} of {what}{named}.
no_model: You can't use {model} here{named}. · no_models: You can't use any models here{named}.
no_paid: You can't use models that cost money here{named}.
per_request: This request is too long: at most {quantity} per request{on}{named}.
at_once: You already have {quantity} running. Please try again when one is done.
resets: It resets {at}{within}. · opens: You can continue {at}{within}. · within: , in {within}
warning: {percent} of {owner} of {what}{named} used; {left}{until}. · left: {n} left
label: Usage|Shared usage · reached_label: Limit reached|Shared limit reached
status: {label}: {used} of {what} · status_reset: , resets {at}
cap: This response can have at most {quantity}.
ledger_error: Usage can't be recorded at the moment, so no requests are accepted. Please try again
  later.
show_usage: Show usage|Your usage above each response.|near a limit|always|never
page: Usage limits|Limit|Used|Reserved|Left|Resets|Reached|Shared|No limits apply to you.|
  Your use is recorded, but never refused.|Use by day|Day|This month by model|Model|Requests|
  Input tokens|Output tokens|Tokens|Cost|Total|Responses this month|Time|estimated|running|Granted|
  Amount|Reason|Valid until|Nothing yet.|Show all|Refresh|Back to the chat|
  Please sign in to Open WebUI first.|This can’t be shown right now. Please try again later.|
  Today by model
""")

# =============================== helpers/openwebui/languages/de.py ================================
GERMAN = read_language("""
tag: de · name: Deutsch · thousands: . · decimal: , · money: {amount}\u00a0$
less_than: weniger als {amount} · percent: {n}\u00a0%
units: Token, Eingabe-Token, Ausgabe-Token, Anfrage|Anfragen, Antwort|Antworten
moments: pro Anfrage, gleichzeitig
sources: in gespeicherten Chats, in temporären Chats, in Kanälen, in Automatisierungen, über die
  API, für Aufgaben
periods: pro Minute, pro Stunde, pro Tag, pro Woche, pro Monat, pro Quartal, pro Jahr
rolling: innerhalb von {n} {unit}
rolling_units: Sekunde|Sekunden, Minute|Minuten, Stunde|Stunden, Tag|Tagen
durations: Tg. Std. Min. Sek. · clock: {clock} Uhr · date: {day}. {month}
months: Januar Februar März April Mai Juni Juli August September Oktober November Dezember
at: um {time} · tomorrow: morgen um {time} · on_date: am {date} um {time}
owner: Ihr Limit|das gemeinsame Limit · on: _für {model}
reached: {owner} von {what}{named} ist erreicht.
held: {owner} von {what}{named} ist für laufende Antworten vorgemerkt. Bitte gleich erneut
  versuchen. · stopped: beendet, denn {owner} von {what}{named} ist erreicht.
no_model: Sie können {model} hier nicht verwenden{named}.
no_models: Sie können hier keine Modelle verwenden{named}.
no_paid: Sie können hier keine kostenpflichtigen Modelle verwenden{named}.
per_request: Diese Anfrage ist zu lang: höchstens {quantity} pro Anfrage{on}{named}.
at_once: Es läuft bereits {quantity}. Bitte versuchen Sie es nach deren Ende erneut.|Es laufen
  bereits {quantity}. Bitte versuchen Sie es erneut, wenn eine beendet ist.
resets: Wieder verfügbar {at}{within}. · opens: Weiter {at}{within}. · within: , in {within}
warning: {owner} von {what}{named} ist zu {percent} verbraucht; noch {left}{until}.
label: Nutzung|Gemeinsame Nutzung · reached_label: Limit erreicht|Gemeinsames Limit erreicht
status: {label}: {used} von {what} · status_reset: , neu {at}
cap: Diese Antwort kann höchstens {quantity} lang sein.
ledger_error: Die Nutzung kann gerade nicht erfasst werden, deshalb werden keine Anfragen
  angenommen. Bitte versuchen Sie es später erneut.
show_usage: Nutzung anzeigen|Ihre Nutzung über jeder Antwort.|kurz vor einem Limit|immer|nie
page: Nutzungslimits|Limit|Verbraucht|Vorgemerkt|Übrig|Neu ab|Erreicht|Gemeinsam|
  Für Sie gelten keine Limits.|Ihre Nutzung wird erfasst, aber nie abgelehnt.|Nutzung nach Tagen|
  Tag|Dieser Monat nach Modell|Modell|Anfragen|Eingabe-Token|Ausgabe-Token|Token|Kosten|Summe|
  Antworten dieses Monats|Zeit|geschätzt|läuft|Zusätzlich gewährt|Menge|Grund|Gültig bis|
  Noch nichts.|Alle zeigen|Aktualisieren|Zurück zum Chat|
  Bitte melden Sie sich zuerst bei Open WebUI an.|
  Das kann gerade nicht angezeigt werden. Bitte versuchen Sie es später erneut.|
  Heute nach Modell
""")

# =============================== helpers/openwebui/languages/fr.py ================================
FRENCH = read_language("""
tag: fr · name: français · plural: below two or other · thousands: \u202f · decimal: ,
money: {amount}\u00a0$ · less_than: moins de {amount} · percent: {n}\u202f%
units: token|tokens, token d’entrée|tokens d’entrée, token de sortie|tokens de sortie,
  requête|requêtes, réponse|réponses
moments: par requête, à la fois
sources: dans les discussions enregistrées, dans les discussions temporaires, dans les canaux,
  dans les automatisations, via l’API, pour les tâches
periods: par minute, par heure, par jour, par semaine, par mois, par trimestre, par an
rolling: sur {n} {unit}
rolling_units: seconde glissante|secondes glissantes, minute glissante|minutes glissantes, heure
  glissante|heures glissantes, jour glissant|jours glissants · durations: j h min s · first_day: 1er
months: janvier février mars avril mai juin juillet août septembre octobre novembre décembre
at: à {time} · tomorrow: demain à {time} · on_date: le {date} à {time}
owner: votre limite|la limite commune · on: _avec {model}
reached: {owner} de {what}{named} est atteinte.
held: {owner} de {what}{named} est occupée par des réponses en cours. Veuillez réessayer ensuite.
stopped: arrêt\u00a0: {owner} de {what}{named} est atteinte.
no_model: Vous ne pouvez pas utiliser {model} ici{named}.
no_models: Vous ne pouvez utiliser aucun modèle ici{named}.
no_paid: Vous ne pouvez pas utiliser de modèles payants ici{named}.
per_request: Cette requête est trop longue\u00a0: au plus {quantity} par requête{on}{named}.
at_once: Vous avez déjà {quantity} en cours. Veuillez réessayer quand l’une sera terminée.
resets: Remise à zéro {at}{within}. · opens: Reprise {at}{within}. · within: , dans {within}
warning: {owner} de {what}{named} est utilisée à {percent}\u202f; {left}{until}. · left: reste {n}
label: Utilisation|Utilisation commune · reached_label: Limite atteinte|Limite commune atteinte
status: {label}\u00a0: {used} sur {what} · status_reset: , remise à zéro {at}
cap: Cette réponse peut compter au plus {quantity}.
ledger_error: L’utilisation ne peut pas être enregistrée pour le moment\u00a0: aucune requête n’est
  acceptée. Veuillez réessayer plus tard.
show_usage: Afficher l’utilisation|Votre utilisation au-dessus de chaque réponse.|
  à l’approche d’une limite|toujours|jamais
page: Limites d’utilisation|Limite|Utilisé|Réservé|Restant|Réinitialisation|Atteinte|Commune|
  Aucune limite ne s’applique à vous.|Votre utilisation est enregistrée, mais jamais refusée.|
  Utilisation par jour|Jour|Ce mois-ci par modèle|Modèle|Requêtes|Tokens d’entrée|Tokens de sortie|
  Tokens|Coût|Total|Réponses de ce mois|Heure|estimé|en cours|Accordé en plus|Quantité|Motif|
  Valable jusqu’au|Rien pour l’instant.|Tout afficher|Actualiser|Retour à la discussion|
  Veuillez d’abord vous connecter à Open WebUI.|
  Affichage impossible pour le moment. Veuillez réessayer plus tard.|Aujourd’hui par modèle
""")

# ============================== helpers/openwebui/languages/fr_ca.py ==============================
CANADIAN_FRENCH = read_language(
    """
tag: fr-CA · name: français (Canada) · percent: {n}\u00a0%
units: jeton|jetons, jeton d’entrée|jetons d’entrée, jeton de sortie|jetons de sortie,
  requête|requêtes, réponse|réponses
warning: {owner} de {what}{named} est utilisée à {percent}; {left}{until}.
page: Limites d’utilisation|Limite|Utilisé|Réservé|Restant|Réinitialisation|Atteinte|Commune|
  Aucune limite ne s’applique à vous.|Votre utilisation est enregistrée, mais jamais refusée.|
  Utilisation par jour|Jour|Ce mois-ci par modèle|Modèle|Requêtes|Jetons d’entrée|Jetons de sortie|
  Jetons|Coût|Total|Réponses de ce mois|Heure|estimé|en cours|Accordé en plus|Quantité|Motif|
  Valable jusqu’au|Rien pour l’instant.|Tout afficher|Actualiser|Retour à la discussion|
  Veuillez d’abord vous connecter à Open WebUI.|
  Affichage impossible pour le moment. Veuillez réessayer plus tard.|Aujourd’hui par modèle
""",
    FRENCH,
)

# =============================== helpers/openwebui/languages/es.py ================================
SPANISH = read_language("""
tag: es · name: español · thousands: \u202f · decimal: , · grouped_from: 10000
money: {amount}\u00a0USD · less_than: menos de {amount} · percent: {n}\u00a0%
units: token|tokens, token de entrada|tokens de entrada, token de salida|tokens de salida,
  solicitud|solicitudes, respuesta|respuestas
moments: por solicitud, a la vez
sources: en chats guardados, en chats temporales, en canales, en automatizaciones, por la API,
  para tareas
periods: por minuto, por hora, por día, por semana, por mes, por trimestre, por año
rolling: por cada {n} {unit} · rolling_units: segundo|segundos, minuto|minutos, hora|horas, día|días
date: {day} de {month}
months: enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre
at: a las {time} · tomorrow: mañana a las {time} · on_date: el {date} a las {time}
hour_one: a las_|a la_ · owner: tu límite|el límite compartido · on: _con {model}
reached: has alcanzado {owner} de {what}{named}.
held: las respuestas en curso ocupan el resto; {owner} es de {what}{named}. Inténtalo de nuevo
  después. · stopped: detenida por {owner} de {what}{named}.
no_model: No puedes usar {model} aquí{named}. · no_models: No puedes usar ningún modelo aquí{named}.
no_paid: No puedes usar modelos de pago aquí{named}.
per_request: Esta solicitud es demasiado larga: máximo {quantity} por solicitud{on}{named}.
at_once: Ya tienes {quantity} en curso. Inténtalo de nuevo cuando termine una.
resets: Se restablece {at}{within}. · opens: Podrás seguir {at}{within}. · within: , en {within}
warning: {owner} de {what}{named} está al {percent}; {left}{until}. · left: queda {n}|quedan {n}
label: Uso|Uso compartido · reached_label: Límite alcanzado|Límite compartido alcanzado
status: {label}: {used} de {what} · status_reset: , se restablece {at}
cap: Esta respuesta puede tener como máximo {quantity}.
ledger_error: El uso no se puede registrar en este momento, por lo que no se aceptan solicitudes.
  Inténtalo de nuevo más tarde.
show_usage: Mostrar uso|Tu uso encima de cada respuesta.|cerca de un límite|siempre|nunca
page: Límites de uso|Límite|Usado|Reservado|Queda|Se restablece|Alcanzado|Compartido|
  No se te aplica ningún límite.|Tu uso se registra, pero nunca se rechaza.|Uso por día|Día|
  Este mes por modelo|Modelo|Solicitudes|Tokens de entrada|Tokens de salida|Tokens|Coste|Total|
  Respuestas de este mes|Hora|estimado|en curso|Concedido|Cantidad|Motivo|Válido hasta|
  Nada todavía.|Mostrar todo|Actualizar|Volver al chat|Inicia sesión primero en Open WebUI.|
  No se puede mostrar en este momento. Inténtalo de nuevo más tarde.|Hoy por modelo
""")

# =============================== helpers/openwebui/languages/it.py ================================
ITALIAN = read_language("""
tag: it · name: italiano · thousands: . · decimal: , · money: {amount}\u00a0$
less_than: meno di {amount}
units: token, token di input, token di output, richiesta|richieste, risposta|risposte
moments: per richiesta, alla volta
sources: nelle chat salvate, nelle chat temporanee, nei canali, nelle automazioni, tramite l’API,
  per le attività
periods: al minuto, all’ora, al giorno, a settimana, al mese, a trimestre, all’anno
rolling: ogni {n} {unit} · rolling_units: secondo|secondi, minuto|minuti, ora|ore, giorno|giorni
durations: g h min s · first_day: 1º
months: gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre
  dicembre · at: alle {time} · tomorrow: domani alle {time} · on_date: il {date} alle {time}
hour_one: alle_|all’ · owner: il tuo limite|il limite condiviso · on: _con {model}
reached: hai raggiunto {owner} di {what}{named}.
held: le risposte in corso occupano il resto; {owner} è di {what}{named}. Riprova quando saranno
  terminate. · stopped: interrotta: raggiunto {owner} di {what}{named}.
no_model: Qui non puoi usare {model}{named}. · no_models: Qui non puoi usare alcun modello{named}.
no_paid: Qui non puoi usare modelli a pagamento{named}.
per_request: Questa richiesta è troppo lunga: al massimo {quantity} per richiesta{on}{named}.
at_once: Hai già {quantity} in corso. Riprova quando una sarà terminata.
resets: Si rinnova {at}{within}. · opens: Puoi continuare {at}{within}. · within: , tra {within}
warning: {owner} di {what}{named} è usato al {percent}; {left}{until}. · left: resta {n}|restano {n}
label: Utilizzo|Utilizzo condiviso · reached_label: Limite raggiunto|Limite condiviso raggiunto
status: {label}: {used} su {what} · status_reset: , si rinnova {at}
cap: Questa risposta può avere al massimo {quantity}.
ledger_error: Al momento l’utilizzo non può essere registrato, quindi non si accettano richieste.
  Riprova più tardi.
show_usage: Mostra utilizzo|Il tuo utilizzo sopra ogni risposta.|vicino a un limite|sempre|mai
page: Limiti di utilizzo|Limite|Usato|Riservato|Rimasto|Si azzera|Raggiunto|Condiviso|
  Per te non vale alcun limite.|Il tuo utilizzo è registrato, ma mai rifiutato.|Utilizzo per giorno|
  Giorno|Questo mese per modello|Modello|Richieste|Token di input|Token di output|Token|Costo|
  Totale|Risposte di questo mese|Ora|stimato|in corso|Concesso|Quantità|Motivo|Valido fino a|
  Ancora niente.|Mostra tutto|Aggiorna|Torna alla chat|Accedi prima a Open WebUI.|
  Al momento non è possibile mostrarlo. Riprova più tardi.|Oggi per modello
""")

# ============================== helpers/openwebui/languages/pt_br.py ==============================
BRAZILIAN_PORTUGUESE = read_language("""
tag: pt-BR · name: português (Brasil) · plural: below two or other · thousands: . · decimal: ,
money: US$\u00a0{amount} · less_than: menos de {amount}
units: token|tokens, token de entrada|tokens de entrada, token de saída|tokens de saída,
  solicitação|solicitações, resposta|respostas
moments: por solicitação, ao mesmo tempo
sources: em chats salvos, em chats temporários, em canais, em automações, pela API, para tarefas
periods: por minuto, por hora, por dia, por semana, por mês, por trimestre, por ano
rolling: a cada {n} {unit} · rolling_units: segundo|segundos, minuto|minutos, hora|horas, dia|dias
date: {day} de {month} · first_day: 1º
months: janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro
at: às {time} · tomorrow: amanhã às {time} · on_date: em {date} às {time} · hour_one: às_|à_
owner: seu limite|o limite compartilhado · on: _com {model}
reached: {owner} de {what}{named} foi atingido.
held: as respostas em andamento ocupam o restante; {owner} é de {what}{named}. Tente novamente
  depois. · stopped: interrompida: {owner} de {what}{named} foi atingido.
no_model: Você não pode usar {model} aqui{named}.
no_models: Você não pode usar nenhum modelo aqui{named}.
no_paid: Você não pode usar modelos pagos aqui{named}.
per_request: Esta solicitação é longa demais: no máximo {quantity} por solicitação{on}{named}.
at_once: Você já tem {quantity} em andamento. Tente novamente quando uma terminar.
resets: Será renovado {at}{within}. · opens: Continue {at}{within}. · within: , em {within}
warning: {owner} de {what}{named} está em {percent}; {left}{until}. · left: resta {n}|restam {n}
label: Uso|Uso compartilhado · reached_label: Limite atingido|Limite compartilhado atingido
status: {label}: {used} de {what} · status_reset: , renovação {at}
cap: Esta resposta pode ter no máximo {quantity}.
ledger_error: O uso não pode ser registrado no momento, por isso nenhuma solicitação é aceita. Tente
  novamente mais tarde.
show_usage: Mostrar uso|Seu uso acima de cada resposta.|perto de um limite|sempre|nunca
page: Limites de uso|Limite|Usado|Reservado|Restante|Renova|Atingido|Compartilhado|
  Nenhum limite se aplica a você.|Seu uso é registrado, mas nunca recusado.|Uso por dia|Dia|
  Este mês por modelo|Modelo|Solicitações|Tokens de entrada|Tokens de saída|Tokens|Custo|Total|
  Respostas deste mês|Hora|estimado|em andamento|Concedido|Quantidade|Motivo|Válido até|Nada ainda.|
  Mostrar tudo|Atualizar|Voltar ao chat|Entre primeiro no Open WebUI.|
  Não é possível mostrar isto agora. Tente novamente mais tarde.|Hoje por modelo
""")

# =============================== helpers/openwebui/languages/nl.py ================================
DUTCH = read_language("""
tag: nl · name: Nederlands · thousands: . · decimal: , · money: $\u00a0{amount}
less_than: minder dan {amount}
units: token|tokens, invoertoken|invoertokens, uitvoertoken|uitvoertokens, verzoek|verzoeken,
  antwoord|antwoorden
moments: per verzoek, tegelijk
sources: in bewaarde chats, in tijdelijke chats, in kanalen, in automatiseringen, via de API,
  voor taken
periods: per minuut, per uur, per dag, per week, per maand, per kwartaal, per jaar
rolling: per {n} {unit} · rolling_units: seconde|seconden, minuut|minuten, uur, dag|dagen
durations: d u min s
months: januari februari maart april mei juni juli augustus september oktober november december
at: om {time} · tomorrow: morgen om {time} · on_date: op {date} om {time}
owner: je limiet|de gedeelde limiet · on: _met {model}
reached: {owner} van {what}{named} is bereikt.
held: lopende antwoorden bezetten de rest van {owner} van {what}{named}. Probeer het straks opnieuw.
stopped: gestopt, want {owner} van {what}{named} is bereikt.
no_model: Je kunt {model} hier niet gebruiken{named}.
no_models: Je kunt hier geen modellen gebruiken{named}.
no_paid: Je kunt hier geen betaalde modellen gebruiken{named}.
per_request: Dit verzoek is te lang: hoogstens {quantity} per verzoek{on}{named}.
at_once: Er loopt al {quantity}. Probeer het opnieuw als het klaar is.|Er lopen al {quantity}.
  Probeer het opnieuw als er een klaar is. · resets: Wordt vernieuwd {at}{within}.
opens: Je kunt verder {at}{within}. · within: , over {within}
warning: {owner} van {what}{named} is voor {percent} verbruikt; nog {left}{until}.
label: Gebruik|Gedeeld gebruik · reached_label: Limiet bereikt|Gedeelde limiet bereikt
status: {label}: {used} van {what} · status_reset: , vernieuwd {at}
cap: Dit antwoord mag hoogstens {quantity} lang zijn.
ledger_error: Het gebruik kan nu niet worden vastgelegd, dus er worden geen verzoeken aangenomen.
  Probeer het later opnieuw.
show_usage: Gebruik tonen|Je gebruik boven elk antwoord.|dicht bij een limiet|altijd|nooit
page: Gebruikslimieten|Limiet|Gebruikt|Gereserveerd|Over|Vernieuwt|Bereikt|Gedeeld|
  Voor jou gelden geen limieten.|Je gebruik wordt vastgelegd, maar nooit geweigerd.|Gebruik per dag|
  Dag|Deze maand per model|Model|Verzoeken|Invoertokens|Uitvoertokens|Tokens|Kosten|Totaal|
  Antwoorden van deze maand|Tijd|geschat|bezig|Extra toegekend|Hoeveelheid|Reden|Geldig tot|
  Nog niets.|Alles tonen|Vernieuwen|Terug naar de chat|Meld je eerst aan bij Open WebUI.|
  Dit kan nu niet worden getoond. Probeer het later opnieuw.|Vandaag per model
""")

# =============================== helpers/openwebui/languages/pl.py ================================
POLISH = read_language("""
tag: pl · name: polski · plural: Polish · thousands: \u00a0 · decimal: , · grouped_from: 10000
money: {amount}\u00a0USD · less_than: mniej niż {amount}
units: token|tokeny|tokenów, token wejściowy|tokeny wejściowe|tokenów wejściowych, token
  wyjściowy|tokeny wyjściowe|tokenów wyjściowych, żądanie|żądania|żądań, odpowiedź|odpowiedzi
moments: na żądanie, jednocześnie · via: _({source})
sources: w zapisanych czatach, w czatach tymczasowych, na kanałach, w automatyzacjach, przez API,
  dla zadań
periods: na minutę, na godzinę, dziennie, tygodniowo, miesięcznie, kwartalnie, rocznie
rolling: w ciągu {n} {unit} · rolling_units: sekundy|sekund, minuty|minut, godziny|godzin, dnia|dni
months: stycznia lutego marca kwietnia maja czerwca lipca sierpnia września października listopada
  grudnia · at: o {time} · tomorrow: jutro o {time} · on_date: {date} o {time}
owner: Twój limit|wspólny limit · on: _({model})
reached: {owner}{named} został wyczerpany: {what}.
held: resztę zajmują trwające odpowiedzi; {owner}{named}: {what}. Spróbuj ponownie po ich
  zakończeniu. · stopped: zatrzymano, bo {owner}{named} został wyczerpany: {what}.
no_model: Nie możesz tu używać modelu {model}{named}.
no_models: Nie możesz tu używać żadnych modeli{named}.
no_paid: Nie możesz tu używać płatnych modeli{named}.
per_request: To żądanie jest za długie, limit na żądanie: {quantity}{on}{named}.
at_once: Już trwa {quantity}. Spróbuj ponownie po zakończeniu.|Już trwają {quantity}. Spróbuj
  ponownie po zakończeniu jednej z nich.|Już trwa {quantity}. Spróbuj ponownie po zakończeniu jednej
  z nich. · resets: Odnowienie {at}{within}. · opens: Możesz kontynuować {at}{within}.
within: , za {within}
warning: {owner}{named} jest wykorzystany w {percent}: {what}, {left}{until}. · left: pozostało {n}
label: Użycie|Wspólne użycie · reached_label: Limit wyczerpany|Wspólny limit wyczerpany
status: {label}: {used} / {what} · status_reset: , odnowienie {at}
cap: Limit tej odpowiedzi: {quantity}.
ledger_error: Nie można teraz zapisać użycia, więc żądania nie są przyjmowane. Spróbuj ponownie
  później.
show_usage: Pokaż użycie|Twoje użycie nad każdą odpowiedzią.|blisko limitu|zawsze|nigdy
page: Limity użycia|Limit|Zużyto|Zarezerwowano|Pozostało|Odnowienie|Wyczerpany|Wspólny|
  Nie obowiązują Cię żadne limity.|Twoje użycie jest zapisywane, ale nigdy nie odrzucane.|
  Użycie według dni|Dzień|Ten miesiąc według modelu|Model|Żądania|Tokeny wejściowe|Tokeny wyjściowe|
  Tokeny|Koszt|Razem|Odpowiedzi z tego miesiąca|Czas|szacunkowo|w toku|Przyznano|Ilość|Powód|
  Ważne do|Jeszcze nic.|Pokaż wszystko|Odśwież|Powrót do czatu|Najpierw zaloguj się do Open WebUI.|
  Nie można teraz tego pokazać. Spróbuj ponownie później.|Dzisiaj według modelu
""")

# =============================== helpers/openwebui/languages/ru.py ================================
RUSSIAN = read_language("""
tag: ru · name: русский · plural: Slavic · thousands: \u00a0 · decimal: , · money: {amount}\u00a0$
less_than: менее {amount} · percent: {n}\u00a0%
units: токен|токена|токенов, входной токен|входных токена|входных токенов, выходной токен|выходных
  токена|выходных токенов, запрос|запроса|запросов, ответ|ответа|ответов
moments: на запрос, одновременно · via: _({source})
sources: в сохранённых чатах, во временных чатах, в каналах, в автоматизациях, через API, для
  задач
periods: в минуту, в час, в день, в неделю, в месяц, в квартал, в год · rolling: за любые {n} {unit}
rolling_units: секунду|секунды|секунд, минуту|минуты|минут, час|часа|часов, день|дня|дней
durations: д ч мин с
months: января февраля марта апреля мая июня июля августа сентября октября ноября декабря
at: в {time} · tomorrow: завтра в {time} · on_date: {date} в {time} · owner: ваш лимит|общий лимит
on: _({model}) · reached: {owner}{named} исчерпан: {what}.
held: остаток занят текущими ответами; {owner}{named}: {what}. Повторите попытку позже.
stopped: остановлено, {owner}{named} исчерпан: {what}.
no_model: Здесь нельзя использовать {model}{named}.
no_models: Здесь нельзя использовать модели{named}.
no_paid: Здесь нельзя использовать платные модели{named}.
per_request: Слишком длинный запрос, лимит на один запрос: {quantity}{on}{named}.
at_once: Уже генерируется {quantity}. Повторите попытку, когда он завершится.|Уже генерируются
  {quantity}. Повторите попытку, когда один из них завершится.|Уже генерируется {quantity}.
  Повторите попытку, когда один из них завершится. · resets: Обновится {at}{within}.
opens: Можно продолжить {at}{within}. · within: , через {within}
warning: {owner}{named} использован на {percent}: {what}, осталось {left}{until}.
label: Использование|Общее использование · reached_label: Лимит исчерпан|Общий лимит исчерпан
status: {label}: {used} / {what} · status_reset: , обновится {at}
cap: Лимит этого ответа: {quantity}.
ledger_error: Сейчас использование не записывается, поэтому запросы не принимаются. Повторите
  попытку позже.
show_usage: Показывать использование|Ваше использование над каждым ответом.|вблизи
  лимита|всегда|никогда
page: Лимиты использования|Лимит|Использовано|Зарезервировано|Осталось|Обновление|Исчерпан|Общий|
  Для вас нет лимитов.|Ваше использование записывается, но никогда не отклоняется.|
  Использование по дням|День|Этот месяц по моделям|Модель|Запросы|Входные токены|Выходные токены|
  Токены|Стоимость|Итого|Ответы за этот месяц|Время|оценка|выполняется|Добавлено|Количество|Причина|
  Действует до|Пока ничего.|Показать все|Обновить|Вернуться в чат|Сначала войдите в Open WebUI.|
  Сейчас это нельзя показать. Повторите попытку позже.|Сегодня по моделям
""")

# =============================== helpers/openwebui/languages/uk.py ================================
UKRAINIAN = read_language("""
tag: uk · name: українська · plural: Slavic · thousands: \u00a0 · decimal: ,
money: {amount}\u00a0$ · less_than: менше ніж {amount}
units: токен|токени|токенів, вхідний токен|вхідні токени|вхідних токенів, вихідний токен|вихідні
  токени|вихідних токенів, запит|запити|запитів, відповідь|відповіді|відповідей
moments: на запит, одночасно · via: _({source})
sources: у збережених чатах, у тимчасових чатах, у каналах, в автоматизаціях, через API, для
  завдань
periods: на хвилину, на годину, на день, на тиждень, на місяць, на квартал, на рік
rolling: за будь-які {n} {unit}
rolling_units: секунду|секунди|секунд, хвилину|хвилини|хвилин, годину|години|годин, день|дні|днів
durations: д год хв с
months: січня лютого березня квітня травня червня липня серпня вересня жовтня листопада грудня
at: о {time} · tomorrow: завтра о {time} · on_date: {date} о {time}
owner: ваш ліміт|спільний ліміт · on: _({model}) · reached: {owner}{named} вичерпано: {what}.
held: решту зайняли поточні відповіді; {owner}{named}: {what}. Спробуйте ще раз пізніше.
stopped: зупинено, {owner}{named} вичерпано: {what}.
no_model: Тут не можна використовувати {model}{named}.
no_models: Тут не можна використовувати моделі{named}.
no_paid: Тут не можна використовувати платні моделі{named}.
per_request: Запит задовгий, ліміт на один запит: {quantity}{on}{named}.
at_once: Уже генерується {quantity}. Спробуйте ще раз, коли вона завершиться.|Уже генеруються
  {quantity}. Спробуйте ще раз, коли одна з них завершиться.|Уже генерується {quantity}. Спробуйте
  ще раз, коли одна з них завершиться. · resets: Оновиться {at}{within}.
opens: Можна продовжити {at}{within}. · within: , через {within}
warning: {owner}{named} використано на {percent}: {what}, залишилося {left}{until}.
label: Використання|Спільне використання · reached_label: Ліміт вичерпано|Спільний ліміт вичерпано
status: {label}: {used} / {what} · status_reset: , оновиться {at}
cap: Ліміт цієї відповіді: {quantity}.
ledger_error: Зараз використання не записується, тому запити не приймаються. Спробуйте ще раз
  пізніше.
show_usage: Показувати використання|Ваше використання над кожною відповіддю.|поблизу
  ліміту|завжди|ніколи
page: Ліміти використання|Ліміт|Використано|Зарезервовано|Залишилося|Оновлення|Вичерпано|Спільний|
  Для вас немає лімітів.|Ваше використання записується, але ніколи не відхиляється.|
  Використання за днями|День|Цей місяць за моделями|Модель|Запити|Вхідні токени|Вихідні токени|
  Токени|Вартість|Разом|Відповіді за цей місяць|Час|оцінка|виконується|Додано|Кількість|Причина|
  Діє до|Поки нічого.|Показати все|Оновити|Повернутися до чату|Спочатку увійдіть в Open WebUI.|
  Зараз це неможливо показати. Спробуйте пізніше.|Сьогодні за моделями
""")

# =============================== helpers/openwebui/languages/tr.py ================================
TURKISH = read_language("""
tag: tr · name: Türkçe · thousands: . · decimal: , · money: {amount}\u00a0$
less_than: {amount} altında · percent: %{n} · units: token, giriş tokeni, çıktı tokeni, istek, yanıt
moments: istek başına, aynı anda · via: _({source})
sources: kayıtlı sohbetlerde, geçici sohbetlerde, kanallarda, otomasyonlarda, API üzerinden,
  görevlerde
periods: dakika başına, saat başına, günlük, haftalık, aylık, üç aylık, yıllık
rolling: her {n} {unit} için · rolling_units: saniye, dakika, saat, gün · durations: g sa dk sn
months: Ocak Şubat Mart Nisan Mayıs Haziran Temmuz Ağustos Eylül Ekim Kasım Aralık · at: saat {time}
tomorrow: yarın saat {time} · on_date: {date} saat {time} · owner: sınırınız|ortak sınır
what: {period} {quantity}{on} · on: _({model}) · reached: {owner}{named} doldu: {what}.
held: {owner}{named}, kalanı süren yanıtlara ayrıldı: {what}. Yanıtlar bitince tekrar deneyin.
stopped: durduruldu, {owner}{named} doldu: {what}.
no_model: Bu modeli burada kullanamazsınız: {model}{named}.
no_models: Burada hiçbir modeli kullanamazsınız{named}.
no_paid: Burada ücretli modelleri kullanamazsınız{named}.
per_request: Bu istek çok uzun, istek başına sınır: {quantity}{on}{named}.
at_once: Zaten süren {quantity} var. Biri bitince tekrar deneyin. · resets: Yenilenme: {at}{within}.
opens: Devam: {at}{within}. · within: _({within} sonra)
warning: {owner}{named}, kullanılan {percent}: {what}, kalan {left}{until}.
label: Kullanım|Ortak kullanım · reached_label: Sınır doldu|Ortak sınır doldu
status: {label}: {used} / {what} · status_reset: , yenilenme {at}
cap: Bu yanıtın sınırı: {quantity}.
ledger_error: Kullanım şu anda kaydedilemediği için istek kabul edilmiyor. Lütfen daha sonra tekrar
  deneyin.
show_usage: Kullanımı göster|Her yanıtın üstünde kullanımınız.|sınıra yaklaşınca|her
  zaman|hiçbir zaman
page: Kullanım sınırları|Sınır|Kullanılan|Ayrılan|Kalan|Yenilenme|Doldu|Ortak|
  Sizin için bir sınır yok.|Kullanımınız kaydedilir, ancak hiçbir zaman reddedilmez.|
  Günlere göre kullanım|Gün|Bu ay, modele göre|Model|İstekler|Giriş tokenleri|Çıktı tokenleri|
  Tokenler|Maliyet|Toplam|Bu ayın yanıtları|Zaman|tahmini|sürüyor|Ek olarak verilen|Miktar|Neden|
  Geçerlilik sonu|Henüz bir şey yok.|Tümünü göster|Yenile|Sohbete dön|
  Lütfen önce Open WebUI’de oturum açın.|
  Bu şu anda gösterilemiyor. Lütfen daha sonra yeniden deneyin.|Modele göre bugün
""")

# ============================== helpers/openwebui/languages/zh_cn.py ==============================
CHINESE = read_language("""
tag: zh-CN · name: 简体中文 · plural: alike · less_than: 不到 {amount}
units: 个 Token, 个输入 Token, 个输出 Token, 次请求, 个回答
moments: 每次请求, 同时 · via: （{source}）
sources: 已保存的对话, 临时对话, 频道, 自动化, 通过 API, 后台任务
periods: 每分钟, 每小时, 每天, 每周, 每月, 每季度, 每年 · rolling: 任意 {n} {unit}内
rolling_units: 秒, 分钟, 小时, 天 · durations: 天 小时 分钟 秒 · date: {month}月{day}日
moment: {date} {time} · at: {time} · tomorrow: 明天 {time} · on_date: {date} {time}
owner: 您的限额|共享限额 · what: {period} {quantity}{on} · on: （{model}） · named: （{policy}）
reached: {owner}{named}已用完：{what}。
held: {owner}{named}的剩余部分已被正在生成的回答占用：{what}。请在其完成后重试。
stopped: 回答已停止：{owner}{named}已用完（{what}）。 · no_model: 此处不能使用 {model}{named}。
no_models: 此处不能使用任何模型{named}。 · no_paid: 此处不能使用付费模型{named}。
per_request: 请求过长：每次请求最多 {quantity}{on}{named}。
at_once: 您已有 {quantity}正在生成。请在其完成后重试。 · resets: 将于{at} 重置{within}。
opens: 可于{at} 继续{within}。 · within: （{within}后）
warning: {owner}{named}已使用 {percent}：{what}，剩余 {left}{until}。
label: 用量|共享用量 · reached_label: 已达限额|已达共享限额 · status: {label}：{what}，已用 {used}
share: （{percent}） · status_reset: ，{at} 重置 · cap: 此回答最多 {quantity}。
ledger_error: 目前无法记录用量，因此暂不接受请求。请稍后重试。
show_usage: 显示用量|在每个回答上方显示您的用量。|接近限额时|始终|从不
page: 用量限额|限额|已用|已占用|剩余|重置时间|已达限额|共享|您没有任何限额。|
  您的用量会被记录，但不会被拒绝。|每日用量|日期|本月各模型用量|模型|请求|输入 Token|输出 Token|
  Token|费用|合计|本月的回答|时间|估算|生成中|额外授予|数量|原因|有效期至|暂无。|显示全部|刷新|
  返回对话|请先登录 Open WebUI。|目前无法显示。请稍后重试。|今日按模型统计
""")

# ============================== helpers/openwebui/languages/zh_tw.py ==============================
TAIWANESE_CHINESE = read_language("""
tag: zh-TW · name: 繁體中文 · plural: alike · less_than: 不到 {amount}
units: 個 Token, 個輸入 Token, 個輸出 Token, 次請求, 個回應
moments: 每次請求, 同時 · via: （{source}）
sources: 已儲存的對話, 臨時對話, 頻道, 自動化, 透過 API, 背景任務
periods: 每分鐘, 每小時, 每天, 每週, 每月, 每季, 每年 · rolling: 任意 {n} {unit}內
rolling_units: 秒, 分鐘, 小時, 天 · durations: 天 小時 分鐘 秒 · date: {month}月{day}日
moment: {date} {time} · at: {time} · tomorrow: 明天 {time} · on_date: {date} {time}
owner: 您的限額|共用限額 · what: {period} {quantity}{on} · on: （{model}） · named: （{policy}）
reached: {owner}{named}已用完：{what}。
held: {owner}{named}的剩餘部分已被正在產生的回應占用：{what}。請在其完成後重試。
stopped: 回應已停止：{owner}{named}已用完（{what}）。 · no_model: 此處無法使用 {model}{named}。
no_models: 此處無法使用任何模型{named}。 · no_paid: 此處無法使用付費模型{named}。
per_request: 請求過長：每次請求最多 {quantity}{on}{named}。
at_once: 您已有 {quantity}正在產生。請在其完成後重試。 · resets: 將於{at} 重設{within}。
opens: 可於{at} 繼續使用{within}。 · within: （{within}後）
warning: {owner}{named}已使用 {percent}：{what}，剩餘 {left}{until}。
label: 用量|共用用量 · reached_label: 已達限額|已達共用限額 · status: {label}：{what}，已用 {used}
share: （{percent}） · status_reset: ，{at} 重設 · cap: 此回應最多 {quantity}。
ledger_error: 目前無法記錄用量，因此暫不接受請求。請稍後再試。
show_usage: 顯示用量|在每個回應上方顯示您的用量。|接近限額時|一律|永不
page: 用量限額|限額|已用|已占用|剩餘|重設時間|已達限額|共用|您沒有任何限額。|
  您的用量會被記錄，但不會被拒絕。|每日用量|日期|本月各模型用量|模型|請求|輸入 Token|輸出 Token|
  Token|費用|合計|本月的回應|時間|估算|產生中|額外授予|數量|原因|有效期限|尚無資料。|顯示全部|
  重新整理|返回對話|請先登入 Open WebUI。|目前無法顯示。請稍後再試。|今日依模型統計
""")

# =============================== helpers/openwebui/languages/ja.py ================================
JAPANESE = read_language("""
tag: ja · name: 日本語 · plural: alike · less_than: {amount} 未満
units: トークン, 入力トークン, 出力トークン, リクエスト, 件の応答
moments: 1リクエストあたり, 同時に · via: （{source}）
sources: 保存されたチャット, 一時チャット, チャンネル, オートメーション, API 経由, タスク
periods: 1分あたり, 1時間あたり, 1日あたり, 1週間あたり, 1か月あたり, 四半期あたり, 1年あたり
rolling: 直近{n}{unit}で · rolling_units: 秒間, 分間, 時間, 日間 · durations: 日 時間 分 秒
duration: {n}{unit} · date: {month}月{day}日 · moment: {date} {time} · at: {time}
tomorrow: 明日 {time} · on_date: {date} {time} · owner: あなたの上限|共有の上限
what: {period} {quantity}{on} · on: （{model}） · named: （{policy}）
reached: {owner}{named}に達しました：{what}。
held: {owner}{named}の残りは生成中の応答が使用しています：{what}。完了後に再試行してください。
stopped: {owner}{named}に達したため、応答を停止しました：{what}。
no_model: ここでは {model} を使用できません{named}。
no_models: ここではモデルを使用できません{named}。
no_paid: ここでは有料モデルを使用できません{named}。
per_request: リクエストが長すぎます：1件あたり最大 {quantity}{on}{named}。
at_once: すでに {quantity}を生成中です。完了後に再試行してください。
resets: {at} にリセットされます{within}。 · opens: {at} から続けられます{within}。
within: （{within}後）
warning: {owner}{named}の {percent} を使用しました：{what}、残り {left}{until}。
label: 使用量|共有の使用量 · reached_label: 上限に達しました|共有の上限に達しました
status: {label}：{used} / {what} · share: （{percent}） · status_reset: 、{at} にリセット
cap: この応答は最大 {quantity}です。
ledger_error:
  現在使用量を記録できないため、リクエストを受け付けていません。しばらくしてから再試行してください。
show_usage: 使用量を表示|各応答の上に使用量を表示します。|上限に近いとき|常に|表示しない
page: 使用量の上限|上限|使用済み|予約済み|残り|リセット|上限到達|共有|
  あなたに適用される上限はありません。|使用量は記録されますが、拒否されることはありません。|
  日別の使用量|日|今月のモデル別使用量|モデル|リクエスト|入力トークン|出力トークン|トークン|費用|
  合計|今月の応答|日時|推定|生成中|追加付与|量|理由|有効期限|まだありません。|すべて表示|更新|
  チャットに戻る|先に Open WebUI にログインしてください。|
  現在表示できません。しばらくしてから再試行してください。|今日のモデル別使用量
""")

# =============================== helpers/openwebui/languages/ko.py ================================
KOREAN = read_language("""
tag: ko · name: 한국어 · plural: alike · less_than: {amount} 미만 · counted: {unit} {amount}개
units: 토큰, 입력 토큰, 출력 토큰, 요청, 응답
moments: 요청당, 동시 · via: ({source})
sources: 저장된 채팅, 임시 채팅, 채널, 자동화, API 사용, 작업
periods: 분당, 시간당, 하루, 주당, 월간, 분기당, 연간 · rolling: 최근 {n}{unit}
rolling_units: 초, 분, 시간, 일 · durations: 일 시간 분 초 · duration: {n}{unit}
date: {month}월 {day}일 · moment: {date} {time} · at: {time} · tomorrow: 내일 {time}
on_date: {date} {time} · owner: 내 한도|공유 한도 · what: {period} {quantity}{on} · on: ({model})
named: ({policy}) · reached: {owner}{named}에 도달했습니다: {what}.
held: {owner}{named}의 나머지는 생성 중인 응답이 사용하고 있습니다: {what}. 응답이 끝난 후 다시
  시도하세요. · stopped: {owner}{named}에 도달하여 응답이 중지되었습니다: {what}.
no_model: 여기서는 다음 모델을 사용할 수 없습니다: {model}{named}.
no_models: 여기서는 모델을 사용할 수 없습니다{named}.
no_paid: 여기서는 유료 모델을 사용할 수 없습니다{named}.
per_request: 요청이 너무 깁니다: 요청당 최대 {quantity}{on}{named}.
at_once: 이미 {quantity}가 생성 중입니다. 응답이 끝난 후 다시 시도하세요.
resets: {at}에 초기화됩니다{within}. · opens: {at}부터 계속할 수 있습니다{within}.
within: ({within} 후) · warning: {owner}{named}의 {percent}를 사용했습니다: {what}, {left}{until}.
left: {n} 남음 · label: 사용량|공유 사용량 · reached_label: 한도 도달|공유 한도 도달
status: {label}: {used} / {what} · status_reset: , {at} 초기화
cap: 이 응답은 최대 {quantity}입니다.
ledger_error: 지금은 사용량을 기록할 수 없어 요청을 받지 않습니다. 나중에 다시 시도하세요.
show_usage: 사용량 표시|각 응답 위에 사용량을 표시합니다.|한도에 가까울 때|항상|표시 안 함
page: 사용량 한도|한도|사용|예약|남음|초기화|한도 도달|공유|적용되는 한도가 없습니다.|
  사용량은 기록되지만 거부되지 않습니다.|일별 사용량|날짜|이번 달 모델별 사용량|모델|요청|입력 토큰|
  출력 토큰|토큰|비용|합계|이번 달 응답|시간|추정|생성 중|추가 부여|양|사유|유효 기한|
  아직 없습니다.|모두 표시|새로 고침|채팅으로 돌아가기|먼저 Open WebUI에 로그인하세요.|
  지금은 표시할 수 없습니다. 나중에 다시 시도하세요.|오늘 모델별 사용량
""")

# =============================== helpers/openwebui/languages/ar.py ================================
ARABIC = read_language("""
tag: ar · name: العربية · plural: Arabic · right_to_left: yes · less_than: أقل من {amount}
counted: {amount} {unit}|{unit}|{unit}|{amount} {unit}
units: رمز|رمز واحد|رمزان|رموز|رمزًا|رمز, رمز إدخال|رمز إدخال واحد|رمزا إدخال|رموز إدخال|رمز إدخال,
  رمز إخراج|رمز إخراج واحد|رمزا إخراج|رموز إخراج|رمز إخراج, طلب|طلب واحد|طلبان|طلبات|طلبًا|طلب, رد|رد
  واحد|ردان|ردود|ردًا|رد
moments: لكل طلب, في آن واحد · via: _({source})
sources: في المحادثات المحفوظة, في المحادثات المؤقتة, في القنوات, في الأتمتة, عبر API, للمهام
periods: في الدقيقة, في الساعة, في اليوم, في الأسبوع, في الشهر, في ربع السنة, في السنة
rolling: خلال آخر {n} {unit}
rolling_units: ثانية|ثانية|ثانيتين|ثوانٍ|ثانية, دقيقة|دقيقة|دقيقتين|دقائق|دقيقة,
  ساعة|ساعة|ساعتين|ساعات|ساعة, يوم|يوم|يومين|أيام|يومًا|يوم · durations: ي س د ث
months: يناير فبراير مارس أبريل مايو يونيو يوليو أغسطس سبتمبر أكتوبر نوفمبر ديسمبر
moment: {date}، {time} · at: الساعة {time} · tomorrow: غدًا الساعة {time}
on_date: يوم {date} الساعة {time} · owner: حدّك|الحدّ المشترك · on: _({model})
reached: تم بلوغ {owner}{named}: {what}.
held: الردود الجارية تشغل ما تبقّى من {owner}{named}: {what}. حاول مرة أخرى بعد انتهائها.
stopped: توقّف الرد لبلوغ {owner}{named}: {what}. · no_model: لا يمكنك استخدام {model} هنا{named}.
no_models: لا يمكنك استخدام أي نموذج هنا{named}.
no_paid: لا يمكنك استخدام النماذج المدفوعة هنا{named}.
per_request: هذا الطلب طويل جدًا، والحدّ لكل طلب: {quantity}{on}{named}.
at_once: لديك ردود جارية بالفعل: {quantity}. حاول مرة أخرى بعد انتهاء أحدها.
resets: يُجدَّد {at}{within}. · opens: يمكنك المتابعة {at}{within}. · within: ، بعد {within}
warning: استُخدم {percent} من {owner}{named}: {what}، والمتبقي {left}{until}.
label: الاستخدام|الاستخدام المشترك · reached_label: تم بلوغ الحدّ|تم بلوغ الحدّ المشترك
status: {label}: {used} من {what} · status_reset: ، يُجدَّد {at}
cap: الحدّ الأقصى لهذا الرد: {quantity}.
ledger_error: يتعذّر تسجيل الاستخدام حاليًا، لذلك لا تُقبل أي طلبات. حاول مرة أخرى لاحقًا.
show_usage: عرض الاستخدام|استخدامك فوق كل رد.|عند الاقتراب من الحدّ|دائمًا|أبدًا
page: حدود الاستخدام|الحدّ|المستخدَم|المحجوز|المتبقّي|التجديد|بُلغ الحدّ|مشترك|لا تسري عليك أي حدود.|
  يُسجَّل استخدامك ولا يُرفض أبدًا.|الاستخدام حسب اليوم|اليوم|هذا الشهر حسب النموذج|النموذج|الطلبات|
  رموز الإدخال|رموز الإخراج|الرموز|التكلفة|المجموع|ردود هذا الشهر|الوقت|تقديري|قيد التنفيذ|الممنوح|
  الكمية|السبب|صالح حتى|لا شيء بعد.|عرض الكل|تحديث|العودة إلى المحادثة|
  يُرجى تسجيل الدخول إلى Open WebUI أولًا.|لا يمكن عرض هذا الآن. يُرجى المحاولة لاحقًا.|
  اليوم حسب النموذج
""")

# =============================== helpers/openwebui/languages/he.py ================================
HEBREW = read_language("""
tag: he · name: עברית · plural: Hebrew · right_to_left: yes · less_than: פחות מ-{amount}
units: אסימון|אסימונים, אסימון קלט|אסימוני קלט, אסימון פלט|אסימוני פלט, בקשה|בקשות, תגובה|תגובות
moments: לבקשה, בו-זמנית · via: _({source})
sources: בשיחות שמורות, בשיחות זמניות, בערוצים, באוטומציות, דרך ה-API, למשימות
periods: לדקה, לשעה, ליום, לשבוע, לחודש, לרבעון, לשנה · rolling: בכל {n} {unit}
rolling_units: שנייה|שניות, דקה|דקות, שעה|שעות, יום|ימים · durations: ימ׳ שע׳ דק׳ שנ׳
date: {day} ב{month}
months: ינואר פברואר מרץ אפריל מאי יוני יולי אוגוסט ספטמבר אוקטובר נובמבר דצמבר · at: בשעה {time}
tomorrow: מחר בשעה {time} · on_date: ב-{date} בשעה {time} · owner: המכסה שלך|המכסה המשותפת
on: _({model}) · reached: {owner}{named} נוצלה: {what}.
held: תגובות שעדיין נוצרות תופסות את יתרת {owner}{named}: {what}. נסה שוב לאחר שיסתיימו.
stopped: התגובה נעצרה כי {owner}{named} נוצלה: {what}.
no_model: לא ניתן להשתמש כאן במודל {model}{named}. · no_models: לא ניתן להשתמש כאן במודלים{named}.
no_paid: לא ניתן להשתמש כאן במודלים בתשלום{named}.
per_request: הבקשה ארוכה מדי, המכסה לבקשה: {quantity}{on}{named}.
at_once: כבר נוצרות תגובות: {quantity}. נסה שוב לאחר שאחת מהן תסתיים.
resets: המכסה תתחדש {at}{within}. · opens: אפשר להמשיך {at}{within}. · within: , בעוד {within}
warning: נוצלו {percent} מתוך {owner}{named}: {what}, נותרו {left}{until}.
label: שימוש|שימוש משותף · reached_label: המכסה נוצלה|המכסה המשותפת נוצלה
status: {label}: {used} מתוך {what} · status_reset: , תתחדש {at}
cap: אורך התגובה המרבי: {quantity}.
ledger_error: לא ניתן לרשום את השימוש כעת, ולכן בקשות אינן מתקבלות. נסה שוב מאוחר יותר.
show_usage: הצגת השימוש|השימוש שלך מעל כל תגובה.|קרוב למכסה|תמיד|אף פעם
page: מכסות שימוש|מכסה|נוצל|שמור|נותר|מתחדש|המכסה נוצלה|משותף|לא חלות עליך מכסות.|
  השימוש שלך נרשם, אך לעולם אינו נדחה.|שימוש לפי יום|יום|החודש לפי מודל|מודל|בקשות|אסימוני קלט|
  אסימוני פלט|אסימונים|עלות|סך הכול|התגובות של החודש|זמן|משוער|בתהליך|הוענק בנוסף|כמות|סיבה|
  בתוקף עד|אין עדיין.|הצג הכול|רענון|חזרה לצ׳אט|יש להיכנס תחילה ל-Open WebUI.|
  לא ניתן להציג זאת כעת. נסה שוב מאוחר יותר.|היום לפי מודל
""")

# ============================= helpers/openwebui/languages/catalog.py =============================
# Languages: all there are, and which one a reader gets.

LANGUAGES: Mapping[str, Language] = {
    language.tag.lower(): language
    for language in (
        *(ENGLISH, GERMAN, FRENCH, CANADIAN_FRENCH, SPANISH, ITALIAN, BRAZILIAN_PORTUGUESE, DUTCH),
        *(POLISH, RUSSIAN, UKRAINIAN, TURKISH, CHINESE, TAIWANESE_CHINESE, JAPANESE, KOREAN),
        *(ARABIC, HEBREW),
    )
}
# Other tags of the same: a region, a script, an old code, or a language alone.
LANGUAGE_ALIASES = {
    "zh": "zh-cn",
    "zh-hans": "zh-cn",
    "zh-hant": "zh-tw",
    "zh-hk": "zh-tw",
    "zh-mo": "zh-tw",
    "pt": "pt-br",
    "iw": "he",
}
LONGEST_LANGUAGE_TAG = 35
LONGEST_ACCEPT_LANGUAGE = 500

def find_language(tag: str) -> Language | None:
    """The language for a tag such as ``de-AT``: the longest beginning that is known, if any is.

    The tag is what a browser sent: a longer one than any real one is no tag.
    """
    if len(tag) > LONGEST_LANGUAGE_TAG:
        return None
    parts = tag.strip().lower().replace("_", "-").split("-")
    for length in range(len(parts), 0, -1):
        beginning = "-".join(parts[:length])
        if language := LANGUAGES.get(LANGUAGE_ALIASES.get(beginning, beginning)):
            return language
    return None

def choose_language(tags: str) -> Language:
    """The first known language of a tag, or of an ``Accept-Language`` header; or English."""
    for tag in tags[:LONGEST_ACCEPT_LANGUAGE].split(","):
        if language := find_language(tag.partition(";")[0]):
            return language
    return ENGLISH

# ================================ helpers/openwebui/page_assets.py ================================
# The usage page: one HTML page with its style, its script and the words of all languages.

PAGE_HTML = r"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Usage limits</title>
<link rel="icon" href="data:,">
<style nonce="{{NONCE}}">
{{CSS}}</style>
<script type="application/json" id="languages">{{LANGUAGES}}</script>
<script nonce="{{NONCE}}">
{{JS}}</script>
</head>
<body>
<header class="bar">
<a id="back" href="/">Back to the chat</a>
<nav id="nav" aria-label="Views" lang="en" dir="ltr" hidden></nav>
</header>
<main id="main" tabindex="-1" aria-busy="true"></main>
<p id="live" class="unseen" role="status" aria-live="polite"></p>
<noscript>This page needs JavaScript.</noscript>
</body>
</html>
"""
PAGE_CSS = r"""/* One look, light and dark, for the usage page and the static report. */
:root {
  color-scheme: light dark;
  --page: light-dark(#fff, #171717);
  --raised: light-dark(#f6f6f7, #212121);
  --text: light-dark(#1b1b1f, #ececec);
  --faint: light-dark(#595f69, #b0b4bb);
  --line: light-dark(#d9dbe0, #3d3d41);
  --strong: light-dark(#8a8f99, #85898f);
  --accent: light-dark(#1f5fa8, #8fbcf2);
  --first: light-dark(#2f6fb7, #5f9fe6);
  --second: light-dark(#e08b1f, #f0a84e);
  --bad: light-dark(#b3261e, #ff8a80);
  --warn: light-dark(#a86400, #f2b84b);
  --good: light-dark(#1d7a3e, #6fcf8f);
  --boxes: repeat(auto-fill, minmax(min(21rem, 100%), 1fr));
}
:root[data-theme="light"] { color-scheme: light; }
:root[data-theme="dark"] { color-scheme: dark; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 84rem; padding: .75rem 1rem 3rem; color: var(--text);
  background: var(--page); overflow-wrap: anywhere;
  font: 16px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
  font-variant-numeric: tabular-nums; }
h1 { font-size: 1.5rem; margin: .5rem 0; }
h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; padding-bottom: .2rem;
  border-bottom: 1px solid var(--line); }
.card h2 { font-size: 1rem; margin: 0 0 .4rem; padding: 0; border: 0; }
p, ol.note { margin: .4rem 0; }
a { color: var(--accent); }
.note { color: var(--faint); font-size: .9rem; }
.bad { color: var(--bad); }
.good { color: var(--good); }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%);
  white-space: nowrap; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; border-radius: 3px; }
main:focus { outline: none; }
main[aria-busy] { opacity: .5; transition: opacity .2s .2s; }
main[aria-busy]:empty::before { content: "…"; }
[hidden] { display: none !important; }

/* Boxes */
.totals { display: grid; gap: .6rem; margin: 1rem 0;
  grid-template-columns: repeat(auto-fit, minmax(8.2rem, 1fr)); }
.totals div, .card, fieldset { border: 1px solid var(--line); border-radius: 8px; }
.totals div, .card { padding: .6rem .8rem; background: var(--raised); }
dt { color: var(--faint); font-size: .85rem; }
dd { margin: 0; }
.totals dd { font-size: 1.2rem; font-weight: 600; }
.cards { display: grid; gap: .75rem; padding: 0; margin: 0; list-style: none;
  grid-template-columns: var(--boxes); }
.card dl { display: grid; grid-template-columns: 2fr 3fr; gap: .2rem .7rem; margin: .5rem 0 0; }
.card dl div:nth-child(-n+2) dd { font-weight: 600; }
.tag { display: inline-block; font-size: .8rem; font-weight: 400; color: var(--faint);
  border: 1px solid var(--line); border-radius: .7rem; padding: 0 .5rem; }
.tag.bad { color: var(--bad); border-color: currentcolor; }

/* Bars and charts */
.meter { display: flex; height: .7rem; border-radius: 99px; overflow: hidden;
  background: var(--page); border: 1px solid var(--strong); }
.near { --state: var(--warn); }
.over { --state: var(--bad); }
.meter i { background: var(--state, var(--first)); }
.meter i + i { background: repeating-linear-gradient(135deg, var(--first) 0 3px,
  transparent 3px 6px); }
figure { margin: 0; }
.days { display: flex; height: 10rem; margin-bottom: 1.8rem;
  border-block: 1px solid var(--line); }
.days div { flex: 0 1 3rem; min-width: 0; display: flex; flex-direction: column;
  justify-content: end; position: relative; }
.days i { margin-inline-end: 8%; }
.days span { position: absolute; top: 100%; white-space: nowrap; color: var(--faint);
  font-size: .75rem; }
.key { display: inline-block; width: .8rem; height: .8rem; border-radius: 2px;
  margin-inline: .2rem; }
.first { background: var(--first); }
.second { background: var(--second); }

/* Tables: on a phone each row is a box, each cell a line with its column's name. */
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { padding: .35rem .5rem; border-bottom: 1px solid var(--line); text-align: start;
  vertical-align: top; }
td:not(.n), tbody th { min-width: 5.5rem; }
td.w { min-width: 9rem; }
thead th { border-bottom-color: var(--strong); overflow-wrap: normal; }
tbody th { font-weight: 400; }
.n { text-align: end; }
td.n, td.t, tbody th.t { white-space: nowrap; }
tr:is(.near, .over) { --edge: 5px solid var(--state); }
tr > :first-child { border-inline-start: var(--edge, 0); }
summary { cursor: pointer; width: fit-content; }
@media screen and (max-width: 64rem) {
  table, thead, tr { display: block; }
  tbody { display: grid; gap: .5rem; align-items: start; grid-template-columns: var(--boxes); }
  thead tr { display: flex; flex-wrap: wrap; gap: .2rem .6rem; border: 0; padding: 0; }
  thead th { padding: .1rem 0; border: 0; }
  .plain thead { display: none; }
  tbody tr { border: 1px solid var(--line); border-inline-start: var(--edge, 1px solid var(--line));
    border-radius: 8px; padding: .3rem .6rem; background: var(--raised); }
  tbody td, tbody th { display: flex; justify-content: space-between; gap: 1rem; border: 0;
    padding: .12rem 0; text-align: end; }
  tbody td:empty { display: none; }
  tbody tr > :first-child { font-weight: 600; border: 0; }
  tbody td::before, tbody th::before { content: attr(data-column); color: var(--faint);
    font-weight: 400; text-align: start; flex: none; max-width: 45%; }
  td.n, td.t, tbody th.t { white-space: normal; }
}

/* The page's own: header, forms, editor */
.bar, nav, .row { display: flex; flex-wrap: wrap; gap: .3rem .9rem; }
.bar { align-items: baseline; border-bottom: 1px solid var(--line); padding-bottom: .5rem; }
nav a { text-decoration: none; padding: .15rem 0; }
nav a[aria-current] { color: var(--text); font-weight: 600; box-shadow: 0 2px var(--accent); }
.row { align-items: end; }
.row, .said, details { margin: .6rem 0; }
td .row { margin: 0; }
.row.title { align-items: center; justify-content: space-between; margin: 0; }
label { display: block; font-size: .9rem; }
label.wide { flex: 0 1 26rem; }
fieldset label.wide { flex: 1 1 14rem; }
fieldset { margin: 0; padding: .5rem .9rem .8rem; min-width: 0; }
legend { font-weight: 600; padding: 0 .3rem; }
input, select, textarea, button { font: inherit; color: var(--text); background: var(--page);
  border: 1px solid var(--strong); border-radius: 6px; padding: .3rem .55rem; max-width: 100%;
  min-height: 2.2rem; }
label input, label select { display: block; width: 100%; margin-top: .1rem; }
label.check { display: flex; gap: .5rem; align-items: baseline; margin: .15rem 0; }
label.check input { width: auto; margin: 0; min-height: 0; }
button { cursor: pointer; background: var(--raised); }
button:hover:not(:disabled) { border-color: var(--accent); }
button.main { background: light-dark(#1f5fa8, #2f6fb7); border-color: transparent; color: #fff; }
button:disabled { opacity: .55; cursor: default; }
th button { border: 0; background: none; padding: 0; min-height: 0; font-weight: 600;
  text-align: inherit; white-space: nowrap; }
th button::after { content: " ↕" / ""; color: var(--faint); }
th[aria-sort="ascending"] button::after { content: " ↑" / ""; color: inherit; }
th[aria-sort="descending"] button::after { content: " ↓" / ""; color: inherit; }
.said { border-inline-start: 4px solid var(--accent); padding: .3rem .7rem;
  background: var(--raised); }
.said.bad { border-color: var(--bad); color: var(--text); }
.said:empty { display: none; }
.said ul { margin: 0; }
.said ul, .errors, ol.note { padding-inline-start: 1.3rem; }
.editor { display: flex; border: 1px solid var(--strong); border-radius: 6px; overflow: hidden;
  height: 26rem; max-height: 75vh; font: 14px/1.5 ui-monospace, Consolas, monospace; }
.editor:focus-within { outline: 3px solid var(--accent); outline-offset: 1px; }
.editor ol { margin: 0; padding: .5rem .5rem .5rem 0; min-width: 3.2em; overflow: hidden;
  list-style: none; text-align: right; color: var(--faint); background: var(--raised);
  user-select: none; }
.editor li.bad { color: var(--page); background: var(--bad); }
.editor textarea { flex: 1; min-width: 0; border: 0; border-radius: 0; resize: none; outline: none;
  font: inherit; padding: .5rem; tab-size: 4; white-space: pre; overflow: auto; direction: ltr; }
.errors button { padding: 0 .4rem; min-height: 0; }
code { font: .92em ui-monospace, Consolas, monospace; }
@media print {
  :root:root { color-scheme: light; }
  .bar, form, .row > :not(h1) { display: none; }
  tr, .card, figure { break-inside: avoid; print-color-adjust: exact; }
}
"""
PAGE_JS = r""""use strict";
// The usage page: what is left, who is near a limit, and what to do about it. Names of users,
// groups and models are whatever somebody chose: they become text nodes, never HTML.
/** @import { Column, Grant, Limit, Me, State, TableOptions } from "./types.d.ts" */

const HOME = location.pathname.replace(/usage-limits\/*$/, ""); // Open WebUI's own path
const BASE = `${HOME}usage-limits/api/`;
const SHOWN_ROWS = 25;
const CHECK_AFTER = 400; // milliseconds without a key
const RETRY_AFTER = 3000; // milliseconds after a check that the server didn't answer
const PERIODS = { month: "This month", 7: "7 days", 30: "30 days", 90: "90 days", 365: "A year" };
/** @type {State} */
const state = { me: null, period: "month", draft: null, turn: 0 };
let languages, tag;

/** @type {(id: string) => any} */ // page.html has all that are asked for
const byId = (id) => document.getElementById(id);
const stored = (key) => {
  try {
    return localStorage.getItem(key) || "";
  } catch { // a browser that keeps nothing
    return "";
  }
};

function followTheme() {
  const [chosen] = /dark|light/.exec(stored("theme").replace(/^her$/, "light")) || [""];
  document.documentElement.dataset.theme = chosen;
}

// Words and numbers

function chooseLanguage() {
  for (const wish of [stored("locale"), ...navigator.languages]) {
    const parts = wish.toLowerCase().replaceAll("_", "-").split("-");
    for (; parts.length; parts.pop()) {
      const known = languages.aliases[parts.join("-")] || parts.join("-");
      if (Object.hasOwn(languages.words, known)) return known;
    }
  }
  return "en";
}

const inLanguage = (element) => Object.assign(element, {
  lang: tag, dir: languages.rtl.includes(tag) ? "rtl" : "ltr",
});
const t = (word) => languages.words[tag][languages.keys.indexOf(word)];
const digits = () => `${tag}-u-nu-latn`;
const number = (value, options, language = digits()) =>
  new Intl.NumberFormat(language, options).format(value ?? 0);
const dollars = (value) => number(value, {
  style: "currency", currency: "USD", currencyDisplay: "narrowSymbol",
  ...(value > 0 && value < 0.01 && { maximumSignificantDigits: 2 }),
}, languages.rtl.includes(tag) ? "en" : digits()); // as in the sentences
// What has no price has no cost: a zero would say that it was free.
const money = (value) => (value ? dollars(value) : "–");
const amount = (limit, value) => (limit.measure === "cost" ? dollars : number)(value);
const date = (value, options) => new Intl.DateTimeFormat(digits(), options).format(value);
const day = (text) => date(new Date(text), { day: "numeric", month: "short", timeZone: "UTC" });
const when = (text) => (text ? date(new Date(text), {
  month: "short", day: "numeric", hour: "numeric", minute: "2-digit",
}) : "–");

// Elements

const nodes = (parts) => parts.flat(9).filter((one) => one || one === 0);
const fill = (element, ...parts) => element.replaceChildren(...nodes(parts));

function el(name, ...children) {
  const attributes = children[0]?.constructor === Object ? children.shift() : {};
  const [kind, ...classes] = name.split(".");
  const made = document.createElement(kind || "div");
  if (classes.length) made.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value || value === 0) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...nodes(children));
  return made;
}

// A text that leaves the direction of what is around it alone, whatever is in it.
const own = (...text) => el("bdi", text);
const note = (...text) => el("p.note", text);
const link = (href, ...text) => el("a", { href }, text);
const say = (text) => (byId("live").textContent = text);
const button = (text, onclick, kind = "button") => el(kind, { type: "button", onclick }, text);
const section = (title, ...parts) => [el("h2", title), parts];
const tableSection = (title, columns, rows, options) =>
  section(title, table(title, columns, rows, options));
const field = (text, input) => el("label.wide", text, input);
const form = (name, submit, ...parts) => el(name, { onsubmit: (event) => {
  event.preventDefault();
  submit(event.submitter);
} }, parts);
const fields = (title, submit, ...parts) =>
  form("form", submit, el("fieldset", el("legend", title), parts));
const select = (options, attributes = {}) => el("select", attributes,
  options.map(([value, text = value, selected]) => el("option", { value, selected }, text)));
const list = (items, kind = "ul") => el(kind, items.map((item) => el("li", item)));
const pairs = (kind, terms) => el(kind, terms.filter(Boolean).map(([name, value]) =>
  el("", el("dt", name), el("dd", value))));

// A part of a bar: the page's policy for content allows no style in an attribute.
function part(name, side, value, all) {
  const made = el(name);
  made.style[side] = `${Math.min(100, (100 * value) / all)}%`;
  return made;
}

// A column: what it reads of a row, its heading, what a cell shows, what it is sorted by.
const column = (key, name, show = (row) => row[key], value = (row) => row[key]) =>
  ({ key, name, show, value: (row) => value(row) ?? "" });
const columnOf = (kind, write) => (key, name, show = (row) => write(row[key]), ...more) =>
  ({ ...column(key, name, show, ...more), kind });
const figures = columnOf(".n", number), costs = columnOf(".n", money), times = columnOf(".t", when);

/** @param {string} caption @param {Column[]} columns @param {any[]} rows
 * @param {TableOptions} options */
function table(caption, columns, rows, { order, search, beside, plain, kind = () => "" } = {}) {
  let shown = SHOWN_ROWS, sorted = order || { key: "", sign: 1 }, wanted = "";
  if (!rows.length) return [beside && el(".row", beside), note(t("nothing"))];
  const words = new Map(rows.map((row) =>
    [row, columns.map((one) => one.value(row)).join(" ").toLowerCase()]));
  const body = el("tbody", { role: "rowgroup" }), rest = note();
  const compare = (one, other) => typeof one === "number" && typeof other === "number"
    ? one - other : String(one).localeCompare(String(other), tag, { numeric: true });
  const cell = (row, one, at) => el((at ? "td" : "th") + (one.kind || ""), {
    "data-column": one.name, role: at ? "cell" : "rowheader", scope: !at && "row",
  }, own(one.show(row)));

  function show() {
    let found = rows.filter((row) => words.get(row)?.includes(wanted));
    const by = columns.find((one) => one.key === sorted.key);
    if (by) found = found.toSorted((a, b) => sorted.sign * compare(by.value(a), by.value(b)));
    fill(body, found.slice(0, shown).map((row) =>
      el(`tr${kind(row)}`, { role: "row" }, columns.map((one, at) => cell(row, one, at)))));
    heads.forEach((head, at) => head.setAttribute("aria-sort",
      columns[at] !== by ? "none" : sorted.sign > 0 ? "ascending" : "descending"));
    fill(rest, found.length ? found.length > shown && [
      `${number(shown)} / ${number(found.length)} `,
      button(t("show_all"), () => { shown = Infinity; show(); })] : "Nothing found.");
    return found.length;
  }

  function sort(one) {
    sorted = { key: one.key, sign: sorted.key === one.key ? -sorted.sign : one.kind ? -1 : 1 };
    show();
  }

  const heads = columns.map((one) =>
    el(`th${one.kind || ""}`, { scope: "col", role: "columnheader" },
      plain ? one.name : button(one.name, () => sort(one))));
  const input = search && el("input", { type: "search", autocomplete: "off", oninput: () => {
    wanted = input.value.trim().toLowerCase();
    say(`${number(show())} found`);
  } });
  show();
  return [
    (input || beside) && el(".row", beside, input && field(search, input)),
    el(plain ? "table.plain" : "table", { role: "table", "aria-label": caption },
      el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, heads)), body),
    rest,
  ];
}

// The columns of use: a cost only where anything has a price.
const costColumn = (rows) =>
  rows.some((row) => row.cost_usd) ? [costs("cost_usd", t("cost"))] : [];
const useColumns = (rows) => [
  ...["requests", "input_tokens", "output_tokens"]
    .filter((key) => rows.some((row) => key in row))
    .map((key) => figures(key, t(key.replace("_tokens", "")))), ...costColumn(rows),
];

// Limits. Those of one moment, per request and at once, add nothing up.

/** @param {Limit} limit */
const isMoment = (limit) => /^(request|at once)$/.test(limit.period);
/** @param {Limit} limit */
const warnedAt = (limit) =>
  Number(/ warn (\d+)%/.exec(limit.limit)?.[1] ?? state.me?.soft_limit_percent ?? 80);
const isOwn = (limit) => limit.scope === "user";
const left = (limit) => amount(limit, limit.remaining);
const percent = (limit) => number(limit.percent / 100, { style: "percent" });
/** @param {Limit} limit */
const kindOf = (limit) => isMoment(limit) ? "" : limit.remaining <= 0 ? ".over"
  : limit.percent >= warnedAt(limit) ? ".near" : "";
// Those that are reached come first, then those that are near; else as the policy has them.
const urgency = (limit) => ["", ".near", ".over"].indexOf(kindOf(limit));
/** @param {Limit[]} limits */
const countable = (limits) => limits.filter((limit) => !isMoment(limit))
  .toSorted((one, other) => urgency(other) - urgency(one));
/** @param {Limit[]} limits */
const mostUsed = (limits) =>
  countable(limits.toSorted((one, other) => other.percent - one.percent))[0];

/** @param {Limit} limit */
function limitCard(limit) {
  const parts = [limit.used, limit.reserved].map((value) =>
    part("i", "width", limit.amount > 0 ? value : 1, limit.amount || 1));
  const kind = kindOf(limit), used = amount(limit, limit.used);
  return el(`li.card${kind}`,
    el("h2", own(limit.text), " ",
      kind === ".over" && [el("span.tag.bad", t("reached")), " "],
      !isOwn(limit) && el("span.tag", t("shared"), ": ", own(limit.scope))),
    el(".meter", { role: "meter", "aria-label": limit.text, "aria-valuemin": 0,
      "aria-valuemax": 100, "aria-valuenow": Math.min(100, limit.percent),
      "aria-valuetext": `${t("used")} ${used}, ${t("left")} ${left(limit)}` }, parts),
    pairs("dl", [
      [t("left"), left(limit)],
      [t("resets"), when(limit.reset_at)],
      [t("used"), [own(used), " ", own(`(${percent(limit)})`)]],
      limit.reserved > 0 && [t("reserved"), amount(limit, limit.reserved)],
      limit.granted > 0 && [t("grants"), amount(limit, limit.granted)],
    ]));
}

const limitCards = (limits) => [
  el("ul.cards", countable(limits).map(limitCard)),
  list(limits.filter(isMoment).map((limit) => own(limit.text))),
];

/** @param {Me["days"]} rows */
function dayChart(rows) {
  if (!rows.length) return note(t("nothing"));
  const by = new Map(rows.map((row) => [row.day, row])), days = [];
  // Days without any use are days as well.
  const last = Date.parse(rows[rows.length - 1].day);
  for (let at = Date.parse(rows[0].day); at <= last; at += 864e5) {
    const name = new Date(at).toISOString().slice(0, 10);
    days.push({ day: name, input_tokens: 0, output_tokens: 0, ...by.get(name) });
  }
  const sum = (one) => one.input_tokens + one.output_tokens;
  const most = Math.max(...days.map(sum), 1), every = Math.ceil(days.length / 6);
  const total = number(days.reduce((all, one) => all + sum(one), 0));
  const chart = el(".days", { role: "img",
    "aria-label": `${t("by_day")}: ${t("total")} ${total} ${t("tokens")}` },
  days.map((one, at) => el("", { title: `${day(one.day)}: ${number(sum(one))} ${t("tokens")}` },
    part("i.second", "height", one.output_tokens, most),
    part("i.first", "height", one.input_tokens, most),
    at % every === 0 && at + every <= days.length && el("span", day(one.day)))));
  return [
    el("figure", note(number(most, { notation: "compact" }), " ", t("tokens")), chart,
      note(el("i.key.first"), t("input"), " ", el("i.key.second"), t("output"))),
    el("details", el("summary", `${t("tokens")} / ${t("day")}`), table(t("by_day"),
      [column("day", t("day"), (row) => day(row.day)), ...useColumns(rows)], rows)),
  ];
}

// A user's limits and use, for the user or for an administrator

/** @param {Me} data @param {unknown} [afterLimits] */
function userParts(data, afterLimits) {
  const mark = (row) => row.running ? ` (${t("running")})`
    : row.estimated ? ` (${t("estimated")})` : "";
  return [
    data.exempt && el("p.said", afterLimits ? "Exempt: use is recorded, but never refused."
      : t("exempt")),
    data.limits.length ? limitCards(data.limits)
      : el("p", afterLimits ? "No limits apply." : t("no_limits")),
    afterLimits || grantTable(data.grants, data.limits),
    section(t("by_day"), dayChart(data.days)),
    tableSection(t("by_model"),
      [column("model", t("model")), ...useColumns(data.month)], data.month),
    tableSection(t("replies"), [
      times("at", t("time"), (row) => [when(row.at), mark(row)]), column("model", t("model")),
      ...useColumns(data.replies),
    ], data.replies),
  ];
}

const required = (placeholder, more) => el("input", { required: true, placeholder, ...more });
const reasonInput = (more) => required("", { maxlength: 200, ...more });

/** @param {Grant[]} grants @param {Limit[]} limits @param {Function} [revoke] */
function grantTable(grants, limits, revoke) {
  const rows = grants.filter((one) => one.holds && one.kind !== "revoke");
  const granted = (row) => {
    const one = limits.find((limit) => isOwn(limit) === isOwn(row) &&
      ["measure", "period", "model", "source"].every((key) => limit[key] === row[key]));
    return one ? one.text : `${row.measure.replace("_", " ")}/${row.period}`;
  };
  return rows.length > 0 && tableSection(t("grants"), [
    column("limit", t("limit"), granted),
    figures("amount", t("amount"), (row) => `+${amount(row, row.amount)}`),
    column("reason", t("reason")),
    times("expires_at", t("until")),
    ...(revoke ? [column("id", "Revoke", (row) => {
      const what = `${amount(row, row.amount)} of ${granted(row)}`;
      const why = reasonInput({ placeholder: "Reason", "aria-label": `Why ${what} is revoked` });
      return form("form.row", (control) => revoke(row, why.value, control), why,
        el("button", { "aria-label": `Revoke ${what}` }, "Revoke"));
    })] : []),
  ], rows, { plain: true });
}

async function myView() {
  const data = await call(`me?language=${tag}`);
  return [el(".row.title", el("h1", t("title")), button(t("refresh"), () => route())),
    userParts(data)];
}

// The administrator's views, in English

function since() {
  const from = new Date();
  from.setDate(state.period === "month" ? 1 : from.getDate() - Number(state.period) + 1);
  return from.toLocaleDateString("sv"); // which writes dates as ISO has them
}

const reportPath = (by) => `report?by=${by}&since=${since()}`;
const report = (by) => call(reportPath(by));
const periodPicker = () => el("label", "Period", select(
  Object.entries(PERIODS).map(([value, text]) => [value, text, value === state.period]),
  { onchange: (event) => { state.period = event.target.value; route(); } },
));
const files = (by) => note(`Download use by ${by.replaceAll(",", ", ")}: `,
  ["csv", "json"].map((format) => [el("a", { href: `${BASE}${reportPath(by)}&format=${format}`,
    download: `usage-by-${by}.${format}` }, format.toUpperCase()), " "]));
const nameOf = (user) => user.name || user.email || user.user_id;
const userLink = (row) => link(`#user=${encodeURIComponent(row.user_id)}`, nameOf(row));

// A row with what its most used limit is sorted by, if it has one.
const withLimit = (row, most) => ({ ...row, most, limit: most?.text, used: most?.percent ?? -1,
  left: most?.remaining ?? Infinity, resets: most?.reset_at });
const limitColumns = () => [
  columnOf(".w")("limit", "Limit", (row) => row.limit ?? "no limit"),
  figures("used", "Used", ({ most }) => (most ? percent(most) : "–")),
  figures("left", "Left", ({ most }) => (most ? left(most) : "–")), times("resets", "Resets"),
];
const nearFirst = { kind: ({ most }) => (most ? kindOf(most) : ""),
  order: { key: "used", sign: -1 } };

function userTable(users, more = [], options = {}) {
  // A pool is nobody's own: it has rows of its own.
  const rows = users.map((row) => withLimit(row, mostUsed(row.limits.filter(isOwn))));
  return table("Users, the most used limit of each", [
    column("user", "User", (row) => [userLink(row), row.exempt && [" ",
      el("span.tag", "exempt")]], (row) => [row.name, row.email, row.user_id].join(" ")),
    column("groups", "Groups", (row) => row.groups.join(", ")),
    column("policy", "Policy"), ...limitColumns(), ...more,
  ], rows, { ...nearFirst, ...options });
}

async function overview() {
  const [all, days, near, pools, refused] = await Promise.all([call("overview"), report("day"),
    call("users?near=true"), call("pools"), call(`shadow?since=${since()}`).catch(() => [])]);
  const sum = (key) => days.reduce((total, row) => total + (row[key] || 0), 0);
  const over = near.filter((row) => kindOf(mostUsed(row.limits.filter(isOwn))) === ".over");
  const full = poolRows(pools).filter((row) => kindOf(row.most));
  return [
    el(".row", periodPicker()),
    pairs("dl.totals", [["Requests", number(sum("requests"))],
      ["Input tokens", number(sum("input_tokens"))],
      ["Output tokens", number(sum("output_tokens"))], ["Cost", money(sum("cost_usd"))],
      ["Users over a limit", number(over.length)],
      ["Users near a limit", number(near.length - over.length)]]),
    all.shadow_mode && el("p.said", "Shadow mode is on: nobody is refused."),
    all.notices.length > 0 && el(".said.bad", list(all.notices),
      link("#policies", "Correct the policies")),
    section("Users near or over a limit", near.length
      ? [note("Open a user to grant more, or to reset a limit."), userTable(near)]
      : note("Nobody.")),
    full.length > 0 && section("Pools near or over a limit", poolTable(full)),
    section("By day", dayChart(days)),
    refused.length > 0 && tableSection("Shadow mode would have refused", [
      times("at", "Time"), column("email", "User", userLink), column("model", "Model"),
      column("limit", "Limit"), column("policy", "Policy"),
    ], refused, { search: "Search refusals" }),
    section("Installation",
      note(`Usage Limits ${all.version}, Open WebUI ${all.open_webui}, ledger: ${all.ledger}, `,
        `days as in ${all.timezone}`),
      list(all.checks.map(({ ok, text }) =>
        [ok ? el("span.good", "OK: ") : el("span.bad", "Note: "), text])),
      table("Ways to a model", [column("name", "Way to a model"), column("state", "State"),
        column("detail", "What happens")], all.doors, { plain: true })),
    section("Files", ["day", "user,model,day", "source"].map(files)),
  ];
}

async function usersView() {
  const [users, used] = await Promise.all([call("users"), report("user")]);
  const sums = new Map(used.map((row) => [row.user_id, row]));
  const rows = users.map((row) => ({ total_tokens: 0, ...row, ...sums.get(row.user_id) }));
  return [
    userTable(rows, [figures("total_tokens", "Tokens"), ...costColumn(rows)],
      { search: "Search users, groups, policies", beside: periodPicker() }),
    files("user"),
  ];
}

const useView = (title, by, key, name) => async () => {
  const rows = await report(by), label = (row) => row[name] || row[key] || `no ${by}`;
  return [
    table(title, [column(key, title.slice(0, -1), label, label), ...useColumns(rows)], rows, {
      search: `Search ${title.toLowerCase()}`, beside: periodPicker(),
      order: { key: "input_tokens", sign: -1 },
    }),
    files(by),
    by === "group" && note("Who is in several groups counts in each of them."),
  ];
};

const poolRows = (pools) =>
  pools.flatMap((pool) => pool.limits.map((limit) => withLimit(pool, limit)));
const poolTable = (rows, options = {}) => table("Pools and their limits", [
  column("pool", "Pool", (row) => link(`#pool=${encodeURIComponent(row.pool)}`, row.pool)),
  column("group", "Group", (row) => row.group || "everyone"), ...limitColumns(),
], rows, { ...nearFirst, ...options });

const poolsView = async () =>
  [poolTable(poolRows(await call("pools")), { search: "Search pools" })];

// Grant, reset, revoke

function actions(who, limits, grants) {
  const those = countable(limits);
  const said = el("p.said.bad", { role: "alert" });
  const change = async (control, method, path, body, done) => {
    control.disabled = true;
    said.textContent = "";
    try {
      await call(path, method, body);
      await route();
      say(done);
    } catch (/** @type {any} */ error) {
      said.textContent = error.message;
      control.disabled = false;
    }
  };
  const limit = select(those.map((one) => [one.limit, one.text]));
  const much = required("10k");
  const [whyMore, whyReset] = [reasonInput(), reasonInput()];
  const checks = those.map((one) => el("input", { type: "checkbox", value: one.limit }));
  return [
    said,
    those.length > 0 && section("Grant or reset", el(".cards",
      fields("Grant more until the limit resets", (control) => change(control, "POST", "grants", {
        ...who, limit: limit.value, amount: much.value.trim(), reason: whyMore.value,
      }, "Granted"), field("Limit", limit), el(".row", field("Amount, such as 10k or $5", much),
        field("Reason", whyMore), el("button.main", "Grant"))),
      fields("Reset use to zero", (control) => {
        const limits = checks.filter((one) => one.checked).map((one) => one.value);
        if (!limits.length) checks[0].focus();
        else change(control, "POST", "resets", { ...who, limits, reason: whyReset.value }, "Reset");
      }, checks.map((check, at) => el("label.check", check, those[at].text)),
      el(".row", field("Reason", whyReset), el("button", "Reset"))))),
    grantTable(grants, limits, (grant, reason, control) => change(control, "DELETE",
      `grants/${encodeURIComponent(grant.id)}`, { reason }, "Revoked")),
  ];
}

async function userView(id) {
  const data = await call(`users/${encodeURIComponent(id)}?language=en`);
  return [
    el("p", link("#users", "All users")),
    el("h1", nameOf(data)),
    note([data.email, data.groups.length && `Groups: ${data.groups.join(", ")}`,
      `Policy: ${data.policy}`].filter(Boolean).join(" · ")),
    userParts(data,
      actions({ user: data.user_id }, data.limits.filter(isOwn), data.grants.filter(isOwn))),
  ];
}

async function poolView(name) {
  const found = (await call("pools")).filter((one) => one.pool === name);
  if (!found.length) throw Object.assign(new Error(`There is no pool "${name}".`), { status: 404 });
  const limits = found.flatMap((one) => one.limits);
  return [
    el("p", link("#pools", "All pools")), el("h1", name), limitCards(limits),
    actions({ pool: name }, limits, found.flatMap((one) => one.grants)),
  ];
}

// The policies editor

const findLine = (lines, head) => lines.findIndex((line) => line.trim() === head);

function addLimit(text, head, limit) {
  const lines = text.trimEnd().split("\n"), wanted = JSON.stringify(limit);
  let at = findLine(lines, head);
  if (at < 0) at = lines.push("", head) - 1;
  const below = lines.slice(at + 1), end = below.findIndex((line) => /^\s*\[/.test(line));
  const place = below.findIndex((line) => /^\s*limits\s*=\s*\[/.test(line));
  if (place < 0 || (end >= 0 && end < place)) lines.splice(at + 1, 0, `limits = [${wanted}]`);
  else lines[at + 1 + place] = below[place].replace(/\[\s*(\]?)/, (_, empty) =>
    `[${wanted}${empty || ", "}`);
  return `${lines.join("\n").trimStart()}\n`;
}

async function policiesView() {
  const [kept, groups] = await Promise.all([call("policies"), report("group").catch(() => [])]);
  let timer, asked = 0, loaded = state.draft?.loaded ?? kept.version;
  const numbers = el("ol", { "aria-hidden": "true" });
  const area = el("textarea", { id: "policies", spellcheck: "false", autocomplete: "off",
    autocapitalize: "off", wrap: "off", "aria-label": "Policies", "aria-describedby": "errors",
    oninput: () => changed(), onscroll: () => (numbers.scrollTop = area.scrollTop) });
  area.value = state.draft?.text ?? kept.policies;
  const result = el("", { id: "errors", role: "status" }), means = el("");
  const replayed = el("", { role: "status" });
  const saved = el("p.said", { id: "saved", role: "status" });
  const versions = kept.versions.filter((one) => one.policies !== kept.policies);
  const save = button("Save", keep, "button.main");

  const scrollToLine = (line) => (area.scrollTop = Math.max(0, (line - 5) * 21));

  function goTo(line) {
    const lines = area.value.split("\n"), end = lines.slice(0, line).join("\n").length;
    area.focus();
    area.setSelectionRange(end - (lines[line - 1] ?? "").length, end);
    scrollToLine(line);
  }

  function show(checked) {
    const errors = checked?.errors ?? [];
    fill(numbers, area.value.split("\n").map((_, at) =>
      el(errors.some((one) => one.line === at + 1) ? "li.bad" : "li", at + 1)));
    numbers.scrollTop = area.scrollTop;
    save.disabled = !checked || errors.length > 0 || area.value === kept.policies;
    if (!checked) return; // until the server has looked at it
    area.setAttribute("aria-invalid", String(errors.length > 0));
    fill(result, errors.length ? el("ul.errors", errors.map((one) => el("li.bad",
      one.line && [button(`Line ${one.line}`, () => goTo(one.line)), " "],
      `${one.where}: ${one.given}`, one.allowed && `; allowed: ${one.allowed}`)))
      : el("p.good", "No errors. ", area.value === kept.policies
        ? "This is what is in force." : "Save puts it in force."));
    if (errors.length) return;
    fill(means,
      checked.unmatched.length > 0 &&
        el("p.said.bad", `Nobody is meant by: ${checked.unmatched.join(", ")}`),
      table("What each table means", [
        column("table", "Table", (row) => el("code", row.table)),
        column("limits", "Limits", (row) => row.limits.join("; ")),
        figures("users", "Users"),
      ], checked.summary, { plain: true }));
  }

  const failed = (error) => error.status === 409 ? error.data
    : { failed: true, errors: [{ where: "The server", given: error.message }] };
  const ask = (path, method, more) =>
    call(`policies${path}`, method, { policies: area.value, ...more }).catch(failed);

  function changed() {
    const turn = ++asked;
    const same = area.value === kept.policies;
    if (same) [loaded, saved.textContent] = [kept.version, ""];
    state.draft = same ? null : { text: area.value, loaded };
    show(null);
    clearTimeout(timer);
    const check = async () => {
      const checked = await ask("/check", "POST");
      if (turn !== asked || !area.isConnected) return; // typed on meanwhile, or gone elsewhere
      show(checked);
      if (checked.failed) timer = setTimeout(check, RETRY_AFTER);
    };
    timer = setTimeout(check, CHECK_AFTER);
  }

  function put(text) {
    area.value = text;
    changed();
  }

  async function keep() {
    save.disabled = true;
    const answer = await ask("", "PUT", { version: loaded });
    if (answer.errors?.length) show(answer);
    else if (answer.detail) { // somebody else has saved meanwhile
      Object.assign(kept, answer);
      loaded = kept.version;
      changed();
      fill(saved, answer.detail,
        " Save again to replace that text, or discard your changes to load it.");
    } else {
      state.draft = null;
      await route();
      fill(byId("saved"), "Saved. It is in force from now on.");
      byId("policies").focus();
    }
  }

  async function simulate() {
    fill(replayed, note("Replaying …"));
    const found = await ask("/simulate", "POST", { days: Number(days.value) });
    if (found.errors.length) show(found);
    fill(replayed, !found.errors.length && [
      el("p", `Of ${number(found.requests)} requests in ${number(found.days)} days, ${
        number(found.refused)} would have been refused.`, found.cost_saved_usd > 0 &&
        ` That would have saved ${money(found.cost_saved_usd)}.`),
      table("Who would have been refused", [
        column("email", "User", userLink), figures("refused", "Refused"), column("limit", "Limit"),
        times("first_at", "First"), times("last_at", "Last"), costs("cost_saved_usd", "Saved"),
      ], found.users, { order: { key: "refused", sign: -1 } })]);
  }

  const kind = select([["group"], ["user"], ["role"], ["pool"]]);
  const name = required("Students", { list: "names" }), limit = required("50k tokens/day");
  const days = required("", { type: "number", min: 1, max: 400, value: 30 });
  const version = select(versions.map((one, at) =>
    [at, [when(one.saved_at), one.saved_by].filter(Boolean).join(", ")]));
  const add = () => {
    const who = name.value.trim();
    const head = `[${kind.value}.${/^[\w-]+$/.test(who) ? who : JSON.stringify(who)}]`;
    put(addLimit(area.value, head, limit.value.trim()));
    scrollToLine(findLine(area.value.split("\n"), head) + 1);
    limit.value = "";
  };
  changed();
  return [
    fields("Add a limit", add,
      list(["Say who: a group, a user’s e-mail, a role, or a pool.",
        "Write the limit, such as 50k tokens/day, $20/month or 30 requests/hour.",
        "Add it to the text, see below what it means, and save."], "ol.note"),
      el(".row", el("label", "For", kind), field("Name", name), field("Limit", limit),
        el("button", "Add to the text"))),
    el("datalist", { id: "names" }, groups.filter((row) => row.group_name).map((row) =>
      el("option", { value: row.group_name }))),
    section("Text", el(".editor", numbers, area), result, el(".row", save,
      versions.length > 0 && [el("label", "Earlier versions", version),
        button("Load this version", () => put(versions[version.value].policies))],
      button("Discard changes", () => put(kept.policies))),
    saved),
    section("What it means", means),
    section("Simulate", note("Replays what is on record against the text above."),
      form("form.row", simulate, el("label", "Days", days), el("button", "Simulate")),
      replayed),
  ];
}

// Where to go, and how to ask

const VIEWS = {
  overview: ["Overview", overview], users: ["Users", usersView],
  groups: ["Groups", useView("Groups", "group", "group_id", "group_name")],
  pools: ["Pools", poolsView], models: ["Models", useView("Models", "model", "model_id")],
  policies: ["Policies", policiesView], me: ["My use", myView],
};
const DETAILS = { user: ["users", userView], pool: ["pools", poolView] };

async function call(path, method = "GET", body = undefined) {
  const token = stored("token");
  const answer = await fetch(BASE + path, {
    method, cache: "no-store",
    headers: { Accept: "application/json", "Content-Type": "application/json",
      ...(token && { Authorization: `Bearer ${token}` }) },
    ...(body ? { body: JSON.stringify(body) } : {}),
  });
  const data = await answer.json().catch(() => ({}));
  if (answer.ok || data.errors) return data;
  const said = typeof data.detail === "string" ? data.detail : `${answer.status}`;
  throw Object.assign(new Error(said), { status: answer.status, data });
}

async function route(event) {
  const main = byId("main"), nav = byId("nav"), turn = ++state.turn;
  main.setAttribute("aria-busy", "true");
  tag = chooseLanguage();
  let parts;
  try {
    state.me ??= await call(`me?language=${tag}`);
    const admin = state.me?.role === "admin", [name, id] = location.hash.slice(1).split("=");
    const [view, detail] = !admin ? ["me"] : id && Object.hasOwn(DETAILS, name) ? DETAILS[name]
      : [Object.hasOwn(VIEWS, name) ? name : "overview"];
    if (view !== "me") tag = "en";
    nav.hidden = !admin;
    fill(nav, Object.entries(VIEWS).map(([key, [title]]) =>
      el("a", { href: `#${key}`, "aria-current": key === view && "page" }, title)));
    const [title, show] = VIEWS[view];
    parts = detail ? await detail(decodeURIComponent(id))
      : [view !== "me" && el("h1", title), await show()];
  } catch (/** @type {any} */ error) {
    parts = [el("h1", t("title")), error.status === 401 ? link(`${HOME}auth`, t("sign_in")) : [
      el("p.said.bad", { role: "alert" }, state.me && error.status === 404 ? error.message
        : `${t("failed")} (${error.message})`), button(t("refresh"), () => route())]];
  }
  if (turn !== state.turn) return; // gone elsewhere meanwhile
  fill(inLanguage(main), parts);
  main.removeAttribute("aria-busy");
  document.title = main.querySelector("h1").textContent;
  if (event) {
    scrollTo(0, 0);
    main.focus({ preventScroll: true });
  }
}

function start() {
  languages = JSON.parse(byId("languages").textContent);
  tag = chooseLanguage();
  inLanguage(document.documentElement);
  Object.assign(byId("back"), { textContent: t("back"), href: HOME });
  addEventListener("hashchange", route);
  addEventListener("beforeunload", (event) => state.draft !== null && event.preventDefault());
  return route();
}

followTheme();
addEventListener("storage", followTheme);
addEventListener("DOMContentLoaded", start);
"""

def page_languages() -> str:
    """The words of all languages as JSON that may stand in a script element."""
    data = {
        "keys": PAGE_WORDS,
        "aliases": LANGUAGE_ALIASES,
        "words": {tag: language.page.split("|") for tag, language in LANGUAGES.items()},
        "rtl": [tag for tag, language in LANGUAGES.items() if language.right_to_left],
    }
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")  # so that no word could end the element

def render_page(nonce: str) -> str:
    """The page, which holds nobody's data: its script asks for that.

    Args:
        nonce: The one that this answer's Content-Security-Policy names, letters and digits.
    """
    page = PAGE_HTML.replace("{{NONCE}}", nonce).replace("{{CSS}}", PAGE_CSS)
    return page.replace("{{JS}}", PAGE_JS).replace("{{LANGUAGES}}", page_languages())

# ================================= helpers/openwebui/messages.py ==================================
# Every sentence that a user or an administrator reads, with its numbers.

PLACEHOLDERS = (
    *("used", "limit", "remaining", "percent", "unit", "period", "reset_at", "reset_in", "policy"),
    "model",
)
PLACEHOLDERS_ALLOWED = " ".join(f"{{{name}}}" for name in PLACEHOLDERS)
MICROS = 1_000_000
# What a client or an administrator chose: a model's id, the name of a group or a pool, a user.
LONGEST_SHOWN_NAME = 100
# What a refusal says whose own sentence can't be made.
PLAIN_REFUSAL = "You have reached a usage limit."
# For programs, and in the log and the form: in English for all.
BLOCKED_SENTENCE = "This path is closed, because it would go past the usage limits. Use {path}."
TOO_LARGE_SENTENCE = "The request is longer than {size} MB, too long to be counted."
UNREADABLE_SENTENCE = "The request is not a JSON object, so it can't be counted."
BACKGROUND_SENTENCE = "Answers in the background can't be counted: leave `background` out."
FALLBACK_SENTENCE = "Other models than the one that is asked can't be counted: leave `{field}` out."
TOO_MANY_IMAGES_SENTENCE = "No more than {most} images can be asked for at once."
ARENA_SENTENCE = "An arena model inside of another can't be counted. Choose a model."
FAULT_SENTENCE = "The usage limits could not be checked. Try again later."
PAGE_FAULT = "The usage limits could not be read. See the server's log."
PAGE_UNREACHABLE = "The database can't be reached, or is busy. Try again later."
TASK_REFUSED_SENTENCE = "Over a usage limit no model is called for a task or a function."
UNGUARDED = (
    "NOT IN FORCE: this Open WebUI can't be wrapped, so calls to its pass-through paths are not "
    "counted. See docs/reverse-proxy.md."
)
UNREACHED = (
    "NOT REACHED when this form was opened: the log says why. Until the ledger can be reached no "
    "limit holds, or with `on_ledger_error` at `block` no request is let through."
)
# An administrator's template, and whatever anybody reads in the end.
LONGEST_TEMPLATE = 1_000
LONGEST_SENTENCE = 2_000
# Larger numbers than any that is counted; Python refuses to write out really long ones.
LARGEST_SHOWN = 10**18
BIDI_CONTROLS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
# Stands for an empty value until the blank before it is taken away as well.
EMPTY = "\x00"

@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads: a language, and the time zone of the clock on the wall.

    Args:
        zone: The zone that times are told in.
        language: The language.
        zone_is_own: Whether it is the reader's own zone, which then needs no name.
    """

    zone: tzinfo
    language: Language = ENGLISH
    zone_is_own: bool = False

def clean_name(name: str) -> str:
    """A name on one line, without control characters and lone surrogates, cut."""
    if len(name) <= LONGEST_SHOWN_NAME and name.isascii() and name.isprintable():
        return name.strip()  # nearly all are, and every sentence has some
    kept = "".join(
        " " if unicodedata.category(char) in ("Cc", "Zl", "Zp") else char
        for char in name[: 4 * LONGEST_SHOWN_NAME]
        if unicodedata.category(char) != "Cs" and not BIDI_CONTROLS.match(char)
    )
    return shortened(" ".join(kept.split()), LONGEST_SHOWN_NAME)

def isolate(text: str, language: Language) -> str:
    """A name or an amount that the direction of writing around it leaves as it is."""
    turned = not text.isascii() and any(
        unicodedata.bidirectional(char) in ("R", "AL") for char in text
    )
    return ISOLATED.format(text) if text and (turned or language.right_to_left) else text

def finish_sentence(text: str, language: Language) -> str:
    """A sentence of ours as it is shown: with a capital, and never longer than stated."""
    return cut_sentence(text[:1].upper() + text[1:], language)

def cut_sentence(text: str, language: Language) -> str:
    """A sentence in its direction, never longer than stated."""
    text = shortened(text, LONGEST_SENTENCE)
    return RIGHT_TO_LEFT.format(text) if text and language.right_to_left else text

# Templates

def check_placeholders(where: str, template: str) -> None:
    """Raise `ConfigurationError` unless every placeholder of a template is known.

    This much the valves' first release asked; what it accepted must still load.
    """
    try:
        names = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
    except ValueError as error:
        allowed = f"{PLACEHOLDERS_ALLOWED}, {{{{ for a brace"
        raise ConfigurationError(where, f"{template!r} ({error})", allowed) from None
    for name in names:
        if name not in PLACEHOLDERS:
            raise ConfigurationError(where, f"the placeholder {{{name}}}", PLACEHOLDERS_ALLOWED)

def check_template(where: str, template: str) -> None:
    """Raise `ConfigurationError` unless a template can be shown as it is: plain names only."""
    check_placeholders(where, template)
    if len(template) > LONGEST_TEMPLATE:
        given = f"{len(template):,} characters"
        raise ConfigurationError(where, given, f"{LONGEST_TEMPLATE:,} characters")
    if template.strip() and template_parts(template) is None:
        given = f"{template!r}, which isn't plain names only"
        raise ConfigurationError(where, given, PLACEHOLDERS_ALLOWED)

@lru_cache(maxsize=8)
def template_parts(template: str) -> tuple[tuple[str, str], ...] | None:
    """A template as texts, each with the placeholder after it; None if it can't be shown.

    A format specification, a conversion, an attribute or an index would fail on some value.
    """
    try:
        parts = list(Formatter().parse(template[:LONGEST_SENTENCE]))
        template.encode()  # no lone surrogate
    except ValueError:
        return None
    if any(name is not None and name not in PLACEHOLDERS for _, name, _, _ in parts):
        return None
    if any(specification or conversion for _, _, specification, conversion in parts):
        return None
    return tuple((text, name or "") for text, name, _, _ in parts)

@lru_cache(maxsize=8)
def template_language(template: str) -> Language | None:
    """The language that a template is written in: whose own sentences share most words with it.

    An English text with German words in its gaps reads badly, so they follow the text and not
    the reader. None if it has no word that tells.
    """
    words = text_words(" ".join(text for text, _ in template_parts(template) or ()))
    shared = {tag: len(words & language_words(tag)) for tag in LANGUAGES}
    best = max(shared, key=lambda tag: (shared[tag], tag == "en"))
    return LANGUAGES[best] if shared[best] else None

@lru_cache(maxsize=32)
def language_words(tag: str) -> frozenset[str]:
    """The words of a language's own sentences."""
    language = LANGUAGES[tag]
    texts = (getattr(language, field.name) for field in fields(language))
    return text_words(re.sub(r"\{\w+\}", " ", " ".join(x for x in texts if isinstance(x, str))))

def text_words(text: str) -> frozenset[str]:
    """The words of a text; where words aren't set apart, its characters."""
    pattern = r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\d_\u3040-\u30ff\u3400-\u9fff]{2,}"
    return frozenset(re.findall(pattern, text.lower()))

def fill_template(
    template: str, state: LimitState, now: datetime, reader: Reader, model: str
) -> str | None:
    """An administrator's template with its values; None if there is none that can be shown.

    A value that is empty (money has no unit) takes the blank before it away.
    """
    parts = template_parts(template) if template.strip() else None
    if parts is None:
        return None
    language = template_language(template) or reader.language
    reader = Reader(reader.zone, language, reader.zone_is_own)
    values = template_values(state, now, reader, model)
    text = "".join(
        text + ((str(values[name]) or EMPTY) if name else "")
        for text, name in ((text.replace(EMPTY, ""), name) for text, name in parts)
    )
    return cut_sentence(re.sub(f" ?{EMPTY}", "", text).strip(), language)

# Numbers, units, periods, times

def format_count(count: int, language: Language) -> str:
    """A whole number with the language's marks: ``50,000``."""
    count = max(-LARGEST_SHOWN, min(count, LARGEST_SHOWN))
    marks = language.thousands if abs(count) >= language.grouped_from else ""
    return f"{count:,}".replace(",", marks)

def format_amount(limit: Limit, amount: int, language: Language = ENGLISH) -> str:
    """An amount of what a limit measures: ``50,000``, or ``$20.00``.

    Money has cents, or as many digits as the limit itself, rounded down, but never to nothing.
    """
    if limit.measure != "cost":
        return isolate_amount(format_count(amount, language), language)
    digits = max(2, len(f"{limit.amount % MICROS:06d}".rstrip("0")))
    least: int = 10 ** (6 - digits)
    shown = max(amount, least) if amount > 0 else amount
    fraction = f"{shown % MICROS:06d}"[:digits]
    number = f"{format_count(shown // MICROS, language)}{language.decimal}{fraction}"
    text = isolate_amount(language.money.format(amount=number), language)
    return language.less_than.format(amount=text) if 0 < amount < least else text

def format_dollars(dollars: float, language: Language) -> str:
    """An amount of money of any size, whatever the limit: to the cent from a dollar on."""
    digits = 2 if dollars >= 1 or not dollars else 4
    number = f"{dollars:.{digits}f}" if dollars >= 0.0001 or not dollars else "0.0001"
    text = language.money.format(amount=number.replace(".", language.decimal))
    return language.less_than.format(amount=text) if 0 < dollars < 0.0001 else text

def isolate_amount(text: str, language: Language) -> str:
    """An amount that stays together in a right-to-left sentence."""
    return ISOLATED.format(text) if language.right_to_left else text

def format_unit(limit: Limit, amount: int, language: Language = ENGLISH) -> str:
    """The unit of an amount, in the plural form that is due; nothing for money."""
    return language.unit(limit.measure, amount) if limit.measure != "cost" else ""

def count_things(thing: str, count: int, language: Language) -> str:
    """A number of tokens, requests or responses: ``1 token``, ``3 responses``."""
    amount = isolate_amount(format_count(count, language), language)
    counted = language.form(language.counted, count)
    return counted.format(amount=amount, unit=language.unit(thing, count))

def plain_quantity(limit: Limit, amount: int, language: Language = ENGLISH) -> str:
    """Amount and unit, whatever the models."""
    if limit.measure == "cost":
        return format_amount(limit, amount, language)
    return count_things(limit.measure, amount, language)

def on_model(limit: Limit, language: Language = ENGLISH) -> str:
    """The models and the source that a limit is limited to, if it is."""
    text = language.via.format(source=language.source(limit.source)) if limit.source else ""
    if limit.model_glob == "*":
        return text
    return language.on.format(model=isolate(clean_name(limit.model_glob), language)) + text

def format_period(limit: Limit, language: Language) -> str:
    """Which period it is: ``per day``, ``at once``, or ``per 5 hours`` for a rolling one.

    A rolling one is never said in ones of anything: "per hour" is what the calendar's is called.
    """
    count, unit = limit.period.seconds, "second"
    if not count:
        return language.period(limit.period.name)
    for size, larger in ((60, "minute"), (60, "hour"), (24, "day")):
        if count % size or count <= size:
            break
        count, unit = count // size, larger
    number = isolate_amount(format_count(count, language), language)
    return language.rolling.format(n=number, unit=language.rolling_unit(unit, count))

def format_duration(duration: timedelta, language: Language = ENGLISH) -> str:
    """A duration in two units at most, rounded up: ``5 h 12 min``, ``3 d 4 h``, ``40 s``."""
    words = language.durations.split()
    seconds = max(1, -int(-duration.total_seconds() // 1))
    if seconds < 60:
        return language.duration.format(n=seconds, unit=words[3])
    hours, minutes = divmod(-(-seconds // 60), 60)
    days, hours = divmod(hours, 24)
    parts = tuple(zip((days, hours, minutes), words, strict=False))
    first = next(index for index, (count, _) in enumerate(parts) if count)
    return " ".join(
        language.duration.format(n=count, unit=word)
        for count, word in parts[first : first + 2]
        if count
    )

def format_zone(instant: datetime) -> str:
    """The zone of a local time as all the world understands it: ``UTC``, ``UTC+5:30``."""
    minutes = round((instant.utcoffset() or timedelta()).total_seconds() / 60)
    if not minutes:
        return "UTC"
    hours, rest = divmod(abs(minutes), 60)
    return f"UTC{'+' if minutes > 0 else '−'}{hours}" + (f":{rest:02}" if rest else "")

def local_minute(instant: datetime, reader: Reader) -> datetime:
    """An instant on the reader's clock, rounded up to a minute, as durations are."""
    instant += timedelta(seconds=-(instant.second + instant.microsecond / MICROS) % 60)
    return instant.astimezone(reader.zone)

def format_time(local: datetime, reader: Reader) -> str:
    """A time of day: ``00:00``, with its zone where that isn't the reader's own."""
    text = f"{local:%H:%M}"
    if reader.zone_is_own:
        text = reader.language.clock.format(clock=text)
    else:
        text += f" {format_zone(local)}"
    return isolate_amount(text, reader.language)

def format_date(local: datetime, language: Language) -> str:
    """A date without its year: ``1 February``."""
    months = language.months.split()
    month = months[local.month - 1] if months else local.month
    day = local.day if local.day > 1 else language.first_day
    return language.date.format(day=day, month=month)

def format_instant(instant: datetime, now: datetime, reader: Reader) -> str:
    """An instant on the reader's clock, without a preposition; with its date unless it's today."""
    local, language = local_minute(instant, reader), reader.language
    time = format_time(local, reader)
    if local.date() == now.astimezone(reader.zone).date():
        return time
    return language.moment.format(date=format_date(local, language), time=time)

def format_at(instant: datetime, now: datetime, reader: Reader) -> str:
    """When, as a sentence says it: ``at 18:00``, ``tomorrow at 00:00``, ``on 1 February at …``."""
    local, language = local_minute(instant, reader), reader.language
    days = (local.date() - now.astimezone(reader.zone).date()).days
    pattern = {0: language.at, 1: language.tomorrow}.get(days, language.on_date)
    if local.hour == 1 and language.hour_one:
        usual, _, before_one = language.hour_one.partition("|")
        pattern = pattern.replace(usual, before_one)
    return pattern.format(date=format_date(local, language), time=format_time(local, reader))

def format_within(instant: datetime, now: datetime, reader: Reader) -> str:
    """How long until then, as a clause of a sentence; nothing where that says its date."""
    local, language = local_minute(instant, reader), reader.language
    if (local.date() - now.astimezone(reader.zone).date()).days > 1:
        return ""
    duration = isolate_amount(format_duration(instant - now, language), language)
    return language.within.format(within=duration)

# Sentences

def policy_shown(state: LimitState) -> str:
    """The name of a group or a pool; a role's or a user's own policy has none for its user."""
    applied = state.applied
    named = applied.is_pool or applied.policy_kind == "group"
    return clean_name(applied.policy) if named else ""

def template_values(
    state: LimitState, now: datetime, reader: Reader, model: str
) -> dict[str, str | int]:
    """The placeholders of the administrator's templates, for one limit."""
    limit, language = state.applied.limit, reader.language
    unit = f"{format_unit(limit, state.amount, language)}{on_model(limit, language)}"
    return {
        "used": format_amount(limit, state.taken, language),
        "limit": format_amount(limit, state.amount, language),
        "remaining": format_amount(limit, state.remaining, language),
        "percent": format_count(state.percent, language),
        "unit": unit.strip(),
        "period": format_period(limit, language),
        "reset_at": format_instant(state.reset_at, now, reader),
        "reset_in": format_duration(state.reset_at - now, language),
        "policy": isolate(policy_shown(state), language),
        "model": isolate(clean_name(model), language),
    }

def limit_text(limit: Limit, language: Language = ENGLISH) -> str:
    """A limit as a heading or a cell says it: ``50,000 tokens per day on gpt-4*``."""
    quantity, on = plain_quantity(limit, limit.amount, language), on_model(limit, language)
    return language.what.format(quantity=quantity, period=format_period(limit, language), on=on)

def sentence_values(state: LimitState, now: datetime, reader: Reader) -> dict[str, str]:
    """The fields of the language's own sentences, for one limit."""
    limit, language = state.applied.limit, reader.language
    pooled = state.applied.is_pool
    policy = isolate(policy_shown(state), language)
    named = language.named.format(policy=policy) if policy else ""
    quantity, on = plain_quantity(limit, state.amount, language), on_model(limit, language)
    period = format_period(limit, language)
    label = language.reached_label if state.exceeded else language.label
    remaining = format_amount(limit, state.remaining, language)
    plural = state.remaining if limit.measure != "cost" else MICROS
    percent = language.percent.format(n=format_count(state.percent, language))
    return {
        "what": language.what.format(quantity=quantity, period=period, on=on),
        "owner": language.owner.split("|")[pooled],
        "named": named,
        "label": label.split("|")[pooled] + (named if pooled else ""),
        "model": isolate(clean_name(limit.model_glob), language),
        "percent": isolate_amount(percent, language),
        "used": format_amount(limit, state.taken, language),
        "left": language.form(language.left, plural).format(n=remaining),
        "at": format_at(state.reset_at, now, reader),
        "within": format_within(state.reset_at, now, reader),
    }

def with_reset(state: LimitState, sentence: str, values: Mapping[str, str], reader: Reader) -> str:
    """A sentence and the one that says when the limit opens again."""
    rolling = state.applied.limit.period.rolling is not None
    reset = reader.language.opens if rolling else reader.language.resets
    gap = "" if sentence.endswith("。") else " "
    text = f"{sentence.format_map(values)}{gap}{reset.format_map(values)}"
    # German abbreviates its minutes with a point, which then ends the sentence as well.
    return finish_sentence(text.removesuffix(".") if text.endswith("..") else text, reader.language)

def limit_sentence(
    template: str, state: LimitState, now: datetime, reader: Reader, model: str
) -> str:
    """The refusal that a user reads at the hard limit; `template` "" for the built-in one.

    A limit about one moment isn't used up and doesn't reset, so no template speaks of it.
    """
    limit = state.applied.limit
    own = None if limit.is_moment else fill_template(template, state, now, reader, model)
    if own is not None:
        return own
    language, values = reader.language, sentence_values(state, now, reader)
    if state.amount == 0:
        if limit.source:
            source = language.named.format(policy=language.source(limit.source))
            values["named"] = source + values["named"]
        every = language.no_paid if limit.measure == "cost" else language.no_models
        sentence = every if limit.model_glob == "*" else language.no_model
        return finish_sentence(sentence.format_map(values), language)
    if limit.is_per_request:
        return per_request_sentence(limit, reader, policy_shown(state))
    counts_all = limit.model_glob == "*" and not limit.source and not state.applied.is_pool
    if limit.is_at_once and counts_all:
        return at_once_sentence(state.taken, language)
    if state.is_only_held:
        return finish_sentence(language.held.format_map(values), language)
    return with_reset(state, language.reached, values, reader)

def stopped_sentence(state: LimitState, now: datetime, reader: Reader) -> str:
    """What a user reads under a response that was ended at a hard limit."""
    values = sentence_values(state, now, reader) | {"within": ""}
    return with_reset(state, reader.language.stopped, values, reader)

def per_request_sentence(limit: Limit, reader: Reader, policy: str = "") -> str:
    """The refusal of one request that is longer than a limit per request allows."""
    language, name = reader.language, isolate(clean_name(policy), reader.language)
    return finish_sentence(
        language.per_request.format(
            quantity=plain_quantity(limit, limit.amount, language),
            on=on_model(limit, language),
            named=language.named.format(policy=name) if name else "",
        ),
        language,
    )

def at_once_sentence(running: int, language: Language) -> str:
    """The refusal of a request beside as many running ones as a limit allows."""
    quantity = count_things("responses", running, language)
    sentence = language.form(language.at_once, running).format(quantity=quantity)
    return finish_sentence(sentence, language)

def warning_sentence(
    template: str, state: LimitState, now: datetime, reader: Reader, model: str
) -> str:
    """The warning that a user reads at a soft limit; `template` "" for the built-in one."""
    own = fill_template(template, state, now, reader, model)
    if own is not None:
        return own
    language, values = reader.language, sentence_values(state, now, reader)
    rolling = state.applied.limit.period.rolling is not None
    until = "" if rolling else language.status_reset.format_map(values)
    return finish_sentence(language.warning.format(**values, until=until), language)

def status_line(state: LimitState, now: datetime, reader: Reader) -> str:
    """The line over a finished reply: where the fullest limit stands."""
    language, values = reader.language, sentence_values(state, now, reader)
    share = "" if state.exceeded else language.share
    reset = "" if state.applied.limit.period.rolling is not None else language.status_reset
    return finish_sentence((language.status + share + reset).format_map(values), language)

def own_use_line(
    tokens: int, cost_micros: int, state: LimitState | None, now: datetime, reader: Reader
) -> str:
    """The line over a finished reply for who wishes it always: its own use, then what is left.

    A phone cuts the line's end, so the amount that remains stands before the rest.
    """
    language = reader.language
    parts = [count_things("tokens", tokens, language)]
    if cost_micros:
        dollars = format_dollars(cost_micros / MICROS, language)
        parts[0] += f", {isolate_amount(dollars, language)}"
    if state is not None:
        parts += [sentence_values(state, now, reader)["left"], status_line(state, now, reader)]
    return cut_sentence(" · ".join(parts), language)

def cap_sentence(tokens: int, language: Language) -> str:
    """What a user reads where a reply may only be this long."""
    quantity = count_things("tokens", tokens, language)
    return finish_sentence(language.cap.format(quantity=quantity), language)

def alert_sentence(state: LimitState, user: str) -> str:
    """What the administrator's webhook is told; of a pool, nobody's name."""
    applied = state.applied
    name, limit = clean_name(applied.policy), clean_name(str(applied.limit))
    percent = format_count(state.percent, ENGLISH)
    if applied.is_pool:
        used = "been reached" if state.exceeded else f"been used to {percent}%"
        return f"The shared limit of {limit} ({name}) has {used}."
    crossed = "has reached" if state.exceeded else f"has used {percent}% of"
    named = f" ({name})" if name else ""
    return f"{clean_name(user)} {crossed} the limit of {limit}{named}."

# ================================== helpers/openwebui/alerts.py ===================================
# Alerts: tells the administrator's webhook that a user has crossed a limit.

ALERT_ATTEMPTS = 4
ALERT_TIMEOUT_SECONDS = 10
ALERT_PAUSE_SECONDS = 2.0
ALERT_IDLE_SECONDS = 30
MOST_QUEUED_ALERTS = 100

def alert_payload(reservation: Reservation, state: LimitState) -> dict[str, object]:
    """One crossing as JSON; chat systems read ``text``, programs the rest."""
    applied, subject = state.applied, reservation.subject
    # A pool is nobody's in particular: whoever happened to cross it isn't named.
    user = {} if applied.is_pool else {"user_id": subject.user_id, "user_email": subject.email}
    who = f"The pool {applied.policy}" if applied.is_pool else subject.email or subject.user_id
    return {
        "text": alert_sentence(state, who),
        "event": "hard_limit" if state.exceeded else "soft_limit",
        **user,
        "policy": applied.policy,
        "limit": str(applied.limit),
        "used": state.used,
        "amount": state.amount,
        "percent": state.percent,
        "reset_at": state.reset_at.astimezone(UTC).isoformat(),
    }

def post_alert(url: str, payload: dict[str, object]) -> bool:
    """Post an alert, several times if need be; blocks, so it runs in a thread of its own.

    Slack, Mattermost and Teams take a JSON object with ``text``. Failures are logged without
    the URL: it is a secret of the chat system.
    """
    for attempt in range(1, ALERT_ATTEMPTS + 1):
        try:
            response = requests.post(url, json=payload, timeout=ALERT_TIMEOUT_SECONDS)
            if response.ok:
                return True
            reason = f"status {response.status_code}"
        except requests.RequestException as error:
            reason = type(error).__name__
        if attempt < ALERT_ATTEMPTS:
            time.sleep(ALERT_PAUSE_SECONDS * 2 ** (attempt - 1))
    log.error("Usage limits: an alert was not delivered: %s", reason)
    return False

class AlertSender:
    """Posts alerts one after the other, in a thread that nobody waits for.

    The thread starts with the first alert and ends with the process, whatever is still queued.
    """

    def __init__(self) -> None:
        self._queue: Queue[tuple[str, dict[str, object]]] = Queue(MOST_QUEUED_ALERTS)
        self._thread: Thread | None = None
        self._starting = Lock()

    def send(self, url: str, payload: dict[str, object]) -> None:
        """Queue an alert; log that it was dropped where too many wait already."""
        try:
            self._queue.put_nowait((url, payload))
        except Full:
            log.error("Usage limits: an alert was dropped: %d wait already", MOST_QUEUED_ALERTS)
            return
        with self._starting:
            if self._thread is None or not self._thread.is_alive():
                # A daemon: a webhook that doesn't answer must not hold up the server's exit.
                self._thread = Thread(target=self._post, name="usage-limits-alerts", daemon=True)
                self._thread.start()

    def _post(self) -> None:
        while True:
            try:
                url, payload = self._queue.get(timeout=ALERT_IDLE_SECONDS)
            except Empty:
                return
            try:
                post_alert(url, payload)
            except Exception:
                log.exception("Usage limits: an alert was not delivered")

# ================================= helpers/openwebui/refusals.py ==================================
# Refusals and rate headers as the programs of each protocol read them.

# The clients of OpenAI and Anthropic wait this long between their own attempts at most.
LONGEST_CLIENT_WAIT = 60
# When to come again after a fault of ours.
FAULT_RETRY_SECONDS = 60

OPENAI_ERROR_TYPES = {
    400: "invalid_request_error",
    403: "permission_denied",
    413: "request_too_large",
    429: "rate_limit_exceeded",
    503: "service_unavailable",
}
ANTHROPIC_ERROR_TYPES = {
    400: "invalid_request_error",
    403: "permission_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
# The measures that OpenAI's headers speak of, as it calls them.
HEADER_MEASURES = ("requests", "tokens")

# What the clients of a path read errors in.
ErrorForm = Literal["openai", "anthropic", "ollama"]
RawHeaders = list[tuple[bytes, bytes]]

@dataclass(frozen=True, slots=True)
class Refusal:
    """What a program is told instead of an answer."""

    status: int
    sentence: str
    retry_after: int | None = None

    def body(self, form: ErrorForm) -> bytes:
        """The error as clients of this protocol read it, and Open WebUI's own `detail`."""
        if form == "ollama":
            error: dict[str, object] = {"error": self.sentence}
        elif form == "anthropic":
            kind = ANTHROPIC_ERROR_TYPES.get(self.status, "api_error")
            error = {"type": "error", "error": {"type": kind, "message": self.sentence}}
        else:
            kind = OPENAI_ERROR_TYPES.get(self.status, "server_error")
            error = {"error": {"message": self.sentence, "type": kind, "param": None, "code": kind}}
        return json.dumps({**error, "detail": self.sentence}).encode()

    def headers(self) -> RawHeaders:
        """When to come again, and whether to try before."""
        if self.retry_after is None:
            return [(b"x-should-retry", b"false")]
        headers = [(b"retry-after", str(self.retry_after).encode())]
        if self.retry_after > LONGEST_CLIENT_WAIT:
            headers.append((b"x-should-retry", b"false"))
        return headers

class PassthroughError(Exception):
    """A request that is refused at its pass-through path."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.sentence)
        self.refusal = refusal

def spell_wait(seconds: float) -> str:
    """A time to wait as OpenAI spells it: 1s, 6m0s, 5h12m0s."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minute}m{second}s"
    return f"{minute}m{second}s" if minute else f"{second}s"

def rate_headers(states: Iterable[LimitState], now: datetime) -> RawHeaders:
    """Where the tightest limit on requests and the one on tokens stand."""
    headers: RawHeaders = []
    listed = list(states)
    for measure in HEADER_MEASURES:
        found = [
            state
            for state in listed
            if state.applied.limit.measure == measure and not state.applied.limit.is_moment
        ]
        if found:
            tightest = min(found, key=lambda state: state.remaining)
            wait = spell_wait((tightest.reset_at - now).total_seconds())
            headers += [
                (f"x-ratelimit-limit-{measure}".encode(), str(tightest.amount).encode()),
                (f"x-ratelimit-remaining-{measure}".encode(), str(tightest.remaining).encode()),
                (f"x-ratelimit-reset-{measure}".encode(), wait.encode()),
            ]
    return headers

# =============================== helpers/openwebui/http_requests.py ===============================
# The HTTP requests that the layer serves: their state, path and body.

# Requests that are read here are JSON, with pictures in it at most; a longer one is refused.
LARGEST_REQUEST = 16 * 2**20
# As deep as Open WebUI's middlewares are looked through.
MOST_LAYERS = 50

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

# The state of the request that this task serves, or that started it: out of its client's reach.
current_state: ContextVar[MutableMapping[str, Any] | None] = ContextVar(
    "usage_limits_state", default=None
)
# What the browser that asks for a valves form accepts: the header, as it came.
accepted_languages: ContextVar[str] = ContextVar("usage_limits_languages", default="")
REFUSAL_STATE = "usage_limits_refusal"
LIMITS_STATE = "usage_limits_limits"
SOURCE_STATE = "usage_limits_source"

def note_in_state(name: str, value: object) -> None:
    """Keep something for the layer; nothing is kept where there is none."""
    state = current_state.get()
    if state is not None:
        state[name] = value

def route_path(scope: Scope) -> str:
    """A request's path below the prefix that a proxy may have put before Open WebUI."""
    path, prefix = str(scope.get("path", "")), str(scope.get("root_path", ""))
    if prefix and path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in ("", "/"):
        return path[len(prefix) :]
    return path

def set_route_path(scope: Scope, path: str) -> None:
    """Send a request to another path of Open WebUI."""
    prefix = str(scope.get("root_path", ""))
    whole = prefix + path if str(scope.get("path", "")).startswith(prefix) else path
    scope["path"] = whole
    scope["raw_path"] = whole.encode()

def without_headers(message: Message, *names: bytes) -> RawHeaders:
    """The headers of a request or an answer, but for these."""
    return [pair for pair in message.get("headers", ()) if pair[0].lower() not in names]

def json_headers(body: bytes) -> RawHeaders:
    """The headers that say of a body that it is JSON."""
    length = str(len(body)).encode()
    return [(b"content-type", b"application/json"), (b"content-length", length)]

class ReadRequest:
    """A JSON request, read here and handed on as it was understood."""

    def __init__(self, value: dict[str, Any], receive: Receive) -> None:
        self.value = value
        self._receive: Receive = receive
        self._handed = False

    @classmethod
    async def read(cls, receive: Receive) -> ReadRequest:
        """Read it.

        Raises:
            PassthroughError: It is too long, or no JSON object.
        """
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise PassthroughError(Refusal(400, UNREADABLE_SENTENCE))
            part = message.get("body", b"")
            size += len(part)
            if size > LARGEST_REQUEST:
                sentence = TOO_LARGE_SENTENCE.format(size=LARGEST_REQUEST // 2**20)
                raise PassthroughError(Refusal(413, sentence))
            parts.append(part)
            if not message.get("more_body"):
                break
        try:
            value = json.loads(b"".join(parts))
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise PassthroughError(Refusal(400, UNREADABLE_SENTENCE))
        return cls(value, receive)

    def hand_on(self, scope: Scope) -> Receive:
        """What Open WebUI receives; two readings of the same text can't differ this way."""
        try:
            body = json.dumps(self.value).encode()
        except (ValueError, RecursionError) as error:
            raise PassthroughError(Refusal(400, UNREADABLE_SENTENCE)) from error
        replaced = (b"content-length", b"content-type", b"transfer-encoding")
        scope["headers"] = [*without_headers(scope, *replaced), *json_headers(body)]

        async def receive() -> Message:
            if self._handed:
                return await self._receive()
            self._handed = True
            return {"type": "http.request", "body": body, "more_body": False}

        return receive

# ================================== helpers/openwebui/valves.py ===================================
# The valves: what the administrator and each user can set, and how bad input is refused.

# Open WebUI builds the valves anew for every request; the texts rarely change.
read_policies = lru_cache(maxsize=8)(parse_policies)
read_timezone = lru_cache(maxsize=64)(load_timezone)

@lru_cache(maxsize=8)
def needed_retention(policies_text: str) -> timedelta:
    """For how long the limits in a policies text need records; 0 without any limit.

    A calendar period's for itself; a rolling one's twice, since it looks back on one.
    """
    tables = read_policies(policies_text).tables
    periods = [limit.period for table in tables for limit in table.limits or ()]
    needed = (
        timedelta(days=DATE_PERIODS.get(one.name, 0)) if one.rolling is None else 2 * one.rolling
        for one in periods
    )
    return max(needed, default=timedelta())

# Two months, of which a rolling one looks back on the first.
SHORTEST_RETENTION_DAYS = 62
LONGEST_RETENTION_DAYS = 100 * 366  # for good
# Open WebUI stores larger numbers and can't read them again, nor any function beside them.
LARGEST_STORED = 2**63 - 1

POLICIES_EXAMPLE = """\
Limits for groups, roles and users, as TOML, for example:

```toml
[group.Students]
limits = ["50k tokens/day", "1M tokens/month"]

[user."ann@example.org"]
limits = "unlimited"
```

For a member of several groups, the one with the lowest `priority = N` takes precedence. \
**The page `/usage-limits` has a better editor:** it checks the text as you type, shows whom each \
table means, and can replay the last days against it."""

@dataclass(frozen=True, slots=True)
class RefusedValve:
    """Why a valve was refused, and when."""

    reason: str
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

@dataclass(slots=True)
class FormTexts:
    """What the valves form shows above its fields when it opens next.

    Args:
        refused: Why a field was refused, until other valves have been accepted.
        unsaved: Why one was refused when the valves were to be stored.
        notes: What else there is to say about one.
        accepted: The valves that were accepted last.
    """

    refused: dict[str, RefusedValve] = field(default_factory=dict)
    unsaved: dict[str, RefusedValve] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    accepted: Any = None

    def note(self, name: str, text: str) -> None:
        """Show a text above a field; "" for none."""
        self.notes[name] = text
        if not text:
            del self.notes[name]

    def texts(self) -> list[tuple[str, str]]:
        """Fields and what stands above them, the lowest first."""
        refused = self.refused | self.unsaved
        said = [
            (name, f"**NOT SAVED at {one.at:%H:%M} UTC:** {one.reason}")
            for name, one in list(refused.items())
        ]
        return [*self.notes.items(), *said]

# Open WebUI makes its valves anew for every request, so that they can't remember anything.
FORM_TEXTS = FormTexts()

class AdminValves(BaseModel):
    """What the administrator sets.

    Open WebUI's own toast hides why valves were refused: the reason goes to the server log and
    into the form.
    """

    model_config = ConfigDict(hide_input_in_errors=True, extra="ignore")

    priority: int = Field(
        default=0,
        ge=-LARGEST_STORED,
        le=LARGEST_STORED,
        description="Order among filters: those with a lower number run first. Default: 0.",
    )
    daily_token_limit: int = Field(
        default=0,
        ge=0,
        le=LARGEST_STORED,
        description="Tokens per day for each user without a policy. Default: 0, no limit.",
    )
    monthly_token_limit: int = Field(
        default=0,
        ge=0,
        le=LARGEST_STORED,
        description="Tokens per calendar month for each user without a policy. "
        "Default: 0, no limit.",
    )
    soft_limit_percent: int = Field(
        default=80,
        ge=1,
        le=100,
        description="Users are warned, once per period, when they have used this percentage "
        "of a limit. Default: 80.",
    )
    policies: str = Field(default="", description=POLICIES_EXAMPLE)
    multiple_groups: Literal["priority", "most_generous"] = Field(
        default="priority",
        description="Which group takes precedence for a member of several. `priority`, the "
        "default: the one with the lowest priority number. `most_generous`: the one that "
        "allows most.",
    )
    exempt_admins: bool = Field(
        default=True, description="Administrators are recorded, never refused. Default: on."
    )
    timezone: str = Field(
        default="UTC",
        description="Where days, weeks and months begin. Default: UTC.",
        json_schema_extra={"input": {"type": "select", "options": "list_timezones"}},
    )
    reset_hour: int = Field(
        default=0,
        ge=0,
        le=23,
        description="The local hour at which a day begins, 0 to 23. Default: 0.",
    )
    week_starts_on: Literal["monday", "sunday"] = Field(
        default="monday", description="The first day of a week. Default: monday."
    )
    month_starts_on: int = Field(
        default=1, ge=1, le=28, description="The day on which a month begins, 1 to 28. Default: 1."
    )
    request_stream_usage: bool = Field(
        default=True,
        description="Ask providers to report usage in streams (stream_options.include_usage). "
        "Without it, streamed replies are estimated. Default: on.",
    )
    running_replies: Literal["finish", "stop"] = Field(
        default="finish",
        description="What happens to a response that reaches a hard limit while it is being "
        "written. `finish`, the default: it is written to its end, which may be over the limit. "
        "`stop`: it ends there, with what has come so far, and can be continued later.",
    )
    cap_max_tokens: bool = Field(
        default=False,
        description="Lower a request's max_tokens to what remains, in every round and for all its "
        "choices together, so that a reply can't exceed its limit. Default: off.",
    )
    passthrough: Literal["count", "block", "allow"] = Field(
        default="count",
        description="Calls to Open WebUI's own pass-through paths (`/openai/*`, `/ollama/*`, "
        "`/api/v1/tasks/*/completions`, embeddings, speech). `count`, the default: they count like "
        "any other, and what can't be counted is blocked. `block`: all are blocked. `allow`: they "
        "pass and are recorded.",
    )
    usage_page: bool = Field(
        default=True,
        description="Pages at `/usage-limits`: their own use for users, all of it for "
        "administrators. Default: on.",
    )
    on_ledger_error: Literal["allow", "block"] = Field(
        default="allow",
        description="What happens to requests while the ledger can't be read or written. `allow`, "
        "the default: they go on and are recorded later. `block`: they are refused.",
    )
    shadow_mode: bool = Field(
        default=False,
        description="Try out limits: refuse nothing, and log what would be refused. Default: off.",
    )
    limit_message: str = Field(
        default="",
        description="What users read at a hard limit, at most 1,000 characters. Default: a "
        "sentence in each user's language. Placeholders, plain names only: "
        "{used} {limit} {remaining} {percent} {unit} {period} {reset_at} {reset_in} {policy} "
        "{model}",
    )
    warning_message: str = Field(
        default="",
        description="What users read at a soft limit. Default: a sentence in each user's "
        "language. Placeholders as above.",
    )
    alert_webhook_url: str = Field(
        default="",
        description="Web address that gets a message when a user reaches a limit, once per period: "
        "JSON that Slack, Mattermost and Teams can read. Default: none.",
        json_schema_extra={"input": {"type": "password"}},
    )
    retention_days: int = Field(
        default=400,
        ge=SHORTEST_RETENTION_DAYS,
        le=LARGEST_STORED,
        description="Records older than this are dropped; what open periods have used stays. "
        "Default: 400.",
    )
    database_url: str = Field(
        default="",
        description="Database for the ledger. Default: Open WebUI's own.",
        json_schema_extra={"input": {"type": "password"}},
    )

    @model_validator(mode="wrap")
    @classmethod
    def remember_refusal(cls, data: Any, handler: ModelWrapValidatorHandler[Any]) -> Any:
        """Note a refusal by field; drop the note when the valves change for good."""
        if isinstance(data, dict):
            # The form posts an emptied number field as "": that means its default.
            data = {
                name: value
                for name, value in data.items()
                if value != "" or cls.is_text_field(name)
            }
        try:
            valves = handler(data)
        except ValidationError as error:
            cls.note_refusal(error)
            raise
        if data != FORM_TEXTS.accepted:
            FORM_TEXTS.refused.clear()
        if not FORM_TEXTS.refused:
            FORM_TEXTS.accepted = data
        return valves

    @classmethod
    def is_text_field(cls, name: str) -> bool:
        """Whether a field is free text, for which "" is a value of its own."""
        return name in cls.model_fields and cls.model_fields[name].annotation is str

    @classmethod
    def note_refusal(cls, error: ValidationError) -> None:
        """Log each reason once and keep those of the last save for the form."""
        before, FORM_TEXTS.refused = FORM_TEXTS.refused, {}
        for problem in error.errors(include_url=False, include_context=False, include_input=False):
            name = str(problem["loc"][0]) if problem["loc"] else "valves"
            reason = problem["msg"].removeprefix("Value error, ")
            if name not in before or before[name].reason != reason:
                log.error("Usage limits: valve %s was refused: %s", name, reason)
            FORM_TEXTS.refused[name] = RefusedValve(reason)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(handler(core_schema))
        for name, text in FORM_TEXTS.texts():
            described = schema.get("properties", {}).get(name)
            if described is not None:
                described["description"] = f"{text}\n\n{described.get('description', '')}"
        return schema

    @field_validator("policies")
    @classmethod
    def check_policies(cls, text: str) -> str:
        """Refuse a policies text that doesn't parse."""
        read_policies(text)
        return text

    @field_validator("timezone")
    @classmethod
    def check_timezone(cls, name: str) -> str:
        """Refuse an unknown time zone."""
        read_timezone(name)
        return name

    @field_validator("limit_message", "warning_message")
    @classmethod
    def check_message(cls, template: str, info: ValidationInfo) -> str:
        """Refuse unknown placeholders."""
        check_placeholders(str(info.field_name), template)
        return template

    @model_serializer(mode="wrap")
    def try_messages(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Refuse a template that can't be shown, once the valves are to be stored.

        Not when they are loaded: an older release stored such ones, and users then read the
        built-in sentence.
        """
        FORM_TEXTS.unsaved.clear()
        for name in ("limit_message", "warning_message"):
            try:
                check_template(name, getattr(self, name))
            except ConfigurationError as error:
                log.error("Usage limits: valve %s was refused: %s", name, error)
                FORM_TEXTS.unsaved[name] = RefusedValve(str(error))
                raise
        stored: dict[str, Any] = handler(self)
        return stored

    @field_validator("alert_webhook_url")
    @classmethod
    def check_alert_webhook_url(cls, url: str) -> str:
        """Refuse what isn't a web address."""
        if url.strip() and not url.strip().startswith(("https://", "http://")):
            raise ConfigurationError(
                "alert_webhook_url", "not a web address", "https://… or http://…"
            )
        return url.strip()

    @field_validator("database_url")
    @classmethod
    def check_database_url(cls, url: str) -> str:
        """Refuse what isn't a URL of SQLite or PostgreSQL."""
        if url.strip():
            parse_database_url(url, "database_url")
        return url.strip()

    @classmethod
    def list_timezones(cls) -> list[str]:
        """The options of the time zone field."""
        return available_timezones_list()

    @property
    def policy_set(self) -> PolicySet:
        """The policies text, read."""
        return read_policies(self.policies)

    @property
    def retention_seconds(self) -> int:
        """How long records are kept: never less than the limits need."""
        days = min(self.retention_days, LONGEST_RETENTION_DAYS)
        needed = needed_retention(self.policies)
        return int(max(timedelta(days=days), needed).total_seconds())

    @property
    def calendar_rules(self) -> CalendarRules:
        """Where periods begin."""
        return CalendarRules(
            read_timezone(self.timezone),
            self.reset_hour,
            self.week_starts_on,
            self.month_starts_on,
        )

    @property
    def default_policy(self) -> Policy:
        """The two simple valves as the policy of whoever no other names."""
        amounts = ((self.daily_token_limit, "day"), (self.monthly_token_limit, "month"))
        limits = tuple(
            Limit(amount, "tokens", parse_period(period)) for amount, period in amounts if amount
        )
        return Policy("default", "default", limits or None)

def is_exempt(valves: AdminValves, subject: Subject) -> bool:
    """Whether a user is recorded but never refused."""
    return valves.exempt_admins and subject.role == "admin"

class PersonalValves(BaseModel):
    """What each user sets, in a form in the user's own language."""

    show_usage: Literal["near_limit", "always", "never"] = Field(
        default="near_limit",
        description="Your usage above each response: near a limit, always, or never. "
        "The form is in the user's language.",
    )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(handler(core_schema))
        field = schema["properties"]["show_usage"]
        title, description, *labels = choose_language(accepted_languages.get()).show_usage.split(
            "|"
        )
        # Open WebUI shows a list of bare values as it is, and would prefer it.
        options = zip(field.pop("enum"), labels, strict=True)
        labelled = [{"value": value, "label": label} for value, label in options]
        field["title"], field["description"] = title, description
        field["input"] = {"type": "select", "options": labelled}
        return schema

def count_limits(
    valves: AdminValves, subject: Subject, model_names: tuple[str, ...], now: datetime
) -> tuple[AppliedLimit, ...]:
    """The limits that count for a request; none for an exempt user or a free model."""
    policies = valves.policy_set
    if is_exempt(valves, subject) or find_model_rule(policies, model_names).weight == 0:
        return ()
    policy = choose_policy(subject, policies, valves.default_policy, valves.multiple_groups)
    return applied_limits(subject, policy, policies, model_names, now, valves.calendar_rules)

# =============================== helpers/openwebui/host_versions.py ===============================
# What is special about Open WebUI's versions, and which of its internals are leaned upon.

HostVersion = tuple[int, int, int]

OLDEST_HOST_VERSION: HostVersion = (0, 10, 0)
REQUEST_HOOK_VERSION: HostVersion = (0, 11, 2)
# Since then the routes see for themselves whether API keys are on; before, a middleware told them.
KEYS_ASKED_VERSION: HostVersion = (0, 11, 0)

@dataclass(frozen=True, slots=True)
class HostInternal:
    """Something of Open WebUI's own that may be elsewhere in its next version.

    Args:
        module: Where it is.
        name: What it is called there, with dots.
        used_for: What doesn't work without it.
        since: The first version that has it.
    """

    module: str
    name: str
    used_for: str
    since: HostVersion = OLDEST_HOST_VERSION

HOST_INTERNALS = (
    HostInternal(
        "open_webui.main", "app.middleware_stack", "the pass-through paths, statuses and headers"
    ),
    HostInternal("open_webui.main", "app.state.MODELS", "the base models of custom ones"),
    HostInternal("open_webui.main", "chat_completion_handler", "answers that come whole"),
    HostInternal(
        "open_webui.main", "passthrough_anthropic_messages", "Anthropic's protocol", (0, 12, 0)
    ),
    HostInternal("open_webui.utils.middleware", "generate_chat_completion", "tool rounds"),
    HostInternal("open_webui.utils.middleware", "image_generations", "images of chats"),
    HostInternal("open_webui.tools.builtin", "image_generations", "images that models draw"),
    HostInternal("open_webui.routers.tasks", "generate_chat_completion", "tasks"),
    HostInternal(
        "open_webui.utils.chat", "generate_chat_completion", "memories, compaction, functions"
    ),
    HostInternal("open_webui.utils.auth", "get_verified_user", "who asks at a pass-through path"),
    HostInternal("open_webui.models.functions", "Functions.get_function_by_id", "the switch"),
    HostInternal(
        "open_webui.models.functions", "Functions.get_active_filter_ids", "the switch", (0, 12, 0)
    ),
    HostInternal(
        "open_webui.models.functions",
        "Functions.get_function_valves_by_id",
        "valves at a pass-through path",
    ),
    HostInternal("open_webui.models.config", "Config.get", "whether a provider makes embeddings"),
    HostInternal("open_webui.models.models", "Models.get_model_by_id", "models' settings"),
    HostInternal(
        "open_webui.utils.payload", "apply_system_prompt_to_body", "estimates of system prompts"
    ),
    HostInternal(
        "open_webui.utils.payload", "apply_model_params_to_body", "custom models' settings"
    ),
    HostInternal("open_webui.models.groups", "Groups.get_groups_by_member_id", "groups"),
    HostInternal("open_webui.models.groups", "Groups.get_all_groups", "unmatched groups"),
    HostInternal("open_webui.models.groups", "Group.parent_group_id", "inheritance", (0, 12, 0)),
    HostInternal("open_webui.internal.db", "engine", "the ledger's database"),
    HostInternal("open_webui.internal.db", "async_engine", "the ledger on PostgreSQL"),
    HostInternal("open_webui.env", "VERSION", "this table"),
    HostInternal("open_webui.env", "CUSTOM_API_KEY_HEADER", "API keys in a header"),
)

# ================================== helpers/openwebui/replies.py ==================================
# One reply from its admission to its end.

# Where a reply travels in Open WebUI's metadata.
METADATA_KEY = "usage_limits"
# And in the request with which a model is called for it.
OUTER_ATTRIBUTE = "usage_limits_reply"
# The output that is reserved for a model whose replies aren't known to be longer.
EXPECTED_OUTPUT_TOKENS = 500
# A longer one is rare, and providers refuse a max_tokens beyond what their models can write.
LONGEST_REPLY = 16_000
# When more is reserved, and how much: what a reply writes in some seconds. Near a limit it is a
# part of what nobody holds, so that all who write get to its end together.
GROW_AT_PERCENT = 80
BLOCK_SECONDS = 5.0
SMALLEST_BLOCK, LARGEST_BLOCK = 100, 2_000
SMALLEST_SHARE = 16
SHARES = 8
# From then on it is known how many bytes of a stream bring a token, and how far that may carry.
MEASURED_TOKENS = 32
FARTHEST_MARK = 2**16
LENT_MARK = 2**12
# Larger than what any limit leaves.
UNBOUNDED = 2**62

# As many choices as OpenAI's API gives at most.
MOST_CHOICES = 128
OUTPUT_KEYS = ("max_completion_tokens", "max_tokens")
OPTION_KEYS = ("num_predict", "max_tokens")
LENGTH_KEYS = (*OUTPUT_KEYS, "n", "best_of")

# What Open WebUI gives the hooks to show something on the chat page.
Emitter = Callable[[dict[str, Any]], Awaitable[None]]

def positive_number(value: object) -> int | None:
    """A whole number above 0, however its JSON says it; None where it isn't one."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = int(float(value[:20]) if isinstance(value, str) else value)
    except (ValueError, OverflowError):
        return None
    return number if number > 0 else None

def count_choices(body: Mapping[str, Any]) -> int:
    """How many answers a request asks for at once."""
    asked = (positive_number(body.get(name)) or 1 for name in ("n", "best_of"))
    return min(max(asked), MOST_CHOICES)

def wanted_output(body: Mapping[str, Any], *, ollama: bool) -> int | None:
    """The most output tokens that a request can ask its provider for, where it says.

    A field that doesn't reach the provider, or that it doesn't know, says nothing. One with a value
    that is no number may take the place of all others there, so then nothing is said.

    Args:
        body: The request.
        ollama: Whether Open WebUI sends it to Ollama. It hands on `max_tokens` then, or what the
            options say; nobody else reads those.
    """
    options = body.get("options")
    names = OUTPUT_KEYS[1:] if ollama else OUTPUT_KEYS
    wanted: list[Any] = [body[name] for name in names if name in body]
    if ollama and isinstance(options, Mapping):
        wanted += [options[name] for name in OPTION_KEYS if name in options]
    if not wanted or not all(type(value) is int and value > 0 for value in wanted):
        return None
    # Of several nobody knows which one is obeyed.
    return int(max(wanted)) * count_choices(body)

def cap_output(body: dict[str, Any], most: int, *, ollama: bool = False) -> None:
    """Lower what a request asks for to `most` output tokens in all, wherever it says so."""
    options, each = body.get("options"), max(1, most // count_choices(body))
    if isinstance(options, dict):
        options.update({name: each for name in OPTION_KEYS if name in options})
    # Open WebUI puts one in the place of the other, null as well.
    named = [name for name in OUTPUT_KEYS if name in body]
    if ollama or not named:  # to Ollama no other is handed on
        named.append("max_tokens")
    for name in named:
        asked = body.get(name)
        body[name] = min(asked, each) if type(asked) is int and asked > 0 else each

@dataclass(slots=True, eq=False)
class Reply:
    """What is known of one reply while it runs.

    Open WebUI hands the same metadata to all hooks of a reply; this object travels in it. As
    clients can only send JSON, none of them can make one up.
    """

    # Its Accounting; of another paste's class where the filter was replaced while it is running.
    keeper: Any
    reservation: Reservation
    limits: tuple[AppliedLimit, ...]
    rule: ModelRule
    reader: Reader
    enforced: bool  # whether a hard limit refuses its later rounds
    prompt_tokens: int  # the longest of its calls
    wanted_output: int | None
    capped: bool  # whether the request is lowered to what its limits leave
    soft_limit_percent: int
    alert_url: str  # "" for no alerts
    stops_at_limit: bool = False  # whether it ends where no more can be reserved for it
    needs_ledger: bool = False  # whether that goes for an outage of the ledger, too
    expected_output: int = EXPECTED_OUTPUT_TOKENS  # how long this model's replies are
    output_tokens: int = 0  # what is reserved
    output_cap: int | None = None  # what the request is lowered to, if it is
    next_prompt_tokens: int = 0  # of the call that comes next
    system_tokens: int = 0  # of its model's own system prompt, which no hook sees
    meter: ReplyMeter = field(default_factory=ReplyMeter)
    base: str = ""  # the model that Open WebUI is to call for it; "" for a function's
    ollama: bool = False  # whether Open WebUI sends it to Ollama
    choices: int = 1  # how many answers it asks for at once
    # Whether a model was called whose answer may be on its way, unseen: its estimate counts.
    called_model: bool = False
    outlives_task: bool = False  # whether its end is its stream's, whichever task reads that
    call_refused: bool = False  # whether the last call was refused by its provider, or broke
    answer_watched: bool = False  # whether whatever comes back from it is seen
    # What its user's own limits leave, so the most that it holds of what it hasn't produced yet.
    own_remaining: Mapping[Measure, int] = field(default_factory=dict)
    written: bool = False  # whether its reservation is
    growing: asyncio.Task[None] | None = None
    stream_size: int = 0  # of the stream that is running, when it was last looked at
    tokens_before: int = 0  # what the streams before it have produced
    writes_since: float | None = None  # by `time.monotonic`
    refused_by: LimitState | None = None  # the limit at which nothing more could be reserved
    stopped: bool = False
    emitter: Emitter | None = None  # of the chat page's, to say why it was stopped
    unread: LedgerError | None = None  # why the ledger could not be asked about its user
    ending: asyncio.Task[Decision | None] | None = None
    calls: list[Reply] = field(default_factory=list)  # of its function's; on record themselves
    ended_usage: Usage | None = None  # what it has used, once it has ended and was asked for
    beside_holds: bool = False  # whether it may have what running replies hold as well
    lent: int = 0  # the output that it would hold, had it not left that to calls within it

    def begin_round(self, prompt_tokens: int) -> None:
        """Note that the model is about to be called with this many prompt tokens."""
        self.prompt_tokens = max(self.prompt_tokens, prompt_tokens)
        self.meter.begin_round(prompt_tokens)

    @property
    def stops(self) -> bool:
        """Whether it ends where no more can be reserved for it."""
        return self.stops_at_limit and self.enforced

    def fit_output(self, decision: Decision) -> Charge:
        """Choose how much output to reserve, now that it is known what the limits leave."""
        self.output_cap = None
        wanted, expected = self.wanted_output, self.expected_output * self.choices
        fitting = self.most_output()
        if fitting is not None:
            wanted = min(wanted or fitting, fitting)
        self.output_tokens = min(wanted or expected, expected)
        self.fit_to(decision, 0, self.prompt_tokens)
        return self.reserved_charge()

    def fit_to(self, decision: Decision, produced: int, prompt_tokens: int) -> None:
        """Hold no more than the limits leave, and see that a capped request asks for no more.

        Args:
            decision: Where its limits stand without it.
            produced: The output tokens of the rounds before.
            prompt_tokens: Those of all rounds, with the one that follows.
        """
        self.own_remaining = own_remaining(decision)
        if self.beside_holds:
            decision = Decision(tuple(replace(one, reserved=0) for one in decision.states))
        most = most_output_tokens(decision, prompt_tokens, self.rule)
        if most is None:
            return
        self.output_tokens = min(self.output_tokens, most)
        if self.stops:  # what follows is reserved as it is written
            share = max(SMALLEST_BLOCK, most // SHARES)
            self.output_tokens = max(produced + 1, min(self.output_tokens, produced + share))
        if self.capped:
            # All that it may write is held: what a parallel request got as well would run over.
            wanted = produced + (self.wanted_output or LONGEST_REPLY * self.choices)
            self.output_tokens = min(wanted, most)
            self.output_cap = most if most < wanted else None

    def prompt_with(self, seen: Usage) -> int:
        """The prompt tokens of all rounds so far, with the one that was announced last."""
        if self.lent:
            return seen.input_tokens
        return max(self.prompt_tokens, seen.input_tokens + self.meter.awaited_prompt_tokens)

    def block(self, produced: int) -> int:
        """How much is reserved ahead of what was produced."""
        seconds = time.monotonic() - (self.writes_since or 0.0)
        speed = produced / max(seconds, 1.0)
        return max(SMALLEST_BLOCK, min(int(speed * BLOCK_SECONDS), LARGEST_BLOCK))

    def hold_more(self, seen: Usage, held: int, block: int, decision: Decision) -> Charge:
        """Hold a block more, or what the limits leave of it; a transaction may do so twice.

        Args:
            seen: What it has used.
            held: The output tokens that it has held so far.
            block: How much to reserve ahead of what it has produced.
            decision: Where its limits stand without it.
        """
        if self.stops:
            self.own_remaining = own_remaining(decision)
        self.refused_by = None
        wanted, least = seen.output_tokens + block, max(held, seen.output_tokens)
        found = tightest_limit(decision, self.prompt_with(seen), self.rule) if self.stops else None
        if found is not None:
            most, state = found
            share = max(SMALLEST_SHARE, (most - least) // SHARES)
            wanted = min(wanted, most, least + share)
            if wanted <= least:
                self.refused_by = state
        self.output_tokens = max(least, wanted)
        return self.reserved_charge(seen)

    def next_part(self, size: int, step: int, produced: int) -> int:
        """About how many tokens another part of its stream would bring, if like the last one.

        Args:
            size: Of the stream so far, in bytes or characters.
            step: Of its last part.
            produced: The output tokens of all rounds so far.
        """
        if size < self.stream_size:  # another round's
            self.tokens_before = produced
        self.stream_size = size
        return (produced - self.tokens_before) * step // size

    def is_nearly_full(self, produced: int) -> bool:
        """Whether it is time to reserve more."""
        return produced * 100 >= max(1, self.output_tokens) * GROW_AT_PERCENT

    def next_mark(self, size: int, produced: int) -> int:
        """The size of its stream at which to look again whether it holds enough.

        Args:
            size: Of the stream so far, in bytes or characters.
            produced: The output tokens so far.
        """
        left = self.output_tokens - produced
        if self.growing is None and self.refused_by is None:
            left = self.output_tokens * GROW_AT_PERCENT // 100 - produced
        if self.lent:  # its stream is mostly its calls'
            return size + LENT_MARK
        written = produced - self.tokens_before
        per_token = size / written if written >= MEASURED_TOKENS else 1.0
        return size + max(1, min(int(left * max(per_token, 1.0) * 0.9), FARTHEST_MARK))

    def request_decision(self) -> Decision:
        """Where the limits on single requests stand: with all rounds, and the prompt of the next.

        No ledger is needed for them.
        """
        own = [one for one in self.limits if one.limit.is_per_request]
        if not own:
            return Decision()
        states = tuple(LimitState(one, 0, 0, one.window.end) for one in own)
        # Of a task that isn't counted a hard limit holds all the same.
        prompt = weigh_tokens(self.next_prompt_tokens, self.rule.weight or Decimal(1))
        return Decision(states).with_request(self.used_charge().counted + Amounts(0, prompt))

    def most_output(self) -> int | None:
        """The most output tokens that the next call may give, at least 1; None for any number."""
        most = []
        if self.output_cap is not None:
            most.append(self.output_cap - self.meter.total().output_tokens)
        if self.enforced:
            weight = self.rule.weight or Decimal(1)
            most += [
                int(state.remaining / weight)
                for state in self.request_decision().states
                if state.applied.limit.measure != "input_tokens"
            ]
        return max(1, min(most)) if most else None

    def lower_output(self, body: dict[str, Any]) -> None:
        """Lower what a call asks for to what may be used."""
        most, wanted = self.most_output(), wanted_output(body, ollama=self.ollama)
        if most is not None and (wanted is None or wanted > most):
            cap_output(body, most, ollama=self.ollama)

    def trusted_model(self, asked: object) -> str:
        """The model that a call is for; "" at its user's own provider.

        There both the model's name and the answer are what the user likes. A custom model isn't
        taken for its base: it may bring parameters that the base's provider would not refuse.
        """
        own = self.reservation.source == "direct"
        return "" if own else clean_text(asked, LONGEST_NAME)

    def lacks_price(self, charge: Charge) -> bool:
        """Whether limits in money should count this charge, and nobody knows its cost."""
        return (
            not charge.cost_micros
            and not self.rule.is_priced
            and any(one.limit.measure == "cost" for one in self.limits)
            and self.meter.total().cost_micros is None  # a reported 0 is a cost
        )

    def call_begins(self) -> None:
        """Note that a model is being called, and that its answer will be seen."""
        self.called_model = self.answer_watched = True
        self.call_refused = False

    def call_failed(self) -> None:
        """Note that the provider refused the call, or that it broke before it answered."""
        self.called_model, self.call_refused = False, True

    def call_answered(self, answer: object) -> None:
        """Note an answer that came whole, any JSON value."""
        self.meter.add_answer(answer)

    def reserved_charge(self, seen: Usage | None = None) -> Charge:
        """What is to be held for it: the estimate, or what it has used already if more.

        Of an estimate it holds no more than its user's own limits leave, so that a single
        request can't empty a pool that others need.
        """
        seen = seen or self.own_usage()
        estimate = self.estimated_charge(seen)
        if not estimate.counted.requests:  # a free model's
            return estimate
        return hold_at_most(estimate, make_charge(seen, self.rule).counted, self.own_remaining)

    def estimated_charge(self, seen: Usage | None = None) -> Charge:
        """What it may cost: the estimate, or what it has used already if more."""
        seen = seen or self.own_usage()
        return make_charge(
            Usage(
                input_tokens=self.prompt_with(seen),
                output_tokens=max(self.output_tokens, seen.output_tokens),
                cached_input_tokens=0,
                cost_micros=seen.cost_micros,
                estimated=True,
            ),
            self.rule,
        )

    def unseen_charge(self) -> Charge:
        """What a call is charged for of which nothing was seen: an ordinary reply at most."""
        expected = self.output_tokens or self.lent
        output_tokens = min(expected, EXPECTED_OUTPUT_TOKENS * self.choices)
        return make_charge(Usage(self.prompt_tokens, output_tokens, estimated=True), self.rule)

    def used_charge(self) -> Charge:
        """What it has used so far."""
        return self.own_charge(self.meter.total())

    def seen_usage(self) -> Usage:
        """What it has used so far; of one that has ended that is added up once."""
        if self.ended_usage is not None:
            return self.ended_usage
        usage = self.meter.total()
        if self.ending is not None:
            self.ended_usage = usage
        return usage

    def own_usage(self, usage: Usage | None = None) -> Usage:
        """What it has used beside its function's calls, so far or of this `usage`."""
        beside = self.seen_usage() if usage is None else usage
        for call in (called := list(self.calls)):  # grows by theirs
            beside = beside.without(call.seen_usage())
            called += call.calls
        return beside

    def own_charge(self, usage: Usage) -> Charge:
        """What it costs beside its function's calls, of which its text and its usage mostly are."""
        beside = self.own_usage(usage)
        # Estimates are no better than that: what is less is the text of its calls, handed on.
        handed_on = usage.estimated and 2 * beside.output_tokens <= usage.output_tokens
        if self.calls and (handed_on or not (beside.input_tokens or beside.output_tokens)):
            return Charge()
        return make_charge(beside, self.rule)

    def final_charge(self, usage: object = None, text: str | None = None) -> Charge | None:
        """What it cost in the end; None if no model was called, or none that answered.

        Args:
            usage: The usage of the finished message, if any. It is read only where the model's
                answer wasn't seen: the message may have been saved by its user beforehand.
            text: The finished message, if the outlet saw one; for it the same holds.
        """
        if self.answer_watched:
            usage = text = None
        if self.meter.produced or usage or text:
            metered = self.meter.total(usage, text)
            awaited = self.meter.awaited_prompt_tokens if self.called_model else 0
            if awaited:  # stopped while a round of tools had gone to the model
                metered += Usage(awaited, estimated=True)
            return self.own_charge(metered)
        if self.calls:
            return Charge()
        # Stopped before its first byte, or an answer in words that nobody knows.
        return self.unseen_charge() if self.called_model and not self.meter.failed else None

# The reply that the task at work is for: of a chat, of which all tools run in it.
current_reply: ContextVar[Reply | None] = ContextVar("usage_limits_reply", default=None)

def find_reply(metadata: Mapping[str, Any] | None) -> Reply | None:
    """The reply that was admitted with this metadata."""
    reply = metadata.get(METADATA_KEY) if metadata else None
    # Not isinstance: the file may have been pasted anew while the reply was running. What came
    # from a client would be made of JSON's types.
    return None if isinstance(reply, (dict, list, str, int, float)) else reply

def outer_reply(request: object) -> Reply | None:
    """The reply for which a model is being called, where its function calls another."""
    return getattr(request, OUTER_ATTRIBUTE, None)

def is_older(reply: object) -> bool:
    """Whether a reply was admitted before 0.2.0, which knew no limits on single requests."""
    return not (hasattr(reply, "request_decision") and hasattr(reply, "stops"))

def drop_round(reply: Reply) -> None:
    """Note that a round that was announced isn't called; a meter of 0.1.0 can't."""
    if hasattr(reply.meter, "drop_round"):
        reply.meter.drop_round()

def own_remaining(decision: Decision) -> dict[Measure, int]:
    """What a user's own limits leave, by measure; nothing for a measure without one."""
    remaining: dict[Measure, int] = {}
    for state in decision.states:
        if not state.applied.is_pool:
            measure = state.applied.limit.measure
            remaining[measure] = min(state.remaining, remaining.get(measure, state.remaining))
    return remaining

def hold_at_most(estimate: Charge, used: Amounts, remaining: Mapping[Measure, int]) -> Charge:
    """An estimate that counts no more than what was used already, or than what remains."""
    counted = estimate.counted
    tokens = remaining.get("tokens", UNBOUNDED)
    input_tokens = min(counted.input_tokens, remaining.get("input_tokens", UNBOUNDED), tokens)
    output_tokens = min(
        counted.output_tokens, remaining.get("output_tokens", UNBOUNDED), tokens - input_tokens
    )
    cost = min(estimate.cost_micros, remaining.get("cost", UNBOUNDED))
    held = Amounts(
        counted.requests,
        max(used.input_tokens, input_tokens),
        max(used.output_tokens, output_tokens),
        max(used.cost_micros, cost),
    )
    return replace(estimate, cost_micros=held.cost_micros, counted=held)

# ================================ helpers/openwebui/passthrough.py ================================
# The paths by which Open WebUI lets its users reach a model past the hooks.

# chat: the hooks run. rewritten: sent to a path where they do. metered: admitted and metered by
# the middleware. request: counted as one request. indexing: the same, where the administrator has
# Open WebUI make embeddings by a provider. task: admitted where tasks call their model.
# unknown: whatever the provider offers there.
PassthroughKind = Literal[
    "chat", "rewritten", "metered", "embeddings", "request", "indexing", "task", "unknown"
]

CHAT_PATH = "/api/chat/completions"
# A path whose spelling changes this often under percent-decoding isn't meant well.
MOST_DECODINGS = 5

@dataclass(frozen=True, slots=True)
class Passthrough:
    """One of these paths.

    Args:
        path: How Open WebUI spells it.
        counts_tokens: Whether its answers are made of tokens, so that limits on them apply.
        asks_usage: Whether a stream of it can be asked for its usage as OpenAI spells that.
        in_json: Whether a request is JSON that names its model.
        of_page: Whether the page itself needs it, so that it is never blocked.
        in_images: Whether it is JSON that says how many images it asks for, each a request.
        model: What its records call the model, where a request doesn't name it.
    """

    kind: PassthroughKind
    path: str
    form: ErrorForm = "openai"
    counts_tokens: bool = True
    asks_usage: bool = False
    in_json: bool = True
    of_page: bool = False
    in_images: bool = False
    model: str = ""

CHAT_PASSTHROUGHS = {
    CHAT_PATH: Passthrough("chat", CHAT_PATH),
    "/api/v1/chat/completions": Passthrough("chat", "/api/v1/chat/completions"),
    "/api/message": Passthrough("chat", "/api/message", "anthropic"),
    "/api/v1/messages": Passthrough("chat", "/api/v1/messages", "anthropic"),
    "/api/embeddings": Passthrough("embeddings", "/api/embeddings"),
    "/api/v1/embeddings": Passthrough("embeddings", "/api/v1/embeddings"),
    **{
        path: Passthrough(
            "request",
            path,
            counts_tokens=False,
            in_json=False,
            of_page=True,
            in_images=path.startswith("/api/v1/images/"),
            model=path.rpartition("/")[2],
        )
        for path in (
            "/api/v1/audio/speech",
            "/api/v1/audio/transcriptions",
            "/api/v1/images/generations",
            "/api/v1/images/edit",
        )
    },
}
# Where files, memories, pages and queries are embedded, and recordings written down.
INDEXING_PATH = re.compile(
    r"/api/v1/(?:files/|files/[^/]+/data/content/update"
    r"|retrieval/(?:process/(?:file|text|url|youtube|web|web/search|files/batch)"
    r"|query/(?:doc|collection))"
    r"|memories/(?:add|update|query|search|reindex|reset|[^/]+/update)"
    r"|knowledge/(?:create|reindex|[^/]+/(?:update|file/add|file/update|files/batch/add)"
    r"|metadata/reindex|external/(?:knowledge/create|source/[^/]+"
    r"|connections/[^/]+/retrieve-test)))"
)
# Before 0.12.4, unless ENV is set to prod: embeds what stands behind, for anybody.
EMBEDDING_TEST_PATH = "/api/v1/retrieval/ef/"
LENGTH_FIELDS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
EMBEDDING_MODEL = "embedding"
# As Open WebUI reads it, a text or a float included.
WHOLE_NUMBER = TypeAdapter(int)
# OpenAI makes ten at most.
MOST_IMAGES = 50
TASK_PATH = re.compile(r"/api/v1/tasks/[a-z_]+/completions")

INDEXING = Passthrough(
    "indexing", "", counts_tokens=False, in_json=False, of_page=True, model=EMBEDDING_MODEL
)

# Below /openai and /ollama everything is a pass-through path but these, which no model answers.
OPENAI_PAGES = {
    "GET": re.compile(
        r"config|models(?:/[^/]+)?|models/[^/]+/(?:catalog|sse|download/status/[^/]+)", re.ASCII
    ),
    "POST": re.compile(r"config/update|verify|models/[^/]+/(?:download|load|unload)", re.ASCII),
    "DELETE": re.compile(r"models/[^/]+", re.ASCII),
}
OLLAMA_PAGES = {
    "GET": re.compile(r"|config|api/(?:tags|ps|version)(?:/\d+)?|v1/models(?:/\d+)?", re.ASCII),
    "POST": re.compile(
        r"verify|config/update|api/(?:show|unload|copy)(?:/\d+)?|api/(?:pull|create|push)(?:/\d+)?"
        r"|urls/update|models/(?:download|upload)(?:/\d+)?",
        re.ASCII,
    ),
    "DELETE": re.compile(r"api/(?:delete|push)(?:/\d+)?", re.ASCII),
}
OPENAI_PASSTHROUGH = re.compile(
    r"/openai/(?:v1/)*(chat/completions|responses|completions|embeddings|audio/speech)(?:/\d+)?"
)
OLLAMA_PASSTHROUGH = re.compile(
    r"/ollama/(api/chat|api/generate|api/embed|api/embeddings"
    r"|v1/chat/completions|v1/completions|v1/messages|v1/responses|v1/embeddings)(?:/\d+)?"
)
OPENAI_KINDS = {
    "chat/completions": Passthrough("rewritten", "/openai/chat/completions", asks_usage=True),
    "responses": Passthrough("metered", "/openai/responses"),
    "completions": Passthrough("metered", "/openai/completions", asks_usage=True),
    "embeddings": Passthrough("embeddings", "/openai/embeddings"),
    "audio/speech": Passthrough(
        "request", "/openai/audio/speech", counts_tokens=False, in_json=False, model="speech"
    ),
}
OLLAMA_KINDS = {
    "api/chat": Passthrough("metered", "/ollama/api/chat", "ollama"),
    "api/generate": Passthrough("metered", "/ollama/api/generate", "ollama"),
    "api/embed": Passthrough("embeddings", "/ollama/api/embed", "ollama"),
    "api/embeddings": Passthrough("embeddings", "/ollama/api/embeddings", "ollama"),
    "v1/chat/completions": Passthrough("rewritten", "/ollama/v1/chat/completions", asks_usage=True),
    "v1/completions": Passthrough("metered", "/ollama/v1/completions", asks_usage=True),
    "v1/messages": Passthrough("metered", "/ollama/v1/messages", "anthropic"),
    "v1/responses": Passthrough("metered", "/ollama/v1/responses"),
    "v1/embeddings": Passthrough("embeddings", "/ollama/v1/embeddings"),
}

def plain_path(path: str) -> str:
    """A path as the server behind Open WebUI may come to read it, however it is spelled."""
    for _ in range(MOST_DECODINGS):
        decoded = unquote(path)
        if decoded == path:
            break
        path = decoded
    path = path.replace("\\", "/").partition("?")[0].partition("#")[0]
    return posixpath.normpath("/" + path.lstrip("/")).casefold()

def find_passthrough(method: str, path: str) -> Passthrough | None:
    """The pass-through path that is asked; None where it reaches no model past the hooks.

    Open WebUI answers HEAD and OPTIONS on these paths itself.
    """
    first = path[1:7]
    if first not in ("openai", "ollama"):
        if method == "POST":
            if path in CHAT_PASSTHROUGHS:
                return CHAT_PASSTHROUGHS[path]
            if TASK_PATH.fullmatch(path):
                return Passthrough("task", path)
        elif method == "GET" and path.startswith(EMBEDDING_TEST_PATH):
            return INDEXING
        elif method != "PATCH":
            return None
        return INDEXING if INDEXING_PATH.fullmatch(path) else None
    if method in ("HEAD", "OPTIONS") or path[7:8] not in ("", "/"):
        return None
    pages = (OPENAI_PAGES if first == "openai" else OLLAMA_PAGES).get(method)
    below = path[8:]
    if pages is not None and pages.fullmatch(below) and not {".", ".."} & set(below.split("/")):
        return None
    plain = plain_path(path)
    if method == "POST":
        if found := OPENAI_PASSTHROUGH.fullmatch(plain):
            return OPENAI_KINDS[found[1]]
        if found := OLLAMA_PASSTHROUGH.fullmatch(plain):
            return OLLAMA_KINDS[found[1]]
    return Passthrough("unknown", "", "ollama" if first == "ollama" else "openai")

def passthrough_output(body: dict[str, Any], passthrough: Passthrough) -> int | None:
    """The most output tokens that a request asks for in the words of its protocol, if it does."""
    if passthrough.form == "ollama":
        options = body.get("options")
        wanted = options.get("num_predict") if isinstance(options, dict) else None
    else:
        wanted = body.get(output_field(passthrough))
        # Of several nobody knows which one is obeyed.
        others = [body[name] for name in LENGTH_FIELDS if type(body.get(name)) is int]
        wanted = max([wanted, *others]) if type(wanted) is int else None
    return wanted * count_answers(body) if type(wanted) is int and wanted > 0 else None

def count_answers(body: dict[str, Any]) -> int:
    """How many answers a request asks for: each of a list of prompts gets its own."""
    prompts = body.get("prompt")
    # A list of numbers is one prompt, in tokens.
    if not isinstance(prompts, list) or all(type(part) is int for part in prompts):
        return count_choices(body)
    return count_choices(body) * len(prompts)

def settle_images(body: dict[str, Any]) -> int:
    """How many images a request asks for, written into it as it was understood here.

    Raises:
        PassthroughError: More than are made at once.
    """
    try:
        wanted = WHOLE_NUMBER.validate_python(body.get("n", 1))
    except ValidationError:  # which Open WebUI refuses, but for null
        return 1
    if wanted > MOST_IMAGES:
        raise PassthroughError(Refusal(400, TOO_MANY_IMAGES_SENTENCE.format(most=MOST_IMAGES)))
    body["n"] = wanted
    return max(1, wanted)

def cap_passthrough(body: dict[str, Any], passthrough: Passthrough, most: int) -> None:
    """Lower what a request asks for in all, as its protocol says it."""
    each = max(1, most // count_answers(body))
    if passthrough.form == "ollama":
        options = body.get("options")
        body["options"] = {**(options if isinstance(options, dict) else {}), "num_predict": each}
    else:
        for name in {output_field(passthrough), *(name for name in LENGTH_FIELDS if name in body)}:
            body[name] = each

def output_field(passthrough: Passthrough) -> str:
    """Where a protocol other than Ollama's own says how long an answer may be."""
    return "max_output_tokens" if passthrough.path.endswith("/responses") else "max_tokens"

def passthrough_charge(reply: Reply, passthrough: Passthrough, status: int | None) -> Charge | None:
    """What a reply cost whose answer went through the layer; None where there was none."""
    if reply.meter.produced:
        return make_charge(reply.meter.total(), reply.rule)
    if status is not None and status >= 400:
        return None
    if not passthrough.counts_tokens:
        return make_charge(Usage(), reply.rule)
    if passthrough.kind == "embeddings":
        return make_charge(Usage(reply.prompt_tokens, 0, estimated=True), reply.rule)
    # Answered, but nobody can say with what; or given up while the model was at work.
    return reply.unseen_charge()

# =================================== helpers/openwebui/host.py ====================================
# The only place that knows Open WebUI: its database, groups, models and errors.

NAMES_PER_QUERY = 500
TEMPORARY_CHAT_PREFIXES = ("temporary:", "local:")  # today's and the older one
# By which clients ask for replies; channels and automations have others.
CLIENT_PATHS = tuple(path for path, one in CHAT_PASSTHROUGHS.items() if one.kind == "chat")

class HostError(HTTPException, UsageLimitsError):
    """An error that reaches the client with its own status, headers and sentence.

    Open WebUI turns what a filter raises into ``Exception(f"{error}")``, which API clients get
    as status 400. As it raises itself while it is being formatted, this one comes through whole.
    """

    def __init__(self, status_code: int, detail: str, retry_after: int | None = None) -> None:
        headers = None if retry_after is None else {"Retry-After": str(retry_after)}
        HTTPException.__init__(self, status_code, detail=detail, headers=headers)
        # Where this is flattened all the same, the layer around the app knows what was meant.
        note_in_state(REFUSAL_STATE, (status_code, detail, retry_after))

    def __str__(self) -> str:
        return str(self.detail)

    def __format__(self, format_spec: str) -> str:
        raise self

class HostLimitError(HostError, UsageLimitExceeded):
    """`UsageLimitExceeded` as Open WebUI's clients see it: status 429 with ``Retry-After``."""

    def __init__(self, exceeded: UsageLimitExceeded) -> None:
        HostError.__init__(self, exceeded.status_code, exceeded.message, exceeded.retry_after)
        self.message = exceeded.message
        self.reset_at = exceeded.reset_at
        self.retry_after = exceeded.retry_after

def host_engine(database_url: str) -> tuple[Engine, str | None]:
    """The ledger's engine and schema: Open WebUI's database, unless another URL is given.

    On PostgreSQL Open WebUI's requests go through psycopg 3, and so does the ledger. The engine
    that Open WebUI has for threads goes through psycopg 2, which doesn't prepare statements.
    """
    db = import_module("open_webui.internal.db")
    running = getattr(db, "async_engine", None)
    pooled = running is None or not isinstance(running.pool, NullPool)
    if database_url:
        return open_database(database_url, "database_url", pooled), None
    schema = getattr(db, "DATABASE_SCHEMA", None) or None
    if running is None or running.url.drivername != "postgresql+psycopg":
        return db.engine, schema
    engine = open_postgresql(running.url, pooled)
    use_aws_tokens = getattr(db, "enable_iam_token_auth", None)
    if use_aws_tokens is not None:
        use_aws_tokens(engine)
    return engine, schema

def is_host_engine(engine: Engine) -> bool:
    """Whether Open WebUI itself uses this engine."""
    return getattr(import_module("open_webui.internal.db"), "engine", None) is engine

@dataclass(frozen=True, slots=True)
class GroupQueries:
    """Statements for a user's groups; each row is a group's id, its name and its parent's id."""

    direct: Select[Any]
    inherited: Select[Any] | None  # None where groups can't be nested

@lru_cache(maxsize=1)
def group_queries() -> GroupQueries | None:
    """Open WebUI's query for a user's groups, built once; None where its models differ.

    It puts that query together for every call, which takes longer than all that is done here.
    """
    try:
        models = import_module("open_webui.models.groups")
        # Their tables: SQLAlchemy takes twice as long over an ORM's classes.
        group, member = models.Group.__table__, models.GroupMember.__table__
        nested = "parent_group_id" in group.c  # since 0.12
        parent = group.c.parent_group_id if nested else null()
        columns = select(group.c.id, group.c.name, parent)
        direct = columns.join(member, member.c.group_id == group.c.id).where(
            member.c.user_id == bindparam("user_id")
        )
        inherited = None
        if nested:
            found = models.user_group_memberships([bindparam("user_id")], include_inherited=True)
            inherited = columns.join(found, found.c.group_id == group.c.id)
    except (AttributeError, TypeError):  # another name, other arguments
        return None
    return GroupQueries(direct, inherited)

def read_groups(
    connection: Connection, queries: GroupQueries, user_id: str
) -> tuple[GroupRef, ...]:
    """A user's groups, inherited ones included, from Open WebUI's own database; blocks."""
    rows = connection.execute(queries.direct, {"user_id": user_id}).all()
    if queries.inherited is not None and any(parent for _, _, parent in rows):
        rows = connection.execute(queries.inherited, {"user_id": user_id}).all()
    return tuple(GroupRef(str(group_id), str(name)) for group_id, name, _ in rows)

async def list_groups(user_id: str) -> tuple[GroupRef, ...]:
    """A user's groups, inherited ones included, as Open WebUI lists them itself."""
    groups = import_module("open_webui.models.groups").Groups
    # Groups can be nested since 0.12; before that the argument isn't known.
    nested = "include_inherited" in inspect.signature(groups.get_groups_by_member_id).parameters
    inherited = {"include_inherited": True} if nested else {}
    listed = await groups.get_groups_by_member_id(user_id, **inherited)
    return tuple(GroupRef(str(group.id), str(group.name)) for group in listed)

def make_subject(user: Mapping[str, Any], groups: tuple[GroupRef, ...]) -> Subject:
    """The user of a request, as Open WebUI hands it to a filter."""
    return Subject(
        user_id=clean_text(str(user["id"]), LONGEST_ID),
        email=clean_text(user.get("email"), LONGEST_NAME),
        role=clean_text(user.get("role"), LONGEST_NAME) or "user",
        groups=groups,
    )

def read_host_names(
    connection: Connection, user_ids: Collection[str], addresses: Collection[str]
) -> HostNames:
    """All groups, and the users with these ids or addresses, from Open WebUI's own database."""
    group = import_module("open_webui.models.groups").Group
    user = import_module("open_webui.models.users").User
    groups = {row.id: row.name or "" for row in connection.execute(select(group.id, group.name))}
    users: dict[str, str] = {}
    for column, wanted in ((user.id, user_ids), (func.lower(user.email), addresses)):
        ordered = sorted(storable(wanted))
        for start in range(0, len(ordered), NAMES_PER_QUERY):
            some = column.in_(ordered[start : start + NAMES_PER_QUERY])
            for row in connection.execute(select(user.id, user.email).where(some)):
                users[row.id] = row.email or ""
    return HostNames(groups, users)

def storable(texts: Iterable[str]) -> list[str]:
    """Those texts that a database can have: PostgreSQL takes no NUL."""
    return [text for text in texts if "\x00" not in text]

@contextmanager
def host_database() -> Iterator[None]:
    """Open WebUI's own functions, whose database may be away.

    Raises:
        HostDatabaseError: It is. The driver's text may quote parameters; its class says enough.
    """
    try:
        yield
    except SQLAlchemyError as error:
        raise HostDatabaseError(f"{type(error).__name__} in Open WebUI's database") from None

async def read_valves(function_id: str) -> dict[str, Any]:
    """What is stored of a function's valves; {} where none were ever saved.

    Raises:
        HostDatabaseError: They can't be read. Open WebUI logs why, and says None.
    """
    functions = import_module("open_webui.models.functions").Functions
    with host_database():
        stored: dict[str, Any] | None = await functions.get_function_valves_by_id(function_id)
    if stored is None:  # for all defaults that would be taken, and no limits
        raise HostDatabaseError("valves that can't be read in Open WebUI's database")
    return stored

def host_reader() -> TransactionRunner:
    """Open WebUI's own database, for where the ledger has another one."""
    db = import_module("open_webui.internal.db")
    return TransactionRunner(db.engine, getattr(db, "DATABASE_SCHEMA", None) or None)

def host_models() -> Mapping[str, Any]:
    """Open WebUI's models by id as it last listed them; {} where it hasn't yet."""
    app = getattr(sys.modules.get("open_webui.main"), "app", None)
    return getattr(getattr(app, "state", None), "MODELS", None) or {}

@dataclass(frozen=True, slots=True)
class ModelSettings:
    """What stands in Open WebUI's database of a model.

    Args:
        base: The model that is called in its place; "" if it is no custom model.
        params: What its calls ask for beside what their clients do.
        owner: The id of the user whose it is.
    """

    base: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    owner: str = ""

# To ask for them takes as long as all that the filter does for a request.
SETTINGS_SECONDS = 60.0
known_settings: dict[str, tuple[float, ModelSettings]] = {}

async def read_settings(model: object) -> ModelSettings | None:
    """A model's settings; None where it has none.

    Open WebUI acts upon those of this moment, whatever its list says. Users can change those of
    their own custom models between two requests; others are an administrator's, and as they were
    a minute ago at the most.
    """
    if not (isinstance(model, Mapping) and model.get("info") and model.get("id")):
        return None
    name, now = str(model["id"]), time.monotonic()
    read_at, settings = known_settings.get(name, (-math.inf, ModelSettings()))
    if base_model_id(model) or now - read_at > SETTINGS_SECONDS:
        found = await import_module("open_webui.models.models").Models.get_model_by_id(name)
        if found is None:
            return None
        params = found.params.model_dump() if found.params else {}
        settings = ModelSettings(found.base_model_id or "", params, found.user_id)
        known_settings.pop(name, None)
        if not settings.base:  # of users' own there may be any number, of any size
            known_settings[name] = now, settings
    return settings

async def is_users_own(settings: ModelSettings) -> bool:
    """Whether a model is an ordinary user's, who has chosen its id and base."""
    users = import_module("open_webui.models.users").Users
    owner = await users.get_user_by_id(settings.owner)
    return owner is not None and owner.role != "admin"

def own_params(settings: ModelSettings | None) -> dict[str, Any]:
    """What calls of a model ask for by its settings, as Open WebUI reads them."""
    params = dict(settings.params) if settings is not None else {}
    own = params.pop("custom_params", None)
    return params | own if isinstance(own, dict) else params

async def other_models(body: Mapping[str, Any], settings: ModelSettings | None) -> str:
    """The field by which a request has its provider answer with other models; "" for none.

    OpenRouter reads `models`, LiteLLM `fallbacks` and what tries them out. An administrator's model
    may have them in its settings.
    """
    own = own_params(settings)
    asked = {
        name: value
        for name, value in (own | dict(body)).items()
        if value and (name == "models" or "fallback" in name)
    }
    if asked and settings is not None and not await is_users_own(settings):
        given = {name: (value, read_json_text(value)) for name, value in own.items()}
        asked = {name: value for name, value in asked.items() if value not in given.get(name, ())}
    return next(iter(asked), "")

def read_json_text(value: object) -> object:
    """A setting as Open WebUI understands it: a text may be written in JSON."""
    if isinstance(value, str):
        with suppress(ValueError, RecursionError):
            return json.loads(value)
    return value

def add_lengths(body: dict[str, Any], settings: ModelSettings | None) -> None:
    """Ask for what a model's settings say, where Open WebUI adds that behind all filters."""
    for name, value in own_params(settings).items():
        if name in (*LENGTH_KEYS, "background") and value is not None and name not in body:
            body[name] = positive_number(value) or value

async def fill_system_prompt(
    settings: ModelSettings | None, metadata: Mapping[str, Any], user: Mapping[str, Any]
) -> str:
    """A model's own system prompt; "" where it has none.

    Open WebUI puts it before the messages behind every filter, with variables that a client fills.
    """
    system = settings.params.get("system") if settings is not None else None
    if not isinstance(system, str) or not system:
        return ""
    whose: Any = user
    if "user.variables" in system:  # which filters aren't told
        users = import_module("open_webui.models.users").Users
        whose = await users.get_user_by_id(user["id"]) or user
    body: dict[str, Any] = {"messages": []}
    fill = import_module("open_webui.utils.payload").apply_system_prompt_to_body
    filled = fill(system, body, metadata, whose)
    if inspect.isawaitable(filled):  # since 0.11
        await filled
    return "".join(str(message.get("content")) for message in body["messages"])

def list_model_ids() -> tuple[str, ...]:
    """The ids of all models; () where they can't be told: they are only needed for a report."""
    try:
        return tuple(host_models().keys())
    except Exception:  # Open WebUI may keep them in Redis, whose errors are its own
        log.warning("Usage limits: Open WebUI's models could not be listed", exc_info=True)
        return ()

def base_model_id(model: object) -> str | None:
    """The base model of a custom model, as the host describes it."""
    info = model.get("info") if isinstance(model, Mapping) else None
    base = info.get("base_model_id") if isinstance(info, Mapping) else None
    return str(base) if base else None

def answering_model(body: Mapping[str, Any], model: object) -> object:
    """The model that a request is for, as Open WebUI describes it.

    Args:
        body: The request.
        model: The one that it was for at first.
    """
    named = body.get("model")
    if not isinstance(named, str) or not isinstance(model, Mapping) or model.get("id") == named:
        return model
    return host_models().get(named)  # another filter has sent it there

def with_base(model: object, settings: ModelSettings | None) -> object:
    """A model's description with the base that it has at this moment."""
    if settings is None or not isinstance(model, Mapping):
        return model
    return {**model, "info": {**(model.get("info") or {}), "base_model_id": settings.base}}

def is_arena(model: object) -> bool:
    """Whether a model is one of those for which Open WebUI chooses another."""
    return isinstance(model, Mapping) and model.get("owned_by") == "arena"

def is_function(model: object) -> bool:
    """Whether a model is a pipe function's, or made from one."""
    return isinstance(model, Mapping) and bool(model.get("pipe"))

def list_model_names(
    body: Mapping[str, Any], model: object, metadata: Mapping[str, Any], request: object = None
) -> ModelNames:
    """Every name that a model glob may match, the model that answers first.

    Open WebUI has put an arena's real choice, or the model that a custom one without its base
    falls back to (``ENABLE_CUSTOM_MODEL_FALLBACK``), into the body by the time a filter runs.
    """
    answering = clean_text(body.get("model"), LONGEST_NAME) or "unknown"
    base = clean_text(base_model_id(answering_model(body, model)), LONGEST_NAME)
    names = [answering, base]
    listed = metadata.get("model")
    listed_id = clean_text(listed.get("id"), LONGEST_NAME) if isinstance(listed, Mapping) else ""
    if metadata.get("selected_model_id"):
        names.append(listed_id)
    elif listed_id == answering:
        # In a chat with several models the metadata name the first for all of them.
        asked = getattr(getattr(request, "state", None), "model_id", None)
        names.append(clean_text(asked, LONGEST_NAME))
    found = ModelNames(dict.fromkeys(name for name in names if name))
    found.called = base or answering
    return found

def request_source(
    metadata: Mapping[str, Any],
    own_provider: bool = False,
    request: Any = None,
    user_id: str = "",
    caller: str = "",
) -> str:
    """Where a request comes from: page, temporary, channel, automation, api or direct; may block.

    The metadata repeat what a client says. Its own call of a chat path is never a channel's or an
    automation's, for which Open WebUI calls itself; and only the chat page has a socket open. What
    Open WebUI calls for a program, such as a subagent, is that program's.

    Args:
        metadata: Open WebUI's of the request.
        own_provider: Whether it goes to its user's own provider.
        request: The request; without one the metadata are believed.
        user_id: Whose it is.
        caller: The source of the client's request that this one was made for; "" if there is none.
    """
    if own_provider:
        return "direct"
    chat_id, session_id = (
        clean_text(metadata.get(name), LONGEST_ID) for name in ("chat_id", "session_id")
    )
    scope = getattr(request, "scope", None)
    path = scope.get("path") if isinstance(scope, Mapping) else None
    asked_by_client = isinstance(path, str) and path.endswith(CLIENT_PATHS)
    if not asked_by_client and metadata.get("automation_id"):
        return "automation"
    if not asked_by_client and chat_id.startswith("channel:"):
        return "channel"
    if not session_id or not chat_id or caller == "api":
        return "api"
    if asked_by_client and not is_page(request, session_id, user_id):
        return "api"
    if scope is not None and has_api_key(request):
        return "api"
    return "temporary" if chat_id.startswith(TEMPORARY_CHAT_PREFIXES) else "page"

def is_page(request: Any, session_id: str, user_id: str) -> bool:
    """Whether a client is the chat page: signed in without an API key, its socket open."""
    if has_api_key(request):
        return False
    sessions = getattr(sys.modules.get("open_webui.socket.main"), "SESSION_POOL", None)
    if sessions is None:
        return True  # an Open WebUI that keeps them elsewhere
    try:
        session = sessions.get(session_id)
    except Exception:  # in Redis, whose errors are its own; without it the page doesn't work either
        log.warning("Usage limits: it can't be seen whose page is open", exc_info=True)
        return False
    return isinstance(session, Mapping) and session.get("id") == user_id

def has_api_key(request: Any) -> bool:
    """Whether a client has signed in with an API key."""
    kind = getattr(request.state, "auth_type", None)
    if kind is not None:
        return bool(kind == "api_key")
    # Before 0.12 Open WebUI doesn't say; it looks in these places, in this order.
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    stated = getattr(getattr(request.state, "token", None), "credentials", "")
    token = (scheme.lower() == "bearer" and bearer) or request.cookies.get("token") or stated
    return str(token).strip().startswith("sk-")

async def save_answer(metadata: Mapping[str, Any], content: str) -> None:
    """Save an answer that no model gave as a message that is done, where the chat is saved."""
    chat_id, message_id = metadata.get("chat_id"), metadata.get("message_id")
    if not isinstance(chat_id, str) or not isinstance(message_id, str):
        return
    if chat_id.startswith((*TEMPORARY_CHAT_PREFIXES, "channel:")):
        return
    chats = import_module("open_webui.models.chats").Chats
    await chats.upsert_message_to_chat_by_id_and_message_id(
        chat_id, message_id, {"content": content, "done": True}
    )

def finished_message(body: Mapping[str, Any]) -> tuple[object, str | None]:
    """Usage and text of the message that an outlet is called for, and of no older one.

    In a saved chat both may be its user's own making.
    """
    messages = body.get("messages")
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, Mapping) and message.get("id") == body.get("id"):
            content = message.get("content")
            return message.get("usage"), content if isinstance(content, str) else None
    return None, None

def uses_own_provider(request: Any, body: Mapping[str, Any]) -> bool:
    """Whether a request goes over its user's direct connection, through the browser.

    Clients claim that; it is true where Open WebUI will act upon it (`generate_chat_completion`).
    """
    state = getattr(request, "state", None)
    model = getattr(state, "model", None)
    return (
        bool(getattr(state, "direct", False))
        and isinstance(model, Mapping)
        and "id" in model
        and model["id"] == body.get("model")
    )

def is_ollama_model(model: object) -> bool:
    """Whether Open WebUI sends a model's calls to Ollama."""
    return isinstance(model, Mapping) and model.get("owned_by") == "ollama"

def host_version() -> tuple[int, ...]:
    """Open WebUI's version; (0, 0, 0) where it doesn't know itself."""
    version = str(getattr(import_module("open_webui.env"), "VERSION", ""))
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())

def has_request_hook() -> bool:
    """Whether this Open WebUI calls `request` hooks."""
    version = host_version()
    return version < (0, 0, 1) or version >= REQUEST_HOOK_VERSION

def warn_about_old_host() -> None:
    """Log once that this version of Open WebUI is too old to see every reply."""
    version = host_version()
    if (0, 0, 0) < version < OLDEST_HOST_VERSION:
        log.warning(
            "Usage limits: Open WebUI %s is older than %s; not supported",
            ".".join(map(str, version)),
            ".".join(map(str, OLDEST_HOST_VERSION)),
        )

# =============================== helpers/openwebui/stream_usage.py ================================
# Usage in streams: which models' providers refuse to be asked for it.

ASK_FOR_USAGE = {"include_usage": True}
REFUSING_STATUSES = (400, 422)
REFUSES_TO_BE_ASKED = re.compile(
    r"stream_options|include_usage|extra (?:inputs|fields)(?: are)? not permitted", re.IGNORECASE
)
# What says it stands at the beginning; the rest may be the request, sent back.
LONGEST_REFUSAL = 4_000
# Another field might be what doesn't go with `stream_options` ("only without `n`"): a client
# could then choose not to be measured. These are what models' settings in Open WebUI bring. Tools
# are in every chat of the page, so they are told apart.
ORDINARY_FIELDS = frozenset(
    (
        *("model", "messages", "prompt", "stream", "stream_options", "metadata", "user", "tools"),
        *("tool_choice", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k"),
        *("min_p", "stop", "seed", "repeat_penalty", "frequency_penalty", "presence_penalty"),
        *("logit_bias", "reasoning_effort"),
    )
)
# A provider that has learned it, or a memory that is wrong, is asked again after that long.
MEMORY_SECONDS = 6 * 3600
MOST_MODELS = 1_000

class UnaskedModels:
    """The models that aren't asked for usage in streams, of one process.

    Every process finds it out for itself, at the cost of one refused call. All its methods are
    called from the event loop.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: OrderedDict[tuple[str, bool], float] = OrderedDict()

    def has(self, model: str, call: Mapping[str, Any]) -> bool:
        """Whether a model's provider refused a moment ago to be asked in such a call."""
        since = self._since.get((model, "tools" in call))
        return since is not None and self._clock() - since < MEMORY_SECONDS

    def call_without(self, model: str, form_data: dict[str, Any]) -> dict[str, Any] | None:
        """The same call as a copy that doesn't ask, for a provider that refuses this one.

        If its model is known not to be asked, this one is changed instead.

        Args:
            model: The model that is called; "" if what its provider says teaches nothing.
            form_data: The call that Open WebUI is about to make, and which it changes then.

        Returns:
            None where the call may not be repeated.
        """
        if form_data.get("stream_options") != ASK_FOR_USAGE or not model:
            return None
        if self.has(model, form_data):
            del form_data["stream_options"]
            return None
        # `"stream": "false"` isn't a stream to every provider, and then refuses the options.
        if form_data.get("stream") is not True or not ORDINARY_FIELDS.issuperset(form_data):
            return None
        return copied_call(form_data)

    def note(self, model: str, call: Mapping[str, Any], answer: object) -> None:
        """Remember a model by the answer to a call that was repeated without asking."""
        if not isinstance(answer, StreamingResponse) or answer.status_code >= 400:
            return
        key = (model, "tools" in call)
        self._since[key] = self._clock()
        self._since.move_to_end(key)
        if len(self._since) > MOST_MODELS:
            self._since.popitem(last=False)
        log.warning(
            "Usage limits: the provider of model %r refuses stream_options%s: it isn't asked for "
            "usage in streams for %d hours, and they are estimated unless it reports by itself",
            model,
            " with tools" if key[1] else "",
            MEMORY_SECONDS // 3600,
        )

def refuses_to_be_asked(answer: object, call: Mapping[str, Any]) -> bool:
    """Whether an answer is a provider's refusal of `stream_options`, and not an echo of the call.

    Providers send back what they refuse: a client may have written the words itself.
    """
    if not isinstance(answer, Response) or answer.status_code not in REFUSING_STATUSES:
        return False
    body = getattr(answer, "body", b"")  # a stream has none
    text = bytes(body[:LONGEST_REFUSAL]).decode("utf-8", "replace")
    if not REFUSES_TO_BE_ASKED.search(text):
        return False
    written = {
        name: value
        for name, value in call.items()
        if name not in ("metadata", "model", "stream_options")
    }
    try:
        return not REFUSES_TO_BE_ASKED.search(str(written))
    except (RecursionError, ValueError):  # nested too deep, a number of 5,000 digits
        return False

def copied_call(form_data: Mapping[str, Any]) -> dict[str, Any]:
    """A call without `stream_options`; Open WebUI puts its system prompt into the other's messages.

    It also takes a name out of its metadata.
    """
    copy = {name: value for name, value in form_data.items() if name != "stream_options"}
    if isinstance(metadata := copy.get("metadata"), dict):
        copy["metadata"] = dict(metadata)
    if isinstance(messages := copy.get("messages"), list):
        copy["messages"] = [copied_message(message) for message in messages]
    return copy

def copied_message(message: object) -> object:
    """A message with parts of its own; what is in them is shared."""
    if not isinstance(message, dict):
        return message
    if not isinstance(parts := message.get("content"), list):
        return dict(message)
    own = [dict(part) if isinstance(part, dict) else part for part in parts]
    return {**message, "content": own}

# ================================== helpers/openwebui/endings.py ==================================
# Endings: a stream that may go no further ends as its protocol ends one at its length.

StreamPart = bytes | str
LONGEST_LINE = 2**16
LINE_ENDS = frozenset((b"\n", "\n"))

def part_event(part: bytes, *, last: bool) -> dict[str, Any]:
    """The first or the last JSON object in a part of a stream; empty where there is none."""
    for line in part.splitlines()[:: -1 if last else 1]:
        try:
            event = json.loads(line.removeprefix(b"data:"))
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict):
            return event
    return {}

def event_lines(*events: dict[str, Any], named: bool = False) -> list[bytes]:
    """Events as lines of an event stream, with their names where the protocol has them."""
    names = [f"event: {event['type']}\n" if named else "" for event in events]
    return [
        f"{name}data: {json.dumps(event)}\n\n".encode()
        for name, event in zip(names, events, strict=True)
    ]

def end_of_stream(first: bytes, last: bytes, choices: int = 1) -> list[bytes]:
    """What ends a stream after `last`, in the protocol of both; each item ends an event.

    Args:
        first: The first part that held JSON: it names the answer.
        last: The part after which nothing of the provider's follows.
        choices: How many answers there are at once.
    """
    begun, event = part_event(first, last=False), part_event(last, last=True)
    kind = str(event.get("type") or "")
    if kind.startswith("response."):
        answer = begun.get("response")
        why = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
        answer = {**(answer if isinstance(answer, dict) else {}), **why}
        closing = event_lines({"type": "response.incomplete", "response": answer}, named=True)
    elif kind.startswith(("message_", "content_block", "ping")):
        index = event.get("index") if kind != "content_block_stop" else None
        ended = {"stop_reason": "max_tokens", "stop_sequence": None}
        events: list[dict[str, Any]] = [
            {"type": "message_delta", "delta": ended, "usage": {"output_tokens": 0}},
            {"type": "message_stop"},
        ]
        if isinstance(index, int):
            events.insert(0, {"type": "content_block_stop", "index": index})
        closing = event_lines(*events, named=True)
    elif "done" in event and "choices" not in event:  # Ollama's, a line for each object
        final = {"model": event.get("model"), "created_at": event.get("created_at")}
        final |= {"response": ""} if "response" in event else {}
        final |= {"message": {"role": "assistant", "content": ""}} if "message" in event else {}
        final |= {"done": True, "done_reason": "length"}
        return [json.dumps(final).encode() + b"\n"]
    else:
        named = ("id", "object", "created", "model", "system_fingerprint")
        chunk = {name: event[name] for name in named if name in event}
        held: dict[str, Any] = {"delta": {}}
        if event.get("object") == "text_completion":
            held = {"text": ""}
        listed = [{"index": i, **held, "finish_reason": "length"} for i in range(choices)]
        closing = [*event_lines({**chunk, "choices": listed}), b"data: [DONE]\n\n"]
    # The blank line that ends an event may be a part of its own, which doesn't come any more.
    return closing if last.endswith(b"\n\n") else [b"\n", *closing]

class StreamWatch:
    """How far a stream is, and what is needed to end it."""

    __slots__ = ("_begun", "_first", "_last", "_mark", "_size")

    def __init__(self) -> None:
        self._first = self._last = self._begun = b""
        self._size = self._mark = 0

    def passes(self, part: StreamPart) -> bool:
        """Note a part that has been passed on; whether to ask now if the reply may go on."""
        self._size += len(part)
        if self._size < self._mark and not self._begun and part[-1:] in LINE_ENDS:
            return False  # as nearly always
        data = part.encode("utf-8", "replace") if isinstance(part, str) else part
        if not data.endswith(b"\n"):  # the beginning of a line
            self._begun = (self._begun + data)[-LONGEST_LINE:]
            return False
        if self._begun:
            data, self._begun = self._begun + data, b""
        if b"}" not in data:  # not the end of an event's data
            return False
        self._last, self._first = data, self._first or data
        return self._size >= self._mark

    async def ending(self, reply: Reply) -> list[bytes]:
        """What ends the stream here; nothing where the reply may go on."""
        following = await reply.keeper.keep_up(reply, self._size, len(self._last))
        if following is None:
            return end_of_stream(self._first, self._last, reply.choices)
        self._mark = following
        return []

async def bounded_stream(reply: Reply, parts: Any) -> AsyncIterator[Any]:
    """A stream's parts as they come, and its end where the reply may go no further.

    Whoever takes a part has it metered before it asks for the next one.
    """
    watch = StreamWatch()
    try:
        async for part in parts:
            yield part
            if watch.passes(part) and (closing := await watch.ending(reply)):
                for each in closing:
                    yield each
                return
    finally:
        # Ends the call to the provider, which may have more to say.
        if (close := getattr(parts, "aclose", None)) is not None:
            await close()

# ================================ helpers/openwebui/model_calls.py ================================
# Model calls: the answer or the failure of each call that Open WebUI makes for a reply.

# Where Open WebUI calls models for replies, under the name that each module has for it.
CALLERS = (
    ("open_webui.main", "chat_completion_handler"),
    ("open_webui.utils.middleware", "generate_chat_completion"),
)
ORIGINAL = "usage_limits_original"
# What a request is admitted with. Its lengths have those of the model's settings among them.
ADMITTED_KEYS = frozenset(
    {"model", "messages", "stream", "stream_options", "background", *LENGTH_KEYS, *OPTION_KEYS}
)

def watch_model_calls(
    find_reply: Callable[[Mapping[str, Any] | None], Reply | None],
    unasked: UnaskedModels,
) -> bool:
    """See every call for a reply from now on; what an earlier paste has put there is replaced.

    Returns:
        Whether the calls are seen; if not, this Open WebUI calls its models elsewhere.
    """
    keep_admitted()
    watched = 0
    for module_name, name in CALLERS:
        module = sys.modules.get(module_name)
        function = getattr(module, name, None)
        if function is not None:
            original = getattr(function, ORIGINAL, function)
            setattr(module, name, watched_call(original, find_reply, unasked))
            watched += 1
    return watched == len(CALLERS)

def keep_admitted() -> None:
    """Let a model's settings replace nothing that a request was admitted with.

    Before Open WebUI 0.11.4 they do, behind all filters: another model's name, a longer answer.
    """
    module: Any = sys.modules.get("open_webui.utils.payload")
    fill = getattr(module, "apply_model_params_to_body", None)
    if fill is None or fill({"model": "b"}, {"model": "a"}, {})["model"] == "a":
        return

    @wraps(fill)
    def fill_in(params: dict[str, Any], body: dict[str, Any], *args: Any) -> Any:
        admitted = ADMITTED_KEYS & body.keys()
        rest = {name: value for name, value in params.items() if name not in admitted}
        return fill(rest, body, *args)

    module.apply_model_params_to_body = fill_in

def watched_call(
    original: Callable[..., Any],
    find_reply: Callable[[Mapping[str, Any] | None], Reply | None],
    unasked: UnaskedModels,
) -> Callable[..., Any]:
    """Open WebUI's function with an eye on what comes back for a reply."""

    @wraps(original)
    async def call(request: Any, form_data: Any, *args: Any, **kwargs: Any) -> Any:
        metadata = form_data.get("metadata") if isinstance(form_data, dict) else None
        reply = find_reply(metadata) if isinstance(metadata, dict) else None
        if reply is None or not hasattr(reply, "call_begins"):  # of a release before 0.2.0
            return await original(request, form_data, *args, **kwargs)
        reply.call_begins()
        try:
            answer = await call_for(reply, original, unasked, request, form_data, *args, **kwargs)
        except Exception:  # a refusal, a connection that broke; not that the user stopped it
            reply.call_failed()
            raise
        if is_failure(answer):
            reply.call_failed()
        elif isinstance(answer, StreamingResponse):
            if hasattr(getattr(reply, "keeper", None), "keep_up"):  # not a reply of 0.1.0
                answer.body_iterator = bounded_stream(reply, answer.body_iterator)
        else:
            reply.call_answered(answer_content(answer))
        return answer

    setattr(call, ORIGINAL, original)
    return call

async def call_for(
    reply: Reply,
    original: Callable[..., Any],
    unasked: UnaskedModels,
    request: Any,
    form_data: dict[str, Any],
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Call the model that was admitted, as its provider lets itself be asked."""
    model = unasked_name(reply, form_data)
    again = unasked.call_without(model, form_data)
    request = pinned_request(request, reply, form_data)
    answer = await original(request, form_data, *args, **kwargs)
    if again is not None and refuses_to_be_asked(answer, again):
        answer = await original(request, again, *args, **kwargs)
        unasked.note(model, again, answer)
    return answer

def pinned_request(request: Any, reply: Reply, form_data: Mapping[str, Any]) -> Any:
    """A copy of the request, since several models of one chat share it.

    It has the base that was admitted, which Open WebUI takes then: else it would look up the custom
    model's at this moment, and its user may have changed it since. A function, which gets it as
    `__request__`, can be seen by it to call another model.
    """
    pinned, base = copy(request), getattr(reply, "base", "")
    setattr(pinned, OUTER_ATTRIBUTE, reply)
    if base and form_data.get("model") == reply.reservation.model_names[0]:
        pinned.base_model_id = base
    return pinned

def unasked_name(reply: Reply, form_data: Mapping[str, Any]) -> str:
    """The model whose provider may be found to refuse; "" for the reply of an earlier paste."""
    find = getattr(reply, "trusted_model", None)
    return "" if find is None else find(form_data.get("model"))

def answer_content(answer: object) -> object:
    """The JSON of an answer that came whole; None where there is none."""
    if not isinstance(answer, Response):
        return answer
    try:
        return json.loads(bytes(answer.body))
    except (AttributeError, ValueError, RecursionError):
        return None

def is_failure(answer: object) -> bool:
    """Whether the provider refused instead of answering."""
    if isinstance(answer, Response):
        return answer.status_code >= 400
    return isinstance(answer, dict) and bool(answer.get("error")) and not answer.get("choices")

# ================================= helpers/openwebui/stopping.py ==================================
# One process, many pastes: who has a ledger in it, so that older ones let go and all stop well.

# Every paste is a module of its own. They find each other where all modules are.
KEEPERS_MODULE = "usage_limits_keepers"
# How long a signal may hold up the server that it ends.
STOP_WAIT_SECONDS = 2.0

def replace_keepers(newest: Any) -> None:
    """Tell all older ones that another has taken over, and see that each of them stops well.

    They hold replies, threads and connections, and have `retire` and `stop`. Each is of the class
    of its own paste.
    """
    shared: Any = sys.modules.get(KEEPERS_MODULE)
    if shared is None:
        shared = sys.modules[KEEPERS_MODULE] = ModuleType(KEEPERS_MODULE)
        shared.keepers = []
        atexit.register(stop_keepers)
    if not getattr(shared, "watches_signal", False):
        shared.watches_signal = stop_on_signal(stop_keepers)
    older = [keeper for kept in shared.keepers if (keeper := kept()) is not None]
    shared.keepers = [ref(keeper) for keeper in [*older, newest]]
    for keeper in older:
        with suppress(RuntimeError):  # its event loop has just been closed
            keeper.retire()

def stop_keepers() -> None:
    """Settle what is running in this process."""
    shared: Any = sys.modules.get(KEEPERS_MODULE)
    for kept in getattr(shared, "keepers", ()):
        keeper = kept()
        if keeper is not None:
            keeper.stop()

def stop_on_signal(stop: Callable[[], None]) -> bool:
    """Call `stop` when the server is asked to end: it doesn't come to its end otherwise.

    Uvicorn ends its process by the same signal, so that nothing runs at exit.

    Returns:
        False where there is nobody to ask: outside the main thread, or without a server.
    """
    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        return False
    handle = before

    def stop_and_pass_on(number: int, frame: FrameType | None) -> None:
        # In a thread: what was interrupted may hold a lock that is needed, and then goes on.
        thread = threading.Thread(target=stop, name="usage-limits-stop", daemon=True)
        thread.start()
        thread.join(STOP_WAIT_SECONDS)
        handle(number, frame)

    signal.signal(signal.SIGTERM, stop_and_pass_on)
    return True

# ================================ helpers/openwebui/chat_events.py ================================
# Chat events: what the chat page shows of a reply's limits, as toasts and status lines.

# Ordinary replies stay below it, so a higher cap is not worth a line.
CAP_WORTH_SAYING = 4_000

async def emit(emitter: Emitter, event: dict[str, Any]) -> None:
    """Send an event; a browser that has gone away must not cost the reply."""
    try:
        await emitter(event)
    except Exception:
        log.warning("Usage limits: a message could not be shown", exc_info=True)

async def emit_status(emitter: Emitter, sentence: str) -> None:
    """A grey line over the reply."""
    await emit(emitter, {"type": "status", "data": {"description": sentence, "done": True}})

def usage_preference(user: Mapping[str, Any]) -> str:
    """What the user has set for `show_usage`."""
    return str(getattr(user.get("valves"), "show_usage", "near_limit"))

async def tell_admitted(
    reply: Reply,
    admission: Admission,
    template: str,
    link: str,
    user: Mapping[str, Any],
    emitter: Emitter,
) -> None:
    """Warn of soft limits, each with a toast and a line, and say how long the reply may be.

    Args:
        template: The administrator's `warning_message`.
        link: What follows the built-in sentence.
    """
    for state in admission.warnings:
        now, model = datetime.now(UTC), reply.reservation.model_names[0]
        sentence = warning_sentence(template, state, now, reply.reader, model)
        sentence += "" if template else link
        toast = {"type": "warning", "content": sentence}
        await emit(emitter, {"type": "notification", "data": toast})
        if usage_preference(user) != "never":
            await emit_status(emitter, sentence)
    most = reply.most_output()
    worth = EXPECTED_OUTPUT_TOKENS if reply.output_cap is None else CAP_WORTH_SAYING
    if most is not None and most < worth:
        await emit_status(emitter, cap_sentence(most, reply.reader.language))

async def tell_stopped(reply: Reply, emitter: Emitter, state: LimitState | None) -> None:
    """Say why a reply ends before its end: a limit, or no ledger."""
    if state is None:
        language = reply.reader.language
        await emit_status(emitter, finish_sentence(language.ledger_error, language))
        return
    used = state.used + reply.used_charge().counted.of(state.applied.limit.measure)
    sentence = stopped_sentence(replace(state, used=used), datetime.now(UTC), reply.reader)
    await emit_status(emitter, sentence)

async def tell_settled(
    reply: Reply,
    charge: Charge | None,
    decision: Decision,
    user: Mapping[str, Any],
    emitter: Emitter,
) -> None:
    """The line of a finished reply, as its user prefers it."""
    state, shown, now = decision.fullest, usage_preference(user), datetime.now(UTC)
    if reply.reservation.source == "api" or not reply.enforced or getattr(reply, "stopped", False):
        return
    if shown == "always" and charge is not None:
        # A reply that began before 0.2.0 was pasted has the charges of then.
        usage: Any = getattr(charge, "usage", charge)
        tokens = usage.input_tokens + usage.output_tokens
        line = own_use_line(tokens, charge.cost_micros, state, now, reply.reader)
        await emit_status(emitter, line)
    elif (
        state is not None
        and shown == "near_limit"
        and state.crossed_threshold(reply.soft_limit_percent) is not None
    ):
        await emit_status(emitter, status_line(state, now, reply.reader))

# =============================== helpers/openwebui/ledger_worker.py ===============================
# The ledger's worker: runs the ledger off the event loop, and does what workers owe each other.

# How often a worker shows that it lives, and looks for those that don't.
ROUND_SECONDS = 5
# Who hasn't shown itself for that long, while we could look, doesn't live any more.
WORKER_SECONDS = 15
SWEEP_SECONDS = 60
TIDY_SECONDS = 86_400
# A process looks at its clock for a while before it does anything by it.
FIRST_TIDY_SECONDS = 600
RETENTION_SECONDS = 400 * 86_400
# SQLite has one writer at a time: more threads would only wait for each other.
SQLITE_THREADS = 1
POSTGRESQL_THREADS = 4
# With so many before it a request would hardly get its turn in time.
QUEUE_LIMIT = 2_000

ThreadResult = TypeVar("ThreadResult")

class LedgerWorker:
    """One per ledger and process.

    Args:
        engine: The ledger's synchronous engine.
        schema: The PostgreSQL schema of its tables, if not the connection's own.
        own_engine: Whether nobody else uses the engine.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        engine: Engine,
        schema: str | None,
        own_engine: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine, self._own_engine = engine, own_engine
        self.ledger = Ledger(engine, schema, clock, True, worker=uuid.uuid4().hex)
        self.lengths = ReplyLengths(self._read_prepared)
        self.retention_seconds = RETENTION_SECONDS
        self._threads: ThreadPoolExecutor | None = None
        self.queued = 0
        self.turn = threading.local()  # the deadline of the request that a thread works for
        # Other workers that hold something: how often each was seen to live, and since when
        # that hasn't changed.
        self.others: dict[str, tuple[int | None, float]] = {}
        self._shown_at = self._swept_at = self._watched_at = float("-inf")
        self._tidied_at = time.monotonic() + FIRST_TIDY_SECONDS - TIDY_SECONDS

    def read(self, work: Callable[[Connection], ThreadResult]) -> ThreadResult:
        """Read something else from the ledger's database; blocks.

        Raises:
            LedgerError: The database can't be read.
            LedgerDataError: It refuses the question.
        """
        return self.ledger.read(work, self._deadline)

    @contextmanager
    def until(self, deadline: float) -> Iterator[None]:
        """Let what this thread asks of the ledger meanwhile fail where it isn't done by then."""
        self.turn.deadline = deadline
        try:
            yield
        finally:
            self.turn.deadline = None

    @property
    def _deadline(self) -> float | None:
        deadline: float | None = getattr(self.turn, "deadline", None)
        return deadline

    @property
    def database_kind(self) -> str:
        """What sort of database the ledger is in."""
        return {"sqlite": "SQLite"}.get(self._engine.dialect.name, "PostgreSQL")

    def prepare(self) -> None:
        """Make or update the tables; blocks, and raises as `read` does."""
        self.ledger.prepare(self._deadline)

    def change(
        self, work: Callable[[Connection], ThreadResult], scopes: Collection[str]
    ) -> ThreadResult:
        """Run `work` in a transaction under the locks of these scopes; blocks, raises as `read`."""
        return self.ledger.change(work, scopes, self._deadline)

    def _read_prepared(self, work: Callable[[Connection], ThreadResult]) -> ThreadResult:
        self.prepare()
        return self.read(work)

    def close(self) -> None:
        """Wait for what is being written, and give the connections back."""
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown()
        self.ledger.rest()

    def release_idle(self) -> None:
        """Give back the connections that aren't in use, after what is running."""
        if self._threads is not None:
            self._threads.submit(self.ledger.rest)

    def leave(self) -> None:
        """Give back threads and connections, and tell the others, after what is running."""
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.submit(self._leave)
            threads.shutdown(wait=False)
        else:  # the pages may have read something
            self._give_back()

    def _leave(self) -> None:
        try:
            self.ledger.leave()
        except Exception as error:
            log.warning("Usage limits: %s; a worker's row stays until it is old", error)
        self._give_back()

    def _give_back(self) -> None:
        self.ledger.rest()
        if self._own_engine:
            self._engine.dispose()

    @property
    def is_crowded(self) -> bool:
        """Whether a request would hardly get its turn in time."""
        return self.queued >= QUEUE_LIMIT

    def in_thread(self, work: Callable[[], ThreadResult]) -> asyncio.Future[ThreadResult]:
        """Run `work` when it is its turn, whether or not anyone waits for it."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(
                SQLITE_THREADS if self._engine.dialect.name == "sqlite" else POSTGRESQL_THREADS,
                thread_name_prefix="usage-limits",
            )
        self.queued += 1
        done = asyncio.get_running_loop().run_in_executor(self._threads, work)
        done.add_done_callback(self._left_queue)
        return done

    def _left_queue(self, _: object) -> None:
        self.queued -= 1

    async def beat(self) -> None:
        """Show the others that we live."""
        if time.monotonic() - self._shown_at >= ROUND_SECONDS:
            await self.in_thread(self.ledger.beat)
            self._shown_at = time.monotonic()

    def forgive_others(self) -> None:
        """Start anew to wait for the others: they could not show themselves either."""
        now = time.monotonic()
        self.others = {name: (beats, now) for name, (beats, _) in self.others.items()}

    async def settle_for_others(self) -> None:
        """Settle what workers left that don't live any more."""
        now = time.monotonic()
        if now - self._watched_at < ROUND_SECONDS:
            return
        # Who was away, or asleep, doesn't know how long the others have said nothing.
        awake = now - self._watched_at < WORKER_SECONDS
        seen = await self.in_thread(self.ledger.other_workers)
        self._watched_at = now
        known = self.others if awake else {}
        self.others = {
            name: known[name] if name in known and known[name][0] == beats else (beats, now)
            for name, beats in seen.items()
        }
        gone = [name for name, (_, since) in self.others.items() if now - since >= WORKER_SECONDS]
        if not gone and now - self._swept_at < SWEEP_SECONDS:
            return
        self._swept_at = now
        while await self.in_thread(partial(self.ledger.sweep, gone)):
            pass
        for name in gone:
            self.others.pop(name, None)

    async def tidy_up(self) -> None:
        """Drop old records, and roll up those in which nothing changes any more, once a day."""
        if time.monotonic() - self._tidied_at < TIDY_SECONDS:
            return
        self._tidied_at = time.monotonic()
        find = partial(self.ledger.find_oldest_kept, self.retention_seconds)
        oldest = await self.in_thread(find)
        if oldest is None:
            return
        # Each bite has a turn of its own, with other work between.
        while await self.in_thread(partial(self.ledger.drop_some, oldest)):
            pass
        while await self.in_thread(self.ledger.roll_up):
            pass

# ================================ helpers/openwebui/accounting.py =================================
# Accounting: sees every reply to its end, whatever becomes of its client, model or ledger.

RETRY_SECONDS = 5
# How often what running replies have used is noted, and their leases are renewed.
RENEW_SECONDS = 30
# An end that the database refuses that often is set aside.
MOST_TRIES = 5
# So many ends that can't be written one after the other: the rest won't be either.
MOST_FAILURES = 3
STOP_SECONDS = 3.0

@dataclass(slots=True)
class WaitingEnd:
    """The end of a reply that could not be written yet."""

    reply: Reply
    charge: Charge | None
    reason: str
    tries: int = 0

class Accounting(LedgerWorker):
    """Sees the replies of one process and one ledger to their ends."""

    def __init__(
        self,
        engine: Engine,
        schema: str | None,
        own_engine: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(engine, schema, own_engine, clock)
        self._alerts = AlertSender()
        self._running: dict[str, Reply] = {}
        self._unwritten: dict[str, WaitingEnd] = {}
        self._memory: IdentityMemory | None = None
        self._maintenance: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._retired = False
        self._renewed_at = time.monotonic()
        replace_keepers(self)

    def remember_identities(
        self,
        read_host: Callable[[Collection[str], Collection[str]], HostNames],
        list_models: Callable[[], Collection[str]],
        publish: Callable[[tuple[str, ...]], None],
    ) -> IdentityMemory:
        """A memory, kept in this ledger, of whom the policies mean."""
        read_names = partial(self._read_prepared, read_remembered)
        self._memory = IdentityMemory(
            read_names, self.ledger.write_names, read_host, list_models, publish
        )
        return self._memory

    def close(self) -> None:
        """Wait for what is being written, and give the connections back."""
        if self._maintenance is not None and not self._maintenance.get_loop().is_closed():
            self._maintenance.cancel()  # or it would open others
        super().close()

    def retire(self) -> None:
        """Let go of threads and connections whenever no reply is running: another has taken over.

        What is asked of it all the same it does as before.
        """
        self._retired = True
        loop = self._loop
        if loop is None or loop.is_closed():
            self._let_go()
        else:
            loop.call_soon_threadsafe(self._let_go)

    def stop(self) -> None:
        """Settle what is running by what it has used so far; blocks, for seconds at most.

        The process is about to end. A reply that ends properly all the same puts it right.
        """
        deadline = time.monotonic() + STOP_SECONDS
        ends = [
            WaitingEnd(reply, self._charge_so_far(reply), WORKER_STOPPED)
            for reply in list(self._running.values())
        ]
        for end in [*self._unwritten.values(), *ends]:
            try:
                self._write_end(end, end.reply.written, deadline)
            except Exception:
                log.exception(
                    "Usage limits: reply %s is left to the next start", end.reply.reservation.id
                )
                if time.monotonic() > deadline:
                    return

    async def admit(
        self, build: Callable[[], Reply], announce: bool
    ) -> tuple[Reply, Admission | LedgerError]:
        """Build a reply and reserve for it, and watch the current task for its end.

        Args:
            build: Finds out what is to be known of the reply. It is called in a thread, and may
                block.
            announce: Whether the user can be told of soft limits.

        Returns:
            The reply, and what was decided about it, or why it could not be reserved for.
        """
        deadline, crowded = new_deadline(), self.is_crowded

        def reserve() -> tuple[Reply, Admission | LedgerError]:
            with self.until(deadline):
                reply = build()
                if not crowded and reply.limits and reply.unread is None:
                    model = reply.reservation.model_names[0]
                    reply.expected_output = self.lengths.expected(model)
            request = reply.request_decision()
            if reply.enforced and not request.allowed:  # whatever the ledger would say
                return reply, Admission(request)
            if reply.unread is not None:
                return reply, reply.unread
            if crowded:
                return reply, self.ledger.crowd_error()
            try:
                admission = self.ledger.reserve(
                    reply.reservation,
                    reply.fit_output,
                    reply.limits,
                    enforce=reply.enforced,
                    soft_limit_percent=reply.soft_limit_percent,
                    # An API call's warning would be seen by nobody, and not be given again.
                    announce=announce and reply.reservation.source != "api",
                    deadline=deadline,
                )
            except LedgerError as error:
                return reply, error
            reply.written = admission.decision.allowed or not reply.enforced
            decision = admission.decision.with_states(request.states)
            return reply, replace(admission, decision=decision)

        # Where the caller is cancelled the reservation may still be written, and its end must
        # wait for that.
        self._loop = asyncio.get_running_loop()
        if crowded:
            admission = self._loop.run_in_executor(None, reserve)
        else:
            admission = self.in_thread(reserve)
        admission.add_done_callback(self._admitted)
        task = asyncio.current_task()
        if task is not None:
            task.add_done_callback(lambda _: admission.add_done_callback(self._task_ended))
        return await asyncio.shield(admission)

    def forget(self, reply: Reply) -> None:
        """Leave a reply alone that is not going to run."""
        self._running.pop(reply.reservation.id, None)

    async def grow(self, reply: Reply, limits: Sequence[AppliedLimit]) -> Decision:
        """Write down what another round of a reply needs, and where its limits stand without it.

        Raises:
            LedgerError: The database can't be reached, or is too busy.
            LedgerDataError: It refuses what is to be written.
        """
        if reply.growing is not None:
            await asyncio.shield(reply.growing)
        reply.output_tokens, reply.lent = max(reply.output_tokens, reply.lent), 0
        seen, deadline = reply.own_usage(), new_deadline()

        def hold(decision: Decision) -> Charge:
            reply.fit_to(decision, seen.output_tokens, reply.prompt_with(seen))
            return reply.reserved_charge(seen)

        return await self.in_thread(
            lambda: self.ledger.grow(reply.reservation, hold, limits, deadline)
        )

    async def lend(self, reply: Reply) -> None:
        """Leave what a reply holds to a call that is made within it, but for what it has used.

        What it writes itself from then on is reserved as it is written.
        """
        if reply.growing is not None:
            await asyncio.shield(reply.growing)
        if reply.ending is not None or not reply.written:
            return
        reply.lent, reply.output_tokens = max(1, reply.lent, reply.output_tokens), 0
        held = {reply.reservation.id: make_charge(reply.own_usage(), reply.rule)}
        try:
            await self.in_thread(lambda: self.ledger.renew(held, new_deadline()))
        except (LedgerError, LedgerDataError) as error:  # then it is held twice for a while
            log.error("Usage limits: %s; reply %s holds what it did", error, reply.reservation.id)

    async def keep_up(self, reply: Reply, size: int, step: int) -> int | None:
        """See that a reply holds more than it has produced: more is reserved in the background.

        Args:
            size: How long its stream is so far.
            step: How long the last part of it was.

        Returns:
            How long it may become until this is asked again; None where it has to end now.
        """
        try:
            return await self._keep_up(reply, size, step)
        except Exception:
            # Nothing may pass for a fault of ours.
            log.exception("Usage limits: reply %s was not looked after", reply.reservation.id)
            return None if reply.stops else size + FARTHEST_MARK

    async def _keep_up(self, reply: Reply, size: int, step: int) -> int | None:
        if reply.stopped:  # in a round before
            return None
        if not reply.rule.weight:
            return size + FARTHEST_MARK
        if reply.writes_since is None:
            reply.writes_since = time.monotonic()
        produced = reply.own_usage().output_tokens
        following = produced + reply.next_part(size, step, produced)
        if reply.stops and following > reply.output_tokens:
            # It has used up all that it holds: what comes next waits until there is more.
            if reply.growing is not None:
                await asyncio.shield(reply.growing)
            held = 0
            while held < reply.output_tokens < following:
                held = reply.output_tokens
                await self._grow(reply)
            if following > reply.output_tokens:
                await self._stop_reply(reply)
                return None
        elif reply.growing is None and reply.refused_by is None and reply.is_nearly_full(produced):
            reply.growing = asyncio.create_task(self._grow(reply))
        return reply.next_mark(size, produced)

    async def _stop_reply(self, reply: Reply) -> None:
        reply.stopped = True
        log.info(
            "Usage limits: reply %s of user %s was stopped at its limit",
            reply.reservation.id,
            reply.reservation.subject.user_id,
        )
        if reply.emitter is not None:
            await tell_stopped(reply, reply.emitter, reply.refused_by)

    async def _grow(self, reply: Reply) -> None:
        """Reserve a block more for a reply, at once visible to all; never raises."""
        seen, held, deadline = reply.own_usage(), reply.output_tokens, new_deadline()
        block = reply.block(seen.output_tokens)
        limits = reply.limits if reply.stops else ()
        try:
            if reply.written:
                await self.in_thread(
                    lambda: self.ledger.grow(
                        reply.reservation,
                        partial(reply.hold_more, seen, held, block),
                        limits,
                        deadline,
                    )
                )
            else:  # let through while the ledger was away, and written down at its end
                reply.output_tokens = seen.output_tokens + block
        except LedgerError as error:
            log.error("Usage limits: %s; nothing was reserved for %s", error, reply.reservation.id)
            ends = reply.stops and (reply.needs_ledger or isinstance(error, LedgerBusyError))
            reply.output_tokens = held if ends else seen.output_tokens + block
        except Exception:
            # Nothing may pass for a fault of ours: it ends where its reservation does.
            log.exception("Usage limits: nothing was reserved for %s", reply.reservation.id)
            reply.output_tokens = held
        finally:
            reply.growing = None

    async def end(self, reply: Reply, charge: Charge | None) -> Decision | None:
        """Settle a reply, or release it where `charge` is None; only the first end counts.

        Returns:
            Where its limits stand then; None where the ledger can't say.
        """
        if reply.ending is None:
            reply.ending = asyncio.create_task(self._settle(reply, charge))
        return await asyncio.shield(reply.ending)

    def _keep_maintaining(self) -> None:
        # Also after a reply that could not be written: it may have ended before that failed.
        if self._maintenance is None or self._maintenance.done():
            self._maintenance = asyncio.create_task(self._maintain())

    def _admitted(self, done: asyncio.Future[tuple[Reply, Admission | LedgerError]]) -> None:
        if done.cancelled() or done.exception() is not None:
            return
        reply, admission = done.result()
        if reply.written or isinstance(admission, LedgerError):
            self._running[reply.reservation.id] = reply
        # Also for one that is refused: a worker that is gone may hold what it wanted.
        self._keep_maintaining()

    def _task_ended(self, admission: asyncio.Future[tuple[Reply, Admission | LedgerError]]) -> None:
        # Stopped, disconnected, broken off, failed: no outlet came. One that did has settled.
        if admission.cancelled() or admission.exception() is not None:
            return
        reply, _ = admission.result()
        if reply.reservation.id not in self._running or reply.ending is not None:
            return
        if reply.outlives_task:
            return
        reply.ending = asyncio.create_task(self._settle(reply, reply.final_charge()))

    @staticmethod
    def _charge_so_far(reply: Reply) -> Charge:
        """What a reply has used until now: nothing before its model was called."""
        if reply.meter.produced or reply.calls:
            return reply.used_charge()
        if not reply.called_model:
            return Charge(Usage(estimated=True))
        return make_charge(Usage(reply.prompt_tokens, 0, estimated=True), reply.rule)

    async def _settle(self, reply: Reply, charge: Charge | None) -> Decision | None:
        reason = ""
        if charge is None:
            reason = NO_ANSWER if reply.call_refused else NOT_CALLED
        end, key, deadline = WaitingEnd(reply, charge, reason), reply.reservation.id, new_deadline()
        try:
            if charge is None and not reply.written:
                return None
            settlement = await self.in_thread(lambda: self._write_end(end, reply.written, deadline))
        except BaseException as error:
            # Outages are long, and texts are large: only what is still to be written is kept.
            rest = replace(
                reply,
                meter=ReplyMeter(),
                calls=[],
                unread=None,
                emitter=None,
                growing=None,
                ending=None,
            )
            self._unwritten[key] = replace(end, reply=rest)
            if not isinstance(error, Exception):
                raise
            log.error(
                "Usage limits: %s; reply %s of user %s will be settled later (%s tokens)",
                error,
                key,
                reply.reservation.subject.user_id,
                charge.usage.input_tokens + charge.usage.output_tokens if charge else 0,
            )
            self._keep_maintaining()
            return None
        finally:
            self._running.pop(key, None)
        self._alert(reply, settlement)
        self._note_price(reply, charge)
        return settlement.decision

    def _note_price(self, reply: Reply, charge: Charge | None) -> None:
        names, memory = reply.reservation.model_names, self._memory
        if charge is None or memory is None or memory.knows_unpriced(names):
            return
        if reply.lacks_price(charge):
            memory.note_unpriced(names)

    def _alert(self, reply: Reply, settlement: Settlement) -> None:
        for state in settlement.crossed:
            payload = alert_payload(reply.reservation, state)
            self._alerts.send(reply.alert_url, payload)

    def _write_end(
        self, end: WaitingEnd, written: bool, deadline: float | None = None
    ) -> Settlement:
        reply, charge = end.reply, end.charge
        if not written and charge is not None:
            # Let through while the ledger was away: it is on record all the same.
            self.ledger.reserve(
                reply.reservation,
                lambda _: charge,
                (),
                enforce=False,
                may_exist=True,
                deadline=deadline,
            )
        settlement = self.ledger.settle(
            reply.reservation,
            charge,
            reply.limits,
            # Nobody looks at a status line of an API call.
            decide=bool(reply.alert_url) or reply.reservation.source != "api",
            alert_percent=reply.soft_limit_percent if reply.alert_url else None,
            reason=end.reason,
            deadline=deadline,
        )
        if written and charge is not None and not settlement.closed:
            # Its reservation may have been lost in a crash of the database server.
            return self._write_end(end, False, deadline)
        return settlement

    async def _maintain(self) -> None:
        """Show that we live, write what could not be written, and settle what others left."""
        while True:
            try:
                await self._maintain_once()
            except LedgerError as error:
                self.forgive_others()
                log.error("Usage limits: %s; trying again", error)
            except Exception:
                # A fault of ours must not end this: leases would run out.
                log.exception("Usage limits: the maintenance failed; trying again")
            if not (self._running or self._unwritten or self.others):
                break
            await asyncio.sleep(RETRY_SECONDS if self._unwritten else ROUND_SECONDS)
        # Not awaited: who comes now needs a loop of its own.
        if self._retired:
            self._let_go()
        else:
            self.release_idle()

    def _let_go(self) -> None:
        """Give back threads and connections, if nothing is running."""
        if self._running or self._unwritten or self.queued:
            self._keep_maintaining()
            return
        self.leave()

    async def _maintain_once(self) -> None:
        if self._running or self._unwritten:
            await self.beat()
            await self._renew()
        await self._write_waiting()
        await self.settle_for_others()
        await self.tidy_up()

    async def _renew(self) -> None:
        """Note what running replies have used, and renew their leases."""
        now = time.monotonic()
        if now - self._renewed_at < RENEW_SECONDS:
            return
        self._renewed_at = now
        charges = {
            key: end.charge for key, end in self._unwritten.items() if end.charge is not None
        }
        for key, reply in list(self._running.items()):
            if reply.ending is None:
                try:
                    charges[key] = reply.reserved_charge()
                except Exception:
                    log.exception("Usage limits: what reply %s holds is not known", key)
        try:
            await self.in_thread(lambda: self.ledger.renew(charges))
        except LedgerError:
            raise
        except Exception:
            # One of them is refused: the others must not suffer from it.
            for key, charge in charges.items():
                try:
                    await self.in_thread(partial(self.ledger.renew, {key: charge}))
                except LedgerError:
                    raise
                except Exception as error:
                    log.error("Usage limits: %s; reply %s was not renewed", error, key)

    async def _write_waiting(self) -> None:
        """Write the ends that could not be written, each for itself."""
        failures: list[LedgerError] = []
        for key, end in list(self._unwritten.items()):
            try:
                await self.in_thread(partial(self._write_end, end, False))
            except LedgerError as error:
                # Busy for one user, perhaps; but where nobody answers nobody needs to be asked.
                failures.append(error)
                if len(failures) >= MOST_FAILURES:
                    break
                continue
            except Exception as error:
                end.tries += 1
                if end.tries < MOST_TRIES:
                    log.error("Usage limits: %s; reply %s is tried again", error, key)
                    continue
                log.exception(
                    "Usage limits: the end of reply %s of user %s can't be written, and is set "
                    "aside: %r",
                    key,
                    end.reply.reservation.subject.user_id,
                    end.charge,
                )
            self._unwritten.pop(key, None)
        if failures:
            raise failures[-1]

# ================================== helpers/openwebui/ledgers.py ==================================
# Ledgers: what one filter has opened, by the database that its valves name.

class OpenLedger(NamedTuple):
    """A ledger, whom the policies mean by it, and what reads Open WebUI's own database."""

    accounting: Accounting
    memory: IdentityMemory
    read_host: Callable[[Callable[[Connection], Any]], Any]

class Ledgers:
    """The open ledgers of one filter."""

    def __init__(self) -> None:
        self._opened: dict[str, OpenLedger] = {}

    def of(self, valves: AdminValves) -> OpenLedger:
        """The ledger that these valves name."""
        opened = self._opened.get(valves.database_url)
        if opened is None:
            opened = self._opened[valves.database_url] = open_ledger(valves)
        opened.accounting.retention_seconds = valves.retention_seconds
        return opened

def open_ledger(valves: AdminValves) -> OpenLedger:
    """Open a ledger; no I/O yet. What is amiss with the policies' names shows in the form."""
    engine, schema = host_engine(valves.database_url)
    accounting = Accounting(engine, schema, own_engine=not is_host_engine(engine))
    read_host = host_reader().read if valves.database_url else accounting.read
    memory = accounting.remember_identities(
        lambda ids, addresses: read_host(
            partial(read_host_names, user_ids=ids, addresses=addresses)
        ),
        list_model_ids,
        lambda notices: FORM_TEXTS.note("policies", form_note(notices)),
    )
    return OpenLedger(accounting, memory, read_host)

# ================================= helpers/openwebui/directory.py =================================
# The directory: all users of Open WebUI with their groups, read at once.

# More users than any page lists.
MOST_USERS = 50_000
PEOPLE_AT_ONCE = 500

@dataclass(frozen=True, slots=True)
class Directory:
    """Open WebUI's users and its groups.

    Args:
        people: The address, the role and the name of each user by id: texts alone, since Python's
            collector holds every thread while it goes through new objects.
        memberships: The groups of those who are in some, by id.
        groups: All groups by id.
    """

    people: Mapping[str, tuple[str, str, str]]
    memberships: Mapping[str, tuple[GroupRef, ...]]
    groups: Mapping[str, GroupRef]

    def subjects(self) -> Iterator[Subject]:
        """All users."""
        for key, (email, role, _) in self.people.items():
            yield Subject(key, email, role, self.memberships.get(key, ()))

    def find(self, user_id: str) -> Subject:
        """A user by id; without address and groups one who is gone."""
        email, role, _ = self.people.get(user_id, ("", "user", ""))
        return Subject(user_id, email, role, self.memberships.get(user_id, ()))

    @property
    def emails(self) -> dict[str, str]:
        """The users' addresses by id."""
        return {key: email for key, (email, _, _) in self.people.items()}

def read_directory(connection: Connection, user: str | None = None) -> Directory:
    """Users with all their groups, inherited ones included, from Open WebUI's own database.

    Args:
        connection: To that database.
        user: The id or the address of a single user; None for all.
    """
    host_groups = import_module("open_webui.models.groups")
    account: Any = import_module("open_webui.models.users").User
    group, member = host_groups.Group, host_groups.GroupMember
    parent = getattr(group, "parent_group_id", None)  # groups can be nested since 0.12
    rows = connection.execute(select(group.id, group.name, null() if parent is None else parent))
    groups: dict[str, tuple[GroupRef, str | None]] = {
        str(key): (GroupRef(str(key), str(name or "")), above) for key, name, above in rows
    }
    people = select(account.id, account.email, account.role, account.name).limit(MOST_USERS)
    members = select(member.group_id, member.user_id)
    if user is not None:
        people = people.where(
            or_(account.id == user, func.lower(account.email) == user.strip().lower())
        )
    found = {
        str(key): (
            clean_text(email, LONGEST_NAME),
            clean_text(role, LONGEST_NAME) or "user",
            clean_text(name, LONGEST_NAME),
        )
        for some in connection.execute(people.order_by(account.id)).partitions(PEOPLE_AT_ONCE)
        for key, email, role, name in some
    }
    if user is not None:
        members = members.where(member.user_id.in_(list(found)))
    above = {key: tuple(groups[one][0] for one in with_outer_groups(key, groups)) for key in groups}
    inside: dict[tuple[GroupRef, ...], tuple[GroupRef, ...]] = {}  # each set of groups once
    memberships: dict[str, tuple[GroupRef, ...]] = {}
    for some in connection.execute(members.order_by(member.group_id)).partitions(PEOPLE_AT_ONCE):
        for group_id, user_id in some:
            if group_id in groups:
                own, more = memberships.get(user_id), above[group_id]
                all_of = tuple(dict.fromkeys((*own, *more))) if own else more
                memberships[user_id] = inside.setdefault(all_of, all_of) if own else more
    return Directory(found, memberships, {key: ref for key, (ref, _) in groups.items()})

def read_names(connection: Connection, with_users: bool) -> tuple[dict[str, str], dict[str, str]]:
    """The addresses of users, if wanted, and the names of groups, by id."""
    group = import_module("open_webui.models.groups").Group
    account: Any = import_module("open_webui.models.users").User
    emails: dict[str, str] = {}
    if with_users:
        query = select(account.id, account.email).order_by(account.id).limit(MOST_USERS)
        rows = connection.execute(query).all()
        emails = {str(key): clean_text(email, LONGEST_NAME) for key, email in rows}
    named = connection.execute(select(group.id, group.name)).all()
    return emails, {str(key): str(name or "") for key, name in named}

def with_outer_groups(
    key: str, groups: Mapping[str, tuple[GroupRef, str | None]]
) -> tuple[str, ...]:
    """A group and all that it is inside of, each once."""
    found, outer = [key], groups[key][1]
    # Also ends where an older version left a circle of groups.
    while outer is not None and outer in groups and outer not in found:
        found.append(outer)
        outer = groups[outer][1]
    return tuple(found)

# ================================ helpers/openwebui/page_limits.py ================================
# Limits as the pages have them: those of many users at one instant, and how JSON says them.

Json = dict[str, Any]
PAGE_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str)

@dataclass(frozen=True, slots=True)
class Match:
    """What applies to a user, and to all others of whom the policies know no more.

    Args:
        policy: The policy.
        exempt: Whether such a user is recorded but never refused.
        own: The policy's limits with their windows; none for an exempt user.
        pools: The limits of the pools that such a user is in; none for an exempt one.
        groups: The groups with the names in the policies that mean them.
    """

    policy: Policy
    exempt: bool
    own: tuple[tuple[Limit, Window], ...]
    pools: tuple[AppliedLimit, ...]
    groups: tuple[GroupRef, ...]

    def own_limits(self, subject: Subject) -> list[AppliedLimit]:
        """A user's own limits."""
        policy, scope = self.policy, subject.scope
        name = "" if policy.kind == "default" else policy.name
        return [AppliedLimit(one, scope, window, name, policy.kind) for one, window in self.own]

    def limits_of(self, subject: Subject) -> list[AppliedLimit]:
        """The same, and those of the pools that the user is in."""
        return [*self.own_limits(subject), *self.pools]

class LimitFinder:
    """Finds the limits of many users at one instant; what is alike for several, once.

    Args:
        valves: With the policies.
        identities: Whom those mean.
        now: The instant.
    """

    def __init__(self, valves: AdminValves, identities: Identities, now: datetime) -> None:
        self._valves, self._identities, self._now = valves, identities, now
        self._policies, self._default = valves.policy_set, valves.default_policy
        self._rules = valves.calendar_rules
        self._matches: dict[tuple[str, tuple[GroupRef, ...]], Match] = {}
        self._windows: dict[str, Window] = {}
        self._pools: dict[tuple[str, str], tuple[AppliedLimit, ...]] = {}

    def match(self, named: Subject) -> Match:
        """What applies to a user."""
        if self._identities.names_user(named):
            return self._match(named)
        key = (named.role, named.groups)
        found = self._matches.get(key)
        if found is None:
            found = self._matches[key] = self._match(named)
        return found

    def limits_of_pool(self, pool: Pool, groups: Iterable[GroupRef]) -> list[AppliedLimit]:
        """A pool's limits, for each group of its that is among these, which were recalled."""
        limits: list[AppliedLimit] = []
        for scope in pool_scopes(pool, groups):
            key = (pool.name, scope)
            if key not in self._pools:
                self._pools[key] = tuple(
                    AppliedLimit(limit, scope, self._window(limit), pool.name)
                    for limit in pool.limits
                )
            limits += self._pools[key]
        return limits

    def _match(self, named: Subject) -> Match:
        subject, valves = self._identities.recall(named), self._valves
        policy = choose_policy(subject, self._policies, self._default, valves.multiple_groups)
        if is_exempt(valves, subject):
            return Match(policy, True, (), (), subject.groups)
        own = tuple((limit, self._window(limit)) for limit in policy.limits or ())
        pools = tuple(
            applied
            for pool in self._policies.pools
            for applied in self.limits_of_pool(pool, subject.groups)
        )
        return Match(policy, False, own, pools, subject.groups)

    def _window(self, limit: Limit) -> Window:
        name = limit.period.name
        if name not in self._windows:
            self._windows[name] = limit.period.window(self._now, self._rules)
        return self._windows[name]

class LimitWriter:
    """Writes limits as JSON text, of which thousands are asked for; what is alike is made once."""

    def __init__(self, language: Language) -> None:
        self._language = language
        self._heads: dict[tuple[int, str, bool], tuple[Limit, str]] = {}
        self._instants: dict[datetime, str] = {}

    def write(self, state: LimitState, percent: int | None = None) -> str:
        """One limit; money in dollars. `percent` is the state's, where it is known already."""
        applied, limit = state.applied, state.applied.limit
        # By identity: the limits of a policies text live as long as it does.
        key = (id(limit), applied.policy, applied.is_pool)
        found = self._heads.get(key)
        if found is None:
            found = self._heads[key] = (limit, self._head(applied))
        numbers: list[float] = [
            state.amount,
            state.granted,
            state.used,
            state.reserved,
            state.remaining,
        ]
        if limit.measure == "cost":
            numbers = [number / 1_000_000 for number in numbers]
        amount, granted, used, reserved, remaining = numbers
        percent = state.percent if percent is None else percent
        reset_at = "null" if limit.is_moment else self._instant(state.reset_at)
        return (
            f'{found[1]},"amount":{amount},"granted":{granted},"used":{used},'
            f'"reserved":{reserved},"remaining":{remaining},"percent":{percent},'
            f'"reset_at":{reset_at}}}'
        )

    def _head(self, applied: AppliedLimit) -> str:
        limit = applied.limit
        head = {
            "limit": str(limit),
            "text": limit_text(limit, self._language),
            "measure": limit.measure,
            "period": limit.period.name,
            "model": limit.model_glob,
            "source": limit.source,
            "scope": applied.policy if applied.is_pool else "user",
            "policy": applied.policy or "default",
        }
        return PAGE_JSON.encode(head).removesuffix("}")

    def _instant(self, instant: datetime) -> str:
        text = self._instants.get(instant)
        if text is None:
            text = self._instants[instant] = f'"{iso_instant(instant)}"'
        return text

def amount_number(measure: Measure, amount: int) -> float:
    """An amount of a limit as JSON has it: money in dollars, all else as it is counted."""
    return amount / 1_000_000 if measure == "cost" else amount

def iso_instant(instant: datetime) -> str:
    """An instant as ISO 8601 in UTC."""
    return instant.astimezone(UTC).isoformat(timespec="seconds")

def iso_second(second: int) -> str:
    """A second of the ledger as ISO 8601 in UTC."""
    return iso_instant(datetime.fromtimestamp(second, UTC))

def grant_rows(rows: Iterable[Row[Any]], at: datetime) -> list[Json]:
    """Grants, resets and what was taken back, as JSON has them."""
    listed, second = list(rows), int(at.timestamp())
    revoked = {row.id.removeprefix(REVOKED) for row in listed if row.id.startswith(REVOKED)}
    return [
        {
            "id": row.id.removeprefix(REVOKED),
            "kind": "revoke" if row.id.startswith(REVOKED) else row.kind,
            "scope": "user" if row.scope.startswith("user:") else "pool",
            "measure": row.measure,
            "period": row.period,
            "model": row.model_glob,
            "source": row.source,
            "amount": amount_number(row.measure, row.amount),
            "granted_by": row.granted_by,
            "reason": row.reason,
            "created_at": iso_second(row.created_at),
            "expires_at": iso_second(row.expires_at),
            "holds": row.expires_at > second and row.amount > 0 and row.id not in revoked,
        }
        for row in listed
    ]

# =============================== helpers/openwebui/page_answers.py ================================
# The pages' requests and answers: what is read of the one, and how the other is sent.

# A policies text of hundreds of thousands of characters, and nothing near a denial of service.
LARGEST_BODY = 2 * 2**20

class PageError(Exception):
    """An answer other than what was asked for.

    Args:
        status: The HTTP status.
        detail: What is wrong, in a sentence.
        more: What else the answer has.
    """

    def __init__(self, status: int, detail: str, **more: str) -> None:
        super().__init__(detail)
        self.status = status
        self.content = {"detail": detail, **more}

def read_flag(text: str | None) -> bool:
    """A parameter that is true or not.

    Raises:
        PageError: It is neither.
    """
    word = (text or "").lower()  # some libraries write True
    if word not in ("", "true", "false", "1", "0"):
        raise PageError(400, "near: true or false")
    return word in ("true", "1")

async def read_body(request: Request) -> Json:
    """The JSON object that a request carries; {} where it carries nothing.

    Raises:
        PageError: It is too long, or something else.
    """
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > LARGEST_BODY:
            raise PageError(413, f"The request is longer than {LARGEST_BODY // 2**20} MB.")
        parts.append(part)
    text = b"".join(parts)
    if not text:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise PageError(400, "The request is not a JSON object.")
    return value

def check_intent(request: Request) -> None:
    """See that a change was asked for by a program, not by another site in a signed-in browser.

    Neither this header nor this type of content can be sent from there, and a cookie is sent
    along by itself.

    Raises:
        PageError: It wasn't.
    """
    key_header = getattr(import_module("open_webui.env"), "CUSTOM_API_KEY_HEADER", "x-api-key")
    bearer = request.headers.get("authorization", "").lower().startswith("bearer ")
    if not bearer and not request.headers.get(str(key_header)):
        raise PageError(403, "A change needs the token in the Authorization header.")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and request.method != "DELETE":
        raise PageError(415, "A change is sent as application/json.")

def as_answer(value: object) -> Response:
    """An answer as it is sent."""
    if isinstance(value, Response):
        return value
    text = PAGE_JSON.encode(value)
    return Response(text.encode("utf-8", "replace"), media_type="application/json")

def error_answer(error: Exception) -> Response:
    """An error as JSON: never with more than its sentence."""
    status = 500
    content: Json = {"detail": PAGE_FAULT}
    match error:
        case PageError():
            status, content = error.status, error.content
        case PoliciesError():
            errors = [
                {"where": one.where, "given": one.given, "allowed": one.allowed}
                for one in error.errors
            ]
            status, content = 400, {"errors": errors}
        case ConfigurationError():
            status, content = 400, {"detail": str(error)}
        case LedgerError() | HostDatabaseError() | SQLAlchemyError():  # the last from the sign-in
            status, content = 503, {"detail": PAGE_UNREACHABLE}
            why = type(error).__name__ if isinstance(error, SQLAlchemyError) else error
            log.error("Usage limits: %s; a page was not shown", why)
        case LedgerDataError():
            log.error("Usage limits: %s; a page was not shown", error)
        case _:
            log.exception("Usage limits: a page was not shown", exc_info=error)
    answer = as_answer(content)
    answer.status_code = status
    return answer

# ================================= helpers/openwebui/page_data.py =================================
# What the usage pages show, as JSON has it; everything here blocks, and runs in a thread.

MOST_REPLIES = 200
MOST_GRANTS = 500
MOST_LISTED_ROWS = 20_000
# So many are read and written at once. Were it all of them, Python's collector would go through
# the whole process for so many new objects, and every chat would stand still meanwhile.
USERS_AT_ONCE = 100

@dataclass(frozen=True, slots=True)
class Standing:
    """Where a user stands: limits, and use by model, as JSON has it."""

    subject: Subject
    name: str
    policy: Policy
    exempt: bool
    states: tuple[LimitState, ...]
    today: list[Json]
    month: list[Json]

@dataclass(frozen=True, slots=True)
class PageData:
    """One answer's view of the ledger and of Open WebUI.

    Args:
        valves: What the filter is set to.
        accounting: The ledger.
        memory: Whom the policies mean.
        read_host: Reads from Open WebUI's own database.
        now: The instant of the question.
        language: The one that limits are said in.
    """

    valves: AdminValves
    accounting: Accounting
    memory: IdentityMemory
    read_host: Callable[[Callable[[Connection], Any]], Any]
    now: datetime
    language: Language = ENGLISH

    # What is read

    def directory(self, user: str | None = None) -> Directory:
        """Open WebUI's users, or one of them, with their groups."""
        found: Directory = self.read_host(partial(read_directory, user=user))
        return found

    def read(self, work: Callable[[Connection], Any]) -> Any:
        """Read one moment of the ledger."""
        self.accounting.prepare()
        return self.accounting.read(partial(read_snapshot_of, work=work))

    def finder(self) -> LimitFinder:
        """What finds the limits of users and pools now."""
        return LimitFinder(self.valves, self.memory.identities(self.valves.policy_set), self.now)

    def find_user(self, key: object) -> tuple[Subject, str]:
        """A user by id or address, and what the user is called.

        Raises:
            PageError: There is none.
        """
        if not isinstance(key, str) or not 0 < len(key.strip()) <= LONGEST_NAME:
            raise PageError(400, "user: the id or the e-mail address of a user")
        # A text that no database has names nobody.
        directory = self.directory(key if clean_text(key, LONGEST_NAME) == key else "")
        # An id is never taken for an address.
        found = key if key in directory.people else next(iter(directory.people), None)
        if found is None:
            raise PageError(404, f"There is no user {quoted_text(key)}.")
        return directory.find(found), directory.people[found][2]

    # One user

    def standing(self, user_id: str) -> Standing:
        """Where a user's limits stand, and what was used today and this month by model."""
        subject, name = self.find_user(user_id)
        match = self.finder().match(subject)
        limits = match.limits_of(subject)
        today = self._selection(self._window("day"), subject.user_id)
        month = self._selection(self._window("month"), subject.user_id)

        def read(connection: Connection) -> Standing:
            return Standing(
                subject,
                name,
                match.policy,
                match.exempt,
                read_states(connection, limits, self.now),
                self._models(sum_models(connection, today)),
                self._models(sum_models(connection, month)),
            )

        found: Standing = self.read(read)
        return found

    def me(self, user_id: str) -> Json:
        """Everything of one user's: limits, use by model and day, replies, grants."""
        standing, month = self.standing(user_id), self._window("month")
        subject = standing.subject
        this_month = self._selection(month, subject.user_id)
        requests = sum(row["requests"] for row in standing.month)

        def read(connection: Connection) -> Json:
            scopes = {subject.scope, *(state.applied.scope for state in standing.states)}
            days = sum_records(connection, this_month, ["day"])
            replies = read_latest(connection, this_month, MOST_REPLIES)
            grants = read_grants(connection, scopes, int(month.start.timestamp()), MOST_GRANTS)
            return {
                "days": [
                    {"day": day, **sums_row(Sums(*numbers))}
                    for (day,), numbers in sorted(days.items())
                ],
                "replies": [self._reply(row) for row in replies],
                "replies_left_out": max(0, requests - len(replies)),
                "grants": grant_rows(grants, self.now),
            }

        return {
            "user_id": subject.user_id,
            "email": subject.email,
            "name": standing.name,
            **policy_row(subject, standing.policy, standing.exempt),
            "limits": self.write_limits(standing.states),
            "today": standing.today,
            "month": standing.month,
            **self.read(read),
            "since": iso_instant(month.start),
            "timezone": self.valves.timezone,
            "soft_limit_percent": self.valves.soft_limit_percent,
            "shadow_mode": self.valves.shadow_mode,
        }

    def user(self, key: str) -> Json:
        """The same for administrators, by id or address."""
        return self.me(self.find_user(key)[0].user_id)

    # Everybody

    def users(self, near: bool = False) -> list[str]:
        """All users with their limits as JSON text, those near or over one first.

        Args:
            near: Only those.
        """
        directory, finder = self.directory(), self.finder()

        def read(connection: Connection) -> list[tuple[int, str, int, str]]:
            reader, writer = LimitReader(connection, self.now), LimitWriter(self.language)
            pools: dict[int, str] = {}  # the same for all members: read and written once
            alike: dict[int, tuple[Match, str]] = {}  # what all of one match have in common
            found: list[tuple[int, str, int, str]] = []
            people = directory.subjects()
            while some := [(one, finder.match(one)) for one in islice(people, USERS_AT_ONCE)]:
                shared = {id(one): one for _, match in some for one in match.pools}
                new = [one for key, one in shared.items() if key not in pools]
                for applied, state in zip(new, reader.read(new), strict=True):
                    pools[id(applied)] = writer.write(state)
                own = [match.own_limits(subject) for subject, match in some]
                states = iter(reader.read([applied for limits in own for applied in limits]))
                for (subject, match), limits in zip(some, own, strict=True):
                    mine = [(state, state.percent) for state in islice(states, len(limits))]
                    adding = [
                        (percent, state.applied.limit)
                        for state, percent in mine
                        if not state.applied.limit.is_moment
                    ]
                    # A pool is nobody's own: it has a row of its own.
                    alarmed = any(percent >= self.warned_at(limit) for percent, limit in adding)
                    if near and not alarmed:
                        continue
                    if id(match) not in alike:
                        row = policy_row(subject, match.policy, match.exempt)
                        alike[id(match)] = match, PAGE_JSON.encode(row)[1:-1]
                    percent, nearest = max(adding, key=itemgetter(0), default=(0, None))
                    texts = [writer.write(*one) for one in mine]
                    texts += [pools[id(applied)] for applied in match.pools]
                    # As an encoder writes it, which would take a while to be made for each.
                    named = (subject.user_id, subject.email, directory.people[subject.user_id][2])
                    user_id, email, name = map(PAGE_JSON.encode, named)
                    text = (
                        f'{{"user_id":{user_id},"email":{email},"name":{name},{alike[id(match)][1]},'
                        f'"near":{"true" if alarmed else "false"},"percent":{percent},"nearest":'
                        f"{PAGE_JSON.encode(str(nearest) if alarmed else None)},"
                        f'"limits":[{",".join(texts)}]}}'
                    )
                    order = -percent if alarmed else 1, subject.email, len(found)
                    found.append((*order, text))
            return found

        return [text for *_, text in sorted(self.read(read))]

    def near_users(self) -> list[Json]:
        """The users near or over a limit, the furthest first."""
        return [json.loads(text) for text in self.users(near=True)]

    def is_near(self, state: LimitState) -> bool:
        """Whether a limit is reached, or has reached its warning; none about one moment ever is."""
        limit = state.applied.limit
        return not limit.is_moment and state.percent >= self.warned_at(limit)

    def warned_at(self, limit: Limit) -> int:
        """The part of a limit, in percent, from which on it is near."""
        return min(*(limit.warn_percents[:1] or (self.valves.soft_limit_percent,)), 100)

    def pool_limits(self) -> list[tuple[Pool, list[AppliedLimit]]]:
        """All pools, each with its limits for each group that it is of."""
        groups = tuple(self.directory("").groups.values())
        finder = self.finder()
        known = finder.match(Subject("", "", "", groups)).groups
        return [(pool, finder.limits_of_pool(pool, known)) for pool in self.valves.policy_set.pools]

    def pools(self) -> list[Json]:
        """All pools with their limits and grants."""
        found, second = self.pool_limits(), int(self.now.timestamp())
        limits = [applied for _, own in found for applied in own]
        scopes = {applied.scope for applied in limits}

        def read(connection: Connection) -> tuple[Sequence[LimitState], Sequence[Row[Any]]]:
            states = read_states(connection, limits, self.now)
            return states, read_grants(connection, scopes, second, MOST_GRANTS)

        all_states, grants = self.read(read)
        states, rows = iter(all_states), []
        for pool, own in found:
            mine = [next(states) for _ in own]
            keys = {grant_key(applied) for applied in own}
            of_pool = [
                row for row in grants if tuple(row._mapping[column] for column in GRANT_KEY) in keys
            ]
            rows.append(
                {
                    "pool": pool.name,
                    "group": pool.group,
                    "limits": self.write_limits(mine),
                    "grants": grant_rows(of_pool, self.now),
                    "near": any(self.is_near(state) for state in mine),
                }
            )
        return rows

    def report(self, wanted: Sequence[str], selection: Selection) -> Iterator[UsageRow]:
        """What all records in a selection add up to.

        Raises:
            PageError: These are too many rows.
        """
        emails, groups = {}, {}
        if {"user", "group"} & set(wanted):
            emails, groups = self.read_host(partial(read_names, with_users="user" in wanted))

        def read(connection: Connection) -> Iterator[UsageRow]:
            sums = sum_records(connection, selection, wanted, MOST_LISTED_ROWS)
            if len(sums) > MOST_LISTED_ROWS:
                raise PageError(
                    400,
                    f"More than {MOST_LISTED_ROWS:,} rows are too many: "
                    "ask for fewer days or dimensions.",
                )
            if "user" in wanted:
                at = wanted.index("user")
                gone = {key[at] for key in sums} - emails.keys()
                return named_rows(wanted, sums, emails | recorded_emails(connection, gone), groups)
            return named_rows(wanted, sums, emails, groups)

        rows: Iterator[UsageRow] = self.read(read)
        return rows

    def overview(self) -> Json:
        """Totals of today and of this month, use by model, and whom the policies mean."""
        month, today = self._window("month"), self._window("day")

        def read(connection: Connection) -> Json:
            models = sum_models(connection, self._selection(month))
            day = sum_records(connection, self._selection(today), ())
            total = sum(models.values(), Sums())
            return {
                "today": sums_row(Sums(*day.get((), ()))),
                "month": sums_row(total),
                "models": self._models(models),
            }

        return {
            **self.read(read),
            "since": iso_instant(month.start),
            "timezone": self.valves.timezone,
            "notices": list(self.memory.notices),
            "shadow_mode": self.valves.shadow_mode,
            "soft_limit_percent": self.valves.soft_limit_percent,
        }

    # Rows

    def write_limits(self, states: Iterable[LimitState]) -> list[Json]:
        """Limits as JSON has them."""
        writer = LimitWriter(self.language)
        return [json.loads(writer.write(state)) for state in states]

    def _window(self, period: str) -> Window:
        return parse_period(period).window(self.now, self.valves.calendar_rules)

    def _selection(self, window: Window, user_id: str | None = None) -> Selection:
        rules = self.valves.calendar_rules
        return Selection(
            int(window.start.timestamp()), None, rules.timezone, rules.reset_hour, user_id
        )

    def _cost(self, model_names: str, cost_micros: int) -> float | None:
        """Dollars; None where nobody knows them."""
        rule = find_model_rule(self.valves.policy_set, split_names(model_names))
        return cost_micros / 1_000_000 if cost_micros or rule.is_priced else None

    def _models(self, sums: Mapping[tuple[str, str], Sums]) -> list[Json]:
        """Use by model, the largest first."""
        by_model: dict[str, Json] = {}
        for (model, names), part in sums.items():
            row = by_model.setdefault(model, {"model": model, **sums_row(Sums()), "cost_usd": None})
            cost = self._cost(names, part.cost_micros)
            for key, value in sums_row(part).items():
                if key != "cost_usd":
                    row[key] += value
            if cost is not None:
                row["cost_usd"] = (row["cost_usd"] or 0) + cost
        return sorted(by_model.values(), key=lambda row: (-row["total_tokens"], row["model"]))

    def _reply(self, row: Row[Any]) -> Json:
        return {
            "at": iso_second(row.created_at),
            "model": row.model_id,
            "source": row.source,
            "running": row.state == "reserved",
            "input_tokens": row.input_tokens,
            "output_tokens": row.output_tokens,
            "cost_usd": self._cost(row.model_names, row.cost_micros),
            "estimated": bool(row.estimated),
        }

@dataclass(frozen=True, slots=True)
class PageRequest:
    """One question, as its handler gets it.

    Args:
        data: What can be read.
        user: Who asks, as Open WebUI has it.
        parameters: From the path and the query.
        body: The JSON object that was sent; {} for none.
        everywhere: Whether the filter is on for all models.
        deadline: Until when it has its turn to change something, by `time.monotonic`.
    """

    data: PageData
    user: Any
    parameters: Mapping[str, str]
    body: Json
    everywhere: bool
    deadline: float

    @property
    def actor(self) -> str:
        """Who asks, as a grant names it."""
        return str(getattr(self.user, "email", "") or self.user.id)

def policy_row(subject: Subject, policy: Policy, exempt: bool) -> Json:
    """What a user has in common with all others of the same role and groups."""
    return {
        "role": subject.role,
        "groups": [group.name for group in subject.groups],
        "policy": policy.name,
        "exempt": exempt,
    }

# ================================ helpers/openwebui/page_grants.py ================================
# Grants on the page: what administrators add to limits, begin anew and take back.

LONGEST_REASON = 1_000
MOST_RESET_AT_ONCE = 100
# More than this nobody adds to a limit: a sum of many still fits in 64 bits.
LARGEST_GRANT = 10**15

@dataclass(frozen=True, slots=True)
class GrantTarget:
    """Whose limits are to be changed: a user's own, or a pool's."""

    name: str
    limits: tuple[AppliedLimit, ...]
    answer: Json

def find_target(data: PageData, body: Mapping[str, Any]) -> GrantTarget:
    """The user or the pool that a request names, with the limits of its own.

    Raises:
        PageError: It names none, or both.
    """
    user, pool = body.get("user"), body.get("pool")
    if (user is None) == (pool is None):
        raise PageError(400, 'either "user" (an id or an e-mail address) or "pool"')
    if user is not None:
        subject, _ = data.find_user(user)
        own = tuple(data.finder().match(subject).own_limits(subject))
        name = subject.email or subject.user_id
        return GrantTarget(name, own, {"user": name, "user_id": subject.user_id})
    limits_by_pool = {one.name: limits for one, limits in data.pool_limits()}
    if not isinstance(pool, str) or pool not in limits_by_pool:
        known = ", ".join(limits_by_pool) or "there are none"
        given = f" {quoted_text(pool)}" if isinstance(pool, str) else " of that kind"
        raise PageError(404, f"There is no pool{given}. Pools: {known}.")
    return GrantTarget(f"pool {pool}", tuple(limits_by_pool[pool]), {"pool": pool})

def make_grant(asked: PageRequest) -> Json:
    """Add to a limit until its window ends.

    Raises:
        PageError: The request can't be understood, or there is no such limit.
    """
    data, body = asked.data, asked.body
    check_names(body, ("user", "pool", "limit", "amount", "reason"))
    wanted = read_limit_text(body.get("limit"))
    amount, reason = read_amount(body.get("amount"), wanted.measure), read_reason(body)
    target = find_target(data, body)
    limits = matching(target, wanted, body.get("limit"))
    grants = [NewGrant(applied, amount, grant_end(applied, data.now)) for applied in limits]
    first = grants[0]
    return {
        "id": first.id,
        "kind": "grant",
        "limit": str(first.applied.limit),
        "amount": amount_number(wanted.measure, amount),
        "expires_at": iso_second(first.expires_at),
        **change_limits(asked, target, limits, lambda _: grants, reason),
    }

def make_reset(asked: PageRequest) -> Json:
    """Start limits anew by grants of what was used.

    Raises:
        PageError: The request can't be understood, or there is no such limit.
    """
    body = asked.body
    check_names(body, ("user", "pool", "limits", "reason"))
    reason, target = read_reason(body), find_target(asked.data, body)
    texts = body.get("limits")
    if isinstance(texts, str):
        texts = None if texts.strip().lower() == "all" else [texts]
    # Whoever sends an empty list has found no limit to reset, and doesn't mean all of them.
    if texts is not None and (
        not isinstance(texts, list) or not 0 < len(texts) <= MOST_RESET_AT_ONCE
    ):
        raise PageError(400, 'limits: a list such as ["50k tokens/day"]; left out, all')
    named = [
        applied for text in texts or () for applied in matching(target, read_limit_text(text), text)
    ]
    adding = tuple(one for one in target.limits if not one.limit.is_moment)
    limits = tuple(dict.fromkeys(named)) or adding
    if not limits:
        raise PageError(400, f"{target.name} has no limit.")
    make = partial(make_resets, limits=limits, now=asked.data.now)
    return {"kind": "reset", **change_limits(asked, target, limits, make, reason)}

def change_limits(
    asked: PageRequest,
    target: GrantTarget,
    limits: Sequence[AppliedLimit],
    make: Callable[[Connection], Sequence[NewGrant]],
    reason: str,
) -> Json:
    """Write grants under the locks of their scopes; what every answer has."""
    data, by = asked.data, asked.actor
    work = partial(add_grants, limits=limits, make=make, by=by, reason=reason, now=data.now)
    change: Change = data.accounting.change(work, {applied.scope for applied in limits})
    return {
        **target.answer,
        "ids": [one.id for one in change.grants],
        "reason": reason,
        "granted_by": by,
        "created_at": iso_instant(data.now),
        "limits": data.write_limits(change.after),
    }

def take_back(asked: PageRequest) -> Json:
    """Revoke a grant; the reason stays on record.

    Raises:
        PageError: There is none that still holds.
    """
    check_names(asked.body, ("reason",))
    data, key, by = asked.data, asked.parameters["key"], asked.actor
    reason = read_reason(asked.body)
    missing = PageError(404, "There is no such grant, or it holds no more.")
    if not 0 < len(key) <= LONGEST_ID or clean_text(key, LONGEST_ID) != key:
        raise missing
    data.accounting.prepare()
    row = data.accounting.read(partial(find_grant, key=key, now=data.now))
    if row is None:
        raise missing
    revoke = partial(revoke_grant, key=key, by=by, reason=reason, now=data.now)
    if not data.accounting.change(revoke, {str(row._mapping["scope"])}):
        raise missing
    return {"id": key, "revoked": True, "reason": reason, "revoked_by": by}

def check_names(body: Mapping[str, Any], known: Sequence[str]) -> None:
    """See that a change has nothing that isn't understood: `limit` for `limits` would reset all.

    Raises:
        PageError: It has.
    """
    for name in body:
        if name not in known:
            raise PageError(400, f"unknown {quoted_text(name)}; allowed: {', '.join(known)}")

def matching(target: GrantTarget, wanted: Limit, text: object) -> tuple[AppliedLimit, ...]:
    """The limits of a user or a pool that count what is wanted.

    Raises:
        PageError: There is none; it lists those that there are.
    """
    adding = [one for one in target.limits if not one.limit.is_moment]
    found = tuple(one for one in adding if one.limit.counts == wanted.counts)
    if wanted.is_moment:
        raise PageError(400, f"limit: {wanted} adds nothing up that could be granted or reset")
    if not found:
        known = ", ".join(dict.fromkeys(str(one.limit) for one in adding))
        raise PageError(
            400,
            f"limit: {quoted_text(str(text))} counts what no limit of {target.name} counts; "
            f"its limits: {known or 'none'}",
        )
    return found

def read_limit_text(value: object) -> Limit:
    """A limit in its notation, as a request names it.

    Raises:
        PageError: It isn't one.
    """
    if not isinstance(value, str) or len(value) > LONGEST_NAME:
        raise PageError(400, 'limit: a limit as the policies have it, such as "50k tokens/day"')
    try:
        return parse_limit(value, "limit")
    except ConfigurationError as error:
        raise PageError(400, str(error)) from None

def read_amount(value: object, measure: Measure) -> int:
    """An amount to add, as the ledger counts it; money comes in dollars.

    Raises:
        PageError: It isn't a positive number of a sensible size.
    """
    money = measure == "cost"
    most = f"{LARGEST_GRANT // (1_000_000 if money else 1):,}"
    what = "dollars with up to 6 decimals" if money else "a whole number"
    allowed = PageError(400, f'amount: {what} above 0, at most {most}, such as 10 or "10k"')
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise allowed
    # Python refuses to write out really long numbers.
    if isinstance(value, int) and not 0 < value <= LARGEST_GRANT:
        raise allowed
    # A number has no thousands' point: six decimals, so that 1.125 isn't taken for one.
    text = f"{value:.6f}" if isinstance(value, float) else str(value).strip()
    if not text or len(text) > 40:
        raise allowed
    try:
        amount = read_dollars(text.removeprefix("$")) if money else read_count(text, "token")
    except (NotationError, ValueError, OverflowError):
        raise allowed from None
    if not 0 < amount <= LARGEST_GRANT:
        raise allowed
    return amount

def read_reason(body: Mapping[str, Any]) -> str:
    """Why, as it is stored.

    Raises:
        PageError: It isn't a text, or too long.
    """
    reason = body.get("reason", "")
    if not isinstance(reason, str) or len(reason) > LONGEST_REASON:
        raise PageError(400, f"reason: a text of at most {LONGEST_REASON:,} characters")
    return clean_text(reason, LONGEST_REASON).strip()

# ================================ helpers/openwebui/page_status.py ================================
# How the filter stands in its host: versions, what is leaned upon, ways to a model.

SERVER_MODULE = "open_webui.main"
# The pasted file's own first lines, where Open WebUI has read them.
FRONTMATTER_VERSION = re.compile(r"^version: (\S+)$", re.MULTILINE)
WAYS = {
    "count": ("counted", "like chats; what can't be counted is blocked"),
    "block": ("blocked", "the valve passthrough allows no such calls"),
    "allow": ("recorded", "never refused"),
}

def own_version() -> str:
    """The pasted file's version; "" where these modules run by themselves."""
    found = FRONTMATTER_VERSION.search(__doc__ or "")
    return found[1] if found else ""

def missing_internals() -> list[str]:
    """What this Open WebUI should have and has elsewhere, each with what doesn't work for it."""
    version, missing = host_version(), []
    if SERVER_MODULE not in sys.modules:
        return []
    for internal in HOST_INTERNALS:
        if version > (0, 0, 0) and version < internal.since:
            continue
        found: object = sys.modules.get(internal.module)
        for part in internal.name.split("."):
            found = getattr(found, part, None)
        if found is None:
            missing.append(f"{internal.module}.{internal.name} ({internal.used_for})")
    return missing

def host_status(asked: PageRequest) -> Json:
    """Versions, checks and the ways to a model, for administrators."""
    valves, version, missing = asked.data.valves, host_version(), missing_internals()
    # Whether it is so, what is said then, and what if not.
    checks = [
        (
            asked.everywhere,
            "The filter is on for all models.",
            "The filter is on for some models only: others have no limits.",
        ),
        (
            not missing,
            "Open WebUI has everything that the filter needs.",
            f"Open WebUI has moved: {'; '.join(missing)}.",
        ),
        (not valves.shadow_mode, "Limits are enforced.", "Shadow mode is on: nobody is refused."),
    ]
    if (0, 0, 0) < version < OLDEST_HOST_VERSION:
        checks.append((False, "", "This version of Open WebUI is too old."))
    ways = [
        ("chats", "counted", "the page, the API, Anthropic's protocol, voice calls"),
        *(
            (path, *WAYS[valves.passthrough])
            for path in ("/openai/*", "/ollama/*", "/api/v1/tasks/*/completions", "/api/embeddings")
        ),
        (
            "titles, tags and other tasks",
            "counted" if valves.policy_set.tasks_counted else "recorded",
            "over a hard limit they call no model",
        ),
    ]
    return {
        "version": own_version(),
        "open_webui": ".".join(map(str, version)),
        "ledger": asked.data.accounting.database_kind
        + (", a database of its own" if valves.database_url else ", Open WebUI's own database"),
        "checks": [{"ok": ok, "text": good if ok else bad} for ok, good, bad in checks],
        "doors": [{"name": name, "state": state, "detail": detail} for name, state, detail in ways],
        "missing": missing,
    }

# =============================== helpers/openwebui/usage_command.py ===============================
# `/usage` as a message in a chat: the user's limits and use as Markdown, from no model.

COMMAND = "/usage"
LONGEST_COMMAND = 200
MOST_MODELS_SHOWN = 20
MOST_NEAR = 20
# No chat has so many; whoever sends millions must not make others wait.
MOST_MESSAGES = 10_000
MARKDOWN_SIGNS = "\\`*_[]<>|~#!$"

def is_command(message: object) -> bool:
    """Whether a user's message is the command and nothing else, whatever is attached to it."""
    if not isinstance(message, Mapping) or message.get("role") != "user":
        return False
    content = message.get("content")
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, Mapping)]
        texts = [part.get("text") for part in parts if part.get("type") == "text"]
        content = texts[0] if len(texts) == 1 else None
    if not isinstance(content, str) or len(content) > LONGEST_COMMAND:
        return False
    return content.strip().lower() == COMMAND  # a phone may begin a message with a capital

def asks_for_usage(body: Mapping[str, Any]) -> bool:
    """Whether the message that is to be answered is the command, or its answer to go on with."""
    messages = body.get("messages")
    if not isinstance(messages, list):
        return False
    last = messages[-1] if messages else None
    if isinstance(last, Mapping) and last.get("role") == "assistant":
        messages = messages[:-1]
    return any(map(is_command, messages[-1:]))

def drop_answered(body: dict[str, Any]) -> None:
    """Take earlier commands and their answers out of what a model gets.

    They cost tokens, and an administrator's answer names others.
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or len(messages) > MOST_MESSAGES:
        return
    if not any(map(is_command, messages[:-1])):
        return
    kept: list[Any] = []
    answered = False
    for message in messages:
        asked = is_command(message)
        role = message.get("role") if isinstance(message, Mapping) else None
        if not asked and not (answered and role == "assistant"):
            kept.append(message)
        answered = asked
    body["messages"] = kept

def markdown_cell(text: str) -> str:
    """A name as the cell of a table shows it, whatever signs are in it."""
    shown = clean_name(text)
    return "".join(f"\\{sign}" if sign in MARKDOWN_SIGNS else sign for sign in shown)

def markdown_table(headings: Iterable[str], rows: Iterable[Iterable[str]], numbers: int) -> str:
    """A table; its last `numbers` columns are set to the right."""
    heads = list(headings)
    rules = ["---"] * (len(heads) - numbers) + ["--:"] * numbers
    lines = [heads, rules, *(list(row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

async def answer_usage(
    valves: AdminValves,
    ledgers: Ledgers,
    user_id: str,
    metadata: Mapping[str, Any],
    reader: Reader,
    with_link: bool,
    emitter: Emitter,
) -> None:
    """Answer the command in a chat, and end the request as its user's stop button would.

    Raises:
        CancelledError: It is answered.
    """
    try:
        data = PageData(valves, *ledgers.of(valves), datetime.now(UTC))
        text = await asyncio.to_thread(usage_markdown, data, user_id, reader, with_link)
    except Exception:
        log.exception("Usage limits: the use of user %s can't be shown", user_id)
        text = finish_sentence(reader.language.ledger_error, reader.language)
    try:
        await emit(emitter, {"type": "replace", "data": {"content": text}})
        done = {"done": True, "content": text}
        await emit(emitter, {"type": "chat:completion", "data": done})
        await save_answer(metadata, text)
    except Exception:
        log.warning("Usage limits: an answer to /usage was not saved", exc_info=True)
    raise asyncio.CancelledError

def usage_markdown(data: PageData, user_id: str, reader: Reader, with_link: bool) -> str:
    """What a user reads in answer to the command; blocks.

    Args:
        with_link: Whether there is a page to link to.

    Raises:
        LedgerError: It can't be read.
    """
    standing, language = data.standing(user_id), reader.language
    words = language.page_words()
    parts = [f"### {words['title']}"]
    if standing.exempt:
        parts.append(words["exempt"])
        if near := data.near_users()[:MOST_NEAR]:
            parts.append(near_table(near, ("", words["limit"], words["used"])))
    elif standing.states:
        headings = (words[key] for key in ("limit", "used", "left", "resets"))
        rows = [limit_cells(state, data, reader, words) for state in standing.states]
        parts.append(markdown_table(headings, rows, 0))
    else:
        parts.append(words["no_limits"])
    for title, models in (
        (words["today_by_model"], standing.today),
        (words["by_model"], standing.month),
    ):
        if models:
            parts += [f"**{title}**", models_table(models, language, words)]
    if with_link:
        parts.append(f"[{words['title']}](/usage-limits)")
    return "\n\n".join(parts)

def limit_cells(
    state: LimitState, data: PageData, reader: Reader, words: Mapping[str, str]
) -> list[str]:
    """A row about one limit: what it is, used, left, and when it begins anew."""
    limit, language = state.applied.limit, reader.language
    said = sentence_values(state, data.now, reader)
    what = said["what"] + said["named"]
    if limit.is_per_request:
        return [markdown_cell(what), "–", "–", "–"]
    percent = language.percent.format(n=format_count(state.percent, language))
    left = format_amount(limit, state.remaining, language)
    if state.exceeded:
        left += f" · {words['reached']}"
    reset = "–"
    if not limit.is_moment and (limit.period.rolling is None or state.exceeded):
        reset = finish_sentence(said["at"], language)
    return [markdown_cell(what), f"{said['used']} ({percent})", left, reset]

def models_table(models: Iterable[Json], language: Language, words: Mapping[str, str]) -> str:
    """Use by model, the largest first; no cost where nobody knows one."""
    rows = []
    for row in list(models)[:MOST_MODELS_SHOWN]:
        cost = row["cost_usd"]
        rows.append(
            [
                markdown_cell(row["model"]),
                format_count(row["requests"], language),
                format_count(row["total_tokens"], language),
                "–" if cost is None else format_dollars(cost, language),
            ]
        )
    return markdown_table((words[key] for key in ("model", "requests", "tokens", "cost")), rows, 3)

def near_table(near: Iterable[Json], headings: Iterable[str]) -> str:
    """Users near or over a limit, each with that limit."""
    rows = [
        [markdown_cell(row["email"]), markdown_cell(row["nearest"]), f"{row['percent']}%"]
        for row in near
    ]
    return markdown_table(headings, rows, 1)

# ================================ helpers/openwebui/valves_form.py ================================
# The valves form: who is near a limit at its top, and why a save was refused.

# The form's first field, above whose description the notes stand.
FIRST_FIELD = "priority"
NOTES_SECONDS = 5.0
LONGEST_WAIT_SECONDS = 2.0
MOST_NOTED = 10

def valves_form_action(path: str, method: str, function_id: str) -> str:
    """What a request is to a filter's form: ``spec`` when it opens, ``update`` to save, or ""."""
    prefix = f"/api/v1/functions/id/{function_id}/valves/"
    action = path.removeprefix(prefix) if path.startswith(prefix) else ""
    return action if (action, method) in (("spec", "GET"), ("update", "POST")) else ""

class FormNotes:
    """Keeps the notes at the form's top, which are read when it is about to open.

    Args:
        ledger_of: What is read with which valves.
    """

    def __init__(self, ledger_of: Any) -> None:
        self._ledger_of = ledger_of
        self._read_at, self._database = float("-inf"), ""

    async def refresh(self, valves: Any) -> None:
        """Read them anew, if they are old; a form that opens doesn't wait long for that."""
        now = time.monotonic()
        if valves is None or (
            now - self._read_at < NOTES_SECONDS and valves.database_url == self._database
        ):
            return
        self._read_at, self._database = now, valves.database_url
        try:
            accounting, memory, read_host = self._ledger_of(valves)
            data = PageData(valves, accounting, memory, read_host, datetime.now(UTC))
            reading = asyncio.to_thread(near_note, data)
            FORM_TEXTS.note(FIRST_FIELD, await asyncio.wait_for(reading, LONGEST_WAIT_SECONDS))
            FORM_TEXTS.note("database_url", "")
        except Exception as error:
            log.warning("Usage limits: the form's notes could not be read", exc_info=True)
            if isinstance(error, (LedgerError, TimeoutError)):
                FORM_TEXTS.note("database_url", UNREACHED)

    @staticmethod
    def refusal_reasons() -> str:
        """Why the valves were refused last, as plain text; "" if they weren't."""
        refused = FORM_TEXTS.refused | FORM_TEXTS.unsaved
        return "\n".join(f"{name}: {one.reason}" for name, one in refused.items())

def near_note(data: PageData) -> str:
    """Who is near or over a limit now, and which tables name nobody; "" for neither. Blocks."""
    near, parts = data.near_users(), []
    if near:
        shown = near[:MOST_NOTED]
        more = f", and {len(near) - len(shown)} more" if len(near) > len(shown) else ""
        title = f"**Near or over a limit now**{more} (all at `/usage-limits`):"
        parts.append(f"{title}\n\n{near_table(shown, ('User', 'Limit', 'Used'))}")
    if data.memory.notices:
        parts.append(f"**In the policies:**\n\n{form_note(data.memory.notices)}")
    return "\n\n".join(parts)

class SaveAnswer:
    """The answer to a save: where it is refused, with the reason, which Open WebUI leaves out.

    Args:
        send: Where it goes.
        read_reasons: Why valves were refused, by the filter whose form it is: another paste of the
            file has its own.
    """

    def __init__(self, send: Send, read_reasons: Callable[[], str]) -> None:
        self._send = send
        self._read_reasons = read_reasons
        self._refused: Message | None = None

    async def send(self, message: Message) -> None:
        """Pass a part of it on."""
        if message["type"] == "http.response.start":
            if message["status"] == 400 and self._read_reasons():
                self._refused = message
                return
        elif self._refused is not None:
            if message["type"] == "http.response.body" and not message.get("more_body"):
                await self._send_reasons(self._refused)
            return
        await self._send(message)

    async def _send_reasons(self, start: Message) -> None:
        body = json.dumps({"detail": self._read_reasons()}).encode()
        own = (b"content-type", b"content-length", b"content-encoding")
        headers = [*without_headers(start, *own), *json_headers(body)]
        await self._send({**start, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

# ================================ helpers/openwebui/simulation.py =================================
# Simulation: what is on record, replayed against a policies text.

# More records than this aren't replayed at once.
MOST_REPLAYED = 3_000_000
# Chats come between so many records.
RECORDS_PER_TURN = 500
MOST_REFUSALS = 500
MEASURES = ("tokens", "input_tokens", "output_tokens", "requests", "cost")

FindLimits = Callable[[str, str], Sequence[AppliedLimit]]

@dataclass(slots=True)
class PeriodClock:
    """The window that a calendar period has at the record that is replayed."""

    period: Period
    rules: CalendarRules
    start: int = 0
    end: int = 0

    def advance(self, at: int) -> None:
        """Go on to the window around the second `at`."""
        window = self.period.window(datetime.fromtimestamp(at, UTC), self.rules)
        self.start, self.end = int(window.start.timestamp()), int(window.end.timestamp())

@dataclass(slots=True, eq=False)
class Gauge:
    """What one limit has counted so far; limits that count the same in one scope share it.

    Args:
        applied: The limit.
        clock: Of a calendar period.
        seconds: Of a rolling one.
    """

    applied: AppliedLimit
    clock: PeriodClock | None
    seconds: int
    measure: int
    amount: int
    start: int = -1
    used: int = 0
    # Where they are needed: Python's collector holds every thread to look at each one made.
    entries: deque[tuple[int, int]] | None = None
    running: list[int] | None = None  # when replies that run at once will end

    def move(self, at: int) -> None:
        """Forget what no longer counts at the second `at`."""
        if self.clock is not None:
            if self.start != self.clock.start:
                self.start, self.used = self.clock.start, 0
        elif (entries := self.entries) is not None:
            oldest = at - self.seconds
            while entries and entries[0][0] <= oldest:
                self.used -= entries.popleft()[1]
        elif running := self.running:
            while running and running[0] <= at:
                heapq.heappop(running)

    def add(self, at: int, end: int, value: int) -> None:
        """Count a reply that was admitted at the second `at` and ended at `end`.

        A calendar period's is only added to `used`.
        """
        if self.entries is not None:
            if value:
                self.used += value
                self.entries.append((at, value))
        elif self.running is not None and end > at:
            heapq.heappush(self.running, end)

    def state(self, at: int) -> LimitState:
        """Where the limit stands."""
        end = at + (self.seconds or 60) if self.clock is None else self.clock.end
        reset_at = datetime.fromtimestamp(end, UTC)
        return LimitState(self.applied, self.used, len(self.running or ()), reset_at)

@dataclass(slots=True)
class ReplayPlan:
    """How the records of one user with the same model and source are replayed."""

    gauges: tuple[Gauge, ...]
    rule: ModelRule  # what it costs by the text
    changed: bool = False  # whether that isn't what is on record
    asked: bool = False  # whether it is a request of the user's own
    refusable: bool = False
    is_task: bool = False
    only_counted: bool = False  # whether what counted for nothing on record still does
    has_moments: bool = False

    def refusing(self, at: int, input_tokens: int) -> LimitState | None:
        """The limit that refuses a request at the second `at`, by the engine's own decision."""
        # The others can't be what refuses.
        reached = (one for one in self.gauges if one.used >= one.amount or self.has_moments)
        decision = Decision(tuple(gauge.state(at) for gauge in reached))
        if self.has_moments:
            decision = decision.with_request(Amounts(0, input_tokens))
        if self.is_task:  # replies that are still running don't cost a chat its title
            decision = Decision(tuple(one for one in decision.states if not one.is_only_held))
        return decision.refusing

@dataclass(frozen=True, slots=True)
class SimulatedRefusal:
    """A request that would have been refused, and by which limit."""

    id: str
    user_id: str
    model: str
    at: int  # seconds since 1970
    applied: AppliedLimit

@dataclass(slots=True)
class RefusedUser:
    """What would have been refused to one user."""

    refused: int = 0
    cost_micros: int = 0
    tokens: int = 0
    first_at: int = 0
    last_at: int = 0
    limits: dict[int, int] = field(default_factory=dict)  # how often each has refused

@dataclass(slots=True)
class SimulationResult:
    """What came of a replay."""

    requests: int = 0
    refused: int = 0
    users: dict[str, RefusedUser] = field(default_factory=dict)
    refusals: deque[SimulatedRefusal] = field(
        default_factory=lambda: deque(maxlen=MOST_REFUSALS)
    )  # the last ones
    cut_off: bool = False  # whether there were more records than are replayed
    # By identity: they live as long as the replay.
    applied: dict[int, AppliedLimit] = field(default_factory=dict)

    def most_refusing(self, user: RefusedUser) -> AppliedLimit:
        """The limit that has refused most to a user."""
        return self.applied[max(user.limits, key=lambda key: user.limits[key])]

    def note(
        self,
        key: str,
        user_id: str,
        names: str,
        at: int,
        applied: AppliedLimit,
        cost_micros: int,
        tokens: int,
    ) -> None:
        """Add a refusal."""
        self.refused += 1
        user = self.users.get(user_id)
        if user is None:
            user = self.users[user_id] = RefusedUser(first_at=at)
        user.refused += 1
        user.cost_micros += cost_micros
        user.tokens += tokens
        user.last_at = at
        self.applied[id(applied)] = applied
        user.limits[id(applied)] = user.limits.get(id(applied), 0) + 1
        model = "".join(split_names(names)[:1])
        self.refusals.append(SimulatedRefusal(key, user_id, model, at, applied))

class Replay:
    """Replays records in the order of time.

    Decisions are those of `Decision`, on what the records before have used: a reply counts from
    its admission with what it cost in the end.

    Args:
        find_limits: The limits of a user, by id and the record's groups.
        find_rules: The model's rule in the text, and the one that its records were charged by.
        rules: Where calendar periods begin.
        tasks_counted: Whether tasks count toward limits.
        tasks_did_count: Whether they do on record.
        exempt: The ids of users who are never refused: they use up pools all the same.
    """

    def __init__(
        self,
        find_limits: FindLimits,
        find_rules: Callable[[tuple[str, ...]], tuple[ModelRule, ModelRule]],
        rules: CalendarRules,
        tasks_counted: bool,
        tasks_did_count: bool = False,
        exempt: Collection[str] = (),
    ) -> None:
        self._find_limits, self._find_rules = find_limits, find_rules
        self._rules, self._tasks_counted = rules, tasks_counted
        self._tasks_did_count, self._exempt = tasks_did_count, exempt
        self._clocks: dict[str, PeriodClock] = {}
        self._gauges: dict[tuple[object, ...], Gauge] = {}
        self._applied: dict[tuple[int, str], AppliedLimit] = {}
        self._plans: dict[tuple[str, str, str, str], ReplayPlan] = {}

    def run(self, rows: Iterable[Any], since: int) -> SimulationResult:
        """Replay records, as `read_replayed` has them; those before `since` are only counted.

        It is one loop, without calls where nothing happens: a million times takes seconds.
        """
        result, plans, next_turn = SimulationResult(), self._plans, 0
        for done, row in enumerate(rows, 1):
            if done % RECORDS_PER_TURN == 0:
                time.sleep(0)  # the chats' turn
                if done > MOST_REPLAYED:
                    result.cut_off = True
                    break
            at, user_id, group_ids, names, source = row[:5]
            if at >= next_turn:
                next_turn = self._turn_clocks(at)
            key = (user_id, group_ids, names, source)
            plan = plans.get(key)
            if plan is None:
                plan = plans[key] = self._make_plan(key, at)
                next_turn = self._turn_clocks(at)
            state, ended_at, requests, input_tokens, output_tokens, cost = row[5:11]
            if plan.only_counted and not requests:
                continue
            if state == "released":
                requests = input_tokens = output_tokens = cost = 0
            elif plan.changed or not requests:
                counted = recounted(row, plan.rule)
                requests, input_tokens = counted.requests, counted.input_tokens
                output_tokens, cost = counted.output_tokens, counted.cost_micros
            suspicious = plan.has_moments
            for gauge in plan.gauges:
                if gauge.clock is None or gauge.start != gauge.clock.start:
                    gauge.move(at)
                # Nobody needs a decision about limits of which none is reached.
                if gauge.used >= gauge.amount:
                    suspicious = True
            if at >= since:
                result.requests += plan.asked
                refusing = None
                if suspicious and plan.refusable:
                    refusing = plan.refusing(at, input_tokens)
                if refusing is not None:
                    if plan.asked:
                        tokens = input_tokens + output_tokens
                        result.note(row[15], user_id, names, at, refusing.applied, cost, tokens)
                    continue
            values = (input_tokens + output_tokens, input_tokens, output_tokens, requests, cost)
            for gauge in plan.gauges:
                value = values[gauge.measure]
                if gauge.clock is None:
                    # Without an end it still runs; an imported one has the end of the import.
                    gauge.add(at, at if source == "backfill" else ended_at or NO_END, value)
                else:
                    gauge.used += value
        return result

    def _turn_clocks(self, at: int) -> int:
        """Go on to the windows around the second `at`; returns when the next one begins."""
        for clock in self._clocks.values():
            if at >= clock.end:
                clock.advance(at)
        return min((clock.end for clock in self._clocks.values()), default=NO_END)

    def _make_plan(self, key: tuple[str, str, str, str], at: int) -> ReplayPlan:
        user_id, group_ids, names, source = key
        model_names = split_names(names)
        rule, recorded_by = self._find_rules(model_names)
        # Users can ask for a task itself, which always counts. Where all tasks do on record, that
        # can't be told.
        uncounted_task = source == "task" and not self._tasks_counted
        if source == "direct" or not rule.weight or (uncounted_task and self._tasks_did_count):
            return ReplayPlan((), rule)
        gauges = tuple(
            self._gauge(applied, at)
            for applied in self._find_limits(user_id, group_ids)
            if applied.limit.matches_model(model_names) and applied.limit.source in ("", source)
        )
        return ReplayPlan(
            gauges,
            rule,
            changed=rule != recorded_by,
            asked=source not in ("task", "backfill"),
            refusable=source != "backfill" and user_id not in self._exempt,
            is_task=source == "task",
            only_counted=uncounted_task,
            has_moments=any(gauge.applied.limit.is_moment for gauge in gauges),
        )

    def _gauge(self, applied: AppliedLimit, at: int) -> Gauge:
        limit = applied.limit
        key = (applied.scope, *limit.counts, limit.amount)
        gauge = self._gauges.get(key)
        if gauge is None:
            rolling = limit.period.rolling
            # One stands for those of all users: only the scope differs, which nobody reads here.
            shared = self._applied.setdefault((id(limit), applied.policy), applied)
            gauge = self._gauges[key] = Gauge(
                shared,
                None if rolling is not None or limit.is_moment else self._clock(limit, at),
                limit.period.seconds,
                MEASURES.index(limit.measure),
                limit.amount,
                entries=None if rolling is None else deque(),
                running=[] if limit.is_at_once else None,
            )
        return gauge

    def _clock(self, limit: Limit, at: int) -> PeriodClock:
        clock = self._clocks.get(limit.period.name)
        if clock is None:
            clock = self._clocks[limit.period.name] = PeriodClock(limit.period, self._rules)
            clock.advance(at)
        return clock

def recounted(row: Any, rule: ModelRule) -> Amounts:
    """What a record counts by another rule."""
    cost, input_tokens, output_tokens, cached, estimated = row[10:15]
    usage = Usage(input_tokens, output_tokens, cached, cost, bool(estimated))
    return make_charge(usage, rule).counted

def replay_start(limits: Iterable[Limit], rules: CalendarRules, since: int) -> int:
    """From when on records count in a window that is open at `since`."""
    start, instant = since, datetime.fromtimestamp(since, UTC)
    for limit in limits:
        if limit.is_moment:
            continue
        if seconds := limit.period.seconds:
            start = min(start, since - seconds)
        else:
            window: Window = limit.period.window(instant, rules)
            start = min(start, int(window.start.timestamp()))
    return start

# =============================== helpers/openwebui/policy_editor.py ===============================
# The policies editor: a text checked, explained, replayed and saved.

LONGEST_POLICIES = 1_000_000
LONGEST_VERSION_TAG = 100
MOST_DAYS = 400
MOST_LISTED_USERS = 1_000
# One at a time, since each keeps a core busy for seconds.
SIMULATING = Lock()

def read_policies_text(body: Json) -> str:
    """The policies text in a request.

    Raises:
        PageError: There is none, or one of a length that nobody writes.
        PoliciesError: It has errors.
    """
    text = body.get("policies")
    if not isinstance(text, str) or len(text) > LONGEST_POLICIES:
        raise PageError(400, f"policies: a text of at most {LONGEST_POLICIES:,} characters")
    if "\0" in text or re.search("[\ud800-\udfff]", text):
        raise PageError(400, "policies: a text without NUL and lone surrogates")
    read_policies(text)
    return text

def listed_errors(text: str, error: PoliciesError) -> list[Json]:
    """The errors in a text, each with its line where that can be told."""
    lines, headers = text.split("\n"), dict[tuple[str, ...], int]()
    for number, line in enumerate(lines):
        if (path := header_path(line)) is not None:
            headers.setdefault(path, number)
    return [
        {
            "where": one.where,
            "given": one.given,
            "allowed": one.allowed,
            "line": line_of(one, lines, headers),
        }
        for one in error.errors
    ]

def line_of(
    error: ConfigurationError, lines: list[str], headers: Mapping[tuple[str, ...], int]
) -> int | None:
    """The line that an error is about, from 1; None where it can't be told.

    Args:
        error: The error.
        lines: The text's.
        headers: Where in these each table begins.
    """
    if found := re.search(r"line (\d+)", error.where):
        return int(found[1])
    header = re.match(r"\[.*\]", error.where)
    if header is None:
        return None
    at = headers.get(header_path(header[0]) or ())
    if at is None:
        return None
    key = error.where[header.end() :].strip()
    quoted = re.match(r"['\"](.+?)['\"] ", error.given)
    for number in range(at + 1, len(lines)):
        if header_path(lines[number]) is not None:
            break
        if quoted is not None and quoted[1] in " ".join(lines[number].split()):
            return number + 1
        if quoted is None and key and re.match(rf"\s*{re.escape(key)}\s*=", lines[number]):
            return number + 1
    return at + 1

def header_path(line: str) -> tuple[str, ...] | None:
    """The names in a table's first line, however they are quoted; None for another line."""
    if not line.lstrip().startswith("["):
        return None
    try:
        value: Any = tomllib.loads(line)
    except (tomllib.TOMLDecodeError, RecursionError):
        return None
    names = []
    while isinstance(value, dict) and len(value) == 1:
        ((name, value),) = value.items()
        names.append(name)
    return tuple(names) or None

def identities_of(data: PageData, policies: PolicySet, directory: Directory) -> Identities:
    """Whom a policies text would mean."""
    groups = {key: group.name for key, group in directory.groups.items()}
    host = HostNames(groups, directory.emails, list_model_ids())
    return identify(policies, host, data.read(read_remembered))

def finder_by(data: PageData, text: str, identities: Identities) -> LimitFinder:
    """What finds the limits by a text; an exempt administrator is meant all the same."""
    valves = data.valves.model_copy(update={"policies": text, "exempt_admins": False})
    return LimitFinder(valves, identities, data.now)

def check_policies(asked: PageRequest) -> Json:
    """What a text would mean, or what is wrong with it.

    Raises:
        PageError: The request has no text.
    """
    try:
        text = read_policies_text(asked.body)
    except PoliciesError as error:
        return {"errors": listed_errors(str(asked.body["policies"]), error)}
    return {"errors": [], **explain_policies(asked.data, text)}

def explain_policies(data: PageData, text: str) -> Json:
    """Who gets what by a text, and which of its names mean nobody."""
    policies, directory = read_policies(text), data.directory()
    identities = identities_of(data, policies, directory)
    finder = finder_by(data, text, identities)
    users: defaultdict[tuple[str, str], int] = defaultdict(int)  # by kind and name of the table
    for subject in directory.subjects():
        match = finder.match(subject)
        users[match.policy.kind, match.policy.name] += 1
        for name in {applied.policy for applied in match.pools}:
            users["pool", name] += 1
    unmatched = [
        table.header
        for table in named_in(policies)
        if not meant_by(identities, table.kind, table.key)
    ]
    return {
        "summary": list(summary_rows(policies, data.valves.default_policy, users)),
        "unmatched": unmatched,
        "notices": list(identities.notices),
    }

def meant_by(identities: Identities, kind: str, key: str) -> bool:
    """Whether a name in the policies means somebody."""
    found = (*identities.sure.items(), *identities.doubtful.items())
    return any(one == kind and key in names for (one, _), names in found)

def summary_rows(
    policies: PolicySet, default: Policy, users: Mapping[tuple[str, str], int]
) -> Iterator[Json]:
    """Each table with its limits and for how many users it counts."""
    for table in (*policies.tables, default):
        header = table_header(table.kind, table.name)
        yield {
            "table": "everyone else" if table is default else header,
            "limits": limit_texts(table.limits),
            "users": users.get((table.kind, table.name), 0),
        }

def limit_texts(limits: tuple[Limit, ...] | None) -> list[str]:
    """Limits in their notation."""
    return ["unlimited"] if limits is None else [str(limit) for limit in limits]

# Replaying

def read_days(body: Json) -> int:
    """How many days a simulation goes back.

    Raises:
        PageError: It isn't a sensible number.
    """
    days = body.get("days", 30)
    if type(days) is not int or not 1 <= days <= MOST_DAYS:
        raise PageError(400, f"days: a whole number from 1 to {MOST_DAYS}")
    return days

def replay_policies(data: PageData, text: str, since: int) -> tuple[SimulationResult, Directory]:
    """Replay what is on record since then against a text.

    Raises:
        PageError: Another one is running.
    """
    if not SIMULATING.acquire(blocking=False):
        raise PageError(503, "Another simulation is running. Try again in some seconds.")
    try:
        return run_replay(data, text, since)
    finally:
        SIMULATING.release()

def run_replay(data: PageData, text: str, since: int) -> tuple[SimulationResult, Directory]:
    """The same, with the turn taken."""
    policies, current = read_policies(text), data.valves.policy_set
    valves, directory = data.valves, data.directory()
    # Limits have the windows of now here, which the replay doesn't look at.
    finder = finder_by(data, text, identities_of(data, policies, directory))
    exempt = {one.user_id for one in directory.subjects() if is_exempt(valves, one)}

    def find_limits(user_id: str, group_ids: str) -> Sequence[AppliedLimit]:
        # The groups of that time; the role of now, as it isn't on record.
        groups = tuple(
            directory.groups.get(key, GroupRef(key, "")) for key in split_names(group_ids)
        )
        subject = replace(directory.find(user_id), groups=groups)
        return finder.match(subject).limits_of(subject)

    def find_rules(names: tuple[str, ...]) -> tuple[ModelRule, ModelRule]:
        return find_model_rule(policies, names), find_model_rule(current, names)

    tables = (*policies.tables, valves.default_policy)
    limits = [limit for table in tables for limit in table.limits or ()]
    rules = valves.calendar_rules
    start, until = replay_start(limits, rules, since), int(data.now.timestamp()) + 1
    counted = policies.tasks_counted, current.tasks_counted

    def read(connection: Connection) -> SimulationResult:
        # Made here: where the connection breaks this is done once more, from the beginning.
        replay = Replay(find_limits, find_rules, rules, *counted, exempt)
        return replay.run(read_replayed(connection, start, until), since)

    result: SimulationResult = data.read(read)
    return result, directory

def simulate_policies(asked: PageRequest) -> Json:
    """Who would have been refused by a text, how often, and what that would have saved.

    Raises:
        PageError: The request can't be understood.
    """
    data, body = asked.data, asked.body
    days = read_days(body)
    try:
        text = read_policies_text(body)
    except PoliciesError as error:
        return {"errors": listed_errors(str(body["policies"]), error)}
    since = int((data.now - timedelta(days=days)).timestamp())
    result, directory = replay_policies(data, text, since)
    emails = directory.emails
    users = sorted(result.users.items(), key=lambda item: (-item[1].refused, item[0]))
    return {
        "errors": [],
        "days": days,
        "since": iso_second(since),
        "requests": result.requests,
        "refused": result.refused,
        "cost_saved_usd": sum(user.cost_micros for _, user in users) / 1_000_000,
        "tokens_saved": sum(user.tokens for _, user in users),
        "cut_off": result.cut_off,
        "users_refused": len(users),
        "users": [
            {
                "user_id": user_id,
                "email": emails.get(user_id, ""),
                "refused": user.refused,
                "limit": str(most.limit),
                "policy": most.policy or "default",
                "first_at": iso_second(user.first_at),
                "last_at": iso_second(user.last_at),
                "cost_saved_usd": user.cost_micros / 1_000_000,
                "tokens_saved": user.tokens,
            }
            for user_id, user in users[:MOST_LISTED_USERS]
            for most in [result.most_refusing(user)]
        ],
    }

def shadow_refusals(data: PageData, since: int) -> list[Json]:
    """What the policies in force would have refused, the newest first: shadow mode only tells."""
    if not data.valves.shadow_mode:
        return []
    result, directory = replay_policies(data, data.valves.policies, since)
    emails = directory.emails
    return [
        {
            "at": iso_second(one.at),
            "user_id": one.user_id,
            "email": emails.get(one.user_id, ""),
            "model": one.model,
            "limit": str(one.applied.limit),
            "policy": one.applied.policy or "default",
        }
        for one in reversed(result.refusals)
    ]

# Saving

def list_versions(asked: PageRequest) -> Json:
    """The text in force, what it means, and the last ones."""
    data, text = asked.data, asked.data.valves.policies
    rows = data.read(read_versions)
    return {
        "policies": text,
        "version": version_tag(text, rows),
        **explain_policies(data, text),
        "versions": [
            {
                "id": row.id,
                "saved_at": iso_second(row.saved_at),
                "saved_by": row.saved_by,
                "policies": row.policies,
            }
            for row in rows
        ],
    }

def read_loaded(body: Json) -> str | None:
    """The version that whoever saves has loaded; None from a program that doesn't say.

    Raises:
        PageError: It can't be one.
    """
    loaded = body.get("version")
    if loaded is not None and (not isinstance(loaded, str) or len(loaded) > LONGEST_VERSION_TAG):
        raise PageError(400, "version: as GET /usage-limits/api/policies has it, or none")
    return loaded

def claim_version(
    data: PageData, before: str, text: str, by: str, loaded: str | None
) -> tuple[str, ...]:
    """Keep a text that is about to be saved, so that no other worker takes one beside it.

    Args:
        before: The text that is in force.
        text: The new one.
        by: Who saves it.
        loaded: The version that it was made from; None for whichever.

    Returns:
        The ids of what was kept, to be taken back where the text can't be saved.

    Raises:
        PageError: Another text was saved since that was loaded.
    """

    def claim(connection: Connection) -> tuple[str, ...] | Sequence[Row[Any]]:
        rows = read_versions(connection)
        if text != before and loaded not in (None, version_tag(before, rows)):
            return rows
        return keep_version(connection, before, text, by, int(data.now.timestamp()))

    made = data.accounting.change(claim, {"policies"})
    if isinstance(made, tuple):
        return made
    who = made[0].saved_by if made and made[0].policies == before else ""
    sentence = f"{who or 'Somebody'} has saved other policies since yours were loaded. "
    tag = version_tag(before, made)
    raise PageError(409, f"{sentence}Yours are not saved.", policies=before, version=tag)

async def store_policies(function_id: str, text: str) -> None:
    """Save a text as Open WebUI's own form does.

    Raises:
        HostDatabaseError: The other valves can't be read.
        PageError: Open WebUI doesn't save it.
    """
    functions = import_module("open_webui.models.functions").Functions
    stored = await read_valves(function_id)
    values = {name: value for name, value in stored.items() if value is not None}
    valves = AdminValves.model_validate({**values, "policies": text})
    with host_database():
        saved = await functions.update_function_valves_by_id(
            function_id, valves.model_dump(exclude_unset=True)
        )
    if saved is None:
        raise PageError(503, "Open WebUI could not save the policies. Try again later.")

def saved_answer(data: PageData, text: str) -> Json:
    """What a text means that was saved just now, and its version."""
    tag = version_tag(text, data.read(read_versions))
    return {"errors": [], "policies": text, "version": tag, **explain_policies(data, text)}

# ================================== helpers/openwebui/answers.py ==================================
# Answers on their way to the client: read for their usage, or replaced by a refusal.

# Of an answer that isn't streamed, or of one line of a stream; a longer one is estimated.
LARGEST_ANSWER = 16 * 2**20
# On every answer that was counted or refused, for whoever checks that.
MARK: RawHeaders = [(b"x-usage-limits", b"checked")]
LINE_TYPES = (b"event-stream", b"ndjson", b"jsonl", b"json-seq")

def read_json(data: bytes | bytearray) -> Any:
    """The JSON value in some bytes; None where there is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None

@dataclass(slots=True, eq=False)
class AnswerReader:
    """Hands what passes to a meter: line by line, or whole."""

    meter: ReplyMeter | None
    by_lines: bool = False
    status: int | None = None
    _buffer: bytearray = field(default_factory=bytearray)
    _overflown: bool = False
    _readable: bool = False

    def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """The answer begins."""
        self.status = status
        kind = next((value for name, value in headers if name.lower() == b"content-type"), b"")
        encoded = any(name.lower() == b"content-encoding" for name, _ in headers)
        self.by_lines = any(each in kind.lower() for each in LINE_TYPES)
        self._readable = not encoded

    def feed(self, chunk: bytes) -> None:
        """A part of it has come."""
        if not self._readable or not chunk:
            return
        self._buffer += chunk
        if self.by_lines and b"\n" in chunk:
            *lines, rest = self._buffer.split(b"\n")
            self._buffer = bytearray(rest)
            if self._overflown:  # the rest of a line whose beginning is gone
                self._overflown = False
                lines = lines[1:]
            for line in lines:
                self._read_line(line)
        if len(self._buffer) > LARGEST_ANSWER:
            self._buffer.clear()
            self._overflown = True

    def end(self) -> None:
        """All of it has come, or nothing more will."""
        rest, self._buffer = self._buffer, bytearray()
        if not rest or self._overflown:
            return
        if self.by_lines:
            self._read_line(rest)
            return
        answer = read_json(rest)
        if answer is None:  # a stream under another name
            for line in rest.split(b"\n"):
                self._read_line(line)
        elif self.meter is not None:
            self.meter.add_answer(answer)

    def _read_line(self, line: bytes | bytearray) -> None:
        line = line.strip()
        if line.startswith(b"data:"):
            line = line[5:]
        if self.meter is not None and line.lstrip().startswith(b"{"):
            self.meter.add_event(read_json(line))

def refusal_messages(passthrough: Passthrough, refusal: Refusal, more: RawHeaders) -> list[Message]:
    """A refusal in its protocol's own form."""
    body = refusal.body(passthrough.form)
    headers = [*json_headers(body), *refusal.headers(), *MARK, *more]
    return [
        {"type": "http.response.start", "status": refusal.status, "headers": headers},
        {"type": "http.response.body", "body": body},
    ]

async def send_own(
    app: AsgiApp, scope: Scope, receive: Receive, send: Send, messages: list[Message]
) -> None:
    """Send an answer that isn't Open WebUI's, with the headers that its CORS middleware adds.

    Args:
        app: Open WebUI's app; the middleware is somewhere in its stack.
    """

    async def answer(_: Scope, __: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    below: Any = app
    for _ in range(MOST_LAYERS):
        if isinstance(below, CORSMiddleware):
            cors = copy(below)
            cors.app = answer
            await cors(scope, receive, send)
            return
        below = getattr(below, "app", None)
    await answer(scope, receive, send)

def keep_status(request: Any) -> None:
    """See that a refusal keeps status and form in a chat that a worker got before it had the layer.

    Open WebUI before 0.12 makes its status 400; in none it has the form of the path's protocol.
    """
    scope = getattr(request, "scope", {})
    path = CHAT_PASSTHROUGHS.get(scope.get("path", ""))
    handlers = scope.get("starlette.exception_handlers")
    if path is None or handlers is None or current_state.get() is not None:
        return
    current_state.set(scope.setdefault("state", {}))
    of_errors, of_statuses = handlers

    async def answer(request: Request, error: Exception) -> Response:
        meant = request.scope.get("state", {}).get(REFUSAL_STATE)
        if meant is None:
            theirs: Response = await of_errors[HTTPException.__base__](request, error)
            return theirs
        refusal, form = Refusal(*meant), CHAT_PASSTHROUGHS[request.scope["path"]].form
        headers = {name.decode(): value.decode() for name, value in [*refusal.headers(), *MARK]}
        return Response(refusal.body(form), refusal.status, headers, "application/json")

    for status in (400, 429, 503):
        of_statuses[status] = answer

class ChatAnswer:
    """The answer of a path where the hooks run."""

    def __init__(
        self, passthrough: Passthrough, state: MutableMapping[str, Any], send: Send
    ) -> None:
        self._passthrough = passthrough
        self._state = state
        self._send = send
        self._headers: RawHeaders = []
        self._refusal: Refusal | None = None

    async def send(self, message: Message) -> None:
        """Pass a part of it on; a refusal takes the place of the whole answer."""
        kind = message["type"]
        if kind == "http.response.start":
            self._start(message)
            if self._refusal is None:
                message = {**message, "headers": with_headers(message, self._own_headers())}
        if self._refusal is None:
            await self._send(message)
        elif kind == "http.response.body" and not message.get("more_body"):
            more = [*self._headers, *limit_headers(self._state)]
            for own in refusal_messages(self._passthrough, self._refusal, more):
                await self._send(own)

    def _own_headers(self) -> RawHeaders:
        limits = limit_headers(self._state)
        # Where the hooks run they may not be on for the model that was asked for.
        checked = self._passthrough.kind == "task" or LIMITS_STATE in self._state
        return [*MARK, *limits] if checked else limits

    def _start(self, message: Message) -> None:
        refusal = self._state.get(REFUSAL_STATE)
        if message["status"] >= 400 and refusal is not None:
            self._refusal = Refusal(*refusal)
            own = (b"content-type", b"content-length", b"content-encoding", b"retry-after")
            self._headers = without_headers(message, *own)

def with_headers(message: Message, own: RawHeaders) -> RawHeaders:
    """An answer's headers and ours; a provider's own of the same name speak of its key."""
    return [*without_headers(message, *(name for name, _ in own)), *own]

def limit_headers(state: MutableMapping[str, Any]) -> RawHeaders:
    """Where a request's limits stand; a fault here costs no answer."""
    try:
        return rate_headers(state.get(LIMITS_STATE) or (), datetime.now(UTC))
    except Exception:
        log.exception("Usage limits: the headers of an answer could not be made")
        return []

# ================================== helpers/openwebui/callers.py ==================================
# Who asks at a pass-through path, by Open WebUI's own rules.

# Where the user travels in the state of a request, out of its client's reach.
USER_STATE = "usage_limits_user"

class CallerGate:
    """Lets in whom Open WebUI lets in."""

    def __init__(self) -> None:
        self._gate: FastAPI | None = None

    async def find_user(self, scope: Scope) -> tuple[dict[str, Any] | None, list[Message]]:
        """Who asks, by Open WebUI's own rules, and its refusal where it's nobody."""
        state = scope["state"]
        state.pop(USER_STATE, None)
        answer: list[Message] = []

        async def nothing() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def keep(message: Message) -> None:
            answer.append(message)

        if self._gate is None:
            self._gate = make_gate(scope["app"])
        # Whoever is refused here gets no further, whatever the reason.
        try:
            await note_key(scope)
            await self._gate({**scope, "method": "POST"}, nothing, keep)
        except Exception as error:
            log.exception("Usage limits: it can't be seen who asks")
            raise PassthroughError(Refusal(503, FAULT_SENTENCE, FAULT_RETRY_SECONDS)) from error
        user = state.pop(USER_STATE, None)
        fields = user if user is None or isinstance(user, dict) else dict(user.model_dump())
        return fields, answer

async def note_key(scope: Scope) -> None:
    """An API key in a header of its own, and whether keys are on: Open WebUI's middleware's job."""
    if host_version() < KEYS_ASKED_VERSION:
        config = import_module("open_webui.models.config").Config
        scope["state"]["enable_api_keys"] = await config.get("auth.enable_api_keys")
    name = getattr(import_module("open_webui.env"), "CUSTOM_API_KEY_HEADER", "x-api-key")
    wanted = str(name).lower().encode()
    for header, value in scope.get("headers", ()):
        if header.lower() == wanted:
            credentials = import_module("fastapi.security").HTTPAuthorizationCredentials
            scope["state"]["token"] = credentials(
                scheme="Bearer", credentials=value.decode("latin-1")
            )

def make_gate(app: Any) -> FastAPI:
    """An app of one page, which lets in whom Open WebUI lets in."""
    auth = import_module("open_webui.utils.auth")
    gate = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    gate.state = app.state

    who = Depends(auth.get_verified_user)

    async def let_in(request: Request, user: Any = who) -> Response:
        setattr(request.state, USER_STATE, user)
        return Response(status_code=204)

    let_in.__annotations__ = {"request": Request, "user": Any, "return": Response}
    gate.add_api_route("/{path:path}", let_in, methods=["POST"])
    return gate

# =============================== helpers/openwebui/metered_calls.py ===============================
# Metered calls: pass-through calls on their way to the provider, and their answers.

class MeteredCall:
    """One call: metered by its answer, and settled at whichever end.

    Args:
        replies: What is reserved for it; more than one only where it asks for so many images.
        headers: Where its limits stand.
    """

    def __init__(
        self, passthrough: Passthrough, replies: list[Reply], send: Send, headers: RawHeaders
    ) -> None:
        self._passthrough = passthrough
        self._replies = replies
        self._reply = replies[0] if replies else None
        self._send = send
        self._headers = [*MARK, *headers]
        self._reader = AnswerReader(None)
        self._may_repeat = False
        self._watch = StreamWatch()
        self._held: list[Message] = []  # an answer that may be a refusal of `stream_options`
        self._ended = asyncio.Event()

    async def serve(
        self,
        app: AsgiApp,
        scope: Scope,
        receive: Receive,
        again: dict[str, Any] | None,
        unasked: UnaskedModels,
    ) -> None:
        """Make the call.

        Args:
            again: The same call, not asking for usage, for a provider that refuses to be asked.
        """
        self._may_repeat = again is not None
        second = dict(scope)
        try:
            await self._ask(app, scope, receive)
            if again is not None and self._is_refused(again):
                self._held.clear()
                self._may_repeat = False
                await self._ask(app, second, ReadRequest(again, receive).hand_on(second))
                if (self._reader.status or 500) < 400:
                    unasked.note(str(again.get("model")), again, StreamingResponse(()))
            await self._release()
        finally:
            status = self._reader.status
            ends = [
                reply.keeper.end(reply, passthrough_charge(reply, self._passthrough, status))
                for reply in self._replies
            ]
            await asyncio.gather(*ends)  # all begin, whatever becomes of us

    async def _ask(self, app: AsgiApp, scope: Scope, receive: Receive) -> None:
        counts = self._reply is not None and self._passthrough.counts_tokens
        self._reader = AnswerReader(self._reply.meter if self._reply and counts else None)
        try:
            await app(scope, receive_until(self._ended, scope, receive), self.send)
        finally:
            self._reader.end()

    async def send(self, message: Message) -> None:
        """Pass a part of the answer on, unless all of it may be asked for once more."""
        if self._ended.is_set():
            return
        if message["type"] == "http.response.start":
            self._reader.start(message["status"], message.get("headers", []))
            message = {**message, "headers": with_headers(message, self._headers)}
            self._may_repeat &= message["status"] in REFUSING_STATUSES
        elif message["type"] == "http.response.body":
            self._reader.feed(message.get("body", b""))
        if not self._may_repeat:
            await self._send(message)
            await self._keep_up(message.get("body", b""))
            return
        self._held.append(message)
        if len(self._refusal()) >= LONGEST_REFUSAL:
            self._may_repeat = False
            await self._release()

    async def _keep_up(self, part: bytes) -> None:
        """End the answer where no more can be reserved for it."""
        reply, watch = self._reply, self._watch
        if reply is None or not (self._reader.by_lines and watch.passes(part)):
            return
        if closing := await watch.ending(reply):
            self._ended.set()
            await self._send({"type": "http.response.body", "body": b"".join(closing)})

    async def _release(self) -> None:
        """Pass on what was held."""
        held, self._held = self._held, []
        for message in held:
            await self._send(message)

    def _refusal(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self._held)

    def _is_refused(self, again: dict[str, Any]) -> bool:
        """Whether what was held is a refusal of `stream_options`."""
        answer = Response(self._refusal(), self._reader.status or 500)
        return bool(self._held) and refuses_to_be_asked(answer, again)

def receive_until(ended: asyncio.Event, scope: Scope, receive: Receive) -> Receive:
    """What Open WebUI receives: once it has ended, that its client has gone.

    It then ends its call to the provider, as for a client that has really gone.
    """
    # Later versions of the protocol tell it only by what sending raises.
    scope["asgi"] = {**scope.get("asgi", {}), "spec_version": "2.3"}

    async def receive_or_end() -> Message:
        waits = [asyncio.ensure_future(each) for each in (receive(), ended.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            theirs: asyncio.Future[Any] = waits[0]
            return {"type": "http.disconnect"} if ended.is_set() else theirs.result()
        finally:
            for each in waits:
                each.cancel()

    return receive_or_end

# ============================= helpers/openwebui/passthrough_guard.py =============================
# The guard of pass-through calls: admits, meters and settles them for one filter.

# How long it is taken for granted that the function is on, and how its valves are.
SWITCH_SECONDS = 1.0
# Where a pass-through path tells the admission what is special about its replies.
ADJUST_KEY = "usage_limits_adjust"

# With the valves, a request's body, user, metadata and model, and the request itself.
Admit = Callable[
    [AdminValves, dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any] | None, Request],
    Awaitable[dict[str, Any]],
]

@dataclass(slots=True)
class Switch:
    """Whether the function is on, as Open WebUI said last."""

    on: bool = True
    everywhere: bool = True
    asked_at: float = float("-inf")
    valves: AdminValves | None = None

class PassthroughGuard:
    """Guards the pass-through paths for one filter.

    Args:
        function_id: The filter's id in Open WebUI.
        admit: What admits a request as the filter's inlet does.
        ledger_of: What the pages read and write.
        unasked: The models that aren't asked for usage in streams.
    """

    def __init__(
        self,
        function_id: str,
        admit: Admit,
        ledger_of: Callable[[AdminValves], Any],
        unasked: UnaskedModels,
    ) -> None:
        self.function_id = function_id
        self.admit_request = admit
        self.ledger_of = ledger_of
        self.notes = FormNotes(ledger_of)
        self.unasked = unasked
        self._switch = Switch()
        self._asking: asyncio.Lock | None = None
        self.gate = CallerGate()

    async def switch(self, *, now: bool = False) -> Switch:
        """Whether the function is on, as of now or of a second ago at most."""
        asked_from = time.monotonic()
        oldest = asked_from if now else asked_from - SWITCH_SECONDS
        if self._switch.asked_at > oldest:
            return self._switch
        if self._asking is None:
            self._asking = asyncio.Lock()
        async with self._asking:
            if self._switch.asked_at <= oldest:
                self._switch = await self._ask_switch()
        return self._switch

    async def _ask_switch(self) -> Switch:
        functions = import_module("open_webui.models.functions").Functions
        asked_at = time.monotonic()
        with host_database():
            if hasattr(functions, "get_active_filter_ids"):
                active = dict(await functions.get_active_filter_ids())
                on, everywhere = self.function_id in active, bool(active.get(self.function_id))
            else:
                function = await functions.get_function_by_id(self.function_id)
                on = bool(function is not None and function.is_active)
                everywhere = bool(function is not None and function.is_global)
        valves = AdminValves(**await read_valves(self.function_id)) if on else None
        return Switch(on, everywhere, asked_at, valves)

    async def covers(self, model_id: str, app: Any) -> bool:
        """Whether the filter is on for a model; for one that Open WebUI doesn't list it is."""
        if (await self.switch()).everywhere:
            return True
        model = getattr(app.state, "MODELS", {}).get(model_id)
        info = model.get("info") if isinstance(model, dict) else None
        if info is None:
            return model is None
        return self.function_id in ((info.get("meta") or {}).get("filterIds") or ())

    async def serve(
        self, app: AsgiApp, passthrough: Passthrough, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer a request at a pass-through path."""
        current_state.set(scope.setdefault("state", {}))
        if passthrough.kind == "chat":
            await self._serve_chat(app, passthrough, scope, receive, send)
            return
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._serve_passthrough(app, passthrough, scope, receive, watched_send)
        except PassthroughError as error:
            if started:
                raise
            refused = refusal_messages(passthrough, error.refusal, [])
            await send_own(app, scope, receive, send, refused)
        except HostError as error:
            if started:
                raise
            again = (error.headers or {}).get("Retry-After")
            retry_after = None if again is None else int(again)
            refusal = Refusal(error.status_code, str(error.detail), retry_after)
            refused = refusal_messages(passthrough, refusal, limit_headers(scope["state"]))
            await send_own(app, scope, receive, send, refused)

    async def _serve_chat(
        self, app: AsgiApp, passthrough: Passthrough, scope: Scope, receive: Receive, send: Send
    ) -> None:
        await app(scope, receive, ChatAnswer(passthrough, scope["state"], send).send)

    async def _serve_passthrough(
        self, app: AsgiApp, passthrough: Passthrough, scope: Scope, receive: Receive, send: Send
    ) -> None:
        try:
            switch = await self.switch()
        except Exception as error:
            log.exception("Usage limits: it can't be seen whether the filter is on")
            raise PassthroughError(Refusal(503, FAULT_SENTENCE, FAULT_RETRY_SECONDS)) from error
        if not switch.on:
            await app(scope, receive, send)
            return
        setting = getattr(switch.valves, "passthrough", "count")
        if passthrough.kind == "rewritten" and setting == "count":
            set_route_path(scope, CHAT_PATH)
            await self._serve_chat(app, passthrough, scope, receive, send)
            return
        if passthrough.kind == "indexing" and not await asks_provider(scope):
            await app(scope, receive, send)
            return
        user, answer = await self.gate.find_user(scope)
        if user is None:
            await send_own(app, scope, receive, send, answer)
            return
        if user.get("role") != "admin" and (
            (setting == "block" and not passthrough.of_page)
            or (passthrough.kind == "unknown" and setting == "count")
        ):
            raise PassthroughError(Refusal(403, BLOCKED_SENTENCE.format(path=CHAT_PATH)))
        if passthrough.kind == "task":
            # Admitted where it calls its model, whose name isn't known before.
            await self._serve_chat(app, passthrough, scope, receive, send)
            return
        if passthrough.path and route_path(scope) != passthrough.path:
            # Another spelling, whose meaning only the provider would know.
            set_route_path(scope, passthrough.path)
        await self._serve_metered(app, passthrough, scope, receive, send, user)

    async def _serve_metered(
        self,
        app: AsgiApp,
        passthrough: Passthrough,
        scope: Scope,
        receive: Receive,
        send: Send,
        user: dict[str, Any],
    ) -> None:
        switch = await self.switch()
        if not switch.everywhere and not passthrough.in_json:
            await app(scope, receive, send)  # it is on for models that are named only
            return
        read: ReadRequest | None = None
        body: dict[str, Any] = {"model": passthrough.model}
        requests = 1
        if passthrough.in_images:
            read = await ReadRequest.read(receive)
            requests = settle_images(read.value)
        elif passthrough.in_json and passthrough.kind != "unknown":
            read = await ReadRequest.read(receive)
            if read.value.get("background"):
                raise PassthroughError(Refusal(400, BACKGROUND_SENTENCE))
            body = dict(read.value)
        model_id = body.get("model")
        if read is not None and not await self.covers(
            model_id if isinstance(model_id, str) else "", scope["app"]
        ):
            await app(scope, read.hand_on(scope), send)
            return

        def adjust(reply: Reply) -> None:
            # Another protocol's fields mean nothing at this pass-through path.
            reply.wanted_output = passthrough_output(body, passthrough)
            reply.choices = count_answers(body)
            if passthrough.kind == "request":
                reply.limits = tuple(
                    each for each in reply.limits if each.limit.measure == "requests"
                )
            if switch.valves is not None and switch.valves.passthrough == "allow":
                reply.enforced = False
            if passthrough.form == "ollama" and body.get("stream") is None:  # it streams then
                reply.capped = reply.capped and (switch.valves or AdminValves()).cap_max_tokens

        replies: list[Reply] = []
        try:
            for _ in range(requests):
                metadata: dict[str, Any] = {ADJUST_KEY: adjust}
                body = await self.admit(body, user, metadata, Request(scope))
                if METADATA_KEY in metadata:
                    replies.append(metadata[METADATA_KEY])
        except BaseException:  # all of them or none
            for each in replies:
                await each.keeper.end(each, None)
            raise
        reply = replies[0] if replies else None
        call = MeteredCall(passthrough, replies, send, limit_headers(scope["state"]))
        again = None
        if read is not None:
            if passthrough.asks_usage and "stream_options" in body:
                read.value["stream_options"] = body["stream_options"]
            if reply is not None:
                most, wanted = reply.most_output(), passthrough_output(read.value, passthrough)
                if passthrough.kind != "metered":
                    most = None
                if most is not None and (wanted is None or wanted > most):
                    cap_passthrough(read.value, passthrough, most)
                if passthrough.asks_usage:
                    model = unasked_name(reply, read.value)
                    again = self.unasked.call_without(model, read.value)
            receive = read.hand_on(scope)
        # An answer that can be read, not a compressed one.
        scope["headers"] = without_headers(scope, b"accept-encoding")
        await call.serve(app, scope, receive, again, self.unasked)

    async def admit(
        self, body: dict[str, Any], user: dict[str, Any], metadata: dict[str, Any], request: Request
    ) -> dict[str, Any]:
        """Admit a request as the inlet does.

        Raises:
            HostError: It is refused, or it can't be checked.
        """
        model = await describe_model(body.get("model"), request.app)
        try:
            valves = (await self.switch()).valves or AdminValves()
            return await self.admit_request(valves, body, user, metadata, model, request)
        except HostError:
            raise
        except Exception as error:
            log.exception("Usage limits: a request of user %s was not admitted", user.get("id"))
            raise HostError(503, FAULT_SENTENCE, FAULT_RETRY_SECONDS) from error

async def asks_provider(scope: Scope) -> bool:
    """Whether files, memories and queries are embedded by a provider, or recordings read by one."""
    files = route_path(scope) == "/api/v1/files/"
    query = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
    if files and query.get("process") == ["false"]:
        return False
    settings = ("rag.embedding_engine", *(("audio.stt.engine",) if files else ()))
    try:
        config = import_module("open_webui.models.config").Config
        return any([await config.get(setting) for setting in settings])
    except Exception:
        log.exception("Usage limits: it can't be seen who makes embeddings")
        return True

async def describe_model(model_id: object, app: Any) -> dict[str, Any] | None:
    """A model as Open WebUI describes it to a filter, whether or not it lists it."""
    if not isinstance(model_id, str):
        return None
    listed = getattr(app.state, "MODELS", {}).get(model_id)
    if isinstance(listed, dict):
        return listed
    try:
        found = await import_module("open_webui.models.models").Models.get_model_by_id(model_id)
    except Exception:
        log.exception("Usage limits: a model could not be looked up")
        raise HostError(503, FAULT_SENTENCE, FAULT_RETRY_SECONDS) from None
    return {"id": model_id, "info": found.model_dump()} if found is not None else None

# =================================== helpers/openwebui/pages.py ===================================
# The usage pages: `/usage-limits` and its JSON, behind Open WebUI's own sign-in.

PAGE_PATH = "/usage-limits"
LONGEST_PARAMETER = 400
# Reports are read beside the chats, never in their way.
PAGE_THREADS = 2
MOST_WAITING = 50
MOST_WAITING_OF_ONE = 10  # so that nobody fills them alone
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
    "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
PAGE_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
NOT_FOUND = "Not Found"

PageResult = TypeVar("PageResult")
Handler = Callable[[PageRequest], object]

@dataclass(frozen=True, slots=True)
class Route:
    """One path of the JSON; whatever isn't a GET takes a body."""

    method: str
    path: str
    handler: Handler
    for_all: bool = False
    changes: bool = False

def answer_me(asked: PageRequest) -> object:
    """The user's own limits and use."""
    found = asked.data.me(str(asked.user.id))
    for grant in found["grants"]:
        if grant["scope"] == "pool" and asked.user.role != "admin":
            grant["granted_by"] = grant["reason"] = ""  # it may name others
    return found

def answer_users(asked: PageRequest) -> object:
    """All users with their limits."""
    text = f"[{','.join(asked.data.users(read_flag(asked.parameters.get('near'))))}]"
    return Response(text.encode("utf-8", "replace"), media_type="application/json")

def answer_report(asked: PageRequest) -> object:
    """Sums by any dimensions, as JSON or CSV."""
    parameters, zone = asked.parameters, asked.data.valves.calendar_rules.timezone
    wanted = read_dimensions(parameters.get("by") or "user")
    kind = parameters.get("format") or "json"
    if kind not in ("json", "csv"):
        raise PageError(400, "format: json or csv")
    since, until = (read_time(parameters, name, zone) for name in ("since", "until"))
    if since is not None and until is not None and since >= until:
        raise PageError(400, "until: a time after since")
    reset_hour = asked.data.valves.reset_hour if "day" in wanted else 0
    rows = asked.data.report(wanted, Selection(since, until, zone, reset_hour))
    if kind == "json":
        return Response(as_json(rows), media_type="application/json")
    name = f"usage-by-{'-'.join(wanted)}.csv"
    disposition = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(as_csv(rows, wanted), media_type="text/csv", headers=disposition)

def read_time(parameters: Mapping[str, str], name: str, zone: ZoneInfo) -> int | None:
    """A time in the query, in seconds since 1970; None where there is none.

    A plus that nobody has encoded arrives as a blank.

    Raises:
        ConfigurationError: It is neither a date nor an instant.
    """
    text = re.sub(r"(:\d\d\S*) (\d\d:?\d\d)$", r"\1+\2", parameters.get(name) or "")
    return read_instant(text or None, name, zone)

def answer_shadow(asked: PageRequest) -> object:
    """What shadow mode would have refused."""
    zone = asked.data.valves.calendar_rules.timezone
    since = read_time(asked.parameters, "since", zone)
    oldest = int((asked.data.now - timedelta(days=MOST_DAYS)).timestamp())
    default = int((asked.data.now - timedelta(days=7)).timestamp())
    return shadow_refusals(asked.data, max(oldest, default if since is None else since))

ROUTES = (
    Route("GET", "/api/me", answer_me, for_all=True),
    Route("GET", "/api/users", answer_users),
    # An address may have a slash.
    Route("GET", "/api/users/{key:path}", lambda asked: asked.data.user(asked.parameters["key"])),
    Route("GET", "/api/pools", lambda asked: asked.data.pools()),
    Route("GET", "/api/overview", lambda asked: asked.data.overview() | host_status(asked)),
    Route("GET", "/api/report", answer_report),
    Route("GET", "/api/shadow", answer_shadow),
    Route("GET", "/api/policies", list_versions),
    Route("POST", "/api/policies/check", check_policies),
    Route("POST", "/api/policies/simulate", simulate_policies),
    Route("POST", "/api/grants", make_grant, changes=True),
    Route("DELETE", "/api/grants/{key}", take_back, changes=True),
    Route("POST", "/api/resets", make_reset, changes=True),
)

class UsagePages:
    """The pages of one filter.

    Args:
        guard: Whose filter is asked.
        app: Open WebUI's, whose sign-in counts.
    """

    def __init__(self, guard: PassthroughGuard, app: Any) -> None:
        self._guard = guard
        self._threads = ThreadPoolExecutor(PAGE_THREADS, thread_name_prefix="usage-limits-pages")
        # Changes wait for locks: nobody who only reads waits with them.
        self._changing = ThreadPoolExecutor(1, thread_name_prefix="usage-limits-changes")
        self._waiting: list[str] = []  # users by id, once for each question
        self._saving = asyncio.Lock()
        self._app = self._make_app(app)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; every answer, Open WebUI's own refusals too, is kept by nobody."""

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(PAGE_HEADERS)
            await send(message)

        try:
            await note_key(scope)
        except Exception as error:
            await error_answer(error)(scope, receive, send_marked)
            return
        with suppress(Exception):  # which was answered and logged, and is raised all the same
            await self._app(scope, receive, send_marked)

    def _make_app(self, host: Any) -> FastAPI:
        auth = import_module("open_webui.utils.auth")
        anyone, admins = Depends(auth.get_verified_user), Depends(auth.get_admin_user)
        app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
        app.state = host.state

        for refused in (Exception, 401, 503):  # the sign-in's, where it can't be seen who asks
            app.add_exception_handler(refused, self._refuse)
        for path in (PAGE_PATH, f"{PAGE_PATH}/"):
            self._add(app, path, ["GET"], anyone, self._show_page)
        for route in ROUTES:
            who = anyone if route.for_all else admins
            answer = partial(self._answer, route)
            self._add(app, PAGE_PATH + route.path, [route.method], who, answer)
        self._add(app, f"{PAGE_PATH}/api/policies", ["PUT"], admins, self._save_policies)
        # Whoever isn't signed in doesn't learn which paths there are.
        methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
        self._add(app, f"{PAGE_PATH}/{{path:path}}", methods, anyone, self._find_nothing)
        self._add(app, PAGE_PATH, methods, anyone, self._find_nothing)
        return app

    @staticmethod
    def _add(
        app: FastAPI,
        path: str,
        methods: list[str],
        who: Any,
        answer: Callable[[Request, Any], Awaitable[Response]],
    ) -> None:
        async def endpoint(request: Request, user: Any = who) -> Response:
            try:
                response = await answer(request, user)
            except Exception as error:
                response = error_answer(error)
            return response

        endpoint.__annotations__ = {"request": Request, "user": Any, "return": Response}
        app.add_api_route(path, endpoint, methods=methods)

    async def _show_page(self, request: Request, user: Any) -> Response:
        nonce = secrets.token_hex(16)
        policy = CONTENT_SECURITY_POLICY.format(nonce=nonce)
        headers = {"Content-Security-Policy": policy}
        return Response(render_page(nonce), media_type="text/html", headers=headers)

    async def _refuse(self, request: Request, error: Exception) -> Response:
        """A refusal; to people the page without any data, which says it or leads to the sign-in."""
        if isinstance(error, HTTPException):
            answer = await http_exception_handler(request, error)
        else:
            answer = error_answer(error)
        is_page = route_path(request.scope).rstrip("/") == PAGE_PATH
        if not is_page or "text/html" not in request.headers.get("accept", ""):
            return answer
        page = await self._show_page(request, None)
        page.status_code = answer.status_code
        return page

    async def _find_nothing(self, request: Request, user: Any) -> Response:
        raise PageError(404, NOT_FOUND)

    async def _answer(self, route: Route, request: Request, user: Any) -> Response:
        asked = await self._read_request(request, user)
        return await self._in_thread(asked, lambda: as_answer(route.handler(asked)), route.changes)

    async def _save_policies(self, request: Request, user: Any) -> Response:
        """Save a text through Open WebUI's own functions, and keep the one before."""
        asked = await self._read_request(request, user)
        data, function_id, loaded = asked.data, self._guard.function_id, read_loaded(asked.body)
        text = await self._in_thread(asked, lambda: read_policies_text(asked.body))
        # One after the other, so that the newest version is the text in force.
        async with self._saving:
            before = str((await read_valves(function_id)).get("policies") or "")
            claim = partial(claim_version, data, before, text, asked.actor, loaded)
            made = await self._in_thread(asked, claim, changes=True)
            try:
                if text != before:
                    await store_policies(function_id, text)
            except Exception:
                drop = partial(drop_versions, ids=made)
                await self._in_thread(asked, lambda: data.accounting.change(drop, {"policies"}))
                raise
            log.info("Usage limits: %s has saved the policies on the page", asked.actor)
            await self._guard.switch(now=True)
            return await self._in_thread(asked, lambda: as_answer(saved_answer(data, text)))

    async def _read_request(self, request: Request, user: Any) -> PageRequest:
        deadline, has_body = new_deadline(), request.method != "GET"
        if has_body:
            check_intent(request)
        body = await read_body(request) if has_body else {}
        parameters = {**request.query_params, **request.path_params}
        if any(len(text) > LONGEST_PARAMETER for text in parameters.values()):
            raise PageError(400, f"A parameter is longer than {LONGEST_PARAMETER} characters.")
        switch = await self._guard.switch()
        valves = switch.valves or AdminValves()
        accounting, memory, read_host = self._guard.ledger_of(valves)
        language = choose_language(parameters.get("language") or "en")
        data = PageData(valves, accounting, memory, read_host, datetime.now(UTC), language)
        return PageRequest(data, user, parameters, body, switch.everywhere, deadline)

    async def _in_thread(
        self, asked: PageRequest, work: Callable[[], PageResult], changes: bool = False
    ) -> PageResult:
        def change() -> PageResult:
            with asked.data.accounting.until(asked.deadline):
                return work()

        waiting, who = self._waiting, str(asked.user.id)
        if len(waiting) >= MOST_WAITING or waiting.count(who) >= MOST_WAITING_OF_ONE:
            raise PageError(503, "Too many wait for reports. Try again later.")
        waiting.append(who)
        try:
            loop = asyncio.get_running_loop()
            if changes:
                return await loop.run_in_executor(self._changing, change)
            return await loop.run_in_executor(self._threads, work)
        finally:
            waiting.remove(who)

def is_page_path(path: str) -> bool:
    """Whether a path is one of the pages'."""
    return re.match(rf"{PAGE_PATH}(/|$)", path) is not None

# ================================= helpers/openwebui/realtime.py ==================================
# Voice calls: Open WebUI's socket to a realtime model, with a record for each answer.

REALTIME_PATH = "/api/v1/audio/realtime"
# How the policies and the records call it, whatever model the administrator has chosen for it.
REALTIME_MODEL = "realtime"
# Open WebUI takes no longer one for a login.
LONGEST_LOGIN = 8_192
# What a client may say that asks for no answer.
QUIET_COMMANDS = frozenset(
    (
        *("bridge.animation.result", "bridge.context", "bridge.ping", "bridge.result"),
        *("input_audio_buffer.append", "input_audio_buffer.clear", "input_audio_buffer.commit"),
        *("conversation.item.truncate", "response.cancel"),
    )
)
# What is only heard is charged with the next answer, but no more of it than this at once.
MOST_TRANSCRIPTS = 8
POLICY_VIOLATION = 1008

class VoiceCall:
    """One call: each answer is admitted before it is asked for, and the call ends over a limit.

    One more is always admitted than was asked for, if none is being given: for what is heard.
    """

    def __init__(self, guard: PassthroughGuard, scope: Scope, receive: Receive, send: Send) -> None:
        self._guard = guard
        self._scope = scope
        self._receive = receive
        self._send = send
        self._user: dict[str, Any] | None = None
        self._counted = False
        self._replies: list[Reply] = []
        self._asked = 0  # how many of them, the first ones
        self._transcripts = 0
        self._ended = False

    async def serve(self, app: AsgiApp) -> None:
        """Serve it."""
        current_state.set(self._scope.setdefault("state", {}))
        try:
            await app(self._scope, self.receive, self.send)
        finally:
            self._ended = True
            while self._replies:
                await self._settle_first()

    async def receive(self) -> Message:
        """What the client says; with its first word it says who it is."""
        message = await self._receive()
        if message["type"] != "websocket.receive":
            return message
        said = read_json((message.get("text") or "").encode("utf-8", "replace"))
        kind = said.get("type") if isinstance(said, dict) else None
        try:
            if self._user is None:
                message = await self._begin(said)
            elif self._counted and kind not in QUIET_COMMANDS:
                self._asked += 1
                await self._admit_asked()
        except Exception as error:
            await self._end(error)
        if self._ended:
            return {"type": "websocket.disconnect", "code": POLICY_VIOLATION}
        return message

    async def send(self, message: Message) -> None:
        """What the client is told; an answer's usage is among it."""
        if self._ended:
            raise OSError("the call was ended")
        await self._send(message)
        text = message.get("text") or ""
        if not self._replies or not ('"usage"' in text or '"response.done"' in text):
            return
        event = read_json(text.encode("utf-8", "replace"))
        done = isinstance(event, dict) and event.get("type") == "response.done"
        self._replies[0].meter.begin_round(0)
        self._replies[0].meter.add_event(event)
        self._transcripts += 1
        if done or (self._transcripts >= MOST_TRANSCRIPTS and not self._asked):
            try:
                await self._settle_first()
                await self._admit_asked()
            except Exception as error:
                await self._end(error)

    async def _begin(self, login: Any) -> Message:
        """Find out who calls, and whether they may; their login as it was understood here.

        Raises:
            HostError: They may not.
        """
        token = login.get("token") if isinstance(login, dict) else None
        if not isinstance(token, str) or len(token) > LONGEST_LOGIN:
            raise HostError(400, UNREADABLE_SENTENCE, 0)
        switch = await self._guard.switch()
        if not switch.on or not switch.everywhere:
            self._user = {}
            return {"type": "websocket.receive", "text": json.dumps(login)}
        headers = [(b"authorization", f"Bearer {token}".encode())]
        user, _ = await self._guard.gate.find_user(self._http_scope(headers))
        if user is None:
            raise HostError(401, FAULT_SENTENCE, 0)
        self._user, self._counted = user, True
        await self._admit_asked()
        return {"type": "websocket.receive", "text": json.dumps(login)}

    async def _admit_asked(self) -> None:
        """Admit what was asked for, or one answer to come.

        Raises:
            HostError: It is refused, or it can't be checked.
        """
        while self._counted and len(self._replies) < max(1, self._asked):
            reply = await self._admit()
            if reply is None:  # shadow mode, and a fault
                self._counted = False
            else:
                self._replies.append(reply)

    async def _admit(self) -> Reply | None:
        valves = (await self._guard.switch()).valves

        def adjust(reply: Reply) -> None:
            if valves is not None and valves.passthrough == "allow":
                reply.enforced = False

        metadata: dict[str, Any] = {ADJUST_KEY: adjust}
        request = Request(self._http_scope([]))
        await self._guard.admit({"model": REALTIME_MODEL}, self._user or {}, metadata, request)
        return metadata.get(METADATA_KEY)

    async def _settle_first(self) -> None:
        """Settle the answer that was asked for first, with what was heard before it."""
        reply = self._replies.pop(0)
        begun = self._asked > 0
        self._asked, self._transcripts = max(0, self._asked - 1), 0
        if reply.meter.produced:
            await reply.keeper.end(reply, make_charge(reply.meter.total(), reply.rule))
        else:
            await reply.keeper.end(reply, reply.unseen_charge() if begun else None)

    async def _end(self, error: Exception) -> None:
        """End the call with a sentence."""
        if isinstance(error, HostError):
            sentence = str(error.detail)
        elif isinstance(error, PassthroughError):
            sentence = error.refusal.sentence
        else:
            log.error("Usage limits: a voice call could not be checked", exc_info=error)
            sentence = FAULT_SENTENCE
        self._ended = True
        told = json.dumps({"type": "bridge.error", "message": sentence})
        await self._send({"type": "websocket.send", "text": told})
        await self._send({"type": "websocket.close", "code": POLICY_VIOLATION})

    def _http_scope(self, headers: list[tuple[bytes, bytes]]) -> Scope:
        """The call as a request over HTTP, for those who know no other."""
        return {**self._scope, "type": "http", "method": "POST", "headers": headers}

# ================================ helpers/openwebui/middleware.py =================================
# One ASGI layer around Open WebUI, for the paths that its hooks don't guard.

# The form of the users' own valves, which is in the language of whoever opens it.
USER_VALVES_FORM = "/valves/user/spec"
VALVES_FORM = "/valves/"
LAYER_NAME = "UsageLimitsLayer"

class UsageLimitsLayer:
    """The layer itself: it looks at a request's path, and mostly lets it pass."""

    def __init__(self, app: AsgiApp, guards: dict[str, PassthroughGuard]) -> None:
        self.app = app
        self.guards = guards
        self._pages: dict[PassthroughGuard, UsagePages] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        path = scope.get("path", "")
        if path.endswith("\n"):  # Starlette's routes end with `$`, which matches before one too
            scope["path"] = path.rstrip("\n")
        if scope["type"] == "http":
            if is_page_path(route_path(scope)):
                await self.serve_page(scope, receive, send)
                return
            if route_path(scope).endswith(USER_VALVES_FORM):
                headers = dict(scope.get("headers", ()))
                accepted_languages.set(headers.get(b"accept-language", b"").decode("latin-1"))
            if VALVES_FORM in route_path(scope):
                send = await self.serve_form(scope, send)
            passthrough = find_passthrough(scope.get("method", "GET"), route_path(scope))
            if passthrough is not None:
                guard = await self.find_guard(now=passthrough.kind != "chat")
                if guard is not None:
                    await guard.serve(self.app, passthrough, scope, receive, send)
                    return
        elif scope["type"] == "websocket" and route_path(scope) == REALTIME_PATH:
            guard = await self.find_guard()
            if guard is not None:
                await VoiceCall(guard, scope, receive, send).serve(self.app)
                return
        await self.app(scope, receive, send)

    async def serve_page(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer at the pages' paths, where there are pages."""
        guard = await self.find_guard()
        shown = False
        if guard is not None:
            try:
                valves = (await guard.switch()).valves
                shown = valves is not None and valves.usage_page
            except Exception:  # which is in the log: the pages will say that nothing can be read
                shown = True
        if guard is None or not shown:
            answer = JSONResponse({"detail": NOT_FOUND}, 404, {"Cache-Control": "no-store"})
            await answer(scope, receive, send)
            return
        if guard not in self._pages:
            self._pages[guard] = UsagePages(guard, scope["app"])
        scope.setdefault("state", {})
        await self._pages[guard].serve(scope, receive, send)

    async def serve_form(self, scope: Scope, send: Send) -> Send:
        """Bring the form's notes up to date before it opens; explain a save that is refused."""
        for function_id, guard in list(self.guards.items()):
            method = scope.get("method", "GET")
            action = valves_form_action(route_path(scope), method, function_id)
            if action == "spec":
                try:
                    await guard.notes.refresh((await guard.switch(now=True)).valves)
                except Exception:
                    log.warning("Usage limits: the form's notes are old", exc_info=True)
            elif action == "update":
                return SaveAnswer(send, guard.notes.refusal_reasons).send
        return send

    async def find_guard(self, *, now: bool = True) -> PassthroughGuard | None:
        """The guard whose function is on; where that can't be seen, the last one."""
        last = None
        for guard in list(self.guards.values()):
            try:
                if (await guard.switch(now=now)).on:
                    return guard
            except Exception as error:
                known = isinstance(error, HostDatabaseError)
                why = "it can't be seen whether the filter is on"
                log.error("Usage limits: %s; %s", error, why, exc_info=not known)
                last = guard
        return last

def function_id_of(module_name: str) -> str | None:
    """A function's id, in the name that Open WebUI gives its module."""
    if not module_name.startswith("function_"):
        return None
    name = module_name.removeprefix("function_")
    head, _, tail = name.rpartition("_")
    # Open WebUI ends the name with 32 hexadecimal digits since 0.12.
    is_uuid = len(tail) == 32 and all(digit in "0123456789abcdef" for digit in tail)
    return head if head and is_uuid else name

def put_layer(
    module_name: str, admit: Admit, ledger_of: Callable[[AdminValves], Any], unasked: UnaskedModels
) -> UsageLimitsLayer | None:
    """Put the layer around the running app, in the place of an older one.

    Args:
        module_name: The filter's module, named by Open WebUI.
        admit, ledger_of, unasked: As `PassthroughGuard` takes them.

    Returns:
        The layer; None where it can't be put there, or where it needn't.
    """
    function_id = function_id_of(module_name)
    app = getattr(sys.modules.get("open_webui.main"), "app", None)
    stack = getattr(app, "middleware_stack", None)
    if function_id is None or stack is None:
        return None
    above, attribute, layer = find_layer(app)
    if layer is None:
        above, attribute, below, guards = app, "middleware_stack", stack, {}
    else:
        below, guards = layer.app, dict(layer.guards)
    guard = guards.get(function_id)
    if layer is not None and getattr(guard, "admit_request", None) == admit:
        return layer if isinstance(layer, UsageLimitsLayer) else None
    guards[function_id] = PassthroughGuard(function_id, admit, ledger_of, unasked)
    placed = UsageLimitsLayer(below, guards)
    setattr(above, attribute, placed)
    return placed

def has_layer() -> bool:
    """Whether a layer is around the running app, or none is needed, as outside of a server."""
    host = sys.modules.get("open_webui.main")
    return host is None or find_layer(getattr(host, "app", None))[2] is not None

def page_link() -> str:
    """Where a sentence on the chat page leads to; nothing where there is no page."""
    app = getattr(sys.modules.get("open_webui.main"), "app", None)
    return f" {PAGE_PATH}" if find_layer(app)[2] is not None else ""

def find_layer(app: Any) -> tuple[Any, str, Any]:
    """Our layer, of whatever release, and what holds it under which name."""
    above, attribute = app, "middleware_stack"
    for _ in range(MOST_LAYERS):
        found = getattr(above, attribute, None)
        if found is None:
            break
        if type(found).__name__ == LAYER_NAME:
            return above, attribute, found
        above, attribute = found, "app"
    return None, "", None

# ================================ helpers/openwebui/task_calls.py =================================
# Task calls: the titles, tags, queries and the like that Open WebUI asks a model for by itself.

@dataclass(frozen=True, slots=True)
class TaskCaller:
    """A name by which a module of Open WebUI calls models past the hooks.

    Args:
        calls: task: for tasks only. mixed: for tasks and for replies. function: for tasks, and for
            what pipes, tools and actions ask by themselves. reply: for a user's own requests,
            handed on in Anthropic's protocol.
    """

    module: str
    name: str
    calls: Literal["task", "mixed", "function", "reply"]

TASK_CALLERS = (
    TaskCaller("open_webui.routers.tasks", "generate_chat_completion", "task"),
    TaskCaller("open_webui.utils.chat", "generate_chat_completion", "function"),
    TaskCaller("open_webui.utils.middleware", "generate_chat_completion", "mixed"),
    TaskCaller("open_webui.main", "passthrough_anthropic_messages", "reply"),
)
WRAPPED = "usage_limits_task_inner"
# These are a part of the reply that its user asked for.
COUNTED_TASKS = frozenset({"function_calling"})
# What Open WebUI fills a model's system prompt with.
FILLING = ("variables", "chat_variables")
# Where users ask for a task itself, with any prompt: `/tasks/*/completions`, `/chats/ID/compact`.
ASKED_FOR = ("/api/v1/tasks/", "/api/v1/chats/")
# The arena model for which Open WebUI has chosen the one that it calls.
asked_arena: ContextVar[str] = ContextVar("usage_limits_asked_arena", default="")

GuardFinder = Callable[[], Awaitable[PassthroughGuard | None]]

def watch_name(
    module_name: str, name: str, owner: object, watch: Callable[[Callable[..., Any]], Any]
) -> None:
    """Watch a function under the name that a module has for it, in the place of an earlier paste.

    Args:
        owner: Who watches it, once.
        watch: What makes the watched function of Open WebUI's own.
    """
    module = sys.modules.get(module_name)
    function = getattr(module, name, None)
    if function is None:
        return
    wrapped = getattr(function, WRAPPED, None)
    if wrapped is not None and wrapped[0] is owner:
        return
    inner = function if wrapped is None else wrapped[1]
    call = watch(inner)
    setattr(call, WRAPPED, (owner, inner))
    setattr(module, name, call)

def watched_task(
    inner: Callable[..., Any], caller: TaskCaller, find_guard: GuardFinder
) -> Callable[..., Any]:
    """Open WebUI's function, admitted, metered and settled."""

    @wraps(inner)
    async def call(request: Any, form_data: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(form_data, dict):
            return await inner(request, form_data, *args, **kwargs)
        metadata = form_data.get("metadata")
        task = str(metadata.get("task") or "") if isinstance(metadata, dict) else ""
        model_id, outer = str(form_data.get("model") or ""), outer_reply(request)
        if outer is not None and model_id == outer.reservation.model_names[0]:
            # Open WebUI's own way to the model that was admitted.
            return await inner(request, form_data, *args, **kwargs)
        if outer is not None:
            task = ""  # a function has handed on its metadata
        if caller.calls == "mixed" and not task:
            return await inner(request, form_data, *args, **kwargs)
        guard = await find_guard()
        user = kwargs.get("user", args[0] if args else None)
        if guard is None or user is None:
            return await inner(request, form_data, *args, **kwargs)
        if caller.calls != "reply" and is_arena(host_models().get(model_id)):
            # It comes here again, with the model that Open WebUI has chosen.
            token = asked_arena.set(asked_arena.get() or model_id)
            try:
                return await inner(request, form_data, *args, **kwargs)
            finally:
                asked_arena.reset(token)
        if not await guard.covers(model_id, request.app):
            return await inner(request, form_data, *args, **kwargs)
        if task and is_only_command(metadata):
            return refused_task(HostError(429, "A command needs no title.", 60))
        try:
            reply = await admit_call(guard, caller, task, request, form_data, user)
        except HostError as error:
            if caller.calls == "reply":
                raise
            if not task:  # whoever formats this one shall not raise it
                raise HTTPException(error.status_code, error.detail, error.headers) from None
            return refused_task(error)
        try:
            if reply is None:
                answer = await inner(request, form_data, *args, **kwargs)
            else:
                answer = await call_for(
                    reply, inner, guard.unasked, request, form_data, *args, **kwargs
                )
        except Exception:
            await end_call(reply, None)
            raise
        except BaseException:  # given up while the model may be at work
            await end_call(reply, reply.unseen_charge() if reply is not None else None)
            raise
        return await metered_answer(reply, answer)

    # What watches the calls of replies looks for what is innermost.
    setattr(call, ORIGINAL, getattr(inner, ORIGINAL, inner))
    return call

def is_only_command(metadata: Any) -> bool:
    """Whether a task is about a chat in which nothing but `/usage` was asked so far."""
    body = metadata.get("task_body") if isinstance(metadata, dict) else None
    messages = body.get("messages") if isinstance(body, dict) else None
    if not isinstance(messages, list):
        return False
    asked = [one for one in messages if isinstance(one, dict) and one.get("role") == "user"]
    return bool(asked) and all(asks_for_usage({"messages": [one]}) for one in asked)

async def admit_call(
    guard: PassthroughGuard,
    caller: TaskCaller,
    task: str,
    request: Any,
    form_data: dict[str, Any],
    user: Any,
) -> Reply | None:
    """Admit a call as the inlet does, if it is a task without counting it.

    What a function asks for itself counts for the user of the reply that it writes, and is a part
    of it.

    Raises:
        HostError: A hard limit is reached, or the call can't be put on record.
    """
    valves = (await guard.switch()).valves or AdminValves()
    # Whoever calls a task's path asks for what they like; the chats ask for it in passing.
    asked_for = bool(task) and route_path(request.scope).startswith(ASKED_FOR)
    in_passing = caller.calls != "reply" and not asked_for
    is_part = not in_passing or not task or task in COUNTED_TASKS
    counted = is_part or valves.policy_set.tasks_counted
    told = getattr(request.state, "metadata", None) if not task else form_data.get("metadata")
    told = told if isinstance(told, dict) else {}
    # A tool's or an action's call comes from where the request does that it is a part of.
    source = "task" if task else str((current_state.get() or {}).get(SOURCE_STATE) or "")
    allowed = asked_for and valves.passthrough == "allow"

    def adjust(reply: Reply) -> None:
        if source and source != "direct" and outer_reply(request) is None:
            reply.reservation = replace(reply.reservation, source=source)
        if not counted:
            reply.rule = replace(reply.rule, weight=Decimal(0))
        if in_passing or allowed:
            reply.enforced = False  # decided below
        if in_passing:  # short, so it needn't hold all that remains
            reply.capped = valves.cap_max_tokens and not valves.shadow_mode
            reply.beside_holds = bool(task)

    enforced = not valves.shadow_mode and not allowed
    ids = {key: told.get(key) for key in ("chat_id", "message_id", "session_id")}
    given = form_data.get("metadata")
    filled = {key: given[key] for key in FILLING if key in given} if isinstance(given, dict) else {}
    metadata: dict[str, Any] = {**ids, **filled, ADJUST_KEY: adjust}
    if arena := asked_arena.get():
        metadata |= {"selected_model_id": form_data.get("model"), "model": {"id": arena}}
    if caller.calls != "reply":
        model = await describe_model(form_data.get("model"), request.app)
        add_lengths(form_data, await read_settings(model))
    body = {key: value for key, value in form_data.items() if key != "metadata"}
    fields = user if isinstance(user, dict) else user.model_dump()
    within = await lending_reply(request) if in_passing and not task else None
    if not in_passing:
        body = await guard.admit(body, fields, metadata, request)
        admitted = {} if caller.calls == "reply" else body  # nothing of OpenAI's for Anthropic
        return lowered_call(metadata.get(METADATA_KEY), admitted, form_data, enforced)
    # Its refusal is nobody's: the request that it belongs to goes on.
    state: dict[str, Any] = {}
    token = current_state.set(state)
    try:
        body = await guard.admit(body, fields, metadata, request)
    finally:
        current_state.reset(token)
    reply: Reply | None = metadata.get(METADATA_KEY)

    def may_pass(limit: LimitState) -> bool:
        # Replies that are still running don't cost a chat its tools and its title; and the one
        # within which a function calls goes on holding its request.
        of_its_own = within is not None and limit.applied.limit.measure == "requests"
        return not limit.exceeded or (limit.is_only_held and (bool(task) or of_its_own))

    if reply is not None and enforced and not all(map(may_pass, state.get(LIMITS_STATE) or ())):
        await end_call(reply, None)
        raise HostError(429, TASK_REFUSED_SENTENCE, 60)
    return lowered_call(reply, body, form_data, enforced)

async def lending_reply(request: Any) -> Reply | None:
    """The reply within which a call is made, once it has left to it what it holds."""
    within = outer_reply(request) or current_reply.get()
    if within is None or not hasattr(within, "lent"):  # it is of an earlier release
        return None
    await within.keeper.lend(within)
    return within

def lowered_call(
    reply: Reply | None, admitted: Mapping[str, Any], form_data: dict[str, Any], enforced: bool
) -> Reply | None:
    """The reply, when its call asks for its usage, and for no more output than may be used."""
    if "stream_options" in admitted:
        form_data["stream_options"] = admitted["stream_options"]
    if reply is not None:
        reply.enforced = enforced
        reply.lower_output(form_data)
    return reply

def refused_task(error: HostError) -> Response:
    """What the callers of tasks take for an answer without text."""
    return JSONResponse({"detail": str(error.detail)}, error.status_code, error.headers)

async def end_call(reply: Reply | None, charge: Charge | None) -> None:
    """Settle a call; a fault here is no reason to lose its answer."""
    if reply is not None:
        try:
            await reply.keeper.end(reply, charge)
        except Exception:
            log.exception("Usage limits: a task %s was not settled", reply.reservation.id)

async def metered_answer(reply: Reply | None, answer: Any) -> Any:
    """The answer, read as it passes."""
    if reply is None:
        return answer
    if isinstance(answer, StreamingResponse):
        reply.called_model = reply.outlives_task = True
        stream = metered_stream(reply, answer.body_iterator)
        # Whoever leaves before it begins never begins it, and then it has no end of its own.
        unread = finalize(stream, settle_unread, reply, asyncio.get_running_loop())
        unread.atexit = False
        answer.body_iterator = bounded_stream(reply, stream)
        return answer
    if is_failure(answer):
        await end_call(reply, None)
        return answer
    content = answer_content(answer)
    if isinstance(content, Mapping):
        reply.meter.add_answer(content)
    reply.called_model = True
    await end_call(reply, reply.final_charge())
    return answer

async def metered_stream(reply: Reply, parts: Any) -> AsyncIterator[Any]:
    """A stream's parts as they come, and the settling at whichever end."""
    reader = AnswerReader(reply.meter)
    reader.start(200, [(b"content-type", b"text/event-stream")])
    try:
        async for part in parts:
            reader.feed(part.encode("utf-8", "replace") if isinstance(part, str) else bytes(part))
            yield part
    finally:
        if (close := getattr(parts, "aclose", None)) is not None:
            await close()
        reader.end()
        await end_call(reply, reply.final_charge())

def settle_unread(reply: Reply, loop: asyncio.AbstractEventLoop) -> None:
    """Settle the reply of a stream that nobody reads any more, unless that was done at its end."""
    if reply.ending is None and not loop.is_closed():
        loop.call_soon_threadsafe(lambda: loop.create_task(end_call(reply, reply.final_charge())))

def guard_tasks(layer: UsageLimitsLayer) -> None:
    """Watch the tasks for the filters of a layer."""
    for caller in TASK_CALLERS:
        watch = partial(watched_task, caller=caller, find_guard=layer.find_guard)
        watch_name(caller.module, caller.name, layer, watch)

# ================================ helpers/openwebui/image_calls.py ================================
# Image calls: the pictures that a chat has made, by its switch or as a tool, each a request.

# Where chats and tools have pictures made, and what records call the model, as of their own paths.
IMAGE_MODULES = ("open_webui.utils.middleware", "open_webui.tools.builtin")
IMAGE_MODELS = {"image_generations": "generations", "image_edits": "edit"}

def guard_images(layer: UsageLimitsLayer) -> None:
    """Watch the images of chats for the filters of a layer."""

    def watch(model: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        return lambda inner: watched_images(inner, model, layer.find_guard)

    for module in IMAGE_MODULES:
        for name, model in IMAGE_MODELS.items():
            watch_name(module, name, layer, watch(model))

def watched_images(
    inner: Callable[..., Any], model: str, find_guard: GuardFinder
) -> Callable[..., Any]:
    """Open WebUI's function, admitted as a request and settled."""

    @wraps(inner)
    async def call(request: Any, *args: Any, **kwargs: Any) -> Any:
        guard, user = await find_guard(), kwargs.get("user")
        # Where it is on for some models only, an image names none of them.
        if guard is None or user is None or not (await guard.switch()).everywhere:
            return await inner(request, *args, **kwargs)
        reply = await admit_image(guard, model, request, user)
        charge = None if reply is None else make_charge(Usage(), reply.rule)
        try:
            return await inner(request, *args, **kwargs)
        except Exception:
            charge = None
            raise
        finally:  # given up, too: it may be in the making
            await end_call(reply, charge)

    return call

async def admit_image(guard: PassthroughGuard, model: str, request: Any, user: Any) -> Reply | None:
    """Admit an image for the user of the reply that has it made.

    Raises:
        HTTPException: A hard limit is reached, or it can't be put on record. The reply goes on,
            and its model is told.
    """
    source = str((current_state.get() or {}).get(SOURCE_STATE) or "")
    allowed = getattr((await guard.switch()).valves, "passthrough", "count") == "allow"

    def adjust(reply: Reply) -> None:
        if source and source != "direct":
            reply.reservation = replace(reply.reservation, source=source)
        # Of those that may run at once the reply itself is one.
        reply.limits = tuple(
            one
            for one in reply.limits
            if one.limit.measure == "requests" and not one.limit.is_moment
        )
        if allowed:
            reply.enforced = False

    metadata: dict[str, Any] = {ADJUST_KEY: adjust}
    token = current_state.set({})  # its refusal isn't the reply's
    try:
        await guard.admit({"model": model}, user.model_dump(), metadata, request)
    except HostError as error:  # whoever formats this one shall not raise it
        raise HTTPException(error.status_code, error.detail, error.headers) from None
    finally:
        current_state.reset(token)
    reply: Reply | None = metadata.get(METADATA_KEY)
    return reply

# ================================= helpers/openwebui/admission.py =================================
# From a request to a reply: whose limits count, how much is reserved, what a refusal says.

LONGEST_TIMEZONE = 100
UNCOUNTED = ModelRule("*", weight=Decimal(0))
MOST_REMEMBERED_USERS = 10_000
LEDGER_ERROR_RETRY_SECONDS = 60
# When to try again where replies still running hold what is left.
HELD_RETRY_SECONDS = 10

def find_reader(
    valves: AdminValves, user: Mapping[str, Any], metadata: Mapping[str, Any]
) -> Reader:
    """The user's own time zone where Open WebUI knows it, else the valve's; and the language."""
    own_zone = clean_text(user.get("timezone"), LONGEST_TIMEZONE).strip()
    zone = find_timezone(own_zone)
    # The chat page sends its own language for use in prompts.
    variables = metadata.get("variables")
    tag = variables.get("{{USER_LANGUAGE}}") if isinstance(variables, Mapping) else None
    language = choose_language(clean_text(tag, LONGEST_LANGUAGE_TAG))
    return Reader(zone or read_timezone(valves.timezone), language, zone_is_own=zone is not None)

def build_reply(
    keeper: Any,
    valves: AdminValves,
    subject: Subject,
    user: Mapping[str, Any],
    body: Mapping[str, Any],
    metadata: Mapping[str, Any],
    model_names: tuple[str, ...],
    source: str,
    now: datetime,
    *,
    prompt_tokens: int,
    ollama: bool,
    own_provider: bool,
) -> Reply:
    """Everything that is known of a reply before it is admitted.

    A reply over a direct connection uses its user's own provider, and its usage comes from the
    browser: it is on record, and counts toward nothing.
    """
    policies = valves.policy_set
    policy = choose_policy(subject, policies, valves.default_policy, valves.multiple_groups)
    stops = valves.running_replies == "stop"
    reply = Reply(
        keeper=keeper,
        reservation=Reservation(
            id=uuid.uuid4().hex,
            subject=subject,
            model_names=model_names,
            source=source,
            chat_id=clean_text(metadata.get("chat_id"), LONGEST_ID),
            message_id=clean_text(metadata.get("message_id"), LONGEST_ID),
            policy="exempt" if is_exempt(valves, subject) else policy.name,
            created_at=int(now.timestamp()),
        ),
        limits=() if own_provider else count_limits(valves, subject, model_names, now),
        rule=UNCOUNTED if own_provider else find_model_rule(policies, model_names),
        reader=find_reader(valves, user, metadata),
        enforced=not valves.shadow_mode,
        prompt_tokens=prompt_tokens,
        next_prompt_tokens=prompt_tokens,
        wanted_output=wanted_output(body, ollama=ollama),
        ollama=ollama,
        choices=count_choices(body),
        soft_limit_percent=valves.soft_limit_percent,
        alert_url="" if valves.shadow_mode else valves.alert_webhook_url,
        # An answer that comes whole can't be ended on its way.
        capped=not valves.shadow_mode
        and (valves.cap_max_tokens or (stops and body.get("stream") is not True)),
        stops_at_limit=stops,
        needs_ledger=valves.on_ledger_error == "block",
    )
    reply.meter.begin_round(prompt_tokens)
    return reply

@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A request as Open WebUI hands it to the inlet, and the valves that it came with."""

    valves: AdminValves
    body: dict[str, Any]
    user: dict[str, Any]
    metadata: dict[str, Any]
    model: dict[str, Any] | None
    request: Any  # Starlette's

    @property
    def reader(self) -> Reader:
        """Who reads what is said about it."""
        return find_reader(self.valves, self.user, self.metadata)

    def unavailable(self) -> HostError:
        """The refusal of what can't be put on record."""
        try:
            language = self.reader.language
        except Exception:
            log.exception("Usage limits: the language of a user could not be told")
            language = ENGLISH
        sentence = finish_sentence(language.ledger_error, language)
        return HostError(503, sentence, LEDGER_ERROR_RETRY_SECONDS)

class LastGroups:
    """The groups that the latest users had last, for the time of an outage."""

    def __init__(self) -> None:
        self._groups: dict[str, tuple[GroupRef, ...]] = {}

    def of(self, user_id: str) -> tuple[GroupRef, ...]:
        """A user's; none for who isn't remembered."""
        return self._groups.get(user_id, ())

    def note(self, user_id: str, groups: tuple[GroupRef, ...]) -> None:
        """Remember a user's."""
        self._groups.pop(user_id, None)
        self._groups[user_id] = groups
        while len(self._groups) > MOST_REMEMBERED_USERS:
            with suppress(StopIteration, KeyError, RuntimeError):  # another thread did
                self._groups.pop(next(iter(self._groups)))

@dataclass(frozen=True, slots=True)
class Draft:
    """A reply that is to be built in a thread, where its user's groups can be read.

    Args:
        model: The model that it is for, as it is at this moment.
        users_own: Whether that has a table in the policies which isn't meant: a user's own model.
        last_groups: For the time of an outage.
        calls_seen: Whether it is seen which replies call a model; if not, all that are admitted do.
        own_provider: Whether it goes over its user's own connection.
        prompt_tokens: About how many it has.
        system_tokens: About how many more its model's own system prompt has.
        queries: What reads the groups in the ledger's database; None where they aren't there.
        listed: The groups, if they are not.
        state: The HTTP request's, out of its client's reach.
    """

    asked: ChatRequest
    model: object
    users_own: bool
    ledger: OpenLedger
    last_groups: LastGroups
    calls_seen: bool
    own_provider: bool
    prompt_tokens: int
    system_tokens: int
    queries: GroupQueries | None
    listed: tuple[GroupRef, ...]
    state: MutableMapping[str, Any]
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    @classmethod
    async def of(
        cls, asked: ChatRequest, ledger: OpenLedger, last_groups: LastGroups, calls_seen: bool
    ) -> Draft:
        """What is to be found out on the event loop."""
        # Where the ledger has a database of its own, Open WebUI has to read its groups itself.
        queries = None if asked.valves.database_url else group_queries()
        listed = await list_groups(asked.user["id"]) if queries is None else ()
        own_provider = uses_own_provider(asked.request, asked.body)
        model = answering_model(asked.body, asked.model)
        settings = None if own_provider else await read_settings(model)
        if ADJUST_KEY not in asked.metadata:
            add_lengths(asked.body, settings)
        if not (own_provider or asked.valves.shadow_mode):
            if ADJUST_KEY not in asked.metadata and asked.body.get("background"):
                raise HostError(400, BACKGROUND_SENTENCE)
            if outer_reply(asked.request) is None:  # a function's author may do so
                field = await other_models(asked.body, settings)
                if field:
                    raise HostError(400, FALLBACK_SENTENCE.format(field=clean_text(field, 99)))
        chosen, users_own = asked.body.get("model"), False
        if settings is not None and settings.base:
            tables = asked.valves.policy_set.models
            users_own = any(one.glob == chosen for one in tables) and await is_users_own(settings)
        system = await fill_system_prompt(settings, asked.metadata, asked.user)
        prompt = await estimate_in_thread(asked.body)
        # Its variables may be of any length.
        own = await asyncio.to_thread(estimate_tokens, system) if system else 0
        state = current_state.get()
        if state is None:  # of what Open WebUI begins itself: its tools' calls are of its source
            current_state.set(state := {})
        return cls(
            asked,
            with_base(model, settings),
            users_own,
            ledger,
            last_groups,
            calls_seen,
            own_provider,
            prompt,
            own,
            queries,
            listed,
            state,
        )

    def build(self) -> Reply:
        """The reply, with its `unread` where the ledger could not be asked; blocks."""
        asked, unread = self.asked, None
        user, metadata = asked.user, asked.metadata
        caller, groups = str(self.state.get(SOURCE_STATE, "")), self.listed
        if self.queries is not None:
            read = partial(read_groups, queries=self.queries, user_id=user["id"])
            try:
                groups = self.ledger.accounting.read(read)
                self.last_groups.note(user["id"], groups)
            except LedgerError as error:
                # What is written down later counts for the pools that it counted for last.
                groups, unread = self.last_groups.of(user["id"]), error
        subject = make_subject(user, groups)
        try:
            subject = self.ledger.memory.recall(asked.valves.policy_set, subject)
        except LedgerError as error:
            unread = error
        names = list_model_names(asked.body, self.model, metadata, asked.request)
        names.users_own = self.users_own
        reply = build_reply(
            self.ledger.accounting,
            asked.valves,
            subject,
            user,
            asked.body,
            metadata,
            names,
            outer.reservation.source
            if (outer := outer_reply(asked.request)) is not None
            else request_source(metadata, self.own_provider, asked.request, user["id"], caller),
            self.now,
            prompt_tokens=self.prompt_tokens + self.system_tokens,
            ollama=is_ollama_model(self.model),
            own_provider=self.own_provider,
        )
        reply.unread, reply.system_tokens = unread, self.system_tokens
        reply.base = "" if is_function(self.model) else called_model(reply.reservation.model_names)
        reply.called_model = not self.calls_seen
        # Before a pass-through path says more.
        self.state.setdefault(SOURCE_STATE, reply.reservation.source)
        # A pass-through path's; what a client sends is made of JSON.
        adjust = metadata.get(ADJUST_KEY)
        if callable(adjust):
            adjust(reply)
        reply.limits = limits_via(reply.limits, reply.reservation.source)
        return reply

def link_in_chat(valves: AdminValves, reply: Reply) -> str:
    """Where a built-in sentence in a chat leads to; "" where there is no page."""
    seen = reply.reservation.source in ("page", "temporary")
    return page_link() if seen and valves.usage_page else ""

def refuse(valves: AdminValves, reply: Reply, decision: Decision) -> None:
    """Raise for the limit that refuses, if one does; in shadow mode only log it.

    Raises:
        HostLimitError: A hard limit is reached.
    """
    state = decision.refusing
    if state is None:
        return
    log.info(
        "Usage limits: user %s %s refused by %s (%s): %d used, %d reserved",
        reply.reservation.subject.user_id,
        "is" if reply.enforced else "would be",
        state.applied.policy or "the default",
        state.applied.limit,
        state.used,
        state.reserved,
    )
    if not reply.enforced:
        return
    now, model = datetime.now(UTC), reply.reservation.model_names[0]
    try:
        sentence = limit_sentence(valves.limit_message, state, now, reply.reader, model)
        if state.amount and not valves.limit_message:
            sentence += link_in_chat(valves, reply)
    except Exception:
        # A refusal whose sentence can't be made is still a refusal.
        log.exception("Usage limits: the sentence of a refusal could not be made")
        sentence = PLAIN_REFUSAL
    wait = (state.reset_at - now).total_seconds()
    if state.is_only_held:
        wait = min(wait, HELD_RETRY_SECONDS)
    raise HostLimitError(UsageLimitExceeded(sentence, state.reset_at, wait))

async def check_round(valves: AdminValves, reply: Reply, later: bool) -> None:
    """Write down what another round needs, or what retrieval has added to the first.

    Args:
        later: Whether a model has answered before, for it or within it: then reached limits refuse
            the round, with what the reply has used.

    Raises:
        HostLimitError: A hard limit is reached.
        LedgerError: The database can't be reached, or is too busy.
        LedgerDataError: It refuses what is to be written.
    """
    if not reply.rule.weight:  # a free model's, or over its user's own provider
        return
    if getattr(reply, "stopped", False) and reply.refused_by is None:
        if valves.on_ledger_error == "block":
            raise LedgerError("a reply was ended for want of a ledger")
        reply.stopped = False
    subject, names = reply.reservation.subject, reply.reservation.model_names
    applying = limits_via(
        count_limits(valves, subject, names, datetime.now(UTC)), reply.reservation.source
    )
    limits = [one for one in applying if not one.limit.is_moment]
    keeper = reply.keeper
    # A reply that began before 0.2.0 was pasted is kept as it was then.
    ask = keeper.grow if hasattr(keeper, "grow") else keeper.check
    decision = await ask(reply, limits)
    if later:
        if (stopped_at := getattr(reply, "refused_by", None)) and reply.stopped:
            stopped_at = replace(stopped_at, used=max(stopped_at.used, stopped_at.amount))
            refuse(valves, reply, Decision((stopped_at,)))
        refuse(valves, reply, decision.with_running(reply.used_charge().counted))

def outage_refuses(valves: AdminValves, reply: Reply, error: LedgerError) -> bool:
    """Whether a request may not go on without the ledger; a crowd is no outage."""
    crowded = isinstance(error, LedgerBusyError)
    return reply.enforced and (crowded or valves.on_ledger_error == "block")

async def estimate_in_thread(body: Mapping[str, Any]) -> int:
    """A prompt's estimate: of a huge one neither the event loop nor the ledger's thread waits."""
    return await asyncio.to_thread(estimate_prompt, body)

def adjust_call(
    valves: AdminValves, reply: Reply, body: dict[str, Any], unasked: UnaskedModels
) -> None:
    """Ask the provider for usage, and for no more output than may be used."""
    if not is_older(reply):
        reply.lower_output(body)
    if unasked.has(unasked_name(reply, body), body):
        return
    if valves.request_stream_usage and body.get("stream"):
        options = body.get("stream_options")
        asked = options if isinstance(options, dict) else {}
        body["stream_options"] = {**asked, **ASK_FOR_USAGE}

# ======================================= helpers/filter.py ========================================
# The filter: Open WebUI's hooks, and nothing but hooks.

# A prompt that retrieval made longer than this is written down before the model is called.
GROWTH_WORTH_WRITING = 1_000

class Filter:
    """Usage limits for Open WebUI."""

    # Never `toggle`: it would let users switch the filter off.
    Valves = AdminValves
    UserValves = PersonalValves

    def __init__(self) -> None:
        # Open WebUI replaces the valves of this one instance before every hook, and the hooks
        # of many users interleave: each hook reads them before it first waits.
        self.valves = AdminValves()
        self._ledgers = Ledgers()
        self._last_groups = LastGroups()
        self._unasked = UnaskedModels()
        self._watches_calls: bool | None = None
        self._tells_unguarded = False
        self._guard_passthrough(serving=False)

    async def inlet(
        self,
        body: dict[str, Any],
        __user__: dict[str, Any] | None = None,
        __metadata__: dict[str, Any] | None = None,
        __model__: dict[str, Any] | None = None,
        __event_emitter__: Emitter | None = None,
        __request__: Any = None,
    ) -> dict[str, Any]:
        """Admit a request and reserve for it, or refuse it.

        Raises:
            HostLimitError: A hard limit is reached.
            HostError: The ledger is down and `on_ledger_error` is ``block``, or it got no turn in
                a crowd.
            CancelledError: The message was `/usage`, which is answered here.
        """
        valves, user, emitter = self.valves, __user__ or {}, __event_emitter__
        if not user.get("id"):
            return body
        metadata = {} if __metadata__ is None else __metadata__
        outer = outer_reply(__request__)
        if outer is not None:  # a function calls a model, as whoever it likes
            subject = outer.reservation.subject
            user = {"id": subject.user_id, "email": subject.email, "role": subject.role}
        asked = ChatRequest(valves, body, user, metadata, __model__, __request__)
        try:
            valves = await self._stored_valves(valves)
        except Exception as error:
            log.exception("Usage limits: user %s was refused without valves", user["id"])
            raise asked.unavailable() from error
        asked = replace(asked, valves=valves)
        self._guard_passthrough()  # where the app wasn't there yet when this was loaded
        try:
            keep_status(__request__)
        except Exception:
            log.exception("Usage limits: a refusal may leave as Open WebUI likes")
        # A program would get an error for an answer, so its message goes to the model.
        on_page = emitter is not None and request_source(metadata) in ("page", "temporary")
        if emitter is not None and on_page and asks_for_usage(body):
            link = valves.usage_page and has_layer()
            await answer_usage(
                valves, self._ledgers, str(user["id"]), metadata, asked.reader, link, emitter
            )
        if on_page:
            drop_answered(body)
        told = emitter is not None and not valves.shadow_mode
        try:
            if is_arena(answering_model(body, __model__)) and not valves.shadow_mode:
                # Open WebUI has chosen already, and would choose again behind all filters.
                raise HostError(400, ARENA_SENTENCE)
            draft = await Draft.of(
                asked, self.ledger_of(valves), self._last_groups, self._sees_calls()
            )
            reply, admission = await draft.ledger.accounting.admit(draft.build, told)
        except HostError:
            raise
        except Exception as error:
            # Not on record, so it may not pass: whoever could cause this would use models for free.
            log.exception("Usage limits: a request of user %s was not reserved for", user["id"])
            if valves.shadow_mode:
                return body
            raise asked.unavailable() from error
        if isinstance(admission, LedgerError):
            log.error(
                "Usage limits: %s; a request of user %s was not reserved for", admission, user["id"]
            )
            if outage_refuses(valves, reply, admission):
                reply.keeper.forget(reply)
                raise asked.unavailable() from admission
        else:
            note_in_state(LIMITS_STATE, admission.decision.states)
            if not admission.decision.allowed:
                refuse(valves, reply, admission.decision)
        metadata[METADATA_KEY] = reply
        if ADJUST_KEY not in metadata:  # it is a chat's own, within which others may be called
            current_reply.set(reply)
        if outer is not None and hasattr(outer, "calls"):  # not a reply of an earlier release
            outer.calls.append(reply)
        adjust_call(valves, reply, body, self._unasked)
        if emitter is not None and reply.reservation.source != "api":
            reply.emitter = emitter
        try:
            if emitter is not None and told and not isinstance(admission, LedgerError):
                template, linked = valves.warning_message, link_in_chat(valves, reply)
                await tell_admitted(reply, admission, template, linked, user, emitter)
        except Exception:
            # It is on record, and goes on without a word.
            log.exception("Usage limits: user %s was not told", user["id"])
        return body

    async def request(
        self, body: dict[str, Any], __metadata__: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """See every model call; refuse a tool round once the reply has crossed a hard limit.

        Raises:
            HostLimitError: A hard limit was crossed by the rounds before.
        """
        valves, reply = self.valves, find_reply(__metadata__)
        if reply is None:
            return body
        asked = ChatRequest(valves, body, {}, __metadata__ or {}, None, None)
        try:
            valves = await self._stored_valves(valves)
            later, before = reply.meter.produced, reply.prompt_tokens
            prompt_tokens = await estimate_in_thread(body) + getattr(reply, "system_tokens", 0)
            if not is_older(reply):
                reply.next_prompt_tokens = prompt_tokens
                if reply.enforced:
                    refuse(valves, reply, reply.request_decision())
            reply.begin_round(prompt_tokens)
            if not self._watches_calls:
                reply.called_model = True
            fits = not is_older(reply) and (reply.capped or reply.stops)
            worth = 0 if fits else GROWTH_WORTH_WRITING
            # After a call within it others may hold what it held.
            again = later or getattr(reply, "lent", 0) > 0
            if again or reply.prompt_tokens - before > worth:
                await check_round(valves, reply, again)
        except HostError:
            drop_round(reply)
            raise
        except LedgerError as error:
            if outage_refuses(valves, reply, error):
                drop_round(reply)
                raise asked.unavailable() from error
            log.error("Usage limits: %s; reply %s was not checked", error, reply.reservation.id)
        except Exception as error:
            log.exception("Usage limits: reply %s was not checked again", reply.reservation.id)
            if reply.enforced:
                drop_round(reply)
                raise asked.unavailable() from error
        adjust_call(valves, reply, body, self._unasked)
        return body

    def stream(
        self, event: dict[str, Any], __metadata__: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Add up what passes."""
        reply = find_reply(__metadata__)
        if reply is not None:
            reply.meter.add_event(event)
        return event

    async def outlet(
        self,
        body: dict[str, Any],
        __user__: dict[str, Any] | None = None,
        __metadata__: dict[str, Any] | None = None,
        __event_emitter__: Emitter | None = None,
    ) -> dict[str, Any]:
        """Settle the reply and show its user where the limits stand."""
        reply = find_reply(__metadata__)
        if reply is None:
            return body
        try:
            usage, text = finished_message(body)
            charge = reply.final_charge(usage, text)
            decision = await reply.keeper.end(reply, charge)
            if decision is not None and __event_emitter__ is not None:
                await tell_settled(reply, charge, decision, __user__ or {}, __event_emitter__)
        except Exception:
            log.exception("Usage limits: reply %s was not settled", reply.reservation.id)
        return body

    async def admit_call(
        self,
        valves: AdminValves,
        body: dict[str, Any],
        user: dict[str, Any],
        metadata: dict[str, Any],
        model: dict[str, Any] | None,
        request: Any,
    ) -> dict[str, Any]:
        """Admit a pass-through call as the inlet does."""
        self.valves = valves
        return await self.inlet(body, user, metadata, model, __request__=request)

    async def _stored_valves(self, valves: AdminValves) -> AdminValves:
        """The valves of a hook, or the stored ones where Open WebUI has handed over none.

        It does so too where it couldn't read them, as in a crowd for its database's connections.

        Raises:
            HostDatabaseError: They still can't be read.
        """
        function_id = function_id_of(type(self).__module__)
        if valves.model_fields_set or function_id is None or SERVER_MODULE not in sys.modules:
            return valves
        return AdminValves(**await read_valves(function_id))

    def ledger_of(self, valves: AdminValves) -> OpenLedger:
        """The ledger that these valves name."""
        if self._watches_calls is None:
            warn_about_old_host()
            self._watches_calls = watch_model_calls(find_reply, self._unasked)
            self._guard_passthrough()  # where those calls are tasks
        return self._ledgers.of(valves)

    def _sees_calls(self) -> bool:
        """Whether it is seen which replies call a model; if not, all that are admitted do."""
        return bool(self._watches_calls) or has_request_hook()

    def _guard_passthrough(self, *, serving: bool = True) -> None:
        """Put the layer around Open WebUI; without it the hooks work as before."""
        try:
            layer = put_layer(type(self).__module__, self.admit_call, self.ledger_of, self._unasked)
            if layer is not None:
                guard_tasks(layer)
                guard_images(layer)
            guarded = layer is not None or has_layer()
        except Exception:
            log.exception("Usage limits: the layer could not be put around Open WebUI")
            guarded = False
        if serving and guarded == self._tells_unguarded:
            self._tells_unguarded = not guarded
            FORM_TEXTS.note("passthrough", "" if guarded else UNGUARDED)
            if not guarded:
                log.error("Usage limits: %s", UNGUARDED)
