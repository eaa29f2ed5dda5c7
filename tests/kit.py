"""What tests share: a clock turned by hand, files, and bulkbind as a process."""

from __future__ import annotations

import asyncio
import csv
import heapq
import json
import os
import signal
import sqlite3
import subprocess
import sys
import urllib.request
import zipfile
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from bulkbind.manifest import open_manifest
from bulkbind.settings import ManifestSettings

if TYPE_CHECKING:
    from pathlib import Path

BULKBIND = [sys.executable, "-m", "bulkbind"]
START = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


class FakeClock:
    """Time that passes only when everybody sleeps: the earliest sleeper is woken then."""

    def __init__(self, now: datetime = START) -> None:
        self._began = now
        self._seconds = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = count()
        self._ticking: asyncio.Task[None] | None = None
        self.waits_for: set[asyncio.Future[Any]] = set()
        """Work of real threads: no time passes before it is done."""

    def monotonic(self) -> float:
        return self._seconds

    def utc_now(self) -> datetime:
        return self._began + timedelta(seconds=self._seconds)

    def advance(self, seconds: float) -> None:
        self._seconds += seconds

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (self._seconds + max(0.0, seconds), next(self._order), future)
        heapq.heappush(self._sleepers, entry)
        if self._ticking is None or self._ticking.done():
            self._ticking = asyncio.create_task(self._tick())
        await future

    async def _tick(self) -> None:
        """Wake the sleepers one by one, giving everybody else some turns in between."""
        while self._sleepers:
            for _ in range(100):
                await asyncio.sleep(0)  # noqa: TID251  # yields to the loop, no time passes
            if self.waits_for:
                await asyncio.sleep(0.0005)  # noqa: TID251  # real time, for real threads
                continue
            if not self._sleepers:
                return
            due, _, future = heapq.heappop(self._sleepers)
            if not future.done():  # a cancelled sleeper takes no time
                self._seconds = max(self._seconds, due)
                future.set_result(None)


def write_csv(path: Path, rows, header=("machine_code", "user_id", "device_name", "device_os")):
    """Write a manifest and return its path."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(header)
        table.writerows(rows)
    return path


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


def read_results(folder: Path) -> list[dict[str, str]]:
    """Return the rows of `results.csv`."""
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def statuses(folder: Path) -> dict[str, int]:
    """Return how many rows have which status."""
    found: dict[str, int] = {}
    for row in read_results(folder):
        found[row["status"]] = found.get(row["status"], 0) + 1
    return found


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return an environment in which bulkbind finds nothing but what the test gives."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("BULKBIND_", "XDG_"))}
    return kept | {"XDG_STATE_HOME": str(home), "BULKBIND_TOKEN": "secret-token"} | more


def bulkbind(*arguments: str | Path, home: Path, check=None, timeout: float = 100, **environ: str):
    """Run bulkbind to its end and return the finished process; *check*: its exit code."""
    done = subprocess.run(
        [*BULKBIND, *map(str, arguments)],
        env=environment(home, **environ),
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=home,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if check is not None:
        assert done.returncode == check, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@contextmanager
def process(*arguments: str | Path, home: Path, **environ: str):
    """Start bulkbind, and make sure that it is gone at the end."""
    started = subprocess.Popen(
        [*BULKBIND, *map(str, arguments)],
        env=environment(home, **environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=home,
        stdin=subprocess.DEVNULL,
    )
    try:
        yield started
    finally:
        if started.poll() is None:
            started.kill()
        started.communicate()


@contextmanager
def sandbox(*arguments: str, home: Path):
    """Serve a sandbox in a process of its own and yield its URL."""
    with process("sandbox", "--port", "0", *arguments, home=home) as started:
        assert started.stdout is not None
        line = started.stdout.readline()
        assert line.startswith("ready "), line
        yield line.split()[1]
        started.send_signal(signal.SIGTERM)
        started.wait(10)


def ask(url: str):
    """Return the JSON that a sandbox's own page answers."""
    assert url.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310  # loopback
        return json.load(answer)


def sandbox_bindings(url: str) -> list[dict[str, str]]:
    """Return every record that a sandbox holds."""
    with urllib.request.urlopen(f"{url}/sandbox/bindings", timeout=10) as answer:  # noqa: S310  # loopback
        return [json.loads(line) for line in answer]


def ledger_of(home: Path, url: str) -> Path:
    """Return the default ledger of an endpoint."""
    host = url.removeprefix("http://").replace(":", "_")
    return home / "bulkbind" / f"{host}.db"


def count_rows(ledger: Path, status: str) -> int:
    """Return how many rows of a ledger have a status; 0 where there is no ledger yet."""
    if not ledger.exists():
        return 0
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as db:
        try:
            query = "SELECT count(*) FROM rows WHERE status = ?"
            (number,) = db.execute(query, (status,)).fetchone()
        except sqlite3.OperationalError:
            return 0
        return int(number)
