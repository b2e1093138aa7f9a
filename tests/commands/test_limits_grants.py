"""`limits grant` and `limits reset`: more for one window, on real databases and servers."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from sqlalchemy import select, update

from helpers.ledger.grants import NewGrant
from helpers.ledger.ledger import Ledger
from helpers.ledger.tables import grants_table, names_table
from scripts.limits.grant import write_grants
from scripts.limits.host import groups_table
from scripts.limits.target import find_target
from scripts.openwebui.server import OpenWebUIServer
from tests.commands.test_report import LedgerDatabase
from tests.conftest import ROOT, InstalledFilter, MakeUser
from tests.support.ledger_fixture import Clock, LedgerFixture, tokens
from tests.support.limits_commands import line_of, now, set_valves, shown

pytest_plugins = ["tests.support.databases", "tests.support.limits_fixtures"]

pytestmark = pytest.mark.usefixtures("no_environment")


def grants(database: LedgerDatabase) -> list[Any]:
    """The rows that were written, in the order in which they run out."""
    with database.engine.connect() as connection:
        return list(connection.execute(select(grants_table).order_by(grants_table.c.expires_at)))


def end_of(year: int, month: int, day: int) -> int:
    """The second at which that day begins in UTC."""
    return int(datetime(year, month, day, tzinfo=UTC).timestamp())


# grant


def test_grant_adds_until_the_window_ends(
    database: LedgerDatabase, say: Callable[..., str]
) -> None:
    """One row says who gave how much to which limit, when and why; the next window has none."""
    database.add_user("eve")
    database.record(user_id="eve", created_at=now(), input_tokens=20_000, output_tokens=0)
    output = say("grant", "EVE@example.org", "5k tokens/day", "--reason", "thesis", "--by", "root")
    assert "Granted 5,000 tokens to eve@example.org." in output
    assert line_of(output, "20,000 tokens per day")[1:] == [
        "user",
        "20,000",
        "20,000 → 25,000",
        "0 → 5,000",
        "11 March, 00:00 UTC, in 11 h 30 min",
    ]
    (row,) = grants(database)
    assert dict(row._mapping) | {"id": ""} == {
        "id": "",
        "scope": "user:eve",
        "measure": "tokens",
        "model_glob": "*",
        "period": "day",
        "amount": 5_000,
        "kind": "grant",
        "granted_by": "root",
        "reason": "thesis",
        "created_at": now(),
        "expires_at": end_of(2026, 3, 11),
        "source": "",
    }
    allowed = shown(say, "eve")["20k tokens/day"]
    assert (allowed["granted"], allowed["remaining"]) == (5_000, 5_000)
    with time_machine.travel(datetime(2026, 3, 11, 0, 0, 1, tzinfo=UTC)):
        assert shown(say, "eve")["20k tokens/day"]["granted"] == 0


def test_grants_add_up_and_are_shown(database: LedgerDatabase, say: Callable[..., str]) -> None:
    """Every grant is a row of its own, and `show` lists them beside the limit."""
    database.add_user("eve")
    say("grant", "eve", "1k tokens/day", "--by", "[ann]", "--reason", "exam")
    say("grant", "eve", "2.5k tokens / day", "--by", "bob")
    output = say("show", "eve")
    assert line_of(output, "+ 3,500 granted")[4] == "23,500"
    assert line_of(output, "[ann]")[1:5] == ["grant", "1,000", "[ann]", "exam"]
    assert line_of(output, "bob")[2] == "2,500"


def test_grant_for_a_rolling_limit_lasts_one_period(
    database: LedgerDatabase, say: Callable[..., str]
) -> None:
    """More requests in any 5 hours are there for 5 hours; "300m" means the same limit."""
    database.add_user("ann", "g1")
    say("grant", "ann", "4 requests/300m")
    (row,) = grants(database)
    assert (row.period, row.amount, row.expires_at) == ("5h", 4, now() + 5 * 3_600)
    assert shown(say, "ann")["30 requests/5h"]["remaining"] == 34


def test_grant_of_money_and_on_a_model(database: LedgerDatabase, say: Callable[..., str]) -> None:
    """Dollars and a model glob name their limit, and no other one of the user's."""
    database.add_user("ann", "g2")
    say("grant", "ann", "$2.50/month")
    output = say("grant", "ann", "1k tokens/month on gpt-4*")
    assert "Granted 1,000 tokens on gpt-4* to ann@example.org." in output
    rows = shown(say, "ann")
    assert (rows["$20/month"]["granted"], rows["2k tokens/month on gpt-4*"]["granted"]) == (
        2.5,
        1_000,
    )
    assert {row.expires_at for row in grants(database)} == {end_of(2026, 4, 1)}


