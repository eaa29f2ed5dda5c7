"""Who agrees to a plan, and to how much: consent to unbind holds for its number of devices."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from bulkbind.app.scope import beyond
from bulkbind.errors import UsageError
from bulkbind.ledger import Outlook
from bulkbind.model import PlanWord, RunFacts, RunKind
from bulkbind.model.wording import counted, verb

if TYPE_CHECKING:
    from bulkbind.app.session.session import Session
    from bulkbind.ledger import Ledger
    from bulkbind.model import Plan


async def is_agreed(session: Session, ledger: Ledger, run: int, plan: Plan) -> bool:
    """Return whether to carry out the plan of a run; consent to unbind all of it is durable.

    Raises: UsageError (another number is meant), TooManyUnbindsError if nobody can be asked.
    """
    is_wanted = _is_wanted(session, plan)
    session.pulse.beat()  # the answer may have taken long
    is_whole = plan.forecast.unbinds == plan.counts[PlanWord.UNBIND]
    if is_wanted and is_whole and plan.kind is RunKind.UNBIND:
        facts = RunFacts()
        facts.agreed_unbinds = plan.forecast.unbinds
        await ledger.add_facts(run, facts)
    return is_wanted


async def may_go_on(session: Session, ledger: Ledger, run: int, plan: Plan) -> bool:
    """Return whether an unfinished run goes on; one that unbinds, with what was agreed to, or now.

    Raises: UsageError (another number is meant).
    """
    if plan.kind is not RunKind.UNBIND or not plan.forecast.unbinds:
        return True
    facts = await ledger.read(lambda db: Outlook(db, run).facts())
    meant = session.leave.devices if session.leave else None
    if facts.agreed_unbinds is not None and meant in (None, facts.agreed_unbinds):
        return True
    return await is_agreed(session, ledger, run, plan)


def _is_wanted(session: Session, plan: Plan) -> bool:
    leave, listener, unbinds = session.leave, session.listener, plan.forecast.unbinds
    if plan.leavers is not None and plan.leavers.is_beyond:
        if not listener.confirm_leavers(plan):
            raise beyond(plan.leavers)
        return True
    if leave is None or not unbinds:
        return listener.confirm(plan)
    if leave.devices is None:
        return listener.confirm_unbind(plan)
    names = shlex.join(plan.manifests) if plan.going_on else "MANIFEST"  # `resume` is given none
    shows = f"`bulkbind plan {names} --unbind` shows them"
    refuse_another_number(leave.devices, unbinds, "the plan", shows)
    return listener.confirm(plan)


def refuse_another_number(
    meant: int, found: int, whose: str, shows: str, *, of_them: str = ""
) -> None:
    """Check that as many devices are meant as would be unbound. Raises: UsageError.

    *whose*: what has the number found; *shows*: what shows them, for the hint; *of_them*: what they
    are.
    """
    if meant != found:
        raise UsageError(
            f"{counted(meant, 'devices')} {verb(meant, 'is', 'are')} meant to be unbound, but "
            f"{whose} has {found:,}" + (f": {of_them}" if of_them else ""),
            hint=f"nothing was unbound; {shows}",
        )
