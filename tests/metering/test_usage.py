"""Usage in every provider's shape, added up event by event."""

from __future__ import annotations

import copy
import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.metering.estimates import estimate_tokens
from helpers.metering.provider_usage import LARGEST_COUNT, ReportedUsage, parse_usage
from helpers.metering.usage import ReplyMeter, Usage, metered_call
from tests.support.strategies import (
    arbitrary_json,
    chat_chunks,
    not_counts,
    provider_like_json,
    rubbish_usage_objects,
    stream_events,
    usage_objects,
)

CASES = json.loads((Path(__file__).parents[1] / "data" / "usage_shapes.json").read_text("utf-8"))
STREAMED = [case for case in CASES if case["stream"]]
COUNTED = [case for case in CASES if not case["expected"]["estimated"]]
PROMPT_TOKENS = 8
TEXT = "The answer is forty-two, as everybody knows."
TEXT_TOKENS = estimate_tokens(TEXT)


def metered(*events: Any, prompt_tokens: int = PROMPT_TOKENS) -> ReplyMeter:
    meter = ReplyMeter()
    meter.begin_round(prompt_tokens)
    for event in events:
        meter.add_event(event)
    return meter


def has_started(meter: ReplyMeter) -> bool:
    """Whether a provider sent anything but errors: a round that is announced then is another."""
    later = deepcopy(meter)
    later.begin_round(7)
    return later.awaited_prompt_tokens == 7


def chunk(
    text: str | None = None,
    usage: Any = None,
    completion_id: str | None = "c1",
    finish: str | None = None,
    **extra: Any,
) -> dict[str, Any]:
    delta = {} if text is None else {"content": text}
    event: dict[str, Any] = {
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        **extra,
    }
    if completion_id is not None:
        event["id"] = completion_id
    if usage is not None:
        event["usage"] = usage
    return event


def usage_chunk(usage: Any, completion_id: str | None = "c1", **extra: Any) -> dict[str, Any]:
    return {**chunk(usage=usage, completion_id=completion_id, **extra), "choices": []}


def openai_usage(prompt: Any, completion: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion}


def tokens(usage: Usage | ReportedUsage) -> tuple[int | None, int | None]:
    return usage.input_tokens, usage.output_tokens


def outlet_text_of(case: dict[str, Any]) -> str:
    deltas = [
        choice["delta"].get("content", "")
        for event in case["stream"]
        for choice in event.get("choices", [])
    ]
    return case.get("assistant_content") or "".join(deltas)


def assert_expected(total: Usage, expected: dict[str, Any]) -> None:
    least, most = expected.get("output_tokens_least", 1), expected.get("output_tokens_most")
    assert total.output_tokens >= least or expected["output_tokens"] == 0
    assert most is None or total.output_tokens <= most
    if "cost_micros" in expected:
        assert total.cost_micros == expected["cost_micros"]
    for name in ("input_tokens", "output_tokens"):
        if expected[name] is None:
            assert getattr(total, name) > 0
        else:
            assert getattr(total, name) == expected[name]
    assert total.estimated is expected["estimated"]


class TestPublicCases:
    """The cases of public reports, and what changes nothing about them."""

    @pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
    def test_case(self, case: dict[str, Any]) -> None:
        """Each public report's reply is charged with what it really used."""
        total = metered(*case["stream"]).total(case["outlet_usage"], outlet_text_of(case))
        assert_expected(total, case["expected"])
        if "expected_cost" in case:
            assert total.cost_micros == round(case["expected_cost"] * 1_000_000)

    @pytest.mark.parametrize("case", STREAMED, ids=lambda case: case["id"])
    def test_case_once_more_in_a_second_round(self, case: dict[str, Any]) -> None:
        """A second model call with the same ids counts as a second call."""
        meter = metered(*case["stream"])
        once = meter.total(case["outlet_usage"], outlet_text_of(case))
        meter.begin_round(PROMPT_TOKENS)
        for event in case["stream"]:
            meter.add_event(event)
        twice = meter.total(case["outlet_usage"], outlet_text_of(case))
        assert twice.input_tokens == 2 * once.input_tokens
        assert twice.output_tokens == 2 * once.output_tokens

    @pytest.mark.parametrize("case", COUNTED, ids=lambda case: case["id"])
    def test_case_with_events_repeated(self, case: dict[str, Any]) -> None:
        """Usage that is sent twice for one completion counts once."""
        twice = [event for event in case["stream"] for _ in range(2)]
        total = metered(*twice).total(case["outlet_usage"], outlet_text_of(case))
        assert_expected(total, case["expected"])

    @pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
    def test_case_with_other_events_between(self, case: dict[str, Any]) -> None:
        """The host's own events, keep-alives and rubbish between the chunks change nothing."""
        noise = [{"event": {"type": "status"}}, {"sources": []}, {"type": "ping"}, {}, None, "x"]
        events = [event for each in case["stream"] for event in (*noise, each, *noise)]
        total = metered(*events).total(case["outlet_usage"], outlet_text_of(case))
        assert_expected(total, case["expected"])

    @pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
    def test_case_is_left_as_it_was(self, case: dict[str, Any]) -> None:
        """Metering changes no event, since the user still gets it."""
        before = copy.deepcopy(case)
        metered(*case["stream"]).total(case["outlet_usage"], outlet_text_of(case))
        assert case == before


