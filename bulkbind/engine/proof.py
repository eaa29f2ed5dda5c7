"""Decide which answers prove which outcome: of binds, unbinds, and comparisons with lists.

| outcome | what proves it |
| --- | --- |
| `bound` | an answer that names the device, or a list, with a `createTime` from our first sending |
|  | (less the margin) to the answer's `Date` + 1 s (plus the margin); where that contradicts the |
|  | server's clock so far, all by that clock, or all by that `Date` |
| `already_bound` | the same with any other `createTime`; or "already bound" that a list confirms |
| `failed` | a refusal of the only request; of several, the refusal and absence |
|  | (unsent, by the user's state: see `engine.users`) |
| absent | two lists, a settling time apart, that lack it and show all else known of the user |
| `unbound` | an answer that names the device; else a request that may have been carried out, |
|  | and absence, or "no such binding" and the next list |
| `already_gone` | without such a request: absence, or "no such binding" and the next list |
| `changed` | two lists, a settling time apart, of which the last shows another device id |
| not unbound | two lists, a settling time apart, of which the last shows it under its id |

What a connection settled since its last answer that names a device is in doubt once it says
something unasked, or breaks: see `Connections`. All else proves nothing. Pure.
"""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass, replace
from math import floor
from typing import TYPE_CHECKING

from bulkbind.clock import epoch_of
from bulkbind.model import (
    Accepted,
    NoAnswer,
    Outcome,
    Record,
    Refused,
    Status,
    Unbinding,
    UnbindKind,
    UnbindStatus,
)
from bulkbind.model.wording import LACKS_KNOWN, SUCH_AS, counted

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence, Set as AbstractSet

    from bulkbind.model import Attempt, Claim, Listing

READS = 2
"""Lists, a settling time apart, that must lack a device before it counts as absent."""
CREATE_TIME_MARGIN_S = 1.0
"""A `createTime` this much outside the time of our request still counts as ours."""
DATE_S = 1.0
"""`Date` has whole seconds: the answer came up to so much later."""
_TWO_CLOCKS = (
    "the answer's Date contradicts the server's clock so far, and its createTime fits neither: it "
    "does not say who bound it"
)
_FRACTION = re.compile(r"\.(\d+)", re.ASCII)

# --- whose binding it is --------------------------------------------------------------------------


def accepted(claim: Claim, attempt: Attempt, verdict: Accepted) -> Outcome:
    """Return how a row ends whose bind was accepted: `bound` or `already_bound`."""
    is_later = was_sent_before(claim)
    first = claim.sent_at if is_later else attempt.sent_at
    created = epoch_of(verdict.create_time)
    is_ours, why = _is_ours(verdict.create_time, created, first, attempt)
    made_at = _made_by(verdict.create_time, created) if is_later and is_ours else None
    return Outcome(
        Status.BOUND if is_ours else Status.ALREADY_BOUND,
        device_id=verdict.device_id,
        create_time=verdict.create_time,
        detail=why,
        made_at=made_at,
        repeated=made_at is not None and made_at < attempt.sent_at,
    )


def found(claim: Claim, record: Record, answer: Attempt, *, was_said: bool) -> Outcome:
    """Return how a row ends that its user's list shows.

    *answer*: the list's; *was_said*: whether the server had called the device already bound.
    """
    created = epoch_of(record.create_time)
    is_ours, why = _is_ours(record.create_time, created, claim.sent_at, answer)
    came = "no answer came" if claim.doubts else "the server answered with an error"
    if claim.attempts == 0 and claim.doubts == 0:
        status, detail = Status.SKIPPED, "found on the server's list; an earlier run had sent it"
    elif was_said:
        status, detail = Status.ALREADY_BOUND, "confirmed by the server's list"
    elif is_ours:
        status, detail = Status.BOUND, f"{came}; found on the server's list"
    else:
        status = Status.ALREADY_BOUND
        detail = f"{came}; {why or 'the list shows an older binding'}"
    return Outcome(
        status,
        device_id=record.device_id,
        create_time=record.create_time,
        detail=detail,
        made_at=_made_by(record.create_time, created)
        if is_ours and was_sent_before(claim)
        else None,
    )


