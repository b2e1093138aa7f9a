"""Every sentence that a user or an administrator reads, with its numbers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from string import Formatter

from helpers.decisions import LimitState
from helpers.errors import ConfigurationError
from helpers.languages import ENGLISH, Language
from helpers.quotas import Limit

PLACEHOLDERS = (
    "used",
    "limit",
    "remaining",
    "percent",
    "unit",
    "period",
    "reset_at",
    "reset_in",
    "policy",
    "model",
)
MICROS = 1_000_000


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads: a language, and the time zone of the clock on the wall."""

    zone: tzinfo
    language: Language = ENGLISH


def check_template(where: str, template: str) -> None:
    """Raise `ConfigurationError` unless every placeholder of a template is known."""
    allowed = " ".join(f"{{{name}}}" for name in PLACEHOLDERS)
    try:
        names = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise ConfigurationError(
            where, f"{template!r} ({error})", f"{allowed}, {{{{ for a brace"
        ) from None
    for name in names:
        if name not in PLACEHOLDERS:
            raise ConfigurationError(where, f"the placeholder {{{name}}}", allowed)


def format_count(count: int, language: Language) -> str:
    """A whole number with the language's marks: ``50,000``."""
    return f"{count:,}".replace(",", language.thousands)


def format_amount(limit: Limit, amount: int, language: Language = ENGLISH) -> str:
    """An amount of what a limit measures: ``50,000``, or ``$20.00``.

    Money has cents, or as many digits as the limit itself, rounded down.
    """
    if limit.measure != "cost":
        return format_count(amount, language)
    digits = max(2, len(f"{limit.amount % MICROS:06d}".rstrip("0")))
    cents = f"{amount % MICROS:06d}"[:digits]
    dollars = f"{format_count(amount // MICROS, language)}{language.decimal}{cents}"
    return language.money.format(amount=dollars)


def format_unit(limit: Limit, amount: int, language: Language = ENGLISH) -> str:
    """The unit of an amount, in the plural where that is due; nothing for money."""
    return language.units[limit.measure][amount != 1] if limit.measure != "cost" else ""


def format_quantity(limit: Limit, amount: int, language: Language = ENGLISH) -> str:
    """Amount, unit and model: ``1 token``, ``50,000 tokens on gpt-4*``, ``$20.00``."""
    unit = format_unit(limit, amount, language)
    return on_model(limit, f"{format_amount(limit, amount, language)} {unit}".strip(), language)


def on_model(limit: Limit, quantity: str, language: Language) -> str:
    """A quantity with the models that it is limited to, if it is."""
    if limit.model_glob == "*":
        return quantity
    return language.on_model.format(quantity=quantity, model=limit.model_glob)


def format_period(limit: Limit, language: Language) -> str:
    """Which period it is: ``today's``, or ``the last 5 hours'`` for a rolling one."""
    rolling = limit.period.rolling
    if rolling is None:
        return language.periods[limit.period.name]
    count, unit = int(rolling.total_seconds()) // 60, "minute"
    if count % 1_440 == 0 and count > 1_440:  # "the last day" could be yesterday
        count, unit = count // 1_440, "day"
    elif count % 60 == 0:
        count, unit = count // 60, "hour"
    return language.rolling[unit][count != 1].format(count=count)


