"""`limits backfill`: what Open WebUI saved before the filter counts in the open windows."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from helpers.ledger.database import open_database
from helpers.ledger.ledger import Ledger
from helpers.ledger.reports import Selection, sum_records
from helpers.ledger.tables import counters_table, records_table
from scripts.limits.command import main
from scripts.limits.function import functions_table
from scripts.limits.history import chats_table, messages_table
from scripts.openwebui.server import OpenWebUIServer
from tests.commands.test_report import LedgerDatabase
from tests.conftest import InstalledFilter, MakeUser, OpenPage
from tests.support.ledger_fixture import Clock, LedgerFixture, standing, tokens
from tests.support.limits_commands import line_of, now, set_valves, shown

pytest_plugins = ["tests.support.databases", "tests.support.limits_fixtures"]

pytestmark = pytest.mark.usefixtures("no_environment")

USAGE = {"prompt_tokens": 20, "completion_tokens": 30, "total_tokens": 50}


def save(
    database: LedgerDatabase,
    message: str,
    *,
    user: str = "ann",
    chat: str = "c1",
    at: int | None = None,
    chat_at: int | None = None,
    **changes: Any,
) -> None:
    """A reply in a saved chat, as Open WebUI's tables hold it."""
    at = now() if at is None else at
    with database.engine.begin() as connection:
        if not connection.scalar(select(chats_table.c.id).where(chats_table.c.id == chat)):
            made = {"id": chat, "user_id": user, "created_at": at if chat_at is None else chat_at}
            connection.execute(chats_table.insert().values(made))
        row = {
            "id": f"{chat}-{message}",
            "chat_id": chat,
            "user_id": user,
            "role": "assistant",
            "model_id": "mistral",
            "usage": USAGE,
            "created_at": at,
        }
        connection.execute(messages_table.insert().values(row | changes))


def records(database: LedgerDatabase) -> list[Any]:
    """All records in the order of their ids."""
    with database.engine.connect() as connection:
        return list(connection.execute(select(records_table).order_by(records_table.c.id)))


def counters(database: LedgerDatabase) -> int:
    """How many counters there are."""
    with database.engine.connect() as connection:
        return int(connection.scalar(select(func.count()).select_from(counters_table)) or 0)


def test_saved_replies_become_settled_records(
    database: LedgerDatabase, say: Callable[..., str]
) -> None:
    """A reply counts with its own time, today's policy and groups, and is marked as what it is."""
    database.add_user("ann", "g1")
    save(database, "m1", at=now() - 90)
    output = say("backfill")
    assert "Recorded 1 reply of 1 user since 2026-03-01 00:00 UTC: 50 tokens." in output
    assert line_of(output, "ann@example.org")[1:] == ["1", "20", "30", "$0.00"]
    (row,) = records(database)
    assert dict(row._mapping) == {
        "id": "backfill-m1",
        "user_id": "ann",
        "user_email": "ann@example.org",
        "group_ids": "|g1|",
        "model_id": "mistral",
        "model_names": "|mistral|",
        "source": "backfill",
        "chat_id": "c1",
        "message_id": "m1",
        "policy": "Students",
        "state": "settled",
        "created_at": now() - 90,
        "settled_at": now(),
        "lease_until": now() - 90,
        "input_tokens": 20,
        "output_tokens": 30,
        "cached_input_tokens": 0,
        "cost_micros": 0,
        "estimated": False,
        "counted": 1,
        "weighted_input_tokens": 20,
        "weighted_output_tokens": 30,
        "worker": "",
        "end_reason": "",
    }
    rows = shown(say, "ann")
    used = [row["used"] for row in rows.values()]
    assert used == [50, 1, 50]  # tokens a day, requests in five hours, and the pool's month


