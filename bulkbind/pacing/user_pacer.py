"""The pacer for servers that count the requests for each user apart.

The model. The limit is the same number for all users, so it is learned once: by one calculator,
`learner`, that follows one user at a time, the *guide*: whoever is refused first, and another when
that one has nothing left to send. All others have a turn of their own, a few numbers, and go at the
pace that was learned; a 429 closes the gate of its user alone. Until the guide has found the limit,
nobody is sent more than what got through for it, so that a limit costs one search and not one for
every user. What is about the server as a whole stays with the pacer that this one extends: whether
it is there, and how many requests may be in flight.

Users with nothing to do are forgotten, so memory follows the users of the last `KEEP_S`.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from typing import TYPE_CHECKING

from bulkbind.pacing.gate import Turn
from bulkbind.pacing.pacer import MOST_IN_FLIGHT, Limit, Out, Pacer, Stop

if TYPE_CHECKING:
    from bulkbind.clock import Clock
    from bulkbind.model import Throttled
    from bulkbind.pacing.learner import Pace

KEEP_S = 10.0
"""A user is forgotten who has sent nothing for so long."""
ABSENT_S = 0.25
"""A guide that does not try when it may has nothing to send: another user takes over."""
HELD_SLOTS = 1.5
"""For so many slots of the pace, all wait for what comes of a 429 of the guide."""
FAR_S = 0.5
"""Rows wait for a permit where their turn comes sooner; else they make way for those of others."""


class _Follower(Turn):
    """The turn of a user at the pace that is learned from another one."""

    __slots__ = ("_leader",)

    def __init__(self, now: float, leader: Pace) -> None:
        super().__init__(now)
        self._leader = leader

    @property
    def per_s(self) -> float:  # type: ignore[override]  # it is the leader's to change
        return self._leader.per_s

    def late_s(self) -> float:
        return self._leader.late_s()

    def accepted(self, now: float, epoch: int) -> None:
        if epoch == self.epoch and self.is_closed:
            self.is_closed = False
            self._begin_at(self._opening(now))
            self._space(now)

    def throttled(
        self,
        now: float,
        epoch: int,
        *,
        limit: float | None = None,
        window_s: float | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        if limit and window_s:
            self._leader.told([(limit, window_s)])
        self.not_through(epoch)
        if epoch == self.epoch:
            self._refuse(now, limit, window_s, retry_after_s)


class _User:
    """A user with something to send, or who had lately."""

    __slots__ = ("door", "is_unpaced", "name", "out", "trying", "turn", "waiting")

    def __init__(self, name: str, turn: Turn) -> None:
        self.name = name
        self.turn = turn
        self.door = asyncio.Lock()
        """One of the user's rows at a time waits for the turn, the others for that one."""
        self.waiting = 0
        self.out = 0
        """Requests in flight."""
        self.trying: int | None = None
        """The permit of the one that tries while the user's gate is closed."""
        self.is_unpaced = True
        """Whether some left before there was a pace, so that the next slot does not count them."""


