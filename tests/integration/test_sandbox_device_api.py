"""The sandbox's calls over a real socket, asked by a plain client: as strict as koodrive-api.md."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from bulkbind.clock import SystemClock
from bulkbind.errors import BulkbindError
from bulkbind.sandbox import Sandbox, SandboxOptions
from tests.support.fake_clock import FakeClock
from tests.support.sandbox_client import BODY, PATH, serving, stamp

NOW = datetime.now(UTC)  # noqa: TID251  # the server's own clock is what these are about


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
        pytest.param({"X_Date": stamp(NOW)[:-1]}, PARAMETERS, id="date without Z"),
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
        stats = await asker.counts()

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
        found, answer = await asker.bind(X_Date=stamp(clock.utc_now(), age_s))

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
        stats = await asker.counts()

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
        stats = await asker.counts()

    assert status == 200
    assert second == first
    assert stats == {"bindings": 1, "binds": 2, "bound": 1, "posted_again": 1}


async def test_a_second_bind_gives_an_error_where_that_is_ordered():
    """HTTP 200 with a code of its own; the first binding stays."""
    async with serving(second_bind="error") as asker:
        await asker.bind()
        status, second = await asker.bind()
        stats = await asker.counts()

    assert (status, second["code"]) == (200, 13000901)
    assert "data" not in second
    assert (stats["bindings"], stats["posted_again"]) == (1, 1)


@pytest.mark.parametrize("status", [400, 409])
async def test_a_second_bind_is_answered_with_the_status_that_is_ordered(status):
    """The reference puts codes under 400, and 409 is plausible; the code is none of its own."""
    async with serving(second_bind="error", second_bind_status=status) as asker:
        await asker.bind()
        found, second = await asker.bind()

    assert (found, second["code"]) == (status, 13000901)


async def test_a_device_under_a_backup_lock_is_not_unbound():
    """It stays bound, and can be unbound once the lock has ended."""
    async with serving(backup_lock_s=0.3) as asker:
        _, bound = await asker.bind()
        status, refused = await asker.unbind(bound["data"]["deviceId"])
        await SystemClock().sleep(0.4)
        _, unbound = await asker.unbind(bound["data"]["deviceId"])

    assert (status, refused["code"]) == (409, 13000902)
    assert unbound == bound


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


# --- the state file -------------------------------------------------------------------------------


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
    assert again["code"] == 13000901
    assert anew["data"]["deviceId"] not in {kept["data"]["deviceId"], gone["data"]["deviceId"]}


async def test_without_a_state_file_nothing_survives():
    """Memory is the default."""
    async with serving() as asker:
        await asker.bind()
    async with serving() as asker:
        stats = await asker.counts()

    assert stats == {"bindings": 0}


async def test_a_damaged_state_file_is_named(tmp_path):
    """The error names the file instead of beginning anew over what is in it."""
    state = tmp_path / "state.jsonl"
    state.write_text('{"user": "u"', encoding="utf-8")

    with pytest.raises(BulkbindError, match=r"state\.jsonl is none, or damaged"):
        Sandbox(SandboxOptions(state=state))
