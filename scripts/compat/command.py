"""Runs the tests against older versions of Open WebUI, and says what works on each.

python -m scripts.compat                 the first and the newest release of each series
python -m scripts.compat 0.11 0.10.1     those (a series or a release)
python -m scripts.compat --write         the same as the first, and write docs/compatibility.md
python -m scripts.compat --resume        leave out where all tests have passed with this very filter

Each Open WebUI gets an environment of its own under .cache/compat, with Python 3.11 and with 3.12
where both are installed (2.5 GB, or 8 GB where no CPU build of torch can be had; removed afterwards
unless --keep is given). The tests themselves run in the project's.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from scripts.compat.environments import (
    DIRECTORY,
    EnvironmentFailed,
    HostEnvironment,
    newest_of,
    read_releases,
    say,
)
from scripts.compat.hosts import SERIES
from scripts.compat.results import HostResults, all_tables, read_outcomes
from scripts.setup_environment import ROOT, SUPPORTED, has_worked

# Those with several servers or workers take as long as all these: `make test` runs them.
TESTS = (
    "tests/server/test_enforcement.py",
    "tests/server/test_ends.py",
    "tests/server/test_forgery.py",
    "tests/server/test_passthrough.py",
    "tests/server/test_usage_page.py",
    "tests/server/test_every_route.py",
    "tests/server/test_indirect_calls.py",
    "tests/server/test_function_calls.py",
    "tests/openwebui/test_host_versions.py",
)
DOCUMENT = ROOT / "docs" / "compatibility.md"
MARKS = ("<!-- compat: written by scripts/compat/command.py --write -->", "<!-- /compat -->")


def run_tests(host: HostEnvironment, more: Sequence[str], resume: bool = False) -> HostResults:
    """Run the tests against one Open WebUI.

    Args:
        more: More arguments for pytest.
        resume: Whether the results count of a run that passed with the same filter.

    Raises:
        EnvironmentFailed: It can't be installed, or pytest could not run.
    """
    python = python_version(host.python)
    pasted = hashlib.sha256((ROOT / "filter_usage_limits.py").read_bytes()).hexdigest()[:16]
    kept = DIRECTORY / "passed" / f"{host.version}-{python}-{pasted}.xml"
    if resume and not more and kept.exists():
        say(f"Open WebUI {host.version} has passed already")
        return HostResults(host.version, python, read_outcomes(kept))
    host.make()
    say(f"the tests against Open WebUI {host.version}")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="compat-") as folder:
        report = Path(folder) / "report.xml"
        pytest = [
            sys.executable,
            "-m",
            "pytest",
            "--quiet",
            "--tb=short",
            "--durations=5",
            "-p",
            "no:cacheprovider",
        ]
        subprocess.run(
            [*pytest, *TESTS, f"--junitxml={report}", *more],
            cwd=ROOT,
            env={**os.environ, "OPEN_WEBUI_COMMAND": str(host.command)},
            check=False,
        )
        if not report.exists():
            raise EnvironmentFailed(f"pytest did not run for Open WebUI {host.version}")
        results = HostResults(host.version, python, read_outcomes(report))
        if not more and not results.failures:
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(report, kept)
    say(f"{len(results.outcomes)} tests in {time.monotonic() - began:.0f} s")
    return results


def python_version(python: str) -> str:
    """The version of a Python, such as 3.11.7."""
    ask = "import platform; print(platform.python_version())"
    answer = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True)
    return answer.stdout.strip()


def installed_pythons() -> list[str]:
    """This Python, and the other one that Open WebUI runs on, if it is installed."""
    own = f"python{sys.version_info.major}.{sys.version_info.minor}"
    others = [f"python{major}.{minor}" for major, minor in SUPPORTED]
    return [sys.executable, *(name for name in others if name != own and runs(name))]


def runs(python: str) -> bool:
    """Whether a Python is there, and no shim for one that isn't."""
    return bool(shutil.which(python)) and has_worked(python, "-c", "", quiet=True)


def write_document(tables: str) -> None:
    """Put the tables between their marks in docs/compatibility.md."""
    begin, end = MARKS
    text = DOCUMENT.read_text(encoding="utf-8")
    pattern = f"{re.escape(begin)}.*{re.escape(end)}"
    new, count = re.subn(pattern, lambda _: f"{begin}\n{tables}\n{end}", text, flags=re.DOTALL)
    if count != 1:
        sys.exit(f"{DOCUMENT} has no place for the tables: {begin} … {end}")
    DOCUMENT.write_text(new, encoding="utf-8")


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.compat", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "versions", nargs="*", default=list(SERIES), help=f"default: {' '.join(SERIES)}"
    )
    parser.add_argument("--keep", action="store_true", help="keep the environments")
    parser.add_argument(
        "--resume", action="store_true", help="leave out what has passed with this very filter"
    )
    parser.add_argument("--write", action="store_true", help="write docs/compatibility.md")
    parser.add_argument(
        "--python",
        action="append",
        help="a Python for the environments; may be given twice (default: 3.11 and 3.12, if both "
        "are installed)",
    )
    parser.add_argument("-k", metavar="EXPRESSION", help="only the tests that pytest picks by it")
    options = parser.parse_args(arguments)
    if options.write and (options.k or options.versions != list(SERIES)):
        parser.error("--write needs all tests on all versions: leave out the versions and -k")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Test them one after the other; the exit code."""
    options = parse_arguments(arguments)
    more = ["-k", options.k] if options.k else []
    results: list[HostResults] = []
    try:
        releases = read_releases()
        newest = dict.fromkeys(newest_of(series, releases) for series in options.versions)
        pythons = options.python or installed_pythons()
        for host in (HostEnvironment(one, python) for python in pythons for one in newest):
            try:
                results.append(run_tests(host, more, options.resume))
            finally:
                if not options.keep:
                    host.remove()
    except EnvironmentFailed as error:
        say(str(error))
        return 2
    tables = all_tables(results)
    print(f"\n{tables}")
    for host_results in results:
        for name in host_results.failures:
            say(f"{host_results.version} on Python {host_results.python}: {name} failed")
    if options.write:
        write_document(tables)
    return 1 if any(host_results.failures for host_results in results) else 0


if __name__ == "__main__":
    sys.exit(main())
