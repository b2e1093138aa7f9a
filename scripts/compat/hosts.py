"""What Open WebUI's versions can't do before a certain one: data for the tests and the tables."""

from __future__ import annotations

from dataclasses import dataclass

Version = tuple[int, ...]

# The first and the newest release of each are tested. 0.9 isn't: it calls no outlet for API
# requests, and its chat page speaks another protocol.
SERIES = ("0.10.0", "0.10", "0.11.0", "0.11", "0.12.0", "0.12")


@dataclass(frozen=True, slots=True)
class Ability:
    """Something that Open WebUI can do since a version, and what it does before.

    The tests ask for it and assert the older behaviour on an older host. Those named in `needed_by`
    make no sense there: they aren't run.
    """

    name: str
    since: Version
    before: str
    needed_by: tuple[str, ...] = ()

    def is_in(self, version: Version) -> bool:
        """Whether this version of Open WebUI can do it."""
        return version >= self.since


PROVIDER_STATUS = Ability(
    "API clients get a provider's error with its own status",
    (0, 12, 0),
    "it comes as status 400, with the same sentence; the filter's refusals are 429 all the same",
)
NESTED_GROUPS = Ability(
    "groups inside groups",
    (0, 12, 0),
    "only the groups that a user is in directly",
    needed_by=("test_inherited_group_counts",),
)
REQUEST_HOOK = Ability(
    "the `request` hook before every model call",
    (0, 11, 2),
    "the rounds of tools of one reply all run, and are charged in full; an estimated prompt "
    "leaves out what retrieval adds",
)
QUIET_LOG = Ability(
    "a log without the values of variables",
    (0, 11, 0),
    "a valve that was refused, a database URL's password included, is printed by Open WebUI's "
    "own traceback, unless it runs with `LOGURU_DIAGNOSE=NO`",
)
TEMPORARY_PREFIX = Ability(
    "temporary chats called `temporary:…`",
    (0, 11, 0),
    "they are called `local:…`, and count all the same",
)
VOICE_CALLS = Ability(
    "voice calls to a realtime model",
    (0, 12, 0),
    "there are none",
    needed_by=(
        "test_a_voice_call_is_counted_answer_by_answer",
        "test_a_voice_call_ends_over_a_limit",
    ),
)
OLLAMA_EMBEDDINGS = Ability(
    "the path `/ollama/v1/embeddings`",
    (0, 11, 0),
    "there is none",
)
AUTOMATION_SOURCE = Ability(
    "automations that say that they are",
    (0, 11, 4),  # or one of the three before it
    "they are on record as from the page, so no limit `via automation` counts them; all others do",
)
ABILITIES = (
    PROVIDER_STATUS,
    NESTED_GROUPS,
    REQUEST_HOOK,
    QUIET_LOG,
    TEMPORARY_PREFIX,
    VOICE_CALLS,
    OLLAMA_EMBEDDINGS,
    AUTOMATION_SOURCE,
)


def left_out(version: Version) -> dict[str, Ability]:
    """The tests that make no sense on this version, each with what it would need."""
    missing = [ability for ability in ABILITIES if not ability.is_in(version)]
    return {test: ability for ability in missing for test in ability.needed_by}


@dataclass(frozen=True, slots=True)
class Feature:
    """A row of the table of results: what is tested, by which test functions."""

    name: str
    tests: tuple[str, ...]
    needs: Ability | None = None
    without: str = "no"  # what the table says where the host can't do what it needs