def test_grant_to_a_pool(database: LedgerDatabase, say: Callable[..., str]) -> None:
    """A pool is granted to by its name, and so all who share it have more."""
    pools = '[pool.all]\nlimits = ["9 requests/day"]\n[pool.lab]\ngroup = "Research Lab"\n'
    set_valves(database, policies=f'{pools}limits = ["5 requests/day"]')
    database.add_user("ann", "g2")
    assert "shared" not in say("grant", "pool:all", "1 request/day")
    say("grant", "pool:lab", "2 requests/day")
    rows = shown(say, "ann")
    assert (rows["9 requests/day"]["granted"], rows["5 requests/day"]["granted"]) == (1, 2)
    assert {row.scope for row in grants(database)} == {"everyone", "group:g2"}
    assert "pool all" in say("reset", "pool:all")


@pytest.mark.parametrize(
    ("user", "amount", "error"),
    [
        (
            "eve",
            "5k tokens/week",
            'AMOUNT: "5k tokens/week" counts what no limit of eve@example.org counts; allowed: '
            "what one of these counts: 20k tokens/day; or pool:everyone for the pool with "
            "100M tokens/month",
        ),
        ("eve", "5k input tokens/day", "allowed: what one of these counts: 20k tokens/day"),
        ("eve", "5k tokens/day on gpt*", "allowed: what one of these counts: 20k tokens/day"),
        ("bob", "5k tokens/day", "allowed: nothing, bob@example.org has no limit; or pool:every"),
        ("eve", "5k tokns/day", 'AMOUNT: "5k tokns/day" has the unknown unit "tokns"; allowed: '),
        ("eve", "0 tokens/day", 'AMOUNT: "0 tokens/day" adds nothing; allowed: more than 0'),
        ("eve", "5k tokens/day warn 80%", 'has a "warn"; allowed: what is before it'),
        ("pool:everyone", "5k tokens/day", "allowed: what one of these counts: 100M tokens/month"),
        ("pool:lab", "5k tokens/day", "USER: no pool 'lab'; allowed: pool:everyone"),
        ("nobody", "5k tokens/day", "USER: 'nobody'; allowed: the e-mail address or the id"),
    ],
)
def test_grant_that_fits_no_limit(
    database: LedgerDatabase, refuse: Callable[..., str], user: str, amount: str, error: str
) -> None:
    """What can't be granted is said with the limits that there are, and nothing is written."""
    database.add_user("eve")
    database.add_user("bob")
    assert error in refuse("grant", user, amount)
    assert grants(database) == []


def test_grant_to_the_pool_of_a_group_that_is_gone(
    database: LedgerDatabase, refuse: Callable[..., str]
) -> None:
    """A pool whose group was renamed counts nobody, and says so."""
    set_valves(database, policies='[pool.lab]\ngroup = "Lab"\nlimits = ["5 requests/day"]')
    error = refuse("grant", "pool:lab", "1 request/day")
    assert "the pool 'lab' is of the group 'Lab', which Open WebUI doesn't have" in error


def test_grant_by_policies_from_a_file(
    database: LedgerDatabase, say: Callable[..., str], tmp_path: Path
) -> None:
    """Where valves are encrypted, a file says which limits there are."""
    database.add_user("eve")
    (tmp_path / "new.toml").write_text('[role.user]\nlimits = ["7 requests/day"]')
    say("grant", "eve", "1 request/day", "--policies", str(tmp_path / "new.toml"))
    assert [row.measure for row in grants(database)] == ["requests"]


def test_grant_lets_the_ledger_admit(database: LedgerDatabase, say: Callable[..., str]) -> None:
    """The ledger refuses at the limit, and admits as much more as was granted."""
    set_valves(database, policies='[role.user]\nlimits = ["100 tokens/day"]')
    database.add_user("ann")
    fixture = LedgerFixture(Ledger(database.engine), database.engine, Clock(time.time()))
    fixture.use("100 tokens/day", used=tokens(100, 0))
    assert not fixture.ask("100 tokens/day").allowed
    say("grant", "ann", "20 tokens/day")
    assert fixture.ask("100 tokens/day").allowed
    assert not fixture.ask("100 tokens/day").allowed


# revoke


