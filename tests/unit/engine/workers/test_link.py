"""The way to a worker: a process that ends, and an environment without secrets."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from bulkbind.clock import SystemClock
from bulkbind.engine.workers.link import PipeLink, environment

ECHO = "tests.support.echo_worker"


class Ends:
    """What is heard of a worker."""

    def __init__(self):
        self.heard = b""
        self.lost = asyncio.get_running_loop().create_future()
        self.has_come = asyncio.Event()

    def hear(self, data):
        self.heard += data
        self.has_come.set()

    async def link(self):
        return await PipeLink.start(ECHO, self.hear, self.lost.set_result)


async def test_bytes_go_both_ways_and_the_worker_ends_with_its_link():
    """At the end of the link it ends by itself, and is waited for."""
    ends = Ends()
    link = await ends.link()
    link.send(b"hello")
    await asyncio.wait_for(ends.has_come.wait(), 60)

    await link.close()

    assert ends.heard == b"hello"
    with pytest.raises(ProcessLookupError):
        os.kill(link.pid, 0)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda s: s.name)
async def test_how_a_worker_ended_is_told(number):
    """By which signal, if it was one."""
    ends = Ends()
    link = await ends.link()
    link.send(b"hello")
    await asyncio.wait_for(ends.has_come.wait(), 60)

    os.kill(link.pid, number)

    assert await asyncio.wait_for(ends.lost, 60) == f"it was ended by {number.name}"
    await link.close()


async def test_a_stopped_worker_is_killed_and_not_heard():
    """It cannot end by itself, and what it said before is of no interest any more."""
    ends = Ends()
    link = await ends.link()
    link.send(b"hello")
    await asyncio.wait_for(ends.has_come.wait(), 60)
    os.kill(link.pid, signal.SIGSTOP)
    link.send(b"more")

    link.kill()
    await link.close()
    await SystemClock().sleep(0.05)

    assert ends.heard == b"hello"
    assert not ends.lost.done()
    with pytest.raises(ProcessLookupError):
        os.kill(link.pid, 0)


def test_the_environment_of_a_worker_holds_no_secret():
    """Only what Python and TLS need: whatever else the operator has set may be one."""
    given = {
        "PATH": "/bin",
        "LC_ALL": "C",
        "SSL_CERT_FILE": "/ca.pem",
        "PYTHONPATH": "/elsewhere",
        "BULKBIND_TOKEN": "token",
        "HTTPS_PROXY": "http://user:password@proxy",
        "VAULT_TOKEN": "another",
        "CREDENTIALS_DIRECTORY": "/run/credentials",
    }

    kept = environment(given)

    assert set(kept) == {"PATH", "LC_ALL", "SSL_CERT_FILE", "PYTHONPATH"}
    assert kept["PYTHONPATH"].endswith(f"{os.pathsep}/elsewhere")
