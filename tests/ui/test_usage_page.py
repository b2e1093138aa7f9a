"""The usage page as users and administrators see it, in a real browser on a real server."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page, expect

from scripts.openwebui.admin import OpenWebUIAdmin
from scripts.openwebui.client import OpenWebUIClient
from tests.conftest import InstalledFilter, MakeUser
from tests.ui.conftest import OpenTab, TakePicture, serious_faults

POLICIES = """\
[group.Students]
limits = ["1,000 tokens/day", "$2/month", "30 requests/hour"]

[group.Studnets]
limits = "50k tokens/day"

[pool.everyone]
limits = ["1M tokens/month"]

[model."fake-llm"]
input_price = 3
output_price = 15
"""
HOSTILE = '<img src=x onerror="document.title=1">\u202eevil'
DESKTOP = {"width": 1280, "height": 720}
PHONE = {"width": 390, "height": 844}
LOOKS = pytest.mark.parametrize(
    ("size", "theme"),
    [(DESKTOP, "light"), (DESKTOP, "dark"), (PHONE, "light"), (PHONE, "dark")],
    ids=["desktop-light", "desktop-dark", "phone-light", "phone-dark"],
)
VIEWS = ("overview", "users", "groups", "pools", "models", "policies", "me")
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"

OpenUsage = Callable[..., Page]


@pytest.fixture
def open_usage(open_tab: OpenTab) -> Iterator[OpenUsage]:
    """Opens the usage page and waits for it: `open_usage(user, "#users", theme="dark")`.

    Whatever the browser complains of, a refused style or a fault of the script, fails the test.
    """
    complaints: list[str] = []

    def open_one(client: OpenWebUIClient, view: str = "", **look: object) -> Page:
        tab = open_tab(client, "/api/version", **look)
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("console", lambda line: complaints.append(line.text) if line.type != "log" else 0)
        tab.goto(f"{client.url}/usage-limits{view}")
        ready(tab)
        return tab

    yield open_one
    # The browser says so of every answer that is a refusal.
    assert [text for text in complaints if "status of 400" not in text] == []


def ready(tab: Page) -> None:
    """Wait until the view is there."""
    expect(tab.locator("main:not([aria-busy]) h1")).to_be_visible()


@pytest.fixture
def student(usage_limits: InstalledFilter, make_user: MakeUser) -> OpenWebUIClient:
    """A student who has used 850 of 1,000 tokens."""
    usage_limits.configure(policies=POLICIES)
    made = make_user("Sam Student", groups=["Students"])
    made.chat("[[in=100 tokens=300]] Hello")
    made.chat("[[in=150 tokens=300]] Hello again")
    usage_limits.settled(count=2, user_id=made.id)
    return made


# First, while the server has few users: its pictures are for the docs.
def test_overview_says_what_is_up(
    student: OpenWebUIClient,
    admin: OpenWebUIAdmin,
    make_user: MakeUser,
    usage_limits: InstalledFilter,
    open_usage: OpenUsage,
    take_picture: TakePicture,
) -> None:
    """Totals, who is near a limit, names that mean nobody, and files of everything."""
    for name, tokens in (("Ann Arbor", 1_050), ("Ben Brook", 400), ("Cleo Chen", 100)):
        user = make_user(name, groups=["Students"])
        user.chat(f"[[in=20 tokens={tokens}]] Hello")
        usage_limits.settled(user_id=user.id)
    take_picture(open_usage(admin, "#users", theme="dark", **DESKTOP), "usage-page-users")
    tab = open_usage(admin, **DESKTOP)
    take_picture(tab, "usage-page-overview")
    expect(tab.get_by_role("heading", level=1)).to_have_text("Overview")
    near = tab.get_by_role("table", name="Users, the most used limit of each")
    expect(near.locator("tr.near", has_text="85%").first).to_contain_text("Sam Student")
    expect(tab.locator("main")).to_contain_text("Studnets")
    expect(near.locator("tr.over", has_text="Ann Arbor")).to_contain_text("0")
    for name in ("CSV", "JSON"):
        link = tab.get_by_role("link", name=name).first
        with tab.expect_download() as download:
            link.click()
        text = download.value.path().read_text(encoding="utf-8")
        assert "input_tokens" in text


def test_whoever_is_signed_out_is_led_to_the_sign_in(
    usage_limits: InstalledFilter, user: OpenWebUIClient, browser: Browser
) -> None:
    """A bookmark opens a page without any data, which links to Open WebUI's own sign-in."""
    usage_limits.configure()
    with browser.new_context(locale="en-US") as context:
        tab = context.new_page()
        answer = tab.goto(f"{user.url}/usage-limits#users")
        assert answer is not None
        assert answer.status == 401
        ready(tab)
        expect(tab.locator("main a")).to_have_attribute("href", "/auth")
        expect(tab.locator("nav")).to_be_hidden()


