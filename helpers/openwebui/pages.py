"""The usage pages: `/usage-limits` and its JSON, behind Open WebUI's own sign-in."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib import import_module
from typing import Any, TypeVar

from fastapi import Depends, FastAPI
from starlette.requests import Request
from starlette.responses import Response

from helpers.errors import ConfigurationError, LedgerDataError, LedgerError
from helpers.ledger.report_rows import as_csv, as_json
from helpers.ledger.reports import Selection, read_dimensions, read_instant
from helpers.limits.policies_text import PoliciesError
from helpers.logs import log
from helpers.openwebui.languages.catalog import choose_language
from helpers.openwebui.page_assets import render_page
from helpers.openwebui.page_data import PageData, PageError
from helpers.openwebui.page_grants import make_grant, make_reset, take_back
from helpers.openwebui.page_limits import PAGE_JSON, Json
from helpers.openwebui.page_status import host_status
from helpers.openwebui.passthrough_guard import PassthroughGuard
from helpers.openwebui.policy_editor import (
    MOST_DAYS,
    check_policies,
    list_versions,
    note_version,
    read_policies_text,
    shadow_refusals,
    simulate_policies,
    store_policies,
)
from helpers.openwebui.valves import AdminValves

PAGE_PATH = "/usage-limits"
# A policies text of hundreds of thousands of characters, and nothing near a denial of service.
LARGEST_BODY = 2 * 2**20
LONGEST_PARAMETER = 400
# Reports are read beside the chats, never in their way.
PAGE_THREADS = 2
MOST_WAITING = 50
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
    "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
PAGE_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
NOT_FOUND = "Not Found"


@dataclass(frozen=True, slots=True)
class PageRequest:
    """One question, as its handler gets it.

    Args:
        guard: Of the filter that is asked.
        data: What can be read.
        user: Who asks, as Open WebUI has it.
        parameters: From the path and the query.
        body: The JSON object that was sent; {} for none.
        everywhere: Whether the filter is on for all models.
    """

    guard: PassthroughGuard
    data: PageData
    user: Any
    parameters: MutableMapping[str, str]
    body: Json
    everywhere: bool

    @property
    def actor(self) -> str:
        """Who asks, as a grant names it."""
        return str(getattr(self.user, "email", "") or self.user.id)


PageResult = TypeVar("PageResult")
Handler = Callable[[PageRequest], object]


@dataclass(frozen=True, slots=True)
class Route:
    """One path of the JSON; what changes something takes a body, or is a DELETE."""

    method: str
    path: str
    handler: Handler
    for_all: bool = False


def answer_me(asked: PageRequest) -> object:
    """The user's own limits and use."""
    return asked.data.me(str(asked.user.id))


def answer_users(asked: PageRequest) -> object:
    """All users with their limits."""
    texts = asked.data.users(read_flag(asked.parameters.get("near")), user_text)
    text = f"[{','.join(texts)}]"
    return Response(text.encode("utf-8", "replace"), media_type="application/json")


def user_text(row: Json, limits: Iterable[str]) -> str:
    """A user with limits that are written already."""
    return f'{PAGE_JSON.encode(row).removesuffix("}")},"limits":[{",".join(limits)}]}}'


def answer_user(asked: PageRequest) -> object:
    """One user, as the user's own page has it."""
    return asked.data.user(asked.parameters["key"])


def answer_pools(asked: PageRequest) -> object:
    """All pools."""
    return asked.data.pools()


def answer_overview(asked: PageRequest) -> object:
    """Totals, and how the filter stands."""
    return {**asked.data.overview(), **host_status(asked.data, asked.everywhere)}


def answer_report(asked: PageRequest) -> object:
    """Sums by any dimensions, as JSON or CSV."""
    parameters, zone = asked.parameters, asked.data.valves.calendar_rules.timezone
    wanted = read_dimensions(parameters.get("by") or "user")
    kind = parameters.get("format") or "json"
    if kind not in ("json", "csv"):
        raise PageError(400, "format: json or csv")
    since = read_instant(parameters.get("since") or None, "since", zone)
    until = read_instant(parameters.get("until") or None, "until", zone)
    if since is not None and until is not None and since >= until:
        raise PageError(400, "until: a time after since")
    reset_hour = asked.data.valves.reset_hour if "day" in wanted else 0
    rows = asked.data.report(wanted, Selection(since, until, zone, reset_hour))
    if kind == "json":
        return Response(as_json(rows), media_type="application/json")
    name = f"usage-by-{'-'.join(wanted)}.csv"
    disposition = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(as_csv(rows, wanted), media_type="text/csv", headers=disposition)


