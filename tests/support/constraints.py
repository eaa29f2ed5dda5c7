"""Pin what bulkbind needs, with hashes, in `configs/constraints.txt`.

    python -m tests.support.constraints

This asks where pip of this machine gets its packages for the newest versions that go together,
and needs pip-tools (`pip install pip-tools`), which no test does. Run it with the lowest Python
that is supported: what it needs beyond the newer ones is then in the file too.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from tests.support.paths import ROOT
from tests.support.versions import requirements

PINS = ROOT / "configs" / "constraints.txt"
HEAD = """\
# What bulkbind needs, its extras included, with hashes: `python -m tests.support.constraints`.
# Use: pip install --require-hashes -r configs/constraints.txt
#      pip install --no-deps --no-build-isolation .

"""


def inputs() -> list[str]:
    """Return what is to be pinned: what bulkbind needs, also to be built."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return [*map(str, requirements()), *project["build-system"]["requires"]]


def main() -> None:
    """Write the file."""
    with tempfile.TemporaryDirectory() as folder:
        wanted, pinned = Path(folder, "in.txt"), Path(folder, "out.txt")
        wanted.write_text("\n".join(inputs()), encoding="utf-8")
        options = ("--quiet", "--generate-hashes", "--allow-unsafe", "--strip-extras")
        silent = ("--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links")
        command = [sys.executable, "-m", "piptools", "compile", *options, *silent]
        subprocess.run([*command, f"--output-file={pinned}", str(wanted)], check=True)
        PINS.write_text(HEAD + pinned.read_text(encoding="utf-8"), encoding="utf-8")


if __name__ == "__main__":
    main()
