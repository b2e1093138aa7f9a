"""The administrator's commands: check, explain, show, sweep, rebuild, on real databases."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, inspect, select

from helpers.ledger.database import open_database
from helpers.ledger.ledger import Ledger
from helpers.ledger.reports import Selection, sum_records
from helpers.ledger.tables import counters_table, grants_table, records_table, rollups_table
from scripts.limits import database as database_module
from scripts.limits.command import main
from scripts.limits.function import functions_table, models_table
from scripts.limits.host import host_metadata
from scripts.openwebui.admin import OpenWebUIAdmin
from scripts.openwebui.server import OpenWebUIServer
from tests.commands.test_report import UNREACHABLE, LedgerDatabase
from tests.conftest import ROOT, InstalledFilter, MakeUser
from tests.support.ledger_fixture import Clock, LedgerFixture, standing, tokens
from tests.support.limits_commands import POLICIES, line_of, now, set_valves, shown

pytest_plugins = ["tests.support.databases", "tests.support.limits_fixtures"]

pytestmark = pytest.mark.usefixtures("no_environment")


# check


def test_check_shows_what_it_understood(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A right text is shown table by table, in words, without any database."""
    (tmp_path / "policies.toml").write_text(POLICIES)
    assert main(["check", str(tmp_path / "policies.toml")]) == 0
    output = capsys.readouterr().out
    students = ["[group.Students]", "10", "50,000 tokens per day, warning at 70% and 90%"]
    assert line_of(output, "[group.Students]") == students
    assert line_of(output, "30 requests in any 5h")[2] == "30 requests in any 5h"
    assert line_of(output, "2,000 tokens on gpt-4* per month")[1] == "5"
    assert line_of(output, "Bob@Example.org")[2] == "unlimited"
    assert line_of(output, "[pool.everyone]")[1:] == ["everyone", "100,000,000 tokens per month"]
    assert line_of(output, '[model."gpt-4*"]')[1:] == ["5", "2.5", "", "10"]
    assert line_of(output, '[model."llama*"]')[1] == "0 (free)"
    assert "The policies are right: 2 groups, 1 role, 1 user, 1 pool, 2 models." in output


def test_check_tells_every_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong text ends with 1 and one line for each mistake, as the parser says it."""
    (tmp_path / "bad.toml").write_text(
        '[group.A]\nlimits = ["5 tokns/day"]\n[role.boss]\nlimits = []'
    )
    assert main(["check", str(tmp_path / "bad.toml")]) == 1
    captured = capsys.readouterr()
    first, second = captured.err.splitlines()
    assert first.startswith('[group.A] limits: "5 tokns/day" has the unknown unit "tokns"; allowed')
    assert second.startswith('[role.boss]: Open WebUI has no role "boss"; allowed: [role.user]')
    assert captured.out == ""


def test_check_reads_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dash is standard input, and an empty text is right."""
    monkeypatch.setattr(sys, "stdin", StringIO(""))
    assert main(["check", "-"]) == 0
    assert capsys.readouterr().out == "The policies are right: no tables at all.\n"


