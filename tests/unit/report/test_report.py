"""Reports: complete, safe to open, in the operator's own form, and never half written."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
import stat
from dataclasses import fields, replace
from typing import Any

import pytest
import yaml

from bulkbind.errors import LedgerError
from bulkbind.files import replacing, replacing_bytes
from bulkbind.manifest import FORMATS, open_manifest
from bulkbind.model import (
    COMES_BACK,
    MEANINGS,
    OWN_COLUMNS,
    PENDING,
    Problem,
    ResultRow,
    RunFacts,
    RunState,
    RunSummary,
    Source,
    Status,
)
from bulkbind.model.fields import OPTIONAL
from bulkbind.report import as_json, as_text, write_report
from bulkbind.report.page import write_html
from bulkbind.report.tables import write_failed, write_results
from bulkbind.settings import ManifestSettings
from tests.support.manifests import write_xlsx
from tests.support.rows import ShownRows

HEADER = ("machine_code", "user_id", "Site")
CSV = Source("fleet.csv", "csv", "utf-8", bom=False, delimiter=",", header=HEADER)
COLUMNS = [
    *("source", "line", "user_id", "machine_code", "device_name", "device_os", "status"),
    *("device_id", "create_time", "http_status", "code", "message", "attempts", "trace_id"),
    *("settled_at", "detail"),
]
"""Word for word from design.md section 5."""
OWN = b"bulkbind_status,bulkbind_reason"


def breaking(field):
    """Return the one problem of a row that breaks the rule of a field."""
    return (Problem(field, field, "", f"{field}: a rule", "it is missing"),)


def result(**given):
    """Return a row of a report, bound unless said otherwise."""
    values: dict[str, Any] = {
        "source": 0,
        "line": 2,
        "user_id": "u1",
        "machine_code": "SN1",
        "device_name": "Van 1",
        "device_os": "Android 15",
        "status": Status.BOUND,
        "device_id": "1842812272691451648",
        "create_time": "2026-11-23T12:00:00.803Z",
        "http_status": 200,
        "code": "0",
        "message": "success",
        "attempts": 1,
        "trace_id": "a" * 58,
        "settled_at": "2026-11-23T12:00:01Z",
        "detail": "",
        "problems": (),
        "cells": None,
    }
    values |= given
    values["optional"] = tuple(values.pop(name, "") for name in OPTIONAL)
    return ResultRow(**(values | {"status": str(values["status"])}))  # plain, as SQLite gives it


def failed(cells, **given):
    """Return a row that comes back to the operator with its cells."""
    refused = {"status": Status.FAILED, "code": "13000301", "message": "no space", "device_id": ""}
    return result(**(refused | {"cells": json.dumps(cells)} | given))


class FakeRun(ShownRows):
    """A run whose rows stand in a list."""

    def __init__(self, sources, rows) -> None:
        self._sources = sources
        self._rows = rows

    def sources(self):
        return self._sources

    def rows(self, statuses=()):
        return (row for row in self._rows if not statuses or row.status in statuses)

    def leavers(self):
        return iter(())

    def attempts(self):
        return iter(())

    def users(self, most):
        counts: dict[str, dict[str, int]] = {}
        for row in self._rows:
            mine = counts.setdefault(row.user_id, {})
            mine[row.status] = mine.get(row.status, 0) + 1
        users = [
            {"user_id": user, "counts": found, "rows": sum(found.values())}
            for user, found in counts.items()
        ]
        return users[:most], len(users)

    def verdicts(self):
        return []

    def summary(self):
        counts: dict[str, int] = {}
        for row in self._rows:
            counts[row.status] = counts.get(row.status, 0) + 1
        names = tuple(source.name for source in self._sources)
        return RunSummary("20261123-120000-abcd", RunState.DONE, names, counts, ())


def results_of(tmp_path, *rows, sources=(CSV,)):
    """Write `results.csv` and read it back as a table."""
    write_results(tmp_path / "results.csv", rows, sources)
    text = (tmp_path / "results.csv").read_bytes().decode("utf-8")
    return list(csv.reader(io.StringIO(text, newline=""), strict=True))


def failed_of(tmp_path, *rows, source=CSV):
    """Write the rows of one CSV manifest that come back, and return the bytes, line ends alike."""
    [path] = write_failed(tmp_path, rows, [source])
    assert path == tmp_path / "failed.csv"
    return path.read_bytes().replace(b"\r\n", b"\n")


def fed_back(tmp_path, source, *rows):
    """Write the rows that come back and read them as the manifest of the next run."""
    [path] = write_failed(tmp_path, rows, [source])
    manifest = open_manifest(path, ManifestSettings())
    return manifest, list(manifest.rows())


# --- results.csv ---------------------------------------------------------------------------------


def test_results_have_the_columns_of_the_design(tmp_path):
    """`results.csv` holds one line per row, its values under the names scripts depend on."""
    header, *lines = results_of(
        tmp_path, result(), result(line=3, status=PENDING, http_status=None)
    )

    assert header == COLUMNS
    assert dict(zip(header, lines[0], strict=True)) == {
        "source": "fleet.csv",
        "line": "2",
        "user_id": "u1",
        "machine_code": "SN1",
        "device_name": "Van 1",
        "device_os": "Android 15",
        "status": "bound",
        "device_id": "1842812272691451648",
        "create_time": "2026-11-23T12:00:00.803Z",
        "http_status": "200",
        "code": "0",
        "message": "success",
        "attempts": "1",
        "trace_id": "a" * 58,
        "settled_at": "2026-11-23T12:00:01Z",
        "detail": "",
    }
    pending = dict(zip(header, lines[1], strict=True))
    assert (pending["line"], pending["status"], pending["http_status"]) == ("3", "pending", "")


def test_results_keep_the_order_of_the_rows(tmp_path):
    """Rows stand in the order in which the run gives them, each under its own source."""
    other = Source("b.yaml", "yaml", "utf-8", bom=False)
    _, *lines = results_of(
        tmp_path,
        result(line=9),
        result(line=3),
        result(source=1, line=1),
        sources=(CSV, other),
    )

    assert [line[:2] for line in lines] == [["fleet.csv", "9"], ["fleet.csv", "3"], ["b.yaml", "1"]]


def test_results_are_utf_8_without_a_mark(tmp_path):
    """`results.csv` is plain UTF-8 whatever the manifest was in."""
    utf16 = Source("fleet.csv", "csv", "utf-16-le", bom=True, header=HEADER)
    write_results(tmp_path / "results.csv", [result(message="kein Platz \u20ac")], [utf16])
    content = (tmp_path / "results.csv").read_bytes()

    assert content.startswith(b"source,line,")
    assert "kein Platz \u20ac".encode() in content


@pytest.mark.parametrize("text", ["a,b", 'a"b', "a\nb", "a\r\nb", "a\rb", ";", "'"], ids=repr)
@pytest.mark.parametrize("field", ["device_name", "message"])
def test_results_hold_any_text(tmp_path, field, text):
    """Delimiters, quotes and line breaks of any kind in a value do not break the table."""
    header, *lines = results_of(tmp_path, result(**{field: text}), result(line=3))

    assert [len(line) for line in lines] == [len(header)] * 2
    assert lines[0][header.index(field)] == text


FORMULAS = ["=1+1", "+1", "-1+1", "@SUM(1)", "\tx", "\rx", "=cmd|'/C calc'!A0"]


@pytest.mark.parametrize("text", FORMULAS, ids=repr)
@pytest.mark.parametrize("field", ["message", "detail", "code", "device_id", "create_time"])
def test_free_text_of_results_is_safe(tmp_path, field, text):
    """Words of the server and our own cannot become a formula."""
    header, line = results_of(tmp_path, result(**{field: text}))

    assert line[header.index(field)] == f"'{text}"


@pytest.mark.parametrize("field", ["user_id", "machine_code", "device_name", "device_os"])
def test_value_that_breaks_its_rule_is_safe(tmp_path, field):
    """A broken value is free text: anybody may have written it."""
    header, line = results_of(
        tmp_path, result(status=Status.INVALID, problems=breaking(field), **{field: "=1+1"})
    )

    assert line[header.index(field)] == "'=1+1"


@pytest.mark.parametrize(
    ("field", "value", "shown"),
    [
        ("user_id", "u=1+1", "u=1+1"),
        ("user_id", "=ATAN2(1,WEBSERVICE(A1))", "'=ATAN2(1,WEBSERVICE(A1))"),
        ("user_id", "=1+1", "'=1+1"),
        ("user_id", "@me", "'@me"),
        ("user_id", "+49", "'+49"),
        ("user_id", "-49", "-49"),
        ("user_id", "-49/2", "'-49/2"),
        ("device_name", "-Van-", "-Van-"),
    ],
)
def test_value_that_keeps_its_rule_is_no_formula(tmp_path, field, value, shown):
    """A value that was sent is found again under exactly this text, unless it begins a formula."""
    other = "machine_code" if field == "user_id" else "user_id"
    header, line = results_of(
        tmp_path, result(problems=breaking(other), **{field: value, other: "-x y"})
    )

    assert line[header.index(field)] == shown
    assert line[header.index(other)] == "'-x y"


def test_name_of_a_source_is_safe(tmp_path):
    """A file may be called anything."""
    source = Source("=fleet.csv", "csv", "utf-8", bom=False, header=HEADER)

    assert results_of(tmp_path, result(), sources=[source])[1][0] == "'=fleet.csv"


# --- failed.csv ----------------------------------------------------------------------------------


def test_statuses_that_come_back():
    """Rows that need a person or another try come back; duplicates and bound ones do not."""
    assert set(COMES_BACK) == {"failed", "invalid", "in_doubt", "changed", "not_ours", "pending"}


def test_failed_rows_come_back_under_the_operators_header(tmp_path):
    """Header and cells are the operator's own, then status and reason."""
    content = failed_of(
        tmp_path,
        failed([" SN1 ", "u1", "=x"]),
        failed(["A-1", "", "-"], status=Status.INVALID, code="", message="a rule", detail="-1"),
        failed(["SN3", "u1", ""], status=PENDING, code="", message=""),
    )

    assert content.decode() == (
        "machine_code,user_id,Site,bulkbind_status,bulkbind_reason\n"
        " SN1 ,u1,=x,failed,13000301 no space\n"
        "A-1,,-,invalid,a rule; -1\n"
        "SN3,u1,,pending,\n"
    )


