"""What the installer would change: read everything first, then one line and one call for each."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from helpers.ledger.identities import HostNames, identify
from helpers.limits.policies import PolicySet
from helpers.limits.policies_text import PoliciesError, parse_policies
from scripts.install.host import (
    SWITCHES,
    InstallError,
    OpenWebUI,
    explain_failure,
    read_numbers,
)
from scripts.limits.words import count_tables

ROOT = Path(__file__).resolve().parents[2]
FUNCTION_FILE = ROOT / "filter_usage_limits.py"
MANIFEST: Mapping[str, str] = json.loads((ROOT / "manifest.json").read_text("utf-8"))


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the administrator asked for."""

    function_id: str
    content: str
    everywhere: bool = False
    models: Sequence[str] = ()
    policies: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One change: what is done, in both tenses, to what, and how."""

    verb: str
    past: str
    what: str
    make: Callable[[], object]

    def __str__(self) -> str:
        return f"{self.past} {self.what}"

    @property
    def announcement(self) -> str:
        """The line of a dry run."""
        return f"Would {self.verb} {self.what}"


@dataclass(slots=True)
class Plan:
    """The changes in their order, and what the administrator should know besides."""

    changes: list[Change] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)

    def add(self, verb: str, past: str, what: str, make: Callable[[], object]) -> None:
        """Add a change."""
        self.changes.append(Change(verb, past, what, make))


def make_plan(host: OpenWebUI, wishes: Wishes) -> Plan:
    """Compare what is there with what is wished for; nothing is changed yet.

    Raises:
        InstallError: The server, the account or a wish makes it impossible.
    """
    function = find_function(host, check_host(host), wishes.function_id)
    plan = Plan()
    plan_source(plan, host, wishes, function)
    if wishes.policies is not None:
        plan_policies(plan, host, wishes, installed=function is not None)
    path = function_path(wishes.function_id)
    if not (function or {}).get("is_active"):
        plan.add(
            "switch on",
            "Switched on",
            wishes.function_id,
            lambda: host.call("POST", f"{path}/toggle"),
        )
    plan_models(plan, host, wishes, everywhere=bool((function or {}).get("is_global")))
    return plan


def check_host(host: OpenWebUI) -> dict[str, dict[str, Any]]:
    """The functions that are there.

    Raises:
        InstallError: The filter can't run there, or it isn't an administrator who asks.
    """
    version, needed = host.read_version(), MANIFEST["required_open_webui_version"]
    if read_numbers(version) < read_numbers(needed):
        raise InstallError(f"Open WebUI {version} is too old: {needed} or later is needed")
    functions = host.read_functions()
    if not host.is_admin():
        raise InstallError(
            "the key is an ordinary user's: only an administrator's can install functions"
        )
    config = host.call("GET", "/api/config")
    if config["features"].get("enable_functions") is False:
        raise InstallError(f"functions are disabled there: {SWITCHES}")
    return functions


def function_path(function_id: str) -> str:
    """Where the API has a function."""
    return f"/api/v1/functions/id/{quote(function_id, safe='')}"


def find_function(
    host: OpenWebUI, functions: Mapping[str, Mapping[str, Any]], function_id: str
) -> dict[str, Any] | None:
    """The installed filter with its source; None if it isn't there.

    Raises:
        InstallError: Something else has its id, or it is there under another id.
    """
    if function_id in functions:
        if not is_ours(functions[function_id]):
            raise InstallError(
                f"there is another function with the id {function_id!r}: rename it in Open WebUI, "
                "or choose another id with --function ID"
            )
        found: dict[str, Any] = host.call("GET", function_path(function_id))
        return found
    others = [other for other, function in functions.items() if is_ours(function)]
    if others:
        # Two copies would count everything twice.
        raise InstallError(
            f"the filter is installed already, as {others[0]!r}: add --function {others[0]}"
        )
    return None


def is_ours(function: Mapping[str, Any]) -> bool:
    """Whether a function is this filter, by the title in its source."""
    manifest = (function.get("meta") or {}).get("manifest") or {}
    return function.get("type") == "filter" and manifest.get("title") == MANIFEST["title"]


def plan_source(
    plan: Plan, host: OpenWebUI, wishes: Wishes, function: dict[str, Any] | None
) -> None:
    """Install the file, or update it where it differs."""
    new = MANIFEST["version"]
    form = {
        "id": wishes.function_id,
        "name": MANIFEST["title"],
        "content": wishes.content,
        "meta": {"description": MANIFEST["description"]},
    }
    if function is None:
        what = f"{wishes.function_id} {new}"
        create = "/api/v1/functions/create"
        plan.add("install", "Installed", what, lambda: host.call("POST", create, form))
        return
    if same_text(function["content"], wishes.content):
        return
    # Name and description may be the administrator's own; Open WebUI reads the rest anew.
    form |= {"name": function["name"], "meta": function["meta"]}
    old = function["meta"].get("manifest", {}).get("version", "an unknown version")
    step = f"{old} to {new}" if old != new else f"{new}, whose text differs"
    path = f"{function_path(wishes.function_id)}/update"
    plan.add(
        "update",
        "Updated",
        f"{wishes.function_id} {step}; its valves and ledger stay",
        lambda: host.call("POST", path, form),
    )


def same_text(one: str, other: str) -> bool:
    """Whether two sources are the same, but for what a browser's editor does to line ends."""
    return one.strip().splitlines() == other.strip().splitlines()


