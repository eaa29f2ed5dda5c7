"""What it means that no answer came. Source: dependencies.md, trap 3."""

from __future__ import annotations

import aiohttp

from bulkbind.koodrive.verdict import Reading
from bulkbind.model import NoAnswer, Unreachable


def _certificate(error: aiohttp.ClientConnectorCertificateError) -> str:
    found = error.certificate_error
    why = getattr(found, "verify_message", "") or str(found)
    return f"the certificate of {error.host}:{error.port} is not accepted: {why}"


def silence(error: Exception, timeout_s: float) -> Reading:  # noqa: C901, PLR0911  # a table
    """Return what it means that no answer came. Source: dependencies.md, trap 3.

    Only where no connection was made is it known that nothing was sent.
    """
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return Reading(Unreachable(), "tls", _certificate(error))
        case aiohttp.ClientConnectorSSLError():
            return Reading(Unreachable(), "tls", f"TLS failed: {error}")
        case aiohttp.ClientHttpProxyError():
            # Nothing went through.
            return Reading(Unreachable(), "proxy", f"the proxy answered HTTP {error.status}")
        case aiohttp.ClientProxyConnectionError():
            return Reading(Unreachable(), "proxy", f"no connection to the proxy: {error.strerror}")
        case aiohttp.ClientConnectorDNSError():
            return Reading(Unreachable(), "dns", f"the host name is not known: {error}")
        case aiohttp.ConnectionTimeoutError() | aiohttp.ClientConnectorError():
            return Reading(Unreachable(), "connect", f"no connection: {error}")
        case TimeoutError():
            return Reading(NoAnswer(), "timeout", f"no answer within {timeout_s:g} s")
        case aiohttp.ServerDisconnectedError():
            return Reading(NoAnswer(), "closed", "the server closed the connection unanswered")
        case aiohttp.ClientPayloadError():
            return Reading(NoAnswer(), "cut", f"the answer was cut off: {error}")
        case aiohttp.ClientOSError() | OSError():
            return Reading(NoAnswer(), "reset", f"the connection broke: {error}")
        case _:
            kind = type(error).__name__
            return Reading(NoAnswer(), "garbage", f"the answer is no HTTP: {kind}: {error}"[:300])