def test_reason_of_a_failed_row_is_safe(tmp_path):
    """The reason is free text, so it cannot become a formula."""
    content = failed_of(tmp_path, failed(["A", "u", ""], code="", message="=1+1"))

    assert content.decode().endswith("A,u,,failed,'=1+1\n")


def test_row_whose_cells_are_gone_is_left_out(tmp_path):
    """Cells are kept until a row is bound; a row without any has nothing to come back."""
    content = failed_of(tmp_path, result(status=Status.FAILED, cells=None))

    assert content.decode().count("\n") == 1


@pytest.mark.parametrize(
    "delimiter", [",", ";", "\t", "|"], ids=["comma", "semicolon", "tab", "pipe"]
)
@pytest.mark.parametrize(
    ("encoding", "mark"),
    [
        ("utf-8", b""),
        ("utf-8", codecs.BOM_UTF8),
        ("utf-16-le", b""),
        ("utf-16-le", codecs.BOM_UTF16_LE),
        ("utf-16-be", codecs.BOM_UTF16_BE),
    ],
)
def test_failed_rows_are_in_the_manifests_own_form(tmp_path, delimiter, encoding, mark):
    """Encoding, byte order mark and delimiter are those of the manifest."""
    source = Source("f", "csv", encoding, bool(mark), delimiter, ("Ger\u00e4t", "Nutzer"))
    content = failed_of(tmp_path, failed(["\u20ac,;|", "a b"]), source=source)

    assert content.startswith(mark)
    text = content.removeprefix(mark).decode(encoding)
    assert list(csv.reader(io.StringIO(text), delimiter=delimiter)) == [
        ["Ger\u00e4t", "Nutzer", "bulkbind_status", "bulkbind_reason"],
        ["\u20ac,;|", "a b", "failed", "13000301 no space"],
    ]


