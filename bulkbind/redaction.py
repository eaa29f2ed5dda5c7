"""Secrets that this process holds, and their removal from text that is kept or shown.

Whatever obtains a secret calls `learn`. Text from outside goes through `redacted` where it comes
in, and every line for a person through `line` where it goes out.
"""

from __future__ import annotations

import html
import json
import re
from binascii import a2b_base64
from collections import defaultdict
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HIDDEN = "***"
SHORTEST = 4
"""A shorter secret may be any word, and is not searched for."""
SHORTEST_WITHIN = 6
"""A shorter one is found as a word of its own only, a longer one also within a word."""
BLOCK = 12
"""A piece of a longer secret, with which it is found although it was cut."""
_NUMBER = re.compile(rf"\A[0-9]{{{SHORTEST_WITHIN}}}|\A[0-9]+\Z|[0-9]{{{BLOCK}}}", re.ASCII)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{16,}", re.ASCII)
"""What may hold a block in Base64, of either alphabet."""
_HEX = re.compile(r"[0-9A-Fa-f]{24,}", re.ASCII)
"""What may hold a block in hexadecimal digits."""
_BLOCK_OF_TEXT = re.compile(rb"[ -~]{%d}" % BLOCK)
"""What is in nearly nothing that is neither."""
_TAG = re.compile(r"<[^<>]*>")


class Redactor:
    """Finds secrets in text as written or encoded, in any case, whole or cut.

    Its time is linear in the text and does not depend on the number of secrets.
    """

    def __init__(self) -> None:
        self.count = 0
        """How many secrets are known."""
        self._known: set[str] = set()
        self._has_number = False
        """Whether a number alone may be a secret, or the part of one that was cut off."""
        self._short: defaultdict[int, set[str]] = defaultdict(set)
        """Forms shorter than a block, by length."""
        self._blocks: dict[str, list[tuple[str, int]]] = {}
        """Longer forms and the positions in them, by the blocks that they are cut into."""
        self._beginnings: defaultdict[str, set[str]] = defaultdict(set)
        """Forms by their first characters, to find those that a text's end cuts off."""

    def learn(self, secret: str) -> None:
        """Search for a secret from now on."""
        if secret in self._known:
            return
        for form in _forms(secret):
            self._has_number = self._has_number or bool(_NUMBER.search(form))
            if len(form) < BLOCK:
                self._short[len(form)].add(form)
            else:
                places = (*range(0, len(form) - BLOCK, BLOCK), len(form) - BLOCK)
                for block, at in {form[at : at + BLOCK]: at for at in places}.items():
                    self._blocks.setdefault(block, []).append((form, at))
            if len(form) > SHORTEST_WITHIN:
                self._beginnings[form[:SHORTEST_WITHIN]].add(form)
        self._known.add(secret)
        self.count += 1

    def redacted(self, text: str, *, shortest: int = SHORTEST) -> str:
        """Return a text with its secrets of at least *shortest* characters masked."""
        if not self.count or len(text) < shortest or (text.isdigit() and not self._has_number):
            return text
        within = folded(text)
        found = self._long_in(within) + self._encoded_in(text)
        if shortest < BLOCK:
            found += [*self._short_in(within, shortest), *self._cut_off_in(within)]
        if not found:
            return text
        parts, done = [], 0
        for begin, end in sorted(found):
            if begin >= done:
                parts += [text[done:begin], HIDDEN]
            done = max(done, end)
        return "".join((*parts, text[done:]))

    def _long_in(self, text: str) -> list[tuple[int, int]]:
        pieces = [text[at : at + BLOCK] for at in range(len(text) - BLOCK + 1)]
        if self._blocks.keys().isdisjoint(pieces):  # in no time, as nearly always
            return []
        return [
            _common(text, at, form, inner)
            for at, piece in enumerate(pieces)
            for form, inner in self._blocks.get(piece, ())
        ]

    def _encoded_in(self, text: str) -> list[tuple[int, int]]:
        """Return where a text is Base64 or hexadecimal, anywhere in it, of a longer secret."""
        if not self._blocks or not _BASE64.search(text):  # digits of either kind are such runs
            return []
        return [
            each.span()
            for pattern, decoded in ((_HEX, _of_hex), (_BASE64, _of_base64))
            for each in pattern.finditer(text)
            if any(
                _BLOCK_OF_TEXT.search(data) and self._long_in(data.decode("latin-1").lower())
                for data in decoded(each[0])
            )
        ]

    def _short_in(self, text: str, shortest: int) -> Iterable[tuple[int, int]]:
        for length, forms in self._short.items():
            if length >= shortest:
                for begin in range(len(text) - length + 1):
                    end = begin + length
                    if text[begin:end] in forms and (
                        length >= SHORTEST_WITHIN or is_word(text, begin, end)
                    ):
                        yield begin, end

    def _cut_off_in(self, text: str) -> list[tuple[int, int]]:
        return [
            (begin, len(text))
            for begin in range(max(0, len(text) - BLOCK), len(text) - SHORTEST_WITHIN + 1)
            for form in self._beginnings.get(text[begin : begin + SHORTEST_WITHIN], ())
            if form.startswith(text[begin:])
        ]


