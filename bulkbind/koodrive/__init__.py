"""The KooDrive API: wire format, credentials, client, verdicts."""

from bulkbind.koodrive.auth import Auth, authorizer, caller, choose, known_secrets
from bulkbind.koodrive.client import KooDrive
from bulkbind.koodrive.transport import proxy_for, proxy_secrets, reach, tls_of

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
