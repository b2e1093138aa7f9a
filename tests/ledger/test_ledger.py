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
from helpers.limits.policies import parse_policies
from helpers.limits.policy import GroupRef, Subject, applied_limits
from helpers.metering.charges import Charge
from tests.support.desk import NOON, Clock, Desk, tokens

pytest_plugins = ["tests.support.databases"]


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    engine = open_database(database_url)
    clock = Clock()
    yield Desk(Ledger(engine, clock=clock), engine, clock)
    engine.dispose()


def test_limit_is_reached_by_what_was_settled(desk: Desk) -> None:
    """A request below the limit is booked in full; the next one is refused."""
    desk.use("100 tokens/day", used=tokens(90, 90))
    decision = desk.ask("100 tokens/day")
    assert not decision.allowed
    assert decision.refusing is not None
    assert (decision.refusing.used, decision.refusing.reserved) == (180, 0)
    assert decision.refusing.reset_at == datetime(2026, 3, 11, tzinfo=UTC)


def test_open_reservation_counts(desk: Desk) -> None:
    """What a running reply holds counts like what was used."""
    assert desk.ask("20 tokens/day").allowed
    assert not desk.ask("20 tokens/day").allowed


@pytest.mark.parametrize("limit", ["100 tokens/hour", "100 tokens/5h"])
@pytest.mark.parametrize("is_pool", [False, True])
def test_reply_ends_in_a_window_that_another_has_begun(
    desk: Desk, limit: str, is_pool: bool
) -> None:
    """A reply counts in the window in which it began, whoever has asked in the next one since."""
    texts, pool = ((), limit) if is_pool else ((limit,), "")
    desk.ask(*texts, pool=pool)
    slow = desk.made[-1]
    desk.clock.now += 6 * 3_600
    desk.use(*texts, pool=pool, used=tokens(3, 4))
    ended = desk.ledger.settle(slow, tokens(50, 50), desk.limits(slow, *texts, pool=pool))
    assert ended.closed
    assert [state.used for state in ended.decision.states] == [7]
    assert {row.state for row in desk.rows()} == {"settled"}


def test_tables_in_a_schema(database_url: str) -> None:
    """The ledger's tables are where Open WebUI's DATABASE_SCHEMA says."""
    engine = open_database(database_url)
    schema = "main" if engine.dialect.name == "sqlite" else "owui"
    if schema == "owui":
        with engine.begin() as connection:
            connection.execute(text("CREATE SCHEMA owui"))
    desk = Desk(Ledger(engine, schema, clock=(clock := Clock())), engine, clock)
    decision = desk.use("100 tokens/day", "9 requests/5h", used=tokens(60, 0), pool="1 request/day")
    assert [state.used for state in decision.states] == [60, 1, 1]
    assert not desk.ask(pool="1 request/day").allowed
    with engine.begin() as connection:
        states = connection.execute(text(f"SELECT state FROM {schema}.usage_limits_records"))
        assert states.scalars().all() == ["settled"]
    engine.dispose()


def test_released_reservation_costs_nothing(desk: Desk) -> None:
    """A call that failed gives back all that was reserved, its request included."""
    assert desk.ask("1 request/day").allowed
    desk.ledger.settle(desk.made[-1], None, ())
    assert desk.ask("1 request/day").allowed
    assert not desk.ask("1 request/day").allowed


def test_settling_twice_charges_once(desk: Desk) -> None:
    """Only the first end of a reply changes anything."""
    desk.use("1k tokens/day", used=tokens(100, 0))
    again = desk.ledger.settle(
        desk.made[0], tokens(300, 0), desk.limits(desk.made[0], "1k tokens/day")
    )
    assert again.decision.states[0].used == 100
    assert [row.input_tokens for row in desk.rows()] == [100]


def test_new_day_opens_the_limit(desk: Desk) -> None:
    """A calendar window forgets the one before."""
    desk.use("100 tokens/day", used=tokens(100, 0))
    assert not desk.ask("100 tokens/day").allowed
    desk.clock.now += 12 * 3600
    assert desk.ask("100 tokens/day").allowed


def test_reply_over_midnight_counts_where_it_was_admitted(desk: Desk) -> None:
    """A reply belongs to the window in which it was admitted."""
    assert desk.ask("100 tokens/day").allowed
    desk.clock.now += 12 * 3600
    desk.ledger.settle(desk.made[0], tokens(500, 0), ())
    decision = desk.ask("100 tokens/day")
    assert decision.allowed
    assert decision.states[0].taken == 0


def test_new_limit_counts_what_was_used_before_it(desk: Desk) -> None:
    """A limit that is added in mid-month starts from what the month's records say."""
    desk.use(used=tokens(700, 0))
    decision = desk.ask("1k tokens/month")
    assert decision.states[0].used == 700


