"""`demo`: a whole run on an embedded sandbox; needs no account and no file."""

from __future__ import annotations

import csv
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from bulkbind.app.run import run
from bulkbind.files import replacing
from bulkbind.model.wording import counted
from bulkbind.report.summary import sentence
from bulkbind.sandbox import Sandbox, SandboxOptions, parse_fault, parse_limit
from bulkbind.settings import (
    ApiSettings,
    AuthSettings,
    ManifestSettings,
    ReadbackSettings,
    SendSettings,
    Settings,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bulkbind.app.session.listener import Listener
    from bulkbind.app.session.sending import RunResult
    from bulkbind.engine import StopSignal

HEADER = ("machine_code", "user_id", "device_name", "device_os", "asset_tag")
LIMIT = "40/s"
FAULTS = ("500=0.04", "business=0.03", "reset-before=0.02", "reset-after=0.06")


async def demo(
    out: Path, listener: Listener, say: Callable[[str], None], stop: StopSignal
) -> RunResult:
    """Bind a small fleet twice, with a limit, faults and invalid rows.

    *out*: the folder for the manifests and the report of the second run. *say* prints the steps,
    and how the first run ended. *listener*: shows progress, and is asked nothing.
    """
    options = SandboxOptions(
        limits=(parse_limit(LIMIT),),
        faults=tuple(map(parse_fault, FAULTS)),
        seed=7,
    )
    with tempfile.TemporaryDirectory(prefix="bulkbind-demo-") as folder:
        first, second = out / "monday.csv", out / "tuesday.csv"
        _write(first, monday := list(_monday()))
        _write(second, tuesday := list(_tuesday()))
        async with Sandbox(options) as sandbox:
            for number in (50, 51):
                code, user_id, *_ = _device(number)
                sandbox.bindings.bind(user_id, {"machineCode": code})
            settings = _settings(sandbox.url, Path(folder))
            say(f"A local KooDrive takes {LIMIT}, breaks connections and refuses some devices.")
            before = settings.model_copy(update={"out": Path(folder, "monday")})
            done = await run([first], before, listener=listener, stop=stop)
            if done.report is None or stop.is_set:
                return done
            say(f"Monday, {counted(len(monday), 'rows')}: {sentence(done.report.summary)}")
            more = len(tuesday) - len(monday)
            say(f"Tuesday, the same and {more:,} more, some of them with mistakes:")
            after = settings.model_copy(update={"out": out})
            return await run([second], after, listener=listener, stop=stop)


def _settings(endpoint: str, folder: Path) -> Settings:
    return Settings(
        api=ApiSettings(endpoint=endpoint, timeout=5.0),
        auth=AuthSettings(mode="token", token=SecretStr(secrets.token_hex())),
        send=SendSettings(concurrency=16, backoff_base=0.2, backoff_cap=2.0),
        doubt=ReadbackSettings(readback_settle=0.5),
        manifest=ManifestSettings(on_invalid="skip"),
        ledger=folder / "demo.db",
    )


def _device(number: int) -> tuple[str, ...]:
    return (
        f"SN{number:05d}",
        f"user_{number % 6 + 1}",
        f"Van {number}",
        ("Android 15", "iOS 18", "HarmonyOS 5")[number % 3],
        f"A-{number}",
    )


def _monday() -> Iterator[tuple[str, ...]]:
    yield from (_device(number) for number in range(1, 13))


def _tuesday() -> Iterator[tuple[str, ...]]:
    yield from _monday()
    yield from (_device(number) for number in range(20, 130))
    yield ("SN00050", "user_3", "Van 50", "Android 15", "A-50 again")
    yield ("SN00001", "user_6", "Van 1", "Android 15", "A-1 for another user")
    yield ("SN-00200", "user_2", "Van 200", "Android 15", "a hyphen in the code")
    yield ("SN00201", "user_2", "Van 201", "iOS 17.2", "a dot in the OS")
    yield ("SN00202", "", "Van 202", "iOS 18", "no user")
    yield ("SN00203", "user_2", "V" * 33, "iOS 18", "a name too long")
    yield ("", "user_2", "Van 204", "iOS 18", "no code")
    yield ("SN00205", "user 2", "Van 205", "iOS 18", "a blank in the user")


def _write(path: Path, rows: list[tuple[str, ...]]) -> None:
    with replacing(path) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(HEADER)
        table.writerows(rows)
