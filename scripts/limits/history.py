"""Open WebUI's own record of replies: its saved chats and the usage in their messages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.progress import Progress
from sqlalchemy import JSON, BigInteger, Column, Connection, Row, Table, Text, func, select

from helpers.metering.provider_usage import parse_usage
from helpers.metering.usage import Usage, metered_call
from scripts.limits.host import host_metadata

chats_table = Table(
    "chat",
    host_metadata,
    Column("id", Text, primary_key=True),
    Column("user_id", Text),
    Column("created_at", BigInteger),
)
messages_table = Table(
    "chat_message",
    host_metadata,
    Column("id", Text, primary_key=True),  # the chat's id, a hyphen, the message's own
    Column("chat_id", Text),
    Column("user_id", Text),
    Column("role", Text),
    Column("model_id", Text),
    Column("usage", JSON),
    Column("created_at", BigInteger),
)

NO_USAGE = "without usage"
COPIED = "copied or imported from another chat"
OTHERS_CHAT = "in somebody else's chat"
INVENTED = "with more tokens than a model takes"
# Users can save any usage into their chats. No reply, all its rounds of tools together, has had
# more than this: twice the largest context there is.
MOST_TOKENS = 4_000_000
# Where clocks differ, a message may seem a little older than the chat it began.
CLOCK_SKEW_SECONDS = 3_600
# Older versions of Open WebUI wrote milliseconds into some rows.
SMALLEST_MILLISECOND = 10_000_000_000


@dataclass(frozen=True, slots=True)
class PastReply:
    """A reply that Open WebUI saved with its usage."""

    message_id: str
    chat_id: str
    user_id: str
    model_id: str
    created_at: int
    usage: Usage


def read_past_replies(
    connection: Connection, since: int, now: int, left_out: Counter[str], progress: Progress
) -> Iterator[PastReply]:
    """The saved replies since then, each once; what doesn't count is counted in `left_out`.

    A copy of a chat (cloned, imported) repeats its replies with their usage and time, and an
    imported file can say what it likes, of other users too. So a reply counts where it is not
    older than its chat, for the chat's owner, and in the oldest chat that it is in.
    """
    wanted = (messages_table.c.role == "assistant", messages_table.c.created_at >= since)
    count = connection.scalar(select(func.count()).select_from(messages_table).where(*wanted))
    rows = connection.execute(
        select(
            messages_table,
            chats_table.c.user_id.label("owner_id"),
            chats_table.c.created_at.label("chat_created_at"),
        )
        .join(chats_table, chats_table.c.id == messages_table.c.chat_id)
        .where(*wanted)
        .order_by(chats_table.c.created_at, chats_table.c.id, messages_table.c.id),
        execution_options={"yield_per": 1_000},
    )
    seen: set[str] = set()
    for row in progress.track(rows, total=count, description="Reading saved chats"):
        created_at = in_seconds(row.created_at)
        if created_at < since:
            continue
        reply = read_reply(row, min(created_at, now))
        if reply is None:
            left_out[NO_USAGE] += 1
        elif created_at < in_seconds(row.chat_created_at) - CLOCK_SKEW_SECONDS:
            left_out[COPIED] += 1
        elif row.user_id != row.owner_id:
            left_out[OTHERS_CHAT] += 1
        elif reply.usage.input_tokens + reply.usage.output_tokens > MOST_TOKENS:
            left_out[INVENTED] += 1
        elif reply.message_id in seen:
            left_out[COPIED] += 1
        else:
            seen.add(reply.message_id)
            yield reply


def read_reply(row: Row[Any], created_at: int) -> PastReply | None:
    """A message with usage; None for one without."""
    usage = parse_usage(row.usage)
    if not usage.is_charged and not usage.cost_micros:
        return None
    return PastReply(
        row.id.removeprefix(f"{row.chat_id}-"),
        row.chat_id,
        row.user_id,
        row.model_id or "unknown",
        created_at,
        # No prompt and no text to estimate from: what the provider didn't say isn't made up.
        metered_call(usage, 0, ""),
    )


def in_seconds(instant: int | None) -> int:
    """An instant as Open WebUI wrote it, in seconds."""
    instant = instant or 0
    return instant // 1_000 if instant > SMALLEST_MILLISECOND else instant
