"""The real client over real sockets, against the sandbox, the fault proxy and scripted servers."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import zlib
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from aiohttp import web
from aioresponses import aioresponses
from pydantic import SecretStr

from bulkbind.clock import SystemClock
from bulkbind.engine import StopSignal
from bulkbind.engine.paced import Paced
from bulkbind.koodrive import Auth, KooDrive, authorizer
from bulkbind.koodrive.auth.credential import App, Token
from bulkbind.koodrive.auth.renewing import Renewing
from bulkbind.koodrive.auth.static_token import GIVEN_APP, GIVEN_TOKEN
from bulkbind.koodrive.client import ANSWER_CAP_BYTES, LIST_CAP_BYTES
from bulkbind.koodrive.transport import tls_context
from bulkbind.model import (
    Accepted,
    AlreadyBound,
    AuthExpired,
    ClockRefused,
    Device,
    NoAnswer,
    Refused,
    ServerLimit,
    Throttled,
    Transient,
    Unreachable,
    Verdict,
)
from bulkbind.pacing import Pacer
from bulkbind.sandbox import Sandbox, SandboxOptions, parse_fault, parse_limit
from bulkbind.sandbox.auth_checks import check_signature
from bulkbind.settings import ApiSettings, AuthSettings
from tests.support import fakes
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.rows import device

PATH = "/koodrive/ose/v1/backup/device"
DEVICE = device("user_1", "SN_1", "Van 1", "Android 15")
DAY_S = 86_400.0
BOTH_PATHS = pytest.mark.usefixtures("path")


class OpenGate(fakes.OpenGate):
    """Lets everything through at once, and keeps what it heard."""

    def __init__(self) -> None:
        super().__init__()
        self.permits = 0
        self.reports: list[tuple[int, Verdict]] = []
        self.taken_back: list[int] = []
        self.limits: tuple[ServerLimit, ...] = ()

    async def permit(self, user_id: str | None = None) -> int:  # noqa: ARG002  # the protocol's
        self.permits += 1
        return self.permits

    def report(self, permit: int, verdict: Verdict, limits: tuple[ServerLimit, ...] = ()) -> None:
        self.limits = limits
        self.reports.append((permit, verdict))

    def forget(self, permit: int) -> None:
        self.taken_back.append(permit)


class DrainedGate(OpenGate):
    """Lets nothing through any more."""

    async def permit(self, user_id: str | None = None) -> int:  # noqa: ARG002  # the protocol's
        raise InterruptedError("drained")


class SkewedClock(SystemClock):
    """A machine whose wall clock is wrong."""

    def __init__(self, off_s: float) -> None:
        self._off = timedelta(seconds=off_s)

    def utc_now(self) -> datetime:
        return super().utc_now() + self._off


def given(header: str) -> Renewing:
    """Return a token that nobody renews."""
    return Renewing(GIVEN_TOKEN, SystemClock(), Token(header))


class Driven(Paced):
    """The API behind a gate, and the client that makes its requests."""

    def __init__(self, client: KooDrive, auth: Auth, gate: OpenGate | Pacer) -> None:
        super().__init__(client, auth, gate)
        self.client = client


def drive(
    endpoint: str, gate=None, clock=None, skew_s=None, *, auth=None, concurrency=None, **api
) -> Driven:
    """Return the API behind a gate, ready to enter; with *concurrency* that of a real run."""
    clock = clock or SystemClock()
    if concurrency is not None:
        gate = Pacer(clock, StopSignal(), concurrency=concurrency)
    settings = ApiSettings(**api)
    tls = tls_context(settings.ca_file) if endpoint.startswith("https:") else None
    client = KooDrive(settings, endpoint, clock, skew_s=skew_s, tls=tls)
    return Driven(client, auth or given("Bearer secret-token"), gate or OpenGate())


@dataclass
class Seen:
    """What a scripted server was asked."""

    url: str = ""
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    """Method, path, headers, body."""


@asynccontextmanager
async def server(handler):
    """Serve one handler for every method and path, and keep what came."""
    seen = Seen()

    async def keep(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        seen.requests.append((request.method, request.raw_path, dict(request.headers), body))
        answer: web.StreamResponse = await handler(request)
        return answer

    app = web.Application()
    app.router.add_route("*", "/{anything:.*}", keep)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.2)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        seen.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield seen
    finally:
        await runner.cleanup()


def success(device: Device = DEVICE) -> dict[str, object]:
    """Return the answer to a bind."""
    record = {"deviceId": "1842812272691451648", "machineCode": device.machine_code}
    return {"code": 0, "msg": "success", "data": record | {"createTime": "2026-11-23T12:00:00Z"}}


async def accept(_request: web.Request) -> web.StreamResponse:
    """Accept the bind of DEVICE."""
    return web.json_response(success())


# --- the plain case -------------------------------------------------------------------------------


async def test_a_bind_is_accepted_by_the_sandbox():
    """The sandbox, strict as it is, takes the request; the attempt tells the whole story."""
    gate = OpenGate()
    began = SystemClock().utc_now().timestamp()

    async with Sandbox() as sandbox, drive(sandbox.url, gate) as client:
        attempt = await client.bind(DEVICE)
        record = sandbox.bindings.find("user_1", "SN_1")
        requests, server_time = client.client.requests, client.server_time()

    assert record is not None
    assert attempt.verdict == Accepted(record["deviceId"], record["createTime"])
    assert (attempt.http_status, attempt.code, attempt.message) == (200, "0", "success")
    assert (record["deviceName"], record["deviceOS"]) == ("Van 1", "Android 15")
    assert began - 2.1 <= attempt.sent_at <= SystemClock().utc_now().timestamp()
    assert 0 < attempt.took_s < 5
    assert gate.reports == [(1, attempt.verdict)]
    assert requests == 1
    assert server_time is not None


@BOTH_PATHS
async def test_headers_are_exactly_those_of_the_contract():
    """Token, user, date, trace id and type, and no others but those that HTTP itself needs."""
    async with server(accept) as seen, drive(seen.url) as client:
        attempt = await client.bind(DEVICE)

    ((method, path, headers, body),) = seen.requests
    plain = {"Host", "Accept", "Accept-Encoding", "User-Agent", "Content-Length"}
    own = {name: value for name, value in headers.items() if name not in plain}
    signed = datetime.strptime(own.pop("X-Date"), "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    assert (method, path) == ("POST", PATH)
    assert own == {
        "Authorization": "Bearer secret-token",
        "X-User-Id": "user_1",
        "X-Traceid": attempt.trace_id,
        "Content-Type": "application/json",
    }
    assert re.fullmatch(r"[0-9A-Za-z]{58}", attempt.trace_id)
    assert timedelta(seconds=0) <= SystemClock().utc_now() - signed < timedelta(seconds=10)
    assert json.loads(body) == {
        "machineCode": "SN_1",
        "deviceName": "Van 1",
        "deviceOS": "Android 15",
    }


@BOTH_PATHS
async def test_a_list_is_asked_for_without_a_body():
    """GET at the same path, with the same headers, but without body and content type."""

    async def empty(_request: web.Request) -> web.StreamResponse:
        return web.json_response({"code": 0, "data": []})

    async with server(empty) as seen, drive(seen.url) as client:
        listing = await client.list_devices("user_2")

    ((method, path, headers, body),) = seen.requests
    assert (method, path, body) == ("GET", PATH, b"")
    assert headers["X-User-Id"] == "user_2"
    assert headers["Authorization"] == "Bearer secret-token"
    assert headers["X-Traceid"] == listing.attempt.trace_id
    assert "Content-Type" not in headers


async def test_every_attempt_has_a_trace_id_of_its_own():
    """The same device sent again is another attempt with another trace id."""
    async with server(accept) as seen, drive(seen.url) as client:
        attempts = [await client.bind(DEVICE) for _ in range(5)]

    sent = [headers["X-Traceid"] for _, _, headers, _ in seen.requests]
    assert sent == [attempt.trace_id for attempt in attempts]
    assert len(set(sent)) == 5


@BOTH_PATHS
async def test_the_path_is_a_setting():
    """`ose` is a service name, and the path goes out as it was set."""
    async with server(accept) as seen, drive(seen.url, path="/koodrive/x%2Fy/device") as client:
        await client.bind(DEVICE)

    assert seen.requests[0][1] == "/koodrive/x%2Fy/device"


async def test_the_codes_of_the_settings_reach_the_verdict():
    """A second bind that is an error counts as already bound once its code is set."""
    options = SandboxOptions(second_bind="error")

    async with (
        Sandbox(options) as sandbox,
        drive(sandbox.url) as plain,
        drive(sandbox.url, already_bound_codes=("13000901",)) as told,
    ):
        await plain.bind(DEVICE)
        unknown, known = await plain.bind(DEVICE), await told.bind(DEVICE)

    assert unknown.verdict == Refused()
    assert known.verdict == AlreadyBound()
    assert known.code == "13000901"


# --- faults ---------------------------------------------------------------------------------------


@BOTH_PATHS
@pytest.mark.parametrize(
    ("fault", "verdict", "code", "status", "bound"),
    [
        pytest.param(Fault.NONE, Accepted, "0", 200, True, id="none -> accepted"),
        pytest.param(Fault.REFUSE, Unreachable, "connect", None, False, id="refused -> not sent"),
        pytest.param(Fault.RESET_BEFORE, NoAnswer, "reset", None, False, id="reset before"),
        pytest.param(Fault.RESET_AFTER, NoAnswer, "reset", None, True, id="reset after"),
        pytest.param(Fault.HALF_A_BODY, NoAnswer, "cut", None, True, id="half a body"),
        pytest.param(Fault.GARBAGE, NoAnswer, "garbage", None, True, id="garbage"),
        pytest.param(Fault.BLACK_HOLE, NoAnswer, "timeout", None, False, id="silence"),
        pytest.param(Fault.SLOW_DRIP, NoAnswer, "timeout", None, True, id="slow drip"),
        pytest.param(Fault.CLOSE, NoAnswer, "closed", None, True, id="closed unanswered"),
    ],
)
async def test_what_each_fault_becomes(fault, verdict, code, status, bound):
    """Only a connection that was never made is known as not sent; all else may be bound."""
    gate = OpenGate()

    async with (
        Sandbox() as sandbox,
        FaultProxy(sandbox.url, fault) as proxy,
        drive(proxy.url, gate, timeout="400ms") as client,
    ):
        attempt = await client.bind(DEVICE)
        sent = proxy.requests
        found = sandbox.bindings.find("user_1", "SN_1") is not None

    assert type(attempt.verdict) is verdict
    assert (attempt.code, attempt.http_status) == (code, status)
    assert attempt.message
    assert found is bound
    assert sent == (0 if fault is Fault.REFUSE else 1)  # never sent again by aiohttp itself
    assert gate.reports == [(1, attempt.verdict)]
    assert gate.taken_back == []


@BOTH_PATHS
@pytest.mark.parametrize("fault", [Fault.RESET_AFTER, Fault.HALF_A_BODY, Fault.BLACK_HOLE])
async def test_a_list_under_a_fault_gives_no_records(fault):
    """A list that did not come whole is None, never an empty one."""
    async with (
        Sandbox() as sandbox,
        FaultProxy(sandbox.url, fault) as proxy,
        drive(proxy.url, list_timeout="300ms") as client,
    ):
        listing = await client.list_devices("user_1")

    assert listing.records is None
    assert listing.attempt.verdict == NoAnswer()


@BOTH_PATHS
async def test_the_client_works_on_after_faults():
    """One broken exchange leaves nothing behind that breaks the next."""
    async with (
        Sandbox() as sandbox,
        FaultProxy(sandbox.url) as proxy,
        drive(proxy.url, concurrency=1, timeout="300ms") as client,
    ):
        verdicts = []
        for fault in (Fault.RESET_AFTER, Fault.BLACK_HOLE, Fault.GARBAGE, Fault.NONE):
            proxy.fault = fault
            verdicts.append((await client.bind(DEVICE)).verdict)

    assert verdicts[:-1] == [NoAnswer()] * 3
    assert isinstance(verdicts[-1], Accepted)


@BOTH_PATHS
async def test_the_sandboxs_own_resets_are_silence():
    """Reset-before and reset-after look alike to the client; only the server knows."""
    bound = []

    for name in ("reset-before", "reset-after"):
        options = SandboxOptions(faults=(parse_fault(f"{name}=1"),))
        async with Sandbox(options) as sandbox, drive(sandbox.url) as client:
            attempt = await client.bind(DEVICE)
            bound.append(len(sandbox.bindings))
        assert attempt.verdict == NoAnswer()

    assert bound == [0, 1]


@BOTH_PATHS
async def test_a_list_is_sent_once_whatever_comes_of_it():
    """A GET whose kept connection breaks would be repeated by aiohttp: unpaced, and uncounted."""
    options = SandboxOptions(faults=(parse_fault("reset-before=1,on=list"),))
    async with Sandbox(options) as sandbox, drive(sandbox.url) as client:
        await client.bind(DEVICE)  # leaves a connection that is used again
        listing = await client.list_devices(DEVICE.user_id)
        seen = sandbox.stats()["requests"]

    assert listing.attempt.verdict == NoAnswer()
    assert (seen, client.client.requests) == (2, 2)


@BOTH_PATHS
async def test_a_name_that_does_not_exist_is_unreachable():
    """DNS failure: nothing was sent."""
    async with drive("http://nowhere.invalid") as client:
        attempt = await client.bind(DEVICE)

    assert attempt.verdict == Unreachable()
    assert attempt.code == "dns"
    assert "nowhere.invalid" in attempt.message


@BOTH_PATHS
async def test_tls_to_a_plain_port_is_unreachable():
    """A failed handshake: nothing was sent."""
    async with Sandbox() as sandbox, drive(sandbox.url.replace("http:", "https:")) as client:
        attempt = await client.bind(DEVICE)

    assert attempt.verdict == Unreachable()
    assert attempt.code == "tls"


@BOTH_PATHS
async def test_time_out_is_ours():
    """The setting bounds the whole exchange, and the attempt says how long was waited."""
    async with (
        Sandbox() as sandbox,
        FaultProxy(sandbox.url, Fault.BLACK_HOLE) as proxy,
        drive(proxy.url, timeout="200ms") as client,
    ):
        attempt = await client.bind(DEVICE)

    assert attempt.message == "no answer within 0.2 s"
    assert 0.19 <= attempt.took_s < 2


# --- answers --------------------------------------------------------------------------------------


@BOTH_PATHS
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status):
    """A redirect would carry the token to somebody else: it is a refusal of the set-up."""

    async def elsewhere(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    async with server(elsewhere) as seen, drive(seen.url) as client:
        attempt = await client.bind(DEVICE)

    assert attempt.verdict == Refused(set_up=True, unsure=True)
    assert attempt.http_status == status
    assert [path for _, path, _, _ in seen.requests] == [PATH]


def endless(*, zipped: bool, status: int = 200):
    """Return a handler whose answer never ends, and what it counts: bytes before compression."""
    sent = {"bytes": 0}
    block = b" " * (1 << 20)

    async def handler(request: web.Request) -> web.StreamResponse:
        headers = {"Content-Encoding": "gzip"} if zipped else {}
        response = web.StreamResponse(status=status, headers=headers)
        await response.prepare(request)
        packer = zlib.compressobj(wbits=31)
        try:
            while sent["bytes"] < 1 << 30:
                await response.write(packer.compress(block) if zipped else block)
                sent["bytes"] += len(block)
                await SystemClock().sleep(0)
        except ConnectionError:
            pass
        return response

    return handler, sent


@BOTH_PATHS
@pytest.mark.parametrize("zipped", [False, True], ids=["big body", "gzip bomb"])
@pytest.mark.parametrize(
    ("status", "verdict"), [(200, NoAnswer()), (500, Transient()), (404, Refused(set_up=True))]
)
async def test_an_endless_answer_is_cut_at_the_cap(zipped, status, verdict):
    """No more than the cap is read, and what is longer proves nothing but its status."""
    handler, sent = endless(zipped=zipped, status=status)

    async with server(handler) as seen, drive(seen.url) as client:
        attempt = await client.bind(DEVICE)

    assert attempt.verdict == verdict
    assert attempt.http_status == status
    assert sent["bytes"] < 1 << 30
    if status == 200:
        assert "longer than the cap" in attempt.message


@BOTH_PATHS
@pytest.mark.parametrize(
    ("size", "verdict"),
    [
        pytest.param(ANSWER_CAP_BYTES, Accepted, id="as long as the cap"),
        pytest.param(ANSWER_CAP_BYTES + 1, NoAnswer, id="one byte longer"),
    ],
)
async def test_the_cap_counts_bytes_exactly(size, verdict):
    """An answer of the cap's length is read whole."""

    async def padded(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=json.dumps(success()).encode().ljust(size))

    async with server(padded) as seen, drive(seen.url) as client:
        attempt = await client.bind(DEVICE)

    assert type(attempt.verdict) is verdict


