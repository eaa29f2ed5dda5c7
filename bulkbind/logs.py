"""Structured logs: events named `noun.verb`, values as keys, secrets removed.

The library only asks for loggers; `configure` is called by `cli` alone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol, TextIO, cast

import structlog

from bulkbind.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

SECRET_KEYS = frozenset(
    {"authorization", "token", "access_token", "refresh_token", "password", "secret", "app_secret"}
)

Form = Literal["console", "json"]
Event = MutableMapping[str, Any]


class Stream(Protocol):
    """What log lines are written to."""

    @property
    def closed(self) -> bool:
        """Whether nothing can be written any more."""
        ...

    def write(self, text: str, /) -> int:
        """Write it."""
        ...

    def flush(self) -> None:
        """Leave nothing in memory."""
        ...

    def isatty(self) -> bool:
        """Return whether a person reads it."""
        ...


def redact(_logger: object, _name: str, event: Event) -> Event:
    """Mask the values of keys that hold secrets, whatever their case."""
    for key in event:
        if key.lower() in SECRET_KEYS:
            event[key] = "***"
    return event


class _Steadfast:
    """A stream whose reader may go away: what cannot be written is nobody's trouble."""

    def __init__(self, stream: Stream | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if self._stream is not None:
            with contextlib.suppress(OSError, ValueError):
                return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        if self._stream is not None:
            with contextlib.suppress(OSError, ValueError):
                self._stream.flush()


def is_terminal(stream: Stream | None) -> bool:
    """Return whether a person sees *stream*; a closed one, as daemons have, is None."""
    return stream is not None and not stream.closed and stream.isatty()


@dataclass(frozen=True, slots=True)
class Sink:
    """A place where log lines go."""

    stream: Stream | None
    form: Form
    level: str
    """The least severe level that is written: debug, info, warning or error."""


def log_file(path: Path) -> LogFile:
    """Open a log file to append to; a new one is for its owner only, as it names devices.

    Raises: UsageError if it cannot be opened.
    """
    try:
        return LogFile(path)
    except OSError as error:
        raise UsageError(f"log file {path} cannot be opened: {error.strerror}") from error


class LogFile:
    """A log file that may be renamed or deleted while it is written: then a new one is begun."""

    closed = False

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()  # whatever becomes of the working folder
        self._file = self._open()

    def _open(self) -> TextIO:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        file = os.fdopen(os.open(self._path, flags, 0o600), "a", encoding="utf-8", buffering=1)
        known = os.fstat(file.fileno())
        self._is = (known.st_dev, known.st_ino)
        return file

    def _is_there(self) -> bool:
        try:
            known = self._path.stat()
        except OSError:
            return False
        return (known.st_dev, known.st_ino) == self._is

    def write(self, text: str) -> int:
        """Append to the file of that name, whichever it is now."""
        if not self._is_there():
            with contextlib.suppress(OSError):  # no room for a new one: the old one goes on
                old, self._file = self._file, self._open()
                old.close()
        return self._file.write(text)

    def flush(self) -> None:
        """Leave nothing in memory."""
        self._file.flush()

    def close(self) -> None:
        """Write no more."""
        self._file.close()

    def isatty(self) -> bool:
        """Nobody reads a file as it is written."""
        return False


def configure(*sinks: Sink) -> None:
    """Send log lines to every sink whose level they reach."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            redact,
            _FanOut(sinks),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(min(map(_number, sinks))),
        logger_factory=structlog.ReturnLoggerFactory(),
        cache_logger_on_first_use=True,
    )


class _FanOut:
    """The last processor: renders an event for each sink in its own form."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = [(_number(sink), _renderer(sink), _Steadfast(sink.stream)) for sink in sinks]

    def __call__(self, bound: object, name: str, event: Event) -> NoReturn:
        severity = logging.getLevelNamesMapping()[str(event["level"]).upper()]
        for least, render, stream in self._sinks:
            if severity >= least:
                stream.write(f"{render(bound, name, dict(event))}\n")
                stream.flush()
        raise structlog.DropEvent  # it has been written


def _number(sink: Sink) -> int:
    return logging.getLevelNamesMapping()[sink.level.upper()]


def _renderer(sink: Sink) -> Callable[[object, str, Event], object]:
    if sink.form == "console":
        return cast(
            "Callable[[object, str, Event], object]",
            structlog.dev.ConsoleRenderer(
                colors=is_terminal(sink.stream),
                # Its own choice, where rich is installed, prints the values of local variables.
                exception_formatter=structlog.dev.plain_traceback,
            ),
        )
    as_json = structlog.processors.JSONRenderer()

    def render(bound: object, name: str, event: Event) -> object:
        explained = structlog.processors.format_exc_info(cast("Any", bound), name, event)
        return as_json(cast("Any", bound), name, explained)

    return render


def logger() -> structlog.typing.FilteringBoundLogger:
    """Return a logger; what it writes, and where, is the application's choice."""
    bound: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    if structlog.is_configured():
        return bound
    # As a library, in a program that has no structlog of its own: warnings, and not on stdout.
    return cast(
        "structlog.typing.FilteringBoundLogger",
        structlog.wrap_logger(
            structlog.WriteLogger(cast("TextIO", _Steadfast(sys.stderr))),
            wrapper_class=structlog.make_filtering_bound_logger("warning"),
        ),
    )


def bound(**values: object) -> contextlib.AbstractContextManager[None]:
    """Let every line of the block, and of the tasks begun in it, carry *values*."""
    return structlog.contextvars.bound_contextvars(**values)
