"""What the usage pages show, as JSON has it; everything here blocks, and runs in a thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection, Row

from helpers.errors import ConfigurationError
from helpers.ledger.counters import split_names
from helpers.ledger.grants import (
    REVOKED,
    Change,
    NewGrant,
    add_grants,
    find_grant,
    make_resets,
    revoke_grant,
    window_end,
)
from helpers.ledger.identities import IdentityMemory
from helpers.ledger.reports import (
    Selection,
    Sums,
    UsageRow,
    amount_number,
    grant_key,
    named_rows,
    read_grants,
    read_latest,
    read_snapshot_of,
    read_states,
    recorded_emails,
    sum_models,
    sum_records,
)
from helpers.limits.amounts import NotationError, read_count, read_dollars
from helpers.limits.decisions import LimitState
from helpers.limits.limit import Limit, Measure, parse_limit
from helpers.limits.periods import Window, parse_period, quoted_text
from helpers.limits.policies import Policy, Pool
from helpers.limits.policy import (
    AppliedLimit,
    GroupRef,
    Subject,
    choose_policy,
    find_model_rule,
    pool_scopes,
)
from helpers.openwebui.accounting import Accounting
from helpers.openwebui.directory import Directory, read_directory
from helpers.openwebui.languages.en import ENGLISH
from helpers.openwebui.messages import limit_text
from helpers.openwebui.valves import AdminValves, is_exempt, read_timezone
from helpers.openwebui.wording import Language
from helpers.texts import LONGEST_ID, LONGEST_NAME, clean_text

MOST_REPLIES = 200
MOST_GRANTS = 500
MOST_LISTED_ROWS = 20_000
LONGEST_REASON = 1_000
# More than this nobody adds to a limit: a sum of many still fits in 64 bits.
LARGEST_GRANT = 10**15

Json = dict[str, Any]


class PageError(Exception):
    """An answer other than what was asked for.

    Args:
        status: The HTTP status.
        detail: What is wrong, in a sentence.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a user stands: limits, and use by model, as JSON has it."""

    subject: Subject
    name: str
    policy: Policy
    states: tuple[LimitState, ...]
    today: list[Json]
    month: list[Json]


@dataclass(frozen=True, slots=True)
class GrantTarget:
    """Whose limits are to be changed: a user's own, or a pool's."""

    name: str
    limits: tuple[AppliedLimit, ...]
    answer: Json


class LimitFinder:
    """Finds the limits of many users at one instant, each kind of them once."""

    def __init__(self, valves: AdminValves, now: datetime) -> None:
        self.valves, self.now = valves, now
        self._policies, self._default = valves.policy_set, valves.default_policy
        self._windows: dict[int, tuple[Limit, Window]] = {}
        self._pools: dict[tuple[str, str], tuple[AppliedLimit, ...]] = {}

    def policy_of(self, subject: Subject) -> Policy:
        """The policy that counts for a user."""
        return choose_policy(subject, self._policies, self._default, self.valves.multiple_groups)

    def limits_of(self, subject: Subject, policy: Policy) -> list[AppliedLimit]:
        """A user's own limits, and those of the pools that the user is in."""
        if is_exempt(self.valves, subject):
            return []
        name = "" if policy.kind == "default" else policy.name
        limits = [
            AppliedLimit(limit, subject.scope, self._window(limit), name, policy.kind)
            for limit in policy.limits or ()
        ]
        for pool in self._policies.pools:
            limits += self.limits_of_pool(pool, subject.groups)
        return limits

    def limits_of_pool(self, pool: Pool, groups: Iterable[GroupRef]) -> list[AppliedLimit]:
        """A pool's limits, for each group of its that is among these."""
        limits: list[AppliedLimit] = []
        for scope in pool_scopes(pool, groups):
            key = (pool.name, scope)
            if key not in self._pools:
                self._pools[key] = tuple(
                    AppliedLimit(limit, scope, self._window(limit), pool.name)
                    for limit in pool.limits
                )
            limits += self._pools[key]
        return limits

    def _window(self, limit: Limit) -> Window:
        # By identity: the limits of a policies text live as long as it does.
        found = self._windows.get(id(limit))
        if found is None:
            window = limit.period.window(self.now, self.valves.calendar_rules)
            found = self._windows[id(limit)] = (limit, window)
        return found[1]


