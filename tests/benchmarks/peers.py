"""What people use instead: peers of bulkbind, each in a process of its own.

`python -m tests.benchmarks.peers script|bare|pool MANIFEST URL` binds a CSV manifest and prints how
many devices were bound, and the seconds of the sending.
"""

from __future__ import annotations

import asyncio
import csv
import importlib
import json
import sys
import time
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import aiohttp
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

if TYPE_CHECKING:
    from collections.abc import Callable

PATH = "/koodrive/ose/v1/backup/device"
CONCURRENCY = 64


# --- the script that a colleague would write: 60 lines, and it works on a good day ----------------


class ThrottledError(Exception):
    """HTTP 429 or 5xx."""


@retry(
    retry=retry_if_exception_type((ThrottledError, aiohttp.ClientError, TimeoutError)),
    wait=wait_random_exponential(multiplier=0.5, max=30),
    stop=stop_after_attempt(6),
    reraise=True,
)
async def bind(session: aiohttp.ClientSession, url: str, row: dict[str, str]) -> str:
    """Bind one device and return its id."""
    headers = {
        "Authorization": "Bearer any",
        "X-User-Id": row["user_id"],
        "X-Date": datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ"),  # noqa: TID251  # as they do
    }
    body = {
        "machineCode": row["machine_code"],
        "deviceName": row["device_name"],
        "deviceOS": row["device_os"],
    }
    async with session.post(url + PATH, json=body, headers=headers) as response:
        if response.status == 429 or response.status >= 500:
            raise ThrottledError(response.status)
        answer = await response.json(content_type=None)
        if answer.get("code") != 0:
            raise ValueError(answer)
        return str(answer["data"]["deviceId"])


async def script(manifest: str, url: str) -> tuple[int, float]:
    """Do it with a task per row, a semaphore and tenacity; write a CSV of results."""
    with open(manifest, newline="", encoding="utf-8") as file:  # noqa: ASYNC230, PTH123  # as they do
        rows = list(csv.DictReader(file))
    semaphore = asyncio.Semaphore(CONCURRENCY)
    results = []

    async def one(session: aiohttp.ClientSession, row: dict[str, str]) -> None:
        async with semaphore:
            try:
                device_id = await bind(session, url, row)
                results.append((row["machine_code"], "ok", device_id))
            except Exception as error:  # noqa: BLE001  # as they do
                results.append((row["machine_code"], "failed", str(error)))

    began = time.monotonic()
    connector = aiohttp.TCPConnector(limit=CONCURRENCY)
    async with aiohttp.ClientSession(connector=connector) as session:
        await asyncio.gather(*(one(session, row) for row in rows))
    took_s = time.monotonic() - began
    with open("script-results.csv", "w", newline="", encoding="utf-8") as file:  # noqa: ASYNC230, PTH123  # as they do
        csv.writer(file).writerows(results)
    return sum(status == "ok" for _, status, _ in results), took_s


# --- bare loops: the same requests, and nothing else ----------------------------------------------


async def bare(manifest: str, url: str) -> tuple[int, float]:
    """Post every row from a fixed pool and read the answer; no retry, no record of anything."""
    with open(manifest, newline="", encoding="utf-8") as file:  # noqa: ASYNC230, PTH123  # as they do
        rows = deque(csv.DictReader(file))
    done = 0

    async def worker(session: aiohttp.ClientSession) -> None:
        nonlocal done
        while rows:
            row = rows.popleft()
            moment = datetime.now(UTC)  # noqa: TID251  # as they do
            headers = {
                "Authorization": "Bearer any",
                "X-User-Id": row["user_id"],
                "X-Date": moment.strftime("%Y%m%dT%H%M%SZ"),
                "Content-Type": "application/json",
            }
            body = {
                "machineCode": row["machine_code"],
                "deviceName": row["device_name"],
                "deviceOS": row["device_os"],
            }
            async with session.post(
                url + PATH, data=json.dumps(body).encode(), headers=headers
            ) as response:
                done += json.loads(await response.read())["code"] == 0

    began = time.monotonic()
    connector = aiohttp.TCPConnector(limit=CONCURRENCY)
    async with aiohttp.ClientSession(connector=connector) as session:
        await asyncio.gather(*(worker(session) for _ in range(CONCURRENCY)))
    return done, time.monotonic() - began


PEERS = {"script": script, "bare": bare}


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's where it is installed, as bulkbind uses it."""
    try:
        factory: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module(
            "uvloop"
        ).new_event_loop
    except ImportError:
        return None
    return factory


def main() -> None:
    """Run one peer; `script` on asyncio, as its author would, `bare` on bulkbind's loop."""
    name, manifest, url = sys.argv[1:4]
    factory = loop_factory() if name == "bare" and "--asyncio" not in sys.argv else None
    with asyncio.Runner(loop_factory=factory) as runner:
        done, took_s = runner.run(PEERS[name](manifest, url))
    print(json.dumps({"bound": done, "sending_s": took_s}))  # noqa: T201  # what it is for


if __name__ == "__main__":
    main()
