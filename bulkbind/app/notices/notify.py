"""After a command has ended: write metrics, send notifications. Never fails a run."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import signal
import tempfile
from typing import TYPE_CHECKING, NamedTuple

from bulkbind.engine.stop import DrainedError
from bulkbind.errors import BulkbindError, ExitCode
from bulkbind.ledger import bindings_of, ledger_of, size_of
from bulkbind.logs import logger
from bulkbind.redaction import line
from bulkbind.report.metrics import Measured, write_metrics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bulkbind.app.notices.run_end import Ending
    from bulkbind.app.notices.webhook import Signal
    from bulkbind.clock import Clock
    from bulkbind.engine import StopSignal
    from bulkbind.settings import Settings
    from bulkbind.settings.model import EndSettings, NotifyOn

MOST_WORDS = 300
"""Characters of a command's standard error to report."""
_SECRET_WORDS = ("TOKEN", "SECRET", "PASSWORD")


class _CommandError(Exception):
    """The notification command failed."""


class Told(NamedTuple):
    """What became of the notifications."""

    troubles: list[str]
    """What failed, for a person; it does not change the exit code."""
    is_lost: bool = False
    """Whether somebody who was to be told was not."""


async def follow_up(
    settings: Settings, ending: Ending, clock: Clock, took_s: float, stop: StopSignal
) -> Told:
    """Write the metrics and send the notifications that the settings ask for.

    A stop that comes meanwhile ends it. One that came before does not: it is what is told.
    """
    if stop.is_set:
        return await _follow_up(settings, ending, clock, took_s)
    try:
        with stop.cutting_short():
            return await _follow_up(settings, ending, clock, took_s)
    except DrainedError:
        return Told(["the notification was cut off, since the command was stopped"], is_lost=True)


async def _follow_up(settings: Settings, ending: Ending, clock: Clock, took_s: float) -> Told:
    troubles: list[str] = []
    # Without a manifest's name they would replace those of a run.
    if settings.end.metrics_file is not None and ending.about:
        try:
            await asyncio.to_thread(_measure, settings, ending, clock, took_s)
        except BulkbindError as error:
            troubles.append(str(error))
    untold: list[str] = []
    if _is_wanted(settings.end.notify_on, ending):
        untold = await _notify(settings.end, ending, clock)
    pings = await pinged(settings.end, "fail" if ending.exit_code else "", clock)
    return Told([*troubles, *untold, *pings], is_lost=bool(untold))


async def pinged(end: EndSettings, signal: Signal, clock: Clock) -> list[str]:
    """Ping the watch that the settings name, if any; return what failed, for a person."""
    if end.ping_url_file is None:
        return []
    from bulkbind.app.notices.webhook import WebhookError, ping  # noqa: PLC0415  # few runs need it

    try:
        await ping(end.ping_url_file, signal, timeout_s=end.notify_timeout, clock=clock)
    except WebhookError as error:
        logger().warning("ping.failed", why=str(error))
        return [str(error)]
    return []


def _is_wanted(when: NotifyOn, ending: Ending) -> bool:
    match when:
        case "always":
            return True
        case "change":
            return ending.is_change
        case "failure":
            return ending.exit_code != ExitCode.DONE and ending.is_news


async def _notify(end: EndSettings, ending: Ending, clock: Clock) -> list[str]:
    from bulkbind.app.notices.webhook import WebhookError, post  # noqa: PLC0415  # few runs need it

    troubles: list[str] = []
    if end.notify_command is not None:
        try:
            await _command(end.notify_command, ending, end.notify_timeout)
        except _CommandError as error:
            troubles.append(str(error))
    if end.notify_url_file is not None:
        try:
            await post(
                end.notify_url_file,
                ending.text,
                ending.summary,
                timeout_s=end.notify_timeout,
                clock=clock,
            )
        except WebhookError as error:
            troubles.append(str(error))
    for trouble in troubles:
        logger().warning("notify.failed", why=trouble)
    if not troubles and (end.notify_command or end.notify_url_file):
        logger().info("notify.sent", exit_code=int(ending.exit_code))
    return troubles


async def _command(command: str, ending: Ending, timeout_s: float) -> None:
    """Run a command with the summary on its standard input. Raises: _CommandError."""
    summary = json.dumps({**ending.summary, "text": ending.text}).encode()
    try:
        program, *arguments = shlex.split(command) or [""]
        # Files, since a pipe breaks where the command ends without reading it.
        with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stderr:
            stdin.write(summary)
            stdin.seek(0)
            process = await asyncio.create_subprocess_exec(
                program,
                *arguments,
                stdin=stdin,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=stderr,
                env=_without_secrets(os.environ),
                start_new_session=True,
            )
            await _ended(process, timeout_s)
            stderr.seek(0)
            words = stderr.read(MOST_WORDS).decode("utf-8", "replace").strip()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise _CommandError(f"notify_command could not be started: {why}") from error
    if process.returncode:
        raise _CommandError(line(f"notify_command ended with {process.returncode}: {words}"))


async def _ended(process: asyncio.subprocess.Process, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await process.wait()
    except TimeoutError:
        raise _CommandError(f"notify_command took longer than {timeout_s:g} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def _without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    return {
        key: value
        for key, value in environ.items()
        if not (key.startswith("BULKBIND_") and any(word in key for word in _SECRET_WORDS))
    }


def _measure(settings: Settings, ending: Ending, clock: Clock, took_s: float) -> None:
    path = settings.end.metrics_file
    assert path is not None
    ledger = ledger_of(settings)
    write_metrics(
        path,
        Measured(
            endpoint=settings.endpoint(),
            manifest=ending.about,
            exit_code=ending.exit_code,
            took_s=took_s,
            ended_at=clock.utc_now().timestamp(),
            counts=ending.counts,
            facts=ending.facts,
            ledger_bytes=size_of(ledger),
            bindings=bindings_of(ledger),
        ),
    )
