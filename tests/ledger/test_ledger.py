"""The ledger on real databases: one transaction each, exact under concurrency."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from helpers.ledger.database import open_database
from helpers.ledger.ledger import Ledger
from helpers.ledger.records import LEASE_SECONDS
from helpers.ledger.tables import counters_table, grants_table
from helpers.limits.decisions import Amounts
from helpers.limits.periods import CalendarRules
from helpers.limits.policies_text import parse_policies
from helpers.limits.policy import GroupRef, Subject, applied_limits
from helpers.metering.charges import Charge
from tests.support.ledger_fixture import NOON, Clock, LedgerFixture, standing, tokens

pytest_plugins = ["tests.support.databases"]


@pytest.fixture
def fixture(database_url: str) -> Iterator[LedgerFixture]:
    engine = open_database(database_url)
    clock = Clock()
    yield LedgerFixture(Ledger(engine, clock=clock), engine, clock)
    engine.dispose()


def test_limit_is_reached_by_what_was_settled(fixture: LedgerFixture) -> None:
    """A request below the limit is booked in full; the next one is refused."""
    fixture.use("100 tokens/day", used=tokens(90, 90))
    decision = fixture.ask("100 tokens/day")
    assert not decision.allowed
    assert decision.refusing is not None
    assert (decision.refusing.used, decision.refusing.reserved) == (180, 0)
    assert decision.refusing.reset_at == datetime(2026, 3, 11, tzinfo=UTC)


def test_open_reservation_counts(fixture: LedgerFixture) -> None:
    """What a running reply holds counts like what was used."""
    assert fixture.ask("20 tokens/day").allowed
    assert not fixture.ask("20 tokens/day").allowed


@pytest.mark.parametrize("limit", ["100 tokens/hour", "100 tokens/5h"])
@pytest.mark.parametrize("is_pool", [False, True])
def test_reply_ends_in_a_window_that_another_has_begun(
    fixture: LedgerFixture, limit: str, is_pool: bool
) -> None:
    """A reply counts in the window in which it began, whoever has asked in the next one since."""
    texts, pool = ((), limit) if is_pool else ((limit,), "")
    fixture.ask(*texts, pool=pool)
    slow = fixture.made[-1]
    fixture.clock.now += 6 * 3_600
    fixture.use(*texts, pool=pool, used=tokens(3, 4))
    ended = fixture.ledger.settle(slow, tokens(50, 50), fixture.limits(slow, *texts, pool=pool))
    assert ended.closed
    assert [state.used for state in ended.decision.states] == [7]
    assert {row.state for row in fixture.rows()} == {"settled"}


def test_tables_in_a_schema(database_url: str) -> None:
    """The ledger's tables are where Open WebUI's DATABASE_SCHEMA says."""
    engine = open_database(database_url)
    schema = "main" if engine.dialect.name == "sqlite" else "owui"
    if schema == "owui":
        with engine.begin() as connection:
            connection.execute(text("CREATE SCHEMA owui"))
    fixture = LedgerFixture(Ledger(engine, schema, clock=(clock := Clock())), engine, clock)
    decision = fixture.use(
        "100 tokens/day", "9 requests/5h", used=tokens(60, 0), pool="1 request/day"
    )
    assert [state.used for state in decision.states] == [60, 1, 1]
    assert not fixture.ask(pool="1 request/day").allowed
    with engine.begin() as connection:
        states = connection.execute(text(f"SELECT state FROM {schema}.usage_limits_records"))
        assert states.scalars().all() == ["settled"]
    engine.dispose()


def test_released_reservation_costs_nothing(fixture: LedgerFixture) -> None:
    """A call that failed gives back all that was reserved, its request included."""
    assert fixture.ask("1 request/day").allowed
    fixture.ledger.settle(fixture.made[-1], None, ())
    assert fixture.ask("1 request/day").allowed
    assert not fixture.ask("1 request/day").allowed


def test_settling_twice_charges_once(fixture: LedgerFixture) -> None:
    """Only the first end of a reply changes anything."""
    fixture.use("1k tokens/day", used=tokens(100, 0))
    again = fixture.ledger.settle(
        fixture.made[0], tokens(300, 0), fixture.limits(fixture.made[0], "1k tokens/day")
    )
    assert again.decision.states[0].used == 100
    assert [row.input_tokens for row in fixture.rows()] == [100]


def test_new_day_opens_the_limit(fixture: LedgerFixture) -> None:
    """A calendar window forgets the one before."""
    fixture.use("100 tokens/day", used=tokens(100, 0))
    assert not fixture.ask("100 tokens/day").allowed
    fixture.clock.now += 12 * 3600
    assert fixture.ask("100 tokens/day").allowed


def test_reply_over_midnight_counts_where_it_was_admitted(fixture: LedgerFixture) -> None:
    """A reply belongs to the window in which it was admitted."""
    assert fixture.ask("100 tokens/day").allowed
    fixture.clock.now += 12 * 3600
    fixture.ledger.settle(fixture.made[0], tokens(500, 0), ())
    decision = fixture.ask("100 tokens/day")
    assert decision.allowed
    assert decision.states[0].taken == 0


def test_new_limit_counts_what_was_used_before_it(fixture: LedgerFixture) -> None:
    """A limit that is added in mid-month starts from what the month's records say."""
    fixture.use(used=tokens(700, 0))
    decision = fixture.ask("1k tokens/month")
    assert decision.states[0].used == 700


