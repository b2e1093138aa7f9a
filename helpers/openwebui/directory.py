"""The directory: all users of Open WebUI with their groups, read at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from sqlalchemy import Connection, func, null, or_, select

from helpers.limits.policy import GroupRef, Subject
from helpers.texts import LONGEST_NAME, clean_text

# More users than any page lists.
MOST_USERS = 50_000
PEOPLE_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Directory:
    """Open WebUI's users and its groups.

    Args:
        people: The address, the role and the name of each user by id: texts alone, since Python's
            collector holds every thread while it goes through new objects.
        memberships: The groups of those who are in some, by id.
        groups: All groups by id.
    """

    people: Mapping[str, tuple[str, str, str]]
    memberships: Mapping[str, tuple[GroupRef, ...]]
    groups: Mapping[str, GroupRef]

    def subjects(self) -> Iterator[Subject]:
        """All users."""
        for key, (email, role, _) in self.people.items():
            yield Subject(key, email, role, self.memberships.get(key, ()))

    def find(self, user_id: str) -> Subject:
        """A user by id; without address and groups one who is gone."""
        email, role, _ = self.people.get(user_id, ("", "user", ""))
        return Subject(user_id, email, role, self.memberships.get(user_id, ()))

    @property
    def emails(self) -> dict[str, str]:
        """The users' addresses by id."""
        return {key: email for key, (email, _, _) in self.people.items()}


def read_directory(connection: Connection, user: str | None = None) -> Directory:
    """Users with all their groups, inherited ones included, from Open WebUI's own database.

    Args:
        connection: To that database.
        user: The id or the address of a single user; None for all.
    """
    host_groups = import_module("open_webui.models.groups")
    account: Any = import_module("open_webui.models.users").User
    group, member = host_groups.Group, host_groups.GroupMember
    parent = getattr(group, "parent_group_id", None)  # groups can be nested since 0.12
    rows = connection.execute(select(group.id, group.name, null() if parent is None else parent))
    groups: dict[str, tuple[GroupRef, str | None]] = {
        str(key): (GroupRef(str(key), str(name or "")), above) for key, name, above in rows
    }
    people = select(account.id, account.email, account.role, account.name).limit(MOST_USERS)
    members = select(member.group_id, member.user_id)
    if user is not None:
        people = people.where(
            or_(account.id == user, func.lower(account.email) == user.strip().lower())
        )
    found = {
        str(key): (
            clean_text(email, LONGEST_NAME),
            clean_text(role, LONGEST_NAME) or "user",
            clean_text(name, LONGEST_NAME),
        )
        for some in connection.execute(people.order_by(account.id)).partitions(PEOPLE_AT_ONCE)
        for key, email, role, name in some
    }
    if user is not None:
        members = members.where(member.user_id.in_(list(found)))
    above = {key: tuple(groups[one][0] for one in with_outer_groups(key, groups)) for key in groups}
    inside: dict[tuple[GroupRef, ...], tuple[GroupRef, ...]] = {}  # each set of groups once
    memberships: dict[str, tuple[GroupRef, ...]] = {}
    for some in connection.execute(members.order_by(member.group_id)).partitions(PEOPLE_AT_ONCE):
        for group_id, user_id in some:
            if group_id in groups:
                own, more = memberships.get(user_id), above[group_id]
                all_of = tuple(dict.fromkeys((*own, *more))) if own else more
                memberships[user_id] = inside.setdefault(all_of, all_of) if own else more
    return Directory(found, memberships, {key: ref for key, (ref, _) in groups.items()})


def read_names(connection: Connection, with_users: bool) -> tuple[dict[str, str], dict[str, str]]:
    """The addresses of users, if wanted, and the names of groups, by id."""
    group = import_module("open_webui.models.groups").Group
    account: Any = import_module("open_webui.models.users").User
    emails: dict[str, str] = {}
    if with_users:
        query = select(account.id, account.email).order_by(account.id).limit(MOST_USERS)
        rows = connection.execute(query).all()
        emails = {str(key): clean_text(email, LONGEST_NAME) for key, email in rows}
    named = connection.execute(select(group.id, group.name)).all()
    return emails, {str(key): str(name or "") for key, name in named}


def with_outer_groups(
    key: str, groups: Mapping[str, tuple[GroupRef, str | None]]
) -> tuple[str, ...]:
    """A group and all that it is inside of, each once."""
    found, outer = [key], groups[key][1]
    # Also ends where an older version left a circle of groups.
    while outer is not None and outer in groups and outer not in found:
        found.append(outer)
        outer = groups[outer][1]
    return tuple(found)
