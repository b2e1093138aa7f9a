"""What the usage pages show, as JSON has it; everything here blocks, and runs in a thread."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import islice
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Row

from helpers.ledger.counters import split_names
from helpers.ledger.grants import read_grants
from helpers.ledger.identities import IdentityMemory
from helpers.ledger.many_limits import (
    GRANT_KEY,
    LimitReader,
    grant_key,
    read_snapshot_of,
    read_states,
)
from helpers.ledger.report_rows import UsageRow, named_rows, sums_row
from helpers.ledger.reports import (
    Selection,
    Sums,
    read_latest,
    recorded_emails,
    sum_models,
    sum_records,
)
from helpers.limits.decisions import LimitState
from helpers.limits.limit import Limit
from helpers.limits.periods import Window, parse_period, quoted_text
from helpers.limits.policies import Policy, Pool
from helpers.limits.policy import AppliedLimit, Subject, find_model_rule
from helpers.openwebui.accounting import Accounting
from helpers.openwebui.directory import Directory, read_directory, read_names
from helpers.openwebui.languages.en import ENGLISH
from helpers.openwebui.page_answers import PageError
from helpers.openwebui.page_limits import (
    PAGE_JSON,
    Json,
    LimitFinder,
    LimitWriter,
    Match,
    grant_rows,
    iso_instant,
    iso_second,
)
from helpers.openwebui.valves import AdminValves
from helpers.openwebui.wording import Language
from helpers.texts import LONGEST_NAME, clean_text

MOST_REPLIES = 200
MOST_GRANTS = 500
MOST_LISTED_ROWS = 20_000
# So many are read and written at once. Were it all of them, Python's collector would go through
# the whole process for so many new objects, and every chat would stand still meanwhile.
USERS_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a user stands: limits, and use by model, as JSON has it."""

    subject: Subject
    name: str
    policy: Policy
    exempt: bool
    states: tuple[LimitState, ...]
    today: list[Json]
    month: list[Json]


