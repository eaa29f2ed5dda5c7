"""`adjust`: steer the run that is sending, through the ledger."""

from __future__ import annotations

import getpass
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bulkbind import ledger
from bulkbind.clock import Clock, SystemClock, iso
from bulkbind.errors import UsageError
from bulkbind.koodrive import known_secrets
from bulkbind.redaction import learn, line

if TYPE_CHECKING:
    from bulkbind.settings import Settings

LOOK_S = 0.1
PATIENCE_S = 10.0
"""How long to wait for the run to do what is asked; it takes less than a second."""


@dataclass(frozen=True, slots=True)
class Adjusted:
    """What was asked of which run."""

    run_id: str
    what: dict[str, Any]
    is_done: bool
    """Whether the run said that it does it; else it may yet, or its process is gone."""


async def adjust(
    settings: Settings,
    run_id: str | None = None,
    *,
    what: dict[str, Any],
    why: str = "",
    clock: Clock | None = None,
) -> Adjusted:
    """Ask the run that is sending to change something, and wait until it has.

    Args:
        settings: Which ledger.
        run_id: Of the run, or the beginning of it; None: the one that is sending.
        what: `rate`, `concurrency`, `max_failures`, `deadline` (as text, from now), each with None
            for no limit where there may be none; `pause`, `go` or `drain` with True.
        why: Kept with it.
        clock: For tests.

    Raises: UsageError if no run is sending, or nothing is to change; LedgerError.
    """
    clock = clock or SystemClock()
    if not what:
        raise UsageError(
            "nothing is to change", hint="for instance: bulkbind adjust --rate 5 --why 'CHG0042'"
        )
    if len(what.keys() & {"pause", "go", "drain"}) > 1:
        raise UsageError("--pause, --go and --drain exclude each other")
    path, endpoint = ledger.ledger_of(settings), settings.api.endpoint
    run = ledger.sending(path, endpoint, run_id)
    if run.holder.is_alive() is False:
        raise UsageError(
            f"run {run.summary.run_id} was cut off: its process is gone",
            hint="`bulkbind resume` resumes it, and takes the same options",
        )
    at = iso(clock.utc_now())
    if why:
        learn(*known_secrets(settings.auth, path))  # in files, which nothing else here reads
    words = str(line(why))
    number = ledger.ask(path, run.number, at=at, who=_who(), why=words, what=what)
    until = clock.monotonic() + PATIENCE_S
    is_done = False
    while not is_done and clock.monotonic() < until:
        await clock.sleep(LOOK_S)
        is_done = ledger.done(path, endpoint) >= number
    return Adjusted(run.summary.run_id, what, is_done)


def _who() -> str:
    try:
        operator = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in some containers
        operator = "unknown"
    return f"{operator}@{socket.gethostname()}"