async def test_a_list_may_be_longer_than_an_answer():
    """10,000 devices, 2 MB: every record is there."""
    async with Sandbox() as sandbox, drive(sandbox.url) as client:
        for number in range(10_000):
            fields = {"machineCode": f"SN_{number}", "deviceName": "x" * 32, "deviceOS": "y" * 32}
            sandbox.bindings.bind("user_1", fields)
        sandbox.bindings.bind("user_2", {"machineCode": "SN_other"})

        listing = await client.list_devices("user_1")

        expected = {code: sandbox.bindings.find("user_1", code) for code in listing.records or {}}
    assert listing.records is not None
    assert len(listing.records) == 10_000
    assert all(
        record is not None and record["deviceId"] == listing.records[code].device_id
        for code, record in expected.items()
    )


async def test_a_list_longer_than_its_own_cap_shows_nothing():
    """A list that was cut proves no absence."""
    packer = zlib.compressobj(1, wbits=31)
    block = b" " * (1 << 20)
    count = (LIST_CAP_BYTES >> 20) + 1
    packed = b"".join(packer.compress(block) for _ in range(count)) + packer.flush()

    async def bomb(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=packed, headers={"Content-Encoding": "gzip"})

    async with server(bomb) as seen, drive(seen.url) as client:
        listing = await client.list_devices("user_1")

    assert listing.records is None
    assert listing.attempt.verdict == NoAnswer()
    assert "longer than the cap" in listing.attempt.message


