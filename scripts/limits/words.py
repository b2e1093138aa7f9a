"""Policies in words, for the administrators' commands."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, tzinfo
from decimal import Decimal

from helpers.ledger.identities import spelled_like
from helpers.limits.limit import Limit
from helpers.limits.policies import ModelRule, Policy, PolicySet
from helpers.limits.policies_text import table_header
from helpers.openwebui.messages import (
    Reader,
    format_duration,
    format_instant,
    on_model,
    plain_quantity,
)


def header(policy: Policy) -> str:
    """The table that a policy comes from."""
    return "" if policy.kind == "default" else table_header(policy.kind, policy.name)


def number(value: Decimal | None) -> str:
    """A price or weight without a tail of zeros."""
    return "" if value is None else f"{value.normalize():,f}"


def limits_text(limits: tuple[Limit, ...] | None) -> str:
    """Limits, one on each line."""
    return "unlimited" if limits is None else "\n".join(map(describe_limit, limits))


def quantity_text(limit: Limit) -> str:
    """Amount, unit, model and source: ``50,000 tokens on gpt-4* via the API``, ``$20.00``."""
    return plain_quantity(limit, limit.amount) + on_model(limit)


def describe_limit(limit: Limit) -> str:
    """A limit in words: ``5,000 tokens on gpt-4* per day, warning at 70% and 90%``."""
    every = "per " if limit.period.rolling is None else "in any "
    every = "" if limit.is_at_once else every
    text = f"{quantity_text(limit)} {every}{limit.period.name}"
    if limit.warn_percents:
        text += ", warning at " + " and ".join(f"{percent}%" for percent in limit.warn_percents)
    return text


def describe_reset(limit: Limit, end: datetime, now: datetime, zone: tzinfo) -> str:
    """When a limit starts anew: at an instant, or by the nature of it."""
    if limit.is_moment:
        return "as each reply ends" if limit.is_at_once else "with each request"
    return f"{format_instant(end, now, Reader(zone))}, in {format_duration(end - now)}"


def describe_model(rule: ModelRule) -> str:
    """How a model counts and what it costs, in words."""
    weight = "free (weight 0)" if rule.weight == 0 else f"weight {number(rule.weight)}"
    prices = [
        f"{name} ${number(price)}"
        for name, price in (("input", rule.input_price), ("output", rule.output_price))
        if price is not None
    ]
    return f"{weight}; {', '.join(prices)} per million tokens" if prices else weight


def count_tables(policies: PolicySet) -> str:
    """How many tables of each kind there are."""
    counts = {
        "group": len(policies.groups),
        "role": len(policies.roles),
        "user": len(policies.users),
        "pool": len(policies.pools),
        "model": len(policies.models),
    }
    found = [f"{count} {kind}{'s' * (count != 1)}" for kind, count in counts.items() if count]
    return ", ".join(found) or "no tables at all"


def counted(count: int, one: str, many: str) -> str:
    """A number with its noun."""
    return f"{count:,} {one if count == 1 else many}"


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """What an error adds about the known name that is spelled like the one given; "" for none."""
    return spelled_like(given, {name for name in known if name}).rstrip(".")
