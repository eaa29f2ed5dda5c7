"""README, topics, help, settings files and samples, checked against the code."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner
from packaging.requirements import Requirement

import bulkbind
from bulkbind.app.schema import config_schema, described
from bulkbind.cli import COMMANDS, cli
from bulkbind.cli.layout import heading_of
from bulkbind.errors import ExitCode, meanings
from bulkbind.manifest import format_names, open_manifest
from bulkbind.manifest.rules import RULES
from bulkbind.model import EXTRA, MEANINGS, NEEDS_PERSON, UNBIND_MEANINGS, PlanWord
from bulkbind.model.fields import ROW_FIELDS
from bulkbind.report import FORMS
from bulkbind.report.layout import fitted
from bulkbind.report.tables import RESULTS
from bulkbind.settings import (
    SECRETS,
    SETTINGS,
    AuthSettings,
    ManifestSettings,
    Setting,
    Settings,
    load,
    load_settings,
)
from tests.support.configs import config_files
from tests.support.constraints import PINS
from tests.support.in_process import called as in_process
from tests.support.manual import MANUAL, README, TOPICS, blocks, section
from tests.support.paths import ROOT
from tests.support.processes import bulkbind as run_bulkbind, environment, sandbox

SAMPLES = sorted(path for path in (ROOT / "samples").iterdir() if path.suffix in (".csv", ".yaml"))
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
DIFFERENT = {
    "koodrive-cn.yaml": {"endpoint", "profiles"},
    "koodrive-intl.yaml": {"endpoint", "profiles"},
    "sandbox.yaml": {
        "endpoint",
        "profiles",
        "already_bound_codes",
        "locked_codes",
        "readback_settle",
    },
}
"""Keys that a settings file sets to something other than the default, on purpose."""


def command_of(name: str) -> click.Command:
    """Return a command by its name."""
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


def options_of(name: str) -> list[click.Option]:
    """Return a command's options."""
    return [param for param in command_of(name).params if isinstance(param, click.Option)]


def help_of(*arguments: str) -> str:
    """Return what `COLUMNS=100 bulkbind … --help` prints."""
    # click leaves two of a terminal's columns free.
    done = CliRunner().invoke(
        cli, [*arguments, "--help"], prog_name="bulkbind", terminal_width=100 - 2
    )
    assert done.exit_code == 0, done.output
    return done.output


def first_cells(text: str) -> set[str]:
    """Return the words in the first column of the tables in a text."""
    cells = re.findall(r"^\| ([^|]+?) \|", text, re.MULTILINE)
    return {word.strip("` ") for cell in cells for word in cell.split(",")}


def as_a_file_holds(settings: Settings) -> dict[str, object]:
    """Return settings as a settings file holds them, without what cannot stand there."""
    plain = settings.public()
    for name in SECRETS:
        del plain["auth"][name]
    return plain


# --- commands and help ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_the_manual_knows_every_command(name):
    """Every command is called in README or in a topic, and listed in the help."""
    assert re.search(rf"`(bulkbind )?{name}\b|bulkbind {name}\b", MANUAL)
    assert re.search(rf"^  {name} ", help_of(), re.MULTILINE)


def test_readme_is_short_and_names_every_topic():
    """At most 9 kB, each topic with a link to its file; a topic's heading begins with its name."""
    named = re.findall(r"^\| \[([\w-]+)\]\(bulkbind/docs/([\w-]+)\.md\) \|", README, re.MULTILINE)

    assert len(README.encode()) <= 9_000
    assert {name for name, _ in named} == {name for _, name in named} == set(TOPICS)
    assert len(TOPICS) >= 13
    for name, text in TOPICS.items():
        assert re.match(r"# .+: .+\n\n", text), name


@pytest.mark.parametrize("page", ["README", *TOPICS])
def test_links_and_topics_are_there(page):
    """Each file that a page links to is there, and so is each topic or command that it names."""
    text = README if page == "README" else TOPICS[page]

    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / link).exists(), link
    for named in re.findall(r"bulkbind help ([a-z][\w-]*)", text):
        assert named in {*TOPICS, *COMMANDS}, named


def test_symptoms_are_quoted_as_they_are_said():
    """What stands in quotes in the topic of symptoms, and in others, is a text of the code."""
    source = "".join(path.read_text("utf-8") for path in (ROOT / "bulkbind").rglob("*.py"))
    said = re.sub(r"\"\s*\n\s*f?\"", "", source)  # texts over several lines
    quoted = re.findall(r"\*\*“(.*?)”", MANUAL, re.DOTALL)

    assert len(quoted) >= 6
    for text in quoted:
        for part in re.split(r"…|\d+", " ".join(text.split())):
            assert part.strip() in said, text


