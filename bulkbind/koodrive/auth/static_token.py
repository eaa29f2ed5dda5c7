"""Credentials that bulkbind does not renew itself: a fixed app or token, or a fetched token."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bulkbind.errors import UsageError
from bulkbind.koodrive.auth.credential import Token
from bulkbind.koodrive.auth.renewing import Call, Made
from bulkbind.koodrive.auth.secret_sources import header_value
from bulkbind.model import Attempt, AuthExpired

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from io import FileIO

COMMAND_S = 30.0
"""How long a token command may take."""
LONGEST_OUTPUT = 1 << 16


@dataclass(slots=True)
class Given:
    """The source behind fixed credentials: it has no others."""

    is_spent = True
    is_kept = False
    advice: str
    words: str
    """The message after a refusal."""

    async def make(self, call: Call) -> Made | Attempt:  # noqa: ARG002  # the protocol's
        """Return that there are no others."""
        return Attempt(AuthExpired(advice=self.advice), "", self.words)


GIVEN_TOKEN = Given(
    advice="get a new token and set BULKBIND_TOKEN (or the token file), or check `auth: "
    "token_prefix:`; nothing was lost",
    words="the token has been refused",
)
GIVEN_APP = Given(
    advice="check app id and secret, and that they belong to this endpoint; `bulkbind doctor` "
    "looks at the clock as well",
    words="the application's signature was refused",
)


class FetchedToken:
    """Fetches the token again when it has expired."""

    is_spent = False
    is_kept = False

    def __init__(self, origin: str, prefix: str, fetch: Callable[[], Awaitable[str]]) -> None:
        self._origin = origin
        self._prefix = prefix
        self._fetch = fetch
        self._header = ""
        self.advice = f"see that {origin} gives a token that the server takes; nothing was lost"

    async def make(self, call: Call) -> Made | Attempt:  # noqa: ARG002  # the protocol's
        """Return the token, unless it is still the one that was refused."""
        try:
            header = header_value(await self._fetch(), self._origin, self._prefix)
        except UsageError as error:
            return Attempt(AuthExpired(advice=error.hint or self.advice), "", str(error))
        if header == self._header:
            words = f"the token has been refused, and {self._origin} gives no other"
            return Attempt(AuthExpired(advice=self.advice), "", words)
        self._header = header
        return Made(Token(header))


async def output_of(command: Sequence[str]) -> str:
    """Return what a command prints; it runs without a shell, its standard error is discarded.

    Raises: UsageError if it cannot be started, fails, takes too long, or prints too much.
    """
    shown = command[0]  # its arguments may hold a secret
    hint = "run it by hand to see what it says"
    # A pipe of asyncio's would be waited for as long as anything that the command has started.
    read_end, write_end = os.pipe()
    with open(read_end, "rb", buffering=0) as pipe:  # noqa: ASYNC230, PTH123  # a descriptor
        try:
            started = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=write_end,
                stderr=asyncio.subprocess.DEVNULL,
            )
        except OSError as error:
            raise UsageError(f"token command `{shown}` cannot be run: {error.strerror}") from error
        finally:
            os.close(write_end)
        try:
            async with asyncio.timeout(COMMAND_S):
                printed = await _read(pipe)
                if len(printed) <= LONGEST_OUTPUT:
                    await started.wait()
        except TimeoutError:
            raise UsageError(
                f"token command `{shown}` took longer than {COMMAND_S:g} s", hint=hint
            ) from None
        finally:
            if started.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    started.kill()
                await started.wait()
    if len(printed) > LONGEST_OUTPUT:
        most = f"{LONGEST_OUTPUT >> 10} KiB"
        raise UsageError(f"token command `{shown}` prints more than {most}", hint=hint)
    if started.returncode:
        raise UsageError(f"token command `{shown}` ended with {started.returncode}", hint=hint)
    try:
        return printed.decode()
    except UnicodeDecodeError:
        raise UsageError(f"token command `{shown}` prints what is not UTF-8", hint=hint) from None


async def _read(pipe: FileIO) -> bytes:
    """Return what comes through a pipe to its end, or a little more than LONGEST_OUTPUT."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    printed = b""
    try:
        while len(printed) <= LONGEST_OUTPUT and (block := await reader.read(LONGEST_OUTPUT)):
            printed += block
    finally:
        transport.close()
    return printed
