"""Runs that unbind, over a real ledger and a server in memory: what the list names, and no more."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from contextlib import closing

import pytest

from bulkbind.app.session.leaving import Leaving
from bulkbind.app.session.listener import Listener
from bulkbind.app.session.session import Session
from bulkbind.app.unbind import unbind
from bulkbind.engine import Parts, StopReason, Unbinder
from bulkbind.engine.retry import Retries
from bulkbind.errors import ExitCode, UsageError
from bulkbind.ledger import RunReader, prune, reading, unbound_by
from bulkbind.model import (
    CheckedRow,
    Device,
    Record,
    Refused,
    RunFacts,
    RunKind,
    RunState,
    Source,
    Status,
    Transient,
    UnbindKind,
)
from bulkbind.settings import ReadbackSettings, SendSettings, Settings
from tests.integration.test_engine import ENDPOINT, HOLDER, Bench
from tests.support.fakes import LOST
from tests.support.rows import values as row_values

DEVICES = [Device(f"u{n % 3}", f"SN{n}") for n in range(9)]
LIST = DEVICES[:6]
FORM = Source("leavers.csv", "csv", "utf-8", bom=False, header=("machine_code",))
SETTLE_S = 5.0


@pytest.fixture
async def bench(tmp_path):
    """Return a bench on which a run has bound all devices."""
    made = Bench(tmp_path / "ledger.db")
    await made.ran(DEVICES)
    return made


async def listed(ledger, devices, *, takes_any=False, name="leave"):
    """Stage and confirm a run that unbinds devices; return its number."""
    values = {"run_id": name, "kind": RunKind.UNBIND, "digest": name, "created_at": "now"}
    values |= {"operator": "me", "host": "here", "pid": 1, "version": "0", "settings": "{}"}
    run = await ledger.begin(values)
    facts = RunFacts()
    facts.takes_any = takes_any
    await ledger.add_facts(run, facts)
    rows = [
        CheckedRow(line, [d.machine_code], row_values(d.user_id, d.machine_code))
        for line, d in enumerate(devices, start=2)
    ]
    await ledger.stage(run, 0, FORM, 0, rows, rebind=False, on_batch=lambda _: None)
    await ledger.ready(run)
    await ledger.confirm(run)
    return run


async def sent(bench, ledger, run, first=None):
    """Send a run that unbinds, and end it; return its state and what was told to have ended."""
    settings = Settings(
        send=SendSettings(backoff_cap=5.0), doubt=ReadbackSettings(readback_settle=SETTLE_S)
    )
    session = Session(settings, bench.clock, bench.stop, Listener())
    parts = Parts(bench.server, ledger, bench.pacer, bench.stop, bench.clock)
    heard: list[int] = []

    def on_settled(ended):
        heard.extend(claim.row for claim, _ in ended)

    ledger.on_settled = on_settled
    await ledger.start(run)
    await Leaving(session, ledger, parts, run, on_settled).send(first)
    reason = bench.stop.reason.text if bench.stop.reason else None
    state = await ledger.finish(run, reason, RunFacts())
    assert len(heard) == len(set(heard))
    return state


async def left(bench, devices, **options):
    """Do the whole of a run that unbinds; return its state and its rows by machine code."""
    async with bench.ledger() as ledger:
        run = await listed(ledger, devices, **options)
        state = await sent(bench, ledger, run)
    return state, {row.machine_code: row for row in bench.rows(run)}


def statuses(rows) -> dict[str, int]:
    """Return how many rows have which status."""
    found: dict[str, int] = {}
    for row in rows.values():
        found[row.status] = found.get(row.status, 0) + 1
    return found


def held(bench) -> dict[str, str]:
    """Return whose the known bindings are, by machine code."""
    with closing(sqlite3.connect(bench.path)) as db:
        return dict(db.execute("SELECT machine_code, held FROM bindings"))


def on_server(bench) -> set[str]:
    """Return what is bound."""
    return {code for devices in bench.server.bindings.values() for code in devices}


async def test_exactly_the_list_leaves(bench):
    """One list a user and one request a device; ledger and server agree."""
    bench.server.put("u0", "OTHER")

    state, rows = await left(bench, LIST)

    assert (state, statuses(rows)) == (RunState.DONE, {"unbound": 6})
    assert dict(bench.server.lists) == {"u0": 1, "u1": 1, "u2": 1}
    assert set(bench.server.unbinds.values()) == {1}
    assert on_server(bench) == {"OTHER", "SN6", "SN7", "SN8"}
    assert set(held(bench)) == {"SN6", "SN7", "SN8"}
    assert rows["SN0"].device_id


async def test_what_is_not_ours_stays_and_costs_nothing(bench):
    """Found by a run, bound for another user, never bound: not one list is read for them."""
    bench.server.put("u9", "FOUND", age_s=3600)
    await bench.ran([Device("u9", "FOUND")], name="found")
    bench.server.lists.clear()
    assert held(bench)["FOUND"] == "found"

    strange = [Device("u9", "FOUND"), Device("u9", "SN0"), Device("u9", "NEVER")]
    state, rows = await left(bench, strange)

    assert (state, statuses(rows)) == (RunState.DONE, {"not_ours": 3})
    assert not bench.server.lists
    assert not bench.server.unbinds
    assert rows["SN0"].detail == "bound to user u0"


async def test_what_was_found_is_ours_once_a_run_binds_it_anew(bench):
    """Found again as it was, it stays found; bound anew, it is this run's, and may leave."""
    device = Device("u9", "FOUND")
    bench.server.put("u9", "FOUND", age_s=3600)
    await bench.ran([device], name="found")
    await bench.ran([device], name="found again", rebind=True)
    assert held(bench)["FOUND"] == "found"
    del bench.server.bindings["u9"]["FOUND"]
    await bench.ran([device], name="anew", rebind=True)
    assert held(bench)["FOUND"] == "bound"
    await bench.ran([device], name="still", rebind=True)

    _, rows = await left(bench, [device])

    assert rows["FOUND"].status == "unbound"


