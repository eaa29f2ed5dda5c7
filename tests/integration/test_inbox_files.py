"""What others do to an inbox: swaps, long names, what cannot be moved, and what is told once."""

from __future__ import annotations

import json
import os

import pytest
from pydantic import SecretStr

from bulkbind.app.inbox import Dropped, _put_back, is_new_trouble, move, run_inbox, tell_again
from bulkbind.app.notices.run_end import of_inbox
from bulkbind.app.session.listener import Listener
from bulkbind.engine import StopReason, StopSignal
from bulkbind.errors import ExitCode, LedgerError
from bulkbind.manifest.opened import Identity
from bulkbind.sandbox import Sandbox, SandboxOptions, parse_fault
from bulkbind.settings import ApiSettings, AuthSettings, ManifestSettings, SendSettings, Settings
from tests.support.manifests import write_csv

BAD = ("a hyphen-code", "u", "", "")


@pytest.fixture
async def sandbox(request):
    """Serve a sandbox, with the options that the test names."""
    async with Sandbox(getattr(request, "param", None)) as served:
        yield served


@pytest.fixture
def inbox(tmp_path):
    """Return an empty inbox."""
    folder = tmp_path / "in"
    folder.mkdir()
    return folder


@pytest.fixture
def pass_over(tmp_path, sandbox, inbox):
    """Return a function that lets bulkbind look at the inbox once."""
    settings = Settings(
        api=ApiSettings(endpoint=sandbox.url),
        auth=AuthSettings(token=SecretStr("any")),
        manifest=ManifestSettings(on_invalid="skip"),
        send=SendSettings(max_attempts=1),
        ledger=tmp_path / "ledger.db",
        out=tmp_path / "report",
    )

    async def once(listener=None, stop=None, **manifest):
        given = settings.model_copy(
            update={"manifest": settings.manifest.model_copy(update=manifest)}
        )
        return await run_inbox(
            inbox, tmp_path / "done", given, min_age_s=0.0, listener=listener, stop=stop
        )

    return once


class Warned(Listener):
    """Keeps the warnings."""

    def __init__(self):
        self.warnings: list[str] = []

    def warning(self, text):
        self.warnings.append(text)


async def test_a_file_of_which_no_row_is_meant_is_done_in_silence(tmp_path, inbox, pass_over):
    """It is for somebody else's conditions; a file without rows is warned of all the same."""
    write_csv(inbox / "other.csv", [("A1", "u", "", "Android 15")])
    write_csv(inbox / "empty.csv", [])
    told = Warned()

    result = await pass_over(told, where=("device_os=Windows 11",))

    assert result.exit_code is ExitCode.DONE
    assert told.warnings == [f"{inbox / 'empty.csv'} holds no rows"]
    done = [path.name.rpartition("-")[2] for path in (tmp_path / "done").glob("*.csv")]
    assert sorted(done) == ["empty.csv", "other.csv"]


class AtFirstRow(Listener):
    """Does something once rows are being read."""

    def __init__(self, do):
        self._do = do

    def staged(self, _rows):
        do, self._do = self._do, lambda: None
        do()


def names(folder):
    """Return the names in a folder, without the run's id in front."""
    return sorted(path.name.split("-", 3)[-1] for path in folder.iterdir() if path.is_file())


# --- what is read is what was looked at ----------------------------------------------------------


@pytest.mark.parametrize("what", ["link", "fifo", "file", "folder", "nothing"])
async def test_a_swap_before_it_is_opened_is_left_to_the_next_pass(
    tmp_path, inbox, sandbox, pass_over, what
):
    """No other file of ours is read, nobody waits for a FIFO, and nothing is reported."""
    secret = write_csv(tmp_path / "secret.csv", [("SECRET", "u", "", "")])
    write_csv(inbox / "a.csv", [("A1", "u", "", "")])
    path = write_csv(inbox / "b.csv", [("B1", "u", "", "")])
    write_csv(inbox / "c.csv", [("C1", "u", "", "")])
    for number, name in enumerate("abc"):
        os.utime(inbox / f"{name}.csv", (number, number))

    def swap():
        path.unlink()
        if what == "link":
            path.symlink_to(secret)
        elif what == "fifo":
            os.mkfifo(path)
        elif what == "file":
            secret.rename(path)
        elif what == "folder":
            path.mkdir()

    result = await pass_over(AtFirstRow(swap))

    assert [item.name for item in result.files] == ["a.csv", "c.csv"]
    assert result.waiting == (what == "file")
    assert names(tmp_path / "done") == ["a.csv", "c.csv"]
    assert (path.is_symlink() or path.exists()) == (what != "nothing")
    assert len(sandbox.bindings) == 2


