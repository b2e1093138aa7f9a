"""Whom and which model a policy means, in a real Open WebUI: after renames, in any spelling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest

from scripts.openwebui.admin import OpenWebUIAdmin
from scripts.openwebui.client import OpenWebUIClient
from tests.conftest import InstalledFilter, MakeUser, StartServer

FIFTY = "[[in=20 tokens=30]]"
ONE_REPLY = 'limits = ["40 tokens/day"]\n'
REFUSED = 429


def statuses(user: OpenWebUIClient, count: int = 2, **options: str) -> list[int]:
    """What so many calls of 50 tokens come to, one after the other."""
    return [user.chat(FIFTY, **options).status for _ in range(count)]


def rename_group(admin: OpenWebUIAdmin, group_id: str, name: str) -> None:
    admin.post(f"/api/v1/groups/id/{group_id}/update", {"name": name, "description": ""})


@pytest.fixture
def named(admin: OpenWebUIAdmin) -> Callable[[str], str]:
    """Makes a group of the test's own and gives its id: `named("Students 4f")`."""
    return lambda name: admin.create_group(name)


@pytest.mark.parametrize("spelling", ["id", "case", "blanks", "host's blanks"])
def test_group_is_meant_in_any_spelling(
    usage_limits: InstalledFilter,
    admin: OpenWebUIAdmin,
    user: OpenWebUIClient,
    named: Callable[[str], str],
    spelling: str,
) -> None:
    """A group is named by its id, or by its name without regard to case and outer blanks."""
    name = f"Staff {uuid4().hex[:6]}"
    group_id = named(f"{name} " if spelling == "host's blanks" else name)
    admin.add_to_group(group_id, [user.id])
    written = {"id": group_id, "case": name.upper(), "blanks": f" {name}  "}.get(spelling, name)
    usage_limits.configure(policies=f'[group."{written}"]\n{ONE_REPLY}')
    assert statuses(user) == [200, REFUSED]


def test_group_renamed(
    usage_limits: InstalledFilter,
    admin: OpenWebUIAdmin,
    make_user: MakeUser,
    named: Callable[[str], str],
) -> None:
    """After a rename the policy holds for members that have never asked before, and it shows."""
    name, user, other = f"Students {uuid4().hex[:6]}", make_user(), make_user()
    group_id = named(name)
    admin.add_to_group(group_id, [user.id, other.id])
    usage_limits.configure(policies=f'[group."{name}"]\n{ONE_REPLY}')
    assert statuses(user, 1) == [200]
    rename_group(admin, group_id, f"Alumni {name}")
    assert statuses(user, 1) == [REFUSED]
    # The same text saved again, as by another worker that reads it for the first time.
    usage_limits.configure(policies=f'[group."{name}"]\n{ONE_REPLY}\n')
    assert statuses(other) == [200, REFUSED]
    described = admin.valves_spec(usage_limits.id)["properties"]["policies"]["description"]
    assert f'means the group now called "Alumni {name}"' in described
    assert usage_limits.rows("usage_limits_names", id=group_id)[0]["name"] == name.lower()


def test_name_made_anew(
    usage_limits: InstalledFilter,
    admin: OpenWebUIAdmin,
    make_user: MakeUser,
    named: Callable[[str], str],
) -> None:
    """A new group of an old name gains nothing by it while the old group exists; then it does."""
    name, old, new = f"Staff {uuid4().hex[:6]}", make_user(), make_user()
    first = named(name)
    admin.add_to_group(first, [old.id])
    text = f'[group."{name}"]\nlimits = "unlimited"\n[role.user]\n{ONE_REPLY}'
    usage_limits.configure(policies=text)
    assert statuses(old) == [200, 200]
    rename_group(admin, first, f"Former {name}")
    second = named(name)
    admin.add_to_group(second, [new.id])
    usage_limits.configure(policies=f"{text}\n")
    assert statuses(new) == [200, REFUSED]
    admin.call("DELETE", f"/api/v1/groups/id/{first}/delete")
    usage_limits.configure(policies=f"{text}\n\n")
    assert statuses(new) == [200, 200]
    assert statuses(old, 1) == [REFUSED]


def test_address_changed(
    usage_limits: InstalledFilter, admin: OpenWebUIAdmin, make_user: MakeUser
) -> None:
    """A user's policy holds after a change of address, and passes to nobody with the old one."""
    user, other = make_user(), make_user()
    address = user.account.email
    text = f'[user." {address.upper()}"]\n{ONE_REPLY}[role.user]\nlimits = ["140 tokens/day"]\n'
    usage_limits.configure(policies=text)
    assert statuses(user, 1) == [200]
    admin.post(f"/api/v1/users/{user.id}/update", {"email": f"new-{address}"})
    assert statuses(user, 1) == [REFUSED]
    admin.post(f"/api/v1/users/{other.id}/update", {"email": address})
    usage_limits.configure(policies=f"{text}\n")
    assert statuses(user, 1) == [REFUSED]
    assert statuses(other) == [200, REFUSED]  # 40 by the address, 140 by the role


