"""A wrong set-up, over real sockets: the run stops, names the setting, and loses no row."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from contextlib import closing
from datetime import UTC, datetime

import pytest
from aiohttp import web

import bulkbind
from bulkbind.clock import SystemClock
from bulkbind.engine.decide import setting_to_check
from bulkbind.ledger.store import CODES
from bulkbind.model import Attempt, NoAnswer, Refused, Status
from bulkbind.sandbox import Sandbox
from tests.integration.test_client import server
from tests.support.manifests import fleet, write_csv

ROWS = 40


class Hasty(SystemClock):
    """Waits are twenty times as short as they should be."""

    def __init__(self):
        self._began = super().monotonic()
        self._began_at = super().utc_now()

    def utc_now(self) -> datetime:
        return self._began_at + 20 * (super().utc_now() - self._began_at)

    def monotonic(self) -> float:
        return self._began + 20 * (super().monotonic() - self._began)

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds / 20)


def settings(folder, endpoint, **more):
    """Return settings for a ledger and a report in *folder*."""
    given = {"endpoint": endpoint, "auth.token": "secret-token", "backoff_base": 0.05}
    given |= {"ledger": folder / "l.db", "out": folder / "out", "readback_settle": 0.2}
    given |= {"backoff_cap": 0.1, "max_attempts": 2}
    return bulkbind.load_settings(None, given | more)


async def ran(folder, endpoint, *, clock=None, **more):
    """Run a fleet, and return what came of it."""
    manifest = write_csv(folder / "fleet.csv", fleet(ROWS))
    chosen = settings(folder, endpoint, **more)
    return await asyncio.wait_for(bulkbind.run([manifest], chosen, clock=clock), 60)


def assert_stopped(result, words, hint, *, pending=ROWS):
    """It stopped with 3, says why and which setting, and every row is pending, without a try."""
    summary = result.report.summary
    assert result.exit_code == 3
    assert words in summary.stop_reason
    assert hint in result.hint
    assert summary.counts == {"pending": pending}
    assert summary.state.value == "stopped"
    assert "secret-token" not in f"{summary}{result.hint}"


def answers(status, body=b"", **headers):
    """Return a handler that always says the same."""

    async def handler(_request):
        return web.Response(status=status, body=body, headers=headers)

    return handler


def told(code, message="words of the gateway"):
    """Return an answer of the gateway's."""
    return f'{{"error_code": "{code}", "error_msg": "{message}"}}'.encode()


REFUSALS = {
    "403": (answers(403, told("APIG.0302")), "HTTP 403 APIG.0302 words", "check the rights of the"),
    "400 of no kind": (
        answers(400, b'{"code": 400, "msg": "not like this"}'),
        "HTTP 400 400 not like this",
        "check the credentials (BULKBIND_TOKEN or `auth:`) and `auth: token_prefix:`",
    ),
    "400 parameters": (
        answers(400, b'{"code": 13000102, "msg": "bad"}'),
        "HTTP 400 13000102 bad",
        "the users (`user_id`, --user-id)",
    ),
    "404": (answers(404, b"<h1>Not Found</h1>"), "HTTP 404 Not Found", "check `path`"),
    "405": (answers(405), "HTTP 405", "check `path`"),
    "302": (
        answers(302, Location="https://elsewhere.invalid/"),
        "HTTP 302",
        "check `endpoint` (--endpoint): scheme and host",
    ),
    "200 HTML": (answers(200, b"<html>log in</html>"), "is not JSON", "something else than Koo"),
    "500": (answers(500), "HTTP 500", "the service is in trouble"),
    "501": (answers(501), "HTTP 501", "or `endpoint` and `path` lead to another one"),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_refusals_of_one_kind_stop_a_run_after_a_handful(tmp_path, name):
    """A few requests, one at a time; the setting is named; and with it fixed the run goes on."""
    handler, words, hint = REFUSALS[name]
    async with server(handler) as seen:
        result = await ran(tmp_path, seen.url)
        posts = [method for method, *_ in seen.requests].count("POST")

    doubtful = result.report.summary.counts.pop("in_doubt", 0)
    assert_stopped(result, words, hint, pending=ROWS - doubtful)
    assert doubtful == (5 if name == "200 HTML" else 0)
    assert posts <= 5 * 2
    assert result.is_endpoint_wrong == (name in {"302", "404", "405", "501"})
    assert "of the first 5 devices could be bound, so the settings, or the service, are" in (
        result.report.summary.stop_reason
    )


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, told("APIG.0307"), "HTTP 401 APIG.0307"),
        (400, b'{"code": 400, "msg": "authentication not passed"}', "HTTP 400 400"),
    ],
)
async def test_a_wrong_token_stops_at_once(tmp_path, status, body, words):
    """One refusal is enough, and its hint names the variable and the word before the token."""
    async with server(answers(status, body)) as seen:
        result = await ran(tmp_path, seen.url)

    assert len(seen.requests) == 1
    assert_stopped(result, f"does not accept the credentials ({words}", "BULKBIND_TOKEN")
    assert "token_prefix" in result.hint


async def test_a_wrong_path_is_named(tmp_path):
    """The sandbox's own 404; with the right path, the same run goes on to its end."""
    async with Sandbox() as sandbox:
        wrong = await ran(tmp_path, sandbox.url, path="/koodrive/nonsense/v1/backup/device")
        right = await bulkbind.resume(settings(tmp_path, sandbox.url))

    assert_stopped(wrong, "HTTP 404", "check `path`")
    assert right.exit_code == 0
    assert right.report is not None
    assert right.report.summary.run_id == wrong.report.summary.run_id
    assert right.report.summary.counts == {"bound": ROWS}


