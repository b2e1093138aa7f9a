"""Limits about one moment and limits on one source, on real databases."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import text as sql_text

from helpers.ledger.counters import counter_id
from helpers.ledger.database import open_database
from helpers.ledger.ledger import Ledger
from helpers.ledger.records import LEASE_SECONDS
from helpers.ledger.tables import MIGRATIONS, counters_table, grants_table, migrations_table
from tests.support.ledger_fixture import NOON, Clock, LedgerFixture, standing, tokens

pytest_plugins = ["tests.support.databases"]
DAY_SECONDS = 86_400


@pytest.fixture
def fixture(database_url: str) -> Iterator[LedgerFixture]:
    engine = open_database(database_url)
    clock = Clock()
    yield LedgerFixture(Ledger(engine, clock=clock), engine, clock)
    engine.dispose()


def test_so_many_at_once(fixture: LedgerFixture) -> None:
    """As many run as the limit says; the next one is refused, soon to be asked again."""
    text = "2 requests at once"
    assert fixture.ask(text).allowed
    assert fixture.ask(text).allowed
    state = fixture.ask(text).refusing
    assert state is not None
    assert (state.used, state.reserved, state.is_only_held) == (0, 2, True)
    assert state.reset_at.timestamp() - fixture.clock.now <= 10
    assert fixture.ask(text, user="bob").allowed


@pytest.mark.parametrize("charge", [tokens(10, 10), None])
def test_ended_reply_makes_room_at_once(fixture: LedgerFixture, charge: object) -> None:
    """A reply that ended runs no more, settled or released; nothing of it adds up."""
    text = "1 request at once"
    for _ in range(3):
        assert fixture.ask(text).allowed
        assert not fixture.ask(text).allowed
        fixture.ledger.settle(fixture.made[-2], charge, ())  # type: ignore[arg-type]


def test_reply_that_began_before_the_window_runs(fixture: LedgerFixture) -> None:
    """What has been running since yesterday still runs."""
    assert fixture.ask("1 request at once").allowed
    fixture.clock.now += 2 * DAY_SECONDS
    assert not fixture.ask("1 request at once").allowed


def test_crashed_reply_makes_room_by_the_sweep(fixture: LedgerFixture) -> None:
    """What a crashed server left runs until the sweep has settled it."""
    assert fixture.ask("1 request at once").allowed
    fixture.clock.now += LEASE_SECONDS + 1
    assert not fixture.ask("1 request at once").allowed
    assert fixture.ledger.sweep() == 1
    assert fixture.ask("1 request at once").allowed


def test_free_models_are_not_counted_at_once(fixture: LedgerFixture) -> None:
    """A running reply of a free model takes nobody's place."""
    reservation = fixture.reservation(model_names=("llama",))
    fixture.ledger.reserve(reservation, lambda _: tokens(1, 1, weight="0"), ())
    assert fixture.ask("1 request at once").allowed


def test_at_once_on_a_model_and_via_a_source(fixture: LedgerFixture) -> None:
    """Only running replies of the model, or of the source, count."""
    texts = ("1 request at once on gpt-4*", "1 request at once via api")
    assert fixture.ask(texts[0], model_names=("gpt-4o",)).allowed
    assert not fixture.ask(texts[0], model_names=("gpt-4",)).allowed
    assert fixture.ask(texts[1], model_names=("llama",), source="api").allowed
    assert not fixture.ask(texts[1], model_names=("llama",), source="api").allowed
    assert fixture.ask(texts[1], model_names=("llama",)).allowed


def test_pool_counts_what_all_have_running(fixture: LedgerFixture) -> None:
    """A pool's limit on how many run at once is for all of its members together."""
    assert fixture.ask(pool="2 requests at once", user="ann").allowed
    assert fixture.ask(pool="2 requests at once", user="bob").allowed
    assert not fixture.ask(pool="2 requests at once", user="eve").allowed


def test_parallel_requests_never_run_too_many(database_url: str) -> None:
    """Of many requests that come at once just as many are admitted as may run."""
    engine = open_database(database_url)
    desks = [LedgerFixture(Ledger(engine, clock=Clock()), engine, Clock()) for _ in range(8)]
    desks[0].ledger.prepare()

    def ask(number: int) -> bool:
        fixture, user = desks[number % 8], f"user-{number % 2}"
        return fixture.ask("3 requests at once", pool="5 requests at once", user=user).allowed

    with ThreadPoolExecutor(8) as threads:
        admitted = list(threads.map(ask, range(40)))
    engine.dispose()
    assert sum(admitted) == 5
    assert sum(admitted[::2]) <= 3
    assert sum(admitted[1::2]) <= 3


