"""How the fake provider's answers look on the wire: chunks, tool calls, usage, breaks."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from itertools import cycle, islice
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from scripts.provider.calls import Call, CallLog
from scripts.provider.directives import Directive

_WORDS = ("The", "fake-llm", "answers", "with", "plain", "words", "that", "nobody", "needs")


class ConnectionBreaks(Exception):
    """Raised to make the server cut the connection in the middle of an answer."""


def pieces(directive: Directive, count: int) -> list[str]:
    """The reply's text in `count` pieces."""
    if directive.reply is None:
        return [f"{word} " for word in islice(cycle(_WORDS), count)]
    words = directive.reply.split(" ")
    words[:-1] = [f"{word} " for word in words[:-1]]
    size = max(1, -(-len(words) // count)) if count else len(words)
    return ["".join(words[i : i + size]) for i in range(0, len(words), size)]


class Answer:
    """The parts of one answer, in the shape of OpenAI's Chat Completions."""

    def __init__(self, call: Call, directive: Directive) -> None:
        self.call = call
        self.directive = directive
        self.pieces = pieces(directive, call.chunks_planned) if not call.tool_round else []
        limited = call.max_tokens is not None and call.completion_tokens >= call.max_tokens
        self.finish = "tool_calls" if call.tool_round else "length" if limited else "stop"

    def usage(self, completion: int) -> dict[str, Any]:
        """Usage at this point of the answer, as this provider words it."""
        directive, prompt = self.directive, self.call.prompt_tokens
        if directive.raw_usage is not None:
            return dict(directive.raw_usage)
        if directive.usage == "zero":
            prompt = completion = 0
        usage: dict[str, Any] = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }
        if directive.cached:
            usage["prompt_tokens_details"] = {"cached_tokens": directive.cached}
        if directive.reasoning:
            usage["completion_tokens_details"] = {"reasoning_tokens": directive.reasoning}
        return usage

    @property
    def reports(self) -> bool:
        """Whether usage comes with the end of the answer."""
        if self.directive.usage == "asked":
            return self.call.asked_usage or not self.call.stream
        return self.directive.usage != "none"

    def tool_calls(self) -> list[dict[str, Any]]:
        """The tool call of this round."""
        function = {"name": self.directive.tool, "arguments": self.directive.args}
        name = f"call_{self.call.id[-12:]}"
        return [{"index": 0, "id": name, "type": "function", "function": function}]

    def whole(self) -> dict[str, Any]:
        """The answer in one piece."""
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self.pieces) or None}
        if self.call.tool_round:
            message["tool_calls"] = self.tool_calls()
        if self.directive.reasoning:
            message["reasoning_content"] = "Hm. " * self.directive.reasoning
        if self.directive.raw_message is not None:
            message = {"role": "assistant", **self.directive.raw_message}
        choice = {"index": 0, "message": message, "finish_reason": self.finish}
        body = self._envelope("chat.completion", [choice])
        if self.reports:
            body["usage"] = self.call.reported = self.usage(self.call.completion_tokens)
        return body

    def chunks(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The answer as it streams: the text that a chunk brings, for the log, and the chunk."""
        yield "", self._chunk({"role": "assistant", "content": ""})
        for number in range(self.directive.reasoning):
            yield "", self._chunk({"reasoning_content": f"Hm {number}. "})
        if self.call.tool_round:
            yield "", self._chunk({"tool_calls": self.tool_calls()})
        for number, text in enumerate(self.pieces, start=1):
            done = self.call.completion_tokens * number // len(self.pieces)
            yield text, self._chunk({"content": text}, running=done)
        done = self.call.completion_tokens
        yield "", self._chunk({}, finish=self.finish, running=done)
        if self.reports and self.directive.usage != "running":
            yield "", self._envelope("chat.completion.chunk", []) | {"usage": self.usage(done)}

    def frame(self, chunk: dict[str, Any]) -> str:
        """A chunk as it goes over the wire."""
        return f"data: {json.dumps(chunk)}\n\n"

    closing = "data: [DONE]\n\n"

    def error(self) -> JSONResponse:
        """The refusal that the directive asks for."""
        status, refused = self.directive.error or 500, self.directive.refuse
        if refused is not None and status == 422:
            detail = {"type": "extra_forbidden", "loc": ["body", refused]}
            detail |= {"msg": "Extra inputs are not permitted"}
            return JSONResponse({"detail": [detail]}, status_code=status)
        kind = {400: "invalid_request_error", 429: "rate_limit_error"}.get(status, "server_error")
        message = f"The fake provider was told to fail with {status}."
        headers = {"Retry-After": "7"} if status == 429 else {}
        body = {"error": {"message": message, "type": kind, "code": None}}
        return JSONResponse(body, status_code=status, headers=headers)

    def _envelope(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.call.id,
            "object": kind,
            "created": int(self.call.started_at),
            "model": self.call.model,
            "choices": choices,
        }

    def _chunk(
        self, delta: dict[str, Any], *, finish: str | None = None, running: int | None = None
    ) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        chunk = self._envelope("chat.completion.chunk", [choice])
        if self.directive.usage == "running":
            if running is not None:
                chunk["usage"] = self.usage(running)
        elif self.call.asked_usage and self.reports:
            chunk["usage"] = None  # as OpenAI: the field is there from the first chunk on
        return chunk


class BookedResponse(Response):
    """An answer that is written down as it goes out, however it ends."""

    def __init__(self, call_log: CallLog, answer: Answer, request: Request) -> None:
        self.call_log = call_log
        self.answer = answer
        self.call = answer.call
        self.request = request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await (await self._response())(scope, receive, send)
        finally:
            self.call_log.close(self.call)

    async def _response(self) -> Response:
        call, directive = self.call, self.answer.directive
        if call.stream and directive.error is None:
            return StreamingResponse(self._stream(), media_type="text/event-stream")
        await self._pause(directive.wait + directive.delay * call.chunks_planned)
        if self.call.client_gone:
            return Response(status_code=499)
        if directive.error is not None:
            call.status, call.finished = directive.error, True
            return self.answer.error()
        body = json.dumps(self.answer.whole())
        if directive.break_after is not None:
            call.broken, call.reported = True, None
            length = {"Content-Length": str(len(body))}
            return StreamingResponse(
                self._half(body), media_type="application/json", headers=length
            )
        call.chunks_sent = call.chunks_planned
        call.characters_sent = sum(map(len, self.answer.pieces))
        call.finished = True
        return Response(body, media_type="application/json")

    async def _half(self, body: str) -> AsyncIterator[str]:
        yield body[: len(body) // 2]
        raise ConnectionBreaks

    async def _stream(self) -> AsyncIterator[str]:
        call, directive = self.call, self.answer.directive
        await asyncio.sleep(directive.wait)
        for text, chunk in self.answer.chunks():
            if text:
                if directive.break_after == call.chunks_sent:
                    await self._break()
                await asyncio.sleep(directive.delay)
            yield self.answer.frame(chunk)
            # Only now has the chunk been handed to the connection.
            if text:
                call.chunks_sent += 1
                call.characters_sent += len(text)
            call.reported = chunk.get("usage") or call.reported
        if directive.break_after is not None:
            await self._break()
        call.finished = True
        yield self.answer.closing

    async def _break(self) -> None:
        """Cut the connection, once the client has had time to read what was sent."""
        await asyncio.sleep(0.1)
        self.call.broken = True
        raise ConnectionBreaks

    async def _pause(self, seconds: float) -> None:
        """Wait, but notice a client that leaves meanwhile."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if await self.request.is_disconnected():
                self.call.client_gone = True
                self.call.ended_at = time.time()
                return
            await asyncio.sleep(min(left, 0.05))
