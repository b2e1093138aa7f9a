"""The fake provider's answers to all that isn't a chat of OpenAI's: Ollama's, and the rest."""

import json
from collections.abc import Iterator
from typing import Any

from scripts.provider.answers import Answer

OLLAMA_MODEL = "fake-llm-ollama"  # answers by Ollama's API and by those that Ollama imitates


def tags() -> dict[str, Any]:
    """What `GET /api/tags` answers."""
    model = {"name": OLLAMA_MODEL, "model": OLLAMA_MODEL, "details": {}, "size": 1, "digest": "0"}
    return {"models": [model]}


def prompt_messages(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The prompt of a call that has no messages, as the messages that a chat would have."""
    given = body.get("prompt") or body.get("input") or ""
    texts = given if isinstance(given, list) else [given]
    return [{"role": "user", "content": str(text)} for text in texts]


class OllamaAnswer(Answer):
    """An answer of `/api/chat`: lines of JSON, the last with the counts."""

    closing = ""

    def frame(self, chunk: dict[str, Any]) -> str:
        """A line as it goes over the wire."""
        return f"{json.dumps(chunk)}\n"

    def part(self, text: str) -> dict[str, Any]:
        """Where the text stands."""
        return {"message": {"role": "assistant", "content": text}}

    def counts(self) -> dict[str, Any]:
        """The last line's counts."""
        if self.directive.usage == "none":
            return {}
        self.call.reported = {
            "prompt_eval_count": self.call.prompt_tokens,
            "eval_count": self.call.completion_tokens,
        }
        return self.call.reported

    def whole(self) -> dict[str, Any]:
        """The answer in one piece."""
        return {
            "model": self.call.model,
            **self.part("".join(self.pieces)),
            "done": True,
            **self.counts(),
        }

    def chunks(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The answer as it streams."""
        for text in self.pieces:
            yield text, {"model": self.call.model, **self.part(text), "done": False}
        yield "", {"model": self.call.model, **self.part(""), "done": True, **self.counts()}


class GenerateAnswer(OllamaAnswer):
    """An answer of `/api/generate`."""

    def part(self, text: str) -> dict[str, Any]:
        """Where the text stands."""
        return {"response": text}


class CompletionAnswer(Answer):
    """An answer of OpenAI's older `/completions`."""

    def whole(self) -> dict[str, Any]:
        """The answer in one piece."""
        choice = {"index": 0, "text": "".join(self.pieces), "finish_reason": self.finish}
        self.call.reported = self.usage(self.call.completion_tokens)
        return {**self._envelope("text_completion", [choice]), "usage": self.call.reported}

    def chunks(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The answer as it streams."""
        for text in self.pieces:
            choice = {"index": 0, "text": text, "finish_reason": None}
            yield text, self._envelope("text_completion", [choice])
        if self.reports:
            usage = self.usage(self.call.completion_tokens)
            yield "", {**self._envelope("text_completion", []), "usage": usage}


class MessagesAnswer(Answer):
    """An answer of Anthropic's `/messages`."""

    closing = ""

    def frame(self, chunk: dict[str, Any]) -> str:
        """An event as it goes over the wire."""
        return f"event: {chunk['type']}\ndata: {json.dumps(chunk)}\n\n"

    def _message(self, text: str, usage: dict[str, int]) -> dict[str, Any]:
        content = [{"type": "text", "text": text}] if text else []
        return {
            "id": self.call.id,
            "type": "message",
            "role": "assistant",
            "model": self.call.model,
            "content": content,
            "usage": usage,
        }

    def whole(self) -> dict[str, Any]:
        """The answer in one piece."""
        self.call.reported = {
            "input_tokens": self.call.prompt_tokens,
            "output_tokens": self.call.completion_tokens,
        }
        return self._message("".join(self.pieces), self.call.reported)

    def chunks(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The answer's events."""
        begun = {"input_tokens": self.call.prompt_tokens, "output_tokens": 1}
        yield "", {"type": "message_start", "message": self._message("", begun)}
        for text in self.pieces:
            delta = {"type": "text_delta", "text": text}
            yield text, {"type": "content_block_delta", "index": 0, "delta": delta}
        usage = {"output_tokens": self.call.completion_tokens}
        yield "", {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}
        yield "", {"type": "message_stop"}


class EmbeddingAnswer(Answer):
    """Embeddings, in the shapes of OpenAI and Ollama at once."""

    def whole(self) -> dict[str, Any]:
        """The answer in one piece."""
        self.call.completion_tokens = 0
        tokens = self.call.prompt_tokens
        self.call.reported = {"prompt_tokens": tokens, "total_tokens": tokens}
        vector = [0.25, -0.5]
        return {
            "object": "list",
            "model": self.call.model,
            "data": [{"object": "embedding", "index": 0, "embedding": vector}],
            "usage": self.call.reported,
            "embedding": vector,
            "embeddings": [vector],
            "prompt_eval_count": tokens,
        }
