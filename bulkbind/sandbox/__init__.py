"""A local KooDrive to rehearse on; it never imports the client it stands in for."""

from bulkbind.sandbox.options import SandboxOptions, parse_faults, parse_limit
from bulkbind.sandbox.server import Sandbox

__all__ = ["Sandbox", "SandboxOptions", "parse_faults", "parse_limit"]
