"""Amounts: 1.5M tokens or $0.25 as a limit writes them, to whole numbers and back."""

from __future__ import annotations

import re

from helpers.limits.periods import quoted_text

AMOUNT_TEXT = re.compile(
    r"""
    (?P<whole> [0-9]{1,3} (?: ,[0-9]{3} )+    # a comma only between groups of three digits:
             | [0-9]+ (?: _[0-9]+ )* )        # "1,5M" means 1.5M in half of the world
    (?: \. (?P<fraction> [0-9]+ ) )?
    (?P<suffix> [kKM]? )                      # not "m", which could be milli or million
    """,
    re.VERBOSE,
)
# "50.000" is fifty to one half of the world and fifty thousand to the other.
AMBIGUOUS_AMOUNT = re.compile(r"[1-9][0-9]{0,2}\.[0-9]{3}")
DECIMALS_OF_SUFFIX = {"": 0, "k": 3, "K": 3, "M": 6}
DECIMALS_OF_DOLLAR = 6
LARGEST_AMOUNT = 10**15
LONGEST_AMOUNT_TEXT = 40


class NotationError(Exception):
    """What is wrong with a part of a limit; whoever has the whole text turns it into an error.

    Args:
        reason: Continues a sentence that begins with the limit's text.
        allowed: What could stand there instead, with an example.
    """

    def __init__(self, reason: str, allowed: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.allowed = allowed


def count_text(amount: int) -> str:
    """A count as one writes it in a limit: 50k, 1.5M, 12,345."""
    if amount >= 10**6 and amount % 10**4 == 0:
        return f"{decimal_text(amount, 6)}M"
    if amount >= 10**3 and amount % 10**2 == 0:
        return f"{decimal_text(amount, 3)}k"
    return f"{amount:,}"


def dollars_text(micro_dollars: int) -> str:
    """Money as one writes it in a limit: $20, $0.50, $0.000125, $2.1250."""
    text = decimal_text(micro_dollars, DECIMALS_OF_DOLLAR)
    return f"${text}0" if text[-2:-1] == "." or AMBIGUOUS_AMOUNT.fullmatch(text) else f"${text}"


def decimal_text(number: int, decimals: int) -> str:
    """`number` divided by ten to the `decimals`: without loss, without trailing zeros."""
    whole, fraction = divmod(number, 10**decimals)
    return f"{whole:,}" + f".{fraction:0{decimals}}".rstrip("0").rstrip(".")


def read_count(text: str, counted: str) -> int:
    """A whole number of what is `counted` (a token, a request).

    Raises:
        NotationError: It isn't one.
    """
    amount, lost = scaled_amount(text, sign="", decimals=0)
    if lost:
        raise NotationError(
            f"has a part of a {counted}", f'whole {counted}s, as in "1.5k {counted}s/day"'
        )
    if amount > LARGEST_AMOUNT:
        raise too_large("1,000,000,000M")
    return amount


def read_dollars(text: str) -> int:
    """The micro-dollars in what follows a dollar sign.

    Raises:
        NotationError: It isn't an amount.
    """
    amount, lost = scaled_amount(text, sign="$", decimals=DECIMALS_OF_DOLLAR)
    if lost:
        raise NotationError(
            "has parts of a micro-dollar", 'dollars with up to 6 decimals, as in "$0.25/day"'
        )
    if amount > LARGEST_AMOUNT:
        raise too_large("$1,000,000,000")
    return amount


def scaled_amount(text: str, sign: str, decimals: int) -> tuple[int, int]:
    """The amount times ten to the `decimals`, and what doesn't fit into a whole number then.

    Whole numbers throughout: a float would turn $0.29 into 289,999 micro-dollars.
    """
    if text.startswith(("-", "\u2212")):
        raise NotationError(
            f"has the negative amount {quoted_text(sign + text)}",
            '0, which allows nothing, or more; for no limit at all write limits = "unlimited"',
        )
    match = AMOUNT_TEXT.fullmatch(text)
    if match is None:
        raise amount_error(text, sign)
    if AMBIGUOUS_AMOUNT.fullmatch(text):
        raise ambiguous_amount(text, sign)
    fraction = match["fraction"] or ""
    digits = match["whole"].replace("_", "").replace(",", "") + fraction
    if len(digits) > LONGEST_AMOUNT_TEXT:
        # int() would refuse thousands of digits with an error of its own.
        return LARGEST_AMOUNT + 1, 0
    decimals += DECIMALS_OF_SUFFIX[match["suffix"]] - len(fraction)
    if decimals >= 0:
        return int(digits + "0" * decimals), 0
    return divmod(int(digits), int("1" + "0" * -decimals))


def amount_error(text: str, sign: str) -> NotationError:
    """What is wrong with an amount that isn't one."""
    reason = f"has {quoted_text(sign + text)} for an amount"
    as_million, as_decimal = f"{text[:-1]}M", text.replace(",", ".", 1)
    if text.endswith("m") and AMOUNT_TEXT.fullmatch(as_million):
        allowed = f'"M" for millions and "k" for thousands: "{sign}{as_million}"'
    elif AMOUNT_TEXT.fullmatch(as_decimal):
        allowed = f'a point before decimals: "{sign}{as_decimal}"; commas as in "2,000"'
    elif sign:
        allowed = 'dollars in digits, as in "$20/month" or "$0.25/day"'
    else:
        allowed = 'digits, with k or M for more, as in "2,000 tokens/day" or "1.5M tokens/month"'
    return NotationError(reason, allowed)


def ambiguous_amount(text: str, sign: str) -> NotationError:
    """What is wrong with a point before three digits, which may be meant as a comma."""
    whole, _, fraction = text.partition(".")
    allowed = f'"{sign}{whole},{fraction}" for thousands'
    if not fraction.strip("0"):
        allowed += f', or "{sign}{whole}"'
    elif sign:
        allowed += f', or "{sign}{text}0"'
    return NotationError(
        f"has {quoted_text(sign + text)}, which may mean thousands or decimals", allowed
    )


def too_large(largest: str) -> NotationError:
    return NotationError(
        "has an amount too large to count",
        f'at most {largest}; for no limit at all write limits = "unlimited"',
    )
