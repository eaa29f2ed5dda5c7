"""Which limits a request meets, and which of them speaks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from bulkbind.sandbox.limit_headers import FORMS, Word
from bulkbind.sandbox.limiters import Limiter, limiter_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bulkbind.sandbox.spec_parser import Limit
    from bulkbind.sandbox.specs import Call


class Entry:
    """One request's way through the limits; leaving the block ends it.

    Attributes:
        refused_by: The limit that refused it, as it stood then; None: it was admitted.
        speaker: The limit whose headers go on the answer; None: none.
    """

    def __init__(
        self, *, refused_by: Word | None, speaker: Word | None, charged: Sequence[Limiter]
    ) -> None:
        self.refused_by = refused_by
        self.speaker = speaker
        self._charged = charged

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for limiter in self._charged:
            limiter.leave()


class Gate:
    """Counts requests by limit, and by user where a limit says so."""

    def __init__(self, limits: Sequence[Limit]) -> None:
        self._limits = limits
        self._limiters: list[dict[str, Limiter]] = [{} for _ in limits]

    def enter(self, call: Call, user_id: str, *, now: float, elapsed_s: float) -> Entry:
        """Charge a request to every limit in force, or, if one refuses, to none.

        Args:
            call: What is asked for.
            user_id: Who asks.
            now: Monotonic seconds.
            elapsed_s: Since the sandbox started.
        """
        met = [
            (limit, self._limiter(number, user_id))
            for number, limit in enumerate(self._limits)
            if limit.on.covers(call) and limit.period.holds(elapsed_s)
        ]
        words = [Word(limit, limiter.look(now)) for limit, limiter in met]
        refusing = [word for word in words if word.standing.left < 1]
        if refusing:
            # The one that refuses longest tells the truth about when to come again.
            word = max(refusing, key=lambda word: word.standing.reset_s)
            return Entry(refused_by=word, speaker=word, charged=())
        for _, limiter in met:
            limiter.take(now)
        telling = [
            Word(limit, limiter.look(now))
            for limit, limiter in met
            if any(FORMS[form].is_header for form in limit.tell)
        ]
        speaker = min(telling, key=lambda word: word.standing.left, default=None)
        return Entry(refused_by=None, speaker=speaker, charged=[limiter for _, limiter in met])

    def _limiter(self, number: int, user_id: str) -> Limiter:
        limit = self._limits[number]
        limiters = self._limiters[number]
        key = user_id if limit.is_per_user else ""
        if key not in limiters:
            limiters[key] = limiter_for(limit)
        return limiters[key]
