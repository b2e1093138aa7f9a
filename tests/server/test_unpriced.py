"""Limits in money over models without a price or a reported cost: administrators are told."""

from __future__ import annotations

from contextlib import closing
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from helpers.ledger.identities import MOST_UNPRICED, HostNames, IdentityMemory, unpriced_models
from helpers.limits.limit import parse_limit
from helpers.limits.policies import ModelRule
from helpers.limits.policies_text import parse_policies
from helpers.limits.policy import ModelNames, Subject
from helpers.metering.charges import Charge
from helpers.metering.usage import ReplyMeter, Usage
from helpers.openwebui.replies import Reply
from scripts.provider.server import FakeProvider
from tests.conftest import StartServer, wait_until

MONEY = '[role.user]\nlimits = ["$5/day on gpt-*", "1k tokens/day"]\n'
UMA = Subject("uma", "uma@example.org", "user")


def told_by(policies: str, *names: tuple[str, ...]) -> list[str]:
    """The headers of the models that are named as having no cost."""
    sentences = unpriced_models(parse_policies(policies), names)
    return [one.removeprefix("limits in $ don't count ").partition(":")[0] for one in sentences]


@pytest.mark.parametrize(
    ("policies", "told"),
    [
        (MONEY, ['[model."gpt-4.1"]']),
        ('[pool.all]\nlimits = ["$5/day"]', ['[model."gpt-4.1"]', "[model.llama]"]),
        ('[role.user]\nlimits = ["1k tokens/day"]', []),
        ('[role.user]\nlimits = "unlimited"', []),
        (MONEY + '[model."gpt-*"]\ninput_price = 1', []),
        (MONEY + '[model."gpt-*"]\nweight = 0', []),
        (MONEY + '[model."gpt-*"]\nweight = 2', ['[model."gpt-4.1"]']),
    ],
)
def test_models_without_a_cost(policies: str, told: list[str]) -> None:
    """Those that a limit in money covers, and that are neither priced nor free."""
    assert told_by(policies, ("gpt-4.1",), ("llama",)) == told


def test_base_of_a_custom_model_is_named() -> None:
    """A custom model that the limit covers is told of as the model that needs a price."""
    names = ModelNames(("gpt-mine", "llama"))
    names.called = "llama"
    assert told_by(MONEY, names) == ["[model.llama]"]


@pytest.mark.parametrize(
    ("usage", "rule", "limit", "lacks"),
    [
        ({}, ModelRule("*"), "$5/day", True),
        ({"cost": 0}, ModelRule("*"), "$5/day", False),
        ({"cost": 0.01}, ModelRule("*"), "$5/day", False),
        ({}, ModelRule("*"), "1k tokens/day", False),
        ({}, ModelRule("*", input_price=Decimal(1)), "$5/day", False),
    ],
)
def test_reply_without_a_cost(
    usage: dict[str, Any], rule: ModelRule, limit: str, lacks: bool
) -> None:
    """It has no price, its provider reported no cost, not even 0, and a limit wants one."""
    meter = ReplyMeter()
    counts = {"prompt_tokens": 5, "completion_tokens": 5}
    meter.add_answer({"choices": [{"message": {"content": "Hi"}}], "usage": counts | usage})
    limits = (SimpleNamespace(limit=parse_limit(limit)),)
    reply: Any = SimpleNamespace(meter=meter, rule=rule, limits=limits)
    cost = meter.total().cost_micros
    assert Reply.lacks_price(reply, Charge(Usage(5, 5), cost or 0)) is lacks


def test_told_once_and_until_priced(caplog: pytest.LogCaptureFixture) -> None:
    """The form shows it and the log has it once, until the policies give the model a price."""
    told: list[tuple[str, ...]] = []
    memory = IdentityMemory(
        frozenset, lambda _: None, lambda *_: HostNames({}, {}), tuple, told.append
    )
    memory.recall(parse_policies(MONEY), UMA)
    caplog.set_level("INFO")
    for _ in range(3):
        memory.note_unpriced(("gpt-4",))
    assert memory.knows_unpriced(("gpt-4",))
    assert len(told) == 1
    assert "[model.gpt-4]" in told[0][0]
    assert caplog.text.count("don't count") == 1
    memory.recall(parse_policies(MONEY + "[model.gpt-4]\noutput_price = 3"), UMA)
    assert told[1:] == [()]
    assert caplog.text.count("no longer so") == 1


def test_memory_of_models_is_bounded() -> None:
    """Beyond so many models no more are remembered."""
    memory = IdentityMemory(
        frozenset, lambda _: None, lambda *_: HostNames({}, {}), tuple, lambda _: None
    )
    for number in range(MOST_UNPRICED + 5):
        memory.note_unpriced((f"gpt-{number}",))
    assert memory.knows_unpriced((f"gpt-{MOST_UNPRICED + 1}",))


def test_form_names_the_model(start_server: StartServer, provider: FakeProvider) -> None:
    """In Open WebUI the policies field names a model that a limit in $ doesn't count."""
    own = start_server()
    policies = '[role.user]\nlimits = ["$5/day"]\n[model.fake-llm-large]\ninput_price = 1\n'
    own.usage_limits.configure(policies=policies)

    def described() -> str:
        spec = own.admin.valves_spec(own.usage_limits.id)
        return str(spec["properties"]["policies"]["description"])

    address = f"{uuid4().hex[:12]}@example.org"
    with closing(own.admin.add_user("Uma", address, role="user")) as uma:
        reported = {"prompt_tokens": 2, "completion_tokens": 2, "cost": 0.001}
        rule = provider.script(model="fake-llm-free", raw_usage=reported)
        for model in ("fake-llm-large", "fake-llm-free"):
            assert uma.chat("Hello", model=model).status == 200
        provider.rules.remove(rule)
        assert "don't count" not in described()
        assert uma.chat("Hello", model="fake-llm", stream=True).status == 200
        wait_until(lambda: "limits in $ don't count [model.fake-llm]:" in described())
        assert described().count("don't count") == 1
        own.usage_limits.configure(policies=policies + "[model.fake-llm]\noutput_price = 1\n")
        assert uma.chat("Hello", model="fake-llm").status == 200
        assert "don't count" not in described()
