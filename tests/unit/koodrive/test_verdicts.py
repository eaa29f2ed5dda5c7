"""`classify` as a table: every row of "Errors" in koodrive-api.md, every trap about answers."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import get_args

import pytest
from hypothesis import example, given, strategies as st

from bulkbind.koodrive.verdicts import (
    Codes,
    _plainly_unbound,
    _unbound,
    classify,
    classify_list,
    classify_unbind,
)
from bulkbind.koodrive.wire import Answer
from bulkbind.model import (
    Accepted,
    AlreadyBound,
    Attempt,
    AuthExpired,
    ClockRefused,
    NoAnswer,
    QuotaUsedUp,
    Record,
    Refused,
    Throttled,
    Transient,
    Verdict,
)

DATE = "Mon, 23 Nov 2026 12:00:00 GMT"
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()
DAY_S = 86_400.0
DEVICE_ID = "1842812272691451648"
CREATED = "2025-12-17T06:19:01.803Z"
CODES = Codes(already_bound=frozenset({"13000310"}), retryable=frozenset({"13000999"}))
HTML = b"<html><head><title>502 Bad Gateway</title></head><body><h1>nginx</h1></body></html>"
SET_UP = Refused(set_up=True)
AWAY = Refused(set_up=True, unsure=True)


def dump(body: object) -> bytes:
    """Return a body as the server would write it; bytes stay as they are."""
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def answer(
    status: int,
    body: object = b"",
    *,
    retry_after: str | None = None,
    date: str | None = DATE,
    x_date_s: float = NOON - 2,
    whole: bool = True,
) -> Answer:
    """Return an answer to a request signed 2 s before the server's noon."""
    return Answer(status, dump(body), date, retry_after, x_date_s, whole)


def gateway(number: str, text: str = "some text", prefix: str = "APIG") -> dict[str, object]:
    """Return an error body of the gateway."""
    return {"error_code": f"{prefix}.{number}", "error_msg": text, "request_id": "r1"}


def success(**changes: object) -> dict[str, object]:
    """Return the reference's answer to a bind; a change to `...` takes a field away."""
    record = {
        "deviceId": DEVICE_ID,
        "machineCode": "SN_1",
        "deviceName": "Van 1",
        "deviceOS": "Android 15",
        "createTime": CREATED,
    } | changes
    data = {name: value for name, value in record.items() if value is not ...}
    return {"code": 0, "msg": "success", "data": data}


def read(given: Answer) -> Attempt:
    """Return what an answer to the bind of SN_1 means."""
    return classify(given, CODES, "SN_1")


# --- 429 ------------------------------------------------------------------------------------------

THROTTLING = "The throttling threshold has been reached: policy "


@pytest.mark.parametrize("prefix", ["APIG", "APIGW"])
@pytest.mark.parametrize(
    ("text", "limit", "window_s"),
    [
        pytest.param("user over ratelimit,limit:10,time:1 second", 10, 1, id="10 / 1 s"),
        pytest.param("user over ratelimit,limit:600,time:1 minute", 600, 60, id="600 / 60 s"),
        pytest.param("user over ratelimit,limit:1000,time:1 hour", 1000, 3600, id="1000 / 3600 s"),
        pytest.param("user over ratelimit,limit:5000,time:1 day", 5000, DAY_S, id="5000 / 86400 s"),
        pytest.param("user over ratelimit,limit:7,time:5 second", 7, 5, id="7 / 5 * 1 s"),
        pytest.param("user over ratelimit,limit:7,time:10 minute", 7, 600, id="7 / 10 * 60 s"),
        pytest.param("user over ratelimit,limit:7,time:12 hour", 7, 43_200, id="7 / 12 * 3600 s"),
        pytest.param("user over ratelimit,limit:7,time:2 day", 7, 2 * DAY_S, id="7 / 2 * 86400 s"),
        pytest.param("api over ratelimit,limit:30,time:1 second", 30, 1, id="policy api"),
        pytest.param("app over ratelimit,limit:30,time:1 second", 30, 1, id="policy app"),
        pytest.param("ip over ratelimit,limit:30,time:1 second", 30, 1, id="policy ip"),
        pytest.param("user over ratelimit, limit: 20 , time: 5 seconds", 20, 5, id="blanks"),
        pytest.param("USER OVER RATELIMIT,LIMIT:20,TIME:1 MINUTE", 20, 60, id="capitals"),
        pytest.param("user over ratelimit,limit:XX,time:1 second", None, None, id="no number"),
        pytest.param("user over ratelimit,limit:0,time:1 second", None, None, id="limit 0"),
        pytest.param("user over ratelimit,limit:10,time:0 second", None, None, id="window 0"),
        pytest.param("user over ratelimit,limit:10,time:1 week", None, None, id="unknown unit"),
        pytest.param("user over ratelimit", None, None, id="nothing told"),
    ],
)
def test_limit_and_window_are_read_from_the_gateways_text(prefix, text, limit, window_s):
    """The 429's own words say how many requests in how many seconds, or nothing usable."""
    body = gateway("0308", THROTTLING + text, prefix)

    found = read(answer(429, body))

    assert found.verdict == Throttled(limit=limit, window_s=window_s)
    assert found.code == f"{prefix}.0308"
    assert found.message == " ".join((THROTTLING + text).split())


