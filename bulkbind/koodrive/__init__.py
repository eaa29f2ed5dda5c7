"""KooDrive: the wire, credentials, the client, and what its answers mean."""

from bulkbind.koodrive.auth import Auth, authorizer, choose
from bulkbind.koodrive.client import KooDrive

__all__ = ["Auth", "KooDrive", "authorizer", "choose"]