@dataclass(frozen=True, slots=True)
class PageData:
    """One answer's view of the ledger and of Open WebUI.

    Args:
        valves: What the filter is set to.
        accounting: The ledger.
        memory: Whom the policies mean.
        read_host: Reads from Open WebUI's own database.
        now: The instant of the question.
        language: The one that limits are said in.
    """

    valves: AdminValves
    accounting: Accounting
    memory: IdentityMemory
    read_host: Callable[[Callable[[Connection], Any]], Any]
    now: datetime
    language: Language = ENGLISH

    # What is read

    def directory(self, user: str | None = None) -> Directory:
        """Open WebUI's users, or one of them, with their groups."""
        found: Directory = self.read_host(partial(read_directory, user=user))
        return found

    def read(self, work: Callable[[Connection], Any]) -> Any:
        """Read one moment of the ledger."""
        self.accounting.prepare()
        return self.accounting.read(partial(read_snapshot_of, work=work))

    def finder(self) -> LimitFinder:
        """What finds the limits of users and pools now."""
        return LimitFinder(self.valves, self.memory.identities(self.valves.policy_set), self.now)

    def find_user(self, key: object) -> tuple[Subject, str]:
        """A user by id or address, and what the user is called.

        Raises:
            PageError: There is none.
        """
        if not isinstance(key, str) or not 0 < len(key.strip()) <= LONGEST_NAME:
            raise PageError(400, "user: the id or the e-mail address of a user")
        # A text that no database has names nobody.
        directory = self.directory(key if clean_text(key, LONGEST_NAME) == key else "")
        # An id is never taken for an address.
        found = key if key in directory.people else next(iter(directory.people), None)
        if found is None:
            raise PageError(404, f"There is no user {quoted_text(key)}.")
        return directory.find(found), directory.people[found][2]

    # One user

    def standing(self, user_id: str) -> Standing:
        """Where a user's limits stand, and what was used today and this month by model."""
        subject, name = self.find_user(user_id)
        match = self.finder().match(subject)
        limits = match.limits_of(subject)
        today = self._selection(self._window("day"), subject.user_id)
        month = self._selection(self._window("month"), subject.user_id)

        def read(connection: Connection) -> Standing:
            return Standing(
                subject,
                name,
                match.policy,
                match.exempt,
                read_states(connection, limits, self.now),
                self._models(sum_models(connection, today)),
                self._models(sum_models(connection, month)),
            )

        found: Standing = self.read(read)
        return found

    def me(self, user_id: str) -> Json:
        """Everything of one user's: limits, use by model and day, replies, grants."""
        standing, month = self.standing(user_id), self._window("month")
        subject = standing.subject
        this_month = self._selection(month, subject.user_id)
        requests = sum(row["requests"] for row in standing.month)

        def read(connection: Connection) -> Json:
            scopes = {subject.scope, *(state.applied.scope for state in standing.states)}
            days = sum_records(connection, this_month, ["day"])
            replies = read_latest(connection, this_month, MOST_REPLIES)
            grants = read_grants(connection, scopes, int(month.start.timestamp()), MOST_GRANTS)
            return {
                "days": [
                    {"day": day, **sums_row(Sums(*numbers))}
                    for (day,), numbers in sorted(days.items())
                ],
                "replies": [self._reply(row) for row in replies],
                "replies_left_out": max(0, requests - len(replies)),
                "grants": grant_rows(grants, self.now),
            }

        return {
            "user_id": subject.user_id,
            "email": subject.email,
            "name": standing.name,
            **policy_row(subject, standing.policy, standing.exempt),
            "limits": self.write_limits(standing.states),
            "today": standing.today,
            "month": standing.month,
            **self.read(read),
            "since": iso_instant(month.start),
            "timezone": self.valves.timezone,
            "soft_limit_percent": self.valves.soft_limit_percent,
            "shadow_mode": self.valves.shadow_mode,
        }

    def user(self, key: str) -> Json:
        """The same for administrators, by id or address."""
        return self.me(self.find_user(key)[0].user_id)

    # Everybody

    def users(self, near: bool = False) -> list[str]:
        """All users with their limits as JSON text, those near or over one first.

        Args:
            near: Only those.
        """
        directory, finder = self.directory(), self.finder()

        def read(connection: Connection) -> list[tuple[int, str, int, str]]:
            reader, writer = LimitReader(connection, self.now), LimitWriter(self.language)
            pools: dict[int, str] = {}  # the same for all members: read and written once
            alike: dict[int, tuple[Match, str]] = {}  # what all of one match have in common
            found: list[tuple[int, str, int, str]] = []
            people = directory.subjects()
            while some := [(one, finder.match(one)) for one in islice(people, USERS_AT_ONCE)]:
                shared = {id(one): one for _, match in some for one in match.pools}
                new = [one for key, one in shared.items() if key not in pools]
                for applied, state in zip(new, reader.read(new), strict=True):
                    pools[id(applied)] = writer.write(state)
                own = [match.own_limits(subject) for subject, match in some]
                states = iter(reader.read([applied for limits in own for applied in limits]))
                for (subject, match), limits in zip(some, own, strict=True):
                    mine = [(state, state.percent) for state in islice(states, len(limits))]
                    adding = [
                        (percent, state.applied.limit)
                        for state, percent in mine
                        if not state.applied.limit.is_moment
                    ]
                    # A pool is nobody's own: it has a row of its own.
                    alarmed = any(percent >= self.warned_at(limit) for percent, limit in adding)
                    if near and not alarmed:
                        continue
                    if id(match) not in alike:
                        row = policy_row(subject, match.policy, match.exempt)
                        alike[id(match)] = match, PAGE_JSON.encode(row)[1:-1]
                    percent, nearest = max(adding, key=itemgetter(0), default=(0, None))
                    texts = [writer.write(*one) for one in mine]
                    texts += [pools[id(applied)] for applied in match.pools]
                    # As an encoder writes it, which would take a while to be made for each.
                    named = (subject.user_id, subject.email, directory.people[subject.user_id][2])
                    user_id, email, name = map(PAGE_JSON.encode, named)
                    text = (
                        f'{{"user_id":{user_id},"email":{email},"name":{name},{alike[id(match)][1]},'
                        f'"near":{"true" if alarmed else "false"},"percent":{percent},"nearest":'
                        f"{PAGE_JSON.encode(str(nearest) if alarmed else None)},"
                        f'"limits":[{",".join(texts)}]}}'
                    )
                    order = -percent if alarmed else 1, subject.email, len(found)
                    found.append((*order, text))
            return found

        return [text for *_, text in sorted(self.read(read))]

    def near_users(self) -> list[Json]:
        """The users near or over a limit, the furthest first."""
        return [json.loads(text) for text in self.users(near=True)]

    def is_near(self, state: LimitState) -> bool:
        """Whether a limit is reached, or has reached its warning; none about one moment ever is."""
        limit = state.applied.limit
        return not limit.is_moment and state.percent >= self.warned_at(limit)

    def warned_at(self, limit: Limit) -> int:
        """The part of a limit, in percent, from which on it is near."""
        return min(*(limit.warn_percents[:1] or (self.valves.soft_limit_percent,)), 100)

    def pool_limits(self) -> list[tuple[Pool, list[AppliedLimit]]]:
        """All pools, each with its limits for each group that it is of."""
        groups = tuple(self.directory("").groups.values())
        finder = self.finder()
        known = finder.match(Subject("", "", "", groups)).groups
        return [(pool, finder.limits_of_pool(pool, known)) for pool in self.valves.policy_set.pools]

    def pools(self) -> list[Json]:
        """All pools with their limits and grants."""
        found, second = self.pool_limits(), int(self.now.timestamp())
        limits = [applied for _, own in found for applied in own]
        scopes = {applied.scope for applied in limits}

        def read(connection: Connection) -> tuple[Sequence[LimitState], Sequence[Row[Any]]]:
            states = read_states(connection, limits, self.now)
            return states, read_grants(connection, scopes, second, MOST_GRANTS)

        all_states, grants = self.read(read)
        states, rows = iter(all_states), []
        for pool, own in found:
            mine = [next(states) for _ in own]
            keys = {grant_key(applied) for applied in own}
            of_pool = [
                row for row in grants if tuple(row._mapping[column] for column in GRANT_KEY) in keys
            ]
            rows.append(
                {
                    "pool": pool.name,
                    "group": pool.group,
                    "limits": self.write_limits(mine),
                    "grants": grant_rows(of_pool, self.now),
                    "near": any(self.is_near(state) for state in mine),
                }
            )
        return rows

    def report(self, wanted: Sequence[str], selection: Selection) -> Iterator[UsageRow]:
        """What all records in a selection add up to.

        Raises:
            PageError: These are too many rows.
        """
        emails, groups = {}, {}
        if {"user", "group"} & set(wanted):
            emails, groups = self.read_host(partial(read_names, with_users="user" in wanted))

        def read(connection: Connection) -> Iterator[UsageRow]:
            sums = sum_records(connection, selection, wanted, MOST_LISTED_ROWS)
            if len(sums) > MOST_LISTED_ROWS:
                raise PageError(
                    400,
                    f"More than {MOST_LISTED_ROWS:,} rows are too many: "
                    "ask for fewer days or dimensions.",
                )
            if "user" in wanted:
                at = wanted.index("user")
                gone = {key[at] for key in sums} - emails.keys()
                return named_rows(wanted, sums, emails | recorded_emails(connection, gone), groups)
            return named_rows(wanted, sums, emails, groups)

        rows: Iterator[UsageRow] = self.read(read)
        return rows

    def overview(self) -> Json:
        """Totals of today and of this month, use by model, and whom the policies mean."""
        month, today = self._window("month"), self._window("day")

        def read(connection: Connection) -> Json:
            models = sum_models(connection, self._selection(month))
            day = sum_records(connection, self._selection(today), ())
            total = sum(models.values(), Sums())
            return {
                "today": sums_row(Sums(*day.get((), ()))),
                "month": sums_row(total),
                "models": self._models(models),
            }

        return {
            **self.read(read),
            "since": iso_instant(month.start),
            "timezone": self.valves.timezone,
            "notices": list(self.memory.notices),
            "shadow_mode": self.valves.shadow_mode,
            "soft_limit_percent": self.valves.soft_limit_percent,
        }

    # Rows

    def write_limits(self, states: Iterable[LimitState]) -> list[Json]:
        """Limits as JSON has them."""
        writer = LimitWriter(self.language)
        return [json.loads(writer.write(state)) for state in states]

    def _window(self, period: str) -> Window:
        return parse_period(period).window(self.now, self.valves.calendar_rules)

    def _selection(self, window: Window, user_id: str | None = None) -> Selection:
        rules = self.valves.calendar_rules
        return Selection(
            int(window.start.timestamp()), None, rules.timezone, rules.reset_hour, user_id
        )

    def _cost(self, model_names: str, cost_micros: int) -> float | None:
        """Dollars; None where nobody knows them."""
        rule = find_model_rule(self.valves.policy_set, split_names(model_names))
        return cost_micros / 1_000_000 if cost_micros or rule.is_priced else None

    def _models(self, sums: Mapping[tuple[str, str], Sums]) -> list[Json]:
        """Use by model, the largest first."""
        by_model: dict[str, Json] = {}
        for (model, names), part in sums.items():
            row = by_model.setdefault(model, {"model": model, **sums_row(Sums()), "cost_usd": None})
            cost = self._cost(names, part.cost_micros)
            for key, value in sums_row(part).items():
                if key != "cost_usd":
                    row[key] += value
            if cost is not None:
                row["cost_usd"] = (row["cost_usd"] or 0) + cost
        return sorted(by_model.values(), key=lambda row: (-row["total_tokens"], row["model"]))

    def _reply(self, row: Row[Any]) -> Json:
        return {
            "at": iso_second(row.created_at),
            "model": row.model_id,
            "source": row.source,
            "running": row.state == "reserved",
            "input_tokens": row.input_tokens,
            "output_tokens": row.output_tokens,
            "cost_usd": self._cost(row.model_names, row.cost_micros),
            "estimated": bool(row.estimated),
        }


@dataclass(frozen=True, slots=True)
class PageRequest:
    """One question, as its handler gets it.

    Args:
        data: What can be read.
        user: Who asks, as Open WebUI has it.
        parameters: From the path and the query.
        body: The JSON object that was sent; {} for none.
        everywhere: Whether the filter is on for all models.
        deadline: Until when it has its turn to change something, by `time.monotonic`.
    """

    data: PageData
    user: Any
    parameters: Mapping[str, str]
    body: Json
    everywhere: bool
    deadline: float

    @property
    def actor(self) -> str:
        """Who asks, as a grant names it."""
        return str(getattr(self.user, "email", "") or self.user.id)


def policy_row(subject: Subject, policy: Policy, exempt: bool) -> Json:
    """What a user has in common with all others of the same role and groups."""
    return {
        "role": subject.role,
        "groups": [group.name for group in subject.groups],
        "policy": policy.name,
        "exempt": exempt,
    }
