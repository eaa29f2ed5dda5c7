"""Workers: the driver's ceiling, memory and start, `python -m tests.benchmarks.workers [ROWS]`.

*ROWS* (100,000) are bound through workers that answer at once, with the real ledger, claims and
settlements: what one process can decide and write, however many cores there are. Then a run with
two workers against nginx, and the memory of each once all rows have ended (RSS; PSS, which divides
shared pages). Prints the figures and writes them as JSON. Linux only.
"""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

import bulkbind
from bulkbind.app.loop import loop_factory
from bulkbind.app.session import workers as joined
from bulkbind.engine.workers.hub import Hub
from tests.benchmarks.bench import nginx, say, write_json
from tests.support.manifests import fleet, write_csv

WORKERS = 2
CONCURRENCY = 64
WANTED_PER_S, WANTED_US, WANTED_MB = 50_000, 18, 60
ANSWERING = "tests.benchmarks.answering_worker"
_MEMORY = re.compile(r"^(Rss|Pss): +(\d+) kB", re.MULTILINE)


def memory_of(pid: int) -> dict[str, float]:
    """Return the megabytes of a process. Raises: OSError if it is gone."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    return {name.lower(): int(kb) / 1000 for name, kb in _MEMORY.findall(text)}


class Watched(Hub):
    """A hub that looks at its workers before they end."""

    memory: dict[int, dict[str, float]]
    """Megabytes by pid."""
    ready_s: dict[int, float]
    """Seconds from the start of the run to when a worker could send, by its number."""
    spans: tuple[float, float, int]
    """Seconds, processor seconds of the driver, and rows, from when all could send to the last."""

    async def __aenter__(self) -> Self:
        began = time.monotonic()
        Watched.memory, Watched.ready_s = {}, {}
        self._at_ready = self._latest = began, time.process_time(), 0
        await super().__aenter__()
        self._begin(self._look(began), "look at workers")
        return self

    async def __aexit__(self, *error: object) -> None:
        since, cpu_before_s, rows_before = self._at_ready
        until, cpu_s, rows = self._latest
        Watched.spans = until - since, cpu_s - cpu_before_s, rows - rows_before
        for worker in self.workers():
            with suppress(OSError):
                Watched.memory[worker["pid"]] = memory_of(worker["pid"])
        await super().__aexit__(*error)

    async def _look(self, began: float) -> None:
        while True:
            now = time.monotonic()
            for crew in self._takers:
                Watched.ready_s.setdefault(crew.number, now - began)
            settled = sum(worker["settled"] for worker in self.workers())
            if settled > self._latest[2]:
                self._latest = now, time.process_time(), settled
            if len(self._takers) == WORKERS and self._at_ready[0] == began:
                self._at_ready = self._latest
            await asyncio.sleep(0.005)  # noqa: TID251  # a look at others


def run(manifest: Path, url: str, folder: Path, module: str) -> None:
    """Bind a manifest with workers of a module."""
    joined.MODULE = module
    settings = bulkbind.load_settings(
        None,
        {
            "endpoint": url,
            "auth.token": "any",
            "ledger": str(folder / "ledger.db"),
            "out": str(folder / "report"),
            "concurrency": CONCURRENCY,
            "workers": WORKERS,
        },
    )
    for old in folder.glob("ledger.db*"):
        old.unlink()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        result = runner.run(bulkbind.run([manifest], settings))
    assert result.report is not None
    assert result.report.summary.facts.workers, "all rows had ended before a worker could send"


def main() -> None:
    """Measure once."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    vars(joined)["Hub"] = Watched
    with tempfile.TemporaryDirectory() as scratch, nginx() as url:
        folder = Path(scratch)
        manifest = write_csv(folder / "fleet.csv", fleet(rows))
        run(manifest, url, folder, joined.MODULE)
        memory, ready_s = Watched.memory, Watched.ready_s
        _, real_cpu_s, real_rows = Watched.spans
        run(manifest, url, folder, ANSWERING)
    seconds, cpu_s, by_workers = Watched.spans
    per_s, per_row_us = by_workers / seconds, cpu_s / by_workers * 1e6
    say(f"workers that answer at once: {per_s:,.0f}/s (wanted: {WANTED_PER_S:,} or more), "
        f"the driver {per_row_us:.1f} us/row (wanted: {WANTED_US} or less)")  # fmt: skip
    say(f"two workers and nginx: the driver {real_cpu_s / real_rows * 1e6:.1f} us/row")
    for pid, found in memory.items():
        say(f"worker {pid}: {found['rss']:.0f} MB (wanted: {WANTED_MB} or less), "
            f"{found['pss']:.0f} MB with shared pages divided")  # fmt: skip
    for number, seconds in ready_s.items():
        say(f"worker {number} could send after {seconds:.2f} s")
    figures = {"per_s": per_s, "driver_us": per_row_us, "by_workers": by_workers, "rows": rows}
    memory_mb = list(memory.values())
    write_json("workers", {**figures, "memory_mb": memory_mb, "ready_s": list(ready_s.values())})


if __name__ == "__main__":
    main()
