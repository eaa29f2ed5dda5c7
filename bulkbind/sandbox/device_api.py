"""Bind, list and unbind: check requests, execute them, and hold the bindings.

The checks are written from koodrive-api.md, independently of the client's rules.
"""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from bulkbind.clock import Clock, epoch_of, iso
from bulkbind.errors import BulkbindError
from bulkbind.sandbox.journal import JsonLines

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MAX_AGE_S = 900
"""The maximum age of X-Date, which must not be later than the server's clock either."""
TRACE_ID_LENGTH = 58
ALREADY_BOUND_CODE = 13000901
LOCKED_CODE = 13000902
"""Our choices, outside of the published ranges: the reference names no code for a second bind, nor
for an unbind under a backup lock."""
MISSING_CODE = 13000309
FIRST_DEVICE_ID = 1842812272691451648
"""Ids have 19 digits, as in the reference's example."""

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


def wrong_parameters(message: str) -> Refusal:
    """Return the API's answer to wrong parameters."""
    return Refusal(400, {"code": 13000102, "msg": message})


def gateway_refusal(status: int, code: str, message: str) -> Refusal:
    """Return an error answer of the gateway, without the API."""
    return Refusal(status, {"error_code": code, "error_msg": message, "request_id": "sandbox"})


def unauthorised(message: str) -> Refusal:
    """Return the gateway's answer to missing or wrong credentials."""
    return gateway_refusal(401, "APIG.0301", message)


# --- what a request must look like ----------------------------------------------------------------


def check_headers(headers: Mapping[str, str], now: datetime) -> Refusal | None:
    """Return what is wrong with a request's headers, apart from credentials, or None."""
    if not _USER_ID.match(headers.get("X-User-Id", "")):
        return wrong_parameters("X-User-Id is missing or malformed")
    trace_id = headers.get("X-Traceid")
    if trace_id is not None and len(trace_id) != TRACE_ID_LENGTH:
        return wrong_parameters("X-Traceid must have 58 characters")
    return _check_date(headers.get("X-Date", ""), now)


def _check_date(text: str, now: datetime) -> Refusal | None:
    if not _X_DATE.match(text):
        return wrong_parameters("X-Date is missing or malformed")
    try:
        signed = datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return wrong_parameters("X-Date is no date")
    age_s = (now - signed).total_seconds()
    if age_s < 0:
        return unauthorised("X-Date is later than the server's time")
    if age_s > MAX_AGE_S:
        return unauthorised("X-Date is older than 15 minutes")
    return None


def check_body(content_type: str, body: bytes) -> dict[str, str] | Refusal:
    """Return the fields of a bind, or what is wrong with it."""
    if content_type != "application/json":
        return wrong_parameters("Content-Type must be application/json")
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return wrong_parameters("the body is not JSON")
    if not isinstance(fields, dict) or "machineCode" not in fields:
        return wrong_parameters("machineCode is missing")
    for name, value in fields.items():
        pattern = _FIELDS.get(name)
        if pattern is None:
            return wrong_parameters(f"{name} is unknown")
        if not isinstance(value, str) or not pattern.match(value):
            return wrong_parameters(f"{name} is malformed")
    return fields


# --- what is bound --------------------------------------------------------------------------------