TOLD = gateway("0308", THROTTLING + "user over ratelimit,limit:10,time:1 second")


@pytest.mark.parametrize("status", [200, 400, 401, 403, 405, 500, 502, 503])
def test_0308_means_throttled_under_any_status(status):
    """The gateway's code says more than the status that came with it."""
    found = read(answer(status, TOLD))

    assert found.verdict == Throttled(limit=10, window_s=1)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<html><body>Too Many Requests</body></html>", id="HTML"),
        pytest.param({"code": 429, "msg": "slow down"}, id="no gateway code"),
        pytest.param({}, id="empty object"),
        pytest.param([1], id="a list"),
        pytest.param(b"\xff\xfe\x00", id="no text"),
    ],
)
def test_429_means_throttled_whatever_the_body(body):
    """A 429 is never a device's fault, also where it tells nothing."""
    assert read(answer(429, body)).verdict == Throttled()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(None, None, id="absent"),
        pytest.param("0", 0.0, id="0 s"),
        pytest.param("7", 7.0, id="7 s"),
        pytest.param("Mon, 23 Nov 2026 12:01:30 GMT", 90.0, id="IMF-fixdate + 90 s"),
        pytest.param("Monday, 23-Nov-26 12:01:30 GMT", 90.0, id="RFC 850 + 90 s"),
        pytest.param("Mon Nov 23 12:01:30 2026", 90.0, id="asctime + 90 s"),
        pytest.param("Mon, 23 Nov 2026 11:00:00 GMT", None, id="past"),
        pytest.param("soon", None, id="garbage"),
        pytest.param("-1", None, id="negative"),
        pytest.param("99999999999999999999", DAY_S, id="10**20 s -> a day"),
        pytest.param("Mon, 23 Nov 2099 12:00:00 GMT", DAY_S, id="73 years -> a day"),
    ],
)
@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        pytest.param(429, TOLD, Throttled(10, 1), id="429 told"),
        pytest.param(429, b"", Throttled(), id="429 bare"),
        pytest.param(500, b"", Transient(), id="500"),
        pytest.param(503, b"", Transient(), id="503"),
        pytest.param(200, {"code": 13000999}, Transient(), id="retryable code"),
    ],
)
def test_retry_after_goes_into_the_verdict(status, body, verdict, text, expected):
    """Seconds or a date, measured against the answer's own Date; what says nothing is ignored."""
    found = read(answer(status, body, retry_after=text))

    assert type(found.verdict) is type(verdict)
    assert isinstance(found.verdict, Throttled | Transient)
    assert found.verdict.retry_after_s == expected
    if isinstance(verdict, Throttled):
        assert isinstance(found.verdict, Throttled)
        assert (found.verdict.limit, found.verdict.window_s) == (verdict.limit, verdict.window_s)


# --- credentials and clock ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        pytest.param(401, gateway("0301"), AuthExpired(), id="401 APIG.0301"),
        pytest.param(401, gateway("0303"), AuthExpired(), id="401 APIG.0303"),
        pytest.param(401, gateway("0307"), AuthExpired(), id="401 APIG.0307"),
        pytest.param(401, gateway("1002"), AuthExpired(), id="401 APIG.1002"),
        pytest.param(401, gateway("0307", prefix="APIGW"), AuthExpired(), id="401 APIGW.0307"),
        pytest.param(401, b"", AuthExpired(), id="401 plain"),
        pytest.param(401, HTML, AuthExpired(), id="401 HTML"),
        pytest.param(400, gateway("0301"), AuthExpired(), id="400 APIG.0301"),
        pytest.param(400, gateway("0307", prefix="APIGW"), AuthExpired(), id="400 APIGW.0307"),
        pytest.param(403, gateway("1002"), AuthExpired(), id="403 APIG.1002"),
        pytest.param(
            400,
            b'{"code": 13000102, "msg": "Authentication not passed"}',
            AuthExpired(),
            id="400 in the words of the status table",
        ),
        pytest.param(403, gateway("0302"), SET_UP, id="403 APIG.0302"),
        pytest.param(403, gateway("0304"), SET_UP, id="403 APIG.0304"),
        pytest.param(403, b"", SET_UP, id="403 plain"),
        pytest.param(400, {"code": 13000102, "msg": "bad"}, SET_UP, id="400 13000102"),
        pytest.param(400, b"", SET_UP, id="400 plain"),
        pytest.param(404, HTML, SET_UP, id="404"),
        pytest.param(405, gateway("0501"), QuotaUsedUp(), id="405 APIG.0501 quota used up"),
        pytest.param(405, gateway("0502"), QuotaUsedUp(), id="405 APIG.0502 app frozen"),
        pytest.param(405, gateway("0501", prefix="APIGW"), QuotaUsedUp(), id="405 APIGW.0501"),
        pytest.param(405, b"", SET_UP, id="405 plain"),
        pytest.param(405, gateway("0101"), SET_UP, id="405 another code"),
    ],
)
def test_refusals_that_speak_of_the_set_up(status, body, verdict):
    """Credentials, rights, paths and quotas, by status and by the gateway's code."""
    assert read(answer(status, body)).verdict == verdict


