"""Simulation: what is on record, replayed against a policies text."""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from helpers.ledger.counters import NO_END, split_names
from helpers.limits.decisions import Amounts, Decision, LimitState
from helpers.limits.limit import Limit
from helpers.limits.periods import CalendarRules, Period, Window
from helpers.limits.policies import ModelRule
from helpers.limits.policy import AppliedLimit
from helpers.metering.charges import make_charge
from helpers.metering.usage import Usage

# More records than this aren't replayed at once.
MOST_REPLAYED = 3_000_000
# Chats come between so many records.
RECORDS_PER_TURN = 500
MOST_REFUSALS = 500
MEASURES = ("tokens", "input_tokens", "output_tokens", "requests", "cost")

FindLimits = Callable[[str, str], Sequence[AppliedLimit]]


@dataclass(slots=True)
class PeriodClock:
    """The window that a calendar period has at the record that is replayed."""

    period: Period
    rules: CalendarRules
    start: int = 0
    end: int = 0

    def advance(self, at: int) -> None:
        """Go on to the window around the second `at`."""
        window = self.period.window(datetime.fromtimestamp(at, UTC), self.rules)
        self.start, self.end = int(window.start.timestamp()), int(window.end.timestamp())


@dataclass(slots=True, eq=False)
class Gauge:
    """What one limit has counted so far; limits that count the same in one scope share it.

    Args:
        applied: The limit.
        clock: Of a calendar period.
        seconds: Of a rolling one.
    """

    applied: AppliedLimit
    clock: PeriodClock | None
    seconds: int
    measure: int
    amount: int
    start: int = -1
    used: int = 0
    # Where they are needed: Python's collector holds every thread to look at each one made.
    entries: deque[tuple[int, int]] | None = None
    running: list[int] | None = None  # when replies that run at once will end

    def move(self, at: int) -> None:
        """Forget what no longer counts at the second `at`."""
        if self.clock is not None:
            if self.start != self.clock.start:
                self.start, self.used = self.clock.start, 0
        elif (entries := self.entries) is not None:
            oldest = at - self.seconds
            while entries and entries[0][0] <= oldest:
                self.used -= entries.popleft()[1]
        elif running := self.running:
            while running and running[0] <= at:
                heapq.heappop(running)

    def add(self, at: int, end: int, value: int) -> None:
        """Count a reply that was admitted at the second `at` and ended at `end`.

        A calendar period's is only added to `used`.
        """
        if self.entries is not None:
            if value:
                self.used += value
                self.entries.append((at, value))
        elif self.running is not None and end > at:
            heapq.heappush(self.running, end)

    def state(self, at: int) -> LimitState:
        """Where the limit stands."""
        end = at + (self.seconds or 60) if self.clock is None else self.clock.end
        reset_at = datetime.fromtimestamp(end, UTC)
        return LimitState(self.applied, self.used, len(self.running or ()), reset_at)


@dataclass(slots=True)
class ReplayPlan:
    """How the records of one user with the same model and source are replayed."""

    gauges: tuple[Gauge, ...]
    rule: ModelRule  # what it costs by the text
    changed: bool = False  # whether that isn't what is on record
    asked: bool = False  # whether it is a request of the user's own
    refusable: bool = False
    is_task: bool = False
    only_counted: bool = False  # whether what counted for nothing on record still does
    has_moments: bool = False

    def refusing(self, at: int, input_tokens: int) -> LimitState | None:
        """The limit that refuses a request at the second `at`, by the engine's own decision."""
        # The others can't be what refuses.
        reached = (one for one in self.gauges if one.used >= one.amount or self.has_moments)
        decision = Decision(tuple(gauge.state(at) for gauge in reached))
        if self.has_moments:
            decision = decision.with_request(Amounts(0, input_tokens))
        if self.is_task:  # replies that are still running don't cost a chat its title
            decision = Decision(tuple(one for one in decision.states if not one.is_only_held))
        return decision.refusing


@dataclass(frozen=True, slots=True)
class SimulatedRefusal:
    """A request that would have been refused, and by which limit."""

    id: str
    user_id: str
    model: str
    at: int  # seconds since 1970
    applied: AppliedLimit


