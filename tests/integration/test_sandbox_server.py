"""The sandbox's journal, stats, clock and end, over real sockets and as a process."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import signal
import socket
import time
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import aiohttp
import pytest

from bulkbind.clock import SystemClock
from tests.asker import BODY, PATH, TRACE_ID, HandClock, hanging, serving, stamp, until
from tests.kit import FakeClock, ask, bulkbind, process


def lines_of(path):
    """Return a journal's lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# --- journal -------------------------------------------------------------------------------------


async def test_the_journal_has_a_line_for_every_request(tmp_path):
    """Who asked for what, under which trace id, when, and how it ended; silence has no status."""
    journal = tmp_path / "journal.jsonl"

    async with serving(journal=journal) as asker:
        _, bound = await asker.bind()
        await asker.bind(X_Traceid="u" * 58)
        await asker.bind({"machineCode": "a-b"})
        await asker.list_devices()
        await asker.unbind(bound["data"]["deviceId"])
        await asker.unbind("7")
        await asker.ask("POST", "/elsewhere", BODY)
        await asker.stats()
    async with serving(journal=journal, faults=["reset-after=1"]) as asker:
        with pytest.raises(aiohttp.ClientConnectionError):
            await asker.bind()

    lines = lines_of(journal)
    assert [(line["method"], line["result"], line["status"]) for line in lines] == [
        ("POST", "bound", 200),
        ("POST", "posted_again", 200),
        ("POST", "refused", 400),
        ("GET", "listed", 200),
        ("DELETE", "unbound", 200),
        ("DELETE", "missing", 200),
        ("POST", "refused", 404),
        ("POST", "reset-after bound", None),
    ]
    assert [line["trace_id"] for line in lines[:2]] == [TRACE_ID, "u" * 58]
    assert {line["user_id"] for line in lines} == {"user_1"}
    assert {lines[0]["machine_code"], lines[4]["machine_code"]} == {"SN_1"}
    assert lines[0]["device_id"] == bound["data"]["deviceId"]
    assert all(datetime.fromisoformat(line["at"]).tzinfo for line in lines)
    assert all(0 <= line["took_s"] < 5 for line in lines)


async def test_the_journal_names_limits_and_faults(tmp_path):
    """Throttled requests have a line too, and a struck one names what struck and what was done."""
    journal = tmp_path / "journal.jsonl"
    faults = [f"{name}=1,count=1" for name in ("500", "business", "502-after", "empty", "redirect")]

    async with serving(journal=journal, faults=faults, limits=["6/day"]) as asker:
        await asker.statuses(7, "POST")
        await asker.reply("GET", "/sandbox/elsewhere")

    assert [(line["result"], line["status"]) for line in lines_of(journal)] == [
        ("500", 500),
        ("business", 200),
        ("502-after bound", 502),
        ("empty posted_again", 200),
        ("redirect", 302),
        ("posted_again", 200),
        ("throttled", 429),
        ("followed", 200),
    ]
    assert {line["machine_code"] for line in lines_of(journal)[:6]} == {"SN_1"}


async def test_the_journal_says_when_a_request_came_and_how_long_it_took(tmp_path):
    """A delay of 3 s and one after it of 2 s: `at` is when it came, by the sandbox's clock."""
    clock = FakeClock()
    journal = tmp_path / "journal.jsonl"
    faults = ["delay-before=1,for=3s", "delay-after=1,for=2s"]

    async with serving(clock, journal=journal, faults=faults, clock_offset_s=60.0) as asker:
        status, _ = await asker.bind(X_Date=stamp(clock.utc_now()))

    (line,) = lines_of(journal)
    assert (status, line["result"]) == (200, "delay-before delay-after bound")
    assert line["at"] == "2026-11-23T12:01:00.000Z"
    assert line["took_s"] == 5.0


