"""`plan`: what `run` would do, optionally compared with the server's lists."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bulkbind.app.run import Staging, digest_of, new_session, read_plan
from bulkbind.app.scope import in_scope
from bulkbind.app.session.lists import compare_lists
from bulkbind.app.session.opening import opened, read_heads
from bulkbind.app.session.session import authorized, before_sending
from bulkbind.engine.proof import READS, vanished
from bulkbind.errors import NoLedgerError, UsageError
from bulkbind.files import read_whole, write_json
from bulkbind.ledger import Ledger, Outlook, copy_known, ledger_of, reading, replaced
from bulkbind.ledger.store import get_meta
from bulkbind.model import Forecast, Plan, PlanWord
from bulkbind.report.plan_text import plan_json
from bulkbind.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from bulkbind.app.inputs import Named
    from bulkbind.app.session.listener import Listener
    from bulkbind.app.session.session import Leave, Session
    from bulkbind.clock import Clock
    from bulkbind.engine import StopSignal
    from bulkbind.engine.proof import Look
    from bulkbind.ledger import View
    from bulkbind.ledger.outlook import Wanted
    from bulkbind.manifest import Manifest, ManifestFile
    from bulkbind.model import Record
    from bulkbind.settings import ManifestSettings, Settings

MOST_EXTRAS = 1_000


async def plan(
    manifests: Sequence[str | Path | Named],
    settings: Settings,
    *,
    refresh: bool = False,
    extra: bool = False,
    first: int | None = None,
    leave: Leave | None = None,
    listener: Listener | None = None,
    stop: StopSignal | None = None,
    clock: Clock | None = None,
) -> Plan:
    """Return what `run`, or `unbind`, would do with these manifests; send and record nothing.

    It needs no credentials and waits for no run: the manifests are staged in a copy of the ledger.

    *leave*: what `unbind` may unbind; None: it is the plan of `run`. *refresh*: compare with the
    users' lists as well, which needs credentials; *extra*, with *refresh*: count what is on
    the server, but not in the manifests; other arguments: as in `run`.

    Raises: as `run`; UnreadableListError with *refresh*.
    """
    if extra and not refresh:
        raise UsageError("what is extra, only the server knows", hint="add --refresh")
    if leave is not None and refresh:
        raise UsageError(
            "--refresh compares what is to be bound with the server's lists",
            hint="leave it away: `unbind` reads them before it unbinds anything",
        )
    session = replace(new_session(settings, listener, stop, clock), leave=leave)
    session = in_scope(session, manifests, first=first)
    files = await opened(session, manifests)
    session = await authorized(session) if refresh else session
    with tempfile.TemporaryDirectory(
        prefix="bulkbind-plan-",
        ignore_cleanup_errors=True,  # a thread may be left in it
    ) as folder:
        readable = await read_heads(session, files)
        with before_sending(session):
            known = await in_thread(digest_of, session, files)
            path, run, going_on = await _staged(session, readable, files, known, Path(folder))
        names = tuple(each.name for each in files)

        def planned(db: View) -> Plan:
            plan = read_plan(
                db, run, settings, names, known, going_on=going_on, is_whole=True, first=first
            )
            return plan if going_on else replace(plan, replaces=_replaced(settings))

        def read() -> Plan:
            with reading(path) as db:
                return planned(db)

        if not refresh:
            with before_sending(session):
                return await in_thread(read)
        with reading(path) as db:
            return await _refreshed(session, Outlook(db, run), planned(db), extra=extra)


def _replaced(settings: Settings) -> tuple[str, int] | None:
    """Return what a run would take the place of, which the copy of the ledger does not have."""
    if settings.api.endpoint is None and settings.ledger is None:
        return None
    try:
        with reading(ledger_of(settings)) as db:
            return replaced(db, 0)
    except NoLedgerError:
        return None


async def _staged(
    session: Session,
    manifests: Sequence[Manifest],
    files: Sequence[ManifestFile],
    known: str,
    folder: Path,
) -> tuple[Path, int, str]:
    """Return the ledger that holds the planned run, its number, and the id of a resumed run."""
    settings = session.settings
    scratch = folder / "plan.db"
    if settings.api.endpoint is None and settings.ledger is None:
        session.listener.notice("no endpoint is set, so nothing is known of what is bound there")
        real, endpoint = scratch, ""
    else:
        real = await in_thread(ledger_of, settings)
        endpoint = settings.api.endpoint or _endpoint_of(real)
        await in_thread(copy_known, real, scratch, endpoint, scopes=settings.manifest.sync)
    ledger = Ledger(scratch, endpoint, session.clock)
    await ledger.open({})
    try:
        unfinished = await ledger.unfinished(known)
        if unfinished is not None:
            return real, unfinished[0], unfinished[1]
        staging = Staging(session, ledger, manifests, files)
        return scratch, await staging.stage(known), ""
    finally:
        await asyncio.shield(ledger.close())


def _endpoint_of(ledger: Path) -> str:
    """Return the endpoint of a ledger, if only its file was named; empty if there is none yet."""
    try:
        with reading(ledger) as db:
            return str(get_meta(db, "endpoint"))
    except NoLedgerError:
        return ""


async def _refreshed(session: Session, outlook: Outlook, before: Plan, *, extra: bool) -> Plan:
    """Return the plan, corrected by the server's lists."""
    comparison = _Comparison(outlook, before, session.settings.manifest, counts_extra=extra)
    await compare_lists(session, outlook, outlook.user_ids(), comparison.asked, comparison.compare)
    return comparison.plan()


