"""The samples for schedulers, checked by the schedulers' own tools where they are installed."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from bulkbind.errors import ExitCode
from bulkbind.settings import Settings, shared
from bulkbind.settings.model import KEYS
from tests.acceptance.test_docs import command_of
from tests.support.manual import README
from tests.support.paths import ROOT

DEPLOY = ROOT / "samples" / "deploy"
CRON = DEPLOY / "cron" / "bulkbind"
SERVICE = DEPLOY / "systemd" / "bulkbind.service"
TIMER = DEPLOY / "systemd" / "bulkbind.timer"
CRONJOB = DEPLOY / "kubernetes" / "cronjob.yaml"
ANALYZE = shutil.which("systemd-analyze")
CONTAINER = DEPLOY / "container" / "Containerfile"
GITHUB = DEPLOY / "github" / "bulkbind.yml"
GITLAB = DEPLOY / "gitlab" / "bulkbind.gitlab-ci.yml"
PRE_COMMIT = DEPLOY / "pre-commit" / "pre-commit-config.yaml"
BULKBIND = "/opt/bulkbind/bin/bulkbind"
MOST_EXPOSED = 1.5
"""systemd's own scale, from 0 (locked up) to 10 (as root); 2 and less is `OK`."""


def cron_commands():
    """Return the commands of the crontab, with their user, as cron gives them to the shell."""
    lines = [line for line in CRON.read_text().splitlines() if re.match(r"[\d*]", line)]
    return [line.split(maxsplit=6)[5:] for line in lines]


def manifests():
    """Return the documents of the CronJob's file by kind."""
    return {item["kind"]: item for item in yaml.safe_load_all(CRONJOB.read_text())}


def called(command):
    """Return the words behind `bulkbind` of a shell's command."""
    words = shlex.split(command.split("&&")[-1].split("||")[0])
    assert words[0] in (BULKBIND, "bulkbind")
    return words[1:]


def calls():
    """Return every call of bulkbind in the samples."""
    start = next(line for line in SERVICE.read_text().splitlines() if line.startswith("ExecStart="))
    container = pod()["containers"][0]
    return [
        *(called(command) for _, command in cron_commands()),
        called(start.removeprefix("ExecStart=").replace("${STATE_DIRECTORY}", "/var/lib/bulkbind")),
        called(shlex.join(container["args"])),
        *(called(line.partition(" > ")[0]) for line in checks()),
    ]


def checks():
    """Return every command of bulkbind's in the samples for merge requests and commits."""
    steps = [
        step.get("run", "") for step in yaml.safe_load(GITHUB.read_text())["jobs"]["plan"]["steps"]
    ]
    [hook] = yaml.safe_load(PRE_COMMIT.read_text())["repos"][0]["hooks"]
    lines = [*steps, *yaml.safe_load(GITLAB.read_text())["bulkbind"]["script"]]
    return [line for line in lines if line.startswith("bulkbind ")] + [f"{hook['entry']} fleet.csv"]


