from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given, strategies as st

from bulkbind.koodrive.wire import (
    LONGEST_RETRY_AFTER_S,
    TraceIds,
    bind_body,
    http_date,
    retry_after,
    x_date,
)
from bulkbind.model import Device
from tests.support.rows import device

DATE = "Mon, 23 Nov 2026 12:00:00 GMT"
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()
MOMENTS = st.floats(0, 7e9).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
"""1970 to 2191."""


# --- X-Date ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        pytest.param(
            datetime(2025, 11, 3, 7, 1, 40, tzinfo=UTC), "20251103T070140Z", id="the reference's"
        ),
        pytest.param(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "20260102T030405Z", id="padded"),
        pytest.param(
            datetime(2026, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
            "20261231T235959Z",
            id="rounded down, never up into the next year",
        ),
        pytest.param(datetime(2028, 2, 29, tzinfo=UTC), "20280229T000000Z", id="leap day"),
    ],
)
def test_x_date_has_the_form_of_the_contract(moment, expected):
    """A moment becomes `yyyyMMdd'T'HHmmss'Z'` in UTC."""
    assert x_date(moment.timestamp()) == expected


@given(MOMENTS)
def test_x_date_is_never_later_than_the_moment(moment):
    """What is sent lies in the second of the moment, at its beginning."""
    text = x_date(moment.timestamp())

    signed = datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    assert len(text) == 16
    assert timedelta(0) <= moment - signed < timedelta(seconds=1)


# --- trace ids ------------------------------------------------------------------------------------


def test_trace_ids_are_58_characters_and_never_repeat():
    """Ten thousand ids of two processes: 58 characters, the last 16 digits; none is repeated."""
    one, other = TraceIds(), TraceIds()

    ids = [source.next() for source in (one, other) for _ in range(10_000)]

    assert all(re.fullmatch(r"[0-9a-f]{42}[0-9]{16}", trace_id) for trace_id in ids)
    assert len(set(ids)) == 20_000


# --- the body -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        pytest.param(
            device("u", "SN_1", "Van-1 _x", "Android 15"),
            {"machineCode": "SN_1", "deviceName": "Van-1 _x", "deviceOS": "Android 15"},
            id="all fields",
        ),
        pytest.param(Device("u", "SN_1"), {"machineCode": "SN_1"}, id="absent fields left out"),
        pytest.param(
            device("u", "0123", None, "16"),
            {"machineCode": "0123", "deviceOS": "16"},
            id="digits stay text",
        ),
    ],
)
def test_bind_body_holds_the_fields_that_are_there(device, expected):
    """The body is JSON under the API's names, without the user and without absent fields."""
    assert json.loads(bind_body(device)) == expected


# --- dates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("Mon, 23 Nov 2026 12:00:00 GMT", id="IMF-fixdate"),
        pytest.param("Monday, 23-Nov-26 12:00:00 GMT", id="RFC 850"),
        pytest.param("Mon Nov 23 12:00:00 2026", id="asctime"),
        pytest.param("Mon, 23 Nov 2026 12:00:00 -0000", id="zone not told"),
    ],
)
def test_http_date_reads_every_form(text):
    """The three forms of RFC 9110 are the same moment."""
    assert http_date(text) == NOON


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(None, id="none"),
        pytest.param("", id="empty"),
        pytest.param("   ", id="blanks"),
        pytest.param("garbage", id="a word"),
        pytest.param("2026-11-23T12:00:00Z", id="ISO 8601"),
        pytest.param("Mon, 31 Feb 2026 12:00:00 GMT", id="31 February"),
        pytest.param("Mon, 23 Nov 2026 25:00:00 GMT", id="25 o'clock"),
        pytest.param("Mon, 23 Nov 2026 12:00:00 +9999999999", id="a zone beyond bounds"),
        pytest.param("Mon, 23 Nov " + "9" * 5000 + " 12:00:00 GMT", id="a year of 5000 digits"),
        pytest.param("1795435200", id="seconds since 1970"),
    ],
)
def test_http_date_knows_what_is_no_date(text):
    """What is no HTTP-date is None, never an exception."""
    assert http_date(text) is None


@given(st.text(alphabet=st.characters(max_codepoint=255), max_size=60))
def test_http_date_never_raises(text):
    """Any header text gives a number or None."""
    found = http_date(text)

    assert found is None or isinstance(found, float)


