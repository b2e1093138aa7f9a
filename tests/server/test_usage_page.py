"""The usage page and its JSON on a real server: who gets in, and what each gets."""

from __future__ import annotations

import itertools
import time

import httpx
import pytest

from scripts.openwebui.admin import OpenWebUIAdmin
from scripts.openwebui.client import OpenWebUIClient
from scripts.openwebui.page import Page
from scripts.provider.server import FakeProvider
from tests.conftest import InstalledFilter, MakeUser

FIFTY = "[[in=20 tokens=30]]"
PATHS = (
    "",
    "/",
    "/api",
    "/api/me",
    "/api/users",
    "/api/users/x",
    "/api/pools",
    "/api/overview",
    "/api/report",
    "/api/shadow",
    "/api/policies",
    "/api/policies/check",
    "/api/policies/simulate",
    "/api/grants",
    "/api/grants/x",
    "/api/resets",
    "/api/whatever",
)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
OPEN_TO_USERS = {("GET", ""), ("GET", "/"), ("GET", "/api/me")}


def test_nobody_gets_in_and_users_see_only_their_own(
    usage_limits: InstalledFilter, user: OpenWebUIClient
) -> None:
    """Every path by every method: nothing without a session, to users nothing of others."""
    usage_limits.configure()
    assert user.chat(FIFTY).status == 200
    stranger = httpx.Client(base_url=str(user.http.base_url), trust_env=False)
    for method, path in itertools.product(METHODS, PATHS):
        asked = f"/usage-limits{path}"
        assert stranger.request(method, asked).status_code == 401, (method, path)
        answer = user.http.request(method, asked)
        if (method, path) in OPEN_TO_USERS:
            assert answer.status_code == 200, (method, path)
        else:
            assert answer.status_code in (401, 403, 404), (method, path)
    stranger.close()


def test_me_users_report_and_grants(
    usage_limits: InstalledFilter, admin: OpenWebUIAdmin, user: OpenWebUIClient
) -> None:
    """What a user has used is on the user's page and the administrator's; a grant lets go on."""
    usage_limits.configure(daily_token_limit=100)
    assert [user.chat(FIFTY).status for _ in range(2)] == [200, 200]
    usage_limits.settled(2, user_id=user.id)
    me = user.http.get("/usage-limits/api/me").json()
    (limit,) = me["limits"]
    assert (limit["used"], limit["remaining"], limit["percent"]) == (100, 0, 100)
    near = admin.http.get("/usage-limits/api/users?near=true").json()
    assert me["user_id"] in [row["user_id"] for row in near]
    rows = admin.http.get("/usage-limits/api/report?by=user").json()
    assert [row["total_tokens"] for row in rows if row["user_id"] == user.id] == [100]
    assert user.chat(FIFTY).status == 429
    grant = {"user": me["email"], "limit": limit["limit"], "amount": 50, "reason": "exam"}
    made = admin.http.post("/usage-limits/api/grants", json=grant)
    assert made.status_code == 200, made.text
    assert user.chat(FIFTY).status == 200
    revoked = admin.http.delete(f"/usage-limits/api/grants/{made.json()['id']}")
    assert revoked.status_code == 200
    assert user.chat(FIFTY).status == 429
    reset = admin.http.post("/usage-limits/api/resets", json={"user": user.id, "reason": "x"})
    assert reset.status_code == 200, reset.text
    assert user.chat(FIFTY).status == 200


def test_policies_saved_on_the_page_are_in_force_at_once(
    usage_limits: InstalledFilter, admin: OpenWebUIAdmin, make_user: MakeUser
) -> None:
    """A group's limit that is saved on the page refuses its members' next request."""
    usage_limits.configure()
    member = make_user(groups=["Page Testers"])
    assert member.chat(FIFTY).status == 200
    text = '[group."Page Testers"]\nlimits = ["50 tokens/day"]\n'
    saved = admin.http.put("/usage-limits/api/policies", json={"policies": text})
    assert saved.status_code == 200, saved.text
    assert member.chat(FIFTY).status == 429
    simulated = admin.http.post(
        "/usage-limits/api/policies/simulate",
        json={"policies": text.replace("50 tokens", "10 tokens"), "days": 1},
    ).json()
    assert member.id not in [row["user_id"] for row in simulated["users"]]  # its first was allowed


