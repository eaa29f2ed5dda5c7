"""What a person wants to know while sending: the pace, and why it waits."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING

from bulkbind.clock import iso
from bulkbind.model import RunFacts, TimeUse, Told, Waits
from bulkbind.model.fields import enumeration
from bulkbind.model.wording import counted
from bulkbind.report.measures import left_to_others, limit_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bulkbind.clock import Clock
    from bulkbind.engine import StopSignal
    from bulkbind.model import WorkerState
    from bulkbind.pacing import Pacer

WORTH_SHOWING_S = 1.0
"""Shorter waits are part of the pace."""
GO = "`bulkbind adjust --go`"
"""What resumes a run that an operator has paused."""
ANOTHER = 0.2
"""A limit that differs by more is another one: what was sent before says nothing of it."""
NEARLY_ALL, MOST = 0.9, 0.5
"""Shares of the time."""


class Gauge:
    """Reads the pacer, and what the time goes to, for display."""

    def __init__(  # noqa: PLR0917  # what a display shows
        self,
        pacer: Pacer,
        clock: Clock,
        what: str = "binding",
        patience_s: Callable[[], float] = lambda: 0.0,
        trouble: Callable[[], str] = lambda: "",
        workers: Callable[[], Sequence[WorkerState]] = lambda: (),
        most_left: Callable[[], int] = lambda: 0,
        list_patience_s: Callable[[], float] = lambda: 0.0,
        stop: StopSignal | None = None,
    ) -> None:
        """*patience_s*, *list_patience_s*: return for how long an answer, a list, is waited for.

        *trouble*: returns why there was no connection the last time. *workers*: returns how the
        processes that send are doing. *most_left*: returns how many rows one user has left, at
        most, where each has a limit of its own.
        """
        self._most_left = most_left
        self.workers = workers
        self._trouble = trouble
        self._pacer = pacer
        self._patience_s, self._list_patience_s = patience_s, list_patience_s
        self._stop = stop
        self._clock = clock
        self.what = what
        """`binding` or `unbinding`."""
        self.known_at = ""
        """Since when about this limit has been known, and has let requests through, as far as
        somebody looked; empty: none is known."""
        self._known_per_s = 0.0

    def per_s(self) -> float | None:
        """Return the requests per second allowed now; None without a limit."""
        per_s = self._pacer.per_s()
        closed_s = self._closed_s()
        if per_s is not None and (closed_s > WORTH_SHOWING_S or self._is_another(per_s)):
            opens_at = self._clock.utc_now() + timedelta(seconds=closed_s)
            self.known_at, self._known_per_s = iso(opens_at), per_s
        return per_s

    def _is_another(self, per_s: float) -> bool:
        return abs(per_s - self._known_per_s) > ANOTHER * self._known_per_s

    def _closed_s(self) -> float:
        return self._pacer.closed_for_s() if self._pacer.is_closed else 0.0

    def source(self) -> str:
        """Return the origin of that limit, and what of it is left to others."""
        left = self._pacer.left()
        return self._pacer.source() + (left_to_others(*left) if left else "")

    def told(self) -> Told | None:
        """Return the limit as the gateway told it; None: it told none."""
        told = self._pacer.told()
        return None if told is None else Told(*told)

    def throttled(self) -> int:
        """Return how many requests were throttled."""
        return self._pacer.throttled

    def waiting(self) -> Waits:
        """Return what waits now for another attempt, for its list, or without an answer.

        Once no more is to be sent, lists are asked about rows without an answer.
        """
        time = self._pacer.time
        silent, _, last_s = time.silent()
        silent_s = time.silent_after_s()
        unanswered = Waits(silent, max(0.0, silent_s - last_s))
        again, doubt = time.waits(TimeUse.BACKING_OFF), time.waits(TimeUse.SETTLING)
        last_s = time.last_wait_s(silent_s)
        doubt_s = doubt.left_s
        if time.is_more_to_send:  # lists are read at the end, and may lack some as those before
            doubt_s = last_s if doubt.rows else 0.0
        # One user's rows go one after the other, however many others are done.
        one_user_s = self._most_left() / (self._pacer.pace() or math.inf)
        unanswered_s = unanswered.left_s if silent else 0.0
        return Waits(
            rows=silent + again.rows + doubt.rows,
            left_s=max(unanswered_s, again.left_s, doubt_s, one_user_s),
            last_s=last_s,
            closed_s=self._closed_s(),
        )

    def is_blocked(self) -> bool:
        """Return whether nobody may send, and nobody knows for how long.

        The operator said so, the endpoint is away, or answers nothing though more is to be sent,
        the gateway refuses and has shown no limit, or the run is ending.
        """
        pacer = self._pacer
        is_refused = pacer.is_closed and pacer.per_s() is None
        is_silent = pacer.time.is_more_to_send and pacer.time.now() is TimeUse.SILENT
        is_away = pacer.is_paused or pacer.is_away or is_refused or is_silent
        return is_away or bool(self.stopping())

    def look(self, every_s: float) -> None:
        """Note that *every_s* seconds were to pass since the last look; see `TimeSpent.look`."""
        self._pacer.time.look(every_s)

    def stopping(self) -> str:
        """Return why the run is ending, and what it still waits for; empty while it is not."""
        reason = self._stop.reason if self._stop else None
        if self._stop is None or reason is None:
            return ""
        time = self._pacer.time
        lists, doubtful = time.lists_under_way, time.waits(TimeUse.SETTLING).rows
        answers = time.under_way - lists
        awaited = [
            *([counted(answers, "answers")] if answers else []),
            *([counted(lists, "lists")] if lists else []),
            *([f"the lists of {counted(doubtful, 'devices')}"] if doubtful else []),
        ]
        why = reason.text.partition(";")[0]
        if not awaited:
            return why
        left_s = self._stop.gives_up_at - self._clock.monotonic()
        until = f", until {self._moment(max(0.0, left_s))}" if left_s < math.inf else ""
        return f"{why}; waits for {enumeration(*awaited, last='and')}{until}"

    def trouble(self) -> str:
        """Return what else does not go smoothly, beside `waits`, in words; empty if all does."""
        time = self._pacer.time
        silent, first_s, _ = time.silent()
        again, doubt = time.waits(TimeUse.BACKING_OFF).rows, time.waits(TimeUse.SETTLING).rows
        until = self._moment(self._given_up_in()[1])
        found = {
            TimeUse.BACKING_OFF: again
            and f"{counted(again, 'devices')} to be tried again"
            + (f": {time.trouble}" if time.trouble else ""),
            TimeUse.SETTLING: doubt and f"lists to be read for {counted(doubt, 'devices')}",
            TimeUse.SILENT: silent
            and f"{counted(silent, 'requests')} without an answer for up to {first_s:.0f} s, "
            f"waited for until {until}",
        }
        said = time.now() if self.waits() else None
        return ", ".join(text for cause, text in found.items() if text and cause is not said)

    def waits(self) -> str:
        """Return briefly why nothing is sent now; empty if something is."""
        if self._pacer.is_paused:
            return f"paused by an operator; {GO} resumes it"
        closed_s = self._pacer.closed_for_s()
        if closed_s > WORTH_SHOWING_S:
            until = self._moment(closed_s)
            if self._pacer.is_away:
                return f"the endpoint is away{self._why()}; tried again at {until}"
            is_refused = self._pacer.is_closed
            return f"the gateway refuses (429) until {until}" if is_refused else self._paced(until)
        if self._pacer.is_away:
            return f"the endpoint is away{self._why()}; one request tries"
        if self._pacer.is_closed:
            return "the gateway refuses (429); one request tries"
        return self._waits_for_others()

    def _paced(self, until: str) -> str:
        pace = self._pacer.pace()
        within = f", to keep within {limit_text(pace, self.told())}" if pace else ""
        return f"next request at {until}{within}"

    def _waits_for_others(self) -> str:
        time = self._pacer.time
        cause = time.now()
        waits = time.waits(cause)
        devices, moment = counted(waits.rows, "devices"), self._moment(waits.left_s)
        by = "at" if waits.rows == 1 else "by"
        why = f"{time.trouble}; " if time.trouble else ""
        words = {
            TimeUse.CREDENTIALS: "getting credentials",
            TimeUse.BACKING_OFF: f"{why}{devices} tried again {by} {moment}",
            TimeUse.SETTLING: f"lists are read for {devices}, by {moment}",
            TimeUse.LOCKED: f"{devices} under a backup lock, tried again at {moment}",
            TimeUse.LISTENING: "all have ended; listening for answers too many",
        }
        if cause is not TimeUse.SILENT:
            return words.get(cause, "")
        count, first_s, _ = time.silent()
        until = self._moment(self._given_up_in()[0])
        what = f"{counted(count, 'requests')} without an answer for {first_s:.0f} s"
        return f"{what}, given up from {until} on"

    def _given_up_in(self) -> tuple[float, float]:
        return self._pacer.time.given_up_in(self._patience_s(), self._list_patience_s())

    def _why(self) -> str:
        trouble = self._trouble()
        return f": {trouble}" if trouble else ""

    def _moment(self, wait_s: float) -> str:
        moment = (self._clock.utc_now() + timedelta(seconds=wait_s)).astimezone()
        return f"{moment:%H:%M:%S}"


def where_time_went(pacer: Pacer, endpoint: str, trouble: str, *, has_answered: bool) -> str:
    """Return what most of the time went to, as a clause.

    *trouble*: why there was no connection the last time; *has_answered*: whether any answer came.
    """
    time = pacer.time
    if not has_answered and trouble:
        return f"{endpoint} was never reached: {trouble}"
    if not has_answered and (time.under_way or time.seconds(TimeUse.SILENT)):
        return f"{endpoint} never answered"
    by_gateway = (TimeUse.CLOSED, TimeUse.PACED, TimeUse.USERS_CLOSED, TimeUse.USERS_PACED)
    groups = {by_gateway[0]: by_gateway} | {
        cause: (cause,) for cause in TimeUse if cause not in by_gateway
    }
    seconds = {cause: time.seconds(*causes) for cause, causes in groups.items()}
    most = max(seconds, key=lambda cause: seconds[cause])
    share = seconds[most] / (time.total_s() or 1.0)
    part = next(
        (words for least, words in ((NEARLY_ALL, "nearly all"), (MOST, "most")) if share >= least),
        "the largest part",
    )
    return f"{part} of it spent {_spent(most, pacer, endpoint, trouble)}"


def _said(cause: TimeUse) -> str:
    return next(wait.said for _, wait, _ in RunFacts().waits() if cause in wait.uses)


def _spent(cause: TimeUse, pacer: Pacer, endpoint: str, trouble: str) -> str:
    if cause is TimeUse.AWAY:
        return f"waiting: {endpoint} was away" + (f": {trouble}" if trouble else "")
    if cause is TimeUse.BACKING_OFF and pacer.time.trouble:
        return f"{_said(cause)}: {pacer.time.trouble}"
    if cause is not TimeUse.CLOSED:
        return _said(cause)
    per_s = pacer.pace()
    if per_s is None:
        refused = counted(pacer.throttled, "requests")
        return f"waiting: the gateway refused {refused}, and shows no limit"
    told = pacer.told()
    who = "--rate" if pacer.source().endswith("--rate") else "the gateway"
    return f"waiting: {who} allows {limit_text(per_s, told and Told(*told))}"
