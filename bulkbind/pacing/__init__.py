"""When a request may leave: gate, learner, width, streams, and the pacer; no HTTP, no ledger."""

from bulkbind.pacing.pacer import Limit, Pacer

__all__ = ["Limit", "Pacer"]
