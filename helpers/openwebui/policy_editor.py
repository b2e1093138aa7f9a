"""The policies editor: a text checked, explained, replayed and saved."""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from importlib import import_module
from threading import Lock
from typing import Any

from sqlalchemy import Connection, Row

from helpers.errors import ConfigurationError
from helpers.ledger.counters import split_names
from helpers.ledger.identities import HostNames, Identities, identify, named_in, read_remembered
from helpers.ledger.policy_versions import keep_version, read_versions, version_tag
from helpers.ledger.reports import read_replayed
from helpers.limits.limit import Limit
from helpers.limits.policies import ModelRule, Policy, PolicySet
from helpers.limits.policies_text import PoliciesError, table_header
from helpers.limits.policy import (
    AppliedLimit,
    GroupRef,
    find_model_rule,
)
from helpers.openwebui.directory import Directory
from helpers.openwebui.host import host_database, list_model_ids, read_valves
from helpers.openwebui.page_answers import PageError
from helpers.openwebui.page_data import PageData, PageRequest
from helpers.openwebui.page_limits import Json, LimitFinder, iso_second
from helpers.openwebui.simulation import (
    Replay,
    SimulationResult,
    replay_start,
)
from helpers.openwebui.valves import AdminValves, is_exempt, read_policies

LONGEST_POLICIES = 1_000_000
LONGEST_VERSION_TAG = 100
MOST_DAYS = 400
MOST_LISTED_USERS = 1_000
# One at a time, since each keeps a core busy for seconds.
SIMULATING = Lock()


def read_policies_text(body: Json) -> str:
    """The policies text in a request.

    Raises:
        PageError: There is none, or one of a length that nobody writes.
        PoliciesError: It has errors.
    """
    text = body.get("policies")
    if not isinstance(text, str) or len(text) > LONGEST_POLICIES:
        raise PageError(400, f"policies: a text of at most {LONGEST_POLICIES:,} characters")
    if "\0" in text or re.search("[\ud800-\udfff]", text):
        raise PageError(400, "policies: a text without NUL and lone surrogates")
    read_policies(text)
    return text


def listed_errors(text: str, error: PoliciesError) -> list[Json]:
    """The errors in a text, each with its line where that can be told."""
    lines, headers = text.split("\n"), dict[tuple[str, ...], int]()
    for number, line in enumerate(lines):
        if (path := header_path(line)) is not None:
            headers.setdefault(path, number)
    return [
        {
            "where": one.where,
            "given": one.given,
            "allowed": one.allowed,
            "line": line_of(one, lines, headers),
        }
        for one in error.errors
    ]


def line_of(
    error: ConfigurationError, lines: list[str], headers: Mapping[tuple[str, ...], int]
) -> int | None:
    """The line that an error is about, from 1; None where it can't be told.

    Args:
        error: The error.
        lines: The text's.
        headers: Where in these each table begins.
    """
    if found := re.search(r"line (\d+)", error.where):
        return int(found[1])
    header = re.match(r"\[.*\]", error.where)
    if header is None:
        return None
    at = headers.get(header_path(header[0]) or ())
    if at is None:
        return None
    key = error.where[header.end() :].strip()
    quoted = re.match(r"['\"](.+?)['\"] ", error.given)
    for number in range(at + 1, len(lines)):
        if header_path(lines[number]) is not None:
            break
        if quoted is not None and quoted[1] in " ".join(lines[number].split()):
            return number + 1
        if quoted is None and key and re.match(rf"\s*{re.escape(key)}\s*=", lines[number]):
            return number + 1
    return at + 1


def header_path(line: str) -> tuple[str, ...] | None:
    """The names in a table's first line, however they are quoted; None for another line."""
    if not line.lstrip().startswith("["):
        return None
    try:
        value: Any = tomllib.loads(line)
    except (tomllib.TOMLDecodeError, RecursionError):
        return None
    names = []
    while isinstance(value, dict) and len(value) == 1:
        ((name, value),) = value.items()
        names.append(name)
    return tuple(names) or None


def identities_of(data: PageData, policies: PolicySet, directory: Directory) -> Identities:
    """Whom a policies text would mean."""
    groups = {key: group.name for key, group in directory.groups.items()}
    host = HostNames(groups, directory.emails, list_model_ids())
    return identify(policies, host, data.read(read_remembered))


def finder_by(data: PageData, text: str, identities: Identities) -> LimitFinder:
    """What finds the limits by a text; an exempt administrator is meant all the same."""
    valves = data.valves.model_copy(update={"policies": text, "exempt_admins": False})
    return LimitFinder(valves, identities, data.now)


