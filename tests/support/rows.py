"""Rows with a name and an OS, and with no value of whatever other optional fields there are."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from bulkbind.manifest.duplicates import Policy, Seen
from bulkbind.model import Device
from bulkbind.model.fields import FIELDS
from bulkbind.report.tables import _cells_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from bulkbind.model import CheckedRow, Repeat, ResultRow, Source
    from bulkbind.model.fields import Values


def values(
    user: str | None, code: str | None, name: str | None = None, system: str | None = None
) -> Values:
    """Return the values of a row, in the order of the fields."""
    given = {"user_id": user, "machine_code": code, "device_name": name, "device_os": system}
    return tuple(given.get(field) for field in FIELDS)


def device(user: str, code: str, name: str | None = None, system: str | None = None) -> Device:
    """Return a device."""
    return Device(user, code, values(user, code, name, system)[2:])


def repeats_of(rows: Sequence[CheckedRow], on_duplicate: str, on_conflict: str) -> Iterator[Repeat]:
    """Yield those rows of a manifest that repeat a device and do not count."""
    seen = Seen()
    seen.add(0, 0, rows)
    return seen.repeats(["fleet.csv"], Policy(on_duplicate, on_conflict))


AT_ONCE = 2


class ShownRows:
    """A run's `rows`, as `results.csv` shows them."""

    rows: Callable[[], Iterable[ResultRow]]
    sources: Callable[[], Sequence[Source]]

    def lines(self):
        names = [source.name for source in self.sources()]
        numbered = iter(self._numbered())
        while some := list(islice(numbered, AT_ONCE)):
            lines = [",".join(map(str, (names[source], *shown))) for _, source, *shown, _ in some]
            yield some[0][0], some[-1][0], len(some), "\r\n".join(lines)

    def cells(self, first, last):
        return islice(self._numbered(), first, last + 1)

    def _numbered(self):
        return ((number, *_cells_of(row)) for number, row in enumerate(self.rows()))