class _Comparison:
    """Corrects the counts of a plan where the lists differ from the ledger."""

    def __init__(
        self, outlook: Outlook, plan: Plan, staging: ManifestSettings, *, counts_extra: bool
    ) -> None:
        self._outlook = outlook
        self._plan = plan
        self._counts_extra = counts_extra
        self._staging = staging
        self._counts = Counter(plan.counts)
        self._users = {user: Counter(counts) for user, counts in plan.users.items()}
        self._extra = 0
        self._not_proven = 0
        self._extras: list[dict[str, str]] = []

    def asked(self, user: str, _shown: Collection[str]) -> list[str]:
        """Return the machine codes of a user's rows."""
        return [row.machine_code for row in self._outlook.wanted(user)]

    def compare(self, user: str, records: dict[str, Record], looks: Sequence[Look]) -> bool:
        """Compare a user's list with the rows that name the user; False: read it once more."""
        words = [
            (row, row.word if self._staging.rebind else _word(row, looks))
            for row in self._outlook.wanted(user)
        ]
        is_unproven = bool(looks[-1].flaw) or any(found is None for _, found in words)
        if is_unproven and len(looks) < READS:
            return False
        shown = self._users.get(user, Counter())
        extra = set() if looks[-1].flaw else set(records)
        for row, found in words:
            extra.discard(row.machine_code)
            word = row.word if found is None else found
            self._not_proven += found is None
            if word != row.word:
                for counts in (self._counts, shown):
                    counts[row.word] -= 1
                    counts[word] += 1
        if self._counts_extra and extra:
            self._extra += len(extra)
            shown["extra"] = len(extra)
            room = MOST_EXTRAS - len(self._extras)
            self._extras += [{"user_id": user, "machine_code": c} for c in sorted(extra)[:room]]
        return True

    def plan(self) -> Plan:
        """Return the corrected plan."""
        forecast = self._plan.forecast
        if self._staging.rebind_missing:
            binds = forecast.binds + self._counts[PlanWord.MISSING]
            first = self._plan.first
            forecast = replace(forecast, binds=binds if first is None else min(first, binds))
        return replace(
            self._plan,
            forecast=forecast,
            counts={str(word): self._counts[word] for word in PlanWord},
            users={user: {w: n for w, n in c.items() if n} for user, c in self._users.items()},
            is_refreshed=True,
            not_proven=self._not_proven,
            extra=self._extra if self._counts_extra else None,
            extras=tuple(self._extras),
        )


def _word(row: Wanted, looks: Sequence[Look]) -> PlanWord | None:
    """Return what would happen to a row, by the server's lists; None: they prove nothing."""
    if row.word.about.is_fixed:
        return row.word
    if looks[-1].flaw:
        return None
    shown = looks[-1].shown.get(row.machine_code)
    if shown is None:
        if not row.word.about.is_bound:
            return row.word
        return PlanWord.MISSING if vanished(row.machine_code, looks) else None
    is_same = row.optional == shown[0].optional
    return PlanWord.ALREADY_BOUND if is_same else PlanWord.CHANGED


def save_plan(plan: Plan, path: Path) -> None:
    """Write a plan for `run --plan` to a file; mode 0600. Raises: LedgerError."""
    hint = "free the disk, or choose another file with --save"
    write_json(path, plan_json(plan), what="plan", hint=hint)


def load_plan(path: Path) -> Plan:
    """Read a plan that `save_plan` wrote. Raises: UsageError if it is not one."""
    try:
        saved = json.loads(read_whole(path)[0])
        return Plan(
            manifests=tuple(saved["manifests"]),
            counts=dict(saved["counts"]),
            users={},
            user_count=0,
            moved=(),
            problems=(),
            forecast=Forecast(0, 0, None, ""),
            digest=str(saved["digest"]),
            mark=str(saved["mark"]),
        )
    except OSError as error:
        raise UsageError(f"plan {path} cannot be read: {error.strerror}") from error
    except (ValueError, LookupError, TypeError) as error:
        raise UsageError(
            f"{path} is no plan of bulkbind's",
            hint="`bulkbind plan MANIFEST --save FILE` makes one",
        ) from error
