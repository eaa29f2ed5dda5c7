"""Every fault of the sandbox, and answers that no honest server gives, against a real run.

What each comes to is a table: what the attempts are called, and how the rows that were struck end.
`python -m tests.campaigns.fault_table` prints it.
"""

from __future__ import annotations

import asyncio
import csv
import json
import re
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from bulkbind.clock import SystemClock, iso
from bulkbind.sandbox.faults import KINDS
from tests.campaigns.fault_table import SETTINGS, STRIKES, Ahead, ordered, run_with
from tests.support.manifests import write_csv
from tests.support.processes import BULKBIND, PLAIN, bulkbind, read_results

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Awaitable, Callable, Mapping


BINDS = [name for name, kind in KINDS.items() if not kind.is_for_lists]


@dataclass(frozen=True)
class Expected:
    """What a fault on binds comes to."""

    verdict: str
    ends: str = "bound"
    """How rows may end, apart by blanks."""
    code: int = 0


EXPECTED = {
    "reset-before": Expected("NoAnswer"),
    "reset-after": Expected("NoAnswer"),
    "silence-before": Expected("NoAnswer"),
    "silence-after": Expected("NoAnswer"),
    "delay-before": Expected("NoAnswer"),
    "delay-after": Expected("NoAnswer"),
    "drip": Expected("NoAnswer"),
    "500": Expected("Transient"),
    "500-after": Expected("Transient"),
    "502": Expected("NoAnswer"),
    "502-after": Expected("NoAnswer"),
    "503": Expected("Transient"),
    "truncated": Expected("NoAnswer"),
    "empty": Expected("NoAnswer"),
    "garbage": Expected("NoAnswer"),
    "huge": Expected("NoAnswer"),
    "bomb": Expected("NoAnswer"),
    "wrong-type": Expected("Accepted"),
    "business": Expected("Refused", "failed", 1),
    "redirect": Expected("Refused", "failed", 1),
    # Two such Dates in a row are believed: then a binding is an hour older than its request, and an
    # X-Date made from them is refused, which may stop the run.
    "wrong-date": Expected("Accepted", "bound already_bound", 3),
    "other-code": Expected("NoAnswer"),
    "local-time": Expected("Accepted", "already_bound"),
    "unasked": Expected("Accepted"),
}


@pytest.fixture(scope="module")
def ahead(tmp_path_factory):
    """Return a function that gives what a run came to, by the kind of run and its name."""
    begun: list[Ahead] = []

    def begin(work, names):
        def job(name):
            folder = tmp_path_factory.mktemp("run")
            return lambda: asyncio.run(work(name, folder))

        begun.append(Ahead({name: job(name) for name in names}))
        return begun[-1].result

    yield begin
    for each in begun:
        each.close()


# --- faults of binds ------------------------------------------------------------------------------


async def struck(name, folder):
    """Return what is left where a fault struck a third of the binds."""
    return await run_with([ordered(name, count=STRIKES)], folder)


@pytest.fixture(scope="module")
def under_fault(ahead):
    """Return a function that gives the evidence of a run under a fault."""
    return ahead(struck, BINDS)


def test_every_fault_of_the_sandbox_has_its_row_in_the_table():
    """What a new fault should come to must be said."""
    assert list(EXPECTED) == BINDS


@pytest.mark.slow
@pytest.mark.parametrize("name", BINDS)
def test_a_fault_breaks_no_promise(under_fault, name):
    """Each row has one state, report and server agree, and repeats are counted."""
    evidence = under_fault(name)

    assert evidence.broken() == []
    assert len(evidence.struck()) >= STRIKES * 2 // 3, "the fault hardly struck"
    assert evidence.stats.get("followed", 0) == 0
    assert "Traceback" not in evidence.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", BINDS)
def test_a_fault_comes_to_what_the_table_says(under_fault, name):
    """Attempts have the verdict, and rows that were struck end, as expected of the fault."""
    expected = EXPECTED[name]
    evidence = under_fault(name)

    assert evidence.verdicts().keys() == {expected.verdict}
    assert set() < evidence.ends().keys() <= set(expected.ends.split())
    assert evidence.code in {expected.code, expected.code % 3}