def test_undecodable_bytes_come_back_as_they_were(tmp_path):
    """Bytes that are not UTF-8, in header or cells, are written as they were read."""
    header = ("machine_code", "user_id", "Ger\udce4t")
    source = Source("fleet.csv", "csv", "utf-8", bom=False, header=header)
    content = failed_of(tmp_path, failed(["B\udce9", "u", "\udcff"]), source=source)

    assert content == (
        b"machine_code,user_id,Ger\xe4t,bulkbind_status,bulkbind_reason\n"
        b"B\xe9,u,\xff,failed,13000301 no space\n"
    )


def test_old_status_and_reason_are_dropped(tmp_path):
    """What an earlier report added is replaced, wherever it stands."""
    header = ("bulkbind_reason", "machine_code", " bulkbind_status ", "user_id")
    source = Source("failed.csv", "csv", "utf-8", bom=False, header=header)
    content = failed_of(tmp_path, failed(["old", "A", "old", "u"]), source=source)

    assert content.decode() == (
        "machine_code,user_id,bulkbind_status,bulkbind_reason\nA,u,failed,13000301 no space\n"
    )


def test_short_row_keeps_status_and_reason_in_their_columns(tmp_path):
    """A row with fewer cells than the header is filled up."""
    content = failed_of(tmp_path, failed(["A"], status=Status.INVALID))

    assert content.decode().splitlines()[1] == "A,,,invalid,13000301 no space"


def test_no_failed_row_leaves_the_header_alone(tmp_path):
    """The file is written without rows as well, so that an older one does not stay."""
    (tmp_path / "failed.csv").write_text("old", encoding="utf-8")

    assert failed_of(tmp_path).decode() == f"{','.join([*HEADER, *OWN_COLUMNS])}\n"


MANIFESTS = {
    "plain": b"machine_code,user_id,Site\nA,u,x\nB-1,u,y\n",
    "blanks around": b"machine_code;user_id\n  A ;u\n\xc2\xa0B;u \n",
    "quotes and line breaks": b'machine_code,user_id,Site\nA,u,"x\ny ""z"""\nB,u,"a\rb"\n',
    "lone carriage return": b'machine_code,user_id,device_name\nA,u,"a\rb"\n',
    "undecodable bytes": b"machine_code,user_id,Site\nA,u,\xe9\nB\xff,u,\n",
    "UTF-8 with BOM": codecs.BOM_UTF8 + b"machine_code\tuser_id\nA\tu\n",
    "UTF-16 with BOM": codecs.BOM_UTF16_BE + "machine_code|user_id\nA|u\n".encode("utf-16-be"),
    "UTF-16": "machine_code,user_id\nA,u\n".encode("utf-16-le"),
    "short rows": b"machine_code,user_id,Site,device_os\nA,u\nB\n",
    "trailing delimiters": b"machine_code,user_id\nA,u,\nB,u,,\n",
    "too many cells": b"machine_code,user_id\nA,u,x\nB,u,x,y\n",
    "own columns": b"machine_code,user_id," + OWN + b"\nA,u,failed,no\n",
    "own columns and too many": b"machine_code,user_id," + OWN + b"\nA,u,f,n,x\n",
    "one column of ours": b"user_id,machine_code\nu,A\n",
}


