"""Attempts: one request each, its answer, and the verdict on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias, get_args

import msgspec

from bulkbind.model.fields import ABSENT, Values


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """The server holds the binding and sent its record."""

    words: ClassVar = "accepted"

    device_id: str
    create_time: str
    """As the server sent it; empty if it sent none."""


@dataclass(frozen=True, slots=True)
class AlreadyBound:
    """A code configured as "already bound", to this user or to another."""

    words: ClassVar = "already bound, says the server"


@dataclass(frozen=True, slots=True)
class Refused:
    """A final no."""

    words: ClassVar = "refused"

    set_up: bool = False
    """Whether the cause may be the set-up (credentials, path) rather than the device."""
    unsure: bool = False
    """Whether the request may have been carried out anyway, e.g. behind a redirect."""
    is_missing: bool = False
    """Whether the server says that there is no such binding (unbind only)."""
    is_locked: bool = False
    """Whether the device is under a backup lock, which ends by itself (unbind only)."""
    is_about_user: bool = False
    """Whether the code speaks of the user: all of the user's devices share the cause."""


@dataclass(frozen=True, slots=True)
class Throttled:
    """The gateway said slow down: the destination's state, never the device's fault."""

    words: ClassVar = "throttled (429): no device's fault"

    limit: float | None = None
    """Requests per window; None if the gateway did not state it."""
    window_s: float | None = None
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class QuotaUsedUp:
    """The gateway refuses this application's requests for a long time, or for good."""

    words: ClassVar = "quota used up"

    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Transient:
    """An error that may pass; according to the server, the device was not bound."""

    words: ClassVar = "trouble that may pass (5xx)"

    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """A request was sent and no usable answer came: the server may hold the binding."""

    words: ClassVar = "no answer: looked up in the list"

    names_another: bool = False
    """Whether an answer came that names another device (unbind only)."""
    was_read: bool = field(default=False, compare=False)
    """Whether the API answered, but not with what became of the request: the server is there."""
    under_way_s: float | None = field(default=None, compare=False)
    """Of a lost worker's request, which says nothing of the server: for how long it may yet be sent
    or answered."""


@dataclass(frozen=True, slots=True)
class Unreachable:
    """No connection was made, so nothing was sent."""

    words: ClassVar = "no connection: nothing was sent"


@dataclass(frozen=True, slots=True)
class AuthExpired:
    """The credentials were refused or are missing; nothing was done."""

    words: ClassVar = "credentials to be renewed"

    is_renewable: bool = False
    """Whether the request may succeed with renewed credentials."""
    is_users_own: bool = False
    """Whether only this user is affected."""
    advice: str = ""
    """What a person can do about it."""


@dataclass(frozen=True, slots=True)
class ClockRefused:
    """Our X-Date was outside the server's window; the server's clock is now known."""

    words: ClassVar = "our clock refused, corrected"


Verdict: TypeAlias = (
    Accepted
    | AlreadyBound
    | Refused
    | Throttled
    | QuotaUsedUp
    | Transient
    | NoAnswer
    | Unreachable
    | AuthExpired
    | ClockRefused
)
VERDICTS: dict[str, str] = {kind.__name__: kind.words for kind in get_args(Verdict)}
"""What a report says of each verdict, by the name under which the ledger keeps it."""


@dataclass(frozen=True, slots=True)
class ServerLimit:
    """One of the gateway's limits, as stated in the headers of an answer."""

    limit: float | None
    """Requests per window."""
    window_s: float | None
    remaining: float | None
    """Requests left in the window."""
    reset_s: float | None
    """Seconds until the window resets."""
    source: str
    """The header's name, for display."""


TIMED_OUT = "timeout"
"""The code of an attempt whose answer did not come in time."""


MOST_SAID = 80
"""Characters of a server's message that are told in one line with more."""


@dataclass(slots=True)
class Attempt:
    """One request and its result: created with the verdict, completed by the sender."""

    verdict: Verdict
    code: str = ""
    """The answer's `code` or `error_code`, as text."""
    message: str = ""
    """The server's message, truncated to 300 characters, or a transport error."""
    trace_id: str = ""
    """Empty if nothing was sent."""
    sent_at: float = 0.0
    """Seconds since 1970 by the server's clock, as far as known; never later than the true time."""
    took_s: float = 0.0
    date: float | None = None
    """The answer's `Date`, seconds since 1970; None if it had none. Where that has set the server's
    clock anew, when the answer came by the clock so far: the other clock is in `sent_at`."""
    connection: int = 0
    """A number of the connection that the request left on; 0 if none is known."""
    is_named: bool = field(default=False, compare=False)
    """Whether the answer names the device that was asked for, and so is the answer to it."""
    http_status: int | None = None
    """None if no answer came."""
    request_id: str = ""
    """The gateway's id of the request, if it was not accepted and the answer gave one."""
    limits: tuple[ServerLimit, ...] = ()
    """The gateway's limits, as stated in the answer's headers."""

    @property
    def said(self) -> str:
        """What the server answers, in words, or that no answer comes."""
        words = " ".join(part for part in (self.code, self.message[:MOST_SAID]) if part)
        if self.http_status is None:
            return f"no answer comes ({words})" if words else "no answer comes"
        answer = f"the server answers HTTP {self.http_status}"
        return f"{answer} ({words})" if words else answer

    @property
    def under_way_s(self) -> float | None:
        """Return `NoAnswer.under_way_s`; None for all that came or failed here."""
        return self.verdict.under_way_s if isinstance(self.verdict, NoAnswer) else None


@dataclass(frozen=True, slots=True)
class Record:
    """A binding as shown in the server's list."""

    machine_code: str
    device_id: str
    create_time: str
    optional: Values = ABSENT
    """The values of the optional fields."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A user's list of devices, or the attempt that failed to get one."""

    attempt: Attempt
    records: dict[str, Record] | None
    """By machine code; None if no usable list came."""
    doubles: tuple[Record, ...] = ()
    """Further records, which differ, of machine codes that it shows more than once."""
    is_part: bool = False
    """Whether the answer says that there is more."""
