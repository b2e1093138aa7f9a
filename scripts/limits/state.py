"""A user's limits, and what the records say that counters should hold."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from helpers.ledger.counters import sum_settled
from helpers.limits.decisions import Amounts
from helpers.limits.policy import AppliedLimit, Subject, choose_policy, scoped_limits
from helpers.openwebui.valves import AdminValves


def subject_limits(subject: Subject, valves: AdminValves, at: datetime) -> tuple[AppliedLimit, ...]:
    """Every limit and pool that a user is under, those on single models included."""
    policies = valves.policy_set
    policy = choose_policy(subject, policies, valves.default_policy, valves.multiple_groups)
    return scoped_limits(subject, policy, policies, at, valves.calendar_rules)


def stored_amounts(counter: Any) -> Amounts:
    """The sums in a counter's row."""
    return Amounts(
        counter.requests, counter.input_tokens, counter.output_tokens, counter.cost_micros
    )


def recount(connection: Connection, counter: Any) -> Amounts:
    """What the records say a counter's row should hold."""
    start, end = counter.window_start, counter.window_end
    return sum_settled(connection, counter.scope, counter.model_glob, start, end, counter.source)
