"""A fake OpenAI-compatible provider, which keeps a log of its calls.

Run alone with ``python -m scripts.provider --port 9099``, or from a test as a thread with
`FakeProvider`. What it does with a call is written in the call (`directives.py`).

    GET  /v1/models             the models
    POST /v1/chat/completions   an answer, streaming or not
    GET  /responses/v1/models, POST /responses/v1/responses: the same by OpenAI's Responses API
    POST /v1/completions, /v1/embeddings, /v1/responses, /v1/audio/speech: the rest of OpenAI's
    POST /v1/images/generations, /v1/images/edits: pictures
    WS   /v1/realtime           a voice session
    GET  /ollama/api/tags, POST /ollama/api/chat, …/generate, …/embed, /ollama/v1/*: an Ollama
    GET  /calls                 what every call cost and how it ended
    POST /script                {"rules": [{"model": GLOB, "contains": TEXT, "times": N,
                                            "directive": {…}}]}
    POST /reset                 forget calls and rules
"""

import argparse
import contextlib
import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from scripts.provider.answers import Answer, BookedResponse
from scripts.provider.calls import Call, CallLog
from scripts.provider.directives import (
    Directive,
    Rule,
    background_task,
    parse_directive,
    task_directive,
)
from scripts.provider.ollama import (
    CompletionAnswer,
    EmbeddingAnswer,
    GenerateAnswer,
    MessagesAnswer,
    OllamaAnswer,
    prompt_messages,
    tags,
)
from scripts.provider.responses import ResponsesAnswer, as_messages

MODELS = ("fake-llm", "fake-llm-large", "fake-llm-free")
RESPONSES_MODEL = "fake-llm-responses"  # answers by the Responses API
# One dot.
PICTURE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABAQAAAAA3bvkkAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)
_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")


def message_text(message: dict[str, Any]) -> str:
    """The text of a message whose content is text or a list of parts."""
    content = message.get("content")
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "\n".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def count_prompt(messages: Sequence[dict[str, Any]], tools: Any = None) -> int:
    """Prompt tokens as this provider counts them: the same for the same request, always."""
    characters = sum(len(message_text(message)) for message in messages)
    characters += len(json.dumps(tools)) if tools else 0
    return 3 + 4 * len(messages) + characters // 4


def model_list(models: Sequence[str]) -> dict[str, Any]:
    """What `GET /models` answers."""
    data = [{"id": model, "object": "model", "owned_by": "fake-llm"} for model in models]
    return {"object": "list", "data": data}