FEATURES = (
    Feature(
        "Chat page: warning, refusal, status line, languages",
        (
            "test_page_warns_then_refuses",
            "test_warning_comes_once_per_window",
            "test_status_line_is_shown_as_the_user_wishes",
            "test_status_line_is_never_shown_to_who_does_not_want_it",
            "test_message_templates",
            "test_refusal_in_the_users_language",
        ),
    ),
    Feature(
        "API: refusal before a model is called",
        (
            "test_api_is_refused_with_429",
            "test_official_clients_raise_their_rate_limit_error",
            "test_first_thirty_calls_at_once",
            "test_odd_bodies_do_no_harm",
        ),
    ),
    Feature(
        "Policies: groups, roles, models, administrators, shadow mode",
        (
            "test_lowest_priority_number_decides_for_a_member_of_two_groups",
            "test_administrator_is_recorded_and_not_refused",
            "test_only_the_models_it_is_enabled_on_are_limited",
            "test_custom_model_is_limited_by_its_base_model",
            "test_several_models_at_once_share_the_limit",
            "test_unknown_group_is_logged_once",
            "test_shadow_mode_only_logs",
        ),
    ),
    Feature(
        "Groups inside groups",
        ("test_inherited_group_counts",),
        needs=NESTED_GROUPS,
    ),
    Feature(
        "Deleted and temporary chats, background tasks",
        (
            "test_deleted_and_temporary_chats_keep_counting",
            "test_background_tasks_are_recorded_and_not_counted",
        ),
    ),
    Feature(
        "Valves form",
        (
            "test_bad_valve_is_refused_and_the_form_says_why",
            "test_form_values_are_understood_as_the_page_posts_them",
        ),
    ),
    Feature(
        "Replies that are stopped, left or broken off",
        (
            "test_stop_button",
            "test_closed_tab",
            "test_client_that_disconnects",
            "test_client_that_closes_at_done",
            "test_provider_that_breaks_off",
        ),
    ),
    Feature(
        "Calls that the provider refuses cost nothing",
        (
            "test_provider_that_fails_at_once",
            "test_refused_call_with_tools_costs_nothing",
        ),
    ),
    Feature(
        "Usage: estimates, running totals, no API outlets",
        (
            "test_reply_without_usage_is_estimated",
            "test_running_totals_are_not_summed",
            "test_answer_of_tool_calls_alone_is_charged",
            "test_without_api_outlets",
        ),
    ),
    Feature(
        "Tools: all rounds are charged",
        ("test_all_rounds_of_a_tool_loop_count",),
    ),
    Feature(
        "Tools: no further round past the limit",
        ("test_next_round_is_refused_past_the_hard_limit",),
        needs=REQUEST_HOOK,
    ),
    Feature(
        "`/usage`, the usage pages and their JSON",
        (
            "test_nobody_gets_in_and_users_see_only_their_own",
            "test_me_users_report_and_grants",
            "test_policies_saved_on_the_page_are_in_force_at_once",
            "test_usage_in_a_chat",
            "test_usage_as_a_first_message_gets_no_title_from_a_model",
            "test_no_model_gets_what_usage_has_answered",
            "test_the_form_tells_who_is_near_and_why_a_save_is_refused",
            "test_the_form_tells_of_a_ledger_that_is_not_reached",
            "test_switched_off_there_is_nothing",
            "test_reports_come_as_json_and_csv",
        ),
    ),
    Feature(
        "Every route that reaches a model is known, in all spellings",
        (
            "test_every_route_that_calls_a_model_is_known",
            "test_no_route_calls_a_model_over_a_limit",
            "test_no_spelling_calls_a_model_over_a_limit",
            "test_no_detour_calls_a_model_over_a_limit",
        ),
    ),
    Feature(
        "Pass-through paths: counted, refused over a limit, tasks, embeddings",
        (
            "test_below_a_limit_everything_is_on_record",
            "test_over_a_limit_no_path_reaches_a_model",
            "test_what_nobody_can_count_is_closed",
            "test_tasks_that_a_user_asks_for",
            "test_titles_are_recorded_and_not_counted",
            "test_over_a_limit_no_title_is_asked_for",
            "test_passthrough_block_and_allow",
            "test_switched_off_and_deleted",
            "test_requests_without_tokens",
            "test_which_paths_reach_a_model",
            "test_titles_count_where_the_policies_say_so",
            "test_a_body_too_long_to_be_counted",
            "test_without_a_login_nothing_is_read",
            "test_an_api_key_in_its_own_header",
            "test_headers_say_what_is_left",
            "test_clients_raise_and_do_not_hammer",
            "test_pasted_anew_and_switched_off_in_mid_stream",
            "test_a_stream_that_is_left_is_charged",
            "test_a_provider_that_fails_costs_nothing",
            "test_embeddings_of_files_and_memories",
            "test_each_image_is_a_request",
            "test_each_image_of_a_chat_is_a_request",
            "test_an_automations_tools_are_its_own",
            "test_no_chat_is_answered_in_the_background",
            "test_a_provider_that_refuses_to_be_asked_for_usage",
            "test_refusals_can_be_read_by_other_pages",
        ),
    ),
    Feature(
        "Models behind others: merged replies, custom models, arenas, models' settings",
        (
            "test_a_merge_is_counted_as_the_provider_reports_it",
            "test_a_merge_by_a_provider_that_refuses_to_be_asked",
            "test_odd_merges",
            "test_a_merge_whose_client_leaves",
            "test_a_base_that_its_user_has_changed",
            "test_a_base_that_changes_behind_the_filter",
            "test_an_arena_inside_of_another",
            "test_a_merge_by_an_arena",
            "test_lengths_that_a_model_asks_for",
            "test_settings_of_a_model_replace_nothing",
            "test_a_users_own_model_gets_no_table",
            "test_no_client_names_models_to_fall_back_to",
        ),
    ),
    Feature(
        "Model calls of pipes and tools: on record once, none over a limit",
        (
            "test_what_a_pipe_calls_is_on_record_once",
            "test_a_pipe_calls_no_model_over_a_limit",
            "test_a_pipe_of_its_own",
            "test_a_pipe_that_asks_a_little_and_writes_more",
            "test_a_pipe_that_is_left",
            "test_a_pipe_calls_with_what_remains",
            "test_a_pipe_stops_where_its_call_does",
            "test_variables_of_a_chat_count_in_a_call",
            "test_an_answer_that_nobody_reads",
            "test_where_the_filter_is_on_for_the_called_model_only",
            "test_what_a_tool_asks_counts_beside_its_reply",
            "test_a_tools_call_gets_what_its_reply_holds",
            "test_calls_within_replies_are_no_way_past_a_limit",
        ),
    ),
    Feature(
        "Voice calls: counted answer by answer, ended over a limit",
        VOICE_CALLS.needed_by,
        needs=VOICE_CALLS,
        without="no such calls",
    ),
    Feature(
        "Open WebUI's internals that are leaned upon are where they were",
        ("test_internal_is_where_it_was",),
    ),
    Feature(
        "Numbers that a client makes up",
        (
            "test_posted_outlet_changes_nothing",
            "test_posted_outlet_cannot_settle_a_running_reply",
            "test_outlet_for_another_users_message_changes_nothing",
            "test_metadata_of_a_client_is_not_believed",
        ),
    ),
)