def test_check_of_a_file_that_can_t_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is no text file is said with its name, and ends with 2: nothing was checked."""
    assert main(["check", str(tmp_path / "none.toml")]) == 2
    assert "none.toml: No such file or directory; allowed: a file" in capsys.readouterr().err
    (tmp_path / "latin.toml").write_bytes("# Gebühr".encode("latin-1"))
    assert main(["check", str(tmp_path / "latin.toml")]) == 2
    assert "latin.toml: not UTF-8; allowed: " in capsys.readouterr().err


# explain


def chosen(output: str) -> list[str]:
    """The row with the arrow: the policy that counts."""
    return line_of(output, "→")


def test_explain_own_policy(database: LedgerDatabase, say: Callable[..., str]) -> None:
    """The user's own policy counts before any group's; the address is found in any case."""
    database.add_user("bob", "g1")
    output = say("explain", "BOB@example.org", "--model", "gpt-4o")
    why = ['[user."Bob@Example.org"]', "the user's own: it counts", "unlimited"]
    assert chosen(output)[1:] == why
    assert line_of(output, "[group.Students]")[2] == "priority 10; the user has their own"


def test_explain_group_of_the_lowest_number(
    database: LedgerDatabase, say: Callable[..., str]
) -> None:
    """Of several groups the lowest priority number counts, and the others are shown with theirs."""
    database.add_user("ann", "g1", "g2")
    output = say("explain", "ann", "--model", "gpt-4o")
    assert "User    ann@example.org, role user, id ann" in output
    assert "Groups  Students, Research Lab" in output
    assert chosen(output)[1:3] == [
        '[group."Research Lab"]',
        "priority 5: the lowest number of the user's groups",
    ]
    assert line_of(output, "[group.Students]")[2] == "priority 10: Research Lab has a lower number"
    assert line_of(output, "[role.user]")[2] == "one of the user or a group counts"
    assert "Filter  usage_limits is on for all models" in output
    assert "weight 5; input $2.5, output $10 per million tokens" in output
    _, limits = output.split("Limits that count for this request")
    assert line_of(limits, "on gpt-4*")[1] == "this user"
    assert line_of(limits, "100,000,000")[1] == "shared: pool everyone"


def test_explain_most_generous_group(database: LedgerDatabase, say: Callable[..., str]) -> None:
    """With `multiple_groups` at most_generous, the group that allows most counts."""
    set_valves(database, policies=POLICIES, multiple_groups="most_generous")
    database.add_user("ann", "g1", "g2")
    output = say("explain", "ann", "--model", "gpt-4o")
    assert chosen(output)[1:3] == ['[group."Research Lab"]', "priority 5: it allows most"]
    assert line_of(output, "[group.Students]")[2] == "priority 10: Research Lab allows more"


def test_explain_inherited_group(database: LedgerDatabase, say: Callable[..., str]) -> None:
    """A group counts for the members of the groups inside it, at any depth, even in a circle."""
    database.add_group("g3", "Seminar", parent="g1")
    database.add_group("g4", "Tuesdays", parent="g3")
    database.add_group("g5", "Odd", parent="g6")
    database.add_group("g6", "Circle", parent="g5")
    database.add_user("ann", "g4", "g5")
    output = say("explain", "ann", "--model", "gpt-4o")
    assert (
        "Groups  Tuesdays, Odd, Seminar (through Tuesdays), Students (through Tuesdays), "
        "Circle (through Odd)"
    ) in output
    assert chosen(output)[1] == "[group.Students]"
    assert line_of(output, "of the group Seminar")[2] == "there is none"


def test_explain_role_and_default(database: LedgerDatabase, say: Callable[..., str]) -> None:
    """Who is in no group with a policy gets the role's, else what the two simple valves say."""
    database.add_user("eve")
    assert chosen(say("explain", "eve", "--model", "m"))[1:3] == [
        "[role.user]",
        "none of the user or a group has one",
    ]
    set_valves(database, daily_token_limit=900)
    output = say("explain", "eve", "--model", "m")
    assert chosen(output)[1:] == [
        "valves daily_token_limit, monthly_token_limit",
        "none of the user, a group or the role has one",
        "900 tokens per day",
    ]


def test_explain_who_is_never_refused(database: LedgerDatabase, say: Callable[..., str]) -> None:
    """An exempt administrator, a free model and shadow mode are said as such."""
    database.add_user("root", role="admin")
    database.add_user("ann", "g1")
    assert "Exempt: administrators" in say("explain", "root", "--model", "gpt-4o")
    assert "A free model" in say("explain", "ann", "--model", "llama3")
    set_valves(database, policies=POLICIES, shadow_mode=True)
    assert "Shadow mode" in say("explain", "ann", "--model", "gpt-4o")


