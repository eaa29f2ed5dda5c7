"""Words that stand where a value is missing: `N/A`, `NULL`, `TBD`, `0000`; pure."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

NONE = "none"
"""Given alone as the setting: no word is a placeholder."""
USUAL = (
    # What programs write for nothing. Source: `na_values` of pandas.read_csv; SQL; JavaScript.
    "na", "n/a", "n.a.", "n.a", "n\\a", "null", "\\n", "none", "nil", "nan", ".nan", "-nan",
    "undefined", "undef",
    # What people write.
    "unknown", "tbd", "tba", "tbc", "t.b.d.", "to be determined", "to be defined", "todo",
    "not set", "not available", "not applicable", "not specified", "not defined", "not assigned",
    "not known", "not found", "no value", "no data", "none specified", "unset", "unspecified",
    "unassigned", "missing", "empty", "blank",
    "-", "\u2013", "\u2014", "?", ".", "0", "xxx", "xxxx", "xxxxx", "xxxxxx", "xxxxxxxx",
    # What vendors leave in a board's tables (SMBIOS, types 1 to 3) for the serial number.
    "to be filled by o.e.m.", "to be filled by oem", "default string", "system serial number",
    "chassis serial number", "base board serial number", "no tag", "no asset tag", "no serial",
    "no serial number", "o.e.m.",
    # The same in other languages.
    "k.a.", "k. a.", "keine angabe", "unbekannt", "nicht vorhanden", "leer", "inconnu", "n.d.",
    "n/d", "n.v.t.", "onbekend", "desconocido", "desconhecido", "sconosciuto", "nieznany",
    "неизвестно", "нет", "н/д", "无", "無", "未知", "暂无", "不明", "なし",
    "nat", "void", "not provided", "none provided", "not entered", "not settable",
    "kein", "keine", "nicht zugewiesen", "nicht bekannt", "aucun", "aucune",
    "non renseigné", "s/d", "s/n", "ninguno", "sin asignar", "nessuno", "nenhum", "geen",
    "brak", "yok", "не указано", "нет данных", "空", "未分配", "未设置", "未設定", "該当なし",
)  # fmt: skip
"""In lower case; a word of one character stands for any run of it, too."""
LONGEST = 128
"""Characters of the longest value of a field."""
_AROUND = ("({})", "[{}]", "<{}>", "{{{}}}", "'{}'", '"{}"')
_DIGIT = re.compile("[1-9]")
_NO_DIGITS = bytes(number for number in range(1, 256) if chr(number) not in "123456789")
_BLANKS = re.compile(r"[\s_\-]+")
_VARIABLE = re.compile(r"\{\{.*\}\}|\$\{.*\}|\$\(.*\)|%\w+%|<[^<>]*>", re.ASCII)
"""A variable of a template that nobody filled in: `{{user}}`, `${USER}`, `%USERNAME%`, `<user>`."""
_VARIABLE_ENDS = frozenset("})%>")


class Placeholders:
    """The words of one manifest that are no values, in any case of letters.

    Each word also counts in brackets or quotes, and with `_`, `-` or nothing for its blanks.
    """

    def __init__(
        self, known: frozenset[str], others: frozenset[str] = frozenset(), *, is_usual: bool = False
    ) -> None:
        """*known*: every form of every word, in lower case.

        *others*: what `among` finds as well, though it is no placeholder, in lower case.
        *is_usual*: whether variables of templates count.
        """
        self._known = known
        self._all = known | others
        self._digits = any(map(_DIGIT.search, self._all))
        self._is_usual = is_usual

    def with_others(self, words: frozenset[str]) -> Placeholders:
        """Return the same placeholders, besides which `among` finds others."""
        return Placeholders(self._known, words, is_usual=self._is_usual)

    def __contains__(self, value: str) -> bool:
        if value.lower() in self._known:
            return True
        return self._is_usual and value[-1:] in _VARIABLE_ENDS and bool(_VARIABLE.fullmatch(value))

    def among(self, joined: bytes) -> bool:
        """Return whether any of many values is one: trimmed ASCII, with NUL before and after each.

        Nearly all values of ids have a digit other than 0, and hardly any placeholder has one.
        """
        if not self._known:
            return False
        # Written out, as it is asked for every column: four times as fast as a loop.
        if (b"}" in joined or b">" in joined or b"%" in joined or b")" in joined) and any(
            value in self for value in joined.decode().split("\0")
        ):
            return True
        if not (self._digits or b"\0\0" in joined.translate(None, _NO_DIGITS)):
            return False
        return not self._all.isdisjoint(joined.decode().lower().split("\0"))

    def is_disguised(self, value: str) -> bool:
        """Return whether a value that breaks its rule is a placeholder but for its spelling.

        Such are `N / A`, one in wide letters, and one with an invisible character.
        """
        if len(value) > LONGEST:
            return False
        text = unicodedata.normalize("NFKC", value).lower()
        shown = "".join(c for c in text if unicodedata.category(c) not in ("Cf", "Cc", "Mn"))
        return not self._known.isdisjoint((shown.strip(), _BLANKS.sub("", shown)))


NO_PLACEHOLDERS = Placeholders(frozenset())


@lru_cache(maxsize=8)
def placeholders(words: tuple[str, ...]) -> Placeholders:
    """Return the placeholders given in the settings: () for the usual ones."""
    if [word.strip().lower() for word in words] == [NONE]:
        return NO_PLACEHOLDERS
    known = {form for word in words or USUAL for form in _forms(word.strip().lower())}
    return Placeholders(frozenset(known - {""}), is_usual=not words)


def _forms(word: str) -> Iterable[str]:
    if len(word) == 1:
        return [word * length for length in range(1, LONGEST + 1)]
    spelled = {mark.join(word.split()) for mark in (" ", "_", "-", "")}
    return [*spelled, *(form.format(each) for form in _AROUND for each in spelled)]
