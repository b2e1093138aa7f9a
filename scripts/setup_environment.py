"""Makes .venv: Open WebUI and everything that the tests need, once; a second run changes nothing.

python3.11 scripts/setup_environment.py      (or python3.12; `make` calls it before everything else)

It needs nothing but Python and pip. What takes long elsewhere is avoided here: a CPU build of torch
is installed before Open WebUI can bring the one with gigabytes of CUDA, and uv does the rest where
pip can get it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
STAMP = ENVIRONMENT / "usage-limits.stamp"
PYTHON = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
TORCH = "torch==2.13.0"
TORCH_SOURCES = (
    # Where pip is configured with a directory that has a CPU build in it.
    ["--no-index"],
    # PyTorch's own index; without patience, since many machines don't reach it.
    [
        "--index-url",
        "https://download.pytorch.org/whl/cpu",
        "--timeout",
        "10",
        "--retries",
        "0",
    ],
)
SUPPORTED = ((3, 11), (3, 12))


def say(text: str) -> None:
    """Tell what comes next."""
    print(f"[environment] {text}", flush=True)


def check_python() -> None:
    """End with a sentence if this Python can't run Open WebUI."""
    if sys.version_info[:2] in SUPPORTED:
        return
    names = [name for name in ("python3.12", "python3.11") if shutil.which(name)]
    other = f"make PYTHON={names[0]}" if names else "install one, then: make PYTHON=/path/to/it"
    sys.exit(
        f"Open WebUI needs Python 3.11 or 3.12; {sys.executable} is {sys.version.split()[0]}. "
        f"Try: {other}"
    )


def fingerprint() -> str:
    """What the environment was made from; when it changes, a new run installs again."""
    digest = hashlib.sha256()
    for source in (ROOT / "pyproject.toml", Path(__file__)):
        digest.update(source.read_bytes())
    return f"{sys.version.split()[0]} {digest.hexdigest()}\n"


def requirements() -> list[str]:
    """Everything that pyproject.toml names."""
    import tomllib  # here, so that an older Python gets as far as check_python

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]


def has_worked(*command: str | Path, quiet: bool = False) -> bool:
    """Run a command; whether it succeeded."""
    output = subprocess.DEVNULL if quiet else None
    return subprocess.run(command, stdout=output, stderr=output, check=False).returncode == 0


def make_venv() -> None:
    """A venv of this Python's version, kept if it is one already."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    same = f"import sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    if PYTHON.exists() and has_worked(PYTHON, "-c", same, quiet=True):
        return
    say(f"a new .venv with Python {version}")
    venv.create(ENVIRONMENT, clear=True, with_pip=True)


def install_torch() -> None:
    """A CPU build of torch, if one can be had."""
    find = "import importlib.util as u, sys; sys.exit(u.find_spec('torch') is None)"
    if sys.platform == "darwin" or has_worked(PYTHON, "-c", find, quiet=True):
        return  # there already; on a Mac the usual build is a small one
    say(f"{TORCH}, a CPU build")
    for source in TORCH_SOURCES:
        if has_worked(PYTHON, "-m", "pip", "install", "--no-deps", *source, TORCH, quiet=True):
            return
    say("no CPU build of torch can be had here: the usual one comes with Open WebUI (large)")


def install_packages() -> None:
    """Open WebUI and the tools, by uv if pip can get it, else by pip."""
    packages = requirements()
    say("Open WebUI and the tools for the tests")
    pip: list[str | Path] = [PYTHON, "-m", "pip", "install", "--quiet"]
    if has_worked(*pip, "uv"):
        uv: list[str | Path] = [PYTHON, "-m", "uv", "pip", "install", "--python", PYTHON]
        if not sys.stdout.isatty():
            uv.append("--quiet")  # no list of 260 packages in a log
        if has_worked(*uv, *packages):
            return
        say("uv could not install them; pip tries (this takes some minutes)")
    if not has_worked(*pip, *packages):
        sys.exit("The packages could not be installed; the messages above say why.")


def main() -> None:
    """Make the environment, or leave it as it is if nothing has changed."""
    check_python()
    if STAMP.exists() and STAMP.read_text(encoding="utf-8") == fingerprint():
        return
    began = time.monotonic()
    STAMP.unlink(missing_ok=True)
    make_venv()
    install_torch()
    install_packages()
    STAMP.write_text(fingerprint(), encoding="utf-8")
    say(f"ready after {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
