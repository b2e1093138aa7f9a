"""Limits in a real Open WebUI: who is warned, who is refused, what is on record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from sqlalchemy import func, inspect, select

from helpers.ledger.database import open_database
from helpers.ledger.tables import MIGRATIONS, ledger_metadata, migrations_table, records_table
from scripts.compat.hosts import QUIET_LOG
from scripts.openwebui.admin import OpenWebUIAdmin
from scripts.openwebui.client import HostError, OpenWebUIClient
from scripts.openwebui.page import Page
from scripts.openwebui.server import OpenWebUIServer
from scripts.provider.server import FakeProvider
from tests.conftest import InstalledFilter, MakeUser, host_can

FIFTY = "[[in=20 tokens=30]]"
STUDENTS = '[group.{0}]\nlimits = ["100 tokens/day"]'


def calls_with(provider: FakeProvider, text: str) -> int:
    """How many calls with this text have reached the provider."""
    return len(provider.call_log.calls(contains=text))


def test_page_warns_then_refuses(
    usage_limits: InstalledFilter, user: OpenWebUIClient, page: Page, provider: FakeProvider
) -> None:
    """The page warns by toast and status line at the soft limit and refuses at the hard one."""
    usage_limits.configure(daily_token_limit=100, soft_limit_percent=50)
    first = page.send(f"one of {user.id} {FIFTY}").reply
    assert (first.notifications, first.error) == ([], None)
    second = page.send(f"two of {user.id} {FIFTY}").reply
    warning = (
        "50% of your limit of 100 tokens per day used; 50 left, resets tomorrow at 00:00 UTC."
        " /usage-limits"
    )
    assert second.notifications == [("warning", warning)]
    assert second.statuses[0] == warning
    assert second.text
    third = page.send(f"three of {user.id} {FIFTY}").reply
    assert third.error is not None
    assert third.error.startswith(
        "You've reached your limit of 100 tokens per day. It resets tomorrow at"
    )
    assert "00:00 UTC, in " in third.error
    assert third.notifications == []
    assert calls_with(provider, f"three of {user.id}") == 0
    rows = usage_limits.settled(2, user_id=user.id)
    assert [(row["input_tokens"], row["output_tokens"], row["estimated"]) for row in rows] == [
        (20, 30, 0),
        (20, 30, 0),
    ]


def test_warning_comes_once_per_window(usage_limits: InstalledFilter, page: Page) -> None:
    """Further messages over the soft limit bring no further toast."""
    usage_limits.configure(daily_token_limit=1000, soft_limit_percent=5)
    page.send(FIFTY)
    toasts = [page.send(FIFTY).reply.notifications for _ in range(3)]
    assert [len(shown) for shown in toasts] == [1, 0, 0]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/api/chat/completions", "/api/v1/messages"])
def test_api_is_refused_with_429(
    usage_limits: InstalledFilter,
    user: OpenWebUIClient,
    provider: FakeProvider,
    stream: bool,
    path: str,
) -> None:
    """An API call over the limit gets status 429 and Retry-After, and no model is called."""
    usage_limits.configure(daily_token_limit=40)
    more = {"max_tokens": 100} if path.endswith("messages") else {}
    assert user.chat(f"first {FIFTY}", stream=stream, path=path, **more).status == 200
    usage_limits.settled(1, user_id=user.id)
    text = f"second of {user.id}"
    refused = user.chat(f"{text} {FIFTY}", stream=stream, path=path, **more)
    assert refused.status == 429
    assert 0 < int(refused.headers["retry-after"]) <= 86_400
    assert "40 tokens per day" in str(refused.body)
    assert calls_with(provider, text) == 0


def test_official_clients_raise_their_rate_limit_error(
    usage_limits: InstalledFilter, user: OpenWebUIClient, server: OpenWebUIServer
) -> None:
    """The openai and anthropic clients understand the refusal, streaming or not."""
    usage_limits.configure(policies='[role.user]\nlimits = ["0 tokens/day"]')
    token, url = user.account.token, f"{server.url}/api"
    messages: Any = [{"role": "user", "content": "Hello"}]
    for stream in (False, True):
        with (
            openai.OpenAI(api_key=token, base_url=url, max_retries=0) as client,
            pytest.raises(openai.RateLimitError, match="You can't use any models here"),
        ):
            client.chat.completions.create(model="fake-llm", messages=messages, stream=stream)
        with (
            anthropic.Anthropic(api_key=token, base_url=url, max_retries=0) as other,
            pytest.raises(anthropic.RateLimitError),
        ):
            other.messages.create(model="fake-llm", messages=messages, max_tokens=10, stream=stream)


def test_lowest_priority_number_decides_for_a_member_of_two_groups(
    usage_limits: InstalledFilter, make_user: MakeUser
) -> None:
    """A member of two groups gets the limits of the one with the lower priority number."""
    member = make_user(groups=["Large", "Small"])
    both = (
        '[group.Large]\npriority = {0}\nlimits = ["9k tokens/day"]\n'
        '[group.Small]\npriority = {1}\nlimits = ["10 tokens/day"]'
    )
    usage_limits.configure(policies=both.format(1, 2))
    assert [member.chat(FIFTY).status for _ in range(2)] == [200, 200]
    usage_limits.configure(policies=both.format(2, 1))
    refused = member.chat(FIFTY)
    assert (refused.status, "(Small)" in refused.error) == (429, True)
    usage_limits.configure(policies=both.format(2, 1), multiple_groups="most_generous")
    assert member.chat(FIFTY).status == 200


@pytest.mark.parametrize("ledger", ["with Open WebUI", "elsewhere"])
def test_inherited_group_counts(
    usage_limits: InstalledFilter,
    admin: OpenWebUIAdmin,
    make_user: MakeUser,
    tmp_path: Path,
    ledger: str,
) -> None:
    """A member of a subgroup is under the limits of the group above it, and of its own."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}" if ledger == "elsewhere" else ""
    names = [f"{level} {ledger}" for level in ("University", "Faculty", "Students")]
    above = None
    for name in names:
        above = admin.create_group(name, parent=above)
    member = make_user()
    admin.add_to_group(above or "", [member.id])
    for name in names:
        policies = f'[group."{name}"]\nlimits = ["0 requests/day"]'
        usage_limits.configure(policies=policies, database_url=url)
        refused = member.chat("Hello")
        assert (refused.status, refused.error) == (429, f"You can't use any models here ({name}).")


