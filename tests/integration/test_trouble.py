"""Files that are gone, foreign, locked away or folders: what is said, and what is saved."""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack, closing

import pytest

from bulkbind.errors import LedgerError
from bulkbind.ledger import Ledger, reading
from bulkbind.ledger.opening import connect, translated
from tests.integration.test_engine import ENDPOINT, HOLDER, Bench, devices
from tests.support.fake_clock import FakeClock


async def deleted_under(bench, in_its_place):
    """Delete a ledger in use, put something in its place, and return what its next call raises."""
    async with bench.ledger() as ledger:
        run = await bench.staged(ledger, devices(3))
        for path in [*bench.path.parent.iterdir()]:
            path.unlink()
        in_its_place(bench.path)
        with pytest.raises(LedgerError) as caught:
            await ledger.start(run)
        with pytest.raises(LedgerError) as again:
            await ledger.counts(run)
    assert str(again.value) == str(caught.value)
    return caught.value


async def test_a_deleted_ledger_is_put_back_with_the_last_write(tmp_path):
    """What was being written when it was noticed is in the copy, and nothing lies about."""
    bench = Bench(tmp_path / "ledger.db")

    error = await deleted_under(bench, lambda _path: None)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["ledger.db"]
    assert "all that it held was put back there" in str(error)
    assert bench.counts() == {"pending": 3}
    with reading(bench.path) as db:
        assert db.execute("SELECT state FROM runs").fetchall() == [("sending",)]
    assert bench.path.stat().st_mode & 0o777 == 0o600


async def test_a_replaced_ledger_is_saved_beside_its_successor(tmp_path):
    """What somebody else put there is left alone, and the message names both files."""
    bench = Bench(tmp_path / "ledger.db")

    error = await deleted_under(bench, lambda path: path.write_text("something else"))

    (saved,) = tmp_path.glob("ledger.rescued-*.db")
    assert str(saved) in str(error)
    assert f"--ledger {saved}" in error.hint
    assert bench.path.read_text(encoding="utf-8") == "something else"
    with closing(sqlite3.connect(saved)) as db:
        assert db.execute("SELECT count(*) FROM rows").fetchone() == (3,)


async def test_a_ledger_that_cannot_be_put_back_is_not_called_safe(tmp_path):
    """Where nothing can be written, the message says that it is lost and who knows the rest."""
    bench = Bench(tmp_path / "folder" / "ledger.db")

    def shut(path):
        path.parent.rmdir()
        path.parent.write_text("a file where the folder was")

    error = await deleted_under(bench, shut)

    assert "could not be written again" in str(error)
    assert "nothing is lost" not in error.hint
    assert "run the manifest once more" in error.hint


@pytest.mark.parametrize("opens", ["reader", "writer"])
def test_a_folder_is_no_ledger(tmp_path, opens):
    """Whoever opens it says that it is a folder, and what to name instead."""
    folder = tmp_path / "ledgers"
    folder.mkdir()

    with pytest.raises(LedgerError) as caught, ExitStack() as stack:
        stack.enter_context(reading(folder) if opens == "reader" else closing(connect(folder, "")))

    assert str(folder) in str(caught.value)
    assert "it is a folder: name a file" in caught.value.hint


async def test_a_path_through_a_file_is_explained(tmp_path):
    """The lock is the first to meet it."""
    (tmp_path / "file").touch()
    ledger = Ledger(tmp_path / "file" / "l.db", ENDPOINT, FakeClock())

    with pytest.raises(LedgerError) as caught:
        await ledger.open(HOLDER)

    assert "a part of its path is a file" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("SQLITE_CANTOPEN", "give this user the right"),
        ("SQLITE_READONLY_DIRECTORY", "read-only"),
        ("SQLITE_FULL", "free the disk"),
        ("SQLITE_IOERR_WRITE", "see to the disk"),
        ("SQLITE_BUSY", "another program"),
        ("SQLITE_CORRUPT_VTAB", "it was not written to"),
        ("SQLITE_NOTADB", "the file was not touched"),
    ],
)
def test_every_error_of_sqlite_has_a_hint(tmp_path, name, words):
    """By its name; unknown ones are told as they are."""
    error = sqlite3.OperationalError("what SQLite says")
    error.sqlite_errorname = name

    told = translated(tmp_path / "l.db", error)

    assert words in told.hint
    assert "l.db" in str(told)


def test_damage_that_is_met_later_says_that_it_was_written_to(tmp_path):
    """Only where nothing was written may the message say so."""
    error = sqlite3.DatabaseError("malformed")
    error.sqlite_errorname = "SQLITE_CORRUPT"

    told = translated(tmp_path / "l.db", error, is_untouched=False)

    assert "this run has written to it" in told.hint
