"""Staging many rows at once says of each what staging it alone says."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import groupby
from random import Random

import pytest

from bulkbind.ledger import RunReader, staging, transitions
from bulkbind.ledger.duplicates import mark_repeats
from bulkbind.ledger.opening import connect
from bulkbind.ledger.staging import Writing
from bulkbind.ledger.store import RUN_SHIFT, transaction
from bulkbind.manifest import open_manifest
from bulkbind.manifest.duplicates import Policy, Seen
from bulkbind.model import Change, CheckedRow, GoodRows
from bulkbind.settings import ManifestSettings
from tests.integration.test_ledger import (
    ENDPOINT,
    FORM,
    NOW,
    claimed,
    invalid,
    settle,
    staged,
    valid,
    values as run_values,
)
from tests.support.manifests import rows_together
from tests.support.rows import values

TOLD = (
    "SELECT * FROM rows ORDER BY id", "SELECT * FROM stored_rows ORDER BY id",
    "SELECT * FROM devices ORDER BY device", "SELECT * FROM users ORDER BY user",
    "SELECT * FROM names ORDER BY device, name", "SELECT * FROM unbindings",
)  # fmt: skip
CELLS = ("x", "a\tb", "a\\tb", "a\\nb", 'say "so"', "ü\udcff", "a\nb", "")


def manifest(chance, count, codes, odd=0.05):
    """Return rows, some of which repeat others or are named otherwise.

    *odd*: the share of those that are cleaned, broken, or of two lines.
    """
    rows = []
    line = 2
    for _ in range(count):
        code = f"SN{chance.randrange(codes)}"
        name = chance.choice(("Van", "Van", "Bus", None))
        own = values(f"u{chance.randrange(3)}", code, name)
        changes = (Change("name", "Bus!", "Bus"),) if chance.random() < odd else ()
        row = CheckedRow(line, [code, chance.choice(CELLS), "z"], own, (), changes)
        rows.append(invalid(line) if chance.random() < odd else row)
        line += 2 if chance.random() < odd else 1
    return rows


def together(rows, *, texts):
    """Return the same with those that keep every rule in parts, and their texts if they have."""
    for is_good, some in groupby(rows, key=lambda row: not (row.problems or row.changes)):
        part = list(some)
        if not is_good:
            yield from part
            continue
        columns = tuple(zip(*(row.values for row in part), strict=True))
        written = [f"{row.cells}\r\n" for row in part] if texts else None
        lines = [row.line for row in part]
        yield GoodRows(lines, columns, partial(iter, [row.cells for row in part]), written)


def stage_in(db, name, rows, **how):
    """Stage a manifest batch by batch."""
    run = staging.begin(db, run_values(name))
    staging.stage_manifest(
        db, run, 0, FORM, 0, iter(rows), rebind=False, on_batch=lambda _: None, **how
    )


@pytest.mark.parametrize("seed", range(12))
def test_rows_are_staged_alike_together_and_one_by_one(tmp_path, monkeypatch, seed):
    """In a new ledger and in one that knows some devices, with batches of all sizes."""
    chance = Random(seed)
    monkeypatch.setattr(staging, "BATCH", chance.choice((30, 100, 10_000)))
    codes = chance.choice((100, 10_000))
    known = [valid(n, f"SN{n}", f"u{n % 4}") for n in range(0, 100, 3)] if seed % 2 else []
    rows = manifest(chance, 300, codes, chance.choice((0.0, 0.02)))
    how = {"keep_duplicates": chance.random() < 0.5, "move": chance.random() < 0.5}
    told = []
    for name in ("together", "alone"):
        with closing(connect(tmp_path / name, ENDPOINT)) as db:
            settle(db, claimed(db, staged(db, "known", known), 20))
            stage_in(db, "new", together(rows, texts=False) if name == "together" else rows, **how)
            told.append([db.execute(query).fetchall() for query in TOLD])

    assert told[0] == told[1]
    assert len(told[0][0]) == len(rows) + len(known)


def test_texts_are_kept_in_place_of_cells(tmp_path):
    """As they were written, whatever they hold."""
    rows = manifest(Random(1), 60, 10_000)
    with closing(connect(tmp_path / "ledger.db", ENDPOINT)) as db:
        stage_in(db, "new", together(rows, texts=True))
        kept = dict(db.execute("SELECT line, cells ->> '$' FROM rows"))

    plain = [row for row in rows if not (row.problems or row.changes)]
    assert all(kept[row.line] == f"{row.cells}\r\n" for row in plain)


HEADER = "device_os,machine_code,user_id,device_name"
PLAIN = [f"iOS {n % 3},SN{n},u{n % 4},Van {n}" for n in range(300)]


@pytest.mark.parametrize(
    ("header", "rows", "stored"),
    [
        (HEADER, PLAIN, 0),
        (HEADER, [*PLAIN, 'iOS,SN999,u1,"Van, blue"'], 301),  # written with quotes
        (HEADER, [*PLAIN, " iOS,SN999 ,u1,Van"], 301),  # as it is not read
        (HEADER, [*PLAIN, "N/A,SN999,u1,Van"], 301),
        (HEADER, [*PLAIN, "iOS,SN-9,u1,Van"], 45),  # broken: those checked with it in small parts
        (HEADER, [*PLAIN, "iOS,SN7,u3,Van 7", "iOS,SN8,u9,Van"], 0),  # repeated
        (f"{HEADER},site", [f"{row},north" for row in PLAIN], 300),
        ("machine_code,user_id", [f"SN{n},u{n % 4}" for n in range(300)], 0),
    ],
)
def test_cells_are_kept_where_values_do_not_tell_them(tmp_path, header, rows, stored):
    """Whatever comes back is what the operator wrote, also of rows that repeat others."""
    path = tmp_path / "fleet.csv"
    path.write_text("\n".join([header, *rows, ""]))
    written = {
        row.line: row.text.rstrip("\n") or row.cells
        for row in open_manifest(path, ManifestSettings()).rows()
    }
    manifest = open_manifest(path, ManifestSettings())
    seen = Seen()
    seen.add(0, 0, list(open_manifest(path, ManifestSettings()).rows()))
    with closing(connect(tmp_path / "ledger.db", ENDPOINT)) as db:
        run = staging.begin(db, run_values("new"))
        staging.stage_manifest(
            db, run, 0, manifest.source, 0, rows_together(manifest),
            rebind=False, keep_duplicates=True, on_batch=lambda _: None,
        )  # fmt: skip
        kept = db.execute("SELECT count(*) FROM cells").fetchone()
        mark_repeats(db, run, seen.repeats(["fleet.csv"], Policy("error", "error")))
        told = {
            row.line: json.loads(row.cells or "null")
            for row in RunReader(db, run).rows(("pending", "invalid"))
        }

    assert {
        line: cells if isinstance(cells, list) else cells.rstrip("\n")
        for line, cells in told.items()
    } == written
    assert kept == (stored,)


def test_a_row_that_is_in_doubt_again_comes_back(tmp_path):
    """It was bound, and so has no cells any more, but its values tell them."""
    form = replace(FORM, header=("user", "code"), fields=("user_id", "machine_code"))
    with closing(connect(tmp_path / "ledger.db", ENDPOINT)) as db:
        run = staging.begin(db, run_values("new"))
        staging.stage_manifest(
            db, run, 0, form, 0, [valid(2, "A"), valid(3, "B")],
            rebind=False, on_batch=lambda _: None,
        )  # fmt: skip
        settle(db, claimed(db, run))
        with transaction(db):
            transitions.doubt_again(db, NOW, [(run << RUN_SHIFT) + 1])
        told = [(row.status, row.cells) for row in RunReader(db, run).rows()]

    assert told == [("bound", None), ("in_doubt", '["u", "B"]')]


def test_the_numbers_of_few_users_are_remembered(tmp_path, monkeypatch):
    """More of them are asked for again, and cost no memory."""
    monkeypatch.setattr(staging, "MOST_USERS", 10)
    rows = [valid(n, f"SN{n}", f"u{n % 25}") for n in range(100)]
    with closing(connect(tmp_path / "ledger.db", ENDPOINT)) as db:
        writing = Writing(db)
        run = staging.begin(db, run_values("new"))
        for at in range(0, 100, 5):
            staging.stage(db, run, 0, at, rows[at : at + 5], rebind=False, writing=writing)
            assert len(writing._users) <= 10
        users = [user for (user,) in db.execute("SELECT user_id FROM rows ORDER BY id")]

    assert users == [row.values[0] for row in rows]
