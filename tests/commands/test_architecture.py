"""The picture and the answers in docs/architecture.md name what is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from scripts.readme_tables import DOCS, ROOT

PAGE = (DOCS / "architecture.md").read_text("utf-8")
PICTURE = re.findall(r"```mermaid\n(.*?)```", PAGE, re.DOTALL)[0]
BOXES = re.findall(r'"([\w/]+)<br/>([^"]+)"', PICTURE)
ANSWERS = re.findall(r"`([a-z_/]+)`: ((?:`\w+`(?: or )?)+)", PAGE.partition("## Where to look")[2])


def module_path(name: str) -> Path:
    """A module's file, or the folder of a package."""
    return ROOT / "helpers" / f"{name}.py"


def defined_in(name: str) -> set[str]:
    """Functions, classes and `Class.method` of a module."""
    found = set()
    for node in ast.walk(ast.parse(module_path(name).read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            inside = (ast.FunctionDef, ast.AsyncFunctionDef)
            found |= {f"{node.name}.{one.name}" for one in node.body if isinstance(one, inside)}
    return found


@pytest.mark.parametrize(("module", "names"), BOXES)
def test_boxes_are_code(module: str, names: str) -> None:
    """Each box of the picture names a module and what is defined in it."""
    assert set(names.split(", ")) <= defined_in(module)


def test_picture_has_the_way_of_a_request() -> None:
    """All hooks are in it, and no arrow leads from or to a box that isn't drawn."""
    hooks = {name for _, names in BOXES for name in names.split(", ") if name.startswith("Filter.")}
    assert hooks == {"Filter.inlet", "Filter.request", "Filter.stream", "Filter.outlet"}
    drawn = set(re.findall(r"(\w+)(?:\(\[|\[\"|\{\")", PICTURE))
    arrows = re.findall(r"^ +(\w+)\b.*--> ?(\w+)", PICTURE, re.MULTILINE)
    assert len(arrows) > len(BOXES)
    assert {end for arrow in arrows for end in arrow} <= drawn


@pytest.mark.parametrize(("module", "names"), ANSWERS)
def test_answers_are_code(module: str, names: str) -> None:
    """Each answer names a module and what is defined in it."""
    assert set(re.findall(r"`(\w+)`", names)) <= defined_in(module)


def test_five_questions_are_answered() -> None:
    """A newcomer finds in one guess what is asked most."""
    questions = PAGE.partition("## Where to look")[2].partition("##")[0]
    rows = re.findall(r"^\| (.+\?) \| (.+) \|$", questions, re.MULTILINE)
    assert len(rows) == 5
    for words in ("cache tokens", "text of a refusal", "ledger is away", "compared", "lowered"):
        assert any(words in question for question, _ in rows)
    assert all(re.search(r"`\w+`", answer) for _, answer in rows)
