"""`run --sync`: a scope is kept in step with its manifest, and nothing else is unbound."""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import replace

import jsonschema
import pytest
from pydantic import SecretStr

import bulkbind
from bulkbind.app import output_schema
from bulkbind.app.history import history
from bulkbind.app.inbox import run_inbox
from bulkbind.app.notices.run_end import Here, of_inbox, of_run
from bulkbind.app.plan import plan
from bulkbind.app.prune import prune
from bulkbind.app.reports import runs, status, write_forms
from bulkbind.app.session.listener import Listener
from bulkbind.app.undo import undo
from bulkbind.clock import SystemClock
from bulkbind.engine import StopReason, StopSignal
from bulkbind.errors import (
    BulkbindError,
    ExitCode,
    InvalidRowsError,
    ManifestError,
    PlanMovedError,
    TooManyUnbindsError,
    UsageError,
)
from bulkbind.ledger import RunReader, find_run, reading
from bulkbind.ledger.reading import went_well_at
from bulkbind.report.history_text import history_lines
from bulkbind.report.plan_text import plan_markdown, plan_text
from bulkbind.report.summary import as_text, files_text
from bulkbind.sandbox import Sandbox, SandboxOptions
from bulkbind.settings import ApiSettings, AuthSettings, ManifestSettings, ReadbackSettings
from tests.support.manifests import fleet, write_csv

ROWS = fleet(40, users=4)
pytestmark = pytest.mark.slow


class World:
    """A sandbox, a ledger and manifests."""

    def __init__(self, tmp_path, sandbox):
        self.tmp_path = tmp_path
        self.sandbox = sandbox
        self.manifest = tmp_path / "fleet.csv"

    def settings(self, *, ledger="ledger.db", **manifest):
        """Return settings against the sandbox."""
        return bulkbind.Settings(
            api=ApiSettings(endpoint=self.sandbox.url),
            auth=AuthSettings(token=SecretStr("any")),
            manifest=ManifestSettings(**manifest),
            doubt=ReadbackSettings(readback_settle=0.05),
            ledger=self.tmp_path / ledger,
            out=self.tmp_path / "report",
        )

    async def run(self, rows=None, *, manifest=None, listener=None, first=None, wanted=None, **how):
        """Write a manifest unless *rows* is None, run it, and return the result."""
        manifest = manifest or self.manifest
        if rows is not None:
            write_csv(manifest, rows)
        settings = self.settings(**how)
        given = [manifest]
        return await bulkbind.run(given, settings, listener=listener, first=first, wanted=wanted)

    async def sync(self, rows=None, **how):
        """Run with `sync`."""
        return await self.run(rows, **{"sync": True, **how})

    def held(self):
        """Return what the server has: machine code and user."""
        users = {row[1] for row in ROWS} | {"other"}
        return {
            (record["machineCode"], user)
            for user in users
            for record in self.sandbox.bindings.of(user)
        }

    def sent(self):
        """Return the binds and unbinds so far."""
        return self.sandbox.counts["binds"], self.sandbox.counts.get("unbinds", 0)


@pytest.fixture
async def world(tmp_path):
    """Serve a sandbox."""
    async with Sandbox() as sandbox:
        yield World(tmp_path, sandbox)


def pairs(rows):
    """Return machine code and user of rows."""
    return {(row[0], row[1]) for row in rows}


async def test_what_left_the_manifest_is_unbound_after_the_binds(world):
    """What an earlier run of the file bound, with or without --sync, leaves; the report says so."""
    await world.run(ROWS[:39])

    result = await world.sync(ROWS[1:])
    summary = result.report.summary

    assert result.exit_code == 0
    assert world.held() == pairs(ROWS[1:])
    assert summary.counts == {"bound": 1, "skipped": 38}
    assert summary.leavers == {"unbound": 1}
    assert summary.facts.synced == {"scope": str(world.manifest), "bound": 39, "leave": 1}
    table = (world.tmp_path / "report" / "unbound.csv").read_text(encoding="utf-8").splitlines()
    assert [line.split(",")[3] for line in table] == ["status", "unbound"]
    assert json.loads((world.tmp_path / "report" / "summary.json").read_text(encoding="utf-8"))[
        "leavers"
    ] == {"unbound": 1}
    with reading(world.tmp_path / "ledger.db") as db:
        reader = RunReader(db, find_run(db, None))
        moved = reader.settled_since(str(summary.confirmed_at))[0]
    assert moved == 2, "the rate that `status` shows counts what leaves, too"


