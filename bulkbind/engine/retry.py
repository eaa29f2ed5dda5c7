"""Send again: the only module that knows tenacity."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_result, wait_random_exponential

from bulkbind.engine.decide import Again
from bulkbind.model import TimeUse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bulkbind.clock import Clock
    from bulkbind.engine.ports import Gate
    from bulkbind.engine.stop import StopSignal
    from bulkbind.settings import SendSettings

T = TypeVar("T")


class Retries:
    """Waits between attempts: full jitter for a device's own trouble; the gate does the rest."""

    def __init__(self, clock: Clock, stop: StopSignal, gate: Gate, send: SendSettings) -> None:
        self._clock = clock
        self._stop = stop
        self._gate = gate
        self._backoff = wait_random_exponential(multiplier=send.backoff_base, max=send.backoff_cap)
        self.backed_off_s = 0.0
        """Total seconds of backoff over all devices."""

    def refused_for_s(self) -> float:
        """Return for how many seconds the gateway has refused everything."""
        return self._gate.refused_for_s()

    def wait_s(self, again: Again, attempts: int) -> float:
        """Return the seconds to wait after attempt *attempts* (1-based, those that cost).

        `max(retry_after, rand(0, min(cap, base * 2**(attempts - 1))))` for the device's own trouble
        (source: AWS Architecture Blog, "full jitter"); else 0: the gate waits for the gateway.
        """
        if not again.backoff:
            return 0.0
        state = RetryCallState(None, None, (), {})  # type: ignore[arg-type]  # only the number is read
        state.attempt_number = max(attempts, 1)
        return max(again.retry_after_s, self._backoff(state))

    async def until_done(
        self,
        again: Again,
        attempts: Callable[[], int],
        once: Callable[[], Awaitable[T | Again]],
        before_wait: Callable[[], Awaitable[None]] | None = None,
    ) -> T:
        """Call *once* until it returns something other than `Again`, and return that.

        Args:
            again: What the attempt before the first call returned.
            attempts: Returns how many attempts have cost so far.
            once: Makes one attempt.
            before_wait: Called before every wait, the first included.

        Raises: DrainedError when the run stops; whatever *once* raises.
        """
        earlier: list[Again] = [again]
        why = ""

        async def attempt() -> T | Again:
            return earlier.pop() if earlier else await once()

        def wait(state: RetryCallState) -> float:
            outcome = state.outcome
            assert outcome is not None  # tenacity calls this after an attempt only
            nonlocal why
            result = outcome.result()
            why = result.why
            wait_s = self.wait_s(result, attempts())
            self.backed_off_s += wait_s if result.backoff else 0.0
            return wait_s

        async def before_sleep(_state: RetryCallState) -> None:
            if before_wait is not None:
                await before_wait()

        async def sleep(seconds: float) -> None:
            if seconds <= 0:
                await self._stop.sleep(self._clock, seconds)
                return
            with self._gate.time.waiting(TimeUse.BACKING_OFF, seconds, why=why):
                await self._stop.sleep(self._clock, seconds)

        # No stop condition: the number of attempts is decided with the verdict.
        retrying = AsyncRetrying(
            sleep=sleep,
            wait=wait,
            before_sleep=before_sleep,
            retry=retry_if_result(lambda result: isinstance(result, Again)),
        )
        result: T | Again = await retrying(attempt)
        assert not isinstance(result, Again)  # excluded by `retry`
        return result


def jitter(seconds: float) -> float:
    """Return *seconds* plus up to a tenth, so that many waiters do not wake at once."""
    return seconds * random.uniform(1.0, 1.1)  # noqa: S311  # not a secret
