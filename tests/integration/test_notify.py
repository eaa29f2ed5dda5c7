"""Whom a run tells that it has ended: commands and webhooks that work, fail, hang and redirect."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from bulkbind.app.notices.notify import follow_up, pinged
from bulkbind.app.notices.run_end import Ending
from bulkbind.clock import SystemClock
from bulkbind.engine import StopReason, StopSignal
from bulkbind.sandbox.tls import Tls
from bulkbind.settings import EndSettings, Settings
from tests.support.fake_clock import FakeClock
from tests.support.processes import BULKBIND, environment

SECRET = "T000/B000/very-secret-path"


class Hook:
    """A webhook in this process: answers as planned, then 200."""

    def __init__(self, *planned):
        self.planned = list(planned)
        self.bodies = []
        self.paths = []

    async def answer(self, request):
        self.paths.append(request.path)
        self.bodies.append(await request.json() if request.can_read_body else None)
        status = self.planned.pop(0) if self.planned else 200
        headers = {"Location": "/elsewhere"} if status // 100 == 3 else {}
        return web.Response(status=status, headers=headers)

    @asynccontextmanager
    async def served(self, tmp_path, tls=None):
        """Serve, and yield the file that holds the address. *tls*: of `Tls`."""
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls and tls.context())
        await site.start()
        host, port = runner.addresses[0]
        scheme = "https" if tls else "http"
        yield address_file(tmp_path, f"{scheme}://{host}:{port}/{SECRET}\n")
        await runner.cleanup()


def address_file(tmp_path, text, mode=0o600):
    """Return a file that holds an address."""
    path = tmp_path / "hook"
    path.write_text(text)
    path.chmod(mode)
    return path


def ending(exit_code=1, *, is_change=False, is_news=True, text="2 rows of a<b & c need a person"):
    """Return how some run ended."""
    return Ending(
        exit_code=exit_code,
        about="fleet.csv",
        text=text,
        summary={"run_id": "r", "exit_code": exit_code},
        is_change=is_change,
        is_news=is_news,
    )


async def told(given, what=None, stop=None, **more):
    """Tell; return what could not be done."""
    settings = Settings(end=EndSettings(**given, **more))
    found = await follow_up(settings, what or ending(), FakeClock(), 1.0, stop or StopSignal())
    return found.troubles


async def test_a_stop_ends_the_telling(tmp_path):
    """One that comes meanwhile, after which nobody waits; an earlier one is what is told."""
    began, stop = tmp_path / "began", StopSignal()
    code = f"import pathlib, time; pathlib.Path({str(began)!r}).touch(); time.sleep(60)"
    telling = asyncio.create_task(told({"notify_command": script(tmp_path, code)}, stop=stop))
    while not began.exists():
        await SystemClock().sleep(0.02)
    stop.set(StopReason("interrupted by SIGTERM"))

    assert await asyncio.wait_for(telling, timeout=10) == [
        "the notification was cut off, since the command was stopped"
    ]
    assert await told({"notify_command": script(tmp_path, "")}, stop=stop) == []


async def test_a_webhook_gets_text_and_summary(tmp_path):
    """One post: the text with Slack's own marks escaped, and the JSON beside it."""
    hook = Hook()
    async with hook.served(tmp_path) as path:
        troubles = await told({"notify_url_file": path})

    assert troubles == []
    assert hook.bodies == [
        {
            "text": "2 rows of a&lt;b &amp; c need a person",
            "summary": {"run_id": "r", "exit_code": 1},
        }
    ]


@pytest.mark.slow
@pytest.mark.parametrize("is_known", [True, False])
async def test_a_command_tells_whom_the_systems_authorities_vouch_for(tmp_path, is_known):
    """Over TLS, in a process of its own; nobody else."""
    tls, hook = Tls.make(), Hook()
    known = tls.ca_file if is_known else tmp_path / "none"
    async with hook.served(tmp_path, tls) as path:
        (tmp_path / "bulkbind.yaml").write_text(f"notify_url_file: {path}\n", encoding="utf-8")
        words = ["run", "missing.csv", "--endpoint", "http://127.0.0.1:1"]
        command = await asyncio.create_subprocess_exec(
            *[*BULKBIND, *words, "--config", "bulkbind.yaml"],
            cwd=tmp_path,
            env=environment(tmp_path, SSL_CERT_FILE=str(known), SSL_CERT_DIR=str(tmp_path)),
            stderr=asyncio.subprocess.PIPE,
        )
        _, told = await command.communicate()
    tls.close()

    assert command.returncode == 2
    assert len(hook.bodies) == is_known
    assert (b"did not take it: ClientConnectorCertificateError" in told) is not is_known


