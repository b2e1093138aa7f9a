"""Which model ids a pattern fits, and that no pattern takes long."""

from __future__ import annotations

import time
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.limits.globs import glob_fits


@pytest.mark.parametrize(
    ("glob", "fits", "fits_not"),
    [
        ("*", ["", "gpt-4o", "a\nb"], []),
        ("gpt-4*", ["gpt-4", "gpt-4o", "gpt-4\n"], ["GPT-4", "xgpt-4", "gpt-3"]),
        ("*-mini", ["gpt-mini", "-mini"], ["gpt-mini2", "mini"]),
        ("g?t", ["gpt", "g?t", "g\nt"], ["gt", "gppt"]),
        ("a*b*c", ["abc", "aXbYc", "abbc"], ["acb", "ab"]),
        ("m[1]", ["m[1]"], ["m1"]),
        ("[free] *", ["[free] gpt"], ["f gpt", "[free]gpt"]),
        ("a.b", ["a.b"], ["axb"]),
        ("", [""], ["a"]),
    ],
)
def test_what_a_glob_fits(glob: str, fits: list[str], fits_not: list[str]) -> None:
    """Only * and ? are special; the whole id has to fit, in its own case."""
    assert all(glob_fits(glob, name) for name in fits)
    assert not any(glob_fits(glob, name) for name in fits_not)


@given(st.text("ab*?.", max_size=8), st.text("ab.", max_size=10))
def test_globs_are_those_of_fnmatch(glob: str, name: str) -> None:
    """Without brackets a glob means what it means to Python's own fnmatch."""
    assert glob_fits(glob, name) == fnmatchcase(name, glob)


def test_many_stars_stay_fast() -> None:
    """A pattern of stars against a long id that almost fits takes no time worth speaking of."""
    began = time.perf_counter()
    assert not glob_fits("*a" * 40 + "*c", "a" * 4_000 + "b")
    assert time.perf_counter() - began < 2
