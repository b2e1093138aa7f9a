"""Used and reserved amounts against limits: what is decided, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from helpers.limits.limit import Measure
from helpers.limits.policy import AppliedLimit


@dataclass(frozen=True, slots=True)
class Amounts:
    """What counts toward limits, for one request or summed over many.

    Tokens are weighted (`[model.…] weight`); cost is in millionths of a dollar.
    """

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_micros: int = 0

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(
            self.requests + other.requests,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cost_micros + other.cost_micros,
        )

    def __sub__(self, other: Amounts) -> Amounts:
        return Amounts(
            self.requests - other.requests,
            self.input_tokens - other.input_tokens,
            self.output_tokens - other.output_tokens,
            self.cost_micros - other.cost_micros,
        )

    def of(self, measure: Measure) -> int:
        """The one number that a limit of this measure compares."""
        match measure:
            case "tokens":
                return self.input_tokens + self.output_tokens
            case "input_tokens":
                return self.input_tokens
            case "output_tokens":
                return self.output_tokens
            case "requests":
                return self.requests
            case "cost":
                return self.cost_micros


NOTHING = Amounts()


@dataclass(frozen=True, slots=True)
class LimitState:
    """Where one limit stands.

    Args:
        applied: The limit and its window.
        used: What settled records have used in the window; of a limit per request, what this one
            takes.
        reserved: What replies still running hold; of a limit on how many run at once, how many do.
        reset_at: When the window ends; of a rolling one, when enough of it will have passed. Of
            one about a moment, when to ask again.
        granted: What an administrator has added to the limit in this window.
    """

    applied: AppliedLimit
    used: int
    reserved: int
    reset_at: datetime
    granted: int = 0

    @property
    def amount(self) -> int:
        """The limit with what was granted."""
        return self.applied.limit.amount + self.granted

    @property
    def taken(self) -> int:
        """Used and reserved."""
        return self.used + self.reserved

    @property
    def remaining(self) -> int:
        """What may still be used, never below 0."""
        return max(0, self.amount - self.taken)

    @property
    def exceeded(self) -> bool:
        """Whether the hard limit is reached: a request may have all the input that it says."""
        limit = self.applied.limit
        if limit.is_per_request and limit.measure == "input_tokens" and self.amount:
            return self.taken > self.amount
        return self.taken >= self.amount

    @property
    def percent(self) -> int:
        """The part that is taken, in whole percent, rounded down; 100 for a limit of 0."""
        amount = self.amount
        return 100 if amount == 0 else self.taken * 100 // amount

    @property
    def is_only_held(self) -> bool:
        """Whether it is reached only by what replies still running hold."""
        return self.exceeded and self.used < self.amount

    def crossed_threshold(self, soft_limit_percent: int) -> int | None:
        """The highest soft limit, in percent, that is crossed; None below all of them.

        Of what is about one moment nothing is used up, so there is nothing to warn of.
        """
        if self.applied.limit.is_moment:
            return None
        thresholds = self.applied.limit.warn_percents or (soft_limit_percent,)
        return max((percent for percent in thresholds if percent <= self.percent), default=None)


@dataclass(frozen=True, slots=True)
class Decision:
    """What all limits together say about one request."""

    states: tuple[LimitState, ...] = ()

    @property
    def allowed(self) -> bool:
        """Whether the request may go on."""
        return not any(state.exceeded for state in self.states)

    @property
    def refusing(self) -> LimitState | None:
        """The exceeded limit that opens last, since the user waits for that one."""
        exceeded = [state for state in self.states if state.exceeded]
        return max(exceeded, key=lambda state: state.reset_at) if exceeded else None

    def with_running(self, amounts: Amounts) -> Decision:
        """The same with what a running reply has used; its one request is admitted already."""
        return Decision(
            tuple(
                replace(state, used=state.used + amounts.of(state.applied.limit.measure))
                for state in self.states
                if state.applied.limit.measure != "requests"
            )
        )

    def with_request(self, amounts: Amounts) -> Decision:
        """The same where limits on single requests stand with what this one takes."""
        return Decision(
            tuple(
                replace(state, used=amounts.of(state.applied.limit.measure))
                if state.applied.limit.is_per_request
                else state
                for state in self.states
            )
        )

    def with_states(self, states: Iterable[LimitState]) -> Decision:
        """The same with these states in the place of those of the same limits."""
        newer = {state.applied: state for state in states}
        return Decision(tuple(newer.get(state.applied, state) for state in self.states))

    @property
    def fullest(self) -> LimitState | None:
        """The limit of which the largest part is taken, if any adds up."""
        adding = (state for state in self.states if not state.applied.limit.is_moment)
        return max(adding, key=lambda state: state.percent, default=None)
