"""The only place that knows Open WebUI: its database, groups, models and errors."""

from __future__ import annotations

import inspect
import json
import math
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from typing import Any

from fastapi import HTTPException
from sqlalchemy import Connection, Engine, Select, bindparam, func, null, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from helpers.errors import HostDatabaseError, UsageLimitExceeded, UsageLimitsError
from helpers.ledger.database import open_database, open_postgresql
from helpers.ledger.identities import HostNames
from helpers.ledger.transactions import TransactionRunner
from helpers.limits.policy import GroupRef, ModelNames, Subject
from helpers.logs import log
from helpers.openwebui.host_versions import OLDEST_HOST_VERSION, REQUEST_HOOK_VERSION
from helpers.openwebui.http_requests import REFUSAL_STATE, note_in_state
from helpers.openwebui.passthrough import CHAT_PASSTHROUGHS
from helpers.openwebui.replies import LENGTH_KEYS, positive_number
from helpers.texts import LONGEST_ID, LONGEST_NAME, clean_text

NAMES_PER_QUERY = 500
TEMPORARY_CHAT_PREFIXES = ("temporary:", "local:")  # today's and the older one
# By which clients ask for replies; channels and automations have others.
CLIENT_PATHS = tuple(path for path, one in CHAT_PASSTHROUGHS.items() if one.kind == "chat")


class HostError(HTTPException, UsageLimitsError):
    """An error that reaches the client with its own status, headers and sentence.

    Open WebUI turns what a filter raises into ``Exception(f"{error}")``, which API clients get
    as status 400. As it raises itself while it is being formatted, this one comes through whole.
    """

    def __init__(self, status_code: int, detail: str, retry_after: int | None = None) -> None:
        headers = None if retry_after is None else {"Retry-After": str(retry_after)}
        HTTPException.__init__(self, status_code, detail=detail, headers=headers)
        # Where this is flattened all the same, the layer around the app knows what was meant.
        note_in_state(REFUSAL_STATE, (status_code, detail, retry_after))

    def __str__(self) -> str:
        return str(self.detail)

    def __format__(self, format_spec: str) -> str:
        raise self


class HostLimitError(HostError, UsageLimitExceeded):
    """`UsageLimitExceeded` as Open WebUI's clients see it: status 429 with ``Retry-After``."""

    def __init__(self, exceeded: UsageLimitExceeded) -> None:
        HostError.__init__(self, exceeded.status_code, exceeded.message, exceeded.retry_after)
        self.message = exceeded.message
        self.reset_at = exceeded.reset_at
        self.retry_after = exceeded.retry_after


def host_engine(database_url: str) -> tuple[Engine, str | None]:
    """The ledger's engine and schema: Open WebUI's database, unless another URL is given.

    On PostgreSQL Open WebUI's requests go through psycopg 3, and so does the ledger. The engine
    that Open WebUI has for threads goes through psycopg 2, which doesn't prepare statements.
    """
    db = import_module("open_webui.internal.db")
    running = getattr(db, "async_engine", None)
    pooled = running is None or not isinstance(running.pool, NullPool)
    if database_url:
        return open_database(database_url, "database_url", pooled), None
    schema = getattr(db, "DATABASE_SCHEMA", None) or None
    if running is None or running.url.drivername != "postgresql+psycopg":
        return db.engine, schema
    engine = open_postgresql(running.url, pooled)
    use_aws_tokens = getattr(db, "enable_iam_token_auth", None)
    if use_aws_tokens is not None:
        use_aws_tokens(engine)
    return engine, schema


def is_host_engine(engine: Engine) -> bool:
    """Whether Open WebUI itself uses this engine."""
    return getattr(import_module("open_webui.internal.db"), "engine", None) is engine


@dataclass(frozen=True, slots=True)
class GroupQueries:
    """Statements for a user's groups; each row is a group's id, its name and its parent's id."""

    direct: Select[Any]
    inherited: Select[Any] | None  # None where groups can't be nested


