"""The ledger: one SQLite file per endpoint that knows how every row stands, also after a crash."""

from bulkbind.ledger.health import faults
from bulkbind.ledger.ledger import Ledger
from bulkbind.ledger.reading import RunReader, all_runs, find_run
from bulkbind.ledger.repeats import Policy
from bulkbind.ledger.seen import Seen
from bulkbind.ledger.store import reading

__all__ = ["Ledger", "Policy", "RunReader", "Seen", "all_runs", "faults", "find_run", "reading"]
