"""The signature of app authentication. Pure.

Source: koodrive-api.md, "App authentication (signed requests)".
"""

from __future__ import annotations

import hashlib
import hmac
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote_to_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

ALGORITHM = "HMAC-SHA256"
_UNRESERVED = "-_.~"
"""Beside letters and digits; all else is percent-encoded."""


def authorization(app_id: str, app_secret: str, canonical: str, signed_headers: str) -> str:
    """Return the value of the Authorization header that signs a canonical request."""
    signature = sign(app_secret, string_to_sign(canonical))
    return f"{ALGORITHM} AppId={app_id},SignedHeaders={signed_headers},Signature={signature}"


def sign(app_secret: str, text: str) -> str:
    """Return the signature of a string to sign, in lower-case hex."""
    return hmac.digest(app_secret.encode(), text.encode(), "sha256").hex()


def string_to_sign(canonical: str) -> str:
    """Return what is signed for a canonical request."""
    return f"{ALGORITHM}\n{hashlib.sha256(canonical.encode()).hexdigest()}"


def canonical_request(
    method: str, path: str, query: str, headers: Mapping[str, str], body: bytes
) -> tuple[str, str]:
    """Return a request in its canonical form, and the names of its signed headers.

    Args:
        method: In capitals.
        path: As it is sent, percent-encoded where it must be.
        query: As it is sent, without the question mark; empty where there is none.
        headers: The headers to sign, by any spelling of their names.
        body: The very bytes that are sent; empty where there are none.
    """
    lines = sorted((name.lower(), value.strip()) for name, value in headers.items())
    names = ";".join(name for name, _ in lines)
    block = "".join(f"{name}:{value}\n" for name, value in lines)
    hashed = hashlib.sha256(body).hexdigest()
    whole = f"{method}\n{canonical_uri(path)}\n{canonical_query(query)}\n{block}\n{names}\n{hashed}"
    return whole, names


@lru_cache(maxsize=64)  # nearly every request has the same path
def canonical_uri(path: str) -> str:
    """Return a path normalised (RFC 3986, section 6.2.2), each part encoded, with a final slash."""
    kept: list[str] = []
    for part in path.split("/")[1:]:
        text = unquote_to_bytes(part)
        if text == b"..":
            del kept[-1:]
        elif text != b".":
            kept.append(quote(text, safe=_UNRESERVED))
    whole = "/" + "/".join(kept)
    return whole if whole.endswith("/") else f"{whole}/"


def canonical_query(query: str) -> str:
    """Return a query with its pairs encoded and sorted by name, then value, in code order."""
    pairs = []
    for pair in query.split("&"):
        if pair:
            name, _, value = pair.partition("=")
            pairs.append((_encoded(name), _encoded(value)))
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def _encoded(text: str) -> str:
    return quote(unquote_to_bytes(text), safe=_UNRESERVED)
