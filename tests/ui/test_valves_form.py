"""The valves form as an administrator sees it, in a real browser."""

from __future__ import annotations

import re
from typing import Any
from zoneinfo import available_timezones

import pytest
from playwright.sync_api import Locator, Page, expect

from helpers.openwebui.valves import AdminValves
from scripts.demo.scene import FUNCTION_FILE, MANIFEST
from scripts.openwebui.admin import OpenWebUIAdmin
from tests.conftest import InstalledFilter
from tests.ui.conftest import OpenTab, TakePicture

TITLE = MANIFEST["title"]
GOOD = """\
[group.Students]
limits = ["50k tokens/day", "30 requests/hour"]

[role.user]
limits = "unlimited\""""
BAD = '[group.Students]\nlimits = ["50k tokens per day"]'
SAVED = "Valves updated successfully"
REFUSED = 'has "per"; allowed: "/" instead'


class ValvesForm:
    """The form behind the gear in the list of functions."""

    def __init__(self, tab: Page) -> None:
        self.tab = tab
        self.form = tab.get_by_role("dialog").locator("form")
        self.dialog = self.form.locator("xpath=ancestor::*[@role='dialog']/*[1]")

    def open(self) -> ValvesForm:
        """Click the gear."""
        self.tab.get_by_label("Valves").click()
        expect(self.form.get_by_text("Database Url", exact=True)).to_be_visible()
        return self

    def reopen(self) -> ValvesForm:
        """Load the page anew and open the form: what stands there now is what was saved."""
        self.tab.reload()
        return self.open()

    def valve(self, name: str) -> Locator:
        """The part of the form that belongs to one valve: title, input and description."""
        title = self.tab.get_by_text(title_of(name), exact=True)
        return self.form.locator("> div > div").filter(has=title)

    def description(self, name: str) -> str:
        """What stands under a valve."""
        return self.valve(name).locator("> div").last.inner_text()

    def input(self, name: str) -> Locator:
        """A valve's input, with its value no longer left at the default."""
        default = self.valve(name).get_by_role("button", name="Default", exact=True)
        if default.is_visible():
            default.click()
        return self.valve(name).locator("input, textarea, select")

    def save(self, toast: str) -> None:
        """Click Save, and see what Open WebUI says."""
        self.form.get_by_role("button", name="Save").click()
        expect(self.tab.locator("[data-sonner-toast]").first).to_contain_text(toast)


def title_of(name: str) -> str:
    """How Open WebUI writes a valve's name."""
    return " ".join(word.capitalize() for word in name.split("_"))


@pytest.fixture
def form(usage_limits: InstalledFilter, admin: OpenWebUIAdmin, open_tab: OpenTab) -> ValvesForm:
    """The form, open, all valves at their defaults."""
    return ValvesForm(open_tab(admin, "/admin/functions", width=760, height=900)).open()


def test_every_valve_shows_with_its_description(form: ValvesForm) -> None:
    """All valves are in the form, in their order, and each says what it is for."""
    titles = form.form.locator("> div > div > div:first-child > div:first-child").all_inner_texts()
    assert titles == [title_of(name) for name in AdminValves.model_fields]
    for name, field in AdminValves.model_fields.items():
        described, plain = form.description(name), re.sub(r"[`\s]+", "", field.description or "")
        assert len(described) > 10, name
        # Open WebUI renders it as Markdown: apart from that, it is the text word by word.
        assert re.sub(r"\s+", "", described).startswith(plain[:40]), name


def test_inputs_suit_what_they_take(form: ValvesForm) -> None:
    """Texts of several lines, choices, switches and secrets have an input that suits them."""
    kinds: dict[str, Any] = {
        "policies": "textarea",
        "limit_message": "textarea",
        "multiple_groups": "select",
        "week_starts_on": "select",
        "on_ledger_error": "select",
        "timezone": "select",
        "daily_token_limit": "input",
    }
    for name, tag in kinds.items():
        assert form.input(name).evaluate("element => element.localName") == tag, name
    for name in ("exempt_admins", "shadow_mode"):
        form.valve(name).get_by_role("button", name="Default", exact=True).click()
        expect(form.valve(name).get_by_role("switch")).to_be_visible()
    for name in ("database_url", "alert_webhook_url"):
        secret = form.input(name)
        assert secret.evaluate("element => getComputedStyle(element).webkitTextSecurity") == "disc"


