"""The sandbox over a real socket, asked by a plain client: it is as strict as koodrive-api.md."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import aiohttp
import pytest

from bulkbind.clock import SystemClock
from bulkbind.errors import BulkbindError
from bulkbind.sandbox import Sandbox, SandboxOptions, parse_faults, parse_limit
from bulkbind.sandbox.options import FAULTS
from tests.kit import FakeClock

PATH = "/koodrive/ose/v1/backup/device"
TRACE_ID = "t" * 58
BODY = {"machineCode": "SN_1", "deviceName": "Van-1 x", "deviceOS": "Android 15"}


def stamp(age_s: float = 5.0, now: datetime | None = None) -> str:
    """Return an X-Date of a certain age."""
    moment = (now or datetime.now(UTC)) - timedelta(seconds=age_s)  # noqa: TID251  # the server's
    return moment.strftime("%Y%m%dT%H%M%SZ")


def headers(**changes: str | None) -> dict[str, str]:
    """Return the headers of a good request; `_` stands for `-`; None takes one away."""
    good: dict[str, str | None] = {
        "Authorization": "Bearer any",
        "X-User-Id": "user_1",
        "X-Date": stamp(),
        "X-Traceid": TRACE_ID,
        "Content-Type": "application/json",
    }
    good |= {name.replace("_", "-"): value for name, value in changes.items()}
    return {name: value for name, value in good.items() if value is not None}


class Asker:
    """A plain client of one sandbox."""

    def __init__(self, session: aiohttp.ClientSession, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self._session = session

    async def ask(self, method: str, path: str, body=None, **changes) -> tuple[int, dict[str, Any]]:
        data = json.dumps(body) if isinstance(body, dict) else body
        sent = headers(**changes)
        if data is None:
            sent.pop("Content-Type", None)
        url = self.sandbox.url + path
        skipped = ["Content-Type"]  # aiohttp would add one of its own
        async with self._session.request(
            method, url, data=data, headers=sent, skip_auto_headers=skipped
        ) as response:
            return response.status, await response.json()

    async def bind(self, body=None, **changes) -> tuple[int, dict[str, Any]]:
        return await self.ask("POST", PATH, BODY if body is None else body, **changes)

    async def list_devices(self, **changes) -> tuple[int, dict[str, Any]]:
        return await self.ask("GET", PATH, **changes)

    async def unbind(self, device_id: str, **changes) -> tuple[int, dict[str, Any]]:
        return await self.ask("DELETE", f"{PATH}/{device_id}", **changes)

    async def stats(self) -> dict[str, int]:
        return (await self.ask("GET", "/sandbox/stats"))[1]


@asynccontextmanager
async def serving(clock=None, **options):
    """Serve a sandbox and yield its client."""
    async with (
        Sandbox(SandboxOptions(**options), clock=clock) as sandbox,
        aiohttp.ClientSession() as session,
    ):
        yield Asker(session, sandbox)


# --- bind -----------------------------------------------------------------------------------------


async def test_a_bind_answers_with_the_record():
    """Code 0 as an integer, the id as text of 19 digits, the moment in milliseconds."""
    async with serving() as asker:
        status, answer = await asker.bind()

    record = answer["data"]
    created = datetime.fromisoformat(record["createTime"])
    assert (status, answer["code"], answer["msg"]) == (200, 0, "success")
    assert {name: record[name] for name in BODY} == BODY
    assert isinstance(record["deviceId"], str)
    assert (len(record["deviceId"]), record["deviceId"].isdigit()) == (19, True)
    assert len(record["createTime"]) == len("2025-12-17T06:19:01.803Z")
    assert abs(created.timestamp() - datetime.now(UTC).timestamp()) < 10  # noqa: TID251  # the real clock is what is compared


async def test_every_device_has_an_id_of_its_own():
    """Ids differ among devices and among users with the same machine code."""
    async with serving() as asker:
        answers = [
            await asker.bind({"machineCode": code}, X_User_Id=user)
            for code in ("SN_1", "SN_2")
            for user in ("user_1", "user_2")
        ]

    assert len({answer["data"]["deviceId"] for _, answer in answers}) == 4


PARAMETERS = (400, "code", 13000102)
UNAUTHORISED = (401, "error_code", "APIG.0301")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"Authorization": None}, UNAUTHORISED, id="no token"),
        pytest.param({"Authorization": ""}, UNAUTHORISED, id="empty token"),
        pytest.param({"Authorization": "Bearer"}, UNAUTHORISED, id="scheme alone"),
        pytest.param({"Authorization": "bare"}, UNAUTHORISED, id="no scheme"),
        pytest.param({"Authorization": "Basic dTpw"}, UNAUTHORISED, id="another scheme"),
        pytest.param({"X_User_Id": None}, PARAMETERS, id="no user"),
        pytest.param({"X_User_Id": ""}, PARAMETERS, id="empty user"),
        pytest.param({"X_User_Id": "a b"}, PARAMETERS, id="blank in user"),
        pytest.param({"X_User_Id": "u" * 129}, PARAMETERS, id="user of 129"),
        pytest.param({"X_Date": None}, PARAMETERS, id="no date"),
        pytest.param({"X_Date": "today"}, PARAMETERS, id="date a word"),
        pytest.param({"X_Date": "2025-11-03T07:01:40Z"}, PARAMETERS, id="date with hyphens"),
        pytest.param({"X_Date": "20251301T000000Z"}, PARAMETERS, id="month 13"),
        pytest.param({"X_Date": stamp()[:-1]}, PARAMETERS, id="date without Z"),
        pytest.param({"X_Traceid": ""}, PARAMETERS, id="empty trace id"),
        pytest.param({"X_Traceid": "t" * 57}, PARAMETERS, id="trace id of 57"),
        pytest.param({"X_Traceid": "t" * 59}, PARAMETERS, id="trace id of 59"),
    ],
)
@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_wrong_headers_are_refused_by_every_call(method, changes, expected):
    """Each broken header rule gives its answer, and nothing happens."""
    path = f"{PATH}/1" if method == "DELETE" else PATH
    body = BODY if method == "POST" else None

    async with serving() as asker:
        status, answer = await asker.ask(method, path, body, **changes)
        stats = await asker.stats()

    assert (status, *expected[1:]) == (expected[0], expected[1], answer[expected[1]])
    assert stats == {"bindings": 0, "refused": 1}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"Authorization": "AT 3b91"}, id="AT token"),
        pytest.param({"X_Traceid": None}, id="no trace id"),
        pytest.param({"X_User_Id": "!~" * 64}, id="user of 128 visible characters"),
        pytest.param({"Content_Type": "application/json; charset=utf-8"}, id="charset"),
    ],
)
async def test_what_the_contract_leaves_free_is_taken(changes):
    """Optional headers may be absent, and every allowed form passes."""
    async with serving() as asker:
        status, answer = await asker.bind(**changes)

    assert (status, answer["code"]) == (200, 0)


@pytest.mark.parametrize(
    ("age_s", "status"),
    [
        pytest.param(-3600, 401, id="1 h ahead"),
        pytest.param(-1, 401, id="1 s ahead"),
        pytest.param(0, 200, id="now"),
        pytest.param(900, 200, id="15 min old"),
        pytest.param(901, 401, id="15 min 1 s old"),
        pytest.param(86_400, 401, id="1 day old"),
    ],
)
async def test_the_window_of_x_date(age_s, status):
    """At most 15 minutes old, and never later than the server's clock."""
    clock = FakeClock()

    async with serving(clock) as asker:
        found, answer = await asker.bind(X_Date=stamp(age_s, clock.utc_now()))

    assert found == status
    if status == 401:
        assert answer["error_code"] == "APIG.0301"


