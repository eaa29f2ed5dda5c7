"""What a run would do, read from a ledger in which it is staged or goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bulkbind.app.pacing import is_per_user
from bulkbind.errors import PlanMovedError
from bulkbind.ledger import Outlook, last_pace
from bulkbind.model import Forecast, Plan

if TYPE_CHECKING:
    from bulkbind.ledger import View
    from bulkbind.settings import Settings

MOST_PROBLEMS = 10


def read_plan(
    db: View,
    run: int,
    settings: Settings,
    manifests: tuple[str, ...],
    digest: str,
    *,
    going_on: str = "",
    is_whole: bool = False,
) -> Plan:
    """Return the plan of a run from a connection whose view does not change.

    Args:
        db: The ledger.
        run: The run's number.
        settings: Those of the run.
        manifests: What they are called.
        digest: Theirs.
        going_on: The run's id, where it is an unfinished one.
        is_whole: Tell of users, too: a question before a run can do without.
    """
    outlook = Outlook(db, run)
    counts, mark = outlook.counts()
    moves = outlook.moves()
    per_s, source = _rate(db, settings)
    return Plan(
        manifests=manifests,
        counts=counts,
        users=outlook.users() if is_whole else {},
        user_count=outlook.user_count(),
        moved=outlook.moved(),
        problems=outlook.problems(MOST_PROBLEMS),
        forecast=Forecast(
            binds=counts["bind"] + (counts["moved"] if moves else 0),
            lists=outlook.lists(),
            per_s=per_s,
            source=source,
            unbinds=moves,
        ),
        digest=digest,
        mark=mark,
        going_on=going_on,
    )


def _rate(db: View, settings: Settings) -> tuple[float | None, str]:
    """Return the rate to reckon with, and where it comes from."""
    cap = None if is_per_user(settings.send) else settings.send.rate
    known = last_pace(db)
    if known is None:
        return (cap, "set by --rate") if cap else (None, "no run has met this gateway yet")
    if cap and cap <= known.per_s:
        return cap, "set by --rate"
    return known.per_s, f"run {known.run_id}: {known.source}"


def refuse_moved(plan: Plan, wanted: Plan | None) -> None:
    """Make sure that what was planned is what would be done. Raises: PlanMovedError."""
    if wanted is None or (plan.digest, plan.mark) == (wanted.digest, wanted.mark):
        return
    if plan.digest != wanted.digest:
        what = "the manifest, its mapping or --user-id is another than when the plan was made"
    else:
        changed = [
            f"{word}: {wanted.counts.get(word, 0):,} planned, {count:,} now"
            for word, count in plan.counts.items()
            if count != wanted.counts.get(word, 0)
        ]
        told = ", ".join(changed) or "other rows than planned, though as many of each"
        what = f"the ledger, --rebind or --move is another than when the plan was made ({told})"
    raise PlanMovedError(
        f"{what}, so nothing was sent", hint="look at a new `bulkbind plan`, and save that"
    )
