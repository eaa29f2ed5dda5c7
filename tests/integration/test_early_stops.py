"""A stop before anything is sent: while files are opened, read and staged, and secrets are read."""

from __future__ import annotations

import asyncio
import io
import os
import threading
from contextlib import suppress
from itertools import count, islice

import pytest
from pydantic import SecretStr

import bulkbind
from bulkbind.app.inbox import run_inbox
from bulkbind.app.run import Staging, new_session
from bulkbind.app.session.listener import Listener
from bulkbind.clock import SystemClock
from bulkbind.engine import StopReason, StopSignal
from bulkbind.errors import ExitCode, InterruptedRunError, LedgerBusyError
from bulkbind.ledger.ledger import Ledger
from bulkbind.model import CheckedRow, Source
from bulkbind.sandbox import Sandbox, SandboxOptions, parse_fault
from bulkbind.settings import ApiSettings, AuthSettings, SendSettings, Settings
from tests.support.fake_clock import FakeClock
from tests.support.manifests import fleet, write_csv
from tests.support.rows import values as row_values

REASON = StopReason("interrupted by SIGTERM", ExitCode.TERMINATED)
HOLDER = {"pid": 1, "host": "here", "started_at": "now"}
FORM = Source("fleet.csv", "csv", "utf-8", bom=False)
SOON_S = 10
"""Far less than what would wait for ever, and more than a busy machine needs."""


@pytest.fixture
async def sandbox():
    """Serve a sandbox."""
    async with Sandbox() as served:
        yield served


@pytest.fixture
def settings(tmp_path, sandbox):
    """Return settings against the sandbox."""
    return Settings(
        api=ApiSettings(endpoint=sandbox.url),
        auth=AuthSettings(token=SecretStr("any")),
        ledger=tmp_path / "ledger.db",
        out=tmp_path / "report",
    )


def with_fifo(tmp_path, settings, what):
    """Return a manifest and settings, one of which waits for somebody to write to a FIFO."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    manifest = write_csv(tmp_path / "fleet.csv", fleet(3))
    if what == "manifest":
        return fifo, settings
    if what == "certificates":
        api = ApiSettings(endpoint="https://localhost:1", ca_file=fifo)
        return manifest, settings.model_copy(update={"api": api})
    return manifest, settings.model_copy(update={"auth": AuthSettings(token_file=fifo)})


@pytest.mark.parametrize("what", ["manifest", "token", "certificates"])
@pytest.mark.parametrize("command", [bulkbind.run, bulkbind.plan])
async def test_a_stop_ends_a_wait_for_a_fifo(tmp_path, settings, sandbox, what, command):
    """As a manifest, a token file or `ca_file`; nothing was sent, and no run is left."""
    manifest, given = with_fifo(tmp_path, settings, what)
    stop = StopSignal()
    asyncio.get_running_loop().call_later(0.1, stop.set, REASON)
    more = {"refresh": True} if command is bulkbind.plan else {}

    async with asyncio.timeout(SOON_S):
        with pytest.raises(InterruptedRunError, match="SIGTERM; nothing was sent") as caught:
            await command([manifest], given, stop=stop, **more)

    assert caught.value.exit_code == ExitCode.TERMINATED
    assert not sandbox.bindings
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("what", ["manifest", "token", "certificates"])
async def test_a_stall_before_anything_is_sent_says_where_to_look(tmp_path, settings, what):
    """The hint of a stall is not lost with the run that never began."""
    manifest, given = with_fifo(tmp_path, settings, what)
    quick = {"stall": 60.0, "backoff_cap": 10.0}
    given = given.model_copy(update={"send": given.send.model_copy(update=quick)})

    with pytest.raises(InterruptedRunError, match=r"settled for 1m; nothing was sent") as caught:
        await bulkbind.run([manifest], given, clock=FakeClock())

    assert caught.value.exit_code == ExitCode.STOPPED
    assert "--stall says how long a run may stand still" in caught.value.hint


@pytest.mark.parametrize(
    "command",
    [
        lambda given, stop: bulkbind.resume(given, stop=stop),
        lambda given, stop: bulkbind.export(["u"], given, io.StringIO(), stop=stop),
        lambda given, stop: bulkbind.verify(given, "run", stop=stop),
        lambda given, stop: run_inbox(given.out, given.out / "done", given, stop=stop),
    ],
    ids=["resume", "export", "verify", "inbox"],
)
async def test_a_stop_ends_every_wait_for_a_secret(tmp_path, settings, command):
    """Whoever needs credentials waits for them beside the event loop."""
    _, given = with_fifo(tmp_path, settings, "token")
    stop = StopSignal()
    asyncio.get_running_loop().call_later(0.05, stop.set, REASON)

    async with asyncio.timeout(SOON_S):
        with pytest.raises(InterruptedRunError, match="SIGTERM; nothing was sent"):
            await command(given, stop)


@pytest.mark.parametrize(
    "command",
    [
        lambda given, stop: bulkbind.export(["u1", "u2"], given, io.StringIO(), stop=stop),
        lambda given, stop: bulkbind.plan(
            [write_csv(given.ledger.parent / "fleet.csv", fleet(3))], given, refresh=True, stop=stop
        ),
    ],
    ids=["export", "plan"],
)
async def test_a_stop_ends_a_wait_for_a_list(settings, command):
    """That of a server which says nothing: nothing is lost with a list that is only read."""
    stop = StopSignal()
    async with Sandbox(SandboxOptions(faults=(parse_fault("silence-before=1,on=list"),))) as silent:
        api = ApiSettings(endpoint=silent.url)
        given = settings.model_copy(update={"api": api})
        running = asyncio.create_task(command(given, stop))
        while not silent.counts["requests"]:
            await SystemClock().sleep(0.02)
        stop.set(REASON)
        async with asyncio.timeout(SOON_S):
            with pytest.raises(InterruptedRunError, match="SIGTERM") as caught:
                await running

    assert caught.value.exit_code == ExitCode.TERMINATED


@pytest.mark.parametrize("what", ["manifest", "token"])
async def test_the_deadline_ends_a_wait_for_a_fifo(tmp_path, settings, what):
    """It is counted from the beginning."""
    manifest, given = with_fifo(tmp_path, settings, what)
    given = given.model_copy(update={"send": SendSettings(deadline=0.1)})

    async with asyncio.timeout(SOON_S):
        with pytest.raises(InterruptedRunError, match="the deadline of 100ms has come") as caught:
            await bulkbind.run([manifest], given)

    assert caught.value.exit_code == ExitCode.STOPPED


async def test_a_fifo_is_read_to_its_end(tmp_path, settings, sandbox):
    """Piece by piece, as process substitution gives it."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    text = write_csv(tmp_path / "fleet.csv", fleet(3)).read_bytes()

    def feed():
        with fifo.open("wb", buffering=0) as file:
            for at in range(0, len(text), 30):
                file.write(text[at : at + 30])

    async with asyncio.timeout(SOON_S):
        result, _ = await asyncio.gather(bulkbind.run([fifo], settings), asyncio.to_thread(feed))

    assert result.exit_code == ExitCode.DONE
    assert len(sandbox.bindings) == 3


