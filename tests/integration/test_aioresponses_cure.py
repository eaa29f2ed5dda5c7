"""Whether the cure in tests/conftest.py (dependencies.md, trap 1) works, and is still needed."""

from __future__ import annotations

import aiohttp
import pytest
from aioresponses import aioresponses

URL = "http://127.0.0.1/somewhere"


async def test_without_the_cure_aioresponses_still_fails():
    """Once this fails, the cure in conftest.py is no longer needed: remove both."""
    with aioresponses() as answers:
        answers.get(URL, response_class=aiohttp.ClientResponse)

        async with aiohttp.ClientSession() as session:
            with pytest.raises(TypeError, match="stream_writer"):
                await session.get(URL)


async def test_with_the_cure_an_answer_can_be_read():
    """A canned answer arrives with its status, headers and body."""
    with aioresponses() as answers:
        answers.get(URL, status=418, body=b"short and stout", headers={"Date": "today"})

        async with aiohttp.ClientSession() as session, session.get(URL) as response:
            text = await response.read()

    assert (response.status, text, response.headers["Date"]) == (418, b"short and stout", "today")
