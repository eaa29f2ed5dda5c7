"""Reach the endpoint: verified TLS, and a proxy if there is one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from base64 import b64encode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, unquote_to_bytes, urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # not in typeshed

from aiohttp import hdrs
from yarl import URL

from bulkbind.errors import UsageError
from bulkbind.redaction import learn
from bulkbind.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from bulkbind.settings import ApiSettings

SHORTEST_SECRET = 4
"""In characters; shorter ones occur in ordinary words."""


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return a context that verifies certificate and host name, TLS 1.2 or later.

    *ca_file*: certificates (PEM) trusted instead of the system's; None: the system's.

    Raises: UsageError if the file cannot be read, or holds no certificate.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        why = "it holds no certificate (PEM)" if isinstance(error, ssl.SSLError) else str(error)
        raise UsageError(f"ca_file {ca_file} cannot be used: {why}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def context_of(authorities: Sequence[bytes] | None) -> ssl.SSLContext:
    """Return such a context for certificates (DER); None: for the system's."""
    data = None if authorities is None else b"".join(authorities)
    context = ssl.create_default_context(cadata=data)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


async def tls_of(endpoint: str, settings: ApiSettings) -> ssl.SSLContext | None:
    """Return the context for an https endpoint, None for another.

    It is made in a thread, since `ca_file` may be a FIFO, or on a network disk. Raises: UsageError.
    """
    if not endpoint.startswith("https:"):
        return None
    return await in_thread(tls_context, settings.ca_file)


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy for an https endpoint."""

    url: str
    """`scheme://host[:port]` only, so that no error can quote a password."""
    headers: dict[str, str] | None = field(default=None, repr=False)
    """User and password, for the proxy only; None without any."""


def proxy_for(
    endpoint: str, settings: ApiSettings, environ: Mapping[str, str] = os.environ
) -> Proxy | None:
    """Return the proxy for an endpoint: the setting's, else the environment's; None: none.

    An http endpoint is on this machine and never proxied: its token would be sent in clear text.
    The environment's proxy is not used for a host in `NO_PROXY`.

    Raises: UsageError if the environment's cannot be parsed; it never shows the variable's value.
    """
    learn(*proxy_secrets(environ))
    parts = urlsplit(endpoint)
    if parts.scheme != "https":
        return None
    if settings.proxy is not None:
        return Proxy(settings.proxy)
    _, hosts_without = _variable("no_proxy", environ)
    if hosts_without and proxy_bypass_environment(parts.netloc, {"no": hosts_without}):
        return None
    name, value = _variable("https_proxy", environ)
    if not value:
        name, value = _variable("all_proxy", environ)
    if not value:
        return None
    # A worker process without a proxy shall not load all settings.
    from bulkbind.settings import proxy_parts  # noqa: PLC0415  # as above

    try:
        url, login = proxy_parts(value)
        return Proxy(url, {hdrs.PROXY_AUTHORIZATION: _basic(login)} if login else None)
    except ValueError:
        raise UsageError(
            f"the proxy in {name} cannot be read",
            hint="write http://host:port or http://user:password@host:port; in user and password, "
            "/ is written %2F, # %23, ? %3F, @ %40, : %3A and % %25",
        ) from None


def proxy_secrets(environ: Mapping[str, str] = os.environ) -> set[str]:
    """Return the passwords in the environment's proxies, even in unparsable ones.

    Each as written, as decoded, and as sent.
    """
    found: set[str] = set()
    for name, value in environ.items():
        address, at, _ = value.rpartition("@")
        if not at or not name.lower().endswith("_proxy"):
            continue
        login = address.split("://", 1)[-1]
        password = login.partition(":")[2]
        sent = unquote_to_bytes(login.encode("utf-8", "surrogateescape"))
        found |= {login, unquote(login), password, unquote(password), b64encode(sent).decode()}
    return {text for text in found if len(text) >= SHORTEST_SECRET}


def _variable(name: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """Return an environment variable's spelling and its value; lower case takes precedence."""
    spelt = max((each for each in environ if each.lower() == name), default=name)
    return spelt, environ.get(spelt, "")


def _basic(login: str) -> str:
    """Return the header for `user:password`, percent-encoded.

    Raises: ValueError for a user with a colon (RFC 7617).
    """
    written = login.encode("utf-8", "surrogateescape")  # as the environment holds it
    user, _, password = (unquote_to_bytes(part) for part in written.partition(b":"))
    if b":" in user:
        raise ValueError
    return f"Basic {b64encode(user + b':' + password).decode()}"


SHOWN = 3
"""Addresses to show."""


class Step(NamedTuple):
    """A step on the way to the endpoint; a failed one is the last."""

    name: str
    """`proxy`, `DNS`, `TCP` or `TLS`."""
    is_ok: bool
    text: str
    advice: str = ""


async def reach(
    endpoint: str, settings: ApiSettings, tls: ssl.SSLContext | None
) -> AsyncIterator[Step]:
    """Try the steps on the way to the endpoint, or to its proxy, and yield their results.

    *tls*: of `tls_of`.
    """
    try:
        proxy = proxy_for(endpoint, settings)
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
    if step.is_ok and proxy is None and tls is not None:
        yield await _shake_hands(host, port, tls, within_s)


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
