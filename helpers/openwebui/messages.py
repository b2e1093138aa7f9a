"""Every sentence that a user or an administrator reads, with its numbers."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta, tzinfo
from functools import lru_cache
from string import Formatter

from helpers.errors import ConfigurationError
from helpers.limits.decisions import LimitState
from helpers.limits.limit import Limit
from helpers.openwebui.languages.catalog import LANGUAGES
from helpers.openwebui.languages.en import ENGLISH
from helpers.openwebui.wording import ISOLATED, RIGHT_TO_LEFT, Language
from helpers.texts import shortened

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
