"""Workbooks written part by part, so that every form that programs use can be made."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_TRANSITIONAL = (
    "http://schemas.openxmlformats.org/spreadsheetml/2006/main",
    "http://schemas.openxmlformats.org/officeDocument/2006/relationships",
)
_STRICT = (
    "http://purl.oclc.org/ooxml/spreadsheetml/main",
    "http://purl.oclc.org/ooxml/officeDocument/relationships",
)
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
USUAL: list[object] = ["machine_code", "user_id", "device_name", "device_os"]


@dataclass
class Page:
    """One sheet, as XML."""

    data: str = ""
    """What stands in `sheetData`."""
    name: str = "Devices"
    kind: str = "worksheet"
    state: str = ""
    before: str = ""
    """What stands before `sheetData`: dimension, columns."""
    after: str = ""


@dataclass
class Book:
    """A workbook."""

    pages: list[Page]
    shared: Sequence[str] = ()
    """The inner XML of each shared string."""
    formats: Sequence[str | int] = ()
    """Number formats, as codes or built-in numbers: those of the styles from 1 on."""
    from_1904: bool = False
    prefix: str = ""
    is_strict: bool = False
    more: dict[str, str | bytes] = field(default_factory=dict)
    """Other parts."""

    def write(self, path: Path) -> Path:
        """Write the file and return its path."""
        path.write_bytes(self.content())
        return path

    def content(self) -> bytes:
        """Return the bytes of the file."""
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as book:
            for name, text in self._parts().items():
                book.writestr(name, text)
        return content.getvalue()

    def _parts(self) -> dict[str, str | bytes]:
        main, rel = _STRICT if self.is_strict else _TRANSITIONAL
        numbered = list(enumerate(self.pages, start=1))
        sheets = "".join(
            f"<sheet name={quoteattr(page.name)} sheetId={quoteattr(str(n))} "
            + (f'state="{page.state}" ' if page.state else "")
            + f'r:id="r{n}"/>'
            for n, page in numbered
        )
        relations = "".join(
            f'<Relationship Id="r{n}" Type="{rel}/{page.kind}" Target="{page.kind}s/sheet{n}.xml"/>'
            for n, page in numbered
        )
        for kind in ("styles", "sharedStrings"):
            relations += f'<Relationship Id="{kind}" Type="{rel}/{kind}" Target="{kind}.xml"/>'
        parts: dict[str, str | bytes] = {
            "_rels/.rels": f'<Relationships xmlns="{_PACKAGE}/relationships"><Relationship Id="r" '
            f'Type="{rel}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
            "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{rel}"><workbookPr date1904='
            f'"{int(self.from_1904)}"/><sheets>{sheets}</sheets></workbook>',
            "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{_PACKAGE}/relationships">'
            f"{relations}</Relationships>",
            "xl/styles.xml": self._styles(main),
            "xl/sharedStrings.xml": f'<sst xmlns="{main}">'
            + "".join(f"<si>{inner}</si>" for inner in self.shared)
            + "</sst>",
        }
        for n, page in numbered:
            data = f"{page.before}<sheetData>{page.data}</sheetData>{page.after}"
            root = page.kind
            xmlns = "xmlns"
            if self.prefix:
                data = prefixed(data, self.prefix)
                root, xmlns = f"{self.prefix}:{root}", f"xmlns:{self.prefix}"
            parts[f"xl/{page.kind}s/sheet{n}.xml"] = (
                f'<?xml version="1.0" encoding="UTF-8"?>\n<{root} {xmlns}="{main}">{data}</{root}>'
            )
        return parts | self.more

    def _styles(self, main: str) -> str:
        codes = [one for one in self.formats if isinstance(one, str)]
        numbers = {code: 164 + n for n, code in enumerate(codes)}
        listed = "".join(
            f'<numFmt numFmtId="{number}" formatCode={quoteattr(code)}/>'
            for code, number in numbers.items()
        )
        styles = "".join(
            f'<xf numFmtId="{numbers[one] if isinstance(one, str) else one}"/>'
            for one in self.formats
        )
        return (
            f'<styleSheet xmlns="{main}"><numFmts>{listed}</numFmts><cellStyleXfs>'
            '<xf numFmtId="9"/></cellStyleXfs><cellXfs><xf numFmtId="0"/>'
            f"{styles}</cellXfs></styleSheet>"
        )


def prefixed(xml: str, prefix: str) -> str:
    """Return XML with a namespace prefix before each tag."""
    marked = xml.replace("<![", "\1").replace("<!", "\2").replace("</", "\0")
    marked = marked.replace("<", f"<{prefix}:").replace("\0", f"</{prefix}:")
    return marked.replace("\1", "<![").replace("\2", "<!")


def text(value: object) -> str:
    """Return the XML of a cell with a text."""
    return f'<c t="str"><v>{escape(str(value))}</v></c>'


def number(value: object, style: int = 0) -> str:
    """Return the XML of a cell with a number."""
    return f'<c s="{style}"><v>{value}</v></c>'


def row(*cells: str, at: int | None = None, more: str = "") -> str:
    """Return the XML of a row of cells in XML, which get their places if *at* is its number."""
    if at is None:
        return f"<row{more}>{''.join(cells)}</row>"
    placed = [
        cell.replace("<c", f'<c r="{chr(ord("A") + n)}{at}"', 1) for n, cell in enumerate(cells)
    ]
    return f'<row r="{at}"{more}>{"".join(placed)}</row>'


def table(*rows: Sequence[object], header: Sequence[object] = USUAL) -> str:
    """Return the XML of a header and rows; cells that begin with `<c` are XML already."""

    def cell(value: object) -> str:
        if value is None:
            return "<c/>"
        return str(value) if str(value).startswith("<c") else text(value)

    return "".join(
        row(*map(cell, cells), at=at) for at, cells in enumerate([header, *rows], start=1)
    )


def merged(*areas: str) -> str:
    """Return the XML of merged cells."""
    listed = "".join(f'<mergeCell ref="{area}"/>' for area in areas)
    return f'<mergeCells count="{len(areas)}">{listed}</mergeCells>'
