"""Manifests with known right values: none may be read wrongly, and each comes back as written.

    python -m tests.benchmarks.fuzz [--files 1000] [--seed 1] [--only json_file]

Made are manifests of every format and of many shapes. A difference is silent (a device that is not
what was written), loud (refused, or a problem, where it is right) or on the way back (a failed file
that lacks the operator's text, or is read differently). Silent ones and those on the way back are
faults: exit code 1.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tests.benchmarks.bench import say, write_json
from tests.support.generated.csv_files import csv_file
from tests.support.generated.json_files import json_file, json_lines_file
from tests.support.generated.made import differences
from tests.support.generated.xlsx_files import xlsx_file
from tests.support.generated.yaml_files import yaml_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.generated.made import Made

MAKERS: tuple[Callable[[Random], Made], ...] = (
    csv_file, xlsx_file, json_file, json_lines_file, yaml_file,
)  # fmt: skip
MOST_SHOWN = 5


def tally(maker: Callable[[Random], Made], files: int, seed: int) -> Counter[str]:
    """Return how many files, rows, refusals and differences of each kind there were."""
    found: Counter[str] = Counter(files=files)
    with TemporaryDirectory() as folder:
        for number in range(files):
            made = maker(Random(f"{seed}-{maker.__name__}-{number}"))
            found["rows"] += len(made.rows or ())
            found["to be refused"] += made.rows is None
            found[f"files: {made.shape}"] += 1
            wrong = differences(made, Path(folder))
            kinds = {difference.partition(":")[0] for difference in wrong}
            found.update(f"files {kind}: {made.shape}" for kind in kinds)
            for difference in wrong:
                kind = difference.partition(":")[0]
                found[kind] += 1
                if found[kind] <= MOST_SHOWN:
                    say(f"{maker.__name__} {number}, {made.shape}: {difference}")
    return found


def main() -> None:
    """Make and read the files; exit 1 if one is read wrongly or does not come back."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=1_000, help="of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=[maker.__name__ for maker in MAKERS])
    arguments = parser.parse_args()
    results = {}
    for maker in MAKERS:
        if arguments.only in (None, maker.__name__):
            began = time.monotonic()
            results[maker.__name__] = tally(maker, arguments.files, arguments.seed)
            say(f"{maker.__name__}: {dict(results[maker.__name__])}")
            say(f"  {time.monotonic() - began:.0f} s")
    write_json("fuzz_values", {"seed": arguments.seed, **results})
    if any(found["silent"] or found["back"] for found in results.values()):
        sys.exit("read wrongly, or not come back as written")


if __name__ == "__main__":
    main()
