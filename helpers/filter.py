"""The filter: Open WebUI's hooks, and nothing but hooks."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

from helpers.errors import LedgerError
from helpers.logs import log
from helpers.openwebui.admission import (
    ChatRequest,
    Draft,
    LastGroups,
    adjust_call,
    check_round,
    estimate_in_thread,
    link_in_chat,
    outage_refuses,
    refuse,
)
from helpers.openwebui.answers import keep_status
from helpers.openwebui.chat_events import tell_admitted, tell_settled
from helpers.openwebui.host import (
    HostError,
    answering_model,
    finished_message,
    has_request_hook,
    is_arena,
    read_valves,
    request_source,
    warn_about_old_host,
)
from helpers.openwebui.http_requests import LIMITS_STATE, note_in_state
from helpers.openwebui.image_calls import guard_images
from helpers.openwebui.ledgers import Ledgers, OpenLedger
from helpers.openwebui.messages import ARENA_SENTENCE, UNGUARDED
from helpers.openwebui.middleware import function_id_of, has_layer, put_layer
from helpers.openwebui.model_calls import watch_model_calls
from helpers.openwebui.page_status import SERVER_MODULE
from helpers.openwebui.passthrough_guard import ADJUST_KEY
from helpers.openwebui.replies import (
    METADATA_KEY,
    Emitter,
    current_reply,
    drop_round,
    find_reply,
    is_older,
    outer_reply,
)
from helpers.openwebui.stream_usage import UnaskedModels
from helpers.openwebui.task_calls import guard_tasks
from helpers.openwebui.usage_command import answer_usage, asks_for_usage, drop_answered
from helpers.openwebui.valves import FORM_TEXTS, AdminValves, PersonalValves

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
