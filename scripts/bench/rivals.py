"""Side by side with two other ways to limit usage in Open WebUI, in one run on SQLite.

(a) Dartmouth's `openwebui-token-tracking` from PyPI: what is left of the user's credits, and the
reply's tokens logged. (b) The sum of `chat_message.usage` over the user's month, as Open WebUI's
analytics spell it and as https://github.com/open-webui/open-webui/issues/23323 proposes to check
limits: the check alone, since the host records the message anyway.
"""

from __future__ import annotations

import importlib
import itertools
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from helpers.ledger.database import open_database
from helpers.ledger.ledger import Ledger
from helpers.ledger.records import Reservation
from helpers.limits.periods import CalendarRules
from helpers.limits.policies_text import parse_policies
from helpers.limits.policy import AppliedLimit, applied_limits
from scripts.bench.databases import RECORD_COLUMNS, RECORD_VALUES, month_start
from scripts.bench.ledger import admit_and_settle
from scripts.bench.tables import Cell, Section
from scripts.bench.timing import median_ms, take_turns

USERS = [f"user{number}" for number in range(20)]
TRACKING = "openwebui-token-tracking==0.1.10"
GOALS = {100_000: 10.0, 1_000_000: 50.0}
MONTHLY = parse_policies('[role.user]\nlimits = ["1000M tokens/month"]')
NUMBERS = (
    "WITH RECURSIVE numbers(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM numbers "
    "WHERE i + 1 < {size}) "
)
USER_ID = f"'user' || (i % {len(USERS)})"
CHAT_MESSAGES = (
    "CREATE TABLE chat_message (id TEXT PRIMARY KEY, chat_id TEXT NOT NULL, user_id TEXT, "
    "role TEXT NOT NULL, parent_id TEXT, content JSON, model_id TEXT, usage JSON, "
    "created_at BIGINT, updated_at BIGINT)",
    "CREATE INDEX ix_chat_message_user_id ON chat_message (user_id)",
    "CREATE INDEX ix_chat_message_created_at ON chat_message (created_at)",
    "CREATE INDEX chat_message_user_created_idx ON chat_message (user_id, created_at)",
)
SUM_MESSAGES = text(
    "SELECT sum(coalesce(CAST(json_extract(usage, '$.input_tokens') AS INTEGER), "
    "CAST(json_extract(usage, '$.prompt_tokens') AS INTEGER))), "
    "sum(coalesce(CAST(json_extract(usage, '$.output_tokens') AS INTEGER), "
    "CAST(json_extract(usage, '$.completion_tokens') AS INTEGER))) "
    "FROM chat_message WHERE role = 'assistant' AND user_id = :user_id "
    "AND created_at >= :since AND usage IS NOT NULL"
)
Reply = Callable[[], object]


def monthly_limit(reservation: Reservation) -> tuple[AppliedLimit, ...]:
    """One limit per month, as the others have one."""
    return applied_limits(
        reservation.subject,
        MONTHLY.roles["user"],
        MONTHLY,
        reservation.model_names,
        datetime.now(UTC),
        CalendarRules(),
    )


def created_at(size: int) -> str:
    """Instants spread over this month so far."""
    now = datetime.now(UTC)
    start, end = month_start(now), int(now.timestamp()) - 60
    return f"{start} + i * {max(1, end - start)} / {size}"


def fill(engine: Engine, *statements: str) -> None:
    """Run statements and fold the log into the file."""
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
        connection.commit()
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")


def our_reply(engine: Engine, size: int) -> Reply:
    """This project: admit and settle."""
    ledger = Ledger(engine, keep_connections=True)
    ledger.prepare()
    record = RECORD_VALUES.format(
        id="lower(hex(randomblob(16)))",
        false="0",
        user_id=USER_ID,
        created_at=created_at(size),
    )
    fill(
        engine,
        f"{NUMBERS.format(size=size)} INSERT INTO usage_limits_records ({RECORD_COLUMNS}) "
        f"SELECT {record} FROM numbers",
    )
    return admit_and_settle(ledger, monthly_limit, USERS)


def summing_reply(engine: Engine, size: int) -> Reply:
    """Sum the usage of the user's messages of this month."""
    usage = '\'{"input_tokens": 400, "output_tokens": 300, "total_tokens": 700}\''
    fill(
        engine,
        *CHAT_MESSAGES,
        f"{NUMBERS.format(size=size)} INSERT INTO chat_message "
        f"SELECT lower(hex(randomblob(16))), 'c', {USER_ID}, 'assistant', NULL, "
        f"'\"' || hex(randomblob(150)) || '\"', 'gpt-4o', {usage}, {created_at(size)}, 0 "
        "FROM numbers",
    )
    since, turn = month_start(datetime.now(UTC)), itertools.cycle(USERS)

    def check() -> object:
        with engine.connect() as connection:
            return connection.execute(SUM_MESSAGES, {"user_id": next(turn), "since": since}).one()

    return check


