"""The use cases: plain functions without a terminal; also the Python API."""

from bulkbind.app.demo import demo
from bulkbind.app.listener import Listener, Silent
from bulkbind.app.reports import Report, runs, write_report
from bulkbind.app.run import resume, run
from bulkbind.app.sending import RunResult
from bulkbind.app.validate import Validation, validate

__all__ = [
    "Listener",
    "Report",
    "RunResult",
    "Silent",
    "Validation",
    "demo",
    "resume",
    "run",
    "runs",
    "validate",
    "write_report",
]
