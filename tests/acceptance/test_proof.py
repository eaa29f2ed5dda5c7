"""What counts as proof: lists, names and times that say nothing sure, against real runs and undos.

Each test is named after what holds, over real sockets.
"""

from __future__ import annotations

import asyncio
import csv
import json
import re
import sqlite3
from contextlib import asynccontextmanager, closing, suppress
from email.utils import format_datetime
from io import StringIO

import pytest

import bulkbind as library
from bulkbind.clock import SystemClock, iso
from tests.support.in_process import called
from tests.support.manifests import fleet, write_csv
from tests.support.processes import (
    ask,
    ledger_of,
    read_results,
    sandbox,
    sandbox_bindings,
    statuses,
)

SETTINGS = """\
timeout: 700ms
list_timeout: 700ms
readback_settle: 300ms
backoff_base: 20ms
backoff_cap: 100ms
concurrency: 4
max_attempts: 3
"""
STALE = "stale=1,for=200ms"
"""Older than nothing, younger than `readback_settle`."""
WRONG_LISTS = ("doubled=1", "other-case=1", "paged=1", "foreign=1", STALE)


class Home:
    """A folder, a sandbox with faults, and what commands leave there."""

    def __init__(self, folder, url):
        self.folder = folder
        self.url = url
        (folder / "config.yaml").write_text(SETTINGS, encoding="utf-8")

    def do(self, *words, check=None):
        """Run a command of bulkbind against the sandbox."""
        common = ("--endpoint", self.url, "--config", "config.yaml")
        return called(*words, *common, home=self.folder, check=check)

    def run(self, rows, *words, name="fleet", check=None):
        """Bind rows; the report is in the folder of that name."""
        manifest = write_csv(self.folder / f"{name}.csv", rows)
        return self.do("run", manifest, "--out", name, *words, check=check)

    def run_id(self, name="fleet"):
        """Return the id of a run."""
        return json.loads((self.folder / name / "summary.json").read_text())["run_id"]

    def held(self):
        """Return user and machine code of what the sandbox holds."""
        return {(item["userId"], item["machineCode"]) for item in sandbox_bindings(self.url)}

    def known(self):
        """Return user and machine code of what the ledger knows as bound."""
        with closing(sqlite3.connect(ledger_of(self.folder, self.url))) as db:
            return set(db.execute("SELECT user_id, machine_code FROM bindings"))

    def stats(self):
        """Return what the sandbox counted."""
        return ask(f"{self.url}/sandbox/stats")


def rows_of(folder, status, name="fleet"):
    """Return the rows of a report with a status."""
    return [row for row in read_results(folder / name) if row["status"] == status]


def faults(*orders):
    """Return the options of a sandbox with faults."""
    return [word for order in orders for word in ("--fault", order)] + ["--seed", "3"]


# --- lists ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("wrong", WRONG_LISTS)
def test_no_wrong_list_calls_a_lost_bind_unbound(tmp_path, wrong):
    """What got no answer is bound or in doubt, is never posted again, and nothing has failed."""
    orders = faults("reset-after=0.2,count=8", f"{wrong}")
    with sandbox(*orders, "--second-bind", "error", home=tmp_path) as url:
        home = Home(tmp_path, url)
        home.run(fleet(40, users=2))
        first = statuses(tmp_path / "fleet")
        stats = home.stats()
        held = home.held()
        bound = {(row["user_id"], row["machine_code"]) for row in rows_of(tmp_path, "bound")}

    assert first.keys() <= {"bound", "in_doubt"}
    assert stats["reset-after"] >= 4
    assert stats.get("posted_again", 0) == 0
    assert bound <= held
    assert len(held) == 40
    assert all("cannot be trusted" in row["detail"] for row in rows_of(tmp_path, "in_doubt"))


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["doubled=1", "other-case=1", "foreign=1"])
def test_a_users_first_device_is_in_doubt_while_its_list_is_wrong(tmp_path, wrong):
    """No other device is known of the user; yet nothing is posted again, a good list settles it."""
    state = ("--state", str(tmp_path / "state.jsonl"), "--second-bind", "error")
    with sandbox(*state, home=tmp_path) as url:
        Home(tmp_path, url).run(fleet(4, users=1), name="others", check=0)
    again = (*state, "--port", url.rpartition(":")[2])
    rows = [(f"NEW{n}", f"new_{n}", "", "") for n in range(3)]
    with sandbox(*again, *faults("reset-after=1", wrong), home=tmp_path) as url:
        home = Home(tmp_path, url)
        home.run(rows, name="first", check=1)
        binds = home.stats()["binds"]
    with sandbox(*again, home=tmp_path) as url:
        home = Home(tmp_path, url)
        home.do("run", tmp_path / "first.csv", "--out", "later", check=0)
        later = home.stats()

    assert statuses(tmp_path / "first") == {"in_doubt": 3}
    assert binds == 3
    assert later.get("binds", 0) == 0
    assert statuses(tmp_path / "later").keys() <= {"bound", "skipped"}


