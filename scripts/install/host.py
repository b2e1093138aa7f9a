"""Open WebUI's REST API as the installer uses it: every failure becomes a sentence."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests

KEY_VARIABLE = "OPENWEBUI_API_KEY"
KEY_HINT = (
    "make one in Open WebUI under Settings > Account > API keys, "
    "or take a signed-in session's token"
)
SWITCHES = "ENABLE_FUNCTIONS or ENABLE_PLUGINS is false in its environment"
TIMEOUT_SECONDS = 60
# Open WebUI adds it to every answer, to a provider's that it passes on too.
TRACE_HEADER = "X-Process-Time"
FILTER_HEADER = "X-Usage-Limits"


class InstallError(Exception):
    """What stands in the way, as a sentence for whoever runs the command."""


class BearerToken(requests.auth.AuthBase):
    """The key as a header. Set like this, since a .netrc would replace a plain header."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._key}"
        return request


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered: the status, and the body as JSON where it is JSON."""

    status: int
    body: Any
    from_open_webui: bool  # not from a proxy before it
    by_filter: bool = False  # counted, or refused, by the filter itself

    @property
    def ok(self) -> bool:
        """Whether the request has worked."""
        return self.status < 300

    @property
    def detail(self) -> str:
        """Open WebUI's own sentence about what went wrong; "" if it isn't its answer."""
        detail = self.body.get("detail") if isinstance(self.body, dict) else None
        return detail if isinstance(detail, str) else ""


def read_key(environment: Mapping[str, str] = os.environ) -> str:
    """The API key or session token of the environment.

    Raises:
        InstallError: There is none, or it can't be one.
    """
    key = environment.get(KEY_VARIABLE, "").strip()
    if not key:
        raise InstallError(f"{KEY_VARIABLE} is not set: {KEY_HINT}")
    if not re.fullmatch(r"[!-~]+", key):
        raise InstallError(f"{KEY_VARIABLE} holds characters that no key has: {KEY_HINT}")
    return key


def clean_url(url: str) -> str:
    """The address without its closing slashes.

    Raises:
        InstallError: It isn't a web address.
    """
    try:
        parts = urlsplit(url.strip())
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise InstallError(f"--url {url!r} is no web address, such as https://chat.example.org")
    return f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")


class OpenWebUI:
    """One Open WebUI, asked with somebody's key."""

    def __init__(self, url: str, key: str) -> None:
        self.url = clean_url(url)
        self._session = requests.Session()
        self._session.auth = BearerToken(key)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def ask(self, method: str, path: str, body: Any = None, **options: Any) -> Answer:
        """One request; whatever the server answers is fine.

        Raises:
            InstallError: It doesn't answer, or sends us elsewhere.
        """
        try:
            response = self._session.request(
                method,
                self.url + path,
                json=body,
                timeout=TIMEOUT_SECONDS,
                # A redirected POST would arrive as a GET.
                allow_redirects=False,
                **options,
            )
        except requests.exceptions.SSLError as error:
            raise InstallError(
                f"{self.url} has no certificate that is trusted here ({root_cause(error)}); "
                "REQUESTS_CA_BUNDLE names a file with others"
            ) from None
        except requests.exceptions.Timeout:
            raise InstallError(
                f"{self.url} does not answer within {TIMEOUT_SECONDS} seconds"
            ) from None
        except requests.exceptions.RequestException as error:
            raise InstallError(f"{self.url} can't be reached: {root_cause(error)}") from None
        if response.is_redirect:
            target = response.headers["location"].partition("?")[0].removesuffix(path)
            raise InstallError(f"{self.url} redirects to {target}: give --url the final address")
        checked = FILTER_HEADER in response.headers
        passed = checked or TRACE_HEADER in response.headers
        return Answer(response.status_code, parse_json(response), passed, checked)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """A request that must work: its JSON.

        Raises:
            InstallError: It doesn't.
        """
        answer = self.ask(method, path, body)
        if answer.ok and answer.body is not None:
            return answer.body
        raise InstallError(explain_failure(f"{method} {path}", answer))

    def read_version(self) -> str:
        """Which Open WebUI it is.

        Raises:
            InstallError: It is none.
        """
        answer = self.ask("GET", "/api/config")
        known = isinstance(answer.body, dict) and {"version", "features"} <= answer.body.keys()
        if not known:
            detail = f" (GET /api/config: status {answer.status})"
            raise InstallError(f"{self.url} is not an Open WebUI{detail}")
        return str(answer.body["version"])

    def read_functions(self) -> dict[str, dict[str, Any]]:
        """All functions by id, without their sources: every user may see them.

        Raises:
            InstallError: The key isn't accepted.
        """
        functions = self.call("GET", "/api/v1/functions/")
        return {function["id"]: function for function in functions}

    def is_admin(self) -> bool:
        """Whether the key, which has been accepted before, is an administrator's."""
        # An API key can't ask whose it is; this is a list that only administrators may see.
        answer = self.ask("GET", "/api/v1/models/base")
        if answer.status not in (200, 401, 403):
            raise InstallError(explain_failure("GET /api/v1/models/base", answer))
        return answer.ok


def parse_json(response: requests.Response) -> Any:
    """The body as JSON; None if it isn't."""
    try:
        return response.json()
    except ValueError:
        return None


def explain_failure(request: str, answer: Answer) -> str:
    """Why Open WebUI refused a request, and what would help."""
    if answer.status == 401:
        return f"the key in {KEY_VARIABLE} is not accepted: {KEY_HINT}"
    if "Use of API key is not enabled" in answer.detail:
        return (
            "API keys are switched off, for all or for this account: see Admin Panel > Settings > "
            f"General, or put a signed-in session's token into {KEY_VARIABLE}"
        )
    if answer.status == 403:
        return (
            f"{request} is forbidden ({answer.detail or 'status 403'}): "
            "a proxy may block it, or API keys may be restricted to other endpoints in "
            "Admin Panel > Settings > General"
        )
    if "Functions are disabled" in answer.detail:
        return f"functions are disabled there: {SWITCHES}"
    if "Error creating function" in answer.detail:
        # All that it says, also where functions are disabled.
        return f"Open WebUI could not load the file; its log says why. Perhaps {SWITCHES}"
    said = answer.detail or json.dumps(answer.body)[:200] if answer.body is not None else ""
    return f"{request} failed with status {answer.status}{': ' if said else ''}{said}"


def root_cause(error: BaseException) -> str:
    """The innermost reason for a network error, without the layers of libraries around it."""
    while True:
        inner = getattr(error, "reason", None) or next(
            (part for part in error.args if isinstance(part, BaseException)), None
        )
        if not isinstance(inner, BaseException):
            break
        error = inner
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    # urllib3 puts its connection object and the number of the error before the reason.
    return re.sub(r"^.*\[Errno -?\d+\] ", "", str(error)) or type(error).__name__


def read_numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version, for comparing: ``0.12.4-dev`` is (0, 12, 4)."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(number) for number in found[0].split(".")) if found else ()
