"""The valves: what the administrator and each user can set, and how bad input is refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from helpers.errors import ConfigurationError
from helpers.ledger.database import parse_database_url
from helpers.limits.limit import Limit
from helpers.limits.periods import (
    DATE_PERIODS,
    CalendarRules,
    available_timezones_list,
    load_timezone,
    parse_period,
)
from helpers.limits.policies import Policy, PolicySet
from helpers.limits.policies_text import parse_policies
from helpers.limits.policy import (
    AppliedLimit,
    Subject,
    applied_limits,
    choose_policy,
    find_model_rule,
)
from helpers.logs import log
from helpers.openwebui.http_requests import accepted_languages
from helpers.openwebui.languages.catalog import choose_language
from helpers.openwebui.messages import check_placeholders, check_template

# Open WebUI builds the valves anew for every request; the texts rarely change.
read_policies = lru_cache(maxsize=8)(parse_policies)
read_timezone = lru_cache(maxsize=64)(load_timezone)


@lru_cache(maxsize=8)
def needed_retention(policies_text: str) -> timedelta:
    """For how long the limits in a policies text need records; 0 without any limit.

    A calendar period's for itself; a rolling one's twice, since it looks back on one.
    """
    tables = read_policies(policies_text).tables
    periods = [limit.period for table in tables for limit in table.limits or ()]
    needed = (
        timedelta(days=DATE_PERIODS.get(one.name, 0)) if one.rolling is None else 2 * one.rolling
        for one in periods
    )
    return max(needed, default=timedelta())


# Two months, of which a rolling one looks back on the first.
SHORTEST_RETENTION_DAYS = 62
LONGEST_RETENTION_DAYS = 100 * 366  # for good
# Open WebUI stores larger numbers and can't read them again, nor any function beside them.
LARGEST_STORED = 2**63 - 1

POLICIES_EXAMPLE = """\
Limits for groups, roles and users, as TOML, for example:

```toml
[group.Students]
limits = ["50k tokens/day", "1M tokens/month"]

[user."ann@example.org"]
limits = "unlimited"
```

