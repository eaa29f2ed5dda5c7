"""What follows from a verdict. Pure: the table of states in design words, row by row."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias, assert_never

from bulkbind.clock import epoch_of, iso
from bulkbind.engine.stop import StopReason
from bulkbind.model import (
    Accepted,
    AlreadyBound,
    Attempt,
    AuthExpired,
    Claim,
    ClockRefused,
    NoAnswer,
    Outcome,
    QuotaUsedUp,
    Record,
    Refused,
    Status,
    Throttled,
    Transient,
    Unreachable,
    value,
)

CREATE_TIME_MARGIN_S = 1.0
"""A `createTime` this much before our sending still counts as ours: `Date` has whole seconds."""
CLOCK_REFUSALS = 8
"""In a row, after which a refused clock is a refusal."""
UNREACHABLE_AT_START = 5
"""Failed connections in a row, before anything was ever answered, that stop a run."""


@value
class Settle:
    """The row has ended."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Again:
    """Send once more: after backoff (the device's trouble) or once the gate lets it."""

    backoff: bool
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Park:
    """Only the user's list can tell."""

    if_absent: Outcome | None = None
    """How the row ends if the list does not show it; None: it is sent again."""
    if_unreadable: Outcome | None = None
    """How it ends if the list cannot be read; None: it stays in doubt."""
    if_disabled: Outcome | None = None
    """How it ends where the settings say that there are no lists; None: it stays in doubt."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """What may speak of the set-up: before anything has succeeded it is held back."""

    step: Settle | Park


@dataclass(frozen=True, slots=True)
class Halt:
    """The run stops; the row goes back."""

    reason: StopReason


Step: TypeAlias = Settle | Suspect | Again | Park | Halt


_UNCONFIRMED = Outcome(Status.ALREADY_BOUND, detail="as the server says; no list confirmed it")
_REFUSALS = (Refused, AlreadyBound)
_COSTS = (Accepted, AlreadyBound, Refused, Transient, NoAnswer)


def costs(attempt: Attempt) -> bool:
    """Return whether an attempt counts: all but those in which the device had no say."""
    return isinstance(attempt.verdict, _COSTS)


def too_long(attempt: Attempt, max_wait_s: float) -> StopReason | None:
    """Return why a run stops rather than wait, if the gateway wants a wait that is too long.

    A gateway that tells a limit per hour or day, and no time to wait, may mean all of it.
    """
    told = attempt.verdict
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
    moment = iso(datetime.fromtimestamp(attempt.sent_at + wait_s, UTC))
    return StopReason(
        f"the server says that {what}{limit}, and waiting for it would take up to "
        f"{wait_s:,.0f} s: longer than max_wait, {max_wait_s:g} s",
        hint=f"go on after {moment}, or with a larger --max-wait",
    )


def decide(  # noqa: C901, PLR0911, PLR0912  # a table, one case a verdict
    claim: Claim,
    attempt: Attempt,
    *,
    max_attempts: int,
    unreachable: int | None,
    max_wait_s: float,
) -> Step:
    """Return what to do with a row after an attempt.

    Args:
        claim: The row; `attempts` counts this attempt already if it costs.
        attempt: What came of it.
        max_attempts: After this many that cost, the row has failed.
        unreachable: Failed connections in a row before anything was ever answered; None later.
        max_wait_s: What the gateway may make the whole run wait before it stops instead.
    """
    match attempt.verdict:
        case Accepted():
            return Settle(accepted(claim, attempt, attempt.verdict))
        case AlreadyBound():
            return Park(
                if_absent=Outcome(
                    Status.FAILED,
                    detail="the server says already bound, but this user's list does not show it: "
                    "perhaps bound to another user",
                ),
                if_unreadable=_UNCONFIRMED,
                if_disabled=_UNCONFIRMED,
            )
        case Refused(set_up=set_up):
            return _refused(claim, set_up=set_up)
        case Transient(retry_after_s=after):
            if reason := too_long(attempt, max_wait_s):
                return Halt(reason)
            if claim.attempts < max_attempts:
                return Again(backoff=True, retry_after_s=after or 0.0)
            return _exhausted(claim)
        case NoAnswer():
            return Park()
        case Throttled():
            reason = too_long(attempt, max_wait_s)
            return Halt(reason) if reason else Again(backoff=False)
        case Unreachable():
            if unreachable is not None and unreachable >= UNREACHABLE_AT_START:
                return Halt(endpoint_away(attempt))
            return Again(backoff=False)
        case ClockRefused():
            if claim.clock_refusals < CLOCK_REFUSALS:
                return Again(backoff=False)
            return Halt(_clock(attempt))
        case AuthExpired():
            return Halt(credentials_lost(attempt))
        case QuotaUsedUp():
            return Halt(quota_used_up(attempt))
        case _ as never:
            assert_never(never)


def accepted(claim: Claim, attempt: Attempt, verdict: Accepted) -> Outcome:
    """Return `bound` if the binding is younger than our first sending, else `already_bound`."""
    was_sent_before = _was_sent_before(claim)
    first = claim.sent_at if was_sent_before else attempt.sent_at
    created = epoch_of(verdict.create_time)
    is_ours = created is not None and first is not None and created >= first - CREATE_TIME_MARGIN_S
    is_older = created is not None and created < attempt.sent_at - CREATE_TIME_MARGIN_S
    return Outcome(
        Status.BOUND if is_ours else Status.ALREADY_BOUND,
        device_id=verdict.device_id,
        create_time=verdict.create_time,
        detail="" if created is not None else "the server sent no createTime to tell by",
        repeated=was_sent_before and is_ours and is_older,
    )


def _was_sent_before(claim: Claim) -> bool:
    """Return whether a request before the last one may have bound it."""
    return claim.attempts > 1 or claim.doubts > 0


def found(claim: Claim, record: Record, park: Park) -> Outcome:
    """Return how a row ends that the user's list shows."""
    created = epoch_of(record.create_time)
    is_ours = (
        created is not None
        and claim.sent_at is not None
        and created >= claim.sent_at - CREATE_TIME_MARGIN_S
    )
    came = "no answer came" if claim.doubts else "the server answered with an error"
    if claim.attempts == 0 and claim.doubts == 0:
        status, detail = Status.SKIPPED, "found on the server's list; an earlier run had sent it"
    elif park.if_unreadable is not None:
        status, detail = Status.ALREADY_BOUND, "confirmed by the server's list"
    elif is_ours:
        status, detail = Status.BOUND, f"{came}; found on the server's list"
    else:
        status, detail = Status.ALREADY_BOUND, f"{came}; the list shows an older binding"
    # A request that was answered with a no made no binding: an earlier one of ours did.
    was_refused = claim.last is not None and isinstance(claim.last.verdict, _REFUSALS)
    return Outcome(
        status,
        device_id=record.device_id,
        create_time=record.create_time,
        detail=detail,
        repeated=was_refused and is_ours and _was_sent_before(claim),
    )


