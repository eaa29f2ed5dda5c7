"""Where the checkout lies, and real-world data beside it; what archives hold."""

from __future__ import annotations

import tarfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The checkout."""
SHARED_DATA = ROOT.parent / "shared" / "data"
"""Beside the checkout, not in it: tests that need it are skipped where it is absent."""
GPLAY = SHARED_DATA / "gplay_supported_devices_2022-01.utf16le.csv"
"""Google's list of devices."""
CSV_SPECTRUM = SHARED_DATA / "suites" / "csv-spectrum-csvs"
CSV_INJECTIONS = SHARED_DATA / "suites" / "csv-injection" / "Intruder" / "csv-payload.txt"


def unpack(packed: Path, folder: Path) -> None:
    """Unpack a tar archive; releases of 3.11 before 3.11.4 know no filter."""
    with tarfile.open(packed) as archive:
        if hasattr(tarfile, "data_filter"):
            archive.extractall(folder, filter="data")
        else:
            archive.extractall(folder)  # noqa: S202  # made by the test itself
