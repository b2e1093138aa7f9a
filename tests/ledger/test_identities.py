"""Whom names mean through renames: looked up by two workers that share a ledger."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from math import inf
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import inspect, select

from helpers.errors import LedgerError
from helpers.ledger.counters import join_names, split_names
from helpers.ledger.database import open_database
from helpers.ledger.identities import (
    HostNames,
    Identities,
    IdentityMemory,
    RememberedName,
    form_note,
    identify,
    read_remembered,
)
from helpers.ledger.ledger import Ledger
from helpers.ledger.tables import (
    MIGRATIONS,
    m001_first_tables,
    migrate_ledger,
    migrations_table,
    names_table,
)
from helpers.limits.globs import glob_fits
from helpers.limits.periods import CalendarRules
from helpers.limits.policies import Policy
from helpers.limits.policies_text import parse_policies
from helpers.limits.policy import (
    GroupRef,
    ModelNames,
    Subject,
    applied_limits,
    choose_policy,
    find_model_rule,
)
from helpers.openwebui.valves import FORM_TEXTS, AdminValves

pytest_plugins = ["tests.support.databases"]

TEXT = """
[group.Students]
priority = 10
limits = ["100 tokens/day"]

[group.Staff]
priority = 20
limits = "unlimited"

[group.g1]
priority = 30
limits = ["70 tokens/day"]

[user."Ann@example.org"]
limits = ["10 tokens/day"]

[user."bob@example.org"]
limits = "unlimited"

[pool.lab]
group = "Lab"
limits = ["500 tokens/day"]

