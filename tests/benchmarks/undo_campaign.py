"""A run of 5,000 devices is undone, and the undo killed in the middle: who is left on the server?

Use: python -m tests.benchmarks.undo_campaign [--devices 5000] [--kills 5] [--rate 400]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.undoing import undo_killed


def main() -> None:
    """Run the campaign and print what it came to; exit 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--devices", type=int, default=5_000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--rate", type=int, default=400, help="unbinds per second let through")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bulkbind-undo-") as folder:
        found = undo_killed(Path(folder), devices=given.devices, kills=given.kills, rate=given.rate)
    sys.stdout.write(json.dumps(asdict(found), indent=2) + "\n")
    wrong = (
        found.left_of_the_run
        or found.lost_of_others
        or found.exit_code
        or found.ledger_bindings_unlike_the_server
        or found.statuses != {"unbound": given.devices}
    )
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
