"""The ledger's lock: what it locks, and what it leaves alone."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from bulkbind.errors import LedgerError
from bulkbind.ledger import lock
from bulkbind.ledger.lock import LedgerLock

TRY = """
import pathlib, sys
from bulkbind.errors import LedgerBusyError
from bulkbind.ledger import lock
if sys.argv[2] == "emulated":
    lock._is_emulated = lambda device: True
try:
    lock.LedgerLock(pathlib.Path(sys.argv[1])).acquire({})
    print("taken")
except LedgerBusyError:
    print("busy")
"""


def tried(path, kind):
    """Return what another process that wants the lock comes to."""
    done = subprocess.run(
        [sys.executable, "-c", TRY, path, kind],
        capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    return done.stdout.strip()


@pytest.fixture(params=["plain", "emulated"])
def kind(request, monkeypatch):
    """Return a kind of file system: one with `flock`, or one that emulates it, as NFS."""
    if request.param == "emulated":
        monkeypatch.setattr(lock, "_is_emulated", lambda _device: True)
    return request.param


def test_the_file_is_locked_by_whatever_name(tmp_path, kind):
    """Another process finds it held by a link as well, and free once it is released."""
    path, link = tmp_path / "l.db", tmp_path / "link.db"
    held = LedgerLock(path)
    held.acquire({})
    os.link(path, link)
    (tmp_path / "l.db.lock").unlink()
    found = tried(path, kind), tried(link, kind)
    link.unlink()
    held.release()

    assert found == ("busy", "busy")
    assert tried(path, kind) == "taken"


def test_the_lock_leaves_those_of_sqlite_alone(tmp_path, kind):
    """A ledger can be written while it is locked, and what SQLite locks stays locked after it."""
    path = tmp_path / "l.db"
    held = LedgerLock(path)
    held.acquire({})
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("CREATE TABLE t (x)")
        db.execute("BEGIN EXCLUSIVE")
        held.release()
        assert tried_to_write(path) == "database is locked"
        held.acquire({})
        assert tried_to_write(path) == "database is locked"
        db.execute("COMMIT")
    assert tried(path, kind) == "busy"
    held.release()
    assert tried_to_write(path) == "written"


def tried_to_write(path):
    """Return what another process that writes at once comes to."""
    code = (
        "import sqlite3, sys\n"
        "try:\n"
        "    db = sqlite3.connect(sys.argv[1], timeout=0)\n"
        "    db.execute('INSERT INTO t VALUES (1)'); db.commit(); print('written')\n"
        "except sqlite3.OperationalError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout.strip()


def test_a_ledger_that_was_replaced_is_locked_anew(tmp_path):
    """The lock is of the file that stands there now; the descriptors of deleted ones are closed."""
    path = tmp_path / "l.db"
    for _ in range(20):
        held = LedgerLock(path)
        held.acquire({})
        held.release()
        path.unlink()
    last = LedgerLock(path)
    last.acquire({})

    assert tried(path, "plain") == "busy"
    assert sum(os.fstat(kept.file).st_nlink == 0 for kept in lock._kept.values()) == 0
    last.release()


def test_a_folder_of_the_ledgers_name_is_said_plainly(tmp_path):
    """As any file that cannot be opened."""
    with pytest.raises(LedgerError, match="cannot be opened"):
        LedgerLock(tmp_path).acquire({})


def test_a_disk_that_cannot_hold_the_lock_is_said_plainly(tmp_path, monkeypatch):
    """The files were made, but nothing can be written into them; the lock is free again."""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(LedgerError, match="No space left"):
        LedgerLock(tmp_path / "ledger.db").acquire({})
    monkeypatch.undo()
    LedgerLock(tmp_path / "ledger.db").acquire({})