async def test_a_user_without_devices_has_an_empty_list():
    """Empty is not None: absence is proven."""
    async with Sandbox() as sandbox, drive(sandbox.url) as client:
        listing = await client.list_devices("nobody")

    assert listing.records == {}
    assert isinstance(listing.attempt.verdict, Accepted)


@BOTH_PATHS
@pytest.mark.parametrize(
    ("headers", "body"),
    [
        pytest.param({"Content-Encoding": "gzip"}, b"this is no gzip", id="gzip that is none"),
        pytest.param(
            {"Content-Encoding": "gzip"},
            gzip.compress(json.dumps(success()).encode())[:-20],
            id="gzip cut off",
        ),
        pytest.param({"Content-Encoding": "br"}, b"\x00\x01", id="an encoding we cannot read"),
    ],
)
async def test_an_answer_that_cannot_be_unpacked_is_no_answer(headers, body):
    """The server may have bound the device: only its list can tell."""

    async def packed(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, headers=headers)

    async with server(packed) as seen, drive(seen.url) as client:
        attempt = await client.bind(DEVICE)

    assert attempt.verdict == NoAnswer()


@BOTH_PATHS
async def test_a_zipped_answer_is_read():
    """Compression is the server's choice."""

    async def packed(_request: web.Request) -> web.StreamResponse:
        body = gzip.compress(json.dumps(success()).encode())
        return web.Response(body=body, headers={"Content-Encoding": "gzip"})

    async with server(packed) as seen, drive(seen.url) as client:
        attempt = await client.bind(DEVICE)

    assert isinstance(attempt.verdict, Accepted)