def test_second_run_adds_nothing(database: LedgerDatabase, say: Callable[..., str]) -> None:
    """However often it runs, each reply is recorded once; new ones are added."""
    database.add_user("ann")
    save(database, "m1")
    say("backfill")
    save(database, "m2")
    output = say("backfill")
    assert "Recorded 1 reply of 1 user" in output
    assert "Left out: 1 in the ledger already." in output
    assert "Recorded 0 replies of 0 users" in say("backfill")
    assert [row.id for row in records(database)] == ["backfill-m1", "backfill-m2"]


def test_dry_run_writes_nothing(database: LedgerDatabase, say: Callable[..., str]) -> None:
    """It shows what each user would be charged, the largest first, and changes no table."""
    database.add_user("ann")
    database.add_user("bob")
    save(database, "m1")
    save(database, "m2", user="bob", chat="c2", model_id="gpt-4o")
    save(database, "m3", user="bob", chat="c2", usage=None)
    output = say("backfill", "--dry-run")
    assert "Would record 2 replies of 2 users since 2026-03-01 00:00 UTC: 100 tokens." in output
    assert "Left out: 1 without usage." in output
    assert line_of(output, "bob@example.org")[1:] == ["1", "20", "30", "$0.00"]
    assert output.endswith("Nothing was written (--dry-run).\n")
    assert records(database) == []


def test_replies_of_the_filter_are_not_counted_twice(
    database: LedgerDatabase, say: Callable[..., str]
) -> None:
    """A reply that is in the ledger, running or released too, is left out."""
    database.add_user("ann")
    for number, state in enumerate(("settled", "reserved", "released")):
        database.record(created_at=now(), state=state, message_id=f"m{number}")
        save(database, f"m{number}")
    save(database, "m9")
    assert "Left out: 3 in the ledger already." in say("backfill")
    assert [row.id for row in records(database) if row.source == "backfill"] == ["backfill-m9"]


def test_only_the_open_windows_are_filled(
    database: LedgerDatabase, say: Callable[..., str]
) -> None:
    """Replies count from where the longest window began, of any policy; --since says otherwise."""
    database.add_user("ann")
    month = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp())
    save(database, "m1", at=month)
    save(database, "m0", at=month - 1)
    save(database, "old", at=month - 9 * 86_400, chat="c0")
    assert "Recorded 1 reply" in say("backfill")
    assert "Recorded 1 reply of 1 user since 2026-02-27 00:00" in say(
        "backfill", "--since", "2026-02-27"
    )
    set_valves(database, daily_token_limit=9, policies='[role.admin]\nlimits = ["9 requests/30d"]')
    assert "Recorded 1 reply of 1 user since 2026-02-08 12:30 UTC" in say("backfill")
    assert [row.message_id for row in records(database)] == ["m0", "m1", "old"]


def test_old_replies_reach_the_reports(database: LedgerDatabase, say: Callable[..., str]) -> None:
    """What was rolled up before is made anew with them."""
    database.add_user("ann")
    old = now() - 60 * 86_400
    months = [old - days * 86_400 for days in (90, 60, 30, 0)]
    database.record(*months, user_id="ann", model_id="mistral")
    ledger = Ledger(database.engine)
    while ledger.roll_up():
        pass
    save(database, "m1", at=old - 60)
    assert "Recorded 1 reply" in say("backfill", "--since", "2025-12-01")
    for _ in range(2):
        with database.engine.connect() as connection:
            assert sum_records(connection, Selection(), ["model"])[("mistral",)][:3] == (5, 60, 50)
        while ledger.roll_up():
            pass


def test_windows_begin_where_the_valves_say(
    database: LedgerDatabase, say: Callable[..., str]
) -> None:
    """The month, its time zone and the dates of --since are those of the valves."""
    set_valves(database, monthly_token_limit=9, timezone="Asia/Kathmandu", month_starts_on=5)
    assert "since 2026-03-05 00:00 +0545" in say("backfill")
    assert "since 2026-01-01 00:00 +0545" in say("backfill", "--since", "2026-01-01")


