"""Work that may block for ever, in threads that nobody has to wait for."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call what reads files or devices; return or raise what it does. Cancelled, leave it behind.

    Neither the event loop nor the process waits for the thread at its end, unlike for those of
    `asyncio.to_thread`: nobody knows how long a FIFO, a network disk or a large file takes.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def settle(call: Callable[[Any], None], value: object) -> None:
        if not done.done():
            call(value)

    def run() -> None:
        try:
            call, value = done.set_result, context.run(work, *args, **kwargs)
        except BaseException as error:  # noqa: BLE001  # raised where it is awaited
            call, value = done.set_exception, error  # type: ignore[assignment]  # either takes its own
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(settle, call, value)

    threading.Thread(target=run, name="reading", daemon=True).start()
    return await done
