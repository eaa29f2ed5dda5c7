"""Find out from users' lists what there is to unbind, where the ledger need not know it.

What is shown as the ledger has it is taken at once; anything else, shown or not, needs a second
list a settling time later. What these prove is decided in `engine.proof`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from bulkbind.engine import proof
from bulkbind.model import Outcome, Record, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bulkbind.engine.proof import Look
    from bulkbind.engine.unbinder import Unbinder
    from bulkbind.model import Claim


class TakingLedger(Protocol):
    """Source of the rows to look up, and sink of what is found."""

    async def unlisted(self, run: int, last: int) -> dict[str, list[Claim]]:
        """Return the rows up to *last*, by user, of which only lists tell what to unbind."""

    async def take(self, run: int, found: Sequence[tuple[Claim, Record]]) -> None:
        """Adopt what lists show for rows, and stage its unbinding."""


class Taker:
    """Stages the unbinding of whatever the users' lists show of a run's devices."""

    def __init__(
        self, unbinder: Unbinder, ledger: TakingLedger, settle: Callable[[Claim, Outcome], None]
    ) -> None:
        """*settle*: called with rows that name nothing to unbind."""
        self._unbinder = unbinder
        self._ledger = ledger
        self._settle = settle

    async def run(self, run: int, last: int) -> None:
        """Look up the rows up to *last*. Raises: DrainedError when the run stops."""
        lacking: list[tuple[str, list[Claim], Look]] = []

        async def first_look(user: tuple[str, list[Claim]]) -> None:
            user_id, claims = user
            look, known = await self._unbinder.look_for(user_id, _codes(claims))
            if isinstance(look, str):
                self._fail(claims, look)
                return
            sure = _shown_as_known(claims, look, known)
            await self._ledger.take(run, sure)
            taken = {claim.row for claim, _ in sure}
            if left := [claim for claim in claims if claim.row not in taken]:
                lacking.append((user_id, left, look))

        async def second_look(user: tuple[str, list[Claim], Look]) -> None:
            user_id, claims, first = user
            await self._unbinder.settled_since(first)
            look, _ = await self._unbinder.look_for(user_id, _codes(claims))
            if isinstance(look, str):
                self._fail(claims, look)
                return
            found: list[tuple[Claim, Record]] = []
            for claim in claims:
                end = proof.to_take(claim, (first, look), _codes(claims))
                if isinstance(end, Record):
                    found.append((claim, end))
                else:
                    self._settle(claim, end)
            await self._ledger.take(run, found)

        users = await self._ledger.unlisted(run, last)
        await self._unbinder.for_each_user(first_look, users.items())
        await self._unbinder.for_each_user(second_look, lacking)

    def _fail(self, claims: Sequence[Claim], why: str) -> None:
        for claim in claims:
            self._settle(claim, Outcome(Status.FAILED, detail=why, is_unsent=True))


def _codes(claims: Sequence[Claim]) -> set[str]:
    return {claim.device.machine_code for claim in claims}


def _shown_as_known(
    claims: Sequence[Claim], look: Look, known: Mapping[str, str]
) -> list[tuple[Claim, Record]]:
    """Return what a list shows as the ledger has it."""
    return [
        (claim, record)
        for claim in claims
        if (record := look.record(code := claim.device.machine_code)) is not None
        and known.get(code) == record.device_id
    ]
