"""The engine: claims, attempts, pace, retry, doubt and drain; knows no HTTP and no SQL."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bulkbind.engine.pipeline import Pipeline
    from bulkbind.engine.ports import Parts
    from bulkbind.engine.stop import Breaker, StopReason, StopSignal, draining
    from bulkbind.engine.taker import Taker
    from bulkbind.engine.unbinder import Unbinder

_HOMES = {
    "Breaker": "bulkbind.engine.stop",
    "Parts": "bulkbind.engine.ports",
    "Pipeline": "bulkbind.engine.pipeline",
    "StopReason": "bulkbind.engine.stop",
    "StopSignal": "bulkbind.engine.stop",
    "Taker": "bulkbind.engine.taker",
    "Unbinder": "bulkbind.engine.unbinder",
    "draining": "bulkbind.engine.stop",
}
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


def __getattr__(name: str) -> Any:  # noqa: ANN401  # whatever the name stands for
    """Import on first use: a worker process needs a small part."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
