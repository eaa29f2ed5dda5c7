"""Taking bindings back, over a real ledger and a server in memory: those, no others, each once."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from bulkbind.engine import Unbinder
from bulkbind.engine.retry import Retries
from bulkbind.ledger import UndoReader, reading
from bulkbind.model import (
    AuthExpired,
    Device,
    Listing,
    NoAnswer,
    QuotaUsedUp,
    Record,
    Refused,
    Throttled,
    Transient,
    UnbindKind,
    Unreachable,
)
from tests.fakes import ERRED, LOST
from tests.integration.test_engine import Bench

WHO = {"started_at": "now", "operator": "me", "host": "here", "pid": 1, "version": "0"}
DEVICES = [Device(f"u{n % 3}", f"SN{n}") for n in range(9)]
SENT_AGAIN = 6
"""Attempts that a binding gets."""


@pytest.fixture
async def bench(tmp_path):
    """Return a bench on which a run has bound all devices."""
    made = Bench(tmp_path / "ledger.db")
    await made.ran(DEVICES)
    return made


async def undone(bench, run=1):
    """Undo the run, or go on with that; return the state and the statuses by machine code."""
    async with bench.ledger() as ledger:
        state, bound, _, _ = await ledger.unbindings.to_undo(run)
        if state not in ("confirmed", "sending", "stopped"):
            await ledger.unbindings.begin_undo(run, WHO)
        await ledger.unbindings.start_undo(run)
        heard: list[str] = []
        unbinder = Unbinder(
            bench.server,
            ledger.unbindings,
            bench.stop,
            Retries(bench.clock, bench.stop, bench.pacer, base_s=0.5, cap_s=5.0),
            max_attempts=SENT_AGAIN,
            max_wait_s=120.0,
            on_settled=lambda items: heard.extend(item.machine_code for item in items),
        )
        await unbinder.run(run, UnbindKind.UNDO, 2**62)
        reason = bench.stop.reason.text if bench.stop.reason else None
        await ledger.unbindings.finish_undo(run, reason, {})
    with reading(bench.path) as db:
        reader = UndoReader(db, run)
        summary = reader.summary()
        assert summary is not None
        rows = {row.machine_code: row for row in reader.rows()}
    assert len(heard) == len(set(heard)) <= max(bound, len(DEVICES))
    return summary, rows


def statuses(rows) -> dict[str, int]:
    """Return how many rows have which status."""
    found: dict[str, int] = {}
    for row in rows.values():
        found[row.status] = found.get(row.status, 0) + 1
    return found


def known(bench) -> set[str]:
    """Return what the ledger knows as bound."""
    with closing(sqlite3.connect(bench.path)) as db:
        return {row[0] for row in db.execute("SELECT machine_code FROM bindings")}


def on_server(bench) -> set[str]:
    """Return what is bound."""
    return {code for devices in bench.server.bindings.values() for code in devices}


async def test_what_the_run_bound_is_gone(bench):
    """Every device is unbound with one request, one list a user; ledger and server agree."""
    bench.server.put("u0", "OTHER")

    summary, rows = await undone(bench)

    assert (summary.state, statuses(rows)) == ("done", {"unbound": 9})
    assert not summary.needs_person
    assert set(bench.server.unbinds.values()) == {1}
    assert dict(bench.server.lists) == {"u0": 1, "u1": 1, "u2": 1}
    assert on_server(bench) == {"OTHER"}
    assert known(bench) == set()


async def test_what_is_not_the_runs_any_more_is_left_alone(bench):
    """Gone meanwhile: already_gone, no request; under another device id: changed, no request."""
    del bench.server.bindings["u0"]["SN0"]
    bench.server.bindings["u1"]["SN1"] = Record("SN1", "another", "2026-11-23T13:00:00Z")

    summary, rows = await undone(bench)

    assert statuses(rows) == {"already_gone": 1, "changed": 1, "unbound": 7}
    assert summary.needs_person
    assert "another" in rows["SN1"].detail
    assert sum(bench.server.unbinds.values()) == 7
    assert on_server(bench) == {"SN1"}
    assert known(bench) == {"SN1"}


@pytest.mark.parametrize(
    "plan",
    [LOST, ERRED, Transient(), NoAnswer(), Throttled(retry_after_s=2.0), Unreachable()],
    ids=str,
)
async def test_trouble_that_passes_is_waited_out(bench, plan):
    """Silence and errors are asked for again; what they had unbound for all that is `unbound`."""
    bench.server.unbind_planned.extend([plan] * 4)

    summary, rows = await undone(bench)

    assert (summary.state, statuses(rows)) == ("done", {"unbound": 9})
    assert on_server(bench) == set()
    was_done = plan in (LOST, ERRED)
    told = [row for row in rows.values() if "no answer came" in row.detail]
    assert bool(told) == was_done


async def test_a_refusal_is_a_failure_only_if_the_list_still_shows_it(bench):
    """A no, and the device still there: failed, with the server's words; a second undo tries it."""
    bench.server.unbind_planned.append(Refused())

    first, rows = await undone(bench)
    second, again = await undone(bench)

    assert statuses(rows) == {"failed": 1, "unbound": 8}
    assert first.needs_person
    assert next(r for r in rows.values() if r.status == "failed").message == "as planned"
    assert statuses(again) == {"unbound": 9}
    assert not second.needs_person


