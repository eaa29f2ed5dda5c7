"""A manifest is opened once: what is put under its name meanwhile is not read."""

from __future__ import annotations

import gzip
import io
import os

import pytest

from bulkbind.errors import InterruptedRunError, ManifestError
from bulkbind.manifest import ManifestFile, digest, open_manifest
from bulkbind.manifest.opened import open_once
from bulkbind.settings import ManifestSettings
from tests.support.manifests import write_csv, write_xlsx

PLAIN = ManifestSettings()


def codes(manifest):
    """Return the machine codes of a manifest."""
    return [row.values[1] for row in manifest.rows()]


@pytest.fixture
def fleet(tmp_path):
    """Return a manifest, and another one that can take its name."""
    write_csv(tmp_path / "other.csv", [("B1", "thief", "", "")])
    return write_csv(tmp_path / "fleet.csv", [("A1", "u", "", ""), ("A2", "u", "", "")])


@pytest.mark.parametrize("how", ["file", "link", "nothing"])
def test_rows_and_digest_are_of_the_file_that_was_opened(tmp_path, fleet, how):
    """Whatever has its name by the time they are read."""
    before = digest([fleet], PLAIN)
    file = ManifestFile.of(fleet)
    manifest = open_manifest(file, PLAIN)
    fleet.unlink()
    if how == "file":
        (tmp_path / "other.csv").rename(fleet)
    elif how == "link":
        fleet.symlink_to(tmp_path / "other.csv")

    assert codes(manifest) == ["A1", "A2"]
    assert digest([file], PLAIN) == before


def test_a_change_of_the_file_itself_changes_its_digest(fleet):
    """So that a run can refuse it."""
    file = ManifestFile.of(fleet)
    before = file.digest()
    with fleet.open("a") as appended:
        appended.write("A3,u,,\n")

    assert file.digest() != before


def test_a_link_is_followed_where_it_may(tmp_path, fleet):
    """A ConfigMap is one; in an inbox it is none of ours."""
    link = tmp_path / "link.csv"
    link.symlink_to(fleet)

    assert codes(open_manifest(link, PLAIN)) == ["A1", "A2"]
    with pytest.raises(ManifestError, match=r"link\.csv cannot be read"):
        open_once(link, "link.csv", follow=False)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("kind", ["FIFO", "folder", "device"])
def test_what_is_no_file_is_refused_at_once(tmp_path, kind):
    """Nobody waits for a writer."""
    path = tmp_path / "fleet.csv"
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/null")

    with pytest.raises(ManifestError, match="is not a regular file"):
        open_manifest(path, PLAIN)


def test_what_is_called_before_a_read_can_end_it(tmp_path, fleet):
    """In every format, packed or not, also while a workbook is looked at."""
    packed = tmp_path / "fleet.csv.gz"
    packed.write_bytes(gzip.compress(fleet.read_bytes()))
    book = write_xlsx(tmp_path / "f.xlsx", ("One", [["machine_code", "user_id"], ["A1", "u"]]))

    def end():
        raise InterruptedRunError("enough")

    for path in (fleet, packed, book):
        file = ManifestFile.of(path)
        assert list(open_manifest(file, PLAIN).rows())
        file.on_read = end
        for work in (lambda f=file: open_manifest(f, PLAIN), file.digest):
            with pytest.raises(InterruptedRunError):
                work()


def test_a_disk_that_fails_is_an_error_of_the_manifest(fleet):
    """In whatever reads it, so that an inbox goes on with its next file."""
    file = ManifestFile.of(fleet)
    manifest = open_manifest(file, PLAIN)
    file.close()  # as the nearest thing to a disk that has gone

    for work in (file.digest, lambda: list(manifest.rows()), lambda: open_manifest(file, PLAIN)):
        with pytest.raises(ManifestError, match=r"fleet\.csv cannot be read: Bad file descriptor"):
            work()


def test_readers_have_positions_of_their_own(fleet):
    """And may seek, as ZIP archives need it."""
    file = ManifestFile.of(fleet)
    one, other = file.reader(), file.reader()

    assert one.read(7) == b"machine"
    assert other.read(7) == b"machine"
    assert (one.tell(), one.seek(-7, io.SEEK_END), one.read()) == (
        7,
        fleet.stat().st_size - 7,
        b"A2,u,,\n",
    )
    one.close()
    assert other.read(5) == b"_code"


def test_the_file_is_closed_when_nobody_reads_it(fleet):
    """Also where nobody said so; a reader keeps it open."""
    file = ManifestFile.of(fleet)
    close, reader = file.close, file.reader()
    del file
    assert close.alive
    del reader

    assert not close.alive
