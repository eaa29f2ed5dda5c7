"""Words for people that every layer uses: counts, and what an answer's code and message say."""

from __future__ import annotations

from typing import NamedTuple

from bulkbind.model.attempts import TIMED_OUT


def counted(count: int, what: str) -> str:
    """Return a number of things for display: `1 list call`, `2,000 rows`. *what*: the plural."""
    return f"{count:,} {what.removesuffix('s') if count == 1 else what}"


MINUTE_S = 60.0
HOUR_S = 60 * MINUTE_S


def span_text(seconds: float) -> str:
    """Return a duration for display: `4 s`, `12 min`, `3 h 20 min`, `24 h`."""
    if seconds < 2 * MINUTE_S:
        return f"{max(seconds, 1):,.0f} s"
    if seconds < 2 * HOUR_S:
        return f"{seconds / MINUTE_S:,.0f} min"
    hours, rest = divmod(round(seconds / MINUTE_S), 60)
    return f"{hours:,} h {rest} min" if rest else f"{hours:,} h"


def may_be_sent(count: int) -> str:
    """Return what is known of rows that were being sent when a run was cut off, as a clause."""
    return f"up to {counted(count, 'rows')} may have been sent without an answer"


def verb(count: int, one: str, many: str, *, of: int = 0) -> str:
    """Return the form of a verb that fits a count: `1 row needs`, `2 rows need`.

    *of*: how many there are, where the count is a part of them: `0 of 1 row needs`.
    """
    return one if 1 in (count, of) else many


def share(count: int, total: int, what: str, one: str, many: str) -> str:
    """Return a part of things and its verb: `0 of 1 device is`, `2 of 3 rows need`."""
    return f"{count:,} of {counted(total, what)} {verb(count, one, many, of=total)}"


class _Code(NamedTuple):
    """What a provider's code means, and what to do about it."""

    meaning: str
    to_do: str


_ROOM = "give that user room in their cloud space, then run the failed file"
_OPEN = "let that user open their cloud space, then run the failed file"
_CODES = {
    "13000101": _Code("a parameter is not accepted", ""),
    "13000102": _Code("a parameter is not accepted", ""),
    "13000301": _Code("the user's cloud space is full or not opened", _OPEN),
    "13000309": _Code("the server does not know it", ""),
    "13000311": _Code("the user's cloud space is full", _ROOM),
    "13000410": _Code(
        "this user has no right to the cloud space",
        "give that user the right, or fix the user id, then run the failed file",
    ),
    "13000412": _Code("the user's cloud space is not activated", _OPEN),
}
"""Source: the provider's table of codes, in koodrive-api.md."""


def reason(code: str, message: str) -> str:
    """Return why something ended as it did: `13000301 space missing`, `reset: connection lost`.

    A code of ours is a word; the provider's have digits. That of a time-out says what its message
    does.
    """
    code = "" if code == TIMED_OUT and message else code
    joint = ": " if code.isalpha() else " "
    return joint.join(word for word in (code, message) if word)


def explained(code: str, message: str) -> str:
    """Return the same with what the provider's code means, where it is known."""
    told = meaning(code)
    return f"{reason(code, message)}: {told}" if told else reason(code, message)


def meaning(code: str) -> str:
    """Return what a provider's code means; empty where it is not known."""
    known = _CODES.get(code)
    return known.meaning if known else ""


def to_do(code: str) -> str:
    """Return what to do about a provider's code; empty if nothing is known that helps."""
    known = _CODES.get(code)
    return known.to_do if known else ""


LACKS_KNOWN = "it lacks other devices known as bound"
"""Why a list proves nothing: it will say so until the ledger agrees with it."""
SUCH_AS = ", such as "
"""Stands in a detail before what differs from row to row; what stands before it is the reason."""
_TO_AGREE = (
    "the ledger knows devices as bound that the list lacks: `bulkbind adopt MANIFEST` "
    "compares the two, and the next run then settles the rows"
)


TO_BELIEVE = (
    "`bulkbind adopt MANIFEST` goes by lists that show others of the user, and `bulkbind run "
    "MANIFEST` then sends these alone"
)
"""What to do about known devices that lists lack, where nothing proves them gone one by one."""


def to_agree(*texts: str) -> str:
    """Return what to do where a message or detail says `LACKS_KNOWN`; empty elsewhere."""
    return _TO_AGREE if any(LACKS_KNOWN in text for text in texts) else ""


class Needing(NamedTuple):
    """A row that needs a person, as the display and `status` show it."""

    machine_code: str
    status: str
    code: str
    message: str
    detail: str

    def text(self, place: str) -> str:
        """Return it as one clause; *place*: file and line, empty if not known."""
        detail = "" if self.detail == self.message else self.detail
        why = "; ".join(part for part in (explained(self.code, self.message), detail) if part)
        device = " ".join(part for part in (place, self.machine_code) if part)
        return f"{device}: {self.status}: {why}"


def words(status: str) -> str:
    """Return a status as words."""
    return status.replace("_", " ")
