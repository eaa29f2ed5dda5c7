"""The way to a worker of a cluster gathers what it is told, and tells the time between."""

from __future__ import annotations

import asyncio

import pytest

from bulkbind.clock import SystemClock
from bulkbind.engine.workers import cluster
from bulkbind.engine.workers.cluster import GATHER_S, MANY_BYTES, ClusterLink
from bulkbind.engine.workers.link import PipeLink
from bulkbind.engine.workers.messages import TO_WORKER, After, Frames, Lease, Start, frame


class Comm:
    """A stream of Dask whose other end is the test."""

    def __init__(self):
        self.written: list[bytes] = []
        self.coming: asyncio.Queue[object] = asyncio.Queue()
        self.is_aborted = False

    async def write(self, message):
        self.written.append(message)

    async def read(self):
        said = await self.coming.get()
        if isinstance(said, Exception):
            raise said
        return said

    def abort(self):
        self.is_aborted = True

    def told(self):
        """Return each message that came, as the worker reads it."""
        return [list(Frames(TO_WORKER).feed(data)) for data in self.written]


class Bench:
    """A link, and what it hands on."""

    def __init__(self):
        self.comm = Comm()
        self.heard: list[bytes] = []
        self.lost: list[str] = []
        self.link = ClusterLink(self.comm, ("host", 7), self.heard.append, self.lost.append)


@pytest.fixture
async def bench():
    """Return a link that is closed at the end."""
    made = Bench()
    yield made
    await made.link.close()


async def test_what_is_told_within_a_while_is_one_message_with_the_time_between(bench, monkeypatch):
    """The worker can then do each so much later; the next group begins anew.

    What comes a while after the last one does not wait.
    """
    bench.link.send(frame([Lease(9)]))
    monkeypatch.setattr(cluster, "GATHER_S", 0.4)
    for number in range(3):
        bench.link.send(frame([Lease(number)]))
        await SystemClock().sleep(0.002)
    await SystemClock().sleep(0.5)
    monkeypatch.setattr(cluster, "GATHER_S", 0.0)
    bench.link.send(frame([Lease(3)]))
    await SystemClock().sleep(0.1)

    alone, (first, *group), last = bench.comm.told()
    assert alone == [After(0.0), Lease(9)]
    assert first == After(0.0)
    assert [each for each in group if isinstance(each, Lease)] == [Lease(0), Lease(1), Lease(2)]
    between = [each.seconds for each in group if isinstance(each, After)]
    assert 0 < between[0] < between[1] < 0.4
    assert last == [After(0.0), Lease(3)]


async def test_much_does_not_wait_for_more(bench):
    """Where few milliseconds fill a group, nothing is gained by waiting."""
    bench.link.send(frame([Start(bytes(MANY_BYTES))]))
    await SystemClock().sleep(0)

    assert bench.comm.told() == [[After(0.0), Start(bytes(MANY_BYTES))]]


@pytest.mark.parametrize(
    ("last", "why"),
    [
        ("it was ended by SIGKILL", "it was ended by SIGKILL"),
        (OSError("reset"), "the connection to it broke"),
        (("something", "else"), "it says what cannot be read"),
    ],
    ids=["its last word", "the connection breaks", "none of ours"],
)
async def test_what_a_worker_says_is_handed_on_until_it_is_lost(bench, last, why):
    """And it is said how that was."""
    for said in (b"a", b"bc", last):
        bench.comm.coming.put_nowait(said)
    await SystemClock().sleep(GATHER_S)

    assert bench.heard == [b"a", b"bc"]
    assert bench.lost == [why]


async def test_who_is_killed_is_told_and_heard_no_more(bench):
    """What waited to be told with others is dropped."""
    bench.link.send(frame([Lease(1)]))
    await SystemClock().sleep(0)
    told = [*bench.comm.written]
    bench.link.send(frame([Lease(2)]))
    bench.link.kill()
    bench.comm.coming.put_nowait(b"late")
    await SystemClock().sleep(2 * GATHER_S)

    assert bench.comm.is_aborted
    assert bench.comm.written == told
    assert bench.heard == bench.lost == []


async def test_what_a_worker_is_comes_before_what_it_says(monkeypatch):
    """Also where it says something before its start is known to have succeeded."""
    comm = Comm()

    async def start(_module, heard, lost):
        heard(b"hello")
        await SystemClock().sleep(0)
        return Process(lost)

    monkeypatch.setattr(PipeLink, "start", start)
    await cluster.serve(comm, "a.module")

    (_, pid), *said = comm.written
    assert pid == Process.pid
    assert said == [b"hello", "it ended with 0"]


class Process:
    """A worker that ends."""

    pid = 7

    def __init__(self, lost):
        asyncio.get_running_loop().call_later(0.02, lost, "it ended with 0")

    def send(self, data):
        """It hears nothing."""

    def kill(self):
        """It has ended."""

    async def close(self):
        """It has ended."""
