"""What the gateway counts together, as calculators: all requests, or those of each user apart.

They know whose request may leave when, and which stream the limit is learned from. Whether the
server is there, and what may be in flight, `width` knows; who waits, the pacer.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from typing import TYPE_CHECKING

from bulkbind.pacing.gate import StreamGate

if TYPE_CHECKING:
    from bulkbind.pacing.gate import Sent
    from bulkbind.pacing.learner import Pace

KEEP_S = 10.0
"""A user is forgotten who has sent nothing for so long."""
ABSENT_S = 0.25
"""A guide that does not try when it may has nothing to send: another user takes over."""
HELD_SLOTS = 1.5
"""For so many slots of the pace, all wait for what comes of a 429 of the guide."""
FAR_S = 0.5
"""Rows wait for a permit where their turn comes sooner; else they make way for those of others."""


class RequestStream:
    """Requests that the gateway counts together, lately sent or still to be sent."""

    __slots__ = ("door", "gate", "is_unpaced", "name", "out", "waiting")

    def __init__(self, name: str, gate: Pace | _Follower) -> None:
        self.name = name
        self.gate = gate
        self.door = asyncio.Lock()
        """The pacer's: one request at a time waits for the gate, the others for that one."""
        self.waiting = 0
        self.out = 0
        """Requests in flight."""
        self.is_unpaced = True
        """Whether some left before there was a pace, so that the next slot does not count them."""


class OneStream:
    """All requests are counted together: their gate is the one that all requests have."""

    scope = ""
    """What begins the words that say where the pace comes from."""

    def __init__(self, learner: Pace) -> None:
        self.learner = learner
        self._all = RequestStream("", learner)

    def of(self, _user_id: str, _now: float) -> RequestStream:
        """Return the stream of a user's requests."""
        return self._all

    def due_at(self, _: object) -> float:
        """Return from when on a stream may send: whenever the gate of all is open."""
        return -math.inf

    first_due_at = due_at

    def left(self, *_: object) -> None:
        """What becomes of a request the gate of all knows."""

    accepted = back = hurry = left

    def refused(self, _permit: int, sent: Sent, _now: float) -> tuple[Pace | _Follower, Sent]:
        """Return the gate that a 429 is about, and the request as it left through that one."""
        return self.learner, sent

    def per_s(self) -> float:
        """Return the requests per second allowed to all streams; infinite: no limit."""
        return self.learner.known_per_s

    def is_far(self, _stream: RequestStream, _now: float) -> bool:
        """Return whether the turn of a stream's next request is far off, while others may go."""
        return False

    def refused_for_s(self, now: float) -> float:
        """Return for how many seconds nothing has come but 429s."""
        return now - self.learner.closed_at if self.learner.is_closed else 0.0


