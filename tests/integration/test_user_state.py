"""A user whose own state refuses binds, over real sockets: proven by few answers, others go on."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

import bulkbind
from bulkbind.clock import SystemClock, iso
from tests.support.manifests import write_csv
from tests.support.processes import read_results

FULL = {"code": 13000311, "msg": "space full"}
PATH = "/koodrive/ose/v1/backup/device"


class Cloud:
    """A server that refuses every bind of some users, and keeps what it saw."""

    def __init__(self, bad, *, status=400, body=FULL, takes=0, says_more=False, took_s=0.02):
        self.bad, self.status, self.body, self.took_s = set(bad), status, body, took_s
        self.takes = takes
        """Binds of a bad user that are accepted first."""
        self.says_more = says_more
        """Whether a refusal is followed by bytes that nobody asked for."""
        self.lists_refused = self.lists_shown = self.lists_lack = False
        self.posts: Counter[str] = Counter()
        self.lists: Counter[str] = Counter()
        self.held: dict[str, dict[str, dict[str, str]]] = {}
        self.refused: dict[str, list[str]] = {}
        self.most_after_the_first = 0
        self._now: Counter[str] = Counter()
        self._answered: set[str] = set()

    async def bind(self, request: web.Request) -> web.StreamResponse:
        user, code = request.headers["X-User-Id"], (await request.json())["machineCode"]
        self.posts[user] += 1
        self._now[user] += 1
        if user in self._answered:
            self.most_after_the_first = max(self.most_after_the_first, self._now[user])
        await SystemClock().sleep(self.took_s)
        self._now[user] -= 1
        if user in self.bad and len(self.held.get(user, ())) >= self.takes:
            self._answered.add(user)
            self.refused.setdefault(user, []).append(code)
            if self.says_more:
                asyncio.get_running_loop().call_later(0.005, self._say_more, request)
            return web.json_response(self.body, status=self.status)
        return web.json_response({"code": 0, "msg": "success", "data": self._record(user, code)})

    async def list_devices(self, request: web.Request) -> web.StreamResponse:
        user = request.headers["X-User-Id"]
        self.lists[user] += 1
        if user in self.bad and self.lists_refused:
            return web.json_response(self.body, status=self.status)
        shown = list(self.held.get(user, {}).values())[2 * self.lists_lack :]
        if self.lists_shown:
            shown += [self._made(code) for code in self.refused.get(user, [])[:1]]
        return web.json_response({"code": 0, "msg": "success", "data": shown})

    def _record(self, user: str, code: str) -> dict[str, str]:
        return self.held.setdefault(user, {}).setdefault(code, self._made(code))

    def _made(self, code: str) -> dict[str, str]:
        number = 1842812272691451648 + sum(map(len, self.held.values()))
        now = iso(SystemClock().utc_now())
        return {"deviceId": str(number), "machineCode": code, "createTime": now}

    def _say_more(self, request: web.Request) -> None:
        if request.transport is not None and not request.transport.is_closing():
            request.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    @asynccontextmanager
    async def serving(self):
        app = web.Application()
        app.router.add_post(PATH, self.bind)
        app.router.add_get(PATH, self.list_devices)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.2)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


async def ran(folder, url, rows, **more):
    """Run rows of (user, count), one user after the other, and return what came of it."""
    devices = [(f"SN{user}{n:04d}", user) for user, count in rows for n in range(count)]
    manifest = write_csv(folder / "fleet.csv", devices, header=("machine_code", "user_id"))
    given = {"endpoint": url, "auth.token": "secret", "readback_settle": 0.1, "concurrency": 8}
    given |= {"ledger": folder / "l.db", "out": folder / "out", "max_attempts": 2} | more
    settings = bulkbind.load_settings(None, given)
    return await asyncio.wait_for(bulkbind.run([manifest], settings), 60)


def of_user(folder, user):
    """Return the rows of a user in the report."""
    return [row for row in read_results(folder / "out") if row["user_id"] == user]


@pytest.mark.parametrize("status", [200, 400, 409, 422])
@pytest.mark.parametrize("code", [13000301, 13000311, 13000410, "13000412"])
async def test_a_users_other_rows_fail_unsent_and_other_users_go_on(tmp_path, status, code):
    """Few answers and one list prove it; it counts as no wrong set-up, and needs no breaker."""
    cloud = Cloud(["bad"], status=status, body={"code": code, "msg": "its words"})
    async with cloud.serving() as url:
        # 8 rows of it may be in flight before the first answer comes.
        result = await ran(tmp_path, url, [("bad", 60), ("good", 40)], max_failures="12")
        rows = of_user(tmp_path, "bad")
        unsent = [row for row in rows if row["attempts"] == "0"]

        assert result.exit_code == 1
        assert result.report.summary.counts == {"bound": 40, "failed": 60}
        assert 3 <= cloud.posts["bad"] <= 9
        assert cloud.lists == {"bad": 1}
        assert len(unsent) == 60 - cloud.posts["bad"]
        assert {(row["code"], row["message"]) for row in rows} == {(str(code), "its words")}
        assert all("the user's state refuses binds" in row["detail"] for row in unsent)
        assert all(row["trace_id"] == row["http_status"] == "" for row in unsent)

        cloud.bad.clear()
        again = await ran(tmp_path, url, [("bad", 60), ("good", 40)])

    assert again.exit_code == 0
    assert again.report.summary.counts == {"bound": 60, "skipped": 40}


async def test_a_code_that_is_set_speaks_of_the_user_and_others_do_not(tmp_path):
    """`user_codes` replaces the published ones."""
    cloud = Cloud(["bad"])
    async with cloud.serving() as url:
        await ran(tmp_path, url, [("bad", 20)], user_codes=["13000999"])

    assert cloud.posts["bad"] == 20


async def test_one_row_of_the_user_is_in_flight_from_the_first_answer_on(tmp_path):
    """Also where there are many workers, and the rows come in turns with others'."""
    cloud = Cloud(["bad"], took_s=0.05)
    cloud.lists_shown = True  # so that it is never proven
    async with cloud.serving() as url:
        result = await ran(tmp_path, url, [("good", 1), ("bad", 20), ("more", 10)])

    assert cloud.most_after_the_first == 1
    assert cloud.posts == {"good": 1, "bad": 20, "more": 10}
    assert result.report.summary.counts == {"bound": 11, "failed": 20}


