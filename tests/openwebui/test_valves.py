"""What valves say beyond their fields: how long records are kept."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from helpers.openwebui.valves import FORM_TEXTS, AdminValves

DAY = 86_400


@pytest.mark.parametrize(
    ("limits", "days"),
    [
        ([], 100),
        (["5k tokens/day"], 100),
        (["5 requests/30d"], 100),
        (["5 requests/90d"], 180),
        (["5 requests/90d", "5 requests/100d"], 200),
        (["5k tokens/year"], 366),
    ],
)
def test_records_are_kept_as_long_as_limits_need(limits: list[str], days: int) -> None:
    """`retention_days` counts, and more where a limit looks back further; rolling ones twice."""
    text = f"[pool.all]\nlimits = {limits}" if limits else ""
    assert AdminValves(retention_days=100, policies=text).retention_seconds == days * DAY


@pytest.mark.parametrize(
    "name", [name for name, one in AdminValves.model_fields.items() if one.annotation is int]
)
def test_no_number_is_saved_that_cannot_be_read_again(name: str) -> None:
    """Open WebUI stores any number, and can't read a function whose valves have one of 400 digits.

    The largest one that it reads is taken, where a field takes large ones, and harms nothing.
    """
    largest = 2**63 - 1
    for number in ("9" * 400, largest + 1, 10**40, f"-{'9' * 400}", -(largest + 1)):
        with pytest.raises(ValidationError):
            AdminValves(**{name: number})
    if name in ("priority", "daily_token_limit", "monthly_token_limit", "retention_days"):
        valves = AdminValves(**{name: largest})
        assert json.loads(valves.model_dump_json())[name] == largest
        assert valves.retention_seconds < 2**32


def test_a_refusal_names_what_is_wrong_now() -> None:
    """Of fields that an earlier save had wrong nothing is said."""
    for name in ("daily_token_limit", "reset_hour"):
        with pytest.raises(ValidationError):
            AdminValves(**{name: "many"})
        assert list(FORM_TEXTS.refused) == [name]
    AdminValves(daily_token_limit=5)
    assert FORM_TEXTS.refused == {}