@lru_cache(maxsize=1)
def group_queries() -> GroupQueries | None:
    """Open WebUI's query for a user's groups, built once; None where its models differ.

    It puts that query together for every call, which takes longer than all that is done here.
    """
    try:
        models = import_module("open_webui.models.groups")
        # Their tables: SQLAlchemy takes twice as long over an ORM's classes.
        group, member = models.Group.__table__, models.GroupMember.__table__
        nested = "parent_group_id" in group.c  # since 0.12
        parent = group.c.parent_group_id if nested else null()
        columns = select(group.c.id, group.c.name, parent)
        direct = columns.join(member, member.c.group_id == group.c.id).where(
            member.c.user_id == bindparam("user_id")
        )
        inherited = None
        if nested:
            found = models.user_group_memberships([bindparam("user_id")], include_inherited=True)
            inherited = columns.join(found, found.c.group_id == group.c.id)
    except (AttributeError, TypeError):  # another name, other arguments
        return None
    return GroupQueries(direct, inherited)


def read_groups(
    connection: Connection, queries: GroupQueries, user_id: str
) -> tuple[GroupRef, ...]:
    """A user's groups, inherited ones included, from Open WebUI's own database; blocks."""
    rows = connection.execute(queries.direct, {"user_id": user_id}).all()
    if queries.inherited is not None and any(parent for _, _, parent in rows):
        rows = connection.execute(queries.inherited, {"user_id": user_id}).all()
    return tuple(GroupRef(str(group_id), str(name)) for group_id, name, _ in rows)


async def list_groups(user_id: str) -> tuple[GroupRef, ...]:
    """A user's groups, inherited ones included, as Open WebUI lists them itself."""
    groups = import_module("open_webui.models.groups").Groups
    # Groups can be nested since 0.12; before that the argument isn't known.
    nested = "include_inherited" in inspect.signature(groups.get_groups_by_member_id).parameters
    inherited = {"include_inherited": True} if nested else {}
    listed = await groups.get_groups_by_member_id(user_id, **inherited)
    return tuple(GroupRef(str(group.id), str(group.name)) for group in listed)


def make_subject(user: Mapping[str, Any], groups: tuple[GroupRef, ...]) -> Subject:
    """The user of a request, as Open WebUI hands it to a filter."""
    return Subject(
        user_id=clean_text(str(user["id"]), LONGEST_ID),
        email=clean_text(user.get("email"), LONGEST_NAME),
        role=clean_text(user.get("role"), LONGEST_NAME) or "user",
        groups=groups,
    )


def read_host_names(
    connection: Connection, user_ids: Collection[str], addresses: Collection[str]
) -> HostNames:
    """All groups, and the users with these ids or addresses, from Open WebUI's own database."""
    group = import_module("open_webui.models.groups").Group
    user = import_module("open_webui.models.users").User
    groups = {row.id: row.name or "" for row in connection.execute(select(group.id, group.name))}
    users: dict[str, str] = {}
    for column, wanted in ((user.id, user_ids), (func.lower(user.email), addresses)):
        ordered = sorted(storable(wanted))
        for start in range(0, len(ordered), NAMES_PER_QUERY):
            some = column.in_(ordered[start : start + NAMES_PER_QUERY])
            for row in connection.execute(select(user.id, user.email).where(some)):
                users[row.id] = row.email or ""
    return HostNames(groups, users)


def storable(texts: Iterable[str]) -> list[str]:
    """Those texts that a database can have: PostgreSQL takes no NUL."""
    return [text for text in texts if "\x00" not in text]


@contextmanager
def host_database() -> Iterator[None]:
    """Open WebUI's own functions, whose database may be away.

    Raises:
        HostDatabaseError: It is. The driver's text may quote parameters; its class says enough.
    """
    try:
        yield
    except SQLAlchemyError as error:
        raise HostDatabaseError(f"{type(error).__name__} in Open WebUI's database") from None


async def read_valves(function_id: str) -> dict[str, Any]:
    """What is stored of a function's valves; {} where none were ever saved.

    Raises:
        HostDatabaseError: They can't be read. Open WebUI logs why, and says None.
    """
    functions = import_module("open_webui.models.functions").Functions
    with host_database():
        stored: dict[str, Any] | None = await functions.get_function_valves_by_id(function_id)
    if stored is None:  # for all defaults that would be taken, and no limits
        raise HostDatabaseError("valves that can't be read in Open WebUI's database")
    return stored