def absent(claim: Claim, park: Park, *, is_own: bool, max_attempts: int) -> Outcome | None:
    """Return how a row ends that the user's list does not show; None: it is sent again."""
    if park.if_absent is not None:
        return park.if_absent
    if not is_own:
        return Outcome(
            Status.WITHDRAWN, detail="not on the server's list; another run took this one's place"
        )
    if claim.attempts >= max_attempts:
        return Outcome(
            Status.FAILED,
            detail=f"no answer to {claim.attempts} attempts, and not on the server's list",
        )
    return None


def _refused(claim: Claim, *, set_up: bool) -> Step:
    outcome = Outcome(Status.FAILED)
    if _was_sent_before(claim):
        return _unless_listed(claim, outcome)
    return Suspect(Settle(outcome)) if set_up else Settle(outcome)


def _exhausted(claim: Claim) -> Step:
    outcome = Outcome(Status.FAILED, detail=f"gave up after {claim.attempts} attempts")
    step = _unless_listed(claim, outcome)
    return step if claim.doubts else Suspect(step)


def _unless_listed(claim: Claim, outcome: Outcome) -> Park:
    """An earlier request may have bound it, whatever the last one was told: let the list tell."""
    return Park(if_absent=outcome, if_disabled=None if claim.doubts else outcome)


def quota_used_up(attempt: Attempt) -> StopReason:
    """Return why a run stops that the gateway takes nothing more of."""
    return StopReason(
        f"the gateway's quota is used up ({attempt.code}: {attempt.message})",
        hint="go on when the quota has been renewed",
    )


def endpoint_away(attempt: Attempt) -> StopReason:
    """Return why a run stops that cannot even begin."""
    advice = {
        "dns": "check the endpoint's host name and this machine's DNS",
        "tls": "check the endpoint's host name, its certificate, and this machine's clock",
    }
    return StopReason(
        f"the endpoint cannot be reached: {attempt.message}",
        hint=advice.get(attempt.code, "check the endpoint, a firewall or a proxy"),
    )


def _clock(attempt: Attempt) -> StopReason:
    return StopReason(
        f"the server refuses our X-Date although its own Date was followed: {attempt.message}",
        hint="compare this machine's clock with the server's",
    )


def credentials_lost(attempt: Attempt) -> StopReason:
    """Return why a run stops whose credentials are not taken."""
    return StopReason(
        f"the server does not accept the credentials (HTTP {attempt.http_status} "
        f"{attempt.code}: {attempt.message})",
        hint="get a new token and set BULKBIND_TOKEN (or the token file); nothing was lost",
    )
