"""`validate`, `plan` and `run` say the same of devices that stand in a manifest more than once."""

from __future__ import annotations

import asyncio
import csv
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings as effort, strategies as st
from pydantic import SecretStr

import bulkbind
from bulkbind.app.session.listener import Listener
from bulkbind.errors import InvalidRowsError
from bulkbind.report.problem_text import problem_lines
from bulkbind.sandbox import Sandbox
from bulkbind.settings import ApiSettings, AuthSettings, ManifestSettings, Settings
from tests.support.manifests import write_csv
from tests.support.processes import read_results

ON_DUPLICATE = ("first", "error")
ON_CONFLICT = ("error", "first", "last")
rows = st.tuples(
    st.sampled_from(["A1", "A1", "B1", "C-1", ""]),
    st.sampled_from(["u1", "u2", "u3", "u 4"]),
    st.sampled_from(["", "Van", "Bus"]),
)
files = st.lists(st.lists(rows, max_size=6), min_size=1, max_size=3)


def expected(manifests, on_duplicate, on_conflict):
    """Return the status of every row, in order, and the row that counts for each user."""
    every = [row for manifest in manifests for row in manifest]
    found = ["invalid" if "-" in c or not c or " " in u else "" for c, u, _ in every]
    firsts: dict[tuple[str, str], int] = {}
    lasts: dict[tuple[str, str], int] = {}
    for at, (code, user, _) in enumerate(every):
        if found[at]:
            continue
        if (code, user) in firsts:
            found[at] = "invalid" if on_duplicate == "error" else "duplicate"
        else:
            firsts[code, user] = at
        if found[at] != "invalid":
            lasts[code, user] = at
    for code in {code for code, _ in firsts}:
        users = [user for c, user in firsts if c == code]
        order = firsts if on_conflict == "first" else lasts
        places = [order[code, user] for user in users]
        wins = users[places.index(min(places) if on_conflict == "first" else max(places))]
        for user in users:
            at = firsts[code, user]
            if len(users) > 1 and on_conflict == "error":
                found[at] = "invalid"
            else:
                found[at] = "bound" if user == wins else "duplicate"
    return found


async def answers(folder: Path, manifests, on_duplicate, on_conflict):
    """Return what the three say, and what `run` says where nothing may be invalid."""
    paths = [
        write_csv(folder / f"{n}.csv", manifest, ("machine_code", "user_id", "device_name"))
        for n, manifest in enumerate(manifests)
    ]
    async with Sandbox() as served:

        def reading(on_invalid):
            return Settings(
                api=ApiSettings(endpoint=served.url),
                auth=AuthSettings(token=SecretStr("any")),
                manifest=ManifestSettings(
                    on_invalid=on_invalid, on_duplicate=on_duplicate, on_conflict=on_conflict
                ),
                ledger=folder / "ledger.db",
                out=folder / "report",
            )

        checked = bulkbind.validate(paths, reading("abort"), problems=folder / "p.csv")
        planned = await bulkbind.plan(paths, reading("abort"))
        refused = ""
        try:
            await bulkbind.run(paths, reading("abort"))
        except InvalidRowsError as error:
            refused = str(error)
            await bulkbind.run(paths, reading("skip"))
    return checked, planned, refused


def problems_of(path: Path):
    """Return the rows of a file with problems, as a set that knows how often each is there."""
    with path.open(encoding="utf-8", newline="") as file:
        return Counter(tuple(row.values()) for row in csv.DictReader(file))


@pytest.mark.slow
@pytest.mark.parametrize("on_conflict", ON_CONFLICT)
@pytest.mark.parametrize("on_duplicate", ON_DUPLICATE)
@effort(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(manifests=files)
@example(manifests=[[("A1", "u1", ""), ("A1", "u2", ""), ("B1", "u1", "")]])
@example(manifests=[[("A1", "u1", "Van"), ("A1", "u2", "")], [("A1", "u1", "Bus")]])
@example(manifests=[[("A1", "u3", "")], [("A1", "u1", "")], [("A1", "u2", ""), ("A1", "u3", "")]])
def test_validate_plan_and_run_agree(manifests, on_duplicate, on_conflict):
    """Under every policy, over several files: counts, rules, first examples, every problem."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checked, planned, refused = asyncio.run(
            answers(folder, manifests, on_duplicate, on_conflict)
        )
        results = read_results(folder / "report")
        written = problems_of(folder / "p.csv")
        reported = problems_of(folder / "report" / "problems.csv")
    statuses = expected(manifests, on_duplicate, on_conflict)
    counts = Counter(statuses)

    assert [row["status"] for row in results] == statuses
    assert (checked.rows, checked.invalid, checked.duplicates) == (
        len(statuses), counts["invalid"], counts["duplicate"],
    )  # fmt: skip
    assert (planned.counts["invalid"], planned.counts["duplicate"]) == (
        counts["invalid"], counts["duplicate"],
    )  # fmt: skip
    assert planned.counts["bind"] == planned.forecast.binds == counts["bound"]
    assert planned.is_refused == bool(counts["invalid"]) == bool(refused)
    assert written == reported
    assert {broken.rule: broken.as_json() for broken in planned.broken} == checked.rules.as_json()
    for line in problem_lines(list(checked.rules), 14):
        assert line in refused


def test_the_row_that_counts_is_named(tmp_path):
    """Of the loser of a conflict `validate` says how many there are, and which row counts."""
    notices: list[str] = []

    class Noting(Listener):
        def notice(self, text):
            notices.append(text)

    rows = [("A1", "u1"), ("A1", "u2")]
    manifest = write_csv(tmp_path / "f.csv", rows, ("machine_code", "user_id"))
    for policy, line, place in (("first", 3, "2 gives it to u1"), ("last", 2, "3 gives it to u2")):
        settings = Settings(manifest=ManifestSettings.model_validate({"on_conflict": policy}))
        found = bulkbind.validate([manifest], settings, Noting())

        assert (found.duplicates, found.invalid, found.exit_code) == (1, 0, 0)
        assert notices.pop().endswith(f"e.g. {manifest}:{line}: {manifest}:{place}")
