"""`plan`: what a run would do, from a ledger that it neither holds nor changes."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from pydantic import SecretStr

import bulkbind
from bulkbind.app.plan import load_plan, save_plan
from bulkbind.clock import SystemClock
from bulkbind.errors import PlanMovedError, UnreadableListError, UsageError
from bulkbind.ledger import Ledger
from bulkbind.model.wording import span_text
from bulkbind.report.plan_text import plan_json, plan_text
from bulkbind.sandbox import Sandbox, SandboxOptions, parse_fault
from bulkbind.settings import (
    ApiSettings,
    AuthSettings,
    ManifestSettings,
    ReadbackSettings,
    SendSettings,
    Settings,
)
from tests.support.manifests import fleet, write_csv

ROWS = fleet(20, users=4)


def settings_for(tmp_path, url, *, has_token=True, **manifest):
    """Return settings against a sandbox."""
    return Settings(
        api=ApiSettings(endpoint=url),
        auth=AuthSettings(token=SecretStr("any") if has_token else None),
        doubt=ReadbackSettings(readback_settle=0.2),
        manifest=ManifestSettings(on_invalid="skip", **manifest),
        ledger=tmp_path / "ledger.db",
        out=tmp_path / "report",
    )


@pytest.fixture
async def sandbox():
    """Serve a sandbox."""
    async with Sandbox() as served:
        yield served


async def test_a_plan_without_a_ledger_makes_none(tmp_path):
    """No token, no server, no ledger: everything valid is to bind, and no file is made."""
    rows = [*ROWS, ("SN-1", "u", "", ""), ROWS[0]]
    manifest = write_csv(tmp_path / "fleet.csv", rows)
    settings = settings_for(tmp_path, "http://127.0.0.1:9", has_token=False)

    plan = await bulkbind.plan([manifest], settings)

    assert {word: n for word, n in plan.counts.items() if n} == {
        "bind": 20,
        "invalid": 1,
        "duplicate": 1,
    }
    assert plan.users["user_1"] == {"bind": 5}
    assert plan.forecast.calls == 20
    assert plan.forecast.seconds is None
    assert "fleet.csv:22" in plan.problems[0]
    assert [path.name for path in tmp_path.iterdir()] == ["fleet.csv"]


def written(tmp_path, sql, *values):
    """Change the ledger by hand."""
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
        db.execute(sql, values)
        db.commit()


async def test_a_forecast_leaves_to_others_what_the_run_leaves(tmp_path, sandbox):
    """--share and --reserve count against the gateway's limit; a smaller --rate is as it is."""
    settings = settings_for(tmp_path, sandbox.url)
    await bulkbind.run([write_csv(tmp_path / "fleet.csv", ROWS)], settings)
    facts = json.dumps({"limit": {"per_s": 60.0, "is_spaced": False}, "pace_from": "told by it"})
    written(tmp_path, "UPDATE runs SET facts = ?", facts)
    more = write_csv(tmp_path / "more.csv", fleet(300))

    async def forecast(**send):
        given = settings.model_copy(update={"send": SendSettings(**send)})
        found = (await bulkbind.plan([more], given)).forecast
        return found.per_s, found.source.rpartition("told by it")[2]

    assert await forecast() == (60.0, "")
    assert await forecast(share=0.5) == (30.0, ", less the 50% left to others")
    assert await forecast(share=0.5, reserve=10.0) == (
        20.0, ", less the 50% and 10/s left to others",
    )  # fmt: skip
    assert await forecast(share=0.5, rate=25.0) == (25.0, "set by --rate")


async def test_a_forecast_knows_what_the_next_run_begins_with(tmp_path, sandbox):
    """Also where the runs that learned it are pruned; and beside a run, what that has found."""
    settings = settings_for(tmp_path, sandbox.url)
    await bulkbind.run([write_csv(tmp_path / "fleet.csv", ROWS)], settings)
    more = write_csv(tmp_path / "more.csv", fleet(300))

    written(tmp_path, "UPDATE runs SET facts = '{}'")
    limit = json.dumps({"per_s": 196.0, "is_spaced": False})
    written(tmp_path, "INSERT OR REPLACE INTO meta VALUES ('limit', ?)", limit)
    pruned = (await bulkbind.plan([more], settings)).forecast
    written(tmp_path, "DELETE FROM meta WHERE key = 'limit'")
    spent = {"requests": 50, "sending_s": 10.0}
    live = json.dumps({"run": 1, "at": "2026-11-27T12:00:00.000Z", "spent": spent})
    written(tmp_path, "INSERT OR REPLACE INTO meta VALUES ('live', ?)", live)
    beside = (await bulkbind.plan([more], settings)).forecast

    assert (pruned.per_s, pruned.source) == (196.0, "learned by an earlier run")
    assert beside.per_s == 5.0
    assert "as fast as it went" in beside.source