def test_without_limits_no_window_is_open(
    database: LedgerDatabase, refuse: Callable[..., str]
) -> None:
    """With nothing to fill, it asks for a date."""
    set_valves(database)
    assert "policies: no limit, so no window is open; allowed: --since" in refuse("backfill")
    assert '--since: "soon"; allowed: a date such as' in refuse("backfill", "--since", "soon")


def test_prices_weights_and_base_models(database: LedgerDatabase, say: Callable[..., str]) -> None:
    """Models cost and weigh what they would now; a free one is recorded and doesn't count."""
    database.add_user("ann", "g1")
    database.add_model("tutor", "gpt-4o")
    save(database, "m1", model_id="tutor")
    save(database, "m2", model_id="llama3")
    save(database, "m3", usage=USAGE | {"cost": 0.5})
    save(database, "m4", model_id=None)
    assert "$0.50" in line_of(say("backfill"), "ann@example.org")[4]
    rows = {row.message_id: row for row in records(database)}
    assert rows["m1"].model_names == "|tutor|gpt-4o|"
    assert (rows["m1"].weighted_input_tokens, rows["m1"].cost_micros) == (100, 350)
    assert (rows["m2"].counted, rows["m2"].input_tokens) == (0, 20)
    assert rows["m3"].cost_micros == 500_000
    assert rows["m4"].model_id == "unknown"
    assert shown(say, "ann")["30 requests/5h"]["used"] == 3


@pytest.mark.parametrize(
    ("usage", "input_tokens", "output_tokens", "estimated"),
    [
        # What Open WebUI makes of two rounds of tools: sums, beside the last call's own numbers.
        (
            {
                "input_tokens": 300,
                "output_tokens": 40,
                "total_tokens": 340,
                "prompt_tokens": 200,
                "completion_tokens": 30,
            },
            300,
            40,
            False,
        ),
        ({"prompt_eval_count": 7, "eval_count": 5}, 7, 5, False),
        ({"input_tokens": 0, "output_tokens": 5, "total_tokens": 5}, 0, 5, True),
        ({"total_tokens": 90}, 90, 0, True),
    ],
)
def test_usage_in_every_shape(
    database: LedgerDatabase,
    say: Callable[..., str],
    usage: dict[str, Any],
    input_tokens: int,
    output_tokens: int,
    estimated: bool,
) -> None:
    """Usage is read as the filter reads it; what isn't there is not made up."""
    database.add_user("ann")
    save(database, "m1", usage=usage)
    say("backfill")
    (row,) = records(database)
    assert (row.input_tokens, row.output_tokens, row.estimated) == (
        input_tokens,
        output_tokens,
        estimated,
    )


@pytest.mark.parametrize("usage", [None, {}, [], "5", {"tokens": -1}, {"total_tokens": 0}])
def test_messages_without_usage_are_counted_as_such(
    database: LedgerDatabase, say: Callable[..., str], usage: Any
) -> None:
    """A stopped or failed reply, or one whose provider said nothing, is left out."""
    database.add_user("ann")
    save(database, "m1", usage=usage)
    save(database, "m2", role="user")
    output = say("backfill")
    assert "Recorded 0 replies" in output
    assert "Left out: 1 without usage." in output


def test_invented_usage_is_left_out(database: LedgerDatabase, say: Callable[..., str]) -> None:
    """Users can save any usage into their chats: what no model takes isn't counted."""
    database.add_user("ann")
    save(database, "m1", usage={"prompt_tokens": 10**9, "completion_tokens": 1})
    output = say("backfill")
    assert "Left out: 1 with more tokens than a model takes." in output
    assert records(database) == []


def test_copies_count_once(database: LedgerDatabase, say: Callable[..., str]) -> None:
    """Clones and imports of chats repeat replies: only the first chat they are in counts."""
    database.add_user("ann")
    database.add_user("bob")
    save(database, "m1", at=now() - 90)
    save(database, "m1", at=now() - 90, chat="clone", chat_at=now())
    save(database, "m1", at=now() - 90, chat="bobs", chat_at=now(), user="bob")
    save(database, "elsewhere", at=now() - 90_000, chat="import", chat_at=now())
    output = say("backfill")
    assert "Left out: 3 copied or imported from another chat." in output
    assert [(row.user_id, row.message_id) for row in records(database)] == [("ann", "m1")]


