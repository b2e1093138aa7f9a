"""The editor of functions, into which administrators paste the file, in a real browser."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from scripts.demo.scene import FUNCTION_FILE, MANIFEST
from scripts.openwebui.admin import OpenWebUIAdmin
from tests.ui.conftest import OpenTab

FUNCTION_ID = "pasted_by_hand"
PASTE = """(editor, text) => {
  const clipboardData = new DataTransfer();
  clipboardData.setData("text/plain", text);
  editor.dispatchEvent(new ClipboardEvent("paste", {clipboardData, bubbles: true}));
}"""
# Open WebUI runs black over what is saved.
SAVE_MILLISECONDS = 60_000


def test_saved_as_it_was_pasted(admin: OpenWebUIAdmin, open_tab: OpenTab) -> None:
    """What Open WebUI stores is the pasted file, to the letter, with what its frontmatter says."""
    source = FUNCTION_FILE.read_text(encoding="utf-8")
    assert "\n# fmt: off\n" in source[:1_000]  # or black would write it anew, for seconds
    tab = open_tab(admin, "/admin/functions/create", width=1200, height=800)
    editor = tab.locator(".cm-content")
    editor.click()
    editor.press("ControlOrMeta+a")
    editor.evaluate(PASTE, source)
    expect(tab.get_by_placeholder("Function Name")).to_have_value(MANIFEST["title"])
    tab.get_by_placeholder("Function ID").fill(FUNCTION_ID)
    tab.get_by_role("button", name=re.compile("^Save")).click()
    tab.get_by_role("button", name="Confirm").click()
    try:
        tab.wait_for_url(re.compile("/admin/functions$"), timeout=SAVE_MILLISECONDS)
        stored = admin.get(f"/api/v1/functions/id/{FUNCTION_ID}")
        assert stored["content"] == source
        assert stored["meta"]["description"] == MANIFEST["description"]
        assert not stored["is_active"]
    finally:
        if FUNCTION_ID in admin.functions():
            admin.delete_function(FUNCTION_ID)
