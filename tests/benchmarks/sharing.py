"""Several clients on one quota that know nothing of each other, and a quota that changes.

Cases of `tests.benchmarks.pacing`. Each client is a run with a ledger, a pacer and connections of
its own, and its share of the work; all are in one process, so that they begin together.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

import aiohttp

import bulkbind
from bulkbind.clock import SystemClock
from tests.benchmarks.bench import say
from tests.benchmarks.servers import PATH, limit_req, limited, sandbox
from tests.support.manifests import fleet, write_csv
from tests.support.sandbox_client import stamp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from bulkbind.model import RunFacts
    from tests.benchmarks.servers import Server

CONCURRENCY = 64
MOST_REFUSED, MOST_UNEVEN = 0.03, 1.5
"""Wanted: of all requests; the slowest client's time by the mean."""
FOUND, FOUND_WITHIN_S, STEP_S = 0.9, 5.0, 0.25
"""A restored quota is found once a second brings so much of it; wanted within so long."""


@dataclass(frozen=True, slots=True)
class Shared:
    """A quota that several clients share."""

    server: Server
    per_s: int
    clients: int
    burst: int = 0
    """So many devices more, since a bucket is full at the start."""
    taken: float = 0.0
    """This part of the quota is taken by another program in the second third of the time."""
    efficiency: float = 0.80
    """Wanted of the quota until the last client ends."""


def shared() -> dict[str, Shared]:
    """Return every case by name."""
    bucket, window = "bucket:200/s,burst=50,tell=nothing", "120/s,tell=nothing"
    found = {
        f"{clients}-on-{name}": Shared(server, per_s, clients, burst)
        for clients in (2, 4, 10)
        for name, server, per_s, burst in (
            ("bucket-200/s", limited(bucket), 200, 50),
            ("window-120/s", limited(window), 120, 0),
            ("nginx-200/s", limit_req(200, 20), 200, 20),
        )
    }
    more = {
        f"{clients}-and-another": Shared(limited(bucket), 200, clients, 50, taken=0.5)
        for clients in (1, 2, 4)
    }
    return found | more


@dataclass(frozen=True, slots=True)
class Client:
    """How one run went; times in seconds since 1970."""

    began: float
    ended: float
    facts: RunFacts
    left: int
    """Devices that are not bound."""


async def sent(folder: Path, url: str, rows: Sequence[tuple[str, ...]]) -> Client:
    """Run one client with a new ledger."""
    settings = bulkbind.load_settings(
        None,
        {
            "endpoint": url, "ledger": folder / "ledger.db", "out": folder / "report",
            "auth.token": "any", "concurrency": CONCURRENCY,
        },
    )  # fmt: skip
    clock = SystemClock()
    manifest = write_csv(folder / "fleet.csv", rows)
    result = await bulkbind.run([manifest], settings, clock=clock)
    assert result.report is not None
    summary = result.report.summary
    ended = datetime.fromisoformat(str(summary.ended_at)).timestamp()
    bound = summary.counts.get("bound", 0)
    return Client(ended - summary.facts.sending_s, ended, summary.facts, len(rows) - bound)


@asynccontextmanager
async def another(url: str, per_s: float, after_s: float, for_s: float) -> AsyncIterator[None]:
    """Let another program send evenly for a while, whatever the answers are."""

    async def post(session: aiohttp.ClientSession, number: int) -> None:
        headers = {
            "Authorization": "Bearer any", "X-User-Id": "another",
            "X-Date": stamp(SystemClock().utc_now()),
        }  # fmt: skip
        body = {"machineCode": f"OTHER{number}"}
        async with session.post(url + PATH, json=body, headers=headers) as answer:
            await answer.read()

    async def sending() -> None:
        clock = SystemClock()
        began = clock.monotonic() + after_s
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:
            for number in range(int(per_s * for_s)):
                await clock.sleep(max(0.0, began + number / per_s - clock.monotonic()))
                tasks.create_task(post(session, number))

    task = asyncio.create_task(sending()) if per_s else None
    try:
        yield
    finally:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def all_sent(folder: Path, url: str, case: Shared, seconds: float) -> list[Client]:
    """Run all clients of a case at once."""
    work = case.per_s * seconds * (1 - case.taken / 3) + case.burst
    rows = fleet(int(work))
    for number in range(case.clients):
        (folder / str(number)).mkdir()
    async with another(url, case.taken * case.per_s, seconds / 3, seconds / 3):
        return await asyncio.gather(
            *(
                sent(folder / str(number), url, rows[number :: case.clients])
                for number in range(case.clients)
            )
        )


