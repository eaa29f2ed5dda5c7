"""The engine: claims, attempts, pace, retry, doubt and drain; knows no HTTP and no SQL."""

from bulkbind.engine.pipeline import Pipeline
from bulkbind.engine.ports import Parts
from bulkbind.engine.stop import Breaker, StopReason, StopSignal, draining
from bulkbind.engine.taker import Taker
from bulkbind.engine.unbinder import Unbinder

__all__ = [
    "Breaker",
    "Parts",
    "Pipeline",
    "StopReason",
    "StopSignal",
    "Taker",
    "Unbinder",
    "draining",
]