def test_help_fits_its_width():
    """No line of any help is wider than 100 characters."""
    texts = [help_of(), *(help_of(name) for name in COMMANDS)]

    lines = [line for text in texts for line in text.splitlines()]
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("name", COMMANDS)
def test_help_explains_every_option(name):
    """A command says what it does, and describes each of its options."""
    command = command_of(name)

    assert command.help
    assert help_of(name).startswith(f"Usage: bulkbind {name} ")
    for option in options_of(name):
        assert option.help, option.opts
        assert option.opts[0] in help_of(name)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_examples_and_groups(name):
    """A command shows how it is called; options of many kinds stand below headings."""
    text = help_of(name)
    command = command_of(name)
    headings = {heading_of(option) for option in options_of(name)}

    called = re.findall(rf"^ +(?:\w+: +|.*\| |\w+=\S+ )?bulkbind {name}\b", text, re.MULTILINE)
    assert "Examples" in text
    assert called
    assert all(f"\n{heading}:\n" in text for heading in headings)
    assert command.help


@pytest.mark.parametrize("width", [80, 100])
def test_the_help_of_run_is_short(width):
    """At most 100 lines, a clause for each option; `bulkbind help run` has all of each."""
    short = CliRunner().invoke(cli, ["run", "--help"], terminal_width=width - 2).output
    whole = CliRunner().invoke(cli, ["help", "run"]).output

    assert len(short.splitlines()) <= 100
    assert len(re.findall(r"^[A-Z][\w, ]+:$", short, re.MULTILINE)) >= 7
    assert "`bulkbind help run`" in short
    for option in options_of("run"):
        assert re.search(rf"^  .*{re.escape(option.opts[0])}\b", short, re.MULTILINE)
        assert str(option.envvar) in whole


def test_the_version_has_a_short_option():
    """`-V` is `--version`."""
    short, long = (CliRunner().invoke(cli, [flag]).output for flag in ("-V", "--version"))

    assert short == long
    assert re.fullmatch(r"bulkbind, version [\d.]+\n", short) or short.startswith("cli, version")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (("rnu",), "run"),
        (("undoo", "x"), "undo"),
        (("report", "--format", "cvs"), "csv"),
        (("schema", "sumary"), "summary"),
        (("completion", "bsh"), "bash"),
        (("help", "limit"), "limits"),
        (("validate", "x.csv", "--clean", "name"), "names"),
        (("validate", "x.csv", "--format", "jsonn"), "json"),
        (("validate", "x.csv", "--map", "machin_code=Serial"), "machine_code"),
        (("run", "x.csv", "--on-invalid", "skp"), "skip"),
        (("report", "--format", "csv", "--filter", "statu=failed"), "status"),
        (("report", "--format", "csv", "--filter", "status=faild"), "failed"),
        (("run", "x.csv", "--deadlin", "5m"), "--deadline"),
        (("run", "x.csv", "--config", "C", "--profile", "snip-it"), "snipe-it"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_a_slip_is_told_what_was_meant(tmp_path, typed, meant):
    """A wrong command, option, value or field ends with 2 and names the nearest right one."""
    config = str(ROOT / "configs/sandbox.yaml")
    done = in_process(*(config if word == "C" else word for word in typed), home=tmp_path)

    assert done.returncode == 2
    assert re.search(rf"[Dd]id you mean[^?]*[`']{re.escape(meant)}[`']", done.stderr), done.stderr


OTHER_MEANINGS = {
    ("prune", "--out"),
    ("demo", "--out"),
    ("report", "--format"),
    ("bundle", "--to"),
    ("export", "--to"),
    ("plan", "--as"),
    ("help", "--man"),
    ("history", "--user"),
    *(("adjust", f"--{name}") for name in ("rate", "concurrency", "max-failures", "deadline")),
    *(("adjust", f"--{name}") for name in ("pause", "go", "drain", "why")),
}
"""Options whose twin has their command: they mean something else in another one, or are so short
that much else would be taken for a slip."""


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "sandbox"])
def test_help_shows_the_twin_of_every_option(name):
    """Every option has an environment twin of its name, shown in the whole help."""
    shown = " ".join(CliRunner().invoke(cli, ["help", name]).output.split())

    for option in options_of(name):
        flag = max(option.opts, key=len)
        twin = "BULKBIND_" + flag.removeprefix("--").replace("-", "_").upper()
        if (name, flag) in OTHER_MEANINGS:
            twin = twin.replace("BULKBIND_", f"BULKBIND_{name.upper()}_")
        assert option.envvar == twin
        assert f"env var: {twin}" in shown, twin


