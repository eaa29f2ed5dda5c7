"""The pacer: carries out what the calculators say, for everybody who sends.

It knows who waits for a permit, in which order and for how long, and logs how the pace changes.
Of when a request may leave it knows nothing: its parts do, `traffic` for all requests and `streams`
for those that the gateway counts together.
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
from bulkbind.pacing.learner import NOTHING, START_PER_S, Left, Pace
from bulkbind.pacing.streams import OneStream, StreamPerUser
from bulkbind.pacing.width import Flight, Traffic

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from bulkbind.clock import Clock
    from bulkbind.pacing.streams import RequestStream
    from bulkbind.pacing.width import Out

MOST_IN_FLIGHT = 1000
"""Where nobody says otherwise."""
NOTICED_S = 0.25
"""Whoever waits for the pace looks so often whether the operator has changed it."""
TICK_S = 1e-3
"""The least that is slept before a limit is known."""
ALONG_S = 1e-3
"""Requests that leave within this time may leave along with each other, far from any limit."""
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
        state: The gate of all: whether the server is there, and where all requests are one stream,
            what its limit allows.
        streams: What the gateway counts together, and the limit of each.
        flight: How many may be in flight.
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
        self._clock = clock
        self._stop = stop
        self._cap_per_s, self._learned = cap_per_s, learned
        now = clock.monotonic()
        known = learned or Limit(math.inf, is_spaced=False)
        start_per_s = math.inf if per_user else START_PER_S
        learner = Pace(
            now,
            cap_per_s,
            known.per_s,
            is_spaced=known.is_spaced,
            start_per_s=start_per_s,
            left=left,
        )
        self.streams = StreamPerUser(learner) if per_user else OneStream(learner)
        self.state = Pace(now, start_per_s=math.inf) if per_user else learner
        self.flight = Flight(now, concurrency)
        self._traffic = Traffic(self.state, self.flight, learner)
        self._line = asyncio.Lock()
        """Whoever has it waits for the server."""
        self._waiting = 0
        """Who waits for a permit and was not far from it: the others keep nobody waiting."""
        self._taken = asyncio.Event()
        self._expecting: dict[asyncio.Event, None] = {}
        """Waits that the next answer ends, in order."""
        self._head = self._trial = Hold(TimeSpent(), TimeUse.PACED)
        """Why whoever waits for the server does, and the request that tries while all wait."""
        self._trying = 0
        """That one's permit."""
        self.time = TimeSpent(clock.monotonic)
        self.time.silent_after_s = lambda: self.flight.overdue_s
        self._log = logger()
        self._logged_per_s = learner.known_per_s
        self._room, self._room_until = 0, now
        """How many may leave along with the last that did, and until when."""
        self.throttled = 0
        self.is_paused = False

    def cap(self, cap_per_s: float | None) -> None:
        """Go on with another cap on the pace, as `--rate` gives it; None: with none."""
        now = self._clock.monotonic()
        self._cap_per_s, self._room = cap_per_s, 0
        self.streams.learner.cap(cap_per_s, now)
        self.streams.hurry(now)

    def widen(self, concurrency: int) -> None:
        """Go on with another number of requests that may be in flight at once."""
        self._room = 0
        self.flight.limit(concurrency)

    async def permit(self, user_id: str | None = None) -> int:
        """Return once a request for a user, or for none, may be sent: a number for `report`.

        Raises: DrainedError when the run stops; nothing may be sent then.
        """
        if (permit := self.try_permit(user_id)) is not None:
            return permit
        self._room = 0  # nobody passes whoever waits
        now = self._clock.monotonic()
        stream = self.streams.of(user_id or "", now)
        is_near = not self.streams.is_far(stream, now)
        stream.waiting += 1
        self._waiting += is_near
        try:
            with self._stop.cutting_short():
                async with stream.door:
                    return await self._admitted(stream)
        finally:
            stream.waiting -= 1
            self._waiting -= is_near
            self._taken.set()

    def try_permit(self, user_id: str | None = None) -> int | None:
        """Return a permit as `permit` does, if one may be had at once; None: it may not.

        Nobody is passed who waits already, and after a stop there is none.
        """
        now = self._clock.monotonic()
        if self._room and now < self._room_until and not self._stop.is_set:
            self._room -= 1
            permit = self._traffic.sent_along()
            self.time.sent_along(permit)
            return permit
        stream = self.streams.of(user_id or "", now)
        is_first = not (self._line.locked() or stream.door.locked() or self._stop.is_set)
        is_due = is_first and self.streams.due_at(stream) <= now and self._is_clear(now)
        return self._leave(stream, now) if is_due else None

    def try_permits(self, most: int, ahead_s: float = 0.0) -> list[int]:
        """Return up to *most* permits as `try_permit` would, for requests of all users.

        *ahead_s*: and those that are due so soon, where all requests are one stream.
        """
        permits: list[int] = []
        while len(permits) < most and (permit := self.try_permit()) is not None:
            permits.append(permit)
            if along := min(self._room, most - len(permits)):
                self._room -= along
                others = self._traffic.sent_all_along(along)
                self.time.sent_all_along(others)
                permits += others
        if ahead_s:
            permits += self._ahead(most - len(permits), self._clock.monotonic(), ahead_s)
        return permits

    def _ahead(self, most: int, now: float, ahead_s: float) -> list[int]:
        """Return the permits of requests that leave when each is due, within so long."""
        gate, stream = self.state, self.streams.of("", now)
        is_held = self._line.locked() or self._stop.is_set or self.is_paused or gate.is_closed
        if is_held or gate is not self.streams.learner:
            return []
        permits: list[int] = []
        while len(permits) < most and self._traffic.has_place(now):
            due_at = max(now, gate.next_at, self.flight.next_at)
            if due_at >= now + ahead_s:
                break
            permits.append(self._leave(stream, due_at))
        return permits

    def _leave(self, stream: RequestStream, now: float) -> int:
        permit = self._traffic.sent(now)
        if self.state is self.streams.learner:
            self._room, self._room_until = self._traffic.room(now), now + ALONG_S
        self.streams.left(stream, permit, now)
        self.time.sent(permit)
        if self.state.is_closed:
            self._trying, self._trial = permit, self.time.waiting(self._why_closed())
            self._trial.__enter__()
        return permit

    def has_room(self) -> bool:
        """Return whether less than a second of the pace waits for a permit."""
        return self._waiting < max(1.0, self.streams.per_s())

    async def room(self) -> None:
        """Return once less than a second of the pace waits for a permit.

        Whoever takes rows in hand only then has few in question when the run is cut off.

        Raises: DrainedError when the run stops.
        """
        while not self.has_room():
            self._taken.clear()
            with self._stop.cutting_short():
                await self._taken.wait()

    async def _admitted(self, stream: RequestStream) -> int:
        while True:
            while (due_at := self.streams.due_at(stream)) > (now := self._clock.monotonic()):
                is_closed = stream.gate.is_closed
                why = TimeUse.USERS_CLOSED if is_closed else TimeUse.USERS_PACED
                with self.time.waiting(why):
                    wait_s = min(NOTICED_S, due_at - now)
                    await (self._clock.sleep(wait_s) if due_at < math.inf else self._answer())
            if not self._line.locked() and self._is_clear(now):
                return self._leave(stream, now)
            async with self._line:
                now = await self._clear()
                if self.streams.due_at(stream) <= now:  # or its gate has closed while all waited
                    return self._leave(stream, now)

    def _is_clear(self, now: float) -> bool:
        return not self.is_paused and self._traffic.is_clear(now)

    async def _clear(self) -> float:
        """Wait until the server may be sent one more request; return the moment."""
        gate, traffic = self.state, self._traffic
        while True:
            now = self._clock.monotonic()
            if self.is_paused:
                with self.time.waiting(TimeUse.PAUSED):
                    await self._clock.sleep(NOTICED_S)
            elif gate.is_closed and gate.trying is not None:
                until = traffic.tried_until()
                await self._answer(until)
                traffic.waited(self._clock.monotonic(), until)
                self._end_trial()
            elif not traffic.has_place(now):
                # What is under way says what is waited for.
                await self._answer(traffic.place_at())
            elif now < gate.next_at:
                why = self._why_closed() if gate.is_closed else TimeUse.PACED
                with self.time.waiting(why) as self._head:
                    left_s = min(NOTICED_S, gate.next_at - now)
                    # A shorter sleep of uvloop is none: whoever is late may make up for it here.
                    is_free = gate.known_per_s == math.inf
                    await self._clock.sleep(max(TICK_S, left_s) if is_free else left_s)
            elif now < self.flight.next_at:
                await self._clock.sleep(self.flight.next_at - now)
            else:
                return now

    async def _answer(self, by: float = math.inf) -> None:
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

    def _why_closed(self) -> TimeUse:
        return TimeUse.AWAY if self.state.is_away else TimeUse.CLOSED

    def _end_trial(self) -> None:
        """End the wait for the request that tries if all may send again, or another one tries."""
        if not self.state.is_closed or self.state.trying is None:
            self._trial.end()

    def report(self, permit: int, verdict: Verdict, limits: tuple[ServerLimit, ...] = ()) -> None:
        """Learn from the verdict on a permitted request, and from the limits in its answer."""
        if isinstance(verdict, Accepted) and not (limits or self._expecting):
            if self._traffic.accepted_along(permit):
                self.time.ended(permit)
                return
        else:
            self._room = 0
        gate, learner, now = self.state, self.streams.learner, self._clock.monotonic()
        out, was_silent = self._traffic.ended(permit, now)
        self.time.silenced += was_silent and now > out.sent_at + self.flight.overdue_s
        if limits:
            learner.stated_in_headers(limits)
        epoch = gate.epoch
        match verdict:
            case Throttled():
                self.throttled += 1
                self._refused(permit, out, verdict, now)
            case NoAnswer(was_read=False) | Unreachable():
                is_away = isinstance(verdict, Unreachable)
                self._traffic.unanswered(out, now, was_silent=was_silent, is_away=is_away)
            case _:
                self.streams.accepted(permit)
                self._traffic.accepted(out, now)
        if gate.is_closed:
            self._head.turn(self._why_closed())
        if epoch != gate.epoch or learner.known_per_s != self._logged_per_s:
            self._log_pace(verdict, is_away=epoch != gate.epoch and gate.is_away)
        self._back(permit)

    def passed(self, permits: Sequence[int]) -> None:
        """Learn that permitted requests were accepted."""
        left = permits if self._expecting else self._traffic.accepted_all_along(permits)
        if len(left) < len(permits):
            self.time.ended_all(set(permits).difference(left))
        for permit in left:
            self.report(permit, PASSED)

    def _refused(self, permit: int, out: Out, verdict: Throttled, now: float) -> None:
        """A limit in flight is met by fewer at once; any other closes the gate of its stream."""
        self.state.refusal_took(max(0.0, now - out.sent_at))
        gate, sent = self.streams.refused(permit, out.sent, now)
        is_stated = verdict.limit is not None or verdict.retry_after_s is not None
        limit = self.flight.places.limit
        if self._traffic.explained(out, now, gate, sent, is_told=is_stated):
            if self.flight.places.limit != limit:
                self._log.info("pace.changed", why="Throttled", in_flight=self.flight.places.limit)
        else:
            gate.throttled(
                now,
                sent,
                limit=verdict.limit,
                window_s=verdict.window_s,
                retry_after_s=verdict.retry_after_s,
            )
        if gate is not self.state:
            self.state.accepted(out.sent)  # what refuses is there

    def forget(self, permit: int) -> None:
        """A permitted request was broken off: if it was the one that tries, another may go."""
        self._traffic.forget(permit)
        self._back(permit)

    def cutting_short(self) -> AbstractContextManager[None]:
        """Cancel what the block awaits once the run stops. Raises: as `permit`."""
        return self._stop.cutting_short()

    def _back(self, permit: int) -> None:
        self.time.ended(permit)
        if permit == self._trying:
            self._trial.end()
        self.streams.back(permit)
        for came in self._expecting:
            came.set()

    def _log_pace(self, verdict: Verdict, *, is_away: bool) -> None:
        """Log a pace that has changed, not every 429; and that the server is away."""
        learner = self.streams.learner
        per_s = learner.known_per_s
        is_known = math.isfinite(per_s) and not learner.is_closed
        has_changed = abs(per_s - self._logged_per_s) > CHANGED * per_s
        if is_away or (is_known and has_changed):
            self._logged_per_s = per_s
            self._log.info(
                "pace.changed",
                why=type(verdict).__name__,
                per_s=round(per_s, 2) if math.isfinite(per_s) else None,
                told=learner.is_stated,
                closed_s=round(self.closed_for_s(), 2),
            )

    # --- what its parts report: both, the streams, the learner, the flight ----------------------

    def spent(self) -> RunFacts:
        """Return the 429s seen, and what the time went to."""
        facts = RunFacts()
        facts.requests_throttled = self.throttled
        facts.spend(self.time)
        return facts

    @property
    def paced_s(self) -> float:
        """For how long nobody was allowed to send, for the pace's sake."""
        return self.time.seconds(TimeUse.PACED, TimeUse.USERS_PACED)

    @property
    def cooled_s(self) -> float:
        """For how long nobody was allowed to send, as the gateway refused."""
        return self.time.seconds(TimeUse.CLOSED, TimeUse.USERS_CLOSED)

    def closed_for_s(self) -> float:
        """Return for how many seconds nobody may send who has something to send."""
        now = self._clock.monotonic()
        return max(0.0, self.state.next_at - now, self.streams.first_due_at(now) - now)

    def refused_for_s(self) -> float:
        """Return for how many seconds the gateway has refused everything; 0 while it does not."""
        return 0.0 if self.state.is_away else self.streams.refused_for_s(self._clock.monotonic())

    def is_far(self, user_id: str) -> bool:
        """Return whether a user's turn is far off while others may go."""
        now = self._clock.monotonic()
        return self.streams.is_far(self.streams.of(user_id, now), now)

    def per_s(self) -> float | None:
        """Return the requests per second allowed now; None while nobody has set a limit."""
        per_s = self.streams.per_s()
        return per_s if math.isfinite(per_s) else None

    def pace(self) -> float | None:
        """Return the same for those requests that the gateway counts together."""
        per_s = self.streams.learner.known_per_s
        return per_s if math.isfinite(per_s) else None

    def told(self) -> tuple[float, float] | None:
        """Return the limit that sets the pace, and its window in seconds, as the gateway told it.

        None: the gateway tells none, or something else sets the pace.
        """
        learner = self.streams.learner
        return None if learner.per_s == self._cap_per_s else learner.told

    def source(self) -> str:
        """Return where the pace comes from."""
        learner = self.streams.learner
        if learner.per_s == self._cap_per_s:
            source = "set by --rate"
        elif learner.is_stated:
            source = f"told by {learner.stated_by or 'the gateway'}"
        elif learner.has_learned:
            source = "learned from 429s"
        elif self.flight.places.limit < math.inf:
            source = "a limit on requests in flight"
        elif self._learned:
            source = "learned by an earlier run"
        elif self.throttled:
            source = "refused for a while, no limit shown"
        elif self.time.seconds(TimeUse.AWAY):
            source = "no limit shown, as the endpoint was away"
        elif self.flight.silent_s == math.inf and self.time.seconds(TimeUse.SILENT):
            source = "no limit shown, as no answer came"
        else:
            source = "no limit met"
        return self.streams.scope + source

    def limit(self) -> Limit | None:
        """Return the limit that the gateway has shown or stated in this run; None: it has not."""
        learner = self.streams.learner
        per_s = learner.limit_per_s()
        return None if per_s is None else Limit(round(per_s, 3), learner.search.is_spaced)

    def carried(self, seconds: float) -> None:
        """Requests take so long to the workers that send them, and back."""
        self.flight.carried(seconds)

    def in_flight(self) -> int | None:
        """Return the gateway's limit on requests in flight; None where it has shown none."""
        limit = self.flight.places.limit
        return int(limit) if limit < math.inf else None
