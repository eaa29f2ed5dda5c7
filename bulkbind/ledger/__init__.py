"""The ledger: one SQLite file per endpoint with the state of every row, safe against crashes."""

from bulkbind.ledger.adopting import AdoptReader, KnownBinding
from bulkbind.ledger.history import history_of_device, history_of_user
from bulkbind.ledger.leaving import unbound_by
from bulkbind.ledger.ledger import Ledger
from bulkbind.ledger.lock import Holder
from bulkbind.ledger.opening import copy_known, ledger_of, reading
from bulkbind.ledger.outlook import (
    BoundReader,
    KnownReader,
    Outlook,
    SkippedReader,
    has_bindings,
    has_met,
    has_sent,
    last_pace,
    replaced,
)
from bulkbind.ledger.reading import (
    RunName,
    RunReader,
    UndoReader,
    all_runs,
    find_run,
    people,
    places_of,
    run_names,
    went_well_at,
)
from bulkbind.ledger.runs import left_by_user
from bulkbind.ledger.scopes import LeaverReader
from bulkbind.ledger.steering import DONE, Sending, ask, done, sending
from bulkbind.ledger.store import View
from bulkbind.ledger.upkeep import (
    Pruned,
    back_up_file,
    bindings_of,
    contents,
    faults,
    prune,
    size_of,
)
