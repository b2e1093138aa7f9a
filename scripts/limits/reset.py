"""`limits reset`: as if nothing had been used yet, by grants of what has been."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from functools import partial

from helpers.errors import ConfigurationError
from helpers.ledger.grants import make_resets
from helpers.limits.limit import parse_limit
from helpers.limits.policy import AppliedLimit
from scripts.limits.grant import print_change, write_grants
from scripts.limits.target import Target, find_target
from scripts.limits.words import counted


def reset(arguments: argparse.Namespace) -> int:
    """Grant what was used, of every limit or of those that are named; print before and after."""
    now = datetime.now(UTC)
    target = find_target(arguments, now)
    limits = chosen_limits(target, arguments.limit)

    make = partial(make_resets, limits=limits, now=now)
    change = write_grants(target, limits, arguments, now, make)
    changed = sum(
        old.amount != new.amount for old, new in zip(change.before, change.after, strict=True)
    )
    done = f"Reset {changed} of {counted(len(limits), 'limit', 'limits')} of {target.name}"
    print_change(
        target,
        change,
        now,
        f"{done}." if changed else f"{done}: nothing was used.",
        rolling_until="that use grows old",
    )
    return 0


def chosen_limits(target: Target, texts: list[str]) -> tuple[AppliedLimit, ...]:
    """The limits that the texts name; all without any.

    Raises:
        ConfigurationError: There is none of that kind.
    """
    if not target.adding:
        raise ConfigurationError(
            "USER", f"{target.name} has no limit", "a user or pool with limits"
        )
    named = [
        applied
        for text in texts
        for applied in target.matching(parse_limit(text, "LIMIT"), "LIMIT", text)
    ]
    return tuple(dict.fromkeys(named)) or target.adding
