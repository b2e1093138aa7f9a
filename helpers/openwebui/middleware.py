"""One ASGI layer around Open WebUI, for the paths that its hooks don't guard."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from starlette.responses import JSONResponse

from helpers.errors import HostDatabaseError
from helpers.logs import log
from helpers.openwebui.http_requests import (
    MOST_LAYERS,
    AsgiApp,
    Receive,
    Scope,
    Send,
    accepted_languages,
    route_path,
)
from helpers.openwebui.pages import NOT_FOUND, PAGE_PATH, UsagePages, is_page_path
from helpers.openwebui.passthrough import find_passthrough
from helpers.openwebui.passthrough_guard import Admit, PassthroughGuard
from helpers.openwebui.realtime import REALTIME_PATH, VoiceCall
from helpers.openwebui.stream_usage import UnaskedModels
from helpers.openwebui.valves import AdminValves
from helpers.openwebui.valves_form import SaveAnswer, valves_form_action

# The form of the users' own valves, which is in the language of whoever opens it.
USER_VALVES_FORM = "/valves/user/spec"
VALVES_FORM = "/valves/"
LAYER_NAME = "UsageLimitsLayer"


class UsageLimitsLayer:
    """The layer itself: it looks at a request's path, and mostly lets it pass."""

    def __init__(self, app: AsgiApp, guards: dict[str, PassthroughGuard]) -> None:
        self.app = app
        self.guards = guards
        self._pages: dict[PassthroughGuard, UsagePages] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        path = scope.get("path", "")
        if path.endswith("\n"):  # Starlette's routes end with `$`, which matches before one too
            scope["path"] = path.rstrip("\n")
        if scope["type"] == "http":
            if is_page_path(route_path(scope)):
                await self.serve_page(scope, receive, send)
                return
            if route_path(scope).endswith(USER_VALVES_FORM):
                headers = dict(scope.get("headers", ()))
                accepted_languages.set(headers.get(b"accept-language", b"").decode("latin-1"))
            if VALVES_FORM in route_path(scope):
                send = await self.serve_form(scope, send)
            passthrough = find_passthrough(scope.get("method", "GET"), route_path(scope))
            if passthrough is not None:
                guard = await self.find_guard(now=passthrough.kind != "chat")
                if guard is not None:
                    await guard.serve(self.app, passthrough, scope, receive, send)
                    return
        elif scope["type"] == "websocket" and route_path(scope) == REALTIME_PATH:
            guard = await self.find_guard()
            if guard is not None:
                await VoiceCall(guard, scope, receive, send).serve(self.app)
                return
        await self.app(scope, receive, send)

    async def serve_page(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer at the pages' paths, where there are pages."""
        guard = await self.find_guard()
        shown = False
        if guard is not None:
            try:
                valves = (await guard.switch()).valves
                shown = valves is not None and valves.usage_page
            except Exception:  # which is in the log: the pages will say that nothing can be read
                shown = True
        if guard is None or not shown:
            answer = JSONResponse({"detail": NOT_FOUND}, 404, {"Cache-Control": "no-store"})
            await answer(scope, receive, send)
            return
        if guard not in self._pages:
            self._pages[guard] = UsagePages(guard, scope["app"])
        scope.setdefault("state", {})
        await self._pages[guard].serve(scope, receive, send)

    async def serve_form(self, scope: Scope, send: Send) -> Send:
        """Bring the form's notes up to date before it opens; explain a save that is refused."""
        for function_id, guard in list(self.guards.items()):
            method = scope.get("method", "GET")
            action = valves_form_action(route_path(scope), method, function_id)
            if action == "spec":
                try:
                    await guard.notes.refresh((await guard.switch(now=True)).valves)
                except Exception:
                    log.warning("Usage limits: the form's notes are old", exc_info=True)
            elif action == "update":
                return SaveAnswer(send, guard.notes.refusal_reasons).send
        return send

    async def find_guard(self, *, now: bool = True) -> PassthroughGuard | None:
        """The guard whose function is on; where that can't be seen, the last one."""
        last = None
        for guard in list(self.guards.values()):
            try:
                if (await guard.switch(now=now)).on:
                    return guard
            except Exception as error:
                known = isinstance(error, HostDatabaseError)
                why = "it can't be seen whether the filter is on"
                log.error("Usage limits: %s; %s", error, why, exc_info=not known)
                last = guard
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


def put_layer(
    module_name: str, admit: Admit, ledger_of: Callable[[AdminValves], Any], unasked: UnaskedModels
) -> UsageLimitsLayer | None:
    """Put the layer around the running app, in the place of an older one.

    Args:
        module_name: The filter's module, named by Open WebUI.
        admit, ledger_of, unasked: As `PassthroughGuard` takes them.

    Returns:
        The layer; None where it can't be put there, or where it needn't.
    """
    function_id = function_id_of(module_name)
    app = getattr(sys.modules.get("open_webui.main"), "app", None)
    stack = getattr(app, "middleware_stack", None)
    if function_id is None or stack is None:
        return None
    above, attribute, layer = find_layer(app)
    if layer is None:
        above, attribute, below, guards = app, "middleware_stack", stack, {}
    else:
        below, guards = layer.app, dict(layer.guards)
    guard = guards.get(function_id)
    if layer is not None and getattr(guard, "admit_request", None) == admit:
        return layer if isinstance(layer, UsageLimitsLayer) else None
    guards[function_id] = PassthroughGuard(function_id, admit, ledger_of, unasked)
    placed = UsageLimitsLayer(below, guards)
    setattr(above, attribute, placed)
    return placed


def has_layer() -> bool:
    """Whether a layer is around the running app, or none is needed, as outside of a server."""
    host = sys.modules.get("open_webui.main")
    return host is None or find_layer(getattr(host, "app", None))[2] is not None


def page_link() -> str:
    """Where a sentence on the chat page leads to; nothing where there is no page."""
    app = getattr(sys.modules.get("open_webui.main"), "app", None)
    return f" {PAGE_PATH}" if find_layer(app)[2] is not None else ""


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
