"""Token estimates for texts and prompts whose provider reports no usage."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Mapping

from helpers.metering.byte_pairs import least_tokens

# The weights were fitted by least squares to cl100k_base, on half of the samples of
# `python -m scripts.bench.estimate_accuracy` and on gettext catalogs in 27 languages. Everything is
# counted in bytes, by translate, split and count: ten times faster than regular expressions.
LETTERS = bytes((*range(0x41, 0x5B), *range(0x61, 0x7B), *range(0xC0, 0x100)))
ACCENTED_LETTERS = LETTERS[52:]
DIGITS = b"0123456789"
MARKS = bytes(byte for byte in range(0x21, 0xC0) if byte not in LETTERS + DIGITS)

# cl100k_base knows most English words whole and cuts up the others, so a text's other languages
# must be noticed: by their accented letters, and by their commonest words.
COMMON_WORDS_ABROAD = frozenset(
    b"der die das und ist nicht ein eine den dem des mit auf im sie ich zu von wird sich auch als "
    b"le la les du et est en un une que qui dans pour pas sur au il el los y con por del se lo su "
    b"di che non per della sono gli si da het een van niet voor dat zijn op te met aan bij naar "
    b"os uma e em com para och att det som av nie w z jest ve bir bu ja ei egy az nem".split()
)

# Scripts beyond Latin-1: ranges of the high byte of UTF-16 code units, and tokens per unit.
SCRIPT_WEIGHTS = (
    ("Latin", 0x01, 0x02, 0.0),  # counted as accented letters
    ("Greek", 0x03, 0x03, 1.05),
    ("Cyrillic", 0x04, 0x04, 0.21),
    ("Hebrew", 0x05, 0x05, 1.16),
    ("Arabic", 0x06, 0x07, 0.6),
    ("Devanagari", 0x09, 0x09, 1.25),
    ("Indic", 0x0A, 0x0D, 1.5),
    ("Thai", 0x0E, 0x0E, 1.0),
    ("Latin", 0x1E, 0x1E, 0.0),
    ("punctuation", 0x20, 0x20, 1.0),
    ("symbol", 0x21, 0x2F, 1.6),
    ("kana", 0x30, 0x33, 0.9),
    ("Han", 0x34, 0x9F, 1.3),
    ("Hangul", 0xAC, 0xD7, 1.2),
    ("emoji", 0xD8, 0xDF, 1.2),  # two units each
    ("Han", 0xF9, 0xFA, 1.3),
    ("Arabic", 0xFB, 0xFE, 0.6),
    ("fullwidth", 0xFF, 0xFF, 1.0),
)
# Cyrillic and Arabic also cost something per word.
WORD_BLOCK_WEIGHTS = {b"\x04": 1.93, b"\x06": 1.25}
OTHER_SCRIPT = 255
OTHER_SCRIPT_WEIGHT = 2.2

# What a chat format adds: https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken
TOKENS_PER_MESSAGE = 4
TOKENS_PER_REPLY = 3
# Fixed: OpenAI's price of a 1024 x 1024 image, a minute of sound, eight seconds of video in
# Gemini, a page of a document in Anthropic.
IMAGE_TOKENS = 765
MEDIA_TOKENS = {
    "image": IMAGE_TOKENS,
    "image_url": IMAGE_TOKENS,
    "input_image": IMAGE_TOKENS,
    "audio": 600,
    "audio_url": 600,
    "input_audio": 600,
    "video": 2000,
    "video_url": 2000,
    "document": 1500,
    "file": 1500,
    "input_file": 1500,
}
# No provider reads more media in one call than this, so more of them can reserve no more.
MOST_MEDIA_TOKENS = 400_000
DATA_URL = re.compile(r"data:[\w.+-]+/[\w.+-]+(?:;[\w.+-]+=[\w.+-]+)*;base64,[\w+/=%-]*", re.ASCII)
BASE64 = re.compile(r"[\w+/=%\r\n-]*", re.ASCII)
LONGEST_LINK = 2_048
# Where the parts of a message's content have their media, and what is only said about them.
MEDIA_KEYS = (
    "image_url",
    "input_image",
    "image",
    "input_audio",
    "audio_url",
    "audio",
    "video_url",
    "video",
    "file",
    "file_url",
    "file_data",
    "file_id",
    "document",
    "source",
    "url",
    "data",
)
MEDIA_NOTES = frozenset(("type", "media_type", "mime_type", "format", "detail", "filename"))
# A chat provider gets `messages`; of the others each request has its own protocol's.
CHAT_KEYS = ("messages",)
OTHER_PROMPT_KEYS = ("prompt", "suffix", "input", "system", "instructions")
PROMPT_JSON_KEYS = ("tools", "functions", "response_format", "format")
CONTENT_KEYS = (
    "content",
    "text",
    "thinking",
    "reasoning",
    "reasoning_content",
    "reasoning_details",
    "summary",
    "refusal",
    "output",
    "name",
    "title",
    "context",
    "tool_calls",
    "function_call",
    "function",
)
# In these the items of a list are content parts; only such a part can be a picture or a file.
PART_KEYS = frozenset(("content", "output"))


def kind_table(letters: bytes, digits: bytes = b" ", marks: bytes = b" ") -> bytes:
    """A table for bytes.translate: `letters` as long as LETTERS or one for all, the rest blank."""
    kinds = dict.fromkeys(range(0x100), 0x20) | {0x0A: 0x0A, 0x0D: 0x0A}
    kinds.update(zip(LETTERS, letters * (len(LETTERS) // len(letters)), strict=True))
    kinds.update(zip(DIGITS, digits * len(DIGITS), strict=True))
    kinds.update(zip(MARKS, marks * len(MARKS), strict=True))
    return bytes(kinds.values())


def script_table() -> tuple[dict[str, int], bytes]:
    """A number for each script, and the table from a UTF-16 high byte to that number."""
    numbers: dict[str, int] = {}
    table = bytearray([OTHER_SCRIPT]) * 0x100
    for script, first, last, _ in SCRIPT_WEIGHTS:
        number = numbers.setdefault(script, len(numbers))
        table[first : last + 1] = bytes([number]) * (last + 1 - first)
    return numbers, bytes(table)


WORD_TABLE = kind_table(LETTERS.lower())
# In the kinds "a" stands for a letter, "0" for a digit, "." for a mark.
KIND_TABLE = kind_table(b"a", b"0", b".")
MARK_TABLE = KIND_TABLE.translate(bytes.maketrans(b"a0\n", b"   "))
SCRIPT_NUMBERS, SCRIPT_TABLE = script_table()
SCRIPT_UNIT_WEIGHTS = {script: weight for script, _, _, weight in SCRIPT_WEIGHTS}


# A longer text is sampled, since the hooks must not hold up the event loop.
LONGEST_READ_WHOLE = 100_000
SAMPLES = 60
SAMPLE_LENGTH = 1_500


def estimate_tokens(text: str) -> int:
    """About how many tokens of cl100k_base a text has."""
    if not text:
        return 0
    if len(text) > LONGEST_READ_WHOLE:
        # At places that nobody can foresee, or the dear part of a text would stand between them.
        chance, apart = random.Random(hash(text)), len(text) // SAMPLES
        starts = [n * apart + chance.randrange(apart - SAMPLE_LENGTH + 1) for n in range(SAMPLES)]
        sample = "".join(text[start : start + SAMPLE_LENGTH] for start in starts)
        return round(estimate_tokens(sample) * len(text) / len(sample))
    latin = b" " + text.encode("latin-1", "ignore")
    kinds = latin.translate(KIND_TABLE)
    accented = len(latin) - len(latin.translate(None, ACCENTED_LETTERS))
    tokens = mark_tokens(latin, kinds) + digit_tokens(kinds)
    if not text.isascii():
        script_tokens, accented_beyond = other_script_tokens(text)
        tokens, accented = tokens + script_tokens, accented + accented_beyond
    if words := latin.translate(WORD_TABLE).split():
        tokens += 0.94 * len(words) + 0.79 * kinds.count(b"aaaaaaaa") + 1.2 * accented
        if abroad := accented + sum(map(COMMON_WORDS_ABROAD.__contains__, words)):
            share = min(0.5, abroad / len(words))
            tokens += 0.51 * share * max(0, kinds.count(b"a") - 3 * len(words))
    return max(1, round(tokens), math.ceil(least_tokens(text, kinds)))


def mark_tokens(latin: bytes, kinds: bytes) -> float:
    """The tokens of ASCII punctuation, counted in runs, and of indentation."""
    marks = latin.translate(MARK_TABLE)
    # One mark joins the word behind it; indentation is one token, however deep.
    return (
        1.45 * marks.count(b" .")
        + 0.41 * marks.count(b" ...")
        - 0.81 * kinds.count(b".a")
        + 0.54 * kinds.count(b"\n ")
    )


def digit_tokens(kinds: bytes) -> float:
    """The tokens of numbers, which cl100k_base cuts into groups of up to three digits."""
    rest = kinds.replace(b"000", b"x")
    groups = kinds.count(b"000") + rest.count(b"0") - rest.count(b"00")
    return 0.95 * groups


def other_script_tokens(text: str) -> tuple[float, int]:
    """The tokens of all beyond Latin-1, and the number of accented Latin letters there."""
    blocks = text.encode("utf-16-le", "surrogatepass")[1::2]
    units = blocks.translate(SCRIPT_TABLE, b"\0")
    tokens = OTHER_SCRIPT_WEIGHT * units.count(OTHER_SCRIPT)
    for script, number in SCRIPT_NUMBERS.items():
        tokens += SCRIPT_UNIT_WEIGHTS[script] * units.count(number)
    for block, weight in WORD_BLOCK_WEIGHTS.items():
        tokens += weight * (blocks.count(b"\0" + block) + blocks.startswith(block))
    return tokens, units.count(SCRIPT_NUMBERS["Latin"])


def json_text(value: object) -> str:
    """The JSON that a provider would see for a value; empty if it can't be written."""
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):
        return ""


