"""`doctor`: check everything a run needs, line by line, and bind nothing."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from bulkbind.app.session.workers import cluster_of
from bulkbind.clock import Clock, SystemClock
from bulkbind.engine import StopSignal
from bulkbind.engine.paced import Paced
from bulkbind.errors import BulkbindError
from bulkbind.koodrive import Auth, KooDrive, authorizer, choose, reach, tls_of
from bulkbind.ledger import faults, ledger_of
from bulkbind.manifest import why_no_value
from bulkbind.model import Accepted, AuthExpired, ClockRefused
from bulkbind.model.fields import USER
from bulkbind.model.wording import counted, verb
from bulkbind.pacing import Pacer
from bulkbind.settings import plain
from bulkbind.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from ssl import SSLContext

    from bulkbind.engine.workers.cluster import Cluster, Place
    from bulkbind.model import Attempt, ServerLimit
    from bulkbind.settings import Loaded, Settings

TRIES = 4
"""List calls while renewed credentials or a corrected clock may help."""
LITTLE_BYTES, TOO_LITTLE_BYTES = 500 << 20, 50 << 20
"""A row takes about 500 bytes in the ledger, and the same in a report."""
SKEW_SEEN_S, SKEW_WARNED_S = 2.0, 60.0
"""A `Date` has whole seconds."""

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's output."""

    check: str
    """What was checked: `settings`, `ledger`, `TLS`, …"""
    state: State
    text: str
    advice: str = ""


async def doctor(
    loaded: Loaded, clock: Clock | None = None, *, is_agreed: bool = True
) -> AsyncIterator[Finding]:
    """Yield the findings, each as soon as it is known.

    Sends one request without credentials and, if the settings name a user, one list call, for
    which a session may be renewed; none where nobody has agreed to the settings (*is_agreed*).
    """
    settings = loaded.settings
    for finding in _settings(loaded):
        yield finding
    if settings.api.endpoint is None:
        yield Finding("endpoint", "fail", "none is set", "give --endpoint URL or --config FILE")
        return
    for finding in await in_thread(lambda: [*_ledger(settings), *_disk(settings)]):
        yield finding
    own = clock or SystemClock()
    auth: Auth | None = None
    try:
        auth = await in_thread(lambda: authorizer(settings.auth, ledger_of(settings), own))
        mode, why = await in_thread(choose, settings.auth)
        yield Finding("credentials", "ok", f"{mode}, {why}")
    except BulkbindError as error:
        yield Finding("credentials", "fail", str(error), error.hint)
    try:
        tls = await tls_of(settings.api.endpoint, settings.api)
        async for step in reach(settings.api.endpoint, settings.api, tls):
            yield Finding(step.name, "ok" if step.is_ok else "fail", step.text, step.advice)
            if not step.is_ok:
                return
        async for finding in _cluster(settings.send.cluster, settings.api.endpoint):
            yield finding
        unsent = None if is_agreed else _unnamed(loaded)
        async for finding in _calls(settings, auth, own, tls, unsent=unsent):
            yield finding
    except BulkbindError as error:
        yield Finding("connection", "fail", str(error), error.hint)


async def _cluster(address: str | None, endpoint: str) -> AsyncIterator[Finding]:
    """Look at a cluster, if there is one: who is there, and whether each reaches the endpoint."""
    if address is None:
        return
    try:
        cluster = await cluster_of(address)
    except BulkbindError as error:
        yield Finding("cluster", "fail", str(error), error.hint)
        return
    try:
        hosts = sorted({place.host for place in cluster.places})
        text = f"{counted(len(cluster.places), 'workers')} on {', '.join(hosts)}"
        yield Finding("cluster", "ok", f"{address}: {text}")
        for place in cluster.places:
            yield await _place(cluster, place, endpoint)
    finally:
        await cluster.close()


async def _place(cluster: Cluster, place: Place, endpoint: str) -> Finding:
    parts = urlsplit(endpoint)
    host, port = parts.hostname or "", parts.port or {"http": 80, "https": 443}[parts.scheme]
    try:
        found = await cluster.examine(place, host, port)
    except OSError as error:
        advice = "install this version of bulkbind there, with its extra `cluster`"
        return Finding("worker", "fail", f"{place.address}: {error}", advice)
    if found.version != version("bulkbind"):
        text = f"has bulkbind {found.version}, and this is {version('bulkbind')}"
        return Finding("worker", "fail", f"{place.address} {text}", "install the same version")
    if found.trouble:
        text = f"{place.address} does not reach {host} at port {port}: {found.trouble}"
        return Finding("worker", "fail", text, "let that machine reach the endpoint")
    text = f"{place.address} reaches the endpoint (Python {found.python})"
    return Finding("worker", "ok", text)


def _unnamed(loaded: Loaded) -> Finding:
    """Return why no credentials are sent."""
    why = f"not made: {loaded.found} was found in this folder, and nobody has named it"
    advice = f"`bulkbind doctor --config {shlex.quote(str(loaded.found))}` names it"
    return Finding("list call", "warn", why, advice)


def _settings(loaded: Loaded) -> Iterator[Finding]:
    given = [item for item in loaded.values() if item.origin != "default"]
    for item in given:
        yield Finding("settings", "ok", f"{item.key}: {_shown(item.value)} (from {item.origin})")
    text = "the others have their defaults" if given else "all of them have their defaults"
    yield Finding("settings", "ok", f"{text}; `bulkbind config` lists them")