async def test_only_the_ordered_token_is_taken():
    """With a token ordered, any other one is refused."""
    async with serving(token="right") as asker:
        statuses = [
            (await asker.bind(Authorization=value))[0]
            for value in ("Bearer right", "AT right", "Bearer wrong", "Bearer right ly")
        ]

    assert statuses == [200, 200, 401, 401]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("no JSON", id="no JSON"),
        pytest.param("", id="empty"),
        pytest.param(b"\xff\xfe", id="no text"),
        pytest.param("[1]", id="a list"),
        pytest.param("[" * 100_000, id="100,000 brackets"),
        pytest.param({}, id="no machineCode"),
        pytest.param({"machineCode": None}, id="machineCode null"),
        pytest.param({"machineCode": 5}, id="machineCode a number"),
        pytest.param({"machineCode": ""}, id="machineCode empty"),
        pytest.param({"machineCode": "a" * 65}, id="machineCode of 65"),
        pytest.param({"machineCode": "a-b"}, id="machineCode with a hyphen"),
        pytest.param({"machineCode": "a b"}, id="machineCode with a blank"),
        pytest.param({"machineCode": "ab\n"}, id="machineCode with a line end"),
        pytest.param({"machineCode": "é"}, id="machineCode outside ASCII"),
        pytest.param(BODY | {"deviceName": ""}, id="deviceName empty"),
        pytest.param(BODY | {"deviceName": "a" * 33}, id="deviceName of 33"),
        pytest.param(BODY | {"deviceName": "a.b"}, id="deviceName with a dot"),
        pytest.param(BODY | {"deviceName": "a\u00a0b"}, id="deviceName with a no-break space"),
        pytest.param(BODY | {"deviceOS": "a-b"}, id="deviceOS with a hyphen"),
        pytest.param(BODY | {"deviceOS": "iOS 17.2"}, id="deviceOS with a dot"),
        pytest.param(BODY | {"deviceOS": "a" * 33}, id="deviceOS of 33"),
        pytest.param(BODY | {"deviceOS": None}, id="deviceOS null"),
        pytest.param(BODY | {"userId": "u"}, id="an unknown field"),
    ],
)
async def test_wrong_bodies_are_refused(body):
    """Each broken body rule gives 400 with 13000102, and nothing is bound."""
    async with serving() as asker:
        status, answer = await asker.bind(body)
        stats = await asker.stats()

    assert (status, answer["code"]) == (400, 13000102)
    assert stats == {"bindings": 0, "refused": 1}


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
async def test_another_content_type_is_refused(content_type):
    """The body must say that it is JSON."""
    async with serving() as asker:
        status, answer = await asker.bind(Content_Type=content_type)

    assert (status, answer["code"]) == (400, 13000102)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"machineCode": "a" * 64}, id="machineCode of 64"),
        pytest.param({"machineCode": "0_Z"}, id="every kind of character"),
        pytest.param(BODY | {"deviceName": "A-b_0 " + "x" * 26}, id="deviceName of 32"),
        pytest.param(BODY | {"deviceOS": "A_b 0 " + "x" * 26}, id="deviceOS of 32"),
    ],
)
async def test_values_at_their_limits_are_taken(body):
    """The longest values and every allowed character pass."""
    async with serving() as asker:
        status, answer = await asker.bind(body)

    assert (status, answer["code"]) == (200, 0)


