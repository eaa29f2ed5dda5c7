"""A local KooDrive: bind, list and unbind, with limits and faults to order."""

from __future__ import annotations

import json
import random
from typing import Any, Self

from aiohttp import web

from bulkbind.clock import Clock, SystemClock, iso
from bulkbind.errors import BulkbindError
from bulkbind.sandbox.bindings import Bindings
from bulkbind.sandbox.checks import Refusal, check_body, check_headers
from bulkbind.sandbox.options import SandboxOptions

PATH = "/koodrive/ose/v1/backup/device"
ALREADY_BOUND_CODE = 13000310
"""The sandbox's own: the reference names no code for a second bind."""
MISSING_CODE = 13000309
SPACE_CODE = 13000301


class Sandbox:
    """Serves on loopback from entering to leaving the block.

    Attributes:
        bindings: What is bound.
        counts: What was seen: binds, lists, unbinds, bound, posted_again, throttled, refused,
            and each fault.
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
        self._clock = clock or SystemClock()
        self._random = random.Random(self._options.seed)
        self._window = (0.0, 0)
        self._journal = (
            self._options.journal.open("a", encoding="utf-8", buffering=1)
            if self._options.journal
            else None
        )
        self._runner: web.AppRunner | None = None
        self.bindings = Bindings(self._clock, self._options.state)
        self.counts: dict[str, int] = {}
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post(PATH, self._bind)
        app.router.add_get(PATH, self._list)
        app.router.add_delete(PATH + "/{device_id}", self._unbind)
        app.router.add_get("/sandbox/stats", self._stats)
        app.router.add_get("/sandbox/bindings", self._dump)
        self._runner = web.AppRunner(
            app, access_log=None, handle_signals=False, shutdown_timeout=1.0
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        try:
            await site.start()
        except OSError as error:
            await self.__aexit__()
            raise BulkbindError(
                f"the sandbox cannot listen on {self._host}:{self._port}: {error.strerror}",
                hint="--port 0 takes any free port",
            ) from error
        port = self._runner.addresses[0][1]
        self.url = f"http://{self._host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        self.bindings.close()
        if self._journal is not None:
            self._journal.close()

    # --- calls -----------------------------------------------------------------------------------

    async def _bind(self, request: web.Request) -> web.StreamResponse:  # noqa: PLR0911  # one a fault
        body = await request.read()
        refusal = self._refusal(request)
        if refusal is not None:
            return self._refuse(request, refusal)
        fields = check_body(request.content_type, body)
        if isinstance(fields, Refusal):
            return self._refuse(request, fields)
        code = fields["machineCode"]
        if self._strikes("500"):
            self._write(request, "500", code, 500)
            return web.json_response({"code": 13000001, "msg": "internal error"}, status=500)
        if self._strikes("business"):
            self._write(request, "business", code, 200)
            return web.json_response({"code": SPACE_CODE, "msg": "space missing"})
        if self._strikes("reset-before"):
            return self._reset(request, "reset-before", code)
        user_id = request.headers["X-User-Id"]
        known = self.bindings.find(user_id, code)
        self._count("binds")
        result = "bound" if known is None else "posted_again"
        self._count(result)
        record = known or self.bindings.bind(user_id, fields)
        if self._strikes("reset-after"):
            return self._reset(request, f"reset-after {result}", code)
        if known is not None and self._options.second_bind == "error":
            self._write(request, result, code, 200)
            return web.json_response({"code": ALREADY_BOUND_CODE, "msg": "device already bound"})
        self._write(request, result, code, 200, record["deviceId"])
        return web.json_response({"code": 0, "msg": "success", "data": record})

    async def _list(self, request: web.Request) -> web.StreamResponse:
        refusal = self._refusal(request)
        if refusal is not None:
            return self._refuse(request, refusal)
        self._count("lists")
        self._write(request, "listed", "", 200)
        records = self.bindings.of(request.headers["X-User-Id"])
        return web.json_response({"code": 0, "msg": "success", "data": records})

    async def _unbind(self, request: web.Request) -> web.StreamResponse:
        refusal = self._refusal(request)
        if refusal is not None:
            return self._refuse(request, refusal)
        self._count("unbinds")
        record = self.bindings.unbind(request.headers["X-User-Id"], request.match_info["device_id"])
        if record is None:
            self._write(request, "missing", "", 200)
            return web.json_response({"code": MISSING_CODE, "msg": "resource not found"})
        self._write(request, "unbound", record["machineCode"], 200, record["deviceId"])
        return web.json_response({"code": 0, "msg": "success", "data": record})

    async def _stats(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response({"bindings": len(self.bindings), **self.counts})

    async def _dump(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        for user_id, record in list(self.bindings.everything()):
            await response.write(json.dumps({"userId": user_id, **record}).encode() + b"\n")
        return response

    # --- what every call goes through ------------------------------------------------------------

    def _refusal(self, request: web.Request) -> Refusal | None:
        limit = self._options.limit
        if limit is not None and self._is_over(limit.count, limit.window_s):
            self._count("throttled")
            return Refusal(
                429,
                {
                    "error_code": "APIG.0308",
                    "error_msg": "The throttling threshold has been reached: policy user over "
                    f"ratelimit,limit:{limit.count},time:1 {limit.unit}",
                    "request_id": "sandbox",
                },
            )
        return check_headers(request.headers, self._clock.utc_now(), self._options.token)

    def _is_over(self, count: int, window_s: float) -> bool:
        now = self._clock.monotonic()
        began, used = self._window
        if now - began >= window_s:
            began, used = now, 0
        self._window = (began, used + 1)
        return used >= count

    def _refuse(self, request: web.Request, refusal: Refusal) -> web.StreamResponse:
        if refusal.status != 429:  # HTTP's own number
            self._count("refused")
        self._write(request, "refused", "", refusal.status)
        return web.json_response(refusal.body, status=refusal.status)

    def _strikes(self, fault: str) -> bool:
        share = self._options.faults.get(fault, 0.0)
        strikes = share > 0 and self._random.random() < share
        if strikes:
            self._count(fault)
        return strikes

    def _reset(self, request: web.Request, result: str, code: str) -> web.StreamResponse:
        self._write(request, result, code, None)
        if request.transport is not None:
            request.transport.abort()
        return web.Response()  # nobody is there to read it

    def _count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1

    def _write(
        self,
        request: web.Request,
        result: str,
        machine_code: str,
        status: int | None,
        device_id: str = "",
    ) -> None:
        if self._journal is None:
            return
        line: dict[str, Any] = {
            "at": iso(self._clock.utc_now()),
            "method": request.method,
            "user_id": request.headers.get("X-User-Id"),
            "machine_code": machine_code,
            "device_id": device_id,
            "result": result,
            "status": status,
            "trace_id": request.headers.get("X-Traceid"),
        }
        self._journal.write(json.dumps(line) + "\n")