def answer_grant(asked: PageRequest) -> object:
    """A grant that was made."""
    return make_grant(asked.data, asked.body, asked.actor)


def answer_revoke(asked: PageRequest) -> object:
    """A grant that was taken back."""
    return take_back(asked.data, asked.parameters["key"], asked.body, asked.actor)


def answer_reset(asked: PageRequest) -> object:
    """Limits that begin anew."""
    return make_reset(asked.data, asked.body, asked.actor)


def answer_check(asked: PageRequest) -> object:
    """What a policies text means, or what is wrong with it."""
    return check_policies(asked.data, asked.body)


def answer_simulation(asked: PageRequest) -> object:
    """Whom a policies text would have refused."""
    return simulate_policies(asked.data, asked.body)


def answer_policies(asked: PageRequest) -> object:
    """The policies text in force, and the last ones."""
    return list_versions(asked.data)


def answer_shadow(asked: PageRequest) -> object:
    """What shadow mode would have refused."""
    zone = asked.data.valves.calendar_rules.timezone
    since = read_instant(asked.parameters.get("since") or None, "since", zone)
    oldest = int((asked.data.now - timedelta(days=MOST_DAYS)).timestamp())
    default = int((asked.data.now - timedelta(days=7)).timestamp())
    return shadow_refusals(asked.data, max(oldest, default if since is None else since))


ROUTES = (
    Route("GET", "/api/me", answer_me, for_all=True),
    Route("GET", "/api/users", answer_users),
    Route("GET", "/api/users/{key}", answer_user),
    Route("GET", "/api/pools", answer_pools),
    Route("GET", "/api/overview", answer_overview),
    Route("GET", "/api/report", answer_report),
    Route("GET", "/api/shadow", answer_shadow),
    Route("GET", "/api/policies", answer_policies),
    Route("POST", "/api/policies/check", answer_check),
    Route("POST", "/api/policies/simulate", answer_simulation),
    Route("POST", "/api/grants", answer_grant),
    Route("DELETE", "/api/grants/{key}", answer_revoke),
    Route("POST", "/api/resets", answer_reset),
)


def read_flag(text: str | None) -> bool:
    """A parameter that is true or not.

    Raises:
        PageError: It is neither.
    """
    if text not in (None, "", "true", "false", "1", "0"):
        raise PageError(400, "near: true or false")
    return text in ("true", "1")


async def read_body(request: Request) -> Json:
    """The JSON object that a request carries; {} where it carries nothing.

    Raises:
        PageError: It is too long, or something else.
    """
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > LARGEST_BODY:
            raise PageError(413, f"The request is longer than {LARGEST_BODY // 2**20} MB.")
        parts.append(part)
    text = b"".join(parts)
    if not text:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise PageError(400, "The request is not a JSON object.")
    return value


def check_intent(request: Request) -> None:
    """See that a change was asked for by a program, not by another site in a signed-in browser.

    Neither this header nor this type of content can be sent from there, and a cookie is sent
    along by itself.

    Raises:
        PageError: It wasn't.
    """
    key_header = getattr(import_module("open_webui.env"), "CUSTOM_API_KEY_HEADER", "x-api-key")
    bearer = request.headers.get("authorization", "").lower().startswith("bearer ")
    if not bearer and not request.headers.get(str(key_header)):
        raise PageError(403, "A change needs the token in the Authorization header.")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and request.method != "DELETE":
        raise PageError(415, "A change is sent as application/json.")


def as_answer(value: object) -> Response:
    """An answer as it is sent."""
    if isinstance(value, Response):
        return value
    text = PAGE_JSON.encode(value)
    return Response(text.encode("utf-8", "replace"), media_type="application/json")


def error_answer(error: Exception) -> Response:
    """An error as JSON: never with more than its sentence."""
    status, content = 500, {"detail": "The usage limits could not be read. See the server's log."}
    match error:
        case PageError():
            status, content = error.status, {"detail": error.detail}
        case PoliciesError():
            errors = [
                {"where": one.where, "given": one.given, "allowed": one.allowed}
                for one in error.errors
            ]
            answer = as_answer({"errors": errors})
            answer.status_code = 400
            return answer
        case ConfigurationError():
            status, content = 400, {"detail": str(error)}
        case LedgerError():
            status, content = 503, {"detail": "The ledger can't be reached. Try again later."}
            log.error("Usage limits: %s; a page was not shown", error)
        case LedgerDataError():
            log.error("Usage limits: %s; a page was not shown", error)
        case _:
            log.exception("Usage limits: a page was not shown", exc_info=error)
    answer = as_answer(content)
    answer.status_code = status
    return answer


