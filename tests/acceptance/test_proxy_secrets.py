"""What a proxy is signed in to with is searched for in every file and stream of a whole command."""

from __future__ import annotations

import json
import re
import socket
import tarfile
import threading
from base64 import b64encode
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import pytest

from tests.acceptance.test_doctor import Proxy, tls_sandbox
from tests.support.in_process import called
from tests.support.manifests import fleet, write_csv
from tests.support.paths import unpack
from tests.support.processes import bulkbind, statuses

if TYPE_CHECKING:
    from pathlib import Path

ENDPOINT = "https://koodrive.example.invalid"
SETTINGS = """
deadline: 1s
connect_timeout: 500ms
backoff_base: 10ms
log_level: debug
log_file: run.log
metrics_file: run.prom
notify_on: always
notify_command: sh -c 'cat > mail'
notify_url_file: hook
"""
LOGINS = {
    "encoded": "op-sesame:pw%2F71%23f0%3Fa3%40x%25",
    "raw": "op-sesame:pw@71:f0[%]\\a3",
    "unicode": "op-sesame:p\u1e8571\u20acf0\U0001f511a3",
    "user": "tok-71f0a3-sesame",
}
UNREADABLE = {
    "slash": "http://op-sesame:pw/71f0a3@{}",
    "slash after a number": "http://op-sesame:71/pw-f0a3@{}",
    "hash": "http://op-sesame:pw#71f0a3@{}",
    "question": "http://op-sesame:pw?71f0a3@{}",
    "no scheme": "op-sesame:pw-71f0a3@{}",
    "no scheme, encoded": "op-sesame:pw%2F71f0a3@{}",
    "bad port": "http://op-sesame:pw-71f0a3@127.0.0.1:99999",
    "no port": "http://op-sesame:pw-71f0a3@127.0.0.1:http",
    "brackets": "http://op-sesame:pw-71f0a3@[::1:3128",
    "no brackets": "http://op-sesame:pw-71f0a3@::1:3128",
    "no host": "http://op-sesame:pw-71f0a3@",
    "other scheme": "socks5://op-sesame:pw-71f0a3@{}",
}


NAMES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


