"""What a person sees: the plan, the question, a display that nothing tears, a typed number."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.test_rough import Terminal
from tests.support.manifests import fleet, write_csv
from tests.support.paths import ROOT
from tests.support.processes import BULKBIND, bulkbind, environment, sandbox, sandbox_bindings

WALK = ROOT / "samples/walk.sh"


@pytest.mark.slow
def test_the_walk_walks(tmp_path):
    """`samples/walk.sh` goes through the whole loop; each of its steps ends as it should."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin/bulkbind"
    command.write_text(f'#!/bin/sh\nexec {" ".join(BULKBIND)} "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    around = environment(tmp_path)
    done = subprocess.run(
        ["/bin/bash", str(WALK), str(tmp_path / "walk")],
        env=around | {"PATH": f"{command.parent}:{around['PATH']}"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )

    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert "== done" in done.stdout
    assert {path.name for path in (tmp_path / "walk/first").iterdir()} >= {
        "results.csv",
        "failed.csv",
        "summary.json",
        "report.html",
        "report-filtered.md",
        "results-filtered.jsonl",
        "undo.csv",
        "undo.json",
    }


@pytest.mark.slow
def test_the_display_is_torn_by_nothing(tmp_path):
    """The plan stands before the question; notices stand whole above the display, which goes."""
    manifest = write_csv(tmp_path / "fleet.csv", fleet(300))
    with sandbox("--limit", "40/s", home=tmp_path) as url:
        terminal = Terminal(tmp_path, "run", manifest, "--endpoint", url)
        terminal.until("? [y/N]")
        asked = terminal.screen
        terminal.type(b"y\n")
        terminal.until("of 40/s (told by the gateway)")
        terminal.type(b"\x03")
        ended = terminal.ended(b"\x03")

    assert ended == 130, terminal.screen
    assert "300  to bind" in asked
    assert "forecast: 300 calls" in asked
    notice = "SIGINT: nothing new is sent; what is in flight may end (again: at once)"
    assert notice in terminal.screen
    shown = terminal.screen.split(notice)[0].rpartition("\x1b[2K")[2]
    assert shown == ""  # the display was taken off the line on which the notice stands
    after = terminal.screen.rpartition("\x1b[2K")[2]
    assert " of 300 devices are bound: " in after.splitlines()[0]
    assert "resume with: bulkbind resume" in after


def walked(home, *command, path="/usr/bin:/bin"):
    """Run the walk of a home by a command of bash, as far as it leads; return the process."""
    return subprocess.run(
        ["/bin/bash", *command],
        env=environment(home) | {"PATH": path, "TMPDIR": str(home)},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


@pytest.fixture
def walk(tmp_path):
    """Return the walk in a home of its own."""
    folder = tmp_path / "a home/samples"
    folder.mkdir(parents=True)
    return Path(shutil.copy(WALK, folder))


@pytest.fixture
def broken(walk):
    """Install a bulkbind that cannot start beside the walk; return the program."""
    program = walk.parents[1] / ".venv/bin/bulkbind"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho no such module >&2; exit 1\n", encoding="utf-8")
    program.chmod(0o755)
    return program


def test_a_walk_without_bulkbind_says_at_once_how_to_get_it(walk):
    """Two commands, with the folder quoted; nothing is left behind."""
    home = walk.parents[1]
    done = walked(home, walk, home / "walk")
    said = [line.removeprefix("walk.sh:").strip() for line in done.stderr.splitlines()]

    assert (done.returncode, done.stdout) == (1, "")
    assert said[0] == "bulkbind is not on the path; type:"
    venv, walks = (shlex.split(line.split("&&")[-1]) for line in said[1:])
    assert venv == [f"{home}/.venv/bin/pip", "install", str(home)]
    assert walks == [f"PATH={home}/.venv/bin:$PATH", str(walk)]
    assert list(home.iterdir()) == [walk.parent]


@pytest.mark.usefixtures("broken")
def test_what_a_walk_says_to_type_leads_on(walk):
    """Where bulkbind is installed beside it, that is one command; it runs as it stands."""
    home = walk.parents[1]
    lost = walked(home, walk)
    [_, said] = lost.stderr.splitlines()
    typed = walked(home, "-c", said.removeprefix("walk.sh:"))

    assert lost.returncode == 1
    assert "no such module" in typed.stderr


def test_a_walk_does_not_wait_for_a_sandbox_that_ended(walk, broken):
    """Whatever keeps it from starting, the walk ends with that."""
    done = walked(walk.parents[1], walk, path=f"{broken.parent}:/usr/bin:/bin")

    assert done.returncode == 1
    assert "no such module" in done.stderr
    assert "walk.sh: bulkbind sandbox ended before it was ready" in done.stderr


def displays(screen):
    """Return what became of each display: `start`, then `end`. It hides the cursor while it is."""
    return [{"l": "start", "h": "end"}[key] for key in re.findall(r"\x1b\[\?25([lh])", screen)]


def beside_displays(screen):
    """Return what was written while no display was shown."""
    return re.sub(r"\x1b\[\?25l.*?\x1b\[\?25h", "", screen, flags=re.DOTALL)


@pytest.mark.slow
def test_the_demo_shows_one_display_after_the_other(tmp_path):
    """Monday's has gone before what is said of Tuesday is shown."""
    terminal = Terminal(tmp_path, "demo", "--out", tmp_path / "demo")
    ended = terminal.ended()

    assert ended == 0, terminal.screen
    assert displays(terminal.screen) == ["start", "end"] * 2
    assert "Tuesday, the same and 118 more" in beside_displays(terminal.screen)


@pytest.mark.slow
def test_an_inbox_asks_where_no_display_is(tmp_path):
    """Each file has its question and its display, one after the other."""
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        rows = [(name + code, *more) for code, *more in fleet(30)]
        write_csv(tmp_path / f"in/{name}.csv", rows)
    inbox = ("run", "in", "--archive", "done", "--min-age", "0s")
    with sandbox("--limit", "40/s", home=tmp_path) as url:
        terminal = Terminal(tmp_path, *inbox, "--endpoint", url)
        terminal.until("? [y/N]")
        terminal.type(b"y\n")
        terminal.until("in/b.csv:")
        terminal.type(b"y\n")
        ended = terminal.ended()

    assert ended == 0, terminal.screen
    assert displays(terminal.screen) == ["start", "end"] * 2
    assert beside_displays(terminal.screen).count("? [y/N] ") == 2


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2], ids=["drained", "at once"])
def test_a_stop_ends_the_display(tmp_path, times):
    """Also where a second Ctrl-C cancels the sending: nothing is drawn any more."""
    manifest = write_csv(tmp_path / "fleet.csv", fleet(300))
    with sandbox("--fault", "silence-before=1", home=tmp_path) as url:
        common = ("--endpoint", url, "--yes", "--grace", "1s")
        terminal = Terminal(tmp_path, "run", manifest, *common)
        terminal.until("binding …")
        terminal.type(b"\x03")
        terminal.until("SIGINT: nothing new is sent")
        if times == 2:
            terminal.type(b"\x03")
        ended = terminal.ended()

    assert ended == 130, terminal.screen
    assert displays(terminal.screen) == ["start", "end"]


@pytest.mark.slow
def test_an_error_ends_the_display(tmp_path):
    """What went wrong stands below where it was, not in it."""
    manifest = write_csv(tmp_path / "fleet.csv", fleet(300))
    with sandbox("--limit", "40/s", home=tmp_path) as url:
        common = ("--endpoint", url, "--ledger", tmp_path / "folder/l.db", "--out", "report")
        terminal = Terminal(tmp_path, "run", manifest, *common, "--yes")
        terminal.until("of 40/s")
        shutil.rmtree(tmp_path / "folder")
        ended = terminal.ended()

    assert ended == 4, terminal.screen
    assert displays(terminal.screen) == ["start", "end"]
    assert "error: " in beside_displays(terminal.screen)


@pytest.mark.slow
def test_a_window_that_is_closed_changes_nothing(tmp_path):
    """The run drains and writes its report, though its display cannot be taken off any more."""
    manifest = write_csv(tmp_path / "fleet.csv", fleet(300))
    with sandbox("--limit", "40/s", home=tmp_path) as url:
        common = ("--endpoint", url, "--yes", "--out", "report")
        terminal = Terminal(tmp_path, "run", manifest, *common)
        terminal.until("of 40/s")
        ended = terminal.close()

    assert ended == 128 + signal.SIGTERM
    summary = json.loads((tmp_path / "report/summary.json").read_text())
    assert summary["stop_reason"] == "interrupted by SIGHUP"


TEE = "2>&1 | tee log; exit ${PIPESTATUS[0]}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("redirected", "typed", "code"),
    [
        (TEE, b"n\n", 5),
        (TEE, b"\x03", 130),
        ("2>&1 | true; exit ${PIPESTATUS[0]}", b"n\n", 5),
        ("2> /dev/null", b"\xff\nn\n", 5),
        ("2>&-", b"\x03", 130),
        ("&> log", b"\n", 5),
        ("--quiet " + TEE, b"n\n", 5),
        ("--log-format json", b"n\n", 5),
        ("--log-format json " + TEE, b"n\n", 5),
    ],
)
def test_whoever_types_is_asked_wherever_the_output_goes(tmp_path, redirected, typed, code):
    """The question is on the screen, and only a yes sends anything."""
    write_csv(tmp_path / "fleet.csv", fleet(3))
    with sandbox(home=tmp_path) as url:
        common = ("--endpoint", url)
        terminal = Terminal(tmp_path, "run", "fleet.csv", *common, redirected=redirected)
        terminal.until("? [y/N]")
        terminal.type(typed)
        ended = terminal.ended(typed if typed == b"\x03" else b"")
        bound = sandbox_bindings(url)

    assert (ended, bound) == (code, []), terminal.screen
    assert ("  3  to bind" in terminal.screen) == ("--quiet" not in redirected)


