"""Manifests of any operator's, from the command line to the sandbox and back."""

from __future__ import annotations

import csv
import gzip
import json
import re
from typing import TYPE_CHECKING

import jsonschema
import pytest
import yaml
from click.testing import CliRunner

from bulkbind.app.schema import config_schema, manifest_schema
from bulkbind.cli import cli
from tests.support.manifests import error_cell, write_xlsx
from tests.support.paths import CSV_INJECTIONS, GPLAY, ROOT, SHARED_DATA
from tests.support.processes import bulkbind, read_results, sandbox, sandbox_bindings, statuses

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = ROOT / "configs" / "sandbox.yaml"
HEADER = "machine_code,user_id,device_name\n"


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """Serve one sandbox for all tests."""
    with sandbox(home=tmp_path_factory.mktemp("sandbox")) as served:
        yield served


@pytest.fixture
def run(tmp_path, url):
    """Return a function that runs manifests with a ledger of the test's own."""

    def done(*arguments, check=0):
        common = ("--endpoint", url, "--ledger", "own.db", "--out", "out")
        return bulkbind("run", *arguments, *common, home=tmp_path, check=check)

    return done


# --- the same device twice -----------------------------------------------------------------------


def conflicting(folder: Path, prefix: str) -> tuple[Path, Path]:
    """Write two files that give one device to two users, and one device twice to one user."""
    one, two = folder / "one.csv", folder / "two.csv"
    one.write_text(f"{HEADER}{prefix}1,a,x\n{prefix}2,a,x\n{prefix}2,a,y\n", encoding="utf-8")
    two.write_text(f"{HEADER}{prefix}1,b,x\n{prefix}3,b,x\n", encoding="utf-8")
    return one, two


@pytest.mark.slow
def test_a_device_for_two_users_is_a_problem_of_both_rows(tmp_path, run):
    """Across files, too: both rows name each other, and nothing is sent unless they are skipped."""
    one, two = conflicting(tmp_path, "CF")
    told = run(one, two, check=2).stderr
    run(one, two, "--on-invalid", "skip", check=1)
    rows = read_results(tmp_path / "out")

    assert f"{one}:2: machine_code 'CF1': {two}:2 gives it to b" in told
    assert [row["status"] for row in rows] == ["invalid", "bound", "duplicate", "invalid", "bound"]
    assert f"{one}:2 gives it to a" in rows[3]["detail"]
    failed = [(tmp_path / "out" / "failed" / name).read_text() for name in ("one.csv", "two.csv")]
    assert [text.count("CF1") for text in failed] == [2, 2]


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "kept"), [("first", 0), ("last", 3)])
def test_policy_says_which_row_of_a_conflict_counts(tmp_path, run, policy, kept):
    """The other row is a duplicate of the one that is sent."""
    run(*conflicting(tmp_path, policy.upper()), "--on-conflict", policy)
    rows = read_results(tmp_path / "out")

    other = 3 - kept
    assert rows[kept]["status"] == "bound"
    assert rows[other]["status"] == "duplicate"
    assert f"for user {rows[kept]['user_id']}, which is bound" in rows[other]["detail"]


@pytest.mark.slow
def test_duplicates_can_be_errors(tmp_path, run):
    """With `--on-duplicate error` the later row is invalid, comes back, and names the first."""
    manifest = tmp_path / "fleet.csv"
    manifest.write_text(f"{HEADER}DU1,a,x\nDU1,a,y\n", encoding="utf-8")
    run(manifest, "--on-duplicate", "error", "--on-invalid", "skip", check=1)
    first, second = read_results(tmp_path / "out")

    assert (first["status"], second["status"]) == ("bound", "invalid")
    assert f"{manifest}:2 has it, too, under the name 'x'" in second["detail"]
    assert "DU1,a,y,invalid" in (tmp_path / "out" / "failed.csv").read_text()


@pytest.mark.slow
def test_validate_finds_what_run_would_refuse(tmp_path):
    """Without a ledger: duplicates are counted, conflicts are problems of both rows, as in JSON."""
    one, two = conflicting(tmp_path, "VA")
    done = bulkbind("validate", one, two, "--json", home=tmp_path, check=1)
    found = json.loads(done.stdout)

    assert (found["rows"], found["invalid"], found["duplicates"]) == (5, 2, 1)
    assert [(p["source"], p["line"], p["found"]) for p in found["problems"]] == [
        (str(one), 2, f"{two}:2 gives it to b"),
        (str(two), 2, f"{one}:2 gives it to a"),
    ]
    bulkbind("validate", one, two, "--on-conflict", "last", home=tmp_path, check=0)
    bulkbind("validate", one, "--on-duplicate", "error", home=tmp_path, check=1)


