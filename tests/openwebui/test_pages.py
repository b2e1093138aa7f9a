"""The pages' JSON: who gets what, from the real ledger and Open WebUI's own sign-in."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from helpers.filter import Filter
from helpers.ledger.reports import read_replayed
from helpers.limits.decisions import LimitState
from helpers.limits.limit import parse_limit
from helpers.limits.periods import CalendarRules
from helpers.limits.policy import AppliedLimit
from helpers.openwebui.messages import Reader, own_use_line
from helpers.openwebui.middleware import PassthroughGuard, UsageLimitsLayer
from helpers.openwebui.page_data import PageData
from helpers.openwebui.stream_usage import UnaskedModels
from helpers.openwebui.usage_command import asks_for_usage
from helpers.openwebui.valves_form import near_note
from scripts.postgresql import new_postgresql_database
from tests.openwebui.test_pasted import Host, host  # noqa: F401

pytest_plugins = ["tests.support.databases"]
pytestmark = pytest.mark.slow

FUNCTION = "usage_limits"
POLICIES = """
[group.Students]
limits = ["1000 tokens/day", "$2/month", "5000 tokens/5h"]

[pool.everyone]
limits = ["1M tokens/month"]

[model."gpt*"]
input_price = 10
output_price = 10
"""


@dataclass
class Site:
    """The pages around an app that has nothing else, and who is signed in."""

    client: httpx.AsyncClient
    limits: Filter
    tokens: dict[str, str] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    emails: dict[str, str] = field(default_factory=dict)

    async def add(self, name: str, role: str = "user", group: str = "") -> None:
        """A user with a token of Open WebUI's."""
        from open_webui.models.auths import Auths
        from open_webui.models.groups import GroupForm, Groups
        from open_webui.utils.auth import create_token

        address = f"{name}-{uuid4().hex[:8]}@example.org"
        made = await Auths.insert_new_auth(address, "x", name.title(), role=role)
        key, self.emails[name] = made.id, address
        stamp = (await Auths.get_auth_by_id(key)).session_stamp
        self.ids[name] = key
        self.tokens[name] = create_token({"id": key, "session_stamp": stamp})
        if group:
            found = await Groups.insert_new_group(key, GroupForm(name=group, description=""))
            await Groups.add_users_to_group(found.id, [key])

    def email(self, name: str) -> str:
        """A user's address."""
        return self.emails[name]

    async def ask(
        self, who: str, method: str, path: str, body: Any = None, **headers: str
    ) -> httpx.Response:
        """A question with a user's token; "" for nobody."""
        if who:
            headers["Authorization"] = f"Bearer {self.tokens[who]}"
        return await self.client.request(method, f"/usage-limits{path}", json=body, headers=headers)

    async def chat(
        self, who: str, output: int = 100, role: str = "user", model: str = "gpt-4o"
    ) -> None:
        """A reply of that many tokens, and 100 of prompt."""
        metadata: dict[str, Any] = {"chat_id": "c", "message_id": "m", "session_id": "s"}
        user = {"id": self.ids[who], "email": self.email(who), "role": role}
        body = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
        await self.limits.inlet(body, __user__=user, __metadata__=metadata)
        usage = {"prompt_tokens": 100, "completion_tokens": output}
        metadata["usage_limits"].call_begins()
        self.limits.stream({"id": "a", "choices": [], "usage": usage}, metadata)
        await self.limits.outlet({"messages": []}, __user__=user, __metadata__=metadata)


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where the ledger is: in Open WebUI's own SQLite file, or in a PostgreSQL database."""
    if request.param == "sqlite":
        yield ""
        return
    with new_postgresql_database(request.getfixturevalue("postgresql_url")) as url:
        yield url


@pytest.fixture
async def site(host: Host, ledger_url: str) -> AsyncIterator[Site]:  # noqa: F811
    """The pages with an administrator, two users, and the function on."""
    from open_webui.internal import db
    from open_webui.models import auths, config, functions
    from open_webui.models.functions import FunctionForm, Functions

    new = [model.__table__ for model in (auths.Auth, config.Config, functions.Function)]
    db.Base.metadata.create_all(db.engine, tables=new)
    form = FunctionForm(id=FUNCTION, name="x", content="", meta={"description": ""})
    await Functions.delete_function_by_id(FUNCTION)
    await Functions.insert_new_function("u", "filter", form)
    await Functions.update_function_by_id(FUNCTION, {"is_active": True, "is_global": True})
    group = f"Students {uuid4().hex[:6]}"
    policies = POLICIES.replace("[group.Students]", f'[group."{group}"]')
    valves = {"policies": policies, "database_url": ledger_url}
    await Functions.update_function_valves_by_id(FUNCTION, valves)
    limits = Filter()
    limits.valves = limits.Valves(**valves)
    inner = FastAPI()
    guard = PassthroughGuard(FUNCTION, limits.admit_call, limits.ledger_of, UnaskedModels())
    layer = UsageLimitsLayer(inner, {FUNCTION: guard})

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await layer({**scope, "app": inner}, receive, send)

    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        made = Site(client, limits)
        await made.add("root", role="admin")
        await made.add("ann", group=group)
        await made.add("bob")
        yield made
    accounting, _, _ = limits.ledger_of(limits.valves)
    await asyncio.to_thread(accounting.close)
    if ledger_url:
        await asyncio.to_thread(accounting._engine.dispose)


