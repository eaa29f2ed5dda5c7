"""The wire format: write headers and bodies, parse answers."""

from __future__ import annotations

import json
import re
import secrets
import time
from datetime import UTC
from email.utils import parsedate_to_datetime
from itertools import count
from typing import TYPE_CHECKING, Any
from unicodedata import category

import msgspec

from bulkbind.clock import DAY_S
from bulkbind.model import Record, ServerLimit  # a field of `Answer`
from bulkbind.model.fields import CODE, OPTIONAL_FIELDS
from bulkbind.redaction import BLOCK, redacted

if TYPE_CHECKING:
    from collections.abc import Callable

    from bulkbind.model import Device

TRACE_ID_LENGTH = 58
EARLIEST_S, LATEST_S = 0.0, 253_370_764_800.0
"""1970 to 9998: dates outside are ignored, as no format of ours can hold them."""
LONGEST_RETRY_AFTER_S = DAY_S
"""A longer wait counts as a day."""


class TraceIds:
    """Unique trace ids of 58 characters: a random part per process, and a counter.

    Attributes:
        next: Returns the next id: 42 random hex digits, then the count in 16 decimal ones. A ledger
            keeps the count as a number, and hex digits like 1e5 would be another one.
    """

    def __init__(self) -> None:
        process = secrets.token_hex(21)
        # To write all of a number takes five times as long as to put its last digits at the end.
        ends = [f"{number:03}" for number in range(1000)]
        begins = (f"{process}{thousand:013}" for thousand in count())
        ids = (begin + end for begin in begins for end in ends)
        next(ids)  # the first is 1
        self.next: Callable[[], str] = ids.__next__


class XDates:
    """Formats signature times, once per second."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def at(self, epoch_s: float) -> str:
        """Return `x_date(epoch_s)`."""
        if int(epoch_s) != self._second:
            self._second, self._text = int(epoch_s), x_date(epoch_s)
        return self._text


def x_date(epoch_s: float) -> str:
    """Return a moment as the signature time, `20251103T070140Z` (seconds, rounded down)."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(epoch_s))


_SENT = (CODE, *OPTIONAL_FIELDS)
_BODY = msgspec.defstruct(
    "_BODY",
    [(CODE.name, str), *((field.name, str | None, None) for field in OPTIONAL_FIELDS)],
    rename={field.name: field.api for field in _SENT},
    omit_defaults=True,
    gc=False,
)
_BODIES = msgspec.json.Encoder()


def bind_body(device: Device) -> bytes:
    """Return the JSON body of a bind, without absent optional fields."""
    return _BODIES.encode(_BODY(device.machine_code, *device.optional))


def http_date(text: str | None) -> float | None:
    """Return the seconds since 1970 of an HTTP-date in any of its three forms, or None."""
    if not text:
        return None
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    try:
        seconds = moment.timestamp()
    except (ValueError, OverflowError):
        return None
    return seconds if EARLIEST_S <= seconds < LATEST_S else None


def retry_after(text: str | None, date: str | None) -> float | None:
    """Return the seconds of a Retry-After header, or None if it is unusable.

    Args:
        text: Delay or moment as of `seconds_until`; a moment in the past is unusable.
        date: The answer's Date, against which a moment is measured.
    """
    delay_s = seconds_until(text, date)
    return None if delay_s is None or delay_s < 0 else min(delay_s, LONGEST_RETRY_AFTER_S)


LARGEST_DELAY_S = 1e8
"""A number up to this is seconds from now; above, a moment since 1970."""
LARGEST_EPOCH_S = 1e11
"""Up to this, in seconds; above, in the first of the smaller units in which it is no more."""
EPOCH_UNITS = (1.0, 1e3, 1e6, 1e9)
"""Units in which a moment since 1970 is stated, per second."""


def number(text: str | None) -> float | None:
    """Return a plain non-negative number, infinite if it is beyond all others; else None."""
    text = (text or "").strip()
    return float(text) if _NUMBER.fullmatch(text) else None


def seconds_until(text: str | None, date: str | None) -> float | None:
    """Return the seconds to a moment, negative if it has passed; None if it cannot be told.

    Args:
        text: Seconds from now, or a moment: an HTTP-date, or seconds, milli-, micro- or nanoseconds
            since 1970; either may have a fraction.
        date: The answer's Date, against which a moment is measured.
    """
    stated, now = number(text), http_date(date)
    if stated is not None:
        return _delay(stated, now)
    moment = http_date(text)
    return None if moment is None or now is None else moment - now