def test_revoke_takes_a_grant_back_once(
    database: LedgerDatabase, say: Callable[..., str], refuse: Callable[..., str]
) -> None:
    """A grant is taken back by a row of its own, with who and why; a second time is refused."""
    database.add_user("eve")
    database.record(user_id="eve", created_at=now(), input_tokens=20_000, output_tokens=0)
    output = say("grant", "eve@example.org", "5k tokens/day", "--by", "root")
    (granted,) = grants(database)
    assert f"limits revoke {granted.id}" in output
    assert granted.id in say("show", "eve")
    assert shown(say, "eve")["20k tokens/day"]["remaining"] == 5_000
    say("revoke", granted.id, "--by", "ada", "--reason", "a mistake")
    limit = shown(say, "eve")["20k tokens/day"]
    assert (limit["granted"], limit["remaining"]) == (0, 0)
    rows = {row.id: row for row in grants(database)}
    assert len(rows) == 2
    taken_back = next(row for key, row in rows.items() if key != granted.id)
    assert (taken_back.amount, taken_back.granted_by, taken_back.reason) == (
        -5_000,
        "ada",
        "a mistake",
    )
    assert taken_back.expires_at == granted.expires_at
    assert "no grant" in refuse("revoke", granted.id)
    assert "no grant" in refuse("revoke", taken_back.id)
    assert len(grants(database)) == 2


def test_revoke_of_a_pool_s_reset_and_of_nothing(
    database: LedgerDatabase, say: Callable[..., str], refuse: Callable[..., str]
) -> None:
    """What a reset gave to a pool can be taken back; an id that is none changes nothing."""
    database.add_user("eve")
    database.record(user_id="eve", created_at=now(), input_tokens=20_000, output_tokens=0)
    say("reset", "pool:everyone")
    (granted,) = grants(database)
    for wrong in ("x", "", granted.id[:-1], f"{granted.id}' OR 1=1"):
        assert "no grant" in refuse("revoke", wrong)
    assert shown(say, "eve")["100M tokens/month"]["granted"] == 20_000
    say("revoke", granted.id)
    assert shown(say, "eve")["100M tokens/month"]["granted"] == 0
    with time_machine.travel(datetime(2026, 4, 1, 0, 0, 1, tzinfo=UTC)):
        assert "no grant" in refuse("revoke", granted.id)


# reset


def test_reset_grants_what_was_used(database: LedgerDatabase, say: Callable[..., str]) -> None:
    """Every limit of the user starts anew, by rows; pools and what is reserved stay as they are."""
    database.add_user("ann", "g1")
    database.record(created_at=now(), input_tokens=40_000, output_tokens=15_000)
    database.record(created_at=now(), input_tokens=1_000, output_tokens=0, state="reserved")
    output = say("reset", "ann", "--reason", "a loop", "--by", "root")
    assert "Reset 2 of 2 limits of ann@example.org." in output
    assert line_of(output, "50,000 tokens per day")[2:5] == [
        "55,000",
        "50,000 → 105,000",
        "0 → 49,000",
    ]
    assert line_of(output, "30 requests in any 5h")[2:] == [
        "1",
        "30 → 31",
        "28 → 29",
        "that use grows old",
    ]
    rows = shown(say, "ann")
    day = rows["50k tokens/day warn 70% 90%"]
    assert (day["used"], day["granted"], day["reserved"]) == (55_000, 55_000, 1_000)
    assert rows["100M tokens/month"]["granted"] == 0
    assert {(row.kind, row.granted_by, row.reason) for row in grants(database)} == {
        ("reset", "root", "a loop")
    }


def test_reset_twice_adds_nothing(database: LedgerDatabase, say: Callable[..., str]) -> None:
    """A second reset only makes up for what was used since the first; grants are kept."""
    database.add_user("ann", "g1")
    say("grant", "ann", "10k tokens/day")
    database.record(created_at=now(), input_tokens=300, output_tokens=0)
    say("reset", "ann")
    assert "Reset 0 of 2 limits of ann@example.org: nothing was used." in say("reset", "ann")
    database.record(created_at=now(), input_tokens=40, output_tokens=0)
    say("reset", "ann")
    day = shown(say, "ann")["50k tokens/day warn 70% 90%"]
    assert (day["used"], day["granted"], day["remaining"]) == (340, 10_340, 60_000)


def test_reset_of_named_limits(
    database: LedgerDatabase, say: Callable[..., str], refuse: Callable[..., str]
) -> None:
    """Only the limits that are named start anew; one that isn't there is an error."""
    database.add_user("ann", "g1")
    database.record(created_at=now())
    say("reset", "ann", "30 requests/5h")
    rows = shown(say, "ann")
    assert rows["30 requests/5h"]["granted"] == 1
    assert rows["50k tokens/day warn 70% 90%"]["granted"] == 0
    say("reset", "ann", "50k tokens/day warn 70% 90%")
    assert shown(say, "ann")["50k tokens/day warn 70% 90%"]["granted"] == 15
    assert 'LIMIT: "9 requests/day" counts what no limit' in refuse(
        "reset", "ann", "9 requests/day"
    )
    database.add_user("bob")
    assert "USER: bob@example.org has no limit" in refuse("reset", "bob")