@pytest.mark.parametrize("content", MANIFESTS.values(), ids=MANIFESTS.keys())
@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_failed_rows_can_be_run_again(tmp_path, content, rounds):
    """Fed back with the same options, once or again and again, rows are what they were."""
    path = tmp_path / "fleet.csv"
    path.write_bytes(content)
    manifest = open_manifest(path, ManifestSettings())
    rows = first = list(manifest.rows())

    for _ in range(rounds):
        manifest, rows = fed_back(
            tmp_path,
            manifest.source,
            *(failed(row.cells, status=Status.FAILED if row.device else "invalid") for row in rows),
        )

    assert [row.device for row in rows] == [row.device for row in first]
    assert [row.values for row in rows] == [row.values for row in first]


def test_cells_beyond_the_header_survive_the_second_round(tmp_path):
    """A row that is too long keeps all of its cells, however often it comes back."""
    cells = ["A", "u", "x", "too", "many"]
    manifest, [row] = fed_back(tmp_path, CSV, failed(cells, status=Status.INVALID))
    _, [again] = fed_back(tmp_path, manifest.source, failed(row.cells, status=Status.INVALID))

    assert set(cells) <= set(again.cells)


# --- Every format --------------------------------------------------------------------------------

DEVICES_OF_A_SAMPLE: list[list[object]] = [
    ["SN-1", "u1", "Van, 1"],
    ["0123", "+49", 'a: "b" # c'],
]
"""Of each sample: machine_code, user_id and note; the first breaks a rule."""
SAMPLES = {
    "csv": b'machine_code,user_id,note\nSN-1,u1,"Van, 1"\n0123,+49,"a: ""b"" # c"\n',
    "yaml": b"""
- {machine_code: SN-1, user_id: u1, note: "Van, 1"}
- {machine_code: 0123, user_id: +49, note: 'a: "b" # c'}
""",
    "jsonl": rb"""{"machine_code": "SN-1", "user_id": "u1", "note": "Van, 1"}
{"machine_code": "0123", "user_id": "+49", "note": "a: \"b\" # c"}
""",
    "json": rb"""[{"machine_code": "SN-1", "user_id": "u1", "note": "Van, 1"},
{"machine_code": "0123", "user_id": "+49", "note": "a: \"b\" # c"}]
""",
}


def sample_of(form, path):
    """Write the sample of a format to *path* with the format's suffix and open it."""
    path = path.with_suffix(FORMATS[form].suffixes[0])
    if form == "xlsx":
        write_xlsx(path, ("One", [["machine_code", "user_id", "note"], *DEVICES_OF_A_SAMPLE]))
    else:
        path.write_bytes(SAMPLES[form])
    return open_manifest(path, ManifestSettings(), path.name)


def problems_of(row):
    """Return what is wrong with a row, without the cells that only a workbook has."""
    return [re.sub(r" in [A-Z]+\d+", "", problem.text) for problem in row.problems]


@pytest.mark.parametrize("form", FORMATS)
def test_rows_of_every_format_come_back(tmp_path, form):
    """Of each format a file is read, and its rows come back under its name, in order, to be run."""
    manifest = sample_of(form, tmp_path / "fleet")
    rows = list(manifest.rows())
    other = sample_of(form, tmp_path / "other")
    back = [
        failed(row.cells, user_id=row.values[1] or "", problems=row.problems, source=source)
        for source, read in enumerate((rows, list(other.rows())))
        for row in read
    ]
    paths = write_failed(tmp_path / "report", back, [manifest.source, other.source])

    assert manifest.source.format == form
    assert [row.device is None for row in rows] == [True, False]
    wanted = FORMATS[FORMATS[form].writes_as or form].suffixes[0]
    assert [path.name for path in paths] == [f"fleet{wanted}", f"other{wanted}"]
    for path in paths:
        again = list(open_manifest(path, ManifestSettings()).rows())
        assert [row.values for row in again] == [row.values for row in rows]
        assert [problems_of(row) for row in again] == [problems_of(row) for row in rows]
        for row, device in zip(again, DEVICES_OF_A_SAMPLE, strict=True):
            cells = list(row.cells.values() if isinstance(row.cells, dict) else row.cells)
            assert cells[:4] == [*device, "failed"]
            assert cells[4].startswith("machine_code 'SN-1'" if row.problems else "13000301")


# --- Several sources, YAML -----------------------------------------------------------------------


