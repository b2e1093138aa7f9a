"""One reply's amounts: what is asked for, held, capped and charged."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from helpers.limits.policies import ModelRule
from helpers.openwebui.replies import cap_output, wanted_output

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
PLAIN = ModelRule("*")


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({}, None),
        ({"max_tokens": 100}, 100),
        ({"max_tokens": 1, "max_completion_tokens": 50}, 50),
        ({"options": {"num_predict": 7}}, None),
        ({"options": {"num_predict": 1}, "max_tokens": 100}, 100),
        ({"max_tokens": 100, "n": 3}, 300),
        ({"max_tokens": 100, "n": "2"}, 200),
        ({"max_tokens": 100, "n": 10**400}, 12_800),
        ({"max_tokens": 100, "n": [3]}, 100),
        ({"options": {"num_predict": -1}, "max_tokens": 0}, None),
        ({"max_tokens": True, "max_completion_tokens": "9", "options": "x"}, None),
        # Open WebUI may put one in the other's place, and so take both away.
        ({"max_tokens": 10, "max_completion_tokens": None}, None),
        ({"max_tokens": 10, "max_completion_tokens": 0}, None),
    ],
)
def test_wanted_output(body: dict[str, Any], wanted: int | None) -> None:
    """The most that any provider could take from a request counts, for all of its choices."""
    assert wanted_output(body, ollama=False) == wanted


def test_wanted_output_of_ollama() -> None:
    """Only Ollama reads num_predict."""
    assert wanted_output({"options": {"num_predict": 7}}, ollama=True) == 7
    assert wanted_output({"options": {"num_predict": 1, "max_tokens": 90}}, ollama=True) == 90
    # An empty one takes the place of the options.
    assert wanted_output({"max_tokens": None, "options": {"num_predict": 7}}, ollama=True) is None
    # What Open WebUI doesn't hand on to Ollama says nothing.
    assert wanted_output({"max_completion_tokens": 1}, ollama=True) is None


def test_cap_of_ollama() -> None:
    """To Ollama only max_tokens is handed on, or the options."""
    body = {"max_completion_tokens": 9_000, "options": {"max_tokens": 5_000}}
    cap_output(body, 7, ollama=True)
    assert body == {
        "max_completion_tokens": 7,
        "max_tokens": 7,
        "options": {"max_tokens": 7},
    }


def test_cap_is_for_all_choices_together() -> None:
    """Five answers share what remains, however many are asked for by either name."""
    body = {"n": 5, "max_tokens": 9_000}
    cap_output(body, 100)
    assert body["max_tokens"] == 20


@pytest.mark.parametrize(
    ("body", "capped"),
    [
        ({}, {"max_tokens": 5}),
        ({"max_tokens": 9}, {"max_tokens": 5}),
        ({"max_completion_tokens": 9}, {"max_completion_tokens": 5}),
        (
            {"max_tokens": 3, "max_completion_tokens": None},
            {"max_tokens": 3, "max_completion_tokens": 5},
        ),
        (
            {"max_tokens": 9, "options": {"num_predict": 9, "seed": 1}},
            {"max_tokens": 5, "options": {"num_predict": 5, "seed": 1}},
        ),
        (
            {"options": {"num_predict": 9}},
            {"options": {"num_predict": 5}, "max_tokens": 5},
        ),
    ],
)
def test_cap_output(body: dict[str, Any], capped: dict[str, Any]) -> None:
    """Every name that a request uses is lowered, Ollama's too; without any, one is set."""
    cap_output(body, 5)
    assert body == capped
