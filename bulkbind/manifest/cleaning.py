"""Turns names into what the rules allow; pure. Never used on machine codes or users."""

from __future__ import annotations

import re
import unicodedata

from bulkbind.manifest.damage import fault_of
from bulkbind.manifest.rules import RULES

_RULE = {rule.field: rule for rule in RULES}
CLEANED = ("device_name", "device_os")
"""The fields that may be cleaned."""

_LETTERS = str.maketrans(
    {
        "ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O",
        "đ": "d", "Đ": "D", "ð": "d", "Ð": "D", "ł": "l", "Ł": "L", "þ": "th", "Þ": "Th",
        "ı": "i", "ħ": "h", "Ħ": "H", "ŧ": "t", "Ŧ": "T", "ĸ": "k", "ŋ": "n", "Ŋ": "N",
    }
)  # fmt: skip
"""Latin letters that Unicode does not take apart."""
_DASHES = re.compile("[\u2010-\u2015\u2212\ufe58\ufe63\uff0d]")
_DROPPED = re.compile("[\"'`´‘-‟«»‹›′″™®©℠]")
"""Quotes and marks that carry no name."""
_NO_TEXT = re.compile("[\ud800-\udfff]")
"""Bytes that the file's encoding does not know, and halves of characters: what they stand for is
lost, and a name without them would be a guess."""
_BRACKETS = re.compile(r"[()\[\]{}<>]")
_OTHERS = re.compile(r"[^\x00-\x7f]+")
_UNDERSCORES = re.compile(r"_{2,}")
_LEAST_KEPT = 0.5
"""A cut at a word end keeps at least this share of the length."""


def clean(field: str, value: str) -> str | None:
    """Return what a name becomes so that it keeps the rule of its field, None where nothing can.

    Accents go, wide and styled forms become plain, quotes and trademark signs are dropped,
    brackets become blanks, any other character becomes `_`; blanks are collapsed; what is too
    long is cut, at the end of a word where there is one. What is clean already stays as it is.
    """
    rule = _RULE[field]
    if rule.pattern.fullmatch(value):
        return value
    if _NO_TEXT.search(value) or fault_of(value):
        return None
    text = _DASHES.sub("-", _DROPPED.sub("", value))
    text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).translate(_LETTERS))
    text = "".join(kept for character in text if (kept := _plain(character)))
    # Compatibility forms may have brought quotes and brackets of their own.
    text = _BRACKETS.sub(" ", _DROPPED.sub("", text))
    text = _OTHERS.sub("_", text)
    text = "".join(character if rule.allowed.fullmatch(character) else "_" for character in text)
    text = " ".join(_UNDERSCORES.sub("_", text).split())
    text = _cut(text, rule.longest)
    return text if any(character.isalnum() for character in text) else None


def _plain(character: str) -> str:
    """Return a character, a blank for what is one, nothing for accents and what is invisible."""
    category = unicodedata.category(character)
    if character.isspace() or category == "Zs":
        return " "
    return "" if category in ("Mn", "Me", "Cf", "Cc") else character


def _cut(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    cut = text[:longest]
    if text[longest] != " ":
        word_end = cut.rfind(" ")
        cut = cut[:word_end] if word_end >= longest * _LEAST_KEPT else cut
    return cut.rstrip(" _-")