@dataclass(slots=True)
class RefusedUser:
    """What would have been refused to one user."""

    refused: int = 0
    cost_micros: int = 0
    tokens: int = 0
    first_at: int = 0
    last_at: int = 0
    limits: dict[int, int] = field(default_factory=dict)  # how often each has refused


@dataclass(slots=True)
class SimulationResult:
    """What came of a replay."""

    requests: int = 0
    refused: int = 0
    users: dict[str, RefusedUser] = field(default_factory=dict)
    refusals: deque[SimulatedRefusal] = field(
        default_factory=lambda: deque(maxlen=MOST_REFUSALS)
    )  # the last ones
    cut_off: bool = False  # whether there were more records than are replayed
    # By identity: they live as long as the replay.
    applied: dict[int, AppliedLimit] = field(default_factory=dict)

    def most_refusing(self, user: RefusedUser) -> AppliedLimit:
        """The limit that has refused most to a user."""
        return self.applied[max(user.limits, key=lambda key: user.limits[key])]

    def note(
        self,
        key: str,
        user_id: str,
        names: str,
        at: int,
        applied: AppliedLimit,
        cost_micros: int,
        tokens: int,
    ) -> None:
        """Add a refusal."""
        self.refused += 1
        user = self.users.get(user_id)
        if user is None:
            user = self.users[user_id] = RefusedUser(first_at=at)
        user.refused += 1
        user.cost_micros += cost_micros
        user.tokens += tokens
        user.last_at = at
        self.applied[id(applied)] = applied
        user.limits[id(applied)] = user.limits.get(id(applied), 0) + 1
        model = "".join(split_names(names)[:1])
        self.refusals.append(SimulatedRefusal(key, user_id, model, at, applied))