def test_model_limit_counts_only_its_models(desk: Desk) -> None:
    """A limit on a model glob counts the chosen model and the models behind it."""
    desk.use(used=tokens(100, 0), model_names=("my-gpt", "gpt-4o"))
    desk.use(used=tokens(10, 0), model_names=("llama3",))
    decision = desk.ask("1k tokens/day on gpt-4*", "1k tokens/day")
    assert [state.used for state in decision.states] == [100, 110]


def test_measures(desk: Desk) -> None:
    """Input, output, both, requests and money are counted apart."""
    texts = [
        "1k tokens/day",
        "1k input tokens/day",
        "1k output tokens/day",
        "9 requests/day",
        "$1/day",
    ]
    desk.use(*texts, used=tokens(30, 7, cost=42))
    decision = desk.ask(*texts)
    assert [state.used for state in decision.states] == [37, 30, 7, 1, 42]


def test_free_model_counts_nothing(desk: Desk) -> None:
    """A model of weight 0 is recorded with its tokens and counts toward no limit."""
    desk.use(used=tokens(100, 50, weight="0"))
    decision = desk.ask("1k tokens/day", "9 requests/day")
    assert [state.used for state in decision.states] == [0, 0]
    assert (desk.rows()[0].input_tokens, desk.rows()[0].output_tokens) == (100, 50)


def test_weight_multiplies_tokens(desk: Desk) -> None:
    """A model that counts five times uses up five times its tokens."""
    desk.use(used=tokens(3, 1, weight="2.5"))
    decision = desk.ask("1k tokens/day")
    assert decision.states[0].used == 8 + 3


def test_rolling_window_lets_go(desk: Desk) -> None:
    """A rolling window forgets each record one period after it, and says when that is."""
    desk.use("100 tokens/5h", used=tokens(60, 0))
    desk.clock.now += 3600
    desk.use("100 tokens/5h", used=tokens(60, 0))
    decision = desk.ask("100 tokens/5h")
    assert decision.refusing is not None
    assert decision.refusing.reset_at == datetime.fromtimestamp(NOON + 5 * 3600, UTC)
    desk.clock.now = NOON + 5 * 3600 - 1
    assert not desk.ask("100 tokens/5h").allowed
    desk.clock.now = NOON + 5 * 3600
    decision = desk.ask("100 tokens/5h")
    assert decision.allowed
    assert decision.states[0].used == 60
    desk.clock.now = NOON + 30 * 3600
    assert (
        desk.ledger.check(desk.reservation(), desk.limits(desk.reservation(), "100 tokens/5h"))
        .states[0]
        .taken
        == 0
    )


def test_pool_counts_every_member(desk: Desk) -> None:
    """A pool counts what all its users use, and counts it from before it was made."""
    desk.use(used=tokens(60, 0), user="ann")
    desk.ask(user="bob")
    desk.ledger.settle(desk.made[-1], tokens(50, 0), ())
    decision = desk.ask(pool="100 tokens/day", user="eve")
    assert not decision.allowed
    assert decision.states[0].used == 110


def test_group_pool_counts_its_members_only(desk: Desk) -> None:
    """A group's pool counts those who were in the group when they used it."""
    lab = Subject("ann", "ann@example.org", "user", (GroupRef("g1", "Lab"),))
    other = Subject("bob", "bob@example.org", "user", (GroupRef("g12", "Other"),))
    for subject in (lab, other):
        reservation = desk.reservation(subject=subject)
        desk.ledger.reserve(reservation, lambda _: tokens(1, 1), ())
        desk.ledger.settle(reservation, tokens(70, 0), ())
    policies = parse_policies('[pool.lab]\ngroup = "Lab"\nlimits = ["100 tokens/day"]')
    reservation = desk.reservation(subject=lab)
    limits = applied_limits(
        lab,
        parse_policies('[role.user]\nlimits = "unlimited"').roles["user"],
        policies,
        ("gpt-4o",),
        datetime.fromtimestamp(NOON, UTC),
        CalendarRules(),
    )
    decision = desk.ledger.reserve(reservation, lambda _: tokens(1, 1), limits).decision
    assert [state.used for state in decision.states] == [70]


def test_warning_is_given_once_per_window(desk: Desk) -> None:
    """A soft limit is announced once per window and threshold, and not where nobody sees it."""
    texts = ("100 tokens/day warn 50% 80%",)

    def warned(announce: bool = True) -> list[int | None]:
        reservation = desk.reservation()
        limits = desk.limits(reservation, *texts)
        admission = desk.ledger.reserve(
            reservation, lambda _: tokens(0, 0), limits, announce=announce
        )
        desk.ledger.settle(reservation, tokens(0, 0), limits)
        return [state.crossed_threshold(80) for state in admission.warnings]

    desk.use(*texts, used=tokens(60, 0))
    assert warned(announce=False) == []
    assert warned() == [50]
    assert warned() == []
    desk.use(*texts, used=tokens(25, 0))
    assert warned() == [80]
    assert warned() == []
    desk.clock.now += 86_400
    assert warned() == []
    desk.use(*texts, used=tokens(60, 0))
    assert warned() == [50]


