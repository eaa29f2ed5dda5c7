"""Which setting is wrong, where the first answers show that it is no device's fault. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bulkbind.model import AuthExpired, NoAnswer, Unreachable

if TYPE_CHECKING:
    from bulkbind.model import Attempt

_PARAMETERS = "13000102"
"""Source: koodrive-api.md, "Errors"."""
_UNREACHABLE = {
    "dns": "check the host name in `endpoint` (--endpoint), and this machine's DNS",
    "tls": "check `endpoint` (--endpoint): host name, https on that port, its certificate; else "
    "`ca_file` (--ca-file), or this machine's CA certificates (SSL_CERT_FILE), and its clock; "
    "`bulkbind doctor` looks closer",
    "proxy": "check `proxy` (--proxy) and HTTPS_PROXY; NO_PROXY names hosts that need none",
    "session": "check `auth: session_path:`; else the login service is away",
}
_BY_STATUS = {
    400: "check the credentials (BULKBIND_TOKEN or `auth:`) and `auth: token_prefix:`",
    403: "check the rights of the credentials (BULKBIND_TOKEN or `auth:`): they are known, but may "
    "not bind for these users",
    404: "check `path`: nothing answers to it there; else `endpoint` (--endpoint)",
    405: "check `path`: it takes no such call; else `endpoint` (--endpoint)",
}


def setting_to_check(attempt: Attempt) -> str:  # noqa: PLR0911  # a table
    """Return which setting an answer, or its absence, speaks of, as a hint for a person."""
    status = attempt.http_status
    match attempt.verdict:
        case Unreachable():
            return _UNREACHABLE.get(
                attempt.code,
                "check host and port in `endpoint` (--endpoint); else a firewall or a proxy",
            )
        case AuthExpired(advice=advice) if advice:
            return advice
        case NoAnswer():
            return (
                "check `endpoint` (--endpoint) and `path`: something else than KooDrive may answer "
                "there, or nothing within `timeout`"
            )
        case _ if status is None or status >= 500:  # HTTP's own numbers
            return "the service is in trouble, or `endpoint` and `path` lead to another one"
        case _ if 300 <= status < 400:  # HTTP's own numbers
            return (
                "check `endpoint` (--endpoint): scheme and host; then `path`: the server sends us "
                "elsewhere, where no credentials are carried"
            )
        case _ if status == 400 and attempt.code == _PARAMETERS:  # HTTP's own numbers
            return (
                "check what is sent for all: the users (`user_id`, --user-id), the columns (--map)"
                " and `path`"
            )
        case _:
            return _BY_STATUS.get(
                status, "check `endpoint` (--endpoint), `path` and the credentials (`auth:`)"
            )
