"""Hypothesis strategies: arbitrary JSON, and JSON that looks like a provider's."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from helpers.metering.provider_usage import ALIAS_SLOTS
from helpers.metering.stream_events import NESTING_KEYS, TEXT_KEYS

# json.loads of Python and of orjson gives nan, inf, huge numbers and lone surrogates as well.
json_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(10**40), max_value=10**40)
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=20)
)
not_counts = (
    st.none()
    | st.booleans()
    | st.integers(max_value=-1)
    | st.integers(min_value=10**12 + 1)
    | st.sampled_from([float("nan"), float("inf"), -float("inf"), -0.5, -3.0, 1e300])
    | st.sampled_from(["", "many", "-5", "1e3", "0x10", "١٢", "12 tokens", "NaN", "9" * 50])
    | st.lists(st.integers(), max_size=2)
    | st.dictionaries(st.sampled_from(["prompt_tokens", "value"]), st.integers(), max_size=2)
)
counts = (
    st.integers(min_value=0, max_value=10**6)
    | st.integers(min_value=0, max_value=10**6).map(str)
    | st.integers(min_value=0, max_value=10**6).map(float)
)


def json_values(keys: st.SearchStrategy[str] | None = None) -> st.SearchStrategy[Any]:
    """Any JSON value; objects take their keys from `keys` where given."""
    names = st.text(max_size=10) if keys is None else keys | st.text(max_size=10)
    return st.recursive(
        json_scalars,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
        max_leaves=12,
    )


known_keys = st.sampled_from(
    sorted(
        {*ALIAS_SLOTS, *TEXT_KEYS, *NESTING_KEYS}
        | {"id", "type", "choices", "delta", "message", "finish_reason", "usage", "usageMetadata"}
        | {"timings", "x_groq", "response", "responseId", "candidates", "item", "content_block"}
        | {"done", "error", "event", "sources", "selected_model_id", "prompt_tokens_details"}
        | {"completion_tokens_details", "cost", "cost_details", "is_byok", "cached_tokens"}
        | {"reasoning_tokens", "upstream_inference_cost", "total_cost", "role", "messages"}
        | {"tools", "functions", "response_format", "system", "images", "image_url", "metadata"}
    )
)
arbitrary_json = json_values()
provider_like_json = json_values(known_keys)

usage_objects = st.dictionaries(
    st.sampled_from(sorted(ALIAS_SLOTS)), counts | not_counts, max_size=8
)
rubbish_usage_objects = st.dictionaries(
    st.sampled_from(sorted(ALIAS_SLOTS)), not_counts, max_size=8
)
completion_ids = st.sampled_from(["", "c1", "c2", "c3"]) | st.none() | st.integers()


@st.composite
def chat_chunks(draw: st.DrawFn, usages: st.SearchStrategy[Any] = usage_objects) -> dict[str, Any]:
    """A chat-completion chunk with text, usage, both or neither."""
    chunk: dict[str, Any] = {"id": draw(completion_ids), "object": "chat.completion.chunk"}
    texts = draw(st.lists(st.text(max_size=8), max_size=2))
    chunk["choices"] = [
        {
            "index": index,
            "delta": {"content": text},
            "finish_reason": draw(st.none() | st.just("stop")),
        }
        for index, text in enumerate(texts)
    ]
    if draw(st.booleans()):
        chunk["usage"] = draw(usages)
    return chunk


stream_events = chat_chunks() | provider_like_json | arbitrary_json
