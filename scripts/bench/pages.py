"""What the usage pages take, with many users and records, and how long they hold up a chat.

Open WebUI reads its database's address when its modules are imported, so each database is measured
in a process of its own: this module, run as a program, prints what it found as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

from helpers.filter import Filter
from helpers.ledger.counters import counter_id, make_counters
from helpers.ledger.ledger import Ledger
from helpers.ledger.transactions import new_deadline
from helpers.limits.policy import AppliedLimit
from helpers.openwebui.messages import Reader
from helpers.openwebui.page_answers import as_answer
from helpers.openwebui.page_data import PageData, PageRequest
from helpers.openwebui.pages import answer_report, answer_users
from helpers.openwebui.policy_editor import check_policies, simulate_policies
from helpers.openwebui.usage_command import usage_markdown
from helpers.openwebui.valves import AdminValves
from scripts.bench.databases import YEAR_SECONDS, fill_postgresql, fill_sqlite
from scripts.bench.hooks import HOST_SETTINGS, ROOT
from scripts.bench.tables import Section
from scripts.postgresql import new_postgresql_database

GOAL_MS = 300.0
GOAL_SIMULATION_SECONDS = 10.0
# A chat's next words may come that much later.
GOAL_PAUSE_MS = 50.0
TICK_SECONDS = 0.002
GROUPS = 50
POLICIES = (
    '[group."Group 1"]\nlimits = "unlimited"\n'
    '[role.user]\nlimits = ["2k tokens/day", "100k tokens/month", "5k tokens/5h"]\n'
    '[pool.everyone]\nlimits = ["100000M tokens/month"]\n'
    '[model."gpt-4*"]\ninput_price = 2.5\noutput_price = 10\n'
)


def make_host(users: int, records: int) -> None:
    """Open WebUI's users and groups, and their ledger over the last year."""
    db = import_module("open_webui.internal.db")
    accounts = import_module("open_webui.models.users").User
    groups = import_module("open_webui.models.groups")
    db.Base.metadata.create_all(
        db.engine,
        tables=[one.__table__ for one in (accounts, groups.Group, groups.GroupMember)],
    )
    now = int(time.time())
    stamps = {"created_at": now, "updated_at": now}
    with db.engine.begin() as connection:
        connection.execute(
            accounts.__table__.insert(),
            [
                {
                    "id": f"user{n}",
                    "name": f"User {n}",
                    "email": f"user{n}@example.org",
                    "role": "user",
                    "profile_image_url": "",
                    "last_active_at": now,
                    **stamps,
                }
                for n in range(users)
            ],
        )
        connection.execute(
            groups.Group.__table__.insert(),
            [
                {"id": f"group{n}", "user_id": "user0", "name": f"Group {n}", "description": ""}
                | stamps
                for n in range(GROUPS)
            ],
        )
        connection.execute(
            groups.GroupMember.__table__.insert(),
            [
                {"id": f"m{n}", "group_id": f"group{n % GROUPS}", "user_id": f"user{n}", **stamps}
                for n in range(users)
            ],
        )
    Ledger(db.engine).prepare()
    values = {
        "user_id": f"'user' || (i % {users})",
        "created_at": f"{now - 60 - YEAR_SECONDS} + CAST(i AS bigint) * {YEAR_SECONDS} / {records}",
    }
    fill = fill_sqlite if db.engine.dialect.name == "sqlite" else fill_postgresql
    fill(db.engine, records, values)


def roll_up_all(ledger: Ledger) -> list[float]:
    """Roll everything up, as the ledger's worker does once a day; the seconds of each block.

    So long SQLite's writers wait, once in fourteen days.
    """
    seconds, more = [], True
    while more:
        began = time.perf_counter()
        more = ledger.roll_up()
        seconds.append(time.perf_counter() - began)
    return seconds[:-1]


def make_all_counters(data: PageData) -> None:
    """The counters that the users' requests would have made."""
    finder, missing = data.finder(), dict[str, AppliedLimit]()
    for subject in data.directory().subjects():
        for applied in finder.match(subject).limits_of(subject):
            missing[counter_id(applied)] = applied
    second = int(data.now.timestamp())
    data.accounting.change(lambda one: make_counters(one, missing, second), {"everyone"})


async def longest_pause(work: Callable[[], object]) -> float:
    """The longest that a chat has to wait while something is read in a thread, in ms.

    What others have left for Python's collector is collected first: a full collection holds every
    thread for as long as the process has objects, and would fall to whoever comes when it is due.
    """
    gc.collect()
    working = asyncio.get_running_loop().run_in_executor(None, work)
    longest = 0.0
    while not working.done():
        began = time.perf_counter()
        await asyncio.sleep(TICK_SECONDS)
        longest = max(longest, time.perf_counter() - began - TICK_SECONDS)
    await working
    return longest * 1_000


