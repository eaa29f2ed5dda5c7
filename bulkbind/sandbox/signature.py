"""Checks signatures of apps. Written from koodrive-api.md, apart from the client's own code."""

from __future__ import annotations

import hashlib
import hmac
import re
import string
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_HEADER = re.compile(
    r"HMAC-SHA256 AppId=([^,]+),SignedHeaders=([a-z0-9;-]+),Signature=([0-9a-f]{64})"
)
_MUST_BE_SIGNED = {"x-date", "x-user-id"}
_PLAIN = frozenset((string.ascii_letters + string.digits + "-_.~").encode())
_HEX = re.compile(rb"%([0-9A-Fa-f]{2})")


def check_signature(
    method: str, target: str, headers: Mapping[str, str], body: bytes, apps: Mapping[str, str]
) -> str | None:
    """Return what is wrong with a signed request, None: nothing.

    Args:
        method: In capitals.
        target: Path and query, as they came.
        headers: As they came; names in any case.
        body: As it came.
        apps: App id -> secret.
    """
    match = _HEADER.fullmatch(headers.get("Authorization", ""))
    if match is None:
        return "the Authorization header is no signature"
    app_id, names, signature = match.groups()
    if app_id not in apps:
        return "app not found"
    signed = names.split(";")
    if signed != sorted(signed) or _MUST_BE_SIGNED - set(signed):
        return "SignedHeaders must be sorted, and name x-date and x-user-id"
    if any(name not in headers for name in signed):
        return "a signed header is missing"
    path, _, query = target.partition("?")
    lines = [
        method,
        _uri(path),
        _query(query),
        *(f"{name}:{headers[name].strip()}" for name in signed),
        "",
        names,
        hashlib.sha256(body).hexdigest(),
    ]
    hashed = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    right = hmac.new(apps[app_id].encode(), f"HMAC-SHA256\n{hashed}".encode(), hashlib.sha256)
    return None if hmac.compare_digest(right.hexdigest(), signature) else "signature mismatch"


def app_of(authorization: str) -> str | None:
    """Return the app id of a header that is a signature, whether right or wrong."""
    match = _HEADER.fullmatch(authorization)
    return match[1] if match else None


def _uri(path: str) -> str:
    whole = "/".join(_encoded(part) for part in path.split("/"))
    return whole if whole.endswith("/") else whole + "/"


def _query(query: str) -> str:
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    coded = sorted((_encoded(name), _encoded(value)) for name, _, value in pairs)
    return "&".join("=".join(pair) for pair in coded)


def _encoded(text: str) -> str:
    plain = _HEX.sub(lambda match: bytes([int(match[1], 16)]), text.encode())
    return "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in plain)
