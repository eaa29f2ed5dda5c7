"""Rows checked per second, beside what reads the same bytes and checks nothing.

    python -m tests.benchmarks.validate [--rows 1000000]

CPU time, the best of some rounds in turn, so that a busy machine does the ratios little harm. The
peer of CSV is a bare `csv.reader` loop (and frictionless, where it is installed), of JSON Lines
`json.loads`, of YAML `yaml.parse` with the C loader, a tenth of the rows.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import yaml

from bulkbind.app.validate import BATCH, validate
from bulkbind.ledger import Policy, Seen
from bulkbind.manifest import open_manifest
from bulkbind.settings import ManifestSettings, Settings
from tests.benchmarks.bench import ran, say, write_json
from tests.support.processes import BULKBIND

if TYPE_CHECKING:
    from collections.abc import Callable

HEADER = ("machine_code", "user_id", "device_name", "device_os", "site")
ROUNDS = 3
FEW = 10_000
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


def repeats(path: Path, rows: int) -> dict[str, float]:
    """Measure the whole of `validate`, with the search for devices that stand twice."""
    began = time.process_time()
    validate([path], Settings())
    speed = rows / (time.process_time() - began)
    size = disk_bytes(path) / rows
    say(f"{'with duplicates on':<22}{speed:>12,.0f}/s, {size:.0f} bytes of temporary disk a row")
    return {"rows_per_s": speed, "bytes_a_row": size}


def disk_bytes(path: Path) -> int:
    """Return how large the private file of devices grows, its index included."""
    rows = open_manifest(path, ManifestSettings()).rows()
    with Seen() as seen:
        while batch := list(islice(rows, BATCH)):
            seen.add(0, batch)
        for _ in seen.repeats([path.name], Policy("first", "error")):
            pass
        [pages] = seen._db.execute("PRAGMA page_count").fetchone()
        [page_bytes] = seen._db.execute("PRAGMA page_size").fetchone()
        return int(pages) * int(page_bytes)


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
            "duplicates": repeats(table, count),
            "memory": memory(folder, few, table),
            "frictionless_per_s": frictionless(tenth, count // 10),
        }
    write_json("validate", {"rows": count, **figures})


if __name__ == "__main__":
    main()
