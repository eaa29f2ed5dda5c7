"""Rows of CSV come back as they were written, and mean the same when they are read again."""

from __future__ import annotations

from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings, strategies as st

from bulkbind.manifest import open_manifest
from bulkbind.report.tables import write_failed
from bulkbind.settings import ManifestSettings
from tests.support.generated.csv_files import csv_file
from tests.support.generated.made import differences, failed_row, meaning

OWN = ",bulkbind_status,bulkbind_reason"


def back(folder: Path, path: Path, **given):
    """Return the rows of a manifest, and the file in which they all come back."""
    manifest = open_manifest(path, ManifestSettings(**given), path.name)
    rows = list(manifest.rows())
    [failed] = write_failed(folder, map(failed_row, rows), [manifest.source])
    return rows, failed


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
@example(187007)  # damaged rows of which a line break would make two
def test_files_of_known_meaning_are_read_right_and_come_back(seed):
    """Whatever the dialect, encoding, line ends and damage: no device is not what was written."""
    made = csv_file(Random(seed))
    with TemporaryDirectory() as folder:
        wrong = differences(made, Path(folder))

    assert [each for each in wrong if not each.startswith("loud")] == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("own", ["", "'"], ids=["double", "single"])
def test_text_comes_back_letter_by_letter(tmp_path, ending, encoding, own):
    """Title, header and rows are the operator's own, with status and reason behind them."""
    quote = own or '"'
    lines = [
        "Fleet of 2026",
        "",
        f"{quote}machine_code{quote};user_id; {quote}Bemerkung{quote}",
        f"{quote}A-1{quote};u; {quote}x; y{quote}",
        f"A2;{quote}u{quote};{quote}{quote}",
        f"{quote}A{quote}3;u;",
        f"A4;u;{quote}a{ending}b {quote}{quote}c{quote}{quote}{quote}",
        "A5;u; 1,50 ",
    ]
    path = tmp_path / "fleet.csv"
    path.write_bytes((ending.join(lines) + ending).encode(encoding))
    _, failed = back(tmp_path, path)
    text = failed.read_bytes().decode(encoding)

    begins = ending.join(lines[:3])
    assert text.startswith(f"{begins};{own}bulkbind_status{own};{own}bulkbind_reason{own}{ending}")
    for line in lines[3:]:
        assert f"{ending}{line};{own}" in text
    assert text.endswith(ending)
    if ending != "\n":
        assert text.count("\n") == text.count(ending) * ending.count("\n")


@pytest.mark.parametrize(
    ("content", "given"),
    [
        pytest.param("site,machine_code,os\nBerlin A1,linux\nBerlin,A2,linux\n", {}, id="short"),
        pytest.param("site,machine_code,n\nB, M,A1,\nB,A2,x\nB,A3,\n", {}, id="long"),
        pytest.param("site,machine_code\nB,A1,\nB,A2,\nB A3,\nB,A4,\nB,A5,\n", {}, id="accident"),
        pytest.param("machine_code,device_name\nA1,\nA2\n", {}, id="one short row"),
        pytest.param("machine_code,device_name,n\nA1\nA2,x\n", {}, id="cut off"),
        pytest.param("machine_code,n\nA1,x,\nA-2,y,\n", {}, id="delimiter at the end"),
        pytest.param("machine_code,n,\nA1,x\nA-2,y\n", {}, id="delimiter behind the header"),
        pytest.param("machine_code,n\n\"A1\"x,y\nA2,'q'\n", {}, id="unreadable"),
        pytest.param('machine_code,n\n"A,u\n"B",u\nA2,x\n', {}, id="unreadable over lines"),
        pytest.param('machine_code,n\n"A\\"1",y\nA-2,"C:\\\\x"\n', {}, id="escapes"),
        pytest.param("machine_code,n,os\n'A-1',x,y\nA2,'a, b',z\n", {}, id="single quotes"),
        pytest.param("A1,x,linux\nA2,linux\n", {"header": ("machine_code", "n", "device_os")},
                     id="short, without header"),
        pytest.param("A1,x,y,linux\nA2,y\n", {"header": ("machine_code", "n", "o", "device_os")},
                     id="short by two, without header"),
        pytest.param("B, M,A1,\nB,A2,x\n", {"header": ("site", "machine_code", "n")},
                     id="long, without header"),
        pytest.param("A1,x,\nA-2,y,\n", {"header": ("machine_code", "n")},
                     id="delimiter at the end, without header"),
        pytest.param("A1\nA-2\n", {"header": ("machine_code", "n", "o")},
                     id="cut off, without header"),
        pytest.param(" machine_code | n \n-----+---\n A-1 | x\n A2 | y\n(2 rows)\n", {}, id="psql"),
        pytest.param("+--+--+\n| machine_code | n |\n+---+--+\n| A-1 | x |\n", {}, id="mysql"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("alone", [False, True], ids=["all rows", "problems alone"])
def test_problems_stay_what_they_were(tmp_path, content, given, alone):
    """Also in a file that holds nothing but them: what told them apart is gone there."""
    path = tmp_path / "fleet.csv"
    path.write_text(content, encoding="utf-8")
    reading = ManifestSettings(user_id="u", **given)
    for _ in range(3):
        manifest = open_manifest(path, reading, "fleet.csv")
        rows = [row for row in manifest.rows() if not alone or row.problems]
        [path] = write_failed(tmp_path, map(failed_row, rows), [manifest.source])
        again = list(open_manifest(path, reading, "fleet.csv").rows())

        assert [meaning(row) for row in again] == [meaning(row) for row in rows]
        assert [row.problems for row in again] == [row.problems for row in rows]


def test_mended_row_of_a_failed_file_is_read(tmp_path):
    """Once the cell is put in quotes, the row is a device, whatever the report said of it."""
    path = tmp_path / "fleet.csv"
    path.write_text("site,machine_code\nBerlin, Mitte,A1\nBonn,A2\n", encoding="utf-8")
    _, failed = back(tmp_path, path, user_id="u")
    text = failed.read_text(encoding="utf-8")
    assert text.startswith(f"site,machine_code{OWN}\nBerlin, Mitte,A1,invalid,")
    failed.write_text(text.replace("Berlin, Mitte", '"Berlin, Mitte"', 1), encoding="utf-8")

    rows = open_manifest(failed, ManifestSettings(user_id="u")).rows()
    assert [row.device and row.device.machine_code for row in rows] == ["A1", "A2"]