@given(MOMENTS)
def test_http_date_round_trip(moment):
    """A date that a server writes comes back to the second."""
    whole = moment.replace(microsecond=0)

    assert http_date(format_datetime(whole, usegmt=True)) == whole.timestamp()


# --- Retry-After ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("0", 0.0, id="0 s"),
        pytest.param("7", 7.0, id="7 s"),
        pytest.param("  7 ", 7.0, id="7 s between blanks"),
        pytest.param("0000000000120", 120.0, id="leading zeros -> 120 s"),
        pytest.param("86399", 86_399.0, id="a day less 1 s"),
        pytest.param("86401", LONGEST_RETRY_AFTER_S, id="a day and 1 s -> a day"),
        pytest.param("1795435290", 90.0, id="seconds since 1970: 90 s"),
        pytest.param(" 1795435290 ", 90.0, id="the same between blanks"),
        pytest.param("1795435290500", 90.5, id="milliseconds since 1970: 90.5 s"),
        pytest.param("1795435199", None, id="a moment since 1970, 1 s past"),
        pytest.param("1000000000", None, id="a moment in 2001"),
        pytest.param("4102444800", LONGEST_RETRY_AFTER_S, id="a moment in 2100 -> a day"),
        pytest.param("9" * 500, LONGEST_RETRY_AFTER_S, id="500 digits -> a day"),
        pytest.param("Mon, 23 Nov 2026 12:01:30 GMT", 90.0, id="IMF-fixdate + 90 s"),
        pytest.param("Monday, 23-Nov-26 12:01:30 GMT", 90.0, id="RFC 850 + 90 s"),
        pytest.param("Mon Nov 23 12:01:30 2026", 90.0, id="asctime + 90 s"),
        pytest.param(
            "Mon, 23 Nov 2099 12:00:00 GMT", LONGEST_RETRY_AFTER_S, id="73 years -> a day"
        ),
        pytest.param("Mon, 23 Nov 2026 11:59:59 GMT", None, id="a date 1 s past"),
        pytest.param("Thu, 01 Jan 1970 00:00:00 GMT", None, id="1970"),
        pytest.param(None, None, id="no header"),
        pytest.param("", None, id="empty"),
        pytest.param("soon", None, id="a word"),
        pytest.param("-5", None, id="negative"),
        pytest.param("1.5", 1.5, id="a fraction"),
        pytest.param("0.25", 0.25, id="a fraction of a second"),
        pytest.param("1.", None, id="a point without a fraction"),
        pytest.param("1,5", None, id="a comma"),
        pytest.param("1795435290.5", 90.5, id="seconds since 1970 with a fraction"),
        pytest.param("1795435290500000", 90.5, id="microseconds since 1970: 90.5 s"),
        pytest.param("1795435290500000000", 90.5, id="nanoseconds since 1970: 90.5 s"),
        pytest.param("1795435200", 0.0, id="this moment since 1970"),
        pytest.param("1795435199000", None, id="milliseconds since 1970, 1 s past"),
        pytest.param("1795435199000000", None, id="microseconds since 1970, 1 s past"),
        pytest.param("9" * 30, LONGEST_RETRY_AFTER_S, id="30 digits -> a day"),
        pytest.param("Mon, 23 Nov 2026 12:00:00 GMT", 0.0, id="the date of the answer"),
        pytest.param("1e3", None, id="an exponent"),
        pytest.param("٣", None, id="a digit outside ASCII"),  # ٣ is what isdigit() takes
    ],
)
def test_retry_after(text, expected):
    """Seconds, or a date against the answer's own; clamped to a day; else nothing."""
    assert retry_after(text, DATE) == expected


@pytest.mark.parametrize("date", [None, "garbage"], ids=["no Date", "Date is garbage"])
def test_retry_after_date_needs_the_servers_clock(date):
    """A date cannot be measured without the server's own: ours may be wrong."""
    assert retry_after("Mon, 23 Nov 2026 12:01:30 GMT", date) is None
    assert retry_after("1795435290", date) is None


@given(*[st.none() | st.text(st.characters(max_codepoint=255), max_size=40)] * 2)
def test_retry_after_never_raises(text, date):
    """Any two headers give nothing, or 0 s to a day."""
    found = retry_after(text, date)

    assert found is None or 0 <= found <= LONGEST_RETRY_AFTER_S
