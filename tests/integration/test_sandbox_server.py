"""The sandbox's server over real sockets: start, own pages, clock and end."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import ssl
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from itertools import count

import aiohttp
import pytest

from bulkbind.clock import SystemClock
from bulkbind.errors import BulkbindError
from bulkbind.sandbox import Sandbox, SandboxOptions
from tests.support.fake_clock import FakeClock, HandClock
from tests.support.sandbox_client import (
    BODY,
    PATH,
    address,
    hanging,
    journal_lines,
    serving,
    stamp,
    until,
)

# --- start ---------------------------------------------------------------------------------------


async def test_a_taken_port_is_an_error_with_a_hint():
    """The error names the port, and says how to get a free one."""
    async with Sandbox() as first:
        port = int(first.url.rpartition(":")[2])

        with pytest.raises(BulkbindError, match=str(port)) as error:
            async with Sandbox(port=port):
                pass

    assert "--port 0" in error.value.hint


@pytest.mark.parametrize("what", ["journal", "state"])
async def test_a_file_that_cannot_be_opened_is_named(tmp_path, what):
    """The error says which file, and why."""
    with pytest.raises(BulkbindError, match=r"no/file cannot be opened: No such file"):
        Sandbox(SandboxOptions(**{what: tmp_path / "no/file"}))


@pytest.mark.slow
async def test_tls_is_served_with_a_throwaway_authority():
    """A client that trusts the authority gets through, one that does not is refused."""
    async with Sandbox(SandboxOptions(tls=True)) as sandbox, aiohttp.ClientSession() as session:
        trusting = ssl.create_default_context(cafile=sandbox.ca_file)
        async with session.get(f"{sandbox.url}/sandbox/stats", ssl=trusting) as answer:
            assert answer.status == 200
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.get(f"{sandbox.url}/sandbox/stats")
        folder = sandbox.ca_file.parent
        assert not (folder / "ca.key").exists()

    assert sandbox.url.startswith("https://127.0.0.1:")
    assert not folder.exists()


# --- stats and other pages -----------------------------------------------------------------------


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


async def test_stats_know_how_many_were_in_flight_at_once():
    """Three that hang together are three, also once they have ended; later ones add nothing."""
    async with serving(faults=["silence-before=1,count=3"]) as asker:
        async with hanging(asker), hanging(asker), hanging(asker):
            await until(lambda: asker.sandbox.counts["silence-before"] == 3)
        await until(lambda: not asker.sandbox._in_flight)
        await asker.statuses(2)
        stats = await asker.stats()

    assert (stats["in_flight_most"], stats["requests"]) == (3, 5)


async def test_bindings_can_be_dumped():
    """One JSON line for each binding, with its user."""
    async with serving() as asker, aiohttp.ClientSession() as session:
        _, one = await asker.bind(X_User_Id="user_1")
        _, two = await asker.bind(X_User_Id="user_2")
        async with session.get(f"{asker.sandbox.url}/sandbox/bindings") as response:
            lines = (await response.text()).splitlines()

    assert [json.loads(line) for line in lines] == [
        {"userId": "user_1", **one["data"]},
        {"userId": "user_2", **two["data"]},
    ]


async def test_bindings_can_be_dumped_while_others_are_made():
    """What was bound when the dump began is in it, whole."""
    async with serving() as asker, aiohttp.ClientSession() as session:
        for number in range(40_000):
            asker.sandbox.bindings.bind("user_1", {"machineCode": f"SN_{number}"})

        async def bind_more() -> None:
            for number in count():
                asker.sandbox.bindings.bind("user_1", {"machineCode": f"SN_more_{number}"})
                await SystemClock().sleep(0)

        more = asyncio.create_task(bind_more(), name="bind more")
        try:
            async with session.get(f"{asker.sandbox.url}/sandbox/bindings") as response:
                lines = (await response.text()).splitlines()
        finally:
            more.cancel()

    codes = {json.loads(line)["machineCode"] for line in lines}
    assert len(codes) == len(lines) >= 40_000


async def test_a_path_that_does_not_exist_is_refused_in_the_gateways_words():
    """404 with APIG.0101, for another path and for another method."""
    async with serving() as asker:
        path = await asker.ask("POST", PATH + "/x/y", BODY)
        method = await asker.ask("PUT", PATH, BODY)

    assert [status for status, _ in (path, method)] == [404, 404]
    assert {answer["error_code"] for _, answer in (path, method)} == {"APIG.0101"}


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
        in_flight = len(asker.sandbox._in_flight)
        began = clock.monotonic()
        await asker.sandbox.__aexit__()
        took_s = clock.monotonic() - began
        left = asyncio.all_tasks() - before

    (line,) = journal_lines(journal)
    assert in_flight == 1
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
    assert [line["result"] for line in journal_lines(journal)] == ["delay-before"]
