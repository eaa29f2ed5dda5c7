"""Sending again: the only module that knows tenacity."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_result, wait_random_exponential

from bulkbind.engine.decide import Again

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bulkbind.clock import Clock
    from bulkbind.engine.ports import Gate
    from bulkbind.engine.stop import StopSignal

T = TypeVar("T")


class Retries:
    """Waits between attempts: full jitter for a device's trouble; everybody's is the gate's."""

    def __init__(
        self, clock: Clock, stop: StopSignal, gate: Gate, *, base_s: float, cap_s: float
    ) -> None:
        self._clock = clock
        self._stop = stop
        self._gate = gate
        self._backoff = wait_random_exponential(multiplier=base_s, max=cap_s)
        self.backed_off_s = 0.0
        """Seconds that devices have waited for their own trouble to pass, all of them added up."""

    def refused_for_s(self) -> float:
        """Return for how many seconds the gateway has refused everything."""
        return self._gate.refused_for_s()

    def wait_s(self, again: Again, attempts: int) -> float:
        """Return the seconds to wait after attempt *attempts* (1-based, those that cost).

        `max(retry_after, rand(0, min(cap, base * 2**(attempts - 1))))` after trouble of the
        device; otherwise 0, since the gate is where all wait for the gateway's. Source: AWS
        Architecture Blog, "full jitter".
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
        before_wait: Callable[[], Awaitable[None]],
        once: Callable[[], Awaitable[T | Again]],
    ) -> T:
        """Call *once* until it returns something other than `Again`, and return that.

        Args:
            again: What the attempt before the first call returned.
            attempts: How many attempts have cost so far; grows from call to call.
            before_wait: Called before every wait, the first included.
            once: Makes one attempt.

        Raises: DrainedError when the run stops; whatever *once* raises.
        """
        earlier: list[Again] = [again]

        async def attempt() -> T | Again:
            return earlier.pop() if earlier else await once()

        def wait(state: RetryCallState) -> float:
            outcome = state.outcome
            assert outcome is not None  # tenacity asks after an attempt only
            result = outcome.result()
            wait_s = self.wait_s(result, attempts())
            self.backed_off_s += wait_s if result.backoff else 0.0
            return wait_s

        async def before_sleep(_state: RetryCallState) -> None:
            await before_wait()

        async def sleep(seconds: float) -> None:
            await self._stop.sleep(self._clock, seconds)

        # How many attempts there are is decided with the verdict, so this one never stops by
        # itself; its counter is per device.
        retrying = AsyncRetrying(
            sleep=sleep,
            wait=wait,
            before_sleep=before_sleep,
            retry=retry_if_result(lambda result: isinstance(result, Again)),
        )
        result: T | Again = await retrying(attempt)
        assert not isinstance(result, Again)  # the condition above
        return result


def jitter(seconds: float) -> float:
    """Return *seconds* plus up to a tenth, so that many who wait do not come at once."""
    return seconds * random.uniform(1.0, 1.1)  # noqa: S311  # not a secret
