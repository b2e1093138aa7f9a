"""One ASGI layer around Open WebUI: the pass-through paths that its hooks don't guard."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from typing import Any, Protocol

from fastapi import Depends, FastAPI
from starlette.requests import Request
from starlette.responses import Response

from helpers.logs import log
from helpers.metering.charges import Charge, make_charge
from helpers.metering.usage import MeteredUsage
from helpers.openwebui.answers import AnswerReader
from helpers.openwebui.endings import StreamWatch
from helpers.openwebui.host import HostError
from helpers.openwebui.passthrough import CHAT_PATH, Passthrough, find_passthrough
from helpers.openwebui.refusals import RawHeaders, Refusal, rate_headers
from helpers.openwebui.replies import Reply, count_choices
from helpers.openwebui.request_state import LIMITS_STATE, REFUSAL_STATE, current_state

# Requests that are read here are JSON, with pictures in it at most; a longer one is refused.
LARGEST_REQUEST = 16 * 2**20
# How long it is taken for granted that the function is on, and how its valves are.
SWITCH_SECONDS = 1.0
# What travels in the state of a request, out of its client's reach.
USER_STATE = "usage_limits_user"
# Where a pass-through path tells the admission what is special about its replies.
ADJUST_KEY = "usage_limits_adjust"
METADATA_REPLY = "usage_limits"
LAYER_NAME = "UsageLimitsLayer"
MOST_LAYERS = 50
# On every answer that this layer has counted or refused, for whoever checks that.
MARK: RawHeaders = [(b"x-usage-limits", b"checked")]
BLOCKED_SENTENCE = "This path is closed, because it would go past the usage limits. Use {path}."
TOO_LARGE_SENTENCE = "The request is longer than {size} MB, too long to be counted."
UNREADABLE_SENTENCE = "The request is not a JSON object, so it can't be counted."
BACKGROUND_SENTENCE = "Answers in the background can't be counted: leave `background` out."
FAULT_SENTENCE = "The usage limits could not be checked. Try again later."
FAULT_RETRY_SECONDS = 60

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]


class LimitFilter(Protocol):
    """What the layer needs of the filter."""

    valves: Any
    Valves: Any

    async def inlet(
        self,
        body: dict[str, Any],
        __user__: dict[str, Any] | None = None,
        __metadata__: dict[str, Any] | None = None,
        __model__: dict[str, Any] | None = None,
        __event_emitter__: Any = None,
        __request__: Any = None,
    ) -> dict[str, Any]: ...


class PassthroughError(Exception):
    """A request that is refused at its pass-through path."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.sentence)
        self.refusal = refusal


def route_path(scope: Scope) -> str:
    """A request's path below the prefix that a proxy may have put before Open WebUI."""
    path, prefix = str(scope.get("path", "")), str(scope.get("root_path", ""))
    if prefix and path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in ("", "/"):
        return path[len(prefix) :]
    return path


def set_route_path(scope: Scope, path: str) -> None:
    """Send a request to another path of Open WebUI."""
    prefix = str(scope.get("root_path", ""))
    whole = prefix + path if str(scope.get("path", "")).startswith(prefix) else path
    scope["path"] = whole
    scope["raw_path"] = whole.encode()


def plain_answers(scope: Scope) -> None:
    """Ask Open WebUI for an answer that can be read, not a compressed one."""
    scope["headers"] = [
        (name, value)
        for name, value in scope.get("headers", ())
        if name.lower() != b"accept-encoding"
    ]


