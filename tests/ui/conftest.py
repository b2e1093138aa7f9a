"""A real browser for the tests of what people see: Debian's Chromium, driven by Playwright.

With PICTURES=docs/images in the environment, the documentation's pictures are taken on the way.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import axe_playwright_python
import pytest
from PIL import Image
from playwright.sync_api import (
    Browser,
    BrowserContext,
    FloatRect,
    Locator,
    Page,
    ViewportSize,
    expect,
    sync_playwright,
)

from scripts.openwebui.client import OpenWebUIClient

CHROMIUM_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
TIMEOUT_MILLISECONDS = 20_000
LARGEST_PICTURE = 150_000
HERE = Path(__file__).parent

AXE = next(Path(axe_playwright_python.__file__).parent.rglob("axe.min.js"))

OpenTab = Callable[..., Page]
TakePicture = Callable[..., None]


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", "ui: needs Chromium and Playwright (set for tests/ui)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests in this directory."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("ui")


# For this directory alone: Playwright's loop stays in the thread, where asyncio's tests run too.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Chromium without a screen."""
    executable = os.environ.get("CHROMIUM") or shutil.which("chromium")
    expect.set_options(timeout=TIMEOUT_MILLISECONDS)
    if not executable:  # in CI a skipped test is a failed one
        pytest.skip("no Chromium: apt-get install chromium, or CHROMIUM=PATH")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=executable, args=list(CHROMIUM_ARGUMENTS)
        )
        yield chromium
        chromium.close()


@pytest.fixture
def open_tab(browser: Browser) -> Iterator[OpenTab]:
    """Opens a page of Open WebUI's as somebody: `open_tab(admin, "/admin/functions")`."""
    opened: list[BrowserContext] = []

    def open_one(
        client: OpenWebUIClient,
        path: str,
        *,
        width: int = 900,
        height: int = 600,
        theme: str = "light",
        locale: str = "en-US",
    ) -> Page:
        keep_page_quiet(client)
        context = browser.new_context(
            viewport=ViewportSize(width=width, height=height),
            device_scale_factor=2 if os.environ.get("PICTURES") else 1,
            color_scheme="light",
            locale="en-US",
        )
        opened.append(context)
        context.set_default_timeout(TIMEOUT_MILLISECONDS)
        context.add_init_script(
            f"localStorage.token = {client.account.token!r}; localStorage.theme = {theme!r}; "
            f"localStorage.locale = {locale!r}"
        )
        # As the sign-in page leaves it: by it the server knows who opens a page.
        cookie = {"name": "token", "value": client.account.token, "url": client.url}
        context.add_cookies([cookie])
        tab = context.new_page()
        tab.goto(client.url + path)
        return tab

    yield open_one
    for context in opened:
        context.close()


def keep_page_quiet(client: OpenWebUIClient) -> None:
    """No release notes, which would cover the page, and none of the model's own follow-ups."""
    version = client.get("/api/version")["version"]
    quiet = {
        "version": version,
        "title": {"auto": False},
        "autoTags": False,
        "autoFollowUps": False,
    }
    client.post("/api/v1/users/user/settings/update", {"ui": quiet})


@pytest.fixture
def take_picture() -> TakePicture:
    """Takes a picture for the documentation if that is wished for; else does nothing."""
    folder = os.environ.get("PICTURES")

    def take(tab: Page, name: str, *, only: Locator | None = None) -> None:
        if not folder:
            return
        tab.wait_for_timeout(700)  # what moves comes to rest
        path = Path(folder) / f"{name}.png"
        tab.screenshot(path=path, clip=only and visible_part(tab, only))
        with Image.open(path) as picture:
            # A third of the size, and nobody sees it: a page has few colours.
            reduced = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        reduced.save(path, optimize=True)
        assert path.stat().st_size <= LARGEST_PICTURE, path

    return take


def visible_part(tab: Page, element: Locator) -> FloatRect:
    """Where an element is in the window, without what of it would have to be scrolled to."""
    box, window = element.bounding_box(), tab.viewport_size
    assert box
    assert window
    left, top = max(box["x"], 0), max(box["y"], 0)
    width = min(box["x"] + box["width"], window["width"]) - left
    height = min(box["y"] + box["height"], window["height"]) - top
    return FloatRect(x=left, y=top, width=width, height=height)


def serious_faults(tab: Page) -> list[str]:
    """What axe finds that keeps somebody from using a page: its serious and critical findings."""
    if not tab.evaluate("typeof axe === 'object'"):
        tab.evaluate(AXE.read_text(encoding="utf-8"))
    found = tab.evaluate("axe.run({resultTypes: ['violations']})")["violations"]
    return [
        f"{one['id']}: {one['nodes'][0]['html'][:200]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
