"""What the three calls do once a request is right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections import Counter

    from bulkbind.sandbox.device_api import Bindings

ALREADY_BOUND_CODE = 13000310
"""The sandbox's own: the reference names no code for a second bind."""
MISSING_CODE = 13000309


class Answer(NamedTuple):
    """What a call came to, HTTP 200 as it is."""

    result: str
    """A word for the journal."""
    body: dict[str, Any]
    machine_code: str
    device_id: str


class Calls:
    """Binds, lists and unbinds, and counts what it does."""

    def __init__(
        self, bindings: Bindings, counts: Counter[str], *, is_second_an_error: bool
    ) -> None:
        self._bindings = bindings
        self._counts = counts
        self._is_second_an_error = is_second_an_error

    def bind(self, user_id: str, fields: dict[str, str]) -> Answer:
        """Bind a device, or find it bound."""
        code = fields["machineCode"]
        known = self._bindings.find(user_id, code)
        result = "bound" if known is None else "posted_again"
        self._counts["binds"] += 1
        self._counts[result] += 1
        if known is not None and self._is_second_an_error:
            body = {"code": ALREADY_BOUND_CODE, "msg": "device already bound"}
            return Answer(result, body, code, "")
        record = known or self._bindings.bind(user_id, fields)
        return Answer(result, _success(record), code, record["deviceId"])

    def list_devices(self, user_id: str) -> Answer:
        """List a user's devices."""
        self._counts["lists"] += 1
        return Answer("listed", _success(self._bindings.of(user_id)), "", "")

    def unbind(self, user_id: str, device_id: str) -> Answer:
        """Unbind a device of the user's own."""
        self._counts["unbinds"] += 1
        record = self._bindings.unbind(user_id, device_id)
        if record is None:
            return Answer("missing", {"code": MISSING_CODE, "msg": "resource not found"}, "", "")
        return Answer("unbound", _success(record), record["machineCode"], record["deviceId"])


def _success(data: object) -> dict[str, Any]:
    return {"code": 0, "msg": "success", "data": data}