SETTING_HELP = {
    "proxy": "HTTPS_PROXY and NO_PROXY",
    "rate": "as fast as the gateway allows",
    "deadline": "none",
    "max_failures": "none",
    "log_level": "warning on a terminal, else info",
    "log_format": "console on a terminal, else json",
    "ledger": "$XDG_STATE_HOME/bulkbind/<scheme>-<host>-<port>.db",
    "out": "bulkbind-report/<run id>",
}
"""How the help calls the default of a setting that is None."""


def test_help_tells_the_defaults_of_the_model():
    """A flag that gives a setting tells the default which the model has."""
    defaults = {value.key: value.value for value in load(None, {}).values()}
    flags = {option.name: option.help for option in options_of("config") if option.name in defaults}
    told = {name: re.search(r"\[default: (.*)\]", str(text)) for name, text in flags.items()}

    for name, found in told.items():
        default = defaults[name]
        none = SETTING_HELP.get(name, SETTINGS[name].none)
        if default is None and none:
            assert found, name
            assert found[1] == none, name
        elif default in (None, False, {}, []):
            assert found is None, name
        else:
            assert found, name
            assert found[1] == str(default), name
    assert len(told) >= 14


def test_the_manual_lists_every_event():
    """The events of the manual are those that the code logs above debug, and no others."""
    source = "".join(path.read_text() for path in (ROOT / "bulkbind").rglob("*.py"))
    logged = set(re.findall(r"(?:info|warning)\(\s*\"(\w+\.\w+)\"", source))

    assert first_cells(section("Logs").replace("`, `", ",")) - {"event", "---"} == {
        event for event in logged if not event.startswith("command.")
    }


def test_the_manual_names_no_option_that_is_not_there():
    """Every --option in README and topics belongs to a command of ours."""
    known = {flag for name in COMMANDS for option in options_of(name) for flag in option.opts}
    ours = re.sub(r"(pip|tool) install.*", "", MANUAL)

    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", ours))
    assert named <= known | {"--help", "--version", "--dist"}  # the last one is pytest's
    assert len(named) >= 10