def test_usage_in_a_chat(
    usage_limits: InstalledFilter, user: OpenWebUIClient, page: Page, provider: FakeProvider
) -> None:
    """`/usage` is answered in the chat, over the limit too, and saved; no model is called."""
    usage_limits.configure(daily_token_limit=50)
    page.send(FIFTY)
    usage_limits.settled(1, user_id=user.id)
    before = len(provider.call_log.calls())
    turn = page.send("/usage", background_tasks=True)
    chat = user.saved_chat(turn.chat_id)
    shown = [
        message
        for message in chat["chat"]["history"]["messages"].values()
        if "/usage-limits" in (message.get("content") or "")
    ]
    assert len(shown) == 1
    assert shown[0]["done"] is True
    assert "| 50 (100%) |" in shown[0]["content"]
    assert len(provider.call_log.calls()) == before
    assert len(usage_limits.rows(user_id=user.id, source="page")) == 1
    refused = page.send(FIFTY).reply.error
    assert refused is not None
    assert refused.endswith(" /usage-limits")


def test_usage_as_a_first_message_gets_no_title_from_a_model(
    usage_limits: InstalledFilter, user: OpenWebUIClient, page: Page, provider: FakeProvider
) -> None:
    """Neither the command nor the title of a chat that has nothing else calls a model."""
    usage_limits.configure()
    before = len(provider.call_log.calls())
    turn = page.send("/usage", background_tasks=True)
    user.wait_until_idle(turn.chat_id)
    time.sleep(1)  # a title would be asked for in a task of its own
    assert len(provider.call_log.calls()) == before
    assert usage_limits.rows(user_id=user.id) == []


def test_the_form_tells_who_is_near_and_why_a_save_is_refused(
    usage_limits: InstalledFilter, admin: OpenWebUIAdmin, user: OpenWebUIClient
) -> None:
    """At the form's top stand those near a limit; a refused save comes back with its reason."""
    usage_limits.configure(daily_token_limit=50)
    assert user.chat(FIFTY).status == 200
    usage_limits.settled(1, user_id=user.id)
    spec = admin.get(f"/api/v1/functions/id/{usage_limits.id}/valves/spec")
    first = next(iter(spec["properties"].values()))
    assert "Near or over a limit now" in first["description"]
    refused = admin.http.post(
        f"/api/v1/functions/id/{usage_limits.id}/valves/update",
        json={"policies": "[role.user]\nlimits = ['nonsense']"},
    )
    assert refused.status_code == 400
    assert "policies: [role.user] limits" in refused.json()["detail"]


def test_the_form_tells_of_a_ledger_that_is_not_reached(
    usage_limits: InstalledFilter, admin: OpenWebUIAdmin
) -> None:
    """A mistyped address is a valid one: the field says that nothing answers there."""

    def described() -> str:
        return str(admin.valves_spec(usage_limits.id)["properties"]["database_url"]["description"])

    assert not described().startswith("NOT REACHED")
    usage_limits.configure(database_url="sqlite:////nowhere/ledger.db")
    assert described().startswith("NOT REACHED")
    usage_limits.configure()
    assert not described().startswith("NOT REACHED")


def test_switched_off_there_is_nothing(
    usage_limits: InstalledFilter, admin: OpenWebUIAdmin, user: OpenWebUIClient
) -> None:
    """Without the function, and without its valve, the paths aren't there."""
    assert user.chat(FIFTY).status == 200
    usage_limits.configure(usage_page=False)
    assert admin.http.get("/usage-limits").status_code == 404
    usage_limits.configure()
    assert admin.http.get("/usage-limits").status_code == 200
    usage_limits.switch(active=False)
    for path in PATHS:
        assert admin.http.get(f"/usage-limits{path}").status_code == 404


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_reports_come_as_json_and_csv(
    usage_limits: InstalledFilter, admin: OpenWebUIAdmin, user: OpenWebUIClient, kind: str
) -> None:
    """A program gets the same columns as from the command line."""
    assert user.chat(FIFTY).status == 200
    usage_limits.settled(1, user_id=user.id)
    path = f"/usage-limits/api/report?by=user,model,day,group,source&format={kind}"
    answer = admin.http.get(path)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert user.id in answer.text


def test_no_model_gets_what_usage_has_answered(
    usage_limits: InstalledFilter, user: OpenWebUIClient, page: Page, provider: FakeProvider
) -> None:
    """A chat goes on after the command as if it had not been there, and costs no more for it."""
    usage_limits.configure(daily_token_limit=100_000)
    for text in ("/usage", "/Usage "):
        question = f"Question of {user.id} after {text}"
        turn = page.send(text)
        page.send(question, after=turn)
        (after,) = provider.call_log.calls(contains=question)
        page.send(question)
        (_, alone) = provider.call_log.calls(contains=question)
        assert after.prompt_tokens == alone.prompt_tokens
    usage_limits.settled(4, user_id=user.id)