def absent(
    claim: Claim, if_absent: Outcome | None, *, is_own: bool, max_attempts: int
) -> Outcome | None:
    """Return how a row ends that is proven absent; None: it is sent again.

    *if_absent*: as its last answer said; *is_own*: whether this run wants it.
    """
    if if_absent is not None:
        return if_absent
    if not is_own:
        return Outcome(
            Status.WITHDRAWN, detail="not on the server's list; another run took this one's place"
        )
    if claim.attempts >= max_attempts:
        return Outcome(
            Status.FAILED,
            detail=f"no answer to {counted(claim.attempts, 'attempts')}, and not on the server's "
            "list",
        )
    return None


def was_sent_before(claim: Claim) -> bool:
    """Return whether a request before the last one may have bound it."""
    return claim.attempts > 1 or claim.doubts > 0


def _is_ours(
    text: str, created: float | None, since: float | None, answer: Attempt
) -> tuple[bool, str]:
    """Return whether we made a binding, and what its `createTime` is worth if it proves nothing.

    *text*: the `createTime`, and *created*, its moment; *since*: when we first sent, server's
    clock; *answer*: the one that shows the binding.
    """
    if created is None:
        why = "its createTime is no time with a zone, so it does not say who bound it"
        return False, why if text else "the server sent no createTime to tell by"
    if since is None:
        return False, ""
    ended = date = answer.sent_at + answer.took_s
    if answer.date is not None:
        date = answer.date
    latest_s = DATE_S + CREATE_TIME_MARGIN_S
    if abs(date - ended) > answer.took_s + latest_s:
        # One wrong Date must not decide: the request and the binding by the same of two clocks.
        for end in (ended, date):
            if end - (ended - since) - CREATE_TIME_MARGIN_S <= created <= end + latest_s:
                return True, ""
        return False, _TWO_CLOCKS
    if created > date + latest_s:
        return False, "its createTime is later than the answer, so it does not say who bound it"
    return created >= since - CREATE_TIME_MARGIN_S, ""


def _made_by(text: str, created: float | None) -> float | None:
    """Return the latest moment that a `createTime` may mean: it is rounded down to its digits.

    A request sent later is certain to have found the binding: `sent_at` is never too late.
    """
    fraction = _FRACTION.search(text)
    return None if created is None else created + 10.0 ** -(len(fraction[1]) if fraction else 0)


# --- what lists show ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Look:
    """What one list shows of the devices of its user."""

    at: float
    """Monotonic moment at which it was requested."""
    answer: Attempt
    known: AbstractSet[str]
    """Machine codes of the devices that should be there."""
    lacks: AbstractSet[str]
    """Those of them that it does not show."""
    shown: Mapping[str, tuple[Record, ...]]
    """What it shows of the devices asked for, by machine code; more than one where they differ."""
    unclear: AbstractSet[str]
    """Devices asked for that it shows in another letter case only."""
    flaw: str
    """Why it proves nothing; empty if it may."""
    is_part: bool
    """Whether it says that there is more, and so proves no absence."""

    def record(self, code: str) -> Record | None:
        """Return what it proves to be there under a machine code."""
        found = self.shown.get(code, ())
        return found[0] if len(found) == 1 and not self.flaw else None

    def shows(self, code: str, device_id: str) -> bool:
        """Return whether it shows a binding, not just its device under another id."""
        return any(record.device_id == device_id for record in self.shown.get(code, ()))

    def why_not_absent(self, code: str, besides: AbstractSet[str]) -> str:
        """Return why it does not prove, as one of `READS`, that a device is absent; else "".

        *besides*: the devices in question, of which none is evidence for another.
        """
        if why := self.why_not_whole():
            return why
        if len(self.shown.get(code, ())) > 1:
            return f"it shows {code} under more than one device id"
        if code in self.unclear:
            return f"it shows {code} in another letter case"
        if missing := self.lacks - besides:
            more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
            return f"{LACKS_KNOWN}{SUCH_AS}{min(missing)}{more}"
        if self.known and self.known <= besides:
            return "it shows no other device that is known as bound"
        return ""

    def why_not_whole(self) -> str:
        """Return why it is not the user's whole list, and nobody else's; else ""."""
        return self.flaw or ("it says that it is only a part" if self.is_part else "")

    def proves_absent(self, code: str, besides: AbstractSet[str]) -> bool:
        """Return whether it proves, as one of `READS`, that a device is absent."""
        return code not in self.shown and not self.why_not_absent(code, besides)


