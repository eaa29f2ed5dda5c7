"""The tests' own house: where a test lies, and which tiers there are."""

from __future__ import annotations

from tests.support.paths import ROOT

TESTS = ROOT / "tests"
PACKAGE = ROOT / "bulkbind"


def test_unit_tests_mirror_the_package():
    """A unit test lies in the folder of the package it tests, or at the top, named as its module."""
    unit = TESTS / "unit"
    inside = {path.parent.relative_to(unit) for path in unit.rglob("*/test_*.py")}
    at_the_top = {path.stem.removeprefix("test_") for path in unit.glob("test_*.py")}

    assert {str(folder) for folder in inside if not (PACKAGE / folder).is_dir()} == set()
    assert at_the_top <= {path.stem for path in PACKAGE.glob("*.py")}
    assert len(inside) >= 8


def test_what_tests_share_lies_in_folders():
    """Helpers are in tests/support, campaigns in tests/campaigns; nothing lies beside them."""
    assert [path.name for path in TESTS.glob("*.py")] == ["conftest.py"]