class StopsAt(Listener):
    """Stops the command once so many rows are staged; called in the thread that reads."""

    def __init__(self, stop, rows):
        self._loop = asyncio.get_running_loop()
        self._stop = stop
        self._rows = rows
        self.staged_rows = 0

    def staged(self, rows):
        if self.staged_rows < self._rows <= rows:
            self._loop.call_soon_threadsafe(self._stop.set, REASON)
        self.staged_rows = rows


async def test_what_is_staged_half_is_no_run(tmp_path, settings, sandbox):
    """It ends before the manifest does; the next command does all of it, once."""
    manifest = write_csv(tmp_path / "fleet.csv", fleet(60_000))
    stop = StopSignal()
    listener = StopsAt(stop, 10_000)

    with pytest.raises(InterruptedRunError):
        await bulkbind.run([manifest], settings, stop=stop, listener=listener)
    staged = listener.staged_rows
    write_csv(manifest, fleet(20))
    result = await bulkbind.run([manifest], settings)

    assert 10_000 <= staged < 60_000
    assert result.report is not None
    assert result.report.summary.counts == {"bound": 20}
    assert len(bulkbind.runs(settings)) == 1
    assert len(sandbox.bindings) == 20


class Endless:
    """A manifest whose rows take long to check."""

    source = FORM

    def __init__(self):
        self.notices = []

    def rows(self):
        return (CheckedRow(line, [], row_values("u", f"SN{line}")) for line in count(2))

    def asked(self, _row):
        return []


async def test_the_stop_is_looked_at_while_rows_are_read(settings):
    """Not only where a batch of many thousand ends: its rows may take long to check."""
    stop = StopSignal()
    session = new_session(settings, None, stop, None)
    ledger = Ledger(settings.ledger_path(), None, FakeClock())
    rows = Staging(session, ledger, (), ())._rows(0, 0, Endless())
    next(rows)
    stop.set(REASON)

    with pytest.raises(InterruptedRunError):
        list(islice(rows, 1_000))


async def test_a_writer_that_was_left_holds_the_ledger_until_it_has_ended(tmp_path):
    """Whoever closes it does not wait for what nobody wants; nobody else gets it before."""
    path = tmp_path / "ledger.db"
    ledger = Ledger(path, None, FakeClock())
    await ledger.open(HOLDER)
    entered, goes_on = threading.Event(), threading.Event()

    def rows():
        entered.set()
        goes_on.wait(SOON_S)
        yield from ()

    staging = asyncio.create_task(
        ledger.stage(1, 0, FORM, 0, rows(), rebind=False, on_batch=lambda _reached: None)
    )
    await asyncio.to_thread(entered.wait, SOON_S)
    staging.cancel()
    async with asyncio.timeout(SOON_S / 2):
        await ledger.close()
    other = Ledger(path, None, FakeClock())
    with pytest.raises(LedgerBusyError):
        await other.open(HOLDER)
    goes_on.set()

    async with asyncio.timeout(SOON_S):
        while True:
            with suppress(LedgerBusyError):
                await other.open(HOLDER)
                break
            await asyncio.sleep(0.01)  # noqa: TID251  # polling a thread
    await other.close()