# --- problems, cleaning, what comes back ---------------------------------------------------------


@pytest.mark.slow
def test_every_problem_is_written_to_a_file(tmp_path):
    """`--problems`, or `--out`, takes a file or a folder; `--all` and `--json` have them, too."""
    manifest = tmp_path / "fleet.csv"
    manifest.write_text(HEADER + "".join(f"A-{n},u,\n" for n in range(1200)), encoding="utf-8")
    done = bulkbind("validate", "fleet.csv", "--problems", "p.csv", home=tmp_path, check=1)
    bulkbind("validate", "fleet.csv", "--out", "folder", home=tmp_path, check=1)
    whole = bulkbind("validate", "fleet.csv", "--all", home=tmp_path, check=1).stdout
    machine = json.loads(bulkbind("validate", "fleet.csv", "--json", home=tmp_path, check=1).stdout)
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))

    assert len(rows) == 1200
    assert (rows[7]["line"], rows[7]["value"]) == ("9", "A-7")
    assert (done.stdout + done.stderr).count("\n") <= 20
    assert "1,200  machine_code: only letters" in done.stdout
    assert "problems: p.csv" in done.stderr
    found = [f"fleet.csv:{n + 2}: machine_code 'A-{n}'" for n in range(1200)]
    assert [line.split(": '-'")[0].strip() for line in whole.splitlines()[1:-1]] == found
    assert [(p["line"], p["value"]) for p in machine["problems"]] == [
        (int(row["line"]), row["value"]) for row in rows
    ]
    assert machine["left_out"] == 0
    assert (tmp_path / "folder" / "problems.csv").read_text() == (tmp_path / "p.csv").read_text()


def broken_off(kind):
    """Return rows of which the third is bad, and where the file then breaks off; and its name."""
    text = HEADER + "A1,u,\nA2,u,\nA-3,u,\nA1,v,\n" + "".join(f"B{n},u,\n" for n in range(30_000))
    match kind:
        case "gzip":
            whole = gzip.compress(text.encode())
            return "fleet.csv.gz", whole[: len(whole) // 2]
        case "encoding":
            return "fleet.csv", text.encode("utf-16") + b"\x00\xd8"
        case "quote":
            return "fleet.csv", text.encode() + b'"X,u,\n'
        case "json":
            listed = [{"machine_code": c, "user_id": u} for c, u in (("A-3", "u"), ("A1", "u"))]
            return "fleet.json", json.dumps([*listed, *listed]).encode()[:-3]
        case _:
            lines = '{"machine_code": "A-3", "user_id": "u"}\n' * 3
            return "fleet.yaml", b"- " + lines.replace("\n", "\n- ").encode() + b"{a: \xff}"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gzip", "encoding", "quote", "json", "yaml"])
def test_problems_until_a_manifest_breaks_off_are_kept(tmp_path, kind):
    """What was found is written, and printed, before the error ends the command."""
    name, content = broken_off(kind)
    (tmp_path / name).write_bytes(content)
    done = bulkbind("validate", name, "--out", "p.csv", home=tmp_path, check=2)
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))

    assert "A-3" in [row["value"] for row in rows]
    assert done.stdout.count("A-3") == [row["value"] for row in rows].count("A-3")
    assert "error: " in done.stderr
    assert name in done.stderr
    assert re.search(r"rows could be read, \d of them break a rule; problems: p\.csv", done.stderr)
    if kind in ("gzip", "encoding", "quote"):
        assert [row["found"] for row in rows if row["value"] == "A1"] == [
            f"{name}:5 gives it to v",
            f"{name}:2 gives it to u",
        ]


@pytest.mark.slow
def test_manifest_without_a_row_leaves_the_old_problems(tmp_path):
    """Where nothing could be read, the file of an earlier look stays as it is."""
    (tmp_path / "fleet.yaml").write_text("- {serial: A, user_id: u}\n")
    (tmp_path / "p.csv").write_text("old")
    bulkbind("validate", "fleet.yaml", "--out", "p.csv", home=tmp_path, check=2)

    assert (tmp_path / "p.csv").read_text() == "old"


