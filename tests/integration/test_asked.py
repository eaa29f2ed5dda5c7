"""What operators ask of runs: notes, histories, conditions and steering, with one sandbox."""

from __future__ import annotations

import asyncio

import pytest
from pydantic import SecretStr

import bulkbind
from bulkbind.app.adjust import adjust
from bulkbind.app.history import history
from bulkbind.app.reports import runs, status
from bulkbind.app.session.listener import Listener
from bulkbind.app.undo import undo
from bulkbind.app.validate import validate
from bulkbind.clock import SystemClock
from bulkbind.errors import BulkbindError, ExitCode, UsageError
from bulkbind.ledger import RunReader, reading
from bulkbind.model import Status
from bulkbind.redaction import learn
from bulkbind.report import as_text
from bulkbind.report.history_text import history_lines
from bulkbind.report.plan_text import plan_json, plan_text
from bulkbind.sandbox import Sandbox, SandboxOptions, parse_fault
from bulkbind.settings import (
    ApiSettings,
    AuthSettings,
    ManifestSettings,
    ReadbackSettings,
    SendSettings,
    Settings,
    parse_duration,
)
from bulkbind.settings.model import duration_text
from tests.support.manifests import fleet, write_csv
from tests.support.processes import read_results

HEADER = ("machine_code", "user_id", "Site")
SITES = [
    ("SN1", "u1", "Berlin"),
    ("SN2", "u2", "Munich"),
    ("SN-3", "u2", "Munich"),
    ("SN4", "u1", "Berlin"),
]


def settings_for(tmp_path, url, send=None, **manifest):
    """Return settings against a sandbox."""
    return Settings(
        api=ApiSettings(endpoint=url),
        auth=AuthSettings(token=SecretStr("any")),
        doubt=ReadbackSettings(readback_settle=0.2),
        manifest=ManifestSettings(**manifest),
        send=SendSettings(**(send or {})),
        ledger=tmp_path / "ledger.db",
        out=tmp_path / "report",
    )


class Warned(Listener):
    """Keeps warnings."""

    def __init__(self):
        self.said = []

    def warning(self, text):
        self.said.append(text)


@pytest.fixture
async def sandbox():
    """Serve a sandbox."""
    async with Sandbox() as served:
        yield served


async def test_only_the_rows_that_are_meant_are_sent(tmp_path, sandbox):
    """Plan, run, report and server say the same; a row that breaks a rule stops nothing."""
    manifest = write_csv(tmp_path / "fleet.csv", SITES, HEADER)
    settings = settings_for(tmp_path, sandbox.url, where=("Site=Berlin",))

    plan = await bulkbind.plan([manifest], settings)
    result = await bulkbind.run([manifest], settings)

    assert result.exit_code == ExitCode.DONE
    assert (plan.counts["bind"], plan.counts["left_out"], plan.rows) == (2, 2, 4)
    assert "2  --where Site=Berlin" in plan_text(plan)
    assert plan_json(plan)["left_out"] == {"rows": 2, "by": {"--where Site=Berlin": 2}}
    assert result.report is not None
    assert result.report.summary.counts == {"bound": 2}
    assert "left out: 2 rows: 2 by --where Site=Berlin" in as_text(result.report.summary)
    assert [row["machine_code"] for row in read_results(tmp_path / "report")] == ["SN1", "SN4"]
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "2 by --where Site=Berlin" in page


@pytest.mark.parametrize("keeps", [False, True])
async def test_an_export_that_was_cut_off_is_told_from_one_of_which_little_is_meant(
    tmp_path, sandbox, keeps
):
    """The least number of rows is that of the file; that nothing is meant is a warning."""
    manifest = write_csv(tmp_path / "fleet.csv", SITES, HEADER)
    given = {"where": ("Site=Rome",), "keep_left_out": keeps, "min_rows": 4}
    settings = settings_for(tmp_path, sandbox.url, **given)
    listener = Warned()

    result = await bulkbind.run([manifest], settings, listener=listener)
    found = validate([manifest], settings, listener)

    assert result.exit_code == ExitCode.DONE
    assert result.report is not None
    assert result.report.summary.counts == ({"left_out": 4} if keeps else {})
    assert (found.rows, found.left_out) == (0, {"rows": 4, "by": {"--where Site=Rome": 4}})
    assert len(listener.said) == 2
    assert all("all 4 rows are left out" in text for text in listener.said)


