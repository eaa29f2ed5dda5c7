"""What creates files and folders: their modes, their names, and that nothing else does."""

from __future__ import annotations

import ast
import os
import stat
from contextlib import contextmanager
from pathlib import Path

import pytest

from bulkbind.app.plan import save_plan
from bulkbind.errors import LedgerError
from bulkbind.files import (
    LONGEST_NAME,
    appending,
    copy_file,
    fitting_name,
    make_folder,
    read_whole,
    replacing,
    take_lock,
    write_json,
)
from bulkbind.model import Forecast, Plan
from tests.support.paths import ROOT

PLAN = Plan(
    manifests=(),
    counts={},
    users={},
    user_count=0,
    moved=(),
    problems=(),
    forecast=Forecast(0, 0, None, ""),
    digest="",
    mark="",
)
PACKAGE = ROOT / "bulkbind"
MAKERS = {
    "chmod", "makedirs", "mkdir", "mkfifo", "mknod", "symlink_to", "touch", "umask", "write_bytes",
    "write_text", "copy", "copy2", "copyfile", "copytree", "mktemp", "write_to_textfile",
}  # fmt: skip
ALLOWED = {
    "cli/console.py": {"open"},  # the terminal
    "cli/options.py": {"write_text"},  # of a help
}


@contextmanager
def umask(taken):
    """Create files and folders without some of their permissions."""
    before = os.umask(taken)
    try:
        yield
    finally:
        os.umask(before)


def mode(path):
    """Return the permissions of a file or folder."""
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("taken", [0, 0o777, 0o027], ids=oct)
def test_what_is_new_is_for_its_owner_alone(tmp_path, taken):
    """Whatever the umask leaves to others or takes: files, and folders with all their parents."""
    with umask(taken):
        write_json(tmp_path / "a/b/c.json", {})
        with replacing(tmp_path / "d/e.csv") as file:
            file.write("x")
        appending(tmp_path / "log").close()
        copy_file(tmp_path / "log", tmp_path / "copy")
        held = take_lock(tmp_path / "locks/one.lock")
    assert held is not None
    os.close(held)

    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    folders = [path for path in tmp_path.rglob("*") if path.is_dir()]
    assert len(files) == 5
    assert {mode(path) for path in files} == {0o600}
    assert len(folders) == 4
    assert {mode(path) for path in folders} == {0o700}


