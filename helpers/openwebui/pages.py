"""The usage pages: `/usage-limits` and its JSON, behind Open WebUI's own sign-in."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib import import_module
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from fastapi import Depends, FastAPI, HTTPException
from fastapi.exception_handlers import http_exception_handler
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response

from helpers.ledger.policy_versions import drop_versions
from helpers.ledger.report_rows import as_csv, as_json
from helpers.ledger.reports import Selection, read_dimensions, read_instant
from helpers.ledger.transactions import new_deadline
from helpers.logs import log
from helpers.openwebui.callers import note_key
from helpers.openwebui.host import read_valves
from helpers.openwebui.http_requests import Message, Receive, Scope, Send, route_path
from helpers.openwebui.languages.catalog import choose_language
from helpers.openwebui.page_answers import (
    PageError,
    as_answer,
    check_intent,
    error_answer,
    read_body,
    read_flag,
)
from helpers.openwebui.page_assets import render_page
from helpers.openwebui.page_data import PageData, PageRequest
from helpers.openwebui.page_grants import make_grant, make_reset, take_back
from helpers.openwebui.page_status import host_status
from helpers.openwebui.passthrough_guard import PassthroughGuard
from helpers.openwebui.policy_editor import (
    MOST_DAYS,
    check_policies,
    claim_version,
    list_versions,
    read_loaded,
    read_policies_text,
    saved_answer,
    shadow_refusals,
    simulate_policies,
    store_policies,
)
from helpers.openwebui.valves import AdminValves

PAGE_PATH = "/usage-limits"
LONGEST_PARAMETER = 400
# Reports are read beside the chats, never in their way.
PAGE_THREADS = 2
MOST_WAITING = 50
MOST_WAITING_OF_ONE = 10  # so that nobody fills them alone
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


PageResult = TypeVar("PageResult")
Handler = Callable[[PageRequest], object]


@dataclass(frozen=True, slots=True)
class Route:
    """One path of the JSON; whatever isn't a GET takes a body."""

    method: str
    path: str
    handler: Handler
    for_all: bool = False
    changes: bool = False


def answer_me(asked: PageRequest) -> object:
    """The user's own limits and use."""
    found = asked.data.me(str(asked.user.id))
    for grant in found["grants"]:
        if grant["scope"] == "pool" and asked.user.role != "admin":
            grant["granted_by"] = grant["reason"] = ""  # it may name others
    return found


def answer_users(asked: PageRequest) -> object:
    """All users with their limits."""
    text = f"[{','.join(asked.data.users(read_flag(asked.parameters.get('near'))))}]"
    return Response(text.encode("utf-8", "replace"), media_type="application/json")


def answer_report(asked: PageRequest) -> object:
    """Sums by any dimensions, as JSON or CSV."""
    parameters, zone = asked.parameters, asked.data.valves.calendar_rules.timezone
    wanted = read_dimensions(parameters.get("by") or "user")
    kind = parameters.get("format") or "json"
    if kind not in ("json", "csv"):
        raise PageError(400, "format: json or csv")
    since, until = (read_time(parameters, name, zone) for name in ("since", "until"))
    if since is not None and until is not None and since >= until:
        raise PageError(400, "until: a time after since")
    reset_hour = asked.data.valves.reset_hour if "day" in wanted else 0
    rows = asked.data.report(wanted, Selection(since, until, zone, reset_hour))
    if kind == "json":
        return Response(as_json(rows), media_type="application/json")
    name = f"usage-by-{'-'.join(wanted)}.csv"
    disposition = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(as_csv(rows, wanted), media_type="text/csv", headers=disposition)


def read_time(parameters: Mapping[str, str], name: str, zone: ZoneInfo) -> int | None:
    """A time in the query, in seconds since 1970; None where there is none.

    A plus that nobody has encoded arrives as a blank.

    Raises:
        ConfigurationError: It is neither a date nor an instant.
    """
    text = re.sub(r"(:\d\d\S*) (\d\d:?\d\d)$", r"\1+\2", parameters.get(name) or "")
    return read_instant(text or None, name, zone)


def answer_shadow(asked: PageRequest) -> object:
    """What shadow mode would have refused."""
    zone = asked.data.valves.calendar_rules.timezone
    since = read_time(asked.parameters, "since", zone)
    oldest = int((asked.data.now - timedelta(days=MOST_DAYS)).timestamp())
    default = int((asked.data.now - timedelta(days=7)).timestamp())
    return shadow_refusals(asked.data, max(oldest, default if since is None else since))


ROUTES = (
    Route("GET", "/api/me", answer_me, for_all=True),
    Route("GET", "/api/users", answer_users),
    # An address may have a slash.
    Route("GET", "/api/users/{key:path}", lambda asked: asked.data.user(asked.parameters["key"])),
    Route("GET", "/api/pools", lambda asked: asked.data.pools()),
    Route("GET", "/api/overview", lambda asked: asked.data.overview() | host_status(asked)),
    Route("GET", "/api/report", answer_report),
    Route("GET", "/api/shadow", answer_shadow),
    Route("GET", "/api/policies", list_versions),
    Route("POST", "/api/policies/check", check_policies),
    Route("POST", "/api/policies/simulate", simulate_policies),
    Route("POST", "/api/grants", make_grant, changes=True),
    Route("DELETE", "/api/grants/{key}", take_back, changes=True),
    Route("POST", "/api/resets", make_reset, changes=True),
)