async def test_what_is_left_out_may_stand_in_the_results(tmp_path, sandbox):
    """In the manifest's order, with the condition; it comes back in no failed file."""
    manifest = write_csv(tmp_path / "fleet.csv", [*SITES, ("SN1", "u1", "Munich")], HEADER)
    settings = settings_for(
        tmp_path, sandbox.url, where_not=("Site=Berlin",), keep_left_out=True, on_invalid="skip"
    )

    result = await bulkbind.run([manifest], settings)

    assert result.exit_code == ExitCode.NEEDS_PERSON
    rows = [(row["machine_code"], row["status"]) for row in read_results(tmp_path / "report")]
    assert rows == [
        ("SN1", "left_out"), ("SN2", "bound"), ("SN-3", "invalid"), ("SN4", "left_out"),
        ("SN1", "bound"),
    ]  # fmt: skip
    assert read_results(tmp_path / "report")[0]["detail"] == ("left out by --where-not Site=Berlin")
    failed = (tmp_path / "report" / "failed.csv").read_text(encoding="utf-8-sig")
    assert "SN4" not in failed


async def test_another_condition_is_another_run(tmp_path, sandbox):
    """The unfinished one is not gone on with; the same condition goes on, and sends the rest."""
    manifest = write_csv(tmp_path / "fleet.csv", fleet(6))
    some = settings_for(tmp_path, sandbox.url, where=("machine_code~[0-3]$",))
    other = settings_for(tmp_path, sandbox.url, where=("machine_code~[45]$",))

    first = await bulkbind.run([manifest], some, first=2)
    assert first.exit_code == ExitCode.STOPPED
    assert first.report is not None
    plan = await bulkbind.plan([manifest], other)
    assert plan.going_on == ""
    assert plan.replaces == (first.report.summary.run_id, 2)
    assert "run would take its place, and withdraw its 2 rows" in plan_text(plan)
    assert (await bulkbind.plan([manifest], some)).replaces is None
    again = await bulkbind.run([manifest], some)
    last = await bulkbind.run([manifest], other)

    assert again.report is not None
    assert last.report is not None
    assert again.report.summary.run_id == first.report.summary.run_id
    assert again.report.summary.counts == {"bound": 4}
    assert last.report.summary.counts == {"bound": 2}
    assert last.report.summary.facts.changes.removed == 0


async def test_a_table_of_users_binds_by_address(tmp_path, sandbox):
    """Whoever is exactly one user gets the device; the others come back, and are sent to nobody."""
    users = tmp_path / "users.csv"
    users.write_text("user_id,mail\nu1,max@x.org\nu2,eva@x.org\nu3,Eva@x.org\n", encoding="utf-8")
    rows = [("SN1", "MAX@x.org"), ("SN2", "eva@x.org"), ("SN3", "otto@x.org")]
    manifest = write_csv(tmp_path / "fleet.csv", rows, ("machine_code", "Owner"))
    settings = settings_for(
        tmp_path, sandbox.url, user_table=users, user_key="Owner=mail", on_invalid="skip"
    )

    await bulkbind.run([manifest], settings)

    found = [(row["user_id"], row["status"]) for row in read_results(tmp_path / "report")]
    assert found == [("u1", "bound"), ("", "invalid"), ("", "invalid")]
    failed = (tmp_path / "report" / "failed.csv").read_text(encoding="utf-8-sig")
    assert "SN2,eva@x.org" in failed
    users.write_text("user_id,mail\nu1,max@x.org\nu2,eva@x.org\nu3,otto@x.org\n", encoding="utf-8")
    await bulkbind.run([manifest], settings)
    found = [(row["user_id"], row["status"]) for row in read_results(tmp_path / "report")]
    assert found == [("u1", "skipped"), ("u2", "bound"), ("u3", "bound")]


