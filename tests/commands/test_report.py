"""The usage report on real databases: sums, days, names, formats, errors."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from io import StringIO
from itertools import count
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import time_machine
from sqlalchemy import Engine, inspect, text

from helpers.ledger.database import open_database
from helpers.ledger.ledger import Ledger
from helpers.ledger.tables import migrations_table, records_table
from scripts.limits.function import functions_table, models_table
from scripts.limits.host import groups_table, host_metadata, members_table, users_table
from scripts.openwebui.server import OpenWebUIServer
from scripts.report.command import main
from tests.conftest import ROOT, InstalledFilter, MakeUser

pytest_plugins = ["tests.support.databases"]

NOON = int(datetime(2026, 3, 10, 12, tzinfo=UTC).timestamp())
SUMS = [
    "requests",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cost_usd",
    "estimated_requests",
]
UNREACHABLE = "postgresql://owui:hunter2@127.0.0.1:1/webui"


@dataclass
class LedgerDatabase:
    """A database with a ledger in it, and with Open WebUI's own tables where a test wants them."""

    url: str
    engine: Engine
    numbers: Iterator[int] = field(default_factory=count)

    def make_ledger(self) -> None:
        """Make the tables as the filter's first request does."""
        Ledger(self.engine).prepare()

    def record(self, *instants: int, **changes: Any) -> None:
        """Write one record: ann's 10 and 5 tokens on gpt-4o at noon, or what is given.

        With `instants`, one for each of them.
        """
        user = changes.get("user_id", "ann")
        values: dict[str, Any] = {
            "user_id": user,
            "user_email": f"{user}@example.org",
            "group_ids": "",
            "model_id": "gpt-4o",
            "source": "page",
            "chat_id": "",
            "message_id": "",
            "policy": "default",
            "state": "settled",
            "created_at": NOON,
            "lease_until": NOON,
            "input_tokens": 10,
            "output_tokens": 5,
            "cached_input_tokens": 0,
            "cost_micros": 0,
            "estimated": False,
            "counted": 1,
        } | changes
        values.setdefault("model_names", f"|{values['model_id']}|")
        values.setdefault("weighted_input_tokens", values["input_tokens"])
        values.setdefault("weighted_output_tokens", values["output_tokens"])
        made = [
            values | {"id": f"r{next(self.numbers)}", "created_at": instant}
            for instant in instants or [values["created_at"]]
        ]
        with self.engine.begin() as connection:
            connection.execute(records_table.insert(), made)

    def make_host(self, **valves: Any) -> None:
        """Make Open WebUI's tables, with the filter on for all models."""
        host_metadata.create_all(self.engine)
        self.insert(
            functions_table,
            id="usage_limits",
            type="filter",
            valves=json.dumps(valves) if valves else None,
            is_active=True,
            is_global=True,
        )

    def insert(self, table: Any, **values: Any) -> None:
        """Write one row."""
        with self.engine.begin() as connection:
            connection.execute(table.insert().values(values))

    def add_user(self, name: str, *group_ids: str, role: str = "user") -> None:
        """An account of Open WebUI's that is a member of groups."""
        self.insert(users_table, id=name, email=f"{name}@example.org", role=role)
        for group_id in group_ids:
            self.insert(members_table, group_id=group_id, user_id=name)

    def add_group(self, key: str, name: str, parent: str | None = None) -> None:
        """A group of Open WebUI's."""
        self.insert(groups_table, id=key, name=name, parent_group_id=parent)

    def add_model(self, key: str, base: str | None = None, *filter_ids: str) -> None:
        """A model in the workspace's list."""
        meta = json.dumps({"filterIds": list(filter_ids)})
        self.insert(models_table, id=key, base_model_id=base, meta=meta)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine's own Open WebUI is seen."""
    for name in [*os.environ]:
        if name.startswith("DATABASE_") or name == "DATA_DIR":
            monkeypatch.delenv(name)


@pytest.fixture
def noon() -> Iterator[None]:
    """It is just after `NOON`, far from where any period ends."""
    with time_machine.travel(NOON + 90):
        yield


