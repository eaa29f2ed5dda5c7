"""Open the manifests of a command that can be stopped, without blocking the event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bulkbind.app.inputs import choice_notices, open_all
from bulkbind.app.session.session import before_sending, refuse_stopped
from bulkbind.manifest import choose, open_manifest
from bulkbind.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bulkbind.app.inputs import Named
    from bulkbind.app.session.session import Session
    from bulkbind.manifest import Manifest, ManifestFile


async def opened(session: Session, manifests: Sequence[str | Path | Named]) -> list[ManifestFile]:
    """Open manifests, in a thread, as it may take long. Raises: as `open_all`; InterruptedRunError.

    Whatever reads them ends when the command stops.
    """
    with before_sending(session):
        return await in_thread(
            open_all,
            manifests,
            is_over=lambda: refuse_stopped(session),
            on_read=lambda: on_read(session),
        )


def on_read(session: Session) -> None:
    """Note that a manifest is being read. Raises: InterruptedRunError if the command stops."""
    refuse_stopped(session)
    session.pulse.beat()


async def read_heads(session: Session, files: Sequence[ManifestFile]) -> list[Manifest]:
    """Return what `open_manifest` makes of files, in a thread. Raises: as that.

    What says which rows are meant is read once for all of them, and told.
    """
    settings = session.settings.manifest

    def read() -> list[Manifest]:
        choose(files, settings)
        return [open_manifest(file, settings) for file in files]

    with before_sending(session):
        heads = await in_thread(read)
    for notice in choice_notices(files):
        session.listener.notice(notice)
    return heads
