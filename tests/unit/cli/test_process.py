"""How the process of a command begins and ends, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import environment

IMPORTED = """
import gc, ssl, sys
from bulkbind.cli import cli
for name in ("run", "resume"):
    assert cli.get_command(None, name).name == name
import structlog
from aiohttp import connector
own = connector._SSL_CONTEXT_VERIFIED
print("rich" in sys.modules, own.cert_store_stats()["x509_ca"] > 0)
import rich.console
ssl.create_default_context().set_default_verify_paths()
print(ssl.create_default_context().cert_store_stats()["x509_ca"] > 0, gc.isenabled())
print("set_default_verify_paths" in vars(ssl.SSLContext), own.verify_mode == ssl.CERT_REQUIRED)
"""
AS_A_LIBRARY = """
import sys
from bulkbind import run
from aiohttp import connector
print("rich" in sys.modules, connector._SSL_CONTEXT_VERIFIED.cert_store_stats()["x509_ca"] > 0)
"""


def said(code, home, *words, check=0, **more):
    """Run Python code with arguments; return what it prints."""
    command = [sys.executable, "-c", code, *words]
    env = environment(home, **more)
    done = subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == check, done.stderr
    return done.stdout.split()


@pytest.fixture(scope="module")
def authorities(tmp_path_factory):
    """Return the variables of a process whose system has one certificate."""
    folder = tmp_path_factory.mktemp("authorities")
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    made += ["-nodes", "-days", "2", "-subj", "/CN=authority", "-keyout", "key.pem"]
    subprocess.run([*made, "-out", "ca.pem"], cwd=folder, check=True, capture_output=True)
    return {"SSL_CERT_FILE": str(folder / "ca.pem"), "SSL_CERT_DIR": str(folder / "none")}


@pytest.mark.slow
def test_a_command_loads_neither_rich_nor_certificates(tmp_path, authorities):
    """The own contexts of aiohttp then trust nobody; those made later are as anywhere else."""
    assert said(IMPORTED, tmp_path, **authorities) == [
        *("False", "False"),  # neither rich nor a certificate
        *("True", "True"),
        *("False", "True"),
    ]


@pytest.mark.slow
def test_the_library_leaves_the_modules_of_others_alone(tmp_path, authorities):
    """A program that uses it may rely on aiohttp's contexts, and on structlog's tracebacks."""
    assert said(AS_A_LIBRARY, tmp_path, **authorities) == ["True", "True"]


ENDING = """
import atexit, sys, threading
from bulkbind.cli import main
class Torn:
    def __del__(self):
        print("torn")
kept = Torn()
atexit.register(print, "bye")
{before}
main()
"""


def test_a_command_ends_with_its_code_and_all_that_was_left_for_the_end(tmp_path):
    """What was registered for it is called; what lies in memory is not taken apart."""
    assert said(ENDING.format(before=""), tmp_path, "--version")[-1] == "bye"
    assert said(ENDING.format(before=""), tmp_path, "no-such", check=2) == ["bye"]


def test_threads_at_work_are_waited_for(tmp_path):
    """The process ends as any other of Python then."""
    before = (
        "threading.Thread(target=lambda: (threading.main_thread().join(), print('worked'))).start()"
    )

    last = said(ENDING.format(before=before), tmp_path, "--version")[-3:]
    assert last == ["worked", "bye", "torn"]


@pytest.mark.parametrize("measures", ["sys.settrace", "sys.setprofile"])
def test_whoever_measures_a_command_sees_its_end(tmp_path, measures):
    """A profile, or what was covered, is written once the command is over."""
    before = f"import sys; {measures}(lambda *_: None)"
    code = "from bulkbind.cli import main\ntry:\n    main()\nfinally:\n    print('measured')"

    assert said(f"{before}\n{code}", tmp_path, "--version")[-1] == "measured"
    assert said(code, tmp_path, "--version")[-1] != "measured"


def test_what_cannot_be_flushed_at_the_end_is_told_as_by_python(tmp_path):
    """By its own exit code for that, and in its own words."""
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-c", ENDING.format(before="print('lost')"), "no-such"],
            cwd=tmp_path,
            env=environment(tmp_path, PYTHONUNBUFFERED=""),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    assert done.returncode == 120
    assert "No space left" in done.stderr


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_is_gone_changes_no_exit_code(tmp_path, stream):
    """What was written for it and could not be read is dropped."""
    read, write = os.pipe()
    os.close(read)
    written = f"sys.{stream}.reconfigure(line_buffering=False); sys.{stream}.write('lost')"
    code = f"import sys\nfrom bulkbind.cli.process import leave\n{written}\nleave(3)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(tmp_path, PYTHONUNBUFFERED=""),
        stdout=write if stream == "stdout" else subprocess.DEVNULL,
        stderr=write if stream == "stderr" else subprocess.DEVNULL,
        check=False,
    )
    os.close(write)

    assert done.returncode == 3
