"""Commands that are told are pasted here: each works as it stands, and repeats no mistake."""

from __future__ import annotations

import html
import re
import shlex
import signal

import pytest

from tests.acceptance.test_rough import Terminal
from tests.support.in_process import called
from tests.support.manifests import fleet, write_csv
from tests.support.processes import count_rows, sandbox, sandbox_bindings

pytestmark = pytest.mark.slow


def pasted(text, verb):
    """Return the words of the first command of a verb in a text, without the program."""
    found = re.search(rf"\bbulkbind ({verb}\b[^\n`]*)", text)
    assert found is not None, text
    return shlex.split(found[1])


@pytest.fixture
def home(tmp_path):
    """Return a folder with a blank in its name, a manifest and settings."""
    folder = tmp_path / "my fleet"
    folder.mkdir()
    write_csv(folder / "the fleet.csv", fleet(4))
    (folder / "my settings.yaml").write_text("columns: {}\n")
    return folder


def place(url):
    """Return the options that say where."""
    return ("--config", "my settings.yaml", "--endpoint", url, "--ledger", "my l.db", "--out", "o")


def test_a_stopped_run_is_gone_on_with(home):
    """By the command at its end, and by what `status` says of it."""
    with sandbox(home=home) as url:
        stopped = called("run", "the fleet.csv", *place(url), "--first", "1", home=home)
        assert stopped.returncode == 3
        page = html.unescape((home / "o/report.html").read_text("utf-8"))
        assert pasted(page.replace("</span>", "\n"), "resume")[2:] == [
            "--config", str(home / "my settings.yaml"), "--endpoint", url,
            "--ledger", str(home / "my l.db"), "--out", str(home / "o"),
        ]  # fmt: skip
        told = called("status", *place(url)[:-2], home=home)
        words = pasted(told.stdout, "resume")
        assert words[2:] == [*place(url)[-2:], *place(url)[:-2]], "also what the run was told"
        done = called(*pasted(stopped.stderr, "resume"), home=home)
        bound = len(sandbox_bindings(url))
        none = called("resume", *place(url), home=home)
        over = called("resume", words[1], *place(url), home=home)
        again = called(*pasted(over.stderr, "run"), home=home)

    assert (done.returncode, bound) == (0, 4), done.stderr
    assert (home / "o/results.csv").exists()
    assert (none.returncode, over.returncode, again.returncode) == (2, 2, 0)
    assert "error: no unfinished run in the ledger my l.db" in none.stderr
    assert f"error: run {words[1]} is finished" in over.stderr
    assert "none of its rows is left to fix or try again" in over.stderr
    assert "failed.csv" not in over.stderr


def test_a_run_is_gone_on_with_as_it_was_told_last(home):
    """What its first life was told, and its last was not, is not offered by `status` either."""
    with sandbox(home=home) as url:
        first = ("the fleet.csv", *place(url), "--first", "1", "--max-failures", "300")
        called("run", *first, home=home, check=3)
        last = called("resume", *place(url), "--first", "1", "--rate", "800", home=home, check=3)
        told = called("status", *place(url)[:-2], home=home)

    for text in (last.stderr, told.stdout):
        words = pasted(text, "resume")
        assert words[words.index("--rate") + 1] == "800"
        assert "--max-failures" not in words


def test_what_did_not_leave_is_tried_again_by_the_run_that_is_named(home):
    """`status` and `report` name the run's command with what it was told, not themselves."""
    state = ("--state", str(home / "state.jsonl"))
    locked = ("--fault", "business=1,on=unbind,code=99999999")
    options = ("--sync", "--max-unbinds", "100%", "--yes")
    with sandbox(*state, *locked, home=home) as url:
        called("run", "the fleet.csv", *place(url), *options, home=home, check=0)
        write_csv(home / "the fleet.csv", fleet(4)[:1])
        ran = called("run", "the fleet.csv", *place(url), *options, home=home, check=1)
        told = called("status", *place(url)[:-2], home=home)
        shown = called("report", *place(url), home=home)
        words = [pasted(text, "run") for text in (told.stdout, shown.stderr)]
        port = url.rpartition(":")[2]
    with sandbox(*state, "--port", port, home=home) as url:
        again = called(*words[0], "--yes", home=home)
        left = len(sandbox_bindings(url))

    assert "tries again to unbind it" in ran.stderr
    assert words[0][1] == words[1][1] == "the fleet.csv"
    assert {"--sync", "--max-unbinds"} <= set(words[0]) & set(words[1])
    assert (again.returncode, left) == (0, 1), again.stderr


@pytest.mark.parametrize("command", ["undo", "unbind"])
def test_whoever_gives_yes_where_a_number_is_asked_is_told_the_option(home, command):
    """The name of `run` is not that of a command that unbinds."""
    done = called(command, "anything", "--yes", home=home)

    assert done.returncode == 2
    assert "--yes-unbind N says how many are meant" in done.stderr


def test_a_mail_s_command_works_from_anywhere(home, tmp_path):
    """Its paths are whole, and it is one for this place."""
    with sandbox(home=home) as url:
        night = ("run", "the fleet.csv", *place(url), "--first", "1", "--quiet")
        stopped = called(*night, home=home)
        done = called(*pasted(stopped.stderr, "run"), home=tmp_path)
        bound = len(sandbox_bindings(url))

    assert (done.returncode, bound) == (0, 4), done.stderr


