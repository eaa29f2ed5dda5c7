"""Taking bindings back, over a real ledger and a server in memory: those, no others, each once."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing

import pytest

from bulkbind.engine import Parts, Unbinder
from bulkbind.engine.retry import Retries
from bulkbind.engine.unbinder import CHUNK, GROUPS_AT_ONCE, _grouped
from bulkbind.ledger import UndoReader, reading
from bulkbind.ledger.ledger import Unbindings
from bulkbind.model import (
    Accepted,
    AuthExpired,
    Device,
    Listing,
    NoAnswer,
    QuotaUsedUp,
    Record,
    Refused,
    RunFacts,
    Throttled,
    Transient,
    UnbindKind,
    Unreachable,
)
from bulkbind.pacing import Pacer
from bulkbind.settings import ReadbackSettings, SendSettings
from tests.integration.test_engine import Bench
from tests.support.fakes import ERRED, LOST, NAMELESS, OTHERS

WHO = {"started_at": "now", "operator": "me", "host": "here", "pid": 1, "version": "0"}
DEVICES = [Device(f"u{n % 3}", f"SN{n}") for n in range(9)]
SETTLE_S = 5.0
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
        state, bound, *_ = await ledger.unbindings.undo_progress(run)
        if state not in ("confirmed", "sending", "stopped"):
            await ledger.unbindings.begin_undo(run, WHO)
        await ledger.unbindings.start_undo(run, WHO)
        heard: list[str] = []
        send = SendSettings(backoff_cap=5.0, max_attempts=SENT_AGAIN)
        unbinder = Unbinder(
            Parts(bench.server, ledger, bench.pacer, bench.stop, bench.clock),
            ledger.unbindings,
            Retries(bench.clock, bench.stop, bench.pacer, send),
            send,
            ReadbackSettings(readback_settle=SETTLE_S),
            on_settled=lambda items: heard.extend(item.machine_code for item in items),
        )
        await unbinder.run(run, UnbindKind.UNDO, 2**62)
        reason = bench.stop.reason.text if bench.stop.reason else None
        await ledger.unbindings.finish_undo(run, reason, RunFacts())
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


@pytest.mark.parametrize("lands_late", [False, True])
async def test_what_the_run_bound_is_gone(bench, lands_late):
    """Every device is unbound with one request, one list a user; ledger and server agree."""
    bench.server.lands_late = lands_late
    bench.server.put("u0", "OTHER")

    summary, rows = await undone(bench)

    assert (summary.state, statuses(rows)) == ("done", {"unbound": 9})
    assert not summary.needs_person
    assert set(bench.server.unbinds.values()) == {1}
    assert dict(bench.server.lists) == {"u0": 1, "u1": 1, "u2": 1}
    assert on_server(bench) == {"OTHER"}
    assert known(bench) == set()


def test_users_share_a_claim_but_the_first():
    """As many as have so many bindings together; who has more is alone."""
    users = {"a": 1, "b": CHUNK - 2, "c": 2, "d": CHUNK + 1, "e": 1, "f": 1}

    def grouped(*, is_first_alone):
        return list(_grouped(users, lambda: CHUNK, is_first_alone=is_first_alone))

    assert grouped(is_first_alone=True) == [["a"], ["b", "c"], ["d"], ["e", "f"]]
    assert grouped(is_first_alone=False) == [["a", "b"], ["c"], ["d"], ["e", "f"]]
    assert not list(_grouped({}, lambda: CHUNK, is_first_alone=True))


@pytest.mark.parametrize(("per_s", "most"), [(2.0 * GROUPS_AT_ONCE, 2), (0.5, 1), (None, 3)])
async def test_about_a_second_of_the_pace_is_claimed(bench, monkeypatch, per_s, most):
    """At a slow pace few are in question after a crash; else all of a group's are."""
    bench.pacer = bench.server.pacer = Pacer(bench.clock, bench.stop, per_s)
    claimed: list[int] = []
    claim = Unbindings.claim

    async def noted(self, items):
        claimed.append(len(items))
        await self.execute(claim, items)

    monkeypatch.setattr(Unbindings, "claim", noted)

    _, rows = await undone(bench)

    assert statuses(rows) == {"unbound": 9}
    assert max(claimed) == most if per_s else max(claimed) >= most


@pytest.mark.parametrize("lands_late", [False, True])
async def test_an_error_of_our_own_ends_it_once_what_has_left_is_back(bench, lands_late):
    """It is raised; what was answered is unbound, and the same undo goes on with the rest."""
    bench.server.lands_late = lands_late
    halt, judged = Unbinder._halt, iter(range(99))

    def failing(self, attempt):
        if attempt.message == "as planned" and next(judged) == 7:  # the list of a user is one, too
            raise ZeroDivisionError
        halt(self, attempt)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Unbinder, "_halt", failing)
        with pytest.raises(ExceptionGroup, match="unhandled") as caught:
            await undone(bench)
    left = set(on_server(bench))
    bench.renew()
    _, rows = await undone(bench)

    assert caught.group_contains(ZeroDivisionError, depth=1)
    assert len(left) < len(DEVICES)
    assert set(statuses(rows)) == {"unbound"}
    assert not on_server(bench)


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