async def test_the_sandboxs_limit_is_read_from_its_429():
    """Limit and window stand in the verdict, and the gate hears them."""
    gate = OpenGate()
    options = SandboxOptions(limits=(parse_limit("2/min"),))

    async with Sandbox(options) as sandbox, drive(sandbox.url, gate) as client:
        verdicts = [(await client.bind(Device("u", f"SN_{n}"))).verdict for n in range(3)]

    assert [type(verdict) for verdict in verdicts] == [Accepted, Accepted, Throttled]
    assert verdicts[-1] == Throttled(limit=2, window_s=60)
    assert gate.reports == list(enumerate(verdicts, start=1))


# --- the clock ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("off_s", "refused"),
    [
        pytest.param(-1200, True, id="20 min behind"),
        pytest.param(-60, False, id="1 min behind"),
        pytest.param(-1, False, id="1 s behind"),
        pytest.param(0, False, id="right"),
        pytest.param(60, True, id="1 min ahead"),
        pytest.param(1200, True, id="20 min ahead"),
        pytest.param(3 * DAY_S, True, id="3 days ahead"),
    ],
)
async def test_a_wrong_local_clock_costs_one_request_at_most(off_s, refused):
    """The first answer tells the server's clock; X-Date is within its window from then on."""
    async with Sandbox() as sandbox, drive(sandbox.url, clock=SkewedClock(off_s)) as client:
        first = await client.bind(Device("u", "SN_first"))
        later = [await client.bind(Device("u", f"SN_{n}")) for n in range(20)]
        now = SystemClock().utc_now().timestamp()

    assert isinstance(first.verdict, ClockRefused if refused else Accepted)
    assert [attempt.verdict for attempt in later if not isinstance(attempt.verdict, Accepted)] == []
    assert all(now - 5 <= attempt.sent_at <= now for attempt in [first, *later])