@pytest.mark.parametrize("status", [400, 401])
@pytest.mark.parametrize(
    ("behind_s", "refused"),
    [
        pytest.param(1, False, id="X-Date 1 s old"),
        pytest.param(899, False, id="X-Date 14 min 59 s old"),
        # Date is rounded down: the server's clock stood between 15 min and 15 min 1 s after X-Date
        pytest.param(900, True, id="X-Date 15 min to 15 min 1 s old"),
        pytest.param(902, True, id="X-Date 15 min 2 s old"),
        pytest.param(3 * DAY_S, True, id="X-Date 3 days old"),
        pytest.param(-1, True, id="X-Date 1 s ahead"),
        pytest.param(-1200, True, id="X-Date 20 min ahead"),
    ],
)
def test_a_date_outside_its_window_is_about_the_clock(status, behind_s, refused):
    """Only where the answer's Date shows it, and whatever the body says of credentials."""
    given = answer(status, gateway("0301"), x_date_s=NOON - behind_s)

    found = read(given)

    assert found.verdict == (ClockRefused() if refused else AuthExpired())


@pytest.mark.parametrize("date", [None, "garbage"], ids=["no Date", "Date is garbage"])
def test_without_a_date_nothing_shows_that_it_is_the_clock(date):
    """A 401 without a readable Date is about the credentials."""
    given = answer(401, b"", date=date, x_date_s=NOON - DAY_S)

    assert read(given).verdict == AuthExpired()


@pytest.mark.parametrize("status", [200, 403, 404, 422, 500])
def test_other_statuses_are_never_about_the_clock(status):
    """A date outside its window means nothing where the server did not refuse it for that."""
    given = answer(status, b"", x_date_s=NOON - DAY_S)

    assert not isinstance(read(given).verdict, ClockRefused)


# --- other statuses -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        pytest.param(100, b"", NoAnswer(), id="100"),
        pytest.param(204, b"", NoAnswer(), id="204"),
        pytest.param(301, b"", AWAY, id="301"),
        pytest.param(302, HTML, AWAY, id="302"),
        pytest.param(307, b"", AWAY, id="307"),
        pytest.param(308, success(), AWAY, id="308 with a record"),
        pytest.param(304, b"", AWAY, id="304"),
        pytest.param(408, b"", Transient(), id="408"),
        pytest.param(425, b"", Transient(), id="425"),
        pytest.param(409, {"code": 1, "msg": "conflict"}, Refused(), id="409"),
        pytest.param(413, HTML, Refused(), id="413"),
        pytest.param(422, b"", Refused(), id="422"),
        pytest.param(500, b"", Transient(), id="500 empty"),
        pytest.param(500, HTML, Transient(), id="500 HTML"),
        pytest.param(500, {"code": 13000001, "msg": "error"}, Transient(), id="500 JSON"),
        pytest.param(500, success(), Transient(), id="500 with a record"),
        pytest.param(501, b"", Transient(), id="501"),
        pytest.param(502, HTML, NoAnswer(), id="502 HTML"),
        pytest.param(502, b"", NoAnswer(), id="502 empty"),
        pytest.param(503, HTML, Transient(), id="503 HTML"),
        pytest.param(504, b"", NoAnswer(), id="504"),
        pytest.param(500, gateway("0201"), NoAnswer(), id="500 APIG.0201"),
        pytest.param(500, gateway("0202"), NoAnswer(), id="500 APIG.0202"),
        pytest.param(503, gateway("0203"), NoAnswer(), id="503 APIG.0203"),
        pytest.param(500, gateway("0610", prefix="APIGW"), NoAnswer(), id="500 APIGW.0610"),
        pytest.param(500, gateway("0613"), NoAnswer(), id="500 APIG.0613"),
        pytest.param(500, gateway("0999"), Transient(), id="500 another code"),
        pytest.param(599, b"", Transient(), id="599"),
        pytest.param(600, b"", NoAnswer(), id="600"),
        pytest.param(999, b"", NoAnswer(), id="999"),
    ],
)
def test_other_statuses(status, body, verdict):
    """What the status says, where neither gateway nor business code says more."""
    assert read(answer(status, body)).verdict == verdict


