"""Lists that cannot be trusted, lists that are huge, and servers that bind late."""

from __future__ import annotations

import asyncio
import itertools
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

import bulkbind
from bulkbind.clock import SystemClock, epoch_of, iso
from bulkbind.report import as_text
from bulkbind.sandbox import Sandbox, SandboxOptions, parse_fault
from tests.benchmarks.bench import ran
from tests.support.manifests import fleet, write_csv
from tests.support.processes import BULKBIND, read_results, sandbox, statuses

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PATH = "/koodrive/ose/v1/backup/device"
SETTINGS = """\
timeout: 500ms
list_timeout: 500ms
readback_settle: 150ms
backoff_base: 20ms
backoff_cap: 50ms
max_attempts: 2
concurrency: 4
"""
Listed = list[dict[str, str]]


class Server:
    """Binds, and leaves every third bind unanswered; what its lists show can be changed."""

    def __init__(self) -> None:
        self.held: dict[str, Listed] = {}
        self.posts: list[str] = []
        self.lists = 0
        self.show: Callable[[str], Any] = self.honest
        """Answers to a user's list: records, a status, or seconds to wait."""
        self.url = ""

    def honest(self, user: str) -> Listed:
        """Return what is held."""
        return self.held.get(user, [])

    def all_codes(self) -> list[str]:
        """Return every machine code that is held."""
        return sorted(record["machineCode"] for held in self.held.values() for record in held)

    async def bind(self, request: web.Request) -> web.StreamResponse:
        code = (await request.json())["machineCode"]
        held = self.held.setdefault(request.headers["X-User-Id"], [])
        self.posts.append(code)
        is_lost = len(self.posts) % 3 == 0
        record = {
            "deviceId": str(1842812272691451648 + len(self.posts)),
            "machineCode": code,
            "createTime": iso(SystemClock().utc_now()),
        }
        held.append(record)
        if is_lost:
            return web.Response(status=502)
        return web.json_response({"code": 0, "msg": "success", "data": record})

    async def list(self, request: web.Request) -> web.StreamResponse:
        self.lists += 1
        shown = self.show(request.headers["X-User-Id"])
        if isinstance(shown, float):
            await SystemClock().sleep(shown)
            shown = self.honest(request.headers["X-User-Id"])
        if isinstance(shown, int):
            return web.Response(status=shown)
        return web.json_response({"code": 0, "msg": "success", "data": shown})

    @asynccontextmanager
    async def serving(self):
        """Serve for the block."""
        app = web.Application()
        app.router.add_post(PATH, self.bind)
        app.router.add_get(PATH, self.list)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.2)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()


def bad_lists(server: Server) -> dict[str, Callable[[str], Any]]:
    """Return lists that do not say what is bound."""
    honest = server.honest
    return {
        "empty": lambda _user: [],
        "cut off": lambda user: honest(user)[:3],
        "cut at the front": lambda user: honest(user)[-3:],
        "of another user": lambda user: [
            x for who in server.held if who != user for x in honest(who)
        ],
        "without machine codes": lambda user: [x | {"machineCode": None} for x in honest(user)],
        "of text": lambda user: [x["machineCode"] for x in honest(user)],
        "slow": lambda _user: 0.7,
        "404": lambda _user: 404,
        "405": lambda _user: 405,
    }


PATIENT = SETTINGS.replace("timeout: 500ms", "timeout: 20s", 1)
"""Nine runs at once may keep a bind waiting; their lists may not."""


async def ran_here(server, folder, manifest, settings=SETTINGS, out="out"):
    """Run bulkbind in this process, and return how it ended."""
    (folder / "config.yaml").write_text(settings, encoding="utf-8")
    given = {"endpoint": server.url, "auth.token": "any"}
    given |= {"ledger": folder / "l.db", "out": folder / out}
    return await bulkbind.run([manifest], bulkbind.load_settings(folder / "config.yaml", given))


@dataclass(frozen=True)
class Misled:
    """What a run leaves whose lists are bad, and then one whose lists are good."""

    code: int
    rows: list[dict[str, str]]
    posts: int
    later_code: int
    later_statuses: dict[str, int]
    server: Server


