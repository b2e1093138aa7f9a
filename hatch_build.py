"""The wheel: `helpers/` and `scripts/` inside one package, since both names are anybody's."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "usage_limits"
# Of scripts/ only what administrators use: the rest needs the repository or Open WebUI itself.
COMMANDS = ("install", "limits", "report")
OURS = re.compile(r"^(\s*(?:from|import) )(helpers|scripts)(?=[. ])", re.MULTILINE)


def packaged(source: str) -> str:
    """A module's text with its imports as they are inside the package."""
    return OURS.sub(rf"\1{PACKAGE}.\2", source)


def write_package(root: Path, package: Path) -> None:
    """Write the package's files from those of the repository."""
    folders = [root / "helpers", *(root / "scripts" / command for command in COMMANDS)]
    sources = [root / "scripts" / name for name in ("__init__.py", "command.py")]
    sources += [found for folder in folders for found in folder.rglob("*") if found.is_file()]
    for source in sources:
        target = package / source.relative_to(root)
        if source.parent.name == "__pycache__":
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".py":
            target.write_text(packaged(source.read_text("utf-8")), "utf-8")
        else:
            shutil.copyfile(source, target)
    # Where scripts/install looks for them, here as in the repository.
    for name in ("filter_usage_limits.py", "manifest.json"):
        shutil.copyfile(root / name, package / name)
    (package / "__init__.py").write_text('"""Usage limits for Open WebUI: the commands."""\n')
    main = f"from {PACKAGE}.scripts.command import main\n\nraise SystemExit(main())\n"
    (package / "__main__.py").write_text(f'"""python -m {PACKAGE}"""\n\n{main}')


class PackageHook(BuildHookInterface):  # type: ignore[type-arg]
    """What hatchling calls for a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Make the package and have it put into the wheel."""
        if version == "editable":
            raise RuntimeError("the repository needs no installation: python -m scripts.command")
        self._made = Path(tempfile.mkdtemp(prefix=f"{PACKAGE}-"))
        write_package(Path(self.root), self._made / PACKAGE)
        build_data["force_include"][str(self._made / PACKAGE)] = PACKAGE

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Leave nothing behind."""
        shutil.rmtree(self._made)
