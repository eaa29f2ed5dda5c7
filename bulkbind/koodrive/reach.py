"""The way to an endpoint, step by step: name, connection, TLS."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import TYPE_CHECKING, Any, NamedTuple

from yarl import URL

from bulkbind.errors import UsageError
from bulkbind.koodrive import transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bulkbind.settings import ApiSettings

SHOWN = 3
"""Addresses that are named."""


class Step(NamedTuple):
    """A step that was tried; after one that failed there are no more."""

    name: str
    """`proxy`, `DNS`, `TCP` or `TLS`."""
    is_ok: bool
    text: str
    advice: str = ""


async def reach(endpoint: str, settings: ApiSettings) -> AsyncIterator[Step]:
    """Yield the steps on the way to the endpoint, or to the proxy before it.

    Raises: UsageError if `ca_file` cannot be used.
    """
    try:
        proxy = transport.proxy_for(endpoint, settings)
    except UsageError as error:
        yield Step("proxy", is_ok=False, text=str(error), advice=error.hint)
        return
    url = URL(endpoint if proxy is None else proxy.url)
    host, port = url.host or "", url.port or 443
    within_s = settings.connect_timeout
    try:
        async with asyncio.timeout(within_s):
            found = await asyncio.get_running_loop().getaddrinfo(
                host, port, type=socket.SOCK_STREAM
            )
    except (OSError, TimeoutError) as error:
        advice = "check the host name, and this machine's DNS"
        yield Step("DNS", is_ok=False, text=f"{host}: {_why(error, within_s)}", advice=advice)
        return
    addresses = list(dict.fromkeys(str(item[4][0]) for item in found))
    more = ", …" if len(addresses) > SHOWN else ""
    yield Step("DNS", is_ok=True, text=f"{host} is {', '.join(addresses[:SHOWN])}{more}")
    to = f"{host}:{port}" + ("" if proxy is None else ", the proxy")
    step = await _connect(to, host, port, within_s)
    yield step
    if step.is_ok and proxy is None and url.scheme == "https":
        yield await _shake_hands(host, port, transport.tls_context(settings.ca_file), within_s)


async def _connect(to: str, host: str, port: int, within_s: float) -> Step:
    try:
        async with asyncio.timeout(within_s):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError) as error:
        advice = "check port, firewall and proxy; is anybody listening there?"
        return Step("TCP", is_ok=False, text=f"{to}: {_why(error, within_s)}", advice=advice)
    await _close(writer)
    return Step("TCP", is_ok=True, text=f"connected to {to}")


async def _shake_hands(host: str, port: int, context: ssl.SSLContext, within_s: float) -> Step:
    try:
        async with asyncio.timeout(within_s):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except ssl.SSLCertVerificationError as error:
        advice = (
            "check the endpoint's host name and this machine's clock; the certificate of a private "
            "authority goes into `ca_file`"
        )
        why = error.verify_message or str(error)
        return Step(
            "TLS",
            is_ok=False,
            text=f"the certificate of {host} is not accepted: {why}",
            advice=advice,
        )
    except (OSError, TimeoutError) as error:
        advice = "is that port https, with TLS 1.2 or newer?"
        return Step(
            "TLS", is_ok=False, text=f"{host}:{port}: {_why(error, within_s)}", advice=advice
        )
    certificate: dict[str, Any] = writer.get_extra_info("peercert") or {}
    version = writer.get_extra_info("ssl_object").version()
    await _close(writer)
    until = certificate.get("notAfter", "no told date")
    return Step("TLS", is_ok=True, text=f"{version}, certificate good until {until}")


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(1):
            await writer.wait_closed()


def _why(error: Exception, within_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"nothing within {within_s:g} s"
    return getattr(error, "strerror", None) or str(error)
