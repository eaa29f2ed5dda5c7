"""Devices named more than once, for the same user or for different users: found exactly.

Memory is bounded, whatever the number of rows and however many of them repeat. The devices of all
rows are kept in a temporary file, and hashes of their machine codes in another one, in parts. The
set of one part is held in memory at a time; rows whose hash may have come twice are read again,
sorted and compared. Nothing is judged by a hash alone: it only says what need not be compared.
"""

from __future__ import annotations

import heapq
import os
import pickle
import tempfile
import weakref
from array import array
from collections import deque
from contextlib import contextmanager
from itertools import accumulate, compress, groupby, islice, pairwise, repeat
from operator import itemgetter
from typing import IO, TYPE_CHECKING, NamedTuple

from bulkbind.errors import LedgerError
from bulkbind.model import GoodRows, Problem, Repeat
from bulkbind.model.fields import FIELDS, NAME, OPTIONAL

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bulkbind.model import CheckedRow

_USER, _CODE = FIELDS.index("user_id"), FIELDS.index("machine_code")
_NAME = FIELDS.index(OPTIONAL[NAME])

_PARTS = 256
"""A set of the hashes of one part takes 75 bytes a row: 30 MB in 100,000,000 rows."""
_HASHES = 1 << 15
"""Hashes collected before they are written by part: few enough to stay in a processor's cache."""
_HASH = "q"
_HASH_BYTES = 8
_MARK_BITS = 24
"""Of a hash, by which repeated ones are marked; others than those of its part."""
_SORTED = 1 << 16
"""Texts sorted in memory at a time, of some 150 bytes each."""
_READ = 1 << 12
"""Bytes read at a time of each sorted part of a file."""
_DIGITS = 15
"""Of a position written as a text, so that texts sort like positions."""


class Policy(NamedTuple):
    """How to treat devices named more than once in a run."""

    on_duplicate: str
    """`first` or `error`."""
    on_conflict: str
    """`error`, `first` or `last`."""


def duplicate(code: str, place: str, other_name: str) -> Problem:
    """Return the problem of a row that repeats an earlier row's device and user."""
    named = f", under the name {other_name!r}" if other_name else ""
    return Problem(
        "machine_code", "machine_code", code, "machine_code: a device stands once in a run",
        f"{place} has it, too{named}", "--on-duplicate first takes the first row",
        "--on-duplicate first",
    )  # fmt: skip


def conflict(code: str, place: str, other_user: str) -> Problem:
    """Return the problem of a row whose device another row gives to another user."""
    return Problem(
        "machine_code", "machine_code", code, "machine_code: a device has one user in a run",
        f"{place} gives it to {other_user}", "--on-conflict first or last says which row counts",
        "--on-conflict first or last",
    )  # fmt: skip


class _Row(NamedTuple):
    """A row as a text, which sorts by code, user and position: no value has a control character."""

    code: str
    user: str
    position: str
    source: str
    line: str
    name: str


class _Device(NamedTuple):
    """What the rows of one machine code say of its users, each row the first of its user."""

    low: _Row
    high: _Row
    """Of the least and of the greatest user id."""
    first: _Row
    latest: _Row
    """Of the users of the first row and of the last one that counts."""