async def test_me_tells_limits_use_and_replies(site: Site) -> None:
    """A user sees where all limits stand, and this month's use with its cost."""
    await site.chat("ann")
    answer = await site.ask("ann", "GET", "/api/me")
    me = answer.json()
    assert answer.status_code == 200, me
    assert answer.headers["cache-control"] == "no-store"
    assert (me["user_id"], me["email"], me["exempt"]) == (site.ids["ann"], site.email("ann"), False)
    day, money, rolling, pool = me["limits"]
    assert day["limit"] == "1000 tokens/day" or day["limit"] == "1k tokens/day"
    assert (day["scope"], day["measure"], day["period"], day["model"]) == (
        "user",
        "tokens",
        "day",
        "*",
    )
    assert (day["amount"], day["granted"], day["used"], day["remaining"]) == (1000, 0, 200, 800)
    assert (day["percent"], day["reserved"]) == (20, 0)
    assert day["reset_at"].endswith("+00:00")
    assert (money["amount"], money["used"]) == (2, 0.002)
    assert rolling["used"] == 200
    assert pool["scope"] == "everyone"
    (model,) = me["month"]
    assert (model["model"], model["total_tokens"], model["cost_usd"]) == ("gpt-4o", 200, 0.002)
    assert me["today"] == me["month"]
    assert day["text"] == "1,000 tokens per day"
    german = (await site.ask("ann", "GET", "/api/me?language=de-AT")).json()
    assert german["limits"][0]["text"] == "1.000 Token pro Tag"
    assert me["days"][0]["total_tokens"] == 200
    assert me["replies"][0]["output_tokens"] == 100


async def test_users_come_whole_however_many_are_read_at_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read in parts is what is read at once: rolling windows, pools and groups too."""
    for who, output in (("ann", 750), ("bob", 300)):
        await site.chat(who, output)
    whole = (await site.ask("root", "GET", "/api/users")).json()
    monkeypatch.setattr("helpers.openwebui.page_data.USERS_AT_ONCE", 1)
    parts = (await site.ask("root", "GET", "/api/users")).json()
    for row in (*whole, *parts):
        row["limits"] = [without_reset(one) for one in row["limits"]]
    assert parts == whole
    assert [row["near"] for row in whole] == sorted((row["near"] for row in whole), reverse=True)
    (ann,) = [row for row in whole if row["user_id"] == site.ids["ann"]]
    assert (ann["near"], ann["nearest"], ann["percent"]) == (True, "1k tokens/day", 85)
    assert [one["used"] for one in ann["limits"][:3]] == [850, 0.0085, 850]


def without_reset(limit: dict[str, Any]) -> dict[str, Any]:
    """A limit without its reset, which moves along with a rolling window."""
    return {key: value for key, value in limit.items() if key != "reset_at"}


async def test_users_lists_all_and_those_near_a_limit_first(site: Site) -> None:
    """Administrators see every user's limits as the users themselves do."""
    await site.chat("ann", output=750)
    everybody = (await site.ask("root", "GET", "/api/users")).json()
    near = (await site.ask("root", "GET", "/api/users?near=true")).json()
    assert [row["user_id"] for row in near if row["user_id"] in site.ids.values()] == [
        site.ids["ann"]
    ]
    assert {*site.ids.values()} <= {row["user_id"] for row in everybody}
    me = (await site.ask("ann", "GET", "/api/me")).json()
    (listed,) = [row for row in everybody if row["user_id"] == site.ids["ann"]]
    assert [without_reset(one) for one in listed["limits"]] == [
        without_reset(one) for one in me["limits"]
    ]
    (root,) = [row for row in everybody if row["user_id"] == site.ids["root"]]
    assert root["exempt"]
    assert root["limits"] == []


async def test_grant_reset_and_revoke(site: Site) -> None:
    """What an administrator adds counts at once, and no more once it is taken back."""
    await site.chat("ann", output=500)
    grant = {
        "user": site.email("ann"),
        "limit": "1000 tokens/day",
        "amount": 400,
        "reason": "exam",
    }
    made = (await site.ask("root", "POST", "/api/grants", grant)).json()
    day = (await site.ask("ann", "GET", "/api/me")).json()["limits"][0]
    assert (day["granted"], day["amount"], day["remaining"]) == (400, 1400, 800)
    shown = (await site.ask("ann", "GET", "/api/me")).json()["grants"]
    assert [(one["id"], one["kind"], one["reason"]) for one in shown] == [
        (made["id"], "grant", "exam")
    ]
    why = {"reason": "a mistake"}
    gone = await site.ask("root", "DELETE", f"/api/grants/{made['id']}", why)
    assert gone.status_code == 200
    taken, first = (await site.ask("ann", "GET", "/api/me")).json()["grants"]
    assert (taken["kind"], taken["reason"]) == ("revoke", "a mistake")
    assert taken["granted_by"] == site.email("root")
    assert (first["kind"], first["holds"]) == ("grant", False)
    for wrong in ({"reason": ["x"]}, {"reason": "x" * 5000}):
        refused = await site.ask("root", "DELETE", f"/api/grants/{made['id']}", wrong)
        assert refused.status_code == 400
    again = await site.ask("root", "DELETE", f"/api/grants/{made['id']}")
    assert again.status_code == 404
    day = (await site.ask("ann", "GET", "/api/me")).json()["limits"][0]
    assert (day["granted"], day["remaining"]) == (0, 400)
    reset = await site.ask("root", "POST", "/api/resets", {"user": site.ids["ann"], "reason": ""})
    assert [limit["granted"] for limit in reset.json()["limits"]] == [600, 0.006, 600]
    assert [limit["remaining"] for limit in reset.json()["limits"]] == [1000, 2, 5000]


