"""Servers with limits for the benchmarks: the sandbox as a process, and a real nginx."""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from aiohttp import web

from bulkbind.clock import SystemClock, iso
from tests.benchmarks.bench import nginx
from tests.support.processes import BULKBIND, free_port

PATH = "/koodrive/ose/v1/backup/device"

Server = Callable[[], AbstractContextManager[str]]


def limit_req(per_s: int, burst: int) -> Server:
    """Return an nginx that refuses with 429 what comes faster."""
    more = f" burst={burst} nodelay" if burst else ""
    zone = f"limit_req_zone $binary_remote_addr zone=all:1m rate={per_s}r/s; limit_req_status 429;"
    return lambda: nginx(zone, f"limit_req zone=all{more};")


def sandbox(*options: str) -> Server:
    """Return a sandbox with these options."""

    @contextmanager
    def serve() -> Iterator[str]:
        port = str(free_port())
        command = [*BULKBIND, "sandbox", "--port", port, *options]
        server = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            assert server.stdout is not None
            server.stdout.readline()
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(10)

    return serve


def limited(*limits: str) -> Server:
    """Return a sandbox with these limits."""
    return sandbox(*(word for limit in limits for word in ("--limit", limit)))


def slow(limit: str) -> Server:
    """Return a sandbox with a limit, which takes 200 ms for what it lets through."""
    return sandbox("--limit", limit, "--fault", "delay-before=1,for=200ms")


def changing(seconds: float) -> Server:
    """Return a limit of 100/s, 30/s and 100/s, a third of the time each."""
    first, second = seconds / 3, 2 * seconds / 3
    return limited(
        f"bucket:100/s,burst=100,tell=nothing,until={first}s",
        f"bucket:30/s,burst=30,tell=nothing,from={first}s,until={second}s",
        f"bucket:100/s,burst=100,tell=nothing,from={second}s",
    )


@dataclass(slots=True)
class Slowing:
    """A server that takes the longer for each request the more it works on beyond its workers."""

    url: str = ""
    in_flight: int = 0
    most: int = 0
    """In flight at once, so far."""


@contextmanager
def slowing(workers: int, service_s: float) -> Iterator[Slowing]:
    """Serve binds in a thread; *service_s*: for each while there are no more than *workers*."""
    server, loop, clock = Slowing(), asyncio.new_event_loop(), SystemClock()

    async def bind(request: web.Request) -> web.Response:
        sent = json.loads(await request.read())
        server.in_flight += 1
        server.most = max(server.most, server.in_flight)
        try:
            await clock.sleep(service_s * max(1.0, server.in_flight / workers))
        finally:
            server.in_flight -= 1
        record = sent | {"deviceId": sent["machineCode"], "createTime": iso(clock.utc_now())}
        return web.json_response({"code": 0, "msg": "success", "data": record})

    async def begin() -> web.AppRunner:
        application = web.Application()
        application.router.add_post(PATH, bind)
        runner = web.AppRunner(application)
        await runner.setup()
        port = free_port()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        server.url = f"http://127.0.0.1:{port}"
        return runner

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    runner = asyncio.run_coroutine_threadsafe(begin(), loop).result(10)
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
