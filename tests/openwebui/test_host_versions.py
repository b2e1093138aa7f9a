"""A canary for each internal of Open WebUI that the filter leans upon."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from helpers.openwebui.host_versions import HOST_INTERNALS, HostInternal
from scripts.bench.hooks import HOST_SETTINGS
from scripts.openwebui.server import open_webui_command
from tests.conftest import host_version

pytestmark = pytest.mark.slow

LOOK = """
import importlib, json, sys

found = []
for module, name in json.loads(sys.argv[1]):
    value = importlib.import_module(module)
    try:
        for part in name.split("."):
            value = getattr(value, part)
        found.append(True)
    except AttributeError:
        found.append(False)
print("FOUND", json.dumps(found))
"""


@pytest.fixture(scope="module")
def internals(tmp_path_factory: pytest.TempPathFactory) -> dict[HostInternal, bool]:
    """What the Open WebUI under test has."""
    wanted = [(each.module, each.name) for each in HOST_INTERNALS]
    settings = {
        **{name: value for name, value in HOST_SETTINGS.items() if "MIGRATIONS" not in name},
        "DATA_DIR": str(tmp_path_factory.mktemp("internals")),
        "RAG_EMBEDDING_ENGINE": "openai",
        "FROM_INIT_PY": "true",
    }
    python = open_webui_command().with_name("python")
    done = subprocess.run(
        [python, "-c", LOOK, json.dumps(wanted)],
        cwd=Path(settings["DATA_DIR"]),
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
        check=True,
    )
    line = next(line for line in done.stdout.splitlines() if line.startswith("FOUND "))
    return dict(zip(HOST_INTERNALS, json.loads(line.removeprefix("FOUND ")), strict=True))


@pytest.mark.parametrize("internal", HOST_INTERNALS, ids=lambda each: f"{each.module}:{each.name}")
def test_internal_is_where_it_was(
    internals: dict[HostInternal, bool], internal: HostInternal
) -> None:
    """What the filter uses of Open WebUI is there since the version that is noted."""
    if host_version() >= internal.since:
        assert internals[internal], internal.used_for
