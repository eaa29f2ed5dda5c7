"""One limit over several workers, beside one process: `python -m tests.benchmarks.shared_limit`.

`[SECONDS [ROUNDS [CASE...]]] [--workers 1,2,4]`: a bucket, a window, spacing and a limit on what
is in flight, told nowhere, 64 in flight at most. Each round runs every case with each number of
workers, one after the other, for *SECONDS* (30) of ideal time. Prints the efficiency (ideal time
over the time of the sending) and the refused requests per device, medians, and whether several
workers are no worse than one by more than is wanted. Exit code 1 if they are. Writes JSON.

At limits as slow as these the run's own process sends alone, once it has met them: what is measured
is that workers are no trouble before that, and stay out of the way after it.

One round of 20 s takes five minutes; `20 1 bucket spacing`, then `30 1 window` and `20 1 in-flight`
(a window shorter than 30 s depends on where its edges fall), are pieces of two. All of it needs a
machine with nothing else to do: other load delays what several processes tell each other.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks.bench import median, say, write_json
from tests.benchmarks.pacing import SECONDS, Case, bulkbind
from tests.benchmarks.servers import limit_req, limited, sandbox
from tests.support.manifests import fleet, write_csv

if TYPE_CHECKING:
    from collections.abc import Sequence

LOWER = 0.02
"""The efficiency may be lower than that of one process by so much."""
CASES = {
    "bucket": (Case(limit_req(500, 50), 500, LOWER, 0.002, burst=50)),
    "window": (Case(limited("600/s,tell=nothing"), 600, LOWER, 0.002)),
    "spacing": (Case(limit_req(200, 0), 200, LOWER, 0.005)),
    "in-flight": Case(
        sandbox("--limit", "inflight:16,tell=nothing", "--fault", "delay-before=1,for=50ms"),
        16 / 0.05, LOWER, 0.002,
    ),
}  # fmt: skip
"""By how much the efficiency may be lower, and the share of refused requests higher."""


@dataclass(frozen=True, slots=True)
class Shared:
    """How a number of workers did in a case; medians."""

    efficiency: float
    refused: float
    failed: int


def once(case: Case, seconds: float, workers: int) -> Shared:
    """Run a case with so many workers, on a new server and a new ledger."""
    rows = int(case.per_s * seconds) + case.burst
    with tempfile.TemporaryDirectory() as scratch, case.server() as url:
        folder = Path(scratch)
        write_csv(folder / "fleet.csv", fleet(rows))
        figures = bulkbind(folder, url, rows, "--workers", str(workers))
    assert figures.refused is not None
    return Shared(seconds / figures.sending_s, figures.refused / rows, figures.failed)


def middle(items: Sequence[Shared]) -> Shared:
    """Return the medians, and all that failed."""
    return Shared(
        median([item.efficiency for item in items]),
        median([item.refused for item in items]),
        sum(item.failed for item in items),
    )


def _wrong(case: Case, one: Shared, several: Shared) -> str:
    """Return what is worse than one process by more than is wanted; empty if nothing is."""
    found = {
        f"efficiency lower by {one.efficiency - several.efficiency:.3f}":
            several.efficiency < one.efficiency - case.efficiency,
        f"refused higher by {several.refused - one.refused:.2%}":
            several.refused > one.refused + case.refused,
        f"{several.failed} failed": several.failed > 0,
    }  # fmt: skip
    return ", ".join(text for text, is_so in found.items() if is_so)


def main() -> None:
    """Run every case three times, unless told otherwise."""
    given = _parser().parse_args()
    numbers = [int(text) for text in given.workers.split(",")]
    names = given.cases or list(CASES)
    taken: dict[str, dict[int, list[Shared]]] = {
        name: {number: [] for number in numbers} for name in names
    }
    for turn in range(given.rounds):
        for name, by_number in taken.items():
            for number, items in by_number.items():
                items.append(once(CASES[name], given.seconds, number))
                say(
                    f"round {turn + 1}  {name:<10}{number} workers{items[-1].efficiency:>8.3f}"
                    f"{items[-1].refused:>8.2%}"
                )
    results: dict[str, object] = {}
    is_worse = False
    say(f"\nmedians of {given.rounds}, {given.seconds:g} s of ideal time: efficiency, refused")
    say(f"{'':<12}" + "".join(f"{f'{number} workers':>20}" for number in numbers))
    for name, by_number in taken.items():
        found = {number: middle(items) for number, items in by_number.items()}
        wrong = [
            f"{number} workers: {text}"
            for number, shared in found.items()
            if number > 1 and 1 in found and (text := _wrong(CASES[name], found[1], shared))
        ]
        is_worse |= bool(wrong)
        row = "".join(f"{item.efficiency:>11.3f},{item.refused:>7.2%} " for item in found.values())
        say(f"{name:<12}{row}  {'; '.join(wrong) or 'as wanted'}")
        results[name] = {
            str(number): [[item.efficiency, item.refused, item.failed] for item in items]
            for number, items in by_number.items()
        }
    write_json("shared_limit", {"seconds": given.seconds, "cases": results})
    sys.exit(is_worse)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="One limit over several workers.")
    add = parser.add_argument
    add("seconds", nargs="?", type=float, default=SECONDS, help="of ideal time  [default: 30]")
    add("rounds", nargs="?", type=int, default=3, help="[default: 3]")
    add("cases", nargs="*", help=f"of {', '.join(CASES)}  [default: all]")
    add("--workers", default="1,2,4", help="numbers of workers  [default: 1,2,4]")
    return parser


if __name__ == "__main__":
    main()