def test_several_sources_come_back_in_files_of_their_own(tmp_path):
    """Each manifest has its file under `failed/`, in its own form, also where no row comes back."""
    sources = [
        Source("in/a.csv", "csv", "utf-8", bom=False, delimiter=";", header=("machine_code",)),
        Source("in/b.csv", "csv", "utf-8", bom=False, header=("userId", "machineCode")),
        Source("in/c.yaml", "yaml", "utf-8", bom=False),
    ]
    rows = [
        failed(["A"]),
        failed(["B"]),
        failed({"machine_code": "C"}, source=2),
    ]
    paths = write_failed(tmp_path, rows, sources)

    assert paths == [tmp_path / "failed" / name for name in ("a.csv", "b.csv", "c.yaml")]
    assert [path.read_text(encoding="utf-8") for path in paths] == [
        (
            "machine_code;bulkbind_status;bulkbind_reason\n"
            "A;failed;13000301 no space\nB;failed;13000301 no space\n"
        ),
        "userId,machineCode,bulkbind_status,bulkbind_reason\n",
        "- machine_code: C\n  bulkbind_status: failed\n  bulkbind_reason: 13000301 no space\n",
    ]


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["x/fleet.csv", "y/fleet.csv"], id="same name"),
        pytest.param(["fleet.csv", "fleet.csv", "fleet.csv"], id="same file"),
        pytest.param(["x/fleet.csv", "y/fleet.csv", "2-fleet.csv"], id="a name like ours"),
        pytest.param(["-", "stdin.csv"], id="standard input"),
        pytest.param(["stdin.csv", "-"], id="standard input last"),
    ],
)
def test_no_two_sources_share_a_file(tmp_path, names):
    """Whatever the manifests are called, the rows of each come back."""
    sources = [Source(name, "csv", "utf-8", bom=False, header=("machine_code",)) for name in names]
    rows = [failed([f"SN{number}"], source=number) for number in range(len(names))]
    paths = write_failed(tmp_path, rows, sources)

    assert len(set(paths)) == len(names)
    for number, path in enumerate(paths):
        assert path.parent == tmp_path / "failed"
        assert f"SN{number}," in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (CSV, "failed.csv"),
        (Source("-", "csv", "utf-8", bom=False, header=HEADER), "failed.csv"),
        (Source("in/fleet.yaml", "yaml", "utf-8", bom=False), "failed/fleet.yaml"),
        (Source("-", "yaml", "utf-8", bom=False), "failed/stdin.yaml"),
    ],
    ids=["CSV", "CSV from stdin", "YAML", "YAML from stdin"],
)
def test_name_of_a_single_source(tmp_path, source, name):
    """One CSV manifest comes back as `failed.csv`, another format under its own name."""
    assert write_failed(tmp_path, [], [source]) == [tmp_path / name]


def test_no_failed_device_is_an_empty_yaml_list(tmp_path):
    """A YAML manifest of which nothing comes back is one of no devices."""
    source = Source("fleet.yaml", "yaml", "utf-8", bom=False)
    [path] = write_failed(tmp_path, [], [source])

    assert list(open_manifest(path, ManifestSettings()).rows()) == []


DEVICES: list[dict[str, Any]] = [
    {"machine_code": "0123", "user_id": "no", "tags": ["1e5", {"a": "12:34"}], "empty": ""},
    {
        "machineCode": "1_000",
        "user_id": "null",
        "note": "a: b # c\nd\te \u20ac \x85 \u2028 \U0001f600",
    },
    {"machine_code": None, "": "~", "- x": "'", "user_id": " u "},
    {"machine_code": "x" * 200, "user_id": "=1", "note": "word " * 50},
]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8 with BOM", "utf-16-le with BOM"])
def test_yaml_rows_read_back_identically(tmp_path, encoding):
    """Devices come back as YAML in the file's encoding that reads as what it was, text by text."""
    source = Source("fleet.yaml", "yaml", encoding.split(" ", maxsplit=1)[0], "BOM" in encoding)
    manifest, rows = fed_back(tmp_path, source, *map(failed, DEVICES))
    own = {"bulkbind_status": "failed", "bulkbind_reason": "13000301 no space"}

    assert [row.cells for row in rows] == [device | own for device in DEVICES]
    assert (manifest.source.encoding, manifest.source.bom) == (source.encoding, source.bom)


def test_yaml_rows_drop_old_status_and_reason(tmp_path):
    """What an earlier report added to a device is replaced."""
    source = Source("fleet.yaml", "yaml", "utf-8", bom=False)
    old = {"bulkbind_status": "failed", "machine_code": "A", "bulkbind_reason": "old"}
    _, [row] = fed_back(tmp_path, source, failed(old, status=PENDING))

    assert row.cells == {
        "machine_code": "A",
        "bulkbind_status": "pending",
        "bulkbind_reason": "13000301 no space",
    }


def test_yaml_rows_carry_their_defaults(tmp_path):
    """What the defaults gave a device comes back with it, for the new file has none."""
    path = tmp_path / "fleet.yaml"
    path.write_text("defaults: {user_id: u}\ndevices: [{machine_code: A}]\n", encoding="utf-8")
    manifest = open_manifest(path, ManifestSettings())
    [first] = manifest.rows()
    _, [again] = fed_back(tmp_path, manifest.source, failed(first.cells))

    assert again.device == first.device


def test_yaml_rows_are_plain_yaml(tmp_path):
    """Other tools read the devices as the same texts, too."""
    source = Source("fleet.yaml", "yaml", "utf-8", bom=False)
    [path] = write_failed(tmp_path, map(failed, DEVICES), [source])
    found = yaml.safe_load(path.read_bytes())

    assert [
        {key: item[key] for key in device} for item, device in zip(found, DEVICES, strict=True)
    ] == (DEVICES)


