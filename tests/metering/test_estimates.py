"""Estimates: near enough, never of base64, never an exception."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.metering.estimates import (
    IMAGE_TOKENS,
    LONGEST_READ_WHOLE,
    MEDIA_TOKENS,
    MOST_MEDIA_TOKENS,
    TOKENS_PER_MESSAGE,
    TOKENS_PER_REPLY,
    estimate_prompt,
    estimate_reply,
    estimate_tokens,
    json_text,
)
from scripts.bench.estimate_accuracy import adversarial_samples
from tests.support.strategies import arbitrary_json, provider_like_json

ADVERSARIAL_COUNTS = Path(__file__).parents[1] / "data" / "adversarial_counts.json"
FOUND_BY_SEARCH = Path(__file__).parents[1] / "data" / "adversarial_found.json"
PROSE = Path(__file__).parents[2] / "scripts" / "data"
PICTURE = "data:image/png;base64," + "iVBORw0KGgoAAAANSUhEUgAA" * 4000


def prompt_of(*messages: Any, **body: Any) -> int:
    return estimate_prompt({"messages": list(messages), **body})


def content_tokens(content: Any) -> int:
    return prompt_of({"role": "user", "content": content}) - prompt_of({"role": "user"})


@pytest.mark.parametrize(
    ("text", "tokens"),
    [  # as cl100k_base counts them
        ("", 0),
        ("hello", 1),
        ("What's the capital of Australia?", 7),
        ("The quick brown fox jumps over the lazy dog.", 10),
        ("Kannst du mir bitte erklären, warum der Kuchen zusammenfällt?", 18),
        ("Какая столица у Австралии?", 15),
        ("ما هي عاصمة أستراليا؟", 17),
        ("ऑस्ट्रेलिया की राजधानी क्या है?", 30),
        ("澳大利亚的首都是哪里？", 15),
        ("オーストラリアの首都はどこですか？", 15),
        ("def add(a, b):\n    return a + b\n", 12),
        ('{"name": "Oak fixture", "price": 349.9, "in_stock": true}', 21),
        ("1234567890", 4),
        ("👍🏽🎉", 9),
    ],
)
def test_short_texts_are_near_their_true_count(text: str, tokens: int) -> None:
    """Even single sentences are estimated within 35 % or two tokens of cl100k_base."""
    assert estimate_tokens(text) == pytest.approx(tokens, rel=0.35, abs=2)


@pytest.mark.parametrize(
    ("language", "tokens"),
    [  # of the whole file, as cl100k_base counts them
        ("english", 1606),
        ("german", 2216),
        ("russian", 3136),
        ("arabic", 3738),
        ("hindi", 5484),
        ("chinese", 2487),
        ("japanese", 2955),
        ("json", 1949),
    ],
)
def test_long_texts_are_within_fifteen_percent(language: str, tokens: int) -> None:
    """A few thousand tokens of each language are estimated within 15 % of cl100k_base."""
    text = (PROSE / f"{language}.txt").read_text("utf-8")
    assert estimate_tokens(text) == pytest.approx(tokens, rel=0.15)


@given(st.text(st.characters(exclude_categories=())))
def test_every_text_has_an_estimate(text: str) -> None:
    """Any text, lone surrogates included, costs at least a token and an empty one nothing."""
    assert (estimate_tokens(text) > 0) is bool(text)


@given(st.text(max_size=200), st.text(max_size=200))
def test_two_texts_cost_about_the_sum(one: str, other: str) -> None:
    """A text doesn't get cheaper than its lines by being sent in one piece."""
    together, apart = (
        estimate_tokens(f"{one}\n{other}"),
        estimate_tokens(one) + estimate_tokens(other),
    )
    assert together >= 0.6 * apart - 4


def test_json_text_of_what_cannot_be_written_is_empty() -> None:
    """JSON nested too deeply for Python's encoder costs nothing instead of raising."""
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    assert json_text(nested) == ""
    assert json_text({"a": "ü"}) == '{"a": "ü"}'


def test_a_message_costs_its_text_and_a_fixed_overhead() -> None:
    """Every message costs four tokens beyond its text, every reply three."""
    text = "How many calories has an apple?"
    overhead = TOKENS_PER_MESSAGE + TOKENS_PER_REPLY
    assert prompt_of({"role": "user", "content": text}) == estimate_tokens(text) + overhead
    assert prompt_of(*[{"role": "user", "content": ""}] * 5) == 5 * 4 + 3