def test_time_zone_is_chosen_from_a_list(
    form: ValvesForm, usage_limits: InstalledFilter, admin: OpenWebUIAdmin
) -> None:
    """Every zone is in the list, UTC first; a choice is saved and stands there again."""
    zone = form.input("timezone")
    options = zone.locator("option:not([disabled])").all_inner_texts()
    assert (options[0], len(options) > 400) == ("UTC", True)
    assert set(options) <= available_timezones()
    assert zone.input_value() == "UTC"
    zone.select_option("Europe/Berlin")
    form.save(SAVED)
    assert admin.valves(usage_limits.id) == {"timezone": "Europe/Berlin"}
    assert form.reopen().input("timezone").input_value() == "Europe/Berlin"


def test_bad_policies_are_refused_and_the_form_says_why(
    form: ValvesForm,
    usage_limits: InstalledFilter,
    admin: OpenWebUIAdmin,
    take_picture: TakePicture,
) -> None:
    """A toast says why they are refused; so does the form that is opened next, until mended."""
    form.input("daily_token_limit").fill("1000")
    form.input("policies").fill(BAD)
    form.save(REFUSED)
    assert admin.valves(usage_limits.id) == {}
    reason = form.reopen().description("policies")
    assert re.match(r"NOT SAVED at \d\d:\d\d UTC: \[group\.Students\] limits: ", reason)
    assert "50k tokens per day" in reason
    take_picture(form.tab, "valves-refused", only=form.valve("policies"))
    form.input("policies").fill(GOOD)
    form.save(SAVED)
    assert not form.reopen().description("policies").startswith("NOT SAVED")


def test_good_policies_are_kept(
    form: ValvesForm,
    usage_limits: InstalledFilter,
    admin: OpenWebUIAdmin,
    take_picture: TakePicture,
) -> None:
    """What was saved stands in the form again, line by line, and other valves are left alone."""
    form.input("policies").fill(GOOD)
    form.input("daily_token_limit").fill("1000")
    form.save(SAVED)
    assert admin.valves(usage_limits.id) == {"daily_token_limit": 1000, "policies": GOOD}
    form.reopen()
    assert form.input("policies").input_value() == GOOD
    take_picture(form.tab, "valves-form", only=form.dialog)
    form.save(SAVED)
    assert admin.valves(usage_limits.id) == {"daily_token_limit": 1000, "policies": GOOD}


def test_list_of_functions_has_both_switches(
    usage_limits: InstalledFilter,
    admin: OpenWebUIAdmin,
    open_tab: OpenTab,
    take_picture: TakePicture,
) -> None:
    """The filter is in the list with its title and version, switched on, and global in its menu."""
    admin.install_function(usage_limits.id, FUNCTION_FILE.read_text("utf-8"), name=TITLE)
    tab = open_tab(admin, "/admin/functions", height=350)
    row = tab.get_by_text(TITLE)
    expect(row.first).to_be_visible()
    expect(tab.get_by_role("switch").first).to_have_attribute("aria-checked", "true")
    tab.get_by_label("Function Menu").click()
    expect(tab.get_by_text("Global")).to_be_visible()
    expect(tab.get_by_role("switch").last).to_have_attribute("aria-checked", "true")
    take_picture(tab, "functions-page")


PASTE = """text => {
    const clipboard = new DataTransfer();
    clipboard.setData("text/plain", text);
    const paste = { clipboardData: clipboard, bubbles: true, cancelable: true };
    document.querySelector(".cm-content").dispatchEvent(new ClipboardEvent("paste", paste));
}"""


def test_file_is_pasted_into_the_editor(
    admin: OpenWebUIAdmin, open_tab: OpenTab, take_picture: TakePicture
) -> None:
    """The whole file can be pasted into the editor, saved under a name, and is a filter then."""
    tab = open_tab(admin, "/admin/functions/create", height=480)
    tab.get_by_placeholder("Function Name").fill(TITLE)
    tab.get_by_placeholder("Function ID").fill("pasted_by_hand")
    tab.get_by_placeholder("Function Description").fill("Limits on tokens, requests and money.")
    tab.locator(".cm-content").click()
    tab.keyboard.press("Control+A")
    # Not key by key, which the editor would take minutes for.
    tab.evaluate(PASTE, FUNCTION_FILE.read_text("utf-8"))
    tab.keyboard.press("Control+Home")
    take_picture(tab, "editor")
    tab.get_by_role("button", name="Save").click()
    tab.get_by_role("button", name="Confirm").click()
    tab.wait_for_url("**/admin/functions")
    pasted = admin.functions()["pasted_by_hand"]
    assert (pasted["type"], pasted["meta"]["manifest"]["title"]) == ("filter", "Usage Limits")
    admin.delete_function("pasted_by_hand")
