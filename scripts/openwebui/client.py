"""Open WebUI's REST API as one signed-in user sees it."""

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx

PASSWORD = "correct horse battery staple"  # of throw-away accounts on loopback
PUBLIC = [{"principal_type": "user", "principal_id": "*", "permission": "read"}]


class HostError(RuntimeError):
    """Open WebUI answered a request that should have worked with an error."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.detail = _detail(response)
        request = response.request
        super().__init__(f"{request.method} {request.url.path}: {self.status} {self.detail}")


def _detail(response: httpx.Response) -> str:
    with suppress(ValueError):
        body = response.json()
        if isinstance(body, dict) and "detail" in body:
            return str(body["detail"])
    return response.text


@dataclass(frozen=True, slots=True)
class Account:
    """Who a client is signed in as."""

    id: str
    name: str
    email: str
    role: str
    token: str


@dataclass(slots=True)
class ApiReply:
    """What came back from an API call."""

    status: int
    headers: httpx.Headers
    body: Any = None  # the JSON body of a call that didn't stream, or of an error
    chunks: list[dict[str, Any]] = field(default_factory=list)  # of a stream
    done: bool = False  # a stream's [DONE] has come

    @property
    def text(self) -> str:
        """The assistant's text."""
        if self.chunks:
            deltas = [
                choice.get("delta", {}) for c in self.chunks for choice in c.get("choices", [])
            ]
            return "".join(delta.get("content") or "" for delta in deltas)
        choices = self.body.get("choices", []) if isinstance(self.body, dict) else []
        return choices[0]["message"].get("content") or "" if choices else ""

    @property
    def usage(self) -> dict[str, Any] | None:
        """The last usage that came."""
        bodies = self.chunks or ([self.body] if isinstance(self.body, dict) else [])
        return next((body["usage"] for body in reversed(bodies) if body.get("usage")), None)

    @property
    def error(self) -> str:
        """The sentence of a refusal, or empty."""
        if self.status < 400:
            return ""
        return str(
            self.body["detail"]
            if isinstance(self.body, dict) and "detail" in self.body
            else self.body
        )


class OpenWebUIClient:
    """A signed-in user: chats by API, and everything that a user can do with their chats."""

    def __init__(self, url: str, account: Account, *, timeout: float = 60.0) -> None:
        self.url = url
        self.account = account
        self.http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {account.token}"},
            timeout=timeout,
            trust_env=False,
        )

    @property
    def id(self) -> str:
        """The user's id."""
        return self.account.id

    def close(self) -> None:
        """Close the connections."""
        self.http.close()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """A request that must work: its JSON, or HostError."""
        response = self.http.request(method, path, json=body)
        if not response.is_success:
            raise HostError(response)
        return response.json()

    def get(self, path: str) -> Any:
        """GET that must work."""
        return self.call("GET", path)

    def post(self, path: str, body: Any = None) -> Any:
        """POST that must work."""
        return self.call("POST", path, {} if body is None else body)

    def api_key(self) -> str:
        """A new API key."""
        return str(self.post("/api/v1/auths/api_key")["api_key"])

    def models(self) -> list[str]:
        """The ids of the models that the user may use (and makes the server look at them again)."""
        return [model["id"] for model in self.get("/api/models")["data"]]

    def chat(
        self,
        prompt: str | Sequence[dict[str, Any]],
        *,
        model: str = "fake-llm",
        stream: bool = False,
        path: str = "/api/chat/completions",
        leave_after: int | None = None,
        **body: Any,
    ) -> ApiReply:
        """A chat by API; never raises for an error status.

        `leave_after` closes the connection of a stream after so many chunks. `body` is added to the
        request, whichever fields it has.
        """
        messages = (
            [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        )
        request = {"model": model, "messages": messages, "stream": stream, **body}
        if not stream:
            response = self.http.post(path, json=request)
            return ApiReply(response.status_code, response.headers, _json(response))
        with self.http.stream("POST", path, json=request) as response:
            reply = ApiReply(response.status_code, response.headers)
            if response.is_success and "event-stream" in response.headers.get("content-type", ""):
                # A stream that breaks off keeps what has come.
                with suppress(httpx.TransportError):
                    _read_events(response, reply, leave_after)
            else:
                response.read()
                reply.body = _json(response)
        return reply

    def chats(self) -> list[dict[str, Any]]:
        """The user's saved chats, newest first."""
        chats: list[dict[str, Any]] = self.get("/api/v1/chats/?page=1")
        return chats

    def saved_chat(self, chat_id: str) -> dict[str, Any]:
        """A saved chat, as the server stores it."""
        chat: dict[str, Any] = self.get(f"/api/v1/chats/{chat_id}")
        return chat

    def saved_message(self, chat_id: str, message_id: str) -> dict[str, Any]:
        """One message of a saved chat."""
        messages = self.saved_chat(chat_id)["chat"]["history"]["messages"]
        message: dict[str, Any] = messages[message_id]
        return message

    def delete_chat(self, chat_id: str) -> None:
        """Delete a saved chat."""
        self.call("DELETE", f"/api/v1/chats/{chat_id}")

    def stop_chat(self, chat_id: str) -> None:
        """The stop button."""
        self.post(f"/api/tasks/chat/{chat_id}/stop")

    def replies_under_way(self, chat_id: str) -> list[str]:
        """The ids of the tasks that are still writing replies in a chat."""
        tasks: list[str] = self.get(f"/api/tasks/chat/{chat_id}")["task_ids"]
        return tasks

    def wait_until_idle(self, chat_id: str, *, timeout: float = 30.0) -> None:
        """Wait until nothing writes in a chat any more."""
        deadline = time.monotonic() + timeout
        while self.replies_under_way(chat_id):
            if time.monotonic() > deadline:
                raise TimeoutError(f"replies in chat {chat_id} go on after {timeout} s")
            time.sleep(0.03)

    def set_user_valves(self, function_id: str, values: dict[str, Any]) -> Any:
        """Save the user's own settings of a function."""
        return self.post(f"/api/v1/functions/id/{function_id}/valves/user/update", values)


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return response.text


def _read_events(response: httpx.Response, reply: ApiReply, leave_after: int | None) -> None:
    for line in response.iter_lines():
        if leave_after is not None and len(reply.chunks) >= leave_after:
            return
        name, _, value = line.partition(": ")
        if name != "data":
            continue
        if value == "[DONE]":
            reply.done = True
        else:
            reply.chunks.append(json.loads(value))
