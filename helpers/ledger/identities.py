"""Identities: whom the names in the policies mean, also after a rename.

Once a name has meant a group or a user, the ledger remembers the id, and the policy keeps meaning
it whatever it is called later. Who comes by the name afterwards, while the one remembered still
exists, isn't taken for it: an address may pass to somebody else, and a group of that name may be
made anew. As it is open then whom the name means, both readings apply to both of them at once
(`choose_policy`), so that nobody gets more than either reading allows, and it is reported. An id
settles it. An id that Open WebUI has no more means nobody: its name is free again.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Literal

from sqlalchemy import Connection, select

from helpers.errors import LedgerError
from helpers.ledger.tables import names_table
from helpers.ledger.transactions import insert_on
from helpers.limits.globs import glob_fits
from helpers.limits.periods import quoted_text
from helpers.limits.policies import PolicySet, fold_name
from helpers.limits.policies_text import table_header
from helpers.limits.policy import Subject, called_model, find_model_rule
from helpers.logs import log
from helpers.texts import clean_text

# For so long a worker may not know of a rename that it hasn't seen itself.
REFRESH_SECONDS = 5
# A longer name in the policies is matched but not remembered, nor is one that no database stores.
LONGEST_REMEMBERED = 255
MOST_NOTES_IN_FORM = 10
MOST_UNPRICED = 1_000

Kind = Literal["group", "user"]


@dataclass(frozen=True, slots=True)
class RememberedName:
    """That a name in the policies has meant a group or a user."""

    kind: str
    name: str
    id: str
    last_seen: str  # its name or address at that time


@dataclass(frozen=True, slots=True)
class HostNames:
    """What Open WebUI has now: names of groups and addresses of users by id, and models."""

    groups: Mapping[str, str]
    users: Mapping[str, str]
    models: Collection[str] = ()  # empty: not known

    def of(self, kind: str) -> Mapping[str, str]:
        """The names of one kind."""
        return self.groups if kind == "group" else self.users


@dataclass(frozen=True, slots=True)
class NamedTable:
    """A table, or a pool's key, that names a group or a user.

    Args:
        kind: What it names.
        key: The name as `PolicySet` has it.
        written: The name as the text has it.
        header: The table's first line.
        is_policy: Whether it is a group's or a user's own table.
    """

    kind: Kind
    key: str
    written: str
    header: str
    is_policy: bool = True


@dataclass(frozen=True, slots=True)
class Identities:
    """Whom the names in a policies text mean.

    Args:
        sure: The names that mean a group or a user, by its kind and id.
        doubtful: The names of which it is open.
        bound: The ids that each name is known to mean, by kind and name; it has all names.
        matched: What the ledger should remember.
        problems: What an administrator should mend, a sentence each.
        renames: Which policies mean somebody who has another name now, a sentence each.
        models: The models that are known.
    """

    sure: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    doubtful: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    bound: Mapping[tuple[str, str], frozenset[str]] = field(default_factory=dict)
    matched: frozenset[RememberedName] = frozenset()
    problems: tuple[str, ...] = ()
    renames: tuple[str, ...] = ()
    models: Collection[str] = ()

    @property
    def notices(self) -> tuple[str, ...]:
        """All that an administrator should know."""
        return self.problems + self.renames

    def recall(self, subject: Subject) -> Subject:
        """The user with the names in the policies that mean it and its groups."""
        groups = []
        for group in subject.groups:
            own = (fold_name(group.id), fold_name(group.name))
            keys, doubtful = self._keys_of("group", group.id, own)
            groups.append(replace(group, keys=keys, doubtful=doubtful))
        own = (subject.user_id, fold_name(subject.email))
        keys, doubtful = self._keys_of("user", subject.user_id, own)
        return replace(subject, groups=tuple(groups), keys=keys, doubtful=doubtful)

    def names_user(self, subject: Subject) -> bool:
        """Whether a name in the policies may mean this very user, and not only its groups."""
        own = ("user", subject.user_id), ("user", fold_name(subject.email))
        named = own[0] in self.sure or own[0] in self.doubtful
        return named or any(name in self.bound for name in own)

    def _keys_of(
        self, kind: Kind, key: str, own: Iterable[str]
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        sure = dict.fromkeys(self.sure.get((kind, key), ()))
        doubtful = dict.fromkeys(self.doubtful.get((kind, key), ()))
        for name in own:
            known = self.bound.get((kind, name))
            if known is None or name in sure or name in doubtful:
                continue
            # Not seen at the last look: new, or renamed a moment ago.
            (doubtful if known else sure)[name] = None
        return tuple(sure), tuple(doubtful)


def named_in(policies: PolicySet) -> Iterator[NamedTable]:
    """Every group and user that a policies text names, in its order within each kind."""
    for key, policy in policies.groups.items():
        yield NamedTable("group", key, policy.name, table_header("group", policy.name))
    for key, policy in policies.users.items():
        yield NamedTable("user", key, policy.name, table_header("user", policy.name))
    for pool in policies.pools:
        if pool.group is not None:
            header = f"{table_header('pool', pool.name)} group"
            yield NamedTable("group", fold_name(pool.group), pool.group, header, is_policy=False)


def identify(
    policies: PolicySet, host: HostNames, remembered: Iterable[RememberedName] = ()
) -> Identities:
    """Whom the names in the policies mean, given what there is and what was remembered."""
    reader = IdentityReader(host, remembered)
    for table in named_in(policies):
        reader.read(table)
    reader.report_conflicts()
    return Identities(
        {key: tuple(names) for key, names in reader.sure.items()},
        {key: tuple(names) for key, names in reader.doubtful.items()},
        reader.bound,
        frozenset(reader.matched),
        tuple(dict.fromkeys((*reader.problems, *unknown_models(policies, host.models)))),
        tuple(dict.fromkeys(reader.renames)),
        host.models,
    )


class IdentityReader:
    """Goes through the names in the policies one by one."""

    def __init__(self, host: HostNames, remembered: Iterable[RememberedName]) -> None:
        self.host = host
        self.remembered: dict[tuple[str, str], set[str]] = {}
        for one in remembered:
            self.remembered.setdefault((one.kind, one.name), set()).add(one.id)
        self.holders: dict[tuple[str, str], list[str]] = {}
        for kind in ("group", "user"):
            for key, name in host.of(kind).items():
                self.holders.setdefault((kind, fold_name(name)), []).append(key)
        self.group_ids = {fold_name(key): key for key in host.groups}
        self.sure: dict[tuple[str, str], dict[str, None]] = {}
        self.doubtful: dict[tuple[str, str], dict[str, None]] = {}
        self.bound: dict[tuple[str, str], frozenset[str]] = {}
        self.matched: set[RememberedName] = set()
        self.tables: dict[tuple[str, str], list[NamedTable]] = {}
        self.problems: list[str] = []
        self.renames: list[str] = []

    def read(self, table: NamedTable) -> None:
        """Find out whom one table means."""
        kind, name = table.kind, (table.kind, table.key)
        known, holders = self.host.of(kind), self.holders.get(name, [])
        bound, by_id = self.meant_ids(table, holders)
        alive = {key for key in bound if key in known}
        self.bound[name] = frozenset(bound)
        others = [key for key in holders if key not in bound]
        away = {key for key in alive if not by_id and fold_name(known[key]) != table.key}
        for key in alive:
            open_to_doubt = bool(others) and key in away
            names = self.doubtful if open_to_doubt else self.sure
            names.setdefault((kind, key), {})[table.key] = None
            self.tables.setdefault((kind, key), []).append(table)
            if clean_text(table.key, LONGEST_REMEMBERED) == table.key:
                last_seen = clean_text(known[key], LONGEST_REMEMBERED)
                self.matched.add(RememberedName(kind, table.key, key, last_seen))
        for key in others:
            self.doubtful.setdefault((kind, key), {})[table.key] = None
        self.report(table, alive, away, others)

    def meant_ids(self, table: NamedTable, holders: list[str]) -> tuple[set[str], bool]:
        """The ids that a name means, and whether the name is itself the id."""
        kind, known = table.kind, self.host.of(table.kind)
        by_id = self.group_ids.get(table.key) if kind == "group" else table.key
        if by_id in known:
            return {str(by_id)}, True
        remembered = self.remembered.get((kind, table.key), set())
        if any(table.key in (key, fold_name(key)) for key in remembered):
            return remembered, True  # an id that is gone: no name ever stands for it
        alive = remembered.intersection(known)
        if alive or not holders:
            return alive, False
        exact = {key for key in holders if known[key] == table.written}
        return exact or set(holders), False

    def report(
        self, table: NamedTable, alive: Collection[str], away: Collection[str], others: list[str]
    ) -> None:
        """Note what an administrator should know of one table."""
        known, kind = self.host.of(table.kind), table.kind
        if not alive and not others:
            self.problems.append(nobody_sentence(table, known.values()))
            return
        now_called = " and ".join(sorted(quoted_text(known[key]) for key in away))
        if others:
            ids = ", ".join(sorted([*alive, *others])[:MOST_NOTES_IN_FORM])
            first = f"means the {kind} now called {now_called}, and" if away else "fits"
            self.problems.append(
                f"{table.header} {first} more than one {kind}: until it says by id which is meant"
                f" ({ids}), those in doubt get the stricter of both readings."
            )
        elif away:
            self.renames.append(f"{table.header} means the {kind} now called {now_called}.")

    def report_conflicts(self) -> None:
        """Note the groups and users that several tables mean."""
        for (kind, key), tables in self.tables.items():
            headers = sorted({table.header for table in tables if table.is_policy})
            if len(headers) > 1:
                self.problems.append(
                    f"{' and '.join(headers)} mean the same {kind},"
                    f" {quoted_text(self.host.of(kind)[key])}: what is stricter in each counts."
                )


def nobody_sentence(table: NamedTable, known: Iterable[str]) -> str:
    """That a table names nobody, with the group or user that was meant."""
    hint = spelled_like(table.written, known)
    if table.kind == "user":
        kind = "address" if "@" in table.key else "id"
        return f"{table.header} names nobody: Open WebUI has no user with this {kind}{hint}"
    return f'{table.header} names nobody: Open WebUI has no group "{table.written}"{hint}'


def spelled_like(name: str, known: Iterable[str]) -> str:
    """How a sentence ends on a name that isn't known: with the one that was meant, if any."""
    names = [one for one in sorted(known)[:1000] if is_spelled_like(name, one)]
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.7)
    return f'; did you mean "{close[0]}"?' if close else "."


