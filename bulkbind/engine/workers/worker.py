"""The worker's side: it sends what it is ordered to, within its lease, and tells what came."""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

from bulkbind.engine.proof import accepted
from bulkbind.engine.workers import messages
from bulkbind.model import Accepted, Attempt, Claim, Device, Status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bulkbind.clock import Clock
    from bulkbind.engine.ports import Came, Landed
    from bulkbind.engine.workers.messages import ToDriver, ToWorker
    from bulkbind.koodrive.auth.credential import Credential

LEASE_S = 2.0
"""A worker sends for so long after it asked for its last lease."""
BEAT_S = 0.25
"""It asks for another one so often."""

GATHER_S = 0.004
"""Where no limit is known, accepted binds wait for others for so long: each group costs both sides
a turn of the event loop. Where one is, the pace needs to know of each at once, unless the way to
the driver costs more than that is worth."""
CLUMP_S = 0.005
"""Binds that leave over a time do so a few together, so often."""
TICK_S = 0.0005
"""What is due so soon is done now: timers are no finer."""

FIRST = Claim(0, Device("", ""), attempts=1)
"""A row whose first attempt has come back: what that is worth does not depend on the device."""


class LateError(Exception):
    """A request did not leave, as the lease had ended, or the driver."""


class Sends(Protocol):
    """What the worker sends with."""

    names_codes: bool
    """Whether each success must name its machine code."""

    def post(
        self,
        device: Device,
        credential: Credential,
        landed: Landed,
        timeout_s: float | None = None,
    ) -> None:
        """Send one bind, and have *landed* told of it.

        What is awaited for it raises LateError where nothing was sent since `may_send` did.
        """

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
        self._frames = messages.Frames(messages.TO_WORKER)
        self._client: Sends | None = None
        self._keys: dict[int, Credential] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._asked: dict[int, float] = {}
        """When each lease that has not come was asked for."""
        self._until = float("-inf")
        """The end of the lease."""
        self._names_codes = False
        self._is_free = False
        self._gather_s = 0.0
        self._began_at = self._due_at = float("-inf")
        """When the group came that is heard, and when what follows is to be done."""
        self._later: deque[tuple[float, ToWorker]] = deque()
        """What is not due, in order."""
        self._next: asyncio.TimerHandle | None = None
        """Of the first of it."""
        self._in_hand = 0
        """Orders that are being sent."""
        self._passed: list[tuple[int, Attempt]] = []
        """Accepted binds that are to be told, all of one …"""
        self._kind = (True, True, "", "")
        """… kind: whether the bindings are ours, the answers name their devices; their words."""
        self._out: list[ToDriver] = []
        self._timer: asyncio.TimerHandle | None = None
        """Of what waits for more; None: nothing does."""
        self._is_due = False
        """Whether all goes in this turn of the event loop."""
        self.failure: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Why it must end, once it must."""
        self._put(messages.Hello(version))

    def may_send(self) -> None:
        """Return if a request may leave now. Raises: LateError."""
        if self._clock.monotonic() >= self._until or not self._has_driver():
            raise LateError

    def heard(self, data: bytes) -> None:
        """Do what the driver says."""
        try:
            for message in self._frames.feed(data):
                is_late = self._later or self._due_at > self._began_at
                if is_late and not isinstance(message, messages.After | messages.Revoke):
                    self._do_later(message)
                else:
                    self._do(message)
        except Exception as error:  # noqa: BLE001  # the driver must learn why it ends
            self._fail_at(error)

    def _fail_at(self, error: Exception) -> None:
        self._fail(f"it cannot do what it is told: {type(error).__name__}: {error}")

    def _wait(self, seconds: float) -> None:
        """Let what follows wait as long as it would have come later than what began its group."""
        if not seconds:
            self._began_at = asyncio.get_running_loop().time()
        self._due_at = max(self._due_at, self._began_at + seconds)

    def _do_later(self, message: ToWorker) -> None:
        self._later.append((self._due_at, message))
        self._wait_for_next()

    def _spread(self, order: messages.Order) -> None:
        """Let a few leave now, and a few more every `CLUMP_S`."""
        now, rows = asyncio.get_running_loop().time(), len(order.devices)
        clumps = min(rows, max(1, round(order.over_s / CLUMP_S)))
        starts = [clump * rows // clumps for clump in range(clumps + 1)]
        parts = [
            messages.Order(
                order.number + start, order.key, order.timeout_s, order.devices[start:end]
            )
            for start, end in pairwise(starts)
        ]
        self._send_all(parts[0])
        for clump, part in enumerate(parts[1:], 1):
            self._due_at = max(self._due_at, now + order.over_s * clump / clumps)
            self._do_later(part)

    def _wait_for_next(self) -> None:
        if self._later and self._next is None:
            self._next = asyncio.get_running_loop().call_at(self._later[0][0], self._do_due)

    def _do_due(self) -> None:
        self._next = None
        by = asyncio.get_running_loop().time() + TICK_S
        try:
            while self._later and self._later[0][0] <= by:
                self._do(self._later.popleft()[1])
        except Exception as error:  # noqa: BLE001  # as above
            self._fail_at(error)
        self._wait_for_next()

    def _do(self, message: ToWorker) -> None:
        match message:
            case messages.Order():
                self._spread(message) if message.over_s else self._send_all(message)
            case messages.Lease(beat=beat, is_free=is_free):
                self._is_free = is_free
                if (asked_at := self._asked.pop(beat, None)) is not None:
                    self._until = max(self._until, asked_at + LEASE_S)
            case messages.After(seconds=seconds):
                self._wait(seconds)
            case messages.Revoke():
                self._keep_all()
            case messages.Key(number=number, parts=parts):
                self._keys[number] = self._credential_of(parts)
            case messages.Start(setup=setup, gather_s=gather_s):
                self._gather_s = gather_s
                self._start(self._open(setup))
            case messages.Named():
                self._demand_names()

    def _demand_names(self) -> None:
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
        client.on_unasked(lambda number: self._put(messages.Unasked(number)))
        client.names_codes = client.names_codes or self._names_codes
        self._client = client
        self._put(messages.Ready())
        beat = 0
        while True:
            beat += 1
            self._asked[beat] = self._clock.monotonic()
            self._put(messages.Beat(beat), waits=True)
            await self._clock.sleep(BEAT_S)

    def _send_all(self, order: messages.Order) -> None:
        assert self._client is not None  # the driver waits until it is ready
        key = self._keys[order.key]
        self._in_hand += len(order.devices)
        for number, device in enumerate(order.devices, order.number):
            self._client.post(device, key, partial(self._landed, number), order.timeout_s)

    def _keep_all(self) -> None:
        """Send none of what is not due."""
        later, self._later = self._later, deque()
        for at, message in later:
            if isinstance(message, messages.Order):
                for number in range(message.number, message.number + len(message.devices)):
                    self._put(messages.Kept(number))
            else:
                self._later.append((at, message))

    def _landed(self, number: int, came: Came) -> None:
        if callable(came):
            self._start(self._awaited(number, came))
            return
        try:
            self._tell(number, came)
        except Exception as error:  # noqa: BLE001  # a connection calls: the driver would wait
            self._fail(f"it cannot tell what came: {type(error).__name__}: {error}")

    async def _awaited(self, number: int, came: Callable[[], Awaitable[Attempt | None]]) -> None:
        try:
            attempt = await came()
        except LateError:
            attempt = None
        self._tell(number, attempt)

    def _tell(self, number: int, attempt: Attempt | None) -> None:
        """Tell what came of a bind; None: it was not sent."""
        self._in_hand -= 1
        if attempt is None:
            self._put(messages.Kept(number))
            return
        verdict = attempt.verdict
        if isinstance(verdict, Accepted) and messages.Passed.takes(attempt):
            outcome = accepted(FIRST, attempt, verdict)
            if not outcome.detail:
                kind = (
                    outcome.status is Status.BOUND, attempt.is_named, attempt.code, attempt.message,
                )  # fmt: skip
                if kind != self._kind:
                    self._close_passed()
                    self._kind = kind
                self._passed.append((number, attempt))
                self._flush_soon()
                return
        self._put(messages.Said.of(number, attempt), waits=isinstance(verdict, Accepted))

    def _put(self, message: ToDriver, *, waits: bool = False) -> None:
        """Send a message after those before it, with all others of this turn of the event loop.

        *waits*: as `_flush_soon` says.
        """
        self._close_passed()
        self._out.append(message)
        if waits:
            self._flush_soon()
        else:
            self._flush_now()

    def _flush_soon(self) -> None:
        """Send all once half of what was in hand has come back, or in the time to gather."""
        waiting = len(self._passed) + len(self._out)
        gather_s = max(GATHER_S, self._gather_s) if self._is_free else self._gather_s
        if not gather_s:
            self._flush()
        elif not (self._in_hand or self._later) or (self._is_free and 2 * waiting >= self._in_hand):
            self._flush_now()
        elif self._timer is None and not self._is_due:
            self._timer = asyncio.get_running_loop().call_later(gather_s, self._flush)

    def _flush_now(self) -> None:
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _close_passed(self) -> None:
        if self._passed:
            self._out.append(messages.Passed.of(self._passed, is_ours=self._kind[0]))
            self._passed = []

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._close_passed()
        out, self._out, self._timer, self._is_due = self._out, [], None, False
        if out:
            self._send(messages.frame(out))

    def _fail(self, why: str) -> None:
        if not self.failure.done():
            self._send(messages.frame([messages.Failed(why)]))
            self.failure.set_result(why)