async def test_a_history_has_all_that_became_of_a_device(tmp_path):
    """Attempts, runs that skipped it, a move, an undo, a duplicate; who, where, which trace."""
    fault = parse_fault("500=1,count=1")
    async with Sandbox(SandboxOptions(faults=(fault,))) as served:
        settings = settings_for(tmp_path, served.url, {"backoff_base": 0.01})
        again = settings.model_copy(update={"manifest": ManifestSettings(clean="names")})
        moving = settings.model_copy(update={"manifest": ManifestSettings(move=True)})
        one = write_csv(tmp_path / "one.csv", [("D1", "u1", "", ""), ("D1", "u1", "", "")])
        two = write_csv(tmp_path / "two.csv", [("D1", "u2", "", "")])
        await bulkbind.run([one], settings, note="CHG1")
        await bulkbind.run([one], again)
        moved = await bulkbind.run([two], moving)
        assert moved.report is not None
        await undo(settings, moved.report.summary.run_id, devices=1)

    found = history(settings, "D1")
    of_user = history(settings, user_id="u1")

    assert found.bindings == ()
    assert [(row.user_id, row.status, row.line, row.note) for row in found.rows] == [
        ("u1", "bound", 2, "CHG1"), ("u1", "duplicate", 3, "CHG1"),
        ("u1", "skipped", 2, ""), ("u1", "duplicate", 3, ""), ("u2", "bound", 2, ""),
    ]  # fmt: skip
    assert found.rows == of_user.rows
    first, *_, last = found.rows
    assert [each.http_status for each in first.tries] == [500]
    assert first.trace_id
    assert first.tries[0].trace_id not in ("", first.trace_id)
    assert [(each.kind, each.user_id, each.status) for each in last.taken] == [
        ("move", "u1", "unbound"), ("undo", "u2", "unbound"),
    ]  # fmt: skip
    assert all(each.trace_id and "@" in each.operator for each in last.taken)
    text = "\n".join(history_lines(found))
    assert f"trace {first.trace_id}" in text
    assert "nothing is bound now" in text
    assert runs(settings)[-1]["note"] == "CHG1"


async def test_a_history_of_nothing_is_an_error(tmp_path, sandbox):
    """A typing error must not read like a device that nobody bound."""
    settings = settings_for(tmp_path, sandbox.url)
    await bulkbind.run([write_csv(tmp_path / "one.csv", fleet(1))], settings)

    for given in ({"machine_code": "sn000000"}, {"user_id": "nobody"}, {}):
        with pytest.raises(UsageError):
            history(settings, **given)


async def sending(tmp_path, url, send, **given):
    """Start a run of 400 rows, and return its task and settings once it sends."""
    manifest = write_csv(tmp_path / "fleet.csv", fleet(400))
    settings = settings_for(tmp_path, url, send)
    task = asyncio.create_task(bulkbind.run([manifest], settings, **given))
    while not (settings.ledger_path().exists() and settled(settings)):
        await asyncio.sleep(0.02)  # noqa: TID251  # polling the ledger
        assert not task.done()
    return task, settings


def settled(settings):
    """Return how many rows of the newest run are bound."""
    try:
        return status(settings).summary.counts.get(Status.BOUND, 0)
    except BulkbindError:  # it is about to be made
        return 0


