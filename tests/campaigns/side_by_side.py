"""Kinds of fault, tried side by side, as each of them mostly waits."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Measured = Callable[[str, Any, Path, argparse.Namespace], dict[str, Any]]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add how many runs there are, and how many at a time."""
    add = parser.add_argument
    add("--parts", type=int, default=1, help="runs in which a kind is tried  [default: 1]")
    add("--at-once", type=int, default=1, help="runs at a time  [default: 1]")
    add("--strikes", type=int, default=50, help="of each kind  [default: 50]")
    add("--seed", type=int, default=5, help="of the moments  [default: 5]")
    add("--keep", type=Path, metavar="DIR", help="a new folder in which all evidence stays")


def results_of(
    measured: Measured,
    kinds: Mapping[str, Any],
    given: argparse.Namespace,
    seconds_of: Callable[[Any, argparse.Namespace], float],
) -> dict[str, dict[str, Any]]:
    """Return what was measured of each run, by its name; the longest ones begin first.

    Args:
        measured: Tries a kind, by its name, in a folder, and prints a line.
        kinds: By their names.
        given: The options; each run has a part of the strikes, and a seed of its own.
        seconds_of: Returns how long a kind takes, about.
    """
    runs: dict[str, tuple[Any, argparse.Namespace]] = {}
    for name, kind in sorted(kinds.items(), key=lambda item: -seconds_of(item[1], given)):
        parts = min(given.parts, given.strikes) if seconds_of(kind, given) else 1
        for part in range(parts):
            strikes = given.strikes // parts + (part < given.strikes % parts)
            options = vars(given) | {"strikes": strikes, "seed": given.seed + part}
            title = name if parts == 1 else f"{name} {part + 1}/{parts}"
            runs[title] = kind, argparse.Namespace(**options)
    pool = ProcessPoolExecutor(given.at_once, get_context("spawn"), _begin)
    try:
        begun = {
            title: pool.submit(_one, measured, title, kind, options)
            for title, (kind, options) in runs.items()
        }
        return {title: future.result() for title, future in begun.items()}
    except BaseException:
        for process in active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing is left


def _one(measured: Measured, title: str, kind: object, given: argparse.Namespace) -> dict[str, Any]:
    if given.keep is not None:
        folder = given.keep / title.replace(" ", "-").replace("/", "-of-")
        folder.mkdir(parents=True)
        return measured(title, kind, folder.resolve(), given)
    with tempfile.TemporaryDirectory() as scratch:
        return measured(title, kind, Path(scratch).resolve(), given)