# --- 200 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "device_id", "create_time"),
    [
        pytest.param(success(), DEVICE_ID, CREATED, id="the reference's answer"),
        pytest.param(success() | {"code": "0"}, DEVICE_ID, CREATED, id="code as text"),
        pytest.param(success(deviceId=int(DEVICE_ID)), DEVICE_ID, CREATED, id="id as a number"),
        pytest.param(success(createTime=...), DEVICE_ID, "", id="no createTime"),
        pytest.param(success(createTime=None), DEVICE_ID, "", id="createTime null"),
        pytest.param(success(createTime=1766), DEVICE_ID, "", id="createTime a number"),
        pytest.param(success(machineCode=...), DEVICE_ID, CREATED, id="no machineCode echoed"),
        pytest.param(success(machineCode=None), DEVICE_ID, CREATED, id="machineCode null"),
        pytest.param(success(extra=[1]), DEVICE_ID, CREATED, id="an unknown field"),
        pytest.param(success(deviceName=None), DEVICE_ID, CREATED, id="deviceName null"),
        pytest.param(b"\xef\xbb\xbf" + dump(success()), DEVICE_ID, CREATED, id="byte order mark"),
    ],
)
def test_code_0_with_a_record_is_accepted(body, device_id, create_time):
    """The id keeps all 19 digits; what the server left out is empty."""
    found = read(answer(200, body))

    assert found == Attempt(Accepted(device_id, create_time), "0", "success")


@pytest.mark.parametrize(
    ("changes", "device_id", "create_time"),
    [
        ({"deviceId": "12\x0034"}, "12\ufffd34", CREATED),
        ({"deviceId": "\x00"}, "\ufffd", CREATED),
        ({"createTime": "2026\x00"}, DEVICE_ID, "2026\ufffd"),
        ({"deviceId": "12\x1b[2J34\x9f"}, "12\ufffd[2J34\ufffd", CREATED),
        ({"deviceId": "12\ud80034"}, "12?34", CREATED),
    ],
    ids=["NUL in an id", "an id of NUL", "NUL in a time", "terminal controls", "half a pair"],
)
def test_what_nobody_can_write_down_is_replaced_in_sight(changes, device_id, create_time):
    """A NUL would cut the text in SQLite, a control character move a terminal's cursor."""
    found = read(answer(200, success(**changes)))

    assert found.verdict == Accepted(device_id, create_time)


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (200, {"code": 13, "msg": "no\x00 room"}, "no\ufffd room"),
        (500, b"oh\x00 dear\x1b[31m", "oh\ufffd dear\ufffd[31m"),
        (403, {"error_code": "A\x00B", "error_msg": "x\r\ny"}, "x y"),
    ],
    ids=["NUL in JSON", "NUL in plain text", "line ends"],
)
def test_messages_are_one_line_that_can_be_written_down(status, body, message):
    """White space is one blank, what cannot be shown is marked."""
    found = read(answer(status, body))

    assert found.message == message
    assert "\x00" not in found.code


def test_a_server_that_names_devices_must_name_them():
    """A success without a machine code is doubt there, and an acceptance elsewhere."""
    nameless = answer(200, success(machineCode=...))
    null = answer(200, success(machineCode=None))
    named = answer(200, success())

    for each in (nameless, null):
        found = classify(each, CODES, "SN_1", is_named=True)
        assert found.verdict == NoAnswer()
        assert "no machine code" in found.message
        assert not read(each).is_named
    assert classify(named, CODES, "SN_1", is_named=True).verdict == Accepted(DEVICE_ID, CREATED)
    assert read(named).is_named
    assert not read(answer(500)).is_named


@pytest.mark.parametrize("status", [200, 201, 202])
def test_any_2xx_can_accept(status):
    """The body's code decides, not the kind of success."""
    assert read(answer(status, success())).verdict == Accepted(DEVICE_ID, CREATED)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(success() | {"data": None}, id="data null"),
        pytest.param({"code": 0, "msg": "success"}, id="data missing"),
        pytest.param(success() | {"data": []}, id="data a list"),
        pytest.param(success() | {"data": "ok"}, id="data text"),
        pytest.param(success(deviceId=...), id="deviceId missing"),
        pytest.param(success(deviceId=None), id="deviceId null"),
        pytest.param(success(deviceId=""), id="deviceId empty"),
        pytest.param(success(deviceId=True), id="deviceId a bool"),
        pytest.param(success(deviceId=1.842812272691451648e18), id="deviceId a float"),
        pytest.param(success(deviceId=[DEVICE_ID]), id="deviceId a list"),
        pytest.param(success(machineCode="SN_2"), id="another machineCode"),
        pytest.param({"msg": "success", "data": success()["data"]}, id="code missing"),
        pytest.param(success() | {"code": None}, id="code null"),
        pytest.param(success() | {"code": False}, id="code a bool"),
        pytest.param(success() | {"code": 0.0}, id="code a float"),
        pytest.param(success() | {"code": [0]}, id="code a list"),
        pytest.param(success() | {"code": ""}, id="code empty"),
        pytest.param(b"", id="empty body"),
        pytest.param(b"   ", id="blank body"),
        pytest.param(b"OK", id="no JSON"),
        pytest.param(HTML, id="HTML"),
        pytest.param(b"\xff\xfe\xfd", id="no text"),
        pytest.param(dump(success())[:-5], id="cut JSON"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"null", id="null"),
        pytest.param(b"0", id="a number"),
        pytest.param(b"[" * 200_000, id="200,000 brackets"),
        pytest.param(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, id="100,000 levels"),
        pytest.param(b'{"code": ' + b"9" * 10_000 + b"}", id="a code of 10,000 digits"),
    ],
)
def test_a_200_that_proves_nothing_is_no_answer(body):
    """Nothing is guessed: neither bound nor failed, the list has to tell."""
    assert read(answer(200, body)).verdict == NoAnswer()


