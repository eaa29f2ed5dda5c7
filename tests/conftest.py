"""What every test runs under."""

from __future__ import annotations

import os
from types import SimpleNamespace

import aiohttp
import aioresponses.core
import hypothesis
import pytest


class ResponseWithoutWriter(aiohttp.ClientResponse):
    """What aioresponses 0.7.9 builds: aiohttp 3.14 asks for a writer that it does not give."""

    def __init__(self, *args, **kwargs) -> None:
        kwargs.setdefault("stream_writer", SimpleNamespace(output_size=0))
        super().__init__(*args, **kwargs)


# test_aioresponses_cure.py fails once it can go.
vars(aioresponses.core)["ClientResponse"] = ResponseWithoutWriter

# A slow machine is no failure; pytest-timeout ends what hangs.
hypothesis.settings.register_profile("bulkbind", deadline=None)
hypothesis.settings.load_profile("bulkbind")


@pytest.fixture(autouse=True)
def clean_environ(monkeypatch):
    """Hide the operator's own settings and ledgers from tests that run in this process."""
    for name in list(os.environ):
        if name.startswith("BULKBIND_") or name == "XDG_STATE_HOME":
            monkeypatch.delenv(name)