class UserPacer(Pacer):
    """Gives permits to users as their turns come, and to each user's requests in order of asking.

    What acts for no user, such as the call that renews a session, is a user of its own.
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
        """*cap_per_s*, *learned*: requests per second for one user."""
        super().__init__(clock, stop, concurrency=concurrency)
        self._learn_anew(cap_per_s, learned)
        # What a user is allowed may be few requests, however they are spaced.
        self.learner.search.spaced_at_most = 0
        self._users: OrderedDict[str, _User] = OrderedDict()
        """Whoever sent last comes last."""
        self._guide: _User | None = None
        """Whose turn is `learner`."""
        self._of: dict[int, tuple[_User, int]] = {}
        """Permit -> its user and the epoch of that user's turn."""
        self._asking = 0
        """Who waits for a permit and was not far from it: the others keep nobody waiting."""
        self._heard = asyncio.Event()
        self._idle_since: float | None = None
        self._refused_since: float | None = None
        self._idle_s = 0.0

    async def permit(self, user_id: str | None = None) -> int:
        """Return once a request for a user, or for none, may be sent. Raises: as there."""
        user = self._user(user_id or "")
        is_near = not self.is_far(user.name)
        user.waiting += 1
        self._asking += is_near
        try:
            with self._stop.cutting_short():
                async with user.door:
                    return await self._admitted(user)
        finally:
            user.waiting -= 1
            self._asking -= is_near
            self._taken.set()

    async def _admitted(self, user: _User) -> int:
        while True:
            await self._turn_of(user)
            permit = await super().permit()
            now = self._clock.monotonic()
            if self._due_at(user) <= now:
                self._leave(permit, user, now)
                return permit
            self.forget(permit)  # the user's gate has closed while all had to wait

    async def _turn_of(self, user: _User) -> None:
        while (due_at := self._due_at(user)) > (now := self._clock.monotonic()):
            if not self._of and self._idle_since is None:
                self._idle_since = now
            if due_at == math.inf:
                self._heard.clear()
                await self._heard.wait()
            else:
                await self._clock.sleep(due_at - now)

    def _due_at(self, user: _User) -> float:
        """Return from when on the user may send; infinite where an answer has to come first."""
        turn, learner, guide = user.turn, self.learner, self._guide
        is_searched = learner.per_s == math.inf
        if user.is_unpaced and not is_searched:
            user.is_unpaced = False
            turn.next_at = max(turn.next_at, turn.began.by + turn.through / learner.per_s)
        if turn.is_closed and user.trying is not None:
            return math.inf
        is_led = guide is not None and guide is not user and learner.is_closed
        is_even = turn.through >= max(1, learner.through)
        if is_led and is_searched and (turn.is_closed or is_even):
            is_tried = guide is not None and guide.trying is not None
            return math.inf if is_tried else max(turn.next_at, learner.next_at + ABSENT_S)
        if is_led and not is_searched and not turn.is_closed and not learner.is_told:
            # What was too fast for the guide is too fast for all: it is about to be known.
            return max(turn.next_at, learner.closed_at + HELD_SLOTS / learner.per_s)
        return turn.next_at

    def _leave(self, permit: int, user: _User, now: float) -> None:
        is_lost = self.learner.is_closed and now >= self.learner.next_at + ABSENT_S
        if self._guide is None or (is_lost and self._guide.trying is None):
            self._lead(user)
        turn = user.turn
        if turn.is_closed:
            user.trying = permit
        else:
            turn.mind_pause(now)
        turn.sent(now)
        user.is_unpaced = turn.per_s == math.inf
        user.out += 1
        self._of[permit] = (user, turn.epoch)
        if self._idle_since is not None:
            self._idle_s += now - self._idle_since
            self._idle_since = None
            self.paced_s = max(0.0, self._idle_s - self.cooled_s)
        self._users.move_to_end(user.name)
        self._forget_idle(now)

    # --- who there is ----------------------------------------------------------------------------

    def _user(self, name: str) -> _User:
        user = self._users.get(name)
        if user is None:
            turn = _Follower(self._clock.monotonic(), self.learner)
            user = self._users[name] = _User(name, turn)
        return user

    def _lead(self, user: _User) -> None:
        """Learn from this user from now on."""
        if self._guide is user:
            return
        if self._guide is not None:
            turn = _Follower(0.0, self.learner)
            turn.copy(self.learner)
            self._guide.turn = turn
        self._guide = user
        self.learner.take_over(user.turn)
        user.turn = self.learner

    def _forget_idle(self, now: float) -> None:
        while True:
            name, user = next(iter(self._users.items()))
            if user.out or user.waiting or now < user.turn.next_at + KEEP_S:
                return
            if user.turn.last_sent_at() + KEEP_S > now:
                return
            del self._users[name]
            if self._guide is user:
                self._guide = None

    # --- what it hears ---------------------------------------------------------------------------

    def _got_through(self, now: float, permit: int, out: Out) -> None:
        user, epoch = self._of[permit]
        user.turn.accepted(now, epoch)
        self._refused_since = None
        super()._got_through(now, permit, out)

    def _refused(self, now: float, permit: int, out: Out, verdict: Throttled) -> None:
        user, epoch = self._of[permit]
        if self._refused_since is None:
            self._refused_since = now
        is_searched = self.learner.per_s == math.inf and not self.learner.is_closed
        if is_searched and epoch == user.turn.epoch:
            self._lead(user)
        self._close(user.turn, now, epoch, out.in_flight, verdict)
        super()._got_through(now, permit, out)  # for all: the server is there

    def _back(self, permit: int) -> None:
        if permit in self._of:
            user, _ = self._of.pop(permit)
            user.out -= 1
            if user.trying == permit:
                user.trying = None
        self._heard.set()
        super()._back(permit)

    # --- what it tells ---------------------------------------------------------------------------

    def has_room(self) -> bool:
        """Return whether less than a second of the pace waits for a permit."""
        return self._asking < max(1.0, self.learner.per_s * len(self._users))

    def closed_for_s(self) -> float:
        """Return for how many seconds none of those users may send who have something to send."""
        now = self._clock.monotonic()
        wanting = [user for user in self._users.values() if user.waiting]
        due_at = [at for at in map(self._due_at, wanting) if at < math.inf]
        return max(super().closed_for_s(), min(due_at, default=now) - now)

    def is_far(self, user_id: str) -> bool:
        """Return whether a user's turn, behind those who wait for it already, is far off."""
        user, now = self._user(user_id), self._clock.monotonic()
        due_at = self._soon(user, now) + user.waiting / self.learner.per_s
        return due_at > now + FAR_S

    def _soon(self, user: _User, now: float) -> float:
        due_at = self._due_at(user)
        return now + FAR_S if due_at == math.inf else max(now, due_at)

    def refused_for_s(self) -> float:
        """Return for how many seconds nobody has got anything through but 429s."""
        if self._refused_since is None or self.state.is_away:
            return 0.0
        return self._clock.monotonic() - self._refused_since

    def per_s(self) -> float | None:
        """Return the requests per second allowed to all users of late together."""
        per_s = self.pace()
        return None if per_s is None else per_s * max(1, len(self._users))

    def source(self) -> str:
        """Return where the pace comes from."""
        return f"for each user, {super().source()}"
