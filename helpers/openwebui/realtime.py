"""Voice calls: Open WebUI's socket to a realtime model, with a record for each answer."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request

from helpers.logs import log
from helpers.metering.charges import make_charge
from helpers.openwebui.answers import read_json
from helpers.openwebui.host import HostError
from helpers.openwebui.http_requests import AsgiApp, Message, Receive, Scope, Send, current_state
from helpers.openwebui.messages import FAULT_SENTENCE, UNREADABLE_SENTENCE
from helpers.openwebui.passthrough_guard import ADJUST_KEY, PassthroughGuard
from helpers.openwebui.refusals import PassthroughError
from helpers.openwebui.replies import METADATA_KEY, Reply

REALTIME_PATH = "/api/v1/audio/realtime"
# How the policies and the records call it, whatever model the administrator has chosen for it.
REALTIME_MODEL = "realtime"
# Open WebUI takes no longer one for a login.
LONGEST_LOGIN = 8_192
# What a client may say that asks for no answer.
QUIET_COMMANDS = frozenset(
    (
        *("bridge.animation.result", "bridge.context", "bridge.ping", "bridge.result"),
        *("input_audio_buffer.append", "input_audio_buffer.clear", "input_audio_buffer.commit"),
        *("conversation.item.truncate", "response.cancel"),
    )
)
# What is only heard is charged with the next answer, but no more of it than this at once.
MOST_TRANSCRIPTS = 8
POLICY_VIOLATION = 1008


class VoiceCall:
    """One call: each answer is admitted before it is asked for, and the call ends over a limit.

    One more is always admitted than was asked for, if none is being given: for what is heard.
    """

    def __init__(self, guard: PassthroughGuard, scope: Scope, receive: Receive, send: Send) -> None:
        self._guard = guard
        self._scope = scope
        self._receive = receive
        self._send = send
        self._user: dict[str, Any] | None = None
        self._counted = False
        self._replies: list[Reply] = []
        self._asked = 0  # how many of them, the first ones
        self._transcripts = 0
        self._ended = False

    async def serve(self, app: AsgiApp) -> None:
        """Serve it."""
        current_state.set(self._scope.setdefault("state", {}))
        try:
            await app(self._scope, self.receive, self.send)
        finally:
            self._ended = True
            while self._replies:
                await self._settle_first()

    async def receive(self) -> Message:
        """What the client says; with its first word it says who it is."""
        message = await self._receive()
        if message["type"] != "websocket.receive":
            return message
        said = read_json((message.get("text") or "").encode("utf-8", "replace"))
        kind = said.get("type") if isinstance(said, dict) else None
        try:
            if self._user is None:
                message = await self._begin(said)
            elif self._counted and kind not in QUIET_COMMANDS:
                self._asked += 1
                await self._admit_asked()
        except Exception as error:
            await self._end(error)
        if self._ended:
            return {"type": "websocket.disconnect", "code": POLICY_VIOLATION}
        return message

    async def send(self, message: Message) -> None:
        """What the client is told; an answer's usage is among it."""
        if self._ended:
            raise OSError("the call was ended")
        await self._send(message)
        text = message.get("text") or ""
        if not self._replies or not ('"usage"' in text or '"response.done"' in text):
            return
        event = read_json(text.encode("utf-8", "replace"))
        done = isinstance(event, dict) and event.get("type") == "response.done"
        self._replies[0].meter.begin_round(0)
        self._replies[0].meter.add_event(event)
        self._transcripts += 1
        if done or (self._transcripts >= MOST_TRANSCRIPTS and not self._asked):
            try:
                await self._settle_first()
                await self._admit_asked()
            except Exception as error:
                await self._end(error)

    async def _begin(self, login: Any) -> Message:
        """Find out who calls, and whether they may; their login as it was understood here.

        Raises:
            HostError: They may not.
        """
        token = login.get("token") if isinstance(login, dict) else None
        if not isinstance(token, str) or len(token) > LONGEST_LOGIN:
            raise HostError(400, UNREADABLE_SENTENCE, 0)
        switch = await self._guard.switch()
        if not switch.on or not switch.everywhere:
            self._user = {}
            return {"type": "websocket.receive", "text": json.dumps(login)}
        headers = [(b"authorization", f"Bearer {token}".encode())]
        user, _ = await self._guard.gate.find_user(self._http_scope(headers))
        if user is None:
            raise HostError(401, FAULT_SENTENCE, 0)
        self._user, self._counted = user, True
        await self._admit_asked()
        return {"type": "websocket.receive", "text": json.dumps(login)}

    async def _admit_asked(self) -> None:
        """Admit what was asked for, or one answer to come.

        Raises:
            HostError: It is refused, or it can't be checked.
        """
        while self._counted and len(self._replies) < max(1, self._asked):
            reply = await self._admit()
            if reply is None:  # shadow mode, and a fault
                self._counted = False
            else:
                self._replies.append(reply)

    async def _admit(self) -> Reply | None:
        valves = (await self._guard.switch()).valves

        def adjust(reply: Reply) -> None:
            if valves is not None and valves.passthrough == "allow":
                reply.enforced = False

        metadata: dict[str, Any] = {ADJUST_KEY: adjust}
        request = Request(self._http_scope([]))
        await self._guard.admit({"model": REALTIME_MODEL}, self._user or {}, metadata, request)
        return metadata.get(METADATA_KEY)

    async def _settle_first(self) -> None:
        """Settle the answer that was asked for first, with what was heard before it."""
        reply = self._replies.pop(0)
        begun = self._asked > 0
        self._asked, self._transcripts = max(0, self._asked - 1), 0
        if reply.meter.produced:
            await reply.keeper.end(reply, make_charge(reply.meter.total(), reply.rule))
        else:
            await reply.keeper.end(reply, reply.unseen_charge() if begun else None)

    async def _end(self, error: Exception) -> None:
        """End the call with a sentence."""
        if isinstance(error, HostError):
            sentence = str(error.detail)
        elif isinstance(error, PassthroughError):
            sentence = error.refusal.sentence
        else:
            log.error("Usage limits: a voice call could not be checked", exc_info=error)
            sentence = FAULT_SENTENCE
        self._ended = True
        told = json.dumps({"type": "bridge.error", "message": sentence})
        await self._send({"type": "websocket.send", "text": told})
        await self._send({"type": "websocket.close", "code": POLICY_VIOLATION})

    def _http_scope(self, headers: list[tuple[bytes, bytes]]) -> Scope:
        """The call as a request over HTTP, for those who know no other."""
        return {**self._scope, "type": "http", "method": "POST", "headers": headers}
