"""The sandbox's faults over a real socket: what is done, what is answered, and when they strike."""

from __future__ import annotations

import asyncio
import gzip
import json
from datetime import timedelta
from email.utils import parsedate_to_datetime

import aiohttp
import pytest

from bulkbind.clock import epoch_of
from bulkbind.sandbox.faults import KINDS
from tests.support.fake_clock import FakeClock, HandClock
from tests.support.sandbox_client import BODY, PATH, hanging, serving, until

HUGE_BYTES = 100_000_000


async def bound_by(fault: str, **options):
    """Return what a bind under a fault is answered, how many bindings there are, and the counts."""
    async with serving(FakeClock(), faults=[fault], **options) as asker:
        reply = await asker.reply("POST", PATH, BODY)
        counts = await asker.counts()
    return reply, counts.pop("bindings"), counts


# --- whole answers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "status", "content_type", "code", "bindings"),
    [
        ("500", 500, "application/json", 13000001, 0),
        ("500-after", 500, "application/json", 13000001, 1),
        ("502", 502, "text/html", None, 0),
        ("502-after", 502, "text/html", None, 1),
        ("503", 503, "application/json", 13000001, 0),
        ("business", 200, "application/json", 13000301, 0),
        ("wrong-type", 200, "text/html", 0, 1),
        ("wrong-date", 200, "application/json", 0, 1),
        ("delay-before", 200, "application/json", 0, 1),
        ("delay-after", 200, "application/json", 0, 1),
        ("drip", 200, "application/json", 0, 1),
        ("other-code", 200, "application/json", 0, 1),
    ],
)
async def test_faults_that_answer(fault, status, content_type, code, bindings):
    """Status, type and code are the fault's, the work is done or not, and it is counted once."""
    reply, found, counts = await bound_by(f"{fault}=1")

    assert (reply.status, found, counts[fault]) == (status, bindings, 1)
    assert reply.headers["Content-Type"].split(";")[0] == content_type
    if code is not None:
        assert reply.json["code"] == code
    if content_type == "text/html" and code is None:
        assert reply.body.startswith(b"<html>")


@pytest.mark.parametrize(
    ("code", "expected"), [("13000999", 13000999), ("OSE.0007", "OSE.0007"), ("0012", 12)]
)
async def test_the_business_code_can_be_ordered(code, expected):
    """Digits are a number, as the API writes them; anything else is text."""
    reply, bindings, _ = await bound_by(f"business=1,code={code}")

    assert reply.json["code"] == expected
    assert bindings == 0


@pytest.mark.parametrize(("key", "ahead_s"), [("", 2), (",for=90s", 90), (",for=1500ms", 2)])
async def test_503_names_a_date_to_come_again(key, ahead_s):
    """Retry-After is an HTTP date, so far ahead of the answer's own Date."""
    reply, *_ = await bound_by(f"503=1{key}")

    date, come_again = (
        parsedate_to_datetime(reply.headers[name]) for name in ("Date", "Retry-After")
    )
    assert come_again - date == timedelta(seconds=ahead_s)


@pytest.mark.parametrize(
    ("key", "off"), [("", timedelta(hours=1)), (",for=-1h", timedelta(hours=-1))]
)
async def test_a_wrong_date_stands_on_a_right_answer(key, off):
    """Date alone is off; createTime is the sandbox's own time, and the next answer is right."""
    clock = FakeClock()

    async with serving(clock, faults=[f"wrong-date=1,count=1{key}"]) as asker:
        wrong = await asker.reply("POST", PATH, BODY)
        right = await asker.reply("GET")

    assert parsedate_to_datetime(wrong.headers["Date"]) == clock.utc_now() + off
    assert parsedate_to_datetime(right.headers["Date"]) == clock.utc_now()
    assert wrong.json["data"]["createTime"].startswith("2026-11-23T12:00:00")


@pytest.mark.parametrize("second_bind", ["same", "error"])
async def test_another_code_is_only_in_the_answer(second_bind):
    """The right device is bound; an answer without a record is left as it is."""
    async with serving(faults=["other-code=1"], second_bind=second_bind) as asker:
        first, second = [await asker.bind() for _ in range(2)]
        _, listing = await asker.list_devices()

    assert first[1]["data"]["machineCode"] not in {"SN_1", "", None}
    assert first[1]["data"]["deviceId"] == listing["data"][0]["deviceId"]
    assert listing["data"][0]["machineCode"] == "SN_1"
    assert second[1]["code"] == (0 if second_bind == "same" else 13000901)


