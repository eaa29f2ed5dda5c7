"""Sends a manifest with the pacer, or with one that lets everybody go: what the pacer costs.

`python -m tests.benchmarks.unpaced paced|free MANIFEST URL CONCURRENCY` prints the seconds of the
sending.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

import bulkbind
from bulkbind.pacing.pacer import Pacer
from tests.benchmarks.peers import loop_factory


class Free(Pacer):
    """Keeps count of nothing, and never holds anybody back."""

    async def permit(self, user_id: str | None = None) -> int:  # noqa: ARG002  # the protocol's
        return 0

    def report(self, *_: object) -> None:
        return

    def has_room(self) -> bool:
        return True

    def per_s(self) -> float | None:
        return None


def main() -> None:
    """Run once."""
    name, manifest, url, concurrency = sys.argv[1:]
    if name == "free":
        from bulkbind.app.session import session  # noqa: PLC0415  # only here is it looked into

        vars(session)["Pacer"] = Free  # the one part that is taken out
    with tempfile.TemporaryDirectory() as folder:
        settings = bulkbind.load_settings(
            None,
            {
                "endpoint": url,
                "auth.token": "any",
                "ledger": str(Path(folder, "ledger.db")),
                "out": str(Path(folder, "report")),
                "concurrency": concurrency,
            },
        )
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            result = runner.run(bulkbind.run([manifest], settings))
    assert result.report is not None
    print(result.report.summary.facts.sending_s)  # noqa: T201  # what it is for


if __name__ == "__main__":
    main()
