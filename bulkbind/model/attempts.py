"""Attempts: one request each, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bulkbind.model.values import value

if TYPE_CHECKING:
    from bulkbind.model.verdicts import Verdict


@value
class Attempt:
    """One request and what came of it."""

    verdict: Verdict
    trace_id: str
    sent_at: float
    """When it was sent: seconds since 1970 by the server's clock as far as it is known, never
    later than the true moment."""
    took_s: float
    http_status: int | None = None
    code: str = ""
    """The answer's `code` or `error_code`, as text."""
    message: str = ""
    """The server's own words, cut at 300 characters; or what happened on the way."""
    request_id: str = ""
    """The gateway's own name for it, where it was not accepted and the answer gave one."""


@dataclass(frozen=True, slots=True)
class Told:
    """What the headers of an answer tell of one of the gateway's limits."""

    limit: float | None
    """Requests per window."""
    window_s: float | None
    remaining: float | None
    """Requests left in the window."""
    reset_s: float | None
    """Seconds until the window is whole again."""
    source: str
    """The header's name, for a person."""


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
