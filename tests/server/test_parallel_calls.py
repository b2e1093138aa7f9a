"""Calls at the same moment on pass-through paths, whose providers obey other fields."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from scripts.provider.server import FakeProvider
from tests.conftest import OwnServer
from tests.support.passthrough_paths import MODELS

COUNTER = itertools.count()


@pytest.mark.parametrize(
    ("path", "key", "lie"),
    [
        ("/openai/completions", "prompt", {"max_tokens": 1, "max_completion_tokens": 700}),
        ("/openai/completions", "prompt", {"prompt": ["a [[wait=8]]"] * 3, "max_tokens": 200}),
        ("/openai/completions", "prompt", {"max_tokens": 200, "n": 3}),
        ("/openai/responses", "input", {"max_output_tokens": 1, "max_tokens": 700}),
        ("/openai/responses", "input", {"options": {"num_predict": 1}}),
        ("/ollama/api/chat", "messages", {"max_tokens": 1}),
        ("/ollama/v1/messages", "messages", {"max_tokens": 1, "max_completion_tokens": 700}),
        ("/ollama/v1/completions", "prompt", {"options": {"num_predict": 1}}),
    ],
)
def test_parallel_calls_with_lengths_that_are_not_obeyed(
    open_server: OwnServer,
    provider: FakeProvider,
    path: str,
    key: str,
    lie: dict[str, Any],
) -> None:
    """What a path's own provider doesn't obey, or not alone, makes no reservation smaller."""
    house = open_server
    resident = house.admin.add_user("Rea", f"rea{next(COUNTER)}@example.net")
    house.usage_limits.configure(policies='[role.user]\nlimits = ["400 tokens/day"]')
    text = f"parallel {next(COUNTER)} [[in=9 tokens=600 wait=8]]"  # all are asked meanwhile
    asked = [{"role": "user", "content": text}] if key == "messages" else text
    body = {"model": MODELS["/" + path.split("/")[1]], "stream": False, key: asked, **lie}
    before = len(provider.call_log.calls())
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: resident.http.post(path, json=body), range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] + [429] * 5
    assert len(provider.call_log.calls()) == before + 1