async def test_an_address_as_windows_writes_it_is_read(tmp_path):
    """A byte order mark and CR LF are no part of it."""
    hook = Hook()
    async with hook.served(tmp_path) as path:
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().strip() + b"\r\n")
        troubles = await told({"notify_url_file": path})

    assert troubles == []
    assert len(hook.bodies) == 1


@pytest.mark.parametrize(
    ("planned", "posts", "is_taken"),
    [
        ((500, 503), 3, True),
        ((429,), 2, True),
        ((500, 500, 500), 3, False),
        ((404,), 1, False),
        ((302,), 1, False),
    ],
    ids=["comes back", "throttled", "stays away", "unknown", "redirect"],
)
async def test_a_webhook_is_tried_three_times(tmp_path, planned, posts, is_taken):
    """What may pass is tried again; a final no and a redirect are not; no secret is told."""
    hook = Hook(*planned)
    async with hook.served(tmp_path) as path:
        troubles = await told({"notify_url_file": path})

    assert len(hook.bodies) == posts
    assert set(hook.paths) == {f"/{SECRET}"}
    assert bool(troubles) != is_taken
    assert "very-secret" not in "".join(troubles)


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [
        ("http://example.test/x", 0o600, "holds no https address"),
        ("ftp://127.0.0.1/x", 0o600, "holds no https address"),
        ("https://", 0o600, "holds no https address"),
        ("https://[", 0o600, "holds no https address"),
        ("", 0o600, "holds no https address"),
        (f"http://127.0.0.1:9/{SECRET}", 0o600, "did not take it: ClientConnectorError"),
        (f"http://127.0.0.1:9/{SECRET}", 0o644, "can be read by others"),
        (f"http://127.0.0.1:9/{SECRET}", 0o620, "can be written by others"),
        (f"https://a..b/{SECRET}", 0o600, "holds no https address"),
        (f"https://{'a' * 64}.test/{SECRET}", 0o600, "holds no https address"),
        (f"https://a\nb/{SECRET}", 0o600, "holds no https address"),
        (f"https://\u202eb/{SECRET}", 0o600, "holds no https address"),
        (f"https://ho st/{SECRET}", 0o600, "holds no https address"),
        (f"https://host:99999/{SECRET}", 0o600, "holds no https address"),
        (f"https://[::1%25lo]/{SECRET}", 0o600, "holds no https address"),
        (f"https://xn--\u20ac.invalid/{SECRET}", 0o600, "holds no https address"),
        (f"https://{'a.' * 150}invalid/{SECRET}", 0o600, "did not take it"),
    ],
)
async def test_an_address_that_will_not_do_is_told_without_it(tmp_path, text, mode, why):
    """Nothing is sent in clear to another host, and the file must be its owner's only."""
    [trouble] = await told({"notify_url_file": address_file(tmp_path, text, mode)})

    assert why in trouble
    assert "very-secret" not in trouble


async def test_a_missing_address_file_fails_no_run(tmp_path):
    """It is a trouble to be told, not an error."""
    [trouble] = await told({"notify_url_file": tmp_path / "none"})

    assert "cannot be read: No such file" in trouble


async def test_a_path_that_no_file_can_have_fails_no_run():
    """A NUL is no part of a name."""
    [trouble] = await told({"notify_url_file": Path("a\0b")})

    assert "cannot be read: ValueError" in trouble


def script(tmp_path, code):
    """Return a command that runs Python code."""
    path = tmp_path / "notify.py"
    path.write_text(code)
    return f"{sys.executable} '{path}' 'two words'"


async def test_a_command_gets_the_summary_on_its_standard_input(tmp_path, monkeypatch):
    """With the text in it; words are split without a shell; secrets are not in its environment."""
    monkeypatch.setenv("BULKBIND_TOKEN", "secret-token")
    code = (
        "import json, os, sys; "
        f"json.dump([sys.argv[1:], json.load(sys.stdin), dict(os.environ)], "
        f"open({str(tmp_path / 'got')!r}, 'w'))"
    )

    troubles = await told({"notify_command": script(tmp_path, code)})

    arguments, got, environ = json.loads((tmp_path / "got").read_text())
    assert troubles == []
    assert arguments == ["two words"]
    assert got == {"run_id": "r", "exit_code": 1, "text": "2 rows of a<b & c need a person"}
    assert "secret-token" not in environ.values()


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (
            "import sys; print('no pager', file=sys.stderr); sys.exit(3)",
            "ended with 3: no pager",
        ),
        pytest.param("import time; time.sleep(60)", "took longer than", marks=pytest.mark.slow),
        ("import os; os._exit(0)", None),
    ],
    ids=["fails", "hangs", "reads nothing"],
)
async def test_a_command_that_fails_fails_no_run(tmp_path, code, why):
    """Its code and words are told; what hangs is ended."""
    troubles = await told({"notify_command": script(tmp_path, code)}, notify_timeout=2.0)

    assert [why in trouble for trouble in troubles if why] == ([True] if why else [])