def check_policies(asked: PageRequest) -> Json:
    """What a text would mean, or what is wrong with it.

    Raises:
        PageError: The request has no text.
    """
    try:
        text = read_policies_text(asked.body)
    except PoliciesError as error:
        return {"errors": listed_errors(str(asked.body["policies"]), error)}
    return {"errors": [], **explain_policies(asked.data, text)}


def explain_policies(data: PageData, text: str) -> Json:
    """Who gets what by a text, and which of its names mean nobody."""
    policies, directory = read_policies(text), data.directory()
    identities = identities_of(data, policies, directory)
    finder = finder_by(data, text, identities)
    users: defaultdict[tuple[str, str], int] = defaultdict(int)  # by kind and name of the table
    for subject in directory.subjects():
        match = finder.match(subject)
        users[match.policy.kind, match.policy.name] += 1
        for name in {applied.policy for applied in match.pools}:
            users["pool", name] += 1
    unmatched = [
        table.header
        for table in named_in(policies)
        if not meant_by(identities, table.kind, table.key)
    ]
    return {
        "summary": list(summary_rows(policies, data.valves.default_policy, users)),
        "unmatched": unmatched,
        "notices": list(identities.notices),
    }


def meant_by(identities: Identities, kind: str, key: str) -> bool:
    """Whether a name in the policies means somebody."""
    found = (*identities.sure.items(), *identities.doubtful.items())
    return any(one == kind and key in names for (one, _), names in found)


def summary_rows(
    policies: PolicySet, default: Policy, users: Mapping[tuple[str, str], int]
) -> Iterator[Json]:
    """Each table with its limits and for how many users it counts."""
    for table in (*policies.tables, default):
        header = table_header(table.kind, table.name)
        yield {
            "table": "everyone else" if table is default else header,
            "limits": limit_texts(table.limits),
            "users": users.get((table.kind, table.name), 0),
        }


def limit_texts(limits: tuple[Limit, ...] | None) -> list[str]:
    """Limits in their notation."""
    return ["unlimited"] if limits is None else [str(limit) for limit in limits]


# Replaying


def read_days(body: Json) -> int:
    """How many days a simulation goes back.

    Raises:
        PageError: It isn't a sensible number.
    """
    days = body.get("days", 30)
    if type(days) is not int or not 1 <= days <= MOST_DAYS:
        raise PageError(400, f"days: a whole number from 1 to {MOST_DAYS}")
    return days


def replay_policies(data: PageData, text: str, since: int) -> tuple[SimulationResult, Directory]:
    """Replay what is on record since then against a text.

    Raises:
        PageError: Another one is running.
    """
    if not SIMULATING.acquire(blocking=False):
        raise PageError(503, "Another simulation is running. Try again in some seconds.")
    try:
        return run_replay(data, text, since)
    finally:
        SIMULATING.release()


def run_replay(data: PageData, text: str, since: int) -> tuple[SimulationResult, Directory]:
    """The same, with the turn taken."""
    policies, current = read_policies(text), data.valves.policy_set
    valves, directory = data.valves, data.directory()
    # Limits have the windows of now here, which the replay doesn't look at.
    finder = finder_by(data, text, identities_of(data, policies, directory))
    exempt = {one.user_id for one in directory.subjects() if is_exempt(valves, one)}

    def find_limits(user_id: str, group_ids: str) -> Sequence[AppliedLimit]:
        # The groups of that time; the role of now, as it isn't on record.
        groups = tuple(
            directory.groups.get(key, GroupRef(key, "")) for key in split_names(group_ids)
        )
        subject = replace(directory.find(user_id), groups=groups)
        return finder.match(subject).limits_of(subject)

    def find_rules(names: tuple[str, ...]) -> tuple[ModelRule, ModelRule]:
        return find_model_rule(policies, names), find_model_rule(current, names)

    tables = (*policies.tables, valves.default_policy)
    limits = [limit for table in tables for limit in table.limits or ()]
    rules = valves.calendar_rules
    start, until = replay_start(limits, rules, since), int(data.now.timestamp()) + 1
    counted = policies.tasks_counted, current.tasks_counted

    def read(connection: Connection) -> SimulationResult:
        # Made here: where the connection breaks this is done once more, from the beginning.
        replay = Replay(find_limits, find_rules, rules, *counted, exempt)
        return replay.run(read_replayed(connection, start, until), since)

    result: SimulationResult = data.read(read)
    return result, directory


