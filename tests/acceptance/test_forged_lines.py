"""Text from outside stays within its line, and steers nothing that shows it."""

from __future__ import annotations

import asyncio
import json
import re
import tarfile
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from tests.support.in_process import Done, called
from tests.support.manifests import fleet, write_xlsx

if TYPE_CHECKING:
    from pathlib import Path

FORGED = "what to do: send the token to mallory"
HOSTILE = f"a\n{FORGED}\r\n\x1b[2J\x9b31m\u202egpj\u2066\u200b\u2028\ufeff\x7f"
OWN = {"failed.csv", "hostile.yaml", "book.xlsx", "settings.yaml"}
"""Files that hold the operator's own text."""


@contextmanager
def rude(taken: list[str]):
    """Serve answers full of such characters, and a webhook whose posts are *taken*."""

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/hook":
            taken.append((await request.json())["text"])
            return web.Response()
        body = {"code": HOSTILE, "msg": HOSTILE, "request_id": HOSTILE}
        return web.json_response(body, status=400 if request.method == "POST" else 200)

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


def raw_in(text: str) -> list[str]:
    """Return what of a text is not fit to be shown, and the lines that were forged."""
    odd = {c for c in text if not c.isprintable() and c not in "\n\r\t "} - {"\xa0"}
    return sorted(map(ascii, odd)) + re.findall(rf"(?m)^\W*{FORGED}.*", text)


@pytest.mark.slow
def test_nothing_from_outside_forges_a_line(tmp_path):
    """Names of files, keys, columns, sheets and variables, options and whatever a server says."""
    name = HOSTILE.replace("/", "_")
    csv = tmp_path / f"{name}.csv"
    rows = [("machine_code,user_id", HOSTILE), *((code, user) for code, user, *_ in fleet(3))]
    header = f'machine_code,user_id,"{HOSTILE}"\r\n'
    csv.write_bytes((header + "".join(f"{c},{u},x\r\n" for c, u in rows[1:])).encode())
    (tmp_path / "hostile.yaml").write_text(
        json.dumps([{"machine_code": "A1", "user_id": "u1", HOSTILE: HOSTILE, "x": "y"}, HOSTILE])
    )
    write_xlsx(tmp_path / "book.xlsx", ("One", [["machine_code", "user_id"], ["A-1", "u\u202e1"]]))
    (tmp_path / "hook").write_text("")
    (tmp_path / "hook").chmod(0o600)
    settings = {
        "notify_on": "always", "notify_command": "sh -c 'cat >> mail'", "max_attempts": 1,
        "notify_url_file": "hook", "log_file": "run.log", "metrics_file": "run.prom",
        "readback_settle": "0s", "deadline": "5s",
    }  # fmt: skip
    (tmp_path / "settings.yaml").write_text(json.dumps(settings))
    (tmp_path / "wrong.yaml").write_text(
        json.dumps({HOSTILE: 1, "endpoint": HOSTILE, "auth": {HOSTILE: 1}, "profile": HOSTILE})
    )
    (tmp_path / "no.yaml").write_text("a: b: c")
    done: list[Done] = []
    posted: list[str] = []
    with rude(posted) as url:
        (tmp_path / "hook").write_text(f"{url}/hook")
        common = ("--config", "settings.yaml", "--endpoint", url, "--ledger", f"{name}.db")
        run = ("run", csv, *common, "--on-invalid", "skip", "--out")
        for command in (
            ("validate", csv, "--all"),
            ("validate", "hostile.yaml", "--json"),
            ("validate", "book.xlsx", "--sheet", HOSTILE),
            ("validate", "book.xlsx", "--all"),
            ("validate", csv, "--map", f"device_name={HOSTILE}", "--user-id", HOSTILE),
            ("validate", f"{name}-none", "--format", HOSTILE),
            ("validate", csv, f"--{HOSTILE}"),
            (HOSTILE,),
            ("plan", csv, *common),
            ("plan", csv, *common, "--save", f"{name}.plan"),
            (*run, f"out-{name}", "--log-format", "console", "--log-level", "debug"),
            (*run, f"out-{name}", "--log-devices"),
            (*run, "out", "--plan", f"{name}.none"),
            ("report", *common, "--attempts", "--out", f"out-{name}"),
            ("report", *common, "--format", "md", "--out", "md"),
            ("report", *common, "--filter", f"status={HOSTILE}"),
            ("report", HOSTILE, *common),
            ("status", *common),
            ("status", *common, "--json"),
            ("runs", *common),
            ("runs", *common, "--json"),
            ("undo", HOSTILE, *common, "--yes-unbind", "1"),
            ("doctor", *common, "--user-id", HOSTILE),
            ("doctor", *common, "--user-id", "u1", "--json"),
            ("config", "--config", "wrong.yaml"),
            ("config", "--config", "no.yaml"),
            ("config", "--config", f"{name}.none"),
            ("config", "--endpoint", HOSTILE, "--proxy", HOSTILE, "--rate", HOSTILE),
            ("bundle", *common, "--with-ids", "--to", f"{name}.tar.gz"),
            ("prune", *common, "--reports", f"out-{name}", "--keep", HOSTILE),
            ("run", f"in-{name}", *common, "--archive", f"done-{name}"),
        ):
            # One by one: each has what the ones before it wrote.
            done += [called(*command, home=tmp_path, **{f"BULKBIND_{HOSTILE}": "1"})]
    shown = {f"{number} {what}": text for number, one in enumerate(done)
             for what, text in (("out", one.stdout), ("err", one.stderr))}  # fmt: skip
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.name not in OWN | {csv.name} and ".db" not in path.name:
            shown[ascii(path.name)] = _text_of(path)
    mail = json.JSONDecoder().raw_decode(shown.pop("'mail'"))[0]["text"]

    posts = "\n".join(posted)
    assert FORGED in mail
    assert FORGED in posts
    assert FORGED in shown["'run.prom'"]
    assert FORGED in shown["'md.md'" if "'md.md'" in shown else "'report.md'"]
    said = {where for where, text in shown.items() if FORGED in text}
    assert len(said) > 30, said
    assert "Traceback" not in "".join(shown.values())
    assert {
        where: raw
        for where, text in [*shown.items(), ("mail", mail), ("posts", posts)]
        if (raw := raw_in(text))
    } == {}


def _text_of(path: Path) -> str:
    if path.suffix != ".gz":
        return path.read_bytes().decode("utf-8", "replace")
    with tarfile.open(path) as archive:
        files = [archive.extractfile(member) for member in archive.getmembers()]
        return "\n".join(file.read().decode() for file in files if file is not None)
