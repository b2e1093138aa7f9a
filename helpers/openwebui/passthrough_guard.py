"""The guard of pass-through calls: admits, meters and settles them for one filter."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import Request

from helpers.logs import log
from helpers.openwebui.answers import ChatAnswer, limit_headers, refusal_messages, send_own
from helpers.openwebui.callers import CallerGate
from helpers.openwebui.host import HostError, host_database, read_valves
from helpers.openwebui.http_requests import (
    AsgiApp,
    Message,
    ReadRequest,
    Receive,
    Scope,
    Send,
    current_state,
    route_path,
    set_route_path,
    without_headers,
)
from helpers.openwebui.messages import BACKGROUND_SENTENCE, BLOCKED_SENTENCE, FAULT_SENTENCE
from helpers.openwebui.metered_calls import MeteredCall
from helpers.openwebui.model_calls import unasked_name
from helpers.openwebui.passthrough import (
    CHAT_PATH,
    Passthrough,
    cap_passthrough,
    count_answers,
    passthrough_output,
    settle_images,
)
from helpers.openwebui.refusals import FAULT_RETRY_SECONDS, PassthroughError, Refusal
from helpers.openwebui.replies import METADATA_KEY, Reply
from helpers.openwebui.stream_usage import UnaskedModels
from helpers.openwebui.valves import AdminValves
from helpers.openwebui.valves_form import FormNotes

# How long it is taken for granted that the function is on, and how its valves are.
SWITCH_SECONDS = 1.0
# Where a pass-through path tells the admission what is special about its replies.
ADJUST_KEY = "usage_limits_adjust"

# With the valves, a request's body, user, metadata and model, and the request itself.
Admit = Callable[
    [AdminValves, dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any] | None, Request],
    Awaitable[dict[str, Any]],
]


@dataclass(slots=True)
class Switch:
    """Whether the function is on, as Open WebUI said last."""

    on: bool = True
    everywhere: bool = True
    asked_at: float = float("-inf")
    valves: AdminValves | None = None


class PassthroughGuard:
    """Guards the pass-through paths for one filter.

    Args:
        function_id: The filter's id in Open WebUI.
        admit: What admits a request as the filter's inlet does.
        ledger_of: What the pages read and write.
        unasked: The models that aren't asked for usage in streams.
    """

    def __init__(
        self,
        function_id: str,
        admit: Admit,
        ledger_of: Callable[[AdminValves], Any],
        unasked: UnaskedModels,
    ) -> None:
        self.function_id = function_id
        self.admit_request = admit
        self.ledger_of = ledger_of
        self.notes = FormNotes(ledger_of)
        self.unasked = unasked
        self._switch = Switch()
        self._asking: asyncio.Lock | None = None
        self.gate = CallerGate()

    async def switch(self, *, now: bool = False) -> Switch:
        """Whether the function is on, as of now or of a second ago at most."""
        asked_from = time.monotonic()
        oldest = asked_from if now else asked_from - SWITCH_SECONDS
        if self._switch.asked_at > oldest:
            return self._switch
        if self._asking is None:
            self._asking = asyncio.Lock()
        async with self._asking:
            if self._switch.asked_at <= oldest:
                self._switch = await self._ask_switch()
        return self._switch

    async def _ask_switch(self) -> Switch:
        functions = import_module("open_webui.models.functions").Functions
        asked_at = time.monotonic()
        with host_database():
            if hasattr(functions, "get_active_filter_ids"):
                active = dict(await functions.get_active_filter_ids())
                on, everywhere = self.function_id in active, bool(active.get(self.function_id))
            else:
                function = await functions.get_function_by_id(self.function_id)
                on = bool(function is not None and function.is_active)
                everywhere = bool(function is not None and function.is_global)
        valves = AdminValves(**await read_valves(self.function_id)) if on else None
        return Switch(on, everywhere, asked_at, valves)

    async def covers(self, model_id: str, app: Any) -> bool:
        """Whether the filter is on for a model; for one that Open WebUI doesn't list it is."""
        if (await self.switch()).everywhere:
            return True
        model = getattr(app.state, "MODELS", {}).get(model_id)
        info = model.get("info") if isinstance(model, dict) else None
        if info is None:
            return model is None
        return self.function_id in ((info.get("meta") or {}).get("filterIds") or ())

    async def serve(
        self, app: AsgiApp, passthrough: Passthrough, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer a request at a pass-through path."""
        current_state.set(scope.setdefault("state", {}))
        if passthrough.kind == "chat":
            await self._serve_chat(app, passthrough, scope, receive, send)
            return
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._serve_passthrough(app, passthrough, scope, receive, watched_send)
        except PassthroughError as error:
            if started:
                raise
            refused = refusal_messages(passthrough, error.refusal, [])
            await send_own(app, scope, receive, send, refused)
        except HostError as error:
            if started:
                raise
            again = (error.headers or {}).get("Retry-After")
            retry_after = None if again is None else int(again)
            refusal = Refusal(error.status_code, str(error.detail), retry_after)
            refused = refusal_messages(passthrough, refusal, limit_headers(scope["state"]))
            await send_own(app, scope, receive, send, refused)

    async def _serve_chat(
        self, app: AsgiApp, passthrough: Passthrough, scope: Scope, receive: Receive, send: Send
    ) -> None:
        await app(scope, receive, ChatAnswer(passthrough, scope["state"], send).send)

    async def _serve_passthrough(
        self, app: AsgiApp, passthrough: Passthrough, scope: Scope, receive: Receive, send: Send
    ) -> None:
        try:
            switch = await self.switch()
        except Exception as error:
            log.exception("Usage limits: it can't be seen whether the filter is on")
            raise PassthroughError(Refusal(503, FAULT_SENTENCE, FAULT_RETRY_SECONDS)) from error
        if not switch.on:
            await app(scope, receive, send)
            return
        setting = getattr(switch.valves, "passthrough", "count")
        if passthrough.kind == "rewritten" and setting == "count":
            set_route_path(scope, CHAT_PATH)
            await self._serve_chat(app, passthrough, scope, receive, send)
            return
        if passthrough.kind == "indexing" and not await asks_provider(scope):
            await app(scope, receive, send)
            return
        user, answer = await self.gate.find_user(scope)
        if user is None:
            await send_own(app, scope, receive, send, answer)
            return
        if user.get("role") != "admin" and (
            (setting == "block" and not passthrough.of_page)
            or (passthrough.kind == "unknown" and setting == "count")
        ):
            raise PassthroughError(Refusal(403, BLOCKED_SENTENCE.format(path=CHAT_PATH)))
        if passthrough.kind == "task":
            # Admitted where it calls its model, whose name isn't known before.
            await self._serve_chat(app, passthrough, scope, receive, send)
            return
        if passthrough.path and route_path(scope) != passthrough.path:
            # Another spelling, whose meaning only the provider would know.
            set_route_path(scope, passthrough.path)
        await self._serve_metered(app, passthrough, scope, receive, send, user)

    async def _serve_metered(
        self,
        app: AsgiApp,
        passthrough: Passthrough,
        scope: Scope,
        receive: Receive,
        send: Send,
        user: dict[str, Any],
    ) -> None:
        switch = await self.switch()
        if not switch.everywhere and not passthrough.in_json:
            await app(scope, receive, send)  # it is on for models that are named only
            return
        read: ReadRequest | None = None
        body: dict[str, Any] = {"model": passthrough.model}
        requests = 1
        if passthrough.in_images:
            read = await ReadRequest.read(receive)
            requests = settle_images(read.value)
        elif passthrough.in_json and passthrough.kind != "unknown":
            read = await ReadRequest.read(receive)
            if read.value.get("background"):
                raise PassthroughError(Refusal(400, BACKGROUND_SENTENCE))
            body = dict(read.value)
        model_id = body.get("model")
        if read is not None and not await self.covers(
            model_id if isinstance(model_id, str) else "", scope["app"]
        ):
            await app(scope, read.hand_on(scope), send)
            return

        def adjust(reply: Reply) -> None:
            # Another protocol's fields mean nothing at this pass-through path.
            reply.wanted_output = passthrough_output(body, passthrough)
            reply.choices = count_answers(body)
            if passthrough.kind == "request":
                reply.limits = tuple(
                    each for each in reply.limits if each.limit.measure == "requests"
                )
            if switch.valves is not None and switch.valves.passthrough == "allow":
                reply.enforced = False
            if passthrough.form == "ollama" and body.get("stream") is None:  # it streams then
                reply.capped = reply.capped and (switch.valves or AdminValves()).cap_max_tokens

        replies: list[Reply] = []
        try:
            for _ in range(requests):
                metadata: dict[str, Any] = {ADJUST_KEY: adjust}
                body = await self.admit(body, user, metadata, Request(scope))
                if METADATA_KEY in metadata:
                    replies.append(metadata[METADATA_KEY])
        except BaseException:  # all of them or none
            for each in replies:
                await each.keeper.end(each, None)
            raise
        reply = replies[0] if replies else None
        call = MeteredCall(passthrough, replies, send, limit_headers(scope["state"]))
        again = None
        if read is not None:
            if passthrough.asks_usage and "stream_options" in body:
                read.value["stream_options"] = body["stream_options"]
            if reply is not None:
                most, wanted = reply.most_output(), passthrough_output(read.value, passthrough)
                if passthrough.kind != "metered":
                    most = None
                if most is not None and (wanted is None or wanted > most):
                    cap_passthrough(read.value, passthrough, most)
                if passthrough.asks_usage:
                    model = unasked_name(reply, read.value)
                    again = self.unasked.call_without(model, read.value)
            receive = read.hand_on(scope)
        # An answer that can be read, not a compressed one.
        scope["headers"] = without_headers(scope, b"accept-encoding")
        await call.serve(app, scope, receive, again, self.unasked)

    async def admit(
        self, body: dict[str, Any], user: dict[str, Any], metadata: dict[str, Any], request: Request
    ) -> dict[str, Any]:
        """Admit a request as the inlet does.

        Raises:
            HostError: It is refused, or it can't be checked.
        """
        model = await describe_model(body.get("model"), request.app)
        try:
            valves = (await self.switch()).valves or AdminValves()
            return await self.admit_request(valves, body, user, metadata, model, request)
        except HostError:
            raise
        except Exception as error:
            log.exception("Usage limits: a request of user %s was not admitted", user.get("id"))
            raise HostError(503, FAULT_SENTENCE, FAULT_RETRY_SECONDS) from error


async def asks_provider(scope: Scope) -> bool:
    """Whether files, memories and queries are embedded by a provider, or recordings read by one."""
    files = route_path(scope) == "/api/v1/files/"
    query = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
    if files and query.get("process") == ["false"]:
        return False
    settings = ("rag.embedding_engine", *(("audio.stt.engine",) if files else ()))
    try:
        config = import_module("open_webui.models.config").Config
        return any([await config.get(setting) for setting in settings])
    except Exception:
        log.exception("Usage limits: it can't be seen who makes embeddings")
        return True


async def describe_model(model_id: object, app: Any) -> dict[str, Any] | None:
    """A model as Open WebUI describes it to a filter, whether or not it lists it."""
    if not isinstance(model_id, str):
        return None
    listed = getattr(app.state, "MODELS", {}).get(model_id)
    if isinstance(listed, dict):
        return listed
    try:
        found = await import_module("open_webui.models.models").Models.get_model_by_id(model_id)
    except Exception:
        log.exception("Usage limits: a model could not be looked up")
        raise HostError(503, FAULT_SENTENCE, FAULT_RETRY_SECONDS) from None
    return {"id": model_id, "info": found.model_dump()} if found is not None else None