class TestShapes:
    """One usage object of each provider."""

    @pytest.mark.parametrize(
        ("usage", "expected"),
        [
            (openai_usage(12, 7), (12, 7, 0)),
            (
                openai_usage(12, 7) | {"prompt_tokens_details": {"cached_tokens": 5}},
                (12, 7, 5),
            ),
            (openai_usage(12, 7) | {"prompt_tokens_details": None}, (12, 7, 0)),
            (  # OpenAI's Responses: cached inside
                {
                    "input_tokens": 90,
                    "input_tokens_details": {"cached_tokens": 64},
                    "output_tokens": 30,
                    "output_tokens_details": {"reasoning_tokens": 20},
                    "total_tokens": 120,
                },
                (90, 30, 64),
            ),
            (  # OpenAI's Realtime: the same under another name, and by kind
                {
                    "input_tokens": 132,
                    "input_token_details": {
                        "text_tokens": 119,
                        "audio_tokens": 13,
                        "cached_tokens": 64,
                        "cached_tokens_details": {"text_tokens": 64, "audio_tokens": 0},
                    },
                    "output_tokens": 121,
                    "output_token_details": {"text_tokens": 30, "audio_tokens": 91},
                    "total_tokens": 253,
                },
                (132, 121, 64),
            ),
            (  # LangChain, in front of Anthropic
                {
                    "input_tokens": 350,
                    "input_token_details": {"cache_read": 100, "cache_creation": 200},
                    "output_tokens": 24,
                    "total_tokens": 374,
                },
                (350, 24, 100),
            ),
            (  # Anthropic: both cache counts outside, and their split is a repetition
                {
                    "input_tokens": 3,
                    "cache_read_input_tokens": 100,
                    "cache_creation_input_tokens": 20,
                    "cache_creation": {"ephemeral_5m_input_tokens": 20},
                    "output_tokens": 9,
                    "service_tier": "standard",
                },
                (123, 9, 100),
            ),
            ({"input_tokens": 0, "cache_read_input_tokens": 70, "output_tokens": 2}, (70, 2, 70)),
            (  # the host's own zeros beside it
                {
                    "prompt_tokens": 0,
                    "completion_tokens": 0,
                    "input_tokens": 5,
                    "output_tokens": 9,
                    "cache_read_input_tokens": 70,
                },
                (75, 9, 70),
            ),
            (  # LiteLLM: inside, and again among the details
                {
                    "prompt_tokens": 2570,
                    "completion_tokens": 9,
                    "total_tokens": 2579,
                    "cache_read_input_tokens": 2400,
                    "prompt_tokens_details": {"cached_tokens": 2400},
                },
                (2570, 9, 2400),
            ),
            (  # a gateway that only renamed Anthropic's input: the cache can't be inside
                {
                    "prompt_tokens": 50,
                    "completion_tokens": 9,
                    "cache_read_input_tokens": 2400,
                },
                (2450, 9, 2400),
            ),
            (  # the total says so where the size doesn't
                {
                    "prompt_tokens": 5000,
                    "completion_tokens": 9,
                    "total_tokens": 5409,
                    "cache_read_input_tokens": 400,
                },
                (5400, 9, 400),
            ),
            (  # Gemini, native
                {
                    "promptTokenCount": 30,
                    "candidatesTokenCount": 12,
                    "thoughtsTokenCount": 100,
                    "toolUsePromptTokenCount": 5,
                    "cachedContentTokenCount": 20,
                    "totalTokenCount": 147,
                },
                (35, 112, 20),
            ),
            ({"promptTokenCount": 30, "totalTokenCount": 30}, (30, 0, 0)),
            (
                {"prompt_token_count": 30, "candidates_token_count": 12, "thoughts_token_count": 3},
                (30, 15, 0),
            ),
            (  # Gemini, compatible: thinking only in the total
                {"prompt_tokens": 20, "completion_tokens": 8, "total_tokens": 528},
                (20, 508, 0),
            ),
            (  # Bedrock, with and without the cache in its total
                {
                    "inputTokens": 13,
                    "outputTokens": 12,
                    "totalTokens": 125,
                    "cacheReadInputTokens": 80,
                    "cacheWriteInputTokens": 20,
                },
                (113, 12, 80),
            ),
            (
                {
                    "inputTokens": 13,
                    "outputTokens": 12,
                    "totalTokens": 25,
                    "cacheReadInputTokens": 80,
                },
                (93, 12, 80),
            ),
            (
                {"prompt_eval_count": 26, "eval_count": 290, "eval_duration": 4799921000},
                (26, 290, 0),
            ),
            ({"cache_n": 4, "prompt_n": 11, "predicted_n": 5, "predicted_ms": 1.5}, (15, 5, 4)),
            (
                openai_usage(100, 10)
                | {"prompt_cache_hit_tokens": 20, "prompt_cache_miss_tokens": 80},
                (100, 10, 20),
            ),
            (openai_usage(100, 10) | {"cached_tokens": 64}, (100, 10, 64)),  # Moonshot
            (
                openai_usage(100, 10)
                | {"total_tokens": 150, "completion_tokens_details": {"reasoning_tokens": 40}},
                (100, 50, 0),
            ),
            (  # a total that reasoning can't explain is no total of this call
                openai_usage(100, 10)
                | {"total_tokens": 9000, "completion_tokens_details": {"reasoning_tokens": 0}},
                (100, 10, 0),
            ),
            (openai_usage(100, 10) | {"total_tokens": 50}, (100, 10, 0)),
            ({"prompt_tokens": 10, "total_tokens": 30}, (10, 20, 0)),
            ({"completion_tokens": 10, "total_tokens": 30}, (20, 10, 0)),
            (
                openai_usage(500, 435) | {"prompt_tokens_details": {"cached_tokens": 6952}},
                (7452, 435, 6952),
            ),
            (
                openai_usage(500, 435)
                | {"total_tokens": 7887, "prompt_tokens_details": {"cached_tokens": 6952}},
                (7452, 435, 6952),
            ),
            (  # Voxtral: the sound is only in the total
                openai_usage(4, 635) | {"prompt_audio_seconds": 203, "total_tokens": 3264},
                (2629, 635, 0),
            ),
            (
                openai_usage(20, 8) | {"tool_use_prompt_tokens": 30, "total_tokens": 58},
                (50, 8, 0),
            ),
            (  # the prompts of tools and the thinking are both only in the total
                openai_usage(20, 8)
                | {"tool_use_prompt_tokens": 30, "total_tokens": 158}
                | {"completion_tokens_details": {"reasoning_tokens": 100}},
                (50, 108, 0),
            ),
            (openai_usage("1,234", "12,345.5"), (1234, 12346, 0)),
            (openai_usage(12.7, 0.2), (13, 1, 0)),
            (openai_usage("10", 4.0), (10, 4, 0)),
            (openai_usage(" 10 ", "4.0"), (10, 4, 0)),
            (openai_usage(0, 0), (None, 0, 0)),
            (openai_usage(10, 0), (10, 0, 0)),
            ({"prompt_tokens_details": {"cached_tokens": 5}}, (None, None, 0)),
        ],
    )
    def test_shape(
        self, usage: dict[str, Any], expected: tuple[int | None, int | None, int]
    ) -> None:
        """Each provider's object gives its input with the cache, its output with the thinking."""
        parsed = parse_usage(usage)
        assert (*tokens(parsed), parsed.cached_input_tokens) == expected

    def test_total_alone(self) -> None:
        """A total without its parts is kept whole."""
        assert parse_usage({"total_tokens": 30}) == ReportedUsage(total_tokens=30)

    def test_timings_stand_in_for_usage(self) -> None:
        """llama.cpp's timings beside an empty usage are usage."""
        timings = {"cache_n": 4, "prompt_n": 11, "predicted_n": 5}
        assert tokens(parse_usage({}, timings)) == (15, 5)
        assert tokens(parse_usage(openai_usage(15, 5), timings)) == (15, 5)

    @pytest.mark.parametrize("raw", [None, [], "usage", 7, True, {}, [{"prompt_tokens": 3}]])
    def test_what_is_no_object_is_no_usage(self, raw: Any) -> None:
        """Only an object can say something."""
        assert parse_usage(raw, raw if not isinstance(raw, dict) else None) == ReportedUsage()

    @given(
        st.sampled_from(["prompt_tokens", "input_tokens", "eval_count", "total_tokens"]), not_counts
    )
    def test_what_is_no_count_is_not_said(self, name: str, value: Any) -> None:
        """Negative, fractional, boolean, textual, absurd or nested values count as missing."""
        assert parse_usage({name: value}) == ReportedUsage()

    @given(not_counts)
    def test_rubbish_hides_no_good_spelling(self, rubbish: Any) -> None:
        """A good count is found among spellings of the same that aren't counts."""
        usage = {
            "input_tokens": rubbish,
            "prompt_tokens": 10,
            "output_tokens": 4,
            "eval_count": rubbish,
        }
        assert tokens(parse_usage(usage)) == (10, 4)

    @given(usage_objects | provider_like_json)
    def test_counts_are_never_negative(self, raw: Any) -> None:
        """Whatever is read is absent or at least zero, and the cached part is no more than all."""
        parsed = parse_usage(raw, raw)
        for count in (*tokens(parsed), parsed.total_tokens, parsed.cost_micros):
            assert count is None or 0 <= count <= 8 * LARGEST_COUNT
        if parsed.input_tokens is not None:
            assert 0 <= parsed.cached_input_tokens <= parsed.input_tokens


