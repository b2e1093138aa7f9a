"""Languages: all there are, and which one a reader gets."""

from __future__ import annotations

from collections.abc import Mapping

from helpers.openwebui.languages_eastern import (
    ARABIC,
    CHINESE,
    HEBREW,
    JAPANESE,
    KOREAN,
    POLISH,
    RUSSIAN,
    TAIWANESE_CHINESE,
    TURKISH,
    UKRAINIAN,
)
from helpers.openwebui.languages_western import (
    BRAZILIAN_PORTUGUESE,
    CANADIAN_FRENCH,
    DUTCH,
    ENGLISH,
    FRENCH,
    GERMAN,
    ITALIAN,
    SPANISH,
)
from helpers.openwebui.wording import Language

LANGUAGES: Mapping[str, Language] = {
    language.tag.lower(): language
    for language in (
        *(ENGLISH, GERMAN, FRENCH, CANADIAN_FRENCH, SPANISH, ITALIAN, BRAZILIAN_PORTUGUESE, DUTCH),
        *(POLISH, RUSSIAN, UKRAINIAN, TURKISH, CHINESE, TAIWANESE_CHINESE, JAPANESE, KOREAN),
        *(ARABIC, HEBREW),
    )
}
# Other tags of the same: a region, a script, an old code, or a language alone.
LANGUAGE_ALIASES = {
    "zh": "zh-cn",
    "zh-hans": "zh-cn",
    "zh-hant": "zh-tw",
    "zh-hk": "zh-tw",
    "zh-mo": "zh-tw",
    "pt": "pt-br",
    "iw": "he",
}
LONGEST_LANGUAGE_TAG = 35


def choose_language(tag: str) -> Language:
    """The language for a tag such as ``de-AT``: the longest beginning that is known; or English.

    The tag is what a browser sent: a longer one than any real one is no tag.
    """
    if len(tag) > LONGEST_LANGUAGE_TAG:
        return LANGUAGES["en"]
    parts = tag.strip().lower().replace("_", "-").split("-")
    for length in range(len(parts), 0, -1):
        beginning = "-".join(parts[:length])
        language = LANGUAGES.get(LANGUAGE_ALIASES.get(beginning, beginning))
        if language is not None:
            return language
    return LANGUAGES["en"]
