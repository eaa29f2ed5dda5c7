"""`plan` takes every option of `run` that changes what it would do; each exception has a reason."""

from __future__ import annotations

import click
import pytest

from bulkbind.cli import cli
from bulkbind.settings import SETTINGS, Group
from tests.support.in_process import called

NOT_FOR_A_PLAN = {
    **dict.fromkeys(
        ("--max-attempts", "--max-wait", "--deadline", "--stall", "--max-failures", "--grace"),
        "stops or repeats by what the server answers, which no plan knows",
    ),
    **dict.fromkeys(("--workers", "--cluster"), "which processes send, and not what"),
    "--wait": "a plan waits for no run: it reads a copy of the ledger",
    "--out": "where the report goes, and a plan writes none",
    "--fail-on": "the exit code once all is sent",
    "--metrics-file": "written at the end of a run",
    **dict.fromkeys(
        ("--log-format", "--log-level", "--log-file", "--log-devices"),
        "log lines of what is sent; a plan has one output",
    ),
    "--quiet": "a plan says nothing but the plan",
    "--yes": "a plan asks nothing",
    "--note": "kept with the run, and a plan keeps nothing",
    "--plan": "what a plan is compared with",
    "--rehearse": "another server and another ledger: a rehearsal is its own plan",
    **dict.fromkeys(("--limit", "--fault", "--seed"), "how the server of a rehearsal behaves"),
    **dict.fromkeys(
        ("--archive", "--min-age"), "each file of an inbox is a run of its own: plan it by name"
    ),
}
"""Options of `run` that do not change which rows are sent, nor how many calls that takes."""


def flags_of(name):
    """Return the options of a command, by what the help calls them."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    options = [param for param in command.params if isinstance(param, click.Option)]
    return {max(option.opts, key=len): option for option in options}


def test_plan_takes_what_changes_what_a_run_does():
    """An option of `run` is one of `plan`, or stands above with the reason why it is not."""
    planned, run = flags_of("plan"), flags_of("run")

    assert set(run) - set(planned) == set(NOT_FOR_A_PLAN)
    assert all(NOT_FOR_A_PLAN.values())


@pytest.mark.parametrize("flag", sorted(set(flags_of("run")) & set(flags_of("plan")) - {"--json"}))
def test_an_option_of_both_is_the_same(flag):
    """What it means, its values and its variable are those of `run`."""
    planned, run = flags_of("plan")[flag], flags_of("run")[flag]

    assert (planned.name, planned.help, planned.envvar) == (run.name, run.help, run.envvar)
    assert type(planned.type) is type(run.type)
    assert (planned.metavar, planned.is_flag) == (run.metavar, run.is_flag)


@pytest.mark.parametrize(
    "setting",
    [s for s in SETTINGS.values() if s.group is Group.STAGING and s.name != "on_invalid"],
    ids=lambda setting: setting.flag,
)
def test_what_only_run_does_is_no_plan_of_unbind(setting, tmp_path):
    """It would mean nothing there, and whoever gives it means something else."""
    word = [] if bool in setting.kinds else ["20"]

    done = called("plan", "x.csv", "--unbind", setting.flag, *word, home=tmp_path)

    assert done.returncode == 2
    assert f"{setting.flag} is an option of `run`" in done.stderr


def test_whole_groups_of_settings_are_planned():
    """How manifests are read, what becomes of repeats, and which rows are sent: all of it."""
    groups = (Group.MANIFEST, Group.REPEAT, Group.LEDGER, Group.STAGING, Group.NETWORK, Group.PACE)
    wanted = {setting.flag for setting in SETTINGS.values() if setting.group in groups}

    assert wanted <= set(flags_of("plan"))
    assert not wanted & set(NOT_FOR_A_PLAN)
