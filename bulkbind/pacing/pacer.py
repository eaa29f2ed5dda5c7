"""The pacer: carries out what the calculators say, for everybody who sends.

It knows who waits for a permit, in which order and for how long, and logs how the pace changes.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from bulkbind.logs import logger
from bulkbind.model import (
    Accepted,
    Hold,
    NoAnswer,
    RunFacts,
    ServerLimit,
    Throttled,
    TimeSpent,
    TimeUse,
    Unreachable,
    Verdict,
)
from bulkbind.pacing.flight import Flight
from bulkbind.pacing.search import NOTHING, Left, Pace
from bulkbind.pacing.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from bulkbind.clock import Clock
    from bulkbind.pacing.gate import Gate

MOST_IN_FLIGHT = 1000
"""Where nobody says otherwise."""
NOTICED_S = 0.25
"""Whoever waits for the pace looks so often whether the operator has changed it."""
TICK_S = 1e-3
"""The least that is slept before a limit is known, as a shorter sleep of uvloop is none; and far
from any limit, requests that leave within this time may leave along with each other."""
PASSED = Accepted("", "")
"""What was accepted, whatever it is."""
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


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit as it was learned, for the next run."""

    per_s: float
    is_spaced: bool
    """Whether the gateway refuses requests that come close together."""