def estimate_prompt(body: Mapping[str, object]) -> int:
    """About how many tokens a request's prompt has, with its tools, schemas and media.

    Only what the provider gets counts: a chat provider gets no `input` or `prompt` beside the
    messages, and a part without a picture or file in it is none.
    """
    texts = [json_text(body[key]) for key in PROMPT_JSON_KEYS if body.get(key)]
    tokens = media_tokens = 0
    messages = body.get("messages")
    if isinstance(messages, list) and messages:
        tokens += TOKENS_PER_MESSAGE * len(messages) + TOKENS_PER_REPLY
    keys = CHAT_KEYS if messages else OTHER_PROMPT_KEYS
    # A stack, since nested rubbish must not recurse: what stands there, and whether as a part.
    parts: list[tuple[object, bool]] = [(body.get(key), False) for key in keys]
    while parts:
        part, is_part = parts.pop()
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, list):
            parts += [(item, is_part) for item in part]
        elif isinstance(part, dict):
            kind = part.get("type")
            if is_part and isinstance(kind, str) and kind in MEDIA_TOKENS:
                media_tokens += read_media(part, MEDIA_TOKENS[kind], parts)
            parts += [(part[key], key in PART_KEYS) for key in CONTENT_KEYS if part.get(key)]
            for key in ("arguments", "input"):
                if value := part.get(key):
                    texts.append(value if isinstance(value, str) else json_text(value))
            if isinstance(images := part.get("images"), list):  # Ollama
                for image in images:
                    media_tokens += read_payload(image, IMAGE_TOKENS, parts)
        elif not is_part and isinstance(part, int):
            tokens += 1  # a prompt may come as numbers of tokens
    if isinstance(images := body.get("images"), list) and not messages:
        for image in images:
            media_tokens += read_payload(image, IMAGE_TOKENS, [])
    text, pictures = without_pictures("\n".join(texts))
    return tokens + min(media_tokens + pictures, MOST_MEDIA_TOKENS) + estimate_tokens(text)