def test_rest_of_a_reservation_is_free_at_once(fixture: LedgerFixture) -> None:
    """Of a burst that waits for running replies the next is admitted as one ends below its hold."""
    text = "100 tokens/day"
    running = [fixture.reservation() for _ in range(2)]
    for reservation in running:
        limits = fixture.limits(reservation, text)
        assert fixture.ledger.reserve(
            reservation, lambda _: tokens(10, 40), limits
        ).decision.allowed
    waiting = fixture.ask(text).refusing
    assert waiting is not None
    assert waiting.is_only_held
    fixture.ledger.settle(running[0], tokens(10, 5), ())
    state = fixture.ask(text).states[0]
    assert (state.used, state.reserved, state.exceeded) == (15, 50, False)
    fixture.ledger.settle(running[1], None, ())
    assert fixture.ask(text).states[0].remaining == 65


def test_nothing_at_once(fixture: LedgerFixture) -> None:
    """Zero at once allows nothing, and isn't taken for a matter of waiting."""
    state = fixture.ask("0 requests at once").refusing
    assert state is not None
    assert not state.is_only_held


def test_moments_have_no_counters_and_no_warnings(fixture: LedgerFixture) -> None:
    """Nothing is written for what doesn't add up, and nobody is warned of it."""
    limits = fixture.limits(fixture.reservation(), "2 requests at once", "4k tokens/request")
    for _ in range(2):
        admission = fixture.ledger.reserve(
            fixture.reservation(),
            lambda _: tokens(1, 1),
            limits,
            soft_limit_percent=1,
            announce=True,
        )
        assert admission.warnings == ()
        assert admission.decision.fullest is None
    settled = fixture.ledger.settle(fixture.made[-1], tokens(9, 9), limits, alert_percent=1)
    assert settled.crossed == ()
    with fixture.engine.connect() as connection:
        assert connection.execute(counters_table.select()).all() == []


def test_source_has_a_sum_of_its_own(fixture: LedgerFixture) -> None:
    """A limit via a source counts what came from there, however its counter came to be."""
    texts = ("9k tokens/day", "9k tokens/day via api", "9k tokens/7d via api")
    fixture.use(used=tokens(100, 0), source="api")  # before there was a counter
    fixture.use(used=tokens(7, 0))
    assert [state.used for state in fixture.ask(*texts, source="api").states] == [107, 100, 100]
    fixture.use(*texts, used=tokens(20, 0), source="api")
    fixture.use(*texts, used=tokens(3, 0))
    decision = fixture.ask(*texts, source="api")
    assert [state.used for state in decision.states] == [130, 120, 120]
    assert [state.reserved for state in decision.states] == [20, 20, 20]
    assert [state.used for state in fixture.ask(*texts).states] == [130]


def test_source_is_refused_alone(fixture: LedgerFixture) -> None:
    """Over the limit of one source the others stay open, for a pool as well."""
    for pool, texts in (("", ("50 tokens/day via api",)), ("50 tokens/day via api", ())):
        fixture.use(*texts, used=tokens(60, 0), source="api", user="bob")
        assert not fixture.ask(*texts, pool=pool, source="api", user="bob").allowed
        assert fixture.ask(*texts, pool=pool, source="page", user="bob").allowed


def test_rolling_source_lets_go(fixture: LedgerFixture) -> None:
    """What leaves a rolling window of one source is taken from that sum alone."""
    text = "100 tokens/5h via api"
    fixture.use(text, used=tokens(60, 0), source="api")
    fixture.use(text, used=tokens(999, 0))
    fixture.clock.now += 3_600
    fixture.use(text, used=tokens(60, 0), source="api")
    refusing = fixture.ask(text, source="api").refusing
    assert refusing is not None
    assert refusing.reset_at.timestamp() == NOON + 5 * 3_600
    fixture.clock.now = NOON + 5 * 3_600
    assert fixture.ask(text, source="api").states[0].used == 60


def test_swept_reply_counts_for_its_source(fixture: LedgerFixture) -> None:
    """The sweep and a late true end add to the sum of the reply's source."""
    text = "9k tokens/day via api"
    assert fixture.ask(text, source="api").allowed
    made = fixture.made[-1]
    fixture.clock.now += LEASE_SECONDS + 1
    assert fixture.ledger.sweep() == 1
    assert fixture.ask(text, source="api").states[0].used == 20
    fixture.ledger.settle(made, tokens(500, 0), ())
    assert fixture.ask(text, source="api").states[0].used == 500