def host_reader() -> TransactionRunner:
    """Open WebUI's own database, for where the ledger has another one."""
    db = import_module("open_webui.internal.db")
    return TransactionRunner(db.engine, getattr(db, "DATABASE_SCHEMA", None) or None)


def host_models() -> Mapping[str, Any]:
    """Open WebUI's models by id as it last listed them; {} where it hasn't yet."""
    app = getattr(sys.modules.get("open_webui.main"), "app", None)
    return getattr(getattr(app, "state", None), "MODELS", None) or {}


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """What stands in Open WebUI's database of a model.

    Args:
        base: The model that is called in its place; "" if it is no custom model.
        params: What its calls ask for beside what their clients do.
        owner: The id of the user whose it is.
    """

    base: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    owner: str = ""


# To ask for them takes as long as all that the filter does for a request.
SETTINGS_SECONDS = 60.0
known_settings: dict[str, tuple[float, ModelSettings]] = {}


async def read_settings(model: object) -> ModelSettings | None:
    """A model's settings; None where it has none.

    Open WebUI acts upon those of this moment, whatever its list says. Users can change those of
    their own custom models between two requests; others are an administrator's, and as they were
    a minute ago at the most.
    """
    if not (isinstance(model, Mapping) and model.get("info") and model.get("id")):
        return None
    name, now = str(model["id"]), time.monotonic()
    read_at, settings = known_settings.get(name, (-math.inf, ModelSettings()))
    if base_model_id(model) or now - read_at > SETTINGS_SECONDS:
        found = await import_module("open_webui.models.models").Models.get_model_by_id(name)
        if found is None:
            return None
        params = found.params.model_dump() if found.params else {}
        settings = ModelSettings(found.base_model_id or "", params, found.user_id)
        known_settings.pop(name, None)
        if not settings.base:  # of users' own there may be any number, of any size
            known_settings[name] = now, settings
    return settings


async def is_users_own(settings: ModelSettings) -> bool:
    """Whether a model is an ordinary user's, who has chosen its id and base."""
    users = import_module("open_webui.models.users").Users
    owner = await users.get_user_by_id(settings.owner)
    return owner is not None and owner.role != "admin"


def own_params(settings: ModelSettings | None) -> dict[str, Any]:
    """What calls of a model ask for by its settings, as Open WebUI reads them."""
    params = dict(settings.params) if settings is not None else {}
    own = params.pop("custom_params", None)
    return params | own if isinstance(own, dict) else params


async def other_models(body: Mapping[str, Any], settings: ModelSettings | None) -> str:
    """The field by which a request has its provider answer with other models; "" for none.

    OpenRouter reads `models`, LiteLLM `fallbacks` and what tries them out. An administrator's model
    may have them in its settings.
    """
    own = own_params(settings)
    asked = {
        name: value
        for name, value in (own | dict(body)).items()
        if value and (name == "models" or "fallback" in name)
    }
    if asked and settings is not None and not await is_users_own(settings):
        given = {name: (value, read_json_text(value)) for name, value in own.items()}
        asked = {name: value for name, value in asked.items() if value not in given.get(name, ())}
    return next(iter(asked), "")


def read_json_text(value: object) -> object:
    """A setting as Open WebUI understands it: a text may be written in JSON."""
    if isinstance(value, str):
        with suppress(ValueError, RecursionError):
            return json.loads(value)
    return value


def add_lengths(body: dict[str, Any], settings: ModelSettings | None) -> None:
    """Ask for what a model's settings say, where Open WebUI adds that behind all filters."""
    for name, value in own_params(settings).items():
        if name in (*LENGTH_KEYS, "background") and value is not None and name not in body:
            body[name] = positive_number(value) or value