def tracking_reply(engine: Engine, size: int, package: Any) -> Reply:
    """`openwebui-token-tracking`: remaining credits, then the reply's tokens logged."""
    url = engine.url.render_as_string()
    with engine.begin() as connection:
        # It refers to Open WebUI's table of users.
        connection.exec_driver_sql('CREATE TABLE "user" (id TEXT PRIMARY KEY)')
    importlib.import_module(f"{package.__name__}.db").migrate_database(url)
    fill(
        engine,
        "INSERT INTO token_tracking_model_pricing "
        "(provider, id, name, input_cost_credits, per_input_tokens, output_cost_credits, "
        "per_output_tokens) VALUES ('openai', 'gpt-4o', 'GPT', 1, 1000, 2, 1000)",
        "INSERT OR REPLACE INTO token_tracking_base_settings "
        "(setting_key, setting_value, description) "
        "VALUES ('base_credit_allowance', '1000000000', '')",
        f"{NUMBERS.format(size=size)} INSERT INTO token_tracking_usage_log "
        "(log_date, user_id, provider, model_id, prompt_tokens, response_tokens) "
        f"SELECT strftime('%Y-%m-%d %H:%M:%S', {created_at(size)}, 'unixepoch') || '.000000', "
        f"{USER_ID}, 'openai', 'gpt-4o', 400, 300 FROM numbers",
    )
    tracker, turn = package.TokenTracker(url), itertools.cycle(USERS)

    def check_and_log() -> None:
        user = {"id": next(turn), "email": "x@example.org"}
        if tracker.remaining_credits(user)[0] <= 0:
            raise RuntimeError("the credits of the benchmark are too low")
        tracker.log_token_usage("openai", "gpt-4o", user, 400, 300)

    return check_and_log


def install_tracking(folder: str) -> Any:
    """The rival's package, in a folder of its own and without the versions that it asks for.

    Raises:
        ImportError: It can't be installed here.
    """
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder]
    done = subprocess.run([*command, TRACKING], capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise ImportError(f"{TRACKING} can't be installed: {done.stderr.strip()[-200:]}")
    sys.path.insert(0, folder)
    try:
        return importlib.import_module("openwebui_token_tracking")
    finally:
        sys.path.remove(folder)


def measure_rivals(quick: bool) -> Section:
    """Medians of all three at several sizes, in turn."""
    section = Section("rivals", "Side by side: ms to check and record one reply (SQLite, 20 users)")
    sizes = (1_000, 100_000) if quick else (1_000, 100_000, 1_000_000)
    rounds = 40 if quick else 100
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-rivals-")))
        package = None
        try:
            package = install_tracking(str(folder / "package"))
        except ImportError as error:
            section.notes.append(f"Not measured: {error}")
        medians: dict[int, dict[str, float]] = {}
        for size in sizes:

            def new_engine(name: str, size: int = size) -> Engine:
                engine = open_database(f"sqlite:///{folder / f'{name}-{size}.db'}")
                stack.callback(engine.dispose)
                return engine

            replies: dict[str, Reply] = {
                "ours": our_reply(new_engine("ours"), size),
                "b": summing_reply(new_engine("sum"), size),
            }
            if package is not None:
                replies["a"] = tracking_reply(new_engine("tracking"), size, package)
            take_turns(replies, len(USERS))  # every user's counter, and the caches
            wall = take_turns(replies, rounds)
            medians[size] = {name: median_ms(seconds) for name, seconds in wall.items()}
    for size, found in medians.items():
        row: dict[str, Cell] = {"records": size, "this filter, ms": found["ours"]}
        for name in sorted(found.keys() - {"ours"}):
            row |= {f"({name}), ms": found[name], f"({name}) / ours": found[name] / found["ours"]}
        section.rows.append(row)
        for name in sorted(found.keys() - {"ours"}):
            if size in GOALS:
                ratio = found[name] / found["ours"]
                section.judge(f"({name}) at {size:,}", ratio, GOALS[size], "times ours", least=True)
    section.notes += [
        "This filter: admit and settle, one monthly limit. (a) openwebui-token-tracking 0.1.10: "
        "remaining credits, then log. (b) summing chat_message.usage: the check alone.",
    ]
    section.notes.append(f"Wall time; medians of {rounds} replies, all three in turn.")
    return section