@LOOKS
def test_user_sees_limits_and_use(
    student: OpenWebUIClient,
    open_usage: OpenUsage,
    take_picture: TakePicture,
    request: pytest.FixtureRequest,
    size: dict[str, int],
    theme: str,
) -> None:
    """Each limit with its bar, what is left and when it resets; use by day, model and reply."""
    tab = open_usage(student, theme=theme, **size)
    expect(tab.get_by_role("heading", level=1)).to_have_text("Usage limits")
    card = tab.locator(".card", has_text="1,000 tokens per day")
    bar = card.get_by_role("meter")
    expect(bar).to_have_attribute("aria-valuenow", "85")
    expect(bar).to_have_attribute("aria-valuetext", "Used 850, Left 150")
    for text in ("850", "150", "Resets"):
        expect(card.get_by_text(text, exact=True)).to_be_visible()
    expect(tab.locator(".card", has_text="$2.00 per month")).to_contain_text("$0.0098")
    expect(tab.locator(".card", has_text="1,000,000 tokens per month")).to_contain_text("everyone")
    expect(tab.get_by_role("img", name=re.compile("Use by day: Total 850 Tokens"))).to_be_visible()
    models = tab.get_by_role("table", name="This month by model")
    expect(models.get_by_role("row").nth(1)).to_contain_text("$0.0098")
    replies = tab.get_by_role("table", name="Responses this month")
    expect(replies.get_by_role("row")).to_have_count(3)
    expect(tab.get_by_role("navigation")).to_be_hidden()
    assert tab.evaluate(SIDEWAYS) == 0
    dark = tab.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (theme == "dark")
    assert serious_faults(tab) == []
    if (look := request.node.callspec.id) in ("desktop-light", "phone-dark"):
        take_picture(tab, f"usage-page-{look}")


def test_without_a_price_there_is_no_cost(
    usage_limits: InstalledFilter, make_user: MakeUser, open_usage: OpenUsage
) -> None:
    """Where nothing has a price no cost is shown: $0.00 would say that it was free."""
    usage_limits.configure(daily_token_limit=1_000)
    user = make_user()
    user.chat("[[in=10 tokens=30]] Hello")
    usage_limits.settled(user_id=user.id)
    tab = open_usage(user)
    expect(tab.get_by_role("table", name="Responses this month")).to_contain_text("30")
    assert not re.search(r"Cost|\$", tab.locator("main").inner_text())


@pytest.mark.parametrize(
    ("locale", "title", "direction"),
    [
        ("de-DE", "Nutzungslimits", "ltr"),
        ("fr-FR", "Limites d’utilisation", "ltr"),
        ("zh-CN", "用量限额", "ltr"),
        ("ar-BH", "حدود الاستخدام", "rtl"),
        ("he-IL", "מכסות שימוש", "rtl"),
        ("xx-YY", "Usage limits", "ltr"),
    ],
)
def test_page_speaks_the_user_s_language(
    student: OpenWebUIClient,
    open_usage: OpenUsage,
    take_picture: TakePicture,
    locale: str,
    title: str,
    direction: str,
) -> None:
    """The page follows Open WebUI's language, right to left too, and English where it has none."""
    tab = open_usage(student, locale=locale, **PHONE)
    expect(tab.get_by_role("heading", level=1)).to_have_text(title)
    expect(tab.locator("html")).to_have_attribute("dir", direction)
    assert tab.evaluate("getComputedStyle(document.querySelector('main')).direction") == direction
    assert tab.evaluate(SIDEWAYS) == 0
    assert serious_faults(tab) == []
    if direction == "rtl":
        assert "tokens per day" not in tab.locator("main").inner_text()
        if locale == "ar-BH":
            take_picture(tab, "usage-page-arabic")


