"""The engine: claims, attempts, pace, retry, doubt and drain; knows no HTTP and no SQL."""

from bulkbind.engine.breaker import Breaker
from bulkbind.engine.drain import draining
from bulkbind.engine.pacer import Limit, Pacer
from bulkbind.engine.pipeline import Pipeline
from bulkbind.engine.ports import Parts
from bulkbind.engine.stop import StopReason, StopSignal
from bulkbind.engine.unbinder import Unbinder
from bulkbind.engine.user_pacer import UserPacer

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
