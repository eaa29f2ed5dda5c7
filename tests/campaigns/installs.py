"""bulkbind from its wheel, in three ways, each in an empty folder.

    python -m tests.campaigns.installs

Builds the wheel, and installs that file with `uv tool install`, `pipx install` and `pip install`,
each with a home of its own. The program then tells its version, shows a topic and does the demo. uv
and pipx are taken from the path, else installed for this alone; packages come from the index that
pip is set up for.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

TIMEOUT_S = 600
WAYS = {
    "uv": ("uv", "tool", "install"),
    "pipx": ("pipx", "install"),
    "pip": ("python", "-m", "pip", "install", "-q"),
}


def run(command: Sequence[str | Path], folder: Path, environ: dict[str, str]) -> str:
    """Return what a command prints. Raises: CalledProcessError, with what it said shown."""
    done = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, timeout=TIMEOUT_S,
        check=False,
    )  # fmt: skip
    if done.returncode:
        sys.stderr.write(done.stdout + done.stderr)
        done.check_returncode()
    return done.stdout


def tools_in(folder: Path) -> Path:
    """Return a folder with uv and pipx, those that the path lacks installed into it."""
    venv.create(folder, with_pip=True)
    lacking = [name for name in ("uv", "pipx") if shutil.which(name) is None]
    if lacking:
        command = [str(folder / "bin/python"), "-m", "pip", "install", "-q", *lacking]
        run(command, folder, dict(os.environ))
    return folder / "bin"


def installed(way: str, wheel: Path, home: Path, tools: Path) -> list[str]:
    """Install the wheel in one way; return what the program says of itself."""
    empty = home / "empty"
    empty.mkdir(parents=True)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("BULKBIND_")}
    environ = kept | {
        "HOME": str(home),
        "XDG_STATE_HOME": str(home / "state"),
        "PIPX_HOME": str(home / "pipx"),
        "PIPX_BIN_DIR": str(home / "bin"),
        "UV_TOOL_DIR": str(home / "uv"),
        "UV_TOOL_BIN_DIR": str(home / "bin"),
        "PATH": f"{home / 'bin'}:{tools}:{os.environ['PATH']}",
    }
    if way == "pip":
        venv.create(home, with_pip=True)
    program, *more = WAYS[way]
    run([shutil.which(program, path=environ["PATH"]) or program, *more, wheel], empty, environ)
    bulkbind = home / "bin/bulkbind"
    version = run([bulkbind, "-V"], empty, environ).strip()
    topic = run([bulkbind, "help", "words"], empty, environ).partition("\n")[0]
    run([bulkbind, "demo"], empty, environ)
    report = "report.html" if (empty / "bulkbind-report/demo/report.html").exists() else "no report"
    return [version, topic, report]


def main() -> None:
    """Install in each way, and print what came of it."""
    with tempfile.TemporaryDirectory() as folder:
        tools = tools_in(Path(folder, "tools"))
        dist = Path(folder, "dist")
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(dist)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        [wheel] = dist.glob("*.whl")
        failed = 0
        for way in WAYS:
            try:
                said = installed(way, wheel, Path(folder, f"home-{way}"), tools)
            except subprocess.CalledProcessError as error:
                said, failed = [f"failed: {error}"], 1
            sys.stdout.write(f"{way:<5} {wheel.name}: {'; '.join(said)}\n")
        sys.exit(failed)


if __name__ == "__main__":
    main()
