"""How much of anything a manifest may hold, against bombs; a real one never comes near."""

from __future__ import annotations

LONGEST_LINE = 1 << 20
"""Characters of one line of text, and of one row over several lines."""
LONGEST_CELL = 1 << 17
"""Characters of one cell; also Python's own bound for CSV."""
MOST_COLUMNS = 2_000
"""Cells of one row."""
MOST_NODES = 1_000
"""Values in one device, aliases resolved: a bound against expanding aliases."""
MOST_ANCHORS = 100
DEEPEST = 20
"""Levels of lists and mappings in one device."""
MOST_SHAPES = 1_000
"""Different sets of keys that are remembered."""
HEADER_WITHIN = 50
"""Rows within which a header is looked for by its names."""
INFLATED_BYTES = 64 << 20
"""Below it, no ratio of packed to unpacked is suspicious."""
MOST_RATIO = 250
"""Bytes out of each packed byte: manifests pack 5 to 30 to 1, bombs 1,000 to 1."""
SHEET_BYTES = 1 << 30
"""Unpacked parts of a workbook."""
SHEET_CELLS = 20_000_000
"""Cells in the rectangle that a sheet spans, which is held in memory."""
