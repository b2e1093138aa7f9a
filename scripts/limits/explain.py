"""`limits explain`: which policy counts for a user and a model, and why."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator
from datetime import UTC, datetime

from rich.table import Table

from helpers.errors import ConfigurationError
from helpers.limits.periods import quoted_text
from helpers.limits.policies import Policy
from helpers.limits.policy import AppliedLimit, Subject, choose_policy, find_model_rule, policies_of
from helpers.openwebui.valves import AdminValves, count_limits, is_exempt, read_timezone
from scripts.limits.check import read_text
from scripts.limits.console import cell, make_table, output_console
from scripts.limits.database import find_database
from scripts.limits.function import (
    HostModel,
    InstalledFilter,
    find_ledger,
    read_filter,
    read_model,
    require_filter,
)
from scripts.limits.host import Membership, find_user, read_memberships
from scripts.limits.names import read_identities
from scripts.limits.words import (
    describe_limit,
    describe_model,
    describe_reset,
    did_you_mean,
    header,
    limits_text,
)


def explain(arguments: argparse.Namespace) -> int:
    """Print which policy counts and what else was considered."""
    database = find_database(arguments)
    policies = arguments.policies and read_text(arguments.policies, "--policies")
    with database.snapshot() as connection:
        subject = find_user(connection, database, arguments.user)
        installed = require_filter(
            read_filter(connection, database, arguments.function, policies), database
        )
        memberships = read_memberships(connection, [subject.user_id]).get(subject.user_id, ())
        model = read_model(connection, arguments.model)
        ledger = find_ledger(connection, database, arguments.function)
        identities = read_identities(installed.valves.policy_set, connection, database, ledger)
    require_model(arguments.model, identities.models)
    subject = identities.recall(subject)
    valves, now = installed.valves, datetime.now(UTC)
    console = output_console()
    for line in introduction(subject, memberships, installed, model):
        console.print(cell(line))
    console.print(policies_table(subject, valves))
    limits = count_limits(valves, subject, model.names, now)
    if limits:
        console.print(limits_table(limits, valves, now))
    console.print(cell(conclusion(subject, valves, model, limits)))
    for sentence in identities.notices:
        console.print(cell(sentence))
    return 0


def require_model(model_id: str, known: Collection[str]) -> None:
    """See that there is such a model, as far as a database can tell.

    Raises:
        ConfigurationError: There is none; it names those that are spelled like it.
    """
    if known and model_id not in known:
        some = ", ".join(map(quoted_text, sorted(known)[:3]))
        raise ConfigurationError(
            "--model",
            f"{quoted_text(model_id)} is no model that Open WebUI has",
            f"a model's id, such as {some}{did_you_mean(model_id, known)}",
        )


def introduction(
    subject: Subject,
    memberships: tuple[Membership, ...],
    installed: InstalledFilter,
    model: HostModel,
) -> Iterator[str]:
    """What the decision is made from."""
    groups = [
        member.group.name + (f" (through {member.through})" if member.through else "")
        for member in memberships
    ]
    yield f"User    {subject.email}, role {subject.role}, id {subject.user_id}"
    yield f"Groups  {', '.join(groups) or 'none'}"
    base = f", base model {model.names[1]}" if len(model.names) > 1 else ""
    rule = find_model_rule(installed.valves.policy_set, model.names)
    yield f"Model   {model.names[0]}{base}: {describe_model(rule)}"
    yield f"Filter  {filter_state(installed, model)}"


def filter_state(installed: InstalledFilter, model: HostModel) -> str:
    """Whether the filter runs for the model at all."""
    if not installed.active:
        return f"{installed.id} is OFF: nothing is limited"
    if installed.everywhere:
        return f"{installed.id} is on for all models"
    if installed.id in model.filter_ids:
        return f"{installed.id} is on for this model"
    return f"{installed.id} is NOT ON for this model: nothing is limited"


def policies_table(subject: Subject, valves: AdminValves) -> Table:
    """Every policy that could count, in the order in which they are looked at."""
    policies = valves.policy_set
    chosen = choose_policy(subject, policies, valves.default_policy, valves.multiple_groups)
    table = make_table("Policies considered", "", "Policy", "Why", "Limits")

    def add(policy: Policy | None, name: str, why: str) -> None:
        table.add_row(
            "→" if policy is chosen or policy == chosen else "",
            cell(header(policy) if policy and policy.kind != "default" else name),
            cell(why),
            limits_text(policy.limits) if policy else "",
            style="bold" if policy == chosen else "",
        )

    own = next(iter(policies_of(subject.sure_keys, policies.users)), None)
    add(own, "of the user", "the user's own: it counts" if own else "there is none")
    for group in subject.groups:
        policy = next(iter(policies_of(group.all_keys, policies.groups)), None)
        add(policy, f"of the group {group.name}", why_group(policy, chosen, valves))
    if not subject.groups:
        add(None, "of a group", "the user is in no group")
    role = policies.roles.get(subject.role)
    add(role, f"of the role {subject.role}", why_later(role, chosen, "the user or a group"))
    add(
        valves.default_policy,
        "valves daily_token_limit, monthly_token_limit",
        why_later(valves.default_policy, chosen, "the user, a group or the role"),
    )
    return table


def why_group(policy: Policy | None, chosen: Policy, valves: AdminValves) -> str:
    """Why a group's policy counts, or doesn't."""
    if policy is None:
        return "there is none"
    if chosen.kind == "user":
        return f"priority {policy.priority}; the user has their own"
    if valves.multiple_groups == "most_generous":
        verdict = "it allows most" if policy == chosen else f"{chosen.name} allows more"
    elif policy == chosen:
        verdict = "the lowest number of the user's groups"
    elif policy.priority == chosen.priority:
        verdict = f"the same as {chosen.name}, which comes first by name"
    else:
        verdict = f"{chosen.name} has a lower number"
    return f"priority {policy.priority}: {verdict}"


def why_later(policy: Policy | None, chosen: Policy, before: str) -> str:
    """Why a policy counts that is looked at after others, or doesn't."""
    if policy is None:
        return "there is none"
    return f"none of {before} has one" if policy == chosen else f"one of {before} counts"


def limits_table(limits: tuple[AppliedLimit, ...], valves: AdminValves, now: datetime) -> Table:
    """The limits that a request to the model is held to."""
    zone = read_timezone(valves.timezone)
    table = make_table("Limits that count for this request", "Limit", "Counts", "Resets")
    for applied in limits:
        whose = f"shared: pool {applied.policy}" if applied.is_pool else "this user"
        resets = "as each use grows old"
        if applied.limit.period.rolling is None:
            resets = describe_reset(applied.limit, applied.window.end, now, zone)
        table.add_row(describe_limit(applied.limit), cell(whose), resets)
    return table


def conclusion(
    subject: Subject, valves: AdminValves, model: HostModel, limits: tuple[AppliedLimit, ...]
) -> str:
    """What comes of it."""
    if is_exempt(valves, subject):
        return "Exempt: administrators are recorded, never refused (valve exempt_admins)."
    if find_model_rule(valves.policy_set, model.names).weight == 0:
        return "A free model: recorded, never counted, never refused."
    if not limits:
        return "No limit counts for this request."
    if valves.shadow_mode:
        return "Shadow mode: what would be refused is only logged."
    return "A request is refused once any of these limits is reached."
