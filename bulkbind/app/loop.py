"""How a process that sends is set up: the event loop, and the garbage collector."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

MOST_UNCOLLECTED = 20_000
"""Objects made before Python looks for circles among them. Rows make none, and looking each 700
objects, as by default, takes 8 us a row."""


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes the event loop: uvloop where it is installed; None: Python's own."""
    try:
        uvloop = importlib.import_module("uvloop")
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
