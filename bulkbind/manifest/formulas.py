"""Guards cells of CSV files against formulas in spreadsheets.

Source: OWASP, "CSV Injection".
"""

from __future__ import annotations

import re

_SIGNS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""Characters that begin a formula; the wide forms do so in Japanese locales."""
_BEGINS = (*_SIGNS, "\t", "\r", "\n")
_SIGN = f"[{re.escape(''.join(_SIGNS))}]"
_WITHIN = re.compile(rf"""([,;|\t\r\n]"*)(?={_SIGN}(?!\Z))""")
"""Where a formula could begin within text: after a character that a spreadsheet with another
delimiter takes as the end of a cell, despite quotes."""
_CALL = re.compile(rf"""(?:^|[,;]"*){_SIGN}[^,;]*(?:[A-Za-z_.][0-9]{{0,3}}\(|\||!)""")
_NUMBER = re.compile(r"-(?:[0-9]{1,32}(?:\.[0-9]{1,32})?)?", re.ASCII)
"""What begins with `-` and is no formula; that alone is none, either."""
_NAME = re.compile(r"-[a-zA-Z0-9_\s-]{0,31}", re.ASCII)
"""A name that keeps its rule, with `-` first."""

_IN_TABLE = re.compile(rf"""[{re.escape("".join(_SIGNS))}\t](?<=[,;|\t\r\n"].)""")
"""Where a formula could begin in a CSV file; it looks back, which is six times faster."""


_KINDS = bytes(
    ord(
        "="
        if byte in b"=+-@\xef"
        else ","
        if byte in b',"\t\r\n'
        else ";"
        if byte in b";|"
        else "a"
    )
    for byte in range(256)
)
"""For `bytes.translate`: what may begin a formula (the wide forms begin with EF), what CSV needs
quotes for, other delimiters, all else."""
_IDLE = bytes(byte for byte in range(256) if chr(byte) not in ',"\t\r\n=+@\xef')
"""What needs no quotes and begins no formula; and `-`, of which a table has many: see `_MINUS`."""
_MINUS = re.compile(r"""-(?<![^,;|\t\r\n"]-)""")


def is_harmless(table: str) -> bool:
    """Return whether no cell of a CSV file needs a guard; at times False without need."""
    begins_line = '"\r' in table or '"\n' in table  # a cell that begins with the end of a line
    may_begin = "\t" in table or _may_begin(_kinds(table))
    return not begins_line and not (may_begin and _IN_TABLE.search(f"\n{table}"))


def is_plain(table: str, marks: int) -> bool:
    """Return whether no cell of a table needs quotes or a guard.

    *table*: rows whose cells are joined by commas, each ended by CRLF; *marks*: how many of these
    characters that are.
    """
    left = table.encode("utf-8", "surrogatepass").translate(_KINDS, _IDLE)
    if left.count(b",") != marks or _MINUS.search(table):
        return False
    return b"=" not in left or not _may_begin(_kinds(table))


def _kinds(table: str) -> bytes:
    return f"\n{table}".encode("utf-8", "surrogatepass").translate(_KINDS)


def _may_begin(kinds: bytes) -> bool:
    return b",=" in kinds or b";=" in kinds


def safe(text: str) -> str:
    """Return a text with an apostrophe wherever a formula could begin."""
    if _WITHIN.search(text):  # ten times faster than a substitution that finds nothing
        text = _WITHIN.sub(r"\1'", text)
    return f"'{text}" if text.startswith(_BEGINS) and not _NUMBER.fullmatch(text) else text


def safe_value(value: str) -> str:
    """Return the same of a value that keeps its rule, as a name does; within, a call is guarded."""
    shown = safe_call(value)
    is_bare = not shown.startswith(_BEGINS) or _NAME.fullmatch(shown) or _NUMBER.fullmatch(shown)
    return shown if is_bare else f"'{shown}"


def safe_call(value: str) -> str:
    """Return a value that keeps its rule unchanged, unless it is a formula with a function call.

    For manifests, which are read again. Only a user id can hold what a call needs; values like
    `+49` and `@me` may be displayed differently, but run nothing.
    """
    return safe(value) if _CALL.search(value) else value
