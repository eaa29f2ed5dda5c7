"""What benchmarks share: nginx as a server that costs little, measured processes, JSON results."""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.processes import environment, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 10000000; keepalive_timeout 600s;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  {http}
  upstream answer {{ server unix:{folder}/answer.sock; keepalive 64; }}
  server {{
    listen {front};
    location / {{
      {location}
      proxy_pass http://answer; proxy_http_version 1.1; proxy_set_header Connection "";
    }}
  }}
  server {{
    listen {answer};
    default_type application/json;
    location / {{
      return 200 '{{"code":0,"msg":"success","data":{{"deviceId":"1842812272691451648",\
"deviceName":"Van","deviceOS":"Android 15","createTime":"$time_iso8601"}}}}';
    }}
  }}
}}
"""
"""A static answer to every request; it echoes no machine code. Limits hold at a server in front,
since a `return` is carried out before them."""


@contextmanager
def nginx(http: str = "", location: str = "") -> Iterator[str]:
    """Serve the static answer on loopback and yield its address.

    Args:
        http: Directives for the http block, such as `limit_req_zone …;`.
        location: Directives for the location, such as `limit_req …;`.
    """
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        sys.exit("this benchmark needs nginx: apt-get install nginx-light")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "nginx.conf")
        ours, hidden = f"127.0.0.1:{port}", f"unix:{folder}/answer.sock"
        front, answer = (ours, hidden) if location else (hidden + ".unused", ours)
        config.write_text(
            _NGINX.format(folder=folder, front=front, answer=answer, http=http, location=location),
            encoding="utf-8",
        )
        Path(folder).chmod(0o755)
        server = subprocess.Popen([program, "-c", str(config), "-e", f"{folder}/error.log"])
        try:
            _wait_for(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(10)


def _wait_for(port: int) -> None:
    until = time.monotonic() + 10
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 1):
                return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)  # noqa: TID251  # polling another process


@dataclass(frozen=True, slots=True)
class Ran:
    """A process that ended."""

    wall_s: float
    cpu_s: float
    """User and system time of the process and its children."""
    peak_bytes: int
    """Largest resident set."""
    code: int
    stdout: str
    stderr: str


_MEASURE = """
import json, os, subprocess, sys, time
began = time.monotonic()
started = subprocess.Popen(sys.argv[2:])
_, status, usage = os.wait4(started.pid, 0)
json.dump({
    "wall_s": time.monotonic() - began,
    "cpu_s": usage.ru_utime + usage.ru_stime,
    "maxrss": usage.ru_maxrss,
    "code": os.waitstatus_to_exitcode(status),
}, open(sys.argv[1], "w"))
"""
"""Starts a process from a small one. Linux counts what the parent held at the start as the
child's peak too (`setmax_mm_hiwater_rss` in `exec_mmap`, fs/exec.c), and a worker of a long
test run holds more than the process it measures."""


def ran(command: Sequence[str | Path], *, cwd: Path, **environ: str) -> Ran:
    """Run a process to its end and return what it took."""
    with (
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
        tempfile.NamedTemporaryFile("r") as took,
    ):
        subprocess.run(
            [sys.executable, "-I", "-S", "-c", _MEASURE, took.name, *map(str, command)],
            cwd=cwd, env=environment(cwd, **environ), stdin=subprocess.DEVNULL, stdout=out,
            stderr=err, check=True,
        )  # fmt: skip
        usage = json.load(took)
        out.seek(0)
        err.seek(0)
        return Ran(
            wall_s=usage["wall_s"],
            cpu_s=usage["cpu_s"],
            peak_bytes=usage["maxrss"] * (1 if sys.platform == "darwin" else 1024),
            code=usage["code"],
            stdout=out.read(),
            stderr=err.read(),
        )


def say(text: str = "") -> None:
    """Print a line of the result."""
    print(text, flush=True)  # noqa: T201  # what a benchmark is for


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def write_json(name: str, figures: Mapping[str, Any], folder: Path | None = None) -> Path:
    """Write the figures, and the machine they were measured on, to `bench-<name>.json`."""
    path = (folder or Path.cwd()) / f"bench-{name}.json"
    machine = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }
    path.write_text(
        json.dumps({"benchmark": name, "machine": machine, **figures}, indent=2) + "\n",
        encoding="utf-8",
    )
    say(f"written: {path}")
    return path


def peak_bytes() -> int:
    """Return the largest resident set of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)