async def test_empty_is_a_success_without_a_body():
    """200, no byte, and the device is bound."""
    reply, bindings, _ = await bound_by("empty=1")

    assert (reply.status, reply.body, reply.headers["Content-Length"]) == (200, b"", "0")
    assert bindings == 1


async def test_redirect_leads_elsewhere_and_sees_who_follows():
    """302 to a path of the same server, with nothing done; it counts who comes, and their token."""
    async with serving(faults=["redirect=1"]) as asker:
        reply = await asker.reply("POST", PATH, BODY)
        before = await asker.counts()
        await asker.reply("GET", reply.headers["Location"], Authorization=None)
        await asker.reply("POST", reply.headers["Location"], BODY)
        after = await asker.counts()

    assert (reply.status, reply.headers["Location"]) == (302, "/sandbox/elsewhere")
    assert before == {"bindings": 0, "redirect": 1}
    assert after == {**before, "followed": 2, "followed_with_authorization": 1}


# --- late answers, and none ----------------------------------------------------------------------


@pytest.mark.parametrize(("key", "for_s"), [("", 1.0), (",for=250ms", 0.25)])
@pytest.mark.parametrize(("fault", "done_meanwhile"), [("delay-before", 0), ("delay-after", 1)])
async def test_delays(fault, done_meanwhile, key, for_s):
    """The answer comes so much later; the work is done before or after the wait."""
    clock = HandClock()

    async with serving(clock, faults=[f"{fault}=1{key}"]) as asker, hanging(asker) as task:
        await until(lambda: clock.sleeps_s)
        slept_s = clock.sleeps_s
        meanwhile = len(asker.sandbox.bindings)
        clock.advance(for_s)
        reply = await task
        bound = len(asker.sandbox.bindings)

    assert slept_s == [for_s]
    assert (meanwhile, bound) == (done_meanwhile, 1)
    assert (reply.status, reply.json["code"]) == (200, 0)


async def test_a_late_server_does_the_work_though_nobody_waits():
    """The client has hung up long before; the device is bound all the same."""
    clock = HandClock()

    async with serving(clock, faults=["delay-before=1,for=30s"]) as asker:
        async with hanging(asker):
            await until(lambda: clock.sleeps_s)
        await until(lambda: not hung_on(asker))
        _, before = await asker.list_devices()
        clock.advance(30)
        await until(lambda: len(asker.sandbox.bindings))
        _, after = await asker.list_devices()

    assert before["data"] == []
    assert [record["machineCode"] for record in after["data"]] == ["SN_1"]


def hung_on(asker) -> int:
    """Return how many clients are still there."""
    connections = asker.sandbox._runner.server.connections
    return sum(connection.transport is not None for connection in connections)


@pytest.mark.parametrize(("fault", "bindings"), [("silence-before", 0), ("silence-after", 1)])
async def test_silence_lasts_until_the_client_hangs_up(fault, bindings):
    """No answer comes, however long one waits; then the server lets go as well."""
    clock = HandClock()

    async with serving(clock, faults=[f"{fault}=1"]) as asker:
        async with hanging(asker) as task:
            await until(lambda: asker.sandbox.counts[fault])
            clock.advance(100_000)
            _, pending = await asyncio.wait({task}, timeout=0.05)
            meanwhile = (len(asker.sandbox.bindings), len(asker.sandbox._in_flight))
        await until(lambda: not asker.sandbox._in_flight)

    assert pending == {task}
    assert meanwhile == (bindings, 1)