async def send_refusal(
    send: Send, passthrough: Passthrough, refusal: Refusal, more: Any = ()
) -> None:
    """Answer a request in its protocol's own form."""
    body = refusal.body(passthrough.form)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *refusal.headers(),
        *MARK,
        *more,
    ]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class ReadRequest:
    """A JSON request, read here and handed on as it was understood."""

    def __init__(self, value: dict[str, Any], receive: Receive) -> None:
        self.value = value
        self._receive: Receive = receive
        self._handed = False

    @classmethod
    async def read(cls, receive: Receive) -> ReadRequest:
        """Read it.

        Raises:
            DoorError: It is too long, or no JSON object.
        """
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise PassthroughError(Refusal(400, UNREADABLE_SENTENCE))
            part = message.get("body", b"")
            size += len(part)
            if size > LARGEST_REQUEST:
                sentence = TOO_LARGE_SENTENCE.format(size=LARGEST_REQUEST // 2**20)
                raise PassthroughError(Refusal(413, sentence))
            parts.append(part)
            if not message.get("more_body"):
                break
        try:
            value = json.loads(b"".join(parts))
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise PassthroughError(Refusal(400, UNREADABLE_SENTENCE))
        return cls(value, receive)

    def hand_on(self, scope: Scope) -> Receive:
        """What Open WebUI receives; two readings of the same text can't differ this way."""
        try:
            body = json.dumps(self.value).encode()
        except (ValueError, RecursionError) as error:
            raise PassthroughError(Refusal(400, UNREADABLE_SENTENCE)) from error
        replaced = (b"content-length", b"content-type", b"transfer-encoding")
        scope["headers"] = [
            *(pair for pair in scope.get("headers", ()) if pair[0].lower() not in replaced),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]

        async def receive() -> Message:
            if self._handed:
                return await self._receive()
            self._handed = True
            return {"type": "http.request", "body": body, "more_body": False}

        return receive


@dataclass(slots=True)
class Switch:
    """Whether the function is on, as Open WebUI said last."""

    on: bool = True
    everywhere: bool = True
    asked_at: float = float("-inf")
    valves: Any = None


class PassthroughGuard:
    """Guards the pass-through paths for one filter.

    Args:
        function_id: The filter's id in Open WebUI.
        limits: The filter.
    """

    def __init__(self, function_id: str, limits: LimitFilter) -> None:
        self.function_id = function_id
        self.limits = limits
        self._switch = Switch()
        self._asking: asyncio.Lock | None = None
        self._gate: FastAPI | None = None

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
        if hasattr(functions, "get_active_filter_ids"):
            active = dict(await functions.get_active_filter_ids())
            on, everywhere = self.function_id in active, bool(active.get(self.function_id))
        else:
            function = await functions.get_function_by_id(self.function_id)
            on = bool(function is not None and function.is_active)
            everywhere = bool(function is not None and function.is_global)
        valves = None
        if on:
            stored = await functions.get_function_valves_by_id(self.function_id)
            valves = self.limits.Valves(**(stored or {}))
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
            await send_refusal(send, passthrough, error.refusal)
        except HostError as error:
            if started:
                raise
            retry_after = int((error.headers or {}).get("Retry-After", FAULT_RETRY_SECONDS))
            refusal = Refusal(error.status_code, str(error.detail), retry_after)
            await send_refusal(send, passthrough, refusal, limit_headers(scope["state"]))

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
        user = await self._find_user(scope, send)
        if user is None:
            return
        if user.get("role") != "admin" and (
            setting == "block" or (passthrough.kind == "unknown" and setting == "count")
        ):
            raise PassthroughError(Refusal(403, BLOCKED_SENTENCE.format(path=CHAT_PATH)))
        if passthrough.kind == "task":
            # Admitted where it calls its model, whose name isn't known before.
            await self._serve_chat(app, passthrough, scope, receive, send)
            return
        if passthrough.kind != "unknown" and route_path(scope) != passthrough.path:
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
        body: dict[str, Any] = {"model": passthrough.path.rpartition("/")[2]}
        if passthrough.in_json and passthrough.kind != "unknown":
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
            if not passthrough.counts_tokens:
                reply.limits = tuple(
                    each for each in reply.limits if each.limit.measure == "requests"
                )
            if switch.valves is not None and switch.valves.passthrough == "allow":
                reply.enforced = False
            if passthrough.form == "ollama" and body.get("stream") is None:  # it streams then
                reply.capped = reply.capped and switch.valves.cap_max_tokens

        metadata: dict[str, Any] = {ADJUST_KEY: adjust}
        body = await self.admit(body, user, metadata, Request(scope))
        reply = metadata.get(METADATA_REPLY)
        if read is not None:
            if passthrough.asks_usage and "stream_options" in body:
                read.value["stream_options"] = body["stream_options"]
            capped = reply.output_cap if reply is not None else None
            if capped is not None and passthrough.kind == "metered":
                cap_passthrough(read.value, passthrough, capped)
            receive = read.hand_on(scope)
        plain_answers(scope)
        reader = AnswerReader(
            reply.meter if reply is not None and passthrough.counts_tokens else None
        )
        headers = [*MARK, *limit_headers(scope["state"])]
        watch = StreamWatch()
        ended = asyncio.Event()

        async def metered_send(message: Message) -> None:
            if ended.is_set():
                return
            if message["type"] == "http.response.start":
                reader.start(message["status"], message.get("headers", []))
                message = {**message, "headers": with_headers(message, headers)}
            elif message["type"] == "http.response.body":
                reader.feed(message.get("body", b""))
            await send(message)
            part = message.get("body", b"")
            if reply is None or not (reader.by_lines and watch.passes(part)):
                return
            if closing := await watch.ending(reply):
                ended.set()
                await send({"type": "http.response.body", "body": b"".join(closing)})

        try:
            await app(scope, receive_until(ended, scope, receive), metered_send)
        finally:
            reader.end()
            if reply is not None:
                await reply.keeper.end(reply, passthrough_charge(reply, passthrough, reader.status))

    async def admit(
        self,
        body: dict[str, Any],
        user: dict[str, Any],
        metadata: dict[str, Any],
        request: Request,
    ) -> dict[str, Any]:
        """Admit a request as the inlet does.

        Raises:
            HostError: It is refused, or it can't be checked.
        """
        model = await describe_model(body.get("model"), request.app)
        try:
            self.limits.valves = (await self.switch()).valves
            return await self.limits.inlet(
                body,
                __user__=user,
                __metadata__=metadata,
                __model__=model,
                __request__=request,
            )
        except HostError:
            raise
        except Exception as error:
            log.exception("Usage limits: a request of user %s was not admitted", user.get("id"))
            raise HostError(503, FAULT_SENTENCE, FAULT_RETRY_SECONDS) from error

    async def _find_user(self, scope: Scope, send: Send) -> dict[str, Any] | None:
        """Who asks, by Open WebUI's own rules; its refusal is sent on where it's nobody."""
        state = scope["state"]
        state.pop(USER_STATE, None)
        answer: list[Message] = []

        async def nothing() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def keep(message: Message) -> None:
            answer.append(message)

        if self._gate is None:
            self._gate = make_gate(scope["app"])
        note_key(scope)
        # Whoever is refused here gets no further, whatever the reason.
        try:
            await self._gate({**scope, "method": "POST"}, nothing, keep)
        except Exception as error:
            log.exception("Usage limits: it can't be seen who asks")
            raise PassthroughError(Refusal(503, FAULT_SENTENCE, FAULT_RETRY_SECONDS)) from error
        user = state.pop(USER_STATE, None)
        if user is None:
            for message in answer:
                await send(message)
            return None
        return user if isinstance(user, dict) else dict(user.model_dump())


def receive_until(ended: asyncio.Event, scope: Scope, receive: Receive) -> Receive:
    """What Open WebUI receives: once it has ended, that its client has gone.

    It then ends its call to the provider, as for a client that has really gone.
    """
    # Later versions of the protocol tell it only by what sending raises.
    scope["asgi"] = {**scope.get("asgi", {}), "spec_version": "2.3"}

    async def receive_or_end() -> Message:
        waits = [asyncio.ensure_future(each) for each in (receive(), ended.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            theirs: asyncio.Future[Any] = waits[0]
            return {"type": "http.disconnect"} if ended.is_set() else theirs.result()
        finally:
            for each in waits:
                each.cancel()

    return receive_or_end


def passthrough_output(body: dict[str, Any], passthrough: Passthrough) -> int | None:
    """The most output tokens that a request asks for in the words of its protocol, if it does."""
    if passthrough.form == "ollama":
        options = body.get("options")
        wanted = options.get("num_predict") if isinstance(options, dict) else None
    else:
        wanted = body.get(output_field(passthrough))
    return wanted * count_choices(body) if type(wanted) is int and wanted > 0 else None


def cap_passthrough(body: dict[str, Any], passthrough: Passthrough, most: int) -> None:
    """Lower what a request asks for in all, as its protocol says it."""
    each = max(1, most // count_choices(body))
    if passthrough.form == "ollama":
        options = body.get("options")
        body["options"] = {**(options if isinstance(options, dict) else {}), "num_predict": each}
    else:
        body[output_field(passthrough)] = each


def output_field(passthrough: Passthrough) -> str:
    """Where a protocol other than Ollama's own says how long an answer may be."""
    return "max_output_tokens" if passthrough.path.endswith("/responses") else "max_tokens"


def passthrough_charge(reply: Reply, passthrough: Passthrough, status: int | None) -> Charge | None:
    """What a reply cost whose answer went through the layer; None where there was none."""
    if reply.meter.produced:
        return make_charge(reply.meter.total(), reply.rule)
    if status is not None and status >= 400:
        return None
    if not passthrough.counts_tokens:
        return make_charge(MeteredUsage(0, 0, 0, None, False), reply.rule)
    if passthrough.kind == "embeddings":
        return make_charge(MeteredUsage(reply.prompt_tokens, 0, 0, None, True), reply.rule)
    # Answered, but nobody can say with what; or given up while the model was at work.
    return reply.unseen_charge()


def note_key(scope: Scope) -> None:
    """An API key in a header of its own, where Open WebUI's middleware puts it later."""
    name = getattr(import_module("open_webui.env"), "CUSTOM_API_KEY_HEADER", "x-api-key")
    wanted = str(name).lower().encode()
    for header, value in scope.get("headers", ()):
        if header.lower() == wanted:
            credentials = import_module("fastapi.security").HTTPAuthorizationCredentials
            scope["state"]["token"] = credentials(
                scheme="Bearer", credentials=value.decode("latin-1")
            )


def make_gate(app: Any) -> FastAPI:
    """An app of one page, which lets in whom Open WebUI lets in."""
    auth = import_module("open_webui.utils.auth")
    gate = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    gate.state = app.state

    who = Depends(auth.get_verified_user)

    async def let_in(request: Request, user: Any = who) -> Response:
        setattr(request.state, USER_STATE, user)
        return Response(status_code=204)

    let_in.__annotations__ = {"request": Request, "user": Any, "return": Response}
    gate.add_api_route("/{path:path}", let_in, methods=["POST"])
    return gate


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


class ChatAnswer:
    """The answer of a path where the hooks run."""

    def __init__(
        self, passthrough: Passthrough, state: MutableMapping[str, Any], send: Send
    ) -> None:
        self._passthrough = passthrough
        self._state = state
        self._send = send
        self._headers: RawHeaders = []
        self._refusal: Refusal | None = None

    async def send(self, message: Message) -> None:
        """Pass a part of it on; a refusal takes the place of the whole answer."""
        kind = message["type"]
        if kind == "http.response.start":
            self._start(message)
            if self._refusal is None:
                message = {**message, "headers": with_headers(message, self._own_headers())}
        if self._refusal is None:
            await self._send(message)
        elif kind == "http.response.body" and not message.get("more_body"):
            more = [*self._headers, *limit_headers(self._state)]
            await send_refusal(self._send, self._passthrough, self._refusal, more)

    def _own_headers(self) -> RawHeaders:
        limits = limit_headers(self._state)
        # Where the hooks run they may not be on for the model that was asked for.
        checked = self._passthrough.kind == "task" or LIMITS_STATE in self._state
        return [*MARK, *limits] if checked else limits

    def _start(self, message: Message) -> None:
        refusal = self._state.get(REFUSAL_STATE)
        if message["status"] >= 400 and refusal is not None:
            self._refusal = Refusal(*refusal)
            own = (b"content-type", b"content-length", b"content-encoding", b"retry-after")
            self._headers = [
                pair for pair in message.get("headers", ()) if pair[0].lower() not in own
            ]


def with_headers(message: Message, own: RawHeaders) -> RawHeaders:
    """An answer's headers and ours; a provider's own of the same name speak of its key."""
    names = {name for name, _ in own}
    theirs = message.get("headers", ())
    return [*(pair for pair in theirs if pair[0].lower() not in names), *own]


def limit_headers(state: MutableMapping[str, Any]) -> RawHeaders:
    """Where a request's limits stand; a fault here costs no answer."""
    try:
        return rate_headers(state.get(LIMITS_STATE) or (), datetime.now(UTC))
    except Exception:
        log.exception("Usage limits: the headers of an answer could not be made")
        return []


class UsageLimitsLayer:
    """The layer itself: it looks at a request's path, and mostly lets it pass."""

    def __init__(self, app: AsgiApp, keepers: dict[str, PassthroughGuard]) -> None:
        self.app = app
        self.keepers = keepers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            passthrough = find_passthrough(scope.get("method", "GET"), route_path(scope))
            if passthrough is not None:
                keeper = await self.find_keeper(now=passthrough.kind != "chat")
                if keeper is not None:
                    await keeper.serve(self.app, passthrough, scope, receive, send)
                    return
        await self.app(scope, receive, send)

    async def find_keeper(self, *, now: bool = True) -> PassthroughGuard | None:
        """The keeper whose function is on; where that can't be seen, the last one."""
        last = None
        for keeper in list(self.keepers.values()):
            try:
                if (await keeper.switch(now=now)).on:
                    return keeper
            except Exception:
                log.exception("Usage limits: it can't be seen whether the filter is on")
                last = keeper
        return last


def function_id_of(module_name: str) -> str | None:
    """A function's id, in the name that Open WebUI gives its module."""
    if not module_name.startswith("function_"):
        return None
    name = module_name.removeprefix("function_")
    head, _, tail = name.rpartition("_")
    # Open WebUI ends the name with 32 hexadecimal digits since 0.12.
    is_uuid = len(tail) == 32 and all(digit in "0123456789abcdef" for digit in tail)
    return head if head and is_uuid else name


def put_layer(limits: LimitFilter) -> UsageLimitsLayer | None:
    """Put the layer around the running app, in the place of an older one.

    Returns:
        The layer; None where it can't be put there, or where it needn't.
    """
    function_id = function_id_of(type(limits).__module__)
    app = getattr(sys.modules.get("open_webui.main"), "app", None)
    stack = getattr(app, "middleware_stack", None)
    if function_id is None or stack is None:
        return None
    above, attribute, layer = find_layer(app)
    if layer is None:
        above, attribute, below, keepers = app, "middleware_stack", stack, {}
    else:
        below, keepers = layer.app, dict(layer.keepers)
    keeper = keepers.get(function_id)
    if layer is not None and keeper is not None and keeper.limits is limits:
        return layer if isinstance(layer, UsageLimitsLayer) else None
    keepers[function_id] = PassthroughGuard(function_id, limits)
    placed = UsageLimitsLayer(below, keepers)
    setattr(above, attribute, placed)
    return placed


def has_layer() -> bool:
    """Whether a layer is around the running app, or none is needed, as outside of a server."""
    host = sys.modules.get("open_webui.main")
    return host is None or find_layer(getattr(host, "app", None))[2] is not None


def find_layer(app: Any) -> tuple[Any, str, Any]:
    """Our layer, of whatever release, and what holds it under which name."""
    above, attribute = app, "middleware_stack"
    for _ in range(MOST_LAYERS):
        found = getattr(above, attribute, None)
        if found is None:
            break
        if type(found).__name__ == LAYER_NAME:
            return above, attribute, found
        above, attribute = found, "app"
    return None, "", None
