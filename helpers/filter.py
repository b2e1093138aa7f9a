"""The filter: Open WebUI's hooks, and nothing but hooks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection

from helpers.errors import LedgerError, UsageLimitExceeded
from helpers.ledger.identities import IdentityMemory, form_note
from helpers.ledger.ledger import Admission
from helpers.limits.decisions import Decision, LimitState
from helpers.limits.policy import GroupRef, limits_via
from helpers.logs import log
from helpers.metering.charges import Charge
from helpers.metering.estimates import estimate_prompt
from helpers.openwebui.accounting import Accounting
from helpers.openwebui.admission import build_reply, count_limits, find_reader
from helpers.openwebui.answers import keep_status
from helpers.openwebui.host import (
    HostError,
    HostLimitError,
    finished_message,
    group_queries,
    has_request_hook,
    host_engine,
    host_reader,
    host_version,
    is_host_engine,
    is_ollama_model,
    list_groups,
    list_model_ids,
    list_model_names,
    make_subject,
    read_groups,
    read_host_names,
    request_source,
    save_answer,
    uses_own_provider,
    warn_about_old_host,
)
from helpers.openwebui.host_versions import STATUS_KEPT_VERSION
from helpers.openwebui.http_requests import (
    LIMITS_STATE,
    SOURCE_STATE,
    current_state,
    note_in_state,
)
from helpers.openwebui.languages.en import ENGLISH
from helpers.openwebui.messages import (
    PLAIN_REFUSAL,
    UNGUARDED,
    cap_sentence,
    finish_sentence,
    limit_sentence,
    own_use_line,
    status_line,
    stopped_sentence,
    warning_sentence,
)
from helpers.openwebui.middleware import has_layer, page_link, put_layer
from helpers.openwebui.model_calls import unasked_name, watch_model_calls
from helpers.openwebui.page_data import PageData
from helpers.openwebui.passthrough_guard import ADJUST_KEY
from helpers.openwebui.replies import EXPECTED_OUTPUT_TOKENS, METADATA_KEY, Reply
from helpers.openwebui.stream_usage import ASK_FOR_USAGE, UnaskedModels
from helpers.openwebui.task_calls import guard_tasks
from helpers.openwebui.usage_command import asks_for_usage, usage_markdown
from helpers.openwebui.valves import AdminValves, PersonalValves

# A prompt that retrieval made longer than this is written down before the model is called.
GROWTH_WORTH_WRITING = 1_000
LEDGER_ERROR_RETRY_SECONDS = 60
# When to try again where replies still running hold what is left.
HELD_RETRY_SECONDS = 10
MOST_REMEMBERED_USERS = 10_000
# Ordinary replies stay below it, so a higher cap is not worth a line.
CAP_WORTH_SAYING = 4_000

Emitter = Callable[[dict[str, Any]], Awaitable[None]]


def is_older(reply: object) -> bool:
    """Whether a reply was admitted by an earlier paste, which knew no limits on single requests."""
    return not hasattr(reply, "request_decision")


class Filter:
    """Usage limits for Open WebUI."""

    # Never `toggle`: it would let users switch the filter off.
    Valves = AdminValves
    UserValves = PersonalValves

    def __init__(self) -> None:
        # Open WebUI replaces the valves of this one instance before every hook, and the hooks
        # of many users interleave: each hook reads them before it first waits.
        self.valves = AdminValves()
        self._accountings: dict[str, Accounting] = {}
        self._memories: dict[str, IdentityMemory] = {}
        self._unasked = UnaskedModels()
        self._watches_calls = False
        self._last_groups: dict[str, tuple[GroupRef, ...]] = {}
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
            HostError: The ledger is down and `on_ledger_error` is ``block``.
            CancelledError: The message was `/usage`, which is answered here.
        """
        valves, user = self.valves, __user__ or {}
        if not user.get("id"):
            return body
        metadata = {} if __metadata__ is None else __metadata__
        self._guard_passthrough()  # where the app wasn't there yet when this was loaded
        if host_version() < STATUS_KEPT_VERSION:
            keep_status(__request__)
        if __event_emitter__ is not None and asks_for_usage(body):
            await self._answer_usage(valves, user, metadata, __event_emitter__)
        try:
            accounting = self._accounting(valves)
            build = await self._draft(
                accounting, valves, body, user, metadata, __model__, __request__
            )
            told = __event_emitter__ is not None and not valves.shadow_mode
            reply, admission = await accounting.admit(build, told)
        except Exception as error:
            # Not on record, so it may not pass: whoever could cause this would use models for free.
            log.exception("Usage limits: a request of user %s was not reserved for", user["id"])
            if valves.shadow_mode:
                return body
            raise self._unavailable(valves, user, metadata) from error
        if isinstance(admission, LedgerError):
            self._let_through(valves, user, metadata, reply, admission)
        else:
            note_in_state(LIMITS_STATE, admission.decision.states)
            if not admission.decision.allowed:
                self._refuse(valves, reply, admission.decision)
        metadata[METADATA_KEY] = reply
        self._adjust(valves, reply, body)
        if __event_emitter__ is not None and reply.reservation.source != "api":
            reply.tell_stop = partial(self._tell_stopped, reply, __event_emitter__)
        try:
            if isinstance(admission, Admission) and __event_emitter__ is not None and told:
                await self._tell(valves, reply, admission, user, __event_emitter__)
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
        valves, reply = self.valves, self._reply_of(__metadata__)
        if reply is None:
            return body
        try:
            later, before = reply.meter.produced, reply.prompt_tokens
            prompt_tokens = estimate_prompt(body)
            if not is_older(reply):
                reply.next_prompt_tokens = prompt_tokens
                if reply.enforced:
                    self._refuse(valves, reply, reply.request_decision())
            reply.begin_round(prompt_tokens)
            if not self._watches_calls:
                reply.called_model = True
            fits = not is_older(reply) and (reply.capped or reply.stops)
            worth = 0 if fits else GROWTH_WORTH_WRITING
            if later or reply.prompt_tokens - before > worth:
                await self._begin_round(valves, reply, later)
        except HostError:
            reply.meter.drop_round()
            raise
        except LedgerError as error:
            if reply.enforced and valves.on_ledger_error == "block":
                reply.meter.drop_round()
                raise self._unavailable(valves, {}, __metadata__ or {}) from error
            log.error("Usage limits: %s; reply %s was not checked", error, reply.reservation.id)
        except Exception as error:
            log.exception("Usage limits: reply %s was not checked again", reply.reservation.id)
            if reply.enforced:
                reply.meter.drop_round()
                raise self._unavailable(valves, {}, __metadata__ or {}) from error
        self._adjust(valves, reply, body)
        return body

    def stream(
        self, event: dict[str, Any], __metadata__: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Add up what passes."""
        reply = self._reply_of(__metadata__)
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
        reply = self._reply_of(__metadata__)
        if reply is None:
            return body
        try:
            usage, text = finished_message(body)
            charge = reply.final_charge(usage, text)
            decision = await reply.keeper.end(reply, charge)
            if decision is not None:
                await self._show_usage(reply, charge, decision, __user__ or {}, __event_emitter__)
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

    def _guard_passthrough(self, *, serving: bool = True) -> None:
        """Put the layer around Open WebUI; without it the hooks work as before."""
        try:
            layer = put_layer(type(self).__module__, self.admit_call, self.ledger_of, self._unasked)
            if layer is not None:
                guard_tasks(layer)
            guarded = layer is not None or has_layer()
        except Exception:
            log.exception("Usage limits: the layer could not be put around Open WebUI")
            guarded = False
        if serving and guarded == self._tells_unguarded:
            self._tells_unguarded = not guarded
            AdminValves.note("passthrough", "" if guarded else UNGUARDED)
            if not guarded:
                log.error("Usage limits: %s", UNGUARDED)

    @staticmethod
    def _reply_of(metadata: Mapping[str, Any] | None) -> Reply | None:
        reply = metadata.get(METADATA_KEY) if metadata else None
        # Not isinstance: the file may have been pasted anew while the reply was running. What
        # came from a client would be made of JSON's types.
        return None if isinstance(reply, (dict, list, str, int, float)) else reply

    def _accounting(self, valves: AdminValves) -> Accounting:
        accounting = self._accountings.get(valves.database_url)
        if accounting is None:
            warn_about_old_host()
            self._watches_calls = watch_model_calls(self._reply_of, self._unasked)
            self._guard_passthrough()  # where those calls are tasks
            engine, schema = host_engine(valves.database_url)
            accounting = Accounting(engine, schema, own_engine=not is_host_engine(engine))
            self._accountings[valves.database_url] = accounting
        accounting.retention_seconds = valves.retention_seconds
        return accounting

    async def _draft(
        self,
        accounting: Accounting,
        valves: AdminValves,
        body: dict[str, Any],
        user: dict[str, Any],
        metadata: dict[str, Any],
        model: dict[str, Any] | None,
        request: Any,
    ) -> Callable[[], Reply | tuple[Reply, LedgerError]]:
        """What makes the reply; it reads its user's groups, which blocks."""
        own_provider, now = uses_own_provider(request, body), datetime.now(UTC)
        # Where the ledger has a database of its own, Open WebUI has to read its groups itself.
        queries = None if valves.database_url else group_queries()
        listed = await list_groups(user["id"]) if queries is None else ()

        memory = self._identity_memory(valves, accounting)
        state = current_state.get()
        state = {} if state is None else state
        caller = str(state.get(SOURCE_STATE, ""))

        def build() -> Reply | tuple[Reply, LedgerError]:
            groups, error = listed, None
            if queries is not None:
                try:
                    groups = accounting.read(
                        partial(read_groups, queries=queries, user_id=user["id"])
                    )
                    self._note_groups(user["id"], groups)
                except LedgerError as unread:
                    # What is written down later counts for the pools that it counted for last.
                    groups, error = self._last_groups.get(user["id"], ()), unread
            subject = make_subject(user, groups)
            try:
                subject = memory.recall(valves.policy_set, subject)
            except LedgerError as unread:
                error = unread
            reply = build_reply(
                accounting,
                valves,
                subject,
                user,
                body,
                metadata,
                list_model_names(body, model, metadata, request),
                request_source(metadata, own_provider, request, user["id"], caller),
                now,
                ollama=is_ollama_model(model),
                own_provider=own_provider,
            )
            # Before a pass-through path says more.
            state.setdefault(SOURCE_STATE, reply.reservation.source)
            # Where nobody tells of calls, every admitted request is taken to reach the model.
            reply.called_model = not (self._watches_calls or has_request_hook())
            # A pass-through path's; what a client sends is made of JSON.
            adjust = metadata.get(ADJUST_KEY)
            if callable(adjust):
                adjust(reply)
            reply.limits = limits_via(reply.limits, reply.reservation.source)
            return reply if error is None else (reply, error)

        return build

    async def _answer_usage(
        self,
        valves: AdminValves,
        user: dict[str, Any],
        metadata: dict[str, Any],
        emitter: Emitter,
    ) -> None:
        """Answer `/usage` in a chat, and end the request as its user's stop button would.

        A program would get an error for that, so its message goes to the model like any other.

        Raises:
            CancelledError: It is answered.
        """
        if request_source(metadata) not in ("page", "temporary"):
            return
        reader = find_reader(valves, user, metadata)
        try:
            data = PageData(valves, *self.ledger_of(valves), datetime.now(UTC))
            link = valves.usage_page and has_layer()
            text = await asyncio.to_thread(usage_markdown, data, str(user["id"]), reader, link)
        except Exception:
            log.exception("Usage limits: the use of user %s can't be shown", user["id"])
            text = finish_sentence(reader.language.ledger_error, reader.language)
        try:
            await self._emit(emitter, {"type": "replace", "data": {"content": text}})
            await self._emit(
                emitter, {"type": "chat:completion", "data": {"done": True, "content": text}}
            )
            await save_answer(metadata, text)
        except Exception:
            log.warning("Usage limits: an answer to /usage was not saved", exc_info=True)
        raise asyncio.CancelledError

    def _note_groups(self, user_id: str, groups: tuple[GroupRef, ...]) -> None:
        """Remember a user's groups for the time of an outage, of the latest users only."""
        self._last_groups.pop(user_id, None)
        self._last_groups[user_id] = groups
        while len(self._last_groups) > MOST_REMEMBERED_USERS:
            with suppress(StopIteration, KeyError, RuntimeError):  # another thread did
                self._last_groups.pop(next(iter(self._last_groups)))

    def _adjust(self, valves: AdminValves, reply: Reply, body: dict[str, Any]) -> None:
        """Ask the provider for usage, and for no more output than may be used."""
        if not is_older(reply):
            reply.lower_output(body)
        if self._unasked.has(unasked_name(reply, body), body):
            return
        if valves.request_stream_usage and body.get("stream"):
            options = body.get("stream_options")
            asked = options if isinstance(options, dict) else {}
            body["stream_options"] = {**asked, **ASK_FOR_USAGE}

    def _let_through(
        self,
        valves: AdminValves,
        user: dict[str, Any],
        metadata: dict[str, Any],
        reply: Reply,
        error: LedgerError,
    ) -> None:
        """Log that a request passes which could not be reserved for, or refuse it."""
        log.error("Usage limits: %s; a request of user %s was not reserved for", error, user["id"])
        if reply.enforced and valves.on_ledger_error == "block":
            reply.keeper.forget(reply)
            raise self._unavailable(valves, user, metadata) from error

    @staticmethod
    def _unavailable(
        valves: AdminValves, user: dict[str, Any], metadata: dict[str, Any]
    ) -> HostError:
        """The refusal of what can't be put on record."""
        try:
            language = find_reader(valves, user, metadata).language
        except Exception:
            log.exception("Usage limits: the language of a user could not be told")
            language = ENGLISH
        sentence = finish_sentence(language.ledger_error, language)
        return HostError(503, sentence, LEDGER_ERROR_RETRY_SECONDS)

    async def _tell(
        self,
        valves: AdminValves,
        reply: Reply,
        admission: Admission,
        user: dict[str, Any],
        emitter: Emitter,
    ) -> None:
        """Show what was decided about an admitted reply, as far as it is worth a line."""
        for state in admission.warnings:
            await self._warn(valves, reply, state, user, emitter)
        most = reply.most_output()
        worth = EXPECTED_OUTPUT_TOKENS if reply.output_cap is None else CAP_WORTH_SAYING
        if most is not None and most < worth:
            await self._emit_status(emitter, cap_sentence(most, reply.reader.language))

    def _refuse(self, valves: AdminValves, reply: Reply, decision: Decision) -> None:
        """Raise for the limit that refuses; in shadow mode only log it."""
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
        if reply.enforced:
            now, model = datetime.now(UTC), reply.reservation.model_names[0]
            try:
                sentence = limit_sentence(valves.limit_message, state, now, reply.reader, model)
                seen = reply.reservation.source in ("page", "temporary")
                if seen and state.amount and valves.usage_page and not valves.limit_message:
                    sentence += page_link()
            except Exception:
                # A refusal whose sentence can't be made is still a refusal.
                log.exception("Usage limits: the sentence of a refusal could not be made")
                sentence = PLAIN_REFUSAL
            wait = (state.reset_at - now).total_seconds()
            if state.is_only_held:
                wait = min(wait, HELD_RETRY_SECONDS)
            raise HostLimitError(UsageLimitExceeded(sentence, state.reset_at, wait))

    async def _begin_round(self, valves: AdminValves, reply: Reply, later: bool) -> None:
        """Write down what another round needs, or what retrieval has added to the first.

        A later one is refused if the limits are reached with what this reply has used.
        """
        if not reply.rule.weight:  # a free model's, or over its user's own provider
            return
        subject, names = reply.reservation.subject, reply.reservation.model_names
        applying = limits_via(
            count_limits(valves, subject, names, datetime.now(UTC)), reply.reservation.source
        )
        limits = [one for one in applying if not one.limit.is_moment]
        keeper: Any = reply.keeper
        # A reply that began before 0.2.0 was pasted is kept as it was then.
        ask = keeper.grow if hasattr(keeper, "grow") else keeper.check
        decision = await ask(reply, limits)
        if later:
            if (stopped_at := getattr(reply, "refused_by", None)) and reply.stopped:
                stopped_at = replace(stopped_at, used=max(stopped_at.used, stopped_at.amount))
                self._refuse(valves, reply, Decision((stopped_at,)))
            self._refuse(valves, reply, decision.with_running(reply.used_charge().counted))

    async def _tell_stopped(self, reply: Reply, emitter: Emitter, state: LimitState) -> None:
        """Say in the chat why a response ends before its end."""
        measure, used = state.applied.limit.measure, reply.used_charge().counted
        state = replace(state, used=state.used + used.of(measure))
        sentence = stopped_sentence(state, datetime.now(UTC), reply.reader)
        await self._emit_status(emitter, sentence)

    async def _warn(
        self,
        valves: AdminValves,
        reply: Reply,
        state: LimitState,
        user: dict[str, Any],
        emitter: Emitter,
    ) -> None:
        now, model = datetime.now(UTC), reply.reservation.model_names[0]
        sentence = warning_sentence(valves.warning_message, state, now, reply.reader, model)
        toast = {"type": "warning", "content": sentence}
        await self._emit(emitter, {"type": "notification", "data": toast})
        if self._show_usage_wish(user) != "never":
            await self._emit_status(emitter, sentence)

    async def _show_usage(
        self,
        reply: Reply,
        charge: Charge | None,
        decision: Decision,
        user: dict[str, Any],
        emitter: Emitter | None,
    ) -> None:
        """The status line of a finished reply, as the user wishes to see it."""
        state, wish, now = decision.fullest, self._show_usage_wish(user), datetime.now(UTC)
        if emitter is None or reply.reservation.source == "api" or not reply.enforced:
            return
        if getattr(reply, "stopped", False):
            return
        if wish == "always" and charge is not None:
            tokens = charge.input_tokens + charge.output_tokens
            line = own_use_line(tokens, charge.cost_micros, state, now, reply.reader)
            await self._emit_status(emitter, line)
        elif state is not None and wish == "near_limit":
            near = state.crossed_threshold(reply.soft_limit_percent) is not None
            if near:
                await self._emit_status(emitter, status_line(state, now, reply.reader))

    @staticmethod
    def _show_usage_wish(user: dict[str, Any]) -> str:
        return str(getattr(user.get("valves"), "show_usage", "near_limit"))

    async def _emit_status(self, emitter: Emitter, sentence: str) -> None:
        await self._emit(
            emitter, {"type": "status", "data": {"description": sentence, "done": True}}
        )

    @staticmethod
    async def _emit(emitter: Emitter, event: dict[str, Any]) -> None:
        try:
            await emitter(event)
        except Exception:
            # A browser that has gone away must not cost the reply.
            log.warning("Usage limits: a message could not be shown", exc_info=True)

    def ledger_of(
        self, valves: AdminValves
    ) -> tuple[Accounting, IdentityMemory, Callable[[Callable[[Connection], Any]], Any]]:
        """The ledger, whom the policies mean, and what reads Open WebUI's own database."""
        accounting = self._accounting(valves)
        memory = self._identity_memory(valves, accounting)
        return accounting, memory, host_reader().read if valves.database_url else accounting.read

    def _identity_memory(self, valves: AdminValves, accounting: Accounting) -> IdentityMemory:
        """Whom the policies mean, as this ledger remembers it; what is amiss shows in the form."""
        memory = self._memories.get(valves.database_url)
        if memory is None:
            read = host_reader().read if valves.database_url else accounting.read
            memory = self._memories[valves.database_url] = accounting.remember_identities(
                lambda ids, addresses: read(
                    partial(read_host_names, user_ids=ids, addresses=addresses)
                ),
                list_model_ids,
                lambda notices: self.Valves.note("policies", form_note(notices)),
            )
        return memory