class Pacer:
    """Gives permits to each stream as its turn comes, and within it in order of asking.

    One request of a stream waits for its turn, and one of all for the server; others wait for them.

    Attributes:
        learner: The pace of a stream, and what is known of its limit.
        flight: How many may be in flight.
        traffic: What is, and whose turn it is.
        throttled: 429s seen.
        is_paused: Whether the operator lets nobody send.
        time: What the time went to, as far as is known here: why nobody may send.
    """

    def __init__(
        self,
        clock: Clock,
        stop: Stop,
        cap_per_s: float | None = None,
        *,
        concurrency: int = MOST_IN_FLIGHT,
        learned: Limit | None = None,
        per_user: bool = False,
        left: Left = NOTHING,
    ) -> None:
        """Begin with what an earlier run has *learned*, or with nothing.

        *per_user*: whether the gateway counts each user's requests apart; *cap_per_s* and *learned*
        are those of one user then; *left*: what of the limit is for others.
        """
        self._clock, self._stop = clock, stop
        self._cap_per_s, self._learned = cap_per_s, learned
        now, known = clock.monotonic(), learned or Limit(math.inf, is_spaced=False)
        self.learner = Pace(
            now, cap_per_s, known.per_s, is_spaced=known.is_spaced, is_per_user=per_user, left=left
        )
        self.flight = Flight(now, concurrency)
        self.traffic = Traffic(now, self.learner, self.flight, per_user=per_user)
        self._line = asyncio.Lock()
        """Whoever has it waits for the server."""
        self._waiting = 0
        """Who waits for a permit and was not far from it: the others keep nobody waiting."""
        self._taken = asyncio.Event()
        self._expecting: dict[asyncio.Event, None] = {}
        """Waits that the next answer ends, in order."""
        self._head = Hold(TimeSpent(), TimeUse.PACED)
        """Why whoever waits for its turn does."""
        self.time = TimeSpent(clock.monotonic)
        self.time.silent_after_s = lambda: self.flight.overdue_s
        self._log = logger()
        self._logged_per_s = self.learner.known_per_s
        self._room, self._room_until = 0, now
        """How many may leave along with the last that did, and until when."""
        self.throttled = 0
        self.is_paused = False

    def cap(self, cap_per_s: float | None) -> None:
        """Go on with another cap on the pace, as `--rate` gives it; None: with none."""
        self._cap_per_s, self._room = cap_per_s, 0
        self.learner.cap(cap_per_s)
        self.traffic.hurry(self._clock.monotonic())

    def widen(self, concurrency: int) -> None:
        """Go on with another number of requests that may be in flight at once."""
        self._room = 0
        self.flight.limit(concurrency)

    # --- permits ----------------------------------------------------------------------------------

    async def permit(self, user_id: str | None = None) -> int:
        """Return once a request for a user, or for none, may be sent: a number for `report`.

        Raises: DrainedError when the run stops; nothing may be sent then.
        """
        if (permit := self.try_permit(user_id)) is not None:
            return permit
        self._room = 0  # nobody passes whoever waits
        now = self._clock.monotonic()
        gate = self.traffic.gate(user_id or "", now)
        is_near = not self.traffic.is_far(gate, now)
        gate.waiting += 1
        self._waiting += is_near
        try:
            with self._stop.cutting_short():
                async with gate.door:
                    return await self._admitted(gate)
        finally:
            gate.waiting -= 1
            self._waiting -= is_near
            self._taken.set()

    def try_permit(self, user_id: str | None = None) -> int | None:
        """Return a permit as `permit` does, if one may be had at once; None: it may not.

        Nobody is passed who waits already, and after a stop there is none.
        """
        now, traffic = self._clock.monotonic(), self.traffic
        if self._room and now < self._room_until and not self._stop.is_set:
            self._room -= 1
            permit = traffic.sent_along(1)[0]
            self.time.sent_along(permit)
            return permit
        gate = traffic.gate(user_id or "", now)
        if self._line.locked() or gate.door.locked() or self._stop.is_set or self.is_paused:
            return None
        is_due = not traffic.is_closed and traffic.due_at(gate, now) <= now
        return self._leave(gate, now) if is_due and traffic.clear_at(now) <= now else None

    def try_permits(self, most: int, ahead_s: float = 0.0) -> list[int]:
        """Return up to *most* permits as `try_permit` would, for requests of all users.

        *ahead_s*: and those that are due so soon, where all requests are one stream.
        """
        permits: list[int] = []
        while len(permits) < most and (permit := self.try_permit()) is not None:
            permits.append(permit)
            if along := min(self._room, most - len(permits)):
                self._room -= along
                others = self.traffic.sent_along(along)
                self.time.sent_all_along(others)
                permits += others
        if ahead_s:
            permits += self._ahead(most - len(permits), self._clock.monotonic(), ahead_s)
        return permits

    def _ahead(self, most: int, now: float, ahead_s: float) -> list[int]:
        """Return the permits of requests that leave when each is due, within so long."""
        traffic, gate = self.traffic, self.traffic.gate("", now)
        is_held = self._line.locked() or gate.door.locked() or self._stop.is_set or self.is_paused
        if is_held or traffic.is_closed or traffic.per_user:
            return []
        permits: list[int] = []
        while len(permits) < most:
            due_at = max(now, gate.next_at, traffic.clear_at(now))
            if due_at >= now + ahead_s:
                break
            permits.append(self._leave(gate, due_at))
        return permits

    def _leave(self, gate: Gate, now: float) -> int:
        permit = self.traffic.sent(gate, now)
        self._room, self._room_until = self.traffic.room(gate, now), now + TICK_S
        self.time.sent(permit)
        return permit

    def has_room(self) -> bool:
        """Return whether less than a second of the pace waits for a permit."""
        return self._waiting < max(1.0, self.traffic.per_s())

    async def room(self) -> None:
        """Return once less than a second of the pace waits for a permit.

        Whoever takes rows in hand only then has few in question when the run is cut off.

        Raises: DrainedError when the run stops.
        """
        while not self.has_room():
            self._taken.clear()
            with self._stop.cutting_short():
                await self._taken.wait()

    async def _admitted(self, gate: Gate) -> int:
        traffic = self.traffic
        while True:
            now = self._clock.monotonic()
            if (due_at := traffic.due_at(gate, now)) > now:
                with self.time.waiting(self._why(gate)) as self._head:
                    if due_at == math.inf or (gate.is_closed and gate.trying is not None):
                        await self._answer(due_at)
                    else:
                        least_s = TICK_S if self.learner.known_per_s == math.inf else 0.0
                        await self._clock.sleep(max(least_s, min(NOTICED_S, due_at - now)))
                continue
            async with self._line:
                now = await self._clear()
                if traffic.due_at(gate, now) <= now:  # or it has closed meanwhile
                    return self._leave(gate, now)

    async def _clear(self) -> float:
        """Wait until the server may be sent one more request; return the moment."""
        traffic, server = self.traffic, self.traffic.server
        while True:
            now = self._clock.monotonic()
            if self.is_paused:
                with self.time.waiting(TimeUse.PAUSED):
                    await self._clock.sleep(NOTICED_S)
            elif (clear_at := traffic.clear_at(now)) <= now:
                return now
            elif server.is_away:
                with self.time.waiting(TimeUse.AWAY):
                    if server.trying is not None:
                        await self._answer(clear_at)
                    else:
                        await self._clock.sleep(min(NOTICED_S, clear_at - now))
            else:
                # What is under way says what is waited for.
                await self._answer(clear_at)

    async def _answer(self, by: float) -> None:
        """Wait for an answer, but no longer than until *by*."""
        came = asyncio.Event()
        self._expecting[came] = None
        timer = None
        if by < math.inf:
            left_s = max(0.0, by - self._clock.monotonic())
            timer = asyncio.ensure_future(self._clock.sleep(left_s))
            timer.add_done_callback(lambda _: came.set())
        try:
            await came.wait()
        finally:
            del self._expecting[came]
            if timer is not None:
                timer.cancel()

    def _why(self, gate: Gate) -> TimeUse:
        """Return what a stream waits for."""
        if self.traffic.per_user:
            return TimeUse.USERS_CLOSED if gate.is_closed else TimeUse.USERS_PACED
        if gate.is_closed:
            return TimeUse.AWAY if self.traffic.server.is_away else TimeUse.CLOSED
        return TimeUse.PACED

    # --- answers ----------------------------------------------------------------------------------

    def report(self, permit: int, verdict: Verdict, limits: tuple[ServerLimit, ...] = ()) -> None:
        """Learn from the verdict on a permitted request, and from the limits in its answer."""
        traffic = self.traffic
        if isinstance(verdict, Accepted) and not (limits or self._expecting):
            if traffic.is_accepted_along(permit):
                self.time.ended(permit)
                return
        else:
            self._room = 0
        now = self._clock.monotonic()
        out, was_silent = traffic.ended(permit, now)
        self.time.silenced += was_silent and now > out.sent.at + self.flight.overdue_s
        if limits:
            self.learner.stated(limits)
        was_away, places = traffic.server.is_away, self.flight.places.limit
        match verdict:
            case Throttled():
                self.throttled += 1
                traffic.throttled(permit, out, now, verdict)
            case NoAnswer(was_read=False) | Unreachable():
                is_away = isinstance(verdict, Unreachable)
                traffic.unanswered(permit, out, now, was_silent=was_silent, is_away=is_away)
            case _:
                traffic.accepted(permit, out, now)
        if out.gate.is_closed:
            self._head.turn(self._why(out.gate))
        is_away = traffic.server.is_away and not was_away
        if is_away or self.learner.known_per_s != self._logged_per_s:
            self._log_pace(verdict, is_away=is_away)
        if self.flight.places.limit != places and isinstance(verdict, Throttled):
            self._log.info("pace.changed", why="Throttled", in_flight=self.flight.places.limit)
        self.time.ended(permit, is_answered=not isinstance(verdict, NoAnswer | Unreachable))
        for came in self._expecting:
            came.set()

    def passed(self, permits: Sequence[int]) -> None:
        """Learn that permitted requests were accepted."""
        left = permits if self._expecting else self.traffic.accepted_along(permits)
        if len(left) < len(permits):
            self.time.ended_all(set(permits).difference(left))
        for permit in left:
            self.report(permit, PASSED)

    def forget(self, permit: int) -> None:
        """A permitted request was not sent, or broken off: if it tried alone, another one may."""
        self.traffic.forget(permit)
        self.time.ended(permit, is_answered=False)
        for came in self._expecting:
            came.set()

    def cutting_short(self) -> AbstractContextManager[None]:
        """Cancel what the block awaits once the run stops. Raises: as `permit`."""
        return self._stop.cutting_short()

    def _log_pace(self, verdict: Verdict, *, is_away: bool) -> None:
        """Log a pace that has changed, not every 429; and that the server is away."""
        per_s = self.learner.known_per_s
        is_known = math.isfinite(per_s) and not self.traffic.is_closed
        if is_away or (is_known and abs(per_s - self._logged_per_s) > CHANGED * per_s):
            self._logged_per_s = per_s
            self._log.info(
                "pace.changed",
                why=type(verdict).__name__,
                per_s=round(per_s, 2) if math.isfinite(per_s) else None,
                told=self.learner.is_stated,
                closed_s=round(self.closed_for_s(), 2),
            )

    # --- what is known ----------------------------------------------------------------------------

    def spent(self) -> RunFacts:
        """Return the 429s seen, and what the time went to."""
        facts = RunFacts()
        facts.requests_throttled = self.throttled
        facts.spend(self.time)
        return facts

    @property
    def is_away(self) -> bool:
        """Whether the server does not answer."""
        return self.traffic.server.is_away

    @property
    def is_closed(self) -> bool:
        """Whether nobody may send but one that tries."""
        return self.traffic.is_closed

    def closed_for_s(self) -> float:
        """Return for how many seconds nobody may send who has something to send."""
        return self.traffic.closed_for_s(self._clock.monotonic())

    def refused_for_s(self) -> float:
        """Return for how many seconds the gateway has refused everything; 0 while it does not."""
        since = None if self.is_away else self.traffic.refused_since
        return 0.0 if since is None else self._clock.monotonic() - since

    def is_far(self, user_id: str) -> bool:
        """Return whether a user's turn is far off while others may go."""
        now = self._clock.monotonic()
        return self.traffic.is_far(self.traffic.gate(user_id, now), now)

    def per_s(self) -> float | None:
        """Return the requests per second allowed now; None while nobody has set a limit."""
        per_s = self.traffic.per_s()
        return per_s if math.isfinite(per_s) else None

    def pace(self) -> float | None:
        """Return the same for those requests that the gateway counts together."""
        per_s = self.learner.known_per_s
        return per_s if math.isfinite(per_s) else None

    def told(self) -> tuple[float, float] | None:
        """Return the limit that sets the pace, and its window in seconds, as the gateway told it.

        None: the gateway tells none, or something else sets the pace.
        """
        return None if self.learner.per_s == self._cap_per_s else self.learner.told

    def source(self) -> str:
        """Return where the pace comes from."""
        learner, has = self.learner, self.time.seconds
        is_mute = self.flight.silent_s == math.inf
        is_unheard = is_mute or self.is_away
        known = {
            "set by --rate": learner.per_s == self._cap_per_s,
            f"told by {learner.stated_by or 'the gateway'}": learner.is_stated,
            "learned from 429s": learner.has_learned,
            "a limit on requests in flight": self.flight.places.limit < math.inf,
            "learned by an earlier run": self._learned,
            "the gateway has been refusing, its limit is not known": self.throttled,
            "no limit shown, as the endpoint was away": is_unheard and has(TimeUse.AWAY),
            "no limit shown, as no answer came": is_mute and has(TimeUse.SILENT),
            "no limit met": True,
        }
        scope = "for each user, " if self.traffic.per_user else ""
        return scope + next(source for source, is_so in known.items() if is_so)

    def left(self) -> Left | None:
        """Return what of the limit is left to others; None: nothing, or --rate is less."""
        return None if self.learner.per_s == self._cap_per_s else self.learner.left

    def limit(self) -> Limit | None:
        """Return the limit that the gateway has shown or stated in this run; None: it has not."""
        per_s = self.learner.limit_per_s()
        return None if per_s is None else Limit(round(per_s, 3), self.learner.is_spaced)

    def carried(self, seconds: float) -> None:
        """Requests take so long to the workers that send them, and back."""
        self.flight.carried(seconds)

    def in_flight(self) -> int | None:
        """Return the gateway's limit on requests in flight; None where it has shown none."""
        limit = self.flight.places.limit
        return int(limit) if limit < math.inf else None
