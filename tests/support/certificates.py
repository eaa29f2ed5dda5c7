"""A certificate for all parts of a cluster."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def certify(home: Path) -> None:
    """Write `key.pem`, `cert.pem` and its authority, `ca.pem`, as each machine has them."""
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    made += ["-nodes", "-days", "2", "-subj", "/CN=cluster", "-keyout", "key.pem"]
    subprocess.run([*made, "-out", "cert.pem"], cwd=home, check=True, capture_output=True)
    (home / "ca.pem").write_bytes((home / "cert.pem").read_bytes())
