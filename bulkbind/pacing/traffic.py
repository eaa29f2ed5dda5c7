"""What is on its way to the server, and whose request may leave when, as calculators.

`Traffic` knows the gates of the streams, and what is in flight; `Server`, whether anybody is there.
Who waits, the pacer knows.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bulkbind.pacing.gate import LONGEST_TRY_S, Gate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bulkbind.model import Throttled
    from bulkbind.pacing.flight import Flight
    from bulkbind.pacing.search import Pace, Sent

AWAY_FIRST_S = 0.5
"""A server that is away is tried after 0.5 s, 1 s, 2 s, … and every LONGEST_TRY_S in the end."""
SILENT_IN_A_ROW = 5
"""Unanswered requests in a row after which the server is taken to be away."""
SURE, SURE_S = 2.0, 0.01
"""A try got through if it is not refused within twice the time that a 429 takes, or 10 ms more: a
server that works on what it lets through refuses sooner than it answers."""
KEEP_S = 10.0
"""A user is forgotten who has sent nothing for so long."""
ABSENT_S = 0.25
"""A guide that does not try when it may has nothing to send: another user takes over."""
FAR_S = 0.5
"""Rows wait for a permit where their turn comes sooner; else they make way for those of others."""
LEAST_S = 1e-6
"""An answer takes so long at least: what is handed over ahead may leave just before it is due."""
MANY = 64
"""Requests may leave along with another where the pace allows so many at once."""


class Server:
    """Whether the server is there; where it is not, one request alone tries.

    Attributes:
        next_at: While it is away: nobody tries before.
        trying: The permit of the one that tries.
    """

    def __init__(self, now: float) -> None:
        self.next_at = now
        self.is_away = False
        self.trying: int | None = None
        self._since = self._silent = self._missed = 0
        """What left up to this permit says nothing new; requests unanswered in a row; tries."""

    def heard(self, permit: int) -> None:
        """An answer came."""
        if permit > self._since:
            self.is_away, self._silent = False, 0

    def missed(self, now: float, permit: int, last: int, *, is_away: bool) -> bool:
        """No answer came, *last* left last; return whether the server is away."""
        if permit <= self._since or (self.is_away and permit < last):  # another one tries
            return False
        self._silent += 1
        if is_away or self.is_away or self._silent >= SILENT_IN_A_ROW:
            self._silent, self._since = 0, last
            self.wait(now)
            self.is_away = True
        return self.is_away

    def wait(self, now: float) -> None:
        """Nobody sends before the next try."""
        self.trying, self._missed = None, self._missed + 1 if self.is_away else 0
        self.next_at = now + min(LONGEST_TRY_S, AWAY_FIRST_S * 2.0 ** min(self._missed, 16))


@dataclass(slots=True)
class Out:
    """A request on its way: as it left, and how many were in flight with it."""

    gate: Gate
    sent: Sent
    in_flight: int
    along: int = 0
    """How many left along with it, which share this."""
    heard: int = 0
    """How many of all these were accepted and have not been learned from."""


class Traffic:
    """What is on its way: through the gate of its stream, and so many as `Flight` allows.

    Where users are counted apart the limit is the same number for all of them, so it is learned
    once: from one at a time, the *guide*. That is whoever is refused first, and another when that
    one has nothing left to send. All others go at the pace that was learned; a 429 closes the gate
    of its user alone. Until the guide has found the limit, nobody is sent more than what got
    through for it, so that a limit costs one search and not one for every user. Users with nothing
    to do are forgotten after `KEEP_S`.

    Attributes:
        gates: By user, whoever sent last comes last; where all are counted together, one.
        refused_since: Since when nothing has come but 429s.
    """

    def __init__(self, now: float, pace: Pace, flight: Flight, *, per_user: bool = False) -> None:
        self.pace, self.flight, self.server = pace, flight, Server(now)
        self.per_user = per_user
        self.gates: OrderedDict[str, Gate] = OrderedDict()
        self.guide: Gate | None = None if per_user else self.gate("", now)
        self.refused_since: float | None = None
        self._unpaced: set[str] = set()
        """Users of whom some left before there was a pace, so that no slot counts them."""
        self._permits, self._sent_at = 0, now
        self._refusal_s = 0.0
        """How long a 429 takes to come."""
        self._out: dict[int, Out] = {}
        """What is in flight by its permit, the earliest first, but for …"""
        self._silent: dict[int, Out] = {}
        """… what has been for much longer than answers take."""

    @property
    def is_closed(self) -> bool:
        """Whether nobody may send but one that tries."""
        is_refused = self.guide is not None and self.guide.is_closed and not self.per_user
        return self.server.is_away or is_refused

    def per_s(self) -> float:
        """Return the pace of all streams of late together; infinite: no limit."""
        return self.pace.known_per_s * max(1, len(self.gates))

    def gate(self, user_id: str, now: float) -> Gate:
        """Return the gate of a user's requests."""
        name = user_id if self.per_user else ""
        gate = self.gates.get(name)
        if gate is None:
            gate = self.gates[name] = Gate(now, self.pace, name, leads=not self.per_user)
        return gate

    # --- when a request may leave -----------------------------------------------------------------

    def due_at(self, gate: Gate, now: float) -> float:
        """Return when a stream may send again; infinite: an answer has to come first."""
        if gate.is_closed and gate.trying is not None:
            took_s = self._refusal_s
            sure_at = gate.sent_at + max(SURE * took_s, took_s + SURE_S)
            if now < sure_at:
                return sure_at
            gate.trying = None
            gate.open()  # the one that tries would have been refused by now
        guide, pace = self.guide, self.pace
        is_searched = pace.known_per_s == math.inf
        if not is_searched and gate.name in self._unpaced:
            self._unpaced.discard(gate.name)
            gate.next_at = max(gate.next_at, gate.began.at + gate.through / pace.per_s)
        if guide is None or guide is gate or not guide.is_closed:
            return gate.next_at
        if is_searched and (gate.is_closed or gate.through >= max(1, guide.through)):
            is_tried = guide.trying is not None
            return math.inf if is_tried else max(gate.next_at, guide.next_at + ABSENT_S)
        return gate.next_at

    def clear_at(self, now: float) -> float:
        """Return when the server may be sent one more request; infinite: after an answer."""
        flight, server = self.flight, self.server
        if server.is_away:
            if server.trying is None:
                return server.next_at
            if now < (again_at := self._sent_at + flight.again_s):
                return again_at
            # One that is lost shows nothing.
            server.wait(now)
            return server.next_at
        self._find_silent(now)
        silent, per_s = len(self._silent), math.inf if self.per_user else self.pace.known_per_s
        if flight.has_place(now, per_s, self.in_flight(), silent):
            return flight.next_at
        if self.in_flight() >= flight.most:
            return math.inf
        out = next(iter(self._out.values()), None)
        at = self._sent_at + flight.again_s if out is None else out.sent.at + flight.silent_s
        return at if at > now else math.inf

    def in_flight(self) -> int:
        """Return how many requests are, the silent ones too."""
        return len(self._out) + len(self._silent)

    def is_far(self, gate: Gate, now: float) -> bool:
        """Return whether a user's turn, behind those who wait for it, is far off."""
        if not self.per_user:
            return False
        due_at = self.due_at(gate, now)
        due_at = now + FAR_S if due_at == math.inf else max(now, due_at)
        return due_at + gate.waiting / self.pace.per_s > now + FAR_S

    def closed_for_s(self, now: float) -> float:
        """Return for how many seconds nobody may send who has something to send."""
        away_s = self.server.next_at - now if self.server.is_away else 0.0
        wanting = [gate for gate in self.gates.values() if gate.waiting or not self.per_user]
        due = (at for gate in wanting if (at := self.due_at(gate, now)) < math.inf)
        return max(0.0, away_s, min(due, default=now) - now)

    def hurry(self, now: float) -> None:
        """Let nobody wait for a slot of a slower pace than the present one."""
        for gate in self.gates.values():
            if not gate.is_closed:
                gate.next_at = min(gate.next_at, now + 1.0 / self.pace.per_s)

    # --- what leaves ------------------------------------------------------------------------------

    def sent(self, gate: Gate, now: float) -> int:
        """A request leaves; return its permit."""
        if self.per_user:
            self._sent_for(gate, now)
        self._permits = permit = self._permits + 1
        if gate.is_closed:
            gate.trying = permit
        if self.server.is_away:
            self.server.trying = permit
        sent = gate.sent(now)
        gate.out += 1
        self.flight.sent(now)
        self._sent_at = now
        self._out[permit] = self._last = Out(gate, sent, len(self._out) + 1)
        return permit

    def _sent_for(self, gate: Gate, now: float) -> None:
        """A request of a user leaves: perhaps the limit is learned from this one from now on."""
        guide = self.guide
        is_lost = guide and guide.is_closed and now >= guide.next_at + ABSENT_S
        if guide is None or (is_lost and guide.trying is None):
            self._lead(gate)
        if self.pace.known_per_s == math.inf:
            self._unpaced.add(gate.name)
        self.gates.move_to_end(gate.name)
        while True:
            name, idle = next(iter(self.gates.items()))
            kept_until = (max(idle.next_at, idle.sent_at) if idle.number else idle.next_at) + KEEP_S
            if idle is gate or idle.out or idle.waiting or now < kept_until:
                return
            del self.gates[name]
            self._unpaced.discard(name)
            if self.guide is idle:
                self.guide = None

    def _lead(self, gate: Gate) -> None:
        """Learn from this stream from now on."""
        if self.guide is not gate:
            if self.guide is not None:
                self.guide.leads = False
            self.guide = gate
            gate.lead()

    def room(self, gate: Gate, now: float) -> int:
        """Return how many may leave along with the last one: none but far from any limit."""
        flight = self.flight
        is_free = self.pace.known_per_s == flight.places.limit == math.inf and not gate.is_closed
        due = (now - gate.next_at) * self.pace.per_s
        if self.per_user or self.server.is_away or not is_free or due < MANY:
            return 0
        return max(0, int(min(due, flight.wide - self.in_flight())))

    def sent_along(self, number: int) -> range:
        """So many leave along with the last one; return their permits."""
        last, first = self._last, self._permits + 1
        last.gate.sent_along(number)
        self._permits += number
        permits = range(first, first + number)
        for permit in permits:
            self._out[permit] = last
        last.along += number
        last.in_flight = len(self._out)
        return permits

    # --- what becomes of it -----------------------------------------------------------------------

    def accepted_along(self, permits: Sequence[int]) -> list[int]:
        """Take out what was accepted if others that left along with it are out; return the rest.

        All are learned from at once when the last is heard.
        """
        return [permit for permit in permits if not self.is_accepted_along(permit)]

    def is_accepted_along(self, permit: int) -> bool:
        """Do so with one; return whether it was taken out."""
        out = self._out.get(permit)
        if out is None or out.heard >= out.along or out.gate.is_closed or self.server.is_away:
            return False
        del self._out[permit]
        out.heard += 1
        out.gate.out -= 1
        return True

    def ended(self, permit: int, now: float) -> tuple[Out, bool]:
        """Take out a request that has ended; return it, and whether it was silent."""
        self._find_silent(now)
        was_silent = permit in self._silent
        out = (self._silent if was_silent else self._out)[permit]
        was_silent &= permit not in {out.gate.trying, self.server.trying}
        self._take_out(permit)
        out.along = 0  # the others are told apart from here on
        return out, was_silent

    def forget(self, permit: int) -> None:
        """A request was not sent, or broken off."""
        out = self._take_out(permit)
        if out is not None:
            out.gate.lost()

    def _take_out(self, permit: int) -> Out | None:
        """Take out a request: if it was the one that tries, another one may."""
        out = self._out.pop(permit, None) or self._silent.pop(permit, None)
        if out is not None:
            out.gate.out -= 1
            out.gate.trying = None if out.gate.trying == permit else out.gate.trying
        if self.server.trying == permit:
            self.server.trying = None
        return out

    def accepted(self, permit: int, out: Out, now: float) -> None:
        """An answer came that was no 429."""
        self.server.heard(permit)
        self.refused_since = None
        out.gate.accepted(out.sent, self.flight.took_s or math.inf)
        heard, out.heard = 1 + out.heard, 0
        self.flight.accepted(now, out.in_flight, max(LEAST_S, now - out.sent.at), heard)

    def throttled(self, permit: int, out: Out, now: float, told: Throttled) -> None:
        """A 429 came: a limit in flight is met by fewer at once, any other closes a gate."""
        self.server.heard(permit)
        gate, sent = out.gate, out.sent
        self._refusal_s = max(0.0, now - sent.at)
        self.refused_since = now if self.refused_since is None else self.refused_since
        is_late = gate.is_closed or sent.epoch != gate.epoch
        guide = self.guide
        is_searched = self.pace.known_per_s == math.inf and not (guide and guide.is_closed)
        if self.per_user and is_searched and sent.epoch == gate.epoch:
            self._lead(gate)
        is_told = told.limit is not None or told.retry_after_s is not None
        is_spaced = self.pace.is_spaced or gate.is_paired(sent)
        may_be_places = not (is_late or is_told or is_spaced or self.flight.is_carried)
        places, last = self.flight.places, self._permits
        if may_be_places and places.throttled(now, out.in_flight, permit, last):
            gate.lost()
        else:
            gate.throttled(now, sent, told)

    def unanswered(
        self, permit: int, out: Out, now: float, *, was_silent: bool, is_away: bool
    ) -> None:
        """No answer came; *is_away*: not even a connection; else it was let through."""
        if is_away:
            out.gate.lost()
        # What left long before others that were answered does not say that the server is away.
        if was_silent and self.flight.is_served:
            return
        if self.server.missed(now, permit, self._permits, is_away=is_away):
            if self.guide is not None:
                self.guide.forget()
        else:
            out.gate.broke_off(now, out.sent)
        if not is_away:
            self.flight.unanswered(now)

    def _find_silent(self, now: float) -> None:
        while self._out:
            permit, out = next(iter(self._out.items()))
            if out.sent.at + self.flight.silent_s > now:
                return
            self._silent[permit] = self._out.pop(permit)
            self.flight.fell_silent()