@pytest.mark.parametrize(("key", "every_s"), [("", 0.2), (",for=50ms", 0.05)])
async def test_drip_sends_one_byte_at_a_time(key, every_s):
    """Each byte waits for its moment; together they are the right answer, bound at once."""
    clock = HandClock()

    async with (
        serving(clock, faults=[f"drip=1{key}"]) as asker,
        asker.request("POST", PATH, BODY) as response,
    ):
        bound = len(asker.sandbox.bindings)
        length = response.content_length or 0
        found = []
        slept_s = []
        for _ in range(3):
            found.append(await response.content.readany())
            await until(lambda: clock.sleeps_s)
            slept_s += clock.sleeps_s
            clock.advance(every_s)
        rest = asyncio.ensure_future(response.read())
        while not rest.done():
            clock.advance(every_s)
            await asyncio.sleep(0)  # noqa: TID251  # yields to the loop, no time passes
        body = b"".join(found) + await rest

    assert [len(part) for part in found] == [1, 1, 1]
    assert slept_s == pytest.approx([every_s] * 3)
    assert len(body) == length > 100
    assert (bound, json.loads(body)["data"]["machineCode"]) == (1, "SN_1")


# --- broken answers ------------------------------------------------------------------------------


@pytest.mark.parametrize(("fault", "bindings"), [("reset-before", 0), ("reset-after", 1)])
async def test_resets(fault, bindings):
    """The connection is reset, as by RST, with the work done or not."""
    async with serving(faults=[f"{fault}=1"]) as asker:
        with pytest.raises(ConnectionResetError):
            await asker.raw_bind()
        with pytest.raises(aiohttp.ClientConnectionError):
            await asker.bind()
        counts = await asker.counts()

    assert (counts["bindings"], counts[fault]) == (bindings, 2)


async def test_truncated_sends_half_of_what_it_promises():
    """Content-Length is that of the whole; then the connection is closed, and the device bound."""
    async with serving(faults=["truncated=1"]) as asker:
        head, _, body = (await asker.raw_bind()).partition(b"\r\n\r\n")
        with pytest.raises(aiohttp.ClientPayloadError):
            await asker.bind()
        bindings = len(asker.sandbox.bindings)

    (length,) = [
        int(line.split(b": ")[1]) for line in head.split(b"\r\n") if b"Content-Length" in line
    ]
    assert head.startswith(b"HTTP/1.1 200 ")
    assert len(body) == length // 2 > 50
    assert bindings == 1


async def test_garbage_is_no_http():
    """Some bytes, then the end; the device is bound."""
    async with serving(faults=["garbage=1"]) as asker:
        answer = await asker.raw_bind()
        with pytest.raises(aiohttp.ClientResponseError):
            await asker.bind()
        bindings = len(asker.sandbox.bindings)

    assert answer
    assert not answer.startswith(b"HTTP/")
    assert bindings == 1


async def test_huge_is_streamed_whole_to_whoever_reads_it():
    """100 MB that begin like a success, and a device that is bound."""
    async with serving(faults=["huge=1"]) as asker:
        async with asker.request("POST", PATH, BODY) as response:
            beginning = await response.content.read(9)
            length = len(beginning)
            async for chunk in response.content.iter_any():
                length += len(chunk)
        bindings = len(asker.sandbox.bindings)

    assert (response.status, beginning) == (200, b'{"code": ')
    assert length >= HUGE_BYTES
    assert bindings == 1


async def test_huge_stops_when_the_client_closes(caplog):
    """The server lets go, without a word of complaint, and goes on serving."""
    async with serving(faults=["huge=1"]) as asker:
        async with asker.request("POST", PATH, BODY) as response:
            await response.content.readany()
            under_way = len(asker.sandbox._in_flight)
            response.close()
        await until(lambda: not asker.sandbox._in_flight)
        status, _ = await asker.list_devices()

    assert under_way == 1
    assert status == 200
    assert caplog.records == []


async def test_a_bomb_is_small_and_unpacks_to_much():
    """The bytes on the wire are few; unpacked, they are valid JSON of over 100 MB."""
    async with serving(faults=["bomb=1"]) as asker:
        reply = await raw_reply(asker)
        bindings = len(asker.sandbox.bindings)

    unpacked = gzip.decompress(reply)
    assert len(reply) < 1_000_000
    assert len(unpacked) >= HUGE_BYTES
    assert json.loads(unpacked)["code"] == 0
    assert bindings == 1


async def raw_reply(asker) -> bytes:
    """Return the body of a bind as it comes over the wire, where it says that it is gzip."""
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.post(
            asker.sandbox.url + PATH, data=json.dumps(BODY), headers=asker.headers()
        ) as response,
    ):
        assert response.headers["Content-Encoding"] == "gzip"
        return await response.read()