async def test_an_unbind_that_is_done_after_anothers_refusal_has_not_failed(bench):
    """The list that is read at once still shows the device; the next one decides."""
    answer = bench.server.answer_unbind

    async def later(user_id, machine_code):
        await bench.clock.sleep(1.0)
        del bench.server.bindings[user_id][machine_code]

    async def refused_but_done(permit, user_id, device_id):
        if bench.later is not None:
            return await answer(permit, user_id, device_id)
        code = next(
            c for c, r in bench.server.bindings[user_id].items() if r.device_id == device_id
        )
        bench.later = asyncio.create_task(later(user_id, code), name="later")
        bench.pacer.report(permit, Refused())
        return bench.server._attempt(Refused(), bench.server._now())

    bench.later = None

    bench.server.answer_unbind = refused_but_done
    summary, rows = await undone(bench)

    assert bench.later is not None
    assert statuses(rows).keys() <= {"unbound", "already_gone"}
    assert not summary.needs_person


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
    assert words in stopped.stop_reason
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


@pytest.mark.parametrize(("gone", "sent"), [(["SN0"], 8), (["SN0", "SN3", "SN6"], 9)])
async def test_what_was_claimed_when_it_was_cut_off_counts_as_ours(bench, gone, sent):
    """A crash after the request left: it is `unbound`, not gone; only a lone one needs no other."""
    async with bench.ledger() as ledger:
        await ledger.unbindings.begin_undo(1, WHO)
        items = await ledger.unbindings.open_of(1, UnbindKind.UNDO, ["u0"], 2**62)
        await ledger.unbindings.claim([item for item in items if item.machine_code in gone])
    for code in gone:
        del bench.server.bindings["u0"][code]

    _, rows = await undone(bench)

    assert statuses(rows) == {"unbound": 9}
    assert sum(bench.server.unbinds.values()) == sent


# --- lists that lag behind ------------------------------------------------------------------------

ALL = {device.machine_code for device in DEVICES}
ONE_EACH = {"SN0", "SN1", "SN2"}


@pytest.mark.parametrize(
    ("lacks", "lists"),
    [
        ([ALL] * 3, 2),
        ([ALL] * 6, 2),
        ([ALL] * 99, 2),
        ([ONE_EACH] * 3, 2),
        ([ALL - ONE_EACH] * 6, 2),
        ([ONE_EACH] * 3 + [ALL - ONE_EACH] * 3, 2),
    ],
    ids=["first", "both", "all", "first-part", "both-part", "each-another-part"],
)
async def test_a_list_that_lags_behind_leaves_nothing_bound(bench, lacks, lists):
    """What lists lack is `already_gone` only if they prove it; else it is sent for, once."""
    bench.server.list_lacks.extend(lacks)

    summary, rows = await undone(bench)

    assert (summary.state, statuses(rows)) == ("done", {"unbound": 9})
    assert on_server(bench) == known(bench) == set()
    assert set(bench.server.unbinds.values()) == {1}
    assert set(bench.server.lists.values()) == {lists}


@pytest.mark.parametrize("lagging", [0, 3], ids=["right-lists", "wrong-at-first"])
async def test_users_without_any_device_left_are_gone_by_answer_and_list(bench, lagging):
    """Empty lists prove nothing; "no such binding", and a list that agrees, do."""
    bench.server.bindings.clear()
    bench.server.list_lacks.extend([ALL] * lagging)

    summary, rows = await undone(bench)

    assert (summary.state, statuses(rows)) == ("done", {"already_gone": 9})
    assert not summary.needs_person
    assert set(bench.server.lists.values()) == {3}
    assert known(bench) == set()


async def test_two_lists_are_a_settling_time_apart(bench):
    """A list that is right a little later is waited for, but no user waits for another."""
    bench.server.list_lacks.extend([ALL] * 3)
    began = bench.clock.monotonic()

    await undone(bench)

    assert SETTLE_S <= bench.clock.monotonic() - began < 2 * SETTLE_S


@pytest.mark.parametrize("is_vouched", [False, True])
async def test_a_refusal_of_another_kind_is_no_proof_without_a_list(bench, is_vouched):
    """A code that nobody knows: gone where the lists show the user's others, else failed."""
    if is_vouched:
        await bench.ran([Device("u0", "OTHER")], name="other")
    bench.server.missing = Refused()
    del bench.server.bindings["u0"]["SN0"], bench.server.bindings["u0"]["SN3"]

    _, rows = await undone(bench)

    end = "already_gone" if is_vouched else "failed"
    assert statuses(rows) == {end: 2, "unbound": 7}
    assert is_vouched or "up to date" in rows["SN0"].detail


