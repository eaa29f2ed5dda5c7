"""The schemas of what comes out, against real outputs of every command and against the code."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

import jsonschema
import pytest

from bulkbind.app.output_schema import EVENTS, OUTPUTS
from bulkbind.cli.commands.schema import _SCHEMAS
from tests.support.in_process import called
from tests.support.manifests import fleet, write_csv
from tests.support.manual import TOPICS
from tests.support.paths import ROOT
from tests.support.processes import process, sandbox


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Return what each command of a real fleet prints with `--json`, by the name of its schema."""
    home = tmp_path_factory.mktemp("outputs")
    limits = ("--limit", "80/s", "--seed", "3", "--fault", "reset-after=0.1")
    faults = ("--fault", "business=0.1", "--fault", "500=0.1")
    with sandbox(*limits, *faults, home=home) as url:
        return dict(_outputs(home, url))


def _outputs(home, url):
    rows = fleet(30)
    manifest = write_csv(home / "fleet.csv", [*rows, rows[0], ("SN-1", "u", "Vän", "")])
    (home / "inbox").mkdir()
    write_csv(home / "inbox/more.csv", [("MORE1", "user_1", "", "")])
    settings = home / "bulkbind.yaml"
    settings.write_text(f"endpoint: {url}\nledger: {home / 'l.db'}\nreadback_settle: 200ms\n")
    common = ("--config", settings, "--json")

    def printed(name, *command, code=0):
        done = called(*command, *common, home=home)
        assert done.returncode == code, done.stderr
        return name, json.loads(done.stdout), done.stderr

    yield printed("plan", "plan", manifest, "--refresh", "--extra", code=1)[:2]
    yield printed("validate", "validate", manifest, "--clean", "names", code=1)[:2]
    sent = ("run", manifest, "--on-invalid", "skip", "--log-format", "json", "--log-devices")
    _, summary, log = printed("summary", *sent, code=1)
    yield "summary", summary
    yield "history", printed("history", "history", "--user", "user_1")[1]
    with process("run", manifest, "--rebind", "--rate", "5", "--yes", "--on-invalid", "skip",
                 *common[:2], home=home) as sending:  # fmt: skip
        assert sending.stderr is not None
        assert any("run.started" in line for line in sending.stderr)
        change = ("--rate", "none", "--max-failures", "none", "--deadline", "5m")
        yield "adjust", printed("adjust", "adjust", *change, "--why", "for a test")[1]
        sending.communicate(timeout=60)
    adopted = called("adopt", "--user-id", "user_1", *common, home=home)
    yield "adopt", json.loads(adopted.stdout)
    verified = called("verify", summary["run_id"], *common, home=home)
    yield "verify", json.loads(verified.stdout)
    many = str(summary["counts"]["bound"])
    undone = called("undo", summary["run_id"], "--yes-unbind", many, *common, home=home)
    yield "undo", json.loads(undone.stdout)
    yield "runs", printed("runs", "runs")[1]
    yield "status", printed("status", "status", summary["run_id"])[1]
    yield "doctor", printed("doctor", "doctor")[1]
    yield "settings", printed("settings", "config")[1]
    inbox = ("run", "inbox", "--archive", "done", "--min-age", "0s")
    yield "inbox", json.loads(called(*inbox, *common, home=home).stdout)
    _, failed, said = printed("error", "run", "none.csv", "--log-format", "json", code=2)
    yield "error", failed
    yield "events", [json.loads(line) for line in (log + said).splitlines()]


def problems_of(name: str, value: object) -> list[str]:
    """Return how a value breaks a schema."""
    schema = OUTPUTS[name]()
    checker = jsonschema.Draft202012Validator(schema)
    return [f"{fault.json_path}: {fault.message}" for fault in checker.iter_errors(value)]


@pytest.mark.slow
@pytest.mark.parametrize("name", OUTPUTS)
def test_real_outputs_keep_to_their_schemas(outputs, name):
    """What each command prints is valid; so is each line of its log."""
    values = outputs[name] if name == "events" else [outputs[name]]

    assert values
    for value in values:
        assert problems_of(name, value) == []


