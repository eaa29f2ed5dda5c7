"""Run tests with the lowest or the newest versions of what bulkbind needs, in a venv of their own.

    python -m tests.support.versions lowest
    python -m tests.support.versions newest tests/unit -n 2

Whatever follows goes to pytest; without it, all tests run. Packages come from where pip of this
machine gets them.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

from packaging.requirements import Requirement

from tests.support.paths import ROOT

WHICH = ("lowest", "newest")


def requirements() -> list[Requirement]:
    """Return what bulkbind needs, with what its extras for users need."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    texts = project["dependencies"] + [
        text for name, texts in extras.items() if name != "dev" for text in texts
    ]
    return [Requirement(text) for text in texts]


def lowest(requirement: Requirement) -> str:
    """Return the lowest version that a requirement allows: each states one with `>=`."""
    [floor] = [each.version for each in requirement.specifier if each.operator == ">="]
    return floor


def pins() -> str:
    """Return a constraints file of the lowest versions."""
    return "".join(f"{each.name}=={lowest(each)}\n" for each in requirements())


def main(which: str, *arguments: str) -> int:
    """Make the venv, run the tests in it, and return pytest's exit code."""
    if which not in WHICH:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory(prefix=f"bulkbind-{which}-") as folder:
        home = Path(folder)
        venv.create(home / "venv", with_pip=True)
        python = home / "venv" / "bin" / "python"
        (home / "pins.txt").write_text(pins() if which == "lowest" else "", encoding="utf-8")
        install = [python, "-m", "pip", "install", "--quiet", "-c", home / "pins.txt"]
        subprocess.run([*map(str, install), "-e", f"{ROOT}[dev,xlsx,metrics,uvloop]"], check=True)
        subprocess.run([python, "-m", "pip", "list", "--format=freeze"], check=True)
        tests = [str(python), "-m", "pytest", *(arguments or ("-m", ""))]
        return subprocess.run(tests, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*(sys.argv[1:] or [""])))
