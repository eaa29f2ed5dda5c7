"""`run --rehearse`: a real manifest against a sandbox; nothing real is touched."""

from __future__ import annotations

import secrets
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from bulkbind.app.run import run
from bulkbind.app.session.listener import Listener
from bulkbind.app.session.session import Leave
from bulkbind.app.unbind import unbind
from bulkbind.settings import ApiSettings, AuthSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bulkbind.app.inputs import Named
    from bulkbind.app.session.sending import RunResult
    from bulkbind.engine import StopSignal
    from bulkbind.sandbox import SandboxOptions
    from bulkbind.settings import Settings

OUT = Path("bulkbind-report/rehearsal")


async def rehearse(
    manifests: Sequence[str | Path | Named],
    settings: Settings,
    *,
    sandbox: SandboxOptions | None = None,
    first: int | None = None,
    note: str = "",
    leave: Leave | None = None,
    listener: Listener | None = None,
    stop: StopSignal | None = None,
) -> RunResult:
    """Run manifests against a sandbox in this process, with a temporary ledger.

    Where devices are to be unbound, they are bound to it first.

    Endpoint, path, credentials and ledger of *settings* are ignored; the rest applies. The report
    goes to `settings.out`, or to `bulkbind-report/rehearsal`.

    *sandbox*: its limits and faults; None: none. *leave*: as of `unbind`; None: bind.
    Other arguments: as in `run`.

    Raises: as `run`.
    """
    from bulkbind.sandbox import Sandbox, SandboxOptions  # noqa: PLC0415  # no other run needs it

    listener = listener or Listener()
    with tempfile.TemporaryDirectory(prefix="bulkbind-rehearsal-") as folder:
        async with Sandbox(sandbox or SandboxOptions()) as served:
            listener.notice(f"a rehearsal on a sandbox, {served.url}: nothing real is touched")
            own = settings.model_copy(
                update={
                    "api": settings.api.model_copy(
                        update={"endpoint": served.url, "path": ApiSettings().path}
                    ),
                    "auth": AuthSettings(mode="token", token=SecretStr(secrets.token_hex())),
                    "ledger": Path(folder, "rehearsal.db"),
                    "out": settings.out or OUT,
                }
            )
            if leave is not None:
                await run(manifests, own, stop=stop)
            given = leave or Leave()
            unbinds = partial(unbind, takes_any=given.takes_any, devices=given.devices)
            does = run if leave is None else unbinds
            result = await does(
                manifests, own, first=first, note=note, listener=listener, stop=stop
            )
    return replace(result, can_resume=False)