# --- second bind, list, unbind --------------------------------------------------------------------


async def test_a_second_bind_gives_the_same_record():
    """By default the first record comes again, and the repeat is counted."""
    async with serving(second_bind="same") as asker:
        _, first = await asker.bind()
        status, second = await asker.bind({"machineCode": "SN_1", "deviceName": "other"})
        stats = await asker.stats()

    assert status == 200
    assert second == first
    assert stats == {"bindings": 1, "binds": 2, "bound": 1, "posted_again": 1}


async def test_a_second_bind_gives_an_error_where_that_is_ordered():
    """HTTP 200 with a code of its own; the first binding stays."""
    async with serving(second_bind="error") as asker:
        await asker.bind()
        status, second = await asker.bind()
        stats = await asker.stats()

    assert (status, second["code"]) == (200, 13000310)
    assert "data" not in second
    assert (stats["bindings"], stats["posted_again"]) == (1, 1)


async def test_the_same_code_for_another_user_is_another_binding():
    """Bindings are kept by user and machine code."""
    async with serving(second_bind="error") as asker:
        await asker.bind(X_User_Id="user_1")
        status, answer = await asker.bind(X_User_Id="user_2")

    assert (status, answer["code"]) == (200, 0)


async def test_a_list_shows_the_users_own_devices():
    """The records are those of the binds, and nobody else's."""
    async with serving() as asker:
        bound = [(await asker.bind({"machineCode": f"SN_{n}"}))[1]["data"] for n in range(3)]
        await asker.bind({"machineCode": "SN_other"}, X_User_Id="user_2")
        status, listing = await asker.list_devices()
        _, empty = await asker.list_devices(X_User_Id="nobody")

    assert (status, listing["code"]) == (200, 0)
    assert listing["data"] == bound
    assert empty == {"code": 0, "msg": "success", "data": []}