def _shown(value: object) -> str:
    """Return a setting's value as a person says it."""
    if isinstance(value, dict):
        value = [f"{key}={_shown(each)}" for key, each in value.items()]
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value)) or "none"
    return value if isinstance(value, str) else plain(value).strip() or "not set"


def _ledger(settings: Settings) -> Iterator[Finding]:
    path = ledger_of(settings)
    if not path.exists():
        folder = _existing(path.parent)
        if os.access(folder, os.W_OK | os.X_OK):
            yield Finding("ledger", "ok", f"{path} will be made by the first run")
        else:
            yield Finding("ledger", "fail", f"{folder} cannot be written", "choose --ledger")
        return
    try:
        found = faults(path, settings.api.endpoint)
    except BulkbindError as error:
        yield Finding("ledger", "fail", str(error), error.hint)
        return
    if found:
        advice = "keep the file, and restore a copy"
        yield Finding("ledger", "fail", f"{path} is damaged: {'; '.join(found)}", advice)
    elif not os.access(path, os.W_OK):
        yield Finding("ledger", "fail", f"{path} cannot be written", "run as its owner")
    elif path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        advice = f"chmod 600 {shlex.quote(str(path))}: it names users and devices"
        yield Finding("ledger", "warn", f"{path} is whole, but others can read it", advice)
    else:
        yield Finding("ledger", "ok", f"{path} is whole")


def _disk(settings: Settings) -> Iterator[Finding]:
    out = settings.out or Path("bulkbind-report")
    for name, path in (("ledger", ledger_of(settings).parent), ("report", out)):
        folder = _existing(path.absolute())
        free = shutil.disk_usage(folder).free
        state: State = "ok"
        if free < LITTLE_BYTES:
            state = "fail" if free < TOO_LITTLE_BYTES else "warn"
        advice = "" if state == "ok" else "free the disk: a million rows take about 1 GB"
        yield Finding("disk", state, f"{free >> 20:,} MiB free for the {name} in {folder}", advice)


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


async def _calls(
    settings: Settings,
    auth: Auth | None,
    clock: Clock,
    tls: SSLContext | None,
    *,
    unsent: Finding | None,
) -> AsyncIterator[Finding]:
    if auth is None:
        return
    endpoint = settings.endpoint()
    client = KooDrive(settings.api, endpoint, clock, tls=tls)
    async with Paced(client, auth, Pacer(clock, StopSignal())) as api:
        attempt = await client.knock()
        if attempt.http_status is None:
            yield Finding("HTTP", "fail", attempt.message, "check endpoint and proxy")
            return
        yield Finding("HTTP", "ok", f"{endpoint} answers, with HTTP {attempt.http_status}")
        yield _clock(client)
        if unsent is not None:
            yield unsent
            return
        user_id = settings.manifest.user_id
        if user_id is None:
            advice = "give --user-id ID, a user whose list may be read"
            yield Finding("list call", "warn", "not made: no user is named", advice)
            return
        if wrong := why_no_value(USER.name, user_id, settings.manifest):
            yield Finding("list call", "fail", f"user id {user_id!r}: {wrong}", "fix user_id")
            return
        listed = await _list(api, user_id)
        yield _listed(user_id, listed)
        limits = listed.limits or attempt.limits
        for limit in limits:
            yield Finding("limit", "ok", limit_text(limit))
        if not limits:
            yield Finding("limit", "ok", "no header states one; a run finds it")


def limit_text(limit: ServerLimit) -> str:
    """Return a limit as a header states it, which may be only what is left of it."""
    if limit.limit is None:
        within = f" for {limit.reset_s:g} s" if limit.reset_s else ""
        return f"{limit.source} says {_requests(limit.remaining)} left{within}"
    window = f" in {limit.window_s:g} s" if limit.window_s else ""
    return f"{limit.source} says {_requests(limit.limit)}{window}"


def _requests(count: float | None) -> str:
    return f"{count or 0:g} {verb(round(count or 0), 'request', 'requests')}"


def _clock(client: KooDrive) -> Finding:
    if not client.server_clock.measured:
        return Finding("clock", "warn", "the server's answers have no Date", "is that the gateway?")
    skew_s = client.server_clock.skew_s()
    if abs(skew_s) < SKEW_SEEN_S:
        return Finding("clock", "ok", "the server's clock agrees with this machine's")
    text = f"the server's clock is {abs(skew_s):.0f} s {'ahead' if skew_s > 0 else 'behind'}"
    if abs(skew_s) < SKEW_WARNED_S:
        return Finding("clock", "ok", text)
    return Finding("clock", "warn", text, "runs follow it; still, set this machine's clock")


async def _list(api: Paced, user_id: str) -> Attempt:
    for _ in range(TRIES - 1):
        attempt = (await api.list_devices(user_id)).attempt
        match attempt.verdict:
            case ClockRefused() | AuthExpired(is_renewable=True):
                continue
            case _:
                return attempt
    return (await api.list_devices(user_id)).attempt


def _listed(user_id: str, attempt: Attempt) -> Finding:
    if isinstance(attempt.verdict, Accepted):
        return Finding("list call", "ok", f"the list of user {user_id} can be read")
    came = f"HTTP {attempt.http_status} {attempt.code}: " if attempt.http_status else ""
    advice = "check user, path and rights"
    if isinstance(attempt.verdict, AuthExpired):
        advice = attempt.verdict.advice
    return Finding("list call", "fail", f"{came}{attempt.message}", advice)