@pytest.mark.parametrize("off_s", [-1200, -1, 1, 1200, 3 * DAY_S])
async def test_x_date_is_never_in_the_servers_future_once_it_answered(off_s):
    """What goes over the wire lies 1 to some 4 s behind the server's clock."""
    ages = []

    async def measure(request: web.Request) -> web.StreamResponse:
        text = request.headers["X-Date"]
        signed = datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        ages.append((SystemClock().utc_now() - signed).total_seconds())
        return await accept(request)

    async with server(measure) as seen, drive(seen.url, clock=SkewedClock(off_s)) as client:
        for _ in range(20):
            await client.bind(DEVICE)

    assert all(1 <= age < 4 for age in ages[1:])


async def test_a_remembered_skew_saves_the_refusal():
    """The skew of an earlier run makes the first request right."""
    clock = SkewedClock(1200)

    async with Sandbox() as sandbox, drive(sandbox.url, clock=clock, skew_s=-1201) as client:
        known = client.server_time()
        attempt = await client.bind(DEVICE)

    assert known is not None
    assert isinstance(attempt.verdict, Accepted)


async def test_nothing_is_known_of_the_clock_before_an_answer():
    """Silence teaches nothing."""
    async with (
        Sandbox() as sandbox,
        FaultProxy(sandbox.url, Fault.CLOSE) as proxy,
        drive(proxy.url) as client,
    ):
        before = client.server_time()
        await client.bind(DEVICE)
        after = client.server_time()

    assert (before, after) == (None, None)


