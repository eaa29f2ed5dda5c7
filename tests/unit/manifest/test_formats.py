"""What a file is: told from name and content; archives, encodings, and what is no manifest."""

from __future__ import annotations

import bz2
import codecs
import gzip
import json

import pytest

from bulkbind.errors import ManifestError, UsageError
from bulkbind.manifest import digest, is_manifest_name, open_manifest
from bulkbind.manifest.formats import FORMATS, Format, format_names, format_of
from bulkbind.model import Device
from bulkbind.settings import ManifestSettings
from tests.support.manifests import outline, write_xlsx
from tests.support.paths import ROOT

CSV = "machine_code,user_id\nA,u\n"
YAML = "- machine_code: A\n  user_id: u\n"
LINE = '{"machine_code": "A", "user_id": "u"}\n'


@pytest.fixture
def read(tmp_path):
    """Return a function that opens what is written into a file of some name."""

    def opened(content, name="fleet", **given):
        path = tmp_path / "file"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return open_manifest(path, ManifestSettings(**given), name)

    return opened


@pytest.mark.parametrize(
    ("text", "form"),
    [
        pytest.param(CSV, "csv", id="CSV"),
        pytest.param(YAML, "yaml", id="YAML"),
        pytest.param("---\nx: 1\n", "yaml", id="a YAML document"),
        pytest.param("# fleet\ndefaults: {}\n", "yaml", id="YAML behind a comment"),
        pytest.param(LINE, "jsonl", id="one line of JSON"),
        pytest.param(LINE * 2, "jsonl", id="JSON Lines"),
        pytest.param(f"[{LINE}]", "json", id="an array"),
        pytest.param('{"devices": []}', "json", id="an object of devices"),
        pytest.param('{\n"A": {"user_id": "u"}}', "json", id="an object over lines"),
        pytest.param("[Serial],user_id\n", "csv", id="a header in brackets"),
    ],
)
@pytest.mark.parametrize("name", ["fleet", "-", "fleet.export"])
def test_format_is_told_from_content(text, form, name):
    """Where the name says nothing, the first text does."""
    assert format_of(name, text) == form


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.csv", "csv"),
        ("a.TSV", "csv"),
        ("a.yml", "yaml"),
        ("a.ndjson", "jsonl"),
        ("a.csv.gz", "csv"),
        ("A.YAML.GZ", "yaml"),
    ],
)
def test_format_is_told_from_the_name(name, form):
    """The name wins over the content, whatever its case, also below `.gz`."""
    assert format_of(name, "- x") == form
    assert is_manifest_name(name)


def test_json_that_is_lines_is_read_as_lines():
    """Many exports call JSON Lines `.json`."""
    assert format_of("a.json", LINE * 2) == "jsonl"


@pytest.mark.parametrize("broken", ['{\n"SN1"\n', '{"a": 1,\n', "{\n", '{"a"\n"b"\n'])
def test_lines_that_break_off_leave_json_lines_what_they_are(broken):
    """Where a key is missing and a whole object stands in its line, the lines before are broken."""
    assert format_of("a.jsonl", LINE + broken + LINE) == "jsonl"


def test_declared_format_wins():
    """`--format` is for what is neither clear from name nor content."""
    assert format_of("a.csv", "x: 1", "yaml") == "yaml"


@pytest.mark.parametrize("form", [form for form in FORMATS.values() if form.writes_as])
def test_rows_that_come_back_in_another_format_are_written_in_it(form):
    """What is said to come back as CSV is written by CSV's own writer."""
    other = FORMATS[form.writes_as]

    assert form.writes is other.writes
    assert not other.writes_as


def test_no_format_without_a_writer():
    """A format that can only be read cannot be declared; its failed rows would be lost."""
    with pytest.raises(TypeError, match="writes"):
        Format((".x",), FORMATS["csv"].opens)  # type: ignore[call-arg]  # as it must not be


def test_every_module_of_a_format_is_in_the_table():
    """What reads and writes a format is used by its entry."""
    folder = ROOT / "bulkbind/manifest"
    used = {part.__module__ for form in FORMATS.values() for part in (form.opens, form.writes)}

    assert used == {f"bulkbind.manifest.{path.stem}" for path in folder.glob("*_format.py")}


def test_names_of_the_formats_are_accepted_as_settings():
    """Each can be declared; they come in the order of the table."""
    given = [ManifestSettings.model_validate({"format": name}) for name in format_names()]

    assert [settings.format for settings in given] == list(FORMATS)


@pytest.mark.parametrize(
    ("content", "name"),
    [(CSV, "a.csv.gz"), (YAML, "a.yaml.gz"), (LINE, "a"), (f"[{LINE}]", "-")],
    ids=["csv", "yaml", "jsonl", "json"],
)
def test_gzip_is_a_layer_below(read, content, name):
    """A packed manifest is read like an unpacked one, and is known by its content."""
    assert outline(read(gzip.compress(content.encode()), name).rows())[0][1] == "A"


