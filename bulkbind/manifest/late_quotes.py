"""Rows that a quote which is closed too late takes into the cell of another row.

The text between the two quotes is one cell for every reader of CSV: what had been rows is lost, or
gives a device to the user of another row. Taken for themselves, the lines of such a record name a
code and a user where the columns are, of the same make; the lines of a note do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from bulkbind.manifest.csv_dialect import Dialect

FEWEST = 2
"""Lines that read as rows: the first one of any record may."""
NARROW = 2
"""Cells of a row; one that stands in a cell may have fewer: what is left says too little."""
MOST_LONGER = 4
"""Characters by which a code, or a user, is longer or shorter than another of its make."""


def row_within(
    text: str, cells: Sequence[str], keys: Collection[int], dialect: Dialect
) -> str | None:
    """Return a line of a record that reads as a row of its own; None if fewer than two do.

    Args:
        text: The record as written.
        cells: As it was read.
        keys: The positions of its code and user, as far as they have columns.
        dialect: Of the file.
    """
    lines = text.splitlines()
    like = cells if _are_whole(cells, keys) else _parts(lines[0], dialect)
    found = (
        line
        for line in lines
        if len(parts := _parts(line, dialect)) >= len(cells) or len(cells) <= NARROW
        if _has_keys(parts, like, keys)
    )
    rows = [line for line, _ in zip(found, range(FEWEST), strict=False)]
    return rows[-1] if keys and len(rows) == FEWEST else None


def _are_whole(cells: Sequence[str], keys: Collection[int]) -> bool:
    return all(at < len(cells) and len(cells[at].splitlines()) == 1 for at in keys)


def _parts(line: str, dialect: Dialect) -> list[str]:
    """Return what stands between the delimiters of a line, whatever its quotes mean."""
    quotes = dialect.quote + '"'
    return [part.strip().strip(quotes).strip() for part in line.split(dialect.delimiter)]


def _has_keys(parts: Sequence[str], like: Sequence[str], keys: Collection[int]) -> bool:
    is_wide = max(keys, default=0) < min(len(parts), len(like))
    return is_wide and all(_are_alike(parts[at], like[at].strip()) for at in keys)


def _are_alike(one: str, other: str) -> bool:
    """Return whether two words may be of one column: letters or digits or both, of like length."""
    is_near = abs(len(one) - len(other)) <= MOST_LONGER
    return is_near and bool(one and other) and set(_kinds(one)) == set(_kinds(other))


def _kinds(word: str) -> Iterator[str]:
    """Yield what a word consists of. Marks count for nothing: they may be what breaks a rule."""
    for c in word:
        if c.isdigit():
            yield "digit"
        elif c.isalpha():
            yield "letter"
