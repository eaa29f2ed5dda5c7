"""The pacer of a command, by whose requests the server counts; and what is remembered of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from bulkbind.engine import Limit, Pacer, UserPacer
from bulkbind.engine.binder import PUT_OFF_PER_SLOT

if TYPE_CHECKING:
    from bulkbind.app.sending import Session
    from bulkbind.ledger import Ledger
    from bulkbind.settings.model import SendSettings

LIMITS = {"credential": "limit", "x-user-id": "limit_per_user"}
"""Under which name the ledger remembers the limit, by what it counts."""


def new_pacer(session: Session, learned: Limit | None = None) -> Pacer:
    """Return a pacer that begins with a limit, or with nothing."""
    send = session.settings.send
    kind = UserPacer if is_per_user(send) else Pacer
    return kind(
        session.clock, session.stop, send.rate, concurrency=send.concurrency, learned=learned
    )


async def pacer_of(session: Session, ledger: Ledger) -> Pacer:
    """Return a pacer that begins with what an earlier run learned."""
    match await ledger.recall(LIMITS[session.settings.send.rate_scope]):
        case {"per_s": int() | float() as per_s, "is_spaced": bool() as is_spaced} if per_s > 0:
            return new_pacer(session, Limit(float(per_s), is_spaced))
        case _:
            return new_pacer(session)


def is_per_user(send: SendSettings) -> bool:
    """Return whether the server counts the requests for each user apart."""
    return send.rate_scope == "x-user-id"


def slots_of(send: SendSettings) -> int:
    """Return how many rows may be with the client: rows that wait for their user's turn, too.

    What is in flight is bounded by the pacer.
    """
    return send.concurrency * (1 + PUT_OFF_PER_SLOT if is_per_user(send) else 1)


def pace_facts(pacer: Pacer, send: SendSettings) -> dict[str, object]:
    """Return what is remembered of how fast it went, and why not faster."""
    pace = pacer.pace()
    facts: dict[str, object] = {
        "requests_throttled": pacer.throttled,
        "paced_s": round(pacer.paced_s, 3),
        "cooled_s": round(pacer.cooled_s, 3),
        "rate_scope": send.rate_scope,
        "pace_per_s": None if pace is None else round(pace, 2),
        "pace_from": pacer.source(),
    }
    if (limit := pacer.limit()) is not None:
        facts[LIMITS[send.rate_scope]] = asdict(limit)
    if (in_flight := pacer.in_flight()) is not None:
        facts["limit_in_flight"] = in_flight
    return facts
