"""The table of fields, and what must follow from it: every field goes all the way."""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
from contextlib import closing
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner
from pydantic import SecretStr

import bulkbind
from bulkbind.app.bundle import bundle
from bulkbind.cli import cli
from bulkbind.clock import SystemClock
from bulkbind.ledger import opening
from bulkbind.manifest.rules import RULES
from bulkbind.model import PlanWord
from bulkbind.model.fields import (
    CLEANED,
    CODE,
    DETAILS,
    FIELDS,
    LABELS,
    OPTIONAL,
    OPTIONAL_FIELDS,
    ROW_FIELDS,
    USER,
    Field,
    enumeration,
)
from bulkbind.sandbox import Sandbox
from bulkbind.sandbox.device_api import Bindings, Refusal, check_body, check_headers
from bulkbind.settings import ApiSettings, AuthSettings, ManifestSettings, ReadbackSettings
from tests.support.manifests import write_csv
from tests.support.paths import ROOT, unpack

NOW = datetime(2026, 11, 23, 13, 0, tzinfo=UTC)
BODY_FIELDS = [field for field in ROW_FIELDS if not field.header]
RULE = {rule.field: rule for rule in RULES}
each_field = pytest.mark.parametrize("field", ROW_FIELDS, ids=FIELDS)
each_optional = pytest.mark.parametrize("field", OPTIONAL_FIELDS, ids=OPTIONAL)


def test_user_and_code_are_the_required_fields_and_come_first():
    """Rows, claims and records hold the two by name, and the optional ones in their order."""
    assert [field.name for field in ROW_FIELDS if field.is_required] == ["user_id", "machine_code"]
    assert ("user_id", "machine_code", *OPTIONAL) == FIELDS
    assert [field for field in ROW_FIELDS if field.header] == [USER]


# --- the sandbox, whose checks are written from the API's reference ------------------------------


def takes(field, value):
    """Return whether the sandbox takes a value of a field."""
    if field.header:
        headers = {"X-User-Id": "u", "X-Date": "20261123T130000Z", field.header: value}
        return check_headers(headers, NOW) is None
    body = {"machineCode": "SN1", field.api: value}
    return not isinstance(check_body("application/json", json.dumps(body).encode()), Refusal)


@each_field
def test_the_sandbox_has_the_rules_of_the_table(field):
    """Under the same name, the same characters of ASCII, the same lengths; required alike."""
    matches = RULE[field.name].pattern.fullmatch
    for character in map(chr, range(128)):
        assert takes(field, character) == bool(matches(character)), repr(character)
    good = next(c for c in map(chr, range(ord("!"), 127)) if matches(c))
    assert [takes(field, good * n) for n in (0, 1, field.longest, field.longest + 1)] == [
        *(False, True, True, False)
    ]


@each_field
def test_the_sandbox_requires_what_the_table_requires(field):
    """Without an optional field a bind is taken, without another it is not."""
    body = {each.api: "A" for each in BODY_FIELDS if each is not field}
    headers = {"X-Date": "20261123T130000Z"} | ({} if field is USER else {USER.header: "u"})
    found = check_body("application/json", json.dumps(body).encode())

    is_taken = not isinstance(found, Refusal) and check_headers(headers, NOW) is None
    assert is_taken != field.is_required


def test_the_sandbox_knows_no_other_field():
    """Its records hold the fields of the table, in their order, whether or not they were sent."""
    record = Bindings(SystemClock()).bind("u", {CODE.api: "A"})

    assert [*record] == ["deviceId", *(field.api for field in BODY_FIELDS), "createTime"]


# --- the ledger ----------------------------------------------------------------------------------


def test_the_ledger_has_a_column_for_every_field(tmp_path):
    """A field without a migration, or a column that the table lacks, is found here."""
    path = tmp_path / "ledger.db"
    opening.connect(path, None).close()
    with closing(sqlite3.connect(path)) as db:
        rows, bindings = (
            {name for _, name, *_ in db.execute(f"PRAGMA table_info({table})")}
            for table in ("rows", "bindings")
        )

        stored = [
            {name for _, name, *_ in db.execute(f"PRAGMA table_info({table})")}
            for table in ("devices", "names", "broken")
        ]

    assert all(columns >= set(OPTIONAL) for columns in stored)
    assert bindings - {"device_id", "create_time", "since", "run", "held"} == set(FIELDS)
    assert rows - {
        *("id", "run", "source", "line", "problems", "duplicate_of", "cells", "changes", "status"),
        *("sent_at", "attempts", "doubts", "repeats", "device_id", "create_time", "http_status"),
        *("code", "message", "trace_id", "settled_at", "detail"),
        *("verdict", "silent_at", "misses", "missed_at"),
    } == set(FIELDS)


