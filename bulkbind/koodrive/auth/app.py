"""App authentication: nothing to renew, one secret for every user."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bulkbind.koodrive.auth.credential import App
from bulkbind.koodrive.verdict import Reading
from bulkbind.model import AuthExpired

if TYPE_CHECKING:
    from bulkbind.koodrive.auth.credential import Credential
    from bulkbind.koodrive.auth.renewing import Call

ADVICE = (
    "check app id and secret, and that they belong to this endpoint; `bulkbind doctor` looks at "
    "the clock as well"
)


class AppAuth:
    """Signs with one application, for as long as the server takes it."""

    def __init__(self, app_id: str, app_secret: str) -> None:
        self._app = App(app_id, app_secret)
        self._witness: str | None = None
        """A user who was served last."""
        self._not_served: set[str] = set()
        """Users who were refused while others were served."""

    def current(self, user_id: str) -> Credential | None:  # noqa: ARG002  # the protocol's
        """Return the application, unless it is refused altogether."""
        return None if self._app.is_dead else self._app

    async def renew(self, user_id: str, call: Call) -> Reading | None:  # noqa: ARG002  # as above
        """Return that there is nothing to renew."""
        return Reading(AuthExpired(advice=ADVICE), "", "the application's signature was refused")

    def accepted(self, credential: Credential, user_id: str) -> None:  # noqa: ARG002  # as above
        """Hear that a signature was taken."""
        self._witness = user_id

    def witness(self, credential: Credential, user_id: str) -> str | None:
        """Return whose request tells whether it is about *user_id* alone; None: not asked."""
        if credential.is_dead or user_id in self._not_served or self._witness == user_id:
            return None
        return self._witness

    def refused(self, credential: Credential, user_id: str, *, is_users_own: bool) -> AuthExpired:
        """Hear that a signature was refused; return what that means."""
        if is_users_own or (user_id in self._not_served and not credential.is_dead):
            self._not_served.add(user_id)
            return AuthExpired(is_users_own=True, advice="check that the app may serve this user")
        credential.is_dead = True
        return AuthExpired(advice=ADVICE)

    async def close(self) -> None:
        """Do nothing."""
