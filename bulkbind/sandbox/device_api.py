"""The sandbox's own memory of what is bound."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bulkbind.clock import Clock, iso
from bulkbind.errors import BulkbindError
from bulkbind.sandbox.journal import opened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FIRST_DEVICE_ID = 1842812272691451648
"""Ids have 19 digits, as in the reference's example."""


class Bindings:
    """Records by user and machine code; changes are appended to a file, if there is one."""

    def __init__(self, clock: Clock, state: Path | None = None) -> None:
        """Read what the file holds. Raises: BulkbindError."""
        self._clock = clock
        self._users: dict[str, dict[str, dict[str, Any]]] = {}
        self._next_id = FIRST_DEVICE_ID
        if state is not None and state.exists():
            self._read(state)
        self._file = opened(state, "state file") if state is not None else None

    def close(self) -> None:
        """Close the state file."""
        if self._file is not None:
            self._file.close()

    def find(self, user_id: str, machine_code: str) -> dict[str, Any] | None:
        """Return a binding's record, or None."""
        return self._users.get(user_id, {}).get(machine_code)

    def bind(self, user_id: str, body: dict[str, str]) -> dict[str, Any]:
        """Make a binding and return its record."""
        record = {
            "deviceId": str(self._next_id),
            "machineCode": body["machineCode"],
            "deviceName": body.get("deviceName"),
            "deviceOS": body.get("deviceOS"),
            "createTime": iso(self._clock.utc_now()),
        }
        self._put(user_id, record)
        self._log({"user": user_id, "record": record})
        return record

    def unbind(self, user_id: str, device_id: str) -> dict[str, Any] | None:
        """Remove a binding and return its record, or None if there is none."""
        devices = self._users.get(user_id, {})
        for code, record in devices.items():
            if record["deviceId"] == device_id:
                self._log({"user": user_id, "unbound": device_id})
                return devices.pop(code)
        return None

    def of(self, user_id: str) -> list[dict[str, Any]]:
        """Return a user's records."""
        return list(self._users.get(user_id, {}).values())

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

    def _read(self, state: Path) -> None:
        try:
            for line in state.read_text(encoding="utf-8").splitlines():
                self._replay(json.loads(line))
        except OSError as error:
            raise BulkbindError(
                f"the sandbox's state file {state} cannot be read: {error.strerror}"
            ) from error
        except (ValueError, LookupError, TypeError) as error:
            raise BulkbindError(
                f"the sandbox's state file {state} is none, or damaged: {error}",
                hint="begin with a new file",
            ) from error

    def _replay(self, change: dict[str, Any]) -> None:
        if "record" in change:
            self._put(change["user"], change["record"])
            return
        devices = self._users.get(change["user"], {})
        for code, record in list(devices.items()):
            if record["deviceId"] == change["unbound"]:
                del devices[code]

    def _log(self, change: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(change) + "\n")
