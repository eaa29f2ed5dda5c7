"""Cells of a CSV file that a spreadsheet does not run. Source: OWASP, "CSV Injection"."""

from __future__ import annotations

import re

_SIGNS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What begins a formula; the wide forms do so where Japanese is written."""
_BEGINS = (*_SIGNS, "\t", "\r", "\n")
_SIGN = f"[{re.escape(''.join(_SIGNS))}]"
_WITHIN = re.compile(rf"""([,;|\t\r\n]"*)(?={_SIGN}(?!\Z))""")
"""Where one begins if the spreadsheet's delimiter is another than ours: it then ends a cell
within a text, whatever its quotes."""
_CALL = re.compile(rf"""(?:^|[,;]"*){_SIGN}[^,;]*(?:[A-Za-z.]\(|\||!)""")


def safe(text: str) -> str:
    """Return *text* with an apostrophe wherever a formula would begin (`-` alone is none)."""
    if _WITHIN.search(text):  # a tenth of the time of a substitution that finds nothing
        text = _WITHIN.sub(r"\1'", text)
    return f"'{text}" if text.startswith(_BEGINS) and text != "-" else text


def safe_value(value: str) -> str:
    """Return a value that keeps its rule as it stands, unless it is a formula that calls something.

    Only a user id can hold what a call needs; `+49` and `@me` are only shown in another way.
    """
    return safe(value) if _CALL.search(value) else value
