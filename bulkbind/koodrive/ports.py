"""What the client needs of others; `app` hands in the real ones, tests their fakes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from bulkbind.koodrive.auth.credential import Credential
    from bulkbind.koodrive.auth.renewing import Call
    from bulkbind.koodrive.verdicts import Reading
    from bulkbind.model import AuthExpired, Told, Verdict


class Gate(Protocol):
    """Says when the next request may go, and hears what came of it."""

    async def permit(self, user_id: str | None = None) -> int:
        """Return, once a request may be sent, a number to hand back to `report`.

        *user_id*: the user that it acts for; None: it acts for none.
        """
        ...

    def report(self, permit: int, verdict: Verdict, told: tuple[Told, ...] = ()) -> None:
        """Hear the verdict on a permitted request, and what the answer told of limits."""
        ...

    def forget(self, permit: int) -> None:
        """Hear that a permitted request was broken off by us."""
        ...


class Authorizer(Protocol):
    """Gives what authorises requests, and hears whether the server took it."""

    def current(self, user_id: str) -> Credential | None:
        """Return what a request for a user is sent with now; None: `renew` comes first."""
        ...

    async def renew(self, user_id: str, call: Call) -> Reading | None:
        """Renew, once for all who ask meanwhile; return why there is nothing to send with.

        *call* sends a session call.
        """
        ...

    def accepted(self, credential: Credential, user_id: str) -> None:
        """Hear that the server took it."""
        ...

    def witness(self, credential: Credential, user_id: str) -> str | None:
        """Return a user whose request can tell whether a refusal is about *user_id* alone.

        None: that is not in question.
        """
        ...

    def refused(self, credential: Credential, user_id: str, *, is_users_own: bool) -> AuthExpired:
        """Hear that the server refused it; return what that means.

        *is_users_own*: whether the witness was served with it afterwards.
        """
        ...

    async def close(self) -> None:
        """Let what is under way end."""
        ...
