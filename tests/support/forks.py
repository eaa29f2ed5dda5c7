"""Starts `python -m bulkbind` from a process that has imported it, which is most of a start.

`Forked` is a `Popen` whose process is forked rather than begun anew: a real process with its own
environment, folder and streams, that may be waited for and killed like any other. Only its command
line is not its own (`/proc/PID/cmdline`).
"""

from __future__ import annotations

import ctypes
import gc
import io
import json
import os
import pkgutil
import runpy
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import Any

from tests.support.paths import ROOT

PR_SET_CHILD_SUBREAPER = 36
"""See `man 2 prctl`: whoever sets it is the parent of orphans below it."""
MOST_BYTES = 1 << 17
AT_THE_START = ("PYTHON", "LC_", "LANG", "TZ", "COVERAGE_PROCESS_")
"""What Python reads from the environment only when it starts."""


class Forked(subprocess.Popen[str]):
    """Forks `python -m bulkbind` with the arguments that follow; `forks` says whether it can."""

    def _execute_child(self, args: list[str], *more: Any) -> None:  # in place of fork and exec
        cwd, env, streams = more[4], more[5], more[9:15]
        theirs = [streams[0], streams[3], streams[5]]
        order = {"arguments": args, "cwd": str(cwd), "environ": dict(env)}
        with _ORDERING:
            _, orders = _forker()
            socket.send_fds(orders, [json.dumps(order).encode()], theirs)
            self.pid = int(orders.recv(64))
        self._child_created = True
        self._close_pipe_fds(*streams)  # type: ignore[attr-defined]


def forks(environ: dict[str, str]) -> bool:
    """Tell whether a process with these variables is the same forked as begun anew."""
    return sys.platform == "linux" and all(
        os.environ.get(name) == value and not name.startswith("COVERAGE_PROCESS_")
        for name, value in environ.items()
        if name.startswith(AT_THE_START)
    )


_ORDERING = threading.Lock()


@cache
def _forker() -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start what forks; it ends with this process, which becomes the parent of what is forked."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        forker = subprocess.Popen(
            [sys.executable, "-m", "tests.support.forks", str(its.fileno())],
            cwd=ROOT, pass_fds=[its.fileno()], stdin=subprocess.DEVNULL,
        )  # fmt: skip
    assert ours.recv(64) == b"ready", "what forks does not start"
    return forker, ours


def import_all() -> None:
    """Import what any command may need."""
    import bulkbind  # noqa: PLC0415  # not in the process of the tests

    for each in pkgutil.walk_packages(bulkbind.__path__, "bulkbind."):
        if each.name != "bulkbind.__main__":
            import_module(each.name)
    for late in ("jinja2", "uvloop", "_strptime"):
        with suppress(ImportError):
            import_module(late)
    assert threading.active_count() == 1, "a fork has one thread of them"
    gc.collect()
    gc.freeze()


def take_orders(orders: socket.socket) -> None:
    """Fork for each order until the other end is closed."""
    orders.send(b"ready")
    while True:
        text, streams, _, _ = socket.recv_fds(orders, MOST_BYTES, 3)
        if not text:
            return
        # Whoever forks and ends leaves its child to the process that ordered it.
        begun, told = os.pipe()
        middle = os.fork()
        if middle == 0:
            pid = os.fork()
            if pid == 0:
                orders.close()
                os.close(begun)
                os.close(told)
                become_bulkbind(json.loads(text), streams)
            os.write(told, b"%d" % pid)
            os._exit(0)
        os.waitpid(middle, 0)
        orders.send(os.read(begun, 64))
        for number in (begun, told, *streams):
            os.close(number)


def become_bulkbind(order: dict[str, Any], streams: list[int]) -> None:
    """Make this process `python -m bulkbind`, and end with it."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    assert isinstance(sys.stdout, io.TextIOWrapper)
    sys.stdout.reconfigure(line_buffering=sys.stdout.isatty())
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["environ"])
    tempfile.tempdir = None
    sys.path[0] = os.getcwd()  # noqa: PTH109  # as `python -m` does
    sys.argv[:] = ["-m", *order["arguments"]]
    code = 1
    try:
        runpy.run_module("bulkbind", run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001  # as Python shows what nobody caught
        sys.excepthook(*sys.exc_info())
    finally:
        _leave(code)


def _leave(code: int) -> None:
    """End as Python does, but for taking apart all that was imported."""
    for text in (sys.stdout, sys.stderr):
        try:
            text.flush()
        except (OSError, ValueError):
            code = 120  # Python's own for this
    os._exit(code)


if __name__ == "__main__":
    import_all()
    with socket.socket(fileno=int(sys.argv[1])) as _orders:
        take_orders(_orders)