class FakeProvider:
    """The provider, its calls and its script, served from a thread of this process."""

    def __init__(self, models: Sequence[str] = MODELS, *, port: int = 0) -> None:
        self.models = tuple(models)
        self.call_log = CallLog()
        self.rules: list[Rule] = []
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        # A connection that is to break does so by an exception, which uvicorn would log.
        config = uvicorn.Config(self.app(), log_level="critical", lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self.serve, name="fake-llm-provider", daemon=True)

    def app(self) -> Starlette:
        """The provider as an ASGI application."""
        return Starlette(
            routes=[
                Route("/v1/models", self._models),
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/responses/v1/models", self._responses_models),
                Route("/responses/v1/responses", self._responses, methods=["POST"]),
                *self._more_routes(),
                Route("/calls", self._calls),
                Route("/script", self._script, methods=["POST"]),
                Route("/reset", self._reset, methods=["POST"]),
            ]
        )

    @property
    def settings(self) -> dict[str, str]:
        """Open WebUI's settings for both of this provider's addresses."""
        addresses = (self.url, f"http://127.0.0.1:{self.port}/responses/v1")
        return {
            "OPENAI_API_BASE_URLS": ";".join(addresses),
            "OPENAI_API_KEYS": "fake-llm;fake-llm",
            "OPENAI_API_CONFIGS": json.dumps({"1": {"enable": True, "api_type": "responses"}}),
        }

    def serve(self) -> None:
        """Serve in this thread until stopped."""
        self._server.run(sockets=[self._socket])

    def start(self) -> "FakeProvider":
        """Serve in a thread; returns once calls are answered."""
        self._thread.start()
        deadline = time.monotonic() + 10
        while not self._server.started:
            if time.monotonic() > deadline or not self._thread.is_alive():
                raise RuntimeError("the fake provider did not start")
            time.sleep(0.01)
        return self

    def stop(self) -> None:
        """Stop serving; calls that are still being answered break off."""
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(timeout=5)
        self._socket.close()

    def __enter__(self) -> "FakeProvider":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def script(
        self, *, model: str = "*", contains: str = "", times: int | None = None, **values: Any
    ) -> Rule:
        """Answer coming calls like this; what a call's own directive says goes before it."""
        rule = Rule(Directive().with_values(values), model, contains, times)
        self.rules.append(rule)
        return rule

    def reset(self) -> None:
        """Forget calls and rules."""
        self.call_log.clear()
        self.rules.clear()

    def directive(self, model: str, text: str) -> Directive:
        """What to do with a call for this model with this last user message."""
        rule = next((rule for rule in self.rules if rule.takes(model, text)), None)
        return parse_directive(text, rule.directive if rule else Directive())

    async def _models(self, _: Request) -> Response:
        return JSONResponse(model_list(self.models))

    async def _responses_models(self, _: Request) -> Response:
        return JSONResponse(model_list([RESPONSES_MODEL]))

    def _more_routes(self) -> list[BaseRoute]:
        """What is asked for past the chats: each path, and the shape of its answer."""
        shapes: dict[str, type[Answer]] = {
            "/v1/completions": CompletionAnswer,
            "/v1/embeddings": EmbeddingAnswer,
            "/v1/responses": ResponsesAnswer,
            "/ollama/api/chat": OllamaAnswer,
            "/ollama/api/generate": GenerateAnswer,
            "/ollama/api/embed": EmbeddingAnswer,
            "/ollama/api/embeddings": EmbeddingAnswer,
            "/ollama/v1/chat/completions": Answer,
            "/ollama/v1/completions": CompletionAnswer,
            "/ollama/v1/messages": MessagesAnswer,
            "/ollama/v1/responses": ResponsesAnswer,
            "/ollama/v1/embeddings": EmbeddingAnswer,
        }

        def answer_in(shape: type[Answer]) -> Callable[[Request], Awaitable[Response]]:
            async def answer(request: Request) -> Response:
                body = await request.json()
                if shape in (OllamaAnswer, GenerateAnswer):
                    body.setdefault("stream", True)
                if shape is EmbeddingAnswer:
                    body.pop("stream", None)
                messages = body.get("messages")
                if messages is None:
                    responses = shape is ResponsesAnswer
                    messages = as_messages(body) if responses else prompt_messages(body)
                return self._answer(request, body, messages, shape)

            return answer

        async def list_tags(_: Request) -> Response:
            return JSONResponse(tags())

        async def version(_: Request) -> Response:
            return JSONResponse({"version": "0.9.0", "models": []})

        return [
            Route("/v1/audio/speech", self._speech, methods=["POST"]),
            Route("/v1/images/generations", self._images, methods=["POST"]),
            Route("/v1/images/edits", self._images, methods=["POST"]),
            WebSocketRoute("/v1/realtime", self._realtime),
            Route("/ollama/api/tags", list_tags),
            Route("/ollama/api/version", version),
            Route("/ollama/api/ps", version),
            *(Route(path, answer_in(shape), methods=["POST"]) for path, shape in shapes.items()),
        ]

    async def _speech(self, request: Request) -> Response:
        text = str((await request.json()).get("input"))
        call = Call("speech", "speech", request.url.path, False, text, 0, 0, 0, finished=True)
        self.call_log.close(self.call_log.enter(call))
        return Response(b"sound", media_type="audio/mpeg")

    async def _images(self, request: Request) -> Response:
        """As many pictures as are asked for."""
        if "edits" in request.url.path:
            async with request.form() as form:
                body: dict[str, Any] = dict(form)
        else:
            body = await request.json()
        text, number = str(body.get("prompt")), int(str(body.get("n") or 1))
        if "[[error" in text:
            return JSONResponse({"error": {"message": "no picture"}}, status_code=500)
        for _ in range(number):
            call = Call("images", "images", request.url.path, False, text, 0, 0, 0, finished=True)
            self.call_log.close(self.call_log.enter(call))
        return JSONResponse({"data": [{"b64_json": PICTURE}] * number})

    async def _realtime(self, socket: WebSocket) -> None:
        """A voice session: what is asked for is said in 121 tokens."""
        await socket.accept()
        await socket.send_json({"type": "session.created"})
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                event = await socket.receive_json()
                if event["type"] == "session.update":
                    await socket.send_json({"type": "session.updated"})
                elif event["type"] == "input_audio_buffer.commit":
                    await self._book_voice(socket, "heard", 13, 9)
                elif event["type"] == "response.create":
                    await self._book_voice(socket, "said", 132, 121)

    async def _book_voice(self, socket: WebSocket, what: str, read: int, written: int) -> None:
        call = Call(uuid4().hex, "realtime", "/v1/realtime", True, what, read, written, 0)
        self.call_log.close(self.call_log.enter(call))
        usage: dict[str, Any] = {"input_tokens": read, "output_tokens": written}
        usage |= {
            "total_tokens": read + written,
            "input_token_details": {"cached_tokens": read // 2},
        }
        if what == "heard":
            kind = "conversation.item.input_audio_transcription.completed"
            heard = {"type": kind, "item_id": call.id, "transcript": "Hi"}
            await socket.send_json({**heard, "usage": {"type": "tokens", **usage}})
            return
        answer: dict[str, Any] = {"id": call.id, "output": []}
        await socket.send_json({"type": "response.created", "response": answer})
        answer = {**answer, "status": "completed", "usage": usage}
        await socket.send_json({"type": "response.done", "response": answer})

    async def _calls(self, _: Request) -> Response:
        return JSONResponse({"calls": self.call_log.as_json()})

    async def _reset(self, _: Request) -> Response:
        self.reset()
        return JSONResponse({"status": True})

    async def _script(self, request: Request) -> Response:
        body = await request.json()
        try:
            for rule in body["rules"]:
                directive = Directive().with_values(rule.pop("directive", {}))
                self.rules.append(Rule(directive=directive, **rule))
        except (KeyError, TypeError, ValueError) as error:
            return JSONResponse({"error": {"message": str(error)}}, status_code=400)
        return JSONResponse({"rules": len(self.rules)})

    async def _chat(self, request: Request) -> Response:
        body = await request.json()
        return self._answer(request, body, body.get("messages") or [], Answer)

    async def _responses(self, request: Request) -> Response:
        body = await request.json()
        return self._answer(request, body, as_messages(body), ResponsesAnswer)

    def _answer(
        self,
        request: Request,
        body: dict[str, Any],
        messages: list[dict[str, Any]],
        shape: type[Answer],
    ) -> Response:
        model = str(body.get("model"))
        asked = [index for index, each in enumerate(messages) if each.get("role") == "user"]
        text = message_text(messages[asked[-1]]) if asked else ""
        task = background_task(text)
        try:
            told = self.directive(model, text) if task is None else task_directive(task)
        except ValueError as error:
            return JSONResponse({"error": {"message": str(error)}}, status_code=400)
        since = messages[asked[-1] + 1 :] if asked else []
        results = sum(each.get("role") == "tool" for each in since)
        limits = [body.get(name) for name in _LIMITS]
        if request.url.path.startswith("/ollama/api/"):
            limits = [(body.get("options") or {}).get("num_predict")]
        call = Call(
            id=f"chatcmpl-{uuid4().hex}",
            model=model,
            endpoint=request.url.path,
            stream=bool(body.get("stream")),
            text=text,
            prompt_tokens=told.prompt or count_prompt(messages, body.get("tools")),
            completion_tokens=told.chunks if told.tokens is None else told.tokens,
            chunks_planned=told.chunks,
            task=task,
            asked_usage=bool((body.get("stream_options") or {}).get("include_usage")),
            max_tokens=next((limit for limit in limits if limit is not None), None),
            tool_round=results + 1 if told.tool and results < told.rounds else 0,
        )
        if call.max_tokens is not None:
            call.completion_tokens = min(call.completion_tokens, call.max_tokens)
            call.chunks_planned = min(call.chunks_planned, call.max_tokens)
        if told.refuse is not None and told.refuse in body:
            told = replace(told, error=422)
        self.call_log.enter(call)
        return BookedResponse(self.call_log, shape(call, told), request)


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--port", type=int, default=9099)
    parser.add_argument("--model", action="append", dest="models", metavar="ID")
    arguments = parser.parse_args()
    provider = FakeProvider(arguments.models or MODELS, port=arguments.port)
    print(f"fake-llm provider at {provider.url}", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        provider.serve()


if __name__ == "__main__":
    main()
