"""Secrets are searched for in every file and stream, under every kind of credentials."""

from __future__ import annotations

import asyncio
import gzip
import html
import itertools
import json
import os
import subprocess
import sys
import threading
from base64 import b64encode
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from aiohttp import web

from tests.support.in_process import called
from tests.support.manifests import fleet, write_csv
from tests.support.paths import ROOT
from tests.support.processes import ask, ledger_of, process, sandbox

MARKS = {
    "token": "tok-71f0a3-sesame",
    "refresh": "refresh-52bb1c-sesame",
    "password": "pass-90ae77-sesame",
    "secret": "secret-08d5f2-sesame",
    "user": "user-tok-c3c3c3-sesame",
}
CREDENTIALS = f"""
tokens: {{{MARKS["token"]}: any, {MARKS["user"]}: user_1}}
refresh_tokens: {{{MARKS["refresh"]}: any}}
accounts: {{ops: {MARKS["password"]}}}
apps: {{app1: {MARKS["secret"]}}}
"""
FAULTS = ("--fault", "reset-after=0.1", "--fault", "500=0.05", "--fault", "business=0.05")
SESSION = ("--session-calls", "25", "--seed", "3")
SETTINGS = "readback_settle: 100ms\nbackoff_base: 20ms\nauth:\n  account: {account}\n"
KINDS: dict[str, dict[str, Any]] = {
    "token": {"BULKBIND_TOKEN": MARKS["token"]},
    "session": {"BULKBIND_TOKEN": "", "BULKBIND_REFRESH_TOKEN": MARKS["refresh"]},
    "login": {"BULKBIND_TOKEN": "", "BULKBIND_PASSWORD": MARKS["password"]},
    "app": {"BULKBIND_APP_ID": "app1", "BULKBIND_APP_SECRET": MARKS["secret"]},
    "users": {"BULKBIND_TOKEN": ""},
}


def forms(secret: str) -> list[bytes]:
    """Return a secret as it stands, and as an encoder would write it."""
    plain = secret.encode()
    return [plain, b64encode(plain)[:-4], plain.hex().encode()]


def found_in(folder: Path, streams: list[str], secrets: set[str], *, but: set[Path]) -> list[str]:
    """Return where a secret stands, in files below a folder and in streams."""
    wanted = [form for secret in secrets for form in forms(secret)]
    places = []
    for path in folder.rglob("*"):
        if path.is_file() and path not in but:
            content = path.read_bytes()
            content += gzip.decompress(content) if path.suffix == ".gz" else b""
            places += [str(path) for form in wanted if form in content]
    for number, text in enumerate(streams):
        places += [f"stream {number}" for form in wanted if form in text.encode()]
    return places


def kept_in(path: Path) -> set[str]:
    """Return the secrets of a kept session, which only its own file may hold."""
    kept = json.loads(path.read_text(encoding="utf-8"))
    return {kept["access_token"].removeprefix("AT "), kept["refresh_token"]}