def test_long_s_is_no_s(usage_limits: InstalledFilter, admin: OpenWebUIAdmin) -> None:
    """An address with a letter that folds to another's isn't that other's."""
    local = f"s{uuid4().hex[:8]}"
    user = admin.add_user("Sam", f"\u017f{local[1:]}@example.org")
    usage_limits.configure(
        policies=f'[user."{local}@example.org"]\nlimits = "unlimited"\n[role.user]\n{ONE_REPLY}'
    )
    assert statuses(user) == [200, REFUSED]
    user.close()


@pytest.fixture
def make_model(admin: OpenWebUIAdmin) -> Iterator[Callable[[str], str]]:
    """Makes a custom model of this id on the provider's, open to all."""
    made: list[str] = []

    def make(model_id: str) -> str:
        admin.set_model(model_id, base_model_id="fake-llm", filter_ids=[])
        made.append(model_id)
        return model_id

    yield make
    for model_id in made:
        admin.delete_model(model_id)


@pytest.mark.parametrize("model_id", ["m[1]", "[free]gpt-4o:x", "a|b"])
def test_brackets_and_bars_in_ids(
    usage_limits: InstalledFilter,
    user: OpenWebUIClient,
    make_model: Callable[[str], str],
    model_id: str,
) -> None:
    """A limit on an exact id holds whatever characters the id has."""
    make_model(model_id)
    usage_limits.configure(policies=f"[role.user]\nlimits = ['40 tokens/day on \"{model_id}\"']\n")
    assert statuses(user, model=model_id) == [200, REFUSED]
    assert user.chat(FIFTY).status == 200


def test_custom_model_on_a_priced_base(
    usage_limits: InstalledFilter, user: OpenWebUIClient, make_model: Callable[[str], str]
) -> None:
    """A custom model costs what its base costs, unless it has a table by its exact id."""
    mine = make_model("llama-of-mine")
    tables = (
        '[model."llama*"]\nweight = 0\n[model.fake-llm]\ninput_price = 1\noutput_price = 2\n'
        f"[role.user]\n{ONE_REPLY}"
    )
    usage_limits.configure(policies=tables)
    assert statuses(user, model=mine) == [200, REFUSED]
    assert usage_limits.settled(1, user_id=user.id)[0]["cost_micros"] == 20 + 60
    usage_limits.configure(policies=f"{tables}[model.{mine}]\nweight = 0\n")
    assert statuses(user, model=mine) == [200, 200]


def test_fallback(start_server: StartServer) -> None:
    """A custom model without its base is limited as itself and as the model it falls back to."""
    own = start_server(ENABLE_CUSTOM_MODEL_FALLBACK="true")
    own.admin.post(
        "/api/v1/configs/models",
        {"DEFAULT_MODELS": "fake-llm", "DEFAULT_PINNED_MODELS": "", "MODEL_ORDER_LIST": []},
    )
    own.admin.set_model("orphan", base_model_id="gone", filter_ids=[])
    for limited in ("orphan", "fake-llm"):
        user = own.admin.add_user("Uma", f"{uuid4().hex[:12]}@example.org")
        own.usage_limits.configure(
            policies=f'[role.user]\nlimits = ["40 tokens/day on {limited}"]\n'
        )
        assert statuses(user, model="orphan") == [200, REFUSED]
        names = own.usage_limits.settled(1, user_id=user.id)[0]["model_names"]
        assert names == "|fake-llm|orphan|"
        user.close()


def test_names_nobody_is_shown(
    usage_limits: InstalledFilter, admin: OpenWebUIAdmin, user: OpenWebUIClient
) -> None:
    """The form says which tables name nobody, and no longer once they do."""
    name = f"Nobody's {uuid4().hex[:6]}"
    text = f'[group."{name}"]\n{ONE_REPLY}[model."no-such-*"]\nweight = 2\n'
    usage_limits.configure(policies=text)
    assert statuses(user, 1) == [200]

    def described() -> str:
        return admin.valves_spec(usage_limits.id)["properties"]["policies"]["description"]

    assert f'[group."{name}"] names nobody' in described()
    assert '[model."no-such-*"] fits no model' in described()
    admin.create_group(name)
    usage_limits.configure(policies=f"{text}\n")
    assert statuses(user, 1) == [200]
    assert "names nobody" not in described()
    usage_limits.configure()
    assert statuses(user, 1) == [200]
    assert "fits no model" not in described()
