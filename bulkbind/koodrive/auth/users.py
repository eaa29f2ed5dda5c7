"""A credential for each user: one that fails stops its own user's rows alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bulkbind.koodrive.verdict import Reading
from bulkbind.model import AuthExpired

if TYPE_CHECKING:
    from collections.abc import Callable

    from bulkbind.koodrive.auth.credential import Credential
    from bulkbind.koodrive.auth.renewing import Call, Renewing


class UserAuth:
    """The credentials of many users, each renewed by itself."""

    def __init__(self, origin: str, make: Callable[[str], Renewing | None]) -> None:
        """*make*: returns what authorises a user, None where nothing is known of it."""
        self._origin = origin
        self._make = make
        self._users: dict[str, Renewing | None] = {}

    def _of(self, user_id: str) -> Renewing | None:
        if user_id not in self._users:
            self._users[user_id] = self._make(user_id)
        return self._users[user_id]

    def current(self, user_id: str) -> Credential | None:
        """Return a user's credential, None where it must be renewed first, or there is none."""
        own = self._of(user_id)
        return None if own is None else own.current(user_id)

    async def renew(self, user_id: str, call: Call) -> Reading | None:
        """Renew a user's credential; return why there is none."""
        own = self._of(user_id)
        if own is None:
            return Reading(
                AuthExpired(
                    is_users_own=True, advice=f"add the user to {self._origin}, and run again"
                ),
                "user",
                f"{self._origin} holds no token for this user",
            )
        trouble = await own.renew(user_id, call)
        if trouble is None or not isinstance(trouble.verdict, AuthExpired):
            return trouble
        return trouble._replace(verdict=self._own())

    def accepted(self, credential: Credential, user_id: str) -> None:
        """Hear that the server took a user's credential."""
        own = self._of(user_id)
        if own is not None:
            own.accepted(credential, user_id)

    def witness(self, credential: Credential, user_id: str) -> str | None:  # noqa: ARG002  # as below
        """Return None: a user's credential is tried for that user alone."""
        return None

    def refused(self, credential: Credential, user_id: str, *, is_users_own: bool) -> AuthExpired:
        """Hear that the server refused a user's credential; return what that means."""
        own = self._of(user_id)
        assert own is not None  # it gave the credential
        found = own.refused(credential, user_id, is_users_own=is_users_own)
        return found if found.is_renewable else self._own()

    async def close(self) -> None:
        """Let renewals that are under way end."""
        for own in self._users.values():
            if own is not None:
                await own.close()

    def _own(self) -> AuthExpired:
        return AuthExpired(
            is_users_own=True, advice=f"put a new token for the user into {self._origin}"
        )
