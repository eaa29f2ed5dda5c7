"""Stand-ins that keep the interfaces of the real parts: a server, a gate, a listener."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from contextlib import nullcontext
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from bulkbind.clock import iso
from bulkbind.engine.proof import accepted
from bulkbind.engine.stop import DrainedError
from bulkbind.model import (
    Accepted,
    AlreadyBound,
    Attempt,
    Claim,
    Listing,
    NoAnswer,
    Record,
    Refused,
    ServerLimit,
    Status,
    TimeSpent,
    Transient,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence

    from bulkbind.engine import StopSignal
    from bulkbind.engine.ports import Came, Landed, Landing
    from bulkbind.model import Device, Unbinding
    from bulkbind.pacing import Pacer
    from tests.support.fake_clock import FakeClock

LOST = "lost"
"""A plan for a bind: the server binds, and no answer comes."""
LATE = "late"
"""A plan for a bind: no answer comes, and the server binds `late_s` later."""
ERRED = "erred"
"""A plan for a bind: the server binds, and answers 500."""
SILENT = "silent"
"""A plan for a bind: the server binds, and no answer has come after `time_out_s`."""
MUTE = "mute"
"""The same of a request that does not arrive."""
OTHERS = "others"
"""A plan for an unbind: the server unbinds, and the answer names another device."""
NAMELESS = "nameless"
"""A plan for an unbind: the server unbinds, and the answer names no device."""
_UNBOUND_BUT: dict[str, Verdict] = {
    LOST: NoAnswer(),
    ERRED: Transient(),
    OTHERS: NoAnswer(names_another=True),
    NAMELESS: Accepted("", ""),
}


class FakeServer:
    """A KooDrive in memory with a client's face; what it answers can be planned call by call.

    Attributes:
        is_pool: Whether it takes many binds at a time.
        pool_ahead_s: How long before they are due.
        lands_late: Whether what is posted has to be awaited, as an answer in parts.
        planned: Verdicts (or `LOST`, or None for success) for the next binds, then success.
        list_planned: Verdicts for the next lists, then the truth.
        list_lacks: Machine codes that the next lists lack, as a copy that lags behind would.
        missing: What an unbind of no binding is answered.
        unbind_planned: As `planned`, for unbinds.
        posted_again: Binds of devices that were bound already.
    """

    def __init__(self, clock: FakeClock, pacer: Pacer, stop: StopSignal) -> None:
        self.clock = clock
        self.pacer = pacer
        self.stop = stop
        self.planned: deque[Verdict | str | None] = deque()
        self.list_planned: deque[Verdict] = deque()
        self.list_lacks: deque[set[str]] = deque()
        self.missing: Verdict = Refused(is_missing=True)
        self.unbind_planned: deque[Verdict | str] = deque()
        self.unbinds: Counter[str] = Counter()
        self.bindings: dict[str, dict[str, Record]] = defaultdict(dict)
        self.binds: Counter[tuple[str, str]] = Counter()
        self.lists: Counter[str] = Counter()
        self.posted_again = 0
        self.latency_s = 0.01
        self.in_flight = 0
        self.most_in_flight = 0
        self.second_bind_is_error = False
        self.second_bind_is_refused = False
        """Whether that error is one whose code nobody set as "already bound"."""
        self.late_s = 3.0
        self.lands_late = self.is_pool = False
        self.pool_ahead_s = 0.0
        self._posted: dict[asyncio.Task[Attempt], Landed] = {}
        self.time_out_s = 30.0
        self._late: list[tuple[float, Device]] = []
        self._ids = count(1)

    def catch_up(self) -> None:
        """Do what was put off and is due."""
        due = [item for item in self._late if item[0] <= self._now()]
        self._late = [item for item in self._late if item[0] > self._now()]
        for moment, device in due:
            if device.machine_code not in self.bindings[device.user_id]:
                self.put(device.user_id, device.machine_code, age_s=self._now() - moment)

    def put(self, user_id: str, machine_code: str, *, age_s: float = 0.0) -> None:
        """Bind a device as somebody else did, *age_s* ago."""
        created = iso(self.clock.utc_now().fromtimestamp(self._now() - age_s).astimezone())
        record = Record(machine_code, f"id{next(self._ids)}", created)
        self.bindings[user_id][machine_code] = record

    def _now(self) -> float:
        return self.clock.utc_now().timestamp()

    def server_time(self) -> float | None:
        return self._now()

    def patience_s(self) -> float:
        return self.time_out_s

    def on_unasked(self, report: Callable[[int], None]) -> None:
        self.say_unasked = report

    async def bind(
        self, device: Device, before: Callable[[], Awaitable[None] | None] | None = None
    ) -> Attempt:
        permit = await self.pacer.permit(device.user_id)
        if before is not None:
            try:
                if (work := before()) is not None:
                    await work
            except BaseException:
                self.pacer.forget(permit)
                raise
        return await self.answer_to(permit, device)

    def takes(self, width: int) -> int | None:
        return max(0, width - len(self._posted)) if self.is_pool else None

    def ahead_s(self) -> float:
        return self.pool_ahead_s

    def post_all(self, devices: Sequence[Device], landing: Landing) -> int:
        def told(place: int, came: Came) -> None:
            if not isinstance(came, Attempt) or not isinstance(verdict := came.verdict, Accepted):
                landing.landed(place, came)
                return
            claim = Claim(0, devices[place], attempts=1)
            is_ours = accepted(claim, came, verdict).status is Status.BOUND
            landing.passed([place], [came], is_ours=is_ours)

        permits = self.pacer.try_permits(len(devices), self.pool_ahead_s)
        for place, permit in enumerate(permits):
            self._begin(self.answer_to(permit, devices[place]), partial(told, place))
        return len(permits)

    async def post(
        self,
        device: Device,
        before: Callable[[], None],
        landed: Landed,
    ) -> bool:
        permit = await self.pacer.permit(device.user_id)
        try:
            before()
        except BaseException:
            self.pacer.forget(permit)
            raise

        if self.lands_late:
            landed(partial(self.answer_to, permit, device))
            return True

        self._begin(self.answer_to(permit, device), landed)
        return True

    def _begin(self, answer: Coroutine[Any, Any, Attempt], landed: Landed) -> None:
        task = asyncio.create_task(answer, name="posted")
        self._posted[task] = landed
        task.add_done_callback(self._come)

    def _come(self, task: asyncio.Task[Attempt]) -> None:
        landed = self._posted.pop(task, None)
        if landed is not None and not task.cancelled():
            landed(task.result())

    def hand_over(self) -> None:
        while self._posted:
            task, landed = self._posted.popitem()
            landed(partial(asyncio.wait_for, task, None))

    def close(self) -> None:
        """Let nothing that was posted come back, as a client with workers does at its end."""
        for task in self._posted:
            task.cancel()

    async def answer_to(self, permit: int, device: Device) -> Attempt:
        """Answer a bind that has its permit, and report the verdict."""
        sent_at = self._now()
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await self.clock.sleep(self.latency_s / 2)
            plan = self.planned.popleft() if self.planned else None
            verdict = self._handle(device, plan)
            # Whoever is cancelled from here on leaves a binding behind.
            is_silent = plan in (SILENT, MUTE)
            await self.clock.sleep(self.time_out_s if is_silent else self.latency_s / 2)
        except asyncio.CancelledError:
            self.pacer.forget(permit)
            raise
        finally:
            self.in_flight -= 1
        self.pacer.report(permit, verdict)
        return self._attempt(verdict, sent_at)

    def _handle(self, device: Device, plan: Verdict | str | None) -> Verdict:
        if plan is not None and not isinstance(plan, str):
            return plan
        if plan == MUTE:
            return NoAnswer()
        self.binds[device.user_id, device.machine_code] += 1
        self.catch_up()
        if plan == LATE:
            self._late.append((self._now() + self.late_s, device))
            return NoAnswer()
        known = self.bindings[device.user_id].get(device.machine_code)
        if known is None:
            known = Record(device.machine_code, f"id{next(self._ids)}", iso(self.clock.utc_now()))
            self.bindings[device.user_id][device.machine_code] = known
        else:
            self.posted_again += 1
            if self.second_bind_is_error and plan not in (LOST, ERRED):
                return Refused() if self.second_bind_is_refused else AlreadyBound()
        if plan == ERRED:
            return Transient()
        is_lost = plan in (LOST, SILENT)
        return NoAnswer() if is_lost else Accepted(known.device_id, known.create_time)

    async def list_devices(self, user_id: str) -> Listing:
        permit = await self.pacer.permit(user_id)
        self.pacer.time.asks_list(permit)
        sent_at = self._now()
        self.lists[user_id] += 1
        await self.clock.sleep(self.latency_s)
        self.catch_up()
        if self.list_planned:
            verdict = self.list_planned.popleft()
            self.pacer.report(permit, verdict)
            return Listing(self._attempt(verdict, sent_at), None)
        self.pacer.report(permit, Accepted("", ""))
        attempt = self._attempt(Accepted("", ""), sent_at)
        lacks = self.list_lacks.popleft() if self.list_lacks else set()
        shown = {code: it for code, it in self.bindings[user_id].items() if code not in lacks}
        return Listing(attempt, shown)

    async def unbind(self, item: Unbinding) -> Attempt:
        return await self.answer_unbind(await self.pacer.permit(), item.user_id, item.device_id)

    async def post_unbind(self, item: Unbinding, landed: Landed) -> bool:
        permit = await self.pacer.permit()
        unbind = partial(self.answer_unbind, permit, item.user_id, item.device_id)
        if self.lands_late:
            landed(unbind)
        else:
            self._begin(unbind(), landed)
        return True

    async def answer_unbind(self, permit: int, user_id: str, device_id: str) -> Attempt:
        """Answer an unbind that has its permit, and report the verdict."""
        sent_at = self._now()
        self.unbinds[device_id] += 1
        await self.clock.sleep(self.latency_s)
        plan = self.unbind_planned.popleft() if self.unbind_planned else None
        verdict = _UNBOUND_BUT[plan] if isinstance(plan, str) else self.missing
        if plan is not None and not isinstance(plan, str):
            verdict = plan
        else:
            devices = self.bindings[user_id]
            codes = [code for code, known in devices.items() if known.device_id == device_id]
            for code in codes:
                del devices[code]
            if codes and plan is None:
                verdict = Accepted(device_id, "")
        self.pacer.report(permit, verdict)
        return self._attempt(verdict, sent_at)

    def _attempt(self, verdict: Verdict, sent_at: float) -> Attempt:
        return Attempt(
            verdict=verdict,
            trace_id=f"trace{next(self._ids)}",
            sent_at=sent_at,
            took_s=self.latency_s,
            http_status=None if isinstance(verdict, NoAnswer) else 200,
            code=type(verdict).__name__,
            message="as planned",
        )


class OpenGate:
    """A gate that is always open."""

    def __init__(self, *, drained: bool = False) -> None:
        self.time = TimeSpent()
        self.reported: list[Verdict] = []
        self.forgotten = 0
        self._drained = drained

    def cutting_short(self):
        return nullcontext()

    async def permit(self, user_id: str | None = None) -> int:  # noqa: ARG002  # the protocol's
        if self._drained:
            raise DrainedError
        return 0

    def try_permit(self, user_id: str | None = None) -> int | None:  # noqa: ARG002  # as above
        return None if self._drained else 0

    def try_permits(self, most: int, ahead_s: float = 0.0) -> list[int]:
        self.ahead_s = ahead_s
        return [0] * most

    def passed(self, permits: Iterable[int]) -> None:
        self.reported += [Accepted("", "") for _ in permits]

    def report(self, permit: int, verdict: Verdict, limits: tuple[ServerLimit, ...] = ()) -> None:  # noqa: ARG002  # the protocol's
        self.reported.append(verdict)

    def forget(self, permit: int) -> None:  # noqa: ARG002  # the protocol's
        self.forgotten += 1

    def is_far(self, user_id: str) -> bool:  # noqa: ARG002  # the protocol's
        return False

    def closed_for_s(self) -> float:
        return 0.0

    def refused_for_s(self) -> float:
        return 0.0

    def per_s(self) -> float | None:
        return None

    def has_room(self):
        return True

    async def room(self) -> None:
        return
