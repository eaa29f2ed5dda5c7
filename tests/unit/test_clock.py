"""The units of time."""

from __future__ import annotations

import re
from pathlib import Path

import bulkbind


def test_units_of_time_stand_once():
    """No other module says how long an hour or a day is, nor lists the units' names."""
    written = re.compile(r"\b3_?600(?:\.0)?\b|\b86_?400(?:\.0)?\b|minute\W+hour|hour\W+day\b")
    found = {
        (path.name, match[0])
        for path in Path(bulkbind.__file__).parent.rglob("*.py")
        for match in written.finditer(path.read_text(encoding="utf-8"))
        if path.name != "clock.py"
    }

    assert found == set()