async def test_why_a_pool_was_granted_more_is_for_administrators(site: Site) -> None:
    """Its members see how much, and neither by whom nor for whom."""
    grant = {"pool": "everyone", "limit": "1M tokens/month", "amount": 5, "reason": "for Bob"}
    made = (await site.ask("root", "POST", "/api/grants", grant)).json()
    for path, who, reason in (("/api/me", "ann", ""), ("/api/pools", "root", "for Bob")):
        found = (await site.ask(who, "GET", path)).json()
        grants = found["grants"] if path == "/api/me" else found[0]["grants"]
        (row,) = [one for one in grants if one["id"] == made["id"]]
        assert (row["amount"], row["reason"]) == (5, reason)
        assert bool(row["granted_by"]) == (who == "root")
    gone = await site.ask("root", "DELETE", f"/api/grants/{made['id']}")  # others have this pool
    assert gone.status_code == 200


@pytest.mark.parametrize(
    ("amount", "granted"),
    [(0.00001, 0.00001), (1.125, 1.125), (5.0, 5), (1e9, 1e9), ("$0.5", 0.5), (2, 2)],
)
async def test_money_is_granted_as_json_writes_it(
    site: Site, amount: object, granted: float
) -> None:
    """A number is what it is: neither a small one nor one of three decimals is misunderstood."""
    grant = {"user": site.ids["ann"], "limit": "$2/month", "amount": amount}
    made = await site.ask("root", "POST", "/api/grants", grant)
    assert made.status_code == 200, made.text
    assert made.json()["amount"] == granted


@pytest.mark.parametrize("wrong", [{"limit": "1000 tokens/day"}, {"limits": []}, {"limits": [[]]}])
async def test_a_reset_that_is_not_understood_resets_nothing(
    site: Site, wrong: dict[str, Any]
) -> None:
    """Neither a key that isn't known nor an empty list is taken for all limits."""
    await site.chat("ann")
    refused = await site.ask("root", "POST", "/api/resets", {"user": site.ids["ann"], **wrong})
    assert refused.status_code == 400, refused.text
    limits = (await site.ask("ann", "GET", "/api/me")).json()["limits"]
    assert not any(limit["granted"] for limit in limits)


