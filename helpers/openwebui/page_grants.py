"""Grants on the page: what administrators add to limits, begin anew and take back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Connection

from helpers.errors import ConfigurationError
from helpers.ledger.grants import (
    Change,
    NewGrant,
    add_grants,
    find_grant,
    grant_end,
    make_resets,
    revoke_grant,
)
from helpers.limits.amounts import NotationError, read_count, read_dollars
from helpers.limits.limit import Limit, Measure, parse_limit
from helpers.limits.periods import quoted_text
from helpers.limits.policy import AppliedLimit
from helpers.openwebui.page_answers import PageError
from helpers.openwebui.page_data import PageData, PageRequest
from helpers.openwebui.page_limits import Json, amount_number, iso_instant, iso_second
from helpers.texts import LONGEST_ID, LONGEST_NAME, clean_text

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