async def test_nothing_leaves_without_sync(world):
    """By default a device that a manifest no longer names stays bound."""
    await world.run(ROWS)

    await world.run(ROWS[5:])

    assert world.held() == pairs(ROWS)


async def test_a_night_that_changes_nothing_sends_nothing(world):
    """The same manifest again: no request at all, and no list."""
    await world.sync(ROWS)
    before = dict(world.sandbox.counts)

    result = await world.sync()

    assert result.exit_code == 0
    assert dict(world.sandbox.counts) == before


async def test_more_than_may_be_unbound_unasked_stops_before_anything_is_sent(world):
    """5 % of the scope's bound devices by default; a number or a share may be given."""
    await world.run(ROWS)
    before = world.sent()
    added = [*ROWS[3:], ("NEW_1", ROWS[0][1], "", "")]

    with pytest.raises(TooManyUnbindsError, match="3 of the 40 devices") as caught:
        await world.sync(added)

    assert caught.value.exit_code == 3
    assert "--max-unbinds 3" in caught.value.hint
    assert world.sent() == before
    for refused in ("2", "7.4%", "0"):
        with pytest.raises(TooManyUnbindsError):
            await world.sync(added, max_unbinds=refused)
    await world.sync(added, max_unbinds="7.5%")
    assert world.held() == pairs(added)


async def test_exactly_the_share_may_be_unbound(world):
    """Two of forty are 5 %."""
    await world.run(ROWS)

    await world.sync(ROWS[2:])

    assert world.held() == pairs(ROWS[2:])


async def test_a_person_may_agree_to_more(world):
    """A listener that asks a person is asked for more than may be unasked, and for no more then."""
    await world.run(ROWS)
    asked = []

    class Person(Listener):
        def confirm(self, plan):
            raise AssertionError(f"asked twice: {plan}")

        def confirm_leavers(self, plan):
            asked.append(plan.leavers.devices)
            return True

    await world.sync(ROWS[20:], listener=Person())

    assert asked == [20]
    assert world.held() == pairs(ROWS[20:])


@pytest.mark.parametrize(
    ("content", "error", "says"),
    [
        ("machine_code,user_id\n", ManifestError, "no rows"),
        ("", ManifestError, "empty"),
        ("machine_code,user_id\nSN-9,user_1\n", InvalidRowsError, "1 of 1 row"),
        ("machine_code,user_id\nSN_9,\n", InvalidRowsError, "1 of 1 row"),
        ("machine_code,user_id\nSN_9,user_1", ManifestError, "no line end"),
        ('machine_code,user_id\n"SN_9,user_1\n', ManifestError, "quote"),
    ],
    ids=["no row", "empty", "invalid", "no user", "cut within a line", "cut within quotes"],
)
async def test_an_unsure_manifest_is_refused(world, content, error, says):
    """Where a row is not sure, or the file may be cut off, nothing is sent at all."""
    await world.run(ROWS)
    before = world.sent()
    world.manifest.write_text(content, encoding="utf-8")

    with pytest.raises(error, match=says):
        await world.sync(on_invalid="skip", max_unbinds="100%")

    assert world.sent() == before
    assert world.held() == pairs(ROWS)


