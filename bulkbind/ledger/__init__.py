"""The ledger: one SQLite file per endpoint that knows how every row stands, also after a crash."""

from bulkbind.ledger.bound import BoundReader, SkippedReader
from bulkbind.ledger.health import faults
from bulkbind.ledger.ledger import Ledger
from bulkbind.ledger.outlook import Outlook, last_pace
from bulkbind.ledger.reading import RunReader, all_runs, find_run, people
from bulkbind.ledger.repeats import Policy
from bulkbind.ledger.scratch import copy_known
from bulkbind.ledger.seen import Seen
from bulkbind.ledger.store import View, reading
from bulkbind.ledger.undone import UndoReader
from bulkbind.ledger.upkeep import Pruned, bindings_of, prune, size_of

__all__ = [
    "BoundReader",
    "Ledger",
    "Outlook",
    "Policy",
    "Pruned",
    "RunReader",
    "Seen",
    "SkippedReader",
    "UndoReader",
    "View",
    "all_runs",
    "bindings_of",
    "copy_known",
    "faults",
    "find_run",
    "last_pace",
    "people",
    "prune",
    "reading",
    "size_of",
]
