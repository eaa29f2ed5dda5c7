"""App authentication: nothing to renew, one secret for every user."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bulkbind.koodrive.auth.credential import App
from bulkbind.koodrive.verdict import Reading
from bulkbind.model import AuthExpired

if TYPE_CHECKING:
    from bulkbind.koodrive.auth.credential import Credential
    from bulkbind.koodrive.auth.renewing import Call

TRIES = 3
"""Refusals in a row of a user's requests: if others were taken meanwhile, it is about the user."""
ADVICE = (
    "check app id and secret, and that they belong to this endpoint; `bulkbind doctor` looks at "
    "the clock as well"
)


class AppAuth:
    """Signs with one application, for as long as the server takes it."""

    def __init__(self, app_id: str, app_secret: str) -> None:
        self._app = App(app_id, app_secret)
        self._accepted = 0
        self._refusals: dict[str, list[int]] = {}
        """User -> how many had been accepted at each refusal in a row."""
        self._not_served: set[str] = set()

    def current(self, user_id: str) -> Credential | None:  # noqa: ARG002  # the protocol's
        """Return the application, unless it is refused altogether."""
        return None if self._app.is_dead else self._app

    async def renew(self, user_id: str, call: Call) -> Reading | None:  # noqa: ARG002  # as above
        """Return that there is nothing to renew."""
        return Reading(AuthExpired(advice=ADVICE), "", "the application's signature was refused")

    def accepted(self, credential: Credential, user_id: str) -> None:  # noqa: ARG002  # as above
        """Hear that a signature was taken."""
        self._accepted += 1
        if self._refusals:
            self._refusals.pop(user_id, None)

    def refused(self, credential: Credential, user_id: str) -> AuthExpired:
        """Hear that a signature was refused; return what that means."""
        earlier = self._refusals.setdefault(user_id, [])
        earlier.append(self._accepted)
        if user_id in self._not_served or (len(earlier) >= TRIES and earlier[-1] > earlier[-2]):
            self._not_served.add(user_id)
            return AuthExpired(is_users_own=True, advice="check that the app may serve this user")
        if len(earlier) < TRIES:
            return AuthExpired(is_renewable=True, advice=ADVICE)
        credential.is_dead = True
        return AuthExpired(advice=ADVICE)

    async def close(self) -> None:
        """Do nothing."""
