"""What the time of sending went to: each moment has one cause, so the causes add up to the time."""

from __future__ import annotations

import enum
import math
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


class TimeUse(enum.IntEnum):
    """What a moment goes to: of all that hold, the first."""

    PAUSED = 0
    """Nobody may send, as the operator said so."""
    AWAY = enum.auto()
    """Nobody may send, as the endpoint is away: it cannot be reached, or answers nothing."""
    CLOSED = enum.auto()
    """Nobody may send, as the gateway refuses."""
    PACED = enum.auto()
    """Nobody may send, for the pace's sake."""
    SENDING = enum.auto()
    """A request is under way that is not silent yet."""
    CREDENTIALS = enum.auto()
    """A token is renewed, or asked for."""
    LEDGER = enum.auto()
    """Somebody waits for the ledger."""
    SILENT = enum.auto()
    """No answer has come for much longer than answers take, whatever is sent meanwhile to see."""
    USERS_CLOSED = enum.auto()
    """Each user who has something to send is refused, where users are counted apart."""
    USERS_PACED = enum.auto()
    """The same for the sake of their pace."""
    BACKING_OFF = enum.auto()
    """A device's next attempt is waited for."""
    SETTLING = enum.auto()
    """A list is not to be read yet that settles doubt."""
    LOCKED = enum.auto()
    """A device is under a backup lock, and not to be tried again yet."""
    LISTENING = enum.auto()
    """All have ended, and an answer too many would yet show that one was another's."""
    AT_WORK = enum.auto()
    """Nothing of all that: this machine is busy, or was asleep."""


_ALL = tuple(TimeUse)


class Hold:
    """Something that is waited for, a context manager.

    Attributes:
        cause: What it is.
        for_s: How long it takes; infinite where nobody knows.
        until: When it is over (monotonic seconds).
        rows: How many rows wait.
        why: What made them, in words; may be empty.
    """

    __slots__ = ("_time", "cause", "for_s", "rows", "until", "why")

    def __init__(
        self,
        time: TimeSpent,
        cause: TimeUse,
        for_s: float = math.inf,
        rows: int = 1,
        why: str = "",
    ) -> None:
        self._time = time
        self.cause = cause
        self.for_s = for_s
        self.until = time.moment() + for_s
        self.rows = rows
        self.why = why

    def __enter__(self) -> Self:
        self._time.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """End the wait; once more does no harm."""
        self._time.remove(self)

    def turn(self, cause: TimeUse) -> None:
        """Let a wait that has not ended go on with another cause."""
        if cause is not self.cause and self._time.remove(self):
            self.cause = cause
            self._time.add(self)


class Waits(NamedTuple):
    """Rows that wait for a known time."""

    rows: int = 0
    left_s: float = 0.0
    """Until the last of them can go on."""
    last_s: float = 0.0
    """For how long the end of sending is expected to wait for such rows."""
    closed_s: float = 0.0
    """Until anybody may send again, as the gateway refuses."""


SOONEST_S = 0.3
"""Nothing is silent sooner; asked for each request, so that it is seldom asked when it is."""
ASLEEP_S = 2.0
"""Who looks so much too late could not look: the machine was busy or asleep."""
SAMPLE = 64
"""As many of the newest waits say how long one is."""
STEPS = 20
"""Of the sum by which `last_wait_s` integrates."""


def last_wait_s(*kinds: tuple[float, Sequence[float]]) -> float:
    """Return for how long the end of sending waits, in the mean, for rows that wait before it.

    Args:
        kinds: Of each kind of wait, how many begin per second, at random, and how long some took.

    So long after the end as y, one still goes on unless none of those began within `length - y`
    before it: 1 - exp(-sum of per_s * mean(max(0, length - y))). Its integral is the mean.
    """
    step_s = max((max(lengths, default=0.0) for _, lengths in kinds), default=0.0) / STEPS
    total_s = 0.0
    for step in range(STEPS):
        after_s = (step + 0.5) * step_s
        going_on = sum(
            per_s * sum(max(0.0, length - after_s) for length in lengths) / len(lengths)
            for per_s, lengths in kinds
            if lengths
        )
        total_s += (1.0 - math.exp(-going_on)) * step_s
    return total_s


