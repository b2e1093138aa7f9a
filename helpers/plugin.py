"""The filter: Open WebUI's hooks, and nothing but hooks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from helpers.admission import build_reply, count_limits, find_reader
from helpers.bookkeeper import Bookkeeper
from helpers.decisions import Decision, LimitState
from helpers.errors import LedgerError, UsageLimitExceeded
from helpers.estimates import estimate_prompt
from helpers.host import (
    HostError,
    HostLimitError,
    api_outlets_enabled,
    finished_message,
    group_queries,
    has_request_hook,
    host_engine,
    list_groups,
    list_model_names,
    make_subject,
    provider_has_failed,
    read_group_names,
    read_groups,
    request_source,
    warn_about_old_host,
    watch_provider_failures,
)
from helpers.ledger import Admission
from helpers.logs import log
from helpers.messages import (
    cap_sentence,
    limit_sentence,
    status_line,
    warning_sentence,
)
from helpers.middleware import ADJUST_KEY, note_refusal, note_reply, put_layer
from helpers.policies import PolicySet
from helpers.policy import unknown_group_names
from helpers.replies import Reply, cap_output
from helpers.valves import AdminValves, PersonalValves

# Where a reply's state travels in Open WebUI's metadata.
METADATA_KEY = "usage_limits"
# A prompt that retrieval made longer than this is written down before the model is called.
GROWTH_WORTH_WRITING = 1_000
LEDGER_ERROR_RETRY_SECONDS = 60
# When to try again where replies still running hold what is left.
HELD_RETRY_SECONDS = 10
# Ordinary replies stay below it, so a higher cap is not worth a line.
CAP_WORTH_SAYING = 4_000

Emitter = Callable[[dict[str, Any]], Awaitable[None]]


class Filter:
    """Usage limits for Open WebUI."""

    # Never `toggle`: it would let users switch the filter off.
    Valves = AdminValves
    UserValves = PersonalValves

    def __init__(self) -> None:
        # Open WebUI replaces the valves of this one instance before every hook, and the hooks
        # of many users interleave: each hook reads them before it first waits.
        self.valves = AdminValves()
        self._bookkeepers: dict[str, Bookkeeper] = {}
        self._checked_policies: PolicySet | None = None
        put_layer(self)

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
        """
        valves, user = self.valves, __user__ or {}
        if not user.get("id"):
            return body
        metadata = {} if __metadata__ is None else __metadata__
        put_layer(self)  # where the app wasn't there yet when this was loaded
        try:
            bookkeeper = self._bookkeeper(valves)
            await self._log_unknown_groups(valves)
            build = await self._draft(
                bookkeeper, valves, body, user, metadata, __model__, __request__
            )
            told = __event_emitter__ is not None and request_source(metadata) != "api"
            reply, admission = await bookkeeper.admit(build, told and not valves.shadow_mode)
            metadata[METADATA_KEY] = reply
            states = () if isinstance(admission, LedgerError) else admission.decision.states
            note_reply(__request__, reply, states)
            if isinstance(admission, LedgerError):
                raise admission
            if not admission.decision.allowed:
                self._refuse(valves, reply, admission.decision)
            if __event_emitter__ is not None and told:
                await self._tell(valves, reply, admission, user, __event_emitter__)
            if reply.output_cap is not None:
                cap_output(body, reply.output_cap)
        except HostError as error:
            note_refusal(__request__, error)
            metadata.pop(METADATA_KEY, None)
            raise
        except Exception as error:
            log.exception("Usage limits: a request of user %s was not reserved for", user["id"])
            if valves.on_ledger_error == "block":
                refused = self._reply_of(metadata)
                if refused is not None:
                    refused.keeper.forget(refused)
                sentence = find_reader(valves, user, metadata).language.ledger_error
                unchecked = HostError(503, sentence, LEDGER_ERROR_RETRY_SECONDS)
                note_refusal(__request__, unchecked)
                raise unchecked from error
        if valves.request_stream_usage and body.get("stream"):
            body["stream_options"] = {
                "include_usage": True,
                **(body.get("stream_options") or {}),
            }
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
            if reply.meter.produced:
                await self._check_next_round(valves, reply)
            before = reply.prompt_tokens
            reply.begin_round(estimate_prompt(body))
            if reply.prompt_tokens - before > GROWTH_WORTH_WRITING:
                await reply.keeper.renew(reply)
        except HostError:
            raise
        except Exception:
            log.exception("Usage limits: reply %s was not checked again", reply.reservation.id)
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
            decision = await reply.keeper.end(reply, reply.final_charge(usage, text))
            if decision is not None:
                await self._show_usage(reply, decision, __user__ or {}, __event_emitter__)
        except Exception:
            log.exception("Usage limits: reply %s was not settled", reply.reservation.id)
        return body

    @staticmethod
    def _reply_of(metadata: dict[str, Any] | None) -> Reply | None:
        reply = metadata.get(METADATA_KEY) if metadata else None
        # Not isinstance: the file may have been pasted anew while the reply was running. What
        # came from a client would be made of JSON's types.
        return None if isinstance(reply, (dict, list, str, int, float)) else reply

    def _bookkeeper(self, valves: AdminValves) -> Bookkeeper:
        bookkeeper = self._bookkeepers.get(valves.database_url)
        if bookkeeper is None:
            warn_about_old_host()
            watch_provider_failures()
            bookkeeper = Bookkeeper(*host_engine(valves.database_url))
            self._bookkeepers[valves.database_url] = bookkeeper
        bookkeeper.retention_seconds = valves.retention_seconds
        return bookkeeper

    async def _draft(
        self,
        bookkeeper: Bookkeeper,
        valves: AdminValves,
        body: dict[str, Any],
        user: dict[str, Any],
        metadata: dict[str, Any],
        model: dict[str, Any] | None,
        request: Any,
    ) -> Callable[[], Reply]:
        """What makes the reply; it reads its user's groups, which blocks."""
        source, now = request_source(metadata), datetime.now(UTC)
        # The host calls no outlet for an answer without text, or for none at all by API.
        streams, tools = bool(body.get("stream")), bool(body.get("tools"))
        unseen = source == "api" and not streams and (tools or not api_outlets_enabled())
        # Where the ledger has a database of its own, Open WebUI has to read its groups itself.
        queries = None if valves.database_url else group_queries()
        listed = await list_groups(user["id"]) if queries is None else ()

        def build() -> Reply:
            groups = listed
            if queries is not None:
                groups = bookkeeper.read(partial(read_groups, queries=queries, user_id=user["id"]))
            reply = build_reply(
                bookkeeper,
                valves,
                make_subject(user, groups),
                user,
                body,
                metadata,
                list_model_names(body, model, metadata),
                source,
                now,
                may_end_unseen=lambda: unseen and not provider_has_failed(request),
            )
            # Where no `request` hook tells, every admitted request is taken to reach the model.
            reply.called_model = not has_request_hook()
            adjust = metadata.get(ADJUST_KEY)  # a door's; a client's would be made of JSON
            if callable(adjust):
                adjust(reply)
            return reply

        return build

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
        if (reply.output_cap or CAP_WORTH_SAYING) < CAP_WORTH_SAYING:
            await self._emit_status(
                emitter, cap_sentence(reply.output_cap or 0, reply.reader.language)
            )

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
            sentence = limit_sentence(valves.limit_message, state, now, reply.reader, model)
            wait = (state.reset_at - now).total_seconds()
            if state.is_only_held:
                wait = min(wait, HELD_RETRY_SECONDS)
            raise HostLimitError(UsageLimitExceeded(sentence, state.reset_at, wait))

    async def _check_next_round(self, valves: AdminValves, reply: Reply) -> None:
        """Refuse another round if the limits are reached with what this reply has used."""
        subject, names = reply.reservation.subject, reply.reservation.model_names
        limits = count_limits(valves, subject, names, datetime.now(UTC))
        if limits:
            decision = await reply.keeper.check(reply, limits)
            self._refuse(valves, reply, decision.with_running(reply.used_charge().counted))

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
        decision: Decision,
        user: dict[str, Any],
        emitter: Emitter | None,
    ) -> None:
        """The status line of a finished reply, as the user wishes to see it."""
        state, wish = decision.fullest, self._show_usage_wish(user)
        if state is None or emitter is None or wish == "never":
            return
        if reply.reservation.source == "api" or not reply.enforced:
            return
        if wish == "always" or state.crossed_threshold(reply.soft_limit_percent) is not None:
            await self._emit_status(emitter, status_line(state, datetime.now(UTC), reply.reader))

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

    async def _log_unknown_groups(self, valves: AdminValves) -> None:
        """Name, once per policies text, the groups in it that Open WebUI doesn't have."""
        policies = valves.policy_set
        if policies is self._checked_policies:
            return
        self._checked_policies = policies
        if policies.groups or policies.pools:
            for name in unknown_group_names(policies, await read_group_names()):
                log.warning(
                    "Usage limits: policies name the group %r, which doesn't exist",
                    name,
                )