class TestCost:
    """What a provider says that a call cost."""

    @pytest.mark.parametrize(
        ("usage", "micros"),
        [
            ({"cost": 0.00042}, 420),
            ({"cost": "0.00042"}, 420),
            ({"cost": 0}, 0),
            ({"cost": 0.1 + 0.2}, 300_000),
            ({"cost": 0.00042, "cost_details": {"upstream_inference_cost": None}}, 420),
            (  # OpenRouter's own key: the upstream cost is a part
                {"cost": 0.5, "is_byok": False, "cost_details": {"upstream_inference_cost": 0.5}},
                500_000,
            ),
            (  # the user's key: it comes on top of the fee
                {"cost": 0.05, "is_byok": True, "cost_details": {"upstream_inference_cost": 1}},
                1_050_000,
            ),
            ({"cost": 0.95, "cost_details": {"upstream_inference_cost": 19}}, 19_950_000),
            ({"cost": 0.5, "cost_details": {"upstream_inference_cost": 0.5}}, 500_000),
            ({"cost_details": {"upstream_inference_cost": 0.5}}, 500_000),
            ({"cost": {"input_tokens_cost": 0.1, "total_cost": 0.3}}, 300_000),  # Perplexity
            ({"total_cost": 0.3}, 300_000),
            ({"cost_in_usd_ticks": 232_856_000}, 23_286),  # xAI
            ({"estimated_cost": 0.00042}, 420),  # DeepInfra
            ({"input_cost": 0.1, "output_cost": 0.2}, 300_000),
            ({"cost": {"input": 0.1, "output": 0.2, "total": 0.3}}, 300_000),
            ({"cost": 0, "estimated_cost": 0.5}, 500_000),
            ({"cost": 0.0000001}, 1),  # the sum of a million such must not be nothing
            ({"cost_in_usd_ticks": 1}, 1),
            ({"cost": "9" * 5000}, None),
            ({"cost_in_usd_ticks": 10**400}, None),
            ({"cost": -1}, None),
            ({"cost": float("nan")}, None),
            ({"cost": float("inf")}, None),
            ({"cost": 10**400}, None),
            ({"cost": True}, None),
            ({"cost": "free"}, None),
            ({"cost": [1]}, None),
            ({"cost_details": [1]}, None),
            ({}, None),
        ],
    )
    def test_cost(self, usage: dict[str, Any], micros: int | None) -> None:
        """Costs are dollars as a number, with the upstream cost added for a key of one's own."""
        assert parse_usage(usage).cost_micros == micros

    def test_costs_of_rounds_add_up(self) -> None:
        """Each call's highest cost counts, and a call without a cost doesn't hide the others'."""
        meter = metered(
            usage_chunk(openai_usage(10, 5) | {"cost": 0.1}),
            usage_chunk(openai_usage(10, 5) | {"cost": 0.3}),
        )
        for usage in (openai_usage(10, 5) | {"cost": 0.2}, openai_usage(10, 5)):
            meter.begin_round(PROMPT_TOKENS)
            meter.add_event(usage_chunk(usage))
        assert meter.total().cost_micros == 500_000


