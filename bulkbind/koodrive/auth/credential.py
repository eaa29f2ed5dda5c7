"""What authorises a request: a token, or a signature made for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import hdrs

from bulkbind.koodrive.signing import authorization, canonical_request

if TYPE_CHECKING:
    from collections.abc import Iterable

HIDDEN = "***"
SHORTEST_SECRET = 6
"""A shorter one may be any word, and is not looked for in a server's words."""
SIGNED = ("X-Date", "X-User-Id")
"""Signed beside the host. Source: koodrive-api.md, the reference's example."""


@dataclass(slots=True, repr=False)
class Outgoing:
    """A request that is about to be sent."""

    method: str
    """In capitals."""
    path: str
    """As it is sent, perhaps with a query."""
    host: str
    """As the Host header names it: with the port, where that is not the scheme's own."""
    headers: dict[str, str]
    """All that it goes out with, but for what aiohttp adds."""
    body: bytes | None


class Credential(ABC):
    """What a request goes out with: one object for as long as it holds; a renewal makes another.

    Attributes:
        is_dead: Whether the server has refused it: nothing is sent with it any more.
        proven: The number of the latest request that the server took as authorised; 0: none.
    """

    def __init__(self) -> None:
        self.is_dead = False
        self.proven = 0

    def __repr__(self) -> str:
        return f"{type(self).__name__}({HIDDEN})"

    @abstractmethod
    def authorize(self, request: Outgoing) -> None:
        """Put on a request's headers what authorises it."""

    @abstractmethod
    def scrubbed(self, text: str) -> str:
        """Return a server's words without what they repeat of the secret."""


class Token(Credential):
    """A token, ready for the header."""

    def __init__(self, header: str) -> None:
        super().__init__()
        self.header = header
        """The value of the Authorization header."""

    def authorize(self, request: Outgoing) -> None:
        """Put the token on."""
        request.headers[hdrs.AUTHORIZATION] = self.header

    def scrubbed(self, text: str) -> str:
        """Return a server's words without the token."""
        return scrub(text, [self.header.rpartition(" ")[2]])


class App(Credential):
    """An application, which signs every request for whichever user it is."""

    def __init__(self, app_id: str, app_secret: str) -> None:
        super().__init__()
        self._app_id = app_id
        self._app_secret = app_secret

    def authorize(self, request: Outgoing) -> None:
        """Sign the request, and name its host outright, so that what is signed is what is sent."""
        request.headers[hdrs.HOST] = request.host
        signed = {"host": request.host} | {name: request.headers[name] for name in SIGNED}
        path, _, query = request.path.partition("?")
        canonical, names = canonical_request(
            request.method, path, query, signed, request.body or b""
        )
        request.headers[hdrs.AUTHORIZATION] = authorization(
            self._app_id, self._app_secret, canonical, names
        )

    def scrubbed(self, text: str) -> str:
        """Return a server's words without the secret."""
        return scrub(text, [self._app_secret])


def scrub(text: str, secrets: Iterable[str]) -> str:
    """Return *text* without the secrets that stand in it, also one that is cut off at its end."""
    for secret in secrets:
        if len(secret) < SHORTEST_SECRET:
            continue
        text = text.replace(secret, HIDDEN)
        for length in range(len(secret) - 1, SHORTEST_SECRET - 1, -1):
            if text.endswith(secret[:length]):
                text = text[:-length] + HIDDEN
                break
    return text
