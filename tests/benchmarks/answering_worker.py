"""A worker that asks nobody: each bind is accepted at once. `python -m MODULE FD`, as a worker."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from bulkbind.app import worker
from bulkbind.clock import SystemClock, iso
from bulkbind.model import Accepted, Attempt

if TYPE_CHECKING:
    from collections.abc import Callable

    from bulkbind.engine.ports import Landed
    from bulkbind.koodrive.auth.credential import Credential
    from bulkbind.model import Device


class Answering:
    """Accepts every bind."""

    names_codes = False

    def __init__(self) -> None:
        self._ids = count(1842812272691451648)
        now = SystemClock().utc_now()
        self._created, self._sent_at = iso(now), now.timestamp()

    def post(
        self,
        device: Device,
        credential: Credential,
        landed: Landed,
        timeout_s: float | None = None,
    ) -> None:
        """Tell the answer of a server that takes no time."""
        del device, credential, timeout_s
        accepted = Accepted(str(next(self._ids)), self._created)
        attempt = Attempt(
            accepted, "0", "success", "a" * 58, self._sent_at, connection=1, http_status=200
        )  # it names no device, as nginx does not
        landed(attempt)

    def on_unasked(self, report: Callable[[int], None]) -> None:
        """Have nothing to report."""


async def opened(_data: bytes, _may_send: Callable[[], None]) -> Answering:
    """Return what stands for the client."""
    return Answering()


if __name__ == "__main__":
    vars(worker)["opened"] = opened
    worker.main()
