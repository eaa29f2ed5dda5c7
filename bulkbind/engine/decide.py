"""Decide what follows from a verdict for its row, and for the run if it is about the set-up.

Pure: the table of row states in the design, row by row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias, assert_never

import msgspec

from bulkbind.engine.proof import accepted, was_sent_before
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
    Refused,
    Status,
    Throttled,
    Transient,
    Unreachable,
)
from bulkbind.model.wording import counted, span_text

if TYPE_CHECKING:
    from collections.abc import Callable

_PARAMETERS = "13000102"
"""Source: koodrive-api.md, "Errors"."""
_UNREACHABLE = {
    "dns": "check the host name in `endpoint` (--endpoint), and this machine's DNS",
    "tls": "check `endpoint` (--endpoint): host name, https on that port, its certificate; else "
    "`ca_file` (--ca-file), or this machine's CA certificates (SSL_CERT_FILE), and its clock; "
    "`bulkbind doctor` looks closer",
    "proxy": "check `proxy` (--proxy) and HTTPS_PROXY; NO_PROXY names hosts that need none",
    "session": "check `auth: session_path:`; else the login service is away",
}
_OF_OTHERS = (404, 405, 501)
"""What servers that are not KooDrive answer to a bind or a list."""
_BY_STATUS = {
    400: "check the credentials (BULKBIND_TOKEN or `auth:`) and `auth: token_prefix:`",
    403: "check the rights of the credentials (BULKBIND_TOKEN or `auth:`): they are known, but may "
    "not bind for these users",
    404: "check `path`: nothing answers to it there; else `endpoint` (--endpoint)",
    405: "check `path`: it takes no such call; else `endpoint` (--endpoint)",
}


_OF_SETTINGS = ("tls", "proxy")
"""Failed connections that speak of how this command connects, also where the endpoint is right."""
_HAS_SERVED = (
    "this endpoint has bound devices before, so the service is probably in trouble; else `path` or "
    "a proxy has changed"
)


def setting_to_check(attempt: Attempt, *, has_served: bool = False) -> str:  # noqa: PLR0911  # a table
    """Return a hint: the setting to check after this answer, or after none.

    *has_served*: whether the endpoint is known to have bound devices.
    """
    status = attempt.http_status
    is_elsewhere = status is None or status >= 500 or is_endpoint_wrong(attempt)  # HTTP
    match attempt.verdict:
        case Unreachable():
            return _UNREACHABLE.get(
                attempt.code,
                "check host and port in `endpoint` (--endpoint); else a firewall or a proxy",
            )
        case AuthExpired(advice=advice) if advice:
            return advice
        case _ if has_served and is_elsewhere:
            return _HAS_SERVED
        case NoAnswer():
            return (
                "check `endpoint` (--endpoint) and `path`: something else than KooDrive may answer "
                "there, or nothing within `timeout`"
            )
        case _ if status is None or status >= 500:
            return "the service is in trouble, or `endpoint` and `path` lead to another one"
        case _ if 300 <= status < 400:
            return (
                "check `endpoint` (--endpoint): scheme and host; then `path`: the server sends us "
                "elsewhere, where no credentials are carried"
            )
        case _ if status == 400 and attempt.code == _PARAMETERS:
            return (
                "check what is sent for all: the users (`user_id`, --user-id), the columns (--map)"
                " and `path`"
            )
        case _:
            return _BY_STATUS.get(
                status, "check `endpoint` (--endpoint), `path` and the credentials (`auth:`)"
            )


def is_endpoint_wrong(attempt: Attempt) -> bool:
    """Return whether an answer, or none, looks as if the endpoint were another server or none.

    So look one that is away for a while, and a wrong path: what has worked before tells.
    """
    if isinstance(attempt.verdict, Unreachable):
        return attempt.code in ("dns", "tls", "connect")
    status = attempt.http_status
    return status is not None and (300 <= status < 400 or status in _OF_OTHERS)


def is_of_settings(attempt: Attempt, *, has_served: bool) -> bool:
    """Return whether a failed connection may be due to the settings, so that waiting is in vain.

    *has_served*: as in `setting_to_check`.
    """
    return not has_served or attempt.code in _OF_SETTINGS


def too_long(attempt: Attempt, max_wait_s: float, refused_for_s: float = 0.0) -> StopReason | None:
    """Return why a run stops rather than wait, if the gateway asks for too long a wait.

    A limit per hour or day without a time to wait may mean all of it. So may a gateway that states
    nothing and has refused everything for *refused_for_s*.
    """
    verdict = attempt.verdict
    if isinstance(verdict, Throttled) and refused_for_s > max_wait_s:
        return StopReason(
            f"the gateway has refused every request for {span_text(refused_for_s)}, longer than "
            f"`max_wait` ({span_text(max_wait_s)}), and does not say for how long it will",
            hint="it may be a limit per hour or day: resume later, or with a larger --max-wait",
        )
    limit = ""
    match verdict:
        case Transient():
            wait_s = verdict.retry_after_s
        case Throttled():
            wait_s = verdict.window_s if verdict.retry_after_s is None else verdict.retry_after_s
            if verdict.limit and verdict.window_s:
                limit = f" ({verdict.limit:g} in {verdict.window_s:g} s)"
        case _:
            return None
    if wait_s is None or wait_s <= max_wait_s:
        return None
    what = "the gateway's limit is used up" if isinstance(verdict, Throttled) else "it is busy"
    moment = _moment(attempt, wait_s)
    return StopReason(
        f"the server says that {what}{limit}, and waiting for it would take up to "
        f"{span_text(wait_s)}, longer than `max_wait` ({span_text(max_wait_s)})",
        hint=f"resume after {moment}, or with a larger --max-wait",
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
    """Return why a run stops whose endpoint cannot be reached."""
    return StopReason(
        f"the endpoint cannot be reached: {attempt.message}",
        hint=setting_to_check(attempt),
        is_endpoint_wrong=is_endpoint_wrong(attempt),
    )


def quota_used_up(attempt: Attempt, verdict: QuotaUsedUp) -> StopReason:
    """Return why a run stops whose quota is used up."""
    after_s = verdict.retry_after_s
    when = (
        "when the quota has been renewed, or raised; the gateway does not say when"
        if after_s is None
        else f"after {_moment(attempt, after_s)}"
    )
    return StopReason(
        f"the gateway's quota is used up ({attempt.code}: {attempt.message})", hint=f"resume {when}"
    )


def clock_refused(attempt: Attempt) -> StopReason:
    """Return why a run stops whose clock the server refuses."""
    return StopReason(
        f"the server refuses our X-Date although its own Date was followed: {attempt.message}",
        hint="compare this machine's clock with the server's",
    )


def _moment(attempt: Attempt, wait_s: float) -> str:
    """Return the first whole second *wait_s* after an attempt, by the server's clock."""
    after = datetime.fromtimestamp(math.ceil(attempt.sent_at + wait_s), UTC)
    return f"{after:%Y-%m-%d %H:%M:%S} UTC"


