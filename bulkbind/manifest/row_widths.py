"""How many cells the rows of a CSV file have, and what rows with fewer or more of them mean.

A row with more cells than the others holds a delimiter that should stand in quotes, and one with
fewer lacks a delimiter: its values stand under wrong names. Both are harmless where the whole file
is written so: with a delimiter at the end of every row, or without the empty cells at the end of
rows. This is judged by the first rows of a file, as many as are held in memory anyway (64 KiB), and
further down by the rows around. Where some rows show what they lack, all others as short lack it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

_LEAST_SHARE = 0.25
"""The share of short rows among the first rows from which they are no accident."""
_MOST = 0.75
_RUN = 16
"""Short rows in a row that are no accident: Excel leaves out empty cells for as many at a time."""

_FORM = 2
"""Different rows that lack a delimiter and are as short: no accident of one row."""


def fitted(header: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Return how many columns a header really has, given the first rows below it.

    More than it has cells, if all rows end with the same number of empty cells beyond them; fewer,
    if its last cells are empty and most rows have none there.
    """
    widths = Counter(map(len, rows))
    if not widths:
        return len(header)
    usual = widths.most_common(1)[0][0]
    named = len(header)
    while named > 1 and not header[named - 1].strip():
        named -= 1
    if named <= usual <= len(header):
        return usual
    is_trailing = len(header) < usual == min(widths)
    ends = (row[len(header) :] for row in rows if len(row) == usual)
    if is_trailing and not any(cell.strip() for cells in ends for cell in cells):
        return usual
    return len(header)


class ShortRows:
    """Tells rows whose empty last cells were left out from rows that lack a delimiter."""

    def __init__(
        self, width: int, rows: Sequence[Sequence[str]], *, is_settled: bool = False
    ) -> None:
        """*width*: columns; *rows*: the first rows of the file.

        *is_settled*: whether short rows lack a delimiter, as a report has told them apart, or the
        header has columns without a name among the others.
        """
        self._width = width
        self._is_settled = is_settled
        self.run = 0
        """Short rows in a row, up to the last one read."""
        self.is_below_gap = False
        """Whether only short rows were read since the first blank line: notes, as far as known."""
        self._has_gaps = False
        short = sum(len(row) < width for row in rows)
        whole = [row for row in rows if len(row) == width]
        self._is_usual = short == len(rows) or (
            short > 1 and short >= _LEAST_SHARE * len(rows) and all(row[-1].strip() for row in rows)
        )
        longer = Counter(len(row) for row in rows if len(row) > width).most_common(1)
        self.usual = longer[0][0] if longer and longer[0][1] >= _MOST * len(rows) else 0
        """How many cells most rows have, if more than the header; else 0."""
        self._seen = [{cell.strip() for cell in column} - {""} for column in zip(*whole)]  # noqa: B905  # they are
        self._first = [row for row in rows if len(row) < width]
        self._moved: defaultdict[int, set[tuple[str, ...]]] = defaultdict(set)
        """Rows that hold what belongs further right, a few by their number of cells."""

    def saw_gap(self) -> None:
        """Take in a blank line."""
        self.is_below_gap = not self._has_gaps

    def saw_whole(self) -> None:
        """Take in a row that is whole, or some."""
        self._has_gaps |= self.is_below_gap
        self.is_below_gap = False

    def are_usual(self, rows: Sequence[Sequence[str]], must_at: Collection[int]) -> bool:
        """Return whether short rows are usual among these, the next ones of the file.

        *must_at*: positions of the required fields.
        """
        if self._is_usual or self._is_settled:
            is_usual = not self._is_settled
        else:
            longest = self.run
            for row in rows:
                self.run = self.run + 1 if len(row) < self._width else 0
                longest = max(longest, self.run)
            is_usual = longest >= _RUN
        if is_usual:
            for row in (*self._first, *rows):
                if len(self._moved[len(row)]) < _FORM and self._shows_move(row, must_at):
                    self._moved[len(row)].add(tuple(row))
            self._first = []
        return is_usual

    def is_moved(self, cells: Sequence[str], at: Collection[int]) -> bool:
        """Return whether a short row holds what belongs further right, or several as short do.

        *at*: positions of the required fields.
        """
        return len(self._moved[len(cells)]) >= _FORM or self._shows_move(cells, at)

    def _shows_move(self, cells: Sequence[str], at: Collection[int]) -> bool:
        """Return whether a short row has, at one of these positions, what whole rows have there."""
        missing = self._width - len(cells)
        return any(
            cells[position].strip() in self._seen[position + further]
            for position in at
            if position < len(cells)
            for further in range(1, missing + 1)
            if position + further < len(self._seen)
        )