def test_a_200_longer_than_the_cap_is_no_answer():
    """What was cut is not judged, even where the part that came reads well."""
    found = read(answer(200, success(), whole=False))

    assert found.verdict == NoAnswer()
    assert "longer than the cap" in found.message


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        pytest.param(13000301, Refused(), id="13000301 space missing"),
        pytest.param(13000309, Refused(), id="13000309 resource missing"),
        pytest.param("13000309", Refused(), id="the same as text"),
        pytest.param(-1, Refused(), id="negative"),
        pytest.param("E42", Refused(), id="a word"),
        pytest.param(13000310, AlreadyBound(), id="set as already bound"),
        pytest.param("13000310", AlreadyBound(), id="set as already bound, as text"),
        pytest.param(13000999, Transient(), id="set as retryable"),
        pytest.param("13000999", Transient(), id="set as retryable, as text"),
    ],
)
def test_another_code_under_200_is_a_failure_unless_it_is_set(code, verdict):
    """The business code decides; code and message are kept as the server wrote them."""
    found = read(answer(200, {"code": code, "msg": "its own words"}))

    assert found == Attempt(verdict, str(code), "its own words")


def test_codes_mean_nothing_unless_they_are_set():
    """The reference names no code for a second bind: without a setting it is a refusal."""
    given = answer(200, {"code": 13000310, "msg": "bound"})

    assert classify(given, Codes(), "SN_1").verdict == Refused()


SET = Codes(
    already_bound=frozenset({"13000901"}),
    retryable=frozenset({"13000999"}),
    user=frozenset({"13000301", "13000311", "13000410", "13000412"}),
)


EVERYWHERE = (200, 202, 400, 403, 404, 405, 409, 410, 422, 423, 500, 503)
"""Statuses under which the body's code counts."""
OF_THE_USER = Refused(is_about_user=True)
BY_CODE: dict[str, tuple[object, Verdict, Verdict, Verdict]] = {
    "already bound": (13000901, AlreadyBound(), Refused(), Refused()),
    "retryable": ("13000999", Transient(), Transient(), Transient()),
    "of the user": (13000301, OF_THE_USER, OF_THE_USER, Refused()),
    "of the user, as text": ("13000412", OF_THE_USER, OF_THE_USER, Refused()),
    "of business": (13000304, Refused(), Refused(), Refused()),
    "of the parameters": (13000102, SET_UP, SET_UP, SET_UP),
}
"""A code, and what it means as the answer to a bind, a list and an unbind."""
CALLS = ("bind", "list", "unbind")


def judged(call, given):
    """Return the verdict on the answer to a call."""
    match call:
        case "bind":
            return classify(given, SET)
        case "list":
            return classify_list(given, SET).attempt
        case _:
            return classify_unbind(given, SET, DEVICE_ID)


def under(status, verdict):
    """Return what a code's verdict becomes under a status at which the server may be broken."""
    if status < 500 or isinstance(verdict, AlreadyBound | Transient):
        return verdict
    if verdict.is_about_user:
        return Refused(is_about_user=True, unsure=True)
    return Transient()


@pytest.mark.parametrize("status", EVERYWHERE)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", BY_CODE)
def test_a_code_counts_before_the_status(status, call, kind):
    """The published table puts the business codes under 400, other pages under 200."""
    code, *verdicts = BY_CODE[kind]
    found = judged(call, answer(status, {"code": code, "msg": "its own words"}))
    expected = under(status, verdicts[CALLS.index(call)])
    if call == "unbind" and status == 423:
        expected = Refused(is_locked=True)
    if call == "unbind" and status in (404, 410) and code == 13000901:
        expected = Refused(is_missing=True)  # a code of the API's that is neither published nor set

    assert found == Attempt(expected, str(code), "its own words")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("code", [13000901, "13000999", 13000301])
@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (302, AWAY),
        (401, AuthExpired()),
        (429, Throttled()),
        (502, NoAnswer()),
        (504, NoAnswer()),
    ],
)
def test_a_code_does_not_speak_for_a_gateway(call, code, status, verdict):
    """These statuses are the gateway's, whatever is in their bodies."""
    assert judged(call, answer(status, {"code": code, "msg": "bound"})).verdict == verdict


@pytest.mark.parametrize("code", [13000101, 13000102, 400, 42])
def test_parameters_refused_with_400_may_be_the_set_up(code):
    """Only codes of the API's business speak of devices and users."""
    assert classify(answer(400, {"code": code, "msg": "no"}), SET).verdict == SET_UP


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("status", [200, 400, 403, 409, 422])
@pytest.mark.parametrize(
    "words",
    [
        *("鉴权不通过", "鉴权未通过", "鉴权失败", "认证不通过。", "用户认证失败", "身份验证失败"),
        *("authentication failed", "Authentication not passed", "authentication has failed"),
    ],
)
def test_refused_authentication_is_told_in_both_languages(call, status, words):
    """`language: zh-CN` changes the words of an answer, not their meaning."""
    given = answer(status, {"code": 13000102, "msg": words})

    assert judged(call, given).verdict == AuthExpired()