def test_explain_looks_behind_a_model(database: LedgerDatabase, say: Callable[..., str]) -> None:
    """A model made from another is known by both names, as in a request."""
    database.add_user("ann", "g2")
    database.add_model("tutor", "gpt-4o")
    database.add_model("mistral")
    output = say("explain", "ann", "--model", "tutor")
    assert "Model   tutor, base model gpt-4o: weight 5" in output
    assert "on gpt-4*" in output.partition("Limits that count")[2]
    output = say("explain", "ann", "--model", "mistral")
    assert "on gpt-4*" not in output.partition("Limits that count")[2]
    # A table isn't for the model that a user has given its id.
    set_valves(database, policies=f"{POLICIES}[model.tutor]\nweight = 0")
    assert "A free model" in say("explain", "ann", "--model", "tutor")
    database.insert(models_table, id="tutor2", base_model_id="gpt-4o", user_id="ann")
    set_valves(database, policies=f"{POLICIES}[model.tutor2]\nweight = 0")
    assert "gpt-4o: weight 5" in say("explain", "ann", "--model", "tutor2")


def test_explain_refuses_a_model_that_is_not_there(
    database: LedgerDatabase, refuse: Callable[..., str]
) -> None:
    """A model that neither the workspace's list nor the ledger has is named as unknown."""
    database.add_user("ann")
    database.add_model("tutor", "gpt-4o")
    said = refuse("explain", "ann", "--model", "gpt-4")
    assert '"gpt-4" is no model that Open WebUI has' in " ".join(said.split())
    assert '"gpt-4o"' in said


def test_explain_says_where_the_filter_is_on(
    database: LedgerDatabase, say: Callable[..., str]
) -> None:
    """A filter that is off, or on for other models only, limits nothing."""
    database.add_user("ann")
    database.add_model("limited", None, "usage_limits")
    database.add_model("other")
    with database.engine.begin() as connection:
        connection.execute(functions_table.update().values(is_global=False))
    assert "usage_limits is on for this model" in say("explain", "ann", "--model", "limited")
    assert "is NOT ON for this model" in say("explain", "ann", "--model", "other")
    with database.engine.begin() as connection:
        connection.execute(functions_table.update().values(is_active=False))
    assert "usage_limits is OFF" in say("explain", "ann", "--model", "limited")


def test_explain_tries_out_policies(
    database: LedgerDatabase, say: Callable[..., str], tmp_path: Path
) -> None:
    """A file counts in place of the valve, also before the filter is installed."""
    database.add_user("ann", "g1")
    (tmp_path / "new.toml").write_text('[group.Students]\nlimits = ["7 requests/day"]')
    options = ["ann", "--model", "m", "--policies", str(tmp_path / "new.toml")]
    assert chosen(say("explain", *options))[3] == "7 requests per day"
    with database.engine.begin() as connection:
        connection.execute(functions_table.delete())
    assert chosen(say("explain", *options))[3] == "7 requests per day"


