"""bulkbind's commands, called in this process: a tenth of the cost of a process of their own."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
import structlog

from bulkbind import cli, logs, redaction
from bulkbind.cli import console
from tests.support.processes import environment


class Done(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


class _Stream(io.TextIOWrapper):
    """A stream that is read once the command has ended."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", errors="surrogateescape", newline="")

    def text(self) -> str:
        self.flush()
        self.seek(0)
        return self.read()


@contextlib.contextmanager
def _log_files():
    """Close the log files of the block, which a process leaves to its end."""
    with contextlib.ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        opened = logs.log_file
        patch.setattr(logs, "log_file", lambda path: stack.enter_context(closing(opened(path))))
        yield


def called(*arguments: str | Path, home: Path, check=None, **environ: str) -> Done:
    """Call bulkbind as `processes.bulkbind` does, without what only a process shows."""
    before, folder, argv = dict(os.environ), Path.cwd(), sys.argv
    out, err = _Stream(), _Stream()
    os.environ.clear()
    os.environ.update({key: value for key, value in environment(home, **environ).items() if value})
    os.chdir(home)
    sys.argv = ["bulkbind", *map(str, arguments)]
    code: object = None
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _log_files():
            cli.run_command_line()
    except SystemExit as ended:
        code = ended.code
    finally:
        sys.argv = argv
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(before)
        console._logs_only = False
        structlog.reset_defaults()
        redaction.forget()
    assert isinstance(code, int), code
    done = Done(int(code), out.text(), err.text())
    assert check in (None, done.returncode), done
    return done