class LimitWriter:
    """Writes limits as JSON; what is alike in all of a kind is made once."""

    def __init__(self, language: Language) -> None:
        self._language = language
        self._made: dict[int, tuple[Limit, Json]] = {}
        self._instants: dict[datetime, str] = {}

    def write(self, state: LimitState) -> Json:
        """One limit; money in dollars."""
        applied = state.applied
        limit = applied.limit
        made = self._made.get(id(limit))
        if made is None:
            fixed = {
                "limit": str(limit),
                "text": limit_text(limit, self._language),
                "measure": limit.measure,
                "period": limit.period.name,
                "model": limit.model_glob,
                "source": limit.source,
            }
            made = self._made[id(limit)] = (limit, fixed)
        measure = limit.measure
        return {
            **made[1],
            "scope": applied.policy if applied.is_pool else "user",
            "policy": applied.policy or "default",
            "amount": amount_number(measure, state.amount),
            "granted": amount_number(measure, state.granted),
            "used": amount_number(measure, state.used),
            "reserved": amount_number(measure, state.reserved),
            "remaining": amount_number(measure, state.remaining),
            "percent": state.percent,
            "reset_at": None if limit.is_moment else self._instant(state.reset_at),
        }

    def _instant(self, instant: datetime) -> str:
        text = self._instants.get(instant)
        if text is None:
            text = self._instants[instant] = iso_instant(instant)
        return text


def iso_instant(instant: datetime) -> str:
    """An instant as ISO 8601 in UTC."""
    return instant.astimezone(UTC).isoformat(timespec="seconds")


def iso_second(second: int) -> str:
    """A second of the ledger as ISO 8601 in UTC."""
    return iso_instant(datetime.fromtimestamp(second, UTC))