def test_explain_needs_no_ledger(database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Policies are explained before the first chat, and no table is made for it."""
    engine = open_database(database_url)
    database = LedgerDatabase(database_url, engine)
    database.make_host(policies=POLICIES)
    database.add_user("ann")
    before = set(inspect(engine).get_table_names())
    assert main(["explain", "ann", "--model", "m", "--database-url", database_url]) == 0
    assert "[role.user]" in capsys.readouterr().out
    assert main(["show", "ann", "--database-url", database_url]) == 2
    assert "no ledger in this database" in capsys.readouterr().err
    for command in ("sweep", "rebuild"):
        assert main([command, "--database-url", database_url]) == 2
    assert set(inspect(engine).get_table_names()) == before
    engine.dispose()


def test_older_open_webui_has_no_inherited_groups(
    database: LedgerDatabase, say: Callable[..., str]
) -> None:
    """Before 0.12 groups had no parents: that column isn't asked for."""
    database.add_user("ann", "g1")
    with database.engine.begin() as connection:
        connection.exec_driver_sql('ALTER TABLE "group" DROP COLUMN parent_group_id')
    assert chosen(say("explain", "ann", "--model", "m"))[1] == "[group.Students]"


# show


def test_show_counts_used_and_reserved(database: LedgerDatabase, say: Callable[..., str]) -> None:
    """Each limit of the user and of their pools: what is used, what is held, what is left."""
    database.add_user("ann", "g1")
    database.record(created_at=now(), input_tokens=30_000, output_tokens=10_000)
    database.record(created_at=now(), input_tokens=1_000, output_tokens=0, state="reserved")
    database.record(created_at=now(), input_tokens=9_000, state="released")
    database.record(user_id="bob", created_at=now(), input_tokens=50, output_tokens=0)
    rows = shown(say, "ann@example.org")
    assert list(rows) == ["50k tokens/day warn 70% 90%", "30 requests/5h", "100M tokens/month"]
    day = rows["50k tokens/day warn 70% 90%"]
    reset_at = datetime.fromisoformat(day.pop("reset_at"))
    assert 0 < (reset_at - datetime.now(UTC)).total_seconds() <= 86_400
    assert day == {
        "user_id": "ann",
        "user_email": "ann@example.org",
        "policy": "Students",
        "limit": "50k tokens/day warn 70% 90%",
        "pool": False,
        "period": "day",
        "model": "*",
        "source": "",
        "unit": "tokens",
        "amount": 50_000,
        "granted": 0,
        "used": 40_000,
        "reserved": 1_000,
        "remaining": 9_000,
        "percent": 82,
    }
    requests = rows["30 requests/5h"]
    assert (requests["used"], requests["reserved"], requests["remaining"]) == (1, 1, 28)
    pool = rows["100M tokens/month"]
    assert (pool["pool"], pool["policy"], pool["used"]) == (True, "everyone", 40_050)


def test_show_has_money_in_dollars(database: LedgerDatabase, say: Callable[..., str]) -> None:
    """Money is shown in dollars, and limits on single models are shown whatever was used."""
    database.add_user("ann", "g2")
    database.record(created_at=now(), model_id="mistral", cost_micros=1_250_000)
    rows = shown(say, "ann")
    money = rows["$20/month"]
    assert (money["unit"], money["amount"], money["used"], money["remaining"]) == (
        "USD",
        20,
        1.25,
        18.75,
    )
    assert rows["2k tokens/month on gpt-4*"]["used"] == 0
    cells = line_of(say("show", "ann"), "$20.00 per month")
    assert cells[1:6] == ["Research Lab", "$1.25", "$0.00", "$18.75", "6"]


def test_show_adds_grants(database: LedgerDatabase, say: Callable[..., str]) -> None:
    """What was granted on top of a limit is part of what it allows."""
    database.add_user("eve")
    database.record(user_id="eve", created_at=now(), input_tokens=20_000, output_tokens=0)
    database.insert(
        grants_table,
        id="1",
        scope="user:eve",
        measure="tokens",
        model_glob="*",
        period="day",
        amount=500,
        kind="grant",
        granted_by="root",
        reason="",
        created_at=now(),
        expires_at=now() + 90,
    )
    row = shown(say, "eve")["20k tokens/day"]
    assert (row["amount"], row["granted"], row["remaining"]) == (20_500, 500, 500)


def test_show_of_no_limit(database: LedgerDatabase, say: Callable[..., str]) -> None:
    """Who has no limit is told so; an exempt administrator is marked."""
    set_valves(database)
    database.add_user("root", role="admin")
    output = say("show", "root")
    assert "No limit counts for root@example.org." in output
    assert "Exempt: an administrator is never refused" in output
    assert json.loads(say("show", "root", "--format", "json")) == []


def test_show_agrees_with_the_filter(database: LedgerDatabase, say: Callable[..., str]) -> None:
    """With counters, rolling ones that lag included, and without, it says what a request would."""
    texts = ("9k tokens/day", "9k tokens/month on gpt*", "9k tokens/10m", "99 requests/hour")
    set_valves(database, policies=f"[role.user]\nlimits = {list(texts)!r}")
    database.add_user("ann")
    clock = Clock(time.time() - 1_500)
    fixture = LedgerFixture(Ledger(database.engine, clock=clock), database.engine, clock)
    for step in range(25):
        clock.now += 60
        fixture.use(*texts, used=tokens(step, 2 * step), model_names=(("gpt", "llama")[step % 2],))
    assert fixture.ask(*texts).allowed  # one is still running
    clock.now = time.time()

    found = [(row["used"], row["reserved"]) for row in shown(say, "ann").values()]
    with database.engine.begin() as connection:
        connection.execute(counters_table.delete())
    without_counters = [(row["used"], row["reserved"]) for row in shown(say, "ann").values()]
    asked = fixture.reservation(model_names=("gpt",))
    states = standing(fixture.ledger, asked, fixture.limits(asked, *texts)).states
    in_filter = [(state.used, state.reserved) for state in states]
    assert found == without_counters == in_filter
    assert all(used for used, _ in found)


def test_show_writes_nothing(database: LedgerDatabase, say: Callable[..., str]) -> None:
    """Looking at limits makes no counter."""
    database.add_user("ann", "g1")
    database.record(created_at=now())
    say("show", "ann")
    say("explain", "ann", "--model", "m")
    with database.engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(counters_table)) == 0


