"""What valves say beyond their fields: how long records are kept."""

from __future__ import annotations

import pytest

from helpers.openwebui.valves import AdminValves

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
