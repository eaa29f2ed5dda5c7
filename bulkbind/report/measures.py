"""Durations and rates, as a person reads them, and how long what is left takes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bulkbind.clock import HOUR_S, MINUTE_S
from bulkbind.model import Told, Waits
from bulkbind.model.fields import enumeration
from bulkbind.model.wording import counted, span_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bulkbind.model import WorkerState

NOTHING_WAITS = Waits()
RATE_OVER_S = (5.0, 10.0, 60.0)
"""The times over which a rate may be measured."""
ENOUGH = 20
"""Rows that make a rate."""
SHORT_S = 1.0
"""What takes less is under way already."""
FEW = 3.0
"""Where fewer rows were allowed, that none has ended says nothing."""
MOST_APART = 4
"""Workers that are told one by one."""
MOST_LOST = 2
"""Lost workers that are told with the reason."""
TO_A_TENTH = 100.0
"""Rates below this are told to a tenth."""


def moment(text: str | None) -> str:
    """Return a time from the ledger to the second: `2026-11-23 20:44:03 UTC`."""
    return f"{text[:10]} {text[11:19]} UTC" if text else ""


def rate_text(
    per_s: float, like_per_s: float | None = None, told_over_s: float | None = None
) -> str:
    """Return a rate for display, in the unit in which it is at least 1: `57.9/s`, `5/min`, `30/h`.

    *per_s*: per second. *like_per_s*: another rate, whose unit is taken if it is no more than this.
    *told_over_s*: the window that somebody told the limit for, seconds; its unit is the least.
    """
    like = min(per_s or math.inf, like_per_s or math.inf)
    like = 0.0 if math.isinf(like) else like
    for unit, seconds in (("s", 1.0), ("min", MINUTE_S)):
        is_shorter = (told_over_s or 0.0) >= MINUTE_S * seconds
        if not is_shorter and (round(like * seconds, 1) >= 1 or not like):
            return f"{_number(per_s * seconds)}/{unit}"
    return f"{_number(per_s * HOUR_S)}/h"


def limit_text(per_s: float, told: Told | None = None) -> str:
    """Return a limit for display, as the gateway told it if it did: `300/min`."""
    return rate_text(told.limit / told.over_s, None, told.over_s) if told else rate_text(per_s)


def left_to_others(share: float, per_s: float) -> str:
    """Return what of a limit is left to others, to stand behind where it comes from; or nothing.

    *share*: so much of it is used; *per_s*: so much less.
    """
    parts = [f"{1 - share:.0%}"] if share < 1 else []
    parts += [rate_text(per_s)] if per_s else []
    return f", less the {' and '.join(parts)} left to others" if parts else ""


def pace_text(
    per_s: float,
    allowed_per_s: float | None,
    source: str,
    took_s: float,
    left: float | None,
    *,
    told: Told | None = None,
) -> str:
    """Return the rate, in the unit of the one that is allowed, the time taken, and what is left."""
    rate = rate_text(per_s, allowed_per_s or None, told.over_s if told else None)
    allowed = (
        f" of {limit_text(allowed_per_s, told)} ({source})" if allowed_per_s else f"; {source}"
    )
    parts = [f"{rate}{allowed}", f"{span_text(took_s)} so far"]
    parts += [f"about {span_text(left)} left"] if left is not None else []
    return "  ·  ".join(parts)


def _number(rate: float) -> str:
    return f"{rate:,.1f}".removesuffix(".0") if rate < TO_A_TENTH else f"{rate:,.0f}"


def rate_over_s(ended_within: Callable[[float], int]) -> float:
    """Return the time over which a rate is measured: the shortest in which enough rows ended."""
    return next((s for s in RATE_OVER_S if ended_within(s) >= ENOUGH), RATE_OVER_S[-1])


def workers_now(workers: Sequence[WorkerState]) -> str:
    """Return how workers are doing: how many, how fast, how much they have, who was lost."""
    alive = [worker for worker in workers if worker["is_alive"]]
    in_hand = sum(worker["in_hand"] for worker in workers)
    waiting = [why for worker in workers if (why := worker.get("waits"))]
    if waiting and not in_hand:
        told = f"the run's own process sends alone, as {waiting[0]}; {len(waiting)} waiting"
        return "; ".join([told, *_lost(workers)])
    of_all = f" of {len(workers)}" if len(alive) < len(workers) else ""
    rates = _each([worker["per_s"] for worker in alive], rate_text, "")
    told = f"{len(alive)}{of_all} sending" + (f" at {rates}" if rates else "")
    return "; ".join([told, f"{counted(in_hand, 'rows')} in hand", *_lost(workers)])


def sent_by(workers: Sequence[WorkerState], own_settled: int) -> str:
    """Return through whom how many rows ended: the run's own process, and each of its workers."""
    rows = _each([worker["settled"] for worker in workers], "{:,}".format, " rows")
    own = f"the run's own process with {counted(own_settled, 'rows')}, " if own_settled else ""
    return f"{own}{counted(len(workers), 'workers')} with {rows}"


def workers_at_end(workers: Sequence[WorkerState], own_settled: int = 0) -> str:
    """Return who sent: what `sent_by` does, and who was lost."""
    return "; ".join([sent_by(workers, own_settled), *_lost(workers)])


def _each(figures: Sequence[float], text: Callable[[float], str], unit: str) -> str:
    """Return a figure of each, or of many the least and the most; empty for none."""
    if not figures:
        return ""
    if len(figures) > MOST_APART:
        return f"{text(min(figures))} to {text(max(figures))}{unit} each"
    return enumeration(*map(text, figures), last="and") + unit


def _lost(workers: Sequence[WorkerState]) -> list[str]:
    lost = [worker for worker in workers if worker["lost"]]
    told = [f"worker {_named(worker)} lost: {worker['lost']}" for worker in lost[-MOST_LOST:]]
    more = len(lost) - len(told)
    return [*([f"{more} more lost"] if more else []), *told]


def _named(worker: WorkerState) -> str:
    return str(worker["number"]) + (f" on {host}" if (host := worker.get("host")) else "")


def left_s(
    rows: int,
    per_s: float,
    allowed_per_s: float | None,
    waits: Waits = NOTHING_WAITS,
    *,
    over_s: float = math.inf,
    since_s: float = 0.0,
) -> float | None:
    """Return the seconds to the end; None if nothing moves, or nothing is left.

    Args:
        rows: Rows to be settled, those in doubt included.
        per_s: Rows settled per second of late.
        allowed_per_s: Requests per second allowed now; None without a limit.
        waits: What of them waits now: it ends no sooner; what is still to be sent will wait, too.
        over_s: The seconds over which that was measured. One more row may be about to end: where
            that makes it what is allowed, it is.
        since_s: Seconds since the last row ended: part of what the next one takes.
    """
    one_more = 1.0 / over_s if over_s else math.inf
    speed = per_s if allowed_per_s is None else min(per_s + one_more, allowed_per_s)
    if allowed_per_s is not None and (
        waits.closed_s > SHORT_S or (per_s <= 0 and allowed_per_s * over_s < FEW)
    ):
        speed = allowed_per_s  # nothing is known of how it goes there
    elif per_s <= 0:
        return None
    if rows <= 0:
        return None
    sending = rows - waits.rows
    sending_s = waits.closed_s + max(0.0, sending - min(1.0, since_s * speed)) / speed
    return max(sending_s + (waits.last_s if sending_s >= SHORT_S else 0.0), waits.left_s)