@pytest.fixture
def database(database_url: str) -> Iterator[LedgerDatabase]:
    """A ledger on each kind of database."""
    engine = open_database(database_url)
    made = LedgerDatabase(database_url, engine)
    made.make_ledger()
    yield made
    engine.dispose()


@pytest.fixture
def sqlite_database(tmp_path: Path) -> Iterator[LedgerDatabase]:
    """A ledger on SQLite, where the kind of database doesn't matter."""
    url = f"sqlite:///{tmp_path / 'webui.db'}"
    engine = open_database(url)
    made = LedgerDatabase(url, engine)
    made.make_ledger()
    yield made
    engine.dispose()


@pytest.fixture
def rows(database: LedgerDatabase, capsys: pytest.CaptureFixture[str]) -> Any:
    """Reads the rows of a report: `rows("--by", "user")`."""

    def read(*arguments: str) -> Any:
        assert main(["--database-url", database.url, "--format", "json", *arguments]) == 0
        return json.loads(capsys.readouterr().out)

    return read


def totals(rows: list[dict[str, Any]], *columns: str) -> dict[Any, int]:
    """The total tokens of rows by one column, or by several."""
    keys = [tuple(row[column] for column in columns) for row in rows]
    return {
        key if len(columns) > 1 else key[0]: row["total_tokens"]
        for key, row in zip(keys, rows, strict=True)
    }


def test_rows_are_the_sums_of_what_was_used(database: LedgerDatabase, rows: Any) -> None:
    """Rows have exactly the documented columns; released records don't count, open ones do."""
    database.record(cost_micros=1_500_000)
    database.record(input_tokens=100, output_tokens=1, state="reserved", estimated=True)
    database.record(input_tokens=7_000, output_tokens=7_000, state="released")
    database.record(user_id="bob", model_id="llama3", counted=0, weighted_input_tokens=0)
    assert rows("--by", "user,model") == [
        {
            "user_id": "ann",
            "user_email": "ann@example.org",
            "model_id": "gpt-4o",
            "requests": 2,
            "input_tokens": 110,
            "output_tokens": 6,
            "total_tokens": 116,
            "cost_usd": 1.5,
            "estimated_requests": 1,
        },
        {
            "user_id": "bob",
            "user_email": "bob@example.org",
            "model_id": "llama3",
            "requests": 1,
            "input_tokens": 10,
            "output_tokens": 5,
            "total_tokens": 15,
            "cost_usd": 0,
            "estimated_requests": 0,
        },
    ]


def test_columns_come_in_their_documented_order(database: LedgerDatabase, rows: Any) -> None:
    """Whatever the order after --by, programs find the columns in the same one."""
    database.record()
    (row,) = rows("--by", "group,day, source,model,user")
    assert list(row) == [
        "user_id",
        "user_email",
        "model_id",
        "source",
        "day",
        "group_id",
        "group_name",
        *SUMS,
    ]


def test_largest_use_comes_first_and_days_in_order(database: LedgerDatabase, rows: Any) -> None:
    """Days are in order; within one, and without days, the largest use comes first."""
    database.record(user_id="bob", input_tokens=90)
    database.record(user_id="ann", input_tokens=20)
    database.record(user_id="eve", created_at=NOON - 86_400)
    assert [row["user_id"] for row in rows("--by", "user")] == ["bob", "ann", "eve"]
    assert [(row["day"], row["user_id"]) for row in rows("--by", "day,user")] == [
        ("2026-03-09", "eve"),
        ("2026-03-10", "bob"),
        ("2026-03-10", "ann"),
    ]


def test_newest_address_is_shown(database: LedgerDatabase, rows: Any) -> None:
    """Who changed the e-mail address is one row, under the last one on record."""
    database.record(user_email="new@example.org", created_at=NOON + 9)
    database.record(user_email="old@example.org")
    assert totals(rows("--by", "user", "--until", "2026-03-11"), "user_email") == {
        "new@example.org": 30
    }


def test_address_of_today_is_shown(database: LedgerDatabase, rows: Any) -> None:
    """The address that Open WebUI has now is newer than any on record; a deleted user keeps one."""
    database.make_host()
    database.add_user("ann")
    database.record(user_email="old@example.org")
    database.record(user_id="bob", input_tokens=1)
    assert totals(rows("--by", "user"), "user_email") == {
        "ann@example.org": 15,
        "bob@example.org": 6,
    }


