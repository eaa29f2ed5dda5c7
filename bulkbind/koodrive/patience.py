"""For how long an answer is waited for, as a calculator that learns from those that came."""

from __future__ import annotations

TIMES = 4.0
"""So many times as long as answers take is waited, …"""
SPREAD = 4.0
"""… where that is their mean and so many mean deviations (RFC 6298, 2: SRTT + 4 * RTTVAR)."""
MEAN_SHARE, SPREAD_SHARE = 1 / 8, 1 / 4
"""What a new answer counts (ibidem)."""
SHORTEST_S, LONGEST_S = 15.0, 120.0
"""Shorter or longer than this is waited only where the settings say so."""
IN_A_ROW, MOST_DOUBLINGS = 5, 2
"""So many time-outs without any answer double the wait (as each does in RFC 6298, 5.5), so often at
most: one request alone tries a server that is silent, and all wait for it."""


class Patience:
    """How long an answer may take: never less than the floor, and more where answers are slow.

    A time-out leaves a device in doubt, so that it must not end what would have been answered. Of a
    server all of whose answers take longer than is waited, none is seen: time-outs without any
    answer in between lengthen the wait.
    """

    __slots__ = ("_answered_at", "_floor_s", "_mean_s", "_spread_s", "_unanswered")

    def __init__(self, floor_s: float) -> None:
        """*floor_s*: the least that is waited, seconds."""
        self._floor_s = floor_s
        self._mean_s = self._spread_s = 0.0
        self._unanswered = 0
        """Time-outs since the last answer."""
        self._answered_at = float("-inf")

    def seconds(self) -> float:
        """Return how long an answer is waited for now."""
        usual_s = self._mean_s + SPREAD * self._spread_s
        if not self._unanswered and TIMES * usual_s <= SHORTEST_S:
            return self._floor_s  # as all the rest would find
        doublings = min(self._unanswered // IN_A_ROW, MOST_DOUBLINGS)
        wait_s = max(self._floor_s, TIMES * usual_s) * 2.0**doublings
        return max(self._floor_s, min(wait_s, LONGEST_S)) if wait_s > SHORTEST_S else self._floor_s

    def answered(self, now: float, took_s: float) -> None:
        """An answer came at *now* (monotonic seconds), after *took_s*."""
        self._answered_at, self._unanswered = now, 0
        if not self._mean_s:
            self._mean_s, self._spread_s = took_s, took_s / 2
            return
        self._spread_s += SPREAD_SHARE * (abs(took_s - self._mean_s) - self._spread_s)
        self._mean_s += MEAN_SHARE * (took_s - self._mean_s)

    def timed_out(self, sent_at: float) -> None:
        """None came to a request that left at *sent_at* (monotonic seconds)."""
        if sent_at > self._answered_at:
            self._unanswered += 1