async def test_unbind_answers_with_the_record_and_forgets_it():
    """A second unbind finds nothing, and a new bind makes a new id."""
    async with serving() as asker:
        _, bound = await asker.bind()
        device_id = bound["data"]["deviceId"]
        status, unbound = await asker.unbind(device_id)
        _, again = await asker.unbind(device_id)
        _, listing = await asker.list_devices()
        _, anew = await asker.bind()

    assert (status, unbound) == (200, bound)
    assert again["code"] == 13000309
    assert listing["data"] == []
    assert anew["data"]["deviceId"] != device_id


async def test_nobody_unbinds_somebody_elses_device():
    """The id alone is not enough: it must be the user's."""
    async with serving() as asker:
        _, bound = await asker.bind()
        status, answer = await asker.unbind(bound["data"]["deviceId"], X_User_Id="user_2")
        _, listing = await asker.list_devices()

    assert (status, answer["code"]) == (200, 13000309)
    assert listing["data"] == [bound["data"]]


# --- limit ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told", "window_s"),
    [
        pytest.param("2/s", "limit:2,time:1 second", 1, id="2 / 1 s"),
        pytest.param("2/min", "limit:2,time:1 minute", 60, id="2 / 60 s"),
        pytest.param("2/hour", "limit:2,time:1 hour", 3600, id="2 / 3600 s"),
        pytest.param("2/day", "limit:2,time:1 day", 86_400, id="2 / 86400 s"),
    ],
)
async def test_the_limit_answers_in_the_gateways_words(text, told, window_s):
    """As many as ordered pass in a window, then 429 with limit and window; a new window opens."""
    clock = FakeClock()

    async with serving(clock, limit=parse_limit(text)) as asker:
        date = stamp(1, clock.utc_now())
        clock.advance(0.25)
        answers = [await asker.list_devices(X_Date=date) for _ in range(3)]
        clock.advance(window_s)
        status, _ = await asker.list_devices(X_Date=stamp(1, clock.utc_now()))
        stats = await asker.stats()

    assert [found for found, _ in answers] == [200, 200, 429]
    assert status == 200
    assert answers[2][1] == {
        "error_code": "APIG.0308",
        "error_msg": "The throttling threshold has been reached: "
        f"policy user over ratelimit,{told}",
        "request_id": "sandbox",
    }
    assert stats == {"bindings": 0, "lists": 3, "throttled": 1}


async def test_what_is_throttled_does_nothing():
    """The limit holds for binds too, and counts wrong requests as any other."""
    async with serving(limit=parse_limit("1/day")) as asker:
        await asker.bind(X_Traceid="short")
        status, _ = await asker.bind()
        stats = await asker.stats()

    assert status == 429
    assert stats == {"bindings": 0, "refused": 1, "throttled": 1}


# --- faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        pytest.param("500", 500, 13000001, id="500"),
        pytest.param("business", 200, 13000301, id="business"),
    ],
)
async def test_faults_that_answer(fault, status, code):
    """The answer says no, and nothing is bound."""
    async with serving(faults={fault: 1.0}) as asker:
        found, answer = await asker.bind()
        stats = await asker.stats()

    assert (found, answer["code"]) == (status, code)
    assert stats == {"bindings": 0, fault: 1}