async def misled(name: str, folder: Path) -> Misled:
    """Bind a fleet with bad lists, then once more with good ones."""
    server = Server()
    manifest = write_csv(folder / "fleet.csv", fleet(30, users=2))
    async with server.serving():
        server.show = bad_lists(server)[name]
        first = await ran_here(server, folder, manifest, PATIENT, out="first")
        posts = len(server.posts)
        server.show = server.honest
        later = await ran_here(server, folder, manifest, PATIENT, out="later")
    return Misled(
        first.exit_code,
        read_results(folder / "first"),
        posts,
        later.exit_code,
        statuses(folder / "later"),
        server,
    )


@pytest.fixture(scope="module")
def with_bad_lists(tmp_path_factory):
    """Return what came of bad lists, by their name; all at once, since they wait more than work."""
    names = list(bad_lists(Server()))

    async def all_of_them():
        folders = [tmp_path_factory.mktemp("lists") for _ in names]
        return await asyncio.gather(*map(misled, names, folders))

    return dict(zip(names, asyncio.run(all_of_them()), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", bad_lists(Server()))
def test_a_list_that_cannot_be_trusted_settles_nothing(with_bad_lists, name):
    """Rows that it lacks stay in doubt with the reason, exit 1; later, a good list settles them."""
    found = with_bad_lists[name]

    doubtful = [row for row in found.rows if row["status"] == "in_doubt"]
    assert found.code == 1
    assert {row["status"] for row in found.rows} == {"bound", "in_doubt"}
    assert 1 <= len(doubtful) <= 10
    assert all("the user's list cannot be" in row["detail"] for row in doubtful)
    assert found.posts == len(found.server.posts) == 30
    assert (found.later_code, found.later_statuses) == (0, {"skipped": 30})
    assert found.server.all_codes() == [row[0] for row in fleet(30)]


# --- late servers ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Late:
    """What a late server leaves."""

    summary: dict[str, Any]
    stats: dict[str, float]


async def late(folder, second_bind, span, settings) -> Late:
    """Bind a fleet on a sandbox that does some binds late, and return what is left."""
    fault = parse_fault(f"delay-before=0.3,count=6,{span}")
    options = SandboxOptions(faults=(fault,), second_bind=second_bind, seed=2)
    manifest = write_csv(folder / "fleet.csv", fleet(30, users=3))
    async with Sandbox(options) as server:
        result = await ran_here(server, folder, manifest, settings)
        assert result.exit_code == 0
        await SystemClock().sleep(max(0.0, 5.0 - server.stats()["uptime_s"]))
    summary = json.loads((folder / "out/summary.json").read_text(encoding="utf-8"))
    return Late(summary, server.stats())


@pytest.mark.slow
@pytest.mark.parametrize("second_bind", ["same", "error"])
async def test_what_is_bound_late_but_within_the_settling_time_is_posted_once(
    tmp_path, second_bind
):
    """A binding that comes after its client gave up is waited for, and found in the list."""
    settings = SETTINGS.replace("150ms", "700ms")
    evidence = await late(tmp_path, second_bind, "for=900ms", settings)

    assert evidence.summary["counts"] == {"bound": 30}
    assert evidence.summary["posted_again_after_bound"] == 0
    assert evidence.stats["binds"] == 30


@pytest.mark.slow
@pytest.mark.parametrize("second_bind", ["same", "error"])
async def test_what_is_bound_later_than_that_never_fails(tmp_path, second_bind):
    """Two requests for one device leave it bound, in whatever order they are done."""
    evidence = await late(tmp_path, second_bind, "for=4s", SETTINGS)

    assert evidence.summary["counts"].keys() <= {"bound", "already_bound"}
    assert evidence.stats["bindings"] == 30
    assert evidence.stats["binds"] > 30


class Slow(Server):
    """Does the first bind of some devices late, and answers their second one with 503 then."""

    def __init__(self, *, is_second_an_error: bool) -> None:
        super().__init__()
        self._is_second_an_error = is_second_an_error
        self._done: dict[str, asyncio.Task[None]] = {}

    async def bind(self, request: web.Request) -> web.StreamResponse:
        user, code = request.headers["X-User-Id"], (await request.json())["machineCode"]
        self.posts.append(code)
        tries = self.posts.count(code)
        if code.endswith("5") and tries == 1:
            nap = self._late(user, code)
            self._done[code] = asyncio.create_task(nap, name="a late bind")
            await asyncio.shield(self._done[code])
        elif code.endswith("5") and tries == 2:
            await self._done[code]
            # Accepted, a repeat is told by times, of which `Date` has whole seconds.
            later = "0" if self._is_second_an_error else "2"
            return web.Response(status=503, headers={"Retry-After": later})
        known = [x for x in self.honest(user) if x["machineCode"] == code]
        if known and self._is_second_an_error:
            return web.json_response({"code": 13000310, "msg": "device already bound"})
        record = known[0] if known else self._record(user, code)
        return web.json_response({"code": 0, "msg": "success", "data": record})

    async def _late(self, user: str, code: str) -> None:
        await SystemClock().sleep(3.2)
        self._record(user, code)

    def _record(self, user: str, code: str) -> dict[str, str]:
        number = 1842812272691451648 + len(self.all_codes())
        now = iso(SystemClock().utc_now())
        record = {"deviceId": str(number), "machineCode": code, "createTime": now}
        self.held.setdefault(user, []).append(record)
        return record


@pytest.mark.slow
@pytest.mark.parametrize("is_second_an_error", [False, True], ids=["same", "error"])
async def test_what_is_posted_again_after_it_was_bound_is_counted(tmp_path, is_second_an_error):
    """Each device that a late server made us post again is told, is bound, and never failed."""
    server = Slow(is_second_an_error=is_second_an_error)
    manifest = write_csv(tmp_path / "fleet.csv", fleet(30, users=3))
    settings = SETTINGS.replace("max_attempts: 2", "max_attempts: 6").replace("500ms", "2s")
    async with server.serving():
        result = await ran_here(server, tmp_path, manifest, settings)

    summary = json.loads((tmp_path / "out/summary.json").read_text(encoding="utf-8"))
    assert server.posts.count("SN000005") == 3
    assert summary["posted_again_after_bound"] == 3
    assert result.report is not None
    assert "3 requests repeated a bind that had already succeeded" in as_text(result.report.summary)
    assert statuses(tmp_path / "out").keys() <= {"bound", "already_bound"}
    assert server.all_codes() == [row[0] for row in fleet(30)]


# --- huge lists -----------------------------------------------------------------------------------

HUGE = 100_000
MOST_MB = 350
LONGEST_GAP_S = 8.0


@pytest.mark.slow
def test_a_list_of_100_000_devices_settles_doubt_beside_the_sending(tmp_path):
    """Doubt among 100,000 devices of one user is settled; memory is bounded, others go on."""
    state, journal = tmp_path / "state.jsonl", tmp_path / "journal.jsonl"
    with state.open("w", encoding="utf-8") as file:
        for number in range(HUGE):
            record = {
                "deviceId": str(1842812272691451648 + number),
                "machineCode": f"OLD{number:06d}",
                "deviceName": f"Van {number}",
                "deviceOS": "Android 15",
                "createTime": "2025-12-17T06:19:01.803Z",
            }
            file.write(json.dumps({"user": "whale", "record": record}) + "\n")
    rows = [(f"SN{n:04d}", "whale" if n < 60 else f"u{n}", "", "") for n in range(400)]
    manifest = write_csv(tmp_path / "fleet.csv", rows)
    settings = SETTINGS.replace("list_timeout: 500ms", "list_timeout: 30s")
    (tmp_path / "config.yaml").write_text(settings.replace("max_attempts: 2", ""), encoding="utf-8")
    faults = ("--fault", "reset-after=0.25,count=10", "--fault", "reset-before=0.25,count=10")
    common = ("--state", str(state), "--journal", str(journal), "--second-bind", "error")
    with sandbox(*common, *faults, "--seed", "3", home=tmp_path) as url:
        run = ["run", manifest, "--endpoint", url, "--config", "config.yaml", "--out", "out"]
        done = ran([*BULKBIND, *run, "--rate", "100"], cwd=tmp_path)

    lines = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    lists = [x for x in lines if x["method"] == "GET" and x["user_id"] == "whale"]
    binds = sorted(epoch_of(x["at"]) or 0.0 for x in lines if x["method"] == "POST")
    gaps = [after - before for before, after in itertools.pairwise(binds)]
    first, last = (epoch_of(lists[at]["at"]) or 0.0 for at in (0, -1))
    assert done.code == 0, done.stderr
    assert statuses(tmp_path / "out") == {"bound": 400}
    assert not [x for x in lines if "posted_again" in x["result"]]
    assert any(x["user_id"] == "whale" for x in lines if x["result"].startswith("reset-before"))
    assert any(x["user_id"] == "whale" for x in lines if x["result"].startswith("reset-after"))
    assert done.peak_bytes < MOST_MB * 1e6
    assert max(gaps) < LONGEST_GAP_S
    assert sum(first < moment < last for moment in binds) > 10