def read_media(part: Mapping[str, object], price: int, parts: list[tuple[object, bool]]) -> int:
    """The tokens of one content part's picture, sound or file; the text in it goes to `parts`."""
    tokens = 0
    for key in MEDIA_KEYS:
        holder = part.get(key)
        if isinstance(holder, dict):
            is_text = holder.get("type") in ("text", "content")  # Anthropic's plain documents
            for name, value in holder.items():
                if name in ("content", "text") or (is_text and name == "data"):
                    parts.append((value, True))
                elif name not in MEDIA_NOTES:
                    tokens = max(tokens, read_payload(value, price, parts))
        else:
            tokens = max(tokens, read_payload(holder, price, parts))
    return tokens


def read_payload(payload: object, price: int, parts: list[tuple[object, bool]]) -> int:
    """The tokens of a link or of base64, which cost no more than their own text would."""
    if not isinstance(payload, str) or not payload:
        return 0
    if payload.startswith(("https://", "http://", "gs://", "s3://")):
        if len(payload) <= LONGEST_LINK:
            return price
    elif DATA_URL.fullmatch(payload) or BASE64.fullmatch(payload):
        return min(price, (len(payload) + 1) // 2)
    parts.append((payload, False))
    return 0


def without_pictures(text: str) -> tuple[str, int]:
    """A text without its data URLs, and the tokens of the pictures in them."""
    if ";base64," not in text:
        return text, 0
    tokens = 0

    def count_picture(match: re.Match[str]) -> str:
        nonlocal tokens
        tokens += min(IMAGE_TOKENS, (len(match[0]) + 1) // 2)
        return ""

    return DATA_URL.sub(count_picture, text), tokens


def estimate_reply(text: str) -> int:
    """About how many tokens a reply's text has; a picture that it holds isn't text."""
    text, pictures = without_pictures(text)
    return pictures + estimate_tokens(text)
