"""The wheel and the sdist: all that is promised is inside, and works where nothing else is."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile

import pytest

from tests.support.manual import TOPICS
from tests.support.paths import ROOT, unpack
from tests.support.processes import environment

pytestmark = pytest.mark.slow
pytest.importorskip("hatchling")


def built(source, target):
    """Build wheel and sdist of a folder, without a network."""
    command = [sys.executable, "-m", "hatchling", "build", "-d", target]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=100)
    [wheel], [sdist] = target.glob("*.whl"), target.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """Return the wheel and the sdist of the checkout, and a wheel built from that sdist."""
    folder = tmp_path_factory.mktemp("packages")
    wheel, sdist = built(ROOT, folder / "first")
    unpack(sdist, folder)
    [unpacked] = [path for path in folder.iterdir() if path.name != "first"]
    again, _ = built(unpacked, folder / "second")
    return wheel, sdist, again


def tracked(*folders):
    """Return the files of the checkout in some folders."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", *folders],  # noqa: S607  # whichever there is
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}


def test_the_wheel_holds_package_topics_settings_and_samples(packages):
    """Every file of the package, among them the settings, and samples below `share`; no test."""
    wheel, _, again = packages
    names = set(zipfile.ZipFile(wheel).namelist())

    shared = {re.sub(r"^.*\.data/data/", "", name) for name in names if ".data/data/" in name}
    assert {f"share/bulkbind/{name}" for name in tracked("samples")} == shared
    assert tracked("bulkbind") <= names
    assert {f"bulkbind/docs/{topic}.md" for topic in TOPICS} <= names
    assert not any(name.startswith("tests/") for name in names)
    assert set(zipfile.ZipFile(again).namelist()) == names


def test_the_sdist_holds_what_is_built_from_and_tested(packages):
    """Package, settings, samples, tests, README, changelog and licence."""
    _, sdist, _ = packages
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    wanted = tracked("bulkbind", "configs", "samples", "tests")
    assert wanted | {"README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml"} <= names


def test_the_wheel_works_in_an_empty_folder(packages, tmp_path):
    """Installed from its file alone, it shows topics and schemas, and plans a shared sample."""
    wheel, _, _ = packages
    place, empty = tmp_path / "place", tmp_path / "empty"
    empty.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", place, wheel], check=True, capture_output=True, timeout=100)
    program = [sys.executable, "-P", "-m", "bulkbind"]

    def said(*arguments):
        done = subprocess.run(
            [*program, *map(str, arguments)], cwd=empty, capture_output=True, text=True,
            env=environment(empty, PYTHONPATH=str(place)), timeout=60, check=True,
        )  # fmt: skip
        return done.stdout

    assert said("help", "credentials") == TOPICS["credentials"]
    assert said("schema", "summary").startswith("{")
    assert re.fullmatch(r"bulkbind, version \d+\.\d+\.\d+\n", said("-V"))
    sample = place / "share/bulkbind/samples/fleet.csv"
    assert "forecast: 7 calls" in said("plan", sample, "--endpoint", "http://127.0.0.1:9")
    assert list(empty.iterdir()) == []
