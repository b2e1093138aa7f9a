"""The chat page as a user sees it near a limit and over it, in a real browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, expect
from playwright.sync_api import Page as Tab

from scripts.demo.scene import (
    FIRST,
    FOURTH,
    SECOND,
    STUDENT_TOKENS,
    THIRD,
    Exchange,
)
from scripts.openwebui.client import OpenWebUIClient
from scripts.openwebui.page import Page
from scripts.provider.server import FakeProvider
from tests.conftest import InstalledFilter, MakeUser, OpenPage
from tests.ui.conftest import OpenTab, TakePicture

TOAST = "[data-sonner-toast]"
LIMITED = f'[group.Students]\nlimits = ["{STUDENT_TOKENS:,} tokens/day"]'


@pytest.fixture(autouse=True)
def _model(provider: FakeProvider) -> None:
    """The fake provider knows its lines."""
    for exchange in (FIRST, SECOND, THIRD, FOURTH):
        provider.script(
            contains=exchange.question,
            reply=exchange.answer,
            prompt=exchange.input_tokens,
            tokens=exchange.output_tokens,
            chunks=len(exchange.answer.split()),
            delay=0.1,  # the warning's line gives way to the usage line when the reply is done
        )


@pytest.fixture
def student(usage_limits: InstalledFilter, make_user: MakeUser) -> OpenWebUIClient:
    """A student with a limit and nothing used of it."""
    usage_limits.configure(policies=LIMITED)
    return make_user("Sam Student", groups=["Students"])


def write(tab: Tab, exchange: Exchange) -> None:
    """Send a message."""
    tab.locator("#chat-input").click()
    tab.keyboard.type(exchange.question)
    tab.keyboard.press("Enter")


def status_lines(tab: Tab) -> Locator:
    """The grey lines over replies."""
    return tab.get_by_role("button", name="Toggle status history")


def test_warning_then_refusal(
    usage_limits: InstalledFilter,
    student: OpenWebUIClient,
    open_page: OpenPage,
    open_tab: OpenTab,
    take_picture: TakePicture,
    provider: FakeProvider,
) -> None:
    """At the soft limit a toast and a line over the reply; at the hard one a red toast and box."""
    page: Page = open_page(student)
    first = page.send(FIRST.question)
    page.send(SECOND.question, after=first)
    student.post(f"/api/v1/chats/{first.chat_id}", {"chat": {"title": "Plants"}})
    tab = open_tab(student, f"/c/{first.chat_id}", height=500)
    expect(tab.get_by_text(SECOND.answer)).to_be_visible()

    write(tab, THIRD)
    used = FIRST.tokens + SECOND.tokens
    percent, left = used * 100 // STUDENT_TOKENS, STUDENT_TOKENS - used
    warning = (
        f"{percent}% of your limit of {STUDENT_TOKENS:,} tokens per day (Students) used; "
        f"{left:,} left, resets tomorrow at 00:00"
    )
    toast = tab.locator(TOAST)
    expect(toast).to_have_attribute("data-type", "warning")
    expect(toast).to_contain_text(warning)
    expect(status_lines(tab).filter(has_text=warning)).to_be_visible()
    expect(tab.get_by_text(THIRD.answer[:60])).to_be_visible()
    take_picture(tab, "warning")
    used += THIRD.tokens
    line = f"Limit reached: {used:,} of {STUDENT_TOKENS:,} tokens per day"
    expect(status_lines(tab).filter(has_text=line)).to_be_visible()

    expect(toast).to_have_count(0)
    write(tab, FOURTH)
    refusal = (
        f"You've reached your limit of {STUDENT_TOKENS:,} tokens per day (Students). "
        "It resets tomorrow at 00:00"
    )
    expect(toast).to_have_attribute("data-type", "error")
    expect(toast).to_contain_text(refusal)
    box = tab.locator("#messages-container").get_by_text(refusal)
    expect(box).to_be_visible()
    take_picture(tab, "refusal")
    assert provider.call_log.calls(contains=FOURTH.question) == []
    assert len(usage_limits.settled(3, user_id=student.id)) == 3

    tab.reload()
    expect(box).to_be_visible()
    expect(toast).to_have_count(0)


def test_nothing_is_shown_far_from_a_limit(student: OpenWebUIClient, open_tab: OpenTab) -> None:
    """The first message of the day looks as it does without the filter."""
    tab = open_tab(student, "/?model=fake-llm")
    write(tab, FIRST)
    expect(tab.get_by_text(FIRST.answer)).to_be_visible()
    tab.get_by_label("Copy").last.wait_for()  # the reply is done
    expect(tab.locator(TOAST)).to_have_count(0)
    expect(status_lines(tab)).to_have_count(0)


def test_user_may_always_see_the_usage(
    usage_limits: InstalledFilter, student: OpenWebUIClient, open_tab: OpenTab
) -> None:
    """Who wishes it sees the line over every reply."""
    student.set_user_valves(usage_limits.id, {"show_usage": "always"})
    tab = open_tab(student, "/?model=fake-llm")
    write(tab, FIRST)
    line = f"Usage: {FIRST.tokens:,} of {STUDENT_TOKENS:,} tokens per day"
    expect(status_lines(tab).filter(has_text=line)).to_be_visible()


@pytest.mark.parametrize(
    ("locale", "reached", "refusal"),
    [
        ("ar", "تم بلوغ الحدّ:", "تم بلوغ حدّك"),
        ("he-IL", "המכסה נוצלה:", "המכסה שלך"),
        ("de-DE", "Limit erreicht:", "Ihr Limit von"),
        ("fr-FR", "Limite atteinte\u00a0:", "Votre limite de"),
        ("ja-JP", "上限に達しました：", "あなたの上限"),
    ],
)
def test_sentences_in_the_page_s_language(
    usage_limits: InstalledFilter,
    student: OpenWebUIClient,
    open_tab: OpenTab,
    locale: str,
    reached: str,
    refusal: str,
) -> None:
    """Who has set the page to a language reads the sentences in it, on a phone, both ways."""
    usage_limits.configure(policies='[group.Students]\nlimits = ["10 tokens/day"]')
    tab = open_tab(student, "/?model=fake-llm", width=390, height=700, locale=locale)
    write(tab, FIRST)
    messages = tab.locator("#messages-container")
    expect(messages.get_by_text(reached).last).to_be_visible()
    write(tab, SECOND)
    box = messages.get_by_text(refusal)
    expect(box).to_be_visible()
    assert box.evaluate("box => box.scrollWidth <= box.clientWidth")
