"""A plain HTTP client of the sandbox, with raw statuses, headers and bodies."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import aiohttp

from bulkbind.clock import Clock, SystemClock
from bulkbind.sandbox import Sandbox, SandboxOptions, parse_fault, parse_limit

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

PATH = "/koodrive/ose/v1/backup/device"
TRACE_ID = "t" * 58
BODY = {"machineCode": "SN_1", "deviceName": "Van-1 x", "deviceOS": "Android 15"}
ALWAYS_THERE = ("requests", "in_flight_most", "uptime_s")
"""Stats beside those that count what was done."""


async def until(holds: Callable[[], object]) -> None:
    """Return once something holds; fail after five seconds."""
    clock = SystemClock()
    end = clock.monotonic() + 5
    while not holds():
        assert clock.monotonic() < end, "it never came to hold"
        await clock.sleep(0.001)


def stamp(now: datetime, age_s: float = 5.0) -> str:
    """Return an X-Date of a certain age."""
    return (now - timedelta(seconds=age_s)).strftime("%Y%m%dT%H%M%SZ")


def address(url: str) -> tuple[str, int]:
    """Return host and port of a URL."""
    host, port = url.removeprefix("http://").split(":")
    return host, int(port)


def journal_lines(path: Path) -> list[dict[str, Any]]:
    """Return a journal's lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@dataclass(frozen=True)
class Reply:
    """An answer that came whole."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.body)
        return value


class Asker:
    """A plain client of one sandbox."""

    def __init__(self, session: aiohttp.ClientSession, sandbox: Sandbox, clock: Clock) -> None:
        self.sandbox = sandbox
        self.session = session
        self.clock = clock

    def headers(self, **changes: str | None) -> dict[str, str]:
        """Return the headers of a good request; `_` stands for `-`; None takes one away."""
        good: dict[str, str | None] = {
            "Authorization": "Bearer any",
            "X-User-Id": "user_1",
            "X-Date": stamp(self.clock.utc_now()),
            "X-Traceid": TRACE_ID,
            "Content-Type": "application/json",
        }
        good |= {name.replace("_", "-"): value for name, value in changes.items()}
        return {name: value for name, value in good.items() if value is not None}

    def request(self, method: str, path: str = PATH, body=None, **changes):
        """Return aiohttp's context of a response."""
        data = json.dumps(body) if isinstance(body, dict) else body
        sent = self.headers(**changes)
        if data is None:
            sent.pop("Content-Type", None)
        skipped = ["Content-Type"]  # aiohttp would add one of its own
        return self.session.request(
            method,
            self.sandbox.url + path,
            data=data,
            headers=sent,
            skip_auto_headers=skipped,
            allow_redirects=False,
        )

    async def reply(self, method: str, path: str = PATH, body=None, **changes) -> Reply:
        async with self.request(method, path, body, **changes) as response:
            return Reply(response.status, response.headers, await response.read())

    async def ask(self, method: str, path: str, body=None, **changes) -> tuple[int, dict[str, Any]]:
        reply = await self.reply(method, path, body, **changes)
        return reply.status, reply.json

    async def bind(self, body=None, **changes) -> tuple[int, dict[str, Any]]:
        return await self.ask("POST", PATH, BODY if body is None else body, **changes)

    async def list_devices(self, **changes) -> tuple[int, dict[str, Any]]:
        return await self.ask("GET", PATH, **changes)

    async def unbind(self, device_id: str, **changes) -> tuple[int, dict[str, Any]]:
        return await self.ask("DELETE", f"{PATH}/{device_id}", **changes)

    async def statuses(self, times: int, method: str = "GET", **changes) -> list[int]:
        """Return the statuses of some requests, one after the other; a POST binds."""
        body = BODY if method == "POST" else None
        return [(await self.reply(method, PATH, body, **changes)).status for _ in range(times)]

    async def raw_bind(self) -> bytes:
        """Bind over a bare connection and return all bytes until it is closed."""
        body = json.dumps(BODY).encode()
        head = {**self.headers(), "Host": "x", "Content-Length": str(len(body))}
        lines = [f"POST {PATH} HTTP/1.1", *(f"{name}: {text}" for name, text in head.items())]
        host, port = self.sandbox.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write("\r\n".join([*lines, "", ""]).encode() + body)
            return await reader.read()
        finally:
            writer.close()

    async def stats(self) -> dict[str, Any]:
        return (await self.ask("GET", "/sandbox/stats"))[1]

    async def counts(self) -> dict[str, int]:
        """Return the stats that count what was done."""
        return {name: n for name, n in (await self.stats()).items() if name not in ALWAYS_THERE}


@asynccontextmanager
async def serving(clock=None, *, limits=(), faults=(), **options):
    """Serve a sandbox and yield its client; limits and faults as on the command line."""
    chosen = SandboxOptions(
        limits=tuple(map(parse_limit, limits)), faults=tuple(map(parse_fault, faults)), **options
    )
    async with (
        Sandbox(chosen, clock=clock) as sandbox,
        aiohttp.ClientSession() as session,
    ):
        yield Asker(session, sandbox, clock or SystemClock())


@asynccontextmanager
async def hanging(asker: Asker, method: str = "POST", path: str = PATH):
    """Yield a request that is on its way; at the end its client hangs up."""
    body = BODY if method == "POST" else None
    task = asyncio.create_task(asker.reply(method, path, body), name="hanging")
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})
