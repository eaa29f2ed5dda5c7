"""Problems that people can act on: one screen, every one on demand, and cures that fix."""

from __future__ import annotations

import csv
import json
import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from bulkbind.model.wording import counted, verb
from tests.support.manifests import write_csv
from tests.support.processes import bulkbind, environment

if TYPE_CHECKING:
    from pathlib import Path

ROWS = [
    ("A-{n}", "u", "", ""),
    ("A{n}", "", "", ""),
    ("A{n}", "u", "Büro {n}", ""),
    ("A{n}", "u", "", "iOS 17.{n}"),
    ("", "u", "", ""),
    ("A{n}", "u {n}", "", ""),
    ("A{n}", "u", "#N/A", ""),
    ("A{n}", "u", "", "", "one cell too many"),
]
"""Rows that break rules, in more and more ways; `{n}` is another number in each."""


def manifest_of(path: Path, count: int, kinds: int) -> Path:
    """Write a manifest of which so many rows are broken in so many ways."""
    rows = [[cell.format(n=n) for cell in ROWS[n % kinds]] for n in range(count)]
    write_csv(path, rows)
    return path


def piped(script: str, home: Path):
    """Run a pipeline of a shell, in which `bulkbind` is ours."""
    script = script.replace("bulkbind", f"{shlex.quote(sys.executable)} -m bulkbind", 1)
    return subprocess.run(
        ["/bin/bash", "-c", f"{script}; exit ${{PIPESTATUS[0]}}"],
        env=environment(home),
        cwd=home,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [1, 3, 8])
@pytest.mark.parametrize("count", [1, 10, 1000])
def test_problems_fit_a_screen(tmp_path, count, kinds):
    """However many there are: at most 20 lines of 80 columns, and each rule is said once."""
    manifest_of(tmp_path / "fleet.csv", count, kinds)
    done = bulkbind("validate", "fleet.csv", home=tmp_path, check=1)
    told = (done.stdout + done.stderr).splitlines()
    found = json.loads(bulkbind("validate", "fleet.csv", "--json", home=tmp_path, check=1).stdout)

    assert sum(-(-len(line) // 80) for line in told) <= 20
    assert max(map(len, done.stdout.splitlines())) <= 80
    heads = re.findall(r"^ *([\d,]+)  (\w+: .*)$", done.stdout, re.MULTILINE)
    assert len({rule for _, rule in heads}) == len(heads) == len(found["rules"])
    assert sum(int(number.replace(",", "")) for number, _ in heads) == len(found["problems"])
    does = verb(count, "breaks", "break")
    assert f"{counted(count, 'rows')}, {count:,} of them {does} a rule" in done.stderr


@pytest.mark.slow
def test_many_notices_leave_room_for_problems(tmp_path):
    """Of a folder with thirty files the first notices are printed; --all prints them all."""
    (tmp_path / "exports").mkdir()
    for n in range(30):
        path = tmp_path / "exports" / f"{n:02}.csv"
        write_csv(path, [(f"A-{n}", "u", "x")], ("machine_code", "user_id", "colour"))
    done = bulkbind("validate", "exports", home=tmp_path, check=1)
    whole = bulkbind("validate", "exports", "--all", home=tmp_path, check=1)

    assert (done.stdout + done.stderr).count("\n") <= 20
    assert "24 more notes; --all prints them" in done.stderr
    assert whole.stderr.count("columns kept but not sent") == 30
    assert whole.stdout.count("machine_code 'A-") == 30


@pytest.mark.slow
def test_a_cure_mends_as_many_as_it_says(tmp_path):
    """Each option that is offered is given, and what it was to fix is gone."""
    manifest = tmp_path / "fleet.csv"
    rows = [
        *(("A1", "u", "小米", ""), ("A2", "u", "Büro", "iOS 17.2"), ("A3", "", "", "")),
        *(("A4", "u 1", "x" * 40, ""), ("B1", "u", "", ""), ("B1", "u", "", "")),
        *(("C1", "u", "", ""), ("C1", "v", "", "")),
    ]
    write_csv(manifest, rows)
    common = ["validate", "fleet.csv", "--json", "--on-duplicate", "error"]

    def counts(*options):
        done = bulkbind(*common, *options, home=tmp_path)
        rules = json.loads(done.stdout)["rules"]
        return {rule: (found["count"], found["cures"]) for rule, found in rules.items()}

    before = counts()
    options = {cure for _, cures in before.values() for cure in cures}
    assert options == {
        "--clean names",
        "--user-id ID",
        "--on-duplicate first",
        "--on-conflict first or last",
    }
    for cure in options:
        after = counts(*cure.partition(" or ")[0].replace("ID", "id").split())
        for rule, (count, cures) in before.items():
            assert after.get(rule, (0, {}))[0] == count - cures.get(cure, 0), (cure, rule)


@pytest.mark.slow
@pytest.mark.parametrize("options", ["", "--all", "--json", "--clean names --all"])
def test_a_reader_that_has_enough_ends_it_quietly(tmp_path, options):
    """`validate | head`: no traceback, no error, and the exit code of the manifest."""
    manifest_of(tmp_path / "fleet.csv", 20_000, 3)
    for reader in ("head -1", "true"):
        done = piped(f"bulkbind validate fleet.csv {options} | {reader}", tmp_path)

        assert done.returncode == 1, done.stderr
        assert "error" not in done.stderr.lower()
        assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("plan fleet.csv --endpoint http://127.0.0.1:9", 1),
        ("plan fleet.csv --json --endpoint http://127.0.0.1:9", 1),
        ("config", 0),
        ("schema config", 0),
        ("completion fish", 0),
    ],
)
def test_other_commands_end_quietly_as_well(tmp_path, command, code):
    """Whoever reads their output may leave; the exit code is their own."""
    manifest_of(tmp_path / "fleet.csv", 3, 1)
    done = piped(f"bulkbind {command} | true", tmp_path)

    assert done.returncode == code, done.stderr
    assert "error" not in done.stderr.lower()


