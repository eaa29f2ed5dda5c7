"""Why a run stops: what an attempt tells that neither waiting nor trying again would help."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from bulkbind.clock import iso
from bulkbind.engine.set_up import setting_to_check
from bulkbind.engine.stop import StopReason
from bulkbind.model import AuthExpired, QuotaUsedUp, Throttled, Transient

if TYPE_CHECKING:
    from bulkbind.model import Attempt


def too_long(attempt: Attempt, max_wait_s: float, refused_for_s: float = 0.0) -> StopReason | None:
    """Return why a run stops rather than wait, if the gateway wants a wait that is too long.

    A gateway that tells a limit per hour or day, and no time to wait, may mean all of it; so may
    one that tells nothing and has refused everything for so long (*refused_for_s*).
    """
    told = attempt.verdict
    if isinstance(told, Throttled) and refused_for_s > max_wait_s:
        return StopReason(
            f"the gateway has refused every request for {refused_for_s:,.0f} s, longer than "
            f"max_wait, {max_wait_s:g} s, and does not say for how long it will",
            hint="it may be a limit per hour or day: go on later, or with a larger --max-wait",
        )
    limit = ""
    match told:
        case Transient():
            wait_s = told.retry_after_s
        case Throttled():
            wait_s = told.window_s if told.retry_after_s is None else told.retry_after_s
            if told.limit and told.window_s:
                limit = f" ({told.limit:g} in {told.window_s:g} s)"
        case _:
            return None
    if wait_s is None or wait_s <= max_wait_s:
        return None
    what = "the gateway's limit is used up" if isinstance(told, Throttled) else "it is busy"
    moment = _moment(attempt, wait_s)
    return StopReason(
        f"the server says that {what}{limit}, and waiting for it would take up to "
        f"{wait_s:,.0f} s: longer than max_wait, {max_wait_s:g} s",
        hint=f"go on after {moment}, or with a larger --max-wait",
    )


def credentials_lost(attempt: Attempt) -> StopReason | None:
    """Return why a run stops, if its credentials were refused for good."""
    verdict = attempt.verdict
    if not isinstance(verdict, AuthExpired) or verdict.is_renewable or verdict.is_users_own:
        return None
    came = (
        f"HTTP {attempt.http_status} {attempt.code}".strip() + ": " if attempt.http_status else ""
    )
    return StopReason(
        f"the server does not accept the credentials ({came}{attempt.message})", hint=verdict.advice
    )


def endpoint_away(attempt: Attempt) -> StopReason:
    """Return why a run stops that cannot even begin."""
    return StopReason(
        f"the endpoint cannot be reached: {attempt.message}", hint=setting_to_check(attempt)
    )


def quota_used_up(attempt: Attempt, verdict: QuotaUsedUp) -> StopReason:
    """Return why a run stops that the gateway takes nothing more of."""
    after_s = verdict.retry_after_s
    when = (
        "when the quota has been renewed, or raised; the gateway does not say when"
        if after_s is None
        else f"after {_moment(attempt, after_s)}"
    )
    return StopReason(
        f"the gateway's quota is used up ({attempt.code}: {attempt.message})", hint=f"go on {when}"
    )


def clock_refused(attempt: Attempt) -> StopReason:
    """Return why a run stops whose clock the server does not take."""
    return StopReason(
        f"the server refuses our X-Date although its own Date was followed: {attempt.message}",
        hint="compare this machine's clock with the server's",
    )


def _moment(attempt: Attempt, wait_s: float) -> str:
    """Return the moment so long after an attempt, by the server's clock."""
    return iso(datetime.fromtimestamp(attempt.sent_at + wait_s, UTC))