class _Follower(StreamGate):
    """The gate of a user at the pace that is learned from another one."""

    __slots__ = ("_leader",)

    def __init__(self, now: float, leader: Pace) -> None:
        super().__init__(now)
        self._leader = leader

    @property
    def per_s(self) -> float:
        return self._leader.known_per_s

    def late_s(self) -> float:
        return self._leader.late_s()

    def accepted(self, sent: Sent) -> None:
        if sent.epoch == self.epoch and self.is_closed:
            self._reopen()
            self._space()

    def throttled(
        self,
        now: float,
        sent: Sent,
        *,
        limit: float | None = None,
        window_s: float | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        if limit and window_s:
            self._leader.stated([(limit, window_s)])
        self.lost(sent)
        if sent.epoch == self.epoch:
            self._refuse(now, limit, window_s, retry_after_s)


class StreamPerUser:
    """Each user's requests are counted apart; what acts for no user is a user of its own.

    The limit is the same number for all users, so it is learned once: by one gate, `learner`, that
    is the gate of one user at a time, the *guide*. That is whoever is refused first, and another
    when that one has nothing left to send. All others have a gate of their own, a few numbers, and
    go at the pace that was learned; a 429 closes the gate of its user alone. Until the guide has
    found the limit, nobody is sent more than what got through for it, so that a limit costs one
    search and not one for every user. Users with nothing to do are forgotten after `KEEP_S`.
    """

    scope = "for each user, "

    def __init__(self, learner: Pace) -> None:
        self.learner = learner
        # What a user is allowed may be few requests, however they are spaced.
        learner.search.is_per_user = True
        self.users: OrderedDict[str, RequestStream] = OrderedDict()
        """Whoever sent last comes last."""
        self._guide: RequestStream | None = None
        """Whose gate is `learner`."""
        self._of: dict[int, tuple[RequestStream, Sent]] = {}
        """Permit -> its user and the request as it left through that user's gate."""
        self._refused_since: float | None = None

    def of(self, user_id: str, now: float) -> RequestStream:
        """Return what is known of a user, perhaps nothing yet."""
        user = self.users.get(user_id)
        if user is None:
            gate = _Follower(now, self.learner)
            user = self.users[user_id] = RequestStream(user_id, gate)
        return user

    def due_at(self, user: RequestStream) -> float:
        """Return from when on the user may send; infinite where an answer has to come first."""
        gate, learner, guide = user.gate, self.learner, self._guide
        is_searched = learner.known_per_s == math.inf
        if user.is_unpaced and not is_searched:
            user.is_unpaced = False
            gate.next_at = max(gate.next_at, gate.began_at + gate.through / learner.per_s)
        if gate.is_closed and gate.trying is not None:
            return math.inf
        if guide is None or guide is user or not learner.is_closed:
            return gate.next_at
        is_even = gate.through >= max(1, learner.through)
        if is_searched and (gate.is_closed or is_even):
            is_tried = learner.trying is not None
            return math.inf if is_tried else max(gate.next_at, learner.next_at + ABSENT_S)
        if not (is_searched or gate.is_closed or learner.is_stated):
            # What was too fast for the guide is too fast for all: it is about to be known.
            return max(gate.next_at, learner.closed_at + HELD_SLOTS / learner.per_s)
        return gate.next_at

    def left(self, user: RequestStream, permit: int, now: float) -> None:
        """A request of a user leaves: perhaps the limit is learned from this user from now on."""
        is_lost = self.learner.is_closed and now >= self.learner.next_at + ABSENT_S
        if self._guide is None or (is_lost and self.learner.trying is None):
            self._lead(user)
        gate = user.gate
        if gate.is_closed:
            gate.trying = permit
        elif gate.restart_after_pause(now) and gate is self.learner:
            self.learner.search.turn_to(now, gate.number)
        self._of[permit] = (user, gate.sent(now))
        user.is_unpaced = self.learner.known_per_s == math.inf
        user.out += 1
        self.users.move_to_end(user.name)
        self._forget_idle(now)

    def _lead(self, user: RequestStream) -> None:
        """Learn from this user from now on."""
        if self._guide is user:
            return
        if self._guide is not None:
            self._guide.gate = gate = _Follower(0.0, self.learner)
            gate.continue_from(self.learner)
        self._guide = user
        self.learner.follow(user.gate)
        user.gate = self.learner

    def _forget_idle(self, now: float) -> None:
        while True:
            name, user = next(iter(self.users.items()))
            gate = user.gate
            kept_until = (max(gate.next_at, gate.sent_at) if gate.number else gate.next_at) + KEEP_S
            if user.out or user.waiting or now < kept_until:
                return
            del self.users[name]
            if self._guide is user:
                self._guide = None

    def hurry(self, now: float) -> None:
        """Let nobody wait for a slot of a slower pace than the present one."""
        for user in self.users.values():
            if not user.gate.is_closed:
                user.gate.next_at = min(user.gate.next_at, now + 1.0 / self.learner.per_s)

    def accepted(self, permit: int) -> None:
        """An answer to a user's request came: the gateway does not refuse everybody."""
        user, sent = self._of[permit]
        user.gate.accepted(sent)
        self._refused_since = None

    def refused(self, permit: int, _sent: Sent, now: float) -> tuple[Pace | _Follower, Sent]:
        """Return the gate of its user, who is the guide if it is the first 429."""
        user, sent = self._of[permit]
        if self._refused_since is None:
            self._refused_since = now
        is_searched = self.learner.known_per_s == math.inf and not self.learner.is_closed
        if is_searched and sent.epoch == user.gate.epoch:
            self._lead(user)
        return user.gate, sent

    def back(self, permit: int) -> None:
        """A request is no longer in flight: another one of its user may try."""
        if permit in self._of:
            user, _ = self._of.pop(permit)
            user.out -= 1
            if user.gate.trying == permit:
                user.gate.trying = None

    def per_s(self) -> float:
        """Return the pace of all users of late together."""
        return self.learner.known_per_s * max(1, len(self.users))

    def is_far(self, user: RequestStream, now: float) -> bool:
        """Return whether a user's turn, behind those who wait for it already, is far off."""
        due_at = self.due_at(user)
        due_at = now + FAR_S if due_at == math.inf else max(now, due_at)
        return due_at + user.waiting / self.learner.per_s > now + FAR_S

    def first_due_at(self, now: float) -> float:
        """Return when the first of those users may send who have something to send."""
        wanting = [user for user in self.users.values() if user.waiting]
        return min((at for at in map(self.due_at, wanting) if at < math.inf), default=now)

    def refused_for_s(self, now: float) -> float:
        """Return for how many seconds nobody has got anything through but 429s."""
        return 0.0 if self._refused_since is None else now - self._refused_since