# --- a run ---------------------------------------------------------------------------------------


def value_of(field, number):
    """Return a valid value of a field, another one for each number."""
    value = f"{field.api}{number}"
    assert RULE[field.name].pattern.fullmatch(value)
    return value


def row_of(number, user=1):
    """Return a row with a value of every field."""
    return [value_of(USER, user), *(value_of(field, number) for field in ROW_FIELDS[1:])]


class Place:
    """A sandbox, and settings to use it."""

    def __init__(self, folder, sandbox):
        self.folder = folder
        self.sandbox = sandbox
        self.settings = bulkbind.Settings(
            api=ApiSettings(endpoint=sandbox.url),
            auth=AuthSettings(token=SecretStr("any")),
            doubt=ReadbackSettings(readback_settle=0.2),
            manifest=ManifestSettings(on_invalid="skip"),
            ledger=folder / "ledger.db",
            out=folder / "report",
        )

    def write(self, *rows):
        """Write a manifest."""
        return write_csv(self.folder / "fleet.csv", rows, FIELDS)

    async def run(self, *rows):
        """Run a manifest of these rows; return the rows of results.csv."""
        await bulkbind.run([self.write(*rows)], self.settings)
        return self.read("results.csv")

    def read(self, name):
        """Return the rows of a file of the report."""
        with (self.folder / "report" / name).open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    @property
    def records(self):
        """What the server has for the first user."""
        return self.sandbox.bindings.of(value_of(USER, 1))


@pytest.fixture
async def place(tmp_path):
    """Serve a sandbox."""
    async with Sandbox() as sandbox:
        yield Place(tmp_path, sandbox)


async def test_every_field_is_sent_and_reported(place):
    """Every value reaches the server, results.csv and, from the server's list, an export."""
    results = await place.run(row_of(1), row_of(2))

    [user] = {row["user_id"] for row in results}
    assert [[row[name] for name in FIELDS] for row in results] == [row_of(1), row_of(2)]
    assert [[user, *(record[f.api] for f in BODY_FIELDS)] for record in place.records] == [
        *(row_of(1), row_of(2))
    ]
    file = io.StringIO()
    await bulkbind.export([user], place.settings, file)
    exported = csv.DictReader(io.StringIO(file.getvalue(), newline=""))
    assert [[row[name] for name in FIELDS] for row in exported] == [row_of(1), row_of(2)]


@each_field
async def test_every_field_is_checked_and_comes_back(place, field):
    """A value that breaks its rule stands in failed.csv, problems.csv and results.csv."""
    broken = row_of(1)
    broken[FIELDS.index(field.name)] = "\u00e9"

    [row] = await place.run(broken)

    assert row["status"] == "invalid"
    assert [row[name] for name in FIELDS] == broken
    assert [back[field.name] for back in place.read("failed.csv")] == ["\u00e9"]
    assert [(p["field"], p["rule"]) for p in place.read("problems.csv")] == [
        (field.name, RULE[field.name].text)
    ]


@each_optional
async def test_a_changed_value_is_noticed(place, field):
    """By `run` and `plan` in the manifest, by `verify` and `plan --refresh` on the server."""
    await place.run(row_of(1), row_of(2))
    changed = row_of(1)
    changed[FIELDS.index(field.name)] = value_of(field, 9)

    [first, second] = await place.run(changed, row_of(2))
    planned = await bulkbind.plan([place.write(changed, row_of(2))], place.settings)
    place.records[1][field.api] = None
    refreshed = await bulkbind.plan(
        [place.write(row_of(1), row_of(2))], place.settings, refresh=True
    )
    summary = json.loads((place.folder / "report/summary.json").read_text(encoding="utf-8"))
    verified = await bulkbind.verify(place.settings, summary["run_id"])

    assert (first["status"], second["status"]) == ("skipped", "skipped")
    assert f"; under another {DETAILS}: --rebind sends these" in first["detail"]
    assert "under another" not in second["detail"]
    assert summary["changes"]["renamed"] == 1
    assert planned.counts["changed"] == 1
    assert planned.counts["already_bound"] == 1
    assert refreshed.counts["changed"] == 1
    assert verified.counts == {"same": 1, "missing": 0, "changed": 1, "extra": 0}
    [difference] = verified.differences
    assert difference.detail == f"{field.label} is None, by the ledger {value_of(field, 2)!r}"


