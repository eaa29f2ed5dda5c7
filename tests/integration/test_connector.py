"""Answers that are not the request's own, over kept connections of a raw server."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import asynccontextmanager

import pytest

from bulkbind.clock import SystemClock
from bulkbind.model import Accepted, Device, NoAnswer, Refused, Unreachable
from tests.integration.test_client import drive

pytestmark = pytest.mark.usefixtures("path")
LIST = "list"
"""What is asked where no device is named."""


class Chatty:
    """Answers each bind with its own record; what it says beside that is *aside*'s to tell."""

    def __init__(self, aside, *, is_named=True):
        self._aside = aside
        self._is_named = is_named
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections = 0
        self.asked: list[str] = []
        self.url = ""

    @asynccontextmanager
    async def serving(self):
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader, writer):
        self.connections += 1
        self._tasks.add(asyncio.create_task(self._talk(reader, writer), name="chatty"))

    async def _talk(self, reader, writer):
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = re.search(r"(?i)content-length: *(\d+)", head)
                body = await reader.readexactly(int(length[1])) if length else b"{}"
                code = json.loads(body).get("machineCode", LIST)
                self.asked.append(code)
                await self._aside(self, code, writer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def answer(self, code, **changes):
        """Return the answer to a bind of *code*."""
        record = {"deviceId": f"id of {code}", "createTime": "2026-11-23T12:00:00Z"}
        named = {"machineCode": code} if self._is_named else {}
        body = json.dumps({"code": 0, "msg": "success", "data": record | named | changes}).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body


async def plainly(server, code, writer):
    """Answer, and be quiet."""
    writer.write(server.answer(code))


async def twice_at_once(server, code, writer):
    """Answer, and say it again in the same breath."""
    writer.write(server.answer(code) + server.answer(code))


async def again_soon(server, code, writer):
    """Answer, and say it again while nothing is asked."""
    writer.write(server.answer(code))
    await writer.drain()
    await SystemClock().sleep(0.05)
    writer.write(server.answer(code))


async def late_by_one(server, code, writer):
    """Hold each second answer back until the next request is in, which is given that one."""
    before = [*server.asked[:-1], code][-2:][0]
    writer.write(server.answer(before))
    if before != code:
        writer.write(server.answer(code))


async def bound(client, names, pause_s=0.0):
    """Bind devices one after the other; return their ids, None for those in doubt."""
    ids = []
    for name in names:
        verdict = (await client.bind(Device("u", name))).verdict
        assert isinstance(verdict, Accepted | NoAnswer)
        ids.append(verdict.device_id if isinstance(verdict, Accepted) else None)
        if pause_s:
            await SystemClock().sleep(pause_s)
    return ids


NAMES = [f"SN{number}" for number in range(6)]


@pytest.mark.parametrize("is_named", [True, False])
@pytest.mark.parametrize("aside", [twice_at_once, again_soon])
async def test_what_comes_while_nothing_is_asked_is_no_answer(aside, is_named):
    """A kept connection over which something came is dropped: each device has its own id."""
    reported: list[int] = []
    async with Chatty(aside, is_named=is_named).serving() as server, drive(server.url) as client:
        client.on_unasked(reported.append)
        ids = await bound(client, NAMES, pause_s=0.1)

    assert list(dict.fromkeys(reported)) == list(range(1, len(NAMES) + 1))
    assert ids == [f"id of {name}" for name in NAMES]
    assert server.connections >= len(NAMES)


async def test_a_quiet_connection_is_kept():
    """Nothing is dropped or reported without need: one connection serves all."""
    reported: list[int] = []
    async with Chatty(plainly).serving() as server, drive(server.url) as client:
        client.on_unasked(reported.append)
        ids = await bound(client, NAMES)

    assert reported == []
    assert ids == [f"id of {name}" for name in NAMES]
    assert server.connections == 1


async def test_the_answer_to_another_request_ends_its_connection():
    """It is doubt, once; the requests after it are not answered by their neighbours."""
    async with Chatty(late_by_one).serving() as server, drive(server.url) as client:
        ids = await bound(client, NAMES)

    assert ids[0] == "id of SN0"
    assert ids[1] is None
    assert all(found in (None, f"id of {name}") for found, name in zip(ids, NAMES, strict=True))
    assert server.connections >= 2


async def test_a_late_answer_is_heard_though_another_connection_is_distrusted():
    """What answers for another device on one connection closes no other, which may yet say more."""
    reported: list[int] = []

    async def early_or_wrong(server, code, writer):
        await SystemClock().sleep(0.05)
        if code == "EARLY":
            writer.write(EARLY["refused"])
            asyncio.get_running_loop().call_later(0.2, writer.write, server.answer(code))
        else:
            await SystemClock().sleep(0.05)
            writer.write(server.answer("ANOTHER"))

    async with Chatty(early_or_wrong).serving() as server, drive(server.url) as client:
        client.on_unasked(reported.append)
        early, wrong = await asyncio.gather(
            *(client.bind(Device("u", code)) for code in ("EARLY", "WRONG"))
        )
        before = list(reported)
        await SystemClock().sleep(0.3)

    assert isinstance(early.verdict, Refused)
    assert before == [wrong.connection]
    assert set(reported) == {early.connection, wrong.connection} == {1, 2}


@pytest.mark.parametrize("how", ["reset", "closed", "silent"])
async def test_a_connection_that_breaks_in_a_request_is_reported(how):
    """The answer that would have shown that an earlier one was another's may be lost with it."""
    reported: list[int] = []

    async def breaks(server, code, writer):
        if code == "SN0":
            writer.write(server.answer(code))
        elif how == "reset":
            writer.transport.abort()
        elif how == "closed":
            writer.close()

    async with (
        Chatty(breaks).serving() as server,
        drive(server.url, timeout=0.3) as client,
    ):
        client.on_unasked(reported.append)
        first = await client.bind(Device("u", "SN0"))
        second = await client.bind(Device("u", "SN1"))

    assert isinstance(second.verdict, NoAnswer)
    assert reported == [first.connection] == [second.connection] == [1]


async def test_a_request_that_got_no_connection_distrusts_none(path):
    """A time-out while it connects says nothing of any connection."""
    reported: list[int] = []
    async with Chatty(plainly).serving() as server, drive(server.url, timeout=0.2) as client:
        client.on_unasked(reported.append)
        connector = client.client._http._connector

        async def never(*_, **__):
            await asyncio.Event().wait()

        vars(connector)["connect"] = never
        attempt = await client.bind(Device("u", "SN0"))

    # The plain path cannot tell that nothing was sent.
    assert isinstance(attempt.verdict, Unreachable if path == "fast" else NoAnswer)
    assert (attempt.connection, reported) == (0, [])


async def test_a_server_that_names_devices_is_not_believed_without_a_name():
    """Once an answer named its device, a success that names none may be another request's."""

    async def names_the_first(server, code, writer):
        changes = {} if code == "SN0" else {"machineCode": None}
        writer.write(server.answer(code, **changes))

    async with Chatty(names_the_first).serving() as server, drive(server.url) as client:
        ids = await bound(client, NAMES[:3])
    async with (
        Chatty(plainly, is_named=False).serving() as nameless,
        drive(nameless.url) as client,
    ):
        believed = await bound(client, NAMES[:3])

    assert ids == ["id of SN0", None, None]
    assert believed == [f"id of {name}" for name in NAMES[:3]]


EARLY = {
    "throttled": b"HTTP/1.1 429 Slow Down\r\nContent-Length: 2\r\n\r\n{}",
    "failed": b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\n{}",
    "refused": b'HTTP/1.1 200 OK\r\nContent-Length: 24\r\n\r\n{"code":13,"msg":"full"}',
    LIST: b'HTTP/1.1 200 OK\r\nContent-Length: 31\r\n\r\n{"code":0,"msg":"ok","data":[]}',
}


@pytest.mark.parametrize("early", [*EARLY, "nameless"])
async def test_names_are_awaited_however_late_they_come(early):
    """What is answered before the first success that names its device teaches nothing."""

    async def names_later(server, code, writer):
        if code in EARLY:
            writer.write(EARLY[code])
        else:
            changes = {} if code == "SN0" else {"machineCode": None}
            writer.write(server.answer(code, **changes))

    async with Chatty(names_later).serving() as server, drive(server.url) as client:
        for _ in range(25):
            await (client.list_devices("u") if early == LIST else client.bind(Device("u", early)))
        ids = await bound(client, NAMES[:3])

    assert len(server.asked) == 28
    assert ids == ["id of SN0", None, None]
