"""What a command works with: settings, clock, stop, credentials, and the parts built from them."""

from __future__ import annotations

import asyncio
import getpass
import os
import socket
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import TYPE_CHECKING

from bulkbind.app.session.eta import where_time_went
from bulkbind.app.session.time_limits import Pulse, time_box
from bulkbind.clock import Clock, iso
from bulkbind.engine.paced import Paced
from bulkbind.engine.retry import Retries
from bulkbind.engine.stop import DrainedError
from bulkbind.errors import InterruptedRunError, LedgerBusyError, UsageError
from bulkbind.koodrive import KooDrive, authorizer, proxy_for, tls_of
from bulkbind.ledger import Ledger, ledger_of
from bulkbind.model import RunFacts
from bulkbind.model.wording import may_be_sent
from bulkbind.pacing import Left, Limit, Pacer
from bulkbind.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from contextlib import AbstractAsyncContextManager
    from ssl import SSLContext

    from bulkbind.app.session.listener import Listener
    from bulkbind.engine import StopReason, StopSignal
    from bulkbind.engine.ports import Client, Gate
    from bulkbind.koodrive import Auth
    from bulkbind.settings import Settings

NAMES_CODES = "names_codes"
"""Key in the ledger: whether the server's answers name machine codes, so that each must."""
RETRY_LOCK_S = 0.5
"""Time between attempts to acquire a ledger that another run holds."""


@dataclass(frozen=True, slots=True)
class Leave:
    """What a run that unbinds may unbind."""

    takes_any: bool = False
    """Whatever the users' lists show, also if this ledger has not bound or adopted it."""
    devices: int | None = None
    """The number that is meant, another one is refused; None: the listener is asked."""


@dataclass(frozen=True, slots=True)
class Session:
    """What a command works with."""

    settings: Settings
    clock: Clock
    stop: StopSignal
    listener: Listener
    auth: Auth | None = None
    """None before `authorized`, and where no requests are sent."""
    tls: SSLContext | None = None
    """As `auth`; None also where the endpoint has none."""
    note: str = ""
    """What the operator says of the run."""
    scope: str | None = None
    """Of which devices the manifests may be the whole truth; None: of none."""
    leave: Leave | None = None
    """What a run that unbinds may unbind; None: the run binds."""
    is_inbox: bool = False
    """Whether its manifests are whatever came into a folder."""
    pulse: Pulse = field(default_factory=Pulse)
    """Beaten by all progress, so that a stall is noticed."""


def refuse_without_lists(settings: Settings) -> None:
    """Raises: UsageError if lists are not read, without which nothing is unbound."""
    if not settings.doubt.readback:
        raise UsageError(
            "the users' lists are read before anything is unbound, and `readback` is off",
            hint="switch it on; without lists nobody can tell whose binding it is",
        )


def nothing_sent(reason: StopReason) -> InterruptedRunError:
    """Return the error of a command that is stopped before it sends."""
    text = f"{reason.text}; nothing was sent"
    return InterruptedRunError(text, exit_code=reason.exit_code, hint=reason.hint)


def refuse_stopped(session: Session) -> None:
    """Raises: InterruptedRunError if the command stops; callable from any thread."""
    if session.stop.reason is not None:
        raise nothing_sent(session.stop.reason)


@contextmanager
def before_sending(session: Session) -> Iterator[None]:
    """Leave what the block awaits once the command stops: nothing is lost, as nothing was sent.

    Threads are left to themselves. They end at their next look at the stop, or with the process; a
    run that is not confirmed is discarded by the next command.

    Raises: InterruptedRunError.
    """
    try:
        with session.stop.cutting_short():
            yield
    except DrainedError as error:
        assert session.stop.reason is not None
        raise nothing_sent(session.stop.reason) from error


def time_boxed(session: Session) -> AbstractAsyncContextManager[None]:
    """Stop the block at the deadline, counted from now, or when it stalls."""
    return time_box(session.settings, session.clock, session.stop, session.pulse)