def test_nobody_is_charged_for_somebody_else_s_chat(
    database: LedgerDatabase, say: Callable[..., str]
) -> None:
    """An imported chat can name anyone: only its owner's own replies count."""
    database.add_user("ann")
    database.add_user("bob")
    save(database, "m1", user="bob")
    save(database, "m2", user="ann")
    assert "Left out: 1 in somebody else's chat." in say("backfill")
    assert [row.user_id for row in records(database)] == ["bob"]


def test_deleted_users_are_left_out(database: LedgerDatabase, say: Callable[..., str]) -> None:
    """Who has no account any more has no windows to fill."""
    save(database, "m1", user="gone")
    output = say("backfill")
    assert "Left out: 1 of users whom Open WebUI doesn't have any more." in output
    assert records(database) == []


def test_only_models_that_the_filter_is_on_for(
    database: LedgerDatabase, say: Callable[..., str], refuse: Callable[..., str]
) -> None:
    """What the filter wouldn't have seen doesn't count."""
    database.add_user("ann")
    with database.engine.begin() as connection:
        connection.execute(functions_table.update().values(is_global=False))
    save(database, "m1", model_id="limited")
    save(database, "m2")
    assert "function usage_limits: it isn't on for any model; allowed: " in refuse("backfill")
    database.add_model("limited", None, "usage_limits")
    assert "Left out: 1 of models that the filter isn't on for." in say("backfill")
    assert [row.message_id for row in records(database)] == ["m1"]


def test_odd_times(database: LedgerDatabase, say: Callable[..., str]) -> None:
    """Milliseconds are understood; a reply from the future counts as of now."""
    database.add_user("ann")
    save(database, "m1", at=(now() - 5) * 1_000)
    save(database, "m2", at=(now() - 90 * 86_400) * 1_000, chat="c2")
    save(database, "m3", at=now() + 900, chat="c3")
    say("backfill")
    assert [(row.message_id, row.created_at) for row in records(database)] == [
        ("m1", now() - 5),
        ("m3", now()),
    ]


def test_exempt_administrators_are_recorded(
    database: LedgerDatabase, say: Callable[..., str]
) -> None:
    """As in service: on record, under the policy "exempt"."""
    database.add_user("root", role="admin")
    save(database, "m1", user="root")
    say("backfill")
    assert [row.policy for row in records(database)] == ["exempt"]


def test_counters_agree_afterwards(database: LedgerDatabase, say: Callable[..., str]) -> None:
    """Counters of the users and pools concerned are made anew; others are left alone."""
    texts, pool = ("9k tokens/day", "9k requests/5h"), "9M tokens/month"
    lines = f"[role.user]\nlimits = {list(texts)!r}\n[pool.everyone]\nlimits = [{pool!r}]"
    set_valves(database, policies=lines)
    fixture = LedgerFixture(Ledger(database.engine), database.engine, Clock(time.time()))
    for user in ("ann", "bob"):
        database.add_user(user)
        assert fixture.ask(*texts, pool=pool, user=user).allowed
        fixture.ledger.settle(fixture.made[-1], tokens(30, 12), ())
    assert counters(database) == 5
    for number in range(1_200):
        save(database, f"m{number}", at=now() - number)
    assert "Recorded 1,200 replies of 1 user" in say("backfill")
    assert counters(database) == 2  # bob's own
    for user, day, requests in (("ann", 60_042, 1_201), ("bob", 42, 1)):
        last = fixture.reservation(user, created_at=now())
        states = standing(fixture.ledger, last, fixture.limits(last, *texts, pool=pool)).states
        assert [state.used for state in states] == [day, requests, 60_084]
    assert ", 0 changed." in say("rebuild")


