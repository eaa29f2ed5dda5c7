"""The scope of a run with `sync`: of which devices its manifests are the whole truth."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bulkbind.app.inputs import STDIN, shown
from bulkbind.app.session.session import refuse_without_lists
from bulkbind.errors import InvalidRowsError, ManifestError, TooManyUnbindsError, UsageError
from bulkbind.ledger import LeaverReader
from bulkbind.manifest import ends_within_line
from bulkbind.model import PENDING, Leavers, Status
from bulkbind.model.wording import counted, share, verb

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bulkbind.app.inputs import Named
    from bulkbind.app.session.session import Session
    from bulkbind.ledger import View
    from bulkbind.manifest import Manifest, ManifestFile
    from bulkbind.settings import ManifestSettings, Settings


def scope_of(manifests: Sequence[str | Path | Named], settings: Settings) -> str | None:
    """Return the scope: as set, else the absolute path of the only file; None: there is none.

    A folder or a pattern has no path of its own: tomorrow it may mean other files. A link is not
    followed: it is the name under which the files of a scope come.
    """
    if settings.manifest.sync_name is not None:
        return settings.manifest.sync_name
    if len(manifests) != 1 or not isinstance(manifests[0], str | Path):
        return None
    name = str(manifests[0])
    if name == STDIN or not Path(name).is_file():
        return None
    return shown(os.path.abspath(name))  # noqa: PTH100  # `resolve` would follow the link


def in_scope(
    session: Session, manifests: Sequence[str | Path | Named], *, first: int | None = None
) -> Session:
    """Return the session with the scope of its manifests; one that unbinds a list has none.

    Raises: as `with_scope`.
    """
    if session.leave is not None:
        return replace(session, settings=_reading(session.settings, sync=False))
    scope = scope_of(manifests, session.settings)
    return with_scope(session, scope, first=first)


def with_scope(session: Session, scope: str | None, *, first: int | None = None) -> Session:
    """Return the session of runs of a scope, on which their digest depends with `sync`.

    *first*: a pilot.

    Raises: UsageError if `sync` lacks a scope or lists, or goes with a pilot or hidden rows.
    """
    session = replace(session, scope=scope)
    if not session.settings.manifest.sync:
        return session
    refuse_without_lists(session.settings)
    if first is not None:
        raise UsageError(
            "--first sends a part of a manifest, and --sync takes it for the whole truth",
            hint="run the pilot without --sync",
        )
    if session.settings.manifest.visible_rows:
        raise UsageError(
            "--visible-rows leaves hidden rows out, and --sync would unbind their devices",
            hint="leave it away, or say which rows are meant by --where: those it leaves out stay",
        )
    if scope is None:
        raise UsageError(
            "--sync needs the path of one file to know what is to be in step with it",
            hint="name the scope: --sync-name NAME, the same for each run of these manifests",
        )
    return replace(session, settings=_reading(session.settings, sync_name=scope))


def _reading(settings: Settings, **changes: object) -> Settings:
    reads = settings.manifest.model_copy(update=changes)
    return settings.model_copy(update={"manifest": reads})


def refuse_unsure(manifests: Sequence[Manifest], files: Sequence[ManifestFile], rows: int) -> None:
    """Check that what was read may be the whole truth. *rows*: of all. Raises: ManifestError."""
    if not rows:
        names = ", ".join(manifest.source.name for manifest in manifests)
        raise ManifestError(
            f"{names} {verb(len(manifests), 'holds', 'hold')} no rows, and with --sync all of the "
            "scope would be unbound",
            hint="was the export cut off? `bulkbind unbind MANIFEST` unbinds a list of devices",
        )
    for manifest, file in zip(manifests, files, strict=True):
        if ends_within_line(file, manifest.source):
            raise ManifestError(
                f"the last line of {manifest.source.name} has no line end, so it may be cut off, "
                "and with --sync the devices that it lacks would be unbound",
                hint="if it is whole, end its last line",
            )


def refuse_broken(counts: Mapping[Status, int]) -> None:
    """Check that every row is sure. *counts*: rows by status. Raises: InvalidRowsError."""
    if invalid := counts.get(Status.INVALID, 0):
        broken = share(invalid, sum(counts.values()), "rows", "breaks", "break")
        raise InvalidRowsError(
            f"{broken} a rule, so nothing was sent: with --sync "
            "each row must tell which device it is, and whose",
            hint="`bulkbind validate MANIFEST --all` lists every one; without --sync, "
            "--on-invalid skip sends the rest",
        )


def leavers_of(
    db: View, run: int, settings: ManifestSettings, *, is_agreed: bool
) -> Leavers | None:
    """Return what a run would still unbind of its scope; None if it does not look for that.

    *is_agreed*: it is confirmed, however many they are.
    """
    reader = LeaverReader(db, run)
    synced = reader.facts().synced
    if synced is None:
        return None
    left = sum(count for status, count in reader.counts().items() if status == PENDING)
    return Leavers(
        scope=synced["scope"],
        bound=synced["bound"],
        devices=left,
        most=settings.max_unbinds,
        is_beyond=not is_agreed and not settings.may_unbind(left, synced["bound"]),
        first=reader.first(),
    )


def beyond(leavers: Leavers) -> TooManyUnbindsError:
    """Return the error of a plan that unbinds more than may be unasked."""
    are = verb(leavers.devices, "is", "are")
    return TooManyUnbindsError(
        f"{leavers.devices:,} of the {counted(leavers.bound, 'devices')} bound in the scope "
        f"{leavers.scope} {are} not in the manifest any more, and at most {leavers.most} may be "
        "unbound while nobody is asked: nothing was sent",
        hint="was the export cut off, or filtered? if not, --max-unbinds "
        f"{leavers.devices} allows so many; `bulkbind plan MANIFEST --sync` lists them",
    )
