"""Policy versions: kept in the order in which they were saved, whatever the clocks say."""

from __future__ import annotations

from helpers.ledger.database import open_database
from helpers.ledger.ledger import Ledger
from helpers.ledger.policy_versions import MOST_VERSIONS, keep_version, read_versions
from tests.support.ledger_fixture import NOON

pytest_plugins = ["tests.support.databases"]


def test_workers_whose_clocks_differ(database_url: str) -> None:
    """The last text that was saved is the newest, by whichever worker; none is kept twice."""
    engine = open_database(database_url)
    ledger, before = Ledger(engine), ""
    for number in range(MOST_VERSIONS + 5):
        text, now = f"# {number}", NOON - 10 * (number % 2)

        def keep(connection, before=before, text=text, now=now):
            return keep_version(connection, before, text, "ann", now)

        assert len(ledger.change(keep, {"policies"})) == 1
        before = text
        rows = ledger.read(read_versions)
        assert [row.policies for row in rows] == [
            f"# {n}" for n in range(number, max(-1, number - MOST_VERSIONS), -1)
        ]
    engine.dispose()