@pytest.mark.parametrize(
    ("who", "method", "path", "status"),
    [
        ("", "GET", "", 401),
        ("", "POST", "/api/grants", 401),
        ("ann", "GET", "/api/users", 401),
        ("ann", "GET", "/api/nothing", 404),
        ("ann", "GET", "/api/me", 200),
        ("root", "TRACE", "/api/me", 405),
        ("root", "GET", "/api/report?since=x", 400),
    ],
)
async def test_no_answer_is_kept_by_anybody(
    site: Site, who: str, method: str, path: str, status: int
) -> None:
    """No cache keeps an answer, whoever it is for: Open WebUI's own refusals neither."""
    answer = await site.ask(who, method, path)
    assert answer.status_code == status
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_nobody_keeps_others_from_the_pages(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of very many questions at once of one user some are turned away, and none of another's."""
    # So that it doesn't depend on how fast questions come and are answered.
    monkeypatch.setattr("helpers.openwebui.pages.MOST_WAITING_OF_ONE", 1)
    asked = [site.ask("ann", "GET", "/api/me") for _ in range(30)]
    *many, other = await asyncio.gather(*asked, site.ask("bob", "GET", "/api/me"))
    assert {answer.status_code for answer in many} == {200, 503}
    assert other.status_code == 200
    assert (await site.ask("ann", "GET", "/api/me")).status_code == 200


@pytest.mark.parametrize("path", ["/chat/usage-limits/api/me", "/usage-limits/api/me"])
async def test_below_a_proxys_prefix(site: Site, path: str) -> None:
    """Where Open WebUI is told of a prefix, the pages are below it, like all of its own."""
    transport: Any = site.client._transport
    headers = {"Authorization": f"Bearer {site.tokens['ann']}"}
    below = httpx.ASGITransport(app=transport.app, root_path="/chat")
    async with httpx.AsyncClient(transport=below, base_url="http://test", headers=headers) as one:
        assert (await one.get(path)).json()["user_id"] == site.ids["ann"]


async def test_whoever_has_to_sign_in_is_led_there(site: Site) -> None:
    """A browser without a session gets the empty page, which links to the sign-in; no program."""
    for path in ("", "/"):
        page = await site.ask("", "GET", path, Accept="text/html,*/*")
        assert page.status_code == 401
        assert "content-security-policy" in page.headers
        assert "<main" in page.text
        assert (await site.ask("", "GET", path)).json()["detail"]
    refused = await site.ask("", "GET", "/api/me", Accept="text/html,*/*")
    assert (refused.status_code, list(refused.json())) == (401, ["detail"])


async def test_questions_as_programs_write_them(site: Site) -> None:
    """A plus that isn't encoded, Python's True, and an address with a slash are understood."""
    await site.chat("ann")
    for since, rows in (("2020-01-01T00:00+01:00", 1), ("2999-01-01T00:00:00+0100", 0)):
        found = await site.ask("root", "GET", f"/api/report?by=day&since={since}")
        assert (found.status_code, len(found.json())) == (200, rows)
    assert (await site.ask("root", "GET", "/api/users?near=True")).status_code == 200
    await site.add("cleo/x")
    for key in (site.email("cleo/x"), site.email("cleo/x").replace("/", "%2F")):
        found = await site.ask("root", "GET", f"/api/users/{key}")
        assert found.json().get("user_id") == site.ids["cleo/x"], found.text


async def test_who_asks_cannot_be_seen(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in Open WebUI's own sign-in is an error like any other, and lets nobody in."""
    from open_webui.models.users import Users

    async def fail(*_: object) -> None:
        raise RuntimeError("the database is away")

    monkeypatch.setattr(Users, "get_user_by_id", fail)
    answer = await site.ask("root", "GET", "/api/users")
    assert answer.status_code == 500
    assert answer.headers["cache-control"] == "no-store"
    assert "away" not in answer.json()["detail"]


async def test_report_by_everything_as_json_and_csv(site: Site) -> None:
    """Sums come by any dimensions, as JSON and as a safe CSV."""
    await site.chat("ann")
    path = "/api/report?by=user,model,day,group,source&since=2020-01-01"
    rows = (await site.ask("root", "GET", path)).json()
    (own,) = [row for row in rows if row["user_id"] == site.ids["ann"]]
    assert own["user_email"] == site.email("ann")
    assert own["group_name"].startswith("Students")
    assert (own["model_id"], own["source"], own["total_tokens"]) == ("gpt-4o", "page", 200)
    text = (await site.ask("root", "GET", f"{path}&format=csv")).text
    assert text.splitlines()[0].startswith("user_id,user_email,model_id,source,day,group_id")


async def test_a_report_of_too_many_rows_is_refused(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no browser could show isn't read to its end, and the ledger answers on."""
    await site.chat("ann")
    await site.chat("bob")
    monkeypatch.setattr("helpers.openwebui.page_data.MOST_LISTED_ROWS", 1)
    refused = await site.ask("root", "GET", "/api/report?by=user&since=2020-01-01")
    assert refused.status_code == 400
    assert "ask for fewer days or dimensions" in refused.json()["detail"]
    totals = await site.ask("root", "GET", "/api/report?by=source&since=2020-01-01")
    assert [row["source"] for row in totals.json()] == ["page"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/users"),
        ("GET", "/api/users/x"),
        ("GET", "/api/pools"),
        ("GET", "/api/overview"),
        ("GET", "/api/report"),
        ("POST", "/api/grants"),
        ("DELETE", "/api/grants/x"),
        ("POST", "/api/resets"),
    ],
)
async def test_others_data_is_for_administrators(site: Site, method: str, path: str) -> None:
    """Neither nobody nor an ordinary user gets anywhere that tells of others."""
    assert (await site.ask("", method, path)).status_code == 401
    assert (await site.ask("ann", method, path)).status_code in (401, 403)


async def test_nobody_gets_in(site: Site) -> None:
    """Without a session there is neither page nor JSON, whatever the path."""
    for path in ("", "/", "/api/me", "/api/nothing"):
        assert (await site.ask("", "GET", path)).status_code == 401
    site.client.cookies.set("token", site.tokens["root"])
    page = await site.ask("", "GET", "")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    body = {"user": site.ids["ann"], "reason": ""}
    refused = await site.ask("", "POST", "/api/resets", body)
    assert refused.status_code == 403  # a cookie alone changes nothing
    form = await site.client.post(
        "/usage-limits/api/resets",
        content=b"{}",
        headers={"Authorization": f"Bearer {site.tokens['root']}", "Content-Type": "text/plain"},
    )
    assert form.status_code == 415


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"user": "ann", "pool": "everyone"},
        {"user": "nobody@example.org", "limit": "1000 tokens/day", "amount": 1},
        {"user": "\x00\ud800", "limit": "1000 tokens/day", "amount": 1},
        {"user": ["x"], "limit": "1000 tokens/day", "amount": 1},
        {"user": "ANN", "limit": "1000 tokens/day", "amount": 0},
        {"user": "ANN", "limit": "1000 tokens/day", "amount": -5},
        {"user": "ANN", "limit": "1000 tokens/day", "amount": True},
        {"user": "ANN", "limit": "1000 tokens/day", "amount": 1e400},
        {"user": "ANN", "limit": "1000 tokens/day", "amount": 10**18},
        {"user": "ANN", "limit": "1000 tokens/week", "amount": 1},
        {"user": "ANN", "limit": "nonsense", "amount": 1},
        {"user": "ANN", "limit": {}, "amount": 1},
        {"user": "ANN", "limit": "1000 tokens/day", "amount": 1, "reason": "x" * 5000},
        {"user": "\ud800", "limit": "1000 tokens/day", "amount": 1},
        {"user": "ANN", "limit": "3 requests at once", "amount": 1},
        {"user": "ANN", "limit": "1000 tokens/day", "amount": 1.5},
        {"user": "ANN", "limit": "1000 tokens/day", "amount": 1, "amuont": 2},
        {"pool": "nothing", "limit": "1000 tokens/day", "amount": 1},
        {"pool": 5, "limit": "1000 tokens/day", "amount": 1},
    ],
)
async def test_bad_grants_are_refused_with_a_sentence(site: Site, body: dict[str, Any]) -> None:
    """Whatever is sent, the answer is a plain error, and nothing is written."""
    if body.get("user") == "ANN":
        body = {**body, "user": site.ids["ann"]}
    content = __import__("json").dumps(body).encode()
    answer = await site.client.post(
        "/usage-limits/api/grants",
        content=content,
        headers={
            "Authorization": f"Bearer {site.tokens['root']}",
            "Content-Type": "application/json",
        },
    )
    assert answer.status_code in (400, 404), answer.text
    assert isinstance(answer.json()["detail"], str)
    limits = (await site.ask("ann", "GET", "/api/me")).json()["limits"]
    assert not any(limit["granted"] for limit in limits)