# --- how many at once, and the gate ---------------------------------------------------------------


@BOTH_PATHS
async def test_never_more_than_concurrency_at_once():
    """Sixty binds and lists through five slots: five are in flight, never six."""
    flying = {"now": 0, "most": 0}

    async def crowded(request: web.Request) -> web.StreamResponse:
        flying["now"] += 1
        flying["most"] = max(flying["most"], flying["now"])
        await SystemClock().sleep(0.01)
        flying["now"] -= 1
        if request.method == "GET":
            return web.json_response({"code": 0, "data": []})
        return await accept(request)

    async with server(crowded) as seen, drive(seen.url, concurrency=5) as client:
        binds = [client.bind(DEVICE) for _ in range(50)]
        lists = [client.list_devices("user_1") for _ in range(10)]
        await asyncio.gather(*binds, *lists)

    assert len(seen.requests) == 60
    assert flying["most"] == 5


@BOTH_PATHS
async def test_permits_come_back_after_faults():
    """Every fault is reported to the gate, none keeps its permit: the last of many still goes."""
    gate = OpenGate()
    async with (
        Sandbox() as sandbox,
        FaultProxy(sandbox.url, Fault.RESET_AFTER) as proxy,
        drive(proxy.url, gate) as client,
    ):
        await asyncio.gather(*(client.bind(DEVICE) for _ in range(10)))
        proxy.fault = Fault.NONE
        attempt = await client.bind(DEVICE)

    assert isinstance(attempt.verdict, Accepted)
    assert sorted(permit for permit, _ in gate.reports) == list(range(1, 12))


async def test_nothing_is_sent_without_a_permit():
    """What the gate raises comes out, and no request leaves."""
    async with server(accept) as seen, drive(seen.url, DrainedGate()) as client:
        with pytest.raises(InterruptedError):
            await client.bind(DEVICE)

        assert client.client.requests == 0
    assert seen.requests == []


@BOTH_PATHS
async def test_a_cancelled_request_is_forgotten_not_reported():
    """The gate learns that its permit came to nothing."""
    gate = OpenGate()

    async with (
        Sandbox() as sandbox,
        FaultProxy(sandbox.url, Fault.BLACK_HOLE) as proxy,
        drive(proxy.url, gate) as client,
    ):
        task = asyncio.create_task(client.bind(DEVICE), name="to be cancelled")
        while proxy.requests == 0:
            await SystemClock().sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        proxy.fault = Fault.NONE
        again = await client.bind(DEVICE)

    assert gate.taken_back == [1]
    assert gate.reports == [(2, again.verdict)]
    assert isinstance(again.verdict, Accepted)


class SlowReader(KooDrive):
    """Takes for ever to read an answer that has come."""

    async def bind(self, device, credential, timeout_s=None):
        attempt = await super().bind(device, credential, timeout_s)
        self.reading = asyncio.Event()
        await self.reading.wait()
        return attempt


async def test_a_request_cancelled_while_its_answer_is_read_is_forgotten_too():
    """Every permit ends in a report or is forgotten, also where a big list is being parsed."""
    gate = OpenGate()

    async with server(accept) as seen:
        slow = SlowReader(ApiSettings(), seen.url, SystemClock())
        async with Paced(slow, given("x"), gate) as client:
            task = asyncio.create_task(client.bind(DEVICE), name="to be cancelled")
            while not hasattr(slow, "reading"):
                await SystemClock().sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    assert gate.taken_back == [1]


# --- decisions, with canned answers ---------------------------------------------------------------

ENDPOINT = "https://intl.example.invalid"


