"""Prints what a campaign of kills came to: `python -m tests.benchmarks.kills [ROWS [KILLS]]`."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.campaign import kill_and_resume


def main() -> None:
    """Run a campaign of 5,000 rows and ten kills, unless told otherwise."""
    numbers = [int(text) for text in sys.argv[1:]]
    rows, kills = numbers + [5_000, 10][len(numbers) :]
    with tempfile.TemporaryDirectory() as folder:
        figures = kill_and_resume(Path(folder), rows=rows, kills=kills)
    for name, value in asdict(figures).items():
        print(f"{value:>8,}  {name.replace('_', ' ')}")  # noqa: T201  # what it is for


if __name__ == "__main__":
    main()