async def test_the_journal_knows_who_hung_up(tmp_path):
    """Silence is written down when it ends, and so is a request that never came whole."""
    clock = HandClock()
    journal = tmp_path / "journal.jsonl"

    async with serving(clock, journal=journal, faults=["silence-after=1"]) as asker:
        async with hanging(asker):
            await until(lambda: asker.sandbox.counts["silence-after"])
            clock.advance(40)
        await until(lambda: len(lines_of(journal)) == 1)
        half = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf"
        _, writer = await asyncio.open_connection(*address(asker.sandbox.url))
        writer.write(half.encode())
        await until(lambda: asker.sandbox._under_way)
        writer.close()
        await until(lambda: len(lines_of(journal)) == 2)

    silent, cut = lines_of(journal)
    assert (silent["result"], silent["status"]) == ("silence-after bound", None)
    assert (silent["machine_code"], silent["took_s"]) == ("SN_1", 40.0)
    assert (cut["result"], cut["status"]) == ("hung up", None)


async def test_a_body_too_large_is_refused_and_written_down(tmp_path):
    """Over 1 MiB it is 413, as a line of the journal says as well."""
    journal = tmp_path / "journal.jsonl"

    async with serving(journal=journal) as asker:
        status = (await asker.reply("POST", PATH, io.BytesIO(b"x" * 2_000_000))).status

    (line,) = lines_of(journal)
    assert (status, line["status"], line["result"]) == (413, 413, "refused")


# --- stats ---------------------------------------------------------------------------------------


async def test_stats_count_what_was_seen():
    """One number for each kind of thing, and what is bound now."""
    clock = FakeClock()

    async with serving(clock) as asker:
        _, bound = await asker.bind({"machineCode": "SN_1"})
        await asker.bind({"machineCode": "SN_1"})
        await asker.bind({"machineCode": "SN_2"})
        await asker.bind({})
        await asker.list_devices()
        await asker.unbind(bound["data"]["deviceId"])
        clock.advance(2.5)
        stats = await asker.stats()

    assert stats == {
        "bindings": 1,
        "binds": 3,
        "bound": 2,
        "posted_again": 1,
        "refused": 1,
        "lists": 1,
        "unbinds": 1,
        "requests": 6,
        "in_flight_most": 1,
        "uptime_s": 2.5,
    }


async def test_stats_know_how_many_were_under_way_at_once():
    """Three that hang together are three, also once they have ended; later ones add nothing."""
    async with serving(faults=["silence-before=1,count=3"]) as asker:
        async with hanging(asker), hanging(asker), hanging(asker):
            await until(lambda: asker.sandbox.counts["silence-before"] == 3)
        await until(lambda: not asker.sandbox._under_way)
        await asker.statuses(2)
        stats = await asker.stats()

    assert (stats["in_flight_most"], stats["requests"]) == (3, 5)


# --- clock ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset_s", [-1200.0, -60.0, 0.0, 90.0, 86_400.0])
async def test_the_whole_clock_is_off(offset_s):
    """Date, createTime and the check of X-Date go by the same wrong clock."""
    clock = FakeClock()
    off = clock.utc_now() + timedelta(seconds=offset_s)

    async with serving(clock, clock_offset_s=offset_s) as asker:
        reply = await asker.reply("POST", PATH, BODY, X_Date=stamp(off, 0))
        early, old = [
            await asker.reply("POST", PATH, BODY, X_Date=stamp(off, age_s)) for age_s in (-1, 901)
        ]

    assert (reply.status, early.status, old.status) == (200, 401, 401)
    assert datetime.fromisoformat(reply.json["data"]["createTime"]) == off
    assert parsedate_to_datetime(reply.headers["Date"]) == off


async def test_every_answer_carries_the_sandboxs_date():
    """Successes, refusals, 429s, faults, its own pages and what does not exist."""
    clock = FakeClock()
    off = clock.utc_now() + timedelta(hours=5)
    date = {"X_Date": stamp(off)}
    faults = ["500=1,count=1", "503=1,count=1", "drip=1,count=1", "bomb=1,count=1"]

    async with serving(
        clock, limits=["5/day,on=bind"], faults=faults, clock_offset_s=18_000.0
    ) as asker:
        replies = [await asker.reply("POST", PATH, BODY, **date) for _ in range(6)]
        replies += [
            await asker.reply("GET", PATH),
            await asker.reply("GET", "/sandbox/stats"),
            await asker.reply("GET", "/sandbox/bindings"),
            await asker.reply("GET", "/nowhere"),
        ]
        end = clock.utc_now() + timedelta(hours=5)

    dates = [parsedate_to_datetime(reply.headers["Date"]) for reply in replies]
    assert [reply.status for reply in replies] == [
        500, 503, 200, 200, 200, 429, 401, 200, 200, 404
    ]  # fmt: skip
    assert all(off <= date <= end for date in dates)
    assert all(len(reply.headers.getall("Date")) == 1 for reply in replies)