# --- faults of lists, while binds leave doubt -----------------------------------------------------

LOST = ordered("reset-after", 0.2, count=6)
FEW_AT_ONCE = f"{SETTINGS}concurrency: 4\n"
"""Few are lost, few sent at once, for two users: five silent requests in a row would close the gate
for everybody, and the test would wait."""
RIGHT_IN_PART = ("stale", "paged")
"""Such lists prove what they show; `test_proof.py` has them."""
LISTS = [
    name for name, kind in KINDS.items() if not kind.is_for_binds and name not in RIGHT_IN_PART
]
FAIL_FOR_A_WHILE = ("reset-before", "silence-after", "500", "503", "truncated", "business")
READABLE = {"wrong-type", "wrong-date", "local-time", "unasked"}
"""Faults under which a list says what it says."""
GIVEN_UP = {"business", "redirect"}
"""Answers after which a list is not asked for again in the same run."""
IMPATIENT = f"{FEW_AT_ONCE}max_attempts: 2\n"


async def once_more(name, folder):
    """Return what is left where the first lists are struck, and the next ones are good."""
    faults = [LOST, ordered(name, 1, on="list", count=2)]
    return await run_with(faults, folder, FEW_AT_ONCE, users=2, is_audited=False)


async def never(name, folder):
    """Return what is left where no list is good, and then of a run to which they are."""
    faults = [LOST, ordered(name, 1, on="list")]
    first = await run_with(faults, folder, IMPATIENT, users=2, is_audited=False)
    later = await run_with([], folder, IMPATIENT, users=2, port=first.port, is_audited=False)
    return first, later


@pytest.fixture(scope="module")
def list_comes_back(ahead):
    """Return a function that gives the evidence of a run whose lists work again."""
    return ahead(once_more, FAIL_FOR_A_WHILE)


@pytest.fixture(scope="module")
def list_never_works(ahead):
    """Return a function that gives the evidence of a run without lists, and of the next run."""
    return ahead(never, LISTS)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAIL_FOR_A_WHILE)
def test_doubt_is_settled_once_the_list_works_again(list_comes_back, name):
    """A list that fails for a while settles the doubt later, and nothing is posted again."""
    evidence = list_comes_back(name)

    assert evidence.broken() == []
    assert evidence.stats[name] >= 1
    assert evidence.stats.get("posted_again", 0) == 0
    assert evidence.ends().keys() <= {"bound", "in_doubt" if name in GIVEN_UP else "bound"}


@pytest.mark.slow
@pytest.mark.parametrize("name", LISTS)
def test_doubt_stays_doubt_while_the_list_does_not_work(list_never_works, name):
    """Rows without a list are in doubt with a reason, exit 1; a later run settles them."""
    first, later = list_never_works(name)
    doubtful = [row for row in first.rows if row["status"] == "in_doubt"]

    assert first.broken() == later.broken() == []
    ends = "already_bound" if name == "local-time" else "bound"
    why = "trusted" if KINDS[name].is_for_lists else "read"
    assert first.ends().keys() == {ends if name in READABLE else "in_doubt"}
    assert all(f"list cannot be {why}" in row["detail"] for row in doubtful)
    assert first.code == (name not in READABLE)
    assert later.stats.get("posted_again", 0) + first.stats.get("posted_again", 0) == 0
    assert (later.code, {row["status"] for row in later.rows}) == (0, {"skipped"})


# --- answers that no sandbox gives ----------------------------------------------------------------

FIRST_ID = 1842812272691451649
"""One more than a float can tell from its neighbours."""
SUCCESS = b'{"code":0,"msg":"success","data":%b}'


@dataclass(frozen=True)
class Talk:
    """One bind that is answered by hand."""

    writer: asyncio.StreamWriter
    record: dict[str, Any]
    """What the server's list shows, or would show, of the device."""
    is_over: asyncio.Event

    @property
    def data(self) -> bytes:
        """The record as JSON."""
        return json.dumps(self.record).encode()

    async def drip(self, *parts: bytes) -> None:
        """Say one thing after the other, slowly, until the client has had enough."""
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()
            await SystemClock().sleep(0.05)