@pytest.mark.slow
def test_a_question_through_tee_is_a_line(tmp_path):
    """So that whatever reads lines shows it; and what follows does not stand behind it."""
    write_csv(tmp_path / "fleet.csv", fleet(3))
    with sandbox(home=tmp_path) as url:
        common = ("--endpoint", url)
        terminal = Terminal(tmp_path, "run", "fleet.csv", *common, redirected=TEE)
        terminal.until("? [y/N]")
        terminal.type(b"y\n")
        ended = terminal.ended()
        bound = sandbox_bindings(url)

    assert (ended, len(bound)) == (0, 3), terminal.screen
    assert "? [y/N]\n" in (tmp_path / "log").read_text()


@pytest.mark.slow
def test_a_question_leaves_nothing_on_standard_output(tmp_path):
    """`--json > FILE` is JSON from the first character on."""
    write_csv(tmp_path / "fleet.csv", fleet(3))
    with sandbox(home=tmp_path) as url:
        command = ("run", "fleet.csv", "--endpoint", url, "--json")
        terminal = Terminal(tmp_path, *command, redirected="> out.json")
        terminal.until("? [y/N]")
        terminal.type(b"y\n")
        ended = terminal.ended()

    assert ended == 0, terminal.screen
    text = (tmp_path / "out.json").read_text()
    assert text.startswith("{")
    assert json.loads(text)["counts"] == {"bound": 3}


