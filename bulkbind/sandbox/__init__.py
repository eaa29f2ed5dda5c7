"""A local KooDrive to rehearse on; it never imports the client it stands in for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bulkbind.sandbox.credentials import Credentials, read_credentials
from bulkbind.sandbox.spec_parser import Fault, Limit, SandboxOptions, parse_fault, parse_limit
from bulkbind.sandbox.specs import parse_time

if TYPE_CHECKING:
    from bulkbind.sandbox.server import Sandbox

__all__ = [
    "Credentials",
    "Fault",
    "Limit",
    "Sandbox",
    "SandboxOptions",
    "parse_fault",
    "parse_limit",
    "parse_time",
    "read_credentials",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401  # whatever the name stands for
    """Import the server on first use: options are read by commands that serve nothing."""
    if name != "Sandbox":
        raise AttributeError(f"module 'bulkbind.sandbox' has no attribute {name!r}")
    return import_module("bulkbind.sandbox.server").Sandbox