def measure(users: int, records: int, rounds: int) -> list[dict[str, Any]]:
    """Each question with its median, and the longest pause that it made."""
    make_host(users, records)
    valves, plugin, now = AdminValves(policies=POLICIES), Filter(), datetime.now(UTC)
    opened = plugin.ledger_of(valves)

    def data() -> PageData:
        return PageData(valves, *opened, datetime.now(UTC))

    def asked(body: dict[str, Any] | None = None, **parameters: str) -> PageRequest:
        return PageRequest(data(), None, parameters, body or {}, True, new_deadline())

    make_all_counters(data())
    rolled_up = roll_up_all(data().accounting.ledger)
    month = f"{now - timedelta(days=30):%Y-%m-%d}"

    def report(by: str, since: str = month) -> Callable[[], object]:
        return lambda: answer_report(asked(by=by, since=since))

    questions: dict[str, Callable[[], object]] = {
        "me": lambda: data().me("user7"),
        "/usage": lambda: usage_markdown(data(), "user7", Reader(UTC), True),
        "users": lambda: answer_users(asked()),
        "users?near=true": lambda: answer_users(asked(near="true")),
        "pools": lambda: data().pools(),
        "overview": lambda: data().overview(),
        "report?by=user, 30 days": report("user"),
        "report?by=model,day, 30 days": report("model,day"),
        "report?by=group, 30 days": report("group"),
        "report?by=user, a year": report("user", since=""),
        "report?by=user,model, a year": report("user,model", since=""),
        "report?by=model,day, a year": report("model,day", since=""),
        "report?by=group, a year": report("group", since=""),
        "policies/check": lambda: check_policies(asked({"policies": POLICIES})),
        "policies/simulate, a year": lambda: simulate_policies(
            asked({"policies": POLICIES, "days": 365})
        ),
    }
    found: list[dict[str, Any]] = [
        {
            "question": "roll up 14 days",
            "ms": statistics.median(rolled_up) * 1_000,
            "quietest": min(rolled_up) * 1_000,
        }
    ]
    for name, ask in questions.items():
        times = 1 if "simulate" in name else rounds
        seconds, processor = [], []
        for _ in range(times):
            began, worked = time.perf_counter(), time.process_time()
            as_answer(ask())
            seconds.append(time.perf_counter() - began)
            processor.append(time.process_time() - worked)
        pause = asyncio.run(longest_pause(lambda ask=ask: as_answer(ask())))  # type: ignore[misc]
        median = statistics.median(seconds) * 1_000
        found.append(
            {
                "question": name,
                "ms": median,
                "quietest": min(seconds) * 1_000,
                "processor time of the worker": statistics.median(processor) * 1_000,
                "longest pause": pause,
            }
        )
    return found


def measure_in_process(url: str, quick: bool) -> list[dict[str, Any]]:
    """The same in a process of its own, on a database of Open WebUI's."""
    with tempfile.TemporaryDirectory(prefix="usage-limits-bench-") as folder:
        settings = {**HOST_SETTINGS, "FROM_INIT_PY": "true", "DATA_DIR": folder}
        settings |= {"DATABASE_URL": url} if url else {}
        command = [sys.executable, "-m", "scripts.bench.pages", *(["--quick"] if quick else [])]
        done = subprocess.run(
            command, env={**os.environ, **settings}, cwd=ROOT, capture_output=True, text=True
        )
    if done.returncode:
        raise RuntimeError(done.stderr[-2_000:])
    found: list[dict[str, Any]] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def measure_pages(quick: bool, server_url: str) -> Section:
    """Milliseconds of each page and JSON, and how long it holds up the event loop."""
    title = "Pages: ms per question with 5,000 users and 1 million records"
    section = Section("pages", title)
    for kind in ("SQLite", "PostgreSQL"):
        if kind == "SQLite":
            found = measure_in_process("", quick)
        else:
            with new_postgresql_database(server_url) as url:
                found = measure_in_process(url, quick)
        section.rows += [{"database": kind, **row} for row in found]
        simulation = [row for row in found if "simulate" in row["question"]]
        others = [row for row in found if row not in simulation]
        slowest = max(others, key=lambda row: row["ms"])
        section.judge(f"{kind}, {slowest['question']}", slowest["ms"], GOAL_MS, "ms")
        seconds = simulation[0]["ms"] / 1_000
        section.judge(f"{kind}, a simulation", seconds, GOAL_SIMULATION_SECONDS, "s")
        pause = max(row.get("longest pause", 0.0) for row in found)
        section.judge(f"{kind}, the longest pause of a chat", pause, GOAL_PAUSE_MS, "ms")
    section.notes.append(
        "Medians of 5 answers as JSON text, and the quietest. The simulation once."
    )
    if quick:
        section.notes.append("Quick: 500 users and 100,000 records.")
    return section


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure on the database of this process's environment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args(arguments).quick
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the host's own
        found = measure(500, 100_000, 3) if quick else measure(5_000, 1_000_000, 5)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