def look(
    listing: Listing,
    known: Mapping[str, str],
    asked: Collection[str],
    stranger: str | None,
    *,
    at: float = 0.0,
) -> Look:
    """Return what a list shows.

    Args:
        listing: The list; it must have been read.
        known: Device ids of the bindings that the ledger knows, by machine code.
        asked: Machine codes that are asked for.
        stranger: A device on it that the ledger knows as another user's, if there is one.
        at: When it was requested, monotonic.
    """
    records = listing.records
    assert records is not None
    shown: dict[str, tuple[Record, ...]] = {
        code: (records[code],) for code in asked if code in records
    }
    for record in listing.doubles:
        if record.machine_code in shown:
            shown[record.machine_code] += (record,)
    lacks = known.keys() - records.keys()
    unclear: set[str] = set()
    if lacks or len(shown) < len(asked):
        # A server may list codes in another letter case; the device id says which it is.
        ids = {record.device_id: record for record in (*records.values(), *listing.doubles)}
        same = {code: ids[known[code]] for code in lacks if known[code] in ids}
        lacks -= same.keys()
        shown |= {code: (same[code],) for code in asked if code in same}
        folded = {code.casefold() for code in records}
        unclear = {code for code in asked if code not in shown and code.casefold() in folded}
    flaw = f"it shows devices of other users, e.g. {stranger}" if stranger else ""
    return Look(at, listing.attempt, known.keys(), lacks, shown, unclear, flaw, listing.is_part)


def vanished(code: str, looks: Sequence[Look]) -> bool:
    """Return whether lists, a settling time apart, prove that a known binding has vanished."""
    return len(looks) == READS and all(look.proves_absent(code, {code}) for look in looks)


def lacked(code: str, looks: Sequence[Look]) -> bool:
    """Return whether lists, a settling time apart, lack a known binding, and others with it.

    It proves less than `vanished`: they show at least one other, and are taken at their word.
    """
    besides = looks[-1].lacks
    return len(looks) == READS and all(look.proves_absent(code, besides) for look in looks)


# --- how an unbinding ends ------------------------------------------------------------------------

_STILL_THERE = "the server did not unbind it"
_UNPROVEN = "the user's list lacks it, but nothing shows that this list is up to date"

UnbindEnd = tuple[UnbindStatus, str]
"""How an unbinding ends, and the detail for display."""


def unbound(item: Unbinding, attempt: Attempt) -> bool:
    """Return whether an answer proves by itself that a binding was taken back."""
    verdict = attempt.verdict
    return isinstance(verdict, Accepted) and verdict.device_id == item.device_id


def unsent(item: Unbinding, looks: Sequence[Look]) -> UnbindEnd | None:
    """Return how an unbinding ends that no request was sent for; None: a request decides.

    A device that moves is sent for unless it was bound anew: no list is worth two users.
    """
    if looks[-1].shows(item.machine_code, item.device_id):
        return None
    ended = _by_absence(item, looks, {item.machine_code})
    is_moved = item.kind is UnbindKind.MOVE
    return None if is_moved and ended and ended[0] is not UnbindStatus.CHANGED else ended


def by_lists(item: Unbinding, looks: Sequence[Look], besides: AbstractSet[str]) -> UnbindEnd | None:
    """Return how an unbinding ends, by its last answer and the lists since; None: not proven.

    *besides*: all that only these lists can settle.
    """
    verdict = item.last.verdict if item.last else None
    says_gone = (isinstance(verdict, Accepted) and not verdict.device_id) or (
        isinstance(verdict, Refused) and verdict.is_missing
    )
    last = looks[-1]
    if last.shows(item.machine_code, item.device_id):
        return None  # even a refusal may be another request's, and this one be carried out yet
    if says_gone and item.machine_code not in last.shown and not last.why_not_whole():
        return _gone(item)
    return _by_absence(item, looks, besides)


def to_take(claim: Claim, looks: Sequence[Look], besides: AbstractSet[str]) -> Record | Outcome:
    """Return the binding that two lists show for a row that is to be unbound, whoever bound it.

    Else how the row ends. *besides*: all that only these lists can tell.
    """
    code = claim.device.machine_code
    first, last = (look.record(code) for look in looks)
    if first is not None and last is not None and first.device_id == last.device_id:
        return replace(last, machine_code=code)
    if all(look.proves_absent(code, besides) for look in looks):
        return Outcome(Status.ALREADY_GONE, detail="not on the server's list", is_unsent=True)
    reasons = (why for look in looks if (why := look.why_not_absent(code, besides)))
    why = next(reasons, "its two lists differ")
    return Outcome(
        Status.FAILED, detail=f"the user's lists do not tell what to unbind: {why}", is_unsent=True
    )