@pytest.mark.slow
def test_cleaned_names_are_sent_and_listed(tmp_path, run, url):
    """Every change is in the report and counted; the problem text is that of `validate`."""
    manifest = tmp_path / "fleet.csv"
    manifest.write_text(f"{HEADER}CL1,clean,Büro 1\nCL-2,clean,Büro 2\n", encoding="utf-8")
    cleans = ("--clean", "names", "--all")
    told = bulkbind("validate", manifest, *cleans, home=tmp_path, check=1).stdout
    run(manifest, "--clean", "names", "--on-invalid", "skip", check=1)
    first, second = read_results(tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "summary.json").read_bytes())
    [problem] = re.findall(f"{re.escape(str(manifest))}:3: (machine_code .*)", told)

    assert "device_name cleaned: 'Büro 1' -> 'Buro 1'" in told
    assert "device_name cleaned: 'Büro 1' -> 'Buro 1'" in first["detail"]
    assert [r["deviceName"] for r in sandbox_bindings(url) if r["userId"] == "clean"] == ["Buro 1"]
    assert summary["cleaned"] == 2
    assert problem in second["detail"]
    assert problem in (tmp_path / "out" / "failed.csv").read_text(encoding="utf-8")


def with_errors(path: Path) -> Path:
    """Write a sheet in which formulas failed, or its export as CSV."""
    rows: list[list[object]] = [
        ["machine_code", "user_id", "device_name", "note"],
        ["EC1", "u", "Van", "#N/A"],
        ["EC2", "#N/A", "Van", "x"],
        ["#REF!", "u", "Van", "x"],
        ["EC4", "u", "#DIV/0!", "x"],
        ["EC5", "#SPILL!", None, "x"],
        ["EC6", None, "Van", "x"],
    ]
    if path.suffix == ".xlsx":
        as_cells = [[error_cell(str(c)) if str(c)[:1] == "#" else c for c in row] for row in rows]
        return write_xlsx(path, ("Devices", as_cells))
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fleet.xlsx", "fleet.csv"])
def test_error_of_a_formula_is_never_bound(tmp_path, name):
    """Neither it nor the user for rows that name none is sent; the row comes back as it was."""
    manifest = with_errors(tmp_path / name)
    common = ("--user-id", "fallback", "--clean", "names")
    told = bulkbind("validate", manifest, *common, "--all", home=tmp_path, check=1).stdout
    bulkbind(
        "run", manifest, "--rehearse", "--on-invalid", "skip", "--yes", "--out", "out", *common,
        home=tmp_path, check=1,
    )  # fmt: skip
    results = read_results(tmp_path / "out")
    given_back = "failed.csv" if name == "fleet.csv" else "failed/fleet.csv"
    with (tmp_path / "out" / given_back).open(newline="", encoding="utf-8-sig") as file:
        failed = [list(row.values())[:4] for row in csv.DictReader(file)]

    for line, column, place, error in (
        (3, "user_id", "B3", "#N/A"),
        (4, "machine_code", "A4", "#REF!"),
        (5, "device_name", "C5", "#DIV/0!"),
        (6, "user_id", "B6", "#SPILL!"),
    ):
        where = f" in {place}" if name == "fleet.xlsx" else ""
        found = f"an error of a formula ({error}){where}\n"
        assert f"{name}:{line}: {column} {error!r}: {found}" in told
    assert [(row["status"], row["user_id"]) for row in results] == [
        ("bound", "u"), ("invalid", "#N/A"), ("invalid", "u"), ("invalid", "u"),
        ("invalid", "#SPILL!"), ("bound", "fallback"),
    ]  # fmt: skip
    assert failed == [
        ["EC2", "#N/A", "Van", "x"], ["#REF!", "u", "Van", "x"], ["EC4", "u", "#DIV/0!", "x"],
        ["EC5", "#SPILL!", "", "x"],
    ]  # fmt: skip


