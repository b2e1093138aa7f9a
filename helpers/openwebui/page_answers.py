"""The pages' requests and answers: what is read of the one, and how the other is sent."""

from __future__ import annotations

import json
from importlib import import_module

from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import Response

from helpers.errors import ConfigurationError, HostDatabaseError, LedgerDataError, LedgerError
from helpers.limits.policies_text import PoliciesError
from helpers.logs import log
from helpers.openwebui.messages import PAGE_FAULT, PAGE_UNREACHABLE
from helpers.openwebui.page_limits import PAGE_JSON, Json

# A policies text of hundreds of thousands of characters, and nothing near a denial of service.
LARGEST_BODY = 2 * 2**20


class PageError(Exception):
    """An answer other than what was asked for.

    Args:
        status: The HTTP status.
        detail: What is wrong, in a sentence.
        more: What else the answer has.
    """

    def __init__(self, status: int, detail: str, **more: str) -> None:
        super().__init__(detail)
        self.status = status
        self.content = {"detail": detail, **more}


def read_flag(text: str | None) -> bool:
    """A parameter that is true or not.

    Raises:
        PageError: It is neither.
    """
    word = (text or "").lower()  # some libraries write True
    if word not in ("", "true", "false", "1", "0"):
        raise PageError(400, "near: true or false")
    return word in ("true", "1")


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
    status = 500
    content: Json = {"detail": PAGE_FAULT}
    match error:
        case PageError():
            status, content = error.status, error.content
        case PoliciesError():
            errors = [
                {"where": one.where, "given": one.given, "allowed": one.allowed}
                for one in error.errors
            ]
            status, content = 400, {"errors": errors}
        case ConfigurationError():
            status, content = 400, {"detail": str(error)}
        case LedgerError() | HostDatabaseError() | SQLAlchemyError():  # the last from the sign-in
            status, content = 503, {"detail": PAGE_UNREACHABLE}
            why = type(error).__name__ if isinstance(error, SQLAlchemyError) else error
            log.error("Usage limits: %s; a page was not shown", why)
        case LedgerDataError():
            log.error("Usage limits: %s; a page was not shown", error)
        case _:
            log.exception("Usage limits: a page was not shown", exc_info=error)
    answer = as_answer(content)
    answer.status_code = status
    return answer