# --- words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param({"code": 5, "msg": " two\n\twords "}, "two words", id="white space folded"),
        pytest.param({"code": 5, "msg": "x" * 1000}, "x" * 300, id="cut at 300"),
        pytest.param({"code": 5, "error_msg": "gateway's"}, "gateway's", id="error_msg"),
        pytest.param({"code": 5, "message": "other"}, "other", id="message"),
        pytest.param({"code": 5}, "HTTP 500", id="none"),
        pytest.param({"code": 5, "msg": 7}, "HTTP 500", id="no text"),
        pytest.param(HTML, "502 Bad Gateway nginx", id="HTML without its tags"),
        pytest.param(b"", "HTTP 500 without a text", id="empty body"),
    ],
)
def test_the_message_is_the_servers_own(body, message):
    """One line of at most 300 characters."""
    assert read(answer(500, body)).message == message


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"code": 5, "msg": "half \\ud83d"}', id="msg"),
        pytest.param(b'{"code": "\\ud83d"}', id="code"),
        pytest.param(b'{"code": 0, "data": {"deviceId": "\\udc00"}}', id="deviceId"),
        pytest.param(
            b'{"code": 0, "data": {"deviceId": "1", "createTime": "\\udc00"}}', id="createTime"
        ),
    ],
)
def test_half_a_surrogate_pair_can_be_written_down(body):
    """What the server wrote can be stored: JSON may name halves that no file can hold."""
    found = classify(answer(200, body), CODES)

    kept = [found.code, found.message]
    if isinstance(found.verdict, Accepted):
        kept += [found.verdict.device_id, found.verdict.create_time]
    assert [text.encode() for text in kept]


# --- the list -------------------------------------------------------------------------------------


def listed(*records: object) -> dict[str, object]:
    """Return the answer to a list."""
    return {"code": 0, "msg": "success", "data": list(records)}


ONE = {"deviceId": DEVICE_ID, "machineCode": "SN_1", "createTime": CREATED}


@pytest.mark.parametrize(
    ("body", "records"),
    [
        pytest.param(listed(), {}, id="a user without devices"),
        pytest.param({"code": 0, "data": None}, {}, id="data null"),
        pytest.param(listed(ONE), {"SN_1": Record("SN_1", DEVICE_ID, CREATED)}, id="one"),
        pytest.param(
            {"code": "0", "data": [ONE, ONE | {"machineCode": "SN_2", "deviceId": 7}]},
            {"SN_1": Record("SN_1", DEVICE_ID, CREATED), "SN_2": Record("SN_2", "7", CREATED)},
            id="two, code as text, id as a number",
        ),
        pytest.param(
            listed({"deviceId": "7", "machineCode": "SN_1"}),
            {"SN_1": Record("SN_1", "7", "")},
            id="no createTime",
        ),
    ],
)
def test_a_list_is_read_by_machine_code(body, records):
    """Every record of a usable list is there."""
    listing = classify_list(answer(200, body), CODES)
    reading, found = listing.attempt, listing.records

    assert isinstance(reading.verdict, Accepted)
    assert found == records


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        pytest.param(200, {"code": 0}, NoAnswer(), id="data missing"),
        pytest.param(200, {"code": 0, "data": {}}, NoAnswer(), id="data an object"),
        pytest.param(200, {"code": 0, "data": "[]"}, NoAnswer(), id="data text"),
        pytest.param(200, listed(ONE, "junk"), NoAnswer(), id="an item that is no record"),
        pytest.param(200, listed({"machineCode": "SN_1"}), NoAnswer(), id="an item without id"),
        pytest.param(200, listed({"deviceId": "7"}), NoAnswer(), id="an item without code"),
        pytest.param(200, [ONE], NoAnswer(), id="a bare list"),
        pytest.param(200, b"", NoAnswer(), id="empty body"),
        pytest.param(200, HTML, NoAnswer(), id="HTML"),
        pytest.param(200, b"[" * 200_000, NoAnswer(), id="200,000 brackets"),
        pytest.param(200, {"code": 13000309, "msg": "missing"}, Refused(), id="a refusal"),
        pytest.param(200, {"code": 13000999, "msg": "busy"}, Transient(), id="a retryable code"),
        pytest.param(429, TOLD, Throttled(10, 1), id="429"),
        pytest.param(401, gateway("0307"), AuthExpired(), id="401"),
        pytest.param(404, HTML, SET_UP, id="404"),
        pytest.param(500, listed(ONE), Transient(), id="500 with a list"),
        pytest.param(502, HTML, NoAnswer(), id="502"),
        pytest.param(504, b"", NoAnswer(), id="504"),
    ],
)
def test_what_is_no_list_gives_no_records(status, body, verdict):
    """None, not an empty list: absence from it must prove nothing."""
    listing = classify_list(answer(status, body), CODES)
    reading, found = listing.attempt, listing.records

    assert reading.verdict == verdict
    assert found is None


