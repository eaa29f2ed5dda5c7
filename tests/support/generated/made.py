"""Manifests of known meaning: what a generator makes, and what must come of it."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from bulkbind.errors import BulkbindError
from bulkbind.manifest import open_manifest
from bulkbind.model import ResultRow
from bulkbind.model.fields import OPTIONAL
from bulkbind.report.tables import write_failed
from bulkbind.settings import ManifestSettings

if TYPE_CHECKING:
    from pathlib import Path

    from bulkbind.manifest import Manifest
    from bulkbind.model import CheckedRow

Values = tuple[str | None, ...]
FALLBACK = "fallback_user"


class Right(NamedTuple):
    """What must come of one device.

    Attributes:
        values: user_id, machine_code, device_name, device_os; None: it must be a problem.
        is_open: It may be a problem as well, as what looks like a spreadsheet's number.
        written: Pieces of the operator's text that must come back, in their order.
    """

    values: Values | None
    written: tuple[str, ...] = ()
    is_open: bool = False


class Made(NamedTuple):
    """A file and what must come of it; *rows*: None if it must be refused."""

    name: str
    content: bytes
    settings: dict[str, Any]
    rows: list[Right] | None
    shape: str


def differences(made: Made, folder: Path) -> list[str]:
    """Return what is wrong with the reading of a file, and with what comes back of it."""
    path = folder / made.name
    path.write_bytes(made.content)
    settings = ManifestSettings(**made.settings)
    try:
        manifest = open_manifest(path, settings, made.name)
        rows = list(manifest.rows())
    except BulkbindError as error:
        return [] if made.rows is None else [f"loud: refused: {error}"]
    if made.rows is None:
        return ["silent: not refused"] if any(row.device for row in rows) else []
    if len(rows) != len(made.rows):
        wanted = Counter(right.values for right in made.rows)
        is_loud = Counter(row.values for row in rows if row.device) <= wanted
        return [f"{'loud' if is_loud else 'silent'}: {len(rows)} rows for {len(made.rows)}"]
    found = [
        f"{what} in row {at}: {row.values} {[p.text for p in row.problems]}"
        for at, (row, right) in enumerate(zip(rows, made.rows, strict=True), start=1)
        if (what := _difference(row, right))
    ]
    return found + _way_back(manifest, rows, made, folder)


def _difference(row: CheckedRow, right: Right) -> str:
    if row.device is None:
        return "" if right.values is None or right.is_open else "loud: a problem"
    if right.values is None:
        return "silent: no problem"
    return "" if row.values == right.values else f"silent: not {right.values}"


def _way_back(manifest: Manifest, rows: list[CheckedRow], made: Made, folder: Path) -> list[str]:
    assert made.rows is not None
    came, text = returned(manifest, rows, ManifestSettings(**made.settings), folder)
    found = []
    says = _device if manifest.source.format == "xlsx" else meaning  # of which CSV comes back
    if [says(row) for row in came] != [says(row) for row in rows]:
        found.append(f"back: other rows: {[says(row) for row in came]}")
    is_yaml = manifest.source.format == "yaml"  # of which lines may come back indented anew
    text = _without_indents(text) if is_yaml else text
    at = 0
    for right in made.rows:
        for written in right.written:
            piece = _without_indents(written) if is_yaml else written
            place = text.find(piece, at)
            if place < 0:
                found.append(f"back: lost {piece!r}")
            else:
                at = place + len(piece)
    return found


def _device(row: CheckedRow) -> Values | None:
    return row.values if row.device else None


def _without_indents(text: str) -> str:
    return re.sub("\n[ \n]*", "\n", text).strip("\n")


def returned(
    manifest: Manifest, rows: list[CheckedRow], settings: ManifestSettings, folder: Path
) -> tuple[list[CheckedRow], str]:
    """Return the rows that the failed file of all *rows* holds, and its text."""
    failed = [failed_row(row) for row in rows]
    [path] = write_failed(folder / "report", failed, [manifest.source])
    again = open_manifest(path, settings, path.name)
    text = path.read_bytes().decode(manifest.source.encoding, "surrogateescape")
    return list(again.rows()), text


def meaning(row: CheckedRow) -> tuple[Values, list[tuple[str, str, str, str]]]:
    """Return what a row says, without its place."""
    return row.values, [
        (p.field, p.column, p.rule, re.sub(r"line \d+", "line", p.found)) for p in row.problems
    ]


def failed_row(row: CheckedRow) -> ResultRow:
    """Return a row as the ledger gives it to a report."""
    cells = json.dumps(row.text or row.cells)
    status = "failed" if row.device else "invalid"
    absent = ("",) * len(OPTIONAL)
    # Of a table, the reader looks at the reason; of others a short one is easier to compare.
    problems = row.problems if isinstance(row.cells, list) else ()
    return ResultRow(
        0, row.line, "", "", absent, status, "", "", None, "", "", 0, "", "", "why", problems, cells
    )
