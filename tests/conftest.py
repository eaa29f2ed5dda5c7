"""What every test runs under."""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import aioresponses.core
import hypothesis
import pytest

from bulkbind import redaction


class ResponseWithoutWriter(aiohttp.ClientResponse):
    """What aioresponses 0.7.9 builds: aiohttp 3.14 asks for a writer that it does not give."""

    def __init__(self, *args, **kwargs) -> None:
        kwargs.setdefault("stream_writer", SimpleNamespace(output_size=0))
        super().__init__(*args, **kwargs)


# test_aioresponses_cure.py fails once it can go.
vars(aioresponses.core)["ClientResponse"] = ResponseWithoutWriter

# A slow machine is no failure; pytest-timeout ends what hangs.
hypothesis.settings.register_profile("bulkbind", deadline=None)
hypothesis.settings.load_profile("bulkbind")

MEMORY = Path("/dev/shm")  # noqa: S108  # folders of their own are made in it, for their owner alone
ROOM_BYTES = 1 << 30


def pytest_configure() -> None:
    """Keep the tests' files in memory where there is room, unless TMPDIR says where they belong.

    A ledger waits for the disk at every group of writes, and no test pulls the plug.
    """
    if "TMPDIR" in os.environ or not MEMORY.is_dir():
        return
    disk = os.statvfs(MEMORY)
    if disk.f_bavail * disk.f_frsize >= ROOM_BYTES and not disk.f_flag & os.ST_NOEXEC:
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


@pytest.hookimpl(optionalhook=True)  # where xdist is
def pytest_xdist_auto_num_workers() -> int | None:
    """Let `-n auto` be three workers for two cores: about half of all tests' time is waiting."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    cores = os.cpu_count() or 1
    return cores + cores // 2


LONG_S = 1.0
NAMED = 5


def pytest_terminal_summary(terminalreporter) -> None:
    """Name the slowest of the tests that take long and are not marked `slow`."""
    took_s: defaultdict[str, float] = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport) and "slow" not in report.keywords:
                took_s[report.nodeid] += report.duration
    found = sorted((seconds, name) for name, seconds in took_s.items() if seconds > LONG_S)
    if found:
        terminalreporter.section(f"over {LONG_S:g} s and not marked slow")
    for seconds, name in found[: -NAMED - 1 : -1]:
        terminalreporter.write_line(f"{seconds:.1f}s {name}")


@pytest.fixture(autouse=True)
def clean_environ(monkeypatch):
    """Hide the operator's own settings and ledgers from tests that run in this process."""
    for name in list(os.environ):
        if name.startswith("BULKBIND_") or name == "XDG_STATE_HOME":
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _secrets_of_its_own():
    """Let no test hide the secrets of another."""
    yield
    redaction.forget()