def test_backfill_while_chats_go_on(database: LedgerDatabase) -> None:
    """Records that come in between chats, in two runs at once, are neither lost nor doubled."""
    texts, pool = ("9M tokens/day", "9k requests/5h"), "9M tokens/month"
    fixture = LedgerFixture(Ledger(database.engine), database.engine, Clock(time.time()))
    users = ["ann", "bob", "eve"]
    for user in users:
        database.add_user(user)
        for number in range(300):
            save(database, f"{user}{number}", user=user, chat=user)
    until = time.monotonic() + 4

    def chat(user: str) -> int:
        return fixture.chat_until(until, user, *texts, pool=pool)

    with ThreadPoolExecutor(5) as threads:
        running = [threads.submit(main, ["backfill", "--database-url", database.url]) for _ in "12"]
        chats = list(threads.map(chat, users))
    assert [run.result() for run in running] == [0, 0]
    for user, count in zip(users, chats, strict=True):
        last = fixture.reservation(user, created_at=now())
        states = standing(fixture.ledger, last, fixture.limits(last, *texts, pool=pool)).states
        total = 3 * 300 * 50 + 7 * sum(chats)
        assert [state.used for state in states] == [300 * 50 + 7 * count, 300 + count, total]


def test_ledger_is_made_where_there_is_none(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The history can be counted before the first chat, also in a database of its own."""
    host = LedgerDatabase(
        f"sqlite:///{tmp_path / 'host.db'}", open_database(f"sqlite:///{tmp_path}/host.db")
    )
    host.make_host(database_url=database_url, daily_token_limit=100)
    host.add_user("ann")
    save(host, "m1", at=int(time.time()))
    ledger = LedgerDatabase(database_url, open_database(database_url))
    if database_url.startswith("sqlite"):
        ledger.make_ledger()  # a file that isn't there isn't made: a path may be mistyped
    assert main(["backfill", "--dry-run", "--database-url", host.url]) == 0
    assert main(["backfill", "--database-url", host.url]) == 0
    assert [row.message_id for row in records(ledger)] == ["m1"]
    assert main(["show", "ann", "--format", "json", "--database-url", host.url]) == 0
    output = capsys.readouterr().out
    assert '"used": 50' in output
    ledger.engine.dispose()
    host.engine.dispose()


def test_real_server(
    server: OpenWebUIServer,
    usage_limits: InstalledFilter,
    make_user: MakeUser,
    open_page: OpenPage,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Chats from before the filter was switched on count once it is, clones of them don't."""
    user = make_user()
    page = open_page(user)
    usage_limits.switch(active=False, everywhere=False)
    first = page.send("[[in=20 tokens=30 usage=final]]")
    page.send("[[in=40 tokens=50 usage=final]]", after=first)
    page.send("[[in=7 usage=none]]")
    user.post(f"/api/v1/chats/{first.chat_id}/clone", {"title": "again"})
    usage_limits.configure(policies='[role.user]\nlimits = ["150 tokens/day"]')
    usage_limits.switch(active=True, everywhere=True)
    page.send("[[in=1 tokens=2]]")
    usage_limits.settled(user_id=user.id)

    options = ["--database-url", server.database_url]
    for recorded in (2, 0):
        assert main(["backfill", *options]) == 0
        rows = usage_limits.rows(user_id=user.id, source="backfill")
        assert sorted(row["input_tokens"] + row["output_tokens"] for row in rows) == [50, 90]
        output = capsys.readouterr().out
        assert (user.account.email in output) == bool(recorded)
        assert "2 copied or imported from another chat" in output
    assert main(["show", user.id, "--format", "json", *options]) == 0
    assert [row["used"] for row in json.loads(capsys.readouterr().out)] == [143]
    assert user.chat("[[in=20 tokens=30]]").status == 200
    usage_limits.settled(user_id=user.id)
    refused = user.chat("[[in=20 tokens=30]]")
    assert refused.status == 429
    assert main(["rebuild", *options]) == 0
    assert ", 0 changed." in capsys.readouterr().out
