"""The pacer: carries out what the calculators say, for everybody who sends."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from bulkbind.logs import logger
from bulkbind.model import NoAnswer, ServerLimit, Throttled, Unreachable, Verdict
from bulkbind.pacing.learner import LONGEST_PACED_S, Pace
from bulkbind.pacing.width import Flight

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from bulkbind.clock import Clock
    from bulkbind.pacing.gate import Turn

MOST_IN_FLIGHT = 1000
"""Where nobody says otherwise."""
CHANGED = 0.05
"""A pace that differs by less from the one last logged is not logged."""


class Stop(Protocol):
    """Says that the run stops, and ends what waits then."""

    @property
    def is_set(self) -> bool:
        """Whether the run is stopping."""
        ...

    def cutting_short(self) -> AbstractContextManager[None]:
        """Let a stop end what the block awaits, by an error of its own."""
        ...


class Out(NamedTuple):
    """A request on its way."""

    epoch: int
    in_flight: int
    sent_at: float


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit as it was learned, for the next run."""

    per_s: float
    is_spaced: bool
    """Whether the gateway refuses requests that come close together."""


class Pacer:
    """Gives permits in order of asking; one waiter at a time sleeps, the others wait for it.

    Attributes:
        state: The calculator of when anybody may send.
        learner: The calculator that learns the gateway's limit: the same one, where it counts all
            requests together.
        flight: The calculator of how many may be in flight.
        throttled: 429s seen.
        paced_s: For how long nobody was allowed to send, for the pace's sake.
        cooled_s: The same while the gate was closed.
    """

    def __init__(
        self,
        clock: Clock,
        stop: Stop,
        cap_per_s: float | None = None,
        *,
        concurrency: int = MOST_IN_FLIGHT,
        learned: Limit | None = None,
    ) -> None:
        self._clock = clock
        self._stop = stop
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._taken = asyncio.Event()
        self._answered = asyncio.Event()
        self._try: int | None = None
        """The permit of the one request that tries while the gate is closed."""
        self._out: dict[int, Out] = {}
        """What is in flight by its permit, the earliest first, but for …"""
        self._silent: dict[int, Out] = {}
        """… what has been for much longer than answers take."""
        self._permits = 0
        self._windows: dict[str, float] = {}
        """Header -> the longest time to a reset that it told."""
        self._told_by = ""
        self._log = logger()
        self._learn_anew(cap_per_s, learned)
        self.state = self.learner
        self.flight = Flight(clock.monotonic(), concurrency)
        self.throttled = 0
        self.paced_s = self.cooled_s = 0.0

    def _learn_anew(self, cap_per_s: float | None, learned: Limit | None) -> None:
        now = self._clock.monotonic()
        self.learner = (
            Pace(now, cap_per_s, learned.per_s, is_spaced=learned.is_spaced)
            if learned
            else Pace(now, cap_per_s)
        )
        self._logged_per_s = self.learner.per_s
        self._cap_per_s = cap_per_s
        self._learned_before = learned is not None

    async def permit(self, user_id: str | None = None) -> int:  # noqa: ARG002  # the protocol's
        """Return once a request may be sent: a number to hand back to `report`.

        *user_id*: whose request it is; the gateway that this pacer is for does not mind.

        Raises: DrainedError when the run stops; nothing may be sent then.
        """
        state = self.state
        if not self._turn.locked() and not state.is_closed and not self._stop.is_set:
            now = self._clock.monotonic()
            is_due = now >= state.next_at and now >= self.flight.next_at
            if is_due and self._has_place(now):
                return self._take(now)
        self._waiting += 1
        try:
            with self._stop.cutting_short():
                async with self._turn:
                    return await self._wait()
        finally:
            self._waiting -= 1
            self._taken.set()

    def has_room(self) -> bool:
        """Return whether less than a second of the pace waits for a permit."""
        return self._waiting < max(1.0, self.state.per_s)

    async def room(self) -> None:
        """Return once less than a second of the pace waits for a permit.

        Whoever takes rows in hand only then has few in question when the run is cut off.

        Raises: DrainedError when the run stops.
        """
        while not self.has_room():
            self._taken.clear()
            with self._stop.cutting_short():
                await self._taken.wait()

    async def _wait(self) -> int:
        state = self.state
        while True:
            now = self._clock.monotonic()
            if state.is_closed and self._try is not None:
                sure_at = state.sure_at()
                await self._answered_by(sure_at)
                self._mind_sure(sure_at)
                self._count_closed(now)
            elif not self._has_place(now):
                await self._answered_by(self._silent_at())
                self._count_closed(now)
            elif now < state.next_at:
                was_closed = state.is_closed
                await self._clock.sleep(state.next_at - now)
                if was_closed:
                    self._count_closed(now)
                else:
                    self.paced_s += self._clock.monotonic() - now
            elif now < self.flight.next_at:
                await self._clock.sleep(self.flight.next_at - now)
            else:
                permit = self._take(now)
                if state.is_closed:
                    self._try = permit
                return permit

    def _has_place(self, now: float) -> bool:
        """Return whether one more may be in flight."""
        self._mind_silent(now)
        silent = len(self._silent)
        return self.flight.has_place(now, self.state.per_s, len(self._out) + silent, silent)

    def _mind_silent(self, now: float) -> None:
        while self._next_silent_at() <= now:
            permit = next(iter(self._out))
            self._silent[permit] = self._out.pop(permit)
            self.flight.fell_silent(now)

    def _next_silent_at(self) -> float:
        for out in self._out.values():
            return out.sent_at + self.flight.silent_s
        return math.inf

    def _silent_at(self) -> float:
        """Return when another place may be had though no answer comes; infinite: never."""
        is_at_most = len(self._out) + len(self._silent) >= self.flight.most
        return math.inf if is_at_most else self._next_silent_at()

    async def _answered_by(self, moment: float) -> None:
        """Wait for an answer, but no longer than until *moment*."""
        self._answered.clear()
        if moment == math.inf:
            await self._answered.wait()
            return
        heard = asyncio.ensure_future(self._answered.wait())
        left_s = max(0.0, moment - self._clock.monotonic())
        timer = asyncio.ensure_future(self._clock.sleep(left_s))
        try:
            await asyncio.wait((heard, timer), return_when=asyncio.FIRST_COMPLETED)
        finally:
            heard.cancel()
            timer.cancel()

    def _mind_sure(self, sure_at: float) -> None:
        """Open the gate if the request that tries has surely got through."""
        now = self._clock.monotonic()
        if self.state.is_closed and self._try is not None and now >= sure_at:
            self._try = None
            self.state.sure(now)

    def _count_closed(self, since: float) -> None:
        if self.state.is_closed:
            self.cooled_s += self._clock.monotonic() - max(since, self.state.closed_at)

    def _take(self, now: float) -> int:
        self.state.sent(now)
        self.flight.sent(now)
        self._permits += 1
        in_flight = len(self._out) + len(self._silent) + 1
        self._out[self._permits] = Out(self.state.epoch, in_flight, now)
        return self._permits

    def report(self, permit: int, verdict: Verdict, limits: tuple[ServerLimit, ...] = ()) -> None:
        """Learn from the verdict on a permitted request, and from the limits in its answer."""
        state, now = self.state, self._clock.monotonic()
        self._mind_silent(now)
        was_silent = permit in self._silent
        out = self._silent.pop(permit) if was_silent else self._out.pop(permit)
        if limits:
            self._learn(limits)
        epoch = state.epoch
        match verdict:
            case Throttled():
                self.throttled += 1
                self.state.refusal_took(now - out.sent_at)
                self._refused(now, permit, out, verdict)
            case NoAnswer() | Unreachable():
                # What left long before others that were answered does not say that it is away.
                is_past = was_silent and permit != self._try and self.flight.is_served(now)
                self._unanswered(
                    now, out, is_away=isinstance(verdict, Unreachable), is_past=is_past
                )
            case _:
                self._got_through(now, permit, out)
                self.flight.accepted(now, out.in_flight, now - out.sent_at)
        if epoch != state.epoch or self.learner.per_s != self._logged_per_s:
            self._tell(type(verdict).__name__, is_away=epoch != state.epoch and state.is_away)
        self._back(permit)

    def _unanswered(self, now: float, out: Out, *, is_away: bool, is_past: bool) -> None:
        if is_past:
            self.state.not_through(out.epoch)
        else:
            self.state.unanswered(now, out.epoch, is_away=is_away)
        if not is_away:
            self.flight.unanswered(now, was_silent=is_past)

    def _got_through(self, now: float, permit: int, out: Out) -> None:  # noqa: ARG002  # see there
        self.state.accepted(now, out.epoch)

    def _refused(self, now: float, permit: int, out: Out, verdict: Throttled) -> None:  # noqa: ARG002  # as above
        self._close(self.state, now, out.epoch, out.in_flight, verdict)

    def _close(
        self, turn: Turn, now: float, epoch: int, in_flight: int, verdict: Throttled
    ) -> None:
        """A limit in flight is met by fewer at once; any other closes the gate."""
        wide = self.flight.wide
        is_untold = verdict.limit is None and verdict.retry_after_s is None
        is_paced = turn.is_closed or epoch != turn.epoch or not is_untold
        if not is_paced and self.flight.throttled(now, in_flight):
            turn.not_through(epoch)
            if self.flight.wide != wide:
                self._log.info("pace.changed", why="Throttled", in_flight=self.flight.wide)
            return
        if self.flight.is_spacing:
            self.learner.search.mind_spacing()
        turn.throttled(
            now,
            epoch,
            limit=verdict.limit,
            window_s=verdict.window_s,
            retry_after_s=verdict.retry_after_s,
        )

    def _tell(self, why: str, *, is_away: bool) -> None:
        """Log a pace that has changed, not every 429; and that the server is away."""
        per_s = self.learner.per_s
        is_told = math.isfinite(per_s) and not self.learner.is_closed
        if is_away or (is_told and abs(per_s - self._logged_per_s) > CHANGED * per_s):
            self._logged_per_s = per_s
            self._log.info(
                "pace.changed",
                why=why,
                per_s=round(per_s, 2) if math.isfinite(per_s) else None,
                told=self.learner.is_told,
                closed_s=round(self.closed_for_s(), 2),
            )

    def _learn(self, stated: Sequence[ServerLimit]) -> None:
        """Follow limits; where no window is told, it is the longest time to a reset seen."""
        limits = []
        for item in stated:
            window_s = item.window_s
            if window_s is None and item.reset_s:
                window_s = max(item.reset_s, self._windows.get(item.source, 0.0))
                self._windows[item.source] = window_s
            if item.limit is not None and window_s:
                limits.append((item.limit, window_s, item.source))
        self.learner.told((limit, window_s) for limit, window_s, _ in limits)
        followed = [limit for limit in limits if limit[1] <= LONGEST_PACED_S]
        if followed:
            self._told_by = min(followed, key=lambda limit: limit[0] / limit[1])[2]

    def forget(self, permit: int) -> None:
        """A permitted request was broken off: if it was the one that tries, another may go."""
        self._out.pop(permit, None)
        self._silent.pop(permit, None)
        self._back(permit)

    def _back(self, permit: int) -> None:
        if permit == self._try:
            self._try = None
        self._answered.set()

    # --- what it tells ---------------------------------------------------------------------------

    def closed_for_s(self) -> float:
        """Return for how many seconds nobody may send."""
        return max(0.0, self.state.next_at - self._clock.monotonic())

    def is_far(self, user_id: str) -> bool:  # noqa: ARG002  # the protocol's
        """Return whether a user's turn is far off while others may go: never, all wait together."""
        return False

    def refused_for_s(self) -> float:
        """Return for how many seconds the gateway has refused everything; 0 while it is open."""
        if not self.state.is_closed or self.state.is_away:
            return 0.0
        return self._clock.monotonic() - self.state.closed_at

    def per_s(self) -> float | None:
        """Return the requests per second allowed now; None while nobody has set a limit."""
        return self.pace()

    def pace(self) -> float | None:
        """Return the same for those requests that the gateway counts together."""
        return self.learner.per_s if math.isfinite(self.learner.per_s) else None

    def source(self) -> str:
        """Return where the pace comes from."""
        if self.learner.per_s == self._cap_per_s:
            return "set by --rate"
        if self.learner.is_told:
            return f"told by {self._told_by}" if self._told_by else "told by the gateway"
        if self.learner.has_learned:
            return "learned from 429s"
        if self.flight.places:
            return "a limit on requests in flight"
        return "learned by an earlier run" if self._learned_before else "no limit met"

    def in_flight(self) -> int | None:
        """Return the gateway's limit on requests in flight; None where it has shown none."""
        return self.flight.wide if self.flight.places else None

    def limit(self) -> Limit | None:
        """Return the limit that the gateway has shown or told in this run; None if it has not."""
        per_s = self.learner.limit_per_s()
        return None if per_s is None else Limit(round(per_s, 3), self.learner.search.is_spaced)