[role.user]
limits = ["50 tokens/day"]
"""
POLICIES = parse_policies(TEXT)
GROUP_AMOUNTS = {"students": (10, 100), "staff": (20, inf), "g1": (30, 70)}
USER_AMOUNTS = {"ann@example.org": 10, "bob@example.org": inf}
HEADERS = {
    ("group", "students"): "[group.Students]",
    ("group", "staff"): "[group.Staff]",
    ("group", "lab"): "[pool.lab] group",
    ("user", "ann@example.org"): '[user."Ann@example.org"]',
    ("user", "bob@example.org"): '[user."bob@example.org"]',
}
DEFAULT = Policy("default", "default", None)
NAMES = [
    "Students",
    "STUDENTS ",
    " students",
    "Staff",
    "staff",
    "Lab",
    "LAB",
    "Other",
    "\u017ftaff",
]
EMAILS = ["ann@example.org", "bob@example.org", "eve@example.org", "a\u00f1n@example.org"]

# Few of each, and each in something from the beginning, so that names soon meet again.
slots = st.integers(0, 2)
group_names = st.tuples(st.just("name_group"), slots, st.sampled_from(NAMES))
user_names = st.tuples(st.just("name_user"), slots, st.sampled_from(EMAILS))
steps = st.lists(
    group_names
    | group_names
    | user_names
    | st.tuples(st.just("drop_group"), slots)
    | st.tuples(st.just("nest"), slots, slots)
    | st.tuples(st.just("join"), slots, slots)
    | st.tuples(st.just("leave"), slots, slots)
    | st.tuples(st.just("drop_user"), slots),
    min_size=20,
    max_size=40,
)
BEGINNING = [("join", slot, slot) for slot in range(3)]
# Staff is renamed and made anew, then Ann's address passes to another.
TAKEN_OVER = [
    ("name_group", 0, "Staff"),
    ("name_group", 0, "Other"),
    ("name_group", 1, "staff"),
    ("name_user", 0, "bob@example.org"),
    ("name_user", 0, "eve@example.org"),
    ("name_user", 1, "bob@example.org"),
]


@dataclass
class World:
    """Open WebUI's groups and users, and what was matched so far, told in the plainest way."""

    groups: dict[str, str] = field(default_factory=dict)
    users: dict[str, str] = field(default_factory=dict)
    parents: dict[str, str] = field(default_factory=dict)
    members: dict[str, set[str]] = field(default_factory=dict)  # group ids by user
    slots: dict[tuple[str, int], str] = field(default_factory=dict)
    claims: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    made: int = 0

    def entry(self, kind: str, slot: int) -> str:
        """The id in a slot: after it was dropped the next one there is somebody else."""
        known = self.groups if kind == "group" else self.users
        if self.slots.get((kind, slot)) not in known:
            self.made += 1
            self.slots[kind, slot] = f"{kind[0]}{self.made}"
            known[self.slots[kind, slot]] = f"{kind} {self.made}"
        return self.slots[kind, slot]

    def name_group(self, slot: int, name: str) -> None:
        self.groups[self.entry("group", slot)] = name

    def drop_group(self, slot: int) -> None:
        self.groups.pop(self.entry("group", slot))

    def nest(self, slot: int, above: int) -> None:
        self.parents[self.entry("group", slot)] = self.entry("group", above)

    def join(self, user: int, group: int) -> None:
        self.members.setdefault(self.entry("user", user), set()).add(self.entry("group", group))

    def leave(self, user: int, group: int) -> None:
        self.members.get(self.entry("user", user), set()).discard(self.entry("group", group))

    def name_user(self, slot: int, email: str) -> None:
        if email not in self.users.values():  # Open WebUI has each address once
            self.users[self.entry("user", slot)] = email

    def drop_user(self, slot: int) -> None:
        self.users.pop(self.entry("user", slot))

    def read(self, ids: Collection[str], addresses: Collection[str]) -> HostNames:
        users = {k: v for k, v in self.users.items() if k in ids or v in addresses}
        return HostNames(dict(self.groups), users)

    def groups_of(self, user: str) -> list[str]:
        found: list[str] = []
        waiting = sorted(self.members.get(user, ()))
        while waiting:
            group = waiting.pop()
            if group in self.groups and group not in found:
                found.append(group)
                waiting += [self.parents[group]] if group in self.parents else []
        return found

    def subject(self, user: str) -> Subject:
        refs = tuple(GroupRef(group, self.groups[group]) for group in self.groups_of(user))
        return Subject(user, self.users[user], "user", refs)

    def bearers(self, kind: str, key: str) -> set[str]:
        known = self.groups if kind == "group" else self.users
        return {entry for entry, name in known.items() if name.strip().lower() == key}

    def claim(self) -> None:
        """Who bears a name that means nobody else has it from now on, as long as it exists."""
        for kind, key in HEADERS:
            known = self.groups if kind == "group" else self.users
            alive = {entry for entry in self.claims.get((kind, key), ()) if entry in known}
            bearers = self.bearers(kind, key)
            written = {"students": "Students", "staff": "Staff", "lab": "Lab"}.get(key)
            exact = {one for one in bearers if known[one] == written}
            self.claims[kind, key] = alive or exact or bearers

    def contested(self, kind: str, key: str) -> set[str]:
        """Those of whom it is open whether a name means them."""
        claims, bearers = self.claims[kind, key], self.bearers(kind, key)
        newcomers = bearers - claims
        return newcomers | (claims - bearers) if newcomers else set()

    def allowed(self, user: str, with_contested: bool) -> float:
        """The tokens a day that the policies allow in one reading."""

        def meant(kind: str, key: str, entry: str) -> bool:
            open_to_doubt = self.contested(kind, key)
            if entry in open_to_doubt:
                return with_contested
            return entry in self.claims[kind, key]

        own = [amount for key, amount in USER_AMOUNTS.items() if meant("user", key, user)]
        if own:
            return min(own)
        candidates = []
        for group in self.groups_of(user):
            tables = [
                GROUP_AMOUNTS[key] for key in ("students", "staff") if meant("group", key, group)
            ]
            tables += [GROUP_AMOUNTS["g1"]] if group == "g1" else []
            if tables:
                candidates.append((min(t[0] for t in tables), min(t[1] for t in tables)))
        if candidates:
            best = min(priority for priority, _ in candidates)
            return min(amount for priority, amount in candidates if priority == best)
        return 50