def plan_policies(plan: Plan, host: OpenWebUI, wishes: Wishes, *, installed: bool) -> None:
    """Save the policies text, with all other valves as they are."""
    text = wishes.policies or ""
    policies = check_policies(text)
    count = count_tables(policies)
    path = f"{function_path(wishes.function_id)}/valves"
    stored = (host.ask("GET", path).body or {}) if installed else {}
    plan.hints += [f"Warning: {notice}" for notice in unmatched_names(host, policies)]
    if stored.get("policies", "") == text:
        return

    def save() -> None:
        answer = host.ask("POST", f"{path}/update", {**stored, "policies": text})
        if not answer.ok:
            raise InstallError(explain_refused_valves(host, path) or explain_failure(path, answer))

    plan.add("save", "Saved", f"the policies ({count}); other valves stay", save)


def check_policies(text: str) -> PolicySet:
    """The policies text, read.

    Raises:
        InstallError: It has errors: all of them, each on a line.
    """
    try:
        return parse_policies(text)
    except PoliciesError as error:
        raise InstallError(
            f"--policies: the text is not right, nothing was changed\n{error}"
        ) from None


def unmatched_names(host: OpenWebUI, policies: PolicySet) -> tuple[str, ...]:
    """A sentence for each name in the policies that means nobody, or several, there.

    What the ledger remembers of earlier names can't be asked for here.
    """
    users = host.call("GET", "/api/v1/users/all")
    groups = host.call("GET", "/api/v1/groups/")
    models = host.call("GET", "/api/models")["data"]
    bases = [(model.get("info") or {}).get("base_model_id") for model in models]
    names = HostNames(
        {str(group["id"]): str(group["name"]) for group in groups},
        {str(user["id"]): str(user["email"]) for user in users["users"]},
        frozenset([*(str(model["id"]) for model in models), *filter(None, bases)]),
    )
    return identify(policies, names).notices


def explain_refused_valves(host: OpenWebUI, path: str) -> str:
    """Why the filter refused its valves: the reasons stand in the form's descriptions."""
    properties = (host.ask("GET", f"{path}/spec").body or {}).get("properties", {})
    reasons = [
        f"{name}: {described['description'].partition(chr(10) * 2)[0].replace('**', '')}"
        for name, described in properties.items()
        if described.get("description", "").startswith("**NOT SAVED")
    ]
    return "\n".join(["the valves were refused", *reasons]) if reasons else ""


def plan_models(plan: Plan, host: OpenWebUI, wishes: Wishes, *, everywhere: bool) -> None:
    """Bring the filter on for all models or for those named; else say where it is on."""
    path = f"{function_path(wishes.function_id)}/toggle/global"

    def flip() -> object:
        return host.call("POST", path)

    if wishes.everywhere:
        if not everywhere:
            plan.add("switch on", "Switched on", f"{wishes.function_id} for all models", flip)
        return
    if wishes.models:
        for model_id in dict.fromkeys(wishes.models):
            plan_model(plan, host, wishes.function_id, model_id)
        if everywhere:
            # After the models, so that none of them is without limits in between.
            only = "for all models: from now on, only those that name it are limited"
            plan.add("switch off", "Switched off", f"{wishes.function_id} {only}", flip)
    elif not everywhere:
        models = host.call("GET", "/api/models")["data"]
        on = [model["id"] for model in models if wishes.function_id in model_filters(model)]
        plan.hints.append(
            f"It is on for {', '.join(sorted(on))} alone."
            if on
            else "It is on for no model yet: add --global for all, or --models A B for some."
        )


def model_filters(model: Mapping[str, Any]) -> list[str]:
    """The filters that a model of Open WebUI's list names."""
    meta = (model.get("info") or {}).get("meta") or {}
    return list(meta.get("filterIds") or ())


def plan_model(plan: Plan, host: OpenWebUI, function_id: str, model_id: str) -> None:
    """Add the filter to what one model names, and leave everything else of it alone.

    Raises:
        InstallError: There is no such model.
    """
    answer = host.ask("GET", f"/api/v1/models/model?id={quote(model_id, safe='')}")
    if answer.ok and answer.body:
        # Without its access grants in the form, they stay as they are.
        model = {name: value for name, value in answer.body.items() if name != "access_grants"}
        path = "/api/v1/models/model/update"
    else:
        # A provider's model that nobody has set up: it has no entry, and only admins see it.
        listed = {model["id"]: model for model in host.call("GET", "/api/models")["data"]}
        if model_id not in listed:
            raise InstallError(unknown_model(model_id, list(listed)))
        name = listed[model_id].get("name") or model_id
        model = {"id": model_id, "name": name, "meta": {}, "params": {}, "access_grants": []}
        path = "/api/v1/models/create"
    filter_ids = list((model.get("meta") or {}).get("filterIds") or ())
    if function_id in filter_ids:
        return
    meta = {**(model.get("meta") or {}), "filterIds": [*filter_ids, function_id]}
    form = {
        name: model[name]
        for name in ("id", "base_model_id", "name", "params", "access_grants", "is_active")
        if name in model
    }
    # The list of models changes only when somebody asks for it.
    plan.add(
        "add",
        "Added",
        f"{function_id} to the model {model_id}",
        lambda: (host.call("POST", path, form | {"meta": meta}), host.call("GET", "/api/models")),
    )


def unknown_model(model_id: str, known: list[str]) -> str:
    """The sentence about a model that isn't there."""
    near = difflib.get_close_matches(model_id, known, n=3) or sorted(known)[:10]
    return f"there is no model {model_id!r}; there are: {', '.join(near) or 'none'}"
