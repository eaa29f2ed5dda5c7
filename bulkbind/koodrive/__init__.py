"""KooDrive: the wire, credentials, the client, and what its answers mean."""

from bulkbind.koodrive.auth import fixed_token
from bulkbind.koodrive.client import KooDrive

__all__ = ["KooDrive", "fixed_token"]
