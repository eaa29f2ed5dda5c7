"""The driver's side: one client for the engine, whose binds the workers send."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, Self

from bulkbind.engine.ports import Came, Client, Landed, Landing, Pool
from bulkbind.engine.stop import first_of
from bulkbind.engine.workers import messages
from bulkbind.engine.workers.crew import Crew, Ordered
from bulkbind.engine.workers.worker import BEAT_S, LEASE_S
from bulkbind.logs import logger
from bulkbind.model import (
    Accepted,
    AlreadyBound,
    Attempt,
    Listing,
    NoAnswer,
    Refused,
    Throttled,
    WorkerState,
)
from bulkbind.redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from bulkbind.clock import Clock
    from bulkbind.engine.workers.link import Link
    from bulkbind.engine.workers.messages import Failed, Hello, Ready, ToDriver
    from bulkbind.koodrive.auth.credential import Credential
    from bulkbind.koodrive.auth.renewing import SessionCall
    from bulkbind.model import Device, Unbinding

SILENT_BEATS = int(LEASE_S / BEAT_S) + 2
"""Beats in a row that must be missing while the driver itself is awake before a worker is buried:
its lease has ended then."""
FIRST_S = 0.75
"""The first answers show most limits that one process can use up, and the pace takes as long to
become more than that: a worker that starts takes a core for half a second, and would have them look
late."""
STARTING_S = 10.0
"""Whoever takes longer to start keeps no other from it."""
AHEAD_S = 0.05
"""Where a message costs more than a bind, those that are due within so long go together."""
ENDING = Accepted | AlreadyBound | Refused
"""Verdicts with which a row ends."""
LOST = "worker"
"""The code of an attempt of a lost worker."""


class Local(Client, Protocol):
    """The driver's own client: what binds do not need, and the first of them."""

    names_codes: bool
    """Whether each success must name its machine code."""

    def learn(self, attempt: Attempt) -> None:
        """Learn from a bind of a worker as from an own one; it has just come back."""

    def learn_passed(self, attempts: Sequence[Attempt]) -> None:
        """Learn from binds of a worker that were accepted."""


class Places(Protocol):
    """Where workers are started; the links to them are closed before it ends."""

    number: int
    """How many there are to be."""
    at_once: int
    """As many may be starting at a time."""

    async def start(self, heard: Callable[[bytes], None], lost: Callable[[str], None]) -> Link:
        """Start a worker and return the link to it; see `PipeLink.start`. Raises: OSError."""

    def alone(self, why: str) -> None:
        """Note that no worker is left. *why*: the last one is lost."""


