"""Structured logs: events named `noun.verb`, values as keys, secrets removed.

The library only asks for loggers; `configure` is called by `cli` alone.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Literal, TextIO, cast

import structlog

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from typing import Any

SECRET_KEYS = frozenset({"authorization", "token", "password", "secret", "refresh_token"})


def redact(
    _logger: object, _name: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Mask the values of keys that hold secrets, whatever their case."""
    for key in event:
        if key.lower() in SECRET_KEYS:
            event[key] = "***"
    return event


class _Steadfast:
    """A stream whose reader may go away: what cannot be written is nobody's trouble."""

    def __init__(self, stream: TextIO | None) -> None:
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


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a person sees *stream*; a closed one, as daemons have, is None."""
    return stream is not None and not stream.closed and stream.isatty()


def configure(form: Literal["console", "json"], level: str, stream: TextIO | None = None) -> None:
    """Send logs to *stream* (standard error unless given), pretty or as JSON lines."""
    target = sys.stderr if stream is None else stream
    rendering: list[Any] = (
        [structlog.dev.ConsoleRenderer(colors=is_terminal(target))]
        if form == "console"
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            redact,
            *rendering,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", _Steadfast(target))),
        cache_logger_on_first_use=True,
    )


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
