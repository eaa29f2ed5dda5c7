"""Secrets are searched for in every file and stream, under every kind of credentials."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from tests.support.manifests import fleet, write_csv
from tests.support.paths import ROOT
from tests.support.processes import bulkbind, ledger_of, process, sandbox

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
            done = bulkbind(*run, home=home, PYTHONASYNCIODEBUG="1", **environ)
            streams += [done.stdout, done.stderr]
        for command in (
            ("doctor", *common[:-2], "--user-id", "user_1"),
            ("config", "--config", config),
            ("report", "--attempts", "--json", *common[:4], "--out", "out"),
        ):
            done = bulkbind(*command, home=home, **given)
            streams += [done.stdout, done.stderr]
        ledger = ledger_of(home, url)
        with process("run", manifest, "--rebind", *common, home=home, **given) as killed:
            # Cut off in the middle, so that the WAL holds what was being done.
            threading.Event().wait(1.0)
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
