"""Options follow from the table of settings, and each sets what it says, in every command."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import click
import pytest

import bulkbind
from bulkbind.cli import COMMANDS, cli
from bulkbind.cli.options import loaded_from
from bulkbind.cli.variables import every_variable
from bulkbind.errors import UsageError
from bulkbind.manifest import open_manifest
from bulkbind.manifest.formats import FORMATS
from bulkbind.model.fields import enumeration
from bulkbind.settings import SECRETS, SETTINGS, Group, ManifestSettings, Settings, load
from bulkbind.settings.model import PARTS, Part

WORDS = {
    "URL": "https://host.example:8443",
    "TIME": "77s",
    "N": "7",
    "ADDRESS": "tls://10.0.0.5:8786",
    "N|N%": "7%",
    "N%": "7%",
    "N/s": "7/s",
    "FILE": "some.file",
    "DIR": "some",
    "ID": "u42",
    "NAME": "night",
    "NAME|N": "Sheet2",
    "NAME,…": "one,two",
    "LEVEL": "debug",
    "FIELD=COLUMN": "machine_code=Serial",
    "FIELD=VALUE": "machine_code=Serial",
    "FORMAT": "json",
}
"""A value by what the help calls it."""
OWN_WORDS = {"proxy": "http://proxy.example:3128"}
HELD = {
    "share": 0.07,
    "reserve": 7.0,
    "rate": 7.0,
    "header": ["one", "two"],
    "columns": {"machine_code": "Serial"},
    "constants": {"machine_code": "Serial"},
}
"""What a file would hold for a value, where it is no text, number or switch."""


def options_of(name):
    """Return a command, and its options by their parameter."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return command, {p.name: p for p in command.params if isinstance(p, click.Option)}


def word_of(setting):
    """Return a value that a setting may have, and that is not its default; None for a switch."""
    if bool in setting.kinds:
        return None
    words = [kind for kind in setting.kinds if kind in setting.metavar.split("|")]
    choices = [word for word in words if word != setting.default]
    return OWN_WORDS.get(setting.key) or WORDS.get(setting.metavar) or choices[0]


def agrees(value, word):
    """Return whether a setting has the value that a word means; None: of a switch."""
    if value.key in HELD:
        return value.value == HELD[value.key]
    if word is None:
        return value.value is True
    return str(value.value) in (word, f"{word}.0") or value.value == word.split(",")


OTHERS = [
    *(("report", "--format"), ("prune", "--out"), ("demo", "--out")),
    # What a run is to change is not what the next one begins with.
    *(("adjust", flag) for flag in ("--rate", "--concurrency", "--max-failures", "--deadline")),
]
"""Options that are no settings, though they are called so."""
USES = [
    (name, key)
    for name in COMMANDS
    for key, setting in SETTINGS.items()
    if setting.flag in [option.opts[0] for option in options_of(name)[1].values()]
    and (name, setting.flag) not in OTHERS
]
"""Commands with the settings that they have an option for."""


def loaded_by(name, key, arguments, tmp_path):
    """Return a setting as a command with some arguments has it."""
    config = tmp_path / "settings.yaml"
    config.write_text("profiles: {night: {skip_rows: 2}}\n")
    command, _ = options_of(name)
    needed = ["x" for p in command.params if isinstance(p, click.Argument) and p.required]
    given = [*arguments, "--config", str(config), *needed]
    with command.make_context(name, given) as context:
        return next(v for v in loaded_from(context.params).values() if v.key == key)


@pytest.mark.parametrize(("name", "key"), USES)
def test_an_option_sets_its_setting(name, key, tmp_path):
    """What the flag says is in force, and its origin is told."""
    setting = SETTINGS[key]
    word = word_of(setting)

    value = loaded_by(name, key, [setting.flag, *([word] if word else [])], tmp_path)

    assert value.origin == setting.flag
    assert value.value != setting.default
    assert agrees(value, word)