def test_member_of_several_groups_counts_in_each(database: LedgerDatabase, rows: Any) -> None:
    """Groups are those at the time of use, by their ids, with the names that they have now."""
    database.make_host()
    database.add_group("g1", "Students")
    database.record(group_ids="|g1|g2|")
    database.record(group_ids="|g1|", input_tokens=1)
    database.record(input_tokens=0, output_tokens=2)
    assert totals(rows("--by", "group"), "group_id", "group_name") == {
        ("g1", "Students"): 21,
        ("g2", None): 15,
        (None, None): 2,
    }


def test_groups_without_open_webui_have_ids_only(database: LedgerDatabase, rows: Any) -> None:
    """A ledger in a database of its own knows no group names."""
    database.record(group_ids="|g1|")
    assert totals(rows("--by", "group"), "group_id", "group_name") == {("g1", None): 15}


def test_sources_are_told_apart(database: LedgerDatabase, rows: Any) -> None:
    """The page and the API are sources of their own."""
    database.record(source="api")
    database.record(input_tokens=1)
    assert totals(rows("--by", "source"), "source") == {"api": 15, "page": 6}


@pytest.mark.parametrize(
    "zone",
    [
        "UTC",
        "Etc/UTC",
        "Europe/Berlin",
        "America/New_York",
        "Asia/Kathmandu",
        "Pacific/Chatham",
        "Australia/Lord_Howe",
        "Africa/Casablanca",
        "America/St_Johns",
    ],
)
def test_days_are_those_of_the_zone(database: LedgerDatabase, rows: Any, zone: str) -> None:
    """Every record falls on the date of its zone's calendar, also around a change of the clock."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    instants = [start + timedelta(hours=19, minutes=45) * step for step in range(450)]
    # The minutes before and after midnight, and the hours around the changes of this year.
    instants += [start + timedelta(days=87, minutes=15 * step) for step in range(100)]
    database.record(*(int(instant.timestamp()) for instant in instants))
    expected = Counter(
        instant.astimezone(ZoneInfo(zone)).date().isoformat() for instant in instants
    )
    found = {row["day"]: row["requests"] for row in rows("--by", "day", "--timezone", zone)}
    assert found == dict(expected)


@pytest.mark.parametrize(
    ("arguments", "requests"),
    [
        (["--since", "2026-03-10"], 4),
        (["--until", "2026-03-10"], 1),
        (["--since", "2026-03-10", "--until", "2026-03-11"], 2),
        (["--since", "2026-03-10", "--timezone", "Europe/Berlin"], 5),
        (["--until", "2026-03-11", "--timezone", "America/New_York"], 4),
        (["--since", "2026-03-10T12:00:00Z"], 3),
        (["--since", "2026-03-10T12:00:00.001Z"], 2),
        (["--until", "2026-03-10T13:00+01:00"], 2),
        (["--since", "2026-03-10T13:00", "--timezone", "Europe/Berlin"], 3),
    ],
)
def test_since_and_until(
    database: LedgerDatabase, rows: Any, arguments: list[str], requests: int
) -> None:
    """A date is its beginning in the zone; the first instant counts, the last doesn't."""
    midnight = int(datetime(2026, 3, 10, tzinfo=UTC).timestamp())
    database.record(midnight - 1, midnight, NOON, midnight + 86_400, midnight + 5 * 86_400)
    assert sum(row["requests"] for row in rows("--by", "user", *arguments)) == requests


def test_empty_ledger_is_an_empty_list(database: LedgerDatabase, rows: Any) -> None:
    """Nothing used is no row, by whatever it is summed."""
    assert rows("--by", "user") == []
    assert rows("--by", "day,group", "--timezone", "Europe/Berlin") == []