async def test_the_form_names_those_near_a_limit(site: Site) -> None:
    """The note at the form's top is a table of who is near a limit, and says what is amiss."""
    await site.chat("ann", output=850)
    accounting, memory, read_host = site.limits.ledger_of(site.limits.valves)
    data = PageData(site.limits.valves, accounting, memory, read_host, datetime.now(UTC))
    note = await asyncio.to_thread(near_note, data)
    assert "Near or over a limit now" in note
    name = site.email("ann").replace("_", "\\_")
    assert f"| {name} | 1k tokens/day | 95% |" in note


def test_a_replys_own_use_stands_before_what_is_left() -> None:
    """Tokens and cost of the reply come first, then what remains, then the rest of the line."""
    now = datetime(2026, 3, 10, 12, tzinfo=UTC)
    limit = parse_limit("1000 tokens/day")
    applied = AppliedLimit(limit, "user:ann", limit.period.window(now, CalendarRules()), "")
    state = LimitState(applied, 200, 0, applied.window.end)
    reader = Reader(UTC)
    assert own_use_line(150, 2_000, state, now, reader) == (
        "150 tokens, $0.0020 · 800 left · "
        "Usage: 200 of 1,000 tokens per day (20%), resets tomorrow at 00:00 UTC"
    )
    assert own_use_line(1, 0, None, now, reader) == "1 token"


async def test_switched_off_there_are_no_pages(site: Site) -> None:
    """Where the function or the valve is off, there is nothing at these paths."""
    from open_webui.models.functions import Functions

    await Functions.update_function_valves_by_id(FUNCTION, {"usage_page": False})
    assert (await site.ask("root", "GET", "")).status_code == 404
    await Functions.update_function_valves_by_id(FUNCTION, {})
    assert (await site.ask("root", "GET", "/api/me")).status_code == 200
    await Functions.update_function_by_id(FUNCTION, {"is_active": False})
    assert (await site.ask("root", "GET", "/api/me")).status_code == 404
    await Functions.delete_function_by_id(FUNCTION)
    assert (await site.ask("root", "GET", "/api/me")).status_code == 404


async def test_an_error_in_every_table_takes_no_minutes(site: Site) -> None:
    """The lines of thousands of errors are found at once: nobody else waits for them."""
    tables = [f'[user."u{n}@example.org"]\nlimits = ["10 tokns/day"]\n' for n in range(2_000)]
    began = time.monotonic()
    body = {"policies": "".join(tables)}
    checked = (await site.ask("root", "POST", "/api/policies/check", body)).json()
    assert time.monotonic() - began < 5  # it took 16 s, and four times as long for twice as many
    assert [one["line"] for one in checked["errors"]] == [2 * n + 2 for n in range(2_000)]