async def authorized(session: Session) -> Session:
    """Return the session with credentials and certificates, without blocking the event loop.

    Raises: UsageError if they are missing, or the proxy cannot be used; InterruptedRunError.
    """
    settings = session.settings
    with before_sending(session):
        auth = await in_thread(
            lambda: authorizer(settings.auth, ledger_of(settings), session.clock)
        )
        tls = await tls_of(settings.endpoint(), settings.api)
    proxy_for(settings.endpoint(), settings.api)
    return replace(session, auth=auth, tls=tls)


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
    """Hold the endpoint's ledger for the block.

    Raises: LedgerBusyError, LedgerError, InterruptedRunError.
    """
    with before_sending(session):
        ledger, left = await _opened(session, session.settings.endpoint())
    if left:
        session.listener.notice(
            f"a run was cut off: {may_be_sent(left)}: in doubt until the server's lists are read"
        )
    try:
        yield ledger
    finally:
        await asyncio.shield(ledger.close())


async def _opened(session: Session, endpoint: str) -> tuple[Ledger, int]:
    """Acquire the ledger; return it, and how many rows a crash left claimed."""
    until = session.clock.monotonic() + session.settings.wait
    path = await in_thread(ledger_of, session.settings)
    if path != session.settings.ledger_path():
        session.listener.notice(f"the ledger is {path}, as an earlier version called it")
    is_announced = False
    while True:
        ledger = Ledger(path, endpoint, session.clock)
        try:
            return ledger, await ledger.open(holder(session.clock))
        except LedgerBusyError as error:
            if session.clock.monotonic() >= until:
                raise
            if not is_announced:
                session.listener.notice(f"{error}; waiting for it")
                is_announced = True
        session.pulse.beat()  # waiting for another run is not a stall
        await session.clock.sleep(RETRY_LOCK_S)


def new_pacer(session: Session, learned: Limit | None = None, *, is_idle: bool = False) -> Pacer:
    """Return a pacer that starts with a learned limit, if there is one.

    Its time begins now: after a question about the credentials, whose answer may take long.
    *is_idle*: nothing will be sent, so nothing is asked.

    Raises: what the listener does to keep the credentials back.
    """
    if not is_idle:
        session.listener.before_credentials()
        session.pulse.beat()  # an answer may have taken long
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


async def pacer_of(session: Session, ledger: Ledger, *, is_idle: bool = False) -> Pacer:
    """Return a pacer that starts with the limit that an earlier run learned.

    *is_idle*, raises: as `new_pacer`.
    """
    is_per_user = session.settings.send.is_per_user
    found = RunFacts.limit_per_user if is_per_user else RunFacts.limit
    match await ledger.get_meta(found.name):
        case {"per_s": int() | float() as per_s, "is_spaced": bool() as is_spaced} if per_s > 0:
            return new_pacer(session, Limit(float(per_s), is_spaced), is_idle=is_idle)
        case _:
            return new_pacer(session, is_idle=is_idle)


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
        tls=session.tls,
    )


async def known_client(session: Session, ledger: Ledger) -> KooDrive:
    """Return the client, with what earlier runs learned of the server. Raises: as `client_of`."""
    skew_s = await ledger.get_meta(RunFacts.clock_skew_s.name)
    names_codes = await ledger.get_meta(NAMES_CODES)
    return client_of(session, skew_s, names_codes=names_codes is True)


def follow(session: Session, client: KooDrive, pacer: Pacer) -> None:
    """Let the session's watches know what is sent, and what the time goes to."""
    endpoint = session.settings.endpoint()
    session.pulse.follow(
        lambda: client.requests,
        lambda: pacer.is_paused or pacer.closed_for_s() > 0,
        lambda: where_time_went(pacer, endpoint, client.trouble, has_answered=client.has_answered),
    )


def paced(session: Session, client: Client, pacer: Pacer) -> Paced:
    """Return the API at the gateway's pace, a context manager."""
    assert session.auth is not None, "a command that asks the server has credentials"
    session.pulse.asks = True
    return Paced(client, session.auth, pacer)


def retries_of(session: Session, gate: Gate) -> Retries:
    """Return the waits between attempts, as the settings say."""
    return Retries(session.clock, session.stop, gate, session.settings.send)