@pytest.mark.parametrize(("name", "key"), USES)
def test_a_variable_sets_its_setting(name, key, tmp_path, monkeypatch):
    """What the environment says is in force, and its origin is told."""
    setting = SETTINGS[key]
    word = word_of(setting)
    monkeypatch.setenv(setting.variable, word or "1")

    value = loaded_by(name, key, [], tmp_path)

    assert value.origin == setting.variable
    assert value.value != setting.default
    assert agrees(value, word)


TEXTS = [
    setting
    for setting in SETTINGS.values()
    if setting.flag and str in setting.kinds and not {tuple, dict} & {*setting.kinds}
]


@pytest.mark.parametrize("setting", TEXTS, ids=lambda setting: setting.flag)
def test_an_empty_option_is_no_way_to_leave_it_away(setting, tmp_path, monkeypatch):
    """A shell's variable that is not set would change what is meant; of ours, it sets nothing."""
    name = next(name for name, key in USES if key == setting.key)

    with pytest.raises(UsageError, match=f"{setting.flag} is empty"):
        loaded_by(name, setting.key, [setting.flag, ""], tmp_path)
    monkeypatch.setenv(setting.variable, "")
    assert loaded_by(name, setting.key, [], tmp_path).value == setting.default


def test_every_secret_is_set_by_its_variable(tmp_path, monkeypatch):
    """What no flag may give comes from the environment: the secrets, and whom the app is."""
    keys = [key for key, setting in SETTINGS.items() if setting.variable and not setting.flag]
    for key in keys:
        monkeypatch.setenv(SETTINGS[key].variable, "some")
        value = loaded_by("status", key, [], tmp_path)

        assert value.origin == SETTINGS[key].variable == f"BULKBIND_{key[5:].upper()}"
        assert value.value == ("***" if value.is_secret else "some")
    assert len(keys) == 5


def test_every_group_is_an_option_of_a_command():
    """A setting with a flag is an option of `config`, and of a command that uses it."""
    users = defaultdict(set)
    for name in COMMANDS:
        _, options = options_of(name)
        for setting in SETTINGS.values():
            if setting.group and setting.name in options:
                users[setting.key].add(name)
    with_flag = {key for key, setting in SETTINGS.items() if setting.group}

    assert set(users) == with_flag
    assert {SETTINGS[key].group for key in with_flag} == set(Group)
    for key, names in users.items():
        assert "config" in names, key
        assert len(names) >= 2, key
    runs = {key for key in with_flag if "run" in users[key]}
    assert runs == with_flag


def parts():
    """Return the parts of the settings with the names of their own keys."""
    held = [getattr(Settings(), part) for part in (*PARTS, "auth")]
    return [*map(type, held), Settings]


@pytest.mark.parametrize("part", parts(), ids=lambda part: part.__name__)
def test_every_setting_is_in_the_table(part):
    """Whatever the model holds is declared with a text, and a secret with its variable."""
    for name, field in part.model_fields.items():
        if issubclass(part, Settings) and name in (*PARTS, "auth"):
            continue
        setting = SETTINGS[f"auth.{name}" if part.__name__ == "AuthSettings" else name]
        assert isinstance(field.json_schema_extra, type(setting)), name
        assert setting.text or setting.variable, name
        assert setting.text == setting.text.strip(" .")
        assert setting.group is None or setting.flag.startswith("--"), name
        assert setting.group is None or bool in setting.kinds or setting.metavar, name
    assert issubclass(part, Part)


def test_every_setting_is_used():
    """A setting that nothing reads would be a silent no-op: each is read outside of settings/."""
    package = Path(bulkbind.__file__).parent
    texts = [
        path.read_text(encoding="utf-8")
        for path in package.rglob("*.py")
        if path.parent.name not in ("settings", "commands") and path.name != "options.py"
    ]
    read = set(re.findall(r"(?<=[.\"])\w+\b", "".join(texts)))
    of_secrets = {f"{secret}_file" for secret in SECRETS}  # found by the secret's name

    assert {setting.name for setting in SETTINGS.values()} - of_secrets - read == set()


SAME = {
    "BULKBIND_JSON": "what each command prints, as JSON",
    "BULKBIND_LOG_FILE": "bundle takes the end of the file that the others write",
}
"""Variables of options that say one thing in several words."""


