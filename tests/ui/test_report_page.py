"""The static report in a real browser: on a phone, on a desktop, in the dark and on paper."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, ViewportSize, expect

from scripts.report.command import main
from tests.commands.test_report import LedgerDatabase, noon, sqlite_database  # noqa: F401
from tests.ui.conftest import serious_faults

LONG_MODEL = "models/a-provider/some-model-with-a-very-long-name-2026-03-10:instruct-q4_K_M"
POLICIES = '[group.Students]\nlimits = ["100 tokens/day"]\n[pool.all]\nlimits = ["300 tokens/day"]'


@pytest.fixture
def report(sqlite_database: LedgerDatabase, tmp_path: Path) -> Path:  # noqa: F811
    """A report of three users, near and over their limits, of models that have no price."""
    sqlite_database.make_host(policies=POLICIES)
    sqlite_database.add_group("g1", "Students")
    for name, used in (("ann", 120), ("bob", 85), ("eve", 20)):
        sqlite_database.add_user(name, "g1")
        sqlite_database.record(
            user_id=name, input_tokens=used, output_tokens=0, model_id=LONG_MODEL, cost_micros=0
        )
    file = tmp_path / "report.html"
    options = ["--database-url", sqlite_database.url, "--format", "html", "--output", str(file)]
    assert main([*options, "--by", "user,model,source,group"]) == 0
    return file


@pytest.mark.usefixtures("noon")
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_report_fits_and_follows_the_theme(
    report: Path, browser: Browser, width: int, theme: str
) -> None:
    """Nothing is cut, the limits' every column is there, no price is no $0.00, dark is dark."""
    size = ViewportSize(width=width, height=900)
    scheme = "dark" if theme == "dark" else "light"
    page = browser.new_page(viewport=size, color_scheme=scheme)
    try:
        page.goto(report.as_uri())
        wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.evaluate(wider) == 0
        for cell in page.locator("#limits tbody tr").first.locator("td").all():
            expect(cell).to_be_visible()
            box = cell.bounding_box()
            assert box
            assert box["x"] + box["width"] <= width
        assert "$0.00" not in page.locator("body").inner_text()
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(255, 255, 255)") == (theme == "light")
        assert serious_faults(page) == []
        page.emulate_media(media="print", color_scheme="dark")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
            "rgb(255, 255, 255)"
        )
    finally:
        page.close()