def test_orphan_is_settled_by_the_sweep_once(desk: Desk) -> None:
    """What a crashed server left is charged as noted last, once, and a living reply is left."""
    assert desk.ask("1k tokens/day").allowed
    desk.ledger.renew({desk.made[0].id: tokens(100, 40)})
    assert desk.ledger.sweep() == 0
    desk.clock.now += LEASE_SECONDS + 1
    assert desk.ledger.sweep() == 1
    assert desk.ledger.sweep() == 0
    row = desk.rows()[0]
    assert (row.state, row.input_tokens, row.output_tokens, row.estimated) == (
        "settled",
        100,
        40,
        True,
    )
    assert desk.ask("1k tokens/day").states[0].used == 140


def test_counters_agree_with_the_records(desk: Desk) -> None:
    """Counters made anew from the records hold what the running ones held."""
    texts = ("9k tokens/day", "9k tokens/month on gpt*", "9k tokens/7d", "99 requests/hour")
    for step in range(30):
        desk.clock.now += 3_000
        desk.use(*texts, used=tokens(step, 2 * step), model_names=(("gpt", "llama")[step % 2],))
    reservation = desk.reservation()
    limits = desk.limits(reservation, *texts)
    running = desk.ledger.check(reservation, limits)
    with desk.engine.begin() as connection:
        connection.execute(counters_table.delete())
    assert desk.ledger.check(reservation, limits) == running


def test_grant_adds_to_a_limit_until_its_window_ends(desk: Desk) -> None:
    """What an administrator grants counts for that limit alone, and only in its window."""
    desk.use("100 tokens/day", used=tokens(100, 0))
    with desk.engine.begin() as connection:
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
    decision = desk.ask("100 tokens/day", "1k tokens/month")
    assert [(state.amount, state.remaining) for state in decision.states] == [
        (150, 50),
        (1000, 900),
    ]
    desk.clock.now += 86_400
    assert desk.ask("100 tokens/day").states[0].amount == 100


def test_retention_drops_records_and_keeps_the_sums(desk: Desk) -> None:
    """Old records go, running replies stay, and the sum of an open window doesn't change."""
    desk.use("9k tokens/month", used=tokens(100, 0))
    assert desk.ask("9k tokens/month").allowed
    desk.clock.now += 10 * 86_400
    assert desk.ledger.drop_older(5 * 86_400) == 1
    assert [row.state for row in desk.rows()] == ["reserved"]
    assert desk.ask("9k tokens/month").states[0].used == 100


def test_retention_goes_on_after_a_batch(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """More old records than one transaction drops all go, and their number is told."""
    monkeypatch.setattr("helpers.ledger.ledger.DROP_BATCH", 2)
    for _ in range(5):
        desk.use("9k tokens/month", used=tokens(10, 0))
    desk.clock.now += 10 * 86_400
    desk.use("9k tokens/month", used=tokens(10, 0))
    desk.clock.now += 8 * 86_400  # so that the clock is believed
    desk.use("9k tokens/month", used=tokens(10, 0))
    assert desk.ledger.drop_older(15 * 86_400) == 5
    assert len(desk.rows()) == 2
    assert desk.ask("9k tokens/month").states[0].used == 70


@pytest.mark.parametrize(
    ("limit", "used"),
    [("1 request/5h", [1]), ("40 tokens/5h", [20, 20]), ("41 tokens/5h", [20, 30])],
)
def test_full_rolling_limit_opens_as_its_oldest_use_leaves(
    desk: Desk, limit: str, used: list[int]
) -> None:
    """One that is exactly full, or of 1, says to the second when it opens, and opens then."""
    for each in used:
        desk.use(limit, used=tokens(each, 0))
        desk.clock.now += 60
    opens = NOON + 5 * 3_600
    (state,) = desk.ask(limit).states
    assert state.exceeded
    assert state.reset_at.timestamp() == opens
    desk.clock.now = opens - 1
    assert not desk.ask(limit).allowed
    desk.clock.now = opens
    assert desk.ask(limit).allowed


def test_no_limits_have_no_states(desk: Desk) -> None:
    """A request under no limit is admitted, on record, and settled."""
    assert desk.ask().states == ()
    settled = desk.ledger.settle(desk.made[-1], tokens(5, 5), ())
    assert (settled.closed, settled.decision.states, settled.crossed) == (True, (), ())
    assert [row.state for row in desk.rows()] == ["settled"]


def test_crossing_is_told_once(desk: Desk) -> None:
    """A soft and a hard limit are each reported once per window, where anyone listens."""

    def crossed(used: Charge, listening: bool = True) -> list[tuple[int, bool]]:
        reservation = desk.reservation()
        limits = desk.limits(reservation, "100 tokens/day")
        desk.ledger.reserve(reservation, lambda _: used, limits, enforce=False)
        percent = 80 if listening else None
        settlement = desk.ledger.settle(reservation, used, limits, alert_percent=percent)
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
