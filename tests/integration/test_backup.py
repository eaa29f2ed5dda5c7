"""`bulkbind ledger`: a copy of one moment, a look for damage, and what a ledger holds."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing

import pytest
from click.testing import CliRunner

from bulkbind.cli import cli
from bulkbind.errors import LedgerError
from bulkbind.ledger import back_up_file, backup, contents, reading
from bulkbind.ledger.opening import connect
from bulkbind.ledger.store import transaction
from tests.integration.test_ledger import ENDPOINT, claimed, settle, staged, valid
from tests.integration.test_stored_once import told


@pytest.fixture
def path(tmp_path):
    """Return a ledger in which a device is bound."""
    path = tmp_path / "ledger.db"
    with closing(connect(path, ENDPOINT)) as db:
        settle(db, claimed(db, staged(db, "a", [valid(2, "A")])))
    return path


def test_a_copy_is_what_was_committed_also_beside_a_writer(path, tmp_path):
    """Amid a transaction of a run; private, in one file, and as good as the ledger."""
    copy = tmp_path / "folder" / "copy.db"
    with closing(connect(path, ENDPOINT)) as db:
        run = staged(db, "b", [valid(2, "B")])
        before = told(db, run)
        with transaction(db):
            db.execute("UPDATE rows SET status = 'claimed' WHERE status = 'staged'")
            written = back_up_file(path, ENDPOINT, copy)

    assert [file.name for file in copy.parent.iterdir()] == ["copy.db"]
    assert copy.stat().st_size == written
    assert copy.stat().st_mode & 0o777 == 0o600
    with reading(copy, ENDPOINT) as db:
        assert told(db, run) == before
        assert [row.status for row in told(db, 1)] == ["bound"]
    connect(copy, ENDPOINT).close()


def test_a_copy_replaces_nothing(path, tmp_path):
    """A file that is there stays, be it of another kind."""
    other = tmp_path / "other.txt"
    other.write_text("mine")

    with pytest.raises(LedgerError, match="it exists"):
        back_up_file(path, ENDPOINT, other)

    assert other.read_text() == "mine"


def test_a_copy_that_fails_leaves_nothing(path, tmp_path, monkeypatch):
    """No room, no right, or a write that fails: the error says which, and no part stays."""
    with monkeypatch.context() as patch:
        patch.setattr(backup, "need_room", lambda *_: refuse())
        with pytest.raises(LedgerError, match="no room"):
            back_up_file(path, ENDPOINT, tmp_path / "copy.db")
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda _: fail())
        with pytest.raises(LedgerError, match="cannot be written: Input/output error"):
            back_up_file(path, ENDPOINT, tmp_path / "copy.db")
    with pytest.raises(LedgerError, match=r"cannot be written: (Not a directory|File exists)"):
        back_up_file(path, ENDPOINT, path / "copy.db")

    beside = {"ledger.db", "ledger.db-wal", "ledger.db-shm"}  # what a reader leaves
    assert {file.name for file in tmp_path.iterdir()} <= beside


def test_what_else_to_do_is_about_the_copy_not_the_ledger(path, tmp_path, monkeypatch):
    """`--ledger` names what is copied; beside an upgraded ledger it is the ledger all the same."""
    told = []
    full = shutil.disk_usage(tmp_path)._replace(free=0)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _: full)
        with pytest.raises(LedgerError) as error:
            back_up_file(path, ENDPOINT, tmp_path / "copy.db")
        told.append(error.value.hint)
        with closing(sqlite3.connect(path)) as db, pytest.raises(LedgerError) as error:
            backup.back_up(db, tmp_path / "copy.db", may_replace=True)
        of_upgrade = error.value.hint
    with pytest.raises(LedgerError) as error:
        back_up_file(path, ENDPOINT, path / "copy.db")
    told.append(error.value.hint)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda _: fail())
        with pytest.raises(LedgerError) as error:
            back_up_file(path, ENDPOINT, tmp_path / "copy.db")
    told.append(error.value.hint)

    assert told[0] == "free the disk, or name another file for the copy"
    assert all("another file for the copy" in each and "--ledger" not in each for each in told)
    assert of_upgrade == "free the disk, or choose another place with --ledger FILE"


def refuse():
    """Raise what a check of the room does."""
    raise LedgerError("no room")


def fail():
    """Raise what a bad disk does."""
    raise OSError(5, "Input/output error")


def asked(*arguments):
    """Call the command; return its exit code and output."""
    done = CliRunner().invoke(cli, ["ledger", *map(str, arguments)])
    return done.exit_code, done.output


def test_the_command_copies_checks_and_tells(path, tmp_path):
    """Each action says what it did; a wrong one says which there are."""
    of = ("--ledger", path, "--endpoint", ENDPOINT)

    assert asked("check", *of) == (0, f"ledger {path} is whole\n")
    code, said = asked("backup", tmp_path / "copy.db", *of)
    assert code == 0
    assert f"MB copied to {tmp_path / 'copy.db'}" in said
    code, said = asked("size", *of)
    assert code == 0
    assert [line.split()[0] for line in said.splitlines()[2:]] == ["1"] * 5
    assert contents(path, ENDPOINT)["bytes"] == path.stat().st_size
    for wrong in (["backup"], ["check", "file"], ["sizes"]):
        code, said = asked(*wrong, *of)
        assert code == 2
        assert "check|size" in said
    assert asked("check", "--ledger", tmp_path / "none.db", "--endpoint", ENDPOINT)[0] in {2, 4}


def test_damage_is_told(path):
    """What SQLite finds is printed, and the exit code is that of a ledger in trouble."""
    with closing(sqlite3.connect(path)) as db:
        (page,) = db.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'devices_code'"
        ).fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096 + 8)
        file.write(b"\xff" * 100)

    code, said = asked("check", "--ledger", path, "--endpoint", ENDPOINT)

    assert code == 4
    assert "damaged" in said