class TestWhereUsageStands:
    """Usage in every place of an event."""

    @pytest.mark.parametrize(
        "event",
        [
            usage_chunk(openai_usage(9, 3)),
            {"id": "c1", "usage": openai_usage(9, 3)},
            {"usage": openai_usage(9, 3), "choices": None},
            usage_chunk(None, x_groq={"id": "req_1", "usage": openai_usage(9, 3)}),
            {
                "id": "c1",
                "choices": [{"delta": {}, "finish_reason": "stop", "usage": openai_usage(9, 3)}],
            },
            {
                "type": "response.completed",
                "response": {"id": "r", "usage": {"input_tokens": 9, "output_tokens": 3}},
            },
            {
                "type": "response.incomplete",
                "response": {"usage": {"input_tokens": 9, "output_tokens": 3}},
            },
            {
                "type": "message_start",
                "message": {"usage": {"input_tokens": 9, "output_tokens": 3}},
            },
            {
                "model": "m",
                "message": {"role": "assistant", "content": ""},
                "done": True,
                "prompt_eval_count": 9,
                "eval_count": 3,
            },
            {"model": "m", "response": "", "done": True, "prompt_eval_count": 9, "eval_count": 3},
            {"usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 3}, "candidates": []},
            {"usage_metadata": {"prompt_token_count": 9, "candidates_token_count": 3}},
            {"metadata": {"usage": {"inputTokens": 9, "outputTokens": 3, "totalTokens": 12}}},
            chunk(timings={"cache_n": 4, "prompt_n": 5, "predicted_n": 3}),
            {"id": "c1", "choices": [{"delta": {"content": "", "usage": openai_usage(9, 3)}}]},
            {"choices": [{"delta": {}, "message": {"usage": openai_usage(9, 3)}}]},
            usage_chunk([openai_usage(4, 1), openai_usage(5, 2), "none"]),
            {
                "token": {"text": ""},
                "details": {"generated_tokens": 3, "input_length": 9, "finish_reason": "length"},
            },
            {"results": [{"generated_token_count": 3, "input_token_count": 9}]},
            {
                "type": "message-end",
                "delta": {
                    "usage": {
                        "billed_units": {"input_tokens": 2, "output_tokens": 3},
                        "tokens": {"input_tokens": 9, "output_tokens": 3},
                    }
                },
            },
            {
                "type": "message_stop",
                "amazon-bedrock-invocationMetrics": {"inputTokenCount": 9, "outputTokenCount": 3},
            },
            {"meta": {"billed_units": {"input_tokens": 9, "output_tokens": 3}}},
            usage_chunk(openai_usage("9.0", 2.7)),
        ],
    )
    def test_place(self, event: dict[str, Any]) -> None:
        """Usage is found wherever a provider puts it, and then nothing is estimated."""
        total = metered(event).total()
        assert tokens(total) == (9, 3)
        assert not total.estimated

    @pytest.mark.parametrize(
        "event",
        [
            {"type": "response.completed", "response": {"metadata": openai_usage(10**9, 10**9)}},
            chunk(TEXT, metadata=openai_usage(10**9, 10**9)),
            {"message": {"tool_calls": [{"function": {"arguments": openai_usage(10**9, 9)}}]}},
            {"candidates": [{"content": {"parts": [{"functionCall": {"args": {"usage": {}}}}]}}]},
            {"response": {"tools": [{"examples": [{"usage": openai_usage(10**9, 9)}]}]}},
        ],
    )
    def test_what_a_client_or_model_wrote_is_no_usage(self, event: dict[str, Any]) -> None:
        """Numbers in a request's metadata, its tools or a call's arguments are no usage."""
        total = metered(event).total()
        assert max(tokens(total)) < 100

    def test_anthropic_native_running_totals(self) -> None:
        """Input comes with message_start, output as a running total with message_delta."""
        events = [
            {
                "type": "message_start",
                "message": {
                    "id": "msg_1",
                    "content": [],
                    "usage": {
                        "input_tokens": 25,
                        "cache_read_input_tokens": 75,
                        "output_tokens": 1,
                    },
                },
            },
            {"type": "content_block_start", "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "delta": {"type": "text_delta", "text": TEXT}},
            {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 15}},
            {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 18}},
            {"type": "message_stop"},
        ]
        assert metered(*events).total() == Usage(100, 18, 75, None, False)

    def test_gemini_native_running_totals(self) -> None:
        """Gemini repeats its counts on every chunk under one responseId."""
        events = [
            {
                "responseId": "g1",
                "candidates": [{"content": {"parts": [{"text": "word "}]}}],
                "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": count},
            }
            for count in (1, 2, 3)
        ]
        assert metered(*events).total() == Usage(9, 3)


