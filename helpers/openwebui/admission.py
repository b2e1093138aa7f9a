"""From a request to a reply: whose limits count, and how much is reserved."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from helpers.ledger.records import Reservation
from helpers.limits.periods import find_timezone
from helpers.limits.policies import ModelRule
from helpers.limits.policy import (
    AppliedLimit,
    Subject,
    applied_limits,
    choose_policy,
    find_model_rule,
)
from helpers.metering.estimates import estimate_prompt
from helpers.openwebui.languages.catalog import LONGEST_LANGUAGE_TAG, choose_language
from helpers.openwebui.messages import Reader
from helpers.openwebui.replies import Reply, ReplyKeeper, count_choices, wanted_output
from helpers.openwebui.valves import AdminValves, read_timezone
from helpers.texts import LONGEST_ID, clean_text

LONGEST_TIMEZONE = 100
UNCOUNTED = ModelRule("*", weight=Decimal(0))


def is_exempt(valves: AdminValves, subject: Subject) -> bool:
    """Whether a user is recorded but never refused."""
    return valves.exempt_admins and subject.role == "admin"


def count_limits(
    valves: AdminValves, subject: Subject, model_names: tuple[str, ...], now: datetime
) -> tuple[AppliedLimit, ...]:
    """The limits that count for a request; none for an exempt user or a free model."""
    policies = valves.policy_set
    if is_exempt(valves, subject) or find_model_rule(policies, model_names).weight == 0:
        return ()
    policy = choose_policy(subject, policies, valves.default_policy, valves.multiple_groups)
    return applied_limits(subject, policy, policies, model_names, now, valves.calendar_rules)


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
    keeper: ReplyKeeper,
    valves: AdminValves,
    subject: Subject,
    user: Mapping[str, Any],
    body: Mapping[str, Any],
    metadata: Mapping[str, Any],
    model_names: tuple[str, ...],
    source: str,
    now: datetime,
    *,
    ollama: bool,
    own_provider: bool,
) -> Reply:
    """Everything that is known of a reply before it is admitted.

    A reply over a direct connection uses its user's own provider, and its usage comes from the
    browser: it is on record, and counts toward nothing.
    """
    policies = valves.policy_set
    policy = choose_policy(subject, policies, valves.default_policy, valves.multiple_groups)
    prompt_tokens, stops = estimate_prompt(body), valves.running_replies == "stop"
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
