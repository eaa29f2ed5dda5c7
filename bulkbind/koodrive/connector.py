"""Kept connections on which nobody has spoken out of turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp

if TYPE_CHECKING:
    from aiohttp.client_reqrep import ConnectionKey
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace


class QuietConnector(aiohttp.TCPConnector):
    """Drops a kept connection over which something came while nothing was asked.

    aiohttp looks at a connection when it is given back, not when it is taken again: what came in
    between, it would take for the answer to the next request.
    """

    # aiohttp has no public place for this; tests watch that it is called.
    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        while (connection := await super()._get(key, traces)) is not None:
            protocol = connection.protocol
            if protocol is not None and not protocol.should_close:
                return connection
            connection.close()
        return None

    def drop_idle(self) -> None:
        """Close every connection that is not in use."""
        for kept in self._conns.values():
            for protocol, _ in kept:
                protocol.close()  # whoever looks at it next sees that it is closed
