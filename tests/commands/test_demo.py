"""The demo's story adds up; `make demo ARGS=--check` plays it in a real Open WebUI."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from helpers.limits.policies_text import parse_policies
from scripts.demo.command import parse_arguments
from scripts.demo.scene import (
    EXCHANGES,
    FIRST,
    POLICIES,
    SECOND,
    STUDENT_TOKENS,
    THIRD,
    calm_timezone,
)


def test_story_crosses_the_soft_limit_and_then_the_hard_one() -> None:
    """The second reply ends past 80 %, the third one past 100 %, and none before."""
    limit = (parse_policies(POLICIES).groups["students"].limits or ())[0]
    assert (limit.amount, limit.period.name) == (STUDENT_TOKENS, "day")
    assert FIRST.tokens < 0.8 * STUDENT_TOKENS
    assert 0.8 * STUDENT_TOKENS <= FIRST.tokens + SECOND.tokens < STUDENT_TOKENS
    assert FIRST.tokens + SECOND.tokens + THIRD.tokens >= STUDENT_TOKENS


def test_questions_are_told_apart() -> None:
    """No question is part of another one: the fake provider knows its answer by the text."""
    questions = [exchange.question for exchange in EXCHANGES]
    for question in questions:
        assert [other for other in questions if question in other] == [question]


@pytest.mark.parametrize(("hour", "zone"), [(22, "UTC"), (23, "Asia/Tokyo")])
def test_day_does_not_end_during_the_demo(hour: int, zone: str) -> None:
    """Shortly before midnight in UTC the demo counts by another clock."""
    assert calm_timezone(datetime(2026, 3, 31, hour, 59, tzinfo=UTC)) == zone


def test_directory_in_use_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Data are never written over those of another Open WebUI."""
    (tmp_path / "webui.db").touch()
    with pytest.raises(SystemExit):
        parse_arguments(["--keep", str(tmp_path)])
    assert "not empty" in capsys.readouterr().err
