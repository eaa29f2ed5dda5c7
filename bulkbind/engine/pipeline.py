"""The engine of a run: settle old doubt, send one canary, then everything, then drain."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bulkbind.engine.binder import Binder
from bulkbind.engine.claims import Claims
from bulkbind.engine.decide import Park, Step, Suspect
from bulkbind.engine.drain import draining
from bulkbind.engine.readback import Readback
from bulkbind.engine.retry import Retries
from bulkbind.engine.set_up import setting_to_check
from bulkbind.engine.stop import DrainedError, StopReason

if TYPE_CHECKING:
    from bulkbind.engine.ports import Parts
    from bulkbind.model import Claim
    from bulkbind.settings import ReadbackSettings, SendSettings

CANARIES = 5
"""First rows in a row that may fail in a way that speaks of the set-up, before the run stops."""


class Pipeline:
    """Sends what a run has staged, once."""

    def __init__(
        self,
        parts: Parts,
        run: int,
        send: SendSettings,
        doubt: ReadbackSettings,
        first: int | None = None,
    ) -> None:
        """*first*: a pilot, which sends this many rows and leaves the others; None: all rows."""
        self._parts = parts
        self._run = run
        self._send = send
        self._tasks = asyncio.TaskGroup()
        self._door = asyncio.Lock()
        self._retries = Retries(
            parts.clock, parts.stop, parts.gate, base_s=send.backoff_base, cap_s=send.backoff_cap
        )
        is_per_user = send.rate_scope == "x-user-id"
        self._claims = Claims(
            parts,
            run,
            concurrency=send.concurrency,
            first=first,
            # A pilot is of the first rows.
            is_in_turns=is_per_user and first is None,
        )
        self._readback = Readback(
            parts,
            self._retries,
            self._tasks,
            run,
            settle_s=doubt.readback_settle,
            is_enabled=doubt.readback,
            max_attempts=send.max_attempts,
            max_wait_s=send.max_wait,
        )
        self._binder = Binder(
            parts,
            self._readback,
            self._retries,
            self._tasks,
            max_attempts=send.max_attempts,
            max_wait_s=send.max_wait,
            concurrency=send.concurrency,
            is_per_user=is_per_user,
        )
        self._readback.resend = self._resend

    @property
    def lists(self) -> int:
        """List calls made."""
        return self._readback.lists

    @property
    def backed_off_s(self) -> float:
        """Seconds that devices have waited for their own trouble to pass, added up."""
        return self._retries.backed_off_s

    async def run(self) -> None:
        """Send until every row has ended, or the run is stopped and drained.

        Raises: LedgerError; the run can go on later from what the ledger holds.
        """
        try:
            await draining(
                self._work(),
                self._parts.clock,
                self._parts.stop,
                grace_s=self._send.grace,
            )
        except asyncio.CancelledError:
            await self._claims.give_back()
            raise
        await self._claims.give_back()

    async def _work(self) -> None:
        await self._send_all()
        if self._claims.is_pilot_over:
            self._parts.stop.set(StopReason("as many rows were sent as --first asked for"))

    async def _send_all(self) -> None:
        async with self._tasks:
            await self._readback.load()
            try:
                is_proven = await self._first_contact()
            except DrainedError:
                return
            if self._parts.stop.is_set:
                return
            self._readback.start()
            if is_proven:
                for number in range(self._send.concurrency):
                    self._tasks.create_task(self._worker(), name=f"worker {number}")

    async def _first_contact(self) -> bool:
        """Let one request alone prove endpoint, TLS, credentials and clock.

        With rows in doubt it is their list; then, or else, a bind: rights and parameters of the one
        prove nothing of the other.

        Returns: Whether rows can be sent on; False where none is left.
        Raises: DrainedError when the run stops.
        """
        await self._readback.first_contact()
        suspects: list[tuple[Claim, Suspect]] = []
        claim: Claim | None = None
        tried: set[str | int] = set()
        try:
            while not self._parts.stop.is_set:
                claim = await self._claims.next(ahead=False)
                if claim is None:
                    break
                step = await self._binder.to_end(claim)
                # What may be about a user's credentials is not told anew by its next row.
                is_about_user = isinstance(step, Suspect) and step.is_about_user
                tried.add(claim.device.user_id if is_about_user else claim.row)
                if isinstance(step, Suspect):
                    suspects.append((claim, step))
                else:
                    await self._binder.act(claim, step)
                    if not _is_unanswered(step):
                        break
                if len(tried) == CANARIES:
                    self._parts.stop.set(_set_up_is_wrong(claim))
            if self._parts.stop.is_set:
                return False
            for earlier, step in suspects:
                await self._binder.act(earlier, step)
            suspects.clear()
            return claim is not None
        finally:
            # What was held back was refused for the set-up's sake: no attempt is counted, but one
            # where the request may have been done, so that it is not taken for never sent.
            for earlier, held_back in suspects:
                earlier.attempts = int(isinstance(held_back.step, Park))
            await self._parts.ledger.release([earlier for earlier, _ in suspects])

    async def _resend(self, claim: Claim) -> None:
        self._claims.leave_out(claim.row)
        await self._binder.resend(claim)

    async def _worker(self) -> None:
        stop = self._parts.stop
        while not stop.is_set:
            try:
                claim = self._claims.ready() if self._parts.gate.has_room() else None
                if claim is None:
                    # One at a time through this door, so that each sees the others wait.
                    async with self._door:
                        await self._parts.gate.room()
                        claim = await self._claims.next()
                if claim is None:
                    return
                await self._binder.bind(claim)
            except DrainedError:
                return


def _is_unanswered(step: Step) -> bool:
    return isinstance(step, Park) and step.if_unreadable is None and step.if_absent is None


def _set_up_is_wrong(claim: Claim) -> StopReason:
    last = claim.last
    assert last is not None  # it is a suspect for its last attempt
    parts = (f"HTTP {last.http_status}" if last.http_status else "", last.code, last.message)
    words = " ".join(part for part in parts if part)
    return StopReason(
        f"none of the first {CANARIES} devices could be bound, so it is the set-up: {words}",
        hint=f"{setting_to_check(last)}; no device has failed for it",
    )