@pytest.mark.usefixtures("plain_path")  # aioresponses stands in for it
@pytest.mark.parametrize(
    ("canned", "verdict", "code"),
    [
        pytest.param(
            {"status": 429, "headers": {"Retry-After": "7"}},
            Throttled(retry_after_s=7),
            "",
            id="429 with Retry-After",
        ),
        pytest.param(
            {
                "status": 429,
                "headers": {
                    "X-Retry-After": "1795435290",
                    "Date": "Mon, 23 Nov 2026 12:00:00 GMT",
                },
            },
            Throttled(retry_after_s=90),
            "",
            id="429 with X-Retry-After, a moment",
        ),
        pytest.param(
            {
                "status": 429,
                "headers": {
                    "Retry-After": "soon",
                    "X-Retry-After": "1795435290000",
                    "Date": "Mon, 23 Nov 2026 12:00:00 GMT",
                },
            },
            Throttled(retry_after_s=90),
            "",
            id="429 with a Retry-After that says nothing",
        ),
        pytest.param(
            {"status": 401, "payload": {"error_code": "APIG.0307", "error_msg": "renew"}},
            AuthExpired(advice=GIVEN_TOKEN.advice),
            "APIG.0307",
            id="401",
        ),
        pytest.param(
            {"status": 401, "headers": {"Date": "Mon, 23 Nov 2099 12:00:00 GMT"}},
            ClockRefused(),
            "",
            id="401 far from our clock",
        ),
        pytest.param(
            {"status": 503, "headers": {"Retry-After": "3"}, "body": "<h1>Busy</h1>"},
            Transient(retry_after_s=3),
            "",
            id="503 with Retry-After",
        ),
        pytest.param({"status": 502, "body": "<h1>Bad</h1>"}, NoAnswer(), "", id="502"),
        pytest.param(
            {"payload": {"code": 13000301}}, Refused(is_about_user=True), "13000301", id="user code"
        ),
        pytest.param({"payload": {"code": 13000304}}, Refused(), "13000304", id="business code"),
        pytest.param({"exception": TimeoutError()}, NoAnswer(), "timeout", id="TimeoutError"),
        pytest.param(
            {"exception": aiohttp.ServerDisconnectedError()}, NoAnswer(), "closed", id="closed"
        ),
        pytest.param(
            {"exception": aiohttp.ClientPayloadError("half")}, NoAnswer(), "cut", id="cut"
        ),
        pytest.param(
            {"exception": aiohttp.ClientOSError(104, "reset")}, NoAnswer(), "reset", id="reset"
        ),
        pytest.param(
            {"exception": ConnectionResetError()}, NoAnswer(), "reset", id="a bare OSError"
        ),
        pytest.param(
            {"exception": aiohttp.ConnectionTimeoutError()},
            Unreachable(),
            "connect",
            id="no connection in time",
        ),
        pytest.param(
            {"exception": aiohttp.SocketTimeoutError()}, NoAnswer(), "timeout", id="socket timeout"
        ),
        pytest.param(
            {"exception": aiohttp.ClientConnectionError("odd")}, NoAnswer(), "garbage", id="other"
        ),
    ],
)
async def test_what_the_client_makes_of_an_answer(canned, verdict, code):
    """Status, headers and body of an answer, or what aiohttp raises, reach the verdict."""
    gate = OpenGate()

    with aioresponses() as answers:
        answers.post(ENDPOINT + PATH, **canned)
        async with drive(ENDPOINT, gate) as client:
            attempt = await client.bind(DEVICE)

    assert (attempt.verdict, attempt.code) == (verdict, code)
    assert len(attempt.message) <= 300
    assert [(permit, type(heard)) for permit, heard in gate.reports] == [(1, type(verdict))]


@pytest.mark.usefixtures("plain_path")  # aioresponses stands in for it
async def test_what_is_no_answer_of_the_network_comes_out():
    """A programmer's error is not taken for weather; the permit is given back."""
    gate = OpenGate()

    with aioresponses() as answers:
        answers.post(ENDPOINT + PATH, exception=ZeroDivisionError())
        async with drive(ENDPOINT, gate) as client:
            with pytest.raises(ZeroDivisionError):
                await client.bind(DEVICE)

    assert gate.taken_back == [1]
    assert gate.reports == []


@BOTH_PATHS
@pytest.mark.parametrize("form", ["x-ratelimit", "draft-11", "draft-07", "draft-03"])
async def test_limits_in_headers_reach_the_gate(form):
    """Whatever form the server uses, the gate hears limit and window with the first answer."""
    gate = OpenGate()
    options = SandboxOptions(limits=(parse_limit(f"60/s,tell={form}"),))
    async with Sandbox(options) as sandbox, drive(sandbox.url, gate) as client:
        await client.bind(DEVICE)

    [told] = gate.limits
    assert told.limit == 60
    assert told.window_s == 1 or told.reset_s == 1


# --- credentials and TLS --------------------------------------------------------------------------