class TestGrouping:
    """Which usage is of which call."""

    def test_maximum_within_an_id_whatever_the_order(self) -> None:
        """A smaller figure later in the same completion takes nothing back."""
        chunks = [usage_chunk(openai_usage(10, count)) for count in (3, 7, 5, 0)]
        assert tokens(metered(*chunks).total()) == (10, 7)
        assert tokens(metered(*reversed(chunks)).total()) == (10, 7)

    def test_fields_may_come_in_different_chunks(self) -> None:
        """Input in one chunk and output in another are one call's usage."""
        events = [usage_chunk({"prompt_tokens": 10}), usage_chunk({"completion_tokens": 4})]
        assert metered(*events).total() == Usage(10, 4)

    def test_several_ids_add_up(self) -> None:
        """Different ids are different calls, also when they come back interleaved."""
        events = [
            usage_chunk(openai_usage(10, 1), "a"),
            usage_chunk(openai_usage(20, 2), "b"),
            usage_chunk(openai_usage(10, 3), "a"),
            usage_chunk(openai_usage(20, 5), "b"),
        ]
        assert tokens(metered(*events).total()) == (30, 8)

    def test_ids_with_text_and_usage_in_one_chunk_add_up(self) -> None:
        """Two calls are two calls even if no finish_reason stands between them."""
        events = [
            chunk("one", openai_usage(10, 1), "a"),
            chunk("two ", None, "b"),
            chunk("three", openai_usage(20, 2), "b"),
        ]
        assert metered(*events).total() == Usage(30, 3)

    def test_chunks_without_id_belong_to_the_latest(self) -> None:
        """Usage without an id is the current completion's."""
        events = [
            chunk("x", openai_usage(10, 1), "a"),
            usage_chunk(openai_usage(10, 4), None),
            chunk("y", openai_usage(20, 1), "b", finish="stop"),
            usage_chunk(openai_usage(20, 6), ""),
        ]
        assert metered(*events).total() == Usage(30, 10)

    def test_no_ids_at_all_are_one_call(self) -> None:
        """Running totals without any id are the running totals of one call."""
        events = [chunk("x", openai_usage(10, count), None) for count in (1, 2, 3)]
        assert metered(*events).total() == Usage(10, 3)

    def test_usage_without_id_is_adopted_by_the_id_that_follows(self) -> None:
        """Usage that comes before the first id is of the same completion."""
        events = [usage_chunk(openai_usage(10, 1), None), usage_chunk(openai_usage(10, 4), "a")]
        assert tokens(metered(*events).total()) == (10, 4)

    def test_a_fresh_id_on_every_chunk_is_one_call(self) -> None:
        """The host gives each chunk of a pipe function an id of its own."""
        events = [chunk(word, None, f"pipe-{word}") for word in ("one ", "two ", "three")]
        estimated = metered(*events, chunk(None, None, "pipe-end", "stop")).total()
        assert estimated == Usage(PROMPT_TOKENS, estimate_tokens("one two three"), 0, None, True)
        counted = metered(*events, usage_chunk(openai_usage(10, 5), "pipe-end")).total()
        assert counted == Usage(10, 5)

    def test_a_fresh_id_and_a_running_total_on_every_chunk_is_one_call(self) -> None:
        """The prompt isn't multiplied by the number of chunks, wherever the totals stand."""
        words = TEXT.split()
        beside = [
            chunk(word, openai_usage(1000, count), f"id-{count}")
            for count, word in enumerate(words, 1)
        ]
        end = [
            chunk(None, None, "id-end", "stop"),
            usage_chunk(openai_usage(1000, len(words)), "id-usage"),
        ]
        expected = Usage(1000, len(words), 0, None, False)
        assert metered(*beside, *end).total() == expected
        between = [
            event
            for count, word in enumerate(words, 1)
            for event in (
                chunk(word, None, f"text-{count}"),
                usage_chunk(openai_usage(1000, count), f"usage-{count}"),
            )
        ]
        assert metered(*between, *end).total() == expected
        without_prompt = [chunk(words[0], openai_usage(1000, 1), "id-0")] + [
            chunk(word, {"completion_tokens": count}, f"id-{count}")
            for count, word in enumerate(words[1:], 2)
        ]
        assert metered(*without_prompt).total() == expected

    def test_calls_with_stable_ids_add_up(self) -> None:
        """Two calls with the same prompt are two where their ids are the same on every chunk."""
        events = [
            chunk(word, usage, completion_id)
            for completion_id in ("a", "b")
            for word, usage in (("one ", None), ("two", openai_usage(10, 2)))
        ]
        assert metered(*events).total() == Usage(20, 4)
        finished = [
            chunk("one", openai_usage(10, 2), "a", finish="stop"),
            chunk("two", openai_usage(10, 2), "b", finish="stop"),
        ]
        assert metered(*finished).total() == Usage(20, 4)

    def test_a_fresh_id_and_zero_usage_on_every_chunk_is_one_call(self) -> None:
        """Zeros on every chunk are no usage, so they don't make calls out of chunks."""
        events = [chunk(word, openai_usage(0, 0), f"id-{word}") for word in ("one ", "two ", "3")]
        assert metered(*events).total().input_tokens == PROMPT_TOKENS

    def test_the_same_id_in_two_rounds_is_two_calls(self) -> None:
        """Between two `request` hooks lie two model calls, whatever their ids."""
        meter = metered(usage_chunk(openai_usage(10, 5)))
        meter.begin_round(20)
        meter.add_event(usage_chunk(openai_usage(15, 5)))
        assert tokens(meter.total()) == (25, 10)

    def test_a_second_call_in_a_round_may_be_stopped(self) -> None:
        """Before Open WebUI 0.11.2 no hook separates the calls; the second counts all the same."""
        events = [
            chunk("Let me look.", None, "a", finish="tool_calls"),
            usage_chunk(openai_usage(100, 20), "a"),
            chunk(None, None, "b"),
            chunk(TEXT, None, "b"),
        ]
        total = metered(*events).total()
        assert total == Usage(100 + PROMPT_TOKENS, 20 + TEXT_TOKENS, estimated=True)


class TestRounds:
    """Model calls, as the hooks announce them."""

    def test_announcing_twice_is_one_round(self) -> None:
        """The host can call `request` twice before one model call: the later estimate holds."""
        meter = metered()
        meter.begin_round(50)
        meter.begin_round(70)
        meter.add_event(chunk(TEXT))
        assert meter.total() == Usage(70, TEXT_TOKENS, estimated=True)

    def test_it_is_known_whether_an_error_came(self) -> None:
        """An error in a stream is told from a model that is silent, in every provider's words."""
        for event in ({"error": "busy"}, {"type": "error"}, {"type": "response.failed"}):
            assert metered({"choices": []}, event).failed
        assert not metered({"choices": []}, {"sources": []}).failed

    def test_an_error_or_host_event_begins_no_round(self) -> None:
        """What the provider didn't answer is announced anew."""
        meter = metered({"error": {"message": "busy"}}, {"sources": [{}]}, {"event": {}})
        meter.begin_round(70)
        meter.add_event(chunk(TEXT))
        assert meter.total().input_tokens == 70

    def test_rounds_with_and_without_usage_add_up(self) -> None:
        """A counted round is taken as counted and an uncounted one is estimated beside it."""
        meter = metered(chunk("tool"), usage_chunk(openai_usage(100, 20)))
        meter.begin_round(130)
        meter.add_event(chunk(TEXT))
        assert meter.total() == Usage(230, 20 + TEXT_TOKENS, estimated=True)

    def test_a_round_without_anything_costs_nothing(self) -> None:
        """A later call that failed before it produced anything adds nothing."""
        meter = metered(chunk("tool"), usage_chunk(openai_usage(100, 20)))
        for events in ([{"error": "busy"}], [chunk(None)], []):
            meter.begin_round(5000)
            for event in events:
                meter.add_event(event)
        assert meter.total(None, "tool") == Usage(100, 20)

    def test_events_before_any_round_count(self) -> None:
        """A meter that nobody announced a round to still counts."""
        meter = ReplyMeter()
        meter.add_event(usage_chunk(openai_usage(10, 5)))
        assert tokens(meter.total()) == (10, 5)