def test_show_in_the_valve_s_time_zone(database: LedgerDatabase, say: Callable[..., str]) -> None:
    """Windows and reset times are those of the valves."""
    set_valves(database, daily_token_limit=100, timezone="Asia/Kathmandu", reset_hour=4)
    database.add_user("ann")
    assert "04:00 UTC+5:45, in " in say("show", "ann")
    (row,) = shown(say, "ann").values()
    assert row["reset_at"].endswith("T22:15:00+00:00")


def test_ledger_elsewhere_is_shown(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Users come from Open WebUI's database, use from the one that its valve names."""
    engine = open_database(database_url)
    ledger = LedgerDatabase(database_url, engine)
    ledger.make_ledger()
    ledger.record(created_at=now())
    url = f"sqlite:///{tmp_path / 'host.db'}"
    host = LedgerDatabase(url, open_database(url))
    host.make_host(database_url=database_url, daily_token_limit=100)
    host.add_user("ann")
    assert main(["show", "ann", "--format", "json", "--database-url", url]) == 0
    assert [row["used"] for row in json.loads(capsys.readouterr().out)] == [15]
    assert main(["sweep", "--database-url", url]) == 0
    host.engine.dispose()
    engine.dispose()


# sweep and rebuild


def test_sweep_settles_orphans(database: LedgerDatabase, say: Callable[..., str]) -> None:
    """What a stopped server left is settled as it was noted, a living reply is left alone."""
    orphans = range(now() - 5_000, now() - 4_850)
    database.record(*orphans, state="reserved", lease_until=now() - 4_000)
    database.record(created_at=now(), state="reserved", lease_until=now() + 300)
    output = say("sweep")
    assert "Settled 150 replies that a stopped server left.\n1 reply is still running." in output
    with database.engine.connect() as connection:
        states = connection.execute(
            select(records_table.c.state, records_table.c.estimated, func.count())
            .group_by(records_table.c.state, records_table.c.estimated)
            .order_by(records_table.c.state)
        ).all()
    assert [tuple(row) for row in states] == [("reserved", False, 1), ("settled", True, 150)]
    assert "Settled 0 replies" in say("sweep")


def test_rebuild_puts_counters_right(database: LedgerDatabase, say: Callable[..., str]) -> None:
    """A counter that doesn't agree with the records is named with both numbers, and replaced."""
    database.add_user("ann")
    fixture = LedgerFixture(Ledger(database.engine), database.engine, Clock(time.time()))
    texts = ("1k tokens/day", "9 requests/5h")
    fixture.use(*texts, used=tokens(30, 12))
    assert "2 counters of windows still open compared with the records, 0 changed." in say(
        "rebuild"
    )
    assert fixture.ask(*texts).allowed
    with database.engine.begin() as connection:
        broken = counters_table.c.id.like("% * rolling %")
        connection.execute(counters_table.update().where(broken).values(requests=9))
    output = say("rebuild")
    assert line_of(output, "9 → 1")[:2] == ["ann@example.org", "*"]
    assert "2 counters of windows still open compared with the records, 1 changed." in output
    assert "2 counters dropped" in output
    assert [state.used for state in fixture.ask(*texts).states] == [42, 1]


def test_rebuild_puts_reports_right(database: LedgerDatabase, say: Callable[..., str]) -> None:
    """What was rolled up wrongly is dropped with the counters; reports read the records again."""
    now = int(time.time())
    database.record(*(now - days * 86_400 for days in (60, 74, 88, 102)))
    while Ledger(database.engine).roll_up():
        pass
    with database.engine.begin() as connection:
        connection.execute(rollups_table.update().values(requests=9))
        assert sum_records(connection, Selection(), [])[()][0] == 4 * 9
    say("rebuild")
    with database.engine.connect() as connection:
        assert sum_records(connection, Selection(), [])[()][0] == 4


def test_rebuild_names_groups_and_everyone(
    database: LedgerDatabase, say: Callable[..., str]
) -> None:
    """The counters of pools are named as people know them; old windows are dropped unseen."""
    for scope, end in (("group:g1", 2**53), ("everyone", 2**53), ("user:gone", 2**53), ("x", 5)):
        database.insert(
            counters_table,
            id=scope,
            scope=scope,
            model_glob="*",
            window_start=0,
            window_end=end,
            requests=1,
            input_tokens=0,
            output_tokens=0,
            cost_micros=0,
        )
    output = say("rebuild")
    for name in ("group Students", "everyone", "user:gone"):
        assert line_of(output, name)[3] == "1 → 0"
    assert "3 counters of windows still open" in output
    assert "4 counters dropped" in output


def test_rebuild_while_chats_go_on(database: LedgerDatabase) -> None:
    """Counters dropped again and again under load never lose or double a record."""
    fixture = LedgerFixture(Ledger(database.engine), database.engine, Clock(time.time()))
    texts, pool = ("9M tokens/day", "9k requests/5h"), "9M tokens/month"
    until = time.monotonic() + 4

    def chat(user: str) -> int:
        return fixture.chat_until(until, user, *texts, pool=pool)

    def drop() -> int:
        done = 0
        while time.monotonic() < until:
            assert main(["rebuild", "--database-url", database.url]) == 0
            done += 1
        return done

    with ThreadPoolExecutor(4) as threads:
        dropping = threads.submit(drop)
        chats = list(threads.map(chat, ["ann", "bob", "eve"]))
    assert dropping.result() > 1
    last = fixture.reservation("ann", created_at=now())
    states = standing(fixture.ledger, last, fixture.limits(last, *texts, pool=pool)).states
    assert [state.used for state in states] == [7 * chats[0], chats[0], 7 * sum(chats)]


# errors


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["show", "nobody"], "USER: 'nobody'; allowed: the e-mail address or the id of a user"),
        (["show", "ann", "--function", "limits"], "filters there: usage_limits"),
        (["show", "ann", "--policies", "/none"], "--policies /none: No such file or directory"),
        (["explain", "ann", "--model", "m", "--function", "f"], "no function 'f'; allowed: --func"),
    ],
)
def test_errors_say_where_what_and_what_is_allowed(
    database: LedgerDatabase, refuse: Callable[..., str], arguments: list[str], error: str
) -> None:
    """Every error names the place, what was given and what is allowed."""
    database.add_user("ann")
    assert error in refuse(*arguments)