async def test_retry_dates_go_by_the_sandboxs_clock():
    """A 503 names a date that is two seconds ahead of the wrong clock."""
    clock = FakeClock()
    off = clock.utc_now() - timedelta(hours=3)

    async with serving(clock, faults=["503=1"], clock_offset_s=-10_800.0) as asker:
        reply = await asker.reply("POST", PATH, BODY, X_Date=stamp(off))

    assert parsedate_to_datetime(reply.headers["Retry-After"]) == off + timedelta(seconds=2)


# --- the end -------------------------------------------------------------------------------------

HANGING = ("silence-before", "silence-after", "drip", "delay-before", "delay-after", "huge")


@pytest.mark.parametrize("fault", HANGING)
async def test_it_ends_at_once_whatever_hangs(tmp_path, caplog, fault):
    """Each request is cut off and written down, nothing is left running, nobody complains."""
    clock = SystemClock()
    journal = tmp_path / "journal.jsonl"
    before = asyncio.all_tasks()

    async with (
        serving(HandClock(), faults=[f"{fault}=1"], journal=journal) as asker,
        Unread(asker),
    ):
        await until(lambda: asker.sandbox.counts[fault])
        await clock.sleep(0.02)
        under_way = len(asker.sandbox._under_way)
        began = clock.monotonic()
        await asker.sandbox.__aexit__()
        took_s = clock.monotonic() - began
        left = asyncio.all_tasks() - before

    (line,) = lines_of(journal)
    assert under_way == 1
    assert took_s < 1
    assert line["result"].startswith(fault)
    assert left == set()
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


class Unread:
    """A bind whose answer nobody reads."""

    def __init__(self, asker) -> None:
        self._asker = asker
        self._socket = socket.create_connection(address(asker.sandbox.url))

    async def __aenter__(self) -> None:
        body = json.dumps(BODY)
        head = {**self._asker.headers(), "Host": "x", "Content-Length": str(len(body))}
        lines = [f"POST {PATH} HTTP/1.1", *(f"{name}: {text}" for name, text in head.items())]
        self._socket.sendall(("\r\n".join([*lines, "", ""]) + body).encode())

    async def __aexit__(self, *_: object) -> None:
        self._socket.close()


async def test_a_delayed_work_is_not_done_after_the_end(tmp_path):
    """Nobody is served by a sandbox that is gone, even if its client was gone before."""
    clock = HandClock()
    journal = tmp_path / "journal.jsonl"

    async with serving(clock, faults=["delay-before=1,for=9s"], journal=journal) as asker:
        async with hanging(asker):
            await until(lambda: clock.sleeps_s)
        sandbox = asker.sandbox
    clock.advance(10)

    assert len(sandbox.bindings) == 0
    assert [line["result"] for line in lines_of(journal)] == ["delay-before"]


def address(url: str) -> tuple[str, int]:
    """Return host and port of a URL."""
    host, port = url.removeprefix("http://").split(":")
    return host, int(port)


# --- the command ---------------------------------------------------------------------------------

HEAD = "Host: x\r\nAuthorization: Bearer any\r\nX-User-Id: u\r\nContent-Type: application/json\r\n"
BODY_TEXT = json.dumps(BODY)


