"""`/usage` as a message in a chat: the user's limits and use as Markdown, from no model."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from helpers.limits.decisions import LimitState
from helpers.logs import log
from helpers.openwebui.chat_events import emit
from helpers.openwebui.host import save_answer
from helpers.openwebui.ledgers import Ledgers
from helpers.openwebui.messages import (
    Reader,
    clean_name,
    finish_sentence,
    format_amount,
    format_count,
    format_dollars,
    sentence_values,
)
from helpers.openwebui.page_data import PageData
from helpers.openwebui.page_limits import Json
from helpers.openwebui.replies import Emitter
from helpers.openwebui.valves import AdminValves
from helpers.openwebui.wording import Language

COMMAND = "/usage"
LONGEST_COMMAND = 200
MOST_MODELS_SHOWN = 20
MOST_NEAR = 20
# No chat has so many; whoever sends millions must not make others wait.
MOST_MESSAGES = 10_000
MARKDOWN_SIGNS = "\\`*_[]<>|~#!$"


def is_command(message: object) -> bool:
    """Whether a user's message is the command and nothing else, whatever is attached to it."""
    if not isinstance(message, Mapping) or message.get("role") != "user":
        return False
    content = message.get("content")
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, Mapping)]
        texts = [part.get("text") for part in parts if part.get("type") == "text"]
        content = texts[0] if len(texts) == 1 else None
    if not isinstance(content, str) or len(content) > LONGEST_COMMAND:
        return False
    return content.strip().lower() == COMMAND  # a phone may begin a message with a capital


def asks_for_usage(body: Mapping[str, Any]) -> bool:
    """Whether the message that is to be answered is the command, or its answer to go on with."""
    messages = body.get("messages")
    if not isinstance(messages, list):
        return False
    last = messages[-1] if messages else None
    if isinstance(last, Mapping) and last.get("role") == "assistant":
        messages = messages[:-1]
    return any(map(is_command, messages[-1:]))


def drop_answered(body: dict[str, Any]) -> None:
    """Take earlier commands and their answers out of what a model gets.

    They cost tokens, and an administrator's answer names others.
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or len(messages) > MOST_MESSAGES:
        return
    if not any(map(is_command, messages[:-1])):
        return
    kept: list[Any] = []
    answered = False
    for message in messages:
        asked = is_command(message)
        role = message.get("role") if isinstance(message, Mapping) else None
        if not asked and not (answered and role == "assistant"):
            kept.append(message)
        answered = asked
    body["messages"] = kept


def markdown_cell(text: str) -> str:
    """A name as the cell of a table shows it, whatever signs are in it."""
    shown = clean_name(text)
    return "".join(f"\\{sign}" if sign in MARKDOWN_SIGNS else sign for sign in shown)


def markdown_table(headings: Iterable[str], rows: Iterable[Iterable[str]], numbers: int) -> str:
    """A table; its last `numbers` columns are set to the right."""
    heads = list(headings)
    rules = ["---"] * (len(heads) - numbers) + ["--:"] * numbers
    lines = [heads, rules, *(list(row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


async def answer_usage(
    valves: AdminValves,
    ledgers: Ledgers,
    user_id: str,
    metadata: Mapping[str, Any],
    reader: Reader,
    with_link: bool,
    emitter: Emitter,
) -> None:
    """Answer the command in a chat, and end the request as its user's stop button would.

    Raises:
        CancelledError: It is answered.
    """
    try:
        data = PageData(valves, *ledgers.of(valves), datetime.now(UTC))
        text = await asyncio.to_thread(usage_markdown, data, user_id, reader, with_link)
    except Exception:
        log.exception("Usage limits: the use of user %s can't be shown", user_id)
        text = finish_sentence(reader.language.ledger_error, reader.language)
    try:
        await emit(emitter, {"type": "replace", "data": {"content": text}})
        done = {"done": True, "content": text}
        await emit(emitter, {"type": "chat:completion", "data": done})
        await save_answer(metadata, text)
    except Exception:
        log.warning("Usage limits: an answer to /usage was not saved", exc_info=True)
    raise asyncio.CancelledError


def usage_markdown(data: PageData, user_id: str, reader: Reader, with_link: bool) -> str:
    """What a user reads in answer to the command; blocks.

    Args:
        with_link: Whether there is a page to link to.

    Raises:
        LedgerError: It can't be read.
    """
    standing, language = data.standing(user_id), reader.language
    words = language.page_words()
    parts = [f"### {words['title']}"]
    if standing.exempt:
        parts.append(words["exempt"])
        if near := data.near_users()[:MOST_NEAR]:
            parts.append(near_table(near, ("", words["limit"], words["used"])))
    elif standing.states:
        headings = (words[key] for key in ("limit", "used", "left", "resets"))
        rows = [limit_cells(state, data, reader, words) for state in standing.states]
        parts.append(markdown_table(headings, rows, 0))
    else:
        parts.append(words["no_limits"])
    for title, models in (
        (words["today_by_model"], standing.today),
        (words["by_model"], standing.month),
    ):
        if models:
            parts += [f"**{title}**", models_table(models, language, words)]
    if with_link:
        parts.append(f"[{words['title']}](/usage-limits)")
    return "\n\n".join(parts)


def limit_cells(
    state: LimitState, data: PageData, reader: Reader, words: Mapping[str, str]
) -> list[str]:
    """A row about one limit: what it is, used, left, and when it begins anew."""
    limit, language = state.applied.limit, reader.language
    said = sentence_values(state, data.now, reader)
    what = said["what"] + said["named"]
    if limit.is_per_request:
        return [markdown_cell(what), "–", "–", "–"]
    percent = language.percent.format(n=format_count(state.percent, language))
    left = format_amount(limit, state.remaining, language)
    if state.exceeded:
        left += f" · {words['reached']}"
    reset = "–"
    if not limit.is_moment and (limit.period.rolling is None or state.exceeded):
        reset = finish_sentence(said["at"], language)
    return [markdown_cell(what), f"{said['used']} ({percent})", left, reset]


def models_table(models: Iterable[Json], language: Language, words: Mapping[str, str]) -> str:
    """Use by model, the largest first; no cost where nobody knows one."""
    rows = []
    for row in list(models)[:MOST_MODELS_SHOWN]:
        cost = row["cost_usd"]
        rows.append(
            [
                markdown_cell(row["model"]),
                format_count(row["requests"], language),
                format_count(row["total_tokens"], language),
                "–" if cost is None else format_dollars(cost, language),
            ]
        )
    return markdown_table((words[key] for key in ("model", "requests", "tokens", "cost")), rows, 3)


def near_table(near: Iterable[Json], headings: Iterable[str]) -> str:
    """Users near or over a limit, each with that limit."""
    rows = [
        [markdown_cell(row["email"]), markdown_cell(row["nearest"]), f"{row['percent']}%"]
        for row in near
    ]
    return markdown_table(headings, rows, 1)
