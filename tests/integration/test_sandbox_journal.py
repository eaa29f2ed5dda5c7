"""The sandbox's journal: a line for every request, whatever becomes of it."""

from __future__ import annotations

import asyncio
import io
from datetime import datetime

import aiohttp
import pytest

from tests.support.fake_clock import FakeClock, HandClock
from tests.support.sandbox_client import (
    BODY,
    PATH,
    TRACE_ID,
    address,
    hanging,
    journal_lines,
    serving,
    stamp,
    until,
)


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

    lines = journal_lines(journal)
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

    assert [(line["result"], line["status"]) for line in journal_lines(journal)] == [
        ("500", 500),
        ("business", 200),
        ("502-after bound", 502),
        ("empty posted_again", 200),
        ("redirect", 302),
        ("posted_again", 200),
        ("throttled", 429),
        ("followed", 200),
    ]
    assert {line["machine_code"] for line in journal_lines(journal)[:6]} == {"SN_1"}


async def test_the_journal_says_when_a_request_came_and_how_long_it_took(tmp_path):
    """A delay of 3 s and one after it of 2 s: `at` is when it came, by the sandbox's clock."""
    clock = FakeClock()
    journal = tmp_path / "journal.jsonl"
    faults = ["delay-before=1,for=3s", "delay-after=1,for=2s"]

    async with serving(clock, journal=journal, faults=faults, clock_offset_s=60.0) as asker:
        status, _ = await asker.bind(X_Date=stamp(clock.utc_now()))

    (line,) = journal_lines(journal)
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
        await until(lambda: len(journal_lines(journal)) == 1)
        half = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf"
        _, writer = await asyncio.open_connection(*address(asker.sandbox.url))
        writer.write(half.encode())
        await until(lambda: asker.sandbox._in_flight)
        writer.close()
        await until(lambda: len(journal_lines(journal)) == 2)

    silent, cut = journal_lines(journal)
    assert (silent["result"], silent["status"]) == ("silence-after bound", None)
    assert (silent["machine_code"], silent["took_s"]) == ("SN_1", 40.0)
    assert (cut["result"], cut["status"]) == ("hung up", None)


async def test_a_body_too_large_is_refused_and_written_down(tmp_path):
    """Over 1 MiB it is 413, as a line of the journal says as well."""
    journal = tmp_path / "journal.jsonl"

    async with serving(journal=journal) as asker:
        status = (await asker.reply("POST", PATH, io.BytesIO(b"x" * 2_000_000))).status

    (line,) = journal_lines(journal)
    assert (status, line["status"], line["result"]) == (413, 413, "refused")