def _half(text):
    return text[: len(text) // 2]


@pytest.mark.parametrize(
    "damaged",
    [
        lambda text: _half(text).encode(),
        lambda text: text.encode("utf-16")[: len(text)],
        lambda text: ("Seriennummer;Nutzer\n" + text.partition("\n")[2]).encode(),
        lambda text: text.partition("\n")[0].encode() + b"\n",
        lambda text: "\n".join([*text.splitlines()[:11], ""]).encode(),
        lambda text: text.replace("SN", "S\u041d").encode("cp1251"),
        lambda text: text.encode().replace(b"\n", b"\n\x00"),
    ],
    ids=["half", "half of UTF-16", "other header", "header", "ten rows", "encoding", "NULs"],
)
async def test_a_damaged_manifest_unbinds_nothing(world, damaged):
    """Whatever is cut off or garbled: an error, and everything stays bound."""
    await world.run(ROWS)
    text = world.manifest.read_text(encoding="utf-8")
    world.manifest.write_bytes(damaged(text))

    with pytest.raises(BulkbindError):
        await world.sync(on_invalid="skip")

    assert world.held() == pairs(ROWS)


async def test_a_packed_file_that_is_cut_off_unbinds_nothing(world):
    """A gzip file without its end is refused, and one that was packed half-written as well."""
    packed = world.tmp_path / "fleet.csv.gz"
    text = write_csv(world.manifest, ROWS).read_bytes()
    packed.write_bytes(gzip.compress(text))
    await world.run(manifest=packed)

    for cut in (gzip.compress(text)[:-20], gzip.compress(text[:-3])):
        packed.write_bytes(cut)
        with pytest.raises(BulkbindError):
            await world.sync(manifest=packed, max_unbinds="100%")

    assert world.held() == pairs(ROWS)


async def test_yaml_that_ends_within_a_line_is_refused(world):
    """Cut off there, the last value would be another one."""
    manifest = world.tmp_path / "fleet.yaml"
    items = "".join(f"- {{machine_code: {r[0]}, user_id: {r[1]}}}\n" for r in ROWS)
    manifest.write_text(items, encoding="utf-8")
    await world.run(manifest=manifest)
    cut = items.replace("- {", "- ").replace(", user_id", "\n  user_id").replace("}", "")
    manifest.write_text(cut[:-1], encoding="utf-8")

    with pytest.raises(ManifestError, match="no line end"):
        await world.sync(manifest=manifest)


async def test_two_folders_with_files_of_one_name_are_two_scopes(world):
    """The absolute path is the scope, not the name."""
    for name in ("a", "b"):
        (world.tmp_path / name).mkdir()
    first, second = (world.tmp_path / name / "fleet.csv" for name in ("a", "b"))
    await world.sync(ROWS[:20], manifest=first)

    await world.sync(ROWS[20:], manifest=second)

    assert world.held() == pairs(ROWS)


async def test_a_name_is_the_scope_of_files_of_any_name(world):
    """Files whose names change, and several manifests, are one scope by --sync-name."""
    monday, tuesday = world.tmp_path / "monday.csv", world.tmp_path / "tuesday.csv"
    await world.run(ROWS, manifest=monday, sync_name="fleet")

    await world.sync(ROWS[1:], manifest=tuesday, sync_name="fleet")

    assert world.held() == pairs(ROWS[1:])
    parts = [write_csv(world.tmp_path / f"{n}.csv", ROWS[n : n + 20]) for n in (2, 20)]
    settings = world.settings(sync=True, sync_name="fleet")
    await bulkbind.run(parts, settings)
    assert world.held() == pairs(ROWS[2:])


async def test_a_scope_must_be_told(world):
    """Of several manifests, a folder or a pattern no path says it."""
    one, two = (write_csv(world.tmp_path / f"{n}.csv", ROWS[:2]) for n in (1, 2))

    for given in ([one, two], [world.tmp_path], [f"{world.tmp_path}/*.csv"], ["-"]):
        with pytest.raises(UsageError, match="path of one file") as caught:
            await bulkbind.run(given, world.settings(sync=True))
        assert "--sync-name" in caught.value.hint


async def test_a_pilot_does_not_sync(world):
    """--first sends a part, which is not the whole truth."""
    write_csv(world.manifest, ROWS)

    with pytest.raises(UsageError, match="--first"):
        await world.sync(first=3)
    with pytest.raises(UsageError, match="--first"):
        await plan([world.manifest], world.settings(sync=True), first=3)


async def test_hidden_rows_are_no_reason_to_unbind(world):
    """A filter in a workbook hides rows; with --visible-rows their devices would leave."""
    write_csv(world.manifest, ROWS)

    with pytest.raises(UsageError, match="--visible-rows"):
        await world.sync(visible_rows=True)


async def test_without_lists_nothing_is_synced(world):
    """Where no list can be read, nobody can tell what is there."""
    write_csv(world.manifest, ROWS)
    settings = world.settings(sync=True)
    settings = settings.model_copy(update={"doubt": ReadbackSettings(readback=False)})

    with pytest.raises(UsageError, match="readback"):
        await bulkbind.run([world.manifest], settings)


async def test_what_was_found_there_is_not_ours_until_adopted(world):
    """`already_bound` rows do not leave; once adopted, what the scope has named does."""
    for code, user, *_ in ROWS:
        world.sandbox.bindings.bind(user, {"machineCode": code})
    await SystemClock().sleep(3)  # younger ones might be ours
    result = await world.run(ROWS)
    assert result.report.summary.counts == {"already_bound": 40}

    await world.sync(ROWS[1:])
    assert world.held() == pairs(ROWS)

    await world.run(ROWS)
    await bulkbind.adopt([world.manifest], world.settings())
    await world.sync(ROWS[1:])
    assert world.held() == pairs(ROWS[1:])


async def test_adopted_devices_belong_to_a_scope_once_it_has_named_them(world):
    """A new ledger takes over everything; what its first run does not name is nobody's."""
    await world.run(ROWS, ledger="lost.db")
    await bulkbind.adopt([world.manifest], world.settings())

    await world.sync(ROWS[:38], max_unbinds="100%")
    assert world.held() == pairs(ROWS)

    await world.sync(ROWS[1:38])
    assert world.held() == pairs(ROWS[1:])


async def test_what_another_scope_names_stays(world):
    """A device that the last run of another scope names does not leave, until that one drops it."""
    other = world.tmp_path / "other.csv"
    await world.run(ROWS)
    await world.run(ROWS[:1], manifest=other)

    await world.sync(ROWS[1:])
    assert world.held() == pairs(ROWS)

    await world.run(ROWS[2:3], manifest=other)
    await world.sync()
    assert world.held() == pairs(ROWS[1:])


async def test_a_run_that_was_undone_names_nothing(world):
    """What another scope's last run named counts no more once that is undone."""
    other = world.tmp_path / "other.csv"
    found = await world.run(ROWS[:1], manifest=other)
    await undo(world.settings(), found.report.summary.run_id, devices=1)
    await world.run(ROWS)
    write_csv(world.manifest, ROWS[1:])

    planned = await plan([world.manifest], world.settings(sync=True))
    await world.sync()

    assert planned.leavers is not None
    assert planned.leavers.devices == 1
    assert world.held() == pairs(ROWS[1:])


async def test_what_is_left_out_is_there(world):
    """A row that --where leaves out counts as present."""
    await world.run(ROWS)

    result = await world.sync(where_not=(f"machine_code={ROWS[0][0]}",))

    assert world.held() == pairs(ROWS)
    assert result.report.summary.counts == {"skipped": 39, "left_out": 1}
    await world.sync(ROWS[1:], where_not=(f"machine_code={ROWS[1][0]}",))
    assert world.held() == pairs(ROWS[1:])


async def test_another_user_is_a_move(world):
    """A device under another user does not leave; with --move it goes over, and none is lost."""
    await world.run(ROWS)
    code = ROWS[0][0]
    given = [(code, "other", "", ""), *ROWS[1:]]

    result = await world.sync(given)
    assert result.report.summary.counts == {"moved": 1, "skipped": 39}
    assert world.held() == pairs(ROWS)

    await world.sync(move=True)
    assert world.held() == pairs(given)


async def test_another_spelling_is_the_same_device(world):
    """A code in another letter case is there, as far as leaving goes."""
    await world.run(ROWS)
    code = ROWS[0][0].lower()
    assert code != ROWS[0][0]

    await world.sync([(code, *ROWS[0][1:]), *ROWS[1:]])

    assert pairs(ROWS) <= world.held()


async def test_a_duplicate_is_there(world):
    """A device that only a duplicate row names twice is named."""
    await world.run(ROWS)

    await world.sync([*ROWS, ROWS[0]])

    assert world.held() == pairs(ROWS)


async def test_plan_shows_what_would_leave_and_run_keeps_to_it(world):
    """`plan --sync` counts the leavers from a copy; a saved plan refuses once they are others."""
    await world.run(ROWS)
    write_csv(world.manifest, ROWS[1:])
    settings = world.settings(sync=True)

    found = await plan([world.manifest], settings)

    leavers = found.leavers
    assert leavers is not None
    assert (leavers.devices, leavers.bound, leavers.is_beyond) == (1, 40, False)
    assert leavers.first == ({"user_id": ROWS[0][1], "machine_code": ROWS[0][0]},)
    assert (found.forecast.unbinds, found.forecast.lists) == (1, 1)
    with pytest.raises(PlanMovedError):
        await world.sync(wanted=replace(found, mark="another"))
    await world.sync(wanted=found)
    assert world.held() == pairs(ROWS[1:])


@pytest.mark.parametrize("leavers", [0, 1])
@pytest.mark.parametrize("move", [False, True])
async def test_plan_tells_of_a_move_only_what_run_does(world, leavers, move):
    """Whether a device is taken from another user follows --move, and not what else leaves."""
    await world.run(ROWS)
    users = sorted({row[1] for row in ROWS})
    moved = (ROWS[-1][0], next(user for user in users if user != ROWS[-1][1]), "", "")
    write_csv(world.manifest, [*ROWS[leavers:-1], moved])

    found = await plan([world.manifest], world.settings(sync=True, move=move))
    result = await world.sync(move=move)

    assert (found.forecast.moves, found.forecast.unbinds) == (move, move + leavers)
    for text in (plan_text(found), plan_markdown(found)):
        assert ("taken from the user who has them, then bound" in text) is move
        assert ("--move takes them from there" in text) is not move
    assert result.report.summary.counts.get("moved", 0) == (not move)
    assert (pairs([moved]) <= world.held()) is move


async def test_plan_knows_what_other_scopes_name(world):
    """The copy of the ledger that a plan is made on has what runs of scopes named last."""
    await world.run(ROWS)
    await world.run(ROWS[:1], manifest=world.tmp_path / "other.csv")
    write_csv(world.manifest, ROWS[2:])

    found = await plan([world.manifest], world.settings(sync=True))

    assert found.leavers is not None
    assert found.leavers.first == ({"user_id": ROWS[1][1], "machine_code": ROWS[1][0]},)


async def test_undo_of_a_sync_unbinds_and_binds_again(world):
    """What the run bound goes, what it unbound comes back under its name."""
    await world.run(ROWS[:39])
    result = await world.sync(ROWS[1:])
    run_id = result.report.summary.run_id

    await undo(world.settings(), run_id, devices=1, listener=None)

    assert world.held() == pairs(ROWS[:39])


async def test_sync_in_the_settings_means_nothing_to_unbind(world):
    """`sync: true` in a settings file is for `run`; a list of leavers is no scope."""
    await world.run(ROWS)
    leavers = write_csv(world.tmp_path / "leavers.csv", ROWS[:3])

    await bulkbind.unbind([leavers], world.settings(sync=True), devices=3)

    assert world.held() == pairs(ROWS[3:])


class Stopping(Listener):
    """Stops the run as soon as the first device is bound."""

    def __init__(self):
        self.signal = StopSignal()

    def settled(self, counts, problems):  # noqa: ARG002  # the listener's
        self.signal.set(StopReason("enough", ExitCode.STOPPED))


async def stopped(world, rows):
    """Begin a sync of *rows* and stop it while it binds."""
    listener = Stopping()
    write_csv(world.manifest, rows)
    settings = world.settings(sync=True)
    signal = listener.signal
    return await bulkbind.run([world.manifest], settings, listener=listener, stop=signal)


async def test_nothing_leaves_after_binds_that_stopped(world):
    """What is left to unbind waits; the same command, or `resume`, does it."""
    await world.run(ROWS[:39])
    before = world.sent()

    result = await stopped(world, ROWS[1:])

    assert result.exit_code == 3
    assert result.report.summary.leavers == {"pending": 1}
    assert world.sent()[1] == before[1]
    result = await bulkbind.resume(world.settings())
    assert result.report is not None
    assert result.report.summary.leavers == {"unbound": 1}
    assert world.held() == pairs(ROWS[1:])


async def test_what_another_run_takes_the_place_of_unbinds_nothing(world):
    """Leavers of a run that was stopped stay, if the next manifest names them again."""
    await world.run(ROWS[:39])
    await stopped(world, ROWS[1:])

    await world.run(ROWS)

    assert world.held() == pairs(ROWS)
    with pytest.raises(UsageError):
        await bulkbind.resume(world.settings())


async def test_a_pilot_does_not_resume_what_leaves(world):
    """`resume --first` would leave the scope half in step."""
    await world.run(ROWS[:39])
    await stopped(world, ROWS[1:])

    with pytest.raises(UsageError, match="--first"):
        await bulkbind.resume(world.settings(), first=1)


async def test_what_a_pruned_run_named_is_still_named(world):
    """Rows that are deleted still tell which devices another scope has."""
    other = world.tmp_path / "other.csv"
    await world.run(ROWS)
    await world.run(ROWS[:1], manifest=other)
    found = prune(world.settings(), older_than_s=0)
    assert found.ledger is not None
    assert found.ledger.runs == 2

    await world.sync(ROWS[2:])

    assert world.held() == pairs(ROWS) - pairs(ROWS[1:2])


async def test_history_tells_of_a_device_that_left(world):
    """It is told once, under the run that unbound it, though that has no row for it."""
    code, user = ROWS[0][:2]
    first = (await world.run(ROWS)).report.summary.run_id
    other = world.tmp_path / "other.csv"
    second = (await world.run(ROWS[:1], manifest=other, rebind=True)).report.summary.run_id
    other.unlink()
    await world.run(manifest=write_csv(other, ROWS[5:6]), sync=True, max_unbinds="9")
    third = (await world.sync(ROWS[1:])).report.summary.run_id

    of_device, of_user = (
        history(world.settings(), **of) for of in ({"machine_code": code}, {"user_id": user})
    )

    assert of_device.bindings == ()
    assert [row.taken for row in of_device.rows] == [(), ()]
    for found in (of_device, of_user):
        assert [
            (each.run_id, each.kind, each.status, each.machine_code) for each in found.left
        ] == [(third, "leave", "unbound", code)]
        assert found.as_json()["left"][0]["run_id"] == third
        shown = json.loads(json.dumps(found.as_json()))
        jsonschema.validate(shown, output_schema.history())
    told = list(history_lines(of_device))
    assert [line.split(",")[0] for line in told if line.startswith("run ")] == [
        f"run {run_id}" for run_id in (first, second, third)
    ]
    assert [line for line in told if "left the manifest" in line] == [told[-1]]
    assert told[-1].startswith(f"  {code} left the manifest: unbound from {user} at ")


async def test_an_inbox_is_synced_by_its_name(world):
    """Each file is the whole truth of the scope, one after the other; a name is a must."""
    inbox, archive = world.tmp_path / "inbox", world.tmp_path / "done"
    inbox.mkdir()
    for number, rows in enumerate((ROWS[:39], ROWS[1:39], ROWS[2:])):
        file = write_csv(inbox / f"{number}.csv", rows)
        os.utime(file, (1e9 + number, 1e9 + number))

    with pytest.raises(UsageError, match="path of one file"):
        await run_inbox(inbox, archive, world.settings(sync=True), min_age_s=0.0)
    settings = world.settings(sync=True, sync_name="fleet")
    result = await run_inbox(inbox, archive, settings, min_age_s=0.0)

    assert [item.exit_code for item in result.files] == [0, 0, 0]
    assert world.held() == pairs(ROWS[2:])


async def test_what_cannot_be_unbound_needs_a_person(world):
    """A device bound anew since, under another id, is left alone, and the run ends with 1."""
    await world.run(ROWS)
    code, user = ROWS[0][:2]
    record = next(r for r in world.sandbox.bindings.of(user) if r["machineCode"] == code)
    world.sandbox.bindings.unbind(user, record["deviceId"])
    world.sandbox.bindings.bind(user, {"machineCode": code})

    result = await world.sync(ROWS[1:])

    assert result.exit_code == 1
    assert result.report.summary.leavers == {"changed": 1}
    assert world.held() == pairs(ROWS)


async def test_a_leaver_that_failed_is_told_with_its_reason(tmp_path):
    """On the terminal, in `status`, summary and mail, with its file; `runs` counts it, too."""
    async with Sandbox(SandboxOptions(backup_lock_s=3600)) as sandbox:
        world = World(tmp_path, sandbox)
        await world.run(ROWS)
        went_well = runs(world.settings())[0]["ended_at"]
        result = await world.sync(ROWS[1:])

    code, user = ROWS[0][:2]
    summary = result.report.summary
    mail = of_run(result, Here()).text
    file = tmp_path / "report" / "unbound.csv"
    assert result.exit_code == 1
    assert mail.startswith("bulkbind: " + str(world.manifest) + ": 1 of 40 devices needs you")
    for text in (mail, as_text(summary), as_text(status(world.settings()).summary)):
        lines = text.split("\n")
        at = lines.index("left the manifest, 1 failed:")
        assert "13000902" in lines[at + 1]
        assert f"{code} of user {user}" in lines[at + 2]
        assert lines[at + 3].startswith("      -> ")
        assert "1 needs you" in text
    write_forms(world.settings(), forms=["md"])
    for name in ("report.html", "report.md"):
        shown = (tmp_path / "report" / name).read_text("utf-8")
        assert "left the manifest, failed" in shown
        assert "13000902" in shown
        assert f"{code} of user {user}" in shown.replace("\\_", "_")
    assert f"what left the manifest: {file}" in mail
    assert f"what left the manifest: {file}" in files_text(summary, result.report.files)
    written = json.loads((tmp_path / "report" / "summary.json").read_text("utf-8"))
    jsonschema.validate(written, output_schema.summary())
    (reason,) = written["leaver_reasons"]
    assert (reason["status"], reason["code"], reason["count"]) == ("failed", "13000902", 1)
    listed = runs(world.settings())
    jsonschema.validate(listed, output_schema.runs())
    assert [run["leavers"] for run in listed] == [{"failed": 1}, {}]
    ledger = tmp_path / "ledger.db"
    assert went_well_at(ledger, sandbox.url, [str(world.manifest)]) == went_well


async def test_page_and_markdown_tell_what_left_and_name_its_file(tmp_path):
    """How many left, how they ended, the first of them, and where all of them are."""
    rows = fleet(160, users=4)
    async with Sandbox() as sandbox:
        world = World(tmp_path, sandbox)
        await world.run(rows)
        plain = (tmp_path / "report" / "report.html").read_text("utf-8")
        await world.sync(rows[80:], max_unbinds="100%")

    write_forms(world.settings(), forms=["md"])
    page = (tmp_path / "report" / "report.html").read_text("utf-8")
    extract = (tmp_path / "report" / "report.md").read_text("utf-8").replace("\\_", "_")
    assert "unbound.csv" not in plain
    assert "that left the manifest" not in plain
    assert "80 devices that left the manifest" in page
    assert '<b>80</b><span class="name">unbound</span>' in page
    assert "These are 50 of them" in page
    assert "| unbound | 80 |" in extract
    for told in (page, extract):
        assert "unbound.csv" in told
        assert sum(code in told for code, *_ in rows[:80]) == 50


async def test_an_inbox_tells_of_a_leaver_that_failed(tmp_path):
    """No row of the file needs a person, and its device that stayed bound is told with why."""
    inbox, archive = tmp_path / "inbox", tmp_path / "done"
    inbox.mkdir()
    async with Sandbox(SandboxOptions(backup_lock_s=3600)) as sandbox:
        world = World(tmp_path, sandbox)
        settings = world.settings(sync=True, sync_name="fleet")
        await world.run(manifest=write_csv(inbox / "fleet.csv", ROWS), sync_name="fleet")
        write_csv(inbox / "fleet.csv", ROWS[1:])
        result = await run_inbox(inbox, archive, settings, min_age_s=0.0)

    told = of_inbox(result, Here()).text
    assert result.exit_code == 1
    assert "fleet.csv: none of 39 rows; it is now" in told
    assert "    left the manifest, 1 failed:" in told
    assert "13000902" in told
    written = json.loads((tmp_path / "report" / "inbox.json").read_text("utf-8"))
    jsonschema.validate(written, output_schema.inbox())
    (file,) = written["files"]
    assert file["leavers"] == {"failed": 1}
    assert [each["code"] for each in file["leaver_reasons"]] == ["13000902"]