async def test_policies_are_checked_saved_and_kept(site: Site) -> None:
    """A text is explained, a wrong one refused with its lines, and the last ones are kept."""
    before = (await site.ask("root", "GET", "/api/policies")).json()
    assert "[pool.everyone]" in before["policies"]
    wrong = '[role.user]\nlimits = ["50k tokens/day", "nonsense"]\n\n[role.nobody]\nlimits = "x"'
    checked = (await site.ask("root", "POST", "/api/policies/check", {"policies": wrong})).json()
    assert [(one["where"], one["line"]) for one in checked["errors"]] == [
        ("[role.user] limits", 2),
        ("[role.nobody]", 4),
    ]
    assert all(one["given"] and one["allowed"] for one in checked["errors"])
    refused = await site.ask("root", "PUT", "/api/policies", {"policies": wrong})
    assert refused.status_code == 400
    assert refused.json()["errors"][0]["where"] == "[role.user] limits"
    text = '[role.user]\nlimits = ["50k tokens/day"]\n[group.Gone]\nlimits = "unlimited"\n'
    meant = (await site.ask("root", "POST", "/api/policies/check", {"policies": text})).json()
    assert meant["errors"] == []
    assert meant["unmatched"] == ["[group.Gone]"]
    assert meant["summary"][-2]["users"] >= 2
    saved = await site.ask("root", "PUT", "/api/policies", {"policies": text})
    assert saved.status_code == 200, saved.text
    (limit,) = (await site.ask("bob", "GET", "/api/me")).json()["limits"]
    assert limit["limit"] == "50k tokens/day"
    after = (await site.ask("root", "GET", "/api/policies")).json()
    assert after["policies"] == text
    assert [one["policies"] for one in after["versions"][:2]] == [text, before["policies"]]
    assert after["versions"][0]["saved_by"] == site.email("root")
    from open_webui.models.functions import Functions

    valves = await Functions.get_function_valves_by_id(FUNCTION)
    assert valves == {"policies": text, "database_url": site.limits.valves.database_url}


async def test_two_saves_at_once_leave_the_text_in_force_as_the_newest_version(
    site: Site,
) -> None:
    """Each of them is kept, in the order in which they came into force."""
    texts = [f'[role.user]\nlimits = ["{n} tokens/day"]\n' for n in range(1, 7)]
    saves = [site.ask("root", "PUT", "/api/policies", {"policies": text}) for text in texts]
    assert {answer.status_code for answer in await asyncio.gather(*saves)} == {200}
    kept = (await site.ask("root", "GET", "/api/policies")).json()
    versions = [one["policies"] for one in kept["versions"] if one["policies"] in texts]
    assert versions[0] == kept["policies"]
    assert sorted(versions) == texts


async def test_a_text_made_from_an_older_one_is_not_saved(site: Site) -> None:
    """Who has loaded what is no more in force is told so, gets the new text, and can go on."""
    await site.add("eve", role="admin")
    loaded = (await site.ask("root", "GET", "/api/policies")).json()
    mine, hers = ({"policies": f'[role.user]\nlimits = ["{n} tokens/day"]\n'} for n in (1, 2))
    saved = await site.ask("eve", "PUT", "/api/policies", hers | {"version": loaded["version"]})
    assert saved.status_code == 200, saved.text
    refused = await site.ask("root", "PUT", "/api/policies", mine | {"version": loaded["version"]})
    assert refused.status_code == 409
    told = refused.json()
    assert told["detail"].startswith(f"{site.email('eve')} has saved other policies")
    assert told["policies"] == hers["policies"]
    assert told["version"] == saved.json()["version"]
    now = (await site.ask("root", "GET", "/api/policies")).json()
    assert (now["policies"], now["version"]) == (told["policies"], told["version"])
    again = await site.ask("eve", "PUT", "/api/policies", hers | {"version": loaded["version"]})
    assert again.status_code == 200  # the answer to the first was lost, perhaps
    for more in ({"version": told["version"]}, {}, {"version": None}):
        saved = await site.ask("root", "PUT", "/api/policies", mine | more)
        assert saved.status_code == 200, saved.text
        mine["policies"] += "\n"
    for odd in (7, "x" * 1_000, ["x"], {}):
        body = mine | {"version": odd}
        assert (await site.ask("root", "PUT", "/api/policies", body)).status_code == 400
    body = mine | {"version": "\0"}
    assert (await site.ask("root", "PUT", "/api/policies", body)).status_code == 409


@pytest.mark.parametrize("change", ["form", "emptied"])
async def test_a_text_is_not_saved_over_one_of_the_valves_form(site: Site, change: str) -> None:
    """Whatever was put in force elsewhere meanwhile, by whomever, isn't lost unseen."""
    from open_webui.models.functions import Functions

    loaded = (await site.ask("root", "GET", "/api/policies")).json()
    body = {"policies": "# mine", "version": loaded["version"]}
    if change == "form":
        valves = await Functions.get_function_valves_by_id(FUNCTION)
        await Functions.update_function_valves_by_id(FUNCTION, valves | {"policies": "# form"})
    else:
        assert (await site.ask("root", "PUT", "/api/policies", {"policies": ""})).is_success
    refused = await site.ask("root", "PUT", "/api/policies", body)
    assert refused.status_code == 409
    who = "Somebody" if change == "form" else site.email("root")
    assert refused.json()["detail"].startswith(f"{who} has saved other policies")