class Replay:
    """Replays records in the order of time.

    Decisions are those of `Decision`, on what the records before have used: a reply counts from
    its admission with what it cost in the end.

    Args:
        find_limits: The limits of a user, by id and the record's groups.
        find_rules: The model's rule in the text, and the one that its records were charged by.
        rules: Where calendar periods begin.
        tasks_counted: Whether tasks count toward limits.
        tasks_did_count: Whether they do on record.
        exempt: The ids of users who are never refused: they use up pools all the same.
    """

    def __init__(
        self,
        find_limits: FindLimits,
        find_rules: Callable[[tuple[str, ...]], tuple[ModelRule, ModelRule]],
        rules: CalendarRules,
        tasks_counted: bool,
        tasks_did_count: bool = False,
        exempt: Collection[str] = (),
    ) -> None:
        self._find_limits, self._find_rules = find_limits, find_rules
        self._rules, self._tasks_counted = rules, tasks_counted
        self._tasks_did_count, self._exempt = tasks_did_count, exempt
        self._clocks: dict[str, PeriodClock] = {}
        self._gauges: dict[tuple[object, ...], Gauge] = {}
        self._applied: dict[tuple[int, str], AppliedLimit] = {}
        self._plans: dict[tuple[str, str, str, str], ReplayPlan] = {}

    def run(self, rows: Iterable[Any], since: int) -> SimulationResult:
        """Replay records, as `read_replayed` has them; those before `since` are only counted.

        It is one loop, without calls where nothing happens: a million times takes seconds.
        """
        result, plans, next_turn = SimulationResult(), self._plans, 0
        for done, row in enumerate(rows, 1):
            if done % RECORDS_PER_TURN == 0:
                time.sleep(0)  # the chats' turn
                if done > MOST_REPLAYED:
                    result.cut_off = True
                    break
            at, user_id, group_ids, names, source = row[:5]
            if at >= next_turn:
                next_turn = self._turn_clocks(at)
            key = (user_id, group_ids, names, source)
            plan = plans.get(key)
            if plan is None:
                plan = plans[key] = self._make_plan(key, at)
                next_turn = self._turn_clocks(at)
            state, ended_at, requests, input_tokens, output_tokens, cost = row[5:11]
            if plan.only_counted and not requests:
                continue
            if state == "released":
                requests = input_tokens = output_tokens = cost = 0
            elif plan.changed or not requests:
                counted = recounted(row, plan.rule)
                requests, input_tokens = counted.requests, counted.input_tokens
                output_tokens, cost = counted.output_tokens, counted.cost_micros
            suspicious = plan.has_moments
            for gauge in plan.gauges:
                if gauge.clock is None or gauge.start != gauge.clock.start:
                    gauge.move(at)
                # Nobody needs a decision about limits of which none is reached.
                if gauge.used >= gauge.amount:
                    suspicious = True
            if at >= since:
                result.requests += plan.asked
                refusing = None
                if suspicious and plan.refusable:
                    refusing = plan.refusing(at, input_tokens)
                if refusing is not None:
                    if plan.asked:
                        tokens = input_tokens + output_tokens
                        result.note(row[15], user_id, names, at, refusing.applied, cost, tokens)
                    continue
            values = (input_tokens + output_tokens, input_tokens, output_tokens, requests, cost)
            for gauge in plan.gauges:
                value = values[gauge.measure]
                if gauge.clock is None:
                    # Without an end it still runs; an imported one has the end of the import.
                    gauge.add(at, at if source == "backfill" else ended_at or NO_END, value)
                else:
                    gauge.used += value
        return result

    def _turn_clocks(self, at: int) -> int:
        """Go on to the windows around the second `at`; returns when the next one begins."""
        for clock in self._clocks.values():
            if at >= clock.end:
                clock.advance(at)
        return min((clock.end for clock in self._clocks.values()), default=NO_END)

    def _make_plan(self, key: tuple[str, str, str, str], at: int) -> ReplayPlan:
        user_id, group_ids, names, source = key
        model_names = split_names(names)
        rule, recorded_by = self._find_rules(model_names)
        # Users can ask for a task itself, which always counts. Where all tasks do on record, that
        # can't be told.
        uncounted_task = source == "task" and not self._tasks_counted
        if source == "direct" or not rule.weight or (uncounted_task and self._tasks_did_count):
            return ReplayPlan((), rule)
        gauges = tuple(
            self._gauge(applied, at)
            for applied in self._find_limits(user_id, group_ids)
            if applied.limit.matches_model(model_names) and applied.limit.source in ("", source)
        )
        return ReplayPlan(
            gauges,
            rule,
            changed=rule != recorded_by,
            asked=source not in ("task", "backfill"),
            refusable=source != "backfill" and user_id not in self._exempt,
            is_task=source == "task",
            only_counted=uncounted_task,
            has_moments=any(gauge.applied.limit.is_moment for gauge in gauges),
        )

    def _gauge(self, applied: AppliedLimit, at: int) -> Gauge:
        limit = applied.limit
        key = (applied.scope, *limit.counts, limit.amount)
        gauge = self._gauges.get(key)
        if gauge is None:
            rolling = limit.period.rolling
            # One stands for those of all users: only the scope differs, which nobody reads here.
            shared = self._applied.setdefault((id(limit), applied.policy), applied)
            gauge = self._gauges[key] = Gauge(
                shared,
                None if rolling is not None or limit.is_moment else self._clock(limit, at),
                limit.period.seconds,
                MEASURES.index(limit.measure),
                limit.amount,
                entries=None if rolling is None else deque(),
                running=[] if limit.is_at_once else None,
            )
        return gauge

    def _clock(self, limit: Limit, at: int) -> PeriodClock:
        clock = self._clocks.get(limit.period.name)
        if clock is None:
            clock = self._clocks[limit.period.name] = PeriodClock(limit.period, self._rules)
            clock.advance(at)
        return clock


def recounted(row: Any, rule: ModelRule) -> Amounts:
    """What a record counts by another rule."""
    cost, input_tokens, output_tokens, cached, estimated = row[10:15]
    usage = Usage(input_tokens, output_tokens, cached, cost, bool(estimated))
    return make_charge(usage, rule).counted


def replay_start(limits: Iterable[Limit], rules: CalendarRules, since: int) -> int:
    """From when on records count in a window that is open at `since`."""
    start, instant = since, datetime.fromtimestamp(since, UTC)
    for limit in limits:
        if limit.is_moment:
            continue
        if seconds := limit.period.seconds:
            start = min(start, since - seconds)
        else:
            window: Window = limit.period.window(instant, rules)
            start = min(start, int(window.start.timestamp()))
    return start