@pytest.mark.parametrize(
    ("endpoint", "words", "hint"),
    [
        ("https://nowhere.invalid", "the host name is not known", "the host name in `endpoint`"),
        ("http://127.0.0.1:9", "no connection", "host and port in `endpoint`"),
        ("https:", "TLS failed", "SSL_CERT_FILE"),
    ],
    ids=["dns", "refused", "tls"],
)
async def test_an_endpoint_that_cannot_be_reached_is_named(tmp_path, endpoint, words, hint):
    """Five failed connections, with growing pauses; which part of it is wrong is said."""
    async with Sandbox() as sandbox:
        place = sandbox.url.replace("http:", endpoint) if endpoint == "https:" else endpoint
        result = await ran(tmp_path, place, clock=Hasty())

    assert_stopped(result, words, hint)
    assert result.is_endpoint_wrong
    assert "ssl:default" not in result.report.summary.stop_reason


@pytest.mark.parametrize("kind", ["run", "refresh", "doubt", "undo"])
async def test_an_endpoint_that_has_served_before_is_waited_for(tmp_path, kind):
    """Refused connections cost no night where the ledger has bindings from that endpoint."""
    async with Sandbox() as first:
        bound = await bulkbind.run(
            [write_csv(tmp_path / "first.csv", fleet(9))], settings(tmp_path, first.url)
        )
        url = first.url
    clock = Hasty()
    later = Sandbox(port=int(url.rpartition(":")[2]), clock=clock)

    async def come_back():
        await clock.sleep(20.0)
        await later.__aenter__()

    coming = asyncio.create_task(come_back())
    if kind == "undo":
        assert bound.report is not None
        run_id = bound.report.summary.run_id
        undone = await bulkbind.undo(settings(tmp_path, url), run_id, devices=9, clock=clock)
        assert undone.summary is not None
        exit_code, left = undone.exit_code, 9 - sum(undone.summary.counts.values())
    else:
        if kind == "doubt":
            with closing(sqlite3.connect(tmp_path / "l.db")) as db:
                db.execute("UPDATE stored_rows SET status = ?", (CODES[Status.IN_DOUBT],))
                db.commit()
        result = await ran(tmp_path, url, clock=clock, refresh=kind == "refresh")
        exit_code, left = result.exit_code, result.report.summary.counts.get("pending", 0)
    await coming
    await later.__aexit__(None, None, None)

    assert later.counts["requests"] > 0
    assert left == 0
    assert exit_code in {0, 1}  # 1: the sandbox that comes back knows nothing of before


def test_no_hint_says_to_fix_an_endpoint_that_has_served():
    """Neither where it answers as another server would, nor where it is silent."""
    for status in (302, 404, 405, 501, 500, None):
        attempt = Attempt(Refused() if status else NoAnswer(), http_status=status)
        assert "endpoint" in setting_to_check(attempt)
        assert "--endpoint" not in setting_to_check(attempt, has_served=True)
    assert "rights" in setting_to_check(Attempt(Refused(), http_status=403), has_served=True)


@pytest.mark.parametrize(
    ("status", "code", "after", "when"),
    [
        (405, "APIG.0501", None, "the gateway does not say when"),
        (405, "APIG.0502", "3600", "resume after 20"),
    ],
    ids=["quota", "quota, told"],
)
async def test_a_quota_that_is_used_up_says_when_to_go_on(tmp_path, status, code, after, when):
    """One request; the moment to go on is told where the gateway tells it."""
    headers = {"Retry-After": after} if after else {}
    async with server(answers(status, told(code), **headers)) as seen:
        result = await ran(tmp_path, seen.url)

    assert len(seen.requests) == 1
    assert_stopped(result, f"the gateway's quota is used up ({code}", when)


@pytest.mark.parametrize("message", ["limit:1000,time:1 day", "limit:1000,time:1 hour"])
async def test_a_limit_per_day_says_when_to_go_on(tmp_path, message):
    """A wait beyond max_wait is not waited out: exit 3 and the moment."""
    async with server(answers(429, told("APIG.0308", f"throttled, {message}"))) as seen:
        result = await ran(tmp_path, seen.url)

    assert_stopped(result, "longer than `max_wait` (2 min)", "resume after 20")
    moment = re.search(r"after (\S{10} \S{8}) UTC,", result.hint)
    assert moment
    assert datetime.fromisoformat(moment[1]).replace(tzinfo=UTC) > datetime(2026, 1, 1, tzinfo=UTC)


async def test_doubt_that_can_be_listed_proves_nothing_of_binds(tmp_path):
    """Lists work, binds are 403: the rows behind the doubt are not failed one by one."""
    binds = 0

    async def handler(request):
        nonlocal binds
        if request.method == "GET":
            return web.json_response({"code": 0, "msg": "success", "data": []})
        binds += 1
        return web.Response(status=502 if binds == 1 else 403)

    async with server(handler) as seen:
        first = await ran(tmp_path, seen.url)
        again = await bulkbind.resume(settings(tmp_path, seen.url))

    for result in (first, again):
        assert result.report is not None
        assert result.exit_code == 3
        assert result.report.summary.counts.keys() <= {"pending", "in_doubt"}
        assert "HTTP 403" in str(result.report.summary.stop_reason)