async def test_a_swap_while_it_is_read_changes_nothing_of_what_is_read(
    tmp_path, inbox, sandbox, pass_over
):
    """The rows are those of the file that was opened; the new one is run by the next pass."""
    path = write_csv(inbox / "a.csv", [("A1", "u", "", "")])
    other = write_csv(tmp_path / "other.csv", [("B1", "u", "", "")])

    first = await pass_over(AtFirstRow(lambda: other.rename(path)))
    left = names(inbox)
    second = await pass_over()

    assert [item.problem for item in first.files] == [
        "it was changed while it was run: the next run takes it again"
    ]
    assert left == ["a.csv"]
    assert second.counts() == {"bound": 1}
    assert (names(inbox), names(tmp_path / "done")) == ([], ["a.csv"])
    assert len(sandbox.bindings) == 2


def test_only_the_file_that_was_read_is_moved(tmp_path):
    """Neither one that took its name, nor over one that is there."""
    path = write_csv(tmp_path / "fleet.csv", [("A1", "u", "", "")])
    read, target = Identity.of(path.stat()), tmp_path / "target.csv"
    target.symlink_to("nowhere")
    with pytest.raises(FileExistsError):
        move(path, read, target)
    target.unlink()
    write_csv(tmp_path / "other.csv", [("B1", "u", "", "")]).replace(path)

    assert not move(path, read, target)
    assert move(path, Identity.of(path.stat()), target)
    assert "B1" in target.read_text()


def test_a_file_moved_by_mistake_gets_its_name_back_or_one_beside(tmp_path):
    """It took the name in the moment of the move, and perhaps somebody has taken it again."""
    path = tmp_path / "fleet.csv"
    for code in ("B1", "C1", "D1"):
        _put_back(write_csv(tmp_path / "moved.csv", [(code, "u", "", "")]), path)

    assert "B1" in path.read_text()
    assert "C1" in (tmp_path / "fleet.1.csv").read_text()
    assert "D1" in (tmp_path / "fleet.2.csv").read_text()
    assert not (tmp_path / "moved.csv").exists()


def test_a_file_that_cannot_be_put_back_is_named(tmp_path):
    """It stays where it is, and a person is told."""
    moved = write_csv(tmp_path / "moved.csv", [("B1", "u", "", "")])
    with pytest.raises(LedgerError, match="cannot be put back") as caught:
        _put_back(moved, tmp_path / "gone/fleet.csv")

    assert "moved.csv, and was not run: put it into the inbox again" in caught.value.hint
    assert "B1" in moved.read_text()


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["a" * 251 + ".csv", "ü" * 125 + "x.csv", "漢" * 83 + ".json", "😀" * 62 + "y.yaml"],
    ids=["ASCII", "two bytes", "three bytes", "four bytes"],
)
async def test_a_name_of_255_bytes_works_everywhere(tmp_path, inbox, pass_over, name):
    """Report, failed rows and archive; the file behind it is run as well."""
    rows = [
        {"machine_code": code, "user_id": user} for code, user, *_ in [("A1", "u", "", ""), BAD]
    ]
    if name.endswith(".csv"):
        write_csv(inbox / name, [("A1", "u", "", ""), BAD])
    else:
        (inbox / name).write_text(json.dumps(rows), encoding="utf-8")
    write_csv(inbox / "z.csv", [("Z1", "u", "", "")])
    assert len(os.fsencode(name)) >= 252

    result = await pass_over()

    long, short = sorted(result.files, key=lambda item: item.name == "z.csv")
    assert (long.name, long.counts, long.problem) == (name, {"bound": 1, "invalid": 1}, "")
    assert (short.counts, short.problem) == ({"bound": 1}, "")
    assert names(inbox) == []
    assert names(tmp_path / "done") == ["z.csv"]
    moved, failed = sorted(
        (tmp_path / "done/with-problems").iterdir(), key=lambda path: ".failed." in path.name
    )
    assert moved == long.moved_to
    assert moved.name.startswith(f"{long.run_id}-{name[:20]}")
    assert moved.suffix == failed.suffix == os.path.splitext(name)[1]  # noqa: PTH122  # a name alone
    assert "hyphen-code" in failed.read_text(encoding="utf-8")