def measured_together(name: str, case: Shared, seconds: float) -> dict[str, object]:
    """Run a case of several clients and print a line."""
    with tempfile.TemporaryDirectory() as scratch, case.server() as url:
        clients = asyncio.run(all_sent(Path(scratch), url, case, seconds))
    took = [client.ended - client.began for client in clients]
    last_s = max(client.ended for client in clients) - min(client.began for client in clients)
    efficiency, uneven = seconds / last_s, max(took) / mean(took)
    refused = _refused([client.facts for client in clients])
    left = sum(client.left for client in clients)
    is_met = (
        efficiency >= case.efficiency
        and refused <= MOST_REFUSED
        and uneven <= MOST_UNEVEN
        and not left
    )
    wanted = f"{case.efficiency:.2f}, {MOST_REFUSED:.1%}, {MOST_UNEVEN:g}, 0"
    say(
        f"{name:<20}{'bulkbind':<14}{efficiency:>6.3f}{refused:>7.2%}{left:>6} failed, slowest "
        f"{uneven:.2f} of the mean  ({'met' if is_met else 'NOT MET'}: wanted {wanted})"
    )
    return {"efficiency": efficiency, "refused": refused, "uneven": uneven, "failed": left}


def _refused(all_facts: Sequence[RunFacts]) -> float:
    requests = sum(facts.requests for facts in all_facts)
    return sum(facts.requests_throttled for facts in all_facts) / max(requests, 1)


HALVED_PER_S, HALVED_BURST, HALVED_EFFICIENCY, HALVED_REFUSED = 100, 20, 0.97, 0.01


def halved(seconds: float) -> dict[str, object]:
    """Measure a quota that is halved for the second third of the time, and restored."""
    first, second = seconds / 3, 2 * seconds / 3
    limits = (
        f"bucket:{HALVED_PER_S}/s,burst={HALVED_BURST},tell=nothing,until={first}s",
        f"bucket:{HALVED_PER_S // 2}/s,burst=10,tell=nothing,from={first}s,until={second}s",
        f"bucket:{HALVED_PER_S}/s,burst={HALVED_BURST},tell=nothing,from={second}s",
    )
    options = [word for limit in limits for word in ("--limit", limit)]
    rows = fleet(int(HALVED_PER_S * seconds * 5 / 6) + HALVED_BURST)
    with tempfile.TemporaryDirectory() as scratch:
        journal = Path(scratch, "journal")
        with sandbox(*options, "--journal", str(journal))() as url:
            restored = SystemClock().utc_now() + timedelta(seconds=second)
            client = asyncio.run(sent(Path(scratch), url, rows))
        lines = [json.loads(line) for line in journal.read_text().splitlines()]
    passed = [datetime.fromisoformat(line["at"]) for line in lines if line["status"] == 200]
    found_s = _found_s([(at - restored).total_seconds() for at in passed])
    efficiency = seconds / (client.ended - client.began)
    refused = _refused([client.facts])
    is_met = (
        efficiency >= HALVED_EFFICIENCY
        and refused <= HALVED_REFUSED
        and found_s <= FOUND_WITHIN_S
        and not client.left
    )
    wanted = f"{HALVED_EFFICIENCY:.2f}, {HALVED_REFUSED:.1%}, {FOUND_WITHIN_S:g} s, 0"
    say(
        f"{'halved-and-restored':<20}{'bulkbind':<14}{efficiency:>6.3f}{refused:>7.2%}"
        f"{client.left:>6} failed, found again after {found_s:.2f} s  "
        f"({'met' if is_met else 'NOT MET'}: wanted {wanted})"
    )
    return {
        "efficiency": efficiency, "refused": refused, "found_s": found_s, "failed": client.left,
    }  # fmt: skip


def _found_s(after: Sequence[float]) -> float:
    """Return after how long a second brings `FOUND` of the restored quota; *after*: what passed."""
    steps = (step * STEP_S for step in range(int(max(after, default=0.0) / STEP_S) + 1))
    wanted = FOUND * HALVED_PER_S
    return next(
        (at for at in steps if sum(at <= each < at + 1.0 for each in after) >= wanted),
        float("inf"),
    )


def together(seconds: float) -> dict[str, Callable[[], dict[str, object]]]:
    """Return every case by name, to be run."""

    def one(name: str, case: Shared) -> Callable[[], dict[str, object]]:
        return lambda: measured_together(name, case, seconds)

    found = {name: one(name, case) for name, case in shared().items()}
    return found | {"halved-and-restored": lambda: halved(seconds)}
