"""English."""

from __future__ import annotations

from helpers.openwebui.wording import read_language

ENGLISH = read_language("""
tag: en · name: English · less_than: less than {amount}
units: token|tokens, input token|input tokens, output token|output tokens, request|requests,
  response|responses
moments: per request, at once
sources: in saved chats, in temporary chats, in channels, in automations, via the API, for tasks
periods: per minute, per hour, per day, per week, per month, per quarter, per year
rolling: per {n} {unit} · rolling_units: second|seconds, minute|minutes, hour|hours, day|days
months: January February March April May June July August September October November December
at: at {time} · tomorrow: tomorrow at {time} · on_date: on {date} at {time}
owner: your limit|the shared limit · on: _on {model}
reached: you've reached {owner} of {what}{named}.
held: running responses hold the rest of {owner} of {what}{named}. Please try again when they are
  done. · stopped: stopped at {owner} of {what}{named}.
no_model: You can't use {model} here{named}. · no_models: You can't use any models here{named}.
no_paid: You can't use models that cost money here{named}.
per_request: This request is too long: at most {quantity} per request{on}{named}.
at_once: You already have {quantity} running. Please try again when one is done.
resets: It resets {at}{within}. · opens: You can continue {at}{within}. · within: , in {within}
warning: {percent} of {owner} of {what}{named} used; {left}{until}. · left: {n} left
label: Usage|Shared usage · reached_label: Limit reached|Shared limit reached
status: {label}: {used} of {what} · status_reset: , resets {at}
cap: This response can have at most {quantity}.
ledger_error: Usage can't be recorded at the moment, so no requests are accepted. Please try again
  later.
show_usage: Show usage|Your usage above each response.|near a limit|always|never
page: Usage limits|Limit|Used|Reserved|Left|Resets|Reached|Shared|No limits apply to you.|
  Your use is recorded, but never refused.|Use by day|Day|This month by model|Model|Requests|
  Input tokens|Output tokens|Tokens|Cost|Total|Responses this month|Time|estimated|running|Granted|
  Amount|Reason|Valid until|Nothing yet.|Show all|Refresh|Back to the chat|
  Please sign in to Open WebUI first.|This can’t be shown right now. Please try again later.|
  Today by model
""")