def test_a_cut_list_gives_no_records():
    """A list longer than the cap shows nothing, since what is absent may have been cut."""
    listing = classify_list(answer(200, listed(ONE), whole=False), CODES)
    reading, found = listing.attempt, listing.records

    assert reading.verdict == NoAnswer()
    assert found is None


# --- totality -------------------------------------------------------------------------------------

NAMES = st.sampled_from(
    ("code", "msg", "data", "error_code", "error_msg", "deviceId", "machineCode", "createTime")
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["0", 0, "APIG.0308", "APIGW.0307", "APIG.0501", "13000310", "SN_1"])
    | st.sampled_from(["limit:10,time:1 second", "limit:999999999,time:999999999 day"])
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=12,
)
BODIES = st.binary(max_size=60) | st.dictionaries(NAMES, JSON, max_size=6).map(dump)
HEADERS = (
    st.none()
    | st.text(max_size=40)
    | st.integers().map(str)
    | st.sampled_from([DATE, "Mon Nov 23 12:01:30 2026", "Mon, 23 Nov 9999 12:00:00 GMT"])
)
ANSWERS = st.builds(
    Answer,
    st.integers(100, 999) | st.sampled_from([200, 400, 401, 405, 429, 500, 503]),
    BODIES,
    HEADERS,
    HEADERS,
    st.floats(0, 4e9),
    st.booleans(),
)


def sound(found: Attempt) -> bool:
    """Return whether this is a reading in every respect."""
    return (
        isinstance(found.verdict, get_args(Verdict))
        and [type(text) for text in (found.code, found.message)] == [str, str]
        and len(found.code) <= 64
        and len(found.message) <= 300
    )


@given(ANSWERS, st.text(max_size=5))
@example(Answer(200, b"\xff" * 5000), "")
@example(Answer(429, b'{"msg": "limit:' + b"9" * 5000 + b',time:1 second"}'), "")
def test_classify_is_total(given_answer, machine_code):
    """Any status, any body, any header text: a reading, never an exception."""
    found = classify(given_answer, CODES, machine_code)

    assert sound(found)


@given(ANSWERS)
def test_classify_list_is_total(given_answer):
    """The same for a list; records only with an accepted list."""
    listing = classify_list(given_answer, CODES)
    reading, records = listing.attempt, listing.records

    assert sound(reading)
    assert (records is not None) == isinstance(reading.verdict, Accepted)


@given(ANSWERS)
def test_only_code_0_with_a_record_is_ever_accepted(given_answer):
    """Nothing is called bound that the server did not call bound, with an id."""
    found = classify(given_answer, CODES, "SN_1")

    if isinstance(found.verdict, Accepted):
        body = json.loads(given_answer.body)
        assert 200 <= given_answer.status < 300
        assert given_answer.whole
        assert str(body.get("code", body.get("error_code"))) == "0"
        assert found.verdict.device_id


# --- unbinds --------------------------------------------------------------------------------------


def unbound(status: int, body: object = b"") -> Verdict:
    """Return the verdict on an answer to the unbind of the reference's device."""
    codes = Codes(not_bound=frozenset({"13000309"}), retryable=frozenset({"13000999"}))
    return classify_unbind(answer(status, body), codes, DEVICE_ID, "SN_1").verdict


@pytest.mark.parametrize(
    "body",
    [success(), success(machineCode=...), success(deviceId=...), success(deviceId=int(DEVICE_ID))],
)
def test_an_unbind_is_done_where_the_answer_names_the_device(body):
    """By its id, its machine code, or both."""
    assert unbound(200, body) == Accepted(DEVICE_ID, "")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (204, b""),
        (200, {"code": 0, "msg": "success"}),
        (200, {"code": "0", "data": None}),
        (200, {"code": 0, "data": {}}),
        (200, {"code": 0, "data": []}),
        (200, {"code": 0, "data": {"deviceId": "", "machineCode": ""}}),
    ],
)
def test_a_success_that_names_nothing_bears_no_id(status, body):
    """So that whoever asked knows that only the list can tell."""
    assert unbound(status, body) == Accepted("", "")


