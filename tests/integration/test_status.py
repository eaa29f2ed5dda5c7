"""What `status` says of a run that is sending, beside its ledger."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import pytest

from bulkbind.app.reports import status
from bulkbind.cli.commands.status import _lines
from bulkbind.clock import iso
from bulkbind.engine import Parts, Pipeline
from bulkbind.ledger import all_runs, went_well_at
from bulkbind.ledger.store import CODES
from bulkbind.model import Device, LiveFacts, Refused, RunFacts, Status, Waits
from bulkbind.pacing import Pacer
from bulkbind.report import as_json, as_text
from bulkbind.report.summary import sentence
from bulkbind.settings import ReadbackSettings, load_settings
from tests.integration.test_engine import ENDPOINT, Bench, devices
from tests.support.fakes import LOST
from tests.support.in_process import called


@pytest.fixture
async def sending(tmp_path):
    """Return a bench whose run of 400 rows at 10/s has been sending for eight seconds.

    The last five that it has sent are in doubt.
    """
    bench = Bench(tmp_path / "ledger.db")
    bench.pacer = bench.server.pacer = Pacer(bench.clock, bench.stop, 10.0)
    bench.readback = ReadbackSettings(readback=False)
    plans: list[str | None] = [None] * 75 + [LOST] * 5
    bench.server.planned.extend(plans)
    async with bench.ledger() as ledger:
        run = await bench.staged(ledger, devices(400))
        await ledger.start(run)
        began_at = iso(bench.clock.utc_now())
        parts = Parts(bench.server, ledger, bench.pacer, bench.stop, bench.clock)
        await Pipeline(parts, run, bench.send, bench.readback, 80).run()
        live = LiveFacts()
        live.run, live.began_at, live.at = run, began_at, iso(bench.clock.utc_now())
        live.allowed_per_s, live.waiting = 10.0, Waits(5, 4.0, 5.0)
        live.source, live.trouble = "set by --rate", "lists to be read for 5 devices"
        live.waits = "next request at 12:00:09, to keep within 10/s"
        live.spent = RunFacts({"requests": 80, "sending_s": 8.0, "paced_s": 7.5})
        await ledger.put_meta(LiveFacts.key, live.as_json())
    return bench


def told(bench, *, after_s=0.0):
    """Return what is said so much later."""
    bench.clock.advance(after_s)
    settings = load_settings(None, {"endpoint": ENDPOINT, "ledger": bench.path})
    return status(settings, clock=bench.clock)


async def test_a_rate_is_that_of_late(sending):
    """45 rows in the last 5 s are 9/s; those in doubt have not ended."""
    found = told(sending)

    assert found.done == 75
    assert found.measured_s == 5.0
    assert found.per_s == pytest.approx(9.0, abs=0.3)
    assert found.settled_s == pytest.approx(0.5, abs=0.1)  # more than the next one takes
    assert found.left_s == pytest.approx((320 - 1) / (found.per_s + 1 / 5) + 5.0)


async def test_a_pilot_has_less_left_than_its_manifest(sending):
    """What its process has still to settle counts, less what has ended since it said so."""
    with closing(sqlite3.connect(sending.path)) as db:
        (text,) = db.execute("SELECT value FROM meta WHERE key = 'live'").fetchone()
        pilot = json.loads(text) | {"to_do": 25, "waiting": [0, 0.0, 0.0]}
        db.execute("UPDATE meta SET value = ? WHERE key = 'live'", (json.dumps(pilot),))
        db.commit()
    found = told(sending)

    assert (found.done, found.to_do) == (75, 25)
    assert found.left_s == pytest.approx((25 - 1) / (found.per_s + 1 / 5))


async def test_a_slow_run_is_measured_over_the_time_there_was(sending):
    """Where few rows have ended in ten seconds; 75 in 18 s are no 75 in a minute."""
    found = told(sending, after_s=10.0)

    assert found.measured_s == pytest.approx(18.0, abs=0.3)
    assert found.per_s == pytest.approx(75 / found.measured_s)


async def test_what_was_before_a_limit_was_known_says_nothing_of_later(sending):
    """A first window was used up at once, and waited for: the rate is that since then."""
    with closing(sqlite3.connect(sending.path)) as db:
        (text,) = db.execute("SELECT value FROM meta WHERE key = 'live'").fetchone()
        known_at = iso(sending.clock.utc_now() - timedelta(seconds=2))
        learned = json.loads(text) | {"known_at": known_at}
        db.execute("UPDATE meta SET value = ? WHERE key = 'live'", (json.dumps(learned),))
        db.commit()
    found = told(sending)

    assert found.measured_s == pytest.approx(2.0, abs=0.01)
    assert found.per_s == pytest.approx(
        7.75, abs=0.3
    )  # 15 or 16 rows, as the last five are in doubt


async def test_a_run_that_is_ending_says_so_instead_of_a_rate(sending):
    """A rate of before and a time left by it would tell of what is not sent any more."""
    with closing(sqlite3.connect(sending.path)) as db:
        (text,) = db.execute("SELECT value FROM meta WHERE key = 'live'").fetchone()
        said = "interrupted (SIGINT); waits for 3 answers, until 12:00:28"
        ending = json.loads(text) | {"stopping": said, "is_blocked": True}
        db.execute("UPDATE meta SET value = ? WHERE key = 'live'", (json.dumps(ending),))
        db.commit()
    found = told(sending)

    assert found.left_s is None
    assert _lines(found, "resume it with")[1:] == [
        "sending: pid 1 on here",
        f"stopping: {said}",
    ]


async def test_a_process_that_says_nothing_is_told_so(sending):
    """It is suspended, or hangs: neither its last words nor a rate are true any more."""
    assert not told(sending, after_s=4.0).is_mute
    found = told(sending, after_s=15.0)

    assert found.left_s is None
    assert _lines(found, "resume it with")[1:] == [
        "sending: pid 1 on here",
        "its process has said nothing for 19 s",
    ]


async def test_it_says_why_it_waits_and_what_the_time_went_to(sending):
    """What its process said last, and what it spent, in the lines of the summary."""
    found = told(sending)
    lines = _lines(found, "resume it with")

    assert lines[0].startswith("ended: 75 of 400, the last at ")
    assert lines[1] == "sending: pid 1 on here"
    assert lines[2].startswith("9.")
    assert lines[2].endswith("/s of 10/s (set by --rate)  ·  8 s so far  ·  about 39 s left")
    assert lines[3:] == [
        "waiting: next request at 12:00:09, to keep within 10/s",
        "lists to be read for 5 devices",
    ]
    assert found.summary.facts.account() == [("keeping to the pace", 7.5), ("sending", 0.5)]


async def test_it_says_how_workers_are_doing(sending):
    """Alive, rate, in hand and lost, in a line and as JSON; of earlier parts, the summary."""
    states = [
        {"number": 1, "pid": 11, "is_alive": True, "settled": 40, "in_hand": 7, "per_s": 9.0,
         "lost": ""},
        {"number": 2, "pid": 12, "is_alive": False, "settled": 35, "in_hand": 0, "per_s": 8.0,
         "lost": "ended by signal 9"},
    ]  # fmt: skip
    with closing(sqlite3.connect(sending.path)) as db:
        (text,) = db.execute("SELECT value FROM meta WHERE key = 'live'").fetchone()
        live = json.loads(text)
        live["spent"] |= {"workers": states, "own_settled": 5}
        db.execute("UPDATE meta SET value = ? WHERE key = 'live'", (json.dumps(live),))
        db.commit()
    found = told(sending)

    line = "1 of 2 sending at 9/s; 7 rows in hand; worker 2 lost: ended by signal 9"
    assert _lines(found, "resume it with")[3] == f"workers: {line}"
    assert as_json(found.summary)["workers"] == states
    text = "2 workers with 40 and 35 rows; worker 2 lost: ended by signal 9"
    assert f"sent by: the run's own process with 5 rows, {text}" in as_text(found.summary)
    found.summary.facts.cut_offs = 1
    assert f"sent by, at least: the run's own process with 5 rows, {text}" in as_text(found.summary)

    gone = {"pid": 2**22 + 1, "host": socket.gethostname(), "started_at": "now"}
    sending.path.with_name("ledger.db.lock").write_text(json.dumps(gone))

    workers = told(sending).summary.facts.workers
    assert [(worker["is_alive"], worker["settled"]) for worker in workers] == [
        (False, 40),
        (False, 35),
    ]


async def test_while_the_endpoint_is_away_no_time_is_left(sending):
    """Nobody knows for how long; why it waits is told."""
    with closing(sqlite3.connect(sending.path)) as db:
        (text,) = db.execute("SELECT value FROM meta WHERE key = 'live'").fetchone()
        away = json.loads(text) | {"is_blocked": True, "waits": "the endpoint is away: refused"}
        db.execute("UPDATE meta SET value = ? WHERE key = 'live'", (json.dumps(away),))
        db.commit()
    found = told(sending)

    assert found.left_s is None
    assert not any("left" in line for line in _lines(found, "resume it with"))
    assert "waiting: the endpoint is away: refused" in _lines(found, "resume it with")


@pytest.mark.parametrize(
    ("pid", "host", "state"),
    [
        pytest.param(os.getpid(), None, "sending", id="it lives"),
        pytest.param(2**22 + 1, None, "cut off", id="it is gone"),
        pytest.param(2**22 + 1, "elsewhere", "sending", id="nobody can know here"),
    ],
)
async def test_a_run_whose_process_is_gone_is_cut_off(sending, pid, host, state):
    """In `runs`, `status` and both as JSON; whoever went on with it has the lock."""
    holder = {"pid": pid, "host": host or socket.gethostname(), "started_at": "now"}
    sending.path.with_name("ledger.db.lock").write_text(json.dumps(holder))

    found = told(sending)

    assert found.summary.shown_state == as_json(found.summary)["state"] == state
    assert [run["state"] for run in all_runs(sending.path)] == [state]
    assert found.is_sending == (state == "sending")
    assert any(line.startswith("cut off: ") for line in _lines(found, "resume it with")) == (
        state == "cut off"
    )
    assert f"run run: {state}, 400 rows" in as_text(found.summary)


@pytest.mark.parametrize("is_gone", [True, False])
async def test_what_a_cut_off_run_may_have_sent_is_told_before_the_next_one(sending, is_gone):
    """With the count and the words of the next run; while it sends, nothing is in question."""
    with closing(sqlite3.connect(sending.path)) as db:
        db.execute(
            "UPDATE stored_rows SET status = ? WHERE id IN "
            "(SELECT id FROM stored_rows WHERE status = ? LIMIT 3)",
            (CODES[Status.CLAIMED], CODES[Status.STAGED]),
        )
        db.commit()
    pid = 2**22 + 1 if is_gone else os.getpid()
    holder = {"pid": pid, "host": socket.gethostname(), "started_at": "now"}
    sending.path.with_name("ledger.db.lock").write_text(json.dumps(holder))

    summary = told(sending).summary

    left = "320 are left; up to 3 rows may have been sent without an answer."
    assert (left in sentence(summary)) is is_gone
    assert ("sent: at least 80 requests" in as_text(summary)) is is_gone
    assert as_json(summary).get("unanswered") == (3 if is_gone else None)
    async with sending.ledger() as ledger:
        assert (await ledger.unsettled(1))[1] == 5 + 3
        await ledger.start(1)
    assert "sent: at least 80 requests" in as_text(told(sending).summary)


@pytest.mark.parametrize(("state", "done"), [("sending", 75), ("stopped", 75), ("done", 80)])
async def test_what_is_in_doubt_has_ended_only_with_its_run(sending, state, done):
    """Of 75 bound and five in doubt: a run that can go on looks these up."""
    with closing(sqlite3.connect(sending.path)) as db:
        db.execute("UPDATE runs SET state = ?", (state,))
        db.commit()

    assert told(sending).done == done


async def test_a_run_whose_place_another_took_is_not_gone_on_with(sending):
    """What is left of it is the other's, or withdrawn."""
    found = told(sending)
    summary = replace(found.summary, is_cut_off=True, superseded_by="later")

    assert _lines(replace(found, summary=summary), "what goes on")[1:] == [
        "run later took its place"
    ]