@pytest.mark.parametrize(
    "body", [{}, {"messages": None}, {"messages": []}, {"messages": "", "tools": {}}]
)
def test_an_empty_prompt_costs_nothing(body: dict[str, Any]) -> None:
    """Without any message, tool or schema there is nothing to charge."""
    assert estimate_prompt(body) == 0


@pytest.mark.parametrize(
    "content",
    [
        {"type": "image_url", "image_url": {"url": PICTURE}},
        {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}},
        {"type": "input_image", "image_url": PICTURE},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PICTURE}},
        {"type": "input_audio", "input_audio": {"data": PICTURE, "format": "wav"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": PICTURE}},
        {"type": "document", "source": {"type": "base64", "data": PICTURE}},
        {"type": "video_url", "video_url": {"url": PICTURE}},
    ],
)
def test_media_cost_the_same_however_large(content: dict[str, Any]) -> None:
    """Pictures, sound and files have a fixed price, whether sent as data or as a link."""
    assert content_tokens([content]) == MEDIA_TOKENS[content["type"]]


@pytest.mark.parametrize("kind", ["text/plain", "text/csv;charset=utf-8", "application/json"])
def test_files_of_text_cost_their_text(kind: str) -> None:
    """A data URL of text is read as what it says, in a file; within a text it is text itself."""
    text = "Tell me all about the river. " * 3_000
    url = f"data:{kind};base64,{base64.b64encode(text.encode()).decode()}"
    part = {"type": "file", "file": {"filename": "a", "file_data": url}}
    assert content_tokens([part]) == content_tokens(text)
    assert content_tokens(f"See {url}") > content_tokens(text)
    for broken in (url[:-3] + "é", url.replace(";base64", "")):
        assert content_tokens([{"type": "file", "file": {"file_data": broken}}]) > 10_000


def test_every_picture_counts() -> None:
    """Two pictures cost twice one, and the text beside them comes on top."""
    picture = {"type": "image_url", "image_url": {"url": PICTURE}}
    text = {"type": "text", "text": "What is the difference?"}
    expected = 2 * IMAGE_TOKENS + estimate_tokens(text["text"])
    assert content_tokens([text, picture, picture]) == expected


def test_ollama_images_have_the_fixed_price() -> None:
    """Ollama's `images` list of bare base64 is priced by its length in pictures."""
    message = {"role": "user", "images": [PICTURE, PICTURE]}
    assert prompt_of(message) == 2 * IMAGE_TOKENS + TOKENS_PER_MESSAGE + TOKENS_PER_REPLY


@pytest.mark.parametrize("role", ["user", "assistant", "tool"])
def test_data_urls_within_text_are_pictures(role: str) -> None:
    """A data URL pasted into Markdown or a tool's result costs a picture, not its base64."""
    with_picture = prompt_of({"role": role, "content": f"Look: ![]({PICTURE}) and say."})
    without = prompt_of({"role": role, "content": "Look: ![]() and say."})
    assert with_picture - without == IMAGE_TOKENS


def test_a_word_about_data_urls_is_no_picture() -> None:
    """Text that merely mentions base64 is text."""
    text = "What does ;base64, mean in data: URLs?"
    assert content_tokens(text) == estimate_tokens(text)


