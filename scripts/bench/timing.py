"""Timing on a busy machine: variants take turns in one run, and medians are compared."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)


def take_turns(
    variants: Mapping[Name, Callable[[], object]],
    rounds: int,
    each: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Name, list[float]]:
    """Seconds per call of each variant: `each` calls of one, then of the next, `rounds` times.

    What slows the machine down for a while slows all of them down alike.
    """
    seconds: dict[Name, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, call in variants.items():
            for _ in range(each):
                began = clock()
                call()
                seconds[name].append(clock() - began)
    return seconds


def median_ms(seconds: list[float]) -> float:
    """The median in milliseconds."""
    return statistics.median(seconds) * 1_000


def percentile(values: list[float], percent: float) -> float:
    """The value below which `percent` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
