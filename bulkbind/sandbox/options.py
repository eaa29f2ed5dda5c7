"""What a sandbox can be told to be."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FAULTS = ("reset-before", "reset-after", "500", "business")
"""reset-before: the connection breaks, nothing is done; reset-after: it is bound, then the
connection breaks; 500: an error, nothing is done; business: HTTP 200 with code 13000301."""

_UNITS = {
    "s": ("second", 1.0),
    "second": ("second", 1.0),
    "m": ("minute", 60.0),
    "min": ("minute", 60.0),
    "minute": ("minute", 60.0),
    "h": ("hour", 3600.0),
    "hour": ("hour", 3600.0),
    "d": ("day", 86400.0),
    "day": ("day", 86400.0),
}


@dataclass(frozen=True, slots=True)
class Limit:
    """So many requests per window, counted in windows of fixed length."""

    count: int
    unit: str
    window_s: float


@dataclass(frozen=True, slots=True)
class SandboxOptions:
    """The defaults are a gateway without limits or faults."""

    limit: Limit | None = None
    faults: dict[str, float] = field(default_factory=dict)
    """Name (see `FAULTS`) -> probability."""
    second_bind: Literal["same", "error"] = "same"
    """What a second bind of a device answers: the same record, or code 13000310."""
    token: str | None = None
    """The only token that is accepted; None: any."""
    state: Path | None = None
    """Bindings are kept in this file; None: in memory."""
    journal: Path | None = None
    """One JSON line per request; None: none."""
    seed: int | None = None


def parse_limit(text: str) -> Limit:
    """Return a limit written `60/s`, `600/min`, `1000/hour` or `5000/day`.

    Raises: ValueError for anything else.
    """
    match = re.fullmatch(r"(\d{1,9})/([a-z]+)", text.strip(), re.ASCII)
    if match is None or match[2] not in _UNITS or int(match[1]) == 0:
        raise ValueError(f"{text!r} is no limit: write 60/s, 600/min, 1000/hour or 5000/day")
    unit, window_s = _UNITS[match[2]]
    return Limit(int(match[1]), unit, window_s)


def parse_faults(texts: Sequence[str]) -> dict[str, float]:
    """Return faults written `NAME=PROBABILITY`, e.g. `reset-after=0.03`.

    Raises: ValueError for an unknown name or a probability outside 0 to 1.
    """
    faults = {}
    for text in texts:
        name, _, share = text.partition("=")
        if name not in FAULTS:
            raise ValueError(f"{name!r} is no fault: there are {', '.join(FAULTS)}")
        try:
            probability = float(share)
        except ValueError:
            probability = -1.0
        if not 0 <= probability <= 1:
            raise ValueError(f"{text!r}: a fault is NAME=PROBABILITY, from 0 to 1")
        faults[name] = probability
    return faults
