"""Structured logs: events named `noun.verb`, values as keys, secrets removed.

The library only asks for loggers; `configure` is called by `cli` alone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol, TextIO, cast

import structlog

from bulkbind.errors import UsageError
from bulkbind.files import appending
from bulkbind.redaction import HIDDEN, line, lines, redacted

if TYPE_CHECKING:
    from pathlib import Path

SECRET_KEYS = frozenset(
    {"authorization", "token", "access_token", "refresh_token", "password", "secret", "app_secret"}
)

Form = Literal["console", "json"]
Event = MutableMapping[str, Any]


class Stream(Protocol):
    """The part of `TextIO` that log lines need."""

    @property
    def closed(self) -> bool:
        """Whether the stream is closed."""

    def write(self, text: str, /) -> int:
        """Write *text*."""

    def flush(self) -> None:
        """Flush what is buffered."""

    def isatty(self) -> bool:
        """Return whether this is a terminal."""


def redact(_logger: object, _name: str, event: Event) -> Event:
    """Mask the values of secret keys, in any case, and secrets in other values."""
    for key, value in event.items():
        event[key] = HIDDEN if key.lower() in SECRET_KEYS else _redacted(value)
    return event


def _redacted(value: Any) -> Any:  # noqa: ANN401  # of any event
    match value:
        case str():
            return redacted(value)
        case dict():
            return {key: _redacted(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_redacted(inner) for inner in value]
        case _:
            return value


def _in_lines(_logger: object, _name: str, event: Event) -> Event:
    """Escape what would break a line or steer a terminal; a traceback stays several lines."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = lines(value.split("\n")) if key == "exception" else line(value)
        elif isinstance(value, dict | list):
            event[key] = line(str(value))
    return event


class _BestEffortStream:
    """A stream that drops what it cannot write, since its reader may go away."""

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
    """Return whether *stream* is a terminal. It may be closed or, in daemons, None."""
    return stream is not None and not stream.closed and stream.isatty()


def has_colours(stream: Stream | None) -> bool:
    """Return whether *stream* is a terminal on which colours are wanted.

    Source: no-color.org.
    """
    is_wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return is_wanted and is_terminal(stream)


@dataclass(frozen=True, slots=True)
class Sink:
    """A destination of log lines."""

    stream: Stream | None
    form: Form
    level: str
    """The lowest level written: debug, info, warning or error."""
    words: Mapping[str, Callable[[Event], str]] = field(default_factory=dict)
    """Events of which the console form tells one sentence instead, and how it is made."""


def log_file(path: Path) -> LogFile:
    """Open a log file to append to; a new one gets mode 0600, as it names devices.

    Raises: UsageError if it cannot be opened.
    """
    try:
        return LogFile(path)
    except OSError as error:
        raise UsageError(f"log file {path} cannot be opened: {error.strerror}") from error


class LogFile:
    """A log file that starts a new file when the current one is renamed or deleted."""

    closed = False
    trouble = ""
    """Why lines are missing; empty: none is."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()  # the working folder may change
        self._file = self._open()

    def _open(self) -> TextIO:
        file = appending(self._path)
        known = os.fstat(file.fileno())
        self._file_id = (known.st_dev, known.st_ino)
        return file

    def _is_current(self) -> bool:
        try:
            known = self._path.stat()
        except OSError:
            return False
        return (known.st_dev, known.st_ino) == self._file_id

    def write(self, text: str) -> int:
        """Append to the file that currently has the name."""
        if not self._is_current():
            with contextlib.suppress(OSError):  # disk full: keep writing to the old file
                old, self._file = self._file, self._open()
                old.close()
        with self._noting():
            return self._file.write(text)

    def flush(self) -> None:
        """Flush the file."""
        with self._noting():
            self._file.flush()

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.trouble = f"log file {self._path} lacks lines: {error.strerror}"
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def isatty(self) -> bool:
        """Return False."""
        return False


def configure(*sinks: Sink) -> None:
    """Send log lines to every sink whose level they reach."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            redact,
            _FanOut(sinks),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(min(map(_number, sinks))),
        logger_factory=structlog.ReturnLoggerFactory(),
        cache_logger_on_first_use=True,
    )


class _FanOut:
    """The last processor: renders each event in the form of each sink."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = [
            (_number(sink), _renderer(sink), _BestEffortStream(sink.stream)) for sink in sinks
        ]

    def __call__(self, bound: object, name: str, event: Event) -> NoReturn:
        severity = logging.getLevelNamesMapping()[str(event["level"]).upper()]
        for least, render, stream in self._sinks:
            if severity >= least:
                stream.write(f"{render(bound, name, dict(event))}\n")
                stream.flush()
        raise structlog.DropEvent  # already written


def _number(sink: Sink) -> int:
    return logging.getLevelNamesMapping()[sink.level.upper()]


def _renderer(sink: Sink) -> Callable[[object, str, Event], object]:
    if sink.form == "json":  # which escapes what steers a terminal
        return cast("Callable[[object, str, Event], object]", structlog.processors.JSONRenderer())
    as_text = structlog.dev.ConsoleRenderer(
        colors=has_colours(sink.stream),
        # The default, where rich is installed, prints the values of local variables.
        exception_formatter=structlog.dev.plain_traceback,
    )

    def render(bound: object, name: str, event: Event) -> object:
        if words := sink.words.get(str(event["event"])):
            return line(words(event))
        event = {key: value for key, value in event.items() if value != ""}
        return as_text(cast("Any", bound), name, _in_lines(bound, name, event))

    return render


def logger() -> structlog.typing.FilteringBoundLogger:
    """Return a logger; the application decides what is written, and where."""
    bound: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    if structlog.is_configured():
        return bound
    # As a library in a program that does not configure structlog: warnings only, to stderr.
    return cast(
        "structlog.typing.FilteringBoundLogger",
        structlog.wrap_logger(
            structlog.WriteLogger(cast("TextIO", _BestEffortStream(sys.stderr))),
            wrapper_class=structlog.make_filtering_bound_logger("warning"),
        ),
    )


def bound(**values: object) -> contextlib.AbstractContextManager[None]:
    """Add *values* to every log line of the block and of the tasks started in it."""
    return structlog.contextvars.bound_contextvars(**values)