def is_spelled_like(name: str, other: str) -> bool:
    """Whether what stands before an "@" is alike; all addresses of a house end alike."""
    one, two = (text.partition("@")[0].lower() for text in (name, other))
    return difflib.SequenceMatcher(None, one, two).ratio() >= 0.7


def unknown_models(policies: PolicySet, known: Collection[str]) -> Iterator[str]:
    """A sentence for each model in the policies that no known model fits."""
    if not known:
        return
    for rule in policies.models:
        if not any(glob_fits(rule.glob, name) for name in known):
            header = table_header("model", rule.glob)
            hint = spelled_like(rule.glob, known)
            yield f"{header} fits no model that Open WebUI has{hint}"
    for table in policies.tables:
        for limit in table.limits or ():
            if not any(glob_fits(limit.model_glob, name) for name in known):
                header = table_header(table.kind, table.name)
                hint = spelled_like(limit.model_glob, known)
                yield f'{header} limit "{limit}" fits no model that Open WebUI has{hint}'


def unpriced_models(policies: PolicySet, seen: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """A sentence for each model, by all its names, that limits in money don't count."""
    limits = [limit for table in policies.tables for limit in table.limits or ()]
    globs = {limit.model_glob for limit in limits if limit.measure == "cost"}
    for names in seen:
        fits = any(glob_fits(glob, name) for glob in globs for name in names)
        rule = find_model_rule(policies, names)
        if fits and rule.weight and not rule.is_priced:
            header = table_header("model", called_model(names))
            yield (
                f"limits in $ don't count {header}: it has no price here, and an answer of it came"
                f" without a cost. Give it an input_price and an output_price."
            )


def read_remembered(connection: Connection) -> frozenset[RememberedName]:
    """Whom the names in the policies have meant so far."""
    names = names_table.c
    rows = connection.execute(select(names.kind, names.name, names.id, names.last_seen))
    return frozenset(RememberedName(*row) for row in rows)


def remember(connection: Connection, names: Iterable[RememberedName], now: int) -> None:
    """Write down whom names have meant; another worker may just have done so."""
    insert = insert_on(connection.dialect)
    for one in sorted(names, key=lambda one: (one.kind, one.name, one.id)):
        row = insert(names_table).values(
            kind=one.kind, name=one.name, id=one.id, last_seen=one.last_seen, created_at=now
        )
        connection.execute(
            row.on_conflict_do_update(
                index_elements=[names_table.c.kind, names_table.c.name, names_table.c.id],
                set_={"last_seen": row.excluded.last_seen},
            )
        )


@dataclass(frozen=True, slots=True)
class Look:
    """What was found out about a policies text, and when."""

    policies: PolicySet
    identities: Identities
    at: float


class IdentityMemory:
    """What one worker knows of whom the policies mean; looked up again every few seconds.

    All its methods may be called from any thread; they block.

    Args:
        read_names: Reads what the ledger remembers.
        write_names: Writes more of it.
        read_host: Reads what Open WebUI has, of users only those with these ids or addresses.
        list_models: The ids of all models, where they are known.
        publish: Is told what an administrator should know, whenever that changes.
        clock: Seconds.
    """

    def __init__(
        self,
        read_names: Callable[[], frozenset[RememberedName]],
        write_names: Callable[[Collection[RememberedName]], None],
        read_host: Callable[[Collection[str], Collection[str]], HostNames],
        list_models: Callable[[], Collection[str]],
        publish: Callable[[tuple[str, ...]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read_names = read_names
        self._write_names = write_names
        self._read_host = read_host
        self._list_models = list_models
        self._publish = publish
        self._clock = clock
        self._looking = Lock()
        # Replaced as a whole: other threads read it meanwhile.
        self._last_look = Look(PolicySet(), Identities(), float("-inf"))
        self._notices: tuple[str, ...] = ()
        # By the model called, all the names of one that was seen to have no cost.
        self._unpriced: dict[str, tuple[str, ...]] = {}

    @property
    def notices(self) -> tuple[str, ...]:
        """What an administrator should know of the policies, as of the last look."""
        return self._notices

    def knows_unpriced(self, model_names: tuple[str, ...]) -> bool:
        """Whether nothing is to be said of a model's having no cost, or it has been."""
        full = len(self._unpriced) >= MOST_UNPRICED
        return full or called_model(model_names) in self._unpriced

    def note_unpriced(self, model_names: tuple[str, ...]) -> None:
        """Say of a model that it has no cost, though limits in money should count it."""
        if self.knows_unpriced(model_names):
            return
        # Replaced as a whole: another thread may be looking.
        self._unpriced = {**self._unpriced, called_model(model_names): model_names}
        last = self._last_look
        self._report(self._all_notices(last.policies, last.identities))

    def _all_notices(self, policies: PolicySet, identities: Identities) -> tuple[str, ...]:
        return (*identities.notices, *unpriced_models(policies, self._unpriced.values()))

    def recall(self, policies: PolicySet, subject: Subject) -> Subject:
        """The user with the names in the policies that mean it and its groups; raises as below."""
        return self.identities(policies).recall(subject)

    def identities(self, policies: PolicySet) -> Identities:
        """Whom the names in the policies mean.

        Raises:
            LedgerError: Nothing is known of these policies yet, and the database can't be read.
        """
        last = self._last_look
        same = last.policies is policies
        if same and self._clock() - last.at < REFRESH_SECONDS:
            return last.identities
        # Where somebody else is looking already, what was known a moment ago is new enough.
        if self._looking.acquire(blocking=not same):
            try:
                last = self._looked_anew(policies)
            finally:
                self._looking.release()
        return last.identities

    def _looked_anew(self, policies: PolicySet) -> Look:
        last, now = self._last_look, self._clock()
        if last.policies is policies and now - last.at < REFRESH_SECONDS:
            return last  # somebody has looked while this thread waited
        try:
            identities = self._look(policies)
        except LedgerError as error:
            if last.policies is not policies:
                raise
            # The reservation will say whether the database is away; what is known still limits.
            log.warning("Usage limits: %s; groups and users as they were", error)
            identities = last.identities
        self._last_look = Look(policies, identities, now)
        self._report(self._all_notices(policies, identities))
        return self._last_look

    def _look(self, policies: PolicySet) -> Identities:
        tables, models = list(named_in(policies)), self._list_models()
        if not tables:
            return identify(policies, HostNames({}, {}, models))
        remembered = self._read_names()
        names = {table.key for table in tables if table.kind == "user"}
        ids = names | {one.id for one in remembered if one.kind == "user" and one.name in names}
        host = replace(self._read_host(ids, names), models=models)
        identities = identify(policies, host, remembered)
        if new := identities.matched - remembered:
            try:
                self._write_names(new)
            except LedgerError as error:  # the next look tries again
                log.warning("Usage limits: %s; whom the policies mean isn't kept yet", error)
        return identities

    def _report(self, notices: tuple[str, ...]) -> None:
        if notices == self._notices:
            return
        for notice in notices:
            if notice not in self._notices:
                log.warning("Usage limits: policies: %s", notice)
        for notice in self._notices:
            if notice not in notices:
                log.info("Usage limits: policies: no longer so: %s", notice)
        self._notices = notices
        self._publish(notices)


def form_note(notices: tuple[str, ...]) -> str:
    """The notices as the valves form shows them; they hold names that others chose."""
    shown = [" ".join(one.replace("<", "&lt;").split()) for one in notices[:MOST_NOTES_IN_FORM]]
    if len(notices) > len(shown):
        shown.append(f"and {len(notices) - len(shown)} more, in the server's log")
    return "\n".join(f"- {one}" for one in shown)