# --- told once -----------------------------------------------------------------------------------


async def test_a_stray_file_is_told_once_and_again_when_it_changes(tmp_path, inbox, pass_over):
    """Exit code and notification are of what is new; the report names it every time."""
    stray = inbox / "notes.txt"
    stray.write_text("call Anna\n\ntomorrow at nine\n")
    results = [await pass_over(), await pass_over()]
    write_csv(inbox / "new.csv", [("A1", "u", "", "")])
    results.append(await pass_over())
    stray.write_text("call Anna\n\ntoday at nine\n")
    results.append(await pass_over())
    stray.unlink()
    results.append(await pass_over())

    assert [result.exit_code for result in results] == [2, 0, 0, 2, 0]
    assert [of_inbox(result).is_change for result in results] == [True, False, True, True, False]
    assert [item.was_told for item in results[1].files] == [True]
    assert "1 file is still in the inbox, as was told before" in of_inbox(results[1]).text
    assert results[1].files[0].problem == results[0].files[0].problem
    assert names(tmp_path / "done") == ["new.csv"]


async def test_a_file_that_becomes_readable_is_run(inbox, pass_over):
    """It is tried each time: settings may have been fixed meanwhile."""
    (inbox / "a.csv").write_text("Serial,user_id\nA1,u\n")

    first = await pass_over()
    second = await pass_over(columns={"machine_code": "Serial"})

    assert first.exit_code == ExitCode.NOT_STARTED
    assert second.counts() == {"bound": 1}
    assert names(inbox) == []


async def test_a_file_that_cannot_be_moved_holds_up_nobody(tmp_path, inbox, sandbox, pass_over):
    """Told once, with its run; the others are run and moved; it is moved when that is fixed."""
    taken = tmp_path / "done/with-problems"
    taken.parent.mkdir()
    taken.write_text("a file in the place of a folder")
    write_csv(inbox / "a.csv", [("A1", "u", "", ""), BAD])
    write_csv(inbox / "b.csv", [("B1", "u", "", "")])

    first, second = await pass_over(), await pass_over()
    taken.unlink()
    third = await pass_over()

    assert (first.exit_code, second.exit_code) == (ExitCode.LEDGER, ExitCode.DONE)
    assert "it cannot be moved to" in first.files[0].problem
    assert [item.moved_to is None for item in first.files] == [True, False]
    assert [item.was_told for item in second.files] == [True]
    assert third.files[0].moved_to is not None
    assert third.files[0].run_id == first.files[0].run_id
    assert len(sandbox.bindings) == 2


@pytest.mark.parametrize(
    "sandbox", [SandboxOptions(faults=(parse_fault("500=1,on=list"),))], indirect=True, ids=["500"]
)
async def test_a_list_that_cannot_be_read_holds_up_its_file_alone(inbox, sandbox, pass_over):
    """Told once; a file whose users need no list is run."""
    write_csv(inbox / "a.csv", [("A1", "u", "", "")])
    await pass_over()
    write_csv(inbox / "a.csv", [("A1", "u", "", "")])
    write_csv(inbox / "b.csv", [("B1", "v", "", "")])

    first = await pass_over(refresh=True)
    second = await pass_over(refresh=True)

    assert [item.name for item in first.files] == ["a.csv", "b.csv"]
    assert "the list of user u cannot be read" in first.files[0].problem
    assert (first.exit_code, second.exit_code) == (ExitCode.STOPPED, ExitCode.DONE)
    assert first.files[1].counts == {"bound": 1}
    assert len(sandbox.bindings) == 2


