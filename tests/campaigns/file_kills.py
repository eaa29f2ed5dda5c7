"""Kills while files are made or moved: `python -m tests.campaigns.file_kills [SCENE...]`.

Four scenes: an inbox moves its files, a bundle is written, a report is written, a ledger of the
first version is brought up to date. In each the command is killed with SIGKILL at random moments of
just that, in a folder of its own for each kill, and then run again. Nothing may be lost, no file
may be half written, and the second command must come to what an undisturbed one comes to. Prints
how many kills struck and what was wrong; exit code 1 if anything was.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sqlite3
import sys
import tarfile
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from bulkbind import report
from bulkbind.app import bundle, inbox
from bulkbind.ledger import RunReader, reading, versions
from tests.benchmarks.bench import say
from tests.campaigns.kill_points import fill, run_forked, troubles
from tests.support.manifests import fleet, write_csv
from tests.support.paths import ROOT
from tests.support.processes import sandbox

if TYPE_CHECKING:
    from types import CodeType, FrameType

OLD_LEDGER = ROOT / "tests/integration/ledger_version_1.sql"
COPIES = 300
"""So often each row of the old ledger is there, for an upgrade that takes a while."""
OLD = b"as an earlier command wrote it"
TRIES = 12
"""Commands started for each kill that is to strike: some are over before it comes."""
LATE = 1.05
"""Kills come up to so many times as late as the work took, undisturbed."""


class Scene(ABC):
    """Something that is done to files, in a new folder each time."""

    name: str
    code: CodeType
    """Of the function during which the kills come."""
    calls = 1
    """Calls of it in one command; the kill comes in any of them."""

    @abstractmethod
    def prepare(self, home: Path) -> list[str]:
        """Fill a folder; return the arguments of the command."""

    @abstractmethod
    def halves(self, home: Path) -> list[str]:
        """Return what is neither old nor new after the kill."""

    @abstractmethod
    def wrong(self, home: Path, code: int) -> list[str]:
        """Return what is not as it should be after the second command, which ended with *code*."""


# --- the scenes -----------------------------------------------------------------------------------


class Inbox(Scene):
    """Two files with problems, each with its report, its failed rows and its move."""

    name = "inbox"
    code = inbox._Pass._settle.__code__
    calls = 2

    def __init__(self, url: str) -> None:
        self._url = url
        self._codes: dict[Path, dict[str, list[str]]] = {}

    def prepare(self, home: Path) -> list[str]:
        self._codes[home] = fill(home / "in", home.name)
        (home / "bulkbind.yaml").write_text("readback_settle: 100ms\non_invalid: skip\n")
        return [
            "run", "in", "--archive", "done", "--min-age", "0s", "--out", "reports", "--endpoint",
            self._url, "--config", "bulkbind.yaml", "--quiet", "--yes",
        ]  # fmt: skip

    def halves(self, home: Path) -> list[str]:
        files = [*home.glob("in/*.csv"), *home.glob("done/**/*-*.csv")]
        kept = [path for path in files if ".failed." not in path.name]
        return [] if len(kept) == len(self._codes[home]) else [f"files: {sorted(kept)}"]

    def wrong(self, home: Path, code: int) -> list[str]:
        return troubles(home, self._url, self._codes[home], home.name, code)


class Sent(Scene):
    """What is made of a ledger with a run that was sent."""

    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger

    def _copied(self, home: Path) -> list[str]:
        shutil.copyfile(self._ledger, home / "ledger.db")
        return ["--ledger", "ledger.db"]


class Bundle(Sent):
    """An archive that takes the place of an older one."""

    name = "bundle"
    code = bundle._write.__code__
    members = 7

    def prepare(self, home: Path) -> list[str]:
        (home / "bundle.tar.gz").write_bytes(OLD)
        return ["bundle", *self._copied(home), "--to", "bundle.tar.gz"]

    def halves(self, home: Path) -> list[str]:
        path = home / "bundle.tar.gz"
        return [] if path.read_bytes() == OLD else self.wrong(home, 0)

    def wrong(self, home: Path, code: int) -> list[str]:
        try:
            with tarfile.open(home / "bundle.tar.gz") as archive:
                names = archive.getnames()
        except (tarfile.TarError, EOFError, OSError) as error:
            return [f"no archive: {error}"]
        found = [] if len(names) == self.members else [f"members: {names}"]
        return found if code == 0 else [*found, f"exit code {code}"]


class Report(Sent):
    """Files that take the places of older ones."""

    name = "report"
    code = report.write_report.__code__
    files = ("results.csv", "failed.csv", "problems.csv", "summary.json", "report.html")

    def __init__(self, ledger: Path) -> None:
        super().__init__(ledger)
        self._new: dict[str, bytes] = {}
        """As an undisturbed command writes them."""

    def prepare(self, home: Path) -> list[str]:
        (home / "report").mkdir()
        for name in self.files:
            (home / "report" / name).write_bytes(OLD)
        return ["report", *self._copied(home), "--out", "report"]

    def _read(self, home: Path) -> dict[str, bytes]:
        return {name: (home / "report" / name).read_bytes() for name in self.files}

    def halves(self, home: Path) -> list[str]:
        new = self._new
        return [n for n, data in self._read(home).items() if data not in (OLD, new[n])]

    def wrong(self, home: Path, code: int) -> list[str]:
        found = self._read(home)
        self._new = self._new or found
        wrong = [f"{name} differs" for name in self.files if found[name] != self._new[name]]
        return wrong if code == 0 else [*wrong, f"exit code {code}"]


class Upgrade(Scene):
    """A ledger of version 1 that is only to be read."""

    name = "upgrade"
    code = versions.upgrade.__code__

    def __init__(self, base: Path) -> None:
        self._old = base / "old.db"
        self._told: object = None
        """What an undisturbed upgrade tells."""
        with closing(sqlite3.connect(self._old)) as db:
            db.executescript(OLD_LEDGER.read_text(encoding="utf-8"))
            columns = [row[1] for row in db.execute("PRAGMA table_info(rows)")]
            changed = {"id": "id + ? * 1000", "machine_code": "machine_code || 'x' || ?"}
            taken = ", ".join(changed.get(name, name) for name in columns)
            rows = f"INSERT INTO rows SELECT {taken} FROM rows WHERE id <= ?"  # noqa: S608  # constants
            [(last,)] = db.execute("SELECT max(id) FROM rows")
            db.executemany(rows, [(n, n, last) for n in range(1, COPIES)])
            db.commit()

    def prepare(self, home: Path) -> list[str]:
        shutil.copyfile(self._old, home / "ledger.db")
        return ["runs", "--ledger", "ledger.db"]

    def halves(self, home: Path) -> list[str]:
        # A copy, since whoever opens it settles what its log holds.
        copy = home / "seen"
        copy.mkdir()
        for path in home.glob("ledger.db*"):
            shutil.copyfile(path, copy / path.name)
        with closing(sqlite3.connect(copy / "ledger.db")) as db:
            [(state,)] = db.execute("PRAGMA integrity_check")
            [(version,)] = db.execute("PRAGMA user_version")
        known = state == "ok" and 1 <= version <= versions.VERSION
        return [] if known else [f"version {version}: {state}"]

    def wrong(self, home: Path, code: int) -> list[str]:
        with reading(home / "ledger.db") as db:
            reader = RunReader(db, 1)
            told = list(reader.rows()), list(reader.attempts()), reader.summary()
        self._told = self._told or told
        found = [] if told == self._told else ["another ledger than without a kill"]
        return found if code == 0 else [*found, f"exit code {code}"]


# --- kills ----------------------------------------------------------------------------------------


class Watched:
    """A command in a fork that tells when the scene's function begins and ends."""

    def __init__(self, scene: Scene, home: Path, arguments: list[str], call: int = 1) -> None:
        """*call*: which call of the function is meant, from 1."""
        self._code, self._left = scene.code, call
        self._told, self._tell = os.pipe()
        self._home, self._arguments = home, arguments
        self.pid = 0

    def __enter__(self) -> Self:
        self.pid = run_forked(self._home, self._arguments, self._watch, wait=False)
        os.close(self._tell)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._told)

    def heard(self) -> bool:
        """Wait for the next beginning or end; return False where the process has ended first."""
        return bool(os.read(self._told, 1))

    def code(self) -> int:
        """Return the exit code, negative after a signal."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _watch(self) -> None:
        def hook(frame: FrameType, event: str, _argument: Any) -> None:
            if frame.f_code is not self._code or event not in ("call", "return"):
                return
            self._left -= event == "call"
            if self._left == 0:
                os.write(self._tell, event[:1].encode())
                self._left -= event == "return"

        threading.setprofile(hook)
        sys.setprofile(hook)


def undisturbed(scene: Scene, base: Path) -> float:
    """Run the command as it is; return how long the scene's function took, in seconds."""
    home = base / f"{scene.name}0"
    home.mkdir()
    with Watched(scene, home, scene.prepare(home)) as watched:
        watched.heard()
        began = time.monotonic()
        watched.heard()
        took_s = time.monotonic() - began
        code = watched.code()
    if found := scene.wrong(home, code):
        raise SystemExit(f"{scene.name} without a kill: {found}")
    return took_s