@pytest.mark.slow
@pytest.mark.parametrize("wrong", WRONG_LISTS)
def test_no_wrong_list_makes_verify_call_anything_missing(tmp_path, wrong):
    """Everything is still bound: verify finds no difference, or says that nothing is proven."""
    with sandbox(*faults(f"{wrong},count=6"), home=tmp_path) as url:
        home = Home(tmp_path, url)
        home.run(fleet(12, users=3), check=0)
        told = json.loads(home.do("verify", home.run_id(), "--json").stdout)

    if wrong in (STALE, "other-case=1", "doubled=1"):
        assert told["counts"]["same"] == 12
    assert told["counts"]["missing"] == told["counts"]["changed"] == 0
    assert {item["kind"] for item in told["differences"]} <= {"not_proven", "extra"}


@pytest.mark.slow
@pytest.mark.parametrize("wrong", WRONG_LISTS)
def test_no_wrong_list_makes_a_refresh_lose_anything(tmp_path, wrong):
    """Nothing has vanished: with --rebind-missing nothing is sent, nothing fails."""
    with sandbox(*faults(f"{wrong},count=6"), home=tmp_path) as url:
        home = Home(tmp_path, url)
        home.run(fleet(12, users=3), check=0)
        binds = home.stats()["binds"]
        done = home.run(fleet(12, users=3), "--rebind-missing", name="again")
        after = home.stats()["binds"]

    told = json.loads((tmp_path / "again" / "summary.json").read_text())
    assert statuses(tmp_path / "again") == {"skipped": 12}
    assert after == binds
    assert done.returncode == (1 if told["refreshed"].get("not_proven") else 0)


@pytest.mark.slow
@pytest.mark.parametrize("wrong", WRONG_LISTS)
def test_no_wrong_list_makes_an_export_wrong(tmp_path, wrong):
    """What it writes is bound, under its own name; what it leaves out, it says."""
    with sandbox(*faults(f"{wrong},count=2"), home=tmp_path) as url:
        home = Home(tmp_path, url)
        home.run(fleet(12, users=3), check=0)
        done = home.do("export", "user_1")
        held = {(user, code) for user, code in home.held() if user == "user_1"}

    written = {
        (row["user_id"], row["machine_code"]) for row in csv.DictReader(StringIO(done.stdout))
    }
    assert written <= held
    if wrong == "foreign=1":
        assert done.returncode == 3
        assert "it shows devices of other users" in done.stderr
    else:
        assert done.returncode == 0
        assert ("left out" in done.stderr) == (written < held) == (wrong == "paged=1")


@pytest.mark.slow
@pytest.mark.parametrize("wrong", WRONG_LISTS)
def test_an_undo_under_wrong_lists_sends_what_it_was_to_unbind_and_is_right(tmp_path, wrong):
    """It unbinds by device id; what it calls unbound or gone is not there any more."""
    rows = fleet(20, users=2)
    orders = faults(
        wrong, "reset-after=0.2,count=4,on=unbind", "reset-before=0.2,count=4,on=unbind"
    )
    with sandbox(*orders, home=tmp_path) as url:
        home = Home(tmp_path, url)
        home.run(rows[:4], name="others", check=0)
        home.run(rows, check=0)
        home.do("undo", home.run_id(), "--yes-unbind", "16", "--out", "undone")
        left = home.held()
        known = home.known()

    ended = undone(tmp_path)
    gone = {key for key, status in ended.items() if status in ("unbound", "already_gone")}
    assert len(ended) == 16
    assert gone.isdisjoint(left)
    assert "changed" not in ended.values()
    assert {(row[1], row[0]) for row in rows[:4]} <= left
    assert left <= known


def undone(folder):
    """Return the status of each binding in the report of an undo."""
    lines = (folder / "undone" / "undo.csv").read_text(encoding="utf-8").splitlines()
    header = lines[0].split(",")
    cells = [dict(zip(header, line.split(","), strict=False)) for line in lines[1:]]
    return {(row["user_id"], row["machine_code"]): row["status"] for row in cells}


@pytest.mark.slow
def test_a_device_with_two_entries_of_which_one_is_gone_is_not_called_changed(tmp_path):
    """The list shows a device under two ids: ours is there, so it is unbound, and by its id."""
    with sandbox(*faults("doubled=1"), home=tmp_path) as url:
        home = Home(tmp_path, url)
        home.run(fleet(3, users=1), check=0)
        home.do("undo", home.run_id(), "--yes-unbind", "3", "--out", "undone", check=0)
        left = home.held()

    assert set(undone(tmp_path).values()) == {"unbound"}
    assert left == set()


