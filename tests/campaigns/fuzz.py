"""All readers on made-up and damaged manifests: no crash, no hang, no growth of memory.

    python -m tests.campaigns.fuzz --minutes 10

Whatever a file holds, reading it ends with rows and problems, or with an error of ours that names
the file; what comes back to the operator can be read again. A finding is shrunk by hypothesis and
printed.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import signal
import sys
import time
import traceback
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, Phase, given, seed, settings, strategies as st

from bulkbind.errors import BulkbindError
from bulkbind.manifest import open_manifest
from bulkbind.manifest.rules import RULES
from bulkbind.model import ResultRow
from bulkbind.model.fields import OPTIONAL
from bulkbind.report.tables import write_failed
from bulkbind.settings import ManifestSettings
from tests.benchmarks.bench import peak_bytes, say, write_json
from tests.support.manifests import write_xlsx

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bulkbind.model import CheckedRow

LONGEST_S = 20
"""No made-up file of some kilobytes takes so long."""
MOST_GROWTH = 200 << 20
"""Bytes that the process may grow after the first round."""
ROUND = 300
"""Examples between two looks at the clock."""

NAMES = ("fleet.csv", "fleet.tsv", "fleet", "fleet.yaml", "fleet.jsonl", "fleet.json",
         "fleet.xlsx", "fleet.csv.gz", "-")  # fmt: skip
PIECES = [
    b"machine_code", b"user_id", b"device_name", b"SN1", b"u1", b",", b";", b"\t", b"|", b'"', b"'",
    b"\\", b"\n", b"\r\n", b"\r", b"\0", b"\xff", b"\xfe\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"#",
    b"{", b"}", b"[", b"]", b":", b": ", b"- ", b"---\n", b"...\n", b"&a ", b"*a", b"<<", b"!!set ",
    b"? ", b"%YAML 1.2\n", b"null", b"true", b"1e999", b"1.50", b"9" * 30, b"9" * 5000, b"-0",
    b'"\\ud800"', b"\xe2\x80\x8b", b"\xc2\xa0", b"\xc2\x85", b"\xe2\x80\xa8", b"[" * 2000,
    b'{"a":' * 500, b"3.56E+14", b"00012", b"sep=;\n", b"defaults:", b"devices:", b'"devices"',
    b"\x1f\x8b\x08\x00", b"PK\x03\x04", b"a" * 3000, b"x,", b"\x1a", b"\x0b", b"\x0c", b"\x1c",
    b"ma\xc3\xa7", b"\xd0\x90",
]  # fmt: skip


def workbook() -> bytes:
    """Return a small XLSX file."""
    rows: list[list[object]] = [
        ["Fleet"],
        [],
        ["machine_code", "user_id", "n"],
        ["SN1", "u", 1],
        [35e14, "u", True],
    ]
    with TemporaryDirectory() as folder:
        return write_xlsx(Path(folder, "book.xlsx"), ("Sheet", rows)).read_bytes()


DOCUMENTS = [
    b"machine_code,user_id,device_name\nSN1,u,Van 1\nSN2,u,\nSN-3,u,x\n",
    b'Fleet of 2026\n\nmachine_code;user_id\n"SN1";"u"\n"SN\n2";u\n',
    "machine_code\tuser_id\nSN1\tu\n".encode("utf-16"),
    b"- machine_code: SN1\n  user_id: u\n- {machine_code: SN2, user_id: u, a: [1, {b: c}]}\n",
    b"defaults: {user_id: u}\ndevices:\n- machine_code: 0123\n- &x {machine_code: no}\n- *x\n",
    b"sw1: {data: {vendor: x}}\nsw2: {}\n",
    b'{"machine_code": "SN1", "user_id": "u"}\n{"machine_code": 12, "n": {"a": 1}}\n',
    b'[{"machine_code": "SN1", "user_id": "u"}, {"machine_code": 1.5, "user_id": true}]',
    b'{"defaults": {"user_id": "u"}, "devices": [{"machine_code": "SN1"}]}',
    b'{"sw1": {"user_id": "u"}, "sw2": {"user_id": "u"}}',
    gzip.compress(b"machine_code,user_id\nSN1,u\n"),
    workbook(),
]


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    """Draw a document with some damage, or bytes of pieces that mean something somewhere."""
    if draw(st.integers(0, 3)) == 0:
        return b"".join(
            draw(st.lists(st.sampled_from(PIECES) | st.binary(max_size=8), max_size=40))
        )
    data = bytearray(draw(st.sampled_from(DOCUMENTS)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.integers(0, 3))
        if kind == 0:
            data[at:at] = draw(st.sampled_from(PIECES) | st.binary(max_size=8))
        elif kind == 1:
            del data[at : at + draw(st.integers(1, 30))]
        elif kind == 2:
            data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        else:
            data[at:at] = data[max(0, at - 60) : at] * draw(st.integers(1, 20))
    return bytes(data)


def mostly(usual: object, *others: object) -> st.SearchStrategy[object]:
    """Draw the usual value most of the time."""
    return st.sampled_from([*[usual] * 2 * len(others), *others])


readings = st.builds(
    ManifestSettings,
    columns=mostly(
        {}, {"machine_code": "@key"}, {"machine_code": "#1"}, {"device_os": "data.vendor"},
        {"machine_code": "n.a"}, {"device_name": "a.0.b"}, {"device_name": "n"}, {"user_id": "#9"},
    ),
    constants=mostly({}, {"user_id": "c"}),
    user_id=st.sampled_from([None, "given"]),
    header=mostly((), ("machine_code", "user_id")),
    skip_rows=mostly(None, 0, 1, 3),
    ignore_columns=mostly((), ("user_id",), ("x",)),
    placeholders=mostly((), ("none",), ("SN1", "u")),
    format=mostly(None, "csv", "xlsx", "yaml", "jsonl", "json"),
    encoding=mostly(None, "cp1252", "utf-16", "gb18030", "latin-1", "utf-7", "nope"),
    sheet=mostly(None, "1", "9", "Sheet"),
    items=mostly(None, "devices", "data.items", "."),
    clean=st.sampled_from(["none", "names"]),
)  # fmt: skip


@dataclass
class Tally:
    """What came of the examples."""

    files: int = 0
    rows: int = 0
    valid: int = 0
    refused: int = 0
    slowest_s: float = 0.0
    kinds: dict[str, int] = field(default_factory=dict)


class HangError(Exception):
    """A file takes too long."""


@contextmanager
def bounded() -> Iterator[None]:
    """Break off what takes too long."""

    def ring(number: int, frame: object) -> None:  # noqa: ARG001  # a handler's signature
        raise HangError

    signal.signal(signal.SIGALRM, ring)
    signal.alarm(LONGEST_S)
    try:
        yield
    finally:
        signal.alarm(0)


def read(folder: Path, name: str, content: bytes, reading: ManifestSettings, tally: Tally) -> None:
    """Read a file to its end and check all that must hold; then what comes back, too."""
    path = folder / (name if name != "-" else "stdin")
    path.write_bytes(content)
    tally.files += 1
    failed: list[ResultRow] = []
    try:
        manifest = open_manifest(path, reading, name)
        tally.kinds[manifest.source.format] = tally.kinds.get(manifest.source.format, 0) + 1
        for row in manifest.rows():
            tally.rows += 1
            tally.valid += row.device is not None
            check(row)
            if row.device is None:
                cells = row.text if isinstance(row.cells, dict) else row.cells
                failed.append(_failed(row.line, json.dumps(cells)))
    except BulkbindError as error:
        tally.refused += 1
        f"{error}{error.hint}".encode()
        return
    "".join(manifest.notices).encode()
    for again in write_failed(folder / "report", failed, [manifest.source]):
        # Refused are a header that is missing, a key that stands twice.
        with contextlib.suppress(BulkbindError):
            for _ in open_manifest(again, reading, again.name).rows():
                pass


def check(row: CheckedRow) -> None:
    """All that must hold of any row."""
    assert (row.device is None) == bool(row.problems)
    json.dumps(row.cells).encode()
    for value in row.values:
        assert value is None or value.encode()
    for problem in row.problems:
        assert problem.text.encode()
        assert problem.found
    if row.device is not None:
        for rule, value in zip(RULES, row.values, strict=True):
            assert rule.pattern.fullmatch(value) if value else not rule.required


NONE = ("",) * len(OPTIONAL)


def _failed(line: int, cells: str) -> ResultRow:
    return ResultRow(
        0, line, "", "", NONE, "invalid", "", "", None, "", "", 0, "", "", "why", (), cells
    )


def main() -> None:
    """Fuzz until the time is over; exit 1 with the example where something is found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    arguments = parser.parse_args()
    tally = Tally()
    until = time.monotonic() + 60 * arguments.minutes
    before = 0
    round_number = 0
    with TemporaryDirectory() as folder:
        while time.monotonic() < until:
            try:
                _round(arguments.seed + round_number, Path(folder), tally)
            except Exception:  # noqa: BLE001  # whatever it is, it is the finding
                traceback.print_exc()
                sys.exit(f"a finding, with --seed {arguments.seed}, round {round_number}")
            before = before or peak_bytes()
            round_number += 1
            if peak_bytes() > before + MOST_GROWTH:
                sys.exit(f"memory grew from {before:,} to {peak_bytes():,} bytes")
    say(
        f"{tally.files:,} files, {tally.refused:,} refused, {tally.rows:,} rows, "
        f"{tally.valid:,} valid"
    )
    say(f"by format {tally.kinds}")
    say(f"slowest {tally.slowest_s:.2f} s; memory {peak_bytes():,} bytes")
    write_json("fuzz", {"seed": arguments.seed, "minutes": arguments.minutes, **vars(tally)})


def _round(number: int, folder: Path, tally: Tally) -> None:
    @seed(number)
    @settings(
        max_examples=ROUND,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(name=st.sampled_from(NAMES), content=contents(), reading=readings)
    def example(name: str, content: bytes, reading: ManifestSettings) -> None:
        began = time.monotonic()
        with bounded():
            read(folder, name, content, reading, tally)
        tally.slowest_s = max(tally.slowest_s, time.monotonic() - began)

    example()


if __name__ == "__main__":
    main()