TOOL = {
    "type": "function",
    "function": {
        "name": "get_forecast",
        "description": "Weather forecast for a place.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    },
}


@pytest.mark.parametrize(
    "body",
    [
        {"tools": [TOOL]},
        {"functions": [TOOL["function"]]},
        {"response_format": {"type": "json_schema", "json_schema": TOOL}},
        {"format": TOOL},
        {"prediction": {"type": "content", "content": "It may rain in the evening, then."}},
        {"documents": [{"title": "Rain", "text": "It may rain in the evening, then."}]},
    ],
)
def test_tools_and_schemas_count(body: dict[str, Any]) -> None:
    """Tools and schemas are part of what the provider reads."""
    message = {"role": "user", "content": "hello"}
    extra = prompt_of(message, **body) - prompt_of(message)
    assert extra >= 0.7 * estimate_tokens("You are a careful a")
    assert extra > 4


@pytest.mark.parametrize("key", ["prompt", "input", "system", "instructions", "images", "suffix"])
def test_only_what_the_provider_gets_counts(key: str) -> None:
    """What other protocols call a prompt costs nothing beside the messages of a chat."""
    hello = {"role": "user", "content": "hello"}
    assert prompt_of(hello, **{key: [{"type": "video"}] * 60_000}) == prompt_of(hello)
    assert prompt_of(hello, **{key: "and much more " * 1000}) == prompt_of(hello)
    if key != "images":
        assert estimate_prompt({key: "and much more " * 1000}) > 2000


@pytest.mark.parametrize("kind", sorted(MEDIA_TOKENS))
def test_a_type_makes_no_picture(kind: str) -> None:
    """A message's own type says nothing, nor does a part's that holds text or nothing at all."""
    text = "Tell me all about the river. " * 3_000
    message = {"role": "user", "content": text}
    assert prompt_of({**message, "type": kind}) == prompt_of(message)
    as_part = content_tokens([{"type": kind, "text": text}])
    assert as_part == content_tokens([{"type": "text", "text": text}])
    assert content_tokens([{"type": kind, "text": text, "url": PICTURE}]) > as_part
    for payload in ({}, {kind: ""}, {kind: None}, {kind: {}}, {"source": {"type": "base64"}}):
        assert content_tokens([{"type": kind, **payload}] * 500) == 0
    for name in ("image_url", "source", "data", "file"):
        assert content_tokens([{"type": kind, name: text}]) >= as_part
        assert content_tokens([{"type": kind, name: {"url": text}}]) >= as_part
    document = {"type": "document", "source": {"type": "text", "data": text}}
    assert content_tokens([document]) >= as_part


def test_media_cannot_be_made_from_nothing() -> None:
    """Tiny or endless media reserve no more than their own text or one full context."""
    tiny = {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,"}}
    assert content_tokens([tiny] * 1000) <= 1000 * len("data:video/mp4;base64,")
    link = {"type": "video_url", "video_url": {"url": "https://example.org/v.mp4"}}
    assert content_tokens([link] * 60_000) == MOST_MEDIA_TOKENS
    written = "![](data:image/png;base64,)" * 60_000
    assert content_tokens(written) < len(written)


def test_token_numbers_are_tokens() -> None:
    """A prompt that comes as token numbers costs one for each."""
    assert estimate_prompt({"prompt": [17, 1284, 99]}) == 3
    assert estimate_prompt({"input": [[17, 1284], [99]]}) == 3


@pytest.mark.parametrize(
    "message",
    [
        {
            "role": "assistant",
            "tool_calls": [{"function": {"name": "f", "arguments": '{"a": 123}'}}],
        },
        {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 123}}}]},
        {"role": "assistant", "function_call": {"name": "f", "arguments": '{"a": 123}'}},
        {"role": "assistant", "content": [{"type": "tool_use", "name": "f", "input": {"a": 123}}]},
        {"role": "user", "content": [{"type": "tool_result", "content": "it is 123 today"}]},
        {"role": "user", "content": [{"type": "tool_result", "content": [{"text": "it is 123"}]}]},
        {"role": "tool", "content": "it is 123 today"},
        {"role": "assistant", "reasoning_content": "it is 123 today"},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "it is 123 today"}]},
        {"role": "assistant", "thinking_blocks": [{"thinking": "it is 123 today"}]},
        {"type": "function_call_output", "output": "it is 123 today"},
        {"type": "function_call", "name": "f", "arguments": '{"a": 123}'},
    ],
)
def test_tools_in_the_history_count(message: dict[str, Any]) -> None:
    """Calls, their results and thoughts of earlier rounds are sent again, so they count."""
    assert prompt_of(message) >= TOKENS_PER_MESSAGE + TOKENS_PER_REPLY + 3


def test_responses_and_completions_bodies_count() -> None:
    """The `input` of the Responses API and the `prompt` of completions are prompts as well."""
    text = "Which river runs through Vienna?"
    assert estimate_prompt({"input": text}) == estimate_tokens(text)
    assert estimate_prompt({"prompt": text}) == estimate_tokens(text)
    assert estimate_prompt({"input": [{"role": "user", "content": text}]}) == estimate_tokens(text)


def test_deep_nesting_is_no_recursion() -> None:
    """A prompt nested a hundred thousand levels deep is walked without an exception."""
    content: Any = "deep"
    for _ in range(100_000):
        content = [{"content": content}]
    assert content_tokens(content) == estimate_tokens("deep")