@pytest.mark.slow
def test_standard_input_that_holds_the_manifest_is_nobody_to_ask(tmp_path):
    """On a terminal, too."""
    write_csv(tmp_path / "fleet.csv", fleet(3))
    with sandbox(home=tmp_path) as url:
        terminal = Terminal(tmp_path, "run", "-", "--endpoint", url, redirected="< fleet.csv")
        ended = terminal.ended()
        bound = sandbox_bindings(url)

    assert (ended, len(bound)) == (0, 3), terminal.screen
    assert "Bind them?" not in terminal.screen


@pytest.mark.slow
@pytest.mark.parametrize(
    ("typed", "code", "left", "redirected"),
    [
        (b"5\n", 0, 0, ""),
        (b"4\n", 5, 5, ""),
        (b"yes\n", 5, 5, ""),
        (b"\x03", 130, 5, ""),
        (b"5\n", 0, 0, TEE),
        (b"4\n", 5, 5, "2> log"),
    ],
)
def test_undo_has_its_number_typed(tmp_path, typed, code, left, redirected):
    """On a terminal the number of devices has to be typed; anything else unbinds nothing."""
    manifest = write_csv(tmp_path / "fleet.csv", fleet(5))
    with sandbox(home=tmp_path) as url:
        common = ("--endpoint", url)
        bulkbind("run", manifest, *common, "--out", "report", home=tmp_path, check=0)
        run_id = json.loads((tmp_path / "report/summary.json").read_text())["run_id"]
        terminal = Terminal(tmp_path, "undo", run_id, *common, redirected=redirected)
        terminal.until("Type 5 to unbind them")
        terminal.type(typed)
        ended = terminal.ended(typed if typed == b"\x03" else b"")
        remaining = len(sandbox_bindings(url))

    assert (ended, remaining) == (code, left), terminal.screen


@pytest.mark.slow
def test_quiet_says_nothing_where_all_is_well(tmp_path):
    """Under cron, `--quiet` writes nothing at all, unless a row needs a person."""
    good = write_csv(tmp_path / "good.csv", fleet(3))
    with sandbox(home=tmp_path) as url:
        done = bulkbind("run", good, "--endpoint", url, "--quiet", home=tmp_path, check=0)
        bad = write_csv(tmp_path / "bad.csv", [*fleet(3), ("SN-1", "u", "", "")])
        common = ("--endpoint", url, "--on-invalid", "skip", "--quiet")
        failed = bulkbind("run", bad, *common, home=tmp_path, check=1)

    assert (done.stdout, done.stderr) == ("", "")
    assert "1 invalid:" in failed.stderr
