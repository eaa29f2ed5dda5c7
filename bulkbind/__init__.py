"""Bind a manifest of devices to KooDrive users, at the server's pace, and resume where it stopped.

As a library:

    settings = bulkbind.load_settings(Path("configs/koodrive-intl.yaml"), {})
    result = await bulkbind.run(["fleet.csv"], settings)

Nothing global is touched: no signal handlers, no event loop policy, no logging configuration.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bulkbind.app.adopt import adopt
    from bulkbind.app.export import export
    from bulkbind.app.plan import plan
    from bulkbind.app.rehearse import rehearse
    from bulkbind.app.reports import runs, status, write_report
    from bulkbind.app.run import resume, run
    from bulkbind.app.session.sending import RunResult
    from bulkbind.app.unbind import unbind
    from bulkbind.app.undo import undo
    from bulkbind.app.validate import validate
    from bulkbind.app.verify import verify
    from bulkbind.settings import Settings, load_settings

_HOMES = {
    "RunResult": "bulkbind.app.session.sending",
    "Settings": "bulkbind.settings",
    "adopt": "bulkbind.app.adopt",
    "export": "bulkbind.app.export",
    "load_settings": "bulkbind.settings",
    "plan": "bulkbind.app.plan",
    "rehearse": "bulkbind.app.rehearse",
    "resume": "bulkbind.app.run",
    "run": "bulkbind.app.run",
    "runs": "bulkbind.app.reports",
    "status": "bulkbind.app.reports",
    "unbind": "bulkbind.app.unbind",
    "undo": "bulkbind.app.undo",
    "validate": "bulkbind.app.validate",
    "verify": "bulkbind.app.verify",
    "write_report": "bulkbind.app.reports",
}
__all__ = [
    "RunResult",
    "Settings",
    "adopt",
    "export",
    "load_settings",
    "plan",
    "rehearse",
    "resume",
    "run",
    "runs",
    "status",
    "unbind",
    "undo",
    "validate",
    "verify",
    "write_report",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401  # whatever the name stands for
    """Import on first use, so that `bulkbind --help` need not load everything."""
    if name not in _HOMES:
        raise AttributeError(f"module 'bulkbind' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