# --- when they strike ----------------------------------------------------------------------------


OF_LISTS = [name for name, kind in KINDS.items() if kind.is_for_lists]


@pytest.mark.parametrize("fault", [name for name in KINDS if name not in OF_LISTS])
async def test_without_on_a_fault_strikes_binds_only(fault):
    """A list always answers: doubt can be settled."""
    async with serving(faults=[f"{fault}=1"]) as asker:
        status, answer = await asker.list_devices()
        counts = await asker.counts()

    assert (status, answer["code"]) == (200, 0)
    assert fault not in counts


@pytest.mark.parametrize(
    ("on", "struck"),
    [
        ("bind", [500, 200, 200]),
        ("list", [200, 500, 200]),
        ("unbind", [200, 200, 500]),
        ("all", [500, 500, 500]),
    ],
)
async def test_faults_strike_the_calls_they_are_ordered_for(on, struck):
    """Bind, list, unbind or all of them; the others go through."""
    async with serving(faults=[f"500=1,on={on}"]) as asker:
        found = [
            (await asker.bind())[0],
            (await asker.list_devices())[0],
            (await asker.unbind("7"))[0],
        ]

    assert found == struck


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize(
    "fault",
    [name for name, kind in KINDS.items() if not kind.is_for_binds and not kind.is_for_lists],
)
async def test_every_fault_strikes_lists_and_unbinds_too(fault, method):
    """Whatever becomes of the answer, the server has met the fault and lives on."""
    async with serving(FakeClock(), faults=[f"{fault}=1,on=all"]) as asker:
        device_id = asker.sandbox.bindings.bind("user_1", BODY)["deviceId"]
        path = f"{PATH}/{device_id}" if method == "DELETE" else PATH
        async with hanging(asker, method, path) as task:
            await until(lambda: asker.sandbox.counts[fault])
            await asyncio.wait({task}, timeout=0 if fault.startswith("silence") else 2)
        await until(lambda: not asker.sandbox._in_flight)
        counts = await asker.counts()

    does_the_work = "done; " in KINDS[fault].help or fault.endswith("-after") or "delay" in fault
    calls = counts.get("lists", 0) + counts.get("unbinds", 0)
    assert counts[fault] >= 1  # aiohttp's client asks again by itself after a reset
    assert calls == counts[fault] * does_the_work
    assert counts["bindings"] == (0 if method == "DELETE" and does_the_work else 1)


async def test_a_fault_strikes_after_every_check():
    """What is throttled or wrong is answered as ever, and costs a counted fault nothing."""
    async with serving(limits=["3/day"], faults=["500=1,count=1"]) as asker:
        found = [
            (await asker.bind({}))[0],
            (await asker.bind(X_Traceid="short"))[0],
            *await asker.statuses(2, "POST"),
        ]

    assert found == [400, 400, 500, 429]


async def test_count_ends_a_fault():
    """It strikes so often and no more."""
    async with serving(faults=["500=1,count=2"]) as asker:
        found = await asker.statuses(4, "POST")

    assert found == [500, 500, 200, 200]


async def test_a_fault_has_its_time():
    """It strikes from one moment to another; the same name may come again."""
    clock = FakeClock()
    faults = ["500=1,from=10s,until=20s", "500=1,from=1m", "503=1,until=5s"]

    async with serving(clock, faults=faults) as asker:
        found = []
        for step_s in (0, 5, 4.9, 0.1, 9.9, 0.1, 39.9, 0.1):  # 0, 5, 9.9, 10, 19.9, 20, 59.9, 60
            clock.advance(step_s)
            found += await asker.statuses(1, "POST")
        counts = await asker.counts()

    assert found == [503, 200, 200, 500, 500, 200, 200, 500]
    assert (counts["500"], counts["503"]) == (3, 1)


async def test_the_first_that_strikes_decides():
    """In the order given; what did not come to strike is neither counted nor used up."""
    async with serving(faults=["502=1,count=1", "500=1,count=1", "empty=1,count=1"]) as asker:
        found = await asker.statuses(4, "POST")
        counts = await asker.counts()

    assert found == [502, 500, 200, 200]
    assert [counts[name] for name in ("502", "500", "empty", "posted_again")] == [1, 1, 1, 1]