@dataclass(frozen=True)
class Case:
    """An answer, and what it comes to."""

    say: Callable[[Talk], bytes | Awaitable[None]]
    verdict: str = "NoAnswer"
    ends: str = "bound"
    is_done: bool = True
    """Whether the server has bound the device."""
    closes: bool = False
    """Whether the server ends the connection."""


def http(body: bytes, *headers: str, status: str = "200 OK", length: object = None) -> bytes:
    """Return an answer; *length*: what it says of the body's length."""
    told = len(body) if length is None else length
    date = SystemClock().utc_now().strftime("%a, %d %b %Y %H:%M:%S GMT")
    lines = [f"HTTP/1.1 {status}", f"Date: {date}", f"Content-Length: {told}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def success(talk: Talk, **changes: object) -> bytes:
    """Return an answer of success with another record."""
    return http(SUCCESS % json.dumps(talk.record | changes).encode())


def coded(code: bytes, verdict: str = "NoAnswer") -> Case:
    """Return an answer of success with another code."""
    body = b'{"code":%b,"msg":"success","data":%b}'
    return Case(lambda talk: http(body % (code, talk.data)), verdict)


def said(answer: bytes, **more: Any) -> Case:
    """Return an answer that is the same for every device."""
    return Case(lambda _talk: answer, **more)


def success_with(*headers: str, **more: Any) -> Callable[[Talk], bytes]:
    """Return an answer of success with more headers."""
    return lambda talk: http(SUCCESS % talk.data, *headers, **more)


def altered(**changes: object) -> Callable[[Talk], bytes]:
    """Return an answer of success with another record."""
    return lambda talk: success(talk, **changes)


async def inform_for_ever(talk: Talk) -> None:
    """Announce an answer that never comes."""
    await talk.drip(*[b"HTTP/1.1 100 Continue\r\n\r\n"] * 200)


async def slow_headers(talk: Talk) -> None:
    """Send the headers byte by byte."""
    await talk.drip(*[bytes([byte]) for byte in success(talk)])


async def unfinished(talk: Talk) -> None:
    """Promise more than is sent, and stay."""
    body = SUCCESS % talk.data
    talk.writer.write(http(body, length=len(body) + 1))
    await talk.is_over.wait()


CHUNKED = "Transfer-Encoding: chunked"
NOT_DONE = {"verdict": "Refused", "ends": "failed", "is_done": False}
CASES = {
    # no HTTP
    "status_line_is_garbage": said(b"HTTQ/9.9 banana\r\n\r\n"),
    "http_0_9": Case(lambda talk: SUCCESS % talk.data, closes=True),
    "tls_alert": said(b"\x15\x03\x01\x00\x02\x02\x28\r\n\r\n"),
    "status_without_number": said(b"HTTP/1.1 OK\r\n\r\n"),
    "closed_in_the_headers": said(b"HTTP/1.1 200 OK\r\nContent-Type: appl", closes=True),
    "one_header_of_1_mb": Case(success_with("X-Big: " + "b" * (1 << 20))),
    "headers_of_1_mb": Case(success_with(*[f"X-{n}: {'b' * 40}" for n in range(20_000)])),
    "header_without_colon": Case(success_with("nonsense")),
    "lengths_that_differ": Case(success_with("Content-Length: 5")),
    "length_below_zero": Case(success_with(length=-1)),
    "length_and_chunks": Case(success_with(CHUNKED)),
    "chunk_of_garbage": said(b"HTTP/1.1 200 OK\r\n%b\r\n\r\nzz\r\nab\r\n" % CHUNKED.encode()),
    # late, or never
    "informational_for_ever": Case(inform_for_ever),
    "slow_headers": Case(slow_headers),
    "length_too_long_and_open": Case(unfinished),
    "length_too_long": Case(success_with(length=100_000), closes=True),
    "length_too_short": Case(success_with(length=20), closes=True),
    # a strange status
    "101": said(http(b"", "Upgrade: websocket", "Connection: Upgrade", status="101 Switch")),
    "204": said(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "999": said(http(b"", status="999 What")),
    "307": said(http(b"", status="307 Away"), **NOT_DONE),
    "303_and_done": said(http(b"", status="303 See Other"), verdict="Refused"),
    # a strange body
    "array": Case(lambda talk: http(b"[%b]" % (SUCCESS % talk.data))),
    "bare_text": said(http(b'"success"')),
    "more_behind_it": Case(lambda talk: http(SUCCESS % talk.data + b"}")),
    "nested_too_deep": said(http(b"[" * 100_000)),
    "code_text_0": coded(b'"0"', "Accepted"),
    "code_0_0": coded(b"0.0"),
    "code_true": coded(b"true"),
    "code_false": coded(b"false"),
    "code_null": coded(b"null"),
    "code_list": coded(b"[0]"),
    "code_missing": Case(lambda talk: http(b'{"msg":"success","data":%b}' % talk.data)),
    "data_null": said(http(SUCCESS % b"null")),
    "data_missing": said(http(b'{"code":0,"msg":"success"}')),
    "data_list": Case(lambda talk: http(SUCCESS % b"[%b]" % talk.data)),
    "id_number": Case(
        lambda talk: altered(deviceId=int(talk.record["deviceId"]))(talk), "Accepted"
    ),
    "id_fraction": Case(altered(deviceId=1842812272691451648.0)),
    "id_missing": Case(altered(deviceId=None)),
    "id_empty": Case(altered(deviceId="")),
    "another_device": Case(altered(machineCode="OTHER", deviceId="666")),
    # JSON leaves open which of two holds; everybody takes the last one
    "code_twice_success_last": coded(b'13000301,"code":0', "Accepted"),
    "code_twice_success_first": said(
        http(b'{"code":0,"msg":"x","data":{"deviceId":"666"},"code":13000301}'), **NOT_DONE
    ),
}
"""By machine code."""


class ByHand:
    """A server that answers the first bind of a device as its case says, and the rest honestly."""

    def __init__(self, cases: Mapping[str, Case], *, is_named: bool = True) -> None:
        """*is_named*: answers repeat the machine code."""
        self._cases = cases
        self._is_named = is_named
        self._is_over = asyncio.Event()
        self._ids = count(FIRST_ID, 2)
        self._tasks: set[asyncio.Task[None]] = set()
        self.held: dict[str, dict[str, dict[str, Any]]] = {}
        """Records by user and machine code."""
        self.posts: Counter[str] = Counter()
        self.heads: list[str] = []
        self.url = ""

    @asynccontextmanager
    async def serving(self):
        """Serve for the block."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            self._is_over.set()
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.create_task(self._talk(reader, writer), name="by hand"))

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._one(reader, writer):
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the other side has gone
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; return whether the connection stays."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        user = _header(head, "X-User-Id")
        body = await reader.readexactly(int(_header(head, "Content-Length") or 0))
        if not head.startswith("POST"):
            writer.write(http(SUCCESS % json.dumps(list(self._of(user).values())).encode()))
            return True
        code = json.loads(body)["machineCode"]
        self.posts[code] += 1
        case = self._cases.get(code)
        if case is None or self.posts[code] > 1:
            record = self._of(user).setdefault(code, self._record(code))
            writer.write(http(SUCCESS % json.dumps(self._shown(record)).encode()))
            return True
        record = self._record(code)
        if case.is_done:
            record = self._of(user).setdefault(code, record)
        answer = case.say(Talk(writer, self._shown(record), self._is_over))
        if isinstance(answer, bytes):
            writer.write(answer)
            await writer.drain()
        else:
            await answer
        return not case.closes

    def _of(self, user: str) -> dict[str, dict[str, Any]]:
        return self.held.setdefault(user, {})

    def _record(self, code: str) -> dict[str, Any]:
        now = iso(SystemClock().utc_now())
        return {"deviceId": str(next(self._ids)), "machineCode": code, "createTime": now}

    def _shown(self, record: dict[str, Any]) -> dict[str, Any]:
        return record if self._is_named else {**record, "machineCode": None}


def _header(head: str, name: str) -> str:
    found = re.search(rf"(?i)\r\n{name}: *([^\r]*)", head)
    return found[1] if found else ""


@dataclass(frozen=True)
class Handled:
    """What a run left, and what the server by hand saw of it."""

    done: subprocess.CompletedProcess[str]
    rows: dict[str, dict[str, str]]
    """Of the report, by machine code."""
    verdicts: dict[str, list[str]]
    """Of attempts that were not simply accepted, by machine code."""
    server: ByHand

    def lies(self) -> list[str]:
        """Return every row that is called bound and is not, or not under that id."""
        found = []
        for code, row in self.rows.items():
            record = self.server.held.get(row["user_id"], {}).get(code)
            if row["status"] in ("bound", "already_bound"):
                if record is None:
                    found.append(f"{code} is called {row['status']}, and the server lacks it")
                elif record["deviceId"] != row["device_id"]:
                    found.append(f"{code} has id {row['device_id']}, the server {record}")
            elif record is not None and row["status"] != "in_doubt":
                found.append(f"{code} is called {row['status']}, and the server holds it")
        return found


async def handled(server: ByHand, rows, folder, settings: str = "", command=BULKBIND) -> Handled:
    """Bind *rows* on a server by hand."""
    manifest = write_csv(folder / "fleet.csv", rows)
    (folder / "config.yaml").write_text(SETTINGS + settings, encoding="utf-8")
    async with server.serving():
        common = ("--endpoint", server.url, "--out", "out")
        run = ("run", manifest, *common, "--config", "config.yaml")
        done = await asyncio.to_thread(bulkbind, *run, home=folder, command=command)
        report = ("report", *common, "--attempts")
        audited = await asyncio.to_thread(bulkbind, *report, home=folder)
        assert audited.returncode == 0, audited.stderr
    verdicts: dict[str, list[str]] = {}
    with (folder / "out/attempts.csv").open(encoding="utf-8", newline="") as file:
        for attempt in csv.DictReader(file):
            verdicts.setdefault(attempt["machine_code"], []).append(attempt["verdict"])
    rows_by_code = {row["machine_code"]: row for row in read_results(folder / "out")}
    return Handled(done, rows_by_code, verdicts, server)


@pytest.fixture(scope="module", params=[BULKBIND, PLAIN], ids=["fast", "plain"])
def by_hand(request, tmp_path_factory):
    """Return what came of a run in which every case is a device of a user of its own."""
    rows = []
    for name in CASES:
        # Good answers between them: the server must not seem to be away.
        rows += [(f"plain_{name}_{n}", "plain", "", "") for n in range(3)]
        rows.append((name, f"user_{name}", "", ""))
    folder = tmp_path_factory.mktemp("by_hand")
    return asyncio.run(
        handled(ByHand(CASES), rows, folder, "concurrency: 4\n", command=request.param)
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_hostile_answer_is_never_believed(by_hand, name):
    """Only a right answer binds; what is none is looked up, and nothing is posted twice."""
    case = CASES[name]
    row = by_hand.rows[name]

    assert by_hand.verdicts.get(name, ["Accepted"]) == [case.verdict]
    assert row["status"] == case.ends
    assert by_hand.server.posts[name] == 1
    if case.is_done:
        assert row["device_id"] == by_hand.server.held[f"user_{name}"][name]["deviceId"]


@pytest.mark.slow
def test_hostile_answers_hurt_nobody_else(by_hand):
    """The devices between the hostile answers are bound, each under its own id."""
    plain = {row["status"] for code, row in by_hand.rows.items() if code.startswith("plain")}

    assert plain == {"bound"}
    assert by_hand.lies() == []
    assert by_hand.done.returncode == 1
    assert "Traceback" not in by_hand.done.stderr


@pytest.mark.slow
async def test_a_redirect_takes_the_token_nowhere(tmp_path):
    """Nobody follows a 3xx: the rows have failed, and the other host has seen nothing."""
    elsewhere = ByHand({})
    async with elsewhere.serving():
        places = {
            f"to_{status}": f"{elsewhere.url}/{status}" for status in (301, 302, 303, 307, 308)
        }
        places["without_scheme"] = elsewhere.url.removeprefix("http:")
        cases = {
            code: said(http(b"", f"Location: {to}", status=f"{code[-3:]} Away"), **NOT_DONE)
            for code, to in places.items()
        }
        cases["without_scheme"] = said(
            http(b"", f"Location: {places['without_scheme']}", status="302 Away"), **NOT_DONE
        )
        rows = [("first", "u", "", ""), *[(code, "u", "", "") for code in cases]]
        result = await handled(ByHand(cases), rows, tmp_path)

    assert elsewhere.heads == []
    assert [result.rows[code]["status"] for code in cases] == ["failed"] * len(cases)
    assert result.lies() == []


# --- answers to requests that nobody sent ---------------------------------------------------------


def forged(talk: Talk) -> bytes:
    """Return an answer to nobody's request, which names a device only where others do."""
    name = talk.record["machineCode"] and "SN_OTHER"
    return success(talk, deviceId="666", machineCode=name)


def two_at_once(talk: Talk) -> bytes:
    """Answer, and answer again."""
    return success(talk) + forged(talk)


def in_the_body(talk: Talk) -> bytes:
    """Hide an answer behind a body that is longer than it says."""
    body = SUCCESS % talk.data
    return http(body + forged(talk), length=len(body))


async def later(talk: Talk) -> None:
    """Answer, and answer again while nothing is asked."""
    await talk.drip(success(talk), forged(talk))


async def garbage_later(talk: Talk) -> None:
    """Answer, and babble while nothing is asked."""
    await talk.drip(success(talk), b"\x00banana\r\n\r\n")


AFTERS = {say.__name__: say for say in (two_at_once, in_the_body, later, garbage_later)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "is_named"),
    [
        ("two_at_once", False),
        ("in_the_body", False),
        ("garbage_later", False),
        ("later", True),
        ("later", False),
    ],
)
async def test_an_answer_to_no_request_is_never_the_next_ones(tmp_path, name, is_named):
    """Whatever else comes over a connection, each row has its own answer or is looked up."""
    cases = {f"SN_{number}": Case(AFTERS[name]) for number in range(4)}
    rows = [(code, "u", "", "") for code in [*cases, "last"]]
    server = ByHand(cases, is_named=is_named)
    settings = "concurrency: 1\nrate: 10\nmax_attempts: 20\n"

    result = await handled(server, rows, tmp_path, settings=settings)

    assert result.lies() == []
    assert {row["status"] for row in result.rows.values()} <= {"bound", "in_doubt"}


# --- times of another world -----------------------------------------------------------------------


def far_away(*headers: str, status: str = "429 Slow Down") -> Case:
    """Return an answer from the end of the year 9999."""
    answer = http(b"{}", *headers, status=status)
    date = b"Date: Fri, 31 Dec 9999 23:59:59 GMT"
    return said(re.sub(rb"Date: [^\r]*", date, answer), is_done=False)


@pytest.mark.slow
@pytest.mark.parametrize("after_s", [1, 80_000])
async def test_a_date_at_the_end_of_time_ends_nothing(tmp_path, after_s):
    """An absurd Date, with a Retry-After on top, stops a run at most, and can be reported."""
    cases = dict.fromkeys(("odd", "odder"), far_away(f"Retry-After: {after_s}"))
    rows = [(code, "u", "", "") for code in ("first", *cases, "last")]

    result = await handled(ByHand(cases), rows, tmp_path, settings="concurrency: 1\n")

    assert result.done.returncode in (0, 3)
    assert "Traceback" not in result.done.stderr
    assert result.lies() == []


@pytest.mark.slow
async def test_a_server_that_is_busy_for_an_hour_does_not_hold_a_run(tmp_path):
    """A 503 with a wait beyond max_wait is not waited out: the run ends by itself, and says so."""
    cases = {"busy": said(http(b"{}", "Retry-After: 3600", status="503 Busy"), is_done=False)}
    rows = [(code, "u", "", "") for code in ("first", "busy", "last")]
    settings = "max_wait: 1s\ndeadline: 3s\n"

    result = await handled(ByHand(cases), rows, tmp_path, settings=settings)

    assert result.lies() == []
    assert "deadline" not in result.done.stderr