CLOCK_REFUSALS = 8
"""Clock refusals of one row in succession that stop the run."""
UNREACHABLE_AT_START = 5
"""Failed connections in succession, before any answer, that stop a run."""


class Settle(msgspec.Struct, frozen=True, gc=False):
    """The row has ended."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Again:
    """Send again: after backoff (the device's own trouble) or as soon as the gate permits."""

    backoff: bool
    retry_after_s: float = 0.0
    why: str = field(default="", compare=False)
    """What the device's trouble is, in words."""


@dataclass(frozen=True, slots=True)
class Park:
    """Only the user's list can settle the row."""

    if_absent: Outcome | None = None
    """How the row ends if the list does not show it; None: it is sent again."""
    if_unreadable: Outcome | None = None
    """How it ends if the list cannot be read; None: it stays in doubt."""
    if_disabled: Outcome | None = None
    """How it ends if the settings rule out lists; None: it stays in doubt."""
    under_way_s: float = 0.0
    """For how long it may yet be sent or answered."""

    @property
    def is_unanswered(self) -> bool:
        """Whether there was no answer, rather than one that a list has to confirm."""
        return self.if_absent is None and self.if_unreadable is None


@dataclass(frozen=True, slots=True)
class Suspect:
    """A step that may be due to the set-up: held back until something has succeeded."""

    step: Settle | Park
    is_about_user: bool = False
    """Whether this user's credentials may be the cause, rather than the whole set-up."""


@dataclass(frozen=True, slots=True)
class Halt:
    """The run stops; the row is staged again."""

    reason: StopReason


Step: TypeAlias = Settle | Suspect | Again | Park | Halt


_UNCONFIRMED = Outcome(Status.ALREADY_BOUND, detail="as the server says; no list confirmed it")
_SAID_TO_BE_BOUND = Park(
    if_absent=Outcome(
        Status.FAILED,
        detail="the server says already bound, but this user's list does not show it: "
        "perhaps bound to another user",
    ),
    if_unreadable=_UNCONFIRMED,
    if_disabled=_UNCONFIRMED,
)
COSTS = (Accepted, AlreadyBound, Refused, Transient, NoAnswer)
"""The verdicts of attempts that count against a row's `max_attempts`."""


def decide(  # noqa: C901, PLR0911, PLR0912  # a table, one case a verdict
    claim: Claim,
    attempt: Attempt,
    *,
    max_attempts: int,
    unreachable: int | None,
    max_wait_s: float,
    refused_for_s: Callable[[], float] = lambda: 0.0,
) -> Step:
    """Return what to do with a row after an attempt.

    Args:
        claim: The row; `attempts` includes this attempt already if it costs.
        attempt: The last attempt.
        max_attempts: The row fails after this many that cost.
        unreachable: Failed connections in succession before any answer; None after one.
        max_wait_s: The longest wait for the gateway; the run stops rather than wait longer.
        refused_for_s: Returns the seconds for which the gateway has refused everything.
    """
    match attempt.verdict:
        case Accepted():
            return Settle(accepted(claim, attempt, attempt.verdict))
        case AlreadyBound():
            return _SAID_TO_BE_BOUND
        case Refused():
            return _refused(claim, attempt.verdict)
        case Transient(retry_after_s=after):
            if reason := too_long(attempt, max_wait_s):
                return Halt(reason)
            if claim.attempts < max_attempts:
                return Again(backoff=True, retry_after_s=after or 0.0, why=attempt.said)
            return _exhausted(claim)
        case NoAnswer(under_way_s=under_way_s):
            return Park(under_way_s=under_way_s or 0.0)
        case Throttled():
            reason = too_long(attempt, max_wait_s, refused_for_s())
            return Halt(reason) if reason else Again(backoff=False)
        case Unreachable():
            if unreachable is not None and unreachable >= UNREACHABLE_AT_START:
                return Halt(endpoint_away(attempt))
            return Again(backoff=False)
        case ClockRefused():
            if claim.clock_refusals < CLOCK_REFUSALS:
                return Again(backoff=False)
            return Halt(clock_refused(attempt))
        case AuthExpired():
            return _unauthorised(claim, attempt, attempt.verdict)
        case QuotaUsedUp():
            return Halt(quota_used_up(attempt, attempt.verdict))
        case _ as never:
            assert_never(never)


def inherited(claim: Claim) -> Park:
    """Return how to settle a row that an earlier process or run left in doubt."""
    match claim.earlier_verdict:
        case AlreadyBound():
            return _SAID_TO_BE_BOUND
        case Refused():
            return _unless_listed(claim, Outcome(Status.FAILED))
        case Transient():
            return _unless_listed(claim, _gave_up(claim))
        case _:
            return Park()


def _refused(claim: Claim, verdict: Refused) -> Step:
    outcome = Outcome(Status.FAILED)
    if was_sent_before(claim):
        return _unless_listed(claim, outcome)
    step = _unless_listed(claim, outcome) if verdict.unsure else Settle(outcome)
    return Suspect(step) if verdict.set_up else step


def _unauthorised(claim: Claim, attempt: Attempt, verdict: AuthExpired) -> Step:
    reason = credentials_lost(attempt)
    if reason is not None:
        return Halt(reason)
    if verdict.is_renewable:
        return Again(backoff=False)
    outcome = Outcome(Status.FAILED, detail=f"the user's credentials: {verdict.advice}")
    if was_sent_before(claim):
        return _unless_listed(claim, outcome)
    return Suspect(Settle(outcome), is_about_user=True)


def _exhausted(claim: Claim) -> Step:
    step = _unless_listed(claim, _gave_up(claim))
    return step if claim.doubts else Suspect(step)


def _gave_up(claim: Claim) -> Outcome:
    return Outcome(Status.FAILED, detail=f"gave up after {counted(claim.attempts, 'attempts')}")


def _unless_listed(claim: Claim, outcome: Outcome) -> Park:
    """Let the list decide: an earlier request may have bound it, whatever the last answer said."""
    return Park(if_absent=outcome, if_disabled=None if claim.doubts else outcome)
