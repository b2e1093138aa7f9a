"""Tests of helpers.limits.policies and helpers.limits.policies_text."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.errors import ConfigurationError
from helpers.limits.limit import Limit, parse_limit
from helpers.limits.policies import ModelRule, Policy, PolicySet, Pool
from helpers.limits.policies_text import DEFAULT_GROUP_PRIORITY, PoliciesError, parse_policies

# Each file is one mistake; its first lines, after "#! ", are the error that it has to give.
BAD_POLICIES = sorted((Path(__file__).parents[1] / "data" / "bad_policies").glob("*.toml"))

DESIGN_EXAMPLE = """
[group.Students]
priority = 10                       # lower number wins among a user's groups
limits = ["50k tokens/day", "1M tokens/month", "5k tokens/day on gpt-4*", "30 requests/hour"]

[group."Research Lab"]
priority = 5
limits = ["2M tokens/month warn 70% 90%", "$20/month"]

[role.user]
limits = ["20k tokens/day"]

[user."ann@example.org"]            # e-mail or user id
limits = "unlimited"

[pool.everyone]                     # one counter for the whole instance
limits = ["100M tokens/month"]

[pool.lab]                          # one counter for all members of a group
group = "Research Lab"
limits = ["10M tokens/week"]

[model."gpt-4*"]                    # prices in $ per million tokens; weight multiplies tokens
input_price = 2.5
output_price = 10
weight = 5

[model."llama*"]
weight = 0                          # free: recorded, never counted, still usable over a limit
"""


def limits_of(*texts: str) -> tuple[Limit, ...]:
    return tuple(parse_limit(text) for text in texts)


def test_the_example_of_the_design_is_read() -> None:
    """Every kind of table gives its value, in the order of the text."""
    students = limits_of(
        "50k tokens/day", "1M tokens/month", "5k tokens/day on gpt-4*", "30 requests/hour"
    )
    lab = limits_of("2M tokens/month warn 70% 90%", "$20/month")
    assert parse_policies(DESIGN_EXAMPLE) == PolicySet(
        groups={
            "students": Policy("Students", "group", students, 10),
            "research lab": Policy("Research Lab", "group", lab, 5),
        },
        roles={"user": Policy("user", "role", limits_of("20k tokens/day"))},
        users={"ann@example.org": Policy("ann@example.org", "user", None)},
        pools=(
            Pool("everyone", None, limits_of("100M tokens/month")),
            Pool("lab", "Research Lab", limits_of("10M tokens/week")),
        ),
        models=(
            ModelRule("gpt-4*", Decimal("2.5"), Decimal(10), None, Decimal(5)),
            ModelRule("llama*", weight=Decimal(0)),
        ),
    )


@pytest.mark.parametrize("text", ["", " \n\t\n", "# nothing yet\n", "\ufeff", "[group]\n"])
def test_an_empty_text_is_an_empty_set(text: str) -> None:
    """No tables are no policies, not a mistake."""
    assert parse_policies(text) == PolicySet()


@pytest.mark.parametrize("limits", ['"unlimited"', '" Unlimited "'])
def test_unlimited_is_no_limit(limits: str) -> None:
    """The text "unlimited" gives None, which isn't the same as a limit of 0."""
    assert parse_policies(f"[role.user]\nlimits = {limits}").roles["user"].limits is None
    zero = parse_policies('[role.user]\nlimits = "0 tokens/day"').roles["user"].limits
    assert zero == limits_of("0 tokens/day")


def test_limits_may_be_one_text_or_a_list() -> None:
    """A single text is a list of one."""
    one = parse_policies('[role.user]\nlimits = "20k tokens/day"')
    assert one == parse_policies('[role.user]\nlimits = ["20k tokens/day"]')


def test_groups_without_a_priority_come_after_the_ranked_ones() -> None:
    """The default priority is a high number, and a low number wins."""
    groups = parse_policies('[group.x]\nlimits = "unlimited"').groups
    assert groups["x"].priority == DEFAULT_GROUP_PRIORITY == 100


def test_emails_are_found_in_any_case_and_shown_as_written() -> None:
    """An e-mail address and a group's name are kept in lower case; a user id as it is."""
    found = parse_policies(
        '[user."Ann@Example.ORG"]\nlimits = "unlimited"\n[user.4F-a]\nlimits = "unlimited"\n'
        '[group." Lab B "]\nlimits = "unlimited"\n'
    )
    assert {key: policy.name for key, policy in found.users.items()} == {
        "ann@example.org": "Ann@Example.ORG",
        "4F-a": "4F-a",
    }
    assert list(found.groups) == ["lab b"]


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("group", "Lab", " LAB"),
        ("user", "ann@example.org", "Ann@Example.org "),
        ("user", "7", "7 "),
    ],
)
def test_two_tables_of_the_same_one(kind: str, one: str, other: str) -> None:
    """Two names that can only mean the same group or user are an error."""
    tables = "".join(f'[{kind}."{name}"]\nlimits = "unlimited"\n' for name in (one, other))
    with pytest.raises(PoliciesError, match=f"the same {kind} as"):
        parse_policies(tables)