class TimeSpent:
    """Attributes each moment since it was made to one cause; all moments are monotonic seconds.

    Attributes:
        silent_after_s: Returns after how long a request under way is silent.
        silenced: Requests that have ended after they were silent.
        is_more_to_send: Whether rows in doubt are not waited for: others are sent meanwhile.
        trouble: Why a device has to wait for its next attempt, as of the last one, in words.
    """

    __slots__ = (
        "_before", "_began", "_count", "_doubts", "_holds", "_lengths", "_lists", "_looked_at",
        "_now", "_out", "_seconds", "_sent_at", "_since", "_unheard_at", "_were_doubtful",
        "is_more_to_send", "silenced", "silent_after_s", "trouble",
    )  # fmt: skip

    def __init__(self, now: Callable[[], float] = lambda: 0.0) -> None:
        """*now*: the clock; without one no time passes."""
        self._now = now
        self._began = self._since = self._sent_at = self._looked_at = now()
        self._seconds = [0.0] * len(TimeUse)
        self._before = [*self._seconds]
        """As they were when somebody looked last."""
        self._holds: tuple[dict[Hold, None], ...] = tuple({} for _ in TimeUse)
        """What is waited for, by cause."""
        self._out: dict[int, float] = {}
        """When each request under way left, the earliest first."""
        self._lists: set[int] = set()
        """Those that ask for a list."""
        self._count = self._were_doubtful = self.silenced = 0
        self._lengths: deque[float] = deque(maxlen=SAMPLE)
        """How long the last of *_count* backoffs took."""
        self._doubts: deque[float] = deque(maxlen=SAMPLE)
        """How long the last of *_were_doubtful* rows would have kept the end of sending waiting."""
        self._unheard_at = math.inf
        """When the first request left of those since the last answer; infinite: none has."""
        self.is_more_to_send = False
        self.trouble = ""
        self.silent_after_s: Callable[[], float] = lambda: math.inf

    def moment(self) -> float:
        """Return the clock's time."""
        return self._now()

    def waiting(
        self, cause: TimeUse, for_s: float = math.inf, rows: int = 1, why: str = ""
    ) -> Hold:
        """Return a context manager that holds a cause."""
        return Hold(self, cause, for_s, rows, why)

    def add(self, hold: Hold) -> None:
        """Begin to wait."""
        self._book()
        self._holds[hold.cause][hold] = None
        self.trouble = hold.why or self.trouble
        if hold.cause is TimeUse.BACKING_OFF and hold.for_s < math.inf:
            self._count += 1
            self._lengths.append(hold.for_s)

    def remove(self, hold: Hold) -> bool:
        """End a wait; return whether it had not ended before."""
        self._book()
        known = len(self._holds[hold.cause])
        self._holds[hold.cause].pop(hold, None)
        return len(self._holds[hold.cause]) < known

    def sent(self, request: int) -> None:
        """A request leaves."""
        now = self._now()
        if not self._out or self._is_silent(now):
            self._book()  # else the last one that left has only been followed by another
        self._out[request] = self._sent_at = now
        self._unheard_at = min(self._unheard_at, now)

    def asks_list(self, request: int) -> None:
        """One that has left asks for a list."""
        self._lists.add(request)

    def sent_along(self, request: int) -> None:
        """A request leaves along with the last one."""
        if self._out:
            self._out[request] = self._sent_at
        else:
            self.sent(request)

    def sent_all_along(self, requests: Iterable[int]) -> None:
        """Requests leave along with the last one, which is under way."""
        self._out.update(dict.fromkeys(requests, self._sent_at))

    def ended_all(self, requests: Iterable[int]) -> None:
        """Answers to them have come."""
        self._book()
        self._unheard_at = math.inf
        for request in requests:
            self._out.pop(request, None)

    def ended(self, request: int, *, is_answered: bool = True) -> None:
        """It is no longer under way. *is_answered*: and not given up."""
        sent_at = self._out.get(request)
        if sent_at is None:
            return
        now = self._now()
        if request == next(reversed(self._out)) or self._is_silent(now):
            self._book()  # else nothing is silent any sooner, or later
        del self._out[request]
        if self._lists:
            self._lists.discard(request)
        if is_answered or not self._out or now < sent_at + self.silent_after_s():
            self._unheard_at = math.inf

    def _book(self) -> None:
        """Attribute what has passed since the last change; it alone may have fallen silent."""
        now, since = self._now(), self._since
        if now <= since:
            return
        self._since = now
        cause = self._first(TimeUse.PAUSED, TimeUse.SENDING)
        if cause is None and self._out:
            silent_at = min(now, max(since, self._silent_at()))
            self._seconds[TimeUse.SENDING] += silent_at - since
            since = silent_at
        if cause is None:
            cause = self._rest()
        self._seconds[cause] += now - since

    def _silent_at(self) -> float:
        """Return when what is under way has fallen silent, or will.

        By the first that left after the last answer: that more are sent does not end the silence.
        """
        return self._left_at() + self.silent_after_s()

    def _left_at(self) -> float:
        left_at = next(reversed(self._out.values()))
        return min(self._unheard_at, left_at)

    def _is_silent(self, now: float) -> bool:
        left_at = self._left_at()
        return now - left_at >= SOONEST_S and now >= left_at + self.silent_after_s()

    def _first(self, begin: TimeUse, end: TimeUse) -> TimeUse | None:
        """Return the first cause of those before *end* that is held."""
        for cause in range(begin, end):
            if self._holds[cause]:
                return _ALL[cause]
        return None

    def _rest(self) -> TimeUse:
        """Return the cause where no request is under way but silent ones."""
        cause = self._first(TimeUse.CREDENTIALS, TimeUse.SILENT)
        if cause is None and self._out:
            return TimeUse.SILENT
        return cause or self._first(TimeUse.USERS_CLOSED, TimeUse.AT_WORK) or TimeUse.AT_WORK

    def now(self) -> TimeUse:
        """Return what the present moment goes to."""
        cause = self._first(TimeUse.PAUSED, TimeUse.SENDING)
        if cause is None and self._out and self._now() < self._silent_at():
            return TimeUse.SENDING
        return self._rest() if cause is None else cause

    def look(self, every_s: float) -> None:
        """Note that *every_s* seconds were to pass since the last look, or the first moment.

        If it was many more, this machine was busy or asleep, or the process was suspended: whatever
        was waited for meanwhile, the rest is `AT_WORK`.
        """
        self._book()
        passed_s = self._since - self._looked_at
        if passed_s > every_s + ASLEEP_S:
            kept = every_s / passed_s
            seconds, before = self._seconds, self._before
            self._seconds = [b + kept * (s - b) for s, b in zip(seconds, before, strict=True)]
            self._seconds[TimeUse.AT_WORK] += sum(seconds) - sum(self._seconds)
        self._looked_at, self._before = self._since, [*self._seconds]

    def seconds(self, *causes: TimeUse) -> float:
        """Return the seconds of some causes."""
        self._book()
        return sum(self._seconds[cause] for cause in causes)

    def total_s(self) -> float:
        """Return the seconds since it was made, which those of all causes add up to."""
        return self.seconds(*TimeUse)

    def waits(self, cause: TimeUse) -> Waits:
        """Return what waits for a cause now, as far as it is known how long."""
        holds = [hold for hold in self._holds[cause] if hold.for_s < math.inf]
        if not holds:
            return Waits()
        left_s = max(0.0, max(hold.until for hold in holds) - self._now())
        return Waits(sum(hold.rows for hold in holds), left_s)

    @property
    def under_way(self) -> int:
        """How many requests have left and have not ended."""
        return len(self._out)

    @property
    def lists_under_way(self) -> int:
        """How many of them ask for lists."""
        return len(self._lists)

    def looked_up(self, seconds: float) -> None:
        """A row is in doubt no longer, which took so long where nothing else was to be sent.

        A list that shows it does so at once; only one that lacks it takes its time.
        """
        self._were_doubtful += 1
        self._doubts.append(seconds)

    def last_wait_s(self, silent_s: float) -> float:
        """Return for how long the end of sending is expected to wait for rows, as of so far.

        *silent_s*: how long a row waits for its list whose request falls silent.
        """
        total_s = self.total_s() or 1.0
        silent = (self.silenced + self.silent()[0]) / total_s
        return last_wait_s(
            (self._count / total_s, self._lengths),
            (self._were_doubtful / total_s, self._doubts),
            (silent, [silent_s] if silent else []),
        )

    def silent(self) -> tuple[int, float, float]:
        """Return how many requests are silent, and how long the first and the last have been out.

        In seconds; zeros where none is.
        """
        now, after_s = self._now(), self.silent_after_s()
        ages = [now - sent_at for sent_at in self._out.values() if now - sent_at >= after_s]
        return (len(ages), ages[0], ages[-1]) if ages else (0, 0.0, 0.0)

    def given_up_in(self, patience_s: float, list_patience_s: float) -> tuple[float, float]:
        """Return in how many seconds the first and the last silent request is given up.

        *patience_s*, *list_patience_s*: how long an answer, or a list, is waited for. Zeros where
        none is silent.
        """
        now, after_s = self._now(), self.silent_after_s()
        left_s = [
            max(0.0, sent_at + (list_patience_s if request in self._lists else patience_s) - now)
            for request, sent_at in self._out.items()
            if now - sent_at >= after_s
        ]
        return (min(left_s), max(left_s)) if left_s else (0.0, 0.0)