def pod():
    """Return the CronJob's pod."""
    return manifests()["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def test_every_call_in_the_samples_is_understood():
    """Each is a command of ours with options that it has."""
    assert len(calls()) == 10
    for name, *arguments in calls():
        command_of(name).make_context(name, arguments)  # raises where it does not parse


@pytest.mark.parametrize("path", [CRON, SERVICE, CRONJOB], ids=lambda path: path.parent.name)
def test_each_sample_says_what_happens(path):
    """On overlap, on a stop, after a missed slot, and with each exit code."""
    text = path.read_text()
    comments = "\n".join(line for line in text.splitlines() if line.startswith("#"))

    for word in ("Overlap", "Stop", "Missed", "Codes", "SIGTERM", "--grace"):
        assert word in comments, word
    typed = {ExitCode.DECLINED, ExitCode.INTERRUPTED}  # nobody types here
    for code in set(ExitCode) - {ExitCode.DONE, *typed}:
        assert re.search(rf"\b{code}\b", text), code
    assert "samples/deploy/" in README


def test_the_crontab_is_one():
    """Five fields, a user, a command; no bare %, which cron takes for a line break."""
    assert len(cron_commands()) == 3
    for user, command in cron_commands():
        assert user == "bulkbind"
        assert "%" not in command
        assert "--quiet" in command
        assert subprocess.run(["/bin/sh", "-n", "-c", command], check=False).returncode == 0


def test_merge_requests_get_the_plan_and_a_check():
    """Each sample plans as Markdown, goes on where rows could not be bound, and then validates."""
    plan, check = ("bulkbind plan manifests/ --as md > plan.md || [ $? -eq 1 ]",
                   "bulkbind validate manifests/ --all")  # fmt: skip

    assert checks() == [plan, check, plan, check, "bulkbind validate fleet.csv"]
    for path in (GITHUB, GITLAB, PRE_COMMIT):
        assert "validate ends with 1" in " ".join(path.read_text().split())


def test_the_hook_takes_every_format_and_nothing_else():
    """Its pattern finds manifests of each form in their folder."""
    [hook] = yaml.safe_load(PRE_COMMIT.read_text())["repos"][0]["hooks"]

    names = ("fleet.csv", "a/b.xlsx", "x.yaml", "x.yml", "x.json", "x.jsonl")
    assert all(re.search(hook["files"], f"manifests/{name}") for name in names)
    assert not re.search(hook["files"], "manifests/README.md")


def test_the_image_runs_as_nobody_special():
    """The last stage ends as a user by number, pins by hashes, and takes SIGTERM for a stop."""
    text = CONTAINER.read_text()
    last = text.rpartition("\nFROM ")[2]

    users = re.findall(r"^USER (\S+)$", text, re.MULTILINE)
    assert users == ["10001:10001"]
    assert last.index("USER ") > last.rindex("RUN ")
    assert "--require-hashes -r /src/configs/constraints.txt" in text
    assert "STOPSIGNAL SIGTERM" in last
    assert 'ENTRYPOINT ["bulkbind"]' in last


@pytest.fixture
def units(tmp_path):
    """Return copies of the units whose program exists here."""
    for path in (SERVICE, TIMER):
        text = path.read_text().replace(BULKBIND, shutil.which("true") or "/bin/true")
        (tmp_path / path.name).write_text(text)
    return tmp_path


@pytest.mark.slow
@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_to_say_of_the_units(units):
    """`systemd-analyze verify` is silent about both."""
    done = subprocess.run(
        [str(ANALYZE), "verify", "--man=no", units / SERVICE.name, units / TIMER.name],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    ours = [line for line in done.stderr.splitlines() if "bulkbind" in line]
    assert (done.returncode, ours) == (0, [])


@pytest.mark.slow
@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
def test_the_service_is_hardened(units):
    """`systemd-analyze security` calls its exposure 1.5 or less."""
    done = subprocess.run(
        [str(ANALYZE), "security", "--offline=true", "--no-pager", units / SERVICE.name],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    found = re.search(r"exposure level for \S+: (\d+\.\d)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    assert float(found[1]) <= MOST_EXPOSED


def test_the_service_has_time_to_end():
    """The deadline ends before systemd's own, and a stop leaves more than the grace."""
    text = SERVICE.read_text()

    assert "--deadline 50m" in text
    assert "--wait 5m" in text
    assert re.search(r"^TimeoutStartSec=70min$", text, re.MULTILINE)
    assert re.search(r"^TimeoutStopSec=90s$", text, re.MULTILINE)
    assert Settings().send.grace < 90


def test_the_cronjob_keeps_to_itself():
    """No overlap, no root, no token in the pod's text, and more time to stop than the grace."""
    found = manifests()
    spec = found["CronJob"]["spec"]
    container = pod()["containers"][0]
    rules = spec["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]

    assert spec["concurrencyPolicy"] == "Forbid"
    assert pod()["restartPolicy"] == "Never"
    assert pod()["terminationGracePeriodSeconds"] > Settings().send.grace
    assert pod()["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert (
        container["env"][0]["valueFrom"]["secretKeyRef"]["name"]
        == found["Secret"]["metadata"]["name"]
    )
    assert rules[0]["onExitCodes"]["values"] == [1, 2, 4]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod()["volumes"]}


def test_the_cronjobs_settings_are_ours():
    """Every key of its settings file is known."""
    held = yaml.safe_load(manifests()["ConfigMap"]["data"]["bulkbind.yaml"])

    assert set(held) <= set(KEYS)


@pytest.mark.parametrize(
    ("mode", "environ", "others"),
    [
        (0o400, {}, ""),
        (0o440, {}, "read"),
        (0o440, {"CREDENTIALS_DIRECTORY": "/run/credentials/bulkbind.service"}, ""),
        (0o440, {"CREDENTIALS_DIRECTORY": "/run/credentials/other.service"}, "read"),
        (0o444, {"CREDENTIALS_DIRECTORY": "/run/credentials/bulkbind.service"}, "read"),
        (0o620, {}, "written"),
        (0o602, {"CREDENTIALS_DIRECTORY": "/run/credentials/bulkbind.service"}, "written"),
    ],
)
def test_a_credential_of_systemds_is_private(mode, environ, others):
    """Its access list shows as a right of the group, which is not the group's."""
    path = Path("/run/credentials/bulkbind.service/token")

    assert shared(path, mode, environ) == others
