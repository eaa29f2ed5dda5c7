"""What authorises a request: a token, or a signature.

Source of the signature: koodrive-api.md, "App authentication (signed requests)".
"""

from __future__ import annotations

import hashlib
import hmac
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote_to_bytes

from aiohttp import hdrs

from bulkbind.redaction import HIDDEN, learn

if TYPE_CHECKING:
    from collections.abc import Mapping

ALGORITHM = "HMAC-SHA256"
_UNRESERVED = "-_.~"
"""Apart from letters and digits; all else is percent-encoded."""


def authorization(app_id: str, app_secret: str, canonical: str, signed_headers: str) -> str:
    """Return the value of the Authorization header that signs a canonical request."""
    signature = sign(app_secret, string_to_sign(canonical))
    return f"{ALGORITHM} AppId={app_id},SignedHeaders={signed_headers},Signature={signature}"


def sign(app_secret: str, text: str) -> str:
    """Return the signature of *text*, in lower-case hex."""
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
        path: As sent, percent-encoded where needed.
        query: As sent, without the question mark; may be empty.
        headers: The headers to sign; names in any case.
        body: The bytes as sent; may be empty.
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


SIGNED = ("X-Date", "X-User-Id")
"""Signed besides the host. Source: koodrive-api.md, the reference's example."""


@dataclass(slots=True, repr=False)
class Outgoing:
    """A request about to be sent."""

    method: str
    """In capitals."""
    path: str
    """As sent, perhaps with a query."""
    host: str
    """The Host header: with the port if it is not the scheme's default."""
    headers: dict[str, str]
    """All but those that aiohttp adds."""
    body: bytes | None
    signed_s: float = 0.0
    """Its X-Date, seconds since 1970; 0 without one."""


class Credential(ABC):
    """Authorises requests while it is valid; a renewal creates another object.

    Attributes:
        is_dead: Whether the server has refused it: nothing is sent with it any more.
        proven: The number of the latest request that the server accepted; 0: none.
        users_advice: What a person can do if it serves others, but not one user.
    """

    users_advice = "check that it may serve this user"

    def __init__(self) -> None:
        self.is_dead = False
        self.proven = 0

    def __repr__(self) -> str:
        return f"{type(self).__name__}({HIDDEN})"

    @abstractmethod
    def authorize(self, request: Outgoing) -> None:
        """Add the headers that authorise a request."""

    @abstractmethod
    def parts(self) -> tuple[str, ...]:
        """Return all that it is made of, for another process of this run; never shown."""


class Token(Credential):
    """A token, ready for the header."""

    def __init__(self, header: str) -> None:
        super().__init__()
        self.header = header
        learn(header.rpartition(" ")[2])

    def authorize(self, request: Outgoing) -> None:
        """Add the token."""
        request.headers[hdrs.AUTHORIZATION] = self.header

    def parts(self) -> tuple[str]:
        """Return the header."""
        return (self.header,)


class App(Credential):
    """An application that signs the requests of all users."""

    users_advice = "check that the app may serve this user"

    def __init__(self, app_id: str, app_secret: str) -> None:
        super().__init__()
        self._app_id = app_id
        self._app_secret = app_secret
        learn(app_secret)

    def authorize(self, request: Outgoing) -> None:
        """Sign the request, and set its Host header to what is signed."""
        request.headers[hdrs.HOST] = request.host
        signed = {"host": request.host} | {name: request.headers[name] for name in SIGNED}
        path, _, query = request.path.partition("?")
        canonical, names = canonical_request(
            request.method, path, query, signed, request.body or b""
        )
        request.headers[hdrs.AUTHORIZATION] = authorization(
            self._app_id, self._app_secret, canonical, names
        )

    def parts(self) -> tuple[str, str]:
        """Return id and secret."""
        return self._app_id, self._app_secret


def of_parts(parts: tuple[str, ...]) -> Credential:
    """Return a credential made of its `parts`. Raises: ValueError for others."""
    match parts:
        case (header,):
            return Token(header)
        case (app_id, app_secret):
            return App(app_id, app_secret)
        case _:
            raise ValueError(f"{len(parts)} parts")
