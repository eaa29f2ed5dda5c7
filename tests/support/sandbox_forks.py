"""Forks sandboxes from one process that has imported what they need, which is most of a start.

Reads an order a line from standard input: JSON with `arguments`, `home` (the folder to be in),
`environ`, and `out`, a FIFO that gets the number of the sandbox's process and then what it prints.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress
from typing import Any

import bulkbind.cli.commands.sandbox  # imported once, for all
from bulkbind.cli import main


def become_sandbox(order: dict[str, Any]) -> None:
    """Make this process `bulkbind sandbox`."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.chdir(order["home"])
    os.environ.clear()
    os.environ.update(order["environ"])
    for number, path, mode in ((0, os.devnull, os.O_RDONLY), (1, order["out"], os.O_WRONLY)):
        opened = os.open(path, mode)
        os.dup2(opened, number)
        os.close(opened)
    os.write(1, b"%d\n" % os.getpid())
    sys.argv = [bulkbind.__name__, "sandbox", *order["arguments"]]
    main()


def take_orders() -> None:
    """Print `ready`, then fork for each order; standard input ends with whoever gives them."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the dead
    os.write(1, b"ready\n")
    for line in sys.stdin:
        if os.fork() == 0:
            with suppress(SystemExit):
                become_sandbox(json.loads(line))
            sys.stdout.flush()
            os._exit(0)  # no taking apart of all that was imported


if __name__ == "__main__":
    take_orders()