@pytest.mark.parametrize(
    "body",
    [
        success(machineCode="SN_2"),
        success(deviceId="7"),
        success(deviceId=7),
        success(deviceId="7", machineCode=...),
        success(deviceId=..., machineCode="SN_2"),
        success(machineCode="sn_1"),
        {"code": 0, "msg": "success", "data": [{"deviceId": "99999", "machineCode": "SN_2"}]},
        {"code": 0, "msg": "success", "data": {"device": {"deviceId": "99999"}}},
        {"code": 0, "msg": "success", "data": {"device_id": "99999", "machine_code": "SN_00002"}},
        {"code": 0, "msg": "success", "data": "1842812272691459999"},
        {"code": 0, "msg": "success", "data": 1842812272691459999},
    ],
)
def test_an_answer_about_another_device_is_none(body):
    """Whichever of the two names differs, in whatever shape it stands there."""
    assert unbound(200, body) == NoAnswer(names_another=True)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        {"code": 0, "msg": "ok", "data": True},
        {"code": 0, "msg": "", "data": {"state": "done", "left": 12}},
        {"code": 0, "msg": "ok", "data": {"unboundAt": "2026-11-26T14:48:00.123Z"}},
        b'{"code":0,"msg":"ok","data":' + b"[" * 900 + b"]" * 900 + b"}",
    ],
    ids=["empty", "blank", "true", "a state", "a time", "deep"],
)
def test_a_success_that_names_nothing_leaves_it_to_the_list(body):
    """No body, or one with a state in it, is no proof and no contradiction."""
    assert unbound(200, body) == Accepted("", "")


@pytest.mark.parametrize(
    ("status", "body", "is_named", "was_read"),
    [
        (200, success(machineCode="SN_2"), False, True),
        (200, success(machineCode=...), True, True),
        (200, {"code": 0, "msg": "ok"}, False, True),
        (200, HTML, False, False),
        (504, b"", False, False),
    ],
)
def test_an_answer_that_was_read_shows_that_the_server_is_there(status, body, is_named, was_read):
    """It says nothing of its request, but it is not silence; what is no answer of the API is."""
    verdict = classify(answer(status, body), Codes(), "SN_1", is_named=is_named).verdict

    assert isinstance(verdict, NoAnswer)
    assert verdict.was_read is was_read


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, {"code": 40404, "msg": "no such device"}),
        (410, {"code": 41001, "msg": "gone"}),
        (200, {"code": 13000309, "msg": "resource missing"}),
        (400, {"code": "13000309", "msg": "resource missing"}),
    ],
)
def test_no_such_binding(status, body):
    """By the status with a code of the API's, or by a code that is set as that."""
    assert unbound(status, body) == Refused(is_missing=True)


@pytest.mark.parametrize(
    ("status", "code", "verdict"),
    [
        (200, 13000902, Refused(is_locked=True)),
        (400, "13000902", Refused(is_locked=True)),
        (409, 13000902, Refused(is_locked=True)),
        (423, 1, Refused(is_locked=True)),
        (409, 13000903, Refused()),
        (500, 13000902, Transient()),
    ],
)
def test_an_unbind_under_a_backup_lock_is_refused_for_a_while(status, code, verdict):
    """By a code that is set, or by the status that means it."""
    codes = Codes(locked=frozenset({"13000902"}))
    given = answer(status, {"code": code, "msg": "locked"})

    assert classify_unbind(given, codes, DEVICE_ID).verdict == verdict


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (404, gateway("0101"), SET_UP),
        (404, b"", SET_UP),
        (404, HTML, SET_UP),
        (404, {"code": 404, "msg": "No message available"}, SET_UP),
        (410, b"", Refused()),
        (404, {"code": 13000410, "msg": "no right to this space"}, Refused()),
        (403, b"", SET_UP),
        (200, {"code": 13009999, "msg": "locked"}, Refused()),
        (200, {"code": 13000999, "msg": "busy"}, Transient()),
        (409, {"code": 1, "msg": "locked"}, Refused()),
        (500, {"code": 13000309, "msg": "oops"}, Transient()),
        (200, HTML, NoAnswer()),
    ],
)
def test_other_answers_to_an_unbind_say_nothing_of_absence(status, body, verdict):
    """A path that does not exist, rights, locks, trouble."""
    assert unbound(status, body) == verdict


NAMED = st.sampled_from([DEVICE_ID, int(DEVICE_ID), "1842812272691451649", "", None, "SN_1"])
CODED = st.sampled_from(["SN_1", "sn_1", "SN_2", "", None, 7])
SAID = st.fixed_dictionaries(
    {"code": st.sampled_from([0, "0", 1, None, "13000310"])},
    optional={
        "msg": st.sampled_from(["success", "two words", "", None, 5]),
        "data": st.one_of(
            st.none(),
            st.fixed_dictionaries(
                {}, optional={"deviceId": NAMED, "machineCode": CODED, "createTime": st.just(5)}
            ),
        ),
    },
)


@given(SAID, st.sampled_from([200, 201, 404]), st.booleans())
def test_a_regular_success_of_an_unbind_is_judged_in_short_as_at_length(body, status, whole):
    """Whatever is judged at a tenth of the cost would have had the same verdict."""
    given = answer(status, body, whole=whole)

    assert classify_unbind(given, SET, DEVICE_ID, "SN_1") == _unbound(given, SET, DEVICE_ID, "SN_1")


def test_a_regular_success_of_an_unbind_is_judged_in_short():
    """That which names just the device."""
    data = {"deviceId": DEVICE_ID, "machineCode": "SN_1", "createTime": CREATED}
    given = answer(200, {"code": 0, "msg": "success", "data": data})

    assert _plainly_unbound(given, DEVICE_ID, "SN_1") is not None