async def test_without_lists_nothing_is_unbound(tmp_path):
    """The call is refused before anything is read or sent."""
    settings = Settings(doubt=ReadbackSettings(readback=False))

    with pytest.raises(UsageError, match="`readback` is off"):
        await unbind([tmp_path / "leavers.csv"], settings, devices=1)


async def test_a_second_night_sends_nothing(bench):
    """What has left is known to be gone, until it is bound again."""
    await left(bench, LIST)
    bench.server.lists.clear()

    state, rows = await left(bench, LIST, name="again")

    assert (state, statuses(rows)) == (RunState.DONE, {"already_gone": 6})
    assert not bench.server.lists
    bench.renew()
    await bench.ran(LIST[:2], name="back")
    _, rows = await left(bench, LIST, name="third")
    assert statuses(rows) == {"already_gone": 4, "unbound": 2}


async def test_a_pruned_ledger_still_knows_what_has_left(bench):
    """The rows are gone; the same list sends nothing for all that."""
    await left(bench, LIST)
    found = prune(bench.path, ENDPOINT, HOLDER, before="9", now="9", is_trial=False)
    assert found.rows == 15
    bench.server.lists.clear()

    _, rows = await left(bench, LIST, name="again")

    assert statuses(rows) == {"already_gone": 6}
    assert not bench.server.lists


@pytest.mark.parametrize("plan", [LOST, Transient(), Refused(is_missing=True)], ids=str)
async def test_trouble_of_an_unbind_is_settled_by_lists(bench, plan):
    """No answer, an error, or a wrong "not there": in the end what is unbound is said to be."""
    bench.server.unbind_planned.extend([plan] * 3)

    state, rows = await left(bench, LIST)

    assert state is RunState.DONE
    assert set(statuses(rows)) <= {"unbound", "already_gone", "failed"}
    bound = {code for code, row in rows.items() if row.status == "failed"}
    assert on_server(bench) == {"SN6", "SN7", "SN8"} | bound


async def test_any_takes_what_two_lists_show(bench):
    """Another's, another id of ours; what only one list shows is not unbound."""
    bench.server.put("u0", "OTHER")
    bench.server.put("u1", "LATE")
    bench.server.bindings["u1"]["SN1"] = Record("SN1", "another", "2026-11-23T13:00:00Z")
    bench.server.list_lacks.extend([{"LATE"}, {"LATE"}, {"LATE"}])
    meant = [*LIST, Device("u0", "OTHER"), Device("u1", "LATE"), Device("u2", "NEVER")]

    state, rows = await left(bench, meant, takes_any=True)

    assert state is RunState.DONE
    told = {code: row.status for code, row in rows.items()}
    assert told.pop("LATE") == "failed"
    assert told.pop("NEVER") == "already_gone"
    assert set(told.values()) == {"unbound"}
    assert on_server(bench) == {"LATE", "SN6", "SN7", "SN8"}
    assert rows["SN1"].device_id == "another"
    with reading(bench.path) as db:
        assert {device.machine_code for device in unbound_by(db, 2)} == set(told)


