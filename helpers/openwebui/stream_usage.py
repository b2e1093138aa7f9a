"""Usage in streams: which models' providers refuse to be asked for it.

Some answer a streamed call that carries `stream_options` with an error, so that every streamed
chat would fail. Such a call is made once more without; where that works, the model isn't asked
for a while. As its streams are then estimated, nothing that a client writes may bring this about.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from starlette.responses import Response, StreamingResponse

from helpers.logs import log

ASK_FOR_USAGE = {"include_usage": True}
REFUSING_STATUSES = (400, 422)
REFUSES_TO_BE_ASKED = re.compile(
    r"stream_options|include_usage|extra (?:inputs|fields)(?: are)? not permitted", re.IGNORECASE
)
# What says it stands at the beginning; the rest may be the request, sent back.
LONGEST_REFUSAL = 4_000
# Another field might be what doesn't go with `stream_options` ("only without `n`"): a client
# could then choose not to be measured. These are what models' settings in Open WebUI bring. Tools
# are in every chat of the page, so they are told apart.
ORDINARY_FIELDS = frozenset(
    (
        *("model", "messages", "prompt", "stream", "stream_options", "metadata", "user", "tools"),
        *("tool_choice", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k"),
        *("min_p", "stop", "seed", "repeat_penalty", "frequency_penalty", "presence_penalty"),
        *("logit_bias", "reasoning_effort"),
    )
)
# A provider that has learned it, or a memory that is wrong, is asked again after that long.
MEMORY_SECONDS = 6 * 3600
MOST_MODELS = 1_000


class UnaskedModels:
    """The models that aren't asked for usage in streams, of one process.

    Every process finds it out for itself, at the cost of one refused call. All its methods are
    called from the event loop.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: OrderedDict[tuple[str, bool], float] = OrderedDict()

    def has(self, model: str, call: Mapping[str, Any]) -> bool:
        """Whether a model's provider refused a moment ago to be asked in such a call."""
        since = self._since.get((model, "tools" in call))
        return since is not None and self._clock() - since < MEMORY_SECONDS

    def call_without(self, model: str, form_data: dict[str, Any]) -> dict[str, Any] | None:
        """The same call as a copy that doesn't ask, for a provider that refuses this one.

        If its model is known not to be asked, this one is changed instead.

        Args:
            model: The model that is called; "" if what its provider says teaches nothing.
            form_data: The call that Open WebUI is about to make, and which it changes then.

        Returns:
            None where the call may not be repeated.
        """
        if form_data.get("stream_options") != ASK_FOR_USAGE or not model:
            return None
        if self.has(model, form_data):
            del form_data["stream_options"]
            return None
        # `"stream": "false"` isn't a stream to every provider, and then refuses the options.
        if form_data.get("stream") is not True or not ORDINARY_FIELDS.issuperset(form_data):
            return None
        return copied_call(form_data)

    def note(self, model: str, call: Mapping[str, Any], answer: object) -> None:
        """Remember a model by the answer to a call that was repeated without asking."""
        if not isinstance(answer, StreamingResponse) or answer.status_code >= 400:
            return
        key = (model, "tools" in call)
        self._since[key] = self._clock()
        self._since.move_to_end(key)
        if len(self._since) > MOST_MODELS:
            self._since.popitem(last=False)
        log.warning(
            "Usage limits: the provider of model %r refuses stream_options%s: it isn't asked for "
            "usage in streams for %d hours, and they are estimated unless it reports by itself",
            model,
            " with tools" if key[1] else "",
            MEMORY_SECONDS // 3600,
        )


def refuses_to_be_asked(answer: object, call: Mapping[str, Any]) -> bool:
    """Whether an answer is a provider's refusal of `stream_options`, and not an echo of the call.

    Providers send back what they refuse: a client may have written the words itself.
    """
    if not isinstance(answer, Response) or answer.status_code not in REFUSING_STATUSES:
        return False
    body = getattr(answer, "body", b"")  # a stream has none
    text = bytes(body[:LONGEST_REFUSAL]).decode("utf-8", "replace")
    if not REFUSES_TO_BE_ASKED.search(text):
        return False
    written = {
        name: value
        for name, value in call.items()
        if name not in ("metadata", "model", "stream_options")
    }
    try:
        return not REFUSES_TO_BE_ASKED.search(str(written))
    except (RecursionError, ValueError):  # nested too deep, a number of 5,000 digits
        return False


def copied_call(form_data: Mapping[str, Any]) -> dict[str, Any]:
    """A call without `stream_options`; Open WebUI puts its system prompt into the other's messages.

    It also takes a name out of its metadata.
    """
    copy = {name: value for name, value in form_data.items() if name != "stream_options"}
    if isinstance(metadata := copy.get("metadata"), dict):
        copy["metadata"] = dict(metadata)
    if isinstance(messages := copy.get("messages"), list):
        copy["messages"] = [copied_message(message) for message in messages]
    return copy


def copied_message(message: object) -> object:
    """A message with parts of its own; what is in them is shared."""
    if not isinstance(message, dict):
        return message
    if not isinstance(parts := message.get("content"), list):
        return dict(message)
    own = [dict(part) if isinstance(part, dict) else part for part in parts]
    return {**message, "content": own}
