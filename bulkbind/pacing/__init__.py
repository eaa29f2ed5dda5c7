"""When a request may leave: gate, learner and width; knows neither HTTP nor ledger."""

from bulkbind.pacing.pacer import Limit, Pacer

__all__ = ["Limit", "Pacer"]