async def test_a_device_that_may_not_be_unbound_is_not_gone(bench):
    """Refused twice, and on no list: failed, not `already_gone`; a second undo takes it back."""
    bench.server.unbind_planned.extend([Refused()] * 18)
    bench.server.list_lacks.extend([ALL] * 18)

    first, rows = await undone(bench)
    before = on_server(bench)
    second, again = await undone(bench)

    assert statuses(rows) == {"failed": 9}
    assert first.needs_person
    assert before == ALL
    assert statuses(again) == {"unbound": 9}
    assert not second.needs_person


async def test_what_was_not_found_is_looked_for_again(bench):
    """`already_gone` is no last word: the plan counts it, and a second undo finds what is there."""
    bench.server.unbind_planned.extend([Refused(is_missing=True)] * 9)
    bench.server.list_lacks.extend([ALL] * 9)

    _, rows = await undone(bench)
    async with bench.ledger() as ledger:
        planned = await ledger.unbindings.undo_progress(1)
    second, again = await undone(bench)
    async with bench.ledger() as ledger:
        left = await ledger.unbindings.undo_progress(1)
    sent = bench.server.unbinds.total()
    _, third = await undone(bench)

    assert statuses(rows) == {"already_gone": 9}
    assert planned == ("done", 9, 0, 0, 9)
    assert statuses(again) == second.counts == {"unbound": 9}
    assert on_server(bench) == set()
    assert left == ("done", 0, 0, 0, 0)
    assert statuses(third) == {"unbound": 9}
    assert bench.server.unbinds.total() == sent


async def test_a_second_list_that_cannot_be_read_proves_nothing(bench):
    """What the first list lacked is failed, what it showed is unbound."""
    del bench.server.bindings["u0"]["SN0"]
    honest = bench.server.list_devices

    async def list_devices(user_id):
        listing = await honest(user_id)
        if (user_id, bench.server.lists[user_id]) != ("u0", 2):
            return listing
        return Listing(bench.server._attempt(Refused(), 0.0), None)

    bench.server.list_devices = list_devices

    _, rows = await undone(bench)

    assert statuses(rows) == {"failed": 1, "unbound": 8}
    assert "cannot be read" in rows["SN0"].detail


async def test_stopped_between_two_lists_it_looks_twice_again(bench):
    """Nothing of the first list is believed by the next process."""
    bench.server.list_lacks.extend([ALL] * 6)
    honest = bench.server.list_devices

    async def list_devices(user_id):
        bench.stop_in(SETTLE_S / 2)
        return await honest(user_id)

    bench.server.list_devices = list_devices

    stopped, rows = await undone(bench)
    bench.renew()
    done, after = await undone(bench)

    assert (stopped.state, statuses(rows)) == ("stopped", {"pending": 9})
    assert (done.state, statuses(after)) == ("done", {"unbound": 9})
    assert set(bench.server.lists.values()) == {3}
    assert set(bench.server.unbinds.values()) == {1}


# --- answers that do not name the device ----------------------------------------------------------


@pytest.mark.parametrize("plan", [OTHERS, NoAnswer(names_another=True)], ids=["done", "not-done"])
async def test_an_answer_about_another_device_has_the_list_asked(bench, plan):
    """It proves nothing, whether it was done or not; at the end every device is unbound."""
    bench.server.unbind_planned.append(plan)

    _, rows = await undone(bench)

    assert statuses(rows) == {"unbound": 9}
    assert on_server(bench) == set()
    assert sorted(bench.server.unbinds.values()) == [*[1] * 8, 2]


async def test_answers_about_other_devices_never_count(bench):
    """All of them name another: what is still there has failed, after so many attempts."""
    bench.server.unbind_planned.extend([NoAnswer(names_another=True)] * 200)

    summary, rows = await undone(bench)

    assert statuses(rows) == {"failed": 9}
    assert {row.attempts for row in rows.values()} == {SENT_AGAIN}
    assert summary.needs_person
    assert on_server(bench) == known(bench) == ALL


async def test_an_answer_that_names_nothing_needs_the_list(bench):
    """Done: `unbound`, with one list more a user; not done: failed, whatever it said."""
    bench.server.unbind_planned.extend([NAMELESS] * 8 + [Accepted("", "")])

    _, rows = await undone(bench)

    assert statuses(rows) == {"unbound": 8, "failed": 1}
    assert len(on_server(bench)) == 1
    assert sorted(bench.server.lists.values()) == [2, 2, 3]