@pytest.fixture(autouse=True)
def _no_proxy_of_this_machine(monkeypatch):
    """Let no variable of whoever runs the tests choose the proxy."""
    for name in (*NAMES, "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


def marks(value: str) -> set[bytes]:
    """Return what must not be shown of a proxy: login and password, written, meant and sent."""
    login = re.sub(r"^[a-z0-9]+://", "", value).rpartition("@")[0]
    user, _, password = login.partition(":")
    found = {login, password or user}
    found |= {unquote(text) for text in found} | {quote(text, safe="") for text in found}
    found |= {json.dumps(text)[1:-1] for text in found}
    in_bytes = {text.encode() for text in found}
    return in_bytes | {b64encode(text).rstrip(b"=")[:-1] for text in in_bytes}


def shown_in(home: Path, streams: list[str], value: str) -> list[str]:
    """Return where something of a proxy's login stands, bundles unpacked."""
    for path in home.glob("*.tar.gz"):
        unpack(path, home / "bundle")
    contents = {str(path): path.read_bytes() for path in home.rglob("*") if path.is_file()}
    contents |= {f"stream {number}": text.encode() for number, text in enumerate(streams)}
    return [name for name, content in contents.items() if any(m in content for m in marks(value))]


@contextmanager
def hook(home: Path):
    """Take what is posted to a webhook into a file."""

    class Taker(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            (home / "posted").write_bytes(body)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Taker)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    (home / "hook").write_text(f"http://127.0.0.1:{server.server_port}/x")
    (home / "hook").chmod(0o600)
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def nobody():
    """Yield an address at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def tried(home: Path, name: str, value: str, *wanted: str) -> tuple[dict[str, int], list[str]]:
    """Run what may speak of a proxy, or of that the *wanted*; return exit codes and streams."""
    manifest = write_csv(home / "fleet.csv", fleet(3))
    (home / "c.yaml").write_text(SETTINGS)
    common = ("--endpoint", ENDPOINT, "--config", "c.yaml")
    commands: dict[str, tuple[str | Path, ...]] = {
        "run": ("run", manifest, *common, "--out", "out"),
        "resume": ("resume", *common, "--out", "out", "--log-format", "json"),
        "doctor": ("doctor", *common, "--user-id", "user_1"),
        "json": ("doctor", *common, "--json"),
        "plan": ("plan", manifest, *common, "--refresh"),
        "report": ("report", *common, "--out", "out", "--attempts"),
        "config": ("config", *common),
        "bundle": ("bundle", *common, "--with-ids"),
    }
    environ: dict[str, Any] = {
        name: value,
        "NO_PROXY": "elsewhere.example",
        "PYTHONASYNCIODEBUG": "1",
    }
    codes, streams = {}, []
    with hook(home):
        for key in wanted or commands:
            done = called(*commands[key], home=home, **environ)
            codes[key] = done.returncode
            streams += [done.stdout, done.stderr]
    return codes, streams


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name", "is_refused"),
    [
        ("encoded", "HTTPS_PROXY", True),
        ("raw", "https_proxy", False),
        ("unicode", "ALL_PROXY", True),
        ("user", "all_proxy", False),
    ],
)
def test_the_login_of_a_proxy_stands_nowhere(tmp_path, kind, name, is_refused):
    """Where it is refused or nobody listens: exit code 3, and only the proxy's address."""
    proxy = Proxy(status=407)
    with proxy.serving() if is_refused else nobody() as address:
        value = f"http://{LOGINS[kind]}@{address}"
        codes, streams = tried(tmp_path, name, value)

    assert (codes["run"], codes["resume"]) == (3, 3)
    assert statuses(tmp_path / "out") == {"pending": 3}
    assert (tmp_path / "mail").read_bytes()
    assert (tmp_path / "posted").read_bytes()
    assert list(tmp_path.glob("bulkbind-*.tar.gz"))
    said = "".join(streams)
    assert ("the proxy answered HTTP 407" if is_refused else "no connection to the proxy") in said
    assert "Traceback" not in said
    assert shown_in(tmp_path, streams, value) == []
    user, _, password = LOGINS[kind].partition(":")
    sent = b64encode(f"{unquote(user)}:{unquote(password)}".encode())
    head = b"Proxy-Authorization: Basic " + sent + b"\r\n"
    assert all(head in asked for asked in proxy.asked)
    assert bool(proxy.asked) == is_refused


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name"), [(kind, NAMES[n % len(NAMES)]) for n, kind in enumerate(UNREADABLE)]
)
def test_a_proxy_that_cannot_be_read_is_a_usage_error(tmp_path, kind, name):
    """The variable is named and nothing begun; the doctor says so in a line of its own."""
    wanted = ("run", "doctor") if kind != "slash" else ()
    with nobody() as address:
        value = UNREADABLE[kind].format(address)
        codes, streams = tried(tmp_path, name, value, *wanted)

    said = "".join(streams)
    asking = {"run", "resume", "doctor", "json", "plan"}
    assert {code for key, code in codes.items() if key in asking} == {2}
    assert f"the proxy in {name} cannot be read" in streams[1]
    assert re.search(rf"(?m)^fail  proxy +the proxy in {name} cannot be read$", said)
    assert "Traceback" not in said
    assert not list(tmp_path.rglob("*.db"))
    assert shown_in(tmp_path, streams, value) == []


def test_what_is_searched_for_would_be_found(tmp_path):
    """Positive control: each form of a login is found, in a file, a stream and a bundle."""
    value = "http://op-sesame:pw%2F71%23f0@127.0.0.1:1"
    for number, mark in enumerate(sorted(marks(value))):
        (tmp_path / str(number)).write_bytes(b"x" + mark + b"x")
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "0", "inner")

    found = shown_in(tmp_path, ["pw/71#f0", "none"], value)

    assert len(marks(value)) > 8
    assert set(map(str, tmp_path.glob("[0-9]*"))) < set(found)
    assert str(tmp_path / "bundle" / "inner") in found
    assert "stream 0" in found
    assert "stream 1" not in found


@pytest.mark.slow
def test_a_working_proxy_is_signed_in_to_once_a_connection(tmp_path):
    """Its connections are kept, and nothing is taken from .netrc for it or for the endpoint."""
    proxy = Proxy()
    manifest = write_csv(tmp_path / "fleet.csv", fleet(40))
    netrc = tmp_path / "netrc"
    netrc.write_text("default login someone password netrc-sesame\n")
    netrc.chmod(0o600)
    with proxy.serving() as address, tls_sandbox(home=tmp_path) as (url, ca):
        common = ("run", manifest, "--endpoint", url, "--ca-file", ca, "--concurrency", "2")
        for login in ("", "op:pw-71f0a3@"):
            bulkbind(
                *common, "--rebind", home=tmp_path, check=0, NO_PROXY="", NETRC=str(netrc),
                HTTPS_PROXY=f"http://{login}{address}",
            )  # fmt: skip

    heads = [head for head in proxy.asked if b"Proxy-Authorization" in head]
    assert 2 <= len(proxy.asked) <= 8
    assert 0 < len(heads) < len(proxy.asked)
    assert all(b"Basic " + b64encode(b"op:pw-71f0a3") in head for head in heads)