class Seen:
    """The devices of rows, to be asked once which of them are named again.

    Takes some 50 bytes of temporary disk space a row (in `TMPDIR`), and 100 more for each row that
    repeats. Raises: LedgerError if that disk is full.
    """

    def __init__(self) -> None:
        self._rows = _temporary(self)
        self._hashes = _temporary(self)
        self._parts: list[list[int]] = [[] for _ in range(_PARTS)]
        self._put = [part.append for part in self._parts]
        self._held = 0
        self._places: list[array[int]] = []
        """Where each part begins and ends in the file of hashes, for each time of writing."""

    def add(self, source: int, position: int, rows: GoodRows | Sequence[CheckedRow]) -> None:
        """Record the devices of those rows that are valid and meant. *position*: of the first."""
        if isinstance(rows, GoodRows):
            positions = range(position, position + len(rows))
            self._add(source, positions, rows.lines, rows.values)
        elif valid := [
            (at, row)
            for at, row in enumerate(rows, start=position)
            if not (row.problems or row.left_out)
        ]:
            places = [at for at, _ in valid]
            lines = [row.line for _, row in valid]
            self._add(source, places, lines, list(zip(*(row.values for _, row in valid))))  # noqa: B905  # the same fields

    def _add(
        self,
        source: int,
        positions: Sequence[int],
        lines: Sequence[int],
        values: Sequence[Sequence[str | None]],
    ) -> None:
        users, codes, names = values[_USER], values[_CODE], values[_NAME]
        if None in names:
            names = [name or "" for name in names]
        put = self._put
        for value in map(hash, codes):
            put[value % _PARTS](value)
        self._held += len(codes)
        with _on_disk():
            text = "\n".join((*codes, *users, *names))  # type: ignore[arg-type]  # valid: no None
            pickle.dump((source, positions, lines, text), self._rows, pickle.HIGHEST_PROTOCOL)
            if self._held >= _HASHES:
                self._write_hashes()

    def repeats(self, names: Sequence[str], policy: Policy) -> Iterator[Repeat]:
        """Yield the rows that repeat a device and do not count, in the order of the manifests.

        *names*: the sources' names for messages.
        """
        with _on_disk():
            if (marks := self._marks()) is None:
                return
            rows = _Sorted(self._marked(marks))
            for text in _Sorted(_uncounted(rows, policy)):
                yield _repeat(text, names, policy)

    def _write_hashes(self) -> None:
        at = self._hashes.tell()
        sizes = (_HASH_BYTES * len(part) for part in self._parts)
        self._places.append(array(_HASH, accumulate(sizes, initial=at)))
        for part in self._parts:
            self._hashes.write(array(_HASH, part))
            part.clear()
        self._held = 0

    def _marks(self) -> bytearray | None:
        """Return what is not 0 at `_mark` of every hash that came twice; None if none did."""
        self._write_hashes()
        self._hashes.flush()
        marks = None
        for part in range(_PARTS):
            seen: set[int] = set()
            rows = 0
            for values in self._hashes_of(part):
                seen.update(values)
                rows += len(values)
            if len(seen) == rows:
                continue
            marks = marks or bytearray(1 << _MARK_BITS)
            seen.clear()
            for values in self._hashes_of(part):
                for value in values:
                    if value in seen:
                        marks[_mark(value)] = 1
                    seen.add(value)
        return marks

    def _hashes_of(self, part: int) -> Iterator[array[int]]:
        file = self._hashes.fileno()
        for places in self._places:
            values = array(_HASH)
            values.frombytes(os.pread(file, places[part + 1] - places[part], places[part]))
            yield values

    def _marked(self, marks: bytearray) -> Iterator[str]:
        """Yield the rows that may be named again, as `_Row`."""
        self._rows.seek(0)
        end = os.fstat(self._rows.fileno()).st_size
        while self._rows.tell() < end:
            source, positions, lines, text = pickle.load(self._rows)  # noqa: S301  # our own file
            values = text.split("\n")
            count = len(positions)
            codes = values[:count]
            is_marked = [marks[_mark(value)] for value in map(hash, codes)]
            if any(is_marked):
                users, names = values[count : 2 * count], values[2 * count :]
                places = map(f"{{:0{_DIGITS}}}".format, positions)
                rows = zip(
                    codes, users, places, repeat(str(source)), map(str, lines), names, strict=False
                )
                yield from map("\0".join, compress(rows, is_marked))


def _mark(value: int) -> int:
    return value >> (64 - _MARK_BITS) & (1 << _MARK_BITS) - 1