def test_what_exists_keeps_its_mode(tmp_path):
    """A shared folder is somebody's wish, and so is a log that a group reads."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o2775)
    log = shared / "log"
    log.write_text("old\n")
    log.chmod(0o640)

    make_folder(shared / "new")
    with appending(log) as file:
        file.write("new\n")

    assert (mode(shared), mode(shared / "new") & 0o777, mode(log)) == (0o2775, 0o700, 0o640)
    assert log.read_text() == "old\nnew\n"


def test_a_log_that_nobody_reads_is_refused_at_once(tmp_path):
    """A FIFO would hold up the command, beyond its deadline, until somebody reads it."""
    os.mkfifo(tmp_path / "log")

    with pytest.raises(OSError, match="No such device"):
        appending(tmp_path / "log")

    reader = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK)
    with appending(tmp_path / "log") as file:
        assert os.get_blocking(file.fileno())
        file.write("line\n")
    assert os.read(reader, 99) == b"line\n"
    os.close(reader)


def test_a_small_file_is_read_to_a_limit(tmp_path, monkeypatch):
    """A device has no end; a pipe is as good as a file."""
    monkeypatch.setattr("bulkbind.files.MOST_READ", 4)
    (tmp_path / "fits").write_bytes(b"1234")
    content, status = read_whole(tmp_path / "fits")

    assert (content, status.st_size) == (b"1234", 4)
    with pytest.raises(OSError, match="too large"):
        read_whole(Path("/dev/zero"))


def test_a_file_in_the_place_of_a_folder_is_an_error(tmp_path):
    """Rather than a folder elsewhere."""
    (tmp_path / "taken").write_text("")
    for path in (tmp_path / "taken", tmp_path / "taken/inside"):
        with pytest.raises(OSError, match=r"exists|Not a directory"):
            make_folder(path)


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("a" * 300 + ".csv", ".csv"),
        ("20261123-204403-9f3c52d1-" + "ü" * 125 + ".csv", ".csv"),
        ("漢" * 90 + ".failed.csv", ".failed.csv"),
        ("😀" * 80 + ".csv.gz", ".csv.gz"),
        ("x." + "y" * 300, ""),
        (os.fsdecode(b"caf\xe9" * 80) + ".yaml", ".yaml"),
    ],
    ids=["ASCII", "two bytes", "three bytes", "four bytes", "a long suffix", "no text"],
)
def test_a_name_is_made_to_fit(tmp_path, name, ending):
    """At most 255 bytes, no character cut in two, with its beginning and its suffixes."""
    found = fitting_name(name)
    other = fitting_name(name.replace(name[-40 - len(ending)], "z", 1) + ending)

    assert LONGEST_NAME - 4 < len(os.fsencode(found)) <= LONGEST_NAME
    assert found.startswith(name[:50])
    assert found.endswith(ending)
    assert found != other
    (tmp_path / found).write_text("")
    with replacing(tmp_path / found) as file:  # its forerunner has a name, too
        file.write("new")
    assert (tmp_path / found).read_text() == "new"


def test_a_short_name_stays_as_it_is():
    """Up to the last byte."""
    for name in ("fleet.csv", "ü" * 125 + "x.csv"):
        assert fitting_name(name) == name


def test_nothing_else_creates_files():
    """Who wants another file asks `bulkbind.files` for it, so that modes and names are right."""
    strays = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}: {name}"
        for path in PACKAGE.rglob("*.py")
        if path != PACKAGE / "files.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and (name := _creates(node))
        if name not in ALLOWED.get(str(path.relative_to(PACKAGE)), ())
    ]

    assert not strays


def test_the_search_for_strays_finds_them():
    """Each way of creating a file or folder, and no way of reading one."""
    makes = (
        "open(path, 'w')", "path.open('ab')", "path.open(mode='x')", "os.open(p, os.O_CREAT)",
        "os.open(p, os.O_WRONLY | os.O_CREAT, 0o666)", "path.mkdir()", "os.makedirs(p)",
        "shutil.copyfile(a, b)", "path.write_text('')", "open(path, how)",
    )  # fmt: skip
    reads = ("open(path)", "path.open('rb')", "os.open(p, os.O_RDONLY)", "archive.open(name)")

    assert all(_creates(ast.parse(text, mode="eval").body) for text in makes)  # type: ignore[arg-type]
    assert not any(_creates(ast.parse(text, mode="eval").body) for text in reads)  # type: ignore[arg-type]


def _creates(call: ast.Call) -> str:
    """Return the name of a function that creates a file or folder; empty for other calls."""
    function = call.func
    name = str(getattr(function, "attr", None) or getattr(function, "id", ""))
    if name in MAKERS:
        return name
    owner = getattr(getattr(function, "value", None), "id", "")
    if name != "open" or owner in ("tarfile", "archive"):  # these are given an open file
        return ""
    if owner == "os":
        return name if "O_CREAT" in ast.unparse(call) else ""
    is_builtin = isinstance(function, ast.Name)
    given = call.args[1:2] if is_builtin else call.args[:1]
    given += [item.value for item in call.keywords if item.arg == "mode"]
    for how in given:
        if isinstance(how, ast.Constant) and isinstance(how.value, str):
            return name if set(how.value) & set("wax+") else ""
    return name if given and is_builtin else ""


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: write_json(path, {}), ("report file", "--out")),
        (lambda path: save_plan(PLAN, path), ("plan", "--save")),
    ],
    ids=["report", "plan"],
)
def test_what_cannot_be_written_is_named_with_its_own_option(tmp_path, write, words):
    """A plan is no report, and --out would not help it."""
    (tmp_path / "file").touch()
    what, option = words

    with pytest.raises(LedgerError, match=f"^{what} .* cannot be written: ") as caught:
        write(tmp_path / "file/x.json")

    assert option in caught.value.hint
