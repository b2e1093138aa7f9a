"""What an Open WebUI is made of: its internals, its routes, and which of them call a model.

A route is followed through the functions that it names, as far as they are Open WebUI's own. So a
new version's new way to a model is found before anybody has thought of asking there.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from helpers.openwebui.host_versions import HOST_INTERNALS, HostInternal
from scripts.bench.hooks import HOST_SETTINGS
from scripts.openwebui.server import open_webui_command

Name = tuple[str, str]  # a module, and a function or a class in it

LOOK = """
import importlib, json, sys
import open_webui
from open_webui.main import app

def is_there(module, name):
    value = importlib.import_module(module)
    try:
        for part in name.split("."):
            value = getattr(value, part)
    except AttributeError:
        return False
    return True

def routes(found, prefix=""):
    for each in found:
        endpoint = getattr(each, "endpoint", None)
        path = prefix + getattr(each, "path", "")
        if hasattr(endpoint, "__name__"):
            # Of a socket: GET.
            methods = sorted(getattr(each, "methods", None) or ["GET"])
            yield methods, path, endpoint.__module__, endpoint.__name__
        yield from routes(getattr(each, "routes", None) or [], path)

internals = [is_there(*each) for each in json.loads(sys.argv[1])]
print("FOUND", json.dumps([open_webui.__path__[0], internals, *routes(app.routes)]))
"""

# What calls a model, wherever it is.
CALLS = frozenset(
    (
        *("generate_chat_completion", "chat_completion", "passthrough_anthropic_messages"),
        *("image_generations", "image_edits", "generate_embeddings", "transcribe"),
        "get_embedding_function",
    )
)
# The same, where they are kept in the app's state.
KEPT_CALLS = frozenset(("EMBEDDING_FUNCTION", "CHAT_COMPLETION_HANDLER"))


@dataclass(frozen=True, slots=True)
class HostRoute:
    """One route of Open WebUI's."""

    method: str
    path: str
    endpoint: Name


@dataclass(slots=True)
class HostModule:
    """What one of its modules defines and imports."""

    functions: dict[str, ast.AST] = field(default_factory=dict)
    imports: dict[str, Name] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HostParts:
    """What the Open WebUI under test is made of."""

    root: Path
    internals: dict[HostInternal, bool]  # whether each is where it is looked for
    routes: list[HostRoute]


@cache
def read_host() -> HostParts:
    """Load the Open WebUI under test, once, and look at it."""
    wanted = [(each.module, each.name) for each in HOST_INTERNALS]
    with tempfile.TemporaryDirectory(prefix="host-") as folder:
        settings = {
            **{name: value for name, value in HOST_SETTINGS.items() if "MIGRATIONS" not in name},
            "DATA_DIR": folder,
            "STATIC_DIR": f"{folder}/static",
            "RAG_EMBEDDING_ENGINE": "openai",
            "FROM_INIT_PY": "true",
        }
        done = subprocess.run(
            [open_webui_command().with_name("python"), "-c", LOOK, json.dumps(wanted)],
            cwd=folder,
            env={**os.environ, **settings},
            stdout=subprocess.PIPE,
            text=True,
            timeout=300,
            check=True,
        )
    line = next(line for line in done.stdout.splitlines() if line.startswith("FOUND "))
    root, internals, *found = json.loads(line.removeprefix("FOUND "))
    routes = [
        HostRoute(method, path, (module, name))
        for methods, path, module, name in found
        for method in methods
    ]
    return HostParts(Path(root), dict(zip(HOST_INTERNALS, internals, strict=True)), routes)


class HostSource:
    """Open WebUI's source, to follow names in."""

    def __init__(self, root: Path) -> None:
        self._modules = {name: read_module(name, path) for name, path in source_files(root)}
        self._named: dict[Name, tuple[set[Name], bool]] = {}

    def calls_a_model(self, endpoint: Name) -> bool:
        """Whether a function comes to call a model, or to hand one on that does."""
        seen, left = {endpoint}, [endpoint]
        while left:
            one = left.pop()
            if one[1] in CALLS and one[0].startswith("open_webui."):
                return True
            named, calls = self._names_in(one)
            if calls:
                return True
            left += named - seen
            seen |= named
        return False

    def _names_in(self, function: Name) -> tuple[set[Name], bool]:
        """The functions that it names, and whether it names a call that the app's state keeps."""
        if function not in self._named:
            module, name = function
            node = self._modules[module].functions.get(name) if module in self._modules else None
            found: set[Name] = set()
            kept = False
            for each in ast.walk(node) if node is not None else ():
                match each:
                    case ast.Attribute(attr=attr) | ast.Constant(value=str(attr)) if (
                        attr in KEPT_CALLS
                    ):
                        kept = True
                    case ast.Attribute(value=ast.Name(id=owner), attr=attr):
                        base = self._modules[module].imports.get(owner)
                        if base is not None and f"{base[0]}.{base[1]}" in self._modules:
                            found |= self._find(f"{base[0]}.{base[1]}", attr)
                    case ast.Name(id=used):
                        found |= self._find(module, used)
            self._named[function] = found, kept
        return self._named[function]

    def _find(self, module: str, name: str) -> set[Name]:
        for _ in range(9):  # imported from where it is imported
            known = self._modules.get(module)
            if known is None:
                break
            if name in known.functions:
                return {(module, name)}
            if name not in known.imports:
                break
            module, name = known.imports[name]
        return set()


def source_files(root: Path) -> Iterator[tuple[str, Path]]:
    """Its modules by name."""
    for path in sorted(root.rglob("*.py")):
        parts = ("open_webui", *path.relative_to(root).with_suffix("").parts)
        if not {"test", "migrations"} & set(parts):
            yield ".".join(part for part in parts if part != "__init__"), path


def top_level(block: ast.AST) -> Iterator[ast.AST]:
    """What stands at a module's top, under a condition too."""
    for node in ast.iter_child_nodes(block):
        yield node
        if isinstance(node, (ast.If, ast.Try)):
            yield from top_level(node)


def read_module(name: str, path: Path) -> HostModule:
    """What one of them defines and imports, anywhere in it."""
    module = HostModule()
    with warnings.catch_warnings(action="ignore"):  # about its escape sequences
        tree = ast.parse(path.read_text(encoding="utf-8"))
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join(part for part in (package, base) if part)
            for alias in node.names:
                module.imports[alias.asname or alias.name] = (base, alias.name)
    for node in top_level(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            module.functions[node.name] = node
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Name):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    module.imports[target.id] = (name, node.value.id)
    return module
