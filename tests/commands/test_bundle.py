"""The bundle: one file that holds what helpers/ hold, and refuses what would break in it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from scripts import bundle as bundler
from scripts.bundle import BundleError, bundle


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two small modules in place of helpers/, in the order first, second."""
    monkeypatch.setattr(bundler, "HELPERS", tmp_path)
    monkeypatch.setattr(bundler, "PARTS", ("first", "second"))
    (tmp_path / "first.py").write_text('"""First."""\n\nONE = 1\n')
    (tmp_path / "second.py").write_text(
        '"""Second."""\n\nimport os\n\nfrom helpers.first import ONE\n\nTWO = ONE + 1, os.sep\n'
    )
    return tmp_path


def test_committed_file_is_current() -> None:
    """The committed file is what the modules make."""
    assert bundler.TARGET.read_text(encoding="utf-8") == bundle()


def test_pasted_file_is_as_the_loader_needs_it() -> None:
    """Line 1 is three quotes, no requirements are asked for, nothing is left of helpers."""
    text = bundler.TARGET.read_text(encoding="utf-8")
    assert text.splitlines()[0] == '"""'
    assert "requirements:" not in text
    names = {
        node.module or "" for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)
    }
    assert not any(name.startswith("helpers") for name in names)
    classes = [node.name for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
    assert "Filter" in classes
    assert not {"Pipe", "Action", "Event"} & set(classes)


def test_parts_are_joined_with_banners(modules: Path) -> None:
    """Each part stands under its banner and its title, its internal imports gone."""
    (modules / "first.py").write_text('"""First."""\n\n' + "ONE = 1\n" * 40)
    text = bundle()
    assert f"{bundler.banner('first')}\n# First.\n\nONE = 1" in text
    assert f"{bundler.banner('second')}\n# Second.\n\nTWO = " in text
    assert "import os\n" in text
    assert "helpers.first" not in text


def test_contents_name_the_lines(modules: Path) -> None:
    """The list at the top leads to every part."""
    lines = bundle().splitlines()
    contents = [line.split(maxsplit=3) for line in lines if re.match(r"#  +\d+  \w", line)]
    assert [part for _, _, part, _ in contents] == ["first", "second"]
    for _, number, part, _ in contents:
        assert lines[int(number) - 1] == bundler.banner(part)


def test_texts_keep_their_blank_lines() -> None:
    """Between definitions one blank line is left; what a string holds stays as it is."""
    source = 'A = 1\n\n\ndef f():\n    return """a\n\n\nb"""\n\n\nB = f"""{A}\n\n\nc"""\n'
    shorter = 'A = 1\n\ndef f():\n    return """a\n\n\nb"""\n\nB = f"""{A}\n\n\nc"""\n'
    assert bundler.single_blanks(source) == shorter
    assert bundler.single_blanks(shorter) == shorter


def test_imports_fill_their_lines() -> None:
    """Imports of many names take as few lines as a hundred characters allow."""
    names = [f"name_{number:02}" for number in range(20)]
    block = "from x import (\n" + "".join(f"    {name},\n" for name in names) + ")\n"
    filled = bundler.fill_imports(block)
    assert ast.dump(ast.parse(filled)) == ast.dump(ast.parse(block))
    assert filled.count("\n") == 4
    assert max(map(len, filled.splitlines())) <= 100


def test_what_decides_stands_first() -> None:
    """The contents begin with the hooks and the rest of a request's way, and lead to each part."""
    lines = bundler.TARGET.read_text(encoding="utf-8").splitlines()
    contents = [line.split(maxsplit=3) for line in lines if re.match(r"#  *\d+  \w", line)]
    parts = [part for _, _, part, _ in contents]
    assert tuple(parts[: len(bundler.DECIDING)]) == bundler.DECIDING
    others = {part for part in bundler.PARTS if not bundler.is_language(part)}
    assert set(parts) == others | {"openwebui.languages.en"}
    assert len(parts) == len(set(parts))
    for _, number, part, _ in contents:
        assert lines[int(number) - 1] == bundler.banner(part)


@pytest.mark.parametrize(
    ("name", "source", "complaint"),
    [
        ("third.py", '"""T."""\n', "PARTS doesn't list third"),
        ("first.py", '"""F."""\nfrom helpers.second import TWO\n', "imports a later module"),
        ("second.py", '"""S."""\nfrom helpers.first import ONE as UNO\n', "imported as UNO"),
        ("second.py", '"""S."""\nONE = 2\n', "ONE is bound by helpers/first.py as well"),
        ("second.py", '"""S."""\nfrom os import sep as ONE\n', "ONE is bound by"),
        ("second.py", '"""S."""\n# see from ' + "utils\nTWO = 2\n", "which Open WebUI's loader"),
        ("second.py", "TWO = 2\n", "has no docstring"),
        ("second.py", '"""S."""\ndef two():\n    import os\n', "an import inside a function"),
    ],
)
def test_what_would_break_is_refused(modules: Path, name: str, source: str, complaint: str) -> None:
    """Each mistake is named with its place."""
    (modules / name).write_text(source)
    with pytest.raises(BundleError, match=complaint):
        bundle()