def test_reset_of_a_rolling_limit_never_adds_more_than_counts(
    database: LedgerDatabase, say: Callable[..., str]
) -> None:
    """As the use grows old, so does its reset: the limit is never larger than it says."""
    set_valves(database, policies='[role.user]\nlimits = ["1k tokens/5h"]')
    database.add_user("ann")
    database.record(
        *range(now() - 17_900, now(), 60), user_id="ann", input_tokens=3, output_tokens=1
    )
    before = shown(say, "ann")["1k tokens/5h"]
    say("reset", "ann")
    assert 1 < len(grants(database)) <= 62
    after = shown(say, "ann")["1k tokens/5h"]
    assert (before["used"], after["used"], after["remaining"]) == (1_196, 1_196, 1_000)
    start = datetime.now(UTC)
    for minutes in (1, 7, 60, 200, 299, 306):
        with time_machine.travel(start + timedelta(minutes=minutes)):
            row = shown(say, "ann")["1k tokens/5h"]
            # A sixtieth of the period is five minutes: five records of four tokens.
            assert 0 <= row["granted"] - row["used"] <= 20, minutes
    assert row["granted"] == row["used"] == 0


def test_reset_sees_counters_and_what_was_counted_before_them(
    database: LedgerDatabase, say: Callable[..., str]
) -> None:
    """With the ledger's own counters, as in service, a reset lets requests in again."""
    texts = ("100 tokens/day", "90 tokens/5h")
    set_valves(database, policies=f"[role.user]\nlimits = {list(texts)!r}")
    database.add_user("ann")
    fixture = LedgerFixture(Ledger(database.engine), database.engine, Clock(time.time()))
    fixture.use(*texts, used=tokens(100, 50))
    assert not fixture.ask(*texts).allowed
    say("reset", "ann")
    decision = fixture.ask(*texts)
    assert decision.allowed
    assert [state.remaining for state in decision.states] == [100, 90]


def test_rows_are_written_once_however_often_it_is_tried(database: LedgerDatabase) -> None:
    """A transaction that is tried again after a broken connection finds its own row."""
    database.add_user("eve")
    arguments = argparse.Namespace(
        user="eve",
        policies=None,
        database_url=database.url,
        schema=None,
        function="usage_limits",
        by="root",
        reason="",
    )
    instant = datetime.now(UTC)
    target = find_target(arguments, instant)
    rows = [NewGrant(target.limits[0], 5, now() + 90)]
    for _ in range(2):
        write_grants(target, target.limits, arguments, instant, lambda _: rows)
    assert len(grants(database)) == 1


# names


def test_check_names_whom_policies_name_in_vain(
    database: LedgerDatabase, fail: Callable[..., str], tmp_path: Path
) -> None:
    """With a database, `check` says which groups and users aren't there, and what was meant."""
    database.add_user("bob")
    file = tmp_path / "policies.toml"
    file.write_text(
        '[group.Studens]\nlimits = ["1 request/day"]\n'
        '[group."Research Lab"]\nlimits = ["1 request/day"]\n'
        '[user."BOB@example.org"]\nlimits = ["1 request/day"]\n'
        '[user."anna@example.com"]\nlimits = ["1 request/day"]\n'
        "[user.bob]\nlimits = 'unlimited'\n[user.0815]\nlimits = 'unlimited'\n"
        '[pool.lab]\ngroup = "Laboratory of the West"\nlimits = ["1 request/day"]'
    )
    output = fail("check", str(file))
    assert "The policies are right" not in output
    named = [line for line in output.splitlines() if "nobody" in line]
    assert named == [
        '[group.Studens] names nobody: Open WebUI has no group "Studens"; did you mean "Students"?',
        '[user."anna@example.com"] names nobody: Open WebUI has no user with this address.',
        "[user.0815] names nobody: Open WebUI has no user with this id.",
        '[pool.lab] group names nobody: Open WebUI has no group "Laboratory of the West".',
    ]


def test_check_of_what_is_saved(
    database: LedgerDatabase, say: Callable[..., str], fail: Callable[..., str]
) -> None:
    """Without a file `check` looks at the valve: Bob of the policies has no account at first."""
    output = fail("check")
    assert '[user."Bob@Example.org"] names nobody' in output
    assert "group" not in output.split("names nobody")[1]
    database.add_user("bob")
    database.add_model("gpt-4o")
    assert '[model."llama*"] fits no model' in fail("check")
    database.add_model("tutor", "llama3")
    assert "The policies are right: 2 groups, 1 role, 1 user, 1 pool, 2 models." in say("check")


