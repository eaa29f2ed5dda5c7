"""Attempts: one request each, what came of it, and the verdict on that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def value(cls: type[T]) -> type[T]:
    """Make a class of values: frozen for the type checker, which costs nothing at run time.

    For what is made for every device; `dataclass(frozen=True)` makes them three times as slowly.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)


@value
class Accepted:
    """The server holds the binding and sent its record."""

    device_id: str
    create_time: str
    """As the server wrote it; empty where it sent none."""


@dataclass(frozen=True, slots=True)
class AlreadyBound:
    """A code that is set as "already bound": perhaps to this user, perhaps to another."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A final no."""

    set_up: bool = False
    """True where the answer may speak of the set-up (credentials, path) rather than the device."""
    unsure: bool = False
    """True where it may have been done for all that, as behind a redirect."""
    is_missing: bool = False
    """True where it says that there is no such binding (to an unbind only)."""


@dataclass(frozen=True, slots=True)
class Throttled:
    """The gateway said slow down: the destination's state, never the device's fault."""

    limit: float | None = None
    """Requests per window, where the gateway told."""
    window_s: float | None = None
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class QuotaUsedUp:
    """The gateway takes nothing more of this application for a long time, or for ever."""

    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Transient:
    """Trouble that may pass; the device was not bound as far as the server says."""

    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """A request left and no usable answer came: the server may hold the binding."""

    names_another: bool = False
    """True where an answer came that is about another device (to an unbind only)."""


@dataclass(frozen=True, slots=True)
class Unreachable:
    """No connection was made, so nothing was sent."""


@dataclass(frozen=True, slots=True)
class AuthExpired:
    """The credentials were refused, or there are none to send with: nothing was done."""

    is_renewable: bool = False
    """Whether the same request may go through with renewed credentials."""
    is_users_own: bool = False
    """Whether it is about this user alone, and others can be served."""
    advice: str = ""
    """What a person can do about it."""


@dataclass(frozen=True, slots=True)
class ClockRefused:
    """Our X-Date was outside the server's window; its clock is known now."""


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


@dataclass(frozen=True, slots=True)
class ServerLimit:
    """One of the gateway's limits, as the headers of an answer state it."""

    limit: float | None
    """Requests per window."""
    window_s: float | None
    remaining: float | None
    """Requests left in the window."""
    reset_s: float | None
    """Seconds until the window is whole again."""
    source: str
    """The header's name, for a person."""


@dataclass(slots=True)
class Attempt:
    """One request and what came of it: made with the verdict, completed by whoever sent it."""

    verdict: Verdict
    code: str = ""
    """The answer's `code` or `error_code`, as text."""
    message: str = ""
    """The server's own words, cut at 300 characters; or what happened on the way."""
    trace_id: str = ""
    """Empty where nothing was sent."""
    sent_at: float = 0.0
    """When it was sent: seconds since 1970 by the server's clock as far as it is known, never
    later than the true moment."""
    took_s: float = 0.0
    http_status: int | None = None
    """None where no answer came."""
    request_id: str = ""
    """The gateway's own name for it, where it was not accepted and the answer gave one."""
    limits: tuple[ServerLimit, ...] = ()
    """What the answer's headers state of the gateway's limits."""


@dataclass(frozen=True, slots=True)
class Record:
    """A binding as the server's list shows it."""

    machine_code: str
    device_id: str
    create_time: str
    device_name: str | None = None
    device_os: str | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """A user's list of devices, or the attempt that did not bring one."""

    attempt: Attempt
    records: dict[str, Record] | None
    """By machine code; None where no usable list came."""
