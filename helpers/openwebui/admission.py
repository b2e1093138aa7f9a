"""From a request to a reply: whose limits count, how much is reserved, what a refusal says."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any

from helpers.errors import LedgerBusyError, LedgerError, UsageLimitExceeded
from helpers.ledger.records import Reservation
from helpers.limits.decisions import Decision
from helpers.limits.periods import find_timezone
from helpers.limits.policies import ModelRule
from helpers.limits.policy import (
    GroupRef,
    Subject,
    called_model,
    choose_policy,
    find_model_rule,
    limits_via,
)
from helpers.logs import log
from helpers.metering.estimates import estimate_prompt, estimate_tokens
from helpers.openwebui.host import (
    GroupQueries,
    HostError,
    HostLimitError,
    add_lengths,
    answering_model,
    fill_system_prompt,
    group_queries,
    is_function,
    is_ollama_model,
    is_users_own,
    list_groups,
    list_model_names,
    make_subject,
    other_models,
    read_groups,
    read_settings,
    request_source,
    uses_own_provider,
    with_base,
)
from helpers.openwebui.http_requests import SOURCE_STATE, current_state
from helpers.openwebui.languages.catalog import LONGEST_LANGUAGE_TAG, choose_language
from helpers.openwebui.languages.en import ENGLISH
from helpers.openwebui.ledgers import OpenLedger
from helpers.openwebui.messages import (
    BACKGROUND_SENTENCE,
    FALLBACK_SENTENCE,
    PLAIN_REFUSAL,
    Reader,
    finish_sentence,
    limit_sentence,
)
from helpers.openwebui.middleware import page_link
from helpers.openwebui.model_calls import unasked_name
from helpers.openwebui.passthrough_guard import ADJUST_KEY
from helpers.openwebui.replies import Reply, count_choices, is_older, outer_reply, wanted_output
from helpers.openwebui.stream_usage import ASK_FOR_USAGE, UnaskedModels
from helpers.openwebui.valves import AdminValves, count_limits, is_exempt, read_timezone
from helpers.texts import LONGEST_ID, clean_text

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
