"""The driver's side: one client for the engine, whose binds the workers send."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Protocol, Self

from bulkbind.engine.ports import Client
from bulkbind.engine.workers.messages import (
    TO_DRIVER,
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
from bulkbind.engine.workers.worker import BEAT_S, LEASE_S
from bulkbind.logs import logger
from bulkbind.model import Accepted, AlreadyBound, Attempt, Listing, NoAnswer, Refused, WorkerState
from bulkbind.redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bulkbind.clock import Clock
    from bulkbind.engine.workers.link import Link
    from bulkbind.koodrive.auth.credential import Credential
    from bulkbind.koodrive.auth.renewing import SessionCall
    from bulkbind.model import Device

SILENT_BEATS = int(LEASE_S / BEAT_S) + 2
"""Beats in a row that must be missing while the driver itself is awake before a worker is buried:
its lease has ended then."""
NUMBER_BITS = 32
"""A connection's number is the worker's, and in these bits its own."""
LOST = "worker"
"""The code of an attempt of a lost worker."""


class Local(Client, Protocol):
    """The driver's own client: what binds do not need, and the first of them."""

    names_codes: bool
    """Whether each success must name its machine code."""

    def learn(self, attempt: Attempt) -> None:
        """Learn from a bind of a worker as from an own one; it has just come back."""


@dataclass(slots=True)
class _Ordered:
    """A bind that a worker was told to send."""

    landed: Callable[[Attempt | None], None]
    at: float
    timeout_s: float


@dataclass(slots=True, eq=False)
class _Crew:
    """What is known of one worker."""

    number: int
    link: Link | None = None
    is_greeted: bool = False
    """Whether it has said hello."""
    is_told: bool = False
    """Whether it has been told how to reach the server."""
    orders: dict[int, _Ordered] = field(default_factory=dict)
    """What it has in hand."""
    keys: set[int] = field(default_factory=set)
    """Credentials that it has got."""
    nameless: set[int] = field(default_factory=set)
    """Connections whose last answer named no device: where they break, it may be another's."""
    ready_at: float = float("inf")
    leased_at: float = float("-inf")
    missing: int = 0
    """Beats in a row."""
    settled: int = 0
    counted: tuple[float, int] = (0.0, 0)
    """Of the last look: when, and how many were settled."""
    per_s: float = 0.0
    lost: str = ""
    """Why it is gone; empty while it is not."""
    timeout_s: float = 0.0
    """For how long the answers to the orders in `out` are waited; 0 while there are none."""
    out: list[ToWorker] = field(default_factory=list)


RATE_S = 1.0
"""The rate of a worker is that of the last second; at its end, that of all its time."""


