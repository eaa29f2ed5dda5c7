"""The options of a sandbox: limits, faults and others."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

from bulkbind.sandbox.auth_checks import Credentials

if TYPE_CHECKING:
    from pathlib import Path


class Call(StrEnum):
    """What a limit or a fault applies to."""

    #: POST
    BIND = "bind"
    #: GET
    LIST = "list"
    #: DELETE
    UNBIND = "unbind"
    #: any of them
    ALL = "all"

    def covers(self, call: Call) -> bool:
        """Return whether this applies to *call*."""
        return self in (Call.ALL, call)


@dataclass(frozen=True, slots=True)
class Period:
    """A period, in seconds since the sandbox started."""

    from_s: float
    until_s: float
    """Exclusive; infinite: it never ends."""

    def holds(self, elapsed_s: float) -> bool:
        """Return whether it includes a moment."""
        return self.from_s <= elapsed_s < self.until_s


class LimitKind(StrEnum):
    """How a limit counts."""

    #: windows of fixed length, each started by its first request
    WINDOW = "window"
    #: at most N in any period of that length
    SLIDING = "sliding"
    #: a token bucket
    BUCKET = "bucket"
    #: requests at the same time
    IN_FLIGHT = "inflight"


LIMIT_HELP = {
    LimitKind.WINDOW: "window:60/s, or 60/s   fixed windows, each begun by its first request",
    LimitKind.SLIDING: "sliding:600/min        never more than 600 in any 60 seconds",
    LimitKind.BUCKET: "bucket:100/s,burst=20  token bucket; burst=1 is strict spacing  [burst: N]",
    LimitKind.IN_FLIGHT: "inflight:16            at most 16 requests at the same time",
}
"""A line for each kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSpec:
    """A limit, as parsed by `parse_limit`."""

    kind: LimitKind
    count: int
    """Requests per window, tokens per window, or requests in flight."""
    unit: str
    """One of `clock.UNITS_S`; empty for requests in flight."""
    window_s: float
    """The unit's length; 0 for requests in flight."""
    burst: int
    """Size of a bucket; other kinds ignore it."""
    tell: tuple[str, ...]
    """Names of `limit_headers.FORMS`."""
    period: Period
    on: Call
    is_per_user: bool
    """Whether each X-User-Id is counted separately."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultSpec:
    """A fault, as parsed by `parse_fault`."""

    name: str
    """A name of `faults.KINDS`."""
    probability: float
    count: int | None
    """How often it strikes at most; None: no limit."""
    period: Period
    on: Call
    for_s: float
    """Its meaning depends on the kind; 0 if unused."""
    code: str | None
    """Business code of the answer; None: the kind's default."""


@dataclass(frozen=True, slots=True)
class SandboxOptions:
    """The options of a sandbox; the defaults are a gateway without limits or faults."""

    limits: tuple[LimitSpec, ...] = ()
    """All that are in force apply to a request."""
    faults: tuple[FaultSpec, ...] = ()
    """Of those that strike, the first decides."""
    second_bind: Literal["same", "error"] = "same"
    """The answer to a second bind of a device: the same record, or code 13000901."""
    second_bind_status: int = 200
    """HTTP status of that code."""
    backup_lock_s: float = 0.0
    """How long after its bind a device is under a backup lock: unbinds get 409, code 13000902."""
    token: str | None = None
    """The only accepted token; None: any, or those of `credentials`."""
    credentials: Credentials = field(default_factory=Credentials)
    """Tokens, sessions, accounts and apps; empty: any token."""
    tls: bool = False
    """Serve https, with a certificate of a throwaway authority."""
    state: Path | None = None
    """The file that stores bindings; None: memory."""
    journal: Path | None = None
    """The file for one JSON line per request; None: none."""
    seed: int | None = None
    """Makes faults repeatable; None: different ones every time."""
    clock_offset_s: float = 0.0
    """Seconds by which the sandbox's clock is ahead of the machine's; negative: behind."""