def _of_hex(run: str) -> Iterator[bytes]:
    """Yield what hexadecimal digits say, from whichever of them on."""
    for begin in range(2):
        yield bytes.fromhex(run[begin : begin + (len(run) - begin) // 2 * 2])


def _of_base64(run: str) -> Iterator[bytes]:
    """Yield what characters of Base64 say, from whichever of them on."""
    run = run.replace("-", "+").replace("_", "/")
    for begin in range(4):
        yield a2b_base64(run[begin : begin + (len(run) - begin) // 4 * 4])


def _common(text: str, at: int, form: str, inner: int) -> tuple[int, int]:
    """Return what a text and a form have in common around a block that is in both."""
    begin, end, ahead = at, at + BLOCK, inner + BLOCK
    while begin > 0 and inner > 0 and text[begin - 1] == form[inner - 1]:
        begin, inner = begin - 1, inner - 1
    while end < len(text) and ahead < len(form) and text[end] == form[ahead]:
        end, ahead = end + 1, ahead + 1
    return begin, end


def is_word(text: str, begin: int, end: int) -> bool:
    """Return whether a part of a text is not the part of a longer word."""

    def joins(at: int) -> bool:
        return 0 < at < len(text) and all(c.isalnum() or c == "_" for c in text[at - 1 : at + 1])

    return not joins(begin) and not joins(end)


def folded(text: str) -> str:
    """Return a text in lower case, of the same length."""
    if text.isascii():
        return text.lower()
    return "".join(low if len(low := c.lower()) == 1 else c for c in text)


def _forms(secret: str) -> set[str]:
    """Return a secret as written, and as a server or we ourselves may write it, in lower case."""
    plain = {secret, secret.strip(), unquote(secret)}
    plain |= {" ".join(_TAG.sub(" ", text).split()) for text in plain} | {
        " ".join(text.split()) for text in plain
    }
    forms = plain | {_in_one_line(text) for text in plain}
    forms |= {quote(text.encode("utf-8", "surrogateescape"), safe="") for text in plain}
    forms |= {form for text in plain for form in (json.dumps(text)[1:-1], html.escape(text))}
    forms |= {json.dumps(text, ensure_ascii=False)[1:-1] for text in plain}
    return {folded(form) for form in forms if len(form) >= SHORTEST}


_held = Redactor()
"""The secrets of this process, whoever uses it: hiding one too many harms nobody."""


def learn(*secrets: str | None) -> None:
    """Hide secrets from now on."""
    for secret in secrets:
        if secret:
            _held.learn(secret)


def forget() -> None:
    """Forget all secrets, for tests."""
    vars(_held).update(vars(Redactor()))
    _remembered.cache_clear()


def redacted(text: str, *, shortest: int = SHORTEST) -> str:
    """Return a text with the secrets of this process masked; *shortest*: the least to look for."""
    if len(text) < shortest:
        return text
    if len(text) <= REMEMBERED:
        return _remembered(text, shortest, _held.count)
    return _held.redacted(text, shortest=shortest)


REMEMBERED, MOST_REMEMBERED = 300, 256
"""Texts of up to so many characters are remembered, the last so many: answers say the same again
and again, and to look through `success` for one token takes 15 us."""


@lru_cache(maxsize=MOST_REMEMBERED, typed=True)  # `Lines` are fit to be shown, the same text is not
def _remembered(text: str, shortest: int, _known: int) -> str:
    """Return a text as `redacted` does. *_known*: how many secrets, as one more changes it."""
    return _held.redacted(text, shortest=shortest)


class Lines(str):
    """Text that is fit to be shown, of one line or several: any other text becomes one line."""

    __slots__ = ()


def line(text: str) -> Lines:
    """Return a text as one line to show: no secret, and nothing that steers what shows it."""
    return text if isinstance(text, Lines) else Lines(_in_one_line(redacted(text)))


def lines(texts: Iterable[str]) -> Lines:
    """Return texts as lines to show, one below the other."""
    return Lines("\n".join(map(line, texts)))


def json_text(value: Any, *, indent: int | None = 2) -> Lines:  # noqa: ANN401  # JSON
    """Return a value as JSON in which nothing steers what shows it: such characters are escaped."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    if not text.isprintable():
        text = "".join(c if c == "\n" or c.isprintable() else json.dumps(c)[1:-1] for c in text)
    return Lines(text)


def _in_one_line(text: str) -> str:
    from bulkbind.model import in_one_line  # noqa: PLC0415  # half of what `--help` would import

    return in_one_line(text)
