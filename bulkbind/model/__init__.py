"""The nouns that every stage shares.

Imports only the standard library and msgspec. Objects created for every row are `msgspec.Struct`s,
which take a third of the time of a dataclass and no time in the garbage collector.
"""

from bulkbind.model.attempts import (
    TIMED_OUT,
    VERDICTS,
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
)
from bulkbind.model.facts import (
    Adjustment,
    Changes,
    Chosen,
    Example,
    LimitFound,
    LiveFacts,
    Refreshed,
    RunFacts,
    TimelinePart,
    adjustment_words,
)
from bulkbind.model.problem_groups import BrokenRule, Cause, CauseKey, ProblemGroups, cause_of
from bulkbind.model.results import EXTRA, AttemptRow, Forecast, Plan, ResultRow, RunSummary
from bulkbind.model.rows import (
    CLEANING,
    OWN_COLUMNS,
    Change,
    CheckedRow,
    Claim,
    Device,
    Ended,
    GoodRows,
    Outcome,
    Problem,
    Repeat,
    Source,
    in_one_line,
)
from bulkbind.model.statuses import (
    BY_ANSWER,
    CAN_RESUME,
    COMES_BACK,
    IS_BOUND,
    IS_GONE,
    IS_OPEN,
    IS_OURS,
    IS_OVER,
    IS_PENDING,
    IS_UNCONFIRMED,
    MEANINGS,
    NEEDS_PERSON,
    PENDING,
    ROW_TRANSITIONS,
    RUN_TRANSITIONS,
    TO_SEE_TO,
    UNDO_TRANSITIONS,
    PlanWord,
    RunKind,
    RunState,
    Status,
)
from bulkbind.model.time_spent import Hold, TimeSpent, TimeUse, Waits
from bulkbind.model.unbindings import (
    GONE,
    NOT_UNBOUND,
    UNBIND_MEANINGS,
    UNBIND_PENDING,
    UNBIND_TRANSITIONS,
    Held,
    Unbinding,
    UnbindKind,
    UnbindStatus,
    UndoneRow,
    UndoPlan,
    UndoState,
    UndoSummary,
)