async def test_a_pilot_unbinds_the_first_rows(bench):
    """So many, in the order of the list; the run stops, and the rest is left."""
    async with bench.ledger() as ledger:
        run = await listed(ledger, LIST)
        state = await sent(bench, ledger, run, first=2)

    assert state is RunState.STOPPED
    assert bench.counts(run) == {"unbound": 2, "pending": 4}
    assert on_server(bench) == {d.machine_code for d in DEVICES[2:]}


@pytest.fixture
def stop_at(bench, monkeypatch):
    """Return what stops the run as the last of so many calls of a kind is answered."""

    def stop_at(call, number):
        made = getattr(bench.server, call)
        calls = itertools.count(1)

        async def counted(*args):
            answer = await made(*args)
            if next(calls) == number:
                bench.stop.set(StopReason("enough", ExitCode.INTERRUPTED))
            return answer

        monkeypatch.setattr(bench.server, call, counted)

    return stop_at


@pytest.mark.parametrize(("call", "number"), [("answer_unbind", 2), ("list_devices", 2)])
async def test_what_got_no_answer_is_looked_up_before_a_stop_ends(bench, stop_at, call, number):
    """Carried out and not answered, and stopped then, or while the first list is read for it."""
    bench.server.unbind_planned.extend([LOST] * 100)
    stop_at(call, number)
    async with bench.ledger() as ledger:
        run = await listed(ledger, LIST)
        state = await sent(bench, ledger, run)

    assert bench.counts(run) == {"unbound": 2, "pending": 4}
    assert state is RunState.STOPPED
    assert len(on_server(bench)) == len(DEVICES) - 2


async def test_where_all_of_a_user_leaves_a_stop_asks_once_more(bench, stop_at):
    """An empty list proves nothing; the server says of each that it is not there."""
    bench.server.unbind_planned.extend([LOST] * 3)
    stop_at("answer_unbind", 3)
    async with bench.ledger() as ledger:
        run = await listed(ledger, DEVICES)
        await sent(bench, ledger, run)

    assert bench.counts(run) == {"unbound": 3, "pending": 6}
    assert len(on_server(bench)) == 6


async def test_doubt_is_settled_before_a_device_counts_as_not_ours(bench):
    """A bind that got no answer: the list says that it is ours, and then it leaves."""
    doubtful = [Device("u0", "DOUBT")]
    async with bench.ledger() as ledger:
        run = await bench.staged(ledger, doubtful, name="doubtful")
        await ledger.start(run)
        await ledger.claim(run, 0, 1, bench.server.server_time())
        bench.server.put("u0", "DOUBT")

    state, rows = await left(bench, doubtful)

    assert bench.counts(run) == {"bound": 1}

    assert (state, rows["DOUBT"].status) == (RunState.DONE, "unbound")
    assert "DOUBT" not in on_server(bench)


async def claimed(ledger, run, kind):
    """Leave a run with all requests to unbind on their way, as a kill does."""
    await ledger.start(run)
    for user in await ledger.unbindings.users(run, kind, 2**62):
        items = await ledger.unbindings.open_of(run, kind, [user], 2**62)
        await ledger.unbindings.claim(items)


async def cut_off(bench, devices):
    """Stage a run that unbinds, and leave it as a kill does."""
    async with bench.ledger() as ledger:
        run = await listed(ledger, devices)
        await claimed(ledger, run, UnbindKind.LEAVE)
    return run


async def find_out(bench, ledger, run):
    """Look up what other runs may have unbound."""
    parts = Parts(bench.server, ledger, bench.pacer, bench.stop, bench.clock)
    retries = Retries(bench.clock, bench.stop, bench.pacer, bench.send)
    unbinder = Unbinder(
        parts, ledger.unbindings, retries, bench.send, bench.readback, on_settled=print
    )
    await unbinder.find_out(run)


async def test_what_was_on_its_way_is_in_doubt_until_it_is_gone_on_with(bench):
    """Half of the requests were carried out: the rest is sent, and all is said to be unbound."""
    run = await cut_off(bench, LIST)
    for device in LIST[:3]:
        del bench.server.bindings[device.user_id][device.machine_code]

    async with bench.ledger() as ledger:
        assert bench.counts(run) == {"in_doubt": 6}
        state = await sent(bench, ledger, run)

    assert (state, bench.counts(run)) == (RunState.DONE, {"unbound": 6})
    assert on_server(bench) == {"SN6", "SN7", "SN8"}


