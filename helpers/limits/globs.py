"""Globs: which model ids a pattern of an administrator's fits."""

from __future__ import annotations

import re
from functools import lru_cache


@lru_cache(maxsize=1024)
def compiled_glob(glob: str) -> re.Pattern[str]:
    """A pattern in which only ``*`` and ``?`` are special.

    ``[`` and ``]`` are not: ids such as ``m[1]`` and ``[free] gpt-4o`` are common. The shortest
    text before each part is never given back, as in Python's own fnmatch: many ``*`` stay fast.
    """
    first, *others = [re.escape(part).replace(r"\?", ".") for part in glob.split("*")]
    if not others:
        return re.compile(first, re.DOTALL)
    *middle, last = others
    return re.compile(
        first + "".join(f"(?>.*?{part})" for part in middle if part) + f".*{last}", re.DOTALL
    )


def glob_fits(glob: str, name: str) -> bool:
    """Whether a glob, or the exact id, fits a model's id; case matters, as it does to the host."""
    return glob in ("*", name) or compiled_glob(glob).fullmatch(name) is not None
