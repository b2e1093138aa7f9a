"""What the tests said about each Open WebUI, as tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from scripts.compat.environments import parse_version
from scripts.compat.hosts import ABILITIES, FEATURES, Feature, left_out
from scripts.readme_tables import table


@dataclass(frozen=True, slots=True)
class HostResults:
    """The outcome of every test on one version: whether it passed, by its name."""

    version: str
    python: str
    outcomes: dict[str, bool]

    @property
    def failures(self) -> list[str]:
        """The tests that failed."""
        return [name for name, passed in self.outcomes.items() if not passed]

    def cell(self, feature: Feature) -> str:
        """What the table says about a feature."""
        outcomes = [
            passed
            for name, passed in self.outcomes.items()
            if name.partition("[")[0] in feature.tests
        ]
        if False in outcomes:
            return f"{outcomes.count(False)} of {len(outcomes)} tests fail"
        if feature.needs and not feature.needs.is_in(parse_version(self.version)):
            return feature.without
        return "yes" if outcomes else "not tested"


def other_tests(results: Sequence[HostResults]) -> Feature:
    """What the list of features doesn't name yet."""
    known = {test for feature in FEATURES for test in feature.tests}
    found = {name.partition("[")[0] for host in results for name in host.outcomes}
    return Feature("Everything else", tuple(sorted(found - known)))


def read_outcomes(report: Path) -> dict[str, bool]:
    """The outcomes in a report that pytest wrote (`--junitxml`)."""
    cases = ElementTree.parse(report).getroot().iter("testcase")
    bad = ("failure", "error", "skipped")
    return {case.get("name", ""): all(case.find(tag) is None for tag in bad) for case in cases}


def totals_table(results: Sequence[HostResults]) -> str:
    """How many tests passed and failed on each version, and how many make no sense there."""
    rows = (
        (
            host.version,
            host.python,
            str(len(host.outcomes) - len(host.failures)),
            str(len(host.failures)),
            str(len(left_out(parse_version(host.version)))),
        )
        for host in results
    )
    return table(("Open WebUI", "Python", "Passed", "Failed", "Left out"), rows)


def merge_pythons(results: Sequence[HostResults]) -> list[HostResults]:
    """One column for each version: a test has passed if it has on every Python."""
    merged: dict[str, HostResults] = {}
    for host in results:
        one = merged.setdefault(host.version, HostResults(host.version, "", {}))
        for name, passed in host.outcomes.items():
            one.outcomes[name] = passed and one.outcomes.get(name, True)
    return list(merged.values())


def features_table(results: Sequence[HostResults]) -> str:
    """What works on each version."""
    results = merge_pythons(results)
    others = other_tests(results)
    features = [*FEATURES, others] if others.tests else FEATURES
    rows = ([feature.name, *(host.cell(feature) for host in results)] for feature in features)
    return table(("What works", *(host.version for host in results)), rows)


def differences_table() -> str:
    """What older versions can't do, and what the tests expect there instead."""
    rows = (
        (
            ability.name,
            ".".join(map(str, ability.since)),
            ability.before,
            ", ".join(f"`{test}`" for test in ability.needed_by) or "–",
        )
        for ability in ABILITIES
    )
    return table(("What", "Since", "Before", "Tests left out before"), rows)


def all_tables(results: Sequence[HostResults]) -> str:
    """Everything there is to say."""
    parts = (totals_table(results), features_table(results), differences_table())
    return "\n\n".join(parts)
