"""Writes filter_usage_limits.py, the one file that is pasted, from the modules in helpers/.

python -m scripts.bundle            write it
python -m scripts.bundle --check    fail if it isn't current
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HELPERS = ROOT / "helpers"
TARGET = ROOT / "filter_usage_limits.py"

# In the order of the file: each may import only those before it, so that a wing imports only the
# wings above it.
PARTS = (
    "errors",
    "logs",
    "texts",
    "limits.periods",
    "limits.amounts",
    "limits.globs",
    "limits.limit",
    "limits.policies",
    "limits.policies_text",
    "limits.policy",
    "limits.decisions",
    "metering.pieces",
    "metering.estimates",
    "metering.provider_usage",
    "metering.stream_events",
    "metering.usage",
    "metering.charges",
    "ledger.database",
    "ledger.transactions",
    "ledger.tables",
    "ledger.identities",
    "ledger.counters",
    "ledger.limit_states",
    "ledger.records",
    "ledger.many_limits",
    "ledger.rollups",
    "ledger.reports",
    "ledger.report_rows",
    "ledger.grants",
    "ledger.reply_lengths",
    "ledger.policy_versions",
    "ledger.ledger",
    "openwebui.wording",
    "openwebui.languages.en",
    "openwebui.languages.de",
    "openwebui.languages.fr",
    "openwebui.languages.fr_ca",
    "openwebui.languages.es",
    "openwebui.languages.it",
    "openwebui.languages.pt_br",
    "openwebui.languages.nl",
    "openwebui.languages.pl",
    "openwebui.languages.ru",
    "openwebui.languages.uk",
    "openwebui.languages.tr",
    "openwebui.languages.zh_cn",
    "openwebui.languages.zh_tw",
    "openwebui.languages.ja",
    "openwebui.languages.ko",
    "openwebui.languages.ar",
    "openwebui.languages.he",
    "openwebui.languages.catalog",
    "openwebui.page_assets",
    "openwebui.messages",
    "openwebui.alerts",
    "openwebui.refusals",
    "openwebui.http_requests",
    "openwebui.valves",
    "openwebui.host_versions",
    "openwebui.replies",
    "openwebui.passthrough",
    "openwebui.host",
    "openwebui.stream_usage",
    "openwebui.endings",
    "openwebui.model_calls",
    "openwebui.stopping",
    "openwebui.chat_events",
    "openwebui.ledger_worker",
    "openwebui.accounting",
    "openwebui.ledgers",
    "openwebui.directory",
    "openwebui.page_limits",
    "openwebui.page_answers",
    "openwebui.page_data",
    "openwebui.page_grants",
    "openwebui.page_status",
    "openwebui.usage_command",
    "openwebui.valves_form",
    "openwebui.simulation",
    "openwebui.policy_editor",
    "openwebui.answers",
    "openwebui.callers",
    "openwebui.metered_calls",
    "openwebui.passthrough_guard",
    "openwebui.pages",
    "openwebui.realtime",
    "openwebui.middleware",
    "openwebui.task_calls",
    "openwebui.image_calls",
    "openwebui.admission",
    "filter",
)
# What decides about a request, in the order in which it passes: the first that the contents name.
DECIDING = (
    "filter",
    "openwebui.admission",
    "limits.policy",
    "limits.decisions",
    "ledger.ledger",
    "ledger.limit_states",
    "openwebui.accounting",
    "metering.usage",
    "metering.charges",
)
LANGUAGES = "openwebui.languages."
LINE_LENGTH = 100
# Open WebUI's loader replaces these everywhere in the text, comments and strings included.
FORBIDDEN_PHRASES = tuple(f"from {name}" for name in ("utils", "apps", "main", "config"))
FRONTMATTER_KEYS = (
    "title",
    "author",
    "version",
    "license",
    "description",
    "required_open_webui_version",
)


# A file of the usage page's, where a module reads it: the one file holds its text instead.
ASSETS = HELPERS / "openwebui" / "page"
ASSET_IMPORT = "helpers.openwebui.page"
ASSET_CALL = re.compile(r'\basset\("([a-z.]+)"\)')


class BundleError(Exception):
    """A module that can't be put into the one file."""


def read_manifest() -> dict[str, str]:
    """The metadata, from its only place."""
    manifest: dict[str, str] = json.loads((ROOT / "manifest.json").read_text(encoding="utf-8"))
    return manifest


def frontmatter(manifest: dict[str, str]) -> str:
    """The docstring that Open WebUI reads; its first line must be three quotes alone."""
    lines = "\n".join(f"{key}: {manifest[key]}" for key in FRONTMATTER_KEYS)
    return (
        f'"""\n{lines}\n\n'
        "GENERATED from helpers/ by scripts/bundle.py: change it there, not here.\n"
        "Paste the whole file into Open WebUI: Admin Panel, Functions, Create.\n"
        '"""\n'
    )


