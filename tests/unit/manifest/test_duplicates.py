"""Devices that are named again are found exactly, whatever is held in memory."""

from __future__ import annotations

import random
import resource
import tempfile
from itertools import product

import pytest
from hypothesis import HealthCheck, given, settings as effort, strategies as st

from bulkbind.errors import LedgerError
from bulkbind.manifest import duplicates
from bulkbind.manifest.duplicates import Policy, Seen, conflict, duplicate
from bulkbind.model import CheckedRow, GoodRows, Problem
from bulkbind.model.fields import FIELDS
from tests.support.rows import values

NAMES = ["a.csv", "b.csv"]
POLICIES = [Policy(*both) for both in product(("first", "error"), ("error", "first", "last"))]
devices = st.lists(
    st.tuples(st.sampled_from("AABBCDE"), st.sampled_from("uvw"), st.sampled_from(["", "Van"])),
    max_size=12,
)


def found(rows, policy, size=3):
    """Return what is said of rows, given by code, user and name, in parts of both kinds."""
    seen = Seen()
    for at in range(0, len(rows), size):
        part = rows[at : at + size]
        lines = range(at + 2, at + 2 + len(part))
        if at % 2:
            columns = list(
                zip(*(values(user, code, name) for code, user, name in part), strict=True)
            )
            seen.add(1, at, GoodRows(lines, columns, [].__iter__))
        else:
            broken = CheckedRow(1, [], values("u", "A"), (Problem("row", "row", "", "", ""),))
            checked = [
                CheckedRow(line, [], values(user, code, name or None))
                for line, (code, user, name) in zip(lines, part, strict=True)
            ]
            seen.add(0, at, [*checked, broken])
    return list(seen.repeats(NAMES, policy))


def expected(rows, policy, size=3):
    """Return the same, by looking at every pair of rows."""

    def place(at):
        return f"{NAMES[at // size * size % 2]}:{at + 2}"

    told = []
    for at, (code, user, name) in enumerate(rows):
        same = [n for n, row in enumerate(rows) if row[0] == code]
        own = [n for n in same if rows[n][1] == user]
        users = sorted({rows[n][1] for n in same})
        counting = [n for n in same if policy.on_duplicate == "first" or n == first_of(rows, n)]
        winner = {
            "error": own[0],
            "first": same[0],
            "last": first_of(rows, counting[-1]),
        }[policy.on_conflict]
        if at != own[0]:
            other = rows[own[0]][2]
            problem = duplicate(code, place(own[0]), "" if other == name else other)
            told.append((at, problem, policy.on_duplicate == "error", winner))
        elif len(users) > 1 and (policy.on_conflict == "error" or winner != at):
            facing = next(n for n in same if rows[n][1] == users[-1 if user == users[0] else 0])
            other = facing if policy.on_conflict == "error" else winner
            problem = conflict(code, place(other), rows[other][1])
            told.append((at, problem, policy.on_conflict == "error", winner))
    return told


def first_of(rows, at):
    """Return the first row of the same code and user."""
    return next(n for n, row in enumerate(rows) if row[:2] == rows[at][:2])


@given(devices, st.sampled_from(POLICIES), st.sampled_from([1, 2, 1 << 16]), st.booleans())
@effort(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_repeat_is_found_and_nothing_else(monkeypatch, rows, policy, held, collides):
    """Also where only one or two rows are held, and where the hashes of all codes are equal."""
    with monkeypatch.context() as patch:
        patch.setattr(duplicates, "_HASHES", held)
        patch.setattr(duplicates, "_SORTED", held)
        patch.setattr(duplicates, "_READ", 1 if held == 1 else 4096)
        patch.setattr(duplicates, "hash", (lambda _: -7) if collides else hash, raising=False)
        told = found(rows, policy)

    assert [(r.position, r.problem, r.is_invalid, r.counts) for r in told] == expected(rows, policy)
    assert [(r.source, r.line) for r in told] == [
        (r.position // 3 * 3 % 2, r.position + 2) for r in told
    ]


def test_repeats_far_apart_are_found_among_many(monkeypatch):
    """More rows than are held at a time of anything; half of the repeats name another user."""
    monkeypatch.setattr(duplicates, "_SORTED", 1 << 10)
    count, again = 40_000, 10_000
    rows = [(f"SN{n}", "u", "") for n in range(count)]
    rows += [(f"SN{n}", "uv"[n % 2], "") for n in range(again)]
    random.Random(7).shuffle(rows)
    told = found(rows, Policy("first", "first"), size=1_001)

    assert len(told) == again
    assert all(rows[r.counts][0] == rows[r.position][0] for r in told)
    assert {rows[r.position][0] for r in told} == {f"SN{n}" for n in range(again)}
    assert [r.position for r in told] == sorted(r.position for r in told)


def test_a_temporary_folder_that_cannot_be_used_is_told(monkeypatch, tmp_path):
    """It says what was being done, and what helps."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))

    with pytest.raises(LedgerError, match="devices seen cannot be kept") as told:
        Seen()
    assert "TMPDIR" in told.value.hint


def test_a_full_disk_is_told():
    """As where the temporary folder has no room: no device is forgotten in silence."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    codes = [f"SN{n}" for n in range(40_000)]
    rows = GoodRows(range(2, 40_002), [codes] * len(FIELDS), [].__iter__)
    seen = Seen()
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, hard))
    try:
        with pytest.raises(LedgerError, match="devices seen cannot be kept"):
            seen.add(0, 0, rows)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