def test_a_dropped_file_has_the_name_of_its_path(tmp_path):
    """It is ordered and told by that."""
    path = write_csv(tmp_path / "fleet.csv", [])

    assert Dropped(path, Identity.of(path.stat())).name == "fleet.csv"


async def test_what_nobody_could_be_told_is_told_again(tmp_path, inbox, pass_over):
    """A webhook that failed does not count; what it takes at last does."""
    write_csv(inbox / "a.csv", [BAD])
    given = Settings(out=tmp_path / "report")
    told = []
    for is_lost in (True, True, False, False):
        result = await pass_over(on_invalid="abort")
        told.append([item.was_told for item in result.files])
        if is_lost:
            tell_again(given)

    assert told == [[False], [False], [False], [True]]


async def test_the_same_stop_is_told_once(inbox, pass_over):
    """Its exit code stays; another cause, and the same one after a good pass, are told again."""
    write_csv(inbox / "a.csv", [("A1", "u", "", "")])

    async def stopped(why):
        stop = StopSignal()
        stopping = AtFirstRow(lambda: None)
        stopping.sending = lambda *_: stop.set(StopReason(why))  # type: ignore[method-assign]
        return await pass_over(stopping, stop)

    results = [await stopped("after 3 s"), await stopped("after 4 s"), await stopped("no answer")]
    results.append(await pass_over())
    write_csv(inbox / "b.csv", [("B1", "u", "", "")])
    results.append(await stopped("no answer"))

    assert [result.exit_code for result in results] == [3, 3, 3, 0, 3]
    assert [result.is_news for result in results] == [True, False, True, False, True]
    assert "a.csv" in of_inbox(results[1]).text


async def test_the_same_stop_is_news_with_more_for_a_person_or_after_another_trouble(
    tmp_path, inbox, pass_over
):
    """Neither a row that needs somebody since nor that a trouble has gone is left untold."""
    good = ("A1", "u", "", "")

    async def is_news(rows=None):
        if rows:
            write_csv(inbox / "a.csv", rows)
        stop = StopSignal()
        stopping = Listener()
        stopping.sending = lambda *_: stop.set(StopReason("no answer"))  # type: ignore[method-assign]
        return (await pass_over(stopping, stop)).is_news

    news = [await is_news([good]), await is_news(), await is_news([good, BAD]), await is_news()]
    assert is_new_trouble(Settings(out=tmp_path / "report"), LedgerError("held"))
    news += [await is_news(), await is_news()]

    assert news == [True, False, True, False, True, False]


@pytest.mark.parametrize(
    ("earlier", "later", "is_new"),
    [
        ("refused: HTTP 401 40101 no", "refused: HTTP 403 40101 no", True),
        ("refused: HTTP 200 1102 no", "refused: HTTP 200 1305 no", True),
        ("after 3,601 s: HTTP 429", "after 40 s: HTTP 429", False),
        ("since 2026-11-26T02:00:01Z by 4711", "since 2026-11-27T02:00:09Z by 23", False),
    ],
)
def test_numbers_of_an_answer_are_a_cause_and_others_are_not(tmp_path, earlier, later, is_new):
    """So the same words with another status or code are told."""
    settings = Settings(out=tmp_path / "report")

    assert is_new_trouble(settings, LedgerError(earlier))
    assert is_new_trouble(settings, LedgerError(later)) is is_new


def test_the_same_error_before_a_pass_is_told_once(tmp_path):
    """Whatever its numbers; another one is told, and the same one once the disk has room again."""
    settings = Settings(out=tmp_path / "report")
    full, held = LedgerError("disk full, 3 MB left"), LedgerError("another run holds the ledger")

    assert is_new_trouble(settings, full)
    assert not is_new_trouble(settings, LedgerError("disk full, 2 MB left"))
    assert is_new_trouble(settings, held)
    assert is_new_trouble(settings, full)