def test_system_theme_is_followed(student: OpenWebUIClient, open_usage: OpenUsage) -> None:
    """With Open WebUI's theme "system" the page is as dark as the system, and changes with it."""
    tab = open_usage(student, theme="system")
    colours = []
    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme)
        colours.append(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours == ["rgb(255, 255, 255)", "rgb(23, 23, 23)"]


@LOOKS
def test_every_view_of_the_administrator_s(
    student: OpenWebUIClient,
    admin: OpenWebUIAdmin,
    open_usage: OpenUsage,
    size: dict[str, int],
    theme: str,
) -> None:
    """All views open, fit the window, and axe finds nothing serious in them."""
    tab = open_usage(admin, theme=theme, **size)
    pages = [*VIEWS, f"user={student.id}", "pool=everyone"]
    for view in pages:
        tab.evaluate(f"location.hash = {view!r}")
        expect(tab.locator("main:not([aria-busy])")).to_be_focused()
        expect(tab.get_by_role("alert"), view).to_have_count(0)
        assert tab.evaluate(SIDEWAYS) == 0, view
        assert serious_faults(tab) == [], view


def test_users_are_sorted_and_found(
    student: OpenWebUIClient, admin: OpenWebUIAdmin, make_user: MakeUser, open_usage: OpenUsage
) -> None:
    """Near or over first; each column sorts both ways by its button; search narrows the rows."""
    make_user("Zoe Zero", groups=["Students"])
    make_user("Ada Able", groups=["Students"])
    tab = open_usage(admin, "#users", width=1280)
    rows = tab.locator("tbody tr")
    used = [read_percent(text) for text in rows.locator("td:nth-child(5)").all_inner_texts()]
    assert used == sorted(used, reverse=True)
    head = tab.get_by_role("columnheader", name="User")
    sort = head.get_by_role("button")
    for direction in ("ascending", "descending"):
        sort.focus()
        tab.keyboard.press("Enter")
        expect(head).to_have_attribute("aria-sort", direction)
        expect(sort).to_be_focused()
        names = [text.lower() for text in rows.locator("th").all_inner_texts()]
        assert names == sorted(names, reverse=direction == "descending") or len(names) == 25
    tab.get_by_label("Search users, groups, policies").fill("sam stu")
    expect(rows.first).to_contain_text("Sam Student")
    expect(tab.get_by_role("status").filter(has_text="found")).to_have_count(1)
    tab.get_by_label("Search").fill("nobody at all")
    expect(rows).to_have_count(0)


def read_percent(text: str) -> int:
    """A cell of the column "Used %"; users without a limit come last."""
    digits = re.sub(r"\D", "", text)
    return int(digits) if digits else -1


def test_grant_reset_and_revoke(
    student: OpenWebUIClient,
    admin: OpenWebUIAdmin,
    open_usage: OpenUsage,
    usage_limits: InstalledFilter,
) -> None:
    """An administrator adds to a limit with a reason, takes it back, and starts one anew."""
    tab = open_usage(admin, f"#user={student.id}", width=1280)
    card = tab.locator(".card", has_text="1,000 tokens per day").first
    tab.get_by_label("Limit").select_option(label="1,000 tokens per day")
    tab.get_by_label("Amount").fill("10k")
    tab.get_by_label("Reason").first.fill("Thesis week")
    tab.get_by_role("button", name="Grant", exact=True).click()
    expect(card).to_contain_text("10,150")
    granted = tab.get_by_role("table", name="Granted")
    expect(granted).to_contain_text("Thesis week")
    assert usage_limits.rows("usage_limits_grants")[-1]["reason"] == "Thesis week"

    own = open_usage(student)
    expect(own.get_by_role("table", name="Granted")).to_contain_text("+10,000")

    granted.get_by_label(re.compile("Why 10,000")).fill("Handed in")
    granted.get_by_role("button", name=re.compile("Revoke 10,000")).click()
    expect(card).not_to_contain_text("10,150")
    reasons = [row["reason"] for row in usage_limits.rows("usage_limits_grants")]
    assert reasons[-2:] == ["Thesis week", "Handed in"]
    expect(card).to_contain_text("150")

    tab.get_by_role("checkbox", name="1,000 tokens per day").check()
    tab.get_by_label("Reason").last.fill("A fault of ours")
    tab.get_by_role("button", name="Reset", exact=True).click()
    expect(card.get_by_role("meter")).to_have_attribute("aria-valuetext", re.compile("Left 1,000"))


def test_a_refused_grant_says_why(
    student: OpenWebUIClient, admin: OpenWebUIAdmin, open_usage: OpenUsage
) -> None:
    """What the server refuses is said next to the form, which keeps what was typed."""
    tab = open_usage(admin, f"#user={student.id}", width=1280)
    amount = tab.get_by_label("Amount")
    amount.fill("-5")
    tab.get_by_label("Reason").first.fill("x")
    with tab.expect_response("**/api/grants") as answer:
        tab.get_by_role("button", name="Grant", exact=True).click()
    assert answer.value.status == 400
    expect(tab.locator(".said.bad")).to_contain_text("amount")
    expect(amount).to_have_value("-5")


def test_newcomer_sets_a_group_s_limit(
    usage_limits: InstalledFilter,
    admin: OpenWebUIAdmin,
    make_user: MakeUser,
    open_usage: OpenUsage,
) -> None:
    """In the steps that the page suggests, by keyboard alone, in under a minute."""
    user = make_user("Nora New", groups=["Newcomers"])
    started = time.monotonic()
    tab = open_usage(admin, "#policies")
    tab.get_by_label("Name").focus()
    tab.keyboard.type("Newcomers")
    tab.keyboard.press("Tab")
    tab.keyboard.type("40 tokens/day")
    tab.keyboard.press("Enter")
    expect(tab.get_by_label("Policies")).to_have_value(
        '[group.Newcomers]\nlimits = ["40 tokens/day"]\n'
    )
    expect(tab.locator("#errors")).to_have_text("No errors. Save puts it in force.")
    meaning = tab.get_by_role("table", name="What each table means")
    row = meaning.get_by_role("row").filter(has_text="[group.Newcomers]")
    expect(row.get_by_role("cell").last).to_have_text("1")
    save = tab.get_by_role("button", name="Save", exact=True)
    expect(save).to_be_enabled()
    save.focus()
    tab.keyboard.press("Enter")
    expect(tab.locator("#saved")).to_have_text("Saved. It is in force from now on.")
    assert time.monotonic() - started < 60
    assert user.chat("[[in=20 tokens=30]] Hello").status == 200
    usage_limits.settled(user_id=user.id)
    assert user.chat("One more").status == 429


def test_errors_stand_at_their_lines(
    student: OpenWebUIClient,
    admin: OpenWebUIAdmin,
    open_usage: OpenUsage,
    take_picture: TakePicture,
) -> None:
    """A mistake is found while typing, at its line; nothing can be saved until it is mended."""
    tab = open_usage(admin, "#policies", height=1100)
    area = tab.get_by_label("Policies")
    area.fill('[group.Students]\npriority = 3\nlimits = ["50k tokens per day"]\n')
    errors = tab.locator("#errors")
    expect(errors).to_contain_text('"50k tokens per day" has "per"')
    expect(tab.locator(".editor li.bad")).to_have_text("3")
    expect(area).to_have_attribute("aria-invalid", "true")
    expect(tab.get_by_role("button", name="Save", exact=True)).to_be_disabled()
    assert serious_faults(tab) == []
    take_picture(tab, "usage-page-policies")
    errors.get_by_role("button", name="Line 3").click()
    expect(area).to_be_focused()
    chosen = "area => area.value.slice(area.selectionStart, area.selectionEnd)"
    assert area.evaluate(chosen) == 'limits = ["50k tokens per day"]'
    tab.keyboard.type('limits = "50k tokens/day"')
    expect(errors).to_contain_text("No errors")
    expect(tab.get_by_role("button", name="Save", exact=True)).to_be_enabled()


def test_simulation_and_versions(
    student: OpenWebUIClient, admin: OpenWebUIAdmin, open_usage: OpenUsage
) -> None:
    """A stricter text shows who would have been refused; the last text can be had back."""
    tab = open_usage(admin, "#policies", width=1280, height=1100)
    area = tab.get_by_label("Policies")
    before = area.input_value()
    area.fill('[group.Students]\nlimits = ["300 tokens/day"]\n')
    tab.get_by_label("Days").fill("3")
    tab.get_by_role("button", name="Simulate").click()
    refused = tab.get_by_role("table", name="Who would have been refused")
    expect(refused).to_contain_text(student.account.email)
    save = tab.get_by_role("button", name="Save", exact=True)
    expect(save).to_be_enabled()
    save.click()
    expect(tab.locator("#saved")).to_contain_text("Saved")
    tab.get_by_role("button", name="Load this version").click()
    expect(area).to_have_value(before)


def test_another_s_save_is_not_lost(
    student: OpenWebUIClient, admin: OpenWebUIAdmin, open_tab: OpenTab
) -> None:
    """Who saves a text from before another's save is told so, keeps it, and can do either."""
    tab = open_tab(admin, "/usage-limits#policies", **DESKTOP)
    ready(tab)
    area, said = tab.get_by_label("Policies"), tab.locator("#saved")
    save = tab.get_by_role("button", name="Save", exact=True)
    mine, other = (f'[role.user]\nlimits = ["{n} tokens/day"]\n' for n in (70, 80))
    area.fill(mine)
    expect(save).to_be_enabled()
    body = {"policies": other}
    assert admin.http.put("/usage-limits/api/policies", json=body).is_success
    # Who looks elsewhere meanwhile goes on with what was typed, which is from before all the same.
    tab.evaluate("location.hash = 'pools'")
    expect(tab.get_by_role("heading", level=1)).to_have_text("Pools")
    tab.evaluate("location.hash = 'policies'")
    expect(save).to_be_enabled()
    save.click()
    expect(said).to_contain_text(f"{admin.account.email} has saved other policies")
    expect(area).to_have_value(mine)
    assert admin.http.get("/usage-limits/api/policies").json()["policies"] == other
    assert serious_faults(tab) == []
    tab.get_by_role("button", name="Discard changes").click()
    expect(area).to_have_value(other)
    expect(tab.locator("#errors")).to_have_text("No errors. This is what is in force.")
    expect(said).to_be_empty()
    area.fill(mine)
    assert admin.http.put("/usage-limits/api/policies", json={"policies": f"{other}\n"}).is_success
    expect(save).to_be_enabled()
    save.click()
    expect(said).to_contain_text("Save again to replace that text")
    expect(save).to_be_enabled()
    save.click()
    expect(said).to_have_text("Saved. It is in force from now on.")
    assert admin.http.get("/usage-limits/api/policies").json()["policies"] == mine


@LOOKS
@pytest.mark.parametrize("view", ["", "#policies"])
def test_keyboard_reaches_everything(
    student: OpenWebUIClient,
    admin: OpenWebUIAdmin,
    open_usage: OpenUsage,
    size: dict[str, int],
    theme: str,
    view: str,
) -> None:
    """Tab goes through every control in turn, each visibly focused, and out again."""
    tab = open_usage(admin if view else student, view, theme=theme, **size)
    wanted = tab.locator(
        "a:visible, button:enabled:visible, input:visible, select:visible, "
        "textarea:visible, summary:visible"
    ).count()
    tab.evaluate("document.activeElement.blur()")
    seen = []
    for _ in range(wanted + 3):
        tab.keyboard.press("Tab")
        name, outlined = tab.evaluate(
            """() => {
                const on = document.activeElement, own = getComputedStyle(on);
                const around = getComputedStyle(on.closest(".editor") || on);
                const all = [...document.querySelectorAll("*")];
                return [on === document.body ? "" : String(all.indexOf(on)),
                    [own, around].some((style) => parseFloat(style.outlineWidth) >= 2 &&
                        style.outlineStyle !== "none")];
            }"""
        )
        if not name or name in seen:
            break
        assert outlined, name
        seen.append(name)
    assert len(seen) == wanted


def test_names_stay_text(
    usage_limits: InstalledFilter, admin: OpenWebUIAdmin, make_user: MakeUser, open_usage: OpenUsage
) -> None:
    """Whatever a user or a group is called is shown word by word, and runs nothing."""
    user = make_user(HOSTILE, groups=[HOSTILE])
    # More than all others, so that its group is among the first.
    user.chat("[[in=90000 tokens=30]] Hello")
    usage_limits.settled(user_id=user.id)
    tab = open_usage(admin, "#users")
    tab.get_by_label("Search").fill("onerror")
    expect(tab.locator("tbody tr").first).to_contain_text(HOSTILE)
    for view in ("#groups", f"#user={user.id}"):
        tab.goto(f"{admin.url}/usage-limits{view}")
        ready(tab)
        expect(tab.locator("main")).to_contain_text("onerror")
    assert tab.locator("main img").count() == 0
    assert tab.title() != "1"


def test_other_views_are_not_for_users(student: OpenWebUIClient, open_usage: OpenUsage) -> None:
    """An ordinary user who types an administrator's address gets the own page."""
    for view in ("#users", f"#user={student.id}", "#policies", "#=%", "#user=%E0%A4%A"):
        tab = open_usage(student, view)
        expect(tab.get_by_role("heading", level=1)).to_have_text("Usage limits")
        expect(tab.get_by_role("navigation")).to_be_hidden()


LONG_NAME = "Institut für Angewandte Donaudampfschifffahrtsgesellschaftskunde und Verwaltungsrecht"
LONG_POLICIES = f"""\
[group."{LONG_NAME}"]
limits = ["1M tokens/month", "1,000 tokens/day warn 30%", "0 requests/day on gpt-4*"]
"""
LONG_POOL = f"""\
[pool."{LONG_NAME}"]
group = "{LONG_NAME}"
limits = ["10 tokens/day"]
"""


@pytest.fixture
def researcher(usage_limits: InstalledFilter, make_user: MakeUser) -> OpenWebUIClient:
    """A user with long names all around, who has used 400 tokens: 40 times the pool's limit."""
    usage_limits.configure(policies=LONG_POLICIES)
    made = make_user("Maximiliane-Friederike " + "W" * 80, groups=[LONG_NAME])
    made.chat("[[in=100 tokens=300]] Hello")
    usage_limits.settled(user_id=made.id)
    usage_limits.configure(policies=LONG_POLICIES + LONG_POOL)
    return made


def test_what_is_reached_comes_first(
    researcher: OpenWebUIClient, admin: OpenWebUIAdmin, open_usage: OpenUsage
) -> None:
    """Reached limits, then near ones by their own warning; what is left and the reset lead."""
    tab = open_usage(researcher, **PHONE)
    cards = tab.locator(".card")
    kinds = [(card.get_attribute("class") or "").split()[-1] for card in cards.all()]
    assert kinds == ["over", "over", "near", "card"]
    near = tab.locator(".card.near")
    expect(near).to_contain_text("1,000 tokens per day")
    assert near.locator("dt").all_inner_texts() == ["Left", "Resets", "Used"]
    expect(near.locator("dd").first).to_have_text("600")

    # A pool is nobody's own, as the server has it: the user's row shows the user's own limit.
    tab = open_usage(admin, **DESKTOP)
    row = tab.locator("tr.over", has_text="Maximiliane")
    expect(row).to_contain_text("0 requests per day")
    expect(row.locator("td").nth(3)).to_have_text("100%")
    pools = tab.get_by_role("table", name="Pools and their limits")
    expect(pools.locator("tr.over")).to_contain_text("4,000%")


@pytest.mark.parametrize("width", [390, 768, 1024, 1030, 1280])
def test_long_names_are_not_cut(
    researcher: OpenWebUIClient, admin: OpenWebUIAdmin, open_usage: OpenUsage, width: int
) -> None:
    """Whatever users, groups and pools are called, nothing sticks out at any width."""
    tab = open_usage(admin, width=width)
    for view in (*VIEWS, f"user={researcher.id}", f"pool={quote(LONG_NAME)}"):
        tab.evaluate(f"location.hash = {view!r}")
        expect(tab.locator("main:not([aria-busy])")).to_be_focused()
        expect(tab.get_by_role("alert"), view).to_have_count(0)
        assert tab.evaluate(SIDEWAYS) == 0, view
        sticks_out = tab.evaluate(
            """() => [...document.querySelectorAll(".card *, td *, th *")].filter((one) =>
                one.getBoundingClientRect().right >
                one.closest(".card, td, th").getBoundingClientRect().right + 1).length"""
        )
        assert sticks_out == 0, view


def test_chart_by_day(
    usage_limits: InstalledFilter, make_user: MakeUser, open_usage: OpenUsage
) -> None:
    """A bar for each day, and what its top stands for, in German too, which doesn't shorten it."""
    usage_limits.configure(daily_token_limit=1_000_000)
    user = make_user()
    user.chat("[[in=70000 tokens=1298]] Hello")
    usage_limits.settled(user_id=user.id)
    tab = open_usage(user, locale="de-DE", **PHONE)
    expect(tab.locator("figure p").first).to_have_text("71.298 Token")
    bar = tab.locator(".days div")
    expect(bar).to_have_count(1)
    assert bar.evaluate("one => [...one.querySelectorAll('i')].map((i) => i.style.height)") == [
        "1.82053%",
        "98.1795%",
    ]
    assert tab.evaluate(SIDEWAYS) == 0


def test_page_on_paper(student: OpenWebUIClient, open_usage: OpenUsage) -> None:
    """Black on white, even in the dark theme, and without what can't be clicked there."""
    tab = open_usage(student, theme="dark", **DESKTOP)
    tab.emulate_media(media="print")
    expect(tab.get_by_role("heading", level=1)).to_be_visible()
    expect(tab.get_by_role("button", name="Refresh")).to_be_hidden()
    expect(tab.get_by_role("link", name="Back to the chat")).to_be_hidden()
    colour = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colour == "rgb(255, 255, 255)"


def test_what_is_not_there_and_a_lost_connection(
    student: OpenWebUIClient, admin: OpenWebUIAdmin, open_tab: OpenTab
) -> None:
    """Unknown users and pools are named; what didn't load can be asked for again."""
    tab = open_tab(admin, "/usage-limits#pool=nobody")
    alert = tab.get_by_role("alert")
    expect(alert).to_have_text('There is no pool "nobody".')
    tab.evaluate("location.hash = 'user=nobody'")
    expect(alert).to_have_text('There is no user "nobody".')
    tab.route("**/usage-limits/api/**", lambda route: route.abort())
    tab.evaluate("location.hash = 'users'")
    expect(alert).to_contain_text("Please try again later.")
    tab.unroute("**/usage-limits/api/**")
    tab.get_by_role("button", name="Refresh").click()
    expect(tab.get_by_role("heading", level=1)).to_have_text("Users")


def test_an_added_limit_is_in_sight(
    student: OpenWebUIClient, admin: OpenWebUIAdmin, open_usage: OpenUsage
) -> None:
    """In a long text the editor scrolls to the table that a limit was added to."""
    tab = open_usage(admin, "#policies", **DESKTOP)
    area = tab.get_by_label("Policies")
    groups = [f"[group.G{number}]\nlimits = ['{number} tokens/day']\n" for number in range(1, 101)]
    area.fill("\n".join(groups))
    tab.get_by_label("Name").fill("G50")
    tab.get_by_label("Limit", exact=True).fill("1 request/day")
    tab.keyboard.press("Enter")
    lines = area.input_value().split("\n")
    assert lines[lines.index("[group.G50]") + 1] == "limits = [\"1 request/day\", '50 tokens/day']"
    top = area.evaluate("area => area.scrollTop / 21")
    assert 0 < lines.index("[group.G50]") - top < 15


def test_a_check_that_failed_is_made_again(
    student: OpenWebUIClient, admin: OpenWebUIAdmin, open_tab: OpenTab
) -> None:
    """A server that is busy for a moment leaves no correct text that can't be saved."""
    tab = open_tab(admin, "/api/version")
    busy = {"detail": "Too many wait for reports."}
    check = "**/api/policies/check"
    tab.route(check, lambda route: route.fulfill(status=503, json=busy), times=2)
    tab.goto(f"{admin.url}/usage-limits#policies")
    errors = tab.locator("#errors")
    expect(errors).to_contain_text("The server: Too many wait for reports.")
    expect(errors).to_contain_text("No errors. This is what is in force.")