def why_unproven(code: str, looks: Sequence[Look], besides: AbstractSet[str]) -> str:
    """Return that a device is not on the last list, and why that proves nothing."""
    reasons = (why for look in looks if (why := look.why_not_absent(code, besides)))
    why = next(reasons, "another one shows it")
    return f"not on the list, which proves nothing: {why}"


def unproven(item: Unbinding, looks: Sequence[Look]) -> UnbindEnd:
    """Return how an unbinding ends whose attempts and lists are used up."""
    is_there = looks[-1].shows(item.machine_code, item.device_id)
    return UnbindStatus.FAILED, _STILL_THERE if is_there else _UNPROVEN


def names_another(item: Unbinding) -> bool:
    """Return whether the last answer names another device."""
    verdict = item.last.verdict if item.last else None
    return isinstance(verdict, NoAnswer) and verdict.names_another


def _by_absence(
    item: Unbinding, looks: Sequence[Look], besides: AbstractSet[str]
) -> UnbindEnd | None:
    code, last = item.machine_code, looks[-1]
    if len(looks) < READS or last.why_not_whole():
        return None
    if (record := last.record(code)) is not None and record.device_id != item.device_id:
        why = f"the list shows device id {record.device_id}, bound {record.create_time or '?'}"
        return UnbindStatus.CHANGED, why
    return _gone(item) if all(look.proves_absent(code, besides) for look in looks) else None


def _gone(item: Unbinding) -> UnbindEnd:
    if not item.was_sent:
        return UnbindStatus.ALREADY_GONE, "not on the server's list"
    came = "no answer came"
    if names_another(item):
        came = "the answer named another device"
    elif item.last is not None and isinstance(item.last.verdict, Accepted):
        came = "the answer named no device"
    return UnbindStatus.UNBOUND, f"{came}; the list shows it no more"


# --- what a connection has said -------------------------------------------------------------------


MOST_CONNECTIONS = 1000
"""Connections whose rows are remembered; one that old is closed."""
_BITS = 32
_LAST = (1 << _BITS) - 1


class Connections:
    """Rows whose last answer named no device, by connection.

    One answer too many shifts all later ones, so that each belongs to an earlier request. An answer
    that names its device shows that there was none before it. Where a connection breaks, the
    answers that would have shown it may be lost.
    """

    def __init__(self) -> None:
        self._rows: dict[int, dict[tuple[int, int], tuple[array[int], array[int]]]] = {}
        """By connection: rows, and the milliseconds when their requests left, by all but the last
        32 bits of both; 8 bytes a row, as there may be many where the server never names one."""
        self._doubted: set[int] = set()

    def are_clear(self) -> bool:
        """Return whether none has anything that counts."""
        return not (self._rows or self._doubted)

    def proves(self, attempt: Attempt) -> bool:
        """Return whether an answer is to its own request, as far as its connection has shown."""
        return attempt.is_named or attempt.connection not in self._doubted

    def heard(self, row: int, attempt: Attempt) -> None:
        """Note an answer for a row: it may turn out to be another's, unless it names the device."""
        if attempt.is_named:
            if self._rows:
                self._rows.pop(attempt.connection, None)
        elif attempt.connection:
            if (said := self._rows.get(attempt.connection)) is None:
                said = self._rows[attempt.connection] = {}
                if len(self._rows) > MOST_CONNECTIONS:
                    del self._rows[next(iter(self._rows))]
            sent_at = floor(attempt.sent_at * 1000)
            alike = row >> _BITS, sent_at >> _BITS
            if (part := said.get(alike)) is None:
                part = said[alike] = (array("I"), array("I"))
            part[0].append(row & _LAST)
            part[1].append(sent_at & _LAST)

    def doubt(self, connection: int) -> dict[int, float]:
        """Note that a connection has said something unasked, or broke.

        Returns: The rows to doubt, and when the first request of each left on it.
        """
        self._doubted.add(connection)
        left: dict[int, float] = {}
        for (of_row, of_time), (rows, times) in self._rows.pop(connection, {}).items():
            for row, ms in zip(rows, times, strict=True):
                left.setdefault((of_row << _BITS) + row, ((of_time << _BITS) + ms) / 1000)
        return left