async def fill_system_prompt(
    settings: ModelSettings | None, metadata: Mapping[str, Any], user: Mapping[str, Any]
) -> str:
    """A model's own system prompt; "" where it has none.

    Open WebUI puts it before the messages behind every filter, with variables that a client fills.
    """
    system = settings.params.get("system") if settings is not None else None
    if not isinstance(system, str) or not system:
        return ""
    whose: Any = user
    if "user.variables" in system:  # which filters aren't told
        users = import_module("open_webui.models.users").Users
        whose = await users.get_user_by_id(user["id"]) or user
    body: dict[str, Any] = {"messages": []}
    fill = import_module("open_webui.utils.payload").apply_system_prompt_to_body
    filled = fill(system, body, metadata, whose)
    if inspect.isawaitable(filled):  # since 0.11
        await filled
    return "".join(str(message.get("content")) for message in body["messages"])


def list_model_ids() -> tuple[str, ...]:
    """The ids of all models; () where they can't be told: they are only needed for a report."""
    try:
        return tuple(host_models().keys())
    except Exception:  # Open WebUI may keep them in Redis, whose errors are its own
        log.warning("Usage limits: Open WebUI's models could not be listed", exc_info=True)
        return ()


def base_model_id(model: object) -> str | None:
    """The base model of a custom model, as the host describes it."""
    info = model.get("info") if isinstance(model, Mapping) else None
    base = info.get("base_model_id") if isinstance(info, Mapping) else None
    return str(base) if base else None


def answering_model(body: Mapping[str, Any], model: object) -> object:
    """The model that a request is for, as Open WebUI describes it.

    Args:
        body: The request.
        model: The one that it was for at first.
    """
    named = body.get("model")
    if not isinstance(named, str) or not isinstance(model, Mapping) or model.get("id") == named:
        return model
    return host_models().get(named)  # another filter has sent it there


def with_base(model: object, settings: ModelSettings | None) -> object:
    """A model's description with the base that it has at this moment."""
    if settings is None or not isinstance(model, Mapping):
        return model
    return {**model, "info": {**(model.get("info") or {}), "base_model_id": settings.base}}


def is_arena(model: object) -> bool:
    """Whether a model is one of those for which Open WebUI chooses another."""
    return isinstance(model, Mapping) and model.get("owned_by") == "arena"


def is_function(model: object) -> bool:
    """Whether a model is a pipe function's, or made from one."""
    return isinstance(model, Mapping) and bool(model.get("pipe"))


def list_model_names(
    body: Mapping[str, Any], model: object, metadata: Mapping[str, Any], request: object = None
) -> ModelNames:
    """Every name that a model glob may match, the model that answers first.

    Open WebUI has put an arena's real choice, or the model that a custom one without its base
    falls back to (``ENABLE_CUSTOM_MODEL_FALLBACK``), into the body by the time a filter runs.
    """
    answering = clean_text(body.get("model"), LONGEST_NAME) or "unknown"
    base = clean_text(base_model_id(answering_model(body, model)), LONGEST_NAME)
    names = [answering, base]
    listed = metadata.get("model")
    listed_id = clean_text(listed.get("id"), LONGEST_NAME) if isinstance(listed, Mapping) else ""
    if metadata.get("selected_model_id"):
        names.append(listed_id)
    elif listed_id == answering:
        # In a chat with several models the metadata name the first for all of them.
        asked = getattr(getattr(request, "state", None), "model_id", None)
        names.append(clean_text(asked, LONGEST_NAME))
    found = ModelNames(dict.fromkeys(name for name in names if name))
    found.called = base or answering
    return found


def request_source(
    metadata: Mapping[str, Any],
    own_provider: bool = False,
    request: Any = None,
    user_id: str = "",
    caller: str = "",
) -> str:
    """Where a request comes from: page, temporary, channel, automation, api or direct; may block.

    The metadata repeat what a client says. Its own call of a chat path is never a channel's or an
    automation's, for which Open WebUI calls itself; and only the chat page has a socket open. What
    Open WebUI calls for a program, such as a subagent, is that program's.

    Args:
        metadata: Open WebUI's of the request.
        own_provider: Whether it goes to its user's own provider.
        request: The request; without one the metadata are believed.
        user_id: Whose it is.
        caller: The source of the client's request that this one was made for; "" if there is none.
    """
    if own_provider:
        return "direct"
    chat_id, session_id = (
        clean_text(metadata.get(name), LONGEST_ID) for name in ("chat_id", "session_id")
    )
    scope = getattr(request, "scope", None)
    path = scope.get("path") if isinstance(scope, Mapping) else None
    asked_by_client = isinstance(path, str) and path.endswith(CLIENT_PATHS)
    if not asked_by_client and metadata.get("automation_id"):
        return "automation"
    if not asked_by_client and chat_id.startswith("channel:"):
        return "channel"
    if not session_id or not chat_id or caller == "api":
        return "api"
    if asked_by_client and not is_page(request, session_id, user_id):
        return "api"
    if scope is not None and has_api_key(request):
        return "api"
    return "temporary" if chat_id.startswith(TEMPORARY_CHAT_PREFIXES) else "page"


