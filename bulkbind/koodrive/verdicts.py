"""Classify answers. Pure and total: every status and every body has a verdict.

Source: koodrive-api.md, "Errors"; the gateway's codes: dependencies.md, trap 10.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, Literal

import msgspec

from bulkbind.clock import UNITS_S
from bulkbind.koodrive import wire
from bulkbind.koodrive.wire import (
    LONGEST_ID,
    LONGEST_MESSAGE,
    LONGEST_TIME,
    Answer,
    body_of,
    record_of,
    words_of,
)
from bulkbind.model import (
    Accepted,
    AlreadyBound,
    Attempt,
    AuthExpired,
    ClockRefused,
    Listing,
    NoAnswer,
    QuotaUsedUp,
    Record,
    Refused,
    Throttled,
    Transient,
    Verdict,
)
from bulkbind.redaction import BLOCK, redacted

NO_CONTENT = 204
_ID = re.compile(r"\w{5,}", re.ASCII)
"""What may be an id in an answer of an unexpected shape: no time, no sentence, no small count."""
DATE_WINDOW_S = 900.0
"""The maximum age of X-Date. Source: koodrive-api.md, header table."""

_GATEWAY_CODE = re.compile(r"APIGW?\.(\d{4})", re.ASCII)
_THROTTLED = "0308"
_RENEW = frozenset({"0301", "0303", "0307", "1002"})
_NOT_PASSED = re.compile(
    r"authentication (?:is |has )?(?:not passed|failed)"
    r"|(?:鉴权|认证|身份验证)(?:不通过|未通过|失败)",
    re.IGNORECASE,
)
"""The status table's description of a 400, in the languages of the reference."""
_QUOTA = frozenset({"0501", "0502"})
_LOST_BACKEND = frozenset({"0201", "0202", "0203", "0610", "0613"})
_PUBLISHED = re.compile(r"13000[134]\d\d", re.ASCII)
"""The API's own codes, which take precedence over the status."""
_PARAMETERS = re.compile(r"130001\d\d", re.ASCII)
"""The API's own codes for refused parameters, and so perhaps for a wrong set-up."""
_BUSINESS = re.compile(r"130(?!001)\d{5}", re.ASCII)
"""Codes like the API's own that speak of devices, users and files."""
_NOT_BY_CODE = frozenset({401, 502, 504})
"""Statuses, besides redirects, that count before a code: they are the gateway's."""
_LIMIT_TEXT = re.compile(
    rf"limit:\s*(\d{{1,9}})\s*,\s*time:\s*(\d{{1,9}})\s*({'|'.join(UNITS_S)})",
    re.ASCII | re.IGNORECASE,
)


_SET_UP = frozenset({400, 403, 404, 405})
"""Statuses of a refusal that may be due to a wrong set-up."""
_TOTALS = ("total", "totalCount", "count")
"""What an answer that pages its list may call the number of all records; none is documented."""


@dataclass(frozen=True, slots=True)
class Codes:
    """The meanings of codes that the operator has configured."""

    already_bound: frozenset[str] = frozenset()
    not_bound: frozenset[str] = frozenset()
    retryable: frozenset[str] = frozenset()
    locked: frozenset[str] = frozenset()
    """The answer to an unbind of a device under a backup lock."""
    user: frozenset[str] = frozenset()
    """They speak of the user, whatever the device."""

    def verdict(self, code: str, answer: Answer) -> Verdict | None:
        """Return what a code means by itself; None if it is not one of these."""
        if code in self.already_bound:
            return AlreadyBound()
        if code in self.retryable:
            return Transient(wire.retry_after(answer.retry_after, answer.date))
        return Refused(is_about_user=True) if code in self.user else None


