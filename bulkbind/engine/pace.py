"""The pace, as a pure calculator: state, event, moment -> state.

The model. Requests leave at `per_s`, evenly spaced, with two catch-up slots for a late timer. A
429 closes the gate for all: nobody sends until it opens, then one request alone tries; once it is
answered, everybody goes on. What the gateway tells of itself decides: Retry-After says how long
the gate stays closed, limit and window in the 429's text or in any answer's headers say the pace.
Where nothing is told, the
pace falls below what got through since the gate last opened, and climbs slowly. Answers to
requests that left before the gate closed (their `epoch` is older) change nothing. A server that
cannot be reached, or leaves several requests in a row unanswered, closes the gate in the same way,
without lowering the pace.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bulkbind.model import Throttled

CATCH_UP_SLOTS = 2.0
"""Slots that may be made up for when a timer fires late (asyncio's are about 1 ms coarse)."""
TOLD_SHARE = 0.98
"""Share of a told limit that is used: the server's window and ours are never in step."""
FALL = 0.8
"""Untold: the new pace, as a share of what got through."""
CLIMB_PER_ANSWER = 0.05
"""Untold: requests/s gained per answer, which is 5 % a second at any pace."""
SLOWEST_PER_S = 0.2
FIRST_CLOSING_S = 0.5
LONGEST_CLOSING_S = 60.0
"""A gate that nobody gave a time for stays closed for FIRST * 2**n seconds, LONGEST at most."""
LONGEST_PACED_S = 120.0
"""The longest window over which requests are spread; a limit per hour or day is used up instead."""
SILENT_IN_A_ROW = 5
"""Unanswered requests in a row after which the server is taken to be away."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The state. Moments are monotonic seconds."""

    cap_per_s: float
    """The operator's cap; infinite if none."""
    per_s: float
    """Requests per second allowed now; infinite while nobody has throttled."""
    next_at: float
    """Nobody sends before."""
    opened_at: float
    """When the gate last opened."""
    epoch: int = 0
    """How often the gate has closed."""
    probing: bool = False
    """The gate has opened, and one request alone tries."""
    closings: int = 0
    """Closings in a row without an answer between."""
    silent: int = 0
    """Unanswered requests in a row."""
    is_told: bool = False
    """Whether the pace is the gateway's own word."""


def begin(now: float, cap_per_s: float | None) -> Pace:
    """Return the state of a run that has sent nothing yet."""
    cap = cap_per_s or math.inf
    return Pace(cap_per_s=cap, per_s=cap, next_at=now, opened_at=now)


def permitted(pace: Pace, now: float) -> Pace:
    """A request leaves at *now*."""
    if math.isinf(pace.per_s):
        return pace
    interval = 1.0 / pace.per_s
    return replace(pace, next_at=max(pace.next_at, now - CATCH_UP_SLOTS * interval) + interval)


def answered(pace: Pace, epoch: int) -> Pace:
    """An answer came that was not a 429."""
    if epoch != pace.epoch:
        return pace
    is_climbing = not pace.is_told and pace.per_s < pace.cap_per_s
    if not (is_climbing or pace.probing or pace.closings or pace.silent):
        return pace
    per_s = pace.per_s + CLIMB_PER_ANSWER if is_climbing else pace.per_s
    return replace(pace, per_s=min(pace.cap_per_s, per_s), probing=False, closings=0, silent=0)


def throttled(pace: Pace, now: float, epoch: int, told: Throttled, answers: int) -> Pace:
    """A 429 came, after *answers* since the gate last opened."""
    if epoch != pace.epoch:
        return pace
    if told.limit is not None and told.window_s is not None:
        per_s, is_told = TOLD_SHARE * told.limit / told.window_s, True
    else:
        open_s = max(now - pace.opened_at, 1.0)
        per_s, is_told = min(pace.per_s, FALL * max(answers, 1) / open_s), False
    wait_s = told.retry_after_s
    if wait_s is None:
        wait_s = min(_closing_s(pace), told.window_s or LONGEST_CLOSING_S)
    per_s = min(pace.cap_per_s, max(per_s, SLOWEST_PER_S))
    return replace(_closed(pace, now + wait_s), per_s=per_s, is_told=is_told)


def told(pace: Pace, limits: Sequence[tuple[float, float]]) -> Pace:
    """An answer told limits, as requests per window and window in seconds: the tightest counts."""
    rates = [limit / window_s for limit, window_s in limits if window_s <= LONGEST_PACED_S]
    if not rates:
        return pace
    per_s = min(pace.cap_per_s, max(TOLD_SHARE * min(rates), SLOWEST_PER_S))
    if pace.is_told and pace.per_s == per_s:
        return pace
    return replace(pace, per_s=per_s, is_told=True)


def unanswered(pace: Pace, now: float, epoch: int, *, is_away: bool) -> Pace:
    """No answer came; *is_away*: not even a connection."""
    if epoch != pace.epoch:
        return pace
    if not is_away and not pace.probing and pace.silent + 1 < SILENT_IN_A_ROW:
        return replace(pace, silent=pace.silent + 1)
    return _closed(pace, now + _closing_s(pace))


def _closing_s(pace: Pace) -> float:
    return min(LONGEST_CLOSING_S, FIRST_CLOSING_S * 2.0 ** min(pace.closings, 16))


def _closed(pace: Pace, until: float) -> Pace:
    return replace(
        pace,
        next_at=max(pace.next_at, until),
        opened_at=until,
        epoch=pace.epoch + 1,
        probing=True,
        closings=pace.closings + 1,
        silent=0,
    )
