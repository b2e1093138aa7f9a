"""The fake provider's answers in the shape of OpenAI's Responses API."""

import json
from collections.abc import Iterator
from typing import Any

from scripts.provider.answers import Answer


def as_messages(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The input of a Responses call, as the messages that a Chat Completions call would have."""
    given = body.get("input") or []
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    messages: list[dict[str, Any]] = []
    if body.get("instructions"):
        messages.append({"role": "system", "content": body["instructions"]})
    for item in items:
        kind = item.get("type", "message")
        if kind == "function_call_output":
            messages.append({"role": "tool", "content": str(item.get("output", ""))})
        elif kind == "message":
            messages.append({"role": item.get("role"), "content": item.get("content")})
    return messages


class ResponsesAnswer(Answer):
    """One answer as a `response` object and its events; usage comes whether asked for or not."""

    @property
    def reports(self) -> bool:
        """Whether usage comes with the end of the answer."""
        return self.directive.usage != "none"

    def usage(self, completion: int) -> dict[str, Any]:
        """Usage in the words of this API."""
        chat = super().usage(completion)
        if self.directive.raw_usage is not None:
            return chat
        cached, reasoning = self.directive.cached, self.directive.reasoning
        return {
            "input_tokens": chat["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": cached},
            "output_tokens": chat["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": reasoning},
            "total_tokens": chat["total_tokens"],
        }

    def whole(self) -> dict[str, Any]:
        """The answer in one piece."""
        body = self._response("completed", [self._item("completed")])
        if self.reports:
            body["usage"] = self.call.reported = self.usage(self.call.completion_tokens)
        return body

    def chunks(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The answer's events: the text that each brings (for the call log), and the event."""
        yield "", {"type": "response.created", "response": self._response("in_progress", [])}
        first = self._item("in_progress")
        yield "", {"type": "response.output_item.added", "output_index": 0, "item": first}
        place = {"item_id": first["id"], "output_index": 0, "content_index": 0}
        if not self.call.tool_round:
            part = {"type": "output_text", "text": "", "annotations": []}
            yield "", {"type": "response.content_part.added", **place, "part": part}
        for text in self.pieces:
            yield text, {"type": "response.output_text.delta", **place, "delta": text}
        done = self._item("completed")
        yield "", {"type": "response.output_item.done", "output_index": 0, "item": done}
        yield "", {"type": "response.completed", "response": self.whole()}

    def frame(self, chunk: dict[str, Any]) -> str:
        """An event as it goes over the wire."""
        return f"event: {chunk['type']}\ndata: {json.dumps(chunk)}\n\n"

    closing = ""

    def _item(self, status: str) -> dict[str, Any]:
        name = self.call.id[-12:]
        done = status == "completed"
        if self.call.tool_round:
            function = self.tool_calls()[0]["function"]
            arguments = function["arguments"] if done else ""
            return {
                "type": "function_call",
                "id": f"fc_{name}",
                "call_id": f"call_{name}",
                "name": function["name"],
                "arguments": arguments,
                "status": status,
            }
        text = {"type": "output_text", "text": "".join(self.pieces), "annotations": []}
        return {
            "type": "message",
            "id": f"msg_{name}",
            "role": "assistant",
            "status": status,
            "content": [text] if done else [],
        }

    def _response(self, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.call.id,
            "object": "response",
            "created_at": int(self.call.started_at),
            "model": self.call.model,
            "status": status,
            "output": output,
            "usage": None,
        }
