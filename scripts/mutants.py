"""Changes the code a little, one place at a time, and counts the changes that no test notices.

python -m scripts.mutants                             a sample of all wings
python -m scripts.mutants helpers/limits --sample 30  of one wing, or of one module

The changes are Cosmic Ray's, the tests are the quick ones of the module's wing, on SQLite. All
happens in a copy. The sample is the same for the same seed and the same code.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# What changes nothing, and what takes slots and frozen away, which no test should be about.
LEFT_OUT = ("core/NoOp", "core/RemoveDecorator")
TIMEOUT_SECONDS = 300  # a change that makes a loop endless is noticed by that

Change = tuple[Any, int]


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change to one module."""

    module: Path  # relative to the root
    source: str

    def __str__(self) -> str:
        before = (ROOT / self.module).read_text("utf-8").splitlines()
        after = self.source.splitlines()
        places = [
            at for at, pair in enumerate(zip(before, after, strict=False)) if len(set(pair)) > 1
        ]
        at = places[0] if places else min(len(before), len(after)) - 1
        return f"{self.module}:{at + 1}\n    {before[at].strip()}\n    {after[at].strip()}"


def find_modules(paths: list[Path]) -> list[Path]:
    """The modules at these paths, relative to the root."""
    found = []
    for path in paths:
        inside = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        found += [one.resolve().relative_to(ROOT) for one in inside if one.name != "__init__.py"]
    return found


def meaning(source: str) -> str:
    """What Python runs of a module: without annotations, which are never looked at."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Name("object")
    return ast.dump(tree)


def find_changes(module: Path) -> dict[tuple[int, int], list[Change]]:
    """What can be changed in a module: by line and column, operators and which time they fit."""
    plugins, trees = import_module("cosmic_ray.plugins"), import_module("cosmic_ray.ast")
    tree = trees.get_ast_from_path(ROOT / module)
    found: dict[tuple[int, int], list[Change]] = {}
    for name in plugins.operator_names():
        operator = plugins.get_operator(name)
        if operator.arguments() or name in LEFT_OUT:
            continue
        made = operator()
        nodes = trees.ast_nodes(tree)
        places = (start for node in nodes for start, _ in made.mutation_positions(node))
        for occurrence, place in enumerate(places):
            found.setdefault(place, []).append((made, occurrence))
    return found


def choose_mutants(modules: list[Path], sample: int, seed: int) -> list[Mutant]:
    """So many changes, each at a place of its own, the same ones for the same seed."""
    mutating, chance = import_module("cosmic_ray.mutating"), random.Random(seed)
    places = [
        (module, changes)
        for module in modules
        for _, changes in sorted(find_changes(module).items())
    ]
    chance.shuffle(places)
    chosen: list[Mutant] = []
    for module, changes in places:
        if len(chosen) == sample:
            break
        source = (ROOT / module).read_text("utf-8")
        changed = mutating.mutate_code(source, *chance.choice(changes))
        if changed is not None and meaning(changed) != meaning(source):
            chosen.append(Mutant(module, changed))
    return chosen


def tests_of(module: Path) -> list[str]:
    """The quick tests of a module: first its own file, then its wing's."""
    wing = Path("tests") / (module.parts[1] if len(module.parts) > 2 else "openwebui")
    own = wing / f"test_{module.stem}.py"
    return [str(one) for one in (own, wing) if one.exists()]


def is_noticed(copy: Path, mutant: Mutant) -> bool:
    """Whether a test fails, or never ends."""
    place = copy / mutant.module
    place.write_text(mutant.source, "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    command += ["-m", "not server and not slow"]
    try:
        done = subprocess.run(
            [*command, *tests_of(mutant.module)],
            cwd=copy,
            env={**os.environ, "HYPOTHESIS_EXAMPLES": "20", "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return True
    finally:
        shutil.copyfile(ROOT / mutant.module, place)
    return done.returncode != 0


def copy_repository(target: Path) -> None:
    """Everything that git knows, as it is now."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target / name)


def main() -> int:
    """Run the command; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", metavar="PATH", nargs="*", type=Path, default=[ROOT / "helpers"])
    parser.add_argument("--sample", type=int, default=60, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=14, help="of the sample (default: %(default)s)")
    parser.add_argument(
        "--least", type=int, default=0, metavar="PERCENT", help="fail below that many noticed"
    )
    options = parser.parse_args()
    mutants = choose_mutants(find_modules(options.paths), options.sample, options.seed)
    unnoticed = 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy_repository(Path(folder))
        for number, mutant in enumerate(mutants, start=1):
            if is_noticed(Path(folder), mutant):
                print(f"noticed ({number} of {len(mutants)})", file=sys.stderr, flush=True)
                continue
            unnoticed += 1
            print(f"unnoticed ({number} of {len(mutants)}): {mutant}", flush=True)
    noticed = len(mutants) - unnoticed
    percent = 100 * noticed // max(1, len(mutants))
    print(f"{noticed} of {len(mutants)} changes noticed: {percent} %")
    return int(percent < options.least)


if __name__ == "__main__":
    sys.exit(main())
