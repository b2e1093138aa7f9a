"""Open WebUI's chat page without a browser: the same socket, the same calls, the same events.

A `Page` is one open tab of a signed-in user. It sends what the page's own script sends when the
user writes a message, regenerates or continues a reply, or presses stop, and gathers what comes.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import socketio

from scripts.compat.hosts import TEMPORARY_PREFIX
from scripts.openwebui.client import HostError, OpenWebUIClient


@dataclass(slots=True)
class Reply:
    """One model's reply, as the page shows it while it comes and when it is done."""

    message_id: str
    model: str
    events: list[dict[str, Any]] = field(default_factory=list)
    streamed: str = ""  # the text that came piece by piece
    text: str = ""  # the whole text, once the reply is done
    usage: dict[str, Any] | None = None
    error: str | None = None
    statuses: list[str] = field(default_factory=list)  # the grey lines over the text
    notifications: list[tuple[str, str]] = field(default_factory=list)  # toasts: kind, sentence
    finished: bool = False
    stopped: bool = False

    @property
    def ended(self) -> bool:
        """Whether no more text will come."""
        return self.finished or self.stopped or self.error is not None

    def take(self, event: dict[str, Any]) -> None:
        """Add an event from the socket."""
        self.events.append(event)
        kind, data = event.get("type"), event.get("data") or {}
        if kind in ("chat:completion", "response:completion"):
            self._take_completion(data)
        elif kind == "chat:message:error":
            self.error = _error_text(data.get("error"))
        elif kind == "chat:tasks:cancel":
            self.stopped = True
            self.text = _output_text(data.get("output")) or self.streamed
        elif kind == "status":
            self.statuses.append(str(data.get("description", "")))
        elif kind == "notification":
            self.notifications.append((str(data.get("type")), str(data.get("content"))))

    def _take_completion(self, data: dict[str, Any]) -> None:
        if data.get("type") == "response.output_text.delta":
            self.streamed += data.get("delta") or ""
        self.usage = data.get("usage") or self.usage
        if data.get("error"):
            self.error = _error_text(data["error"])
        if data.get("output"):
            self.text = _output_text(data["output"])
            # Before 0.11 no pieces come, but all of the text again and again.
            self.streamed = max(self.streamed, self.text, key=len)
        if data.get("done"):
            self.finished = True


def _output_text(output: Any) -> str:
    items = [item for item in output or [] if item.get("type") == "message"]
    return "".join(part.get("text", "") for item in items for part in item.get("content", []))


def _error_text(error: Any) -> str:
    while isinstance(error, dict):
        error = error.get("content") or error.get("message") or error.get("detail") or str(error)
    return str(error)


@dataclass(slots=True)
class Turn:
    """One message of the user and the replies to it, one for each model."""

    chat_id: str
    user_message: dict[str, Any]
    replies: list[Reply]
    task_ids: list[str] = field(default_factory=list)

    @property
    def reply(self) -> Reply:
        """The only reply, or the first of several."""
        return self.replies[0]

    @property
    def prompt(self) -> str:
        """What the user wrote."""
        return str(self.user_message["content"])