def test_bad_valves_are_named(
    database: LedgerDatabase, refuse: Callable[..., str], tmp_path: Path
) -> None:
    """Valves or a file that the filter wouldn't take are named with the reason."""
    database.add_user("ann")
    set_valves(database, reset_hour=77)
    assert "function usage_limits, valve reset_hour: Input should be" in refuse("show", "ann")
    set_valves(database)
    (tmp_path / "bad.toml").write_text('[role.user]\nlimits = ["5 tokns/day"]')
    error = refuse("show", "ann", "--policies", str(tmp_path / "bad.toml"))
    assert '[role.user] limits: "5 tokns/day" has the unknown unit "tokns"' in error


def test_encrypted_valves_are_named(
    database: LedgerDatabase, say: Callable[..., str], refuse: Callable[..., str], tmp_path: Path
) -> None:
    """Valves that only the server can read are said to be so; policies from a file still work."""
    database.add_user("ann")
    with database.engine.begin() as connection:
        connection.execute(functions_table.update().values(valves='"gAAAAABsecret"'))
    assert "encrypted (ENABLE_VALVE_ENCRYPTION); allowed: --policies FILE" in refuse("show", "ann")
    (tmp_path / "new.toml").write_text(POLICIES)
    assert "20k tokens/day" in shown(say, "ann", "--policies", str(tmp_path / "new.toml"))