def _uncounted(rows: _Sorted, policy: Policy) -> Iterator[str]:
    """Yield the rows that do not count, as `_repeat` takes them: their position comes first.

    *rows* are read twice side by side, as those of one device may be too many to hold.
    """
    users = groupby(map(_row, rows), key=itemgetter(0, 1))
    for device in _devices(rows, policy):
        is_contested = device.low.user != device.high.user
        user = None
        while user != device.high.user:
            (_, user), own = next(users)
            first = winner = next(own)
            if is_contested and policy.on_conflict != "error":
                winner = device.first if policy.on_conflict == "first" else device.latest
            if is_contested and policy.on_conflict == "error":
                other = device.high if user == device.low.user else device.low
                yield _text(first, "", other, "", winner)
            elif winner != first:
                yield _text(first, "", winner, "", winner)
            for row in own:
                other_name = "" if row.name == first.name else first.name
                yield _text(row, "again", first, other_name, winner)


def _devices(rows: Iterable[str], policy: Policy) -> Iterator[_Device]:
    for _, of_code in groupby(map(_row, rows), key=itemgetter(0)):
        device = None
        last = ""
        for _, own in groupby(of_code, key=itemgetter(1)):
            first = next(own)
            [final] = deque(own, maxlen=1) or [first]  # noqa: B031  # the others of the same group
            until = first.position if policy.on_duplicate == "error" else final.position
            if device is None:
                device = _Device(first, first, first, first)
            else:
                device = _Device(
                    device.low,
                    first,
                    first if first.position < device.first.position else device.first,
                    first if until > last else device.latest,
                )
            last = max(last, until)
        assert device is not None  # no group is empty
        yield device


def _row(text: str) -> _Row:
    return _Row(*text.split("\0"))


def _text(row: _Row, again: str, other: _Row, other_name: str, counts: _Row) -> str:
    return "\0".join(
        (
            *(row.position, row.source, row.line, row.code, again),
            *(other.source, other.line, other.user, other_name, counts.position),
        )
    )


def _repeat(text: str, names: Sequence[str], policy: Policy) -> Repeat:
    """Return what `_text` told."""
    position, source, line, code, again, *other, user, name, counts = text.split("\0")
    place = f"{names[int(other[0])]}:{other[1]}"
    if again:
        problem = duplicate(code, place, name)
        is_invalid = policy.on_duplicate == "error"
    else:
        problem = conflict(code, place, user)
        is_invalid = policy.on_conflict == "error"
    return Repeat(int(position), int(source), int(line), problem, is_invalid, int(counts))


class _Sorted:
    """Sorts any number of texts without line breaks; then it may be read several times at once.

    A number of them is held in memory, and the others are sorted by so many in a temporary file.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._file = _temporary(self)
        self._places = [0]
        """Where the sorted parts of the file begin and end."""
        left = iter(texts)
        while len(some := sorted(islice(left, _SORTED))) == _SORTED:
            self._file.write("\n".join((*some, "")).encode())
            self._file.flush()
            self._places.append(self._file.tell())
        self._held = some

    def __iter__(self) -> Iterator[str]:
        return heapq.merge(*(self._part(*ends) for ends in pairwise(self._places)), self._held)

    def _part(self, at: int, end: int) -> Iterator[str]:
        rest = ""
        while at < end:
            data = os.pread(self._file.fileno(), min(_READ, end - at), at)
            at += len(data)
            *texts, rest = (rest + data.decode("ascii")).split("\n")
            yield from texts


def _temporary(owner: object) -> IO[bytes]:
    """Return a private file without a name, which is closed once nobody uses its owner any more."""
    with _on_disk():
        file = tempfile.TemporaryFile()  # noqa: SIM115  # the owner may be read in another thread
    weakref.finalize(owner, file.close)
    return file


@contextmanager
def _on_disk() -> Iterator[None]:
    """Translate the errors of temporary files. Raises: LedgerError."""
    try:
        yield
    except OSError as error:
        raise LedgerError(
            f"the devices seen cannot be kept: {error.strerror or error}",
            hint="free the disk of the temporary folder, or set TMPDIR to another one",
        ) from error
