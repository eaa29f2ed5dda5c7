"""`bulkbind doctor`, TLS and proxies, as an operator meets them."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.manifests import fleet, write_csv
from tests.support.processes import bulkbind, ledger_of, process, sandbox, statuses

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

TOKEN = "secret-token"


@contextmanager
def tls_sandbox(*arguments: str, home: Path):
    """Serve https in a process of its own; yield its URL and the file of its authority."""
    with process("sandbox", "--port", "0", "--tls", *arguments, home=home) as started:
        assert started.stdout is not None
        ready, ca = started.stdout.readline().split(), started.stdout.readline().split()
        assert (ready[0], ca[0]) == ("ready", "ca")
        yield ready[1], ca[1]
        started.terminate()
        started.wait(10)


def found(*arguments: str | Path, home: Path, check: int, **environ: Any):
    """Return what the doctor finds: check -> (state, text, advice), the last of each."""
    done = bulkbind("doctor", *arguments, "--json", home=home, check=check, **environ)
    return {
        item["check"]: (item["state"], item["text"], item["advice"])
        for item in json.loads(done.stdout)
    }


# --- doctor ---------------------------------------------------------------------------------------


def test_doctor_finds_everything_well(tmp_path):
    """Every check in order, one line each, all of them ok, exit code 0, and nothing bound."""
    with sandbox("--limit", "60/s,tell=x-ratelimit", home=tmp_path) as url:
        manifest = write_csv(tmp_path / "fleet.csv", fleet(3))
        bulkbind("run", manifest, "--endpoint", url, home=tmp_path, check=0)
        done = bulkbind("doctor", "--endpoint", url, "--user-id", "user_1", home=tmp_path, check=0)

    lines = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    assert {state for state, *_ in lines} == {"ok"}
    checks = list(dict.fromkeys(re.split(r"  +", line)[1] for line in done.stdout.splitlines()))
    assert checks == [
        "settings", "ledger", "disk", "credentials", "DNS", "TCP", "HTTP", "clock", "list call",
        "limit",
    ]  # fmt: skip
    assert f"endpoint: {url} (from --endpoint)" in done.stdout
    assert "auth.token: *** (from BULKBIND_TOKEN)" in done.stdout
    assert "token, inferred from BULKBIND_TOKEN" in done.stdout
    assert f"{ledger_of(tmp_path, url)} is whole" in done.stdout
    assert "X-RateLimit says 60 requests" in done.stdout
    assert TOKEN not in done.stdout + done.stderr


def test_doctor_says_what_is_wrong_with_credentials(tmp_path):
    """None, a readable file, a refused token: fail, with what to do, and exit code 2."""
    open_to_all = tmp_path / "token"
    open_to_all.write_text("a-token", encoding="utf-8")
    open_to_all.chmod(0o644)
    config = tmp_path / "settings.yaml"
    config.write_text(f"auth:\n  token_file: {open_to_all}\n", encoding="utf-8")

    with sandbox("--accept-token", TOKEN, home=tmp_path) as url:
        common = ("--endpoint", url, "--user-id", "user_1")
        none = found(*common, home=tmp_path, check=2, BULKBIND_TOKEN="")
        readable = found(*common, "--config", config, home=tmp_path, check=2, BULKBIND_TOKEN="")
        refused = found(*common, home=tmp_path, check=2, BULKBIND_TOKEN="another-token")
        half = found(*common, home=tmp_path, check=2, BULKBIND_TOKEN="", BULKBIND_APP_ID="app1")

    assert none["credentials"][0] == "fail"
    assert "BULKBIND_REFRESH_TOKEN" in none["credentials"][2]
    assert readable["credentials"][2] == f"chmod 600 {open_to_all}"
    assert refused["credentials"][0] == "ok"
    assert refused["list call"][0] == "fail"
    assert "APIG.0301" in refused["list call"][1]
    assert "an app id is set, but no app secret" in half["credentials"][1]


def test_doctor_sees_a_clock_that_is_wrong(tmp_path):
    """A skew of 20 minutes is a warning with its size, and the list call works all the same."""
    with sandbox("--clock-offset", "-20m", home=tmp_path) as url:
        seen = found("--endpoint", url, "--user-id", "user_1", home=tmp_path, check=0)

    state, text, _ = seen["clock"]
    assert state == "warn"
    assert re.fullmatch(r"the server's clock is 1[12]\d\d s behind", text)
    assert seen["list call"][0] == "ok"


def test_doctor_stops_where_the_way_ends(tmp_path):
    """A name that is unknown, a port where nobody listens, no endpoint: said, exit code 2."""
    with sandbox(home=tmp_path) as url:
        pass
    unknown = found("--endpoint", "https://no-such-host.invalid", home=tmp_path, check=2)
    closed = found("--endpoint", url, home=tmp_path, check=2)
    none = found(home=tmp_path, check=2)

    assert unknown["DNS"][0] == "fail"
    assert "TCP" not in unknown
    assert closed["TCP"][0] == "fail"
    assert "HTTP" not in closed
    assert none["endpoint"][0] == "fail"


def test_doctor_finds_a_damaged_ledger(tmp_path):
    """Bytes overwritten in the middle are found, and the file is not written to."""
    with sandbox(home=tmp_path) as url:
        manifest = write_csv(tmp_path / "fleet.csv", fleet(2000))
        bulkbind("run", manifest, "--endpoint", url, home=tmp_path, check=0)
        ledger = ledger_of(tmp_path, url)
        content = bytearray(ledger.read_bytes())
        content[8 * 4096 : 12 * 4096] = b"\xaa" * (4 * 4096)
        ledger.write_bytes(content)
        seen = found("--endpoint", url, home=tmp_path, check=2)

    assert seen["ledger"][0] == "fail"
    assert "damaged" in seen["ledger"][1]
    assert ledger.read_bytes() == content


def test_systemd_credentials_are_found(tmp_path):
    """A file in $CREDENTIALS_DIRECTORY is used, also with the mode that systemd gives it."""
    folder = tmp_path / "credentials"
    folder.mkdir()
    path = folder / "bulkbind-token"
    path.write_text(TOKEN, encoding="utf-8")
    path.chmod(0o440)
    given: dict[str, Any] = {"BULKBIND_TOKEN": "", "CREDENTIALS_DIRECTORY": str(folder)}

    with sandbox("--accept-token", TOKEN, home=tmp_path) as url:
        seen = found("--endpoint", url, "--user-id", "u", home=tmp_path, check=0, **given)
        path.chmod(0o444)
        refused = found("--endpoint", url, home=tmp_path, check=2, **given)

    assert seen["credentials"][1] == f"token, inferred from {path}"
    assert seen["list call"][0] == "ok"
    assert refused["credentials"][2] == f"chmod 600 {path}"


# --- TLS ------------------------------------------------------------------------------------------


def test_a_run_over_tls_with_a_private_authority(tmp_path):
    """With `ca_file` the run works, without it the error says host, problem and cure."""
    manifest = write_csv(tmp_path / "fleet.csv", fleet(20))
    with tls_sandbox(home=tmp_path) as (url, ca):
        common = ("run", manifest, "--endpoint", url, "--out", "report")
        done = bulkbind(*common, "--ca-file", ca, home=tmp_path, check=0)
        refused = bulkbind(*common, "--rebind", home=tmp_path, check=3)
        seen = found("--endpoint", url, "--user-id", "u", "--ca-file", ca, home=tmp_path, check=0)
        unseen = found("--endpoint", url, home=tmp_path, check=2)
        wrong_file = bulkbind(*common, "--ca-file", manifest, home=tmp_path, check=2)

    assert "20  bound" in done.stderr
    host = url.removeprefix("https://")
    assert f"the certificate of {host} is not accepted" in refused.stderr
    assert "ca_file" in refused.stderr
    assert statuses(tmp_path / "report") == {"pending": 20}
    assert seen["TLS"][0] == "ok"
    assert seen["TLS"][1].startswith("TLSv1.")
    assert unseen["TLS"][0] == "fail"
    assert "ca_file" in unseen["TLS"][2]
    assert "holds no certificate" in wrong_file.stderr


class Proxy:
    """A CONNECT proxy on loopback that keeps the first lines and headers of what it was asked."""

    def __init__(self, *, status: int = 200) -> None:
        self.asked: list[bytes] = []
        self._status = status

    async def _accept(self, reader, writer) -> None:
        try:
            await self._carry(reader, writer)
        finally:
            writer.close()  # also where it is cancelled

    async def _carry(self, reader, writer) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(head)
        if self._status != 200:
            writer.write(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % self._status)
            await writer.drain()
            return
        host, _, port = head.split()[1].decode().rpartition(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

        async def pump(source, sink) -> None:
            try:
                while chunk := await source.read(65536):
                    sink.write(chunk)
                    await sink.drain()
            except OSError:
                pass
            finally:
                sink.close()

        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    @contextmanager
    def serving(self):
        """Serve in a thread of its own and yield the address."""
        loop = asyncio.new_event_loop()
        server = loop.run_until_complete(asyncio.start_server(self._accept, "127.0.0.1", 0))
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)
            server.close()
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            if tasks:
                loop.run_until_complete(asyncio.wait(tasks))
            loop.run_until_complete(asyncio.sleep(0.05))  # noqa: TID251  # lets sockets close
            loop.close()


@pytest.mark.parametrize("how", ["flag", "environment", "NO_PROXY"])
def test_a_proxy_carries_the_run_and_sees_no_token(tmp_path, how):
    """By flag or environment; the proxy is asked for the host alone, and NO_PROXY is heeded."""
    proxy = Proxy()
    manifest = write_csv(tmp_path / "fleet.csv", fleet(5))
    with proxy.serving() as address, tls_sandbox(home=tmp_path) as (url, ca):
        common = ["run", manifest, "--endpoint", url, "--ca-file", ca]
        given: dict[str, Any] = {}
        if how == "flag":
            common += ["--proxy", f"http://{address}"]
        else:
            given = {"HTTPS_PROXY": f"http://someone:pass-word-77@{address}"}
            given |= {"NO_PROXY": "127.0.0.1" if how == "NO_PROXY" else "elsewhere.example"}
        done = bulkbind(*common, home=tmp_path, check=0, **given)

    heads = b"".join(proxy.asked)
    assert (b"CONNECT 127.0.0.1:" in heads) == (how != "NO_PROXY")
    assert TOKEN.encode() not in heads
    assert "pass-word-77" not in done.stdout + done.stderr


def test_a_proxy_that_refuses_is_named_without_its_password(tmp_path):
    """Nothing was sent: exit code 3, all pending, and the password of the proxy is not shown."""
    manifest = write_csv(tmp_path / "fleet.csv", fleet(5))
    with Proxy(status=407).serving() as address, tls_sandbox(home=tmp_path) as (url, ca):
        common = ("run", manifest, "--endpoint", url, "--ca-file", ca, "--out", "report")
        proxy = f"http://someone:pass-word-77@{address}"
        given: dict[str, Any] = {"HTTPS_PROXY": proxy, "NO_PROXY": ""}
        done = bulkbind(*common, home=tmp_path, check=3, **given)

    assert "the proxy answered HTTP 407" in done.stderr
    assert "pass-word-77" not in done.stdout + done.stderr
    assert statuses(tmp_path / "report") == {"pending": 5}