def test_model_limit_counts_only_its_models(fixture: LedgerFixture) -> None:
    """A limit on a model glob counts the chosen model and the models behind it."""
    fixture.use(used=tokens(100, 0), model_names=("my-gpt", "gpt-4o"))
    fixture.use(used=tokens(10, 0), model_names=("llama3",))
    decision = fixture.ask("1k tokens/day on gpt-4*", "1k tokens/day")
    assert [state.used for state in decision.states] == [100, 110]


def test_measures(fixture: LedgerFixture) -> None:
    """Input, output, both, requests and money are counted apart."""
    texts = [
        "1k tokens/day",
        "1k input tokens/day",
        "1k output tokens/day",
        "9 requests/day",
        "$1/day",
    ]
    fixture.use(*texts, used=tokens(30, 7, cost=42))
    decision = fixture.ask(*texts)
    assert [state.used for state in decision.states] == [37, 30, 7, 1, 42]


def test_free_model_counts_nothing(fixture: LedgerFixture) -> None:
    """A model of weight 0 is recorded with its tokens and counts toward no limit."""
    fixture.use(used=tokens(100, 50, weight="0"))
    decision = fixture.ask("1k tokens/day", "9 requests/day")
    assert [state.used for state in decision.states] == [0, 0]
    assert (fixture.rows()[0].input_tokens, fixture.rows()[0].output_tokens) == (100, 50)


def test_weight_multiplies_tokens(fixture: LedgerFixture) -> None:
    """A model that counts five times uses up five times its tokens."""
    fixture.use(used=tokens(3, 1, weight="2.5"))
    decision = fixture.ask("1k tokens/day")
    assert decision.states[0].used == 8 + 3


def test_rolling_window_lets_go(fixture: LedgerFixture) -> None:
    """A rolling window forgets each record one period after it, and says when that is."""
    fixture.use("100 tokens/5h", used=tokens(60, 0))
    fixture.clock.now += 3600
    fixture.use("100 tokens/5h", used=tokens(60, 0))
    decision = fixture.ask("100 tokens/5h")
    assert decision.refusing is not None
    assert decision.refusing.reset_at == datetime.fromtimestamp(NOON + 5 * 3600, UTC)
    fixture.clock.now = NOON + 5 * 3600 - 1
    assert not fixture.ask("100 tokens/5h").allowed
    fixture.clock.now = NOON + 5 * 3600
    decision = fixture.ask("100 tokens/5h")
    assert decision.allowed
    assert decision.states[0].used == 60
    fixture.clock.now = NOON + 30 * 3600
    assert (
        standing(
            fixture.ledger,
            fixture.reservation(),
            fixture.limits(fixture.reservation(), "100 tokens/5h"),
        )
        .states[0]
        .taken
        == 0
    )


def test_pool_counts_every_member(fixture: LedgerFixture) -> None:
    """A pool counts what all its users use, and counts it from before it was made."""
    fixture.use(used=tokens(60, 0), user="ann")
    fixture.ask(user="bob")
    fixture.ledger.settle(fixture.made[-1], tokens(50, 0), ())
    decision = fixture.ask(pool="100 tokens/day", user="eve")
    assert not decision.allowed
    assert decision.states[0].used == 110