def test_administrator_is_recorded_and_not_refused(
    usage_limits: InstalledFilter, admin: OpenWebUIAdmin
) -> None:
    """Administrators are exempt by default, on record always, and limited if the valve says so."""
    before = len(usage_limits.rows(user_id=admin.id))
    usage_limits.configure(daily_token_limit=1)
    assert [admin.chat(FIFTY).status for _ in range(2)] == [200, 200]
    rows = usage_limits.settled(before + 2, user_id=admin.id)[before:]
    assert [row["policy"] for row in rows] == ["exempt", "exempt"]
    usage_limits.configure(daily_token_limit=1, exempt_admins=False)
    assert admin.chat(FIFTY).status == 429


def test_deleted_and_temporary_chats_keep_counting(
    usage_limits: InstalledFilter, user: OpenWebUIClient, page: Page
) -> None:
    """Deleting a chat gives nothing back, and a temporary chat counts like any other."""
    usage_limits.configure(daily_token_limit=100)
    turn = page.send(FIFTY)
    user.delete_chat(turn.chat_id)
    assert page.send(FIFTY, temporary=True).reply.text
    rows = usage_limits.settled(2, user_id=user.id)
    assert [row["source"] for row in rows] == ["page", "temporary"]
    assert page.send(FIFTY, temporary=True).reply.error


def test_only_the_models_it_is_enabled_on_are_limited(
    usage_limits: InstalledFilter,
    admin: OpenWebUIAdmin,
    user: OpenWebUIClient,
    own_model: Callable[..., str],
) -> None:
    """Where the filter isn't global, only the models that name it are limited and recorded."""
    usage_limits.configure(policies='[role.user]\nlimits = ["0 tokens/day"]')
    usage_limits.switch(everywhere=False)
    limited = own_model(filter_ids=[usage_limits.id])
    assert user.chat("Hello", model=limited).status == 429
    assert user.chat("Hello").status == 200
    assert usage_limits.rows(user_id=user.id) == []


def test_custom_model_is_limited_by_its_base_model(
    usage_limits: InstalledFilter, user: OpenWebUIClient, own_model: Callable[..., str]
) -> None:
    """A limit on a base model holds for the custom models made from it."""
    custom = own_model(base_model_id="fake-llm")
    usage_limits.configure(policies='[role.user]\nlimits = ["40 tokens/day on fake-l*"]')
    assert user.chat(FIFTY, model=custom).status == 200
    assert user.chat(FIFTY, model=custom).status == 429
    assert user.chat(FIFTY, model="fake-llm").status == 429
    assert usage_limits.settled(1, user_id=user.id)[0]["model_names"] == f"|{custom}|fake-llm|"