class UsagePages:
    """The pages of one filter.

    Args:
        guard: Whose filter is asked.
        app: Open WebUI's, whose sign-in counts.
    """

    def __init__(self, guard: PassthroughGuard, app: Any) -> None:
        self._guard = guard
        self._threads = ThreadPoolExecutor(PAGE_THREADS, thread_name_prefix="usage-limits-pages")
        # Changes wait for locks: nobody who only reads waits with them.
        self._changing = ThreadPoolExecutor(1, thread_name_prefix="usage-limits-changes")
        self._waiting: list[str] = []  # users by id, once for each question
        self._saving = asyncio.Lock()
        self._app = self._make_app(app)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; every answer, Open WebUI's own refusals too, is kept by nobody."""

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(PAGE_HEADERS)
            await send(message)

        try:
            await note_key(scope)
        except Exception as error:
            await error_answer(error)(scope, receive, send_marked)
            return
        with suppress(Exception):  # which was answered and logged, and is raised all the same
            await self._app(scope, receive, send_marked)

    def _make_app(self, host: Any) -> FastAPI:
        auth = import_module("open_webui.utils.auth")
        anyone, admins = Depends(auth.get_verified_user), Depends(auth.get_admin_user)
        app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
        app.state = host.state

        for refused in (Exception, 401, 503):  # the sign-in's, where it can't be seen who asks
            app.add_exception_handler(refused, self._refuse)
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
            return response

        endpoint.__annotations__ = {"request": Request, "user": Any, "return": Response}
        app.add_api_route(path, endpoint, methods=methods)

    async def _show_page(self, request: Request, user: Any) -> Response:
        nonce = secrets.token_hex(16)
        policy = CONTENT_SECURITY_POLICY.format(nonce=nonce)
        headers = {"Content-Security-Policy": policy}
        return Response(render_page(nonce), media_type="text/html", headers=headers)

    async def _refuse(self, request: Request, error: Exception) -> Response:
        """A refusal; to people the page without any data, which says it or leads to the sign-in."""
        if isinstance(error, HTTPException):
            answer = await http_exception_handler(request, error)
        else:
            answer = error_answer(error)
        is_page = route_path(request.scope).rstrip("/") == PAGE_PATH
        if not is_page or "text/html" not in request.headers.get("accept", ""):
            return answer
        page = await self._show_page(request, None)
        page.status_code = answer.status_code
        return page

    async def _find_nothing(self, request: Request, user: Any) -> Response:
        raise PageError(404, NOT_FOUND)

    async def _answer(self, route: Route, request: Request, user: Any) -> Response:
        asked = await self._read_request(request, user)
        return await self._in_thread(asked, lambda: as_answer(route.handler(asked)), route.changes)

    async def _save_policies(self, request: Request, user: Any) -> Response:
        """Save a text through Open WebUI's own functions, and keep the one before."""
        asked = await self._read_request(request, user)
        data, function_id, loaded = asked.data, self._guard.function_id, read_loaded(asked.body)
        text = await self._in_thread(asked, lambda: read_policies_text(asked.body))
        # One after the other, so that the newest version is the text in force.
        async with self._saving:
            before = str((await read_valves(function_id)).get("policies") or "")
            claim = partial(claim_version, data, before, text, asked.actor, loaded)
            made = await self._in_thread(asked, claim, changes=True)
            try:
                if text != before:
                    await store_policies(function_id, text)
            except Exception:
                drop = partial(drop_versions, ids=made)
                await self._in_thread(asked, lambda: data.accounting.change(drop, {"policies"}))
                raise
            log.info("Usage limits: %s has saved the policies on the page", asked.actor)
            await self._guard.switch(now=True)
            return await self._in_thread(asked, lambda: as_answer(saved_answer(data, text)))

    async def _read_request(self, request: Request, user: Any) -> PageRequest:
        deadline, has_body = new_deadline(), request.method != "GET"
        if has_body:
            check_intent(request)
        body = await read_body(request) if has_body else {}
        parameters = {**request.query_params, **request.path_params}
        if any(len(text) > LONGEST_PARAMETER for text in parameters.values()):
            raise PageError(400, f"A parameter is longer than {LONGEST_PARAMETER} characters.")
        switch = await self._guard.switch()
        valves = switch.valves or AdminValves()
        accounting, memory, read_host = self._guard.ledger_of(valves)
        language = choose_language(parameters.get("language") or "en")
        data = PageData(valves, accounting, memory, read_host, datetime.now(UTC), language)
        return PageRequest(data, user, parameters, body, switch.everywhere, deadline)

    async def _in_thread(
        self, asked: PageRequest, work: Callable[[], PageResult], changes: bool = False
    ) -> PageResult:
        def change() -> PageResult:
            with asked.data.accounting.until(asked.deadline):
                return work()

        waiting, who = self._waiting, str(asked.user.id)
        if len(waiting) >= MOST_WAITING or waiting.count(who) >= MOST_WAITING_OF_ONE:
            raise PageError(503, "Too many wait for reports. Try again later.")
        waiting.append(who)
        try:
            loop = asyncio.get_running_loop()
            if changes:
                return await loop.run_in_executor(self._changing, change)
            return await loop.run_in_executor(self._threads, work)
        finally:
            waiting.remove(who)


def is_page_path(path: str) -> bool:
    """Whether a path is one of the pages'."""
    return re.match(rf"{PAGE_PATH}(/|$)", path) is not None