def classify(
    answer: Answer, codes: Codes, machine_code: str = "", *, is_named: bool = False
) -> Attempt:
    """Return what the answer to a bind means.

    *machine_code*: the one that was sent; an answer that names another counts as no answer.
    *is_named*: the server is known to name it, so that a success without it does not count.
    """
    plain = _plainly_bound(answer, machine_code, is_named=is_named)
    if plain is not None:
        return plain
    body = body_of(answer)
    return _common(answer, body, codes) or _bound(answer, body, machine_code, is_named=is_named)


_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_ID)]
_Time = Annotated[str, msgspec.Meta(max_length=LONGEST_TIME)]
_Words = Annotated[str, msgspec.Meta(max_length=LONGEST_MESSAGE)]


class _Names(msgspec.Struct, gc=False):
    deviceId: _Id  # noqa: N815  # the answer's own names
    machineCode: str | None = None  # noqa: N815  # as above


class _Data(_Names, gc=False, kw_only=True):
    createTime: _Time  # noqa: N815  # as above


class _Success(msgspec.Struct, gc=False):
    code: Literal[0]
    msg: _Words
    data: _Data


_SUCCESS = msgspec.json.Decoder(_Success)


def _plainly_bound(answer: Answer, machine_code: str, *, is_named: bool) -> Attempt | None:
    """Return the attempt for a regular success, at a tenth of the cost; else None."""
    if answer.status != 200 or not answer.whole:
        return None
    try:
        body = _SUCCESS.decode(answer.body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    data = body.data
    if not (
        (data.machineCode == machine_code or (data.machineCode is None and not is_named))
        and data.deviceId.isalnum()
        and data.createTime.isprintable()
        and body.msg.isalnum()
        and redacted(data.deviceId, shortest=BLOCK) == data.deviceId
        and redacted(data.createTime, shortest=BLOCK) == data.createTime
    ):
        return None
    verdict = Accepted(data.deviceId, data.createTime)
    return Attempt(verdict, "0", body.msg, is_named=bool(data.machineCode))


def classify_list(answer: Answer, codes: Codes) -> Listing:
    """Return what the answer to a list call means, and its records, if any.

    A code that means "already bound" makes no sense here: it is a refusal.
    """
    body = body_of(answer)
    refused = _common(answer, body, Codes(retryable=codes.retryable, user=codes.user))
    if refused is not None:
        return Listing(refused, None)
    data = body.get("data") if body else None
    if data is None and body is not None and "data" in body:
        data = []
    if not isinstance(data, list):
        return Listing(
            Attempt(NoAnswer(was_read=True), "0", "the list's answer holds no list"), None
        )
    records: dict[str, Record] = {}
    doubles: list[Record] = []
    for item in data:
        record = record_of(item)
        if record is None or not record.machine_code:
            words = "the list holds a record that is none"
            return Listing(Attempt(NoAnswer(was_read=True), "0", words), None)
        first = records.setdefault(record.machine_code, record)
        if first.device_id != record.device_id:
            doubles.append(record)
    is_part = any(
        isinstance(total := (body or {}).get(name), int) and total > len(data) for name in _TOTALS
    )
    return Listing(Attempt(Accepted("", ""), "0", "success"), records, tuple(doubles), is_part)


def classify_unbind(
    answer: Answer, codes: Codes, device_id: str, machine_code: str = ""
) -> Attempt:
    """Return what the answer to an unbind means.

    `Accepted` holds the device id if the success names the device. It is empty if the success names
    nothing, as without a body: then only the next list shows whether it was about this device. A
    code that means "already bound" makes no sense here: it is a refusal.
    """
    plain = _plainly_unbound(answer, device_id, machine_code)
    return plain or _unbound(answer, codes, device_id, machine_code)


def _unbound(answer: Answer, codes: Codes, device_id: str, machine_code: str) -> Attempt:
    if answer.status == NO_CONTENT or (200 <= answer.status < 300 and not answer.body.strip()):
        return Attempt(Accepted("", ""), "0", "no content")
    body = body_of(answer)
    code, message = words_of(answer, body)
    if _says_locked(answer.status, code, codes):
        return Attempt(Refused(is_locked=True), code, message)
    if _says_not_bound(answer.status, code, codes):
        return Attempt(Refused(is_missing=True), code, message)
    refused = _common(answer, body, Codes(retryable=codes.retryable))
    if refused is not None:
        return refused
    data = body.get("data") if body else None
    named = _names_of(data)
    others = [
        shown
        for shown, asked in zip(named, (device_id, machine_code), strict=True)
        if shown and asked and shown != asked
    ]
    if not any(named):
        others = [shown for shown in _ids_in(data) if shown not in (device_id, machine_code)]
    if others:
        words = f"the answer names another device: {others[0][:64]!r}"
        return Attempt(NoAnswer(names_another=True, was_read=True), "0", words)
    return Attempt(Accepted(device_id if any(named) else "", ""), "0", message)


class _Unbound(msgspec.Struct, gc=False):
    code: Literal[0]
    msg: _Words
    data: _Names


_UNBOUND = msgspec.json.Decoder(_Unbound)


def _plainly_unbound(answer: Answer, device_id: str, machine_code: str) -> Attempt | None:
    """Return the attempt for a success that names just this device; else None."""
    if answer.status != HTTPStatus.OK or not answer.whole:
        return None
    try:
        body = _UNBOUND.decode(answer.body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    is_named = body.data.deviceId == device_id and body.data.machineCode in (None, machine_code)
    if not is_named or not body.msg.isalnum():
        return None
    return Attempt(Accepted(device_id, ""), "0", body.msg)


def _says_locked(status: int, code: str, codes: Codes) -> bool:
    return status == HTTPStatus.LOCKED or (200 <= status < 500 and code in codes.locked)


def _says_not_bound(status: int, code: str, codes: Codes) -> bool:
    """Return whether an answer says that there is no such binding.

    A 404 does so only with a code of the API's: that of a gateway or a web server is about the
    path, and so is one that only repeats its status. Published and set codes take precedence.
    """
    if status == 429 or not 200 <= status < 500:
        return False
    is_about_else = code in ("", str(status)) or code.startswith("APIG")
    is_about_else = is_about_else or bool(_PUBLISHED.fullmatch(code)) or code in codes.retryable
    return code in codes.not_bound or (status in (404, 410) and not is_about_else)


def _names_of(data: object) -> tuple[str, str]:
    """Return the device id and the machine code that an answer names; empty if it does not."""
    if not isinstance(data, dict):
        return "", ""
    record = record_of(data)
    if record is not None:
        return record.device_id, record.machine_code
    code = data.get("machineCode")
    return "", code if isinstance(code, str) else ""


def _ids_in(data: object) -> list[str]:
    """Return what may be an id in an answer of an unexpected shape, however deep it is."""
    found: list[str] = []
    left = [data]
    while left:
        item = left.pop()
        if isinstance(item, dict):
            left.extend(item.values())
        elif isinstance(item, list):
            left.extend(item)
        elif isinstance(item, str | int):
            found.append(str(item))
    return [text for text in found if _ID.fullmatch(text) and any(map(str.isdigit, text))]


def _common(answer: Answer, body: dict[str, Any] | None, codes: Codes) -> Attempt | None:
    """Judge everything but success, which depends on the call: then None."""
    code, message = words_of(answer, body)
    gateway = _GATEWAY_CODE.fullmatch(code)
    number = gateway[1] if gateway else ""
    if answer.status == 429 or number == _THROTTLED:
        return Attempt(_throttled(answer, message), code, message)
    if 200 <= answer.status < 300:
        return _business(answer, body, code, message, codes)
    is_read_by_code = answer.status >= 400 and answer.status not in _NOT_BY_CODE
    if is_read_by_code and (coded := codes.verdict(code, answer)) is not None:
        if isinstance(coded, Refused) and answer.status >= 500:
            coded = Refused(
                is_about_user=True, unsure=True
            )  # it may have been done before it failed
        return Attempt(coded, code, message)
    is_unauthenticated = number in _RENEW or bool(_NOT_PASSED.search(message))
    verdict = _by_status(answer, number, is_unauthenticated=is_unauthenticated)
    if isinstance(verdict, Refused) and not verdict.unsure:
        verdict = _refused(answer.status, code, message)
    return Attempt(verdict, code, message)


def _refused(status: int, code: str, message: str) -> Verdict:
    """Return what a refusal is about; the API's codes mean the same under every status."""
    if _PARAMETERS.fullmatch(code):
        return AuthExpired() if _NOT_PASSED.search(message) else Refused(set_up=True)
    is_by_status = status in _SET_UP and not _BUSINESS.fullmatch(code)
    return Refused(set_up=True) if is_by_status else Refused()


def _by_status(answer: Answer, number: str, *, is_unauthenticated: bool) -> Verdict:  # noqa: C901, PLR0911  # a table
    match answer.status:
        case 400 | 401 if _clock_refused(answer):
            return ClockRefused()
        case 401:
            return AuthExpired()
        case 400 | 403 if is_unauthenticated:
            return AuthExpired()
        case 405 if number in _QUOTA:
            return QuotaUsedUp(wire.retry_after(answer.retry_after, answer.date))
        case 408 | 425:
            return Transient()
        case status if 300 <= status < 400:
            return Refused(set_up=True, unsure=True)
        case status if 400 <= status < 500:
            return Refused()
        case 502 | 504:
            return NoAnswer()
        case status if 500 <= status < 600:
            if number in _LOST_BACKEND:
                return NoAnswer()
            return Transient(wire.retry_after(answer.retry_after, answer.date))
        case _:
            return NoAnswer()


def _business(
    answer: Answer, body: dict[str, Any] | None, code: str, message: str, codes: Codes
) -> Attempt | None:
    """Judge a 2xx by the body's code. None: success."""
    if body is None:
        why = "is not JSON" if answer.whole else "is longer than the cap"
        return Attempt(NoAnswer(), "", f"the answer {why}: {message}"[:LONGEST_MESSAGE])
    if not code:
        return Attempt(NoAnswer(), "", "the answer has no code")
    if code == "0":
        return None
    verdict = codes.verdict(code, answer) or _refused(answer.status, code, message)
    return Attempt(verdict, code, message)


def _bound(
    answer: Answer, body: dict[str, Any] | None, machine_code: str, *, is_named: bool
) -> Attempt:
    record = record_of(body.get("data") if body else None)
    _, message = words_of(answer, body)
    if record is None:
        return Attempt(NoAnswer(was_read=True), "0", "the answer says success, but holds no record")
    if machine_code and record.machine_code and record.machine_code != machine_code:
        shown = record.machine_code[:64]
        return Attempt(
            NoAnswer(was_read=True), "0", f"the answer names another machine code: {shown!r}"
        )
    if is_named and not record.machine_code:
        return Attempt(
            NoAnswer(was_read=True), "0", "the answer names no machine code, as others did"
        )
    verdict = Accepted(record.device_id, record.create_time)
    return Attempt(verdict, "0", message, is_named=bool(record.machine_code))


def _throttled(answer: Answer, message: str) -> Throttled:
    after = wire.retry_after(answer.retry_after, answer.date)
    stated = _LIMIT_TEXT.search(message)
    if stated is None or int(stated[1]) == 0 or int(stated[2]) == 0:
        return Throttled(retry_after_s=after)
    return Throttled(
        limit=float(stated[1]),
        window_s=float(stated[2]) * UNITS_S[stated[3].lower()],
        retry_after_s=after,
    )


def _clock_refused(answer: Answer) -> bool:
    date = wire.http_date(answer.date)
    if date is None:
        return False
    # Date is rounded down: the server's clock was up to a second later.
    return answer.x_date_s >= date or date - answer.x_date_s >= DATE_WINDOW_S