@dataclass
class Worker:
    """One server process."""

    memory: IdentityMemory
    notices: list[tuple[str, ...]]


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """A ledger on SQLite."""
    engine = open_database(f"sqlite:///{tmp_path_factory.mktemp('names') / 'ledger.db'}")
    made = Ledger(engine)
    made.prepare()
    yield made
    engine.dispose()


def make_worker(ledger: Ledger, world: World, clock: list[float]) -> Worker:
    told: list[tuple[str, ...]] = [()]
    memory = IdentityMemory(
        partial(ledger.read, read_remembered),
        ledger.write_names,
        world.read,
        tuple,
        told.append,
        lambda: clock[0],
    )
    return Worker(memory, told)


def daily_tokens(subject: Subject) -> float:
    """The least that any of the user's own limits allows."""
    policy = choose_policy(subject, POLICIES, DEFAULT, "priority")
    limits = applied_limits(
        subject, policy, POLICIES, ("m",), datetime(2026, 3, 10, tzinfo=UTC), CalendarRules()
    )
    return min((one.limit.amount for one in limits if not one.is_pool), default=inf)


def is_in_pool(subject: Subject, group: str) -> bool:
    policy = choose_policy(subject, POLICIES, DEFAULT, "priority")
    at = datetime(2026, 3, 10, tzinfo=UTC)
    limits = applied_limits(subject, policy, POLICIES, ("m",), at, CalendarRules())
    return any(one.scope == f"group:{group}" for one in limits)


