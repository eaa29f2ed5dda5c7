"""`unbind`: unbind the devices of a manifest from its users; and binding again what has left."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bulkbind.app.inputs import Named
from bulkbind.app.run import new_session, run, send_manifests
from bulkbind.app.session.session import Leave, refuse_without_lists
from bulkbind.files import replacing
from bulkbind.ledger import ledger_of, reading, unbound_by
from bulkbind.model.fields import FIELDS
from bulkbind.settings import ManifestSettings
from bulkbind.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bulkbind.app.session.listener import Listener
    from bulkbind.app.session.sending import RunResult
    from bulkbind.clock import Clock
    from bulkbind.engine import StopSignal
    from bulkbind.settings import Settings


async def unbind(
    manifests: Sequence[str | Path | Named],
    settings: Settings,
    *,
    takes_any: bool = False,
    devices: int | None = None,
    first: int | None = None,
    note: str = "",
    listener: Listener | None = None,
    stop: StopSignal | None = None,
    clock: Clock | None = None,
) -> RunResult:
    """Unbind the devices of the manifests from their users, and write a result for every row.

    Only what the ledger knows to have been bound or adopted for that user is unbound, under the
    device id that it knows, if the user's list shows it. An unfinished run of the same call is
    resumed under its id.

    Args:
        manifests: As in `run`.
        settings: As in `run`; `rebind`, `move`, `refresh` and `rebind_missing` mean nothing here.
        takes_any: Unbind what two lists of a user show, `readback_settle` apart, whoever bound it.
        devices: How many devices to unbind, another number is refused; None: the listener is asked,
            which refuses by default.
        first: A pilot, as in `run`.
        note: As in `run`.
        listener: As in `run`.
        stop: As in `run`.
        clock: For tests.

    Returns: The report, and the exit code of the command.

    Raises: UsageError (also another number, or no lists), and as `run`.
    """
    refuse_without_lists(settings)
    session = replace(
        new_session(settings, listener, stop, clock),
        note=note,
        leave=Leave(takes_any=takes_any, devices=devices),
    )
    return await send_manifests(session, manifests, first=first)


async def bind_again(
    settings: Settings,
    run_id: str,
    number: int,
    *,
    listener: Listener | None = None,
    stop: StopSignal | None = None,
    clock: Clock | None = None,
) -> RunResult:
    """Bind again, in a run of its own, what left by a run: same users, and names as known then.

    *run_id*, *number*: of the run that unbound them.

    Raises: as `run`.
    """
    with tempfile.TemporaryDirectory(prefix="bulkbind-undo-") as folder:
        name = f"unbound-by-{run_id}.jsonl"
        path = Path(folder, name)
        await in_thread(_write_unbound, settings, number, path)
        own = settings.model_copy(update={"manifest": ManifestSettings()})
        return await run(
            [Named(path, name)],
            own,
            note=f"undo of run {run_id}",
            listener=listener,
            stop=stop,
            clock=clock,
        )


def _write_unbound(settings: Settings, number: int, path: Path) -> None:
    with (
        reading(ledger_of(settings), settings.endpoint()) as db,
        replacing(path) as file,
    ):
        for device in unbound_by(db, number):
            values = (device.user_id, device.machine_code, *device.optional)
            found = {name: value for name, value in zip(FIELDS, values, strict=True) if value}
            file.write(f"{json.dumps(found)}\n")