def simulate_policies(asked: PageRequest) -> Json:
    """Who would have been refused by a text, how often, and what that would have saved.

    Raises:
        PageError: The request can't be understood.
    """
    data, body = asked.data, asked.body
    days = read_days(body)
    try:
        text = read_policies_text(body)
    except PoliciesError as error:
        return {"errors": listed_errors(str(body["policies"]), error)}
    since = int((data.now - timedelta(days=days)).timestamp())
    result, directory = replay_policies(data, text, since)
    emails = directory.emails
    users = sorted(result.users.items(), key=lambda item: (-item[1].refused, item[0]))
    return {
        "errors": [],
        "days": days,
        "since": iso_second(since),
        "requests": result.requests,
        "refused": result.refused,
        "cost_saved_usd": sum(user.cost_micros for _, user in users) / 1_000_000,
        "tokens_saved": sum(user.tokens for _, user in users),
        "cut_off": result.cut_off,
        "users_refused": len(users),
        "users": [
            {
                "user_id": user_id,
                "email": emails.get(user_id, ""),
                "refused": user.refused,
                "limit": str(most.limit),
                "policy": most.policy or "default",
                "first_at": iso_second(user.first_at),
                "last_at": iso_second(user.last_at),
                "cost_saved_usd": user.cost_micros / 1_000_000,
                "tokens_saved": user.tokens,
            }
            for user_id, user in users[:MOST_LISTED_USERS]
            for most in [result.most_refusing(user)]
        ],
    }


def shadow_refusals(data: PageData, since: int) -> list[Json]:
    """What the policies in force would have refused, the newest first: shadow mode only tells."""
    if not data.valves.shadow_mode:
        return []
    result, directory = replay_policies(data, data.valves.policies, since)
    emails = directory.emails
    return [
        {
            "at": iso_second(one.at),
            "user_id": one.user_id,
            "email": emails.get(one.user_id, ""),
            "model": one.model,
            "limit": str(one.applied.limit),
            "policy": one.applied.policy or "default",
        }
        for one in reversed(result.refusals)
    ]


# Saving


def list_versions(asked: PageRequest) -> Json:
    """The text in force, what it means, and the last ones."""
    data, text = asked.data, asked.data.valves.policies
    rows = data.read(read_versions)
    return {
        "policies": text,
        "version": version_tag(text, rows),
        **explain_policies(data, text),
        "versions": [
            {
                "id": row.id,
                "saved_at": iso_second(row.saved_at),
                "saved_by": row.saved_by,
                "policies": row.policies,
            }
            for row in rows
        ],
    }


def read_loaded(body: Json) -> str | None:
    """The version that whoever saves has loaded; None from a program that doesn't say.

    Raises:
        PageError: It can't be one.
    """
    loaded = body.get("version")
    if loaded is not None and (not isinstance(loaded, str) or len(loaded) > LONGEST_VERSION_TAG):
        raise PageError(400, "version: as GET /usage-limits/api/policies has it, or none")
    return loaded


def claim_version(
    data: PageData, before: str, text: str, by: str, loaded: str | None
) -> tuple[str, ...]:
    """Keep a text that is about to be saved, so that no other worker takes one beside it.

    Args:
        before: The text that is in force.
        text: The new one.
        by: Who saves it.
        loaded: The version that it was made from; None for whichever.

    Returns:
        The ids of what was kept, to be taken back where the text can't be saved.

    Raises:
        PageError: Another text was saved since that was loaded.
    """

    def claim(connection: Connection) -> tuple[str, ...] | Sequence[Row[Any]]:
        rows = read_versions(connection)
        if text != before and loaded not in (None, version_tag(before, rows)):
            return rows
        return keep_version(connection, before, text, by, int(data.now.timestamp()))

    made = data.accounting.change(claim, {"policies"})
    if isinstance(made, tuple):
        return made
    who = made[0].saved_by if made and made[0].policies == before else ""
    sentence = f"{who or 'Somebody'} has saved other policies since yours were loaded. "
    tag = version_tag(before, made)
    raise PageError(409, f"{sentence}Yours are not saved.", policies=before, version=tag)


async def store_policies(function_id: str, text: str) -> None:
    """Save a text as Open WebUI's own form does.

    Raises:
        HostDatabaseError: The other valves can't be read.
        PageError: Open WebUI doesn't save it.
    """
    functions = import_module("open_webui.models.functions").Functions
    stored = await read_valves(function_id)
    values = {name: value for name, value in stored.items() if value is not None}
    valves = AdminValves.model_validate({**values, "policies": text})
    with host_database():
        saved = await functions.update_function_valves_by_id(
            function_id, valves.model_dump(exclude_unset=True)
        )
    if saved is None:
        raise PageError(503, "Open WebUI could not save the policies. Try again later.")


def saved_answer(data: PageData, text: str) -> Json:
    """What a text means that was saved just now, and its version."""
    tag = version_tag(text, data.read(read_versions))
    return {"errors": [], "policies": text, "version": tag, **explain_policies(data, text)}