def kills_of(scene: Scene, base: Path, wanted: int, pick: random.Random) -> tuple[int, list[str]]:
    """Kill until enough kills have struck; return how many did, and what was wrong."""
    took_s = undisturbed(scene, base)
    struck, wrong = 0, []
    for number in range(1, wanted * TRIES + 1):
        home = base / f"{scene.name}{number}"
        home.mkdir()
        arguments = scene.prepare(home)
        with Watched(scene, home, arguments, pick.randint(1, scene.calls)) as watched:
            watched.heard()
            time.sleep(pick.uniform(0.0, LATE * took_s))  # noqa: TID251  # another process works
            os.kill(watched.pid, signal.SIGKILL)
            code = watched.code()
            is_over = watched.heard()
        if code == -signal.SIGKILL and not is_over:
            struck += 1
            found = scene.halves(home)
            second = run_forked(home, arguments)
            wrong += [f"{home.name}: {each}" for each in (*found, *scene.wrong(home, second))]
        shutil.rmtree(home)
        if struck == wanted:
            break
    return struck, wrong


def sent(home: Path, url: str) -> Path:
    """Return a ledger with a run, some of whose rows need a person."""
    home.mkdir()
    rows = [*fleet(400), *((f"bad-{n}", "u", "", "") for n in range(200))]
    write_csv(home / "fleet.csv", rows)
    given = ["--endpoint", url, "--ledger", "ledger.db", "--on-invalid", "skip", "--quiet"]
    if (code := run_forked(home, ["run", "fleet.csv", *given])) != 1:
        raise SystemExit(f"the run ended with {code}: {(home / 'said').read_text()}")
    return home / "ledger.db"


def main() -> None:
    """Kill each scene fifty times, unless told otherwise."""
    parser = argparse.ArgumentParser(description="Kill commands while they make or move files.")
    parser.add_argument("scenes", nargs="*", metavar="SCENE", help="[default: all four]")
    parser.add_argument("--kills", type=int, default=50, help="of each scene  [default: 50]")
    parser.add_argument("--seed", type=int, default=20, help="of the moments  [default: 20]")
    given = parser.parse_args()
    is_wrong = False
    with ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory())).resolve()
        url = stack.enter_context(sandbox(home=base))
        ledger = sent(base / "sent", url)
        scenes = (Inbox(url), Bundle(ledger), Report(ledger), Upgrade(base))
        for scene in scenes:
            if given.scenes and scene.name not in given.scenes:
                continue
            struck, wrong = kills_of(scene, base, given.kills, random.Random(given.seed))
            say(f"{scene.name:<8}  {struck:>4} kills struck, {len(wrong)} wrong (0 wanted)")
            for line in wrong:
                say(f"    {line}")
            is_wrong = is_wrong or bool(wrong) or struck < given.kills
    sys.exit(is_wrong)


if __name__ == "__main__":
    main()
