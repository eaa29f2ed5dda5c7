"""`bulkbind sandbox` as a process: its options, and how a signal ends it."""

from __future__ import annotations

import json
import signal
import socket
import time
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import pytest

from tests.support.processes import ask, bulkbind, process
from tests.support.sandbox_client import BODY, PATH, address, journal_lines, stamp

HEAD = "Host: x\r\nAuthorization: Bearer any\r\nX-User-Id: u\r\nContent-Type: application/json\r\n"
BODY_TEXT = json.dumps(BODY)


def send(url: str, request_line: str) -> socket.socket:
    """Send a request and return the connection, whose answer nobody reads."""
    connection = socket.create_connection(address(url), timeout=10)
    date = stamp(datetime.now(UTC))  # noqa: TID251  # the process has the real clock
    head = f"{request_line} HTTP/1.1\r\n{HEAD}X-Date: {date}\r\n"
    connection.sendall(f"{head}Content-Length: {len(BODY_TEXT)}\r\n\r\n{BODY_TEXT}".encode())
    return connection


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_while_requests_hang(tmp_path, number):
    """Silence, drip and delay are cut off: exit 0 within a second, and no output but its own."""
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
            assert time.monotonic() < end, "they never hung"
        began = time.monotonic()
        started.send_signal(number)
        code = started.wait(10)
        took_s = time.monotonic() - began
        _, errors = started.communicate()

    assert code == 0
    assert took_s < 2  # of which the interpreter's own end is a part
    assert {line["result"] for line in journal_lines(journal)} == {
        "silence-after bound", "drip listed", "delay-before"
    }  # fmt: skip
    assert len(journal_lines(journal)) == 3
    first, second = errors.splitlines()
    assert first == f"{number.name}: stopping"
    assert second.startswith("1 binding; {'requests': 3, ")


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--limit", "slding:60/s"), "did you mean `sliding`"),
        (("--limit", "60/week"), "'60/week' is no limit: write 60/s"),
        (("--fault", "rest-after=1"), "did you mean `reset-after`"),
        (("--fault", "500"), "500=0.05"),
        (("--clock-offset", "soon"), "--clock-offset: 'soon' is no time"),
        (("--journal", "no/such/file"), "journal no/such/file cannot be opened"),
    ],
)
def test_a_wrong_option_ends_the_command_with_2(tmp_path, arguments, message):
    """The error names what was given and what is allowed."""
    done = bulkbind("sandbox", "--port", "0", *arguments, home=tmp_path, check=2)

    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_limits_and_faults_may_come_from_the_environment(tmp_path):
    """Several are separated by blanks."""
    given = {"BULKBIND_LIMIT": "9/day 1/day,on=list", "BULKBIND_FAULT": "500=1 502=1"}
    with process("sandbox", "--port", "0", home=tmp_path, **given) as started:
        url = started.stdout.readline().split()[1]
        for line in (f"POST {PATH}", f"GET {PATH}", f"GET {PATH}"):
            with send(url, line) as connection, suppress(OSError):
                connection.recv(65_536)
        stats = ask(f"{url}/sandbox/stats")
        started.send_signal(signal.SIGTERM)

    assert (stats["500"], stats["lists"], stats["throttled"]) == (1, 1, 1)
