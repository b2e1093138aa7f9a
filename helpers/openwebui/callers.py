"""Who asks at a pass-through path, by Open WebUI's own rules."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from fastapi import Depends, FastAPI
from starlette.requests import Request
from starlette.responses import Response

from helpers.logs import log
from helpers.openwebui.host import host_version
from helpers.openwebui.host_versions import KEYS_ASKED_VERSION
from helpers.openwebui.http_requests import Message, Scope
from helpers.openwebui.messages import FAULT_SENTENCE
from helpers.openwebui.refusals import FAULT_RETRY_SECONDS, PassthroughError, Refusal

# Where the user travels in the state of a request, out of its client's reach.
USER_STATE = "usage_limits_user"


class CallerGate:
    """Lets in whom Open WebUI lets in."""

    def __init__(self) -> None:
        self._gate: FastAPI | None = None

    async def find_user(self, scope: Scope) -> tuple[dict[str, Any] | None, list[Message]]:
        """Who asks, by Open WebUI's own rules, and its refusal where it's nobody."""
        state = scope["state"]
        state.pop(USER_STATE, None)
        answer: list[Message] = []

        async def nothing() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def keep(message: Message) -> None:
            answer.append(message)

        if self._gate is None:
            self._gate = make_gate(scope["app"])
        # Whoever is refused here gets no further, whatever the reason.
        try:
            await note_key(scope)
            await self._gate({**scope, "method": "POST"}, nothing, keep)
        except Exception as error:
            log.exception("Usage limits: it can't be seen who asks")
            raise PassthroughError(Refusal(503, FAULT_SENTENCE, FAULT_RETRY_SECONDS)) from error
        user = state.pop(USER_STATE, None)
        fields = user if user is None or isinstance(user, dict) else dict(user.model_dump())
        return fields, answer


async def note_key(scope: Scope) -> None:
    """An API key in a header of its own, and whether keys are on: Open WebUI's middleware's job."""
    if host_version() < KEYS_ASKED_VERSION:
        config = import_module("open_webui.models.config").Config
        scope["state"]["enable_api_keys"] = await config.get("auth.enable_api_keys")
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
