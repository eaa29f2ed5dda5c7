"""What no program writes: refused or read, in a time that grows with its size alone."""

from __future__ import annotations

import struct
import subprocess
import sys
import time
import zipfile
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from bulkbind.errors import ManifestError
from bulkbind.manifest import open_manifest, sheet_xml
from bulkbind.settings import ManifestSettings
from tests.support.workbooks import Book, Page, merged, row, table, text

MIB = 1 << 20
SIZE = 2 * MIB
MOST_S_A_MIB = 3.0
"""Far more than is promised, as the machines that run tests are busy: minutes are the fault."""
HEADER = row(text("machine_code"), text("user_id"))


def filled(piece):
    """Return a piece so often that it has some MiB."""
    return piece * (SIZE // len(piece) + 1)


def rows_of(piece, of=100_000):
    """Return rows filled with a piece."""
    inner = piece * (of // len(piece))
    return f"<row>{inner}</row>" * (SIZE // len(inner) + 1)


def read(path):
    """Read a workbook to its end, or until it is refused; return the seconds of CPU a MiB."""
    with zipfile.ZipFile(path) as archive:
        size = sum(part.file_size for part in archive.infolist())
    begun = time.process_time()
    try:
        for _ in open_manifest(path, ManifestSettings(user_id="u"), "f.xlsx").rows():
            pass
    except ManifestError as error:
        assert "f.xlsx" in str(error)  # noqa: PT017  # it may as well be read
    return (time.process_time() - begun) / (size / MIB)


def text_row(content):
    """Return the XML of a row with a text in XML."""
    return f'<row><c t="inlineStr"><is>{content}</is></c></row>'


HOSTILE = {
    "cells never closed": lambda: filled("<c "),
    "blank cells": lambda: f"<row>{filled('<c/>')}</row>",
    "blank rows": lambda: filled("<row/>"),
    "rows without cells": lambda: filled("<row></row>"),
    "rows of a blank cell": lambda: filled("<row><c/></row>"),
    "unknown tags": lambda: filled("<x/>"),
    "brackets": lambda: filled("<"),
    "blanks": lambda: " " * SIZE,
    "attributes": lambda: "<row " + filled('a="b" ') + ">",
    "row never closed": lambda: "<row>" + filled("<c><v>1</v></c>"),
    "error cells": lambda: rows_of('<c t="e"/>'),
    "formulas": lambda: rows_of("<c><f/></c>"),
    "entities": lambda: text_row(f"<t>{'&lt;' * 25_000}</t>") * 20,
    "runs": lambda: text_row("<r><t>a</t></r>" * 6_000) * 20,
    "readings never closed": lambda: text_row("<rPh>" * 20_000) * 20,
    "comments": lambda: filled("<!---->"),
    "comment never closed": lambda: "<!--" + filled("<!-"),
    "instructions": lambda: filled("<??>"),
    "text never closed": lambda: "<![CDATA[" + filled("<"),
    "quotes": lambda: "<row><c " + filled('"') + "></c></row>",
    "long names": lambda: "<row><" + filled("a:") + "></row>",
}


@pytest.mark.parametrize(
    "areas",
    [
        [f"{sheet_xml.letters(at)}1:{sheet_xml.letters(at)}1000000" for at in range(2, 16384)],
        [f"B{n + 2}:B{1_000_000 - n}" for n in range(9_000)],
        [f"B{n + 2}:XFD{n + 3}" for n in range(480)],
    ],
    ids=["side by side", "one in the other", "wide"],
)
def test_merged_ranges_cost_no_more_for_each_row(tmp_path, areas):
    """They may cover a million rows, of which each would be looked at with every range."""
    rows = "".join(row(text(f"A{n}")) for n in range(500))
    path = Book([Page(HEADER + rows, after=merged(*areas))]).write(tmp_path / "f.xlsx")
    begun = time.process_time()
    read(path)

    assert time.process_time() - begun < MOST_S_A_MIB  # the parts have less than a MiB


@pytest.mark.slow
@pytest.mark.parametrize("form", HOSTILE)
def test_time_grows_with_the_size_alone(tmp_path, form):
    """Whatever stands among the rows, before or after them."""
    part = HOSTILE[form]()
    for page in (Page(HEADER + part), Page(HEADER, before=part), Page(HEADER, after=part)):
        assert read(Book([page]).write(tmp_path / "f.xlsx")) < MOST_S_A_MIB


@pytest.mark.slow
@pytest.mark.parametrize(
    "inner",
    ["<si/>", "<si><t>a</t></si>", "<si>", "<si><r/></si>", "<rPh>", "<si><rPh>", "</si>", "<t>"],
)
def test_time_of_shared_strings_grows_with_their_size(tmp_path, inner):
    """Closed or not."""
    parts: dict[str, str | bytes] = {"xl/sharedStrings.xml": f"<sst>{filled(inner)}</sst>"}
    cell = row('<c t="s"><v>0</v></c>')

    assert read(Book([Page(HEADER + cell)], more=parts).write(tmp_path / "f.xlsx")) < MOST_S_A_MIB


@pytest.mark.slow
@pytest.mark.parametrize(
    "inner", ['<numFmt numFmtId="9" formatCode="0"/>', "<cellXfs>", "<xf/>", "<"]
)
@pytest.mark.parametrize("part", ["xl/styles.xml", "xl/workbook.xml", "_rels/.rels"])
def test_time_of_lists_grows_with_their_size(tmp_path, part, inner):
    """Of formats, sheets and parts."""
    more: dict[str, str | bytes] = {part: f"<x>{filled(inner)}</x>"}

    assert read(Book([Page(HEADER)], more=more).write(tmp_path / "f.xlsx")) < MOST_S_A_MIB


@pytest.mark.parametrize("areas", [["A1:XFD2"] * 3, [f"A{n}:XFD{n + 9}" for n in range(1, 3000)]])
def test_merges_of_everything_end(tmp_path, areas):
    """Each of them covers 16,384 columns."""
    begun = time.process_time()
    book = Book([Page(table(*[["A", "u"]] * 3000), after=merged(*areas))])
    with pytest.raises(ManifestError, match="spans the columns"):
        open_manifest(book.write(tmp_path / "f.xlsx"), ManifestSettings(user_id="u"))

    assert time.process_time() - begun < 10


cell_xml = st.sampled_from(
    ['<row r="1">', "<row>", "</row>", "<row/>", '<c r="A1" t="e"><f>1/0</f><v>#N/A</v></c>',
     '<c t="e"/>', '<c r="B1"><v>1</v></c>', "<c/>", "<c><v>2</v></c>", "<!-- x -->", "\n ",
     "<row><c><v>3</v></c></row>", "<![CDATA[<]]>", '<row r="9"><c r="B9"><v>4</v></c></row>']
)  # fmt: skip


class Blocks:
    """A file that is read in pieces of some sizes."""

    def __init__(self, pieces):
        self._pieces = iter(pieces)

    def read(self, _):
        return next((piece for piece in self._pieces if piece), b"")


def outcome(pieces):
    """Return the rows of a sheet, or the error."""
    plain = sheet_xml.Plain((), ())
    try:
        part = sheet_xml.blocks(Blocks(pieces))
        return list(sheet_xml.rows(part, lambda *cell: (repr(cell), ""), plain))
    except ValueError as error:
        return str(error)


@settings(max_examples=100, deadline=None)
@given(parts=st.lists(cell_xml, max_size=12), cuts=st.lists(st.integers(0, 500), max_size=12))
def test_rows_are_the_same_however_blocks_cut_them(parts, cuts):
    """A row that ends in another block than it began is the same row."""
    data = f"<worksheet><sheetData>{''.join(parts)}</sheetData></worksheet>".encode()
    places = [0, *sorted(cuts), len(data)]

    assert outcome([data[a:b] for a, b in pairwise(places)]) == outcome([data])


# --- archives ------------------------------------------------------------------------------------


@pytest.fixture
def good(tmp_path):
    """Return the path of a good workbook."""
    return Book([Page(table(["A", "u"]))]).write(tmp_path / "f.xlsx")


def test_more_parts_than_any_workbook_has_are_refused(good):
    """Their list alone would take all memory."""
    with zipfile.ZipFile(good, "a") as archive:
        for number in range(20):
            archive.writestr(f"{number}" + "x" * 60_000, "")
        data = b"".join(b"PK\1\2" + bytes(42) for _ in range(10))
    packed = good.read_bytes()
    end = packed.rfind(b"PK\5\6")
    size = struct.pack("<L", 5 << 20)
    good.write_bytes(packed[: end + 12] + size + packed[end + 16 :] + data)
    with pytest.raises(ManifestError, match="more parts than any workbook"):
        open_manifest(good, ManifestSettings())


def test_part_that_stands_twice_is_refused(good):
    """Programs differ in which one they read."""
    with zipfile.ZipFile(good, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("xl/worksheets/sheet1.xml", "x")
    archive.close()
    with pytest.raises(ManifestError, match="stands twice"):
        open_manifest(good, ManifestSettings())


@pytest.mark.parametrize("change", [-1, 1, 100_000])
def test_part_of_another_size_than_it_says_is_refused(good, change):
    """It is cut, or goes on."""
    with zipfile.ZipFile(good) as archive:
        part = archive.getinfo("xl/worksheets/sheet1.xml")
    packed = bytearray(good.read_bytes())
    at = packed.rfind(b"xl/worksheets/sheet1.xml") - 46 + 24
    packed[at : at + 4] = struct.pack("<L", part.file_size + change)
    good.write_bytes(packed)
    with pytest.raises(ManifestError, match="cannot be read"):
        list(open_manifest(good, ManifestSettings()).rows())


@pytest.mark.slow
def test_bomb_is_refused(tmp_path):
    """What packs better than any table."""
    book = Book([Page(" " * (65 * MIB) + HEADER)])
    with pytest.raises(ManifestError, match="more than 250 bytes come out of each packed byte"):
        open_manifest(book.write(tmp_path / "f.xlsx"), ManifestSettings())


def test_protected_part_is_named(good):
    """An archive with a password of its own."""
    packed = bytearray(good.read_bytes())
    at = packed.find(b"PK\1\2")
    packed[at + 8] |= 1
    good.write_bytes(packed)
    with pytest.raises(ManifestError, match="is protected by a password"):
        open_manifest(good, ManifestSettings())


# --- memory --------------------------------------------------------------------------------------

PEAK = """
import sys
from pathlib import Path
from bulkbind.errors import ManifestError
from bulkbind.manifest import open_manifest
from bulkbind.settings import ManifestSettings
try:
    print(sum(1 for _ in open_manifest(Path(sys.argv[1]), ManifestSettings(user_id="u")).rows()))
except ManifestError as error:
    print(error)
[peak] = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(int(peak.split()[1]) // 1024)
"""


def peak(path):
    """Return what a process that reads a workbook prints, and its peak of memory in MiB."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, path], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[3],
    )  # fmt: skip
    told, mib = done.stdout.splitlines()
    return told, int(mib)


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")


@pytest.mark.slow
@needs_proc
def test_many_rows_take_little_memory(tmp_path):
    """200,000 rows of six texts, each of them another one."""
    count = 200_000
    shared = [f"<t>T{n:010d}</t>" for n in range(6 * count)]
    data = "".join(
        row(*(f'<c t="s"><v>{6 * n + at + 6}</v></c>' for at in range(6))) for n in range(count)
    )
    header = ["machine_code", "user_id", "device_name", "a", "b", "c"]
    shared[:0] = [f"<t>{name}</t>" for name in header]
    head = row(*(f'<c t="s"><v>{at}</v></c>' for at in range(6)))
    told, mib = peak(Book([Page(head + data)], shared).write(tmp_path / "f.xlsx"))

    assert told == str(count)
    assert mib < 150


@pytest.mark.slow
@needs_proc
def test_more_shared_strings_than_memory_allows_are_refused(tmp_path):
    """A small file may hold any number of them."""
    part = "<sst>" + "<si><t>ab</t></si>" * 12_000_000 + "</sst>"
    book = Book([Page(HEADER + row('<c t="s"><v>1</v></c>'))], more={"xl/sharedStrings.xml": part})
    path = book.write(tmp_path / "f.xlsx")
    told, mib = peak(path)

    assert "the texts of its cells take more than 48 MiB" in told or "come out of each" in told
    assert mib < 150
