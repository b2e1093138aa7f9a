"""Image calls: the pictures that a chat has made, by its switch or as a tool, each a request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any

from fastapi import HTTPException

from helpers.metering.charges import make_charge
from helpers.metering.usage import Usage
from helpers.openwebui.host import HostError
from helpers.openwebui.http_requests import SOURCE_STATE, current_state
from helpers.openwebui.middleware import UsageLimitsLayer
from helpers.openwebui.passthrough_guard import ADJUST_KEY, PassthroughGuard
from helpers.openwebui.replies import METADATA_KEY, Reply
from helpers.openwebui.task_calls import GuardFinder, end_call, watch_name

# Where chats and tools have pictures made, and what records call the model, as of their own paths.
IMAGE_MODULES = ("open_webui.utils.middleware", "open_webui.tools.builtin")
IMAGE_MODELS = {"image_generations": "generations", "image_edits": "edit"}


def guard_images(layer: UsageLimitsLayer) -> None:
    """Watch the images of chats for the filters of a layer."""

    def watch(model: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        return lambda inner: watched_images(inner, model, layer.find_guard)

    for module in IMAGE_MODULES:
        for name, model in IMAGE_MODELS.items():
            watch_name(module, name, layer, watch(model))


def watched_images(
    inner: Callable[..., Any], model: str, find_guard: GuardFinder
) -> Callable[..., Any]:
    """Open WebUI's function, admitted as a request and settled."""

    @wraps(inner)
    async def call(request: Any, *args: Any, **kwargs: Any) -> Any:
        guard, user = await find_guard(), kwargs.get("user")
        # Where it is on for some models only, an image names none of them.
        if guard is None or user is None or not (await guard.switch()).everywhere:
            return await inner(request, *args, **kwargs)
        reply = await admit_image(guard, model, request, user)
        charge = None if reply is None else make_charge(Usage(), reply.rule)
        try:
            return await inner(request, *args, **kwargs)
        except Exception:
            charge = None
            raise
        finally:  # given up, too: it may be in the making
            await end_call(reply, charge)

    return call


async def admit_image(guard: PassthroughGuard, model: str, request: Any, user: Any) -> Reply | None:
    """Admit an image for the user of the reply that has it made.

    Raises:
        HTTPException: A hard limit is reached, or it can't be put on record. The reply goes on,
            and its model is told.
    """
    source = str((current_state.get() or {}).get(SOURCE_STATE) or "")
    allowed = getattr((await guard.switch()).valves, "passthrough", "count") == "allow"

    def adjust(reply: Reply) -> None:
        if source and source != "direct":
            reply.reservation = replace(reply.reservation, source=source)
        # Of those that may run at once the reply itself is one.
        reply.limits = tuple(
            one
            for one in reply.limits
            if one.limit.measure == "requests" and not one.limit.is_moment
        )
        if allowed:
            reply.enforced = False

    metadata: dict[str, Any] = {ADJUST_KEY: adjust}
    token = current_state.set({})  # its refusal isn't the reply's
    try:
        await guard.admit({"model": model}, user.model_dump(), metadata, request)
    except HostError as error:  # whoever formats this one shall not raise it
        raise HTTPException(error.status_code, error.detail, error.headers) from None
    finally:
        current_state.reset(token)
    reply: Reply | None = metadata.get(METADATA_KEY)
    return reply