GOOD_AND_BAD = [{"machine_code": "{0}1", "user_id": "u"}, {"machine_code": "{0}-2", "user_id": "u"}]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["csv", "gz", "xlsx", "yaml", "jsonl", "json", "titled", "bare"])
def test_rows_that_come_back_can_be_mended_and_run(tmp_path, run, form):
    """In each format, what failed is fixed where it stands and run with the same options."""
    rows = [{k: v.format(form.upper()) for k, v in row.items()} for row in GOOD_AND_BAD]
    table = [list(rows[0]), *(list(row.values()) for row in rows)]
    text = "".join(",".join(cells) + "\n" for cells in table)
    manifest = tmp_path / f"fleet.{form if form not in ('titled', 'bare') else 'csv'}"
    options: list[str] = ["--on-invalid", "skip"]
    if form == "xlsx":
        write_xlsx(manifest, ("One", [list(cells) for cells in table]))
    elif form == "gz":
        manifest.write_bytes(gzip.compress(text.encode()))
    elif form == "yaml":
        manifest.write_text(yaml.safe_dump(rows))
    elif form == "json":
        manifest.write_text(json.dumps(rows))
    elif form == "jsonl":
        manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif form == "titled":
        manifest.write_text("machine_code\nNO1\n" + text)
        options += ["--skip-rows", "2"]
    elif form == "bare":
        manifest.write_text(text.partition("\n")[2])
        options += ["--columns", "machine_code,user_id"]
    else:
        manifest.write_text(text)
    run(manifest, *options, check=1)
    [failed] = [p for p in (tmp_path / "out").rglob("*") if p.parent.name == "failed"] or [
        tmp_path / "out" / "failed.csv"
    ]
    fixed = tmp_path / f"fixed{failed.suffix if failed.suffix != '.gz' else ''}"
    fixed.write_bytes(failed.read_bytes().replace(b"-2,", b"2,").replace(b'-2"', b'2"').replace(
        b"-2\n", b"2\n"))  # fmt: skip
    run(fixed, *options)

    assert statuses(tmp_path / "out") == {"bound": 1}


@pytest.mark.slow
def test_folders_patterns_and_profiles(tmp_path, run):
    """A folder is read by name without dotfiles; a pattern by its order; a profile maps columns."""
    folder = tmp_path / "exports"
    folder.mkdir()
    for name, code in (("b.csv", "FO2"), ("a.csv", "FO1"), (".c.csv", "FO3"), ("notes.md", "x")):
        (folder / name).write_text(f"Serial,user_id\n{code},u\n")
    config = tmp_path / "own.yaml"
    config.write_text("profiles:\n  mine:\n    columns: {machine_code: Serial}\n")
    run(folder, "--config", config, "--profile", "mine")
    by_folder = [row["machine_code"] for row in read_results(tmp_path / "out")]
    run(folder / "[b-z]*.csv", "--map", "machine_code=#1")
    by_pattern = [row["machine_code"] for row in read_results(tmp_path / "out")]
    unknown = run(folder, "--config", config, "--profile", "yours", check=2).stderr

    assert by_folder == ["FO1", "FO2"]
    assert by_pattern == ["FO2"]
    assert "there is no profile 'yours'" in unknown
    assert "mine" in unknown


def test_the_login_in_an_inventory_of_nornir_is_no_user(run, tmp_path):
    """Its profile says so, else `username` would stop what `--user-id` is given for."""
    hosts = tmp_path / "hosts.yaml"
    hosts.write_text("r1: {hostname: a, username: root}\nr2: {username: admin}\n", encoding="utf-8")
    run(hosts, "--config", CONFIG, "--profile", "nornir", "--user-id", "lab")

    assert statuses(tmp_path / "out") == {"bound": 2}


# --- files made by nobody here -------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(
    not SHARED_DATA.exists(), reason="the real files lie beside the checkout, not in it"
)
@pytest.mark.parametrize(
    ("pattern", "profile", "bound"),
    [
        ("thingpark_xlsx/*.xlsx", "thingpark", 1),
        ("nornir_yaml/docs/howto/advanced_filtering/inventory/hosts.yaml", "nornir", 6),
        ("snipeit/assets-sample.csv", "snipe-it", 22),
    ],
)
def test_real_exports_are_bound_with_one_command(run, tmp_path, pattern, profile, bound):
    """The commands of the README bind real exports, every row of them."""
    run(SHARED_DATA / pattern, "--config", CONFIG, "--profile", profile, "--user-id", "lab")

    assert statuses(tmp_path / "out") == {"bound": bound}


@pytest.mark.slow
@pytest.mark.skipif(not GPLAY.exists(), reason="the real file lies beside the checkout, not in it")
def test_a_real_list_of_devices_plain_and_cleaned(tmp_path):
    """Cleaning makes all names fit but those without one plain letter; every change is counted."""
    common = ("validate", GPLAY, "--config", CONFIG, "--profile", "google-play", "--user-id", "u")
    plain = json.loads(
        bulkbind(*common, "--clean", "none", "--json", home=tmp_path, check=1).stdout
    )
    cleaned = json.loads(bulkbind(*common, "--json", home=tmp_path, check=1).stdout)

    assert (plain["rows"], plain["invalid"], plain["duplicates"]) == (35_244, 8_194, 7_256)
    assert [rule["count"] for rule in plain["rules"].values()] == [4_251, 2_607, 2_092]
    assert (cleaned["invalid"], cleaned["cleaned"]) == (4_260, 4_504)
    assert [rule["count"] for rule in cleaned["rules"].values()] == [4_251, 11]