# --- Replacing files -----------------------------------------------------------------------------


def test_file_is_replaced_at_the_end_of_the_block(tmp_path):
    """Until the block has ended well the old file stands, then the new one, for its owner only."""
    path = tmp_path / "new" / "results.csv"
    with replacing(path) as file:
        file.write("old\n")
    with replacing(path) as file:
        file.write("new\n")
        file.flush()
        between = path.read_text(encoding="utf-8")

    assert between == "old\n"
    assert path.read_text(encoding="utf-8") == "new\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "error",
    [ValueError("rows"), KeyboardInterrupt(), GeneratorExit()],
    ids=lambda e: type(e).__name__,
)
def test_error_in_the_block_leaves_the_old_file(tmp_path, error):
    """A report that breaks off leaves the old file and nothing beside it."""
    path = tmp_path / "results.csv"
    path.write_text("old\n", encoding="utf-8")

    def break_off():
        with replacing(path) as file:
            file.write("half")
            raise error

    with pytest.raises(type(error)):
        break_off()

    assert path.read_text(encoding="utf-8") == "old\n"
    assert list(tmp_path.iterdir()) == [path]


def test_rows_that_break_off_leave_the_old_results(tmp_path):
    """Where the ledger cannot be read on, the results of before stay as they were."""
    write_results(tmp_path / "results.csv", [result()], [CSV])
    before = (tmp_path / "results.csv").read_bytes()

    def broken():
        yield result(line=7)
        raise LedgerError("the ledger went away")

    with pytest.raises(LedgerError, match="went away"):
        write_results(tmp_path / "results.csv", broken(), [CSV])

    assert (tmp_path / "results.csv").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["results.csv"]


def test_error_without_an_old_file_leaves_nothing(tmp_path):
    """A first report that breaks off leaves no file at all."""
    with pytest.raises(ValueError, match="rows"), replacing(tmp_path / "results.csv"):
        raise ValueError("rows")

    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_made_is_told(tmp_path):
    """Trouble with the disk is an error of its own that names the file."""
    (tmp_path / "taken").write_text("a file", encoding="utf-8")
    path = tmp_path / "taken" / "results.csv"

    with pytest.raises(LedgerError) as caught, replacing(path):
        pass

    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 4


def test_file_that_cannot_be_replaced_is_told(tmp_path):
    """A folder in the file's place is refused, and no temporary file stays."""
    path = tmp_path / "results.csv"
    path.mkdir()

    with pytest.raises(LedgerError, match="cannot be written"), replacing(path) as file:
        file.write("new")

    assert list(tmp_path.iterdir()) == [path]


def test_bytes_are_replaced_whole_and_their_error_stays_as_it_is(tmp_path):
    """What is no report file says in its own words what went wrong; a link is not followed."""
    kept, path = tmp_path / "kept", tmp_path / "session"
    kept.write_bytes(b"kept")
    path.symlink_to(kept)
    with replacing_bytes(path) as file:
        file.write(b"\xff\x00new")

    def break_off():
        with replacing_bytes(path) as file:
            file.write(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        break_off()
    with pytest.raises(FileNotFoundError), replacing_bytes(tmp_path / "missing" / "session"):
        pass

    assert path.read_bytes() == b"\xff\x00new"
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    assert kept.read_bytes() == b"kept"
    assert sorted(tmp_path.iterdir()) == [kept, path]


# --- The whole report ----------------------------------------------------------------------------

ROWS = [
    result(),
    failed(["SN2", "u1", ""], line=3),
    failed(["SN-3", "u1", ""], line=4, status=Status.INVALID),
    failed(["SN4", "u1", ""], line=5, status=Status.IN_DOUBT),
    failed(["SN5", "u1", ""], line=6, status=PENDING),
    failed(["SN1", "u1", ""], line=7, status=Status.DUPLICATE),
    failed(["SN6", "u1", ""], line=8, status=Status.MOVED),
    result(line=9, status=Status.SKIPPED),
]


def test_report_is_four_files(tmp_path):
    """A report is results, what comes back, problems, a summary and a page; it names them."""
    summary, paths = write_report(FakeRun([CSV], ROWS), tmp_path / "out")
    read = [path.read_text(encoding="utf-8") for path in paths]

    assert [path.name for path in paths] == [
        "results.csv",
        "failed.csv",
        "problems.csv",
        "summary.json",
        "report.html",
    ]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        path.name for path in paths
    )
    assert len(read[0].splitlines()) == 1 + len(ROWS)
    assert [line.split(",")[0] for line in read[1].splitlines()[1:]] == [
        "SN2",
        "SN-3",
        "SN4",
        "SN5",
    ]
    assert json.loads(read[3]) == as_json(summary)


def test_report_can_be_written_again(tmp_path):
    """A later report takes the place of the former one, file by file."""
    write_report(FakeRun([CSV], ROWS), tmp_path)
    write_report(FakeRun([CSV], [result()]), tmp_path)

    assert len((tmp_path / "failed.csv").read_text(encoding="utf-8").splitlines()) == 1
    assert json.loads((tmp_path / "summary.json").read_bytes())["rows"] == 1