async def test_endless_errors_fail_after_so_many_attempts(bench):
    """A device whose attempts are used up is failed, and named; the others are unbound."""
    bench.server.unbind_planned.extend([Transient()] * 200)

    summary, rows = await undone(bench)

    assert statuses(rows) == {"failed": 9}
    assert {row.attempts for row in rows.values()} == {SENT_AGAIN}
    assert summary.needs_person


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (AuthExpired(), "credentials"),
        (QuotaUsedUp(), "quota"),
        (Refused(set_up=True), "set-up"),
        (Throttled(limit=1.0, window_s=86_400.0), "used up"),
    ],
    ids=["token", "quota", "set-up", "limit-a-day"],
)
async def test_what_no_other_device_would_bear_stops_it(bench, verdict, words):
    """At the first list: nothing is sent, nothing has failed; later the same undo goes on."""
    bench.server.list_planned.append(verdict)

    stopped, rows = await undone(bench)
    bench.renew()
    done, after = await undone(bench)

    assert (stopped.state, statuses(rows)) == ("stopped", {"pending": 9})
    assert words in stopped.facts["stop_reason"]
    assert not stopped.needs_person
    assert (done.state, statuses(after)) == ("done", {"unbound": 9})


@pytest.mark.parametrize("verdict", [AuthExpired(), QuotaUsedUp()], ids=["token", "quota"])
async def test_credentials_lost_in_the_middle_lose_nothing(bench, verdict):
    """What was unbound stays told, the rest is pending, and the same undo goes on."""
    bench.server.unbind_planned.extend([LOST, verdict, verdict, verdict])

    stopped, rows = await undone(bench)
    bench.renew()
    bench.server.unbind_planned.clear()
    done, after = await undone(bench)

    assert stopped.state == "stopped"
    assert statuses(rows)["pending"] >= 1
    assert (done.state, statuses(after)) == ("done", {"unbound": 9})
    assert on_server(bench) == set()


async def test_one_user_whose_list_is_refused_fails_alone(bench):
    """Once the set-up is proven, a list that is refused concerns its user's devices only."""
    async with bench.ledger() as ledger:
        await ledger.unbindings.begin_undo(1, WHO)
    honest = bench.server.list_devices

    async def list_devices(user_id):
        listing = await honest(user_id)
        if user_id != "u2":
            return listing
        return Listing(bench.server._attempt(Refused(set_up=True), 0.0), None)

    bench.server.list_devices = list_devices

    summary, rows = await undone(bench)

    assert statuses(rows) == {"failed": 3, "unbound": 6}
    assert {row.user_id for row in rows.values() if row.status == "failed"} == {"u2"}
    assert summary.needs_person


async def test_what_was_claimed_when_it_was_cut_off_counts_as_ours(bench):
    """A crash after the request left: the list shows it no more, and it is `unbound`, not gone."""
    async with bench.ledger() as ledger:
        await ledger.unbindings.begin_undo(1, WHO)
        items = await ledger.unbindings.open_of(1, UnbindKind.UNDO, "u0", 2**62)
        await ledger.unbindings.claim(items)
    bench.server.bindings["u0"].clear()

    _, rows = await undone(bench)

    assert statuses(rows) == {"unbound": 9}
    assert sum(bench.server.unbinds.values()) == 6