def test_group_pool_counts_its_members_only(fixture: LedgerFixture) -> None:
    """A group's pool counts those who were in the group when they used it."""
    lab = Subject("ann", "ann@example.org", "user", (GroupRef("g1", "Lab"),))
    other = Subject("bob", "bob@example.org", "user", (GroupRef("g12", "Other"),))
    for subject in (lab, other):
        reservation = fixture.reservation(subject=subject)
        fixture.ledger.reserve(reservation, lambda _: tokens(1, 1), ())
        fixture.ledger.settle(reservation, tokens(70, 0), ())
    policies = parse_policies('[pool.lab]\ngroup = "Lab"\nlimits = ["100 tokens/day"]')
    reservation = fixture.reservation(subject=lab)
    limits = applied_limits(
        lab,
        parse_policies('[role.user]\nlimits = "unlimited"').roles["user"],
        policies,
        ("gpt-4o",),
        datetime.fromtimestamp(NOON, UTC),
        CalendarRules(),
    )
    decision = fixture.ledger.reserve(reservation, lambda _: tokens(1, 1), limits).decision
    assert [state.used for state in decision.states] == [70]


def test_warning_is_given_once_per_window(fixture: LedgerFixture) -> None:
    """A soft limit is announced once per window and threshold, and not where nobody sees it."""
    texts = ("100 tokens/day warn 50% 80%",)

    def warned(announce: bool = True) -> list[int | None]:
        reservation = fixture.reservation()
        limits = fixture.limits(reservation, *texts)
        admission = fixture.ledger.reserve(
            reservation, lambda _: tokens(0, 0), limits, announce=announce
        )
        fixture.ledger.settle(reservation, tokens(0, 0), limits)
        return [state.crossed_threshold(80) for state in admission.warnings]

    fixture.use(*texts, used=tokens(60, 0))
    assert warned(announce=False) == []
    assert warned() == [50]
    assert warned() == []
    fixture.use(*texts, used=tokens(25, 0))
    assert warned() == [80]
    assert warned() == []
    fixture.clock.now += 86_400
    assert warned() == []
    fixture.use(*texts, used=tokens(60, 0))
    assert warned() == [50]


def test_orphan_is_settled_by_the_sweep_once(fixture: LedgerFixture) -> None:
    """What a crashed server left is charged as noted last, once, and a living reply is left."""
    assert fixture.ask("1k tokens/day").allowed
    fixture.ledger.renew({fixture.made[0].id: tokens(100, 40)})
    assert fixture.ledger.sweep() == 0
    fixture.clock.now += LEASE_SECONDS + 1
    assert fixture.ledger.sweep() == 1
    assert fixture.ledger.sweep() == 0
    row = fixture.rows()[0]
    assert (row.state, row.input_tokens, row.output_tokens, row.estimated) == (
        "settled",
        100,
        40,
        True,
    )
    assert fixture.ask("1k tokens/day").states[0].used == 140


def test_counters_agree_with_the_records(fixture: LedgerFixture) -> None:
    """Counters made anew from the records hold what the running ones held."""
    texts = ("9k tokens/day", "9k tokens/month on gpt*", "9k tokens/7d", "99 requests/hour")
    for step in range(30):
        fixture.clock.now += 3_000
        fixture.use(*texts, used=tokens(step, 2 * step), model_names=(("gpt", "llama")[step % 2],))
    reservation = fixture.reservation()
    limits = fixture.limits(reservation, *texts)
    running = standing(fixture.ledger, reservation, limits)
    with fixture.engine.begin() as connection:
        connection.execute(counters_table.delete())
    assert standing(fixture.ledger, reservation, limits) == running


def test_grant_adds_to_a_limit_until_its_window_ends(fixture: LedgerFixture) -> None:
    """What an administrator grants counts for that limit alone, and only in its window."""
    fixture.use("100 tokens/day", used=tokens(100, 0))
    with fixture.engine.begin() as connection:
        connection.execute(
            grants_table.insert().values(
                id="g",
                scope="user:ann",
                measure="tokens",
                model_glob="*",
                period="day",
                amount=50,
                kind="grant",
                granted_by="admin",
                reason="exam",
                created_at=NOON,
                expires_at=NOON + 12 * 3600,
            )
        )
    decision = fixture.ask("100 tokens/day", "1k tokens/month")
    assert [(state.amount, state.remaining) for state in decision.states] == [
        (150, 50),
        (1000, 900),
    ]
    fixture.clock.now += 86_400
    assert fixture.ask("100 tokens/day").states[0].amount == 100