def _delay(stated: float, now: float | None) -> float | None:
    """Return the seconds that a number means: a delay, or a moment since 1970."""
    if stated <= LARGEST_DELAY_S:
        return stated
    if now is None:
        return None
    units = (unit for unit in EPOCH_UNITS if stated <= LARGEST_EPOCH_S * unit)
    return stated / next(units, EPOCH_UNITS[-1]) - now


LONGEST_MESSAGE = 300
LONGEST_ID = 128
LONGEST_TIME = 64
_NUMBER = re.compile(r"\d+(\.\d+)?", re.ASCII)


class Answer(msgspec.Struct, frozen=True, gc=False):
    """An answer as received, and what is needed to judge it."""

    status: int
    body: bytes
    date: str | None = None
    retry_after: str | None = None
    x_date_s: float = 0.0
    """The X-Date that was sent, seconds since 1970."""
    whole: bool = True
    """False if the body was truncated at the cap."""
    limits: tuple[ServerLimit, ...] = ()
    """The limits that its headers state."""
    request_id: str | None = None
    """The header X-Request-Id."""
    connection: int = 0
    """The number of its connection."""


def body_of(answer: Answer) -> dict[str, Any] | None:
    """Return the JSON object in the body; None if there is none, or it is truncated."""
    if not answer.whole:
        return None
    try:
        body = json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def words_of(answer: Answer, body: dict[str, Any] | None) -> tuple[str, str]:
    """Return the answer's code and message as text."""
    if body is None:
        text = answer.body[: LONGEST_MESSAGE * 4].decode("utf-8", "replace")
        plain = _line(re.sub(r"<[^<>]*>", " ", text))
        return "", plain or f"HTTP {answer.status} without a text"
    code = _first(body, "code", "error_code")
    if isinstance(code, bool) or not isinstance(code, str | int):
        code = ""
    message = _first(body, "msg", "error_msg", "message")
    shown = message if isinstance(message, str) else f"HTTP {answer.status}"
    return _storable(str(code))[:64], _line(shown)


def _first(body: dict[str, Any], *names: str) -> object:
    """Return the first of several members that is present and not null."""
    return next((body[name] for name in names if body.get(name) is not None), None)


def record_of(data: object) -> Record | None:
    """Return a record, or None if it is not one, or its id holds a secret of ours.

    An id may be a number: Python keeps all digits.
    """
    if not isinstance(data, dict):
        return None
    number = data.get("deviceId")
    if isinstance(number, bool) or not isinstance(number, str | int) or number == "":
        return None
    device_id = _storable(str(number))
    if redacted(device_id, shortest=BLOCK) != device_id:
        return None
    code, created = data.get(CODE.api), data.get("createTime")
    return Record(
        machine_code=_value(code) if isinstance(code, str) else "",
        device_id=device_id[:LONGEST_ID],
        create_time=_value(created)[:LONGEST_TIME] if isinstance(created, str) else "",
        optional=tuple([_text(data.get(field.api)) for field in OPTIONAL_FIELDS]),
    )


def _text(found: object) -> str | None:
    """Return a name as in a manifest: None if it is empty."""
    return _value(found)[:LONGEST_ID] if isinstance(found, str) and found else None


def _value(text: str) -> str:
    """Return a value of a record without long secrets; a short one may be part of any id."""
    return redacted(_storable(text), shortest=BLOCK)


def request_id_of(answer: Answer) -> str:
    """Return the gateway's id of a request, or "". Source: koodrive-api.md, "Errors"."""
    found = (body_of(answer) or {}).get("request_id") or answer.request_id
    return _storable(found)[:LONGEST_ID] if isinstance(found, str) else ""


def _line(text: str) -> str:
    """Return *text* as one line of limited length."""
    return _storable(re.sub(r"\s+", " ", text).strip())[:LONGEST_MESSAGE]


def _storable(text: str) -> str:
    """Return *text* with what cannot be stored or shown replaced by a mark.

    That is lone surrogates, which JSON allows, control characters, of which a NUL would end the
    text in SQLite, and what has no shape of its own but changes that of other text.
    """
    if text.isprintable():
        return text
    text = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(c if c.isprintable() or category(c) == "Zs" else "\ufffd" for c in text)
