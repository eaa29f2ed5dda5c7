"""Rows checked per second, beside what reads the same bytes and checks nothing.

    python -m tests.benchmarks.validate [--rows 1000000]

CPU time, the best of some rounds in turn, so that a busy machine does the ratios little harm. The
peer of CSV is a bare `csv.reader` loop (and frictionless, where it is installed), of JSON Lines
`json.loads`, of YAML `yaml.parse` with the C loader, a tenth of the rows. The peer of the whole
command is a script of 20 lines with a set, both processes of their own, in turn.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import yaml

from bulkbind.manifest import batches_of, open_manifest
from bulkbind.settings import ManifestSettings
from tests.benchmarks.bench import ran, say, write_json
from tests.support.processes import BULKBIND

if TYPE_CHECKING:
    from collections.abc import Callable

HEADER = ("machine_code", "user_id", "device_name", "device_os", "site")
ROUNDS = 3
FEW = 10_000
_PLAIN = """
import csv, re, sys
code_ok = re.compile(r"[A-Za-z0-9_]{1,64}", re.A).fullmatch
user_ok = re.compile(r"[!-~]{1,128}").fullmatch
name_ok = re.compile(r"[A-Za-z0-9_ -]{1,64}", re.A).fullmatch
seen, rows, broken, again = set(), 0, 0, 0
with open(sys.argv[1], newline="", encoding="utf-8") as file:
    table = csv.reader(file)
    header = next(table)
    at = [header.index(name) for name in ("machine_code", "user_id", "device_name", "device_os")]
    for cells in table:
        rows += 1
        code, user, name, system = (cells[n].strip() for n in at)
        optional = (name_ok(text) for text in (name, system) if text)
        if not (code_ok(code) and user_ok(user) and all(optional)):
            broken += 1
        elif (user, code) in seen:
            again += 1
        else:
            seen.add((user, code))