@pytest.mark.parametrize("command", ["/none/at/all", "'unclosed", ""])
async def test_a_command_that_is_none_is_told(command):
    """What cannot be started, or split into words, is a trouble."""
    [trouble] = await told({"notify_command": command})

    assert "could not be started" in trouble


@pytest.mark.parametrize(
    ("when", "exit_code", "is_change", "is_told"),
    [
        ("failure", 0, True, False),
        ("failure", 3, False, True),
        ("change", 0, False, False),
        ("change", 0, True, True),
        ("change", 1, False, False),
        ("always", 0, False, True),
    ],
)
async def test_who_is_told_when(tmp_path, when, exit_code, is_change, is_told):
    """failure: any code but 0; change: something is new; always: always."""
    hook = Hook()
    async with hook.served(tmp_path) as path:
        await told(
            {"notify_url_file": path}, ending(exit_code, is_change=is_change), notify_on=when
        )

    assert bool(hook.bodies) == is_told


async def test_a_long_text_is_cut(tmp_path):
    """Chats refuse what is too long; the summary holds it all."""
    hook = Hook()
    async with hook.served(tmp_path) as path:
        await told({"notify_url_file": path}, ending(text="x" * 10_000))

    assert len(hook.bodies[0]["text"]) == 3_000


async def test_what_was_told_before_is_no_failure_to_tell(tmp_path):
    """The same rest of an inbox is not told 96 times a day."""
    hook = Hook()
    async with hook.served(tmp_path) as path:
        await told({"notify_url_file": path}, ending(3, is_news=False))
        await told({"notify_url_file": path}, ending(3, is_news=False), notify_on="always")

    assert len(hook.bodies) == 1


@pytest.mark.parametrize(
    ("given", "is_lost"),
    [
        ({}, False),
        ({"notify_command": "true"}, False),
        ({"notify_command": "false"}, True),
        ({"notify_command": "false", "notify_on": "change"}, False),
        ({"ping_url_file": "/none"}, False),
    ],
    ids=["nobody is to be told", "told", "not told", "need not be told", "a watch"],
)
async def test_it_is_known_whether_somebody_was_not_told(given, is_lost):
    """Who pages nobody with it tells it again; a watch raises its alarm by itself."""
    found = await follow_up(
        Settings(end=EndSettings(**given)), ending(), FakeClock(), 1.0, StopSignal()
    )

    assert found.is_lost == is_lost


# --- a watch that hears nothing raises an alarm ---------------------------------------------------


@pytest.mark.parametrize(("exit_code", "last"), [(0, ""), (1, "/fail"), (3, "/fail")])
async def test_a_watch_hears_of_start_and_end(tmp_path, exit_code, last):
    """Its address alone is called, with /start and /fail behind its path; nothing else is said."""
    hook = Hook()
    async with hook.served(tmp_path) as path:
        end = EndSettings(ping_url_file=path)
        troubles = await pinged(end, "start", FakeClock())
        troubles += await told({"ping_url_file": path}, ending(exit_code))

    assert troubles == []
    assert hook.paths == [f"/{SECRET}/start", f"/{SECRET}{last}"]
    assert hook.bodies == [None, None]


async def test_a_watch_of_which_only_the_query_tells_the_signal_keeps_it(tmp_path):
    """The end goes behind the path."""
    hook = Hook()
    async with hook.served(tmp_path) as path:
        path.write_text(path.read_text().strip() + "/?uuid=7\n")
        await pinged(EndSettings(ping_url_file=path), "fail", FakeClock())

    assert hook.paths == [f"/{SECRET}/fail"]


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [
        (f"http://example.test/{SECRET}", 0o600, "the ping's file {} holds no https address"),
        (f"http://127.0.0.1:9/{SECRET}", 0o600, "the ping at 127.0.0.1 did not take it"),
        (f"http://127.0.0.1:9/{SECRET}", 0o644, "the ping's file {} can be read by others"),
    ],
)
async def test_a_watch_that_cannot_be_called_fails_no_run(tmp_path, text, mode, why):
    """It is a trouble to be told, without the address."""
    path = address_file(tmp_path, text, mode)
    [trouble] = await pinged(EndSettings(ping_url_file=path), "start", FakeClock())

    assert why.format(path) in trouble
    assert "very-secret" not in trouble