@pytest.mark.slow
@pytest.mark.skipif(
    not CSV_INJECTIONS.exists(), reason="the list lies beside the checkout, not in it"
)
def test_published_formulas_are_run_by_no_spreadsheet(run, tmp_path):
    """Each payload in each field: reports guard it, the operator's own table holds it as it was."""
    payloads = CSV_INJECTIONS.read_text("utf-8").splitlines()
    fields = ("machine_code", "user_id", "device_name", "device_os")
    good = dict(zip(fields, ("FI1", "u", "Van", "Android"), strict=True))
    rows = [good, *(good | {field: text} for text in payloads for field in fields)]
    manifest = tmp_path / "fleet.csv"
    with manifest.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, fields)
        table.writeheader()
        table.writerows(rows)
    run(manifest, "--on-invalid", "skip", check=1)
    results, out = read_results(tmp_path / "out"), tmp_path / "out"
    with (out / "problems.csv").open(newline="", encoding="utf-8") as file:
        problems = list(csv.DictReader(file))
    with (out / "failed.csv").open(newline="", encoding="utf-8") as file:
        failed = list(csv.DictReader(file))
    told = bulkbind("validate", out / "failed.csv", "--json", home=tmp_path, check=1).stdout

    assert len(payloads) == 6
    assert len(results) == 1 + len(problems) == 1 + len(failed) == len(rows)
    for row in (*results, *problems):
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in row.values())
    assert [{field: row[field] for field in fields} for row in failed] == rows[1:]
    assert json.loads(told)["invalid"] == len(failed)


# --- schemas -------------------------------------------------------------------------------------


def test_shipped_schemas_are_what_is_printed():
    """The files beside samples and settings are what `bulkbind schema` prints."""
    for what, path in (
        ("manifest", ROOT / "samples/manifest.schema.json"),
        ("config", ROOT / "configs/config.schema.json"),
    ):
        printed = CliRunner().invoke(cli, ["schema", what]).stdout
        assert printed == path.read_text(encoding="utf-8")


def test_samples_and_settings_keep_their_schemas():
    """Editors find nothing wrong with what is shipped, and something with what is."""
    config = jsonschema.Draft202012Validator(config_schema())
    manifest = jsonschema.Draft202012Validator(manifest_schema())
    for path in (ROOT / "configs").glob("*.yaml"):
        assert list(config.iter_errors(yaml.safe_load(path.read_text("utf-8")))) == []
    sample = yaml.safe_load((ROOT / "samples/fleet.yaml").read_text("utf-8"))

    assert list(manifest.iter_errors(sample)) == []
    assert not config.is_valid({"concurency": 1})
    assert not config.is_valid({"clean": "all"})
    assert not manifest.is_valid([{"machine_code": "A-1", "user_id": "u"}])
    assert not manifest.is_valid([{"user_id": "u"}])


# --- what is no value, and no column -------------------------------------------------------------


@pytest.mark.slow
def test_placeholders_and_columns_are_settled_by_options(tmp_path, run):
    """By flag, by variable and by profile; without them, nothing of it is sent."""
    manifest = tmp_path / "fleet.csv"
    manifest.write_text("machine_code,user_id (old),device_name\nNA,x,TBD\nWORD1,x,Van\n")
    profile = tmp_path / "config.yaml"
    profile.write_text(
        "profiles:\n  own:\n    placeholders: TBD\n    ignore_columns: user_id (old)\n"
    )
    refused = run(manifest, "--user-id", "words", check=2).stderr
    given = ("--user-id", "words", "--ignore-column", "user_id (old)")
    bad = bulkbind("validate", manifest, *given, home=tmp_path, check=1).stdout
    good = bulkbind(
        "validate", manifest, "--user-id", "words", home=tmp_path, check=0,
        BULKBIND_IGNORE_COLUMN="other;user_id (old)", BULKBIND_PLACEHOLDERS="none",
    ).stderr  # fmt: skip
    run(manifest, "--user-id", "words", "--config", profile, "--profile", "own")
    rows = read_results(tmp_path / "out")

    assert "column `user_id (old)` may be meant for user_id" in refused
    assert "fleet.csv:2: machine_code 'NA'" in bad
    assert "a placeholder, not a value" in bad
    assert "2 rows, 0 of them break a rule" in good
    assert "a placeholder" not in good
    assert [(r["user_id"], r["machine_code"], r["device_name"], r["status"]) for r in rows] == [
        ("words", "NA", "", "bound"),
        ("words", "WORD1", "Van", "bound"),
    ]