@pytest.mark.slow
def test_a_full_disk_is_no_reader_that_left(tmp_path):
    """What cannot be printed for another reason is an error, as before."""
    manifest_of(tmp_path / "fleet.csv", 3, 1)
    for options in ("", "--all", "--json"):
        done = piped(f"bulkbind validate fleet.csv {options} > /dev/full", tmp_path)

        assert done.returncode == 4
        assert "standard output cannot be written" in done.stderr


@pytest.mark.slow
def test_out_is_the_flag_alone(tmp_path):
    """`--out` is another name of `--problems`; where reports go is no place for problems."""
    manifest_of(tmp_path / "fleet.csv", 3, 1)
    (tmp_path / "own.yaml").write_text("out: reports\n")
    common = ("validate", "fleet.csv", "--config", "own.yaml")
    bulkbind(*common, home=tmp_path, check=1, BULKBIND_OUT="reports")
    assert not (tmp_path / "reports").exists()

    bulkbind(*common, "--out", "one.csv", home=tmp_path, check=1)
    bulkbind(*common, "--problems", "two", home=tmp_path, check=1)
    bulkbind(*common, home=tmp_path, check=1, BULKBIND_PROBLEMS="three.csv")
    texts = {
        (tmp_path / name).read_text("utf-8")
        for name in ("one.csv", "two/problems.csv", "three.csv")
    }
    assert len(texts) == 1
    assert len(list(csv.reader(texts.pop().splitlines()))) == 4


@pytest.mark.slow
def test_what_cleaning_changed_is_on_the_same_screen(tmp_path):
    """A thousand names that were made to fit take a few lines; --all and --json have each."""
    write_csv(tmp_path / "fleet.csv", [(f"A{n}", "u", f"Büro {n}", "") for n in range(1000)])
    common = ("validate", "fleet.csv", "--clean", "names")
    done = bulkbind(*common, home=tmp_path, check=0)
    whole = bulkbind(*common, "--all", home=tmp_path, check=0).stdout
    machine = json.loads(bulkbind(*common, "--json", home=tmp_path, check=0).stdout)

    assert (done.stdout + done.stderr).count("\n") <= 20
    assert "1,000  device_name: made to fit its rule by --clean names" in done.stdout
    assert "fleet.csv:2: device_name cleaned: 'Büro 0' -> 'Buro 0'" in done.stdout
    assert whole.count(" -> 'Buro ") == len(machine["changes"]) == 1000
    assert machine["changes"][999] == {
        "source": "fleet.csv", "line": 1001, "column": "device_name", "before": "Büro 999",
        "after": "Buro 999",
    }  # fmt: skip


@pytest.mark.slow
def test_a_terminal_of_another_width_is_filled(tmp_path):
    """Values are cut to what the terminal shows, and to 80 columns where there is none."""
    write_csv(tmp_path / "fleet.csv", [("A-" * 60, "u", "", "")])
    told = [
        bulkbind("validate", "fleet.csv", home=tmp_path, COLUMNS=columns).stdout.splitlines()
        for columns in ("", "60", "120")
    ]
    widths = [max(map(len, lines)) for lines in told]

    assert widths[0] <= 80
    assert widths[1] <= 64  # the rule may need more than so narrow a terminal has
    assert 80 < widths[2] <= 120


@pytest.mark.slow
def test_a_run_that_is_refused_shows_the_same_groups(tmp_path):
    """`run` and `plan` list problems as `validate` does, on a screen."""
    manifest_of(tmp_path / "fleet.csv", 1000, 3)
    told = bulkbind("validate", "fleet.csv", home=tmp_path, check=1).stdout
    place = ("--endpoint", "http://127.0.0.1:9")
    run = bulkbind("run", "fleet.csv", *place, "--yes", home=tmp_path, check=2).stderr
    plan = bulkbind("plan", "fleet.csv", *place, home=tmp_path, check=1).stdout

    heads = [line for line in told.splitlines() if re.match(r" *[\d,]+  \w+: ", line)]
    assert len(heads) == 3
    for text in (run, plan):
        assert [line for line in text.splitlines() if line in heads] == heads
        assert "--clean names fixes 333 of 333" in text
        assert text.count("\n") <= 22
