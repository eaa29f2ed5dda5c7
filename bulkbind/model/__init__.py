"""The nouns that every stage shares.

Imports the standard library, and msgspec for what is made for every row of a manifest: a
`msgspec.Struct` takes a third of the time of a dataclass, and none of the garbage collector's.
"""

from bulkbind.model.attempts import (
    Accepted,
    AlreadyBound,
    Attempt,
    AuthExpired,
    ClockRefused,
    Listing,
    NoAnswer,
    QuotaUsedUp,
    Record,
    Refused,
    ServerLimit,
    Throttled,
    Transient,
    Unreachable,
    Verdict,
    value,
)
from bulkbind.model.claims import Claim, Outcome, Settlement
from bulkbind.model.reports import EXTRA, PLANNED, AttemptRow, Forecast, Plan, ResultRow, RunSummary
from bulkbind.model.rows import OWN_COLUMNS, Change, CheckedRow, Device, Problem, Source
from bulkbind.model.statuses import COMES_BACK, MEANINGS, NEEDS_PERSON, PENDING, RunState, Status
from bulkbind.model.unbindings import (
    GONE,
    UNBIND_MEANINGS,
    Unbinding,
    UnbindKind,
    UnbindStatus,
    UndoneRow,
    UndoPlan,
    UndoSummary,
)

__all__ = [
    "COMES_BACK",
    "EXTRA",
    "GONE",
    "MEANINGS",
    "NEEDS_PERSON",
    "OWN_COLUMNS",
    "PENDING",
    "PLANNED",
    "UNBIND_MEANINGS",
    "Accepted",
    "AlreadyBound",
    "Attempt",
    "AttemptRow",
    "AuthExpired",
    "Change",
    "CheckedRow",
    "Claim",
    "ClockRefused",
    "Device",
    "Forecast",
    "Listing",
    "NoAnswer",
    "Outcome",
    "Plan",
    "Problem",
    "QuotaUsedUp",
    "Record",
    "Refused",
    "ResultRow",
    "RunState",
    "RunSummary",
    "ServerLimit",
    "Settlement",
    "Source",
    "Status",
    "Throttled",
    "Transient",
    "UnbindKind",
    "UnbindStatus",
    "Unbinding",
    "UndoPlan",
    "UndoSummary",
    "UndoneRow",
    "Unreachable",
    "Verdict",
    "value",
]