class Hub:
    """The API as the engine uses it: a bind goes to the worker that has least in hand.

    The driver sends the first ones itself, until one has shown that the set-up is right; then the
    workers are told how, and until one is ready, or where all are lost, it goes on by itself. So it
    does with lists, session calls and unbinds.

    Each worker has a link of its own, which is cut with it: what a buried one says is not heard.
    """

    def __init__(
        self,
        local: Local,
        clock: Clock,
        number: int,
        *,
        version: str,
        setup: Callable[[], bytes],
        is_free: Callable[[], bool],
        start: Callable[[Callable[[bytes], None], Callable[[str], None]], Awaitable[Link]],
        close: Callable[[], Awaitable[None]] | None = None,
        alone: Callable[[str], None] = lambda _why: None,
    ) -> None:
        """Have *number* workers.

        Args:
            local: The driver's client.
            clock: Measures leases.
            number: Of workers.
            version: Of bulkbind: a worker of another is of no use.
            setup: Returns what a worker needs to know, once the set-up is proven.
            is_free: Returns whether no limit is known.
            start: Starts a worker and returns the link to it. Raises: OSError.
            close: Called once all links are closed.
            alone: Called with why the last one is lost, once no worker is left.
        """
        self._local = local
        self._clock = clock
        self._version = version
        self._setup = setup
        self._is_free = is_free
        self._start_link, self._close, self._alone = start, close, alone
        self._crews = [_Crew(each + 1) for each in range(number)]
        self._takers: list[_Crew] = []
        """Those who take orders."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = count(1)
        self._keys: dict[Credential, int] = {}
        self._is_proven = self._is_over = False
        self._names_codes = False
        """Whether the workers know that each success must name its device."""
        self._report: Callable[[int], None] = lambda _number: None
        self._log = logger()

    # --- the client ------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self._local.__aenter__()
        for crew in self._crews:
            self._begin(self._start(crew), f"start worker {crew.number}")
        self._begin(self._watch(), "watch workers")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_over = True
        for crew in self._crews:
            if crew in self._takers:
                self._sum_up(crew)
            elif crew.link is not None:
                crew.link.kill()  # it has not begun, and hears nothing yet
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        links = [crew.link for crew in self._crews if crew.link is not None]
        await asyncio.gather(*(link.close() for link in links))
        if self._close is not None:
            await self._close()
        await self._local.__aexit__()

    def now(self) -> float:
        """Return the best estimate of the server's time, seconds since 1970."""
        return self._local.now()

    def server_time(self) -> float | None:
        """Return the server's time, seconds since 1970; None while it is not known."""
        return self._local.server_time()

    def patience_s(self) -> float:
        """Return how long the answer to a bind is waited for now."""
        return self._local.patience_s()

    async def list_devices(self, user_id: str, credential: Credential) -> Listing:
        """Read a user's list."""
        return await self._local.list_devices(user_id, credential)

    async def unbind(
        self, user_id: str, device_id: str, machine_code: str, credential: Credential
    ) -> Attempt:
        """Send one unbind."""
        return await self._local.unbind(user_id, device_id, machine_code, credential)

    async def call(self, call: SessionCall) -> Attempt:
        """Send one call that renews a session."""
        return await self._local.call(call)

    def on_unasked(self, report: Callable[[int], None]) -> None:
        """Have *report* called with the number of a connection that says more, or breaks."""
        self._report = report
        self._local.on_unasked(report)

    def posts(self) -> bool:
        """Return whether any worker takes orders."""
        return bool(self._takers)

    def post(
        self, device: Device, credential: Credential, landed: Callable[[Attempt | None], None]
    ) -> None:
        """Order a bind; *landed* is called later with what `bind` would return.

        Only while `posts`.
        """
        self._order(self._idlest(), device, credential, landed)

    def _idlest(self) -> _Crew:
        """Return who has least in hand of those who take orders; there must be one."""
        found = self._takers[0]
        for crew in self._takers:
            if len(crew.orders) < len(found.orders):
                found = crew
        return found

    async def bind(self, device: Device, credential: Credential) -> Attempt | None:
        """Send one bind; return None if its worker's lease had ended, and nothing was sent."""
        if self._takers:
            crew = self._idlest()
            done: asyncio.Future[Attempt | None] = asyncio.get_running_loop().create_future()
            number = self._order(crew, device, credential, partial(_fulfil, done))
            try:
                return await done
            finally:
                crew.orders.pop(number, None)
        attempt = await self._local.bind(device, credential)
        if not self._is_proven and attempt is not None:
            self._is_proven = isinstance(attempt.verdict, Accepted | AlreadyBound)
            for crew in self._crews:
                self._tell(crew)
        return attempt

    def _order(
        self,
        crew: _Crew,
        device: Device,
        credential: Credential,
        landed: Callable[[Attempt | None], None],
    ) -> int:
        """Tell a worker to send a bind; return the order's number."""
        key = self._keys.get(credential)
        if key is None:
            key = self._keys[credential] = len(self._keys) + 1
        if key not in crew.keys:
            crew.keys.add(key)
            self._put(crew, Key(key, credential.parts()))
        if not crew.timeout_s:
            crew.timeout_s = self._local.patience_s()
        number = next(self._numbers)
        crew.orders[number] = _Ordered(landed, self._clock.monotonic(), crew.timeout_s)
        self._put(crew, Order(number, key, crew.timeout_s, device))
        return number

    # --- the workers -----------------------------------------------------------------------------

    def workers(self) -> list[WorkerState]:
        """Return how the workers are doing."""
        return [
            WorkerState(
                number=crew.number,
                pid=crew.link.pid if crew.link else 0,
                is_alive=crew.link is not None and not crew.lost,
                settled=crew.settled,
                in_hand=len(crew.orders),
                per_s=crew.per_s,
                lost=crew.lost,
            )
            for crew in self._crews
        ]

    def _begin(self, work: Awaitable[None], name: str) -> None:
        task = asyncio.ensure_future(work)
        if isinstance(task, asyncio.Task):
            task.set_name(name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start(self, crew: _Crew) -> None:
        frames = Frames(TO_DRIVER)

        def heard(data: bytes) -> None:
            try:
                for message in frames.feed(data):
                    if crew.lost:
                        return
                    self._hear(crew, message)
            except (ValueError, TypeError) as error:  # of msgspec, too
                self._lose(crew, f"it says what cannot be read: {error}")

        def lost(how: str) -> None:
            self._lose(crew, how)

        try:
            crew.link = await self._start_link(heard, lost)
        except OSError as error:
            self._lose(crew, f"it could not be started: {error}")
        else:
            self._flush(crew)

    async def _watch(self) -> None:
        """Bury who is silent.

        Beats are missed one a turn, however late it is: a driver that was stopped hears first what
        was said meanwhile.
        """
        while True:
            await self._clock.sleep(BEAT_S)
            now = self._clock.monotonic()
            for crew in [*self._takers]:
                crew.missing += 1
                if crew.missing > SILENT_BEATS:
                    self._lose(crew, f"it said nothing for {now - crew.leased_at:.1f} s")
            for crew in self._takers:
                since, settled = crew.counted
                if now >= since + RATE_S:
                    crew.per_s = (crew.settled - settled) / (now - since) if since else 0.0
                    crew.counted = now, crew.settled

    def _sum_up(self, crew: _Crew) -> None:
        """Let the rate of a worker be that of all the time that it was sending."""
        crew.per_s = crew.settled / max(BEAT_S, self._clock.monotonic() - crew.ready_at)

    def _hear(self, crew: _Crew, message: ToDriver) -> None:
        match message:
            case Said():
                self._said(crew, message)
            case Beat(number=number):
                crew.missing, crew.leased_at = 0, self._clock.monotonic()
                self._put(crew, Lease(number, self._is_free()))
            case Kept(number=number):
                if (order := crew.orders.pop(number, None)) is not None:
                    order.landed(None)
            case Unasked(connection=connection):
                crew.nameless.discard(connection)
                self._report(_mark(crew, connection))
            case Hello(version=version) if version != self._version:
                self._lose(crew, f"it is of version {version}, this run of {self._version}")
            case Hello():
                crew.is_greeted = True
                self._tell(crew)
            case Ready():
                self._takers.append(crew)
                crew.ready_at = crew.leased_at = self._clock.monotonic()
                self._log.info("worker.started", worker=crew.number, pid=self._pid(crew))
            case Failed(why=why):
                self._lose(crew, why)

    def _tell(self, crew: _Crew) -> None:
        """Tell a worker how to reach the server, once it is there and the set-up is proven."""
        if self._is_proven and crew.is_greeted and not (crew.is_told or crew.lost):
            self._demand_names()
            crew.is_told = True
            self._put(crew, Start(self._setup()))

    def _demand_names(self) -> None:
        """Let those who have been told already know once each success must name its device."""
        if self._local.names_codes and not self._names_codes:
            self._names_codes = True
            for crew in self._crews:
                if crew.is_told:
                    self._put(crew, Named())

    def _said(self, crew: _Crew, said: Said) -> None:
        order = crew.orders.pop(said.number, None)
        attempt = said.attempt()
        if attempt.is_named:
            if crew.nameless:
                crew.nameless.discard(attempt.connection)
        elif attempt.connection:
            crew.nameless.add(attempt.connection)
        attempt.connection = _mark(crew, attempt.connection)
        if not isinstance(attempt.verdict, Accepted):
            # The worker knows the credentials that it uses, and no other secret.
            attempt.code, attempt.message = redacted(attempt.code), redacted(attempt.message)
            attempt.request_id = redacted(attempt.request_id)
        self._local.learn(attempt)
        self._demand_names()
        crew.settled += isinstance(attempt.verdict, Accepted | AlreadyBound | Refused)
        if order is not None:
            order.landed(attempt)

    def _lose(self, crew: _Crew, why: str) -> None:
        """Cut a worker off: what it has in hand is in doubt, and what it settled may be."""
        if crew.lost or self._is_over:
            return
        crew.lost = redacted(why)
        self._sum_up(crew)
        if crew in self._takers:
            self._takers.remove(crew)
        if crew.link is not None:
            crew.link.kill()
        self._log.warning(
            "worker.lost",
            worker=crew.number,
            pid=self._pid(crew),
            why=crew.lost,
            rows=len(crew.orders),
        )
        for connection in crew.nameless:
            self._report(_mark(crew, connection))
        crew.nameless.clear()
        now, orders = self._clock.monotonic(), list(crew.orders.values())
        crew.orders.clear()
        for order in orders:
            until = max(order.at, crew.leased_at) + LEASE_S + order.timeout_s
            verdict = NoAnswer(under_way_s=max(0.0, until - now))
            sent_at = self._local.now() - (now - order.at)
            words = f"worker {crew.number} was lost: {crew.lost}"
            order.landed(Attempt(verdict, LOST, words, sent_at=sent_at))
        if all(crew.lost for crew in self._crews):
            self._alone(crew.lost)

    def _pid(self, crew: _Crew) -> int:
        return crew.link.pid if crew.link is not None else 0

    def _put(self, crew: _Crew, message: ToWorker) -> None:
        """Send a message, with all others of this turn of the event loop."""
        if not crew.out:
            asyncio.get_running_loop().call_soon(self._flush, crew)
        crew.out.append(message)

    def _flush(self, crew: _Crew) -> None:
        if crew.link is not None and crew.out:
            out, crew.out, crew.timeout_s = crew.out, [], 0.0
            if not crew.lost:
                crew.link.send(frame(out))


def _fulfil(done: asyncio.Future[Attempt | None], attempt: Attempt | None) -> None:
    if not done.done():
        done.set_result(attempt)


def _mark(crew: _Crew, connection: int) -> int:
    """Return a number that no other worker's connection has, nor the driver's; 0 stays 0."""
    return connection and crew.number << NUMBER_BITS | connection