def test_help_loads_little():
    """`bulkbind --help` imports neither aiohttp nor rich nor pydantic."""
    code = (
        "import sys\n"
        "from bulkbind.cli import cli\n"
        "cli(['--help'], prog_name='bulkbind', standalone_mode=False)\n"
        "print(*sorted({'aiohttp', 'rich', 'pydantic', 'click'} & set(sys.modules)))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )

    assert done.stdout.startswith("Usage: bulkbind")
    assert done.stdout.splitlines()[-1] == "click"


# --- words, codes, columns -----------------------------------------------------------------------


def rows_of(text: str) -> dict[str, str]:
    """Return the second cells of the tables in a text, by each word of the first."""
    rows = re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|$", text, re.MULTILINE)
    return {word.strip("` "): cell for words, cell in rows for word in words.split(",")}


def test_the_manual_explains_every_status():
    """The status table holds every status that a report can show, in order, and its meaning."""
    rows = rows_of(section("Statuses"))
    shown = [status for status in rows if status not in ("status", "---")]

    assert shown == list(MEANINGS)
    for status, meaning in MEANINGS.items():
        assert re.fullmatch(rf"{re.escape(meaning)}( \(.*\))?", rows[status])


def test_the_help_of_undo_names_every_status():
    """What `undo.csv` may hold stands in the help."""
    (listed,) = re.findall(r"one line per device: (.*)", help_of("undo"))

    assert re.split(", | or ", listed) == list(UNBIND_MEANINGS)


def test_the_help_of_plan_explains_every_sign():
    """Each sign that a plan prints, and no other."""
    (table,) = re.findall(r"^  \+.*?\n\n", help_of("plan"), re.DOTALL | re.MULTILINE)
    signs = re.findall(r"(?:^ |  ) ?(\S)  (?=\S)", table, re.MULTILINE)

    assert sorted(signs) == sorted({EXTRA[0], *(word.about.sign for word in PlanWord)} - {"x"})


def test_the_manual_explains_every_exit_code():
    """The table of exit codes holds each with its meaning; the one for people names their rows."""
    rows = rows_of(section("Exit codes"))
    codes = {code: words for code, words in rows.items() if code not in ("code", "---")}

    assert list(codes) == [str(code) for code in sorted(ExitCode)]
    for code in ExitCode:
        assert re.fullmatch(rf"{re.escape(code.meaning)}([:;] .*)?", codes[str(code)])
        assert f"{code.meaning}" in " ".join(help_of().split())
    assert meanings() in " ".join(README.split())
    for status in NEEDS_PERSON:
        assert status.replace("_", " ") in codes[str(ExitCode.NEEDS_PERSON)]


def test_the_manual_names_the_columns_of_results():
    """The columns of results.csv that the manual names are there, in this order."""
    found = re.search(r"`results\.csv`(.*?)\. Its\s+first line", section("Files"), re.DOTALL)

    assert found is not None
    named = re.findall(r"`(\w+)`", found[1])
    assert named == [name for name in RESULTS.names if name in named]


def test_the_manual_tells_the_rules_of_every_field():
    """The table of fields has the table's own words on each, but for what is in brackets."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+).*? \| (.*) \|$", TOPICS["manifests"], re.MULTILINE)

    told = {field: (must == "yes", bare(text)) for field, must, text in rows}
    assert told == {
        field.name: (field.is_required, f"{bare(field.words)}, 1 to {field.longest}")
        for field in ROW_FIELDS
    }


def bare(text):
    """Return a text without what is in brackets."""
    return re.sub(r" \(.*?\)", "", text)


# --- settings files ------------------------------------------------------------------------------


def test_every_settings_file_is_known():
    """Each file in configs/ is checked by the tests below."""
    assert {path.name for path in CONFIGS} == set(DIFFERENT)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_settings_file_holds_every_key(path):
    """A settings file names every setting but secrets, none twice, and none that is unknown."""
    held = yaml.safe_load(path.read_text(encoding="utf-8"))
    wanted = as_a_file_holds(Settings())

    assert set(held) == set(wanted)
    assert set(held["auth"]) == set(wanted["auth"])  # type: ignore[call-overload]  # a mapping


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_settings_file_gives_the_defaults(path):
    """What a settings file says equals the default, but for what is its own."""
    loaded = as_a_file_holds(load_settings(path, {}))
    default = as_a_file_holds(Settings())

    different = {key for key in default if loaded[key] != default[key]}
    assert different == DIFFERENT[path.name]


def settings_texts():
    """Return every setting that a file can hold with its text, as `schema config` has it."""
    auth = Settings.model_fields["auth"].json_schema_extra
    assert isinstance(auth, Setting)
    texts = {setting.name: described(setting) for setting in SETTINGS.values() if setting.text}
    return texts | {"auth": described(auth)}


def test_every_setting_has_a_text():
    """Every setting that a file can hold is described; secrets have no text, and no place."""
    keys = set(as_a_file_holds(Settings()))
    inner = set(AuthSettings.model_fields) - set(SECRETS)

    assert set(settings_texts()) == keys | inner
    assert set(config_schema()["properties"]) == keys
    assert set(config_schema()["$defs"]["AuthSettings"]["properties"]) == inner
    assert all(found["description"] for found in config_schema()["properties"].values())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_settings_file_says_what_the_schema_says(path):
    """Behind each key stands its text, but for what is the file's own."""
    lines = re.findall(
        r"^(?: {2})?(\w+):(?: .*?)??(?: +# (.*))?$", path.read_text("utf-8"), re.MULTILINE
    )
    texts = settings_texts()
    told = {name: comment for name, comment in lines if name in texts}

    assert set(told) == set(texts)
    schema = config_schema()
    held = schema["properties"] | schema["$defs"]["AuthSettings"]["properties"]
    for name in set(texts) - {"auth", "profiles"}:
        assert told[name] == texts[name], name
    for name, found in held.items():
        assert found["description"].startswith(texts[name]), name


@pytest.mark.parametrize("name", config_files())
def test_settings_files_follow_from_the_table(name):
    """Each file in configs/ is what `python -m tests.support.configs` makes of the table."""
    assert (ROOT / "configs" / name).read_text("utf-8") == config_files()[name]


@pytest.mark.parametrize("name", format_names())
def test_format_is_named_wherever_formats_are_listed(name):
    """The schema, and the help of what reads manifests, list the formats."""
    schema = config_schema()
    helps = [
        option.help or ""
        for command in ("validate", "plan", "run")
        for option in options_of(command)
        if option.name == "format"
    ]
    assert len(helps) == 3
    for text in (
        *helps,
        str(schema["properties"]["format"]),
        str(schema["$defs"]["Reading"]["properties"]["format"]),
    ):
        assert name in re.findall(r"\w+", text), text


def test_forms_of_the_report_are_listed():
    """The manual and the help of `report` name the forms that there are."""
    [option] = [option for option in options_of("report") if "--format" in option.opts]

    assert isinstance(option.type, click.Choice)
    assert list(option.type.choices) == list(FORMS)
    assert f"`bulkbind report --format {'|'.join(FORMS)}`" in MANUAL


# --- samples -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_sample_can_be_read(path):
    """Every sample opens; only the one made for it has rows that break rules."""
    rows = list(open_manifest(path, ManifestSettings()).rows())

    assert rows
    assert any(row.problems for row in rows) == (path.name == "fleet-with-problems.csv")


def test_sample_with_problems_breaks_every_rule():
    """Each rule is broken by a wrong character, by length, and, where it must be, by absence."""
    path = ROOT / "samples/fleet-with-problems.csv"
    problems = [p for row in open_manifest(path, ManifestSettings()).rows() for p in row.problems]

    broken = {
        (p.rule, kind)
        for p in problems
        for kind, words in (("missing", "missing"), ("character", "U+"), ("length", "characters"))
        if words in p.found
    }
    for rule in RULES:
        assert (rule.text, "character") in broken
        assert (rule.text, "length") in broken
        assert (rule.text, "missing") in broken or not rule.required
    assert any(p.field == "row" for p in problems)


def test_the_manual_names_the_samples_and_settings_files():
    """It names every file of samples/ and configs/, and none that is not there."""
    named = set(re.findall(r"(?:samples|configs)/[\w-]+\.\w+", MANUAL))

    files = [*SAMPLES, ROOT / "samples/walk.sh", *CONFIGS, PINS]
    assert named == {str(path.relative_to(ROOT)) for path in files}


# --- the library and the demo --------------------------------------------------------------------


def test_the_package_offers_what_it_says():
    """Every name of `__all__` is a function or a class, also once the stages are loaded."""
    for name in bulkbind.__all__:
        assert callable(getattr(bulkbind, name)), name
        assert getattr(bulkbind, name).__name__ == name
    with pytest.raises(AttributeError, match="unheard"):
        _ = bulkbind.unheard


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "works"), [("8.3.0", False), ("8.3.3", False), ("8.4.0", True), ("8.5.1", True)]
)
def test_no_click_is_installed_with_which_nothing_starts(version, works):
    """Up to 8.3.3 every command ended in a TypeError: `ParamType` was no generic class."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {item.name: item for item in map(Requirement, project["dependencies"])}

    assert (version in needed["click"].specifier) == works


def test_the_example_of_the_library_works(tmp_path):
    """The Python block of its topic runs as pasted, and prints what it prints, nothing of ours."""
    [code] = blocks("python")
    compile(code, "library.md", "exec")
    (tmp_path / "configs").mkdir()
    (tmp_path / "samples").symlink_to(ROOT / "samples")

    with sandbox(home=tmp_path) as url:
        text = (ROOT / "configs/sandbox.yaml").read_text(encoding="utf-8")
        own = text.replace("http://127.0.0.1:8765", url)
        (tmp_path / "configs/sandbox.yaml").write_text(own, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            env=environment(tmp_path),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert url in own
    assert done.stderr == ""
    assert re.fullmatch(r"0 \{[^\n]*bound[^\n]*: 7\}\n", done.stdout)


@pytest.mark.slow
def test_the_demo_is_understood_at_once(tmp_path):
    """`bulkbind demo` needs nothing, ends with 0, and fits a screen of 24 lines.

    It has Monday's and Tuesday's outcome, what needs a person, and where to look. No word of what
    it says is taken for the secret of its own sandbox.
    """
    out = Path("demo")

    done = run_bulkbind("demo", "--out", out, home=tmp_path, check=0, BULKBIND_TOKEN="")

    out = tmp_path / out
    shown = fitted(done.stderr.rstrip("\n"), 80).splitlines()
    assert len(shown) <= 23  # and one with the command
    assert max(map(len, shown)) <= 80
    assert shown[1] == "Monday, 12 rows: 12 of 12 devices are bound: 12 now."
    assert "117 of 130 devices are bound: " in done.stderr
    assert "12 need you. 1 is a duplicate." in done.stderr
    assert "4 failed:" in shown
    assert "8 invalid:" in shown
    assert "report: demo/report.html" in shown
    assert {path.name for path in out.iterdir()} == {
        "monday.csv",
        "tuesday.csv",
        "results.csv",
        "failed.csv",
        "problems.csv",
        "summary.json",
        "report.html",
    }
    assert list(tmp_path.iterdir()) == [out]
    assert "***" not in done.stderr