async def test_a_value_that_is_sent_again_is_known(place):
    """After `--rebind` and another answer, the ledger has what was sent last."""
    await place.run(row_of(1))
    place.settings = place.settings.model_copy(
        update={"manifest": ManifestSettings(on_invalid="skip", rebind=True)}
    )
    other = [*row_of(1)[:2], *row_of(2)[2:]]

    await place.run(other)

    planned = await bulkbind.plan([place.write(other)], Place(place.folder, place.sandbox).settings)
    assert planned.counts["changed"] == 0
    assert planned.counts["already_bound"] == 1


async def test_a_bundle_masks_every_field_that_may_identify(place):
    """A value stands in no file of a bundle, unless the table says that it is harmless."""
    await place.run(row_of(1))
    await place.run(row_of(1, user=2))  # the device is bound to another user: moved
    packed = bundle(place.settings, to=place.folder / "b.tar.gz")
    unpack(packed, place.folder / "b")
    texts = {path.name: path.read_text("utf-8") for path in (place.folder / "b").glob("*/*")}

    for field in ROW_FIELDS:
        value = value_of(field, 2 if field is USER else 1)
        is_shown = any(value in text for text in texts.values())
        assert is_shown == (field.is_bundled and not field.mask), field
    [row] = csv.DictReader(io.StringIO(texts["rows.csv"], newline=""))
    assert [name for name in FIELDS if name in row] == [f.name for f in ROW_FIELDS if f.is_bundled]
    for field in ROW_FIELDS:
        if field.is_bundled and field.mask:
            assert re.fullmatch(rf"{field.mask}#\d+", row[field.name])
    another = Field("a", "a", "a", "[a-z]", "letters", 9)
    assert another.is_bundled
    assert another.mask, "a field of which nothing else is said is masked"


# --- texts ---------------------------------------------------------------------------------------

NAMING = {"model/fields.py", "sandbox/device_api.py"}
SAMPLES_OF_USE = {"app/demo.py", "manifest/synonyms.py"}
"""A manifest, and what other programs call some fields."""


def test_no_other_module_names_an_optional_field():
    """Who needs a field takes it from the table; the sandbox alone has a table of its own."""
    api = [field.api for field in OPTIONAL_FIELDS]
    words = re.compile("|".join([*OPTIONAL, *api, f"another {DETAILS}"]))
    package = ROOT / "bulkbind"
    named = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if words.search(path.read_text(encoding="utf-8"))
    }

    assert named == NAMING | SAMPLES_OF_USE


def test_texts_name_the_optional_fields():
    """Where a difference is put into words, the words are the table's."""
    commands = {name: _help(name) for name in ("plan", "verify", "export", "run")}

    assert enumeration(*LABELS) == DETAILS
    assert f"another {DETAILS}" in PlanWord.CHANGED.about.meaning
    assert f"another {DETAILS}" in commands["plan"]
    assert f"another {enumeration('device id', *LABELS)}" in commands["verify"]
    assert enumeration("machine_code", "user_id", *OPTIONAL, last="and") in commands["export"]
    assert f"make {enumeration(*CLEANED, last='and')} fit their rules" in commands["run"]


def _help(command):
    """Return the help of a command on one line."""
    result = CliRunner().invoke(cli, [command, "--help"])
    assert result.exit_code == 0
    return " ".join(result.output.split())


def test_a_sample_has_every_field():
    """It shows all that a manifest may have."""
    header = (ROOT / "samples" / "fleet.csv").read_text(encoding="utf-8").splitlines()[0]

    assert set(FIELDS) <= set(header.split(","))