async def test_a_plan_counts_as_the_run_then_does(tmp_path, sandbox):
    """What the ledger knows is `=`, `~` under another name, `>` for another user; then it is so."""
    settings = settings_for(tmp_path, sandbox.url)
    first = write_csv(tmp_path / "first.csv", ROWS[:8])
    await bulkbind.run([first], settings)
    renamed = [(code, user, "Another", system) for code, user, _, system in ROWS[:2]]
    moved = [(code, "user_9", name, system) for code, _, name, system in ROWS[2:3]]
    manifest = write_csv(tmp_path / "fleet.csv", [*renamed, *moved, *ROWS[3:]])

    plan = await bulkbind.plan([manifest], settings)
    result = await bulkbind.run([manifest], settings)

    assert plan.counts | {} == {
        "bind": 12,
        "already_bound": 5,
        "changed": 2,
        "missing": 0,
        "in_doubt": 0,
        "moved": 1,
        "duplicate": 0,
        "invalid": 0,
        "left_out": 0,
        "failed": 0,
        **dict.fromkeys(("unbind", "gone", "not_ours"), 0),
    }
    assert plan.moved == ({"machine_code": "SN000002", "from": "user_2", "to": "user_9"},)
    assert result.report is not None
    assert result.report.summary.counts == {"bound": 12, "skipped": 7, "moved": 1}


async def test_refresh_follows_the_lists(tmp_path, sandbox):
    """The server's lists win over the ledger, in both directions; what only it has is extra."""
    settings = settings_for(tmp_path, sandbox.url)
    manifest = write_csv(tmp_path / "fleet.csv", ROWS)
    await bulkbind.run([write_csv(tmp_path / "first.csv", ROWS[:8])], settings)
    for code, user, name, system in ROWS[8:10]:
        body = {"machineCode": code, "deviceName": name, "deviceOS": system}
        sandbox.bindings.bind(user, body)
    sandbox.bindings.bind(ROWS[10][1], {"machineCode": ROWS[10][0], "deviceName": "x"})
    sandbox.bindings.bind("user_0", {"machineCode": "EXTRA"})
    for record in sandbox.bindings.of("user_1")[:1]:
        sandbox.bindings.unbind("user_1", record["deviceId"])

    plan = await bulkbind.plan([manifest], settings, refresh=True, extra=True)

    assert {word: n for word, n in plan.counts.items() if n} == {
        "bind": 9,
        "already_bound": 9,
        "changed": 1,
        "missing": 1,
    }
    assert (plan.extra, plan.extras) == (1, ({"user_id": "user_0", "machine_code": "EXTRA"},))
    assert plan.users["user_0"]["extra"] == 1
    assert plan.forecast.binds == 12  # what `run` sends: it goes by the ledger
    assert "these are sent, and found bound" in plan_text(plan)


async def test_a_plan_is_made_beside_a_held_ledger(tmp_path, sandbox):
    """A run that holds the ledger neither holds a plan up nor is held up by it."""
    settings = settings_for(tmp_path, sandbox.url)
    manifest = write_csv(tmp_path / "fleet.csv", ROWS)
    await bulkbind.run([manifest], settings)
    ledger = Ledger(tmp_path / "ledger.db", sandbox.url, SystemClock())
    await ledger.open({"pid": 1, "host": "h", "started_at": "now"})
    try:
        plan = await bulkbind.plan([manifest], settings)
    finally:
        await ledger.close()

    assert plan.counts["already_bound"] == 20
    assert plan.forecast.calls == 0


async def test_a_saved_plan_is_done_or_nothing(tmp_path, sandbox):
    """`run` does what was planned; once ledger, manifest or settings moved, it sends nothing."""
    settings = settings_for(tmp_path, sandbox.url)
    manifest = write_csv(tmp_path / "fleet.csv", ROWS)
    saved = tmp_path / "plan.json"
    save_plan(await bulkbind.plan([manifest], settings), saved)
    wanted = load_plan(saved)
    rebinding = settings_for(tmp_path, sandbox.url, rebind=True)

    other = write_csv(tmp_path / "other.csv", ROWS[:5])
    with pytest.raises(PlanMovedError, match="the manifest"):
        await bulkbind.run([other], settings, wanted=wanted)
    assert sandbox.counts["binds"] == 0
    result = await bulkbind.run([manifest], settings, wanted=wanted)
    with pytest.raises(PlanMovedError, match="bind: 20 planned, 0 now"):
        await bulkbind.run([manifest], settings, wanted=wanted)
    again = await bulkbind.run([manifest], rebinding, wanted=wanted)

    assert saved.stat().st_mode & 0o777 == 0o600
    assert result.exit_code == again.exit_code == 0
    assert sandbox.counts["binds"] == 40  # with --rebind all 20 are sent again, as planned
    assert len(bulkbind.runs(settings)) == 2