def test_database_without_users(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A ledger's own database has no users to look up."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    database = LedgerDatabase(url, open_database(url))
    database.make_ledger()
    assert main(["show", "ann", "--database-url", url]) == 2
    assert "no users in this database; allowed: Open WebUI's own" in capsys.readouterr().err
    database.engine.dispose()


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", "ann", "--database-url", UNREACHABLE],
        ["sweep", "--database-url", UNREACHABLE],
        ["rebuild", UNREACHABLE],
        [UNREACHABLE],
    ],
)
def test_passwords_are_never_shown(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """No error repeats a password."""
    try:
        status = main(arguments)
    except SystemExit as end:  # argparse's own way
        status = int(str(end.code))
    captured = capsys.readouterr()
    assert status == 2
    assert "hunter2" not in captured.out + captured.err
    assert captured.err


def test_command_runs(database: LedgerDatabase) -> None:
    """The commands run as an administrator runs them."""
    database.add_user("ann", "g1")

    def run(*arguments: str) -> Any:
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "scripts.limits", *arguments],
            cwd=ROOT,
            env=os.environ | {"DATABASE_URL": database.url},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    done = run("show", "ann@example.org")
    assert (done.returncode, done.stderr) == (0, "")
    assert "50,000 tokens per day" in done.stdout
    failed = run("show", "nobody")
    assert (failed.returncode, failed.stdout) == (2, "")
    assert "Traceback" not in failed.stderr


def test_tables_are_those_of_open_webui(server: OpenWebUIServer) -> None:
    """The columns that are read are there in a real Open WebUI."""
    engine = open_database(server.database_url)
    inspector = inspect(engine)
    for table in host_metadata.tables.values():
        there = {column["name"] for column in inspector.get_columns(table.name)}
        assert {column.name for column in table.columns} <= there
    engine.dispose()


