"""What it costs to start: `python -m tests.benchmarks.startup [ROUNDS]`.

CPU seconds and peak memory of `--help`, `validate` of ten rows and `config`, beside the bare
interpreter and `import aiohttp`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.benchmarks.bench import median, ran, say, write_json
from tests.support.manifests import fleet, write_csv
from tests.support.processes import BULKBIND

WANTED_HELP_CPU_S = 0.2


def main() -> None:
    """Start each nine times, unless told otherwise."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        manifest = write_csv(folder / "fleet.csv", fleet(10))
        commands = {
            "python": [sys.executable, "-c", ""],
            "import aiohttp": [sys.executable, "-c", "import aiohttp"],
            "help": [*BULKBIND, "--help"],
            "run --help": [*BULKBIND, "run", "--help"],
            "config": [*BULKBIND, "config"],
            "validate ten rows": [*BULKBIND, "validate", str(manifest)],
        }
        figures = {}
        for name, command in commands.items():
            ran(command, cwd=folder)  # compiles what is to be compiled
            runs = [ran(command, cwd=folder) for _ in range(rounds)]
            figures[name] = {
                "cpu_s": median([run.cpu_s for run in runs]),
                "wall_s": median([run.wall_s for run in runs]),
                "peak_mb": median([run.peak_bytes / 1e6 for run in runs]),
            }
            item = figures[name]
            say(f"{item['cpu_s']:>8.3f} s CPU{item['peak_mb']:>8.0f} MB  {name}")
    say(f"help: {figures['help']['cpu_s']:.3f} s CPU (wanted: under {WANTED_HELP_CPU_S})")
    write_json("startup", {"rounds": rounds, "commands": figures})


if __name__ == "__main__":
    main()
