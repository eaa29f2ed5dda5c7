"""Packages that find a server's limit by themselves, each in a process of its own.

`python -m tests.benchmarks.limiting_peers NAME MANIFEST URL` binds a CSV manifest with one of
`PEERS` and prints how many devices were bound, the seconds of the sending, and the requests that
were refused. Every device is tried until it is bound: what a package would give up is not counted
against it. It ends with 3 where the package is not installed. It imports nothing of bulkbind, so
that any Python that has aiohttp and the package can run it.
"""

from __future__ import annotations

import asyncio
import csv
import importlib
import json
import random
import sys
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

PATH = "/koodrive/ose/v1/backup/device"
CONCURRENCY = 64
MISSING = 3
"""Exit code: the package is not installed."""
MOST_BACKOFF_S = 20.0
"""The longest of botocore's standard retries (`standard.ExponentialBackoff`)."""


class RefusedError(Exception):
    """HTTP 429."""


def check(status: int) -> None:
    """Raise RefusedError for a 429."""
    if status == 429:
        raise RefusedError


def aws_adaptive() -> Callable[[], AbstractAsyncContextManager[None]]:
    """Return turns of botocore's adaptive mode: its token bucket blocks threads."""
    bucket, throttling, adaptive = (
        importlib.import_module(f"botocore.retries.{name}")
        for name in ("bucket", "throttling", "adaptive")
    )

    class Detector:
        def is_throttling_error(self, *, is_refused: bool) -> bool:
            return is_refused

    clock = bucket.Clock()
    limiter = adaptive.ClientRateLimiter(
        rate_adjustor=throttling.CubicCalculator(
            starting_max_rate=0, start_time=clock.current_time()
        ),
        rate_clocker=adaptive.RateClocker(clock),
        token_bucket=bucket.TokenBucket(max_rate=1, clock=clock),
        throttling_detector=Detector(),
        clock=clock,
    )
    threads = ThreadPoolExecutor(CONCURRENCY)

    @asynccontextmanager
    async def turn() -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(threads, limiter.on_sending_request, None)
        is_refused = False
        try:
            yield
        except RefusedError:
            is_refused = True
            raise
        finally:
            limiter.on_receiving_response(is_refused=is_refused)

    return turn


def gentlify() -> Callable[[], AbstractAsyncContextManager[None]]:
    """Return turns of a `Throttle` as its documentation makes one."""
    package = importlib.import_module("gentlify")
    throttle = package.Throttle(
        max_concurrency=CONCURRENCY,
        failure_predicate=lambda error: isinstance(error, RefusedError),
    )
    turn: Callable[[], AbstractAsyncContextManager[None]] = throttle.acquire
    return turn


def data_designer() -> Callable[[], AbstractAsyncContextManager[None]]:
    """Return turns of NVIDIA DataDesigner's request admission, with its defaults."""
    package = "data_designer.engine.models.request_admission"
    controllers, resources, outcomes = (
        importlib.import_module(f"{package}.{name}")
        for name in ("controller", "resources", "outcomes")
    )
    controller = controllers.AdaptiveRequestAdmissionController()
    controller.register(
        provider_name="p", model_id="m", alias="a", max_parallel_requests=CONCURRENCY
    )
    resource = resources.RequestResourceKey("p", "m", resources.RequestDomain.CHAT)
    item = resources.RequestAdmissionItem(resource, resources.RequestGroupSpec(resource))

    @asynccontextmanager
    async def turn() -> AsyncIterator[None]:
        lease = await controller.acquire_async(item)
        kind = "success"
        try:
            yield
        except RefusedError:
            kind = "rate_limited"
            raise
        finally:
            controller.release(lease, outcomes.RequestReleaseOutcome(kind=kind))

    return turn


def headers_of(row: dict[str, str]) -> dict[str, str]:
    """Return the headers of a bind."""
    return {
        "Authorization": "Bearer any",
        "X-User-Id": row["user_id"],
        "X-Date": datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ"),  # noqa: TID251  # as they do
    }


