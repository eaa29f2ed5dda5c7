"""Thirty nights of the same growing manifest on a clock that is turned by hand, with every fault.

The longer form is a command: `python -m tests.campaigns.months`.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

import pytest

from bulkbind.clock import iso
from bulkbind.engine import Parts, Pipeline, StopReason
from bulkbind.ledger import RunReader, prune, reading
from bulkbind.model import (
    AuthExpired,
    Device,
    NoAnswer,
    QuotaUsedUp,
    Refused,
    Throttled,
    Transient,
    Unreachable,
)
from bulkbind.settings import SendSettings
from tests.integration.test_engine import ENDPOINT, HOLDER, Bench
from tests.support.fakes import ERRED, LOST, FakeServer

DAY_S = 86_400.0
FAULTS = (LOST, ERRED, NoAnswer(), Transient(), Throttled(limit=40.0, window_s=1.0), Refused())
KINDS = ("well", "faults", "away", "kill", "deadline", "token", "quota", "slower", "lists")


class NightServer(FakeServer):
    """A server that can be away, and whose limit can change from one night to the next."""

    is_away = False
    limit_per_s: float | None = None
    _window = (0, 0)

    def _handle(self, device, plan):
        if self.is_away:
            return Unreachable()
        if self.limit_per_s is not None:
            second = int(self.clock.monotonic())
            count = self._window[1] + 1 if self._window[0] == second else 1
            self._window = (second, count)
            if count > self.limit_per_s:
                return Throttled(limit=self.limit_per_s, window_s=1.0)
        return super()._handle(device, plan)

    async def list_devices(self, user_id):
        if self.is_away:
            self.list_planned.append(Unreachable())
        return await super().list_devices(user_id)


class NightBench(Bench):
    """A bench whose manifest keeps its name while it grows."""

    file = "fleet.csv"

    def changes(self, run):
        """Return what a run's summary tells of the last one."""
        with reading(self.path) as db:
            return RunReader(db, run).summary().facts.changes.as_json()


@dataclass
class Month:
    """What became of some nights."""

    bench: NightBench
    nights: list[str] = field(default_factory=list)
    erred: int = 0
    """Binds that the server did and answered with 500: only these may be done again."""
    troubles: list[str] = field(default_factory=list)
    """What a night's ledger told otherwise than it was."""
    sizes: dict[int, int] = field(default_factory=dict)
    """Rows of each run, in the order in which they were begun."""

    def check(self, run, size):
        """Compare what the ledger tells after a night."""
        counts = self.bench.counts(run)
        if sum(counts.values()) != size:
            self.troubles.append(f"run {run}: {counts} of {size} rows")
        if run in self.sizes:
            return
        before = list(self.sizes.values())[-1:]
        told = self.bench.changes(run)
        if before and (told.get("added"), told.get("removed")) != (size - before[0], 0):
            self.troubles.append(f"run {run}: {told} told, {size - before[0]} were added")
        self.sizes[run] = size


def fleet(count):
    """Return the manifest of a night."""
    return [Device(f"user_{number % 7}", f"SN{number}") for number in range(count)]


async def one_night(month, kind, wanted, pick):
    """Let one night pass: begin or go on, with trouble of that kind."""
    bench = month.bench
    bench.renew()
    server = bench.server
    server.planned.clear()
    server.list_planned.clear()
    server.is_away = kind == "away"
    server.limit_per_s = {"slower": 8.0, "well": None}.get(kind, 50.0)
    _plan(month, kind, pick)
    name = f"fleet of {len(wanted)}"
    async with bench.ledger() as ledger:
        known = await ledger.unfinished(name)
        run = known[0] if known else await bench.staged(ledger, wanted, name)
        if kind != "kill":
            ending = asyncio.create_task(_deadline(bench, 1500.0 if kind == "away" else 3000.0))
            if kind == "deadline":
                bench.stop_in(pick.uniform(0.05, 0.5))
            state = await bench.sent(ledger, run)
            ending.cancel()
            if bench.stopping is not None:
                bench.stopping.cancel()
                bench.stopping = None
            return run, state
        await _killed(bench, ledger, run, pick.uniform(0.005, 0.3))
        return run, None