def test_the_mail_of_a_resumed_run_names_what_works(home, tmp_path):
    """Nothing is left to resume: the manifest is run, read as it was; or else what came back."""
    write_csv(home / "the fleet.csv", fleet(4), header=("Tag", "Owner", "device_name", "device_os"))
    columns = ("--map", "machine_code=Tag", "--map", "user_id=Owner")
    with sandbox("--fault", "business=1", home=home) as url:
        called("run", "the fleet.csv", *place(url), *columns, "--first", "1", home=home, check=3)
        ended = called("resume", *place(url), "--quiet", home=home, check=1)
        again = called(*pasted(ended.stderr.split("run it again:")[1], "run"), home=tmp_path)

    assert again.returncode == 1, again.stderr


def test_settings_found_are_named_where_they_are_not_found(home, tmp_path):
    """A run on settings of its folder; its mail is read elsewhere."""
    with sandbox(home=home) as url:
        (home / "bulkbind.yaml").write_text("concurrency: 8\n")
        (home / "bulkbind.yaml").chmod(0o600)
        line = ("run", "the fleet.csv", "--endpoint", url, "--first", "1", "--quiet")
        stopped = called(*line, home=home)
        done = called(*pasted(stopped.stderr, "run"), home=tmp_path)

    assert done.returncode == 0, done.stderr


def test_broken_rows_are_shown_and_left_out(home):
    """Both by commands that are told."""
    (home / "the fleet.csv").write_text("Tag;Owner\nA-1;u1\nA2;u1\n")
    columns = ("--map", "machine_code=Tag", "--map", "user_id=Owner")
    with sandbox(home=home) as url:
        refused = called("run", "the fleet.csv", *place(url), *columns, home=home)
        assert refused.returncode == 2
        shown = called(*pasted(refused.stderr, "validate"), home=home)
        sent = called(*pasted(refused.stderr, "run"), home=home)
        bound = len(sandbox_bindings(url))

    assert (shown.returncode, sent.returncode, bound) == (1, 1, 1), shown.stderr + sent.stderr
    assert "A-1" in shown.stdout


def test_a_saved_plan_is_done(home):
    """By the command that `plan --save` tells."""
    with sandbox(home=home) as url:
        saved = called("plan", "the fleet.csv", *place(url)[:-2], "--save", "p.json", home=home)
        done = called(*pasted(saved.stderr, "run"), home=home)

    assert done.returncode == 0, done.stderr


def test_a_wrong_host_is_not_repeated(home):
    """What is told keeps the rest, and asks for another one."""
    done = called(
        "run", "the fleet.csv", *place("https://nowhere.invalid"), "--max-wait", "1s",
        "--deadline", "30s", "--yes", home=home,
    )  # fmt: skip

    assert done.returncode == 3
    last = done.stderr.splitlines()[-1]
    assert last == (
        "once it is fixed: bulkbind run 'the fleet.csv' --endpoint URL --config "
        "'my settings.yaml' --ledger 'my l.db' --out o"
    )
    with sandbox(home=home) as url:
        words = [url if word == "URL" else word for word in shlex.split(last)[5:]]
        assert called(*words, home=home).returncode == 0


def test_a_second_interrupt_says_how_to_go_on(home):
    """As a whole command; without one where nothing is to be gone on with."""
    with sandbox("--fault", "silence-before=1", home=home) as url:
        terminal = Terminal(home, "run", "the fleet.csv", *place(url), "--yes")
        terminal.until("binding …")
        assert count_rows(home / "my l.db", "claimed") >= 0
        terminal.type(b"\x03")
        terminal.until("SIGINT: nothing new is sent")
        terminal.type(b"\x03")
        code = terminal.ended()
    assert code == 128 + signal.SIGINT
    words = pasted(terminal.screen.replace("\r\n", "\n"), "resume")
    with sandbox("--port", url.rpartition(":")[2], home=home):
        done = called(*words, home=home)

    assert done.returncode == 0, done.stderr


def test_credentials_that_nobody_asked_for_are_named(home):
    """The refusal's command is what to type."""
    with sandbox(home=home) as url:
        (home / "bulkbind.yaml").write_text(f"endpoint: {url}\n")
        (home / "bulkbind.yaml").chmod(0o600)
        refused = called("run", "the fleet.csv", home=home)
        done = called(*pasted(refused.stderr, "run"), home=home)

    assert (refused.returncode, done.returncode) == (2, 0), done.stderr


def test_a_usage_error_looks_like_any_other(home):
    """`error:`, whoever found it."""
    done = called("run", "--no-such-option", home=home)

    assert done.returncode == 2
    assert "\nerror: No such option" in done.stderr
    assert "Error:" not in done.stderr


def test_a_missing_name_is_one_line_to_read(home):
    """What may stand in its place is listed without escapes."""
    done = called("schema", home=home)

    assert done.returncode == 2
    assert "error: Missing argument 'NAME'. Choose from: manifest, config, " in done.stderr
    assert "\\" not in done.stderr


def test_the_mail_of_a_wrong_host_repeats_none(home):
    """Its command has the rest in full, and asks for another one."""
    night = ("run", "the fleet.csv", *place("https://nowhere.invalid"), "--max-wait", "1s")
    done = called(*night, "--quiet", home=home)

    assert done.returncode == 3
    words = pasted(done.stderr, "run")
    assert words[-2:] == ["--endpoint", "URL"]
    assert "https://nowhere.invalid" not in words
    with sandbox(home=home) as url:
        assert called(*words[:-1], url, home=home).returncode == 0
