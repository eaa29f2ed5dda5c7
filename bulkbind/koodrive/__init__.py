"""KooDrive: the wire, credentials, the client, and what its answers mean."""

from bulkbind.koodrive.auth import Auth, authorizer, choose, known_secrets
from bulkbind.koodrive.client import KooDrive
from bulkbind.koodrive.reach import reach

__all__ = ["Auth", "KooDrive", "authorizer", "choose", "known_secrets", "reach"]
