"""Task calls: the titles, tags, queries and the like that Open WebUI asks a model for by itself."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial, wraps
from typing import Any, Literal
from weakref import finalize

from fastapi import HTTPException
from starlette.responses import JSONResponse, Response, StreamingResponse

from helpers.limits.decisions import LimitState
from helpers.logs import log
from helpers.metering.charges import Charge
from helpers.openwebui.answers import AnswerReader
from helpers.openwebui.endings import bounded_stream
from helpers.openwebui.host import (
    HostError,
    add_lengths,
    host_models,
    is_arena,
    read_settings,
)
from helpers.openwebui.http_requests import LIMITS_STATE, SOURCE_STATE, current_state, route_path
from helpers.openwebui.messages import TASK_REFUSED_SENTENCE
from helpers.openwebui.middleware import UsageLimitsLayer
from helpers.openwebui.model_calls import ORIGINAL, answer_content, call_for, is_failure
from helpers.openwebui.passthrough_guard import ADJUST_KEY, PassthroughGuard, describe_model
from helpers.openwebui.replies import (
    METADATA_KEY,
    Reply,
    current_reply,
    outer_reply,
)
from helpers.openwebui.usage_command import asks_for_usage
from helpers.openwebui.valves import AdminValves


@dataclass(frozen=True, slots=True)
class TaskCaller:
    """A name by which a module of Open WebUI calls models past the hooks.

    Args:
        calls: task: for tasks only. mixed: for tasks and for replies. function: for tasks, and for
            what pipes, tools and actions ask by themselves. reply: for a user's own requests,
            handed on in Anthropic's protocol.
    """

    module: str
    name: str
    calls: Literal["task", "mixed", "function", "reply"]


TASK_CALLERS = (
    TaskCaller("open_webui.routers.tasks", "generate_chat_completion", "task"),
    TaskCaller("open_webui.utils.chat", "generate_chat_completion", "function"),
    TaskCaller("open_webui.utils.middleware", "generate_chat_completion", "mixed"),
    TaskCaller("open_webui.main", "passthrough_anthropic_messages", "reply"),
)
WRAPPED = "usage_limits_task_inner"
# These are a part of the reply that its user asked for.
COUNTED_TASKS = frozenset({"function_calling"})
# What Open WebUI fills a model's system prompt with.
FILLING = ("variables", "chat_variables")
# Where users ask for a task itself, with any prompt: `/tasks/*/completions`, `/chats/ID/compact`.
ASKED_FOR = ("/api/v1/tasks/", "/api/v1/chats/")
# The arena model for which Open WebUI has chosen the one that it calls.
asked_arena: ContextVar[str] = ContextVar("usage_limits_asked_arena", default="")

GuardFinder = Callable[[], Awaitable[PassthroughGuard | None]]


def watch_name(
    module_name: str, name: str, owner: object, watch: Callable[[Callable[..., Any]], Any]
) -> None:
    """Watch a function under the name that a module has for it, in the place of an earlier paste.

    Args:
        owner: Who watches it, once.
        watch: What makes the watched function of Open WebUI's own.
    """
    module = sys.modules.get(module_name)
    function = getattr(module, name, None)
    if function is None:
        return
    wrapped = getattr(function, WRAPPED, None)
    if wrapped is not None and wrapped[0] is owner:
        return
    inner = function if wrapped is None else wrapped[1]
    call = watch(inner)
    setattr(call, WRAPPED, (owner, inner))
    setattr(module, name, call)


def watched_task(
    inner: Callable[..., Any], caller: TaskCaller, find_guard: GuardFinder
) -> Callable[..., Any]:
    """Open WebUI's function, admitted, metered and settled."""

    @wraps(inner)
    async def call(request: Any, form_data: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(form_data, dict):
            return await inner(request, form_data, *args, **kwargs)
        metadata = form_data.get("metadata")
        task = str(metadata.get("task") or "") if isinstance(metadata, dict) else ""
        model_id, outer = str(form_data.get("model") or ""), outer_reply(request)
        if outer is not None and model_id == outer.reservation.model_names[0]:
            # Open WebUI's own way to the model that was admitted.
            return await inner(request, form_data, *args, **kwargs)
        if outer is not None:
            task = ""  # a function has handed on its metadata
        if caller.calls == "mixed" and not task:
            return await inner(request, form_data, *args, **kwargs)
        guard = await find_guard()
        user = kwargs.get("user", args[0] if args else None)
        if guard is None or user is None:
            return await inner(request, form_data, *args, **kwargs)
        if caller.calls != "reply" and is_arena(host_models().get(model_id)):
            # It comes here again, with the model that Open WebUI has chosen.
            token = asked_arena.set(asked_arena.get() or model_id)
            try:
                return await inner(request, form_data, *args, **kwargs)
            finally:
                asked_arena.reset(token)
        if not await guard.covers(model_id, request.app):
            return await inner(request, form_data, *args, **kwargs)
        if task and is_only_command(metadata):
            return refused_task(HostError(429, "A command needs no title.", 60))
        try:
            reply = await admit_call(guard, caller, task, request, form_data, user)
        except HostError as error:
            if caller.calls == "reply":
                raise
            if not task:  # whoever formats this one shall not raise it
                raise HTTPException(error.status_code, error.detail, error.headers) from None
            return refused_task(error)
        try:
            if reply is None:
                answer = await inner(request, form_data, *args, **kwargs)
            else:
                answer = await call_for(
                    reply, inner, guard.unasked, request, form_data, *args, **kwargs
                )
        except Exception:
            await end_call(reply, None)
            raise
        except BaseException:  # given up while the model may be at work
            await end_call(reply, reply.unseen_charge() if reply is not None else None)
            raise
        return await metered_answer(reply, answer)

    # What watches the calls of replies looks for what is innermost.
    setattr(call, ORIGINAL, getattr(inner, ORIGINAL, inner))
    return call


def is_only_command(metadata: Any) -> bool:
    """Whether a task is about a chat in which nothing but `/usage` was asked so far."""
    body = metadata.get("task_body") if isinstance(metadata, dict) else None
    messages = body.get("messages") if isinstance(body, dict) else None
    if not isinstance(messages, list):
        return False
    asked = [one for one in messages if isinstance(one, dict) and one.get("role") == "user"]
    return bool(asked) and all(asks_for_usage({"messages": [one]}) for one in asked)


async def admit_call(
    guard: PassthroughGuard,
    caller: TaskCaller,
    task: str,
    request: Any,
    form_data: dict[str, Any],
    user: Any,
) -> Reply | None:
    """Admit a call as the inlet does, if it is a task without counting it.

    What a function asks for itself counts for the user of the reply that it writes, and is a part
    of it.

    Raises:
        HostError: A hard limit is reached, or the call can't be put on record.
    """
    valves = (await guard.switch()).valves or AdminValves()
    # Whoever calls a task's path asks for what they like; the chats ask for it in passing.
    asked_for = bool(task) and route_path(request.scope).startswith(ASKED_FOR)
    in_passing = caller.calls != "reply" and not asked_for
    is_part = not in_passing or not task or task in COUNTED_TASKS
    counted = is_part or valves.policy_set.tasks_counted
    told = getattr(request.state, "metadata", None) if not task else form_data.get("metadata")
    told = told if isinstance(told, dict) else {}
    # A tool's or an action's call comes from where the request does that it is a part of.
    source = "task" if task else str((current_state.get() or {}).get(SOURCE_STATE) or "")
    allowed = asked_for and valves.passthrough == "allow"

    def adjust(reply: Reply) -> None:
        if source and source != "direct" and outer_reply(request) is None:
            reply.reservation = replace(reply.reservation, source=source)
        if not counted:
            reply.rule = replace(reply.rule, weight=Decimal(0))
        if in_passing or allowed:
            reply.enforced = False  # decided below
        if in_passing:  # short, so it needn't hold all that remains
            reply.capped = valves.cap_max_tokens and not valves.shadow_mode
            reply.beside_holds = bool(task)

    enforced = not valves.shadow_mode and not allowed
    ids = {key: told.get(key) for key in ("chat_id", "message_id", "session_id")}
    given = form_data.get("metadata")
    filled = {key: given[key] for key in FILLING if key in given} if isinstance(given, dict) else {}
    metadata: dict[str, Any] = {**ids, **filled, ADJUST_KEY: adjust}
    if arena := asked_arena.get():
        metadata |= {"selected_model_id": form_data.get("model"), "model": {"id": arena}}
    if caller.calls != "reply":
        model = await describe_model(form_data.get("model"), request.app)
        add_lengths(form_data, await read_settings(model))
    body = {key: value for key, value in form_data.items() if key != "metadata"}
    fields = user if isinstance(user, dict) else user.model_dump()
    within = await lending_reply(request) if in_passing and not task else None
    if not in_passing:
        body = await guard.admit(body, fields, metadata, request)
        admitted = {} if caller.calls == "reply" else body  # nothing of OpenAI's for Anthropic
        return lowered_call(metadata.get(METADATA_KEY), admitted, form_data, enforced)
    # Its refusal is nobody's: the request that it belongs to goes on.
    state: dict[str, Any] = {}
    token = current_state.set(state)
    try:
        body = await guard.admit(body, fields, metadata, request)
    finally:
        current_state.reset(token)
    reply: Reply | None = metadata.get(METADATA_KEY)

    def may_pass(limit: LimitState) -> bool:
        # Replies that are still running don't cost a chat its tools and its title; and the one
        # within which a function calls goes on holding its request.
        of_its_own = within is not None and limit.applied.limit.measure == "requests"
        return not limit.exceeded or (limit.is_only_held and (bool(task) or of_its_own))

    if reply is not None and enforced and not all(map(may_pass, state.get(LIMITS_STATE) or ())):
        await end_call(reply, None)
        raise HostError(429, TASK_REFUSED_SENTENCE, 60)
    return lowered_call(reply, body, form_data, enforced)


async def lending_reply(request: Any) -> Reply | None:
    """The reply within which a call is made, once it has left to it what it holds."""
    within = outer_reply(request) or current_reply.get()
    if within is None or not hasattr(within, "lent"):  # it is of an earlier release
        return None
    await within.keeper.lend(within)
    return within


def lowered_call(
    reply: Reply | None, admitted: Mapping[str, Any], form_data: dict[str, Any], enforced: bool
) -> Reply | None:
    """The reply, when its call asks for its usage, and for no more output than may be used."""
    if "stream_options" in admitted:
        form_data["stream_options"] = admitted["stream_options"]
    if reply is not None:
        reply.enforced = enforced
        reply.lower_output(form_data)
    return reply


def refused_task(error: HostError) -> Response:
    """What the callers of tasks take for an answer without text."""
    return JSONResponse({"detail": str(error.detail)}, error.status_code, error.headers)


async def end_call(reply: Reply | None, charge: Charge | None) -> None:
    """Settle a call; a fault here is no reason to lose its answer."""
    if reply is not None:
        try:
            await reply.keeper.end(reply, charge)
        except Exception:
            log.exception("Usage limits: a task %s was not settled", reply.reservation.id)


async def metered_answer(reply: Reply | None, answer: Any) -> Any:
    """The answer, read as it passes."""
    if reply is None:
        return answer
    if isinstance(answer, StreamingResponse):
        reply.called_model = reply.outlives_task = True
        stream = metered_stream(reply, answer.body_iterator)
        # Whoever leaves before it begins never begins it, and then it has no end of its own.
        unread = finalize(stream, settle_unread, reply, asyncio.get_running_loop())
        unread.atexit = False
        answer.body_iterator = bounded_stream(reply, stream)
        return answer
    if is_failure(answer):
        await end_call(reply, None)
        return answer
    content = answer_content(answer)
    if isinstance(content, Mapping):
        reply.meter.add_answer(content)
    reply.called_model = True
    await end_call(reply, reply.final_charge())
    return answer


async def metered_stream(reply: Reply, parts: Any) -> AsyncIterator[Any]:
    """A stream's parts as they come, and the settling at whichever end."""
    reader = AnswerReader(reply.meter)
    reader.start(200, [(b"content-type", b"text/event-stream")])
    try:
        async for part in parts:
            reader.feed(part.encode("utf-8", "replace") if isinstance(part, str) else bytes(part))
            yield part
    finally:
        if (close := getattr(parts, "aclose", None)) is not None:
            await close()
        reader.end()
        await end_call(reply, reply.final_charge())


def settle_unread(reply: Reply, loop: asyncio.AbstractEventLoop) -> None:
    """Settle the reply of a stream that nobody reads any more, unless that was done at its end."""
    if reply.ending is None and not loop.is_closed():
        loop.call_soon_threadsafe(lambda: loop.create_task(end_call(reply, reply.final_charge())))


def guard_tasks(layer: UsageLimitsLayer) -> None:
    """Watch the tasks for the filters of a layer."""
    for caller in TASK_CALLERS:
        watch = partial(watched_task, caller=caller, find_guard=layer.find_guard)
        watch_name(caller.module, caller.name, layer, watch)
