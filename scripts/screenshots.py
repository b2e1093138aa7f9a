"""Takes the README's pictures, in a real browser, from a demo that is running.

python -m scripts.demo --port 8080                                   in one terminal
python -m scripts.screenshots --url http://127.0.0.1:8080            in another

It needs Chromium (Debian: ``apt install chromium``) and ``pip install playwright``.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from scripts.demo_scene import (
    FIRST,
    FOURTH,
    FUNCTION_FILE,
    FUNCTION_ID,
    MANIFEST,
    SECOND,
    SMALL,
    THIRD,
)
from scripts.open_webui_admin import OpenWebUIAdmin
from scripts.open_webui_client import OpenWebUIClient
from scripts.page_client import Page

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
LARGEST_FILE = 150_000
NEWCOMER = ("Nora Newcomer", "nora@example.org")
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@dataclass(frozen=True, slots=True)
class Size:
    """A window, in CSS pixels; pictures have twice as many."""

    width: int
    height: int


PASTE = """text => {
    const clipboard = new DataTransfer();
    clipboard.setData("text/plain", text);
    const paste = { clipboardData: clipboard, bubbles: true, cancelable: true };
    document.querySelector(".cm-content").dispatchEvent(new ClipboardEvent("paste", paste));
}"""
CHAT = Size(900, 500)
FORM = Size(900, 780)
EDITOR = Size(900, 480)
LIST = Size(900, 350)


@contextmanager
def open_browser(executable: str) -> Iterator[Any]:
    """A Chromium that shows nothing and calls nobody."""
    # By name, since playwright is no requirement of the tests.
    with import_module("playwright.sync_api").sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_tab(browser: Any, client: OpenWebUIClient, size: Size) -> Iterator[Any]:
    """A tab in which somebody is signed in already."""
    context = browser.new_context(
        viewport={"width": size.width, "height": size.height},
        device_scale_factor=2,
        color_scheme="light",
        locale="en-US",
    )
    token = client.account.token
    context.add_init_script(f"localStorage.token = {token!r}; localStorage.theme = 'light'")
    try:
        yield context.new_page()
    finally:
        context.close()


def save(tab: Any, name: str) -> None:
    """Write one picture."""
    path = IMAGES / f"{name}.png"
    tab.screenshot(path=path)
    reduce_colours(path)
    size = path.stat().st_size
    print(f"{path.name}: {size:,} bytes{' – too large' if size > LARGEST_FILE else ''}")


def reduce_colours(path: Path) -> None:
    """A third of the size, and nobody sees it: a page has few colours."""
    image = import_module("PIL.Image")
    with image.open(path) as picture:
        reduced = picture.convert("RGB").quantize(256, dither=image.Dither.NONE)
    reduced.save(path, optimize=True)


def hide_news(client: OpenWebUIClient) -> None:
    """Mark Open WebUI's release notes as read; they would cover the page."""
    version = client.get("/api/version")["version"]
    client.post("/api/v1/users/user/settings/update", {"ui": {"version": version}})


def add_newcomer(admin: OpenWebUIAdmin) -> OpenWebUIClient:
    """A student who has used nothing yet."""
    name, email = NEWCOMER
    for user in admin.get("/api/v1/users/")["users"]:
        if user["email"] == email:
            admin.delete_user(user["id"])
    newcomer = admin.add_user(name, email)
    admin.add_to_group(admin.groups()["Students"], [newcomer.id])
    hide_news(newcomer)
    return newcomer


def picture_chat(browser: Any, admin: OpenWebUIAdmin) -> None:
    """The warning with its status line, and the refusal."""
    newcomer = add_newcomer(admin)
    with Page(newcomer) as page:
        first = page.send(FIRST.question, models=(SMALL,))
        page.send(SECOND.question, models=(SMALL,), after=first)
    newcomer.post(f"/api/v1/chats/{first.chat_id}", {"chat": {"title": "Plants"}})
    with open_tab(browser, newcomer, CHAT) as tab:
        tab.goto(f"{admin.url}/c/{first.chat_id}")
        tab.get_by_text(SECOND.question).wait_for()
        write(tab, THIRD.question)
        tab.locator("[data-sonner-toast]").wait_for()
        tab.get_by_text(THIRD.answer[:60]).wait_for()
        save(tab, "warning")
        tab.get_by_text("reset at").last.wait_for()
        tab.locator("[data-sonner-toast]").wait_for(state="detached")
        write(tab, FOURTH.question)
        tab.locator("[data-sonner-toast]").wait_for()
        tab.wait_for_timeout(1_000)
        save(tab, "refusal")
    newcomer.close()


def write(tab: Any, text: str) -> None:
    """Send a message."""
    tab.locator("#chat-input").click()
    tab.keyboard.type(text)
    tab.keyboard.press("Enter")


def picture_editor(browser: Any, admin: OpenWebUIAdmin) -> None:
    """The function editor with the pasted file, not saved."""
    with open_tab(browser, admin, EDITOR) as tab:
        tab.goto(f"{admin.url}/admin/functions/create")
        tab.get_by_placeholder("Function Name").fill(MANIFEST["title"])
        tab.get_by_placeholder("Function Description").fill(MANIFEST["description"])
        tab.locator(".cm-content").click()
        tab.keyboard.press("Control+A")
        # Not key by key, which the editor would take minutes for.
        tab.evaluate(PASTE, FUNCTION_FILE.read_text(encoding="utf-8"))
        tab.keyboard.press("Control+Home")
        tab.wait_for_timeout(2_000)
        save(tab, "editor")


def picture_switches(browser: Any, admin: OpenWebUIAdmin) -> None:
    """The list of functions with both switches on."""
    with open_tab(browser, admin, LIST) as tab:
        tab.goto(f"{admin.url}/admin/functions")
        tab.get_by_label("Function Menu").click()
        tab.get_by_text("Global").wait_for()
        tab.wait_for_timeout(1_000)
        save(tab, "switches")


def picture_valves(browser: Any, admin: OpenWebUIAdmin) -> None:
    """The upper part of the valves form."""
    with open_tab(browser, admin, FORM) as tab:
        tab.goto(f"{admin.url}/admin/functions")
        tab.get_by_label("Valves").click()
        tab.get_by_text("Daily Token Limit").wait_for()
        tab.wait_for_timeout(1_000)
        save(tab, "valves")


PICTURES: dict[str, Callable[[Any, OpenWebUIAdmin], None]] = {
    "chat": picture_chat,
    "editor": picture_editor,
    "switches": picture_switches,
    "valves": picture_valves,
}


def main() -> int:
    """Run the command; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", required=True, help="where the demo's Open WebUI is")
    parser.add_argument("--chromium", default=shutil.which("chromium"), metavar="PATH")
    parser.add_argument("pictures", nargs="*", choices=[*PICTURES, []], metavar="PICTURE")
    options = parser.parse_args()
    if options.chromium is None:
        parser.error("no chromium found; name it with --chromium PATH")
    IMAGES.mkdir(parents=True, exist_ok=True)
    admin = OpenWebUIAdmin.sign_up(options.url.rstrip("/"))
    if FUNCTION_ID not in admin.functions():
        parser.error(f"{options.url} is no demo: {FUNCTION_ID} isn't installed there")
    hide_news(admin)
    with open_browser(options.chromium) as browser:
        for name in options.pictures or PICTURES:
            PICTURES[name](browser, admin)
    admin.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
