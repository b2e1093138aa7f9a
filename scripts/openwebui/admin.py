"""What an administrator does with Open WebUI through its REST API."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import httpx

from scripts.openwebui.client import PASSWORD, PUBLIC, Account, HostError, OpenWebUIClient


def _account(body: Mapping[str, Any]) -> Account:
    return Account(*(str(body[key]) for key in ("id", "name", "email", "role", "token")))


class OpenWebUIAdmin(OpenWebUIClient):
    """The administrator: users, groups, models, functions, tools."""

    def __init__(self, url: str, account: Account, *, timeout: float = 60.0) -> None:
        super().__init__(url, account, timeout=timeout)
        self._users: list[OpenWebUIClient] = []

    def close(self) -> None:
        """Close the connections, those of the users that were made here too."""
        for user in self._users:
            user.close()
        super().close()

    @classmethod
    def sign_up(
        cls, url: str, *, email: str = "admin@example.org", name: str = "Ada Admin"
    ) -> "OpenWebUIAdmin":
        """Make the first account of a new server, or sign in to it on one that has it."""
        form = {"email": email, "name": name, "password": PASSWORD}
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
            response = http.post("/api/v1/auths/signup", json=form)
            if response.status_code in (400, 403):
                response = http.post("/api/v1/auths/signin", json=form)
        if not response.is_success:
            raise HostError(response)
        return cls(url, _account(response.json()))

    def add_user(self, name: str, email: str, *, role: str = "user") -> OpenWebUIClient:
        """Make an account; the client is signed in as it."""
        form = {"name": name, "email": email, "password": PASSWORD, "role": role}
        user = OpenWebUIClient(self.url, _account(self.post("/api/v1/auths/add", form)))
        self._users.append(user)
        return user

    def delete_user(self, user_id: str) -> None:
        """Remove an account."""
        self.call("DELETE", f"/api/v1/users/{user_id}")

    def groups(self) -> dict[str, str]:
        """The ids of all groups by name."""
        return {group["name"]: group["id"] for group in self.get("/api/v1/groups/")}

    def create_group(self, name: str, *, parent: str | None = None) -> str:
        """Make a group, inside the group with the id `parent` if given; returns its id."""
        form = {"name": name, "description": "", "parent_group_id": parent}
        return str(self.post("/api/v1/groups/create", form)["id"])

    def add_to_group(self, group_id: str, user_ids: Iterable[str]) -> None:
        """Make users members of a group."""
        self.post(f"/api/v1/groups/id/{group_id}/users/add", {"user_ids": list(user_ids)})

    def remove_from_group(self, group_id: str, user_ids: Iterable[str]) -> None:
        """Take users out of a group."""
        self.post(f"/api/v1/groups/id/{group_id}/users/remove", {"user_ids": list(user_ids)})

    def publish_models(self, *model_ids: str) -> None:
        """Let everybody use these models (all if none are named)."""
        for model_id in model_ids or self.models():
            self.set_model(model_id)

    def set_model(
        self,
        model_id: str,
        *,
        base_model_id: str | None = None,
        filter_ids: Sequence[str] = (),
        usage: bool = False,
        builtin_tools: bool = False,
        params: Mapping[str, Any] | None = None,
        public: bool = True,
    ) -> None:
        """Set a model up anew: the filters that are on for it, capabilities, parameters, access.

        `usage` makes Open WebUI ask for usage in streams. `builtin_tools` adds the tools of its own
        (time, memories, notes…) to every message from the page: some 4,000 prompt tokens.
        `base_model_id` makes it a custom model on top of another.
        """
        capabilities = {"usage": usage, "builtin_tools": builtin_tools}
        form = {
            "id": model_id,
            "base_model_id": base_model_id,
            "name": model_id,
            "meta": {"filterIds": list(filter_ids), "capabilities": capabilities},
            "params": dict(params or {}),
            "access_grants": PUBLIC if public else [],
            "is_active": True,
        }
        # The provider's own models and the custom ones; no release lists both under one path.
        listed = self.get("/api/v1/models/base") + self.get("/api/v1/models/export")
        known = {model["id"] for model in listed}
        self.post(f"/api/v1/models/{'model/update' if model_id in known else 'create'}", form)
        self.models()  # the server's own list changes only when somebody asks for it

    def delete_model(self, model_id: str) -> None:
        """Take a model's entry away again."""
        self.post("/api/v1/models/model/delete", {"id": model_id})
        self.models()

    def functions(self) -> dict[str, dict[str, Any]]:
        """All functions by id."""
        return {function["id"]: function for function in self.get("/api/v1/functions/")}

    def install_function(self, function_id: str, content: str, *, name: str | None = None) -> None:
        """Paste a function's source: a new function, or the next version of one that is there."""
        form = {
            "id": function_id,
            "name": name or function_id,
            "content": content,
            "meta": {"description": ""},
        }
        path = f"id/{function_id}/update" if function_id in self.functions() else "create"
        self.post(f"/api/v1/functions/{path}", form)

    def delete_function(self, function_id: str) -> None:
        """Remove a function."""
        self.call("DELETE", f"/api/v1/functions/id/{function_id}/delete")

    def switch_function(
        self, function_id: str, *, active: bool | None = None, everywhere: bool | None = None
    ) -> None:
        """Bring a function's two switches (active; on for all models) to a state."""
        state = self.get(f"/api/v1/functions/id/{function_id}")
        if active not in (None, state["is_active"]):
            self.post(f"/api/v1/functions/id/{function_id}/toggle")
        if everywhere not in (None, state["is_global"]):
            self.post(f"/api/v1/functions/id/{function_id}/toggle/global")

    def valves(self, function_id: str) -> dict[str, Any]:
        """The stored valves."""
        return self.get(f"/api/v1/functions/id/{function_id}/valves") or {}

    def valves_spec(self, function_id: str) -> dict[str, Any]:
        """The schema from which the host draws the valves form."""
        spec: dict[str, Any] = self.get(f"/api/v1/functions/id/{function_id}/valves/spec")
        return spec

    def set_valves(self, function_id: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Save the valves form: what isn't in it goes back to its default. HostError if refused."""
        saved: dict[str, Any] = self.post(
            f"/api/v1/functions/id/{function_id}/valves/update", dict(values)
        )
        return saved

    def install_tool(self, tool_id: str, content: str) -> None:
        """Make a workspace tool that everybody may use, or replace it."""
        form = {
            "id": tool_id,
            "name": tool_id,
            "content": content,
            "meta": {"description": ""},
            "access_grants": PUBLIC,
        }
        known = {tool["id"] for tool in self.get("/api/v1/tools/")}
        path = f"id/{tool_id}/update" if tool_id in known else "create"
        self.post(f"/api/v1/tools/{path}", form)
