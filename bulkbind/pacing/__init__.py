"""When a request may leave: gate, learner and width; knows neither HTTP nor ledger."""

from bulkbind.pacing.pacer import Limit, Pacer
from bulkbind.pacing.user_pacer import UserPacer

__all__ = ["Limit", "Pacer", "UserPacer"]
