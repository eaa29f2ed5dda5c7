"""What the lane gives back where a row does not leave after all."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from bulkbind.engine.lane import Lane
from bulkbind.engine.stop import Breaker, StopSignal
from bulkbind.engine.user_states import HeldError
from bulkbind.model import Claim
from tests.support.fake_clock import FakeClock
from tests.support.fakes import OpenGate
from tests.support.rows import device

ROWS = 3


class Rows:
    """Rows that are handed out one by one."""

    def __init__(self) -> None:
        self.left = [Claim(row, device("suspect", f"SN{row}")) for row in range(ROWS)]

    def ready(self):
        return self.left.pop() if self.left else None

    async def next(self):
        return None

    def take(self, most):
        del most
        return []

    def put_back(self, claims):
        assert not claims


class Api:
    """One that has a permit for every row."""

    def takes(self, most):
        del most
        return 0

    async def post(self, row, before, landed):
        del row, landed
        before()
        raise AssertionError

    def hand_over(self):
        pass


class Suspects:
    """Users of whom each is suspect, so that a row must wait for its turn."""

    def leave(self, user_id):
        del user_id
        raise HeldError


class Binder:
    def __init__(self) -> None:
        self.given: list[int] = []

    async def bind(self, claim):
        self.given.append(claim.row)


async def test_a_row_that_waits_for_its_users_turn_is_not_out():
    """Else rows that cannot fail before it is their turn would keep each other from leaving."""
    stop = StopSignal()
    binder: Any = Binder()
    users: Any = Suspects()
    parts: Any = SimpleNamespace(
        api=Api(), clock=FakeClock(), gate=OpenGate(), ledger=None, stop=stop
    )
    breaker = Breaker(stop, str(ROWS))
    breaker.leave(ROWS)
    breaker.land(ROWS, has_failed=True)  # from now on no more are out than may still fail

    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        lane = Lane(parts, binder, tasks, users=users, breaker=breaker, concurrency=8)
        await lane.run(Rows())

    assert sorted(binder.given) == list(range(ROWS))
    assert breaker.has_room()