async def test_of_saves_at_once_from_one_text_only_one_is_kept(site: Site) -> None:
    """All others are told; what the one has saved is in force, and the newest version."""
    loaded = (await site.ask("root", "GET", "/api/policies")).json()
    texts = ["", *(f'[role.user]\nlimits = ["{n} tokens/day"]\n' for n in range(1, 7))]
    bodies = [{"policies": text, "version": loaded["version"]} for text in texts]
    saves = [site.ask("root", "PUT", "/api/policies", body) for body in bodies]
    statuses = [answer.status_code for answer in await asyncio.gather(*saves)]
    assert sorted(statuses) == [200, *[409] * 6]
    kept = (await site.ask("root", "GET", "/api/policies")).json()
    assert kept["policies"] == kept["versions"][0]["policies"] == texts[statuses.index(200)]


async def test_where_the_file_is_locked_questions_are_answered_and_changes_refused_in_time(
    site: Site,
) -> None:
    """Another process that writes for long holds up no question; nothing is half saved."""
    from open_webui.internal import db

    loaded = (await site.ask("root", "GET", "/api/policies")).json()
    body = {"policies": "# mine", "version": loaded["version"]}
    grant = {"user": site.email("ann"), "limit": "1000 tokens/day", "amount": 5, "reason": "x"}
    other = sqlite3.connect(db.engine.url.database or "", isolation_level=None)
    began = time.monotonic()
    other.execute("BEGIN IMMEDIATE")
    try:
        ways = [("PUT", "/api/policies", body), *[("POST", "/api/grants", grant)] * 3]
        changes = [asyncio.create_task(site.ask("root", *way)) for way in ways]
        await asyncio.sleep(0.5)
        for path in ("/api/policies", "/api/users", "/api/report", f"/api/users/{grant['user']}"):
            assert (await site.ask("root", "GET", path)).status_code == 200
        assert (await site.ask("ann", "GET", "/api/me")).status_code == 200
        assert time.monotonic() - began < 5
        answers = await asyncio.gather(*changes)
        assert time.monotonic() - began < 15
    finally:
        other.close()
    statuses = [answer.status_code for answer in answers]
    in_same_file = not site.limits.valves.database_url
    assert statuses == ([503] * 4 if in_same_file else [503, 200, 200, 200])
    assert all("Try again later." in answer.text for answer in answers if not answer.is_success)
    after = (await site.ask("root", "GET", "/api/policies")).json()
    assert (after["version"], after["versions"]) == (loaded["version"], loaded["versions"])
    assert (await site.ask("root", "PUT", "/api/policies", body)).status_code == 200


