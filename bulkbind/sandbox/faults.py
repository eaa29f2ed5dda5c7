"""The faults: a table of their kinds, and which of them strike a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from bulkbind.sandbox import spoiling

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Sequence

    from aiohttp import web

    from bulkbind.sandbox.spec_parser import Fault
    from bulkbind.sandbox.specs import Call

COMMON_KEYS = ("count", "from", "until", "on")


@dataclass(frozen=True, slots=True)
class FaultKind:
    """What there is to know of a fault before it is ordered."""

    help: str
    spoil: Callable[[spoiling.Exchange], Awaitable[web.StreamResponse | None]] | None
    """None: it only delays what comes next, be it the work or another fault."""
    for_s: float | None = None
    """Default of `for`; None: it has no such key."""
    takes_negative: bool = False
    """Whether `for` may be negative."""
    takes_code: bool = False
    is_for_binds: bool = False
    """Whether it makes no sense for other calls."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that it has besides the common ones."""
        return ("for",) * (self.for_s is not None) + ("code",) * self.takes_code


KINDS = {
    "reset-before": FaultKind("connection reset; nothing is done", spoiling.reset_before),
    "reset-after": FaultKind("connection reset after the work is done", spoiling.reset_after),
    "silence-before": FaultKind("never answers; nothing is done", spoiling.silence_before),
    "silence-after": FaultKind("never answers; the work is done", spoiling.silence_after),
    "delay-before": FaultKind(
        "the work is done late, even if the client has hung up  [for: 1s]", None, for_s=1.0
    ),
    "delay-after": FaultKind(
        "the work is done at once, the answer comes late  [for: 1s]",
        spoiling.delay_after,
        for_s=1.0,
    ),
    "drip": FaultKind(
        "done; the answer comes byte by byte, one every `for`  [for: 200ms]",
        spoiling.drip,
        for_s=0.2,
    ),
    "500": FaultKind("answers 500; nothing is done", spoiling.error_500),
    "500-after": FaultKind("answers 500 after the work is done", spoiling.error_500_after),
    "502": FaultKind("answers 502 with an HTML page; nothing is done", spoiling.error_502),
    "502-after": FaultKind(
        "answers 502 with an HTML page after the work is done", spoiling.error_502_after
    ),
    "503": FaultKind(
        "answers 503, Retry-After a date `for` ahead; nothing is done  [for: 2s]",
        spoiling.error_503,
        for_s=2.0,
    ),
    "truncated": FaultKind("done; half of the answer, then closed", spoiling.truncated),
    "empty": FaultKind("done; 200 with an empty body", spoiling.empty),
    "garbage": FaultKind("done; bytes that are no HTTP, then closed", spoiling.garbage),
    "huge": FaultKind("done; 200 with a body of 100 MB", spoiling.huge),
    "bomb": FaultKind("done; 200 with a small gzip that unpacks to 100 MB", spoiling.bomb),
    "wrong-type": FaultKind("done; the right JSON, called text/html", spoiling.wrong_type),
    "business": FaultKind(
        "answers 200 with a business code; nothing is done  [code: 13000301]",
        spoiling.business,
        takes_code=True,
    ),
    "redirect": FaultKind(
        f"answers 302 to {spoiling.ELSEWHERE}; nothing is done", spoiling.redirect
    ),
    "wrong-date": FaultKind(
        "done; the right answer, its Date off by `for`, e.g. -1h  [for: 1h]",
        spoiling.wrong_date,
        for_s=3600.0,
        takes_negative=True,
    ),
    "other-code": FaultKind(
        "done; the answer names another machine code (binds only)",
        spoiling.other_code,
        is_for_binds=True,
    ),
}
"""A new fault is an entry here and a function in `spoiling`."""


class Strikes(NamedTuple):
    """What strikes one request."""

    delays: tuple[Fault, ...]
    """To be waited before anything else, one after the other."""
    decider: Fault | None
    """The one that decides over the answer; None: the answer is right."""

    @property
    def names(self) -> list[str]:
        """The names of all of them, each of which is one strike."""
        deciders = () if self.decider is None else (self.decider,)
        return [fault.name for fault in (*self.delays, *deciders)]


class Faults:
    """Chooses, and counts so that no fault strikes more often than it may."""

    def __init__(self, faults: Sequence[Fault], dice: random.Random) -> None:
        self._faults = faults
        self._dice = dice
        self._struck = [0] * len(faults)

    def strike(self, call: Call, elapsed_s: float) -> Strikes:
        """Return what strikes a request.

        The dice roll once for every fault that is ordered for the call, whether it may strike now
        or not: so what a seed does to a request does not depend on the time.

        Args:
            call: What is asked for.
            elapsed_s: Seconds since the sandbox started.
        """
        delays: list[Fault] = []
        decider: Fault | None = None
        for number, fault in enumerate(self._faults):
            if not fault.on.covers(call):
                continue
            hits = self._dice.random() < fault.probability
            if not hits or not self._may(number, elapsed_s):
                continue
            if KINDS[fault.name].spoil is None:
                delays.append(fault)
            elif decider is None:
                decider = fault
            else:
                continue
            self._struck[number] += 1
        return Strikes(tuple(delays), decider)

    def _may(self, number: int, elapsed_s: float) -> bool:
        fault = self._faults[number]
        is_used_up = fault.count is not None and self._struck[number] >= fault.count
        return fault.period.holds(elapsed_s) and not is_used_up
