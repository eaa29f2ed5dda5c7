"""The KooDrive API: wire format, credentials, client, verdicts."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bulkbind.koodrive.auth.choice import Auth, authorizer, caller, choose, known_secrets
    from bulkbind.koodrive.client import KooDrive
    from bulkbind.koodrive.transport import proxy_for, proxy_secrets, reach, tls_of

_HOMES = {
    "Auth": "bulkbind.koodrive.auth.choice",
    "KooDrive": "bulkbind.koodrive.client",
    "authorizer": "bulkbind.koodrive.auth.choice",
    "caller": "bulkbind.koodrive.auth.choice",
    "choose": "bulkbind.koodrive.auth.choice",
    "known_secrets": "bulkbind.koodrive.auth.choice",
    "proxy_for": "bulkbind.koodrive.transport",
    "proxy_secrets": "bulkbind.koodrive.transport",
    "reach": "bulkbind.koodrive.transport",
    "tls_of": "bulkbind.koodrive.transport",
}
__all__ = [
    "Auth",
    "KooDrive",
    "authorizer",
    "caller",
    "choose",
    "known_secrets",
    "proxy_for",
    "proxy_secrets",
    "reach",
    "tls_of",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401  # whatever the name stands for
    """Import on first use: a worker process needs a small part."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
