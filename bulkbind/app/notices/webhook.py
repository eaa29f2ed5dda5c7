"""Requests about how a command goes, to whoever watches. Only it knows aiohttp here."""

from __future__ import annotations

import asyncio
import html
import shlex
import ssl
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import aiohttp

from bulkbind.files import read_whole
from bulkbind.redaction import learn
from bulkbind.settings import is_loopback, shared, split_address
from bulkbind.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bulkbind.clock import Clock

TRIES = 3
PAUSE_S = 2.0
"""Before the second try; twice as long before the third."""
MOST_TEXT = 3_000
"""Characters of the text; chats truncate or refuse more."""
_FINAL = (400, 401, 403, 404, 405, 410, 413)
"""HTTP statuses after which a retry is pointless."""


Signal = Literal["start", "", "fail"]
"""What a ping says: that a command began, ended well, or failed; the end of the address's path."""


class WebhookError(Exception):
    """The request failed. The message names no part of the address but the host."""


async def post(
    address_file: Path, text: str, summary: Mapping[str, Any], *, timeout_s: float, clock: Clock
) -> None:
    """Post `{"text": …, "summary": …}`; the text is what chats such as Slack show.

    *address_file*: holds only the address, a secret: https, or http to this machine. *timeout_s*:
    of each try.

    Raises: WebhookError.
    """
    # Slack interprets &, < and >.
    body = {"text": html.escape(text[:MOST_TEXT], quote=False), "summary": summary}
    await _request("webhook", address_file, "", body, timeout_s, clock)


async def ping(address_file: Path, signal: Signal, *, timeout_s: float, clock: Clock) -> None:
    """Call an address that raises an alarm where it is not called, and say nothing else.

    *address_file*, *timeout_s*: as in `post`.

    Raises: WebhookError.
    """
    await _request("ping", address_file, signal, None, timeout_s, clock)


async def _request(  # noqa: PLR0917  # those of its callers
    what: str,
    address_file: Path,
    ending: str,
    body: Mapping[str, Any] | None,
    timeout_s: float,
    clock: Clock,
) -> None:
    """Send one request, tried again where that may help. *ending*: of the address's path."""
    try:
        async with asyncio.timeout(timeout_s):
            url = await in_thread(_address, what, address_file)
    except TimeoutError:
        raise WebhookError(f"the {what}'s file {address_file} could not be read in time") from None
    parts = urlsplit(url)
    if ending:
        url = parts._replace(path=f"{parts.path.rstrip('/')}/{ending}").geturl()
    why = ""
    # aiohttp's own contexts may trust nobody: see `bulkbind.cli.process`.
    tls = await in_thread(ssl.create_default_context) if parts.scheme == "https" else True
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=tls),
        timeout=aiohttp.ClientTimeout(total=timeout_s),
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        for number in range(TRIES):
            if number:
                await clock.sleep(PAUSE_S * number)
            try:
                # A redirect would send the secret in the path elsewhere.
                async with session.request(
                    "GET" if body is None else "POST", url, json=body, allow_redirects=False
                ) as answer:
                    await answer.content.read(1 << 16)
                    if answer.ok and answer.status < 300:  # noqa: PLR2004  # HTTP status
                        return
                    why = f"HTTP {answer.status}"
                    if answer.status in _FINAL or answer.status // 100 == 3:  # noqa: PLR2004  # as above
                        break
            except TimeoutError:
                why = f"no answer within {timeout_s:g} s"
            except (aiohttp.ClientError, OSError, ValueError) as error:
                why = type(error).__name__  # its message may hold the address
    raise WebhookError(f"the {what} at {parts.hostname} did not take it: {why}")


def _address(what: str, path: Path) -> str:
    try:
        content, status = read_whole(path)
        url = content.decode("utf-8-sig").strip()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        raise WebhookError(f"the {what}'s file {path} cannot be read: {why}") from None
    learn(url.partition("://")[2].partition("/")[2])  # the host is shown
    if how := shared(path, status.st_mode):
        mend = f"chmod 600 {shlex.quote(str(path))}"
        raise WebhookError(f"the {what}'s file {path} can be {how} by others: {mend}")
    if not _is_fit(url):
        raise WebhookError(f"the {what}'s file {path} holds no https address")
    return url


def _is_fit(url: str) -> bool:
    try:
        parts, host = split_address(url)
    except ValueError:
        return False
    is_safe = parts.scheme == "https" or is_loopback(parts.hostname or "")
    return host is not None and is_safe