async def test_a_list_that_shows_a_refused_row_proves_nothing(tmp_path):
    """Then the answers lie, and every row is sent."""
    cloud = Cloud(["bad"])
    cloud.lists_shown = True
    async with cloud.serving() as url:
        await ran(tmp_path, url, [("bad", 20)])

    assert cloud.posts["bad"] == 20
    assert cloud.lists["bad"] >= 1
    assert all(row["attempts"] == "1" for row in of_user(tmp_path, "bad"))


async def test_a_list_refused_with_the_same_code_counts_as_read(tmp_path):
    """Such a user may not even list devices."""
    cloud = Cloud(["bad"])
    cloud.lists_refused = True
    async with cloud.serving() as url:
        await ran(tmp_path, url, [("bad", 60)])

    assert cloud.posts["bad"] <= 9
    assert cloud.lists["bad"] == 1


async def test_without_lists_there_is_no_proof(tmp_path):
    """Each row is sent, and fails by its own answer."""
    cloud = Cloud(["bad"])
    async with cloud.serving() as url:
        await ran(tmp_path, url, [("bad", 20)], readback=False)

    assert (cloud.posts["bad"], cloud.lists["bad"]) == (20, 0)


async def test_a_list_that_lacks_what_is_known_proves_nothing(tmp_path):
    """It may be old, or a part: every row has an answer of its own."""
    cloud = Cloud([])
    async with cloud.serving() as url:
        await ran(tmp_path, url, [("bad", 4)])
        cloud.bad, cloud.lists_lack = {"bad"}, True
        result = await ran(tmp_path, url, [("bad", 16)])

    assert result.report.summary.counts == {"skipped": 4, "failed": 12}
    assert cloud.posts["bad"] == 4 + 12
    assert cloud.lists["bad"] >= 1


async def test_a_user_with_an_accepted_row_is_asked_for_each_other(tmp_path):
    """The space was not full for that one, so it may not be for the next."""
    cloud = Cloud(["bad"], takes=2)
    async with cloud.serving() as url:
        result = await ran(tmp_path, url, [("bad", 30)])

    assert cloud.posts["bad"] == 30
    assert result.report.summary.counts == {"bound": 2, "failed": 28}


async def test_answers_on_connections_that_say_more_prove_nothing(tmp_path):
    """What came may belong to another request, so every row has an answer of its own."""
    cloud = Cloud(["bad"], says_more=True)
    async with cloud.serving() as url:
        await ran(tmp_path, url, [("bad", 12)], concurrency=2)

    assert all(row["attempts"] != "0" for row in of_user(tmp_path, "bad"))
    assert cloud.posts["bad"] >= 12


@pytest.mark.slow
async def test_what_waits_for_its_users_turn_is_pending_when_the_run_stops(tmp_path):
    """It was not sent, and the next run goes on with it."""
    cloud = Cloud(["bad"], took_s=0.2)
    cloud.lists_shown = True
    async with cloud.serving() as url:
        stopped = await ran(tmp_path, url, [("bad", 40)], deadline=1.5)
        left = stopped.report.summary.counts["pending"]
        cloud.bad.clear()
        again = await ran(tmp_path, url, [("bad", 40)])

    assert stopped.exit_code == 3
    assert cloud.posts["bad"] == 40
    assert again.report.summary.counts["bound"] == left
    summary = json.loads((tmp_path / "out/summary.json").read_text(encoding="utf-8"))
    assert "in_doubt" not in summary["counts"]