@pytest.mark.parametrize(
    ("fault", "bindings"),
    [pytest.param("reset-before", 0, id="before"), pytest.param("reset-after", 1, id="after")],
)
async def test_faults_that_break_the_connection(fault, bindings):
    """No answer comes; bound or not, as the name says."""
    async with serving(faults={fault: 1.0}) as asker:
        with pytest.raises(aiohttp.ClientConnectionError):
            await asker.bind()
        stats = await asker.stats()

    assert stats["bindings"] == bindings
    assert stats[fault] == 1


@pytest.mark.parametrize("fault", FAULTS)
async def test_faults_strike_binds_only(fault):
    """A list always answers: doubt can be settled."""
    async with serving(faults={fault: 1.0}) as asker:
        status, answer = await asker.list_devices()

    assert (status, answer["code"]) == (200, 0)


async def test_a_seed_repeats_the_same_faults():
    """The same seed strikes the same requests; about as many as ordered."""
    runs = []

    for _ in range(2):
        async with serving(faults={"500": 0.3}, seed=7) as asker:
            runs.append([(await asker.bind({"machineCode": f"SN_{n}"}))[0] for n in range(60)])

    assert runs[0] == runs[1]
    assert 6 <= runs[0].count(500) <= 32


# --- what it keeps and tells ----------------------------------------------------------------------


async def test_the_state_file_survives_a_restart(tmp_path):
    """Bindings and unbindings are there again, and ids are never used twice."""
    state = tmp_path / "state.jsonl"

    async with serving(state=state) as asker:
        _, kept = await asker.bind({"machineCode": "SN_1"})
        _, gone = await asker.bind({"machineCode": "SN_2"})
        await asker.unbind(gone["data"]["deviceId"])
    async with serving(state=state, second_bind="error") as asker:
        _, listing = await asker.list_devices()
        _, again = await asker.bind({"machineCode": "SN_1"})
        _, anew = await asker.bind({"machineCode": "SN_2"})

    assert listing["data"] == [kept["data"]]
    assert again["code"] == 13000310
    assert anew["data"]["deviceId"] not in {kept["data"]["deviceId"], gone["data"]["deviceId"]}


async def test_without_a_state_file_nothing_survives():
    """Memory is the default."""
    async with serving() as asker:
        await asker.bind()
    async with serving() as asker:
        stats = await asker.stats()

    assert stats == {"bindings": 0}


async def test_the_journal_has_a_line_for_every_request(tmp_path):
    """Who asked for what, under which trace id, and how it ended; silence has no status."""
    journal = tmp_path / "journal.jsonl"

    async with serving(journal=journal) as asker:
        _, bound = await asker.bind()
        await asker.bind(X_Traceid="u" * 58)
        await asker.bind({"machineCode": "a-b"})
        await asker.list_devices()
        await asker.unbind(bound["data"]["deviceId"])
        await asker.unbind("7")
    async with serving(journal=journal, faults={"reset-after": 1.0}) as asker:
        with pytest.raises(aiohttp.ClientConnectionError):
            await asker.bind()

    lines = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    assert [(line["method"], line["result"], line["status"]) for line in lines] == [
        ("POST", "bound", 200),
        ("POST", "posted_again", 200),
        ("POST", "refused", 400),
        ("GET", "listed", 200),
        ("DELETE", "unbound", 200),
        ("DELETE", "missing", 200),
        ("POST", "reset-after bound", None),
    ]
    assert [line["trace_id"] for line in lines[:2]] == [TRACE_ID, "u" * 58]
    assert {line["user_id"] for line in lines} == {"user_1"}
    assert lines[0]["machine_code"] == "SN_1"
    assert lines[0]["device_id"] == bound["data"]["deviceId"]
    assert all(datetime.fromisoformat(line["at"]).tzinfo for line in lines)


