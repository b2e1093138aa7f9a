"""Token estimates for texts and prompts whose provider reports no usage."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping

from helpers.metering.pieces import least_tokens, sample_text, tokens_beyond_ascii

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

# Letters with accents beyond Latin-1.
ACCENTED_BLOCKS = (0x01, 0x02, 0x1E)
ACCENT = 0.2
LONE_SURROGATE = re.compile("[\ud800-\udfff]")

# What a chat format adds: https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken
TOKENS_PER_MESSAGE = 4
TOKENS_PER_REPLY = 3
# Fixed: OpenAI's price of a 1024 x 1024 image, a minute of sound, eight seconds of video in
# Gemini, a page of a document in Anthropic.
IMAGE_TOKENS = 765
MEDIA_TOKENS = {
    **dict.fromkeys(("image", "image_url", "input_image"), IMAGE_TOKENS),
    **dict.fromkeys(("audio", "audio_url", "input_audio"), 600),
    **dict.fromkeys(("video", "video_url"), 2000),
    **dict.fromkeys(("document", "file", "input_file"), 1500),
}
# No provider reads more media in one call than this, so more of them can reserve no more.
MOST_MEDIA_TOKENS = 400_000
DATA_URL = re.compile(r"data:[\w.+-]+/[\w.+-]+(?:;[\w.+-]+=[\w.+-]+)*;base64,[\w+/=%-]*", re.ASCII)
BASE64 = re.compile(r"[\w+/=%\r\n-]*", re.ASCII)
# A file of text costs its text, and what isn't a picture or sound stays text within a text.
TEXT_URL = re.compile(r"data:(?:text/|application/(?:[\w.+-]*\+)?(?:json|xml|yaml|toml)[;,])")
PICTURE_URL = re.compile(
    DATA_URL.pattern.replace(r"[\w.+-]+", "(?:image|audio|video)", 1), re.ASCII
)
LONGEST_LINK = 2_048
# Where the parts of a message's content have their media, and what is only said about them.
MEDIA_KEYS = frozenset(
    (
        *("image_url", "input_image", "image", "input_audio", "audio_url", "audio", "video_url"),
        *("video", "file", "file_url", "file_data", "file_id", "document", "source", "url", "data"),
    )
)
MEDIA_NOTES = frozenset(("type", "media_type", "mime_type", "format", "detail", "filename"))
# A chat provider gets `messages`; of the others each request has its own protocol's.
CHAT_KEYS = ("messages",)
OTHER_PROMPT_KEYS = ("prompt", "suffix", "input", "system", "instructions")
PROMPT_JSON_KEYS = (
    *("tools", "functions", "response_format", "format"),
    *("prediction", "documents"),  # OpenAI's predicted output; vLLM's and Cohere's retrieval
)
CONTENT_KEYS = frozenset(
    (
        *("content", "text", "thinking", "reasoning", "reasoning_content", "reasoning_details"),
        *("summary", "refusal", "output", "name", "title", "context", "tool_calls"),
        *("function_call", "function", "thinking_blocks"),
    )
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


WORD_TABLE = kind_table(LETTERS.lower())
# In the kinds "a" stands for a letter, "0" for a digit, "." for a mark.
KIND_TABLE = kind_table(b"a", b"0", b".")
MARK_TABLE = KIND_TABLE.translate(bytes.maketrans(b"a0\n", b"   "))

# A longer text is sampled, since the hooks must not hold up the event loop.
LONGEST_READ_WHOLE = 100_000
SAMPLES = 60
SAMPLE_LENGTH = 1_500


def estimate_tokens(text: str) -> int:
    """About how many tokens of cl100k_base a text has."""
    if not text:
        return 0
    if len(text) > LONGEST_READ_WHOLE:
        sample = sample_text(text, SAMPLES, SAMPLE_LENGTH)
        return round(estimate_tokens(sample) * len(text) / len(sample))
    try:
        text.encode()
    except UnicodeEncodeError:
        text = LONE_SURROGATE.sub("\ufffe", text)
    latin = b" " + text.encode("latin-1", "ignore")
    kinds = latin.translate(KIND_TABLE)
    beyond, accented = 0.0, 0
    if not text.isascii():
        accented = count_accented(text, latin)
        beyond = tokens_beyond_ascii(text) + ACCENT * accented
    tokens = mark_tokens(latin, kinds) + digit_tokens(kinds)
    if words := latin.translate(WORD_TABLE).split():
        tokens += 0.94 * len(words) + 0.79 * kinds.count(b"aaaaaaaa")
        if abroad := accented + sum(map(COMMON_WORDS_ABROAD.__contains__, words)):
            share = min(0.5, abroad / len(words))
            tokens += 0.51 * share * max(0, kinds.count(b"a") - 3 * len(words))
    return max(1, round(max(tokens, least_tokens(text)) + beyond))


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


def count_accented(text: str, latin: bytes) -> int:
    """How many accented Latin letters a text has."""
    blocks = text.encode("utf-16-le")[1::2]
    beyond = sum(map(blocks.count, ACCENTED_BLOCKS))
    return beyond + len(latin) - len(latin.translate(None, ACCENTED_LETTERS))


WRITER = json.JSONEncoder(ensure_ascii=False, default=str)


def json_text(value: object) -> str:
    """The JSON that a provider would see for a value; empty if it can't be written."""
    try:
        return WRITER.encode(value)
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
            if set(map(type, part)) == {int}:  # a prompt may come as numbers of tokens
                tokens += 0 if is_part else len(part)
            else:
                parts += [(item, is_part) for item in part if item]
        elif isinstance(part, dict):
            kind = part.get("type")
            if is_part and isinstance(kind, str) and kind in MEDIA_TOKENS:
                media_tokens += read_media(part, MEDIA_TOKENS[kind], parts)
            for key, value in part.items():
                if value and key in CONTENT_KEYS:
                    parts.append((value, key in PART_KEYS))
                elif value and key in ("arguments", "input"):
                    texts.append(value if isinstance(value, str) else json_text(value))
            if isinstance(images := part.get("images"), list):  # Ollama
                for image in images:
                    media_tokens += read_payload(image, IMAGE_TOKENS, parts)
        elif not is_part and isinstance(part, int):
            tokens += 1
    if isinstance(images := body.get("images"), list) and not messages:
        for image in images:
            media_tokens += read_payload(image, IMAGE_TOKENS, [])
    text, pictures = without_pictures("\n".join(texts))
    return tokens + min(media_tokens + pictures, MOST_MEDIA_TOKENS) + estimate_tokens(text)


