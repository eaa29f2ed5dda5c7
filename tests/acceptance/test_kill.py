"""The installed command as a process, killed with SIGKILL while rows are claimed, and resumed."""

from __future__ import annotations

import pytest

from tests.campaign import kill_and_resume


@pytest.mark.slow
def test_ten_kills_lose_nothing_and_guess_nothing(tmp_path):
    """Every row ends once, report and server agree, and nothing bound is posted again."""
    figures = kill_and_resume(tmp_path, rows=5_000, kills=10)

    assert figures.kills_that_struck == 10
    assert figures.resets_after_the_binding > 50
    assert figures.rows_not_exactly_once == 0
    assert figures.rows_not_bound == 0
    assert figures.bindings_not_in_the_report == 0
    assert figures.report_rows_not_bound_on_the_server == 0
    assert figures.posted_again_after_bound == 0
    assert figures.exit_code == 0