def sums_row(sums: Sums) -> Json:
    """Sums as JSON has them."""
    return {
        "requests": sums.requests,
        "input_tokens": sums.input_tokens,
        "output_tokens": sums.output_tokens,
        "total_tokens": sums.total_tokens,
        "cost_usd": sums.cost_micros / 1_000_000,
        "estimated_requests": sums.estimated_requests,
    }


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

    def recall(self, subject: Subject) -> Subject:
        """A user with the names in the policies that mean it."""
        return self.memory.recall(self.valves.policy_set, subject)

    def find_user(self, key: object) -> tuple[Subject, str]:
        """A user by id or address, and what the user is called.

        Raises:
            PageError: There is none.
        """
        if not isinstance(key, str) or not 0 < len(key.strip()) <= LONGEST_NAME:
            raise PageError(400, "user: the id or the e-mail address of a user")
        directory = self.directory(key)
        # An id is never taken for an address.
        found = directory.subjects.get(key) or next(iter(directory.subjects.values()), None)
        if found is None:
            raise PageError(404, f"There is no user {quoted_text(key)}.")
        return self.recall(found), directory.names.get(found.user_id, "")

    # One user

    def standing(self, user_id: str) -> Standing:
        """Where a user's limits stand, and what was used today and this month by model."""
        subject, name = self.find_user(user_id)
        finder = LimitFinder(self.valves, self.now)
        policy = finder.policy_of(subject)
        limits = finder.limits_of(subject, policy)
        today = self._selection(self._window("day"), subject.user_id)
        month = self._selection(self._window("month"), subject.user_id)

        def read(connection: Connection) -> Standing:
            return Standing(
                subject,
                name,
                policy,
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
                "days": [{"day": day, **sums_row(sums)} for (day,), sums in sorted(days.items())],
                "replies": [self._reply(row) for row in replies],
                "replies_left_out": max(0, requests - len(replies)),
                "grants": self._grants(grants, {subject.scope: subject.email}),
            }

        return {
            **self._head(subject, standing.name, standing.policy),
            "limits": self._limits(standing.states),
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

    def users(self, near: bool = False) -> list[Json]:
        """All users with their limits, those near or over one first.

        Args:
            near: Only those.
        """
        directory = self.directory()
        finder = LimitFinder(self.valves, self.now)
        asked: list[tuple[Subject, Policy, list[int]]] = []
        # A pool's limits are the same for all its members.
        places: dict[int, int] = {}
        limits: list[AppliedLimit] = []
        for named in directory.subjects.values():
            subject = self.recall(named)
            policy = finder.policy_of(subject)
            own = []
            for applied in finder.limits_of(subject, policy):
                place = places.get(id(applied))
                if place is None:
                    place = len(limits)
                    limits.append(applied)
                    if applied.is_pool:
                        places[id(applied)] = place
                own.append(place)
            asked.append((subject, policy, own))
        states = self.read(lambda connection: read_states(connection, limits, self.now))
        alarming = [self.is_near(state) for state in states]
        writer, rows = LimitWriter(self.language), []
        written: dict[int, Json] = {}
        for subject, policy, own in asked:
            # A pool is nobody's own: it has a row of its own.
            mine = [place for place in own if not limits[place].is_pool]
            alarmed = any(alarming[place] for place in mine)
            if near and not alarmed:
                continue
            for place in own:
                if place not in written:
                    written[place] = writer.write(states[place])
            row = self._head(subject, directory.names.get(subject.user_id, ""), policy)
            row["limits"] = [written[place] for place in own]
            row["near"] = alarmed
            row["percent"] = max((written[place]["percent"] for place in mine), default=0)
            rows.append((-row["percent"] if alarmed else 1, subject.email, row))
        rows.sort(key=lambda item: item[:2])
        return [row for _, _, row in rows]

    def exempts(self, subject: Subject) -> bool:
        """Whether a user is recorded but never refused."""
        return is_exempt(self.valves, subject)

    def is_near(self, state: LimitState) -> bool:
        """Whether a limit is reached, or has reached its warning; none about one moment ever is."""
        crossed = state.crossed_threshold(self.valves.soft_limit_percent)
        reached = state.exceeded and not state.applied.limit.is_moment
        return reached or crossed is not None

    def pools(self) -> list[Json]:
        """All pools with their limits, one row for each group that a pool is of."""
        finder = LimitFinder(self.valves, self.now)
        directory = self.directory()
        (bearer,) = (self.recall(Subject("", "", "", tuple(directory.groups.values()))),)
        found = [
            (pool, finder.limits_of_pool(pool, bearer.groups))
            for pool in self.valves.policy_set.pools
        ]
        limits = [applied for _, own in found for applied in own]
        scopes, second = {applied.scope for applied in limits}, int(self.now.timestamp())

        def read(connection: Connection) -> tuple[Sequence[LimitState], Sequence[Row[Any]]]:
            states = read_states(connection, limits, self.now)
            return states, read_grants(connection, scopes, second, MOST_GRANTS)

        all_states, grants = self.read(read)
        states, writer, rows = iter(all_states), LimitWriter(self.language), []
        for pool, own in found:
            mine = [next(states) for _ in own]
            keys = {grant_key(applied) for applied in own}
            of_pool = [
                row
                for row in grants
                if (row.scope, row.measure, row.model_glob, row.period, row.source) in keys
            ]
            rows.append(
                {
                    "pool": pool.name,
                    "group": pool.group,
                    "limits": [writer.write(state) for state in mine],
                    "grants": self._grants(of_pool, {}),
                    "near": any(self.is_near(state) for state in mine),
                }
            )
        return rows

    def report(self, wanted: Sequence[str], selection: Selection) -> list[UsageRow]:
        """What all records in a selection add up to.

        Raises:
            PageError: These are too many rows.
        """
        directory = self.directory() if {"user", "group"} & set(wanted) else None

        def read(connection: Connection) -> list[UsageRow]:
            sums = sum_records(connection, selection, wanted)
            if len(sums) > MOST_LISTED_ROWS:
                raise PageError(
                    400, f"{len(sums):,} rows are too many: ask for fewer days or dimensions."
                )
            emails: dict[str, str] = {}
            names: dict[str, str] = {}
            if directory is not None:
                emails = directory.emails
                names = {key: group.name for key, group in directory.groups.items()}
            if "user" in wanted:
                at = wanted.index("user")
                emails |= recorded_emails(connection, {key[at] for key in sums} - emails.keys())
            return named_rows(wanted, sums, emails, names)

        rows: list[UsageRow] = self.read(read)
        return rows

    def overview(self) -> Json:
        """Totals of today and of this month, use by model, and whom the policies mean."""
        month, today = self._window("month"), self._window("day")

        def read(connection: Connection) -> Json:
            models = sum_models(connection, self._selection(month))
            day = sum_records(connection, self._selection(today), ())
            total = sum(models.values(), Sums())
            return {
                "today": sums_row(day.get((), Sums())),
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

    # Grants

    def grant_target(self, body: Mapping[str, Any]) -> GrantTarget:
        """The user or the pool that a request names, with the limits of its own.

        Raises:
            PageError: It names none, or both.
        """
        user, pool = body.get("user"), body.get("pool")
        finder = LimitFinder(self.valves, self.now)
        if (user is None) == (pool is None):
            raise PageError(400, 'either "user" (an id or an e-mail address) or "pool"')
        if user is not None:
            subject, _ = self.find_user(user)
            policy = finder.policy_of(subject)
            own = [one for one in finder.limits_of(subject, policy) if not one.is_pool]
            name = subject.email or subject.user_id
            answer: Json = {"user": name, "user_id": subject.user_id}
        else:
            pools = {one.name: one for one in self.valves.policy_set.pools}
            if not isinstance(pool, str) or pool not in pools:
                known = ", ".join(pools) or "there are none"
                given = quoted_text(pool) if isinstance(pool, str) else "pool"
                raise PageError(404, f"There is no pool {given}. Pools: {known}.")
            groups = tuple(self.directory().groups.values())
            own = finder.limits_of_pool(
                pools[pool], self.recall(Subject("", "", "", groups)).groups
            )
            name, answer = f"pool {pool}", {"pool": pool}
        return GrantTarget(name, tuple(own), answer)

    def grant(self, body: Mapping[str, Any], by: str) -> Json:
        """Add to a limit until its window ends.

        Raises:
            PageError: The request can't be understood, or there is no such limit.
        """
        wanted = read_limit_text(body.get("limit"))
        amount, reason = read_amount(body.get("amount"), wanted.measure), read_reason(body)
        target = self.grant_target(body)
        limits = matching(target, wanted, body.get("limit"))
        grants = [NewGrant(applied, amount, window_end(applied, self.now)) for applied in limits]
        change = self._change(limits, lambda _: grants, by, reason)
        first = grants[0]
        return {
            "id": first.id,
            "ids": [one.id for one in grants],
            "kind": "grant",
            **target.answer,
            "limit": str(first.applied.limit),
            "amount": amount_number(wanted.measure, amount),
            "reason": reason,
            "granted_by": by,
            "created_at": iso_instant(self.now),
            "expires_at": iso_second(first.expires_at),
            "limits": self._limits(change.after),
        }

    def reset(self, body: Mapping[str, Any], by: str) -> Json:
        """Start limits anew by grants of what was used.

        Raises:
            PageError: The request can't be understood, or there is no such limit.
        """
        reason, target = read_reason(body), self.grant_target(body)
        texts = body.get("limits")
        if isinstance(texts, str):
            texts = [] if texts.strip().lower() == "all" else [texts]
        if texts is not None and (not isinstance(texts, list) or len(texts) > 100):
            raise PageError(400, 'limits: a list such as ["50k tokens/day"]; left out, all')
        named = [
            applied
            for text in texts or ()
            for applied in matching(target, read_limit_text(text), text)
        ]
        adding = tuple(one for one in target.limits if not one.limit.is_moment)
        limits = tuple(dict.fromkeys(named)) or adding
        if not limits:
            raise PageError(400, f"{target.name} has no limit.")
        make = partial(make_resets, limits=limits, now=self.now)
        change = self._change(limits, make, by, reason)
        return {
            "kind": "reset",
            **target.answer,
            "ids": [one.id for one in change.grants],
            "reason": reason,
            "granted_by": by,
            "created_at": iso_instant(self.now),
            "limits": self._limits(change.after),
        }

    def revoke(self, key: str, reason: str, by: str) -> Json:
        """Take a grant back.

        Raises:
            PageError: There is none that still holds.
        """
        missing = PageError(404, "There is no such grant, or it holds no more.")
        if not 0 < len(key) <= LONGEST_ID or clean_text(key, LONGEST_ID) != key:
            raise missing
        self.accounting.prepare()
        row = self.accounting.read(partial(find_grant, key=key, now=self.now))
        if row is None:
            raise missing
        revoke = partial(revoke_grant, key=key, by=by, reason=reason, now=self.now)
        if not self.accounting.change(revoke, {str(row._mapping["scope"])}):
            raise missing
        return {"id": key, "revoked": True}

    def _change(
        self,
        limits: Sequence[AppliedLimit],
        make: Callable[[Connection], Sequence[NewGrant]],
        by: str,
        reason: str,
    ) -> Change:
        work = partial(add_grants, limits=limits, make=make, by=by, reason=reason, now=self.now)
        return self.accounting.change(work, {applied.scope for applied in limits})

    # Rows

    def _head(self, subject: Subject, name: str, policy: Policy) -> Json:
        exempt = is_exempt(self.valves, subject)
        return {
            "user_id": subject.user_id,
            "email": subject.email,
            "name": name,
            "role": subject.role,
            "groups": [group.name for group in subject.groups],
            "policy": policy.name,
            "exempt": exempt,
        }

    def _limits(self, states: Iterable[LimitState]) -> list[Json]:
        writer = LimitWriter(self.language)
        return [writer.write(state) for state in states]

    def _window(self, period: str) -> Window:
        return parse_period(period).window(self.now, self.valves.calendar_rules)

    def _selection(self, window: Window, user_id: str | None = None) -> Selection:
        rules = self.valves.calendar_rules
        return Selection(
            int(window.start.timestamp()),
            None,
            rules.timezone,
            rules.reset_hour,
            user_id,
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

    def _grants(self, rows: Iterable[Row[Any]], names: Mapping[str, str]) -> list[Json]:
        listed = list(rows)
        revoked = {row.id.removeprefix(REVOKED) for row in listed if row.id.startswith(REVOKED)}
        now = int(self.now.timestamp())
        return [
            {
                "id": row.id.removeprefix(REVOKED),
                "kind": "revoke" if row.id.startswith(REVOKED) else row.kind,
                "scope": "user" if row.scope in names else "pool",
                "measure": row.measure,
                "period": row.period,
                "model": row.model_glob,
                "source": row.source,
                "amount": amount_number(row.measure, row.amount),
                "granted_by": row.granted_by,
                "reason": row.reason,
                "created_at": iso_second(row.created_at),
                "expires_at": iso_second(row.expires_at),
                "holds": row.expires_at > now and row.amount > 0 and row.id not in revoked,
            }
            for row in listed
        ]


def matching(target: GrantTarget, wanted: Limit, text: object) -> tuple[AppliedLimit, ...]:
    """The limits of a user or a pool that count what is wanted.

    Raises:
        PageError: There is none; it lists those that there are.
    """
    found = tuple(
        one for one in target.limits if one.limit.counts == wanted.counts and not wanted.is_moment
    )
    if not found:
        known = ", ".join(dict.fromkeys(str(one.limit) for one in target.limits))
        raise PageError(
            400,
            f"limit: {quoted_text(str(text))} counts what no limit of {target.name} counts; "
            f"its limits: {known or 'none'}",
        )
    return found


def read_limit_text(value: object) -> Limit:
    """A limit in its notation, as a request names it.

    Raises:
        PageError: It isn't one.
    """
    if not isinstance(value, str) or len(value) > LONGEST_NAME:
        raise PageError(400, 'limit: a limit as the policies have it, such as "50k tokens/day"')
    try:
        return parse_limit(value, "limit")
    except ConfigurationError as error:
        raise PageError(400, str(error)) from None


def read_amount(value: object, measure: Measure) -> int:
    """An amount to add, as the ledger counts it; money comes in dollars.

    Raises:
        PageError: It isn't a positive number of a sensible size.
    """
    money = measure == "cost"
    allowed = PageError(
        400, f'amount: a number above 0{" of dollars" if money else ""}, such as 10 or "10k"'
    )
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise allowed
    # Python refuses to write out really long numbers.
    if isinstance(value, int) and not 0 < value <= LARGEST_GRANT:
        raise allowed
    text = str(value).strip()
    if not text or len(text) > 40:
        raise allowed
    try:
        if money:
            amount = read_dollars(text.removeprefix("$"))
        elif isinstance(value, float):
            amount = int(value) if value.is_integer() else 0
        else:
            amount = read_count(text, "token")
    except (NotationError, ValueError, OverflowError):
        raise allowed from None
    if not 0 < amount <= LARGEST_GRANT:
        raise allowed
    return amount


def read_reason(body: Mapping[str, Any]) -> str:
    """Why, as it is stored.

    Raises:
        PageError: It isn't a text, or too long.
    """
    reason = body.get("reason", "")
    if not isinstance(reason, str) or len(reason) > LONGEST_REASON:
        raise PageError(400, f"reason: a text of at most {LONGEST_REASON:,} characters")
    return clean_text(reason, LONGEST_REASON).strip()


def read_zone_of(valves: AdminValves) -> Any:
    """The time zone whose days a report means."""
    return read_timezone(valves.timezone)