class TestEstimatedText:
    """Text that is counted because no usage came."""

    @pytest.mark.parametrize(
        "event",
        [
            chunk(TEXT),
            {"choices": [{"delta": {"role": "assistant", "content": TEXT}}]},
            {"choices": [{"delta": {"content": "", "reasoning_content": TEXT}}]},
            {"choices": [{"delta": {"content": None, "reasoning": TEXT}}]},
            {"choices": [{"delta": {"reasoning": TEXT, "reasoning_content": TEXT}}]},
            {"choices": [{"delta": {"reasoning": TEXT, "reasoning_details": [{"text": TEXT}]}}]},
            {"choices": [{"delta": {"refusal": TEXT}}]},
            {"choices": [{"delta": {"audio": {"data": "UklGRg" * 99, "transcript": TEXT}}}]},
            {
                "choices": [
                    {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": TEXT}}]}}
                ]
            },
            {"choices": [{"delta": {"function_call": {"name": TEXT}}}]},
            {"choices": [{"delta": {"content": [{"type": "text", "text": TEXT}]}}]},
            {
                "choices": [
                    {"delta": {"content": [{"type": "thinking", "thinking": [{"text": TEXT}]}]}}
                ]
            },
            {"choices": [{"delta": {"content": TEXT}, "message": {"content": TEXT}}]},
            {"choices": [{"message": {"role": "assistant", "content": TEXT}}]},
            {"choices": [{"text": TEXT, "index": 0}]},
            {"choices": [{"delta": {"reasoning_details": [{"type": "t", "text": TEXT}]}}]},
            {
                "choices": [
                    {"delta": {}, "message": {"content": TEXT}, "finish_reason": "stop"},
                ]
            },
            {"type": "response.output_item.done", "item": {"type": "function_call", "name": TEXT}},
            {
                "type": "response.output_item.done",
                "item": {"type": "reasoning", "summary": [{"type": "summary_text", "text": TEXT}]},
            },
            {"type": "response.completed", "response": {"output": [{"content": TEXT}]}},
            {"type": "content-delta", "delta": {"message": {"content": {"text": TEXT}}}},
            {"token": {"id": 5, "text": TEXT}, "generated_text": None},
            {"results": [{"generated_text": TEXT}]},
            {"contentBlockDelta": {"delta": {"text": TEXT}, "contentBlockIndex": 0}},
            {"type": "response.output_text.delta", "delta": TEXT},
            {"type": "response.reasoning_summary_text.delta", "delta": TEXT},
            {"type": "response.function_call_arguments.delta", "delta": TEXT},
            {"type": "response.refusal.delta", "delta": TEXT},
            {"type": "response.output_item.added", "item": {"type": "function_call", "name": TEXT}},
            {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": TEXT}},
            {"type": "content_block_delta", "delta": {"partial_json": TEXT}},
            {"type": "content_block_start", "content_block": {"type": "tool_use", "name": TEXT}},
            {"message": {"role": "assistant", "content": TEXT}, "done": False},
            {"message": {"role": "assistant", "content": "", "thinking": TEXT}, "done": False},
            {"response": TEXT, "done": False},
            {"candidates": [{"content": {"parts": [{"text": TEXT, "thought": True}]}}]},
            {
                "candidates": [
                    {"content": {"parts": [{"functionCall": {"name": TEXT, "args": {}}}]}}
                ]
            },
        ],
    )
    def test_place(self, event: dict[str, Any]) -> None:
        """Produced text is found wherever a provider puts it, and once if it stands there twice."""
        meter = metered(event)
        assert meter.produced
        assert meter.total() == Usage(PROMPT_TOKENS, TEXT_TOKENS, estimated=True)

    @pytest.mark.parametrize(
        "event",
        [
            {"type": "response.audio.delta", "delta": "UklGRg" * 99},
            {"type": "response.output_text.done", "text": TEXT},
            {"type": "response.completed", "response": {"output": []}},
            {"type": "error", "message": TEXT},
            {"error": {"message": TEXT}},
            {"detail": TEXT},
            chunk(None),
            chunk(""),
        ],
    )
    def test_no_text(self, event: dict[str, Any]) -> None:
        """Sound data, repetitions of streamed text and error messages aren't produced text."""
        meter = metered(event)
        assert not meter.produced
        assert meter.total() == Usage()

    def test_words_cut_by_chunks_are_one_text(self) -> None:
        """A text costs the same however it was cut into chunks."""
        events = [chunk(letter) for letter in TEXT]
        assert metered(*events).total().output_tokens == TEXT_TOKENS

    def test_arguments_as_an_object_count(self) -> None:
        """Ollama's and Gemini's call arguments are objects, and cost what their JSON costs."""
        arguments = {"place": "Vienna", "days": 3}
        call = {"function": {"name": "forecast", "arguments": arguments}}
        total = metered({"message": {"tool_calls": [call]}}).total()
        assert total.output_tokens == estimate_tokens("forecast" + json.dumps(arguments))

    def test_output_zero_with_text_is_missing(self) -> None:
        """A zero beside produced text is estimated, the known input kept."""
        total = metered(chunk(TEXT), usage_chunk(openai_usage(10, 0))).total()
        assert total == Usage(10, TEXT_TOKENS, estimated=True)

    def test_output_zero_without_text_is_zero(self) -> None:
        """A provider that read the prompt and said nothing is believed."""
        total = metered(chunk(""), usage_chunk(openai_usage(10, 0))).total()
        assert total == Usage(10, 0)

    def test_a_reply_stopped_after_an_early_count(self) -> None:
        """Text that no later running total covers is estimated beside the count."""
        start = {"message": {"usage": {"input_tokens": 25, "output_tokens": 1}}}
        delta = {"type": "content_block_delta", "delta": {"text": TEXT}}
        assert metered(start, delta).total() == Usage(25, TEXT_TOKENS, estimated=True)

    def test_a_count_that_covers_the_text_after_it_is_believed(self) -> None:
        """Usage that came before the text, but whole, isn't raised."""
        total = metered(usage_chunk(openai_usage(25, 90)), chunk(TEXT)).total()
        assert total == Usage(25, 90)

    def test_a_total_alone_is_divided(self) -> None:
        """A total without parts is charged whole, divided as the estimates are."""
        total = metered(chunk(TEXT), usage_chunk({"total_tokens": 300})).total()
        assert total.input_tokens + total.output_tokens == 300
        assert total.estimated
        assert total.output_tokens == round(300 * TEXT_TOKENS / (TEXT_TOKENS + PROMPT_TOKENS))

    def test_a_total_is_completed_by_a_part_from_another_event(self) -> None:
        """A total and the input in two chunks leave the output as their difference."""
        events = [usage_chunk({"total_tokens": 30}), usage_chunk({"prompt_tokens": 10})]
        assert metered(*events).total() == Usage(10, 20)


class TestOutlet:
    """What the outlet adds where nothing was streamed."""

    def test_usage_of_a_reply_that_was_not_streamed(self) -> None:
        """The host's sums count, not the last call's aliases beside them."""
        usage = openai_usage(150, 30) | {
            "input_tokens": 250,
            "output_tokens": 50,
            "total_tokens": 300,
        }
        assert metered().total(usage, TEXT) == Usage(250, 50)

    def test_usage_of_the_stream_comes_first(self) -> None:
        """The host's sum over running totals is ignored where the stream saw usage."""
        meter = metered(chunk(TEXT, openai_usage(10, 3)))
        assert tokens(meter.total({"input_tokens": 30, "output_tokens": 6}, TEXT)) == (10, 3)

    def test_usage_that_the_stream_did_not_see(self) -> None:
        """Streamed text without usage is charged with the host's usage if it has some."""
        assert tokens(metered(chunk(TEXT)).total(openai_usage(10, 3), TEXT)) == (10, 3)

    def test_text_of_a_reply_that_was_not_streamed(self) -> None:
        """Without usage the message's text is estimated, and the prompt beside it."""
        assert metered().total(None, TEXT) == Usage(PROMPT_TOKENS, TEXT_TOKENS, 0, None, True)

    @pytest.mark.parametrize(
        "usage",
        [openai_usage(bad, bad) for bad in (float("nan"), float("inf"), [1], -3, 10**5000, None)],
    )
    def test_usage_that_cannot_be_read_is_an_estimate(self, usage: dict[str, Any]) -> None:
        """A call whose usage nobody can read had a prompt at least."""
        for text in ("", None):
            assert metered().total(usage, text) == Usage(PROMPT_TOKENS, 0, estimated=True)

    def test_nothing_at_all(self) -> None:
        """No usage and no text cost nothing."""
        for text in (None, ""):
            assert metered().total({}, text) == Usage()

    @given(not_counts, not_counts)
    def test_usage_that_is_none(self, one: Any, other: Any) -> None:
        """An outlet's numbers that aren't counts are as good as none."""
        total = metered().total({"prompt_tokens": one, "output_tokens": other}, TEXT)
        assert total == Usage(PROMPT_TOKENS, TEXT_TOKENS, estimated=True)


class TestAnswers:
    """Answers that come in one piece, as the middleware sees them."""

    @pytest.mark.parametrize(
        "answer",
        [
            {"choices": [{"message": {"content": TEXT}, "finish_reason": "stop"}]},
            {"choices": [{"text": TEXT}]},
            {"choices": [{"message": {"content": None, "reasoning_content": TEXT}}]},
            {"choices": [{"message": {"content": "", "reasoning_details": [{"text": TEXT}]}}]},
            {"choices": [{"message": {"tool_calls": [{"function": {"arguments": TEXT}}]}}]},
            {"choices": [{"message": {"function_call": {"name": TEXT, "arguments": ""}}}]},
            {"type": "message", "content": [{"type": "text", "text": TEXT}]},
            {"type": "message", "content": [{"type": "thinking", "thinking": TEXT}]},
            {
                "object": "response",
                "output": [{"content": [{"type": "output_text", "text": TEXT}]}],
            },
            {"object": "response", "output": [{"type": "reasoning", "summary": [{"text": TEXT}]}]},
            {"object": "response", "output": [{"type": "function_call", "arguments": TEXT}]},
            {"message": {"role": "assistant", "content": TEXT}, "done": True},
            {"response": TEXT, "done": True},
            {"candidates": [{"content": {"parts": [{"text": TEXT}]}}]},
            [{"generated_text": TEXT}],
        ],
    )
    @pytest.mark.parametrize("usage", [None, openai_usage(9, 3), openai_usage(float("nan"), [])])
    def test_an_answer_is_metered(self, answer: Any, usage: Any) -> None:
        """Every shape's text is found; its usage counts, else an estimate."""
        whole = {**answer, "usage": usage} if isinstance(answer, dict) else answer
        meter = metered()
        meter.add_answer(whole)
        assert meter.produced
        if isinstance(answer, dict) and usage == openai_usage(9, 3):
            assert meter.total() == Usage(9, 3)
        else:
            assert meter.total() == Usage(PROMPT_TOKENS, TEXT_TOKENS, estimated=True)

    @pytest.mark.parametrize(
        "answer",
        [{"choices": [], "usage": {"prompt_tokens": float("nan")}}, {"choices": []}],
    )
    def test_an_empty_answer_had_a_prompt(self, answer: Any) -> None:
        """A model that answered nothing has read the prompt all the same."""
        meter = metered()
        meter.add_answer(answer)
        assert meter.total() == Usage(PROMPT_TOKENS, 0, estimated=True)

    @pytest.mark.parametrize(
        "answer",
        [
            {"error": {"message": TEXT}},
            {"detail": TEXT},
            {"message": TEXT},
            {"type": "error"},
            *(None, 5, TEXT, True, [], {}, [TEXT]),
        ],
    )
    def test_an_error_is_no_answer(self, answer: Any) -> None:
        """What no model wrote costs nothing."""
        meter = metered()
        meter.add_answer(answer)
        assert not meter.produced
        assert not has_started(meter)

    def test_an_answer_after_its_stream_is_the_same_call(self) -> None:
        """An answer that was seen twice, streamed and whole, counts once."""
        meter = metered(chunk(TEXT))
        meter.add_answer({"choices": [{"message": {"content": TEXT}}], "usage": openai_usage(9, 3)})
        assert meter.total() == Usage(9, 3)

    @given(arbitrary_json | provider_like_json)
    def test_no_answer_makes_it_raise(self, answer: Any) -> None:
        """Any JSON value is an answer with a total that isn't negative."""
        meter = metered()
        meter.add_answer(answer)
        assert min(tokens(meter.total())) >= 0


class TestSigns:
    """What the meter says about a reply in progress."""

    @pytest.mark.parametrize(
        ("event", "started", "produced"),
        [
            (None, False, False),
            ("text", False, False),
            ({}, False, False),
            ({"error": {"message": "no"}}, False, False),
            ({"type": "error", "error": {"type": "overloaded_error"}}, False, False),
            ({"type": "response.failed", "response": {"error": {}}}, False, False),
            ({"event": {"type": "status"}}, False, False),
            ({"sources": []}, False, False),
            ({"selected_model_id": "m"}, False, False),
            ({"id": "c1", "choices": [], "error": {"message": "no"}}, False, False),
            ({"id": "", "choices": [], "prompt_filter_results": []}, True, False),
            (chunk(None), True, False),
            ({"type": "response.created", "response": {"id": "r1", "error": None}}, True, False),
            (usage_chunk(openai_usage(0, 0)), True, False),
            (usage_chunk(openai_usage(5, 0)), True, True),
            (usage_chunk({"total_tokens": 5}), True, True),
            (chunk("x"), True, True),
            ({**chunk("x"), "error": {"message": "broke off"}}, True, True),
            ({"choices": [{"delta": {"tool_calls": [{"function": {"name": "f"}}]}}]}, True, True),
        ],
    )
    def test_signs(self, event: Any, started: bool, produced: bool) -> None:
        """Errors and the host's events start nothing; only text and non-zero usage are produced."""
        meter = metered(event)
        assert (has_started(meter), meter.produced) == (started, produced)


class TestAnything:
    """Truths about every JSON value."""

    @given(
        st.lists(stream_events | st.none(), max_size=12), provider_like_json, st.none() | st.text()
    )
    def test_no_event_makes_it_raise(self, events: list[Any], usage: Any, text: str | None) -> None:
        """Any events, rounds and outlet give a total without exception and without a negative."""
        meter = ReplyMeter()
        for event in events:
            if event is None:
                meter.begin_round(PROMPT_TOKENS)
            meter.add_event(event)
        total = meter.total(usage, text)
        assert min(tokens(total)) >= 0
        assert 0 <= total.cached_input_tokens <= total.input_tokens
        assert total.cost_micros is None or total.cost_micros >= 0
        assert has_started(meter) or not meter.produced
        if not meter.produced:
            assert metered(*events).total() == Usage()

    @given(arbitrary_json)
    def test_an_arbitrary_event_changes_no_good_usage(self, event: Any) -> None:
        """After a final count, any value without a provider's keys changes nothing."""
        meter = metered(chunk(TEXT), usage_chunk(openai_usage(100, 20)))
        meter.add_event(event)
        assert meter.total() == Usage(100, 20)

    @given(st.lists(chat_chunks(rubbish_usage_objects) | provider_like_json, max_size=8))
    def test_later_events_give_nothing_back(self, events: list[Any]) -> None:
        """Whatever follows a good usage, at least that usage is charged."""
        meter = metered(usage_chunk(openai_usage(100, 20)))
        for event in events:
            meter.add_event(event)
            assert meter.total().input_tokens >= 100
            assert meter.total().output_tokens >= 20

    @given(st.lists(chat_chunks(rubbish_usage_objects) | provider_like_json, max_size=8))
    def test_earlier_events_hide_nothing(self, events: list[Any]) -> None:
        """Whatever came before a good usage, at least that usage is charged."""
        total = metered(*events, usage_chunk(openai_usage(100, 20))).total()
        assert total.input_tokens >= 100
        assert total.output_tokens >= 20

    @given(st.lists(chat_chunks(rubbish_usage_objects), max_size=8))
    def test_rubbish_usage_is_no_usage(self, events: list[Any]) -> None:
        """Usage of nothing but rubbish is the same as none."""
        without = [
            {key: value for key, value in event.items() if key != "usage"} for event in events
        ]
        assert metered(*events).total() == metered(*without).total()

    @pytest.mark.parametrize("value", [5, 1.5, True, "usage", ["usage"], [[]], {"usage": "x"}])
    def test_any_type_in_any_place(self, value: Any) -> None:
        """A value of another type than a provider's raises nowhere."""
        events = [
            {"choices": [{"delta": value, "message": value, "usage": value, "finish_reason": "s"}]},
            dict.fromkeys(("usage", "timings", "response", "message", "item", "token"), value),
            {"choices": value, "results": value, "metadata": value, "details": value},
            {"usage": {"cost": value, "prompt_tokens_details": value, "cost_details": value}},
            {"type": "response.output_item.done", "item": value},
            {"type": "response.completed", "response": {"output": value}},
        ]
        meter = metered(*events)
        for event in (*events, value):
            meter.add_answer(event)
        assert min(tokens(meter.total(value))) >= 0

    def test_usage_is_looked_for_four_levels_deep(self) -> None:
        """Usage below three holders is found, below four it isn't: the search is bounded."""
        event: Any = {"usage": {"prompt_tokens": 9, "completion_tokens": 3}}
        for _ in range(3):
            event = {"message": event}
        assert metered(event).total() == Usage(9, 3)
        assert not metered({"message": event}).total().input_tokens

    def test_deep_nesting_is_no_recursion(self) -> None:
        """An event nested a hundred thousand levels deep is read without an exception."""
        nested: Any = TEXT
        for _ in range(100_000):
            nested = [{"content": nested}]
        events = [
            {"choices": [{"delta": {"content": nested}}]},
            {"message": {"content": nested}, "usage": nested},
            {"candidates": nested, "delta": nested, "choices": nested, "id": nested},
            {"choices": [{"delta": {"tool_calls": [{"function": {"arguments": nested}}]}}]},
            {"usage": {"prompt_tokens": nested, "completion_tokens_details": nested}},
        ]
        meter = metered(*events)
        assert min(tokens(meter.total(nested))) >= 0


@pytest.mark.parametrize(
    "line", [b'data: {"id": "c", "usage": %s}', 'data: {"id": "c", "usage": %s}\n']
)
def test_lines_of_older_hosts_are_read(line: bytes | str) -> None:
    """Before 0.11.1 Open WebUI hands API streams over as lines; they are metered alike."""
    usage = '{"prompt_tokens": 12, "completion_tokens": 7}'
    meter = ReplyMeter()
    meter.begin_round(5)
    meter.add_event(line % (usage.encode() if isinstance(line, bytes) else usage))
    for rubbish in (b"data: [DONE]", b": comment", b"\xff\xfe", "event: x", "data:", b""):
        meter.add_event(rubbish)
    total = meter.total()
    assert (total.input_tokens, total.output_tokens, total.estimated) == (12, 7, False)


def test_parts_are_never_more_than_the_whole() -> None:
    """What was read from and written to a cache is input together, and reasoning is output."""
    usage = ReportedUsage(
        input_tokens=10,
        output_tokens=4,
        cached_input_tokens=7,
        cache_write_tokens=99,
        reasoning_tokens=99,
    )
    metered = metered_call(usage, 0, [])
    assert (metered.cached_input_tokens, metered.cache_write_tokens) == (7, 3)
    assert metered.reasoning_tokens == 4


def test_what_is_left_beside_other_usage() -> None:
    """Never less than nothing, and no cost where none is known."""
    whole = Usage(10, 20, 5, 700, cache_write_tokens=3, reasoning_tokens=8)
    part = Usage(4, 30, 5, 300, estimated=True, reasoning_tokens=1)
    left = Usage(6, 0, 0, 400, cache_write_tokens=3, reasoning_tokens=7)
    assert whole.without(part) == left
    assert Usage(1).without(part) == Usage()