def top_level_names(tree: ast.Module) -> list[str]:
    """Every name that a module defines at its top level."""
    names: list[str] = []
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            names += [
                name.id
                for target in node.targets
                for name in ast.walk(target)
                if isinstance(name, ast.Name)
            ]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.append(node.target.id)
    return names


def place_of(part: str) -> str:
    """The path of a module, as the repository has it."""
    return f"helpers/{part.replace('.', '/')}.py"


def banner(part: str) -> str:
    """The line that a module begins with in the one file."""
    return f"# {f' {place_of(part)} ':=^{LINE_LENGTH - 2}}"


def is_language(part: str) -> bool:
    """Whether a module is nothing but the sentences of a language."""
    return part.startswith(LANGUAGES) and part != f"{LANGUAGES}catalog"


def check_internal_import(part: str, node: ast.ImportFrom, before: tuple[str, ...]) -> None:
    """Raise unless an import of helpers can be dropped in the one file."""
    where = f"{place_of(part)}:{node.lineno}"
    module = (node.module or "").removeprefix("helpers.")
    if module not in before:
        kind = "a later module" if module in PARTS else "a module that PARTS doesn't list"
        raise BundleError(f"{where}: imports {kind}, {node.module!r}")
    for alias in node.names:
        if alias.asname:
            raise BundleError(f"{where}: {alias.name} is imported as {alias.asname}; use its name")


def asset_literal(name: str) -> str:
    """A file of the page's as a raw string, as readable in the one file as in its own.

    Raises:
        BundleError: It holds what such a string can't.
    """
    text = (ASSETS / name).read_text(encoding="utf-8")
    if '"""' in text or not text.endswith("\n"):
        raise BundleError(f"{ASSETS / name}: holds three quotes, or doesn't end with a line break")
    return f'r"""{text}"""'


def split_module(part: str, before: tuple[str, ...]) -> tuple[str, list[str], str, list[str]]:
    """Take a module apart.

    Returns:
        The first line of its docstring, its external imports, its body, its top-level names.

    Raises:
        BundleError: It can't be put into the one file.
    """
    path = HELPERS / f"{part.replace('.', '/')}.py"
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text, str(path))
    docstring = ast.get_docstring(tree)
    if not docstring:
        raise BundleError(f"{place_of(part)}: has no docstring")
    lines = text.splitlines()
    dropped = set(range(1, (tree.body[0].end_lineno or 1) + 1))
    imports: list[str] = []
    for node in tree.body:
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        dropped.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        if isinstance(node, ast.ImportFrom) and node.module == ASSET_IMPORT:
            continue  # its only function is replaced by what it would return
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "helpers":
            check_internal_import(part, node, before)
        elif isinstance(node, ast.ImportFrom) and node.module == "__future__":
            continue
        elif isinstance(node, ast.ImportFrom):
            imports += [f"from {node.module} import {ast.unparse(alias)}" for alias in node.names]
        else:
            imports += [f"import {ast.unparse(alias)}" for alias in node.names]
    for nested in ast.walk(tree):
        if isinstance(nested, (ast.Import, ast.ImportFrom)) and nested.col_offset:
            raise BundleError(f"{place_of(part)}:{nested.lineno}: an import inside a function")
    body = "\n".join(line for number, line in enumerate(lines, 1) if number not in dropped)
    body = ASSET_CALL.sub(lambda call: asset_literal(call[1]), body)
    return docstring.splitlines()[0], imports, body.strip("\n"), top_level_names(tree)


def bound_name(line: str) -> str:
    """The name that an import of one name binds."""
    return line.split()[-1].split(".")[0]


def format_source(text: str) -> str:
    """Sort and merge the imports and lay the file out, as the project's own code is."""
    ruff = [sys.executable, "-m", "ruff"]
    sort = [*ruff, "check", "--select", "I", "--fix", "--quiet", "--stdin-filename", "bundle.py"]
    lay_out = [*ruff, "format", "--quiet", "--stdin-filename", TARGET.name]
    for command in (sort, lay_out):
        done = subprocess.run(
            [*command, "-"], input=text, capture_output=True, text=True, cwd=ROOT, check=False
        )
        if done.returncode:
            raise BundleError(f"ruff: {done.stderr.strip() or done.stdout.strip()}")
        text = done.stdout
    return text


def claim(owner: dict[str, str], name: str, place: str) -> None:
    """Raise if another place binds a top-level name already."""
    other = owner.setdefault(name, place)
    if other != place:
        raise BundleError(f"{place}: {name} is bound by {other} as well")