@pytest.fixture
def own_model(admin: OpenWebUIAdmin) -> Iterator[Callable[..., str]]:
    """Makes a model entry of the test's own, and takes it away again."""
    made: list[str] = []

    def make(*, base_model_id: str = "fake-llm", filter_ids: tuple[str, ...] = ()) -> str:
        made.append(f"own-{len(made)}-{id(made)}")
        admin.set_model(made[-1], base_model_id=base_model_id, filter_ids=list(filter_ids))
        return made[-1]

    yield make
    for model in made:
        admin.delete_model(model)


def test_background_tasks_are_recorded_and_not_counted(
    usage_limits: InstalledFilter, user: OpenWebUIClient, page: Page, provider: FakeProvider
) -> None:
    """Titles, tags and follow-ups are on record to the token, and count toward no limit."""
    usage_limits.configure(daily_token_limit=100_000)
    turn = page.send(f"task of {user.id} {FIFTY}", background_tasks=True)
    rows = usage_limits.settled(4, user_id=user.id)
    calls = provider.call_log.calls(contains=f"task of {user.id}", tasks=True)
    assert len([call for call in calls if call.task]) == 3
    assert {row["chat_id"] for row in rows} == {turn.chat_id}
    assert sorted(
        (row["input_tokens"], row["output_tokens"], row["source"], row["counted"]) for row in rows
    ) == sorted(
        (
            call.prompt_tokens,
            call.completion_tokens,
            "task" if call.task else "page",
            0 if call.task else 1,
        )
        for call in calls
    )


@pytest.mark.parametrize(
    ("wish", "shown"), [("always", True), ("near_limit", False), ("never", False)]
)
def test_status_line_is_shown_as_the_user_wishes(
    usage_limits: InstalledFilter, user: OpenWebUIClient, page: Page, wish: str, shown: bool
) -> None:
    """Far from a limit only those see a status line who want it always."""
    usage_limits.configure(daily_token_limit=1000)
    user.set_user_valves(usage_limits.id, {"show_usage": wish})
    reply = page.send(FIFTY).reply
    line = (
        "50 tokens · 950 left · "
        "Usage: 50 of 1,000 tokens per day (5%), resets tomorrow at 00:00 UTC"
    )
    assert reply.statuses == ([line] if shown else [])


def test_status_line_is_never_shown_to_who_does_not_want_it(
    usage_limits: InstalledFilter, user: OpenWebUIClient, page: Page
) -> None:
    """A user who wants no status line still gets the warning, as a toast."""
    usage_limits.configure(daily_token_limit=100, soft_limit_percent=50)
    user.set_user_valves(usage_limits.id, {"show_usage": "never"})
    page.send(FIFTY)
    reply = page.send(FIFTY).reply
    assert (len(reply.notifications), reply.statuses) == (1, [])


def test_several_models_at_once_share_the_limit(
    usage_limits: InstalledFilter, user: OpenWebUIClient, page: Page
) -> None:
    """One message to two models is two requests, admitted one by one."""
    usage_limits.configure(policies='[role.user]\nlimits = ["1 request/day"]')
    turn = page.send(FIFTY, models=["fake-llm", "fake-llm-large"])
    assert sorted(reply.error is None for reply in turn.replies) == [False, True]
    assert len(usage_limits.settled(1, user_id=user.id)) == 1


def test_first_thirty_calls_at_once(
    usage_limits: InstalledFilter,
    user: OpenWebUIClient,
    tmp_path: Path,
    server: OpenWebUIServer,
) -> None:
    """Thirty calls that find no tables yet: none fails, ten get through a limit of ten."""
    url = f"sqlite:///{tmp_path / 'fresh.db'}"
    usage_limits.configure(policies='[role.user]\nlimits = ["10 requests/day"]', database_url=url)
    with ThreadPoolExecutor(30) as threads:
        statuses = list(threads.map(lambda _: user.chat(FIFTY).status, range(30)))
    assert sorted(statuses) == [200] * 10 + [429] * 20
    engine = open_database(url)
    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(migrations_table)) == len(
            MIGRATIONS
        )
        assert connection.scalar(select(func.count()).select_from(records_table)) == 10
        assert set(ledger_metadata.tables) <= set(inspect(connection).get_table_names())
    engine.dispose()


BAD_VALVES = {
    "policies": ('[group.Students]\nlimits = ["50k tokens per day"]', "[group.Students] limits"),
    "timezone": ("Europe/Berlim", "Europe/Berlin"),
    "daily_token_limit": ("9" * 400, "less than or equal to"),
    "soft_limit_percent": ("101", "less than or equal to 100"),
    "limit_message": ("You used {tokens}", "{tokens}"),
    "warning_message": ("{used:,} of {limit:,}", "plain names only"),
    "database_url": ("mysql://joe:secret@localhost/x", "postgresql://"),
}