def _plan(month, kind, pick):
    server = month.bench.server
    if kind in ("faults", "kill", "slower"):
        plans = [pick.choice(FAULTS) if pick.random() < 0.4 else None for _ in range(30)]
        server.planned.extend(plans)
        month.erred += plans.count(ERRED)
    elif kind == "lists":
        server.planned.extend([LOST, NoAnswer(), None, LOST])
        server.list_planned.extend([NoAnswer(), Transient(), Throttled()])
    elif kind in ("token", "quota"):
        server.planned.extend([None] * pick.randint(0, 4))
        server.planned.append(AuthExpired() if kind == "token" else QuotaUsedUp())


async def _deadline(bench, seconds):
    await bench.clock.sleep(seconds)
    bench.stop.set(StopReason("the deadline has come"))


async def _killed(bench, ledger, run, seconds):
    """Stop as a killed process does: nothing is released, nothing is finished."""
    await ledger.start(run)
    parts = Parts(bench.server, ledger, bench.pacer, bench.stop, bench.clock)
    sending = asyncio.create_task(
        Pipeline(parts, run, bench.send, bench.readback).run(), name="sending"
    )
    killing = asyncio.create_task(bench.clock.sleep(seconds))
    await asyncio.wait([sending, killing], return_when=asyncio.FIRST_COMPLETED)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        if not task.get_name().startswith("Task-") and task.get_name() != "flush":
            task.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    killing.cancel()


async def live(path, nights, seed):
    """Live through so many nights, then one more without trouble."""
    pick = random.Random(seed)
    bench = NightBench(path)
    bench.server = NightServer(bench.clock, bench.pacer, bench.stop)
    bench.send = SendSettings(concurrency=8, max_attempts=6, backoff_base=0.1, backoff_cap=2.0)
    month = Month(bench)
    order = [*KINDS, *(pick.choice(KINDS) for _ in range(nights - len(KINDS)))]
    pick.shuffle(order)
    size = run = 0
    for number, kind in enumerate([*order, "well", "well"]):
        began = bench.clock.monotonic()
        if number < nights:
            size += pick.randint(0, 12)
        run, state = await one_night(month, kind, fleet(size), pick)
        month.nights.append(f"{kind}: {state.value if state else 'killed'}")
        month.check(run, size)
        if number % 7 == 6:
            _housekeeping(bench)
        bench.clock.advance(max(0.0, DAY_S - (bench.clock.monotonic() - began)))
    return month, run, size


def _housekeeping(bench):
    now = bench.clock.utc_now()
    week_ago = iso(now.fromtimestamp(now.timestamp() - 7 * DAY_S, now.tzinfo))
    prune(bench.path, ENDPOINT, HOLDER, before=week_ago, now=iso(now), is_trial=False)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_month_leaves_every_row_accounted_for(tmp_path, seed):
    """Nights with every kind of trouble, kills and prunes: then all is bound, each device once."""
    month, run, size = asyncio.run(live(tmp_path / "ledger.db", 30, seed))
    bench = month.bench
    rows = bench.rows(run)
    held = {(user, code) for user, codes in bench.server.bindings.items() for code in codes}
    called = {
        (row.user_id, row.machine_code)
        for row in rows
        if row.status in ("bound", "already_bound", "skipped")
    }

    assert size > 100
    assert len(rows) == size
    assert {row.status for row in rows} <= {"bound", "already_bound", "skipped"}
    assert called == held == {(device.user_id, device.machine_code) for device in fleet(size)}
    assert month.nights[-1] == "well: done"
    assert {kind.split(":")[0] for kind in month.nights} == set(KINDS)
    assert month.troubles == []
    assert len(month.sizes) > 10
    # At most one request per device beyond those whose answer was an error or none.
    assert bench.server.posted_again <= month.erred
    assert sum(bench.server.binds.values()) <= size + month.erred
