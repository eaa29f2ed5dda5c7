"""The ledger: one SQLite file per endpoint that knows how every row stands, also after a crash."""

from bulkbind.ledger.health import faults
from bulkbind.ledger.ledger import Ledger
from bulkbind.ledger.reading import RunReader, all_runs, find_run, people
from bulkbind.ledger.repeats import Policy
from bulkbind.ledger.seen import Seen
from bulkbind.ledger.store import reading
from bulkbind.ledger.upkeep import Pruned, bindings_of, prune, size_of

__all__ = [
    "Ledger",
    "Policy",
    "Pruned",
    "RunReader",
    "Seen",
    "all_runs",
    "bindings_of",
    "faults",
    "find_run",
    "people",
    "prune",
    "reading",
    "size_of",
]
