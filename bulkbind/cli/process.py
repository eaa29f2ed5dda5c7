"""How the process of a command begins and ends: without what takes a while and serves nobody."""

from __future__ import annotations

import atexit
import errno
import gc
import os
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def lean_imports() -> Iterator[None]:
    """Import in the block without what no command uses: a third of what a run imports.

    structlog would load rich, for tracebacks that we do not print. aiohttp would read the system's
    certificates, twice, for contexts of its own: what has TLS here brings another, and these trust
    nobody. The garbage collector would find nothing. None of that for whoever uses the library.
    """
    modules: dict[str, Any] = sys.modules
    if "aiohttp" in modules:
        yield  # it is too late
        return
    is_rich_left_out = "rich" not in modules
    if is_rich_left_out:
        modules["rich"] = None
    gc.disable()
    try:
        with _no_certificates():
            yield
    finally:
        if is_rich_left_out:
            del modules["rich"]
        gc.freeze()  # what was imported stays
        gc.enable()


@contextmanager
def _no_certificates() -> Iterator[None]:
    import ssl  # noqa: PLC0415  # `--help` shall not load it

    loads = ssl.SSLContext.load_default_certs
    ssl.SSLContext.load_default_certs = ssl.SSLContext.set_default_verify_paths = _nothing  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        ssl.SSLContext.load_default_certs = loads  # type: ignore[method-assign]
        del ssl.SSLContext.set_default_verify_paths  # its base has it


def _nothing(*_: object) -> None:
    pass


_GONE = {errno.EPIPE, errno.EIO}
"""The other end of a pipe, or of a terminal, is closed."""


def _drop_unread(number: int, stream: TextIO | None) -> None:
    """Drop what nobody is left to read, so that it does not change the exit code."""
    if stream is None or stream.closed:
        return
    try:
        stream.flush()
    except OSError as error:
        if error.errno in _GONE:
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)
                stream.flush()


def leave(code: int) -> None:
    """End the process as Python does, but for taking apart all that was made, a tenth of a second.

    Returns: Only where the rest is better left to Python: with threads at work, streams that cannot
    be written, or somebody who measures.
    """
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        _drop_unread(number, stream)
    threading = sys.modules.get("threading")
    if threading is not None and threading.active_count() > 1:
        return
    if sys.gettrace() is not None or sys.getprofile() is not None:
        return
    atexit._run_exitfuncs()  # noqa: SLF001  # as Python would now
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except (OSError, ValueError, AttributeError):
        return
    os._exit(code)
