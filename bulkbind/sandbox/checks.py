"""What a request must look like. Written from koodrive-api.md, apart from the client's rules."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_AGE_S = 900
"""X-Date: at most 15 minutes old, and never later than the server's clock."""
TRACE_ID_LENGTH = 58

_FIELDS = {
    "machineCode": re.compile(r"\A[a-zA-Z0-9_]{1,64}\Z", re.ASCII),
    "deviceName": re.compile(r"\A[a-zA-Z0-9\-_\s]{1,32}\Z", re.ASCII),
    "deviceOS": re.compile(r"\A[a-zA-Z0-9_\s]{1,32}\Z", re.ASCII),
}
_USER_ID = re.compile(r"\A[!-~]{1,128}\Z")
_X_DATE = re.compile(r"\A\d{8}T\d{6}Z\Z", re.ASCII)


class Refusal(NamedTuple):
    """An error answer."""

    status: int
    body: dict[str, object]


def parameters(message: str) -> Refusal:
    """Return the answer to wrong parameters."""
    return Refusal(400, {"code": 13000102, "msg": message})


def unauthorised(message: str) -> Refusal:
    """Return the gateway's answer to missing or wrong credentials."""
    return Refusal(401, {"error_code": "APIG.0301", "error_msg": message, "request_id": "sandbox"})


def check_headers(headers: Mapping[str, str], now: datetime) -> Refusal | None:
    """Return what is wrong with a request's headers beside its credentials, or None."""
    if not _USER_ID.match(headers.get("X-User-Id", "")):
        return parameters("X-User-Id is missing or malformed")
    trace_id = headers.get("X-Traceid")
    if trace_id is not None and len(trace_id) != TRACE_ID_LENGTH:
        return parameters("X-Traceid must have 58 characters")
    return _check_date(headers.get("X-Date", ""), now)


def _check_date(text: str, now: datetime) -> Refusal | None:
    if not _X_DATE.match(text):
        return parameters("X-Date is missing or malformed")
    try:
        signed = datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return parameters("X-Date is no date")
    age_s = (now - signed).total_seconds()
    if age_s < 0:
        return unauthorised("X-Date is later than the server's time")
    if age_s > MAX_AGE_S:
        return unauthorised("X-Date is older than 15 minutes")
    return None


def check_body(content_type: str, body: bytes) -> dict[str, str] | Refusal:
    """Return the fields of a bind, or what is wrong with it."""
    if content_type != "application/json":
        return parameters("Content-Type must be application/json")
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return parameters("the body is not JSON")
    if not isinstance(fields, dict) or "machineCode" not in fields:
        return parameters("machineCode is missing")
    for name, value in fields.items():
        pattern = _FIELDS.get(name)
        if pattern is None:
            return parameters(f"{name} is unknown")
        if not isinstance(value, str) or not pattern.match(value):
            return parameters(f"{name} is malformed")
    return fields