async def test_delays_before_add_up_and_go_with_another_fault():
    """All of them are waited, then the other fault decides; each is counted."""
    clock = HandClock()
    faults = ["delay-before=1,for=2s", "500-after=1", "delay-before=1,for=3s", "502=1"]

    async with serving(clock, faults=faults) as asker, hanging(asker) as task:
        await until(lambda: clock.sleeps_s)
        slept_s, bound = clock.sleeps_s, len(asker.sandbox.bindings)
        clock.advance(5)
        reply = await task
        counts = await asker.counts()

    assert (slept_s, bound) == ([5.0], 0)
    assert reply.status == 500
    assert counts == {
        "bindings": 1, "binds": 1, "bound": 1, "delay-before": 2, "500-after": 1
    }  # fmt: skip


@pytest.mark.parametrize(("share", "least", "most"), [("0", 0, 0), ("0.3", 6, 32), ("1", 60, 60)])
async def test_probability_and_seed(share, least, most):
    """About as many as ordered are struck, and a seed strikes the same ones again."""
    runs = []

    for _ in range(2):
        async with serving(faults=[f"500={share}"], seed=7) as asker:
            runs.append(await asker.statuses(60, "POST"))

    assert runs[0] == runs[1]
    assert least <= runs[0].count(500) <= most


async def test_what_a_seed_does_depends_neither_on_time_nor_on_other_counts():
    """A second fault, out of its time or used up, leaves the first one's strikes where they are."""
    runs = []

    for other in ("502=1,from=1h", "502=0"):
        async with serving(faults=["500=0.4", other], seed=11) as asker:
            runs.append(await asker.statuses(40, "POST"))

    assert runs[0] == runs[1]
    assert 500 in runs[0]


# --- lists that say something else ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "shown"),
    [
        ("stale=1,for=3s", ["OLD"]),
        ("doubled=1", ["OLD", "NEW", "OLD", "NEW"]),
        ("other-case=1", ["old", "new"]),
        ("paged=1", ["OLD"]),
        ("foreign=1", ["THEIRS"]),
    ],
)
async def test_a_list_that_says_something_else(fault, shown):
    """A list of a moment ago, doubled, in another letter case, in part, or of other users."""
    clock = FakeClock()
    async with serving(clock, faults=[fault]) as asker:
        bindings = asker.sandbox.bindings
        gone = bindings.bind("user_1", {"machineCode": "GONE"})
        bindings.bind("user_1", {"machineCode": "OLD"})
        clock.advance(10)
        bindings.bind("user_1", {"machineCode": "NEW"})
        bindings.bind("user_2", {"machineCode": "THEIRS"})
        bindings.unbind("user_1", gone["deviceId"])
        if fault.startswith("stale"):
            shown = [*shown, "GONE"]
        _, answer = await asker.list_devices()

    assert [record["machineCode"] for record in answer["data"]] == shown


async def test_local_time_is_called_utc():
    """The time in answers and lists is hours ahead, and ends with Z."""
    async with serving(faults=["local-time=1,for=2h,on=all"]) as asker:
        _, bound = await asker.bind()
        held = asker.sandbox.bindings.of("user_1")[0]["createTime"]
        _, listed = await asker.list_devices()

    times = {bound["data"]["createTime"], listed["data"][0]["createTime"]}
    assert {(epoch_of(text) or 0) - (epoch_of(held) or 0) for text in times} == {7200.0}
    assert all(text.endswith("Z") for text in times)


@pytest.mark.parametrize("span", ["0s", "50ms"])
async def test_an_unasked_refusal_follows_the_answer(span):
    """The same connection says one thing more, at once or later."""
    async with serving(faults=[f"unasked=1,for={span}"]) as asker:
        body = json.dumps(BODY).encode()
        headers = {**asker.headers(), "Content-Length": len(body)}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        port = int(asker.sandbox.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"POST {PATH} HTTP/1.1\r\nHost: here\r\n{head}\r\n".encode() + body)
        said = await reader.readuntil(b"space missing")
        writer.close()

    assert said.count(b"HTTP/1.1 200 OK") == 2
    assert b'"success"' in said
