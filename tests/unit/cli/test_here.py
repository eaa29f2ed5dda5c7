"""Commands in hints: whole for the place, without what was wrong; and every one of them parses."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import click
import pytest

from bulkbind.cli import cli, here
from bulkbind.cli.here import again, command, completed, fitting, resume_of
from bulkbind.model import RunState, RunSummary
from bulkbind.redaction import Lines
from bulkbind.settings import load
from tests.support.paths import ROOT

WRITTEN = re.compile(r"`bulkbind ([a-z][^`]*)`")


def context_of(*line):
    """Return the context of a command line, as `bulkbind` makes it."""
    name, *arguments = line
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found.make_context(name, list(arguments), parent=click.Context(cli))


def literals():
    """Yield every text in the package, with X for what is filled in."""
    for path in (ROOT / "bulkbind").rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
        remarks = {node.value for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if node in remarks:
                continue
            if isinstance(node, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else "X" for p in node.values]
                yield "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


HINTS = sorted(
    {found for text in literals() for found in WRITTEN.findall(text) if "X" not in found.split()[0]}
)


@pytest.mark.parametrize("hint", HINTS)
def test_every_command_in_a_text_is_one_that_there_is(hint):
    """Also with its options: `make_context` refuses what does not parse."""
    context_of(*(word for word in shlex.split(hint) if word != "--help"))


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (("run", "f.csv"), "--wait 10m waits for it; `bulkbind runs` shows it"),
        (("prune", "--older-than", "1d"), "`bulkbind runs` shows it"),
    ],
)
def test_a_hint_names_no_option_that_the_command_at_hand_lacks(line, shown):
    """What begins with such an option is left out, if something else is left."""
    with context_of(*line):
        assert fitting("--wait 10m waits for it; `bulkbind runs` shows it") == shown
        assert fitting("--no-such thing") == "--no-such thing"


def test_there_are_hints():
    """The search above finds them."""
    assert len(HINTS) > 15


def test_a_hint_is_whole_for_this_place():
    """Settings, endpoint, ledger and folder are repeated, quoted; what the command lacks is not."""
    line = (
        "run", "my fleet.csv", "--config", "koodrive-intl", "--endpoint", "https://a.example",
        "--ledger", "my l.db", "--out", "o", "--map", "machine_code=My Tag", "--deadline", "5s",
        "--quiet",
    )  # fmt: skip
    with context_of(*line):
        assert completed("`bulkbind resume` resumes it") == (
            "`bulkbind resume --config koodrive-intl --endpoint https://a.example "
            "--ledger 'my l.db' --out o` resumes it"
        )
        assert completed("`bulkbind validate MANIFEST --all` lists them") == (
            "`bulkbind validate 'my fleet.csv' --all --config koodrive-intl "
            "--map 'machine_code=My Tag'` lists them"
        )
        assert completed("`bulkbind sandbox` serves one") == "`bulkbind sandbox` serves one"


def test_who_looks_at_a_run_is_told_how_it_was_to_go():
    """Options of it that this place lacks; none that stopped it, or is the same."""
    api = {"endpoint": "https://a.example"}
    send = {"workers": 3, "rate": 10.0, "deadline": "5s", "concurrency": 32, "max_failures": "5%"}
    told = load(None, {**api, **send, "out": Path("o"), "fail_on": "new"}).settings
    summary = RunSummary(
        "r1", RunState.STOPPED, manifests=(), counts={}, reasons=(), settings=told.public()
    )
    here = load(None, {"endpoint": api["endpoint"], "rate": 20.0}).settings

    with context_of("status", "--endpoint", "https://a.example"):
        shown = resume_of(summary, here)

    assert shown == (
        "bulkbind resume r1 --workers 3 --rate 10 --max-failures 5% --fail-on new --out o "
        "--endpoint https://a.example"
    )


def test_what_was_wrong_is_not_repeated():
    """But to the command that looks at it."""
    with context_of("run", "f.csv", "--endpoint", "https://wrong.example", "--out", "/full"):
        told = completed("check --endpoint; `bulkbind doctor` looks closer, `bulkbind runs` lists")
        assert told == (
            "check --endpoint; `bulkbind doctor --endpoint https://wrong.example --out /full` "
            "looks closer, `bulkbind runs` lists"
        )
        assert completed("choose another --out; `bulkbind report` writes it") == (
            "choose another --out; `bulkbind report --endpoint https://wrong.example` writes it"
        )


def test_a_mail_names_files_in_full(tmp_path, monkeypatch):
    """Whoever reads it is in another folder; names of shipped settings are no files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BULKBIND_LEDGER", "l.db")
    with context_of("run", "f.csv", "--config", "koodrive-cn", "--out", "o"):
        assert command(["resume", "R"], is_absolute=True) == (
            f"bulkbind resume R --config koodrive-cn --ledger {tmp_path}/l.db --out {tmp_path}/o"
        )
        assert again(is_absolute=True) == (
            f"bulkbind run {tmp_path}/f.csv --config koodrive-cn --ledger {tmp_path}/l.db "
            f"--out {tmp_path}/o"
        )


def test_a_mail_has_the_same_command_once():
    """Its last line has it, without `--quiet`, so the hint does not repeat it."""
    hint = "free the disk; then run the same command to resume"
    with context_of("run", "f.csv", "--quiet"):
        assert completed(hint, is_absolute=True) == hint


def test_the_same_command_is_what_was_typed(monkeypatch):
    """Quoted, with what is to be added at its end."""
    monkeypatch.setattr("sys.argv", ["/x/__main__.py", "run", "my fleet.csv"])

    assert again("--yes") == "bulkbind run 'my fleet.csv' --yes"


def test_a_program_off_the_path_is_called_by_its_own(tmp_path, monkeypatch):
    """What is typed in a fresh clone works, whether its environment is active or not."""
    script = tmp_path / "bin/bulkbind"
    script.parent.mkdir()
    script.touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["bin/bulkbind", "runs"])
    monkeypatch.setenv("PATH", "/usr/bin")

    assert again() == f"{script} runs"

    monkeypatch.setenv("PATH", f"{script.parent}:/usr/bin")
    assert again() == "bulkbind runs"


def test_lines_stay_lines():
    """And what stands in a value steers nothing."""
    with context_of("run", "a\nb.csv", "--ledger", "l\x1b.db"):
        told = completed(Lines("one\n`bulkbind resume` two"))

    assert told == "one\n`bulkbind resume --ledger 'l\\x1b.db'` two"


def test_a_library_has_no_place():
    """Without a command line, a hint stays as it is."""
    assert completed("`bulkbind resume` resumes it") == "`bulkbind resume` resumes it"
    assert here.MANIFEST in completed("`bulkbind validate MANIFEST --all`")