class Page:
    """A tab with the chat page, open until `close` (or the end of a `with` block)."""

    def __init__(self, client: OpenWebUIClient) -> None:
        self.client = client
        self.toasts: list[tuple[str, str]] = []
        self._replies: dict[str, Reply] = {}
        self._history: dict[
            str, list[dict[str, str]]
        ] = {}  # of temporary chats: only the page has it
        self._news = threading.Condition()
        self._socket = socketio.Client(reconnection=False)
        self._socket.on("events", self._take)

    def open(self) -> "Page":
        """Connect, as the page does when it is loaded."""
        if self._socket.connected:
            return self
        token = {"token": self.client.account.token}
        self._socket.connect(
            self.client.url, socketio_path="/ws/socket.io", auth=token, transports=["websocket"]
        )
        self._socket.call("user-join", {"auth": token}, timeout=20)
        return self

    def close(self) -> None:
        """Close the tab; what is being written goes on in the server."""
        self._socket.disconnect()
        if self._socket.eio.ws is not None:
            self._socket.eio.ws.shutdown()  # left open if the server has gone first

    def __enter__(self) -> "Page":
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def session_id(self) -> str:
        """The id by which the server knows this tab."""
        return str(self._socket.get_sid())

    def send(
        self,
        text: str,
        *,
        models: Sequence[str] = ("fake-llm",),
        after: Turn | None = None,
        temporary: bool = False,
        tools: Sequence[str] = (),
        background_tasks: bool = False,
        wait: bool = True,
        **body: Any,
    ) -> Turn:
        """Write a message: in a new chat, or `after` an earlier turn; wait for the replies."""
        user_message: dict[str, Any] = {
            "id": str(uuid4()),
            "parentId": after.reply.message_id if after else None,
            "childrenIds": [],
            "role": "user",
            "content": text,
            "timestamp": int(time.time()),
            "models": list(models),
        }
        replies = [Reply(str(uuid4()), model) for model in models]
        chat_id = after.chat_id if after else self._temporary_chat_id() if temporary else ""
        if chat_id.startswith(("temporary:", "local:")):
            history = self._history.setdefault(user_message["id"], [])
            history += self._history.get(after.user_message["id"], []) if after else []
            history += [{"role": "assistant", "content": after.reply.text}] if after else []
            history += [{"role": "user", "content": text}]
            body["messages"] = list(history)
        body["message_ids"] = [
            {"model_id": reply.model, "message_id": reply.message_id, "modelIdx": index}
            for index, reply in enumerate(replies)
        ]
        if tools:
            body["tool_ids"] = list(tools)
        turn = Turn(chat_id, user_message, replies)
        return self._post(turn, body, background_tasks=background_tasks, wait=wait)

    def regenerate(self, turn: Turn, *, wait: bool = True, **body: Any) -> Turn:
        """Ask for another reply to the same message."""
        reply = Reply(str(uuid4()), turn.reply.model)
        body["message_ids"] = [
            {"model_id": reply.model, "message_id": reply.message_id, "modelIdx": 0}
        ]
        return self._post(Turn(turn.chat_id, turn.user_message, [reply]), body, wait=wait)

    def continue_reply(self, turn: Turn, *, wait: bool = True, **body: Any) -> Turn:
        """Let a reply go on in the same message."""
        reply = Reply(turn.reply.message_id, turn.reply.model)
        body["assistant_message_id"] = reply.message_id
        return self._post(Turn(turn.chat_id, turn.user_message, [reply]), body, wait=wait)

    def stop(self, turn: Turn) -> None:
        """Press the stop button, and wait until the replies have ended."""
        self.client.stop_chat(turn.chat_id)
        self.wait(turn)

    def wait(self, turn: Turn, *, timeout: float = 60.0) -> Turn:
        """Wait until all replies of a turn have ended, and the server's tasks with them."""
        self.wait_for(lambda: all(reply.ended for reply in turn.replies), timeout=timeout)
        self.client.wait_until_idle(turn.chat_id)
        return turn

    def wait_for(self, happened: Callable[[], bool], *, timeout: float = 30.0) -> None:
        """Wait until something is true that events from the socket bring about."""
        with self._news:
            if not self._news.wait_for(happened, timeout):
                known = {reply.message_id: reply for reply in self._replies.values()}
                raise TimeoutError(f"not within {timeout} s; replies: {known}")

    def _temporary_chat_id(self) -> str:
        version = tuple(map(int, self.client.get("/api/version")["version"].split(".")))
        prefix = "temporary" if TEMPORARY_PREFIX.is_in(version) else "local"
        return f"{prefix}:{self.session_id}"

    def _post(
        self, turn: Turn, body: dict[str, Any], *, background_tasks: bool = False, wait: bool
    ) -> Turn:
        with self._news:
            self._replies.update({reply.message_id: reply for reply in turn.replies})
        tasks = ("title_generation", "tags_generation", "follow_up_generation")
        request = {
            "stream": True,
            "model": turn.reply.model,
            "params": {},
            "features": {},
            "variables": {},
            "session_id": self.session_id,
            **({"chat_id": turn.chat_id} if turn.chat_id else {}),
            "id": turn.reply.message_id,
            "parent_id": turn.user_message["parentId"],
            "user_message": turn.user_message,
            "background_tasks": dict.fromkeys(tasks, True) if background_tasks else {},
            **body,
        }
        response = self.client.http.post("/api/chat/completions", json=request)
        if not response.is_success:
            raise HostError(response)
        answer = response.json()
        turn.chat_id, turn.task_ids = answer["chat_id"], answer["task_ids"]
        return self.wait(turn) if wait else turn

    def _take(self, event: dict[str, Any], *_: Any) -> None:
        data = event.get("data") or {}
        with self._news:
            reply = self._replies.get(event.get("message_id") or "")
            if reply is not None:
                reply.take(data)
            if data.get("type") == "notification":
                toast = data.get("data") or {}
                self.toasts.append((str(toast.get("type")), str(toast.get("content"))))
            self._news.notify_all()