@pytest.mark.slow
def test_what_a_run_sent_itself_is_in_doubt_for_verify_not_unknown(tmp_path):
    """What got no answer is on the list and ours to settle; what another bound is extra."""
    with sandbox("--fault", "reset-after=1,count=3", home=tmp_path) as url:
        home = Home(tmp_path, url)
        (tmp_path / "config.yaml").write_text(f"{SETTINGS}readback: false\n", encoding="utf-8")
        home.run(fleet(3, users=1), check=1)
        home.run([("OTHER", "user_0", "", "")], "--ledger", "theirs.db", name="theirs", check=0)
        told = json.loads(home.do("verify", home.run_id(), "--json").stdout)
        text = home.do("verify", home.run_id())

    assert {kind: n for kind, n in told["counts"].items() if n} == {"in_doubt": 3, "extra": 1}
    assert "… user_0 " in text.stdout
    assert "3 in doubt" in text.stderr


# --- times ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("ahead", ["8h", "-8h", "10s"])
def test_a_create_time_outside_our_request_binds_nothing_for_us(tmp_path, ahead):
    """Local time called UTC: what others had bound is already_bound, and undo leaves it alone."""
    rows = fleet(6, users=2)
    with sandbox(*faults(f"local-time=1,for={ahead},on=all"), home=tmp_path) as url:
        home = Home(tmp_path, url)
        home.run(rows[:3], "--ledger", "theirs.db", name="theirs", check=0)
        home.run(rows, check=0)
        home.do("undo", home.run_id(), "--yes-unbind", "0", "--out", "undone")
        left = home.held()

    assert statuses(tmp_path / "fleet") == {"already_bound": 6}
    assert len(left) == 6


@pytest.mark.slow
def test_a_wrong_date_makes_no_binding_of_ours_somebody_elses(tmp_path):
    """Neither the first answer's, nor one amid others, nor two in a row; an undo unbinds all."""
    wrong = ("wrong-date=1,count=1,for=-2h", "wrong-date=0.04,for=-2h", "wrong-date=0.04,for=1h")
    with sandbox(*faults(*wrong), home=tmp_path) as url:
        home = Home(tmp_path, url)
        home.run(fleet(120, users=3), check=0)
        struck = home.stats()["wrong-date"]
        bound = statuses(tmp_path / "fleet")
        home.do("undo", home.run_id(), "--yes-unbind", "120", check=0)
        held = home.held()

    assert struck > 2
    assert bound == {"bound": 120}
    assert held == set()


@pytest.mark.slow
def test_a_create_time_within_our_request_is_ours(tmp_path):
    """A clock that is wrong as a whole, Date and createTime alike, changes nothing."""
    with sandbox("--clock-offset", "3h", home=tmp_path) as url:
        home = Home(tmp_path, url)
        home.run(fleet(6, users=2), check=0)

    assert statuses(tmp_path / "fleet") == {"bound": 6}


# --- answers to others ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("span", ["0s", "1ms", "20ms"])
def test_a_refusal_of_nobodys_request_fails_no_row(tmp_path, span):
    """An answer after an answer shifts what follows: all is read back, and nothing posted again."""
    orders = faults(f"unasked=0.3,for={span}", "delay-after=1,for=10ms")
    with sandbox(*orders, "--second-bind", "error", home=tmp_path) as url:
        home = Home(tmp_path, url)
        home.run(fleet(60, users=3))
        stats, held = home.stats(), home.held()
        home.run(fleet(60, users=3), name="again", check=0)
        later = home.stats()

    assert stats["unasked"] >= 5
    assert statuses(tmp_path / "fleet") == {"bound": 60}
    assert len(held) == 60
    assert later["binds"] == stats["binds"]
    assert stats.get("posted_again", 0) == 0
    summary = json.loads((tmp_path / "fleet" / "summary.json").read_text())
    assert summary["posted_again_after_bound"] == 0


