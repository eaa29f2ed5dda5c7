"""How many rows are claimed at once: as many as are soon wanted, and few at a slow pace."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bulkbind.engine.pipeline import BATCHES, MOST_BATCHES, Claims
from bulkbind.model import Claim
from tests.support.fake_clock import FakeClock
from tests.support.rows import device

WIDTH = 8
LEAST, MOST = BATCHES * WIDTH, MOST_BATCHES * WIDTH


class Endless:
    """A ledger that never runs out of rows; notes how many are claimed at once."""

    def __init__(self) -> None:
        self.claimed: list[int] = []
        self.waiting: list[int] = []
        """How many were claimed and not yet handed out then."""
        self.claims: Claims | None = None

    async def claim(self, run, after, most, sent_at, *, excluding):
        del run, sent_at, excluding
        self.claimed.append(most)
        self.waiting.append(len(self.claims._waiting) if self.claims else 0)
        return [Claim(after + n + 1, device("user", f"SN{after + n}")) for n in range(most)]


async def taken(*paces: float, per_s: float | None = None) -> Endless:
    """Return the ledger after one row was taken every so many seconds."""
    clock, ledger = FakeClock(), Endless()
    gate = SimpleNamespace(per_s=lambda: per_s)
    api = SimpleNamespace(server_time=lambda: 0.0)
    parts: Any = SimpleNamespace(clock=clock, ledger=ledger, gate=gate, api=api)
    claims = Claims(parts, 1, concurrency=WIDTH, first=None, is_in_turns=False, on_over=print)
    ledger.claims = claims
    for every_s in paces:
        for _ in range(5 * MOST):
            await claims.next()
            await clock.sleep(every_s)
    return ledger


async def sizes(*paces: float, per_s: float | None = None) -> list[int]:
    """Return how many rows are claimed at once then."""
    return (await taken(*paces, per_s=per_s)).claimed


@pytest.mark.parametrize(
    ("every_s", "per_s", "first", "last"),
    [
        (1e-5, None, LEAST, MOST),
        (0.1, None, LEAST, LEAST),
        (1e-5, 10.0, 10, 10),
        (1e-5, 0.2, 1, 1),
    ],
    ids=["fast", "slow", "a limit", "a low one"],
)
async def test_a_batch_is_what_is_soon_wanted(every_s, per_s, first, last):
    """Twice as many where it was used up at once; never more than about a second of the pace."""
    claimed = await sizes(every_s, per_s=per_s)

    assert (claimed[0], claimed[-1]) == (first, last)
    assert max(claimed[2:]) == max(first, last)  # the second one is wanted at once


async def test_a_batch_becomes_small_again():
    """Where the server slows down, few rows are in question again."""
    claimed = await sizes(1e-5, 0.1)

    assert (max(claimed), claimed[-1]) == (MOST, LEAST)


@pytest.mark.parametrize(("per_s", "left"), [(None, MOST), (10.0, 5)], ids=["fast", "a limit"])
async def test_the_next_batch_is_fetched_long_before_it_is_wanted(per_s, left):
    """Where nothing holds rows back, one batch waits while another is sent; else half of one."""
    ledger = await taken(1e-5, per_s=per_s)

    assert max(ledger.waiting[1:]) <= left
    assert ledger.waiting[-1] >= left - 1
