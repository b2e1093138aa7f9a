"""What is known of older versions of Open WebUI, and the tables made of test results."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from scripts.compat.command import MARKS, TESTS, parse_arguments, write_document
from scripts.compat.environments import EnvironmentFailed, newest_of
from scripts.compat.hosts import ABILITIES, FEATURES, REQUEST_HOOK, left_out
from scripts.compat.results import HostResults, features_table, read_outcomes, totals_table
from tests.conftest import ROOT

RELEASES = ["0.12.4", "0.12.0", "0.11.4", "0.9.10", "0.9.9"]


def test_every_test_against_older_hosts_has_its_row() -> None:
    """The features name every test that is run, once, and no other."""
    written = [
        node.name
        for path in TESTS
        for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    named = [test for feature in FEATURES for test in feature.tests]
    assert sorted(named) == sorted(written)
    assert {test for ability in ABILITIES for test in ability.needed_by} <= set(written)


def test_abilities_begin_with_their_version() -> None:
    """A version has what came with it or before; the newest leaves no test out."""
    assert [REQUEST_HOOK.is_in(version) for version in ((0, 11, 1), (0, 11, 2), (0, 12))] == [
        False,
        True,
        True,
    ]
    assert left_out((0, 11, 4)).keys() == {
        "test_inherited_group_counts",
        "test_a_voice_call_is_counted_answer_by_answer",
        "test_a_voice_call_ends_over_a_limit",
    }
    assert left_out((0, 12, 4)) == {}


@pytest.mark.parametrize(("series", "newest"), [("0.12", "0.12.4"), ("0.9", "0.9.10")])
def test_newest_release_of_a_series(series: str, newest: str) -> None:
    """Versions are compared as numbers, and 0.1 isn't 0.12."""
    assert newest_of(series, RELEASES) == newest
    assert newest_of("0.12.0", RELEASES) == "0.12.0"
    with pytest.raises(EnvironmentFailed, match=r"no open-webui 0\.1$"):
        newest_of("0.1", RELEASES)


def test_tables_say_what_failed_and_what_cannot_work(tmp_path: Path) -> None:
    """A failure is counted, a missing ability named, a test that wasn't run isn't praised."""
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite><testcase name="test_stop_button"/>'
        '<testcase name="test_client_that_disconnects[a]"><failure/></testcase>'
        '<testcase name="test_api_is_refused_with_429[a]"/>'
        '<testcase name="test_new"/></testsuite></testsuites>',
        encoding="utf-8",
    )
    host = HostResults("0.11.4", "3.11.7", read_outcomes(report))
    assert host.failures == ["test_client_that_disconnects[a]"]
    assert totals_table([host]).splitlines()[2] == "| 0.11.4 | 3.11.7 | 3 | 1 | 3 |"
    rows = dict(line.strip("| ").split(" | ") for line in features_table([host]).splitlines()[2:])
    assert rows["Replies that are stopped, left or broken off"] == "1 of 2 tests fail"
    assert rows["API: refusal before a model is called"] == "yes"
    assert rows["Groups inside groups"] == "no"
    assert rows["Numbers that a client makes up"] == "not tested"
    assert rows["Everything else"] == "yes"


def test_what_fails_on_one_python_is_not_said_to_work() -> None:
    """A version has one column, whatever Pythons it was tested on."""
    on_both = [
        HostResults("0.12.4", python, {"test_stop_button": passed, "test_new": True})
        for python, passed in (("3.11.7", True), ("3.12.1", False))
    ]
    lines = features_table(on_both).splitlines()
    assert lines[0] == "| What works | 0.12.4 |"
    assert "| Replies that are stopped, left or broken off | 1 of 1 tests fail |" in lines
    assert "| Everything else | yes |" in lines


def test_tables_are_put_between_their_marks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only what lies between the marks is replaced, and only by a run of everything."""
    document = tmp_path / "compatibility.md"
    document.write_text("above\n{}\nold\n{}\nbelow\n".format(*MARKS), encoding="utf-8")
    monkeypatch.setattr("scripts.compat.command.DOCUMENT", document)
    write_document("| new |")
    assert document.read_text(encoding="utf-8") == "above\n{}\n| new |\n{}\nbelow\n".format(*MARKS)
    with pytest.raises(SystemExit):
        parse_arguments(["--write", "0.11"])
    assert "--write needs all tests" in capsys.readouterr().err
