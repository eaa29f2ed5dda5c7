"""Cells of a CSV file that a spreadsheet does not run. Source: OWASP, "CSV Injection"."""

from __future__ import annotations

import re

_BEGINS = r"=+@\uff1d\uff0b\uff20"
"""With `-`, what begins a formula; the wide forms do so where Japanese is written."""
_FORMULA = re.compile(rf"""^(?=[\t\r\n])|(^|[,;|\t\r\n]"*)(?=[{_BEGINS}]|[-\uff0d](?!\Z))""")
"""Where a cell begins with one, also if the spreadsheet's delimiter is another than ours: it
then ends a cell within a text, whatever its quotes."""
_CALL = re.compile(rf"""(?:^|[,;]"*)[{_BEGINS}\-\uff0d][^,;]*(?:[A-Za-z.]\(|\||!)""")


def safe(text: str) -> str:
    """Return *text* with an apostrophe wherever a formula would begin (`-` alone is none)."""
    return _FORMULA.sub(r"\1'", text)


def safe_value(value: str) -> str:
    """Return a value that keeps its rule as it stands, unless it is a formula that calls something.

    Only a user id can hold what a call needs; `+49` and `@me` are only shown in another way.
    """
    return safe(value) if _CALL.search(value) else value
