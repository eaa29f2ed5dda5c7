"""What the acceptance tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

UNMEASURED = {
    "test_disk",
    "test_faults",
    "test_kill",
    "test_lists",
    "test_nights",
    "test_page",
    "test_rough",
    "test_secrets",
    "test_terminal",
    "test_upgrade",
}
"""Their processes go through code that others cover: to measure them as well would take a third
of their time."""


@pytest.fixture(autouse=True, scope="module")
def _unmeasured(request):
    """Keep coverage out of the processes of some modules."""
    with pytest.MonkeyPatch.context() as patch:
        if Path(request.fspath).stem in UNMEASURED:
            for name in ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"):
                patch.delenv(name, raising=False)
        yield