@pytest.mark.slow
def test_the_last_log_line_of_a_failed_command_has_its_exit_code(outputs):
    """With `--log-format json` a fatal error is a line of JSON on standard error as well."""
    last = outputs["events"][-1]

    assert last["event"] == "command.failed"
    assert (last["error"], last["exit_code"]) == (outputs["error"]["error"], 2)


def undescribed(schema: dict[str, Any], value: object, path: str) -> list[str]:
    """Return the fields of a value that its schema does not name."""
    if isinstance(value, list):
        return [s for item in value for s in undescribed(schema.get("items", {}), item, path)]
    if not isinstance(value, dict) or "properties" not in schema:
        inner = schema.get("additionalProperties", {})
        items = value.values() if isinstance(value, dict) and inner else ()
        return [text for item in items for text in undescribed(inner, item, f"{path}.*")]
    known = schema["properties"]
    return [f"{path}.{key}" for key in value if key not in known] + [
        text
        for key, item in value.items()
        if key in known
        for text in undescribed(known[key], item, f"{path}.{key}")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in OUTPUTS if name != "events"])
def test_every_field_is_described(outputs, name):
    """A real output has no field that its schema does not name."""
    assert undescribed(OUTPUTS[name](), outputs[name], name) == []


def test_a_schema_refuses_what_it_does_not_mean():
    """Each is a schema by the standard, and is not content with anything."""
    for name, schema in _SCHEMAS.items():
        jsonschema.Draft202012Validator.check_schema(schema())
        if name in OUTPUTS:
            assert problems_of(name, {"run_id": 1, "counts": []}), name


def logged() -> dict[str, set[str]]:
    """Return the fields that the code gives to each event above debug."""
    found: dict[str, set[str]] = {}
    texts = [path.read_text("utf-8") for path in (ROOT / "bulkbind").rglob("*.py")]
    for text in filter(re.compile(r"\.(info|warning|error)\(").search, texts):
        for call in ast.walk(ast.parse(text)):
            if (
                isinstance(call, ast.Call)
                and isinstance(call.func, ast.Attribute)
                and call.func.attr in ("info", "warning", "error")
                and call.args
                and isinstance(call.args[0], ast.Constant)
                and re.fullmatch(r"\w+\.\w+", str(call.args[0].value))
            ):
                names = {keyword.arg for keyword in call.keywords if keyword.arg}
                found.setdefault(str(call.args[0].value), set()).update(names)
    return found


def test_every_event_is_described():
    """The schema of log lines names each event above debug with the fields that the code gives."""
    assert {name: set(fields) for name, fields in EVENTS.items()} == logged()


def test_the_topic_of_scripting_names_every_schema():
    """Each schema stands in it, and each command that prints JSON."""
    for name in OUTPUTS:
        assert f"`{name}`" in TOPICS["scripting"], name


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("run", "none.csv", "--json"), "does not exist"),
        (("run", "--json", "--frist", "3"), "No such option"),
        (("status", "--json"), "no endpoint"),
        (("undo", "x", "--json", "--endpoint", "http://127.0.0.1:9"), "no ledger"),
        (("validate", "none.csv", "--json"), "does not exist"),
        (("report", "--json", "--filter", "status=failed"), "--filter"),
    ],
    ids=["manifest", "option", "endpoint", "ledger", "validate", "filter"],
)
def test_a_fatal_error_is_a_line_of_json(tmp_path, command, said):
    """With `--json` the last line of standard output says what went wrong, and the exit code."""
    done = called(*command, home=tmp_path)

    told = json.loads(done.stdout.splitlines()[-1])
    assert problems_of("error", told) == []
    assert said in told["error"]
    assert told["exit_code"] == done.returncode != 0
    assert called(*(word for word in command if word != "--json"), home=tmp_path).stdout == ""
