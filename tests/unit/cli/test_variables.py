"""Environment variables that no option has: nearly right is an error, anything else a note."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from bulkbind.cli import cli
from bulkbind.cli.variables import every_variable, meant
from tests.support.processes import environment

VALUE = "hush-3b91"
"""What may be a secret, and is never shown."""


def called(monkeypatch, *arguments, **variables):
    """Return what a command ended with, when the environment has some variables."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(cli, arguments, prog_name="bulkbind")
    assert VALUE not in done.output
    return done


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("BULKBIND_RATEE", "BULKBIND_RATE"),
        ("BULKBIND_TKOEN", "BULKBIND_TOKEN"),
        ("BULKBIND_CONCURENCY", "BULKBIND_CONCURRENCY"),
        ("BULKBIND_MAXWAIT", "BULKBIND_MAX_WAIT"),
        ("BULKBIND_PASSWROD", "BULKBIND_PASSWORD"),
        ("BULKBIND_APPID", "BULKBIND_APP_ID"),
        ("BULKBIND_ACEPT_TOKNE", "BULKBIND_ACCEPT_TOKEN"),  # of `sandbox` alone
        ("BULKBIND_TO", "BULKBIND_BUNDLE_TO or BULKBIND_EXPORT_TO"),  # what it was once
        ("BULKBIND_REPORT_FROMAT", "BULKBIND_REPORT_FORMAT"),  # of `report` alone
    ],
)
@pytest.mark.parametrize("command", [["config"], ["schema", "config"], ["config", "--json"]])
def test_a_slip_is_refused_by_every_command(monkeypatch, command, name, wanted):
    """Up to two letters off is an error with the variable that was meant, whoever has it."""
    done = called(monkeypatch, *command, **{name: VALUE})

    told = f"the environment sets {name}; did you mean {wanted}?"
    assert done.exit_code == 2
    assert [json.loads(line)["error"] for line in done.stdout.splitlines()] == (
        [told] if "--json" in command else []
    )
    assert done.stderr == f"error: {told}\n"


def test_every_slip_is_named_at_once(monkeypatch):
    """Nobody has to try twice."""
    done = called(monkeypatch, "config", BULKBIND_RATEE=VALUE, BULKBIND_WIAT=VALUE)

    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 2


LINKS = [
    "BULKBIND_SERVICE_HOST",
    "BULKBIND_SERVICE_PORT",
    "BULKBIND_SERVICE_PORT_HTTPS",
    "BULKBIND_SANDBOX_PORT",
    "BULKBIND_PORT_8765_TCP",
    "BULKBIND_PORT_8765_TCP_PROTO",
    "BULKBIND_PORT_8765_UDP_ADDR",
    "BULKBIND_NAME",
    "BULKBIND_X_ENV_PATH",
]


@pytest.mark.parametrize("name", [*LINKS, "BULKBIND_VERSION", "BULKBIND_", "BULKBIND_\udcff\n"])
def test_another_variable_is_noted_once(monkeypatch, name):
    """What a cluster sets, and what is like nothing of ours, stops no command."""
    done = called(monkeypatch, "config", **{name: VALUE})

    assert done.exit_code == 0
    shown = ascii(name)[1:-1]
    assert done.stderr == f"note: the environment sets {shown}, which means nothing to bulkbind\n"


@pytest.mark.parametrize("name", LINKS)
def test_a_cluster_is_never_told_what_it_meant(name):
    """Even where a name is two letters from one of ours."""
    assert meant(name, {f"{name}X"}) is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("BULKBIND_READBACK_SETTLE", "a settings file sets `readback_settle`"),
        ("BULKBIND_PATH", "a settings file sets `path`"),
        ("BULKBIND_TOKEN_FILE", "a settings file sets `auth.token_file`"),
        ("BULKBIND_CONSTANTS", "BULKBIND_SET sets `constants`"),
    ],
)
def test_a_setting_without_that_variable_is_explained(monkeypatch, name, words):
    """The name of a setting is no slip: the note says what does set it."""
    done = called(monkeypatch, "config", **{name: VALUE})

    assert done.exit_code == 0
    assert done.stderr.endswith(f"which means nothing to bulkbind; {words}\n")


@pytest.mark.parametrize("name", sorted(every_variable() - {"BULKBIND_CONFIG"}))
def test_a_variable_of_any_command_is_known_to_all(monkeypatch, name):
    """A job may set at once what its several commands need."""
    done = called(monkeypatch, "schema", "manifest", **{name: VALUE})

    assert (done.exit_code, done.stderr) == (0, "")


def test_quiet_says_no_note(monkeypatch):
    """What a cluster sets every night is no reason for a mail."""
    monkeypatch.setenv("BULKBIND_SERVICE_HOST", VALUE)
    done = called(
        monkeypatch,
        "prune",
        "--keep-reports",
        "5",
        "--quiet",
        BULKBIND_ENDPOINT="http://127.0.0.1:9",
    )

    assert (done.exit_code, done.stderr) == (0, "")


@pytest.mark.slow
def test_a_log_holds_the_note_as_a_line(tmp_path):
    """Where standard error is to hold nothing but log lines, the note is one of them."""
    config = tmp_path / "settings.yaml"
    config.write_text("log_format: json\n")
    done = subprocess.run(
        [sys.executable, "-m", "bulkbind", "config", "--config", str(config)],
        env=environment(tmp_path, BULKBIND_SERVICE_HOST=VALUE),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    [line] = map(json.loads, done.stderr.splitlines())
    assert (line["level"], line["event"]) == ("warning", "command.said")
    assert "BULKBIND_SERVICE_HOST" in line["text"]
    assert VALUE not in done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"]])
def test_help_comes_whatever_the_environment_has(monkeypatch, arguments):
    """A slip does not stand between a person and the help."""
    done = called(monkeypatch, *arguments, BULKBIND_RATEE=VALUE)

    assert (done.exit_code, done.stderr) == (0, "")


@pytest.mark.slow
def test_other_commands_are_imported_for_an_unknown_variable_only(tmp_path):
    """A start with known variables looks at no other command."""
    code = (
        "import sys\n"
        "from bulkbind.cli import cli\n"
        "cli(['schema', 'config'], prog_name='bulkbind', standalone_mode=False)\n"
        "print('bulkbind.cli.commands.run' in sys.modules)\n"
    )
    for more, is_imported in (
        ({"BULKBIND_RATE": "5"}, "False"),
        ({"BULKBIND_RATE": "5", "BULKBIND_SERVICE_HOST": "x"}, "True"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment(tmp_path, **more),
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert done.stdout.splitlines()[-1] == is_imported