def test_retention_drops_records_and_keeps_the_sums(fixture: LedgerFixture) -> None:
    """Old records go, running replies stay, and the sum of an open window doesn't change."""
    fixture.use("9k tokens/month", used=tokens(100, 0))
    assert fixture.ask("9k tokens/month").allowed
    fixture.clock.now += 10 * 86_400
    assert fixture.drop_older(5 * 86_400) == 1
    assert [row.state for row in fixture.rows()] == ["reserved"]
    assert fixture.ask("9k tokens/month").states[0].used == 100


def test_retention_goes_on_after_a_batch(
    fixture: LedgerFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More old records than one transaction drops all go, and their number is told."""
    monkeypatch.setattr("helpers.ledger.ledger.DROP_BATCH", 2)
    for _ in range(5):
        fixture.use("9k tokens/month", used=tokens(10, 0))
    fixture.clock.now += 10 * 86_400
    fixture.use("9k tokens/month", used=tokens(10, 0))
    fixture.clock.now += 8 * 86_400  # so that the clock is believed
    fixture.use("9k tokens/month", used=tokens(10, 0))
    assert fixture.drop_older(15 * 86_400) == 5
    assert len(fixture.rows()) == 2
    assert fixture.ask("9k tokens/month").states[0].used == 70


@pytest.mark.parametrize(
    ("limit", "used"),
    [("1 request/5h", [1]), ("40 tokens/5h", [20, 20]), ("41 tokens/5h", [20, 30])],
)
def test_full_rolling_limit_opens_as_its_oldest_use_leaves(
    fixture: LedgerFixture, limit: str, used: list[int]
) -> None:
    """One that is exactly full, or of 1, says to the second when it opens, and opens then."""
    for each in used:
        fixture.use(limit, used=tokens(each, 0))
        fixture.clock.now += 60
    opens = NOON + 5 * 3_600
    (state,) = fixture.ask(limit).states
    assert state.exceeded
    assert state.reset_at.timestamp() == opens
    fixture.clock.now = opens - 1
    assert not fixture.ask(limit).allowed
    fixture.clock.now = opens
    assert fixture.ask(limit).allowed


def test_two_limits_on_one_sum_say_each_when_they_open(fixture: LedgerFixture) -> None:
    """Limits that count the same, but not as much of it, open at different times: two pools."""
    for _ in range(3):
        fixture.use(used=tokens(20, 0))
        fixture.clock.now += 60
    opens = [NOON + 5 * 3_600 + 60 * later for later in (1, 0)]
    for _ in range(2):
        made = fixture.reservation()
        pools = ("30 tokens/5h", "60 tokens/5h")
        limits = [limit for pool in pools for limit in fixture.limits(made, pool=pool)]
        states = standing(fixture.ledger, made, limits).states
        assert [state.reset_at.timestamp() for state in states] == opens


def test_no_limits_have_no_states(fixture: LedgerFixture) -> None:
    """A request under no limit is admitted, on record, and settled."""
    assert fixture.ask().states == ()
    settled = fixture.ledger.settle(fixture.made[-1], tokens(5, 5), ())
    assert (settled.closed, settled.decision.states, settled.crossed) == (True, (), ())
    assert [row.state for row in fixture.rows()] == ["settled"]


def test_crossing_is_told_once(fixture: LedgerFixture) -> None:
    """A soft and a hard limit are each reported once per window, where anyone listens."""

    def crossed(used: Charge, listening: bool = True) -> list[tuple[int, bool]]:
        reservation = fixture.reservation()
        limits = fixture.limits(reservation, "100 tokens/day")
        fixture.ledger.reserve(reservation, lambda _: used, limits, enforce=False)
        percent = 80 if listening else None
        settlement = fixture.ledger.settle(reservation, used, limits, alert_percent=percent)
        return [(state.percent, state.exceeded) for state in settlement.crossed]

    assert crossed(tokens(85, 0), listening=False) == []
    assert crossed(tokens(1, 0)) == [(86, False)]
    assert crossed(tokens(1, 0)) == []
    assert crossed(tokens(20, 0)) == [(107, True)]
    assert crossed(tokens(20, 0)) == []


def test_amounts_add_up() -> None:
    """Amounts add and subtract field by field."""
    one, other = Amounts(1, 2, 3, 4), Amounts(10, 20, 30, 40)
    assert one + other - one == other
