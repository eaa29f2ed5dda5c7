"""The HTTP server: pass requests through limits, checks and faults to the calls."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

from bulkbind.clock import Clock, SystemClock, iso
from bulkbind.errors import BulkbindError
from bulkbind.sandbox.auth_checks import AuthChecks
from bulkbind.sandbox.device_api import (
    Bindings,
    CallResult,
    DeviceCalls,
    Refusal,
    check_body,
    check_headers,
    gateway_refusal,
)
from bulkbind.sandbox.faults import DATE_OFF_S, ELSEWHERE, Faults, respond
from bulkbind.sandbox.journal import JsonLines, Line
from bulkbind.sandbox.limit_announcements import headers_of, http_date, throttled
from bulkbind.sandbox.limiters import Limits
from bulkbind.sandbox.specs import Call, SandboxOptions
from bulkbind.sandbox.tls import Tls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from pathlib import Path

PATH = "/koodrive/ose/v1/backup/device"
AUTH_PATH = "/koodrive/ose/v1/auth"
NO_SUCH_PATH = gateway_refusal(
    404, "APIG.0101", "The API does not exist or has not been published in the environment"
)
LIMIT_HEADERS = web.RequestKey("limit_headers", dict[str, str])
"""Set on a request: headers of its answer that announce a limit."""
STOP_S = 0.5
"""Time for each of the two steps of stopping: finish answers, then cancel what is left."""

_CALLS = {"POST": Call.BIND, "GET": Call.LIST, "DELETE": Call.UNBIND}


class Sandbox:
    """Serves on loopback while its block is entered, once.

    Attributes:
        bindings: What is bound.
        counts: What was received: requests, binds, lists, unbinds, bound, posted_again, throttled,
            refused, locked, followed, followed_with_authorization, and each fault.
        url: Its base URL, without a final slash.
    """

    def __init__(
        self,
        options: SandboxOptions | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Clock | None = None,
    ) -> None:
        self._options = options or SandboxOptions()
        self._host = host
        self._port = port
        self._clock = OffsetClock(clock or SystemClock(), self._options.clock_offset_s)
        self._limits = Limits(self._options.limits)
        self._faults = Faults(self._options.faults, random.Random(self._options.seed))
        self._journal = JsonLines(self._options.journal, "journal")
        self._runner: web.AppRunner | None = None
        self._began = self._clock.monotonic()
        self.bindings = Bindings(self._clock, self._options.state)
        self.counts: Counter[str] = Counter()
        self._in_flight = RequestsInFlight(self._clock, self._journal, self.counts)
        self._calls = DeviceCalls(
            self.bindings,
            self.counts,
            second_bind_status=(
                self._options.second_bind_status if self._options.second_bind == "error" else None
            ),
            lock_s=self._options.backup_lock_s,
        )
        self._auth = AuthChecks(
            self._options.credentials, self._options.token, self._clock, self.counts
        )
        self._tls: Tls | None = None
        self.url = ""

    @property
    def ca_file(self) -> Path:
        """The certificate to trust, if it serves https."""
        assert self._tls is not None, "ordered by `tls`, and entered"
        return self._tls.ca_file

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post(PATH, self._serve)
        app.router.add_get(PATH, self._serve, allow_head=False)
        app.router.add_delete(PATH + "/{device_id}", self._serve)
        app.router.add_post(AUTH_PATH + "/{call:login|refreshToken}", self._session)
        app.router.add_get("/sandbox/stats", self._show_stats)
        app.router.add_get("/sandbox/bindings", self._dump)
        app.router.add_route("*", ELSEWHERE, self._follow)
        app.router.add_route("*", "/{path:.*}", self._refuse_path)
        app.on_response_prepare.append(self._add_headers)
        app.on_shutdown.append(self._in_flight.cancel)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            handler_cancellation=True,  # silence ends when the client hangs up
            shutdown_timeout=STOP_S,
        )
        await self._runner.setup()
        if self._options.tls:
            self._tls = await asyncio.to_thread(Tls.make)
        context = self._tls.context() if self._tls else None
        site = web.TCPSite(self._runner, self._host, self._port, ssl_context=context)
        try:
            await site.start()
        except OSError as error:
            await self.__aexit__()
            raise BulkbindError(
                f"the sandbox cannot listen on {self._host}:{self._port}: {error.strerror}",
                hint="--port 0 takes any free port",
            ) from error
        port = self._runner.addresses[0][1]
        self.url = f"{'https' if self._tls else 'http'}://{self._host}:{port}"
        self._began = self._clock.monotonic()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._in_flight.end()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._tls is not None:
            self._tls.close()
        self.bindings.close()
        self._journal.close()

    def stats(self) -> dict[str, float]:
        """Return numbers of bindings and of what was received, and seconds since the start."""
        return {
            "bindings": len(self.bindings),
            "requests": self.counts["requests"],
            "in_flight_most": self._in_flight.most,
            "uptime_s": round(self._clock.monotonic() - self._began, 3),
            **self.counts,
        }

    # --- the route of a request -------------------------------------------------------------------

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        with self._in_flight.enter(request) as line:
            body = await request.read()
            call = _CALLS[request.method]
            now = self._clock.monotonic()
            elapsed_s = now - self._began
            user_id = request.headers.get("X-User-Id", "")
            with self._limits.admit(call, user_id, now=now, elapsed_s=elapsed_s) as admission:
                is_debug = request.headers.get("X-Apig-Mode") == "debug"
                request[LIMIT_HEADERS] = headers_of(
                    admission, self._clock.utc_now(), is_debug=is_debug
                )
                if admission.refused_by is not None:
                    return self._refuse(line, throttled(admission.refused_by.limit))
                work = self._work(call, request, body, line)
                if isinstance(work, Refusal):
                    return self._refuse(line, work)
                return await self._answer(request, call, work, line)

    async def _session(self, request: web.Request) -> web.StreamResponse:
        """Serve login and refreshToken, without limits and faults."""
        with self._in_flight.enter(request) as line:
            line.outcome = call = request.match_info["call"]
            begin = self._auth.login if call == "login" else self._auth.refresh
            answer = begin(request.headers, await request.read())
            if isinstance(answer, Refusal):
                return self._refuse(line, answer)
            line.status = 200
            return web.json_response(answer)

    def _work(
        self, call: Call, request: web.Request, body: bytes, line: Line
    ) -> Callable[[], CallResult] | Refusal:
        """Return the call to execute, or what is wrong with the request."""
        now = self._clock.utc_now()
        line.credential, refusal = self._auth.check(
            request.method, request.raw_path, request.headers, body
        )
        refusal = refusal or check_headers(request.headers, now)
        if refusal is not None:
            return refusal
        user_id = request.headers["X-User-Id"]
        if call is Call.LIST:
            return partial(self._calls.list_devices, user_id)
        if call is Call.UNBIND:
            return partial(self._calls.unbind, user_id, request.match_info["device_id"])
        fields = check_body(request.content_type, body)
        if isinstance(fields, Refusal):
            return fields
        line.machine_code = fields["machineCode"]
        return partial(self._calls.bind, user_id, fields)

    async def _answer(
        self, request: web.Request, call: Call, work: Callable[[], CallResult], line: Line
    ) -> web.StreamResponse:
        """Execute the call, unless faults prevent it."""

        def recorded() -> CallResult:
            result = work()
            line.outcome, line.device_id = result.outcome, result.device_id
            line.machine_code = line.machine_code or result.machine_code
            return result

        strikes = self._faults.strike(call, self._clock.monotonic() - self._began)
        self.counts.update(strikes.names)
        line.faults += strikes.names
        if strikes.delays:
            await self._in_flight.wait_out(sum(fault.for_s for fault in strikes.delays))
        response = await respond(strikes.decider, request, self._clock, recorded, self.bindings)
        if response is None:
            return web.Response()  # required by aiohttp; the connection is gone
        line.status = response.status
        return response

    def _refuse(self, line: Line, refusal: Refusal) -> web.Response:
        line.outcome = "throttled" if refusal.status == 429 else "refused"
        line.status = refusal.status
        self.counts[line.outcome] += 1
        return web.json_response(refusal.body, status=refusal.status)

    async def _add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        """Add the sandbox's Date and the headers of limits to an answer."""
        now = self._clock.utc_now() + timedelta(seconds=request.get(DATE_OFF_S, 0.0))
        response.headers["Date"] = http_date(now)
        response.headers.update(request.get(LIMIT_HEADERS, {}))

    # --- the sandbox's own pages, and what does not exist -----------------------------------------

    async def _show_stats(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response(self.stats())

    async def _dump(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        for user_id, record in list(self.bindings.everything()):
            await response.write(json.dumps({"userId": user_id, **record}).encode() + b"\n")
        return response

    async def _follow(self, request: web.Request) -> web.StreamResponse:
        """Count clients that follow a redirect, and those that send their token."""
        with self._in_flight.enter(request) as line:
            line.outcome, line.status = "followed", 200
            self.counts["followed"] += 1
            self.counts["followed_with_authorization"] += "Authorization" in request.headers
            return web.json_response({"code": 0, "msg": "success", "data": {}})

    async def _refuse_path(self, request: web.Request) -> web.StreamResponse:
        with self._in_flight.enter(request) as line:
            return self._refuse(line, NO_SUCH_PATH)


class RequestsInFlight:
    """The requests being served.

    Attributes:
        most: The most there were at once.
    """

    def __init__(self, clock: Clock, journal: JsonLines, counts: Counter[str]) -> None:
        self._clock = clock
        self._journal = journal
        self._counts = counts
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_over = False
        self.most = 0

    def __len__(self) -> int:
        return len(self._tasks)

    @contextmanager
    def enter(self, request: web.Request) -> Iterator[Line]:
        """Track a request while it is served; write its journal line at the end, even on errors."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.most = max(self.most, len(self._tasks))
        self._counts["requests"] += 1
        began = self._clock.monotonic()
        line = Line(
            at=iso(self._clock.utc_now()),
            method=request.method,
            user_id=request.headers.get("X-User-Id"),
            trace_id=request.headers.get("X-Traceid"),
        )
        try:
            yield line
        except web.HTTPException as error:  # aiohttp's own, e.g. a body too large
            line.outcome, line.status = "refused", error.status
            raise
        finally:
            self._tasks.discard(task)
            line.took_s = self._clock.monotonic() - began
            self._journal.write(line.entry())

    async def wait_out(self, seconds: float) -> None:
        """Sleep, even if the client has hung up: a busy server does not notice."""
        nap = asyncio.create_task(self._clock.sleep(seconds), name="sandbox delay")
        while not nap.done():
            try:
                await asyncio.shield(nap)
            except asyncio.CancelledError:
                if self._is_over:
                    nap.cancel()
                    await asyncio.wait({nap})
                    raise

    def end(self) -> None:
        """Note that the sandbox stops: from now on a delay ends with its request."""
        self._is_over = True

    async def cancel(self, _app: web.Application) -> None:
        """Cancel all of them, since silence and delays may not end. Takes at most `STOP_S`."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_S)


class OffsetClock:
    """Another clock with a fixed offset of its UTC."""

    def __init__(self, clock: Clock, offset_s: float) -> None:
        self.monotonic = clock.monotonic
        self.sleep = clock.sleep
        self._clock = clock
        self._offset = timedelta(seconds=offset_s)

    def utc_now(self) -> datetime:
        """Return the other clock's UTC plus the offset."""
        return self._clock.utc_now() + self._offset
