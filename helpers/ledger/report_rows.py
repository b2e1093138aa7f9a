"""Report rows: sums with the names of what they are of, as JSON and CSV."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from io import StringIO
from json.encoder import encode_basestring
from typing import Any

from helpers.ledger.reports import DIMENSIONS, Numbers, RowKey, Sums

# Public, as are the columns of DIMENSIONS: other programs read them.
SUM_COLUMNS = (
    *("requests", "input_tokens", "output_tokens", "total_tokens", "cost_usd"),
    "estimated_requests",
)
# What a spreadsheet takes for the beginning of a formula: at a cell's start, which to half of the
# world's spreadsheets is also what follows a semicolon; in Japanese ones, with full-width signs.
FORMULA = re.compile(r"(^|;)(?=[\s'\"]*[=+\-@＝＋－＠])")


@dataclass(frozen=True, slots=True)
class UsageRow:
    """The sums of all records that are alike in some columns."""

    keys: dict[str, str | None]
    sums: Sums


def named_rows(
    wanted: Sequence[str],
    sums: Mapping[RowKey, Numbers],
    emails: Mapping[str, str],
    group_names: Mapping[str, str],
) -> Iterator[UsageRow]:
    """Rows with the names of the ids in the keys; days in order, then the largest use first."""
    day_at = wanted.index("day") if "day" in wanted else None

    def order(item: tuple[RowKey, Numbers]) -> tuple[Any, ...]:
        key, (_, input_tokens, output_tokens, *_) = item
        day = "" if day_at is None else key[day_at]
        return day, -input_tokens - output_tokens, *(value or "" for value in key)

    for key, numbers in sorted(sums.items(), key=order):
        keys: dict[str, str | None] = {}
        for name, value in zip(wanted, key, strict=True):
            keys[DIMENSIONS[name][0]] = value
            if name == "user":
                keys["user_email"] = emails.get(value or "", "")
            if name == "group":
                keys["group_name"] = group_names.get(value or "")
        yield UsageRow(keys, Sums(*numbers))


def printable(text: str) -> str:
    """A text without control characters: models' ids come from outside.

    A terminal or a spreadsheet might obey them, and XML has no place for them.
    """
    if text.isprintable():
        return text
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(letter) in ("Cc", "Cs") else letter
        for letter in text
    )


def csv_cell(text: str | None) -> str:
    """A text that a spreadsheet shows and doesn't compute."""
    return FORMULA.sub(r"\1'", printable(text or ""))


def key_columns(dimensions: Sequence[str]) -> list[str]:
    """The columns that identify a row."""
    wanted = [name for name in DIMENSIONS if name in dimensions]
    return [name for dimension in wanted for name in DIMENSIONS[dimension]]


def sum_values(sums: Sums) -> tuple[int | Decimal, ...]:
    """The values of `SUM_COLUMNS`."""
    return (
        sums.requests,
        sums.input_tokens,
        sums.output_tokens,
        sums.total_tokens,
        Decimal(sums.cost_micros) / 1_000_000,
        sums.estimated_requests,
    )


def sums_row(sums: Sums) -> dict[str, Any]:
    """The same as JSON has them; money as a number."""
    values = dict[str, Any](zip(SUM_COLUMNS, sum_values(sums), strict=True))
    return {**values, "cost_usd": sums.cost_micros / 1_000_000}


def json_line(row: UsageRow) -> str:
    """A row as a JSON object; an encoder would take a while to be made for each of thousands."""
    texts = [
        f'"{name}": {"null" if value is None else encode_basestring(value)}'
        for name, value in row.keys.items()
    ]
    texts += [f'"{name}": {value}' for name, value in sums_row(row.sums).items()]
    return f"{{{', '.join(texts)}}}"


def as_json(rows: Iterable[UsageRow]) -> str:
    """A list of objects, one on each line; money as a number."""
    lines = [json_line(row) for row in rows]
    return "[\n" + ",\n".join(lines) + "\n]\n" if lines else "[]\n"


def as_csv(rows: Iterable[UsageRow], dimensions: Sequence[str]) -> str:
    """Comma-separated values with a line of column names; what isn't known is empty."""
    output = StringIO()
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow([*key_columns(dimensions), *SUM_COLUMNS])
    for row in rows:
        cells = [
            f"{value:f}" if isinstance(value, Decimal) else value for value in sum_values(row.sums)
        ]
        writer.writerow([*map(csv_cell, row.keys.values()), *cells])
    return output.getvalue()
