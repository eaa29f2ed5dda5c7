"""What the acceptance tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

MEASURED = {
    "test_bundle",
    "test_commands",
    "test_deploy",
    "test_docs",
    "test_doctor",
    "test_inbox",
    "test_manifests",
    "test_nightly",
    "test_workbench",
}
"""The processes of the other modules go through code that these and the tests of parts cover: to
measure them as well would take a third of all tests' time."""


@pytest.fixture(autouse=True, scope="module")
def _unmeasured(request):
    """Keep coverage out of the processes of the other modules."""
    with pytest.MonkeyPatch.context() as patch:
        if Path(request.fspath).stem not in MEASURED:
            for name in ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"):
                patch.delenv(name, raising=False)
        yield
