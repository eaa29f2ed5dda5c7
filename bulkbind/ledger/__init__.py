"""The ledger: one SQLite file per endpoint that knows how every row stands, also after a crash."""

from bulkbind.ledger.bound import BoundReader
from bulkbind.ledger.health import faults
from bulkbind.ledger.ledger import Ledger
from bulkbind.ledger.outlook import Outlook, last_pace
from bulkbind.ledger.reading import RunReader, all_runs, find_run
from bulkbind.ledger.repeats import Policy
from bulkbind.ledger.scratch import copy_known
from bulkbind.ledger.seen import Seen
from bulkbind.ledger.store import View, reading
from bulkbind.ledger.undone import UndoReader

__all__ = [
    "BoundReader",
    "Ledger",
    "Outlook",
    "Policy",
    "RunReader",
    "Seen",
    "UndoReader",
    "View",
    "all_runs",
    "copy_known",
    "faults",
    "find_run",
    "last_pace",
    "reading",
]
