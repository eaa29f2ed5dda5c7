"""How the endpoint is reached: TLS that is verified, and a proxy where there is one."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import (  # type: ignore[attr-defined]  # typeshed leaves one of them out
    getproxies_environment,
    proxy_bypass_environment,
)

from bulkbind.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bulkbind.settings import ApiSettings


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return a context that verifies certificate and host name, TLS 1.2 at least.

    Args:
        ca_file: Certificates (PEM) trusted instead of the system's; None: the system's.

    Raises: UsageError if the file cannot be read, or holds no certificate.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        why = "it holds no certificate (PEM)" if isinstance(error, ssl.SSLError) else str(error)
        raise UsageError(f"ca_file {ca_file} cannot be used: {why}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def proxy_for(
    endpoint: str, settings: ApiSettings, environ: Mapping[str, str] | None = None
) -> str | None:
    """Return the proxy for an endpoint: the setting's, else the environment's; None: none.

    An http endpoint is on this machine, and never proxied: its token would travel in clear. The
    environment's proxy is not asked for a host of `NO_PROXY`.
    """
    if urlsplit(endpoint).scheme != "https":
        return None
    if settings.proxy is not None:
        return settings.proxy
    proxies = getproxies_environment() if environ is None else _proxies(environ)
    host = urlsplit(endpoint).netloc
    if proxy_bypass_environment(host, proxies):
        return None
    return proxies.get("https") or proxies.get("all")


def _proxies(environ: Mapping[str, str]) -> dict[str, str]:
    names = ((name.lower(), value) for name, value in environ.items())
    return {name.removesuffix("_proxy"): v for name, v in names if name.endswith("_proxy") and v}