async def test_a_plan_tells_of_the_run_that_is_gone_on_with(tmp_path, sandbox):
    """Of an unfinished run of the manifest it counts what is left, and names the run."""
    settings = settings_for(tmp_path, sandbox.url)
    manifest = write_csv(tmp_path / "fleet.csv", ROWS)
    pilot = await bulkbind.run([manifest], settings, first=6)
    assert pilot.report is not None

    plan = await bulkbind.plan([manifest], settings)
    await bulkbind.run([manifest], settings, wanted=plan)

    assert plan.going_on == pilot.report.summary.run_id
    assert (plan.counts["bind"], plan.counts["already_bound"]) == (14, 6)
    assert plan.forecast.per_s is not None or "no run" in plan.forecast.source
    assert sandbox.counts["binds"] == 20


async def test_a_list_that_cannot_be_read_is_told(tmp_path):
    """With --refresh an unreadable list ends it with 3 and names the user."""
    options = SandboxOptions(faults=(parse_fault("business=1,on=list"),))
    manifest = write_csv(tmp_path / "fleet.csv", ROWS)
    async with Sandbox(options) as served:
        settings = settings_for(tmp_path, served.url)

        with pytest.raises(UnreadableListError, match="the list of user user_0") as raised:
            await bulkbind.plan([manifest], settings, refresh=True)

    assert raised.value.exit_code == 3
    with pytest.raises(UsageError, match="only the server knows"):
        await bulkbind.plan([manifest], settings, extra=True)


async def test_a_file_that_is_no_plan_is_refused(tmp_path):
    """Neither a missing file, nor other JSON, is taken for a plan."""
    other = tmp_path / "other.json"
    other.write_text("[1]", encoding="utf-8")

    for path, words in ((other, "no plan of bulkbind"), (Path("missing.json"), "cannot be read")):
        with pytest.raises(UsageError, match=words):
            load_plan(path)


async def test_a_plan_in_json_has_the_words_of_its_marks(tmp_path, sandbox):
    """The JSON holds counts, users, forecast and what `run --plan` compares."""
    settings = settings_for(tmp_path, sandbox.url)
    manifest = write_csv(tmp_path / "fleet.csv", ROWS)

    told = json.loads(json.dumps(plan_json(await bulkbind.plan([manifest], settings))))

    assert set(told["counts"]) >= {
        "bind",
        "already_bound",
        "changed",
        "invalid",
        "duplicate",
        "moved",
    }
    assert told["forecast"]["calls"] == told["rows"] == 20
    assert len(told["digest"]) == len(told["mark"]) == 64


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (90, "90 s"), (700, "12 min"), (12_000, "3 h 20 min")]
)
def test_a_span_reads_well(seconds, text):
    """Seconds, minutes or hours, as a person would say it."""
    assert span_text(seconds) == text


async def test_a_plan_says_that_invalid_rows_send_everything_back(tmp_path):
    """By default `run` sends nothing while a row breaks a rule; with skip, the others."""
    manifest = write_csv(tmp_path / "fleet.csv", [*ROWS, ("SN-1", "u", "", "")])
    settings = settings_for(tmp_path, "http://127.0.0.1:9", has_token=False)
    aborts = settings.model_copy(
        update={"manifest": settings.manifest.model_copy(update={"on_invalid": "abort"})}
    )

    refused, skipped = [await bulkbind.plan([manifest], each) for each in (aborts, settings)]

    assert (
        "forecast: nothing is sent while rows break a rule; with --on-invalid skip: 20 calls"
        in (plan_text(refused))
    )
    assert "nothing is sent" not in plan_text(skipped)
    assert (plan_json(refused)["refused"], plan_json(skipped)["refused"]) == (True, False)
    assert "1  machine_code: only letters, digits and `_`" in plan_text(skipped)
    assert plan_text(skipped).count("only letters, digits and `_`, 1 to 64") == 1
    assert plan_json(skipped)["rules"] == {
        broken.rule: broken.as_json() for broken in skipped.broken
    }


async def test_a_plan_of_a_pilot_counts_what_the_pilot_sends(tmp_path, sandbox):
    """`--first 6` sends six and moves nothing, as the plan says before, and after it again."""
    settings = settings_for(tmp_path, sandbox.url, move=True)
    await bulkbind.run([write_csv(tmp_path / "first.csv", ROWS[:2])], settings)
    moved = [(code, "user_9", name, system) for code, _, name, system in ROWS[:2]]
    manifest = write_csv(tmp_path / "fleet.csv", [*moved, *ROWS[2:]])
    before = sandbox.counts["binds"]

    planned = await bulkbind.plan([manifest], settings, first=6)
    whole = await bulkbind.plan([manifest], settings)
    await bulkbind.run([manifest], settings, first=6, wanted=planned)
    again = await bulkbind.plan([manifest], settings, first=100)

    assert sandbox.counts["binds"] - before == planned.forecast.calls == 6
    assert "then it stops with 3 (--first 6)" in plan_text(planned)
    assert (whole.forecast.binds, whole.forecast.unbinds) == (20, 2)
    assert planned.mark == whole.mark
    assert again.forecast.calls == 12