def test_one_variable_means_one_thing():
    """No variable is two options: whoever shares one has the same option, or is named above."""
    meanings = defaultdict(set)
    for name in COMMANDS:
        _, options = options_of(name)
        for option in options.values():
            meanings[option.envvar].add((option.name.strip("_"), *option.opts, option.help))
    twice = {variable for variable, found in meanings.items() if len(found) > 1}

    assert twice == set(SAME)
    assert all(len({found[:2] for found in meanings[variable]}) == 1 for variable in SAME)
    secrets = {setting.variable for setting in SETTINGS.values() if setting.variable}
    assert set(meanings) | secrets == every_variable()


# --- the names of formats ------------------------------------------------------------------------

ALLOWED = f"Input should be {enumeration(*map(repr, FORMATS))}"


@pytest.mark.parametrize(
    ("text", "given", "message"),
    [
        ("", {"format": "cvs"}, "setting `format`: 'cvs' (from --format): "),
        ("format: cvs", {}, "setting `format`: 'cvs' (from {path}, line 1): "),
        (
            "profiles:\n  a:\n    format: cvs",
            {},
            "setting `profiles.a.format`: 'cvs' (from {path}, line 3): ",
        ),
    ],
    ids=["flag", "file", "profile"],
)
def test_an_unknown_format_is_refused_with_its_origin(tmp_path, text, given, message):
    """The formats that may be named are those of the manifest package."""
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    origins = dict.fromkeys(given, "--format")
    with pytest.raises(UsageError) as caught:
        load(path, given, origins, formats=FORMATS)

    assert str(caught.value) == message.format(path=path) + ALLOWED


def test_a_command_refuses_an_unknown_format(tmp_path):
    """Every command has the formats at hand when it reads its settings."""
    with pytest.raises(UsageError) as caught:
        loaded_by("config", "format", ["--format", "cvs"], tmp_path)

    assert str(caught.value) == f"setting `format`: 'cvs' (from --format): {ALLOWED}"


def test_an_unknown_format_is_refused_when_a_manifest_is_opened(tmp_path):
    """A program that makes its own settings is told as much."""
    path = tmp_path / "fleet.csv"
    path.write_text("machine_code,user_id\nA1,u1\n")
    with pytest.raises(UsageError) as caught:
        open_manifest(path, ManifestSettings(format="cvs"))

    assert str(caught.value) == f"setting `format`: 'cvs': {ALLOWED}"


# --- pairs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "pair", "error", "hint"),
    [
        ("--map", "Serial=machine_code", "other way round", "--map machine_code=Serial"),
        ("--map", "Serial No=machineCode", "other way round", "--map machine_code='Serial No'"),
        ("--map", "Owner = user_id ", "other way round", "--map user_id=Owner"),
        ("--set", "u42=user_id", "other way round", "--set user_id=u42"),
        ("--map", "machineCode=Serial", "as it is here", "--map machine_code=Serial"),
        ("--map", "X-User-Id=Owner's", "as it is here", "--map user_id='Owner'\"'\"'s'"),
        ("--map", "Serial=Number", "write FIELD=COLUMN", "fields are"),
        ("--map", "machine_code=", "write FIELD=COLUMN", "fields are"),
        ("--map", "=machine_code", "write FIELD=COLUMN", "fields are"),
        ("--map", "machine_code", "write FIELD=COLUMN", "fields are"),
    ],
)
def test_a_pair_the_other_way_round_is_told_so(tmp_path, flag, pair, error, hint):
    """The corrected option is in the hint, quoted for a shell."""
    with pytest.raises(UsageError, match=error) as caught:
        loaded_by("validate", "columns", [flag, pair], tmp_path)

    assert caught.value.hint.removeprefix("write ").startswith(hint)


def test_columns_may_have_the_names_of_other_fields(tmp_path):
    """A pair of two fields is no slip."""
    value = loaded_by("validate", "columns", ["--map", "user_id=machine_code"], tmp_path)

    assert value.value == {"user_id": "machine_code"}