def test_counters_by_source_agree_with_the_records(fixture: LedgerFixture) -> None:
    """Counters made anew from the records hold what the running ones held."""
    texts = (
        *("9k tokens/day via api", "9k tokens/7d on gpt* via page", "99 requests/quarter"),
        *("9k tokens/year", "9k tokens/year via task"),
    )
    sources = ("api", "page", "task")
    for step in range(30):
        fixture.clock.now += 30_000
        source = sources[step % 3]
        fixture.use(*texts, used=tokens(step, 2 * step), source=source, model_names=("gpt",))
    for source in sources:
        reservation = fixture.reservation(source=source, model_names=("gpt",))
        limits = fixture.limits(reservation, *texts)
        running = standing(fixture.ledger, reservation, limits)
        assert running.states[0].used
        with fixture.engine.begin() as connection:
            connection.execute(counters_table.delete())
        assert standing(fixture.ledger, reservation, limits) == running


def test_year_outlives_retention(fixture: LedgerFixture) -> None:
    """The sum of an open year or quarter doesn't change where its records are dropped."""
    texts = ("9k tokens/year", "9k tokens/quarter via page")
    fixture.use(*texts, used=tokens(100, 0))
    fixture.clock.now += 10 * DAY_SECONDS
    assert fixture.ask(*texts).allowed
    assert fixture.drop_older(5 * DAY_SECONDS) == 1
    assert [state.used for state in fixture.ask(*texts).states] == [100, 100]


def test_grant_adds_to_its_source_alone(fixture: LedgerFixture) -> None:
    """What is granted to the limit of one source adds to no other."""
    row = {"scope": "user:ann", "measure": "tokens", "model_glob": "*", "period": "day"}
    row |= {"kind": "grant", "granted_by": "admin", "reason": ""}
    fixture.ask("100 tokens/day", "100 tokens/day via api", source="api")
    with fixture.engine.begin() as connection:
        connection.execute(
            grants_table.insert().values(
                **row, id="g", amount=50, source="api", created_at=NOON, expires_at=NOON + 999
            )
        )
    decision = fixture.ask("100 tokens/day", "100 tokens/day via api", source="api")
    assert [state.amount for state in decision.states] == [100, 150]


def test_no_model_id_is_taken_for_a_source(fixture: LedgerFixture) -> None:
    """A limit on a model that is called like a source's limit has a counter of its own."""
    reservation = fixture.reservation(source="api", model_names=("x via api",))
    texts = ('9 tokens/day on "x via api"', "9 tokens/day on x* via api", "9 tokens/day via api")
    found = fixture.limits(reservation, *texts)
    assert len({counter_id(applied) for applied in found}) == 3


def test_ledger_of_before_gets_its_columns(database_url: str) -> None:
    """A ledger without sources gets them, and what stands in it counts for all sources."""
    engine = open_database(database_url)
    clock = Clock()
    fixture = LedgerFixture(Ledger(engine, clock=clock), engine, clock)
    fixture.use("9k tokens/day", used=tokens(100, 0))
    with engine.begin() as connection:
        for table in (counters_table, grants_table):
            connection.execute(sql_text(f"ALTER TABLE {table.name} DROP COLUMN source"))
        connection.execute(migrations_table.delete().where(migrations_table.c.number > 3))
    again = LedgerFixture(Ledger(engine, clock=clock), engine, clock)
    states = again.ask("9k tokens/day", "9k tokens/day via page").states
    assert [state.used for state in states] == [100, 100]
    with engine.connect() as connection:
        assert len(connection.execute(migrations_table.select()).all()) == len(MIGRATIONS)
    engine.dispose()


def test_a_request_may_have_all_the_input_that_it_says(fixture: LedgerFixture) -> None:
    """A prompt as long as the limit passes where only input counts; else no output would fit."""
    reservation = fixture.reservation()
    limits = fixture.limits(
        reservation, "20 input tokens/request", "20 tokens/request", "20 output tokens/request"
    )
    decision = standing(fixture.ledger, reservation, limits)
    states = decision.with_request(tokens(20, 0).counted).states
    assert [state.exceeded for state in states] == [False, True, False]
    assert [state.remaining for state in states] == [0, 0, 20]
    assert states[0].applied.window.end - states[0].applied.window.start == timedelta(hours=1)
