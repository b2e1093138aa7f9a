"""Which limits apply: one policy for each user, every pool on top."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from helpers.limits.limit import parse_limit
from helpers.limits.periods import CalendarRules
from helpers.limits.policies import Policy
from helpers.limits.policies_text import PoliciesError, parse_policies
from helpers.limits.policy import (
    GroupRef,
    Subject,
    applied_limits,
    choose_policy,
    find_model_rule,
    limits_via,
    policy_generosity,
    stricter_of,
)

TEXT = """
[group.Students]
priority = 10
limits = ["50k tokens/day", "1M tokens/month"]

[group.Lab]
priority = 5
limits = ["20k tokens/day"]

[group.Staff]
priority = 20
limits = "unlimited"

[role.user]
limits = ["1k tokens/day"]

[user."Ann@example.org"]
limits = ["7 requests/hour on gpt-4*"]

[user.u-bob]
limits = "unlimited"

[pool.everyone]
limits = ["100M tokens/month"]

[pool.lab]
group = "Lab"
limits = ["10M tokens/week"]

[model."gpt-4*"]
input_price = 2.5
cached_input_price = 1.25
output_price = 10
weight = 5

[model."*"]
weight = 0.5
"""
POLICIES = parse_policies(TEXT)
DEFAULT = Policy("default", "default", None)


def subject(*groups: str, email: str = "joe@example.org", user_id: str = "u", role: str = "user"):
    refs = tuple(GroupRef(f"id-{name}", name) for name in groups)
    return Subject(user_id, email, role, refs)


@pytest.mark.parametrize(
    ("who", "name"),
    [
        (subject("Students", email="ANN@example.org"), "Ann@example.org"),
        (subject("Students", user_id="u-bob"), "u-bob"),
        (subject("Students", "Lab"), "Lab"),
        (subject("Students", "Staff"), "Students"),
        (subject("Unknown"), "user"),
        (subject(), "user"),
        (subject(role="pending"), "default"),
    ],
)
def test_one_policy_is_chosen(who: Subject, name: str) -> None:
    """The user's own counts before the first group's by priority, and that before the role's."""
    assert choose_policy(who, POLICIES, DEFAULT, "priority").name.casefold() == name.casefold()


@pytest.mark.parametrize(
    ("groups", "name"),
    [(("Students", "Lab"), "Students"), (("Students", "Lab", "Staff"), "Staff")],
)
def test_most_generous_group(groups: tuple[str, ...], name: str) -> None:
    """With `most_generous` the group that allows most per day counts."""
    assert choose_policy(subject(*groups), POLICIES, DEFAULT, "most_generous").name == name


def test_generosity_compares_rates() -> None:
    """A month's limit is less than thirty-one times a day's, and a rolling one counts by length."""
    rate = {
        text: policy_generosity(parse_policies(f'[role.user]\nlimits = ["{text}"]').roles["user"])
        for text in (
            *("10k tokens/day", "200k tokens/month", "6k tokens/12h", "9k tokens/day on x"),
            *("1M tokens/quarter", "3M tokens/year", "1k tokens/day via api", "1k tokens/request"),
            "1 request at once",
        )
    }
    assert rate["3M tokens/year"] < rate["10k tokens/day"] < rate["1M tokens/quarter"]
    unlimited = policy_generosity(Policy("", "role", None))
    for narrowing in ("1k tokens/day via api", "1k tokens/request", "1 request at once"):
        assert rate[narrowing] == unlimited
    assert rate["200k tokens/month"] < rate["10k tokens/day"] < rate["6k tokens/12h"]
    assert rate["9k tokens/day on x"] > rate["6k tokens/12h"]


def test_pools_apply_on_top() -> None:
    """A member of a group is under the policy, the group's pool and the instance's."""
    who = subject("Lab")
    limits = applied_limits(
        who,
        choose_policy(who, POLICIES, DEFAULT, "priority"),
        POLICIES,
        ("llama3",),
        datetime(2026, 3, 10, tzinfo=UTC),
        CalendarRules(),
    )
    assert [(limit.scope, limit.policy, limit.is_pool) for limit in limits] == [
        ("user:u", "Lab", False),
        ("everyone", "everyone", True),
        ("group:id-Lab", "lab", True),
    ]


@pytest.mark.parametrize(
    ("names", "applies"),
    [(("gpt-4o",), True), (("my-model", "gpt-4o"), True), (("gpt-3",), False), ((), False)],
)
def test_limit_on_a_model(names: tuple[str, ...], applies: bool) -> None:
    """A limit on a glob applies where the chosen model or one behind it matches."""
    who = subject(email="ann@example.org")
    policy = choose_policy(who, POLICIES, DEFAULT, "priority")
    at = datetime(2026, 3, 10, tzinfo=UTC)
    limits = applied_limits(who, policy, POLICIES, names, at, CalendarRules())
    assert any(limit.limit.measure == "requests" for limit in limits) == applies


def test_limits_via_a_source() -> None:
    """A limit on a source counts what comes from there; one without counts all."""
    text = '[role.user]\nlimits = ["9k tokens/day", "5k tokens/day via api", "3 requests at once"]'
    policies = parse_policies(text)
    who, at = subject(), datetime(2026, 3, 10, tzinfo=UTC)
    policy = choose_policy(who, policies, DEFAULT, "priority")
    limits = applied_limits(who, policy, policies, ("m",), at, CalendarRules())
    assert [str(one.limit) for one in limits_via(limits, "api")] == [
        *("9k tokens/day", "5k tokens/day via api", "3 requests at once")
    ]
    assert [str(one.limit) for one in limits_via(limits, "page")] == [
        *("9k tokens/day", "3 requests at once")
    ]


def test_the_same_limit_on_two_sources_is_two_limits() -> None:
    """Of limits that differ in their source alone both count; of two alike one is refused."""
    several = '"9k tokens/day", "5k tokens/day via api", "4k tokens/day via page"'
    policies = parse_policies(f"[role.user]\nlimits = [{several}]")
    assert len(policies.roles["user"].limits or ()) == 3
    with pytest.raises(PoliciesError, match="counts the same as"):
        parse_policies('[role.user]\nlimits = ["5k tokens/day via api", "6k tokens/day via API"]')
    with pytest.raises(PoliciesError, match="counts the same as"):
        parse_policies('[role.user]\nlimits = ["3 requests at once", "4 requests at once"]')


def test_first_model_table_that_matches_counts() -> None:
    """Model tables are tried in the order of the text, on every name of the model."""
    assert find_model_rule(POLICIES, ("custom", "gpt-4o")).weight == 5
    assert find_model_rule(POLICIES, ("llama3",)).weight == Decimal("0.5")
    assert find_model_rule(parse_policies(""), ("llama3",)).weight == 1


def test_both_readings_of_a_doubtful_name() -> None:
    """In doubt each limit of either policy counts, the least of two alike; unlimited is nothing."""
    ten, twenty, three = (
        parse_limit(text) for text in ("10 tokens/day", "20 tokens/day", "3 requests/hour")
    )
    one, other = Policy("a", "group", (twenty,), 7), Policy("b", "group", (three, ten), 5)
    free = Policy("c", "group", None, 9)
    assert stricter_of([one]) is one
    assert stricter_of([one, other]) == Policy("a", "group", (ten, three), 5)
    assert stricter_of([free, one]) == Policy("c", "group", (twenty,), 7)
    assert stricter_of([free, free]).limits is None
