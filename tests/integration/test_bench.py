"""What the benchmarks and the acceptance tests say of a process is the process's own."""

import sys

from tests.benchmarks.bench import ran

HELD = 150_000_000


def test_the_peak_of_a_process_is_not_that_of_the_one_that_started_it(tmp_path):
    """A small process that a large one starts is measured as small."""
    held = bytearray(b"\1") * HELD
    small = ran([sys.executable, "-I", "-c", "print(6 * 7); raise SystemExit(4)"], cwd=tmp_path)
    large = ran([sys.executable, "-I", "-c", f"bytearray(b'x') * {HELD}"], cwd=tmp_path)
    assert len(held) == HELD
    assert (small.code, small.stdout) == (4, "42\n")
    assert small.peak_bytes < HELD / 3 < HELD <= large.peak_bytes