def test_the_page_tells_no_code_where_no_answer_came(tmp_path, monkeypatch):
    """A code says what became of a request, which is not known there; our own words stay."""
    run = FakeRun([CSV], ROWS)
    told = (("timeout", 9), ("0", 3), ("13000301", 2))
    found = [{"verdict": "NoAnswer", "code": code, "count": count} for code, count in told]
    found.append({"verdict": "Transient", "code": "13000500", "count": 1})
    monkeypatch.setattr(run, "verdicts", lambda: found)
    write_html(tmp_path / "page.html", run, run.summary())
    page = (tmp_path / "page.html").read_text(encoding="utf-8")

    assert 'in the list <span class="mono">timeout</span></td><td class="num">9<' in page
    assert 'in the list</td><td class="num">5<' in page
    assert '<span class="mono">13000500</span>' in page


def test_the_page_has_a_row_for_each_worker(tmp_path):
    """What each bound and how fast, and why one was lost; nothing where there were none."""
    lost = {"number": 2, "settled": 1200, "per_s": 0.5, "lost": "<killed>", "in_hand": 1}
    workers = [{"number": 1, "settled": 2200, "per_s": 91.25, "lost": "", "in_hand": 0}, lost]
    pages = []
    for facts in (RunFacts({"workers": workers, "own_settled": 7, "cpu_s": 2.4}), RunFacts()):
        run = FakeRun([CSV], ROWS)
        write_html(tmp_path / "page.html", run, replace(run.summary(), facts=facts))
        pages.append((tmp_path / "page.html").read_text(encoding="utf-8"))

    assert "lost: &lt;killed&gt;, with 1 row in hand" in pages[0]
    assert '<td class="num">2,200</td><td class="num">91.2/s</td>' in pages[0]
    assert "own process with 7 rows, 2 workers with 2,200 and 1,200 rows. " in pages[0]
    assert "took 2 s of processor time" in pages[0]
    assert "<h3>Workers</h3>" not in pages[1]


def test_the_page_says_which_part_its_charts_lack(tmp_path):
    """What a killed process recorded of its pace went with it; a page without charts lacks none."""
    part = {
        "step_s": 1.0,
        "settled": [5, 5],
        "pace_per_s": [None, None],
        "throttled": [0, 0],
        "latency_edges_ms": [10, 20],
        "latency": [5, 5, 0],
    }
    pages = []
    for facts in ({"cut_offs": 2, "parts": [part]}, {"parts": [part]}, {"cut_offs": 2}):
        run = FakeRun([CSV], ROWS)
        write_html(tmp_path / "page.html", run, replace(run.summary(), facts=RunFacts(facts)))
        pages.append((tmp_path / "page.html").read_text(encoding="utf-8"))

    assert "The charts lack what was sent until the run's process was killed, 2 times" in pages[0]
    assert "The charts lack" not in pages[1] + pages[2]


@pytest.mark.parametrize(
    ("state", "is_cut_off", "told"),
    [
        (RunState.SENDING, False, "sent: about 630 requests"),
        (RunState.SENDING, True, "sent: 630 requests"),
        (RunState.DONE, False, "sent: 630 requests"),
    ],
)
def test_requests_of_a_run_that_sends_are_about_so_many(state, is_cut_off, told):
    """They are told once a second, beside rows that are counted at that moment."""
    facts = RunFacts({"requests": 630, "sending_s": 2.0})

    assert told in as_text(summary_of(state=state, is_cut_off=is_cut_off, facts=facts))


def summary_of(**given):
    """Return a summary of a run with a bit of everything."""
    reason = {
        "status": "failed",
        "code": "13000301",
        "message": "no space",
        "count": 1200,
        "example": "fleet.csv:7",
        "detail": "",
    }
    values: dict[str, Any] = {
        "run_id": "r1",
        "state": RunState.STOPPED,
        "manifests": ("fleet.csv", "gr\u00f6\u00dfer.yaml"),
        "counts": {"bound": 3400, "failed": 1200, PENDING: 1},
        "reasons": (reason,),
        "facts": RunFacts({"requests": 0, "parts": [], "of_another_version": None}),
        "digest": "ab",
        "settings": {"out": None},
    }
    return RunSummary(**(values | given))


def test_summary_for_machines():
    """`summary.json` holds the run, its counts by status, its reasons and its facts."""
    found = as_json(summary_of())

    assert json.loads(json.dumps(found)) == {
        "run_id": "r1",
        "state": "stopped",
        "manifests": ["fleet.csv", "gr\u00f6\u00dfer.yaml"],
        "rows": 4601,
        "counts": {"bound": 3400, "failed": 1200, "pending": 1},
        "reasons": [
            {
                "status": "failed",
                "code": "13000301",
                "message": "no space",
                "count": 1200,
                "example": "fleet.csv:7",
                "detail": "",
            }
        ],
        "requests": 0,
        "of_another_version": None,
        "created_at": "",
        "confirmed_at": None,
        "ended_at": None,
        "stop_reason": None,
        "operator": "",
        "host": "",
        "pid": 0,
        "version": "",
        "digest": "ab",
        "superseded_by": None,
        "kind": "bind",
        "settings": {"out": None},
        "attempts": 0,
        "posted_again_after_bound": 0,
        "cleaned": 0,
        "examples": [],
    }


