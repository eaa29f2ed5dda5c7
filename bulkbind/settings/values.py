"""Values of settings that have a form of their own: durations and endpoints."""

from __future__ import annotations

import ipaddress
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

ALL_PERCENT = 100
_UNITS_S = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PROXY = re.compile(
    r"(?P<scheme>https?)://(?:(?P<login>[^/?#]*)@)?"
    r"(?P<host>\[[0-9a-f:.]+\]|[^\s/?#@:\[\]]+)(?::(?P<port>[0-9]{1,5}))?/?",
    re.IGNORECASE,
)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)", re.ASCII)


def parse_duration(value: object) -> float:
    """Return the seconds of `90s`, `50m`, `2h`, `1d`, `250ms` or a bare number.

    Raises: ValueError if *value* is none of these.
    """
    match = _DURATION.fullmatch(str(value).strip())
    if match is None:
        raise ValueError("a duration is written like 90s, 50m, 2h or 250ms")
    return float(match[1]) * _UNITS_S[match[2]]


def duration_text(seconds: float) -> str:
    """Return seconds as a settings file would hold them: `500ms`, `90s`."""
    if 0 < seconds < 1:
        return f"{seconds * 1000:g}ms"
    return f"{seconds:g}s"


def duration_words(seconds: float) -> str:
    """Return seconds for a person: `500ms`, `90s`, `50m`, `2h`, `30d`."""
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("m", 60.0)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return duration_text(seconds)


def checked_failures(value: str) -> str:
    """Return a number of failures, `50`, or a share of them, `5%` or `2.5%`.

    Raises: ValueError if *value* is neither.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%?)", value.strip(), re.ASCII)
    if match is None or (not match[2] and "." in match[1]) or float(match[1]) == 0:
        raise ValueError("a number of failures is written 50, or 5% of the devices that have ended")
    if match[2] and float(match[1]) >= ALL_PERCENT:
        raise ValueError("a share of failures is less than 100%")
    return f"{match[1]}{match[2]}"


def checked_path(value: str) -> str:
    """Return the path of a URL. Raises: ValueError if it cannot stand there."""
    if not re.fullmatch(r"/[!-~]*[!-.0-~]", value, re.ASCII):
        raise ValueError("a path begins with / and ends with something else, without blanks")
    return value


def checked_proxy(value: str) -> str:
    """Return `http://host[:port]` of a proxy. Raises: ValueError for anything else."""
    if "@" in value:
        raise ValueError("a password has no place there: set HTTPS_PROXY instead")
    address, _ = proxy_parts(value)
    if not address.startswith("http://"):
        raise ValueError("a proxy is http://host:port")
    return address


def proxy_parts(value: str) -> tuple[str, str]:
    """Return `scheme://host[:port]` of a proxy, and what stands before its `@`, as it is written.

    Raises: ValueError if it is no proxy; the text holds no part of *value*.
    """
    match = _PROXY.fullmatch(value.strip())
    host = _host(match["host"]) if match else None
    if match is None or host is None or not 0 < int(match["port"] or 1) < 1 << 16:
        raise ValueError("a proxy is http://host:port")
    port = f":{int(match['port'])}" if match["port"] else ""
    return f"{match['scheme'].lower()}://{host}{port}", match["login"] or ""


def _host(text: str) -> str | None:
    """Return a host as it is looked up, None where it cannot be one."""
    try:
        if text.startswith("["):
            return f"[{ipaddress.IPv6Address(text[1:-1])}]"
        name = text.encode("idna").decode()
        if re.fullmatch(r"[0-9.]+", name):
            return str(ipaddress.IPv4Address(name))
    except ValueError:  # a UnicodeError is one
        return None
    return name if re.fullmatch(r"[a-zA-Z0-9._-]+", name) else None


def normal_endpoint(value: str) -> str:
    """Return `scheme://host[:port]` in lower case without a final slash.

    Raises: ValueError for anything else, and for http:// to a host that is not this machine.
    """
    parts = urlsplit(value.strip())
    host = parts.hostname or ""
    if (
        parts.scheme.lower() not in ("https", "http")
        or not re.fullmatch(r"[a-z0-9._:-]+", host, re.ASCII)
        or (parts.port is None and parts.netloc.endswith(":"))
    ):
        raise ValueError("an endpoint is https://host or https://host:port")
    if parts.path.strip("/") or parts.query or parts.fragment or parts.username is not None:
        raise ValueError("an endpoint is scheme://host[:port] alone; the path is a setting, `path`")
    if parts.scheme.lower() == "http" and not is_loopback(host):
        raise ValueError("http:// is for loopback only, since a token would travel in clear")
    return f"{parts.scheme}://{parts.netloc}".lower()


def is_shared(path: Path, mode: int, environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether others than its owner can read a file of this mode.

    What systemd hands to a service (LoadCredential) is readable by that service's user only, though
    its access list shows as the group's right. Source: systemd.exec(5), "LoadCredential=".
    """
    if mode & stat.S_IROTH:
        return True
    handed = environ.get("CREDENTIALS_DIRECTORY")
    is_handed = bool(handed) and path.absolute().is_relative_to(Path(handed or "/"))
    return bool(mode & stat.S_IRGRP) and not is_handed


def is_loopback(host: str) -> bool:
    """Return whether *host* names this machine: `localhost`, 127.0.0.0/8 or ::1."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
