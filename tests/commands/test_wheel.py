"""The wheel in an empty environment: each command once, without Open WebUI and the repository."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from helpers.ledger.database import open_database
from tests.commands.test_install import stub_server
from tests.commands.test_report import NOON, LedgerDatabase
from tests.conftest import FUNCTION_FILE, ROOT

pytestmark = pytest.mark.packages

LIMIT_SECONDS = 300  # far more than it takes; a package index that hangs must not hang the tests
LARGEST_WHEEL = 1_000_000
LIGHT = {"jinja2", "pydantic", "pygal", "requests", "rich", "sqlalchemy", "tzdata"}


def pip(*arguments: str | Path) -> None:
    """Run this environment's pip, from a directory that isn't the repository."""
    command = [sys.executable, "-m", "pip", "--quiet", *map(str, arguments)]
    subprocess.run(command, check=True, timeout=LIMIT_SECONDS, cwd="/")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    made = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--wheel-dir", made, ROOT)
    (found,) = made.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with nothing but the wheel and what it needs."""
    made = tmp_path_factory.mktemp("environment")
    venv.create(made)
    pip("--python", made / "bin" / "python", "install", wheel)
    return made


def run(environment: Path, *arguments: str, status: int = 0, **variables: str) -> str:
    """What a command of the wheel prints on both streams."""
    done = subprocess.run(
        [environment / "bin" / "usage-limits", *arguments],
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
        cwd=environment,
        env={"PATH": os.defpath, "LANG": "C.UTF-8", **variables},
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def test_wheel_is_one_package(wheel: Path) -> None:
    """There is one top-level package, and no module in it imports `helpers` or `scripts`."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        top = {name.partition("/")[0] for name in names}
        assert {name for name in top if not name.endswith(".dist-info")} == {"usage_limits"}
        for name in names:
            if name.endswith(".py") and name != "usage_limits/filter_usage_limits.py":
                text = archive.read(name).decode()
                assert not re.search(r"^\s*(?:from|import) (?:helpers|scripts)\b", text, re.M), name
        pasted = archive.read("usage_limits/filter_usage_limits.py")
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        needed = message_from_bytes(archive.read(metadata)).get_all("Requires-Dist") or []
    assert pasted == FUNCTION_FILE.read_bytes()
    assert wheel.stat().st_size < LARGEST_WHEEL
    always = {re.split(r"[ ><=;]", text)[0].lower() for text in needed if "extra ==" not in text}
    assert always == LIGHT


def test_each_command_runs(environment: Path, tmp_path: Path) -> None:
    """Every command works in an environment with the wheel alone."""
    url = f"sqlite:///{tmp_path / 'webui.db'}"
    engine = open_database(url)
    database = LedgerDatabase(url, engine)
    database.make_ledger()
    database.make_host(policies='[role.user]\nlimits = ["5k tokens/day"]\n')
    database.add_user("ann")
    database.record(created_at=NOON)
    engine.dispose()
    assert "install" in run(environment, "--help")
    assert "0." in run(environment, "--version")
    policies = tmp_path / "policies.toml"
    policies.write_text('[role.user]\nlimits = ["9k tokens/day"]\n')
    assert "The policies are right: 1 role." in run(environment, "check", str(policies))
    (row,) = json.loads(run(environment, "report", "--format", "json", DATABASE_URL=url))
    assert (row["user_email"], row["total_tokens"]) == ("ann@example.org", 15)
    page = tmp_path / "report.html"
    run(environment, "report", "--format", "html", "--output", str(page), DATABASE_URL=url)
    assert "<svg" in page.read_text("utf-8")
    for command in (
        ["show", "ann"],
        ["explain", "ann", "--model", "gpt-4o"],
        ["check"],
        ["grant", "ann", "1k tokens/day"],
        ["reset", "ann"],
        ["rebuild"],
        ["sweep"],
    ):
        run(environment, "limits", *command, DATABASE_URL=url)


def test_beside_open_webui_without_its_dependencies(wheel: Path, tmp_path: Path) -> None:
    """In Open WebUI's own environment the wheel needs nothing more, as README's recipe has it."""
    packages, data = tmp_path / "packages", tmp_path / "data"
    data.mkdir()
    pip("install", "--no-deps", "--target", packages, wheel)
    engine = open_database(f"sqlite:///{data / 'webui.db'}")
    database = LedgerDatabase(str(engine.url), engine)
    database.make_ledger()
    database.make_host(policies='[role.user]\nlimits = ["5k tokens/day"]\n')
    engine.dispose()
    done = subprocess.run(
        [sys.executable, "-m", "usage_limits", "limits", "show", "--near"],
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=True,
        cwd="/",
        env={"PATH": os.defpath, "PYTHONPATH": str(packages), "DATA_DIR": str(data)},
    )
    assert done.stdout == "No limit has reached its warning.\n"


def test_install_and_audit_reach_a_server(environment: Path) -> None:
    """Both commands that speak to Open WebUI get as far as its answer."""
    with stub_server({"/api/config": (200, {})}) as url:
        for command in ("install", "audit"):
            said = run(
                environment, command, "--url", url, status=1, OPENWEBUI_API_KEY="sk-of-nobody"
            )
            assert "is not an Open WebUI" in said
