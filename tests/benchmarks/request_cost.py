"""What a request costs the sender, in microseconds of processor time.

`python -m tests.benchmarks.request_cost [REQUESTS [ROUNDS]]`: nginx with a static answer, 64
requests in flight, one contender after the other in each round; the event loop's thread alone is
counted. Prints medians, quartiles and ratios to a bare aiohttp session, and writes them as JSON.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from typing import TYPE_CHECKING

import aiohttp
from multidict import istr

from bulkbind.clock import SystemClock
from bulkbind.koodrive import KooDrive
from bulkbind.koodrive.auth.credential import Outgoing, Token
from bulkbind.koodrive.connections import FastPath
from bulkbind.koodrive.http import HttpSession
from bulkbind.model import Device
from bulkbind.settings import ApiSettings
from tests.benchmarks.bench import nginx, say, write_json
from tests.benchmarks.peers import CONCURRENCY, PATH, loop_factory

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Request = Callable[[], Awaitable[object]]

BODY = b'{"machineCode":"SN00001","deviceName":"Van 1","deviceOS":"Android 15"}'
HEADERS: dict[str, str] = {
    istr("X-User-Id"): "user_1",
    istr("X-Date"): "20251103T070140Z",
    istr("X-Traceid"): "a" * 58,
    istr("Authorization"): "Bearer any",
}
WARM = 500
"""Requests that are not counted: they make the connections."""
CLOCK = SystemClock()


async def timed(request: Request, count: int) -> float:
    """Return the microseconds that each of *count* requests takes."""

    async def worker(share: int) -> None:
        for _ in range(share):
            await request()

    async def all_of(most: int) -> None:
        await asyncio.gather(*(worker(most // CONCURRENCY) for _ in range(CONCURRENCY)))

    await all_of(WARM)
    began = time.thread_time()
    await all_of(count)
    return (time.thread_time() - began) / (count // CONCURRENCY * CONCURRENCY) * 1e6


async def bare(url: str, count: int) -> float:
    """Post and read, and no more."""
    headers = {**HEADERS, "Content-Type": "application/json"}
    connector = aiohttp.TCPConnector(limit=CONCURRENCY)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def request() -> None:
            async with session.post(url + PATH, data=BODY, headers=headers) as answer:
                await answer.read()

        return await timed(request, count)


async def fast_path(url: str, count: int) -> float:
    """Send through a session with the endpoint: time-out, cap, clock and limits are minded."""
    async with HttpSession(ApiSettings(), url) as session:

        async def request() -> None:
            outgoing = Outgoing("POST", PATH, session.host, dict(HEADERS), BODY)
            await session.send(outgoing, cap=1 << 20, timeout_s=30)

        return await timed(request, count)


async def plain_path(url: str, count: int) -> float:
    """Send the same by `ClientSession.request`."""
    serves = vars(FastPath)["serves"]
    FastPath.serves = staticmethod(lambda: False)  # type: ignore[method-assign]  # as it may be
    try:
        return await fast_path(url, count)
    finally:
        FastPath.serves = serves  # type: ignore[method-assign]  # as above


async def bind(url: str, count: int) -> float:
    """Make the request of a device, and a verdict of its answer."""
    device, token = Device("user_1", "SN00001", ("Van 1", "Android 15")), Token("Bearer any")
    async with KooDrive(ApiSettings(), url, CLOCK) as client:
        return await timed(lambda: client.bind(device, token), count)


CONTENDERS = {each.__name__: each for each in (bare, plain_path, fast_path, bind)}


def main() -> None:
    """Send 2,000 requests eleven times, unless told otherwise."""
    numbers = [int(text) for text in sys.argv[1:]]
    count, rounds = numbers + [2_000, 11][len(numbers) :]
    taken: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    with nginx() as url:
        for _ in range(rounds):
            for name, contender in CONTENDERS.items():
                with asyncio.Runner(loop_factory=loop_factory()) as runner:
                    taken[name].append(runner.run(contender(url, count)))
    middle = {name: statistics.median(found) for name, found in taken.items()}
    ratios = {name: found / middle["bare"] for name, found in middle.items()}
    for name, found in taken.items():
        low, _, high = statistics.quantiles(found, n=4)
        say(f"{name:<12}{middle[name]:>7.1f} us ({low:.1f} to {high:.1f}){ratios[name]:>7.2f}")
    write_json("request_cost", {"requests": count, "medians_us": middle, "ratios": ratios})


if __name__ == "__main__":
    main()
