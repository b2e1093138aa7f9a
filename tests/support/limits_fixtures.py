"""A database of Open WebUI's with a ledger, and the administrators' commands on it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
import time_machine

from helpers.ledger.database import open_database
from scripts.limits.command import main
from tests.commands.test_report import LedgerDatabase
from tests.support.limits_commands import POLICIES


@pytest.fixture
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine's own Open WebUI is seen."""
    for name in [*os.environ]:
        if name.startswith("DATABASE_") or name == "DATA_DIR":
            monkeypatch.delenv(name)


@pytest.fixture
def database(no_environment: None, database_url: str) -> Iterator[LedgerDatabase]:
    """Open WebUI's tables, with the filter on and the policies in it, and a ledger."""
    engine = open_database(database_url)
    made = LedgerDatabase(database_url, engine)
    made.make_ledger()
    made.make_host(policies=POLICIES)
    made.add_group("g1", "Students")
    made.add_group("g2", "Research Lab")
    # Far from where any period ends, so that no test straddles two windows.
    with time_machine.travel(datetime(2026, 3, 10, 12, 30, 30, tzinfo=UTC)):
        yield made
    engine.dispose()


@pytest.fixture
def say(database: LedgerDatabase, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What a command that works prints: `say("show", "ann")`."""

    def run(command: str, *arguments: str) -> str:
        assert main([command, *arguments, "--database-url", database.url]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        return captured.out

    return run


@pytest.fixture
def refuse(database: LedgerDatabase, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What a command that can't be done says on standard error, ending with 2."""

    def run(command: str, *arguments: str) -> str:
        assert main([command, *arguments, "--database-url", database.url]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        return captured.err

    return run


@pytest.fixture
def fail(database: LedgerDatabase, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What a command prints that finds something wrong, ending with 1."""

    def run(command: str, *arguments: str) -> str:
        assert main([command, *arguments, "--database-url", database.url]) == 1
        captured = capsys.readouterr()
        assert captured.err == ""
        return captured.out

    return run
