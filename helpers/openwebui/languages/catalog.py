"""Languages: all there are, and which one a reader gets."""

from __future__ import annotations

from collections.abc import Mapping

from helpers.openwebui.languages.ar import ARABIC
from helpers.openwebui.languages.de import GERMAN
from helpers.openwebui.languages.en import ENGLISH
from helpers.openwebui.languages.es import SPANISH
from helpers.openwebui.languages.fr import FRENCH
from helpers.openwebui.languages.fr_ca import CANADIAN_FRENCH
from helpers.openwebui.languages.he import HEBREW
from helpers.openwebui.languages.it import ITALIAN
from helpers.openwebui.languages.ja import JAPANESE
from helpers.openwebui.languages.ko import KOREAN
from helpers.openwebui.languages.nl import DUTCH
from helpers.openwebui.languages.pl import POLISH
from helpers.openwebui.languages.pt_br import BRAZILIAN_PORTUGUESE
from helpers.openwebui.languages.ru import RUSSIAN
from helpers.openwebui.languages.tr import TURKISH
from helpers.openwebui.languages.uk import UKRAINIAN
from helpers.openwebui.languages.zh_cn import CHINESE
from helpers.openwebui.languages.zh_tw import TAIWANESE_CHINESE
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
LONGEST_ACCEPT_LANGUAGE = 500


def find_language(tag: str) -> Language | None:
    """The language for a tag such as ``de-AT``: the longest beginning that is known, if any is.

    The tag is what a browser sent: a longer one than any real one is no tag.
    """
    if len(tag) > LONGEST_LANGUAGE_TAG:
        return None
    parts = tag.strip().lower().replace("_", "-").split("-")
    for length in range(len(parts), 0, -1):
        beginning = "-".join(parts[:length])
        if language := LANGUAGES.get(LANGUAGE_ALIASES.get(beginning, beginning)):
            return language
    return None


def choose_language(tags: str) -> Language:
    """The first known language of a tag, or of an ``Accept-Language`` header; or English."""
    for tag in tags[:LONGEST_ACCEPT_LANGUAGE].split(","):
        if language := find_language(tag.partition(";")[0]):
            return language
    return ENGLISH