def read_media(part: Mapping[str, object], price: int, parts: list[tuple[object, bool]]) -> int:
    """The tokens of one content part's picture, sound or file; the text in it goes to `parts`."""
    tokens = 0
    for key, holder in part.items():
        if key not in MEDIA_KEYS:
            continue
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
    elif TEXT_URL.match(payload):
        payload = decode_url(payload)
    elif DATA_URL.fullmatch(payload) or BASE64.fullmatch(payload):
        return min(price, (len(payload) + 1) // 2)
    parts.append((payload, False))
    return 0


def decode_url(url: str) -> str:
    """The text in a data URL; all of it where it can't be read."""
    head, _, data = url.partition(",")
    if not head.endswith(";base64"):
        return url
    try:
        return base64.b64decode(data + "==").decode("utf-8", "replace")
    except ValueError:
        return url


def without_pictures(text: str) -> tuple[str, int]:
    """A text without its data URLs, and the tokens of the pictures in them."""
    if ";base64," not in text:
        return text, 0
    tokens = 0

    def count_picture(match: re.Match[str]) -> str:
        nonlocal tokens
        tokens += min(IMAGE_TOKENS, (len(match[0]) + 1) // 2)
        return ""

    return PICTURE_URL.sub(count_picture, text), tokens


def estimate_reply(text: str) -> int:
    """About how many tokens a reply's text has; a picture that it holds isn't text."""
    text, pictures = without_pictures(text)
    return pictures + estimate_tokens(text)
