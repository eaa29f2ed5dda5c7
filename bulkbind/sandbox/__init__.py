"""A local KooDrive to rehearse on; it never imports `koodrive`."""

from bulkbind.sandbox.auth_checks import Credentials, read_credentials
from bulkbind.sandbox.server import Sandbox
from bulkbind.sandbox.spec_parser import parse_fault, parse_limit, parse_time
from bulkbind.sandbox.specs import SandboxOptions
