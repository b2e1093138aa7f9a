"""Metered calls: pass-through calls on their way to the provider, and their answers."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.responses import Response, StreamingResponse

from helpers.openwebui.answers import MARK, AnswerReader, with_headers
from helpers.openwebui.endings import StreamWatch
from helpers.openwebui.http_requests import AsgiApp, Message, ReadRequest, Receive, Scope, Send
from helpers.openwebui.passthrough import Passthrough, passthrough_charge
from helpers.openwebui.refusals import RawHeaders
from helpers.openwebui.replies import Reply
from helpers.openwebui.stream_usage import (
    LONGEST_REFUSAL,
    REFUSING_STATUSES,
    UnaskedModels,
    refuses_to_be_asked,
)


class MeteredCall:
    """One call: metered by its answer, and settled at whichever end.

    Args:
        replies: What is reserved for it; more than one only where it asks for so many images.
        headers: Where its limits stand.
    """

    def __init__(
        self, passthrough: Passthrough, replies: list[Reply], send: Send, headers: RawHeaders
    ) -> None:
        self._passthrough = passthrough
        self._replies = replies
        self._reply = replies[0] if replies else None
        self._send = send
        self._headers = [*MARK, *headers]
        self._reader = AnswerReader(None)
        self._may_repeat = False
        self._watch = StreamWatch()
        self._held: list[Message] = []  # an answer that may be a refusal of `stream_options`
        self._ended = asyncio.Event()

    async def serve(
        self,
        app: AsgiApp,
        scope: Scope,
        receive: Receive,
        again: dict[str, Any] | None,
        unasked: UnaskedModels,
    ) -> None:
        """Make the call.

        Args:
            again: The same call, not asking for usage, for a provider that refuses to be asked.
        """
        self._may_repeat = again is not None
        second = dict(scope)
        try:
            await self._ask(app, scope, receive)
            if again is not None and self._is_refused(again):
                self._held.clear()
                self._may_repeat = False
                await self._ask(app, second, ReadRequest(again, receive).hand_on(second))
                if (self._reader.status or 500) < 400:
                    unasked.note(str(again.get("model")), again, StreamingResponse(()))
            await self._release()
        finally:
            status = self._reader.status
            ends = [
                reply.keeper.end(reply, passthrough_charge(reply, self._passthrough, status))
                for reply in self._replies
            ]
            await asyncio.gather(*ends)  # all begin, whatever becomes of us

    async def _ask(self, app: AsgiApp, scope: Scope, receive: Receive) -> None:
        counts = self._reply is not None and self._passthrough.counts_tokens
        self._reader = AnswerReader(self._reply.meter if self._reply and counts else None)
        try:
            await app(scope, receive_until(self._ended, scope, receive), self.send)
        finally:
            self._reader.end()

    async def send(self, message: Message) -> None:
        """Pass a part of the answer on, unless all of it may be asked for once more."""
        if self._ended.is_set():
            return
        if message["type"] == "http.response.start":
            self._reader.start(message["status"], message.get("headers", []))
            message = {**message, "headers": with_headers(message, self._headers)}
            self._may_repeat &= message["status"] in REFUSING_STATUSES
        elif message["type"] == "http.response.body":
            self._reader.feed(message.get("body", b""))
        if not self._may_repeat:
            await self._send(message)
            await self._keep_up(message.get("body", b""))
            return
        self._held.append(message)
        if len(self._refusal()) >= LONGEST_REFUSAL:
            self._may_repeat = False
            await self._release()

    async def _keep_up(self, part: bytes) -> None:
        """End the answer where no more can be reserved for it."""
        reply, watch = self._reply, self._watch
        if reply is None or not (self._reader.by_lines and watch.passes(part)):
            return
        if closing := await watch.ending(reply):
            self._ended.set()
            await self._send({"type": "http.response.body", "body": b"".join(closing)})

    async def _release(self) -> None:
        """Pass on what was held."""
        held, self._held = self._held, []
        for message in held:
            await self._send(message)

    def _refusal(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self._held)

    def _is_refused(self, again: dict[str, Any]) -> bool:
        """Whether what was held is a refusal of `stream_options`."""
        answer = Response(self._refusal(), self._reader.status or 500)
        return bool(self._held) and refuses_to_be_asked(answer, again)


def receive_until(ended: asyncio.Event, scope: Scope, receive: Receive) -> Receive:
    """What Open WebUI receives: once it has ended, that its client has gone.

    It then ends its call to the provider, as for a client that has really gone.
    """
    # Later versions of the protocol tell it only by what sending raises.
    scope["asgi"] = {**scope.get("asgi", {}), "spec_version": "2.3"}

    async def receive_or_end() -> Message:
        waits = [asyncio.ensure_future(each) for each in (receive(), ended.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            theirs: asyncio.Future[Any] = waits[0]
            return {"type": "http.disconnect"} if ended.is_set() else theirs.result()
        finally:
            for each in waits:
                each.cancel()

    return receive_or_end