print(rows, broken, again)
"""
_FRICTIONLESS = "import sys, frictionless; sys.exit(not frictionless.validate(sys.argv[1]).valid)"


def write(folder: Path, rows: int) -> tuple[Path, Path, Path]:
    """Write the same devices as CSV, JSON Lines and, a tenth of them, YAML."""
    paths = folder / f"{rows}.csv", folder / f"{rows}.jsonl", folder / f"{rows}.yaml"
    with (
        paths[0].open("w", newline="") as table,
        paths[1].open("w") as lines,
        paths[2].open("w") as listed,
    ):
        writer = csv.writer(table)
        writer.writerow(HEADER)
        for n in range(rows):
            cells = (
                f"SN{n:08d}",
                f"user_{n % 5000}",
                f"Van {n}",
                "Android 15",
                f"site {n % 9}",
            )
            writer.writerow(cells)
            device = dict(zip(HEADER, cells, strict=True))
            lines.write(json.dumps(device) + "\n")
            if n % 10 == 0:
                text = "\n  ".join(f"{key}: {value}" for key, value in device.items())
                listed.write(f"- {text}\n")
    return paths


def ours(path: Path) -> int:
    """Read and check every row: mapping, trimming, line numbers."""
    rows = 0
    for row in open_manifest(path, ManifestSettings()).rows():
        rows += 1
        assert not row.problems
    return rows


def bare_reader(path: Path) -> int:
    """Read every row as Python does."""
    rows = -1
    with path.open(newline="", encoding="utf-8") as file:
        for _ in csv.reader(file):
            rows += 1
    return rows


def loads(path: Path) -> int:
    """Parse every line."""
    rows = 0
    with path.open(encoding="utf-8") as file:
        for line in file:
            json.loads(line)
            rows += 1
    return rows


def events(path: Path) -> int:
    """Parse the document."""
    rows = 0
    with path.open("rb") as file:
        for event in yaml.parse(file, Loader=yaml.CLoader):
            rows += isinstance(event, yaml.MappingStartEvent)
    return rows


def rate(work: Callable[[Path], int], path: Path) -> float:
    """Return rows per second of CPU time."""
    began = time.process_time()
    rows = work(path)
    return rows / (time.process_time() - began)


def compare(name: str, peer: Callable[[Path], int], path: Path) -> dict[str, float]:
    """Measure us and a peer in turn, and say the best of each."""
    pairs = [(rate(peer, path), rate(ours, path)) for _ in range(ROUNDS)]
    theirs, own = max(p[0] for p in pairs), max(p[1] for p in pairs)
    say(f"{name:<22}{own:>12,.0f}/s beside {theirs:>12,.0f}/s: {own / theirs:.2f} of its speed")
    return {"rows_per_s": own, "peer_per_s": theirs, "ratio": own / theirs}


def parts(path: Path) -> int:
    """Read and check every row, where nobody looks at single rows, as `validate` does."""
    return sum(map(len, batches_of(open_manifest(path, ManifestSettings()))))


def repeats(path: Path, rows: int) -> dict[str, float]:
    """Compare the whole of `validate`, with the search for devices that stand twice."""
    peer, own = [], []
    for _ in range(ROUNDS):
        peer.append(ran([sys.executable, "-c", _PLAIN, path], cwd=path.parent))
        own.append(ran([*BULKBIND, "validate", path], cwd=path.parent))
    assert {each.stdout.split()[0] for each in peer} == {str(rows)}, peer
    assert {each.code for each in own} == {0}, own
    theirs, ours = min(each.cpu_s for each in peer), min(each.cpu_s for each in own)
    peaks = [max(each.peak_bytes for each in runs) / 1e6 for runs in (peer, own)]
    say(
        f"{'duplicates on':<22}{rows / ours:>12,.0f}/s beside {rows / theirs:>12,.0f}/s: "
        f"{ours / theirs:.2f} of its CPU time, {peaks[1]:.0f} MB beside {peaks[0]:.0f} MB"
    )
    return {"rows_per_s": rows / ours, "cpu_ratio": ours / theirs, "peak_mb": peaks[1]}


def far_apart(folder: Path, rows: int) -> dict[str, float]:
    """Count repeats at the end of a file, of the devices at its beginning: a fifth of the rows."""
    path = folder / "far.csv"
    again = rows // 5
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        for n in range(rows):
            other = n >= rows - again and n % 2  # half of them for another user
            code = n - (rows - again) if n >= rows - again else n
            writer.writerow((f"SN{code:08d}", f"user_{code % 5000 + other}", "", "", ""))
    took = ran([*BULKBIND, "validate", path, "--json"], cwd=folder)
    found = json.loads(took.stdout)
    contested = sum(n % 2 for n in range(rows - again, rows))
    assert found["duplicates"] == again - contested, found
    assert found["invalid"] == 2 * contested, found
    say(f"{'a fifth far apart':<22}{rows / took.cpu_s:>12,.0f}/s, {took.peak_bytes / 1e6:.0f} MB")
    return {"rows_per_s": rows / took.cpu_s, "peak_mb": took.peak_bytes / 1e6}


def memory(folder: Path, few: Path, many: Path) -> dict[str, int]:
    """Return the peaks of a process that validates few rows and one that validates many."""
    peaks = {p.stem: ran([*BULKBIND, "validate", p], cwd=folder).peak_bytes for p in (few, many)}
    say(f"peak memory of validate: {', '.join(f'{n} rows {b:,} bytes' for n, b in peaks.items())}")
    return peaks


def frictionless(path: Path, rows: int) -> float | None:
    """Return the rows per second of `frictionless validate`, a process of its own."""
    known = subprocess.run(
        [sys.executable, "-c", "import frictionless"], capture_output=True, check=False
    )
    if known.returncode:
        say("frictionless is not installed (pip install frictionless): left out")
        return None
    took = ran([sys.executable, "-c", _FRICTIONLESS, path.name], cwd=path.parent)
    assert took.code == 0, took.stderr
    say(f"{'frictionless':<22}{rows / took.cpu_s:>12,.0f}/s")
    return rows / took.cpu_s


def main() -> None:
    """Measure all of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    count = parser.parse_args().rows
    with TemporaryDirectory() as name:
        folder = Path(name)
        table, lines, listed = write(folder, count)
        few = write(folder, FEW)[0]
        tenth = write(folder, count // 10)[0]
        figures: dict[str, object] = {
            "csv": compare("CSV, csv.reader", bare_reader, table),
            "jsonl": compare("JSON Lines, json.loads", loads, lines),
            "yaml": compare("YAML, yaml.parse", events, listed),
            "parts_per_s": max(rate(parts, table) for _ in range(ROUNDS)),
            "duplicates": repeats(table, count),
            "far_apart": far_apart(folder, count),
            "memory": memory(folder, few, table),
            "frictionless_per_s": frictionless(tenth, count // 10),
        }
    write_json("validate", {"rows": count, **figures})


if __name__ == "__main__":
    main()