@pytest.mark.parametrize(
    ("pid", "host", "state", "shown"),
    [
        pytest.param(os.getpid(), socket.gethostname(), "sending", "undo not finished", id="lives"),
        pytest.param(2**22 + 1, socket.gethostname(), "cut off", "undo cut off", id="is gone"),
        pytest.param(2**22 + 1, "elsewhere", "sending", "undo not finished", id="nobody knows"),
    ],
)
async def test_an_undo_whose_process_is_gone_is_cut_off(tmp_path, pid, host, state, shown):
    """In `runs`, `status` and both as JSON, with the command that goes on with it."""
    bench = Bench(tmp_path / "ledger.db")
    await bench.ran(devices(3))
    who = {"started_at": "now", "operator": "me", "host": "first", "pid": 1, "version": "0"}
    async with bench.ledger() as ledger:
        await ledger.unbindings.begin_undo(1, who)
        await ledger.unbindings.start_undo(1, who | {"pid": pid, "host": host})
    given = ("--endpoint", ENDPOINT, "--ledger", bench.path)
    listed = called("runs", *given, home=tmp_path).stdout
    found = told(bench)

    assert found.summary.undo == {"state": state, "counts": {"pending": 3}}
    assert [run["undo"]["state"] for run in all_runs(bench.path)] == [state]
    assert f"  {shown}  " in listed
    assert f"3 pending ({state})" in as_text(found.summary)
    goes_on = any("bulkbind undo run" in line for line in _lines(found, "resume it with"))
    assert goes_on == (state == "cut off")


async def test_when_it_last_went_well_is_read_from_the_ledger(tmp_path):
    """Of runs of the same manifests, or of those of an inbox; None if none has."""
    bench = Bench(tmp_path / "ledger.db")
    assert went_well_at(bench.path, ENDPOINT, ["in/a.csv"]) is None
    await bench.ran(devices(2), "in/a.csv")
    bench.server.planned.append(Refused())
    await bench.ran([Device("u", "SN9")], "in/a.csv")
    with closing(sqlite3.connect(bench.path)) as db:
        ((ended_at,), *_) = db.execute("SELECT ended_at FROM runs ORDER BY run").fetchall()

    assert went_well_at(bench.path, ENDPOINT, ["in/a.csv"]) == ended_at
    assert went_well_at(bench.path, ENDPOINT, ["in"]) == ended_at
    assert went_well_at(bench.path, ENDPOINT, ["in"], ended_at) is None, "nor in this very command"
    assert went_well_at(bench.path, ENDPOINT, ["other.csv"]) is None
    assert told(bench).problems == ("in/a.csv:2 SN9: failed: Refused: as planned",)