def test_csv_has_the_same_columns(
    database: LedgerDatabase, capsys: pytest.CaptureFixture[str]
) -> None:
    """CSV has a line of names, exact amounts of money, and nothing for what isn't known."""
    database.record(cost_micros=1, group_ids="|g1|", user_email='"Ann", née Ø <a@example.org>')
    assert main(["--database-url", database.url, "--by", "user,group", "--format", "csv"]) == 0
    (row,) = csv.DictReader(StringIO(capsys.readouterr().out))
    assert list(row) == ["user_id", "user_email", "group_id", "group_name", *SUMS]
    assert row["user_email"] == '"Ann", née Ø <a@example.org>'
    assert (row["group_name"], row["cost_usd"], row["requests"]) == ("", "0.000001", "1")


def test_spreadsheet_computes_nothing(
    database: LedgerDatabase, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model's id that looks like a formula stays text, and controls nothing."""
    for model in ("=HYPERLINK(1)", " @SUM(1)", "a\x1b[31m\rb", "a;=1+1;-b", "＝1", "a-b=c;d"):
        database.record(model_id=model)
    assert main(["--database-url", database.url, "--by", "model", "--format", "csv"]) == 0
    found = {row["model_id"] for row in csv.DictReader(StringIO(capsys.readouterr().out))}
    harmless = {
        "'=HYPERLINK(1)",
        "' @SUM(1)",
        "a\ufffd[31m\ufffdb",
        "a;'=1+1;'-b",
        "'＝1",
        "a-b=c;d",
    }
    assert found == harmless


def test_control_characters_in_a_page(database: LedgerDatabase, tmp_path: Path) -> None:
    """A model's id that XML has no place for is shown without it."""
    database.record(model_id="gpt\x0b\x1b4")
    assert "gpt\ufffd\ufffd4" in html_page(database, tmp_path).text


def test_table_is_for_people(database: LedgerDatabase, capsys: pytest.CaptureFixture[str]) -> None:
    """A table has names for ids, its totals count each record once, and markup stays text."""
    database.make_host()
    database.add_group("g1", "[red]Students[/red]\x1b[2J")
    database.record(group_ids="|g1|g2|", input_tokens=1_000_000, cost_micros=2_500_000)
    assert main(["--database-url", database.url, "--by", "group", "--format", "table"]) == 0
    output = capsys.readouterr().out
    assert "[red]Students[/red]\ufffd[2J" in output
    assert re.search(r"Total +│ +1 │ +1,000,000 │ +5 │ +1,000,005 │ \$2.50 │ +0 │", output)
    assert "counts in each of them" in output


def test_pipe_gets_csv(sqlite_database: LedgerDatabase, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --format, what isn't a terminal gets CSV."""
    sqlite_database.record()
    assert main(["--database-url", sqlite_database.url]) == 0
    assert capsys.readouterr().out.startswith("user_id,user_email,requests,")


class Page(HTMLParser):
    """What a page consists of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.references: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.references += [
            value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data")
        ]

    def handle_data(self, data: str) -> None:
        self.text += data


def html_page(database: LedgerDatabase, path: Path, *arguments: str) -> Page:
    """The page that a report writes."""
    file = path / "report.html"
    options = ["--database-url", database.url, "--format", "html", "--output", str(file)]
    assert main([*options, *arguments]) == 0
    return Page(file.read_text(encoding="utf-8"))


def test_page_is_self_contained(database: LedgerDatabase, tmp_path: Path) -> None:
    """The HTML page needs no script and no other file, and shows its charts as SVG."""
    database.record(user_email="<script>alert(1)</script>@example.org", cost_micros=2_000_000)
    database.record(user_id="bob", source="api", model_id="llama3", created_at=NOON + 3 * 86_400)
    page = html_page(database, tmp_path, "--by", "user,model")
    assert (page.tags["svg"], page.tags["script"], page.tags["link"], page.tags["img"]) == (
        4,
        0,
        0,
        0,
    )
    assert page.references == []
    assert "<script>alert(1)</script>@example.org" in page.text
    assert "2026-03-10 to 2026-03-13 (UTC)" in page.text
    assert "All by user, model" in page.text
    for title in ("Use by day", "Top users", "By model", "Page against API"):
        assert title in page.text


def test_page_of_nothing(database: LedgerDatabase, tmp_path: Path) -> None:
    """An empty ledger gives a page that says so."""
    page = html_page(database, tmp_path)
    assert "no records" in page.text
    assert "nothing used" in page.text


@pytest.mark.usefixtures("noon")
def test_page_names_users_and_pools_near_a_limit(database: LedgerDatabase, tmp_path: Path) -> None:
    """Who is past the soft or the hard limit is named by the valves' policies, exempt users not."""
    database.make_host(
        policies='[group.Students]\nlimits = ["100 tokens/day"]\n'
        '[pool.all]\nlimits = ["300 tokens/day"]'
    )
    database.add_group("g1", "Students")
    for name, used in (("ann", 120), ("bob", 85), ("eve", 20), ("adam", 500)):
        database.add_user(name, "g1", role="admin" if name == "adam" else "user")
        database.record(user_id=name, input_tokens=used, output_tokens=0)
    page = html_page(database, tmp_path)
    section = page.text.partition("near or over a limit now")[2].partition("Top users")[0]
    found = re.findall(r"\S+@example.org|pool \w+", section)
    assert found == ["pool all", "ann@example.org", "bob@example.org"]


@pytest.mark.usefixtures("noon")
def test_page_takes_policies_from_a_file(database: LedgerDatabase, tmp_path: Path) -> None:
    """Policies from a file count in place of the valve's, whatever state the filter is in."""
    host_metadata.create_all(database.engine)
    database.add_user("ann")
    database.record()
    (tmp_path / "policies.toml").write_text('[role.user]\nlimits = ["10 tokens/hour"]')
    page = html_page(database, tmp_path, "--policies", str(tmp_path / "policies.toml"))
    assert "10 tokens per hour" in page.text


def test_page_says_why_limits_are_left_out(database: LedgerDatabase, tmp_path: Path) -> None:
    """Where limits can't be known, the page says why instead of showing none."""
    database.record()
    assert "Left out: the database isn't Open WebUI's" in html_page(database, tmp_path).text
    host_metadata.create_all(database.engine)
    assert "no function 'usage_limits'" in html_page(database, tmp_path).text


def test_page_needs_pygal(
    sqlite_database: LedgerDatabase,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without the charting library the page is refused with the command that installs it."""
    monkeypatch.setitem(sys.modules, "pygal", None)
    assert main(["--database-url", sqlite_database.url, "--format", "html"]) == 2
    assert "pip install pygal" in capsys.readouterr().err


def test_report_changes_nothing(database: LedgerDatabase, rows: Any, tmp_path: Path) -> None:
    """A report leaves no table, no row and no byte different."""
    database.record()
    database.engine.dispose()
    file = tmp_path / "ledger.db"
    before = file.read_bytes() if file.exists() else b""
    rows("--by", "user")
    assert (file.read_bytes() if file.exists() else b"") == before


def test_missing_ledger_is_said_and_not_made(
    database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A database without a ledger is left as it is, and the status is 2."""
    engine = open_database(database_url)
    with engine.begin() as connection:
        host_metadata.create_all(connection)
    before = set(inspect(engine).get_table_names())
    assert main(["--database-url", database_url]) == 2
    assert "no ledger in this database; allowed: the one that" in capsys.readouterr().err
    assert set(inspect(engine).get_table_names()) == before
    engine.dispose()


def test_missing_file_is_said_and_not_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A SQLite file that isn't there isn't made."""
    file = tmp_path / "nowhere.db"
    assert main(["--database-url", f"sqlite:///{file}"]) == 2
    assert "nowhere.db: no such file; allowed: " in capsys.readouterr().err
    assert not file.exists()


def test_newer_ledger_is_refused(
    database: LedgerDatabase, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tables of a version that these tools don't know are not guessed at."""
    database.insert(migrations_table, number=99, applied_at=NOON)
    assert main(["--database-url", database.url]) == 2
    assert "a ledger of version 99; allowed: version" in capsys.readouterr().err


def test_ledger_elsewhere_is_found(
    database: LedgerDatabase, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Open WebUI's database leads to the one that the filter's `database_url` valve names."""
    database.record(group_ids="|g1|")
    host = LedgerDatabase(
        f"sqlite:///{tmp_path / 'host.db'}", open_database(f"sqlite:///{tmp_path}/host.db")
    )
    host.make_host(database_url=database.url)
    host.add_group("g1", "Students")
    assert main(["--database-url", host.url, "--by", "group", "--format", "json"]) == 0
    assert totals(json.loads(capsys.readouterr().out), "group_name") == {"Students": 15}
    host.engine.dispose()


def test_tables_in_a_schema(
    database_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The schema is an option, or what Open WebUI's DATABASE_SCHEMA says."""
    engine = open_database(database_url)
    schema = "main" if engine.dialect.name == "sqlite" else "owui"
    with engine.begin() as connection:
        if schema == "owui":
            connection.execute(text("CREATE SCHEMA owui"))
    Ledger(engine, schema).prepare()
    database = LedgerDatabase(
        database_url, engine.execution_options(schema_translate_map={None: schema})
    )
    database.record()
    assert main(["--database-url", database_url, "--schema", schema]) == 0
    monkeypatch.setenv("DATABASE_SCHEMA", schema)
    assert main(["--database-url", database_url]) == 0
    assert capsys.readouterr().out.count("ann@example.org,1,10,5,15,0,0") == 2
    engine.dispose()


@pytest.mark.parametrize(
    "variables",
    [
        {"DATABASE_URL": "{url}"},
        {"DATABASE_URL": "{url}", "DATA_DIR": "/nowhere"},
        {"DATA_DIR": "{folder}"},
        {"DATABASE_URL": "", "DATA_DIR": "{folder}"},
    ],
)
def test_database_is_open_webui_s_own(
    sqlite_database: LedgerDatabase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variables: dict[str, str],
) -> None:
    """Without --database-url, Open WebUI's own variables say which database it is."""
    sqlite_database.record()
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(url=sqlite_database.url, folder=tmp_path))
    assert main(["--format", "json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 1


def test_database_in_parts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Open WebUI's six variables for the parts of an address win over DATABASE_URL."""
    parts = ("postgresql", "owui", "hunter2", "127.0.0.1", "1", "webui")
    names = ("TYPE", "USER", "PASSWORD", "HOST", "PORT", "NAME")
    for name, value in zip(names, parts, strict=True):
        monkeypatch.setenv(f"DATABASE_{name}", value)
    monkeypatch.setenv("DATABASE_URL", "sqlite:////nowhere.db")
    assert main([]) == 2
    assert "postgresql://owui:***@127.0.0.1:1/webui" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], "database: neither --database-url nor one of Open WebUI's variables DATABASE_URL"),
        (["--database-url", "nonsense"], "--database-url: not a database URL; allowed: sqlite"),
        (["--database-url", "mysql://u:p@h/d"], "a database of type 'mysql'; allowed: sqlite"),
        (["--by", "user,colour"], '--by: "colour"; allowed: user, model, source, day, group'),
        (["--by", ""], '--by: ""; allowed: user, model'),
        (["--format", "xml"], "--format: invalid choice: 'xml' (choose from"),
        (["--timezone", "Berlin"], '--timezone: "Berlin" is not a known time zone'),
        (["--since", "yesterday"], '--since: "yesterday"; allowed: a date such as "2026-'),
        (["--since", "2026-03-02", "--until", "2026-03-02"], "a time after --since '2026-03-02'"),
    ],
)
def test_errors_say_where_what_and_what_is_allowed(
    arguments: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every error names the option, what was given and what is allowed, and ends with 2."""
    try:
        status = main(arguments)
    except SystemExit as end:  # argparse's own way
        status = int(str(end.code))
    captured = capsys.readouterr()
    assert (status, captured.out) == (2, "")
    assert error in captured.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--database-url", UNREACHABLE],
        ["--database-url", "postgresql://owui:hunter2@ter@127.0.0.1:1/webui"],
        ["--database-url", "postgresql://127.0.0.1:1/webui?user=owui&password=hunter2"],
        ["--database-url", "mysql://owui:hunter2@127.0.0.1/webui"],
        ["--database-url", "postgresql://owui:hun/hunter2@127.0.0.1:x/webui"],
        [UNREACHABLE],
        ["--by", UNREACHABLE],
        ["--output", UNREACHABLE, "--format", "postgresql://owui:hunter2@h"],
    ],
)
def test_passwords_are_never_shown(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """No error repeats a password, not even one that stands in the wrong place."""
    try:
        status = main(arguments)
    except SystemExit as end:
        status = int(str(end.code))
    captured = capsys.readouterr()
    assert status == 2
    assert "hunter2" not in captured.out + captured.err
    assert "ter@" not in captured.err
    assert captured.err


def test_page_shows_no_password(database: LedgerDatabase, tmp_path: Path) -> None:
    """The page names its database without the password."""
    database.record()
    page = html_page(database, tmp_path)
    assert f"{database.url.partition(':')[0]}://" in page.text
    assert ":postgres@" not in page.text


def test_output_that_can_t_be_written(
    sqlite_database: LedgerDatabase, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that can't be written is an error with its reason."""
    file = tmp_path / "no" / "report.csv"
    assert main(["--database-url", sqlite_database.url, "--output", str(file)]) == 2
    assert "No such file or directory; allowed: a file that can be" in capsys.readouterr().err


def run_command(*arguments: str, env: dict[str, str] | None = None) -> Any:
    """Run the report as an administrator does."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "scripts.report", *arguments],
        cwd=ROOT,
        env=os.environ | (env or {}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_command_runs(database: LedgerDatabase) -> None:
    """The command prints its rows on standard output and nothing else, and ends with 0."""
    database.record()
    done = run_command("--by", "user,model", "--format", "json", env={"DATABASE_URL": database.url})
    assert (done.returncode, done.stderr) == (0, "")
    assert totals(json.loads(done.stdout), "user_id", "model_id") == {("ann", "gpt-4o"): 15}
    failed = run_command("--database-url", UNREACHABLE)
    assert (failed.returncode, failed.stdout) == (2, "")
    assert "postgresql://owui:***@127.0.0.1:1/webui: " in failed.stderr
    assert "Traceback" not in failed.stderr


def test_reader_may_leave_early(sqlite_database: LedgerDatabase) -> None:
    """A pipe whose reader has seen enough is no error to read about."""
    for number in range(3_000):
        sqlite_database.record(user_id=f"user{number}")
    command = f"{sys.executable} -m scripts.report --database-url {sqlite_database.url} | head -n 1"
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("user_id,")
    assert done.stderr == ""


def test_real_server_is_reported(
    server: OpenWebUIServer,
    usage_limits: InstalledFilter,
    make_user: MakeUser,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A chat in a real Open WebUI is in the report, under its user, group, model and source."""
    user = make_user(groups=["Reported"])
    user.chat("[[in=20 tokens=30]]")
    usage_limits.settled(user_id=user.id)
    by = "user,model,source,day,group"
    assert main(["--database-url", server.database_url, "--by", by, "--format", "json"]) == 0
    (row,) = [row for row in json.loads(capsys.readouterr().out) if row["user_id"] == user.id]
    assert row.pop("group_id")
    assert row == {
        "user_id": user.id,
        "user_email": user.account.email,
        "model_id": "fake-llm",
        "source": "api",
        "day": datetime.now(UTC).date().isoformat(),
        "group_name": "Reported",
        "requests": 1,
        "input_tokens": 20,
        "output_tokens": 30,
        "total_tokens": 50,
        "cost_usd": 0,
        "estimated_requests": 0,
    }


def test_real_server_gives_a_page(
    server: OpenWebUIServer, usage_limits: InstalledFilter, make_user: MakeUser, tmp_path: Path
) -> None:
    """The page of a real Open WebUI names the user who has reached a limit."""
    usage_limits.configure(daily_token_limit=40)
    user = make_user()
    user.chat("[[in=20 tokens=30]]")
    usage_limits.settled(user_id=user.id)
    file = tmp_path / "report.html"
    options = ["--format", "html", "--output", str(file)]
    assert main(["--database-url", server.database_url, *options]) == 0
    section = Page(file.read_text(encoding="utf-8")).text.partition("near or over")[2]
    assert user.account.email in section.partition("Top users")[0]