@pytest.mark.slow
def test_gzip_bomb_is_refused(read):
    """What packs a thousand to one is no manifest."""
    data = gzip.compress(b"machine_code,user_id\n" + (b"A,u" + b" " * 997 + b"\n") * 80_000, 9)
    with pytest.raises(ManifestError, match="bytes come out of each packed byte"):
        for _ in read(data, "fleet.csv.gz").rows():
            pass


@pytest.mark.parametrize("cut", [5, 30, -4])
def test_damaged_gzip_is_refused(read, cut):
    """Half an archive is an error that says what to do."""
    text = "machine_code,user_id\n" + "".join(f"A{n},u{n % 7}\n" for n in range(5000))
    with pytest.raises(ManifestError, match="the gzip file is damaged") as caught:
        list(read(gzip.compress(text.encode())[:cut], "fleet.csv.gz").rows())

    assert caught.value.hint


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"%PDF-1.7\n", "a PDF document"),
        (b"\x89PNG\r\n\x1a\n\0\0", "a PNG image"),
        (b"\x7fELF\x02\x01\x01\0", "a program"),
        (b"PK\x03\x04\x14\0\0\0", "a ZIP archive"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel or Word file"),
        (bz2.compress(b"x"), "a bzip2 file"),
        (b"SQLite format 3\0", "an SQLite database"),
        (gzip.compress(gzip.compress(b"x")), "gzip packed twice"),
        (b"<!DOCTYPE html><html>", "a web page or XML"),
        (b"\xef\xbb\xbf\n<?xml version='1.0'?>", "a web page or XML"),
        (bytes(range(1, 32)) * 20, "full of control characters"),
    ],
    ids=range(11),
)
def test_what_is_no_manifest_is_named(read, content, words):
    """A file that is not text is refused at once, with what it seems to be."""
    with pytest.raises(ManifestError) as caught:
        read(content, "fleet.csv")

    assert words in str(caught.value)
    assert caught.value.hint


def test_archive_of_a_later_kind_is_refused(read, tmp_path):
    """An archive that Python's reader does not know is refused like any other."""
    path = write_xlsx(tmp_path / "b.xlsx", ("One", [["machine_code"]]))
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 6] = 64  # the version needed to unpack it: 6.4

    with pytest.raises(ManifestError, match="a ZIP archive"):
        read(bytes(data), "fleet.csv")


@pytest.mark.parametrize("encoding", ["cp1252", "iso-8859-1", "gb18030", "shift_jis", "utf-16-be"])
def test_declared_encoding(read, encoding):
    """`--encoding` reads what carries no mark; the cells are what was written."""
    text = "machine_code,user_id,note\nA,u,\u00b1\n"
    opened = read(text.encode(encoding), "fleet.csv", encoding=encoding)

    assert [row.cells for row in opened.rows()] == [["A", "u", "\u00b1"]]


@pytest.mark.parametrize("name", ["fleet.csv", "fleet.yaml", "fleet.jsonl", "fleet.json"])
def test_declared_encoding_holds_for_every_text(read, name):
    """Every text format knows `--encoding`, and UTF-16 by itself."""
    forms = {"csv": "machine_code,user_id,n\nA,u,\u00e9\n", "yaml": YAML + "  n: \u00e9\n"}
    forms |= {"jsonl": '{"machine_code": "A", "user_id": "u", "n": "\u00e9"}\n'}
    text = forms.get(name.partition(".")[2], f"[{forms['jsonl']}]")
    read_as = [
        list(read(text.encode("cp1252"), name, encoding="cp1252").rows()),
        list(read(codecs.BOM_UTF16_BE + text.encode("utf-16-be"), name).rows()),
        list(read(text.encode("utf-16-le"), name).rows()),
        list(read(codecs.BOM_UTF8 + text.encode(), name, encoding="cp1252").rows()),
    ]

    for [row] in read_as:
        assert row.device == Device("u", "A")
        assert "\u00e9" in json.dumps(row.cells, ensure_ascii=False)


@pytest.mark.parametrize("name", ["nope", "hex", "rot13", "", " "])
def test_unknown_encoding_is_refused(read, name):
    """An encoding that is none, or not of text, is a usage error; an empty one is none given."""
    if not name:
        assert outline(read(CSV, encoding=name).rows()) == [(2, "A")]
        return
    with pytest.raises(UsageError, match="is not known"):
        read(CSV, encoding=name)


@pytest.mark.parametrize(
    "given",
    [
        {"constants": {"device_os": "x"}},
        {"clean": "names"},
        {"skip_rows": 1},
        {"encoding": "cp1252"},
        {"header": ("a", "b")},
        {"sheet": "2"},
        {"format": "csv"},
        {"on_duplicate": "error"},
        {"on_conflict": "last"},
        {"columns": {"machine_code": "b"}},
        {"user_id": "u2"},
    ],
    ids=str,
)
def test_digest_changes_with_what_rows_mean(tmp_path, given):
    """The same bytes read another way are another manifest; what only concerns a run is not."""
    path = tmp_path / "fleet.csv"
    path.write_text(CSV, encoding="utf-8")
    plain = digest([path], ManifestSettings())

    assert digest([path], ManifestSettings(**given)) != plain
    assert digest([path], ManifestSettings(on_invalid="skip", profile="x", rebind=True)) == plain
