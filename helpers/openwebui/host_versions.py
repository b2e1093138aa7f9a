"""What is special about Open WebUI's versions, and which of its internals are leaned upon."""

from __future__ import annotations

from dataclasses import dataclass

HostVersion = tuple[int, int, int]

OLDEST_HOST_VERSION: HostVersion = (0, 10, 0)
REQUEST_HOOK_VERSION: HostVersion = (0, 11, 2)
# Since then the routes see for themselves whether API keys are on; before, a middleware told them.
KEYS_ASKED_VERSION: HostVersion = (0, 11, 0)


@dataclass(frozen=True, slots=True)
class HostInternal:
    """Something of Open WebUI's own that may be elsewhere in its next version.

    Args:
        module: Where it is.
        name: What it is called there, with dots.
        used_for: What doesn't work without it.
        since: The first version that has it.
    """

    module: str
    name: str
    used_for: str
    since: HostVersion = OLDEST_HOST_VERSION


HOST_INTERNALS = (
    HostInternal(
        "open_webui.main", "app.middleware_stack", "the pass-through paths, statuses and headers"
    ),
    HostInternal("open_webui.main", "app.state.MODELS", "the base models of custom ones"),
    HostInternal("open_webui.main", "chat_completion_handler", "answers that come whole"),
    HostInternal(
        "open_webui.main", "passthrough_anthropic_messages", "Anthropic's protocol", (0, 12, 0)
    ),
    HostInternal("open_webui.utils.middleware", "generate_chat_completion", "tool rounds"),
    HostInternal("open_webui.utils.middleware", "image_generations", "images of chats"),
    HostInternal("open_webui.tools.builtin", "image_generations", "images that models draw"),
    HostInternal("open_webui.routers.tasks", "generate_chat_completion", "tasks"),
    HostInternal(
        "open_webui.utils.chat", "generate_chat_completion", "memories, compaction, functions"
    ),
    HostInternal("open_webui.utils.auth", "get_verified_user", "who asks at a pass-through path"),
    HostInternal("open_webui.models.functions", "Functions.get_function_by_id", "the switch"),
    HostInternal(
        "open_webui.models.functions", "Functions.get_active_filter_ids", "the switch", (0, 12, 0)
    ),
    HostInternal(
        "open_webui.models.functions",
        "Functions.get_function_valves_by_id",
        "valves at a pass-through path",
    ),
    HostInternal("open_webui.models.config", "Config.get", "whether a provider makes embeddings"),
    HostInternal("open_webui.models.models", "Models.get_model_by_id", "models' settings"),
    HostInternal(
        "open_webui.utils.payload", "apply_system_prompt_to_body", "estimates of system prompts"
    ),
    HostInternal(
        "open_webui.utils.payload", "apply_model_params_to_body", "custom models' settings"
    ),
    HostInternal("open_webui.models.groups", "Groups.get_groups_by_member_id", "groups"),
    HostInternal("open_webui.models.groups", "Groups.get_all_groups", "unmatched groups"),
    HostInternal("open_webui.models.groups", "Group.parent_group_id", "inheritance", (0, 12, 0)),
    HostInternal("open_webui.internal.db", "engine", "the ledger's database"),
    HostInternal("open_webui.internal.db", "async_engine", "the ledger on PostgreSQL"),
    HostInternal("open_webui.env", "VERSION", "this table"),
    HostInternal("open_webui.env", "CUSTOM_API_KEY_HEADER", "API keys in a header"),
)
