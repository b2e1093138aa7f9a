"""What changes while a reply is being written: it is on record once, as its provider counted it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from scripts.openwebui.admin import OpenWebUIAdmin
from scripts.openwebui.client import OpenWebUIClient
from scripts.provider.server import FakeProvider
from tests.conftest import InstalledFilter, MakeUser, OpenPage, wait_until

LIMITS = '[group."{group}"]\nlimits = ["100 tokens/day"]\n[pool.lab]\ngroup = "{group}"\n'


@dataclass(frozen=True, slots=True)
class Running:
    """A reply that is being written."""

    admin: OpenWebUIAdmin
    usage_limits: InstalledFilter
    user: OpenWebUIClient
    group: str
    model: str
    folder: Path

    @property
    def policies(self) -> str:
        return LIMITS.format(group=self.group) + 'limits = ["1k tokens/day"]'

    def set_role(self, role: str) -> None:
        account = self.user.account
        form = {"role": role, "name": account.name, "email": account.email}
        form["profile_image_url"] = "/user.png"
        self.admin.post(f"/api/v1/users/{account.id}/update", form)


def deleted_user(now: Running) -> None:
    now.admin.delete_user(now.user.id)


def role_pending(now: Running) -> None:
    now.set_role("pending")


def role_admin(now: Running) -> None:
    now.set_role("admin")


def left_group(now: Running) -> None:
    now.admin.remove_from_group(now.admin.groups()[now.group], [now.user.id])


def deleted_group(now: Running) -> None:
    now.admin.call("DELETE", f"/api/v1/groups/id/{now.admin.groups()[now.group]}/delete")


def deleted_model(now: Running) -> None:
    now.admin.delete_model(now.model)


def exempt_now(now: Running) -> None:
    now.usage_limits.configure(policies='[role.user]\nlimits = "unlimited"')


def closed_now(now: Running) -> None:
    now.usage_limits.configure(policies='[role.user]\nlimits = ["0 tokens/day"]')


def free_now(now: Running) -> None:
    now.usage_limits.configure(policies=f'{now.policies}\n[model."*"]\nweight = 0')


def ledger_elsewhere(now: Running) -> None:
    url = f"sqlite:///{now.folder / 'elsewhere.db'}"
    now.usage_limits.configure(policies=now.policies, database_url=url)


def switched_off(now: Running) -> None:
    now.usage_limits.switch(active=False, everywhere=False)


CHANGES = (
    *(deleted_user, role_pending, role_admin, left_group, deleted_group, deleted_model),
    *(exempt_now, closed_now, free_now, ledger_elsewhere, switched_off),
)


@pytest.mark.parametrize(
    ("change", "on_page"),
    [
        *((change, False) for change in CHANGES),
        *((change, True) for change in (deleted_user, deleted_model, switched_off)),
    ],
)
def test_changed_while_a_reply_is_written(
    usage_limits: InstalledFilter,
    admin: OpenWebUIAdmin,
    make_user: MakeUser,
    provider: FakeProvider,
    open_page: OpenPage,
    tmp_path: Path,
    change: Callable[[Running], None],
    on_page: bool,
) -> None:
    """It counts for whom and what it was admitted for, to the token."""
    group, model = f"Group {uuid4().hex[:8]}", f"model-{uuid4().hex[:8]}"
    user = make_user(groups=[group])
    now = Running(admin, usage_limits, user, group, model, tmp_path)
    usage_limits.configure(policies=now.policies)
    admin.set_model(model, base_model_id="fake-llm")
    text = f"{user.id} [[in=40 tokens=60 chunks=12 delay=0.1]]"
    page = open_page(user) if on_page else None
    try:
        with ThreadPoolExecutor(1) as threads:
            if page is None:
                running = threads.submit(user.chat, text, model=model, stream=True)
            else:
                running = threads.submit(page.send, text, models=[model], wait=False)
            wait_until(
                lambda: any(call.chunks_sent for call in provider.call_log.calls(contains=user.id))
            )
            change(now)
            running.result()
        [row] = usage_limits.settled(1, user_id=user.id)
        assert (row["policy"], row["model_names"], row["counted"], row["estimated"]) == (
            group,
            f"|{model}|fake-llm|",
            1,
            0,
        )
        assert (row["input_tokens"], row["output_tokens"]) == (40, 60)
        assert (row["weighted_input_tokens"], row["weighted_output_tokens"]) == (40, 60)
    finally:
        if change is not deleted_model:
            admin.delete_model(model)