class Watching:
    """Looks at the command lines of all processes, again and again."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._is_over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._is_over.wait(0.02):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self.seen.add(path.read_bytes())
                except OSError:
                    continue


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="there is no /proc to look at")
@pytest.mark.parametrize("kind", KINDS)
def test_no_secret_is_told_to_anybody_but_the_server(tmp_path, kind):
    """No file, WAL included, no stream and no process list holds one; renewed ones neither."""
    accepted = tmp_path / "accepted.yaml"
    accepted.write_text(CREDENTIALS, encoding="utf-8")
    home = tmp_path / "home"
    home.mkdir()
    config = tmp_path / "config.yaml"
    config.write_text(SETTINGS.format(account="ops" if kind == "login" else ""), encoding="utf-8")
    if kind == "users":
        users = tmp_path / "users.csv"
        users.write_text(f"user_id,token\nuser_1,{MARKS['user']}\nuser_2,dead-token-sesame\n")
        users.chmod(0o600)
        with config.open("a", encoding="utf-8") as file:
            file.write(f"  users_file: {users}\n")
    manifest = write_csv(tmp_path / "fleet.csv", fleet(60, users=4))
    given = KINDS[kind]
    wrong = {
        name: f"{value}-wrong" if name != "BULKBIND_APP_ID" else value
        for name, value in given.items()
        if value
    }
    streams: list[str] = []

    with (
        sandbox(*FAULTS, *SESSION, "--credentials", str(accepted), home=tmp_path) as url,
        Watching() as watching,
    ):
        common = ("--endpoint", url, "--config", config, "--log-level", "debug", "--out", "out")
        logs = ("--log-file", "run.log", "--log-format")
        for form, environ in (("json", wrong), ("console", given)):
            run = ("run", manifest, *common, *logs, form, "--on-invalid", "skip")
            done = called(*run, home=home, PYTHONASYNCIODEBUG="1", **environ)
            streams += [done.stdout, done.stderr]
        for command in (
            ("doctor", *common[:-2], "--user-id", "user_1"),
            ("config", "--config", config),
            ("report", "--attempts", "--json", *common[:4], "--out", "out"),
            ("bundle", "--with-ids", *common[:4], "--to", "b.tar.gz"),
        ):
            done = called(*command, home=home, **given)
            streams += [done.stdout, done.stderr]
        ledger = ledger_of(home, url)
        if kind == "session":  # the others would show the same
            sent = ask(f"{url}/sandbox/stats")["binds"]
            with process("run", manifest, "--rebind", *common, home=home, **given) as killed:
                # Cut off in the middle, so that the WAL holds what was being done.
                while ask(f"{url}/sandbox/stats")["binds"] < sent + 10 and killed.poll() is None:
                    pass
                killed.kill()
                streams += list(killed.communicate())

    session = ledger.with_name(f"{ledger.name}.session")
    secrets = {*MARKS.values(), "dead-token-sesame"}
    if kind in ("session", "login"):
        secrets |= kept_in(session)
    assert "".join(streams).count("run.started") >= 2
    assert found_in(home, streams, secrets, but={session}) == []
    assert not [line for line in watching.seen for s in secrets if s.encode() in line]
    # Positive control: what is planted is found, in a file of any depth and in a stream.
    planted = home / "out" / "deep" / "planted"
    planted.parent.mkdir()
    planted.write_bytes(b"\x00" + forms(MARKS["token"])[1] + b"\x00")
    assert found_in(home, ["x " + MARKS["secret"]], secrets, but={session}) == [
        str(planted),
        "stream 0",
    ]


# --- what servers, commands and the operator's own settings say -----------------------------------

TOKEN = 'Tok/71f0+a3=<&>"se\\same-0123456789abcdef'
PLANTED = {
    "token": TOKEN,
    "argument of the token command": "arg-token-4411aa",
    "argument of the notify command": "arg-notify-5522bb",
    "login of the endpoint": "login-endpoint-6633cc",
    "login of the proxy": "login-proxy%2F7744dd",
    "path of the webhook": "T0/B0/hook-8855ee",
    "webhook where its file belongs": "T1/B1/hook-9966ff",
    "query of the path": "key=query-1177ab",
}


def echoes(number: int) -> web.Response:
    """Return an answer that repeats the token, each in another place and form."""
    refused = {"code": "13000399", "msg": "no"}
    good = {"deviceId": "1842812272691451648", "machineCode": "SN", "createTime": TOKEN}
    forms = [TOKEN, TOKEN.upper(), quote(TOKEN, safe=""), html.escape(TOKEN), ascii(TOKEN)]
    bodies: list[tuple[int, object]] = [
        (400, refused | {"msg": f"the token {forms[number % len(forms)]} is refused"}),
        (400, refused | {"code": TOKEN}),
        (403, {"error_code": TOKEN, "error_msg": f"Bearer {TOKEN}", "request_id": TOKEN}),
        (200, {"code": TOKEN, "msg": "x" * 270 + TOKEN}),
        (200, {"code": 0, "msg": "success", "data": good | {"deviceId": TOKEN}}),
        (200, {"code": 0, "msg": TOKEN, "data": good | {"machineCode": TOKEN}}),
        (502, f"<html><b>{TOKEN}</b> {html.escape(TOKEN)}</html>"),
        (503, {"error_code": TOKEN.lower(), "error_msg": TOKEN[:20]}),
        (409, [TOKEN]),
    ]
    status, body = bodies[number % len(bodies)]
    text = body if isinstance(body, str) else json.dumps(body)
    sent = {"X-Request-Id": TOKEN, "X-Trace": TOKEN}
    return web.Response(status=status, text=text, headers=sent)


@contextmanager
def echoing():
    """Serve answers that repeat the token in a thread; yield the address."""
    numbers = itertools.count()
    devices = [{"deviceId": f"{TOKEN}{n}", "machineCode": f"SN{n}"} for n in range(3)]

    async def answer(request: web.Request) -> web.Response:
        if request.path.startswith("/hook"):
            return web.Response(status=400, text=TOKEN)
        if request.method == "GET":
            return web.json_response({"code": 0, "msg": TOKEN, "data": devices})
        return echoes(next(numbers))

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    loop = asyncio.new_event_loop()
    runner = loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def written(secret: str) -> set[bytes]:
    """Return the ways in which a secret may be written."""
    ways = {secret, secret.upper(), secret.lower(), quote(secret, safe=""), html.escape(secret)}
    ways |= {unquote(secret), ascii(secret)[1:-1], json.dumps(secret)[1:-1], secret[:20]}
    return {way.encode() for way in ways} | {b64encode(secret.encode())[:-4]}


@pytest.mark.slow
def test_planted_secrets_are_repeated_by_nothing(tmp_path):
    """Whatever servers, commands and settings have them say: they are in no file and no stream."""
    (tmp_path / "hook").write_text("")
    (tmp_path / "hook").chmod(0o600)
    name = f"fleet-{TOKEN.replace('/', '_')}.csv"
    manifest = write_csv(tmp_path / "fleet.csv", fleet(18, users=3))
    (tmp_path / name).write_bytes(manifest.read_bytes())
    script = tmp_path / "print-token"
    script.write_text('#!/bin/sh\nprintf %s "$PLANTED"\n')
    script.chmod(0o700)
    settings = {
        "path": f"/koodrive?{PLANTED['query of the path']}", "max_attempts": 1,
        "backoff_base": "1ms", "readback_settle": "0s", "log_file": "run.log", "deadline": "5s",
        "notify_on": "always", "notify_url_file": str(tmp_path / "hook"),
        "notify_command": f"{script} {PLANTED['argument of the notify command']}",
        "auth": {"token_command": [str(script), PLANTED["argument of the token command"]]},
    }  # fmt: skip
    (tmp_path / "c.yaml").write_text(json.dumps(settings))
    wrong = settings | {"notify_url_file": f"https://h/{PLANTED['webhook where its file belongs']}"}
    (tmp_path / "wrong.yaml").write_text(json.dumps(wrong))
    (tmp_path / "command.yaml").write_text(
        json.dumps({"auth": {"token_command": PLANTED["argument of the token command"]}})
    )
    given = {
        "BULKBIND_TOKEN": "", "PLANTED": TOKEN, "NO_PROXY": "nowhere",
        "HTTPS_PROXY": f"http://op:{PLANTED['login of the proxy']}@127.0.0.1:9",
    }  # fmt: skip
    secure = "https://koodrive.example.invalid"
    done = []
    with echoing() as url:
        (tmp_path / "hook").write_text(f"{url}/hook/{PLANTED['path of the webhook']}")
        common = ("--config", "c.yaml", "--endpoint", url)
        run = ("run", "fleet.csv", *common, "--on-invalid", "skip", "--out")
        for command, more in [
            ((*run, "out", "--log-devices"), {}),
            ((*run, "out", "--log-format", "json", "--log-level", "debug"), {}),
            (("doctor", *common, "--user-id", "user_1"), {}),
            (("doctor", "--config", "c.yaml", "--endpoint", secure), {}),
            (("config", *common), {}),
            (("config", *common, "--json"), {}),
            (("config", "--config", "wrong.yaml"), {}),
            (("config", "--config", "command.yaml"), {}),
            (("config", "--endpoint", f"https://{PLANTED['login of the endpoint']}@host"), {}),
            (("config", "--endpoint", f"https://host?{PLANTED['query of the path']}"), {}),
            (("plan", "fleet.csv", *common, "--refresh"), {}),
            (("runs", *common), {}),
            (("config",), {"BULKBIND_TOKEN": TOKEN, "BULKBIND_RATE": TOKEN}),
            (("status", *common, "--json"), {}),
            (("report", *common, "--attempts", "--out", "again"), {}),
            (("report", *common, "--out", "html", "--json"), {}),
            (("bundle", *common, "--to", "b.tar.gz"), {}),
            (("bundle", *common, "--with-ids", "--to", "ids.tar.gz"), {}),
            (("validate", name), {"BULKBIND_TOKEN": TOKEN}),
            (("run", name, *common, "--out", "named"), {"BULKBIND_TOKEN": TOKEN}),
            (("run", f"{name}-not-there", "--endpoint", url), {"BULKBIND_TOKEN": TOKEN}),
        ]:
            done.append(called(*command, home=tmp_path, **(given | more)))  # long
    (tmp_path / name).unlink()
    inputs = ("c.yaml", "wrong.yaml", "command.yaml", "hook", "fleet.csv", "print-token")
    for each in inputs:
        (tmp_path / each).unlink()
    contents = {f"{n} {what}": text.encode() for n, one in enumerate(done)
                for what, text in (("out", one.stdout), ("err", one.stderr))}  # fmt: skip
    for path in tmp_path.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            contents[str(path)] = gzip.decompress(content) if path.suffix == ".gz" else content
            contents[f"name of {path}"] = path.name.encode()

    said = b"".join(contents.values())
    assert b"13000399" in said
    assert b"***" in said
    assert b"Traceback" not in said
    assert [
        (name, what)
        for name, content in contents.items()
        for what, secret in PLANTED.items()
        for way in written(secret)
        if way in content
    ] == []


@pytest.mark.slow
def test_a_traceback_shows_no_values(tmp_path):
    """A log line with an exception holds the traceback and no local variable, in both forms."""
    code = (
        "import os, sys; from bulkbind import logs\n"
        "logs.configure(logs.Sink(sys.stderr, sys.argv[1], 'debug'))\n"
        "def fail(token):\n"
        "    raise RuntimeError('broken')\n"
        "try:\n"
        "    fail(os.environ['HIDDEN'])\n"
        "except RuntimeError:\n"
        "    logs.logger().exception('it.broke', access_token='hush-hush-1')\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code, encoding="utf-8")
    for form in ("console", "json"):
        done = subprocess.run(
            [sys.executable, script, form],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
            env=os.environ | {"PYTHONPATH": str(ROOT), "HIDDEN": MARKS["token"]},
        )

        assert "RuntimeError: broken" in done.stderr.replace("\\n", "\n")
        assert MARKS["token"] not in done.stderr
        assert "hush" not in done.stderr