def send(url: str, request_line: str) -> socket.socket:
    """Send a request and return the connection, whose answer nobody reads."""
    connection = socket.create_connection(address(url), timeout=10)
    date = stamp(datetime.now(UTC))  # noqa: TID251  # the process has the real clock
    head = f"{request_line} HTTP/1.1\r\n{HEAD}X-Date: {date}\r\n"
    connection.sendall(f"{head}Content-Length: {len(BODY_TEXT)}\r\n\r\n{BODY_TEXT}".encode())
    return connection


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_while_requests_hang(tmp_path, number):
    """Silence, drip and delay are cut off: exit 0 within a second, and no word but our own."""
    journal = tmp_path / "journal.jsonl"
    arguments = (
        "--port", "0", "--journal", str(journal), "--verbose", "--seed", "1",
        "--fault", "silence-after=1", "--fault", "drip=1,on=list,for=1h",
        "--fault", "delay-before=1,on=unbind,for=1h",
    )  # fmt: skip
    with ExitStack() as stack:
        started = stack.enter_context(process("sandbox", *arguments, home=tmp_path))
        url = started.stdout.readline().split()[1]
        for line in (f"POST {PATH}", f"GET {PATH}", f"DELETE {PATH}/1"):
            stack.enter_context(send(url, line))
        end = time.monotonic() + 10
        while not {"silence-after", "drip", "delay-before"} <= set(ask(f"{url}/sandbox/stats")):
            assert time.monotonic() < end, "they never came to hang"
        began = time.monotonic()
        started.send_signal(number)
        code = started.wait(10)
        took_s = time.monotonic() - began
        _, errors = started.communicate()

    assert code == 0
    assert took_s < 2  # of which the interpreter's own end is a part
    assert {line["result"] for line in lines_of(journal)} == {
        "silence-after bound", "drip listed", "delay-before"
    }  # fmt: skip
    assert len(lines_of(journal)) == 3
    first, second = errors.splitlines()
    assert first == f"{number.name}: stopping"
    assert second.startswith("1 bindings; {'requests': 3, ")


def test_the_command_takes_limits_faults_and_a_wrong_clock(tmp_path):
    """Options reach the sandbox, each as often as it is given; the clock may go behind."""
    arguments = (
        "--port", "0", "--limit", "2/day,on=bind,tell=x-ratelimit", "--limit", "1/day,on=list",
        "--fault", "500=1,count=1", "--fault", "502=1,count=1", "--clock-offset", "-1h",
    )  # fmt: skip
    heads = []
    with process("sandbox", *arguments, home=tmp_path) as started:
        url = started.stdout.readline().split()[1]
        for line in (f"POST {PATH}", f"GET {PATH}", f"GET {PATH}"):
            with send(url, line) as connection:
                heads.append(connection.recv(65_536).decode())
        stats = ask(f"{url}/sandbox/stats")
        started.send_signal(signal.SIGTERM)

    dates = [
        parsedate_to_datetime(line[6:])
        for head in heads
        for line in head.splitlines()
        if line.startswith("Date: ")
    ]
    behind = [datetime.now(UTC) - date for date in dates]  # noqa: TID251  # the process has the real clock
    # An X-Date by the right clock is in the future for the sandbox.
    assert [head.split()[1] for head in heads] == ["401", "401", "429"]
    assert "X-RateLimit-Remaining: 1\r\n" in heads[0]
    assert len(dates) == 3
    assert all(
        timedelta(minutes=59) < time_behind < timedelta(minutes=61) for time_behind in behind
    )
    assert (stats["refused"], stats["throttled"]) == (2, 1)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--limit", "slding:60/s"), "did you mean `sliding`"),
        (("--limit", "60/week"), "'60/week' is no limit: write 60/s"),
        (("--fault", "rest-after=1"), "did you mean `reset-after`"),
        (("--fault", "500"), "500=0.05"),
        (("--clock-offset", "soon"), "--clock-offset: 'soon' is no time"),
        (("--journal", "no/such/file"), "journal no/such/file cannot be opened"),
    ],
)
def test_a_wrong_option_ends_the_command_with_2(tmp_path, arguments, told):
    """The error names what was given and what is allowed."""
    done = bulkbind("sandbox", "--port", "0", *arguments, home=tmp_path, check=2)

    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_limits_and_faults_may_come_from_the_environment(tmp_path):
    """Several are divided by blanks."""
    given = {"BULKBIND_LIMIT": "9/day 1/day,on=list", "BULKBIND_FAULT": "500=1 502=1"}
    with process("sandbox", "--port", "0", home=tmp_path, **given) as started:
        url = started.stdout.readline().split()[1]
        for line in (f"POST {PATH}", f"GET {PATH}", f"GET {PATH}"):
            with send(url, line) as connection, suppress(OSError):
                connection.recv(65_536)
        stats = ask(f"{url}/sandbox/stats")
        started.send_signal(signal.SIGTERM)

    assert (stats["500"], stats["lists"], stats["throttled"]) == (1, 1, 1)
