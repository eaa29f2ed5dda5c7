"""Completion of commands, options and run ids, in real shells."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from click.shell_completion import ShellComplete

from bulkbind.cli import cli
from bulkbind.cli.commands.completion import VARIABLE
from tests.support.manifests import fleet, write_csv
from tests.support.paths import ROOT
from tests.support.processes import bulkbind, environment, sandbox

BASH = shutil.which("bash")
ZSH = shutil.which("zsh")
FISH = shutil.which("fish")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Return a folder with a ledger of one run, and a `bulkbind` on the path."""
    folder = tmp_path_factory.mktemp("home")
    command = folder / "bin" / "bulkbind"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m bulkbind "$@"\n')
    command.chmod(0o755)
    with sandbox(home=folder) as url:
        manifest = write_csv(folder / "fleet.csv", fleet(1))
        bulkbind("run", manifest, "--endpoint", url, "--ledger", "l.db", home=folder, check=0)
    (folder / "bulkbind.yaml").write_text(f"endpoint: {url}\nledger: {folder / 'l.db'}\n")
    return folder


def run_id(home):
    """Return the id of the ledger's only run."""
    [folder] = (home / "bulkbind-report").iterdir()
    return folder.name


def shell(home, *command, script=None):
    """Run a shell in which `bulkbind` is on the path; return what it prints."""
    environ = environment(home)
    environ |= {"PATH": f"{home / 'bin'}:{environ['PATH']}", "HOME": str(home)}
    done = subprocess.run(
        list(command), input=script, env=environ, cwd=home, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def in_bash(home, line):
    """Return what bash offers at the end of a line, by the script that `completion` prints."""
    words = line.split(" ")
    array = " ".join(f"'{word}'" for word in words)
    script = (
        "source <(bulkbind completion bash) || exit 1\n"
        f"COMP_WORDS=({array}); COMP_CWORD={len(words) - 1}\n"
        "complete -p bulkbind > /dev/null || exit 1\n"
        '_bulkbind_completion bulkbind; printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    return shell(home, str(BASH), script=script)


@pytest.mark.slow
@pytest.mark.skipif(BASH is None, reason="bash is not installed")
def test_bash_completes_commands_options_and_run_ids(home):
    """Each by its beginning; a run id from the ledger that the options name."""
    assert {"run", "runs", "resume", "report"} <= set(in_bash(home, "bulkbind r"))
    assert {"--deadline", "--device-x"} & set(in_bash(home, "bulkbind run --d")) == {"--deadline"}
    assert in_bash(home, "bulkbind resume --config bulkbind.yaml 20") == [run_id(home)]
    assert in_bash(home, "bulkbind bundle --config bulkbind.yaml 20") == [run_id(home)]
    assert in_bash(home, "bulkbind report --config bulkbind.yaml 1999") == []


def offered(*words):
    """Return what is offered for the last word, in this process."""
    completer = ShellComplete(cli, {}, "bulkbind", VARIABLE)
    return [found.value for found in completer.get_completions(list(words[:-1]), words[-1])]


@pytest.mark.parametrize("command", ["resume", "report", "status", "verify", "undo", "bundle"])
@pytest.mark.slow
def test_every_command_of_a_run_completes_its_id(home, command):
    """From the ledger that the options name."""
    assert offered(command, "--config", str(home / "bulkbind.yaml"), "20") == [run_id(home)]


def test_a_run_id_is_completed_by_the_settings_of_the_folder(home, monkeypatch):
    """They are found there by themselves, as by the command itself."""
    monkeypatch.chdir(home)

    assert offered("undo", "20") == [run_id(home)]


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (("validate", "x.csv", "--clean", ""), ["none", "names"]),
        (("run", "x.csv", "--on-conflict", "l"), ["last"]),
        (("run", "x.csv", "--log-level", ""), ["debug", "info", "warning", "error"]),
        (("plan", "x.csv", "--format", "js"), ["jsonl", "json"]),
        (("run", "x.csv", "--map", "mac"), ["machine_code="]),
        (("run", "x.csv", "--profile", "sn"), []),
        (("run", "x.csv", "--config", "configs/sandbox.yaml", "--profile", "sn"), ["snipe-it"]),
        (("report", "--format", "x"), ["xlsx"]),
        (("report", "--filter", "status=f"), ["status=failed"]),
        (("run", "x.csv", "--fault", "wrong-d"), ["wrong-date="]),
        (("plan", "x.csv", "--as", ""), ["text", "md"]),
        (("schema", "e"), ["events", "error"]),
        (("help", "pro"), ["proof"]),
        (("completion", ""), ["bash", "zsh", "fish"]),
    ],
    ids=lambda value: "-".join(value).replace("/", "-") if isinstance(value, tuple) else "",
)
def test_values_are_completed(monkeypatch, words, values):
    """Whatever has a known set of values offers it: choices, formats, fields, profiles, topics."""
    monkeypatch.chdir(ROOT)

    assert offered(*words) == values


@pytest.mark.slow
@pytest.mark.skipif(BASH is None, reason="bash is not installed")
def test_no_ledger_is_no_error_while_completing(home):
    """Without a ledger, nothing is offered and nothing is said."""
    assert in_bash(home, "bulkbind report --ledger none.db 20") == []


@pytest.mark.slow
@pytest.mark.skipif(ZSH is None, reason="zsh is not installed")
def test_zsh_takes_the_script(home):
    """The script is read by zsh, and what it asks for is answered."""
    script = "autoload -Uz compinit; compinit -u -D; source <(bulkbind completion zsh); "
    script += 'print -r -- "$_comps[bulkbind]"'

    assert shell(home, str(ZSH), "-fc", script) == ["_bulkbind_completion"]
    got = asked(home, "zsh_complete", "bulkbind report --config bulkbind.yaml 20", "4")
    assert run_id(home) in got


@pytest.mark.slow
@pytest.mark.skipif(FISH is None, reason="fish is not installed")
def test_fish_completes(home):
    """Fish itself completes a command and a run id by the script."""
    script = "bulkbind completion fish | source; "

    commands = shell(home, str(FISH), "-c", script + "complete -C 'bulkbind re'")
    runs = shell(
        home, str(FISH), "-c", script + "complete -C 'bulkbind report --config bulkbind.yaml 20'"
    )

    assert {"report", "resume"} <= set(commands)
    assert run_id(home) in runs


def asked(home, what, words, at):
    """Return what the command answers to a shell that completes."""
    environ = environment(home) | {"_BULKBIND_COMPLETE": what, "COMP_WORDS": words}
    done = subprocess.run(
        [str(home / "bin" / "bulkbind")], env=environ | {"COMP_CWORD": at}, cwd=home,
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout.split()


@pytest.mark.slow
def test_a_shell_that_is_unknown_is_refused(home):
    """The error names those that are known."""
    done = bulkbind("completion", "tcsh", home=home, check=2)

    assert "'bash', 'zsh', 'fish'" in done.stderr
