"""A local KooDrive: bind, list and unbind, with limits and faults to order."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Self

from aiohttp import web

from bulkbind.clock import Clock, SystemClock
from bulkbind.errors import BulkbindError
from bulkbind.sandbox.auth_checks import Doorman
from bulkbind.sandbox.calls import Answer, Calls
from bulkbind.sandbox.checks import Refusal, check_body, check_headers
from bulkbind.sandbox.device_api import Bindings
from bulkbind.sandbox.faults import KINDS, Faults
from bulkbind.sandbox.gate import Gate
from bulkbind.sandbox.journal import Journal
from bulkbind.sandbox.limit_headers import headers_of, http_date, refusal_of
from bulkbind.sandbox.shifted import ShiftedClock
from bulkbind.sandbox.spec_parser import SandboxOptions
from bulkbind.sandbox.specs import Call
from bulkbind.sandbox.spoiling import DATE_OFF_S, ELSEWHERE, Exchange, plain
from bulkbind.sandbox.tls import Tls
from bulkbind.sandbox.under_way import STOP_S, UnderWay

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bulkbind.sandbox.journal import Line

PATH = "/koodrive/ose/v1/backup/device"
AUTH_PATH = "/koodrive/ose/v1/auth"
NO_SUCH_CALL: dict[str, object] = {
    "error_code": "APIG.0101",
    "error_msg": "The API does not exist or has not been published in the environment",
    "request_id": "sandbox",
}
TOLD = web.RequestKey("told", dict[str, str])
"""Set on a request: headers in which a limit speaks."""

_CALLS = {"POST": Call.BIND, "GET": Call.LIST, "DELETE": Call.UNBIND}


class Sandbox:
    """Serves on loopback from entering to leaving the block, once.

    Attributes:
        bindings: What is bound.
        counts: What was seen: requests, binds, lists, unbinds, bound, posted_again, throttled,
            refused, followed, followed_with_authorization, and each fault.
        url: Where it serves, without a final slash.
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
        self._clock = ShiftedClock(clock or SystemClock(), self._options.clock_offset_s)
        self._gate = Gate(self._options.limits)
        self._faults = Faults(self._options.faults, random.Random(self._options.seed))
        self._journal = Journal(self._options.journal)
        self._runner: web.AppRunner | None = None
        self._began = self._clock.monotonic()
        self.bindings = Bindings(self._clock, self._options.state)
        self.counts: Counter[str] = Counter()
        self._under_way = UnderWay(self._clock, self._journal, self.counts)
        self._calls = Calls(
            self.bindings, self.counts, is_second_an_error=self._options.second_bind == "error"
        )
        self._doorman = Doorman(
            self._options.credentials, self._options.token, self._clock, self.counts
        )
        self._tls: Tls | None = None
        self.url = ""

    @property
    def ca_file(self) -> Path:
        """The certificate to trust, where it serves https."""
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
        app.on_response_prepare.append(self._dress)
        app.on_shutdown.append(self._cut_off)
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
        self._under_way.end()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._tls is not None:
            self._tls.close()
        self.bindings.close()
        self._journal.close()

    def stats(self) -> dict[str, float]:
        """Return what is bound now, what was seen, and seconds since the start."""
        return {
            "bindings": len(self.bindings),
            "requests": self.counts["requests"],
            "in_flight_most": self._under_way.most,
            "uptime_s": round(self._clock.monotonic() - self._began, 3),
            **self.counts,
        }

    # --- the route of a request -------------------------------------------------------------------

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        with self._under_way.enter(request) as line:
            body = await request.read()
            call = _CALLS[request.method]
            now = self._clock.monotonic()
            elapsed_s = now - self._began
            user_id = request.headers.get("X-User-Id", "")
            with self._gate.enter(call, user_id, now=now, elapsed_s=elapsed_s) as entry:
                if entry.speaker is not None:
                    request[TOLD] = headers_of(
                        entry.speaker,
                        self._clock.utc_now(),
                        is_refused=entry.refused_by is not None,
                        is_debug=request.headers.get("X-Apig-Mode") == "debug",
                    )
                if entry.refused_by is not None:
                    return self._refuse(line, Refusal(429, refusal_of(entry.refused_by.limit)))
                work = self._work(call, request, body, line)
                if isinstance(work, Refusal):
                    return self._refuse(line, work)
                return await self._answer(request, call, work, line)

    async def _session(self, request: web.Request) -> web.StreamResponse:
        """Serve login and refreshToken. Limits and faults are about the other calls."""
        with self._under_way.enter(request) as line:
            line.outcome = call = request.match_info["call"]
            begin = self._doorman.login if call == "login" else self._doorman.refresh
            answer = begin(request.headers, await request.read())
            if isinstance(answer, Refusal):
                return self._refuse(line, answer)
            line.status = 200
            return web.json_response(answer)

    def _work(
        self, call: Call, request: web.Request, body: bytes, line: Line
    ) -> Callable[[], Answer] | Refusal:
        """Return what is to be done, or what is wrong with the request."""
        now = self._clock.utc_now()
        line.credential, refusal = self._doorman.look(
            request.method,
            request.raw_path,
            request.headers,
            body,
            request.headers.get("X-User-Id", ""),
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
        self, request: web.Request, call: Call, work: Callable[[], Answer], line: Line
    ) -> web.StreamResponse:
        """Do the work, unless faults have it otherwise."""

        def done() -> Answer:
            answer = work()
            line.outcome, line.device_id = answer.result, answer.device_id
            line.machine_code = line.machine_code or answer.machine_code
            return answer

        strikes = self._faults.strike(call, self._clock.monotonic() - self._began)
        self.counts.update(strikes.names)
        line.faults += strikes.names
        if strikes.delays:
            await self._under_way.wait_out(sum(fault.for_s for fault in strikes.delays))
        response: web.StreamResponse | None
        if strikes.decider is None:
            response = plain(done())
        else:
            spoil = KINDS[strikes.decider.name].spoil
            assert spoil is not None, "a delay decides nothing"
            exchange = Exchange(
                request=request, fault=strikes.decider, clock=self._clock, work=done
            )
            try:
                response = await spoil(exchange)
            except ConnectionError:  # the client closed in the middle of the answer
                response = None
        if response is None:
            return web.Response()  # nobody is there to read it
        line.status = response.status
        return response

    def _refuse(self, line: Line, refusal: Refusal) -> web.Response:
        line.outcome = "throttled" if refusal.status == 429 else "refused"
        line.status = refusal.status
        self.counts[line.outcome] += 1
        return web.json_response(refusal.body, status=refusal.status)

    async def _dress(self, request: web.Request, response: web.StreamResponse) -> None:
        """Put our own Date, and what limits tell, on an answer."""
        now = self._clock.utc_now() + timedelta(seconds=request.get(DATE_OFF_S, 0.0))
        response.headers["Date"] = http_date(now)
        response.headers.update(request.get(TOLD, {}))

    async def _cut_off(self, _app: web.Application) -> None:
        """End what is under way: silence and delays would outlast the sandbox."""
        await self._under_way.cut_off()

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
        """Count who comes here: a client that follows a redirect, perhaps with its token."""
        with self._under_way.enter(request) as line:
            line.outcome, line.status = "followed", 200
            self.counts["followed"] += 1
            self.counts["followed_with_authorization"] += "Authorization" in request.headers
            return web.json_response({"code": 0, "msg": "success", "data": {}})

    async def _refuse_path(self, request: web.Request) -> web.StreamResponse:
        with self._under_way.enter(request) as line:
            return self._refuse(line, Refusal(404, NO_SUCH_CALL))