def test_renamed_group_is_no_longer_named(
    database: LedgerDatabase, say: Callable[..., str]
) -> None:
    """After a group was renamed its members are under the next policy, and `explain` says why."""
    database.add_user("ann", "g1")
    database.add_user("bob")
    assert "names nobody" not in say("explain", "ann", "--model", "m")
    with database.engine.begin() as connection:
        students = groups_table.c.id == "g1"
        connection.execute(update(groups_table).where(students).values(name="Studenten"))
    output = say("explain", "ann", "--model", "m")
    assert line_of(output, "→")[1] == "[role.user]"
    assert (
        '[group.Students] names nobody: Open WebUI has no group "Students"; '
        'did you mean "Studenten"?'
    ) in output
    # What was granted to her stays hers, for the limit that she is under now.
    say("grant", "ann", "1k tokens/day")
    assert shown(say, "ann")["20k tokens/day"]["granted"] == 1_000


def test_renamed_group_that_is_remembered(
    database: LedgerDatabase, say: Callable[..., str], fail: Callable[..., str]
) -> None:
    """After a rename that the filter has seen, all commands know whom the policies mean."""
    database.add_user("ann", "g1")
    database.add_user("bob")
    remembered = {"kind": "group", "name": "students", "id": "g1", "last_seen": "", "created_at": 1}
    database.insert(names_table, **remembered)
    with database.engine.begin() as connection:
        students = groups_table.c.id == "g1"
        connection.execute(update(groups_table).where(students).values(name="Alumni"))
    output = say("explain", "ann", "--model", "m")
    assert line_of(output, "→")[1] == "[group.Students]"
    said = '[group.Students] means the group now called "Alumni".'
    assert said in output
    assert said in say("check")
    say("grant", "ann", "1k tokens/day")
    assert shown(say, "ann")["50k tokens/day warn 70% 90%"]["granted"] == 1_000
    database.add_group("g3", "Students")
    assert "more than one group" in fail("check")


def test_user_is_found_by_id_and_by_address_in_any_case(
    database: LedgerDatabase, say: Callable[..., str]
) -> None:
    """Both name the same user, as policies do."""
    database.add_user("ann", "g1")
    for key in ("ann", "ann@example.org", " Ann@Example.ORG "):
        assert "ann@example.org, role user, id ann" in say("explain", key, "--model", "m")


@pytest.mark.parametrize("command", ["show", "grant", "reset", "explain"])
def test_deleted_user_is_not_found(
    database: LedgerDatabase, refuse: Callable[..., str], command: str
) -> None:
    """Who was deleted has no limits any more: their records stay, for reports only."""
    database.record(user_id="gone", created_at=now())
    more = {"grant": ["1 request/day"], "explain": ["--model", "m"]}.get(command, [])
    assert "USER: 'gone'; allowed: the e-mail address" in refuse(command, "gone", *more)
    assert grants(database) == []


# the real server


def test_grant_and_reset_let_requests_through(
    server: OpenWebUIServer, usage_limits: InstalledFilter, make_user: MakeUser
) -> None:
    """Who is refused goes on after a grant, and again after a reset, at once."""
    user = make_user()
    usage_limits.configure(policies='[role.user]\nlimits = ["50 tokens/day", "60 tokens/5h"]')

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "scripts.limits", *arguments],
            cwd=ROOT,
            env=os.environ | {"DATABASE_URL": server.database_url},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def chat() -> int:
        status = user.chat("[[in=20 tokens=30]]").status
        usage_limits.settled(user_id=user.id)
        return status

    assert [chat(), chat()] == [200, 429]
    run("grant", user.account.email, "5 tokens/day", "--reason", "one more")
    assert [chat(), chat()] == [200, 429]
    output = run("reset", user.account.email, "--by", "root")
    assert "Reset 2 of 2 limits" in output
    assert line_of(output, "50 tokens per day")[4] == "0 → 55"
    assert [chat(), chat(), chat()] == [200, 200, 429]
    rows = usage_limits.rows("usage_limits_grants", scope=f"user:{user.id}")
    granted: Counter[tuple[str, str]] = Counter()
    for row in rows:  # a rolling limit's reset is a row for each second of use
        granted[row["kind"], row["period"]] += row["amount"]
    assert granted == {("grant", "day"): 5, ("reset", "day"): 100, ("reset", "5h"): 100}