def body_of(row: dict[str, str]) -> dict[str, str]:
    """Return the body of a bind."""
    return {"machineCode": row["machine_code"], "deviceName": row["device_name"]}


async def taking_turns(
    make: Callable[[], Callable[[], AbstractAsyncContextManager[None]]],
    rows: deque[dict[str, str]],
    url: str,
    *,
    backs_off: bool,
) -> tuple[int, int]:
    """Bind all rows from a fixed pool of workers; return how many were bound, and refused."""
    turn = make()
    bound = refused = 0

    async def worker(session: aiohttp.ClientSession) -> None:
        nonlocal bound, refused
        while rows:
            row, attempts = rows.popleft(), 0
            while True:
                try:
                    async with (
                        turn(),
                        session.post(
                            url + PATH, json=body_of(row), headers=headers_of(row)
                        ) as answer,
                    ):
                        await answer.read()
                        check(answer.status)
                except RefusedError:
                    refused += 1
                    attempts += 1
                    if backs_off:
                        wait_s = min(
                            MOST_BACKOFF_S, random.random() * 2 ** (attempts - 1)
                        )  # no secret
                        await asyncio.sleep(wait_s)  # noqa: TID251  # as they do
                else:
                    bound += answer.status == 200
                    break

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONCURRENCY)) as session:
        await asyncio.gather(*(worker(session) for _ in range(CONCURRENCY)))
    return bound, refused


def smartsurge(rows: deque[dict[str, str]], url: str) -> tuple[int, int]:
    """Bind all rows with its client, from a pool of threads; it reads limits from 429s itself."""
    package = importlib.import_module("smartsurge")
    exceptions = importlib.import_module("smartsurge.exceptions")
    client = package.SmartSurgeClient(base_url=url)
    counting = threading.Lock()
    bound = refused = 0

    def worker() -> None:
        nonlocal bound, refused
        while True:
            try:
                row = rows.popleft()
            except IndexError:
                return
            while True:
                try:
                    answer = client.post(PATH, json=body_of(row), headers=headers_of(row))
                except exceptions.RateLimitExceeded as error:
                    with counting:
                        refused += 1
                    time.sleep(getattr(error, "retry_after", None) or 1.0)  # noqa: TID251  # as its users do
                else:
                    with counting:
                        bound += answer.status_code == 200
                    break

    with ThreadPoolExecutor(CONCURRENCY) as threads:
        for future in [threads.submit(worker) for _ in range(CONCURRENCY)]:
            future.result()
    return bound, refused


PEERS: dict[str, Callable[[deque[dict[str, str]], str], tuple[int, int]]] = {
    "aws-adaptive": lambda rows, url: asyncio.run(
        taking_turns(aws_adaptive, rows, url, backs_off=True)
    ),
    "gentlify": lambda rows, url: asyncio.run(taking_turns(gentlify, rows, url, backs_off=False)),
    "data-designer": lambda rows, url: asyncio.run(
        taking_turns(data_designer, rows, url, backs_off=False)
    ),
    "smartsurge": smartsurge,
}


def main() -> None:
    """Run one peer."""
    name, manifest, url = sys.argv[1:4]
    with open(manifest, newline="", encoding="utf-8") as file:  # noqa: PTH123  # as they do
        rows = deque(csv.DictReader(file))
    began = time.monotonic()
    try:
        bound, refused = PEERS[name](rows, url)
    except ModuleNotFoundError as error:
        sys.stderr.write(f"{name} is left out: {error.name} is not installed\n")
        sys.exit(MISSING)
    told: dict[str, Any] = {
        "bound": bound, "refused": refused, "sending_s": time.monotonic() - began,
    }  # fmt: skip
    print(json.dumps(told))  # noqa: T201  # what it is for


if __name__ == "__main__":
    main()