class OneTooMany:
    """Binds, names no machine code unless told to, and may say more than it is asked."""

    def __init__(self, twice=0, early=b"", after_s=0.01):
        """*twice*: the number of the bind whose answer comes again, *after_s* later.

        *early*: what is said ahead of the answer to the second bind.
        """
        self._after_s = after_s
        self._early = early
        self.held: list[dict[str, str]] = []
        self.posts = self.lists = 0
        self.is_named = False
        self._twice = twice

    @asynccontextmanager
    async def serving(self):
        """Serve for the block; yield the port."""
        listening = await asyncio.start_server(self.talk, "127.0.0.1", 0)
        async with listening:
            yield listening.sockets[0].getsockname()[1]

    async def talk(self, reader, writer):
        """Serve a connection."""
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = re.search(r"(?i)content-length: (\d+)", head)
                body = await reader.readexactly(int(length[1]) if length else 0)
                if head.startswith("GET"):
                    self.lists += 1
                    writer.write(self.answer(self.held))
                    continue
                if self.posts == 1:
                    writer.write(self._early)
                await SystemClock().sleep(0.03)
                record = {
                    "deviceId": str(1842812272691451648 + self.posts),
                    "machineCode": json.loads(body)["machineCode"],
                    "createTime": iso(SystemClock().utc_now()),
                }
                self.posts += 1
                self.held.append(record)
                code = record["machineCode"] if self.is_named else None
                answer = self.answer({**record, "machineCode": code})
                writer.write(answer)
                if self.posts == self._twice:
                    asyncio.get_running_loop().call_later(self._after_s, writer.write, answer)
        writer.close()

    def answer(self, data):
        """Return an answer of success."""
        body = json.dumps({"code": 0, "msg": "success", "data": data}).encode()
        date = format_datetime(SystemClock().utc_now(), usegmt=True)
        return (
            f"HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )


async def run_here(folder, port, rows, name="fleet", **more):
    """Run bulkbind in this process, one request at a time, and return how it ended.

    *more*: settings.
    """
    config = folder / "config.yaml"
    config.write_text(SETTINGS.replace("concurrency: 4", "concurrency: 1"), encoding="utf-8")
    given = {"endpoint": f"http://127.0.0.1:{port}", "auth.token": "any"}
    given |= {"ledger": folder / "ledger.db", "out": folder / name, **more}
    manifest = write_csv(folder / f"{name}.csv", rows)
    return await library.run([manifest], library.load_settings(config, given))


@pytest.mark.slow
async def test_rows_bound_by_shifted_answers_are_doubted_and_read_back(tmp_path):
    """Each of them ends with the device id that the server has for it, not with its neighbour's."""
    server = OneTooMany(twice=3)
    async with server.serving() as port:
        result = await run_here(tmp_path, port, fleet(8, users=1))

    held = {record["machineCode"]: record["deviceId"] for record in server.held}
    rows = read_results(tmp_path / "fleet")
    assert result.exit_code == 0, result.report.summary.stop_reason if result.report else ""
    assert server.posts == 8
    assert {row["status"] for row in rows} == {"bound"}
    assert {row["machine_code"]: row["device_id"] for row in rows} == held


def early(status, body):
    """Return an answer that nobody asked for; what is put off is put off for a second."""
    text = json.dumps(body)
    head = f"HTTP/1.1 {status} So\r\nRetry-After: 1\r\nContent-Length: {len(text)}\r\n\r\n"
    return (head + text).encode()


LIMIT = "throttling threshold: policy user over ratelimit,limit:2,time:1 second"


@pytest.mark.slow
@pytest.mark.parametrize(
    "said",
    [
        early(200, {"code": 13000304, "msg": "target folder wrong"}),
        early(403, {"code": 13000410, "msg": "no right to this space"}),
        early(429, {"error_code": "APIG.0308", "error_msg": LIMIT}),
        early(503, {"code": 1, "msg": "busy"}),
    ],
    ids=["refused", "of-the-user", "throttled", "broken"],
)
async def test_whatever_is_said_ahead_of_an_answer_decides_nothing(tmp_path, said):
    """The row is bound, by one request of its own, and so are its neighbours."""
    server = OneTooMany(early=said)
    server.is_named = True
    async with server.serving() as port:
        result = await run_here(tmp_path, port, fleet(5, users=1))

    assert statuses(tmp_path / "fleet") == {"bound": 5}
    assert server.posts == 5
    assert result.report.summary.posted_again_after_bound == 0


@pytest.mark.slow
async def test_what_a_server_names_is_known_to_the_next_process(tmp_path):
    """It is in the ledger: an answer without the name, even the first, has the list read."""
    server, rows = OneTooMany(), fleet(4, users=1)
    server.is_named = True
    async with server.serving() as port:
        await run_here(tmp_path, port, rows[:2], name="first")
        before, server.is_named = server.lists, False
        result = await run_here(tmp_path, port, rows, name="second")

    assert (before, result.exit_code) == (0, 0)
    assert statuses(tmp_path / "second") == {"bound": 2, "skipped": 2}
    assert server.posts == 4
    assert server.lists >= 1
    assert all("list" in row["detail"] for row in rows_of(tmp_path, "bound", "second"))