def test_summary_for_a_person():
    """First the sentence, then each status with its meaning, each reason, and what to do."""
    lines = as_text(summary_of()).splitlines()

    assert lines == [
        "3,400 of 4,601 devices are bound: 3,400 now. 1,200 need you. 1 is left.",
        "run r1: stopped, 4,601 rows",
        f"  {'bound':<14}     3,400  bound by this run",
        f"  {'failed':<14}     1,200  {MEANINGS[Status.FAILED]}",
        f"  {'pending':<14}         1  {MEANINGS[PENDING]}",
        "1,200 failed:",
        "  1,200  13000301 no space: the user's cloud space is full or not opened",
        "         e.g. fleet.csv:7",
        "      -> let that user open their cloud space, then run the failed file",
    ]


def test_every_status_of_a_report_has_a_meaning():
    """No state of a row is shown without words; staged and claimed are shown as pending."""
    assert set(MEANINGS) == set(Status) - {Status.STAGED, Status.CLAIMED} | {PENDING}


def test_summary_cuts_long_lists_of_reasons():
    """Only the largest reasons are shown, and how many more there are."""
    reason = summary_of().reasons[0]
    lines = as_text(summary_of(reasons=(reason,) * 20)).splitlines()

    assert sum("no space" in line for line in lines) == 8
    assert lines[-1] == "… and 12 more reasons in summary.json"


def test_summary_adds_the_detail_of_the_example():
    """What was found in the example stands behind it, unless it is the message itself."""
    reason = summary_of().reasons[0]
    with_detail = as_text(summary_of(reasons=(reason | {"detail": "line 7 of it"},)))
    without = as_text(summary_of(reasons=(reason | {"detail": "no space"},)))

    assert "         e.g. fleet.csv:7: line 7 of it" in with_detail.splitlines()
    assert "         e.g. fleet.csv:7" in without.splitlines()


@pytest.mark.parametrize(
    ("facts", "repeats", "line"),
    [
        pytest.param({"requests": 0}, 0, None, id="nothing sent"),
        pytest.param(
            {"requests": 1234, "sending_s": 2.04}, 0, "sent: 1,234 requests in 2.0 s", id="plain"
        ),
        pytest.param(
            {
                "requests": 10,
                "sending_s": 1.0,
                "requests_throttled": 3,
                "pace_per_s": 20.0,
                "pace_from": "told by the gateway",
                "requests_lists": 2,
            },
            1,
            "sent: 10 requests in 1.0 s, 3 of them throttled, pace 20/s (told by the gateway), "
            "2 list calls, 1 request repeated a bind that had already succeeded",
            id="everything",
        ),
        pytest.param(
            {"requests": 1, "sending_s": 1.0, "pace_per_s": 12.5},
            0,
            "sent: 1 request in 1.0 s, pace 12.5/s (learned)",
            id="learned",
        ),
    ],
)
def test_summary_tells_the_pace(facts, repeats, line):
    """A run that sent something says how much, how fast, and what slowed it down."""
    summary = summary_of(facts=RunFacts(facts), posted_again_after_bound=repeats)
    shown = [text for text in as_text(summary).splitlines() if text[:5] == "sent:"]

    assert shown == ([line] if line else [])


def test_summary_tells_why_a_run_stopped():
    """The line below the sentence."""
    text = as_text(summary_of(stop_reason="the deadline of 50m has passed"))

    assert text.splitlines()[1] == "stopped: the deadline of 50m has passed"


@pytest.mark.parametrize(
    ("counts", "needs"),
    [
        ({"bound": 1, "already_bound": 1, "skipped": 1, "duplicate": 1, "pending": 1}, False),
        ({"bound": 1, "failed": 1}, True),
        ({"invalid": 1}, True),
        ({"in_doubt": 1}, True),
        ({"moved": 1}, True),
        ({"failed": 0}, False),
        ({}, False),
    ],
    ids=repr,
)
def test_which_counts_need_a_person(counts, needs):
    """Failed, invalid, in doubt and moved rows need somebody to look at them."""
    assert summary_of(counts=counts, state=RunState.DONE).needs_person is needs


def test_what_a_stopped_run_leaves_in_doubt_needs_nobody():
    """Whatever goes on with it asks the server; the reason is told all the same."""
    reason = {"status": "in_doubt", "code": "", "message": "", "count": 7, "example": "fleet.csv:7"}
    summary = summary_of(
        counts={"bound": 3, "in_doubt": 7}, reasons=(reason | {"detail": "cut off"},)
    )

    lines = as_text(summary).splitlines()
    assert lines[0] == "3 of 10 devices are bound: 3 now. 7 are in doubt."
    assert "      -> the next run asks the server again" in lines


def test_results_show_every_field_of_a_row():
    """Nothing that a row of a report knows is left out, but what only serves the writing."""
    shown = {field.name for field in fields(ResultRow)} - {"problems", "cells", "changes"}

    assert shown - {"optional"} | set(OPTIONAL) == set(COLUMNS)