async def test_valves_that_cannot_be_read_are_no_default_ones(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Open WebUI says None of an error, nothing is shown, and no valve is lost by a save."""
    from open_webui.models.functions import Functions

    loaded = (await site.ask("root", "GET", "/api/policies")).json()
    valves = await Functions.get_function_valves_by_id(FUNCTION)

    async def fail(*_: object) -> None:
        return None

    with monkeypatch.context() as patched:
        patched.setattr(Functions, "get_function_valves_by_id", fail)
        for method, body in (("PUT", {"policies": "# mine"}), ("GET", None)):
            answer = await site.ask("root", method, "/api/policies", body)
            assert answer.status_code == 503
            assert answer.headers["cache-control"] == "no-store"
            await asyncio.sleep(1.1)  # so long it goes by what was read before
    assert await Functions.get_function_valves_by_id(FUNCTION) == valves
    assert (await site.ask("root", "GET", "/api/policies")).json() == loaded


async def test_simulation_tells_who_would_have_been_refused(site: Site) -> None:
    """What is on record is replayed against a text that is not in force."""
    for _ in range(3):
        await site.chat("ann")
    body = {"policies": '[role.user]\nlimits = ["300 tokens/day"]', "days": 7}
    found = (await site.ask("root", "POST", "/api/policies/simulate", body)).json()
    (own,) = [row for row in found["users"] if row["user_id"] == site.ids["ann"]]
    assert (own["email"], own["refused"], own["limit"]) == (site.email("ann"), 1, "300 tokens/day")
    assert own["tokens_saved"] == 200
    for days in (0, -1, 1.5, "7", True, 10**9):
        wrong = await site.ask("root", "POST", "/api/policies/simulate", {**body, "days": days})
        assert wrong.status_code == 400


PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}


async def test_a_simulation_whose_connection_breaks(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the connection breaks the replay begins anew, and nothing is counted twice."""
    for _ in range(3):
        await site.chat("ann", output=50)
    body = {"policies": '[role.user]\nlimits = ["400 tokens/day"]\n', "days": 30}
    found = (await site.ask("root", "POST", "/api/policies/simulate", body)).json()
    broken: list[bool] = []

    def breaks_once(connection: Connection, start: int, until: int) -> Iterator[Any]:
        yield from read_replayed(connection, start, until)
        if not broken:
            broken.append(True)
            gone = OSError("the server closed the connection")
            raise OperationalError("FETCH", {}, gone, connection_invalidated=True)

    monkeypatch.setattr("helpers.openwebui.policy_editor.read_replayed", breaks_once)
    again = (await site.ask("root", "POST", "/api/policies/simulate", body)).json()
    assert broken
    assert site.ids["ann"] not in [row["user_id"] for row in found["users"]]
    assert again == {**found, "since": again["since"]}


async def test_in_a_simulation_exempt_administrators_use_up_pools(site: Site) -> None:
    """As in the ledger: what they use counts for the pools, and they are never refused."""
    model = f"model-{uuid4().hex[:6]}"
    for who, role in (("root", "admin"), ("root", "admin"), ("ann", "user")):
        if who == "ann":
            await asyncio.sleep(1.1)  # on record are whole seconds
        await site.chat(who, role=role, model=model)
    policies = f'[pool.everyone]\nlimits = ["400 tokens/day on {model}"]'
    body = {"policies": policies, "days": 1}
    found = (await site.ask("root", "POST", "/api/policies/simulate", body)).json()
    assert [(one["user_id"], one["refused"]) for one in found["users"]] == [(site.ids["ann"], 1)]


@pytest.mark.parametrize(
    ("messages", "answered"),
    [
        ([("user", "/Usage")], True),
        ([("user", [PICTURE, {"type": "text", "text": "/usage"}])], True),
        ([("user", "/usage"), ("assistant", "| 1 |")], True),  # to go on with
        ([("user", "/usage is a path of my program: how is it tested?")], False),
        ([("user", "what does /usage do?")], False),
        ([("user", "/usage"), ("assistant", "| 1 |"), ("user", "thanks")], False),
        ([("assistant", "/usage")], False),
        ([("user", ["/usage", None, {"type": "text"}])], False),
        ([], False),
    ],
)
def test_only_a_message_that_is_the_command_is_answered(
    messages: list[tuple[str, Any]], answered: bool
) -> None:
    """A longer text is a question to a model, whatever it begins with."""
    body = {"messages": [{"role": role, "content": content} for role, content in messages]}
    assert asks_for_usage(body) is answered


async def test_no_model_gets_an_earlier_answer_to_usage(site: Site) -> None:
    """An earlier command and its answer, which may name others, are left out of the next call."""
    texts = ["Hi", "Hello", "/usage", "| x@example.org |", "/usage", "/usage", "y", "And now?"]
    roles = ["user", "assistant", "user", "assistant", "user", "user", "assistant", "user"]
    sent = [{"role": one, "content": text} for one, text in zip(roles, texts, strict=True)]
    body = {"model": "gpt-4o", "messages": sent}
    user = {"id": site.ids["ann"], "email": site.email("ann"), "role": "user"}
    metadata: dict[str, Any] = {"chat_id": "c", "message_id": "m", "session_id": "s"}

    async def emit(event: dict[str, Any]) -> None:
        assert event["type"] in ("notification", "status")

    found = await site.limits.inlet(
        body, __user__=user, __metadata__=metadata, __event_emitter__=emit
    )
    assert [one["content"] for one in found["messages"]] == ["Hi", "Hello", "And now?"]
    await site.limits.outlet({"messages": []}, __user__=user, __metadata__=metadata)


@pytest.mark.parametrize("content", ["/usage", "  /usage \n", [{"type": "text", "text": "/usage"}]])
async def test_usage_is_answered_without_a_model(site: Site, content: Any) -> None:
    """The command shows all limits and this month's use, and leaves no record."""
    await site.chat("ann", output=900)
    events: list[dict[str, Any]] = []

    async def emit(event: dict[str, Any]) -> None:
        events.append(event)

    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": content}]}
    metadata = {"chat_id": "local:c", "message_id": "m", "session_id": "s"}
    metadata["variables"] = {"{{USER_LANGUAGE}}": "de-DE"}  # type: ignore[assignment]
    user = {"id": site.ids["ann"], "email": site.email("ann"), "role": "user"}
    with pytest.raises(asyncio.CancelledError):
        await site.limits.inlet(body, __user__=user, __metadata__=metadata, __event_emitter__=emit)
    text = events[0]["data"]["content"]
    assert events[0]["type"] == "replace"
    assert "Verbraucht" in text
    assert "1.000 Token pro Tag" in text
    assert "gpt-4o" in text
    me = (await site.ask("ann", "GET", "/api/me")).json()
    assert me["month"][0]["requests"] == 1


async def test_usage_by_a_program_is_an_ordinary_message(site: Site) -> None:
    """Where nobody sees an answer of ours the message goes to the model like any other."""

    async def emit(event: dict[str, Any]) -> None:
        raise AssertionError(event)

    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "/usage"}]}
    user = {"id": site.ids["bob"], "email": site.email("bob"), "role": "user"}
    metadata: dict[str, Any] = {}
    await site.limits.inlet(body, __user__=user, __metadata__=metadata, __event_emitter__=emit)
    assert "usage_limits" in metadata
    await metadata["usage_limits"].keeper.end(metadata["usage_limits"], None)