For a member of several groups, the one with the lowest `priority = N` takes precedence. \
**The page `/usage-limits` has a better editor:** it checks the text as you type, shows whom each \
table means, and can replay the last days against it."""


@dataclass(frozen=True, slots=True)
class RefusedValve:
    """Why a valve was refused, and when."""

    reason: str
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(slots=True)
class FormTexts:
    """What the valves form shows above its fields when it opens next.

    Args:
        refused: Why a field was refused, until other valves have been accepted.
        unsaved: Why one was refused when the valves were to be stored.
        notes: What else there is to say about one.
        accepted: The valves that were accepted last.
    """

    refused: dict[str, RefusedValve] = field(default_factory=dict)
    unsaved: dict[str, RefusedValve] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    accepted: Any = None

    def note(self, name: str, text: str) -> None:
        """Show a text above a field; "" for none."""
        self.notes[name] = text
        if not text:
            del self.notes[name]

    def texts(self) -> list[tuple[str, str]]:
        """Fields and what stands above them, the lowest first."""
        refused = self.refused | self.unsaved
        said = [
            (name, f"**NOT SAVED at {one.at:%H:%M} UTC:** {one.reason}")
            for name, one in list(refused.items())
        ]
        return [*self.notes.items(), *said]


# Open WebUI makes its valves anew for every request, so that they can't remember anything.
FORM_TEXTS = FormTexts()


class AdminValves(BaseModel):
    """What the administrator sets.

    Open WebUI's own toast hides why valves were refused: the reason goes to the server log and
    into the form.
    """

    model_config = ConfigDict(hide_input_in_errors=True, extra="ignore")

    priority: int = Field(
        default=0,
        ge=-LARGEST_STORED,
        le=LARGEST_STORED,
        description="Order among filters: those with a lower number run first. Default: 0.",
    )
    daily_token_limit: int = Field(
        default=0,
        ge=0,
        le=LARGEST_STORED,
        description="Tokens per day for each user without a policy. Default: 0, no limit.",
    )
    monthly_token_limit: int = Field(
        default=0,
        ge=0,
        le=LARGEST_STORED,
        description="Tokens per calendar month for each user without a policy. "
        "Default: 0, no limit.",
    )
    soft_limit_percent: int = Field(
        default=80,
        ge=1,
        le=100,
        description="Users are warned, once per period, when they have used this percentage "
        "of a limit. Default: 80.",
    )
    policies: str = Field(default="", description=POLICIES_EXAMPLE)
    multiple_groups: Literal["priority", "most_generous"] = Field(
        default="priority",
        description="Which group takes precedence for a member of several. `priority`, the "
        "default: the one with the lowest priority number. `most_generous`: the one that "
        "allows most.",
    )
    exempt_admins: bool = Field(
        default=True, description="Administrators are recorded, never refused. Default: on."
    )
    timezone: str = Field(
        default="UTC",
        description="Where days, weeks and months begin. Default: UTC.",
        json_schema_extra={"input": {"type": "select", "options": "list_timezones"}},
    )
    reset_hour: int = Field(
        default=0,
        ge=0,
        le=23,
        description="The local hour at which a day begins, 0 to 23. Default: 0.",
    )
    week_starts_on: Literal["monday", "sunday"] = Field(
        default="monday", description="The first day of a week. Default: monday."
    )
    month_starts_on: int = Field(
        default=1, ge=1, le=28, description="The day on which a month begins, 1 to 28. Default: 1."
    )
    request_stream_usage: bool = Field(
        default=True,
        description="Ask providers to report usage in streams (stream_options.include_usage). "
        "Without it, streamed replies are estimated. Default: on.",
    )
    running_replies: Literal["finish", "stop"] = Field(
        default="finish",
        description="What happens to a response that reaches a hard limit while it is being "
        "written. `finish`, the default: it is written to its end, which may be over the limit. "
        "`stop`: it ends there, with what has come so far, and can be continued later.",
    )
    cap_max_tokens: bool = Field(
        default=False,
        description="Lower a request's max_tokens to what remains, in every round and for all its "
        "choices together, so that a reply can't exceed its limit. Default: off.",
    )
    passthrough: Literal["count", "block", "allow"] = Field(
        default="count",
        description="Calls to Open WebUI's own pass-through paths (`/openai/*`, `/ollama/*`, "
        "`/api/v1/tasks/*/completions`, embeddings, speech). `count`, the default: they count like "
        "any other, and what can't be counted is blocked. `block`: all are blocked. `allow`: they "
        "pass and are recorded.",
    )
    usage_page: bool = Field(
        default=True,
        description="Pages at `/usage-limits`: their own use for users, all of it for "
        "administrators. Default: on.",
    )
    on_ledger_error: Literal["allow", "block"] = Field(
        default="allow",
        description="What happens to requests while the ledger can't be read or written. `allow`, "
        "the default: they go on and are recorded later. `block`: they are refused.",
    )
    shadow_mode: bool = Field(
        default=False,
        description="Try out limits: refuse nothing, and log what would be refused. Default: off.",
    )
    limit_message: str = Field(
        default="",
        description="What users read at a hard limit, at most 1,000 characters. Default: a "
        "sentence in each user's language. Placeholders, plain names only: "
        "{used} {limit} {remaining} {percent} {unit} {period} {reset_at} {reset_in} {policy} "
        "{model}",
    )
    warning_message: str = Field(
        default="",
        description="What users read at a soft limit. Default: a sentence in each user's "
        "language. Placeholders as above.",
    )
    alert_webhook_url: str = Field(
        default="",
        description="Web address that gets a message when a user reaches a limit, once per period: "
        "JSON that Slack, Mattermost and Teams can read. Default: none.",
        json_schema_extra={"input": {"type": "password"}},
    )
    retention_days: int = Field(
        default=400,
        ge=SHORTEST_RETENTION_DAYS,
        le=LARGEST_STORED,
        description="Records older than this are dropped; what open periods have used stays. "
        "Default: 400.",
    )
    database_url: str = Field(
        default="",
        description="Database for the ledger. Default: Open WebUI's own.",
        json_schema_extra={"input": {"type": "password"}},
    )

    @model_validator(mode="wrap")
    @classmethod
    def remember_refusal(cls, data: Any, handler: ModelWrapValidatorHandler[Any]) -> Any:
        """Note a refusal by field; drop the note when the valves change for good."""
        if isinstance(data, dict):
            # The form posts an emptied number field as "": that means its default.
            data = {
                name: value
                for name, value in data.items()
                if value != "" or cls.is_text_field(name)
            }
        try:
            valves = handler(data)
        except ValidationError as error:
            cls.note_refusal(error)
            raise
        if data != FORM_TEXTS.accepted:
            FORM_TEXTS.refused.clear()
        if not FORM_TEXTS.refused:
            FORM_TEXTS.accepted = data
        return valves

    @classmethod
    def is_text_field(cls, name: str) -> bool:
        """Whether a field is free text, for which "" is a value of its own."""
        return name in cls.model_fields and cls.model_fields[name].annotation is str

    @classmethod
    def note_refusal(cls, error: ValidationError) -> None:
        """Log each reason once and keep those of the last save for the form."""
        before, FORM_TEXTS.refused = FORM_TEXTS.refused, {}
        for problem in error.errors(include_url=False, include_context=False, include_input=False):
            name = str(problem["loc"][0]) if problem["loc"] else "valves"
            reason = problem["msg"].removeprefix("Value error, ")
            if name not in before or before[name].reason != reason:
                log.error("Usage limits: valve %s was refused: %s", name, reason)
            FORM_TEXTS.refused[name] = RefusedValve(reason)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(handler(core_schema))
        for name, text in FORM_TEXTS.texts():
            described = schema.get("properties", {}).get(name)
            if described is not None:
                described["description"] = f"{text}\n\n{described.get('description', '')}"
        return schema

    @field_validator("policies")
    @classmethod
    def check_policies(cls, text: str) -> str:
        """Refuse a policies text that doesn't parse."""
        read_policies(text)
        return text

    @field_validator("timezone")
    @classmethod
    def check_timezone(cls, name: str) -> str:
        """Refuse an unknown time zone."""
        read_timezone(name)
        return name

    @field_validator("limit_message", "warning_message")
    @classmethod
    def check_message(cls, template: str, info: ValidationInfo) -> str:
        """Refuse unknown placeholders."""
        check_placeholders(str(info.field_name), template)
        return template

    @model_serializer(mode="wrap")
    def try_messages(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Refuse a template that can't be shown, once the valves are to be stored.

        Not when they are loaded: an older release stored such ones, and users then read the
        built-in sentence.
        """
        FORM_TEXTS.unsaved.clear()
        for name in ("limit_message", "warning_message"):
            try:
                check_template(name, getattr(self, name))
            except ConfigurationError as error:
                log.error("Usage limits: valve %s was refused: %s", name, error)
                FORM_TEXTS.unsaved[name] = RefusedValve(str(error))
                raise
        stored: dict[str, Any] = handler(self)
        return stored

    @field_validator("alert_webhook_url")
    @classmethod
    def check_alert_webhook_url(cls, url: str) -> str:
        """Refuse what isn't a web address."""
        if url.strip() and not url.strip().startswith(("https://", "http://")):
            raise ConfigurationError(
                "alert_webhook_url", "not a web address", "https://… or http://…"
            )
        return url.strip()

    @field_validator("database_url")
    @classmethod
    def check_database_url(cls, url: str) -> str:
        """Refuse what isn't a URL of SQLite or PostgreSQL."""
        if url.strip():
            parse_database_url(url, "database_url")
        return url.strip()

    @classmethod
    def list_timezones(cls) -> list[str]:
        """The options of the time zone field."""
        return available_timezones_list()

    @property
    def policy_set(self) -> PolicySet:
        """The policies text, read."""
        return read_policies(self.policies)

    @property
    def retention_seconds(self) -> int:
        """How long records are kept: never less than the limits need."""
        days = min(self.retention_days, LONGEST_RETENTION_DAYS)
        needed = needed_retention(self.policies)
        return int(max(timedelta(days=days), needed).total_seconds())

    @property
    def calendar_rules(self) -> CalendarRules:
        """Where periods begin."""
        return CalendarRules(
            read_timezone(self.timezone),
            self.reset_hour,
            self.week_starts_on,
            self.month_starts_on,
        )

    @property
    def default_policy(self) -> Policy:
        """The two simple valves as the policy of whoever no other names."""
        amounts = ((self.daily_token_limit, "day"), (self.monthly_token_limit, "month"))
        limits = tuple(
            Limit(amount, "tokens", parse_period(period)) for amount, period in amounts if amount
        )
        return Policy("default", "default", limits or None)


def is_exempt(valves: AdminValves, subject: Subject) -> bool:
    """Whether a user is recorded but never refused."""
    return valves.exempt_admins and subject.role == "admin"


class PersonalValves(BaseModel):
    """What each user sets, in a form in the user's own language."""

    show_usage: Literal["near_limit", "always", "never"] = Field(
        default="near_limit",
        description="Your usage above each response: near a limit, always, or never. "
        "The form is in the user's language.",
    )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(handler(core_schema))
        field = schema["properties"]["show_usage"]
        title, description, *labels = choose_language(accepted_languages.get()).show_usage.split(
            "|"
        )
        # Open WebUI shows a list of bare values as it is, and would prefer it.
        options = zip(field.pop("enum"), labels, strict=True)
        labelled = [{"value": value, "label": label} for value, label in options]
        field["title"], field["description"] = title, description
        field["input"] = {"type": "select", "options": labelled}
        return schema


def count_limits(
    valves: AdminValves, subject: Subject, model_names: tuple[str, ...], now: datetime
) -> tuple[AppliedLimit, ...]:
    """The limits that count for a request; none for an exempt user or a free model."""
    policies = valves.policy_set
    if is_exempt(valves, subject) or find_model_rule(policies, model_names).weight == 0:
        return ()
    policy = choose_policy(subject, policies, valves.default_policy, valves.multiple_groups)
    return applied_limits(subject, policy, policies, model_names, now, valves.calendar_rules)