class Hub:
    """The API as the engine uses it: a bind goes to the worker that has least in hand.

    The driver sends the first ones itself, until one has shown that the set-up is right; then the
    workers are started, and until one is ready, or where all are lost, it goes on by itself. So it
    does with lists, session calls and unbinds.

    Each worker has a link of its own, which is cut with it: what a buried one says is not heard.
    """

    def __init__(
        self,
        local: Local,
        clock: Clock,
        places: Places,
        *,
        version: str,
        setup: Callable[[], bytes],
        is_free: Callable[[], bool],
        why_alone: Callable[[], str] = str,
        is_even: Callable[[], bool] = lambda: False,
        carried: Callable[[float], None] = lambda _s: None,
    ) -> None:
        """Have workers at all of these places.

        Args:
            local: The driver's client.
            clock: Measures leases.
            places: Of the workers.
            version: Of bulkbind: a worker of another is of no use.
            setup: Returns what a worker needs to know, once the set-up is proven.
            is_free: Returns whether no limit is known.
            why_alone: Returns why the driver sends by itself what there is; empty: it does not.
            is_even: Returns whether a pace is known at which binds may leave a few together.
            carried: Called with how many seconds orders take to the workers and back.
        """
        self._local = local
        self._clock = clock
        self._version = version
        self._setup = setup
        self._is_free, self._is_even, self._why_alone = is_free, is_even, why_alone
        self._carried = carried
        self._places = places
        self._crews = [Crew(each + 1) for each in range(places.number)]
        self._takers: list[Crew] = []
        """Those who take orders."""
        self._group = asyncio.TaskGroup()
        """Whatever fails in it ends whoever has entered this, with that error."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._next = 1
        """The number of the next order."""
        self._ahead_until = float("-inf")
        """When the last of what was handed over ahead is due."""
        self._keys: dict[Credential, int] = {}
        self._proven = asyncio.Event()
        self._starting = asyncio.Semaphore(places.at_once)
        self._is_over = False
        self.own_settled = 0
        """Rows that ended through what the driver sent itself."""
        self.unsure = 0
        """Requests that lost workers were to send, and may have sent."""
        self._names_codes = False
        """Whether the workers know that each success must name its device."""
        self._report: Callable[[int], None] = lambda _number: None
        self._log = logger()

    # --- the client ------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self._local.__aenter__()
        await self._group.__aenter__()
        self._begin(self._start_all(), "start workers")
        self._begin(self._watch(), "watch workers")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_over = True
        for crew in self._crews:
            if crew in self._takers:
                crew.sum_up(self._clock.monotonic())
            elif crew.link is not None:
                crew.link.kill()  # it has not begun, and hears nothing yet
        for task in self._tasks:
            task.cancel()
        try:
            await self._group.__aexit__(None, None, None)
        except BaseExceptionGroup as group:
            raise first_of(group) from None
        finally:
            links = [crew.link for crew in self._crews if crew.link is not None]
            await asyncio.gather(*(link.close() for link in links))
            await self._local.__aexit__()

    def now(self) -> float:
        """Return the best estimate of the server's time, seconds since 1970."""
        return self._local.now()

    def server_time(self) -> float | None:
        """Return the server's time, seconds since 1970; None while it is not known."""
        return self._local.server_time()

    def patience_s(self) -> float:
        """Return how long the answer to a bind is waited for now, and no worker sends it later."""
        return self._local.patience_s() + LEASE_S * bool(self._takers)

    async def list_devices(self, user_id: str, credential: Credential) -> Listing:
        """Read a user's list."""
        return await self._local.list_devices(user_id, credential)

    async def unbind(self, item: Unbinding, credential: Credential) -> Attempt:
        """Send one unbind."""
        return await self._local.unbind(item, credential)

    def post_unbind(self, item: Unbinding, credential: Credential, landed: Landed) -> None:
        """See `Client`."""
        self._local.post_unbind(item, credential, landed)

    async def call(self, call: SessionCall) -> Attempt:
        """Send one call that renews a session."""
        return await self._local.call(call)

    def on_unasked(self, report: Callable[[int], None]) -> None:
        """Have *report* called with the number of a connection that says more, or breaks."""
        self._report = report
        self._local.on_unasked(report)

    def post(self, device: Device, credential: Credential, landed: Landed) -> None:
        """Have a bind sent, and *landed* told what `bind` would return."""
        if self._has_others():
            crew = self._idlest()
            self._order(crew, [device], credential, _One(landed))
            crew.flush()  # a place, or a slot, is lost for as long as it is on its way
        else:
            self._local.post(device, credential, partial(self._posted, landed))

    def hand_over(self) -> None:
        """Have all that is out awaited by who is told of it."""
        self._local.hand_over()
        for crew in self._takers:
            for number, order in [*crew.orders.items()]:
                if isinstance(order.landing, _Awaited):
                    continue
                awaited = _Awaited()
                crew.orders[number] = replace(order, number=number, landing=awaited)
                order.landing.landed(
                    number - order.number, partial(self._come, crew, number, awaited)
                )

    async def _come(self, crew: Crew, number: int, awaited: _Awaited) -> Attempt | None:
        """Return what comes of an order, unless nobody waits for that any more."""
        try:
            return await awaited.came
        except asyncio.CancelledError:
            for connection in crew.nameless:  # one of them will not be heard in time
                self._report(crew.mark(connection))
            raise
        finally:
            crew.orders.pop(number, None)

    def pool(self) -> Pool | None:
        """Return this while workers take orders, and these need not go one by one."""
        return self if self._takers and (self._is_free() or self._is_even()) else None

    def ahead_s(self) -> float:
        """See `Pool`."""
        return 0.0 if self._is_free() else AHEAD_S

    def takes(self, width: int) -> int:
        """Return how much is free of the share of the worker that has least in hand."""
        share = -(-width // len(self._takers))
        return max(0, share - len(self._idlest().orders))

    def post_all(self, devices: Sequence[Device], credential: Credential, landing: Landing) -> None:
        """Have binds sent, no more than it `takes`."""
        crew = self._idlest()
        ahead_s = self.ahead_s()
        self._ahead_until = self._clock.monotonic() + ahead_s
        self._order(crew, devices, credential, landing, ahead_s)
        crew.flush()

    def _posted(self, landed: Landed, came: Came) -> None:
        if isinstance(came, Attempt):
            self._learn_own(came)
        landed(partial(self._awaited, came) if callable(came) else came)

    async def _awaited(self, came: Callable[[], Awaitable[Attempt | None]]) -> Attempt | None:
        attempt = await came()
        if attempt is not None:
            self._learn_own(attempt)
        return attempt

    def _learn_own(self, attempt: Attempt) -> None:
        """Count it; once an answer has shown that the set-up is right, workers may be started."""
        self.own_settled += isinstance(attempt.verdict, ENDING)
        if isinstance(attempt.verdict, Accepted | AlreadyBound):
            self._proven.set()

    def _has_others(self) -> bool:
        """Return whether others send the next bind."""
        return bool(self._takers) and not self._why_alone()

    def _idlest(self) -> Crew:
        """Return who has least in hand of those who take orders; there must be one."""
        found = self._takers[0]
        for crew in self._takers:
            if len(crew.orders) < len(found.orders):
                found = crew
        return found

    async def bind(self, device: Device, credential: Credential) -> Attempt | None:
        """Send one bind; return None if its worker's lease had ended, and nothing was sent."""
        if self._has_others():
            crew, awaited = self._idlest(), _Awaited()
            number = self._order(crew, [device], credential, awaited)
            return await self._come(crew, number, awaited)
        return await self._awaited(partial(self._local.bind, device, credential))

    def _order(
        self,
        crew: Crew,
        devices: Sequence[Device],
        credential: Credential,
        landing: Landing,
        over_s: float = 0.0,
    ) -> int:
        """Tell a worker to send binds, over so many seconds; return the number of the first."""
        key = self._keys.get(credential)
        if key is None:
            key = self._keys[credential] = len(self._keys) + 1
        if key not in crew.keys:
            crew.keys.add(key)
            crew.put(messages.Key(key, credential.parts()))
        if not crew.timeout_s:
            crew.timeout_s = self._local.patience_s()
        self._takers.remove(crew)
        self._takers.append(crew)  # of those who have equally much in hand, the others come next
        number = self._next
        self._next += len(devices)
        ordered = Ordered(number, landing, self._clock.monotonic(), crew.timeout_s)
        crew.orders.update(dict.fromkeys(range(number, self._next), ordered))
        crew.put(messages.Order(number, key, crew.timeout_s, list(devices), over_s))
        return number

    # --- the workers -----------------------------------------------------------------------------

    def workers(self) -> list[WorkerState]:
        """Return how the workers are doing."""
        waits = "" if self._is_over else self._why_alone()
        return [crew.state(is_over=self._is_over, waits=waits) for crew in self._crews]

    def _begin(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = self._group.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _fail(self, error: Exception) -> None:
        """End the run: what was being heard or told is not known to be."""
        work = _failing(error)
        try:
            self._begin(work, "fail")
        except RuntimeError:  # it has failed already
            work.close()

    async def _start_all(self) -> None:
        """Start them once they are of use, some at a time: the driver's timers need a core."""
        await self._proven.wait()
        await self._clock.sleep(FIRST_S)
        for crew in self._crews:
            with suppress(TimeoutError):
                async with asyncio.timeout(STARTING_S):
                    await self._starting.acquire()
            while self._why_alone():
                await self._clock.sleep(BEAT_S)
            crew.is_starting = True
            self._begin(self._start(crew), f"start worker {crew.number}")

    def _started(self, crew: Crew) -> None:
        """Let the next one be started."""
        if crew.is_starting:
            crew.is_starting = False
            self._starting.release()

    async def _start(self, crew: Crew) -> None:
        frames = messages.Frames(messages.TO_DRIVER)

        def heard(data: bytes) -> None:
            try:
                for message in frames.feed(data):
                    if crew.lost:
                        return
                    self._hear(crew, message)
            except messages.UnreadableError as error:
                lost(f"it says what cannot be read: {error}")
            except Exception as error:  # noqa: BLE001  # the link calls: it ends the run
                self._fail(error)

        def lost(how: str) -> None:
            try:
                self._lose(crew, how)
            except Exception as error:  # noqa: BLE001  # as above
                self._fail(error)

        try:
            crew.link = await self._places.start(heard, lost)
        except OSError as error:
            self._lose(crew, f"it could not be started: {error}")
        else:
            crew.flush()

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
            if self._takers:
                self._carried(max(crew.carried_s for crew in self._takers))
            for crew in self._takers:
                crew.look(now)

    def _hear(self, crew: Crew, message: ToDriver) -> None:
        match message:
            case messages.Passed():
                self._passed(crew, message)
            case messages.Said():
                self._said(crew, message)
            case messages.Beat(number=number):
                crew.missing, crew.leased_at = 0, self._clock.monotonic()
                crew.put(messages.Lease(number, self._is_free()))
            case messages.Kept(number=number):
                if (order := crew.orders.pop(number, None)) is not None:
                    order.landing.landed(number - order.number, None)
            case messages.Unasked(connection=connection):
                crew.nameless.discard(connection)
                self._report(crew.mark(connection))
            case _:
                self._begins(crew, message)

    def _begins(self, crew: Crew, message: Hello | Ready | Failed) -> None:
        """Let a worker get ready, or say why it cannot."""
        match message:
            case messages.Hello(version=version) if version != self._version:
                self._lose(crew, f"it is of version {version}, this run of {self._version}")
            case messages.Hello():
                self._demand_names()
                crew.is_told = True
                crew.put(messages.Start(self._setup(), crew.link.gather_s if crew.link else 0.0))
            case messages.Ready():
                self._started(crew)
                self._takers.append(crew)
                crew.ready_at = crew.leased_at = self._clock.monotonic()
                self._log.info(
                    "worker.started",
                    worker=crew.number,
                    pid=crew.pid,
                    host=crew.host,
                )
            case messages.Failed(why=why):
                self._lose(crew, why)

    def _demand_names(self) -> None:
        """Let those who have been told already know once each success must name its device."""
        if self._local.names_codes and not self._names_codes:
            self._names_codes = True
            for crew in self._crews:
                if crew.is_told:
                    crew.put(messages.Named())

    def _said(self, crew: Crew, said: messages.Said) -> None:
        order = crew.orders.pop(said.number, None)
        attempt = said.attempt()
        if attempt.is_named:
            if crew.nameless:
                crew.nameless.discard(attempt.connection)
        elif attempt.connection:
            crew.nameless.add(attempt.connection)
        attempt.connection = crew.mark(attempt.connection)
        if not isinstance(attempt.verdict, Accepted):
            # The worker knows the credentials that it uses, and no other secret.
            attempt.code, attempt.message = redacted(attempt.code), redacted(attempt.message)
            attempt.request_id = redacted(attempt.request_id)
        self._local.learn(attempt)
        self._demand_names()
        crew.settled += isinstance(attempt.verdict, ENDING)
        if order is not None:
            crew.carry(self._clock.monotonic(), order, attempt)
            order.landing.landed(said.number - order.number, attempt)
        if isinstance(attempt.verdict, Throttled):
            self._take_back()

    def _take_back(self) -> None:
        """Have nothing leave that was handed over ahead, if the gate has closed since."""
        if self._clock.monotonic() < self._ahead_until and not (self._is_free() or self._is_even()):
            self._ahead_until = float("-inf")
            for crew in self._takers:
                crew.put(messages.Revoke())
                crew.flush()

    def _passed(self, crew: Crew, passed: messages.Passed) -> None:
        attempts = passed.attempts(crew.mark_bits)
        if not passed.is_named:
            crew.nameless.update(filter(None, passed.connections))
        elif crew.nameless:
            crew.nameless.difference_update(passed.connections)
        self._local.learn_passed(attempts)
        self._demand_names()
        crew.settled += len(attempts)
        ordered: Ordered | None = None
        places: list[int] = []
        theirs: list[Attempt] = []
        for number, attempt in zip(passed.numbers, attempts, strict=True):
            order = crew.orders.pop(number, None)
            if order is not ordered:
                if ordered is not None:
                    ordered.landing.passed(places, theirs, is_ours=passed.is_ours)
                ordered, places, theirs = order, [], []
            if order is not None:
                places.append(number - order.number)
                theirs.append(attempt)
        if ordered is not None:
            crew.carry(self._clock.monotonic(), ordered, theirs[-1])
            ordered.landing.passed(places, theirs, is_ours=passed.is_ours)

    def _lose(self, crew: Crew, why: str) -> None:
        """Cut a worker off: what it has in hand is in doubt, and what it settled may be."""
        if crew.lost or self._is_over:
            return
        crew.lost = redacted(why)
        self._started(crew)
        crew.sum_up(self._clock.monotonic())
        if crew in self._takers:
            self._takers.remove(crew)
        if crew.link is not None:
            crew.link.kill()
        self._log.warning(
            "worker.lost",
            worker=crew.number,
            pid=crew.pid,
            host=crew.host,
            why=crew.lost,
            rows=len(crew.orders),
        )
        for connection in crew.nameless:
            self._report(crew.mark(connection))
        crew.nameless.clear()
        now, orders = self._clock.monotonic(), crew.orders
        crew.orders = {}
        self.unsure += len(orders)
        for number, order in orders.items():
            until = max(order.at, crew.leased_at) + LEASE_S + order.timeout_s
            verdict = NoAnswer(under_way_s=max(0.0, until - now))
            sent_at = self._local.now() - (now - order.at)
            words = f"worker {crew.number} was lost: {crew.lost}"
            attempt = Attempt(verdict, LOST, words, sent_at=sent_at)
            order.landing.landed(number - order.number, attempt)
        if all(crew.lost for crew in self._crews):
            self._places.alone(crew.lost)


async def _failing(error: Exception) -> None:
    raise error


class _One:
    """What is told of a bind that was sent alone."""

    __slots__ = ("_landed",)

    def __init__(self, landed: Landed) -> None:
        self._landed = landed

    def passed(self, _places: object, attempts: Sequence[Attempt], *, is_ours: bool) -> None:  # noqa: ARG002  # judged anew
        """As `Landing` says."""
        self._landed(attempts[0])

    def landed(self, _place: int, came: Came) -> None:
        """As `Landing` says."""
        self._landed(came)


class _Awaited:
    """What is told of a bind that is awaited."""

    __slots__ = ("came",)

    def __init__(self) -> None:
        self.came: asyncio.Future[Attempt | None] = asyncio.get_running_loop().create_future()

    def passed(self, _places: object, attempts: Sequence[Attempt], *, is_ours: bool) -> None:  # noqa: ARG002  # judged anew
        """As `Landing` says."""
        self.landed(0, attempts[0])

    def landed(self, _place: int, came: Came) -> None:
        """As `Landing` says; an answer is handed over once."""
        assert not callable(came)
        if not self.came.done():
            self.came.set_result(came)