@BOTH_PATHS
async def test_a_certificate_for_another_host_is_refused():
    """The verdict is that nothing was sent; the message names host and problem."""
    async with Sandbox(SandboxOptions(tls=True), host="127.0.0.2") as sandbox:
        async with drive(sandbox.url, ca_file=sandbox.ca_file) as client:
            wrong_host = await client.bind(DEVICE)
        async with drive(sandbox.url) as client:
            unknown = await client.bind(DEVICE)
        assert sandbox.counts["requests"] == 0

    host = sandbox.url.removeprefix("https://")
    for attempt, why in ((wrong_host, "IP address mismatch"), (unknown, "issuer certificate")):
        assert (attempt.verdict, attempt.code) == (Unreachable(), "tls")
        assert attempt.message.startswith(f"the certificate of {host} is not accepted: ")
        assert why in attempt.message


@pytest.mark.parametrize("filler", ["", "x" * 290])
async def test_a_token_in_the_servers_words_is_hidden(filler):
    """A gateway that repeats what it refused, whole or cut off, puts it into no report."""
    token = "sesame-open-up-0451"

    async def repeat(request: web.Request) -> web.Response:
        words = f"{filler} token {request.headers['Authorization']} is bad"
        return web.json_response({"error_code": "APIG.0301", "error_msg": words}, status=401)

    async with server(repeat) as seen, drive(seen.url, auth=given(f"AT {token}")) as client:
        attempt = await client.bind(DEVICE)
        listing = await client.list_devices("user_1")

    assert seen.requests[0][2]["Authorization"] == f"AT {token}"
    assert len(seen.requests) == 1  # the token is known dead
    for message in (attempt.message, listing.attempt.message):
        assert token[:8] not in message


@BOTH_PATHS
async def test_a_signed_request_names_its_host_once():
    """What is signed is what is sent: one Host header, with the port, and the body's own bytes."""
    auth = Renewing(GIVEN_APP, SystemClock(), App("app1", "s3cret"))
    async with server(accept) as seen, drive(seen.url, auth=auth) as client:
        await client.bind(DEVICE)
        await client.list_devices("user_1")

    for method, path, headers, body in seen.requests:
        assert headers["Host"] == seen.url.removeprefix("http://")
        assert [name.lower() for name in headers].count("host") == 1
        came = {name.lower(): value for name, value in headers.items()}
        came["Authorization"] = headers["Authorization"]
        assert check_signature(method, path, came, body, {"app1": "s3cret"}) is None


@BOTH_PATHS
@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_session_call_follows_no_redirect(tmp_path, status):
    """Refresh token and token go to the endpoint alone."""
    async with server(accept) as elsewhere:

        async def away(_request: web.Request) -> web.Response:
            return web.Response(status=status, headers={"Location": elsewhere.url})

        settings = AuthSettings(refresh_token=SecretStr("refresh-1"), token_prefix="AT ")
        clock = SystemClock()
        auth = authorizer(settings, tmp_path / "ledger.db", clock, {})
        async with server(away) as seen, drive(seen.url, auth=auth) as client:
            attempt = await client.bind(DEVICE)

    assert elsewhere.requests == []
    assert [path for _, path, _, _ in seen.requests] == ["/koodrive/ose/v1/auth/refreshToken"]
    assert isinstance(attempt.verdict, AuthExpired)
    assert not attempt.verdict.is_renewable


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (200, '{"code": 0, "data": {"sessionInfo": {"accessToken": "hush-hush-1"', Unreachable),
        (200, '{"code": 0, "data": {"accessToken": "hush-hush-1"}}', Unreachable),
        (503, "<html>hush</html>", Unreachable),
        (429, '{"error_code": "APIG.0308", "error_msg": "limit:5,time:1 minute"}', Throttled),
        (401, '{"error_code": "APIG.0301", "error_msg": "no: refresh-1"}', AuthExpired),
        (200, '{"code": 13000102, "msg": "no: refresh-1"}', AuthExpired),
        (404, "", AuthExpired),
    ],
)
async def test_what_a_session_call_may_answer(tmp_path, status, body, verdict):
    """No row is sent for it; what may pass is tried again, and no token is quoted."""

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(status=status, text=body)

    settings = AuthSettings(refresh_token=SecretStr("refresh-1"))
    auth = authorizer(settings, tmp_path / "ledger.db", SystemClock(), {})
    async with server(answer) as seen, drive(seen.url, auth=auth) as client:
        attempt = await client.bind(DEVICE)

    assert isinstance(attempt.verdict, verdict)
    assert (attempt.trace_id, attempt.http_status) == ("", None)
    assert len(seen.requests) == 1
    assert "hush-hush" not in attempt.message
    assert "refresh-1" not in attempt.message