async def test_a_run_that_takes_its_place_looks_up_and_sends_nothing(bench):
    """What is gone is `unbound`, what is there `failed`; what the new run names is bound."""
    run = await cut_off(bench, LIST)
    gone = LIST[:3]
    for device in gone:
        del bench.server.bindings[device.user_id][device.machine_code]
    wanted = [LIST[0], LIST[5], DEVICES[8]]

    async with bench.ledger() as ledger:
        instead = await bench.staged(ledger, wanted, name="instead")
        with reading(bench.path) as db:
            doubted = RunReader(db, instead).counts()
        await find_out(bench, ledger, instead)
        state = await bench.sent(ledger, instead)

    assert doubted == {"in_doubt": 2, "skipped": 1}
    assert state is RunState.DONE
    assert not bench.server.unbinds
    told = {row.machine_code: row.status for row in bench.rows(run)}
    assert told == {
        **{device.machine_code: "unbound" for device in gone},
        **{device.machine_code: "failed" for device in LIST[3:]},
    }
    assert on_server(bench) == {d.machine_code for d in DEVICES} - {"SN1", "SN2"}
    assert set(held(bench)) == on_server(bench)


async def test_moves_that_were_cut_off_are_looked_up_by_the_run_that_takes_their_place(bench):
    """What is gone is not taken for known, and nothing of the older run is sent."""
    moved = [Device("v", device.machine_code) for device in DEVICES[:3]]
    async with bench.ledger() as ledger:
        run = await bench.staged(ledger, moved, name="moves", move=True)
        await claimed(ledger, run, UnbindKind.MOVE)
    del bench.server.bindings["u0"]["SN0"]

    async with bench.ledger() as ledger:
        instead = await bench.staged(ledger, DEVICES, name="instead")
        doubted = bench.counts(instead)
        await find_out(bench, ledger, instead)
        state = await bench.sent(ledger, instead)

    assert doubted == {"in_doubt": 3, "skipped": 6}
    assert state is RunState.DONE
    assert not bench.server.unbinds
    assert [row.status for row in bench.rows(run)] == ["withdrawn", "moved", "moved"]
    assert "still bound" in bench.rows(run)[1].detail
    assert on_server(bench) == {d.machine_code for d in DEVICES}
    assert "SN0" in bench.server.bindings["u0"]
    assert set(held(bench)) == on_server(bench)


async def test_what_was_not_sent_is_withdrawn(bench):
    """Another run takes its place: nothing of the list is unbound by surprise."""
    async with bench.ledger() as ledger:
        run = await listed(ledger, LIST)
        instead = await listed(ledger, LIST[:1], name="instead")
        state = await sent(bench, ledger, instead)

    assert state is RunState.DONE
    assert bench.counts(run) == {"withdrawn": 6}
    assert on_server(bench) == {d.machine_code for d in DEVICES[1:]}


@pytest.mark.parametrize("takes_any", [False, True])
async def test_a_pilot_counts_rows_that_are_sent(bench, takes_any):
    """Gone already, or bound anew: nothing is sent for them, and the next row is taken."""
    del bench.server.bindings["u0"]["SN0"]
    if not takes_any:
        bench.server.bindings["u1"]["SN1"] = Record("SN1", "another", "2026-11-23T13:00:00Z")
    async with bench.ledger() as ledger:
        run = await listed(ledger, LIST, takes_any=takes_any)
        state = await sent(bench, ledger, run, first=2)

    gone = {row.machine_code for row in bench.rows(run) if row.status == "unbound"}
    assert state is RunState.STOPPED
    assert bench.server.unbinds.total() == 2
    assert gone == ({"SN1", "SN2"} if takes_any else {"SN2", "SN3"})
    bench.renew()

    async with bench.ledger() as ledger:
        state = await sent(bench, ledger, run, first=99)

    assert state is RunState.DONE
    assert on_server(bench) == {"SN6", "SN7", "SN8"} | (set() if takes_any else {"SN1"})


async def test_a_stop_leaves_the_rest_to_go_on_with(bench):
    """What was sent and not answered is in doubt, the rest pending; going on ends it."""
    bench.server.latency_s = 2.0
    async with bench.ledger() as ledger:
        run = await listed(ledger, LIST)
        task = asyncio.create_task(bench.clock.sleep(3.0))
        task.add_done_callback(lambda _: bench.stop.set(StopReason("enough", ExitCode.INTERRUPTED)))
        state = await sent(bench, ledger, run)
    assert state is RunState.STOPPED
    assert bench.counts(run).get(Status.UNBOUND, 0) < 6
    bench.renew()

    async with bench.ledger() as ledger:
        state = await sent(bench, ledger, run)

    assert (state, bench.counts(run)) == (RunState.DONE, {"unbound": 6})
    assert on_server(bench) == {"SN6", "SN7", "SN8"}