@pytest.mark.parametrize("name", BAD_VALVES)
def test_bad_valve_is_refused_and_the_form_says_why(
    usage_limits: InstalledFilter, admin: OpenWebUIAdmin, server: OpenWebUIServer, name: str
) -> None:
    """A bad valve isn't saved; log and form name the reason, until a good one is saved."""
    value, reason = BAD_VALVES[name]
    usage_limits.configure(daily_token_limit=123)
    before = admin.valves(usage_limits.id)
    with pytest.raises(HostError):
        usage_limits.configure(**{name: value})
    assert admin.valves(usage_limits.id) == before
    description = admin.valves_spec(usage_limits.id)["properties"][name]["description"]
    assert description.startswith("**NOT SAVED at")
    assert reason in description
    assert f"valve {name} was refused" in server.log()
    log = server.log()
    if not host_can(QUIET_LOG):  # the host itself prints the form: ours are the other lines
        log = "\n".join(line for line in log.splitlines() if "function_usage_limits:" in line)
    assert "secret" not in log
    usage_limits.configure(daily_token_limit=124)
    assert "NOT SAVED" not in str(admin.valves_spec(usage_limits.id))


def test_form_values_are_understood_as_the_page_posts_them(usage_limits: InstalledFilter) -> None:
    """Numbers come as strings, an emptied number as "", a default as null."""
    usage_limits.admin.set_valves(
        usage_limits.id, {"daily_token_limit": "40", "monthly_token_limit": "", "reset_hour": None}
    )
    assert usage_limits.admin.valves(usage_limits.id) == {"daily_token_limit": 40}


def test_unknown_group_is_logged_once(
    usage_limits: InstalledFilter, user: OpenWebUIClient, server: OpenWebUIServer
) -> None:
    """A policy for a group that doesn't exist harms nobody and is named in the log, once."""
    usage_limits.configure(policies='[group.Atlantis]\nlimits = ["1 token/day"]')
    assert [user.chat("Hello").status for _ in range(3)] == [200] * 3
    assert server.log().count('Open WebUI has no group "Atlantis"') == 1


@pytest.mark.parametrize("body", [{"messages": []}, {"messages": [{"role": "user"}]}])
def test_odd_bodies_do_no_harm(
    usage_limits: InstalledFilter, user: OpenWebUIClient, server: OpenWebUIServer, body: Any
) -> None:
    """A request without messages or content gets what it would get without the filter."""
    usage_limits.configure(daily_token_limit=100)
    with_filter = user.http.post("/api/chat/completions", json={"model": "fake-llm", **body})
    usage_limits.switch(active=False)
    without = user.http.post("/api/chat/completions", json={"model": "fake-llm", **body})
    assert with_filter.status_code == without.status_code
    assert "was not reserved for" not in server.log()


def test_shadow_mode_only_logs(
    usage_limits: InstalledFilter, user: OpenWebUIClient, page: Page, server: OpenWebUIServer
) -> None:
    """In shadow mode nobody is warned or refused; the log says who would have been."""
    usage_limits.configure(daily_token_limit=10, shadow_mode=True)
    replies = [page.send(FIFTY).reply for _ in range(2)]
    assert [(reply.error, reply.notifications, reply.statuses) for reply in replies] == [
        (None, [], [])
    ] * 2
    assert f"user {user.id} would be refused by the default (10 tokens/day)" in server.log()
    assert len(usage_limits.settled(2, user_id=user.id)) == 2


def test_message_templates(usage_limits: InstalledFilter, page: Page) -> None:
    """The administrator's own sentences are used, with their numbers."""
    usage_limits.configure(
        daily_token_limit=100,
        soft_limit_percent=50,
        limit_message="{used}/{limit} {unit} {period} {percent} {remaining} {policy} {model}",
        warning_message="{used} of {limit}",
    )
    page.send(FIFTY)
    assert page.send(FIFTY).reply.notifications == [("warning", "50 of 100")]
    assert page.send(FIFTY).reply.error == "100/100 tokens per day 100 0 fake-llm"


def test_refusal_in_the_users_language(usage_limits: InstalledFilter, page: Page) -> None:
    """The chat page tells its language, and the sentence comes in it."""
    usage_limits.configure(policies='[role.user]\nlimits = ["0 requests/day"]')
    reply = page.send("Hallo", variables={"{{USER_LANGUAGE}}": "de-DE"}).reply
    assert reply.error == "Sie können hier keine Modelle verwenden."