class Bindings:
    """Records by user and machine code; changes are appended to the state file, if there is one."""

    def __init__(self, clock: Clock, state: Path | None = None) -> None:
        """Read the state file. Raises: BulkbindError."""
        self._clock = clock
        self._users: dict[str, dict[str, dict[str, Any]]] = {}
        self._bound_at: dict[str, float] = {}
        """Monotonic moments by device id."""
        self._gone: dict[str, list[tuple[float, dict[str, Any]]]] = {}
        """What was unbound, and the monotonic moment, by user."""
        self._next_id = FIRST_DEVICE_ID
        if state is not None and state.exists():
            self._read(state)
        self._changes = JsonLines(state, "state file")

    def close(self) -> None:
        """Close the state file."""
        self._changes.close()

    def find(self, user_id: str, machine_code: str) -> dict[str, Any] | None:
        """Return a binding's record, or None."""
        return self._users.get(user_id, {}).get(machine_code)

    def bind(self, user_id: str, body: dict[str, str]) -> dict[str, Any]:
        """Add a binding and return its record."""
        record: dict[str, Any] = {
            "deviceId": str(self._next_id),
            **{name: body.get(name) for name in _FIELDS},
            "createTime": iso(self._clock.utc_now()),
        }
        self._put(user_id, record)
        self._bound_at[record["deviceId"]] = self._clock.monotonic()
        self._changes.write({"user": user_id, "record": record})
        return record

    def age_s(self, user_id: str, device_id: str) -> float:
        """Return for how many seconds a device has been bound; infinite if it is not."""
        code = self._code_of(user_id, device_id)
        created = epoch_of(self._users[user_id][code]["createTime"]) if code else None
        return math.inf if created is None else self._clock.utc_now().timestamp() - created

    def unbind(self, user_id: str, device_id: str) -> dict[str, Any] | None:
        """Remove a binding and return its record, or None if there is none."""
        code = self._code_of(user_id, device_id)
        if code is None:
            return None
        self._changes.write({"user": user_id, "unbound": device_id})
        record = self._users[user_id].pop(code)
        self._gone.setdefault(user_id, []).append((self._clock.monotonic(), record))
        return record

    def of(self, user_id: str) -> list[dict[str, Any]]:
        """Return a user's records."""
        return list(self._users.get(user_id, {}).values())

    def before(self, user_id: str, age_s: float) -> list[dict[str, Any]]:
        """Return a user's records as they were *age_s* ago; what the state file holds is older."""
        then = self._clock.monotonic() - age_s
        gone = [record for gone_at, record in self._gone.get(user_id, ()) if gone_at > then]
        return [
            record
            for record in (*self.of(user_id), *gone)
            if self._bound_at.get(record["deviceId"], then) <= then
        ]

    def everything(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield every user with every record."""
        for user_id, devices in self._users.items():
            for record in devices.values():
                yield user_id, record

    def __len__(self) -> int:
        return sum(len(devices) for devices in self._users.values())

    def _put(self, user_id: str, record: dict[str, Any]) -> None:
        self._users.setdefault(user_id, {})[record["machineCode"]] = record
        self._next_id = max(self._next_id, int(record["deviceId"])) + 1

    def _code_of(self, user_id: str, device_id: str) -> str | None:
        devices = self._users.get(user_id, {})
        return next((code for code in devices if devices[code]["deviceId"] == device_id), None)

    def _read(self, state: Path) -> None:
        try:
            for line in state.read_text(encoding="utf-8").splitlines():
                change = json.loads(line)
                if "record" in change:
                    self._put(change["user"], change["record"])
                elif code := self._code_of(change["user"], change["unbound"]):
                    del self._users[change["user"]][code]
        except OSError as error:
            raise BulkbindError(
                f"the sandbox's state file {state} cannot be read: {error.strerror}"
            ) from error
        except (ValueError, LookupError, TypeError) as error:
            raise BulkbindError(
                f"the sandbox's state file {state} is none, or damaged: {error}",
                hint="begin with a new file",
            ) from error


# --- what the calls do ----------------------------------------------------------------------------


class CallResult(NamedTuple):
    """The result of a call."""

    outcome: str
    """A word for the journal."""
    body: dict[str, Any]
    machine_code: str = ""
    device_id: str = ""
    status: int = 200


class DeviceCalls:
    """Executes and counts calls that have passed the checks."""

    def __init__(
        self,
        bindings: Bindings,
        counts: Counter[str],
        *,
        second_bind_status: int | None,
        lock_s: float,
    ) -> None:
        """*second_bind_status*: HTTP status of the error that a second bind gets; None: no error.

        *lock_s*: how long after its bind a device is under a backup lock.
        """
        self._bindings = bindings
        self._counts = counts
        self._second_bind_status = second_bind_status
        self._lock_s = lock_s

    def bind(self, user_id: str, fields: dict[str, str]) -> CallResult:
        """Bind a device, unless it is bound."""
        code = fields["machineCode"]
        known = self._bindings.find(user_id, code)
        outcome = "bound" if known is None else "posted_again"
        self._counts["binds"] += 1
        self._counts[outcome] += 1
        if known is not None and self._second_bind_status is not None:
            body = {"code": ALREADY_BOUND_CODE, "msg": "device already bound"}
            return CallResult(outcome, body, code, status=self._second_bind_status)
        record = known or self._bindings.bind(user_id, fields)
        return CallResult(outcome, _success(record), code, record["deviceId"])

    def list_devices(self, user_id: str) -> CallResult:
        """List a user's devices."""
        self._counts["lists"] += 1
        return CallResult("listed", _success(self._bindings.of(user_id)))

    def unbind(self, user_id: str, device_id: str) -> CallResult:
        """Unbind one of the user's devices."""
        self._counts["unbinds"] += 1
        if self._bindings.age_s(user_id, device_id) < self._lock_s:
            self._counts["locked"] += 1
            body = {"code": LOCKED_CODE, "msg": "the device is under a backup lock"}
            return CallResult("locked", body, device_id=device_id, status=409)
        record = self._bindings.unbind(user_id, device_id)
        if record is None:
            return CallResult("missing", {"code": MISSING_CODE, "msg": "resource not found"})
        return CallResult("unbound", _success(record), record["machineCode"], record["deviceId"])


def _success(data: object) -> dict[str, Any]:
    return {"code": 0, "msg": "success", "data": data}
