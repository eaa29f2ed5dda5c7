"""Rows of workbooks come back as CSV, and mean the same when they are read again."""

from __future__ import annotations

from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings, strategies as st

from bulkbind.manifest import open_manifest
from bulkbind.settings import ManifestSettings
from tests.support.generated.made import differences, returned
from tests.support.generated.xlsx_files import xlsx_file
from tests.support.workbooks import USUAL, Book, Page, table


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_workbooks_of_known_meaning_are_read_right_and_come_back(seed):
    """Whatever the cells, formats and merges: no device is not what the workbook shows."""
    made = xlsx_file(Random(seed))
    with TemporaryDirectory() as folder:
        wrong = differences(made, Path(folder))

    assert [each for each in wrong if not each.startswith("loud")] == []


@pytest.mark.parametrize("error", ["#WEIRD", "#N/A", "Oops!", "#new_error?", ""])
@pytest.mark.parametrize("column", USUAL)
@pytest.mark.parametrize("is_constant", [False, True], ids=["column", "constant"])
def test_error_stays_one_whatever_its_name(tmp_path, error, column, is_constant):
    """Only the workbook says that `#WEIRD` is an error; a user may be called so."""
    cells = ["A1", "u", "Van", "linux"]
    cells[USUAL.index(column)] = f'<c t="e"><v>{error}</v></c>'
    path = Book([Page(table(cells))]).write(tmp_path / "fleet.xlsx")
    constants = {column: "K1"} if is_constant else {}
    reading = ManifestSettings(user_id="fallback", constants=constants)
    manifest = open_manifest(path, reading, path.name)
    rows = list(manifest.rows())
    again, _ = returned(manifest, rows, reading, tmp_path)

    assert [[problem.found for problem in row.problems] for row in again] == [
        [f"an error of a formula ({error or '#ERROR!'})"]
    ]
    assert [problem.rule for row in again for problem in row.problems] == [
        problem.rule for row in rows for problem in row.problems
    ]
