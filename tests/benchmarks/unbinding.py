"""How fast a list is unbound, beside how fast its devices were bound.

`python -m tests.benchmarks.unbinding [DEVICES [ROUNDS]]`: binds devices of small users (20 each)
and of large ones (2,000), then unbinds them, against a sandbox in a process of its own. Prints
devices a second, the processor time of our own process for each, and the ratio; writes them as
JSON. Of several rounds, each with a server and a ledger of its own, the best of each figure counts.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import bulkbind
from tests.benchmarks.bench import say, write_json
from tests.benchmarks.peers import CONCURRENCY, loop_factory
from tests.support.manifests import fleet, write_csv
from tests.support.processes import sandbox

if TYPE_CHECKING:
    from bulkbind.settings import Settings

SIZES = {"small": 20, "large": 2_000}
"""Devices of a user."""


def _spent(
    settings: Settings, manifest: Path, devices: int, *, unbinds: bool
) -> tuple[float, float]:
    """Bind or unbind a manifest; return devices a second, and microseconds of CPU a device."""
    work = (
        bulkbind.unbind([manifest], settings, devices=devices)
        if unbinds
        else bulkbind.run([manifest], settings)
    )
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        ended = runner.run(work)
    assert ended.report is not None
    counts, facts = ended.report.summary.counts, ended.report.summary.facts
    assert counts == {"unbound" if unbinds else "bound": devices}, counts
    return devices / facts.sending_s, facts.cpu_s / devices * 1e6


def once(devices: int, of_user: int) -> dict[str, float]:
    """Bind devices and unbind them; return the figures."""
    with tempfile.TemporaryDirectory() as folder, sandbox(home=Path(folder)) as url:
        home = Path(folder)
        manifest = write_csv(home / "fleet.csv", fleet(devices, users=max(1, devices // of_user)))
        given = {"endpoint": url, "auth.token": "any", "concurrency": str(CONCURRENCY)}
        places = {"ledger": str(home / "ledger.db"), "out": str(home / "report")}
        settings = bulkbind.load_settings(None, {**given, **places})
        bind_per_s, bind_us = _spent(settings, manifest, devices, unbinds=False)
        unbind_per_s, unbind_us = _spent(settings, manifest, devices, unbinds=True)
    return {
        "bind_per_s": bind_per_s,
        "unbind_per_s": unbind_per_s,
        "bind_us": bind_us,
        "unbind_us": unbind_us,
    }


def main() -> None:
    """Measure 20,000 devices once of each size, unless told otherwise."""
    numbers = [int(text) for text in sys.argv[1:]]
    devices, rounds = numbers + [20_000, 1][len(numbers) :]
    found: dict[str, dict[str, float]] = {}
    for size, of_user in SIZES.items():
        every = [once(devices, of_user) for _ in range(rounds)]
        best = {
            name: (max if name.endswith("per_s") else min)(each[name] for each in every)
            for name in every[0]
        }
        found[size] = best | {"ratio": best["unbind_per_s"] / best["bind_per_s"]}
        told = "".join(f"  {name} {figure:.3g}" for name, figure in found[size].items())
        say(f"{size:<6} ({of_user:,} devices a user){told}")
    write_json("unbinding", {"devices": devices, "rounds": rounds, **found})


if __name__ == "__main__":
    main()