@given(st.dictionaries(st.text(max_size=10), arbitrary_json) | provider_like_json)
def test_no_body_makes_it_raise(body: Any) -> None:
    """Any JSON object has an estimate, a whole number; a message more makes it larger."""
    body = body if isinstance(body, dict) else {"messages": body, "tools": body, "system": body}
    before = estimate_prompt(body)
    assert type(before) is int
    assert before >= 0
    said = {"role": "user", "content": "Hi"}
    once, twice = (estimate_prompt({**body, "messages": [said] * count}) for count in (1, 2))
    assert 0 < once < twice


def test_no_adversarial_text_is_below_half() -> None:
    """Noise, repetitions, markup, rare scripts and what a search found cost at least half."""
    samples, counts = adversarial_samples(), json.loads(ADVERSARIAL_COUNTS.read_text("utf-8"))
    texts = dict(zip(samples, counts, strict=True))  # as cl100k_base counts them
    texts |= json.loads(FOUND_BY_SEARCH.read_text("utf-8"))
    shares = {text: estimate_tokens(text) / count for text, count in texts.items()}
    assert min(shares.values()) >= 0.5, min(shares.items(), key=lambda item: item[1])


@pytest.mark.parametrize(
    ("text", "tokens"),
    [  # as cl100k_base counts them
        ("!" * 10_000, 1250),
        ("|---|---|---|\n" * 500, 3000),
        ("\n" * 10_000, 625),
        (" " * 10_000, 79),
    ],
)
def test_repeated_marks_are_not_free(text: str, tokens: int) -> None:
    """What a broken model or a client repeats costs at least half, and no multiple, of its true
    count."""
    assert tokens / 2 <= estimate_tokens(text) <= 5 * tokens


def test_dear_text_cannot_hide_between_the_samples() -> None:
    """A long text's dear part counts wherever it stands in it."""
    cheap, dear = "the " * 2_000, "#x!Q" * 7_000
    for hidden in (cheap + dear, dear + cheap, *(cheap * n + dear + cheap for n in (2, 3, 5))):
        text = hidden * 8
        parts = 8 * (estimate_tokens(dear) + estimate_tokens(cheap) * hidden.count(cheap))
        assert estimate_tokens(text) >= 0.75 * parts


@pytest.mark.parametrize("text", ["\ud800", "\udfff\n", "\x00", "考", "qzXJ", "\u200b\t"])
def test_no_text_takes_long(text: str) -> None:
    """A megabyte of anything is estimated within a fraction of a second."""
    started = time.process_time()
    assert estimate_tokens(text * (10**6 // len(text))) > 10**4
    assert time.process_time() - started < 0.2


@pytest.mark.parametrize(
    "messages",
    [
        [{}] * 10**6,
        [{"role": "user", "content": [{}] * 10**6}],
        [{"role": "user", "content": [[]] * 10**6}],
        [{"role": "user", "content": [0] * 10**6}],
    ],
)
def test_no_number_of_parts_takes_long(messages: Any) -> None:
    """Nor is a million of empty parts, which are some megabytes of JSON."""
    started = time.process_time()
    estimate_prompt({"messages": messages})
    assert time.process_time() - started < 0.2


def test_a_picture_in_a_reply_is_no_text() -> None:
    """A data URL that a model answers with costs a picture; a short one what it is long."""
    assert estimate_reply(f"Here: ![]({PICTURE})") < IMAGE_TOKENS + 10
    assert estimate_reply("data:image/png;base64,QUJD " * 100) < 100 * 15
    assert estimate_reply("What does ;base64, mean?") == estimate_tokens("What does ;base64, mean?")


def test_long_text_is_sampled_evenly() -> None:
    """A text too long to be read whole is estimated within a few percent of its parts' sum."""
    words = "The quick brown fox jumps over 1234 lazy dogs, again and again.\n" * 1_000
    mixed = words + "Грамматика и синтаксис русского языка.\n" * 1_000 + words
    assert len(mixed) > LONGEST_READ_WHOLE
    parts = sum(estimate_tokens(mixed[i : i + 50_000]) for i in range(0, len(mixed), 50_000))
    assert abs(estimate_tokens(mixed) - parts) < 0.05 * parts
