"""The engine: claims, attempts, pace, retry, doubt and drain; knows no HTTP and no SQL."""

from bulkbind.engine.pipeline import Pipeline
from bulkbind.engine.ports import Parts
from bulkbind.engine.stop import Breaker, StopReason, StopSignal, draining
from bulkbind.engine.unbinder import Unbinder
from bulkbind.pacing.pacer import Limit, Pacer
from bulkbind.pacing.user_pacer import UserPacer

__all__ = [
    "Breaker",
    "Limit",
    "Pacer",
    "Parts",
    "Pipeline",
    "StopReason",
    "StopSignal",
    "Unbinder",
    "UserPacer",
    "draining",
]