class UsagePages:
    """The pages of one filter.

    Args:
        guard: Whose filter is asked.
        app: Open WebUI's, whose sign-in counts.
    """

    def __init__(self, guard: PassthroughGuard, app: Any) -> None:
        self._guard = guard
        self._threads = ThreadPoolExecutor(PAGE_THREADS, thread_name_prefix="usage-limits-pages")
        self._waiting = 0
        self.app = self._make_app(app)

    def _make_app(self, host: Any) -> FastAPI:
        auth = import_module("open_webui.utils.auth")
        anyone, admins = Depends(auth.get_verified_user), Depends(auth.get_admin_user)
        app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
        app.state = host.state
        for path in (PAGE_PATH, f"{PAGE_PATH}/"):
            self._add(app, path, ["GET"], anyone, self._show_page)
        for route in ROUTES:
            who = anyone if route.for_all else admins
            answer = partial(self._answer, route)
            self._add(app, PAGE_PATH + route.path, [route.method], who, answer)
        self._add(app, f"{PAGE_PATH}/api/policies", ["PUT"], admins, self._save_policies)
        # Whoever isn't signed in doesn't learn which paths there are.
        methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
        self._add(app, f"{PAGE_PATH}/{{path:path}}", methods, anyone, self._find_nothing)
        self._add(app, PAGE_PATH, methods, anyone, self._find_nothing)
        return app

    @staticmethod
    def _add(
        app: FastAPI,
        path: str,
        methods: list[str],
        who: Any,
        answer: Callable[[Request, Any], Awaitable[Response]],
    ) -> None:
        async def endpoint(request: Request, user: Any = who) -> Response:
            try:
                response = await answer(request, user)
            except Exception as error:
                response = error_answer(error)
            response.headers.update(PAGE_HEADERS)
            return response

        endpoint.__annotations__ = {"request": Request, "user": Any, "return": Response}
        app.add_api_route(path, endpoint, methods=methods)

    async def _show_page(self, request: Request, user: Any) -> Response:
        nonce = secrets.token_hex(16)
        policy = CONTENT_SECURITY_POLICY.format(nonce=nonce)
        headers = {"Content-Security-Policy": policy}
        return Response(render_page(nonce), media_type="text/html", headers=headers)

    async def _find_nothing(self, request: Request, user: Any) -> Response:
        raise PageError(404, NOT_FOUND)

    async def _answer(self, route: Route, request: Request, user: Any) -> Response:
        asked = await self._read_request(request, user)
        return await self._in_thread(lambda: as_answer(route.handler(asked)))

    async def _save_policies(self, request: Request, user: Any) -> Response:
        """Save a text through Open WebUI's own functions, and keep the one before."""
        asked = await self._read_request(request, user)
        text = await self._in_thread(lambda: read_policies_text(asked.body))
        before = await store_policies(self._guard.function_id, text)
        log.info("Usage limits: %s has saved the policies on the page", asked.actor)
        await self._guard.switch(now=True)
        note = partial(note_version, asked.data, before, text, asked.actor)
        return await self._in_thread(lambda: as_answer(note()))

    async def _read_request(self, request: Request, user: Any) -> PageRequest:
        changes = request.method != "GET"
        if changes:
            check_intent(request)
        body = await read_body(request) if changes else {}
        parameters = {**request.query_params, **request.path_params}
        if any(len(text) > LONGEST_PARAMETER for text in parameters.values()):
            raise PageError(400, f"A parameter is longer than {LONGEST_PARAMETER} characters.")
        switch = await self._guard.switch()
        valves = switch.valves or AdminValves()
        accounting, memory, read_host = self._guard.ledger_of(valves)
        language = choose_language(parameters.get("language") or "en")
        data = PageData(valves, accounting, memory, read_host, datetime.now(UTC), language)
        return PageRequest(self._guard, data, user, parameters, body, switch.everywhere)

    async def _in_thread(self, work: Callable[[], PageResult]) -> PageResult:
        if self._waiting >= MOST_WAITING:
            raise PageError(503, "Too many wait for reports. Try again later.")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1


def is_page_path(path: str) -> bool:
    """Whether a path is one of the pages'."""
    return re.match(rf"{PAGE_PATH}(/|$)", path) is not None