async def test_stats_count_what_was_seen():
    """One number for each kind of thing, and what is bound now."""
    async with serving() as asker:
        _, bound = await asker.bind({"machineCode": "SN_1"})
        await asker.bind({"machineCode": "SN_1"})
        await asker.bind({"machineCode": "SN_2"})
        await asker.bind({})
        await asker.list_devices()
        await asker.unbind(bound["data"]["deviceId"])
        stats = await asker.stats()

    assert stats == {
        "bindings": 1,
        "binds": 3,
        "bound": 2,
        "posted_again": 1,
        "refused": 1,
        "lists": 1,
        "unbinds": 1,
    }


async def test_bindings_can_be_dumped():
    """One JSON line for each binding, with its user."""
    async with serving() as asker, aiohttp.ClientSession() as session:
        _, one = await asker.bind(X_User_Id="user_1")
        _, two = await asker.bind(X_User_Id="user_2")
        async with session.get(f"{asker.sandbox.url}/sandbox/bindings") as response:
            lines = (await response.text()).splitlines()

    assert [json.loads(line) for line in lines] == [
        {"userId": "user_1", **one["data"]},
        {"userId": "user_2", **two["data"]},
    ]


async def test_bindings_can_be_dumped_while_others_are_made():
    """What was bound when the dump began is in it, whole."""
    async with serving() as asker, aiohttp.ClientSession() as session:
        for number in range(40_000):
            asker.sandbox.bindings.bind("user_1", {"machineCode": f"SN_{number}"})

        async def bind_more() -> None:
            for number in count():
                asker.sandbox.bindings.bind("user_1", {"machineCode": f"SN_more_{number}"})
                await SystemClock().sleep(0)

        more = asyncio.create_task(bind_more(), name="bind more")
        try:
            async with session.get(f"{asker.sandbox.url}/sandbox/bindings") as response:
                lines = (await response.text()).splitlines()
        finally:
            more.cancel()

    codes = {json.loads(line)["machineCode"] for line in lines}
    assert len(codes) == len(lines) >= 40_000


async def test_a_taken_port_is_an_error_with_a_hint():
    """The error names the port, and says how to get a free one."""
    async with Sandbox() as first:
        port = int(first.url.rpartition(":")[2])

        with pytest.raises(BulkbindError, match=str(port)) as error:
            async with Sandbox(port=port):
                pass

    assert "--port 0" in error.value.hint


# --- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "count", "unit", "window_s"),
    [
        ("60/s", 60, "second", 1),
        ("60/second", 60, "second", 1),
        ("600/min", 600, "minute", 60),
        ("600/m", 600, "minute", 60),
        ("1000/h", 1000, "hour", 3600),
        ("1000/hour", 1000, "hour", 3600),
        ("5000/d", 5000, "day", 86_400),
        (" 5000/day ", 5000, "day", 86_400),
    ],
)
def test_limits_are_written_as_a_fraction(text, count, unit, window_s):
    """A count and a unit, short or long."""
    limit = parse_limit(text)

    assert (limit.count, limit.unit, limit.window_s) == (count, unit, window_s)


@pytest.mark.parametrize("text", ["", "60", "60/", "/s", "0/s", "-1/s", "1.5/s", "6/week", "٣/s"])
def test_what_is_no_limit_is_refused(text):
    """The error shows what was given and what is allowed."""
    with pytest.raises(ValueError, match="is no limit: write 60/s"):
        parse_limit(text)


def test_faults_are_written_with_their_probability():
    """Names and shares, the last of a name wins, none is none."""
    assert parse_faults(["reset-after=0.03", "500=1", "500=0"]) == {"reset-after": 0.03, "500": 0}
    assert parse_faults([]) == {}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("404=0.1", "is no fault"),
        ("", "is no fault"),
        ("500", "from 0 to 1"),
        ("500=", "from 0 to 1"),
        ("500=often", "from 0 to 1"),
        ("500=1.5", "from 0 to 1"),
        ("500=-0.1", "from 0 to 1"),
        ("500=nan", "from 0 to 1"),
        ("500=inf", "from 0 to 1"),
    ],
)
def test_what_is_no_fault_is_refused(text, why):
    """The error says whether name or share is wrong."""
    with pytest.raises(ValueError, match=why):
        parse_faults([text])
