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
    from bulkbind.app.reports import runs, write_report
    from bulkbind.app.run import resume, run
    from bulkbind.app.sending import RunResult
    from bulkbind.app.validate import validate
    from bulkbind.settings import Settings, load_settings

__all__ = [
    "RunResult",
    "Settings",
    "load_settings",
    "resume",
    "run",
    "runs",
    "validate",
    "write_report",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401  # whatever the name stands for
    """Import on first use, so that `bulkbind --help` need not load everything."""
    if name not in __all__:
        raise AttributeError(f"module 'bulkbind' has no attribute {name!r}")
    home = "bulkbind.settings" if name in ("Settings", "load_settings") else "bulkbind.app"
    return getattr(import_module(home), name)