def with_contents(text: str, titles: Mapping[str, str]) -> str:
    """Put a list of the modules and their lines before the imports, what decides first."""
    first = "from __future__ import annotations\n"
    above, _, below = text.partition(first)
    below = fill_imports(single_blanks(below))
    languages = [part for part in titles if is_language(part)]
    rest = [part for part in titles if part not in (*DECIDING, *languages[1:])]
    titles = {**titles, languages[0]: f"{len(languages)} languages."} if languages else titles
    # Open WebUI's editor runs black on what is saved: so it takes less than half the time, and
    # what is stored is what was pasted.
    above = f"{above.rstrip(chr(10))}\n\n# fmt: off\n\n"
    deciding = [part for part in DECIDING if part in titles]
    height = above.count("\n") + len(deciding) + len(rest) + 3  # what stands above the imports
    found = {
        line: number
        for number, line in enumerate((first + below).splitlines(), height + 1)
        if line.startswith("# ==")
    }

    def entry(part: str) -> str:
        line = f"# {found[banner(part)]:5}  {part:<28} "
        return line + textwrap.shorten(titles[part], LINE_LENGTH - len(line), placeholder=" …")

    contents = ["# What decides about a request, by line:", *map(entry, deciding)]
    contents += ["# All else:", *map(entry, rest)]
    return "\n".join([above.rstrip("\n"), "", *contents, "", first + below])


def single_blanks(text: str) -> str:
    """The text with one blank line where there are several, but for those inside strings."""
    inside: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Constant, ast.JoinedStr)):
            inside.update(range(node.lineno, node.end_lineno or node.lineno))
    kept: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        if line or number in inside or not kept or kept[-1]:
            kept.append(line)
    return "\n".join(kept)


def fill_imports(text: str) -> str:
    """Imports of many names with as many on each line as there is room for."""

    def fill(block: re.Match[str]) -> str:
        names = " ".join(block[2].split()).removesuffix(",")
        filled = textwrap.wrap(names, LINE_LENGTH - 4, break_long_words=False)
        return f"{block[1]} (\n" + "".join(f"    {line}\n" for line in filled) + ")\n"

    return re.sub(r"^(from \S+ import) \(\n((?:    .*,\n)+)\)\n", fill, text, flags=re.MULTILINE)


def bundle() -> str:
    """The text of the one file.

    Raises:
        BundleError: With the place and the reason.
    """
    found = (path for path in HELPERS.rglob("*.py") if path.name != "__init__.py")
    unlisted = {".".join(path.relative_to(HELPERS).with_suffix("").parts) for path in found}
    unlisted -= set(PARTS)
    if unlisted:
        raise BundleError(f"helpers/: PARTS doesn't list {', '.join(sorted(unlisted))}")
    imports: dict[str, None] = {}
    sections: list[str] = []
    titles: dict[str, str] = {}
    owner: dict[str, str] = {}
    for index, part in enumerate(PARTS):
        title, external, body, names = split_module(part, PARTS[:index])
        imports.update(dict.fromkeys(external))
        own_name = (
            rf"^(The )?{part.rpartition('.')[2].replace('_', ' ')}: "  # it stands before it already
        )
        short = re.sub(own_name, "", title, flags=re.IGNORECASE)
        titles[part] = short[:1].upper() + short[1:]
        for name in names:
            claim(owner, name, place_of(part))
        said = "" if is_language(part) else f"# {title}\n\n"
        sections.append(f"{banner(part)}\n{said}{body}\n")
    for line in imports:
        claim(owner, bound_name(line), f'"{line}"')
    text = format_source(
        f"{frontmatter(read_manifest())}\n"
        "from __future__ import annotations\n\n" + "\n".join([*imports, "", *sections])
    )
    text = with_contents(text, titles)
    for phrase in FORBIDDEN_PHRASES:
        if phrase in text:
            number = text[: text.index(phrase)].count("\n") + 1
            raise BundleError(
                f"line {number} holds {phrase!r}, which Open WebUI's loader would rewrite"
            )
    return text


def main() -> int:
    """Write or check the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="fail if the file isn't current")
    arguments = parser.parse_args()
    try:
        text = bundle()
    except BundleError as error:
        print(f"bundle: {error}", file=sys.stderr)
        return 1
    if not arguments.check:
        TARGET.write_text(text, encoding="utf-8")
        print(f"{TARGET.name}: {text.count(chr(10))} lines")
        return 0
    current = TARGET.read_text(encoding="utf-8") if TARGET.exists() else ""
    if current == text:
        return 0
    print(f"{TARGET.name} is not current. Run: make bundle", file=sys.stderr)
    diff = difflib.unified_diff(
        current.splitlines(),
        text.splitlines(),
        "committed",
        "from helpers/",
        lineterm="",
        n=1,
    )
    print("\n".join(list(diff)[:20]), file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