def format_duration(duration: timedelta, language: Language = ENGLISH) -> str:
    """A duration in two units at most, rounded up: ``5 h 12 min``, ``3 d 4 h``, ``40 s``."""
    seconds = max(1, -int(-duration.total_seconds() // 1))
    if seconds < 60:
        return f"{seconds} {language.durations[3]}"
    hours, minutes = divmod(-(-seconds // 60), 60)
    days, hours = divmod(hours, 24)
    parts = tuple(zip((days, hours, minutes), language.durations, strict=False))
    first = next(index for index, (count, _) in enumerate(parts) if count)
    return " ".join(f"{count} {word}" for count, word in parts[first : first + 2] if count)


def format_instant(instant: datetime, now: datetime, reader: Reader) -> str:
    """An instant on the reader's clock: the time alone within a day, else with its date."""
    local, language = instant.astimezone(reader.zone), reader.language
    text = f"{local:%H:%M} {local:%Z}"
    # By the clock on the wall and by the time that passes: they differ where a clock is changed.
    on_the_wall = local.replace(tzinfo=None) - now.astimezone(reader.zone).replace(tzinfo=None)
    if max(on_the_wall, instant - now) <= timedelta(days=1):
        return text
    return language.dated.format(
        time=text,
        day=local.day,
        month=language.months[local.month - 1] if language.months else local.month,
        weekday=language.weekdays[local.weekday()] if language.weekdays else "",
    )


def template_values(
    state: LimitState, now: datetime, reader: Reader, model: str
) -> dict[str, str | int]:
    """The placeholders of the administrator's templates, for one limit."""
    limit, language = state.applied.limit, reader.language
    return {
        "used": format_amount(limit, state.taken, language),
        "limit": format_amount(limit, state.amount, language),
        "remaining": format_amount(limit, state.remaining, language),
        "percent": state.percent,
        "unit": on_model(limit, format_unit(limit, state.amount, language), language).strip(),
        "period": format_period(limit, language),
        "reset_at": format_instant(state.reset_at, now, reader),
        "reset_in": format_duration(state.reset_at - now, language),
        "policy": state.applied.policy or "default",
        "model": model,
    }


def sentence_values(state: LimitState, now: datetime, reader: Reader) -> dict[str, str | int]:
    """The fields of the language's own sentences, for one limit."""
    limit, language, policy = state.applied.limit, reader.language, state.applied.policy
    unit = format_unit(limit, 0, language)
    return {
        "quantity": format_quantity(limit, state.amount, language),
        "unit": on_model(limit, unit, language),
        "period": format_period(limit, language),
        "named": language.named.format(policy=policy) if policy else "",
        "policy": policy,
        "percent": state.percent,
        "used": format_amount(limit, state.taken, language),
        "left": format_amount(limit, state.remaining, language),
        "at": format_instant(state.reset_at, now, reader),
        "within": format_duration(state.reset_at - now, language),
    }


def limit_sentence(
    template: str, state: LimitState, now: datetime, reader: Reader, model: str
) -> str:
    """The refusal that a user reads at the hard limit; `template` "" for the built-in one."""
    if template.strip():
        return template.format_map(template_values(state, now, reader, model))
    language, values = reader.language, sentence_values(state, now, reader)
    money = state.applied.limit.measure == "cost"
    if state.amount == 0:
        return (language.nothing_paid if money else language.nothing).format_map(values)
    if state.is_only_held:
        return language.held.format_map(values)
    many = not money and state.amount != 1
    rolling = state.applied.limit.period.rolling is not None
    reset = (language.opens if rolling else language.resets[many]).format_map(values)
    used_up = language.pool_used_up[many] if state.applied.is_pool else language.used_up
    return used_up.format(**values, reset=reset)


def warning_sentence(
    template: str, state: LimitState, now: datetime, reader: Reader, model: str
) -> str:
    """The warning that a user reads at a soft limit; `template` "" for the built-in one."""
    if template.strip():
        return template.format_map(template_values(state, now, reader, model))
    language, values = reader.language, sentence_values(state, now, reader)
    rolling = state.applied.limit.period.rolling is not None
    until = "" if rolling else language.until.format_map(values)
    warning = language.pool_warning if state.applied.is_pool else language.warning
    return warning.format(**values, until=until)


def status_line(state: LimitState, now: datetime, reader: Reader) -> str:
    """The line over a finished reply: where the fullest limit stands."""
    language, values = reader.language, sentence_values(state, now, reader)
    rolling = state.applied.limit.period.rolling is not None
    reset = "" if rolling else language.status_reset.format_map(values)
    return (language.reached if state.exceeded else language.status).format_map(values) + reset


def cap_sentence(tokens: int, language: Language) -> str:
    """What a user reads where a reply may only be this long."""
    return language.cap[tokens != 1].format(count=format_count(tokens, language))


def alert_sentence(state: LimitState, user: str) -> str:
    """What the administrator's webhook is told."""
    limit = state.applied.limit
    crossed = "has reached" if state.exceeded else f"has used {state.percent} % of"
    named = f" ({state.applied.policy})" if state.applied.policy else ""
    return f"{user} {crossed} the limit of {limit}{named}."