@pytest.mark.slow
@settings(
    max_examples=35,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@example(steps=TAKEN_OVER)
@given(steps=steps)
def test_nobody_gets_more_after_any_steps(ledger: Ledger, steps: list[tuple[Any, ...]]) -> None:
    """Through any renames each gets what the policies say, in doubt the least; gaps are reported.

    Renaming, re-casing, nesting, deleting and making anew: some 1,000 steps in all.
    """
    ledger._transactions.run(lambda connection: connection.execute(names_table.delete()))
    world, clock = World(), [0.0]
    workers = [make_worker(ledger, world, clock) for _ in range(2)]
    for name, *arguments in [*BEGINNING, *steps]:
        getattr(world, name)(*arguments)
        world.claim()
        clock[0] += 6
        for user in world.users:
            seen = [worker.memory.recall(POLICIES, world.subject(user)) for worker in workers]
            assert seen[0] == seen[1]
            given_now = daily_tokens(seen[0])
            readings = {world.allowed(user, reading) for reading in (False, True)}
            assert given_now <= min(readings)
            if len(readings) == 1:
                assert given_now in readings
            for group in world.groups_of(user):
                if group in world.claims["group", "lab"]:
                    assert is_in_pool(seen[0], group)
        if not world.users:
            for worker in workers:
                worker.memory.recall(POLICIES, Subject("x", "", "user"))
        for (kind, key), header in HEADERS.items():
            for worker in workers:
                said = any(one.startswith(f"{header} names nobody") for one in worker.notices[-1])
                assert said == (not world.claims[kind, key])


GROUPS = parse_policies('[group.Students]\nlimits = ["1 request/day"]')


def meaning(groups: dict[str, str], *remembered: str) -> Identities:
    names = [RememberedName("group", "students", key, "") for key in remembered]
    return identify(GROUPS, HostNames(groups, {}), names)


@pytest.mark.parametrize(
    ("groups", "remembered", "sure", "doubtful"),
    [
        ({"a": "students "}, (), {"a"}, set()),
        ({"a": "Students", "b": "students"}, (), {"a"}, {"b"}),
        ({"a": "Alumni"}, ("a",), {"a"}, set()),
        ({"a": "Alumni", "b": "Students"}, ("a",), set(), {"a", "b"}),
        ({"a": "Students", "b": "Students"}, ("a",), {"a"}, {"b"}),
        ({"b": "Students"}, ("a",), {"b"}, set()),
        ({"students": "x", "b": "Students"}, (), {"students"}, {"b"}),
        ({"b": "Students"}, ("students",), set(), {"b"}),
    ],
)
def test_whom_a_name_means(
    groups: dict[str, str], remembered: tuple[str, ...], sure: set[str], doubtful: set[str]
) -> None:
    """An id, else whom it meant, else who bears it; whoever else bears it is in doubt."""
    found = meaning(groups, *remembered)
    assert {key for _, key in found.sure} == sure
    assert {key for _, key in found.doubtful} == doubtful


def test_group_seen_between_two_looks() -> None:
    """A group that wasn't there at the last look is meant by its name if nobody else is."""
    ref = GroupRef("new", "STUDENTS")
    assert meaning({}).recall(Subject("u", "", "user", (ref,))).groups[0].keys == ("students",)
    late = meaning({"a": "Students"}).recall(Subject("u", "", "user", (ref,))).groups[0]
    assert (late.keys, late.doubtful) == ((), ("students",))


def test_two_tables_that_turn_out_to_mean_one_group() -> None:
    """A group named by its id and by its name is under the stricter of both, and it is said."""
    policies = parse_policies(
        '[group.g]\npriority = 1\nlimits = ["9 requests/day", "5 tokens/day"]\n'
        '[group.Lab]\npriority = 7\nlimits = ["2 requests/day"]'
    )
    found = identify(policies, HostNames({"g": "Lab"}, {}))
    assert found.problems == (
        '[group.Lab] and [group.g] mean the same group, "Lab": what is stricter in each counts.',
    )
    subject = found.recall(Subject("u", "", "user", (GroupRef("g", "Lab"),)))
    policy = choose_policy(subject, policies, DEFAULT, "priority")
    assert [str(limit) for limit in policy.limits or ()] == ["2 requests/day", "5 tokens/day"]
    assert policy.priority == 1


def test_ledger_away_while_looking(ledger: Ledger) -> None:
    """What was known still limits; without that the fault is told."""
    world, clock, away = World(groups={"a": "Students"}), [0.0], [False]

    def read(ids: Collection[str], addresses: Collection[str]) -> HostNames:
        if away[0]:
            raise LedgerError("away")
        return world.read(ids, addresses)

    memory = IdentityMemory(
        frozenset, lambda names: None, read, tuple, lambda told: None, lambda: clock[0]
    )
    subject = Subject("u", "", "user", (GroupRef("a", "Students"),))
    away[0] = True
    with pytest.raises(LedgerError):
        memory.recall(GROUPS, subject)
    away[0] = False
    assert memory.recall(GROUPS, subject).groups[0].keys == ("students",)
    away[0], clock[0] = True, 60.0
    renamed = Subject("u", "", "user", (GroupRef("a", "Alumni"),))
    assert memory.recall(GROUPS, renamed).groups[0].keys == ("students",)


def test_names_that_no_database_takes(ledger: Ledger) -> None:
    """A name with a NUL or of megabytes is matched but not remembered."""
    for name in ("a\x00b", "x" * 5_000_000):
        policies = parse_policies(
            f'[group."{name.replace(chr(0), chr(92) + "u0000")}"]\nlimits = "unlimited"'
        )
        found = identify(policies, HostNames({"a": name}, {}))
        assert found.sure == {("group", "a"): (name,)}
        assert not found.matched
        assert len(form_note((*found.notices, "<b>" * 3))) < 100


def test_older_ledger_gets_the_table(database_url: str) -> None:
    """A ledger of 0.1.0 is brought up to date, and remembers."""
    engine = open_database(database_url)
    with engine.begin() as connection:
        m001_first_tables(connection)
        names_table.drop(connection)
        connection.execute(migrations_table.insert().values(number=1, applied_at=1))
        assert migrate_ledger(connection, 2) == len(MIGRATIONS) - 1
        assert inspect(connection).has_table(names_table.name)
    ledger = Ledger(engine)
    name = RememberedName("group", "students", "a", "Students")
    for last_seen in ("Students", "Alumni"):
        ledger.write_names([RememberedName("group", "students", "a", last_seen)])
    assert {one.last_seen for one in ledger.read(read_remembered)} == {"Alumni"}
    with engine.connect() as connection:
        assert connection.execute(select(names_table.c.id)).scalars().all() == [name.id]
    engine.dispose()


def test_form_says_it() -> None:
    """A note stands above the description until it is taken away."""
    FORM_TEXTS.note("policies", form_note(("[group.X] names nobody",) * 12))
    described = AdminValves.model_json_schema()["properties"]["policies"]["description"]
    assert described.startswith("- [group.X] names nobody\n")
    assert "- and 2 more, in the server's log\n\nLimits for" in described
    FORM_TEXTS.note("policies", "")
    FORM_TEXTS.note("policies", "")
    assert "nobody" not in str(AdminValves.model_json_schema())


@pytest.mark.parametrize(
    ("glob", "name", "fits"),
    [
        ("m[1]", "m[1]", True),
        ("m[1]", "m1", False),
        ("[free] gpt-4o", "[free] gpt-4o", True),
        ("[free] *", "[free] gpt-4o", True),
        ("a?c", "abc", True),
        ("a?c", "ac", False),
        ("a|b", "a|b", True),
        ("a|b", "a", False),
        ("*a*b", "xxaxb", True),
        ("a*a", "a", False),
        ("*ab*ab", "abab", True),
        ("a.c", "abc", False),
        ("m*", "m\n1", True),
        ("*a" * 30 + "b", "a" * 20_000, False),
    ],
)
def test_globs(glob: str, name: str, fits: bool) -> None:
    """Only * and ? are special, an id fits itself, and no id takes long."""
    assert glob_fits(glob, name) is fits


@given(st.text(st.characters(exclude_categories=())))
def test_an_id_fits_itself(name: str) -> None:
    """Whatever characters it has."""
    assert glob_fits(name, name)


@given(st.lists(st.text(st.sampled_from("a|\x1a01 %"), min_size=1)))
def test_joined_names_are_read_back(names: list[str]) -> None:
    """Names with any characters come back as they were, and none can look like two."""
    assert list(split_names(join_names(names))) == names


def test_names_of_older_rows() -> None:
    """Rows of 0.1.0 read as they did."""
    assert split_names("|a b|%7C|C:\\models|") == ("a b", "%7C", "C:\\models")


RULES = parse_policies(
    '[model."llama*"]\nweight = 0\n[model."gpt*"]\nweight = 3\n[model.gpt-4o]\nweight = 5\n'
    "[model.tutor]\nweight = 2\n[model.arena]\nweight = 0"
)


def names(*given_names: str, called: str) -> ModelNames:
    found = ModelNames(given_names)
    found.called = called
    return found


@pytest.mark.parametrize(
    ("model_names", "weight"),
    [
        (("llama-of-mine", "gpt-4o"), 5),
        (("llama-of-mine", "gpt-5"), 3),
        (("tutor", "gpt-4o"), 2),
        (("gpt-4o",), 5),
        (("llama3",), 0),
        (("gpt-of-mine", "llama3"), 0),
        (("other",), 1),
        ((), 1),
        (names("gpt-4o", "arena", called="gpt-4o"), 5),
        (names("other", "arena", called="other"), 1),
        (names("gpt-5", "tutor", called="gpt-5"), 3),
    ],
)
def test_prices_follow_the_model_that_is_called(model_names: tuple[str, ...], weight: int) -> None:
    """An exact id wins, the custom model's own first; globs are for the model called."""
    assert find_model_rule(RULES, model_names).weight == weight


def test_a_name_that_a_user_has_chosen_has_no_price() -> None:
    """Of a user's own model only the base's table counts."""
    mine = names("tutor", "gpt-4o", called="gpt-4o")
    assert find_model_rule(RULES, mine).weight == 2
    mine.users_own = True
    assert find_model_rule(RULES, mine).weight == 5