def test_letters_that_only_fold_alike_differ() -> None:
    """The long s is no s: two addresses, two tables."""
    text = '[user."{0}am@example.org"]\nlimits = "unlimited"\n'
    assert len(parse_policies(text.format("s") + text.format("\u017f")).users) == 2


def test_prices_and_weights_are_exact() -> None:
    """Numbers are decimals as written, never through a float."""
    found = parse_policies(
        '[model."a b"]\ninput_price = 0.1\noutput_price = 1e2\ncached_input_price = 0\n'
        "weight = 0.30000000000000000001\n"
    )
    assert found.models == (
        ModelRule(
            "a b",
            Decimal("0.1"),
            Decimal("1e2"),
            Decimal(0),
            Decimal("0.30000000000000000001"),
        ),
    )
    assert all(isinstance(rule.weight, Decimal) for rule in found.models)
    assert parse_policies("[model.x]").models == (ModelRule("x", None, None, None, Decimal(1)),)


def test_the_same_limit_on_other_models_periods_or_measures_is_another_limit() -> None:
    """Only the same measure, period and models count as a duplicate; a day isn't 24 hours."""
    texts = [
        "50k tokens/day",
        "50k tokens/24h",
        "50k tokens/day on gpt-4*",
        "50k input tokens/day",
        "50k requests/day",
        "$50/day",
    ]
    found = parse_policies(f"[role.user]\nlimits = {json.dumps(texts)}")
    assert found.roles["user"].limits == limits_of(*texts)


def test_windows_line_ends_and_byte_order_mark_are_no_mistake() -> None:
    """A text from a Windows editor reads like any other."""
    windows = "\ufeff" + DESIGN_EXAMPLE.replace("\n", "\r\n")
    assert parse_policies(windows) == parse_policies(DESIGN_EXAMPLE)


@pytest.mark.parametrize("path", BAD_POLICIES, ids=lambda path: path.stem)
def test_wrong_policies_are_refused(path: Path) -> None:
    """Each mistake has its error: where it is, what was given, what is allowed."""
    text = path.read_text(encoding="utf-8")
    expected = [line[3:] for line in text.splitlines() if line.startswith("#! ")]
    with pytest.raises(PoliciesError) as caught:
        parse_policies(text)
    assert str(caught.value).splitlines() == expected
    for mistake in caught.value.errors:
        assert mistake.where.startswith(("policies", "["))
        assert mistake.given
        assert mistake.allowed


def test_a_wrong_text_is_a_configuration_error() -> None:
    """The error is a ValueError, as pydantic wants it, with the first mistake's data."""
    with pytest.raises(ConfigurationError) as caught:
        parse_policies('[group.A]\nlimit = 1\n[role.B]\nlimits = "unlimited"')
    assert isinstance(caught.value, ValueError)
    assert (caught.value.where, caught.value.given) == ("[group.A]", 'unknown key "limit"')
    assert len(str(caught.value).splitlines()) == 2


@given(st.text())
def test_any_text_is_policies_or_a_policies_error(text: str) -> None:
    """No text makes the parser fail in any other way."""
    refuses_or_reads(text)


@given(
    st.recursive(
        st.one_of(st.booleans(), st.integers(), st.text(), st.just("5 tokens/day")),
        lambda values: st.one_of(
            st.lists(values, max_size=3),
            st.dictionaries(
                st.sampled_from(["limits", "priority", "group", "weight", "user", "a@b"]),
                values,
                max_size=3,
            ),
        ),
    ),
    st.sampled_from(["group", "role", "user", "pool", "model", "limits"]),
)
def test_any_values_are_policies_or_a_policies_error(value: object, kind: str) -> None:
    """No value in a place where it doesn't belong makes the parser fail in any other way."""
    refuses_or_reads(f"{kind} = {toml_value(value)}")


def refuses_or_reads(text: str) -> None:
    try:
        parse_policies(text)
    except PoliciesError as error:
        mistakes = error.errors
    else:
        return
    assert all(mistake.where and mistake.given and mistake.allowed for mistake in mistakes)


def toml_value(value: object) -> str:
    """A value as TOML writes it in one line."""
    if isinstance(value, dict):
        pairs = (f"{json.dumps(key)} = {toml_value(entry)}" for key, entry in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(toml_value(entry) for entry in value) + "]"
    return json.dumps(value, ensure_ascii=False)
