"""Model calls: the answer or the failure of each call that Open WebUI makes for a reply.

Streams pass the filter's own hook. An answer that comes whole passes none before Open WebUI has
stored it, where its user could have written the usage beforehand; and a provider that refuses a
call passes none at all. Both are seen here, between Open WebUI and the provider.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from copy import copy
from functools import wraps
from typing import Any

from starlette.responses import Response, StreamingResponse

from helpers.openwebui.endings import bounded_stream
from helpers.openwebui.replies import LENGTH_KEYS, OPTION_KEYS, OUTER_ATTRIBUTE, Reply
from helpers.openwebui.stream_usage import UnaskedModels, refuses_to_be_asked

# Where Open WebUI calls models for replies, under the name that each module has for it.
CALLERS = (
    ("open_webui.main", "chat_completion_handler"),
    ("open_webui.utils.middleware", "generate_chat_completion"),
)
ORIGINAL = "usage_limits_original"
# What a request is admitted with. Its lengths have those of the model's settings among them.
ADMITTED_KEYS = frozenset(
    {"model", "messages", "stream", "stream_options", "background", *LENGTH_KEYS, *OPTION_KEYS}
)


def watch_model_calls(
    find_reply: Callable[[Mapping[str, Any] | None], Reply | None],
    unasked: UnaskedModels,
) -> bool:
    """See every call for a reply from now on; what an earlier paste has put there is replaced.

    Returns:
        Whether the calls are seen; if not, this Open WebUI calls its models elsewhere.
    """
    keep_admitted()
    watched = 0
    for module_name, name in CALLERS:
        module = sys.modules.get(module_name)
        function = getattr(module, name, None)
        if function is not None:
            original = getattr(function, ORIGINAL, function)
            setattr(module, name, watched_call(original, find_reply, unasked))
            watched += 1
    return watched == len(CALLERS)


def keep_admitted() -> None:
    """Let a model's settings replace nothing that a request was admitted with.

    Before Open WebUI 0.11.4 they do, behind all filters: another model's name, a longer answer.
    """
    module: Any = sys.modules.get("open_webui.utils.payload")
    fill = getattr(module, "apply_model_params_to_body", None)
    if fill is None or fill({"model": "b"}, {"model": "a"}, {})["model"] == "a":
        return

    @wraps(fill)
    def fill_in(params: dict[str, Any], body: dict[str, Any], *args: Any) -> Any:
        admitted = ADMITTED_KEYS & body.keys()
        rest = {name: value for name, value in params.items() if name not in admitted}
        return fill(rest, body, *args)

    module.apply_model_params_to_body = fill_in


def watched_call(
    original: Callable[..., Any],
    find_reply: Callable[[Mapping[str, Any] | None], Reply | None],
    unasked: UnaskedModels,
) -> Callable[..., Any]:
    """Open WebUI's function with an eye on what comes back for a reply."""

    @wraps(original)
    async def call(request: Any, form_data: Any, *args: Any, **kwargs: Any) -> Any:
        metadata = form_data.get("metadata") if isinstance(form_data, dict) else None
        reply = find_reply(metadata) if isinstance(metadata, dict) else None
        if reply is None or not hasattr(reply, "call_begins"):  # of a release before 0.2.0
            return await original(request, form_data, *args, **kwargs)
        reply.call_begins()
        try:
            answer = await call_for(reply, original, unasked, request, form_data, *args, **kwargs)
        except Exception:  # a refusal, a connection that broke; not that the user stopped it
            reply.call_failed()
            raise
        if is_failure(answer):
            reply.call_failed()
        elif isinstance(answer, StreamingResponse):
            if hasattr(getattr(reply, "keeper", None), "keep_up"):  # not a reply of 0.1.0
                answer.body_iterator = bounded_stream(reply, answer.body_iterator)
        else:
            reply.call_answered(answer_content(answer))
        return answer

    setattr(call, ORIGINAL, original)
    return call


async def call_for(
    reply: Reply,
    original: Callable[..., Any],
    unasked: UnaskedModels,
    request: Any,
    form_data: dict[str, Any],
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Call the model that was admitted, as its provider lets itself be asked."""
    model = unasked_name(reply, form_data)
    again = unasked.call_without(model, form_data)
    request = pinned_request(request, reply, form_data)
    answer = await original(request, form_data, *args, **kwargs)
    if again is not None and refuses_to_be_asked(answer, again):
        answer = await original(request, again, *args, **kwargs)
        unasked.note(model, again, answer)
    return answer


def pinned_request(request: Any, reply: Reply, form_data: Mapping[str, Any]) -> Any:
    """A copy of the request, since several models of one chat share it.

    It has the base that was admitted, which Open WebUI takes then: else it would look up the custom
    model's at this moment, and its user may have changed it since. A function, which gets it as
    `__request__`, can be seen by it to call another model.
    """
    pinned, base = copy(request), getattr(reply, "base", "")
    setattr(pinned, OUTER_ATTRIBUTE, reply)
    if base and form_data.get("model") == reply.reservation.model_names[0]:
        pinned.base_model_id = base
    return pinned


def unasked_name(reply: Reply, form_data: Mapping[str, Any]) -> str:
    """The model whose provider may be found to refuse; "" for the reply of an earlier paste."""
    find = getattr(reply, "trusted_model", None)
    return "" if find is None else find(form_data.get("model"))


def answer_content(answer: object) -> object:
    """The JSON of an answer that came whole; None where there is none."""
    if not isinstance(answer, Response):
        return answer
    try:
        return json.loads(bytes(answer.body))
    except (AttributeError, ValueError, RecursionError):
        return None


def is_failure(answer: object) -> bool:
    """Whether the provider refused instead of answering."""
    if isinstance(answer, Response):
        return answer.status_code >= 400
    return isinstance(answer, dict) and bool(answer.get("error")) and not answer.get("choices")
