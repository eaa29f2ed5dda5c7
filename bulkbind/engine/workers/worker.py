"""The worker's side: it sends what it is ordered to, within its lease, and tells what came."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from bulkbind.engine.workers.messages import (
    TO_WORKER,
    Beat,
    Failed,
    Frames,
    Hello,
    Kept,
    Key,
    Lease,
    Named,
    Order,
    Ready,
    Said,
    Start,
    ToDriver,
    ToWorker,
    Unasked,
    frame,
)
from bulkbind.model import Accepted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bulkbind.clock import Clock
    from bulkbind.koodrive.auth.credential import Credential
    from bulkbind.model import Attempt, Device

LEASE_S = 2.0
"""A worker sends for so long after it asked for its last lease."""
BEAT_S = 0.25
"""It asks for another one so often."""

GATHER_S = 0.004
"""Where no limit is known, accepted binds wait for others for so long: each group costs both sides
a turn of the event loop. Where one is, the pace needs to know of each at once."""


class LateError(Exception):
    """A request did not leave, as the lease had ended, or the driver."""


class Sends(Protocol):
    """What the worker sends with."""

    names_codes: bool
    """Whether each success must name its machine code."""

    async def bind(
        self, device: Device, credential: Credential, timeout_s: float | None = None
    ) -> Attempt:
        """Send one bind. Raises: LateError if it was not sent since `may_send` raised it."""

    def on_unasked(self, report: Callable[[int], None]) -> None:
        """Have *report* called with the number of a connection that says more, or breaks."""


class Worker:
    """One worker: hears orders, sends them, answers."""

    def __init__(
        self,
        clock: Clock,
        send: Callable[[bytes], None],
        *,
        version: str,
        open_client: Callable[[bytes, Callable[[], None]], Awaitable[Sends]],
        credential_of: Callable[[tuple[str, ...]], Credential],
        has_driver: Callable[[], bool],
    ) -> None:
        """Say hello.

        Args:
            clock: Measures the lease.
            send: Sends bytes to the driver.
            version: Of bulkbind.
            open_client: Returns the client, from the driver's setup and what raises LateError
                when a request must not leave any more.
            credential_of: Returns a credential, from its own form.
            has_driver: Returns whether the driver is alive: the next one may be there already.
        """
        self._clock = clock
        self._send = send
        self._open_client = open_client
        self._credential_of = credential_of
        self._has_driver = has_driver
        self._frames = Frames(TO_WORKER)
        self._client: Sends | None = None
        self._keys: dict[int, Credential] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._asked: dict[int, float] = {}
        """When each lease that has not come was asked for."""
        self._until = float("-inf")
        """The end of the lease."""
        self._names_codes = False
        self._is_free = False
        self._in_hand = 0
        """Orders that are being sent."""
        self._out: list[ToDriver] = []
        self._timer: asyncio.TimerHandle | None = None
        """Of what waits; None: it goes in this turn of the event loop, or nothing does."""
        self.failure: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Why it must end, once it must."""
        self._put(Hello(version))

    def may_send(self) -> None:
        """Return if a request may leave now. Raises: LateError."""
        if self._clock.monotonic() >= self._until or not self._has_driver():
            raise LateError

    def heard(self, data: bytes) -> None:
        """Do what the driver says."""
        try:
            for message in self._frames.feed(data):
                self._do(message)
        except Exception as error:  # noqa: BLE001  # the driver must learn why it ends
            self._fail(f"it cannot do what it is told: {type(error).__name__}: {error}")

    def _do(self, message: ToWorker) -> None:
        match message:
            case Order():
                self._start(self._bind(message))
            case Lease(beat=beat, is_free=is_free):
                self._is_free = is_free
                if (asked_at := self._asked.pop(beat, None)) is not None:
                    self._until = max(self._until, asked_at + LEASE_S)
            case Key(number=number, parts=parts):
                self._keys[number] = self._credential_of(parts)
            case Start(setup=setup):
                self._start(self._open(setup))
            case Named():
                self._names_codes = True
                if self._client is not None:
                    self._client.names_codes = True

    def _start(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(f"{type(error).__name__}: {error}")

    async def _open(self, setup: bytes) -> None:
        client = await self._open_client(setup, self.may_send)
        client.on_unasked(lambda number: self._put(Unasked(number)))
        client.names_codes = client.names_codes or self._names_codes
        self._client = client
        self._put(Ready())
        beat = 0
        while True:
            beat += 1
            self._asked[beat] = self._clock.monotonic()
            self._put(Beat(beat))
            await self._clock.sleep(BEAT_S)

    async def _bind(self, order: Order) -> None:
        assert self._client is not None  # the driver waits until it is ready
        self._in_hand += 1
        try:
            self.may_send()
            key = self._keys[order.key]
            attempt = await self._client.bind(order.device, key, order.timeout_s)
        except LateError:
            self._put(Kept(order.number))
        else:
            self._put(Said.of(order.number, attempt), waits=isinstance(attempt.verdict, Accepted))
        finally:
            self._in_hand -= 1

    def _put(self, message: ToDriver, *, waits: bool = False) -> None:
        """Send a message, with all others of this turn of the event loop.

        *waits*: for up to `GATHER_S`, unless half of what was in hand has come back.
        """
        self._out.append(message)
        loop = asyncio.get_running_loop()
        if not (waits and self._is_free) or 2 * len(self._out) >= self._in_hand:
            if self._timer is not None:
                self._timer.cancel()
            if self._timer is not None or len(self._out) == 1:
                self._timer = None
                loop.call_soon(self._flush)
        elif len(self._out) == 1:
            self._timer = loop.call_later(GATHER_S, self._flush)

    def _flush(self) -> None:
        out, self._out, self._timer = self._out, [], None
        if out:
            self._send(frame(out))

    def _fail(self, why: str) -> None:
        if not self.failure.done():
            self._send(frame([Failed(why)]))
            self.failure.set_result(why)
