"""What a command works with: settings, clock, stop, credentials, and the parts built from them."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING

from bulkbind.app.session.time_limits import Pulse, time_box
from bulkbind.clock import Clock, iso
from bulkbind.engine.paced import Paced
from bulkbind.engine.retry import Retries
from bulkbind.engine.stop import DrainedError
from bulkbind.errors import InterruptedRunError, LedgerBusyError
from bulkbind.koodrive import KooDrive
from bulkbind.ledger import Ledger
from bulkbind.model import RunFacts
from bulkbind.pacing import Left, Limit, Pacer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bulkbind.app.session.listener import Listener
    from bulkbind.engine import StopReason, StopSignal
    from bulkbind.engine.ports import Gate
    from bulkbind.koodrive import Auth
    from bulkbind.settings import Settings

NAMES_CODES = "names_codes"
"""Key in the ledger: whether the server's answers name machine codes, so that each must."""
RETRY_LOCK_S = 0.5
"""Time between attempts to acquire a ledger that another run holds."""


@dataclass(frozen=True, slots=True)
class Session:
    """What a command works with."""

    settings: Settings
    clock: Clock
    stop: StopSignal
    listener: Listener
    auth: Auth | None
    """None: the command sends no requests."""
    pulse: Pulse = field(default_factory=Pulse)
    """Beaten by all progress, so that a stall is noticed."""


def nothing_sent(reason: StopReason) -> InterruptedRunError:
    """Return the error of a command that is stopped before it sends."""
    return InterruptedRunError(f"{reason.text}; nothing was sent", exit_code=reason.exit_code)


def holder(clock: Clock) -> dict[str, object]:
    """Return who runs this command, on which host, since when, with which version."""
    try:
        operator = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in some containers
        operator = str(os.getuid())
    return {
        "operator": operator,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started_at": iso(clock.utc_now()),
        "version": version("bulkbind"),
    }


@asynccontextmanager
async def held_ledger(session: Session) -> AsyncIterator[Ledger]:
    """Hold the endpoint's ledger for the block, which stops at the deadline or on a stall.

    Raises: LedgerBusyError, LedgerError.
    """
    endpoint = session.settings.endpoint()
    async with time_box(session.settings, session.clock, session.stop, session.pulse):
        ledger, left = await _opened(session, endpoint)
        if left:
            session.listener.notice(f"{left} rows were being sent when a run was cut off: in doubt")
        try:
            yield ledger
        finally:
            await asyncio.shield(ledger.close())


async def _opened(session: Session, endpoint: str) -> tuple[Ledger, int]:
    """Acquire the ledger; return it, and how many rows a crash left claimed."""
    until = session.clock.monotonic() + session.settings.wait
    is_announced = False
    while True:
        ledger = Ledger(session.settings.ledger_path(), endpoint, session.clock)
        try:
            return ledger, await ledger.open(holder(session.clock))
        except LedgerBusyError as error:
            if session.stop.reason is not None:
                raise nothing_sent(session.stop.reason) from error
            if session.clock.monotonic() >= until:
                raise
            if not is_announced:
                session.listener.notice(f"{error}; waiting for it")
                is_announced = True
        session.pulse.beat()  # waiting for another run is not a stall
        with contextlib.suppress(DrainedError):
            await session.stop.sleep(session.clock, RETRY_LOCK_S)


def new_pacer(session: Session, learned: Limit | None = None) -> Pacer:
    """Return a pacer that starts with a learned limit, if there is one."""
    send = session.settings.send
    return Pacer(
        session.clock,
        session.stop,
        send.rate,
        concurrency=send.concurrency,
        learned=learned,
        per_user=send.is_per_user,
        left=Left(send.share or 1.0, send.reserve or 0.0),
    )


async def pacer_of(session: Session, ledger: Ledger) -> Pacer:
    """Return a pacer that starts with the limit that an earlier run learned."""
    is_per_user = session.settings.send.is_per_user
    found = RunFacts.limit_per_user if is_per_user else RunFacts.limit
    match await ledger.get_meta(found.name):
        case {"per_s": int() | float() as per_s, "is_spaced": bool() as is_spaced} if per_s > 0:
            return new_pacer(session, Limit(float(per_s), is_spaced))
        case _:
            return new_pacer(session)


def client_of(session: Session, skew_s: object = None, *, names_codes: bool = False) -> KooDrive:
    """Return the client. Raises: UsageError (no endpoint).

    *skew_s*, *names_codes*: as recorded in the ledger.
    """
    settings = session.settings
    return KooDrive(
        settings.api,
        settings.endpoint(),
        session.clock,
        skew_s=skew_s if isinstance(skew_s, int | float) else None,
        names_codes=names_codes,
    )


async def known_client(session: Session, ledger: Ledger) -> KooDrive:
    """Return the client, with what earlier runs learned of the server. Raises: as `client_of`."""
    skew_s = await ledger.get_meta(RunFacts.clock_skew_s.name)
    names_codes = await ledger.get_meta(NAMES_CODES)
    return client_of(session, skew_s, names_codes=names_codes is True)


def paced(session: Session, client: KooDrive, pacer: Pacer) -> Paced:
    """Return the API at the gateway's pace, a context manager."""
    assert session.auth is not None, "a command that asks the server has credentials"
    return Paced(client, session.auth, pacer)


def retries_of(session: Session, gate: Gate) -> Retries:
    """Return the waits between attempts, as the settings say."""
    return Retries(session.clock, session.stop, gate, session.settings.send)
