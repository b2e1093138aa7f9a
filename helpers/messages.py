"""Every sentence that a user or an administrator reads."""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo
from string import Formatter

from helpers.decisions import LimitState
from helpers.errors import ConfigurationError
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
CALENDAR_PHRASES = {
    "minute": "this minute's",
    "hour": "this hour's",
    "day": "today's",
    "week": "this week's",
    "month": "this month's",
}
MICROS = 1_000_000
# Where the administrator chose to refuse while the ledger is down.
LEDGER_ERROR_SENTENCE = (
    "Usage can't be recorded at the moment, so no requests are accepted. Please try again later."
)


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


def format_amount(limit: Limit, amount: int) -> str:
    """An amount of what a limit measures: ``50,000``, or ``$20.00``.

    Money has cents, or as many digits as the limit itself, rounded down.
    """
    if limit.measure != "cost":
        return f"{amount:,}"
    digits = max(2, len(f"{limit.amount % MICROS:06d}".rstrip("0")))
    return f"${amount // MICROS:,}.{amount % MICROS:06d}"[: digits - 6 or None]


def format_unit(limit: Limit, amount: int) -> str:
    """The unit of an amount, in the plural where that is due; a model glob included."""
    words = {
        "tokens": "token",
        "input_tokens": "input token",
        "output_tokens": "output token",
        "requests": "request",
        "cost": "",
    }
    word = words[limit.measure]
    if word and amount != 1:
        word += "s"
    return word if limit.model_glob == "*" else f"{word} on {limit.model_glob}".strip()


def format_quantity(limit: Limit, amount: int) -> str:
    """Amount and unit: ``1 token``, ``50,000 tokens on gpt-4*``, ``$20.00``."""
    return f"{format_amount(limit, amount)} {format_unit(limit, amount)}".strip()


def format_period(limit: Limit) -> str:
    """Whose amount it is: ``today's``, or ``the last 5 hours'`` for a rolling period."""
    rolling = limit.period.rolling
    if rolling is None:
        return CALENDAR_PHRASES[limit.period.name]
    minutes = int(rolling.total_seconds()) // 60
    if minutes % 1_440 == 0 and minutes > 1_440:  # "the last day" could be yesterday
        count, word = minutes // 1_440, "day"
    elif minutes % 60 == 0:
        count, word = minutes // 60, "hour"
    else:
        count, word = minutes, "minute"
    return f"the last {word}'s" if count == 1 else f"the last {count} {word}s'"


def format_duration(duration: timedelta) -> str:
    """A duration in two units at most, rounded up: ``5 h 12 min``, ``3 d 4 h``, ``40 s``."""
    seconds = max(1, -int(-duration.total_seconds() // 1))
    if seconds < 60:
        return f"{seconds} s"
    minutes = -(-seconds // 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = ((days, "d"), (hours, "h"), (minutes, "min"))
    first = next(index for index, (count, _) in enumerate(parts) if count)
    return " ".join(f"{count} {word}" for count, word in parts[first : first + 2] if count)


def format_instant(instant: datetime, now: datetime, zone: tzinfo) -> str:
    """An instant in the reader's zone: the time alone within a day, else with its date."""
    local = instant.astimezone(zone)
    text = f"{local:%H:%M} {local:%Z}"
    if local - now.astimezone(zone) > timedelta(days=1):
        return f"{text} on {local:%A}, {local.day} {local:%B}"
    return text


def message_values(
    state: LimitState, now: datetime, zone: tzinfo, model: str
) -> dict[str, str | int]:
    """The placeholders of the templates, for one limit."""
    limit = state.applied.limit
    return {
        "used": format_amount(limit, state.taken),
        "limit": format_amount(limit, state.amount),
        "remaining": format_amount(limit, state.remaining),
        "percent": state.percent,
        "unit": format_unit(limit, state.amount),
        "period": format_period(limit),
        "reset_at": format_instant(state.reset_at, now, zone),
        "reset_in": format_duration(state.reset_at - now),
        "policy": state.applied.policy or "default",
        "model": model,
    }


def limit_sentence(
    template: str, state: LimitState, now: datetime, zone: tzinfo, model: str
) -> str:
    """The refusal that a user reads at the hard limit; `template` "" for the built-in one."""
    values = message_values(state, now, zone, model)
    if template.strip():
        return template.format_map(values)
    limit, policy = state.applied.limit, state.applied.policy
    named = f" ({policy})" if policy else ""
    if state.amount == 0:
        unit = format_unit(limit, 0) if limit.measure != "cost" else "models that cost money"
        return f"No {unit} may be used here{named}."
    quantity = format_quantity(limit, state.amount)
    if state.is_only_held:
        return (
            f"The rest of {values['period']} {quantity}{named} is held by replies that are "
            "still running. Please try again when they are done."
        )
    one = limit.measure == "cost" or state.amount == 1
    who = (
        f"All of {values['period']} {quantity} shared by {policy} {'is' if one else 'are'} used."
        if state.applied.is_pool
        else f"You have used all of {values['period']} {quantity}{named}."
    )
    opens = "You can go on"
    if limit.period.rolling is None:
        opens = "It resets" if one else "They reset"
    return f"{who} {opens} at {values['reset_at']}, in {values['reset_in']}."


def warning_sentence(
    template: str, state: LimitState, now: datetime, zone: tzinfo, model: str
) -> str:
    """The warning that a user reads at a soft limit; `template` "" for the built-in one."""
    values = message_values(state, now, zone, model)
    if template.strip():
        return template.format_map(values)
    limit = state.applied.limit
    share = f" shared by {state.applied.policy}" if state.applied.is_pool else ""
    sentence = (
        f"{values['percent']} % of {values['period']} {format_quantity(limit, state.amount)}"
        f"{share} used; {format_amount(limit, state.remaining)} left"
    )
    if limit.period.rolling is None:
        return f"{sentence} until {values['reset_at']}."
    return f"{sentence}."


def alert_sentence(state: LimitState, user: str) -> str:
    """What the administrator's webhook is told."""
    limit = state.applied.limit
    crossed = "has reached" if state.exceeded else f"has used {state.percent} % of"
    named = f" ({state.applied.policy})" if state.applied.policy else ""
    return f"{user} {crossed} the limit of {limit}{named}."


def cap_sentence(tokens: int) -> str:
    """What a user reads where a reply may only be this long."""
    return f"This reply can have {tokens:,} {'token' if tokens == 1 else 'tokens'} at most."


def status_line(state: LimitState, now: datetime, zone: tzinfo) -> str:
    """The line over a finished reply: where the fullest limit stands."""
    limit = state.applied.limit
    line = (
        f"Usage: {format_amount(limit, state.taken)} of {format_period(limit)} "
        f"{format_quantity(limit, state.amount)} ({state.percent} %)"
    )
    if limit.period.rolling is None:
        line += f", reset at {format_instant(state.reset_at, now, zone)}"
    return line