@pytest.mark.slow
async def test_a_run_is_steered_while_it_sends(tmp_path, sandbox):
    """It is paused, goes on faster with more in flight, and is ended; each is kept with its why."""
    task, settings = await sending(tmp_path, sandbox.url, {"rate": 10, "concurrency": 2})
    clock = SystemClock()

    paused = await adjust(settings, what={"pause": True}, why="lunch")
    await clock.sleep(0.3)
    before = settled(settings)
    await clock.sleep(0.6)
    assert settled(settings) == before
    found = status(settings)
    assert "paused by an operator" in found.live.waits
    more: dict[str, object] = {"go": True, "rate": 200.0, "concurrency": 8, "max_failures": "5%"}
    faster = await adjust(settings, what={**more, "deadline": "60s"})
    while settled(settings) < before + 30:
        await clock.sleep(0.05)
        assert not task.done()
    ended = await adjust(settings, what={"drain": True}, why="enough")
    result = await task

    assert paused.is_done
    assert faster.is_done
    assert ended.is_done
    assert result.exit_code == ExitCode.STOPPED
    assert result.report is not None
    summary = result.report.summary
    assert "ended it by adjust --drain (enough)" in (summary.stop_reason or "")
    assert [item["what"] for item in summary.facts.adjusted] == [
        {"pause": True}, {**more, "deadline": "60s"}, {"drain": True},
    ]  # fmt: skip
    assert summary.facts.paused_s > 0.5
    told = as_text(summary)
    assert "pause: lunch" in told
    assert "go, rate 200, concurrency 8, max_failures 5%, deadline 60s" in told
    assert "pause: lunch" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    with reading(settings.ledger_path()) as db:
        assert RunReader(db, 1).summary().facts.adjusted


@pytest.mark.parametrize(
    ("what", "said"),
    [({"deadline": "100ms"}, "the deadline of 100ms has come"), ({"max_failures": "1"}, "as many")],
    ids=["deadline", "failures"],
)
async def test_limits_can_be_set_while_it_sends(tmp_path, what, said):
    """What has failed before counts."""
    faults = (parse_fault("business=1,count=1"),)
    async with Sandbox(SandboxOptions(faults=faults)) as served:
        task, settings = await sending(tmp_path, served.url, {"rate": 10})
        await adjust(settings, what=what)
        result = await task

    assert result.exit_code == ExitCode.STOPPED
    assert result.report is not None
    assert said in (result.report.summary.stop_reason or "")


async def test_no_deadline_ends_the_steering(tmp_path, sandbox):
    """Of many days: the run takes it, and does what is asked after it."""
    task, settings = await sending(tmp_path, sandbox.url, {"rate": 10})
    done = [
        await adjust(settings, what={"deadline": duration_text(parse_duration(text))})
        for text in ("20d", "1234567.5s")
    ]
    done.append(await adjust(settings, what={"drain": True}))
    result = await task

    assert [each.is_done for each in done] == [True, True, True]
    assert result.exit_code == ExitCode.STOPPED


async def test_a_reason_has_no_secret(tmp_path, sandbox):
    """Neither one that the settings lead to, nor one that the run alone knows."""
    task, settings = await sending(tmp_path, sandbox.url, {"rate": 10})
    file = tmp_path / "token"
    file.write_text("hush-of-a-file")
    file.chmod(0o600)
    auth = settings.auth.model_copy(update={"token": None, "token_file": file})
    given = settings.model_copy(update={"auth": auth})
    await adjust(given, what={"rate": 9.0}, why="hush-of-a-file fails")
    asking = adjust(settings, what={"drain": True}, why="so does hush-of-the-run")
    asked = asyncio.create_task(asking)
    await asyncio.sleep(0)  # noqa: TID251  # it is in the ledger then
    learn("hush-of-the-run")
    assert (await asked).is_done
    await task

    report = "".join(p.read_text("utf-8") for p in (tmp_path / "report").glob("*.[jh]*"))
    assert "*** fails" in report
    assert "so does ***" in report
    assert b"hush-of-a-file" not in settings.ledger_path().read_bytes()


async def test_only_a_run_that_sends_is_steered(tmp_path, sandbox):
    """Neither none, nor one that has ended, nor another one; nor with nothing to change."""
    settings = settings_for(tmp_path, sandbox.url)
    result = await bulkbind.run([write_csv(tmp_path / "one.csv", fleet(2))], settings)
    assert result.report is not None

    for run_id, what in (
        (None, {"pause": True}),
        (result.report.summary.run_id, {"pause": True}),
        (None, {}),
        (None, {"pause": True, "drain": True}),
    ):
        with pytest.raises(UsageError):
            await adjust(settings, run_id, what=what)