def test_real_server(
    server: OpenWebUIServer,
    usage_limits: InstalledFilter,
    admin: OpenWebUIAdmin,
    make_user: MakeUser,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In a real Open WebUI the commands see the user's nested groups, the valves and the use."""
    outer = admin.create_group("Faculty of Commands")
    inner = admin.create_group("Seminar of Commands", parent=outer)
    user = make_user()
    admin.add_to_group(inner, [user.id])
    usage_limits.configure(policies='[group."Faculty of Commands"]\nlimits = ["90 tokens/day"]')
    user.chat("[[in=20 tokens=30]]")
    usage_limits.settled(user_id=user.id)
    options = ["--database-url", server.database_url]
    assert main(["explain", user.account.email, "--model", "fake-llm", *options]) == 0
    output = capsys.readouterr().out
    assert "Faculty of Commands (through Seminar of Commands)" in output
    assert chosen(output)[1] == '[group."Faculty of Commands"]'
    assert main(["show", user.id, "--format", "json", *options]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["used"], row["reserved"], row["remaining"]) == (50, 0, 40)
    assert main(["rebuild", *options]) == 0
    assert ", 0 changed." in capsys.readouterr().out
    assert user.chat("[[in=20 tokens=30]]").status == 200
    assert user.chat("[[in=20 tokens=30]]").status == 429


# show --all and --near


def test_show_all_and_near(database: LedgerDatabase, say: Callable[..., str]) -> None:
    """All users and pools, the most utilised first; --near only those whose use warns."""
    database.add_user("eve")
    database.add_user("uma", "g1")
    database.add_user("ada", role="admin")
    database.add_user("bob")
    database.record(user_id="eve", created_at=now(), input_tokens=17_000, output_tokens=0)
    database.record(user_id="ada", created_at=now(), input_tokens=90_000, output_tokens=0)
    rows = json.loads(say("show", "--all", "--format", "json"))
    assert [(row["user_id"], row["limit"], row["used"]) for row in rows] == [
        ("eve", "20k tokens/day", 17_000),
        (None, "100M tokens/month", 107_000),
        ("uma", "50k tokens/day warn 70% 90%", 0),
        ("uma", "30 requests/5h", 0),
    ]
    (one,) = [row for row in rows if row["user_id"] == "eve"]
    assert one == shown(say, "eve")["20k tokens/day"]
    assert line_of(say("show", "--near"), "eve@")[:4] == [
        "eve@example.org",
        "20,000 tokens per day",
        "user",
        "17,000",
    ]
    set_valves(database, policies='[role.user]\nlimits = ["9M tokens/day", "0 requests/day on x"]')
    assert "No limit has reached its warning." in say("show", "--near")


@pytest.mark.parametrize("arguments", [[], ["eve", "--all"], ["--all", "--near"]])
def test_show_needs_one_of_three(refuse: Callable[..., str], arguments: list[str]) -> None:
    """Whose limits are shown is said once."""
    assert "show USER, show --all or show --near" in refuse("show", *arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ["forget", "\udcff"],
        ["revoke", "\udcff"],
        ["explain", "ann", "--model", "\udcff"],
        ["grant", "ann", "1k tokens/day", "--reason", "\udcff"],
        ["show", "ann", "--function", "\udcff"],
    ],
)
def test_arguments_are_text(
    database: LedgerDatabase, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """Bytes that are no UTF-8 are refused in a sentence, before any database is asked."""
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--database-url", database.url])
    assert ended.value.code == 2
    assert "'\\udcff' is not UTF-8" in capsys.readouterr().err


# which database


def test_database_in_the_usual_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without any variable it is the container's file, else that of the installed package."""
    container = tmp_path / "container.db"
    package = tmp_path / "open_webui"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.setattr(database_module, "CONTAINER_FILE", container)
    monkeypatch.delitem(sys.modules, "open_webui", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["show", "eve"]) == 2
    said = capsys.readouterr().err
    assert f"no file {container}, {package / 'data' / 'webui.db'}" in said
    arguments = argparse.Namespace(database_url=None, schema=None)
    for file in (package / "data" / "webui.db", container):
        file.touch()
        assert database_module.find_database(arguments).text == f"sqlite:///{file}"