def is_page(request: Any, session_id: str, user_id: str) -> bool:
    """Whether a client is the chat page: signed in without an API key, its socket open."""
    if has_api_key(request):
        return False
    sessions = getattr(sys.modules.get("open_webui.socket.main"), "SESSION_POOL", None)
    if sessions is None:
        return True  # an Open WebUI that keeps them elsewhere
    try:
        session = sessions.get(session_id)
    except Exception:  # in Redis, whose errors are its own; without it the page doesn't work either
        log.warning("Usage limits: it can't be seen whose page is open", exc_info=True)
        return False
    return isinstance(session, Mapping) and session.get("id") == user_id


def has_api_key(request: Any) -> bool:
    """Whether a client has signed in with an API key."""
    kind = getattr(request.state, "auth_type", None)
    if kind is not None:
        return bool(kind == "api_key")
    # Before 0.12 Open WebUI doesn't say; it looks in these places, in this order.
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    stated = getattr(getattr(request.state, "token", None), "credentials", "")
    token = (scheme.lower() == "bearer" and bearer) or request.cookies.get("token") or stated
    return str(token).strip().startswith("sk-")


async def save_answer(metadata: Mapping[str, Any], content: str) -> None:
    """Save an answer that no model gave as a message that is done, where the chat is saved."""
    chat_id, message_id = metadata.get("chat_id"), metadata.get("message_id")
    if not isinstance(chat_id, str) or not isinstance(message_id, str):
        return
    if chat_id.startswith((*TEMPORARY_CHAT_PREFIXES, "channel:")):
        return
    chats = import_module("open_webui.models.chats").Chats
    await chats.upsert_message_to_chat_by_id_and_message_id(
        chat_id, message_id, {"content": content, "done": True}
    )


def finished_message(body: Mapping[str, Any]) -> tuple[object, str | None]:
    """Usage and text of the message that an outlet is called for, and of no older one.

    In a saved chat both may be its user's own making.
    """
    messages = body.get("messages")
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, Mapping) and message.get("id") == body.get("id"):
            content = message.get("content")
            return message.get("usage"), content if isinstance(content, str) else None
    return None, None


def uses_own_provider(request: Any, body: Mapping[str, Any]) -> bool:
    """Whether a request goes over its user's direct connection, through the browser.

    Clients claim that; it is true where Open WebUI will act upon it (`generate_chat_completion`).
    """
    state = getattr(request, "state", None)
    model = getattr(state, "model", None)
    return (
        bool(getattr(state, "direct", False))
        and isinstance(model, Mapping)
        and "id" in model
        and model["id"] == body.get("model")
    )


def is_ollama_model(model: object) -> bool:
    """Whether Open WebUI sends a model's calls to Ollama."""
    return isinstance(model, Mapping) and model.get("owned_by") == "ollama"


def host_version() -> tuple[int, ...]:
    """Open WebUI's version; (0, 0, 0) where it doesn't know itself."""
    version = str(getattr(import_module("open_webui.env"), "VERSION", ""))
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())


def has_request_hook() -> bool:
    """Whether this Open WebUI calls `request` hooks."""
    version = host_version()
    return version < (0, 0, 1) or version >= REQUEST_HOOK_VERSION


def warn_about_old_host() -> None:
    """Log once that this version of Open WebUI is too old to see every reply."""
    version = host_version()
    if (0, 0, 0) < version < OLDEST_HOST_VERSION:
        log.warning(
            "Usage limits: Open WebUI %s is older than %s; not supported",
            ".".join(map(str, version)),
            ".".join(map(str, OLDEST_HOST_VERSION)),
        )
