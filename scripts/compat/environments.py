"""An environment of its own for each Open WebUI that is tested, under .cache/compat."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from scripts.compat.hosts import Version
from scripts.setup_environment import ROOT, TORCH, TORCH_SOURCES, has_worked

DIRECTORY = ROOT / ".cache" / "compat"
# Open WebUI on PostgreSQL needs it and doesn't bring it.
BESIDE_IT = ("psycopg2-binary",)
# A final release, not 0.12.0rc1.
RELEASE = re.compile(r"\d+(?:\.\d+)+$")


class EnvironmentFailed(RuntimeError):
    """An environment can't be made; the message says why."""


def say(text: str) -> None:
    """Tell what comes next."""
    print(f"[compat] {text}", flush=True)


def parse_version(text: str) -> Version:
    """A version as numbers, such as (0, 12, 4)."""
    return tuple(int(part) for part in text.split("."))


def newest_of(series: str, releases: list[str]) -> str:
    """The newest release of a series such as 0.12, or of one release itself."""
    found = [text for text in releases if f"{text}.".startswith(f"{series}.")]
    if not found:
        raise EnvironmentFailed(f"the package index has no open-webui {series}")
    return max(found, key=parse_version)


def read_releases() -> list[str]:
    """The final releases of Open WebUI that pip knows of."""
    command = [sys.executable, "-m", "pip", "index", "versions", "open-webui"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    listed = re.search(r"Available versions: (.+)", answer.stdout)
    if not listed:
        raise EnvironmentFailed(f"pip can't list the releases of open-webui:\n{answer.stderr}")
    return [text for text in listed[1].split(", ") if RELEASE.match(text)]


@dataclass(frozen=True, slots=True)
class HostEnvironment:
    """The environment of one release of Open WebUI: nothing else is installed in it."""

    version: str
    python: str  # the Python that it is made from

    @property
    def path(self) -> Path:
        """Where it is."""
        return DIRECTORY / f"{self.version}-{Path(self.python).name}"

    @property
    def command(self) -> Path:
        """Its `open-webui`."""
        return self.path / ("Scripts/open-webui.exe" if os.name == "nt" else "bin/open-webui")

    @property
    def _own_python(self) -> Path:
        return self.command.with_name("python")

    def make(self) -> None:
        """Make it, unless it is there already."""
        made_from = self.path / "made-from"
        if made_from.exists() and made_from.read_text(encoding="utf-8") == self.python:
            return
        self.remove()
        say(f"an environment for Open WebUI {self.version}")
        uv: list[str | Path] = [sys.executable, "-m", "uv"]
        if not has_worked(*uv, "venv", "--quiet", "--seed", "--python", self.python, self.path):
            raise EnvironmentFailed(f"{self.python} makes no environment")
        self._install_torch()
        packages = [f"open-webui=={self.version}", *BESIDE_IT]
        into: list[str | Path] = ["--quiet", "--python", self._own_python]
        if not has_worked(*uv, "pip", "install", *into, *packages):
            raise EnvironmentFailed(f"Open WebUI {self.version} can't be installed")
        made_from.write_text(self.python, encoding="utf-8")

    def _install_torch(self) -> None:
        """A CPU build of torch, if one can be had: the usual one brings gigabytes of CUDA."""
        if sys.platform == "darwin":
            return
        pip: list[str | Path] = [self._own_python, "-m", "pip", "install", "--no-deps"]
        if not any(has_worked(*pip, *source, TORCH, quiet=True) for source in TORCH_SOURCES):
            say("no CPU build of torch can be had for it: the usual one comes (large)")

    def remove(self) -> None:
        """Free its space: some 2.5 GB."""
        shutil.rmtree(self.path, ignore_errors=True)
