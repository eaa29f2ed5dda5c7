"""Manifests for tests: written as files, opened, and outlined."""

from __future__ import annotations

import csv
import zipfile
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from bulkbind.manifest import batches_of, open_manifest
from bulkbind.model import GoodRows
from bulkbind.settings import ManifestSettings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bulkbind.manifest import Manifest
    from bulkbind.model import CheckedRow


def write_csv(path: Path, rows, header=("machine_code", "user_id", "device_name", "device_os")):
    """Write a manifest and return its path."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(header)
        table.writerows(rows)
    return path


def rows_together(manifest: Manifest) -> Iterator[CheckedRow | GoodRows]:
    """Yield the rows of a manifest as a run stages them: many at once where they are good."""
    for part in batches_of(manifest):
        yield from (part,) if isinstance(part, GoodRows) else part


class RawCell(str):
    """The XML of a cell, which `write_xlsx` takes as it is."""

    __slots__ = ()


def error_cell(text: str, formula: str = "1/0") -> RawCell:
    """Return a cell whose formula ended in an error, as programs save it."""
    return RawCell(f'<c t="e"><f>{formula}</f><v>{text}</v></c>')


def write_xlsx(path: Path, *sheets: tuple[str, list[list[object]]], extra: str = "") -> Path:
    """Write a workbook by hand, each sheet as (name, rows), and return its path.

    *extra* stands in front of each sheet's XML.
    """

    def cell(value: object) -> str:
        if isinstance(value, RawCell):
            return value
        if isinstance(value, bool):
            return f'<c t="b"><v>{int(value)}</v></c>'
        if isinstance(value, int | float):
            return f"<c><v>{value!r}</v></c>"
        if value is None:
            return "<c/>"
        return f'<c t="inlineStr"><is><t xml:space="preserve">{escape(str(value))}</t></is></c>'

    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    rel = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    numbers = range(1, len(sheets) + 1)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as book:
        book.writestr(
            "[Content_Types].xml",
            f'<Types xmlns="{package}/content-types"><Default Extension="xml" '
            'ContentType="application/xml"/></Types>',
        )
        book.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{package}/relationships"><Relationship Id="r" '
            f'Type="{rel}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        )
        names = "".join(
            f'<sheet name="{escape(name)}" sheetId="{n}" r:id="r{n}"/>'
            for n, (name, _) in zip(numbers, sheets, strict=True)
        )
        book.writestr(
            "xl/workbook.xml",
            f'<workbook xmlns="{main}" xmlns:r="{rel}"><sheets>{names}</sheets></workbook>',
        )
        targets = "".join(
            f'<Relationship Id="r{n}" Type="{rel}/worksheet" Target="worksheets/sheet{n}.xml"/>'
            for n in numbers
        )
        book.writestr(
            "xl/_rels/workbook.xml.rels",
            f'<Relationships xmlns="{package}/relationships">{targets}</Relationships>',
        )
        for n, (_, rows) in zip(numbers, sheets, strict=True):
            data = "".join(f"<row>{''.join(map(cell, row))}</row>" for row in rows)
            book.writestr(
                f"xl/worksheets/sheet{n}.xml",
                f'{extra}<worksheet xmlns="{main}"><sheetData>{data}</sheetData></worksheet>',
            )
    return path


def opener(path: Path):
    """Return a function that opens, as a manifest, what it writes into *path*."""

    def opened(content, **given):
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return open_manifest(path, ManifestSettings(**given), path.name)

    return opened


def outline(rows):
    """Return of every row its line and its machine code, None where it is no device."""
    return [(row.line, row.device.machine_code if row.device else None) for row in rows]


def fleet(rows: int, users: int = 5) -> list[tuple[str, str, str, str]]:
    """Return as many valid rows."""
    return [
        (f"SN{number:06d}", f"user_{number % users}", f"Van {number}", "Android 15")
        for number in range(rows)
    ]
